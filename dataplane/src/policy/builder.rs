//! A table in the making: which trees are taken over, which are patched, which are grown.
//!
//! The rules of an endpoint are compared with those it had by where they are in memory, which whoever
//! builds the lists keeps while they do not change: so what did not change costs a look at each
//! policy, and none at its rules. Only rules that were not seen before are read.

use super::compiled::{CompiledPolicy, Run, compile_slices, fits};
use super::patch::patch;
use super::slice::{Print, Slice};
use super::table::{Bound, MAX_ENDPOINTS, PolicyTree, RetiredTree};
use super::{
    Direction, EndpointIdx, HitCounters, PolicyId, PolicyTable, Rule, RuleList, Rules, SetKind, SetTable,
    TableError, consolidation, succession,
};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::Arc;

/// Lists with fewer rules are compiled whole: that is fast enough.
const SHORT: usize = 600;

/// A rule list, to be found by what it says.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Of all rules; equal where they are.
    print: u64,
    list: Arc<RuleList>,
}

impl Key {
    fn new(list: &Arc<RuleList>, slices: &[Vec<Arc<Slice>>]) -> Self {
        // Fixed seeds: a table must not depend on chance.
        let mut hasher = ahash::RandomState::with_seeds(5, 6, 7, 8).build_hasher();
        for stage in slices {
            let whole = stage.iter().fold(Print::default(), |before, slice| before.then(slice.whole));
            hasher.write_u64(whole.value());
        }
        Self { print: hasher.finish(), list: list.clone() }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print && alike(&self.list, &other.list, |a, b| a == b)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.print);
    }
}

/// The same tiers, policies and profiles in the same order, and `same` rules in each.
fn alike(a: &RuleList, b: &RuleList, same: impl Fn(&Rules, &Rules) -> bool) -> bool {
    let text = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
    let id = |a: &PolicyId, b: &PolicyId| {
        text(&a.name, &b.name) && text(&a.namespace, &b.namespace) && text(&a.kind, &b.kind)
    };
    let lengths = a.tiers.len() == b.tiers.len() && a.profiles.len() == b.profiles.len();
    (lengths && a.otherwise == b.otherwise)
        && a.tiers.iter().zip(&b.tiers).all(|(a, b)| {
            let policies = || a.policies.iter().zip(&b.policies);
            text(&a.name, &b.name)
                && a.default == b.default
                && a.policies.len() == b.policies.len()
                && policies().all(|(a, b)| same(&a.rules, &b.rules))
                && policies().all(|(a, b)| id(&a.id, &b.id))
        })
        && a.profiles.iter().zip(&b.profiles).all(|(a, b)| same(&a.rules, &b.rules) && text(&a.name, &b.name))
}

/// A table in the making. Dropping it changes nothing.
#[derive(Debug)]
pub struct PolicyTableBuilder<'a> {
    previous: &'a PolicyTable,
    sets: Arc<SetTable>,
    /// By endpoint: which trees judge packets to it and from it.
    endpoints: Vec<Option<[usize; 2]>>,
    trees: Vec<Tree>,
    by_key: HashMap<Key, usize, ahash::RandomState>,
    /// Trees taken over.
    by_place: HashMap<*const PolicyTree, usize, ahash::RandomState>,
    /// Rules that were not seen before, by where they are.
    fresh: HashMap<*const Rule, Arc<Slice>>,
}

/// A tree of the table in the making.
#[derive(Debug)]
enum Tree {
    /// Taken over.
    Kept(Arc<PolicyTree>),
    New {
        key: Key,
        compiled: Arc<CompiledPolicy>,
        /// The tree that the endpoint had, and whether this one has its slots.
        before: Option<(Arc<PolicyTree>, bool)>,
    },
}

impl Tree {
    fn compiled(&self) -> &Arc<CompiledPolicy> {
        match self {
            Self::Kept(tree) => &tree.compiled,
            Self::New { compiled, .. } => compiled,
        }
    }
}

impl<'a> PolicyTableBuilder<'a> {
    pub(super) fn new(previous: &'a PolicyTable, sets: Arc<SetTable>) -> Self {
        Self {
            previous,
            sets,
            endpoints: vec![],
            trees: vec![],
            by_key: HashMap::with_hasher(previous.trees.hasher().clone()),
            by_place: HashMap::with_hasher(previous.trees.hasher().clone()),
            fresh: HashMap::new(),
        }
    }

