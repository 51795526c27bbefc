//! Who carries which label, and which selectors match whom, as both change.
//!
//! A selector that can match only what carries a certain label, or one of certain values of it, is looked at only for what
//! does; of several such demands the one counts that fewest met when the selector came.

use crate::model::Object as _;
use crate::model::{
    Key, LABEL_NAMESPACE, LABEL_ORCHESTRATOR, LABEL_SERVICE_ACCOUNT, Labels, Profile, Resource, Selector,
    namespace_profile,
};
use slab::Slab;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ptr,
    sync::Arc,
};

/// Members, selectors, and which of them match.
#[derive(Default)]
pub(super) struct LabelIndex {
    members: Slab<Member>,
    numbers: HashMap<Key, usize>,
    carriers: Carriers,
    profiles: Slab<Giver>,
    profile_numbers: HashMap<String, usize>,
    selectors: Slab<Watched>,
    /// By their canonical text.
    selector_numbers: HashMap<Box<str>, usize>,
    /// Selectors by a label and a value that a member must have.
    by_value: HashMap<String, HashMap<String, Vec<usize>>>,
    /// Selectors by a label that a member must have.
    by_label: HashMap<String, Vec<usize>>,
    /// All other selectors.
    others: Vec<usize>,
}

/// What a change does to a member: what it was and which selectors matched it, and the same now. Of no member: nothing.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub was: Option<(Arc<Resource>, Vec<usize>)>,
    pub is: Option<(Arc<Resource>, Vec<usize>)>,
}

/// Members by label and value.
#[derive(Default)]
struct Carriers(HashMap<Box<str>, HashMap<Box<str>, BTreeSet<usize>>>);

struct Member {
    object: Arc<Resource>,
    /// Those that give it labels; the first of two that give the same one wins.
    profiles: Box<[usize]>,
    /// Selectors that match it, sorted.
    matched: Vec<usize>,
}

/// A profile that somebody names, or that is there.
#[derive(Default)]
struct Giver {
    name: String,
    profile: Option<Arc<Resource>>,
    heirs: BTreeSet<usize>,
}

struct Watched {
    selector: Selector,
    demand: Demand,
    uses: usize,
}

#[derive(Clone)]
enum Demand {
    OneOf(String, BTreeSet<String>),
    Present(String),
    Nothing,
}

impl LabelIndex {
    /// Adds, replaces or removes a member.
    pub fn put(&mut self, key: &Key, object: Option<Arc<Resource>>) -> Moved {
        let mut moved = Moved::default();
        if let Some(number) = self.numbers.get(key).copied() {
            self.carry(number, false);
            let member = self.members.remove(number);
            self.disinherit(number, &member.profiles);
            moved.was = Some((member.object, member.matched));
        }
        let Some(object) = object else {
            self.numbers.remove(key);
            return moved;
        };
        let profiles: Box<[usize]> = givers(&object).iter().map(|name| self.giver(name)).collect();
        let member = Member { object: object.clone(), profiles: profiles.clone(), matched: Vec::new() };
        let number = self.members.insert(member);
        for profile in profiles {
            self.profiles[profile].heirs.insert(number);
        }
        // What replaces another mostly has its number.
        match self.numbers.get_mut(key) {
            Some(known) => *known = number,
            None => drop(self.numbers.insert(key.clone(), number)),
        }
        self.carry(number, true);
        let matched = self.matching(number);
        self.members[number].matched.clone_from(&matched);
        moved.is = Some((object, matched));
        moved
    }

