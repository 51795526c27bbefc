//! Who needs what: objects in, changes of each node's view out.
//!
//! A node needs every object but those of groups that it has nothing to do with: members (workloads, host endpoints, network
//! sets) that are neither its own nor selected by a rule that holds for its own, and policies that select none of its own. What
//! changes is followed from there: an object's group, the selectors that match the group's labels, the policies and views that
//! those are of.

mod telling;

use super::{
    arena::Arena,
    encoded::Encoded,
    facts::{Block, Facts, Given, GroupKey, Part, Wide},
    group::{Group, Members, Variant},
    places::Places,
    selectors::{ByLabel, Selectors},
    view::{Rule, View},
};
use crate::{
    datastore::{Change, Entry},
    model::{Cidr, Key, Selector},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// All objects, and the views of them.
pub(super) struct Index {
    objects: Arena<Object>,
    by_key: BTreeMap<Key, u32>,
    /// Those that are for everybody.
    common: BTreeSet<u32>,
    groups: Arena<Group>,
    by_group: HashMap<GroupKey, u32>,
    /// Groups that routes make everybody's business.
    wide: BTreeSet<u32>,
    /// Groups with members of a node.
    locals: HashMap<Box<str>, BTreeSet<u32>>,
    selectors: Selectors,
    by_label: ByLabel,
    profiles: Arena<Profile>,
    by_profile: HashMap<Box<str>, u32>,
    places: Places,
    views: Arena<View>,
    by_node: HashMap<Option<Box<str>>, u32>,
    /// Changes that a view remembers.
    bound: usize,
    /// Views that there have been.
    lives: u32,
}

struct Object {
    encoded: Arc<Encoded>,
    version: u64,
    json: Arc<str>,
    groups: BTreeSet<u32>,
    wide: Vec<Taken>,
    block: Option<Block>,
}

impl Object {
    fn new(entry: &Entry) -> Self {
        Self {
            encoded: Encoded::of(entry),
            version: entry.version,
            json: entry.json.clone(),
            groups: BTreeSet::new(),
            wide: Vec::new(),
            block: None,
        }
    }
}

/// What of an object is to be taken back when it changes.
enum Taken {
    Profile(u32),
    Node(Box<str>),
    Pool(Cidr),
    Services(Vec<Cidr>),
}

/// A profile, whether it is there or only named.
#[derive(Default)]
struct Profile {
    name: Box<str>,
    /// By whether it is derived, and the object that gives it: the first one counts.
    given: BTreeMap<(bool, u32), Given>,
    labels: Vec<(Box<str>, Box<str>)>,
    peers: BTreeSet<u32>,
    /// Groups whose members name it.
    members: BTreeSet<u32>,
}

/// What some changes at once touch.
#[derive(Default)]
struct Batch {
    objects: BTreeMap<u32, Before>,
    /// Objects that are gone, which may come back at once.
    gone: HashMap<Key, u32>,
    groups: BTreeSet<u32>,
    profiles: BTreeSet<u32>,
    /// Groups that a view may have to be told of, or no more.
    checks: HashMap<u32, Vec<u32>>,
}

/// An object as it was.
struct Before {
    encoded: Option<Arc<Encoded>>,
    groups: BTreeSet<u32>,
    block: Option<Block>,
}

impl Index {
    /// Nothing; views will remember so many changes.
    pub fn new(bound: usize) -> Self {
        Self {
            objects: Arena::default(),
            by_key: BTreeMap::new(),
            common: BTreeSet::new(),
            groups: Arena::default(),
            by_group: HashMap::new(),
            wide: BTreeSet::new(),
            locals: HashMap::new(),
            selectors: Selectors::default(),
            by_label: ByLabel::default(),
            profiles: Arena::default(),
            by_profile: HashMap::new(),
            places: Places::default(),
            views: Arena::default(),
            by_node: HashMap::new(),
            bound,
            lives: 0,
        }
    }

    /// These are all there are: what differs is a change.
    pub fn replace(&mut self, entries: &[Entry]) {
        let mut batch = Batch::default();
        let mut gone: BTreeSet<Key> = self.by_key.keys().cloned().collect();
        for entry in entries {
            gone.remove(&entry.key);
            let known = self.by_key.get(&entry.key).and_then(|id| self.objects.get(*id));
            if known.is_none_or(|known| known.version != entry.version || known.json != entry.json) {
                self.set(entry, &mut batch);
            }
        }
        gone.iter().for_each(|key| self.unset(key, &mut batch));
        self.finish(batch);
    }

    /// Takes over what belongs together, and tells each view what that is to it.
    pub fn apply<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) {
        let mut batch = Batch::default();
        for change in changes {
            match change {
                Change::Added(entry) | Change::Modified(entry) => self.set(entry, &mut batch),
                Change::Deleted(entry) => self.unset(&entry.key, &mut batch),
            }
        }
        self.finish(batch);
    }

    /// The view of a node, or of everything, which is there from now on.
    pub fn view(&mut self, node: Option<&str>) -> u32 {
        if let Some(id) = self.by_node.get(&node.map(Box::from)) {
            return *id;
        }
        self.lives += 1;
        let id = self.views.put(View::new(node, self.bound, self.lives));
        self.by_node.insert(node.map(Into::into), id);
        let mut batch = Batch::default();
        for group in node.and_then(|node| self.locals.get(node)).cloned().unwrap_or_default() {
            self.count_local(group, node, true, &mut batch);
            batch.checks.entry(id).or_default().push(group);
        }
        batch.checks.entry(id).or_default().extend(&self.wide);
        self.turn(id, &batch);
        self.tell_objects(id);
        id
    }

    /// Nobody needs the view any more.
    pub fn forget(&mut self, id: u32) {
        let Some(view) = self.views.take(id) else { return };
        self.by_node.remove(&view.node);
        for selector in view.selectors.keys() {
            if let Some(slot) = self.selectors.get_mut(*selector) {
                slot.views.remove(&id);
            }
        }
    }

    pub fn get(&self, view: u32) -> Option<&View> {
        self.views.get(view)
    }

    pub fn views_mut(&mut self) -> impl Iterator<Item = (u32, &mut View)> {
        self.views.iter_mut()
    }

    /// All that a view tells of now, referents first.
    pub fn snapshot(&self, view: u32) -> Vec<Arc<Encoded>> {
        let Some(view) = self.views.get(view) else { return Vec::new() };
        let mut all: Vec<Arc<Encoded>> = match view.node {
            None => self.objects.iter().map(|(_, object)| object.encoded.clone()).collect(),
            Some(_) => {
                let groups = view.sent.iter().filter_map(|group| self.groups.get(group));
                let grouped: BTreeSet<u32> = groups.flat_map(|group| group.parts.keys().copied()).collect();
                let all = self.common.iter().chain(&grouped);
                all.filter_map(|id| Some(self.objects.get(*id)?.encoded.clone())).collect()
            }
        };
        all.sort_by_key(|object| object.kind);
        all
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Selectors whose members somebody needs.
    pub fn selectors(&self) -> usize {
        self.selectors.needed()
    }

    fn set(&mut self, entry: &Entry, batch: &mut Batch) {
        let known = self.by_key.get(&entry.key).copied().or_else(|| batch.gone.remove(&entry.key));
        let id = match known {
            Some(id) => {
                self.touch(id, batch);
                self.detach(id, batch);
                id
            }
            None => {
                let id = self.objects.put(Object::new(entry));
                batch.objects.insert(id, Before { encoded: None, groups: BTreeSet::new(), block: None });
                id
            }
        };
        self.by_key.insert(entry.key.clone(), id);
        let mut object = Object::new(entry);
        self.attach(id, Facts::of(&entry.json), &mut object, batch);
        if let Some(place) = self.objects.get_mut(id) {
            *place = object;
        }
    }

    fn unset(&mut self, key: &Key, batch: &mut Batch) {
        let Some(id) = self.by_key.remove(key) else { return };
        self.touch(id, batch);
        self.detach(id, batch);
        self.common.remove(&id);
        // Its number stays taken until everybody has been told.
        batch.gone.insert(key.clone(), id);
    }

    fn touch(&self, id: u32, batch: &mut Batch) {
        let Some(object) = self.objects.get(id) else { return };
        batch.objects.entry(id).or_insert_with(|| Before {
            encoded: Some(object.encoded.clone()),
            groups: object.groups.clone(),
            block: object.block.clone(),
        });
    }

    /// Takes an object out of all that follows from it.
    fn detach(&mut self, id: u32, batch: &mut Batch) {
        let Some(object) = self.objects.get_mut(id) else { return };
        let (groups, wide) = (std::mem::take(&mut object.groups), std::mem::take(&mut object.wide));
        if let Some(block) = object.block.take() {
            batch.groups.extend(self.places.block(id, &block, false));
        }
        for group in groups {
            batch.groups.insert(group);
            if let Some(group) = self.groups.get_mut(group) {
                group.parts.remove(&id);
            }
        }
        for taken in wide {
            match taken {
                Taken::Profile(profile) => {
                    batch.profiles.insert(profile);
                    if let Some(profile) = self.profiles.get_mut(profile) {
                        profile.given.retain(|(_, from), _| *from != id);
                    }
                }
                Taken::Node(name) => {
                    self.places.node(id, &name, None);
                    batch.groups.extend(self.locals.get(&name).into_iter().flatten());
                }
                Taken::Pool(cidr) => batch.groups.extend(self.places.pool(cidr, false)),
                Taken::Services(blocks) => {
                    blocks.iter().for_each(|cidr| batch.groups.extend(self.places.services(*cidr, false)));
                }
            }
        }
    }

    /// Takes in what follows from an object.
    fn attach(&mut self, id: u32, facts: Facts, object: &mut Object, batch: &mut Batch) {
        let Facts { parts, wide, block } = facts;
        let mut by_group: BTreeMap<u32, Vec<Part>> = BTreeMap::new();
        for (key, part) in parts {
            let group = match self.by_group.get(&key) {
                Some(group) => *group,
                None => {
                    let group = self.groups.put(Group::new(key.clone()));
                    self.by_group.insert(key, group);
                    group
                }
            };
            object.groups.insert(group);
            by_group.entry(group).or_default().push(part);
        }
        for (group, parts) in by_group {
            batch.groups.insert(group);
            if let Some(group) = self.groups.get_mut(group) {
                group.parts.insert(id, parts);
            }
        }
        if let Some(block) = &block {
            batch.groups.extend(self.places.block(id, block, true));
        }
        object.block = block;
        object.wide = wide.into_iter().map(|wide| self.spread(id, wide, batch)).collect();
        match object.groups.is_empty() {
            true => self.common.insert(id),
            false => self.common.remove(&id),
        };
    }

    fn spread(&mut self, id: u32, wide: Wide, batch: &mut Batch) -> Taken {
        match wide {
            Wide::Profile(given) => {
                let profile = self.profile(&given.name);
                batch.profiles.insert(profile);
                if let Some(known) = self.profiles.get_mut(profile) {
                    known.given.insert((given.derived, id), given);
                }
                Taken::Profile(profile)
            }
            Wide::Node { name, v4, v6 } => {
                self.places.node(id, &name, Some((v4, v6)));
                batch.groups.extend(self.locals.get(&name).into_iter().flatten());
                Taken::Node(name)
            }
            Wide::Pool(cidr) => {
                batch.groups.extend(self.places.pool(cidr, true));
                Taken::Pool(cidr)
            }
            Wide::Services(blocks) => {
                blocks.iter().for_each(|cidr| batch.groups.extend(self.places.services(*cidr, true)));
                Taken::Services(blocks)
            }
        }
    }

    fn profile(&mut self, name: &str) -> u32 {
        if let Some(id) = self.by_profile.get(name) {
            return *id;
        }
        let id = self.profiles.put(Profile { name: name.into(), ..Profile::default() });
        self.by_profile.insert(name.into(), id);
        id
    }

    /// Works out what follows, and tells.
    fn finish(&mut self, mut batch: Batch) {
        for profile in batch.profiles.clone() {
            self.renew_profile(profile, &mut batch);
        }
        let (policies, members): (Vec<u32>, Vec<u32>) =
            batch.groups.iter().partition(|group| self.groups.get(**group).is_some_and(Group::is_policy));
        for group in policies {
            self.renew_policy(group, &mut batch);
        }
        // Whether somebody else has an address may concern groups that did not change.
        let mut others = BTreeSet::new();
        for group in &members {
            others.extend(self.claim(*group));
        }
        for group in &members {
            self.renew_members(*group, &mut batch);
        }
        others.retain(|group| !batch.groups.contains(group));
        for group in others {
            self.renew_width(group, &mut batch);
        }
        self.tell(&batch);
        self.sweep(batch);
    }

    fn renew_profile(&mut self, id: u32, batch: &mut Batch) {
        let Some(profile) = self.profiles.get(id) else { return };
        let given = profile.given.first_key_value().map(|(_, given)| given);
        let labels = given.map(|given| given.labels.clone()).unwrap_or_default();
        let peers: Vec<Selector> = given.map(|given| given.peers.clone()).unwrap_or_default();
        if labels != profile.labels {
            batch.groups.extend(&profile.members);
        }
        let old = profile.peers.clone();
        let peers = self.enter_all(&peers);
        self.replace_peers(Rule::Profile(id), &old, &peers, batch);
        if let Some(profile) = self.profiles.get_mut(id) {
            (profile.labels, profile.peers) = (labels, peers);
        }
        self.leave_all(&old);
    }

    fn renew_policy(&mut self, id: u32, batch: &mut Batch) {
        let Some(group) = self.groups.get(id) else { return };
        let (targets, peers) = group.asked();
        let targets: Vec<Selector> = targets.into_iter().cloned().collect();
        let peers: Vec<Selector> = peers.into_iter().cloned().collect();
        let old = (group.rules.applies_to.clone(), group.rules.peers.clone());
        let (targets, peers) = (self.enter_all(&targets), self.enter_all(&peers));
        self.replace_peers(Rule::Policy(id), &old.1, &peers, batch);
        if let Some(group) = self.groups.get_mut(id) {
            group.rules.peers.clone_from(&peers);
            group.rules.applies_to.clone_from(&targets);
        }
        for selector in old.0.difference(&targets) {
            self.select(id, *selector, false, batch);
        }
        for selector in targets.difference(&old.0) {
            self.select(id, *selector, true, batch);
        }
        for (view, of) in self.views.iter() {
            if of.sent.has(id) || of.active.contains_key(&Rule::Policy(id)) {
                batch.checks.entry(view).or_default().push(id);
            }
        }
        self.leave_all(&old.0);
        self.leave_all(&old.1);
    }

    /// The policy applies, or applies no more, to what the selector matches.
    fn select(&mut self, policy: u32, selector: u32, applies: bool, batch: &mut Batch) {
        let Some(slot) = self.selectors.get_mut(selector) else { return };
        match applies {
            true => slot.policies.insert(policy),
            false => slot.policies.remove(&policy),
        };
        let mut views = Vec::new();
        for group in &slot.members {
            let Some(group) = self.groups.get(*group) else { continue };
            let nodes =
                group.members.local.iter().filter(|(_, here)| here.0.binary_search(&selector).is_ok());
            views.extend(nodes.filter_map(|(node, _)| self.by_node.get(&Some(node.clone()))));
        }
        for view in views {
            self.activate(view, Rule::Policy(policy), applies, batch);
        }
    }

    fn enter_all(&mut self, selectors: &[Selector]) -> BTreeSet<u32> {
        selectors.iter().map(|selector| self.enter(selector)).collect()
    }

    fn enter(&mut self, selector: &Selector) -> u32 {
        let (id, is_new) = self.selectors.enter(selector);
        if is_new {
            let matched: BTreeSet<u32> = match self.by_label.candidates(selector) {
                Some(some) => {
                    some.into_iter().filter(|group| self.is_matched(*group, id, selector)).collect()
                }
                None => {
                    let all: Vec<u32> = self.groups.iter().map(|(group, _)| group).collect();
                    all.into_iter().filter(|group| self.is_matched(*group, id, selector)).collect()
                }
            };
            if let Some(slot) = self.selectors.get_mut(id) {
                slot.members = matched;
            }
        }
        id
    }

    fn is_matched(&mut self, group: u32, id: u32, selector: &Selector) -> bool {
        self.groups.get_mut(group).is_some_and(|group| group.members.enter(id, selector))
    }

    fn leave_all(&mut self, selectors: &BTreeSet<u32>) {
        for id in selectors {
            let Some(slot) = self.selectors.leave(*id) else { continue };
            for group in slot.members {
                if let Some(group) = self.groups.get_mut(group) {
                    group.members.leave(*id);
                }
            }
        }
    }

    fn replace_peers(&mut self, rule: Rule, old: &BTreeSet<u32>, new: &BTreeSet<u32>, batch: &mut Batch) {
        if old == new {
            return;
        }
        let views = self.views.iter().filter(|(_, view)| view.active.contains_key(&rule));
        for view in views.map(|(id, _)| id).collect::<Vec<_>>() {
            new.difference(old).for_each(|selector| self.need(view, *selector, true, batch));
            old.difference(new).for_each(|selector| self.need(view, *selector, false, batch));
        }
    }

    /// A policy or profile holds for one member of the node more, or less.
    fn activate(&mut self, view: u32, rule: Rule, more: bool, batch: &mut Batch) {
        let Some(of) = self.views.get_mut(view) else { return };
        if !step(&mut of.active, rule, more) {
            return;
        }
        let peers = match rule {
            Rule::Policy(group) => {
                batch.checks.entry(view).or_default().push(group);
                self.groups.get(group).map(|group| group.rules.peers.clone())
            }
            Rule::Profile(profile) => self.profiles.get(profile).map(|profile| profile.peers.clone()),
        };
        for selector in peers.unwrap_or_default() {
            self.need(view, selector, more, batch);
        }
    }

    /// One rule more, or less, of those that hold on the node names what the selector matches.
    fn need(&mut self, view: u32, selector: u32, more: bool, batch: &mut Batch) {
        let Some(of) = self.views.get_mut(view) else { return };
        if !step(&mut of.selectors, selector, more) {
            return;
        }
        let Some(slot) = self.selectors.get_mut(selector) else { return };
        match more {
            true => slot.views.insert(view),
            false => slot.views.remove(&view),
        };
        batch.checks.entry(view).or_default().extend(&slot.members);
    }

    /// Takes in the addresses of a group as they are now. Returns the other groups that have, or had, one of them.
    fn claim(&mut self, id: u32) -> BTreeSet<u32> {
        let Some(group) = self.groups.get_mut(id) else { return BTreeSet::new() };
        let seen = group.seen();
        let nets = seen.iter().flat_map(|member| {
            let node = member.node.clone().unwrap_or_default();
            member.nets.iter().map(move |net| (*net, node.clone()))
        });
        let nets: BTreeSet<(Cidr, Box<str>)> = nets.collect();
        let new: Vec<_> = nets.into_iter().collect();
        if new == group.members.nets {
            return BTreeSet::new();
        }
        let old = std::mem::replace(&mut group.members.nets, new.clone());
        let gone = old.iter().flat_map(|(net, _)| self.places.claim(*net, id, false)).collect::<Vec<_>>();
        let there = new.iter().flat_map(|(net, _)| self.places.claim(*net, id, true));
        gone.into_iter().chain(there).collect()
    }

    fn renew_members(&mut self, id: u32, batch: &mut Batch) {
        let Some(group) = self.groups.get(id) else { return };
        let seen = group.seen();
        let names: BTreeSet<Box<str>> =
            seen.iter().flat_map(|member| member.profiles.iter().cloned()).collect();
        let profiles: BTreeSet<u32> = names.iter().map(|name| self.profile(name)).collect();
        let variants: Vec<Variant> = seen
            .iter()
            .map(|member| {
                let labels = member.labels(|name| {
                    let id = self.by_profile.get(name);
                    id.and_then(|id| self.profiles.get(*id)).map_or(&[], |profile| &profile.labels)
                });
                let matched = self.selectors.matching(&labels);
                let profiles = if member.is_endpoint { member.profiles.clone() } else { Vec::new() };
                Variant { node: member.node.clone(), labels, profiles, matched }
            })
            .collect();
        let Some(group) = self.groups.get(id) else { return };
        if group.members.variants != variants || group.members.profiles != profiles {
            self.exchange(id, variants, profiles, batch);
        }
        self.renew_width(id, batch);
        let Some(group) = self.groups.get(id) else { return };
        let checks = &mut batch.checks;
        for (view, _) in self.views.iter().filter(|(_, of)| of.sent.has(id)) {
            checks.entry(view).or_default().push(id);
        }
        for selector in &group.members.matched {
            let views = self.selectors.get(*selector).into_iter().flat_map(|slot| &slot.views);
            views.for_each(|view| checks.entry(*view).or_default().push(id));
        }
        for node in group.members.local.keys() {
            if let Some(view) = self.by_node.get(&Some(node.clone())) {
                checks.entry(*view).or_default().push(id);
            }
        }
    }

    /// Puts these members in the place of the group's.
    fn exchange(&mut self, id: u32, variants: Vec<Variant>, profiles: BTreeSet<u32>, batch: &mut Batch) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let (nets, is_wide) = (std::mem::take(&mut group.members.nets), group.members.is_wide);
        let mut new = Members { variants, profiles, nets, is_wide, ..Members::default() };
        new.gather(|name| self.by_profile.get(name).copied());
        let moved = new.local != group.members.local;
        if moved {
            self.count_local(id, None, false, batch);
        }
        let Some(group) = self.groups.get_mut(id) else { return };
        let old = std::mem::replace(&mut group.members, new);
        let new = &group.members;
        for label in old.labels().difference(&new.labels()) {
            self.by_label.remove(label, id);
        }
        for label in new.labels().difference(&old.labels()) {
            self.by_label.insert(label, id);
        }
        for selector in old.matched.iter().filter(|known| new.matched.binary_search(known).is_err()) {
            if let Some(slot) = self.selectors.get_mut(*selector) {
                slot.members.remove(&id);
            }
        }
        for selector in new.matched.iter().filter(|known| old.matched.binary_search(known).is_err()) {
            if let Some(slot) = self.selectors.get_mut(*selector) {
                slot.members.insert(id);
            }
        }
        for profile in old.profiles.difference(&new.profiles) {
            batch.profiles.insert(*profile);
            if let Some(profile) = self.profiles.get_mut(*profile) {
                profile.members.remove(&id);
            }
        }
        for profile in new.profiles.difference(&old.profiles) {
            if let Some(profile) = self.profiles.get_mut(*profile) {
                profile.members.insert(id);
            }
        }
        for node in old.local.keys().filter(|node| !new.local.contains_key(*node)) {
            if let Some(groups) = self.locals.get_mut(node) {
                groups.remove(&id);
                if groups.is_empty() {
                    self.locals.remove(node);
                }
            }
        }
        for node in new.local.keys() {
            self.locals.entry(node.clone()).or_default().insert(id);
        }
        if moved {
            self.count_local(id, None, true, batch);
        }
    }

    /// Counts what holds for a group's members where they run, in or out; of one node, or of all.
    fn count_local(&mut self, id: u32, only: Option<&str>, more: bool, batch: &mut Batch) {
        let Some(group) = self.groups.get(id) else { return };
        let mut rules = Vec::new();
        for (node, (selectors, profiles)) in &group.members.local {
            let Some(view) = self.by_node.get(&Some(node.clone())) else { continue };
            if only.is_some_and(|only| *only != **node) {
                continue;
            }
            for selector in selectors {
                let policies = self.selectors.get(*selector).into_iter().flat_map(|slot| &slot.policies);
                rules.extend(policies.map(|policy| (*view, Rule::Policy(*policy))));
            }
            rules.extend(profiles.iter().map(|profile| (*view, Rule::Profile(*profile))));
        }
        for (view, rule) in rules {
            self.activate(view, rule, more, batch);
        }
    }

    /// Whether routes make the group everybody's business.
    fn renew_width(&mut self, id: u32, batch: &mut Batch) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let is_wide = group.members.nets.iter().any(|(net, node)| !self.places.is_covered(*net, node));
        if std::mem::replace(&mut group.members.is_wide, is_wide) == is_wide {
            return;
        }
        match is_wide {
            true => self.wide.insert(id),
            false => self.wide.remove(&id),
        };
        for (view, _) in self.views.iter().filter(|(_, of)| of.node.is_some()) {
            batch.checks.entry(view).or_default().push(id);
        }
    }

    /// Gives free what nothing is left of.
    fn sweep(&mut self, batch: Batch) {
        for id in batch.objects.into_keys() {
            if self.objects.get(id).is_some_and(|object| !self.is_there(id, object)) {
                self.objects.take(id);
            }
        }
        for id in batch.groups {
            if let Some(group) = self.groups.get(id).filter(|group| group.parts.is_empty()) {
                self.by_group.remove(&group.key);
                self.wide.remove(&id);
                self.groups.take(id);
            }
        }
        for id in batch.profiles {
            let unused = |profile: &&Profile| profile.given.is_empty() && profile.members.is_empty();
            if let Some(profile) = self.profiles.get(id).filter(unused) {
                self.by_profile.remove(&profile.name);
                self.profiles.take(id);
            }
        }
    }
}

/// Counts up or down. True where that makes a difference between some and none.
fn step<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: K, more: bool) -> bool {
    if more {
        let count = counts.entry(key).or_default();
        *count += 1;
        return *count == 1;
    }
    let Some(count) = counts.get_mut(&key) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
        return true;
    }
    false
}
