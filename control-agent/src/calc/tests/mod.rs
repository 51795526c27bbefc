//! Literal manifests in, checked messages out.

mod blocks;
mod graph;
mod hosts;
mod kubernetes;
mod services;
mod staged;
mod tunnels;
mod wireguard;

use super::*;
use crate::model::{Cidr, Resource, load};
use margay_api::dataplane::v1::{Action, Policy, Rule, TierBinding, ip_set::Type, route::Target};
use proptest::prelude::*;

/// Two nodes. Node a runs web and db of namespace shop, node b runs a client of namespace test.
const CLUSTER: &str = r#"
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: a, labels: {rack: "1"}}
spec: {bgp: {ipv4Address: 192.168.0.1/24, ipv6Address: "fd00::1/64"}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: b}
spec: {bgp: {ipv4Address: 192.168.0.2/24}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.0.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.shop}
spec:
  ingress: [{action: Allow}]
  egress: [{action: Allow}]
  labelsToApply: {pcns.team: retail, pcns.app: from-namespace}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.test}
spec:
  labelsToApply: {pcns.team: qa}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: a-k8s-web-eth0, namespace: shop, labels: {app: web}}
spec:
  node: a
  orchestrator: k8s
  pod: web
  endpoint: eth0
  interfaceName: cali1
  mac: "ee:ee:ee:ee:ee:01"
  serviceAccountName: shopper
  ipNetworks: [10.0.0.1/32, "fd10::1/128"]
  profiles: [kns.shop]
  ports: [{name: http, protocol: TCP, port: 8080}]
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: a-k8s-db-eth0, namespace: shop, labels: {app: db, pcns.app: own}}
spec:
  node: a
  orchestrator: k8s
  pod: db
  endpoint: eth0
  interfaceName: cali2
  ipNetworks: [10.0.0.2/32]
  profiles: [kns.shop]
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: b-k8s-client-eth0, namespace: test, labels: {app: client}}
spec:
  node: b
  orchestrator: k8s
  pod: client
  endpoint: eth0
  interfaceName: cali3
  ipNetworks: [10.0.1.1/32]
  profiles: [kns.test]
  ports: [{name: http, protocol: TCP, port: 9090}, {name: http, protocol: UDP, port: 99}]
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: partners, namespace: shop, labels: {role: partner}}
spec: {nets: [203.0.113.0/24, 10.0.1.1/32]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: office, labels: {role: office}}
spec: {nets: [198.51.100.0/24]}
"#;

fn resources(manifests: &[&str]) -> Vec<Resource> {
    let load = |manifest: &&str| load(manifest).unwrap_or_else(|errors| panic!("{errors:?}"));
    let admit = |resource: Resource| match resource {
        // Only agents write it.
        Resource::IPAMBlock(_) => resource,
        _ => resource.admit().unwrap_or_else(|errors| panic!("{errors:?}")),
    };
    manifests.iter().flat_map(load).map(admit).collect()
}

fn on(node: &str, manifests: &[&str]) -> Desired {
    let all: Vec<&str> = [CLUSTER].into_iter().chain(manifests.iter().copied()).collect();
    desired(&resources(&all).into_iter().collect(), node)
}

fn policy(kind: &str, name: &str, spec: &str) -> String {
    let namespace = if kind == "NetworkPolicy" { ", namespace: shop" } else { "" };
    format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn endpoint<'a>(desired: &'a Desired, workload: &str) -> &'a margay_api::dataplane::v1::WorkloadEndpoint {
    desired
        .endpoints
        .values()
        .find(|endpoint| endpoint.display_name == workload)
        .expect("the endpoint is local")
}

/// Tier by tier: name, ingress policies, egress policies.
fn tiers(desired: &Desired, workload: &str) -> Vec<(String, Vec<String>, Vec<String>)> {
    let names = |ids: &[margay_api::dataplane::v1::PolicyId]| ids.iter().map(|id| id.name.clone()).collect();
    let binding =
        |tier: &TierBinding| (tier.name.clone(), names(&tier.ingress_policies), names(&tier.egress_policies));
    endpoint(desired, workload).tiers.iter().map(binding).collect()
}

fn named<'a>(desired: &'a Desired, name: &str) -> &'a Policy {
    let found = desired.policies.iter().find(|(key, _)| key.name == name);
    found.unwrap_or_else(|| panic!("policy {name} is not active")).1
}

