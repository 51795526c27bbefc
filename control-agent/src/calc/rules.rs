//! Rules as users write them to rules as the dataplane takes them: selectors become IP sets,
//! names of ports become sets of addresses with ports.

use super::{
    ip_sets::{Holds, Wanted},
    packed,
};
use crate::model::{self, EntityRule, Port, Protocol, Selector};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use margay_api::dataplane::v1::{Action, HttpMatch, IcmpMatch, PortRange, Rule, RuleOrigin, http_match};
use prost::Message as _;
use sha2::{Digest, Sha224};

/// The rules, for a policy of `namespace` (`None`: a global policy or a profile). What sets they ask for is noted.
///
/// # Errors
/// What cannot be converted, as one sentence.
pub(super) fn convert(
    rules: &[model::Rule],
    namespace: Option<&str>,
    wanted: &mut Wanted,
) -> Result<Vec<Rule>, String> {
    let numbered = rules.iter().enumerate();
    numbered
        .map(|(at, rule)| one(rule, namespace, wanted).map_err(|why| format!("rule {at}: {why}")))
        .collect()
}

/// Notes what a rule asks for. Returns the id of its set.
fn want(wanted: &mut Wanted, holds: Holds) -> String {
    let id = holds.id();
    wanted.entry(id.clone()).or_insert(holds);
    id
}

/// What stands in for rules that cannot be had: nothing passes.
pub(super) fn deny_all() -> Vec<Rule> {
    vec![Rule { action: Action::Deny.into(), ..Rule::default() }]
}

fn one(rule: &model::Rule, namespace: Option<&str>, wanted: &mut Wanted) -> Result<Rule, String> {
    let mut side = |entity| Side::new(entity, namespace, rule.protocol, wanted);
    let source = side(&rule.source)?;
    let destination = side(&rule.destination)?;
    let from_service = service(&rule.source, namespace)?;
    let to_service = service(&rule.destination, namespace)?;
    // Replies of a backend come from any of its ports; requests go to the service's alone.
    let senders = from_service.map(|(namespace, name)| {
        want(wanted, Holds::BackendAddresses(namespace.to_owned(), name.to_owned()))
    });
    let backends = to_service
        .map(|(namespace, name)| want(wanted, Holds::Backends(namespace.to_owned(), name.to_owned())));
    let mut nodes = |entity: &EntityRule| match entity.node_selector.as_str() {
        "" => Ok(None),
        text => {
            let selector = Selector::parse(text).map_err(|error| error.to_string())?;
            Ok::<_, String>(Some(want(wanted, Holds::Nodes(selector))))
        }
    };
    let (from_nodes, to_nodes) = (nodes(&rule.source)?, nodes(&rule.destination)?);
    let mut converted = Rule {
        action: action(rule.action).into(),
        ip_version: rule.ip_version.map_or(0, |version| version.number().into()),
        protocol: rule.protocol.map(|protocol| protocol.number().into()),
        not_protocol: rule.not_protocol.map(|protocol| protocol.number().into()),
        src_nets: rule.source.nets.iter().copied().map(packed).collect(),
        dst_nets: rule.destination.nets.iter().copied().map(packed).collect(),
        not_src_nets: rule.source.not_nets.iter().copied().map(packed).collect(),
        not_dst_nets: rule.destination.not_nets.iter().copied().map(packed).collect(),
        src_ports: source.ports.numbers,
        dst_ports: destination.ports.numbers,
        not_src_ports: source.not_ports.numbers,
        not_dst_ports: destination.not_ports.numbers,
        src_named_port_ip_set_ids: source.ports.sets,
        dst_named_port_ip_set_ids: destination.ports.sets,
        not_src_named_port_ip_set_ids: source.not_ports.sets,
        not_dst_named_port_ip_set_ids: destination.not_ports.sets,
        src_ip_set_ids: source.set.into_iter().chain(senders).chain(from_nodes).collect(),
        dst_ip_set_ids: destination.set.into_iter().chain(to_nodes).collect(),
        not_src_ip_set_ids: source.not_set.into_iter().collect(),
        not_dst_ip_set_ids: destination.not_set.into_iter().collect(),
        dst_ip_port_set_ids: backends.into_iter().collect(),
        icmp: rule.icmp.and_then(icmp),
        not_icmp: rule.not_icmp.and_then(icmp),
        http: rule.http.as_ref().map(http),
        origin: None,
    };
    // Before the origin: annotations do not change what a rule means.
    let rule_id = URL_SAFE_NO_PAD.encode(&Sha224::digest(converted.encode_to_vec())[..12]);
    converted.origin = Some(RuleOrigin {
        src_selector: source.selector,
        dst_selector: destination.selector,
        not_src_selector: rule.source.not_selector.clone(),
        not_dst_selector: rule.destination.not_selector.clone(),
        src_service: from_service.map(title).unwrap_or_default(),
        dst_service: to_service.map(title).unwrap_or_default(),
        annotations: rule.metadata.iter().flat_map(|metadata| metadata.annotations.clone()).collect(),
        rule_id,
        dst_node_selector: rule.destination.node_selector.clone(),
    });
    Ok(converted)
}

