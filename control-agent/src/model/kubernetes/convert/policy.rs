//! `networking.k8s.io/v1` NetworkPolicy into Calico's.

use super::{Policy, pods, rule};
use crate::model::kubernetes::policy::{
    NetworkPolicy, NetworkPolicySpec, Peer, PolicyPort, StagedNetworkPolicy,
};
use crate::model::kubernetes::selector::LabelSelector;
use crate::model::{
    self, Action, EntityRule, FieldError, Metadata, PolicyType, Port, Protocol, Rule, Staged, StagedAction,
    Tier,
};

/// Of policies of Kubernetes, in tier `default`.
const ORDER: f64 = 1_000.0;

/// # Errors
/// The first field that has no meaning.
pub(super) fn network_policy(policy: &NetworkPolicy) -> Result<Policy, FieldError> {
    let metadata = metadata(&policy.metadata);
    let spec = spec(&policy.spec)?;
    Ok(Policy { resource: model::NetworkPolicy { metadata, spec }.into(), closed: Vec::new(), inert: false })
}

/// # Errors
/// The first field that has no meaning.
pub(super) fn staged(staged: &StagedNetworkPolicy) -> Result<Policy, FieldError> {
    let metadata = metadata(&staged.metadata);
    let action = staged.spec.action();
    let policy = if action == StagedAction::Delete {
        if staged.spec.policy != NetworkPolicySpec::default() {
            return Err(FieldError::new(
                "spec",
                "a policy that deletes has only a stagedAction; remove the rest",
            ));
        }
        model::NetworkPolicySpec::default()
    } else {
        spec(&staged.spec.policy)?
    };
    let spec = Staged { action: Some(action), policy };
    Ok(Policy {
        resource: model::StagedNetworkPolicy { metadata, spec }.into(),
        closed: Vec::new(),
        inert: false,
    })
}

fn metadata(of: &Metadata) -> Metadata {
    Metadata {
        name: format!("knp.default.{}", of.name),
        namespace: of.namespace.clone(),
        ..Metadata::default()
    }
}

fn spec(spec: &NetworkPolicySpec) -> Result<model::NetworkPolicySpec, FieldError> {
    let selector = pods(&selector("spec.podSelector", &spec.pod_selector)?);
    let mut ingress = Vec::new();
    for (i, rule) in spec.ingress.iter().enumerate() {
        ingress.extend(rules(&format!("spec.ingress[{i}]"), Side::Source, &rule.from, &rule.ports)?);
    }
    let mut egress = Vec::new();
    for (i, rule) in spec.egress.iter().enumerate() {
        egress.extend(rules(&format!("spec.egress[{i}]"), Side::Destination, &rule.to, &rule.ports)?);
    }
    let mut types = spec.policy_types.clone();
    if types.is_empty() {
        // As the API server fills it in.
        types.push(PolicyType::Ingress);
        types.extend((!spec.egress.is_empty()).then_some(PolicyType::Egress));
    }
    Ok(model::NetworkPolicySpec {
        tier: Tier::DEFAULT.to_owned(),
        order: Some(ORDER),
        ingress,
        egress,
        selector,
        types,
        ..model::NetworkPolicySpec::default()
    })
}

/// Where the peers of a rule are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// A rule for each peer and protocol.
fn rules(at: &str, side: Side, peers: &[Peer], ports: &[PolicyPort]) -> Result<Vec<Rule>, FieldError> {
    let field = if side == Side::Source { "from" } else { "to" };
    let mut entities = Vec::new();
    for (i, peer) in peers.iter().enumerate() {
        entities.push(entity(&format!("{at}.{field}[{i}]"), peer)?);
    }
    if peers.is_empty() {
        entities.push(EntityRule::default());
    }
    let mut matches: Vec<(Option<Protocol>, Vec<Port>)> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let (protocol, port) = self::port(&format!("{at}.ports[{i}]"), port)?;
        matches.push((Some(protocol), port.into_iter().collect()));
    }
    if ports.is_empty() {
        matches.push((None, Vec::new()));
    }
    let mut rules = Vec::new();
    for entity in &entities {
        for (protocol, ports) in &matches {
            let (mut source, mut destination) = (EntityRule::default(), EntityRule::default());
            match side {
                Side::Source => source = entity.clone(),
                Side::Destination => destination = entity.clone(),
            }
            destination.ports.clone_from(ports);
            rules.push(Rule { protocol: *protocol, source, destination, ..rule(Action::Allow) });
        }
    }
    Ok(rules)
}

fn entity(at: &str, peer: &Peer) -> Result<EntityRule, FieldError> {
    let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        Some(_) if selects => {
            Err(FieldError::new(format!("{at}.ipBlock"), "given with a selector; make it two peers"))
        }
        Some(block) => {
            if let Some(other) = block.except.iter().find(|net| net.is_v4() != block.cidr.is_v4()) {
                let message = format!("{other} is of another IP version than {}; remove it", block.cidr);
                return Err(FieldError::new(format!("{at}.ipBlock.except"), message));
            }
            Ok(EntityRule { nets: vec![block.cidr], not_nets: block.except.clone(), ..EntityRule::default() })
        }
        None if selects => {
            let of = |field: &str, given: &Option<LabelSelector>| {
                given.as_ref().map(|given| selector(&format!("{at}.{field}"), given)).transpose()
            };
            let labels = of("podSelector", &peer.pod_selector)?;
            Ok(EntityRule {
                selector: pods(labels.as_deref().unwrap_or("all()")),
                namespace_selector: of("namespaceSelector", &peer.namespace_selector)?.unwrap_or_default(),
                ..EntityRule::default()
            })
        }
        None => Err(FieldError::new(
            at,
            "empty; give a podSelector, a namespaceSelector or an ipBlock, or leave out the list",
        )),
    }
}

fn port(at: &str, port: &PolicyPort) -> Result<(Protocol, Option<Port>), FieldError> {
    let protocol = port.protocol.unwrap_or(Protocol::TCP);
    if !protocol.has_ports() {
        return Err(FieldError::new(
            format!("{at}.protocol"),
            format!("{protocol} has no ports; use TCP, UDP or SCTP"),
        ));
    }
    let port = match (&port.port, port.end_port) {
        (given, None) => given.clone(),
        (Some(Port::Range { first, last: port }), Some(last)) if first == port && first <= &last => {
            Some(Port::Range { first: *first, last })
        }
        (_, Some(last)) => {
            let message = format!("{last}, which needs a port: a number that is not above it");
            return Err(FieldError::new(format!("{at}.endPort"), message));
        }
    };
    Ok((protocol, port))
}

pub(super) fn selector(at: &str, selector: &LabelSelector) -> Result<String, FieldError> {
    selector.selector().map_err(|why| FieldError::new(at, why))
}
