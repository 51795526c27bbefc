//! Ten million frames, each a valid one broken at random: whatever a workload or the wire sends,
//! nothing panics, no frame is lost, and every packet is accounted for.
#![allow(missing_docs)]

mod build;

use build::frames::{every_kind, every_kind_of_tunnel, fragment, mend};
use build::*;
use margay_api::dataplane::v1 as pb;
use margay_dataplane::net::Nanos;
use margay_dataplane::packet::{DropReason, L4Checksum};
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::{ethernet, ip4, ip6};
use pb::change::Change;

const FRAMES: u64 = 10_000_000;
const BATCH: u64 = 256;
/// The longest frame the pool takes, and a little more.
const LONGEST: usize = 1850;
const INTERFACES: [&str; 5] = ["eth0", "cali1", "cali2", "cali3", STACK];
/// There while a host endpoint protects `eth0`.
const STACK: &str = "margay-up0";

#[test]
fn ten_million_frames_through_one_worker() {
    Mill::new(1, 20_260_101).grind();
}

#[test]
fn ten_million_frames_through_four_workers() {
    Mill::new(4, 20_260_102).grind();
}

struct Mill {
    node: Simulation,
    seeds: Vec<(&'static str, Vec<u8>)>,
    random: Seeded,
    /// The frame that is being made.
    frame: Vec<u8>,
    pushed: u64,
}

impl Mill {
    fn new(workers: u8, seed: u64) -> Self {
        let mut node = standard(Setup { workers, ..Setup::default() });
        node.vlan("eth0", 100, UPLINK_MAC, &[(addr("172.16.0.1"), 24)]);
        let mut seeds = every_kind();
        seeds.extend(every_kind_of_tunnel());
        // For a neighbour that never answers.
        seeds.extend((1..9).map(|n| ("cali1", udp_from(1, &format!("10.68.0.{n}"), 53))));
        // By routes that lead nowhere, and by one of several ways.
        seeds.extend(["10.69.0.1", "10.69.1.1", "10.70.0.1"].map(|to| ("cali1", udp_from(1, to, 53))));
        // For each stage of the host endpoint.
        for port in [7, 8, 9, 10] {
            let to = |to| udp(PEER_MAC, UPLINK_MAC, "192.168.0.2", to, 4000, port);
            seeds.extend([("eth0", to("192.168.0.1")), ("eth0", to("10.65.0.1"))]);
            let from = udp(UPLINK_MAC, PEER_MAC, "192.168.0.1", "192.168.0.2", 4000, port);
            seeds.push((STACK, from));
        }
        seeds.extend(to_services());
        Self { node, seeds, random: Seeded(seed), frame: Vec::with_capacity(4096), pushed: 0 }
    }

    fn grind(mut self) {
        for batch in 0..FRAMES.div_ceil(BATCH) {
            if batch % 64 == 0 {
                self.change_the_world();
                self.push_orphans();
            }
            for _ in 0..BATCH {
                self.push();
            }
            let time = match self.random.below(100) {
                0 => Nanos::from_secs(600),
                1..=4 => Nanos::from_secs(1),
                _ => Nanos::from_millis(1),
            };
            self.node.step(time);
            self.node.check();
            self.node.drops.clear();
            self.take();
        }
        self.proves_something();
    }

    /// Puts a broken frame on a wire: its own, now and then another's.
    fn push(&mut self) {
        let seed = self.random.below(self.seeds.len() as u64) as usize;
        let mut interface = self.seeds[seed].0;
        self.frame.clear();
        self.frame.extend_from_slice(&self.seeds[seed].1);
        if self.random.below(50) == 0 {
            interface = INTERFACES[self.random.below(INTERFACES.len() as u64) as usize];
        }
        // Some stay whole: what follows them must meet live flows and known neighbours.
        for _ in 0..self.random.below(4) {
            self.mutate();
        }
        if self.node.state.id(interface).is_some() && self.node.wire(interface).push(&self.frame) {
            self.pushed += 1;
        }
    }

    /// More fragments than may wait, each of a packet whose first never comes.
    fn push_orphans(&mut self) {
        let whole = udp_from(1, "10.65.1.9", 53);
        for id in 0..300 {
            let pushed = self.node.wire("cali1").push(&fragment(&whole, id, 8, &[0; 8], false));
            self.pushed += u64::from(pushed);
        }
    }

