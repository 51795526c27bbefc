//! Policy of administrators, case by case: what `policy.networking.k8s.io` says of each field.

use std::net::IpAddr;

use margay_agent::model::load;
use serde_json::json;

use super::{Answer, Cluster, open_hosts};

/// Two nodes, two namespaces, pods of both IP versions, and one in its host's network.
const CLUSTER: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: one, labels: {kubernetes.io/os: linux, role: worker}, annotations: {projectcalico.org/IPv4Address: 172.18.1.2/24}}
spec: {podCIDR: 10.244.1.0/24, taints: [{key: a, effect: NoSchedule}]}
status: {addresses: [{type: InternalIP, address: 172.18.0.2}, {type: InternalIP, address: "fc00::2"}, {type: Hostname, address: one}], capacity: {cpu: "2"}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: two, labels: {kubernetes.io/os: linux, role: control}}
spec: {bgp: {ipv4Address: 172.18.0.3/16}, addresses: [{address: 203.0.113.3, type: ExternalIP}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: retail}}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: one, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}, {name: dns, containerPort: 53, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.244.1.1}, {ip: "fd00:1::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
spec: {nodeName: two, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}, {name: http-s, containerPort: 8080, protocol: SCTP}]}]}
status: {podIPs: [{ip: 10.244.2.1}, {ip: "fd00:2::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: vault, namespace: bank, labels: {app: vault}}
spec: {nodeName: two, containers: [{name: c, image: i, ports: [{name: http, containerPort: 9090}]}]}
status: {podIPs: [{ip: 10.244.2.2}, {ip: "fd00:2::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: bank, labels: {app: vault}}
spec: {nodeName: two, hostNetwork: true, containers: [{name: c, image: i}]}
status: {podIP: 172.18.0.3}
"#;

/// The cluster with these policies: `tier priority: spec`, with a `name: ` before it where two are alike.
fn cluster(policies: &[String]) -> Cluster {
    let text = [CLUSTER].into_iter().chain(policies.iter().map(String::as_str)).collect::<Vec<_>>();
    let mut objects = load(&text.join("\n---\n")).unwrap_or_else(|errors| panic!("{errors:?}"));
    for object in &objects {
        assert_eq!(object.clone().admit().err(), None, "{}", object.key());
    }
    open_hosts(&mut objects);
    let cluster = Cluster::new(objects).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(cluster.problems(), [""; 0]);
    cluster
}

fn policy(name: &str, tier: &str, priority: u16, subject: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, \
         spec: {{tier: {tier}, priority: {priority}, subject: {subject}, {rules}}}}}"
    )
}

/// For all pods of the namespace shop.
fn admin(rules: &str) -> String {
    policy("p", "Admin", 10, "{namespaces: {matchLabels: {team: retail}}}", rules)
}

fn ask(cluster: &Cluster, from: &str, to: &str, proto: &str, dport: u16) -> Answer {
    let mut packet = json!({"from": from, "to": to, "proto": proto});
    if !proto.starts_with("ICMP") {
        packet["dport"] = dport.into();
    }
    cluster.answer(packet.to_string().as_bytes()).unwrap_or_else(|error| panic!("{packet}: {error:?}"))
}

/// Asserts what becomes of each packet: `from to PROTO port: verdict`.
fn assert_all(policies: &[String], cases: &[&str]) {
    let cluster = cluster(policies);
    for case in cases {
        let (packet, wanted) = case.rsplit_once(": ").unwrap();
        let [from, to, proto, dport] = packet.split(' ').collect::<Vec<_>>()[..] else { panic!("{case}") };
        let answer = ask(&cluster, from, to, proto, dport.parse().unwrap());
        assert_eq!(answer.verdict, wanted, "{case}: {answer:?}, under {policies:?}");
    }
}

#[test]
fn nothing_is_denied_that_no_rule_denies() {
    let cases = ["shop/web bank/vault TCP 1: allow", "bank/vault shop/web UDP 1: allow"];
    assert_all(&[], &cases);
    assert_all(&[admin("ingress: []")], &cases);
    let other = admin("egress: [{action: Deny, to: [{pods: {podSelector: {matchLabels: {app: nobody}}}}]}]");
    assert_all(&[other], &cases);
}

#[test]
fn a_policy_is_of_the_directions_it_has_rules_for() {
    let deny = "[{action: Deny, PEER: [{namespaces: {}}]}]";
    assert_all(
        &[admin(&format!("ingress: {}", deny.replace("PEER", "from")))],
        &[
            "bank/vault shop/web TCP 1: deny",
            "shop/web bank/vault TCP 1: allow",
            "shop/api shop/web TCP 1: deny",
        ],
    );
    assert_all(
        &[admin(&format!("egress: {}", deny.replace("PEER", "to")))],
        &[
            "bank/vault shop/web TCP 1: allow",
            "shop/web bank/vault TCP 1: deny",
            "shop/web 192.0.2.1 TCP 1: allow",
        ],
    );
}

#[test]
fn the_first_match_decides_by_priority_and_then_by_place() {
    let rule = |action: &str| format!("ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]");
    let of = |name: &str, tier: &str, priority, action: &str| {
        policy(name, tier, priority, "{namespaces: {}}", &rule(action))
    };
    let deny = ["bank/vault shop/web TCP 80: deny"];
    let allow = ["bank/vault shop/web TCP 80: allow"];
    assert_all(&[of("a", "Admin", 20, "Accept"), of("b", "Admin", 3, "Deny")], &deny);
    assert_all(&[of("a", "Admin", 20, "Deny"), of("b", "Admin", 3, "Accept")], &allow);
    assert_all(&[of("a", "Admin", 1000, "Deny"), of("b", "Baseline", 0, "Accept")], &deny);
    // Pass skips what is left of the tier, whichever policy it is in.
    assert_all(&[of("a", "Admin", 0, "Pass"), of("b", "Admin", 1, "Deny")], &allow);
    assert_all(&[of("a", "Admin", 0, "Pass"), of("b", "Baseline", 1, "Deny")], &deny);
    assert_all(&[of("a", "Baseline", 0, "Pass"), of("b", "Baseline", 1, "Deny")], &allow);
    let both = admin(
        "ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, \
         {action: Deny, from: [{namespaces: {}}]}]",
    );
    assert_all(&[both], &["bank/vault shop/web TCP 80: allow", "bank/vault shop/web TCP 81: deny"]);
}

#[test]
fn namespaces_speak_between_admin_and_baseline() {
    let np =
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: np, namespace: shop}, \
              spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}}"
            .to_owned();
    let all = |name: &str, tier: &str, action: &str| {
        policy(
            name,
            tier,
            5,
            "{namespaces: {}}",
            &format!("ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]"),
        )
    };
    let cases = |web80, web81, api80| {
        [("shop/web TCP 80", web80), ("shop/web TCP 81", web81), ("shop/api TCP 80", api80)]
            .map(|(to, verdict)| format!("bank/vault {to}: {verdict}"))
    };
    for (policies, wanted) in [
        (vec![np.clone()], cases("allow", "deny", "allow")),
        (vec![np.clone(), all("a", "Admin", "Deny")], cases("deny", "deny", "deny")),
        (vec![np.clone(), all("a", "Admin", "Accept")], cases("allow", "allow", "allow")),
        (vec![np.clone(), all("a", "Admin", "Pass")], cases("allow", "deny", "allow")),
        // Whom a namespace's policy selects, the baseline has nothing to say of.
        (vec![np.clone(), all("b", "Baseline", "Deny")], cases("allow", "deny", "deny")),
        (vec![np, all("b", "Baseline", "Accept")], cases("allow", "deny", "allow")),
    ] {
        assert_all(&policies, &wanted.each_ref().map(String::as_str));
    }
}

