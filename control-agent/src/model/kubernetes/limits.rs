//! What Kubernetes' own server refuses and neither our types nor the conversion would notice:
//! spelling in other case, numbers as text, addresses without a length, sizes.
//!
//! It is checked on the object as written, since reading it evens that out.

use serde_json::Value;

use crate::model::net::is_port_name;
use crate::model::validate::{bad_label_key, bad_label_value};
use crate::model::{Cidr, Kind, SubnetAddr};

/// Field and message of each fault of an object without `apiVersion` and `kind`.
pub(super) fn faults(kind: Kind, body: &Value) -> Vec<(String, String)> {
    let mut limits = Limits { faults: Vec::new() };
    let spec = &body["spec"];
    match kind {
        Kind::KubernetesNetworkPolicy => limits.network_policy(spec),
        Kind::ClusterNetworkPolicy => limits.admin(spec, "Accept", "protocols", 25),
        Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => {
            limits.admin(spec, "Allow", "ports", 100)
        }
        _ => {}
    }
    limits.faults
}

struct Limits {
    faults: Vec<(String, String)>,
}

/// The entries of a list, each with its place.
fn items<'v>(list: &'v Value, at: &str) -> Vec<(String, &'v Value)> {
    let at = |i| format!("{at}[{i}]");
    list.as_array().into_iter().flatten().enumerate().map(|(i, item)| (at(i), item)).collect()
}

impl Limits {
    fn require(&mut self, ok: bool, field: impl Into<String>, message: impl Into<String>) {
        if !ok {
            self.faults.push((field.into(), message.into()));
        }
    }

    fn at_most(&mut self, list: &Value, max: usize, field: &str) {
        let n = list.as_array().map_or(0, Vec::len);
        self.require(n <= max, field, format!("{n} entries; at most {max} are allowed, split it"));
    }

