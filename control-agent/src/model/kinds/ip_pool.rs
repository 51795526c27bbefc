//! Addresses for workloads.

use serde::{Deserialize, Deserializer, Serialize};

use super::is_false;
use crate::model::net::empty_is_none;
use crate::model::{Cidr, Metadata};

/// A prefix from which workloads get their addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IpPool {
    /// Name and labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    pub spec: IpPoolSpec,
}

/// What an [`IpPool`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The addresses. Overlaps no other pool.
    pub cidr: Cidr,
    /// Absent: never.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<EncapMode>,
    /// Absent: never.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<EncapMode>,
    /// Masquerade what leaves all pools.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nat_outgoing: bool,
    /// Assign nothing more from it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// Do not announce its routes.
    #[serde(default, rename = "disableBGPExport", skip_serializing_if = "is_false")]
    pub disable_bgp_export: bool,
    /// Prefix length of the blocks that nodes claim; absent or 0: 26 for IPv4, 122 for IPv6.
    #[serde(default, deserialize_with = "zero_is_none", skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// Only on nodes with such labels; empty: all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_selector: String,
    /// Only for namespaces with such labels; empty: all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace_selector: String,
    /// Empty: workloads and tunnels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_uses: Vec<AllowedUse>,
    /// Absent: automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_mode: Option<AssignmentMode>,
}

/// When to encapsulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum EncapMode {
    /// To every other node.
    Always,
    /// To nodes of another subnet.
    CrossSubnet,
    /// Never.
    Never,
}

/// What a pool's addresses are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum AllowedUse {
    /// Workload endpoints.
    Workload,
    /// The nodes' tunnel devices.
    Tunnel,
    /// Services.
    LoadBalancer,
}

/// How addresses are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum AssignmentMode {
    /// To whoever needs one.
    Automatic,
    /// Only on request by name.
    Manual,
}

impl IpPoolSpec {
    /// The length of the blocks that nodes claim.
    pub fn block_size(&self) -> u8 {
        match self.block_size {
            Some(n) => n,
            None if self.cidr.is_v4() => 26,
            None => 122,
        }
    }
}

fn zero_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    Ok(Option::deserialize(from)?.filter(|n| *n != 0))
}
