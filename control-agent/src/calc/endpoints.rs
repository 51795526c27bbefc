//! The workload endpoints of the node.

use super::{EndpointKey, Resources, packed};
use crate::model::{IpNat, WorkloadEndpoint};
use margay_api::dataplane::v1::{self as api, NatMapping, TierBinding};
use std::{collections::BTreeMap, net::IpAddr};

/// The endpoints of `node`, each id once.
pub(super) fn local<'a>(
    resources: &'a Resources,
    node: &str,
    problems: &mut Vec<String>,
) -> BTreeMap<EndpointKey, &'a WorkloadEndpoint> {
    let mut local: BTreeMap<_, &WorkloadEndpoint> = BTreeMap::new();
    for endpoint in resources.all::<WorkloadEndpoint>().filter(|endpoint| endpoint.spec.node == node) {
        let key = endpoint_key(endpoint);
        if let Some(first) = local.get(&key) {
            problems.push(format!(
                "{} and {} are the same endpoint of the same workload; only the first is used: delete one",
                title(first),
                title(endpoint)
            ));
        } else {
            local.insert(key, endpoint);
        }
    }
    local
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

/// The endpoint as the dataplane takes it, bound to the policies of `tiers`.
pub(super) fn message(
    key: &EndpointKey,
    endpoint: &WorkloadEndpoint,
    tiers: Vec<TierBinding>,
) -> api::WorkloadEndpoint {
    let spec = &endpoint.spec;
    api::WorkloadEndpoint {
        id: Some(key.into()),
        display_name: workload_name(endpoint),
        interface_name: spec.interface_name.clone(),
        active: true,
        mac: mac(&spec.mac).unwrap_or_default(),
        nets: spec.ip_networks.iter().copied().map(packed).collect(),
        tiers,
        profile_ids: spec.profiles.clone(),
        allow_spoofed_sources: spec.allow_spoofed_source_prefixes.iter().copied().map(packed).collect(),
        nat: spec.ip_nats.iter().map(nat).collect(),
        qos: None,
        annotations: endpoint.metadata.annotations.clone().into_iter().collect(),
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

fn title(endpoint: &WorkloadEndpoint) -> String {
    format!("WorkloadEndpoint {}/{}", endpoint.metadata.namespace, endpoint.metadata.name)
}
