//! What is kept current is what would be calculated anew, whatever happened on the way.

use super::*;
use crate::model::Key;
use proptest::{collection::vec, sample::Index};
use std::{collections::BTreeSet, net::IpAddr};

/// Each kind that anything follows from, most objects in several versions. Addresses, labels and names are few, so that what
/// happens to one object matters to others.
fn versions() -> Vec<Resource> {
    let calico = |kind: &str, metadata: &str, rest: &str| {
        format!("{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{{metadata}}}, {rest}}}")
    };
    let one = |kind: &str, metadata: &str, spec: &str| calico(kind, metadata, &format!("spec: {{{spec}}}"));
    let kubernetes = |version: &str, kind: &str, metadata: &str, rest: &str| {
        format!("{{apiVersion: {version}, kind: {kind}, metadata: {{{metadata}}}, {rest}}}")
    };
    let mut texts = vec![
        one("Node", "name: a", "bgp: {ipv4Address: 192.168.0.1/24}"),
        one("Node", "name: a", "bgp: {ipv4Address: 192.168.1.1/24, ipv6Address: 'fd00::1/64'}"),
        one("Node", "name: b, labels: {rack: one}", "bgp: {ipv4Address: 192.168.0.2/24}"),
        one("Node", "name: b", "bgp: {ipv4Address: 192.168.1.2/24}, ipv4VXLANTunnelAddr: 10.65.0.9"),
        one("Node", "name: c", "bgp: {ipv4Address: 192.168.1.3/24}, addresses: [{address: 10.65.0.3}]"),
        kubernetes(
            "v1",
            "Node",
            "name: c, labels: {rack: one}",
            "status: {addresses: [{type: InternalIP, address: 192.168.1.4}]}",
        ),
        one("IPPool", "name: p1", "cidr: 10.65.0.0/24"),
        one("IPPool", "name: p1", "cidr: 10.65.0.0/24, vxlanMode: CrossSubnet"),
        one("IPPool", "name: p1", "cidr: 10.65.0.0/25, ipipMode: Always"),
        one("IPPool", "name: p2", "cidr: 10.66.0.0/24, vxlanMode: Always, disableBGPExport: true"),
        one("FelixConfiguration", "name: default", "vxlanEnabled: false"),
        one("FelixConfiguration", "name: default", "wireguardEnabled: true, serviceLoopPrevention: Reject"),
        one(
            "FelixConfiguration",
            &format!("name: node.a, annotations: {{{}: Required}}", crate::model::ENCRYPTION),
            "defaultEndpointToHostAction: Accept",
        ),
        one("BGPConfiguration", "name: default", "programClusterRoutes: EnabledNoEncapOnly"),
        one(
            "BGPConfiguration",
            "name: default",
            "serviceExternalIPs: [{cidr: 10.65.0.8/29}], asNumber: 64513",
        ),
        one("BGPPeer", "name: rack", "peerIP: 192.168.0.9, asNumber: 64999, filters: [f]"),
        one("BGPFilter", "name: f", "exportV4: [{action: Reject, matchOperator: In, cidr: 10.65.0.0/28}]"),
        one("Tier", "name: first", "order: 1"),
        one("Tier", "name: first", "order: 100, defaultAction: Pass"),
        one("Tier", "name: second", "order: 50"),
        one(
            "Profile",
            "name: kns.shop",
            "labelsToApply: {pcns.team: red, app: given}, ingress: [{action: Allow}]",
        ),
        one(
            "Profile",
            "name: kns.shop",
            "labelsToApply: {pcns.team: blue}, egress: [{action: Allow, destination: {selector: app == 'web'}}]",
        ),
        one("Profile", "name: extra", "labelsToApply: {pcns.team: green, role: node}"),
        kubernetes("v1", "Namespace", "name: shop, labels: {team: red}", "spec: {}"),
        kubernetes("v1", "Namespace", "name: shop, labels: {team: blue, name: shop}", "spec: {}"),
        kubernetes(
            "v1",
            "ServiceAccount",
            "name: clerk, namespace: shop, labels: {rank: low}",
            "automountServiceAccountToken: false",
        ),
        one(
            "NetworkSet",
            "name: partners, namespace: shop, labels: {app: web}",
            "nets: [10.65.0.0/30, 203.0.113.0/24]",
        ),
        one(
            "NetworkSet",
            "name: partners, namespace: shop, labels: {role: node}",
            "nets: [10.65.0.1/32, 203.0.113.0/24]",
        ),
        one("GlobalNetworkSet", "name: office, labels: {app: web}", "nets: [10.65.0.1/32, 10.65.0.0/30]"),
        one(
            "HostEndpoint",
            "name: up, labels: {role: node}",
            "node: a, interfaceName: eth0, expectedIPs: [192.168.0.1], profiles: [extra]",
        ),
        one(
            "HostEndpoint",
            "name: up, labels: {app: web}",
            "node: b, interfaceName: eth0, expectedIPs: [10.65.0.1], ports: [{name: http, protocol: TCP, port: 80}]",
        ),
        one("HostEndpoint", "name: all", "node: a, interfaceName: '*', profiles: [kns.shop]"),
        one(
            "GlobalNetworkPolicy",
            "name: hosts",
            "selector: role == 'node', preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]",
        ),
        one(
            "GlobalNetworkPolicy",
            "name: hosts",
            "selector: role == 'node', applyOnForward: true, types: [Ingress, Egress], ingress: [{action: Allow, source: {selector: app == 'web'}}]",
        ),
        one(
            "GlobalNetworkPolicy",
            "name: raw",
            "tier: second, selector: has(role), doNotTrack: true, applyOnForward: true, ingress: [{action: Allow, destination: {nets: [10.65.0.0/24]}}]",
        ),
        one(
            "GlobalNetworkPolicy",
            "name: teams",
            "tier: first, namespaceSelector: team == 'red', ingress: [{action: Pass, source: {namespaceSelector: team == 'blue'}}]",
        ),
        one(
            "GlobalNetworkPolicy",
            "name: teams",
            "tier: lost, order: 3, ingress: [{action: Allow, source: {notSelector: app == 'web'}}], egress: [{action: Deny, destination: {services: {name: web, namespace: shop}}}]",
        ),
        one(
            "NetworkPolicy",
            "name: web, namespace: shop",
            "selector: app == 'web', order: 5, ingress: [{action: Allow, protocol: TCP, source: {selector: has(app)}, destination: {ports: [http, 90]}}]",
        ),
        one(
            "NetworkPolicy",
            "name: web, namespace: shop",
            "selector: has(app) && app != 'db', ingress: [{action: Allow, protocol: TCP, source: {serviceAccounts: {names: [clerk]}}}, {action: Deny, source: {selector: has(app), notNets: [10.65.0.2/32]}}]",
        ),
        one(
            "NetworkPolicy",
            "name: wide, namespace: shop",
            "tier: first, selector: 'all()', egress: [{action: Allow, destination: {services: {name: web}}}], ingress: [{action: Deny, source: {services: {name: web}}}]",
        ),
        one(
            "StagedNetworkPolicy",
            "name: web, namespace: shop",
            "stagedAction: Set, selector: app == 'web', ingress: [{action: Deny}]",
        ),
        one("StagedNetworkPolicy", "name: web, namespace: shop", "stagedAction: Delete"),
        one("StagedNetworkPolicy", "name: web, namespace: shop", "stagedAction: Ignore"),
        one(
            "StagedGlobalNetworkPolicy",
            "name: new",
            "selector: app != 'db', egress: [{action: Allow, destination: {selector: app == 'db'}}]",
        ),
        kubernetes(
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolicy",
            "name: nodes",
            "spec: {tier: Admin, priority: 7, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {}}]}]}",
        ),
        kubernetes(
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolicy",
            "name: nodes",
            "spec: {tier: Admin, priority: 7, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {matchLabels: {rack: one}}}]}]}",
        ),
        kubernetes(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "name: web, namespace: shop",
            "spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]}]}",
        ),
        kubernetes(
            "v1",
            "Pod",
            "name: front, namespace: shop, labels: {app: web}",
            "spec: {nodeName: a, serviceAccountName: clerk, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}, status: {podIP: 10.65.0.1, phase: Running}",
        ),
        kubernetes(
            "v1",
            "Pod",
            "name: front, namespace: shop, labels: {app: db}",
            "spec: {nodeName: b, containers: [{name: c, image: i}]}, status: {podIP: 10.65.0.2, phase: Running}",
        ),
        one(
            "WorkloadEndpoint",
            "name: a-k8s-front-eth0, namespace: shop, annotations: {margay.io/attachment: x}, labels: {app: own}",
            "node: a, orchestrator: k8s, pod: front, endpoint: eth0, interfaceName: calif, ipNetworks: [10.65.0.5/32]",
        ),
        one(
            "WorkloadEndpoint",
            "name: front, namespace: shop, labels: {app: web}",
            "node: a, orchestrator: k8s, pod: front, endpoint: eth0, interfaceName: calig, ipNetworks: [10.65.0.5/32], profiles: [kns.shop, missing]",
        ),
        kubernetes(
            "v1",
            "Service",
            "name: web, namespace: shop",
            "spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}",
        ),
        kubernetes(
            "v1",
            "Service",
            "name: web, namespace: shop",
            "spec: {clusterIP: 10.96.0.1, type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30999, ports: [{name: http, port: 80, nodePort: 30080}]}",
        ),
        kubernetes(
            "v1",
            "Service",
            "name: zoo, namespace: shop",
            "spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}",
        ),
        kubernetes(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}",
            "addressType: IPv4, endpoints: [{addresses: [10.65.0.1], nodeName: a}], ports: [{name: http, port: 8080}]",
        ),
        kubernetes(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}",
            "addressType: IPv4, endpoints: [{addresses: [10.65.0.1]}, {addresses: [10.65.0.2]}], ports: [{name: http, port: 8081}]",
        ),
        calico(
            "IPAMBlock",
            "name: b1",
            "spec: {cidr: 10.65.0.0/29, affinity: 'host:b', allocations: [], unallocated: [], attributes: []}",
        ),
        calico(
            "IPAMBlock",
            "name: b1",
            "spec: {cidr: 10.65.0.0/29, affinity: 'host:c', allocations: [], unallocated: [], attributes: []}",
        ),
        calico(
            "IPAMBlock",
            "name: b2",
            "spec: {cidr: 10.65.0.8/29, affinity: 'host:a', allocations: [], unallocated: [], attributes: []}",
        ),
        calico(
            "IPAMBlock",
            "name: b2",
            "spec: {cidr: 10.65.0.8/29, allocations: [], unallocated: [], attributes: []}",
        ),
    ];
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        let status = format!(
            "spec: {{bgp: {{ipv4Address: 192.168.0.{}/24}}}}, status: {{wireguardPublicKey: '{}'}}",
            at + 1,
            super::blocks::KEYS[at]
        );
        texts.push(calico("Node", &format!("name: {name}"), &status));
    }
    // Workloads on each node and on one that is not known, with addresses that others have, too.
    for (at, app) in (0..8).zip(["web", "db", "web", "given"].into_iter().cycle()) {
        for (node, nets, profiles) in [
            ("b", format!("10.65.0.{at}/32, 10.65.0.{}/32", at + 8), "extra, kns.shop"),
            ("c", format!("10.65.0.{}/32", at / 2), "missing"),
            ("lost", format!("10.65.0.{}/31, 10.65.0.{at}/32", at / 2 * 2), ""),
            ("a", format!("10.65.0.{at}/32"), "kns.shop"),
        ] {
            let metadata = format!("name: w{at}, namespace: shop, labels: {{app: {app}}}");
            // Each two of a node are one endpoint.
            let pod = at / 2;
            texts.push(one(
                "WorkloadEndpoint",
                &metadata,
                &format!(
                    "node: {node}, orchestrator: k8s, pod: w{pod}, endpoint: eth{}, interfaceName: cali{at}, ipNetworks: [{nets}], \
                     profiles: [{profiles}], ports: [{{name: http, protocol: TCP, port: 80{at}}}]",
                    pod % 2
                ),
            ));
        }
    }
    let loaded =
        texts.iter().flat_map(|text| load(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}")));
    let defaulted = loaded.map(|mut object| {
        object.set_defaults();
        object
    });
    defaulted.collect()
}

