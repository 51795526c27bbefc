//! Addresses with labels, outside all namespaces.

use serde::{Deserialize, Serialize};

use super::NetworkSetSpec;
use crate::model::Metadata;

/// To a selector, an endpoint with these labels and addresses and no namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct GlobalNetworkSet {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: NetworkSetSpec,
}
