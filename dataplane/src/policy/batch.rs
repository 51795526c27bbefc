//! Many packets at once: the walks take turns, so that a line one of them needs is fetched while
//! the others go on.
//!
//! All packets take a step, then all the next, and what is fetched for one arrives while the others
//! are served. Which step a packet takes next is computed, not branched on, wherever
//! that is guesswork for the processor: a step is written behind those that wait, and counted if it is wanted
//! (Ross, "Conjunctive selection conditions in main memory", PODS 2002). The order in which a packet's subtrees
//! are visited does not matter to the result, only to how much can be skipped. Where the room for steps
//! is used up a packet walks alone.

use super::compiled::{CompiledPolicy, Outcome, Stage};
use super::leaf::Block;
use super::lower::Space;
use super::point::{Layout, Point, Words, at, class, prefetch_class};
use super::simd::{Job, Kernel};
use super::tree::{Branch, NONE_FOUND, Node, Ref, Tree, group_of, spelled};
use super::{Class, IpVersion, Query, SetId, SetTable, Verdict};
use crate::packet::prefetch_element;
use arrayvec::ArrayVec;
use std::hint::select_unpredictable;

/// Packets whose walks take turns.
const BATCH: usize = 64;
/// Steps that wait, a power of two.
const STEPS: usize = 2 * BATCH;

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
    type Out = ();

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
    let Room { words, lists: room } = room;
    let known = members(queries, sets, policy.used);
    // Those no stage has decided yet, by IP version; and those that are of two.
    let mut open = [Packets::first(queries.len()), Packets::first(0)];
    let mut mixed = Packets::first(0);
    let mut v4 = true;
    for (q, words) in queries.iter().zip(&mut *words) {
        v4 &= q.key.src.is_v4() & q.key.dst.is_v4();
        words.set(q);
    }
    let points = Points { queries, words, members: known };
    if !v4 {
        open[0] = Packets::first(0);
        for (at, q) in (0u8..).zip(queries) {
            let (src, dst) = (q.key.src.is_v4(), q.key.dst.is_v4());
            open[0].push(at, src & dst);
            open[1].push(at, !(src | dst));
            mixed.push(at, src != dst);
        }
    }
    for stage in &policy.stages {
        let mut left = 0;
        let versions = [IpVersion::V4, IpVersion::V6];
        for ((tree, version), open) in stage.trees.iter().zip(versions).zip(&mut open) {
            if open.len == 0 {
                continue;
            }
            let mut best = [NONE_FOUND; BATCH];
            match tree.layout {
                Layout::V4 => Turns::<K, 4>::new(kernel, tree, &points, &mut best, room).all(open),
                Layout::V6 => Turns::<K, 6>::new(kernel, tree, &points, &mut best, room).all(open),
            }
            if stage.patch.is_some() {
                settle(policy, stage, version, &points, open.get(), &mut best);
            } else {
                for at in open.get() {
                    let rank = &mut best[usize::from(*at) % BATCH];
                    *rank = stage.slot(*rank);
                }
            }
            open.retain(|at| {
                let slot = best[usize::from(at) % BATCH];
                let outcome = policy.outcomes[slot as usize];
                verdicts[usize::from(at)] = Verdict { allow: outcome == Outcome::Allow, slot };
                outcome == Outcome::Next
            });
            left += open.len;
        }
        // No rule exists for a packet of two versions.
        mixed.retain(|at| {
            let outcome = policy.outcomes[stage.default as usize];
            verdicts[usize::from(at)] = Verdict { allow: outcome == Outcome::Allow, slot: stage.default };
            outcome == Outcome::Next
        });
        if left + mixed.len == 0 {
            break;
        }
    }
}

/// Makes slots of ranks, where the stage has a patch.
#[inline(never)]
fn settle(
    policy: &CompiledPolicy,
    stage: &Stage,
    version: IpVersion,
    points: &Points<'_>,
    packets: &[u8],
    best: &mut [u32; BATCH],
) {
    let Some(patch) = &stage.patch else { return };
    for packet in packets {
        let rank = &mut best[usize::from(*packet) % BATCH];
        *rank = patch.settle(stage, *rank, version, policy.cpu, &points.get((*packet).into()));
    }
}

