//! Grows a tree over entries. Nothing here is trusted: the check proves what it made.
//!
//! The cuts are HyperSplit's (Qi et al., INFOCOM 2009): one bound of one number at a time, where
//! it parts the entries best. Entries that want sets are parted by set, since no bound can; and
//! entries that say much about an address are kept apart from those that do not (EffiCuts,
//! Vamanan et al., SIGCOMM 2010), which every cut of that address would copy. Copies are paid
//! from a budget; a subtree that has used up its share ends in a larger leaf.

use super::SetId;
use super::lower::{Dim, Entries, Interval, Space};
use super::tree::{Branch, Group, NO_RANK, Node, Tree};
use std::collections::BTreeMap;

/// Entries a leaf holds without need for a cut.
const LEAF: usize = 8;
/// Nodes on the way from the root to a leaf, at most.
pub(super) const MAX_DEPTH: u32 = 48;
/// Copies of entries that may be made, for each entry, over the whole tree.
const COPIES: usize = 12;
/// From this many entries on they are parted by what they say about addresses.
const SEPARATE: usize = 64;

/// A tree in which every point finds the first of `entries` that matches it.
pub(super) fn grow(entries: Entries) -> Tree {
    let all: Vec<u32> = (0..entries.len() as u32).collect();
    let budget = COPIES * all.len();
    let tree =
        Tree { entries, nodes: vec![], branches: vec![], groups: vec![], leaves: vec![], parts: vec![] };
    let mut grower = Grower { tree };
    let region = Region { within: Dim::ALL.map(Dim::whole), known: Vec::new() };
    match grower.separate(&all) {
        Some(classes) => {
            let root = grower.reserve();
            grower.tree.parts = vec![0; all.len()];
            for (part, class) in (0u8..).zip(&classes) {
                class.iter().for_each(|entry| grower.tree.parts[*entry as usize] = part);
            }
            let branches: Vec<Branch> =
                classes.into_iter().map(|class| grower.branch(class, &region, budget / 4, 1)).collect();
            let (first, end) = extend(&mut grower.tree.branches, branches);
            grower.tree.nodes[root as usize] = Node::Each { first, end };
        }
        None => {
            grower.node(all, &region, budget, 0);
        }
    }
    grower.tree
}

struct Grower {
    tree: Tree,
}

/// The part of the space a subtree is responsible for.
#[derive(Clone)]
struct Region {
    within: [Interval; 6],
    /// Sets known to hold the point.
    known: Vec<(Space, SetId)>,
}

/// A way to part entries.
enum Choice {
    Cut(Dim, u128),
    BySet(Space),
}

impl Grower {
    /// Grows the subtree for `list` in `region` and returns its root.
    fn node(&mut self, list: Vec<u32>, region: &Region, budget: usize, depth: u32) -> u32 {
        let list = self.settle(list, region);
        let choice = if list.len() > LEAF && depth + 1 < MAX_DEPTH {
            self.choose(&list, region, budget)
        } else {
            None
        };
        let node = self.reserve();
        self.tree.nodes[node as usize] = match choice {
            None => {
                let (first, end) = extend(&mut self.tree.leaves, list);
                Node::Leaf { first, end }
            }
            Some(Choice::Cut(dim, bound)) => {
                let Interval { first, last } = region.within[dim as usize];
                let mut side = region.clone();
                side.within[dim as usize] = Interval { first, last: bound - 1 };
                let low: Vec<u32> = self.touching(&list, &side);
                let mut other = region.clone();
                other.within[dim as usize] = Interval { first: bound, last };
                let high: Vec<u32> = self.touching(&list, &other);

                let total = low.len() + high.len();
                let left = budget.saturating_sub(total.saturating_sub(list.len()));
                let share = left * low.len() / total.max(1);
                let below = self.node(low, &side, share, depth + 1);
                let rest = self.node(high, &other, left - share, depth + 1);
                Node::Cut { dim, bound, below, rest }
            }
            Some(Choice::BySet(space)) => {
                let mut by_set: BTreeMap<SetId, Vec<u32>> = BTreeMap::new();
                let mut others = Vec::new();
                for entry in &list {
                    match self.wanted_set(*entry, space, region) {
                        Some(set) => by_set.entry(set).or_default().push(*entry),
                        None => others.push(*entry),
                    }
                }
                let share = |part: usize| budget * part / list.len();
                let rest = self.node(others.clone(), region, share(others.len()), depth + 1);
                let groups: Vec<Group> = by_set
                    .into_iter()
                    .map(|(set, part)| {
                        let mut inside = region.clone();
                        inside.known.push((space, set));
                        let share = share(part.len());
                        Group { set, branch: self.branch(part, &inside, share, depth + 1) }
                    })
                    .collect();
                let (first, end) = extend(&mut self.tree.groups, groups);
                Node::BySet { space, first, end, rest }
            }
        };
        node
    }