fn only_inbound<'a>(desired: &'a Desired, name: &str) -> &'a Rule {
    let [rule] = named(desired, name).inbound_rules.as_slice() else { panic!("one inbound rule") };
    rule
}

/// "10.0.0.1/32", or "10.0.0.1:6:80" for sets with ports.
fn members(set: &IpSet) -> Vec<String> {
    let set = set.message("");
    let members = set.members.clone().unwrap_or_default();
    let text = |record: &[u8], size: usize| {
        let address: std::net::IpAddr = match size {
            4 => <[u8; 4]>::try_from(&record[..4]).unwrap().into(),
            _ => <[u8; 16]>::try_from(&record[..16]).unwrap().into(),
        };
        match &record[size..] {
            [length] => format!("{address}/{length}"),
            [protocol, high, low] => format!("{address}:{protocol}:{}", u16::from_be_bytes([*high, *low])),
            other => panic!("{other:?}"),
        }
    };
    let rest = match set.r#type() {
        Type::Net => 1,
        Type::IpAndPort => 3,
        other => panic!("{other:?} is not used"),
    };
    let v4 = members.ipv4.chunks(4 + rest).map(|record| text(record, 4));
    v4.chain(members.ipv6.chunks(16 + rest).map(|record| text(record, 16))).collect()
}

/// The members of the one set with which an inbound rule's source is matched.
fn sources(selectors: &str) -> Vec<String> {
    let rule = format!("ingress: [{{action: Allow, source: {{{selectors}}}}}]");
    let desired = on("a", &[&policy("NetworkPolicy", "p", &rule)]);
    let [id] = only_inbound(&desired, "p").src_ip_set_ids.as_slice() else { panic!("one set") };
    members(&desired.ip_sets[id])
}

#[test]
fn an_endpoint_is_sent_to_its_own_node_only() {
    let a = on("a", &[]);
    assert_eq!(a.endpoints.len(), 2);
    let web = endpoint(&a, "shop/web");
    assert_eq!(web.interface_name, "cali1");
    assert_eq!(web.mac, [0xee, 0xee, 0xee, 0xee, 0xee, 1]);
    assert_eq!(web.nets, [packed(cidr("10.0.0.1/32")), packed(cidr("fd10::1/128"))]);
    assert_eq!(web.profile_ids, ["kns.shop"]);
    assert!(web.active && web.tiers.is_empty());
    let id = web.id.clone().unwrap();
    assert_eq!(
        (id.orchestrator.as_str(), id.workload.as_str(), id.endpoint.as_str()),
        ("k8s", "shop/web", "eth0")
    );
    assert_eq!(a.profiles.keys().collect::<Vec<_>>(), ["kns.shop"], "and profiles are, too");
    assert_eq!(on("b", &[]).profiles.keys().collect::<Vec<_>>(), ["kns.test"]);
    let stranger = on("c", &[]);
    assert!(stranger.endpoints.is_empty() && stranger.profiles.is_empty() && stranger.ip_sets.is_empty());
    assert_eq!(a.problems, Vec::<String>::new());
}

#[test]
fn routes_lead_to_workloads_nodes_and_nowhere() {
    let a = on("a", &[]);
    let target = |destination: &str| a.routes[&cidr(destination)].target.clone().unwrap();
    let Target::Workload(web) = target("10.0.0.1/32") else { panic!("local") };
    assert_eq!(web.workload, "shop/web");
    assert!(matches!(target("fd10::1/128"), Target::Workload(_)));
    let Target::NextHop(hop) = target("10.0.1.1/32") else { panic!("remote") };
    assert_eq!(hop.gateway, [192, 168, 0, 2]);
    let remote = &a.routes[&cidr("10.0.1.1/32")];
    assert_eq!((remote.node.as_str(), remote.same_subnet), ("b", true));
    assert!(matches!(target("10.0.0.0/16"), Target::Blackhole(_)), "unknown pod addresses do not loop");
    assert!(matches!(target("192.168.0.1/32"), Target::LocalHost(_)));
    assert!(matches!(target("fd00::1/128"), Target::LocalHost(_)));
    assert!(
        !a.routes.contains_key(&cidr("192.168.0.2/32")),
        "the uplink's own subnet is the kernel's to know"
    );
    assert_eq!(a.hosts["a"].ipv4.clone().unwrap().address, [192, 168, 0, 1]);
    assert_eq!(a.hosts["a"].ipv4.clone().unwrap().length, 24);
    assert_eq!(a.hosts["a"].labels["rack"], "1");
    assert_eq!(a.hosts.len(), 2);
    assert_eq!(a.pools.len(), 1);
    assert_eq!(a.config.endpoint_to_host_action(), Action::Deny);
}

