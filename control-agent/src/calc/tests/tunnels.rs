//! Which way goes through a tunnel, and where tunnels end.

use super::*;
use margay_api::dataplane::v1::Encapsulation;

/// Node c is of another subnet, and has a workload in every pool.
fn world(pools: &str) -> String {
    let addresses = "10.1.2.1/32, 10.2.2.1/32, \"fd11:2::1/128\"";
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: c}}\n\
         spec: {{bgp: {{ipv4Address: 192.168.1.3/24, ipv6Address: \"fd00:1::3/64\"}}}}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
         metadata: {{name: c-k8s-far-eth0, namespace: shop}}\n\
         spec: {{node: c, orchestrator: k8s, pod: far, endpoint: eth0, interfaceName: cali9, ipNetworks: [{addresses}]}}\n\
         ---\n{pools}"
    )
}

fn pool(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn felix(spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
    )
}

fn encapsulation(desired: &Desired, destination: &str) -> Encapsulation {
    desired.routes[&cidr(destination)].encapsulation()
}

#[test]
fn a_pool_says_what_goes_through_a_tunnel() {
    for (mode, near, far) in [
        ("ipipMode: Always", Encapsulation::Ipip, Encapsulation::Ipip),
        ("ipipMode: CrossSubnet", Encapsulation::None, Encapsulation::Ipip),
        ("vxlanMode: Always", Encapsulation::Vxlan, Encapsulation::Vxlan),
        ("vxlanMode: CrossSubnet", Encapsulation::None, Encapsulation::Vxlan),
        ("vxlanMode: Never, ipipMode: Never", Encapsulation::None, Encapsulation::None),
    ] {
        let pools = pool("one", &format!("cidr: 10.1.0.0/16, {mode}"));
        let near_one = "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
            metadata: {name: b-k8s-near-eth0, namespace: shop}\n\
            spec: {node: b, orchestrator: k8s, pod: near, endpoint: eth0, interfaceName: cali8, ipNetworks: [10.1.1.1/32]}";
        let a = on("a", &[&world(&pools), near_one]);
        assert_eq!(encapsulation(&a, "10.1.1.1/32"), near, "{mode}");
        assert_eq!(encapsulation(&a, "10.1.2.1/32"), far, "{mode}");
        let Some(Target::NextHop(hop)) = &a.routes[&cidr("10.1.2.1/32")].target else { panic!("{mode}") };
        assert_eq!(hop.gateway, [192, 168, 1, 3], "a tunnel ends at the node");
        assert_eq!(encapsulation(&a, "10.0.1.1/32"), Encapsulation::None, "of another pool");
        assert_eq!(a.config.overlay.is_some(), far != Encapsulation::None);
        assert_eq!(
            a.tunnels.keys().collect::<Vec<_>>(),
            if far == Encapsulation::None { [""; 0].to_vec() } else { vec!["b", "c"] }
        );
        assert_eq!(a.problems, Vec::<String>::new());
    }
}

#[test]
fn the_ends_are_as_calicos_nodes_make_them() {
    let pools = [
        pool("one", "cidr: 10.1.0.0/16, vxlanMode: Always"),
        pool("two", "cidr: 10.2.0.0/16, ipipMode: Always"),
        pool("six", "cidr: 'fd11::/16', vxlanMode: Always"),
    ];
    let settings = felix(
        "vxlanPort: 8472, vxlanVNI: 77, vxlanMTU: 1400, externalNodesList: [203.0.113.0/24], mtuIfacePattern: ^eth",
    );
    let a = on("a", &[&world(&pools.concat()), &settings]);
    let overlay = a.config.overlay.clone().unwrap();
    assert_eq!(a.config.mtu_interfaces, "^eth");
    assert!(overlay.ipip && overlay.vxlan && overlay.vxlan_v6);
    assert_eq!(overlay.ipv4_address, [192, 168, 0, 1]);
    assert_eq!(
        (overlay.vxlan_port, overlay.vxlan_vni, overlay.vxlan_mtu, overlay.ipip_mtu),
        (8472, 77, 1400, 0)
    );
    assert_eq!(overlay.external_nodes, [packed(cidr("203.0.113.0/24"))]);
    // printf a | sha1sum, and printf a-v6.
    assert_eq!(overlay.mac, [0x66, 0x86, 0xf7, 0xe4, 0x37, 0xfa]);
    assert_eq!(overlay.mac_v6[0], 0x66);
    assert_ne!(overlay.mac_v6, overlay.mac);
    let c = &a.tunnels["c"];
    assert_eq!((&c.parent_ipv4[..], c.parent_ipv6.len(), c.mac.len()), (&[192, 168, 1, 3][..], 16, 6));
    assert_eq!(encapsulation(&a, "10.2.2.1/32"), Encapsulation::Ipip);
    assert_eq!(encapsulation(&a, "fd11:2::1/128"), Encapsulation::Vxlan);
    let b = &a.tunnels["b"];
    assert!(b.parent_ipv6.is_empty() && b.mac_v6.is_empty(), "it has no such address");
}

#[test]
fn what_a_node_says_of_itself_counts() {
    let node = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: d}\n\
        spec: {bgp: {ipv4Address: 192.168.0.4/24, ipv4IPIPTunnelAddr: 10.2.4.0}, ipv4VXLANTunnelAddr: 10.1.4.0, vxlanTunnelMACAddr: '02:00:00:00:00:44'}\n---\n";
    let pools = pool("one", "cidr: 10.1.0.0/16, vxlanMode: CrossSubnet");
    let a = on("a", &[node, &pools]);
    assert_eq!(a.tunnels["d"].mac, [2, 0, 0, 0, 0, 0x44]);
    assert_eq!(encapsulation(&a, "10.1.4.0/32"), Encapsulation::Vxlan, "its tunnel's interface");
    assert!(!a.routes.contains_key(&cidr("10.2.4.0/32")), "no such tunnels here");
    let d = on("d", &[node, &pools]);
    assert!(matches!(d.routes[&cidr("10.1.4.0/32")].target, Some(Target::LocalHost(_))));
    assert_eq!(d.config.overlay.unwrap().mac, [2, 0, 0, 0, 0, 0x44]);
}

#[test]
fn tunnels_can_be_switched_off_and_then_nothing_goes_around_them() {
    let pools = pool("one", "cidr: 10.1.0.0/16, vxlanMode: Always");
    let a = on("a", &[&world(&pools), &felix("vxlanEnabled: false")]);
    assert!(matches!(a.routes[&cidr("10.1.2.1/32")].target, Some(Target::Blackhole(_))));
    assert!(a.problems[0].contains("vxlanEnabled"), "{:?}", a.problems);
    assert!(a.config.overlay.is_none() && a.tunnels.is_empty());
    let on_without_pools = on("a", &[&felix("ipipEnabled: true")]);
    assert!(on_without_pools.config.overlay.unwrap().ipip);
    let none = on("b", &[&world(&pool("six", "cidr: 'fd11::/16', vxlanMode: Always"))]);
    assert!(matches!(none.routes[&cidr("fd11:2::1/128")].target, Some(Target::Blackhole(_))));
    assert!(none.problems.iter().any(|p| p.contains("no IPv6 address for its end")), "{:?}", none.problems);
}

#[test]
fn workloads_have_tunnels_of_their_own_where_that_is_configured() {
    for (spec, allowed) in [
        ("", (false, false)),
        ("allowIPIPPacketsFromWorkloads: true", (true, false)),
        ("allowVXLANPacketsFromWorkloads: true, allowIPIPPacketsFromWorkloads: false", (false, true)),
    ] {
        let config = on("a", &[&felix(spec)]).config;
        assert_eq!((config.allow_ipip_from_workloads, config.allow_vxlan_from_workloads), allowed, "{spec}");
    }
}

#[test]
fn what_no_service_has_is_not_routed_back() {
    let blocks = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
        spec: {serviceClusterIPs: [{cidr: 10.96.0.0/12}, {cidr: 'fd96::/108'}], serviceLoadBalancerIPs: [{cidr: 10.0.0.0/16}]}";
    let target = |settings: &str, destination: &str| {
        let a = on("a", &[blocks, settings]);
        a.routes.get(&cidr(destination)).and_then(|route| route.target.clone())
    };
    for block in ["10.96.0.0/12", "fd96::/108"] {
        for drop in [felix(""), felix("serviceLoopPrevention: Drop")] {
            assert!(matches!(target(&drop, block), Some(Target::Blackhole(_))));
        }
        let reject = felix("serviceLoopPrevention: Reject");
        assert!(matches!(target(&reject, block), Some(Target::Unreachable(_))));
        assert_eq!(target(&felix("serviceLoopPrevention: Disabled"), block), None);
    }
    let reject = target(&felix("serviceLoopPrevention: Reject"), "10.0.0.0/16");
    assert!(matches!(reject, Some(Target::Blackhole(_))), "a pool of workloads stays one");
    assert!(!on("a", &[]).routes.contains_key(&cidr("10.96.0.0/12")));
}

#[test]
fn what_is_left_to_bgp_has_no_route_of_ours() {
    let settings = |programs: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{programClusterRoutes: {programs}}}\n"
        )
    };
    let near = "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
        metadata: {name: b-k8s-near-eth0, namespace: shop}\n\
        spec: {node: b, orchestrator: k8s, pod: near, endpoint: eth0, interfaceName: cali8, ipNetworks: [10.1.1.1/32]}";
    let pools = pool("one", "cidr: 10.1.0.0/16") + &pool("two", "cidr: 10.2.0.0/16, vxlanMode: Always");
    for (programs, left) in [("EnabledNoEncapOnly", true), ("Disabled", false)] {
        let a = on("a", &[&world(&pools), near, &settings(programs)]);
        assert_eq!(a.routes.contains_key(&cidr("10.1.2.1/32")), !left, "without a tunnel, of another subnet");
        assert!(a.routes.contains_key(&cidr("10.1.1.1/32")), "of our subnet");
        assert!(a.routes.contains_key(&cidr("10.2.2.1/32")), "through a tunnel");
        assert!(a.routes.contains_key(&cidr("fd11:2::1/128")), "of no pool, so nobody announces it");
        assert!(matches!(a.routes[&cidr("10.1.0.0/16")].target, Some(Target::Blackhole(_))));
    }
}
