//! Workloads' packets to the world outside leave with an address of their node, and what answers
//! them finds its way back.
#![allow(missing_docs)]

mod build;

use build::frames::*;
use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change, node_config::NatMapping};
use margay_dataplane::conntrack::Filter;
use margay_dataplane::net::{FlowKey, Icmp, Nanos, PortRange, Proto};
use margay_dataplane::nodes::{Counted, Event, WorkerCounters};
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::checksum::Sum;
use margay_dataplane::wire::translate::Quote;
use margay_dataplane::wire::{arp, crc32c, icmp, ip4, ip6, l4};
use margay_dataplane::worker::FlowTask;
use std::collections::{BTreeMap, BTreeSet};

const DEFAULT: PortRange = PortRange { first: 61_000, last: 65_535 };
const NODE4: &str = "192.168.0.1";
const NODE6: &str = "fd00::1";
const SERVERS: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

/// The standard node with natOutgoing for its workloads' pools, and a way out of the cluster.
fn node(setup: Setup, config: pb::NodeConfig) -> Simulation {
    let mut node = standard(setup);
    node.commit(changes(config)).unwrap();
    node.push("eth0", &arp(PEER_MAC, arp::Operation::Reply, "192.168.0.2", NODE4));
    node.push("eth0", &advertise(PEER_MAC, UPLINK_MAC, "fd00::2", NODE6));
    node.step(NOW);
    node
}

fn changes(config: pb::NodeConfig) -> Vec<pb::Change> {
    let pool = |cidr: &str, masquerade| {
        change(Change::IpPool(pb::IpPool { cidr: Some(prefix(cidr)), masquerade, ..Default::default() }))
    };
    let mut changes = standard_changes();
    changes.extend([
        pool("10.65.0.0/16", true),
        pool("fd65::/32", true),
        pool("10.66.0.0/16", false),
        via("0.0.0.0/0", "192.168.0.2"),
        via("::/0", "fd00::2"),
        change(Change::Config(config)),
    ]);
    changes
}

fn ports(first: u32, last: u32) -> pb::NodeConfig {
    pb::NodeConfig { nat_ports: Some(pb::PortRange { first, last }), ..Default::default() }
}

fn flows(node: &Simulation) -> usize {
    node.workers.iter().map(|worker| worker.world().flows.len()).sum()
}

/// The key of a frame, all of whose checksums are right.
fn key(frame: &[u8]) -> FlowKey {
    let l3 = &frame[14..];
    let v6 = frame[12..14] == [0x86, 0xdd];
    let (src, dst, proto, len) = if v6 {
        let header = ip6::Header::parse(l3).unwrap();
        (header.src, header.dst, header.proto, header.len)
    } else {
        let header = ip4::Header::parse(l3).expect("its header's checksum is right");
        (header.src, header.dst, header.proto, header.len)
    };
    let l4 = &l3[len..];
    let pseudo = Sum::default().pseudo_header(src, dst, proto, l4.len() as u32);
    match proto {
        Proto::SCTP => assert_eq!(l4[8..12], crc32c::of_sctp(l4).to_le_bytes()),
        Proto::ICMP => assert_eq!(Sum::default().bytes(l4).folded(), 0xffff),
        Proto(47) => {}
        _ => assert_eq!(pseudo.bytes(l4).folded(), 0xffff, "{proto}"),
    }
    let icmp = if proto.is_icmp() { Icmp { kind: l4[0], code: l4[1] } } else { Icmp::default() };
    l4::flow_key(l3, l4, v6, proto, icmp)
}

/// The IP packet of a frame that a router would quote, as the far end gets it.
fn error(kind: icmp::Error, from: &str, about: &[u8]) -> Vec<u8> {
    let to = key(about).src;
    let mut out = [0; icmp::MAX_ERROR_V6];
    let len = icmp::emit_error(kind, addr(from), to, &about[14..], &mut out).unwrap();
    let ether_type = u16::from_be_bytes([about[12], about[13]]);
    ether(PEER_MAC, UPLINK_MAC, None, ether_type, &out[..len])
}

