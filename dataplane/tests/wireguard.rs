//! Encrypted tunnels in memory: two nodes on one virtual clock, and all that may come between them.
#![allow(missing_docs)]

mod build;

use build::frames::*;
use build::wireguard::*;
use build::*;
use margay_api::dataplane::v1 as pb;
use margay_dataplane::net::{Addr, Nanos, WorkerId};
use margay_dataplane::nodes::Datagram;
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::ecn;
use margay_dataplane::wireguard::{LANES, PublicKey, Secret};
use pb::change::Change;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const MTUS: [usize; 2] = [1440, 1420];
/// Where a message begins in a frame.
const MESSAGE: [usize; 2] = [42, 62];

/// What arrives at the other end: it went over two nodes.
fn arrived(frame: &[u8]) -> Vec<u8> {
    aged(aged(frame[14..].to_vec()))
}

/// The kinds of the messages that went over the wire since it was asked last.
fn kinds(pair: &mut Pair) -> Vec<u8> {
    let of = |frame: &[u8]| frame[MESSAGE[usize::from(frame[14] >> 4 == 6)]];
    std::mem::take(&mut pair.seen).iter().map(|(_, frame)| of(frame)).collect()
}

/// A pair that has shaken hands, and has nothing under way.
fn ready() -> Pair {
    let mut pair = Pair::new(Setup::default());
    for family in 0..2 {
        let got = pair.give(0, &across(0, family, 1, 1));
        assert!(got.is_some(), "the first packet: {}", pair.told());
    }
    pair.seen.clear();
    pair
}

#[test]
fn the_first_packet_waits_for_the_handshake_and_nothing_is_lost() {
    for family in 0..2 {
        let mut pair = Pair::new(Setup::default());
        let sent = across(0, family, 4000, 53);
        let got = pair.give(0, &sent).expect("it arrives at once: the wire is fast");
        assert_eq!(got[14..], arrived(&sent));
        // Initiation, response, the confirmation, and the packet.
        let kinds = kinds(&mut pair);
        assert_eq!((&kinds[..2], kinds.iter().filter(|kind| **kind == 4).count()), (&[1, 2][..], 2));
        let back = across(1, family, 53, 4000);
        assert_eq!(pair.give(1, &back).expect("the answer")[14..], arrived(&back));
        for n in 0..20 {
            let sent = across(0, family, 4000 + n, 53);
            assert_eq!(pair.give(0, &sent).expect("one by one")[14..], arrived(&sent));
        }
        assert!(pair.nodes.iter().all(|node| node.account().drops == 0));
        // The flow that was begun and answered, and twenty more: tracked like any others.
        assert_eq!(pair.nodes.each_ref().map(|node| node.workers[0].world().flows.len()), [20, 20]);
    }
}

#[test]
fn nobody_on_the_way_sees_what_is_inside() {
    let mut pair = ready();
    for family in 0..2 {
        // Expedited forwarding, ECT(0).
        let sent = classed(across(0, family, 4000, 53), 0xba);
        pair.give(0, &sent).expect("it arrives");
        let (_, frame) = pair.seen.pop().unwrap();
        assert!(!frame.windows(7).any(|window| window == b"payload"));
        let inner = sent.len() - 14;
        let padded = inner.next_multiple_of(16);
        assert_eq!(frame.len(), MESSAGE[family] + 16 + padded + 16);
        assert_eq!(ecn::traffic_class(&frame[14..]), 2, "of congestion only");
        let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else { panic!("UDP") };
        let port = [51_820, 51_821][family];
        assert_eq!((udp.source_port(), udp.destination_port()), (port, port));
        if let Some(etherparse::NetSlice::Ipv6(ip)) = sliced.net {
            let header = ip.header().to_header();
            assert_eq!(udp.checksum(), udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap());
        }
    }
}

#[test]
fn a_story_does_not_read_what_is_sealed() {
    let mut pair = ready();
    let request = pb::WatchRequest { filter: "dst port 53".into(), steps: true, ..Default::default() };
    let mut watched = pair.nodes[0].watch(&request);
    pair.give(0, &across(0, 0, 4000, 53)).unwrap();
    let told = pair.nodes[0].told(&mut watched, &request);
    let nodes: Vec<&str> = told[0].steps.iter().map(|step| &*step.node).collect();
    assert_eq!(nodes[nodes.len() - 2..], ["wg-encrypt", "tx"], "{nodes:?}");
    let becomes = told[0].steps.iter().flat_map(|step| &step.facts).find(|fact| fact.name == "becomes");
    assert!(becomes.is_none(), "{becomes:?}");
}

