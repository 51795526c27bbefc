//! Tunnels in memory: what leaves by them and comes out of them, byte by byte, and what does not.
#![allow(missing_docs)]

mod build;

use build::frames::*;
use build::*;
use etherparse::{PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
use margay_api::dataplane::v1 as pb;
use margay_dataplane::net::{Addr, Mac, Nanos, Proto};
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::{arp, ecn, ethernet, ip4, vxlan};
use pb::change::Change;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Ipip,
    Vxlan4,
    Vxlan6,
}

use Kind::{Ipip, Vxlan4, Vxlan6};

impl Kind {
    const ALL: [Self; 3] = [Ipip, Vxlan4, Vxlan6];

    /// A workload of ours, one of node b's, this node and that one.
    fn ends(self) -> [&'static str; 4] {
        match self {
            Ipip => ["10.65.0.1", "10.66.1.9", "192.168.0.1", "192.168.0.2"],
            Vxlan4 => ["10.65.0.1", "10.67.1.9", "192.168.0.1", "192.168.0.2"],
            Vxlan6 => ["fd65::1", "fd67:1::9", "fd00::1", "fd00::2"],
        }
    }

    fn mtu(self) -> usize {
        match self {
            Ipip => 1480,
            Vxlan4 => 1450,
            Vxlan6 => 1430,
        }
    }

    fn overhead(self) -> usize {
        1500 - self.mtu()
    }
}

/// The standard node with tunnels; node b is a neighbour that is known.
fn node(setup: Setup) -> Simulation {
    let mut node = standard(setup);
    commit(&mut node, tunnel_changes());
    know_b(&mut node);
    node
}

fn commit(node: &mut Simulation, more: Vec<pb::Change>) {
    node.commit([standard_changes(), more].concat()).unwrap();
    node.step(NOW);
}

fn know_b(node: &mut Simulation) {
    give(node, "eth0", &arp(PEER_MAC, arp::Operation::Reply, "192.168.0.2", "192.168.0.1"));
    give(node, "eth0", &advertise(PEER_MAC, UPLINK_MAC, "fd00::2", "fd00::1"));
    while node.pop("eth0").is_some() {}
}

/// The frame as node `from` would send the IP packet by a tunnel, outer traffic class as given.
fn through(kind: Kind, from: &str, inner: &[u8], class: u8) -> Vec<u8> {
    carried((kind != Ipip).then_some(4096), from, kind.ends()[2], inner, class)
}

/// What is in a frame that left by a tunnel, its outer headers checked by an independent parser.
fn inside(kind: Kind, frame: &[u8]) -> Vec<u8> {
    let [_, _, near, far] = kind.ends();
    assert_eq!((&frame[..6], &frame[6..12]), (&PEER_MAC.0[..], &UPLINK_MAC.0[..]));
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (from, to, header_len) = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert!(header.dont_fragment() && header.ttl() == 64 && header.identification() == 0);
            (Addr::v4(header.source()), Addr::v4(header.destination()), 20)
        }
        etherparse::NetSlice::Ipv6(ip) => {
            (Addr::v6(ip.header().source()), Addr::v6(ip.header().destination()), 40)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((from, to), (addr(near), addr(far)));
    if kind == Ipip {
        assert_eq!(frame[23], 4);
        return frame[34..].to_vec();
    }
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("UDP") };
    assert_eq!(udp.destination_port(), 4789);
    assert!(udp.source_port() >= 0xc000);
    assert_eq!(
        (udp.checksum() == 0, usize::from(udp.length())),
        (kind == Vxlan4, frame.len() - 14 - header_len)
    );
    let behind = &frame[14 + header_len + 8..];
    assert_eq!(behind[..8], [8, 0, 0, 0, 0, 0x10, 0, 0]);
    assert_eq!((&behind[8..14], &behind[14..20]), (&FAR_VTEP_MAC.0[..], &VTEP_MAC.0[..]));
    assert_eq!(frame.len() - behind[22..].len(), 14 + kind.overhead());
    behind[22..].to_vec()
}

