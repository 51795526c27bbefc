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
use super::leaf::{Block, Line};
use super::lower::Space;
use super::point::{Layout, Point, Words, at};
use super::simd::{Job, Kernel};
use super::tree::{Branch, NONE_FOUND, Node, Ref, Tree, group_of, spelled};
use super::{Class, IpVersion, Query, SetId, SetTable, Verdict};
use crate::net::FlowKey;
use crate::packet::prefetch_element;
use std::hint::select_unpredictable;

/// Packets whose walks take turns.
const BATCH: usize = 64;
/// Steps that wait, a power of two.
const STEPS: usize = 2 * BATCH;

/// Where walks that take turns write: made once, of no meaning between batches.
pub struct Room {
    words: [Words; BATCH],
    /// By space, where trees ask.
    classes: [[Class; BATCH]; 4],
    /// The lowest rank found.
    best: [u32; BATCH],
    lists: [List; 5],
}

impl Default for Room {
    fn default() -> Self {
        Self {
            words: [Words::ZERO; BATCH],
            classes: [[Class::NONE; BATCH]; 4],
            best: [NONE_FOUND; BATCH],
            lists: [[0; STEPS]; 5],
        }
    }
}

/// Judges `queries` in the order given; `verdicts` is as long.
pub(super) fn judge(
    policy: &CompiledPolicy,
    sets: &SetTable,
    queries: &[Query],
    verdicts: &mut [Verdict],
    room: &mut Room,
) {
    assert_eq!(queries.len(), verdicts.len(), "a verdict for each query");
    policy.cpu.tuned(Judge { policy, sets, queries, verdicts, room });
}

struct Judge<'a> {
    policy: &'a CompiledPolicy,
    sets: &'a SetTable,
    queries: &'a [Query],
    verdicts: &'a mut [Verdict],
    room: &'a mut Room,
}

