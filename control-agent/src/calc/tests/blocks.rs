//! One route leads to all workloads of a block, and packets go where they went with one for each.

use super::*;
use margay_api::dataplane::v1::{Encapsulation, Route};
use std::net::{IpAddr, Ipv4Addr};

pub(super) const KEYS: [&str; 2] =
    ["jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXgY=", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="];

fn node(name: &str, address: &str, key: Option<usize>) -> String {
    let status = key.map_or(String::new(), |n| format!("\nstatus: {{wireguardPublicKey: {}}}", KEYS[n]));
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{bgp: {{ipv4Address: {address}}}}}{status}"
    )
}

fn block(cidr: &str, affinity: &str) -> String {
    let name = cidr.replace(['.', '/', ':'], "-");
    let spec =
        format!("cidr: '{cidr}', affinity: '{affinity}', allocations: [], unallocated: [], attributes: []");
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPAMBlock\nmetadata: {{name: b{name}}}\nspec: {{{spec}}}"
    )
}

fn workload(name: &str, node: &str, nets: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
         metadata: {{name: {node}-k8s-{name}-eth0, namespace: shop}}\n\
         spec: {{node: {node}, orchestrator: k8s, pod: {name}, endpoint: eth0, interfaceName: cali{name}, ipNetworks: [{nets}]}}"
    )
}

fn pool(name: &str, spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}")
}

fn felix(spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}"
    )
}

