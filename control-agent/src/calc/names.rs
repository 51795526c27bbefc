//! Whose an address is, in the whole cluster.

use super::{Resources, tree::Tree, workload_name};
use crate::model::{
    Cidr, GlobalNetworkSet, HostEndpoint, Metadata, NetworkSet, Node, Object as _, Resource, WorkloadEndpoint,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// Objects by address. Of two that have the same, a workload comes before a host endpoint, that before a node, and
/// that before a network set, of which the longest prefix counts. Copies share what is the same in them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    owners: Tree<Cidr, Owners>,
    /// How many prefixes of several addresses there are of each length.
    lengths: BTreeMap<u8, usize>,
}

/// Those that have a prefix; the first counts.
#[derive(Clone, Debug)]
enum Owners {
    One(Arc<Resource>),
    Several(Arc<[Arc<Resource>]>),
}

/// What an address's owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Workload,
    HostEndpoint,
    Node,
    Set,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// "workload", "host endpoint", "node", "network set" or "global network set".
    pub kind: &'static str,
    /// Empty for what has none.
    pub namespace: String,
    /// Of a workload, its pod's.
    pub name: String,
    /// As the object has them.
    pub labels: BTreeMap<String, String>,
}

impl Names {
    /// Of everybody.
    pub fn of(resources: &Resources) -> Self {
        let mut names = Self::default();
        for object in resources.iter() {
            names.put(None, Some(object));
        }
        names
    }

    /// Whose the address is.
    pub fn party(&self, addr: IpAddr) -> Option<Party> {
        let fits = |length: &&u8| **length < Cidr::host(addr).len();
        let wide = self.lengths.keys().rev().filter(fits).map(|length| Cidr::truncate(addr, *length));
        let owners = [Cidr::host(addr)].into_iter().chain(wide).find_map(|net| self.owners.get(&net))?;
        party(owners.all().first()?)
    }

    /// Puts an object in the place of what it was.
    pub(super) fn put(&mut self, old: Option<&Arc<Resource>>, new: Option<&Arc<Resource>>) {
        for (object, comes) in [(old, false), (new, true)] {
            let Some(object) = object else { continue };
            for net in owned(object).into_iter().collect::<BTreeSet<_>>() {
                self.change(net, object, comes);
            }
        }
    }

    /// The workloads that have exactly this prefix, by namespace and name.
    pub(super) fn workloads(&self, net: Cidr) -> impl Iterator<Item = &WorkloadEndpoint> {
        let owners = self.owners.get(&net).map(Owners::all).unwrap_or_default();
        owners.iter().map_while(|owner| WorkloadEndpoint::from_resource(owner))
    }

    /// What workloads have within a prefix.
    pub(super) fn workload_nets_within(&self, outer: Cidr) -> impl Iterator<Item = Cidr> {
        let within = self.owners.from(&outer).take_while(move |(net, _)| outer.contains(net.addr()));
        within.filter(|(_, owners)| rank(&owners.all()[0]) == Some(Rank::Workload)).map(|(net, _)| *net)
    }

    /// Of prefixes of several addresses.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u8> {
        self.lengths.keys().copied()
    }

    fn change(&mut self, net: Cidr, object: &Arc<Resource>, comes: bool) {
        let old = self.owners.get(&net).map(Owners::all).unwrap_or_default();
        let place = |object: &Resource| (rank(object), object.key());
        let was_there = !old.is_empty();
        let mut owners: Vec<_> = old.iter().filter(|other| other.key() != object.key()).cloned().collect();
        if comes {
            let at = owners.partition_point(|other| place(other) < place(object));
            owners.insert(at, object.clone());
        }
        let is_there = !owners.is_empty();
        match owners.len() {
            0 => drop(self.owners.remove(&net)),
            1 => drop(self.owners.insert(net, Owners::One(owners.remove(0)))),
            _ => drop(self.owners.insert(net, Owners::Several(owners.into()))),
        }
        if !net.is_host() && was_there != is_there {
            let count = self.lengths.entry(net.len()).or_default();
            if is_there {
                *count += 1
            } else {
                *count -= 1
            }
            self.lengths.retain(|_, count| *count > 0);
        }
    }
}

