//! Who is in a cluster, as Kubernetes says it: namespaces, pods, accounts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::model::{FieldError, Metadata, Protocol};

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Namespace {
    /// Name and labels.
    pub metadata: Metadata,
    /// Its finalizers, which change no verdict.
    pub spec: BTreeMap<String, Value>,
}

/// An account that pods run under.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceAccount {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// Changes no verdict.
    pub secrets: Vec<Value>,
    /// Changes no verdict.
    pub image_pull_secrets: Vec<Value>,
    /// Changes no verdict.
    pub automount_service_account_token: Option<bool>,
}

/// A machine that runs pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesNode {
    /// Name, labels, and in annotations what Calico knows of it.
    pub metadata: Metadata,
    /// What it is.
    pub spec: KubernetesNodeSpec,
    /// What it reports.
    pub status: KubernetesNodeStatus,
}

/// What a [`KubernetesNode`] is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct KubernetesNodeSpec {
    /// The addresses of its pods, as Kubernetes assigned them.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// What changes no verdict.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What a [`KubernetesNode`] reports.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct KubernetesNodeStatus {
    /// Where it can be reached.
    #[serde(deserialize_with = "null_is_none")]
    pub addresses: Vec<KubernetesNodeAddress>,
    /// What a server reports besides.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// An address or a name of a [`KubernetesNode`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesNodeAddress {
    /// `InternalIP`, `ExternalIP`, or what names are: `Hostname`, `InternalDNS`, `ExternalDNS`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address or name.
    pub address: String,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pod {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What it is.
    pub spec: PodSpec,
    /// Where it is.
    pub status: PodStatus,
}

/// What a [`Pod`] is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it runs on.
    pub node_name: String,
    /// It has the node's own addresses and is no endpoint.
    pub host_network: bool,
    /// Empty: `default`.
    pub service_account_name: String,
    /// Of their ports some have names.
    pub containers: Vec<Container>,
    /// What changes no verdict.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A container of a [`Pod`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its ports.
    pub ports: Vec<ContainerPort>,
    /// What changes no verdict.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A port of a [`Container`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerPort {
    /// What rules may call it.
    #[serde(default)]
    pub name: String,
    /// The port.
    pub container_port: u16,
    /// Absent: TCP.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// Changes no verdict.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// Changes no verdict.
    #[serde(default, rename = "hostIP")]
    pub host_ip: Option<String>,
}

/// Where a [`Pod`] is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<IpAddr>,
    /// All of its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    /// `Succeeded` and `Failed` pods have given their addresses back.
    pub phase: String,
    /// What a server reports besides.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// An address of a [`Pod`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodIp {
    /// The address.
    pub ip: IpAddr,
}

/// What a server writes for an empty list.
pub(super) fn null_is_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    de: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(de)?.unwrap_or_default())
}

impl Namespace {
    /// What a server adds to each: its name as a label.
    pub(super) const NAME_LABEL: &str = "kubernetes.io/metadata.name";
}

impl KubernetesNode {
    /// Its addresses that are no names, each with its type.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        let known = self.status.addresses.iter();
        let known = known.filter(|one| matches!(one.kind.as_str(), "InternalIP" | "ExternalIP"));
        known.filter_map(|one| Some((one.kind.as_str(), one.address.parse().ok()?)))
    }

    /// What is wrong with it besides its metadata.
    pub(super) fn faults(&self) -> Vec<FieldError> {
        let unknown = nearest("spec", &self.spec.other, &NODE_SPEC).into_iter();
        let unknown = unknown.map(|(field, nearest)| {
            FieldError::new(field, format!("unknown field; did you mean {nearest}?"))
        });
        let ips = self.status.addresses.iter().enumerate().filter(|(_, one)| one.kind.ends_with("IP"));
        let wrong = ips.filter(|(_, one)| one.address.parse::<IpAddr>().is_err()).map(|(i, one)| {
            let message = format!("{:?} is no IP address; write one such as 10.0.0.1", one.address);
            FieldError::new(format!("status.addresses[{i}].address"), message)
        });
        unknown.chain(wrong).collect()
    }
}

impl Pod {
    /// Its addresses; none when it has ended.
    pub fn addresses(&self) -> Vec<IpAddr> {
        if matches!(self.status.phase.as_str(), "Succeeded" | "Failed") {
            return Vec::new();
        }
        let all: Vec<IpAddr> = self.status.pod_ips.iter().map(|one| one.ip).collect();
        if all.is_empty() { self.status.pod_ip.into_iter().collect() } else { all }
    }

    /// Fields that Kubernetes does not have.
    pub(super) fn unknown_fields(&self) -> Vec<(String, &'static str)> {
        let mut unknown = nearest("spec", &self.spec.other, &POD_SPEC);
        for (i, container) in self.spec.containers.iter().enumerate() {
            unknown.extend(nearest(&format!("spec.containers[{i}]"), &container.other, &CONTAINER));
        }
        unknown
    }
}

/// The fields of `other` that are not `known`, each with the one that may have been meant.
pub(super) fn nearest(
    at: &str,
    other: &BTreeMap<String, Value>,
    known: &[&'static str],
) -> Vec<(String, &'static str)> {
    let unknown = other.keys().filter(|key| !known.contains(&key.as_str()));
    unknown
        .map(|key| {
            let closest = known.iter().min_by_key(|one| strsim::damerau_levenshtein(one, key));
            (format!("{at}.{key}"), *closest.expect("a kind has fields"))
        })
        .collect()
}

const NODE_SPEC: [&str; 7] =
    ["configSource", "externalID", "podCIDR", "podCIDRs", "providerID", "taints", "unschedulable"];

const POD_SPEC: [&str; 41] = [
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];

const CONTAINER: [&str; 25] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];
