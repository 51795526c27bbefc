//! The flat tree and its walk: from a point to the lowest rank that matches it.

use super::SetId;
use super::leaf::{Block, Line};
use super::lower::{Dim, Entries, Interval, Literal, Space};
use super::point::{Layout, Point, Words};
use super::simd::{Job, Kernel};

/// No rank: above all there are.
pub(super) const NONE_FOUND: u32 = 1 << 30;

/// A node, or the first block of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ref(u32);

impl Ref {
    const LEAF: u32 = 1 << 31;

    pub(super) const fn node(index: u32) -> Self {
        Self(index)
    }

    pub(super) const fn leaf(block: u32) -> Self {
        Self(block | Self::LEAF)
    }

    /// Whether it is a node; and the index of the node or block.
    #[inline(always)]
    pub(super) const fn parts(self) -> (bool, u32) {
        (self.0 & Self::LEAF == 0, self.0 & !Self::LEAF)
    }

    /// `Ok`: a node; `Err`: a block.
    #[inline(always)]
    pub(super) const fn get(self) -> Result<usize, usize> {
        if self.0 & Self::LEAF == 0 { Ok(self.0 as usize) } else { Err((self.0 ^ Self::LEAF) as usize) }
    }
}

/// One step of the walk. Children come after their parents in [`Tree::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// On to the branch whose number the bits of two words spell, those of the second word above
    /// the `shift` of the first. `branches[first..]`.
    Bits { words: [u8; 2], shift: u8, masks: [u64; 2], first: u32 },
    /// On to `below` where the point's number is less than `bound`, else to `rest`.
    /// [`Tree::branches`] from `first` on.
    Cut { dim: Dim, bound: Bound, first: u32 },
    /// The lowest of what several subtrees say. `first..end` in [`Tree::branches`], by lowest rank.
    Each { first: u32, end: u32 },
    /// The lowest of what branch `rest` and the subtrees of the sets that hold the point say.
    /// `first..end` in [`Tree::groups`], by set; `slots` in [`Tree::slots`] from set `low` on.
    BySet { space: Space, first: u32, end: u32, rest: u32, low: SetId, slots: (u32, u32) },
}

/// A number in 16 bytes aligned to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound([u64; 2]);

impl Bound {
    pub(super) const fn new(bound: u128) -> Self {
        Self([(bound >> 64) as u64, bound as u64])
    }

    #[inline]
    pub(super) const fn get(self) -> u128 {
        (self.0[0] as u128) << 64 | self.0[1] as u128
    }
}

/// A subtree, and a rank that nothing below it undercuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    pub(super) lowest: u32,
    pub(super) to: Ref,
}

impl Branch {
    /// Holds nothing, is never entered.
    pub(super) const EMPTY: Self = Self { lowest: NONE_FOUND, to: Ref::leaf(0) };
}

/// The subtree of entries that want one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) set: SetId,
    pub(super) branch: Branch,
}

/// The rules of one stage for one IP version, and the way to the few that may match a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) layout: Layout,
    pub(super) root: Branch,
    pub(super) nodes: Vec<Node>,
    pub(super) branches: Vec<Branch>,
    pub(super) groups: Vec<Group>,
    /// Groups by set, for [`Node::BySet`]: index in its groups, or [`NONE_FOUND`].
    pub(super) slots: Vec<u32>,
    pub(super) lines: Vec<Line>,
    /// Boxes that rules were cut into.
    pub(super) pieces: u32,
    /// By rank, for rules that some leaf asks for: where their entries begin in `hard`, else [`NONE_FOUND`].
    /// Empty where no leaf asks.
    pub(super) asked: Vec<u32>,
    /// All entries of the rules whose boxes do not say all.
    pub(super) hard: Entries,
}

