//! What tests build their node of: messages, frames, a standard little node.
#![allow(dead_code, missing_docs)]

pub mod frames;
mod seeded;
pub mod wireguard;

use etherparse::PacketBuilder;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::net::{Addr, Mac, Nanos, Prefix};
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};

pub use seeded::Seeded;

pub const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xff]);
pub const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);

/// When most of it happens.
pub const NOW: Nanos = Nanos(1000);

/// Puts a frame in and lets it run; checks the account.
pub fn give(node: &mut Simulation, interface: &str, frame: &[u8]) {
    node.push(interface, frame);
    node.step(NOW);
    node.check();
}

/// Packets that all workers dropped for a reason.
pub fn dropped(node: &Simulation, reason: DropReason) -> u64 {
    node.workers.iter().map(|worker| worker.world().counters.dropped(reason).get()).sum()
}

pub fn addr(s: &str) -> Addr {
    s.parse().unwrap()
}

pub fn bytes(addr: Addr) -> Vec<u8> {
    if addr.is_v4() { addr.v4_octets().to_vec() } else { addr.octets().to_vec() }
}

pub fn prefix(s: &str) -> pb::Prefix {
    let prefix: Prefix = s.parse().unwrap();
    pb::Prefix { address: bytes(prefix.addr()), length: prefix.len().into() }
}

pub fn change(change: Change) -> pb::Change {
    pb::Change { change: Some(change) }
}

/// The address of workload `n`.
pub const fn workload_mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, n])
}

pub fn endpoint_id(n: u8) -> pb::WorkloadEndpointId {
    pb::WorkloadEndpointId {
        orchestrator: "k8s".into(),
        workload: format!("default/w{n}"),
        endpoint: "eth0".into(),
    }
}

/// Workload `n`: `cali<n>`, 10.65.0.n and fd65::n, profile `open`, policies of `policies` in
/// tier default both ways.
pub fn endpoint(n: u8, policies: &[&str]) -> pb::WorkloadEndpoint {
    let ids: Vec<_> = policies.iter().map(|name| policy_id(name)).collect();
    let tier = pb::TierBinding {
        name: "default".into(),
        ingress_policies: ids,
        egress_policies: vec![],
        default_action: pb::Action::Deny.into(),
    };
    pb::WorkloadEndpoint {
        id: Some(endpoint_id(n)),
        display_name: format!("default/w{n}"),
        interface_name: format!("cali{n}"),
        active: true,
        mac: workload_mac(n).0.to_vec(),
        nets: vec![prefix(&format!("10.65.0.{n}")), prefix(&format!("fd65::{n:x}"))],
        tiers: if policies.is_empty() { vec![] } else { vec![tier] },
        profile_ids: vec!["open".into()],
        ..Default::default()
    }
}

pub fn policy_id(name: &str) -> pb::PolicyId {
    pb::PolicyId { kind: "NetworkPolicy".into(), namespace: "default".into(), name: name.into() }
}

/// Accepts TCP to `port` and nothing else.
pub fn policy(name: &str, port: u32) -> pb::Policy {
    let rule = pb::Rule {
        action: pb::Action::Allow.into(),
        protocol: Some(6),
        dst_ports: vec![pb::PortRange { first: port, last: port }],
        ..Default::default()
    };
    pb::Policy {
        id: Some(policy_id(name)),
        tier: "default".into(),
        inbound_rules: vec![rule],
        ..Default::default()
    }
}

pub fn open_profile() -> pb::Profile {
    let allow = pb::Rule { action: pb::Action::Allow.into(), ..Default::default() };
    pb::Profile { name: "open".into(), inbound_rules: vec![allow.clone()], outbound_rules: vec![allow] }
}

pub fn to_workload(n: u8) -> Vec<pb::Change> {
    let route = |destination: String| {
        change(Change::Route(pb::Route {
            destination: Some(prefix(&destination)),
            target: Some(pb::route::Target::Workload(endpoint_id(n))),
            ..Default::default()
        }))
    };
    vec![route(format!("10.65.0.{n}")), route(format!("fd65::{n:x}"))]
}

pub fn via(destination: &str, gateway: &str) -> pb::Change {
    change(Change::Route(pb::Route {
        destination: Some(prefix(destination)),
        target: Some(pb::route::Target::NextHop(pb::NextHop {
            gateway: bytes(addr(gateway)),
            ..Default::default()
        })),
        node: "b".into(),
        ..Default::default()
    }))
}

pub fn blackhole(destination: &str) -> pb::Change {
    route(destination, pb::route::Target::Blackhole(pb::Blackhole {}))
}

pub fn route(destination: &str, target: pb::route::Target) -> pb::Change {
    change(Change::Route(pb::Route {
        destination: Some(prefix(destination)),
        target: Some(target),
        ..Default::default()
    }))
}

/// Workloads 1 and 2, open.
pub fn two_workloads() -> Vec<pb::Change> {
    let mut changes = vec![
        change(Change::Profile(open_profile())),
        change(Change::WorkloadEndpoint(endpoint(1, &[]))),
        change(Change::WorkloadEndpoint(endpoint(2, &[]))),
    ];
    changes.extend(to_workload(1).into_iter().chain(to_workload(2)));
    changes
}

/// Everything that the standard node is told: workloads 1 to 3, of which 3 has policy `web`
/// (TCP 80 only), routes to them and to node b, pools.
pub fn standard_changes() -> Vec<pb::Change> {
    let mut changes = vec![
        change(Change::Policy(policy("web", 80))),
        change(Change::Profile(open_profile())),
        change(Change::WorkloadEndpoint(endpoint(1, &[]))),
        change(Change::WorkloadEndpoint(endpoint(2, &[]))),
        change(Change::WorkloadEndpoint(endpoint(3, &["web"]))),
        via("10.65.1.0/24", "192.168.0.2"),
        via("fd65:1::/64", "fd00::2"),
        blackhole("10.65.0.0/16"),
        blackhole("fd65::/32"),
    ];
    for n in 1..=3 {
        changes.extend(to_workload(n));
    }
    changes
}