#[test]
fn a_workload_of_an_unknown_node_is_unreachable_and_said_to_be() {
    // Node b has no IPv6 address either.
    let b = on(
        "b",
        &[
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: c-k8s-x-eth0, namespace: shop}\n\
         spec: {node: c, orchestrator: k8s, pod: x, endpoint: eth0, interfaceName: cali9, ipNetworks: [10.0.9.9/32]}",
        ],
    );
    assert!(matches!(b.routes[&cidr("10.0.9.9/32")].target, Some(Target::Blackhole(_))));
    assert_eq!(b.problems.len(), 1);
    assert!(b.problems[0].contains("node \"c\" is not known"), "{:?}", b.problems);
    assert!(matches!(b.routes[&cidr("fd10::1/128")].target, Some(Target::NextHop(_))));
}

#[test]
fn two_workloads_cannot_have_one_address() {
    let desired = on(
        "a",
        &[
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: b-k8s-thief-eth0, namespace: aaa}\n\
         spec: {node: b, orchestrator: k8s, pod: thief, endpoint: eth0, interfaceName: cali9, ipNetworks: [10.0.0.1/32]}",
        ],
    );
    assert!(
        matches!(desired.routes[&cidr("10.0.0.1/32")].target, Some(Target::Workload(_))),
        "ours keeps it"
    );
    assert!(desired.problems[0].contains("10.0.0.1/32 of aaa/thief"), "{:?}", desired.problems);
}

#[test]
fn policies_are_bound_by_tier_order_and_direction() {
    let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: security}\nspec: {order: 10, defaultAction: Pass}\n";
    let desired = on(
        "a",
        &[
            tier,
            &policy("NetworkPolicy", "last", "selector: app == 'web', ingress: [{action: Deny}]"),
            &policy("NetworkPolicy", "b-tie", "selector: app == 'web', order: 5, ingress: [{action: Deny}]"),
            &policy(
                "GlobalNetworkPolicy",
                "a-tie",
                "selector: app == 'web', order: 5, egress: [{action: Deny}]",
            ),
            &policy(
                "NetworkPolicy",
                "first",
                "order: -1.5, ingress: [{action: Deny}], egress: [{action: Deny}]",
            ),
            &policy("GlobalNetworkPolicy", "guard", "tier: security, types: [Egress], selector: has(app)"),
            &policy(
                "GlobalNetworkPolicy",
                "cna",
                "tier: kube-admin, selector: app == 'db', types: [Ingress]",
            ),
        ],
    );
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        tiers(&desired, "shop/web"),
        [
            ("security".into(), vec![], names(&["guard"])),
            ("default".into(), names(&["first", "b-tie", "last"]), names(&["first", "a-tie"])),
        ]
    );
    assert_eq!(
        tiers(&desired, "shop/db"),
        [
            ("security".into(), vec![], names(&["guard"])),
            ("kube-admin".into(), names(&["cna"]), vec![]),
            ("default".into(), names(&["first"]), names(&["first"])),
        ]
    );
    let actions: Vec<_> =
        endpoint(&desired, "shop/db").tiers.iter().map(TierBinding::default_action).collect();
    assert_eq!(actions, [Action::Pass, Action::Pass, Action::Deny]);
    assert!(named(&desired, "a-tie").inbound_rules.is_empty());
    assert_eq!(named(&desired, "first").tier, "default");
}

#[test]
fn ties_are_broken_as_calico_breaks_them() {
    // '-' sorts before '/', so "a-b/shop/..." comes before "a/shop/...".
    let desired = on(
        "a",
        &[
            &policy("NetworkPolicy", "a", "ingress: [{action: Deny}]"),
            &policy("NetworkPolicy", "a-b", "ingress: [{action: Deny}]"),
        ],
    );
    assert_eq!(tiers(&desired, "shop/web")[0].1, ["a-b", "a"]);
}

