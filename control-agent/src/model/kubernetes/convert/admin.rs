//! Policy of administrators into global policy, in tiers of its own.

use super::policy::selector;
use super::{Policy, named, pods, rule};
use crate::model::kubernetes::admin::{
    AdminAction, AdminNetworkPolicy, AdminPeer, AdminPort, AdminRule, ClusterNetworkPolicy, ClusterPort,
    ClusterProtocol, ClusterRule, ClusterTier, Pods, ProtocolPorts,
};
use crate::model::{
    Action, EntityRule, FieldError, GlobalNetworkPolicy, GlobalNetworkPolicySpec, PolicyType, Port, Protocol,
    Rule, Tier, TierAction, TierSpec,
};

/// Of v1alpha2: 0 to this.
const MAX_PRIORITY: u16 = 1_000;

/// # Errors
/// The first field that has no meaning.
pub(super) fn cluster(policy: &ClusterNetworkPolicy) -> Result<Policy, FieldError> {
    let spec = &policy.spec;
    let (tier, short) = match spec.tier {
        ClusterTier::Admin => ("kube-admin", "admin"),
        ClusterTier::Baseline => ("kube-baseline", "baseline"),
    };
    let (ingress, egress) =
        (cluster_parts("ingress", &spec.ingress)?, cluster_parts("egress", &spec.egress)?);
    let name = format!("kcnp.{short}.{}", policy.metadata.name);
    global(name, tier, priority(spec.priority)?, &spec.subject, &ingress, &egress)
}

/// # Errors
/// The first field that has no meaning.
pub(super) fn admin(policy: &AdminNetworkPolicy) -> Result<Policy, FieldError> {
    let missing = || FieldError::new("spec.priority", "missing; give a number from 0 to 1000");
    let order = priority(policy.spec.priority.ok_or_else(missing)?)?;
    v1alpha1(policy, "adminnetworkpolicy", Some(order))
}

/// # Errors
/// The first field that has no meaning.
pub(super) fn baseline(policy: &AdminNetworkPolicy) -> Result<Policy, FieldError> {
    if policy.metadata.name != "default" {
        let message =
            format!("{:?}; the one BaselineAdminNetworkPolicy is called default", policy.metadata.name);
        return Err(FieldError::new("metadata.name", message));
    }
    if policy.spec.priority.is_some() {
        return Err(FieldError::new("spec.priority", "a BaselineAdminNetworkPolicy has none; remove it"));
    }
    let pass = |rules: &[AdminRule]| rules.iter().position(|rule| rule.action == AdminAction::Pass);
    for (field, rules) in [("ingress", &policy.spec.ingress), ("egress", &policy.spec.egress)] {
        if let Some(i) = pass(rules) {
            let field = format!("spec.{field}[{i}].action");
            return Err(FieldError::new(
                field,
                "Pass, but nothing comes after the baseline; use Allow or Deny",
            ));
        }
    }
    v1alpha1(policy, "baselineadminnetworkpolicy", None)
}

/// The tier that v1alpha1 policy stands in.
pub(super) fn tier(name: &str, order: f64) -> Tier {
    Tier {
        metadata: named(name.to_owned()),
        spec: TierSpec { order: Some(order), default_action: Some(TierAction::Pass) },
    }
}

fn v1alpha1(policy: &AdminNetworkPolicy, tier: &str, order: Option<f64>) -> Result<Policy, FieldError> {
    let spec = &policy.spec;
    let (ingress, egress) = (admin_parts("ingress", &spec.ingress)?, admin_parts("egress", &spec.egress)?);
    let name = format!("kanp.{tier}.{}", policy.metadata.name);
    global(name, tier, order.unwrap_or(0.0), &spec.subject, &ingress, &egress)
}

fn priority(priority: u16) -> Result<f64, FieldError> {
    if priority > MAX_PRIORITY {
        return Err(FieldError::new("spec.priority", format!("{priority}; the highest is {MAX_PRIORITY}")));
    }
    Ok(priority.into())
}

/// A rule, whichever version it was written in.
struct Part<'a> {
    at: String,
    action: AdminAction,
    peers: &'a [AdminPeer],
    /// Empty: any.
    ports: Vec<Ports>,
}

/// A protocol, and ports of sender and receiver; no port is any.
#[derive(Clone)]
struct Ports {
    protocol: Protocol,
    source: Option<Port>,
    destination: Option<Port>,
}

fn cluster_parts<'a>(side: &str, rules: &'a [ClusterRule]) -> Result<Vec<Part<'a>>, FieldError> {
    let part = |(i, rule): (usize, &'a ClusterRule)| {
        let at = format!("spec.{side}[{i}]");
        let peers = only_peers(&at, side, &rule.from, &rule.to)?;
        let ports = rule.protocols.iter().enumerate();
        let ports = ports.map(|(k, protocol)| protocol_ports(&format!("{at}.protocols[{k}]"), protocol));
        Ok(Part { action: rule.action, peers, ports: ports.collect::<Result<Vec<_>, _>>()?.concat(), at })
    };
    rules.iter().enumerate().map(part).collect()
}

