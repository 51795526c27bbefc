//! One family's table: a direct table, then 64-entry chunks, with long single paths skipped.
//!
//! Every entry is one [`Slot`]: a leaf (the answer), a chunk, or a skip. The direct table and
//! the chunks are as in DIR-24-8 (Gupta, Lin, McKeown, INFOCOM 1998), but the direct table is
//! only as wide as the number of routes warrants, and equal chunks are stored once. A skip
//! stands for a run of bits that all routes below it share (Morrison's PATRICIA, 1968): without
//! it one lone IPv6 host route would cost twenty chunks and as many loads. Skips begin at
//! [`SKIP_MIN`] bits, so that an IPv4 Internet table has next to none and takes the same
//! branches for every address.

use std::collections::HashMap;
use std::hash::Hash;

/// Bits resolved by one chunk.
const STRIDE: u32 = 6;

/// The shortest run of shared bits worth a [`Skip`]: what two chunks would resolve.
const SKIP_MIN: u32 = 2 * STRIDE;

/// The largest value of a route: 30 bits, less the one that means "no route".
pub const MAX_VALUE: u32 = Slot::NO_ROUTE.0 - 1;

/// An address as a number whose first bit is the most significant.
pub trait Key: Copy + Ord + Hash {
    /// The first `n` bits, 0 < n <= 18.
    fn first(self, n: u32) -> usize;
    /// What follows the first `n` bits, moved to the front. `n` is less than the address's length.
    fn after(self, n: u32) -> Self;
    /// How many first bits are the same.
    fn shared(self, other: Self) -> u32;
}

macro_rules! key {
    ($int:ty) => {
        impl Key for $int {
            #[inline]
            fn first(self, n: u32) -> usize {
                (self >> (<$int>::BITS - n)) as usize
            }

            #[inline]
            fn after(self, n: u32) -> Self {
                self << n
            }

            #[inline]
            fn shared(self, other: Self) -> u32 {
                (self ^ other).leading_zeros()
            }
        }
    };
}

key!(u32);
key!(u128);

/// A prefix and what it leads to. Bits behind `len` are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route<K> {
    pub bits: K,
    pub len: u32,
    pub value: u32,
}

#[derive(Debug)]
pub struct Trie<K> {
    /// 2^`root_bits` slots, by the address's first bits.
    root: Box<[Slot]>,
    root_bits: u32,
    chunks: Box<[Chunk]>,
    skips: Box<[Skip<K>]>,
}

impl<K: Key> Trie<K> {
    /// Of two routes with one prefix the later wins. Values are at most [`MAX_VALUE`].
    pub fn build(mut routes: Vec<Route<K>>) -> Self {
        // Stable, so that equal prefixes keep their order, and parents stand before children.
        routes.sort_by_key(|r| (r.bits, r.len));
        routes.dedup_by(|later, kept| {
            let same = (later.bits, later.len) == (kept.bits, kept.len);
            if same {
                kept.value = later.value;
            }
            same
        });
        let root_bits = root_bits(routes.len());
        let mut root = vec![Slot::NO_ROUTE; 1 << root_bits];
        let mut build = Build { chunks: Interned::new(), skips: Interned::new() };
        build.fill(&mut root, root_bits, &routes, 0);
        Self {
            root: root.into(),
            root_bits,
            chunks: build.chunks.items.into(),
            skips: build.skips.items.into(),
        }
    }

    /// Slots only name chunks and skips that exist, so no index here can be out of range.
    #[inline]
    pub fn lookup(&self, key: K) -> Option<u32> {
        let mut slot = self.root[key.first(self.root_bits)];
        let mut key = key.after(self.root_bits);
        while !slot.is_leaf() {
            if slot.is_chunk() {
                slot = self.chunks[slot.index()][key.first(STRIDE)];
                key = key.after(STRIDE);
            } else {
                let skip = &self.skips[slot.index()];
                if key.shared(skip.bits) < skip.len {
                    slot = skip.miss;
                } else {
                    slot = skip.next;
                    key = key.after(skip.len);
                }
            }
        }
        slot.value()
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.root) + size_of_val(&*self.chunks) + size_of_val(&*self.skips)
    }
}

