//! How many flows each workload has, over all workers, and how fast it opens them.
//!
//! A count is one atomic number for each workload and direction, touched when a flow that is counted
//! begins or ends and by no other packet; so limits hold exactly, whichever workers the flows are on.

use crate::fib::Quota;
use crate::net::{IfId, Nanos};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Workloads whose counts are allocated together.
const CHUNK: usize = 256;

/// Seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Flows that others open to it.
    Ingress = 0,
    /// Flows that it opens.
    Egress = 1,
}

/// Which limit a new flow would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// That of flows at a time.
    Flows,
    /// That of new flows a second.
    Rate,
}

/// The counts, by the workload's interface.
pub struct Quotas(Box<[OnceLock<Box<[Count]>>]>);

/// One workload's: [`Side`] by side.
#[derive(Default)]
struct Count {
    flows: [AtomicU32; 2],
    /// When the credit for new flows was, or will be, used up.
    empty_at: [AtomicU64; 2],
}

impl Default for Quotas {
    fn default() -> Self {
        Self((0..=usize::from(u16::MAX) / CHUNK).map(|_| OnceLock::new()).collect())
    }
}

impl Quotas {
    /// Makes the workload one that can be counted: called where memory may be allocated.
    pub fn open(&self, id: IfId) {
        self.0[usize::from(id.0) / CHUNK].get_or_init(|| (0..CHUNK).map(|_| Count::default()).collect());
    }

    /// Flows of the workload that are counted now.
    pub fn flows(&self, id: IfId, side: Side) -> u32 {
        self.count(id).map_or(0, |count| count.flows[side as usize].load(Relaxed))
    }

    /// Counts a new flow, if `quota` allows one more. The limit a second allows a second's worth at once.
    pub fn charge(&self, id: IfId, side: Side, quota: Quota, now: Nanos) -> Result<(), Over> {
        let Some(count) = self.count(id) else { return Ok(()) };
        let most = quota.flows.unwrap_or(u32::MAX);
        let more = |flows: u32| (flows < most).then(|| flows + 1);
        count.flows[side as usize].fetch_update(Relaxed, Relaxed, more).map_err(|_| Over::Flows)?;
        let Some(rate) = quota.rate else { return Ok(()) };
        let second = Nanos::from_secs(1).0;
        // Never above a second's credit, however long none was opened.
        let take = |empty_at: u64| {
            let next = empty_at.max(now.0.saturating_sub(second)) + second / u64::from(rate.max(1));
            (next <= now.0).then_some(next)
        };
        if count.empty_at[side as usize].fetch_update(Relaxed, Relaxed, take).is_err() {
            self.release(id, side);
            return Err(Over::Rate);
        }
        Ok(())
    }

    /// A flow that was counted is over.
    pub fn release(&self, id: IfId, side: Side) {
        if let Some(count) = self.count(id) {
            count.flows[side as usize].fetch_sub(1, Relaxed);
        }
    }

    fn count(&self, id: IfId) -> Option<&Count> {
        self.0[usize::from(id.0) / CHUNK].get()?.get(usize::from(id.0) % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: IfId = IfId(300);

    fn quotas() -> Quotas {
        let quotas = Quotas::default();
        quotas.open(ID);
        quotas
    }

    #[test]
    fn so_many_at_a_time_in_each_direction() {
        let (quotas, now) = (quotas(), Nanos::from_secs(5));
        let two = Quota { flows: Some(2), rate: None };
        for side in [Side::Ingress, Side::Egress] {
            assert_eq!(
                [(); 3].map(|()| quotas.charge(ID, side, two, now)),
                [Ok(()), Ok(()), Err(Over::Flows)]
            );
            quotas.release(ID, side);
            assert_eq!(quotas.flows(ID, side), 1);
            assert_eq!(quotas.charge(ID, side, two, now), Ok(()));
        }
        assert_eq!(quotas.flows(IfId(301), Side::Egress), 0, "the neighbour's is its own");
    }

    #[test]
    fn so_many_a_second_and_a_seconds_worth_at_once() {
        let quotas = quotas();
        let ten = Quota { flows: None, rate: Some(10) };
        let opened = |ms: u64| quotas.charge(ID, Side::Egress, ten, Nanos::from_millis(ms)).is_ok();
        assert_eq!((0..100).filter(|_| opened(5_000)).count(), 10);
        assert_eq!((5_000..=15_000).filter(|ms| opened(*ms)).count(), 100);
        assert_eq!((0..100).filter(|_| opened(60_000)).count(), 10);
        assert_eq!(quotas.flows(ID, Side::Egress), 120, "those refused are not counted");
    }

    #[test]
    fn limits_hold_exactly_over_threads() {
        let (quotas, limit) = (quotas(), Quota { flows: Some(1_000), rate: None });
        let opened = std::thread::scope(|scope| {
            let open =
                || (0..800).filter(|_| quotas.charge(ID, Side::Ingress, limit, Nanos(1)).is_ok()).count();
            let threads = [(); 4].map(|()| scope.spawn(open));
            threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>()
        });
        assert_eq!((opened, quotas.flows(ID, Side::Ingress)), (1_000, 1_000));
    }
}
