//! One kind a file: its fields as `projectcalico.org/v3` names them.

mod bgp_configuration;
mod bgp_filter;
mod bgp_peer;
mod calico_node_status;
mod cluster_information;
mod felix_configuration;
mod global_network_policy;
mod global_network_set;
mod host_endpoint;
mod ip_pool;
mod ipam;
mod kube_controllers_configuration;
mod network_policy;
mod network_set;
mod node;
mod profile;
mod staged;
mod tier;
mod workload_endpoint;

use serde::Serialize;

pub use bgp_configuration::*;
pub use bgp_filter::*;
pub use bgp_peer::*;
pub use calico_node_status::*;
pub use cluster_information::*;
pub use felix_configuration::*;
pub use global_network_policy::{GlobalNetworkPolicy, GlobalNetworkPolicySpec};
pub use global_network_set::GlobalNetworkSet;
pub use host_endpoint::{EndpointPort, HostEndpoint, HostEndpointSpec};
pub use ip_pool::{AllowedUse, AssignmentMode, EncapMode, IpPool, IpPoolSpec};
pub use ipam::*;
pub use kube_controllers_configuration::*;
pub use network_policy::{NetworkPolicy, NetworkPolicySpec};
pub use network_set::{NetworkSet, NetworkSetSpec};
pub use node::{Node, NodeAddress, NodeBgp, NodeInterface, NodeSpec, NodeStatus, NodeWireguard, OrchRef};
pub use profile::{Profile, ProfileSpec};
pub use staged::{Staged, StagedAction, StagedGlobalNetworkPolicy, StagedNetworkPolicy};
pub use tier::{Tier, TierAction, TierSpec};
pub use workload_endpoint::{
    ATTACHMENT, IpNat, QosControls, WorkloadEndpoint, WorkloadEndpointPort, WorkloadEndpointSpec,
};

/// An order as people write it: `100`, not `100.0`.
fn order<S: serde::Serializer>(order: &Option<f64>, s: S) -> Result<S::Ok, S::Error> {
    /// Beyond this not every whole number is an `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match order {
        Some(n) if n.fract() == 0.0 && n.abs() < EXACT => s.serialize_i64(*n as i64),
        other => other.serialize(s),
    }
}

fn is_false(b: &bool) -> bool {
    !b
}