#[test]
fn congestion_on_the_way_is_told() {
    let mut pair = ready();
    for (n, (outer, inner, want)) in
        (0..).zip([(3, 2, Some(3)), (3, 0, None), (1, 2, Some(1)), (0, 1, Some(1))])
    {
        pair.nodes[0].push("cali1", &classed(across(0, 0, 5000 + n, 53), inner));
        pair.step_through(NOW, |_, mut frame| {
            ecn::set(&mut frame[14..], outer);
            vec![frame]
        });
        let got = pair.nodes[1].pop("cali9").map(|frame| ecn::traffic_class(&frame[14..]));
        assert_eq!(got, want, "outer {outer}, inner {inner}");
    }
    assert_eq!(dropped(&pair.nodes[1], DropReason::TunnelCongestion), 1);
}

#[test]
fn what_is_forged_replayed_or_of_no_session_is_dropped_for_that_reason() {
    let mut pair = ready();
    for (family, at) in MESSAGE.into_iter().enumerate() {
        let before =
            [DropReason::WireguardReplayed, DropReason::WireguardForged, DropReason::WireguardUnknownSession]
                .map(|reason| dropped(&pair.nodes[1], reason));
        pair.give(0, &across(0, family, 4000, 53)).expect("it arrives");
        let (_, frame) = pair.seen.pop().unwrap();
        let mut refused = |frame: &[u8]| {
            pair.nodes[1].push("eth0", frame);
            pair.step(NOW);
            assert!(pair.nodes[1].pop("cali9").is_none());
        };
        refused(&frame);
        for byte in [at + 8, at + 16, frame.len() - 1] {
            let mut changed = frame.clone();
            changed[byte] ^= 1;
            refused(&changed);
        }
        let mut stranger = frame.clone();
        stranger[at + 4] ^= 1;
        refused(&stranger);
        for len in [at, at + 1, at + 15, at + 31] {
            let mut short = frame[..len].to_vec();
            fit(&mut short);
            refused(&short);
        }
        let after =
            [DropReason::WireguardReplayed, DropReason::WireguardForged, DropReason::WireguardUnknownSession]
                .map(|reason| dropped(&pair.nodes[1], reason));
        assert_eq!([0, 1, 2].map(|n| after[n] - before[n]), [1, 3, 1]);
        assert!(pair.give(0, &across(0, family, 4000, 53)).is_some(), "the session is unharmed");
    }
    assert_eq!(dropped(&pair.nodes[1], DropReason::BadTunnel), 8);
}

/// Writes the lengths of a frame's IP and UDP headers anew.
fn fit(frame: &mut [u8]) {
    let len = frame.len() - 14;
    let udp = if frame[14] >> 4 == 6 {
        frame[18..20].copy_from_slice(&(len as u16 - 40).to_be_bytes());
        54
    } else {
        frame[16..18].copy_from_slice(&(len as u16).to_be_bytes());
        mend(frame);
        34
    };
    let payload = (frame.len() - udp) as u16;
    frame[udp + 4..udp + 6].copy_from_slice(&payload.to_be_bytes());
}

#[test]
fn only_addresses_that_are_routed_to_a_peer_come_from_it() {
    let mut pair = ready();
    // Node b thinks that 10.99.0.1 is its own; node a does not.
    let nets = vec![prefix(WORKLOADS[1][0]), prefix("10.99.0.1")];
    let endpoint = pb::WorkloadEndpoint { nets, ..endpoint(9, &[]) };
    pair.nodes[1].commit(vec![change(Change::WorkloadEndpoint(endpoint))]).unwrap();
    let frame = udp(workload_mac(9), gateway_mac(), "10.99.0.1", WORKLOADS[0][0], 1, 2);
    assert!(pair.give(1, &frame).is_none());
    assert_eq!(dropped(&pair.nodes[0], DropReason::WireguardSource), 1);
    // Routed there as it is, it is not the peer's either.
    pair.nodes[0].commit(vec![via("10.99.0.0/24", NODES[1][0])]).unwrap();
    assert!(pair.give(1, &frame).is_none());
    pair.nodes[0].commit(vec![sealed_route("10.99.0.0/24", NODES[1][0])]).unwrap();
    assert!(pair.give(1, &frame).is_some());
    assert_eq!(dropped(&pair.nodes[0], DropReason::WireguardSource), 2);
}

