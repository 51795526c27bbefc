//! Where addresses are: on this node, on another one, or nowhere.

use super::bgp;
use super::blocks;
use super::config::Settings;
use super::tree::Tree;
use super::tunnels::{Tunnels, Way};
use super::wireguard::Encryption;
use super::{EndpointKey, Resources, endpoint_key, workload_name};
use crate::model::scalar::AsNumber;
use crate::model::{
    AllowedUse, BgpConfiguration, Cidr, ENCRYPTION, EncapMode, IpPool, Node, ServiceLoopPrevention,
    SubnetAddr, WorkloadEndpoint,
};
use margay_api::dataplane::v1::{
    self as api, Blackhole, Encapsulation, HostMetadata, LocalHost, NextHop, Prefix, Route, Unreachable,
    route::Target,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::Arc,
};

/// The prefix as the dataplane takes it.
pub fn packed(cidr: Cidr) -> Prefix {
    Prefix { address: cidr.octets(), length: cidr.len().into() }
}

/// Every route of `node`, whose endpoints are `local`. The more specific wins; of two claims to
/// the same prefix, this node's own workload does.
pub(super) fn routes(
    resources: &Resources,
    node: &str,
    local: &Tree<EndpointKey, Arc<api::WorkloadEndpoint>>,
    (tunnels, encryption): (&Tunnels<'_>, &Encryption<'_>),
    problems: &mut Vec<String>,
) -> BTreeMap<Cidr, Route> {
    let mut table = Table { routes: BTreeMap::new(), problems };
    let ways = Ways::new(resources, node, tunnels, encryption);
    for (destination, route, who) in of_nodes(resources, node, (tunnels, encryption)) {
        table.take(destination, route, || who.to_owned());
    }
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        resources.all::<WorkloadEndpoint>().partition(|endpoint| endpoint.spec.node == node);
    for endpoint in here {
        let key = endpoint_key(endpoint);
        // Of two objects for the same endpoint, the one that the dataplane knows has the routes.
        let known = local.get(&key).map(|message| message.nets.as_slice()).unwrap_or_default();
        for net in endpoint.spec.ip_networks.iter().filter(|net| known.contains(&packed(**net))) {
            table.take(*net, to_workload(*net, &key, node), || workload_name(endpoint));
        }
    }
    let mut single = BTreeSet::new();
    // There are many endpoints to each node.
    let nodes: HashMap<&str, &Node> =
        resources.all::<Node>().map(|node| (node.metadata.name.as_str(), node)).collect();
    for endpoint in elsewhere {
        let owner = nodes.get(endpoint.spec.node.as_str()).copied();
        for net in &endpoint.spec.ip_networks {
            let (found, problem) = ways.to_endpoint(*net, endpoint, owner);
            table.problems.extend(problem);
            if let Some(found) = found
                && table.take(*net, found, || workload_name(endpoint))
            {
                single.insert(*net);
            }
        }
    }
    for (destination, route) in of_areas(resources, node, &ways) {
        table.routes.entry(destination).or_insert(route);
    }
    blocks::without_covered(&mut table.routes, &single);
    table.routes
}

/// To this node itself, to others whose own packets are encrypted, and to the interfaces of tunnels, and whose each is. The
/// first of two counts.
pub(super) fn of_nodes(
    resources: &Resources,
    node: &str,
    (tunnels, encryption): (&Tunnels<'_>, &Encryption<'_>),
) -> Vec<(Cidr, Route, &'static str)> {
    let mut routes = Vec::new();
    for address in resources.get::<Node>("", node).into_iter().flat_map(Node::addresses) {
        let destination = Cidr::host(address.addr);
        let target = Target::LocalHost(LocalHost {});
        routes.push((destination, route(destination, target, node), "this node itself"));
    }
    for other in resources.all::<Node>() {
        let name = &other.metadata.name;
        // The address that the other end takes packets from, and no other of its.
        for v4 in [true, false].into_iter().filter(|v4| name != node && encryption.reaches_host(other, *v4)) {
            if let Some(address) = other.addresses().find(|address| address.addr.is_ipv4() == v4) {
                let destination = Cidr::host(address.addr);
                let mut route = route(destination, next_hop(address), name);
                route.set_encapsulation(Encapsulation::Wireguard);
                routes.push((destination, route, "another node itself"));
            }
        }
        for (address, how) in tunnels.interfaces(other) {
            let target = match (name == node, gateway(other, address)) {
                (true, _) => Target::LocalHost(LocalHost {}),
                (false, Some(gateway)) => next_hop(gateway),
                (false, None) => continue,
            };
            let mut route = route(address, target, name);
            if name != node {
                route.set_encapsulation(how);
            }
            routes.push((address, route, "its tunnel's interface"));
        }
    }
    routes
}