#[test]
fn what_selects_nobody_here_is_not_sent() {
    let spec = "selector: app == 'client', ingress: [{action: Allow, source: {selector: has(app)}}]";
    let manifest = policy("GlobalNetworkPolicy", "elsewhere", spec);
    let a = on("a", &[&manifest]);
    assert!(a.policies.is_empty() && a.ip_sets.is_empty() && tiers(&a, "shop/web").is_empty());
    let b = on("b", &[&manifest]);
    assert_eq!((b.policies.len(), b.ip_sets.len()), (1, 1));
}

#[test]
fn a_network_policy_selects_in_its_own_namespace_only() {
    let manifest = policy("NetworkPolicy", "p", "selector: all(), ingress: [{action: Deny}]");
    assert!(on("b", &[&manifest]).policies.is_empty());
    assert_eq!(on("a", &[&manifest]).policies.len(), 1);
    let global =
        policy("GlobalNetworkPolicy", "g", "namespaceSelector: team == 'qa', ingress: [{action: Deny}]");
    assert_eq!(on("b", &[&global]).policies.len(), 1);
    assert!(on("a", &[&global]).policies.is_empty());
    let account =
        policy("GlobalNetworkPolicy", "s", "serviceAccountSelector: all(), ingress: [{action: Deny}]");
    let a = on("a", &[&account]);
    assert_eq!(tiers(&a, "shop/web").len(), 1);
    assert_eq!(tiers(&a, "shop/db").len(), 0, "it runs under no account");
}

#[test]
fn a_selector_means_endpoints_and_network_sets() {
    assert_eq!(
        sources("selector: has(app)"),
        ["10.0.0.1/32", "10.0.0.2/32", "fd10::1/128"],
        "of the own namespace"
    );
    assert_eq!(sources("selector: role == 'partner'"), ["10.0.1.1/32", "203.0.113.0/24"]);
    assert_eq!(
        sources("namespaceSelector: all()"),
        ["10.0.0.1/32", "10.0.0.2/32", "10.0.1.1/32", "203.0.113.0/24", "fd10::1/128"],
        "everything with a namespace, each address once"
    );
    assert_eq!(sources("namespaceSelector: global()"), ["198.51.100.0/24"], "only what has none");
    assert_eq!(sources("namespaceSelector: team == 'qa'"), ["10.0.1.1/32"]);
    assert_eq!(
        sources("namespaceSelector: team == 'retail', selector: role == 'partner'"),
        ["10.0.1.1/32", "203.0.113.0/24"],
        "a network set has its namespace's labels"
    );
    assert_eq!(sources("serviceAccounts: {names: [shopper]}"), ["10.0.0.1/32", "fd10::1/128"]);
    assert_eq!(
        sources("selector: '!has(app)'"),
        ["10.0.1.1/32", "203.0.113.0/24"],
        "known members without the label, not the rest of the world"
    );
    assert_eq!(sources("selector: nobody == 'here'"), Vec::<String>::new(), "an empty set still restricts");
}

#[test]
fn an_endpoints_own_label_wins_over_an_inherited_one() {
    assert_eq!(sources("selector: pcns.app == 'own'"), ["10.0.0.2/32"]);
    assert_eq!(sources("selector: pcns.app == 'from-namespace' && has(app)"), ["10.0.0.1/32", "fd10::1/128"]);
    assert_eq!(
        sources("selector: projectcalico.org/serviceaccount == 'shopper'"),
        ["10.0.0.1/32", "fd10::1/128"]
    );
    assert_eq!(sources("selector: projectcalico.org/orchestrator == 'k8s' && app == 'db'"), ["10.0.0.2/32"]);
}

