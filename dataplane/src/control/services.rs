//! Services as the agent sends them, parsed.

use super::convert::{self, FieldError};
use crate::net::{Addr, Prefix, Proto};
use crate::service::{Definition, Endpoint, PortDefinition, Table};
use margay_api::dataplane::v1 as pb;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Ports of a service at most.
const MAX_PORTS: usize = 4096;
/// A backend's weight at most.
const MAX_WEIGHT: u32 = 1000;
/// Seconds of client affinity at most, as in Kubernetes: a day.
const MAX_AFFINITY: u32 = 86_400;

/// A service's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Never empty.
    pub namespace: Arc<str>,
    /// Never empty.
    pub name: Arc<str>,
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What becomes of the TCP connections of a backend that does not serve any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemovedBackend {
    /// They go on until they end, as with kube-proxy.
    #[default]
    Drain,
    /// They are forgotten: the client's next packet goes to another backend, which resets it.
    Reset,
}

/// What holds for all services of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Node ports are served at the node's addresses in these; none: at all.
    pub node_port_nets: Vec<Prefix>,
    /// Of TCP.
    pub removed_backend: RemovedBackend,
}

impl ServiceSettings {
    /// Parses them.
    pub(super) fn parse(config: &pb::NodeConfig) -> Result<Self, FieldError> {
        Ok(Self {
            node_port_nets: convert::prefixes("node_port_nets", &config.node_port_nets)?,
            removed_backend: match config.removed_backend() {
                pb::node_config::RemovedBackend::Drain => RemovedBackend::Drain,
                pb::node_config::RemovedBackend::Reset => RemovedBackend::Reset,
            },
        })
    }
}

/// Parses a service's identity.
pub(super) fn id(message: Option<&pb::ServiceId>) -> Result<ServiceId, FieldError> {
    let id = message.ok_or_else(|| FieldError::new("id", "missing"))?;
    for (field, value) in [("id.namespace", &id.namespace), ("id.name", &id.name)] {
        if value.is_empty() {
            return Err(FieldError::new(field, "missing"));
        }
    }
    Ok(ServiceId { namespace: id.namespace.as_str().into(), name: id.name.as_str().into() })
}

/// Parses a service.
pub(super) fn definition(message: &pb::Service) -> Result<(ServiceId, Definition), FieldError> {
    let id = id(message.id.as_ref())?;
    let affinity = message.client_affinity_seconds;
    if affinity > MAX_AFFINITY {
        let why = format!("{affinity} is above {MAX_AFFINITY}, a day");
        return Err(FieldError::new("client_affinity_seconds", why));
    }
    let ports = ports(&message.ports)?;
    let definition = Definition {
        name: id.to_string().into(),
        cluster_ips: addresses("cluster_ips", &message.cluster_ips)?,
        external_ips: addresses("external_ips", &message.external_ips)?,
        load_balancer_ips: addresses("load_balancer_ips", &message.load_balancer_ips)?,
        source_ranges: convert::prefixes(
            "load_balancer_source_ranges",
            &message.load_balancer_source_ranges,
        )?
        .into(),
        backends: backends(&message.backends, &ports)?,
        ports,
        affinity: (affinity > 0).then_some(affinity),
        internal_local: message.internal_traffic_local,
        external_local: message.external_traffic_local,
    };
    Ok((id, definition))
}

fn addresses(field: &str, messages: &[Vec<u8>]) -> Result<Vec<Addr>, FieldError> {
    let each = messages.iter().enumerate();
    each.map(|(at, bytes)| address(&format!("{field}[{at}]"), bytes)).collect()
}

/// An address that packets can be sent to from anywhere.
fn address(field: &str, bytes: &[u8]) -> Result<Addr, FieldError> {
    let addr = convert::addr(field, bytes)?;
    let wrong = addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() || addr.is_link_local();
    if wrong || bytes.len() == 16 && addr.is_v4() {
        let why = format!("{addr} is no station's address that others reach; send a unicast one");
        return Err(FieldError::new(field, why));
    }
    Ok(addr)
}

fn ports(messages: &[pb::service::Port]) -> Result<Vec<PortDefinition>, FieldError> {
    if messages.len() > MAX_PORTS {
        let why = format!("{} ports; at most {MAX_PORTS} fit one service", messages.len());
        return Err(FieldError::new("ports", why));
    }
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut parsed = Vec::with_capacity(messages.len());
    for (at, message) in messages.iter().enumerate() {
        let wrong = |field: &str, why: String| FieldError::new(format!("ports[{at}].{field}"), why);
        let proto = match u8::try_from(message.protocol).map(Proto) {
            Ok(proto @ (Proto::TCP | Proto::UDP | Proto::SCTP)) => proto,
            _ => return Err(wrong("protocol", format!("{} is not TCP, UDP or SCTP", message.protocol))),
        };
        let port = port(message.port).map_err(|why| wrong("port", why))?;
        let node_port = match message.node_port {
            0 => None,
            number => Some(self::port(number).map_err(|why| wrong("node_port", why))?),
        };
        if !names.insert(message.name.as_str()) {
            return Err(wrong("name", format!("{:?} is another port's; give each its own", message.name)));
        }
        if !numbers.insert((proto, port)) {
            return Err(wrong("port", format!("{proto} {port} is there twice")));
        }
        if node_port.is_some_and(|node_port| !node_ports.insert((proto, node_port))) {
            return Err(wrong("node_port", format!("{proto} {} is there twice", message.node_port)));
        }
        parsed.push(PortDefinition { name: message.name.as_str().into(), proto, port, node_port });
    }
    Ok(parsed)
}

