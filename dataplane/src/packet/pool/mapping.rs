//! Memory from the kernel, on hugepages where there are any: for packets, and for tables of many
//! megabytes, whose every lookup would else miss the translation of its address, too.

#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of a hugepage.
const HUGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// A region of zeros at first, and nobody else's.
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    hugepages: bool,
}

// SAFETY: an address range that is its own; who may touch what in it is the user's to say.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least `bytes`, on hugepages or not, all of them there at once.
    pub fn new(bytes: usize, hugepages: bool) -> std::io::Result<Self> {
        Self::with(bytes, hugepages, libc::MAP_POPULATE)
    }

    /// At least `bytes` on ordinary pages, that come when they are touched: larger ones, where the
    /// kernel has them and is left the choice.
    fn lazy(bytes: usize) -> std::io::Result<Self> {
        let mapping = Self::with(bytes, false, 0)?;
        // SAFETY: advice about a range that was just mapped; refused, it is as if not given.
        unsafe { libc::madvise(mapping.base.as_ptr().cast(), mapping.bytes, libc::MADV_HUGEPAGE) };
        Ok(mapping)
    }

    fn with(bytes: usize, hugepages: bool, populate: i32) -> std::io::Result<Self> {
        let bytes = bytes.max(1).next_multiple_of(if hugepages { HUGE } else { PAGE });
        let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate;
        if hugepages {
            flags |= libc::MAP_HUGETLB | (21 << libc::MAP_HUGE_SHIFT);
        }
        // SAFETY: a fresh anonymous mapping, no address asked for.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes, hugepages })
    }

    /// Its first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// On hugepages.
    pub fn hugepages(&self) -> bool {
        self.hugepages
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; who uses it owns it, and so is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A slice that never changes its length: on hugepages if it is asked to be, fills one at least,
/// and there are enough free; else on ordinary pages, transparently larger where the kernel can.
pub struct Slab<T> {
    mapping: Mapping,
    len: usize,
    values: std::marker::PhantomData<T>,
}

impl<T: Copy> Slab<T> {
    /// `len` times `value`.
    ///
    /// # Panics
    /// When there is no memory for it at all, as any allocation would.
    pub fn new(len: usize, value: T, hugepages: bool) -> Self {
        const { assert!(align_of::<T>() <= PAGE) };
        let bytes = len.checked_mul(size_of::<T>()).expect("a table fits the address space");
        let large = hugepages && bytes >= HUGE;
        let mapping = large.then(|| Mapping::new(bytes, true).ok()).flatten();
        let mapping =
            mapping.or_else(|| if large { Mapping::lazy(bytes) } else { Mapping::new(bytes, false) }.ok());
        let mapping = mapping.unwrap_or_else(|| panic!("no memory for a table of {bytes} bytes"));
        let first = mapping.base().cast::<T>();
        for at in 0..len {
            // SAFETY: the mapping has room for `len` values and is aligned to a page, which is
            // enough for `T`; nothing was there before that had to be dropped.
            unsafe { first.add(at).write(value) };
        }
        Self { mapping, len, values: std::marker::PhantomData }
    }

    /// On hugepages.
    pub fn hugepages(&self) -> bool {
        self.mapping.hugepages()
    }
}

impl<T> Deref for Slab<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` wrote `len` values there, and they are borrowed as long as the slab is.
        unsafe { std::slice::from_raw_parts(self.mapping.base().cast().as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Slab<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.base().cast().as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_a_slice_with_or_without_hugepages() {
        for (len, hugepages) in [(0, false), (1, true), (3_000, false), (400_000, true)] {
            let mut slab = Slab::new(len, [7u64; 2], hugepages);
            assert_eq!(slab.len(), len);
            assert!(slab.iter().all(|value| *value == [7; 2]));
            for (at, value) in slab.iter_mut().enumerate() {
                value[1] = at as u64;
            }
            assert!(slab.iter().enumerate().all(|(at, value)| *value == [7, at as u64]));
            assert!(!slab.hugepages() || hugepages && len * 16 >= HUGE);
        }
    }
}
