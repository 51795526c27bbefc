//! Host endpoints, in memory: what each kind of policy does to each kind of traffic.
#![allow(missing_docs)]

mod build;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::net::Mac;
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};

/// The tap that stands between the uplink and this host's stack.
const STACK: &str = "margay-up0";
const HOST: &str = "192.168.0.1";
const PEER: &str = "192.168.0.2";
const ALLOW: pb::Action = pb::Action::Allow;
const DENY: pb::Action = pb::Action::Deny;

/// From the network to this host.
fn inward(from: u16, to: u16, flags: &str) -> Vec<u8> {
    tcp(PEER_MAC, UPLINK_MAC, PEER, HOST, from, to, flags)
}

/// From the network to a workload.
fn to_port_of(n: u8, port: u16) -> Vec<u8> {
    tcp(PEER_MAC, UPLINK_MAC, PEER, &format!("10.65.0.{n}"), 4000, port, "S")
}

/// From this host to the network.
fn outward(from: u16, to: u16, flags: &str) -> Vec<u8> {
    tcp(UPLINK_MAC, PEER_MAC, HOST, PEER, from, to, flags)
}

/// A rule about TCP to a port, or from one.
fn to_port(action: pb::Action, port: u32) -> pb::Rule {
    let dst_ports = vec![pb::PortRange { first: port, last: port }];
    pb::Rule { action: action.into(), protocol: Some(6), dst_ports, ..Default::default() }
}

fn from_port(action: pb::Action, port: u32) -> pb::Rule {
    let src_ports = vec![pb::PortRange { first: port, last: port }];
    pb::Rule { action: action.into(), protocol: Some(6), src_ports, ..Default::default() }
}

fn any(action: pb::Action) -> pb::Rule {
    pb::Rule { action: action.into(), ..Default::default() }
}

/// A policy with these rules, and a tier that it is alone in.
fn rules(name: &str, inbound: Vec<pb::Rule>, outbound: Vec<pb::Rule>) -> pb::Change {
    change(Change::Policy(pb::Policy {
        id: Some(policy_id(name)),
        tier: "default".into(),
        inbound_rules: inbound,
        outbound_rules: outbound,
        ..Default::default()
    }))
}

fn tier(default: pb::Action, ingress: &[&str], egress: &[&str]) -> Vec<pb::TierBinding> {
    let ids = |names: &[&str]| names.iter().map(|name| policy_id(name)).collect();
    vec![pb::TierBinding {
        name: "default".into(),
        ingress_policies: ids(ingress),
        egress_policies: ids(egress),
        default_action: default.into(),
    }]
}

/// Protects `eth0`, without policy yet.
fn eth0() -> pb::HostEndpoint {
    pb::HostEndpoint { id: "eth0".into(), interface_name: "eth0".into(), ..Default::default() }
}

fn failsafe(inbound: &[u32], outbound: &[u32]) -> pb::Change {
    let tcp = |ports: &[u32]| {
        ports.iter().map(|port| pb::FailsafePort { protocol: 6, port: *port, net: None }).collect()
    };
    change(Change::Config(pb::NodeConfig {
        failsafe_inbound: tcp(inbound),
        failsafe_outbound: tcp(outbound),
        ..Default::default()
    }))
}

/// The standard node with a host endpoint and more. The way to the other node is known.
fn protected(host: pb::HostEndpoint, more: Vec<pb::Change>) -> Simulation {
    let mut node = standard(Setup::default());
    node.push("eth0", &frames::arp(PEER_MAC, margay_dataplane::wire::arp::Operation::Request, PEER, HOST));
    node.step(NOW);
    while node.pop("eth0").is_some() {}
    commit(&mut node, host, more);
    node
}

fn commit(node: &mut Simulation, host: pb::HostEndpoint, more: Vec<pb::Change>) {
    let mut changes = standard_changes();
    changes.extend(more);
    changes.push(change(Change::HostEndpoint(host)));
    node.commit(changes).unwrap();
    node.step(NOW);
}

