//! Whose an address is, in the whole cluster.

use super::{Resources, workload_name};
use crate::model::{
    Cidr, GlobalNetworkSet, HostEndpoint, Metadata, NetworkSet, Node, Object as _, Resource, WorkloadEndpoint,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

/// Objects by address. Of two that have the same, a workload comes before a host endpoint, that before a node, and
/// that before a network set, of which the longest prefix counts.
#[derive(Clone, Debug, Default)]
pub struct Names {
    single: HashMap<IpAddr, (Rank, Arc<Resource>)>,
    /// By prefix, of lengths that there are.
    wide: HashMap<Cidr, (Rank, Arc<Resource>)>,
    lengths: BTreeSet<u8>,
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
        for object in resources.in_calicos_kinds(&mut Vec::new()).iter() {
            names.add(object);
        }
        names
    }

    /// Whose the address is.
    pub fn party(&self, addr: IpAddr) -> Option<Party> {
        let longest = |length: &u8| self.wide.get(&Cidr::truncate(addr, *length));
        let fits = |length: &&u8| **length <= if addr.is_ipv4() { 32 } else { 128 };
        let wide = || self.lengths.iter().rev().filter(fits).find_map(longest);
        let (_, object) = self.single.get(&addr).or_else(wide)?;
        party(object)
    }

    fn add(&mut self, object: &Arc<Resource>) {
        if let Some(workload) = WorkloadEndpoint::from_resource(object) {
            self.nets(Rank::Workload, &workload.spec.ip_networks, object);
        } else if let Some(host) = HostEndpoint::from_resource(object) {
            let nets: Vec<_> = host.spec.expected_ips.iter().copied().map(Cidr::host).collect();
            self.nets(Rank::HostEndpoint, &nets, object);
        } else if let Some(node) = Node::from_resource(object) {
            let nets: Vec<_> = node.addresses().map(|address| Cidr::host(address.addr)).collect();
            self.nets(Rank::Node, &nets, object);
        } else if let Some(set) = NetworkSet::from_resource(object) {
            self.nets(Rank::Set, &set.spec.nets, object);
        } else if let Some(set) = GlobalNetworkSet::from_resource(object) {
            self.nets(Rank::Set, &set.spec.nets, object);
        }
    }

    fn nets(&mut self, rank: Rank, nets: &[Cidr], object: &Arc<Resource>) {
        for net in nets {
            let place = match net.is_host() {
                true => self.single.entry(net.addr()).or_insert_with(|| (rank, object.clone())),
                false => {
                    self.lengths.insert(net.len());
                    self.wide.entry(*net).or_insert_with(|| (rank, object.clone()))
                }
            };
            if rank < place.0 {
                *place = (rank, object.clone());
            }
        }
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
