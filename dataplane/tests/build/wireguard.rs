//! Two nodes with encrypted tunnels between them, on one virtual clock.

use super::frames::*;
use super::*;
use margay_dataplane::control::Wireguard;
use margay_dataplane::wire::{arp, ethernet};
use margay_dataplane::wireguard::{
    Event, Interface, KeyPair, Moment, PeerSettings, PublicKey, Random, Secret,
};
use pb::change::Change;
use std::time::Duration;

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.bits() as u8);
    }
}

/// Their addresses, by IP version.
pub const NODES: [[&str; 2]; 2] = [["192.168.0.1", "fd00::1"], ["192.168.0.2", "fd00::2"]];
pub const MACS: [Mac; 2] = [UPLINK_MAC, PEER_MAC];
/// A workload on each, its interface, and the nets that the node's workloads are in.
pub const WORKLOADS: [[&str; 2]; 2] = [["10.65.0.1", "fd65::1"], ["10.65.1.9", "fd65:1::9"]];
pub const LINKS: [&str; 2] = ["cali1", "cali9"];
pub const NETS: [[&str; 2]; 2] = [["10.65.0.0/24", "fd65::/64"], ["10.65.1.0/24", "fd65:1::/64"]];

/// The nodes, and the wire between their uplinks.
pub struct Pair {
    pub nodes: [Simulation; 2],
    /// What went over the wire, and who sent it. Questions for neighbours apart, which the wire answers itself.
    pub seen: Vec<(usize, Vec<u8>)>,
}

/// Node `own`'s private key.
fn key(own: usize) -> Secret {
    Secret::new([7 + own as u8; 32])
}

/// What node `own` is told, with `public` for the other's key: its workload, its peer, and what is routed there.
pub fn told(own: usize, public: PublicKey) -> Vec<pb::Change> {
    let far = 1 - own;
    let wireguard = pb::Wireguard {
        ipv4: true,
        ipv6: true,
        ipv4_address: bytes(addr(NODES[own][0])),
        ipv6_address: bytes(addr(NODES[own][1])),
        ..Default::default()
    };
    let peer = pb::WireguardPeer {
        node: "far".into(),
        public_key: public.0.to_vec(),
        endpoint: bytes(addr(NODES[far][0])),
        public_key_v6: public.0.to_vec(),
        endpoint_v6: bytes(addr(NODES[far][1])),
        ..Default::default()
    };
    let config = pb::NodeConfig { wireguard: Some(wireguard), ..Default::default() };
    let number = if own == 0 { 1 } else { 9 };
    let nets = WORKLOADS[own].map(prefix).to_vec();
    let mut changes = vec![
        change(Change::Config(config)),
        change(Change::WireguardPeer(peer)),
        change(Change::Profile(open_profile())),
        change(Change::WorkloadEndpoint(pb::WorkloadEndpoint { nets, ..endpoint(number, &[]) })),
    ];
    for family in 0..2 {
        let own = pb::Route {
            destination: Some(prefix(WORKLOADS[own][family])),
            target: Some(pb::route::Target::Workload(endpoint_id(number))),
            ..Default::default()
        };
        changes.push(change(Change::Route(own)));
        changes.push(sealed_route(NETS[far][family], NODES[far][family]));
    }
    changes
}

/// A route through the tunnel to the node of this address.
pub fn sealed_route(destination: &str, gateway: &str) -> pb::Change {
    let gateway = bytes(addr(gateway));
    change(Change::Route(pb::Route {
        destination: Some(prefix(destination)),
        target: Some(pb::route::Target::NextHop(pb::NextHop { gateway, ..Default::default() })),
        encapsulation: pb::Encapsulation::Wireguard.into(),
        node: "far".into(),
        ..Default::default()
    }))
}

/// A frame of the workload on node `own` to that on the other.
pub fn across(own: usize, family: usize, sport: u16, dport: u16) -> Vec<u8> {
    let (from, to) = (WORKLOADS[own][family], WORKLOADS[1 - own][family]);
    udp(workload_mac(if own == 0 { 1 } else { 9 }), gateway_mac(), from, to, sport, dport)
}

