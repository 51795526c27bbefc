//! Grows a tree over entries. Nothing here is trusted: the check proves what it made.
//!
//! Entries that want sets are parted by set. The rest are kept apart by what they say about addresses
//! (EffiCuts, Vamanan et al., SIGCOMM 2010); then each part is a node whose branch a few picked bits spell (see `bits.rs`), most often once more, and a
//! leaf. Where bits part nothing, a bound of one number may (HyperSplit, Qi et al., INFOCOM 2009): port
//! ranges. Copies are paid from a budget; a subtree that has used up its share ends in a larger leaf.

use super::bits::{Picked, pick};
use super::leaf::{self, Lane};
use super::lower::{Dim, Entries, Interval, Space};
use super::pieces::{MAX_PIECES, Piece, pieces};
use super::point::{Cube, Layout};
use super::tree::{Bound, Branch, Group, NONE_FOUND, Node, Ref, Tree};
use super::{IpVersion, SetId, part};
use std::collections::{BTreeMap, HashMap};

/// Pieces a leaf holds without need for a node above it: two blocks, for IPv4.
const LEAF: usize = 2 * leaf::LANES;
/// Lists that are tried as they are.
const SHORT: usize = 3 * LEAF;
/// Nodes on the way from the root to a leaf, at most.
pub(super) const MAX_DEPTH: u32 = 40;
/// Copies of pieces that may be made, for each piece, over the whole tree: lanes for IPv6 take twice the room.
const COPIES: [usize; 2] = [5, 3];
/// The same, of each piece of a small part, if that makes no more than one for each piece of all parts.
const COPIES_OF_FEW: usize = 32;
/// Lists that would be long leaves.
const LONG: usize = 16;
/// Copies made to part them where the budget is used up, for each piece: of one list, and over the whole tree.
const COPIES_IN_LONG: usize = 8;
const COPIES_OF_LONG: [usize; 2] = [4, 1];
/// Pieces that a cut looks at to find its bound.
const SAMPLE: usize = 2048;

/// How much room a tree may take: from the fastest to the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Pieces are copied where that spares nodes.
    Full,
    /// No piece is copied.
    Compact,
    /// One leaf of all entries, each a single box, tried one after the other.
    Linear,
}

/// What the check needs to follow a tree, and the walk does not.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) entries: Entries,
    pub(super) pieces: Vec<Piece>,
    pub(super) cubes: Vec<Cube>,
    /// Which branch of a [`Node::Each`] a piece was meant for, by piece.
    pub(super) parts: Vec<u8>,
    /// Which piece a lane of a leaf is, by lane.
    pub(super) lanes: Vec<u32>,
}

/// A tree in which every point finds the first of `entries` that matches it.
pub(super) fn grow(entries: Entries, version: IpVersion, form: Form) -> (Tree, Proof) {
    let asks = |dim| (0..entries.len() as u32).any(|entry| entries.intervals(entry, dim).is_some());
    let layout = match version {
        IpVersion::V6 if asks(Dim::Src) || asks(Dim::Dst) => Layout::V6,
        _ => Layout::V4,
    };
    let pieces = pieces(&entries, if form == Form::Linear { 1 } else { MAX_PIECES });
    let cubes = pieces.iter().map(|piece| piece.cube(&entries, layout)).collect();
    let tree = Tree {
        layout,
        root: Branch::EMPTY,
        nodes: vec![],
        branches: vec![],
        groups: vec![],
        slots: vec![],
        lines: vec![],
        pieces: pieces.len() as u32,
        asked: vec![],
        hard: Entries::default(),
    };
    let parts = vec![0; pieces.len()];
    let proof = Proof { entries, pieces, cubes, parts, lanes: vec![] };
    // Fixed seeds: a tree must not depend on chance.
    let leaves = HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
    let mut grower = Grower { tree, proof, spare: 0, lanes: vec![], leaves };
    let all: Vec<u32> = (0..grower.proof.pieces.len() as u32).collect();
    if form == Form::Full {
        grower.spare = COPIES_OF_LONG[layout as usize] * all.len();
    }
    let budget = if form == Form::Full { COPIES[layout as usize] * all.len() } else { 0 };
    grower.tree.root = match form {
        Form::Linear => grower.leaf(&all, &Vec::new()),
        Form::Full | Form::Compact => grower.top(&all, &mut Vec::new(), budget, 0),
    };
    let tree = &mut grower.tree;
    tree.nodes.shrink_to_fit();
    tree.branches.shrink_to_fit();
    tree.groups.shrink_to_fit();
    tree.slots.shrink_to_fit();
    tree.lines.shrink_to_fit();
    tree.asked.shrink_to_fit();
    tree.hard.shrink_to_fit();
    (grower.tree, grower.proof)
}

