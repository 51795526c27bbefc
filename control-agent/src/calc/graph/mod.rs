//! The desired state of one node, kept current: a change costs what follows from it, not what there is.
//!
//! What is large is followed object by object: labels and the sets of who is selected by them, who has which address, routes
//! prefix by prefix, and what is bound to the node's own endpoints. What is small (settings, nodes, tunnels, BGP, services) is
//! worked out as in [`desired`](super::desired) whenever a kind changes that it follows from. Either way what comes out equal
//! is not replaced, so that a state and the one after it share what they have in common.
//!
//! [`desired`](super::desired) is the slow twin: after any changes both say the same.

mod labels;
mod local;
mod routes;
mod sets;

use super::{
    Desired, EndpointKey, Names, Resources, bgp, config, endpoint_key, frontends, routes as table,
    services::Services, tree::Tree, tunnels::Tunnels, wireguard::Encryption,
};
use crate::model::{Cidr, IpamBlock, Key, Kind, Object as _, Resource, WorkloadEndpoint};
use local::Local;
use routes::{Routes, View};
use sets::Sets;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    sync::Arc,
};

/// The calculation of one node's state, with all that it remembers.
pub struct Graph {
    node: String,
    resources: Resources,
    /// What changed since the last update, and what it was.
    pending: BTreeMap<Key, Option<Arc<Resource>>>,
    sets: Sets,
    local: Local,
    routes: Routes,
    names: Names,
    desired: Desired,
    problems: Problems,
    /// Nothing was worked out yet.
    is_new: bool,
}

/// What is wrong, by the part that found it.
#[derive(Default)]
struct Problems {
    encryption: Vec<String>,
    services: Vec<String>,
}

/// What changed, once all is known.
struct Changes<'a> {
    kinds: BTreeSet<Kind>,
    /// Of objects: what they were, and what they are.
    objects: Vec<Change<'a>>,
    is_new: bool,
}

struct Change<'a> {
    key: &'a Key,
    old: Option<&'a Arc<Resource>>,
    new: Option<Arc<Resource>>,
}

