//! What workers tell of flows, and what is made of it: both tuples, verdicts, rules, what has passed.
#![allow(missing_docs)]

mod build;

use build::frames::arp;
use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change, flow_record::Event};
use margay_dataplane::control::FlowRings;
use margay_dataplane::net::Nanos;
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::arp::Operation;

const NOW: Nanos = Nanos(0);

/// A node whose workers tell.
fn node(setup: Setup, changes: Vec<pb::Change>) -> (Simulation, Vec<FlowRings>) {
    let mut node = standard(setup);
    node.commit(changes).unwrap();
    let rings = node.tell_of_flows();
    node.step(NOW);
    assert_eq!(node.flow_records(&rings), []);
    (node, rings)
}

/// Workload 1 sends to workload 3, or is answered.
fn sent(node: &mut Simulation, sport: u16, dport: u16, flags: &str) {
    node.push("cali1", &tcp_from(1, "10.65.0.3", sport, dport, flags));
    node.step(NOW);
    node.check();
}

fn answered(node: &mut Simulation, sport: u16, flags: &str) {
    node.push("cali3", &tcp_from(3, "10.65.0.1", 80, sport, flags));
    node.step(NOW);
}

/// After so many seconds, in steps that workers look at all places in.
fn after(node: &mut Simulation, seconds: u64) {
    (0..64).for_each(|_| node.step(Nanos(seconds * 1_000_000_000 / 64)));
}

fn counts(record: &pb::FlowRecord) -> (Event, u64, u64, u64, u64) {
    (record.event(), record.packets, record.bytes, record.reply_packets, record.reply_bytes)
}

fn ends(tuple: &Option<pb::FlowTuple>) -> (Vec<u8>, u32, Vec<u8>, u32) {
    let tuple = tuple.clone().unwrap();
    (tuple.source, tuple.source_port, tuple.destination, tuple.destination_port)
}

#[test]
fn a_flow_is_told_of_as_it_begins_while_it_lasts_and_as_it_ends() {
    let (mut node, rings) = node(Setup { workers: 2, ..Setup::default() }, vec![]);
    let start = node.now();
    sent(&mut node, 4000, 80, "S");
    let [began] = &node.flow_records(&rings)[..] else { panic!("one record") };
    assert_eq!(counts(began), (Event::Began, 0, 0, 0, 0));
    assert_eq!(ends(&began.original), (vec![10, 65, 0, 1], 4000, vec![10, 65, 0, 3], 80));
    assert_eq!(ends(&began.reply), (vec![10, 65, 0, 3], 80, vec![10, 65, 0, 1], 4000));
    assert_eq!((began.protocol, &*began.state, &*began.verdict), (6, "syn-sent", "allow"));
    assert_eq!((began.began_unix_nanos, began.last_unix_nanos), (start.0, start.0));
    assert_eq!(began.judged_generation, u64::from(node.state.publisher().current().generation.0));
    let egress = began.egress.as_ref().unwrap();
    assert_eq!((&*egress.endpoint, &*egress.policy), ("default/w1", "profile open"));
    let ingress = began.ingress.as_ref().unwrap();
    let said = (&*ingress.endpoint, &*ingress.tier, &*ingress.policy, ingress.rule, &*ingress.verdict);
    assert_eq!(said, ("default/w3", "default", "default/web", 0, "allow"));
    assert!(!began.rules_changed);

    answered(&mut node, 4000, "SA");
    sent(&mut node, 4000, 80, "A");
    assert_eq!(node.flow_records(&rings), [], "nothing new for half a minute");
    after(&mut node, 31);
    sent(&mut node, 4000, 80, "A");
    let records = node.flow_records(&rings);
    assert_eq!(records.iter().map(counts).collect::<Vec<_>>(), [(Event::Continued, 3, 120, 1, 40)]);
    assert_eq!((&*records[0].state, records[0].last_unix_nanos), ("established", node.now().0));
    let late = start.0.abs_diff(records[0].began_unix_nanos);
    assert!(late < 10_000_000, "it began then, to some milliseconds: {late}");

    let last = node.now();
    sent(&mut node, 4000, 80, "RA");
    after(&mut node, 60);
    let records = node.flow_records(&rings);
    assert_eq!(records.iter().map(counts).collect::<Vec<_>>(), [(Event::Ended, 1, 40, 0, 0)]);
    assert_eq!((&*records[0].state, records[0].last_unix_nanos), ("closed", last.0));
    assert_eq!(rings.iter().map(FlowRings::lost).sum::<u64>(), 0);
}

