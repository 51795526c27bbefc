//! One rule.

use std::fmt;

use super::Check;
use super::text::is_subdomain;
use crate::model::net::is_port_name;
use crate::model::{Action, Cidr, EntityRule, HttpMatch, Icmp, IpVersion, Port, Protocol, Rule};

const MAX_NETS: usize = 256;
const MAX_PORTS: usize = 50;
const MAX_HTTP: usize = 20;

pub(super) fn rule(check: &mut Check, rule: &Rule, at: &str) {
    protocols(check, rule, at);
    for (icmp, field) in [(rule.icmp, "icmp"), (rule.not_icmp, "notICMP")] {
        if let Some(icmp) = icmp {
            icmp_fields(check, icmp, format_args!("{at}.{field}"));
        }
    }
    families(check, rule, at);
    entity(check, &rule.source, &format!("{at}.source"));
    entity(check, &rule.destination, &format!("{at}.destination"));
    if rule.destination.services.is_some() {
        let own = "the ports of a service are its own; remove them or services";
        check.require(rule.destination.ports.is_empty(), format_args!("{at}.destination.ports"), own);
        check.require(rule.destination.not_ports.is_empty(), format_args!("{at}.destination.notPorts"), own);
    }
    if let Some(http) = &rule.http {
        self::http(check, rule, http, at);
    }
    if let Some(metadata) = &rule.metadata {
        check.annotations(&metadata.annotations, format_args!("{at}.metadata.annotations"));
    }
}

fn protocols(check: &mut Check, rule: &Rule, at: &str) {
    let sides = [("source", &rule.source), ("destination", &rule.destination)];
    let lists = sides.into_iter().flat_map(|(s, e)| [(s, "ports", &e.ports), (s, "notPorts", &e.not_ports)]);
    for (side, list, ports) in lists {
        let numbered = ports.iter().any(|p| matches!(p, Port::Range { .. }));
        let ok = match rule.protocol {
            Some(protocol) => ports.is_empty() || protocol.has_ports(),
            // A named port brings its own protocol.
            None => !numbered,
        };
        let given = rule.protocol.map_or("missing".to_owned(), |p| p.to_string());
        let message = format_args!("the rule's protocol is {given}; ports need TCP, UDP or SCTP");
        check.require(ok, format_args!("{at}.{side}.{list}"), message);
    }
    if rule.icmp.is_some() {
        let ok = rule.protocol.is_some_and(Protocol::is_icmp);
        check.require(ok, format_args!("{at}.icmp"), "set protocol to ICMP or ICMPv6");
    }
    for (protocol, field) in [(rule.protocol, "protocol"), (rule.not_protocol, "notProtocol")] {
        let wanted = match protocol {
            Some(Protocol::ICMP) => IpVersion::V4,
            Some(Protocol::ICMP6) => IpVersion::V6,
            _ => continue,
        };
        check.require(
            rule.ip_version.is_none_or(|v| v == wanted),
            format_args!("{at}.ipVersion"),
            format_args!("the rule's {field} exists only in IPv{0}; set it to {0}", wanted.number()),
        );
    }
}

fn icmp_fields(check: &mut Check, icmp: Icmp, at: impl fmt::Display) {
    check.require(icmp.kind != Some(255), format_args!("{at}.type"), "255; an ICMP type is 0 to 254");
    check.require(
        icmp.code.is_none() || icmp.kind.is_some(),
        format_args!("{at}.code"),
        "a code needs a type; add it",
    );
}

/// Prefixes of one rule are all of one family: a packet is of one.
fn families(check: &mut Check, rule: &Rule, at: &str) {
    let mut family = rule.ip_version.map(|v| (v == IpVersion::V4, "ipVersion".to_owned()));
    let sides = [("source", &rule.source), ("destination", &rule.destination)];
    let lists = sides.into_iter().flat_map(|(s, e)| [(s, "nets", &e.nets), (s, "notNets", &e.not_nets)]);
    for (side, list, nets) in lists {
        let here = format!("{side}.{list}");
        for net in nets {
            match &family {
                None => family = Some((net.is_v4(), here.clone())),
                Some((v4, there)) if *v4 != net.is_v4() => {
                    let message = format!(
                        "{net} and the rule's {there} are of different IP versions, so nothing can match; write \
                         one rule for each version"
                    );
                    check.error(format_args!("{at}.{here}"), message);
                    break;
                }
                Some(_) => {}
            }
        }
    }
}

