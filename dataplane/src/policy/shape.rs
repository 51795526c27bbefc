//! The form that rules took: how large trees are, and of what.

use super::IpVersion;
use super::compiled::CompiledPolicy;
use super::leaf::Block;
use super::tree::{Branch, NONE_FOUND, Node, Tree};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The tree of one stage, for one IP version or for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeShape {
    /// The tier; empty: the profiles.
    pub tier: Arc<str>,
    /// `None`: the same tree for both.
    pub version: Option<IpVersion>,
    /// Over the rules that are new since the stage's trees were grown.
    pub patch: bool,
    /// Boxes that rules were cut into.
    pub pieces: usize,
    /// Nodes that pick bits.
    pub bits: usize,
    /// Nodes that compare with a bound.
    pub cuts: usize,
    /// Nodes of which every subtree is visited.
    pub each: usize,
    /// Nodes that go by set.
    pub by_set: usize,
    /// Leaves, equal ones counted once.
    pub leaves: usize,
    /// Boxes in the longest leaf.
    pub longest_leaf: usize,
    /// Nodes on the longest way to a leaf.
    pub depth: usize,
    /// Memory held.
    pub bytes: usize,
}

impl CompiledPolicy {
    /// Every tree, in the order in which they are asked.
    pub fn shape(&self) -> Vec<TreeShape> {
        let trees = self.stages.iter().enumerate().flat_map(|(stage, of)| {
            let tier = self.list.tiers.get(stage).map_or_else(|| "".into(), |tier| tier.name.clone());
            let grown = versions(&of.trees).into_iter().map(|(version, tree)| (version, tree, false));
            let patches = of.patch.iter().flat_map(|patch| versions(&patch.trees));
            let all = grown.chain(patches.map(|(version, tree)| (version, tree, true)));
            all.map(move |(version, tree, patch)| tree.shape(tier.clone(), version, patch))
                .collect::<Vec<_>>()
        });
        trees.collect()
    }
}

/// The trees of a stage, each once.
pub(super) fn versions(trees: &[Arc<Tree>; 2]) -> Vec<(Option<IpVersion>, &Tree)> {
    let [v4, v6] = trees;
    if Arc::ptr_eq(v4, v6) {
        return vec![(None, v4)];
    }
    vec![(Some(IpVersion::V4), v4), (Some(IpVersion::V6), v6)]
}

impl Tree {
    /// What lies below a node, but for branches that hold nothing: for picked bits with what they spell.
    pub(super) fn below(&self, node: &Node) -> Vec<(usize, Branch)> {
        let of =
            |first: u32, end: u32| self.branches[first as usize..end as usize].iter().copied().enumerate();
        let all: Vec<(usize, Branch)> = match *node {
            Node::Bits { masks, first, .. } => {
                let picked = masks.iter().map(|mask| mask.count_ones()).sum::<u32>();
                of(first, first + (1 << picked)).collect()
            }
            Node::Cut { first, .. } => of(first, first + 2).collect(),
            Node::Each { first, end } => of(first, end).collect(),
            Node::BySet { first, end, rest, .. } => {
                let groups = &self.groups[first as usize..end as usize];
                let rest = self.branches[rest as usize];
                let of_sets = groups.iter().map(|group| (group.set.0 as usize, group.branch));
                of_sets.chain([(usize::MAX, rest)]).collect()
            }
        };
        all.into_iter().filter(|(_, branch)| branch.lowest != NONE_FOUND).collect()
    }

    /// The ranks in a leaf, in order: of a rule that was cut into pieces, of each piece.
    pub(super) fn leaf(&self, mut block: usize) -> Vec<u32> {
        let mut ranks = Vec::new();
        loop {
            let own = Block::at(&self.lines, self.layout, block);
            let lanes = 0..self.layout.lanes() as u32;
            ranks.extend(lanes.filter(|lane| own.is_used(*lane)).map(|lane| own.rank(lane)));
            if !own.more() {
                return ranks;
            }
            block += 1;
        }
    }

    fn shape(&self, tier: Arc<str>, version: Option<IpVersion>, patch: bool) -> TreeShape {
        let mut shape = TreeShape {
            tier,
            version,
            patch,
            pieces: self.pieces as usize,
            bits: 0,
            cuts: 0,
            each: 0,
            by_set: 0,
            leaves: 0,
            longest_leaf: 0,
            depth: 0,
            bytes: self.bytes(),
        };
        let mut leaves = BTreeSet::new();
        let mut depths = vec![0; self.nodes.len()];
        // Children come after their parents.
        for (at, node) in self.nodes.iter().enumerate().rev() {
            *match node {
                Node::Bits { .. } => &mut shape.bits,
                Node::Cut { .. } => &mut shape.cuts,
                Node::Each { .. } => &mut shape.each,
                Node::BySet { .. } => &mut shape.by_set,
            } += 1;
            let below = self.below(node).into_iter().map(|(_, branch)| match branch.to.get() {
                Ok(child) => depths[child],
                Err(leaf) => {
                    leaves.insert(leaf);
                    0
                }
            });
            depths[at] = 1 + below.max().unwrap_or(0);
        }
        if self.root.lowest != NONE_FOUND {
            match self.root.to.get() {
                Ok(node) => shape.depth = depths[node],
                Err(leaf) => drop(leaves.insert(leaf)),
            }
        }
        shape.leaves = leaves.len();
        shape.longest_leaf = leaves.into_iter().map(|leaf| self.leaf(leaf).len()).max().unwrap_or(0);
        shape
    }
}
