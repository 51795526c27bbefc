//! Kubernetes' objects into Calico's, as Calico does it.
//!
//! | from | into |
//! |---|---|
//! | Namespace | Profile `kns.NAME`: allows all, gives its labels under `pcns.` |
//! | ServiceAccount | Profile `ksa.NAMESPACE.NAME`: gives its labels under `pcsa.` |
//! | Pod with addresses of its own | WorkloadEndpoint of orchestrator `k8s` |
//! | NetworkPolicy | NetworkPolicy `knp.default.NAME` of tier `default`, order 1000 |
//! | ClusterNetworkPolicy | GlobalNetworkPolicy `kcnp.TIER.NAME` of `kube-admin` or `kube-baseline` |
//! | AdminNetworkPolicy, Baseline... | GlobalNetworkPolicy of `adminnetworkpolicy`, `baselineadminnetworkpolicy` |
//!
//! A rule that cannot be converted fails closed: one that accepts is left out, any other denies all.

mod admin;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sha2::{Digest, Sha224};

use super::objects::{Namespace, Pod, ServiceAccount};
use super::{Offline, Staged};
use crate::model::{
    Action, Cidr, EntityRule, FieldError, Metadata, NAMESPACE_PREFIX, Profile, ProfileSpec, Protocol,
    Resource, Rule, SERVICE_ACCOUNT_PREFIX, WorkloadEndpoint, WorkloadEndpointPort, WorkloadEndpointSpec,
    namespace_profile,
};

/// Where pods are that name no node.
pub const UNSCHEDULED: &str = "no-node";

/// What every pod is labelled with, and nothing else.
const ORCHESTRATOR: &str = "projectcalico.org/orchestrator == 'k8s'";

/// A cluster in Calico's kinds.
#[derive(Debug, Default)]
pub struct Converted {
    /// The objects that were there, and those converted.
    pub resources: Vec<Resource>,
    /// What failed closed, a sentence each.
    pub problems: Vec<String>,
    /// Addresses that are a node's, with the node: of pods in the host's network.
    pub hosts: BTreeMap<IpAddr, String>,
    /// The pods in the host's network, by namespace and name.
    pub host_pods: BTreeMap<(String, String), Vec<IpAddr>>,
    /// Addresses of services, with their names. Policy sees the backends' instead.
    pub services: BTreeMap<IpAddr, String>,
}

/// Converts what can be, beside the objects of `own` kinds.
pub fn convert(own: Vec<Resource>, objects: &[Offline]) -> Converted {
    let mut into = Converted { resources: own, ..Converted::default() };
    let mut namespaces: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    let mut accounts: BTreeSet<(&str, &str)> = BTreeSet::new();
    let (mut admin, mut baseline) = (false, false);
    for object in objects {
        if object.is_namespaced() {
            namespaces.entry(&object.metadata().namespace).or_default();
        }
        match object {
            Offline::Namespace(Namespace { metadata, .. }) => {
                namespaces.entry(&metadata.name).or_default().extend(metadata.labels.clone());
            }
            Offline::ServiceAccount(ServiceAccount { metadata, .. }) => {
                accounts.insert((&metadata.namespace, &metadata.name));
                into.profile(Some(object), account_profile(&metadata.namespace, &metadata.name, metadata));
            }
            Offline::Service(service) => {
                let name = format!("{}/{}", service.metadata.namespace, service.metadata.name);
                into.services.extend(service.addresses().map(|addr| (addr, name.clone())));
            }
            Offline::NetworkPolicy(policy) => into.take(object, policy::network_policy(policy)),
            Offline::ClusterNetworkPolicy(policy) => into.take(object, admin::cluster(policy)),
            Offline::AdminNetworkPolicy(policy) => {
                admin = true;
                into.take(object, admin::admin(policy));
            }
            Offline::BaselineAdminNetworkPolicy(policy) => {
                baseline = true;
                into.take(object, admin::baseline(policy));
            }
            Offline::Pod(_) | Offline::EndpointSlice(_) | Offline::Staged(..) => {}
        }
    }
    for pod in objects.iter().filter_map(|object| match object {
        Offline::Pod(pod) => Some(pod),
        _ => None,
    }) {
        let account = account(pod);
        if accounts.insert((&pod.metadata.namespace, account)) {
            into.profile(None, account_profile(&pod.metadata.namespace, account, &Metadata::default()));
        }
        into.pod(pod);
    }
    for (name, labels) in namespaces {
        let written =
            |object: &&Offline| matches!(object, Offline::Namespace(_)) && object.metadata().name == name;
        into.profile(objects.iter().find(written), namespace_of(name, labels));
    }
    into.resources.extend(admin.then(|| admin::tier("adminnetworkpolicy", 1_000.0).into()));
    into.resources.extend(baseline.then(|| admin::tier("baselineadminnetworkpolicy", 10_000_000.0).into()));
    into
}

