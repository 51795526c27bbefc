//! Staged policies: what they would have decided is counted, shown and explained; packets fare as
//! if there were none.
#![allow(missing_docs)]

mod build;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::control::{ObjectError, explain};
use margay_dataplane::net::Nanos;
use margay_dataplane::simulation::{Setup, Simulation};

fn staged_id(name: &str) -> pb::PolicyId {
    pb::PolicyId { kind: "StagedNetworkPolicy".into(), ..policy_id(name) }
}

/// A staged policy with one rule about TCP to `port`.
fn staged(name: &str, action: pb::Action, port: u32) -> pb::Change {
    let mut staged = pb::Policy { id: Some(staged_id(name)), staged: true, ..policy(name, port) };
    staged.inbound_rules[0].action = action.into();
    change(Change::Policy(staged))
}

/// Workload 3 with policy `web` in force, and these in its tier were the staged ones in force.
fn would_be(policies: &[pb::PolicyId]) -> pb::Change {
    let mut endpoint = endpoint(3, &["web"]);
    let tier = pb::TierBinding { ingress_policies: policies.to_vec(), ..endpoint.tiers[0].clone() };
    endpoint.staged_tiers = vec![tier];
    change(Change::WorkloadEndpoint(endpoint))
}

fn node(changes: Vec<pb::Change>) -> Simulation {
    let mut node = standard(Setup::default());
    node.commit(changes).unwrap();
    node
}

/// A packet from workload 1 to port `dport` of workload 3 arrives.
fn passes(node: &mut Simulation, sport: u16, dport: u16) -> bool {
    node.push("cali1", &tcp_from(1, "10.65.0.3", sport, dport, "S"));
    node.step(NOW);
    node.check();
    node.pop("cali3").is_some()
}

fn report(node: &Simulation) -> pb::ListStagedResponse {
    node.differences.report(&node.state, node.now())
}

/// Judged, would be allowed, would be denied: of the one direction of the one endpoint there is.
fn totals(node: &Simulation) -> (u64, u64, u64) {
    let [row] = &report(node).endpoints[..] else { panic!("{:?}", report(node).endpoints) };
    assert_eq!((&*row.endpoint, &*row.direction), ("default/w3", "ingress"));
    (row.judged, row.would_allow, row.would_deny)
}

/// Policy, rule, hits, would be allowed, would be denied.
fn rules(node: &Simulation) -> Vec<(String, i32, u64, u64, u64)> {
    let row = |r: pb::StagedRule| (r.policy, r.rule, r.packets, r.would_allow, r.would_deny);
    report(node).rules.into_iter().map(row).collect()
}

#[test]
fn a_staged_denial_is_counted_and_not_enforced() {
    let first = would_be(&[staged_id("closed"), policy_id("web")]);
    let mut node = node(vec![staged("closed", pb::Action::Deny, 80), first]);
    assert!(passes(&mut node, 1, 80) && passes(&mut node, 2, 80) && !passes(&mut node, 3, 81));
    assert!(passes(&mut node, 1, 80), "a live flow is not judged, by neither");
    assert_eq!(totals(&node), (3, 0, 2));
    assert_eq!(rules(&node), [("default/closed".into(), 0, 2, 0, 2)]);
    let report = report(&node);
    assert_eq!(report.rules[0].last_packet, "tcp 10.65.0.1:2 > 10.65.0.3:80");
    assert_eq!(report.rules[0].last_endpoint, "default/w3");
    assert!(report.rules[0].staged);
    let [policy] = &report.policies[..] else { panic!("{:?}", report.policies) };
    assert_eq!((policy.id.clone(), &*policy.tier), (Some(staged_id("closed")), "default"));
    assert_eq!(
        (policy.ingress_endpoints.clone(), policy.egress_endpoints.len()),
        (vec!["default/w3".into()], 0)
    );
}

#[test]
fn a_staged_allowance_opens_nothing() {
    let mut node =
        node(vec![staged("open", pb::Action::Allow, 81), would_be(&[policy_id("web"), staged_id("open")])]);
    assert!(passes(&mut node, 1, 80) && !passes(&mut node, 2, 81) && !passes(&mut node, 2, 81));
    assert!(!passes(&mut node, 3, 82));
    assert_eq!(totals(&node), (4, 2, 0));
    assert_eq!(rules(&node), [("default/open".into(), 0, 2, 2, 0)]);
}

