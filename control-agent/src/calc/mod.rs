#![doc = include_str!("README.md")]

mod bind;
mod catalog;
mod config;
mod desired;
mod endpoints;
mod follow;
mod frontends;
mod ip_sets;
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

pub use desired::{Desired, EndpointKey, PolicyKey};
pub use endpoints::{endpoint_key, workload_name};
pub use follow::{Calculated, Calculation};
pub use frontends::{HealthCheck, ServiceKey};
pub use resources::Resources;
pub use routes::packed;

/// Everything that the dataplane of `node` needs.
pub fn desired(resources: &Resources, node: &str) -> Desired {
    let mut problems = Vec::new();
    let resources = resources.in_calicos_kinds(&mut problems);
    let mut desired = judges(&resources, node, problems);
    let tunnels = tunnels::Tunnels::of(&resources, node);
    desired.config.overlay = tunnels.overlay();
    desired.tunnels = tunnels.far_ends();
    desired.routes = routes::routes(&resources, node, &desired.endpoints, &tunnels, &mut desired.problems);
    desired.pools = routes::pools(&resources);
    desired.hosts = routes::hosts(&resources);
    let (services, health_checks) = frontends::services(&resources, node, &mut desired.problems);
    (desired.services, desired.health_checks) = (services, health_checks);
    desired
}

/// What of that judges packets: all but where they go.
pub fn policy(resources: &Resources, node: &str) -> Desired {
    let mut problems = Vec::new();
    let resources = resources.in_calicos_kinds(&mut problems);
    judges(&resources, node, problems)
}

fn judges(resources: &Resources, node: &str, mut problems: Vec<String>) -> Desired {
    let mut ip_sets = ip_sets::IpSets::new(resources);
    let local = endpoints::Local::of(resources, node, &mut problems);
    let mut bound = bind::bind(resources, &local, &mut ip_sets, &mut problems);
    let profiles = profiles::profiles(resources, &local, &mut ip_sets, &mut problems);
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
