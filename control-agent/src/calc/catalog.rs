//! Who selectors can mean: every endpoint and network set of the cluster, with the labels that
//! selectors see.

use super::{
    Resources, endpoint_key,
    endpoints::{Local, Owner},
};
use crate::model::{
    Cidr, GlobalNetworkSet, HostEndpoint, LABEL_NAMESPACE, LABEL_ORCHESTRATOR, LABEL_SERVICE_ACCOUNT, Labels,
    NetworkSet, Profile, Protocol, Selector, WorkloadEndpoint, namespace_profile,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

/// What a selector selects.
pub(super) struct Member<'a> {
    labels: Seen<'a>,
    /// The addresses it stands for.
    pub nets: Cow<'a, [Cidr]>,
    /// The ports it has a name for.
    pub ports: Vec<NamedPort<'a>>,
    what: What<'a>,
}

/// The object that a member is.
enum What<'a> {
    Workload(&'a WorkloadEndpoint),
    Host(&'a HostEndpoint),
    Set,
}

impl Member<'_> {
    /// For an endpoint.
    pub fn owner(&self) -> Option<Owner> {
        match self.what {
            What::Workload(endpoint) => Some(Owner::Workload(endpoint_key(endpoint))),
            What::Host(endpoint) => Some(Owner::Host(endpoint.metadata.name.clone())),
            What::Set => None,
        }
    }
}

/// The labels that selectors see of a member, each once. They are few, and a large cluster has many members: nothing
/// is copied, and nothing sorted.
#[derive(Default)]
struct Seen<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Seen<'a> {
    /// What is put later wins.
    fn put(&mut self, name: &'a str, value: &'a str) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.0.push((name, value)),
        }
    }

    fn extend(&mut self, labels: &'a BTreeMap<String, String>) {
        labels.iter().for_each(|(name, value)| self.put(name, value));
    }
}

impl Labels for Seen<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A port, and what its endpoint calls it.
pub(super) struct NamedPort<'a> {
    pub name: &'a str,
    pub protocol: Protocol,
    pub port: u16,
}

/// Every member, found by label.
pub(super) struct Catalog<'a> {
    members: Vec<Member<'a>>,
    /// Label, then value, to the members that carry it, ascending.
    by_label: HashMap<&'a str, HashMap<&'a str, Vec<u32>>>,
}

impl<'a> Catalog<'a> {
    /// Everybody: endpoints of all nodes, and network sets.
    pub fn of_cluster(resources: &'a Resources) -> Self {
        let workloads = resources.all::<WorkloadEndpoint>().map(|endpoint| workload(resources, endpoint));
        let hosts = resources.all::<HostEndpoint>().map(|endpoint| host(resources, endpoint));
        let set = |labels, nets: &'a [Cidr]| Member {
            labels,
            nets: nets.into(),
            ports: Vec::new(),
            what: What::Set,
        };
        let sets = resources.all::<NetworkSet>().map(|one| set(set_labels(resources, one), &one.spec.nets));
        let global_sets = resources.all::<GlobalNetworkSet>().map(|one| {
            let mut labels = Seen::default();
            labels.extend(&one.metadata.labels);
            set(labels, &one.spec.nets)
        });
        Self::new(workloads.chain(hosts).chain(sets).chain(global_sets).collect())
    }

    /// Only the endpoints of one node.
    pub fn of_node(resources: &'a Resources, local: &Local<'a>) -> Self {
        let workloads = local.workloads.values().map(|endpoint| workload(resources, endpoint));
        let hosts = local.hosts.values().map(|endpoint| host(resources, endpoint));
        Self::new(workloads.chain(hosts).collect())
    }

    fn new(members: Vec<Member<'a>>) -> Self {
        let mut by_label: HashMap<_, HashMap<_, Vec<u32>>> = HashMap::new();
        for (at, member) in (0..).zip(&members) {
            for (label, value) in &member.labels.0 {
                by_label.entry(*label).or_default().entry(*value).or_default().push(at);
            }
        }
        Self { members, by_label }
    }

    /// The members that `selector` matches, in order.
    pub fn select(&self, selector: &Selector) -> impl Iterator<Item = &Member<'a>> {
        let candidates: Box<dyn Iterator<Item = &Member<'a>>> = match self.candidates(selector) {
            Some(some) => Box::new(some.into_iter().map(|at| &self.members[at as usize])),
            None => Box::new(self.members.iter()),
        };
        candidates.filter(move |member| selector.matches(&member.labels))
    }

    /// Those that have a value which the selector demands of some label, by the demand that
    /// leaves fewest; `None` where it demands no particular value.
    fn candidates(&self, selector: &Selector) -> Option<BTreeSet<u32>> {
        let carriers = |label: &String, values: BTreeSet<String>| -> Vec<&[u32]> {
            let by_value = self.by_label.get(label.as_str());
            let carriers = values.iter().filter_map(|value| by_value?.get(value.as_str()));
            carriers.map(Vec::as_slice).collect()
        };
        let demands = selector.restrictions();
        let demands =
            demands.into_iter().filter_map(|(label, demand)| Some((label, demand.must_have_one_of?)));
        let fewest = demands
            .map(|(label, values)| carriers(&label, values))
            .min_by_key(|carriers| carriers.iter().map(|some| some.len()).sum::<usize>())?;
        Some(fewest.into_iter().flatten().copied().collect())
    }
}

