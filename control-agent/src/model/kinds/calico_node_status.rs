//! A wish to be told how a node is.

use serde::{Deserialize, Serialize};

use crate::model::Metadata;
use crate::model::scalar::{Whole, choices};

/// Asks that a node's status is written into this object from time to time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CalicoNodeStatus {
    /// Name and labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    pub spec: CalicoNodeStatusSpec,
}

/// What a [`CalicoNodeStatus`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalicoNodeStatusSpec {
    /// The node.
    pub node: String,
    /// What to tell; one at least.
    pub classes: Vec<StatusClass>,
    /// How often, at most once a day; 0 for never.
    pub update_period_seconds: Whole<0, 86_400>,
}

choices! {
    /// What to tell of a node.
    StatusClass { /// How its daemons are.
        Agent, /// How its sessions are.
        Bgp = "BGP", /// Which routes it has.
        Routes }
}