fn entity(check: &mut Check, entity: &EntityRule, at: &str) {
    check.at_most(&entity.nets, MAX_NETS, format_args!("{at}.nets"));
    check.at_most(&entity.not_nets, MAX_NETS, format_args!("{at}.notNets"));
    let everything = |net: &&Cidr| net.len() == 0;
    if let Some(net) = entity.not_nets.iter().find(everything) {
        check.error(
            format_args!("{at}.notNets"),
            format_args!("{net} excludes every address; remove it or the rule"),
        );
    }
    check.selector_without_global(&entity.selector, format_args!("{at}.selector"));
    check.selector_without_global(&entity.not_selector, format_args!("{at}.notSelector"));
    let namespaces = check.selector(&entity.namespace_selector, format_args!("{at}.namespaceSelector"));
    check.require(
        namespaces.is_none_or(|s| s.is_global() || !s.mentions_global()),
        format_args!("{at}.namespaceSelector"),
        "global() cannot be combined with other terms; use it alone",
    );
    ports(check, &entity.ports, format_args!("{at}.ports"));
    ports(check, &entity.not_ports, format_args!("{at}.notPorts"));
    if let Some(accounts) = &entity.service_accounts {
        let field = format!("{at}.serviceAccounts");
        check.selector_without_global(&accounts.selector, format_args!("{field}.selector"));
        for name in &accounts.names {
            let message = format_args!("{name:?} cannot be the name of a service account");
            check.require(is_subdomain(name), format_args!("{field}.names"), message);
        }
    }
    services(check, entity, at);
}

fn services(check: &mut Check, entity: &EntityRule, at: &str) {
    let Some(service) = &entity.services else { return };
    let field = format!("{at}.services");
    check.require(!service.name.is_empty(), format_args!("{field}.name"), "missing; name a service");
    check.optional_name(&service.name, format_args!("{field}.name"));
    check.optional_name(&service.namespace, format_args!("{field}.namespace"));
    let others = [
        ("nets", entity.nets.is_empty()),
        ("notNets", entity.not_nets.is_empty()),
        ("selector", entity.selector.is_empty()),
        ("notSelector", entity.not_selector.is_empty()),
        ("namespaceSelector", entity.namespace_selector.is_empty()),
        ("serviceAccounts", entity.service_accounts.is_none()),
    ];
    for (other, unused) in others {
        check.require(unused, &field, format_args!("cannot be combined with {other}; use two rules"));
    }
}

fn ports(check: &mut Check, ports: &[Port], at: impl fmt::Display) {
    check.at_most(ports, MAX_PORTS, &at);
    // Reading a port checks it; this holds for objects that a program made.
    for (i, port) in ports.iter().enumerate() {
        let ok = match port {
            Port::Range { first, last } => 0 < *first && first <= last,
            Port::Named(name) => is_port_name(name),
        };
        check.require(
            ok,
            format_args!("{at}[{i}]"),
            format_args!("\"{port}\" is not a port or a range of ports"),
        );
    }
}

fn http(check: &mut Check, rule: &Rule, http: &HttpMatch, at: &str) {
    let field = format!("{at}.http");
    check.require(rule.action == Action::Allow, &field, "only a rule that allows can match HTTP");
    let tcp = rule.protocol.is_none_or(|p| p == Protocol::TCP);
    check.require(
        tcp,
        format_args!("{at}.protocol"),
        "HTTP is matched over TCP; set protocol to TCP or remove it",
    );
    check.at_most(&http.methods, MAX_HTTP, format_args!("{field}.methods"));
    check.unique(&http.methods, format_args!("{field}.methods"));
    check.at_most(&http.paths, MAX_HTTP, format_args!("{field}.paths"));
    for (i, path) in http.paths.iter().enumerate() {
        let field = format!("{field}.paths[{i}]");
        let text = match (path.exact.as_str(), path.prefix.as_str()) {
            ("", "") => {
                check.error(&field, "empty; give exact or prefix");
                continue;
            }
            ("", text) | (text, "") => text,
            _ => {
                check.error(&field, "exact and prefix are alternatives; write two paths");
                continue;
            }
        };
        // RFC 3986 §3.3: a path ends where a query or fragment begins.
        let ok = text.starts_with('/') && !text.contains(['?', '#', ' ']);
        check.require(
            ok,
            &field,
            format_args!("{text:?} is not a path; start it with '/' and leave out ? # and space"),
        );
    }
}