struct Grower {
    tree: Tree,
    proof: Proof,
    /// Copies that may yet be made to part lists that would be long leaves.
    spare: usize,
    /// Of the leaf being made.
    lanes: Vec<Lane>,
    /// Leaves by what they hold, of those made with the same sets known.
    leaves: HashMap<Box<[u32]>, u32, ahash::RandomState>,
}

/// Sets known to hold the point.
type Known = Vec<(Space, SetId)>;

impl Grower {
    /// Grows what comes before any choice by numbers: parts by set and by kind of address.
    fn top(&mut self, list: &[u32], known: &mut Known, budget: usize, depth: u32) -> Branch {
        if list.len() <= SHORT || depth + 4 > MAX_DEPTH {
            return self.node(list, known, budget, depth);
        }
        if let Some(space) = self.best_space(list, known) {
            return self.by_set(list, space, known, budget, depth);
        }
        let parts = part::parts(&self.proof.cubes, self.tree.layout, list);
        if parts.len() < 2 {
            return self.node(list, known, budget, depth);
        }
        let node = self.reserve();
        let mut branches = Vec::new();
        for (number, part) in (0u8..).zip(&parts) {
            part.iter().for_each(|piece| self.proof.parts[*piece as usize] = number);
            let extra = if budget > 0 { (COPIES_OF_FEW * part.len()).min(list.len()) } else { 0 };
            let share = (budget * part.len() / list.len()).max(extra);
            branches.push(self.node(part, known, share, depth + 1));
        }
        let tree = &mut self.tree;
        let (first, end) = extend(&mut tree.branches, &branches);
        tree.nodes[node as usize] = Node::Each { first, end };
        Branch { lowest: self.rank(list[0]), to: Ref::node(node) }
    }

    fn by_set(&mut self, list: &[u32], space: Space, known: &mut Known, budget: usize, depth: u32) -> Branch {
        let mut by_set: BTreeMap<SetId, Vec<u32>> = BTreeMap::new();
        let mut others = Vec::new();
        for piece in list {
            match self.wanted_set(*piece, space, known) {
                Some(set) => by_set.entry(set).or_default().push(*piece),
                None => others.push(*piece),
            }
        }
        let node = self.reserve();
        let share = |part: usize| budget * part / list.len();
        let rest = self.top(&others, known, share(others.len()), depth + 1);
        let mut groups: Vec<Group> = Vec::with_capacity(by_set.len());
        for (set, part) in by_set {
            known.push((space, set));
            self.leaves.clear();
            let branch = self.top(&part, known, share(part.len()), depth + 1);
            self.leaves.clear();
            known.pop();
            groups.push(Group { set, branch });
        }
        let low = groups.first().map_or(SetId(0), |group| group.set);
        let span = groups.last().map_or(0, |group| (group.set.0 - low.0) as usize + 1);
        let tree = &mut self.tree;
        let slots = match span <= 16 * groups.len() {
            true => {
                let mut slots = vec![NONE_FOUND; span];
                (0u32..).zip(&groups).for_each(|(at, group)| slots[(group.set.0 - low.0) as usize] = at);
                extend(&mut tree.slots, &slots)
            }
            false => (0, 0),
        };
        let (first, end) = extend(&mut tree.groups, &groups);
        let (rest, _) = extend(&mut tree.branches, &[rest]);
        tree.nodes[node as usize] = Node::BySet { space, first, end, rest, low, slots };
        Branch { lowest: self.rank(list[0]), to: Ref::node(node) }
    }

    /// Grows the subtree for `list`.
    fn node(&mut self, list: &[u32], known: &Known, budget: usize, depth: u32) -> Branch {
        if list.len() <= LEAF || depth + 1 >= MAX_DEPTH {
            return self.leaf(list, known);
        }
        // What an adversary would look for, its share used up.
        let help = match list.len() {
            len if len > LONG => (COPIES_IN_LONG * len).saturating_sub(budget).min(self.spare),
            _ => 0,
        };
        if let Some(picked) = pick(&self.proof.cubes, self.tree.layout, list, budget + help) {
            return self.by_bits(list, &picked, known, budget, depth);
        }
        if list.len() > SHORT
            && let Some((dim, bound)) = self.best_cut(list, budget)
        {
            return self.by_cut(list, dim, bound, known, budget, depth);
        }
        self.leaf(list, known)
    }

