//! What a snapshot holds of policy: for each endpoint and direction a tree, shared by all that
//! have equal rules, and the sets the trees ask.

use super::builder::{Key, PolicyTableBuilder};
use super::{
    CompileError, CompiledPolicy, Explanation, HitCounters, Query, Room, SetId, SetKind, SetTable, Verdict,
};
use crate::net::WorkerId;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Endpoints one table holds at most.
pub(super) const MAX_ENDPOINTS: u32 = 1 << 20;

/// Bytes that trees may take. A list whose trees would take more is compiled into a slower form that takes less,
/// and is as exact; the smallest form is taken whatever it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// The trees of one list.
    pub list: usize,
    /// All trees of a table. Where they would take more, the largest are made smaller first.
    pub table: usize,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self { list: 256 << 20, table: 1 << 30 }
    }
}

/// What the trees of a table take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyMemory {
    /// In all.
    pub bytes: usize,
    /// Lists in a slower form, because of the ceiling.
    pub compact: usize,
    /// Lists with patches.
    pub patched: usize,
}

/// An endpoint that policy applies to, dense from 0. Kept for an endpoint as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointIdx(pub u32);

/// As the endpoint sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Ingress { "ingress" } else { "egress" })
    }
}

/// Why an endpoint cannot be bound to its rules. Nothing of it is bound then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// An index too large.
    #[error("endpoint index {index} is not below {limit}; number endpoints from 0")]
    Index {
        /// As given.
        index: u32,
        /// The first that is too large.
        limit: u32,
    },
    /// A rule names a set the table does not hold.
    #[error("a rule names IP set #{}, which does not exist; send the set before the rule", .set.0)]
    MissingSet {
        /// The set.
        set: SetId,
    },
    /// A rule asks a set what it cannot answer.
    #[error(
        "a rule matches {expected:?} against IP set {name}, which holds {found:?}; use a set of the other type"
    )]
    WrongKind {
        /// The set's name.
        name: String,
        /// What the rule asks.
        expected: SetKind,
        /// What the set answers.
        found: SetKind,
    },
    /// The rules have no tree.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// A compiled list with its counters, shared by everything that has equal rules.
#[derive(Debug)]
pub struct PolicyTree {
    pub(super) compiled: Arc<CompiledPolicy>,
    pub(super) hits: HitCounters,
    pub(super) key: Key,
}

impl PolicyTree {
    /// The trees.
    pub fn compiled(&self) -> &CompiledPolicy {
        &self.compiled
    }

    /// By worker and slot, as [`CompiledPolicy::deciders`] has them.
    pub fn hits(&self) -> &HitCounters {
        &self.hits
    }
}

/// A tree that a table does not hold any more, which the one before held.
#[derive(Debug)]
pub struct RetiredTree {
    /// The tree. While anything else refers to it, workers may judge by it, and count.
    pub tree: Arc<PolicyTree>,
    /// The slots whose counts nobody goes on from; `None`: all.
    pub ended: Option<Box<[u32]>>,
}

#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) ingress: Arc<PolicyTree>,
    pub(super) egress: Arc<PolicyTree>,
}

type Trees = HashMap<Key, Arc<PolicyTree>, ahash::RandomState>;

/// Every endpoint's policy. Immutable; the next table is built from the one before.
#[derive(Debug)]
pub struct PolicyTable {
    pub(super) sets: Arc<SetTable>,
    pub(super) endpoints: Arc<[Option<Bound>]>,
    pub(super) trees: Arc<Trees>,
    pub(super) workers: usize,
    pub(super) ceiling: Ceiling,
}

impl PolicyTable {
    /// No endpoint, hence nothing allowed. `workers` is how many will count hits.
    pub fn empty(workers: usize) -> Self {
        Self::keyed(workers, 0)
    }

    /// The same, with members of sets hashed under a secret that follows from `seed`, in the tables
    /// that come after as well.
    pub fn keyed(workers: usize, seed: u64) -> Self {
        Self {
            sets: Arc::new(SetTable::keyed(seed)),
            endpoints: Arc::default(),
            trees: Arc::new(no_trees()),
            workers,
            ceiling: Ceiling::default(),
        }
    }

    /// With this ceiling, which those that follow have too.
    pub fn with_ceiling(self, ceiling: Ceiling) -> Self {
        Self { ceiling, ..self }
    }

    /// The ceiling.
    pub fn ceiling(&self) -> Ceiling {
        self.ceiling
    }

    /// What the trees take now.
    pub fn memory(&self) -> PolicyMemory {
        self.trees().fold(PolicyMemory::default(), |sum, tree| PolicyMemory {
            bytes: sum.bytes + tree.compiled.bytes(),
            compact: sum.compact + usize::from(tree.compiled.is_compact()),
            patched: sum.patched + usize::from(tree.compiled.is_patched()),
        })
    }