fn admin_parts<'a>(side: &str, rules: &'a [AdminRule]) -> Result<Vec<Part<'a>>, FieldError> {
    let part = |(i, rule): (usize, &'a AdminRule)| {
        let at = format!("spec.{side}[{i}]");
        let peers = only_peers(&at, side, &rule.from, &rule.to)?;
        let ports = rule.ports.iter().enumerate();
        let ports = ports.map(|(k, port)| admin_port(&format!("{at}.ports[{k}]"), port));
        Ok(Part { action: rule.action, peers, ports: ports.collect::<Result<Vec<_>, _>>()?.concat(), at })
    };
    rules.iter().enumerate().map(part).collect()
}

fn global(
    name: String,
    tier: &str,
    order: f64,
    subject: &Pods,
    ingress: &[Part<'_>],
    egress: &[Part<'_>],
) -> Result<Policy, FieldError> {
    let (namespace_selector, labels) = match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), None) => (selector("spec.subject.namespaces", namespaces)?, "all()".to_owned()),
        (None, Some(both)) => (
            selector("spec.subject.pods.namespaceSelector", &both.namespace_selector)?,
            selector("spec.subject.pods.podSelector", &both.pod_selector)?,
        ),
        _ => return Err(FieldError::new("spec.subject", "give either namespaces or pods")),
    };
    let mut closed = Vec::new();
    let mut types = Vec::new();
    types.extend((!ingress.is_empty()).then_some(PolicyType::Ingress));
    types.extend((!egress.is_empty()).then_some(PolicyType::Egress));
    let mut side = |parts: &[Part<'_>], ingress: bool| {
        let rules = parts.iter().map(|part| part.rules(ingress, &mut closed));
        rules.collect::<Result<Vec<_>, _>>().map(|rules| rules.concat())
    };
    let (ingress, egress) = (side(ingress, true)?, side(egress, false)?);
    let spec = GlobalNetworkPolicySpec {
        tier: tier.to_owned(),
        order: Some(order),
        ingress,
        egress,
        selector: pods(&labels),
        namespace_selector,
        types,
        ..GlobalNetworkPolicySpec::default()
    };
    // Without rules it affects neither direction.
    let inert = spec.types.is_empty();
    Ok(Policy { resource: GlobalNetworkPolicy { metadata: named(name), spec }.into(), closed, inert })
}

impl Part<'_> {
    /// A rule for each peer and port. What cannot be said in Calico's rules fails closed.
    fn rules(&self, ingress: bool, closed: &mut Vec<String>) -> Result<Vec<Rule>, FieldError> {
        let action = match self.action {
            AdminAction::Accept => Action::Allow,
            AdminAction::Deny => Action::Deny,
            AdminAction::Pass => Action::Pass,
        };
        let mut entities = Vec::new();
        for (i, peer) in self.peers.iter().enumerate() {
            match entity(&format!("{}.{}[{i}]", self.at, if ingress { "from" } else { "to" }), peer, ingress)?
            {
                Peer::Is(some) => entities.extend(some),
                Peer::CannotBe(what) if action == Action::Allow => {
                    closed.push(format!("{}: {what} cannot be matched: the rule accepts nothing", self.at));
                    return Ok(Vec::new());
                }
                Peer::CannotBe(what) => {
                    closed.push(format!("{}: {what} cannot be matched: the rule denies everything", self.at));
                    return Ok(vec![rule(Action::Deny)]);
                }
            }
        }
        let any = [None];
        let some: Vec<Option<&Ports>> = self.ports.iter().map(Some).collect();
        let mut rules = Vec::new();
        for entity in &entities {
            for ports in if some.is_empty() { &any[..] } else { &some[..] } {
                let mut rule = rule(action);
                *(if ingress { &mut rule.source } else { &mut rule.destination }) = entity.clone();
                if let Some(ports) = ports {
                    rule.protocol = Some(ports.protocol);
                    rule.source.ports = ports.source.iter().cloned().collect();
                    rule.destination.ports = ports.destination.iter().cloned().collect();
                }
                rules.push(rule);
            }
        }
        Ok(rules)
    }
}

enum Peer {
    /// Any of these.
    Is(Vec<EntityRule>),
    CannotBe(&'static str),
}

fn only_peers<'a>(
    at: &str,
    side: &str,
    from: &'a [AdminPeer],
    to: &'a [AdminPeer],
) -> Result<&'a [AdminPeer], FieldError> {
    let (peers, others) = if side == "ingress" { (from, to) } else { (to, from) };
    if !others.is_empty() {
        return Err(FieldError::new(at, "an ingress rule has from, an egress rule has to; remove the other"));
    }
    if peers.is_empty() {
        return Err(FieldError::new(at, "has no peers; give from in an ingress rule, to in an egress rule"));
    }
    Ok(peers)
}

