//! What decides who needs an object: read from it once, when it comes.

use crate::model::{
    ATTACHMENT, BgpConfiguration, Cidr, IpamBlock, Kind, LABEL_NAMESPACE, LABEL_ORCHESTRATOR,
    LABEL_SERVICE_ACCOUNT, Labels, Node, Port, Profile, Resource, Rule, Selector, WorkloadEndpoint,
    kubernetes,
};
use std::collections::{BTreeMap, BTreeSet};

/// Of the attributes that go with an address: the node that uses it.
const ALLOCATED_ON: &str = "node";

/// What is known of one object.
#[derive(Default)]
pub(super) struct Facts {
    /// What it is part of. An object that is part of nothing is for everybody.
    pub parts: Vec<(GroupKey, Part)>,
    pub wide: Vec<Wide>,
    pub block: Option<Block>,
}

/// What goes to the same readers, as one cannot be understood without the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum GroupKey {
    /// A pod and its links.
    Pod(String, String),
    /// A link without a pod.
    Workload(String, String),
    Host(String),
    Set(String, String),
    GlobalSet(String),
    /// A policy in force, by its kind, and the staged one that stands for it.
    Policy(Kind, String, String),
}

/// What one object gives to its group.
pub(super) enum Part {
    Member(Member),
    Policy { applies_to: Selector, peers: Vec<Selector> },
}

/// Somebody whom selectors can mean.
#[derive(Clone)]
pub(super) struct Member {
    /// Where it runs.
    pub node: Option<Box<str>>,
    pub own: Vec<(Box<str>, Box<str>)>,
    /// What Calico says of it, over all else.
    pub implied: Vec<(Box<str>, Box<str>)>,
    /// These labels it cannot have.
    pub without: &'static [&'static str],
    /// What it inherits labels from, the first before the others.
    pub profiles: Vec<Box<str>>,
    /// Profiles whose rules hold for it: those above, of endpoints.
    pub is_endpoint: bool,
    pub nets: Vec<Cidr>,
    /// What the pod's object says of it goes before.
    pub follows: bool,
    /// A pod's object, as links of the pod follow it.
    pub leads: bool,
}

/// What many are concerned by.
pub(super) enum Wide {
    Profile(Given),
    Node {
        name: Box<str>,
        v4: bool,
        v6: bool,
    },
    Pool(Cidr),
    /// Where addresses of services are from.
    Services(Vec<Cidr>),
}

/// What a profile gives.
pub(super) struct Given {
    pub name: Box<str>,
    /// One that was written counts more than one that follows from another object.
    pub derived: bool,
    pub labels: Vec<(Box<str>, Box<str>)>,
    pub peers: Vec<Selector>,
}

/// A block of addresses, as far as others than its own node have to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub cidr: Cidr,
    pub node: Option<Box<str>>,
    /// Who has addresses of it.
    pub users: BTreeSet<Box<str>>,
}

impl Facts {
    /// Of an object as it is stored. One that cannot be read is for everybody: as to one who reads the store itself.
    pub fn of(json: &str) -> Self {
        let mut facts = Self::default();
        match Resource::from_json(json) {
            Ok(Resource::Kubernetes(object)) => {
                let converted = kubernetes::convert(&object);
                converted.resources.iter().for_each(|resource| facts.take(resource, true));
                if let Some(pod) = converted.described {
                    let key = GroupKey::Pod(pod.metadata.namespace.clone(), pod.spec.pod.clone());
                    let leads = Member { leads: true, nets: Vec::new(), ..workload(&pod) };
                    facts.parts.push((key, Part::Member(leads)));
                }
            }
            Ok(resource) => facts.take(&resource, false),
            Err(_) => {}
        }
        facts
    }

    fn take(&mut self, resource: &Resource, derived: bool) {
        let name = resource.metadata().name.clone();
        let namespace = resource.metadata().namespace.clone();
        match resource {
            Resource::WorkloadEndpoint(endpoint) => {
                let key = match endpoint.spec.pod.as_str() {
                    "" => GroupKey::Workload(namespace, name),
                    pod => GroupKey::Pod(namespace, pod.to_owned()),
                };
                self.parts.push((key, Part::Member(workload(endpoint))));
            }
            Resource::HostEndpoint(endpoint) => {
                let member = Member {
                    node: Some(endpoint.spec.node.as_str().into()),
                    without: &[LABEL_NAMESPACE, LABEL_ORCHESTRATOR, LABEL_SERVICE_ACCOUNT],
                    profiles: texts(&endpoint.spec.profiles),
                    is_endpoint: true,
                    ..member(&endpoint.metadata.labels)
                };
                self.parts.push((GroupKey::Host(name), Part::Member(member)));
            }
            Resource::NetworkSet(set) => {
                let member = Member {
                    implied: vec![(LABEL_NAMESPACE.into(), namespace.as_str().into())],
                    profiles: vec![crate::model::namespace_profile(&namespace).into()],
                    ..member(&set.metadata.labels)
                };
                self.parts.push((GroupKey::Set(namespace, name), Part::Member(member)));
            }
            Resource::GlobalNetworkSet(set) => {
                self.parts.push((GroupKey::GlobalSet(name), Part::Member(member(&set.metadata.labels))));
            }
            Resource::NetworkPolicy(policy) => self.namespaced(namespace, name, &policy.spec),
            Resource::StagedNetworkPolicy(staged) => self.namespaced(namespace, name, &staged.spec.policy),
            Resource::GlobalNetworkPolicy(policy) => self.global(name, &policy.spec),
            Resource::StagedGlobalNetworkPolicy(staged) => self.global(name, &staged.spec.policy),
            Resource::Profile(profile) => self.wide.push(Wide::Profile(given(profile, derived))),
            Resource::Node(node) => self.wide.push(families(node)),
            Resource::IPPool(pool) => self.wide.push(Wide::Pool(pool.spec.cidr)),
            Resource::BGPConfiguration(configuration) if name == "default" => {
                self.wide.push(Wide::Services(services(configuration)));
            }
            Resource::IPAMBlock(block) => self.block = Some(block_of(block)),
            _ => {}
        }
    }

