//! Super-frames in memory: whole where the way takes them, their segments where it does not, and the
//! account of both.
#![allow(missing_docs)]

mod build;

use build::frames::*;
use build::wireguard::{LINKS, Pair, WORKLOADS};
use build::*;
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::net::{Mac, Proto};
use margay_dataplane::packet::{DropReason, Gso};
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::{arp, ethernet};

const SIZE: u16 = 1200;

/// The payload of a super-frame of so many bytes.
fn data(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// A super-frame from workload `n`, its checksum left to hardware.
fn super_frame(from_mac: Mac, from: &str, to: &str, gso: Gso, len: usize) -> Vec<u8> {
    let (mut out, step) = (vec![], ip(from_mac, gateway_mac(), from, to, 64));
    match gso {
        Gso::Udp => step.udp(4000, 53).write(&mut out, &data(len)).unwrap(),
        _ => step.tcp(4000, 80, 1_001, 1024).ack(1_001).psh().write(&mut out, &data(len)).unwrap(),
    }
    let at = 14 + if addr(from).is_v4() { 20 } else { 40 } + if gso == Gso::Udp { 6 } else { 16 };
    out[at] ^= 0x55;
    // As Linux has it: packets that may not be cut.
    if addr(from).is_v4() { patched(out, 6, &[0x40]) } else { out }
}

fn from_one(to: &str, gso: Gso, len: usize) -> Vec<u8> {
    let from = if addr(to).is_v4() { "10.65.0.1" } else { "fd65::1" };
    super_frame(workload_mac(1), from, to, gso, len)
}

/// Opens workload 1's connection to port 80 there, and takes what that sends.
fn connect(node: &mut Simulation, to: &str, far: &str, answer: &[u8]) {
    give(node, "cali1", &tcp_from(1, to, 4000, 80, "S"));
    assert!(node.pop(far).is_some(), "the way is open");
    give(node, far, answer);
    assert!(node.pop("cali1").is_some(), "both ways");
}

/// A segment: sound to an independent parser, its checksums included. Sequence number or 0, and payload.
fn sound(ip: &[u8]) -> (u32, Vec<u8>) {
    let read = PacketHeaders::from_ip_slice(ip).unwrap();
    let payload = read.payload.slice();
    let (right, said, seq) = match (read.net.unwrap(), read.transport.unwrap()) {
        (NetHeaders::Ipv4(ip, _), TransportHeader::Tcp(tcp)) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            (tcp.calc_checksum_ipv4(&ip, payload).unwrap(), tcp.checksum, tcp.sequence_number)
        }
        (NetHeaders::Ipv4(ip, _), TransportHeader::Udp(udp)) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            (udp.calc_checksum_ipv4(&ip, payload).unwrap(), udp.checksum, 0)
        }
        (NetHeaders::Ipv6(ip, _), TransportHeader::Tcp(tcp)) => {
            (tcp.calc_checksum_ipv6(&ip, payload).unwrap(), tcp.checksum, tcp.sequence_number)
        }
        (NetHeaders::Ipv6(ip, _), TransportHeader::Udp(udp)) => {
            (udp.calc_checksum_ipv6(&ip, payload).unwrap(), udp.checksum, 0)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(said, right);
    (seq, payload.to_vec())
}

/// The segments of a super-frame of `len` bytes, put together again.
fn whole_again(packets: &[Vec<u8>], gso: Gso, len: usize) {
    assert_eq!(packets.len(), len.div_ceil(SIZE.into()));
    let mut payload = vec![];
    for packet in packets {
        let (seq, part) = sound(packet);
        assert!(gso == Gso::Udp || seq == 1_001 + payload.len() as u32, "{seq}");
        payload.extend(part);
    }
    assert!(payload == data(len));
}

fn all(node: &Simulation, interface: &str) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| node.pop(interface)).map(|frame| frame[14..].to_vec()).collect()
}

fn give_super(node: &mut Simulation, interface: &str, frame: &[u8], gso: Gso) {
    node.push_super(interface, frame, gso, SIZE);
    node.step(NOW);
    node.check();
}

const ENDS: [(&str, Gso); 4] =
    [("10.65.0.2", Gso::Tcp), ("fd65::2", Gso::Tcp), ("10.65.0.2", Gso::Udp), ("fd65::2", Gso::Udp)];

/// An open node whose workload 1 has a connection to workload 2, of each family.
fn connected(setup: Setup) -> Simulation {
    let mut node = standard(setup);
    for (to, from) in [("10.65.0.2", "10.65.0.1"), ("fd65::2", "fd65::1")] {
        connect(&mut node, to, "cali2", &tcp_from(2, from, 80, 4000, "SA"));
    }
    node
}