/// The packets of a chunk as trees see them.
struct Points<'a> {
    queries: &'a [Query],
    words: &'a [Words; BATCH],
    members: Members<'a>,
}

/// The sets that packets are in, by space. Empty where no tree asks.
type Members<'a> = [ArrayVec<&'a [SetId], BATCH>; 4];

impl<'a> Points<'a> {
    #[inline(always)]
    fn words(&self, packet: u32) -> &Words {
        &self.words[packet as usize % BATCH]
    }

    #[inline(always)]
    fn members(&self, packet: u32, space: Space) -> &'a [SetId] {
        self.members[space as usize].get(packet as usize).copied().unwrap_or_default()
    }

    #[inline]
    fn get(&self, packet: u32) -> Point<'a> {
        let members = Space::ALL.map(|space| self.members(packet, space));
        Point::of(*self.words(packet), &self.queries[packet as usize].key, members)
    }
}

/// The sets that each query is in, by space that is asked about; what is read for one arrives while the
/// others are served.
#[inline(always)]
fn members<'a>(queries: &[Query], sets: &'a SetTable, used: [bool; 4]) -> Members<'a> {
    let mut members = Members::default();
    let asked = || Space::ALL.into_iter().filter(|space| used[*space as usize]);
    for space in asked() {
        queries.iter().for_each(|q| prefetch_class(&q.key, sets, used, space));
    }
    for space in asked() {
        let mut classes: ArrayVec<Class, BATCH> = ArrayVec::new();
        for q in queries {
            let class = class(&q.key, sets, used, space);
            sets.prefetch_ids(class);
            classes.push(class);
        }
        members[space as usize].extend(classes.iter().map(|class| sets.ids(*class)));
    }
    members
}

/// Some of a batch's packets.
#[derive(Clone)]
struct Packets {
    list: [u8; BATCH],
    len: usize,
}

impl Packets {
    /// The first of all, so many.
    #[inline(always)]
    fn first(len: usize) -> Self {
        Self { list: std::array::from_fn(|at| at as u8), len }
    }

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

/// Steps that wait: the packet above, where to below.
type List = [u64; STEPS];

/// Where packets' words and steps that wait are written.
struct Room {
    words: [Words; BATCH],
    lists: [List; 5],
}

impl Default for Room {
    fn default() -> Self {
        Self { words: [Words::ZERO; BATCH], lists: [[0; STEPS]; 5] }
    }
}

#[inline(always)]
const fn step(packet: u32, to: u32) -> u64 {
    (packet as u64) << 32 | to as u64
}

/// Steps that wait: packets, and where each goes next.
struct Steps<'a> {
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
        self.add(step(packet, to), wanted);
    }

    #[inline(always)]
    fn add(&mut self, step: u64, wanted: bool) {
        self.list[self.len % STEPS] = step;
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

/// Walks of one tree. There are fewer than [`STEPS`] steps in all lists together: one is replaced
/// by one at most, and who adds more asks first. No list is read while it is added to, but for
/// leaves, which grow by one at most for each that was read.
///
/// `V` is 4 for a tree with the layout of IPv4, else 6.
struct Turns<'a, K, const V: u8> {
    kernel: K,
    tree: &'a Tree,
    points: &'a Points<'a>,
    /// The lowest rank found, by packet.
    best: &'a mut [u32; BATCH],
    nodes: Steps<'a>,
    /// At branches that were fetched.
    branches: Steps<'a>,
    /// At groups that were fetched.
    groups: Steps<'a>,
    leaves: Steps<'a>,
    /// At nodes or leaves that take more than a few steps: seldom.
    others: Steps<'a>,
}

impl<'a, K: Kernel, const V: u8> Turns<'a, K, V> {
    const LAYOUT: Layout = if V == 4 { Layout::V4 } else { Layout::V6 };

    #[inline(always)]
    fn new(
        kernel: K,
        tree: &'a Tree,
        points: &'a Points<'a>,
        best: &'a mut [u32; BATCH],
        room: &'a mut [List; 5],
    ) -> Self {
        let [nodes, branches, groups, leaves, others] = room.each_mut().map(Steps::none);
        Self { kernel, tree, points, best, nodes, branches, groups, leaves, others }
    }

