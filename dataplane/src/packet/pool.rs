//! Frames, their owners, and vectors of packets.
//!
//! The unsafe code of this file rests on one invariant: **for each frame there is at any time
//! exactly one owner**, which is one of
//!
//! - a [`PktIdx`] value (it is neither `Copy` nor `Clone`, and only this file and `vector` make one),
//! - an entry in a [`Vector`], in a [`Pool`]'s free list or in the depot,
//! - a device that took it with [`Pool::lend`] and gives it back with [`Pool::reclaim`].
//!
//! A frame's bytes, its [`Meta`] and its key are reached only through its owner, borrowed mutably.

#![allow(unsafe_code)]

mod mapping;
mod vector;
mod view;

pub use mapping::Slab;
pub use vector::Vector;
pub use view::Packet;

use super::Meta;
use crate::net::FlowKey;
use crossbeam::queue::ArrayQueue;
use mapping::Mapping;
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes kept free in front of a received packet, for headers that are pushed later.
pub const HEADROOM: usize = 256;

/// Packets in a [`Vector`] at most, and in one run of the graph.
pub const VECTOR: usize = 256;

/// The longest packet of all: what an IP length field can say, with an Ethernet header and two VLAN tags.
pub const LONGEST: usize = 65_535 + 14 + 8;

/// Pulls the first and the last byte of `what` towards the cache: all of it, up to two lines. A hint.
#[inline(always)]
pub fn prefetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let first = std::ptr::from_ref(what).cast::<i8>();
        // SAFETY: a prefetch cannot fault; the addresses are computed without wrapping.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(first);
            if size_of::<T>() > 64 {
                _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(size_of::<T>() - 1));
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}

/// Pulls element `at` of a slice towards the cache. Does not ask whether there is one: a guess that the processor
/// would often get wrong. Where there is none it may wait for the page that is not there: let that be rare.
#[inline(always)]
pub fn prefetch_element<T>(slice: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch cannot fault, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(slice.as_ptr().wrapping_add(at).cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, at);
}

/// The one owner of a frame on its way. Dropping it leaks the frame: give it to
/// [`Pool::free`], a [`Vector`] or a device.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is dropped is leaked"]
pub struct PktIdx(u32);

/// Why the frames could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    /// Sizes that AF_XDP's aligned mode does not take.
    #[error("frame size {0} is neither 2048 nor 4096")]
    FrameSize(u32),
    /// No frames, or more than an index can name.
    #[error("{0} frames: give from 64 to 16777216")]
    Count(u32),
    /// More large buffers than there could be use for.
    #[error("{0} large buffers: give at most 65536")]
    Large(u32),
    /// The kernel had no memory of the kind asked for.
    #[error("cannot map {bytes} bytes of packet memory{}: {source}", if *.hugepages { " on hugepages" } else { "" })]
    Map {
        /// Asked for.
        bytes: usize,
        /// On hugepages.
        hugepages: bool,
        /// The kernel's word.
        source: std::io::Error,
    },
}

/// The frames of the process, their metadata, and the depot through which pools exchange
/// free ones; and large buffers, each of which holds any packet that there can be.
///
/// A large buffer is as many places of a frame one behind the other as it needs, beyond the last frame, and
/// goes by the index of the first: so an index leads to its bytes the same way, whichever it is.
pub struct Frames {
    mapping: Mapping,
    frame_size: u32,
    count: u32,
    large: u32,
    meta: Box<[UnsafeCell<Meta>]>,
    /// Meaningful with [`KEYED`](super::PacketFlags::KEYED). Apart from `meta`, which stays one cache line.
    keys: Box<[UnsafeCell<FlowKey>]>,
    depot: ArrayQueue<u32>,
    large_depot: ArrayQueue<u32>,
}

// SAFETY: bytes, metadata and key of a frame are reached only through its single owner (see the
// file's head), so no two threads touch the same ones; the depot is a concurrent queue.
unsafe impl Send for Frames {}
// SAFETY: as above.
unsafe impl Sync for Frames {}

impl Frames {
    /// Maps `count` frames of `frame_size` bytes (2,048 or 4,096), all of them in the depot.
    pub fn new(count: u32, frame_size: u32, hugepages: bool) -> Result<Arc<Self>, FramesError> {
        Self::with_large(count, frame_size, 0, hugepages)
    }

