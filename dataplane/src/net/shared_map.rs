//! An ordered map whose versions share what they have in common.
//!
//! Entries stand sorted in runs of a few KiB, runs in branches, branches in the root. A change
//! copies the runs it touches, and the branches and the root that lead to them: so a clone costs a
//! little, the next version costs in proportion to the change, and two versions are compared
//! without a look at what they share.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Runs of one branch at most.
const BRANCH: usize = 64;

type Run<K, V> = Arc<[(K, V)]>;

/// The first key below, and what is below.
type Below<K, T> = (K, T);

type Branch<K, V> = Arc<Vec<Below<K, Run<K, V>>>>;

/// The map. Neither a run nor a branch is ever empty.
pub struct SharedMap<K, V> {
    branches: Vec<Below<K, Branch<K, V>>>,
    len: usize,
}

/// One key that two versions do not have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// Its value in the older version.
    pub old: Option<&'a V>,
    /// Its value in the newer version.
    pub new: Option<&'a V>,
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { branches: Vec::new(), len: 0 }
    }
}

impl<K: Clone, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { branches: self.branches.clone(), len: self.len }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for SharedMap<K, V> {}

impl<K, V> SharedMap<K, V> {
    /// Entries of one run at most: about 4 KiB of them.
    const RUN: usize = {
        let size = size_of::<(K, V)>();
        let fit = 4096 / if size == 0 { 1 } else { size };
        if fit < 16 {
            16
        } else if fit > 512 {
            512
        } else {
            fit
        }
    };

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every entry, by ascending key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { branches: self.branches.iter(), runs: [].iter(), entries: [].iter() }
    }

    /// Every key, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Every value, by ascending key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (found, value) = self.floor(key)?;
        (found.borrow() == key).then_some(value)
    }

    /// `key` has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entry with the largest key that is not above `key`.
    #[inline]
    pub fn floor<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let branch = &below(&self.branches, key)?.1;
        let run = &below(branch, key)?.1;
        below(run, key).map(|(key, value)| (key, value))
    }

    /// Entries from `first` on, by ascending key.
    pub fn from(&self, first: &K) -> Iter<'_, K, V> {
        let branch = self.branches.partition_point(|(key, _)| key <= first).saturating_sub(1);
        let branches = self.branches.get(branch..).unwrap_or_default().iter();
        let mut iter = Iter { branches, runs: [].iter(), entries: [].iter() };
        // Only the first branch and the first run have entries before it.
        if let Some((_, branch)) = iter.branches.next() {
            let run = branch.partition_point(|(key, _)| key <= first).saturating_sub(1);
            iter.runs = branch[run..].iter();
            if let Some((_, run)) = iter.runs.next() {
                iter.entries = run[run.partition_point(|(key, _)| key < first)..].iter();
            }
        }
        iter
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Sets one value.
    pub fn insert(&mut self, key: K, value: V) {
        self.apply(&[(key, Some(value))]);
    }

    /// Takes one key out. Whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let found = self.floor(key).filter(|(found, _)| (*found).borrow() == key);
        let Some(key) = found.map(|(key, _)| key.clone()) else { return false };
        self.apply(&[(key, None)]);
        true
    }

    /// Sets the values of keys, or takes them out, where `None`. Keys ascend, and none occurs twice.
    pub fn apply(&mut self, changes: &[(K, Option<V>)]) {
        debug_assert!(changes.is_sorted_by(|(a, _), (b, _)| a < b));
        let mut old = std::mem::take(&mut self.branches).into_iter().peekable();
        let mut branches = Vec::with_capacity(old.len() + 1);
        let mut rest = changes;
        if old.peek().is_none() && !rest.is_empty() {
            self.len += grow(&mut branches, Arc::default(), rest);
            rest = &[];
        }
        while let Some((first, branch)) = old.next() {
            let mine = match old.peek() {
                Some((next, _)) => rest.partition_point(|(key, _)| key < next),
                None => rest.len(),
            };
            let (here, later) = rest.split_at(mine);
            rest = later;
            if here.is_empty() {
                branches.push((first, branch));
                continue;
            }
            let before: usize = branch.iter().map(|(_, run)| run.len()).sum();
            self.len += grow(&mut branches, branch, here);
            self.len -= before;
        }
        self.branches = branches;
    }
}

