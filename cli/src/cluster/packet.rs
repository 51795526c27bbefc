//! A packet as people write it, and whom it concerns.

use std::net::IpAddr;

use margay_agent::{
    calc::workload_name,
    model::{HostEndpoint, Protocol, WorkloadEndpoint},
};
use margay_dataplane::{
    net::{Addr, FlowKey, Icmp, Proto},
    policy::Query,
};
use serde::Deserialize;

use super::Cluster;

/// An echo request of ICMP, and of ICMPv6.
const ECHO: [u8; 2] = [8, 128];

/// A packet, and its ends.
pub struct Packet<'c> {
    pub from: End<'c>,
    pub to: End<'c>,
    pub query: Query,
    /// As it came, where a service made of it what it is.
    pub asked: Option<Query>,
}

/// One end of a packet.
pub struct End<'c> {
    /// Of which one is used.
    addresses: Vec<IpAddr>,
    /// `None`: no policy is asked for this end.
    pub endpoint: Option<&'c WorkloadEndpoint>,
    /// The node whose own the address is.
    pub host: Option<&'c str>,
    /// What protects the host there.
    pub protected: Option<&'c HostEndpoint>,
}

/// A packet as people write it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    pub from: String,
    pub to: String,
    pub proto: Protocol,
    #[serde(default)]
    pub sport: Option<u16>,
    #[serde(default)]
    pub dport: Option<NumberOrName>,
    #[serde(default)]
    pub icmp_type: Option<u8>,
    #[serde(default)]
    pub icmp_code: Option<u8>,
}

/// A port.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a port: a number from 0 to 65535, or a name")]
pub enum NumberOrName {
    Number(u16),
    Name(String),
}

impl NumberOrName {
    /// Digits are a number.
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Number)
    }
}

/// What is wrong with a packet.
#[derive(Debug)]
pub struct Wrong {
    message: String,
    /// It names an endpoint that is not there.
    pub missing: bool,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl Wrong {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), missing: false }
    }
}

impl<'c> Packet<'c> {
    /// Reads a packet of a cluster.
    pub fn read(line: &[u8], cluster: &'c Cluster) -> Result<Self, Wrong> {
        let written: Written = serde_json::from_slice(line).map_err(|error| Wrong::new(error.to_string()))?;
        Self::written(&written, cluster)
    }

    /// The packet that was written, in a cluster. It is not for a service.
    pub fn written(written: &Written, cluster: &'c Cluster) -> Result<Self, Wrong> {
        not_of_a_service(cluster, "to", &written.to)?;
        Self::sent(written, cluster)
    }

    /// As it is sent: perhaps to a service.
    pub fn sent(written: &Written, cluster: &'c Cluster) -> Result<Self, Wrong> {
        not_of_a_service(cluster, "from", &written.from)?;
        let from = end(cluster, "from", &written.from)?;
        let to = end(cluster, "to", &written.to)?;
        let (src, dst) = common_version(&from, &to)?;
        let proto = Proto(written.proto.number());
        let dport = destination_port(written, proto, &to)?;
        let kind = written.icmp_type.unwrap_or(ECHO[usize::from(proto == Proto::ICMP6)]);
        let icmp = if proto.is_icmp() {
            Icmp { kind, code: written.icmp_code.unwrap_or_default() }
        } else {
            Icmp::default()
        };
        let sport = if proto.has_ports() { written.sport.unwrap_or_default() } else { 0 };
        let key = FlowKey { src: Addr::from(src), dst: Addr::from(dst), sport, dport, proto };
        Ok(Self { from, to, query: Query { key, icmp }, asked: None })
    }

    /// What a service makes of it.
    pub fn translated(self, query: Query, cluster: &'c Cluster) -> Self {
        Self { from: self.from, to: End::at(cluster, query.key.dst.into()), query, asked: Some(self.query) }
    }

    /// The same packet in another cluster.
    pub fn within<'o>(&self, cluster: &'o Cluster) -> Packet<'o> {
        Packet { asked: self.asked, ..Packet::of(self.query, cluster) }
    }

    /// The packet that is asked about, in a cluster.
    pub fn of(query: Query, cluster: &'c Cluster) -> Self {
        let end = |addr: Addr| End::at(cluster, addr.into());
        Self { from: end(query.key.src), to: end(query.key.dst), query, asked: None }
    }
}

impl<'c> End<'c> {
    /// Whom a text names.
    pub fn named(cluster: &'c Cluster, side: &str, text: &str) -> Result<Self, Wrong> {
        end(cluster, side, text)
    }

    /// Whoever has the address.
    fn at(cluster: &'c Cluster, address: IpAddr) -> Self {
        let owns = |one: &&WorkloadEndpoint| one.spec.ip_networks.iter().any(|net| net.contains(address));
        let endpoint = cluster.endpoints.iter().find(owns);
        let host = cluster.around.hosts.get(&address).map(String::as_str).filter(|_| endpoint.is_none());
        let expects = |one: &&HostEndpoint| one.spec.expected_ips.contains(&address);
        let protected = host.and_then(|_| cluster.host_endpoints().find(expects));
        Self { addresses: vec![address], endpoint, host, protected }
    }

