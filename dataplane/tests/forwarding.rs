//! The whole dataplane in memory: what is forwarded, answered, refused, and with what account.
#![allow(missing_docs)]

mod build;

use build::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use margay_dataplane::net::{Mac, Nanos};
use margay_dataplane::nodes::{Counted, Histogram, VectorCosts, WorkerCounters};
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::{arp, ethernet};
use margay_dataplane::worker::Worker;

#[test]
fn between_workloads_with_new_link_headers_and_one_hop_less() {
    let mut node = standard(Setup::default());
    for (to, n) in [("10.65.0.2", 1), ("fd65::2", 1)] {
        let sent = udp_from(n, to, 53);
        give(&mut node, "cali1", &sent);
        let got = node.pop("cali2").expect("delivered");
        assert_eq!(got[..6], workload_mac(2).0);
        assert_eq!(got[6..12], node.mac("cali2").0);
        let parsed = SlicedPacket::from_ethernet(&got).unwrap();
        match parsed.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                assert_eq!(ip.header().ttl(), 63);
                assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
            }
            NetSlice::Ipv6(ip) => assert_eq!(ip.header().hop_limit(), 63),
            other => panic!("{other:?}"),
        }
        let l3 = 14;
        assert_eq!(got[l3 + 12..], sent[l3 + 12..], "nothing else changed");
    }
    assert_eq!(node.account().tx, 2);
}

#[test]
fn policy_decides_and_the_flow_remembers() {
    let mut node = standard(Setup::default());
    give(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 4000, 80, "S"));
    assert!(node.pop("cali3").is_some(), "port 80 is allowed");
    give(&mut node, "cali3", &tcp_from(3, "10.65.0.1", 80, 4000, "SA"));
    assert!(node.pop("cali1").is_some(), "the answer belongs to the flow");

    give(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 4000, 81, "S"));
    assert!(node.pop("cali3").is_none());
    assert_eq!(dropped(&node, DropReason::PolicyDenied), 1);
    assert_eq!(node.workers[0].world().flows.len(), 1, "a denied packet leaves no state");

    // A policy that denies everything comes: the flow lives on, new ones do not begin.
    let mut changes = standard_changes();
    changes.push(change(margay_api::dataplane::v1::change::Change::Policy(policy("web", 9999))));
    node.commit(changes).unwrap();
    give(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 4000, 80, "A"));
    assert!(node.pop("cali3").is_some(), "established flows survive");
    give(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 4001, 80, "S"));
    assert!(node.pop("cali3").is_none());
}

#[test]
fn recheck_reaches_live_flows_in_both_directions_and_back() {
    use margay_api::dataplane::v1::{NodeConfig, change::Change, node_config::Established};
    let mut node = standard(Setup::default());
    give(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 4000, 80, "S"));
    give(&mut node, "cali3", &tcp_from(3, "10.65.0.1", 80, 4000, "SA"));
    node.pop("cali3").unwrap();
    node.pop("cali1").unwrap();
    let commit = |node: &mut Simulation, port| {
        let mut changes = standard_changes();
        let config = NodeConfig { established: Established::Recheck.into(), ..Default::default() };
        changes.extend([change(Change::Config(config)), change(Change::Policy(policy("web", port)))]);
        node.commit(changes).unwrap();
    };
    commit(&mut node, 9999);
    give(&mut node, "cali3", &tcp_from(3, "10.65.0.1", 80, 4000, "A"));
    assert!(node.pop("cali1").is_none(), "the reply is judged by the flow's first direction");
    give(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 4000, 80, "A"));
    assert!(node.pop("cali3").is_none());
    commit(&mut node, 80);
    give(&mut node, "cali3", &tcp_from(3, "10.65.0.1", 80, 4000, "A"));
    assert!(node.pop("cali1").is_some());
}