/// Appends what `branch` is after `changes`, as one branch or more. Returns how many entries that are.
fn grow<K: Ord + Clone, V: Clone>(
    branches: &mut Vec<Below<K, Branch<K, V>>>,
    branch: Branch<K, V>,
    changes: &[(K, Option<V>)],
) -> usize {
    let mut rest = changes;
    let mut runs: Vec<Below<K, Run<K, V>>> = Vec::with_capacity(branch.len() + 1);
    if branch.is_empty() {
        split(&mut runs, merge(&[], std::mem::take(&mut rest)));
    }
    for (at, (first, run)) in branch.iter().enumerate() {
        let mine = match branch.get(at + 1) {
            Some((next, _)) => rest.partition_point(|(key, _)| key < next),
            None => rest.len(),
        };
        let (here, later) = rest.split_at(mine);
        rest = later;
        if here.is_empty() {
            runs.push((first.clone(), run.clone()));
        } else {
            split(&mut runs, merge(run, here));
        }
    }
    let len = runs.iter().map(|(_, run)| run.len()).sum();
    // A branch that has become small goes into the one before.
    if let Some((_, last)) = branches.last_mut()
        && last.len() + runs.len() <= BRANCH / 2
    {
        Arc::make_mut(last).append(&mut runs);
    }
    let parts = runs.len().div_ceil(BRANCH * 3 / 4);
    match runs.first() {
        Some((first, _)) if runs.len() <= BRANCH => branches.push((first.clone(), Arc::new(runs))),
        Some(_) => {
            let parts = runs.chunks(runs.len().div_ceil(parts));
            branches.extend(parts.map(|part| (part[0].0.clone(), Arc::new(part.to_vec()))));
        }
        None => {}
    }
    len
}

/// Appends sorted entries, as one run or more.
fn split<K: Ord + Clone, V: Clone>(runs: &mut Vec<Below<K, Run<K, V>>>, mut entries: Vec<(K, V)>) {
    let most = SharedMap::<K, V>::RUN;
    // A run that has become small goes into the one before.
    if let Some((_, last)) = runs.last()
        && last.len() + entries.len() <= most / 2
    {
        entries.splice(0..0, last.iter().cloned());
        runs.pop();
    }
    let mut push = |run: &[(K, V)]| runs.push((run[0].0.clone(), run.into()));
    match entries.len() {
        0 => {}
        len if len <= most => push(&entries),
        len => entries.chunks(len.div_ceil(len.div_ceil(most * 3 / 4))).for_each(push),
    }
}

fn merge<K: Ord + Clone, V: Clone>(old: &[(K, V)], changes: &[(K, Option<V>)]) -> Vec<(K, V)> {
    let mut merged = Vec::with_capacity(old.len() + changes.len());
    let mut rest = old;
    for (key, value) in changes {
        let (before, from) = rest.split_at(rest.partition_point(|(old, _)| old < key));
        merged.extend_from_slice(before);
        rest = match from.first() {
            Some((old, _)) if old == key => &from[1..],
            _ => from,
        };
        merged.extend(value.iter().map(|value| (key.clone(), value.clone())));
    }
    merged.extend_from_slice(rest);
    merged
}

/// The last of `sorted` whose key is not above `key`.
#[inline]
fn below<'a, K: Borrow<Q>, T, Q: Ord + ?Sized>(
    sorted: &'a [Below<K, T>],
    key: &Q,
) -> Option<&'a Below<K, T>> {
    sorted.get(sorted.partition_point(|(first, _)| first.borrow() <= key).wrapping_sub(1))
}

