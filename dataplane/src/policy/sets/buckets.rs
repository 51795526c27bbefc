//! A hash table from members to classes that shares structure with its predecessors.
//!
//! A bucket is a cache line, with keys and classes apart, so that all keys are compared at once and
//! no branch depends on which one fits. A key stands in the first line with room, from its own on;
//! a search ends at a line that is not full. The lines are cut into shards by hash: one, then 64,
//! then 4,096. Each shard grows alone, and a change copies one shard (4 KiB at a million IPv4
//! members) and the page that leads to it. Hashes are keyed: whoever names the members cannot aim them.

use super::class::Class;
use crate::packet::prefetch_element;
use std::fmt;
use std::sync::Arc;

/// Shards in one page, and pages, once there are many members.
const FAN: usize = 64;
/// Members of one shard on average, above which there come to be more shards.
const CROWDED: usize = 384;

/// The secret of the hashes: an odd factor. The upper half of a product depends on all of a 32-bit
/// key, and collides as chance does (Dietzfelbinger et al., 1997); longer keys are mixed word by word.
/// The uppermost bits choose the shard, those from bit 32 on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashKey(u64);

impl HashKey {
    pub(super) const fn new(seed: u64) -> Self {
        Self(splitmix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    #[inline]
    const fn product(self, value: u64) -> u64 {
        value.wrapping_mul(self.0)
    }

    #[inline]
    const fn mix(self, value: u64) -> u64 {
        let once = self.product(value ^ self.0.rotate_left(32));
        self.product(once ^ once >> 32)
    }
}

/// The first output of SplitMix64 (Steele, Lea, Flood 2014) behind `state`.
const fn splitmix(state: u64) -> u64 {
    let once = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let twice = (once ^ once >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    twice ^ twice >> 31
}

/// What can be a key.
pub(super) trait Word: Copy + Eq + Default {
    fn hash(self, key: HashKey) -> u64;
}

impl Word for u32 {
    #[inline]
    fn hash(self, key: HashKey) -> u64 {
        key.product(u64::from(self))
    }
}

impl Word for u64 {
    #[inline]
    fn hash(self, key: HashKey) -> u64 {
        key.mix(self)
    }
}

impl Word for u128 {
    #[inline]
    fn hash(self, key: HashKey) -> u64 {
        key.mix(key.mix((self >> 64) as u64) ^ self as u64)
    }
}

impl Word for [u32; 5] {
    #[inline]
    fn hash(self, key: HashKey) -> u64 {
        let [a, b, c, d, e] = self.map(u64::from);
        key.mix(key.mix(key.mix(a << 32 | b) ^ (c << 32 | d)) ^ e)
    }
}

/// `N` members: as many as fit a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line<K, const N: usize> {
    keys: [K; N],
    /// Zero: no member here.
    classes: [u32; N],
}

impl<K: Word, const N: usize> Line<K, N> {
    fn empty() -> Self {
        Self { keys: [K::default(); N], classes: [0; N] }
    }

    /// The class of `key`, zero if it is not here.
    #[inline]
    fn find(&self, key: K) -> u32 {
        let each = self.keys.iter().zip(&self.classes);
        each.fold(0, |class, (candidate, of)| class | if *candidate == key { *of } else { 0 })
    }

    fn place(&self, key: K) -> Option<usize> {
        (0..N).find(|at| self.keys[*at] == key && self.classes[*at] != 0)
    }

    /// Computed, not branched on: the processor could not guess which place is free.
    #[inline]
    fn has_room(&self) -> bool {
        self.classes.iter().fold(false, |room, class| room | (*class == 0))
    }

    fn room(&self) -> Option<usize> {
        self.classes.iter().position(|class| *class == 0)
    }

    fn members(&self) -> impl Iterator<Item = (K, u32)> {
        self.keys.iter().copied().zip(self.classes.iter().copied()).filter(|(_, class)| *class != 0)
    }
}

/// A hash table of its own: a power of two of lines, at most three quarters full.
#[derive(Clone)]
struct Shard<K, const N: usize> {
    lines: Arc<[Line<K, N>]>,
    len: usize,
}

impl<K: Word, const N: usize> Shard<K, N> {
    fn new(lines: usize) -> Self {
        Self { lines: (0..lines).map(|_| Line::empty()).collect(), len: 0 }
    }

    const fn fits(len: usize, lines: usize) -> bool {
        len * 4 <= lines * N * 3
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.lines.len() - 1)
    }

    #[inline]
    fn get(&self, key: K, hash: u64) -> u32 {
        let mut at = self.home(hash);
        loop {
            let line = &self.lines[at];
            let class = line.find(key);
            if (class != 0) | line.has_room() {
                return class;
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }

    /// Sets the class of a key, whether it is here or not.
    fn put(&mut self, key: K, class: u32, hashes: HashKey) {
        if self.get(key, key.hash(hashes)) == 0 {
            if !Self::fits(self.len + 1, self.lines.len()) {
                self.resize(self.lines.len() * 2, hashes);
            }
            self.len += 1;
        }
        let (mut at, lines) = (self.home(key.hash(hashes)), Arc::make_mut(&mut self.lines));
        loop {
            let line = &mut lines[at];
            if let Some(place) = line.place(key).or_else(|| line.room()) {
                (line.keys[place], line.classes[place]) = (key, class);
                return;
            }
            at = (at + 1) & (lines.len() - 1);
        }
    }

    /// Takes a key out that is here.
    fn take(&mut self, key: K, hashes: HashKey) {
        let (mut at, mask) = (self.home(key.hash(hashes)), self.lines.len() - 1);
        let lines = Arc::make_mut(&mut self.lines);
        let place = loop {
            match lines[at].place(key) {
                Some(place) => break place,
                None => at = (at + 1) & mask,
            }
        };
        // What stands behind full lines must stay reachable: it moves up into the gap.
        let mut gap = (at, place);
        let mut full = lines[at].room().is_none();
        lines[at].classes[place] = 0;
        while full {
            at = (at + 1) & mask;
            full = lines[at].room().is_none();
            let over = |from: usize, to: usize| to.wrapping_sub(from) & mask;
            let movable = (0..N).find(|place| {
                let home = (lines[at].keys[*place].hash(hashes) >> 32) as usize & mask;
                lines[at].classes[*place] != 0 && over(home, at) >= over(gap.0, at)
            });
            if let Some(place) = movable {
                lines[gap.0].keys[gap.1] = lines[at].keys[place];
                lines[gap.0].classes[gap.1] = lines[at].classes[place];
                lines[at].classes[place] = 0;
                gap = (at, place);
            }
        }
        self.len -= 1;
        if self.lines.len() > 1 && self.len * 8 < self.lines.len() * N {
            self.resize(self.lines.len() / 2, hashes);
        }
    }

    fn resize(&mut self, lines: usize, hashes: HashKey) {
        let old = std::mem::replace(self, Self::new(lines));
        old.lines.iter().flat_map(Line::members).for_each(|(key, class)| self.put(key, class, hashes));
    }
}

/// The table.
#[derive(Clone)]
pub(super) struct Buckets<K, const N: usize> {
    /// As many as there are in each of them: one, or [`FAN`].
    pages: Vec<Arc<[Shard<K, N>]>>,
    len: usize,
    hashes: HashKey,
}

impl<K: Word, const N: usize> Buckets<K, N> {
    pub(super) fn new(hashes: HashKey) -> Self {
        Self { pages: vec![Arc::new([Shard::new(1)])], len: 0, hashes }
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Shard<K, N> {
        let (page, shard) = self.place(hash);
        &self.pages[page][shard]
    }

    #[inline]
    fn place(&self, hash: u64) -> (usize, usize) {
        let page = (hash >> 58) as usize & (self.pages.len() - 1);
        (page, (hash >> 52) as usize & (self.pages[page].len() - 1))
    }

    /// The class of `key`.
    #[inline]
    pub(super) fn get(&self, key: K) -> Class {
        if self.len == 0 {
            return Class::NONE;
        }
        let hash = key.hash(self.hashes);
        Class::from_bits(self.shard(hash).get(key, hash))
    }

    /// Fetches the line that `get` begins with.
    #[inline]
    pub(super) fn prefetch(&self, key: K) {
        if self.len != 0 {
            let hash = key.hash(self.hashes);
            let shard = self.shard(hash);
            prefetch_element(&shard.lines, shard.home(hash));
        }
    }

    /// Gives `key` a class, or takes it out where that is none. Returns the class it had.
    pub(super) fn set(&mut self, key: K, class: Class) -> Class {
        let old = self.get(key);
        if old == class {
            return old;
        }
        let hashes = self.hashes;
        let (page, shard) = self.place(key.hash(hashes));
        let shard = &mut Arc::make_mut(&mut self.pages[page])[shard];
        if class == Class::NONE {
            shard.take(key, hashes);
            self.len -= 1;
        } else {
            shard.put(key, class.bits(), hashes);
            self.len += usize::from(old == Class::NONE);
        }
        self.spread();
        old
    }

    /// Cuts a table that has grown into more shards.
    fn spread(&mut self) {
        let shards: usize = self.pages.iter().map(|page| page.len()).sum();
        if shards == FAN * FAN || self.len <= shards * CROWDED {
            return;
        }
        let pages = if shards == 1 { 1 } else { FAN };
        let page = || (0..FAN).map(|_| Shard::new(2)).collect();
        let old = std::mem::replace(&mut self.pages, (0..pages).map(|_| page()).collect());
        for (key, class) in old
            .iter()
            .flat_map(|page| page.iter())
            .flat_map(|shard| shard.lines.iter())
            .flat_map(Line::members)
        {
            let (page, shard) = self.place(key.hash(self.hashes));
            Arc::make_mut(&mut self.pages[page])[shard].put(key, class, self.hashes);
        }
    }

    /// Bytes of the lines.
    pub(super) fn bytes(&self) -> usize {
        let shards = self.pages.iter().flat_map(|page| page.iter());
        shards.map(|shard| shard.lines.len() * size_of::<Line<K, N>>()).sum()
    }
}

impl<K, const N: usize> fmt::Debug for Buckets<K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl<K, const N: usize> Buckets<K, N> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }
}
