//! One node with encrypted tunnels, and what is at their other ends: no more than keys.

use super::wire::Cable;
use crate::random::Random;
use anyhow::{Context, Result, bail, ensure};
use etherparse::PacketBuilder;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::control::Wireguard;
use margay_dataplane::graph::NodeCount;
use margay_dataplane::net::{Addr, Mac, Nanos};
use margay_dataplane::packet::{DropReason, Frames, Pool, Vector};
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::{arp, ethernet};
use margay_dataplane::wireguard::aead::{Batch, Kernel};
use margay_dataplane::wireguard::{
    self, Event, Interface, KeyPair, Moment, PeerSettings, PublicKey, Secret, Session, padded_len, sealed_len,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a tunnel over IPv4 takes on links of 1,500 bytes.
pub const MTU: usize = 1_440;
const PORT: u16 = 51_820;
/// Where a message begins in a frame: behind Ethernet, IPv4, UDP.
const MESSAGE: usize = 42;
/// Packets of the workload to each peer are of so many flows.
const FLOWS: usize = 16;

const NODE: [u8; 4] = [192, 168, 0, 1];
const WORKLOAD: [u8; 4] = [10, 0, 0, 1];
const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xff]);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
const WORKLOAD_MAC: Mac = Mac([2, 0, 0, 0, 1, 1]);

/// The node: a workload on it, and an uplink to all peers.
pub struct Node {
    simulation: Simulation,
    inside: Cable,
    outside: Cable,
    peers: Vec<Peer>,
    random: Random,
    batch: Batch,
}

/// Another node, as far as it matters.
struct Peer {
    interface: Interface,
    session: Option<Arc<Session>>,
}

impl wireguard::Random for Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.bits() as u8);
    }
}

impl Node {
    /// With so many peers, each of which has a session with it. `flows` are those that the flow table has room for.
    pub fn new(peers: usize, batch: usize, ticks: fn() -> u64) -> Result<Self> {
        let (inside, outside) = (Cable::default(), Cable::default());
        let flows = (2 * FLOWS * peers + 1_024) as u32;
        let mut simulation = Simulation::new(Setup { frames: 4_096, flows, ticks, ..Setup::default() });
        let (near, far) = (inside.clone(), outside.clone());
        simulation.wrap("cali1", move |_| near.device(batch));
        simulation.wrap("eth0", move |_| far.device(batch));
        simulation.uplink("eth0", UPLINK_MAC, &[(Addr::v4(NODE), 16)]);
        let moment = moment(simulation.now());
        let wireguard = Wireguard::new(&Secret::new([7; 32]), Box::new(Random::new(1)), moment);
        let ours = wireguard.public();
        simulation.state.set_wireguard(wireguard, moment.now);
        let peers = (0..peers).map(|number| Peer::new(number, ours, moment.now)).collect::<Result<_>>()?;
        let (random, batch) = (Random::new(2), Batch::new(Kernel::best()));
        let mut node = Self { simulation, inside, outside, peers, random, batch };
        node.configure()?;
        node.shake_hands()?;
        Ok(node)
    }

