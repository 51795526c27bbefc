//! Services and EndpointSlices, and what Kubernetes' own server refuses of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::objects::{nearest, null_is_none};
use crate::model::net::is_port_name;
use crate::model::{FieldError, Metadata, Protocol, SubnetAddr};

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: ServiceSpec,
    /// What was given to it.
    pub status: ServiceStatus,
}

/// What a [`Service`] says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Empty: `ClusterIP`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address that clients use; `None` for headless services.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Both, of a service with two.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Addresses that somebody leads to the nodes.
    #[serde(rename = "externalIPs", deserialize_with = "null_is_none")]
    pub external_ips: Vec<String>,
    /// Its ports.
    #[serde(deserialize_with = "null_is_none")]
    pub ports: Vec<ServicePort>,
    /// `None`, which empty stands for, or `ClientIP`.
    pub session_affinity: String,
    /// For how long.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// `Cluster`, which empty stands for, or `Local`.
    pub external_traffic_policy: String,
    /// `Cluster`, which empty stands for, or `Local`.
    pub internal_traffic_policy: String,
    /// Who may use a load balancer's address; empty: everybody.
    #[serde(deserialize_with = "null_is_none")]
    pub load_balancer_source_ranges: Vec<String>,
    /// For load balancers, where `Local` nodes are told from others.
    pub health_check_node_port: u32,
    /// Backends get clients before they are ready.
    pub publish_not_ready_addresses: bool,
    /// What changes neither verdict nor backend.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A port of a [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServicePort {
    /// Empty, where there is but one.
    pub name: String,
    /// Absent: TCP.
    pub protocol: Option<String>,
    /// On the service's addresses.
    pub port: u32,
    /// On the nodes' addresses; 0: none.
    pub node_port: u32,
    /// What EndpointSlices were made by.
    pub target_port: Value,
    /// Changes neither verdict nor backend.
    pub app_protocol: Option<String>,
}

/// How long clients stay.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SessionAffinityConfig {
    /// With the affinity that there is.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// How long clients stay.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClientIpConfig {
    /// Absent: three hours.
    pub timeout_seconds: Option<u32>,
}

/// What was given to a [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// By a load balancer.
    pub load_balancer: LoadBalancerStatus,
    /// What a server reports besides.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What a load balancer gave.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Addresses, or names.
    #[serde(deserialize_with = "null_is_none")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// Where a load balancer takes clients.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// Its address.
    pub ip: String,
    /// `Proxy`: clients go to it, and it to node ports. Else nodes take what is sent to it.
    pub ip_mode: String,
    /// What changes neither verdict nor backend.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A part of the backends of a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EndpointSlice {
    /// Name, namespace, labels; among them that of the service.
    pub metadata: Metadata,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The backends.
    #[serde(deserialize_with = "null_is_none")]
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports that each of them has.
    #[serde(deserialize_with = "null_is_none")]
    pub ports: Vec<SlicePort>,
}

/// A backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    /// Of one backend, alternatives to each other.
    pub addresses: Vec<String>,
    /// Whether it serves. To rules it is a backend in any case.
    pub conditions: Conditions,
    /// Where it runs.
    pub node_name: Option<String>,
    /// Where that is.
    pub zone: Option<String>,
    /// Whose clients it is for.
    pub hints: Option<Hints>,
    /// What changes neither verdict nor backend.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Whether a backend serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Conditions {
    /// Absent: it is.
    pub ready: Option<bool>,
    /// Absent: if it is ready.
    pub serving: Option<bool>,
    /// Absent: it is not.
    pub terminating: Option<bool>,
}

/// Whose clients a backend is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Hints {
    /// Those in these zones.
    #[serde(deserialize_with = "null_is_none")]
    pub for_zones: Vec<Named>,
    /// Those on these nodes.
    #[serde(deserialize_with = "null_is_none")]
    pub for_nodes: Vec<Named>,
}

/// A name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Named {
    /// It.
    pub name: String,
}

