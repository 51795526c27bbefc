//! Packets of a vector that are judged together fare as those that come one by one.
#![allow(missing_docs)]

mod build;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::packet::DropReason;
use margay_dataplane::policy::{Direction, EndpointIdx};
use margay_dataplane::simulation::{Setup, Simulation};
use std::collections::BTreeMap;

/// More than a vector's packets are sorted by.
const WORKLOADS: u8 = 90;

/// Workloads with one policy or another in either direction, or none.
fn node() -> Simulation {
    let mut node = standard(Setup::default());
    let other = pb::Policy { outbound_rules: policy("", 90).inbound_rules, ..policy("other", 90) };
    let mut changes = vec![change(Change::Policy(other))];
    for n in 4..=WORKLOADS {
        let mut endpoint =
            endpoint(n, [&[][..], &["web"], &["other"], &["web", "other"]][usize::from(n % 4)]);
        if n % 5 == 0 {
            endpoint.tiers = vec![pb::TierBinding {
                name: "default".into(),
                ingress_policies: endpoint.tiers.first().map_or(vec![], |tier| tier.ingress_policies.clone()),
                egress_policies: vec![policy_id("other")],
                default_action: pb::Action::Deny.into(),
            }];
        }
        changes.push(change(Change::WorkloadEndpoint(endpoint)));
        changes.extend(to_workload(n));
    }
    node.commit(changes).unwrap();
    node.step(NOW);
    node
}

/// From other nodes to all workloads, and from two workloads, in both families, allowed and denied.
fn packets() -> Vec<(String, Vec<u8>)> {
    let mut all = vec![];
    for number in 0..600u16 {
        let (to, port) =
            (1 + (number * 7 % u16::from(WORKLOADS)) as u8, [80, 90, 100][usize::from(number % 3)]);
        // Most for one workload, some for each of the others.
        let to = if number % 2 == 0 { 6 } else { to };
        let v6 = number % 11 == 0;
        let destination = if v6 { format!("fd65::{to:x}") } else { format!("10.65.0.{to}") };
        let sport = 1000 + number;
        all.push(match number % 4 {
            0 => ("cali1".into(), tcp_from(1, &destination, sport, port, "S")),
            1 => ("cali5".into(), tcp_from(5, &destination, sport, port, "S")),
            _ => {
                let source = if v6 { "fd65:1::9" } else { "10.65.1.9" };
                ("eth0".into(), tcp(PEER_MAC, UPLINK_MAC, source, &destination, sport, port, "S"))
            }
        });
    }
    all
}

/// What came out where, in no order; drops for policy; and the counts of every list.
type Fate = (BTreeMap<String, Vec<Vec<u8>>>, u64, Vec<Option<Vec<u64>>>);

fn fate(node: Simulation) -> Fate {
    node.check();
    let interfaces = ["eth0".to_owned()].into_iter().chain((1..=WORKLOADS).map(|n| format!("cali{n}")));
    let mut out = BTreeMap::new();
    for interface in interfaces {
        let mut frames: Vec<_> = std::iter::from_fn(|| node.pop(&interface)).collect();
        frames.sort();
        out.insert(interface, frames);
    }
    let table = &node.workers[0].world().snapshot.policy;
    let lists = (0..u32::from(WORKLOADS) + 8)
        .flat_map(|endpoint| [Direction::Egress, Direction::Ingress].map(|way| (EndpointIdx(endpoint), way)));
    let hits = lists.map(|(endpoint, way)| Some(table.tree(endpoint, way)?.hits().totals())).collect();
    (out, dropped(&node, DropReason::PolicyDenied), hits)
}