fn entity(at: &str, peer: &AdminPeer, ingress: bool) -> Result<Peer, FieldError> {
    let given = [
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        !peer.networks.is_empty(),
        peer.nodes.is_some(),
        !peer.domain_names.is_empty(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(FieldError::new(at, "give one of namespaces, pods, networks, nodes and domainNames"));
    }
    for (given, field) in [(given[2], "networks"), (given[3], "nodes"), (given[4], "domainNames")] {
        if ingress && given {
            return Err(FieldError::new(
                format!("{at}.{field}"),
                format!("only egress rules have {field}; remove it"),
            ));
        }
    }
    let of_pods = |namespaces: &str, labels: &str| {
        Peer::Is(vec![EntityRule {
            selector: pods(labels),
            namespace_selector: namespaces.to_owned(),
            ..EntityRule::default()
        }])
    };
    Ok(match (&peer.namespaces, &peer.pods, &peer.nodes) {
        (Some(namespaces), ..) => of_pods(&selector(&format!("{at}.namespaces"), namespaces)?, "all()"),
        (_, Some(both), _) => of_pods(
            &selector(&format!("{at}.pods.namespaceSelector"), &both.namespace_selector)?,
            &selector(&format!("{at}.pods.podSelector"), &both.pod_selector)?,
        ),
        (.., Some(nodes)) => {
            let node_selector = selector(&format!("{at}.nodes"), nodes)?;
            Peer::Is(vec![EntityRule { node_selector, ..EntityRule::default() }])
        }
        _ if given[2] => {
            // No rule of Calico's mixes IP versions.
            let (v4, v6): (Vec<_>, Vec<_>) = peer.networks.iter().partition(|net| net.is_v4());
            let some = [v4, v6].into_iter().filter(|nets| !nets.is_empty());
            Peer::Is(some.map(|nets| EntityRule { nets, ..EntityRule::default() }).collect())
        }
        _ => Peer::CannotBe("domainNames"),
    })
}

fn protocol_ports(at: &str, protocol: &ClusterProtocol) -> Result<Vec<Ports>, FieldError> {
    let ClusterProtocol { tcp, udp, sctp, destination_named_port } = protocol;
    let numbered = [(Protocol::TCP, tcp), (Protocol::UDP, udp), (Protocol::SCTP, sctp)];
    let given: Vec<(Protocol, &ProtocolPorts)> =
        numbered.into_iter().filter_map(|(protocol, ports)| Some((protocol, ports.as_ref()?))).collect();
    match (given.as_slice(), destination_named_port) {
        ([], Some(name)) => of_name(&format!("{at}.destinationNamedPort"), name),
        ([(protocol, ports)], None) => Ok(vec![Ports {
            protocol: *protocol,
            source: ports.source_port.as_ref().map(|port| cluster_port(at, port)).transpose()?,
            destination: ports.destination_port.as_ref().map(|port| cluster_port(at, port)).transpose()?,
        }]),
        _ => Err(FieldError::new(at, "give one of tcp, udp, sctp and destinationNamedPort")),
    }
}

fn cluster_port(at: &str, port: &ClusterPort) -> Result<Port, FieldError> {
    match (port.number, &port.range) {
        (Some(number), None) if number > 0 => Ok(Port::one(number)),
        (None, Some(range)) if range.protocol.is_none() => span(at, range.start, range.end),
        _ => Err(FieldError::new(at, "give either a port's number, 1 to 65535, or a range of them")),
    }
}

fn admin_port(at: &str, port: &AdminPort) -> Result<Vec<Ports>, FieldError> {
    let one = |protocol: Option<Protocol>, port: Port| match protocol.unwrap_or(Protocol::TCP) {
        protocol if protocol.has_ports() => {
            Ok(vec![Ports { protocol, source: None, destination: Some(port) }])
        }
        other => Err(FieldError::new(at, format!("{other} has no ports; use TCP, UDP or SCTP"))),
    };
    match (&port.port_number, &port.port_range, &port.named_port) {
        (Some(number), None, None) => one(number.protocol, span(at, number.port, number.port)?),
        (None, Some(range), None) => one(range.protocol, span(at, range.start, range.end)?),
        (None, None, Some(name)) => of_name(&format!("{at}.namedPort"), name),
        _ => Err(FieldError::new(at, "give one of portNumber, portRange and namedPort")),
    }
}

fn span(at: &str, first: u16, last: u16) -> Result<Port, FieldError> {
    if first == 0 || last < first {
        let message = format!("{first} to {last} is no range of ports; they are 1 to 65535, the lower first");
        return Err(FieldError::new(at, message));
    }
    Ok(Port::Range { first, last })
}

/// A name says nothing of the protocol: whichever the pod's port has.
fn of_name(at: &str, name: &str) -> Result<Vec<Ports>, FieldError> {
    match name.parse() {
        Ok(port @ Port::Named(_)) => {
            let each = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
            let of = |protocol| Ports { protocol, source: None, destination: Some(port.clone()) };
            Ok(each.map(of).to_vec())
        }
        _ => Err(FieldError::new(at, format!("{name:?} is not a port's name"))),
    }
}
