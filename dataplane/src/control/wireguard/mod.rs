//! WireGuard's control side as this node has it: an [`Interface`] for each IP version, who its peers are, and what workers and
//! the network are told of them. Sans-IO, as the interfaces are: time is an argument, and whoever makes it gives it randomness.
//!
//! Workers count what they seal and open; a look at those counts now and then ([`Wireguard::pass`]) is what an interface learns
//! of packets by. So nothing that a worker does waits for control.

mod key_file;
mod peer;
mod rotation;

pub use key_file::{KeyFile, KeyFileError, SystemRandom};
pub use peer::{PeerAt, WireguardPeer, address, port};

use crate::fib::TunnelKind;
use crate::net::{Addr, Nanos, PeerId};
use crate::nodes::Datagram;
use crate::wire::wireguard::Message;
use crate::wireguard::aead::{Batch, Kernel};
use crate::wireguard::{
    self, Endpoint, Interface, KeyPair, Keyring, Moment, Opening, PeerSettings, PublicKey, Random, Secret,
    Session, Traffic, padded_len, sealed_len,
};
use rotation::Fading;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A message to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// By which tunnels' interface.
    pub kind: TunnelKind,
    /// Where to.
    pub to: Endpoint,
    /// What.
    pub message: Vec<u8>,
}

/// A peer that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The node, for people.
    pub node: Arc<str>,
    /// Its key, and where it is said to be.
    pub at: PeerAt,
    /// Lanes that it takes packets in; 0: it is any WireGuard.
    pub lanes: u8,
    /// How often it is to hear from us.
    pub keepalive: Option<Nanos>,
}

/// A peer, for people.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// As it was asked for.
    pub wanted: Wanted,
    /// Where it was heard last, or is said to be.
    pub endpoint: Option<Endpoint>,
    /// Of the session in use, since 1970.
    pub handshake: Option<Duration>,
    /// Received and sent.
    pub bytes: [u64; 2],
    /// Why it cannot be had.
    pub problem: String,
}

/// The control side of both interfaces.
pub struct Wireguard {
    sides: [Side; 2],
    public: PublicKey,
    keyring: Keyring,
    /// It is not what was taken last.
    changed: bool,
    /// So are peers' endpoints.
    moved: bool,
    next_peer: u32,
    cipher: Batch,
    random: Box<dyn Random + Send + Sync>,
    /// Since 1970, when the clock stood at 0.
    epoch: Duration,
    out: Vec<Outgoing>,
}

/// One interface.
struct Side {
    kind: TunnelKind,
    interface: Interface,
    peers: BTreeMap<PublicKey, Peer>,
    keys: HashMap<PeerId, PublicKey>,
    /// Peers that cannot be had, and why.
    refused: Vec<(Wanted, String)>,
    /// By our number.
    sessions: BTreeMap<u32, Watched>,
    /// Under old keys.
    fading: Fading,
}

struct Peer {
    id: PeerId,
    wanted: Wanted,
    endpoint: Option<Endpoint>,
    traffic: Arc<Traffic>,
    /// Of that, packets sent which the interface knows of.
    sent: u64,
    handshake: Option<Nanos>,
}

/// A session under which packets may come.
struct Watched {
    opening: Arc<Opening>,
    peer: PublicKey,
    /// What the interface knows of.
    seen: (u64, u64),
}

impl Wireguard {
    /// Without peers, at a moment.
    pub fn new(private: &Secret, random: Box<dyn Random + Send + Sync>, moment: Moment) -> Self {
        let side = |kind| Side {
            kind,
            interface: Interface::new(KeyPair::new(private)),
            peers: BTreeMap::new(),
            keys: HashMap::new(),
            refused: vec![],
            sessions: BTreeMap::new(),
            fading: Fading::default(),
        };
        Self {
            public: KeyPair::new(private).public(),
            sides: TunnelKind::WIREGUARD.map(side),
            keyring: Keyring::default(),
            changed: false,
            moved: false,
            next_peer: 0,
            cipher: Batch::new(Kernel::best()),
            random,
            epoch: moment.unix.saturating_sub(Duration::from_nanos(moment.now.0)),
            out: vec![],
        }
    }