fn from_b(kind: Kind, dport: u16) -> Vec<u8> {
    let [ours, theirs, ..] = kind.ends();
    udp(PEER_MAC, UPLINK_MAC, theirs, ours, 4000, dport)[14..].to_vec()
}

#[test]
fn what_leaves_and_what_comes_back_is_one_flow() {
    let mut node = node(Setup::default());
    for kind in Kind::ALL {
        let [ours, theirs, _, far] = kind.ends();
        let sent = udp(workload_mac(1), gateway_mac(), ours, theirs, 4000, 53);
        for _ in 0..2 {
            give(&mut node, "cali1", &sent);
            assert_eq!(inside(kind, &node.pop("eth0").expect("by the uplink")), aged(sent[14..].to_vec()));
        }
        let answer = udp(PEER_MAC, UPLINK_MAC, theirs, ours, 53, 4000)[14..].to_vec();
        give(&mut node, "eth0", &through(kind, far, &answer, 0));
        let got = node.pop("cali1").expect("the answer");
        assert_eq!((&got[..6], &got[14..]), (&workload_mac(1).0[..], &aged(answer)[..]));
    }
    assert_eq!(node.workers[0].world().flows.len(), 3);
}

#[test]
fn the_first_packet_waits_for_the_node_to_answer() {
    let mut node = standard(Setup::default());
    commit(&mut node, tunnel_changes());
    for kind in Kind::ALL {
        give(&mut node, "cali1", &udp(workload_mac(1), gateway_mac(), kind.ends()[0], kind.ends()[1], 1, 53));
    }
    let asked = std::iter::from_fn(|| node.pop("eth0")).count();
    assert_eq!((asked, node.account().in_flight), (2, 3), "one question a family");
    node.push("eth0", &arp(PEER_MAC, arp::Operation::Reply, "192.168.0.2", "192.168.0.1"));
    node.push("eth0", &advertise(PEER_MAC, UPLINK_MAC, "fd00::2", "fd00::1"));
    node.step(NOW);
    node.step(NOW);
    node.check();
    let left: Vec<_> = std::iter::from_fn(|| node.pop("eth0")).collect();
    assert_eq!(left.len(), 3);
    for kind in Kind::ALL {
        let whose = |frame: &&Vec<u8>| {
            frame.windows(16).any(|window| window == addr(kind.ends()[1]).octets())
                || frame.windows(4).any(|window| window == addr(kind.ends()[1]).v4_octets())
        };
        inside(kind, left.iter().find(whose).expect("one of each"));
    }
}

#[test]
fn a_flow_has_one_port_of_its_own() {
    let mut node = node(Setup::default());
    let mut ports = std::collections::BTreeSet::new();
    for sport in 1..=100 {
        let mut of_flow = std::collections::BTreeSet::new();
        for _ in 0..3 {
            give(
                &mut node,
                "cali1",
                &udp(workload_mac(1), gateway_mac(), "10.65.0.1", "10.67.1.9", sport, 53),
            );
            let frame = node.pop("eth0").unwrap();
            of_flow.insert(u16::from_be_bytes([frame[34], frame[35]]));
        }
        assert_eq!(of_flow.len(), 1);
        ports.extend(of_flow);
    }
    assert!(ports.len() > 95, "{} ports of 100 flows", ports.len());
}

