//! Hosts' own packets in encrypted tunnels, in memory: two nodes on one virtual clock, and what their kernels send.
#![allow(missing_docs)]

mod build;

use build::frames::*;
use build::wireguard::*;
use build::*;
use margay_api::dataplane::v1 as pb;
use margay_dataplane::net::{FlowKey, Nanos, Proto};
use margay_dataplane::simulation::Setup;
use margay_dataplane::wire::l4;
use pb::change::Change;

/// The tap that stands between the uplink and a host's stack.
const STACK: &str = "margay-up0";

/// What node `own` is told where hosts' packets are sealed: port 22 is a failsafe one.
fn sealing(own: usize, pair: &Pair) -> Vec<pb::Change> {
    let mut changes = told(own, pair.public(1 - own));
    for change in &mut changes {
        if let Some(Change::Config(config)) = &mut change.change {
            config.wireguard.as_mut().unwrap().hosts = true;
            let ssh = pb::FailsafePort { protocol: 17, port: 22, net: None };
            (config.failsafe_inbound, config.failsafe_outbound) = (vec![ssh.clone()], vec![ssh]);
        }
    }
    changes.extend(NODES[1 - own].map(|address| sealed_route(address, address)));
    changes
}

/// Workloads leave with the address of their host.
fn masqueraded() -> pb::Change {
    let cidr = Some(prefix("10.65.0.0/16"));
    change(Change::IpPool(pb::IpPool { cidr, masquerade: true, ..Default::default() }))
}

fn nodes() -> Pair {
    let mut pair = Pair::new(Setup::default());
    // The way to each other is known from now on: with the hosts' packets by way of us, their kernels would ask for it.
    for family in 0..2 {
        assert!(pair.give(0, &across(0, family, 1, 1)).is_some(), "{}", pair.told());
        assert!(pair.give(1, &across(1, family, 1, 1)).is_some(), "{}", pair.told());
    }
    for own in 0..2 {
        let changes = sealing(own, &pair);
        pair.nodes[own].commit(changes).unwrap();
    }
    pair.step(NOW);
    pair.seen.clear();
    pair
}

/// From a host's stack to the other's.
fn from_host(own: usize, family: usize, sport: u16, dport: u16) -> Vec<u8> {
    udp(MACS[own], MACS[1 - own], NODES[own][family], NODES[1 - own][family], sport, dport)
}

/// What a host's stack sends, and what the other's gets then.
fn give(pair: &mut Pair, own: usize, frame: &[u8]) -> Option<Vec<u8>> {
    pair.nodes[own].push(STACK, frame);
    pair.step(NOW);
    pair.nodes[1 - own].pop(STACK)
}

/// How many of the frames on the wire could be read by anyone, of those since it was asked last.
fn readable(pair: &mut Pair) -> usize {
    let seen = std::mem::take(&mut pair.seen);
    seen.iter().filter(|(_, frame)| frame.windows(7).any(|window| window == b"payload")).count()
}

/// Who sends a frame to whom.
fn key(frame: &[u8]) -> FlowKey {
    let v6 = frame[14] >> 4 == 6;
    let (head, proto) = if v6 { (40, frame[20]) } else { (20, frame[23]) };
    l4::flow_key(&frame[14..], &frame[14 + head..], v6, Proto(proto), Default::default())
}

#[test]
fn hosts_speak_to_each_other_and_nobody_on_the_way_can_read_it() {
    let mut pair = nodes();
    for family in 0..2 {
        for n in 0..10 {
            let (there, back) = (from_host(0, family, 4000 + n, 53), from_host(1, family, 53, 4000 + n));
            for (own, sent) in [(0, there), (1, back)] {
                let got = give(&mut pair, own, &sent).unwrap_or_else(|| panic!("{}", pair.told()));
                assert_eq!(got[..6], MACS[1 - own].0, "its kernel takes it for its own");
                assert_eq!(got[14..], aged(sent[14..].to_vec()));
            }
        }
    }
    assert_eq!(readable(&mut pair), 0);
    assert!(pair.nodes.iter().all(|node| node.account().drops == 0), "{}", pair.told());
}

#[test]
fn the_handshake_itself_goes_by_no_tunnel() {
    let mut pair = nodes();
    // Whatever there was of sessions is over.
    pair.step(Nanos::from_secs(1_000));
    pair.seen.clear();
    let sent = from_host(0, 0, 4000, 53);
    let got = give(&mut pair, 0, &sent).unwrap_or_else(|| panic!("{}", pair.told()));
    assert_eq!(got[14..], aged(sent[14..].to_vec()), "it waited for the session");
    let kinds: Vec<u8> = pair.seen.iter().map(|(_, frame)| frame[42]).collect();
    assert_eq!(kinds[..2], [1, 2], "{kinds:?}");
}