    fn branch(&mut self, list: Vec<u32>, region: &Region, budget: usize, depth: u32) -> Branch {
        let lowest = list.first().map_or(NO_RANK, |entry| self.tree.entries.rank(*entry));
        Branch { lowest, node: self.node(list, region, budget, depth) }
    }

    /// A node whose content follows once its children are known.
    fn reserve(&mut self) -> u32 {
        self.tree.nodes.push(Node::Leaf { first: 0, end: 0 });
        self.tree.nodes.len() as u32 - 1
    }

    /// What of `list` can be the first match somewhere in `region`.
    fn settle(&self, list: Vec<u32>, region: &Region) -> Vec<u32> {
        let mut list = self.touching(&list, region);
        if let Some(last) = list.iter().position(|entry| self.covers(*entry, region)) {
            list.truncate(last + 1);
        }
        list
    }

    fn touching(&self, list: &[u32], region: &Region) -> Vec<u32> {
        list.iter().copied().filter(|entry| self.touches(*entry, region)).collect()
    }

    fn touches(&self, entry: u32, region: &Region) -> bool {
        self.tree.entries.fields(entry).all(|(dim, intervals)| {
            let Interval { first, last } = region.within[dim as usize];
            let at = intervals.partition_point(|interval| interval.last < first);
            intervals.get(at).is_some_and(|interval| interval.first <= last)
        })
    }

    fn covers(&self, entry: u32, region: &Region) -> bool {
        let inside = |(dim, intervals): (Dim, &[Interval])| {
            let Interval { first, last } = region.within[dim as usize];
            let at = intervals.partition_point(|interval| interval.last < first);
            intervals.get(at).is_some_and(|interval| interval.first <= first && last <= interval.last)
        };
        self.tree.entries.fields(entry).all(inside)
            && self
                .tree
                .entries
                .literals(entry)
                .iter()
                .all(|l| l.wanted && region.known.contains(&(l.space, l.set)))
    }

    /// The first set of `space` the entry wants and the region does not promise.
    fn wanted_set(&self, entry: u32, space: Space, region: &Region) -> Option<SetId> {
        let mut literals = self.tree.entries.literals(entry).iter();
        let open =
            literals.find(|l| l.space == space && l.wanted && !region.known.contains(&(space, l.set)))?;
        Some(open.set)
    }

    /// The cheapest way on, or none that helps and can be paid.
    fn choose(&self, list: &[u32], region: &Region, budget: usize) -> Option<Choice> {
        let cut = self.best_cut(list, region, budget);
        if let Some((cost, dim, bound)) = cut {
            // One comparison that copies next to nothing beats any number of set lookups.
            if cost <= list.len() * list.len() * 5 / 8 {
                return Some(Choice::Cut(dim, bound));
            }
        }
        match (cut, self.best_space(list, region)) {
            (Some((cost, ..)), Some((set_cost, space))) if set_cost < cost => Some(Choice::BySet(space)),
            (Some((_, dim, bound)), _) => Some(Choice::Cut(dim, bound)),
            (None, Some((_, space))) => Some(Choice::BySet(space)),
            (None, None) => None,
        }
    }