#[test]
fn selectors_of_subjects_and_peers() {
    let deny = "ingress: [{action: Deny, from: [{namespaces: {}}]}]";
    for (subject, web, api, vault) in [
        ("{namespaces: {}}", "deny", "deny", "deny"),
        ("{namespaces: {matchLabels: {kubernetes.io/metadata.name: bank}}}", "allow", "allow", "deny"),
        ("{pods: {podSelector: {}}}", "deny", "deny", "deny"),
        ("{pods: {podSelector: {matchLabels: {app: web}}}}", "deny", "allow", "allow"),
        (
            "{pods: {namespaceSelector: {matchLabels: {team: retail}}, podSelector: {}}}",
            "deny",
            "deny",
            "allow",
        ),
        ("{namespaces: {matchExpressions: [{key: team, operator: Exists}]}}", "deny", "deny", "allow"),
        ("{namespaces: {matchExpressions: [{key: team, operator: DoesNotExist}]}}", "allow", "allow", "deny"),
        // A label that is not there is not in any list.
        (
            "{namespaces: {matchExpressions: [{key: team, operator: NotIn, values: [retail]}]}}",
            "allow",
            "allow",
            "deny",
        ),
        (
            "{namespaces: {matchExpressions: [{key: team, operator: In, values: [retail, x]}]}}",
            "deny",
            "deny",
            "allow",
        ),
        (
            "{pods: {namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [web, vault]}]}}}",
            "deny",
            "allow",
            "deny",
        ),
    ] {
        let cases =
            [("shop/api", "shop/web", web), ("shop/web", "shop/api", api), ("shop/web", "bank/vault", vault)]
                .map(|(from, to, verdict)| format!("{from} {to} TCP 7: {verdict}"));
        assert_all(&[policy("s", "Admin", 1, subject, deny)], &cases.each_ref().map(String::as_str));
        // The same as peers.
        let peer = subject.trim_matches(['{', '}'].as_slice());
        assert!(!peer.is_empty());
        let rules = format!("egress: [{{action: Deny, to: [{subject}]}}]");
        let swapped = policy("s", "Baseline", 1, "{namespaces: {}}", &rules);
        assert_all(&[swapped], &cases.each_ref().map(String::as_str));
    }
}

