//! The flow table at its limit: who keeps a place, who is refused, and who passes all the same; and
//! flows that go with their workload.
#![allow(missing_docs)]

mod build;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::net::Nanos;
use margay_dataplane::nodes::Event;
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};

const FLOWS: u16 = 64;
const HOST: &str = "192.168.0.1";
const PEER: &str = "192.168.0.2";
/// The tap between the uplink and this host's stack.
const STACK: &str = "margay-up0";

fn node() -> Simulation {
    standard(Setup { flows: FLOWS.into(), ..Setup::default() })
}

fn flows(node: &Simulation) -> usize {
    node.workers.iter().map(|worker| worker.world().flows.len()).sum()
}

fn passes(node: &mut Simulation, by: &str, frame: &[u8], to: &str) -> bool {
    node.push(by, frame);
    node.step(NOW);
    node.check();
    node.pop(to).is_some()
}

/// A connection of workload 1 to workload 2, from this port.
fn establish(node: &mut Simulation, sport: u16) {
    assert!(passes(node, "cali1", &tcp_from(1, "10.65.0.2", sport, 80, "S"), "cali2"), "{sport}");
    assert!(passes(node, "cali2", &tcp_from(2, "10.65.0.1", 80, sport, "SA"), "cali1"), "{sport}");
    assert!(passes(node, "cali1", &tcp_from(1, "10.65.0.2", sport, 80, "A"), "cali2"), "{sport}");
}

fn fill(node: &mut Simulation) {
    (0..FLOWS).for_each(|n| establish(node, 1000 + n));
    assert_eq!(flows(node), usize::from(FLOWS));
}

#[test]
fn established_flows_keep_their_places_and_new_ones_are_refused_and_told_of() {
    let mut node = node();
    fill(&mut node);
    for sport in 20_000..20_500 {
        assert!(!passes(&mut node, "cali1", &tcp_from(1, "10.65.0.2", sport, 80, "S"), "cali2"));
    }
    assert_eq!(dropped(&node, DropReason::FlowTableFull), 500);
    for n in 0..FLOWS {
        assert!(passes(&mut node, "cali1", &tcp_from(1, "10.65.0.2", 1000 + n, 80, "A"), "cali2"), "{n}");
        assert!(passes(&mut node, "cali2", &tcp_from(2, "10.65.0.1", 80, 1000 + n, "A"), "cali1"), "{n}");
    }
    let told = |node: &Simulation| {
        node.drops.iter().filter(|event| matches!(event, Event::TableFull { .. })).count()
    };
    assert_eq!(told(&node), 1, "not once a packet");
    node.step(Nanos::from_secs(61));
    passes(&mut node, "cali1", &tcp_from(1, "10.65.0.2", 30_000, 80, "S"), "cali2");
    assert_eq!(told(&node), 2);
}

#[test]
fn half_open_flows_give_way_first() {
    let mut node = node();
    (0..FLOWS / 2).for_each(|n| establish(&mut node, 1000 + n));
    // A flood that policy allows: it takes the rest, and then its own places.
    for sport in 20_000..20_500 {
        assert!(passes(&mut node, "cali1", &tcp_from(1, "10.65.0.2", sport, 80, "S"), "cali2"), "{sport}");
    }
    assert_eq!((flows(&node), dropped(&node, DropReason::FlowTableFull)), (usize::from(FLOWS), 0));
    establish(&mut node, 30_000);
    for n in 0..FLOWS / 2 {
        assert!(passes(&mut node, "cali2", &tcp_from(2, "10.65.0.1", 80, 1000 + n, "A"), "cali1"), "{n}");
    }
}

#[test]
fn a_flood_that_policy_denies_leaves_no_state_and_takes_no_place() {
    for full in [false, true] {
        let mut node = node();
        if full {
            fill(&mut node);
        }
        let before = flows(&node);
        for sport in 20_000..21_000 {
            assert!(!passes(&mut node, "cali1", &tcp_from(1, "10.65.0.3", sport, 81, "S"), "cali3"));
        }
        assert_eq!((flows(&node), dropped(&node, DropReason::PolicyDenied)), (before, 1000));
        assert_eq!(dropped(&node, DropReason::FlowTableFull), 0);
    }
}

