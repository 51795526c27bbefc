//! Many packets at once: the walks take turns, so that a line one of them needs is fetched while
//! the others go on.
//!
//! All packets take a step, then all the next, and what is fetched for one arrives while the others
//! are served; leaves come last. The order in which a packet's subtrees are visited does not matter
//! to the result, only to how much can be skipped. Where the room for steps is used up, and at nodes
//! other than picked bits, a packet simply walks alone.

use super::compiled::{CompiledPolicy, Outcome};
use super::point::Point;
use super::prefetch::prefetch;
use super::simd::{self, Cpu};
use super::tree::{Branch, NONE_FOUND, Node, Ref, Tree, group_of, spelled};
use super::{IpVersion, Query, SetTable, Verdict};
use arrayvec::ArrayVec;

/// Packets whose walks take turns.
const BATCH: usize = 64;
/// Steps that wait.
const STEPS: usize = 4 * BATCH;

/// Judges `queries` in the order given; `verdicts` is as long.
pub(super) fn judge(policy: &CompiledPolicy, sets: &SetTable, queries: &[Query], verdicts: &mut [Verdict]) {
    assert_eq!(queries.len(), verdicts.len(), "a verdict for each query");
    simd::tuned(
        policy.cpu,
        #[inline(always)]
        || {
            let mut steps = [Steps::new(), Steps::new(), Steps::new()];
            for (queries, verdicts) in queries.chunks(BATCH).zip(verdicts.chunks_mut(BATCH)) {
                chunk(policy, sets, queries, verdicts, &mut steps);
            }
        },
    );
}

#[inline(always)]
fn chunk(
    policy: &CompiledPolicy,
    sets: &SetTable,
    queries: &[Query],
    verdicts: &mut [Verdict],
    steps: &mut [Steps; 3],
) {
    let mut points: ArrayVec<Point<'_>, BATCH> = ArrayVec::new();
    // Those no stage has decided yet, by IP version; and those that are of two.
    let mut open: [ArrayVec<u8, BATCH>; 2] = [ArrayVec::new(), ArrayVec::new()];
    let mut mixed: ArrayVec<u8, BATCH> = ArrayVec::new();
    for (at, q) in (0u8..).zip(queries) {
        points.push(Point::new(q, sets, policy.used));
        let version = IpVersion::of(q.key.src);
        match version == IpVersion::of(q.key.dst) {
            true => open[version as usize].push(at),
            false => mixed.push(at),
        }
    }
    let mut best = [NONE_FOUND; BATCH];
    for stage in &policy.stages {
        for (tree, open) in stage.trees.iter().zip(&open) {
            if !open.is_empty() {
                open.iter().for_each(|at| best[usize::from(*at)] = NONE_FOUND);
                Walks { tree, cpu: policy.cpu, points: &points, best: &mut best, steps }.all(open);
            }
        }
        let mut decide = |at: u8, slot: u32| {
            let outcome = policy.outcomes[slot as usize];
            verdicts[usize::from(at)] = Verdict { allow: outcome == Outcome::Allow, slot };
            outcome == Outcome::Next
        };
        let versions = [IpVersion::V4, IpVersion::V6];
        for ((tree, version), open) in stage.trees.iter().zip(versions).zip(&mut open) {
            open.retain(|at| {
                let rank = tree.rank(best[usize::from(*at)]);
                let point = &points[usize::from(*at)];
                let slot = match &stage.patch {
                    None => stage.slot(rank),
                    Some(patch) => patch.settle(stage, rank, version, policy.cpu, point),
                };
                decide(*at, slot)
            });
        }
        // No rule exists for a packet of two versions.
        mixed.retain(|at| decide(*at, stage.default));
        if open.iter().all(|open| open.is_empty()) && mixed.is_empty() {
            break;
        }
    }
}

/// Steps that wait: packets, and where each goes next.
struct Steps {
    packets: [u8; STEPS],
    to: [u32; STEPS],
    len: usize,
}

impl Steps {
    const fn new() -> Self {
        Self { packets: [0; STEPS], to: [0; STEPS], len: 0 }
    }

    /// False: no room.
    #[inline(always)]
    fn push(&mut self, packet: u8, to: u32) -> bool {
        if self.len == STEPS {
            return false;
        }
        (self.packets[self.len], self.to[self.len]) = (packet, to);
        self.len += 1;
        true
    }