#[test]
fn congestion_and_service_class_are_carried() {
    let mut node = node(Setup::default());
    for kind in Kind::ALL {
        let [ours, theirs, _, far] = kind.ends();
        // Expedited forwarding, ECT(0).
        let sent = classed(udp(workload_mac(1), gateway_mac(), ours, theirs, 4000, 53), 0xba);
        give(&mut node, "cali1", &sent);
        assert_eq!(ecn::traffic_class(&node.pop("eth0").unwrap()[14..]), 0xba);

        for (outer, inner, want) in [(3, 2, Some(3)), (0xb8, 0, Some(0)), (1, 2, Some(1)), (3, 0, None)] {
            let frame = ether(PEER_MAC, UPLINK_MAC, None, 0, &from_b(kind, 5000 + inner));
            let packet = classed(frame, inner as u8)[14..].to_vec();
            give(&mut node, "eth0", &through(kind, far, &packet, outer));
            let got = node.pop("cali1").map(|frame| {
                assert!(kind == Vxlan6 || ip4::Header::parse(&frame[14..]).is_ok(), "it sums up");
                ecn::traffic_class(&frame[14..])
            });
            assert_eq!(got, want, "{kind:?} outer {outer} inner {inner}");
        }
    }
    assert_eq!(dropped(&node, DropReason::TunnelCongestion), 3);
}

#[test]
fn only_nodes_may_send_by_tunnels() {
    let mut node = node(Setup::default());
    for (n, kind) in (1..).zip(Kind::ALL) {
        let stranger = if kind == Vxlan6 { "fd00::9" } else { "192.168.0.9" };
        give(&mut node, "eth0", &through(kind, stranger, &from_b(kind, 53), 0));
        assert_eq!(dropped(&node, DropReason::TunnelFromStranger), n);
    }
    let external = tunnel_changes().into_iter().map(|change| match change.change {
        Some(Change::Config(mut config)) => {
            config.overlay.as_mut().unwrap().external_nodes = vec![prefix("192.168.0.8/29")];
            pb::Change { change: Some(Change::Config(config)) }
        }
        _ => change,
    });
    commit(&mut node, external.collect());
    give(&mut node, "eth0", &through(Ipip, "192.168.0.9", &from_b(Ipip, 53), 0));
    assert!(node.pop("cali1").is_some(), "a node of another cluster");

    for (n, to) in (1..).zip(["10.65.0.2", "10.67.1.9", "192.168.0.2"]) {
        give(&mut node, "cali1", &udp_from(1, to, 4789));
        let ipip = raw(workload_mac(1), gateway_mac(), "10.65.0.1", to, Proto::IPIP, 64, &[0x45; 20]);
        give(&mut node, "cali1", &ipip);
        assert_eq!(dropped(&node, DropReason::EncapFromWorkload), 2 * n);
    }
}

#[test]
fn workloads_may_have_tunnels_of_their_own_where_that_is_allowed() {
    let mut node = node(Setup::default());
    let vxlan = udp_from(1, "10.65.0.2", 4789);
    let ipip = raw(workload_mac(1), gateway_mac(), "10.65.0.1", "10.65.0.2", Proto::IPIP, 64, &[0x45; 20]);
    for (allow_ipip, allow_vxlan) in [(true, false), (false, true), (true, true), (false, false)] {
        let changes = tunnel_changes().into_iter().map(|change| match change.change {
            Some(Change::Config(mut config)) => {
                config.allow_ipip_from_workloads = allow_ipip;
                config.allow_vxlan_from_workloads = allow_vxlan;
                pb::Change { change: Some(Change::Config(config)) }
            }
            _ => change,
        });
        commit(&mut node, changes.collect());
        for (frame, allowed) in [(&ipip, allow_ipip), (&vxlan, allow_vxlan)] {
            let before = dropped(&node, DropReason::EncapFromWorkload);
            give(&mut node, "cali1", frame);
            assert_eq!(node.pop("cali2").is_some(), allowed);
            assert_eq!(dropped(&node, DropReason::EncapFromWorkload) - before, u64::from(!allowed));
        }
    }
}