#[test]
fn a_port_that_takes_them_gets_them_whole() {
    for len in [2 * usize::from(SIZE), 60_000, 1_500] {
        for (to, gso) in ENDS {
            let mut node = connected(Setup::default());
            node.take_super_frames("cali2");
            let before = node.account();
            let sent = from_one(to, gso, len);
            give_super(&mut node, "cali1", &sent, gso);
            let (got, size) = node.wire("cali2").pop_super().expect("delivered");
            assert_eq!((size, got.len()), (SIZE, sent.len()));
            assert_eq!((&got[..6], got[14..].len()), (&workload_mac(2).0[..], sent.len() - 14));
            assert_eq!(got[74..], sent[74..], "the payload is as it was");
            let count = len.div_ceil(SIZE.into()) as u64;
            let after = node.account();
            assert_eq!((after.rx - before.rx, after.tx - before.tx), (count, count), "{to} {gso:?} {len}");
        }
    }
}

#[test]
fn a_port_that_does_not_gets_their_segments() {
    for len in [1_500, 60_000, 65_000] {
        for (to, gso) in ENDS {
            let mut node = connected(Setup::default());
            let before = node.account();
            give_super(&mut node, "cali1", &from_one(to, gso, len), gso);
            whole_again(&all(&node, "cali2"), gso, len);
            let count = len.div_ceil(SIZE.into()) as u64;
            let after = node.account();
            assert_eq!((after.rx - before.rx, after.tx - before.tx), (count, count));
        }
    }
}

#[test]
fn many_at_once_come_whole_and_in_order() {
    let mut node = connected(Setup { large: 64, ..Setup::default() });
    for _ in 0..40 {
        node.push_super("cali1", &from_one("10.65.0.2", Gso::Udp, 60_000), Gso::Udp, SIZE);
    }
    node.step(NOW);
    node.check();
    let got = all(&node, "cali2");
    let each = 60_000usize.div_ceil(SIZE.into());
    assert_eq!(got.len(), 40 * each);
    got.chunks(each).for_each(|packets| whole_again(packets, Gso::Udp, 60_000));
}

#[test]
fn they_move_the_window_by_all_of_their_bytes() {
    let mut node = connected(Setup::default());
    give_super(&mut node, "cali1", &from_one("10.65.0.2", Gso::Tcp, 60_000), Gso::Tcp);
    whole_again(&all(&node, "cali2"), Gso::Tcp, 60_000);
    let mut ack = vec![];
    let step = ip(workload_mac(2), gateway_mac(), "10.65.0.2", "10.65.0.1", 64);
    step.tcp(80, 4000, 1_001, 1024).ack(61_001).write(&mut ack, b"").unwrap();
    give(&mut node, "cali2", &ack);
    assert!(node.pop("cali1").is_some(), "all of it is acknowledged");
    let mut ack = vec![];
    let step = ip(workload_mac(2), gateway_mac(), "10.65.0.2", "10.65.0.1", 64);
    step.tcp(80, 4000, 1_001, 1024).ack(1_061_001).write(&mut ack, b"").unwrap();
    give(&mut node, "cali2", &ack);
    assert!(node.pop("cali1").is_none(), "what was never sent is not");
    assert_eq!(dropped(&node, DropReason::TcpOutOfWindow), 1);
}

fn know_b(node: &mut Simulation) {
    give(node, "eth0", &arp(PEER_MAC, arp::Operation::Reply, "192.168.0.2", "192.168.0.1"));
    give(node, "eth0", &advertise(PEER_MAC, UPLINK_MAC, "fd00::2", "fd00::1"));
    while node.pop("eth0").is_some() {}
}

#[test]
fn tunnels_carry_their_segments() {
    let mut node = standard(Setup::default());
    node.commit([standard_changes(), tunnel_changes()].concat()).unwrap();
    know_b(&mut node);
    for (to, outer) in [("10.66.1.9", 34), ("10.67.1.9", 64), ("fd67:1::9", 84)] {
        for len in [3_000, 60_000] {
            give_super(&mut node, "cali1", &from_one(to, Gso::Udp, len), Gso::Udp);
            let inner: Vec<_> =
                std::iter::from_fn(|| node.pop("eth0")).map(|frame| frame[outer..].to_vec()).collect();
            whole_again(&inner, Gso::Udp, len);
        }
    }
    assert_eq!(node.account().drops, 0);
}

