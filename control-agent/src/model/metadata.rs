//! What every object carries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The object's identity, its labels, and what the store wrote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Metadata {
    /// Lower case letters, digits, `-` and `.`; at most 253 bytes (RFC 1123).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Empty for kinds without namespaces; `default` where a namespaced object names none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// What selectors look at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kept and handed on; never looked at by selectors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Given by the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Given by the store. A write that carries one succeeds only against that very version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Given by the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Given by a Kubernetes store; counts changes of the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Refused: this release does not make up names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// Refused: nothing here would honour them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<Value>,
    /// Refused: nothing here would honour them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
}