    /// To the end of all walks.
    #[inline(always)]
    fn all(mut self, packets: &Packets) {
        let tree = self.tree;
        if tree.root.lowest == NONE_FOUND {
            return;
        }
        match tree.root.to.get().map(|node| &tree.nodes[node]) {
            Ok(by_set @ Node::BySet { rest, .. }) => {
                self.parts(packets, tree.branches[*rest as usize]);
                for (at, packet) in packets.get().iter().enumerate() {
                    self.by_set(u32::from(*packet), by_set, packets.len - at);
                }
                self.run();
            }
            _ => self.parts(packets, tree.root),
        }
    }

    /// The parts of a tree one after the other: what one finds lets the next, and all behind it, be skipped.
    #[inline(always)]
    fn parts(&mut self, packets: &Packets, branch: Branch) {
        let tree = self.tree;
        let parts = match branch.to.get().map(|node| &tree.nodes[node]) {
            Ok(Node::Each { first, end }) => &tree.branches[*first as usize..*end as usize],
            _ => std::slice::from_ref(&branch),
        };
        let mut packets = packets.clone();
        for part in parts {
            packets.retain(|packet| part.lowest < self.best[usize::from(packet) % BATCH]);
            self.begin(packets.get(), *part);
            self.run();
        }
    }

    /// All `packets` at `branch`, below which anything can matter.
    #[inline(always)]
    fn begin(&mut self, packets: &[u8], branch: Branch) {
        let tree = self.tree;
        match branch.to.get().map(|node| tree.nodes[node]) {
            // As in `step`, with one and the same node.
            Ok(Node::Bits { words, shift, masks, first }) => {
                let (kernel, points, branches) = (self.kernel, self.points, &tree.branches[..]);
                for packet in packets.iter().map(|packet| u32::from(*packet)) {
                    let next = first as usize + spelled(kernel, points.words(packet), words, shift, masks);
                    prefetch_element(branches, next);
                    self.branches.push(packet, next as u32, true);
                }
            }
            _ => {
                for packet in packets {
                    let wanted = branch.lowest < self.best[usize::from(*packet) % BATCH];
                    let (is_node, at) = branch.to.parts();
                    self.nodes.push(u32::from(*packet), at, wanted & is_node);
                    self.leaves.push(u32::from(*packet), at, wanted & !is_node);
                }
            }
        }
    }

    /// All steps that wait, and those that follow from them.
    #[inline(always)]
    fn run(&mut self) {
        let tree = self.tree;
        loop {
            self.go(false, |branch| tree.branches[branch as usize]);
            if self.groups.len > 0 {
                self.go(true, |group| tree.groups[group as usize].branch);
            }
            if self.nodes.len == 0 {
                break;
            }
            self.step();
        }
        // Leaves are seldom longer.
        self.block();
        self.block();
        self.rest();
    }

    /// From branches, or else from groups, on to what is below them, if anything there can matter.
    #[inline(always)]
    fn go(&mut self, groups: bool, branch: impl Fn(u32) -> Branch) {
        let Self { tree, best, nodes, leaves, .. } = self;
        let from = if groups { &mut self.groups } else { &mut self.branches };
        let (mut node, mut leaf) = (nodes.len, leaves.len);
        for at in 0..from.take() {
            let (packet, branch) = (from.list[at % STEPS] >> 32, branch(from.list[at % STEPS] as u32));
            let wanted = branch.lowest < best[packet as usize % BATCH];
            let (is_node, at) = branch.to.parts();
            // Nodes are few: they are at hand.
            prefetch_element(&tree.lines, at as usize);
            let next = packet << 32 | u64::from(at);
            nodes.list[node % STEPS] = next;
            node += usize::from(wanted & is_node);
            leaves.list[leaf % STEPS] = next;
            leaf += usize::from(wanted & !is_node);
        }
        (nodes.len, leaves.len) = (node, leaf);
    }

    /// From nodes on.
    #[inline(always)]
    fn step(&mut self) {
        let Self { kernel, tree, points, nodes, branches, others, .. } = self;
        let mut branch = branches.len;
        for at in 0..nodes.take() {
            let (packet, node) = nodes.get(at);
            if let Node::Bits { words, shift, masks, first } = &tree.nodes[node as usize] {
                let own = points.words(packet);
                let next = *first as usize + spelled(*kernel, own, *words, *shift, *masks);
                prefetch_element(&tree.branches, next);
                branches.list[branch % STEPS] = step(packet, next as u32);
                branch += 1;
            } else {
                others.push(packet, node, true);
            }
        }
        branches.len = branch;
        let waiting = self.others.take();
        for at in 0..waiting {
            let (packet, node) = self.others.get(at);
            self.other(packet, node, waiting - at);
        }
    }

