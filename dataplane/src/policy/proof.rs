//! Part 3 of the check: the tree, against the entries its rules became.
//!
//! Bottom up in what is believed, each step by the one before: the *pieces* of an entry are all its boxes; a
//! piece's *cube* holds its box; a *lane* is decoded from the bits that decide, and must be the piece's box
//! exactly, or hold it and refer to true copies of its rule's entries. Then the tree is gone down once with the
//! pieces that must be found: a node hands each to every branch that a point of its cube can take.
//! What reaches a leaf must stand in it, in order.

use super::check::CheckError;
use super::grow::{MAX_DEPTH, Proof};
use super::leaf::{Block, Lane, normal};
use super::lower::{Dim, Entries, Interval, Space};
use super::pieces::Piece;
use super::point::{Cube, Layout, WORDS};
use super::tree::{Branch, NONE_FOUND, Node, Tree};
use super::{IpVersion, SetId};

/// Bits a node may spell its branches with.
const MAX_BITS: u32 = 20;
/// Obligations of one node, for each piece of the tree: far above what the grower makes.
const MAX_COPIES: usize = 64;

/// Everything below `tree.root` is sound, and nothing of `proof.entries` is missing, for packets of `version`.
pub(super) fn check(tree: &Tree, proof: &Proof, version: IpVersion) -> Result<(), CheckError> {
    let Proof { entries, pieces, cubes, .. } = proof;
    boxes(entries, pieces)?;
    let shape = |what| CheckError::Shape { node: 0, what };
    if cubes.len() != pieces.len() {
        return Err(shape("not as many cubes as pieces"));
    }
    let asks = |entry| entries.fields(entry).any(|(dim, _)| matches!(dim, Dim::Src | Dim::Dst));
    if tree.layout == Layout::V4 && version == IpVersion::V6 && (0..entries.len() as u32).any(asks) {
        return Err(shape("addresses that do not fit"));
    }
    for (rank, first) in (0u32..).zip(&tree.asked) {
        if *first != NONE_FOUND && !copied(&tree.hard, *first, entries, rank) {
            return Err(CheckError::Entry { rank, field: "its copy" });
        }
    }
    for (piece, cube) in pieces.iter().zip(cubes) {
        let rank = entries.rank(piece.entry);
        let differs = |field| CheckError::Entry { rank, field };
        if !Dim::ALL.iter().all(|dim| cube_holds(cube, tree.layout, *dim, piece.interval(entries, *dim))) {
            return Err(differs("its cube"));
        }
    }
    let all: Vec<u32> = (0..pieces.len() as u32).collect();
    let seen = vec![false; tree.nodes.len()];
    let mut descent = Descent { tree, proof, seen, known: Vec::new() };
    descent.branch(tree.root, &all, None, 0)
}

/// The pieces of each entry are all its boxes, each once.
fn boxes(entries: &Entries, pieces: &[Piece]) -> Result<(), CheckError> {
    let mut left = pieces;
    for entry in 0..entries.len() as u32 {
        let end = left.iter().position(|piece| piece.entry != entry).unwrap_or(left.len());
        let (own, behind) = left.split_at(end);
        left = behind;
        let wrong = CheckError::Entry { rank: entries.rank(entry), field: "its pieces" };
        let Some(pick) = own.first().map(|piece| piece.pick) else { return Err(wrong) };
        let counts = Dim::ALL.map(|dim| match entries.intervals(entry, dim) {
            Some(intervals) if pick[dim as usize] != Piece::SPAN => intervals.len(),
            _ => 1,
        });
        // As many as there are boxes, all different, none beyond.
        let within = |piece: &Piece| {
            (0..6).all(|dim| match pick[dim] {
                Piece::SPAN => piece.pick[dim] == Piece::SPAN,
                _ => usize::from(piece.pick[dim]) < counts[dim],
            })
        };
        let ascending = own.windows(2).all(|two| two[0].pick < two[1].pick);
        let product = counts.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if product != Some(own.len()) || !ascending || !own.iter().all(within) {
            return Err(wrong);
        }
    }
    if left.is_empty() { Ok(()) } else { Err(CheckError::Shape { node: 0, what: "pieces of no entry" }) }
}

