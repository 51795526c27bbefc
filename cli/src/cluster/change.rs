//! A single change of a packet, or of who its ends are, and how people say it.

use std::{collections::BTreeMap, sync::Arc};

use margay_agent::{
    calc::workload_name,
    model::{
        HostEndpoint, LABEL_NAMESPACE, LABEL_ORCHESTRATOR, LABEL_SERVICE_ACCOUNT, NAMESPACE_PREFIX, Resource,
        SERVICE_ACCOUNT_PREFIX, Selector, WorkloadEndpoint, namespace_profile,
    },
};
use margay_dataplane::policy::{Query, counterfactual::Field};

use super::{Cluster, End, Packet};

/// Labels that every namespace has, and that say its name.
const NAMES_OF_NAMESPACE: [&str; 2] = ["pcns.kubernetes.io/metadata.name", "pcns.projectcalico.org/name"];

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Destination,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Source => "the source",
            Self::Destination => "the destination",
        }
    }
}

/// What is different.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// One field of the packet.
    Packet(Field, Query),
    /// One thing about an endpoint.
    End(Side, Arc<WorkloadEndpoint>, Trait),
    /// A label of a host endpoint. `None`: it has none of that name.
    Host(Side, Arc<HostEndpoint>, String, Option<String>),
}

/// Something that selectors see of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trait {
    /// A label of its own. `None`: it has none of that name.
    Label(String, Option<String>),
    /// A label of its namespace.
    NamespaceLabel(String, Option<String>),
    /// A label of the account it runs under.
    AccountLabel(String, Option<String>),
    /// Its namespace.
    Namespace(String),
    /// The account it runs under.
    Account(String),
}

impl Trait {
    /// A label, whosever it is.
    pub fn is_label(&self) -> bool {
        matches!(self, Self::Label(..) | Self::NamespaceLabel(..) | Self::AccountLabel(..))
    }
}

impl Change {
    /// The changes of an end that may make a selector answer otherwise.
    pub fn for_selector(side: Side, end: &End<'_>, selector: &Selector) -> Vec<Self> {
        match (end.endpoint, end.protected) {
            (Some(endpoint), _) => Self::of_workload(side, endpoint, selector),
            (None, Some(host)) => Self::of_host(side, host, selector),
            (None, None) => Vec::new(),
        }
    }

    fn of_host(side: Side, host: &HostEndpoint, selector: &Selector) -> Vec<Self> {
        let host = Arc::new(host.clone());
        let mentions = selector.mentions().into_iter();
        let labels = mentions.flat_map(|(label, values)| {
            let label = label.to_owned();
            values_of(values).into_iter().map(move |value| (label.clone(), value))
        });
        labels.map(|(label, value)| Self::Host(side, host.clone(), label, value)).collect()
    }

    fn of_workload(side: Side, endpoint: &WorkloadEndpoint, selector: &Selector) -> Vec<Self> {
        let mut traits = Vec::new();
        for (label, values) in selector.mentions() {
            let values: Vec<&str> = values.into_iter().collect();
            let named = |label: &str, make: fn(String, Option<String>) -> Trait| {
                let some = values_of(values.iter().copied()).into_iter();
                some.map(|value| make(label.to_owned(), value)).collect::<Vec<_>>()
            };
            if label == LABEL_NAMESPACE || NAMES_OF_NAMESPACE.contains(&label) {
                traits.extend(values.iter().map(|name| Trait::Namespace((*name).to_owned())));
            } else if let Some(label) = label.strip_prefix(NAMESPACE_PREFIX) {
                traits.extend(named(label, Trait::NamespaceLabel));
            } else if let Some(label) = label.strip_prefix(SERVICE_ACCOUNT_PREFIX) {
                traits.extend(named(label, Trait::AccountLabel));
            } else if label == LABEL_SERVICE_ACCOUNT {
                traits.extend(values.iter().map(|name| Trait::Account((*name).to_owned())));
            } else if label != LABEL_ORCHESTRATOR {
                traits.extend(named(label, Trait::Label));
            }
        }
        let endpoint = Arc::new(endpoint.clone());
        traits.into_iter().map(|one| Self::End(side, endpoint.clone(), one)).collect()
    }

