//! Selectors that are asked for, each once: found by the labels that they may match.

use super::{arena::Arena, facts::Seen};
use crate::model::Selector;
use std::collections::{BTreeSet, HashMap};

/// Selectors by number.
#[derive(Default)]
pub(super) struct Selectors {
    slots: Arena<Slot>,
    by_canonical: HashMap<Box<str>, u32>,
    /// Those that match only where a label has a value, by both.
    by_value: HashMap<Box<str>, HashMap<Box<str>, BTreeSet<u32>>>,
    /// Those that match only where a label is there.
    by_label: HashMap<Box<str>, BTreeSet<u32>>,
    rest: BTreeSet<u32>,
}

/// One selector, and who has to do with it.
pub(super) struct Slot {
    pub selector: Selector,
    /// How often it is asked for.
    uses: usize,
    /// Groups that it matches.
    pub members: BTreeSet<u32>,
    /// Policies that apply to those.
    pub policies: BTreeSet<u32>,
    /// Views that need those.
    pub views: BTreeSet<u32>,
}

/// Under which demand a selector is found. A demand may be missed, never made up.
enum Place {
    Values(Box<str>, Vec<Box<str>>),
    Label(Box<str>),
    Anywhere,
}

impl Selectors {
    /// The selector's number, and whether it is new.
    pub fn enter(&mut self, selector: &Selector) -> (u32, bool) {
        if let Some(id) = self.by_canonical.get(selector.canonical()) {
            if let Some(slot) = self.slots.get_mut(*id) {
                slot.uses += 1;
            }
            return (*id, false);
        }
        let slot = Slot {
            selector: selector.clone(),
            uses: 1,
            members: BTreeSet::new(),
            policies: BTreeSet::new(),
            views: BTreeSet::new(),
        };
        let id = self.slots.put(slot);
        self.by_canonical.insert(selector.canonical().into(), id);
        match place(selector) {
            Place::Values(label, values) => {
                let of_label = self.by_value.entry(label).or_default();
                for value in values {
                    of_label.entry(value).or_default().insert(id);
                }
            }
            Place::Label(label) => drop(self.by_label.entry(label).or_default().insert(id)),
            Place::Anywhere => drop(self.rest.insert(id)),
        }
        (id, true)
    }

    /// Takes back one [`enter`](Self::enter). What is asked for no more is returned.
    pub fn leave(&mut self, id: u32) -> Option<Slot> {
        let slot = self.slots.get_mut(id)?;
        slot.uses -= 1;
        if slot.uses > 0 {
            return None;
        }
        let slot = self.slots.take(id)?;
        self.by_canonical.remove(slot.selector.canonical());
        match place(&slot.selector) {
            Place::Values(label, values) => {
                if let Some(of_label) = self.by_value.get_mut(&label) {
                    values.iter().for_each(|value| remove(of_label, value, id));
                    if of_label.is_empty() {
                        self.by_value.remove(&label);
                    }
                }
            }
            Place::Label(label) => remove(&mut self.by_label, &label, id),
            Place::Anywhere => drop(self.rest.remove(&id)),
        }
        Some(slot)
    }

    /// Those that match somebody with these labels, ascending.
    pub fn matching(&self, labels: &Seen) -> Vec<u32> {
        let mut found: Vec<u32> = self.rest.iter().copied().collect();
        for (label, value) in &labels.0 {
            found.extend(self.by_label.get(label).into_iter().flatten());
            found.extend(self.by_value.get(label).and_then(|of| of.get(value)).into_iter().flatten());
        }
        found.retain(|id| self.slots.get(*id).is_some_and(|slot| slot.selector.matches(labels)));
        found.sort_unstable();
        found
    }

    pub fn get(&self, id: u32) -> Option<&Slot> {
        self.slots.get(id)
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut Slot> {
        self.slots.get_mut(id)
    }

    /// How many somebody needs the members of.
    pub fn needed(&self) -> usize {
        self.slots.iter().filter(|(_, slot)| !slot.views.is_empty()).count()
    }
}

fn remove(from: &mut HashMap<Box<str>, BTreeSet<u32>>, key: &str, id: u32) {
    if let Some(ids) = from.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            from.remove(key);
        }
    }
}