    /// The bound that minimises the sum of the squares of the two sides.
    fn best_cut(&self, list: &[u32], region: &Region, budget: usize) -> Option<(usize, Dim, u128)> {
        let mut best: Option<(usize, Dim, u128)> = None;
        for dim in Dim::ALL {
            let within = region.within[dim as usize];
            // Each entry's lowest and highest value within the region; entries that say nothing span it.
            let mut firsts = Vec::new();
            let mut lasts = Vec::new();
            let mut bounds = Vec::new();
            for intervals in list.iter().filter_map(|entry| self.tree.entries.intervals(*entry, dim)) {
                let from = intervals.partition_point(|interval| interval.last < within.first);
                let to = intervals.partition_point(|interval| interval.first <= within.last);
                let inside = &intervals[from..to];
                let [Some(lowest), Some(highest)] = [inside.first(), inside.last()] else { continue };
                firsts.push(lowest.first.max(within.first));
                lasts.push(highest.last.min(within.last));
                // The edges between an entry's own intervals are worth a look only while they are few.
                let inner = if inside.len() <= 4 { inside } else { &[] };
                bounds.extend(inner.iter().flat_map(|i| [Some(i.first), i.last.checked_add(1)]).flatten());
            }
            bounds.extend(firsts.iter().copied().chain(lasts.iter().filter_map(|last| last.checked_add(1))));
            bounds.retain(|bound| within.first < *bound && *bound <= within.last);
            firsts.sort_unstable();
            lasts.sort_unstable();
            bounds.sort_unstable();
            bounds.dedup();
            let everywhere = list.len() - firsts.len();
            for bound in bounds {
                let below = everywhere + firsts.partition_point(|first| *first < bound);
                let rest = everywhere + lasts.len() - lasts.partition_point(|last| *last < bound);
                let cost = below * below + rest * rest;
                let helps = below.max(rest) < list.len() && below + rest - list.len() <= budget;
                if helps && best.is_none_or(|(least, ..)| cost < least) {
                    best = Some((cost, dim, bound));
                }
            }
        }
        best
    }

    /// The space whose sets part the entries best. A packet is taken to be in two of the sets.
    fn best_space(&self, list: &[u32], region: &Region) -> Option<(usize, Space)> {
        let cost = |space| {
            let mut sizes: BTreeMap<Option<SetId>, usize> = BTreeMap::new();
            for entry in list {
                *sizes.entry(self.wanted_set(*entry, space, region)).or_default() += 1;
            }
            let others = sizes.remove(&None).unwrap_or(0);
            let largest = sizes.values().copied().max()?;
            let visited = others + 2 * largest;
            (visited < list.len()).then_some((2 * visited * visited, space))
        };
        Space::ALL.into_iter().filter_map(cost).min()
    }

    /// The entries in up to four classes, by whether they narrow source and destination, or
    /// `None` where there are too few or they are all alike.
    fn separate(&self, list: &[u32]) -> Option<Vec<Vec<u32>>> {
        if list.len() < SEPARATE {
            return None;
        }
        let mut classes: [Vec<u32>; 4] = Default::default();
        for entry in list {
            let narrow = [Dim::Src, Dim::Dst].map(|dim| usize::from(self.is_narrow(*entry, dim)));
            classes[narrow[0] * 2 + narrow[1]].push(*entry);
        }
        // A handful is cheaper to copy than to visit: it joins the entries that say least.
        for class in 1..4 {
            if classes[class].len() <= LEAF {
                let few = std::mem::take(&mut classes[class]);
                classes[0].extend(few);
            }
        }
        classes[0].sort_unstable();
        let mut classes: Vec<_> = classes.into_iter().filter(|class| !class.is_empty()).collect();
        classes.sort_by_key(|class| class[0]);
        (classes.len() > 1).then_some(classes)
    }

    /// The entry's addresses lie within an IPv4 /12 or an IPv6 /32.
    fn is_narrow(&self, entry: u32, dim: Dim) -> bool {
        let Some([first, .., last] | [first @ last]) = self.tree.entries.intervals(entry, dim) else {
            return false;
        };
        let width = last.last - first.first;
        let v4 = first.first >> 32 == 0xffff && last.last >> 32 == 0xffff;
        width < if v4 { 1 << 20 } else { 1 << 96 }
    }
}

/// Appends and says where.
fn extend<T>(array: &mut Vec<T>, items: Vec<T>) -> (u32, u32) {
    let first = array.len() as u32;
    array.extend(items);
    (first, array.len() as u32)
}
