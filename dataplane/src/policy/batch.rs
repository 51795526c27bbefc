//! Many packets at once: the walks take turns, so that a line one of them needs is fetched while
//! the others go on.
//!
//! All packets take a step, then all the next, and what is fetched for one arrives while the others
//! are served. Which step a packet takes next is computed, not branched on, wherever
//! that is guesswork for the processor: a step is written behind those that wait, and counted if it is wanted
//! (Ross, "Conjunctive selection conditions in main memory", PODS 2002). The order in which a packet's subtrees
//! are visited does not matter to the result, only to how much can be skipped. Where the room for steps
//! is used up a packet walks alone.

use super::compiled::{CompiledPolicy, Outcome};
use super::leaf::{Block, LANES};
use super::lower::Space;
use super::point::{Layout, Point, class, prefetch_class};
use super::prefetch::{prefetch, prefetch_either};
use super::simd::{Job, Kernel};
use super::tree::{Branch, NONE_FOUND, Node, Ref, Tree, group_of, spelled};
use super::{Class, IpVersion, Query, SetId, SetTable, Verdict};
use arrayvec::ArrayVec;

/// Packets whose walks take turns.
const BATCH: usize = 64;
/// Steps that wait, a power of two.
const STEPS: usize = 4 * BATCH;

/// Judges `queries` in the order given; `verdicts` is as long.
pub(super) fn judge(policy: &CompiledPolicy, sets: &SetTable, queries: &[Query], verdicts: &mut [Verdict]) {
    assert_eq!(queries.len(), verdicts.len(), "a verdict for each query");
    policy.cpu.tuned(Judge { policy, sets, queries, verdicts });
}

struct Judge<'a> {
    policy: &'a CompiledPolicy,
    sets: &'a SetTable,
    queries: &'a [Query],
    verdicts: &'a mut [Verdict],
}

impl Job for Judge<'_> {
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) {
        let Self { policy, sets, queries, verdicts } = self;
        let mut room = Room::default();
        for (queries, verdicts) in queries.chunks(BATCH).zip(verdicts.chunks_mut(BATCH)) {
            chunk(kernel, policy, sets, queries, verdicts, &mut room);
        }
    }
}

#[inline(always)]
fn chunk<K: Kernel>(
    kernel: K,
    policy: &CompiledPolicy,
    sets: &SetTable,
    queries: &[Query],
    verdicts: &mut [Verdict],
    room: &mut Room,
) {
    let mut points: ArrayVec<Point<'_>, BATCH> = ArrayVec::new();
    match policy.used.contains(&true) {
        true => members(queries, sets, policy.used, |q, members| points.push(Point::with(q, members))),
        false => queries.iter().for_each(|q| points.push(Point::with(q, [&[]; 4]))),
    }
    // Those no stage has decided yet, by IP version; and those that are of two.
    let mut open = [Packets::default(), Packets::default()];
    let mut mixed = Packets::default();
    for (at, q) in (0u8..).zip(queries) {
        let (src, dst) = (q.key.src.is_v4(), q.key.dst.is_v4());
        open[0].push(at, src & dst);
        open[1].push(at, !(src | dst));
        mixed.push(at, src != dst);
    }
    let mut best = [NONE_FOUND; BATCH];
    for stage in &policy.stages {
        let mut decide = |at: u8, slot: u32| {
            let outcome = policy.outcomes[slot as usize];
            verdicts[usize::from(at)] = Verdict { allow: outcome == Outcome::Allow, slot };
            outcome == Outcome::Next
        };
        let mut left = 0;
        let versions = [IpVersion::V4, IpVersion::V6];
        for ((tree, version), open) in stage.trees.iter().zip(versions).zip(&mut open) {
            open.get().iter().for_each(|at| best[usize::from(*at) % BATCH] = NONE_FOUND);
            let walks = Walks { kernel, tree, points: &points, best: &mut best, room };
            match tree.layout {
                Layout::V4 => walks.all::<1>(open.get()),
                Layout::V6 => walks.all::<4>(open.get()),
            }
            open.retain(|at| {
                // As in `block`: no branch on whether something was found.
                let piece = best[usize::from(at) % BATCH];
                let none = u32::from(piece == NONE_FOUND).wrapping_neg();
                let rank = tree.about.get((piece & !none) as usize).map_or(0, |about| about.rank) | none;
                let slot = match &stage.patch {
                    None => stage.default & none | stage.base.wrapping_add(rank) & !none,
                    Some(patch) => patch.settle(stage, rank, version, policy.cpu, &points[usize::from(at)]),
                };
                decide(at, slot)
            });
            left += open.len;
        }
        // No rule exists for a packet of two versions.
        mixed.retain(|at| decide(at, stage.default));
        if left + mixed.len == 0 {
            break;
        }
    }
}