thread_local! {
    /// Reads of the counter that costs are counted with: each takes a tick.
    static READS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn reads() -> u64 {
    READS.replace(READS.get() + 1)
}

#[test]
fn vectors_are_counted_by_their_packets_and_what_they_took() {
    let mut node = standard(Setup { ticks: reads, ..Setup::default() });
    let frame = udp_from(1, "10.65.0.2", 53);
    let spread = |node: &Simulation, of: fn(&VectorCosts) -> &Histogram| {
        of(&node.workers[0].world().counters.vectors).read().collect::<Vec<_>>()
    };
    let before = spread(&node, |vectors| &vectors.packets);
    assert!(before.is_empty(), "empty polls are no vectors");
    give(&mut node, "cali1", &frame);
    for _ in 0..5 {
        node.push("cali1", &frame);
    }
    let from = reads();
    node.step(NOW);
    let passed = reads() - from;
    assert_eq!(spread(&node, |vectors| &vectors.packets), [(1..=1, 1), (5..=5, 1)]);
    // Each packet of a vector has its share of the cycles, and waits for all of them.
    let packets = |spread: Vec<(_, u64)>| spread.into_iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(packets(spread(&node, |vectors| &vectors.cycles)), 6);
    assert_eq!(packets(spread(&node, |vectors| &vectors.latency)), 6);
    let vectors = &node.workers[0].world().counters.vectors;
    let [whole, share] = [vectors.latency.max(), vectors.cycles.max()];
    // The first packet was alone: it went the long way.
    assert!(share <= whole && whole > 0 && spread(&node, |v| &v.latency).len() == 2, "{share} of {whole}");
    let second = *vectors.latency.read().find(|(_, count)| *count == 5).expect("five together").0.start();
    assert!(second < passed, "{second} ticks of {passed}");
    assert!(vectors.cycles.read().any(|(of, count)| of.contains(&(second / 5)) && count == 5));
}

/// Packets that each node has seen so far.
fn seen_by(node: &Simulation, name: &str) -> u64 {
    let of = |worker: &Worker| {
        let counts = worker.graph().counters().read();
        counts.iter().find(|count| count.name == name).map_or(0, |count| count.packets)
    };
    node.workers.iter().map(of).sum()
}

#[test]
fn live_flows_are_routed_anew_when_ways_change_and_not_when_policy_does() {
    use margay_api::dataplane::v1::change::Change;
    let mut node = standard(Setup::default());
    give(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 4000, 80, "S"));
    give(&mut node, "cali3", &tcp_from(3, "10.65.0.1", 80, 4000, "SA"));
    let routed = seen_by(&node, "route");
    let both = |node: &mut Simulation| {
        give(node, "cali1", &tcp_from(1, "10.65.0.3", 4000, 80, "A"));
        give(node, "cali3", &tcp_from(3, "10.65.0.1", 80, 4000, "A"));
    };
    both(&mut node);
    assert_eq!(seen_by(&node, "route"), routed);
    let mut changes = standard_changes();
    changes.push(change(Change::Policy(policy("web", 9999))));
    node.commit(changes).unwrap();
    both(&mut node);
    assert_eq!(seen_by(&node, "route"), routed, "policy does not say where packets go");
    // A neighbour becomes known: adjacencies have other numbers, and each direction asks once.
    node.uplink("eth1", Mac([2, 0, 0, 0, 9, 9]), &[(addr("192.168.9.1"), 24)]);
    both(&mut node);
    both(&mut node);
    assert_eq!(seen_by(&node, "route"), routed + 2);
}