    fn namespaced(&mut self, namespace: String, name: String, spec: &crate::model::NetworkPolicySpec) {
        let applies_to = spec.applies_to(&namespace).unwrap_or_else(|_| Selector::all());
        let peers = peers([&spec.ingress, &spec.egress], Some(&namespace));
        let key = GroupKey::Policy(Kind::NetworkPolicy, namespace, name);
        self.parts.push((key, Part::Policy { applies_to, peers }));
    }

    fn global(&mut self, name: String, spec: &crate::model::GlobalNetworkPolicySpec) {
        // One whose selector cannot be read denies everywhere.
        let applies_to = spec.applies_to().unwrap_or_else(|_| Selector::all());
        let peers = peers([&spec.ingress, &spec.egress], None);
        let key = GroupKey::Policy(Kind::GlobalNetworkPolicy, String::new(), name);
        self.parts.push((key, Part::Policy { applies_to, peers }));
    }
}

impl Member {
    /// The labels that selectors see, where profiles give these.
    pub fn labels<'a>(&'a self, given: impl Fn(&str) -> &'a [(Box<str>, Box<str>)]) -> Seen {
        let mut seen = Seen::default();
        for profile in self.profiles.iter().rev() {
            seen.extend(given(profile));
        }
        seen.extend(&self.own);
        seen.0.retain(|(name, _)| !self.without.contains(&&**name));
        seen.extend(&self.implied);
        seen.0.shrink_to_fit();
        seen
    }

    /// As it is with what its pod's object says.
    pub fn following(&self, pod: &Self) -> Self {
        Self { node: self.node.clone(), nets: self.nets.clone(), leads: false, ..pod.clone() }
    }
}

/// The labels of a member, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(pub Vec<(Box<str>, Box<str>)>);

impl Seen {
    /// What comes later wins.
    fn extend(&mut self, labels: &[(Box<str>, Box<str>)]) {
        for (name, value) in labels {
            match self.0.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value.clone(),
                None => self.0.push((name.clone(), value.clone())),
            }
        }
    }
}

impl Labels for Seen {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

fn member(labels: &BTreeMap<String, String>) -> Member {
    Member {
        node: None,
        own: pairs(labels),
        implied: Vec::new(),
        without: &[],
        profiles: Vec::new(),
        is_endpoint: false,
        nets: Vec::new(),
        follows: false,
        leads: false,
    }
}

fn workload(endpoint: &WorkloadEndpoint) -> Member {
    let spec = &endpoint.spec;
    let mut implied = vec![
        (LABEL_NAMESPACE.into(), endpoint.metadata.namespace.as_str().into()),
        (LABEL_ORCHESTRATOR.into(), spec.orchestrator.as_str().into()),
    ];
    if !spec.service_account_name.is_empty() {
        implied.push((LABEL_SERVICE_ACCOUNT.into(), spec.service_account_name.as_str().into()));
    }
    Member {
        node: Some(spec.node.as_str().into()),
        implied,
        profiles: texts(&spec.profiles),
        is_endpoint: true,
        nets: spec.ip_networks.clone(),
        follows: !spec.pod.is_empty() && endpoint.metadata.annotations.contains_key(ATTACHMENT),
        ..member(&endpoint.metadata.labels)
    }
}

fn texts(texts: &[String]) -> Vec<Box<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

fn pairs(labels: &BTreeMap<String, String>) -> Vec<(Box<str>, Box<str>)> {
    labels.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect()
}

fn given(profile: &Profile, derived: bool) -> Given {
    Given {
        name: profile.metadata.name.as_str().into(),
        derived,
        labels: pairs(&profile.spec.labels_to_apply),
        peers: peers([&profile.spec.ingress, &profile.spec.egress], None),
    }
}

fn families(node: &Node) -> Wide {
    let has = |v4: bool| node.addresses().any(|address| address.addr.is_ipv4() == v4);
    Wide::Node { name: node.metadata.name.as_str().into(), v4: has(true), v6: has(false) }
}

fn services(configuration: &BgpConfiguration) -> Vec<Cidr> {
    let spec = &configuration.spec;
    let lists = [&spec.service_cluster_ips, &spec.service_external_ips, &spec.service_load_balancer_ips];
    lists.into_iter().flatten().flatten().filter_map(|block| block.cidr).collect()
}

fn block_of(block: &IpamBlock) -> Block {
    let spec = &block.spec;
    let users = spec.attributes.iter().filter_map(|owner| owner.secondary.as_ref()?.get(ALLOCATED_ON));
    Block {
        cidr: spec.cidr,
        node: spec.node().map(Into::into),
        users: users.map(|node| node.as_str().into()).collect(),
    }
}

/// Every selector whose members somebody has to know who has these rules. What cannot be read denies, and has none.
fn peers(directions: [&Vec<Rule>; 2], namespace: Option<&str>) -> Vec<Selector> {
    let mut all = BTreeSet::new();
    for rule in directions.into_iter().flatten() {
        for side in [&rule.source, &rule.destination] {
            let peers = side.peers(namespace).ok().flatten();
            let named = side.ports.iter().chain(&side.not_ports).any(|port| matches!(port, Port::Named(_)));
            // A name means the port of whoever is selected, and where nobody is, of anybody.
            all.extend(peers.or_else(|| named.then(Selector::all)));
            all.extend(side.not_peers().ok().flatten());
        }
    }
    all.into_iter().collect()
}