fn workload<'a>(resources: &'a Resources, endpoint: &'a WorkloadEndpoint) -> Member<'a> {
    let ports = &endpoint.spec.ports;
    Member {
        labels: workload_labels(resources, endpoint),
        nets: endpoint.spec.ip_networks.as_slice().into(),
        ports: ports
            .iter()
            .map(|port| NamedPort { name: &port.name, protocol: port.protocol, port: port.port })
            .collect(),
        what: What::Workload(endpoint),
    }
}

fn host<'a>(resources: &'a Resources, endpoint: &'a HostEndpoint) -> Member<'a> {
    let spec = &endpoint.spec;
    let mut labels = inherited(resources, &spec.profiles);
    labels.extend(&endpoint.metadata.labels);
    // It has none of these, and must not pass for a workload.
    let workloads_only = [LABEL_NAMESPACE, LABEL_ORCHESTRATOR, LABEL_SERVICE_ACCOUNT];
    labels.0.retain(|(name, _)| !workloads_only.contains(name));
    Member {
        labels,
        nets: spec.expected_ips.iter().copied().map(Cidr::host).collect(),
        ports: spec
            .ports
            .iter()
            .map(|port| NamedPort { name: &port.name, protocol: port.protocol, port: port.port })
            .collect(),
        what: What::Host(endpoint),
    }
}

/// The endpoint's own labels win over what its profiles give it; what Calico says of it wins over both.
fn workload_labels<'a>(resources: &'a Resources, endpoint: &'a WorkloadEndpoint) -> Seen<'a> {
    let spec = &endpoint.spec;
    let mut labels = inherited(resources, &spec.profiles);
    labels.extend(&endpoint.metadata.labels);
    labels.put(LABEL_NAMESPACE, &endpoint.metadata.namespace);
    labels.put(LABEL_ORCHESTRATOR, &spec.orchestrator);
    if !spec.service_account_name.is_empty() {
        labels.put(LABEL_SERVICE_ACCOUNT, &spec.service_account_name);
    }
    labels
}

/// What an endpoint's profiles give it. Of two that give the same label, the first in the list wins.
fn inherited<'a>(resources: &'a Resources, profiles: &[String]) -> Seen<'a> {
    let mut labels = Seen::default();
    for profile in profiles.iter().rev() {
        if let Some(profile) = resources.get::<Profile>("", profile) {
            labels.extend(&profile.spec.labels_to_apply);
        }
    }
    labels
}

/// A network set has the labels of its namespace, too.
fn set_labels<'a>(resources: &'a Resources, set: &'a NetworkSet) -> Seen<'a> {
    let namespace = &set.metadata.namespace;
    let mut labels = Seen::default();
    if let Some(profile) = resources.get::<Profile>("", &namespace_profile(namespace)) {
        labels.extend(&profile.spec.labels_to_apply);
    }
    labels.extend(&set.metadata.labels);
    labels.put(LABEL_NAMESPACE, namespace);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    fn endpoint(name: usize, labels: &[(&str, &str)]) -> WorkloadEndpoint {
        let mut endpoint = WorkloadEndpoint::default();
        endpoint.metadata.name = name.to_string();
        endpoint.metadata.namespace = "default".into();
        endpoint.metadata.labels = labels.iter().map(|(l, v)| ((*l).to_owned(), (*v).to_owned())).collect();
        endpoint
    }

    fn label() -> impl Strategy<Value = (&'static str, &'static str)> {
        (select(vec!["a", "b", "c"]), select(vec!["x", "y", "z"]))
    }

    fn selector() -> impl Strategy<Value = String> {
        let term = label().prop_flat_map(|(label, value)| {
            select(vec![
                format!("{label} == '{value}'"),
                format!("{label} != '{value}'"),
                format!("{label} in {{'{value}', 'x'}}"),
                format!("{label} not in {{'{value}'}}"),
                format!("has({label})"),
                format!("!has({label})"),
                format!("!({label} == '{value}')"),
                "all()".to_owned(),
            ])
        });
        term.prop_recursive(3, 8, 2, |inner| {
            (inner.clone(), inner, select(vec!["&&", "||"]))
                .prop_map(|(a, b, op)| format!("({a}) {op} ({b})"))
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(members in vec(vec(label(), 0..4), 0..30), text in selector()) {
            let resources = members.iter().enumerate().map(|(at, labels)| endpoint(at, labels).into()).collect();
            let catalog = Catalog::of_cluster(&resources);
            let selector = Selector::parse(&text).unwrap();
            let found: Vec<_> = catalog.select(&selector).map(|member| member.owner()).collect();
            let scanned = catalog.members.iter().filter(|member| selector.matches(&member.labels));
            prop_assert_eq!(found, scanned.map(|member| member.owner()).collect::<Vec<_>>());
        }
    }
}
