//! What the control side accepts, refuses and builds: transactions, referents, interfaces.
#![allow(missing_docs)]

mod build;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::control::ObjectError;
use margay_dataplane::net::Nanos;
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};

/// A packet from workload 1 to port `dport` of workload 3 arrives.
fn passes(node: &mut Simulation, sport: u16, dport: u16) -> bool {
    node.push("cali1", &tcp_from(1, "10.65.0.3", sport, dport, "S"));
    node.step(NOW);
    node.check();
    node.pop("cali3").is_some()
}

fn refused(node: &mut Simulation, changes: Vec<pb::Change>) -> Vec<ObjectError> {
    let before = node.state.publisher().current().generation;
    let errors = node.commit(changes).unwrap_err();
    assert_eq!(node.state.publisher().current().generation, before, "nothing was published");
    errors
}

#[test]
fn a_transaction_is_applied_whole_or_not_at_all() {
    let mut node = standard(Setup::default());
    let mut bad = endpoint(9, &[]);
    bad.nets[0].length = 33;
    let errors = refused(
        &mut node,
        vec![change(Change::Policy(policy("web", 81))), change(Change::WorkloadEndpoint(bad))],
    );
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].object, "workload endpoint default/w9/eth0");
    assert_eq!(errors[0].error.field, "nets[0]");
    assert!(errors[0].error.message.contains("33"), "{}", errors[0].error.message);
    assert!(passes(&mut node, 1, 80) && !passes(&mut node, 2, 81), "the policy is the old one");
}

#[test]
fn every_error_names_object_field_and_value() {
    let mut node = standard(Setup::default());
    let rule = |rule: pb::Rule| {
        let mut bad = policy("bad", 1);
        bad.inbound_rules.push(rule);
        change(Change::Policy(bad))
    };
    let allow = || pb::Rule { action: pb::Action::Allow.into(), ..Default::default() };
    let set = |set: pb::IpSet| change(Change::IpSet(set));
    let packed = |ipv4: &[u8]| Some(pb::Members { ipv4: ipv4.to_vec(), ipv6: vec![] });
    let cases: Vec<(pb::Change, &str, &str)> = vec![
        (rule(pb::Rule::default()), "inbound_rules[1].action", "missing"),
        (rule(pb::Rule { ip_version: 5, ..allow() }), "inbound_rules[1].ip_version", "5 is neither"),
        (rule(pb::Rule { protocol: Some(300), ..allow() }), "inbound_rules[1].protocol", "300"),
        (
            rule(pb::Rule { dst_ports: vec![pb::PortRange { first: 9, last: 8 }], ..allow() }),
            "inbound_rules[1].dst_ports[0]",
            "9:8",
        ),
        (rule(pb::Rule { http: Some(pb::HttpMatch::default()), ..allow() }), "inbound_rules[1].http", "HTTP"),
        (set(pb::IpSet { id: "s".into(), ..Default::default() }), "type", "missing"),
        (
            set(pb::IpSet {
                id: "s".into(),
                r#type: pb::ip_set::Type::Net.into(),
                members: packed(&[10, 0, 0, 1, 8]),
            }),
            "members",
            "10.0.0.0/8",
        ),
        (
            set(pb::IpSet {
                id: "s".into(),
                r#type: pb::ip_set::Type::Ip.into(),
                members: packed(&[1, 2, 3]),
            }),
            "members.ipv4",
            "3 bytes",
        ),
        (
            change(Change::IpSetDelta(pb::IpSetDelta { id: "none".into(), ..Default::default() })),
            "id",
            "no such set",
        ),
        (
            change(Change::WorkloadEndpoint(pb::WorkloadEndpoint { mac: vec![1; 5], ..endpoint(9, &[]) })),
            "mac",
            "5",
        ),
        (
            change(Change::WorkloadEndpoint(pb::WorkloadEndpoint {
                interface_name: "much-too-long-a-name".into(),
                ..endpoint(9, &[])
            })),
            "interface_name",
            "15 bytes",
        ),
        (
            change(Change::WorkloadEndpoint(pb::WorkloadEndpoint {
                interface_name: "cali1".into(),
                ..endpoint(9, &[])
            })),
            "interface_name",
            "default/w1 already",
        ),
        (via("10.9.0.0/16", "fd00::2"), "next_hop.gateway", "another family"),
        (change(Change::TunnelEndpoint(pb::TunnelEndpoint::default())), "node", "missing"),
        (change(Change::Service(pb::Service::default())), "id", "missing"),
        (change(Change::HostEndpoint(pb::HostEndpoint::default())), "id", "missing"),
    ];
    for (bad, field, word) in cases {
        let mut changes = standard_changes();
        let what = format!("{bad:?}");
        changes.push(bad);
        let errors = refused(&mut node, changes);
        assert_eq!(errors[0].error.field, field, "{what}");
        assert!(errors[0].error.message.contains(word), "{what}: {}", errors[0].error.message);
        assert!(!errors[0].object.is_empty());
    }
}