    /// The same endpoints and trees, over `sets`, which answer as those of `previous` do.
    pub(super) fn amend(previous: &'a PolicyTable, sets: Arc<SetTable>) -> Self {
        Self { sets, ..Self::renew(previous, &HashMap::new()) }
    }

    /// The same endpoints and sets, and the same trees but those that are `renewed`.
    pub(super) fn renew(
        previous: &'a PolicyTable,
        renewed: &HashMap<*const PolicyTree, Arc<CompiledPolicy>>,
    ) -> Self {
        let mut next = Self::new(previous, previous.sets.clone());
        let mut places =
            HashMap::with_capacity_and_hasher(previous.trees.len(), next.by_place.hasher().clone());
        for (key, tree) in &*previous.trees {
            let (key, place) = (key.clone(), Arc::as_ptr(tree));
            places.insert(place, next.trees.len());
            next.trees.push(match renewed.get(&place).cloned() {
                Some(compiled) => Tree::New { key, compiled, before: Some((tree.clone(), false)) },
                None => {
                    next.by_place.insert(place, next.trees.len());
                    Tree::Kept(tree.clone())
                }
            });
        }
        let at = |tree: &Arc<PolicyTree>| places[&Arc::as_ptr(tree)];
        let both = |bound: &Bound| [at(&bound.ingress), at(&bound.egress)];
        next.endpoints = previous.endpoints.iter().map(|bound| bound.as_ref().map(both)).collect();
        next
    }

    /// Binds an endpoint to the rules of both directions.
    pub fn bind(
        &mut self,
        endpoint: EndpointIdx,
        ingress: impl Into<Arc<RuleList>>,
        egress: impl Into<Arc<RuleList>>,
    ) -> Result<(), TableError> {
        if endpoint.0 >= MAX_ENDPOINTS {
            return Err(TableError::Index { index: endpoint.0, limit: MAX_ENDPOINTS });
        }
        let before = |direction| self.previous.tree_of(endpoint, direction);
        let (to, from) = (before(Direction::Ingress), before(Direction::Egress));
        let both = [self.tree(&ingress.into(), to)?, self.tree(&egress.into(), from)?];
        self.put(endpoint, both);
        Ok(())
    }

    /// Lets go of an endpoint.
    pub fn unbind(&mut self, endpoint: EndpointIdx) {
        if let Some(bound) = self.endpoints.get_mut(endpoint.0 as usize) {
            *bound = None;
        }
    }

    /// The table.
    pub fn finish(self) -> PolicyTable {
        self.succeed().0
    }

    /// The table, and the trees of the one before that it does not hold.
    pub fn succeed(mut self) -> (PolicyTable, Vec<RetiredTree>) {
        self.prune();
        self.squeeze();
        let kept: HashSet<*const PolicyTree> = self.by_place.keys().copied().collect();
        let mut inherited: HashMap<*const PolicyTree, Option<Box<[u32]>>> = HashMap::new();
        let mut trees =
            HashMap::with_capacity_and_hasher(self.trees.len(), self.previous.trees.hasher().clone());
        let mut built: Vec<Arc<PolicyTree>> = Vec::with_capacity(self.trees.len());
        for tree in self.trees {
            let (key, tree) = match tree {
                Tree::Kept(tree) => (tree.key.clone(), tree),
                Tree::New { key, compiled, before } => {
                    // Counts have one heir, and none while they go on themselves.
                    let before = before.filter(|(tree, _)| {
                        let place = Arc::as_ptr(tree);
                        !kept.contains(&place) && !inherited.contains_key(&place)
                    });
                    let hits = match before {
                        Some((before, true)) => {
                            let ended = succession::ended(&before.compiled, &compiled);
                            inherited.insert(Arc::as_ptr(&before), Some(ended));
                            before.hits.clone()
                        }
                        Some((before, false)) => {
                            let to = succession::slots(&before.compiled, &compiled);
                            let live = before.compiled.live_slots();
                            let ended =
                                live.filter(|slot| to[*slot as usize] == HitCounters::NO_HEIR).collect();
                            inherited.insert(Arc::as_ptr(&before), Some(ended));
                            before.hits.heir(compiled.slots() as usize, to)
                        }
                        None => HitCounters::new(self.previous.workers, compiled.slots() as usize),
                    };
                    (key.clone(), Arc::new(PolicyTree { compiled, hits, key }))
                }
            };
            trees.insert(key, tree.clone());
            built.push(tree);
        }
        let bound = |[ingress, egress]: [usize; 2]| Bound {
            ingress: built[ingress].clone(),
            egress: built[egress].clone(),
        };
        let endpoints = self.endpoints.into_iter().map(|both| both.map(bound)).collect();
        let gone = self.previous.trees.values().filter(|tree| !kept.contains(&Arc::as_ptr(tree)));
        let retire = |tree: &Arc<PolicyTree>| RetiredTree {
            tree: tree.clone(),
            ended: inherited.remove(&Arc::as_ptr(tree)).flatten(),
        };
        let retired = gone.map(retire).collect();
        let (trees, workers) = (Arc::new(trees), self.previous.workers);
        let ceiling = self.previous.ceiling;
        let table = PolicyTable { sets: self.sets, endpoints, trees, workers, ceiling };
        (table, retired)
    }

