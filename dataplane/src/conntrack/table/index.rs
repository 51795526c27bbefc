//! From the hash of a key to the flows that may have it.
//!
//! Buckets of one cache line with ten entries, each a 16-bit tag and a flow. Every entry has
//! two buckets it may be in: the first follows from the hash, the second from the first and the
//! tag alone, and the other way round (partial-key cuckoo hashing, Fan et al., NSDI 2013). So an
//! entry can be moved to make room without reading its key. A lookup reads the first bucket,
//! and the second only if the first does not have the key; an insert moves at most two entries.

use super::simd;
use crate::conntrack::FlowRef;
use crate::packet::{Slab, prefetch};

/// Entries a bucket.
const WAYS: usize = simd::TAGS;

/// The most entries an insert may move. With one, an index of a million finds no room for some;
/// with two it examines at most some 220 buckets, and hardly ever more than a few.
const MAX_MOVES: u32 = 2;

/// The entry's place is free. Hashes with this tag use another one.
const FREE: u16 = 0;

/// A multimap from hashes to flows: the caller compares keys.
pub struct Index {
    buckets: Slab<Bucket>,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u16; WAYS],
    flows: [u32; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Neither of a flow's buckets has room, nor can any be made by moving entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Index {
    /// For `entries` flows: filled to 7/8 by them, and some buckets more, for in a very small
    /// index chance weighs heavily.
    pub fn new(entries: usize, hugepages: bool) -> Self {
        let buckets = (entries * 8).div_ceil(7 * WAYS) + 4;
        let empty = Bucket { tags: [FREE; WAYS], flows: [0; WAYS] };
        Self { buckets: Slab::new(buckets, empty, hugepages) }
    }

    /// The flow under `hash` for which `has_key` holds.
    #[inline]
    pub fn find(&self, hash: u64, has_key: impl Fn(FlowRef) -> bool) -> Option<FlowRef> {
        let tag = tag(hash);
        let first = self.first(hash);
        let mut bucket = first;
        loop {
            let mut hits = self.buckets[bucket].hits(tag);
            while hits != 0 {
                let flow = FlowRef(self.buckets[bucket].flows[hits.trailing_zeros() as usize]);
                if has_key(flow) {
                    return Some(flow);
                }
                hits &= hits - 1;
            }
            if bucket != first {
                return None;
            }
            bucket = self.other(first, tag);
            if bucket == first {
                return None;
            }
        }
    }

    /// Pulls the bucket that a lookup reads first towards the cache. A hint.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.first(hash)]);
    }

    /// The same for the bucket it reads second.
    #[inline]
    pub fn prefetch_other(&self, hash: u64) {
        prefetch(&self.buckets[self.other(self.first(hash), tag(hash))]);
    }

    /// A flow of the bucket read first that is probably the one, without a look at its key.
    #[inline(always)]
    pub fn guess(&self, hash: u64) -> Option<FlowRef> {
        self.guess_in(self.first(hash), hash)
    }

    /// The same of the bucket read second.
    #[inline(always)]
    pub fn guess_other(&self, hash: u64) -> Option<FlowRef> {
        self.guess_in(self.other(self.first(hash), tag(hash)), hash)
    }

    #[inline(always)]
    fn guess_in(&self, bucket: usize, hash: u64) -> Option<FlowRef> {
        let bucket = &self.buckets[bucket];
        let hits = bucket.hits(tag(hash));
        (hits != 0).then(|| FlowRef(bucket.flows[hits.trailing_zeros() as usize]))
    }

    /// Adds a flow.
    pub fn insert(&mut self, hash: u64, flow: FlowRef) -> Result<(), NoRoom> {
        let tag = tag(hash);
        let first = self.first(hash);
        let places = [first, self.other(first, tag)];
        // As few moves as will do.
        let (bucket, way) = (0..=MAX_MOVES)
            .find_map(|moves| {
                places.iter().find_map(|&bucket| Some((bucket, self.make_room(bucket, moves)?)))
            })
            .ok_or(NoRoom)?;
        self.buckets[bucket].set(way, tag, flow.0);
        Ok(())
    }

    /// Takes a flow out; false if it was not there.
    pub fn remove(&mut self, hash: u64, flow: FlowRef) -> bool {
        let tag = tag(hash);
        let first = self.first(hash);
        for bucket in [first, self.other(first, tag)] {
            let bucket = &mut self.buckets[bucket];
            for way in 0..WAYS {
                if bucket.tags[way] == tag && bucket.flows[way] == flow.0 {
                    bucket.set(way, FREE, 0);
                    return true;
                }
            }
        }
        false
    }

    pub fn hugepages(&self) -> bool {
        self.buckets.hugepages()
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// A free place in a bucket, got by moving one of its entries to its other bucket, and one of
    /// that to a third, if `moves` allows. Two moves never meet: the bucket they began in is full.
    fn make_room(&mut self, bucket: usize, moves: u32) -> Option<usize> {
        let free = self.buckets[bucket].free();
        if free.is_some() || moves == 0 {
            return free;
        }
        (0..WAYS).find(|&way| {
            let Bucket { tags, flows } = &self.buckets[bucket];
            let (tag, flow) = (tags[way], flows[way]);
            let other = self.other(bucket, tag);
            let place = if other == bucket { None } else { self.make_room(other, moves - 1) };
            place.inspect(|&place| self.buckets[other].set(place, tag, flow)).is_some()
        })
    }

    #[inline]
    fn first(&self, hash: u64) -> usize {
        reduce(hash >> 32, self.buckets.len())
    }

    /// The two buckets of a tag add up to a number that depends on the tag only, modulo the
    /// number of buckets, which need not be a power of two then.
    #[inline]
    fn other(&self, bucket: usize, tag: u16) -> usize {
        let sum = reduce(u64::from(u32::from(tag).wrapping_mul(0x9e37_79b1)), self.buckets.len());
        if sum >= bucket { sum - bucket } else { sum + self.buckets.len() - bucket }
    }
}

