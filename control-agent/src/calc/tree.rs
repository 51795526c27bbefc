//! A sorted map whose copies share what they have in common: a copy costs nothing, a change of one the way to it, and the
//! difference of two what differs.
//!
//! A treap: sorted by key from left to right, and by a random number that is the key's own from the root down. So equal maps
//! have one shape, however they came about, and what neither copy has changed is the same node in both. Libraries of such maps
//! that may be used here have no difference that skips what is shared.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    ops::Index,
    sync::{Arc, LazyLock},
};

/// Not to be foreseen, lest somebody choose keys that make the tree deep.
static RANDOM: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A sorted map that is cheap to copy and to compare with its copies.
#[derive(Clone)]
pub struct Tree<K, V> {
    root: Link<K, V>,
    len: usize,
}

type Link<K, V> = Option<Arc<Node<K, V>>>;

#[derive(Clone)]
struct Node<K, V> {
    /// Both children's are less.
    rank: u32,
    key: K,
    value: V,
    left: Link<K, V>,
    right: Link<K, V>,
}

/// What is different of one key.
#[derive(Debug, PartialEq, Eq)]
pub enum Difference<'a, K, V> {
    /// Only the later map has it.
    Added(&'a K, &'a V),
    /// Both have it, with other values: the earlier one, the later one.
    Changed(&'a K, &'a V, &'a V),
    /// Only the earlier map has it.
    Removed(&'a K, &'a V),
}

impl<K: Ord + Hash + Clone, V: Clone> Tree<K, V> {
    /// Puts the value there. Returns the one that was.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let rank = rank(&key);
        let old = insert(&mut self.root, rank, key, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes the value away, if there is one.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // What is not there must not cost a copy of the way to it.
        self.get(key)?;
        self.len -= 1;
        remove(&mut self.root, key)
    }

    /// Becomes `new`; what is the same stays the same in memory.
    pub fn become_like(&mut self, new: BTreeMap<K, V>)
    where
        V: PartialEq,
    {
        let gone: Vec<K> = self.keys().filter(|key| !new.contains_key(*key)).cloned().collect();
        for key in &gone {
            self.remove(key);
        }
        for (key, value) in new {
            self.put(key, value);
        }
    }

    /// As [`insert`](Self::insert), but what is equal already stays the same in memory.
    pub fn put(&mut self, key: K, value: V)
    where
        V: PartialEq,
    {
        if self.get(&key) != Some(&value) {
            self.insert(key, value);
        }
    }
}

impl<K, V> Tree<K, V> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// All, by key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut iter = Iter(Vec::new());
        iter.descend(&self.root);
        iter
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, by key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Tree<K, V> {
    /// The value.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut at = &self.root;
        while let Some(node) = at {
            at = match key.cmp(node.key.borrow()) {
                Ordering::Less => &node.left,
                Ordering::Equal => return Some(&node.value),
                Ordering::Greater => &node.right,
            };
        }
        None
    }

    /// There is a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Those from `first` on, by key.
    pub fn from<Q: Ord + ?Sized>(&self, first: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let mut iter = Iter(Vec::new());
        let mut at = &self.root;
        while let Some(node) = at {
            at = match first.cmp(node.key.borrow()) {
                Ordering::Greater => &node.right,
                Ordering::Less | Ordering::Equal => {
                    iter.0.push(node);
                    &node.left
                }
            };
        }
        iter
    }

    /// What leads from `self` to `later`, by key. Costs what differs, between copies of one map.
    pub fn differences<'a>(&'a self, later: &'a Self) -> Vec<Difference<'a, K, V>>
    where
        V: PartialEq,
    {
        let mut found = Vec::new();
        let (mut before, mut after) = (Walk::of(&self.root), Walk::of(&later.root));
        loop {
            let order = match (before.next, after.next) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(Part::Below(old)), Some(Part::Below(new))) => {
                    // The higher one is opened: the other may be within it.
                    match (Arc::ptr_eq(old, new), old.rank.cmp(&new.rank)) {
                        (true, _) => (before.skip(), after.skip()).0,
                        (false, Ordering::Greater) => before.open(),
                        (false, Ordering::Less) => after.open(),
                        (false, Ordering::Equal) => (before.open(), after.open()).0,
                    }
                    continue;
                }
                (Some(Part::Below(_)), Some(Part::One(_))) => {
                    before.open();
                    continue;
                }
                (Some(Part::One(_)), Some(Part::Below(_))) => {
                    after.open();
                    continue;
                }
                (Some(Part::One(old)), Some(Part::One(new))) => old.key.cmp(&new.key),
            };
            match order {
                Ordering::Less => match before.single() {
                    Some(old) => found.push(Difference::Removed(&old.key, &old.value)),
                    None => before.open(),
                },
                Ordering::Greater => match after.single() {
                    Some(new) => found.push(Difference::Added(&new.key, &new.value)),
                    None => after.open(),
                },
                Ordering::Equal => {
                    let (old, new) = (before.single(), after.single());
                    let (old, new) = old.zip(new).expect("two single nodes were compared");
                    if !std::ptr::eq(old, new) && old.value != new.value {
                        found.push(Difference::Changed(&old.key, &old.value, &new.value));
                    }
                }
            }
        }
    }
}

