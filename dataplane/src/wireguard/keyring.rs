//! What workers seal and open packets with: the sessions of all peers, replaced whole by control when one comes or goes.

use super::replay::Replay;
use super::session::Session;
use crate::net::{Addr, PeerId, WorkerId};
use ahash::RandomState;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Address and port.
pub type Endpoint = (Addr, u16);

/// The sessions of all peers. A clone shares them.
#[derive(Clone, Debug)]
pub struct Keyring {
    peers: HashMap<PeerId, Known, RandomState>,
    /// By the interface that they came in by, over IPv4 and over IPv6, and the number that we gave them.
    openings: [HashMap<u32, Arc<Opening>, RandomState>; 2],
}

/// A peer, as workers know it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Where it was heard last, or is said to be.
    pub endpoint: Option<Endpoint>,
    /// The session under which packets for it go out.
    pub sealing: Option<Arc<Session>>,
    /// What was exchanged with it.
    pub traffic: Arc<Traffic>,
}

/// A session under which packets may come.
#[derive(Debug)]
pub struct Opening {
    /// Its keys.
    pub session: Arc<Session>,
    /// Whose.
    pub peer: PeerId,
    /// Of the worker that owns it.
    pub replay: Replay,
    owner: AtomicU8,
    packets: AtomicU64,
    data: AtomicU64,
}

/// What was exchanged with a peer. Any worker may add to it, once a vector.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Default for Keyring {
    fn default() -> Self {
        // Fixed: the numbers in the tables are ours.
        let hasher = RandomState::with_seed(0);
        Self {
            peers: HashMap::with_hasher(hasher.clone()),
            openings: [HashMap::with_hasher(hasher.clone()), HashMap::with_hasher(hasher)],
        }
    }
}

impl Keyring {
    /// A peer.
    #[inline]
    pub fn peer(&self, id: PeerId) -> Option<&Known> {
        self.peers.get(&id)
    }

    /// A peer, to change; made where it is new.
    pub fn peer_mut(&mut self, id: PeerId) -> &mut Known {
        self.peers.entry(id).or_default()
    }

    /// Forgets a peer. Its sessions end by themselves.
    pub fn remove_peer(&mut self, id: PeerId) {
        self.peers.remove(&id);
    }

    /// The session that a packet names.
    #[inline]
    pub fn opening(&self, v6: bool, local: u32) -> Option<&Arc<Opening>> {
        self.openings[usize::from(v6)].get(&local)
    }

    /// Every session under which packets may come.
    pub fn openings(&self, v6: bool) -> impl Iterator<Item = &Arc<Opening>> {
        self.openings[usize::from(v6)].values()
    }

    /// Packets of this session may come.
    pub fn open(&mut self, v6: bool, peer: PeerId, session: Arc<Session>) -> Arc<Opening> {
        let local = session.local();
        let opening = Arc::new(Opening {
            session,
            peer,
            replay: Replay::default(),
            owner: AtomicU8::new(NOBODY),
            packets: AtomicU64::new(0),
            data: AtomicU64::new(0),
        });
        self.openings[usize::from(v6)].insert(local, opening.clone());
        opening
    }

    /// No more come.
    pub fn close(&mut self, v6: bool, local: u32) {
        self.openings[usize::from(v6)].remove(&local);
    }
}

/// The session's packets were none's so far.
const NOBODY: u8 = u8::MAX;

impl Opening {
    /// The worker whose the session's packets are: the first that asks, as that is the one which gets them from the network.
    #[inline]
    pub fn owner(&self, me: WorkerId) -> WorkerId {
        match self.owner.load(Relaxed) {
            NOBODY => {
                let claimed = self.owner.compare_exchange(NOBODY, me.0, Relaxed, Relaxed);
                WorkerId(claimed.err().unwrap_or(me.0))
            }
            owner => WorkerId(owner),
        }
    }

    /// The owner opened packets, `data` of them not empty.
    #[inline]
    pub fn received(&self, packets: u64, data: u64) {
        self.packets.store(self.packets.load(Relaxed) + packets, Relaxed);
        self.data.store(self.data.load(Relaxed) + data, Relaxed);
    }

    /// Genuine packets that came, and how many of them were not empty.
    pub fn count(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.data.load(Relaxed))
    }
}

impl Traffic {
    /// Packets were sealed that are not empty, of so many bytes as messages.
    #[inline]
    pub fn sealed(&self, packets: u64, bytes: u64) {
        self.sent.fetch_add(packets, Relaxed);
        self.sent_bytes.fetch_add(bytes, Relaxed);
    }

    /// Messages came or went, of handshakes or empty, or packets were opened.
    #[inline]
    pub fn exchanged(&self, received_bytes: u64, sent_bytes: u64) {
        self.received_bytes.fetch_add(received_bytes, Relaxed);
        self.sent_bytes.fetch_add(sent_bytes, Relaxed);
    }

    /// Packets that went out and were not empty.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Bytes received and sent, as messages.
    pub fn bytes(&self) -> [u64; 2] {
        [&self.received_bytes, &self.sent_bytes].map(|bytes| bytes.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Nanos;
    use crate::wireguard::noise::TransportKeys;
    use crate::wireguard::{Secret, session};

    #[test]
    fn the_first_worker_keeps_a_session() {
        let keys = TransportKeys { send: Secret::default(), receive: Secret::default() };
        let session = Arc::new(session::Session::new(7, 8, true, &keys, Nanos(0)));
        let mut keyring = Keyring::default();
        let opening = keyring.open(false, PeerId(1), session);
        assert!(keyring.opening(true, 7).is_none(), "of the other interface");
        assert_eq!([3, 5, 3].map(|worker| opening.owner(WorkerId(worker))), [WorkerId(3); 3]);
        opening.received(2, 1);
        opening.received(1, 1);
        assert_eq!(opening.count(), (3, 2));
        keyring.close(false, 7);
        assert!(keyring.opening(false, 7).is_none());
    }
}
