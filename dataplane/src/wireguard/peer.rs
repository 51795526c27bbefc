//! One peer: its keys, its endpoint, its sessions.

use super::cookie::Signer;
use super::crypto::{PublicKey, Secret};
use super::noise::{Initiated, PeerKeys, Timestamp};
use super::session::Session;
use super::timers::Timers;
use crate::net::Nanos;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What is configured of a peer.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// Its public key.
    pub public: PublicKey,
    /// A key that both have besides; zero for none.
    pub preshared: Secret,
    /// Where it is, as far as known. It may turn up elsewhere.
    pub endpoint: Option<SocketAddr>,
    /// How often it is to hear from us, for whatever is between us to remember.
    pub keepalive: Option<Nanos>,
}

/// A peer.
pub(super) struct Peer {
    pub keys: PeerKeys,
    pub signer: Signer,
    pub endpoint: Option<SocketAddr>,
    pub timers: Timers,
    /// Our handshake under way, and what we call its session.
    pub initiated: Option<(u32, Initiated)>,
    pub sessions: Sessions,
    /// Of the newest initiation that it sent, and when that came.
    pub newest: Timestamp,
    pub consumed: Option<Nanos>,
    /// Of the newest that we sent.
    stamped: Timestamp,
}

impl Peer {
    pub fn new(keys: PeerKeys, settings: &PeerSettings, now: Nanos) -> Self {
        Self {
            signer: Signer::new(&keys.public),
            keys,
            endpoint: settings.endpoint,
            timers: Timers::new(settings.keepalive, now),
            initiated: None,
            sessions: Sessions::default(),
            newest: Timestamp::default(),
            consumed: None,
            stamped: Timestamp::default(),
        }
    }

    /// A time for the next initiation: above all others, even if the clock was set back.
    pub fn stamp(&mut self, unix: Duration) -> Timestamp {
        self.stamped = tai64n(unix).max(after(self.stamped));
        self.stamped
    }
}

/// Of a time since 1970, as coarse as initiations may follow one another: it must not tell more of our clock.
fn tai64n(unix: Duration) -> Timestamp {
    /// 2^62, and the ten seconds by which TAI was ahead in 1970.
    const EPOCH: u64 = (1 << 62) + 10;
    /// Below 20 ms.
    const COARSE: u32 = 1 << 24;
    let mut stamp = Timestamp::default();
    stamp[..8].copy_from_slice(&(EPOCH + unix.as_secs()).to_be_bytes());
    stamp[8..].copy_from_slice(&(unix.subsec_nanos() & !(COARSE - 1)).to_be_bytes());
    stamp
}

/// The next that is later.
fn after(mut stamp: Timestamp) -> Timestamp {
    for byte in stamp.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    stamp
}

/// Up to three at a time: so that packets under way are not lost when sessions follow one another.
#[derive(Default)]
pub(super) struct Sessions {
    previous: Option<Arc<Session>>,
    current: Option<Arc<Session>>,
    /// We answered, and it is ours to send with only when the peer has: it may not have got the answer.
    next: Option<Arc<Session>>,
}

impl Sessions {
    /// That with which we send, if it may carry packets still.
    pub fn current(&self, now: Nanos) -> Option<&Arc<Session>> {
        self.current.as_ref().filter(|session| session.is_good(now))
    }

    /// By our name for it.
    pub fn get(&self, local: u32) -> Option<&Arc<Session>> {
        [&self.current, &self.previous, &self.next]
            .into_iter()
            .flatten()
            .find(|session| session.local() == local)
    }

    /// Takes one that we began: it is for sending at once. Returns those that end.
    pub fn begin(&mut self, session: Arc<Session>) -> Vec<Arc<Session>> {
        let newer = self.next.take();
        let current = self.current.replace(session);
        let (previous, ended) = if newer.is_some() { (newer, current) } else { (current, None) };
        let oldest = std::mem::replace(&mut self.previous, previous);
        oldest.into_iter().chain(ended).collect()
    }

    /// Takes one that the peer began. Returns those that end.
    pub fn answer(&mut self, session: Arc<Session>) -> Vec<Arc<Session>> {
        let unused = self.next.replace(session);
        self.previous.take().into_iter().chain(unused).collect()
    }

    /// The peer has used this one: if it was the next, it is for sending now. Returns what ends, or nothing where it was not.
    pub fn confirm(&mut self, local: u32) -> Option<Option<Arc<Session>>> {
        let next = self.next.take_if(|session| session.local() == local)?;
        let current = self.current.replace(next);
        Some(std::mem::replace(&mut self.previous, current))
    }

    /// All of them.
    pub fn clear(&mut self) -> Vec<Arc<Session>> {
        [self.previous.take(), self.current.take(), self.next.take()].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_grow_even_when_the_clock_does_not() {
        let keys = super::super::crypto::KeyPair::new(&[1; 32]);
        let other = super::super::crypto::KeyPair::new(&[2; 32]).public();
        let settings =
            PeerSettings { public: other, preshared: Secret::default(), endpoint: None, keepalive: None };
        let keys = PeerKeys::new(&keys, other, Secret::default()).unwrap();
        let mut peer = Peer::new(keys, &settings, Nanos(0));
        let mut last = Timestamp::default();
        for seconds in [1_700_000_000, 1_700_000_000, 1_600_000_000, 1_700_000_001] {
            let stamp = peer.stamp(Duration::new(seconds, 999_999_999));
            assert!(stamp > last, "{stamp:?} after {last:?}");
            last = stamp;
        }
        assert_eq!(tai64n(Duration::from_secs(1_700_000_000))[..8], 0x4000_0000_6553_f10a_u64.to_be_bytes());
        assert_eq!(after([0xff; 12]), [0; 12]);
        assert_eq!(after([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff])[10..], [2, 0]);
    }
}
