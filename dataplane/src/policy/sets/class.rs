//! Classes: combinations of sets, by number.
//!
//! A class is a sorted list of set ids. One set alone is a class without a record: its number says
//! which. Others have records, counted by what refers to them and freed with the last reference;
//! a class keeps its number as long as it is in use.

use super::SetError;
use super::paged::Paged;
use crate::net::SharedMap;
use crate::packet::{prefetch, prefetch_element};
use crate::policy::SetId;
use std::collections::HashMap;
use std::sync::Arc;

/// Memberships one table holds at most, summed over its classes (1 GiB of ids).
const MAX_IDS: usize = 1 << 28;

/// Ids that stand in a record itself: with these it has half a cache line.
const SHORT: usize = 7;

/// The sets that hold something, as a number: equal numbers of one table are equal sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u32);

/// Says that the rest of the number is a set's.
const SINGLE: u32 = 1 << 31;

impl Class {
    /// In no set.
    pub const NONE: Self = Self(0);

    #[inline]
    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    #[inline]
    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    const fn single(set: SetId) -> Self {
        Self(SINGLE | set.0)
    }

    const fn record(index: u32) -> Self {
        Self(index + 1)
    }

    /// Where its record is, if it has one.
    #[inline]
    const fn index(self) -> Option<u32> {
        // A record's number is below all of single sets: one comparison.
        let index = self.0.wrapping_sub(1);
        if index < SINGLE - 1 { Some(index) } else { None }
    }
}

#[derive(Clone, Debug)]
enum Record {
    Short { len: u8, ids: [SetId; SHORT] },
    Long(Arc<[SetId]>),
}

impl Default for Record {
    fn default() -> Self {
        Self::Short { len: 0, ids: [SetId(0); SHORT] }
    }
}

/// The classes of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    /// Each number at its own place, to lend slices of one.
    singles: Arc<[SetId]>,
    records: Paged<Record, 256>,
    /// Records that there are, free ones too.
    bound: u32,
    free: SharedMap<u32, ()>,
    known: SharedMap<Arc<[SetId]>, Known>,
    /// Summed over the records in use.
    ids: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    index: u32,
    uses: u64,
}

impl Classes {
    /// The sets, ascending.
    #[inline]
    pub(super) fn ids(&self, class: Class) -> &[SetId] {
        let Some(index) = class.index() else {
            // Of no set or of one, as many: computed, not guessed.
            let set = (class.0 & !SINGLE) as usize;
            return &self.singles[set..set + usize::from(class != Class::NONE)];
        };
        match self.records.get(index as usize) {
            Some(Record::Short { len, ids }) => &ids[..usize::from(*len)],
            Some(Record::Long(ids)) => ids,
            None => &[],
        }
    }

    #[inline]
    pub(super) fn prefetch(&self, class: Class) {
        match class.index().map(|index| self.records.get(index as usize)) {
            Some(Some(record)) => prefetch(record),
            Some(None) => {}
            None => prefetch_element(&self.singles, (class.0 & !SINGLE) as usize),
        }
    }

    /// Records in use.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Makes room for the numbers of sets below `bound`.
    pub(super) fn number_sets(&mut self, bound: u32) {
        if self.singles.len() < bound as usize {
            self.singles = (0..bound.next_power_of_two()).map(SetId).collect();
        }
    }
}

/// Classes while they change.
pub(super) struct ClassEdit {
    classes: Classes,
    fresh: HashMap<Arc<[SetId]>, u32, ahash::RandomState>,
    /// By record, what is to be added to its count.
    uses: HashMap<u32, i64, ahash::RandomState>,
    with: HashMap<(Class, SetId, bool), Class, ahash::RandomState>,
    unions: HashMap<(Class, Class), Class, ahash::RandomState>,
    /// Of the free records, those below are in use again.
    taken: u32,
}

impl ClassEdit {
    pub(super) fn new(classes: Classes) -> Self {
        Self { classes, fresh: keyed(), uses: keyed(), with: keyed(), unions: keyed(), taken: 0 }
    }

