//! The table: what is shared, what is refused, and what is denied for want of anything else.

use crate::net::{FlowKey, Icmp, Proto, WorkerId};
use crate::policy::*;
use std::sync::Arc;

const WEB: EndpointIdx = EndpointIdx(0);
const DB: EndpointIdx = EndpointIdx(3);

fn profile(rule: Rule) -> RuleList {
    RuleList {
        profiles: vec![ListedProfile { name: "p".into(), rules: [rule].into() }],
        ..RuleList::default()
    }
}

fn from_set(set: u32) -> RuleList {
    profile(Rule { src_ip_sets: vec![SetId(set)], ..Rule::any(Action::Allow) })
}

fn sets(members: Vec<SetMembers>) -> Arc<SetTable> {
    let set = |(i, members)| Some(Arc::new(IpSet { name: format!("s:{i}").into(), members }));
    Arc::new(SetTable::new(members.into_iter().enumerate().map(set).collect()).unwrap())
}

fn ips(texts: &[&str]) -> SetMembers {
    SetMembers::Ip(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn packet() -> Query {
    let key = FlowKey {
        src: "10.0.0.1".parse().unwrap(),
        dst: "10.0.0.2".parse().unwrap(),
        sport: 1024,
        dport: 80,
        proto: Proto::TCP,
    };
    Query { key, icmp: Icmp::default() }
}

fn arc(table: &PolicyTable, endpoint: EndpointIdx, direction: Direction) -> *const PolicyTree {
    table.tree(endpoint, direction).unwrap()
}

#[test]
fn an_endpoint_that_is_not_bound_is_denied_all() {
    let empty = PolicyTable::empty(1);
    let denied = Verdict { allow: false, slot: Verdict::NO_ENDPOINT };
    assert_eq!(empty.judge_ingress(WEB, &packet()), denied);
    let mut next = empty.next(Arc::default());
    next.bind(DB, profile(Rule::any(Action::Allow)), RuleList::default()).unwrap();
    let table = next.finish();
    assert_eq!(table.judge_egress(WEB, &packet()), denied);
    assert_eq!(table.judge_ingress(EndpointIdx(4), &packet()), denied);
    assert!(table.explain(WEB, Direction::Ingress, &packet()).is_none());
    table.count(WorkerId(0), WEB, Direction::Ingress, denied);
}

#[test]
fn directions_are_judged_apart_and_no_rules_deny() {
    let empty = PolicyTable::empty(1);
    let mut next = empty.next(Arc::default());
    next.bind(WEB, profile(Rule::any(Action::Allow)), RuleList::default()).unwrap();
    let table = next.finish();
    assert!(table.judge_ingress(WEB, &packet()).allow);
    let egress = table.judge_egress(WEB, &packet());
    assert!(!egress.allow);
    let decider = table.tree(WEB, Direction::Egress).unwrap().compiled().decider(egress.slot).unwrap();
    assert_eq!(decider.place, Place::End);
}

#[test]
fn equal_rules_share_a_tree_and_its_counters() {
    let empty = PolicyTable::empty(2);
    let mut first = empty.next(sets(vec![ips(&["10.0.0.1"])]));
    first.bind(WEB, from_set(0), RuleList::default()).unwrap();
    first.bind(DB, from_set(0), from_set(0)).unwrap();
    let first = first.finish();
    assert_eq!(first.trees().len(), 2);
    assert_eq!(arc(&first, WEB, Direction::Ingress), arc(&first, DB, Direction::Egress));

    let verdict = first.judge_ingress(WEB, &packet());
    first.count(WorkerId(1), WEB, Direction::Ingress, verdict);
    assert_eq!(first.tree(DB, Direction::Ingress).unwrap().hits().totals()[verdict.slot as usize], 1);
}

#[test]
fn members_change_and_trees_stay() {
    let empty = PolicyTable::empty(1);
    let mut first = empty.next(sets(vec![ips(&["10.0.0.1"])]));
    first.bind(WEB, from_set(0), RuleList::default()).unwrap();
    let first = first.finish();
    let mut second = first.next(sets(vec![ips(&["10.0.0.9"])]));
    second.bind(WEB, from_set(0), profile(Rule::any(Action::Deny))).unwrap();
    let second = second.finish();
    assert_eq!(arc(&first, WEB, Direction::Ingress), arc(&second, WEB, Direction::Ingress));
    assert!(first.judge_ingress(WEB, &packet()).allow);
    assert!(!second.judge_ingress(WEB, &packet()).allow);
    // What nobody is bound to any more is gone.
    assert_eq!(second.trees().len(), 2);
    assert_eq!(second.next(Arc::default()).finish().trees().len(), 0);
}

#[test]
fn a_set_that_is_gone_or_of_the_wrong_kind_is_refused_even_for_a_known_tree() {
    let empty = PolicyTable::empty(1);
    let mut first = empty.next(sets(vec![ips(&[])]));
    first.bind(WEB, from_set(0), RuleList::default()).unwrap();
    let first = first.finish();

    let error = first.next(Arc::default()).bind(WEB, from_set(0), RuleList::default()).unwrap_err();
    assert_eq!(error, TableError::MissingSet { set: SetId(0) });
    let mut wrong = first.next(sets(vec![SetMembers::IpPort(Members::default())]));
    let error = wrong.bind(WEB, RuleList::default(), from_set(0)).unwrap_err();
    let TableError::WrongKind { name, expected: SetKind::Address, found: SetKind::AddressAndPort } = error
    else {
        panic!("{error}")
    };
    assert_eq!(name, "s:0");
    assert!(wrong.finish().tree(WEB, Direction::Ingress).is_none(), "nothing is bound by halves");
}

#[test]
fn an_index_beyond_reason_is_refused() {
    let empty = PolicyTable::empty(1);
    let error =
        empty.next(Arc::default()).bind(EndpointIdx(u32::MAX), RuleList::default(), RuleList::default());
    assert!(matches!(error, Err(TableError::Index { .. })));
}