    /// The same, and `large` buffers for packets longer than a frame.
    pub fn with_large(
        count: u32,
        frame_size: u32,
        large: u32,
        hugepages: bool,
    ) -> Result<Arc<Self>, FramesError> {
        if frame_size != 2048 && frame_size != 4096 {
            return Err(FramesError::FrameSize(frame_size));
        }
        if !(64..=1 << 24).contains(&count) {
            return Err(FramesError::Count(count));
        }
        if large > 1 << 16 {
            return Err(FramesError::Large(large));
        }
        let stride = stride(frame_size);
        let places = count + large * stride;
        let bytes = places as usize * frame_size as usize;
        let mapping =
            Mapping::new(bytes, hugepages).map_err(|source| FramesError::Map { bytes, hugepages, source })?;
        let depot = ArrayQueue::new(count as usize);
        for index in 0..count {
            // The queue has room for all.
            let _ = depot.push(index);
        }
        let large_depot = ArrayQueue::new(large.max(1) as usize);
        for index in (count..places).step_by(stride as usize) {
            let _ = large_depot.push(index);
        }
        let meta = (0..places).map(|_| UnsafeCell::new(Meta::default())).collect();
        let keys = (0..places).map(|_| UnsafeCell::new(FlowKey::default())).collect();
        Ok(Arc::new(Self { mapping, frame_size, count, large, meta, keys, depot, large_depot }))
    }

    /// First byte of the frames' region and its length, to register with the kernel: large buffers are not in it.
    pub fn region(&self) -> (NonNull<u8>, usize) {
        (self.mapping.base(), self.count as usize * self.frame_size as usize)
    }

    /// Bytes a frame.
    pub fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Frames in all, large buffers apart.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Large buffers in all.
    pub fn large(&self) -> u32 {
        self.large
    }

    /// Large buffers that are free.
    pub fn large_in_depot(&self) -> usize {
        self.large_depot.len()
    }

    /// On hugepages.
    pub fn hugepages(&self) -> bool {
        self.mapping.hugepages()
    }

    /// Free frames that no pool has claimed.
    pub fn in_depot(&self) -> usize {
        self.depot.len()
    }

    /// The longest packet that fits a frame behind the headroom.
    pub fn capacity(&self) -> usize {
        self.frame_size as usize - HEADROOM
    }

    /// Takes back into the depot a frame that a device was lent, named by any offset within it:
    /// for devices that are dropped where there is no pool.
    ///
    /// # Safety
    /// As for [`Pool::reclaim`].
    pub unsafe fn give_back(&self, offset: u64) {
        // The depot has room for every frame there is.
        let _ = self.depot.push((offset / u64::from(self.frame_size)) as u32);
    }
}

/// Places of a frame that a large buffer takes.
const fn stride(frame_size: u32) -> u32 {
    ((HEADROOM + LONGEST) as u32).div_ceil(frame_size)
}

/// Where the frames are, and what stands beside them.
#[derive(Clone, Copy)]
struct Places {
    base: NonNull<u8>,
    frame_shift: u32,
    /// Bytes of a frame.
    frame_size: u32,
    /// Indexes from here on are large buffers'.
    large_from: u32,
    /// Bytes of one.
    large_size: u32,
    meta: NonNull<UnsafeCell<Meta>>,
    keys: NonNull<UnsafeCell<FlowKey>>,
}

// SAFETY: addresses into `Frames`, which may itself be sent; what they lead to is reached only
// through its owner (see the file's head).
unsafe impl Send for Places {}

impl Places {
    /// The packet of an index.
    ///
    /// # Safety
    /// The caller has the frame of this index to itself for as long as the packet lives.
    #[inline(always)]
    unsafe fn packet<'p>(self, index: u32) -> Packet<'p> {
        let Self { base, frame_shift, frame_size, large_from, large_size, meta, keys } = self;
        let size = if index < large_from { frame_size } else { large_size };
        // SAFETY: every index made by this file is below `count`, or the first of a large buffer's `stride` places, so the
        // bytes lie within the mapping, `meta` and `key` within their slices, all kept by `frames`; and nobody else has
        // them, as the caller says.
        unsafe {
            Packet {
                meta: &mut *meta.add(index as usize).as_ref().get(),
                key: &mut *keys.add(index as usize).as_ref().get(),
                frame: std::slice::from_raw_parts_mut(
                    base.as_ptr().add((index as usize) << frame_shift),
                    size as usize,
                ),
            }
        }
    }
}

