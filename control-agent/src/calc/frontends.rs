//! Services as the dataplane serves them, from Services and EndpointSlices, as kube-proxy takes them.

use super::{Resources, packed, services::Services};
use crate::model::{
    Cidr, Kind, Node,
    kubernetes::{EndpointSlice, Service, ServicePort, SliceEndpoint, Typed},
};
use margay_api::dataplane::v1::{self as api, ServiceId, service};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

/// Of a node: its zone, which hints name.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Of a service: another proxy serves it, or nobody does.
const NOT_OURS: [&str; 2] = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
/// Seconds that a client stays where it is not said, as in Kubernetes: three hours.
const AFFINITY: u32 = 10_800;

/// A [`ServiceId`] that sorts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "as in the message")]
pub struct ServiceKey {
    pub namespace: String,
    pub name: String,
}

impl From<&ServiceKey> for ServiceId {
    fn from(key: &ServiceKey) -> Self {
        Self { namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

/// Whether a load balancer should send a service's clients to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Whose `healthCheckNodePort` it is.
    pub service: ServiceKey,
    /// Its backends that are ready, on this node.
    pub local_endpoints: usize,
}

/// Every service that packets can be sent to, as `node` serves it, and what load balancers ask it, by
/// port. Any node may have clients of any service, so none is left out.
pub(super) fn services(
    resources: &Resources,
    node: &str,
    problems: &mut Vec<String>,
) -> (BTreeMap<ServiceKey, Arc<api::Service>>, BTreeMap<u16, HealthCheck>) {
    let slices = Services::new(resources);
    let place = Place { node, zone: zone(resources, node) };
    let mut claims = Claims::default();
    let (mut services, mut checks) = (BTreeMap::new(), BTreeMap::new());
    for object in resources.kubernetes(Kind::Service) {
        let Typed::Service(service) = object else { continue };
        let labels = &service.metadata.labels;
        if service.is_only_a_name() || NOT_OURS.iter().any(|label| labels.contains_key(*label)) {
            continue;
        }
        let key =
            ServiceKey { namespace: service.metadata.namespace.clone(), name: service.metadata.name.clone() };
        let slices = slices.of(&key.namespace, &key.name);
        let mut message = message(service, &key, slices, &place);
        unserved(service, &message, &key, problems);
        claims.settle(&key, &mut message, problems);
        health_check(service, &message, &key, &mut checks, problems);
        services.insert(key, Arc::new(message));
    }
    (services, checks)
}

/// Adds the service's health check, if it has one. As with node ports, the first service keeps the port.
fn health_check(
    service: &Service,
    message: &api::Service,
    key: &ServiceKey,
    checks: &mut BTreeMap<u16, HealthCheck>,
    problems: &mut Vec<String>,
) {
    let asked = service.spec.kind == "LoadBalancer" && message.external_traffic_local;
    let port = u16::try_from(service.spec.health_check_node_port).ok().filter(|port| asked && *port != 0);
    let Some(port) = port else { return };
    if let Some(HealthCheck { service: other, .. }) = checks.get(&port) {
        problems.push(format!(
            "healthCheckNodePort {port} of service {}/{} is service {}/{}'s; change one of them",
            key.namespace, key.name, other.namespace, other.name
        ));
        return;
    }
    let here = message.backends.iter().filter(|backend| backend.ready && backend.local);
    checks.insert(port, HealthCheck { service: key.clone(), local_endpoints: here.count() });
}

/// Where a node is.
struct Place<'a> {
    node: &'a str,
    zone: Option<&'a str>,
}

fn zone<'a>(resources: &'a Resources, node: &str) -> Option<&'a str> {
    resources.get::<Node>("", node)?.metadata.labels.get(ZONE).map(String::as_str)
}

