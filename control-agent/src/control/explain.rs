//! Why a packet would pass or not: names become addresses, then the dataplane judges by the very
//! tree that forwards.

use super::{Agent, failure};
use crate::{
    calc::{Resources, workload_name},
    datastore::Listing,
    model::{HostEndpoint, Kind, Node, Protocol, Resource, WorkloadEndpoint},
};
use margay_api::{
    control::v1::{ExplainRequest, ExplainResponse},
    dataplane::v1::ExplainRequest as Question,
};
use std::net::IpAddr;
use tonic::Status;

impl Agent {
    pub(super) async fn explain(&self, request: ExplainRequest) -> Result<ExplainResponse, Status> {
        let listing = self.store.list().await.map_err(failure::store)?;
        let endpoints = endpoints(&listing);
        let hosts = Hosts::of(&listing, &self.node);
        let from = resolve(&endpoints, &hosts, "from", &request.from)?;
        let to = resolve(&endpoints, &hosts, "to", &request.to)?;
        let (source, destination) = common_version(&from, &to)?;
        let protocol = match request.protocol.as_str() {
            "" => Protocol::TCP,
            text => text.parse().map_err(|error| Status::invalid_argument(format!("protocol: {error}")))?,
        };
        let question = Question {
            source: octets(source),
            destination: octets(destination),
            protocol: protocol.number().into(),
            source_port: port("source_port", request.source_port)?,
            destination_port: destination_port(&to, protocol, &request.destination_port)?,
            icmp_type: request.icmp_type,
            icmp_code: request.icmp_code,
        };
        let mut response =
            ExplainResponse { from: from.title(source), to: to.title(destination), ..Default::default() };
        if self.may_judge(&from, &to) {
            let answer = self.ask_dataplane(async |dataplane| dataplane.explain(question).await).await?;
            response.result = Some(answer);
        }
        let service = response.result.as_ref().and_then(|result| result.service.as_ref());
        response.notes = match service.map(|service| service.backend.as_ref()) {
            None => self.notes(&from, &to),
            // Policy is the backend's.
            Some(Some(backend)) => match address(&backend.address) {
                Some(backend) => self.notes(&from, &resolve(&endpoints, &hosts, "backend", &backend)?),
                None => self.notes(&from, &to),
            },
            // Nobody was asked for policy.
            Some(None) => Vec::new(),
        };
        Ok(response)
    }

    /// What this node cannot know.
    fn notes(&self, from: &End<'_>, to: &End<'_>) -> Vec<String> {
        let mut notes = Vec::new();
        for (end, side, direction) in [(from, "source", "egress"), (to, "destination", "ingress")] {
            match end.node() {
                Some(node) if node != self.node => {
                    notes.push(format!(
                        "the {side} is on node {node}: its {direction} policy is decided there"
                    ));
                }
                None if end.is_host => {}
                None => notes.push(format!(
                    "the {side} is no workload endpoint: no {direction} policy applies to it here"
                )),
                Some(_) => {}
            }
        }
        if !self.may_judge(from, to) {
            let mut nodes: Vec<&str> = [from.node(), to.node()].into_iter().flatten().collect();
            nodes.dedup();
            let nodes = nodes.join(" and of ");
            notes.push(format!("node {} has no say: ask the agent of {nodes}", self.node));
        }
        notes
    }

    /// This node or a workload of it has a part in it; or no workload has, so that its host endpoints
    /// may decide.
    fn may_judge(&self, from: &End<'_>, to: &End<'_>) -> bool {
        let none = from.endpoint.is_none() && to.endpoint.is_none();
        none || [from, to].into_iter().any(|end| end.is_host || end.is_on(&self.node))
    }
}

/// One end of the packet.
struct End<'a> {
    /// Of which one is used.
    addresses: Vec<IpAddr>,
    endpoint: Option<&'a WorkloadEndpoint>,
    /// What protects the host that has the address.
    host: Option<&'a HostEndpoint>,
    /// The address is this node's own.
    is_host: bool,
}

