//! A workload's link to the network.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::net::{empty_is_none, parse_mac};
use crate::model::{Cidr, Metadata, Protocol};

/// The annotation of an endpoint that a container runtime asked for by CNI: `NETWORK/CONTAINER/INTERFACE`.
pub const ATTACHMENT: &str = "margay.io/attachment";

/// One interface of one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadEndpoint {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: WorkloadEndpointSpec,
}

/// What a [`WorkloadEndpoint`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadEndpointSpec {
    /// `k8s`, `cni`, `openstack`...
    #[serde(skip_serializing_if = "String::is_empty")]
    pub orchestrator: String,
    /// What the orchestrator calls the workload.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// The node it runs on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The container runtime's id.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// The pod's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The interface as the workload sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The account it runs under.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Its addresses, /32 or /128; packets from any other source are dropped.
    #[serde(rename = "ipNetworks", skip_serializing_if = "Vec::is_empty")]
    pub ip_networks: Vec<Cidr>,
    /// External addresses that lead to one of its own.
    #[serde(rename = "ipNATs", skip_serializing_if = "Vec::is_empty")]
    pub ip_nats: Vec<IpNat>,
    /// The workload's IPv4 gateway, where it is not the link-local one.
    #[serde(
        rename = "ipv4Gateway",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_gateway: Option<IpAddr>,
    /// The workload's IPv6 gateway, where it is not the link-local one.
    #[serde(
        rename = "ipv6Gateway",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6_gateway: Option<IpAddr>,
    /// Asked in this order after the last tier.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// The host side of the workload's link.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// The workload's Ethernet address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Ports that rules may refer to by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<WorkloadEndpointPort>,
    /// Sources it may also send from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_spoofed_source_prefixes: Vec<Cidr>,
    /// Limits of its traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_controls: Option<QosControls>,
}

impl WorkloadEndpoint {
    /// Takes over what a pod's object says of its endpoint, and leaves the link and its addresses.
    pub fn follow(&mut self, pod: &Self) {
        self.metadata.labels.clone_from(&pod.metadata.labels);
        self.spec.service_account_name.clone_from(&pod.spec.service_account_name);
        self.spec.profiles.clone_from(&pod.spec.profiles);
        self.spec.ports.clone_from(&pod.spec.ports);
        self.spec.qos_controls.clone_from(&pod.spec.qos_controls);
    }
}

impl WorkloadEndpointSpec {
    /// The workload's Ethernet address, where one is given.
    pub fn mac_bytes(&self) -> Option<[u8; 6]> {
        parse_mac(&self.mac)
    }
}

/// Limits of a workload's traffic, seen from the workload: ingress is what comes in to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct QosControls {
    /// Bits a second, in; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub ingress_bandwidth: u64,
    /// Bits at once, above the bandwidth, in; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub ingress_burst: u64,
    /// Bits a second at the peak, in; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub ingress_peakrate: u64,
    /// Bytes at once at the peak, in; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub ingress_minburst: u64,
    /// Packets a second, in; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub ingress_packet_rate: u64,
    /// Packets at once, in; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub ingress_packet_burst: u64,
    /// Flows at a time, in; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub ingress_max_connections: u64,
    /// New flows a second, and as many at once, in; 0: no limit. Calico has no such field.
    #[serde(skip_serializing_if = "is_none")]
    pub ingress_new_connections_per_second: u64,
    /// Bits a second, out; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub egress_bandwidth: u64,
    /// Bits at once, above the bandwidth, out; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub egress_burst: u64,
    /// Bits a second at the peak, out; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub egress_peakrate: u64,
    /// Bytes at once at the peak, out; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub egress_minburst: u64,
    /// Packets a second, out; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub egress_packet_rate: u64,
    /// Packets at once, out; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub egress_packet_burst: u64,
    /// Flows at a time, out; 0: no limit.
    #[serde(skip_serializing_if = "is_none")]
    pub egress_max_connections: u64,
    /// New flows a second, and as many at once, out; 0: no limit. Calico has no such field.
    #[serde(skip_serializing_if = "is_none")]
    pub egress_new_connections_per_second: u64,
}

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEndpointPort {
    /// Empty only where a host port is given.
    #[serde(default)]
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Of the workload, not 0.
    pub port: u16,
    /// Of the host, that leads here; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub host_port: u16,
    /// The host address for `host_port`; absent: all.
    #[serde(
        default,
        rename = "hostIP",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub host_ip: Option<Cidr>,
}

/// A 1:1 mapping of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IpNat {
    /// One of the endpoint's own.
    #[serde(rename = "internalIP")]
    pub internal_ip: IpAddr,
    /// What others send to.
    #[serde(rename = "externalIP")]
    pub external_ip: IpAddr,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

fn is_none(limit: &u64) -> bool {
    *limit == 0
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}