    /// What an agent would say.
    fn configure(&mut self) -> Result<()> {
        let allow = pb::Rule { action: pb::Action::Allow.into(), ..Default::default() };
        let id = pb::WorkloadEndpointId {
            orchestrator: "k8s".into(),
            workload: "default/w1".into(),
            endpoint: "eth0".into(),
        };
        let host = |address: [u8; 4]| pb::Prefix { address: address.to_vec(), length: 32 };
        let wireguard = pb::Wireguard { ipv4: true, ipv4_address: NODE.to_vec(), ..Default::default() };
        let mut changes = vec![
            Change::Config(pb::NodeConfig { wireguard: Some(wireguard), ..Default::default() }),
            Change::Profile(pb::Profile {
                name: "open".into(),
                inbound_rules: vec![allow.clone()],
                outbound_rules: vec![allow],
            }),
            Change::WorkloadEndpoint(pb::WorkloadEndpoint {
                id: Some(id.clone()),
                display_name: "default/w1".into(),
                interface_name: "cali1".into(),
                active: true,
                mac: WORKLOAD_MAC.0.to_vec(),
                nets: vec![host(WORKLOAD)],
                profile_ids: vec!["open".into()],
                ..Default::default()
            }),
            Change::Route(pb::Route {
                destination: Some(host(WORKLOAD)),
                target: Some(pb::route::Target::Workload(id)),
                ..Default::default()
            }),
        ];
        for (number, peer) in self.peers.iter().enumerate() {
            changes.push(Change::WireguardPeer(pb::WireguardPeer {
                node: format!("peer-{number}"),
                public_key: peer.interface.public().0.to_vec(),
                endpoint: endpoint(number).to_vec(),
                ..Default::default()
            }));
            let gateway = pb::NextHop { gateway: endpoint(number).to_vec(), ..Default::default() };
            changes.push(Change::Route(pb::Route {
                destination: Some(host(beyond(number))),
                target: Some(pb::route::Target::NextHop(gateway)),
                encapsulation: pb::Encapsulation::Wireguard.into(),
                ..Default::default()
            }));
        }
        let changes = changes.into_iter().map(|change| pb::Change { change: Some(change) });
        let refused = |errors: Vec<_>| anyhow::anyhow!("the peers were refused: {errors:?}");
        self.simulation.commit(changes.collect()).map_err(refused)
    }

    /// A first packet to each peer, which makes the node call it.
    fn shake_hands(&mut self) -> Result<()> {
        self.outside.keep(true);
        for number in 0..self.peers.len() {
            let first = plain(WORKLOAD_MAC, WORKLOAD, beyond(number), 0, 64);
            self.inside.lay(&[first].into());
            for _ in 0..10 {
                self.simulation.step(Nanos::from_millis(1));
                let answers: Vec<_> =
                    self.outside.sent().iter().filter_map(|frame| self.answer(frame)).collect();
                self.outside.lay(&answers.into());
                if self.peers[number].session.is_some() {
                    break;
                }
            }
            self.simulation.step(Nanos(0));
            ensure!(self.peers[number].session.is_some(), "peer {number} was not called");
        }
        self.outside.keep(false);
        self.outside.sent();
        Ok(())
    }

    /// What peers, and the link, say to a frame.
    fn answer(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        if frame[12..14] == ethernet::ARP.to_be_bytes() {
            let asked = arp::Arp::parse(&frame[14..]).ok()?;
            let answer = arp::Arp {
                operation: arp::Operation::Reply,
                sender_mac: PEER_MAC,
                sender: asked.target,
                target_mac: UPLINK_MAC,
                target: asked.sender,
            };
            let header = [&UPLINK_MAC.0[..], &PEER_MAC.0, &ethernet::ARP.to_be_bytes()].concat();
            return Some([&header[..], &answer.emit()].concat());
        }
        let to: [u8; 4] = frame[30..34].try_into().ok()?;
        let number = (0..self.peers.len()).find(|number| endpoint(*number) == to)?;
        let peer = &mut self.peers[number];
        let from = SocketAddr::from((NODE, PORT));
        let moment = moment(self.simulation.now());
        peer.interface.receive(&frame[MESSAGE..], from, moment, &mut self.random).ok()?;
        let mut answer = None;
        for event in peer.interface.events() {
            match event {
                Event::Send { message, .. } => answer = Some(message),
                Event::Receive(_, session) => peer.session = Some(session),
                _ => {}
            }
        }
        answer.map(|message| carried(number, &message))
    }

    /// Packets of the workload to its peers in turn, of these lengths in turn.
    pub fn packets(&self, lengths: &[usize], count: usize) -> Arc<[Vec<u8>]> {
        let frame = |at: usize| {
            let (peer, flow) = (at % self.peers.len(), at / self.peers.len() % FLOWS);
            plain(WORKLOAD_MAC, WORKLOAD, beyond(peer), flow, lengths[at % lengths.len()])
        };
        (0..count).map(frame).collect()
    }