fn seen(node: &str, objects: &[String]) -> Desired {
    on(node, &objects.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Destinations that are for workloads, and where they lead.
fn table(desired: &Desired) -> Vec<String> {
    let of_workloads =
        |cidr: &Cidr| cidr.to_string().starts_with("10.") && !cidr.to_string().starts_with("10.0.");
    let line = |(cidr, route): (&Cidr, &Arc<Route>)| {
        let target = match route.target.as_ref().unwrap() {
            Target::NextHop(hop) => format!("{} {:?}", hop.gateway.last().unwrap(), route.encapsulation()),
            Target::Workload(id) => id.workload.clone(),
            Target::Blackhole(_) => "nowhere".to_owned(),
            other => format!("{other:?}"),
        };
        format!("{cidr} {target}")
    };
    desired.routes.iter().filter(|(cidr, _)| of_workloads(cidr) && cidr.len() > 16).map(line).collect()
}

/// Nodes a and b of one subnet, c of another. Each has a block, and b has borrowed of a's and of c's.
fn world() -> Vec<String> {
    vec![
        node("c", "192.168.1.3/24", None),
        block("10.65.1.0/26", "host:a"),
        block("10.65.2.0/26", "host:b"),
        block("10.65.3.0/26", "host:c"),
        block("10.65.4.0/26", "virtual:load-balancer"),
        workload("one", "a", "10.65.1.1/32"),
        workload("two", "b", "10.65.2.1/32"),
        workload("too", "b", "10.65.2.2/32"),
        workload("borrowed", "b", "10.65.1.2/32, 10.65.3.9/32"),
        workload("three", "c", "10.65.3.1/32"),
        workload("outside", "c", "10.70.0.1/32"),
    ]
}

#[test]
fn a_block_leads_to_its_node_and_borrowed_addresses_to_theirs() {
    let mut objects = world();
    objects.push(pool("direct", "cidr: 10.65.0.0/16"));
    assert_eq!(
        table(&seen("a", &objects)),
        [
            "10.65.1.0/26 nowhere",
            "10.65.1.1/32 shop/one",
            "10.65.1.2/32 2 None",
            "10.65.2.0/26 2 None",
            "10.65.3.0/26 3 None",
            "10.65.3.9/32 2 None",
            "10.70.0.1/32 3 None",
        ]
    );
    assert_eq!(
        table(&seen("b", &objects)),
        [
            "10.65.1.0/26 1 None",
            "10.65.1.2/32 shop/borrowed",
            "10.65.2.0/26 nowhere",
            "10.65.2.1/32 shop/two",
            "10.65.2.2/32 shop/too",
            "10.65.3.0/26 3 None",
            "10.65.3.9/32 shop/borrowed",
            "10.70.0.1/32 3 None",
        ]
    );
}

#[test]
fn a_block_goes_the_way_that_its_pool_asks_for_or_encrypted() {
    let ways = |mode: &str, objects: &[String]| {
        let mut objects = objects.to_vec();
        objects.push(pool("tunnels", &format!("cidr: 10.65.0.0/16, {mode}")));
        table(&seen("a", &objects)).into_iter().filter(|line| line.contains("/26")).collect::<Vec<_>>()
    };
    let expected = |b: &str, c: &str| {
        vec!["10.65.1.0/26 nowhere".to_owned(), format!("10.65.2.0/26 2 {b}"), format!("10.65.3.0/26 3 {c}")]
    };
    assert_eq!(ways("vxlanMode: CrossSubnet", &world()), expected("None", "Vxlan"));
    assert_eq!(ways("ipipMode: Always", &world()), expected("Ipip", "Ipip"));

    let mut encrypted = world();
    encrypted.push(felix("wireguardEnabled: true"));
    encrypted.push(node("a", "192.168.0.1/24", Some(0)));
    encrypted.push(node("b", "192.168.0.2/24", Some(1)));
    assert_eq!(ways("vxlanMode: Always", &encrypted), expected("Wireguard", "Vxlan"));
    // What of this node's own block is with the other one is expected from there, and no more than that.
    let a = seen("a", &encrypted);
    assert_eq!(a.routes[&cidr("10.65.1.2/32")].encapsulation(), Encapsulation::Wireguard);
    assert_eq!(a.problems, Vec::<String>::new());
}

#[test]
fn routes_that_are_left_to_bgp_are_so_by_block_too() {
    let mut objects = world();
    objects.push(pool("direct", "cidr: 10.65.0.0/16"));
    objects.push(
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
         spec: {programClusterRoutes: EnabledNoEncapOnly}"
            .to_owned(),
    );
    let routes = table(&seen("a", &objects));
    assert!(!routes.iter().any(|line| line.starts_with("10.65.3.0")), "{routes:?}");
    assert!(routes.contains(&"10.65.2.0/26 2 None".to_owned()), "of this subnet: {routes:?}");
}

#[test]
fn what_cannot_be_reached_is_said_of_each_workload_and_nothing_goes_around() {
    let mut objects = world();
    objects.push(pool("tunnels", "cidr: 10.65.0.0/16, vxlanMode: Always"));
    objects.push(felix("vxlanEnabled: false"));
    let a = seen("a", &objects);
    assert!(!a.routes.contains_key(&cidr("10.65.2.0/26")));
    assert!(matches!(a.routes[&cidr("10.65.2.1/32")].target, Some(Target::Blackhole(_))));
    assert_eq!(a.problems.iter().filter(|problem| problem.contains("10.65.2.")).count(), 2);
}

/// Where a packet to the address goes: what the longest prefix says.
fn goes(desired: &Desired, addr: IpAddr) -> Option<(Option<Target>, i32, bool, String)> {
    let around = desired.routes.iter().filter(|(cidr, _)| cidr.contains(addr));
    let (_, route) = around.max_by_key(|(cidr, _)| cidr.len())?;
    Some((route.target.clone(), route.encapsulation, route.same_subnet, route.node.clone()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packets_to_workloads_go_where_they_went_with_a_route_each(
        modes in prop::sample::select(vec!["vxlanMode: Always", "vxlanMode: CrossSubnet", "ipipMode: Always", "ipipMode: Never"]),
        blocks in prop::collection::btree_map(0..8_u8, 0..4_usize, 0..8),
        workloads in prop::collection::btree_map(0..64_u8, 0..3_usize, 0..30),
        (by_bgp, keys, service_block) in any::<(bool, bool, bool)>(),
    ) {
        let nodes = ["a", "b", "c", "lost"];
        // Eight blocks of eight addresses; the pool has the first seven of them.
        let address = |at: u8| Ipv4Addr::new(10, 65, 1, at);
        let mut objects = vec![node("c", "192.168.1.3/24", None)];
        for (n, net) in [(0, "10.65.1.0/27"), (1, "10.65.1.32/28"), (2, "10.65.1.48/29")] {
            objects.push(pool(&format!("p{n}"), &format!("blockSize: 29, cidr: {net}, {modes}")));
        }
        for (at, node) in &workloads {
            objects.push(workload(&format!("w{at}"), nodes[*node], &format!("{}/32", address(*at))));
        }
        if keys {
            objects.push(felix("wireguardEnabled: true"));
            objects.push(node("a", "192.168.0.1/24", Some(0)));
            objects.push(node("b", "192.168.0.2/24", Some(1)));
        }
        let routes = if by_bgp { "programClusterRoutes: EnabledNoEncapOnly" } else { "asNumber: 64512" };
        let service = if service_block { ", serviceExternalIPs: [{cidr: 10.65.1.8/30}]" } else { "" };
        objects.push(format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{{routes}{service}}}"
        ));
        let plain = seen("a", &objects);
        for (at, node) in &blocks {
            objects.push(block(&format!("{}/29", address(at * 8)), &format!("host:{}", nodes[*node])));
        }
        let blocked = seen("a", &objects);
        prop_assert_eq!(&plain.problems, &blocked.problems);
        for at in 0..64 {
            let addr = IpAddr::V4(address(at));
            let (then, now) = (goes(&plain, addr), goes(&blocked, addr));
            match (workloads.get(&at), blocks.get(&(at / 8))) {
                (Some(0), _) | (_, None) => prop_assert_eq!(then, now, "{}", addr),
                // Left to BGP: what it does not know is for the holder of the block, if that is not left to BGP, too.
                (Some(_), _) if !by_bgp => prop_assert_eq!(then, now, "{}", addr),
                (None, Some(0)) if !service_block => {
                    prop_assert!(matches!(now, Some((Some(Target::Blackhole(_)), ..))), "{}", addr);
                }
                (_, Some(_)) => {}
            }
        }
        // And no route is there for nothing: one alone says something else than the block's.
        for (cidr, route) in blocked.routes.iter().filter(|(cidr, _)| cidr.is_host()) {
            let block = blocks.iter().find(|(at, _)| cidr.addr() >= IpAddr::V4(address(**at * 8)) && cidr.addr() < IpAddr::V4(address(**at * 8 + 7)));
            if let (Some(Target::NextHop(_)), Some((_, holder)), false) = (&route.target, block, service_block) {
                prop_assert_ne!(&route.node, nodes[*holder], "{}", cidr);
            }
        }
    }
}