/// One worker's hold on the frames: its free list, and the way to a packet's bytes.
pub struct Pool {
    frames: Arc<Frames>,
    /// Of `frames`, at hand: found once a pool, not once a packet.
    at: Places,
    free: Vec<u32>,
    /// Above this many free ones, the surplus goes to the depot.
    keep: usize,
}

impl Pool {
    /// An empty pool that keeps at most `keep` free frames to itself.
    pub fn new(frames: Arc<Frames>, keep: usize) -> Self {
        let keep = keep.max(2 * VECTOR);
        let at = Places {
            base: frames.mapping.base(),
            frame_shift: frames.frame_size.trailing_zeros(),
            frame_size: frames.frame_size,
            large_from: frames.count,
            large_size: stride(frames.frame_size) * frames.frame_size,
            meta: NonNull::from(&*frames.meta).cast(),
            keys: NonNull::from(&*frames.keys).cast(),
        };
        Self { frames, at, free: Vec::with_capacity(keep + 1), keep }
    }

    /// The region all pools share.
    pub fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    /// Free frames this pool holds.
    pub fn held(&self) -> usize {
        self.free.len()
    }

    /// A free frame, its metadata cleared; `None` when there is none anywhere.
    #[inline]
    pub fn alloc(&mut self) -> Option<PktIdx> {
        if self.free.is_empty() {
            self.refill();
        }
        let index = self.free.pop()?;
        let mut idx = PktIdx(index);
        *self.get(&mut idx).meta = Meta { data: HEADROOM as u16, ..Meta::default() };
        Some(idx)
    }

    /// A free large buffer, its metadata cleared; `None` when there is none.
    pub fn alloc_large(&mut self) -> Option<PktIdx> {
        let mut idx = PktIdx(self.frames.large_depot.pop()?);
        *self.get(&mut idx).meta = Meta { data: HEADROOM as u16, ..Meta::default() };
        Some(idx)
    }

    /// It is a large buffer, which no device can be lent.
    #[inline]
    pub fn is_large(&self, idx: &PktIdx) -> bool {
        idx.0 >= self.at.large_from
    }

    /// Moves a packet out of its large buffer into a frame. The same packet back where it does not fit one, or there is
    /// none.
    pub fn shrink(&mut self, mut large: PktIdx) -> Result<PktIdx, PktIdx> {
        let Some(mut small) = self.alloc() else { return Err(large) };
        let (from, to) = self.pair(&mut large, &mut small);
        let (at, bytes) = (usize::from(from.meta.data), from.bytes());
        let whole = bytes.len() == from.meta.len as usize;
        let room = to.frame.get_mut(at..).and_then(|room| room.get_mut(..bytes.len())).filter(|_| whole);
        let fits = room.map(|room| room.copy_from_slice(bytes)).is_some();
        if fits {
            (*to.meta, *to.key) = (*from.meta, *from.key);
        }
        let (kept, done) = if fits { (Ok(small), large) } else { (Err(large), small) };
        self.free(done);
        kept
    }

    /// Gives a frame back.
    #[inline]
    pub fn free(&mut self, idx: PktIdx) {
        if self.is_large(&idx) {
            // The depot has room for every large buffer there is.
            let _ = self.frames.large_depot.push(idx.0);
            return;
        }
        if self.free.len() == self.keep {
            self.give_surplus();
        }
        self.free.push(idx.0);
    }

    /// Gives back all frames of `vector`.
    pub fn free_all(&mut self, vector: &mut Vector) {
        while let Some(idx) = vector.pop() {
            self.free(idx);
        }
    }

    #[cold]
    fn refill(&mut self) {
        for _ in 0..VECTOR {
            let Some(index) = self.frames.depot.pop() else { break };
            self.free.push(index);
        }
    }

    #[cold]
    fn give_surplus(&mut self) {
        for _ in 0..VECTOR {
            let Some(index) = self.free.pop() else { break };
            // The depot has room for every frame there is.
            let _ = self.frames.depot.push(index);
        }
    }

    /// The packet behind `idx`.
    #[inline]
    pub fn get<'p>(&'p mut self, idx: &'p mut PktIdx) -> Packet<'p> {
        self.at(idx.0)
    }

    /// What is known of the packet behind `idx`.
    #[inline]
    pub fn meta<'p>(&'p mut self, idx: &'p mut PktIdx) -> &'p mut Meta {
        // SAFETY: every index made by this file is one of `meta`'s, and its owner is borrowed mutably for as long.
        unsafe { &mut *self.at.meta.add(idx.0 as usize).as_ref().get() }
    }