    /// The same from the peers to the workload: sealed, each of them new.
    pub fn messages(&mut self, lengths: &[usize], count: usize) -> Result<Arc<[Vec<u8>]>> {
        let mut messages = vec![];
        for at in 0..count {
            let (peer, flow) = (at % self.peers.len(), at / self.peers.len() % FLOWS);
            let inner = &plain(WORKLOAD_MAC, beyond(peer), WORKLOAD, flow, lengths[at % lengths.len()])[14..];
            let session = self.peers[peer].session.as_ref().context("every peer has a session")?;
            let counter = session.reserve(0, 1).context("counters do not run out")?;
            let padded = padded_len(inner.len(), MTU);
            let mut message = vec![0; sealed_len(padded)];
            message[16..][..inner.len()].copy_from_slice(inner);
            self.batch.seal(&mut [session.outgoing(counter, inner.len(), padded, &mut message)?]);
            messages.push(carried(peer, &message));
        }
        Ok(messages.into())
    }

    /// Initiations from anywhere, for which there is nobody. With the right first code, or a wrong one.
    pub fn bogus(&mut self, right: bool, count: usize) -> Result<Arc<[Vec<u8>]>> {
        let ours = self.public();
        let mut stranger = Peer::new(65_000, ours, Nanos(0))?;
        stranger.interface.want_session(ours, moment(Nanos(0)), &mut self.random);
        let Some(Event::Send { mut message, .. }) = stranger.interface.events().next() else {
            bail!("an initiation is sent at once");
        };
        if !right {
            message[116] ^= 1;
        }
        Ok((0..count).map(|at| carried(at % 250, &message)).collect())
    }

    /// By which peers know the node.
    fn public(&self) -> PublicKey {
        self.simulation.state.wireguard().expect("it was given one").public()
    }

    /// Sends a lap through the node, by the workload's link or by the uplink; all of it must be sent on.
    pub fn run(&mut self, inside: bool, lap: &Arc<[Vec<u8>]>) -> Result<u64> {
        self.send(inside, lap, lap.len() as u64)
    }

    /// Sends a lap through the node, by the uplink, of which so many are data and must be sent on.
    pub fn open(&mut self, lap: &Arc<[Vec<u8>]>, data: u64) -> Result<u64> {
        self.send(false, lap, data)
    }

    fn send(&mut self, inside: bool, lap: &Arc<[Vec<u8>]>, wanted: u64) -> Result<u64> {
        let tx = self.tx();
        (if inside { &self.inside } else { &self.outside }).lay(lap);
        while self.simulation.poll() > 0 {}
        let sent = self.tx() - tx;
        ensure!(sent == wanted, "of {wanted} packets {sent} were sent: {}", self.drops());
        Ok(wanted)
    }

    /// Has the node take a lap of initiations, and leaves them on their way to the control side.
    pub fn take(&mut self, lap: &Arc<[Vec<u8>]>) -> u64 {
        self.outside.lay(lap);
        while self.simulation.poll() > 0 {}
        lap.len() as u64
    }

    /// Throws away what waits for the control side. How much was there.
    pub fn listen(&mut self) -> usize {
        let world = self.simulation.workers[0].world();
        while world.events.pop().is_some() {}
        std::iter::from_fn(|| world.handshakes.pop()).count()
    }

    /// Peers open what the node sealed, and find in it what was sent.
    pub fn check(&mut self, lengths: &[usize]) -> Result<()> {
        let lap = self.packets(lengths, 512.max(self.peers.len()));
        self.outside.keep(true);
        self.run(true, &lap)?;
        self.outside.keep(false);
        let sent = self.outside.sent();
        ensure!(sent.len() == lap.len(), "all were sent");
        // Of each flow they come in order, of several flows in any. One hop on, the time to live and the header's sum
        // are others: what follows them is as it was.
        let mut awaited: HashMap<&[u8], usize> = HashMap::new();
        for plain in &*lap {
            *awaited.entry(&plain[26..]).or_default() += 1;
        }
        for (at, sealed) in sent.iter().enumerate() {
            let to: [u8; 4] = sealed[30..34].try_into()?;
            let peer = (0..self.peers.len()).find(|number| endpoint(*number) == to);
            let session = peer.and_then(|number| self.peers[number].session.as_ref());
            let session = session.context("it is for a peer with a session")?;
            let mut text = sealed[MESSAGE + 16..].to_vec();
            let counter = u64::from_le_bytes(sealed[MESSAGE + 8..MESSAGE + 16].try_into()?);
            let mut genuine = [false];
            self.batch.open(&mut [session.incoming(counter, &mut text)?], &mut genuine);
            let len = usize::from(u16::from_be_bytes([text[2], text[3]]));
            let left = text.get(12..len).and_then(|tail| awaited.get_mut(tail)).filter(|left| **left > 0);
            match (genuine, left) {
                ([true], Some(left)) => *left -= 1,
                _ => bail!("packet {at} does not come out as one that went in"),
            }
        }
        let lap = self.messages(lengths, 512)?;
        self.run(false, &lap)?;
        Ok(())
    }