#[test]
fn a_staged_policy_may_stand_for_one_that_is_in_force() {
    let mut node = node(vec![staged("web", pb::Action::Allow, 81), would_be(&[staged_id("web")])]);
    assert!(passes(&mut node, 1, 80) && !passes(&mut node, 2, 81));
    assert_eq!(totals(&node), (2, 1, 1));
    // What port 80 would meet is the end of the tier.
    assert_eq!(rules(&node), [("".into(), -1, 1, 0, 1), ("default/web".into(), 0, 1, 1, 0)]);
}

#[test]
fn a_policy_may_be_staged_to_go() {
    let mut node = node(vec![would_be(&[])]);
    assert!(passes(&mut node, 1, 80) && !passes(&mut node, 2, 81));
    assert_eq!(totals(&node), (2, 1, 0));
    assert_eq!(rules(&node), [("profile open".into(), 0, 2, 1, 0)]);
}

#[test]
fn what_a_staged_policy_misses_fails_the_endpoint_and_opens_nothing() {
    let mut node = node(vec![staged("open", pb::Action::Allow, 81)]);
    let mut refused = |changes: Vec<pb::Change>| -> ObjectError {
        let mut errors = node.commit(changes).unwrap_err();
        assert!(passes(&mut node, 1, 80) && !passes(&mut node, 2, 81), "as before");
        assert!(node.state.shadow().is_none());
        errors.remove(0)
    };
    let error = refused(vec![would_be(&[policy_id("web"), staged_id("nowhere")])]);
    assert_eq!(error.object, "workload endpoint default/w3");
    assert_eq!(error.error.field, "staged_tiers[0].ingress_policies[1]");
    assert!(error.error.message.contains("StagedNetworkPolicy default/nowhere is not known"), "{error:?}");

    let mut enforcing = endpoint(3, &["web"]);
    enforcing.tiers[0].ingress_policies.push(staged_id("open"));
    let error = refused(vec![change(Change::WorkloadEndpoint(enforcing))]);
    assert_eq!(error.error.field, "tiers[0].ingress_policies[1]");
    assert!(error.error.message.contains("only staged_tiers may name it"), "{error:?}");

    let named = vec![would_be(&[staged_id("open")])];
    node.commit(named).unwrap();
    let gone = node.commit(vec![change(Change::PolicyRemove(staged_id("open")))]).unwrap_err();
    assert!(gone[0].error.message.contains("is not known"), "{gone:?}");
    assert!(passes(&mut node, 3, 80) && !passes(&mut node, 4, 81));
}

#[test]
fn a_policy_changes_sides_with_its_mark() {
    let mut node = standard(Setup::default());
    let marked = |staged| change(Change::Policy(pb::Policy { staged, ..policy("web", 80) }));
    let error = node.commit(vec![marked(true)]).unwrap_err().remove(0);
    assert!(error.error.message.contains("only staged_tiers may name it"), "{error:?}");
    assert!(passes(&mut node, 1, 80));
    node.commit(vec![marked(true), change(Change::WorkloadEndpoint(endpoint(3, &[])))]).unwrap();
    assert!(node.state.desired().policies.is_empty() && node.state.desired().staged.len() == 1);
    node.commit(vec![marked(false), change(Change::WorkloadEndpoint(endpoint(3, &["web"])))]).unwrap();
    assert!(node.state.desired().staged.is_empty());
    assert!(passes(&mut node, 2, 80) && !passes(&mut node, 3, 81));
}

