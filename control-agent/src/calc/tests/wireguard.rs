//! Who is reached encrypted, and what the dataplane is told of it.

use super::*;
use crate::model::ENCRYPTION;
use margay_api::dataplane::v1::Encapsulation;

const KEYS: [&str; 2] =
    ["jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXgY=", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="];

fn node(name: &str, spec: &str, status: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{bgp: {{{spec}}}}}\n\
         status: {{{status}}}\n"
    )
}

fn felix(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// Node a with these keys.
fn own(status: &str) -> String {
    node("a", "ipv4Address: 192.168.0.1/24, ipv6Address: \"fd00::1/64\"", status)
}

fn of_b(status: &str) -> String {
    node("b", "ipv4Address: 192.168.0.2/24", status)
}

fn key(n: usize) -> String {
    format!("wireguardPublicKey: {}", KEYS[n])
}

fn way(desired: &Desired, destination: &str) -> Encapsulation {
    desired.routes[&cidr(destination)].encapsulation()
}

const CLIENT: &str = "10.0.1.1/32";

#[test]
fn nodes_that_have_said_their_keys_reach_each_other_encrypted_whatever_the_pool_asks_for() {
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pods}\n\
                spec: {cidr: 10.0.0.0/16, vxlanMode: Always}\n";
    let on_a = |felix: &str, a: &str, b: &str| on("a", &[pool, felix, &own(a), &of_b(b)]);
    let told = felix("default", "wireguardEnabled: true");
    let both = on_a(&told, &key(0), &key(1));
    assert_eq!(way(&both, CLIENT), Encapsulation::Wireguard);
    let Some(Target::NextHop(hop)) = &both.routes[&cidr(CLIENT)].target else { panic!() };
    assert_eq!(hop.gateway, [192, 168, 0, 2]);
    let wireguard = both.config.wireguard.as_ref().unwrap();
    assert_eq!(
        (wireguard.ipv4, wireguard.ipv6, &wireguard.ipv4_address[..]),
        (true, false, &[192, 168, 0, 1][..])
    );
    let peer = &both.wireguard_peers["b"];
    assert_eq!(
        (&peer.public_key[..], &peer.endpoint[..], peer.endpoint_port),
        (&[7; 32][..], &[192, 168, 0, 2][..], 0)
    );
    assert!(peer.public_key_v6.is_empty());
    assert!(both.config.overlay.is_some(), "for nodes without a key");
    assert_eq!(both.problems, Vec::<String>::new());

    // Before both have, as the pool says: nobody is cut off.
    for (a, b) in
        [("", key(1)), (key(0).as_str(), String::new()), ("", String::new())].map(|(a, b)| (a.to_owned(), b))
    {
        let one = on_a(&told, &a, &b);
        assert_eq!(way(&one, CLIENT), Encapsulation::Vxlan, "{a:?}, {b:?}");
        assert!(one.config.wireguard.is_some(), "the dataplane needs it to make the key");
        assert_eq!(one.wireguard_peers.len(), usize::from(!b.is_empty()));
    }
    let off = on_a(&felix("default", "wireguardEnabled: false"), &key(0), &key(1));
    assert_eq!((way(&off, CLIENT), off.config.wireguard), (Encapsulation::Vxlan, None));
    assert!(off.wireguard_peers.is_empty());
}

#[test]
fn settings_are_the_clusters_and_the_nodes() {
    let cluster =
        felix("default", "wireguardEnabled: true, wireguardListeningPort: 4000, wireguardKeepAlive: 25s");
    let of_a = felix("node.a", "wireguardMTU: 1300");
    let of_b_too = felix("node.b", "wireguardListeningPort: 5000");
    let a = on("a", &[&cluster, &of_a, &of_b_too, &own(&key(0)), &of_b(&key(1))]);
    let wireguard = a.config.wireguard.as_ref().unwrap();
    assert_eq!((wireguard.listening_port, wireguard.mtu, wireguard.keepalive_seconds), (4000, 1300, 25));
    assert_eq!(a.wireguard_peers["b"].endpoint_port, 5000, "where that node listens");
    let alone = felix("node.a", "wireguardEnabled: false");
    let a = on("a", &[&cluster, &alone, &own(&key(0)), &of_b(&key(1))]);
    assert_eq!(a.config.wireguard, None);
    assert_eq!(a.own_keys.wanted, [false; 2]);
}

#[test]
fn versions_apart() {
    let told = felix("default", "wireguardEnabledV6: true");
    let a = on("a", &[&told, &own(&format!("wireguardPublicKeyV6: {}", KEYS[0])), &of_b(&key(1))]);
    let wireguard = a.config.wireguard.as_ref().unwrap();
    assert_eq!((wireguard.ipv4, wireguard.ipv6), (false, true));
    assert_eq!(way(&a, CLIENT), Encapsulation::None);
    assert!(a.wireguard_peers.is_empty(), "it has no key for IPv6");
    let b = on("b", &[&told, &own(""), &of_b("")]);
    assert_eq!(b.config.wireguard, None);
    assert!(
        b.problems.iter().any(|problem| problem.contains("wireguardEnabledV6 has no effect")),
        "{:?}",
        b.problems
    );
}

