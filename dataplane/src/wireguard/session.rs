//! Two keys that a handshake agreed upon, and the packets under them (WireGuard's paper, §5.4.6).
//!
//! Sessions are shared: control makes and retires them, workers seal and open with them. Whoever drops the last
//! reference wipes the keys.

use super::aead::{Key, Packet, PacketError, TAG};
use super::noise::TransportKeys;
use crate::net::Nanos;
use crate::wire::wireguard::{TRANSPORT_HEADER, Transport};
use std::sync::atomic::{AtomicU64, Ordering};

/// Lanes that a session's packets may take to a peer that knows of them: their counters begin at the lane's number in the
/// highest eight bits, so that each lane has a replay window, and an owner, of its own. Whoever takes only lane 0 is like
/// anybody else.
pub const LANES: usize = 16;
/// Counters that a lane has.
const LANE: u64 = 1 << 56;
/// Counters of a lane after which a new session is begun: half of them, well before the paper wants one (§6.1).
pub const REKEY_AFTER_MESSAGES: u64 = LANE / 2;
/// Counters of others after which a session carries nothing more (§6.1). Ours ends with any of its lanes, long before.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Age at which it carries nothing more (§6.1).
pub const REJECT_AFTER_TIME: Nanos = Nanos::from_secs(180);

/// A session.
#[derive(Debug)]
pub struct Session {
    local: u32,
    remote: u32,
    initiator: bool,
    begun: Nanos,
    sending: Key,
    receiving: Key,
    /// Of each lane, counters given out.
    next: [AtomicU64; LANES],
}

impl Session {
    /// What we call it, what the peer calls it, and whether we began it.
    pub(super) fn new(local: u32, remote: u32, initiator: bool, keys: &TransportKeys, now: Nanos) -> Self {
        Self {
            local,
            remote,
            initiator,
            begun: now,
            sending: Key::new(&keys.send),
            receiving: Key::new(&keys.receive),
            next: [const { AtomicU64::new(0) }; LANES],
        }
    }

    /// What packets that we receive call it.
    pub const fn local(&self) -> u32 {
        self.local
    }

    /// What packets that we send call it.
    pub const fn remote(&self) -> u32 {
        self.remote
    }

    /// Whether the handshake was ours.
    pub const fn initiator(&self) -> bool {
        self.initiator
    }

    /// When the handshake was.
    pub const fn begun(&self) -> Nanos {
        self.begun
    }

    /// Time since the handshake.
    pub const fn age(&self, now: Nanos) -> Nanos {
        now.since(self.begun)
    }

    /// Whether its time is not over yet.
    #[inline]
    pub const fn in_time(&self, now: Nanos) -> bool {
        self.age(now).0 < REJECT_AFTER_TIME.0
    }

    /// Whether it may carry packets still: there are counters left, too.
    pub fn is_good(&self, now: Nanos) -> bool {
        self.in_time(now) && self.sent() < LANE
    }

    /// Counters given out, of the lane of which the most were.
    pub fn sent(&self) -> u64 {
        self.next.iter().fold(0, |most, next| most.max(next.load(Ordering::Relaxed)))
    }

    /// The first of `count` counters of a lane that are the caller's alone: a vector takes all of its own at once. Nothing when
    /// there are not so many left.
    ///
    /// # Panics
    /// When there is no such lane.
    pub fn reserve(&self, lane: u8, count: u64) -> Option<u64> {
        let after = |next: u64| next.checked_add(count).filter(|next| *next <= LANE);
        let next = self.next[usize::from(lane)].fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        next.ok().map(|next| u64::from(lane) * LANE + next)
    }

    /// Dresses a packet for sealing. `bytes` is room for the header, the packet of `len` bytes where it is, and room behind
    /// it: what [`sealed_len`] says of its `padded` length. The counter is one that was reserved.
    pub fn outgoing<'a>(
        &'a self,
        counter: u64,
        len: usize,
        padded: usize,
        bytes: &'a mut [u8],
    ) -> Result<Packet<'a>, PacketError> {
        let whole = bytes.len();
        let (header, rest) = bytes.split_first_chunk_mut().ok_or(PacketError(whole))?;
        *header = Transport::header(self.remote, counter);
        let rest = rest.get_mut(..padded + TAG).ok_or(PacketError(whole))?;
        // Padding is encrypted, and must say nothing.
        rest.get_mut(len..).ok_or(PacketError(whole))?.fill(0);
        Packet::new(&self.sending, counter, rest)
    }

    /// A packet of this session to be opened: text and tag of a message of type four.
    pub fn incoming<'a>(&'a self, counter: u64, bytes: &'a mut [u8]) -> Result<Packet<'a>, PacketError> {
        Packet::new(&self.receiving, counter, bytes)
    }
}

/// The lane of a counter, and its place in that.
#[inline]
pub const fn lane(counter: u64) -> (usize, u64) {
    ((counter / LANE) as usize, counter % LANE)
}

/// Bytes of a packet once padded: to whole blocks of sixteen, so that lengths say less, but not above what a tunnel takes.
pub const fn padded_len(len: usize, mtu: usize) -> usize {
    let blocks = len.next_multiple_of(16);
    if blocks <= mtu || len > mtu { blocks } else { mtu }
}

/// Bytes of the message that carries a packet of `padded` bytes.
pub const fn sealed_len(padded: usize) -> usize {
    TRANSPORT_HEADER + padded + TAG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_counter_is_of_two_lanes() {
        let keys = TransportKeys { send: crate::wireguard::Secret::default(), receive: Default::default() };
        let session = Session::new(1, 2, true, &keys, Nanos(0));
        assert_eq!([0, 0, 3, 15].map(|of| session.reserve(of, 5).map(lane)), {
            [Some((0, 0)), Some((0, 5)), Some((3, 0)), Some((15, 0))]
        });
        assert_eq!(session.sent(), 10);
        assert!(session.is_good(Nanos(0)));
        assert_eq!(session.reserve(3, LANE - 5).map(lane), Some((3, 5)));
        assert_eq!(session.reserve(3, 1), None, "the next would be another lane's");
        assert!(!session.is_good(Nanos(0)), "it ends with any of them");
    }

    #[test]
    fn padding_ends_at_the_mtu() {
        let padded = [0, 1, 16, 17, 1408, 1409, 1420].map(|len| padded_len(len, 1420));
        assert_eq!(padded, [0, 16, 16, 32, 1408, 1420, 1420]);
        assert_eq!(padded_len(1430, 1440), 1440);
    }
}