    /// Begins the table that follows this one: over `sets`, with no endpoint bound yet. Trees
    /// whose rules occur again are taken over with their counters, and patched where only a few rules changed.
    pub fn next(&self, sets: Arc<SetTable>) -> PolicyTableBuilder<'_> {
        PolicyTableBuilder::new(self, sets)
    }

    /// Begins the table that follows this one with every endpoint bound as it is; `None` where `sets` are
    /// others, so that rules may ask for what is not there.
    pub fn amend(&self, sets: Arc<SetTable>) -> Option<PolicyTableBuilder<'_>> {
        sets.answers_as(&self.sets).then(|| PolicyTableBuilder::amend(self, sets))
    }

    /// This table over other members of the same sets; `None` where `sets` are others: then rules may
    /// ask for what is not there.
    pub fn with_members(&self, sets: &Arc<SetTable>) -> Option<Self> {
        let next = || Self {
            sets: sets.clone(),
            endpoints: self.endpoints.clone(),
            trees: self.trees.clone(),
            workers: self.workers,
            ceiling: self.ceiling,
        };
        sets.answers_as(&self.sets).then(next)
    }

    /// The trees are those of `other`, as after [`PolicyTable::with_members`].
    pub fn shares_trees(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.trees, &other.trees)
    }

    /// Judges a packet to the endpoint. An endpoint that is not bound is denied all.
    #[inline]
    pub fn judge_ingress(&self, endpoint: EndpointIdx, q: &Query) -> Verdict {
        self.judge(endpoint, Direction::Ingress, q)
    }

    /// Judges a packet from the endpoint. An endpoint that is not bound is denied all.
    #[inline]
    pub fn judge_egress(&self, endpoint: EndpointIdx, q: &Query) -> Verdict {
        self.judge(endpoint, Direction::Egress, q)
    }

    /// Judges a packet. Takes no lock, allocates nothing, does not fail, counts nothing.
    #[inline]
    pub fn judge(&self, endpoint: EndpointIdx, direction: Direction, q: &Query) -> Verdict {
        match self.tree(endpoint, direction) {
            Some(tree) => tree.compiled.judge(&self.sets, q),
            None => Verdict { allow: false, slot: Verdict::NO_ENDPOINT },
        }
    }

    /// Judges many packets, as [`judge`](Self::judge) does each; their walks take turns in `room`.
    ///
    /// # Panics
    /// If there are not as many verdicts as queries.
    #[inline]
    pub fn judge_batch(
        &self,
        endpoint: EndpointIdx,
        direction: Direction,
        queries: &[Query],
        verdicts: &mut [Verdict],
        room: &mut Room,
    ) {
        match self.tree(endpoint, direction) {
            Some(tree) => tree.compiled.judge_batch(&self.sets, queries, verdicts, room),
            None => verdicts.fill(Verdict { allow: false, slot: Verdict::NO_ENDPOINT }),
        }
    }

    /// As [`judge`](Self::judge); `None` where nothing in the endpoint's list decides and the list
    /// lets such packets go on.
    #[inline]
    pub fn opinion(&self, endpoint: EndpointIdx, direction: Direction, q: &Query) -> Option<Verdict> {
        let verdict = self.judge(endpoint, direction, q);
        let silent = |tree: &PolicyTree| verdict.allow && !tree.compiled.decided(verdict);
        (!self.tree(endpoint, direction).is_some_and(silent)).then_some(verdict)
    }

    /// Counts a verdict this table gave for the endpoint. Only `worker` itself may say so.
    #[inline]
    pub fn count(&self, worker: WorkerId, endpoint: EndpointIdx, direction: Direction, verdict: Verdict) {
        if let Some(tree) = self.tree(endpoint, direction) {
            tree.hits.hit(worker, verdict.slot);
        }
    }

    /// The verdict with its reasons; `None` where the endpoint is not bound.
    pub fn explain(&self, endpoint: EndpointIdx, direction: Direction, q: &Query) -> Option<Explanation> {
        Some(self.tree(endpoint, direction)?.compiled.explain(&self.sets, q))
    }

    /// The endpoint's tree.
    #[inline]
    pub fn tree(&self, endpoint: EndpointIdx, direction: Direction) -> Option<&PolicyTree> {
        self.tree_of(endpoint, direction).map(|tree| &**tree)
    }

    #[inline]
    pub(super) fn tree_of(&self, endpoint: EndpointIdx, direction: Direction) -> Option<&Arc<PolicyTree>> {
        let bound = self.endpoints.get(endpoint.0 as usize)?.as_ref()?;
        Some(match direction {
            Direction::Ingress => &bound.ingress,
            Direction::Egress => &bound.egress,
        })
    }

    /// How many directions of endpoints this very tree judges.
    pub fn sharers(&self, tree: &PolicyTree) -> usize {
        let trees = self.endpoints.iter().flatten().flat_map(|bound| [&bound.ingress, &bound.egress]);
        trees.filter(|other| std::ptr::eq(&***other, tree)).count()
    }

    /// Every tree once, in no particular order.
    pub fn trees(&self) -> impl ExactSizeIterator<Item = &Arc<PolicyTree>> {
        self.trees.values()
    }

    /// How many count hits.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The sets.
    pub fn sets(&self) -> &Arc<SetTable> {
        &self.sets
    }
}

/// Fixed seeds: a table must not depend on chance.
fn no_trees() -> Trees {
    HashMap::with_hasher(ahash::RandomState::with_seeds(5, 6, 7, 8))
}
