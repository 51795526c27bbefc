//! Packets on their way together.

use super::{PktIdx, VECTOR};

/// Up to [`VECTOR`] packets. Owns them.
pub struct Vector {
    pub(super) len: u16,
    pub(super) indexes: [u32; VECTOR],
}

impl Default for Vector {
    fn default() -> Self {
        Self { len: 0, indexes: [0; VECTOR] }
    }
}

impl Vector {
    /// Packets within.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// None within.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The frame at `position`.
    #[inline(always)]
    pub(super) fn index(&self, position: usize) -> u32 {
        assert!(position < usize::from(self.len), "position {position} is behind the vector's end");
        self.indexes[position % VECTOR]
    }

    /// How many more fit.
    #[inline]
    pub fn room(&self) -> usize {
        VECTOR - self.len()
    }

    /// Adds a packet at the end.
    ///
    /// # Panics
    /// When the vector is full.
    #[inline]
    pub fn push(&mut self, idx: PktIdx) {
        self.indexes[usize::from(self.len)] = idx.0;
        self.len += 1;
    }

    /// Takes the last packet.
    #[inline]
    pub fn pop(&mut self) -> Option<PktIdx> {
        self.len = self.len.checked_sub(1)?;
        Some(PktIdx(self.indexes[usize::from(self.len)]))
    }

    /// Moves all packets of `other` to the end of this one, in order.
    ///
    /// # Panics
    /// When they do not fit.
    #[inline]
    pub fn append(&mut self, other: &mut Self) {
        let (have, more) = (self.len(), other.len());
        self.indexes[have..have + more].copy_from_slice(&other.indexes[..more]);
        self.len += other.len;
        other.len = 0;
    }

    /// Takes the packets out, first to last. Those not taken stay, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = PktIdx> + '_ {
        // Emptied first: should the iterator be forgotten, frames leak, but none has two owners.
        let len = std::mem::take(&mut self.len);
        Drain { vector: self, next: 0, len }
    }

    /// Distributes the packets: the one at position `k` goes to `pick(k)`.
    ///
    /// # Panics
    /// When one of the targets is full.
    #[inline]
    pub fn scatter(&mut self, targets: &mut [Self], mut pick: impl FnMut(usize) -> usize) {
        for (position, &index) in self.indexes[..usize::from(self.len)].iter().enumerate() {
            targets[pick(position)].push(PktIdx(index));
        }
        self.len = 0;
    }
}

struct Drain<'v> {
    vector: &'v mut Vector,
    next: u16,
    len: u16,
}

impl Iterator for Drain<'_> {
    type Item = PktIdx;

    #[inline]
    fn next(&mut self) -> Option<PktIdx> {
        (self.next < self.len).then(|| {
            self.next += 1;
            PktIdx(self.vector.indexes[usize::from(self.next) - 1])
        })
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        let (from, to) = (usize::from(self.next), usize::from(self.len));
        self.vector.indexes.copy_within(from..to, 0);
        self.vector.len = (to - from) as u16;
    }
}