    /// The packet at `position` of `vector`.
    ///
    /// # Panics
    /// When the vector is shorter.
    #[inline]
    pub fn nth<'p>(&'p mut self, vector: &'p mut Vector, position: usize) -> Packet<'p> {
        self.at(vector.index(position))
    }

    /// Two packets at once.
    #[inline]
    pub fn pair<'p>(&'p mut self, one: &'p mut PktIdx, other: &'p mut PktIdx) -> (Packet<'p>, Packet<'p>) {
        // SAFETY: both owners are borrowed mutably for as long as the packets live, and no two owners have one index.
        unsafe { (self.at.packet(one.0), self.at.packet(other.0)) }
    }

    #[inline(always)]
    fn at(&mut self, index: u32) -> Packet<'_> {
        debug_assert!((index as usize) < self.frames.meta.len());
        // SAFETY: `index` came from the frame's owner, which the caller borrows mutably for as long as the packet lives.
        unsafe { self.at.packet(index) }
    }

    /// All packets of `vector`, in order and at once.
    pub fn all<'p>(&'p mut self, vector: &'p mut Vector) -> impl Iterator<Item = Packet<'p>> {
        let places = self.at;
        vector.indexes[..usize::from(vector.len)].iter().map(move |&index| {
            // SAFETY: the vector owns its frames, is borrowed mutably for as long as the packets live, and no two of its
            // indexes are alike: an index has one owner, and so one place.
            unsafe { places.packet(index) }
        })
    }

    /// Pulls the first bytes of the packet at `position` towards the cache, if there is one. A hint.
    #[inline(always)]
    pub fn prefetch(&self, vector: &Vector, position: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // What stands behind the vector's end is some frame, too.
            let frame = ((vector.indexes[position % VECTOR] as usize) << self.at.frame_shift) + HEADROOM;
            // SAFETY: a prefetch cannot fault; the address is computed without wrapping.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.at.base.as_ptr().wrapping_add(frame).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (vector, position);
    }

    /// The same for its metadata.
    #[inline(always)]
    pub fn prefetch_meta(&self, vector: &Vector, position: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let index = vector.indexes[position % VECTOR] as usize;
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.at.meta.as_ptr().wrapping_add(index).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (vector, position);
    }

    /// Hands a frame to a device, to receive into: its offset in the region.
    #[inline]
    pub fn lend(&mut self, idx: PktIdx) -> u64 {
        debug_assert!(!self.is_large(&idx), "a large buffer is not the kernel's to have");
        u64::from(idx.0) * u64::from(self.frames.frame_size)
    }

    /// Hands a packet to a device, to send: offset of its first byte in the region, and length.
    #[inline]
    pub fn lend_packet(&mut self, mut idx: PktIdx) -> (u64, u32) {
        let meta = *self.get(&mut idx).meta;
        (self.lend(idx) + u64::from(meta.data), meta.len)
    }

    /// Takes back a frame that a device was lent, named by any offset within it. The metadata
    /// is cleared.
    ///
    /// # Safety
    /// The frame was lent with [`lend`](Self::lend) or [`lend_packet`](Self::lend_packet) from a
    /// pool of the same region, has not been reclaimed since, and the device will not touch it
    /// any more.
    #[inline]
    pub unsafe fn reclaim(&mut self, offset: u64, len: u32) -> PktIdx {
        let size = u64::from(self.frames.frame_size);
        let mut idx = PktIdx((offset / size) as u32);
        *self.get(&mut idx).meta = Meta { data: (offset % size) as u16, len, ..Meta::default() };
        idx
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for index in self.free.drain(..) {
            let _ = self.frames.depot.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(Frames::new(1024, 2048, false).unwrap(), 512)
    }

    #[test]
    fn frames_are_conserved() {
        let mut pool = pool();
        let mut vector = Vector::default();
        while vector.room() > 0 {
            vector.push(pool.alloc().unwrap());
        }
        let mut rest = vec![];
        while let Some(idx) = pool.alloc() {
            rest.push(idx);
        }
        assert_eq!(rest.len() + vector.len(), 1024);
        pool.free_all(&mut vector);
        for idx in rest {
            pool.free(idx);
        }
        assert!(pool.held() <= 512);
        let frames = pool.frames().clone();
        assert_eq!(pool.held() + frames.in_depot(), 1024);
        drop(pool);
        assert_eq!(frames.in_depot(), 1024);
    }

    #[test]
    fn large_buffers_hold_what_no_frame_does_and_are_counted_apart() {
        for frame_size in [2048, 4096] {
            let frames = Frames::with_large(64, frame_size, 3, false).unwrap();
            let mut pool = Pool::new(frames.clone(), 64);
            assert_eq!(frames.region().1, 64 * frame_size as usize, "the kernel has nothing to do with them");
            let longest: Vec<u8> = (0..LONGEST).map(|n| n as u8).collect();
            let mut large: Vec<PktIdx> = std::iter::from_fn(|| pool.alloc_large()).collect();
            assert_eq!((large.len(), frames.large_in_depot()), (3, 0));
            for idx in &mut large {
                assert!(pool.is_large(idx));
                assert!(pool.get(idx).fill(&longest));
            }
            for idx in &mut large {
                assert_eq!(pool.get(idx).bytes(), longest);
            }
            let mut large = large.into_iter();
            let idx = pool.shrink(large.next().unwrap()).unwrap_err();
            pool.free(idx);
            let mut idx = large.next().unwrap();
            assert!(pool.get(&mut idx).fill(b"short"));
            pool.get(&mut idx).meta.l3 = 7;
            let mut idx = pool.shrink(idx).unwrap();
            assert!(!pool.is_large(&idx));
            let packet = pool.get(&mut idx);
            assert_eq!((packet.bytes(), packet.meta.l3), (&b"short"[..], 7));
            pool.free(idx);
            large.for_each(|idx| pool.free(idx));
            assert_eq!(frames.large_in_depot(), 3);
            drop(pool);
            assert_eq!(frames.in_depot(), 64);
        }
    }

    #[test]
    fn a_packet_is_what_was_filled_in() {
        let mut pool = pool();
        let mut idx = pool.alloc().unwrap();
        let mut packet = pool.get(&mut idx);
        assert!(packet.fill(b"0123456789"));
        packet.meta.l3 = packet.meta.data + 4;
        assert_eq!(packet.l3(), b"456789");
        assert!(packet.set_link_header(b"abcdef"));
        assert_eq!(packet.bytes(), b"abcdef456789");
        packet.truncate(8);
        assert_eq!(packet.bytes(), b"abcdef45");
        assert!(!packet.fill(&[0; 2048]));
        assert!(!packet.set_link_header(&[0; 300]));
        pool.free(idx);
    }

    #[test]
    fn a_noted_key_lasts_as_long_as_the_packet() {
        let mut pool = pool();
        let mut idx = pool.alloc().unwrap();
        assert_eq!(pool.get(&mut idx).key(), None);
        let key = FlowKey { sport: 7, ..FlowKey::default() };
        pool.get(&mut idx).set_key(key);
        assert_eq!(pool.get(&mut idx).reborrow().key(), Some(key));
        pool.free(idx);
        let mut again = pool.alloc().unwrap();
        assert_eq!(pool.get(&mut again).key(), None);
        pool.free(again);
    }

    #[test]
    fn lent_frames_come_back_as_themselves() {
        let mut pool = pool();
        let mut idx = pool.alloc().unwrap();
        pool.get(&mut idx).fill(b"hello");
        let (offset, len) = pool.lend_packet(idx);
        // SAFETY: lent one line above, and no device touched it.
        let mut back = unsafe { pool.reclaim(offset, len) };
        assert_eq!(pool.get(&mut back).bytes(), b"hello");
        pool.free(back);
    }

    #[test]
    fn draining_in_part_keeps_the_rest_in_order() {
        let mut pool = pool();
        let mut vector = Vector::default();
        for n in 0..5u8 {
            let mut idx = pool.alloc().unwrap();
            pool.get(&mut idx).fill(&[n]);
            vector.push(idx);
        }
        for idx in vector.drain().take(2) {
            pool.free(idx);
        }
        let left: Vec<u8> = (0..vector.len()).map(|k| pool.nth(&mut vector, k).bytes()[0]).collect();
        assert_eq!(left, [2, 3, 4]);
        pool.free_all(&mut vector);
    }

    #[test]
    fn sizes_are_checked() {
        assert!(matches!(Frames::new(64, 1000, false), Err(FramesError::FrameSize(1000))));
        assert!(matches!(Frames::new(1, 2048, false), Err(FramesError::Count(1))));
    }
}