/// The copies from `first` on that have the rank ask what the rule's entries ask.
fn copied(copies: &Entries, first: u32, entries: &Entries, rank: u32) -> bool {
    let own = entries.of_rank(rank);
    let copies_of = copies.of_rank_from(first, rank);
    copies_of.len() == own.len()
        && copies_of.zip(own).all(|(copy, entry)| {
            copies.literals(copy) == entries.literals(entry) && copies.fields(copy).eq(entries.fields(entry))
        })
}

/// Every value of `interval` has the bits that `cube` demands of `dim`.
fn cube_holds(cube: &Cube, layout: Layout, dim: Dim, interval: Interval) -> bool {
    let (mut value, mut mask, mut all) = (0u128, 0u128, 0u128);
    for place in layout.places(dim) {
        let ones = u64::MAX >> (64 - place.width);
        value |= u128::from(cube.value[place.word] >> place.shift & ones) << place.low;
        mask |= u128::from(cube.mask[place.word] >> place.shift & ones) << place.low;
        all |= u128::from(ones) << place.low;
    }
    if mask == 0 {
        return value == 0;
    }
    // Leading bits that the first and the last value share are shared by all between.
    let host = !mask & all;
    let leading = host & host.wrapping_add(1) == 0;
    let above = interval.first & !all == interval.last & !all;
    leading && above && interval.first & mask == value && interval.last & mask == value
}

struct Descent<'a> {
    tree: &'a Tree,
    proof: &'a Proof,
    /// Nodes gone through.
    seen: Vec<bool>,
    /// Sets that hold every point considered.
    known: Vec<(Space, SetId)>,
}

