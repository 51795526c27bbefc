//! Longest-prefix match: which route is the most specific one that holds an address.
//!
//! Built whole and never changed: a new set of routes is a new [`Lpm`], published with the
//! snapshot it belongs to. A lookup reads a direct table indexed by the first bits of the
//! address, then 64-entry chunks, six bits at a time; `trie.rs` has the layout. The table grows
//! with the number of routes: a node with a few routes pays some KiB, a full Internet table
//! about ten MB.

mod trie;

#[cfg(test)]
mod reference;

use crate::net::{Addr, Prefix};
use trie::{Route, Trie};

/// An immutable longest-prefix-match table for both families.
#[derive(Debug)]
pub struct Lpm {
    v4: Trie<u32>,
    v6: Trie<u128>,
}

/// Why a set of routes could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LpmError {
    /// The value shares its word with the tags of the trie.
    #[error("route {prefix}: value {value} does not fit; number the routes from 0 to {max}", max = Lpm::MAX_VALUE)]
    ValueTooLarge {
        /// The route's prefix.
        prefix: Prefix,
        /// As given.
        value: u32,
    },
}

impl Lpm {
    /// The largest value a route may carry.
    pub const MAX_VALUE: u32 = trie::MAX_VALUE;

    /// Builds the table. Of two routes with one prefix the later wins.
    pub fn build(routes: impl IntoIterator<Item = (Prefix, u32)>) -> Result<Self, LpmError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, value) in routes {
            if value > Self::MAX_VALUE {
                return Err(LpmError::ValueTooLarge { prefix, value });
            }
            let len = u32::from(prefix.len());
            if prefix.is_v4() {
                v4.push(Route { bits: prefix.addr().v4_bits(), len, value });
            } else {
                v6.push(Route { bits: prefix.addr().bits(), len, value });
            }
        }
        Ok(Self { v4: Trie::build(v4), v6: Trie::build(v6) })
    }

    /// The value of the most specific route that holds `addr`. Neither allocates nor fails.
    #[inline]
    pub fn lookup(&self, addr: Addr) -> Option<u32> {
        if addr.is_v4() { self.v4.lookup(addr.v4_bits()) } else { self.v6.lookup(addr.bits()) }
    }

    /// Memory that lookups read, in bytes.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