#[test]
fn a_peer_that_moves_is_heard_and_found() {
    let mut pair = ready();
    let moved = |own: usize, mut frame: Vec<u8>| {
        // Node b is behind a translator: another address, another port.
        let (address, port) = if own == 1 { (26, 34) } else { (30, 36) };
        let (from, to) = if own == 1 {
            ([192, 168, 0, 2], [192, 168, 0, 77])
        } else {
            ([192, 168, 0, 77], [192, 168, 0, 2])
        };
        let ports: [[u8; 2]; 2] = [51_820u16.to_be_bytes(), 9_999u16.to_be_bytes()];
        if frame[address..address + 4] == from {
            frame[address..address + 4].copy_from_slice(&to);
            frame[port..port + 2].copy_from_slice(&ports[if own == 1 { 1 } else { 0 }]);
            mend(&mut frame);
        }
        vec![frame]
    };
    pair.nodes[1].push("cali9", &across(1, 0, 53, 1));
    pair.step_through(NOW, moved);
    assert!(pair.nodes[0].pop("cali1").is_some(), "from anywhere");
    pair.step_through(Nanos::from_millis(5), moved);
    pair.seen.clear();
    pair.nodes[0].push("cali1", &across(0, 0, 1, 53));
    pair.step_through(NOW, moved);
    let (_, frame) = pair.seen.iter().find(|(own, _)| *own == 0).expect("it leaves");
    assert_eq!((&frame[30..34], &frame[36..38]), (&[192, 168, 0, 77][..], &9_999u16.to_be_bytes()[..]));
    assert!(pair.nodes[1].pop("cali9").is_some());
    // Roamed or not, it is configured where it was: the next word of the agent changes nothing.
    let public = pair.public(1);
    pair.nodes[0].commit(told(0, public)).unwrap();
    pair.nodes[0].push("cali1", &across(0, 0, 1, 53));
    pair.step_through(NOW, moved);
    assert!(pair.nodes[1].pop("cali9").is_some());
}

#[test]
fn without_the_right_key_packets_wait_a_while_and_are_dropped() {
    let mut pair = Pair::new(Setup::default());
    // Of nobody.
    let public = margay_dataplane::wireguard::KeyPair::new(&[99; 32]).public();
    pair.nodes[0].commit(told(0, public)).unwrap();
    // The first waits for the node, which is asked where it is.
    assert!(pair.give(0, &across(0, 0, 0, 53)).is_none());
    for n in 1..40 {
        pair.nodes[0].push("cali1", &across(0, 0, n, 53));
    }
    pair.step(NOW);
    assert_eq!(dropped(&pair.nodes[0], DropReason::WireguardQueueFull), 24);
    assert_eq!(pair.nodes[0].account().in_flight, 16);
    for _ in 0..7 {
        pair.step(Nanos::from_secs(1));
    }
    assert_eq!(dropped(&pair.nodes[0], DropReason::WireguardNoSession), 16);
    assert_eq!(pair.nodes[0].account().in_flight, 0);
    assert!(kinds(&mut pair).iter().all(|kind| *kind == 1), "asked, and not answered");
    // With the right one all is well.
    let public = pair.public(1);
    pair.nodes[0].commit(told(0, public)).unwrap();
    assert!(pair.give(0, &across(0, 0, 1, 53)).is_some());
}

#[test]
fn the_agents_mistakes_are_told() {
    let pair = Pair::new(Setup::default());
    let [mut node, _] = pair.nodes;
    let own = node.state.wireguard().unwrap().public();
    node.commit(told(0, own)).unwrap();
    let peers = node.state.wireguard().unwrap().status(margay_dataplane::fib::TunnelKind::Wireguard4);
    assert!(peers[0].problem.contains("own public key"), "{peers:?}");
    node.push("cali1", &across(0, 0, 1, 53));
    node.step(NOW);
    assert_eq!(dropped(&node, DropReason::NoRoute), 1, "not in clear");
}

#[test]
fn another_worker_opens_what_is_its_own() {
    let mut pair = Pair::new(Setup { workers: 3, ..Setup::default() });
    pair.nodes[0].push("cali1", &across(0, 0, 1, 53));
    // The response goes out, and before anything comes the last worker has the session.
    let mut claimed = false;
    for _ in 0..50 {
        pair.step_through(NOW, |own, frame| match own == 0 && frame[42] == 4 && !claimed {
            true => vec![],
            false => vec![frame],
        });
        claimed = claim(&pair.nodes[1], WorkerId(2));
        if claimed {
            break;
        }
    }
    assert!(claimed);
    let handed = |pair: &Pair| -> u64 {
        pair.nodes[1].workers.iter().map(|worker| worker.world().counters.handed_out.get()).sum()
    };
    let before = handed(&pair);
    for n in 0..50 {
        pair.nodes[0].push("cali1", &across(0, 0, 100, 53 + n));
    }
    pair.step(Nanos::from_millis(1));
    let got: Vec<_> = std::iter::from_fn(|| pair.nodes[1].pop("cali9")).collect();
    assert!(got.len() >= 50, "{}", got.len());
    assert!(handed(&pair) >= before + 50);
    let order: Vec<u16> = got.iter().map(|frame| u16::from_be_bytes([frame[36], frame[37]])).collect();
    let mut per_flow: BTreeMap<u16, usize> = BTreeMap::new();
    order.iter().for_each(|port| *per_flow.entry(*port).or_default() += 1);
    assert!((0..50).all(|n| per_flow[&(53 + n)] >= 1));
}

