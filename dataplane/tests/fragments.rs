//! Fragments through the whole dataplane: in any order, over any number of workers, each goes the way
//! of the first one, or nowhere.
#![allow(missing_docs)]

mod build;

use build::frames::*;
use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::net::{Nanos, Proto};
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use proptest::prelude::*;

const OPEN: u16 = 5300;
const SHUT: u16 = 5301;

/// The standard node, whose workload 3 takes UDP to port [`OPEN`], TCP to 80 and pings, nothing else.
fn node(workers: u8) -> Simulation {
    let mut node = standard(Setup { workers, ..Setup::default() });
    let mut open = policy("web", 80);
    open.inbound_rules.push(pb::Rule {
        action: pb::Action::Allow.into(),
        protocol: Some(17),
        dst_ports: vec![pb::PortRange { first: OPEN.into(), last: OPEN.into() }],
        ..Default::default()
    });
    for (protocol, echo) in [(1, 8), (58, 128)] {
        open.inbound_rules.push(pb::Rule {
            action: pb::Action::Allow.into(),
            protocol: Some(protocol),
            icmp: Some(pb::IcmpMatch { r#type: echo, code: None }),
            ..Default::default()
        });
    }
    node.commit(vec![change(Change::Policy(open))]).unwrap();
    node.step(NOW);
    node
}

/// What workload 1 sends to `to`, too long for the way.
fn datagram(to: &str, dport: u16, len: usize) -> Vec<u8> {
    let from = if addr(to).is_v4() { "10.65.0.1" } else { "fd65::1" };
    let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
    let mut out = vec![];
    ip(workload_mac(1), gateway_mac(), from, to, 64).udp(4000, dport).write(&mut out, &payload).unwrap();
    out
}

/// Everything that came out of an interface, as it was before the hop.
fn arrived(node: &Simulation, interface: &str) -> Vec<Vec<u8>> {
    let as_sent = |mut frame: Vec<u8>| {
        frame[..12].copy_from_slice(&[gateway_mac().0, workload_mac(1).0].concat());
        let v4 = frame[14] >> 4 == 4;
        frame[if v4 { 22 } else { 21 }] = 64;
        if v4 {
            mend(&mut frame);
        }
        frame
    };
    std::iter::from_fn(|| node.pop(interface)).map(as_sent).collect()
}

fn give(node: &mut Simulation, frames: &[Vec<u8>]) {
    frames.iter().for_each(|frame| node.push("cali1", frame));
    node.step(NOW);
    node.check();
}

fn orders<T: Clone>(of: &[T]) -> Vec<Vec<T>> {
    if of.len() < 2 {
        return vec![of.to_vec()];
    }
    let with_first = |at: usize| {
        let mut rest = of.to_vec();
        let first = rest.remove(at);
        orders(&rest).into_iter().map(move |rest| [vec![first.clone()], rest].concat())
    };
    (0..of.len()).flat_map(with_first).collect()
}

fn sorted(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.sort_unstable();
    frames
}

#[test]
fn every_order_passes_and_leaves_as_it_came() {
    for workers in [1, 4] {
        let mut node = node(workers);
        let mut id = 0;
        for (to, interface) in [("10.65.0.3", "cali3"), ("fd65::3", "cali3"), ("10.65.0.2", "cali2")] {
            let whole = datagram(to, OPEN, 4000);
            for order in orders(&[0, 1, 2, 3]) {
                id += 1;
                let pieces = cut(&whole, id, 1200);
                let frames: Vec<_> = order.iter().map(|n| pieces[*n].clone()).collect();
                // In one vector, and each on its own.
                if id % 2 == 0 {
                    give(&mut node, &frames);
                } else {
                    frames.iter().for_each(|frame| give(&mut node, std::slice::from_ref(frame)));
                }
                assert_eq!(sorted(arrived(&node, interface)), sorted(pieces), "{workers} {to} {order:?}");
            }
        }
        assert_eq!(node.account().drops, 0);
    }
}

#[test]
fn a_denied_port_is_denied_in_every_order() {
    for workers in [1, 4] {
        let mut node = node(workers);
        let mut id = 0;
        for to in ["10.65.0.3", "fd65::3"] {
            let whole = datagram(to, SHUT, 4000);
            for order in orders(&[0, 1, 2, 3]) {
                id += 1;
                let pieces = cut(&whole, id, 1200);
                give(&mut node, &order.iter().map(|n| pieces[*n].clone()).collect::<Vec<_>>());
                assert!(node.pop("cali3").is_none(), "{order:?}");
            }
        }
        assert_eq!(dropped(&node, DropReason::PolicyDenied), u64::from(id));
        assert_eq!(dropped(&node, DropReason::Fragment), 3 * u64::from(id));
        let flows: u64 = node.workers.iter().map(|worker| worker.world().flows.len() as u64).sum();
        assert_eq!(flows, 0, "what was denied leaves no state");
    }
}

#[test]
fn answers_in_fragments_belong_to_the_flow() {
    let mut node = node(2);
    give(&mut node, &cut(&datagram("10.65.0.3", OPEN, 4000), 1, 1200));
    assert_eq!(arrived(&node, "cali3").len(), 4);
    let mut answer = vec![];
    let step = ip(workload_mac(3), gateway_mac(), "10.65.0.3", "10.65.0.1", 64);
    step.udp(OPEN, 4000).write(&mut answer, &[7; 4000]).unwrap();
    for piece in cut(&answer, 9, 1200).iter().rev() {
        node.push("cali3", piece);
    }
    node.step(NOW);
    node.check();
    assert_eq!(arrived(&node, "cali1").len(), 4);
}

#[test]
fn pings_and_tcp_too() {
    let mut node = node(2);
    for (from, to) in [("10.65.0.1", "10.65.0.3"), ("fd65::1", "fd65::3")] {
        let mut request = vec![];
        let step = ip(workload_mac(1), gateway_mac(), from, to, 64);
        if addr(to).is_v4() {
            step.icmpv4_echo_request(7, 1).write(&mut request, &[1; 3000]).unwrap();
        } else {
            step.icmpv6_echo_request(7, 1).write(&mut request, &[1; 3000]).unwrap();
        }
        let mut pieces = cut(&request, 5, 1400);
        pieces.reverse();
        give(&mut node, &pieces);
        assert_eq!(arrived(&node, "cali3").len(), 3, "{to}");

        let mut syn = vec![];
        let step = ip(workload_mac(1), gateway_mac(), from, to, 64);
        step.tcp(4000, 80, 1000, 1024).syn().write(&mut syn, &[2; 100]).unwrap();
        give(&mut node, &cut(&syn, 6, 64));
        assert_eq!(arrived(&node, "cali3").len(), 2, "{to}");
        let mut shut = vec![];
        let step = ip(workload_mac(1), gateway_mac(), from, to, 64);
        step.tcp(4000, 81, 1000, 1024).syn().write(&mut shut, &[2; 100]).unwrap();
        give(&mut node, &cut(&shut, 7, 64));
        assert!(node.pop("cali3").is_none(), "{to}");
    }
}

#[test]
fn refused_with_their_reasons() {
    let mut node = node(1);
    let mut expect = |frames: &[Vec<u8>], reason: DropReason, times: u64| {
        let before = dropped(&node, reason);
        give(&mut node, frames);
        assert_eq!(dropped(&node, reason) - before, times, "{reason:?}");
        assert!(node.pop("cali3").is_none(), "{reason:?}");
    };
    for to in ["10.65.0.3", "fd65::3"] {
        let from = if addr(to).is_v4() { "10.65.0.1" } else { "fd65::1" };
        let there = |proto, body: &[u8]| raw(workload_mac(1), gateway_mac(), from, to, proto, 64, body);
        let tcp = there(
            Proto::TCP,
            &[&[0x0f, 0xa0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2][..], &[0; 50]].concat(),
        );
        let icmp =
            if addr(to).is_v4() { there(Proto::ICMP, &[3; 64]) } else { there(Proto::ICMP6, &[1; 64]) };
        // The ports come, and the flags do not; a header written over (RFC 1858, RFC 3128).
        expect(&[fragment(&tcp, 1, 0, &tcp[tcp.len() - 64..][..16], false)], DropReason::FragmentTiny, 1);
        expect(&[fragment(&tcp, 1, 8, &[2; 16], true)], DropReason::FragmentTiny, 1);
        // Nothing in it; the next would have no place; behind the end of any packet; an error in pieces.
        expect(&[fragment(&tcp, 2, 24, &[], true)], DropReason::BadFragment, 1);
        expect(&[fragment(&tcp, 2, 24, &[1; 9], false)], DropReason::BadFragment, 1);
        expect(&[fragment(&tcp, 2, 65_528, &[1; 16], true)], DropReason::BadFragment, 1);
        expect(&cut(&icmp, 3, 32)[..1], DropReason::BadFragment, 1);
        // Two that overlap spoil all.
        let pieces = cut(&datagram(to, OPEN, 3000), 4, 1200);
        let wide = fragment(&datagram(to, OPEN, 3000), 4, 1192, &[9; 1208], false);
        expect(
            &[pieces[1].clone(), wide, pieces[0].clone(), pieces[2].clone()],
            DropReason::FragmentOverlap,
            4,
        );
        let pieces = cut(&datagram(to, OPEN, 3000), 5, 1200);
        expect(&[pieces[1].clone(), pieces[1].clone()], DropReason::FragmentDuplicate, 1);
    }
    // Of two fragment headers, one says that it is the first piece, the next that it is a later one.
    let whole = raw(workload_mac(1), gateway_mac(), "fd65::1", "fd65::3", Proto(253), 64, &[0; 64]);
    let inner = fragment(&whole, 6, 1200, &[1; 16], true);
    for last in [false, true] {
        expect(&[fragment(&inner, 7, 0, &inner[54..], last)], DropReason::BadFragment, 1);
    }
}

#[test]
fn neighbour_discovery_in_fragments_is_refused() {
    let mut node = node(1);
    let whole = solicit(workload_mac(1), "fd65::1", "fe80::ecee:eeff:feee:eeee");
    give(&mut node, &[fragment(&whole, 1, 0, &whole[54..78], false)]);
    assert_eq!(dropped(&node, DropReason::BadNd), 1);
}

#[test]
fn what_waits_in_vain_is_dropped_in_time() {
    let mut node = node(4);
    for (to, secs, id) in [("10.65.0.3", 30, 1), ("fd65::3", 60, 2)] {
        let before = dropped(&node, DropReason::FragmentTimeout);
        give(&mut node, &cut(&datagram(to, OPEN, 3000), id, 1200)[1..]);
        assert_eq!(node.account().in_flight, 2);
        node.step(Nanos::from_secs(secs - 1));
        assert_eq!(node.account().in_flight, 2);
        node.step(Nanos::from_secs(1));
        node.check();
        assert_eq!(node.account().in_flight, 0);
        assert_eq!(dropped(&node, DropReason::FragmentTimeout) - before, 2);
    }
}

#[test]
fn a_flood_of_early_ones_takes_so_many_frames_and_others_still_pass() {
    let mut node = node(1);
    let whole = datagram("10.65.0.3", OPEN, 3000);
    let flood: Vec<_> = (0..1000).map(|id| cut(&whole, id, 1200).remove(1)).collect();
    give(&mut node, &flood);
    let waiting = node.account().in_flight;
    assert!((128..=256).contains(&waiting), "{waiting}");
    assert_eq!(dropped(&node, DropReason::FragmentLimit), 1000 - waiting);
    let mut pieces = cut(&whole, 5000, 1200);
    pieces.reverse();
    give(&mut node, &pieces);
    assert_eq!(arrived(&node, "cali3").len(), 3);
    node.step(Nanos::from_secs(30));
    node.check();
    assert_eq!(node.account().in_flight, 0);
}

#[test]
fn each_on_its_way_alone_when_the_next_hop_must_be_asked_for() {
    let mut node = node(4);
    let mut whole = vec![];
    let step = ip(workload_mac(1), gateway_mac(), "10.65.0.1", "10.65.1.9", 64);
    step.udp(4000, 53).write(&mut whole, &[3; 3000]).unwrap();
    let mut pieces = cut(&whole, 1, 1200);
    pieces.reverse();
    give(&mut node, &pieces);
    node.push(
        "eth0",
        &arp(PEER_MAC, margay_dataplane::wire::arp::Operation::Reply, "192.168.0.2", "192.168.0.1"),
    );
    node.step(NOW);
    node.check();
    let out = std::iter::from_fn(|| node.pop("eth0")).filter(|frame| frame[12..14] == [8, 0]);
    assert_eq!(out.count(), 3);
}

/// A packet that somebody sends in fragments.
#[derive(Clone, Debug)]
struct Sent {
    v6: bool,
    open: bool,
    len: usize,
    size: usize,
    /// A piece that comes twice.
    twice: Option<prop::sample::Index>,
    /// A piece that overlaps its neighbours, none of them the first.
    foul: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let twice = prop::option::weighted(0.2, any::<prop::sample::Index>());
    let sizes = (200..6000usize, (2..150usize).prop_map(|units| units * 8));
    (any::<bool>(), any::<bool>(), sizes, twice, prop::bool::weighted(0.2)).prop_map(
        |(v6, open, (len, size), twice, foul)| Sent {
            v6,
            open,
            len,
            size: size.max(len / 100 * 8),
            twice,
            foul,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn whatever_the_order_all_of_a_packet_shares_one_fate(
        packets in prop::collection::vec(sent(), 1..8),
        shuffle in any::<u64>(),
        vector in 1..20usize,
        workers in 1..5u8,
    ) {
        let mut node = node(workers);
        let mut expected: Vec<(usize, Vec<Vec<u8>>)> = vec![];
        let mut frames = vec![];
        for (n, packet) in packets.iter().enumerate() {
            let to = if packet.v6 { "fd65::3" } else { "10.65.0.3" };
            let whole = datagram(to, if packet.open { OPEN } else { SHUT }, packet.len);
            let pieces = cut(&whole, n as u16, packet.size);
            if pieces.len() < 2 {
                continue;
            }
            frames.extend(pieces.clone());
            if let Some(which) = packet.twice {
                frames.push(which.get(&pieces).clone());
            }
            if packet.foul {
                frames.push(fragment(&whole, n as u16, 24, &[0xff; 8 * 200], false));
            }
            expected.push((n, pieces));
        }
        // A shuffle that needs no more than the seed.
        let mut state = shuffle | 1;
        for at in (1..frames.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            frames.swap(at, (state >> 33) as usize % (at + 1));
        }
        for frames in frames.chunks(vector) {
            give(&mut node, frames);
        }
        let got = arrived(&node, "cali3");
        for (n, pieces) in &expected {
            let packet = &packets[*n];
            let times = |piece: &Vec<u8>| got.iter().filter(|frame| *frame == piece).count();
            for piece in pieces {
                match (packet.open, packet.foul, packet.twice.is_some()) {
                    (false, _, _) => prop_assert_eq!(times(piece), 0),
                    (true, false, false) => prop_assert_eq!(times(piece), 1),
                    (true, false, true) => prop_assert!((1..=2).contains(&times(piece))),
                    (true, true, _) => prop_assert!(times(piece) <= 2),
                }
            }
        }
        let known: usize = expected.iter().map(|(_, pieces)| pieces.len()).sum();
        let fouls = packets.iter().filter(|packet| packet.open && (packet.foul || packet.twice.is_some())).count();
        prop_assert!(got.len() <= known + fouls);
        node.step(Nanos::from_secs(60));
        node.check();
        prop_assert_eq!(node.account().in_flight, 0);
    }
}
