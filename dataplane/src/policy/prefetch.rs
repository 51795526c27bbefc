//! A hint to the processor that memory will be read.

#![allow(unsafe_code)]

/// Fetches the line of `slice[at]`. Does not ask whether there is one: a guess that the processor would often
/// get wrong. Where there is none it may wait for the page that is not there: let that be rare.
#[inline(always)]
pub(super) fn prefetch<T>(slice: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program sees, and cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(slice.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, at);
}

/// Fetches the line of `a[at.0]`, and the one `at.1` items behind, if `first`; else that of `b[at.2]`.
#[inline(always)]
pub(super) fn prefetch_either<T, U>(first: bool, a: &[T], b: &[U], at: (usize, usize, usize)) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let (a0, b) = (a.as_ptr().wrapping_add(at.0), b.as_ptr().wrapping_add(at.2).cast::<i8>());
        let (near, far) = (a0.cast::<i8>(), a0.wrapping_add(at.1).cast::<i8>());
        // Computed, not branched on.
        let mask = usize::from(first).wrapping_neg();
        let pick = |a: *const i8| b.wrapping_byte_add(a.addr().wrapping_sub(b.addr()) & mask);
        // SAFETY: a prefetch reads nothing that the program sees, and cannot fault.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(pick(near));
            _mm_prefetch::<_MM_HINT_T0>(pick(far));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (first, a, b, at);
}
