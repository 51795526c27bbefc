//! Policy for the whole cluster.

use serde::{Deserialize, Serialize};

use super::is_false;
use crate::model::{Metadata, PerformanceHint, PolicyType, Rule};

/// Selects workload endpoints of any namespace, and host endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct GlobalNetworkPolicy {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: GlobalNetworkPolicySpec,
}

/// What a [`GlobalNetworkPolicy`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GlobalNetworkPolicySpec {
    /// Empty: `default`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tier: String,
    /// Ascending; absent is last.
    #[serde(serialize_with = "super::order", skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// For traffic to the endpoint, first match decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// For traffic from the endpoint, first match decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Empty: all endpoints.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The directions covered; empty: as the rules imply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<PolicyType>,
    /// Judge before connection tracking, on host endpoints.
    #[serde(skip_serializing_if = "is_false")]
    pub do_not_track: bool,
    /// Judge before destination NAT, on host endpoints.
    #[serde(rename = "preDNAT", skip_serializing_if = "is_false")]
    pub pre_dnat: bool,
    /// Judge forwarded traffic too, on host endpoints.
    #[serde(skip_serializing_if = "is_false")]
    pub apply_on_forward: bool,
    /// Only endpoints whose service account has such labels; never host endpoints.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_selector: String,
    /// Only endpoints whose namespace has such labels; never host endpoints.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace_selector: String,
    /// Never changes a verdict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub performance_hints: Vec<PerformanceHint>,
}