impl End<'_> {
    fn node(&self) -> Option<&str> {
        let endpoint = self.endpoint.map(|endpoint| endpoint.spec.node.as_str());
        endpoint.or(self.host.map(|host| host.spec.node.as_str()))
    }

    fn is_on(&self, node: &str) -> bool {
        self.node() == Some(node)
    }

    fn title(&self, address: IpAddr) -> String {
        match (self.endpoint, self.host) {
            (Some(endpoint), _) => format!("{} ({address})", workload_name(endpoint)),
            (None, Some(host)) => format!("{} ({address})", host.metadata.name),
            (None, None) => address.to_string(),
        }
    }
}

/// What is known of hosts.
struct Hosts {
    node: String,
    /// Addresses that this node is known to have.
    own: Vec<IpAddr>,
    /// Of every node.
    endpoints: Vec<HostEndpoint>,
}

impl Hosts {
    fn of(listing: &Listing, node: &str) -> Self {
        let stored = listing.entries.iter().filter(|entry| entry.key.kind == Kind::HostEndpoint);
        let endpoints: Vec<HostEndpoint> = stored
            .filter_map(|entry| match Resource::from_json(&entry.json).ok()? {
                Resource::HostEndpoint(host) => Some(host),
                _ => None,
            })
            .collect();
        let here = endpoints.iter().filter(|host| host.spec.node == node);
        let expected = here.flat_map(|host| host.spec.expected_ips.iter().copied());
        let own = own_addresses(listing, node).into_iter().chain(expected).collect();
        Self { node: node.to_owned(), own, endpoints }
    }

    /// Whoever has the address, if a host does.
    fn at(&self, address: IpAddr) -> End<'_> {
        let expects = |host: &&HostEndpoint| host.spec.expected_ips.contains(&address);
        End {
            addresses: vec![address],
            endpoint: None,
            host: self.endpoints.iter().find(expects),
            is_host: self.own.contains(&address),
        }
    }

    /// "node/name" of a host endpoint, or its name alone.
    fn named(&self, text: &str) -> Option<End<'_>> {
        let (node, name) = text.split_once('/').map_or((None, text), |(node, name)| (Some(node), name));
        let named = |host: &&HostEndpoint| {
            host.metadata.name == name && node.is_none_or(|node| host.spec.node == node)
        };
        let host = self.endpoints.iter().find(named)?;
        let is_host = host.spec.node == self.node;
        let expected = host.spec.expected_ips.clone();
        let addresses = if expected.is_empty() && is_host { self.own.clone() } else { expected };
        Some(End { addresses, endpoint: None, host: Some(host), is_host })
    }
}

/// Those that were written, and those that pods become.
fn endpoints(listing: &Listing) -> Vec<WorkloadEndpoint> {
    let of_interest = |kind| matches!(kind, Kind::WorkloadEndpoint | Kind::Pod);
    let stored = listing.entries.iter().filter(|entry| of_interest(entry.key.kind));
    let resources: Resources = stored.filter_map(|entry| Resource::from_json(&entry.json).ok()).collect();
    resources.all().cloned().collect()
}

/// Addresses that the node is known to have.
fn own_addresses(listing: &Listing, node: &str) -> Vec<IpAddr> {
    let is_node = |kind| matches!(kind, Kind::Node | Kind::KubernetesNode);
    let stored = listing.entries.iter().filter(|entry| is_node(entry.key.kind) && entry.key.name == node);
    let resources: Resources = stored.filter_map(|entry| Resource::from_json(&entry.json).ok()).collect();
    resources.all::<Node>().flat_map(Node::addresses).map(|address| address.addr).collect()
}

