//! `networking.k8s.io/v1` NetworkPolicy, and Calico's staged form of it.

use serde::Deserialize;

use super::selector::LabelSelector;
use crate::model::net::{subnet, subnets};
use crate::model::{Cidr, Metadata, PolicyType, Port, Protocol, Staged};

/// Isolates the pods that it selects, and allows what its rules say.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: NetworkPolicySpec,
}

/// A [`NetworkPolicy`] to be.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StagedNetworkPolicy {
    /// Name, namespace, labels. It stands for the policy of the same name.
    pub metadata: Metadata,
    /// What it says.
    pub spec: Staged<NetworkPolicySpec>,
}

/// What a [`NetworkPolicy`] says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NetworkPolicySpec {
    /// Pods of its namespace; empty: all.
    pub pod_selector: LabelSelector,
    /// What may come in.
    pub ingress: Vec<IngressRule>,
    /// What may go out.
    pub egress: Vec<EgressRule>,
    /// Empty: Ingress, and Egress where there are egress rules.
    pub policy_types: Vec<PolicyType>,
}

/// Peers and ports AND; the entries of each OR, and none of them is all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressRule {
    /// Senders.
    pub from: Vec<Peer>,
    /// Ports of the pod.
    pub ports: Vec<PolicyPort>,
}

/// Peers and ports AND; the entries of each OR, and none of them is all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressRule {
    /// Receivers.
    pub to: Vec<Peer>,
    /// Ports of the receiver.
    pub ports: Vec<PolicyPort>,
}

/// Pods, or addresses.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Peer {
    /// Pods with such labels.
    pub pod_selector: Option<LabelSelector>,
    /// Absent: of the policy's own namespace.
    pub namespace_selector: Option<LabelSelector>,
    /// Not together with the selectors.
    pub ip_block: Option<IpBlock>,
}

/// Addresses.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// These,
    #[serde(deserialize_with = "subnet")]
    pub cidr: Cidr,
    /// but not those.
    #[serde(default, deserialize_with = "subnets")]
    pub except: Vec<Cidr>,
}

/// A port, several, or all of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PolicyPort {
    /// Absent: TCP.
    pub protocol: Option<Protocol>,
    /// Absent: every port.
    pub port: Option<Port>,
    /// The last of a range that begins at `port`.
    pub end_port: Option<u16>,
}