    #[inline(always)]
    fn get(&self, at: usize) -> (u8, u32) {
        (self.packets[at], self.to[at])
    }
}

struct Walks<'a> {
    tree: &'a Tree,
    cpu: Cpu,
    points: &'a [Point<'a>],
    /// The lowest piece found, by packet.
    best: &'a mut [u32; BATCH],
    /// At nodes; at branches that bits spelled; at leaves.
    steps: &'a mut [Steps; 3],
}

const NODES: usize = 0;
const BRANCHES: usize = 1;
const LEAVES: usize = 2;

impl Walks<'_> {
    #[inline(always)]
    fn all(&mut self, packets: &[u8]) {
        let tree = self.tree;
        match tree.root.to.get().map(|node| &tree.nodes[node]) {
            // The parts of a tree one after the other: what one finds lets the next be skipped.
            Ok(Node::Each { first, end }) => {
                for branch in &tree.branches[*first as usize..*end as usize] {
                    for packet in packets {
                        self.go(*packet, *branch);
                    }
                    self.run();
                }
            }
            Ok(Node::BySet { space, first, end, rest, low, slots }) => {
                let rest = tree.branches[*rest as usize];
                for packet in packets {
                    self.go(*packet, rest);
                }
                self.run();
                let groups = &tree.groups[*first as usize..*end as usize];
                let slots = &tree.slots[slots.0 as usize..slots.1 as usize];
                for packet in packets {
                    for set in self.points[usize::from(*packet)].members(*space) {
                        if let Some(group) = group_of(groups, slots, *low, *set) {
                            self.go(*packet, group.branch);
                        }
                    }
                }
                self.run();
            }
            _ => {
                for packet in packets {
                    self.go(*packet, tree.root);
                }
                self.run();
            }
        }
    }

    /// All steps that wait, and those that follow from them.
    #[inline(always)]
    fn run(&mut self) {
        let tree = self.tree;
        while self.steps[NODES].len > 0 {
            for at in 0..std::mem::take(&mut self.steps[NODES].len) {
                let (packet, node) = self.steps[NODES].get(at);
                if let Node::Bits { words, masks, first } = &tree.nodes[node as usize] {
                    let point = &self.points[usize::from(packet)];
                    let branch = *first as usize + spelled(self.cpu, point, *words, *masks);
                    prefetch(&tree.branches, branch);
                    if !self.steps[BRANCHES].push(packet, branch as u32) {
                        self.alone(packet, tree.branches[branch]);
                    }
                } else {
                    self.alone(packet, Branch { lowest: 0, to: Ref::node(node) });
                }
            }
            for at in 0..std::mem::take(&mut self.steps[BRANCHES].len) {
                let (packet, branch) = self.steps[BRANCHES].get(at);
                self.go(packet, tree.branches[branch as usize]);
            }
        }
        for at in 0..std::mem::take(&mut self.steps[LEAVES].len) {
            let (packet, block) = self.steps[LEAVES].get(at);
            let best = &mut self.best[usize::from(packet)];
            *best = tree.scan(block as usize, *best, &self.points[usize::from(packet)], &());
        }
    }

    /// On to `branch`, in turn, if anything below it can matter.
    #[inline(always)]
    fn go(&mut self, packet: u8, branch: Branch) {
        if branch.lowest >= self.best[usize::from(packet)] {
            return;
        }
        let waits = match branch.to.get() {
            Ok(node) => {
                prefetch(&self.tree.nodes, node);
                self.steps[NODES].push(packet, node as u32)
            }
            Err(block) => {
                let words = self.tree.layout.address_words();
                prefetch(&self.tree.lines, block * (words + 1));
                prefetch(&self.tree.lines, block * (words + 1) + words);
                self.steps[LEAVES].push(packet, block as u32)
            }
        };
        if !waits {
            self.alone(packet, branch);
        }
    }

    /// To the end of the branch, without turns.
    #[inline(never)]
    fn alone(&mut self, packet: u8, branch: Branch) {
        let best = &mut self.best[usize::from(packet)];
        *best = self.tree.branch(branch, *best, self.cpu, &self.points[usize::from(packet)], &mut ());
    }
}
