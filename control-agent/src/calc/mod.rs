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
mod tunnels;
mod wireguard;

use crate::model::Node;
use margay_api::dataplane::v1::{Policy, Rule};
use std::sync::Arc;

pub use bgp::{Bgp, Session};
pub use desired::{Desired, EndpointKey, PolicyKey};
pub use endpoints::{endpoint_key, workload_name};
pub use follow::{Calculated, Calculation};
pub use frontends::{HealthCheck, ServiceKey};
pub use ip_sets::node_set_id;
pub use names::{Names, Party};
pub use resources::Resources;
pub use routes::packed;
pub use wireguard::{LANES, OwnKeys};

/// Everything that the dataplane of `node` needs.
pub fn desired(resources: &Resources, node: &str) -> Desired {
    let mut problems = Vec::new();
    let resources = resources.in_calicos_kinds(&mut problems);
    let mut desired = judges(&resources, node, problems);
    let tunnels = tunnels::Tunnels::of(&resources, node);
    desired.config.overlay = tunnels.overlay();
    desired.tunnels = tunnels.far_ends();
    let encryption = wireguard::Encryption::of(&resources, node);
    desired.config.wireguard = encryption.near(&mut desired.problems);
    desired.wireguard_peers = encryption.peers();
    desired.own_keys = encryption.own_keys();
    let ways = (&tunnels, &encryption);
    desired.routes = routes::routes(&resources, node, &desired.endpoints, ways, &mut desired.problems);
    desired.pools = routes::pools(&resources);
    desired.hosts = routes::hosts(&resources);
    let (services, health_checks) = frontends::services(&resources, node, &mut desired.problems);
    (desired.services, desired.health_checks) = (services, health_checks);
    desired.bgp = bgp::bgp(&resources, node).map(Arc::new);
    desired
}

/// What of that judges packets: all but where they go.
pub fn policy(resources: &Resources, node: &str) -> Desired {
    let mut problems = Vec::new();
    let resources = resources.in_calicos_kinds(&mut problems);
    judges(&resources, node, problems)
}

/// What of that tells who serves services: all that a packet to one of them meets before it is judged.
pub fn served(resources: &Resources, node: &str) -> Desired {
    let mut problems = Vec::new();
    let resources = resources.in_calicos_kinds(&mut problems);
    let (services, health_checks) = frontends::services(&resources, node, &mut problems);
    let config = config::config(&resources, node);
    Desired { config, services, health_checks, problems, ..Desired::default() }
}

fn judges(resources: &Resources, node: &str, mut problems: Vec<String>) -> Desired {
    let mut ip_sets = ip_sets::IpSets::new(resources);
    let local = endpoints::Local::of(resources, node, &mut problems);
    let mut bound = bind::bind(resources, &local, &mut ip_sets, &mut problems);
    let profiles = profiles::profiles(resources, &local, &mut ip_sets, &mut problems);
    problems.extend(bound.policies.values().filter_map(|policy| without_nodes(resources, policy)));
    Desired {
        config: config::config(resources, node),
        ip_sets: ip_sets.finish(),
        endpoints: local.workload_messages(&mut bound),
        host_endpoints: local.host_messages(&mut bound),
        policies: bound.policies,
        profiles,
        problems,
        ..Desired::default()
    }
}

/// What is wrong with a policy that asks for nodes where there are none.
fn without_nodes(resources: &Resources, policy: &Policy) -> Option<String> {
    let asks = |rule: &Rule| rule.origin.as_ref().is_some_and(|origin| !origin.dst_node_selector.is_empty());
    let asked = policy.inbound_rules.iter().chain(&policy.outbound_rules).any(asks);
    let title = policy.id.as_ref().map_or("a policy", |id| id.name.as_str());
    (asked && resources.all::<Node>().next().is_none())
        .then(|| format!("{title} names nodes, and no Node is known: nothing is taken for one"))
}
