//! Quotas of workloads: how many flows, how many new ones a second, over any number of workers.
#![allow(missing_docs)]

mod build;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change, qos_controls::Limit};
use margay_dataplane::conntrack::Side;
use margay_dataplane::net::Nanos;
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};

fn limited(n: u8, ingress: Limit, egress: Limit) -> Vec<pb::Change> {
    let qos = Some(pb::QosControls { ingress: Some(ingress), egress: Some(egress) });
    vec![change(Change::WorkloadEndpoint(pb::WorkloadEndpoint { qos, ..endpoint(n, &[]) }))]
}

fn node(workers: u8, changes: Vec<pb::Change>) -> Simulation {
    let mut node = standard(Setup { workers, ..Setup::default() });
    node.commit(changes).unwrap();
    node.step(NOW);
    node
}

fn most(max_connections: u64) -> Limit {
    Limit { max_connections, ..Limit::default() }
}

fn counted(node: &Simulation, interface: &str, side: Side) -> u32 {
    node.state.publisher().current().quotas.flows(node.state.id(interface).unwrap(), side)
}

/// How many of these frames come out.
fn passing(node: &mut Simulation, frames: &[Vec<u8>], to: &str) -> usize {
    frames.iter().for_each(|frame| node.push("cali1", frame));
    node.step(NOW);
    node.check();
    std::iter::from_fn(|| node.pop(to)).count()
}

fn opening(to: &str, ports: std::ops::Range<u16>) -> Vec<Vec<u8>> {
    ports.map(|sport| tcp_from(1, to, sport, 80, "S")).collect()
}

#[test]
fn a_workload_opens_as_many_flows_as_it_may_and_others_are_not_touched() {
    for workers in [1, 4] {
        let mut node = node(workers, limited(1, most(0), most(50)));
        assert_eq!(passing(&mut node, &opening("10.65.0.2", 1000..1200), "cali2"), 50);
        assert_eq!(dropped(&node, DropReason::QuotaFlows), 150);
        assert_eq!((counted(&node, "cali1", Side::Egress), counted(&node, "cali2", Side::Ingress)), (50, 0));
        // Its flows go on, and those that are opened to it are another matter.
        for sport in 1000..1200 {
            node.push("cali2", &tcp_from(2, "10.65.0.1", 80, sport, "SA"));
            node.push("cali2", &tcp_from(2, "10.65.0.1", sport, 443, "S"));
        }
        node.step(NOW);
        assert_eq!(std::iter::from_fn(|| node.pop("cali1")).count(), 50 + 200, "{workers} workers");
    }
}

#[test]
fn flows_to_a_workload_count_against_it_and_both_ends_must_agree() {
    let changes = [limited(1, most(0), most(20)), limited(2, most(30), most(0))].concat();
    let mut node = node(2, changes);
    assert_eq!(passing(&mut node, &opening("10.65.0.2", 1000..1010), "cali2"), 10);
    node.push("eth0", &udp(PEER_MAC, UPLINK_MAC, "10.65.1.9", "10.65.0.2", 4000, 53));
    node.step(NOW);
    assert_eq!(counted(&node, "cali2", Side::Ingress), 11);
    assert_eq!(passing(&mut node, &opening("10.65.0.2", 1010..1100), "cali2"), 11, "and the datagram");
    assert_eq!((counted(&node, "cali1", Side::Egress), counted(&node, "cali2", Side::Ingress)), (20, 21));
}

#[test]
fn a_flow_that_ends_makes_room_for_another() {
    let mut node = node(4, limited(1, most(0), most(10)));
    assert_eq!(passing(&mut node, &opening("10.65.0.2", 1000..1020), "cali2"), 10);
    // The handshake is never completed.
    node.step(Nanos::from_secs(21));
    node.step(Nanos::from_secs(2));
    assert_eq!(counted(&node, "cali1", Side::Egress), 0);
    assert_eq!(passing(&mut node, &opening("10.65.0.2", 2000..2020), "cali2"), 10);
    // Forgotten with the other end.
    node.commit(vec![change(Change::WorkloadEndpointRemove(endpoint_id(2)))]).unwrap();
    node.step(NOW);
    assert_eq!(counted(&node, "cali1", Side::Egress), 0);
}

