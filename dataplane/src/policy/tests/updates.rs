//! The table from one change to the next: what is patched, what is kept, and what becomes of counts.

use crate::net::{FlowKey, Icmp, PortRange, Proto, WorkerId};
use crate::policy::*;
use std::sync::Arc;

const WEB: EndpointIdx = EndpointIdx(0);
const DB: EndpointIdx = EndpointIdx(1);
const ME: WorkerId = WorkerId(0);

fn deny(port: u16) -> Rule {
    Rule { protocol: Some(Proto::TCP), dst_ports: vec![PortRange::one(port)], ..Rule::any(Action::Deny) }
}

fn policy(name: u16, rules: impl IntoIterator<Item = Rule>) -> ListedPolicy {
    let id =
        PolicyId { kind: "NetworkPolicy".into(), namespace: "default".into(), name: name.to_string().into() };
    ListedPolicy { id, rules: rules.into_iter().collect() }
}

/// Policies of ten rules each.
fn policies(count: u16) -> RuleList {
    let policies = (0..count).map(|n| policy(n, (10 * n..10 * n + 10).map(deny))).collect();
    RuleList {
        tiers: vec![TierList { name: "t".into(), default: TierDefault::Deny, policies }],
        ..RuleList::default()
    }
}

/// Rule 3 of policy 5 is another one.
fn changed(list: &RuleList) -> RuleList {
    let mut list = list.clone();
    let rules = &mut list.tiers[0].policies[5].rules;
    let mut edited: Vec<Rule> = rules.iter().cloned().collect();
    edited[3] = deny(60_000);
    *rules = edited.into();
    list
}

fn to(port: u16) -> Query {
    let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    Query { key: FlowKey { src, dst, sport: 1, dport: port, proto: Proto::TCP }, icmp: Icmp::default() }
}

fn bound(previous: &PolicyTable, lists: &[(EndpointIdx, &RuleList)]) -> (PolicyTable, Vec<RetiredTree>) {
    let mut next = previous.next(Arc::default());
    for (endpoint, list) in lists {
        next.bind(*endpoint, (*list).clone(), RuleList::default()).unwrap();
    }
    next.succeed()
}

fn ingress(table: &PolicyTable, endpoint: EndpointIdx) -> &PolicyTree {
    table.tree(endpoint, Direction::Ingress).unwrap()
}

/// Counts a packet to `port`.
fn count(table: &PolicyTable, port: u16) {
    table.count(ME, WEB, Direction::Ingress, table.judge_ingress(WEB, &to(port)));
}

/// Packets counted to the rule that decides those to `port`.
fn counted(table: &PolicyTable, endpoint: EndpointIdx, port: u16) -> u64 {
    ingress(table, endpoint).hits().total(table.judge_ingress(endpoint, &to(port)).slot)
}

#[test]
fn a_long_list_is_patched_and_what_survives_keeps_its_counts() {
    let list = policies(100);
    let (first, _) = bound(&PolicyTable::empty(1), &[(WEB, &list)]);
    [53, 54, 54, 999].into_iter().for_each(|port| count(&first, port));
    let (second, retired) = bound(&first, &[(WEB, &changed(&list))]);
    assert!(ingress(&second, WEB).compiled().is_patched());
    assert_eq!([54, 999, 60_000].map(|port| counted(&second, WEB, port)), [2, 1, 0]);
    assert_eq!(ingress(&second, WEB).compiled().explain(second.sets(), &to(60_000)).decider.rule, 3);
    // A worker that still judges by the first table counts for the same rules.
    count(&first, 999);
    assert_eq!(counted(&second, WEB, 999), 2);

    let [gone] = &retired[..] else { panic!("{retired:?}") };
    let ended = gone.ended.as_deref().unwrap();
    let deciders: Vec<_> = ended.iter().map(|slot| gone.tree.compiled().decider(*slot).unwrap()).collect();
    assert_eq!(deciders.iter().map(|d| (d.policy(), d.rule)).collect::<Vec<_>>(), [("default/5".into(), 3)]);
    assert_eq!(gone.tree.hits().take(ended[0]), 1);

    // The rule comes back: it counts from zero.
    let (third, retired) = bound(&second, &[(WEB, &list)]);
    assert_eq!([53, 54].map(|port| counted(&third, WEB, port)), [0, 2]);
    assert_eq!(retired[0].ended.as_deref().map(<[u32]>::len), Some(1));
}