fn rank<K: Hash>(key: &K) -> u32 {
    (RANDOM.hash_one(key) >> 32) as u32
}

fn insert<K: Ord + Clone, V: Clone>(link: &mut Link<K, V>, rank: u32, key: K, value: V) -> Option<V> {
    if let Some(node) = link.as_mut().filter(|node| (node.rank, &node.key) >= (rank, &key)) {
        let node = Arc::make_mut(node);
        return match key.cmp(&node.key) {
            Ordering::Less => insert(&mut node.left, rank, key, value),
            Ordering::Equal => Some(std::mem::replace(&mut node.value, value)),
            Ordering::Greater => insert(&mut node.right, rank, key, value),
        };
    }
    let (left, right) = split(link.take(), &key);
    *link = Some(Arc::new(Node { rank, key, value, left, right }));
    None
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(
    link: &mut Link<K, V>,
    key: &Q,
) -> Option<V> {
    let node = Arc::make_mut(link.as_mut()?);
    match key.cmp(node.key.borrow()) {
        Ordering::Less => remove(&mut node.left, key),
        Ordering::Greater => remove(&mut node.right, key),
        Ordering::Equal => {
            let (left, right) = (node.left.take(), node.right.take());
            let gone = std::mem::replace(link, join(left, right));
            gone.map(|node| Arc::unwrap_or_clone(node).value)
        }
    }
}

/// What is before the key, and what is behind it.
fn split<K: Ord + Clone, V: Clone>(link: Link<K, V>, key: &K) -> (Link<K, V>, Link<K, V>) {
    let Some(mut shared) = link else { return (None, None) };
    let node = Arc::make_mut(&mut shared);
    if node.key < *key {
        let (middle, right) = split(node.right.take(), key);
        node.right = middle;
        (Some(shared), right)
    } else {
        let (left, middle) = split(node.left.take(), key);
        node.left = middle;
        (left, Some(shared))
    }
}

/// All of the first come before all of the second.
fn join<K: Ord + Clone, V: Clone>(left: Link<K, V>, right: Link<K, V>) -> Link<K, V> {
    match (left, right) {
        (None, one) | (one, None) => one,
        (Some(mut left), Some(mut right)) => {
            if (left.rank, &left.key) > (right.rank, &right.key) {
                let top = Arc::make_mut(&mut left);
                top.right = join(top.right.take(), Some(right));
                Some(left)
            } else {
                let top = Arc::make_mut(&mut right);
                top.left = join(Some(left), top.left.take());
                Some(right)
            }
        }
    }
}

/// A walk from left to right that sees subtrees whole until they are opened.
struct Walk<'a, K, V> {
    next: Option<Part<'a, K, V>>,
    rest: Vec<Part<'a, K, V>>,
}

enum Part<'a, K, V> {
    /// A node and all below it.
    Below(&'a Arc<Node<K, V>>),
    /// The node alone.
    One(&'a Node<K, V>),
}

impl<K, V> Clone for Part<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Part<'_, K, V> {}

impl<'a, K, V> Walk<'a, K, V> {
    fn of(root: &'a Link<K, V>) -> Self {
        Self { next: root.as_ref().map(Part::Below), rest: Vec::new() }
    }

    fn skip(&mut self) {
        self.next = self.rest.pop();
    }

    /// Takes the next apart, if it is a subtree.
    fn open(&mut self) {
        if let Some(Part::Below(node)) = self.next {
            self.rest.extend(node.right.as_ref().map(Part::Below));
            self.rest.push(Part::One(node));
            self.rest.extend(node.left.as_ref().map(Part::Below));
            self.skip();
        }
    }

    /// Goes on behind the next, if it is a single node.
    fn single(&mut self) -> Option<&'a Node<K, V>> {
        let Some(Part::One(node)) = self.next else { return None };
        self.skip();
        Some(node)
    }
}

