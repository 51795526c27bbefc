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