/// A node with an uplink, three workloads, and everything in `standard_changes`.
pub fn standard(setup: Setup) -> Simulation {
    furnished(Simulation::new(setup))
}

/// The same, of a node that is still empty.
pub fn furnished(mut node: Simulation) -> Simulation {
    node.uplink("eth0", UPLINK_MAC, &[(addr("192.168.0.1"), 24), (addr("fd00::1"), 64)]);
    node.commit(standard_changes()).unwrap();
    node.step(margay_dataplane::net::Nanos(0));
    node
}

/// What precedes the transport header.
pub fn ip(
    from_mac: Mac,
    to_mac: Mac,
    from: &str,
    to: &str,
    ttl: u8,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let builder = PacketBuilder::ethernet2(from_mac.0, to_mac.0);
    match (addr(from).is_v4(), addr(from), addr(to)) {
        (true, a, b) => builder.ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header::new(0, ttl, etherparse::IpNumber::UDP, a.v4_octets(), b.v4_octets())
                .unwrap(),
            Default::default(),
        )),
        (false, a, b) => builder.ip(etherparse::IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                hop_limit: ttl,
                source: a.octets(),
                destination: b.octets(),
                ..Default::default()
            },
            Default::default(),
        )),
    }
}

/// A frame of workload `n` to its gateway.
pub fn udp_from(n: u8, to: &str, dport: u16) -> Vec<u8> {
    let from = if addr(to).is_v4() { format!("10.65.0.{n}") } else { format!("fd65::{n:x}") };
    udp(workload_mac(n), gateway_mac(), &from, to, 4000, dport)
}

/// What workloads take for their gateway's address.
pub const fn gateway_mac() -> Mac {
    Mac([0xee; 6])
}

pub fn udp(from_mac: Mac, to_mac: Mac, from: &str, to: &str, sport: u16, dport: u16) -> Vec<u8> {
    let mut out = vec![];
    ip(from_mac, to_mac, from, to, 64).udp(sport, dport).write(&mut out, b"payload").unwrap();
    out
}

/// TCP from workload `n`.
pub fn tcp_from(n: u8, to: &str, sport: u16, dport: u16, flags: &str) -> Vec<u8> {
    let from = if addr(to).is_v4() { format!("10.65.0.{n}") } else { format!("fd65::{n:x}") };
    tcp(workload_mac(n), gateway_mac(), &from, to, sport, dport, flags)
}

/// Of a connection in which nothing is said: each end's numbers begin at 1,000.
pub fn tcp(from_mac: Mac, to_mac: Mac, from: &str, to: &str, sport: u16, dport: u16, flags: &str) -> Vec<u8> {
    let seq = 1_000 + u32::from(!flags.contains('S'));
    let mut step = ip(from_mac, to_mac, from, to, 64).tcp(sport, dport, seq, 1024);
    for flag in flags.chars() {
        step = match flag {
            'S' => step.syn(),
            'A' => step.ack(1_001),
            'F' => step.fin(),
            'R' => step.rst(),
            other => panic!("{other}"),
        };
    }
    let mut out = vec![];
    step.write(&mut out, b"").unwrap();
    out
}

/// This node's inner Ethernet address in VXLAN, and node b's.
pub const VTEP_MAC: Mac = Mac([0x66, 0, 0, 0, 0, 1]);
pub const FAR_VTEP_MAC: Mac = Mac([0x66, 0, 0, 0, 0, 2]);

/// What is on node b, through tunnels of each kind: where, and by which.
pub const TUNNELLED: [(&str, pb::Encapsulation); 3] = [
    ("10.66.1.0/24", pb::Encapsulation::Ipip),
    ("10.67.1.0/24", pb::Encapsulation::Vxlan),
    ("fd67:1::/64", pb::Encapsulation::Vxlan),
];

/// Tunnels of every kind to node b, at 192.168.0.2 and fd00::2.
pub fn tunnel_changes() -> Vec<pb::Change> {
    let overlay = pb::Overlay {
        ipv4_address: bytes(addr("192.168.0.1")),
        ipv6_address: bytes(addr("fd00::1")),
        ipip: true,
        vxlan: true,
        vxlan_v6: true,
        mac: VTEP_MAC.0.to_vec(),
        mac_v6: VTEP_MAC.0.to_vec(),
        ..Default::default()
    };
    let far = pb::TunnelEndpoint {
        node: "b".into(),
        mac: FAR_VTEP_MAC.0.to_vec(),
        parent_ipv4: bytes(addr("192.168.0.2")),
        mac_v6: FAR_VTEP_MAC.0.to_vec(),
        parent_ipv6: bytes(addr("fd00::2")),
        ..Default::default()
    };
    let config = pb::NodeConfig { overlay: Some(overlay), ..Default::default() };
    let mut changes = vec![change(Change::Config(config)), change(Change::TunnelEndpoint(far))];
    changes.extend(TUNNELLED.map(|(to, how)| {
        let gateway = bytes(addr(if prefix(to).address.len() == 4 { "192.168.0.2" } else { "fd00::2" }));
        change(Change::Route(pb::Route {
            destination: Some(prefix(to)),
            target: Some(pb::route::Target::NextHop(pb::NextHop { gateway, ..Default::default() })),
            encapsulation: how.into(),
            node: "b".into(),
            ..Default::default()
        }))
    }));
    changes
}
