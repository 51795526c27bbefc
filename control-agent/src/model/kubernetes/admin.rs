//! `policy.networking.k8s.io`: policy of a cluster's administrators.

use serde::Deserialize;

use super::selector::LabelSelector;
use crate::model::{Cidr, Metadata, Protocol};

/// v1alpha2: before or after what namespaces say.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterNetworkPolicy {
    /// Name and labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    pub spec: ClusterSpec,
}

/// What a [`ClusterNetworkPolicy`] says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// Asked before or after NetworkPolicies.
    pub tier: ClusterTier,
    /// Lower first; 0 to 1000.
    pub priority: u16,
    /// Whom it is about.
    pub subject: Pods,
    /// First match decides.
    #[serde(default)]
    pub ingress: Vec<ClusterRule>,
    /// First match decides.
    #[serde(default)]
    pub egress: Vec<ClusterRule>,
}

/// When a [`ClusterNetworkPolicy`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ClusterTier {
    /// Before NetworkPolicies.
    Admin,
    /// After them, for pods that they say nothing of.
    Baseline,
}

/// A rule: `from` of ingress, `to` of egress.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterRule {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// On a match.
    pub action: AdminAction,
    /// Senders; one at least.
    #[serde(default)]
    pub from: Vec<AdminPeer>,
    /// Receivers; one at least.
    #[serde(default)]
    pub to: Vec<AdminPeer>,
    /// Empty: every protocol and port.
    #[serde(default)]
    pub protocols: Vec<ClusterProtocol>,
}

/// v1alpha1 AdminNetworkPolicy and BaselineAdminNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminNetworkPolicy {
    /// Name and labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    pub spec: AdminSpec,
}

/// What an [`AdminNetworkPolicy`] says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSpec {
    /// Lower first; the baseline has none.
    #[serde(default)]
    pub priority: Option<u16>,
    /// Whom it is about.
    pub subject: Pods,
    /// First match decides.
    #[serde(default)]
    pub ingress: Vec<AdminRule>,
    /// First match decides.
    #[serde(default)]
    pub egress: Vec<AdminRule>,
}

/// A rule: `from` of ingress, `to` of egress.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminRule {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// On a match.
    pub action: AdminAction,
    /// Senders; one at least.
    #[serde(default)]
    pub from: Vec<AdminPeer>,
    /// Receivers; one at least.
    #[serde(default)]
    pub to: Vec<AdminPeer>,
    /// Empty: every protocol and port.
    #[serde(default)]
    pub ports: Vec<AdminPort>,
}

/// What an administrator's rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum AdminAction {
    /// `Allow` in v1alpha1.
    #[serde(alias = "Allow")]
    Accept,
    /// Drop.
    Deny,
    /// On to the next tier.
    Pass,
}

/// Pods, by their namespaces alone or by labels of both. One of the two.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pods {
    /// All pods of these.
    pub namespaces: Option<LabelSelector>,
    /// These pods of these.
    pub pods: Option<NamespacedPods>,
}

/// Pods of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NamespacedPods {
    /// Of these namespaces
    pub namespace_selector: LabelSelector,
    /// those pods.
    pub pod_selector: LabelSelector,
}

/// One of its fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AdminPeer {
    /// All pods of these.
    pub namespaces: Option<LabelSelector>,
    /// These pods of these.
    pub pods: Option<NamespacedPods>,
    /// Addresses; of egress only.
    pub networks: Vec<Cidr>,
    /// Addresses of these nodes; of egress only.
    pub nodes: Option<LabelSelector>,
    /// Cannot be converted.
    pub domain_names: Vec<String>,
}

/// One of its fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClusterProtocol {
    /// Its ports.
    pub tcp: Option<ProtocolPorts>,
    /// Its ports.
    pub udp: Option<ProtocolPorts>,
    /// Its ports.
    pub sctp: Option<ProtocolPorts>,
    /// A port of that name, of whichever protocol.
    pub destination_named_port: Option<String>,
}

/// Absent: every port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProtocolPorts {
    /// Of the receiver.
    pub destination_port: Option<ClusterPort>,
    /// Of the sender.
    pub source_port: Option<ClusterPort>,
}

/// One of its fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterPort {
    /// One port.
    pub number: Option<u16>,
    /// Several.
    pub range: Option<PortSpan>,
}

/// Both ends included.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "its ends")]
pub struct PortSpan {
    #[serde(default)]
    pub protocol: Option<Protocol>,
    pub start: u16,
    pub end: u16,
}

/// One of its fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AdminPort {
    /// One port.
    pub port_number: Option<AdminPortNumber>,
    /// Several.
    pub port_range: Option<PortSpan>,
    /// A port of that name, of whichever protocol.
    pub named_port: Option<String>,
}

/// A port of a protocol.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminPortNumber {
    /// Absent: TCP.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// The port.
    pub port: u16,
}
