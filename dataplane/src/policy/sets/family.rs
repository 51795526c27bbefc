//! The addresses of one family: single ones in a hash table, blocks as pieces of the address space.
//!
//! Each piece and each single address has the class of all sets that hold it, those of the blocks
//! around it as well, so one lookup suffices. What a change of blocks concerns is found in order: the
//! blocks inside are swept once, and the single addresses inside get their classes anew.

use super::SetError;
use super::buckets::{Buckets, HashKey, Word};
use super::class::{Class, ClassEdit};
use crate::net::{Addr, SharedMap};
use crate::policy::SetId;

/// An address as a number of its family.
pub(super) trait Space: Word + Ord {
    /// The number of an address of this family.
    fn of(addr: Addr) -> Self;
    /// The highest address of the block of length `len` that begins here.
    fn last(self, len: u8) -> Self;
    /// The beginning of the block of length `len` around this.
    fn truncate(self, len: u8) -> Self;
    /// The address after this one.
    fn next(self) -> Option<Self>;
    /// The address before this one.
    fn before(self) -> Option<Self>;
}

macro_rules! space {
    ($number:ty, $of:expr) => {
        impl Space for $number {
            #[inline]
            fn of(addr: Addr) -> Self {
                $of(addr)
            }

            fn last(self, len: u8) -> Self {
                self | Self::MAX.checked_shr(u32::from(len)).unwrap_or(0)
            }

            fn truncate(self, len: u8) -> Self {
                self & !Self::MAX.checked_shr(u32::from(len)).unwrap_or(0)
            }

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn before(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    };
}

space!(u32, Addr::v4_bits);
space!(u128, Addr::bits);

/// A block: its first address and its length. Sorts a block before those inside it.
pub(super) type Block<K> = (K, u8);

/// A member that a set has gained, or lost where false.
pub(super) type Change<M> = (M, SetId, bool);

/// The members of one family.
#[derive(Clone, Debug)]
pub(super) struct Family<K, const N: usize> {
    /// Single addresses, with the sets that name them.
    named: SharedMap<K, Class>,
    /// Blocks, with the sets that name them.
    blocks: SharedMap<Block<K>, Class>,
    /// Where the class changes, blocks alone considered. Before the first: in no set.
    pieces: SharedMap<K, Class>,
    /// Single addresses, with all sets that hold them.
    hosts: Buckets<K, N>,
}

impl<K: Space, const N: usize> Family<K, N> {
    pub(super) fn new(hashes: HashKey) -> Self {
        Self {
            named: SharedMap::default(),
            blocks: SharedMap::default(),
            pieces: SharedMap::default(),
            hosts: Buckets::new(hashes),
        }
    }

    /// The class of all sets that hold `addr`.
    #[inline]
    pub(super) fn class_of(&self, addr: K) -> Class {
        let class = self.hosts.get(addr);
        // The processor can guess what holds of all addresses alike.
        if !self.pieces.is_empty() && class == Class::NONE { self.around(addr) } else { class }
    }

    /// Fetches what `class_of` begins with.
    #[inline]
    pub(super) fn prefetch(&self, addr: K) {
        self.hosts.prefetch(addr);
    }

    #[inline]
    fn around(&self, addr: K) -> Class {
        self.pieces.floor(&addr).map_or(Class::NONE, |(_, class)| *class)
    }

    /// Bytes of the hash table.
    pub(super) fn bytes(&self) -> usize {
        self.hosts.bytes()
    }

    /// Applies changes, of blocks and of single addresses. Sorted by member.
    pub(super) fn apply(
        &mut self,
        blocks: &[Change<Block<K>>],
        hosts: &[Change<K>],
        classes: &mut ClassEdit,
    ) -> Result<(), SetError> {
        let blocks = named(&mut self.blocks, blocks, classes)?;
        let hosts = named(&mut self.named, hosts, classes)?;
        let mut swept = None;
        for (first, len) in blocks {
            // Inside of one that was swept.
            if swept.is_some_and(|last| first <= last) {
                continue;
            }
            self.sweep(first, len, classes)?;
            swept = Some(first.last(len));
        }
        for addr in hosts {
            let class = match self.named.get(&addr) {
                Some(named) => classes.union(*named, self.around(addr))?,
                None => Class::NONE,
            };
            classes.moved(self.hosts.set(addr, class), class);
        }
        Ok(())
    }

    /// Cuts a block into pieces anew.
    fn sweep(&mut self, first: K, len: u8, classes: &mut ClassEdit) -> Result<(), SetError> {
        let last = first.last(len);
        let mut around = Class::NONE;
        for len in 0..=len {
            if let Some(class) = self.blocks.get(&(first.truncate(len), len)) {
                around = classes.union(around, *class)?;
            }
        }
        let mut cuts = Cuts { pieces: vec![(first, around)] };
        // The blocks around the current address, outermost first: their last addresses and classes.
        let mut open = vec![(last, around)];
        for ((start, len), class) in
            self.blocks.from(&(first, len)).take_while(|((start, _), _)| *start <= last)
        {
            cuts.close(&mut open, Some(*start));
            let outer = open.last().map_or(around, |(_, class)| *class);
            let class = classes.union(outer, *class)?;
            cuts.at(*start, class);
            open.push((start.last(*len), class));
        }
        cuts.close(&mut open, last.next());
        let after = last.next().map(|after| (after, self.around(after)));
        let Cuts { pieces } = cuts;
        let changed = self.replace(first, &pieces, after, classes);
        if changed {
            self.judge_hosts(&pieces, last, classes)?;
        }
        Ok(())
    }

    /// Puts `pieces` in the place of those from `first` to before `after`. Whether any differs.
    fn replace(
        &mut self,
        first: K,
        pieces: &[(K, Class)],
        after: Option<(K, Class)>,
        classes: &mut ClassEdit,
    ) -> bool {
        let mut class = first.before().map_or(Class::NONE, |before| self.around(before));
        let mut new: Vec<(K, Class)> = Vec::with_capacity(pieces.len() + 1);
        for (start, next) in pieces.iter().chain(&after) {
            if *next != class {
                new.push((*start, *next));
                class = *next;
            }
        }
        let within = |start: &K| after.is_none_or(|(after, _)| *start <= after);
        let old = self.pieces.from(&first).take_while(|(start, _)| within(start));
        let old: Vec<(K, Class)> = old.map(|(start, class)| (*start, *class)).collect();
        if old == new {
            return false;
        }
        old.iter().for_each(|(_, class)| classes.moved(*class, Class::NONE));
        new.iter().for_each(|(_, class)| classes.moved(Class::NONE, *class));
        let gone =
            old.iter().filter(|(start, _)| new.binary_search_by_key(start, |(start, _)| *start).is_err());
        let mut changes: Vec<_> = gone.map(|(start, _)| (*start, None)).collect();
        changes.extend(new.iter().map(|(start, class)| (*start, Some(*class))));
        changes.sort_unstable_by_key(|(start, _)| *start);
        self.pieces.apply(&changes);
        true
    }

    /// Gives the single addresses in `pieces`, the last of which ends at `last`, their classes anew.
    fn judge_hosts(
        &mut self,
        pieces: &[(K, Class)],
        last: K,
        classes: &mut ClassEdit,
    ) -> Result<(), SetError> {
        let Some((first, _)) = pieces.first() else { return Ok(()) };
        let mut rest = pieces;
        for (addr, named) in self.named.from(first).take_while(|(addr, _)| **addr <= last) {
            while rest.get(1).is_some_and(|(start, _)| start <= addr) {
                rest = &rest[1..];
            }
            let class = classes.union(*named, rest[0].1)?;
            classes.moved(self.hosts.set(*addr, class), class);
        }
        Ok(())
    }
}

/// Pieces of the address space while they are cut, by ascending start.
struct Cuts<K> {
    pieces: Vec<(K, Class)>,
}

impl<K: Space> Cuts<K> {
    /// From `start` on the class is `class`.
    fn at(&mut self, start: K, class: Class) {
        if self.pieces.last().is_some_and(|(last, _)| *last == start) {
            self.pieces.pop();
        }
        self.pieces.push((start, class));
    }

    /// Ends the blocks that end before `next`, or all of them; the outermost stays open.
    fn close(&mut self, open: &mut Vec<(K, Class)>, next: Option<K>) {
        let ends = |last: &K| next.is_none_or(|next| *last < next);
        while let [.., (_, outer), (last, _)] = open[..]
            && ends(&last)
        {
            open.pop();
            if let Some(after) = last.next().filter(ends) {
                self.at(after, outer);
            }
        }
    }
}

/// Applies changes to the classes of what is named. Returns what has another class now, ascending.
fn named<M: Ord + Copy>(
    map: &mut SharedMap<M, Class>,
    changes: &[Change<M>],
    classes: &mut ClassEdit,
) -> Result<Vec<M>, SetError> {
    let mut changed = Vec::new();
    for changes in changes.chunk_by(|(a, ..), (b, ..)| a == b) {
        let member = changes[0].0;
        let old = map.get(&member).copied().unwrap_or(Class::NONE);
        let new = classes.changed(old, changes.iter().map(|(_, set, added)| (*set, *added)))?;
        if old != new {
            classes.moved(old, new);
            changed.push((member, (new != Class::NONE).then_some(new)));
        }
    }
    map.apply(&changed);
    Ok(changed.into_iter().map(|(member, _)| member).collect())
}

#[cfg(test)]
impl<K: Space, const N: usize> Family<K, N> {
    pub(super) fn hosts(&self) -> &Buckets<K, N> {
        &self.hosts
    }

    /// The pieces with their sets, which any way to the same members must come to.
    pub(super) fn shape(&self, classes: &super::class::Classes) -> Vec<(K, Vec<SetId>)> {
        self.pieces.iter().map(|(start, class)| (*start, classes.ids(*class).to_vec())).collect()
    }
}