#[test]
fn a_lone_not_selector_keeps_a_namespaced_rule_at_home() {
    let rule = "ingress: [{action: Allow, source: {notSelector: app == 'web'}}]";
    let desired = on("a", &[&policy("NetworkPolicy", "p", rule)]);
    let rule = only_inbound(&desired, "p");
    assert_eq!(members(&desired.ip_sets[&rule.not_src_ip_set_ids[0]]), ["10.0.0.1/32", "fd10::1/128"]);
    assert_eq!(
        members(&desired.ip_sets[&rule.src_ip_set_ids[0]]),
        ["10.0.0.1/32", "10.0.0.2/32", "10.0.1.1/32", "203.0.113.0/24", "fd10::1/128"]
    );
    let global = on("a", &[&policy("GlobalNetworkPolicy", "g", &rule_text())]);
    assert!(
        only_inbound(&global, "g").src_ip_set_ids.is_empty(),
        "in a global policy it means the rest of the world"
    );
}

fn rule_text() -> String {
    "ingress: [{action: Allow, source: {notSelector: app == 'web'}}]".to_owned()
}

#[test]
fn named_ports_are_those_of_each_peer() {
    let rule = "egress: [{action: Allow, protocol: TCP, destination: {ports: [http, 443, '8000:8010']}}]";
    let desired = on("a", &[&policy("GlobalNetworkPolicy", "g", rule)]);
    let [rule] = named(&desired, "g").outbound_rules.as_slice() else { panic!("one rule") };
    let [id] = rule.dst_named_port_ip_set_ids.as_slice() else { panic!("one name") };
    assert_eq!(members(&desired.ip_sets[id]), ["10.0.0.1:6:8080", "10.0.1.1:6:9090", "fd10::1:6:8080"]);
    let ports: Vec<_> = rule.dst_ports.iter().map(|range| (range.first, range.last)).collect();
    assert_eq!(ports, [(443, 443), (8000, 8010)]);
    assert!(rule.dst_ip_set_ids.is_empty());

    let rule =
        "egress: [{action: Allow, protocol: UDP, destination: {selector: app == 'client', ports: [http]}}]";
    let desired = on("a", &[&policy("GlobalNetworkPolicy", "g", rule)]);
    let [rule] = named(&desired, "g").outbound_rules.as_slice() else { panic!("one rule") };
    assert_eq!(
        members(&desired.ip_sets[&rule.dst_named_port_ip_set_ids[0]]),
        ["10.0.1.1:17:99"],
        "by protocol"
    );
    assert_eq!(members(&desired.ip_sets[&rule.dst_ip_set_ids[0]]), ["10.0.1.1/32"]);
    assert_eq!(rule.protocol, Some(17));
}

#[test]
fn a_rule_keeps_all_its_fields() {
    let desired = on(
        "a",
        &[
            &policy(
                "NetworkPolicy",
                "icmp",
                "ingress: [{action: Log, ipVersion: 4, protocol: ICMP, icmp: {type: 8, code: 0}, \
             source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}, metadata: {annotations: {why: ping}}}]",
            ),
            &policy(
                "NetworkPolicy",
                "ports",
                "ingress: [{action: Pass, protocol: TCP, source: {ports: [1], notPorts: [2]}, destination: {notPorts: ['3:4'], nets: [10.9.0.0/16]}}]",
            ),
            &policy("NetworkPolicy", "not", "ingress: [{action: Deny, notProtocol: UDP}]"),
        ],
    );
    let icmp = only_inbound(&desired, "icmp");
    assert_eq!((icmp.action(), icmp.ip_version, icmp.protocol), (Action::Log, 4, Some(1)));
    let icmp_match = icmp.icmp.as_ref().unwrap();
    assert_eq!((icmp_match.r#type, icmp_match.code), (8, Some(0)));
    assert_eq!(icmp.src_nets, [packed(cidr("10.0.0.0/8"))]);
    assert_eq!(icmp.not_src_nets, [packed(cidr("10.1.0.0/16"))]);
    assert_eq!(icmp.origin.as_ref().unwrap().annotations["why"], "ping");
    let ports = only_inbound(&desired, "ports");
    assert_eq!(ports.action(), Action::Pass);
    assert_eq!((ports.src_ports[0].first, ports.not_src_ports[0].first), (1, 2));
    assert_eq!((ports.not_dst_ports[0].first, ports.not_dst_ports[0].last), (3, 4));
    assert_eq!(ports.dst_nets, [packed(cidr("10.9.0.0/16"))]);
    let not = only_inbound(&desired, "not");
    assert_eq!((not.not_protocol, not.action()), (Some(17), Action::Deny));
    assert_ne!(ports.origin.as_ref().unwrap().rule_id, not.origin.as_ref().unwrap().rule_id);
}

#[test]
fn a_missing_profile_denies() {
    let desired = on(
        "a",
        &[
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: a-k8s-new-eth0, namespace: shop}\n\
         spec: {node: a, orchestrator: k8s, pod: new, endpoint: eth0, interfaceName: cali9, ipNetworks: [10.0.0.9/32], profiles: [kns.gone]}",
        ],
    );
    let gone = &desired.profiles["kns.gone"];
    assert_eq!(gone.inbound_rules.len(), 1);
    assert_eq!(gone.inbound_rules[0].action(), Action::Deny);
    assert_eq!(gone.outbound_rules[0].action(), Action::Deny);
    assert!(desired.problems[0].contains("kns.gone"), "{:?}", desired.problems);
}

#[test]
fn limits_of_connections_reach_the_dataplane() {
    let desired = on(
        "a",
        &[
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: a-k8s-new-eth0, namespace: shop}\n\
         spec: {node: a, orchestrator: k8s, pod: new, endpoint: eth0, interfaceName: cali9, ipNetworks: [10.0.0.9/32], \
         qosControls: {ingressMaxConnections: 100, egressNewConnectionsPerSecond: 20}}",
        ],
    );
    let qos = endpoint(&desired, "shop/new").qos.unwrap();
    let limits = |of: Option<margay_api::dataplane::v1::qos_controls::Limit>| {
        of.map(|limit| (limit.max_connections, limit.new_connections_per_second))
    };
    assert_eq!((limits(qos.ingress), limits(qos.egress)), (Some((100, 0)), Some((0, 20))));
    assert!(endpoint(&desired, "shop/web").qos.is_none());
}