impl Owners {
    fn all(&self) -> &[Arc<Resource>] {
        match self {
            Self::One(owner) => std::slice::from_ref(owner),
            Self::Several(owners) => owners,
        }
    }
}

fn rank(object: &Resource) -> Option<Rank> {
    Some(match object {
        Resource::WorkloadEndpoint(_) => Rank::Workload,
        Resource::HostEndpoint(_) => Rank::HostEndpoint,
        Resource::Node(_) => Rank::Node,
        Resource::NetworkSet(_) | Resource::GlobalNetworkSet(_) => Rank::Set,
        _ => return None,
    })
}

/// What an object has of addresses.
fn owned(object: &Resource) -> Vec<Cidr> {
    match object {
        Resource::WorkloadEndpoint(workload) => workload.spec.ip_networks.clone(),
        Resource::HostEndpoint(host) => host.spec.expected_ips.iter().copied().map(Cidr::host).collect(),
        Resource::Node(node) => node.addresses().map(|address| Cidr::host(address.addr)).collect(),
        Resource::NetworkSet(set) => set.spec.nets.clone(),
        Resource::GlobalNetworkSet(set) => set.spec.nets.clone(),
        _ => Vec::new(),
    }
}

fn party(object: &Resource) -> Option<Party> {
    let named = |kind, metadata: &Metadata| Party {
        kind,
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        labels: metadata.labels.clone(),
    };
    if let Some(workload) = WorkloadEndpoint::from_resource(object) {
        let name = workload_name(workload);
        let name = name.split_once('/').map_or(name.as_str(), |(_, name)| name).to_owned();
        return Some(Party { name, ..named("workload", &workload.metadata) });
    }
    None.or_else(|| HostEndpoint::from_resource(object).map(|of| named("host endpoint", &of.metadata)))
        .or_else(|| Node::from_resource(object).map(|of| named("node", &of.metadata)))
        .or_else(|| NetworkSet::from_resource(object).map(|of| named("network set", &of.metadata)))
        .or_else(|| {
            GlobalNetworkSet::from_resource(object).map(|of| named("global network set", &of.metadata))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let objects = r#"
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n--k8s-web--1-eth0, namespace: shop, labels: {role: web}}
spec: {node: n, orchestrator: k8s, pod: web-1, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.65.0.1/32]}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n}
spec: {addresses: [{address: 192.168.0.1}, {address: 10.65.0.1}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: world}
spec: {nets: [0.0.0.0/0]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: partners, namespace: shop}
spec: {nets: [203.0.113.0/24, 203.0.113.7/32]}
"#;
        let objects = crate::model::load(objects).unwrap();
        Names::of(&objects.into_iter().collect())
    }

    #[test]
    fn an_address_is_its_workloads_then_its_nodes_then_that_of_the_narrowest_set() {
        let names = names();
        let found = |addr: &str| {
            names.party(addr.parse().unwrap()).map(|party| (party.kind, party.namespace, party.name))
        };
        let is = |kind, namespace: &str, name: &str| Some((kind, namespace.to_owned(), name.to_owned()));
        assert_eq!(found("10.65.0.1"), is("workload", "shop", "web-1"));
        assert_eq!(found("192.168.0.1"), is("node", "", "n"));
        assert_eq!(found("203.0.113.9"), is("network set", "shop", "partners"));
        assert_eq!(found("203.0.113.7"), is("network set", "shop", "partners"));
        assert_eq!(found("8.8.8.8"), is("global network set", "", "world"));
        assert_eq!(found("fd00::1"), None);
        assert_eq!(names.party("10.65.0.1".parse().unwrap()).unwrap().labels["role"], "web");
    }
}
