//! How often each decider decided, counted by each worker for itself.

use crate::graph::COUNTED;
use crate::net::WorkerId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One cache line: two workers never write the same one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; LINE]);

const LINE: usize = 8;
/// Forebears that are followed. Workers lag behind by a publication or two; what one that lags further
/// behind still counts is lost.
const FOREBEARS: usize = 8;

/// A row of counters per worker, one per slot of a compiled policy.
///
/// Where trees are compiled anew for rules that were counted before, [`heir`](Self::heir) goes on from the
/// counts of those that survive. Clones count in the same place.
#[derive(Clone, Debug)]
pub struct HitCounters {
    rows: Rows,
    /// Counts of forebears that nobody counts in any more, by slot; empty: none.
    carried: Arc<[u64]>,
    /// Forebears that workers may still count in.
    past: Arc<[Forebear]>,
}

/// A row for each worker, and one of what was taken.
#[derive(Clone, Debug)]
struct Rows {
    lines: Arc<[Line]>,
    slots: usize,
    lines_per_row: usize,
}

/// Counters that others go on from.
#[derive(Debug)]
struct Forebear {
    rows: Rows,
    /// Of its slots: those that go on from them.
    to: Arc<[u32]>,
}

impl HitCounters {
    /// In [`heir`](Self::heir): no slot goes on from this one.
    pub const NO_HEIR: u32 = u32::MAX;

    /// All zero.
    pub fn new(workers: usize, slots: usize) -> Self {
        let lines_per_row = slots.div_ceil(LINE);
        let lines = std::iter::repeat_with(Line::default).take((workers + 1) * lines_per_row).collect();
        Self { rows: Rows { lines, slots, lines_per_row }, carried: Arc::default(), past: Arc::default() }
    }

    /// Counters that go on from these: what slot `n` has counted, and what workers that are not up to date
    /// will count for it, is slot `to[n]`'s.
    pub fn heir(&self, slots: usize, to: Arc<[u32]>) -> Self {
        let mut carried = vec![0; slots];
        let mut carry = |slot: u32, count: u64| {
            if let Some(carried) = carried.get_mut(slot as usize) {
                *carried = u64::wrapping_add(*carried, count);
            }
        };
        let now = |slot: u32| to.get(slot as usize).copied().unwrap_or(Self::NO_HEIR);
        (0u32..).zip(&self.carried[..]).for_each(|(slot, count)| carry(now(slot), *count));
        let mut past = Vec::new();
        let oldest = (self.past.len() + 1).saturating_sub(FOREBEARS);
        for (age, forebear) in self.past.iter().enumerate() {
            // Only we refer to it: nobody counts in it any more.
            if Arc::strong_count(&forebear.rows.lines) == 1 || age < oldest {
                let own = (0..forebear.rows.slots).map(|slot| forebear.rows.total(slot));
                forebear.to.iter().zip(own).for_each(|(slot, count)| carry(now(*slot), count));
            } else {
                let to = forebear.to.iter().map(|slot| now(*slot)).collect();
                past.push(Forebear { rows: forebear.rows.clone(), to });
            }
        }
        past.push(Forebear { rows: self.rows.clone(), to: to.clone() });
        let workers = (self.rows.lines.len().checked_div(self.rows.lines_per_row).unwrap_or(1)).max(1) - 1;
        Self { carried: carried.into(), past: past.into(), ..Self::new(workers, slots) }
    }