impl Pair {
    /// Two nodes that know each other's key.
    pub fn new(setup: Setup) -> Self {
        let nodes = [0, 1].map(|own| {
            let mut node = Simulation::new(setup);
            let addresses = [(addr(NODES[own][0]), 24), (addr(NODES[own][1]), 64)];
            node.uplink("eth0", MACS[own], &addresses);
            let moment = Moment { now: node.now(), unix: Duration::from_secs(1_700_000_000) };
            let wireguard = Wireguard::new(&key(own), Box::new(Seeded(own as u64)), moment);
            node.state.set_wireguard(wireguard, node.now());
            node
        });
        let mut pair = Self { nodes, seen: vec![] };
        let keys = [0, 1].map(|own| pair.public(own));
        for own in 0..2 {
            pair.nodes[own].commit(told(own, keys[1 - own])).unwrap();
        }
        pair.step(NOW);
        pair
    }

    pub fn public(&self, own: usize) -> PublicKey {
        self.nodes[own].state.wireguard().expect("it has a key").public()
    }

    /// Lets time pass, and everything arrive.
    pub fn step(&mut self, time: Nanos) {
        self.step_through(time, |_, frame| vec![frame]);
    }

    /// The same over a wire that makes what it likes of each frame.
    pub fn step_through(&mut self, time: Nanos, mut wire: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>>) {
        for own in 0..2 {
            self.nodes[own].step(time);
        }
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for own in 0..2 {
                self.nodes[own].step(Nanos(0));
                self.nodes[own].check();
                while let Some(frame) = self.nodes[own].pop("eth0") {
                    quiet = false;
                    if let Some(answer) = answer(own, &frame) {
                        self.nodes[own].push("eth0", &answer);
                        continue;
                    }
                    self.seen.push((own, frame.clone()));
                    wire(own, frame).iter().for_each(|frame| self.nodes[1 - own].push("eth0", frame));
                }
            }
        }
    }

    /// What became of everything so far.
    pub fn told(&self) -> String {
        let of = |node: &Simulation| {
            let drops: Vec<_> = DropReason::ALL.iter().filter(|reason| dropped(node, **reason) > 0).collect();
            format!("{:?}, {drops:?}", node.account())
        };
        format!("{:?}; {} frames went over the wire", self.nodes.each_ref().map(of), self.seen.len())
    }

    /// A frame of node `own`'s workload, and what the other's gets then.
    pub fn give(&mut self, own: usize, frame: &[u8]) -> Option<Vec<u8>> {
        self.nodes[own].push(LINKS[own], frame);
        self.step(NOW);
        self.nodes[1 - own].pop(LINKS[1 - own])
    }
}

/// What the other host's kernel says to a question for a neighbour.
pub fn answer(own: usize, frame: &[u8]) -> Option<Vec<u8>> {
    let (kind, far) = (u16::from_be_bytes([frame[12], frame[13]]), MACS[1 - own]);
    if kind == ethernet::ARP {
        let target = Addr::v4(*frame[38..].first_chunk()?).to_string();
        return Some(arp(far, arp::Operation::Reply, &target, NODES[own][0]));
    }
    if kind == ethernet::IPV6 && frame[20] == 58 && frame[54] == 135 {
        let target = Addr::v6(*frame[62..].first_chunk()?).to_string();
        return Some(advertise(far, MACS[own], &target, NODES[own][1]));
    }
    None
}

/// An initiation for somebody, by nobody that he knows.
pub fn bogus_initiation(for_whom: PublicKey) -> Vec<u8> {
    let mut random = Seeded(77);
    let mut key = [0; 32];
    random.fill(&mut key);
    let mut interface = Interface::new(KeyPair::new(&key));
    let settings = PeerSettings {
        public: for_whom,
        preshared: Secret::default(),
        endpoint: Some(([192, 0, 2, 1], 1).into()),
        keepalive: None,
    };
    interface.set_peer(&settings, Nanos(0)).unwrap();
    let moment = Moment { now: Nanos(0), unix: Duration::from_secs(1_700_000_000) };
    interface.want_session(for_whom, moment, &mut random);
    match interface.events().next() {
        Some(Event::Send { message, .. }) => message,
        other => panic!("an initiation: {other:?}"),
    }
}