#[test]
fn failsafe_ports_and_other_addresses_of_a_host_are_reached_in_clear() {
    let mut pair = nodes();
    for (own, sport, dport) in [(0, 4000, 22), (1, 22, 4000)] {
        let sent = from_host(own, 0, sport, dport);
        assert_eq!(give(&mut pair, own, &sent).unwrap()[14..], sent[14..], "as it was sent");
    }
    assert_eq!(readable(&mut pair), 2);
    // The other end would not believe that it comes from this node.
    let elsewhere = udp(MACS[0], MACS[1], "192.168.0.77", NODES[1][0], 4000, 53);
    assert_eq!(give(&mut pair, 0, &elsewhere).unwrap()[14..], elsewhere[14..]);
    assert_eq!(readable(&mut pair), 1);
}

#[test]
fn a_host_is_told_how_long_its_packets_may_be() {
    let mut pair = nodes();
    assert!(give(&mut pair, 0, &from_host(0, 0, 1, 53)).is_some());
    let mut long = vec![];
    ip(MACS[0], MACS[1], NODES[0][0], NODES[1][0], 64).udp(4000, 53).write(&mut long, &[7; 1472]).unwrap();
    let dont_fragment = patched(long, 6, &[0x40, 0]);
    assert!(give(&mut pair, 0, &dont_fragment).is_none());
    let error = pair.nodes[0].pop(STACK).expect("an error");
    // A kernel takes no packet from its own address, and this from whom it asked.
    let said = key(&error);
    assert_eq!((said.src, said.dst), (addr(NODES[1][0]), addr(NODES[0][0])));
    assert_eq!((&error[34..36], &error[40..42]), (&[3, 4][..], &1440_u16.to_be_bytes()[..]));
    assert_eq!(error[..6], MACS[0].0);
}

#[test]
fn workloads_speak_to_other_hosts_and_hosts_to_other_workloads() {
    for masquerade in [false, true] {
        let mut pair = nodes();
        if masquerade {
            let mut changes = sealing(0, &pair);
            changes.push(masqueraded());
            pair.nodes[0].commit(changes).unwrap();
            pair.step(NOW);
        }
        let sent = udp(workload_mac(1), gateway_mac(), WORKLOADS[0][0], NODES[1][0], 4000, 53);
        pair.nodes[0].push(LINKS[0], &sent);
        pair.step(NOW);
        let asked = key(&pair.nodes[1].pop(STACK).unwrap_or_else(|| panic!("{masquerade} {}", pair.told())));
        assert_eq!(asked.src, addr(if masquerade { NODES[0][0] } else { WORKLOADS[0][0] }));
        let client = asked.src.to_string();
        let answer = udp(MACS[1], MACS[0], NODES[1][0], &client, 53, asked.sport);
        pair.nodes[1].push(STACK, &answer);
        pair.step(NOW);
        let answered =
            key(&pair.nodes[0].pop(LINKS[0]).unwrap_or_else(|| panic!("{masquerade} {}", pair.told())));
        assert_eq!((answered.dst, answered.dport), (addr(WORKLOADS[0][0]), 4000));
        assert_eq!(readable(&mut pair), 0);
    }
}

#[test]
fn it_is_turned_on_and_off_under_traffic() {
    let mut pair = nodes();
    // Hosts' packets come by way of us all the time.
    for own in 0..2 {
        pair.nodes[own].commit(vec![masqueraded()]).unwrap();
    }
    for on in [true, false, true, false] {
        for own in 0..2 {
            let mut changes = told(own, pair.public(1 - own));
            let remove = |address| change(Change::RouteRemove(prefix(address)));
            if on {
                changes = sealing(own, &pair);
            } else {
                changes.extend(NODES[1 - own].map(remove));
            }
            pair.nodes[own].commit(changes).unwrap();
            // The other end is not there yet: what is under way arrives all the same.
            for own in 0..2 {
                pair.nodes[own].step(NOW);
            }
        }
        for n in 0..3 {
            for (own, sport, dport) in [(0, 4000, 53), (1, 53, 4000)] {
                let sent = from_host(own, 0, sport, dport);
                let got = give(&mut pair, own, &sent);
                assert!(got.is_some(), "{on} {n} {own} {}", pair.told());
            }
        }
        assert_eq!(readable(&mut pair), if on { 0 } else { 6 });
    }
}
