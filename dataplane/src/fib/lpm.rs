//! Longest-prefix match: which route is the most specific one that holds an address.
//!
//! [`Routes`] is the control thread's: it notes changes, and publishes an immutable [`Lpm`] that shares with the ones before
//! it all that did not change. So a change costs about what it changes, in an Internet table too, and a worker never sees
//! one half made. `table.rs` has the layout, `family.rs` how it is kept up to date, `arena.rs` what makes sharing safe.
//!
//! The table grows with the number of routes: a node with a few routes pays some KiB, a full Internet table about seven MB
//! for IPv4.

mod arena;
mod family;
mod key;
mod slot;
mod table;

#[cfg(test)]
mod reference;

use crate::net::{Addr, Prefix};
use family::Family;
use slot::Slot;
use std::fmt;
use std::sync::Arc;
use table::Table;

/// Entries of a node, by family. On an Internet table of IPv6 256 entries answer a sixth sooner than 64, in 17 MB instead
/// of 7.
const NODE4: usize = 64;
const NODE6: usize = 256;

/// The routes that are wanted, and what is needed to publish them.
pub struct Routes {
    v4: Family<u32, NODE4>,
    v6: Family<u128, NODE6>,
}

/// An immutable longest-prefix-match table for both families.
#[derive(Clone)]
pub struct Lpm {
    v4: Arc<Table<u32, NODE4>>,
    v6: Arc<Table<u128, NODE6>>,
}

/// Why a route could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LpmError {
    /// The value shares its word with the tags of the table.
    #[error("route {prefix}: value {value} does not fit; number the routes from 0 to {max}", max = Lpm::MAX_VALUE)]
    ValueTooLarge {
        /// The route's prefix.
        prefix: Prefix,
        /// As given.
        value: u32,
    },
}

impl Routes {
    /// None yet.
    pub fn new() -> Self {
        Self { v4: Family::new(), v6: Family::new() }
    }

    /// Adds a route, or gives it another value. Returns the value it had.
    pub fn insert(&mut self, prefix: Prefix, value: u32) -> Result<Option<u32>, LpmError> {
        if value > Lpm::MAX_VALUE {
            return Err(LpmError::ValueTooLarge { prefix, value });
        }
        let addr = prefix.addr();
        Ok(if prefix.is_v4() {
            self.v4.insert(addr.v4_bits(), prefix.len(), value)
        } else {
            self.v6.insert(addr.bits(), prefix.len(), value)
        })
    }

    /// Takes a route away. Returns the value it had.
    pub fn remove(&mut self, prefix: Prefix) -> Option<u32> {
        let addr = prefix.addr();
        if prefix.is_v4() {
            self.v4.remove(addr.v4_bits(), prefix.len())
        } else {
            self.v6.remove(addr.bits(), prefix.len())
        }
    }

    /// The value of the route with exactly this prefix.
    pub fn get(&self, prefix: Prefix) -> Option<u32> {
        let addr = prefix.addr();
        if prefix.is_v4() {
            self.v4.get(addr.v4_bits(), prefix.len())
        } else {
            self.v6.get(addr.bits(), prefix.len())
        }
    }