    /// Adds, replaces or removes a profile, which moves those that have labels of it.
    pub fn put_profile(&mut self, name: &str, profile: Option<Arc<Resource>>) -> Vec<Moved> {
        if profile.is_none() && !self.profile_numbers.contains_key(name) {
            return Vec::new();
        }
        let number = self.giver(name);
        let giver = &self.profiles[number];
        let none = BTreeMap::new();
        let [old, new] = [&giver.profile, &profile].map(|profile| {
            let profile = profile.as_deref().and_then(Profile::from_resource);
            profile.map_or(&none, |profile| &profile.spec.labels_to_apply)
        });
        let labels: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let is_other = |label: &&String| old.get(*label) != new.get(*label);
        let labels: Vec<String> = labels.into_iter().filter(is_other).cloned().collect();
        let heirs: Vec<usize> = giver.heirs.iter().copied().collect();
        let earlier = std::mem::replace(&mut self.profiles[number].profile, profile);
        let mut moved = Vec::new();
        for heir in heirs {
            if !self.relabel(heir, &labels, (number, earlier.as_deref())) {
                continue;
            }
            let matched = self.matching(heir);
            let member = &mut self.members[heir];
            let was = std::mem::replace(&mut member.matched, matched.clone());
            if was != matched {
                let object = || member.object.clone();
                moved.push(Moved { was: Some((object(), was)), is: Some((object(), matched)) });
            }
        }
        self.drop_giver(number);
        moved
    }

    /// Notes which of the labels a member carries now that this profile has changed. Returns whether any is another.
    fn relabel(&mut self, member: usize, labels: &[String], earlier: (usize, Option<&Resource>)) -> bool {
        let Member { object, profiles, .. } = &self.members[member];
        let is = Seen { object, profiles, givers: &self.profiles, earlier: None };
        let was = Seen { earlier: Some(earlier), ..is };
        let mut relabelled = false;
        for label in labels {
            let (was, is) = (was.value(label), is.value(label));
            if was != is {
                was.iter().for_each(|value| self.carriers.forget(label, value, member));
                is.iter().for_each(|value| self.carriers.note(label, value, member));
                relabelled = true;
            }
        }
        relabelled
    }

    /// Has a selector looked at from now on, or once more. Returns its number.
    pub fn watch(&mut self, selector: &Selector) -> usize {
        if let Some(number) = self.selector_numbers.get(selector.canonical()) {
            self.selectors[*number].uses += 1;
            return *number;
        }
        let demand = self.demand(selector);
        let watched = Watched { selector: selector.clone(), demand: demand.clone(), uses: 1 };
        let number = self.selectors.insert(watched);
        self.selector_numbers.insert(selector.canonical().into(), number);
        self.each_list(&demand, |list| list.push(number));
        for member in self.meeting(&demand) {
            if selector.matches(&self.seen(member)) {
                let matched = &mut self.members[member].matched;
                let at = matched.partition_point(|other| *other < number);
                matched.insert(at, number);
            }
        }
        number
    }

    /// Takes back one [`watch`](Self::watch).
    pub fn unwatch(&mut self, number: usize) {
        self.selectors[number].uses -= 1;
        if self.selectors[number].uses > 0 {
            return;
        }
        let Watched { selector, demand, .. } = self.selectors.remove(number);
        self.selector_numbers.remove(selector.canonical());
        self.each_list(&demand, |list| list.retain(|other| *other != number));
        for member in self.meeting(&demand) {
            self.members[member].matched.retain(|other| *other != number);
        }
    }

    /// All that a watched selector matches.
    pub fn selected(&self, number: usize) -> impl Iterator<Item = &Arc<Resource>> {
        let candidates = self.meeting(&self.selectors[number].demand).into_iter();
        let members = candidates.map(|member| &self.members[member]);
        members
            .filter(move |member| member.matched.binary_search(&number).is_ok())
            .map(|member| &member.object)
    }

    /// The watched selectors that match a member.
    pub fn matched(&self, key: &Key) -> &[usize] {
        self.numbers.get(key).map_or(&[], |number| &self.members[*number].matched)
    }