impl Default for Lpm {
    /// No route at all.
    fn default() -> Self {
        Self { v4: Trie::build(Vec::new()), v6: Trie::build(Vec::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::reference::Reference;
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use std::path::Path;
    use std::process::Command;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    fn a(s: &str) -> Addr {
        s.parse().unwrap()
    }

    fn both(routes: &[(Prefix, u32)]) -> (Lpm, Reference) {
        (Lpm::build(routes.iter().copied()).unwrap(), routes.iter().copied().collect())
    }

    /// Where answers change: each prefix's ends and their neighbours outside.
    fn edges(prefix: Prefix) -> impl Iterator<Item = Addr> {
        let (first, last) = (prefix.addr().bits(), prefix.last().bits());
        [first.wrapping_sub(1), first, last, last.wrapping_add(1)].into_iter().map(Addr::from_bits)
    }

    #[test]
    fn the_most_specific_route_wins_in_each_family() {
        let (lpm, _) = both(&[
            (p("0.0.0.0/0"), 1),
            (p("10.0.0.0/8"), 2),
            (p("10.65.0.0/26"), 3),
            (p("10.65.0.7/32"), 4),
            (p("::/0"), 5),
            (p("fd00:10:65::/122"), 6),
            (p("fd00:10:65::7/128"), 7),
        ]);
        for (addr, want) in [
            ("192.0.2.1", 1),
            ("10.66.0.0", 2),
            ("10.65.0.6", 3),
            ("10.65.0.7", 4),
            ("10.65.0.63", 3),
            ("10.65.0.64", 2),
            ("2001:db8::1", 5),
            ("fd00:10:65::6", 6),
            ("fd00:10:65::7", 7),
            ("fd00:10:65::40", 5),
        ] {
            assert_eq!(lpm.lookup(a(addr)), Some(want), "{addr}");
        }
    }

    #[test]
    fn no_route_is_no_answer() {
        let (lpm, _) = both(&[(p("10.0.0.0/8"), 0)]);
        for addr in ["0.0.0.0", "9.255.255.255", "11.0.0.0", "255.255.255.255", "::", "fe80::1"] {
            assert_eq!(lpm.lookup(a(addr)), None, "{addr}");
        }
        assert_eq!(Lpm::default().lookup(a("10.0.0.1")), None);
        assert_eq!(Lpm::default().lookup(a("::1")), None);
    }

    #[test]
    fn the_later_of_two_equal_prefixes_wins() {
        let (lpm, _) = both(&[(p("10.0.0.0/8"), 1), (p("10.0.0.0/8"), 2)]);
        assert_eq!(lpm.lookup(a("10.1.1.1")), Some(2));
    }

    #[test]
    fn a_value_too_large_is_refused_by_name() {
        let e = Lpm::build([(p("10.0.0.0/8"), u32::MAX)]).unwrap_err().to_string();
        assert!(e.contains("10.0.0.0/8") && e.contains("number the routes from 0"), "{e}");
        let lpm = Lpm::build([(p("10.0.0.0/8"), Lpm::MAX_VALUE)]).unwrap();
        assert_eq!(lpm.lookup(a("10.0.0.1")), Some(Lpm::MAX_VALUE));
    }

    #[test]
    fn a_small_node_costs_a_few_kib() {
        let (lpm, _) = both(&[
            (p("0.0.0.0/0"), 0),
            (p("10.65.0.0/26"), 1),
            (p("10.65.0.1/32"), 2),
            (p("10.65.0.2/32"), 3),
            (p("10.65.9.64/26"), 4),
            (p("::/0"), 0),
            (p("fd00:10:65::/122"), 1),
            (p("fd00:10:65::1/128"), 2),
            (p("fd00:10:65::2/128"), 3),
            (p("fd00:10:65:1:8000::/122"), 4),
        ]);
        assert!(lpm.bytes() <= 6 * 1024, "{} bytes", lpm.bytes());
    }

    #[test]
    fn routes_that_say_the_same_thing_share_memory() {
        let blocks = (0..=255u32).map(|i| (Prefix::truncate(Addr::v4([10, i as u8, 7, 0]), 24), 9));
        let lpm = Lpm::build(blocks).unwrap();
        let one = Lpm::build([(p("10.0.7.0/24"), 9)]).unwrap();
        assert!(lpm.bytes() < one.bytes() + 8 * 256, "{} against {}", lpm.bytes(), one.bytes());
    }

    #[test]
    fn a_route_that_changes_no_answer_costs_nothing() {
        let (lpm, _) = both(&[(p("0.0.0.0/0"), 1), (p("10.65.0.0/26"), 1), (p("10.66.0.1/32"), 1)]);
        assert_eq!(lpm.bytes(), Lpm::default().bytes());
    }

    fn seeded(cases: u32) -> ProptestConfig {
        let rng_seed = RngSeed::Fixed(1);
        ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Routes around a few bases, so that they nest, touch and repeat.
    fn routes(max: usize) -> impl Strategy<Value = Vec<(Prefix, u32)>> {
        let v4 =
            (prop::sample::select(vec![0u32, 0x0a41_0000, 0xac10_ff00, u32::MAX]), any::<u32>(), 0..=32u8)
                .prop_flat_map(|(base, noise, len)| {
                    (0..=32u32).prop_map(move |keep| {
                        let low = u32::MAX.checked_shr(keep).unwrap_or(0);
                        Prefix::truncate(Addr::v4(((base & !low) | (noise & low)).to_be_bytes()), len)
                    })
                });
        let bases = vec![0u128, 0xfd00_0010_0065 << 80, 0x2001_0db8 << 96, u128::MAX];
        let v6 =
            (prop::sample::select(bases), any::<u128>(), 0..=128u8).prop_flat_map(|(base, noise, len)| {
                (0..=128u32).prop_map(move |keep| {
                    let low = u128::MAX.checked_shr(keep).unwrap_or(0);
                    Prefix::truncate(Addr::from_bits((base & !low) | (noise & low)), len)
                })
            });
        prop::collection::vec((prop_oneof![v4, v6], 0..40u32), 0..max)
    }

    proptest! {
        #![proptest_config(seeded(300))]

        #[test]
        fn agrees_with_the_reference(routes in routes(120), random in prop::collection::vec(any::<u128>(), 32)) {
            let (lpm, reference) = both(&routes);
            let anywhere = random.iter().flat_map(|&r| [Addr::from_bits(r), Addr::v4((r as u32).to_be_bytes())]);
            for addr in routes.iter().flat_map(|r| edges(r.0)).chain(anywhere) {
                prop_assert_eq!(lpm.lookup(addr), reference.lookup(addr), "{}", addr);
            }
        }
    }

    proptest! {
        #![proptest_config(seeded(4))]

        /// Enough routes for the wider direct tables.
        #[test]
        fn agrees_with_the_reference_when_large(
            routes in routes(4_000), v4 in prop::collection::vec((any::<u32>(), 8..=32u8), 17_000),
        ) {
            let mut routes = routes;
            routes.extend(v4.iter().zip(0..).map(|(&(bits, len), i)| {
                (Prefix::truncate(Addr::v4(bits.to_be_bytes()), len), i)
            }));
            let (lpm, reference) = both(&routes);
            for addr in routes.iter().step_by(7).flat_map(|r| edges(r.0)) {
                prop_assert_eq!(lpm.lookup(addr), reference.lookup(addr), "{}", addr);
            }
        }
    }

    fn internet_table(file: &str) -> Option<Vec<(Prefix, u32)>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/bgp").join(file);
        if !path.exists() {
            println!("SKIPPED: {}: shared data not found", path.display());
            return None;
        }
        let Ok(output) = Command::new("xz").arg("-dc").arg(&path).output() else {
            println!(
                "SKIPPED: {}: shared data not found in readable form, xz is not installed",
                path.display()
            );
            return None;
        };
        assert!(output.status.success(), "xz: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let route = |line: &str| {
            let (prefix, hop) = line.split_once(' ')?;
            Some((prefix.parse().ok()?, hop.parse().ok()?))
        };
        Some(text.lines().map(|line| route(line).unwrap_or_else(|| panic!("not a route: {line}"))).collect())
    }

    #[test]
    fn agrees_with_the_reference_on_a_real_internet_table() {
        for (file, most) in
            [("bgp4-ris-as3333-20260511.txt.xz", 16 << 20), ("bgp6-ris-as3333-20260511.txt.xz", 32 << 20)]
        {
            let Some(routes) = internet_table(file) else { continue };
            let (lpm, reference) = both(&routes);
            assert!(lpm.bytes() <= most, "{file}: {} bytes", lpm.bytes());
            let mut answered = 0;
            for (prefix, _) in routes.iter().step_by(31) {
                for addr in edges(*prefix) {
                    let want = reference.lookup(addr);
                    assert_eq!(lpm.lookup(addr), want, "{addr}");
                    answered += usize::from(want.is_some());
                }
            }
            assert!(answered > routes.len() / 31, "{file}: {answered} of the samples have a route");
        }
    }
}