/// Whose each address is that anything is about.
fn parties(names: &Names) -> Vec<Option<Party>> {
    let addresses = (0..32).map(|host| IpAddr::from([10, 65, 0, host]));
    let others = ["192.168.0.1", "192.168.1.3", "203.0.113.7", "fd00::1"].map(|addr| addr.parse().unwrap());
    addresses.chain(others).map(|addr| names.party(addr)).collect()
}

fn same(graph: &mut Graph, known: &Resources, node: &str) -> Result<(), TestCaseError> {
    let kept = graph.update().clone();
    let anew = desired(known, node);
    prop_assert_eq!(&kept.problems, &anew.problems);
    prop_assert_eq!(&kept.ip_sets, &anew.ip_sets);
    prop_assert_eq!(&kept.routes, &anew.routes);
    prop_assert_eq!(&kept.endpoints, &anew.endpoints);
    prop_assert_eq!(kept, anew);
    prop_assert_eq!(parties(graph.names()), parties(&Names::of(known)));
    Ok(())
}

#[test]
fn the_versions_are_worth_the_trouble() {
    let all = versions();
    let kinds: BTreeSet<_> = all.iter().map(Resource::kind).collect();
    assert_eq!(kinds.len(), 25, "{kinds:?}");
    let known: Resources = all.into_iter().collect();
    let desired = desired(&known, "a");
    assert!(desired.ip_sets.len() > 5 && desired.policies.len() > 3 && desired.problems.len() > 3);
    assert!(desired.routes.len() > 8 && !desired.services.is_empty() && !desired.hosts.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_kept_current_is_what_would_be_calculated_anew(
        steps in vec((any::<Index>(), 0..4_u8, 0..3_u8), 1..120),
    ) {
        let versions = versions();
        let (mut graph, mut known) = (Graph::new("a"), Resources::default());
        for (which, act, pause) in steps {
            let object = which.get(&versions);
            if act == 0 {
                let key: Key = object.key();
                graph.remove(&key);
                known.remove(&key);
            } else {
                graph.insert(object.clone());
                known.insert(object.clone());
            }
            if pause == 0 {
                same(&mut graph, &known, "a")?;
            }
        }
        same(&mut graph, &known, "a")?;
        // And nothing is left behind.
        let keys: Vec<Key> = versions.iter().map(Resource::key).collect();
        keys.iter().for_each(|key| { graph.remove(key); known.remove(key); });
        same(&mut graph, &known, "a")?;
    }

    #[test]
    fn objects_that_come_and_stay_say_the_same_at_once_and_one_by_one(
        shuffled in Just(versions()).prop_shuffle(),
    ) {
        let (mut at_once, mut one_by_one) = (Graph::new("a"), Graph::new("a"));
        for object in &shuffled {
            at_once.insert(object.clone());
            one_by_one.insert(object.clone());
            one_by_one.update();
        }
        prop_assert_eq!(at_once.update(), one_by_one.update());
        same(&mut at_once, &shuffled.into_iter().collect(), "a")?;
    }
}
