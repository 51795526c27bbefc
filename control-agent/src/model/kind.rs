//! The kinds of resource, their spellings, and what one object is known by.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::resource::API_VERSION;

/// A kind of resource: of `projectcalico.org/v3`, or Kubernetes' own.
///
/// The order is the one in which objects are applied: what others refer to comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the kind of its name")]
pub enum Kind {
    FelixConfiguration,
    Tier,
    Node,
    IPPool,
    Profile,
    GlobalNetworkSet,
    NetworkSet,
    GlobalNetworkPolicy,
    NetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
    WorkloadEndpoint,
    HostEndpoint,
    ClusterInformation,
    BGPConfiguration,
    KubeControllersConfiguration,
    IPAMConfiguration,
    BGPFilter,
    BGPPeer,
    IPReservation,
    BlockAffinity,
    IPAMBlock,
    IPAMHandle,
    CalicoNodeStatus,
    /// `Node` of `v1`: what runs pods, as Kubernetes has it.
    KubernetesNode,
    Namespace,
    ServiceAccount,
    Service,
    EndpointSlice,
    /// `NetworkPolicy` of `networking.k8s.io/v1`: like `Node` a name that stands for two kinds.
    KubernetesNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    ClusterNetworkPolicy,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    Pod,
}

/// No kind has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a kind this release knows; {remedy}")]
pub struct UnknownKind {
    /// As written.
    pub given: String,
    remedy: String,
}

impl Kind {
    /// Every kind, in the order of application.
    pub const ALL: [Self; 35] = [
        Self::FelixConfiguration,
        Self::Tier,
        Self::Node,
        Self::IPPool,
        Self::Profile,
        Self::GlobalNetworkSet,
        Self::NetworkSet,
        Self::GlobalNetworkPolicy,
        Self::NetworkPolicy,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::WorkloadEndpoint,
        Self::HostEndpoint,
        Self::ClusterInformation,
        Self::BGPConfiguration,
        Self::KubeControllersConfiguration,
        Self::IPAMConfiguration,
        Self::BGPFilter,
        Self::BGPPeer,
        Self::IPReservation,
        Self::BlockAffinity,
        Self::IPAMBlock,
        Self::IPAMHandle,
        Self::CalicoNodeStatus,
        Self::KubernetesNode,
        Self::Namespace,
        Self::ServiceAccount,
        Self::Service,
        Self::EndpointSlice,
        Self::KubernetesNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
        Self::Pod,
    ];