/// A port of all backends of an [`EndpointSlice`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SlicePort {
    /// What the service calls it.
    pub name: Option<String>,
    /// Absent: TCP.
    pub protocol: Option<Protocol>,
    /// Absent: every port, which no rule can match.
    pub port: Option<u16>,
    /// Changes no verdict.
    pub app_protocol: Option<String>,
}

impl EndpointSlice {
    /// The service whose backends these are, in the slice's namespace.
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.get("kubernetes.io/service-name").map(String::as_str)
    }

    /// The backends' addresses. Names, which a slice may have in their place, are none.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).filter_map(|text| text.parse().ok())
    }
}

impl Service {
    /// Addresses that clients use and that no packet has any more when policy sees it.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let all = self.spec.cluster_ips.iter().chain([&self.spec.cluster_ip]);
        all.filter_map(|text| text.parse().ok())
    }

    /// It is a name for others to look up, and no packet is sent to it.
    pub fn is_only_a_name(&self) -> bool {
        let headless = |ip: &String| ip == "None";
        self.spec.kind == "ExternalName"
            || headless(&self.spec.cluster_ip)
            || self.spec.cluster_ips.iter().any(headless)
    }

    /// What Kubernetes' server would not take.
    pub(super) fn faults(&self) -> Vec<FieldError> {
        let unknown = nearest("spec", &self.spec.other, &SERVICE_SPEC);
        let unknown = unknown.into_iter().map(|(field, nearest)| {
            FieldError::new(field, format!("unknown field; did you mean {nearest}?"))
        });
        let mut faults = Faults(unknown.collect());
        faults.service(self);
        faults.0
    }
}

struct Faults(Vec<FieldError>);

impl Faults {
    fn require(&mut self, ok: bool, field: impl Into<String>, message: impl Into<String>) {
        if !ok {
            self.0.push(FieldError::new(format!("spec.{}", field.into()), message));
        }
    }

    fn one_of(&mut self, field: &str, value: &str, known: &[&str]) {
        let message = format!("{value:?} is not a valid value; use {}", known.join(" or "));
        self.require(value.is_empty() || known.contains(&value), field, message);
    }

    fn service(&mut self, service: &Service) {
        let spec = &service.spec;
        self.one_of("type", &spec.kind, &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
        self.one_of("sessionAffinity", &spec.session_affinity, &["None", "ClientIP"]);
        self.one_of("externalTrafficPolicy", &spec.external_traffic_policy, &["Cluster", "Local"]);
        self.one_of("internalTrafficPolicy", &spec.internal_traffic_policy, &["Cluster", "Local"]);
        let named = spec.kind == "ExternalName";
        let balanced = spec.kind == "LoadBalancer";
        let on_nodes = balanced || spec.kind == "NodePort";
        if named {
            let addressed = spec.cluster_ips.iter().chain([&spec.cluster_ip]).any(|ip| !ip.is_empty());
            self.require(!addressed, "clusterIP", "an ExternalName has no address; remove it");
            self.require(spec.other.contains_key("externalName"), "externalName", "missing");
        } else {
            let needed = !spec.ports.is_empty() || service.is_only_a_name();
            self.require(needed, "ports", "missing; a service that is not headless has at least one");
        }
        let headless = service.is_only_a_name() && !named;
        let why = format!("None, which a {} cannot have; remove it", spec.kind);
        self.require(!(headless && on_nodes), "clusterIP", why);
        self.cluster_ips(spec);
        for (at, ip) in spec.external_ips.iter().enumerate() {
            let message = format!("{ip:?} is no address that clients could send to");
            self.require(ip.parse().is_ok_and(is_stations), format!("externalIPs[{at}]"), message);
        }
        for (at, range) in spec.load_balancer_source_ranges.iter().enumerate() {
            let parses = range.trim().contains('/') && range.trim().parse::<SubnetAddr>().is_ok();
            let message = format!("{range:?} is no block of addresses; write one such as 10.0.0.0/8");
            self.require(parses, format!("loadBalancerSourceRanges[{at}]"), message);
        }
        let ranges = spec.load_balancer_source_ranges.is_empty() || balanced;
        self.require(ranges, "loadBalancerSourceRanges", "only for the type LoadBalancer; remove it");
        let outside = spec.external_traffic_policy.is_empty() || on_nodes || !spec.external_ips.is_empty();
        self.require(outside, "externalTrafficPolicy", "only where clients outside can reach it; remove it");
        let checked = balanced && spec.external_traffic_policy == "Local";
        let why = "only for the type LoadBalancer with externalTrafficPolicy Local; remove it";
        self.require(spec.health_check_node_port == 0 || checked, "healthCheckNodePort", why);
        self.affinity(spec);
        self.ports(&spec.ports, on_nodes);
    }

    fn cluster_ips(&mut self, spec: &ServiceSpec) {
        let [first, ..] = spec.cluster_ips.as_slice() else {
            return self.cluster_ip("clusterIP", &spec.cluster_ip);
        };
        let agree = spec.cluster_ip.is_empty() || spec.cluster_ip == *first;
        self.require(agree, "clusterIPs[0]", "must be the same as clusterIP");
        for (at, ip) in spec.cluster_ips.iter().enumerate() {
            self.cluster_ip(&format!("clusterIPs[{at}]"), ip);
        }
        let families: Vec<bool> =
            spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).map(|ip: IpAddr| ip.is_ipv4()).collect();
        let both = spec.cluster_ips.len() == 1 || families.len() == 2 && families[0] != families[1];
        self.require(both, "clusterIPs", "one address, or one of each IP version");
    }