/// Has a worker own every session that node has, if it has any.
fn claim(node: &Simulation, worker: WorkerId) -> bool {
    let keyring = node.state.publisher().current().keyring.clone();
    let mut sessions = keyring.openings(false).peekable();
    let lane = |opening: &margay_dataplane::wireguard::Opening| opening.lane(0).unwrap().0.owner(worker);
    sessions.peek().is_some() && sessions.all(|opening| lane(opening) == worker)
}

/// With the peer's lanes.
fn in_lanes(mut changes: Vec<pb::Change>, lanes: u32) -> Vec<pb::Change> {
    for change in &mut changes {
        if let Some(Change::WireguardPeer(peer)) = &mut change.change {
            peer.lanes = lanes;
        }
    }
    changes
}

/// What the network would do with lanes' ports, it does here: each goes to the next worker.
fn spread(node: &Simulation, workers: u8) {
    let keyring = node.state.publisher().current().keyring.clone();
    for (opening, lane) in
        keyring.openings(false).flat_map(|opening| (0..LANES).map(move |lane| (opening, lane)))
    {
        let worker = WorkerId(lane as u8 % workers);
        let (lane, place) = opening.lane((lane as u64) << 56).expect("it is of a node of ours");
        assert_eq!((lane.owner(worker), place), (worker, 0));
    }
}

#[test]
fn a_nodes_workers_share_the_packets_of_one_peer_and_flows_keep_their_order() {
    let mut pair = Pair::new(Setup { workers: 3, ..Setup::default() });
    let keys = [0, 1].map(|own| pair.public(own));
    for own in 0..2 {
        pair.nodes[own].commit(in_lanes(told(own, keys[1 - own]), 16)).unwrap();
    }
    // The response is the last that node b says before it may get packets.
    pair.nodes[0].push("cali1", &across(0, 0, 1, 53));
    let mut held = vec![];
    pair.step_through(NOW, |own, frame| match own == 0 && frame[42] == 4 {
        true => {
            held.push(frame);
            vec![]
        }
        false => vec![frame],
    });
    spread(&pair.nodes[1], 3);
    held.iter().for_each(|frame| pair.nodes[1].push("eth0", frame));
    pair.step(NOW);
    assert!(pair.nodes[1].pop("cali9").is_some(), "{}", pair.told());
    pair.seen.clear();

    let mut last = BTreeMap::new();
    for number in 1..=20u32 {
        for flow in 0..100 {
            let mut frame = vec![];
            let step = ip(workload_mac(1), gateway_mac(), WORKLOADS[0][0], WORKLOADS[1][0], 64);
            step.udp(4_000 + flow, 53).write(&mut frame, &number.to_be_bytes()).unwrap();
            pair.nodes[0].push("cali1", &frame);
        }
        pair.step(NOW);
        while let Some(frame) = pair.nodes[1].pop("cali9") {
            let flow = u16::from_be_bytes([frame[34], frame[35]]);
            let number = u32::from_be_bytes(*frame[42..].first_chunk().unwrap());
            assert_eq!(last.insert(flow, number).unwrap_or(0) + 1, number, "flow {flow}");
        }
    }
    assert_eq!(last.len(), 100);
    assert!(last.values().all(|number| *number == 20), "{}", pair.told());
    let sealed: Vec<_> =
        pair.seen.iter().filter(|(own, frame)| *own == 0 && frame[23] == 17 && frame[42] == 4).collect();
    let port = |frame: &[u8]| u16::from_be_bytes([frame[34], frame[35]]);
    let ports: std::collections::BTreeSet<u16> = sealed.iter().map(|(_, frame)| port(frame)).collect();
    assert!(ports.len() >= 12 && ports.iter().all(|port| *port == 51_820 || *port > 0xc000), "{ports:?}");
    let lane_of = |port: u16| if port == 51_820 { 0 } else { port - 0xc000 };
    assert!(sealed.iter().all(|(_, frame)| u16::from(frame[57]) == lane_of(port(frame))));
    // Those who share are all of them, and the peer is still where it is.
    let opened = |worker: &margay_dataplane::worker::Worker| {
        let nodes = worker.graph().counters().read();
        nodes.iter().find(|node| node.name == "wg-decrypt").map_or(0, |node| node.packets)
    };
    assert!(pair.nodes[1].workers.iter().all(|worker| opened(worker) > 200), "{}", pair.told());
    let kind = margay_dataplane::fib::TunnelKind::Wireguard4;
    let status = pair.nodes[1].state.wireguard().unwrap().status(kind).remove(0);
    assert_eq!(status.endpoint, Some((addr(NODES[0][0]), 51_820)));
    // Each once, in whatever lane.
    let (again, before) =
        (sealed.iter().rev().take(40), dropped(&pair.nodes[1], DropReason::WireguardReplayed));
    let again: Vec<_> = again.map(|(_, frame)| frame.clone()).collect();
    again.iter().for_each(|frame| pair.nodes[1].push("eth0", frame));
    pair.step(NOW);
    assert_eq!(dropped(&pair.nodes[1], DropReason::WireguardReplayed), before + 40);
}

