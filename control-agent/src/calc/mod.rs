#![doc = include_str!("README.md")]

mod catalog;
mod desired;
mod endpoints;
mod follow;
mod ip_sets;
mod policies;
mod resources;
mod routes;
mod rules;
#[cfg(test)]
mod tests;

use margay_api::dataplane::v1::{Action, NodeConfig, node_config::Established};
use std::collections::BTreeMap;

pub use desired::{Desired, EndpointKey, PolicyKey};
pub use endpoints::{endpoint_key, workload_name};
pub use follow::{Calculated, Calculation};
pub use resources::Resources;
pub use routes::packed;

/// Everything that the dataplane of `node` needs.
pub fn desired(resources: &Resources, node: &str) -> Desired {
    let mut desired = policy(resources, node);
    desired.routes = routes::routes(resources, node, &desired.endpoints, &mut desired.problems);
    desired.pools = routes::pools(resources);
    desired.hosts = routes::hosts(resources);
    desired
}

/// What of that judges packets: all but where they go.
pub fn policy(resources: &Resources, node: &str) -> Desired {
    let mut problems = Vec::new();
    let catalog = catalog::Catalog::of_cluster(resources);
    let mut ip_sets = ip_sets::IpSets::new(&catalog);
    let local = endpoints::local(resources, node, &mut problems);
    let bound = policies::bind(resources, &local, &mut ip_sets, &mut problems);
    let profiles = policies::profiles(resources, &local, &mut ip_sets, &mut problems);
    let endpoints: BTreeMap<_, _> = local
        .into_iter()
        .map(|(key, endpoint)| {
            let tiers = bound.tiers.get(&key).cloned().unwrap_or_default();
            let message = endpoints::message(&key, endpoint, tiers);
            (key, message)
        })
        .collect();
    Desired {
        config: NodeConfig {
            hostname: node.to_owned(),
            endpoint_to_host_action: Action::Deny.into(),
            established: Established::Keep.into(),
        },
        ip_sets: ip_sets.finish(),
        policies: bound.policies,
        profiles,
        endpoints,
        problems,
        ..Desired::default()
    }
}