    /// By which peers know this node.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// Has these peers, and no others, by IP version. Those that stay keep their sessions.
    pub fn follow(&mut self, wanted: [Vec<Wanted>; 2], now: Nanos) {
        for (side, wanted) in wanted.into_iter().enumerate() {
            self.follow_side(side, wanted, now);
            self.heed(side, now);
        }
    }

    fn follow_side(&mut self, number: usize, wanted: Vec<Wanted>, now: Nanos) {
        let moment = self.moment(now);
        let side = &mut self.sides[number];
        let keys: BTreeSet<PublicKey> = wanted.iter().map(|wanted| wanted.at.public).collect();
        side.refused.clear();
        let mut named = BTreeMap::<PublicKey, Arc<str>>::new();
        for wanted in wanted {
            let public = wanted.at.public;
            if let Some(other) = named.insert(public, wanted.node.clone()) {
                let why = format!("node {other} has the same public key; give each node its own");
                side.refused.push((wanted, why));
                named.insert(public, other);
                continue;
            }
            if side.peers.get(&public).is_some_and(|peer| peer.wanted == wanted) {
                continue;
            }
            let settings = PeerSettings {
                public,
                preshared: Secret::default(),
                endpoint: Some(socket(wanted.at.endpoint)),
                keepalive: wanted.keepalive,
            };
            if let Err(error) = side.interface.set_peer(&settings, now) {
                side.refused.push((wanted, error.to_string()));
                continue;
            }
            self.moved = true;
            if let Some(peer) = side.peers.get_mut(&public) {
                // It begins to use lanes, or ends: what is under way is lost, and a session with as many follows.
                if (peer.wanted.lanes > 0) != (wanted.lanes > 0) {
                    side.interface.restart(public);
                }
                peer.wanted = wanted;
                continue;
            }
            if let Some(peer) = side.succeed((&wanted.node, public), &keys, now) {
                side.keys.insert(peer.id, public);
                side.peers.insert(public, Peer { wanted, ..peer });
                // Packets go on under the old key until there is a session under the new one.
                side.interface.want_session(public, moment, &mut self.random);
                continue;
            }
            let id = PeerId(self.next_peer);
            self.next_peer += 1;
            let traffic = self.keyring.peer_mut(id).traffic.clone();
            side.keys.insert(id, public);
            side.peers.insert(public, Peer { id, wanted, endpoint: None, traffic, sent: 0, handshake: None });
        }
        let gone: Vec<PublicKey> =
            side.peers.keys().filter(|public| !keys.contains(public)).copied().collect();
        for public in gone {
            if let Some(peer) = side.peers.remove(&public) {
                side.forget(public, peer.id);
                side.keys.remove(&peer.id);
                self.keyring.remove_peer(peer.id);
                (self.changed, self.moved) = (true, true);
            }
        }
    }

    /// The peers of an interface: where they are said to be, which they are, where they were heard last, and how many lanes
    /// they take.
    pub fn peers(&self, kind: TunnelKind) -> impl Iterator<Item = (Addr, PeerId, Endpoint, u8)> {
        let side = self.sides.iter().filter(move |side| side.kind == kind);
        side.flat_map(|side| side.peers.values()).map(|peer| {
            let said = peer.wanted.at.endpoint;
            (said.0, peer.id, peer.endpoint.unwrap_or(said), peer.wanted.lanes)
        })
    }

    /// A message of a handshake came.
    pub fn datagram(&mut self, datagram: &Datagram, now: Nanos) {
        let number = usize::from(datagram.v6);
        let moment = self.moment(now);
        let from = socket(datagram.from);
        let outcome = self.sides[number].receive(datagram.bytes(), from, moment, &mut self.random);
        if let Err(refused) = outcome {
            tracing::debug!(%from, %refused, "a WireGuard message was not heeded");
        }
        self.heed(number, now);
    }