/// A stranger's initiation from one of many addresses, for node b.
fn bogus(message: &[u8], number: usize) -> Vec<u8> {
    let mut frame = vec![];
    let from = format!("192.168.0.{}", 3 + number % 240);
    let step = ip(MACS[0], MACS[1], &from, NODES[1][0], 64);
    step.udp(1_024 + (number % 60_000) as u16, 51_820).write(&mut frame, message).unwrap();
    frame
}

#[test]
fn a_flood_of_initiations_harms_no_session_and_one_can_be_renewed_under_it() {
    let mut pair = ready();
    let message = bogus_initiation(pair.public(1));
    let handshake = |pair: &Pair| {
        let wireguard = pair.nodes[1].state.wireguard().unwrap();
        wireguard.status(margay_dataplane::fib::TunnelKind::Wireguard4).remove(0).handshake.unwrap()
    };
    // What is for strangers ends with the wire.
    let wire = |own: usize, frame: Vec<u8>| {
        let to = addr(NODES[1 - own][0]);
        if Addr::v4(*frame[30..].first_chunk().unwrap()) == to { vec![frame] } else { vec![] }
    };
    // Sixteen thousand a second: more than senders need not prove themselves for, and than their queue holds at once.
    let mut number = 0;
    let mut flood = |pair: &mut Pair, steps: u32| {
        for _ in 0..steps {
            for _ in 0..320 {
                number += 1;
                pair.nodes[1].push("eth0", &bogus(&message, number));
            }
            // The control thread has other work meanwhile.
            while pair.nodes[1].poll() > 0 {}
            for own in [0, 1] {
                let ports = [[4000, 53], [53, 4000]][own];
                let sent = across(own, 0, ports[0], ports[1]);
                pair.nodes[own].push(LINKS[own], &sent);
                pair.step_through(NOW, wire);
                let got = pair.nodes[1 - own].pop(LINKS[1 - own]);
                assert_eq!(got.expect("it arrives")[14..], arrived(&sent), "{}", pair.told());
            }
            pair.step_through(Nanos::from_millis(20), wire);
        }
    };
    let first = handshake(&pair);
    flood(&mut pair, 25);
    let cookies = |pair: &mut Pair| kinds(pair).iter().filter(|kind| **kind == 3).count();
    assert!(cookies(&mut pair) > 1_000);
    assert!(dropped(&pair.nodes[1], DropReason::WireguardOverload) > 0);
    assert_eq!(handshake(&pair), first);
    // Its time has come: asked to prove its address, the other node does, and nothing is lost on the way to the next session.
    pair.step(Nanos::from_secs(120));
    flood(&mut pair, 500);
    assert!(handshake(&pair) > first && cookies(&mut pair) > 10_000);
    let overload = dropped(&pair.nodes[1], DropReason::WireguardOverload);
    assert_eq!(pair.nodes.each_ref().map(|node| node.account().drops), [0, overload], "{}", pair.told());
}

/// The control thread goes back to its other work, however fast messages come.
#[test]
fn of_a_flood_the_control_thread_takes_no_more_at_a_time_than_a_queue_holds() {
    let mut pair = ready();
    let queue = pair.nodes[1].workers[0].world().handshakes.clone();
    let message = bogus_initiation(pair.public(1));
    let datagram = Datagram::new(false, (addr("192.168.0.3"), 1), &message).unwrap();
    let done = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let _ = queue.push(datagram);
            }
        });
        while !queue.is_full() {
            std::thread::yield_now();
        }
        let now = pair.nodes[1].now();
        let taken = pair.nodes[1].state.handshakes(&queue, now);
        done.store(true, Relaxed);
        taken
    });
    assert_eq!(taken, queue.capacity());
}