    /// Lets go of trees that no endpoint is bound to any more.
    fn prune(&mut self) {
        let mut used = vec![false; self.trees.len()];
        self.endpoints.iter().flatten().flatten().for_each(|at| used[*at] = true);
        if used.iter().all(|used| *used) {
            return;
        }
        let mut left = 0..;
        let moved: Vec<Option<usize>> =
            used.iter().map(|used| if *used { left.next() } else { None }).collect();
        let mut at = moved.iter();
        self.trees.retain(|_| at.next().is_some_and(Option::is_some));
        self.endpoints.iter_mut().flatten().flatten().for_each(|at| *at = moved[*at].unwrap_or(*at));
        let kept = |tree: &Tree| if let Tree::Kept(tree) = tree { Some(Arc::as_ptr(tree)) } else { None };
        self.by_place.clear();
        self.by_place.extend(self.trees.iter().enumerate().filter_map(|(at, tree)| Some((kept(tree)?, at))));
    }

    /// Makes trees smaller, the largest first, until all are below the ceiling or as small as can be.
    fn squeeze(&mut self) {
        let bytes = |tree: &Tree| tree.compiled().bytes();
        let mut total: usize = self.trees.iter().map(bytes).sum();
        while total > self.previous.ceiling.table {
            let full = self.trees.iter().enumerate().filter(|(_, tree)| !tree.compiled().is_compact());
            let Some((at, _)) = full.max_by_key(|(_, tree)| bytes(tree)) else { return };
            let old = self.trees[at].compiled().clone();
            // What the others leave it; what is refused stays as it is.
            let ceiling = self.previous.ceiling.table.saturating_sub(total - old.bytes());
            let Ok(smaller) = compile_slices(old.list(), &consolidation::slices(&old), ceiling) else {
                return;
            };
            if !smaller.is_compact() && !old.is_patched() {
                return;
            }
            total = total - old.bytes() + smaller.bytes();
            let (key, before) = match &self.trees[at] {
                Tree::New { key, before, .. } => {
                    (key.clone(), before.as_ref().map(|(tree, _)| (tree.clone(), false)))
                }
                Tree::Kept(tree) => {
                    self.by_place.remove(&Arc::as_ptr(tree));
                    (tree.key.clone(), Some((tree.clone(), false)))
                }
            };
            self.trees[at] = Tree::New { key, compiled: Arc::new(smaller), before };
        }
    }

    fn put(&mut self, endpoint: EndpointIdx, both: [usize; 2]) {
        let index = endpoint.0 as usize;
        if self.endpoints.len() <= index {
            self.endpoints.resize(index + 1, None);
        }
        self.endpoints[index] = Some(both);
    }