/// Namespace and name of the service whose backends a side must be one of.
fn service<'a>(entity: &'a EntityRule, own: Option<&'a str>) -> Result<Option<(&'a str, &'a str)>, String> {
    let Some(service) = &entity.services else { return Ok(None) };
    let namespace = if service.namespace.is_empty() { own } else { Some(service.namespace.as_str()) };
    match namespace {
        Some(namespace) => Ok(Some((namespace, service.name.as_str()))),
        None => Err(format!("service {:?} is in no namespace; name one", service.name)),
    }
}

fn title((namespace, name): (&str, &str)) -> String {
    format!("{namespace}/{name}")
}

/// One side of a rule.
struct Side {
    /// For people.
    selector: String,
    set: Option<String>,
    not_set: Option<String>,
    ports: Ports,
    not_ports: Ports,
}

/// Alternatives to each other.
struct Ports {
    numbers: Vec<PortRange>,
    sets: Vec<String>,
}

impl Side {
    fn new(
        entity: &EntityRule,
        namespace: Option<&str>,
        protocol: Option<Protocol>,
        wanted: &mut Wanted,
    ) -> Result<Self, String> {
        let peers = entity.peers(namespace).map_err(|error| error.to_string())?;
        let not_peers = entity.not_peers().map_err(|error| error.to_string())?;
        // A name means the port of whoever is selected, and where nobody is, of anybody.
        let named = peers.clone().unwrap_or_else(Selector::all);
        let protocol = protocol.unwrap_or(Protocol::TCP);
        Ok(Self {
            ports: Ports::new(&entity.ports, &named, protocol, wanted),
            not_ports: Ports::new(&entity.not_ports, &named, protocol, wanted),
            selector: peers.as_ref().map(ToString::to_string).unwrap_or_default(),
            set: peers.map(|peers| want(wanted, Holds::Selected(peers))),
            not_set: not_peers.map(|not_peers| want(wanted, Holds::Selected(not_peers))),
        })
    }
}

impl Ports {
    fn new(ports: &[Port], named: &Selector, protocol: Protocol, wanted: &mut Wanted) -> Self {
        let mut split = Self { numbers: Vec::new(), sets: Vec::new() };
        for port in ports {
            match port {
                Port::Range { first, last } => {
                    split.numbers.push(PortRange { first: (*first).into(), last: (*last).into() });
                }
                Port::Named(name) => {
                    split.sets.push(want(wanted, Holds::NamedPort(named.clone(), protocol, name.clone())));
                }
            }
        }
        split
    }
}

fn action(action: model::Action) -> Action {
    match action {
        model::Action::Allow => Action::Allow,
        model::Action::Deny => Action::Deny,
        model::Action::Log => Action::Log,
        model::Action::Pass => Action::Pass,
    }
}

/// Without a type there is nothing to match beyond the rule's protocol.
fn icmp(icmp: model::Icmp) -> Option<IcmpMatch> {
    icmp.kind.map(|kind| IcmpMatch { r#type: kind.into(), code: icmp.code.map(Into::into) })
}

fn http(http: &model::HttpMatch) -> HttpMatch {
    use http_match::path::Path;
    let path = |path: &model::HttpPath| match path.exact.is_empty() {
        false => Path::Exact(path.exact.clone()),
        true => Path::Prefix(path.prefix.clone()),
    };
    let paths = http.paths.iter().map(|one| http_match::Path { path: Some(path(one)) });
    HttpMatch { methods: http.methods.clone(), paths: paths.collect() }
}