    fn by_bits(&mut self, list: &[u32], picked: &Picked, known: &Known, budget: usize, depth: u32) -> Branch {
        let (starts, copies) = picked.deal(&self.proof.cubes, list);
        let made = copies.len() - list.len();
        self.spare -= made.saturating_sub(budget).min(self.spare);
        let left = budget.saturating_sub(made);
        let node = self.reserve();
        let first = self.tree.branches.len();
        self.tree.branches.resize(first + starts.len() - 1, Branch::EMPTY);
        for (at, two) in starts.windows(2).enumerate() {
            let part = &copies[two[0] as usize..two[1] as usize];
            let share = left * part.len() / copies.len();
            // Bits that part nothing further must not be picked for ever.
            let branch = match part.len() < list.len() {
                true => self.node(part, known, share, depth + 1),
                false => self.leaf(part, known),
            };
            self.tree.branches[first + at] = branch;
        }
        let Picked { words, masks } = *picked;
        let shift = masks[0].count_ones() as u8;
        self.tree.nodes[node as usize] = Node::Bits { words, shift, masks, first: first as u32 };
        Branch { lowest: self.rank(list[0]), to: Ref::node(node) }
    }

    fn by_cut(
        &mut self,
        list: &[u32],
        dim: Dim,
        bound: u128,
        known: &Known,
        budget: usize,
        depth: u32,
    ) -> Branch {
        let interval = |piece: u32| self.interval(piece, dim);
        let low: Vec<u32> = list.iter().copied().filter(|piece| interval(*piece).first < bound).collect();
        let high: Vec<u32> = list.iter().copied().filter(|piece| interval(*piece).last >= bound).collect();
        let total = low.len() + high.len();
        let left = budget.saturating_sub(total - list.len());
        let share = left * low.len() / total.max(1);
        let node = self.reserve();
        let below = self.node(&low, known, share, depth + 1);
        let rest = self.node(&high, known, left - share, depth + 1);
        let tree = &mut self.tree;
        let (first, _) = extend(&mut tree.branches, &[below, rest]);
        tree.nodes[node as usize] = Node::Cut { dim, bound: Bound::new(bound), first };
        Branch { lowest: self.rank(list[0]), to: Ref::node(node) }
    }

    fn leaf(&mut self, list: &[u32], known: &Known) -> Branch {
        let Some(lowest) = list.first().map(|piece| self.rank(*piece)) else { return Branch::EMPTY };
        if let Some(block) = self.leaves.get(list) {
            return Branch { lowest, to: Ref::leaf(*block) };
        }
        let mut lanes = std::mem::take(&mut self.lanes);
        lanes.clear();
        for piece in list {
            let exact = self.is_exact(*piece, known);
            if !exact {
                self.harden(*piece);
            }
            let within = Dim::ALL.map(|dim| self.interval(*piece, dim));
            lanes.push(Lane { within, rank: self.rank(*piece), exact });
        }
        let tree = &mut self.tree;
        let block = leaf::append(&mut tree.lines, tree.layout, &lanes);
        self.lanes = lanes;
        self.proof.lanes.extend(list);
        self.proof.lanes.resize(tree.lines.len() * tree.layout.lanes(), NONE_FOUND);
        self.leaves.insert(list.into(), block);
        Branch { lowest, to: Ref::leaf(block) }
    }

    /// Keeps the entries of the piece's rule for the walk.
    fn harden(&mut self, piece: u32) {
        let rank = self.rank(piece);
        let (tree, Proof { entries, .. }) = (&mut self.tree, &self.proof);
        if tree.asked.is_empty() {
            let ranks = entries.rank(entries.len() as u32 - 1) + 1;
            tree.asked = vec![NONE_FOUND; ranks as usize];
        }
        if tree.asked[rank as usize] == NONE_FOUND {
            let mut copies = entries.of_rank(rank).map(|entry| tree.hard.copy(entries, entry));
            tree.asked[rank as usize] = copies.next().unwrap_or(NONE_FOUND);
            copies.for_each(drop);
        }
    }

    /// A node whose content follows once its children are known.
    fn reserve(&mut self) -> u32 {
        self.tree.nodes.push(Node::Each { first: 0, end: 0 });
        self.tree.nodes.len() as u32 - 1
    }

    fn rank(&self, piece: u32) -> u32 {
        self.proof.entries.rank(self.proof.pieces[piece as usize].entry)
    }