    /// The name that no other kind has: `NetworkPolicy`.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// As a manifest spells it, beside [`api_version`](Self::api_version).
    pub const fn manifest_name(self) -> &'static str {
        match self {
            Self::KubernetesNetworkPolicy => "NetworkPolicy",
            Self::KubernetesNode => "Node",
            _ => self.name(),
        }
    }

    /// What a manifest gives as its `apiVersion`.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::KubernetesNode | Self::Namespace | Self::ServiceAccount | Self::Service | Self::Pod => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::KubernetesNetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
            Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy => {
                "policy.networking.k8s.io/v1alpha1"
            }
            _ => API_VERSION,
        }
    }

    /// Whether a manifest may give this `apiVersion`: also a later one that has the same fields.
    pub(super) fn has_version(self, version: &str) -> bool {
        let later = self == Self::ClusterNetworkPolicy && version == "policy.networking.k8s.io/v1beta1";
        later || version == self.api_version()
    }

    /// Kubernetes defines it, not Calico.
    pub fn is_kubernetes(self) -> bool {
        self.api_version() != API_VERSION
    }

    /// As a command spells it: `networkpolicies`.
    pub const fn plural(self) -> &'static str {
        self.row().1
    }

    /// The short spellings, the preferred one first.
    pub const fn short_names(self) -> &'static [&'static str] {
        self.row().2
    }

    /// Whether its objects live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicy
                | Self::StagedNetworkPolicy
                | Self::NetworkSet
                | Self::WorkloadEndpoint
                | Self::ServiceAccount
                | Self::Service
                | Self::EndpointSlice
                | Self::KubernetesNetworkPolicy
                | Self::StagedKubernetesNetworkPolicy
                | Self::Pod
        )
    }

    /// Whether this release acts on its objects, if not on each field. The store refuses the other
    /// kinds: what it holds is never without effect.
    pub const fn is_acted_on(self) -> bool {
        !matches!(
            self,
            Self::ClusterInformation
                | Self::KubeControllersConfiguration
                | Self::IPAMHandle
                | Self::CalicoNodeStatus
        )
    }

    /// Whether agents alone write its objects.
    pub const fn is_internal(self) -> bool {
        matches!(self, Self::IPAMBlock | Self::BlockAffinity)
    }

    /// Any spelling a user of `kubectl` or `calicoctl` would try: the kind, its plural or a short
    /// name, in any case, with or without the group (`tiers.projectcalico.org`). Where two groups
    /// have the name, it is Calico's unless the group says otherwise.
    pub fn parse(text: &str) -> Result<Self, UnknownKind> {
        let lower = text.to_ascii_lowercase();
        let (wanted, group) = lower.split_once('.').unwrap_or((&lower, ""));
        if group == "networking.k8s.io" && Self::NetworkPolicy.spellings().any(|s| s == wanted) {
            return Ok(Self::KubernetesNetworkPolicy);
        }
        if let Some(kind) = Self::ALL.into_iter().find(|k| k.spellings().any(|s| s == wanted)) {
            return Ok(kind);
        }
        let nearest = Self::ALL
            .into_iter()
            .flat_map(|k| k.spellings().map(move |s| (strsim::damerau_levenshtein(&s, wanted), k)))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, _)| *distance <= 1 + wanted.len() / 4);
        let remedy = match nearest {
            Some((_, kind)) => format!("did you mean {}?", kind.name()),
            None => format!("the kinds are {}", Self::ALL.map(Self::name).join(", ")),
        };
        Err(UnknownKind { given: shorten(text), remedy })
    }

    fn spellings(self) -> impl Iterator<Item = String> {
        let (name, plural, short) = self.row();
        [name.to_ascii_lowercase(), plural.to_owned()]
            .into_iter()
            .chain(short.iter().map(|s| (*s).to_owned()))
    }

    const fn row(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Self::FelixConfiguration => {
                ("FelixConfiguration", "felixconfigurations", &["felixconfig", "felixconfigs"])
            }
            Self::Tier => ("Tier", "tiers", &[]),
            Self::Node => ("Node", "nodes", &["no"]),
            Self::IPPool => ("IPPool", "ippools", &["pool", "pools"]),
            Self::Profile => ("Profile", "profiles", &["pro"]),
            Self::GlobalNetworkSet => ("GlobalNetworkSet", "globalnetworksets", &["gns", "gnetset"]),
            Self::NetworkSet => ("NetworkSet", "networksets", &["netset", "netsets"]),
            Self::GlobalNetworkPolicy => {
                ("GlobalNetworkPolicy", "globalnetworkpolicies", &["gnp", "gnetpol", "cgnp"])
            }
            Self::NetworkPolicy => {
                ("NetworkPolicy", "networkpolicies", &["netpol", "np", "cnp", "policy", "policies"])
            }
            Self::StagedGlobalNetworkPolicy => {
                ("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", &["sgnp"])
            }
            Self::StagedNetworkPolicy => ("StagedNetworkPolicy", "stagednetworkpolicies", &["snp"]),
            Self::StagedKubernetesNetworkPolicy => {
                ("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", &["sknp"])
            }
            Self::KubernetesNode => ("KubernetesNode", "kubernetesnodes", &["kno"]),
            Self::Namespace => ("Namespace", "namespaces", &["ns"]),
            Self::ServiceAccount => ("ServiceAccount", "serviceaccounts", &["sa"]),
            Self::Service => ("Service", "services", &["svc"]),
            Self::EndpointSlice => ("EndpointSlice", "endpointslices", &["eps"]),
            Self::KubernetesNetworkPolicy => {
                ("KubernetesNetworkPolicy", "kubernetesnetworkpolicies", &["knp"])
            }
            Self::ClusterNetworkPolicy => ("ClusterNetworkPolicy", "clusternetworkpolicies", &["kcnp"]),
            Self::AdminNetworkPolicy => ("AdminNetworkPolicy", "adminnetworkpolicies", &["anp"]),
            Self::BaselineAdminNetworkPolicy => {
                ("BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies", &["banp"])
            }
            Self::Pod => ("Pod", "pods", &["po"]),
            Self::WorkloadEndpoint => ("WorkloadEndpoint", "workloadendpoints", &["wep", "weps"]),
            Self::HostEndpoint => ("HostEndpoint", "hostendpoints", &["hep", "heps"]),
            Self::ClusterInformation => {
                ("ClusterInformation", "clusterinformations", &["clusterinfo", "clusterinfos"])
            }
            Self::BGPConfiguration => ("BGPConfiguration", "bgpconfigurations", &["bgpconfig", "bgpconfigs"]),
            Self::KubeControllersConfiguration => {
                ("KubeControllersConfiguration", "kubecontrollersconfigurations", &["kcc", "kccs"])
            }
            Self::IPAMConfiguration => {
                ("IPAMConfiguration", "ipamconfigurations", &["ipamconfig", "ipamconfigs"])
            }
            Self::BGPFilter => ("BGPFilter", "bgpfilters", &[]),
            Self::BGPPeer => ("BGPPeer", "bgppeers", &[]),
            Self::IPReservation => ("IPReservation", "ipreservations", &[]),
            Self::BlockAffinity => ("BlockAffinity", "blockaffinities", &["affinity", "affinities"]),
            Self::IPAMBlock => ("IPAMBlock", "ipamblocks", &[]),
            Self::IPAMHandle => ("IPAMHandle", "ipamhandles", &[]),
            Self::CalicoNodeStatus => ("CalicoNodeStatus", "caliconodestatuses", &[]),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(s: &str) -> Result<Self, UnknownKind> {
        Self::parse(s)
    }
}