#[test]
fn failsafe_ports_of_the_host_are_open_however_full_it_is() {
    let mut node = node();
    let asked = frames::arp(PEER_MAC, margay_dataplane::wire::arp::Operation::Request, PEER, HOST);
    passes(&mut node, "eth0", &asked, "eth0");
    let mut changes = standard_changes();
    let failsafe = |port| vec![pb::FailsafePort { protocol: 6, port, net: None }];
    changes.push(change(Change::Config(pb::NodeConfig {
        failsafe_inbound: failsafe(22),
        failsafe_outbound: failsafe(179),
        ..Default::default()
    })));
    changes.push(change(Change::HostEndpoint(pb::HostEndpoint {
        id: "eth0".into(),
        interface_name: "eth0".into(),
        profile_ids: vec!["open".into()],
        ..Default::default()
    })));
    node.commit(changes).unwrap();
    node.step(NOW);
    fill(&mut node);

    let inward = |from, to, flags| tcp(PEER_MAC, UPLINK_MAC, PEER, HOST, from, to, flags);
    let outward = |from, to, flags| tcp(UPLINK_MAC, PEER_MAC, HOST, PEER, from, to, flags);
    for flags in ["S", "A", "FA"] {
        assert!(passes(&mut node, "eth0", &inward(4000, 22, flags), STACK), "in {flags}");
        let answer = if flags == "S" { "SA" } else { flags };
        assert!(passes(&mut node, STACK, &outward(22, 4000, answer), "eth0"), "back out {answer}");
        assert!(passes(&mut node, STACK, &outward(5000, 179, flags), "eth0"), "out {flags}");
        assert!(passes(&mut node, "eth0", &inward(179, 5000, answer), STACK), "back in {answer}");
    }
    assert!(!passes(&mut node, "eth0", &inward(4000, 80, "S"), STACK), "allowed, and no failsafe port");
    assert_eq!((flows(&node), dropped(&node, DropReason::FlowTableFull)), (usize::from(FLOWS), 1));
    // A workload's own packets to these ports are not the host's.
    assert!(!passes(&mut node, "cali1", &tcp_from(1, "10.65.0.2", 40_000, 22, "S"), "cali2"));
}

#[test]
fn a_workloads_flows_go_with_it_and_others_stay() {
    let mut node = standard(Setup { workers: 4, ..Setup::default() });
    for sport in 0..50 {
        establish(&mut node, 1000 + sport);
        assert!(passes(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 1000 + sport, 80, "S"), "cali3"));
    }
    assert_eq!(flows(&node), 100);
    node.commit(vec![change(Change::WorkloadEndpointRemove(endpoint_id(2)))]).unwrap();
    node.step(NOW);
    assert_eq!(flows(&node), 50);
    // The address is another's now: nothing of the old one's passes.
    node.commit(vec![change(Change::WorkloadEndpoint(endpoint(2, &[])))]).unwrap();
    node.step(NOW);
    assert!(!passes(&mut node, "cali2", &tcp_from(2, "10.65.0.1", 80, 1000, "SA"), "cali1"));
    assert!(passes(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 1000, 80, "S"), "cali3"));
}

#[test]
fn timeouts_and_strictness_change_under_live_flows() {
    use pb::node_config::{Midstream, TcpWindows};
    let mut node = standard(Setup { workers: 4, ..Setup::default() });
    let told =
        |node: &mut Simulation, config: pb::NodeConfig| node.commit(vec![change(Change::Config(config))]);
    let syn = |sport| tcp_from(1, "10.65.0.2", sport, 80, "S");
    let answer = |sport| tcp_from(2, "10.65.0.1", 80, sport, "SA");
    assert!(passes(&mut node, "cali1", &syn(1000), "cali2"));
    let timeouts = pb::ConntrackTimeouts { tcp_syn_sent_ms: 2_500, ..Default::default() };
    let config = pb::NodeConfig { conntrack_timeouts: Some(timeouts), ..Default::default() };
    told(&mut node, config.clone()).unwrap();
    node.step(Nanos::from_millis(2_400));
    assert!(passes(&mut node, "cali2", &answer(1000), "cali1"), "in time");
    node.step(Nanos::from_millis(2_500));
    assert!(!passes(&mut node, "cali2", &answer(1000), "cali1"), "too late");
    node.step(Nanos::from_secs(3));
    assert_eq!(flows(&node), 0);

    // In mid-stream, and with numbers from elsewhere.
    let ack = |sport| tcp_from(1, "10.65.0.2", sport, 80, "A");
    assert!(passes(&mut node, "cali1", &ack(1001), "cali2"));
    let refuse = pb::NodeConfig { midstream: Midstream::Refuse.into(), ..Default::default() };
    told(&mut node, refuse).unwrap();
    assert!(!passes(&mut node, "cali1", &ack(1002), "cali2"));
    assert!(passes(&mut node, "cali1", &ack(1001), "cali2"), "one that is known goes on");
    establish(&mut node, 1003);
    let far = |node: &mut Simulation| {
        let mut frame = ack(1003);
        frame[38] ^= 0x40;
        passes(node, "cali1", &frame, "cali2")
    };
    assert!(!far(&mut node));
    assert_eq!(dropped(&node, DropReason::TcpOutOfWindow), 1);
    let liberal = pb::NodeConfig { tcp_windows: TcpWindows::Liberal.into(), ..Default::default() };
    told(&mut node, liberal).unwrap();
    assert!(far(&mut node));

    let timeouts = pb::ConntrackTimeouts { udp_ms: 1 << 40, ..Default::default() };
    let config = pb::NodeConfig { conntrack_timeouts: Some(timeouts), ..Default::default() };
    let refused = told(&mut node, config).unwrap_err();
    assert_eq!(refused[0].error.field, "conntrack_timeouts.udp_ms");
    assert!(far(&mut node), "what was in force still is");
}