    /// From a node that picks no bits; `left` steps are yet to be read, this one included.
    #[inline(never)]
    fn other(&mut self, packet: u32, node: u32, left: usize) {
        let tree = self.tree;
        let waiting = left + self.branches.len + self.groups.len + self.leaves.len;
        match &tree.nodes[node as usize] {
            Node::Cut { dim, bound, first } => {
                let key = &self.points.queries[packet as usize].key;
                let rest = at(self.points.words(packet), key, *dim) >= bound.get();
                self.branches.push(packet, first + u32::from(rest), true);
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
            _ => self.alone(packet, Ref::node(node)),
        }
    }

    /// To the groups of the sets that hold the packet; `left` as for [`step`](Self::step).
    #[inline(always)]
    fn by_set(&mut self, packet: u32, node: &Node, left: usize) {
        let (tree, at) = (self.tree, packet as usize % BATCH);
        let Node::BySet { space, first, end, low, slots, .. } = node else { return };
        let groups = &tree.groups[*first as usize..*end as usize];
        let slots = &tree.slots[slots.0 as usize..slots.1 as usize];
        let waiting = left + self.branches.len + self.groups.len + self.leaves.len;
        let members = self.points.members(packet, *space);
        let room = waiting + members.len() < STEPS;
        for set in members {
            match group_of(groups, slots, *low, *set) {
                Some(group) if room => {
                    prefetch_element(groups, group);
                    self.groups.push(packet, first + group as u32, true);
                }
                Some(group) if groups[group].branch.lowest < self.best[at] => {
                    self.alone(packet, groups[group].branch.to);
                }
                _ => {}
            }
        }
    }

    /// Tries blocks of leaves.
    #[inline(always)]
    fn block(&mut self) {
        let Self { kernel, tree, points, best, leaves, others, .. } = self;
        let mut next = 0;
        for at in 0..leaves.take() {
            let waiting = leaves.list[at % STEPS];
            let (packet, block) = ((waiting >> 32) as u32, waiting as u32);
            let lanes = Block::at(&tree.lines, Self::LAYOUT, block as usize);
            let hits = kernel.hits(Self::LAYOUT, lanes.line, points.words(packet));
            let best = &mut best[packet as usize % BATCH];
            let (found, asks) = lanes.first(hits);
            if asks {
                others.add(waiting, true);
                continue;
            }
            *best = select_unpredictable(found < *best, found, *best);
            prefetch_element(&tree.lines, block as usize + 1);
            leaves.list[next % STEPS] = waiting + 1;
            next += usize::from(lanes.goes_on(*best));
        }
        leaves.len = next;
        self.alone_all();
    }

    /// Tries all blocks to the end of long leaves.
    #[inline(always)]
    fn rest(&mut self) {
        let Self { kernel, tree, points, best, leaves, others, .. } = self;
        for at in 0..leaves.take() {
            let (packet, mut block) = leaves.get(at);
            let (words, best) = (points.words(packet), &mut best[packet as usize % BATCH]);
            loop {
                let lanes = Block::at(&tree.lines, Self::LAYOUT, block as usize);
                let (found, asks) = lanes.first(kernel.hits(Self::LAYOUT, lanes.line, words));
                if asks {
                    others.push(packet, block, true);
                    break;
                }
                *best = found.min(*best);
                if !lanes.goes_on(*best) {
                    break;
                }
                block += 1;
            }
        }
        self.alone_all();
    }

    /// Those whose rules' entries must be asked.
    #[inline(always)]
    fn alone_all(&mut self) {
        for at in 0..self.others.take() {
            let (packet, block) = self.others.get(at);
            self.alone(packet, Ref::leaf(block));
        }
    }

    /// The lowest rank from `at` on, without turns.
    #[inline(never)]
    fn alone(&mut self, packet: u32, at: Ref) {
        let best = &mut self.best[packet as usize % BATCH];
        *best = self.tree.lower_than(at, *best, self.kernel, &self.points.get(packet), &mut ());
    }
}