#[test]
fn packets_of_one_flow_in_one_vector_count_once() {
    let mut node = node(1, limited(1, most(0), most(1)));
    let flow = vec![udp_from(1, "10.65.0.2", 53); 20];
    assert_eq!(passing(&mut node, &flow, "cali2"), 20);
    assert_eq!((counted(&node, "cali1", Side::Egress), node.account().drops), (1, 0));
}

#[test]
fn new_flows_a_second() {
    let rate = Limit { new_connections_per_second: 20, ..Limit::default() };
    let mut node = node(4, limited(1, Limit::default(), rate));
    node.step(Nanos::from_secs(5));
    assert_eq!(passing(&mut node, &opening("10.65.0.2", 1000..1100), "cali2"), 20);
    assert_eq!(dropped(&node, DropReason::QuotaRate), 80);
    node.step(Nanos::from_millis(500));
    assert_eq!(passing(&mut node, &opening("10.65.0.2", 2000..2100), "cali2"), 10);
    assert_eq!(counted(&node, "cali1", Side::Egress), 30);
}

#[test]
fn what_policy_denies_or_finds_no_room_is_not_counted() {
    let mut node = standard(Setup { flows: 8, ..Setup::default() });
    node.commit(limited(1, most(0), most(100))).unwrap();
    node.step(NOW);
    let denied: Vec<_> = (1000..1100).map(|sport| tcp_from(1, "10.65.0.3", sport, 81, "S")).collect();
    assert_eq!(passing(&mut node, &denied, "cali3"), 0);
    assert_eq!(counted(&node, "cali1", Side::Egress), 0);
    passing(&mut node, &opening("10.65.0.2", 1000..1100), "cali2");
    assert_eq!(dropped(&node, DropReason::FlowTableFull), 92, "none may be given up within a vector");
    assert_eq!(counted(&node, "cali1", Side::Egress), 8);
    // Half-open ones give way to others, and are given back.
    for sport in 2000..2050 {
        assert_eq!(passing(&mut node, &opening("10.65.0.2", sport..sport + 1), "cali2"), 1);
    }
    assert_eq!(counted(&node, "cali1", Side::Egress), 8);
}

#[test]
fn a_limit_may_come_change_and_go_while_flows_live() {
    let mut node = node(2, vec![]);
    assert_eq!(passing(&mut node, &opening("10.65.0.2", 1000..1010), "cali2"), 10);
    node.commit(limited(1, most(0), most(5))).unwrap();
    node.step(NOW);
    assert_eq!(
        passing(&mut node, &opening("10.65.0.2", 2000..2010), "cali2"),
        5,
        "older ones are not counted"
    );
    node.commit(limited(1, most(0), most(2))).unwrap();
    node.step(NOW);
    assert_eq!(passing(&mut node, &opening("10.65.0.2", 3000..3010), "cali2"), 0);
    node.commit(limited(1, most(0), most(0))).unwrap();
    node.step(NOW);
    assert_eq!(passing(&mut node, &opening("10.65.0.2", 4000..4010), "cali2"), 10);
    node.step(Nanos::from_secs(30));
    assert_eq!(counted(&node, "cali1", Side::Egress), 0);
}

#[test]
fn limits_that_are_not_enforced_are_refused_by_name() {
    let mut node = standard(Setup::default());
    let packet_rate = Limit { packet_rate: 1000, ..Limit::default() };
    let refused = node.commit(limited(1, Limit::default(), packet_rate)).unwrap_err();
    assert!(refused[0].error.to_string().contains("qos.egress.packet_rate"), "{refused:?}");
    let refused = node.commit(limited(1, most(1 << 40), Limit::default())).unwrap_err();
    assert!(refused[0].error.to_string().contains("qos.ingress.max_connections"), "{refused:?}");
}
