//! Who selectors can mean: every endpoint and network set of the cluster, with the labels that
//! selectors see.

use super::{
    Resources, endpoint_key,
    endpoints::{Local, Owner},
};
use crate::model::{
    Cidr, GlobalNetworkSet, HostEndpoint, LABEL_NAMESPACE, LABEL_ORCHESTRATOR, LABEL_SERVICE_ACCOUNT,
    NetworkSet, Profile, Protocol, Selector, WorkloadEndpoint, namespace_profile,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

/// What a selector selects.
pub(super) struct Member<'a> {
    pub labels: BTreeMap<String, String>,
    /// The addresses it stands for.
    pub nets: Cow<'a, [Cidr]>,
    /// The ports it has a name for.
    pub ports: Vec<NamedPort<'a>>,
    /// For an endpoint.
    pub owner: Option<Owner>,
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
    /// Label and value to the members that carry it, ascending.
    by_label: HashMap<(String, String), Vec<u32>>,
}

impl<'a> Catalog<'a> {
    /// Everybody: endpoints of all nodes, and network sets.
    pub fn of_cluster(resources: &'a Resources) -> Self {
        let workloads = resources.all::<WorkloadEndpoint>().map(|endpoint| workload(resources, endpoint));
        let hosts = resources.all::<HostEndpoint>().map(|endpoint| host(resources, endpoint));
        let set =
            |labels, nets: &'a [Cidr]| Member { labels, nets: nets.into(), ports: Vec::new(), owner: None };
        let sets = resources.all::<NetworkSet>().map(|one| set(set_labels(resources, one), &one.spec.nets));
        let global_sets =
            resources.all::<GlobalNetworkSet>().map(|one| set(one.metadata.labels.clone(), &one.spec.nets));
        Self::new(workloads.chain(hosts).chain(sets).chain(global_sets).collect())
    }

    /// Only the endpoints of one node.
    pub fn of_node(resources: &'a Resources, local: &Local<'a>) -> Self {
        let workloads = local.workloads.values().map(|endpoint| workload(resources, endpoint));
        let hosts = local.hosts.values().map(|endpoint| host(resources, endpoint));
        Self::new(workloads.chain(hosts).collect())
    }

    fn new(members: Vec<Member<'a>>) -> Self {
        let mut by_label: HashMap<_, Vec<u32>> = HashMap::new();
        for (at, member) in (0..).zip(&members) {
            for (label, value) in &member.labels {
                by_label.entry((label.clone(), value.clone())).or_default().push(at);
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
            let carriers = values.into_iter().filter_map(|value| self.by_label.get(&(label.clone(), value)));
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

fn workload<'a>(resources: &Resources, endpoint: &'a WorkloadEndpoint) -> Member<'a> {
    let ports = &endpoint.spec.ports;
    Member {
        labels: workload_labels(resources, endpoint),
        nets: endpoint.spec.ip_networks.as_slice().into(),
        ports: ports
            .iter()
            .map(|port| NamedPort { name: &port.name, protocol: port.protocol, port: port.port })
            .collect(),
        owner: Some(Owner::Workload(endpoint_key(endpoint))),
    }
}

fn host<'a>(resources: &Resources, endpoint: &'a HostEndpoint) -> Member<'a> {
    let spec = &endpoint.spec;
    let mut labels = inherited(resources, &spec.profiles);
    labels.extend(endpoint.metadata.labels.clone());
    // It has none of these, and must not pass for a workload.
    for workloads_only in [LABEL_NAMESPACE, LABEL_ORCHESTRATOR, LABEL_SERVICE_ACCOUNT] {
        labels.remove(workloads_only);
    }
    Member {
        labels,
        nets: spec.expected_ips.iter().copied().map(Cidr::host).collect(),
        ports: spec
            .ports
            .iter()
            .map(|port| NamedPort { name: &port.name, protocol: port.protocol, port: port.port })
            .collect(),
        owner: Some(Owner::Host(endpoint.metadata.name.clone())),
    }
}

/// The endpoint's own labels win over what its profiles give it; what Calico says of it wins over both.
fn workload_labels(resources: &Resources, endpoint: &WorkloadEndpoint) -> BTreeMap<String, String> {
    let spec = &endpoint.spec;
    let mut labels = inherited(resources, &spec.profiles);
    labels.extend(endpoint.metadata.labels.clone());
    labels.insert(LABEL_NAMESPACE.to_owned(), endpoint.metadata.namespace.clone());
    labels.insert(LABEL_ORCHESTRATOR.to_owned(), spec.orchestrator.clone());
    if !spec.service_account_name.is_empty() {
        labels.insert(LABEL_SERVICE_ACCOUNT.to_owned(), spec.service_account_name.clone());
    }
    labels
}

/// What an endpoint's profiles give it. Of two that give the same label, the first in the list wins.
fn inherited(resources: &Resources, profiles: &[String]) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for profile in profiles.iter().rev() {
        if let Some(profile) = resources.get::<Profile>("", profile) {
            labels.extend(profile.spec.labels_to_apply.clone());
        }
    }
    labels
}

/// A network set has the labels of its namespace, too.
fn set_labels(resources: &Resources, set: &NetworkSet) -> BTreeMap<String, String> {
    let namespace = &set.metadata.namespace;
    let mut labels = match resources.get::<Profile>("", &namespace_profile(namespace)) {
        Some(profile) => profile.spec.labels_to_apply.clone(),
        None => BTreeMap::new(),
    };
    labels.extend(set.metadata.labels.clone());
    labels.insert(LABEL_NAMESPACE.to_owned(), namespace.clone());
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
            let found: Vec<_> = catalog.select(&selector).map(|member| member.owner.clone()).collect();
            let scanned = catalog.members.iter().filter(|member| selector.matches(&member.labels));
            prop_assert_eq!(found, scanned.map(|member| member.owner.clone()).collect::<Vec<_>>());
        }
    }
}