#[test]
fn to_another_node_once_its_neighbour_has_answered() {
    let mut node = standard(Setup::default());
    give(&mut node, "cali1", &udp_from(1, "10.65.1.9", 53));
    let question = node.pop("eth0").expect("asks for the gateway");
    let asked = arp::Arp::parse(&question[14..]).unwrap();
    assert_eq!((asked.target, asked.sender), (addr("192.168.0.2"), addr("192.168.0.1")));
    assert_eq!(node.account().in_flight, 1);

    let answer = arp::Arp {
        operation: arp::Operation::Reply,
        sender_mac: PEER_MAC,
        sender: addr("192.168.0.2"),
        target_mac: UPLINK_MAC,
        target: addr("192.168.0.1"),
    };
    let header = ethernet::Prebuilt::new(UPLINK_MAC, PEER_MAC, None, ethernet::ARP);
    give(&mut node, "eth0", &[header.as_slice(), &answer.emit()].concat());
    let sent = node.pop("eth0").expect("the packet that waited");
    assert_eq!(sent[..6], PEER_MAC.0);
    assert_eq!(node.account().in_flight, 0);

    // And back, from a station that the uplink knows.
    give(&mut node, "eth0", &udp(PEER_MAC, UPLINK_MAC, "10.65.1.9", "10.65.0.1", 53, 4000));
    assert!(node.pop("cali1").is_some());
}

#[test]
fn a_silent_neighbour_costs_an_error_after_three_questions() {
    let mut node = standard(Setup::default());
    give(&mut node, "cali1", &udp_from(1, "10.65.1.9", 53));
    for _ in 0..4 {
        node.step(Nanos::from_secs(1));
        node.check();
    }
    assert_eq!(dropped(&node, DropReason::NeighbourUnresolved), 1);
    let error = node.pop("cali1").expect("host unreachable");
    let parsed = SlicedPacket::from_ethernet(&error).unwrap();
    let Some(TransportSlice::Icmpv4(icmp)) = parsed.transport else { panic!() };
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 1));
}

#[test]
fn errors_for_what_cannot_go_on() {
    let mut node = standard(Setup::default());
    let mut short_lived = vec![];
    ip(workload_mac(1), gateway_mac(), "10.65.0.1", "10.65.0.2", 1)
        .udp(1, 2)
        .write(&mut short_lived, b"")
        .unwrap();
    let cases: [(&[u8], (u8, u8), DropReason); 2] = [
        (&short_lived, (11, 0), DropReason::TtlExceeded),
        (&udp_from(1, "8.8.8.8", 53), (3, 0), DropReason::NoRoute),
    ];
    for (frame, expected, reason) in cases {
        give(&mut node, "cali1", frame);
        let error = node.pop("cali1").expect("an error");
        let parsed = SlicedPacket::from_ethernet(&error).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = parsed.transport else { panic!() };
        assert_eq!((icmp.type_u8(), icmp.code_u8()), expected);
        assert_eq!(dropped(&node, reason), 1);
    }
    give(&mut node, "cali1", &udp_from(1, "fd66::1", 53));
    let error = node.pop("cali1").expect("an IPv6 error");
    let parsed = SlicedPacket::from_ethernet(&error).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!() };
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 0));

    give(&mut node, "cali1", &udp_from(1, "10.65.0.77", 53));
    assert_eq!(dropped(&node, DropReason::Blackhole), 1);
    assert!(node.pop("cali1").is_none(), "a hole is silent");
}

#[test]
fn routes_that_lead_nowhere_say_what_they_are_told_to() {
    use margay_api::dataplane::v1::{Prohibit, Unreachable, route::Target};
    let mut node = standard(Setup::default());
    let unreachable = || Target::Unreachable(Unreachable {});
    let prohibit = || Target::Prohibit(Prohibit {});
    let mut changes = standard_changes();
    changes.extend([
        route("10.66.0.0/24", unreachable()),
        route("fd66::/64", unreachable()),
        route("10.66.1.0/24", prohibit()),
        route("fd66:1::/64", prohibit()),
    ]);
    node.commit(changes).unwrap();
    let cases = [
        ("10.66.0.1", (3, 1), DropReason::RouteUnreachable),
        ("fd66::1", (1, 0), DropReason::RouteUnreachable),
        ("10.66.1.1", (3, 13), DropReason::RouteProhibited),
        ("fd66:1::1", (1, 1), DropReason::RouteProhibited),
    ];
    for (to, expected, reason) in cases {
        let before = dropped(&node, reason);
        give(&mut node, "cali1", &udp_from(1, to, 53));
        let error = node.pop("cali1").expect("an error");
        let got = match SlicedPacket::from_ethernet(&error).unwrap().transport.unwrap() {
            TransportSlice::Icmpv4(icmp) => (icmp.type_u8(), icmp.code_u8()),
            TransportSlice::Icmpv6(icmp) => (icmp.type_u8(), icmp.code_u8()),
            other => panic!("{other:?}"),
        };
        assert_eq!((got, dropped(&node, reason)), (expected, before + 1), "{to}");
    }
}