/// Puts a frame in, and whether it came out, unchanged or not, by `to`.
fn passes(node: &mut Simulation, by: &str, frame: &[u8], to: &str) -> bool {
    node.push(by, frame);
    node.step(NOW);
    node.check();
    node.pop(to).is_some()
}

fn comes_in(node: &mut Simulation, frame: &[u8]) -> bool {
    passes(node, "eth0", frame, STACK)
}

fn goes_out(node: &mut Simulation, frame: &[u8]) -> bool {
    passes(node, STACK, frame, "eth0")
}

#[test]
fn policy_12_without_policy_and_profiles_only_failsafe_ports_are_open_to_the_host() {
    let mut node = protected(eth0(), vec![failsafe(&[22], &[179])]);
    assert!(comes_in(&mut node, &inward(4000, 22, "S")));
    assert!(goes_out(&mut node, &outward(22, 4000, "SA")), "the answer is of the flow");
    assert!(!comes_in(&mut node, &inward(4000, 80, "S")));
    assert!(goes_out(&mut node, &outward(4000, 179, "S")));
    assert!(comes_in(&mut node, &inward(179, 4000, "SA")));
    assert!(!goes_out(&mut node, &outward(4000, 80, "S")));
    assert_eq!(dropped(&node, DropReason::HostDenied), 2);
    assert!(passes(&mut node, "eth0", &to_port_of(1, 80), "cali1"), "what is forwarded is not denied");
    assert!(passes(&mut node, "cali1", &tcp_from(1, PEER, 4000, 80, "S"), "eth0"));
}

#[test]
fn policy_12_normal_policy_then_profiles_judge_the_hosts_own_traffic() {
    let host = pb::HostEndpoint {
        tiers: tier(pb::Action::Pass, &["in"], &["out"]),
        profile_ids: vec!["half-open".into()],
        ..eth0()
    };
    let profile = pb::Profile {
        name: "half-open".into(),
        inbound_rules: vec![to_port(ALLOW, 8080)],
        outbound_rules: vec![to_port(ALLOW, 53)],
    };
    let rules = rules("in", vec![to_port(ALLOW, 80), to_port(DENY, 8081)], vec![]);
    let out = self::rules("out", vec![], vec![to_port(ALLOW, 443)]);
    let mut node = protected(host, vec![rules, out, change(Change::Profile(profile))]);
    for (port, open) in [(80, true), (8080, true), (8081, false), (22, false)] {
        assert_eq!(comes_in(&mut node, &inward(4000, port, "S")), open, "in {port}");
    }
    for (port, open) in [(443, true), (53, true), (80, false)] {
        assert_eq!(goes_out(&mut node, &outward(4000, port, "S")), open, "out {port}");
    }
    assert_eq!(dropped(&node, DropReason::HostDenied), 3);
}

#[test]
fn the_hosts_packets_arrive_and_leave_as_they_came() {
    let mut node = protected(pb::HostEndpoint { profile_ids: vec!["open".into()], ..eth0() }, vec![]);
    // A neighbour's session may have a time to live of one (RFC 5082 §2): it ends here.
    let mut last_hop = vec![];
    let step = ip(PEER_MAC, UPLINK_MAC, PEER, HOST, 1).tcp(4000, 179, 1000, 1024).syn();
    step.write(&mut last_hop, b"").unwrap();
    let frames = [(last_hop, "eth0", STACK), (outward(179, 4000, "SA"), STACK, "eth0")];
    for _ in 0..2 {
        for (frame, by, to) in &frames {
            node.push(by, frame);
            node.step(NOW);
            node.check();
            assert_eq!(node.pop(to).as_ref(), Some(frame), "the first time judged, then by the flow");
        }
    }
}