#[test]
fn a_peer_that_turns_out_to_be_one_of_ours_gets_a_session_with_lanes() {
    let mut pair = ready();
    let keys = [0, 1].map(|own| pair.public(own));
    for (lanes, spread) in [(16, true), (0, false)] {
        for own in 0..2 {
            pair.nodes[own].commit(in_lanes(told(own, keys[1 - own]), lanes)).unwrap();
        }
        pair.step(Nanos::from_secs(6));
        let got = (0..64).filter(|flow| pair.give(0, &across(0, 0, 4_000 + flow, 53)).is_some()).count();
        assert_eq!(got, 64, "{}", pair.told());
        let ports = pair.seen.iter().filter(|(own, frame)| *own == 0 && frame[23] == 17 && frame[42] == 4);
        assert_eq!(ports.map(|(_, frame)| frame[34]).any(|port| port == 0xc0), spread);
        pair.seen.clear();
    }
}

/// UDP of `len` bytes in all, from workload 1.
fn long(family: usize, len: usize, dont_fragment: bool) -> Vec<u8> {
    let mut out = vec![];
    let body: Vec<u8> = (0..len - [28, 48][family]).map(|n| n as u8).collect();
    let step = ip(workload_mac(1), gateway_mac(), WORKLOADS[0][family], WORKLOADS[1][family], 64);
    step.udp(4000, 53).write(&mut out, &body).unwrap();
    match family {
        0 => patched(out, 6, &[if dont_fragment { 0x40 } else { 0 }, 0]),
        _ => out,
    }
}

#[test]
fn the_largest_packet_fills_the_link_and_no_more() {
    let mut pair = ready();
    for family in 0..2 {
        for len in (MTUS[family] - 17)..=MTUS[family] {
            let sent = long(family, len, true);
            assert_eq!(pair.give(0, &sent).expect("it fits")[14..], arrived(&sent));
            assert!(pair.seen.pop().unwrap().1.len() <= 1514, "{len} bytes");
        }
        assert!(pair.give(0, &long(family, MTUS[family] + 1, true)).is_none());
        let told = pair.nodes[0].pop("cali1").expect("an error");
        let at = [34, 54][family];
        assert_eq!(told[at + 4..at + 8], (MTUS[family] as u32).to_be_bytes());
    }
    // What may be cut is cut, before it is sealed.
    pair.nodes[0].push("cali1", &long(0, 1500, false));
    pair.step(NOW);
    assert_eq!(std::iter::from_fn(|| pair.nodes[1].pop("cali9")).count(), 2);
}

#[test]
fn vectors_of_all_lengths_and_both_versions_go_through_whole() {
    let mut pair = ready();
    let mut dice = Seeded(3);
    for _ in 0..20 {
        let mut sent = BTreeMap::new();
        for n in 0..200u16 {
            let family = dice.below(2) as usize;
            let mut frame = long(family, 60 + dice.below(1300) as usize, true);
            let port = 14 + [20, 40][family];
            // The checksum is nobody's business on the way.
            frame[port..port + 2].copy_from_slice(&(1000 + n).to_be_bytes());
            sent.insert(n, arrived(&frame));
            pair.nodes[0].push("cali1", &frame);
        }
        pair.step(NOW);
        let mut got = 0;
        while let Some(frame) = pair.nodes[1].pop("cali9") {
            let port = 14 + [20, 40][usize::from(frame[14] >> 4 == 6)];
            let n = u16::from_be_bytes([frame[port], frame[port + 1]]) - 1000;
            assert_eq!(frame[14..], sent[&n]);
            got += 1;
        }
        assert_eq!(got, sent.len());
    }
}

