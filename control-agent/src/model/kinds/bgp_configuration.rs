//! Settings of BGP, for all nodes or for one.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{ProgramClusterRoutes, RoutePriority, Switch};
use crate::model::net::empty_is_none;
use crate::model::scalar::{
    AnyCommunity, AsNumber, Community, Duration, IgnoredInterface, Whole, choices, settings,
};
use crate::model::{Cidr, Metadata};

/// `default` is for all nodes; `node.NAME` counts more for that node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BgpConfiguration {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: BgpConfigurationSpec,
}

settings! {
    /// What a [`BgpConfiguration`] says. What is absent is as its line says.
    pub struct BgpConfigurationSpec {
        /// The least severity written to standard output; Info.
        log_severity_screen: BgpLogSeverity | "", "logSeverityScreen";
        /// Whether every node peers with every other; true.
        node_to_node_mesh_enabled: bool, "nodeToNodeMeshEnabled";
        /// Of nodes that name none; 64512.
        as_number: AsNumber, "asNumber";
        /// Where addresses of load balancers are announced from.
        service_load_balancer_ips: Vec<ServiceBlock>, "serviceLoadBalancerIPs";
        /// Where external addresses of services are announced from.
        service_external_ips: Vec<ServiceBlock>, "serviceExternalIPs";
        /// Where cluster addresses of services are announced from.
        service_cluster_ips: Vec<ServiceBlock>, "serviceClusterIPs";
        /// Whether load balancers' blocks are announced whole; Enabled.
        service_load_balancer_aggregation: Switch | "", "serviceLoadBalancerAggregation";
        /// Names for communities.
        communities: Vec<NamedCommunity>, "communities";
        /// What announcements of some prefixes carry.
        prefix_advertisements: Vec<PrefixAdvertisement>, "prefixAdvertisements";
        /// The TCP port; 179.
        listen_port: Whole<1, 65535>, "listenPort";
        /// The password of the mesh.
        node_mesh_password: BgpPassword, "nodeMeshPassword";
        /// How long a restart may take in the mesh; 120s.
        node_mesh_max_restart_time: Duration | "", "nodeMeshMaxRestartTime";
        /// Which addresses are listened on; None.
        bind_mode: BindMode | "", "bindMode";
        /// Interfaces whose addresses are not announced.
        ignored_interfaces: Vec<IgnoredInterface>, "ignoredInterfaces";
        /// The address at which workloads of a node find it, to peer with.
        local_workload_peering_ipv4: Ipv4Addr | "", "localWorkloadPeeringIPV4";
        /// The address at which workloads of a node find it, to peer with.
        local_workload_peering_ipv6: Ipv6Addr | "", "localWorkloadPeeringIPV6";
        /// Which routes to other nodes are made by BGP; the rest of the dataplane's.
        program_cluster_routes: ProgramClusterRoutes | "", "programClusterRoutes";
        /// The metric of IPv4 routes; 1024.
        ipv4_normal_route_priority: RoutePriority, "ipv4NormalRoutePriority";
        /// The metric of IPv6 routes; 1024.
        ipv6_normal_route_priority: RoutePriority, "ipv6NormalRoutePriority";
        /// The metric of IPv4 routes that win for a while; 512.
        ipv4_elevated_route_priority: RoutePriority, "ipv4ElevatedRoutePriority";
        /// The metric of IPv6 routes that win for a while; 512.
        ipv6_elevated_route_priority: RoutePriority, "ipv6ElevatedRoutePriority";
    }
}

settings! {
    /// Addresses of services.
    pub struct ServiceBlock {
        /// The prefix.
        cidr: Cidr | "", "cidr";
    }
}

/// A community with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NamedCommunity {
    /// What [`PrefixAdvertisement`] calls it.
    pub name: String,
    /// The community.
    pub value: Community,
}

/// What announcements of a prefix carry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PrefixAdvertisement {
    /// The prefix.
    pub cidr: Cidr,
    /// By value, or by the names of [`NamedCommunity`]; at least one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<AnyCommunity>,
}

choices! {
    /// How much is written.
    BgpLogSeverity { /// What helps to find faults.
        Debug, /// What happens.
        Info, /// What may need attention.
        Warning, /// What failed.
        Error, /// What ended the process.
        Fatal }

    /// Which addresses are listened on.
    BindMode { /// All.
        None, /// The node's own.
        NodeIP }
}

/// Where a password is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BgpPassword {
    /// In a Secret of Kubernetes.
    #[serde(rename = "secretKeyRef", skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKey>,
}

/// One value of a Secret of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SecretKey {
    /// The Secret.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which of its values.
    pub key: String,
    /// Whether it may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}
