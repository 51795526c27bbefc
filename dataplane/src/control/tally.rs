//! The largest of many groups, in memory that is bounded however many there are.

use std::collections::HashMap;

/// Groups that are kept.
const KEPT: usize = 1 << 16;

/// Counts by name: exact while there are few names. Beyond, those of Misra and Gries, "Finding
/// repeated elements" (1982): too low by one in [`KEPT`] of all that was counted, at most.
pub(super) struct Tally {
    counts: HashMap<String, u64>,
    kept: usize,
    uncertainty: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

impl Tally {
    fn keeping(kept: usize) -> Self {
        Self { counts: HashMap::new(), kept, uncertainty: 0 }
    }

    /// One more of a name.
    pub fn add(&mut self, name: String) {
        if let Some(count) = self.counts.get_mut(&name) {
            *count += 1;
        } else if self.counts.len() < self.kept {
            self.counts.insert(name, 1);
        } else {
            // One of each, and of this one.
            self.uncertainty += 1;
            self.counts.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// The largest, most first, and how many more each may have.
    pub fn largest(self, most: usize) -> (Vec<(String, u64)>, u64) {
        let mut counts: Vec<_> = self.counts.into_iter().collect();
        counts.sort_by(|(one, a), (other, b)| b.cmp(a).then_with(|| one.cmp(other)));
        counts.truncate(most);
        (counts, self.uncertainty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_few_names_are_counted_exactly_and_the_largest_shown() {
        let mut tally = Tally::default();
        for name in ["a", "b", "c", "b", "c", "c", "d"] {
            tally.add(name.into());
        }
        assert_eq!(tally.largest(3), (vec![("c".into(), 3), ("b".into(), 2), ("a".into(), 1)], 0));
    }

    proptest! {
        #[test]
        fn many_names_are_counted_within_what_is_said(names in prop::collection::vec(0u8..40, 0..400), kept in 1usize..20) {
            let mut tally = Tally::keeping(kept);
            names.iter().for_each(|name| tally.add(name.to_string()));
            let (counts, uncertainty) = tally.largest(usize::MAX);
            prop_assert!(counts.len() <= kept);
            prop_assert!(uncertainty <= (names.len() / (kept + 1)) as u64);
            for name in 0..40u8 {
                let is = names.iter().filter(|other| **other == name).count() as u64;
                let said = counts.iter().find(|(said, _)| *said == name.to_string()).map_or(0, |(_, count)| *count);
                prop_assert!(said <= is && is <= said + uncertainty, "{} is {}, not {}", name, is, said);
            }
        }
    }
}