    /// A worker has a packet for a peer, and no session.
    pub fn session_wanted(&mut self, peer: PeerId, now: Nanos) {
        let moment = self.moment(now);
        for number in 0..self.sides.len() {
            let side = &mut self.sides[number];
            if let Some(public) = side.keys.get(&peer).copied() {
                side.interface.want_session(public, moment, &mut self.random);
                self.heed(number, now);
            }
        }
    }

    /// A genuine packet of a session came from there.
    pub fn peer_moved(&mut self, v6: bool, session: u32, from: Endpoint, now: Nanos) {
        let (number, moment) = (usize::from(v6), self.moment(now));
        let side = &mut self.sides[number];
        if let Some(peer) = side.sessions.get(&session).map(|watched| watched.peer) {
            side.received((session, peer), Some(socket(from)), false, moment, &mut self.random);
        }
        self.heed(number, now);
    }

    /// Lets time pass: looks at what workers counted, and does what is due. To be called often.
    pub fn pass(&mut self, now: Nanos) {
        let moment = self.moment(now);
        for number in 0..self.sides.len() {
            let side = &mut self.sides[number];
            let news = side.sessions.iter_mut().filter_map(|(local, watched)| {
                let seen = std::mem::replace(&mut watched.seen, watched.opening.count());
                (seen != watched.seen).then_some(((*local, watched.peer), seen.1 != watched.seen.1))
            });
            for (session, data) in news.collect::<Vec<_>>() {
                side.received(session, None, data, moment, &mut self.random);
            }
            for (public, peer) in &mut side.peers {
                let sent = peer.traffic.sent();
                if std::mem::replace(&mut peer.sent, sent) != sent {
                    side.interface.sent(*public, true, moment, &mut self.random);
                }
            }
            if side.interface.next().is_some_and(|next| next <= now) {
                side.interface.poll(moment, &mut self.random);
            }
            self.sides[number].fade(now);
            self.heed(number, now);
            self.sides[number].faded(now);
        }
    }

    /// The sessions, if they are others than those that were taken last.
    pub fn take_keyring(&mut self) -> Option<Arc<Keyring>> {
        std::mem::take(&mut self.changed).then(|| Arc::new(self.keyring.clone()))
    }