impl Descent<'_> {
    fn rank(&self, piece: u32) -> u32 {
        self.proof.entries.rank(self.proof.pieces[piece as usize].entry)
    }

    /// Every point that one of `owed` matches first is led to it below `branch` of node `from`.
    fn branch(
        &mut self,
        branch: Branch,
        owed: &[u32],
        from: Option<u32>,
        depth: u32,
    ) -> Result<(), CheckError> {
        // A branch is not entered for what is not below its `lowest`.
        if let Some(piece) = owed.first().filter(|piece| self.rank(**piece) < branch.lowest) {
            return Err(self.lost(*piece, from));
        }
        if branch.lowest == NONE_FOUND {
            return Ok(());
        }
        let shape = |what| CheckError::Shape { node: from.unwrap_or(0), what };
        if depth > MAX_DEPTH {
            return Err(shape("too deep"));
        }
        match branch.to.get() {
            Err(block) => self.leaf(block, owed, from),
            Ok(node) => {
                // Children come after their parents and have one.
                let again = self.seen.get_mut(node).map(|seen| std::mem::replace(seen, true));
                if again != Some(false) || from.is_some_and(|from| node <= from as usize) {
                    return Err(shape("a child out of place"));
                }
                self.node(node as u32, owed, depth)
            }
        }
    }

    fn node(&mut self, node: u32, owed: &[u32], depth: u32) -> Result<(), CheckError> {
        let shape = |what| CheckError::Shape { node, what };
        let tree = self.tree;
        let branches = |first: u32, count: usize| {
            let first = first as usize;
            tree.branches.get(first..first.saturating_add(count)).ok_or(shape("branches out of range"))
        };
        let from = Some(node);
        match tree.nodes[node as usize] {
            Node::Bits { words, shift, masks, first } => {
                let bits = masks[0].count_ones() + masks[1].count_ones();
                if bits > MAX_BITS
                    || u32::from(shift) != masks[0].count_ones()
                    || words.iter().any(|word| usize::from(*word) >= WORDS)
                {
                    return Err(shape("bits out of range"));
                }
                let branches = branches(first, 1 << bits)?;
                let (starts, copies) = self.deal(node, words, masks, owed)?;
                for (branch, two) in branches.iter().zip(starts.windows(2)) {
                    self.branch(*branch, &copies[two[0]..two[1]], from, depth + 1)?;
                }
                Ok(())
            }
            Node::Cut { dim, bound, first } => {
                let (branches, bound) = (branches(first, 2)?, bound.get());
                if bound == 0 || bound > dim.whole().last {
                    return Err(shape("a bound out of range"));
                }
                let Proof { entries, pieces, .. } = self.proof;
                let interval = |piece: &&u32| pieces[**piece as usize].interval(entries, dim);
                let low: Vec<u32> =
                    owed.iter().filter(|piece| interval(piece).first < bound).copied().collect();
                let high: Vec<u32> =
                    owed.iter().filter(|piece| interval(piece).last >= bound).copied().collect();
                self.branch(branches[0], &low, from, depth + 1)?;
                self.branch(branches[1], &high, from, depth + 1)
            }
            Node::Each { first, end } => {
                // Any branch would do: all are asked. The grower says which one was meant.
                let branches = branches(first, (end as usize).saturating_sub(first as usize))?;
                // A packet that is done with one is done with those behind it.
                if !branches.windows(2).all(|two| two[0].lowest <= two[1].lowest) {
                    return Err(shape("parts out of order"));
                }
                let mut inside: Vec<Vec<u32>> = vec![Vec::new(); branches.len()];
                for piece in owed {
                    let part =
                        self.proof.parts.get(*piece as usize).map_or(usize::MAX, |part| (*part).into());
                    inside.get_mut(part).ok_or(self.lost(*piece, from))?.push(*piece);
                }
                let mut both = branches.iter().zip(inside);
                both.try_for_each(|(branch, owed)| self.branch(*branch, &owed, from, depth + 1))
            }
            Node::BySet { space, first, end, rest, low, slots } => {
                let groups =
                    tree.groups.get(first as usize..end as usize).ok_or(shape("groups out of range"))?;
                let slots =
                    tree.slots.get(slots.0 as usize..slots.1 as usize).ok_or(shape("slots out of range"))?;
                let [rest] = branches(rest, 1)? else { return Err(shape("branches out of range")) };
                if !groups.windows(2).all(|two| two[0].set < two[1].set) {
                    return Err(shape("groups out of order"));
                }
                // Each group is at the slot of its set, and at no other.
                let at = |group: usize| groups[group].set.0.wrapping_sub(low.0) as usize;
                let right = |(slot, group): (usize, &u32)| {
                    *group == NONE_FOUND || (*group as usize) < groups.len() && at(*group as usize) == slot
                };
                let reached = |group: usize| slots.get(at(group)) == Some(&(group as u32));
                let indexed = slots.iter().enumerate().all(right) && (0..groups.len()).all(reached);
                if !slots.is_empty() && !indexed {
                    return Err(shape("slots of other sets"));
                }
                let mut inside: Vec<Vec<u32>> = vec![Vec::new(); groups.len()];
                let mut others = Vec::new();
                for piece in owed {
                    // A point that matches an entry is in every set the entry wants: one of their
                    // groups will do, and it is the first.
                    let literals = self.proof.entries.literals(self.proof.pieces[*piece as usize].entry);
                    let mut wanted = literals
                        .iter()
                        .filter(|l| l.space == space && l.wanted && !self.known.contains(&(space, l.set)));
                    let group =
                        wanted.next().and_then(|l| groups.binary_search_by_key(&l.set, |g| g.set).ok());
                    group.map_or(&mut others, |group| &mut inside[group]).push(*piece);
                }
                self.branch(*rest, &others, from, depth + 1)?;
                for (group, owed) in groups.iter().zip(inside) {
                    self.known.push((space, group.set));
                    self.branch(group.branch, &owed, from, depth + 1)?;
                    self.known.pop();
                }
                Ok(())
            }
        }
    }

    /// `owed`, to every branch that a point of its cube can take: where each branch's begin, and the pieces.
    fn deal(
        &self,
        node: u32,
        words: [u8; 2],
        masks: [u64; 2],
        owed: &[u32],
    ) -> Result<(Vec<usize>, Vec<u32>), CheckError> {
        // The picked bits in the order in which they spell a branch.
        let mut picked = Vec::new();
        for (word, mask) in words.into_iter().zip(masks) {
            picked.extend((0..64).filter(|bit| mask >> bit & 1 != 0).map(|bit| (usize::from(word), bit)));
        }
        let mut to: Vec<(usize, usize)> = Vec::with_capacity(owed.len());
        let mut total = 0usize;
        for piece in owed {
            let cube = &self.proof.cubes[*piece as usize];
            let (mut base, mut free) = (0, 0);
            for (at, (word, bit)) in picked.iter().enumerate() {
                base |= ((cube.value[*word] >> bit & 1) as usize) << at;
                free |= ((!cube.mask[*word] >> bit & 1) as usize) << at;
            }
            total += 1 << free.count_ones();
            to.push((base & !free, free));
        }
        if total > MAX_COPIES * (owed.len() + 64) {
            return Err(CheckError::Shape { node, what: "too many copies" });
        }
        let mut starts = vec![0; (1 << picked.len()) + 2];
        let each = |free: usize, put: &mut dyn FnMut(usize)| {
            // Counts through the subsets of the free bits.
            let mut more = 0usize;
            loop {
                put(more);
                more = more.wrapping_sub(free) & free;
                if more == 0 {
                    break;
                }
            }
        };
        for (base, free) in &to {
            each(*free, &mut |more| starts[(base | more) + 2] += 1);
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut copies = vec![0; total];
        for (piece, (base, free)) in owed.iter().zip(&to) {
            each(*free, &mut |more| {
                let next = &mut starts[(base | more) + 1];
                copies[*next] = *piece;
                *next += 1;
            });
        }
        starts.pop();
        Ok((starts, copies))
    }

    /// The leaf's lanes are sound and in order, and all of `owed` are among them.
    fn leaf(&self, mut block: usize, owed: &[u32], from: Option<u32>) -> Result<(), CheckError> {
        let shape = |what| CheckError::Shape { node: from.unwrap_or(0), what };
        let tree = self.tree;
        let lanes = tree.layout.lanes() as u32;
        let mut left = owed.iter().peekable();
        let mut before: Option<u32> = None;
        loop {
            if block >= tree.lines.len() {
                return Err(shape("a leaf out of range"));
            }
            let own = Block::at(&tree.lines, tree.layout, block);
            let used = (0..lanes).take_while(|lane| own.is_used(*lane)).count() as u32;
            for number in 0..used {
                let lane = own.lane(number).ok_or(shape("a lane that is no box"))?;
                // The grower says which piece it was meant to be.
                let meant = self.proof.lanes.get(block * lanes as usize + number as usize);
                let piece = *meant.ok_or(shape("a lane of no piece"))?;
                if before.is_some_and(|before| before >= piece) {
                    return Err(shape("lanes out of order"));
                }
                before = Some(piece);
                if !self.lane_is_sound(&lane, piece) {
                    return Err(shape("a lane that is not its rule"));
                }
                left.next_if(|owed| **owed == piece);
            }
            // Lanes not in use hold nothing, here and in what follows.
            let unused = (used..lanes).all(|lane| !own.is_used(lane) && own.is_closed(lane));
            if used == 0 || !unused || used < lanes && own.more() {
                return Err(shape("a leaf with a gap"));
            }
            if !own.more() {
                break;
            }
            block += 1;
        }
        left.next().map_or(Ok(()), |piece| Err(self.lost(*piece, from)))
    }

    /// Whatever the lane says yes to is matched by its rule, and it holds all the piece holds.
    fn lane_is_sound(&self, lane: &Lane, piece: u32) -> bool {
        let Proof { entries, pieces, .. } = self.proof;
        let Some(piece) = pieces.get(piece as usize) else { return false };
        if lane.rank != entries.rank(piece.entry) {
            return false;
        }
        let mut within = Dim::ALL.map(|dim| piece.interval(entries, dim));
        normal(&mut within, self.tree.layout);
        if !lane.exact {
            let holds =
                |(lane, own): (&Interval, &Interval)| lane.first <= own.first && own.last <= lane.last;
            let asked = self.tree.asked.get(lane.rank as usize).is_some_and(|first| *first != NONE_FOUND);
            return asked && lane.within.iter().zip(&within).all(holds);
        }
        let whole = |dim: Dim| {
            piece.pick[dim as usize] != Piece::SPAN
                || entries.intervals(piece.entry, dim).is_none_or(|i| i.len() == 1)
        };
        lane.within == within
            && Dim::ALL.into_iter().all(whole)
            && entries
                .literals(piece.entry)
                .iter()
                .all(|l| l.wanted && self.known.contains(&(l.space, l.set)))
    }

    fn lost(&self, piece: u32, from: Option<u32>) -> CheckError {
        CheckError::Lost { rank: self.rank(piece), node: from.unwrap_or(0) }
    }
}
