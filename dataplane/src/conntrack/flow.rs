//! How flows are named and hashed.

use crate::net::FlowKey;
use std::hash::{BuildHasher, Hasher};

/// Which way a packet goes, seen from its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// As the packet that opened the session.
    Original = 0,
    /// Against it.
    Reply = 1,
}

impl Direction {
    /// Both, in the order of a session's bindings.
    pub const BOTH: [Self; 2] = [Self::Original, Self::Reply];

    /// The other one.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// One direction of one session of a worker's table: `session << 1 | direction`.
///
/// Good until its session is removed. A session that carried a packet at `now` is neither
/// evicted nor expired at that same `now`, so a reference taken for a packet lasts as long as
/// the vector the packet is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowRef(pub u32);

impl FlowRef {
    /// Direction `direction` of session number `session`, which is below 2^31.
    #[inline]
    pub const fn new(session: u32, direction: Direction) -> Self {
        Self(session << 1 | direction as u32)
    }

    /// The session's number.
    #[inline]
    pub const fn session(self) -> u32 {
        self.0 >> 1
    }

    /// The direction within it.
    #[inline]
    pub const fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::Original } else { Direction::Reply }
    }

    /// The same session, the other way.
    #[inline]
    pub const fn opposite(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// A keyed hash of flow keys. Whoever does not know the seeds cannot aim at a bucket.
#[derive(Clone, Debug)]
pub struct FlowHasher(ahash::RandomState);

impl FlowHasher {
    /// From 256 random bits, drawn by the caller.
    pub fn new(seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = seeds;
        Self(ahash::RandomState::with_seeds(a, b, c, d))
    }

    /// Differs for a key and its reverse.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        // Packed: a field of its own for each number would cost a multiplication each.
        let mut hasher = self.0.build_hasher();
        if key.src.is_v4() && key.dst.is_v4() {
            hasher.write_u64(u64::from(key.src.v4_bits()) << 32 | u64::from(key.dst.v4_bits()));
        } else {
            hasher.write_u128(key.src.bits());
            hasher.write_u128(key.dst.bits());
        }
        let FlowKey { sport, dport, proto, .. } = *key;
        hasher.write_u64(u64::from(sport) << 32 | u64::from(dport) << 16 | u64::from(proto.0));
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Proto;

    #[test]
    fn every_number_of_the_key_is_hashed() {
        let hasher = FlowHasher::new([1, 2, 3, 4]);
        for [one, two] in [["10.0.0.1", "10.0.0.2"], ["2001:db8::1", "2001:db8:1::1"], ["10.0.0.1", "::1"]] {
            let [src, dst] = [one, two].map(|text| text.parse().unwrap());
            let key = FlowKey { src, dst, sport: 1, dport: 2, proto: Proto::TCP };
            let others = [
                key.reversed(),
                FlowKey { src: dst, ..key },
                FlowKey { dst: src, ..key },
                FlowKey { sport: 3, ..key },
                FlowKey { dport: 3, ..key },
                FlowKey { proto: Proto::UDP, ..key },
            ];
            for other in others {
                assert_ne!(hasher.hash(&key), hasher.hash(&other), "{key} {other}");
            }
        }
    }
}
