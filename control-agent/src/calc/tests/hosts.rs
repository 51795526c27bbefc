//! Host endpoints.

use super::*;
use margay_api::dataplane::v1::{
    ConntrackTimeouts, HostEndpoint,
    node_config::{Established, Midstream, NatMapping, TcpWindows},
};

/// Node a's uplink, and another interface of node b.
const HOSTS: &str = r#"
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: nodes}
spec:
  ingress: [{action: Allow}]
  labelsToApply: {kind: machine, role: from-profile}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: a-uplink, labels: {role: node, projectcalico.org/namespace: shop}}
spec:
  node: a
  interfaceName: eth0
  expectedIPs: [192.168.0.1, "fd00::1"]
  profiles: [nodes]
  ports: [{name: kubelet, protocol: TCP, port: 10250}]
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: b-all, labels: {role: node}}
spec: {node: b, interfaceName: "*", expectedIPs: [192.168.0.2]}
"#;

fn host<'a>(desired: &'a Desired, name: &str) -> &'a HostEndpoint {
    &desired.host_endpoints[name]
}

/// "tier: in a,b; out c" of each.
fn bindings(tiers: &[TierBinding]) -> Vec<String> {
    let names = |ids: &[margay_api::dataplane::v1::PolicyId]| {
        ids.iter().map(|id| id.name.as_str()).collect::<Vec<_>>().join(",")
    };
    let text = |tier: &TierBinding| {
        format!("{}: in {}; out {}", tier.name, names(&tier.ingress_policies), names(&tier.egress_policies))
    };
    tiers.iter().map(text).collect()
}

fn global(name: &str, spec: &str) -> String {
    policy("GlobalNetworkPolicy", name, &format!("{spec}, ingress: [{{action: Deny}}]"))
}

#[test]
fn a_host_endpoint_is_sent_to_its_node_alone() {
    let a = on("a", &[HOSTS]);
    assert_eq!(a.host_endpoints.keys().collect::<Vec<_>>(), ["a-uplink"]);
    let uplink = host(&a, "a-uplink");
    assert_eq!((uplink.id.as_str(), uplink.interface_name.as_str()), ("a-uplink", "eth0"));
    assert_eq!(uplink.expected_addresses.iter().map(Vec::len).collect::<Vec<_>>(), [4, 16]);
    assert_eq!(uplink.profile_ids, ["nodes"]);
    assert_eq!(a.profiles["nodes"].inbound_rules.len(), 1);
    assert!(uplink.tiers.is_empty() && uplink.forward_tiers.is_empty());
    let b = on("b", &[HOSTS]);
    assert_eq!(host(&b, "b-all").interface_name, "*");
    assert!(!b.profiles.contains_key("nodes"), "nobody there names it");
}

#[test]
fn policies_are_split_by_where_they_judge() {
    let both = "egress: [{action: Deny}]";
    let desired = on(
        "a",
        &[
            HOSTS,
            &global("plain", "selector: role == 'node', order: 2"),
            &global("forward", &format!("selector: role == 'node', order: 1, applyOnForward: true, {both}")),
            &global(
                "raw",
                &format!("selector: role == 'node', doNotTrack: true, applyOnForward: true, {both}"),
            ),
            &global("early", "selector: role == 'node', preDNAT: true, applyOnForward: true"),
        ],
    );
    let uplink = host(&desired, "a-uplink");
    assert_eq!(bindings(&uplink.tiers), ["default: in forward,plain; out forward"]);
    assert_eq!(bindings(&uplink.forward_tiers), ["default: in forward; out forward"]);
    assert_eq!(bindings(&uplink.untracked_tiers), ["default: in raw; out raw"]);
    assert_eq!(bindings(&uplink.pre_dnat_tiers), ["default: in early; out "]);
    let ends = [&uplink.tiers, &uplink.forward_tiers, &uplink.untracked_tiers, &uplink.pre_dnat_tiers];
    assert_eq!(
        ends.map(|tiers| tiers[0].default_action()),
        [Action::Deny, Action::Deny, Action::Pass, Action::Pass]
    );
    let flags = |name| (named(&desired, name).untracked, named(&desired, name).pre_dnat);
    assert_eq!(
        ["plain", "forward", "raw", "early"].map(flags),
        [(false, false), (false, false), (true, false), (false, true)]
    );
}