/// A wider direct table saves loads; it must not outweigh the routes.
fn root_bits(routes: usize) -> u32 {
    match routes {
        0..=256 => 8,
        257..=16_384 => 14,
        _ => 18,
    }
}

/// Two bits of tag, 30 of value or index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot(u32);

type Chunk = [Slot; 1 << STRIDE];

/// Addresses that begin with the first `len` of `bits` go on at `next`, all others have the
/// answer `miss`, which is a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Skip<K> {
    bits: K,
    len: u32,
    miss: Slot,
    next: Slot,
}

impl Slot {
    const CHUNK: u32 = 1 << 30;
    const SKIP: u32 = 1 << 31;
    const NO_ROUTE: Self = Self(Self::CHUNK - 1);

    #[inline]
    fn is_leaf(self) -> bool {
        self.0 < Self::CHUNK
    }

    #[inline]
    fn is_chunk(self) -> bool {
        self.0 < Self::SKIP
    }

    #[inline]
    fn index(self) -> usize {
        (self.0 & (Self::CHUNK - 1)) as usize
    }

    #[inline]
    fn value(self) -> Option<u32> {
        (self != Self::NO_ROUTE).then_some(self.0)
    }
}

struct Build<K> {
    chunks: Interned<Chunk>,
    skips: Interned<Skip<K>>,
}

impl<K: Key> Build<K> {
    /// Writes `routes`, all of which lie behind the same first `depth` bits, into the slots for
    /// the next `width` bits. The slots hold what the routes above have to say.
    fn fill(&mut self, slots: &mut [Slot], width: u32, routes: &[Route<K>], depth: u32) {
        let end = depth + width;
        for route in routes.iter().filter(|r| r.len <= end) {
            let first = route.bits.after(depth).first(width);
            slots[first..first + (1 << (end - route.len))].fill(Slot(route.value));
        }
        let slot = |r: &Route<K>| r.bits.after(depth).first(width);
        for run in routes.chunk_by(|a, b| slot(a) == slot(b)) {
            let deeper = &run[run.partition_point(|r| r.len <= end)..];
            if let Some(first) = deeper.first() {
                let slot = &mut slots[slot(first)];
                *slot = self.node(deeper, end, *slot);
            }
        }
    }

    /// The slot for `routes`, all of which lie behind the same first `depth` bits, where
    /// `inherited` is the answer for addresses that none of them holds.
    fn node(&mut self, routes: &[Route<K>], depth: u32, inherited: Slot) -> Slot {
        let (Some(first), Some(last)) = (routes.first(), routes.last()) else { return inherited };
        let shortest = routes.iter().map(|r| r.len).min().unwrap_or(depth);
        let shared = first.bits.shared(last.bits).min(shortest);
        if shared >= depth + SKIP_MIN {
            // Only the first route can be as short as what all of them share.
            let (below, answer) =
                if first.len == shared { (&routes[1..], Slot(first.value)) } else { (routes, inherited) };
            let next = self.node(below, shared, answer);
            if next == inherited {
                return inherited;
            }
            let skip = Skip { bits: first.bits.after(depth), len: shared - depth, miss: inherited, next };
            return Slot(Slot::SKIP | self.skips.index(skip));
        }
        let mut chunk = [inherited; 1 << STRIDE];
        self.fill(&mut chunk, STRIDE, routes, depth);
        if chunk.iter().all(|slot| *slot == chunk[0]) {
            return chunk[0];
        }
        Slot(Slot::CHUNK | self.chunks.index(chunk))
    }
}

/// Items by number, equal ones stored once.
struct Interned<T> {
    items: Vec<T>,
    numbers: HashMap<T, u32, ahash::RandomState>,
}

impl<T: Copy + Eq + Hash> Interned<T> {
    fn new() -> Self {
        // Fixed seeds: routes come from the control plane, and equal routes build equal tables.
        Self { items: Vec::new(), numbers: HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4)) }
    }

    fn index(&mut self, item: T) -> u32 {
        *self.numbers.entry(item).or_insert_with(|| {
            let number = self.items.len() as u32;
            assert!(number < Slot::CHUNK, "2^30 chunks are 256 GiB: memory runs out before their numbers do");
            self.items.push(item);
            number
        })
    }
}
