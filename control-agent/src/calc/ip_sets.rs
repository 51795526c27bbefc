//! The IP sets that rules refer to, made at first use.

use super::catalog::{Catalog, Member};
use crate::model::{Cidr, Protocol, Selector};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use margay_api::dataplane::v1::{IpSet, Members, ip_set::Type};
use sha2::{Digest, Sha224};
use std::collections::{BTreeMap, BTreeSet};

/// The sets made so far.
pub(super) struct IpSets<'a> {
    catalog: &'a Catalog<'a>,
    sets: BTreeMap<String, IpSet>,
}

impl<'a> IpSets<'a> {
    pub fn new(catalog: &'a Catalog<'a>) -> Self {
        Self { catalog, sets: BTreeMap::new() }
    }

    /// The addresses of all that `selector` matches. Returns the set's id.
    pub fn of_selector(&mut self, selector: &Selector) -> String {
        let id = selector.uid();
        self.make(&id, Type::Net, || {
            let nets = self.catalog.select(selector).flat_map(|member| member.nets.iter().copied());
            nets.map(|net| (net.is_v4(), with_length(net))).collect()
        });
        id
    }

    /// Address, protocol and port of all that `selector` matches and that have a port of that
    /// name. Returns the set's id.
    pub fn of_named_port(&mut self, selector: &Selector, protocol: Protocol, name: &str) -> String {
        let id = named_port_id(selector, protocol, name);
        self.make(&id, Type::IpAndPort, || {
            self.catalog.select(selector).flat_map(|member| named_ports(member, protocol, name)).collect()
        });
        id
    }

    /// All sets, by id.
    pub fn finish(self) -> BTreeMap<String, IpSet> {
        self.sets
    }

    fn make(&mut self, id: &str, kind: Type, records: impl FnOnce() -> BTreeSet<(bool, Vec<u8>)>) {
        if self.sets.contains_key(id) {
            return;
        }
        let mut members = Members::default();
        for (is_v4, record) in records() {
            if is_v4 { &mut members.ipv4 } else { &mut members.ipv6 }.extend(record);
        }
        let set = IpSet { id: id.to_owned(), r#type: kind.into(), members: Some(members) };
        self.sets.insert(id.to_owned(), set);
    }
}

/// NET record: address, length.
fn with_length(net: Cidr) -> Vec<u8> {
    let mut record = net.octets();
    record.push(net.len());
    record
}

/// IP_AND_PORT records: address, protocol, port. Only single addresses have ports.
fn named_ports(member: &Member<'_>, protocol: Protocol, name: &str) -> Vec<(bool, Vec<u8>)> {
    let ports = member.ports.iter().filter(|port| port.name == name && port.protocol == protocol);
    ports
        .flat_map(|port| {
            member.nets.iter().filter(|net| net.is_host()).map(|net| {
                let mut record = net.octets();
                record.push(port.protocol.number());
                record.extend(port.port.to_be_bytes());
                (net.is_v4(), record)
            })
        })
        .collect()
}

/// Distinct from every selector's id, which begins with `s:`.
fn named_port_id(selector: &Selector, protocol: Protocol, name: &str) -> String {
    let text = format!("n:{}:{name}:{selector}", protocol.number());
    format!("n:{}", URL_SAFE_NO_PAD.encode(Sha224::digest(text)))
}
