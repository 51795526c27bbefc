//! How many packets each policy decided about, for as long as the process lives and in bounded memory.

use super::denials::{decided, denies};
use crate::policy::{Action, Decider, Place, PolicyTree};
use std::collections::HashMap;
use std::sync::Arc;

/// Policies and verdicts that are counted apart. What comes later is counted together.
const SERIES: usize = 1000;

/// Packets by what decided about them. None of the counts ever falls.
#[derive(Default)]
pub struct ByPolicy {
    /// Those that are counted apart, with what trees that are gone have counted.
    apart: HashMap<Decided, u64>,
    /// Of the others, what trees that are gone have counted.
    others: u64,
}

/// A policy and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decided {
    /// Empty for profiles, and where no tier decided.
    pub tier: String,
    /// Empty for defaults.
    pub policy: String,
    /// What the packets met.
    pub verdict: &'static str,
}

impl Decided {
    fn by(decider: &Decider) -> Self {
        let verdict = match decider.action {
            _ if denies(decider) => "deny",
            Action::Allow => "allow",
            // Nobody's policy: the packet passes on.
            Action::Pass if decider.place == Place::End => "allow",
            Action::Pass | Action::Deny | Action::Log => "pass",
        };
        Self { tier: decider.tier().to_owned(), policy: decider.policy(), verdict }
    }
}

impl ByPolicy {
    /// What a tree that is gone has counted.
    pub(super) fn add(&mut self, decider: &Decider, count: u64) {
        match self.own(decider) {
            Some(own) => *own += count,
            None => self.others += count,
        }
    }

    /// With what `trees` have counted so far. Also: the sum of all that are not counted apart.
    pub(super) fn read<'t>(
        &mut self,
        trees: impl Iterator<Item = &'t Arc<PolicyTree>>,
    ) -> (HashMap<Decided, u64>, u64) {
        let (mut now, mut others): (HashMap<Decided, u64>, u64) = (HashMap::new(), self.others);
        for (decider, count) in trees.flat_map(|tree| decided(tree)) {
            match self.own(&decider) {
                Some(_) => *now.entry(Decided::by(&decider)).or_default() += count,
                None => others += count,
            }
        }
        self.apart.iter().for_each(|(decided, past)| *now.entry(decided.clone()).or_default() += past);
        (now, others)
    }

    fn own(&mut self, decider: &Decider) -> Option<&mut u64> {
        let decided = Decided::by(decider);
        if self.apart.len() >= SERIES && !self.apart.contains_key(&decided) {
            return None;
        }
        Some(self.apart.entry(decided).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_profile(name: &str, action: Action) -> Decider {
        Decider { place: Place::Profile { name: name.into() }, rule: 0, action }
    }

    #[test]
    fn what_a_tree_counted_stays_when_it_is_gone_and_later_policies_are_counted_together() {
        let mut by_policy = ByPolicy::default();
        by_policy.add(&by_profile("web", Action::Allow), 3);
        by_policy.add(&by_profile("web", Action::Pass), 4);
        for other in 0..SERIES as u64 {
            by_policy.add(&by_profile(&other.to_string(), Action::Allow), other);
        }
        by_policy.add(&by_profile("web", Action::Allow), 2);
        let (counts, others) = by_policy.read(std::iter::empty());
        let of = |verdict| {
            let policy = "profile web".to_owned();
            counts[&Decided { tier: String::new(), policy, verdict }]
        };
        assert_eq!((of("allow"), of("deny")), (5, 4), "a pass in a profile denies");
        assert_eq!((counts.len(), others), (SERIES, 998 + 999));
    }
}
