//! The endpoints of the node: workloads' and the host's own.

use super::{
    EndpointKey, Resources,
    bind::{Bindings, Bound, HostBindings},
    packed,
};
use crate::model::{HostEndpoint, IpNat, QosControls, WorkloadEndpoint};
use margay_api::dataplane::v1::{self as api, NatMapping, qos_controls::Limit};
use std::{collections::BTreeMap, net::IpAddr};

/// What is protected on one node.
pub(super) struct Local<'a> {
    /// Each id once.
    pub workloads: BTreeMap<EndpointKey, &'a WorkloadEndpoint>,
    /// By name.
    pub hosts: BTreeMap<String, &'a HostEndpoint>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Workload(EndpointKey),
    Host(String),
}

impl<'a> Local<'a> {
    pub fn of(resources: &'a Resources, node: &str, problems: &mut Vec<String>) -> Self {
        let mut workloads: BTreeMap<_, &WorkloadEndpoint> = BTreeMap::new();
        for endpoint in resources.all::<WorkloadEndpoint>().filter(|endpoint| endpoint.spec.node == node) {
            let key = endpoint_key(endpoint);
            if let Some(first) = workloads.get(&key) {
                problems.push(twice(first, endpoint));
            } else {
                workloads.insert(key, endpoint);
            }
        }
        let hosts = resources.all::<HostEndpoint>().filter(|endpoint| endpoint.spec.node == node);
        let hosts = hosts.map(|endpoint| (endpoint.metadata.name.clone(), endpoint));
        Self { workloads, hosts: hosts.collect() }
    }

    /// The profiles that they name, with repetitions.
    pub fn profiles(&self) -> impl Iterator<Item = &'a String> {
        let workloads = self.workloads.values().flat_map(|endpoint| &endpoint.spec.profiles);
        workloads.chain(self.hosts.values().flat_map(|endpoint| &endpoint.spec.profiles))
    }

    /// As the dataplane takes the workloads', bound to what decides for them.
    pub fn workload_messages(&self, bound: &mut Bound) -> BTreeMap<EndpointKey, api::WorkloadEndpoint> {
        let message = |(key, endpoint): (&EndpointKey, &&WorkloadEndpoint)| {
            let tiers = bound.workloads.remove(key).unwrap_or_default();
            (key.clone(), workload(key, endpoint, tiers))
        };
        self.workloads.iter().map(message).collect()
    }

    /// As the dataplane takes the host's own, bound to what decides for them.
    pub fn host_messages(&self, bound: &mut Bound) -> BTreeMap<String, api::HostEndpoint> {
        let message = |(name, endpoint): (&String, &&HostEndpoint)| {
            let tiers = bound.hosts.remove(name).unwrap_or_default();
            (name.clone(), host(endpoint, tiers))
        };
        self.hosts.iter().map(message).collect()
    }
}

/// What the dataplane calls the endpoint.
pub fn endpoint_key(endpoint: &WorkloadEndpoint) -> EndpointKey {
    EndpointKey {
        orchestrator: endpoint.spec.orchestrator.clone(),
        workload: workload_name(endpoint),
        endpoint: endpoint.spec.endpoint.clone(),
    }
}

/// What people call the workload: its namespace, and its pod's name or what else it is known by.
pub fn workload_name(endpoint: &WorkloadEndpoint) -> String {
    let names = [&endpoint.spec.pod, &endpoint.spec.workload, &endpoint.metadata.name];
    let name = names.into_iter().find(|name| !name.is_empty()).map_or("", String::as_str);
    format!("{}/{name}", endpoint.metadata.namespace)
}

/// As the dataplane takes a workload's.
pub(super) fn workload(
    key: &EndpointKey,
    endpoint: &WorkloadEndpoint,
    tiers: Bindings,
) -> api::WorkloadEndpoint {
    let spec = &endpoint.spec;
    api::WorkloadEndpoint {
        id: Some(key.into()),
        display_name: workload_name(endpoint),
        interface_name: spec.interface_name.clone(),
        active: true,
        mac: mac(&spec.mac).unwrap_or_default(),
        nets: spec.ip_networks.iter().copied().map(packed).collect(),
        tiers: tiers.in_force,
        profile_ids: spec.profiles.clone(),
        allow_spoofed_sources: spec.allow_spoofed_source_prefixes.iter().copied().map(packed).collect(),
        nat: spec.ip_nats.iter().map(nat).collect(),
        qos: spec.qos_controls.as_ref().map(limits),
        annotations: endpoint.metadata.annotations.clone().into_iter().collect(),
        staged_tiers: tiers.staged,
    }
}

fn limits(qos: &QosControls) -> api::QosControls {
    let limit = |max_connections, new_connections_per_second| {
        Some(Limit { max_connections, new_connections_per_second, ..Limit::default() })
    };
    api::QosControls {
        ingress: limit(qos.ingress_max_connections, qos.ingress_new_connections_per_second),
        egress: limit(qos.egress_max_connections, qos.egress_new_connections_per_second),
    }
}

/// As the dataplane takes one of the host's.
pub(super) fn host(endpoint: &HostEndpoint, tiers: HostBindings) -> api::HostEndpoint {
    let spec = &endpoint.spec;
    api::HostEndpoint {
        id: endpoint.metadata.name.clone(),
        interface_name: spec.interface_name.clone(),
        expected_addresses: spec.expected_ips.iter().copied().map(octets).collect(),
        tiers: tiers.normal.in_force,
        untracked_tiers: tiers.untracked,
        pre_dnat_tiers: tiers.pre_dnat,
        forward_tiers: tiers.forward,
        profile_ids: spec.profiles.clone(),
        staged_tiers: tiers.normal.staged,
    }
}

fn nat(nat: &IpNat) -> NatMapping {
    NatMapping { external: octets(nat.external_ip), internal: octets(nat.internal_ip) }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Six bytes from `ee:ee:ee:ee:ee:ee`; none where there is no address, which then is learned.
fn mac(text: &str) -> Option<Vec<u8>> {
    let bytes =
        text.split([':', '-']).map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<Vec<_>>>()?;
    (bytes.len() == 6).then_some(bytes)
}

/// What is wrong with two that are one.
pub(super) fn twice(first: &WorkloadEndpoint, second: &WorkloadEndpoint) -> String {
    let (first, second) = (title(first), title(second));
    format!(
        "{first} and {second} are the same endpoint of the same workload; only the first is used: delete one"
    )
}

fn title(endpoint: &WorkloadEndpoint) -> String {
    format!("WorkloadEndpoint {}/{}", endpoint.metadata.namespace, endpoint.metadata.name)
}