/// To blocks, and to what nobody has of pools and of addresses of services. They count where nothing else is said, and the
/// first of two does.
pub(super) fn of_areas(resources: &Resources, node: &str, ways: &Ways<'_>) -> Vec<(Cidr, Route)> {
    let mut routes = Vec::new();
    for (block, holder) in blocks::affine(resources) {
        // What nobody here has must not leave over the pool's or the default route and come back.
        let found = match holder == node {
            true => Some(route(block, Target::Blackhole(Blackhole {}), "")),
            // Each workload of a node that cannot be reached says why; the pool's route ends what is for the others.
            false => resources.get("", holder).and_then(|holder| ways.to(block, holder).ok().flatten()),
        };
        routes.extend(found.map(|found| (block, found)));
    }
    // What no workload has must not leave over the default route and come back.
    for pool in resources.all::<IpPool>() {
        routes.push((pool.spec.cidr, route(pool.spec.cidr, Target::Blackhole(Blackhole {}), "")));
    }
    let loops = Settings::of(resources, node).first(|spec| spec.service_loop_prevention);
    let loops = loops.unwrap_or(ServiceLoopPrevention::Drop);
    // What no service has must not go back to the router that announced it here.
    for block in service_blocks(resources) {
        let target = match loops {
            ServiceLoopPrevention::Drop => Target::Blackhole(Blackhole {}),
            ServiceLoopPrevention::Reject => Target::Unreachable(Unreachable {}),
            ServiceLoopPrevention::Disabled => continue,
        };
        routes.push((block, route(block, target, "")));
    }
    routes
}

/// To a workload of this node.
pub(super) fn to_workload(net: Cidr, key: &EndpointKey, node: &str) -> Route {
    route(net, Target::Workload(key.into()), node)
}

/// What is wrong where a prefix is another's already.
pub(super) fn taken(destination: Cidr, who: &str, node: &str) -> String {
    format!(
        "{destination} of {who} on node {node:?} is taken by another one, which keeps it: change one of them"
    )
}

/// Where addresses of services are announced from: Calico's list of them, of all kinds.
fn service_blocks(resources: &Resources) -> impl Iterator<Item = Cidr> {
    let spec = resources.get::<BgpConfiguration>("", "default").map(|configuration| &configuration.spec);
    let lists = spec.into_iter().flat_map(|spec| {
        [&spec.service_cluster_ips, &spec.service_external_ips, &spec.service_load_balancer_ips]
    });
    lists.flatten().flatten().filter_map(|block| block.cidr)
}

/// Every pool of the cluster.
pub(super) fn pools(resources: &Resources) -> BTreeMap<Cidr, api::IpPool> {
    let message = |pool: &IpPool| api::IpPool {
        cidr: Some(packed(pool.spec.cidr)),
        masquerade: pool.spec.nat_outgoing,
        ipip_mode: mode(pool.spec.ipip_mode).to_owned(),
        vxlan_mode: mode(pool.spec.vxlan_mode).to_owned(),
        allowed_uses: pool.spec.allowed_uses.iter().map(|allowed| use_name(*allowed).to_owned()).collect(),
        disabled: pool.spec.disabled,
    };
    resources.all::<IpPool>().map(|pool| (pool.spec.cidr, message(pool))).collect()
}

/// Every node of the cluster.
pub(super) fn hosts(resources: &Resources) -> BTreeMap<String, HostMetadata> {
    let message = |node: &Node| {
        let subnet = |v4: bool| {
            let found = node.addresses().find(|address| address.addr.is_ipv4() == v4)?;
            // The address, and the length of its subnet: here bits behind the length are the point.
            Some(Prefix { address: Cidr::host(found.addr).octets(), length: found.subnet().len().into() })
        };
        HostMetadata {
            hostname: node.metadata.name.clone(),
            ipv4: subnet(true),
            ipv6: subnet(false),
            as_number: node
                .spec
                .bgp
                .as_ref()
                .and_then(|bgp| bgp.as_number.map(AsNumber::get))
                .map(|n| n.to_string())
                .unwrap_or_default(),
            labels: node.metadata.labels.clone().into_iter().collect(),
        }
    };
    resources.all::<Node>().map(|node| (node.metadata.name.clone(), message(node))).collect()
}