    fn cluster_ip(&mut self, field: &str, ip: &str) {
        let fine = matches!(ip, "" | "None") || ip.parse().is_ok_and(is_stations);
        self.require(fine, field, format!("{ip:?} is neither an address nor None"));
    }

    fn affinity(&mut self, spec: &ServiceSpec) {
        let Some(config) = &spec.session_affinity_config else { return };
        let on = spec.session_affinity == "ClientIP";
        self.require(on, "sessionAffinityConfig", "only with sessionAffinity ClientIP; remove it");
        if let Some(seconds) = config.client_ip.as_ref().and_then(|config| config.timeout_seconds) {
            let message = format!("{seconds} is not within 1 to 86400, a day");
            self.require(
                (1..=86_400).contains(&seconds),
                "sessionAffinityConfig.clientIP.timeoutSeconds",
                message,
            );
        }
    }

    fn ports(&mut self, ports: &[ServicePort], on_nodes: bool) {
        let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (at, port) in ports.iter().enumerate() {
            let field = |name: &str| format!("ports[{at}].{name}");
            let named = !port.name.is_empty() || ports.len() == 1;
            self.require(named, field("name"), "missing; with several ports each has a name");
            let label = port.name.is_empty() || is_dns_label(&port.name);
            let why = format!("{:?} is no name: lower case letters, digits and -, at most 63", port.name);
            self.require(label, field("name"), why);
            let other = port.name.is_empty() || names.insert(port.name.as_str());
            self.require(other, field("name"), format!("{:?} is another port's", port.name));
            let number = |number: u32| (1..=65_535).contains(&number);
            let range = |number: u32| format!("{number} is no port; ports go from 1 to 65535");
            self.require(number(port.port), field("port"), range(port.port));
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let known = matches!(protocol, "TCP" | "UDP" | "SCTP");
            let why = format!("{protocol:?} has no ports here; use TCP, UDP or SCTP");
            self.require(known, field("protocol"), why);
            let twice = format!("{protocol} {} is there twice", port.port);
            self.require(numbers.insert((protocol, port.port)), field("port"), twice);
            let target = match &port.target_port {
                Value::Null => true,
                Value::Number(target) => target.as_u64().is_some_and(|n| u32::try_from(n).is_ok_and(number)),
                Value::String(target) => target.is_empty() || is_port_name(target),
                _ => false,
            };
            let why = format!("{} is neither a port nor a port's name", port.target_port);
            self.require(target, field("targetPort"), why);
            if port.node_port != 0 {
                self.require(number(port.node_port), field("nodePort"), range(port.node_port));
                let why = "only for the types NodePort and LoadBalancer; remove it";
                self.require(on_nodes, field("nodePort"), why);
                let twice = format!("{protocol} {} is there twice", port.node_port);
                self.require(node_ports.insert((protocol, port.node_port)), field("nodePort"), twice);
            }
        }
    }
}