/// Ten minutes of packets in both directions over a wire that loses, repeats and reorders.
#[test]
fn sessions_follow_one_another_over_a_bad_wire_and_no_packet_comes_twice() {
    let mut pair = ready();
    let mut dice = Seeded(11);
    let mut late: Vec<Vec<Vec<u8>>> = vec![vec![], vec![]];
    let (mut sent, mut got) = ([0u32; 2], [const { BTreeMap::<u32, u32>::new() }; 2]);
    let mut handshakes = std::collections::BTreeSet::new();
    for tick in 0..6_000u32 {
        for own in 0..2 {
            let number = sent[own];
            sent[own] += 1;
            let mut frame = vec![];
            let (from, to) = (WORKLOADS[own][0], WORKLOADS[1 - own][0]);
            let step = ip(workload_mac([1, 9][own]), gateway_mac(), from, to, 64);
            step.udp([4000, 53][own], [53, 4000][own]).write(&mut frame, &number.to_be_bytes()).unwrap();
            pair.nodes[own].push(LINKS[own], &frame);
        }
        pair.step_through(Nanos::from_millis(100), |own, frame| {
            let mut now = std::mem::take(&mut late[own]);
            match dice.below(100) {
                0..5 => {}
                5..10 => now.extend([frame.clone(), frame]),
                10..15 => late[own].push(frame),
                _ => now.push(frame),
            }
            now
        });
        for own in 0..2 {
            while let Some(frame) = pair.nodes[own].pop(LINKS[own]) {
                let number = u32::from_be_bytes(*frame[42..].first_chunk().unwrap());
                *got[own].entry(number).or_default() += 1;
            }
        }
        if tick % 10 == 0 {
            let peers = pair.nodes[0]
                .state
                .wireguard()
                .unwrap()
                .status(margay_dataplane::fib::TunnelKind::Wireguard4);
            handshakes.extend(peers[0].handshake);
        }
        pair.seen.clear();
    }
    for own in 0..2 {
        assert!(got[own].values().all(|times| *times == 1), "each once");
        let share = got[own].len() as f64 / f64::from(sent[1 - own]);
        assert!((0.9..0.99).contains(&share), "{share} of what was sent came");
    }
    assert!((4..=8).contains(&handshakes.len()), "a session every two minutes: {handshakes:?}");
    let replayed = pair.nodes.each_ref().map(|node| dropped(node, DropReason::WireguardReplayed));
    assert!(replayed.iter().all(|count| *count > 100), "{replayed:?}");
}

#[test]
fn idle_sessions_end_and_begin_again_when_they_are_wanted() {
    let mut pair = ready();
    for _ in 0..600 {
        pair.step(Nanos::from_secs(1));
    }
    let keys =
        pair.nodes.each_ref().map(|node| node.state.publisher().current().keyring.openings(false).count());
    assert_eq!(keys, [0, 0], "keys are gone when due");
    pair.seen.clear();
    assert!(pair.give(1, &across(1, 0, 53, 1)).is_some());
    assert_eq!(kinds(&mut pair)[..2], [1, 2]);
}

#[test]
fn peers_hear_from_us_as_often_as_is_asked_for() {
    let mut pair = ready();
    let public = pair.public(1);
    let changes = told(0, public).into_iter().map(|change| match change.change {
        Some(Change::Config(mut config)) => {
            config.wireguard.as_mut().unwrap().keepalive_seconds = 25;
            pb::Change { change: Some(Change::Config(config)) }
        }
        _ => change,
    });
    pair.nodes[0].commit(changes.collect()).unwrap();
    pair.step(NOW);
    for _ in 0..12 {
        pair.step(Nanos::from_secs(1));
    }
    pair.seen.clear();
    for _ in 0..100 {
        pair.step(Nanos::from_secs(1));
    }
    let of_a = pair.seen.iter().filter(|(own, frame)| *own == 0 && frame[23] == 17 && frame[42] == 4).count();
    assert!((4..=6).contains(&of_a), "{of_a} in 100 seconds");
    let account = pair.nodes[1].account();
    assert_eq!(account.drops, 0, "an empty packet is none that is dropped");
}

#[test]
fn tunnels_are_turned_on_and_off_under_traffic() {
    let mut pair = Pair::new(Setup::default());
    let keys = [0, 1].map(|own| pair.public(own));
    let plain = |own: usize| -> Vec<pb::Change> {
        let far = 1 - own;
        let routes = (0..2).map(|family| via(NETS[far][family], NODES[far][family]));
        let off = [
            change(Change::Config(pb::NodeConfig::default())),
            change(Change::WireguardPeerRemove("far".into())),
        ];
        routes.chain(off).collect()
    };
    for (round, on) in [true, false, true, false, true].into_iter().enumerate() {
        for own in 0..2 {
            let changes = if on { told(own, keys[1 - own]) } else { plain(own) };
            pair.nodes[own].commit(changes).unwrap();
        }
        pair.seen.clear();
        for _ in 0..5 {
            for own in 0..2 {
                let (sport, dport) = if own == 0 { (4000, 53) } else { (53, 4000) };
                let sent = across(own, 0, sport, dport);
                assert_eq!(
                    pair.give(own, &sent).expect("one flow throughout")[14..],
                    arrived(&sent),
                    "{round}"
                );
            }
        }
        let clear = pair.seen.iter().filter(|(_, frame)| frame.windows(7).any(|window| window == b"payload"));
        assert_eq!(clear.count(), if on { 0 } else { 10 });
    }
    let names: Vec<_> = pair.nodes[0]
        .state
        .publisher()
        .current()
        .interfaces
        .iter()
        .map(|interface| interface.name.to_string())
        .collect();
    assert!(names.contains(&"margay-wireguard".to_owned()), "{names:?}");
}

