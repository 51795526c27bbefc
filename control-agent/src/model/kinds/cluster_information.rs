//! What a cluster is.

use serde::{Deserialize, Serialize};

use crate::model::Metadata;
use crate::model::scalar::settings;

/// What a cluster is. The one that counts is `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ClusterInformation {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: ClusterInformationSpec,
}

settings! {
    /// What a [`ClusterInformation`] says.
    pub struct ClusterInformationSpec {
        /// The cluster's id.
        cluster_guid: String | "", "clusterGUID";
        /// What it runs on, as words with commas between.
        cluster_type: String | "", "clusterType";
        /// The version that its store was written for.
        calico_version: String | "", "calicoVersion";
        /// Whether the store may be used; false while it is moved.
        datastore_ready: bool, "datastoreReady";
        /// Of which product.
        variant: String | "", "variant";
    }
}