#[test]
fn nothing_stale_goes_before_the_stream_is_in_sync() {
    let mut node = standard(Setup::default());
    node.state.begin();
    let part = pb::Commit { generation: 10, in_sync: false };
    node.state.commit(&[change(Change::Profile(open_profile()))], &part, NOW).unwrap();
    node.step(NOW);
    assert!(passes(&mut node, 1, 80), "what the last agent left is in force");
    assert!(!node.state.in_sync());

    let mut rest = standard_changes();
    rest.retain(|c| !matches!(&c.change, Some(Change::Policy(_))));
    let whole = pb::Commit { generation: 11, in_sync: true };
    node.state.commit(&rest, &whole, NOW).unwrap();
    node.step(NOW);
    assert!(node.state.in_sync() && node.state.desired().policies.is_empty());
    assert!(!passes(&mut node, 2, 80), "its policy is gone, and a missing one denies");
    assert_eq!(node.state.adopted(), 11);
}

#[test]
fn what_is_missing_fails_closed() {
    // A profile that is not there, a policy that is not there, a policy that names a set that is
    // not there.
    let without = |drop: fn(&Change) -> bool| {
        let mut changes = standard_changes();
        changes.retain(|c| !c.change.as_ref().is_some_and(drop));
        changes
    };
    let mut unknown_set = policy("web", 80);
    unknown_set.inbound_rules[0].not_src_ip_set_ids.push("s:nowhere".into());
    let mut named = standard_changes();
    named.push(change(Change::Policy(unknown_set)));
    let cases =
        [without(|c| matches!(c, Change::Profile(_))), without(|c| matches!(c, Change::Policy(_))), named];
    for changes in cases {
        let mut node = Simulation::new(Setup::default());
        node.commit(changes).unwrap();
        assert!(!passes(&mut node, 1, 80));
        let counters = &node.workers[0].world().counters;
        assert_eq!(counters.dropped(DropReason::PolicyDenied).get(), 1);
    }
}

#[test]
fn members_come_and_go_by_deltas() {
    let mut node = standard(Setup::default());
    let set = |members: &[[u8; 4]]| pb::Members { ipv4: members.concat(), ipv6: vec![] };
    let mut from_set = policy("web", 80);
    from_set.inbound_rules[0].src_ip_set_ids.push("s:clients".into());
    let mut changes = standard_changes();
    changes.extend([
        change(Change::IpSet(pb::IpSet {
            id: "s:clients".into(),
            r#type: pb::ip_set::Type::Ip.into(),
            members: Some(set(&[[10, 65, 0, 2]])),
        })),
        change(Change::Policy(from_set)),
    ]);
    node.commit(changes).unwrap();
    assert!(!passes(&mut node, 1, 80));
    let delta = |added: &[[u8; 4]], removed: &[[u8; 4]]| {
        vec![change(Change::IpSetDelta(pb::IpSetDelta {
            id: "s:clients".into(),
            added: Some(set(added)),
            removed: Some(set(removed)),
        }))]
    };
    node.commit(delta(&[[10, 65, 0, 1]], &[])).unwrap();
    assert!(passes(&mut node, 2, 80));
    node.commit(delta(&[], &[[10, 65, 0, 1]])).unwrap();
    assert!(!passes(&mut node, 3, 80));

    let sets = node.state.policy().sets().clone();
    node.commit(vec![change(Change::Policy(policy("other", 1)))]).unwrap();
    assert!(std::sync::Arc::ptr_eq(&sets, node.state.policy().sets()), "sets that stay are not built again");
}