#[test]
fn what_judges_before_tracking_or_translation_is_nothing_to_workloads() {
    let desired = on(
        "a",
        &[
            &global("raw", "selector: app == 'web', doNotTrack: true, applyOnForward: true"),
            &global("early", "selector: app == 'web', preDNAT: true, applyOnForward: true"),
            &global("forward", "selector: app == 'web', applyOnForward: true"),
        ],
    );
    assert_eq!(tiers(&desired, "shop/web"), [("default".into(), vec!["forward".into()], vec![])]);
    assert_eq!(desired.policies.len(), 1, "the others decide nothing here");
}

#[test]
fn a_pre_dnat_policy_without_ingress_decides_nothing() {
    let spec = "selector: role == 'node', preDNAT: true, applyOnForward: true, types: []";
    let mut policies = resources(&[&global("early", spec)]);
    let Resource::GlobalNetworkPolicy(early) = &mut policies[0] else { panic!("another kind") };
    // Refused when it is applied: only a program could have stored it.
    early.spec.types = vec![crate::model::PolicyType::Egress];
    policies.extend(resources(&[CLUSTER, HOSTS]));
    let desired = desired(&policies.into_iter().collect(), "a");
    assert!(desired.policies.is_empty() && host(&desired, "a-uplink").pre_dnat_tiers.is_empty());
}

#[test]
fn only_global_policy_without_namespace_or_account_selects_hosts() {
    let desired = on(
        "a",
        &[
            HOSTS,
            &global("inherits", "selector: kind == 'machine' && role == 'node'"),
            &global("namespaces", "namespaceSelector: '!has(nothing)'"),
            &global("accounts", "serviceAccountSelector: '!has(nothing)'"),
            &global("absence", "selector: projectcalico.org/namespace != 'shop' && has(role)"),
            &policy("NetworkPolicy", "namespaced", "selector: has(role), ingress: [{action: Deny}]"),
        ],
    );
    let found = bindings(&host(&desired, "a-uplink").tiers);
    assert_eq!(found, ["default: in absence,inherits; out "], "a label does not make it a workload");
}

#[test]
fn expected_addresses_are_what_selectors_mean() {
    let members_of = |entity: &str| {
        let rule = format!("selector: app == 'web', ingress: [{{action: Allow, source: {{{entity}}}}}]");
        let desired = on("a", &[HOSTS, &policy("GlobalNetworkPolicy", "g", &rule)]);
        members(&desired.ip_sets[&only_inbound(&desired, "g").src_ip_set_ids[0]])
    };
    assert_eq!(members_of("selector: role == 'node'"), ["192.168.0.1/32", "192.168.0.2/32", "fd00::1/128"]);
    assert_eq!(
        members_of("namespaceSelector: global()"),
        ["192.168.0.1/32", "192.168.0.2/32", "198.51.100.0/24", "fd00::1/128"]
    );
    assert!(
        members_of("namespaceSelector: all(), selector: has(role)").iter().all(|net| !net.starts_with("192"))
    );
}

#[test]
fn named_ports_of_hosts_are_found() {
    let rule =
        "selector: app == 'web', egress: [{action: Allow, protocol: TCP, destination: {ports: [kubelet]}}]";
    let desired = on("a", &[HOSTS, &policy("GlobalNetworkPolicy", "g", rule)]);
    let id = &named(&desired, "g").outbound_rules[0].dst_named_port_ip_set_ids[0];
    assert_eq!(members(&desired.ip_sets[id]), ["192.168.0.1:6:10250", "fd00::1:6:10250"]);
}