/// Told of everything the walk looks at. `()` watches nothing and costs nothing.
pub(super) trait Watch {
    /// Whether anybody listens.
    const ACTIVE: bool;
    /// Any value in `to` would have led the same way.
    fn narrowed(&mut self, dim: Dim, to: Interval);
    /// The walk depended on this literal being true.
    fn asked(&mut self, truth: Literal);
    /// The walk is at a node.
    #[inline(always)]
    fn at_node(&mut self) {}
    /// The walk tries a block of a leaf.
    #[inline(always)]
    fn at_block(&mut self) {}
    /// The rule with this rank, which matched, is to be passed over.
    #[inline(always)]
    fn skips(&self, _rank: u32) -> bool {
        false
    }
}

impl Watch for () {
    const ACTIVE: bool = false;
    #[inline]
    fn narrowed(&mut self, _: Dim, _: Interval) {}
    #[inline]
    fn asked(&mut self, _: Literal) {}
}

impl Tree {
    /// The lowest rank that matches, or [`NONE_FOUND`].
    #[inline(always)]
    pub(super) fn find<K: Kernel, W: Watch>(&self, kernel: K, point: &Point<'_>, watch: &mut W) -> u32 {
        if self.root.lowest == NONE_FOUND {
            return NONE_FOUND;
        }
        match self.root.to.get().map(|node| self.nodes[node]) {
            // As below, without a call for each part.
            Ok(Node::Each { first, end }) => {
                watch.at_node();
                let parts = &self.branches[first as usize..end as usize];
                parts.iter().fold(NONE_FOUND, |best, part| self.branch(*part, best, kernel, point, watch))
            }
            _ => self.descend(self.root.to, NONE_FOUND, kernel, point, watch),
        }
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&self.nodes[..])
            + size_of_val(&self.branches[..])
            + size_of_val(&self.groups[..])
            + size_of_val(&self.slots[..])
            + size_of_val(&self.lines[..])
            + size_of_val(&self.asked[..])
            + self.hard.bytes()
    }

    #[inline(always)]
    fn branch<K: Kernel, W: Watch>(
        &self,
        branch: Branch,
        best: u32,
        kernel: K,
        point: &Point<'_>,
        watch: &mut W,
    ) -> u32 {
        if branch.lowest < best { self.descend(branch.to, best, kernel, point, watch) } else { best }
    }

    /// The lowest rank below `at` that matches and is lower than `best`, or else `best`.
    ///
    /// Recursion and indices are bounded by what the check has proven of every tree.
    pub(super) fn lower_than<K: Kernel, W: Watch>(
        &self,
        at: Ref,
        best: u32,
        kernel: K,
        point: &Point<'_>,
        watch: &mut W,
    ) -> u32 {
        kernel.tuned(Lower { tree: self, at, best, point, watch })
    }

    /// As [`Tree::lower_than`], where it is called.
    #[inline(always)]
    fn descend<K: Kernel, W: Watch>(
        &self,
        mut at: Ref,
        best: u32,
        kernel: K,
        point: &Point<'_>,
        watch: &mut W,
    ) -> u32 {
        loop {
            let node = match at.get() {
                Err(block) if W::ACTIVE => return self.scan_watched(block, best, point, watch),
                Err(block) => return self.scan(block, best, kernel, point, watch),
                Ok(node) => node,
            };
            watch.at_node();
            let next = match &self.nodes[node] {
                Node::Bits { words, shift, masks, first } => {
                    if W::ACTIVE {
                        self.watch_bits(*words, *masks, point, watch);
                    }
                    *first as usize + spelled(kernel, &point.words, *words, *shift, *masks)
                }
                Node::Cut { dim, bound, first } => {
                    let (whole, bound) = (dim.whole(), bound.get());
                    let rest = point.at(*dim) >= bound;
                    let to = match rest {
                        true => Interval { first: bound, last: whole.last },
                        false => Interval { first: whole.first, last: bound - 1 },
                    };
                    watch.narrowed(*dim, to);
                    *first as usize + usize::from(rest)
                }
                Node::Each { .. } | Node::BySet { .. } => {
                    return kernel.tuned(Several { tree: self, node, best, point, watch });
                }
            };
            let branch = self.branches[next];
            if branch.lowest >= best {
                return best;
            }
            at = branch.to;
        }
    }

    /// The lowest rank below a node of which several subtrees are visited.
    #[inline(always)]
    fn several<K: Kernel, W: Watch>(
        &self,
        node: usize,
        mut best: u32,
        kernel: K,
        point: &Point<'_>,
        watch: &mut W,
    ) -> u32 {
        match &self.nodes[node] {
            Node::Each { first, end } => {
                for branch in &self.branches[*first as usize..*end as usize] {
                    best = self.branch(*branch, best, kernel, point, watch);
                }
            }
            Node::BySet { space, first, end, rest, low, slots } => {
                best = self.branch(self.branches[*rest as usize], best, kernel, point, watch);
                let groups = &self.groups[*first as usize..*end as usize];
                let slots = &self.slots[slots.0 as usize..slots.1 as usize];
                let bound = best;
                for set in point.members(*space) {
                    if let Some(group) = group_of(groups, slots, *low, *set) {
                        best = self.branch(groups[group].branch, best, kernel, point, watch);
                    }
                }
                if W::ACTIVE {
                    for group in groups.iter().filter(|group| group.branch.lowest < bound) {
                        let wanted = point.is_in(*space, group.set);
                        watch.asked(Literal { space: *space, set: group.set, wanted });
                    }
                }
            }
            Node::Bits { .. } | Node::Cut { .. } => {}
        }
        best
    }

    /// The first rank of a leaf that matches and is lower than `best`, or else `best`.
    #[inline(always)]
    pub(super) fn scan<K: Kernel, W: Watch>(
        &self,
        block: usize,
        best: u32,
        kernel: K,
        point: &Point<'_>,
        watch: &W,
    ) -> u32 {
        match self.layout {
            Layout::V4 => self.scan_blocks(Layout::V4, block, best, kernel, point, watch),
            Layout::V6 => self.scan_blocks(Layout::V6, block, best, kernel, point, watch),
        }
    }

    #[inline(always)]
    fn scan_blocks<K: Kernel, W: Watch>(
        &self,
        layout: Layout,
        mut block: usize,
        best: u32,
        kernel: K,
        point: &Point<'_>,
        watch: &W,
    ) -> u32 {
        loop {
            let lanes = Block::at(&self.lines, layout, block);
            let mut hits = kernel.hits(layout, lanes.line, &point.words);
            while hits != 0 {
                let lane = hits.trailing_zeros();
                let rank = lanes.rank(lane);
                if rank >= best {
                    return best;
                }
                let matches = lanes.is_exact(lane) || self.matches(rank, point, &mut ());
                if matches && !watch.skips(rank) {
                    return rank;
                }
                hits &= hits - 1;
            }
            if !lanes.goes_on(best) {
                return best;
            }
            block += 1;
        }
    }

    /// As [`Tree::scan`], with every comparison told.
    fn scan_watched<W: Watch>(&self, mut block: usize, best: u32, point: &Point<'_>, watch: &mut W) -> u32 {
        loop {
            watch.at_block();
            let lanes = Block::at(&self.lines, self.layout, block);
            let used = (0..self.layout.lanes() as u32).take_while(|lane| lanes.is_used(*lane));
            for lane in used.filter_map(|lane| lanes.lane(lane)) {
                if lane.rank >= best {
                    return best;
                }
                let within =
                    Dim::ALL.into_iter().all(|dim| told(point, dim, &[lane.within[dim as usize]], watch));
                let matches = within && (lane.exact || self.matches(lane.rank, point, watch));
                if matches && !watch.skips(lane.rank) {
                    return lane.rank;
                }
            }
            if !lanes.more() {
                return best;
            }
            block += 1;
        }
    }

    /// One of the rule's entries matches the point.
    #[inline(never)]
    fn matches<W: Watch>(&self, rank: u32, point: &Point<'_>, watch: &mut W) -> bool {
        let first = self.asked[rank as usize];
        self.hard.of_rank_from(first, rank).any(|entry| self.entry_matches(entry, point, watch))
    }

    /// Every constraint of the entry holds at the point.
    fn entry_matches<W: Watch>(&self, entry: u32, point: &Point<'_>, watch: &mut W) -> bool {
        for (dim, intervals) in self.hard.fields(entry) {
            if !told(point, dim, intervals, watch) {
                return false;
            }
        }
        for literal in self.hard.literals(entry) {
            let is_in = point.is_in(literal.space, literal.set);
            watch.asked(Literal { wanted: is_in, ..*literal });
            if is_in != literal.wanted {
                return false;
            }
        }
        true
    }

    /// All that agree in the picked bits and those above them go the same way.
    fn watch_bits<W: Watch>(&self, words: [u8; 2], masks: [u64; 2], point: &Point<'_>, watch: &mut W) {
        for dim in Dim::ALL {
            let mut picked = 0u128;
            for place in self.layout.places(dim) {
                let ones = u64::MAX >> (64 - place.width);
                for (_, mask) in words.iter().zip(masks).filter(|(word, _)| usize::from(**word) == place.word)
                {
                    picked |= u128::from(mask >> place.shift & ones) << place.low;
                }
            }
            if picked != 0 {
                let below = (1u128 << picked.trailing_zeros()) - 1;
                let at = point.at(dim);
                let last = (at | below).min(dim.whole().last);
                watch.narrowed(dim, Interval { first: at & !below, last });
            }
        }
    }
}

