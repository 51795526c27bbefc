//! What staged policies would have decided: judged beside the policy in force, counted, never
//! acted on.

use super::{
    Direction, EndpointIdx, Explanation, HitCounters, PolicyTable, PolicyTree, Query, RuleList, SetTable,
    TableError, Verdict,
};
use crate::net::{Nanos, WorkerId};
use std::collections::HashMap;
use std::sync::Arc;

/// Slots of [`Watch::totals`].
const WOULD_DENY: u32 = 0;
const WOULD_ALLOW: u32 = 1;
const JUDGED: u32 = 2;
const TOTALS: usize = 3;

/// The lists of an endpoint as they would be with its staged policies in force: to it, from it.
/// `None`: they would be what they are.
pub struct StagedLists {
    /// The endpoint, as the table in force numbers it.
    pub endpoint: EndpointIdx,
    /// To the endpoint.
    pub ingress: Option<RuleList>,
    /// From the endpoint.
    pub egress: Option<RuleList>,
}

/// Every endpoint whose policy would be another with the staged policies in force. Immutable; the
/// next one is built from the one before, and goes on counting where nothing changed.
#[derive(Debug)]
pub struct Shadow {
    staged: Arc<PolicyTable>,
    /// Kept so that an address of one of its trees is not another's as long as this is compared with.
    enforced: Arc<PolicyTable>,
    /// By endpoint: ingress, egress.
    watches: Arc<[[Option<Watch>; 2]]>,
}

/// One direction of an endpoint that is judged twice.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Of the tree that would judge, and of the one that does.
    trees: Trees,
    since: Nanos,
    totals: Arc<HitCounters>,
    /// By slot of the tree that would judge: what it would have decided otherwise. Shared by all
    /// endpoints with the same two trees.
    changed: Arc<HitCounters>,
}

/// Addresses, compared and never followed.
type Trees = [usize; 2];

impl Shadow {
    /// The shadow of `enforced`; `None` where no list would be another. `now` is from when on what
    /// is new counts.
    pub fn new(
        enforced: Arc<PolicyTable>,
        previous: Option<&Self>,
        lists: Vec<StagedLists>,
        now: Nanos,
    ) -> Result<Option<Self>, (EndpointIdx, TableError)> {
        if lists.is_empty() {
            return Ok(None);
        }
        let sets: Arc<SetTable> = enforced.sets().clone();
        let empty = PolicyTable::empty(enforced.workers());
        let mut builder = previous.map_or(&empty, |previous| &*previous.staged).next(sets);
        let mut bound = vec![];
        for StagedLists { endpoint, ingress, egress } in lists {
            let differs = [ingress.is_some(), egress.is_some()];
            // What is not watched is not judged either: any list does.
            builder
                .bind(endpoint, ingress.unwrap_or_default(), egress.unwrap_or_default())
                .map_err(|error| (endpoint, error))?;
            bound.push((endpoint, differs));
        }
        let staged = Arc::new(builder.finish());
        let watches = watch_all(&staged, &enforced, previous, &bound, now);
        Ok(Some(Self { staged, enforced, watches }))
    }

    /// The same over a table in force that has the same trees over other members; `None` where
    /// it has not.
    pub fn with_members(&self, enforced: Arc<PolicyTable>) -> Option<Self> {
        if !enforced.shares_trees(&self.enforced) {
            return None;
        }
        let staged = Arc::new(self.staged.with_members(enforced.sets())?);
        Some(Self { staged, enforced, watches: self.watches.clone() })
    }

    /// The same beside a table that says the same in other trees.
    pub fn beside(&self, enforced: Arc<PolicyTable>) -> Self {
        let mut watches = self.watches.to_vec();
        for (index, of) in watches.iter_mut().enumerate() {
            for (direction, watch) in [Direction::Ingress, Direction::Egress].into_iter().zip(of) {
                let tree = enforced.tree(EndpointIdx(index as u32), direction);
                if let (Some(watch), Some(tree)) = (watch, tree) {
                    watch.trees[1] = std::ptr::from_ref(tree).addr();
                }
            }
        }
        Self { staged: self.staged.clone(), enforced, watches: watches.into() }
    }