#[test]
fn who_is_refused_is_told_of_once_a_second_with_the_rule() {
    let (mut node, rings) = node(Setup::default(), vec![]);
    let start = node.now();
    for sport in 1..=50 {
        sent(&mut node, sport, 81, "S");
    }
    node.push("cali1", &tcp_from(1, "10.99.0.1", 7, 80, "S"));
    node.step(NOW);
    assert_eq!(node.flow_records(&rings), []);
    node.step(Nanos::from_millis(999));
    assert_eq!(node.flow_records(&rings), []);
    // However few polls an idle worker makes.
    node.step(Nanos::from_millis(250));
    let mut records = node.flow_records(&rings);
    records.sort_by_key(|record| record.verdict.clone());
    let [denied, dropped] = &records[..] else { panic!("{records:#?}") };
    assert_eq!(counts(denied), (Event::Refused, 50, 2000, 0, 0));
    assert_eq!((&*denied.verdict, &*denied.reason, &*denied.interface), ("deny", "policy-denied", "cali1"));
    assert_eq!(ends(&denied.original), (vec![10, 65, 0, 1], 50, vec![10, 65, 0, 3], 81));
    assert_eq!((denied.began_unix_nanos, denied.reply.clone()), (start.0, None));
    let ingress = denied.ingress.as_ref().unwrap();
    assert_eq!((&*ingress.endpoint, &*ingress.verdict, ingress.rule), ("default/w3", "deny", -1));
    assert_eq!(denied.egress, None);
    assert_eq!((&*dropped.verdict, &*dropped.reason), ("drop", "no-route"));
}

#[test]
fn both_tuples_are_told_of_a_translated_flow() {
    let pool = |cidr: &str, masquerade| {
        change(Change::IpPool(pb::IpPool { cidr: Some(prefix(cidr)), masquerade, ..Default::default() }))
    };
    let (mut node, rings) =
        node(Setup::default(), vec![pool("10.65.0.0/16", true), via("172.16.0.0/12", "192.168.0.2")]);
    node.push("eth0", &arp(PEER_MAC, Operation::Reply, "192.168.0.2", "192.168.0.1"));
    node.step(NOW);
    node.push("cali1", &tcp_from(1, "172.16.0.9", 4000, 443, "S"));
    node.step(NOW);
    let [began] = &node.flow_records(&rings)[..] else { panic!("one record") };
    assert_eq!(ends(&began.original).0, [10, 65, 0, 1]);
    let (server, _, own, port) = ends(&began.reply);
    assert_eq!((server, own), (vec![172, 16, 0, 9], vec![192, 168, 0, 1]), "it leaves as the node");
    assert!(port > 0);
    assert!(began.egress.is_some() && began.ingress.is_none());
}

#[test]
fn staged_policies_say_what_they_would_have_done() {
    let id = pb::PolicyId { kind: "StagedNetworkPolicy".into(), ..policy_id("closed") };
    let mut staged = pb::Policy { id: Some(id.clone()), staged: true, ..policy("closed", 80) };
    staged.inbound_rules[0].action = pb::Action::Deny.into();
    let mut bound = endpoint(3, &["web"]);
    let tiers = pb::TierBinding { ingress_policies: vec![id, policy_id("web")], ..bound.tiers[0].clone() };
    bound.staged_tiers = vec![tiers];
    let (mut node, rings) =
        node(Setup::default(), vec![change(Change::Policy(staged)), change(Change::WorkloadEndpoint(bound))]);
    sent(&mut node, 4000, 80, "S");
    let [began] = &node.flow_records(&rings)[..] else { panic!("one record") };
    let ingress = began.ingress.as_ref().unwrap();
    let staged = ingress.staged.as_ref().unwrap();
    assert_eq!((&*began.verdict, &*ingress.policy), ("allow", "default/web"));
    assert_eq!((&*staged.verdict, &*staged.policy), ("deny", "default/closed"));
}

#[test]
fn a_rule_that_is_not_in_force_any_more_is_not_named() {
    let (mut node, rings) = node(Setup::default(), vec![]);
    sent(&mut node, 4000, 80, "S");
    sent(&mut node, 4000, 81, "S");
    after(&mut node, 2);
    node.commit(vec![change(Change::Policy(policy("web", 9999)))]).unwrap();
    let records = node.flow_records(&rings);
    assert_eq!(records.len(), 2);
    for record in records {
        assert!(record.rules_changed && record.ingress.is_none(), "{record:#?}");
    }
}

#[test]
fn flows_from_before_are_told_of_in_time_and_what_finds_no_room_is_counted() {
    let mut node = standard(Setup { flows: 1 << 15, frames: 1 << 15, ..Setup::default() });
    for sport in 1..=3 {
        sent(&mut node, sport, 80, "S");
    }
    let rings = node.tell_of_flows();
    for _ in 0..62 {
        (1..=3).for_each(|sport| sent(&mut node, sport, 80, "S"));
        node.step(Nanos::from_secs(1));
    }
    let records = node.flow_records(&rings);
    assert!(records.iter().all(|r| (r.event(), r.began_unix_nanos) == (Event::Continued, 0)), "{records:#?}");
    assert!((3..=6).contains(&records.len()), "each once or twice a minute: {}", records.len());

    // More than the ring has room for.
    for sport in 10..20_000 {
        node.push("cali1", &tcp_from(1, "10.65.0.3", sport, 80, "S"));
        if sport % 200 == 0 {
            node.step(NOW);
            while node.pop("cali3").is_some() {}
        }
    }
    node.step(NOW);
    node.check();
    let (told, lost) = (node.flow_records(&rings).len() as u64, rings[0].lost());
    assert_eq!(told + lost, 19_990);
    assert_eq!(told, 1 << 14);
}
