//! One family's table, as readers have it: a direct table, then nodes of `N` entries, with long single paths skipped.
//!
//! The direct table and the nodes are as in DIR-24-8 (Gupta, Lin, McKeown, INFOCOM 1998), but the direct table is only as
//! wide as the number of routes warrants, and equal nodes are stored once. Nodes with nothing below them are *narrow*: 16
//! bits an entry. The direct table leads to narrow nodes even where one answer would do, so that nearly every lookup in an
//! Internet table takes the same two loads and no branch that could be mispredicted. A *skip* stands for a run of bits
//! that all routes below it share (Morrison's PATRICIA, 1968): without it one lone IPv6 host route would cost a dozen
//! nodes and as many loads.

use super::arena::Nodes;
use super::key::Key;
use super::slot::{Kind, Slot};
use std::array;
use std::marker::PhantomData;
use std::sync::Arc;

/// Lookups that are under way at once, in a batch.
const BATCH: usize = 64;

/// The answer of a batch where there is no route. Larger than any value.
pub const NO_ROUTE: u32 = u32::MAX;

/// Words of a skip's node: how many bits, where other addresses go on, where these do, four of bits.
pub const SKIP_WORDS: usize = 8;

/// A published table. Nothing it leads to changes while it lives.
pub struct Table<K, const N: usize> {
    /// 2^`root_bits` slots, by the address's first bits.
    root: Box<[Slot]>,
    root_bits: u32,
    narrow: Nodes<u16, N>,
    wide: Nodes<u32, N>,
    skips: Nodes<u32, SKIP_WORDS>,
    bytes: usize,
    /// Tells the writer, when it is gone, that nobody reads this table any more.
    _alive: Arc<()>,
    _keys: PhantomData<K>,
}

/// A run of bits that all routes below share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip<K> {
    /// The bits, at the front.
    pub bits: K,
    /// How many.
    pub len: u32,
    /// Where addresses with other bits go on: a leaf.
    pub miss: Slot,
    /// Where these go on.
    pub next: Slot,
}

impl<K: Key> Skip<K> {
    pub fn words(self) -> [u32; SKIP_WORDS] {
        let [a, b, c, d] = self.bits.words();
        [self.len, self.miss.0, self.next.0, a, b, c, d, 0]
    }

    #[inline]
    pub fn from_words([len, miss, next, a, b, c, d, _]: [u32; SKIP_WORDS]) -> Self {
        Self { bits: K::from_words([a, b, c, d]), len, miss: Slot(miss), next: Slot(next) }
    }
}

/// What a table is put together from.
pub struct Parts<const N: usize> {
    pub root: Box<[Slot]>,
    pub narrow: Nodes<u16, N>,
    pub wide: Nodes<u32, N>,
    pub skips: Nodes<u32, SKIP_WORDS>,
    pub node_bytes: usize,
    pub alive: Arc<()>,
}

impl<K: Key, const N: usize> Table<K, N> {
    /// Bits that a node resolves.
    pub const STRIDE: u32 = N.trailing_zeros();

    pub fn new(parts: Parts<N>) -> Self {
        let Parts { root, narrow, wide, skips, node_bytes, alive } = parts;
        Self {
            root_bits: root.len().trailing_zeros(),
            bytes: size_of_val(&*root) + node_bytes,
            root,
            narrow,
            wide,
            skips,
            _alive: alive,
            _keys: PhantomData,
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub fn lookup(&self, key: K) -> Option<u32> {
        let slot = self.root[key.first(self.root_bits)];
        let rest = key.after(self.root_bits);
        match slot.as_narrow() {
            Some(node) => self.narrow_answer(node, rest),
            None => self.deep(slot, rest),
        }
    }

    /// All of `keys`; where they all lead to narrow nodes, side by side: the loads of one overlap with those of the
    /// others. Without a route the answer is [`NO_ROUTE`].
    pub fn lookup_batch(&self, keys: &[K], answers: &mut [u32]) {
        assert_eq!(keys.len(), answers.len(), "an answer for each key");
        for (keys, answers) in keys.chunks(BATCH).zip(answers.chunks_mut(BATCH)) {
            if !self.lookup_shallow(keys, answers) {
                // Level by level, with each key's node fetched a round ahead, takes half as long again: what to do
                // next is then guessed wrong for nearly every key of every round.
                for (key, answer) in keys.iter().zip(answers) {
                    *answer = self.lookup(*key).unwrap_or(NO_ROUTE);
                }
            }
        }
    }

    /// At most [`BATCH`] keys that all lead to narrow nodes; false: some do not.
    #[inline]
    fn lookup_shallow(&self, keys: &[K], answers: &mut [u32]) -> bool {
        let mut places = [0; BATCH];
        let mut all = 0;
        for (key, place) in keys.iter().zip(&mut places) {
            let slot = self.root[key.first(self.root_bits)];
            all |= slot.0;
            *place = Nodes::<u16, N>::place(slot.0, key.after(self.root_bits).first(Self::STRIDE));
            self.narrow.prefetch(*place);
        }
        if Slot(all).as_narrow().is_none() {
            return false;
        }
        for (place, answer) in places.into_iter().zip(answers) {
            let entry = self.narrow.word(place);
            *answer = if entry == Slot::NARROW_NO_ROUTE { NO_ROUTE } else { u32::from(entry) };
        }
        true
    }

    #[inline]
    fn narrow_answer(&self, node: u32, rest: K) -> Option<u32> {
        let entry = self.narrow.word(Nodes::<u16, N>::place(node, rest.first(Self::STRIDE)));
        (entry != Slot::NARROW_NO_ROUTE).then_some(u32::from(entry))
    }

    fn deep(&self, mut slot: Slot, mut rest: K) -> Option<u32> {
        loop {
            match slot.kind() {
                Kind::Leaf => return slot.value(),
                Kind::Narrow(node) => return self.narrow_answer(node, rest),
                Kind::Wide(node) => {
                    let place = Nodes::<u32, N>::place(node, rest.first(Self::STRIDE));
                    slot = Slot(self.wide.word(place));
                    rest = rest.after(Self::STRIDE);
                }
                Kind::Skip(node) => {
                    let word = |at| self.skips.word(Nodes::<u32, SKIP_WORDS>::place(node, at));
                    let skip = Skip::from_words(array::from_fn(word));
                    if rest.shared(skip.bits) < skip.len {
                        slot = skip.miss;
                    } else {
                        slot = skip.next;
                        rest = rest.after(skip.len);
                    }
                }
            }
        }
    }
}
