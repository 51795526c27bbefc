//! An interface of a node, protected.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Metadata, Protocol};

/// One interface of one node, or all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HostEndpoint {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: HostEndpointSpec,
}

/// What a [`HostEndpoint`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HostEndpointSpec {
    /// The node whose interface it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// As the kernel calls it; `*`: every interface; empty: the one with an expected address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// What selectors of rules take for its addresses; addresses it has besides do not count.
    #[serde(rename = "expectedIPs", skip_serializing_if = "Vec::is_empty")]
    pub expected_ips: Vec<IpAddr>,
    /// Asked in this order after the last tier.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Ports that rules may refer to by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
}

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EndpointPort {
    /// What rules call it.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Not 0.
    pub port: u16,
}