#[test]
fn sets_of_staged_rules_are_kept_and_missing_ones_would_deny() {
    let set = |name: &str| pb::IpSet {
        id: name.into(),
        r#type: pb::ip_set::Type::Ip.into(),
        members: Some(pb::Members { ipv4: vec![10, 65, 0, 1], ipv6: vec![] }),
    };
    let with_set = |set: &str| {
        let Some(Change::Policy(mut policy)) = staged("clients", pb::Action::Allow, 81).change else {
            panic!()
        };
        policy.inbound_rules[0].src_ip_set_ids = vec![set.into()];
        change(Change::Policy(policy))
    };
    let order = would_be(&[staged_id("clients"), policy_id("web")]);
    let mut node = node(vec![change(Change::IpSet(set("s:clients"))), with_set("s:clients"), order]);
    assert!(!passes(&mut node, 1, 81));
    assert_eq!(totals(&node), (1, 1, 0));
    let members = |ipv4: [u8; 4]| Some(pb::Members { ipv4: ipv4.to_vec(), ipv6: vec![] });
    let delta = pb::IpSetDelta {
        id: "s:clients".into(),
        added: members([10, 65, 0, 9]),
        removed: members([10, 65, 0, 1]),
    };
    node.commit(vec![change(Change::IpSetDelta(delta))]).unwrap();
    assert!(!passes(&mut node, 5, 81));
    assert_eq!(totals(&node), (2, 1, 0), "it is no client any more, and counts go on");
    node.commit(vec![with_set("s:nowhere")]).unwrap();
    assert!(passes(&mut node, 2, 80));
    assert_eq!(totals(&node), (1, 0, 1), "the list is another, so it counts anew");
}

#[test]
fn unrelated_changes_leave_the_counts_and_the_last_staged_policy_takes_the_shadow_with_it() {
    let mut node = node(vec![staged("closed", pb::Action::Deny, 80), would_be(&[staged_id("closed")])]);
    assert!(passes(&mut node, 1, 80));
    node.step(Nanos::from_secs(5));
    node.commit(vec![change(Change::Policy(policy("other", 1)))]).unwrap();
    assert!(passes(&mut node, 2, 80));
    assert_eq!(totals(&node), (2, 0, 2));
    assert_eq!(report(&node).endpoints[0].seconds, 5);
    node.commit(vec![change(Change::WorkloadEndpoint(endpoint(3, &["web"])))]).unwrap();
    assert!(node.state.shadow().is_none() && node.state.publisher().current().shadow.is_none());
    let report = report(&node);
    assert_eq!((report.policies.len(), report.endpoints.len(), report.rules.len()), (1, 0, 0));
}

#[test]
fn endpoints_with_equal_lists_share_counts_by_rule_and_have_their_own_in_sum() {
    let mut second = endpoint(2, &["web"]);
    let Some(Change::WorkloadEndpoint(third)) = would_be(&[staged_id("closed")]).change else { panic!() };
    second.staged_tiers = third.staged_tiers.clone();
    let endpoints = [second, third].map(|endpoint| change(Change::WorkloadEndpoint(endpoint)));
    let mut node = node([vec![staged("closed", pb::Action::Deny, 80)], endpoints.into()].concat());
    assert!(passes(&mut node, 1, 80));
    for sport in [2, 3] {
        node.push("cali1", &tcp_from(1, "10.65.0.2", sport, 80, "S"));
        node.step(NOW);
    }
    let sums: Vec<_> =
        report(&node).endpoints.iter().map(|row| (row.endpoint.clone(), row.would_deny)).collect();
    assert_eq!(sums, [("default/w2".into(), 2), ("default/w3".into(), 1)]);
    assert_eq!(rules(&node), [("default/closed".into(), 0, 3, 0, 3)]);
}

#[test]
fn explain_shows_both() {
    let node = node(vec![staged("web", pb::Action::Allow, 81), would_be(&[staged_id("web")])]);
    let ask = |port| {
        let request = pb::ExplainRequest {
            source: bytes(addr("10.65.0.1")),
            destination: bytes(addr("10.65.0.3")),
            protocol: 6,
            source_port: 4000,
            destination_port: port,
            ..Default::default()
        };
        explain(&node.state, &request, NOW).unwrap()
    };
    let answer = ask(80);
    let ingress = answer.ingress.unwrap();
    assert_eq!((&*answer.verdict, &*ingress.verdict, &*ingress.policy), ("allow", "allow", "default/web"));
    let staged = ingress.staged.unwrap();
    assert_eq!((&*staged.verdict, staged.rule, &*staged.endpoint), ("deny", -1, "default/w3"));
    assert_eq!(staged.walk.last().unwrap().action, "deny");
    assert!(answer.egress.unwrap().staged.is_none(), "nothing is staged for the source");
    let answer = ask(81);
    let staged = answer.ingress.unwrap().staged.unwrap();
    assert_eq!((&*answer.verdict, &*staged.verdict, &*staged.policy), ("deny", "allow", "default/web"));
}