/// Tells `each` query the sets it is in, space by space; what is read for one arrives while
/// the others are served.
#[inline(always)]
fn members<'a>(
    queries: &'a [Query],
    sets: &'a SetTable,
    used: [bool; 4],
    mut each: impl FnMut(&'a Query, [&'a [SetId]; 4]),
) {
    let mut classes: ArrayVec<[Class; 4], BATCH> = ArrayVec::new();
    for q in queries {
        Space::ALL.into_iter().for_each(|space| prefetch_class(&q.key, sets, used, space));
    }
    for q in queries {
        classes.push(Space::ALL.map(|space| {
            let class = class(&q.key, sets, used, space);
            if used[space as usize] {
                sets.prefetch_ids(class);
            }
            class
        }));
    }
    for (q, classes) in queries.iter().zip(&classes) {
        each(q, Space::ALL.map(|s| if used[s as usize] { sets.ids(classes[s as usize]) } else { &[] }));
    }
}

/// Some of a batch's packets.
struct Packets {
    list: [u8; BATCH],
    len: usize,
}

impl Default for Packets {
    fn default() -> Self {
        Self { list: [0; BATCH], len: 0 }
    }
}

impl Packets {
    #[inline(always)]
    fn get(&self) -> &[u8] {
        &self.list[..self.len]
    }

    /// Adds a packet if it is `wanted`.
    #[inline(always)]
    fn push(&mut self, packet: u8, wanted: bool) {
        self.list[self.len % BATCH] = packet;
        self.len += usize::from(wanted);
    }

    #[inline(always)]
    fn retain(&mut self, mut wanted: impl FnMut(u8) -> bool) {
        for at in 0..std::mem::take(&mut self.len) {
            let packet = self.list[at % BATCH];
            self.push(packet, wanted(packet));
        }
    }
}

/// Where steps that wait are written.
type List = [u64; STEPS];

struct Room {
    nodes: List,
    branches: List,
    groups: List,
    leaves: List,
}

impl Default for Room {
    fn default() -> Self {
        Self { nodes: [0; STEPS], branches: [0; STEPS], groups: [0; STEPS], leaves: [0; STEPS] }
    }
}

/// Steps that wait: packets, and where each goes next.
struct Steps<'a> {
    /// The packet above, where to below.
    list: &'a mut List,
    len: usize,
}

impl<'a> Steps<'a> {
    #[inline(always)]
    fn none(list: &'a mut List) -> Self {
        Self { list, len: 0 }
    }

    /// Adds a step if it is `wanted`. There is room: [`Turns`] says why.
    #[inline(always)]
    fn push(&mut self, packet: u32, to: u32, wanted: bool) {
        self.list[self.len % STEPS] = u64::from(packet) << 32 | u64::from(to);
        self.len += usize::from(wanted);
    }

    #[inline(always)]
    fn get(&self, at: usize) -> (u32, u32) {
        let step = self.list[at % STEPS];
        ((step >> 32) as u32, step as u32)
    }

    /// How many wait: they are read next.
    #[inline(always)]
    fn take(&mut self) -> usize {
        std::mem::take(&mut self.len)
    }
}

struct Walks<'a, K> {
    kernel: K,
    tree: &'a Tree,
    points: &'a [Point<'a>],
    /// The lowest piece found, by packet.
    best: &'a mut [u32; BATCH],
    room: &'a mut Room,
}