#[test]
fn policy_12_untracked_policy_goes_before_conntrack_and_makes_no_flow() {
    let host = pb::HostEndpoint {
        untracked_tiers: tier(pb::Action::Pass, &["fast"], &["fast"]),
        tiers: tier(DENY, &["deny"], &["deny"]),
        ..eth0()
    };
    let fast = rules("fast", vec![to_port(ALLOW, 7), to_port(DENY, 8)], vec![from_port(ALLOW, 7)]);
    let deny = rules("deny", vec![to_port(ALLOW, 9)], vec![]);
    let mut node = protected(host, vec![fast, deny]);
    assert!(comes_in(&mut node, &inward(4000, 7, "S")), "allowed: normal policy is not asked");
    assert!(goes_out(&mut node, &outward(7, 4000, "SA")));
    assert_eq!(node.workers[0].world().flows.len(), 0);
    assert!(!comes_in(&mut node, &inward(4000, 8, "S")));
    assert_eq!(dropped(&node, DropReason::UntrackedDenied), 1);
    assert!(comes_in(&mut node, &inward(4000, 9, "S")), "no match goes on to normal policy");
    assert!(!comes_in(&mut node, &inward(4000, 10, "S")));
    assert_eq!(dropped(&node, DropReason::HostDenied), 1);
    assert_eq!(node.workers[0].world().flows.len(), 1);
}

#[test]
fn policy_15_untracked_policy_needs_both_directions_written() {
    let host = pb::HostEndpoint { untracked_tiers: tier(pb::Action::Pass, &["fast"], &[]), ..eth0() };
    let fast = rules("fast", vec![to_port(ALLOW, 7)], vec![]);
    let mut node = protected(host, vec![fast]);
    assert!(comes_in(&mut node, &inward(4000, 7, "S")));
    assert!(!goes_out(&mut node, &outward(7, 4000, "SA")), "no flow lets the answer out");
}

#[test]
fn policy_16_workloads_policy_judges_also_what_untracked_policy_let_in() {
    let host = pb::HostEndpoint { untracked_tiers: tier(pb::Action::Pass, &["fast"], &[]), ..eth0() };
    let mut node = protected(host, vec![rules("fast", vec![any(ALLOW)], vec![])]);
    assert!(passes(&mut node, "eth0", &to_port_of(3, 80), "cali3"));
    assert!(!passes(&mut node, "eth0", &to_port_of(3, 81), "cali3"));
    assert_eq!(dropped(&node, DropReason::PolicyDenied), 1);
    assert_eq!(node.workers[0].world().flows.len(), 0, "it is forwarded packet by packet");
}

#[test]
fn what_untracked_policy_let_in_waits_for_its_next_hop_and_stays_untracked() {
    let host = pb::HostEndpoint { untracked_tiers: tier(pb::Action::Pass, &["fast"], &[]), ..eth0() };
    let mut quiet = endpoint(4, &[]);
    quiet.mac = vec![];
    let more = vec![
        rules("fast", vec![any(ALLOW)], vec![]),
        change(Change::WorkloadEndpoint(quiet)),
        to_workload(4).remove(0),
    ];
    let mut node = protected(host, more);
    assert!(passes(&mut node, "eth0", &to_port_of(4, 80), "cali4"), "the question for its station");
    assert_eq!(node.account().in_flight, 1);
    let answer =
        frames::arp(workload_mac(4), margay_dataplane::wire::arp::Operation::Reply, "10.65.0.4", PEER);
    assert!(passes(&mut node, "cali4", &answer, "cali4"));
    assert_eq!((node.account().in_flight, node.workers[0].world().flows.len()), (0, 0));
}

