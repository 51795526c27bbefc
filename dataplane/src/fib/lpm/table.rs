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
pub const BATCH: usize = 64;

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

    /// All of `keys`, side by side: the loads of one overlap with those of the others. Without a route the answer is
    /// [`NO_ROUTE`].
    pub fn lookup_batch(&self, keys: &[K], answers: &mut [u32]) {
        assert_eq!(keys.len(), answers.len(), "an answer for each key");
        for (keys, answers) in keys.chunks(BATCH).zip(answers.chunks_mut(BATCH)) {
            if !self.lookup_shallow(keys, answers) {
                self.lookup_deep(keys, answers);
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

    /// At most [`BATCH`] keys, level by level; what has come to a leaf leaves the round.
    fn lookup_deep(&self, keys: &[K], answers: &mut [u32]) {
        let mut open: [u8; BATCH] = array::from_fn(|at| at as u8);
        let mut slots = [Slot::NO_ROUTE; BATCH];
        let mut rests = [K::ZERO; BATCH];
        for ((key, slot), rest) in keys.iter().zip(&mut slots).zip(&mut rests) {
            *slot = self.root[key.first(self.root_bits)];
            *rest = key.after(self.root_bits);
            self.prefetch_slot(*slot, *rest);
        }
        let mut left = keys.len();
        while left > 0 {
            let mut stay = 0;
            for turn in 0..left {
                let at = usize::from(open[turn]);
                let (slot, rest) = (slots[at], rests[at]);
                let answer = match slot.kind() {
                    Kind::Narrow(node) => self.narrow_answer(node, rest),
                    Kind::Leaf => slot.value(),
                    Kind::Wide(_) | Kind::Skip(_) => {
                        let (slot, rest) = self.step(slot, rest);
                        self.prefetch_slot(slot, rest);
                        (slots[at], rests[at]) = (slot, rest);
                        open[stay] = at as u8;
                        stay += 1;
                        continue;
                    }
                };
                answers[at] = answer.unwrap_or(NO_ROUTE);
            }
            left = stay;
        }
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
                Kind::Wide(_) | Kind::Skip(_) => (slot, rest) = self.step(slot, rest),
            }
        }
    }

    /// One node further down.
    #[inline]
    fn step(&self, slot: Slot, rest: K) -> (Slot, K) {
        match slot.kind() {
            Kind::Wide(node) => {
                let place = Nodes::<u32, N>::place(node, rest.first(Self::STRIDE));
                (Slot(self.wide.word(place)), rest.after(Self::STRIDE))
            }
            Kind::Skip(node) => {
                let skip = Skip::from_words(array::from_fn(|at| {
                    self.skips.word(Nodes::<u32, SKIP_WORDS>::place(node, at))
                }));
                if rest.shared(skip.bits) < skip.len {
                    (skip.miss, rest)
                } else {
                    (skip.next, rest.after(skip.len))
                }
            }
            Kind::Narrow(_) | Kind::Leaf => (slot, rest),
        }
    }

    #[inline]
    fn prefetch_slot(&self, slot: Slot, rest: K) {
        match slot.kind() {
            Kind::Narrow(node) => {
                self.narrow.prefetch(Nodes::<u16, N>::place(node, rest.first(Self::STRIDE)))
            }
            Kind::Wide(node) => self.wide.prefetch(Nodes::<u32, N>::place(node, rest.first(Self::STRIDE))),
            Kind::Skip(node) => self.skips.prefetch(Nodes::<u32, SKIP_WORDS>::place(node, 0)),
            Kind::Leaf => {}
        }
    }
}