#[test]
fn encrypted_tunnels_carry_their_segments() {
    for family in [0, 1] {
        let mut pair = Pair::new(Setup::default());
        let (from, to) = (WORKLOADS[0][family], WORKLOADS[1][family]);
        // There is no session yet: they wait for it, as segments.
        for len in [3_000, 20_000] {
            let frame = super_frame(workload_mac(1), from, to, Gso::Udp, len);
            pair.nodes[0].push_super(LINKS[0], &frame, Gso::Udp, SIZE);
            pair.step(NOW);
            whole_again(&all(&pair.nodes[1], LINKS[1]), Gso::Udp, len);
        }
        assert_eq!(pair.nodes.each_ref().map(|node| node.account().drops), [0, 0], "{}", pair.told());
    }
}

#[test]
fn what_is_translated_has_sound_segments() {
    let pool = |cidr: &str| {
        change(Change::IpPool(pb::IpPool {
            cidr: Some(prefix(cidr)),
            masquerade: true,
            ..Default::default()
        }))
    };
    let more = vec![
        pool("10.65.0.0/16"),
        pool("fd65::/32"),
        via("0.0.0.0/0", "192.168.0.2"),
        via("::/0", "fd00::2"),
    ];
    let mut node = standard(Setup::default());
    node.commit([standard_changes(), more].concat()).unwrap();
    know_b(&mut node);
    for to in ["192.0.2.7", "2001:db8::7"] {
        give_super(&mut node, "cali1", &from_one(to, Gso::Udp, 10_000), Gso::Udp);
        let got = all(&node, "eth0");
        whole_again(&got, Gso::Udp, 10_000);
        let own = if addr(to).is_v4() { addr("192.168.0.1") } else { addr("fd00::1") };
        let at = if addr(to).is_v4() { 12..16 } else { 8..24 };
        assert!(got.iter().all(|packet| packet[at.clone()] == bytes(own)[..]), "from the node's address");
    }
}

#[test]
fn segments_too_long_for_the_way_are_told_of_once() {
    let mut node = standard(Setup::default());
    node.commit([standard_changes(), tunnel_changes()].concat()).unwrap();
    know_b(&mut node);
    for (to, mtu) in [("10.67.1.9", 1450u16), ("fd67:1::9", 1430)] {
        // 1,440 of payload and the headers do not fit.
        let frame = from_one(to, Gso::Udp, 14_400);
        let before = dropped(&node, DropReason::TooBig);
        node.push_super("cali1", &frame, Gso::Udp, 1440);
        node.step(NOW);
        node.check();
        assert!(node.pop("eth0").is_none());
        let error = node.pop("cali1").expect("its sender is told");
        assert!(node.pop("cali1").is_none(), "once");
        assert_eq!(dropped(&node, DropReason::TooBig) - before, 10, "ten packets were");
        let (v4, quote) = (addr(to).is_v4(), if addr(to).is_v4() { 42 } else { 62 });
        let (said, len) = match v4 {
            true => (&error[40..42], &error[quote + 2..quote + 4]),
            false => (&error[60..62], &error[quote + 4..quote + 6]),
        };
        assert_eq!(said, mtu.to_be_bytes());
        let first = if v4 { 20 + 8 + 1440u16 } else { 8 + 1440 };
        assert_eq!(len, first.to_be_bytes(), "it quotes the first segment");
    }
}

#[test]
fn segments_too_long_that_may_be_cut_are_cut() {
    let mut node = standard(Setup::default());
    node.commit([standard_changes(), tunnel_changes()].concat()).unwrap();
    know_b(&mut node);
    let frame = patched(from_one("10.67.1.9", Gso::Udp, 2880), 6, &[0]);
    node.push_super("cali1", &frame, Gso::Udp, 1440);
    node.step(NOW);
    node.check();
    let inner: Vec<_> = std::iter::from_fn(|| node.pop("eth0")).map(|frame| frame[64..].to_vec()).collect();
    assert_eq!(inner.len(), 4, "two fragments of each");
    let payload: Vec<u8> = inner.iter().flat_map(|packet| packet[20..].to_vec()).collect();
    assert_eq!(payload.len(), 2 * (8 + 1440));
    assert_eq!([payload[8..1448].to_vec(), payload[1456..].to_vec()].concat(), data(2880));
}