fn message(
    service: &Service,
    key: &ServiceKey,
    slices: &[&EndpointSlice],
    place: &Place<'_>,
) -> api::Service {
    let spec = &service.spec;
    let octets = |ips: &[String]| ips.iter().filter_map(|ip| ip.parse().ok()).map(octets).collect();
    let mut cluster_ips: Vec<_> = octets(&spec.cluster_ips);
    if cluster_ips.is_empty() {
        cluster_ips = octets(std::slice::from_ref(&spec.cluster_ip));
    }
    let balanced = service.status.load_balancer.ingress.iter().filter(|ingress| ingress.ip_mode != "Proxy");
    let balanced: Vec<String> = balanced.map(|ingress| ingress.ip.clone()).collect();
    let affinity = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let affinity = affinity.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY);
    let ranges =
        spec.load_balancer_source_ranges.iter().filter_map(|range| range.trim().parse::<Cidr>().ok());
    api::Service {
        id: Some(key.into()),
        r#type: if spec.kind.is_empty() { "ClusterIP".to_owned() } else { spec.kind.clone() },
        cluster_ips,
        external_ips: octets(&spec.external_ips),
        load_balancer_ips: if spec.kind == "LoadBalancer" { octets(&balanced) } else { Vec::new() },
        ports: spec.ports.iter().map(port).collect(),
        backends: backends(service, slices, place),
        client_affinity_seconds: if spec.session_affinity == "ClientIP" { affinity } else { 0 },
        external_traffic_local: spec.external_traffic_policy == "Local",
        internal_traffic_local: spec.internal_traffic_policy == "Local",
        load_balancer_source_ranges: ranges.map(packed).collect(),
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    Cidr::host(ip).octets()
}

fn port(port: &ServicePort) -> service::Port {
    service::Port {
        name: port.name.clone(),
        protocol: number(port).into(),
        port: port.port,
        node_port: port.node_port,
    }
}

fn number(port: &ServicePort) -> u8 {
    match port.protocol.as_deref() {
        Some("UDP") => 17,
        Some("SCTP") => 132,
        _ => 6,
    }
}

/// The backends of all slices, by address, with the ports of all slices that have it.
fn backends(service: &Service, slices: &[&EndpointSlice], place: &Place<'_>) -> Vec<service::Backend> {
    let spec = &service.spec;
    let mut backends: BTreeMap<IpAddr, service::Backend> = BTreeMap::new();
    let all =
        || slices.iter().flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (slice, endpoint)));
    let is_ready = |endpoint: &SliceEndpoint| {
        spec.publish_not_ready_addresses || endpoint.conditions.ready.unwrap_or(true)
    };
    let ready = all().map(|(_, endpoint)| endpoint).filter(|endpoint| is_ready(endpoint));
    let hints = Hinted::by(ready.collect(), place);
    for (slice, endpoint) in all() {
        // Of alternatives kube-proxy takes the first.
        let Some(address) = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok()) else {
            continue;
        };
        let conditions = endpoint.conditions;
        let ready = is_ready(endpoint);
        let backend = backends.entry(address).or_insert_with(|| service::Backend {
            address: octets(address),
            zone: endpoint.zone.clone().unwrap_or_default(),
            node: endpoint.node_name.clone().unwrap_or_default(),
            ..service::Backend::default()
        });
        backend.ready |= ready;
        backend.serving |= conditions.serving.unwrap_or(ready);
        backend.terminating |= conditions.terminating.unwrap_or(false);
        backend.local |= endpoint.node_name.as_deref() == Some(place.node);
        backend.preferred |= hints.prefer(endpoint, place);
        for own in &spec.ports {
            let same = |port: &&crate::model::kubernetes::SlicePort| {
                port.name.as_deref().unwrap_or_default() == own.name
                    && port.protocol.map_or(6, crate::model::Protocol::number) == number(own)
            };
            let found = slice.ports.iter().find(same).and_then(|port| port.port).filter(|port| *port > 0);
            if let Some(port) = found {
                backend.ports.insert(own.name.clone(), port.into());
            }
        }
    }
    backends.into_values().filter(|backend| !backend.ports.is_empty()).collect()
}

/// Which hints of a service's backends count. Hints by which clients of some node would be left
/// without a backend do not, and neither do those of a part of the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hinted {
    Nodes,
    Zones,
    Not,
}

