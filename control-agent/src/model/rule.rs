//! One rule of a policy or profile, field for field as `projectcalico.org/v3` has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::net::{Cidr, IpVersion, Port, Protocol, subnets};

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Action {
    /// Accept: no later rule or tier of this direction is asked.
    Allow,
    /// Drop.
    Deny,
    /// Note it and go on with the next rule.
    Log,
    /// On to the next tier that has a say, and after the last to the profiles. In a profile: drop.
    Pass,
}

/// A direction that a policy covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum PolicyType {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// Advice that never changes a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum PerformanceHint {
    /// Prepare the policy even where no endpoint needs it yet.
    AssumeNeededOnEveryNode,
}

/// All fields that are present must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// What to do on a match.
    pub action: Action,
    /// Only packets of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<IpVersion>,
    /// Only this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Any protocol but this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_protocol: Option<Protocol>,
    /// Only this ICMP type, or type and code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// Any ICMP but this type, or this pair of type and code.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<Icmp>,
    /// Who sends.
    #[serde(default, skip_serializing_if = "EntityRule::is_empty")]
    pub source: EntityRule,
    /// Who receives.
    #[serde(default, skip_serializing_if = "EntityRule::is_empty")]
    pub destination: EntityRule,
    /// Only these HTTP requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpMatch>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RuleMetadata>,
}

/// One side of a rule. Fields AND; the entries of a list OR.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EntityRule {
    /// Any of these.
    #[serde(deserialize_with = "subnets", skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<Cidr>,
    /// None of these.
    #[serde(deserialize_with = "subnets", skip_serializing_if = "Vec::is_empty")]
    pub not_nets: Vec<Cidr>,
    /// Known endpoints and network sets with such labels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Anything that is not a known endpoint or network set with such labels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub not_selector: String,
    /// Known endpoints and network sets in namespaces with such labels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace_selector: String,
    /// Any of these: numbers, ranges, or names of the peer's own ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// None of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<Port>,
    /// Endpoints that run under these accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccountMatch>,
    /// The backends of a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceMatch>,
    /// Addresses of nodes with such labels. Calico has no field for it: only Kubernetes' policy says so.
    #[serde(skip)]
    pub node_selector: String,
}

impl EntityRule {
    /// Matches anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A type, or a type and a code. Without either it matches any ICMP of the rule's protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Icmp {
    /// 0 to 254.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<u8>,
    /// Needs a type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

/// Names OR; names and selector AND.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ServiceAccountMatch {
    /// Any of these names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Accounts with such labels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
}

/// A service, whose backends are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ServiceMatch {
    /// The service's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Empty: the policy's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// Methods and paths AND; the entries of each OR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HttpMatch {
    /// Case counts; `*` is any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<HttpPath>,
}

/// One of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HttpPath {
    /// The whole path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exact: String,
    /// The path or what lies under it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

/// What people say about a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RuleMetadata {
    /// Handed on to whoever explains a verdict.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