impl Bucket {
    /// One bit for each entry with this tag.
    #[inline(always)]
    fn hits(&self, tag: u16) -> u32 {
        simd::equal(&self.tags, tag)
    }

    fn free(&self) -> Option<usize> {
        self.tags.iter().position(|tag| *tag == FREE)
    }

    fn set(&mut self, way: usize, tag: u16, flow: u32) {
        self.tags[way] = tag;
        self.flows[way] = flow;
    }
}

/// The low bits; the bucket is chosen by the high ones.
#[inline]
fn tag(hash: u64) -> u16 {
    (hash as u16).max(FREE + 1)
}

/// A number below 2^32, scaled to below `n`.
#[inline]
fn reduce(number: u64, n: usize) -> usize {
    ((number * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steele, Lea and Flood's SplitMix64, for hashes by number.
    fn mix(n: u64) -> u64 {
        let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn has(index: &Index, hash: u64, flow: FlowRef) -> bool {
        index.find(hash, |f| f == flow) == Some(flow)
    }

    #[test]
    fn holds_all_it_was_made_for_whatever_the_size() {
        for entries in (2..400).step_by(2) {
            for seed in 0..50 {
                let mut index = Index::new(entries, false);
                for i in 0..entries as u32 {
                    let hash = mix(seed << 40 | u64::from(i));
                    assert_eq!(index.insert(hash, FlowRef(i)), Ok(()), "{i} of {entries}, seed {seed}");
                }
            }
        }
    }

    #[test]
    fn holds_the_flows_of_a_million_sessions() {
        let entries = 2 << 20;
        let mut index = Index::new(entries, false);
        for i in 0..entries as u32 {
            assert_eq!(index.insert(mix(u64::from(i)), FlowRef(i)), Ok(()), "{i}");
        }
        assert!((0..entries as u32).all(|i| has(&index, mix(u64::from(i)), FlowRef(i))));
    }

    #[test]
    fn holds_all_it_was_made_for_while_flows_come_and_go() {
        let entries = 200_000u64;
        let mut index = Index::new(entries as usize, false);
        assert!(index.bytes() as f64 / (entries as f64) < 6.4 / 0.85, "load factor of at least 0.85");
        for i in 0..entries {
            assert_eq!(index.insert(mix(i), FlowRef(i as u32)), Ok(()), "{i}");
        }
        for i in 0..5 * entries {
            assert!(index.remove(mix(i), FlowRef(i as u32)), "{i}");
            let new = i + entries;
            assert_eq!(index.insert(mix(new), FlowRef(new as u32)), Ok(()), "{new}");
        }
        for i in 5 * entries..6 * entries {
            assert!(has(&index, mix(i), FlowRef(i as u32)), "{i}");
        }
        assert!(!has(&index, mix(0), FlowRef(0)));
    }

    #[test]
    fn one_hash_many_flows() {
        let mut index = Index::new(1_000, false);
        let stored = (0..).take_while(|&i| index.insert(7, FlowRef(i)).is_ok()).count();
        assert_eq!(stored, 2 * WAYS, "both buckets, then an error");
        assert!((0..stored as u32).all(|i| has(&index, 7, FlowRef(i))));
        assert!(index.remove(7, FlowRef(3)) && !index.remove(7, FlowRef(3)));
        assert!(!has(&index, 7, FlowRef(3)) && has(&index, 7, FlowRef(4)));
    }
}
