//! What two sequences have in common, in order.
//!
//! Not always the longest common subsequence, which would take too long: equal ends, and between them the
//! longest ascending choice among items that occur in both (as in patience diff).

use std::collections::HashMap;
use std::hash::Hash;

/// Neighbours in both sequences that are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) old: usize,
    pub(super) new: usize,
    pub(super) len: usize,
}

/// Stretches of equal items, ascending in both sequences.
pub(super) fn align<T: Copy + Eq + Hash>(old: &[T], new: &[T]) -> Vec<Stretch> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[prefix..], &new[prefix..]);
    let suffix = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let middle = (&old_rest[..old_rest.len() - suffix], &new_rest[..new_rest.len() - suffix]);

    let mut stretches: Vec<Stretch> = Vec::new();
    let mut push = |old: usize, new: usize, len: usize| match stretches.last_mut() {
        Some(last) if last.old + last.len == old && last.new + last.len == new => last.len += len,
        _ if len > 0 => stretches.push(Stretch { old, new, len }),
        _ => {}
    };
    push(0, 0, prefix);
    for (a, b) in ascending(&candidates(middle.0, middle.1)) {
        push(prefix + a, prefix + b, 1);
    }
    push(old.len() - suffix, new.len() - suffix, suffix);
    stretches
}

/// Equal items, each item once, in the order of `new`.
fn candidates<T: Copy + Eq + Hash>(old: &[T], new: &[T]) -> Vec<(usize, usize)> {
    if old.is_empty() || new.is_empty() {
        return vec![];
    }
    // Backwards, so that the first occurrence is taken first.
    let mut places: HashMap<T, Vec<usize>, ahash::RandomState> =
        HashMap::with_hasher(ahash::RandomState::with_seeds(13, 14, 15, 16));
    old.iter().enumerate().rev().for_each(|(at, item)| places.entry(*item).or_default().push(at));
    let pair = |(at, item): (usize, &T)| Some((places.get_mut(item)?.pop()?, at));
    new.iter().enumerate().filter_map(pair).collect()
}

/// A longest choice of pairs, ascending in both. `pairs` ascend in the second.
fn ascending(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // By length: the pair that ends the best choice of that length; and by pair, the one before.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (at, (old, _)) in pairs.iter().enumerate() {
        let len = ends.partition_point(|end| pairs[*end].0 < *old);
        before.push(len.checked_sub(1).map(|shorter| ends[shorter]));
        if len == ends.len() { ends.push(at) } else { ends[len] = at }
    }
    let mut chosen = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(at) = next {
        chosen.push(pairs[at]);
        next = before[at];
    }
    chosen.reverse();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::generate::seeded;
    use proptest::prelude::*;

    fn common(old: &str, new: &str) -> String {
        let (old, new): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
        align(&old, &new).iter().flat_map(|s| new[s.new..s.new + s.len].iter()).collect()
    }

    #[test]
    fn edits_leave_the_rest() {
        assert_eq!(common("abcdef", "abcdef"), "abcdef");
        assert_eq!(common("abcdef", "abxdef"), "abdef");
        assert_eq!(common("abcdef", "bcdefg"), "bcdef");
        assert_eq!(common("", "abc"), "");
    }

    #[test]
    fn what_moved_far_does_not_cost_the_others_their_place() {
        assert_eq!(common("zabcdefy", "xabcdefz"), "abcdef");
    }

    proptest! {
        #![proptest_config(seeded(512))]

        #[test]
        fn stretches_are_equal_and_ascend(
            old in prop::collection::vec(0u8..12, 0..40),
            new in prop::collection::vec(0u8..12, 0..40),
        ) {
            let (mut a, mut b) = (0, 0);
            for Stretch { old: from, new: to, len } in align(&old, &new) {
                prop_assert!(len > 0 && from >= a && to >= b);
                prop_assert_eq!(&old[from..from + len], &new[to..to + len]);
                (a, b) = (from + len, to + len);
            }
            prop_assert!(a <= old.len() && b <= new.len());
        }
    }
}