    fn mutate(&mut self) {
        let (random, frame) = (&mut self.random, &mut self.frame);
        let len = frame.len().max(1) as u64;
        match random.below(8) {
            0 => frame.truncate(random.below(len) as usize),
            1 => {
                let more = random.below(64) as usize;
                let value = random.bits() as u8;
                frame.resize((frame.len() + more).min(LONGEST), value);
            }
            2 => {
                let other = &self.seeds[random.below(self.seeds.len() as u64) as usize].1;
                let (at, from) = (random.below(len) as usize, random.below(other.len() as u64) as usize);
                frame.truncate(at);
                frame.extend_from_slice(&other[from..]);
                frame.truncate(LONGEST);
            }
            3 => {
                // The length fields of IPv4, IPv6, UDP behind either, IPv4 header and TCP data offset; of
                // the IPv4 and IPv6 headers that an ICMP error quotes; next headers.
                let at = [16, 18, 38, 58, 14, 46, 66, 17, 55, 42, 45, 66, 67, 20, 54, 68]
                    [random.below(16) as usize];
                if let Some(byte) = frame.get_mut(at) {
                    *byte = [0, 1, byte.wrapping_add(1), byte.wrapping_sub(1), random.bits() as u8, 255]
                        [random.below(6) as usize];
                }
            }
            4 => {
                // New ends of a flow.
                let at = [34, 36, 54, 56][random.below(4) as usize];
                if let Some(port) = frame.get_mut(at..at + 2) {
                    port.copy_from_slice(&(random.bits() as u16).to_be_bytes());
                }
            }
            5 => {
                // Anything of an IPv4 header, with a checksum that is right.
                let at = 14 + random.below(20) as usize;
                if frame.get(12..14) == Some(&[8, 0])
                    && let Some(byte) = frame.get_mut(at)
                {
                    *byte = random.bits() as u8;
                    mend(frame);
                }
            }
            _ => {
                for _ in 0..=random.below(4) {
                    let at = random.below(len) as usize;
                    if let Some(byte) = frame.get_mut(at) {
                        *byte ^= 1 << random.below(8);
                    }
                }
            }
        }
    }

    /// Another policy, a workload gone or back, slow receivers, partial checksums.
    fn change_the_world(&mut self) {
        let mut changes = standard_changes();
        let port = [80, 81, 9999][self.random.below(3) as usize];
        changes.push(change(Change::Policy(policy("web", port))));
        changes.push(via("10.66.0.0/16", "172.16.0.2"));
        changes.push(via("10.68.0.0/16", "192.168.0.250"));
        changes.push(route("10.69.0.0/24", pb::route::Target::Unreachable(pb::Unreachable {})));
        changes.push(route("10.69.1.0/24", pb::route::Target::Prohibit(pb::Prohibit {})));
        let ways = [("192.168.0.2", 1), ("172.16.0.2", 2), ("192.168.0.251", 3), ("203.0.113.9", 4)];
        let ways = ways.into_iter().filter(|_| self.random.below(2) == 0);
        let hop =
            |(gateway, weight)| pb::NextHop { gateway: bytes(addr(gateway)), weight, ..Default::default() };
        let hops: Vec<_> = ways.map(hop).collect();
        if !hops.is_empty() {
            changes.push(route("10.70.0.0/16", pb::route::Target::NextHops(pb::NextHops { hops })));
        }
        let recheck = self.random.below(2) == 0;
        let established =
            if recheck { pb::node_config::Established::Recheck } else { pb::node_config::Established::Keep };
        for mut tunnels in tunnel_changes() {
            match &mut tunnels.change {
                Some(Change::Config(config)) => {
                    config.established = established.into();
                    // So few ports that they run out.
                    config.nat_ports = Some(pb::PortRange { first: 61_000, last: 61_003 });
                    config.removed_backend = self.random.below(2) as i32;
                    if self.random.below(8) == 0 {
                        config.overlay = None;
                    }
                }
                Some(Change::TunnelEndpoint(end)) if self.random.below(8) == 0 => end.mac.clear(),
                _ => {}
            }
            changes.push(tunnels);
        }
        changes.extend(services(self.random.bits()));
        let pool = prefix("10.65.0.0/16");
        changes.push(change(match self.random.below(2) {
            0 => Change::IpPoolRemove(pool),
            _ => Change::IpPool(pb::IpPool { cidr: Some(pool), masquerade: true, ..Default::default() }),
        }));
        if self.random.below(4) == 0 {
            changes.push(change(Change::WorkloadEndpointRemove(endpoint_id(2))));
        }
        changes.extend(match self.random.below(4) {
            0 => vec![change(Change::HostEndpointRemove("eth0".into()))],
            _ => host_endpoint(),
        });
        self.node.commit(changes).expect("the changes are valid");
        for interface in INTERFACES {
            if self.node.state.id(interface).is_some() {
                let capacity = [0, 3, 8192, 8192, 8192, 8192, 8192, 8192][self.random.below(8) as usize];
                let partial = [L4Checksum::Complete, L4Checksum::MaybePartial][self.random.below(2) as usize];
                self.node.wire(interface).set_tx_capacity(capacity);
                self.node.wire(interface).set_checksum(partial);
            }
        }
    }