impl Graph {
    /// Of a cluster in which there is nothing.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            resources: Resources::default(),
            pending: BTreeMap::new(),
            sets: Sets::default(),
            local: Local::new(node),
            routes: Routes::default(),
            names: Names::default(),
            desired: Desired::default(),
            problems: Problems::default(),
            is_new: true,
        }
    }

    /// Adds the object, or replaces the one of its name.
    pub fn insert(&mut self, object: impl Into<Arc<Resource>>) {
        let object = object.into();
        self.change(object.key(), Some(object));
    }

    /// Removes the object, if it is there.
    pub fn remove(&mut self, key: &Key) {
        self.change(key.clone(), None);
    }

    /// All there is.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Whose addresses are whose, as of the last [`update`](Self::update).
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The state that follows from all changes so far.
    pub fn update(&mut self) -> &Desired {
        let pending = std::mem::take(&mut self.pending);
        let changes = Changes::of(&pending, &self.resources, std::mem::take(&mut self.is_new));
        if changes.is_new || !changes.objects.is_empty() {
            self.follow(&changes);
        }
        &self.desired
    }

    fn change(&mut self, key: Key, object: Option<Arc<Resource>>) {
        for (key, before) in self.resources.change(key, object) {
            self.pending.entry(key).or_insert(before);
        }
    }

    fn follow(&mut self, changes: &Changes<'_>) {
        let mut here = BTreeSet::new();
        for change in &changes.objects {
            self.follow_one(change, &mut here);
        }
        if changes.has(&[Kind::Tier]) {
            self.local.put_tiers(&self.resources);
        }
        if changes.has(&[Kind::Node]) {
            self.sets.nodes_changed(&self.resources);
        }
        if changes.has(&[Kind::EndpointSlice]) {
            self.sets.backends_changed(&Services::new(&self.resources));
        }
        self.local.settle(&self.resources, &mut self.sets, &mut self.desired);
        self.sets.tell(&mut self.desired.ip_sets);
        // Who shares an endpoint with one that changed has the routes that it has now.
        let twins = here.iter().flat_map(|endpoint| self.local.claimants(endpoint));
        twins.for_each(|twin| self.routes.look_at(&twin.spec.ip_networks));
        self.follow_network(changes);
        if changes.has(&[Kind::Service, Kind::EndpointSlice]) || self.is_own_node(changes) {
            self.problems.services.clear();
            let (services, health_checks) =
                frontends::services(&self.resources, &self.node, &mut self.problems.services);
            self.desired.services.become_like(services);
            if *self.desired.health_checks != health_checks {
                self.desired.health_checks = Arc::new(health_checks);
            }
        }
        self.follow_bgp(changes, !here.is_empty());
        self.desired.problems = self.all_problems();
    }

    /// Follows an object where it counts by itself. The node's own workloads among them are noted.
    fn follow_one(&mut self, change: &Change<'_>, here: &mut BTreeSet<EndpointKey>) {
        let Change { key, old, new } = change;
        match key.kind {
            Kind::Profile => {
                for moved in self.sets.everybody.put_profile(&key.name, new.clone()) {
                    self.sets.follow(&moved);
                }
                self.local.put_profile(&key.name, new.as_ref());
            }
            Kind::WorkloadEndpoint | Kind::HostEndpoint | Kind::NetworkSet | Kind::GlobalNetworkSet => {
                let moved = self.sets.everybody.put(key, new.clone());
                self.sets.follow(&moved);
                self.names.put(*old, new.as_ref());
                let is_here = self.local.put_endpoint(key, new.as_ref());
                let [was, is] = [*old, new.as_ref()]
                    .map(|object| object.and_then(|object| WorkloadEndpoint::from_resource(object)));
                if is_here {
                    here.extend([was, is].into_iter().flatten().map(endpoint_key));
                }
                self.routes.put_workload(was, is);
            }
            Kind::Node => {
                self.names.put(*old, new.as_ref());
                self.routes.put_node(&key.name);
            }
            Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy => self.local.put_policy(key, new.as_ref()),
            _ => {}
        }
    }

    /// Follows what nodes, pools and settings say of the network, and all routes.
    fn follow_network(&mut self, changes: &Changes<'_>) {
        let Self { node, resources, desired, .. } = self;
        let tunnels = Tunnels::of(resources, node);
        let encryption = Encryption::of(resources, node);
        if changes.has(&[Kind::Node, Kind::IPPool, Kind::FelixConfiguration]) {
            self.problems.encryption.clear();
            desired.config = config::config(resources, node);
            desired.config.overlay = tunnels.overlay();
            desired.config.wireguard = encryption.near(&mut self.problems.encryption);
            desired.own_keys = encryption.own_keys();
            become_like(&mut desired.tunnels, tunnels.far_ends());
            become_like(&mut desired.wireguard_peers, encryption.peers());
        }
        if changes.has(&[Kind::Node]) {
            become_like(&mut desired.hosts, table::hosts(resources));
        }
        if changes.has(&[Kind::IPPool]) {
            become_like(&mut desired.pools, table::pools(resources));
        }
        let ways = table::Ways::new(resources, node, &tunnels, &encryption);
        let view = View {
            node,
            resources,
            names: &self.names,
            endpoints: &desired.endpoints,
            tunnels: &tunnels,
            encryption: &encryption,
            ways: &ways,
        };
        let settings = [Kind::FelixConfiguration, Kind::IPPool, Kind::BGPConfiguration];
        let is_own_node = changes.objects.iter().any(|change| change.is_node(node));
        if changes.has(&settings) || is_own_node {
            self.routes.put_all();
        }
        if changes.has(&settings) || changes.has(&[Kind::Node, Kind::IPAMBlock]) {
            self.routes.put_areas(&view);
        }
        self.routes.settle(&view, &mut desired.routes);
    }

    fn follow_bgp(&mut self, changes: &Changes<'_>, is_here: bool) {
        let kinds = [
            Kind::Node,
            Kind::IPPool,
            Kind::BGPConfiguration,
            Kind::BGPPeer,
            Kind::BGPFilter,
            Kind::IPAMBlock,
        ];
        let workloads = self.local.workloads();
        if changes.has(&kinds) {
            let new = bgp::bgp(&self.resources, &self.node, workloads);
            if self.desired.bgp.as_deref() != new.as_ref() {
                self.desired.bgp = new.map(Arc::new);
            }
        } else if let Some(bgp) = self.desired.bgp.as_mut().filter(|_| is_here) {
            let own = bgp::has(&self.resources, &self.node, workloads);
            if bgp.own != own {
                Arc::make_mut(bgp).own = own;
            }
        }
    }

    fn is_own_node(&self, changes: &Changes<'_>) -> bool {
        changes.objects.iter().any(|change| change.is_node(&self.node))
    }

    fn all_problems(&self) -> Vec<String> {
        let mut problems = self.resources.problems();
        problems.extend(self.local.problems(&self.resources, &self.desired));
        problems.extend(self.problems.encryption.iter().chain(&self.problems.services).cloned());
        problems.extend(self.routes.problems().cloned());
        problems.sort();
        problems
    }
}

impl<'a> Changes<'a> {
    fn of(pending: &'a BTreeMap<Key, Option<Arc<Resource>>>, resources: &Resources, is_new: bool) -> Self {
        let mut objects = Vec::new();
        for (key, old) in pending {
            let change = Change { key, old: old.as_ref(), new: resources.object(key).cloned() };
            if change.matters() {
                objects.push(change);
            }
        }
        let kinds = objects.iter().map(|change| change.key.kind).collect();
        Self { kinds, objects, is_new }
    }

    /// Some object of these kinds changed.
    fn has(&self, kinds: &[Kind]) -> bool {
        self.is_new || kinds.iter().any(|kind| self.kinds.contains(kind))
    }
}

impl Change<'_> {
    fn matters(&self) -> bool {
        let (old, new) = (self.old, self.new.as_ref());
        // That an address of a block is given away changes nothing here: only whose block it is counts.
        if self.key.kind == Kind::IPAMBlock {
            let block = |object: Option<&Arc<Resource>>| -> Option<(Cidr, Option<String>)> {
                let block = IpamBlock::from_resource(object?)?;
                Some((block.spec.cidr, block.spec.node().map(str::to_owned)))
            };
            return block(old) != block(new);
        }
        old != new
    }

    fn is_node(&self, name: &str) -> bool {
        self.key.kind == Kind::Node && self.key.name == name
    }
}

fn become_like<K: Ord + Hash + Clone, V: PartialEq>(tree: &mut Tree<K, Arc<V>>, new: BTreeMap<K, V>) {
    tree.become_like(new.into_iter().map(|(key, value)| (key, Arc::new(value))).collect());
}