impl Job for Judge<'_> {
    type Out = ();

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) {
        let Self { policy, sets, queries, verdicts, room } = self;
        for (queries, verdicts) in queries.chunks(BATCH).zip(verdicts.chunks_mut(BATCH)) {
            chunk(kernel, policy, sets, queries, verdicts, room);
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
    let Room { words, classes, best, lists } = room;
    look_up(queries, sets, policy.used, classes);
    // Those no stage has decided yet, by IP version; and those that are of two.
    let mut open = [Packets::first(queries.len()), Packets::first(0)];
    let mut mixed = Packets::first(0);
    let mut v4 = true;
    for (q, words) in queries.iter().zip(&mut *words) {
        v4 &= q.key.src.is_v4() & q.key.dst.is_v4();
        words.set(q);
    }
    let points = Points { queries, words, classes, sets, used: policy.used };
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
            *best = [NONE_FOUND; BATCH];
            match tree.layout {
                Layout::V4 => Turns::<K, 4>::new(kernel, tree, &points, best, lists).all(open),
                Layout::V6 => Turns::<K, 6>::new(kernel, tree, &points, best, lists).all(open),
            }
            let patched = stage.patch.is_some();
            if patched {
                settle(policy, stage, version, &points, open.get(), best);
            }
            open.retain(|at| {
                let found = best[usize::from(at) % BATCH];
                let slot = if patched { found } else { stage.slot(found) };
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
    classes: &'a [[Class; BATCH]; 4],
    sets: &'a SetTable,
    used: [bool; 4],
}

impl<'a> Points<'a> {
    #[inline(always)]
    fn words(&self, packet: u32) -> &Words {
        &self.words[packet as usize % BATCH]
    }

    /// The sets that the packet is in. None where no tree asks.
    #[inline(always)]
    fn members(&self, packet: u32, space: Space) -> &'a [SetId] {
        let class = self.classes[space as usize][packet as usize % BATCH];
        if self.used[space as usize] { self.sets.ids(class) } else { &[] }
    }

    #[inline]
    fn get(&self, packet: u32) -> Point<'a> {
        let members = Space::ALL.map(|space| self.members(packet, space));
        Point::of(*self.words(packet), &self.queries[packet as usize].key, members)
    }
}

/// The class of each query, by space that is asked about; what is read for one arrives while the
/// others are served.
#[inline(always)]
fn look_up(queries: &[Query], sets: &SetTable, used: [bool; 4], classes: &mut [[Class; BATCH]; 4]) {
    let [src, dst, src_port, dst_port] = classes;
    let asks = |space| used[space as usize];
    if asks(Space::Src) {
        queries.iter().for_each(|q| sets.prefetch_address(q.key.src));
    }
    if asks(Space::Dst) {
        queries.iter().for_each(|q| sets.prefetch_address(q.key.dst));
    }
    if asks(Space::SrcPort) {
        queries.iter().for_each(|q| sets.prefetch_port(q.key.src, q.key.proto, q.key.sport));
    }
    if asks(Space::DstPort) {
        queries.iter().for_each(|q| sets.prefetch_port(q.key.dst, q.key.proto, q.key.dport));
    }
    // A loop for each space: to ask each packet which space it is takes longer than the lookup.
    if asks(Space::Src) {
        classify(queries, sets, src, |key| sets.class_of_address(key.src));
    }
    if asks(Space::Dst) {
        classify(queries, sets, dst, |key| sets.class_of_address(key.dst));
    }
    if asks(Space::SrcPort) {
        classify(queries, sets, src_port, |key| sets.class_of_port(key.src, key.proto, key.sport));
    }
    if asks(Space::DstPort) {
        classify(queries, sets, dst_port, |key| sets.class_of_port(key.dst, key.proto, key.dport));
    }
}

#[inline(always)]
fn classify(
    queries: &[Query],
    sets: &SetTable,
    classes: &mut [Class; BATCH],
    class_of: impl Fn(&FlowKey) -> Class,
) {
    for (q, class) in queries.iter().zip(classes) {
        *class = class_of(&q.key);
        sets.prefetch_ids(*class);
    }
}

/// All packets of a batch.
static ORDER: [u8; BATCH] = {
    let mut order = [0; BATCH];
    let mut at = 0;
    while at < BATCH {
        order[at] = at as u8;
        at += 1;
    }
    order
};

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
        Self { list: ORDER, len }
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
/// nodes and leaves, which grow by one at most for each that was read.
///
/// `V` is 4 for a tree with the layout of IPv4, else 6.
struct Turns<'a, K, const V: u8> {
    kernel: K,
    tree: &'a Tree,
    points: &'a Points<'a>,
    /// The lowest rank found, by packet.
    best: &'a mut [u32; BATCH],
    nodes: Steps<'a>,
    /// At branches of nodes that pick no bits.
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

    /// To the end of all walks: the parts of a tree one after the other, since what one finds lets the next,
    /// and all behind it, be skipped; then the groups of the sets that hold the packet.
    #[inline(always)]
    fn all(mut self, packets: &Packets) {
        let tree = self.tree;
        if tree.root.lowest == NONE_FOUND {
            return;
        }
        let node = |branch: Branch| branch.to.get().ok().map(|node| &tree.nodes[node]);
        let (branch, by_set) = match node(tree.root) {
            Some(by_set @ Node::BySet { rest, .. }) => (tree.branches[*rest as usize], Some(by_set)),
            _ => (tree.root, None),
        };
        let parts = match node(branch) {
            Some(Node::Each { first, end }) => &tree.branches[*first as usize..*end as usize],
            _ => std::slice::from_ref(&branch),
        };
        let mut left = packets.clone();
        for number in 0..parts.len() + usize::from(by_set.is_some()) {
            if let Some(part) = parts.get(number) {
                // Nothing is found before the first.
                if number > 0 {
                    left.retain(|packet| part.lowest < self.best[usize::from(packet) % BATCH]);
                }
                self.begin(left.get(), *part);
            } else if let Some(by_set) = by_set {
                for (at, packet) in packets.get().iter().enumerate() {
                    self.by_set(u32::from(*packet), by_set, packets.len - at);
                }
            }
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
                let (kernel, own, branches) = (self.kernel, self.points.words, &tree.branches[..]);
                let Self { best, nodes, leaves, .. } = self;
                let (node, leaf) = (nodes.len, leaves.len);
                let mut below =
                    Below { lines: &tree.lines, nodes: nodes.list, node, leaves: leaves.list, leaf };
                for packet in packets.iter().map(|packet| u32::from(*packet)) {
                    let own = &own[packet as usize % BATCH];
                    let next = first as usize + spelled(kernel, own, words, shift, masks);
                    below.push(packet, branches[next], best);
                }
                (nodes.len, leaves.len) = below.ends();
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
            if self.branches.len > 0 {
                self.go(false, |branch| tree.branches[branch as usize]);
            }
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
        let (node, leaf) = (nodes.len, leaves.len);
        let mut below = Below { lines: &tree.lines, nodes: nodes.list, node, leaves: leaves.list, leaf };
        let waiting = from.take();
        for step in &from.list[..waiting.min(STEPS)] {
            below.push((step >> 32) as u32, branch(*step as u32), best);
        }
        (nodes.len, leaves.len) = below.ends();
    }

    /// From nodes on. No branch is fetched first: the processor is ahead by more packets than it waits for.
    #[inline(always)]
    fn step(&mut self) {
        let (kernel, own, waiting) = (self.kernel, self.points.words, self.nodes.take());
        let (nodes, branches) = (&self.tree.nodes[..], &self.tree.branches[..]);
        let Self { tree, best, nodes: from, leaves, others, .. } = self;
        let mut aside = others.len;
        let mut below =
            Below { lines: &tree.lines, nodes: from.list, node: 0, leaves: leaves.list, leaf: leaves.len };
        for at in 0..waiting {
            let waiting = below.nodes[at % STEPS];
            let packet = (waiting >> 32) as u32;
            if let Node::Bits { words, shift, masks, first } = &nodes[waiting as u32 as usize] {
                let own = &own[packet as usize % BATCH];
                let next = *first as usize + spelled(kernel, own, *words, *shift, *masks);
                below.push(packet, branches[next], best);
            } else {
                others.list[aside % STEPS] = waiting;
                aside += 1;
            }
        }
        (from.len, leaves.len) = below.ends();
        others.len = aside;
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
        let waiting = left + self.nodes.len + self.branches.len + self.groups.len + self.leaves.len;
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
        let waiting = left + self.nodes.len + self.branches.len + self.groups.len + self.leaves.len;
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
        let (kernel, words, lines) = (self.kernel, self.points.words, &self.tree.lines[..]);
        let (mut next, mut asking, waiting) = (0, self.others.len, self.leaves.take());
        let (best, leaves, others) = (&mut *self.best, &mut *self.leaves.list, &mut *self.others.list);
        for at in 0..waiting {
            let waiting = leaves[at % STEPS];
            let (packet, block) = ((waiting >> 32) as usize % BATCH, waiting as u32 as usize);
            let lanes = Block::at(lines, Self::LAYOUT, block);
            let hits = kernel.hits(Self::LAYOUT, lanes.line, &words[packet]);
            let (found, asks) = lanes.first(hits);
            if asks {
                others[asking % STEPS] = waiting;
                asking += 1;
                continue;
            }
            let lowest = select_unpredictable(found < best[packet], found, best[packet]);
            best[packet] = lowest;
            prefetch_element(lines, block + 1);
            leaves[next % STEPS] = waiting + 1;
            next += usize::from(lanes.goes_on(lowest));
        }
        (self.leaves.len, self.others.len) = (next, asking);
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

/// Lists that steps below branches are written to, where the compiler knows that nothing else changes.
struct Below<'s> {
    lines: &'s [Line],
    nodes: &'s mut List,
    node: usize,
    leaves: &'s mut List,
    leaf: usize,
}

impl Below<'_> {
    /// On to what is below `branch`, if anything there can matter.
    #[inline(always)]
    fn push(&mut self, packet: u32, branch: Branch, best: &[u32; BATCH]) {
        let wanted = branch.lowest < best[packet as usize % BATCH];
        let (is_node, at) = branch.to.parts();
        // Nodes are few: they are at hand.
        prefetch_element(self.lines, at as usize);
        let next = step(packet, at);
        self.nodes[self.node % STEPS] = next;
        self.node += usize::from(wanted & is_node);
        self.leaves[self.leaf % STEPS] = next;
        self.leaf += usize::from(wanted & !is_node);
    }

    /// How many steps wait, at nodes and at leaves.
    #[inline(always)]
    fn ends(&self) -> (usize, usize) {
        (self.node, self.leaf)
    }
}
