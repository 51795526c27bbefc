//! Rules after the last tier, and labels to inherit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Metadata, Rule};

/// Named by endpoints. `kns.<namespace>` stands for a namespace, `ksa.<namespace>.<account>` for a
/// service account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: ProfileSpec,
}

/// What a [`Profile`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProfileSpec {
    /// For traffic to the endpoint that no tier decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// For traffic from the endpoint that no tier decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Inherited by each endpoint that names the profile; the endpoint's own label wins.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels_to_apply: BTreeMap<String, String>,
}