#[test]
fn what_is_wrong_is_dropped_with_its_reason() {
    let mut node = node(Setup::default());
    let mut refused = |frame: &[u8], reason| {
        let before = dropped(&node, reason);
        give(&mut node, "eth0", frame);
        assert_eq!(dropped(&node, reason), before + 1, "{reason:?}");
    };
    let packet = from_b(Vxlan4, 53);
    refused(&carried(Some(4097), "192.168.0.2", "192.168.0.1", &packet, 0), DropReason::VxlanNetwork);
    let good = through(Vxlan4, "192.168.0.2", &packet, 0);
    let mut no_flag = good.clone();
    no_flag[42] = 0;
    refused(&no_flag, DropReason::BadTunnel);
    let mut to_other = good.clone();
    to_other[55] = 9;
    refused(&to_other, DropReason::NotForUs);
    let mut question = good.clone();
    question[62..64].copy_from_slice(&ethernet::ARP.to_be_bytes());
    refused(&question, DropReason::NotAnswered);
    for kind in Kind::ALL {
        let [ours, theirs, _, far] = kind.ends();
        refused(&through(kind, far, &[0x45, 0, 0], 0), DropReason::Truncated);
        let martian = if kind == Vxlan6 { "::1" } else { "127.0.0.1" };
        let forged = udp(PEER_MAC, UPLINK_MAC, martian, ours, 1, 2);
        refused(&through(kind, far, &forged[14..], 0), DropReason::Martian);
        let nested = match kind {
            Vxlan6 => through(Vxlan6, theirs, &from_b(Vxlan6, 53), 0)[14..].to_vec(),
            _ => through(Ipip, theirs, &from_b(Ipip, 53), 0)[14..].to_vec(),
        };
        refused(&through(kind, far, &nested, 0), DropReason::NoHostPort);
    }
    let whole = through(Ipip, "192.168.0.2", &from_b(Ipip, 53), 0);
    refused(&patched(whole.clone(), 6, &[0x20, 0]), DropReason::TunnelFragment);
    refused(&patched(whole, 6, &[0, 9]), DropReason::TunnelFragment);
    for len in 0..good.len() {
        node.push("eth0", &good[..len]);
    }
    node.step(NOW);
    node.check();
    assert!(node.pop("cali1").is_none(), "nothing comes out of what is cut short");
}

#[test]
fn without_tunnels_or_without_their_other_end_nothing_goes_by_them() {
    let mut node = node(Setup::default());
    let ends = |change: &pb::Change| matches!(&change.change, Some(Change::TunnelEndpoint(_)));
    node.state.begin();
    commit(&mut node, tunnel_changes().into_iter().filter(|change| !ends(change)).collect());
    for kind in Kind::ALL {
        give(&mut node, "cali1", &udp(workload_mac(1), gateway_mac(), kind.ends()[0], kind.ends()[1], 1, 53));
    }
    assert_eq!(dropped(&node, DropReason::NoRoute), 3);
    give(&mut node, "eth0", &through(Ipip, "192.168.0.2", &from_b(Ipip, 53), 0));
    assert_eq!(dropped(&node, DropReason::TunnelFromStranger), 1);

    node.state.begin();
    commit(&mut node, vec![]);
    give(&mut node, "eth0", &through(Ipip, "192.168.0.2", &from_b(Ipip, 53), 0));
    give(&mut node, "eth0", &through(Vxlan4, "192.168.0.2", &from_b(Vxlan4, 53), 0));
    assert_eq!(dropped(&node, DropReason::NoHostPort), 2, "for the host, and not opened");
    let names: Vec<_> =
        node.state.publisher().current().interfaces.iter().map(|i| i.name.to_string()).collect();
    assert!(names.iter().all(|name| !name.starts_with("margay-")), "{names:?}");
}

/// UDP of `len` bytes in all, from workload 1.
fn long(kind: Kind, len: usize, dont_fragment: bool) -> Vec<u8> {
    let [ours, theirs, ..] = kind.ends();
    let mut out = vec![];
    let body: Vec<u8> = (0..len - if kind == Vxlan6 { 48 } else { 28 }).map(|n| n as u8).collect();
    let step = ip(workload_mac(1), gateway_mac(), ours, theirs, 64);
    step.udp(4000, 53).write(&mut out, &body).unwrap();
    if kind == Vxlan6 { out } else { patched(out, 6, &[if dont_fragment { 0x40 } else { 0 }, 0]) }
}