    fn seen(&self, member: usize) -> Seen<'_> {
        let member = &self.members[member];
        Seen { object: &member.object, profiles: &member.profiles, givers: &self.profiles, earlier: None }
    }

    fn matching(&self, member: usize) -> Vec<usize> {
        let seen = self.seen(member);
        let mut candidates = self.others.clone();
        seen.each(|label, value| {
            candidates.extend(self.by_label.get(label).into_iter().flatten());
            let of_value = self.by_value.get(label).and_then(|values| values.get(value));
            candidates.extend(of_value.into_iter().flatten());
        });
        candidates.sort_unstable();
        candidates.dedup();
        candidates.retain(|number| self.selectors[*number].selector.matches(&seen));
        candidates
    }

    /// The demand that fewest members meet.
    fn demand(&self, selector: &Selector) -> Demand {
        let demands =
            selector.restrictions().into_iter().filter_map(|(label, of)| match of.must_have_one_of {
                Some(values) => Some(Demand::OneOf(label, values)),
                None => of.must_be_present.then_some(Demand::Present(label)),
            });
        demands.min_by_key(|demand| self.count(demand)).unwrap_or(Demand::Nothing)
    }

    fn count(&self, demand: &Demand) -> usize {
        self.groups(demand).map_or(self.members.len(), |groups| groups.iter().map(|group| group.len()).sum())
    }

    /// Members that meet a demand.
    fn meeting(&self, demand: &Demand) -> Vec<usize> {
        match self.groups(demand) {
            Some(groups) => groups.into_iter().flatten().copied().collect(),
            None => self.members.iter().map(|(number, _)| number).collect(),
        }
    }

    /// The same, by value; `None`: all.
    fn groups(&self, demand: &Demand) -> Option<Vec<&BTreeSet<usize>>> {
        let of = |label: &String| self.carriers.of(label);
        match demand {
            Demand::OneOf(label, values) => {
                let found = of(label);
                Some(values.iter().filter_map(|value| found?.get(value.as_str())).collect())
            }
            Demand::Present(label) => Some(of(label).into_iter().flat_map(HashMap::values).collect()),
            Demand::Nothing => None,
        }
    }

    /// Everywhere that a selector of that demand is noted.
    fn each_list(&mut self, demand: &Demand, mut act: impl FnMut(&mut Vec<usize>)) {
        match demand {
            Demand::OneOf(label, values) => {
                let of_label = self.by_value.entry(label.clone()).or_default();
                for value in values {
                    let list = of_label.entry(value.clone()).or_default();
                    act(list);
                    if list.is_empty() {
                        of_label.remove(value);
                    }
                }
                if of_label.is_empty() {
                    self.by_value.remove(label);
                }
            }
            Demand::Present(label) => {
                let list = self.by_label.entry(label.clone()).or_default();
                act(list);
                if list.is_empty() {
                    self.by_label.remove(label);
                }
            }
            Demand::Nothing => act(&mut self.others),
        }
    }

    fn carry(&mut self, member: usize, carries: bool) {
        let Member { object, profiles, .. } = &self.members[member];
        let seen = Seen { object, profiles, givers: &self.profiles, earlier: None };
        seen.each(|label, value| match carries {
            true => self.carriers.note(label, value, member),
            false => self.carriers.forget(label, value, member),
        });
    }

    fn giver(&mut self, name: &str) -> usize {
        if let Some(number) = self.profile_numbers.get(name) {
            return *number;
        }
        let number = self.profiles.insert(Giver { name: name.to_owned(), ..Giver::default() });
        self.profile_numbers.insert(name.to_owned(), number);
        number
    }

    fn disinherit(&mut self, member: usize, profiles: &[usize]) {
        for profile in profiles {
            // It may be named twice, and gone already.
            if let Some(giver) = self.profiles.get_mut(*profile) {
                giver.heirs.remove(&member);
                self.drop_giver(*profile);
            }
        }
    }

    /// Forgets a profile that nobody names and that is not there.
    fn drop_giver(&mut self, number: usize) {
        let giver = &self.profiles[number];
        if giver.heirs.is_empty() && giver.profile.is_none() {
            let giver = self.profiles.remove(number);
            self.profile_numbers.remove(&giver.name);
        }
    }
}

impl Carriers {
    fn of(&self, label: &str) -> Option<&HashMap<Box<str>, BTreeSet<usize>>> {
        self.0.get(label)
    }