    /// The tree of `list`, for an endpoint that had `before`.
    fn tree(&mut self, list: &Arc<RuleList>, before: Option<&Arc<PolicyTree>>) -> Result<usize, TableError> {
        if let Some(before) = before
            && alike(before.compiled.list(), list, Rules::is)
        {
            return self.keep(before);
        }
        let slices = self.slices(list, before.map(|before| &*before.compiled));
        let key = Key::new(list, &slices);
        if let Some(at) = self.by_key.get(&key) {
            return Ok(*at);
        }
        if let Some(tree) = self.previous.trees.get(&key) {
            return self.keep(tree);
        }
        // What another tree has was looked up when that was made.
        let proven = self.sets.answers_as(&self.previous.sets);
        let fresh = |slice: &&Arc<Slice>| self.fresh.contains_key(&slice.rules.as_ptr());
        sets_exist(&self.sets, slices.iter().flatten().filter(|slice| !proven || fresh(slice)))?;
        fits(&slices)?;
        // A patch that cannot be proven is of no use; the whole list is.
        let long = before.filter(|before| before.compiled.rules() >= SHORT);
        let patched = long.and_then(|before| patch(&before.compiled, list, &slices).ok().flatten());
        let shares = patched.is_some();
        let compiled = match patched {
            Some(patched) => patched,
            None => compile_slices(list, &slices, self.previous.ceiling.list)?,
        };
        let before = before.map(|before| (before.clone(), shares));
        Ok(self.push(key.clone(), Tree::New { key, compiled: Arc::new(compiled), before }))
    }

    /// Takes a tree over.
    fn keep(&mut self, tree: &Arc<PolicyTree>) -> Result<usize, TableError> {
        if let Some(at) = self.by_place.get(&Arc::as_ptr(tree)) {
            return Ok(*at);
        }
        // Its sets may be gone.
        if !self.sets.answers_as(&self.previous.sets) {
            sets_exist(&self.sets, tree.compiled.stages.iter().flat_map(|s| &*s.runs).map(|run| &run.slice))?;
        }
        let at = self.push(tree.key.clone(), Tree::Kept(tree.clone()));
        self.by_place.insert(Arc::as_ptr(tree), at);
        Ok(at)
    }

    fn push(&mut self, key: Key, tree: Tree) -> usize {
        self.trees.push(tree);
        self.by_key.insert(key, self.trees.len() - 1);
        self.trees.len() - 1
    }

    /// What is known of the list's rules. Most are those that `before` has.
    fn slices(&mut self, list: &RuleList, before: Option<&CompiledPolicy>) -> Vec<Vec<Arc<Slice>>> {
        let stage = |index: usize| {
            let rules: Vec<&Arc<[Rule]>> = list.parts(index).map(|part| part.rules).collect();
            let runs: &[Run] = before.and_then(|b| b.stages.get(index)).map_or(&[], |stage| &stage.runs);
            let same = |(run, rules): &(&Run, &&Arc<[Rule]>)| run.slice.is(rules);
            let prefix = runs.iter().zip(&rules).take_while(same).count();
            let (runs_left, rules_left) = (&runs[prefix..], &rules[prefix..]);
            let suffix = runs_left.iter().rev().zip(rules_left.iter().rev()).take_while(same).count();
            let between = &runs_left[..runs_left.len() - suffix];
            let place = |rules: &Arc<[Rule]>| Arc::as_ptr(rules).cast::<Rule>();
            let known: HashMap<*const Rule, &Arc<Slice>> =
                between.iter().map(|run| (place(&run.slice.rules), &run.slice)).collect();
            let mut slices: Vec<Arc<Slice>> = runs[..prefix].iter().map(|run| run.slice.clone()).collect();
            for rules in &rules_left[..rules_left.len() - suffix] {
                let known = known.get(&place(rules)).copied().filter(|slice| slice.is(rules));
                slices.push(match known {
                    Some(slice) => slice.clone(),
                    None => {
                        let new = || Arc::new(Slice::new((*rules).clone()));
                        self.fresh.entry(place(rules)).or_insert_with(new).clone()
                    }
                });
            }
            slices.extend(runs_left[between.len()..].iter().map(|run| run.slice.clone()));
            slices
        };
        (0..list.stages()).map(stage).collect()
    }
}

/// Every set that is named exists, and answers what it is asked.
fn sets_exist<'a>(
    sets: &SetTable,
    slices: impl IntoIterator<Item = &'a Arc<Slice>>,
) -> Result<(), TableError> {
    for (set, expected) in slices.into_iter().flat_map(|slice| &*slice.needs) {
        let (set, expected): (_, SetKind) = (*set, *expected);
        let found = sets.get(set).ok_or(TableError::MissingSet { set })?;
        if found.kind() != expected {
            let name = found.name.to_string();
            return Err(TableError::WrongKind { name, expected, found: found.kind() });
        }
    }
    Ok(())
}
