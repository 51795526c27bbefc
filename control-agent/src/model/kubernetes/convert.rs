//! Kubernetes' objects into Calico's, as Calico does it.
//!
//! | from | into |
//! |---|---|
//! | Node of `v1` | Node: its labels, its addresses, and those that Calico noted as annotations |
//! | Namespace | Profile `kns.NAME`: allows all, gives its labels under `pcns.` |
//! | ServiceAccount | Profile `ksa.NAMESPACE.NAME`: gives its labels under `pcsa.` |
//! | Pod on a node, with addresses of its own | WorkloadEndpoint of orchestrator `k8s` |
//! | NetworkPolicy | NetworkPolicy `knp.default.NAME` of tier `default`, order 1000 |
//! | StagedKubernetesNetworkPolicy | StagedNetworkPolicy of that name |
//! | ClusterNetworkPolicy | GlobalNetworkPolicy `kcnp.TIER.NAME` of `kube-admin` or `kube-baseline` |
//! | AdminNetworkPolicy, Baseline... | GlobalNetworkPolicy of `adminnetworkpolicy`, `baselineadminnetworkpolicy` |
//!
//! Services and EndpointSlices stay what they are: rules that name a service ask for them.
//!
//! A rule that cannot be converted fails closed: one that accepts is left out, any other denies all.

mod admin;
mod policy;

use std::collections::BTreeMap;

use margay_api::link::host_interface;

use super::objects::{KubernetesNode, Namespace, Pod};
use super::{Object, Typed};
use crate::model::{
    Action, Cidr, EntityRule, FieldError, Metadata, NAMESPACE_PREFIX, Node, NodeAddress, NodeBgp, NodeSpec,
    NodeStatus, OrchRef, Profile, ProfileSpec, Protocol, QosControls, Resource, Rule, SERVICE_ACCOUNT_PREFIX,
    SubnetAddr, WorkloadEndpoint, WorkloadEndpointPort, WorkloadEndpointSpec, namespace_profile,
};

/// The annotation by which a pod names the host side of its link, where that is not Calico's
/// `cali` and a digest.
pub const INTERFACE: &str = "margay.io/interface";

/// In front of the annotations of a pod that limit its traffic: Calico's, and ours for what it has not.
/// What follows is the name of a field of `spec.qosControls`.
const QOS: [&str; 2] = ["qos.projectcalico.org/", "qos.margay.io/"];

/// What every pod is labelled with, and nothing else.
const ORCHESTRATOR: &str = "projectcalico.org/orchestrator == 'k8s'";

/// What stands for an object in Calico's kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Converted {
    /// What the object becomes.
    pub resources: Vec<Resource>,
    /// What it takes for granted: stands only where nothing else has the name.
    pub implied: Vec<Resource>,
    /// What a pod with a network of its own is, wherever it runs and whoever makes its link.
    pub described: Option<Box<WorkloadEndpoint>>,
    /// What failed closed, a sentence each.
    pub problems: Vec<String>,
}

/// Converts one object, which depends on no other.
pub fn convert(object: &Object) -> Converted {
    let mut into = Converted::default();
    let policy = match object.typed() {
        Typed::Node(from) => {
            into.resources.push(node(from).into());
            return into;
        }
        Typed::Namespace(Namespace { metadata, .. }) => {
            into.resources.push(namespace(metadata).into());
            return into;
        }
        Typed::ServiceAccount(account) => {
            let Metadata { namespace, name, .. } = &account.metadata;
            into.resources.push(account_profile(namespace, name, &account.metadata).into());
            return into;
        }
        Typed::Pod(pod) => {
            if !pod.spec.host_network {
                // Written or not, the account is there: it gives no labels then.
                let profile = account_profile(&pod.metadata.namespace, account(pod), &Metadata::default());
                into.implied.push(profile.into());
                into.resources.extend(endpoint(pod).map(Resource::from));
                into.described = Some(Box::new(link(pod)));
            }
            return into;
        }
        Typed::Service(_) | Typed::EndpointSlice(_) => return into,
        Typed::NetworkPolicy(policy) => policy::network_policy(policy),
        Typed::StagedNetworkPolicy(staged) => policy::staged(staged),
        Typed::ClusterNetworkPolicy(policy) => admin::cluster(policy),
        Typed::AdminNetworkPolicy(policy) => {
            into.implied.push(admin::tier("adminnetworkpolicy", 1_000.0).into());
            admin::admin(policy)
        }
        Typed::BaselineAdminNetworkPolicy(policy) => {
            into.implied.push(admin::tier("baselineadminnetworkpolicy", 10_000_000.0).into());
            admin::baseline(policy)
        }
    };
    match policy {
        Ok(Policy { inert: true, .. }) => {}
        Ok(Policy { mut resource, closed, .. }) => {
            resource.set_defaults();
            into.problems.extend(closed);
            into.resources.push(resource);
        }
        Err(error) => into.problems.push(error.to_string()),
    }
    into
}

