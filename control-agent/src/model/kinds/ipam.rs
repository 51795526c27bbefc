//! How addresses are handed out, and the books that are kept of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Switch, is_false};
use crate::model::net::empty_is_none;
use crate::model::scalar::{Timestamp, Whole, choices, settings};
use crate::model::{Cidr, Metadata, SubnetAddr};

/// How addresses are handed out. The one that counts is `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct IpamConfiguration {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: IpamConfigurationSpec,
}

settings! {
    /// What an [`IpamConfiguration`] says. What is absent is as its line says.
    pub struct IpamConfigurationSpec {
        /// Whether a node takes addresses from its own blocks only; false.
        strict_affinity: bool, "strictAffinity";
        /// Whether nodes claim blocks by themselves; true.
        auto_allocate_blocks: bool, "autoAllocateBlocks";
        /// Blocks that a node may have; 0 for 20.
        max_blocks_per_host: Whole<0, 1_000_000>, "maxBlocksPerHost";
        /// How long an address rests before it is handed out again; 0.
        ip_cooldown_seconds: Whole<0, 1200>, "ipCooldownSeconds";
        /// How old an address that was given back must be to be handed out again; 0.
        min_ip_reclaim_age_seconds: Whole<0, { i32::MAX as i64 }>, "minIPReclaimAgeSeconds";
        /// Whether virtual machines of KubeVirt keep their addresses; Enabled.
        kube_virt_vm_address_persistence: Switch | "", "kubeVirtVMAddressPersistence";
    }
}

/// Addresses of pools that nobody gets without asking for them by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct IpReservation {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: IpReservationSpec,
}

settings! {
    /// What an [`IpReservation`] says.
    pub struct IpReservationSpec {
        /// Prefixes or single addresses.
        reserved_cidrs: Vec<SubnetAddr>, "reservedCIDRs";
    }
}

/// That a block of addresses is a node's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BlockAffinity {
    /// Name and labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    pub spec: BlockAffinitySpec,
}

/// What a [`BlockAffinity`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BlockAffinitySpec {
    /// How far the claim is; absent: not begun.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub state: Option<AffinityState>,
    /// The node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// `host` or `virtual`.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The block.
    pub cidr: Cidr,
    /// Set only on the way to deletion, by the system.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
}

choices! {
    /// How far a claim is.
    AffinityState { /// The block is the node's.
        Confirmed = "confirmed", /// The node has asked for it.
        Pending = "pending", /// The node gives it back.
        PendingDeletion = "pendingDeletion" }
}

/// A block of addresses, and who has which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IpamBlock {
    /// Name and labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    pub spec: IpamBlockSpec,
}

/// What an [`IpamBlock`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpamBlockSpec {
    /// The addresses.
    pub cidr: Cidr,
    /// Whose they are: `host:NAME` or `virtual:NAME`.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<Timestamp>,
    /// Whether nobody else gets any.
    #[serde(default)]
    pub strict_affinity: bool,
    /// For each address, the entry of `attributes` that says who has it.
    #[serde(default)]
    pub allocations: Vec<Option<u32>>,
    /// Addresses that are free, the next first.
    #[serde(default)]
    pub unallocated: Vec<u32>,
    /// Who has addresses.
    #[serde(default)]
    pub attributes: Vec<AllocationAttribute>,
    /// Counts changes.
    #[serde(default)]
    pub sequence_number: u64,
    /// For each address, the count at which it was given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// For each address that rests before it is given again: when it was given back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub released_at: BTreeMap<String, Timestamp>,
    /// Set only on the way to deletion, by the system.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
}

impl IpamBlockSpec {
    /// What stands before a node's name in `affinity`.
    pub const HOST: &str = "host:";

    /// The node whose block it is; none of a block that is on its way to deletion.
    pub fn node(&self) -> Option<&str> {
        self.affinity.as_deref().filter(|_| !self.deleted)?.strip_prefix(Self::HOST)
    }
}

settings! {
    /// Who has an address.
    pub struct AllocationAttribute {
        /// The handle it was given under.
        handle_id: String | "", "handle_id";
        /// What else was noted.
        secondary: BTreeMap<String, String>, "secondary";
    }
}

/// Under which blocks a handle has addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IpamHandle {
    /// Name and labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    pub spec: IpamHandleSpec,
}

/// What an [`IpamHandle`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IpamHandleSpec {
    /// The handle.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// Addresses by block.
    #[serde(default)]
    pub block: BTreeMap<String, u32>,
    /// Set only on the way to deletion, by the system.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
}