#[test]
fn flows_share_next_hops_and_keep_to_theirs() {
    use margay_api::dataplane::v1::{NextHop, NextHops, route::Target};
    let several = |hosts: &[u8]| {
        let hop = |host: &u8| NextHop { gateway: vec![192, 168, 0, *host], ..NextHop::default() };
        let mut changes = standard_changes();
        let hops = NextHops { hops: hosts.iter().map(hop).collect() };
        changes.push(route("10.70.0.0/16", Target::NextHops(hops)));
        changes
    };
    let mac = |host: u8| Mac([2, 0, 0, 0, 7, host]);
    let mut node = standard(Setup::default());
    node.commit(several(&[20, 21, 22])).unwrap();
    for host in [20, 21, 22] {
        let told = frames::arp(mac(host), arp::Operation::Reply, &format!("192.168.0.{host}"), "192.168.0.1");
        give(&mut node, "eth0", &told);
    }
    let flows = 1000..1300;
    // The next hop that each flow's packet leaves to.
    let ways = |node: &mut Simulation| -> Vec<u8> {
        let mut way = |sport| {
            give(node, "cali1", &tcp_from(1, "10.70.0.1", sport, 80, "S"));
            node.pop("eth0").expect("it leaves")[5]
        };
        flows.clone().map(&mut way).collect()
    };
    let before = ways(&mut node);
    for host in [20, 21, 22] {
        let share = before.iter().filter(|way| **way == host).count();
        assert!((60..140).contains(&share), "{share} of 300 by {host}");
    }
    assert_eq!(ways(&mut node), before, "the same flows again");
    node.commit(several(&[20, 22])).unwrap();
    let after = ways(&mut node);
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is || *was == 21 && *is != 21, "{was} became {is}");
    }
    assert!(after.iter().all(|way| *way != 21));
    node.commit(several(&[22, 21, 20])).unwrap();
    assert_eq!(ways(&mut node), before, "all as it was");
}

#[test]
fn workloads_are_told_where_their_gateway_is_when_they_come() {
    let mut node = standard(Setup::default());
    node.step(Nanos::from_secs(2));
    let mac = node.mac("cali1");
    let told: Vec<Vec<u8>> = node.announced.drain(..).map(|(_, frame)| frame).collect();
    let of_1: Vec<&Vec<u8>> = told.iter().filter(|frame| frame[6..12] == mac.0).collect();
    assert_eq!(of_1.len(), 4, "twice, for IPv4 and IPv6");
    let parsed = arp::Arp::parse(&of_1[0][14..]).unwrap();
    assert_eq!(
        (parsed.sender, parsed.target, parsed.sender_mac),
        (addr("169.254.1.1"), addr("169.254.1.1"), mac)
    );
    let parsed = SlicedPacket::from_ethernet(of_1[1]).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!() };
    assert_eq!(icmp.type_u8(), 136);
    node.step(Nanos::from_secs(2));
    assert!(node.announced.is_empty());

    // Who asks whether the gateway's address is free is told that it is not.
    let unspecified = addr("::");
    let (mut packet, group) = margay_dataplane::wire::nd::solicitation(
        addr("fe80::ecee:eeff:feee:eeee"),
        unspecified,
        Mac::default(),
    );
    // Without the option that says whose it is (RFC 4861 §4.3): one of no known type in its place.
    packet[64] = 250;
    packet[42..44].copy_from_slice(&[0, 0]);
    let sum = margay_dataplane::wire::checksum::Sum::default()
        .pseudo_header(
            unspecified,
            margay_dataplane::net::Addr::v6(packet[24..40].try_into().unwrap()),
            margay_dataplane::net::Proto::ICMP6,
            32,
        )
        .bytes(&packet[40..])
        .finish();
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
    let header = ethernet::Prebuilt::new(group, workload_mac(1), None, ethernet::IPV6);
    give(&mut node, "cali1", &[header.as_slice(), &packet].concat());
    let defended = node.pop("cali1").expect("an advertisement");
    assert_eq!(defended[..6], [0x33, 0x33, 0, 0, 0, 1]);
}