/// What makes an object no good, found by converting it.
pub(super) fn faults(object: &Object) -> Vec<FieldError> {
    let converted = match object.typed() {
        Typed::NetworkPolicy(policy) => policy::network_policy(policy),
        Typed::StagedNetworkPolicy(staged) => policy::staged(staged),
        Typed::ClusterNetworkPolicy(policy) => admin::cluster(policy),
        Typed::AdminNetworkPolicy(policy) => admin::admin(policy),
        Typed::BaselineAdminNetworkPolicy(policy) => admin::baseline(policy),
        Typed::Pod(pod) if !pod.spec.host_network => {
            let mut link = link(pod);
            // It may have to wait for one.
            if link.spec.node.is_empty() {
                "none".clone_into(&mut link.spec.node);
            }
            let mut errors = invalid(link.into());
            errors.extend(limits(&pod.metadata.annotations).err());
            for error in &mut errors {
                if let Some(name) = error.field.strip_prefix("spec.qosControls.") {
                    error.field = format!("metadata.annotations[\"{}{name}\"]", QOS[0]);
                }
            }
            for error in errors.iter_mut().filter(|error| error.field == "spec.interfaceName") {
                error.field = format!("metadata.annotations[{INTERFACE:?}]");
            }
            return errors;
        }
        _ => return Vec::new(),
    };
    match converted {
        Ok(policy) => invalid(policy.resource),
        Err(error) => vec![error],
    }
}

fn invalid(mut resource: Resource) -> Vec<FieldError> {
    // The names of what is converted have more dots than those that people give.
    let metadata = resource.metadata_mut();
    metadata.name = metadata.name.replace('.', "-");
    resource.admit().err().unwrap_or_default()
}

/// A policy in Calico's terms, and what of it failed closed.
struct Policy {
    resource: Resource,
    closed: Vec<String>,
    /// It says nothing about either direction.
    inert: bool,
}

fn account(pod: &Pod) -> &str {
    if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name }
}

/// `None`: the pod is in the host's network, or is not yet, or no longer, anywhere.
fn endpoint(pod: &Pod) -> Option<WorkloadEndpoint> {
    let nowhere = pod.spec.node_name.is_empty() || pod.addresses().is_empty();
    (!pod.spec.host_network && !nowhere).then(|| link(pod))
}

fn link(pod: &Pod) -> WorkloadEndpoint {
    let Metadata { namespace, name, labels, annotations, .. } = &pod.metadata;
    let ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
    let named = ports.filter(|port| !port.name.is_empty()).map(|port| WorkloadEndpointPort {
        name: port.name.clone(),
        protocol: port.protocol.unwrap_or(Protocol::TCP),
        port: port.container_port,
        host_port: 0,
        host_ip: None,
    });
    WorkloadEndpoint {
        metadata: Metadata {
            namespace: namespace.clone(),
            name: name.clone(),
            labels: labels.clone(),
            ..Metadata::default()
        },
        spec: WorkloadEndpointSpec {
            orchestrator: "k8s".to_owned(),
            node: pod.spec.node_name.clone(),
            pod: name.clone(),
            endpoint: "eth0".to_owned(),
            service_account_name: account(pod).to_owned(),
            ip_networks: pod.addresses().into_iter().map(Cidr::host).collect(),
            profiles: vec![namespace_profile(namespace), account_name(namespace, account(pod))],
            interface_name: annotations
                .get(INTERFACE)
                .cloned()
                .unwrap_or_else(|| host_interface(&format!("{namespace}.{name}"))),
            ports: named.collect(),
            // What is no limit was not let in.
            qos_controls: limits(annotations).unwrap_or_default(),
            ..WorkloadEndpointSpec::default()
        },
    }
}

