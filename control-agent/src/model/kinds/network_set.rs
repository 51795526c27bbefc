//! Addresses with labels, in a namespace.

use serde::{Deserialize, Serialize};

use crate::model::net::subnets;
use crate::model::{Cidr, Metadata};

/// To a selector, an endpoint with these labels and addresses, in this namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSet {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: NetworkSetSpec,
}

/// What a [`NetworkSet`] or a [`crate::model::GlobalNetworkSet`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSetSpec {
    /// Prefixes or single addresses.
    #[serde(deserialize_with = "subnets", skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<Cidr>,
}