/// An address, or "namespace/name" of an endpoint, its pod or its workload, or a host endpoint.
fn resolve<'a>(
    endpoints: &'a [WorkloadEndpoint],
    hosts: &'a Hosts,
    side: &str,
    text: &str,
) -> Result<End<'a>, Status> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let owner =
            |endpoint: &&WorkloadEndpoint| endpoint.spec.ip_networks.iter().any(|net| net.contains(address));
        return Ok(match endpoints.iter().find(owner) {
            None => hosts.at(address),
            endpoint => End { addresses: vec![address], endpoint, host: None, is_host: false },
        });
    }
    if text.is_empty() {
        return Err(Status::invalid_argument(format!(
            "{side}: give \"namespace/name\" of a workload, or an address"
        )));
    }
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    let inside = || endpoints.iter().filter(|endpoint| endpoint.metadata.namespace == namespace);
    let exact: Vec<_> = inside().filter(|endpoint| endpoint.metadata.name == name).collect();
    let found = if exact.is_empty() {
        inside().filter(|endpoint| endpoint.spec.pod == name || endpoint.spec.workload == name).collect()
    } else {
        exact
    };
    match found.as_slice() {
        [] => hosts.named(text).ok_or_else(|| {
            let why =
                format!("there is no workload endpoint of {namespace}/{name}, and no host endpoint {text}");
            Status::not_found(format!("{side}: {why}"))
        }),
        [endpoint] => {
            let addresses = endpoint.spec.ip_networks.iter().map(|net| net.addr()).collect();
            Ok(End { addresses, endpoint: Some(endpoint), host: None, is_host: false })
        }
        several => {
            let names: Vec<_> = several.iter().map(|endpoint| endpoint.metadata.name.as_str()).collect();
            Err(Status::invalid_argument(format!(
                "{side}: {namespace}/{name} has {} endpoints: name one of {}",
                several.len(),
                names.join(", ")
            )))
        }
    }
}

/// IPv4 where both have it.
fn common_version(from: &End<'_>, to: &End<'_>) -> Result<(IpAddr, IpAddr), Status> {
    let first =
        |end: &End<'_>, v4: bool| end.addresses.iter().find(|address| address.is_ipv4() == v4).copied();
    [true, false]
        .into_iter()
        .find_map(|v4| Some((first(from, v4)?, first(to, v4)?)))
        .ok_or_else(|| Status::invalid_argument("from and to have no addresses of the same IP version"))
}

/// A number, or the name that the destination gives one of its ports.
fn destination_port(to: &End<'_>, protocol: Protocol, text: &str) -> Result<u32, Status> {
    if text.is_empty() {
        return match protocol.has_ports() {
            true => Err(Status::invalid_argument(format!(
                "{protocol} needs a destination port, a number or a name"
            ))),
            false => Ok(0),
        };
    }
    if let Ok(number) = text.parse() {
        return port("destination_port", number);
    }
    let workload = to.endpoint.into_iter().flat_map(|endpoint| &endpoint.spec.ports);
    let host = to.host.into_iter().flat_map(|host| &host.spec.ports);
    let ports: Vec<_> = workload
        .map(|port| (&port.name, port.protocol, port.port))
        .chain(host.map(|port| (&port.name, port.protocol, port.port)))
        .collect();
    let named = ports.iter().find(|(name, of, _)| **name == text && *of == protocol);
    named.map(|(.., port)| u32::from(*port)).ok_or_else(|| {
        let names: Vec<_> = ports.iter().map(|(name, protocol, _)| format!("{name} ({protocol})")).collect();
        let known = if names.is_empty() {
            "it names none".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        };
        Status::invalid_argument(format!("the destination has no {protocol} port called {text:?}: {known}"))
    })
}

fn port(field: &str, number: u32) -> Result<u32, Status> {
    match u16::try_from(number) {
        Ok(_) => Ok(number),
        Err(_) => {
            Err(Status::invalid_argument(format!("{field}: {number} is not a port; ports are 0 to 65535")))
        }
    }
}

fn address(octets: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok().map(|address| address.to_string())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