/// Of the host behind `eth0`: what comes in meets `web`, and would meet `closed`.
fn protected() -> Simulation {
    let tier = |ids: Vec<pb::PolicyId>| pb::TierBinding {
        name: "default".into(),
        ingress_policies: ids,
        default_action: pb::Action::Deny.into(),
        ..Default::default()
    };
    let host = pb::HostEndpoint {
        id: "uplink".into(),
        interface_name: "eth0".into(),
        tiers: vec![tier(vec![policy_id("web")])],
        staged_tiers: vec![tier(vec![staged_id("closed"), policy_id("web")])],
        ..Default::default()
    };
    node(vec![staged("closed", pb::Action::Deny, 80), change(Change::HostEndpoint(host))])
}

#[test]
fn staged_policies_are_judged_for_a_hosts_own_traffic_too() {
    let mut node = protected();
    let inward = |sport| tcp(PEER_MAC, UPLINK_MAC, "192.168.0.2", "192.168.0.1", sport, 80, "S");
    for sport in [1, 2] {
        node.push("eth0", &inward(sport));
        node.step(NOW);
        node.check();
        assert!(node.pop("margay-up0").is_some(), "what is staged is not enforced");
    }
    let report = report(&node);
    let [row] = &report.endpoints[..] else { panic!("{:?}", report.endpoints) };
    assert_eq!((&*row.endpoint, &*row.direction), ("host endpoint uplink", "ingress"));
    assert_eq!((row.judged, row.would_allow, row.would_deny), (2, 0, 2));
    assert_eq!(report.policies[0].ingress_endpoints, ["host endpoint uplink"]);
    assert_eq!(report.rules[0].last_endpoint, "host endpoint uplink");

    let request = pb::ExplainRequest {
        source: vec![192, 168, 0, 2],
        destination: vec![192, 168, 0, 1],
        protocol: 6,
        source_port: 3,
        destination_port: 80,
        ..Default::default()
    };
    let explained = explain(&node.state, &request, NOW).unwrap();
    let decision = explained.host[0].decision.clone().unwrap();
    assert_eq!((decision.verdict.as_str(), decision.policy.as_str()), ("allow", "default/web"));
    let staged = decision.staged.unwrap();
    assert_eq!((staged.verdict.as_str(), staged.policy.as_str()), ("deny", "default/closed"));
}

#[test]
fn a_host_endpoint_that_would_enforce_what_is_staged_is_refused() {
    let mut node = node(vec![staged("closed", pb::Action::Deny, 80)]);
    let tier = pb::TierBinding {
        name: "default".into(),
        ingress_policies: vec![staged_id("closed")],
        default_action: pb::Action::Pass.into(),
        ..Default::default()
    };
    let host = |staged: bool| pb::HostEndpoint {
        id: "uplink".into(),
        interface_name: "eth0".into(),
        untracked_tiers: if staged { vec![] } else { vec![tier.clone()] },
        staged_tiers: if staged { vec![tier.clone()] } else { vec![] },
        ..Default::default()
    };
    let error = node.commit(vec![change(Change::HostEndpoint(host(false)))]).unwrap_err().remove(0);
    assert_eq!(error.object, "host endpoint uplink");
    assert_eq!(error.error.field, "untracked_tiers[0].ingress_policies[0]");
    node.commit(vec![change(Change::HostEndpoint(host(true)))]).unwrap();
    let gone = node.commit(vec![change(Change::PolicyRemove(staged_id("closed")))]).unwrap_err().remove(0);
    assert_eq!(gone.error.field, "staged_tiers[0].ingress_policies[0]");
}