#[test]
fn the_sender_is_told_what_fits() {
    let mut node = node(Setup::default());
    for kind in Kind::ALL {
        give(&mut node, "cali1", &long(kind, kind.mtu(), true));
        assert_eq!(node.pop("eth0").expect("it just fits").len(), 1514);
        give(&mut node, "cali1", &long(kind, kind.mtu() + 1, true));
        assert!(node.pop("eth0").is_none());
        let told = node.pop("cali1").expect("an error");
        let (at, kinds) = if kind == Vxlan6 { (54, [2, 0]) } else { (34, [3, 4]) };
        assert_eq!(
            (&told[at..at + 2], &told[at + 4..at + 8]),
            (&kinds[..], &(kind.mtu() as u32).to_be_bytes()[..])
        );
    }
}

#[test]
fn what_may_be_cut_is_cut_inside() {
    for workers in [1, 4] {
        let mut node = node(Setup { workers, ..Setup::default() });
        for kind in [Ipip, Vxlan4] {
            let sent = long(kind, 1500, false);
            for _ in 0..300 {
                node.push("cali1", &sent);
            }
            node.step(NOW);
            node.check();
            let (mut whole, mut ended) = (Vec::<u8>::new(), 0);
            while let Some(frame) = node.pop("eth0") {
                assert!(frame.len() <= 1514);
                let packet = inside(kind, &frame);
                let header = ip4::Header::parse(&packet).unwrap();
                assert_eq!((header.ttl, header.total_len), (63, packet.len()));
                let piece = ip4::fragment(&packet).unwrap();
                assert_eq!(usize::from(piece.start), whole.len());
                whole.extend(&packet[20..]);
                if piece.last {
                    assert_eq!(std::mem::take(&mut whole), sent[34..]);
                    ended += 1;
                }
            }
            assert_eq!(ended, 300);
        }
    }
}

#[test]
fn errors_go_back_through_the_tunnel() {
    let mut node = node(Setup::default());
    for kind in Kind::ALL {
        let [ours, theirs, _, far] = kind.ends();
        let mut dying = vec![];
        ip(PEER_MAC, UPLINK_MAC, theirs, ours, 1).udp(1, 53).write(&mut dying, b"").unwrap();
        give(&mut node, "eth0", &through(kind, far, &dying[14..], 0));
        let back = inside(kind, &node.pop("eth0").expect("an error"));
        let (at, time_exceeded) = if kind == Vxlan6 { (40, 3) } else { (20, 11) };
        assert_eq!((back[at], &back[at + 8..]), (time_exceeded, &dying[14..]));
    }
    assert_eq!(dropped(&node, DropReason::TtlExceeded), 3);
}

#[test]
fn a_routers_word_about_the_way_counts_for_ten_minutes() {
    let mut node = node(Setup::default());
    for kind in [Ipip, Vxlan6] {
        let fits = |node: &mut Simulation, len: usize| {
            give(node, "cali1", &long(kind, len, true));
            let left = node.pop("eth0");
            while node.pop("cali1").is_some() {}
            left
        };
        let lost = fits(&mut node, kind.mtu()).expect("it fits the link");
        give(&mut node, "eth0", &too_big(1400, &lost));
        assert!(fits(&mut node, kind.mtu()).is_none(), "{kind:?}");
        assert!(fits(&mut node, 1401 - kind.overhead()).is_none());
        assert!(fits(&mut node, 1400 - kind.overhead()).is_some());
        // Forged, about somebody else's packet, or about nothing of ours.
        let mut foreign = too_big(600, &lost);
        let quoted_from = if kind == Vxlan6 { 14 + 40 + 8 + 8 + 15 } else { 14 + 20 + 8 + 12 + 3 };
        foreign[quoted_from] ^= 7;
        give(&mut node, "eth0", &foreign);
        assert!(fits(&mut node, 1400 - kind.overhead()).is_some());

        for _ in 0..601 {
            node.step(Nanos::from_secs(1));
        }
        know_b(&mut node);
        assert!(fits(&mut node, kind.mtu()).is_some(), "{kind:?}: the way may be better by now");
    }
}