#[test]
fn an_error_about_a_flow_passes_and_another_does_not() {
    let mut node = standard(Setup::default());
    give(&mut node, "cali1", &udp_from(1, "10.65.0.2", 53));
    let got = node.pop("cali2").unwrap();
    // Workload 2 has no such port, and says so about what it received.
    let unreachable = |quote: &[u8]| {
        let header =
            etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
        let mut out = vec![];
        ip(workload_mac(2), gateway_mac(), "10.65.0.2", "10.65.0.1", 64)
            .icmpv4(header)
            .write(&mut out, quote)
            .unwrap();
        out
    };
    give(&mut node, "cali2", &unreachable(&got[14..]));
    assert!(node.pop("cali1").is_some());
    let stranger = udp(workload_mac(1), gateway_mac(), "10.65.0.1", "10.65.0.2", 1, 2);
    give(&mut node, "cali2", &unreachable(&stranger[14..]));
    assert!(node.pop("cali1").is_none());
    assert_eq!(dropped(&node, DropReason::ConntrackInvalid), 1);
}

#[test]
fn workloads_gateway_answers_arp_and_nd() {
    let mut node = standard(Setup::default());
    let ask = |target: &str, sender: &str| {
        let ask = arp::Arp {
            operation: arp::Operation::Request,
            sender_mac: workload_mac(1),
            sender: addr(sender),
            target_mac: Mac::default(),
            target: addr(target),
        };
        let header = ethernet::Prebuilt::new(Mac::BROADCAST, workload_mac(1), None, ethernet::ARP);
        [header.as_slice(), &ask.emit()].concat()
    };
    for target in ["169.254.1.1", "10.65.0.2", "10.65.1.4"] {
        give(&mut node, "cali1", &ask(target, "10.65.0.1"));
        let answer = arp::Arp::parse(&node.pop("cali1").expect("an answer")[14..]).unwrap();
        assert_eq!((answer.sender, answer.sender_mac), (addr(target), node.mac("cali1")));
    }
    give(&mut node, "cali1", &ask("10.65.0.1", "0.0.0.0"));
    assert!(node.pop("cali1").is_none(), "its own address: duplicate detection is not disturbed");
    give(&mut node, "cali1", &ask("169.254.1.1", "10.65.0.2"));
    assert_eq!(dropped(&node, DropReason::BadArp), 1, "it claims another's address");

    let (packet, group) = margay_dataplane::wire::nd::solicitation(
        addr("fe80::ecee:eeff:feee:eeee"),
        addr("fd65::1"),
        workload_mac(1),
    );
    let header = ethernet::Prebuilt::new(group, workload_mac(1), None, ethernet::IPV6);
    give(&mut node, "cali1", &[header.as_slice(), &packet].concat());
    let answer = node.pop("cali1").expect("an advertisement");
    let parsed = SlicedPacket::from_ethernet(&answer).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!() };
    assert_eq!(icmp.type_u8(), 136);
}