    /// The node that the address is on.
    pub fn node(&self) -> Option<&'c str> {
        self.endpoint.map(|endpoint| endpoint.spec.node.as_str()).or(self.host)
    }

    /// What it is known by.
    pub fn name(&self) -> String {
        self.endpoint.map(workload_name).unwrap_or_default()
    }

    /// For people, where `address` is the one that is used.
    pub fn title(&self, address: Addr) -> String {
        match (self.endpoint, self.protected) {
            (Some(endpoint), _) => format!("{} ({address})", workload_name(endpoint)),
            (None, Some(host)) => format!("{} ({address})", host.metadata.name),
            (None, None) => address.to_string(),
        }
    }

    /// The number of the port that it calls so.
    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        if let Some(endpoint) = self.endpoint {
            let mut ports = endpoint.spec.ports.iter();
            return ports.find(|port| port.name == name && port.protocol == protocol).map(|port| port.port);
        }
        let mut ports = self.protected?.spec.ports.iter();
        ports.find(|port| port.name == name && port.protocol == protocol).map(|port| port.port)
    }
}

/// An address, or "namespace/name" of an endpoint or its pod, or "node/name" of a host endpoint.
fn end<'c>(cluster: &'c Cluster, side: &str, text: &str) -> Result<End<'c>, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(End::at(cluster, address));
    }
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    if let Some(addresses) = cluster.around.other_pods.get(&(namespace.to_owned(), name.to_owned())) {
        let host =
            addresses.first().and_then(|address| cluster.around.hosts.get(address)).map(String::as_str);
        let end = End { addresses: addresses.clone(), endpoint: None, host, protected: None };
        return with_address(side, text, end);
    }
    let named = |one: &&WorkloadEndpoint| {
        one.metadata.namespace == namespace
            && [&one.metadata.name, &one.spec.pod, &one.spec.workload].into_iter().any(|known| known == name)
    };
    let mut found = cluster.endpoints.iter().filter(named);
    match (found.next(), found.next()) {
        (None, _) => {
            let named = |one: &&HostEndpoint| {
                one.metadata.name == name && (namespace.is_empty() || one.spec.node == namespace)
            };
            let Some(host) = cluster.host_endpoints().find(named) else {
                let message = match namespace {
                    "" => format!("{side}: {text:?} is no address, no NAMESPACE/POD and no host endpoint"),
                    _ => format!("{side}: there is no pod, workload endpoint or host endpoint {text}"),
                };
                return Err(Wrong { message, missing: true });
            };
            let own = || cluster.around.own.get(&host.spec.node).cloned().unwrap_or_default();
            let expected = Some(&host.spec.expected_ips).filter(|expected| !expected.is_empty());
            let addresses = expected.cloned().unwrap_or_else(own);
            let end = End { addresses, endpoint: None, host: Some(&host.spec.node), protected: Some(host) };
            with_address(side, text, end)
        }
        (Some(_), Some(_)) => {
            Err(Wrong::new(format!("{side}: {text} has several endpoints; give an address")))
        }
        (Some(endpoint), None) => {
            let addresses = endpoint.spec.ip_networks.iter().map(|net| net.addr()).collect();
            let end = End { addresses, endpoint: Some(endpoint), host: None, protected: None };
            with_address(side, text, end)
        }
    }
}

fn not_of_a_service(cluster: &Cluster, side: &str, text: &str) -> Result<(), Wrong> {
    match text.parse().ok().and_then(|address: IpAddr| cluster.around.services.get(&address)) {
        Some(service) => {
            let why = "policy sees the address of a backend in its place: name that";
            Err(Wrong::new(format!("{side}: {text} is of service {service}; {why}")))
        }
        None => Ok(()),
    }
}

fn with_address<'c>(side: &str, text: &str, end: End<'c>) -> Result<End<'c>, Wrong> {
    if end.addresses.is_empty() {
        let field = if end.protected.is_some() { "spec.expectedIPs" } else { "status.podIP" };
        return Err(Wrong::new(format!("{side}: {text} has no address; give it one in {field}")));
    }
    Ok(end)
}

/// IPv4 where both have it.
fn common_version(from: &End<'_>, to: &End<'_>) -> Result<(IpAddr, IpAddr), Wrong> {
    let first =
        |end: &End<'_>, v4: bool| end.addresses.iter().find(|address| address.is_ipv4() == v4).copied();
    let both = [true, false].into_iter().find_map(|v4| Some((first(from, v4)?, first(to, v4)?)));
    both.ok_or_else(|| Wrong::new("from and to have no addresses of one IP version".to_owned()))
}

/// A number, or the name that the destination gives one of its ports.
fn destination_port(written: &Written, proto: Proto, to: &End<'_>) -> Result<u16, Wrong> {
    let protocol = written.proto;
    match &written.dport {
        Some(NumberOrName::Number(0)) if !proto.has_ports() => Ok(0),
        Some(_) if !proto.has_ports() => {
            Err(Wrong::new(format!("dport: {protocol} has no ports; remove it")))
        }
        None if proto.has_ports() => {
            Err(Wrong::new(format!("dport: missing; {protocol} needs a number or a name")))
        }
        None => Ok(0),
        Some(NumberOrName::Number(number)) => Ok(*number),
        Some(NumberOrName::Name(name)) => {
            // No port's name is digits alone.
            if let NumberOrName::Number(number) = NumberOrName::parse(name) {
                return Ok(number);
            }
            to.port(name, protocol).ok_or_else(|| {
                Wrong::new(format!(
                    "dport: {} names no {protocol} port {name:?}; give its number",
                    written.to
                ))
            })
        }
    }
}