#[test]
fn policy_12_pre_dnat_policy_judges_all_that_comes_in_and_drops_nothing_at_its_end() {
    let host = pb::HostEndpoint {
        pre_dnat_tiers: tier(pb::Action::Pass, &["door"], &[]),
        forward_tiers: tier(DENY, &["none"], &["none"]),
        ..eth0()
    };
    let door = rules("door", vec![to_port(ALLOW, 80), to_port(DENY, 81)], vec![]);
    let mut node = protected(host, vec![door, rules("none", vec![], vec![]), failsafe(&[22], &[])]);
    assert!(comes_in(&mut node, &inward(4000, 80, "S")), "allowed: normal policy is not asked");
    assert!(!comes_in(&mut node, &inward(4000, 81, "S")));
    assert!(passes(&mut node, "eth0", &to_port_of(1, 80), "cali1"), "nor forward policy");
    assert!(!passes(&mut node, "eth0", &to_port_of(1, 81), "cali1"));
    assert_eq!(dropped(&node, DropReason::PreDnatDenied), 2);
    assert!(comes_in(&mut node, &inward(4000, 22, "S")));
    assert!(!comes_in(&mut node, &inward(4000, 82, "S")), "no match: normal policy denies");
    assert!(!passes(&mut node, "eth0", &to_port_of(1, 82), "cali1"), "no match: forward policy denies");
    assert_eq!((dropped(&node, DropReason::HostDenied), dropped(&node, DropReason::ForwardDenied)), (1, 1));
}

#[test]
fn policy_12_forward_policy_judges_both_directions_of_what_is_forwarded_and_nothing_else() {
    let host = pb::HostEndpoint {
        forward_tiers: tier(DENY, &["forward"], &["forward"]),
        profile_ids: vec!["open".into()],
        ..eth0()
    };
    let forward = rules("forward", vec![to_port(ALLOW, 80), to_port(ALLOW, 81)], vec![to_port(ALLOW, 443)]);
    let mut node = protected(host, vec![forward]);
    assert!(passes(&mut node, "eth0", &to_port_of(3, 80), "cali3"));
    assert!(!passes(&mut node, "eth0", &to_port_of(3, 81), "cali3"), "the workload's own policy too");
    assert!(!passes(&mut node, "eth0", &to_port_of(1, 82), "cali1"));
    assert!(passes(&mut node, "cali1", &tcp_from(1, PEER, 4000, 443, "S"), "eth0"));
    assert!(!passes(&mut node, "cali1", &tcp_from(1, PEER, 4000, 80, "S"), "eth0"));
    assert_eq!(dropped(&node, DropReason::ForwardDenied), 2);
    assert!(passes(&mut node, "cali1", &udp_from(1, "10.65.0.2", 53), "cali2"), "not by the uplink");
    assert!(comes_in(&mut node, &inward(4000, 82, "S")) && goes_out(&mut node, &outward(4000, 80, "S")));
}

#[test]
fn policy_13_failsafe_ports_pass_every_stage_for_the_host_and_none_for_others() {
    let deny = || rules("deny", vec![any(DENY)], vec![any(DENY)]);
    let stages: [fn(&mut pb::HostEndpoint); 3] = [
        |host| host.untracked_tiers = tier(pb::Action::Pass, &["deny"], &["deny"]),
        |host| host.pre_dnat_tiers = tier(pb::Action::Pass, &["deny"], &[]),
        |host| host.tiers = tier(DENY, &["deny"], &["deny"]),
    ];
    for stage in stages {
        let mut host = pb::HostEndpoint { forward_tiers: tier(DENY, &["deny"], &["deny"]), ..eth0() };
        stage(&mut host);
        let mut node = protected(host, vec![deny(), failsafe(&[22], &[179])]);
        assert!(comes_in(&mut node, &inward(4000, 22, "S")));
        assert!(goes_out(&mut node, &outward(22, 4000, "SA")));
        assert!(comes_in(&mut node, &inward(4000, 22, "A")));
        assert!(goes_out(&mut node, &outward(4000, 179, "S")));
        assert!(comes_in(&mut node, &inward(179, 4000, "SA")), "untracked policy lets answers by, too");
        assert!(!comes_in(&mut node, &inward(4000, 80, "S")));
        assert!(!passes(&mut node, "eth0", &to_port_of(1, 22), "cali1"));
        assert!(!passes(&mut node, "cali1", &tcp_from(1, PEER, 4000, 179, "S"), "eth0"));
    }
}