#[test]
fn workloads_cannot_pretend() {
    let mut node = standard(Setup::default());
    let mac = workload_mac(1);
    let cases = [
        (udp(mac, gateway_mac(), "10.65.0.9", "10.65.0.2", 1, 2), DropReason::SpoofedSource),
        (udp(mac, gateway_mac(), "10.65.0.1", "10.65.0.2", 1, 4789), DropReason::EncapFromWorkload),
        (udp(mac, Mac([2, 9, 9, 9, 9, 9]), "10.65.0.1", "10.65.0.2", 1, 2), DropReason::NotForUs),
        (udp(mac, gateway_mac(), "10.65.0.1", "224.0.0.5", 1, 2), DropReason::Multicast),
        (udp(mac, gateway_mac(), "10.65.0.1", "127.0.0.1", 1, 2), DropReason::Martian),
        (udp(mac, gateway_mac(), "10.65.0.1", "192.168.0.1", 1, 2), DropReason::EndpointToHost),
        (tcp(mac, gateway_mac(), "10.65.0.1", "10.65.0.2", 1, 2, "R"), DropReason::ConntrackInvalid),
    ];
    for (frame, reason) in cases {
        give(&mut node, "cali1", &frame);
        assert_eq!(dropped(&node, reason), 1, "{reason:?}");
        assert!(node.pop("cali1").is_none() && node.pop("cali2").is_none());
    }
}

#[test]
fn partial_checksums_are_finished() {
    use margay_dataplane::packet::L4Checksum;
    let mut node = standard(Setup::default());
    node.wire("cali1").set_checksum(L4Checksum::MaybePartial);
    let whole = udp_from(1, "10.65.0.2", 53);
    let mut partial = whole.clone();
    let pseudo = margay_dataplane::wire::checksum::Sum::default()
        .pseudo_header(addr("10.65.0.1"), addr("10.65.0.2"), margay_dataplane::net::Proto::UDP, 15)
        .folded();
    partial[40..42].copy_from_slice(&pseudo.to_be_bytes());
    assert_ne!(partial, whole);
    give(&mut node, "cali1", &partial);
    assert_eq!(node.pop("cali2").unwrap()[34..], whole[34..]);
}

#[test]
fn vlans_on_an_uplink() {
    let mut node = standard(Setup::default());
    node.vlan("eth0", 100, UPLINK_MAC, &[(addr("172.16.0.1"), 24)]);
    let mut changes = standard_changes();
    changes.push(via("10.66.0.0/16", "172.16.0.2"));
    node.commit(changes).unwrap();
    let answer = arp::Arp {
        operation: arp::Operation::Request,
        sender_mac: PEER_MAC,
        sender: addr("172.16.0.2"),
        target_mac: Mac::default(),
        target: addr("172.16.0.1"),
    };
    let tagged = |id, kind| ethernet::Prebuilt::new(UPLINK_MAC, PEER_MAC, Some(id), kind);
    give(&mut node, "eth0", &[tagged(100, ethernet::ARP).as_slice(), &answer.emit()].concat());
    let reply = node.pop("eth0").expect("answered on the VLAN");
    assert_eq!(ethernet::Header::parse(&reply).unwrap().vlan, Some(100));

    give(&mut node, "cali1", &udp_from(1, "10.66.1.1", 7));
    let sent = node.pop("eth0").expect("leaves tagged");
    let header = ethernet::Header::parse(&sent).unwrap();
    assert_eq!((header.vlan, header.dst), (Some(100), PEER_MAC));

    let back = udp(PEER_MAC, UPLINK_MAC, "10.66.1.1", "10.65.0.1", 7, 4000);
    give(&mut node, "eth0", &[tagged(100, ethernet::IPV4).as_slice(), &back[14..]].concat());
    let got = node.pop("cali1").expect("arrives without its tag");
    assert_eq!(got[12..14], [0x08, 0x00]);
    give(&mut node, "eth0", &[tagged(101, ethernet::IPV4).as_slice(), &back[14..]].concat());
    assert_eq!(dropped(&node, DropReason::UnknownVlan), 1);
}

