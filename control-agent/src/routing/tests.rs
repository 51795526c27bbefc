//! Manifests in, BIRD's configuration out, as golden files; `UPDATE=1 cargo test` writes them anew.

use super::configuration;
use crate::calc::{Bgp, Resources, desired};
use crate::model::load;
use std::{env, fs, io::Write as _, path::PathBuf, process::Command, sync::Arc};

/// Three nodes, the third of another subnet; and pools of all sorts.
const CLUSTER: &str = r#"
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: a, labels: {rack: "1"}}
spec: {bgp: {ipv4Address: 192.168.0.1/24, ipv6Address: "fd00::1/64"}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: b, labels: {rack: "1"}}
spec: {bgp: {ipv4Address: 192.168.0.2/24, ipv6Address: "fd00::2/64"}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: c, labels: {rack: "2"}}
spec: {bgp: {ipv4Address: 192.168.1.3/24, asNumber: 64514}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: plain}
spec: {cidr: 10.65.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: tunnelled}
spec: {cidr: 10.66.0.0/16, vxlanMode: CrossSubnet}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: silent}
spec: {cidr: 10.67.0.0/16, disableBGPExport: true}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: six}
spec: {cidr: "fd65::/64"}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: a-k8s-web-eth0, namespace: shop}
spec: {node: a, orchestrator: k8s, pod: web, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.65.0.1/32, "fd65::1/128"]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: a-k8s-db-eth0, namespace: shop}
spec: {node: a, orchestrator: k8s, pod: db, endpoint: eth0, interfaceName: cali2, ipNetworks: [10.67.0.1/32]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: b-k8s-api-eth0, namespace: shop}
spec: {node: b, orchestrator: k8s, pod: api, endpoint: eth0, interfaceName: cali3, ipNetworks: [10.65.1.1/32]}
"#;

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// How a node of the cluster, with some objects more, speaks BGP.
fn bgp(node: &str, more: &[String]) -> Arc<Bgp> {
    let text = format!("{CLUSTER}{}", more.concat());
    let resources: Resources = load(&text).unwrap().into_iter().collect();
    desired(&resources, node).bgp.expect("the node is known")
}

