//! What workers seal and open packets with: the sessions of all peers, replaced whole by control when one comes or goes.

use super::replay::Replay;
use super::session::{LANES, Session, lane};
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
    /// One, or [`LANES`].
    lanes: Box<[Lane]>,
    packets: AtomicU64,
    data: AtomicU64,
}

/// A part of a session's packets that one worker opens.
#[derive(Debug)]
pub struct Lane {
    /// Of the worker that owns it.
    replay: Replay,
    owner: AtomicU8,
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

    /// Packets of this session may come; in lanes, of a peer that is said to use them.
    pub fn open(&mut self, v6: bool, peer: PeerId, session: Arc<Session>, lanes: bool) -> Arc<Opening> {
        let local = session.local();
        let lane = |_| Lane { replay: Replay::default(), owner: AtomicU8::new(NOBODY) };
        let opening = Arc::new(Opening {
            session,
            peer,
            lanes: (0..if lanes { LANES } else { 1 }).map(lane).collect(),
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

/// The lane's packets were none's so far.
const NOBODY: u8 = u8::MAX;

impl Opening {
    /// The lane that a counter is of, and its place in that. None where it is of none that there is.
    #[inline]
    pub fn lane(&self, counter: u64) -> Option<(&Lane, u64)> {
        match &*self.lanes {
            [only] => Some((only, counter)),
            lanes => {
                let (number, place) = lane(counter);
                Some((lanes.get(number)?, place))
            }
        }
    }

    /// Packets opened, `data` of them not empty.
    #[inline]
    pub fn received(&self, packets: u64, data: u64) {
        self.packets.fetch_add(packets, Relaxed);
        self.data.fetch_add(data, Relaxed);
    }

    /// Genuine packets that came, and how many of them were not empty.
    pub fn count(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.data.load(Relaxed))
    }
}

impl Lane {
    /// The worker whose the lane's packets are: the first that asks, as that is the one which gets them from the network.
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

    /// Takes a place in the lane, of a packet that is genuine: false where it was seen, or is too old to tell. For the owner
    /// alone.
    #[inline]
    pub fn accept(&self, place: u64) -> bool {
        self.replay.accept(place)
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
    fn the_first_worker_keeps_a_lane() {
        let keys = TransportKeys { send: Secret::default(), receive: Secret::default() };
        let session = Arc::new(session::Session::new(7, 8, true, &keys, Nanos(0)));
        let mut keyring = Keyring::default();
        let opening = keyring.open(false, PeerId(1), session.clone(), false);
        assert!(keyring.opening(true, 7).is_none(), "of the other interface");
        let (lane, place) = opening.lane(3 << 56 | 9).unwrap();
        assert_eq!(place, 3 << 56 | 9, "as it came");
        assert_eq!([3, 5, 3].map(|worker| lane.owner(WorkerId(worker))), [WorkerId(3); 3]);
        let lanes = keyring.open(true, PeerId(1), session, true);
        let owner = |counter, worker| lanes.lane(counter).map(|(lane, _)| lane.owner(WorkerId(worker)));
        assert_eq!(owner(3 << 56 | 9, 5), Some(WorkerId(5)));
        assert_eq!((owner(3 << 56, 7), owner(9, 7)), (Some(WorkerId(5)), Some(WorkerId(7))));
        assert_eq!(owner(16 << 56, 7), None);
        let accept = |counter| lanes.lane(counter).is_some_and(|(lane, place)| lane.accept(place));
        assert!(accept(1) && accept(15 << 56 | 1) && accept(1 << 56 | 1) && !accept(15 << 56 | 1));
        opening.received(2, 1);
        opening.received(1, 1);
        assert_eq!(opening.count(), (3, 2));
        keyring.close(false, 7);
        assert!(keyring.opening(false, 7).is_none());
    }
}