/// [`Tree::lower_than`].
struct Lower<'a, 'b, W> {
    tree: &'a Tree,
    at: Ref,
    best: u32,
    point: &'a Point<'b>,
    watch: &'a mut W,
}

impl<W: Watch> Job for Lower<'_, '_, W> {
    type Out = u32;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> u32 {
        self.tree.descend(self.at, self.best, kernel, self.point, self.watch)
    }
}

/// Subtrees of one node, all of them to be visited: trees are as deep as they are, code is not.
struct Several<'a, 'b, W> {
    tree: &'a Tree,
    node: usize,
    best: u32,
    point: &'a Point<'b>,
    watch: &'a mut W,
}

impl<W: Watch> Job for Several<'_, '_, W> {
    type Out = u32;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> u32 {
        self.tree.several(self.node, self.best, kernel, self.point, self.watch)
    }
}

/// The number that the picked bits spell.
#[inline(always)]
pub(super) fn spelled<K: Kernel>(
    kernel: K,
    words: &Words,
    from: [u8; 2],
    shift: u8,
    masks: [u64; 2],
) -> usize {
    // The check has seen that they are of the point's words: all of them are within the line.
    let [low, high] = from.map(|word| words.0[usize::from(word % 8)]);
    (kernel.extract(low, masks[0]) | kernel.extract(high, masks[1]) << (shift % 64)) as usize
}

/// Which of `groups` is that of `set`.
#[inline(always)]
pub(super) fn group_of(groups: &[Group], slots: &[u32], low: SetId, set: SetId) -> Option<usize> {
    if slots.is_empty() {
        return groups.binary_search_by_key(&set, |group| group.set).ok();
    }
    let slot = set.0.wrapping_sub(low.0) as usize;
    slots.get(slot).map(|group| *group as usize).filter(|group| *group < groups.len())
}

/// Whether one of `intervals` holds the point's number; tells the interval or the gap it is in.
#[inline]
fn told<W: Watch>(point: &Point<'_>, dim: Dim, intervals: &[Interval], watch: &mut W) -> bool {
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
    inside
}