impl<K: Ord, V: PartialEq> SharedMap<K, V> {
    /// What differs between `old` and this version, by ascending key. What the two share is not
    /// looked at.
    pub fn since<'a>(&'a self, old: &'a Self) -> Vec<Difference<'a, K, V>> {
        let (mut olds, mut news) = (Runs::new(old), Runs::new(self));
        let (mut before, mut after) = (Vec::new(), Vec::new());
        while let (Some((a, branch_a, run_a)), Some((b, branch_b, run_b))) = (olds.at(), news.at()) {
            if let (Some(branch_a), Some(branch_b)) = (branch_a, branch_b)
                && Arc::ptr_eq(branch_a, branch_b)
            {
                olds.skip_branch();
                news.skip_branch();
                continue;
            }
            let order = a.cmp(b);
            let shared = Arc::ptr_eq(run_a, run_b);
            if order != Ordering::Greater {
                before.extend(run_a.iter().filter(|_| !shared));
                olds.skip_run();
            }
            if order != Ordering::Less {
                after.extend(run_b.iter().filter(|_| !shared));
                news.skip_run();
            }
        }
        for (rest, entries) in [(&mut olds, &mut before), (&mut news, &mut after)] {
            while let Some((_, _, run)) = rest.at() {
                entries.extend(run.iter());
                rest.skip_run();
            }
        }
        differences(&before, &after)
    }
}

fn differences<'a, K: Ord, V: PartialEq>(
    before: &[&'a (K, V)],
    after: &[&'a (K, V)],
) -> Vec<Difference<'a, K, V>> {
    let (mut a, mut b) = (before.iter().peekable(), after.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some((old, _)), Some((new, _))) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return found,
        };
        let old = if order == Ordering::Greater { None } else { a.next() };
        let new = if order == Ordering::Less { None } else { b.next() };
        let Some((key, _)) = old.or(new) else { return found };
        let (old, new) = (old.map(|(_, value)| value), new.map(|(_, value)| value));
        if old != new {
            found.push(Difference { key, old, new });
        }
    }
}

/// A walk over the runs of a map.
struct Runs<'a, K, V> {
    branches: &'a [Below<K, Branch<K, V>>],
    run: usize,
}

impl<'a, K, V> Runs<'a, K, V> {
    fn new(map: &'a SharedMap<K, V>) -> Self {
        Self { branches: &map.branches, run: 0 }
    }

    /// The run the walk is at: its first key, its branch where it is that one's first, and itself.
    #[expect(clippy::type_complexity, reason = "three parts of one place, taken apart at once")]
    fn at(&self) -> Option<(&'a K, Option<&'a Branch<K, V>>, &'a Run<K, V>)> {
        let (_, branch) = self.branches.first()?;
        let (first, run) = &branch[self.run];
        Some((first, (self.run == 0).then_some(branch), run))
    }

    fn skip_run(&mut self) {
        self.run += 1;
        if self.branches.first().is_some_and(|(_, branch)| branch.len() == self.run) {
            self.skip_branch();
        }
    }

    fn skip_branch(&mut self) {
        self.branches = &self.branches[1..];
        self.run = 0;
    }
}