fn configuration(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// "6:22", "17:53 from 10.0.0.0/8".
fn failsafe(ports: &[margay_api::dataplane::v1::FailsafePort]) -> Vec<String> {
    let text = |port: &margay_api::dataplane::v1::FailsafePort| {
        let peers = port.net.as_ref().map(|net| format!(" of {:?}/{}", net.address, net.length));
        format!("{}:{}{}", port.protocol, port.port, peers.unwrap_or_default())
    };
    ports.iter().map(text).collect()
}

#[test]
fn failsafe_ports_and_the_way_to_the_host_are_calicos_where_nobody_says_otherwise() {
    let config = on("a", &[]).config;
    let etcd_and_more = ["6:179", "6:2379", "6:2380", "6:5473", "6:6443", "6:6666", "6:6667"];
    assert_eq!(failsafe(&config.failsafe_inbound), [&["6:22", "17:68"], &etcd_and_more[..]].concat());
    assert_eq!(failsafe(&config.failsafe_outbound), [&["17:53", "17:67"], &etcd_and_more[..]].concat());
    assert_eq!(config.endpoint_to_host_action(), Action::Deny);
}

#[test]
fn what_leaves_the_pools_does_so_as_configured() {
    let cluster = configuration("default", "natOutgoingAddress: 192.0.2.1, natPortRange: 40000");
    let own = configuration("node.a", "natPortRange: '5000:6000'");
    for (node, first, last) in [("a", 5000, 6000), ("b", 40000, 40000)] {
        let config = on(node, &[&cluster, &own]).config;
        assert_eq!(config.nat_outgoing_address, [192, 0, 2, 1]);
        let ports = config.nat_ports.unwrap();
        assert_eq!((ports.first, ports.last), (first, last));
    }
    let hosts = configuration("default", "natOutgoingExclusions: IPPoolsAndHostIPs");
    let pools = configuration("node.a", "natOutgoingExclusions: IPPoolsOnly");
    let same = hosts.replace("name: ", "annotations: {margay.io/nat-mapping: EndpointIndependent}, name: ");
    assert_eq!(["a", "b"].map(|node| on(node, &[&hosts, &pools]).config.nat_excludes_hosts), [false, true]);
    assert_eq!(on("a", &[&same]).config.nat_mapping(), NatMapping::EndpointIndependent);
    let unsaid = on("a", &[]).config;
    assert_eq!((unsaid.nat_excludes_hosts, unsaid.nat_mapping()), (false, NatMapping::AddressAndPort));
    assert!(unsaid.nat_ports.is_none() && unsaid.nat_outgoing_address.is_empty());
}

#[test]
fn a_nodes_own_configuration_overrules_the_clusters_field_by_field() {
    let cluster = configuration(
        "default",
        "defaultEndpointToHostAction: Accept, failsafeInboundHostPorts: [{protocol: UDP, port: 53, net: 10.0.0.0/8}, {port: 22}]",
    );
    let own = configuration("node.a", "defaultEndpointToHostAction: DROP, failsafeOutboundHostPorts: []");
    let a = on("a", &[&cluster, &own]).config;
    assert_eq!(a.endpoint_to_host_action(), Action::Deny);
    assert_eq!(failsafe(&a.failsafe_inbound), ["17:53 of [10, 0, 0, 0]/8", "6:22"]);
    assert!(a.failsafe_outbound.is_empty(), "an empty list is no absent one");
    let said = |name: &str, value: &str| {
        configuration(name, "")
            .replace("name: ", &format!("annotations: {{margay.io/established: {value}}}, name: "))
    };
    let (cluster_wide, keep) = (said("default", "Recheck"), said("node.a", "Keep"));
    assert_eq!(on("a", &[]).config.established(), Established::Keep);
    assert_eq!(on("a", &[&cluster_wide, &keep]).config.established(), Established::Keep);
    assert_eq!(on("b", &[&cluster_wide, &keep]).config.established(), Established::Recheck);
    let b = on("b", &[&cluster, &own]).config;
    assert_eq!((b.endpoint_to_host_action(), b.failsafe_outbound.len()), (Action::Allow, 9));
}

#[test]
fn timeouts_and_strictness_of_tracking_are_the_nodes() {
    let timeouts =
        "bpfConntrackTimeouts: {tcpSynSent: 5s, tcpFinsSeen: Auto, udpTimeout: 1m30s, icmpTimeout: 500ms}";
    let annotated = |value: &str| {
        let at = "annotations: {margay.io/midstream: Refuse, margay.io/tcp-windows: Liberal}, name: ";
        configuration("default", value).replace("name: ", at)
    };
    let config = on("a", &[&annotated(timeouts)]).config;
    let want =
        ConntrackTimeouts { tcp_syn_sent_ms: 5_000, udp_ms: 90_000, icmp_ms: 500, ..Default::default() };
    assert_eq!(config.conntrack_timeouts, Some(want));
    assert_eq!((config.midstream(), config.tcp_windows()), (Midstream::Refuse, TcpWindows::Liberal));
    let unsaid = on("a", &[]).config;
    assert_eq!((unsaid.midstream(), unsaid.tcp_windows()), (Midstream::PickUp, TcpWindows::Strict));
    assert_eq!(unsaid.conntrack_timeouts, None);
}

#[test]
fn timeouts_that_cannot_be_honoured_are_refused_by_name() {
    let wrong = "bpfConntrackTimeouts: {creationGracePeriod: 5s, tcpSynSent: 0s, tcpEstablished: Auto, udpTimeout: 9000h}";
    let errors = load(&configuration("default", wrong)).unwrap().remove(0).admit().unwrap_err();
    let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    let of = |field: &str| format!("spec.bpfConntrackTimeouts.{field}");
    assert_eq!(fields, ["creationGracePeriod", "tcpSynSent", "tcpEstablished", "udpTimeout"].map(of));
}
