//! Kubernetes' objects, and services in rules.

use super::*;

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: web, labels: {team: retail}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: shopper, namespace: web, labels: {tier: front}}
---
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: web, labels: {app: front}}
spec: {nodeName: a, serviceAccountName: shopper, containers: [{name: c, image: i}]}
status: {podIP: 10.0.5.1, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: back, namespace: web, labels: {app: back}}
spec: {nodeName: b, containers: [{name: c, image: i}]}
status: {podIP: 10.0.5.2, phase: Running}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: web}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: back-1, namespace: web, labels: {kubernetes.io/service-name: back}}
addressType: IPv4
endpoints: [{addresses: [10.0.5.2], conditions: {ready: true}}, {addresses: [10.0.5.3], conditions: {ready: false}}]
ports: [{name: http, port: 8080}, {name: dns, port: 53, protocol: UDP}, {name: any}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: back-2, namespace: web, labels: {kubernetes.io/service-name: back}}
addressType: IPv6
endpoints: [{addresses: ["fd10::2"]}]
ports: [{name: http, port: 8080}]
"#;

#[test]
fn a_pod_is_an_endpoint_of_its_node_with_the_labels_of_namespace_and_account() {
    let policy = policy(
        "GlobalNetworkPolicy",
        "g",
        "namespaceSelector: team == 'retail', serviceAccountSelector: tier == 'front', ingress: [{action: Deny}]",
    );
    let desired = on("a", &[SHOP, &policy]);
    assert_eq!(tiers(&desired, "web/front")[0].1, ["g"]);
    assert_eq!(endpoint(&desired, "web/front").profile_ids, ["kns.web", "ksa.web.shopper"]);
    assert!(matches!(desired.routes[&cidr("10.0.5.1/32")].target, Some(Target::Workload(_))));
    assert!(matches!(desired.routes[&cidr("10.0.5.2/32")].target, Some(Target::NextHop(_))));
    assert_eq!(desired.problems, [""; 0], "an account that nobody wrote is no problem");
}

#[test]
fn a_namespace_that_does_not_exist_denies() {
    let homeless = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: nowhere}\n\
                    spec: {nodeName: a}\nstatus: {podIP: 10.0.5.9}\n";
    let desired = on("a", &[homeless]);
    assert_eq!(desired.profiles["kns.nowhere"].inbound_rules[0].action(), Action::Deny);
    assert!(desired.problems[0].contains("kns.nowhere"), "{:?}", desired.problems);
}

#[test]
fn policies_of_kubernetes_are_bound_in_their_tiers() {
    let policies = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: front, namespace: web}
spec: {podSelector: {matchLabels: {app: front}}, ingress: [{from: [{podSelector: {matchLabels: {app: back}}}]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec: {tier: Admin, priority: 3, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: old}
spec: {priority: 3, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}
"#;
    let desired = on("a", &[SHOP, policies]);
    let names = |name: &str| vec![name.to_owned()];
    assert_eq!(
        tiers(&desired, "web/front"),
        [
            ("adminnetworkpolicy".into(), names("kanp.adminnetworkpolicy.old"), vec![]),
            ("kube-admin".into(), names("kcnp.admin.guard"), vec![]),
            ("default".into(), names("knp.default.front"), vec![]),
        ]
    );
    let rule = only_inbound(&desired, "knp.default.front");
    assert_eq!(members(&desired.ip_sets[&rule.src_ip_set_ids[0]]), ["10.0.5.2/32"]);
    assert_eq!(desired.problems, [""; 0]);
}

#[test]
fn what_is_written_counts_more_than_what_is_converted() {
    let written = "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {name: kns.web}\nspec: {}\n";
    let desired = on("a", &[SHOP, written]);
    assert!(desired.profiles["kns.web"].inbound_rules.is_empty());
    assert_eq!(desired.problems, ["Namespace web: Profile kns.web is given too, and counts"]);
}

#[test]
fn a_service_is_its_backends() {
    let egress = "egress: [{action: Allow, destination: {services: {name: back, namespace: web}}}]";
    let ingress = "ingress: [{action: Allow, source: {services: {name: back, namespace: web}}}]";
    let desired = on("a", &[SHOP, &policy("GlobalNetworkPolicy", "g", &format!("{egress}, {ingress}"))]);
    let [out] = named(&desired, "g").outbound_rules.as_slice() else { panic!("one rule") };
    let [backends] = out.dst_ip_port_set_ids.as_slice() else { panic!("one set") };
    assert_eq!(
        members(&desired.ip_sets[backends]),
        ["10.0.5.2:6:8080", "10.0.5.2:17:53", "10.0.5.3:6:8080", "10.0.5.3:17:53", "fd10::2:6:8080"]
    );
    assert!(out.dst_ip_set_ids.is_empty() && out.dst_ports.is_empty());
    assert_eq!(out.origin.as_ref().unwrap().dst_service, "web/back");
    let into = only_inbound(&desired, "g");
    assert_eq!(
        members(&desired.ip_sets[&into.src_ip_set_ids[0]]),
        ["10.0.5.2/32", "10.0.5.3/32", "fd10::2/128"]
    );
    assert_eq!(into.origin.as_ref().unwrap().src_service, "web/back");
}

#[test]
fn a_service_without_a_namespace_is_of_the_policys_own() {
    let rule = "egress: [{action: Allow, destination: {services: {name: back}}}]";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, namespace: shop, labels: \
                 {kubernetes.io/service-name: back}}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.2]}]\n\
                 ports: [{port: 1}]\n";
    let desired = on("a", &[SHOP, slice, &policy("NetworkPolicy", "p", rule)]);
    let set = &named(&desired, "p").outbound_rules[0].dst_ip_port_set_ids[0];
    assert_eq!(members(&desired.ip_sets[set]), ["10.0.0.2:6:1"]);
    let unknown = on("a", &[&policy("NetworkPolicy", "p", rule)]);
    let set = &named(&unknown, "p").outbound_rules[0].dst_ip_port_set_ids[0];
    assert_eq!(members(&unknown.ip_sets[set]), [""; 0], "a service that nobody knows matches nothing");
}