    /// As JSON names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Packet(field, _) => match field {
                Field::IpVersion => "ipVersion",
                Field::Protocol => "protocol",
                Field::Icmp => "icmp",
                Field::Source => "source",
                Field::SourcePort => "sourcePort",
                Field::Destination => "destination",
                Field::DestinationPort => "destinationPort",
            },
            Self::End(_, _, one) => match one {
                Trait::Label(..) => "label",
                Trait::NamespaceLabel(..) => "namespaceLabel",
                Trait::AccountLabel(..) => "serviceAccountLabel",
                Trait::Namespace(_) => "namespace",
                Trait::Account(_) => "serviceAccount",
            },
            Self::Host(..) => "label",
        }
    }

    /// What would have to be so, as a clause behind "if".
    pub fn describe(&self, cluster: &Cluster) -> String {
        match self {
            Self::Packet(field, query) => packet_clause(*field, query, cluster),
            Self::End(side, endpoint, one) => end_clause(*side, endpoint, one),
            Self::Host(side, _, label, value) => label_clause(side.name().to_owned(), label, value),
        }
    }

    /// The resources as they would be; `None`: nothing would be different, or it cannot be.
    pub fn of_resources(&self, resources: &[Arc<Resource>]) -> Option<Vec<Arc<Resource>>> {
        let (endpoint, one) = match self {
            Self::Packet(..) => return None,
            Self::End(_, endpoint, one) => (endpoint, one),
            Self::Host(_, host, label, value) => {
                let changed = edit_host(resources, host, label, value);
                return (changed.iter().zip(resources).any(|(new, old)| new != old)).then_some(changed);
            }
        };
        let changed = match one {
            Trait::Label(label, value) => {
                edit_endpoint(resources, endpoint, |own| set(&mut own.metadata.labels, label, value))
            }
            Trait::NamespaceLabel(label, value) => {
                let name = namespace_profile(&endpoint.metadata.namespace);
                edit_profile(resources, &name, &format!("{NAMESPACE_PREFIX}{label}"), value)
            }
            Trait::AccountLabel(label, value) => {
                let name = account_profile(&endpoint.metadata.namespace, &endpoint.spec.service_account_name);
                edit_profile(resources, &name, &format!("{SERVICE_ACCOUNT_PREFIX}{label}"), value)
            }
            Trait::Namespace(to) => {
                let taken = |one: &Arc<Resource>| match &**one {
                    Resource::WorkloadEndpoint(other) => {
                        other.metadata.namespace == *to
                            && (other.metadata.name == endpoint.metadata.name
                                || workload_name(other).ends_with(&format!("/{}", endpoint.spec.pod)))
                    }
                    _ => false,
                };
                // It would be taken for the other.
                if resources.iter().any(taken) {
                    return None;
                }
                edit_endpoint(resources, endpoint, |own| move_to(own, to, None))
            }
            Trait::Account(to) => edit_endpoint(resources, endpoint, |own| {
                let namespace = own.metadata.namespace.clone();
                move_to(own, &namespace, Some(to));
            }),
        };
        (changed.iter().zip(resources).any(|(new, old)| new != old)).then_some(changed)
    }
}

fn packet_clause(field: Field, query: &Query, cluster: &Cluster) -> String {
    let packet = Packet::of(*query, cluster);
    match field {
        Field::IpVersion => "the IP version were the other".to_owned(),
        Field::Protocol => format!("the protocol were {}", query.key.proto),
        Field::Icmp => format!("the ICMP type were {} and the code {}", query.icmp.kind, query.icmp.code),
        Field::Source => format!("the source were {}", packet.from.title(query.key.src)),
        Field::SourcePort => format!("the source port were {}", query.key.sport),
        Field::Destination => format!("the destination were {}", packet.to.title(query.key.dst)),
        Field::DestinationPort => format!("the destination port were {}", query.key.dport),
    }
}

