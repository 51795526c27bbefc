//! Routes, prefix by prefix. What a prefix leads to is what the first claim to it says; a workload of another node has a route
//! only where what is around it leads elsewhere.

use crate::{
    calc::{
        EndpointKey, Names, Resources, blocks, endpoint_key, packed,
        routes::{Ways, of_areas, of_nodes, taken, to_workload},
        tree::Tree,
        tunnels::Tunnels,
        wireguard::Encryption,
        workload_name,
    },
    model::{Cidr, WorkloadEndpoint},
};
use margay_api::dataplane::v1::{self as api, Route};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// What routes are made of, besides workloads and their nodes.
#[derive(Default)]
pub(super) struct Routes {
    /// What counts more than workloads: nodes, and interfaces of tunnels.
    of_nodes: BTreeMap<Cidr, Vec<(Route, &'static str)>>,
    /// What counts where nothing else is said: blocks, pools, addresses of services.
    of_areas: BTreeMap<Cidr, Route>,
    /// Lengths of all of those.
    lengths: BTreeSet<u8>,
    /// What workloads of a node have, by the node.
    by_node: HashMap<String, BTreeSet<Cidr>>,
    /// What workloads of a node may not have any more.
    left: Vec<(String, Cidr)>,
    problems: BTreeMap<Cidr, Vec<String>>,
    /// What is to be looked at anew.
    changed: BTreeSet<Cidr>,
}

/// What routes follow from.
pub(super) struct View<'a> {
    pub node: &'a str,
    pub resources: &'a Resources,
    pub names: &'a Names,
    pub endpoints: &'a Tree<EndpointKey, Arc<api::WorkloadEndpoint>>,
    pub tunnels: &'a Tunnels<'a>,
    pub encryption: &'a Encryption<'a>,
    pub ways: &'a Ways<'a>,
}

impl Routes {
    /// A workload has changed. `names` do not know it yet as it is.
    pub fn put_workload(&mut self, old: Option<&WorkloadEndpoint>, new: Option<&WorkloadEndpoint>) {
        for endpoint in [old, new].into_iter().flatten() {
            self.changed.extend(&endpoint.spec.ip_networks);
        }
        if let Some(old) = old {
            self.left.extend(old.spec.ip_networks.iter().map(|net| (old.spec.node.clone(), *net)));
        }
        if let Some(new) = new {
            let of_node = match self.by_node.get_mut(&new.spec.node) {
                Some(of_node) => of_node,
                None => self.by_node.entry(new.spec.node.clone()).or_default(),
            };
            of_node.extend(&new.spec.ip_networks);
        }
    }

    /// What leads to a prefix is to be looked at anew.
    pub fn look_at(&mut self, nets: &[Cidr]) {
        self.changed.extend(nets);
    }

    /// All that a node's workloads have is to be looked at anew.
    pub fn put_node(&mut self, node: &str) {
        self.changed.extend(self.by_node.get(node).into_iter().flatten());
    }

    /// All there is is to be looked at anew.
    pub fn put_all(&mut self) {
        self.changed.extend(self.by_node.values().flatten());
    }

    /// Follows what is no workload: nodes, blocks, pools, settings.
    pub fn put_areas(&mut self, view: &View<'_>) {
        let mut nodes: BTreeMap<Cidr, Vec<_>> = BTreeMap::new();
        for (destination, route, who) in of_nodes(view.resources, view.node, (view.tunnels, view.encryption))
        {
            nodes.entry(destination).or_default().push((route, who));
        }
        let mut areas = BTreeMap::new();
        for (destination, route) in of_areas(view.resources, view.node, view.ways) {
            areas.entry(destination).or_insert(route);
        }
        let old =
            (std::mem::replace(&mut self.of_nodes, nodes), std::mem::replace(&mut self.of_areas, areas));
        let is_other =
            |at: &&Cidr| old.0.get(*at) != self.of_nodes.get(*at) || old.1.get(*at) != self.of_areas.get(*at);
        let all = old.0.keys().chain(old.1.keys()).chain(self.of_nodes.keys()).chain(self.of_areas.keys());
        self.changed.extend(all.filter(is_other));
        self.lengths = self.of_nodes.keys().chain(self.of_areas.keys()).map(|net| net.len()).collect();
    }