#[test]
fn policy_13_a_failsafe_port_may_be_for_some_only() {
    let port = pb::FailsafePort { protocol: 6, port: 22, net: Some(prefix("192.168.0.2/32")) };
    let config = pb::NodeConfig { failsafe_inbound: vec![port], ..Default::default() };
    let mut node = protected(eth0(), vec![change(Change::Config(config))]);
    assert!(comes_in(&mut node, &inward(4000, 22, "S")));
    let other = tcp(PEER_MAC, UPLINK_MAC, "192.168.0.3", HOST, 4000, 22, "S");
    assert!(!comes_in(&mut node, &other));
}

#[test]
fn policy_14_a_host_speaks_to_its_own_workloads_whatever_their_policy() {
    const TAP: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
    let frame = || {
        let ours = margay_dataplane::fib::Interfaces::HOST_PORT_MAC;
        tcp(TAP, ours, HOST, "10.65.0.3", 4000, 81, "S")
    };
    let all = pb::HostEndpoint { interface_name: "*".into(), ..eth0() };
    let forbidding = pb::HostEndpoint {
        tiers: tier(DENY, &["deny"], &["deny"]),
        forward_tiers: tier(DENY, &["deny"], &["deny"]),
        ..all
    };
    for host in [None, Some(forbidding)] {
        let mut node = standard(Setup::default());
        node.host("tap0", TAP);
        if let Some(host) = host {
            commit(&mut node, host, vec![rules("deny", vec![any(DENY)], vec![any(DENY)])]);
        }
        assert!(passes(&mut node, "tap0", &frame(), "cali3"));
        let answer = tcp_from(3, HOST, 81, 4000, "SA");
        assert!(passes(&mut node, "cali3", &answer, "tap0"), "its answer is of the flow");
    }
}

#[test]
fn policy_14_from_a_workload_to_its_host_only_its_egress_and_the_configured_action_count() {
    let all = pb::HostEndpoint { interface_name: "*".into(), ..eth0() };
    let config = pb::NodeConfig { endpoint_to_host_action: ALLOW.into(), ..Default::default() };
    let mut node = standard(Setup::default());
    node.host("tap0", Mac([2, 0, 0, 0, 0, 0x77]));
    commit(&mut node, all.clone(), vec![]);
    let frame = tcp_from(1, HOST, 4000, 80, "S");
    assert!(!passes(&mut node, "cali1", &frame, "tap0"));
    assert_eq!(dropped(&node, DropReason::EndpointToHost), 1);
    commit(&mut node, all, vec![change(Change::Config(config))]);
    assert!(passes(&mut node, "cali1", &frame, "tap0"), "normal policy would deny");
}

#[test]
fn from_a_workload_to_its_host_normal_policy_decides_where_it_is_handed_on() {
    let returns = pb::NodeConfig {
        endpoint_to_host_action: pb::Action::Pass.into(),
        failsafe_inbound: vec![pb::FailsafePort { protocol: 6, port: 22, net: None }],
        ..Default::default()
    };
    let mut node = standard(Setup::default());
    node.host("tap0", Mac([2, 0, 0, 0, 0, 0x77]));
    node.commit(vec![change(Change::Config(returns.clone()))]).unwrap();
    let to = |port| tcp_from(1, HOST, 4000 + port, port, "S");
    assert!(passes(&mut node, "cali1", &to(79), "tap0"), "without a host endpoint the host's stack decides");

    let all = pb::HostEndpoint {
        interface_name: "*".into(),
        tiers: tier(DENY, &["in"], &[]),
        pre_dnat_tiers: tier(pb::Action::Pass, &["early"], &[]),
        ..eth0()
    };
    let policies = vec![
        change(Change::Config(returns)),
        rules("in", vec![to_port(ALLOW, 80)], vec![]),
        rules("early", vec![to_port(ALLOW, 81)], vec![]),
        rules("own", vec![], vec![to_port(DENY, 83), any(ALLOW)]),
    ];
    commit(&mut node, all.clone(), policies.clone());
    assert!(passes(&mut node, "cali1", &to(80), "tap0"));
    assert!(passes(&mut node, "cali1", &to(81), "tap0"), "preDNAT policy has let it in");
    assert!(!passes(&mut node, "cali1", &to(82), "tap0"));
    assert!(!passes(&mut node, "cali1", &to(22), "tap0"), "failsafe ports are for the host's own traffic");
    assert_eq!(dropped(&node, DropReason::HostDenied), 2);

    let mut workload = endpoint(1, &[]);
    workload.tiers = tier(DENY, &[], &["own"]);
    let own = change(Change::WorkloadEndpoint(workload));
    commit(&mut node, all, [policies, vec![own]].concat());
    assert!(!passes(&mut node, "cali1", &to(83), "tap0"), "its own egress policy is asked first");
    assert_eq!(dropped(&node, DropReason::PolicyDenied), 1);
}