impl<K: Kernel> Walks<'_, K> {
    /// To the end of all walks. `N` is the layout's number of address words.
    #[inline(always)]
    fn all<const N: usize>(self, packets: &[u8]) {
        let Self { kernel, tree, points, best, room } = self;
        if packets.is_empty() || tree.root.lowest == NONE_FOUND {
            return;
        }
        let mut turns = Turns {
            kernel,
            tree,
            points,
            best,
            nodes: Steps::none(&mut room.nodes),
            branches: Steps::none(&mut room.branches),
            groups: Steps::none(&mut room.groups),
            leaves: Steps::none(&mut room.leaves),
        };
        // The parts of a tree one after the other: what one finds lets the next be skipped.
        let root = tree.root.to.get().ok().map(|node| &tree.nodes[node]);
        let (parts, by_set) = match root {
            Some(Node::Each { first, end }) => (&tree.branches[*first as usize..*end as usize], false),
            Some(Node::BySet { rest, .. }) => (std::slice::from_ref(&tree.branches[*rest as usize]), true),
            _ => (std::slice::from_ref(&tree.root), false),
        };
        for part in parts {
            turns.begin::<N>(packets, *part);
            turns.run::<N>();
        }
        if let (true, Some(by_set)) = (by_set, root) {
            for (at, packet) in packets.iter().enumerate() {
                turns.by_set(u32::from(*packet), by_set, packets.len() - at);
            }
            turns.run::<N>();
        }
    }
}

/// Walks below one branch. There are fewer than [`STEPS`] steps in all lists together: one is replaced
/// by one at most, and who adds more asks first. No list is read while it is added to, but for
/// leaves, which grow by one at most for each that was read.
struct Turns<'a, K> {
    kernel: K,
    tree: &'a Tree,
    points: &'a [Point<'a>],
    best: &'a mut [u32; BATCH],
    nodes: Steps<'a>,
    /// At branches that were fetched.
    branches: Steps<'a>,
    /// At groups that were fetched.
    groups: Steps<'a>,
    leaves: Steps<'a>,
}