fn end_clause(side: Side, endpoint: &WorkloadEndpoint, one: &Trait) -> String {
    let side = side.name();
    let namespace = &endpoint.metadata.namespace;
    match one {
        Trait::Label(name, value) => label_clause(side.to_owned(), name, value),
        Trait::NamespaceLabel(name, value) => {
            label_clause(format!("{side}'s namespace {namespace}"), name, value)
        }
        Trait::AccountLabel(name, value) => {
            let account = &endpoint.spec.service_account_name;
            label_clause(format!("{side}'s service account {account}"), name, value)
        }
        Trait::Namespace(to) => format!("{side} were in the namespace {to}"),
        Trait::Account(to) => format!("{side} ran under the service account {to}"),
    }
}

fn label_clause(whose: String, label: &str, value: &Option<String>) -> String {
    match value {
        Some(value) => format!("{whose} had the label {label}={value}"),
        None => format!("{whose} did not have the label {label}"),
    }
}

/// What a label may be changed to: each of `values`, and to be gone. What is only asked to be there may
/// have any value.
fn values_of<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Option<String>> {
    let mut some: Vec<_> = values.into_iter().map(|value| Some(value.to_owned())).collect();
    if some.is_empty() {
        some.push(Some("true".to_owned()));
    }
    some.push(None);
    some
}

fn set(labels: &mut BTreeMap<String, String>, label: &str, value: &Option<String>) {
    match value {
        Some(value) => labels.insert(label.to_owned(), value.clone()),
        None => labels.remove(label),
    };
}

fn edit_endpoint(
    resources: &[Arc<Resource>],
    endpoint: &WorkloadEndpoint,
    edit: impl Fn(&mut WorkloadEndpoint),
) -> Vec<Arc<Resource>> {
    let edited = |resource: &Arc<Resource>| match &**resource {
        Resource::WorkloadEndpoint(own) if own.metadata == endpoint.metadata => {
            let mut own = own.clone();
            edit(&mut own);
            Arc::new(own.into())
        }
        _ => resource.clone(),
    };
    resources.iter().map(edited).collect()
}

fn edit_host(
    resources: &[Arc<Resource>],
    host: &HostEndpoint,
    label: &str,
    value: &Option<String>,
) -> Vec<Arc<Resource>> {
    let edited = |resource: &Arc<Resource>| match &**resource {
        Resource::HostEndpoint(own) if own.metadata == host.metadata => {
            let mut own = own.clone();
            set(&mut own.metadata.labels, label, value);
            Arc::new(own.into())
        }
        _ => resource.clone(),
    };
    resources.iter().map(edited).collect()
}

fn edit_profile(
    resources: &[Arc<Resource>],
    name: &str,
    label: &str,
    value: &Option<String>,
) -> Vec<Arc<Resource>> {
    let edited = |resource: &Arc<Resource>| match &**resource {
        Resource::Profile(own) if own.metadata.name == name => {
            let mut own = own.clone();
            set(&mut own.spec.labels_to_apply, label, value);
            Arc::new(own.into())
        }
        _ => resource.clone(),
    };
    resources.iter().map(edited).collect()
}

/// To another namespace or account, with the profiles that come with them.
fn move_to(endpoint: &mut WorkloadEndpoint, namespace: &str, account: Option<&str>) {
    let from = endpoint.metadata.namespace.clone();
    let old = endpoint.spec.service_account_name.clone();
    let new = account.unwrap_or(&old).to_owned();
    for profile in &mut endpoint.spec.profiles {
        if *profile == namespace_profile(&from) {
            *profile = namespace_profile(namespace);
        } else if *profile == account_profile(&from, &old) {
            *profile = account_profile(namespace, &new);
        }
    }
    namespace.clone_into(&mut endpoint.metadata.namespace);
    endpoint.spec.service_account_name = new;
}

fn account_profile(namespace: &str, account: &str) -> String {
    format!("ksa.{namespace}.{account}")
}
