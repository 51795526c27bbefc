//! The flat tree and its walk: from a point to the lowest rank that matches it.

use super::SetId;
use super::lower::{Dim, Entries, Interval, Literal, Point, Space};

/// No entry matches.
pub(super) const NO_RANK: u32 = u32::MAX;

/// One step of the walk. Children come after their parents in [`Tree::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// On to `below` where the point's number is less than `bound`, else to `rest`.
    Cut { dim: Dim, bound: u128, below: u32, rest: u32 },
    /// The lowest of what several subtrees say. `first..end` in [`Tree::branches`], by lowest rank.
    Each { first: u32, end: u32 },
    /// The lowest of what `rest` and the subtrees of the sets that hold the point say.
    /// `first..end` in [`Tree::groups`], by set.
    BySet { space: Space, first: u32, end: u32, rest: u32 },
    /// Entries to try in order. `first..end` in [`Tree::leaves`].
    Leaf { first: u32, end: u32 },
}

/// A subtree, and a rank that nothing below it undercuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    pub(super) lowest: u32,
    pub(super) node: u32,
}

/// The subtree of entries that want one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) set: SetId,
    pub(super) branch: Branch,
}

/// The entries of one stage for one IP version, and the way to the few that may match a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) entries: Entries,
    pub(super) nodes: Vec<Node>,
    pub(super) branches: Vec<Branch>,
    pub(super) groups: Vec<Group>,
    pub(super) leaves: Vec<u32>,
    /// Which branch of an [`Node::Each`] an entry was meant for, by entry. For the check, which
    /// needs to know where to look; empty where there is no such node.
    pub(super) parts: Vec<u8>,
}

/// Told of everything the walk looks at. `()` watches nothing and costs nothing.
pub(super) trait Watch {
    /// Whether anybody listens.
    const ACTIVE: bool;
    /// Any value in `to` would have led the same way.
    fn narrowed(&mut self, dim: Dim, to: Interval);
    /// The walk depended on this literal being true.
    fn asked(&mut self, truth: Literal);
}

impl Watch for () {
    const ACTIVE: bool = false;
    #[inline]
    fn narrowed(&mut self, _: Dim, _: Interval) {}
    #[inline]
    fn asked(&mut self, _: Literal) {}
}

impl Tree {
    /// The lowest rank that matches, or [`NO_RANK`].
    #[inline]
    pub(super) fn find<W: Watch>(&self, point: &Point<'_>, watch: &mut W) -> u32 {
        self.lower_than(0, NO_RANK, point, watch)
    }

    /// The lowest rank below `node` that matches and is lower than `best`, or else `best`.
    ///
    /// Recursion and indices are bounded by what the check has proven of every tree.
    fn lower_than<W: Watch>(&self, mut node: u32, mut best: u32, point: &Point<'_>, watch: &mut W) -> u32 {
        loop {
            match self.nodes[node as usize] {
                Node::Cut { dim, bound, below, rest } => {
                    let whole = dim.whole();
                    if point.at(dim) < bound {
                        watch.narrowed(dim, Interval { first: whole.first, last: bound - 1 });
                        node = below;
                    } else {
                        watch.narrowed(dim, Interval { first: bound, last: whole.last });
                        node = rest;
                    }
                }
                Node::Leaf { first, end } => {
                    for entry in &self.leaves[first as usize..end as usize] {
                        let rank = self.entries.rank(*entry);
                        if rank >= best {
                            break;
                        }
                        if self.matches(*entry, point, watch) {
                            return rank;
                        }
                    }
                    return best;
                }
                Node::Each { first, end } => {
                    for branch in &self.branches[first as usize..end as usize] {
                        best = self.branch(*branch, best, point, watch);
                    }
                    return best;
                }
                Node::BySet { space, first, end, rest } => {
                    best = self.lower_than(rest, best, point, watch);
                    let groups = &self.groups[first as usize..end as usize];
                    let bound = best;
                    for set in point.members(space) {
                        if let Ok(at) = groups.binary_search_by_key(set, |group| group.set) {
                            best = self.branch(groups[at].branch, best, point, watch);
                        }
                    }
                    if W::ACTIVE {
                        for group in groups.iter().filter(|group| group.branch.lowest < bound) {
                            let wanted = point.is_in(space, group.set);
                            watch.asked(Literal { space, set: group.set, wanted });
                        }
                    }
                    return best;
                }
            }
        }
    }

    #[inline]
    fn branch<W: Watch>(&self, branch: Branch, best: u32, point: &Point<'_>, watch: &mut W) -> u32 {
        if branch.lowest < best { self.lower_than(branch.node, best, point, watch) } else { best }
    }

    /// Every constraint of the entry holds at the point.
    pub(super) fn matches<W: Watch>(&self, entry: u32, point: &Point<'_>, watch: &mut W) -> bool {
        for (dim, intervals) in self.entries.fields(entry) {
            let value = point.at(dim);
            let after = intervals.partition_point(|interval| interval.first <= value);
            let inside = after > 0 && value <= intervals[after - 1].last;
            if W::ACTIVE {
                let gap = || Interval {
                    first: if after == 0 { 0 } else { intervals[after - 1].last + 1 },
                    last: intervals.get(after).map_or(dim.whole().last, |next| next.first - 1),
                };
                watch.narrowed(dim, if inside { intervals[after - 1] } else { gap() });
            }
            if !inside {
                return false;
            }
        }
        for literal in self.entries.literals(entry) {
            let is_in = point.is_in(literal.space, literal.set);
            watch.asked(Literal { wanted: is_in, ..*literal });
            if is_in != literal.wanted {
                return false;
            }
        }
        true
    }
}