#[test]
fn the_host_reaches_its_workloads_over_the_tap_and_they_answer() {
    let mut node = standard(Setup::default());
    let host = Mac([2, 0, 0, 0, 0, 0x77]);
    node.host("margay0", host);
    let ours = margay_dataplane::fib::Interfaces::HOST_PORT_MAC;
    give(&mut node, "margay0", &tcp(host, ours, "192.168.0.1", "10.65.0.3", 5000, 22, "S"));
    assert!(node.pop("cali3").is_some(), "a host is not policed towards its own workloads");
    give(&mut node, "margay0", &tcp(host, ours, "172.17.0.2", "10.65.0.3", 5000, 22, "S"));
    assert!(node.pop("cali3").is_none(), "what it routes for others is: only port 80 is open");
    give(&mut node, "margay0", &tcp(host, ours, "192.168.0.1", "10.65.0.1", 5000, 22, "S"));
    assert!(node.pop("cali1").is_some());
    give(&mut node, "cali1", &tcp_from(1, "192.168.0.1", 22, 5000, "SA"));
    assert_eq!(node.pop("margay0").expect("the answer")[..6], host.0);
    give(&mut node, "cali1", &tcp_from(1, "192.168.0.1", 6000, 22, "S"));
    assert_eq!(dropped(&node, DropReason::EndpointToHost), 1);
}

#[test]
fn a_full_receiver_is_counted() {
    let mut node = standard(Setup::default());
    node.wire("cali2").set_tx_capacity(3);
    for port in 0..10 {
        node.push("cali1", &udp_from(1, "10.65.0.2", port));
    }
    node.step(NOW);
    node.check();
    assert_eq!((node.account().tx, dropped(&node, DropReason::TxFull)), (3, 7));
}

#[test]
fn four_workers_judge_every_flow_once() {
    let mut node = standard(Setup { workers: 4, ..Setup::default() });
    for port in 1..=200 {
        node.push("cali1", &tcp_from(1, "10.65.0.3", port, 80, "S"));
    }
    node.step(NOW);
    node.check();
    let mut seen = 0;
    while node.pop("cali3").is_some() {
        seen += 1;
    }
    assert_eq!(seen, 200);
    for port in 1..=200 {
        node.push("cali3", &tcp_from(3, "10.65.0.1", 80, port, "SA"));
    }
    node.step(NOW);
    node.check();
    while node.pop("cali1").is_some() {
        seen += 1;
    }
    assert_eq!(seen, 400);
    let flows: Vec<usize> = node.workers.iter().map(|worker| worker.world().flows.len()).collect();
    assert_eq!(flows.iter().sum::<usize>(), 200, "one entry a flow, wherever its packets arrive");
    assert!(flows.iter().all(|n| *n > 20), "and they spread: {flows:?}");
    assert_eq!(seen_by(&node, "policy"), 200, "each was judged once");
    // A packet changes hands on its way to the owner of its flow, and on from there to a queue of
    // the interface it leaves by; in both directions alike.
    let [near, far] = ["cali1", "cali3"].map(|name| usize::from(node.state.id(name).unwrap().0) % 4);
    let handed = |owner| 2 * (usize::from(owner != near) + usize::from(owner != far));
    let expected: usize = flows.iter().enumerate().map(|(owner, flows)| flows * handed(owner)).sum();
    let sum = |of: fn(&WorkerCounters) -> &Counted| -> u64 {
        node.workers.iter().map(|worker| of(&worker.world().counters).get()).sum()
    };
    assert_eq!((sum(|c| &c.handed_out), sum(|c| &c.taken_in)), (expected as u64, expected as u64));
}

#[test]
fn an_endpoint_that_goes_takes_its_flows_along() {
    use margay_api::dataplane::v1::change::Change;
    let mut node = standard(Setup::default());
    give(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 4000, 80, "S"));
    assert_eq!(node.workers[0].world().flows.len(), 1);
    let without: Vec<_> = standard_changes()
        .into_iter()
        .filter(|c| !matches!(&c.change, Some(Change::WorkloadEndpoint(e)) if e.interface_name == "cali3"))
        .collect();
    node.state.begin();
    node.commit(without).unwrap();
    for _ in 0..4 {
        node.step(NOW);
    }
    node.check();
    assert_eq!(node.workers[0].world().flows.len(), 0);
    give(&mut node, "cali1", &tcp_from(1, "10.65.0.3", 4001, 80, "S"));
    assert_eq!(dropped(&node, DropReason::NoRoute), 1);
}