fn place(selector: &Selector) -> Place {
    let demands = selector.restrictions();
    let fewest = demands
        .iter()
        .filter_map(|(label, demand)| Some((label, demand.must_have_one_of.as_ref()?)))
        .min_by_key(|(_, values)| values.len());
    if let Some((label, values)) = fewest {
        return Place::Values(
            label.as_str().into(),
            values.iter().map(|value| value.as_str().into()).collect(),
        );
    }
    let present = demands.iter().find(|(_, demand)| demand.must_be_present);
    present.map_or(Place::Anywhere, |(label, _)| Place::Label(label.as_str().into()))
}

/// Groups by the labels of their members: who may be matched by a selector that is new.
#[derive(Default)]
pub(super) struct ByLabel(HashMap<Box<str>, HashMap<Box<str>, BTreeSet<u32>>>);

impl ByLabel {
    pub fn insert(&mut self, (label, value): &(Box<str>, Box<str>), group: u32) {
        let of_label = self.0.entry(label.clone()).or_default();
        of_label.entry(value.clone()).or_default().insert(group);
    }

    pub fn remove(&mut self, (label, value): &(Box<str>, Box<str>), group: u32) {
        if let Some(of_label) = self.0.get_mut(label) {
            remove(of_label, value, group);
            if of_label.is_empty() {
                self.0.remove(label);
            }
        }
    }

    /// Whoever the selector could match; none: anybody.
    pub fn candidates(&self, selector: &Selector) -> Option<BTreeSet<u32>> {
        let (label, values) = match place(selector) {
            Place::Values(label, values) => (label, Some(values)),
            Place::Label(label) => (label, None),
            Place::Anywhere => return None,
        };
        let Some(of_label) = self.0.get(&label) else { return Some(BTreeSet::new()) };
        Some(match values {
            Some(values) => {
                values.iter().filter_map(|value| of_label.get(value)).flatten().copied().collect()
            }
            None => of_label.values().flatten().copied().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    fn selector() -> impl Strategy<Value = Selector> {
        let texts = [
            "all()",
            "a == 'x'",
            "a in {'x', 'y'}",
            "has(b)",
            "!has(a)",
            "a != 'x'",
            "b starts with 'x'",
            "a == 'x' && has(b)",
            "a == 'y' || b == 'x'",
            "!(a == 'x')",
            "has(a) || has(b)",
        ];
        select(texts.to_vec()).prop_map(|text| Selector::parse(text).unwrap())
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(
            asked in vec((selector(), any::<bool>()), 0..12),
            labels in vec((select(vec!["a", "b", "c"]), select(vec!["x", "y", "z"])), 0..4),
        ) {
            let mut selectors = Selectors::default();
            let mut seen = Seen::default();
            for (name, value) in labels {
                if seen.0.iter().all(|(known, _)| **known != *name) {
                    seen.0.push((name.into(), value.into()));
                }
            }
            let mut by_label = ByLabel::default();
            seen.0.iter().for_each(|label| by_label.insert(label, 7));
            let entered: Vec<_> = asked.iter().map(|(selector, _)| selectors.enter(selector).0).collect();
            let mut uses = HashMap::<u32, usize>::new();
            for ((_, stays), id) in asked.iter().zip(&entered) {
                match stays {
                    true => *uses.entry(*id).or_default() += 1,
                    false => drop(selectors.leave(*id)),
                }
            }
            let mut expected = Vec::new();
            for ((selector, _), id) in asked.iter().zip(&entered) {
                let matches = selector.matches(&seen);
                if matches && uses.contains_key(id) && !expected.contains(id) {
                    expected.push(*id);
                }
                let could = by_label.candidates(selector).is_none_or(|some| some.contains(&7));
                prop_assert!(!matches || could, "{selector}");
            }
            expected.sort_unstable();
            prop_assert_eq!(selectors.matching(&seen), expected);
            entered.iter().zip(&asked).filter(|(_, (_, stays))| *stays).for_each(|(id, _)| drop(selectors.leave(*id)));
            prop_assert!(selectors.by_canonical.is_empty() && selectors.by_value.is_empty());
            prop_assert!(selectors.by_label.is_empty() && selectors.rest.is_empty() && selectors.slots.len() == 0);
        }
    }
}