/// The same with a host endpoint on every interface, that has something to say of each kind of traffic.
fn protected() -> Simulation {
    let mut node = node();
    let port = |action: pb::Action, port: u32| pb::Rule {
        action: action.into(),
        dst_ports: vec![pb::PortRange { first: port, last: port }],
        protocol: Some(6),
        ..Default::default()
    };
    let (allow, deny) = (pb::Action::Allow, pb::Action::Deny);
    let policies = [
        ("early", vec![port(allow, 100)], vec![]),
        ("forward", vec![port(deny, 80), port(allow, 90)], vec![port(allow, 80), port(allow, 90)]),
        ("normal", vec![port(allow, 90)], vec![port(allow, 80)]),
    ];
    let mut changes: Vec<pb::Change> = policies
        .into_iter()
        .map(|(name, inbound_rules, outbound_rules)| {
            change(Change::Policy(pb::Policy {
                id: Some(policy_id(name)),
                tier: "default".into(),
                inbound_rules,
                outbound_rules,
                pre_dnat: name == "early",
                ..Default::default()
            }))
        })
        .collect();
    let tier = |name: &str, default: pb::Action, egress: bool| {
        let egress_policies = if egress { vec![policy_id(name)] } else { vec![] };
        vec![pb::TierBinding {
            name: "default".into(),
            ingress_policies: vec![policy_id(name)],
            egress_policies,
            default_action: default.into(),
        }]
    };
    let all = |id: &str, interface: &str| pb::HostEndpoint {
        id: id.into(),
        interface_name: interface.into(),
        pre_dnat_tiers: tier("early", pb::Action::Pass, false),
        forward_tiers: tier("forward", deny, true),
        tiers: tier("normal", deny, true),
        ..Default::default()
    };
    changes.push(change(Change::HostEndpoint(all("uplink", "eth0"))));
    changes.push(change(Change::HostEndpoint(all("others", "*"))));
    node.commit(changes).unwrap();
    node.step(NOW);
    node
}

/// Packets of this host, to it, and from it to its workloads.
fn of_the_host() -> Vec<(String, Vec<u8>)> {
    let mut all = vec![];
    for number in 0..240u16 {
        let (sport, port) = (1000 + number, [80, 90, 100][usize::from(number % 3)]);
        all.push(match number % 4 {
            0 => ("eth0".into(), tcp(PEER_MAC, UPLINK_MAC, "192.168.0.2", "192.168.0.1", sport, port, "S")),
            1 => (
                "margay-up0".into(),
                tcp(UPLINK_MAC, PEER_MAC, "192.168.0.1", "192.168.0.2", sport, port, "S"),
            ),
            2 => ("cali1".into(), tcp_from(1, "192.168.0.1", sport, port, "S")),
            _ => ("cali5".into(), tcp_from(5, "10.65.1.9", sport, port, "S")),
        });
    }
    all
}

#[test]
fn so_it_does_where_host_endpoints_have_a_say() {
    let (mut together, mut alone) = (protected(), protected());
    for (interface, frame) in packets().into_iter().chain(of_the_host()) {
        together.push(&interface, &frame);
        alone.push(&interface, &frame);
        alone.step(NOW);
    }
    together.step(NOW);
    let denied = |node: &Simulation| {
        use DropReason::{EndpointToHost, ForwardDenied, HostDenied, PolicyDenied, PreDnatDenied};
        [PreDnatDenied, ForwardDenied, HostDenied, PolicyDenied, EndpointToHost]
            .map(|reason| dropped(node, reason))
    };
    let reasons = denied(&together);
    assert_eq!(reasons, denied(&alone));
    assert!(reasons[1] > 20 && reasons[2] > 20 && reasons[3] > 20, "{reasons:?}");
    assert!(fate(together) == fate(alone), "judged together, packets fare otherwise");
}

#[test]
fn a_vector_fares_as_its_packets_do_one_by_one() {
    let (mut together, mut alone) = (node(), node());
    for (interface, frame) in packets() {
        together.push(&interface, &frame);
        alone.push(&interface, &frame);
        alone.step(NOW);
    }
    together.step(NOW);
    let (together, alone) = (fate(together), fate(alone));
    let sent: usize = together.0.values().map(Vec::len).sum();
    assert!(sent > 100 && together.1 > 100, "{sent} of the packets were sent, {} denied", together.1);
    assert!(together == alone, "judged together, packets fare otherwise");
}
