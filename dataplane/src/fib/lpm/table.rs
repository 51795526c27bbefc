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

    /// At most [`BATCH`] keys, wherever they lead: a step for all of them, those of one kind after the other, then the
    /// next. What a key's next slot is says on which list the key goes, not where the program does, so there is nothing
    /// to guess wrong.
    fn lookup_deep(&self, keys: &[K], answers: &mut [u32]) {
        let mut walk = Walk::new();
        for (at, key) in keys.iter().enumerate() {
            walk.go_on(at, self.root[key.first(self.root_bits)], key.after(self.root_bits));
        }
        while walk.waiting[Slot::WIDE_TAG] + walk.waiting[Slot::SKIP_TAG] > 0 {
            for nth in 0..walk.take(Slot::WIDE_TAG) {
                let (at, slot, rest) = walk.key(Slot::WIDE_TAG, nth);
                let place = Nodes::<u32, N>::place(slot.number(), rest.first(Self::STRIDE));
                walk.go_on(at, Slot(self.wide.word(place)), rest.after(Self::STRIDE));
            }
            for nth in 0..walk.take(Slot::SKIP_TAG) {
                let (at, slot, rest) = walk.key(Slot::SKIP_TAG, nth);
                let skip = self.skip(slot.number());
                let shared = rest.shared(skip.bits) >= skip.len;
                let (next, len) = if shared { (skip.next, skip.len) } else { (skip.miss, 0) };
                walk.go_on(at, next, rest.after(len));
            }
        }
        for nth in 0..walk.take(Slot::NARROW_TAG) {
            let (at, slot, rest) = walk.key(Slot::NARROW_TAG, nth);
            answers[at] = self.narrow_answer(slot.number(), rest).unwrap_or(NO_ROUTE);
        }
        for nth in 0..walk.take(Slot::LEAF_TAG) {
            let (at, slot, _) = walk.key(Slot::LEAF_TAG, nth);
            answers[at] = slot.value().unwrap_or(NO_ROUTE);
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
                Kind::Wide(node) => {
                    let place = Nodes::<u32, N>::place(node, rest.first(Self::STRIDE));
                    slot = Slot(self.wide.word(place));
                    rest = rest.after(Self::STRIDE);
                }
                Kind::Skip(node) => {
                    let skip = self.skip(node);
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

    #[inline]
    fn skip(&self, node: u32) -> Skip<K> {
        let word = |at| self.skips.word(Nodes::<u32, SKIP_WORDS>::place(node, at));
        Skip::from_words(array::from_fn(word))
    }
}

/// Where the keys of a batch are.
struct Walk<K> {
    slots: [Slot; BATCH],
    /// What follows the bits that led there.
    rests: [K; BATCH],
    /// By what kind a key's slot is, which keys they are.
    lists: [[u8; BATCH]; 4],
    waiting: [usize; 4],
}

impl<K: Key> Walk<K> {
    fn new() -> Self {
        Self {
            slots: [Slot::NO_ROUTE; BATCH],
            rests: [K::ZERO; BATCH],
            lists: [[0; BATCH]; 4],
            waiting: [0; 4],
        }
    }

    /// How many keys wait for a step of this kind. They are taken in order, while others are put on the list behind them.
    #[inline]
    fn take(&mut self, tag: usize) -> usize {
        std::mem::take(&mut self.waiting[tag])
    }

    /// The `nth` key of those taken.
    #[inline]
    fn key(&self, tag: usize, nth: usize) -> (usize, Slot, K) {
        let at = usize::from(self.lists[tag][nth % BATCH]) % BATCH;
        (at, self.slots[at], self.rests[at])
    }

    /// Key `at` goes on at a slot. No list has more than [`BATCH`] keys, since each key is on one.
    #[inline]
    fn go_on(&mut self, at: usize, slot: Slot, rest: K) {
        let tag = slot.tag();
        self.slots[at % BATCH] = slot;
        self.rests[at % BATCH] = rest;
        self.lists[tag][self.waiting[tag] % BATCH] = at as u8;
        self.waiting[tag] += 1;
    }
}