#[test]
fn both_ends_of_a_connection_are_told_to_send_less() {
    let mut node = node(Setup::default());
    let segment = |from_mac: Mac, to_mac: Mac, from: &str, to: &str, flags: &str| {
        let (sport, dport) = if flags == "S" { (4000, 80) } else { (80, 4000) };
        let step = ip(from_mac, to_mac, from, to, 64).tcp(sport, dport, 1000, 1024).syn();
        let step = if flags == "SA" { step.ack(1001) } else { step };
        let mut out = vec![];
        let options = [TcpOptionElement::MaximumSegmentSize(8960), TcpOptionElement::WindowScale(7)];
        step.options(&options).unwrap().write(&mut out, b"").unwrap();
        out
    };
    let size = |packet: &[u8]| {
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("TCP") };
        let sum = match sliced.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
            }
            etherparse::NetSlice::Ipv6(ip) => {
                tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(Ok(tcp.checksum()), sum);
        tcp.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(usize::from(size)),
            _ => None,
        })
    };
    for kind in Kind::ALL {
        let [ours, theirs, _, far] = kind.ends();
        let most = kind.mtu() - if kind == Vxlan6 { 60 } else { 40 };
        give(&mut node, "cali1", &segment(workload_mac(1), gateway_mac(), ours, theirs, "S"));
        assert_eq!(size(&inside(kind, &node.pop("eth0").unwrap())), Some(most));
        let answer = segment(PEER_MAC, UPLINK_MAC, theirs, ours, "SA");
        give(&mut node, "eth0", &through(kind, far, &answer[14..], 0));
        assert_eq!(size(&node.pop("cali1").expect("the answer")[14..]), Some(most));
    }
    // Between workloads of one node nothing is in the way.
    give(&mut node, "cali1", &segment(workload_mac(1), gateway_mac(), "10.65.0.1", "10.65.0.2", "S"));
    assert_eq!(size(&node.pop("cali2").unwrap()[14..]), Some(8960));
}

#[test]
fn answers_find_the_worker_of_their_flow() {
    let mut node = node(Setup { workers: 4, ..Setup::default() });
    for port in 1..=200 {
        node.push("cali1", &udp(workload_mac(1), gateway_mac(), "10.65.0.1", "10.67.1.9", port, 53));
    }
    node.step(NOW);
    while node.pop("eth0").is_some() {}
    for port in 1..=200 {
        let answer = udp(PEER_MAC, UPLINK_MAC, "10.67.1.9", "10.65.0.1", 53, port)[14..].to_vec();
        node.push("eth0", &through(Vxlan4, "192.168.0.2", &answer, 0));
    }
    node.step(NOW);
    node.check();
    assert_eq!(std::iter::from_fn(|| node.pop("cali1")).count(), 200);
    let flows: Vec<usize> = node.workers.iter().map(|worker| worker.world().flows.len()).collect();
    assert_eq!(flows.iter().sum::<usize>(), 200, "{flows:?}");
    assert!(flows.iter().all(|n| *n > 20), "{flows:?}");
}

#[test]
fn policy_judges_what_is_inside() {
    let mut node = node(Setup::default());
    for (port, passes) in [(80, true), (81, false)] {
        let syn = tcp(PEER_MAC, UPLINK_MAC, "10.67.1.9", "10.65.0.3", 4000, port, "S");
        give(&mut node, "eth0", &through(Vxlan4, "192.168.0.2", &syn[14..], 0));
        assert_eq!(node.pop("cali3").is_some(), passes);
    }
    assert_eq!(dropped(&node, DropReason::PolicyDenied), 1);
}

