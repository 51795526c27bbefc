//! Several ways for one route: each flow keeps to one of them.
//!
//! A flow's hash chooses one of a fixed number of buckets, and each bucket its way by weighted rendezvous hashing: the
//! way with the largest `-weight / ln(u)`, where `u` is a number between 0 and 1 that follows from bucket and way alone
//! (Schindelhauer, Schomaker: Weighted distributed hash tables, 2005). So a way that goes takes its own flows with it
//! and no others, a way that comes takes its share only, and nothing depends on what was there before, nor on the order.

use super::Way;
use crate::net::{Addr, IfId};

/// With so many, two ways of one weight have 50 ± 1.6 % of the flows each.
const BUCKETS: usize = 1024;

/// A way out before its address is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exit {
    /// By this interface.
    pub tx_if: IfId,
    /// To this neighbour; `None`: to the destination.
    pub next_hop: Option<Addr>,
}

/// The ways of a route, and which bucket takes which.
#[derive(Debug, PartialEq, Eq)]
pub struct Multipath {
    ways: Box<[Way]>,
    buckets: Box<[u16; BUCKETS]>,
}

impl Multipath {
    /// Of exits with their weights, each once, and the ways that they are. There is one at least.
    pub fn new(exits: &[(Exit, u64)], ways: Box<[Way]>) -> Self {
        let keys: Vec<u64> = exits.iter().map(|(exit, _)| key(exit)).collect();
        let mut buckets = Box::new([0; BUCKETS]);
        let alike = exits.iter().all(|(_, weight)| *weight == exits[0].1);
        for (bucket, chosen) in buckets.iter_mut().enumerate() {
            let draw = |key: &u64| mix(key ^ mix(bucket as u64 + 1));
            let best = if alike {
                (0..keys.len()).max_by_key(|at| (draw(&keys[*at]), *at))
            } else {
                let score = |at: usize| {
                    // Halves off the ends: neither 0 nor 1.
                    let unit = ((draw(&keys[at]) >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
                    -(exits[at].1 as f64) / unit.ln()
                };
                (0..keys.len()).max_by(|a, b| score(*a).total_cmp(&score(*b)))
            };
            *chosen = best.unwrap_or(0) as u16;
        }
        Self { ways, buckets }
    }

    /// The way of the flows with this hash.
    #[inline]
    pub fn way(&self, hash: u64) -> Way {
        // Mixed, for workers and the flow table choose by bits of it, too.
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let bucket = (mixed as usize * BUCKETS) >> 32;
        self.ways[usize::from(self.buckets[bucket])]
    }

    /// All of them.
    pub fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// Buckets that each way has, of all.
    pub fn shares(&self) -> (Vec<usize>, usize) {
        let mut shares = vec![0; self.ways.len()];
        self.buckets.iter().for_each(|way| shares[usize::from(*way)] += 1);
        (shares, BUCKETS)
    }
}

fn key(exit: &Exit) -> u64 {
    let bits = exit.next_hop.unwrap_or_default().bits();
    mix((bits >> 64) as u64 ^ mix(bits as u64 ^ mix(u64::from(exit.tx_if.0) + 1)))
}

/// SplitMix64's finalizer (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn group(exits: &[(Exit, u64)]) -> Multipath {
        let ways = (0..exits.len() as u32).map(Way::Adjacency).collect();
        Multipath::new(exits, ways)
    }

    fn exit(n: u32) -> Exit {
        Exit {
            tx_if: IfId((n % 3) as u16),
            next_hop: Some(Addr::from_bits(0xffff_0a00_0000 + u128::from(n))),
        }
    }

    /// Which exit the flows of a hash take.
    fn taken(exits: &[(Exit, u64)], group: &Multipath, hash: u64) -> Exit {
        let Way::Adjacency(at) = group.way(hash) else { panic!("no connected way was given") };
        exits[at as usize].0
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_way_that_goes_moves_its_own_flows_only(
            numbers in prop::collection::btree_map(0..10_000u32, prop_oneof![Just(1u64), 1..64u64], 2..24),
            gone in any::<prop::sample::Index>(),
            hashes in prop::collection::vec(any::<u64>(), 500),
            turned in any::<bool>(),
        ) {
            let all: Vec<(Exit, u64)> = numbers.into_iter().map(|(n, weight)| (exit(n), weight)).collect();
            let gone = all[gone.index(all.len())].0;
            let mut rest: Vec<_> = all.iter().copied().filter(|(exit, _)| *exit != gone).collect();
            if turned {
                rest.reverse();
            }
            let (before, after) = (group(&all), group(&rest));
            for hash in hashes {
                let (was, is) = (taken(&all, &before, hash), taken(&rest, &after, hash));
                prop_assert!(was == gone || was == is, "{:?} became {:?}", was, is);
            }
        }

        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1..8u64, 2..6), first in 0..1_000_000u32) {
            let exits: Vec<_> = weights.iter().zip(first..).map(|(weight, n)| (exit(n), *weight)).collect();
            let (shares, all) = group(&exits).shares();
            let sum: u64 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                let p = *weight as f64 / sum as f64;
                let deviation = (all as f64 * p * (1.0 - p)).sqrt();
                let off = (*share as f64 - all as f64 * p).abs() / deviation;
                prop_assert!(off < 5.0, "{share} of {all} for {weight} of {sum}");
            }
        }
    }
}