/// The text is that of the file, and BIRD can read it.
fn golden(name: &str, bgp: &Bgp) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/routing/tests").join(format!("{name}.conf"));
    let text = configuration(bgp, 179);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == wanted, "{} differs; UPDATE=1 writes it anew:\n{text}", path.display());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bird.conf");
    fs::write(&file, &text).unwrap();
    match Command::new("/usr/sbin/bird").arg("-p").arg("-c").arg(&file).output() {
        Ok(output) => {
            assert!(output.status.success(), "{name}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
        }
        Err(_) => {
            let line = format!("SKIPPED: BIRD is not here to read {name}.conf; install package bird2\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }
}

#[test]
fn a_mesh() {
    let bgp = bgp("a", &[]);
    assert_eq!(bgp.problems, Vec::<String>::new());
    golden("mesh", &bgp);
}

#[test]
fn routers_and_settings() {
    let more = [
        object(
            "BGPConfiguration",
            "default",
            "asNumber: 64600, listenPort: 1790, nodeToNodeMeshEnabled: false, logSeverityScreen: Debug, \
             bindMode: NodeIP, ignoredInterfaces: [docker0], ipv4NormalRoutePriority: 512, \
             communities: [{name: own, value: '64600:7'}], \
             prefixAdvertisements: [{cidr: 10.65.0.0/16, communities: [own, '64600:1:2']}]",
        ),
        object("BGPConfiguration", "node.a", "logSeverityScreen: Warning"),
        object(
            "BGPPeer",
            "rack-1",
            "nodeSelector: rack == '1', peerIP: 192.168.0.253, asNumber: 65001, ttlSecurity: 1, \
             keepaliveTime: 100s, maxRestartTime: 30s, numAllowedLocalASNumbers: 2, nextHopMode: Self",
        ),
        object("BGPPeer", "rack-2", "nodeSelector: rack == '2', peerIP: 192.168.1.254, asNumber: 65002"),
        object(
            "BGPPeer",
            "everywhere",
            "peerIP: '[fd00::fe]:1179', asNumber: '1.10', localASNumber: 65010, sourceAddress: None, keepOriginalNextHop: true",
        ),
        object("BGPPeer", "also-rack-1", "peerIP: 192.168.0.253, asNumber: 65099"),
        object("BGPPeer", "self", "peerIP: 192.168.0.1"),
        object("BGPPeer", "a-alone", "node: a, peerIP: 192.168.0.254, asNumber: 65009"),
        object("BGPPeer", "stranger", "peerIP: 192.168.0.77"),
        object("BGPPeer", "nobody", "node: a"),
    ];
    let bgp = bgp("a", &more);
    assert_eq!(
        bgp.problems,
        [
            "BGPPeer nobody names no peer: give peerIP or peerSelector",
            "BGPPeer stranger has no session: 192.168.0.77 is no node; give its asNumber",
        ]
    );
    golden("routers", &bgp);
}

#[test]
fn reflectors_are_found_from_both_ends() {
    let more = [
        object("BGPConfiguration", "default", "nodeToNodeMeshEnabled: false"),
        object(
            "Node",
            "r",
            "bgp: {ipv4Address: 192.168.0.9/24, routeReflectorClusterID: 224.0.0.1}, addresses: []",
        )
        .replace("name: r", "name: r, labels: {role: reflector}"),
        object("BGPPeer", "reflectors", "nodeSelector: '!has(role)', peerSelector: role == 'reflector'"),
    ];
    let ends = |node: &str| {
        let bgp = bgp(node, &more);
        bgp.sessions
            .iter()
            .map(|((addr, _), session)| (addr.to_string(), session.reflects.is_some()))
            .collect::<Vec<_>>()
    };
    assert_eq!(ends("a"), [("192.168.0.9".to_owned(), false)]);
    let far = [("192.168.0.1", true), ("192.168.0.2", true), ("192.168.1.3", false)];
    assert_eq!(ends("r"), far.map(|(addr, reflects)| (addr.to_owned(), reflects)), "c is of another AS");
    golden("reflector", &bgp("r", &more));

    let manual = more[2].replace("spec: {", "spec: {reversePeering: Manual, ");
    let one_way = [more[0].clone(), more[1].clone(), manual];
    assert!(bgp("r", &one_way).sessions.is_empty());
    let meshed = [more[1].clone()];
    assert!(bgp("r", &meshed).sessions.is_empty(), "a reflector is no part of the mesh");
}

#[test]
fn filters_go_before_our_own_rules() {
    let more = [
        object("BGPPeer", "router", "peerIP: 192.168.0.254, asNumber: 65001, filters: [first, second]"),
        object("BGPPeer", "closed", "peerIP: 192.168.0.253, asNumber: 65001, filters: [first, missing]"),
        object(
            "BGPFilter",
            "first",
            "importV4: [{cidr: 0.0.0.0/0, matchOperator: Equal, action: Accept}, \
               {cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 16, max: 24}, interface: 'eth*', action: Reject}], \
             exportV4: [{cidr: 10.65.0.0/16, matchOperator: NotIn, source: RemotePeers, peerType: eBGP, action: Reject}, \
               {communities: {values: ['1:2']}, asPathPrefix: [65001, 65002], action: Accept, \
                operations: [{addCommunity: {value: '1:2:3'}}, {prependASPath: {prefix: [1, 2]}}]}], \
             exportV6: [{action: Reject}]",
        ),
        object(
            "BGPFilter",
            "second",
            "importV4: [{peerType: iBGP, action: Reject}, {cidr: 10.9.0.0/16, matchOperator: NotEqual, action: Reject}]",
        ),
    ];
    let bgp = bgp("b", &more);
    assert_eq!(
        bgp.problems,
        [
            "BGPPeer closed names BGPFilter \"missing\", which is not there: the session takes and gives nothing"
        ]
    );
    golden("filters", &bgp);
}

#[test]
fn a_block_is_announced_in_place_of_its_addresses() {
    let block = |name: &str, cidr: &str, node: &str| {
        let spec = format!(
            "cidr: {cidr}, affinity: 'host:{node}', allocations: [], unallocated: [], attributes: []"
        );
        object("IPAMBlock", name, &spec)
    };
    let more = [block("one", "10.65.0.0/26", "a"), block("two", "10.65.1.0/26", "b")];
    let own: Vec<_> = bgp("a", &more).own.iter().map(ToString::to_string).collect();
    assert_eq!(own, ["10.65.0.0/26", "10.67.0.1/32", "fd65::1/128"]);
}

#[test]
fn names_do_not_reach_the_text() {
    let mut bgp = Bgp::clone(&bgp("a", &[]));
    for session in bgp.sessions.values_mut() {
        session.object = "x\"; } protocol static evil { ipv4; route 0.0.0.0/0 blackhole; } #\n\\".into();
        session.node = Some("ä{}".repeat(200));
    }
    let text = configuration(&bgp, 179);
    assert!(!text.contains("evil {") && text.is_ascii(), "{text}");
    assert_eq!(text.matches("description \"x__ _ protocol static evil _ ipv4_ route").count(), 3);
    let longest = text.lines().map(str::len).max().unwrap();
    assert!(longest < 300, "{longest}");
}

#[test]
fn a_node_without_ipv4_has_a_name_of_its_own() {
    let six = |name: &str| object("Node", name, "bgp: {ipv6Address: 'fd00::7/64'}");
    let id = |name: &str| bgp(name, &[six(name)]).router_id;
    assert_eq!(id("f"), id("f"));
    assert_ne!(id("f"), id("g"));
    assert!(id("f").octets()[0] >= 240);
}

#[test]
fn who_is_not_known_says_nothing() {
    let resources: Resources = load(CLUSTER).unwrap().into_iter().collect();
    assert_eq!(desired(&resources, "nobody").bgp, None);
}