#[test]
fn a_set_that_comes_goes_and_comes_again_is_followed() {
    let mut node = standard(Setup::default());
    let mut from_set = policy("web", 80);
    from_set.inbound_rules[0].src_ip_set_ids.push("s:late".into());
    node.commit(vec![change(Change::Policy(from_set))]).unwrap();
    assert!(!passes(&mut node, 1, 80), "a set that is not there denies");
    let set = |kind: pb::ip_set::Type, ipv4: Vec<u8>| {
        let members = Some(pb::Members { ipv4, ipv6: vec![] });
        vec![change(Change::IpSet(pb::IpSet { id: "s:late".into(), r#type: kind.into(), members }))]
    };
    node.commit(set(pb::ip_set::Type::Ip, vec![10, 65, 0, 1])).unwrap();
    assert!(passes(&mut node, 2, 80));
    node.commit(vec![change(Change::IpSetRemove("s:late".into()))]).unwrap();
    assert!(!passes(&mut node, 3, 80));
    node.commit(set(pb::ip_set::Type::Net, vec![10, 65, 0, 0, 16])).unwrap();
    assert!(passes(&mut node, 4, 80));
    // A rule asks for addresses: a set of ports is refused, and the one before stays.
    let errors = refused(&mut node, set(pb::ip_set::Type::IpAndPort, vec![10, 65, 0, 1, 6, 0, 80]));
    assert!(errors[0].error.message.contains("s:late"), "{errors:?}");
    assert!(passes(&mut node, 5, 80));
}

#[test]
fn a_change_of_one_policy_leaves_other_endpoints_their_trees() {
    use margay_dataplane::policy::Direction::{Egress, Ingress};
    let mut node = standard(Setup::default());
    let before = node.state.policy().clone();
    let index = |n| node.state.endpoint_index(&endpoint_id(n).into()).unwrap();
    let (first, third) = (index(1), index(3));
    node.commit(vec![change(Change::Policy(policy("web", 81)))]).unwrap();
    let after = node.state.policy().clone();
    let same = |index, direction| {
        std::ptr::eq(before.tree(index, direction).unwrap(), after.tree(index, direction).unwrap())
    };
    assert!(same(first, Ingress) && same(first, Egress) && same(third, Egress));
    assert!(!same(third, Ingress));
    // What is said again makes nothing new.
    let forwarding = node.state.publisher().current();
    node.commit(standard_changes().into_iter().filter(|c| !is_policy(c)).collect()).unwrap();
    assert!(node.state.policy().shares_trees(&after));
    assert!(std::sync::Arc::ptr_eq(&forwarding.fib, &node.state.publisher().current().fib));
}

fn is_policy(change: &pb::Change) -> bool {
    matches!(change.change, Some(Change::Policy(_)))
}

#[test]
fn an_inactive_endpoint_hears_and_says_nothing() {
    let mut node = standard(Setup::default());
    let mut changes = standard_changes();
    changes
        .push(change(Change::WorkloadEndpoint(pb::WorkloadEndpoint { active: false, ..endpoint(3, &[]) })));
    node.commit(changes).unwrap();
    assert!(!passes(&mut node, 1, 80));
    node.push("cali3", &udp_from(3, "10.65.0.1", 53));
    node.step(NOW);
    node.check();
    assert_eq!(node.workers[0].world().counters.dropped(DropReason::EndpointInactive).get(), 2);
}

#[test]
fn a_replaced_endpoint_gets_a_number_that_nobody_serves() {
    let mut node = standard(Setup::default());
    let old = node.state.id("cali3").unwrap();
    let mut moved = endpoint(3, &["web"]);
    moved.interface_name = "cali3b".into();
    node.commit(vec![change(Change::WorkloadEndpoint(moved.clone()))]).unwrap();
    let new = node.state.id("cali3b").unwrap();
    assert_ne!(old, new, "the workers may still serve the old one");
    for _ in 0..3 {
        node.step(NOW);
    }
    node.check();
    assert!(node.state.retiring().is_empty(), "and then they have let go");
    moved.interface_name = "cali3c".into();
    node.commit(vec![change(Change::WorkloadEndpoint(moved))]).unwrap();
    assert_eq!(node.state.id("cali3c"), Some(old), "so the number is given again");
    node.push("cali1", &tcp_from(1, "10.65.0.3", 1, 80, "S"));
    node.step(NOW);
    assert!(node.pop("cali3c").is_some());
}

#[test]
fn retired_snapshots_are_freed_once_workers_have_moved_on() {
    let mut node = standard(Setup { workers: 2, ..Setup::default() });
    for port in 0..50 {
        node.commit(vec![change(Change::Policy(policy("web", 1000 + port)))]).unwrap();
    }
    node.step(Nanos::from_secs(1));
    node.step(Nanos::from_secs(1));
    assert_eq!(node.state.publisher().held(), 0);
    let freed = node.state.take_retired_trees().len();
    assert!(freed >= 49, "{freed} trees are free for their last counts");
}