fn answer(frame: &[u8]) -> Vec<u8> {
    let key = key(frame).reversed();
    let [from, to] = [key.src, key.dst].map(|addr| addr.to_string());
    match key.proto {
        Proto::UDP => udp(PEER_MAC, UPLINK_MAC, &from, &to, key.sport, key.dport),
        Proto::SCTP => raw(PEER_MAC, UPLINK_MAC, &from, &to, Proto::SCTP, 64, &sctp(key.sport, key.dport)),
        Proto(47) => raw(PEER_MAC, UPLINK_MAC, &from, &to, Proto(47), 64, &[0; 24]),
        Proto::ICMP | Proto::ICMP6 => {
            let mut reply = echo(PEER_MAC, UPLINK_MAC, &from, &to, true);
            let at = if key.src.is_v4() { 34 } else { 54 };
            let old = Sum::default().bytes(&reply[at + 4..at + 6]).folded();
            reply[at + 4..at + 6].copy_from_slice(&key.sport.to_be_bytes());
            let sum = margay_dataplane::wire::checksum::update(
                u16::from_be_bytes([reply[at + 2], reply[at + 3]]),
                old,
                key.sport,
            );
            reply[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
            reply
        }
        other => panic!("{other}"),
    }
}

fn sctp(sport: u16, dport: u16) -> Vec<u8> {
    let mut packet =
        [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &[0, 0, 0, 7, 0, 0, 0, 0], &[4, 0, 0, 4]].concat();
    let sum = crc32c::of_sctp(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// One packet of each protocol from workload 1 to `server`.
fn requests(server: &str) -> Vec<Vec<u8>> {
    let (me, gw) = (workload_mac(1), gateway_mac());
    let own = if addr(server).is_v4() { "10.65.0.1" } else { "fd65::1" };
    vec![
        udp(me, gw, own, server, 4000, 53),
        echo(me, gw, own, server, false),
        raw(me, gw, own, server, Proto::SCTP, 64, &sctp(4000, 80)),
        raw(me, gw, own, server, Proto(47), 64, &[0; 24]),
    ]
}

#[test]
fn every_protocol_leaves_as_the_node_and_is_answered() {
    for workers in [1, 4] {
        let mut node = node(Setup { workers, ..Setup::default() }, pb::NodeConfig::default());
        for (server, own) in SERVERS.into_iter().zip([NODE4, NODE6]) {
            for request in requests(server) {
                give(&mut node, "cali1", &request);
                let (sent, out) = (key(&request), node.pop("eth0").expect("it leaves"));
                let left = key(&out);
                assert_eq!((left.src, left.dst, left.proto), (addr(own), sent.dst, sent.proto));
                if sent.proto.has_ports() {
                    assert!(DEFAULT.contains(left.sport), "{left}");
                    assert_eq!(left.dport, sent.dport);
                }
                // Asked again, it is the same flow; answered, it finds its way.
                for _ in 0..2 {
                    give(&mut node, "cali1", &request);
                    assert_eq!(key(&node.pop("eth0").unwrap()), left);
                    give(&mut node, "eth0", &answer(&out));
                    let back = node.pop("cali1").expect("the answer arrives");
                    assert_eq!(key(&back), sent.reversed());
                }
            }
        }
        assert_eq!(flows(&node), 8);
        assert_eq!(node.account().drops, 0);
    }
}

#[test]
fn what_stays_in_the_cluster_or_comes_from_outside_is_left_alone() {
    let mut node = node(Setup::default(), pb::NodeConfig::default());
    for to in ["10.65.1.9", "10.66.0.1"] {
        give(&mut node, "cali1", &udp_from(1, to, 53));
        assert_eq!(key(&node.pop("eth0").unwrap()).src, addr("10.65.0.1"), "{to} is in a pool");
    }
    give(&mut node, "eth0", &udp(PEER_MAC, UPLINK_MAC, "192.0.2.7", "10.65.0.1", 53, 4000));
    assert_eq!(key(&node.pop("cali1").unwrap()).src, addr("192.0.2.7"));
    give(&mut node, "cali1", &udp(workload_mac(1), gateway_mac(), "10.65.0.1", "192.0.2.7", 4000, 53));
    assert_eq!(key(&node.pop("eth0").unwrap()).src, addr("10.65.0.1"), "an answer leaves as what was asked");

    // A pool whose only use is for services is none of workloads'.
    let mut more = changes(pb::NodeConfig::default());
    let services = pb::IpPool {
        cidr: Some(prefix("192.0.2.0/24")),
        allowed_uses: vec!["LoadBalancer".into()],
        ..Default::default()
    };
    more.push(change(Change::IpPool(services)));
    node.commit(more).unwrap();
    give(&mut node, "cali1", &udp_from(1, "192.0.2.8", 53));
    assert_eq!(key(&node.pop("eth0").unwrap()).src, addr(NODE4));
}

#[test]
fn nodes_of_the_cluster_are_excluded_where_that_is_said() {
    let host = |name: &str, ipv4: &str| {
        // Bits behind the length are the node's.
        let of = |address, length| Some(pb::Prefix { address: bytes(addr(address)), length });
        let (ipv4, ipv6) = (of(ipv4, 24), of("2001:db8::7", 64));
        change(Change::Host(pb::HostMetadata { hostname: name.into(), ipv4, ipv6, ..Default::default() }))
    };
    let excluded = pb::NodeConfig { nat_excludes_hosts: true, ..Default::default() };
    let mut node = node(Setup::default(), pb::NodeConfig::default());
    let mut port = 52;
    let mut sources = |changes: Vec<pb::Change>| {
        node.commit(changes).unwrap();
        // Flows keep the address that they began with: others each time.
        port += 1;
        SERVERS.map(|server| {
            give(&mut node, "cali1", &udp_from(1, server, port));
            key(&node.pop("eth0").unwrap()).src
        })
    };
    let (own, nodes) = ([addr("10.65.0.1"), addr("fd65::1")], [addr(NODE4), addr(NODE6)]);
    assert_eq!(sources(vec![host("b", "192.0.2.7")]), nodes);
    assert_eq!(sources(vec![change(Change::Config(excluded))]), own);
    assert_eq!(sources(vec![host("c", "192.0.2.9")]), own);
    assert_eq!(sources(vec![host("b", "192.0.2.8")]), [nodes[0], own[1]], "it has moved");
    let gone = ["b", "c"].map(|name| change(Change::HostRemove(name.into())));
    assert_eq!(sources(gone.into()), nodes);
}

#[test]
fn the_address_and_the_ports_are_those_configured() {
    let config = pb::NodeConfig { nat_outgoing_address: vec![203, 0, 113, 9], ..ports(4000, 4001) };
    let mut node = node(Setup::default(), config);
    give(&mut node, "cali1", &udp_from(1, "192.0.2.7", 53));
    let left = key(&node.pop("eth0").unwrap());
    assert_eq!((left.src, left.sport), (addr("203.0.113.9"), 4000), "its own port is free and in the range");
    give(&mut node, "cali2", &udp_from(2, "192.0.2.7", 53));
    assert_eq!(key(&node.pop("eth0").unwrap()).sport, 4001);
    give(&mut node, "cali1", &udp_from(1, "2001:db8::7", 53));
    assert_eq!(key(&node.pop("eth0").unwrap()).src, addr(NODE6), "the other family has no such setting");

    for (field, config) in [
        ("nat_ports", ports(2, 1)),
        ("nat_ports", ports(0, 1)),
        ("nat_ports", ports(1, 65_536)),
        ("nat_outgoing_address", pb::NodeConfig { nat_outgoing_address: vec![1], ..Default::default() }),
    ] {
        let errors = node.commit(changes(config)).unwrap_err();
        assert_eq!(errors[0].error.field, field);
    }
}

#[test]
fn without_a_free_port_a_new_flow_is_refused_and_those_there_live_on() {
    for workers in [1, 4] {
        let mut node = node(Setup { workers, ..Setup::default() }, ports(100, 139));
        let from =
            |n: u16, server: &str| udp(workload_mac(1), gateway_mac(), "10.65.0.1", server, 5000 + n, 53);
        let mut taken = BTreeMap::new();
        for n in 0..2000 {
            give(&mut node, "cali1", &from(n, "192.0.2.7"));
            if let Some(out) = node.pop("eth0") {
                let port = key(&out).sport;
                assert!((100..140).contains(&port));
                assert_eq!(taken.insert(port, n), None, "a port has one flow");
            }
        }
        // Each worker has those ports whose answers come to it: with many flows all are in use.
        assert_eq!(taken.len(), 40);
        assert_eq!(dropped(&node, DropReason::NatExhausted), 2000 - 40);
        let told = node.drops.iter().filter(|event| matches!(event, Event::NatExhausted { .. })).count();
        assert!((1..=usize::from(workers)).contains(&told), "each worker says so once a minute: {told}");
        for (port, n) in &taken {
            give(&mut node, "eth0", &udp(PEER_MAC, UPLINK_MAC, "192.0.2.7", NODE4, 53, *port));
            assert_eq!(key(&node.pop("cali1").unwrap()).dport, 5000 + n);
        }
        // Towards another server all are free.
        give(&mut node, "cali1", &from(0, "192.0.2.8"));
        assert!(node.pop("eth0").is_some());
        // And once their flows have ended, they are again.
        node.step(Nanos::from_secs(400));
        node.step(NOW);
        give(&mut node, "cali1", &from(3000, "192.0.2.7"));
        assert!(node.pop("eth0").is_some());
    }
}

#[test]
fn endpoint_independent_mapping_gives_one_port_for_all_destinations() {
    let config = pb::NodeConfig { nat_mapping: NatMapping::EndpointIndependent.into(), ..Default::default() };
    let mut node = node(Setup { workers: 4, ..Setup::default() }, config);
    let mut seen = BTreeSet::new();
    for n in 1..=3 {
        let mut ports = BTreeSet::new();
        for server in 1..60 {
            give(&mut node, &format!("cali{n}"), &udp_from(n, &format!("192.0.2.{server}"), 53));
            let out = node.pop("eth0").unwrap();
            ports.insert(key(&out).sport);
            give(&mut node, "eth0", &answer(&out));
            assert_eq!(key(&node.pop(&format!("cali{n}")).unwrap()).dport, 4000);
        }
        assert_eq!(ports.len(), 1);
        seen.extend(ports);
    }
    assert_eq!(seen.len(), 3, "who sends from the same port gets another one");
    assert_eq!((flows(&node), node.account().drops), (3 * 59, 0));
}

#[test]
fn a_burst_begins_one_flow_and_its_answers_come_back() {
    let mut node = node(Setup::default(), pb::NodeConfig::default());
    for to in ["192.0.2.7", "10.65.1.9"] {
        for _ in 0..5 {
            node.push("cali1", &udp_from(1, to, 53));
        }
        node.step(NOW);
        let out: Vec<_> = std::iter::from_fn(|| node.pop("eth0")).collect();
        assert_eq!(out.len(), 5);
        assert!(out.iter().all(|frame| key(frame) == key(&out[0])));
        give(&mut node, "eth0", &answer(&out[0]));
        assert_eq!(key(&node.pop("cali1").expect("not sent back out")).dport, 4000);
    }
    assert_eq!(flows(&node), 2);
}

#[test]
fn replies_that_come_to_any_worker_find_the_one_flow() {
    let mut node = node(Setup { workers: 4, ..Setup::default() }, pb::NodeConfig::default());
    for sport in 1000..1400 {
        for (to, own) in SERVERS.into_iter().zip(["10.65.0.3", "fd65::3"]) {
            let request = udp(workload_mac(3), gateway_mac(), own, to, sport, 53);
            give(&mut node, "cali3", &request);
            let out = node.pop("eth0").unwrap();
            give(&mut node, "eth0", &answer(&out));
            assert_eq!(key(&node.pop("cali3").unwrap()), key(&request).reversed());
        }
    }
    assert_eq!((flows(&node), node.account().drops), (800, 0));
    let sum = |of: fn(&WorkerCounters) -> &Counted| -> u64 {
        node.workers.iter().map(|worker| of(&worker.world().counters).get()).sum()
    };
    let handed = sum(|c| &c.handed_out);
    assert!(handed > 0, "some flows belong to workers that none of their packets came to");
    assert_eq!(handed, sum(|c| &c.taken_in), "and what was handed over was taken");
    // Whoever has them, each is listed and counted once, by what it was and what it became.
    let nat = || Filter::parse("nat and udp", |_| None).unwrap();
    let pages = node.flows(nat(), FlowTask::Count, |_| {});
    assert_eq!(pages.iter().map(|page| page.matched).sum::<u64>(), 800);
    let pages = node.flows(nat(), FlowTask::Show, |_| {});
    let mut listed = BTreeSet::new();
    for seen in pages.iter().flat_map(|page| &page.found) {
        let (server, own) = match seen.key.src.is_v4() {
            true => (SERVERS[0], NODE4),
            false => (SERVERS[1], NODE6),
        };
        assert_eq!(
            (seen.key.dst, seen.reply_key.src, seen.reply_key.dst),
            (addr(server), addr(server), addr(own))
        );
        assert_eq!((seen.reply_key.sport, seen.state.name()), (53, "replied"));
        assert!(listed.insert((seen.key.sport, seen.key.src.is_v4())), "{} is listed twice", seen.key);
    }
    assert_eq!(listed.len(), 800);
}

#[test]
fn errors_tell_the_workload_of_the_packet_it_sent() {
    for workers in [1, 4] {
        let mut node = node(Setup { workers, ..Setup::default() }, pb::NodeConfig::default());
        for (server, router) in SERVERS.into_iter().zip(["198.51.100.1", "2001:db8:1::1"]) {
            for request in requests(server) {
                give(&mut node, "cali1", &request);
                let out = node.pop("eth0").unwrap();
                for (kind, from) in [
                    (icmp::Error::TimeExceeded, router),
                    (icmp::Error::TooBig(1400), router),
                    (icmp::Error::HostUnreachable, server),
                ] {
                    give(&mut node, "eth0", &error(kind, from, &out));
                    let told = node.pop("cali1").expect("the error arrives");
                    let outer = key(&told);
                    assert_eq!((outer.src, outer.dst), (addr(from), key(&request).src));
                    let at = if outer.src.is_v4() { 14 + 20 + 8 } else { 14 + 40 + 8 };
                    let quote = Quote::parse(&told[at..], !outer.src.is_v4()).unwrap();
                    assert_eq!(quote.key, key(&request));
                }
            }
        }
        assert_eq!(node.account().drops, 0);
    }
}

#[test]
fn errors_of_the_workload_tell_the_server_of_the_packet_it_sent() {
    let mut node = node(Setup { workers: 4, ..Setup::default() }, pb::NodeConfig::default());
    for (server, own) in SERVERS.into_iter().zip([NODE4, NODE6]) {
        give(&mut node, "cali1", &udp_from(1, server, 53));
        let reply = answer(&node.pop("eth0").unwrap());
        give(&mut node, "eth0", &reply);
        let got = node.pop("cali1").unwrap();
        let mut refused = error(icmp::Error::HostUnreachable, &key(&got).dst.to_string(), &got);
        refused[..6].copy_from_slice(&gateway_mac().0);
        refused[6..12].copy_from_slice(&workload_mac(1).0);
        give(&mut node, "cali1", &refused);
        let out = node.pop("eth0").expect("the error leaves");
        assert_eq!((key(&out).src, key(&out).dst), (addr(own), addr(server)));
        let at = if addr(own).is_v4() { 14 + 20 + 8 } else { 14 + 40 + 8 };
        assert_eq!(Quote::parse(&out[at..], !addr(own).is_v4()).unwrap().key, key(&reply));
    }
}

#[test]
fn an_error_that_goes_to_somebody_else_than_the_sender_is_refused() {
    let mut node = node(Setup::default(), pb::NodeConfig::default());
    give(&mut node, "cali1", &udp_from(1, "192.0.2.7", 53));
    let out = node.pop("eth0").unwrap();
    let mut stray = error(icmp::Error::TimeExceeded, "198.51.100.1", &out);
    stray[30..34].copy_from_slice(&[10, 65, 0, 2]);
    mend(&mut stray);
    give(&mut node, "eth0", &stray);
    assert_eq!((node.pop("cali2"), dropped(&node, DropReason::ConntrackInvalid)), (None, 1));
}

#[test]
fn errors_made_here_and_drops_show_packets_as_they_came() {
    let mut node = node(Setup::default(), pb::NodeConfig::default());
    node.workers[0].show_every_drop();
    let (me, gw) = (workload_mac(1), gateway_mac());
    // The last hop: a traceroute's first line.
    let mut dying = udp_from(1, "192.0.2.7", 53);
    dying[22] = 1;
    mend(&mut dying);
    give(&mut node, "cali1", &dying);
    let told = node.pop("cali1").expect("its sender is told");
    assert_eq!(Quote::parse(&told[14 + 28..], false).unwrap().key, key(&dying));

    // An answer that dies here: its sender knows the node only.
    give(&mut node, "cali1", &udp(me, gw, "10.65.0.1", "192.0.2.7", 4000, 53));
    let mut reply = answer(&node.pop("eth0").unwrap());
    reply[22] = 1;
    mend(&mut reply);
    give(&mut node, "eth0", &reply);
    let told = node.pop("eth0").expect("its sender is told");
    assert_eq!(key(&told).dst, addr("192.0.2.7"));
    assert_eq!(Quote::parse(&told[14 + 28..], false).unwrap().key, key(&reply));
    let keys: Vec<FlowKey> = node
        .drops
        .iter()
        .filter_map(|event| match event {
            Event::Dropped { reason: DropReason::TtlExceeded, key, .. } => Some(*key),
            _ => None,
        })
        .collect();
    assert_eq!(keys, [key(&dying), key(&reply)]);
}

#[test]
fn a_packet_that_waits_for_its_next_hop_leaves_translated_once() {
    let mut node = standard(Setup { workers: 4, ..Setup::default() });
    node.commit(changes(pb::NodeConfig::default())).unwrap();
    for _ in 0..3 {
        give(&mut node, "cali1", &udp_from(1, "192.0.2.7", 53));
    }
    while node.pop("eth0").is_some() {}
    give(&mut node, "eth0", &arp(PEER_MAC, arp::Operation::Reply, "192.168.0.2", NODE4));
    let out: Vec<_> = std::iter::from_fn(|| node.pop("eth0")).collect();
    assert_eq!(out.len(), 3);
    let left: BTreeSet<_> = out.iter().map(|frame| key(frame).sport).collect();
    assert_eq!((left.len(), flows(&node)), (1, 1));
    assert_eq!(key(&out[0]).src, addr(NODE4));
    give(&mut node, "eth0", &answer(&out[0]));
    assert!(node.pop("cali1").is_some());
}

#[test]
fn a_new_snapshot_leaves_translated_flows_as_they_are() {
    use pb::node_config::Established;
    let mut node = node(Setup { workers: 4, ..Setup::default() }, pb::NodeConfig::default());
    give(&mut node, "cali1", &udp_from(1, "192.0.2.7", 53));
    let out = node.pop("eth0").unwrap();
    for established in [Established::Keep, Established::Recheck] {
        // Another range, and no pool any more: what has begun goes on.
        let config = pb::NodeConfig { established: established.into(), ..ports(7, 7) };
        let mut changes = changes(config);
        changes.retain(|change| !matches!(change.change, Some(Change::IpPool(_))));
        node.commit(changes).unwrap();
        give(&mut node, "eth0", &answer(&out));
        assert_eq!(key(&node.pop("cali1").unwrap()).dst, addr("10.65.0.1"), "{established:?}");
        give(&mut node, "cali1", &udp_from(1, "192.0.2.7", 53));
        assert_eq!(key(&node.pop("eth0").unwrap()), key(&out));
    }
}

#[test]
fn a_way_out_without_an_address_is_no_way_out() {
    let mut node = Simulation::new(Setup::default());
    node.uplink("eth0", UPLINK_MAC, &[(addr("192.168.0.1"), 24), (addr("fe80::1"), 64)]);
    let mut changes = changes(pb::NodeConfig::default());
    changes.push(via("2001:db8::/32", "fe80::2"));
    node.commit(changes).unwrap();
    node.step(NOW);
    give(&mut node, "cali1", &udp_from(1, "2001:db8::7", 53));
    assert_eq!(dropped(&node, DropReason::NoNatAddress), 1);
}