    /// What each node of the graph has cost so far.
    pub fn nodes(&self) -> Vec<NodeCount> {
        self.simulation.workers[0].graph().counters().read()
    }

    fn tx(&self) -> u64 {
        self.simulation.workers[0].world().counters.tx.get()
    }

    fn drops(&self) -> String {
        let counters = &self.simulation.workers[0].world().counters;
        let drops = DropReason::ALL.iter().filter(|reason| counters.dropped(**reason).get() > 0);
        format!("{:?}", drops.map(|reason| (reason, counters.dropped(*reason).get())).collect::<Vec<_>>())
    }
}

impl Peer {
    fn new(number: usize, ours: PublicKey, now: Nanos) -> Result<Self> {
        let mut key = [9; 32];
        // Not the first byte: of that X25519 leaves out three bits.
        key[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        let mut interface = Interface::new(KeyPair::new(&key));
        let endpoint = Some(SocketAddr::from((NODE, PORT)));
        let settings = PeerSettings { public: ours, preshared: Secret::default(), endpoint, keepalive: None };
        interface.set_peer(&settings, now)?;
        Ok(Self { interface, session: None })
    }
}

/// The device alone: frames received and freed.
pub fn bare(batch: usize) -> Result<impl FnMut(&Arc<[Vec<u8>]>) -> u64> {
    let cable = Cable::default();
    let mut device = cable.device(batch);
    let mut pool = Pool::new(Frames::new(4_096, 2048, false)?, 1024);
    let mut vector = Vector::default();
    Ok(move |lap: &Arc<[Vec<u8>]>| {
        cable.lay(lap);
        let device = std::hint::black_box(&mut device);
        while device.receive(&mut pool, &mut vector, batch, Nanos(0)) > 0 {
            device.transmit(&mut pool, &mut vector, Nanos(0));
        }
        lap.len() as u64
    })
}

pub fn moment(now: Nanos) -> Moment {
    Moment { now, unix: Duration::from_secs(1_700_000_000) + Duration::from_nanos(now.0) }
}

/// Where a peer is.
fn endpoint(number: usize) -> [u8; 4] {
    [192, 168, 1 + (number / 250) as u8, 1 + (number % 250) as u8]
}

/// What is behind it.
fn beyond(number: usize) -> [u8; 4] {
    [10, 128 + (number / 250) as u8, (number % 250) as u8, 9]
}

/// An IP packet of so many bytes, UDP, in a frame to the node.
pub fn plain(from_mac: Mac, from: [u8; 4], to: [u8; 4], flow: usize, len: usize) -> Vec<u8> {
    let gateway = [0xee; 6];
    let builder = PacketBuilder::ethernet2(from_mac.0, gateway).ipv4(from, to, 64);
    let mut frame = vec![];
    // Writing to a vector cannot fail, and the lengths are within what the headers can say.
    let written = builder.udp(5_000 + flow as u16, 5_000).write(&mut frame, &vec![0x5a; len.max(28) - 28]);
    written.expect("a UDP packet of this size exists");
    frame
}

/// A message of a peer in a frame to the node.
fn carried(number: usize, message: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(PEER_MAC.0, UPLINK_MAC.0).ipv4(endpoint(number), NODE, 64);
    let mut frame = vec![];
    let written = builder.udp(PORT, PORT).write(&mut frame, message);
    written.expect("a UDP packet of this size exists");
    frame
}