    /// The most specific route that holds `addr`, and its value.
    pub fn longest(&self, addr: Addr) -> Option<(Prefix, u32)> {
        let (len, value) =
            if addr.is_v4() { self.v4.longest(addr.v4_bits()) } else { self.v6.longest(addr.bits()) }?;
        Some((Prefix::truncate(addr, len), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A table of the routes as they are now. Cheap where little has changed since the last one.
    pub fn publish(&mut self) -> Lpm {
        Lpm { v4: self.v4.publish(), v6: self.v6.publish() }
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self::new()
    }
}

impl Lpm {
    /// The largest value a route may carry.
    pub const MAX_VALUE: u32 = Slot::MAX_VALUE;

    /// What a batch says where no route holds an address.
    pub const NO_ROUTE: u32 = table::NO_ROUTE;

    /// A table of its own. Of two routes with one prefix the later wins.
    pub fn build(routes: impl IntoIterator<Item = (Prefix, u32)>) -> Result<Self, LpmError> {
        let mut wanted = Routes::new();
        for (prefix, value) in routes {
            wanted.insert(prefix, value)?;
        }
        Ok(wanted.publish())
    }

    /// The value of the most specific route that holds `addr`. Neither allocates nor fails.
    #[inline]
    pub fn lookup(&self, addr: Addr) -> Option<u32> {
        if addr.is_v4() { self.lookup_v4(addr.v4_bits()) } else { self.lookup_v6(addr.bits()) }
    }

    /// The same for an IPv4 address as a number in host order.
    #[inline]
    pub fn lookup_v4(&self, addr: u32) -> Option<u32> {
        self.v4.lookup(addr)
    }

    /// The same for an IPv6 address as a number in host order.
    #[inline]
    pub fn lookup_v6(&self, addr: u128) -> Option<u32> {
        self.v6.lookup(addr)
    }

    /// The answers for many IPv4 addresses, as numbers in host order, or [`Lpm::NO_ROUTE`]: their loads overlap.
    ///
    /// # Panics
    /// If there are not as many places for answers as addresses.
    pub fn lookup_batch_v4(&self, addrs: &[u32], answers: &mut [u32]) {
        self.v4.lookup_batch(addrs, answers);
    }

    /// The answers for many IPv6 addresses, as numbers in host order, or [`Lpm::NO_ROUTE`]: their loads overlap.
    ///
    /// # Panics
    /// If there are not as many places for answers as addresses.
    pub fn lookup_batch_v6(&self, addrs: &[u128], answers: &mut [u32]) {
        self.v6.lookup_batch(addrs, answers);
    }

    /// Memory that lookups read, in bytes.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

impl fmt::Debug for Lpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lpm").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Default for Lpm {
    /// No route at all.
    fn default() -> Self {
        Routes::new().publish()
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

    /// Scalar, and side by side.
    fn agree(lpm: &Lpm, reference: &Reference, addrs: &[Addr]) -> Result<(), TestCaseError> {
        let (v4, v6): (Vec<Addr>, Vec<Addr>) = addrs.iter().partition(|addr| addr.is_v4());
        let mut answers4 = vec![7; v4.len()];
        lpm.lookup_batch_v4(&v4.iter().map(|addr| addr.v4_bits()).collect::<Vec<_>>(), &mut answers4);
        let mut answers6 = vec![7; v6.len()];
        lpm.lookup_batch_v6(&v6.iter().map(|addr| addr.bits()).collect::<Vec<_>>(), &mut answers6);
        for (addr, batched) in v4.iter().zip(answers4).chain(v6.iter().zip(answers6)) {
            let want = reference.lookup(*addr);
            prop_assert_eq!(lpm.lookup(*addr), want, "{}", addr);
            prop_assert_eq!(batched, want.unwrap_or(Lpm::NO_ROUTE), "{} in a batch", addr);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(seeded(60))]

        /// Changes in many steps; the tables of all steps are asked again at the end, when nodes were written anew.
        #[test]
        fn every_generation_keeps_its_answers(
            first in routes(400),
            steps in prop::collection::vec((routes(12), prop::collection::vec(any::<prop::sample::Index>(), 0..12), any::<bool>()), 1..20),
            large in prop::option::of(prop::collection::vec((any::<u32>(), 20..=32u8), 17_000)),
        ) {
            let mut wanted = Routes::new();
            let mut present = std::collections::BTreeMap::new();
            let large = large.into_iter().flatten().map(|(bits, len)| (Prefix::truncate(Addr::v4(bits.to_be_bytes()), len), bits % 50));
            for (prefix, value) in first.into_iter().chain(large) {
                prop_assert_eq!(wanted.insert(prefix, value).unwrap(), present.insert(prefix, value));
            }
            let mut generations = vec![];
            for (added, removed, keep) in steps {
                let mut touched: Vec<Addr> = added.iter().flat_map(|(prefix, _)| edges(*prefix)).collect();
                for (prefix, value) in added {
                    prop_assert_eq!(wanted.insert(prefix, value).unwrap(), present.insert(prefix, value));
                }
                for index in removed {
                    let prefix = *index.get(&present.keys().copied().collect::<Vec<_>>());
                    prop_assert_eq!(wanted.remove(prefix), present.remove(&prefix));
                    prop_assert_eq!(wanted.get(prefix), None);
                    touched.extend(edges(prefix));
                    if present.is_empty() { break; }
                }
                let lpm = wanted.publish();
                let reference: Reference = present.clone().into_iter().collect();
                touched.extend(present.keys().step_by(present.len() / 100 + 1).flat_map(|prefix| edges(*prefix)));
                agree(&lpm, &reference, &touched)?;
                if keep {
                    generations.push((lpm, reference, touched));
                }
                if present.is_empty() { break; }
            }
            for (lpm, reference, touched) in generations {
                agree(&lpm, &reference, &touched)?;
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
