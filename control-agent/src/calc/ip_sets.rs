//! The IP sets that rules refer to: what each holds, and its id.

use super::{
    Resources,
    catalog::{Catalog, Member},
    services::Services,
    tree::Tree,
};
use crate::model::{Cidr, Node, Protocol, Selector};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use margay_api::dataplane::v1::{self as api, Members, ip_set::Type};
use sha2::{Digest, Sha224};
use std::{collections::BTreeMap, net::IpAddr};

/// A set of addresses, or of addresses with ports.
#[derive(Clone, Debug, PartialEq)]
pub struct IpSet {
    /// What its members are.
    pub kind: Type,
    /// Each once.
    pub members: Tree<Record, ()>,
}

/// A member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// Of sets of type `NET`.
    Net(Cidr),
    /// Address, protocol and port, of sets of type `IP_AND_PORT`.
    Port(IpAddr, Protocol, u16),
}

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// The addresses of all that it matches.
    Selected(Selector),
    /// Address, protocol and port of all that it matches and that have a port of that name.
    NamedPort(Selector, Protocol, String),
    /// The addresses of the nodes with such labels.
    Nodes(Selector),
    /// Address, protocol and port of a service's backends, by its namespace and name.
    Backends(String, String),
    /// Addresses of a service's backends, by its namespace and name.
    BackendAddresses(String, String),
}

/// What sets hold, by their ids.
pub(super) type Wanted = BTreeMap<String, Holds>;

impl IpSet {
    /// As the dataplane takes it.
    pub fn message(&self, id: &str) -> api::IpSet {
        let mut members = Members::default();
        self.members.keys().for_each(|record| record.pack(&mut members));
        api::IpSet { id: id.to_owned(), r#type: self.kind.into(), members: Some(members) }
    }
}

impl Record {
    /// Adds it to a list of its kind: address and length, or address, protocol and port.
    pub fn pack(&self, to: &mut Members) {
        let (address, rest) = match self {
            Self::Net(net) => (net.addr(), [net.len()].to_vec()),
            Self::Port(address, protocol, port) => {
                let [high, low] = port.to_be_bytes();
                (*address, [protocol.number(), high, low].to_vec())
            }
        };
        let (list, octets) = match address {
            IpAddr::V4(address) => (&mut to.ipv4, address.octets().to_vec()),
            IpAddr::V6(address) => (&mut to.ipv6, address.octets().to_vec()),
        };
        list.extend(octets);
        list.extend(rest);
    }

    /// How many bytes that adds.
    pub fn packed_len(&self) -> usize {
        let (address, rest) = match self {
            Self::Net(net) => (net.addr(), 1),
            Self::Port(address, ..) => (*address, 3),
        };
        rest + if address.is_ipv4() { 4 } else { 16 }
    }
}

impl Holds {
    /// What its set is called. Named ports' and nodes' are distinct from those of endpoints that are selected alike.
    pub fn id(&self) -> String {
        match self {
            Self::Selected(selector) => selector.uid(),
            Self::NamedPort(selector, protocol, name) => {
                digest("n", &format!("n:{}:{name}:{selector}", protocol.number()))
            }
            Self::Nodes(selector) => node_set_id(selector),
            Self::Backends(namespace, name) => digest("svc", &format!("{namespace}/{name}")),
            Self::BackendAddresses(namespace, name) => digest("svcnoport", &format!("{namespace}/{name}")),
        }
    }

    /// Of what type its set is.
    pub fn kind(&self) -> Type {
        match self {
            Self::Selected(_) | Self::Nodes(_) | Self::BackendAddresses(..) => Type::Net,
            Self::NamedPort(..) | Self::Backends(..) => Type::IpAndPort,
        }
    }
}

/// The id of the set of the addresses of nodes: distinct from that of endpoints with the same labels.
pub fn node_set_id(selector: &Selector) -> String {
    digest("node", &format!("node:{selector}"))
}

/// Makes sets of the resources as they are.
pub(super) struct IpSets<'a> {
    catalog: Catalog<'a>,
    services: Services<'a>,
    resources: &'a Resources,
}

impl<'a> IpSets<'a> {
    pub fn new(resources: &'a Resources) -> Self {
        let (catalog, services) = (Catalog::of_cluster(resources), Services::new(resources));
        Self { catalog, services, resources }
    }

    /// All that are wanted, by id.
    pub fn of(&self, wanted: &Wanted) -> Tree<String, IpSet> {
        wanted.iter().map(|(id, holds)| (id.clone(), self.one(holds))).collect()
    }

    fn one(&self, holds: &Holds) -> IpSet {
        let records: Vec<Record> = match holds {
            Holds::Selected(selector) => {
                let nets = self.catalog.select(selector).flat_map(|member| member.nets.iter().copied());
                nets.map(Record::Net).collect()
            }
            Holds::NamedPort(selector, protocol, name) => self
                .catalog
                .select(selector)
                .flat_map(|member| named_ports(member, *protocol, name))
                .collect(),
            Holds::Nodes(selector) => of_nodes(self.resources, selector),
            Holds::Backends(namespace, name) => of_backends(&self.services, namespace, name),
            Holds::BackendAddresses(namespace, name) => {
                self.services.addresses(namespace, name).map(Record::Net).collect()
            }
        };
        IpSet { kind: holds.kind(), members: records.into_iter().map(|record| (record, ())).collect() }
    }
}

/// The addresses of the nodes that the selector matches.
pub(super) fn of_nodes(resources: &Resources, selector: &Selector) -> Vec<Record> {
    let nodes = resources.all::<Node>().filter(|node| selector.matches(&node.metadata.labels));
    nodes.flat_map(Node::addresses).map(|address| Record::Net(Cidr::host(address.addr))).collect()
}

/// What backends a service has.
pub(super) fn of_backends(services: &Services<'_>, namespace: &str, name: &str) -> Vec<Record> {
    let ports = services.ports(namespace, name);
    ports.map(|(address, protocol, port)| Record::Port(address.addr(), protocol, port)).collect()
}

/// Only single addresses have ports.
fn named_ports(member: &Member<'_>, protocol: Protocol, name: &str) -> Vec<Record> {
    let ports = member.ports.iter().filter(|port| port.name == name && port.protocol == protocol);
    let addresses = || member.nets.iter().filter(|net| net.is_host());
    ports
        .flat_map(|port| addresses().map(|address| Record::Port(address.addr(), protocol, port.port)))
        .collect()
}

fn digest(prefix: &str, text: &str) -> String {
    format!("{prefix}:{}", URL_SAFE_NO_PAD.encode(Sha224::digest(text)))
}
