//! The four rings of an AF_XDP socket: memory shared with the kernel, one producer and one
//! consumer each.
//!
//! Either side owns one of the two indexes and reads the other's. An index counts up for ever
//! and wraps at 2³²; the entry is the index modulo the ring's size, a power of two. A producer
//! stores its index with release order after the entries, the consumer loads it with acquire
//! order before it reads them, and likewise in the other direction.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Plain data that may lie in a ring: any bits are a value.
///
/// # Safety
/// Valid for every bit pattern, and without padding.
pub unsafe trait Entry: Copy {}

/// `struct xdp_desc`: a packet in the UMEM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Offset of its first byte in the region.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// `XDP_PKT_CONTD`, `XDP_TX_METADATA`; none is used here.
    pub options: u32,
}

// SAFETY: three integers, 16 bytes without padding.
unsafe impl Entry for Descriptor {}
// SAFETY: an integer.
unsafe impl Entry for u64 {}

/// Where the parts of a ring lie in its mapping: `struct xdp_ring_offset`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Offsets {
    pub producer: u64,
    pub consumer: u64,
    pub entries: u64,
    pub flags: u64,
}

/// Memory mapped from a socket, unmapped on drop.
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: nothing but an address range; who may touch which part of it is the rings' business.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` of `fd` at `offset`, shared and writable.
    pub fn of(fd: RawFd, offset: i64, bytes: usize) -> io::Result<Self> {
        Self::new(fd, offset, bytes, libc::MAP_SHARED | libc::MAP_POPULATE)
    }

    /// Memory of our own.
    pub fn anonymous(bytes: usize) -> io::Result<Self> {
        Self::new(-1, 0, bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
    }

    /// First byte, and how many.
    pub fn region(&self) -> (NonNull<u8>, usize) {
        (self.base, self.bytes)
    }

    fn new(fd: RawFd, offset: i64, bytes: usize, flags: i32) -> io::Result<Self> {
        // SAFETY: a fresh mapping, no address asked for.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; the rings hold an `Arc` of it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// The bytes a ring of `size` entries takes.
pub fn ring_bytes<T: Entry>(offsets: &Offsets, size: u32) -> usize {
    offsets.entries as usize + size as usize * size_of::<T>()
}

/// The side that fills a ring.
pub struct Producer<T> {
    ring: Ring<T>,
    /// The next entry to write; the kernel sees it from the next `publish` on.
    next: u32,
    /// The consumer's index as last seen.
    consumed: u32,
}

impl<T: Entry> Producer<T> {
    /// The producer's side of a ring of `size` entries in `mapping`.
    ///
    /// # Safety
    /// `size` is a power of two and `mapping` holds a ring of that many `T` at `offsets`,
    /// aligned, for which this is the only producer.
    pub unsafe fn new(mapping: Arc<Mapping>, offsets: &Offsets, size: u32) -> Self {
        // SAFETY: passed on to the caller.
        let ring = unsafe { Ring::new(mapping, offsets, size) };
        let next = ring.producer().load(Ordering::Relaxed);
        let consumed = ring.consumer().load(Ordering::Acquire);
        Self { ring, next, consumed }
    }

    /// There is room for one more.
    #[inline]
    pub fn has_room(&mut self) -> bool {
        if self.next.wrapping_sub(self.consumed) < self.ring.size {
            return true;
        }
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(self.consumed) < self.ring.size
    }

    /// Writes an entry. `false`, and nothing done, when the ring is full.
    #[inline]
    pub fn push(&mut self, entry: T) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: the index is masked, so within the ring; the consumer is past this entry and
        // reads it again only after `publish`.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Shows the consumer all that was pushed.
    #[inline]
    pub fn publish(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Entries that the consumer has not taken yet.
    #[inline]
    pub fn pending(&mut self) -> u32 {
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(self.consumed)
    }

    /// The kernel asks for a system call before it goes on with this ring.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & XDP_RING_NEED_WAKEUP != 0
    }
}

/// The side that empties a ring.
pub struct Consumer<T> {
    ring: Ring<T>,
    /// The next entry to read; the kernel may overwrite it from the next `release` on.
    next: u32,
    /// The producer's index as last seen.
    produced: u32,
}

impl<T: Entry> Consumer<T> {
    /// The consumer's side of a ring of `size` entries in `mapping`.
    ///
    /// # Safety
    /// As for [`Producer::new`], as the only consumer.
    pub unsafe fn new(mapping: Arc<Mapping>, offsets: &Offsets, size: u32) -> Self {
        // SAFETY: passed on to the caller.
        let ring = unsafe { Ring::new(mapping, offsets, size) };
        let next = ring.consumer().load(Ordering::Relaxed);
        Self { ring, next, produced: next }
    }

    /// Reads the next entry, if there is one.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            self.produced = self.ring.producer().load(Ordering::Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        // SAFETY: the index is masked, so within the ring; the producer has published this entry
        // and leaves it alone until `release`.
        let entry = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Lets the producer have the entries that were read.
    #[inline]
    pub fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}

const XDP_RING_NEED_WAKEUP: u32 = 1;

struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    _mapping: Arc<Mapping>,
}

// SAFETY: the pointers lead into the mapping, which the ring holds; a ring has one user on our
// side, wherever that runs.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// # Safety
    /// `size` is a power of two, and `offsets` lie within `mapping`, aligned.
    unsafe fn new(mapping: Arc<Mapping>, offsets: &Offsets, size: u32) -> Self {
        let base = mapping.base;
        // SAFETY: within the mapping, by the caller's word.
        unsafe {
            Self {
                producer: base.add(offsets.producer as usize).cast(),
                consumer: base.add(offsets.consumer as usize).cast(),
                flags: base.add(offsets.flags as usize).cast(),
                entries: base.add(offsets.entries as usize).cast(),
                size,
                _mapping: mapping,
            }
        }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: within the mapping, which lives as long as the ring; shared only as an atomic.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.flags.as_ref() }
    }

    #[inline]
    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked, so below `size`, and within the mapping.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: Offsets = Offsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

    /// Both sides of one ring, as the kernel and we are, with indexes that begin at `start`.
    fn ring(size: u32, start: u32) -> (Producer<u64>, Consumer<u64>) {
        let mapping = Arc::new(Mapping::anonymous(ring_bytes::<u64>(&OFFSETS, size)).unwrap());
        // SAFETY: a ring of that size, and each side made once.
        unsafe {
            let raw = Ring::<u64>::new(mapping.clone(), &OFFSETS, size);
            raw.producer().store(start, Ordering::Relaxed);
            raw.consumer().store(start, Ordering::Relaxed);
            (Producer::new(mapping.clone(), &OFFSETS, size), Consumer::new(mapping, &OFFSETS, size))
        }
    }

    #[test]
    fn nothing_is_seen_before_it_is_published_nor_reused_before_it_is_released() {
        let (mut producer, mut consumer) = ring(4, 0);
        for n in 0..4 {
            assert!(producer.push(n));
        }
        assert!(!producer.push(4));
        assert_eq!(consumer.pop(), None);
        producer.publish();
        assert_eq!(producer.pending(), 4);
        assert_eq!((consumer.pop(), consumer.pop()), (Some(0), Some(1)));
        assert!(!producer.has_room());
        consumer.release();
        assert!(producer.push(4) && producer.push(5) && !producer.push(6));
        assert_eq!(producer.pending(), 4);
    }

    #[test]
    fn order_survives_the_wrap_of_the_indexes() {
        let (mut producer, mut consumer) = ring(8, u32::MAX - 20);
        let (mut sent, mut received) = (0, 0);
        while received < 100 {
            for _ in 0..(sent % 7) + 1 {
                sent += u64::from(producer.push(sent));
            }
            producer.publish();
            while let Some(n) = consumer.pop() {
                assert_eq!(n, received);
                received += 1;
            }
            consumer.release();
        }
    }

    #[test]
    fn two_threads_agree() {
        let (mut producer, mut consumer) = ring(16, 0);
        const COUNT: u64 = 100_000;
        let writer = std::thread::spawn(move || {
            let mut n = 0;
            while n < COUNT {
                if producer.push(n) {
                    n += 1;
                    producer.publish();
                } else {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < COUNT {
            match consumer.pop() {
                Some(n) => {
                    assert_eq!(n, expected);
                    expected += 1;
                    consumer.release();
                }
                None => std::thread::yield_now(),
            }
        }
        writer.join().unwrap();
    }
}