/// What makes an object no good, found by converting it.
pub(super) fn faults(object: &Offline) -> Vec<FieldError> {
    let converted = match object {
        Offline::NetworkPolicy(policy) => policy::network_policy(policy),
        Offline::ClusterNetworkPolicy(policy) => admin::cluster(policy),
        Offline::AdminNetworkPolicy(policy) => admin::admin(policy),
        Offline::BaselineAdminNetworkPolicy(policy) => admin::baseline(policy),
        Offline::Staged(_, staged) => match staged {
            Staged::Kubernetes(policy) => policy::network_policy(policy),
            Staged::Calico(resource) => return (**resource).clone().admit().err().unwrap_or_default(),
        },
        Offline::Pod(pod) => return endpoint(pod).map(Resource::from).map_or_else(Vec::new, invalid),
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
}

impl Converted {
    fn take(&mut self, object: &Offline, policy: Result<Policy, FieldError>) {
        match policy {
            Ok(Policy { resource, closed }) => {
                self.problems.extend(closed.into_iter().map(|why| format!("{}: {why}", object.title())));
                self.resources.push(resource);
            }
            Err(error) => self.problems.push(format!("{}: {error}", object.title())),
        }
    }

    /// A profile, unless there is one of its name already. `of`: what it is made from, where that is
    /// more than a mention.
    fn profile(&mut self, of: Option<&Offline>, profile: Profile) {
        let name = &profile.metadata.name;
        let written = |one: &Resource| matches!(one, Resource::Profile(own) if own.metadata.name == *name);
        if !self.resources.iter().any(written) {
            return self.resources.push(profile.into());
        }
        self.problems.extend(of.map(|of| format!("{}: Profile {name} is given too, and counts", of.title())));
    }

    fn pod(&mut self, pod: &Pod) {
        let Metadata { namespace, name, .. } = &pod.metadata;
        if pod.spec.host_network {
            let addresses = pod.addresses();
            self.hosts.extend(addresses.iter().map(|addr| (*addr, node(pod).to_owned())));
            self.host_pods.insert((namespace.clone(), name.clone()), addresses);
        } else if let Some(endpoint) = endpoint(pod) {
            self.resources.push(endpoint.into());
        }
    }
}

fn node(pod: &Pod) -> &str {
    if pod.spec.node_name.is_empty() { UNSCHEDULED } else { &pod.spec.node_name }
}

fn account(pod: &Pod) -> &str {
    if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name }
}

/// `None`: the pod is in the host's network.
fn endpoint(pod: &Pod) -> Option<WorkloadEndpoint> {
    if pod.spec.host_network {
        return None;
    }
    let Metadata { namespace, name, labels, .. } = &pod.metadata;
    let ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
    let named = ports.filter(|port| !port.name.is_empty()).map(|port| WorkloadEndpointPort {
        name: port.name.clone(),
        protocol: port.protocol.unwrap_or(Protocol::TCP),
        port: port.container_port,
        host_port: 0,
        host_ip: None,
    });
    // Not longer than the kernel's names, and another for each pod.
    let digest = Sha224::digest(format!("{namespace}.{name}"));
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Some(WorkloadEndpoint {
        metadata: Metadata {
            namespace: namespace.clone(),
            name: name.clone(),
            labels: labels.clone(),
            ..Metadata::default()
        },
        spec: WorkloadEndpointSpec {
            orchestrator: "k8s".to_owned(),
            node: node(pod).to_owned(),
            pod: name.clone(),
            endpoint: "eth0".to_owned(),
            service_account_name: account(pod).to_owned(),
            ip_networks: pod.addresses().into_iter().map(Cidr::host).collect(),
            profiles: vec![namespace_profile(namespace), account_name(namespace, account(pod))],
            interface_name: format!("cali{}", &hex[..11]),
            ports: named.collect(),
            ..WorkloadEndpointSpec::default()
        },
    })
}

fn namespace_of(name: &str, mut labels: BTreeMap<String, String>) -> Profile {
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
