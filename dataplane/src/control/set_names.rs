//! Numbers for the names of sets.

use super::difference::Difference;
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
    pub fn settle(&mut self, difference: &Difference<'_>) -> Vec<(SetId, Option<Arc<IpSet>>)> {
        let mut touched = std::mem::take(&mut self.fresh);
        for (old, new) in difference.named_sets() {
            for (sets, added) in [(old, false), (new, true)] {
                for id in sets.into_iter().flatten().flat_map(|sets| sets.iter()) {
                    let Some(mut numbered) = self.numbered.get(id).cloned() else { continue };
                    numbered.uses = if added { numbered.uses + 1 } else { numbered.uses.saturating_sub(1) };
                    if numbered.uses == 0 {
                        touched.insert(*id);
                    }
                    self.numbered.insert(*id, numbered);
                }
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
