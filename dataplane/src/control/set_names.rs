//! Numbers for the names of sets.

use super::difference::Difference;
use super::written::Written;
use crate::net::SharedMap;
use crate::policy::{IpSet, SetId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which number a name has: the same as long as a rule names it, or a set is called so. A clone is
/// cheap.
#[derive(Clone, Debug, Default)]
pub struct SetNames {
    ids: SharedMap<Arc<str>, SetId>,
    numbered: SharedMap<SetId, Numbered>,
    free: SharedMap<SetId, ()>,
    /// Given since [`SetNames::settle`].
    fresh: BTreeSet<SetId>,
}

#[derive(Clone, Debug)]
struct Numbered {
    name: Arc<str>,
    /// Lists of rules that name it.
    uses: usize,
}

impl SetNames {
    /// The name's number, given to it if it has none.
    pub fn id(&mut self, name: &str) -> SetId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let next = SetId((self.ids.len() + self.free.len()) as u32);
        let id = self.free.keys().next().copied().unwrap_or(next);
        self.free.remove(&id);
        let name: Arc<str> = name.into();
        self.numbered.insert(id, Numbered { name: name.clone(), uses: 0 });
        self.ids.insert(name, id);
        self.fresh.insert(id);
        id
    }

    /// Takes numbers back from names that nothing uses after `difference`. Returns what each number
    /// stands for from now on, as far as that has changed.
    pub fn settle<'a>(&mut self, difference: &Difference<'a>) -> Vec<(SetId, Option<Arc<IpSet>>)> {
        let mut touched = std::mem::take(&mut self.fresh);
        for [old, new] in difference.written() {
            let sets = |written: Option<&'a Written>| written.map_or(&[][..], |written| written.sets());
            for (id, added) in changed(sets(old), sets(new)) {
                let Some(mut numbered) = self.numbered.get(&id).cloned() else { continue };
                numbered.uses = if added { numbered.uses + 1 } else { numbered.uses.saturating_sub(1) };
                if numbered.uses == 0 {
                    touched.insert(id);
                }
                self.numbered.insert(id, numbered);
            }
        }
        touched.extend(difference.ip_sets.iter().filter_map(|set| self.ids.get(set.key)));
        let mut stands_for = Vec::with_capacity(touched.len());
        for id in touched {
            let Some(Numbered { name, uses }) = self.numbered.get(&id).cloned() else { continue };
            let set = difference.next.ip_sets.get(&name).cloned();
            if set.is_none() && uses == 0 {
                self.ids.remove(&name);
                self.numbered.remove(&id);
                self.free.insert(id, ());
            }
            stands_for.push((id, set));
        }
        stands_for
    }
}

/// What is only in one of two ascending lists: false, what is only in `old`.
fn changed(old: &[SetId], new: &[SetId]) -> Vec<(SetId, bool)> {
    let (mut changed, mut old, mut new) = (vec![], old.iter().peekable(), new.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (Some(a), Some(b)) if a == b => drop((old.next(), new.next())),
            (Some(a), b) if b.is_none_or(|b| a < b) => changed.extend(old.next().map(|id| (*id, false))),
            (_, Some(_)) => changed.extend(new.next().map(|id| (*id, true))),
            (_, None) => return changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_lists_share_has_not_changed() {
        let ids = |numbers: &[u32]| numbers.iter().copied().map(SetId).collect::<Vec<_>>();
        let of = |old: &[u32], new: &[u32]| {
            let changed = changed(&ids(old), &ids(new));
            changed.into_iter().map(|(SetId(id), added)| (id, added)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[1, 2, 3, 5], &[2, 4, 5, 6]), [(1, false), (3, false), (4, true), (6, true)]);
        assert_eq!(of(&[], &[7]), [(7, true)]);
        assert_eq!(of(&[7, 8], &[]), [(7, false), (8, false)]);
        assert_eq!(of(&[7], &[7]), []);
    }
}