#[test]
fn keys_follow_one_another_under_traffic_and_nothing_is_lost() {
    let mut pair = ready();
    let mut number = 0u16;
    let mut talk = |pair: &mut Pair, steps: u32| {
        for _ in 0..steps {
            for own in 0..2 {
                let (sport, dport) = if own == 0 { (4000, 53) } else { (53, 4000) };
                number += 1;
                let sent = across(own, number as usize % 2, sport, dport);
                assert_eq!(
                    pair.give(own, &sent).expect("each arrives")[14..],
                    arrived(&sent),
                    "{}",
                    pair.told()
                );
            }
            pair.step(Nanos::from_secs(1));
        }
    };
    talk(&mut pair, 30);
    let old = [0, 1].map(|own| pair.public(own));
    // One, the other, and both at once; the other hears of it a little later.
    for (round, rotating) in [&[0][..], &[1], &[0, 1]].into_iter().enumerate() {
        for own in rotating {
            let now = pair.nodes[*own].now();
            let key = Secret::new([100 + 10 * round as u8 + *own as u8; 32]);
            pair.nodes[*own].state.rotate_key(&key, now);
        }
        talk(&mut pair, 20);
        for own in rotating {
            let public = pair.public(*own);
            pair.nodes[1 - own].commit(told(1 - own, public)).unwrap();
            talk(&mut pair, 7);
        }
        talk(&mut pair, 250);
        let sessions = pair.nodes.each_ref().map(|node| {
            let keyring = node.state.publisher().current().keyring.clone();
            [false, true].map(|v6| keyring.openings(v6).count())
        });
        assert!(sessions.as_flattened().iter().all(|count| (1..=3).contains(count)), "{sessions:?}");
    }
    assert!([0, 1].iter().all(|own| pair.public(*own) != old[*own]));
    let lost =
        [DropReason::WireguardUnknownSession, DropReason::WireguardNoSession, DropReason::WireguardForged];
    assert!(
        pair.nodes.iter().all(|node| lost.iter().all(|reason| dropped(node, *reason) == 0)),
        "{}",
        pair.told()
    );
}

#[test]
fn an_old_key_is_good_for_nothing_once_it_has_had_its_time() {
    let mut pair = ready();
    let now = pair.nodes[1].now();
    pair.nodes[1].state.rotate_key(&Secret::new([99; 32]), now);
    // Node a is not told, and has to do without once the session has ended.
    for _ in 0..200 {
        pair.step(Nanos::from_secs(1));
    }
    assert!(pair.give(0, &across(0, 0, 1, 53)).is_none());
    let keyring = pair.nodes[1].state.publisher().current().keyring.clone();
    assert_eq!(keyring.openings(false).count(), 0, "and no key is left");
    let public = pair.public(1);
    pair.nodes[0].commit(told(0, public)).unwrap();
    for _ in 0..12 {
        pair.step(Nanos::from_secs(1));
    }
    assert!(pair.give(0, &across(0, 0, 1, 53)).is_some(), "{}", pair.told());
}

#[test]
fn before_there_is_a_key_nothing_goes_in_clear() {
    let mut node = Simulation::new(Setup::default());
    node.uplink("eth0", UPLINK_MAC, &[(addr("192.168.0.1"), 24), (addr("fd00::1"), 64)]);
    assert!(!node.state.wants_wireguard());
    node.commit(told(0, PublicKey([9; 32]))).unwrap();
    assert!(node.state.wants_wireguard());
    give(
        &mut node,
        "eth0",
        &arp(PEER_MAC, margay_dataplane::wire::arp::Operation::Reply, "192.168.0.2", "192.168.0.1"),
    );
    node.push("cali1", &across(0, 0, 1, 53));
    node.step(NOW);
    assert_eq!(dropped(&node, DropReason::NoRoute), 1);
}

#[test]
fn what_a_router_says_of_the_way_is_heard() {
    let mut pair = ready();
    pair.give(0, &across(0, 0, 4000, 53)).expect("it arrives");
    let (_, frame) = pair.seen.pop().unwrap();
    give(&mut pair.nodes[0], "eth0", &too_big(1300, &frame));
    pair.nodes[0].push("cali1", &long(0, 1300 - 60 + 1, true));
    pair.nodes[0].step(NOW);
    let told = pair.nodes[0].pop("cali1").expect("an error");
    assert_eq!(told[38..42], 1240u32.to_be_bytes());
}