    /// Counts one packet. Only `worker` itself may call this with its own id: the counter has
    /// one writer, so a plain load and store lose nothing. A slot or worker that does not
    /// exist counts nowhere.
    #[inline]
    pub fn hit(&self, worker: WorkerId, slot: u32) {
        if COUNTED && let Some(counter) = self.rows.counter(1 + usize::from(worker.0), slot as usize) {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Of one slot, summed over the workers. Counters go on moving meanwhile.
    pub fn total(&self, slot: u32) -> u64 {
        let slot = slot as usize;
        let carried = self.carried.get(slot).copied().unwrap_or(0);
        let past = self.past.iter().map(|forebear| {
            let of = move |(from, _): (usize, &u32)| forebear.rows.total(from);
            forebear.to.iter().enumerate().filter(move |(_, to)| **to as usize == slot).map(of)
        });
        past.flatten().fold(carried, u64::wrapping_add).wrapping_add(self.rows.total(slot))
    }

    /// By slot.
    pub fn totals(&self) -> Vec<u64> {
        let mut totals: Vec<u64> = (0..self.rows.slots).map(|slot| self.rows.total(slot)).collect();
        totals
            .iter_mut()
            .zip(&self.carried[..])
            .for_each(|(total, carried)| *total = total.wrapping_add(*carried));
        for forebear in &self.past[..] {
            for (from, to) in forebear.to.iter().enumerate() {
                if let Some(total) = totals.get_mut(*to as usize) {
                    *total = total.wrapping_add(forebear.rows.total(from));
                }
            }
        }
        totals
    }

    /// Takes what the slot has counted: it goes on from zero. Only one thread may take.
    pub fn take(&self, slot: u32) -> u64 {
        let total = self.total(slot);
        if let Some(taken) = self.rows.counter(0, slot as usize) {
            // Wraps where a forebear counted: the sum of all rows is right.
            taken.store(taken.load(Ordering::Relaxed).wrapping_add(total), Ordering::Relaxed);
        }
        total
    }
}

impl Rows {
    /// Of all workers, without what was taken; modulo 2^64, for more may be taken than is counted here.
    fn total(&self, slot: usize) -> u64 {
        let rows = self.lines.len().checked_div(self.lines_per_row).unwrap_or(0);
        let of = |row| self.counter(row, slot).map_or(0, |c| c.load(Ordering::Relaxed));
        (1..rows).map(of).fold(0u64, u64::wrapping_add).wrapping_sub(of(0))
    }

    #[inline]
    fn counter(&self, row: usize, slot: usize) -> Option<&AtomicU64> {
        if slot >= self.slots {
            return None;
        }
        let line = self.lines.get(row * self.lines_per_row + slot / LINE)?;
        line.0.get(slot % LINE)
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_counts_and_totals_add_up() {
        let counters = HitCounters::new(2, 9);
        for slot in [0, 8, 8] {
            counters.hit(WorkerId(0), slot);
        }
        counters.hit(WorkerId(1), 8);
        assert_eq!(counters.totals(), [1, 0, 0, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn what_does_not_exist_counts_nowhere() {
        let counters = HitCounters::new(1, 2);
        counters.hit(WorkerId(0), 2);
        counters.hit(WorkerId(0), u32::MAX);
        counters.hit(WorkerId(1), 0);
        assert_eq!(counters.totals(), [0, 0]);
    }

    #[test]
    fn an_heir_goes_on_and_counts_what_workers_still_count_for_its_forebear() {
        let first = HitCounters::new(1, 3);
        first.hit(WorkerId(0), 0);
        first.hit(WorkerId(0), 2);
        let second = first.heir(4, [1, HitCounters::NO_HEIR, 0].into());
        first.hit(WorkerId(0), 2);
        second.hit(WorkerId(0), 3);
        assert_eq!(second.totals(), [2, 1, 0, 1]);
        assert_eq!(first.totals(), [1, 0, 2], "the forebear keeps its own");
        // Once nobody counts in the first any more, it is added up and let go of.
        drop(first);
        let third = second.heir(2, [0, 1, HitCounters::NO_HEIR, HitCounters::NO_HEIR].into());
        assert_eq!((third.past.len(), third.totals()), (1, vec![2, 1]));
        assert_eq!([0, 1].map(|slot| third.total(slot)), [2, 1]);
    }

    #[test]
    fn forebears_do_not_pile_up() {
        let mut all = vec![HitCounters::new(1, 1)];
        for _ in 0..100 {
            let last = &all[all.len() - 1];
            last.hit(WorkerId(0), 0);
            all.push(last.heir(1, [0].into()));
        }
        let last = &all[100];
        assert_eq!((last.past.len(), last.totals()), (FOREBEARS, vec![100]));
    }

    #[test]
    fn what_is_taken_is_taken_once_also_from_forebears() {
        let first = HitCounters::new(2, 1);
        first.hit(WorkerId(1), 0);
        let second = first.heir(1, [0].into());
        second.hit(WorkerId(0), 0);
        assert_eq!((second.take(0), second.take(0)), (2, 0));
        first.hit(WorkerId(0), 0);
        let third = second.heir(1, [0].into());
        assert_eq!((second.totals(), third.totals()), (vec![1], vec![1]));
    }

    #[test]
    fn rows_of_two_workers_share_no_line() {
        let counters = HitCounters::new(2, 1);
        let at = |w: usize| std::ptr::from_ref(counters.rows.counter(1 + w, 0).unwrap()) as usize / 64;
        assert_ne!(at(0), at(1));
    }
}
