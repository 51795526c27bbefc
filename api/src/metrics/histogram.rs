//! How often something took how long, counted as it happens.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bounds in seconds, from a small change to one that somebody waits for.
pub const LATENCY: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counts durations by how long they were. Not for the packet path.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counted: Mutex<(Vec<u64>, f64)>,
}

/// What was counted, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    pub bounds: &'static [f64],
    /// One for each bound, and one for what is longer than all; each for itself.
    pub counts: Vec<u64>,
    /// In seconds.
    pub sum: f64,
}

impl Histogram {
    /// Nothing yet. `bounds` are in seconds and grow.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counted: Mutex::new((vec![0; bounds.len() + 1], 0.0)) }
    }

    /// It took this long.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        // A panic between the two would leave a sum that is a little off.
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.0[at] += 1;
        counted.1 += seconds;
    }

    pub(super) fn read(&self) -> Buckets {
        let (counts, sum) = self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Buckets { bounds: self.bounds, counts, sum }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new(LATENCY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for millis in [500, 501, 1000, 1001, 0] {
            histogram.observe(Duration::from_millis(millis));
        }
        let read = histogram.read();
        assert_eq!(read.counts, [2, 2, 1]);
        assert!((read.sum - 3.002).abs() < 1e-9);
    }
}
