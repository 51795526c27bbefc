//! Keys that follow one another, this node's and its peers', without a packet lost: for as long as a session may live,
//! what was agreed upon under the old key goes on beside what is under the new one.

use super::{Peer, Side, Wireguard};
use crate::net::{Nanos, PeerId};
use crate::wireguard::{
    Interface, KeyPair, Moment, PeerSettings, PublicKey, REJECT_AFTER_TIME, Random, Refused, Secret,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// What is on its way out.
#[derive(Default)]
pub(super) struct Fading {
    /// This node as it was, under its old keys; the oldest first. It answers, and begins nothing.
    interfaces: Vec<(Interface, Nanos)>,
    /// Peers' old keys, and whose they were.
    peers: Vec<(PublicKey, PeerId, Nanos)>,
}

impl Fading {
    /// Whether a peer's key is its old one.
    pub(super) fn was(&self, public: PublicKey) -> bool {
        self.peers.iter().any(|(old, _, _)| *old == public)
    }
}

impl Wireguard {
    /// Old keys of this node's that are good for something still: each is tried with every handshake that comes.
    pub fn old_keys(&self) -> usize {
        self.sides.iter().map(|side| side.fading.interfaces.len()).max().unwrap_or(0)
    }

    /// Takes another private key. Sessions go on until peers, told of the new public key, begin others under it.
    pub fn rotate(&mut self, private: &Secret, now: Nanos) {
        for side in &mut self.sides {
            let mut interface = Interface::new(KeyPair::new(private));
            for (public, peer) in &side.peers {
                let settings = PeerSettings {
                    public: *public,
                    preshared: Secret::default(),
                    endpoint: side.interface.endpoint(*public),
                    keepalive: peer.wanted.keepalive,
                };
                // It was taken before; and it is not ours, which nobody has had yet.
                let _ = interface.set_peer(&settings, now);
            }
            let old = std::mem::replace(&mut side.interface, interface);
            side.fading.interfaces.push((old, now.plus(REJECT_AFTER_TIME)));
        }
        self.public = KeyPair::new(private).public();
    }
}

impl Side {
    /// A node has another key, and none of those that `stay`: its old one is good for what was agreed upon under it. Returns
    /// the peer as it was.
    pub(super) fn succeed(
        &mut self,
        (node, key): (&Arc<str>, PublicKey),
        stay: &BTreeSet<PublicKey>,
        now: Nanos,
    ) -> Option<Peer> {
        let mut known = self.peers.iter().filter(|(public, _)| !stay.contains(public));
        let public = *known.find(|(_, peer)| peer.wanted.node == *node)?.0;
        let peer = self.peers.remove(&public)?;
        // It may be one that it had before.
        self.fading.peers.retain(|(old, _, _)| *old != key);
        self.fading.peers.push((public, peer.id, now.plus(REJECT_AFTER_TIME)));
        Some(peer)
    }

    /// The peer that has this key, or had it, by the key that it has.
    pub(super) fn peer_of(&mut self, public: PublicKey) -> Option<(PublicKey, &mut Peer)> {
        let faded = || self.fading.peers.iter().find(|(old, _, _)| *old == public).map(|(_, id, _)| *id);
        let current = match self.peers.contains_key(&public) {
            true => public,
            false => *self.keys.get(&faded()?)?,
        };
        self.peers.get_mut(&current).map(|peer| (current, peer))
    }

    /// Forgets a peer, under whichever keys.
    pub(super) fn forget(&mut self, public: PublicKey, id: PeerId) {
        let mut keys = vec![public];
        self.fading.peers.retain(|(old, of, _)| {
            keys.extend(Some(*old).filter(|_| *of == id));
            *of != id
        });
        for interface in self.interfaces() {
            keys.iter().for_each(|key| interface.remove_peer(*key));
        }
    }

    /// A message of a handshake: for whichever of our keys it is.
    pub(super) fn receive(
        &mut self,
        message: &[u8],
        from: SocketAddr,
        moment: Moment,
        random: &mut impl Random,
    ) -> Result<(), Refused> {
        let mut outcome = self.interface.receive(message, from, moment, random);
        for (interface, _) in &mut self.fading.interfaces {
            if !matches!(outcome, Err(Refused::NotForUs | Refused::Unexpected)) {
                break;
            }
            outcome = interface.receive(message, from, moment, random);
        }
        outcome
    }

    /// Packets of a peer's session came, under whichever of our keys: from there, or from where the peer is known to be.
    pub(super) fn received(
        &mut self,
        (local, public): (u32, PublicKey),
        from: Option<SocketAddr>,
        data: bool,
        moment: Moment,
        random: &mut impl Random,
    ) {
        for interface in self.interfaces() {
            if let Some(from) = from.or_else(|| interface.endpoint(public)) {
                interface.received(local, from, data, moment, random);
            }
        }
    }

    /// Ends the sessions of what has had its time. It is forgotten by [`Self::faded`], once that was heeded.
    pub(super) fn fade(&mut self, now: Nanos) {
        let over =
            self.fading.peers.iter().filter(|(_, _, until)| *until <= now).map(|(public, _, _)| *public);
        for public in over.collect::<Vec<_>>() {
            self.interfaces().for_each(|interface| interface.remove_peer(public));
        }
        for (interface, _) in self.fading.interfaces.iter_mut().filter(|(_, until)| *until <= now) {
            let old = self.fading.peers.iter().map(|(public, _, _)| public);
            old.chain(self.peers.keys()).for_each(|public| interface.remove_peer(*public));
        }
    }

    /// Under all of our keys, the new one first.
    pub(super) fn interfaces(&mut self) -> impl Iterator<Item = &mut Interface> {
        let old = self.fading.interfaces.iter_mut().map(|(interface, _)| interface);
        std::iter::once(&mut self.interface).chain(old)
    }

    /// Forgets what has had its time.
    pub(super) fn faded(&mut self, now: Nanos) {
        self.fading.interfaces.retain(|(_, until)| *until > now);
        self.fading.peers.retain(|(_, _, until)| *until > now);
    }
}