/// What one object is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Empty for kinds without namespaces.
    pub namespace: String,
    /// Unique in the namespace, or in the kind where there are none.
    pub name: String,
}

impl Key {
    /// Of a kind with namespaces.
    pub fn namespaced(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// Of a kind without namespaces.
    pub fn global(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, namespace: String::new(), name: name.into() }
    }
}

impl fmt::Display for Key {
    /// `NetworkPolicy default/web`, `Tier security`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Quoted input in an error stays readable.
pub(super) fn shorten(text: &str) -> String {
    const KEEP: usize = 80;
    match text.char_indices().nth(KEEP) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_names_one_kind() {
        let mut seen = std::collections::BTreeMap::new();
        for kind in Kind::ALL {
            for s in kind.spellings() {
                assert_eq!(Kind::parse(&s), Ok(kind), "{s}");
                assert_eq!(Kind::parse(&s.to_uppercase()), Ok(kind), "{s}");
                assert_eq!(seen.insert(s.clone(), kind), None, "{s} names two kinds");
            }
        }
        assert_eq!(Kind::parse("networkpolicies.projectcalico.org"), Ok(Kind::NetworkPolicy));
        assert_eq!(Kind::parse("np"), Ok(Kind::NetworkPolicy));
        for kubernetes in ["networkpolicies.networking.k8s.io", "NetworkPolicy.networking.k8s.io", "knp"] {
            assert_eq!(Kind::parse(kubernetes), Ok(Kind::KubernetesNetworkPolicy), "{kubernetes}");
        }
    }

    #[test]
    fn a_miss_names_the_nearest() {
        let e = Kind::parse("NetworkPolcy").unwrap_err().to_string();
        assert!(e.contains("did you mean NetworkPolicy?"), "{e}");
        let e = Kind::parse("Deployment").unwrap_err().to_string();
        assert!(e.contains("the kinds are FelixConfiguration, Tier"), "{e}");
        assert!(Kind::parse("").is_err());
        assert!(Kind::parse(&"x".repeat(10_000)).unwrap_err().to_string().len() < 1_500);
    }
}
