//! How flows are named and hashed.

use crate::net::{FlowKey, Key4, Key6};

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
///
/// Both ends of a key are taken in an order of their own, each a factor of a full product with a
/// secret added (NH of UMAC: Black et al., CRYPTO 1999), folded and multiplied by a secret once more.
/// So the two directions of a flow differ in one secret-free constant: the hash of the one is the
/// other's, and what is the same for both says which worker owns the flow.
#[derive(Clone, Debug)]
pub struct FlowHasher([u64; 4]);

/// What sets the hash of a key apart from that of its reverse: other buckets, the same owner.
const TURNED: u64 = 0x9e37_79b9 << 32;

impl FlowHasher {
    /// From 256 random bits, drawn by the caller.
    pub fn new(seeds: [u64; 4]) -> Self {
        // Spread out, so that seeds of few bits are no weaker in tests.
        let mut salt = 0u64;
        Self(seeds.map(|seed| {
            salt = salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
            fold(seed ^ 0x243f_6a88_85a3_08d3, salt) | 1
        }))
    }

    /// Differs for a key and its reverse, unless they are the same.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        match Key4::of(key) {
            Some(key) => self.hash4(key),
            None => self.hash6(&Key6::of(key)),
        }
    }

    /// The same for a key of two words.
    #[inline(always)]
    pub fn hash4(&self, key: Key4) -> u64 {
        let [a, b, c, d] = self.0;
        let [src, dst] = key.ends();
        let (low, high) = (src.min(dst), src.max(dst) | u64::from(key.proto.0) << 48);
        let hash = fold(fold(low.wrapping_add(a), high.wrapping_add(b)) ^ c, d);
        hash ^ if src > dst { TURNED } else { 0 }
    }

    /// The same for a key of IPv6, in words.
    #[inline]
    pub fn hash6(&self, key: &Key6) -> u64 {
        let [a, b, c, d] = self.0;
        let [src, dst] = key.ends();
        let turned = src > dst;
        let [low, high] = if turned { [dst, src] } else { [src, dst] };
        let ports = u64::from(key.proto.0) << 32 | u64::from(low.2) << 16 | u64::from(high.2);
        let half = |(upper, lower, _): (u64, u64, u16), x: u64, y: u64| {
            fold(upper.wrapping_add(x), lower.wrapping_add(y))
        };
        let ends = fold(half(low, a, b) ^ c, half(high, c, d) ^ a);
        let hash = fold(fold(ends.wrapping_add(a), ports.wrapping_add(b)) ^ c, d);
        hash ^ if turned { TURNED } else { 0 }
    }

    /// Of `workers`, the number of the one that owns the flow with this hash: the same for both
    /// directions.
    #[inline]
    pub const fn owner(hash: u64, workers: usize) -> usize {
        // Bits that neither the direction nor, in the index, the bucket depends on.
        ((hash >> 16 & 0xffff) as usize * workers) >> 16
    }
}

/// Both halves of the product.
#[inline(always)]
fn fold(x: u64, y: u64) -> u64 {
    let product = u128::from(x) * u128::from(y);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Addr, Proto};

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

    #[test]
    fn a_flow_has_one_owner_and_owners_have_equal_shares() {
        let hasher = FlowHasher::new([5, 6, 7, 8]);
        for base in ["10.0.0.0", "2001:db8::"] {
            let base = base.parse::<Addr>().unwrap().bits();
            for workers in [1, 2, 3, 4, 64] {
                let mut owned = vec![0; workers];
                for n in 0..20_000u32 {
                    let src = Addr::from_bits(base + u128::from(n >> 5));
                    let dst = Addr::from_bits(base + u128::from(n & 3));
                    let key = FlowKey { src, dst, sport: 1000 + n as u16, dport: 80, proto: Proto::TCP };
                    let owner = FlowHasher::owner(hasher.hash(&key), workers);
                    assert_eq!(owner, FlowHasher::owner(hasher.hash(&key.reversed()), workers), "{key}");
                    owned[owner] += 1;
                }
                let mean = 20_000 / workers;
                assert!(owned.iter().all(|n| (mean * 3 / 4..=mean * 4 / 3 + 1).contains(n)), "{owned:?}");
            }
        }
    }

    /// Neighbouring addresses and ports, as clusters have them: the structure must not show.
    #[test]
    fn structured_keys_spread_like_random_ones() {
        for seed in 0..20 {
            let hasher = FlowHasher::new([seed, 2, 3, 4]);
            let (mut buckets, mut tags) = (vec![0u32; 4096], vec![0u32; 4096]);
            for n in 0..1 << 16 {
                let src = Addr::v4((0x0a00_0000u32 | n >> 8).to_be_bytes());
                let dst = Addr::v4([10, 96, 0, 1]);
                let key =
                    FlowKey { src, dst, sport: 1024 + (n & 0xff) as u16, dport: 443, proto: Proto::TCP };
                let hash = hasher.hash(&key);
                buckets[(hash >> 52) as usize] += 1;
                tags[(hash & 0xfff) as usize] += 1;
            }
            for counts in [buckets, tags] {
                // Sixteen each on average: chi-squared of 4,095 degrees is 4,095, give or take 90.
                let chi: f64 = counts.iter().map(|n| (f64::from(*n) - 16.0).powi(2) / 16.0).sum();
                assert!((3_600.0..4_700.0).contains(&chi), "{chi}, seed {seed}");
            }
        }
    }
}