#[test]
fn hosts_reach_each_other_encrypted_where_both_are_told_to() {
    let wireguard = felix("default", "wireguardEnabled: true, wireguardHostEncryptionEnabled: true");
    let on_a = |settings: &[&str], a: &str, b: &str| on("a", &[settings, &[&own(a), &of_b(b)]].concat());
    const B: &str = "192.168.0.2/32";
    let both = on_a(&[&wireguard], &key(0), &key(1));
    assert_eq!(way(&both, B), Encapsulation::Wireguard);
    assert!(both.config.wireguard.as_ref().unwrap().hosts);
    let Some(Target::NextHop(hop)) = &both.routes[&cidr(B)].target else { panic!() };
    assert_eq!(hop.gateway, [192, 168, 0, 2]);
    assert_eq!(both.routes[&cidr("192.168.0.1/32")].target, Some(Target::LocalHost(Default::default())));

    // Who is not told to takes nothing from our address, and who has said no key has none to take it with.
    let apart = felix("node.b", "wireguardHostEncryptionEnabled: false");
    let workloads_alone = felix("default", "wireguardEnabled: true");
    for (settings, b) in [
        (vec![&*wireguard, &*apart], key(1)),
        (vec![&*wireguard], String::new()),
        (vec![&*workloads_alone], key(1)),
    ] {
        let one = on_a(&settings, &key(0), &b);
        assert!(!one.routes.contains_key(&cidr(B)), "{settings:?}, {b:?}");
    }
}

#[test]
fn what_is_published_is_known() {
    let told = felix("default", "wireguardEnabled: true");
    let keys = |a: &str| on("a", &[&told, &own(a)]).own_keys;
    assert_eq!(
        keys(&key(0)),
        OwnKeys { wanted: [true, false], published: Some([KEYS[0].into(), String::new()]), lanes: None }
    );
    assert_eq!(keys("").published, Some(Default::default()));
    let unknown = desired(&resources(&[&told]).into_iter().collect(), "a").own_keys;
    assert_eq!(unknown.published, None);
}

#[test]
fn nodes_of_ours_say_how_many_lanes_they_take() {
    let told = felix("default", "wireguardEnabled: true");
    let with = |lanes: &str| {
        let b = of_b(&key(1))
            .replace("{name: b}", &format!("{{name: b, annotations: {{{}: {lanes:?}}}}}", super::LANES));
        on("a", &[&told, &own(&key(0)), &b]).wireguard_peers["b"].lanes
    };
    assert_eq!(["16", "1", "many", "-1"].map(with), [16, 1, 0, 0]);
    assert_eq!(
        on("a", &[&told, &own(&key(0)), &of_b(&key(1))]).wireguard_peers["b"].lanes,
        0,
        "any WireGuard"
    );
}

#[test]
fn where_encryption_is_required_nobody_is_reached_in_clear() {
    let required = |spec: &str, how: &str| {
        felix("default", spec)
            .replace("{name: default}", &format!("{{name: default, annotations: {{{ENCRYPTION}: {how}}}}}"))
    };
    let of = |felix: &str, a: &str, b: &str| {
        let desired = on("a", &[felix, &own(a), &of_b(b)]);
        let closed = matches!(desired.routes[&cidr(CLIENT)].target, Some(Target::Blackhole(_)));
        (
            closed,
            desired.problems.iter().any(|problem| problem.contains("not both published a WireGuard key")),
        )
    };
    let told = required("wireguardEnabled: true", "Required");
    assert_eq!(of(&told, &key(0), &key(1)), (false, false));
    assert_eq!(of(&told, &key(0), ""), (true, true), "the other has no key");
    assert_eq!(of(&told, "", &key(1)), (true, true), "nor this one yet");
    assert_eq!(of(&required("wireguardEnabled: false", "Required"), &key(0), &key(1)), (true, true));
    assert_eq!(of(&required("wireguardEnabled: true", "Preferred"), &key(0), ""), (false, false));
    // For one node alone.
    let one = required("{}", "Required")
        .replace("spec: {{}}", "spec: {}")
        .replace("{name: default,", "{name: node.a,");
    let told = felix("default", "wireguardEnabled: true");
    let desired = on("a", &[&told, &one, &own(&key(0)), &of_b("")]);
    assert!(matches!(desired.routes[&cidr(CLIENT)].target, Some(Target::Blackhole(_))));
}
