//! The table beside a naive one: a map for each length of prefixes, the longest asked first.

use super::{all, within};
use crate::random::Random;
use ahash::AHashMap;
use anyhow::{Result, ensure};
use margay_dataplane::fib::lpm::{Lpm, Routes};
use margay_dataplane::net::{Addr, Prefix};

/// Addresses that are compared after each change, besides the ends of what changed and their neighbours.
const AFTER_A_CHANGE: usize = 4;
/// Looked up at once.
const BATCH: usize = 256;

/// What was compared, and found the same.
pub struct Checked {
    pub lookups: u64,
    pub changes: usize,
    pub after_changes: u64,
}

/// Compares `lookups` addresses, half of them anywhere and half within a route, then some after each change.
pub fn check(routes: &[(Prefix, u32)], changes: &[(Prefix, Option<u32>)], lookups: u64) -> Result<Checked> {
    let mut naive = Naive::default();
    let mut wanted = Routes::new();
    for (prefix, value) in routes {
        naive.set(*prefix, Some(*value));
        wanted.insert(*prefix, *value)?;
    }
    let mut random = Random::new(3);
    let anywhere = all(!routes[0].0.is_v4());
    let mut draw = |number: u64| match number % 2 {
        0 => within(anywhere, &mut random),
        _ => within(random.pick(routes).0, &mut random),
    };
    let lpm = wanted.publish();
    let mut done = 0;
    while done < lookups {
        let count = (lookups - done).min(BATCH as u64);
        let addrs: Vec<Addr> = (done..done + count).map(&mut draw).collect();
        compare(&lpm, &naive, &addrs)?;
        done += count;
    }
    let mut after_changes = 0;
    for (prefix, value) in changes {
        naive.set(*prefix, *value);
        match value {
            Some(value) => drop(wanted.insert(*prefix, *value)?),
            None => drop(wanted.remove(*prefix)),
        }
        let (first, last) = (prefix.addr().bits(), prefix.last().bits());
        let mut addrs: Vec<Addr> = (0..AFTER_A_CHANGE as u64).map(&mut draw).collect();
        let edges = [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(Addr::from_bits);
        addrs.extend(edges.into_iter().filter(|addr| addr.is_v4() == prefix.is_v4()));
        compare(&wanted.publish(), &naive, &addrs)?;
        after_changes += addrs.len() as u64;
    }
    Ok(Checked { lookups: done, changes: changes.len(), after_changes })
}

/// One by one, and in a batch.
fn compare(lpm: &Lpm, naive: &Naive, addrs: &[Addr]) -> Result<()> {
    let mut answers = vec![0; addrs.len()];
    if addrs[0].is_v4() {
        lpm.lookup_batch_v4(&addrs.iter().map(|addr| addr.v4_bits()).collect::<Vec<_>>(), &mut answers);
    } else {
        lpm.lookup_batch_v6(&addrs.iter().map(|addr| addr.bits()).collect::<Vec<_>>(), &mut answers);
    }
    for (addr, batched) in addrs.iter().zip(answers) {
        let right = naive.longest(*addr);
        let found = [lpm.lookup(*addr), Some(batched).filter(|value| *value != Lpm::NO_ROUTE)];
        ensure!(
            found == [right; 2],
            "{addr}: {found:?}, one at a time and in a batch, and {right:?} is right"
        );
    }
    Ok(())
}

/// Routes of one family, by length.
struct Naive(Vec<AHashMap<u128, u32>>);

impl Default for Naive {
    fn default() -> Self {
        Self(vec![AHashMap::new(); 129])
    }
}

impl Naive {
    fn set(&mut self, prefix: Prefix, value: Option<u32>) {
        let (of, bits) = (&mut self.0[usize::from(prefix.len())], prefix.addr().bits());
        match value {
            Some(value) => drop(of.insert(bits, value)),
            None => drop(of.remove(&bits)),
        }
    }

    fn longest(&self, addr: Addr) -> Option<u32> {
        let lengths = if addr.is_v4() { 32 } else { 128 };
        let of = |len: u8| {
            (!self.0[usize::from(len)].is_empty()).then(|| Prefix::truncate(addr, len).addr().bits())
        };
        (0..=lengths).rev().find_map(|len| self.0[usize::from(len)].get(&of(len)?).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_changes_is_the_same_as_the_naive_one() {
        for v6 in [false, true] {
            let mut random = Random::new(4);
            let mut route = |value| {
                let len = 8 + random.below(if v6 { 100 } else { 25 }) as u8;
                (Prefix::truncate(within(all(v6), &mut random), len), value)
            };
            let routes: Vec<_> = (0..5000).map(&mut route).collect();
            let gone = routes.iter().step_by(3).map(|(prefix, _)| (*prefix, None));
            let new: Vec<_> = (0..500).map(&mut route).collect();
            let changes: Vec<_> =
                gone.chain(new.into_iter().map(|(prefix, value)| (prefix, Some(value)))).collect();
            let checked = check(&routes, &changes, 20_000).unwrap();
            assert_eq!((checked.lookups, checked.changes), (20_000, changes.len()));
            assert!(checked.after_changes > 7 * changes.len() as u64);
        }
    }
}
