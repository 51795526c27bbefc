//! The world as objects, as users write them.

use super::selectors::{Sel, Spaces};
use super::world::{ACCOUNTS, Labels, NAMED, NAMESPACES, PROTOCOLS, Port, Rule, Side, TIERS, World};
use serde_json::{Map, Value, json};

pub(super) fn addresses(endpoint: usize) -> [String; 2] {
    [format!("10.0.0.{}", endpoint + 1), format!("fd00::{}", endpoint + 1)]
}

pub(super) fn object(labels: &Labels) -> Value {
    labels.iter().map(|(label, value)| (label.clone(), json!(value))).collect::<Map<_, _>>().into()
}

pub(super) fn prefixed(prefix: &str, labels: &Labels) -> Value {
    object(&labels.iter().map(|(label, value)| (format!("{prefix}{label}"), value.clone())).collect())
}

impl Side {
    fn object(&self) -> Value {
        let mut entity = Map::new();
        let mut put = |field: &str, value: Value| drop(entity.insert(field.to_owned(), value));
        if self.service {
            put("services", json!({"name": "back", "namespace": NAMESPACES[0]}));
            return entity.into();
        }
        let ports = |ports: &[Port]| -> Value {
            let port = |port: &Port| match port {
                Port::Range(first, last) if first == last => json!(first),
                Port::Range(first, last) => json!(format!("{first}:{last}")),
                Port::Named(name) => json!(name),
            };
            ports.iter().map(port).collect()
        };
        for (field, nets) in [("nets", &self.nets), ("notNets", &self.not_nets)] {
            if !nets.is_empty() {
                put(field, json!(nets));
            }
        }
        for (field, of) in [("ports", &self.ports), ("notPorts", &self.not_ports)] {
            if !of.is_empty() {
                put(field, ports(of));
            }
        }
        let selectors = [
            ("selector", self.selector.as_ref().map(Sel::text)),
            ("notSelector", self.not_selector.as_ref().map(Sel::text)),
            ("namespaceSelector", self.spaces.as_ref().map(Spaces::text)),
        ];
        for (field, text) in selectors {
            if let Some(text) = text {
                put(field, json!(text));
            }
        }
        if let Some((names, sel)) = &self.accounts {
            let names: Vec<&str> = names.iter().map(|at| ACCOUNTS[*at]).collect();
            put(
                "serviceAccounts",
                json!({"names": names, "selector": sel.as_ref().map(Sel::text).unwrap_or_default()}),
            );
        }
        entity.into()
    }
}

pub(super) fn rules(rules: &[Rule]) -> Value {
    let icmp = |(kind, code): (u8, Option<u8>)| match code {
        Some(code) => json!({"type": kind, "code": code}),
        None => json!({"type": kind}),
    };
    let rule = |rule: &Rule| {
        let mut object = Map::from_iter([("action".to_owned(), json!(rule.action))]);
        let mut put = |field: &str, value: Value| drop(object.insert(field.to_owned(), value));
        rule.version.into_iter().for_each(|version| put("ipVersion", json!(version)));
        rule.protocol.into_iter().for_each(|at| put("protocol", json!(PROTOCOLS[at].0)));
        rule.not_protocol.into_iter().for_each(|at| put("notProtocol", json!(PROTOCOLS[at].0)));
        rule.icmp.into_iter().for_each(|of| put("icmp", icmp(of)));
        rule.not_icmp.into_iter().for_each(|of| put("notICMP", icmp(of)));
        put("source", rule.source.object());
        put("destination", rule.destination.object());
        Value::from(object)
    };
    rules.iter().map(rule).collect()
}