#[test]
fn a_policy_of_a_tier_that_is_gone_comes_last_and_denies_at_its_end() {
    let lost = policy("NetworkPolicy", "lost", "tier: gone, ingress: [{action: Pass}]");
    let desired = on("a", &[&lost, &policy("NetworkPolicy", "p", "ingress: [{action: Pass}]")]);
    let tiers = &endpoint(&desired, "shop/web").tiers;
    assert_eq!(tiers.iter().map(|tier| tier.name.as_str()).collect::<Vec<_>>(), ["default", "gone"]);
    assert_eq!(tiers[1].default_action(), Action::Deny);
    assert!(desired.problems[0].contains("tier \"gone\""), "{:?}", desired.problems);
}

#[test]
fn equal_selectors_share_a_set_however_they_are_spelled() {
    let desired = on(
        "a",
        &[
            &policy(
                "GlobalNetworkPolicy",
                "x",
                "ingress: [{action: Allow, source: {selector: \"app in {'a','b'}\"}}]",
            ),
            &policy(
                "GlobalNetworkPolicy",
                "y",
                "ingress: [{action: Allow, source: {selector: \"(app in { 'b', 'a' })\"}}]",
            ),
        ],
    );
    assert_eq!(desired.ip_sets.len(), 1);
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

/// Some of everything, for the order of arrival to matter if it could.
fn mixed() -> Vec<Resource> {
    let policies = [
        policy(
            "NetworkPolicy",
            "p1",
            "selector: has(app), order: 3, ingress: [{action: Allow, protocol: TCP, source: {selector: has(app), ports: [http]}}]",
        ),
        policy(
            "NetworkPolicy",
            "p2",
            "order: 3, egress: [{action: Pass, destination: {namespaceSelector: all()}}]",
        ),
        policy(
            "GlobalNetworkPolicy",
            "p3",
            "ingress: [{action: Deny, source: {notSelector: role == 'office'}}]",
        ),
        policy("GlobalNetworkPolicy", "p4", "tier: lost, ingress: [{action: Deny}]"),
    ];
    let manifests: Vec<&str> = [CLUSTER].into_iter().chain(policies.iter().map(String::as_str)).collect();
    resources(&manifests)
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(shuffled in Just(mixed()).prop_shuffle()) {
        let expected = desired(&mixed().into_iter().collect(), "a");
        prop_assert!(expected.policies.len() == 4 && expected.ip_sets.len() >= 3 && !expected.problems.is_empty());
        prop_assert_eq!(desired(&shuffled.into_iter().collect(), "a"), expected);
    }
}