impl<K: Kernel> Turns<'_, K> {
    /// All `packets` at `branch`.
    #[inline(always)]
    fn begin<const N: usize>(&mut self, packets: &[u8], branch: Branch) {
        let node = branch.to.get().ok().map(|node| &self.tree.nodes[node]);
        for packet in packets {
            let packet = u32::from(*packet);
            if let Some(Node::Bits { words, shift, masks, first }) = node {
                // As `step`, with one and the same node.
                let wanted = branch.lowest < self.best[packet as usize % BATCH];
                let point = &self.points[packet as usize % BATCH];
                let next = *first as usize + spelled(self.kernel, &point.words, *words, *shift, *masks);
                prefetch(&self.tree.branches, next);
                self.branches.push(packet, next as u32, wanted);
            } else {
                self.go::<N>(packet, branch);
            }
        }
    }

    /// All steps that wait, and those that follow from them.
    #[inline(always)]
    fn run<const N: usize>(&mut self) {
        let tree = self.tree;
        loop {
            for at in 0..self.branches.take() {
                let (packet, branch) = self.branches.get(at);
                self.go::<N>(packet, tree.branches[branch as usize]);
            }
            for at in 0..self.groups.take() {
                let (packet, group) = self.groups.get(at);
                self.go::<N>(packet, tree.groups[group as usize].branch);
            }
            let waiting = self.nodes.take();
            if waiting == 0 {
                break;
            }
            for at in 0..waiting {
                let (packet, node) = self.nodes.get(at);
                self.step(packet, node, waiting - at);
            }
        }
        while self.leaves.len > 0 {
            for at in 0..self.leaves.take() {
                let (packet, block) = self.leaves.get(at);
                self.block::<N>(packet, block);
            }
        }
    }

    /// From a node on; `left` steps are yet to be read from `nodes`, this one included.
    #[inline(always)]
    fn step(&mut self, packet: u32, node: u32, left: usize) {
        let tree = self.tree;
        let point = &self.points[packet as usize % BATCH];
        let waiting = left + self.branches.len + self.groups.len + self.leaves.len;
        match &tree.nodes[node as usize] {
            Node::Bits { words, shift, masks, first } => {
                let branch = *first as usize + spelled(self.kernel, &point.words, *words, *shift, *masks);
                prefetch(&tree.branches, branch);
                self.branches.push(packet, branch as u32, true);
            }
            Node::Cut { dim, bound, first } => {
                let branch = first + u32::from(point.at(*dim) >= bound.get());
                self.branches.push(packet, branch, true);
            }
            Node::Each { first, end } if waiting + ((end - first) as usize) < STEPS => {
                for branch in *first..*end {
                    self.branches.push(packet, branch, true);
                }
            }
            by_set @ Node::BySet { rest, .. } => {
                self.branches.push(packet, *rest, true);
                self.by_set(packet, by_set, left);
            }
            _ => {
                let best = &mut self.best[packet as usize % BATCH];
                *best = alone(self.kernel, tree, point, Ref::node(node), *best);
            }
        }
    }

    /// To the groups of the sets that hold the packet; `left` as for [`step`](Self::step).
    #[inline(always)]
    fn by_set(&mut self, packet: u32, node: &Node, left: usize) {
        let (tree, at) = (self.tree, packet as usize % BATCH);
        let Node::BySet { space, first, end, low, slots, .. } = node else { return };
        let point = &self.points[at];
        let groups = &tree.groups[*first as usize..*end as usize];
        let slots = &tree.slots[slots.0 as usize..slots.1 as usize];
        let waiting = left + self.branches.len + self.groups.len + self.leaves.len;
        let room = waiting + point.members(*space).len() < STEPS;
        for set in point.members(*space) {
            match group_of(groups, slots, *low, *set) {
                Some(group) if room => {
                    prefetch(groups, group);
                    self.groups.push(packet, first + group as u32, true);
                }
                Some(group) if groups[group].branch.lowest < self.best[at] => {
                    self.best[at] = alone(self.kernel, tree, point, groups[group].branch.to, self.best[at]);
                }
                _ => {}
            }
        }
    }

    /// On to `branch`, in turn, if anything below it can matter.
    #[inline(always)]
    fn go<const N: usize>(&mut self, packet: u32, branch: Branch) {
        let wanted = branch.lowest < self.best[packet as usize % BATCH];
        let (is_node, at) = branch.to.parts();
        let line = at as usize * (N + 1);
        prefetch_either(!is_node, &self.tree.lines, &self.tree.nodes, (line, N, at as usize));
        self.nodes.push(packet, at, wanted & is_node);
        self.leaves.push(packet, at, wanted & !is_node);
    }

    /// Tries a block of a leaf.
    #[inline(always)]
    fn block<const N: usize>(&mut self, packet: u32, block: u32) {
        let tree = self.tree;
        let point = &self.points[packet as usize % BATCH];
        let best = &mut self.best[packet as usize % BATCH];
        let four = Block::<N>::at(&tree.lines, block as usize);
        let hits = self.kernel.hits(four, &point.words);
        let lane = hits.trailing_zeros() % LANES as u32;
        let piece = four.piece(lane);
        // All ones where nothing was hit: `NONE_FOUND`, whatever the lane holds.
        let none = u32::from(hits == 0).wrapping_neg();
        let found = piece | none;
        if (found < *best) & !four.is_exact(lane) {
            *best = alone(self.kernel, tree, point, Ref::leaf(block), *best);
            return;
        }
        let more = (hits == 0) & four.more() & (four.piece(LANES as u32 - 1) < *best);
        *best = found.min(*best);
        prefetch(&tree.about, (piece & !none) as usize);
        self.leaves.push(packet, block + 1, more);
    }
}

/// The lowest piece from `at` on, below `best`, without turns.
#[inline(never)]
fn alone<K: Kernel>(kernel: K, tree: &Tree, point: &Point<'_>, at: Ref, best: u32) -> u32 {
    tree.lower_than(at, best, kernel, point, &mut ())
}