impl Hinted {
    /// By the ready endpoints, as kube-proxy's `topologyModeFromHints`.
    fn by(ready: Vec<&SliceEndpoint>, place: &Place<'_>) -> Self {
        let all = |has: fn(&SliceEndpoint) -> bool| ready.iter().all(|endpoint| has(endpoint));
        let some = |mode: Self| ready.iter().any(|endpoint| mode.prefer(endpoint, place));
        let nodes =
            |endpoint: &SliceEndpoint| endpoint.hints.as_ref().is_some_and(|h| !h.for_nodes.is_empty());
        let zones =
            |endpoint: &SliceEndpoint| endpoint.hints.as_ref().is_some_and(|h| !h.for_zones.is_empty());
        if all(nodes) && some(Self::Nodes) {
            Self::Nodes
        } else if all(zones) && place.zone.is_some() && some(Self::Zones) {
            Self::Zones
        } else {
            Self::Not
        }
    }

    /// The endpoint is for clients of this place.
    fn prefer(self, endpoint: &SliceEndpoint, place: &Place<'_>) -> bool {
        let hints = endpoint.hints.as_ref();
        match self {
            Self::Nodes => hints.is_some_and(|hints| hints.for_nodes.iter().any(|n| n.name == place.node)),
            Self::Zones => {
                hints.is_some_and(|hints| hints.for_zones.iter().any(|z| Some(&*z.name) == place.zone))
            }
            Self::Not => true,
        }
    }
}

/// What of a service nobody can use, as nothing here gives out addresses and ports.
fn unserved(service: &Service, message: &api::Service, key: &ServiceKey, problems: &mut Vec<String>) {
    let ServiceKey { namespace, name } = key;
    if message.cluster_ips.is_empty() {
        problems.push(format!(
            "service {namespace}/{name} has no clusterIP, and nothing here gives it one: set spec.clusterIP"
        ));
    }
    let on_nodes = service.spec.kind == "NodePort";
    for port in message.ports.iter().filter(|port| on_nodes && port.node_port == 0) {
        problems.push(format!(
            "port {} of service {namespace}/{name} has no nodePort, and nothing here gives it one: set it",
            port.port
        ));
    }
}

/// Who serves an address, protocol and port, or for an empty address a node port: the first service
/// by namespace and name.
#[derive(Default)]
struct Claims(HashMap<(Vec<u8>, u32, u32), ServiceKey>);

impl Claims {
    /// Takes from `message` what another service has.
    fn settle(&mut self, key: &ServiceKey, message: &mut api::Service, problems: &mut Vec<String>) {
        let ServiceKey { namespace, name } = key;
        let ports = message.ports.clone();
        for addresses in [&mut message.cluster_ips, &mut message.load_balancer_ips, &mut message.external_ips]
        {
            addresses.retain(|address| {
                let place = |port: &service::Port| (address.clone(), port.protocol, port.port);
                let other = ports.iter().find_map(|port| self.0.get(&place(port)).filter(|other| *other != key));
                if let Some(other) = other {
                    let text = ip(address);
                    problems.push(format!(
                        "service {namespace}/{name} is not served at {text}: service {}/{} has a port of it that both claim; change one of them",
                        other.namespace, other.name
                    ));
                    return false;
                }
                self.0.extend(ports.iter().map(|port| (place(port), key.clone())));
                true
            });
        }
        for port in message.ports.iter_mut().filter(|port| port.node_port != 0) {
            let place = (Vec::new(), port.protocol, port.node_port);
            match self.0.get(&place) {
                Some(other) => {
                    problems.push(format!(
                        "nodePort {} of service {namespace}/{name} is service {}/{}'s; change one of them",
                        port.node_port, other.namespace, other.name
                    ));
                    port.node_port = 0;
                }
                None => drop(self.0.insert(place, key.clone())),
            }
        }
    }
}

fn ip(octets: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let ip = v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
    ip.map(|ip| ip.to_string()).unwrap_or_default()
}