    /// Empties the wires. Whatever was let in malformed, what leaves is well formed.
    fn take(&self) {
        for interface in INTERFACES {
            if self.node.state.id(interface).is_none() {
                continue;
            }
            while let Some(frame) = self.node.pop(interface) {
                let link = ethernet::Header::parse(&frame).expect("an Ethernet header leaves");
                let l3 = &frame[link.len..];
                let len = match link.ether_type {
                    ethernet::IPV4 => ip4::Header::parse(l3).map(|ip| ip.total_len),
                    ethernet::IPV6 => ip6::Header::parse(l3).map(|ip| ip.total_len),
                    _ => Ok(l3.len()),
                };
                assert_eq!(len, Ok(l3.len()), "what left {interface}: {frame:02x?}");
                self.node.wire(interface).recycle(frame);
            }
        }
    }

    /// The mill has ground fine, and of everything.
    fn proves_something(&self) {
        assert!(self.pushed > FRAMES * 9 / 10, "{} frames", self.pushed);
        let dropped = |reason| -> u64 {
            self.node.workers.iter().map(|worker| worker.world().counters.dropped(reason).get()).sum()
        };
        assert_eq!(dropped(DropReason::Unspecified), 0, "every drop has a reason");
        // What these frames cannot cause: configuration, exhaustion, and faults of other tests.
        let elsewhere = [
            DropReason::Unspecified,
            DropReason::InterfaceDown,
            DropReason::EndpointInactive,
            DropReason::NoHostPort,
            DropReason::HandoffFull,
            DropReason::TxOversized,
            DropReason::NoFrames,
            DropReason::NoLargeFrames,
            DropReason::DeviceGone,
            DropReason::FlowTableFull,
            DropReason::InjectedFault,
            DropReason::QuotaFlows,
            DropReason::QuotaRate,
            DropReason::NoNatAddress,
            DropReason::NoNatReturn,
            DropReason::Untranslatable,
            // Where there are no encrypted tunnels.
            DropReason::WireguardNoSession,
            DropReason::WireguardQueueFull,
            DropReason::WireguardUnknownSession,
            DropReason::WireguardForged,
            DropReason::WireguardReplayed,
            DropReason::WireguardSource,
            DropReason::WireguardOverload,
        ];
        let missing: Vec<_> = DropReason::ALL
            .iter()
            .filter(|reason| dropped(**reason) == 0 && !elsewhere.contains(reason))
            .collect();
        assert!(missing.is_empty(), "never dropped for {missing:?}");
        let account = self.node.account();
        assert!(account.tx > FRAMES / 10, "{account:?}");
        println!("{account:?}");
    }
}

const CLUSTER: [&str; 2] = ["10.96.0.1", "fd96::1"];

/// One with backends here and elsewhere, of which `some` are there; one without; one that only
/// another node serves; and one that is for others than these frames' senders.
fn services(some: u64) -> Vec<pb::Change> {
    let backends: Vec<_> =
        ["10.65.0.1", "10.65.0.2", "10.65.0.3", "10.65.1.9", "fd65::1", "fd65::2", "fd65:1::9"]
            .iter()
            .enumerate()
            .filter(|(at, _)| some >> at & 1 == 1)
            .map(|(_, address)| pb::service::Backend {
                address: bytes(addr(address)),
                ports: [("tcp".to_owned(), 80), ("udp".to_owned(), 8080)].into(),
                ready: true,
                local: !address.contains("1.9") && !address.contains("1::9"),
                preferred: true,
                ..Default::default()
            })
            .collect();
    let port = |name: &str, protocol, node_port| pb::service::Port {
        name: name.into(),
        protocol,
        port: 80,
        node_port,
    };
    let of = |name: &str, node_port| pb::Service {
        id: Some(pb::ServiceId { namespace: "default".into(), name: name.into() }),
        ports: vec![port("tcp", 6, node_port), port("udp", 17, node_port)],
        ..Default::default()
    };
    let remote = backends.iter().filter(|backend| !backend.local).cloned().collect();
    let all = [
        pb::Service {
            cluster_ips: CLUSTER.map(|address| bytes(addr(address))).into(),
            client_affinity_seconds: 60 * (some >> 8 & 1) as u32,
            backends,
            ..of("web", 30_080 * (some >> 9 & 1) as u32)
        },
        pb::Service { cluster_ips: vec![vec![10, 96, 0, 2]], ..of("nobody", 0) },
        pb::Service {
            external_ips: vec![vec![203, 0, 113, 1]],
            external_traffic_local: true,
            backends: remote,
            ..of("elsewhere", 0)
        },
        pb::Service {
            load_balancer_ips: vec![vec![203, 0, 113, 2]],
            load_balancer_source_ranges: vec![prefix("198.51.100.0/24")],
            ..of("others", 0)
        },
    ];
    all.into_iter().map(|service| change(Change::Service(service))).collect()
}

/// Frames to all of them, from workloads and from outside, and answers.
fn to_services() -> Vec<(&'static str, Vec<u8>)> {
    let mut frames = vec![];
    for to in CLUSTER {
        for sport in 4000..4008 {
            frames.push(("cali1", tcp_from(1, to, sport, 80, "S")));
            frames.push(("cali1", udp(workload_mac(1), gateway_mac(), &own(1, to), to, sport, 80)));
            frames.push(("cali2", tcp_from(2, &own(1, to), 80, sport, "SA")));
            frames
                .push(("cali2", udp(workload_mac(2), gateway_mac(), &own(2, to), &own(1, to), 8080, sport)));
        }
        frames.push(("cali1", tcp_from(1, to, 4000, 81, "S")));
    }
    for to in ["10.96.0.2", "203.0.113.1", "203.0.113.2"] {
        frames.push(("cali1", tcp_from(1, to, 4000, 80, "S")));
        frames.push(("eth0", udp(PEER_MAC, UPLINK_MAC, "192.168.0.2", to, 4000, 80)));
    }
    frames.push(("eth0", udp(PEER_MAC, UPLINK_MAC, "192.168.0.2", "192.168.0.1", 4000, 30_080)));
    frames
}

/// The address of workload `n`, of the family of `like`.
fn own(n: u8, like: &str) -> String {
    if addr(like).is_v4() { format!("10.65.0.{n}") } else { format!("fd65::{n:x}") }
}

/// Untracked policy denies UDP 7 and allows 9, preDNAT policy denies 8, forward policy 10, and what
/// is for the host itself has normal policy for 53 only.
fn host_endpoint() -> Vec<pb::Change> {
    let rule = |action: pb::Action, port| pb::Rule {
        action: action.into(),
        protocol: Some(17),
        dst_ports: vec![pb::PortRange { first: port, last: port }],
        ..Default::default()
    };
    let (allow, deny) = (pb::Action::Allow, pb::Action::Deny);
    let policy = |name: &str, rules: Vec<pb::Rule>| {
        change(Change::Policy(pb::Policy {
            id: Some(policy_id(name)),
            inbound_rules: rules.clone(),
            outbound_rules: rules,
            ..Default::default()
        }))
    };
    let tier = |name: &str, egress, default: pb::Action| {
        let ids = vec![policy_id(name)];
        let egress_policies = if egress { ids.clone() } else { vec![] };
        vec![pb::TierBinding {
            name: "default".into(),
            ingress_policies: ids,
            egress_policies,
            default_action: default.into(),
        }]
    };
    vec![
        policy("untracked", vec![rule(deny, 7), rule(allow, 9)]),
        policy("pre-dnat", vec![rule(deny, 8)]),
        policy("forward", vec![rule(deny, 10)]),
        policy("normal", vec![rule(allow, 53)]),
        change(Change::HostEndpoint(pb::HostEndpoint {
            id: "eth0".into(),
            interface_name: "eth0".into(),
            untracked_tiers: tier("untracked", true, pb::Action::Pass),
            pre_dnat_tiers: tier("pre-dnat", false, pb::Action::Pass),
            forward_tiers: tier("forward", true, pb::Action::Pass),
            tiers: tier("normal", true, deny),
            ..Default::default()
        })),
    ]
}
