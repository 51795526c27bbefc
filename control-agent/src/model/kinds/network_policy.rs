//! Policy for the workloads of one namespace.

use serde::{Deserialize, Serialize};

use crate::model::{Metadata, PerformanceHint, PolicyType, Rule};

/// Selects workload endpoints of its own namespace only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: NetworkPolicySpec,
}

/// What a [`NetworkPolicy`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NetworkPolicySpec {
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
    /// Empty: all endpoints of the namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The directions covered; empty: as the rules imply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<PolicyType>,
    /// Only endpoints whose service account has such labels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_selector: String,
    /// Never changes a verdict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub performance_hints: Vec<PerformanceHint>,
}