/// The entries of a map, by ascending key.
#[derive(Clone, Debug)]
pub struct Iter<'a, K, V> {
    branches: std::slice::Iter<'a, Below<K, Branch<K, V>>>,
    runs: std::slice::Iter<'a, Below<K, Run<K, V>>>,
    entries: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.entries.next() {
                return Some((key, value));
            }
            match self.runs.next() {
                Some((_, run)) => self.entries = run.iter(),
                None => self.runs = self.branches.next()?.1.iter(),
            }
        }
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    /// Of a key that occurs twice the last value counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, Some(value))).collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.reverse();
        entries.dedup_by(|(a, _), (b, _)| a == b);
        entries.reverse();
        let mut map = Self::default();
        map.apply(&entries);
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use std::collections::BTreeMap;

    type Batch = Vec<(u16, Option<u8>)>;

    /// Few batches that are large, so that runs and branches split, and that take out much again.
    fn batches() -> impl Strategy<Value = Vec<Batch>> {
        let wide = prop::collection::btree_map(0u16..40_000, prop::option::of(any::<u8>()), 0..3_000);
        let dense = (0u16..40_000, 0u16..20_000, prop::option::of(any::<u8>()))
            .prop_map(|(first, len, value)| (first..first.saturating_add(len)).map(|k| (k, value)).collect());
        let narrow = prop::collection::btree_map(0u16..40_000, prop::option::of(any::<u8>()), 0..3);
        prop::collection::vec(prop_oneof![wide, dense, narrow], 1..12)
            .prop_map(|batches| batches.into_iter().map(|b| b.into_iter().collect()).collect())
    }

    fn check(map: &SharedMap<u16, u8>, model: &BTreeMap<u16, u8>) {
        assert!(map.iter().eq(model.iter()));
        assert_eq!(map.len(), model.len());
        for (first, branch) in &map.branches {
            assert_eq!(*first, branch[0].0);
            assert!((1..=BRANCH).contains(&branch.len()));
            for (first, run) in branch.iter() {
                assert_eq!(*first, run[0].0);
                assert!((1..=SharedMap::<u16, u8>::RUN).contains(&run.len()));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_version_is_what_a_plain_map_is(batches in batches(), keys in prop::collection::vec(0u16..41_000, 20)) {
            let mut versions = vec![(SharedMap::default(), BTreeMap::new())];
            for batch in batches {
                let (mut map, mut model) = versions[versions.len() - 1].clone();
                map.apply(&batch);
                for (key, value) in batch {
                    match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                }
                versions.push((map, model));
            }
            for (map, model) in &versions {
                check(map, model);
                for key in &keys {
                    prop_assert_eq!(map.get(key), model.get(key));
                    prop_assert_eq!(map.floor(key), model.range(..=key).next_back());
                    prop_assert!(map.from(key).eq(model.range(key..)));
                }
                let (newest, of) = &versions[versions.len() - 1];
                let changed: Batch = newest.since(map).into_iter().map(|d| (*d.key, d.new.copied())).collect();
                let keys: std::collections::BTreeSet<u16> = model.keys().chain(of.keys()).copied().collect();
                let expected: Batch = keys
                    .into_iter()
                    .filter(|key| model.get(key) != of.get(key))
                    .map(|key| (key, of.get(&key).copied()))
                    .collect();
                prop_assert_eq!(changed, expected);
            }
        }
    }

    #[test]
    fn a_change_copies_a_run_and_shares_the_rest() {
        let old: SharedMap<u32, ()> = (0..100_000).map(|key| (key * 2, ())).collect();
        let mut new = old.clone();
        new.insert(77_777, ());
        let runs = |map: &SharedMap<u32, ()>| -> std::collections::HashSet<*const (u32, ())> {
            map.branches.iter().flat_map(|(_, b)| b.iter().map(|(_, run)| run.as_ptr())).collect()
        };
        assert_eq!(runs(&new).difference(&runs(&old)).count(), 1);
        let difference = new.since(&old);
        assert_eq!(difference, [Difference { key: &77_777, old: None, new: Some(&()) }]);
        assert!(new.remove(&77_777) && !new.remove(&77_777));
        assert_eq!(new, old);
    }

    #[test]
    fn of_a_key_that_occurs_twice_the_last_value_counts() {
        let map: SharedMap<u8, u8> = [(1, 1), (0, 5), (1, 2), (1, 3)].into_iter().collect();
        assert!(map.iter().eq([(&0, &5), (&1, &3)]));
    }
}