fn backends(
    messages: &[pb::service::Backend],
    ports: &[PortDefinition],
) -> Result<Vec<Endpoint>, FieldError> {
    if messages.len() > Table::MAX_MEMBERS {
        let why = format!("{} backends; at most {} fit one service", messages.len(), Table::MAX_MEMBERS);
        return Err(FieldError::new("backends", why));
    }
    let index: BTreeMap<&str, u16> = (0..).zip(ports).map(|(at, port)| (&*port.name, at)).collect();
    let mut known = BTreeSet::new();
    let one = |(at, message): (usize, &pb::service::Backend)| {
        let wrong = |field: String, why: String| FieldError::new(format!("backends[{at}].{field}"), why);
        let addr = address(&format!("backends[{at}].address"), &message.address)?;
        if !known.insert(addr) {
            return Err(wrong("address".into(), format!("{addr} is there twice; give it all its ports")));
        }
        if message.weight > MAX_WEIGHT {
            return Err(wrong("weight".into(), format!("{} is above {MAX_WEIGHT}", message.weight)));
        }
        let port = |(name, number): (&String, &u32)| {
            let field = || format!("ports[{name:?}]");
            let at = index
                .get(name.as_str())
                .ok_or_else(|| wrong(field(), "no port of the service has this name".into()))?;
            Ok((*at, self::port(*number).map_err(|why| wrong(field(), why))?))
        };
        let mut its = message.ports.iter().map(port).collect::<Result<Vec<_>, _>>()?;
        its.sort_unstable();
        Ok(Endpoint {
            addr,
            ports: its.into(),
            ready: message.ready,
            serving: message.serving,
            terminating: message.terminating,
            local: message.local,
            preferred: message.preferred,
            weight: message.weight.max(1),
        })
    };
    messages.iter().enumerate().map(one).collect()
}

fn port(number: u32) -> Result<u16, String> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{number} is no port; ports go from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> pb::Service {
        pb::Service {
            id: Some(pb::ServiceId { namespace: "default".into(), name: "web".into() }),
            cluster_ips: vec![vec![10, 96, 0, 1]],
            ports: vec![pb::service::Port { name: "http".into(), protocol: 6, port: 80, node_port: 30_080 }],
            backends: vec![pb::service::Backend {
                address: vec![10, 65, 0, 1],
                ports: [("http".to_owned(), 8080)].into(),
                ready: true,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_service_is_parsed() {
        let (id, web) = definition(&web()).unwrap();
        assert_eq!(id.to_string(), "default/web");
        assert_eq!((web.backends[0].port(0), web.backends[0].weight), (Some(8080), 1));
        assert_eq!((web.ports[0].node_port, web.affinity), (Some(30_080), None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Spoil = fn(&mut pb::Service);
        let cases: [(Spoil, &str); 14] = [
            (|s| s.id = None, "id"),
            (|s| s.id.as_mut().unwrap().name.clear(), "id.name"),
            (|s| s.cluster_ips[0] = vec![1, 2], "cluster_ips[0]"),
            (|s| s.external_ips = vec![vec![127, 0, 0, 1]], "external_ips[0]"),
            (|s| s.load_balancer_ips = vec![vec![0; 16]], "load_balancer_ips[0]"),
            (|s| s.ports[0].protocol = 1, "ports[0].protocol"),
            (|s| s.ports[0].port = 0, "ports[0].port"),
            (|s| s.ports[0].node_port = 65_536, "ports[0].node_port"),
            (|s| s.ports.push(s.ports[0].clone()), "ports[1].name"),
            (|s| s.backends[0].address = vec![224, 0, 0, 1], "backends[0].address"),
            (|s| s.backends.push(s.backends[0].clone()), "backends[1].address"),
            (|s| _ = s.backends[0].ports.insert("ftp".into(), 21), "backends[0].ports[\"ftp\"]"),
            (|s| s.backends[0].weight = 1001, "backends[0].weight"),
            (|s| s.client_affinity_seconds = 86_401, "client_affinity_seconds"),
        ];
        for (spoil, field) in cases {
            let mut service = web();
            spoil(&mut service);
            assert_eq!(definition(&service).unwrap_err().field, field);
        }
    }
}
