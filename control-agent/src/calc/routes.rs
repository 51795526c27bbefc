//! Where addresses are: on this node, on another one, or nowhere.

use super::bgp;
use super::config::Settings;
use super::tunnels::{Tunnels, Way};
use super::wireguard::Encryption;
use super::{EndpointKey, Resources, endpoint_key, workload_name};
use crate::model::scalar::AsNumber;
use crate::model::{
    AllowedUse, BgpConfiguration, Cidr, EncapMode, IpPool, Node, ServiceLoopPrevention, SubnetAddr,
    WorkloadEndpoint,
};
use margay_api::dataplane::v1::{
    self as api, Blackhole, Encapsulation, HostMetadata, LocalHost, NextHop, Prefix, Route, Unreachable,
    route::Target,
};
use std::collections::{BTreeMap, btree_map::Entry};

/// The prefix as the dataplane takes it.
pub fn packed(cidr: Cidr) -> Prefix {
    Prefix { address: cidr.octets(), length: cidr.len().into() }
}

/// Every route of `node`, whose endpoints are `local`. The more specific wins; of two claims to
/// the same prefix, this node's own workload does.
pub(super) fn routes(
    resources: &Resources,
    node: &str,
    local: &BTreeMap<EndpointKey, api::WorkloadEndpoint>,
    (tunnels, encryption): (&Tunnels<'_>, &Encryption<'_>),
    problems: &mut Vec<String>,
) -> BTreeMap<Cidr, Route> {
    let mut table = Table { routes: BTreeMap::new(), problems };
    let own = resources.get::<Node>("", node);
    let loops = Settings::of(resources, node).first(|spec| spec.service_loop_prevention);
    let loops = loops.unwrap_or(ServiceLoopPrevention::Drop);
    for address in own.into_iter().flat_map(Node::addresses) {
        let target = Target::LocalHost(LocalHost {});
        table.add(Cidr::host(address.addr), target, node, "this node itself");
    }
    for other in resources.all::<Node>() {
        let name = &other.metadata.name;
        for (address, how) in tunnels.interfaces(other) {
            let target = match (name == node, gateway(other, address)) {
                (true, _) => Target::LocalHost(LocalHost {}),
                (false, Some(gateway)) => next_hop(gateway),
                (false, None) => continue,
            };
            if let Some(route) = table.add(address, target, name, "its tunnel's interface")
                && name != node
            {
                route.set_encapsulation(how);
            }
        }
    }
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        resources.all::<WorkloadEndpoint>().partition(|endpoint| endpoint.spec.node == node);
    for endpoint in here {
        let key = endpoint_key(endpoint);
        // Of two objects for the same endpoint, the one that the dataplane knows has the routes.
        let known = local.get(&key).map(|message| message.nets.as_slice()).unwrap_or_default();
        for net in endpoint.spec.ip_networks.iter().filter(|net| known.contains(&packed(**net))) {
            table.add(*net, Target::Workload((&key).into()), node, &workload_name(endpoint));
        }
    }
    let by_bgp = bgp::makes_routes(resources);
    for endpoint in elsewhere {
        let owner = resources.get::<Node>("", &endpoint.spec.node);
        for net in &endpoint.spec.ip_networks {
            let gateway = owner.and_then(|owner| gateway(owner, *net));
            let mut encapsulation = Encapsulation::None;
            let sealed = owner.is_some_and(|owner| encryption.reaches(owner, net.is_v4()));
            let way = |gateway| match sealed {
                true => Way::Open(Encapsulation::Wireguard),
                false => tunnels.way(*net, gateway),
            };
            let target = match gateway.map(|gateway| (gateway, way(gateway))) {
                Some((gateway, Way::Open(how))) => {
                    encapsulation = how;
                    next_hop(gateway)
                }
                Some((_, Way::Closed(why))) => {
                    let whose = workload_name(endpoint);
                    table.problems.push(format!("{net} of {whose} is not reachable: {why}"));
                    Target::Blackhole(Blackhole {})
                }
                None => {
                    table.problems.push(format!(
                        "{net} of {} is not reachable: node {:?} {}",
                        workload_name(endpoint),
                        endpoint.spec.node,
                        if owner.is_some() { "has no address of that IP version" } else { "is not known" },
                    ));
                    Target::Blackhole(Blackhole {})
                }
            };
            let same_subnet = gateway.is_some_and(|gateway| {
                own.into_iter().flat_map(Node::addresses).any(|own| own.subnet().contains(gateway.addr))
            });
            // Without one of BGP's, that of its pool holds: there is no way.
            let is_of_pool = || resources.all::<IpPool>().any(|pool| pool.spec.cidr.contains(net.addr()));
            let is_plain = encapsulation == Encapsulation::None && matches!(target, Target::NextHop(_));
            if by_bgp && !same_subnet && is_plain && is_of_pool() {
                continue;
            }
            if let Some(route) = table.add(*net, target, &endpoint.spec.node, &workload_name(endpoint)) {
                route.same_subnet = same_subnet;
                route.set_encapsulation(encapsulation);
            }
        }
    }
    // What no workload has must not leave over the default route and come back.
    for pool in resources.all::<IpPool>() {
        table
            .routes
            .entry(pool.spec.cidr)
            .or_insert_with(|| route(pool.spec.cidr, Target::Blackhole(Blackhole {}), ""));
    }
    // What no service has must not go back to the router that announced it here.
    for block in service_blocks(resources) {
        let target = match loops {
            ServiceLoopPrevention::Drop => Target::Blackhole(Blackhole {}),
            ServiceLoopPrevention::Reject => Target::Unreachable(Unreachable {}),
            ServiceLoopPrevention::Disabled => continue,
        };
        table.routes.entry(block).or_insert_with(|| route(block, target, ""));
    }
    table.routes
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

struct Table<'a> {
    routes: BTreeMap<Cidr, Route>,
    problems: &'a mut Vec<String>,
}

impl Table<'_> {
    /// The new route, or `None` and a problem where the prefix is taken.
    fn add(&mut self, destination: Cidr, target: Target, node: &str, who: &str) -> Option<&mut Route> {
        match self.routes.entry(destination) {
            Entry::Vacant(entry) => Some(entry.insert(route(destination, target, node))),
            Entry::Occupied(_) => {
                self.problems.push(format!(
                    "{destination} of {who} on node {node:?} is taken by another one, which keeps it: change one of them"
                ));
                None
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
