//! What judges packets of this node's endpoints: their policies, and the profiles that they name.

use super::{labels::LabelIndex, sets::Sets};
use crate::{
    calc::{
        Desired, EndpointKey, PolicyKey, Resources,
        bind::{Binding, Bound, Staging},
        endpoint_key,
        endpoints::{self, Owner},
        ip_sets::Wanted,
        policies::{self, Policy},
        profiles,
        tiers::Tiers,
        without_nodes,
    },
    model::{HostEndpoint, Key, Node, Object as _, Resource, Selector, StagedAction, WorkloadEndpoint},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The node's endpoints, all policies, and who is bound to whom.
pub(super) struct Local {
    node: String,
    /// Its endpoints, with those that are another's twin.
    objects: BTreeMap<Key, Arc<Resource>>,
    /// Which objects say that they are a workload's endpoint: the first of them counts.
    claims: BTreeMap<EndpointKey, BTreeSet<Key>>,
    /// Those that count, and what is wrong with the others.
    owners: BTreeMap<Key, Owner>,
    twins: BTreeMap<Key, String>,
    /// The ones that count, and the selectors of policies.
    index: LabelIndex,
    policies: BTreeMap<Key, Indexed>,
    /// Policies by their selectors.
    by_selector: HashMap<usize, BTreeSet<Key>>,
    tiers: Tiers,
    staging: Staging,
    /// By endpoint: as what it was bound, and the policies that have a say.
    bound: BTreeMap<Key, (Owner, BTreeSet<Key>)>,
    /// For how many endpoints a policy has a say.
    uses: BTreeMap<Key, usize>,
    active: BTreeMap<Key, Active>,
    profiles: BTreeMap<String, Active>,
    /// What is to be looked at anew.
    changed: BTreeSet<Key>,
    unbound: BTreeSet<Key>,
    stale: BTreeSet<Key>,
    stale_profiles: BTreeSet<String>,
    staged_changed: bool,
}

struct Indexed {
    object: Arc<Resource>,
    selector: usize,
}

/// What a policy or profile that is sent asks for, and what is wrong with it.
struct Active {
    wanted: Wanted,
    problems: Vec<String>,
}

impl Local {
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            objects: BTreeMap::new(),
            claims: BTreeMap::new(),
            owners: BTreeMap::new(),
            twins: BTreeMap::new(),
            index: LabelIndex::default(),
            policies: BTreeMap::new(),
            by_selector: HashMap::new(),
            tiers: Tiers::new(&Resources::default()),
            staging: Staging::default(),
            bound: BTreeMap::new(),
            uses: BTreeMap::new(),
            active: BTreeMap::new(),
            profiles: BTreeMap::new(),
            changed: BTreeSet::new(),
            unbound: BTreeSet::new(),
            stale: BTreeSet::new(),
            stale_profiles: BTreeSet::new(),
            staged_changed: false,
        }
    }

    /// An endpoint of any node has changed. Returns whether it was or is this node's.
    pub fn put_endpoint(&mut self, key: &Key, object: Option<&Arc<Resource>>) -> bool {
        let object = object.filter(|object| node_of(object) == Some(&self.node));
        let was = match object {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(key),
        };
        if was.is_none() && object.is_none() {
            return false;
        }
        self.changed.insert(key.clone());
        let claim = |object: &Arc<Resource>| WorkloadEndpoint::from_resource(object).map(endpoint_key);
        let (was, is) = (was.as_ref().and_then(claim), object.and_then(claim));
        if was != is {
            if let Some(was) = was {
                self.withdraw(&was, key);
            }
            if let Some(is) = is {
                self.claims.entry(is).or_default().insert(key.clone());
            }
        }
        // Whom it is the twin of, and whose first it is, may say another thing now.
        if let Some(claimants) = object.and_then(claim).and_then(|is| self.claims.get(&is)) {
            self.changed.extend(claimants.iter().cloned());
        }
        true
    }

    /// The object is that endpoint no more.
    fn withdraw(&mut self, endpoint: &EndpointKey, key: &Key) {
        let Some(claimants) = self.claims.get_mut(endpoint) else { return };
        claimants.remove(key);
        self.changed.extend(claimants.iter().cloned());
        if claimants.is_empty() {
            self.claims.remove(endpoint);
        }
    }

    /// The workloads of this node that say that they are this endpoint.
    pub fn claimants(&self, endpoint: &EndpointKey) -> impl Iterator<Item = &WorkloadEndpoint> {
        let keys = self.claims.get(endpoint).into_iter().flatten();
        keys.filter_map(|key| WorkloadEndpoint::from_resource(&self.objects[key]))
    }

    /// The workloads of this node.
    pub fn workloads(&self) -> impl Iterator<Item = &WorkloadEndpoint> {
        self.objects.values().filter_map(|object| WorkloadEndpoint::from_resource(object))
    }

    /// A profile has changed.
    pub fn put_profile(&mut self, name: &str, profile: Option<&Arc<Resource>>) {
        for moved in self.index.put_profile(name, profile.cloned()) {
            self.unbound.extend(moved.is.map(|(object, _)| object.key()));
        }
        self.stale_profiles.insert(name.to_owned());
    }

    /// A policy has changed.
    pub fn put_policy(&mut self, key: &Key, object: Option<&Arc<Resource>>) {
        let policy = object.and_then(|object| Policy::of(object));
        // One whose selector cannot be read denies everywhere.
        let selector = policy.as_ref().map(|policy| policy.applies_to().unwrap_or_else(|_| Selector::all()));
        let selector = selector.map(|selector| self.index.watch(&selector));
        let is_staged = |object: &Resource| Policy::of(object).is_some_and(|policy| policy.staged.is_some());
        self.staged_changed |= object.is_some_and(|object| is_staged(object));
        if let Some(old) = self.policies.remove(key) {
            self.staged_changed |= is_staged(&old.object);
            self.unbind(old.selector);
            let of_selector = self.by_selector.entry(old.selector).or_default();
            of_selector.remove(key);
            if of_selector.is_empty() {
                self.by_selector.remove(&old.selector);
            }
            self.index.unwatch(old.selector);
        }
        if let Some((object, selector)) = object.zip(selector) {
            self.policies.insert(key.clone(), Indexed { object: object.clone(), selector });
            self.by_selector.entry(selector).or_default().insert(key.clone());
            self.unbind(selector);
        }
        self.stale.insert(key.clone());
    }

    /// Tiers have changed.
    pub fn put_tiers(&mut self, resources: &Resources) {
        self.tiers = Tiers::new(resources);
        self.unbound.extend(self.owners.keys().cloned());
        self.stale.extend(self.active.keys().cloned());
    }

    /// Brings the result up to date.
    pub fn settle(&mut self, resources: &Resources, sets: &mut Sets, desired: &mut Desired) {
        if std::mem::take(&mut self.staged_changed) {
            let policies: Vec<_> =
                self.policies.values().filter_map(|policy| Policy::of(&policy.object)).collect();
            let staging = Staging::of(policies.iter());
            if staging != self.staging {
                self.staging = staging;
                self.unbound.extend(self.owners.keys().cloned());
            }
        }
        let are_others = !self.changed.is_empty();
        if are_others {
            self.choose();
        }
        let unbound = std::mem::take(&mut self.unbound);
        let mut seen = BTreeSet::new();
        for key in &unbound {
            if let Some((owner, used)) = self.bound.remove(key) {
                for policy in &used {
                    *self.uses.get_mut(policy).expect("a policy in use is counted") -= 1;
                }
                seen.extend(used);
                if self.owners.get(key) != Some(&owner) {
                    forget(&owner, desired);
                }
            }
        }
        for key in unbound {
            if let Some(owner) = self.owners.get(&key).cloned() {
                let used = self.bind(&key, &owner, desired);
                for policy in &used {
                    *self.uses.entry(policy.clone()).or_default() += 1;
                }
                seen.extend(used.iter().cloned());
                self.bound.insert(key, (owner, used));
            }
        }
        let stale = std::mem::take(&mut self.stale);
        seen.extend(stale.iter().cloned());
        for policy in seen {
            let is_stale = stale.contains(&policy) || !self.active.contains_key(&policy);
            self.send_policy(&policy, is_stale, resources, sets, desired);
        }
        if are_others || !self.stale_profiles.is_empty() {
            self.send_profiles(resources, sets, desired);
        }
    }

    /// What is wrong with any of it.
    pub fn problems(&self, resources: &Resources, desired: &Desired) -> Vec<String> {
        let active = self.active.values().chain(self.profiles.values());
        let mut problems: Vec<_> = self.twins.values().cloned().collect();
        problems.extend(active.flat_map(|active| active.problems.iter().cloned()));
        if resources.of_kind(Node::KIND).next().is_none() {
            problems.extend(desired.policies.values().filter_map(|policy| without_nodes(resources, policy)));
        }
        problems
    }

    /// Decides which of the changed objects count: of two that are one endpoint, the first.
    fn choose(&mut self) {
        for key in std::mem::take(&mut self.changed) {
            self.twins.remove(&key);
            let owner = self.objects.get(&key).and_then(|object| self.owner(&key, object));
            let object = self.objects.get(&key).filter(|_| owner.is_some());
            self.index.put(&key, object.cloned());
            match owner {
                Some(owner) => drop(self.owners.insert(key.clone(), owner)),
                None => {
                    self.owners.remove(&key);
                    if let Some(sentence) = self.twin(&key) {
                        self.twins.insert(key.clone(), sentence);
                    }
                }
            }
            self.unbound.insert(key);
        }
    }

    /// As what the object counts, if it does.
    fn owner(&self, key: &Key, object: &Resource) -> Option<Owner> {
        let Some(endpoint) = WorkloadEndpoint::from_resource(object) else {
            return Some(Owner::Host(key.name.clone()));
        };
        let id = endpoint_key(endpoint);
        (self.claims[&id].first() == Some(key)).then_some(Owner::Workload(id))
    }

    /// What is wrong with an object that does not count.
    fn twin(&self, key: &Key) -> Option<String> {
        let endpoint = WorkloadEndpoint::from_resource(self.objects.get(key)?)?;
        let first = self.claimants(&endpoint_key(endpoint)).next()?;
        Some(endpoints::twice(first, endpoint))
    }

    /// Has the endpoints that a selector matches bound anew.
    fn unbind(&mut self, selector: usize) {
        self.unbound.extend(self.index.selected(selector).map(|object| object.key()));
    }

    /// Binds an endpoint. Returns the policies that have a say.
    fn bind(&self, key: &Key, owner: &Owner, desired: &mut Desired) -> BTreeSet<Key> {
        let keys = || self.index.matched(key).iter().flat_map(|selector| &self.by_selector[selector]);
        let mut policies: Vec<_> = keys().filter_map(|key| Policy::of(&self.policies[key].object)).collect();
        policies::sort(&mut policies, &self.tiers);
        let mut bound = Bound::default();
        let mut have_say = BTreeSet::new();
        for policy in policies.iter().filter(|policy| policy.staged != Some(StagedAction::Delete)) {
            if bound.add(owner, policy.stage, &Binding::of(policy, &self.tiers, &self.staging)) {
                have_say.insert(&policy.key);
            }
        }
        let used = keys().filter(|key| have_say.contains(&policy_key(key))).cloned().collect();
        bound.compare(&self.staging);
        let object = &self.objects[key];
        match owner {
            Owner::Workload(id) => {
                let endpoint = WorkloadEndpoint::from_resource(object).expect("its key says what it is");
                let tiers = bound.workloads.remove(id).unwrap_or_default();
                desired.endpoints.put(id.clone(), Arc::new(endpoints::workload(id, endpoint, tiers)));
            }
            Owner::Host(name) => {
                let endpoint = HostEndpoint::from_resource(object).expect("its key says what it is");
                let tiers = bound.hosts.remove(name).unwrap_or_default();
                desired.host_endpoints.put(name.clone(), Arc::new(endpoints::host(endpoint, tiers)));
            }
        }
        used
    }

    /// Sends a policy that has a say, or takes it back.
    fn send_policy(
        &mut self,
        key: &Key,
        is_stale: bool,
        resources: &Resources,
        sets: &mut Sets,
        desired: &mut Desired,
    ) {
        let uses = self.uses.get(key).copied().unwrap_or_default();
        let object = self.policies.get(key).map(|policy| &policy.object).filter(|_| uses > 0);
        let Some(policy) = object.and_then(|object| Policy::of(object)) else {
            self.uses.remove(key);
            if let Some(old) = self.active.remove(key) {
                sets.release(&old.wanted);
                desired.policies.remove(&policy_key(key));
            }
            return;
        };
        if !is_stale {
            return;
        }
        let mut active = Active { wanted: Wanted::new(), problems: Vec::new() };
        active.problems.extend(policy.lost(&self.tiers));
        let message = policy.message(&mut active.wanted, &mut active.problems);
        desired.policies.put(policy.key.clone(), Arc::new(message));
        sets.acquire(&active.wanted, resources);
        if let Some(old) = self.active.insert(key.clone(), active) {
            sets.release(&old.wanted);
        }
    }

    fn send_profiles(&mut self, resources: &Resources, sets: &mut Sets, desired: &mut Desired) {
        let stale = std::mem::take(&mut self.stale_profiles);
        let named: BTreeSet<&String> = self.owners.keys().flat_map(|key| named(&self.objects[key])).collect();
        let is_to_be_told = |name: &&String| stale.contains(*name) || !self.profiles.contains_key(*name);
        let told: Vec<_> = named.iter().copied().filter(is_to_be_told).cloned().collect();
        let gone: Vec<_> = self.profiles.keys().filter(|name| !named.contains(name)).cloned().collect();
        for name in told {
            let mut active = Active { wanted: Wanted::new(), problems: Vec::new() };
            let message = profiles::profile(resources, &name, &mut active.wanted, &mut active.problems);
            desired.profiles.put(name.clone(), Arc::new(message));
            sets.acquire(&active.wanted, resources);
            if let Some(old) = self.profiles.insert(name, active) {
                sets.release(&old.wanted);
            }
        }
        for name in gone {
            if let Some(old) = self.profiles.remove(&name) {
                sets.release(&old.wanted);
            }
            desired.profiles.remove(&name);
        }
    }
}

fn policy_key(key: &Key) -> PolicyKey {
    PolicyKey { kind: key.kind.to_string(), namespace: key.namespace.clone(), name: key.name.clone() }
}

fn forget(owner: &Owner, desired: &mut Desired) {
    match owner {
        Owner::Workload(id) => drop(desired.endpoints.remove(id)),
        Owner::Host(name) => drop(desired.host_endpoints.remove(name)),
    }
}

/// The profiles that an endpoint names.
fn named(object: &Resource) -> &[String] {
    match object {
        Resource::WorkloadEndpoint(endpoint) => &endpoint.spec.profiles,
        Resource::HostEndpoint(host) => &host.spec.profiles,
        _ => &[],
    }
}

fn node_of(object: &Resource) -> Option<&String> {
    match object {
        Resource::WorkloadEndpoint(endpoint) => Some(&endpoint.spec.node),
        Resource::HostEndpoint(host) => Some(&host.spec.node),
        _ => None,
    }
}
