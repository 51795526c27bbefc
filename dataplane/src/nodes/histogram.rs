//! How often a number was how large: written by one worker, read by anyone.
//!
//! Log-linear, as HdrHistogram has it: sixteen buckets for each power of two, so that what is read from a bucket is at
//! most a sixteenth too high, from one cycle to half a minute of them. To count costs one shift and three stores.

use super::Counted;
use std::ops::RangeInclusive;

/// log2 of the buckets for each power of two.
const FINE: u32 = 4;
/// Larger values are counted in the last bucket; [`Histogram::max`] knows the largest as it was.
const LARGEST: u64 = (1 << 36) - 1;
/// All of them: values below 32 have a bucket each.
const BUCKETS: usize = bucket(LARGEST) + 1;

/// Counts by size.
#[derive(Debug)]
pub struct Histogram {
    counts: [Counted; BUCKETS],
    max: Counted,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| Counted::default()), max: Counted::default() }
    }
}

impl Histogram {
    /// `times` more of `value`. Called by the one writer.
    #[inline]
    pub fn add(&self, value: u64, times: u64) {
        self.counts[bucket(value.min(LARGEST))].add(times);
        if value > self.max.get() {
            self.max.set(value);
        }
    }

    /// The buckets that are not empty, by size, each with the values that fall into it.
    pub fn read(&self) -> impl Iterator<Item = (RangeInclusive<u64>, u64)> {
        let counts = self.counts.iter().map(Counted::get).enumerate();
        counts.filter(|(_, count)| *count > 0).map(|(at, count)| (values(at), count))
    }

    /// The largest value; 0 where there was none.
    pub fn max(&self) -> u64 {
        self.max.get()
    }
}

/// The bucket of a value up to [`LARGEST`].
const fn bucket(value: u64) -> usize {
    // The highest set bit, and at least that of 16: what is below 32 is not shifted.
    let shift = (value | (1 << FINE)).ilog2() - FINE;
    ((shift as usize) << FINE) + (value >> shift) as usize
}

/// The values of a bucket.
fn values(bucket: usize) -> RangeInclusive<u64> {
    let shift = (bucket >> FINE).saturating_sub(1) as u32;
    let lowest = ((bucket - ((shift as usize) << FINE)) as u64) << shift;
    lowest..=lowest + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        let mut next = 0;
        for at in 0..BUCKETS {
            let of = values(at);
            assert_eq!((*of.start(), bucket(*of.start()), bucket(*of.end())), (next, at, at));
            next = of.end() + 1;
        }
        assert_eq!(next, LARGEST + 1);
    }

    #[test]
    fn what_is_too_large_is_counted_and_the_largest_known() {
        let histogram = Histogram::default();
        histogram.add(u64::MAX, 2);
        histogram.add(7, 3);
        let read: Vec<_> = histogram.read().collect();
        assert_eq!(read[0], (7..=7, 3));
        assert_eq!((*read[1].0.end(), read[1].1, read.len()), (LARGEST, 2, 2));
        assert_eq!(histogram.max(), u64::MAX);
    }

    proptest! {
        #[test]
        fn a_bucket_says_a_value_to_a_sixteenth(value in 0..=LARGEST) {
            let of = values(bucket(value));
            prop_assert!(of.contains(&value));
            prop_assert!(of.end() - of.start() <= value / 16);
        }
    }
}