    /// Judges a packet that the policy in force has judged, and counts. `Some`: it would have been
    /// decided otherwise. Only `worker` itself may say so.
    #[inline]
    pub fn judge(
        &self,
        worker: WorkerId,
        (endpoint, direction): (EndpointIdx, Direction),
        q: &Query,
        enforced: Verdict,
    ) -> Option<Verdict> {
        let watch = self.watch(endpoint, direction)?;
        let verdict = self.staged.judge(endpoint, direction, q);
        self.staged.count(worker, endpoint, direction, verdict);
        watch.totals.hit(worker, JUDGED);
        if verdict.allow == enforced.allow {
            return None;
        }
        watch.totals.hit(worker, if verdict.allow { WOULD_ALLOW } else { WOULD_DENY });
        watch.changed.hit(worker, verdict.slot);
        Some(verdict)
    }

    /// What would be decided, with the reasons; `None` where the policy in force is all there is.
    pub fn explain(&self, endpoint: EndpointIdx, direction: Direction, q: &Query) -> Option<Explanation> {
        self.watch(endpoint, direction)?;
        self.staged.explain(endpoint, direction, q)
    }

    /// The tree that would judge, where it is another one than that which does.
    pub fn tree(&self, endpoint: EndpointIdx, direction: Direction) -> Option<&PolicyTree> {
        self.watch(endpoint, direction)?;
        self.staged.tree(endpoint, direction)
    }

    /// What would be decided, where staged policies make a difference to the endpoint. Counts nothing.
    pub fn would(&self, endpoint: EndpointIdx, direction: Direction, q: &Query) -> Option<Verdict> {
        self.watch(endpoint, direction)?;
        Some(self.staged.judge(endpoint, direction, q))
    }

    /// What was counted of one direction of an endpoint.
    #[inline]
    pub fn watch(&self, endpoint: EndpointIdx, direction: Direction) -> Option<&Watch> {
        self.watches.get(endpoint.0 as usize)?[direction as usize].as_ref()
    }
}

/// What is watched from now on: as before where both trees are those of before.
fn watch_all(
    staged: &PolicyTable,
    enforced: &PolicyTable,
    previous: Option<&Shadow>,
    bound: &[(EndpointIdx, [bool; 2])],
    now: Nanos,
) -> Arc<[[Option<Watch>; 2]]> {
    let workers = enforced.workers();
    let before = previous.iter().flat_map(|previous| previous.watches.iter().flatten().flatten());
    let mut changed: HashMap<Trees, Arc<HitCounters>> =
        before.map(|watch| (watch.trees, watch.changed.clone())).collect();
    let last = bound.iter().map(|(endpoint, _)| endpoint.0 as usize).max();
    let mut watches = vec![[None, None]; last.map_or(0, |last| last + 1)];
    for (endpoint, differs) in bound {
        for direction in [Direction::Ingress, Direction::Egress] {
            let tree = staged.tree(*endpoint, direction);
            let (Some(tree), true) = (tree, differs[direction as usize]) else { continue };
            let address = |tree: &PolicyTree| std::ptr::from_ref(tree).addr();
            let trees = [address(tree), enforced.tree(*endpoint, direction).map_or(0, address)];
            let same = previous
                .and_then(|previous| previous.watch(*endpoint, direction))
                .filter(|watch| watch.trees == trees);
            let slots = tree.compiled().slots() as usize;
            let changed = changed.entry(trees).or_insert_with(|| Arc::new(HitCounters::new(workers, slots)));
            watches[endpoint.0 as usize][direction as usize] = Some(same.cloned().unwrap_or_else(|| Watch {
                trees,
                since: now,
                totals: Arc::new(HitCounters::new(workers, TOTALS)),
                changed: changed.clone(),
            }));
        }
    }
    watches.into()
}

impl Watch {
    /// Since when it is counted: both lists are what they were then.
    pub fn since(&self) -> Nanos {
        self.since
    }