#[test]
fn a_short_list_is_compiled_whole_and_what_survives_keeps_its_counts() {
    let list = policies(6);
    let (first, _) = bound(&PolicyTable::empty(1), &[(WEB, &list)]);
    [53, 54, 59, 9000].into_iter().for_each(|port| count(&first, port));
    let (second, retired) = bound(&first, &[(WEB, &changed(&list))]);
    assert!(!ingress(&second, WEB).compiled().is_patched());
    assert_eq!([54, 59, 9000, 60_000].map(|port| counted(&second, WEB, port)), [1, 1, 1, 0]);
    assert_eq!(retired[0].ended.as_deref().map(<[u32]>::len), Some(1));
}

#[test]
fn counts_have_one_heir_and_none_while_they_go_on() {
    let list = policies(100);
    let (first, _) = bound(&PolicyTable::empty(1), &[(WEB, &list), (DB, &list)]);
    count(&first, 54);
    let (second, retired) = bound(&first, &[(WEB, &changed(&list)), (DB, &list)]);
    assert!(retired.is_empty());
    assert_eq!((counted(&second, WEB, 54), counted(&second, DB, 54)), (0, 1));
    // Both change alike: one tree, and it goes on.
    let (second, _) = bound(&first, &[(WEB, &changed(&list)), (DB, &changed(&list))]);
    assert_eq!((second.trees().len(), counted(&second, DB, 54)), (2, 1));
    // Each in a way of its own: one goes on.
    let (second, retired) = bound(&first, &[(WEB, &changed(&list)), (DB, &changed(&changed(&list)))]);
    assert_eq!(second.trees().len(), 2, "the same change twice is once");
    assert_eq!(retired.len(), 1);
    let other = policies(99);
    let (second, retired) = bound(&first, &[(WEB, &changed(&list)), (DB, &other)]);
    assert_eq!((counted(&second, WEB, 54), counted(&second, DB, 54)), (1, 0));
    assert_eq!(retired.len(), 1);
}

#[test]
fn equal_rules_elsewhere_in_memory_are_the_same_tree() {
    let (first, _) = bound(&PolicyTable::empty(1), &[(WEB, &policies(100))]);
    let (second, retired) = bound(&first, &[(WEB, &policies(100))]);
    assert!(std::ptr::eq(ingress(&first, WEB), ingress(&second, WEB)) && retired.is_empty());
}

#[test]
fn a_tree_that_nobody_goes_on_from_ends_whole() {
    let (first, _) = bound(&PolicyTable::empty(1), &[(WEB, &policies(100))]);
    let (_, retired) = bound(&first, &[]);
    assert_eq!((retired.len(), retired.iter().filter(|tree| tree.ended.is_some()).count()), (2, 0));
}

#[test]
fn a_patched_list_is_compiled_whole_beside_and_takes_over() {
    let list = policies(100);
    let (first, _) = bound(&PolicyTable::empty(1), &[(WEB, &list), (DB, &policies(99))]);
    assert!(first.consolidation(0).is_none(), "nothing is patched");
    let once = changed(&list);
    let (second, _) = bound(&first, &[(WEB, &once), (DB, &policies(99))]);
    [54, 999, 60_000].into_iter().for_each(|port| count(&second, port));
    assert!(second.consolidation(3).is_none());
    let done = second.consolidation(2).unwrap().run().unwrap();

    // In peace, and after one more change: it is then a patch of what was compiled.
    let (whole, retired) = second.consolidated(&done).unwrap();
    assert!(!ingress(&whole, WEB).compiled().is_patched());
    assert!(std::ptr::eq(ingress(&whole, DB), ingress(&second, DB)));
    assert_eq!([54, 999, 60_000].map(|port| counted(&whole, WEB, port)), [1, 1, 1]);
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0].ended.as_deref(), Some(&[][..]), "every rule is still there");
    assert!(whole.consolidation(0).is_none() && whole.consolidated(&done).is_none());

    let mut twice = once.clone();
    twice.tiers[0].policies.remove(5);
    let (third, _) = bound(&second, &[(WEB, &twice), (DB, &policies(99))]);
    let (renewed, _) = third.consolidated(&done).unwrap();
    assert_eq!(ingress(&renewed, WEB).compiled().changes(), 10);
    assert_eq!([44, 64, 999].map(|port| counted(&renewed, WEB, port)), [0, 0, 1]);
    for port in [44, 54, 64, 60_000] {
        let right = reference::judge(&twice, renewed.sets(), &to(port));
        assert_eq!(renewed.explain(WEB, Direction::Ingress, &to(port)).unwrap().walk, right.walk);
    }
}
