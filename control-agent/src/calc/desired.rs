//! Everything this node's dataplane needs, and nothing else.

use super::bgp::Bgp;
use super::frontends::{HealthCheck, ServiceKey};
use super::wireguard::OwnKeys;
use super::{ip_sets::IpSet, tree::Tree};
use crate::model::Cidr;
use margay_api::dataplane::v1::{
    HostEndpoint, HostMetadata, IpPool, NodeConfig, Policy, PolicyId, Profile, Route, Service,
    TunnelEndpoint, WireguardPeer, WorkloadEndpoint, WorkloadEndpointId,
};
use std::{collections::BTreeMap, sync::Arc};

/// The desired state of one node, as the messages that the dataplane takes, by object. Copies share what is the same in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// What holds for the whole node.
    pub config: NodeConfig,
    /// By id.
    pub ip_sets: Tree<String, IpSet>,
    /// Those that select an endpoint of this node.
    pub policies: Tree<PolicyKey, Arc<Policy>>,
    /// Those that an endpoint of this node names, by name.
    pub profiles: Tree<String, Arc<Profile>>,
    /// Workloads of this node.
    pub endpoints: Tree<EndpointKey, Arc<WorkloadEndpoint>>,
    /// Those of this node, by name.
    pub host_endpoints: Tree<String, Arc<HostEndpoint>>,
    /// By destination.
    pub routes: Tree<Cidr, Arc<Route>>,
    /// By prefix.
    pub pools: Tree<Cidr, Arc<IpPool>>,
    /// All nodes of the cluster, by name.
    pub hosts: Tree<String, Arc<HostMetadata>>,
    /// The other ends of tunnels, by node.
    pub tunnels: Tree<String, Arc<TunnelEndpoint>>,
    /// Those of encrypted ones, by node.
    pub wireguard_peers: Tree<String, Arc<WireguardPeer>>,
    /// Of this node: published here, and made by the dataplane.
    pub own_keys: OwnKeys,
    /// Those that packets can be sent to.
    pub services: Tree<ServiceKey, Arc<Service>>,
    /// What load balancers ask this node about services, by port: served here, not by the dataplane.
    pub health_checks: Arc<BTreeMap<u16, HealthCheck>>,
    /// How the node speaks BGP, which is said to a routing daemon; none: the node is not known.
    pub bgp: Option<Arc<Bgp>>,
    /// What is wrong with the resources, and what was done about it. One sentence each, sorted.
    pub problems: Vec<String>,
}

/// A [`PolicyId`] that sorts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "as in the message")]
pub struct PolicyKey {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl From<&PolicyKey> for PolicyId {
    fn from(key: &PolicyKey) -> Self {
        Self { kind: key.kind.clone(), namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

/// A [`WorkloadEndpointId`] that sorts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "as in the message")]
pub struct EndpointKey {
    pub orchestrator: String,
    pub workload: String,
    pub endpoint: String,
}

impl From<&EndpointKey> for WorkloadEndpointId {
    fn from(key: &EndpointKey) -> Self {
        Self {
            orchestrator: key.orchestrator.clone(),
            workload: key.workload.clone(),
            endpoint: key.endpoint.clone(),
        }
    }
}

impl From<WorkloadEndpointId> for EndpointKey {
    fn from(id: WorkloadEndpointId) -> Self {
        Self { orchestrator: id.orchestrator, workload: id.workload, endpoint: id.endpoint }
    }
}