#[test]
fn a_host_endpoint_for_all_interfaces_forwards_between_workloads_by_its_forward_policy() {
    let host = pb::HostEndpoint {
        interface_name: "*".into(),
        forward_tiers: tier(DENY, &["forward"], &["forward"]),
        ..eth0()
    };
    let forward = rules("forward", vec![to_port(ALLOW, 80), to_port(ALLOW, 82)], vec![to_port(ALLOW, 80)]);
    let mut node = protected(host, vec![forward]);
    let between = |port| tcp_from(1, "10.65.0.2", 4000, port, "S");
    assert!(passes(&mut node, "cali1", &between(80), "cali2"));
    assert!(!passes(&mut node, "cali1", &between(81), "cali2"), "in by the first workload's interface");
    assert!(!passes(&mut node, "cali1", &between(82), "cali2"), "out by the second's");
    assert_eq!(dropped(&node, DropReason::ForwardDenied), 2);
    assert!(!comes_in(&mut node, &inward(4000, 80, "S")), "and the host's own traffic by the others");
}

#[test]
fn the_one_that_names_an_interface_goes_before_all_interfaces_and_the_first_by_name_before_others() {
    let open = |id: &str, on: &str, port: u32| {
        let name = format!("p{port}");
        let host = pb::HostEndpoint {
            id: id.into(),
            interface_name: on.into(),
            tiers: tier(DENY, &[&name], &[]),
            ..Default::default()
        };
        (host, rules(&name, vec![to_port(ALLOW, port)], vec![]))
    };
    let (first, first_rules) = open("a", "*", 80);
    let (second, second_rules) = open("c", "eth0", 81);
    let (mut third, third_rules) = open("b", "", 82);
    third.expected_addresses = vec![bytes(addr(HOST))];
    let host = |host: &pb::HostEndpoint| change(Change::HostEndpoint(host.clone()));
    let opened = |node: &mut Simulation| [80, 81, 82].map(|port| comes_in(node, &inward(4000, port, "S")));
    let all = vec![first_rules, second_rules, third_rules];
    let mut node = protected(first.clone(), all.clone());
    assert_eq!(opened(&mut node), [true, false, false]);
    node.commit(vec![host(&second)]).unwrap();
    assert_eq!(opened(&mut node), [true, true, false], "port 80: its flow lives on");
    node.commit(vec![host(&third)]).unwrap();
    let fresh = |port| inward(5000, port, "S");
    assert_eq!([80, 81, 82].map(|port| comes_in(&mut node, &fresh(port))), [false, false, true]);
    node.commit(vec![change(Change::HostEndpointRemove("b".into()))]).unwrap();
    assert!(comes_in(&mut node, &inward(6000, 81, "S")));
}