/// An address that packets can be sent to from anywhere.
fn is_stations(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
}

/// RFC 1123.
fn is_dns_label(name: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

const SERVICE_SPEC: [&str; 20] = [
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "ports",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(spec: &str) -> Vec<String> {
        let service: Service =
            serde_yaml_ng::from_str(&format!("{{metadata: {{name: s}}, spec: {spec}}}")).unwrap();
        service.faults().into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn what_kubernetes_takes() {
        for spec in [
            "{ports: [{port: 80}]}",
            "{clusterIP: None}",
            "{type: ExternalName, externalName: example.org}",
            "{clusterIPs: [10.96.0.1, 'fd96::1'], ports: [{name: a, port: 80}, {name: b, port: 80, protocol: UDP}]}",
            "{type: NodePort, externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30080, targetPort: http}]}",
            "{type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8], ports: [{port: 80, targetPort: 8080}]}",
            "{externalIPs: [203.0.113.1], externalTrafficPolicy: Local, ports: [{port: 80}]}",
            "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}, ports: [{port: 1}]}",
            "{type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30001, ports: [{port: 80}]}",
        ] {
            assert_eq!(faults(spec), [""; 0], "{spec}");
        }
    }

    #[test]
    fn what_it_refuses_is_named() {
        for (spec, field) in [
            ("{}", "spec.ports"),
            ("{type: Cluster, ports: [{port: 80}]}", "spec.type"),
            ("{type: NodePort, clusterIP: None, ports: [{port: 80}]}", "spec.clusterIP"),
            ("{type: ExternalName}", "spec.externalName"),
            ("{type: ExternalName, externalName: a, clusterIP: 10.0.0.1}", "spec.clusterIP"),
            ("{clusterIP: ten, ports: [{port: 80}]}", "spec.clusterIP"),
            ("{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.2], ports: [{port: 80}]}", "spec.clusterIPs[0]"),
            ("{clusterIPs: [10.0.0.1, 10.0.0.2], ports: [{port: 80}]}", "spec.clusterIPs"),
            ("{externalIPs: [127.0.0.1], ports: [{port: 80}]}", "spec.externalIPs[0]"),
            ("{sessionAffinity: Client, ports: [{port: 80}]}", "spec.sessionAffinity"),
            ("{sessionAffinityConfig: {}, ports: [{port: 80}]}", "spec.sessionAffinityConfig"),
            (
                "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}, ports: [{port: 1}]}",
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            ),
            ("{externalTrafficPolicy: Local, ports: [{port: 80}]}", "spec.externalTrafficPolicy"),
            ("{internalTrafficPolicy: Near, ports: [{port: 80}]}", "spec.internalTrafficPolicy"),
            (
                "{loadBalancerSourceRanges: [10.0.0.0/8], ports: [{port: 80}]}",
                "spec.loadBalancerSourceRanges",
            ),
            (
                "{type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0], ports: [{port: 80}]}",
                "spec.loadBalancerSourceRanges[0]",
            ),
            ("{healthCheckNodePort: 1, ports: [{port: 80}]}", "spec.healthCheckNodePort"),
            ("{ports: [{port: 0}]}", "spec.ports[0].port"),
            ("{ports: [{port: 80, protocol: tcp}]}", "spec.ports[0].protocol"),
            ("{ports: [{port: 80, nodePort: 30080}]}", "spec.ports[0].nodePort"),
            ("{ports: [{port: 80, targetPort: 70000}]}", "spec.ports[0].targetPort"),
            ("{ports: [{port: 80, name: a}, {port: 81}]}", "spec.ports[1].name"),
            ("{ports: [{port: 80, name: a}, {port: 81, name: a}]}", "spec.ports[1].name"),
            ("{ports: [{port: 80, name: a}, {port: 80, name: b}]}", "spec.ports[1].port"),
            ("{ports: [{port: 80, name: A}]}", "spec.ports[0].name"),
            ("{prots: [], ports: [{port: 80}]}", "spec.prots"),
        ] {
            assert_eq!(faults(spec), [field], "{spec}");
        }
    }
}
