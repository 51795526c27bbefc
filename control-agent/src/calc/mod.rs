#![doc = include_str!("README.md")]

mod bgp;
mod bind;
mod blocks;
mod catalog;
mod config;
mod desired;
mod endpoints;
mod follow;
mod frontends;
mod graph;
mod ip_sets;
mod names;
mod policies;
mod profiles;
mod resources;
mod routes;
mod rules;
mod services;
#[cfg(test)]
mod tests;
mod tiers;
mod tree;
mod tunnels;
mod wireguard;

use crate::model::{Node, WorkloadEndpoint};
use margay_api::dataplane::v1::{Policy, Rule};
use std::{collections::BTreeMap, hash::Hash, sync::Arc};

pub use bgp::{Bgp, Session};
pub use desired::{Desired, EndpointKey, PolicyKey};
pub use endpoints::{endpoint_key, workload_name};
pub use follow::{Calculated, Calculation};
pub use frontends::{HealthCheck, ServiceKey};
pub use graph::Graph;
pub use ip_sets::{IpSet, Record, node_set_id};
pub use names::{Names, Party};
pub use resources::Resources;
pub use routes::packed;
pub use tree::{Difference, Tree};
pub use wireguard::{LANES, OwnKeys};

/// Everything that the dataplane of `node` needs.
pub fn desired(resources: &Resources, node: &str) -> Desired {
    let mut desired = judges(resources, node);
    let problems = &mut desired.problems;
    let tunnels = tunnels::Tunnels::of(resources, node);
    desired.config.overlay = tunnels.overlay();
    desired.tunnels = shared(tunnels.far_ends());
    let encryption = wireguard::Encryption::of(resources, node);
    desired.config.wireguard = encryption.near(problems);
    desired.wireguard_peers = shared(encryption.peers());
    desired.own_keys = encryption.own_keys();
    let ways = (&tunnels, &encryption);
    desired.routes = shared(routes::routes(resources, node, &desired.endpoints, ways, problems));
    desired.pools = shared(routes::pools(resources));
    desired.hosts = shared(routes::hosts(resources));
    let (services, health_checks) = frontends::services(resources, node, problems);
    (desired.services, desired.health_checks) = (services.into(), Arc::new(health_checks));
    let workloads = resources.all::<WorkloadEndpoint>().filter(|workload| workload.spec.node == node);
    desired.bgp = bgp::bgp(resources, node, workloads).map(Arc::new);
    problems.sort();
    desired
}

/// What of that judges packets: all but where they go.
pub fn policy(resources: &Resources, node: &str) -> Desired {
    let mut desired = judges(resources, node);
    desired.problems.sort();
    desired
}

/// What of that tells who serves services: all that a packet to one of them meets before it is judged.
pub fn served(resources: &Resources, node: &str) -> Desired {
    let mut problems = resources.problems();
    let (services, health_checks) = frontends::services(resources, node, &mut problems);
    problems.sort();
    let (services, health_checks) = (services.into(), Arc::new(health_checks));
    Desired {
        config: config::config(resources, node),
        services,
        health_checks,
        problems,
        ..Desired::default()
    }
}

fn judges(resources: &Resources, node: &str) -> Desired {
    let mut problems = resources.problems();
    let mut wanted = ip_sets::Wanted::new();
    let local = endpoints::Local::of(resources, node, &mut problems);
    let mut bound = bind::bind(resources, &local, &mut wanted, &mut problems);
    let profiles = profiles::profiles(resources, &local, &mut wanted, &mut problems);
    problems.extend(bound.policies.values().filter_map(|policy| without_nodes(resources, policy)));
    Desired {
        config: config::config(resources, node),
        ip_sets: ip_sets::IpSets::new(resources).of(&wanted),
        endpoints: shared(local.workload_messages(&mut bound)),
        host_endpoints: shared(local.host_messages(&mut bound)),
        policies: shared(bound.policies),
        profiles: shared(profiles),
        problems,
        ..Desired::default()
    }
}

/// Values that copies of the map share.
fn shared<K: Ord + Hash + Clone, V>(map: BTreeMap<K, V>) -> Tree<K, Arc<V>> {
    map.into_iter().map(|(key, value)| (key, Arc::new(value))).collect()
}

/// What is wrong with a policy that asks for nodes where there are none.
fn without_nodes(resources: &Resources, policy: &Policy) -> Option<String> {
    let asks = |rule: &Rule| rule.origin.as_ref().is_some_and(|origin| !origin.dst_node_selector.is_empty());
    let asked = policy.inbound_rules.iter().chain(&policy.outbound_rules).any(asks);
    let title = policy.id.as_ref().map_or("a policy", |id| id.name.as_str());
    (asked && resources.all::<Node>().next().is_none())
        .then(|| format!("{title} names nodes, and no Node is known: nothing is taken for one"))
}