    /// Packets judged, those that would be denied and are allowed, and the other way round.
    pub fn totals(&self) -> Totals {
        let totals = self.totals.totals();
        let of = |slot: u32| totals[slot as usize];
        Totals { judged: of(JUDGED), would_deny: of(WOULD_DENY), would_allow: of(WOULD_ALLOW) }
    }

    /// By slot of the tree that would judge, over all endpoints with the same two lists: packets
    /// that it would have decided otherwise.
    pub fn changed(&self) -> &Arc<HitCounters> {
        &self.changed
    }
}

/// Packets of one direction of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// That were judged: those that begin a flow, and those that are denied.
    pub judged: u64,
    /// Allowed, that would be denied.
    pub would_deny: u64,
    /// Denied, that would be allowed.
    pub would_allow: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Addr, FlowKey, Icmp, Proto};
    use crate::policy::{Action, ListedProfile, Rule};

    const ONE: EndpointIdx = EndpointIdx(1);

    fn list(action: Action) -> RuleList {
        let rules = [Rule::any(action)].into();
        RuleList { profiles: vec![ListedProfile { name: "p".into(), rules }], ..RuleList::default() }
    }

    fn enforced(previous: &PolicyTable, ingress: RuleList) -> Arc<PolicyTable> {
        let mut builder = previous.next(Arc::default());
        builder.bind(ONE, ingress, list(Action::Allow)).unwrap();
        Arc::new(builder.finish())
    }

    fn staged(ingress: RuleList) -> Vec<StagedLists> {
        vec![StagedLists { endpoint: ONE, ingress: Some(ingress), egress: None }]
    }

    #[test]
    fn counts_go_on_while_both_lists_stay_and_begin_anew_when_either_changes() {
        let addr = Addr::v4([10, 0, 0, 1]);
        let key = FlowKey { src: addr, dst: addr, sport: 1, dport: 2, proto: Proto::TCP };
        let q = Query { key, icmp: Icmp::default() };
        let ask = |shadow: &Shadow, table: &PolicyTable| {
            let verdict = table.judge_ingress(ONE, &q);
            shadow.judge(WorkerId(0), (ONE, Direction::Ingress), &q, verdict).map(|verdict| verdict.allow)
        };
        let totals = |shadow: &Shadow| shadow.watch(ONE, Direction::Ingress).unwrap().totals();
        let empty = PolicyTable::empty(1);
        let table = enforced(&empty, list(Action::Allow));
        let new = |table: &Arc<PolicyTable>, before: Option<&Shadow>, lists, at| {
            Shadow::new(table.clone(), before, lists, Nanos(at)).unwrap()
        };
        assert!(new(&table, None, vec![], 1).is_none());
        let first = new(&table, None, staged(list(Action::Deny)), 1).unwrap();
        assert_eq!(ask(&first, &table), Some(false));
        assert!(first.watch(ONE, Direction::Egress).is_none(), "nothing would change there");
        assert!(first.watch(EndpointIdx(7), Direction::Ingress).is_none());

        let same = enforced(&table, list(Action::Allow));
        let second = new(&same, Some(&first), staged(list(Action::Deny)), 2).unwrap();
        assert_eq!(ask(&second, &same), Some(false));
        assert_eq!(totals(&second), Totals { judged: 2, would_deny: 2, would_allow: 0 });
        assert_eq!(second.watch(ONE, Direction::Ingress).unwrap().since(), Nanos(1));
        assert_eq!(second.watch(ONE, Direction::Ingress).unwrap().changed().totals()[0], 2);

        let denies = enforced(&same, list(Action::Deny));
        let third = new(&denies, Some(&second), staged(list(Action::Deny)), 3).unwrap();
        assert_eq!(ask(&third, &denies), None);
        assert_eq!(totals(&third), Totals { judged: 1, ..Totals::default() });
        let fourth = new(&denies, Some(&third), staged(list(Action::Allow)), 4).unwrap();
        assert_eq!(ask(&fourth, &denies), Some(true));
        assert_eq!(totals(&fourth), Totals { judged: 1, would_deny: 0, would_allow: 1 });
        assert_eq!(fourth.watch(ONE, Direction::Ingress).unwrap().since(), Nanos(4));
    }
}
