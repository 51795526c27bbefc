//! Clusters and changes of them, by a seed.

use margay_agent::model::{Key, Kind, Resource};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Nodes of the cluster. Whether the store knows them is another question.
pub const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const SELECTORS: [&str; 14] = [
    "all()",
    "app == 'a'",
    "app == 'b'",
    "app in {'a', 'c'}",
    "has(role)",
    "!has(app)",
    "app != 'a'",
    "app starts with 'a' || role == 'x'",
    "team == 'red'",
    "app == 'b' && role == 'y'",
    "projectcalico.org/namespace == 'ns1'",
    "role == 'x'",
    "pcns.env == 'test'",
    "global-set == 'yes'",
];

/// What changes next.
pub enum Step {
    Put(Key, String),
    Delete(Key),
}

/// Numbers that look like chance, the same for the same seed (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len() as u64) as usize]
    }

    fn often(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn step(&mut self, there: &BTreeMap<Key, String>) -> Step {
        if self.often(25) && !there.is_empty() {
            let at = self.below(there.len() as u64) as usize;
            let key = there.keys().nth(at).expect("it is below the length");
            return Step::Delete(key.clone());
        }
        let object = self.object();
        let resource =
            Resource::from_json(&object.to_string()).unwrap_or_else(|errors| panic!("{object}: {errors:?}"));
        Step::Put(resource.key(), resource.to_json())
    }

    fn object(&mut self) -> Value {
        match self.below(30) {
            0..=7 => self.workload(),
            8 => self.host(),
            9..=10 => self.set(),
            11..=15 => self.policy(),
            16 => self.staged(),
            17..=18 => self.profile(),
            19..=20 => self.node(),
            21..=22 => self.block(),
            23 => self.pool(),
            24..=25 => self.pod(),
            26 => self.namespace(),
            27 => self.kubernetes_policy(),
            28 => self.felix(),
            _ => self.bgp(),
        }
    }

    fn labels(&mut self) -> Value {
        let mut labels = serde_json::Map::new();
        for (name, values) in [("app", ["a", "b", "c"]), ("role", ["x", "y", "x"])] {
            if self.often(60) {
                labels.insert(name.into(), self.of(&values).into());
            }
        }
        Value::Object(labels)
    }

    fn address(&mut self) -> String {
        match self.below(8) {
            // Of no pool.
            0 => format!("172.20.0.{}/32", self.below(6)),
            _ => format!("10.65.{}.{}/32", self.below(3), self.below(10)),
        }
    }

    fn namespace_name(&mut self) -> &'static str {
        self.of(&["ns0", "ns1"])
    }

    fn profiles(&mut self) -> Vec<String> {
        let mut profiles = Vec::new();
        for name in ["kns.ns0", "kns.ns1", "p0", "p1"] {
            if self.often(30) {
                profiles.push(name.to_owned());
            }
        }
        profiles
    }

    fn workload(&mut self) -> Value {
        let (node, namespace, number) = (self.of(&NODES), self.namespace_name(), self.below(12));
        let follows = self.often(30);
        let annotations =
            if follows { json!({"margay.io/attachment": format!("net/c{number}/eth0")}) } else { json!({}) };
        let name = format!("w{number}");
        json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
               "metadata": {"name": format!("{node}-k8s-{name}-eth0"), "namespace": namespace,
                            "labels": self.labels(), "annotations": annotations},
               "spec": {"node": node, "orchestrator": "k8s", "pod": name, "endpoint": "eth0",
                        "interfaceName": format!("cali{node}{number}"), "profiles": self.profiles(),
                        "ports": [{"name": self.of(&["http", "dns"]), "protocol": "TCP", "port": 80 + self.below(3)}],
                        "ipNetworks": [self.address()]}})
    }

    fn host(&mut self) -> Value {
        let (node, number) = (self.of(&NODES), self.below(3));
        json!({"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
               "metadata": {"name": format!("{node}-{number}"), "labels": self.labels()},
               "spec": {"node": node, "interfaceName": format!("eth{number}"), "profiles": self.profiles(),
                        "expectedIPs": [format!("192.168.0.{}", self.below(9))]}})
    }

    fn set(&mut self) -> Value {
        let (nets, name) = ([format!("203.0.113.{}/32", self.below(9))], format!("s{}", self.below(3)));
        match self.often(50) {
            true => json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkSet",
                           "metadata": {"name": name, "namespace": self.namespace_name(), "labels": self.labels()},
                           "spec": {"nets": nets}}),
            false => json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
                            "metadata": {"name": name, "labels": {"global-set": self.of(&["yes", "no"])}},
                            "spec": {"nets": nets}}),
        }
    }

    fn rules(&mut self) -> Value {
        let rules = (0..=self.below(2)).map(|_| {
            let mut source = json!({});
            if self.often(70) {
                source["selector"] = self.of(&SELECTORS).into();
            }
            if self.often(20) {
                source["notSelector"] = self.of(&SELECTORS).into();
            }
            if self.often(20) {
                source["namespaceSelector"] = self.of(&["all()", "global()", "env == 'test'"]).into();
            }
            let mut destination = json!({});
            if self.often(30) {
                destination["ports"] = json!([self.of(&["http", "dns"])]);
            }
            if self.often(15) {
                destination["selector"] = self.of(&SELECTORS).into();
            }
            json!({"action": "Allow", "protocol": "TCP", "source": source, "destination": destination})
        });
        rules.collect()
    }

    fn policy(&mut self) -> Value {
        let name = format!("p{}", self.below(8));
        let spec = json!({"selector": self.of(&SELECTORS), "order": self.below(4), "types": ["Ingress", "Egress"],
                          "ingress": self.rules(), "egress": self.rules()});
        match self.often(60) {
            true => json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
                           "metadata": {"name": name, "namespace": self.namespace_name()}, "spec": spec}),
            false => json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
                            "metadata": {"name": name}, "spec": spec}),
        }
    }

    fn staged(&mut self) -> Value {
        let (name, action) = (format!("p{}", self.below(8)), self.of(&["Set", "Delete", "Ignore"]));
        let mut spec = json!({"stagedAction": action});
        if action != "Delete" {
            spec["selector"] = self.of(&SELECTORS).into();
            spec["ingress"] = self.rules();
        }
        json!({"apiVersion": "projectcalico.org/v3", "kind": "StagedNetworkPolicy",
               "metadata": {"name": name, "namespace": self.namespace_name()}, "spec": spec})
    }

    fn profile(&mut self) -> Value {
        let name = format!("p{}", self.below(2));
        json!({"apiVersion": "projectcalico.org/v3", "kind": "Profile", "metadata": {"name": name},
               "spec": {"labelsToApply": {"team": self.of(&["red", "blue"])}, "ingress": self.rules()}})
    }

    fn node(&mut self) -> Value {
        let (node, number) = (self.of(&NODES), self.below(4));
        let mut spec = json!({});
        if self.often(85) {
            spec["bgp"] = json!({"ipv4Address": format!("192.168.{}.{}/24", self.below(2), number + 1)});
        }
        if self.often(20) {
            spec["ipv4VXLANTunnelAddr"] = format!("10.65.{}.{}", self.below(3), self.below(10)).into();
        }
        json!({"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": node}, "spec": spec})
    }

    fn block(&mut self) -> Value {
        let number = self.below(3);
        let affinity = match self.below(5) {
            0 => Value::Null,
            _ => format!("host:{}", self.of(&NODES)).into(),
        };
        let user = self.of(&NODES);
        json!({"apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock", "metadata": {"name": format!("10-65-{number}-0-28")},
               "spec": {"cidr": format!("10.65.{number}.0/28"), "affinity": affinity,
                        "allocations": [0], "unallocated": [],
                        "attributes": [{"handle_id": "h", "secondary": {"node": user}}]}})
    }

    fn pool(&mut self) -> Value {
        let mut spec =
            json!({"cidr": self.of(&["10.65.0.0/16", "10.65.0.0/16", "10.65.1.0/29", "10.65.0.0/22"])});
        match self.below(3) {
            0 => spec["vxlanMode"] = self.of(&["Always", "CrossSubnet"]).into(),
            1 => spec["ipipMode"] = self.of(&["Always", "CrossSubnet"]).into(),
            _ => {}
        }
        json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
               "metadata": {"name": format!("pool{}", self.below(2))}, "spec": spec})
    }

    fn pod(&mut self) -> Value {
        let (name, namespace) = (format!("w{}", self.below(12)), self.namespace_name());
        let ip = self.address();
        let ip = ip.trim_end_matches("/32");
        let status = match self.often(70) {
            true => json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}),
            false => json!({"phase": "Pending"}),
        };
        json!({"apiVersion": "v1", "kind": "Pod",
               "metadata": {"name": name, "namespace": namespace, "labels": self.labels()},
               "spec": {"nodeName": self.of(&NODES),
                        "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]},
               "status": status})
    }

    fn namespace(&mut self) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace",
               "metadata": {"name": self.namespace_name(), "labels": {"env": self.of(&["test", "live"])}}})
    }

    fn kubernetes_policy(&mut self) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
               "metadata": {"name": format!("k{}", self.below(3)), "namespace": self.namespace_name()},
               "spec": {"podSelector": {"matchLabels": {"app": self.of(&["a", "b"])}}, "policyTypes": ["Ingress"],
                        "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": self.of(&["x", "y"])}}}]}]}})
    }

    fn felix(&mut self) -> Value {
        let name = self.of(&["default", "node.n0", "node.n1"]);
        let mut spec = json!({"failsafeInboundHostPorts": []});
        if self.often(40) {
            spec["vxlanEnabled"] = self.often(50).into();
        }
        json!({"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": {"name": name}, "spec": spec})
    }

    fn bgp(&mut self) -> Value {
        let mut spec = json!({"serviceClusterIPs": [{"cidr": self.of(&["10.96.0.0/16", "10.65.0.0/29"])}]});
        if self.often(30) {
            spec["programClusterRoutes"] = "EnabledNoEncapOnly".into();
        }
        json!({"apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration", "metadata": {"name": "default"}, "spec": spec})
    }
}

/// Which everybody is told of, and nothing is calculated from.
pub fn reservation(step: usize) -> String {
    let object = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPReservation", "metadata": {"name": "barrier"},
                        "spec": {"reservedCIDRs": [format!("198.18.{}.{}/32", step / 250, step % 250)]}});
    let resource = Resource::from_json(&object.to_string()).expect("it is one");
    assert_eq!(resource.key().kind, Kind::IPReservation);
    resource.to_json()
}