    /// Peers came or went, or were heard elsewhere, since this was asked last.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// What is to be sent, in order.
    pub fn take_out(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.out)
    }

    /// The peers of an interface, for people.
    pub fn status(&self, kind: TunnelKind) -> Vec<PeerStatus> {
        let since_1970 = |at: Nanos| self.epoch + Duration::from_nanos(at.0);
        let side = self.sides.iter().filter(|side| side.kind == kind);
        side.flat_map(|side| {
            let peers = side.peers.values().map(|peer| PeerStatus {
                wanted: peer.wanted.clone(),
                endpoint: peer.endpoint,
                handshake: peer.handshake.map(since_1970),
                bytes: peer.traffic.bytes(),
                problem: String::new(),
            });
            let refused = side.refused.iter().map(|(wanted, why)| PeerStatus {
                wanted: wanted.clone(),
                endpoint: None,
                handshake: None,
                bytes: [0; 2],
                problem: why.clone(),
            });
            peers.chain(refused)
        })
        .collect()
    }

    fn moment(&self, now: Nanos) -> Moment {
        Moment { now, unix: self.epoch + Duration::from_nanos(now.0) }
    }

    /// Does what an interface wants done, until it wants nothing more.
    fn heed(&mut self, number: usize, now: Nanos) {
        let moment = self.moment(now);
        loop {
            let side = &mut self.sides[number];
            let events: Vec<_> = side
                .interfaces()
                .enumerate()
                .flat_map(|(age, interface)| {
                    interface.events().map(move |event| (age > 0, event)).collect::<Vec<_>>()
                })
                .collect();
            if events.is_empty() {
                break;
            }
            let v6 = !side.kind.is_v4();
            for (old, event) in events {
                match event {
                    // Under an old key, nothing is begun.
                    wireguard::Event::Send { message, .. } if old && begins(&message) => {}
                    wireguard::Event::Send { to, message } => {
                        self.out.push(Outgoing { kind: side.kind, to: endpoint(to), message });
                    }
                    wireguard::Event::Receive(public, session) => {
                        let Some((_, peer)) = side.peer_of(public) else { continue };
                        let local = session.local();
                        let lanes = peer.wanted.lanes > 0;
                        let opening = self.keyring.open(v6, peer.id, session, lanes);
                        side.sessions.insert(local, Watched { opening, peer: public, seen: (0, 0) });
                        self.changed = true;
                    }
                    wireguard::Event::Transmit(public, session) => {
                        let old = old || side.fading.was(public);
                        let Some((key, _)) = side.peer_of(public) else { continue };
                        if old && side.interface.current(key, now).is_some() {
                            continue;
                        }
                        let Some(peer) = side.peers.get_mut(&key) else { continue };
                        peer.handshake = Some(session.begun());
                        self.keyring.peer_mut(peer.id).sealing = Some(session);
                        self.changed = true;
                    }
                    wireguard::Event::Keepalive(public, session) => {
                        let Some((key, peer)) = side.peer_of(public) else { continue };
                        let traffic = peer.traffic.clone();
                        let to = side.interface.endpoint(key);
                        if let (Some(to), Some(message)) = (to, empty(&mut self.cipher, &session)) {
                            traffic.exchanged(0, message.len() as u64);
                            self.out.push(Outgoing { kind: side.kind, to: endpoint(to), message });
                        }
                        side.interface.sent(key, false, moment, &mut self.random);
                    }
                    wireguard::Event::End(public, session) => {
                        side.sessions.remove(&session.local());
                        self.keyring.close(v6, session.local());
                        if let Some((_, peer)) = side.peer_of(public) {
                            let known = self.keyring.peer_mut(peer.id);
                            known.sealing.take_if(|sealing| Arc::ptr_eq(sealing, &session));
                            if known.sealing.is_none() {
                                peer.handshake = None;
                            }
                        }
                        self.changed = true;
                    }
                    wireguard::Event::Unreachable(public) => {
                        if let Some(peer) = side.peers.get(&public) {
                            tracing::debug!(node = &*peer.wanted.node, "a WireGuard peer does not answer");
                        }
                    }
                }
            }
        }
        let side = &mut self.sides[number];
        for (public, peer) in &mut side.peers {
            let heard = side.interface.endpoint(*public).map(endpoint);
            if heard != peer.endpoint {
                peer.endpoint = heard;
                self.keyring.peer_mut(peer.id).endpoint = heard;
                (self.changed, self.moved) = (true, true);
            }
        }
    }
}

/// An empty packet, which says that this node is there.
fn empty(cipher: &mut Batch, session: &Session) -> Option<Vec<u8>> {
    let counter = session.reserve(0, 1)?;
    let padded = padded_len(0, 0);
    let mut message = vec![0; sealed_len(padded)];
    cipher.seal(&mut [session.outgoing(counter, 0, padded, &mut message).ok()?]);
    Some(message)
}

/// The message begins a handshake.
fn begins(message: &[u8]) -> bool {
    matches!(Message::parse(message), Ok(Message::Initiation(_)))
}

fn socket((addr, port): Endpoint) -> SocketAddr {
    let ip = match addr.is_v4() {
        true => IpAddr::from(addr.v4_octets()),
        false => IpAddr::from(addr.octets()),
    };
    SocketAddr::new(ip, port)
}

fn endpoint(socket: SocketAddr) -> Endpoint {
    let addr = match socket.ip() {
        IpAddr::V4(ip) => Addr::v4(ip.octets()),
        IpAddr::V6(ip) => Addr::v6(ip.octets()),
    };
    (addr, socket.port())
}
