//! How often each decider decided, counted by each worker for itself.

use crate::net::WorkerId;
use std::sync::atomic::{AtomicU64, Ordering};

/// One cache line: two workers never write the same one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; LINE]);

const LINE: usize = 8;

/// A row of counters per worker, one per slot of a compiled policy.
#[derive(Debug)]
pub struct HitCounters {
    lines: Box<[Line]>,
    slots: usize,
    lines_per_worker: usize,
}

impl HitCounters {
    /// All zero.
    pub fn new(workers: usize, slots: usize) -> Self {
        let lines_per_worker = slots.div_ceil(LINE);
        let lines = std::iter::repeat_with(Line::default).take(workers * lines_per_worker).collect();
        Self { lines, slots, lines_per_worker }
    }

    /// Counts one packet. Only `worker` itself may call this with its own id: the counter has
    /// one writer, so a plain load and store lose nothing. A slot or worker that does not
    /// exist counts nowhere.
    #[inline]
    pub fn hit(&self, worker: WorkerId, slot: u32) {
        if let Some(counter) = self.counter(usize::from(worker.0), slot as usize) {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// By slot, summed over the workers. Counters go on moving meanwhile.
    pub fn totals(&self) -> Vec<u64> {
        let workers = self.lines.len().checked_div(self.lines_per_worker).unwrap_or(0);
        let total = |slot| {
            let of_worker = |w| self.counter(w, slot).map_or(0, |c| c.load(Ordering::Relaxed));
            (0..workers).map(of_worker).sum()
        };
        (0..self.slots).map(total).collect()
    }

    #[inline]
    fn counter(&self, worker: usize, slot: usize) -> Option<&AtomicU64> {
        if slot >= self.slots {
            return None;
        }
        let line = self.lines.get(worker * self.lines_per_worker + slot / LINE)?;
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
    fn rows_of_two_workers_share_no_line() {
        let counters = HitCounters::new(2, 1);
        let at = |w| std::ptr::from_ref(counters.counter(w, 0).unwrap()) as usize / 64;
        assert_ne!(at(0), at(1));
    }
}
