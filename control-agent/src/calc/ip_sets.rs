//! The IP sets that rules refer to, made at first use.

use super::{
    Resources,
    catalog::{Catalog, Member},
    services::Services,
};
use crate::model::{Cidr, Node, Protocol, Selector};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use margay_api::dataplane::v1::{IpSet, Members, ip_set::Type};
use sha2::{Digest, Sha224};
use std::collections::{BTreeMap, BTreeSet};

/// The sets made so far.
pub(super) struct IpSets<'a> {
    catalog: Catalog<'a>,
    services: Services<'a>,
    resources: &'a Resources,
    sets: BTreeMap<String, IpSet>,
}

impl<'a> IpSets<'a> {
    pub fn new(resources: &'a Resources) -> Self {
        Self {
            catalog: Catalog::of_cluster(resources),
            services: Services::new(resources),
            resources,
            sets: BTreeMap::new(),
        }
    }

    /// The addresses of all that `selector` matches. Returns the set's id.
    pub fn of_selector(&mut self, selector: &Selector) -> String {
        let id = selector.uid();
        let nets = || self.catalog.select(selector).flat_map(|member| member.nets.iter().copied());
        make(&mut self.sets, &id, Type::Net, || nets().map(with_length).collect());
        id
    }

    /// The addresses of the nodes with such labels. Returns the set's id.
    pub fn of_nodes(&mut self, selector: &Selector) -> String {
        let id = node_set_id(selector);
        let nodes = || self.resources.all::<Node>().filter(|node| selector.matches(&node.metadata.labels));
        let hosts = || nodes().flat_map(Node::addresses).map(|address| with_length(Cidr::host(address.addr)));
        make(&mut self.sets, &id, Type::Net, || hosts().collect());
        id
    }

    /// Address, protocol and port of all that `selector` matches and that have a port of that
    /// name. Returns the set's id.
    pub fn of_named_port(&mut self, selector: &Selector, protocol: Protocol, name: &str) -> String {
        // Distinct from every selector's id, which begins with `s:`.
        let id = digest("n", &format!("n:{}:{name}:{selector}", protocol.number()));
        make(&mut self.sets, &id, Type::IpAndPort, || {
            self.catalog.select(selector).flat_map(|member| named_ports(member, protocol, name)).collect()
        });
        id
    }

    /// Address, protocol and port of a service's backends. Returns the set's id.
    pub fn of_service(&mut self, namespace: &str, name: &str) -> String {
        let id = digest("svc", &format!("{namespace}/{name}"));
        make(&mut self.sets, &id, Type::IpAndPort, || {
            let ports = self.services.ports(namespace, name);
            ports.map(|(address, protocol, port)| with_port(address, protocol, port)).collect()
        });
        id
    }

    /// Addresses of a service's backends. Returns the set's id.
    pub fn of_service_addresses(&mut self, namespace: &str, name: &str) -> String {
        let id = digest("svcnoport", &format!("{namespace}/{name}"));
        make(&mut self.sets, &id, Type::Net, || {
            self.services.addresses(namespace, name).map(with_length).collect()
        });
        id
    }

    /// All sets, by id.
    pub fn finish(self) -> BTreeMap<String, IpSet> {
        self.sets
    }
}

/// The id of the set of the addresses of nodes: distinct from that of endpoints with the same labels.
pub fn node_set_id(selector: &Selector) -> String {
    digest("node", &format!("node:{selector}"))
}

/// Whether a member is of IPv4, and its record.
type Record = (bool, Vec<u8>);

fn make(
    sets: &mut BTreeMap<String, IpSet>,
    id: &str,
    kind: Type,
    records: impl FnOnce() -> BTreeSet<Record>,
) {
    if sets.contains_key(id) {
        return;
    }
    let mut members = Members::default();
    for (is_v4, record) in records() {
        if is_v4 { &mut members.ipv4 } else { &mut members.ipv6 }.extend(record);
    }
    let set = IpSet { id: id.to_owned(), r#type: kind.into(), members: Some(members) };
    sets.insert(id.to_owned(), set);
}

/// NET record: address, length.
fn with_length(net: Cidr) -> Record {
    let mut record = net.octets();
    record.push(net.len());
    (net.is_v4(), record)
}

/// IP_AND_PORT record: address, protocol, port.
fn with_port(address: Cidr, protocol: Protocol, port: u16) -> Record {
    let mut record = address.octets();
    record.push(protocol.number());
    record.extend(port.to_be_bytes());
    (address.is_v4(), record)
}

/// Only single addresses have ports.
fn named_ports(member: &Member<'_>, protocol: Protocol, name: &str) -> Vec<Record> {
    let ports = member.ports.iter().filter(|port| port.name == name && port.protocol == protocol);
    let addresses = || member.nets.iter().filter(|net| net.is_host());
    ports.flat_map(|port| addresses().map(|address| with_port(*address, protocol, port.port))).collect()
}

fn digest(prefix: &str, text: &str) -> String {
    format!("{prefix}:{}", URL_SAFE_NO_PAD.encode(Sha224::digest(text)))
}
