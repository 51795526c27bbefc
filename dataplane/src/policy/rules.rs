//! The rules of one policy in one direction, in chunks that outlive a change of the others.

use super::Rule;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Rules, in order. A clone is cheap.
///
/// How they are cut into chunks says nothing. But chunks that two versions of a list share are not
/// read again to find out what changed between them.
#[derive(Clone, Debug)]
pub struct Rules {
    chunks: Arc<[Arc<[Rule]>]>,
    len: usize,
}

impl Rules {
    /// Of chunks, in order.
    pub fn of_chunks(chunks: impl IntoIterator<Item = Arc<[Rule]>>) -> Self {
        // No chunk is empty: two of them would be at the same place in memory.
        let chunks: Arc<[_]> = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        let len = chunks.iter().map(|chunk| chunk.len()).sum();
        Self { chunks, len }
    }

    /// The chunks, none of them empty.
    pub fn chunks(&self) -> &[Arc<[Rule]>] {
        &self.chunks
    }

    /// In order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Rule> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The rule of this number.
    pub fn get(&self, index: usize) -> Option<&Rule> {
        let mut at = index;
        for chunk in &*self.chunks {
            match chunk.get(at) {
                Some(rule) => return Some(rule),
                None => at -= chunk.len(),
            }
        }
        None
    }

    /// How many.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The very same rules, by where they are; others may be equal.
    pub fn is(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<[Rule]>, &Arc<[Rule]>)| Arc::ptr_eq(a, b);
        Arc::ptr_eq(&self.chunks, &other.chunks)
            || (self.chunks.len() == other.chunks.len() && self.chunks.iter().zip(&*other.chunks).all(same))
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::of_chunks([])
    }
}

impl PartialEq for Rules {
    /// Chunks that both have at the same place are not read.
    fn eq(&self, other: &Self) -> bool {
        if self.len != other.len {
            return false;
        }
        let (mut ours, mut others) = (self.chunks.iter(), other.chunks.iter());
        let (mut our, mut their): (&[Rule], &[Rule]) = (&[], &[]);
        loop {
            if our.is_empty() && their.is_empty() {
                let (Some(a), Some(b)) = (ours.next(), others.next()) else { return true };
                if Arc::ptr_eq(a, b) {
                    continue;
                }
                (our, their) = (a, b);
            } else if our.is_empty() {
                let Some(next) = ours.next() else { return false };
                our = next;
            } else if their.is_empty() {
                let Some(next) = others.next() else { return false };
                their = next;
            }
            let both = our.len().min(their.len());
            if our[..both] != their[..both] {
                return false;
            }
            (our, their) = (&our[both..], &their[both..]);
        }
    }
}

impl Eq for Rules {}

impl Hash for Rules {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len.hash(state);
        self.iter().for_each(|rule| rule.hash(state));
    }
}

impl From<Arc<[Rule]>> for Rules {
    fn from(rules: Arc<[Rule]>) -> Self {
        Self::of_chunks([rules])
    }
}

impl From<Vec<Rule>> for Rules {
    fn from(rules: Vec<Rule>) -> Self {
        Self::from(Arc::<[Rule]>::from(rules))
    }
}

impl<const N: usize> From<[Rule; N]> for Rules {
    fn from(rules: [Rule; N]) -> Self {
        Self::from(Arc::<[Rule]>::from(rules))
    }
}

impl FromIterator<Rule> for Rules {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self::from(rules.into_iter().collect::<Arc<[Rule]>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Proto;
    use crate::policy::Action;

    fn rule(number: u8) -> Rule {
        Rule { protocol: Some(Proto(number)), ..Rule::any(Action::Allow) }
    }

    #[test]
    fn how_rules_are_cut_says_nothing() {
        let chunk = |numbers: std::ops::Range<u8>| numbers.map(rule).collect::<Arc<[Rule]>>();
        let whole: Rules = (0..10).map(rule).collect();
        let cut = Rules::of_chunks([chunk(0..3), chunk(3..3), chunk(3..4), chunk(4..10)]);
        assert_eq!((cut.chunks().len(), cut.len()), (3, 10));
        assert_eq!(whole, cut);
        let elsewhere = Rules::of_chunks([chunk(0..2), chunk(2..7), chunk(7..10)]);
        assert_eq!((&cut, &elsewhere), (&elsewhere, &cut));
        for at in 0..10u8 {
            let mut other: Vec<Rule> = whole.iter().cloned().collect();
            other[usize::from(at)] = rule(99);
            let other = Rules::from(other);
            assert_ne!(cut, other, "rule {at} is another");
            assert_ne!(other, elsewhere, "rule {at} is another");
        }
        let shared = Rules::of_chunks([cut.chunks()[0].clone(), chunk(3..10)]);
        assert_eq!((&cut, &shared), (&shared, &cut));
        assert!(!whole.is(&cut) && cut.is(&cut.clone()));
        for index in 0..10u8 {
            assert_eq!(cut.get(index.into()), Some(&rule(index)));
        }
        assert_eq!(cut.get(10), None);
        assert_ne!(cut, Rules::of_chunks([chunk(0..10), chunk(0..1)]));
        assert!(Rules::default().is_empty() && Rules::default() == Rules::of_chunks([chunk(0..0)]));
    }
}