    /// Brings the routes up to date.
    pub fn settle(&mut self, view: &View<'_>, routes: &mut Tree<Cidr, Arc<Route>>) {
        let mut changed = std::mem::take(&mut self.changed);
        // What leads elsewhere around a workload may have been what covered it.
        let wide = changed.iter().filter(|net| !net.is_host());
        let within: Vec<_> = wide.flat_map(|net| view.names.workload_nets_within(*net)).collect();
        changed.extend(within);
        for (node, net) in std::mem::take(&mut self.left) {
            let is_there = view.names.workloads(net).any(|workload| workload.spec.node == node);
            if let Some(of_node) = self.by_node.get_mut(&node).filter(|_| !is_there) {
                of_node.remove(&net);
                if of_node.is_empty() {
                    self.by_node.remove(&node);
                }
            }
        }
        for net in changed {
            let mut problems = Vec::new();
            let winner = self.winner(net, view, &mut problems);
            match winner.filter(|(route, is_single)| !is_single || !self.is_covered(net, route, view)) {
                Some((route, _)) => routes.put(net, Arc::new(route)),
                None => drop(routes.remove(&net)),
            }
            match problems.is_empty() {
                true => drop(self.problems.remove(&net)),
                false => drop(self.problems.insert(net, problems)),
            }
        }
    }

    /// What is wrong with any of it.
    pub fn problems(&self) -> impl Iterator<Item = &String> {
        self.problems.values().flatten()
    }

    /// Where a prefix leads by itself, and whether it is a workload's of another node.
    fn winner(&self, net: Cidr, view: &View<'_>, problems: &mut Vec<String>) -> Option<(Route, bool)> {
        let mut winner: Option<(Route, bool)> = None;
        let mut claim =
            |route: Route, is_single, who: &dyn Fn() -> String, problems: &mut Vec<String>| match winner {
                None => winner = Some((route, is_single)),
                Some(_) => problems.push(taken(net, &who(), &route.node)),
            };
        for (route, who) in self.of_nodes.get(&net).into_iter().flatten() {
            claim(route.clone(), false, &|| (*who).to_owned(), problems);
        }
        let claims = || {
            let workloads = view.names.workloads(net);
            // It may have it twice.
            workloads.flat_map(|workload| {
                workload.spec.ip_networks.iter().filter(|its| **its == net).map(move |_| workload)
            })
        };
        for endpoint in claims().filter(|endpoint| endpoint.spec.node == view.node) {
            let key = endpoint_key(endpoint);
            // Of two objects for the same endpoint, the one that the dataplane knows has the routes.
            if view.endpoints.get(&key).is_some_and(|known| known.nets.contains(&packed(net))) {
                claim(to_workload(net, &key, view.node), false, &|| workload_name(endpoint), problems);
            }
        }
        for endpoint in claims().filter(|endpoint| endpoint.spec.node != view.node) {
            let owner = view.resources.get("", &endpoint.spec.node);
            let (route, problem) = view.ways.to_endpoint(net, endpoint, owner);
            problems.extend(problem);
            if let Some(route) = route {
                claim(route, true, &|| workload_name(endpoint), problems);
            }
        }
        winner.or_else(|| Some((self.of_areas.get(&net)?.clone(), false)))
    }

    /// The longest prefix around it leads where it does.
    fn is_covered(&self, net: Cidr, route: &Route, view: &View<'_>) -> bool {
        let mut lengths: BTreeSet<u8> = self.lengths.range(..net.len()).copied().collect();
        lengths.extend(view.names.lengths().filter(|length| *length < net.len()));
        let around = lengths.into_iter().rev().map(|length| Cidr::truncate(net.addr(), length));
        let mut leading = around.filter_map(|outer| self.winner(outer, view, &mut Vec::new()));
        leading.next().is_some_and(|(outer, _)| blocks::lead_alike(&outer, route))
    }
}