    fn interval(&self, piece: u32, dim: Dim) -> Interval {
        self.proof.pieces[piece as usize].interval(&self.proof.entries, dim)
    }

    /// A lane can say all the piece says.
    fn is_exact(&self, piece: u32, known: &Known) -> bool {
        let (tree, Proof { entries, pieces, .. }) = (&self.tree, &self.proof);
        let piece = &pieces[piece as usize];
        let promised =
            entries.literals(piece.entry).iter().all(|l| l.wanted && known.contains(&(l.space, l.set)));
        promised
            && entries.fields(piece.entry).all(|(dim, intervals)| {
                let Interval { first, last } = piece.interval(entries, dim);
                let host = first ^ last;
                let says = match dim {
                    Dim::Src | Dim::Dst => {
                        let prefix = first & host == 0 && host & host.wrapping_add(1) == 0;
                        prefix || tree.layout == Layout::V4
                    }
                    Dim::Proto => first == last,
                    Dim::Sport | Dim::Dport => last < super::lower::NONE,
                    Dim::Icmp => false,
                };
                says && (intervals.len() == 1 || piece.pick[dim as usize] != Piece::SPAN)
            })
    }

    /// The first set of `space` the piece wants and is not known to be in.
    fn wanted_set(&self, piece: u32, space: Space, known: &Known) -> Option<SetId> {
        let entry = self.proof.pieces[piece as usize].entry;
        let mut literals = self.proof.entries.literals(entry).iter();
        let open = literals.find(|l| l.space == space && l.wanted && !known.contains(&(space, l.set)))?;
        Some(open.set)
    }

    /// The space whose sets part the pieces best, if they part them well. A packet is taken to be
    /// in two of the sets.
    fn best_space(&self, list: &[u32], known: &Known) -> Option<Space> {
        let cost = |space| {
            let mut sizes: BTreeMap<Option<SetId>, usize> = BTreeMap::new();
            for piece in list {
                *sizes.entry(self.wanted_set(*piece, space, known)).or_default() += 1;
            }
            let others = sizes.remove(&None).unwrap_or(0);
            let largest = sizes.values().copied().max()?;
            let visited = others + 2 * largest;
            (visited < list.len()).then_some((visited, space))
        };
        Space::ALL.into_iter().filter_map(cost).min().map(|(_, space)| space)
    }

    /// The bound that minimises the sum of the squares of the two sides.
    fn best_cut(&self, list: &[u32], budget: usize) -> Option<(Dim, u128)> {
        let step = list.len().div_ceil(SAMPLE);
        let sample: Vec<u32> = list.iter().copied().step_by(step).collect();
        let n = sample.len();
        let mut best: Option<(usize, Dim, u128)> = None;
        for dim in Dim::ALL {
            let mut firsts: Vec<u128> = Vec::with_capacity(n);
            let mut lasts: Vec<u128> = Vec::with_capacity(n);
            for piece in &sample {
                let interval = self.interval(*piece, dim);
                firsts.push(interval.first);
                lasts.push(interval.last);
            }
            let mut bounds: Vec<u128> =
                firsts.iter().copied().chain(lasts.iter().filter_map(|last| last.checked_add(1))).collect();
            firsts.sort_unstable();
            lasts.sort_unstable();
            bounds.sort_unstable();
            bounds.dedup();
            for bound in bounds {
                let below = firsts.partition_point(|first| *first < bound);
                let rest = n - lasts.partition_point(|last| *last < bound);
                let cost = below * below + rest * rest;
                let within = bound > 0 && bound <= dim.whole().last;
                // A cut that copies most of the list costs more than the blocks it saves.
                let helps = cost * 8 <= n * n * 7 && (below + rest - n) * step <= budget;
                if within && helps && best.is_none_or(|(least, ..)| cost < least) {
                    best = Some((cost, dim, bound));
                }
            }
        }
        let (_, dim, bound) = best?;
        // What holds of a sample may not hold of all.
        let below = list.iter().filter(|piece| self.interval(**piece, dim).first < bound).count();
        let rest = list.iter().filter(|piece| self.interval(**piece, dim).last >= bound).count();
        (below.max(rest) < list.len() && below + rest - list.len() <= budget).then_some((dim, bound))
    }
}

/// Appends and says where.
fn extend<T: Clone>(array: &mut Vec<T>, items: &[T]) -> (u32, u32) {
    let first = array.len() as u32;
    array.extend_from_slice(items);
    (first, array.len() as u32)
}