#[test]
fn policy_11_flows_of_the_host_survive_a_new_deny_unless_recheck_is_asked_for() {
    let host = || pb::HostEndpoint { tiers: tier(DENY, &["ssh"], &[]), ..eth0() };
    let established = |how: pb::node_config::Established| {
        change(Change::Config(pb::NodeConfig { established: how.into(), ..Default::default() }))
    };
    let open = || rules("ssh", vec![to_port(ALLOW, 22)], vec![]);
    let shut = || rules("ssh", vec![], vec![]);
    let mut node = protected(host(), vec![open()]);
    assert!(comes_in(&mut node, &inward(4000, 22, "S")) && goes_out(&mut node, &outward(22, 4000, "SA")));
    commit(&mut node, host(), vec![shut(), established(pb::node_config::Established::Keep)]);
    assert!(comes_in(&mut node, &inward(4000, 22, "A")) && goes_out(&mut node, &outward(22, 4000, "A")));
    assert!(!comes_in(&mut node, &inward(4001, 22, "S")), "new ones do not begin");
    commit(&mut node, host(), vec![shut(), established(pb::node_config::Established::Recheck)]);
    assert!(!goes_out(&mut node, &outward(22, 4000, "A")), "judged by the flow's first direction");
    assert!(!comes_in(&mut node, &inward(4000, 22, "A")));
    commit(&mut node, host(), vec![open(), established(pb::node_config::Established::Recheck)]);
    assert!(goes_out(&mut node, &outward(22, 4000, "A")) && comes_in(&mut node, &inward(4000, 22, "A")));
}

#[test]
fn multicast_broadcast_and_link_local_reach_the_host_by_its_policy_and_are_never_forwarded() {
    let group = Mac([1, 0, 0x5e, 0, 0, 0xfb]);
    let frames = [
        udp(PEER_MAC, group, PEER, "224.0.0.251", 5353, 5353),
        udp(PEER_MAC, Mac::BROADCAST, "0.0.0.0", "255.255.255.255", 68, 67),
        udp(PEER_MAC, Mac::BROADCAST, PEER, "192.168.0.255", 9, 9),
    ];
    let link_local = udp(PEER_MAC, UPLINK_MAC, "fe80::2", "fe80::1", 546, 547);
    let elsewhere = udp(PEER_MAC, UPLINK_MAC, "fe80::2", "fd65::1", 546, 547);
    for (profiles, open) in [(vec!["open".to_owned()], true), (vec![], false)] {
        let mut node = protected(pb::HostEndpoint { profile_ids: profiles, ..eth0() }, vec![]);
        node.state.set_host_addresses([addr("fe80::1")]);
        node.step(NOW);
        for frame in frames.iter().chain([&link_local]) {
            assert_eq!(comes_in(&mut node, frame), open);
        }
        assert_eq!(dropped(&node, DropReason::HostDenied), if open { 0 } else { 4 });
        assert!(!passes(&mut node, "eth0", &elsewhere, "cali1"));
        assert_eq!(dropped(&node, DropReason::Martian), 1);
    }
    let mut bare = standard(Setup::default());
    for frame in &frames {
        bare.push("eth0", frame);
    }
    bare.step(NOW);
    assert_eq!(dropped(&bare, DropReason::Multicast), 3, "without a host endpoint nothing changed");
}

#[test]
fn every_worker_agrees_about_the_hosts_flows() {
    let mut node = standard(Setup { workers: 4, ..Setup::default() });
    commit(
        &mut node,
        pb::HostEndpoint { tiers: tier(DENY, &["in"], &[]), ..eth0() },
        vec![rules("in", vec![to_port(ALLOW, 80)], vec![])],
    );
    for port in 4000..4200 {
        assert!(comes_in(&mut node, &inward(port, 80, "S")));
        assert!(goes_out(&mut node, &outward(80, port, "SA")), "{port}: its owner knows the flow");
        assert!(!comes_in(&mut node, &inward(port, 81, "S")));
    }
}