    fn network_policy(&mut self, spec: &Value) {
        self.labels(&spec["podSelector"], "spec.podSelector");
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (at, rule) in items(&spec[direction], &format!("spec.{direction}")) {
                for (at, port) in items(&rule["ports"], &format!("{at}.ports")) {
                    self.port(port, &at);
                }
                for (at, peer) in items(&rule[peers], &format!("{at}.{peers}")) {
                    self.labels(&peer["podSelector"], &format!("{at}.podSelector"));
                    self.labels(&peer["namespaceSelector"], &format!("{at}.namespaceSelector"));
                    self.block(&peer["ipBlock"], &format!("{at}.ipBlock"));
                }
            }
        }
    }

    fn port(&mut self, port: &Value, at: &str) {
        if let Some(protocol) = port["protocol"].as_str() {
            let message = format!("{protocol} has no ports here; use TCP, UDP or SCTP, in upper case");
            self.require(matches!(protocol, "TCP" | "UDP" | "SCTP"), format!("{at}.protocol"), message);
        }
        if let Some(name) = port["port"].as_str() {
            let message = format!(
                "{name:?} is not a port's name; write a number without quotes, or a name with a letter"
            );
            self.require(is_port_name(name), format!("{at}.port"), message);
        }
    }

    fn block(&mut self, block: &Value, at: &str) {
        let whole = self.cidr(&block["cidr"], &format!("{at}.cidr"));
        for (at, except) in items(&block["except"], &format!("{at}.except")) {
            if let (Some(whole), Some(part)) = (whole, self.cidr(except, &at)) {
                let inside = part.len() > whole.len() && whole.overlaps(part);
                self.require(
                    inside,
                    at,
                    format!("{part} is not a part of {whole}; leave it out, or narrow it"),
                );
            }
        }
    }

    fn cidr(&mut self, cidr: &Value, at: &str) -> Option<Cidr> {
        let text = cidr.as_str()?;
        let length = text.contains('/');
        self.require(length, at, format!("{text:?} has no length; write one address as /32 or /128"));
        text.parse::<SubnetAddr>().ok().map(|addr| addr.subnet())
    }

    fn admin(&mut self, spec: &Value, accept: &str, ports: &str, max: usize) {
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            let field = format!("spec.{direction}");
            self.at_most(&spec[direction], max, &field);
            for (at, rule) in items(&spec[direction], &field) {
                self.at_most(&rule[peers], max, &format!("{at}.{peers}"));
                self.at_most(&rule[ports], max, &format!("{at}.{ports}"));
                let name = rule["name"].as_str().unwrap_or_default();
                let message = format!("{} bytes; a rule's name has at most 100", name.len());
                self.require(name.len() <= 100, format!("{at}.name"), message);
                if let Some(action @ ("Accept" | "Allow")) = rule["action"].as_str() {
                    let message = format!("{action:?}; write {accept}, Deny or Pass");
                    self.require(action == accept, format!("{at}.action"), message);
                }
                self.names_of_pods(rule, peers, ports, &at);
                for (at, port) in items(&rule[ports], &format!("{at}.{ports}")) {
                    self.spans(port, &at);
                }
                for (at, peer) in items(&rule[peers], &format!("{at}.{peers}")) {
                    self.at_most(&peer["networks"], 25, &format!("{at}.networks"));
                    for (at, network) in items(&peer["networks"], &format!("{at}.networks")) {
                        self.cidr(network, &at);
                    }
                    self.pods(peer, &at);
                    self.labels(&peer["nodes"], &format!("{at}.nodes"));
                }
            }
        }
        self.pods(&spec["subject"], "spec.subject");
    }

    /// Only pods give their ports names.
    fn names_of_pods(&mut self, rule: &Value, peers: &str, ports: &str, at: &str) {
        let nameless = ["networks", "nodes", "domainNames"];
        let peers = rule[peers].as_array().map_or(&[][..], Vec::as_slice);
        let other = nameless.into_iter().find(|field| peers.iter().any(|peer| peer.get(field).is_some()));
        for (at, port) in items(&rule[ports], &format!("{at}.{ports}")) {
            for name in ["destinationNamedPort", "namedPort"] {
                if let (Some(other), Some(_)) = (other, port.get(name)) {
                    let message =
                        format!("{other} have no names for ports; give numbers, or a rule of their own");
                    self.require(false, format!("{at}.{name}"), message);
                }
            }
        }
    }

    /// Ranges of ports, which are of more than one.
    fn spans(&mut self, port: &Value, at: &str) {
        let mut ranges = vec![(format!("{at}.portRange"), &port["portRange"])];
        for protocol in ["tcp", "udp", "sctp"] {
            let range = &port[protocol]["destinationPort"]["range"];
            ranges.push((format!("{at}.{protocol}.destinationPort.range"), range));
        }
        for (at, range) in ranges {
            if let (Some(start), Some(end)) = (range["start"].as_u64(), range["end"].as_u64()) {
                let message =
                    format!("{start} to {end} is no range of ports; give the lower first, or one number");
                self.require(start < end, at, message);
            }
        }
    }

    /// Namespaces, or pods of namespaces.
    fn pods(&mut self, of: &Value, at: &str) {
        self.labels(&of["namespaces"], &format!("{at}.namespaces"));
        for selector in ["namespaceSelector", "podSelector"] {
            self.labels(&of["pods"][selector], &format!("{at}.pods.{selector}"));
        }
    }

    /// Of a selector: keys and values that a label can have.
    fn labels(&mut self, selector: &Value, at: &str) {
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            self.label(key, std::slice::from_ref(value), &format!("{at}.matchLabels"));
        }
        for (at, wanted) in items(&selector["matchExpressions"], &format!("{at}.matchExpressions")) {
            let values = wanted["values"].as_array().map_or(&[][..], Vec::as_slice);
            if let Some(key) = wanted["key"].as_str() {
                self.label(key, values, &at);
            }
        }
    }

    fn label(&mut self, key: &str, values: &[Value], at: &str) {
        self.faults.extend(bad_label_key(key).map(|why| (at.to_owned(), why)));
        let bad = values.iter().filter_map(Value::as_str).filter_map(bad_label_value);
        self.faults.extend(bad.map(|why| (format!("{at}[{key:?}]"), why)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(kind: Kind, spec: &str) -> Vec<String> {
        let body = serde_yaml_ng::from_str(&format!("{{spec: {spec}}}")).unwrap();
        faults(kind, &body).into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn of_a_network_policy() {
        let ok = "{podSelector: {matchLabels: {a/b: c}}, ingress: [{ports: [{protocol: SCTP, port: web}, {port: 80}],
            from: [{ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16]}}]}]}";
        assert_eq!(fields(Kind::KubernetesNetworkPolicy, ok), [""; 0]);
        for (spec, field) in [
            ("{ingress: [{ports: [{protocol: tcp}]}]}", "spec.ingress[0].ports[0].protocol"),
            ("{egress: [{ports: [{port: '80'}]}]}", "spec.egress[0].ports[0].port"),
            ("{egress: [{to: [{ipBlock: {cidr: 10.0.0.0}}]}]}", "spec.egress[0].to[0].ipBlock.cidr"),
            (
                "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}",
                "spec.ingress[0].from[0].ipBlock.except[0]",
            ),
            (
                "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
                "spec.ingress[0].from[0].ipBlock.except[0]",
            ),
            ("{podSelector: {matchLabels: {a: -b}}}", "spec.podSelector.matchLabels[\"a\"]"),
            ("{podSelector: {matchLabels: {a/b/c: d}}}", "spec.podSelector.matchLabels"),
            (
                "{podSelector: {matchExpressions: [{key: a, operator: In, values: ['b c']}]}}",
                "spec.podSelector.matchExpressions[0][\"a\"]",
            ),
        ] {
            assert_eq!(fields(Kind::KubernetesNetworkPolicy, spec), [field], "{spec}");
        }
    }

    #[test]
    fn of_administrators_policies() {
        let rules = |n: usize, rule: &str| format!("{{egress: [{}]}}", vec![rule; n].join(", "));
        for (kind, n, accept, other) in [
            (Kind::ClusterNetworkPolicy, 25, "Accept", "Allow"),
            (Kind::AdminNetworkPolicy, 100, "Allow", "Accept"),
        ] {
            assert_eq!(fields(kind, &rules(n, &format!("{{action: {accept}}}"))), [""; 0]);
            assert_eq!(fields(kind, &rules(n + 1, "{action: Deny}")), ["spec.egress"]);
            assert_eq!(fields(kind, &rules(1, &format!("{{action: {other}}}"))), ["spec.egress[0].action"]);
            let name = "x".repeat(101);
            assert_eq!(
                fields(kind, &rules(1, &format!("{{action: Pass, name: {name}}}"))),
                ["spec.egress[0].name"]
            );
        }
        let port = "destinationNamedPort: web";
        for (peer, fault) in
            [("networks: [10.0.0.0/8]", true), ("nodes: {}", true), ("namespaces: {}", false)]
        {
            let spec = format!("{{egress: [{{action: Deny, to: [{{{peer}}}], protocols: [{{{port}}}]}}]}}");
            let at = "spec.egress[0].protocols[0].destinationNamedPort".to_owned();
            assert_eq!(
                fields(Kind::ClusterNetworkPolicy, &spec),
                Vec::from_iter(fault.then_some(at)),
                "{peer}"
            );
        }
        for (start, end, fault) in [(1, 2, false), (2, 2, true), (3, 2, true)] {
            let range = format!("{{destinationPort: {{range: {{start: {start}, end: {end}}}}}}}");
            let spec = format!(
                "{{ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], protocols: [{{udp: {range}}}]}}]}}"
            );
            let at = "spec.ingress[0].protocols[0].udp.destinationPort.range".to_owned();
            assert_eq!(
                fields(Kind::ClusterNetworkPolicy, &spec),
                Vec::from_iter(fault.then_some(at)),
                "{spec}"
            );
        }
        let nodes = "{egress: [{action: Deny, to: [{nodes: {matchLabels: {a: 'b c'}}}]}]}";
        assert_eq!(
            fields(Kind::ClusterNetworkPolicy, nodes),
            ["spec.egress[0].to[0].nodes.matchLabels[\"a\"]"]
        );
        let network = "{egress: [{action: Deny, to: [{networks: [10.0.0.0]}]}]}";
        assert_eq!(fields(Kind::ClusterNetworkPolicy, network), ["spec.egress[0].to[0].networks[0]"]);
        let subject = "{subject: {namespaces: {matchLabels: {a: 'b c'}}}}";
        assert_eq!(
            fields(Kind::ClusterNetworkPolicy, subject),
            ["spec.subject.namespaces.matchLabels[\"a\"]"]
        );
    }
}
