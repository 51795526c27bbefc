//! A machine of the cluster.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::net::{empty_is_none, parse_mac};
use crate::model::scalar::AsNumber;
use crate::model::{Metadata, SubnetAddr};

/// A machine that runs workloads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: NodeSpec,
    /// What the node itself reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,
}

impl Node {
    /// Its addresses, each once, the one to use first.
    pub fn addresses(&self) -> impl Iterator<Item = SubnetAddr> {
        let bgp = self.spec.bgp.iter().flat_map(|bgp| [bgp.ipv4_address, bgp.ipv6_address]).flatten();
        let mut all: Vec<SubnetAddr> = Vec::new();
        for address in bgp.chain(self.spec.addresses.iter().map(|address| address.address)) {
            if all.iter().all(|known| known.addr != address.addr) {
                all.push(address);
            }
        }
        all.into_iter()
    }
}

/// What a [`Node`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeSpec {
    /// Its addresses, and how it routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp: Option<NodeBgp>,
    /// Address of its VXLAN device.
    #[serde(
        rename = "ipv4VXLANTunnelAddr",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_vxlan_tunnel_addr: Option<IpAddr>,
    /// Ethernet address of its VXLAN device.
    #[serde(rename = "vxlanTunnelMACAddr", skip_serializing_if = "String::is_empty")]
    pub vxlan_tunnel_mac_addr: String,
    /// Address of its VXLAN device for IPv6.
    #[serde(
        rename = "ipv6VXLANTunnelAddr",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6_vxlan_tunnel_addr: Option<IpAddr>,
    /// Ethernet address of its VXLAN device for IPv6.
    #[serde(rename = "vxlanTunnelMACAddrV6", skip_serializing_if = "String::is_empty")]
    pub vxlan_tunnel_mac_addr_v6: String,
    /// What orchestrators call it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orch_refs: Vec<OrchRef>,
    /// Addresses of its WireGuard devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<NodeWireguard>,
    /// Addresses at which it can be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    /// Its interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<NodeInterface>,
}

impl NodeSpec {
    /// The Ethernet address of its VXLAN device of one IP version, where one is given.
    pub fn vxlan_mac(&self, v4: bool) -> Option<[u8; 6]> {
        parse_mac(if v4 { &self.vxlan_tunnel_mac_addr } else { &self.vxlan_tunnel_mac_addr_v6 })
    }
}

/// The node's own addresses: other nodes reach its workloads over them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeBgp {
    /// Absent: the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// Address and the length of its subnet.
    #[serde(
        rename = "ipv4Address",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_address: Option<SubnetAddr>,
    /// Address and the length of its subnet.
    #[serde(
        rename = "ipv6Address",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6_address: Option<SubnetAddr>,
    /// Address of its IPIP device.
    #[serde(
        rename = "ipv4IPIPTunnelAddr",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_ipip_tunnel_addr: Option<IpAddr>,
    /// Makes it a route reflector.
    #[serde(
        rename = "routeReflectorClusterID",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub route_reflector_cluster_id: Option<IpAddr>,
}

/// What an orchestrator calls the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OrchRef {
    /// Its name there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// Which one.
    pub orchestrator: String,
}

/// Addresses of the node's WireGuard devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct NodeWireguard {
    /// Of the IPv4 device.
    #[serde(
        rename = "interfaceIPv4Address",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub interface_ipv4_address: Option<IpAddr>,
    /// Of the IPv6 device.
    #[serde(
        rename = "interfaceIPv6Address",
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub interface_ipv6_address: Option<IpAddr>,
}

/// An address at which the node can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeAddress {
    /// With or without the length of its subnet.
    pub address: SubnetAddr,
    /// `CalicoNodeIP`, `InternalIP` or `ExternalIP`.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// An interface of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct NodeInterface {
    /// The kernel's name for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// What the node itself reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeStatus {
    /// 32 bytes in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wireguard_public_key: String,
    /// 32 bytes in base64.
    #[serde(rename = "wireguardPublicKeyV6", skip_serializing_if = "String::is_empty")]
    pub wireguard_public_key_v6: String,
    /// As Kubernetes assigned them.
    #[serde(rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
}