#[test]
fn a_configured_port_network_and_mtu_count() {
    let mut node = standard(Setup::default());
    let changed = tunnel_changes().into_iter().map(|change| match change.change {
        Some(Change::Config(mut config)) => {
            let overlay = config.overlay.as_mut().unwrap();
            (overlay.vxlan_port, overlay.vxlan_vni, overlay.vxlan_mtu) = (8472, 0xabcdef, 1300);
            pb::Change { change: Some(Change::Config(config)) }
        }
        _ => change,
    });
    commit(&mut node, changed.collect());
    know_b(&mut node);
    give(&mut node, "cali1", &udp(workload_mac(1), gateway_mac(), "10.65.0.1", "10.67.1.9", 1, 53));
    let frame = node.pop("eth0").unwrap();
    assert_eq!(
        (&frame[36..38], &frame[42..50]),
        (&8472u16.to_be_bytes()[..], &[8, 0, 0, 0, 0xab, 0xcd, 0xef, 0][..])
    );
    give(&mut node, "cali1", &long(Vxlan4, 1301, true));
    assert!(node.pop("eth0").is_none());
    give(&mut node, "cali1", &udp_from(1, "10.65.0.2", 4789));
    assert!(node.pop("cali2").is_some(), "no tunnel's port here");
    give(&mut node, "cali1", &udp_from(1, "10.65.0.2", 8472));
    assert_eq!(dropped(&node, DropReason::EncapFromWorkload), 1);
}

#[test]
fn interfaces_that_are_named_say_what_fits() {
    let mut node = node(Setup::default());
    let links = [("eth0", 1500), ("eth1", 1400), ("wan0", 1300)];
    node.state.set_links(links.map(|(name, mtu)| (name.into(), mtu)).into());
    assert_eq!(node.state.workload_mtu(), Some(1430), "uplinks count");
    let named = |node: &mut Simulation, pattern: &str| {
        let mut changes = tunnel_changes();
        let Some(Change::Config(config)) = &mut changes[0].change else { panic!("the first is the node's") };
        config.mtu_interfaces = pattern.into();
        commit(node, changes);
        node.state.workload_mtu()
    };
    assert_eq!(named(&mut node, "^eth"), Some(1330));
    give(&mut node, "cali1", &long(Ipip, 1380, true));
    assert_eq!(node.pop("eth0").expect("it just fits").len(), 1414);
    give(&mut node, "cali1", &long(Ipip, 1381, true));
    assert!(node.pop("eth0").is_none());
    assert_eq!(node.pop("cali1").expect("an error")[38..42], [0, 0, 5, 100]);

    // It goes, and nobody with such a name is left.
    node.state.set_links([("wan0".into(), 1300)].into());
    assert_eq!((node.state.workload_mtu(), node.state.lacks_named_links()), (Some(1390), true));
    assert_eq!(named(&mut node, ""), Some(1430));
    assert!(!node.state.lacks_named_links());
    // One that takes more than the uplink: still no more than that takes.
    node.state.set_links([("eth7".into(), 9000)].into());
    assert_eq!(named(&mut node, "eth7"), Some(8930));
    give(&mut node, "cali1", &long(Ipip, 1480, true));
    assert_eq!(node.pop("eth0").expect("it just fits").len(), 1514);
    give(&mut node, "cali1", &long(Ipip, 1481, true));
    assert!(node.pop("eth0").is_none());
}

#[test]
fn packets_of_a_builder_that_knows_nothing_of_us_come_out() {
    let mut node = node(Setup::default());
    let mut inner = vec![];
    PacketBuilder::ethernet2(FAR_VTEP_MAC.0, VTEP_MAC.0)
        .ipv4([10, 67, 1, 9], [10, 65, 0, 1], 64)
        .udp(1, 2)
        .write(&mut inner, b"hello")
        .unwrap();
    let mut frame = vec![];
    let payload = [&vxlan::emit(4096)[..], &inner].concat();
    PacketBuilder::ethernet2(PEER_MAC.0, UPLINK_MAC.0)
        .ipv4([192, 168, 0, 2], [192, 168, 0, 1], 64)
        .udp(54_321, 4789)
        .write(&mut frame, &payload)
        .unwrap();
    give(&mut node, "eth0", &frame);
    assert_eq!(node.pop("cali1").unwrap()[34..], inner[34..], "with an outer checksum as well");
}