#[test]
fn a_denial_names_the_host_endpoint_and_its_stage() {
    use margay_dataplane::control::{HostList, Stage};
    use margay_dataplane::nodes::Event;
    use margay_dataplane::policy::EndpointIdx;
    let host = pb::HostEndpoint { pre_dnat_tiers: tier(pb::Action::Pass, &["door"], &[]), ..eth0() };
    let mut node = protected(host, vec![rules("door", vec![to_port(DENY, 81)], vec![])]);
    node.drops.clear();
    comes_in(&mut node, &inward(4000, 81, "S"));
    let Event::Dropped { reason, deciding: Some(deciding), .. } = node.drops[0] else { panic!() };
    assert_eq!((reason, deciding.ingress, deciding.slot), (DropReason::PreDnatDenied, true, 0));
    let list = node.state.host_list(EndpointIdx(deciding.endpoint));
    assert_eq!(list, Some(&HostList::Of("eth0".into(), Stage::PreDnat)));
}

#[test]
fn a_host_endpoint_that_goes_leaves_the_uplink_as_it_was() {
    let mut node = protected(eth0(), vec![]);
    assert!(!passes(&mut node, "cali1", &udp_from(1, HOST, 53), STACK));
    assert!(!comes_in(&mut node, &inward(4000, 80, "S")));
    node.commit(vec![change(Change::HostEndpointRemove("eth0".into()))]).unwrap();
    for _ in 0..3 {
        node.step(NOW);
    }
    node.check();
    assert!(node.state.id(STACK).is_none() && node.state.retiring().is_empty());
    assert!(node.state.publisher().current().protection.is_none());
    node.push("eth0", &inward(4000, 80, "S"));
    node.step(NOW);
    assert_eq!(dropped(&node, DropReason::NoHostPort), 1);
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let cases: Vec<(pb::HostEndpoint, &str, &str)> = vec![
        (pb::HostEndpoint { id: String::new(), ..eth0() }, "id", "missing"),
        (pb::HostEndpoint { interface_name: "eth1".into(), ..eth0() }, "interface_name", "--uplink eth1"),
        (pb::HostEndpoint { interface_name: "cali1".into(), ..eth0() }, "interface_name", "no uplink"),
        (
            pb::HostEndpoint { interface_name: String::new(), ..eth0() },
            "interface_name",
            "expected_addresses",
        ),
        (
            pb::HostEndpoint { untracked_tiers: tier(DENY, &["web"], &[]), ..eth0() },
            "untracked_tiers[0].default_action",
            "PASS",
        ),
        (
            pb::HostEndpoint { pre_dnat_tiers: tier(pb::Action::Pass, &[], &["web"]), ..eth0() },
            "pre_dnat_tiers[0].egress_policies",
            "no egress",
        ),
    ];
    let mut node = standard(Setup::default());
    for (host, field, word) in cases {
        let errors = node.commit(vec![change(Change::HostEndpoint(host.clone()))]).unwrap_err();
        assert_eq!(errors[0].error.field, field, "{host:?}");
        assert!(errors[0].error.message.contains(word), "{}", errors[0].error.message);
    }
    let port = pb::FailsafePort { protocol: 1, port: 22, net: None };
    let config = pb::NodeConfig { failsafe_inbound: vec![port], ..Default::default() };
    let errors = node.commit(vec![change(Change::Config(config))]).unwrap_err();
    assert_eq!(errors[0].error.field, "failsafe_inbound[0].protocol");

    node.vlan("eth0", 100, UPLINK_MAC, &[(addr("172.16.0.1"), 24)]);
    let all = pb::HostEndpoint { interface_name: "*".into(), ..eth0() };
    let errors = node.commit(vec![change(Change::HostEndpoint(all))]).unwrap_err();
    assert!(errors[0].error.message.contains("eth0.100 is a VLAN"), "{}", errors[0].error.message);
    assert!(node.state.publisher().current().protection.is_none(), "nothing of it is in force");
}

#[test]
fn what_is_missing_denies() {
    let host = pb::HostEndpoint { tiers: tier(DENY, &["nowhere"], &[]), ..eth0() };
    let mut node = protected(host, vec![failsafe(&[22], &[])]);
    assert!(!comes_in(&mut node, &inward(4000, 80, "S")));
    assert!(comes_in(&mut node, &inward(4000, 22, "S")));
}