/// The limits that the annotations of a pod set.
fn limits(annotations: &BTreeMap<String, String>) -> Result<Option<QosControls>, FieldError> {
    let mut set = serde_json::Map::new();
    for (key, value) in annotations {
        let Some(name) = QOS.iter().find_map(|prefix| key.strip_prefix(prefix)) else { continue };
        let number: u64 = value.parse().map_err(|_| {
            FieldError::new(format!("metadata.annotations[{key:?}]"), format!("{value:?} is no whole number"))
        })?;
        set.insert(name.to_owned(), number.into());
    }
    if set.is_empty() {
        return Ok(None);
    }
    serde_json::from_value(set.into())
        .map(Some)
        .map_err(|error| FieldError::new("metadata.annotations", format!("of {}: {error}", QOS[0])))
}

fn node(from: &KubernetesNode) -> Node {
    let Metadata { name, labels, annotations, .. } = &from.metadata;
    // Whatever Calico noted there is optional, and wrote it itself.
    let noted = |key: &str| annotations.get(key)?.parse::<SubnetAddr>().ok();
    let (ipv4_address, ipv6_address) =
        (noted("projectcalico.org/IPv4Address"), noted("projectcalico.org/IPv6Address"));
    let bgp = (ipv4_address.is_some() || ipv6_address.is_some()).then(|| NodeBgp {
        ipv4_address,
        ipv6_address,
        ..NodeBgp::default()
    });
    let addresses = from.addresses().filter_map(|(kind, address)| {
        Some(NodeAddress { address: address.to_string().parse().ok()?, kind: kind.to_owned() })
    });
    let spec = NodeSpec {
        bgp,
        orch_refs: vec![OrchRef { node_name: name.clone(), orchestrator: "k8s".to_owned() }],
        addresses: addresses.collect(),
        ..NodeSpec::default()
    };
    let cidrs = from.spec.pod_cidrs.clone();
    let status = (!cidrs.is_empty()).then(|| NodeStatus { pod_cidrs: cidrs, ..NodeStatus::default() });
    Node { metadata: Metadata { labels: labels.clone(), ..named(name.clone()) }, spec, status }
}

fn namespace(Metadata { name, labels, .. }: &Metadata) -> Profile {
    let mut labels = labels.clone();
    labels.entry(Namespace::NAME_LABEL.to_owned()).or_insert_with(|| name.to_owned());
    labels.insert("projectcalico.org/name".to_owned(), name.to_owned());
    let all = || vec![rule(Action::Allow)];
    let spec =
        ProfileSpec { ingress: all(), egress: all(), labels_to_apply: prefixed(NAMESPACE_PREFIX, &labels) };
    Profile { metadata: named(namespace_profile(name)), spec }
}

fn account_profile(namespace: &str, name: &str, metadata: &Metadata) -> Profile {
    let mut labels = metadata.labels.clone();
    labels.insert("projectcalico.org/name".to_owned(), name.to_owned());
    let labels_to_apply = prefixed(SERVICE_ACCOUNT_PREFIX, &labels);
    let spec = ProfileSpec { labels_to_apply, ..ProfileSpec::default() };
    Profile { metadata: named(account_name(namespace, name)), spec }
}

fn account_name(namespace: &str, name: &str) -> String {
    format!("ksa.{namespace}.{name}")
}

fn prefixed(prefix: &str, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (format!("{prefix}{key}"), value.clone())).collect()
}

fn named(name: String) -> Metadata {
    Metadata { name, ..Metadata::default() }
}

fn rule(action: Action) -> Rule {
    Rule {
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: EntityRule::default(),
        destination: EntityRule::default(),
        http: None,
        metadata: None,
    }
}

/// Pods that `selector` selects, and nothing else that has labels.
fn pods(selector: &str) -> String {
    if selector == "all()" { ORCHESTRATOR.to_owned() } else { format!("{ORCHESTRATOR} && {selector}") }
}