#[test]
fn packets_longer_than_a_frame_are_cut_into_pieces_that_fit_one() {
    let mut node = standard(Setup::default());
    let may_be_cut = |len| patched(from_one("10.65.0.2", Gso::Udp, len), 6, &[0]);
    give(&mut node, "cali1", &may_be_cut(8_972));
    let pieces = all(&node, "cali2");
    let (lengths, data): (Vec<_>, Vec<_>) =
        pieces.iter().map(|piece| (piece.len(), piece[20..].to_vec())).unzip();
    assert_eq!(lengths, [1500, 1500, 1500, 1500, 1500, 1500, 120]);
    assert_eq!(data.concat()[8..], self::data(8_972));
    // Over a link that takes more than a frame does.
    node.set_mtu("cali2", 9_000);
    give(&mut node, "cali1", &may_be_cut(20_000));
    assert!(node.pop("cali2").is_none());
    assert_eq!(dropped(&node, DropReason::TxOversized), 1);
}

#[test]
fn they_wait_for_a_neighbour_and_go_on() {
    let mut node = standard(Setup::default());
    give_super(&mut node, "cali1", &from_one("10.65.1.9", Gso::Udp, 7_000), Gso::Udp);
    assert_eq!(node.account().in_flight, 6);
    give(&mut node, "eth0", &arp(PEER_MAC, arp::Operation::Reply, "192.168.0.2", "192.168.0.1"));
    let got: Vec<_> = all(&node, "eth0").into_iter().filter(|packet| packet[0] == 0x45).collect();
    whole_again(&got, Gso::Udp, 7_000);
    assert_eq!(node.account().in_flight, 0);
}

#[test]
fn workers_hand_them_on() {
    let mut node = standard(Setup { workers: 4, ..Setup::default() });
    for port in 0..20u16 {
        let mut frame = from_one("10.65.0.2", Gso::Udp, 7_000);
        frame[34..36].copy_from_slice(&(5_000 + port).to_be_bytes());
        give_super(&mut node, "cali1", &frame, Gso::Udp);
        whole_again(&all(&node, "cali2"), Gso::Udp, 7_000);
    }
    let handed: u64 = node.workers.iter().map(|worker| worker.world().counters.handed_out.get()).sum();
    assert!(handed >= 60 && handed.is_multiple_of(6), "counted as the packets that they are: {handed}");
}

#[test]
fn without_large_buffers_they_are_dropped_and_counted() {
    let mut node = connected(Setup { large: 0, ..Setup::default() });
    give_super(&mut node, "cali1", &from_one("10.65.0.2", Gso::Udp, 60_000), Gso::Udp);
    assert!(node.pop("cali2").is_none());
    assert_eq!(dropped(&node, DropReason::NoLargeFrames), 50);
}

#[test]
fn without_frames_for_all_segments_the_rest_is_dropped_and_counted() {
    let mut node = connected(Setup { frames: 64, ..Setup::default() });
    for _ in 0..3 {
        node.push_super("cali1", &from_one("10.65.0.2", Gso::Udp, 60_000), Gso::Udp, SIZE);
    }
    node.step(NOW);
    node.check();
    let sent = all(&node, "cali2").len() as u64;
    assert_eq!(sent + dropped(&node, DropReason::NoFrames), 150);
    assert!(sent >= 60, "{sent}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let mut node = connected(Setup::default());
    let refused = |node: &mut Simulation, frame: &[u8], gso, reason| {
        let before = dropped(node, reason);
        give_super(node, "cali1", frame, gso);
        assert!(dropped(node, reason) > before, "{reason:?}");
        assert!(node.pop("cali2").is_none());
    };
    let udp = from_one("10.65.0.2", Gso::Udp, 3_000);
    // Each byte a packet of its own.
    node.push_super("cali1", &udp, Gso::Udp, 1);
    node.step(NOW);
    node.check();
    assert_eq!(dropped(&node, DropReason::BadL4Header), 3_000);
    assert!(node.pop("cali2").is_none());
    refused(&mut node, &udp, Gso::Tcp, DropReason::BadL4Header);
    // A fragment of one, and one that is neither.
    let frame = patched(udp.clone(), 6, &[0x20]);
    refused(&mut node, &frame, Gso::Udp, DropReason::BadL4Header);
    let body = vec![1; 3_000];
    let frame = raw(workload_mac(1), gateway_mac(), "10.65.0.1", "10.65.0.2", Proto(47), 64, &body);
    refused(&mut node, &frame, Gso::Udp, DropReason::BadL4Header);
    // Nothing behind the headers: a packet like any other would be, but for what is said of it.
    let empty = udp_from(1, "10.65.0.2", 53);
    let empty = ether(workload_mac(1), gateway_mac(), None, ethernet::IPV4, &empty[14..42]);
    let empty = patched(patched(empty, 2, &28u16.to_be_bytes()), 24, &8u16.to_be_bytes());
    refused(&mut node, &empty, Gso::Udp, DropReason::BadL4Header);
}