    /// `class` after sets were added or removed, in the order given.
    pub(super) fn changed<'a>(
        &mut self,
        class: Class,
        changes: impl Iterator<Item = (SetId, bool)> + 'a,
    ) -> Result<Class, SetError> {
        changes.into_iter().try_fold(class, |class, (set, added)| {
            if let Some(known) = self.with.get(&(class, set, added)) {
                return Ok(*known);
            }
            let mut ids = self.classes.ids(class).to_vec();
            match (ids.binary_search(&set), added) {
                (Ok(at), false) => drop(ids.remove(at)),
                (Err(at), true) => ids.insert(at, set),
                _ => {}
            }
            let changed = self.class_of(&ids)?;
            self.with.insert((class, set, added), changed);
            Ok(changed)
        })
    }

    /// What is in the sets of both.
    pub(super) fn union(&mut self, a: Class, b: Class) -> Result<Class, SetError> {
        if b == Class::NONE || a == b {
            return Ok(a);
        }
        if a == Class::NONE {
            return Ok(b);
        }
        if let Some(known) = self.unions.get(&(a, b)) {
            return Ok(*known);
        }
        let mut ids = [self.classes.ids(a), self.classes.ids(b)].concat();
        ids.sort_unstable();
        ids.dedup();
        let union = self.class_of(&ids)?;
        self.unions.insert((a, b), union);
        Ok(union)
    }

    /// One reference to `old` is one to `new` now.
    pub(super) fn moved(&mut self, old: Class, new: Class) {
        if old != new {
            for (class, change) in [(old, -1), (new, 1)] {
                if let Some(index) = class.index() {
                    *self.uses.entry(index).or_default() += change;
                }
            }
        }
    }

    fn class_of(&mut self, ids: &[SetId]) -> Result<Class, SetError> {
        match ids {
            [] => return Ok(Class::NONE),
            [set] => return Ok(Class::single(*set)),
            _ => {}
        }
        let known = self.classes.known.get(ids).map(|known| known.index);
        if let Some(index) = known.or_else(|| self.fresh.get(ids).copied()) {
            return Ok(Class::record(index));
        }
        if self.classes.ids + ids.len() > MAX_IDS {
            return Err(SetError::TooLarge { limit: MAX_IDS });
        }
        let free = self.classes.free.from(&self.taken).next().map(|(index, ())| *index);
        let index = match free {
            Some(index) => {
                self.taken = index + 1;
                index
            }
            None => {
                self.classes.bound += 1;
                self.classes.bound - 1
            }
        };
        let shared: Arc<[SetId]> = ids.into();
        let record = match ids.len() {
            len @ ..=SHORT => {
                let mut short = [SetId(0); SHORT];
                short[..len].copy_from_slice(ids);
                Record::Short { len: len as u8, ids: short }
            }
            _ => Record::Long(shared.clone()),
        };
        self.classes.records.set(index as usize, record);
        self.classes.ids += ids.len();
        self.fresh.insert(shared, index);
        Ok(Class::record(index))
    }

    /// The classes, without those that nothing refers to any more.
    pub(super) fn finish(self) -> Classes {
        let Self { mut classes, fresh, mut uses, taken, .. } = self;
        let mut known = Vec::with_capacity(fresh.len());
        let mut free = Vec::new();
        for (ids, index) in fresh {
            match uses.remove(&index).unwrap_or_default() {
                0 => free.push(index),
                uses => known.push((ids, Some(Known { index, uses: uses as u64 }))),
            }
        }
        for (index, change) in uses.into_iter().filter(|(_, change)| *change != 0) {
            let Some((ids, was)) = classes.known.floor(classes.ids(Class::record(index))) else { continue };
            let uses = was.uses.saturating_add_signed(change);
            known.push((ids.clone(), (uses > 0).then_some(Known { index, uses })));
            free.extend((uses == 0).then_some(index));
        }
        for index in &free {
            classes.ids -= classes.ids(Class::record(*index)).len();
            classes.records.set(*index as usize, Record::default());
        }
        let in_use = classes.free.keys().take_while(|index| **index < taken).map(|index| (*index, None));
        let mut places: Vec<_> = in_use.collect();
        classes.free.apply(&places);
        places = free.into_iter().map(|index| (index, Some(()))).collect();
        places.sort_unstable_by_key(|(index, _)| *index);
        classes.free.apply(&places);
        known.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        classes.known.apply(&known);
        classes
    }
}

/// Fixed seeds: a table must not depend on chance, and these maps live as long as one change.
fn keyed<K, V>() -> HashMap<K, V, ahash::RandomState> {
    HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4))
}

#[cfg(test)]
impl Classes {
    /// Every record's ids and uses.
    pub(super) fn uses(&self) -> Vec<(Vec<SetId>, u64)> {
        self.known.iter().map(|(ids, known)| (ids.to_vec(), known.uses)).collect()
    }

    /// Records hold what is known, the rest is free, and no number is given twice.
    pub(super) fn check(&self) {
        let mut indexes: Vec<u32> = self.known.values().map(|known| known.index).collect();
        for (ids, known) in self.known.iter() {
            assert_eq!(self.ids(Class::record(known.index)), &ids[..]);
        }
        indexes.extend(self.free.keys());
        indexes.sort_unstable();
        assert!(indexes.into_iter().eq(0..self.bound));
        assert_eq!(self.ids, self.known.keys().map(|ids| ids.len()).sum::<usize>());
    }
}