impl World {
    pub fn objects(&self) -> Vec<Value> {
        let v3 = |kind: &str, metadata: Value, spec: Value| json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec});
        let mut objects = vec![];
        for (space, name) in NAMESPACES.iter().enumerate() {
            let labels = prefixed("pcns.", &self.spaces[space]);
            objects.push(v3(
                "Profile",
                json!({"name": format!("kns.{name}")}),
                json!({"labelsToApply": labels}),
            ));
            for (at, account) in ACCOUNTS.iter().enumerate() {
                let labels = prefixed("pcsa.", &self.accounts[at]);
                let name = format!("ksa.{name}.{account}");
                objects.push(v3("Profile", json!({"name": name}), json!({"labelsToApply": labels})));
            }
        }
        for (at, [ingress, egress]) in self.profiles.iter().enumerate() {
            let spec = json!({"ingress": rules(ingress), "egress": rules(egress)});
            objects.push(v3("Profile", json!({"name": format!("profile{at}")}), spec));
        }
        for (name, order, pass) in TIERS.iter().filter(|(name, _, _)| *name != "default") {
            let mut spec = json!({"defaultAction": if *pass { "Pass" } else { "Deny" }});
            if let Some(order) = order {
                spec["order"] = json!(order);
            }
            objects.push(v3("Tier", json!({"name": name}), spec));
        }
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let space = NAMESPACES[endpoint.space];
            let port = |at: &usize| {
                let (name, protocol, port) = NAMED[*at];
                json!({"name": name, "protocol": protocol, "port": port})
            };
            // Those of the namespace and the account say nothing of packets but to deny none.
            let mut profiles: Vec<String> =
                endpoint.profiles.iter().map(|at| format!("profile{at}")).collect();
            profiles.push(format!("kns.{space}"));
            profiles.extend(endpoint.account.map(|account| format!("ksa.{space}.{}", ACCOUNTS[account])));
            let [v4, v6] = addresses(at);
            let spec = json!({
                "orchestrator": "k8s", "node": format!("n{}", at % 2), "pod": format!("w{at}"), "endpoint": "eth0",
                "interfaceName": format!("cali{at}"), "serviceAccountName": endpoint.account.map_or("", |at| ACCOUNTS[at]),
                "ipNetworks": [format!("{v4}/32"), format!("{v6}/128")], "profiles": profiles,
                "ports": endpoint.ports.iter().map(port).collect::<Value>(),
            });
            let name = format!("n{}-k8s-w{at}-eth0", at % 2);
            objects.push(v3(
                "WorkloadEndpoint",
                json!({"name": name, "namespace": space, "labels": object(&endpoint.labels)}),
                spec,
            ));
        }
        for (at, set) in self.sets.iter().enumerate() {
            let mut metadata = json!({"name": format!("set{at}"), "labels": object(&set.labels)});
            if let Some(space) = set.space {
                metadata["namespace"] = json!(NAMESPACES[space]);
            }
            let kind = if set.space.is_some() { "NetworkSet" } else { "GlobalNetworkSet" };
            objects.push(v3(kind, metadata, json!({"nets": set.nets})));
        }
        objects.extend(self.policies.iter().map(|policy| {
            let mut metadata = json!({"name": policy.name()});
            if policy.space.is_some() {
                metadata["namespace"] = json!(policy.namespace());
            }
            let mut spec = json!({
                "tier": TIERS[policy.tier].0, "ingress": rules(&policy.ingress), "egress": rules(&policy.egress),
                "selector": policy.selector.as_ref().map(Sel::text).unwrap_or_default(),
                "serviceAccountSelector": policy.accounts.as_ref().map(Sel::text).unwrap_or_default(),
            });
            if let Some(spaces) = &policy.spaces {
                spec["namespaceSelector"] = json!(spaces.text());
            }
            if let Some(order) = policy.order {
                spec["order"] = json!(order);
            }
            if let Some((ingress, egress)) = policy.types {
                let types = [("Ingress", ingress), ("Egress", egress)].into_iter().filter(|(_, has)| *has);
                spec["types"] = types.map(|(name, _)| json!(name)).collect();
            }
            v3(policy.kind(), metadata, spec)
        }));
        for (at, (endpoint, named)) in self.backends.iter().enumerate() {
            let [v4, v6] = addresses(endpoint.index(self.endpoints.len()));
            let (name, protocol, port) = NAMED[*named];
            for (family, address) in [("IPv4", v4), ("IPv6", v6)] {
                objects.push(json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
                    "metadata": {
                        "name": format!("back-{at}-{}", family.to_lowercase()), "namespace": NAMESPACES[0],
                        "labels": {"kubernetes.io/service-name": "back"},
                    },
                    "endpoints": [{"addresses": [address]}],
                    "ports": [{"name": name, "protocol": protocol, "port": port}],
                }));
            }
        }
        objects
    }
}