/// By key.
pub struct Iter<'a, K, V>(Vec<&'a Node<K, V>>);

impl<'a, K, V> Iter<'a, K, V> {
    fn descend(&mut self, mut at: &'a Link<K, V>) {
        while let Some(node) = at {
            self.0.push(node);
            at = &node.left;
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.0.pop()?;
        self.descend(&node.right);
        Some((&node.key, &node.value))
    }
}

impl<K, V> Default for Tree<K, V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<'a, K, V> IntoIterator for &'a Tree<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Ord + Hash + Clone, V: Clone> FromIterator<(K, V)> for Tree<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut tree = Self::default();
        tree.extend(entries);
        tree
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Extend<(K, V)> for Tree<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| drop(self.insert(key, value)));
    }
}

impl<K: Ord + Hash + Clone, V: Clone> From<BTreeMap<K, V>> for Tree<K, V> {
    fn from(map: BTreeMap<K, V>) -> Self {
        map.into_iter().collect()
    }
}

impl<K: Ord + Hash + Clone, V: Clone, const N: usize> From<[(K, V); N]> for Tree<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for Tree<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("there is a value of that key")
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Tree<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.root, &other.root) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same || self.len == other.len && self.differences(other).is_empty()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Tree<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn check(node: &Link<u8, u8>) {
        let Some(node) = node else { return };
        for child in [&node.left, &node.right].into_iter().flatten() {
            assert!((child.rank, child.key) < (node.rank, node.key));
        }
        assert!(node.left.as_ref().is_none_or(|left| left.key < node.key));
        assert!(node.right.as_ref().is_none_or(|right| right.key > node.key));
        check(&node.left);
        check(&node.right);
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_its_copies_stay_as_they_were(
            steps in vec((any::<u8>(), prop::option::of(0..3_u8)), 0..200), copy_at in 0..200_usize, from in any::<u8>(),
        ) {
            let (mut tree, mut map) = (Tree::default(), BTreeMap::new());
            let mut copied = (tree.clone(), map.clone());
            for (at, (key, value)) in steps.into_iter().enumerate() {
                if at == copy_at {
                    copied = (tree.clone(), map.clone());
                }
                match value {
                    Some(value) => prop_assert_eq!(tree.insert(key, value), map.insert(key, value)),
                    None => prop_assert_eq!(tree.remove(&key), map.remove(&key)),
                }
            }
            check(&tree.root);
            prop_assert_eq!(tree.len(), map.len());
            prop_assert!(tree.iter().eq(&map) && copied.0.iter().eq(&copied.1));
            prop_assert!(tree.from(&from).eq(map.range(from..)));
            prop_assert!((0..=255).all(|key| tree.get(&key) == map.get(&key)));

            let (old, new) = (&copied.1, &map);
            let mut expected = Vec::new();
            for key in 0..=255_u8 {
                match (old.get_key_value(&key), new.get_key_value(&key)) {
                    (None, Some((key, value))) => expected.push(Difference::Added(key, value)),
                    (Some((key, value)), None) => expected.push(Difference::Removed(key, value)),
                    (Some((key, one)), Some((_, other))) if one != other => {
                        expected.push(Difference::Changed(key, one, other));
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(copied.0.differences(&tree), expected);
            let again: Tree<u8, u8> = map.clone().into();
            prop_assert!(again == tree);
            prop_assert_eq!(again == copied.0, map == copied.1);
            let mut third = copied.0;
            third.become_like(map);
            prop_assert!(third == tree);
        }
    }

    #[test]
    fn what_copies_share_is_not_looked_at() {
        /// Counts how often it is compared.
        #[derive(Clone)]
        struct Counted<'a>(&'a std::cell::Cell<usize>);
        impl PartialEq for Counted<'_> {
            fn eq(&self, _: &Self) -> bool {
                self.0.set(self.0.get() + 1);
                true
            }
        }
        let compared = std::cell::Cell::new(0);
        let before: Tree<u32, Counted<'_>> = (0..100_000).map(|key| (key, Counted(&compared))).collect();
        let mut after = before.clone();
        after.remove(&77);
        after.insert(200_000, Counted(&compared));
        assert_eq!(before.differences(&after).len(), 2);
        assert!(compared.get() < 300, "{} of 100,000 were compared", compared.get());
    }
}