#[test]
fn pods_of_the_hosts_network_are_nobodys_subject_and_no_pods() {
    let labels = "{podSelector: {matchLabels: {app: vault}}}";
    let subject =
        policy("h", "Admin", 1, "{namespaces: {}}", "egress: [{action: Deny, to: [{namespaces: {}}]}]");
    assert_all(
        &[subject],
        &[
            "bank/agent shop/web TCP 80: allow",
            "bank/vault shop/web TCP 80: deny",
            "shop/web bank/agent TCP 80: allow",
        ],
    );
    let from = admin(&format!("ingress: [{{action: Deny, from: [{{pods: {labels}}}]}}]"));
    assert_all(&[from], &["bank/agent shop/web TCP 80: allow", "bank/vault shop/web TCP 80: deny"]);
}

#[test]
fn protocols_and_ports() {
    let only = |protocols: &str| {
        admin(&format!(
            "ingress: [{{action: Accept, from: [{{namespaces: {{}}}}], protocols: [{protocols}]}}, \
             {{action: Deny, from: [{{namespaces: {{}}}}]}}]"
        ))
    };
    for (protocols, allowed, denied) in [
        (
            "{tcp: {destinationPort: {number: 80}}}",
            vec!["TCP 80"],
            vec!["TCP 81", "UDP 80", "SCTP 80", "ICMP 0"],
        ),
        ("{udp: {destinationPort: {number: 53}}}", vec!["UDP 53"], vec!["TCP 53", "UDP 54"]),
        (
            "{sctp: {destinationPort: {range: {start: 10, end: 20}}}}",
            vec!["SCTP 10", "SCTP 20"],
            vec!["SCTP 9", "SCTP 21", "TCP 15"],
        ),
        (
            "{tcp: {destinationPort: {range: {start: 1, end: 65535}}}}, {udp: {destinationPort: {number: 5353}}}",
            vec!["TCP 1", "TCP 65535", "UDP 5353"],
            vec!["TCP 0", "UDP 5352", "ICMP 0"],
        ),
        ("{tcp: {}}", vec!["TCP 0", "TCP 9"], vec!["UDP 9", "ICMP 0"]),
    ] {
        let case = |verdict: &str, list: &[&str]| -> Vec<String> {
            list.iter().map(|what| format!("bank/vault shop/web {what}: {verdict}")).collect()
        };
        let cases = [case("allow", &allowed), case("deny", &denied)].concat();
        assert_all(&[only(protocols)], &cases.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // Without protocols, everything; so of networks too.
    let all = admin("egress: [{action: Deny, to: [{networks: [10.244.2.2/32]}]}]");
    assert_all(
        &[all],
        &[
            "shop/web bank/vault ICMP 0: deny",
            "shop/web bank/vault SCTP 1: deny",
            "shop/web bank/vault 47 0: deny",
        ],
    );
}

#[test]
fn the_name_of_a_port_is_each_pods_own() {
    let to = admin(
        "egress: [{action: Deny, to: [{namespaces: {}}], protocols: [{destinationNamedPort: http}, {destinationNamedPort: http-s}]}]",
    );
    assert_all(
        &[to],
        &[
            "shop/web shop/api TCP 8080: deny",
            "shop/web shop/api TCP 80: allow",
            "shop/web bank/vault TCP 9090: deny",
            "shop/web bank/vault TCP 8080: allow",
            "shop/web shop/api SCTP 8080: deny",
            "shop/web shop/api UDP 8080: allow",
            "bank/vault shop/api TCP 8080: allow",
        ],
    );
    let into = admin(
        "ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: dns}]}]",
    );
    assert_all(
        &[into],
        &[
            "bank/vault shop/web UDP 53: deny",
            "bank/vault shop/web TCP 53: allow",
            "bank/vault shop/api UDP 53: allow",
        ],
    );
}

#[test]
fn networks_are_of_both_versions_and_hold_pods() {
    let deny =
        admin("egress: [{action: Deny, to: [{networks: [10.244.2.0/24, 'fd00:2::/64', 192.0.2.0/24]}]}]");
    assert_all(
        &[deny],
        &[
            "shop/web shop/api TCP 1: deny",
            "fd00:1::1 fd00:2::1 TCP 1: deny",
            "fd00:1::1 2001:db8::1 TCP 1: allow",
            "shop/web 192.0.2.9 UDP 1: deny",
            "shop/web 192.0.3.9 UDP 1: allow",
        ],
    );
    let v4 = admin("egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]");
    assert_all(&[v4], &["shop/web bank/vault TCP 1: deny", "fd00:1::1 fd00:2::2 TCP 1: allow"]);
    let behind = admin(
        "egress: [{action: Pass, to: [{namespaces: {}}]}, {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}]",
    );
    assert_all(
        &[behind],
        &[
            "shop/web bank/vault TCP 1: allow",
            "shop/web 192.0.2.9 TCP 1: deny",
            "fd00:1::1 2001:db8::1 TCP 1: deny",
        ],
    );
}

#[test]
fn nodes_are_their_addresses_by_their_labels() {
    let to = |nodes: &str| admin(&format!("egress: [{{action: Deny, to: [{{nodes: {nodes}}}]}}]"));
    let (one, one_v6, noted) = ("172.18.0.2", "fc00::2", "172.18.1.2");
    let (two, outer) = ("172.18.0.3", "203.0.113.3");
    for (nodes, denied, allowed) in [
        ("{}", vec![one, one_v6, noted, two, outer], vec!["10.244.2.1", "192.0.2.1", "10.244.1.0"]),
        ("{matchLabels: {role: control}}", vec![two, outer], vec![one, one_v6, noted]),
        ("{matchLabels: {kubernetes.io/os: linux}}", vec![one, two], vec!["10.244.2.2"]),
        (
            "{matchExpressions: [{key: role, operator: NotIn, values: [control]}]}",
            vec![one, noted],
            vec![two],
        ),
        ("{matchExpressions: [{key: gpu, operator: Exists}]}", vec![], vec![one, two]),
    ] {
        let case = |address: &&str, verdict: &str| {
            let from = if address.parse::<IpAddr>().unwrap().is_ipv4() { "shop/web" } else { "fd00:1::1" };
            format!("{from} {address} TCP 22: {verdict}")
        };
        let denied = denied.iter().map(|address| case(address, "deny"));
        let cases: Vec<String> = denied.chain(allowed.iter().map(|address| case(address, "allow"))).collect();
        assert_all(&[to(nodes)], &cases.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // A pod in its host's network is at that address.
    assert_all(
        &[to("{matchLabels: {role: control}}")],
        &[
            "shop/api bank/agent TCP 1: deny",
            "shop/web bank/agent TCP 1: deny",
            "bank/vault bank/agent TCP 1: allow",
        ],
    );
}

#[test]
fn nodes_beside_other_peers_and_ports() {
    let rules = "egress: [\
        {action: Accept, to: [{nodes: {}}], protocols: [{tcp: {destinationPort: {range: {start: 30000, end: 30001}}}}]}, \
        {action: Pass, to: [{nodes: {}}], protocols: [{udp: {destinationPort: {number: 30002}}}]}, \
        {action: Deny, to: [{pods: {podSelector: {matchLabels: {app: vault}}}}, {nodes: {}}, {networks: [0.0.0.0/0, '::/0']}]}]";
    let cases = [
        // Its own host, and the other one.
        "shop/api bank/agent TCP 30000: allow",
        "shop/web bank/agent TCP 30001: allow",
        "shop/api bank/agent TCP 30002: deny",
        "shop/web bank/agent UDP 30002: allow",
        "shop/web bank/agent SCTP 30002: deny",
        "shop/web bank/vault TCP 30000: deny",
        "shop/web 192.0.2.1 TCP 30000: deny",
        "fd00:1::1 fc00::2 TCP 30000: allow",
    ];
    assert_all(&[admin(rules)], &cases);
    let baseline = policy("b", "Baseline", 10, "{pods: {podSelector: {matchLabels: {app: api}}}}", rules);
    assert_all(&[baseline], &["shop/api bank/agent TCP 30000: allow", "shop/api bank/agent TCP 1: deny"]);
}

#[test]
fn the_older_kinds_say_the_same() {
    let anp = "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: a}, \
               spec: {priority: 3, subject: {namespaces: {matchLabels: {team: retail}}}, egress: [\
               {action: Allow, to: [{nodes: {matchLabels: {role: control}}}], ports: [{portNumber: {port: 6443}}]}, \
               {action: Pass, to: [{namespaces: {}}], ports: [{portRange: {protocol: SCTP, start: 5, end: 9}}, {namedPort: http}]}, \
               {action: Deny, to: [{nodes: {}}, {networks: [192.0.2.0/24]}, {namespaces: {}}]}]}}";
    let banp = "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy, metadata: {name: default}, \
                spec: {subject: {namespaces: {}}, ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, \
                podSelector: {matchLabels: {app: web}}}}], ports: [{portNumber: {protocol: SCTP, port: 7}}]}]}}";
    assert_all(
        &[anp.to_owned(), banp.to_owned()],
        &[
            "shop/web 172.18.0.3 TCP 6443: allow",
            "shop/web 172.18.0.3 TCP 6444: deny",
            "shop/web 172.18.0.2 TCP 6443: deny",
            "shop/web 192.0.2.7 TCP 1: deny",
            "shop/web 198.51.100.7 TCP 1: allow",
            "shop/web bank/vault TCP 9090: allow",
            "shop/web bank/vault TCP 9091: deny",
            "shop/web bank/vault SCTP 5: allow",
            "shop/web bank/vault SCTP 7: deny",
            "shop/api bank/vault SCTP 7: allow",
        ],
    );
}

#[test]
fn a_node_in_a_rule_needs_nodes() {
    let rules = "egress: [{action: Deny, to: [{nodes: {}}]}]";
    let text = policy("p", "Admin", 1, "{namespaces: {}}", rules);
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {nodeName: n}, status: {podIP: 10.0.0.1}}";
    let objects = load(&format!("{text}\n---\n{pod}")).unwrap();
    let cluster = Cluster::new(objects).unwrap();
    assert_eq!(
        cluster.problems(),
        ["kcnp.admin.p names nodes, and no Node is known: nothing is taken for one"]
    );
}