    fn note(&mut self, label: &str, value: &str, member: usize) {
        let of_label = match self.0.get_mut(label) {
            Some(of_label) => of_label,
            None => self.0.entry(label.into()).or_default(),
        };
        match of_label.get_mut(value) {
            Some(carriers) => drop(carriers.insert(member)),
            None => drop(of_label.insert(value.into(), BTreeSet::from([member]))),
        }
    }

    fn forget(&mut self, label: &str, value: &str, member: usize) {
        let Some(of_label) = self.0.get_mut(label) else { return };
        let Some(carriers) = of_label.get_mut(value) else { return };
        carriers.remove(&member);
        if carriers.is_empty() {
            of_label.remove(value);
        }
        if of_label.is_empty() {
            self.0.remove(label);
        }
    }
}

/// The profiles that give an object labels.
fn givers(object: &Resource) -> Vec<String> {
    match object {
        Resource::WorkloadEndpoint(endpoint) => endpoint.spec.profiles.clone(),
        Resource::HostEndpoint(endpoint) => endpoint.spec.profiles.clone(),
        Resource::NetworkSet(set) => vec![namespace_profile(&set.metadata.namespace)],
        _ => Vec::new(),
    }
}

/// The labels that selectors see of a member: what Calico says of it, its own, then those that it is given.
#[derive(Clone, Copy)]
struct Seen<'a> {
    object: &'a Resource,
    profiles: &'a [usize],
    givers: &'a Slab<Giver>,
    /// A profile as it was before, in whose place another is now.
    earlier: Option<(usize, Option<&'a Resource>)>,
}

impl<'a> Seen<'a> {
    fn given(&self) -> impl Iterator<Item = &'a BTreeMap<String, String>> {
        let Self { givers, earlier, .. } = *self;
        self.profiles.iter().filter_map(move |number| {
            let profile = match earlier {
                Some((earlier, profile)) if earlier == *number => profile,
                _ => givers[*number].profile.as_deref(),
            };
            let profile = Profile::from_resource(profile?)?;
            Some(&profile.spec.labels_to_apply)
        })
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        match (self.object, name) {
            (Resource::WorkloadEndpoint(endpoint), LABEL_NAMESPACE) => Some(&endpoint.metadata.namespace),
            (Resource::WorkloadEndpoint(endpoint), LABEL_ORCHESTRATOR) => Some(&endpoint.spec.orchestrator),
            (Resource::WorkloadEndpoint(endpoint), LABEL_SERVICE_ACCOUNT)
                if !endpoint.spec.service_account_name.is_empty() =>
            {
                Some(&endpoint.spec.service_account_name)
            }
            (Resource::NetworkSet(set), LABEL_NAMESPACE) => Some(&set.metadata.namespace),
            // It must not pass for a workload.
            (Resource::HostEndpoint(_), LABEL_NAMESPACE | LABEL_ORCHESTRATOR | LABEL_SERVICE_ACCOUNT) => None,
            (object, name) => {
                let own = object.metadata().labels.get(name);
                own.or_else(|| self.given().find_map(|labels| labels.get(name))).map(String::as_str)
            }
        }
    }

    /// Every label with its value.
    fn each(&self, mut see: impl FnMut(&'a str, &'a str)) {
        for name in [LABEL_NAMESPACE, LABEL_ORCHESTRATOR, LABEL_SERVICE_ACCOUNT] {
            if let Some(value) = self.value(name) {
                see(name, value);
            }
        }
        let is_said =
            |name: &str| matches!(name, LABEL_NAMESPACE | LABEL_ORCHESTRATOR | LABEL_SERVICE_ACCOUNT);
        for (name, value) in &self.object.metadata().labels {
            if !is_said(name) {
                see(name, value);
            }
        }
        for (name, value) in self.given().flatten() {
            // It counts where nobody before gives the same.
            if !is_said(name) && self.value(name).is_some_and(|counts| ptr::eq(counts, value.as_str())) {
                see(name, value);
            }
        }
    }
}

impl Labels for Seen<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.value(name)
    }
}