/// The ways to other nodes.
pub(super) struct Ways<'a> {
    resources: &'a Resources,
    own: Vec<Cidr>,
    tunnels: &'a Tunnels<'a>,
    encryption: &'a Encryption<'a>,
    by_bgp: bool,
}

impl<'a> Ways<'a> {
    /// From `node`.
    pub fn new(
        resources: &'a Resources,
        node: &str,
        tunnels: &'a Tunnels<'a>,
        encryption: &'a Encryption<'a>,
    ) -> Self {
        let own = resources.get::<Node>("", node);
        let own = own.into_iter().flat_map(Node::addresses).map(|own| own.subnet()).collect();
        Self { resources, own, tunnels, encryption, by_bgp: bgp::makes_routes(resources) }
    }

    /// The route to an endpoint that another node has, `owner` if that is known; `None`: it is BGP's to make. And what is
    /// wrong.
    pub fn to_endpoint(
        &self,
        net: Cidr,
        endpoint: &WorkloadEndpoint,
        owner: Option<&Node>,
    ) -> (Option<Route>, Option<String>) {
        let node = &endpoint.spec.node;
        let unknown = || Err(format!("node {node:?} is not known"));
        match owner.map_or_else(unknown, |owner| self.to(net, owner)) {
            Ok(found) => (found, None),
            Err(why) => {
                let problem = format!("{net} of {} is not reachable: {why}", workload_name(endpoint));
                (Some(route(net, Target::Blackhole(Blackhole {}), node)), Some(problem))
            }
        }
    }

    /// The route to `net`, which `node` has; `None`: it is BGP's to make. Or why there is no way.
    pub fn to(&self, net: Cidr, node: &Node) -> Result<Option<Route>, String> {
        let name = &node.metadata.name;
        let gateway =
            gateway(node, net).ok_or_else(|| format!("node {name:?} has no address of that IP version"))?;
        let encapsulation = match self.encryption.reaches(node, net.is_v4()) {
            true => Encapsulation::Wireguard,
            false if self.encryption.is_required() => {
                return Err(format!(
                    "{ENCRYPTION} is Required, and node {name:?} and this one have not both published a WireGuard key"
                ));
            }
            false => match self.tunnels.way(net, gateway) {
                Way::Open(how) => how,
                Way::Closed(why) => return Err(why),
            },
        };
        let same_subnet = self.own.iter().any(|own| own.contains(gateway.addr));
        // Without one of BGP's, that of its pool holds: there is no way.
        let is_of_pool = || self.resources.all::<IpPool>().any(|pool| pool.spec.cidr.contains(net.addr()));
        if self.by_bgp && !same_subnet && encapsulation == Encapsulation::None && is_of_pool() {
            return Ok(None);
        }
        let mut route = route(net, next_hop(gateway), name);
        route.same_subnet = same_subnet;
        route.set_encapsulation(encapsulation);
        Ok(Some(route))
    }
}

struct Table<'a> {
    routes: BTreeMap<Cidr, Route>,
    problems: &'a mut Vec<String>,
}

impl Table<'_> {
    /// False, with a problem, where the prefix is taken.
    fn take(&mut self, destination: Cidr, new: Route, who: impl FnOnce() -> String) -> bool {
        match self.routes.entry(destination) {
            Entry::Vacant(entry) => {
                entry.insert(new);
                true
            }
            Entry::Occupied(_) => {
                self.problems.push(taken(destination, &who(), &new.node));
                false
            }
        }
    }
}

fn route(destination: Cidr, target: Target, node: &str) -> Route {
    Route {
        destination: Some(packed(destination)),
        target: Some(target),
        node: node.to_owned(),
        ..Route::default()
    }
}

fn next_hop(gateway: SubnetAddr) -> Target {
    Target::NextHop(NextHop { gateway: Cidr::host(gateway.addr).octets(), ..NextHop::default() })
}

/// The address over which others reach the node's workloads of that IP version.
fn gateway(node: &Node, net: Cidr) -> Option<SubnetAddr> {
    node.addresses().find(|address| address.addr.is_ipv4() == net.is_v4())
}

fn mode(mode: Option<EncapMode>) -> &'static str {
    match mode {
        Some(EncapMode::Always) => "Always",
        Some(EncapMode::CrossSubnet) => "CrossSubnet",
        Some(EncapMode::Never) | None => "Never",
    }
}

fn use_name(allowed: AllowedUse) -> &'static str {
    match allowed {
        AllowedUse::Workload => "Workload",
        AllowedUse::Tunnel => "Tunnel",
        AllowedUse::LoadBalancer => "LoadBalancer",
    }
}
