//! The plugin as a runtime runs it, with a real agent, a real dataplane, and containers that talk.
#![allow(missing_docs)]

#[path = "../../dataplane/tests/namespace/mod.rs"]
mod namespace;
mod node;

use namespace::{Station, in_namespace, ip};
use node::{Node, links};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

fn pod(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
           "spec": {"nodeName": "node-a", "containers": []}})
}

/// The namespace, whose pods may talk to each other; web takes what comes from clients, and nothing else.
fn policy() -> Vec<Value> {
    let source = json!({"selector": "app == 'client'"});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": "shop"},
               "spec": {"selector": "app == 'web'", "ingress": [{"action": "Allow", "source": source}]}}),
    ]
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Whether a first packet comes back.
fn pings(from: &Station, to: &str) -> bool {
    let to = to.to_owned();
    from.there(move || {
        let output = Command::new("ping").args(["-c", "1", "-W", "1", &to]).output().expect("ping");
        output.status.success()
    })
}

/// A container, attached.
fn attached(node: &Node, name: &str) -> (Station, Value) {
    let container = Station::alone();
    let result = node.run("ADD", name, Some(&container.netns()), name, &node.network()).fine();
    (container, result)
}

fn address(result: &Value, at: usize) -> String {
    result["ips"][at]["address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

fn in_shell(container: &Station, arguments: &str) {
    let arguments = arguments.to_owned();
    container.there(move || ip(&arguments));
}

fn gone(node: &Node) {
    assert_eq!(links(), [""; 0]);
    assert_eq!(node.endpoints(), [""; 0]);
    node.until("the dataplane lets go", |node| node.served().1 == 0);
    let leases = node.files("host-local/net").into_iter().filter(|file| file.starts_with(char::is_numeric));
    assert_eq!(leases.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn containers_talk_from_their_first_packet_as_policy_says() {
    in_namespace(|| {
        let node = Node::start();
        node.apply(&policy());
        node.apply(&[pod("web", "web"), pod("client", "client"), pod("other", "other")]);
        let ((web, result), (client, _), (other, _)) =
            (attached(&node, "web"), attached(&node, "client"), attached(&node, "other"));
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(result["interfaces"][1]["sandbox"], web.netns().to_str().unwrap());
        assert_eq!(result["ips"][0]["interface"], 1);
        assert!(pings(&client, &address(&result, 0)) && !pings(&other, &address(&result, 0)));
        if has_ipv6() {
            assert!(pings(&client, &address(&result, 1)) && !pings(&other, &address(&result, 1)));
        }
        // Whoever becomes a client is one.
        node.apply(&[pod("other", "client")]);
        assert!(pings(&other, &address(&result, 0)));

        // The same again changes nothing.
        let again = node.run("ADD", "web", Some(&web.netns()), "web", &node.network()).fine();
        assert_eq!(again["ips"][0]["address"], result["ips"][0]["address"]);
        assert_eq!(again["interfaces"], result["interfaces"]);
        assert!(pings(&client, &address(&result, 0)));

        let mut network = node.network();
        network["prevResult"] = result.clone();
        let check = || node.run("CHECK", "web", Some(&web.netns()), "web", &network);
        check().fine();
        in_shell(&web, &format!("addr del {}/32 dev eth0", address(&result, 0)));
        let (code, message) = check().error();
        assert!(code == 100 && message.contains("does not have the address"), "{code} {message}");
        in_shell(&web, "link del eth0");
        let (code, message) = check().error();
        assert!(code == 100 && message.contains("is gone"), "{code} {message}");
        for (name, container) in [("web", &web), ("client", &client), ("other", &other), ("web", &web)] {
            node.run("DEL", name, Some(&container.netns()), name, &node.network()).fine();
        }
        gone(&node);
    });
}

#[test]
fn what_dies_leaves_nothing_open_and_nothing_behind() {
    in_namespace(|| {
        let mut node = Node::start();
        node.apply(&policy());
        let ((client, _), (web, result)) = (attached(&node, "client"), attached(&node, "web"));
        assert!(pings(&client, &address(&result, 0)));

        node.kill_agent();
        let (code, message) = node.status().error();
        assert!(code == 50 && message.contains("the agent does not answer"), "{code} {message}");
        assert!(pings(&client, &address(&result, 0)), "what is there goes on");
        let late = Station::alone();
        let (code, _) = node.run("ADD", "late", Some(&late.netns()), "late", &node.network()).error();
        assert_eq!(code, 11);
        // Its namespace is gone, and so is the agent.
        drop(web);
        node.run("DEL", "web", None, "web", &node.network()).fine();
        assert_eq!(links().len(), 1);
        assert_eq!(node.files("state/deleted"), ["net@web@eth0"]);
        node.start_agent();
        assert_eq!(node.files("state/deleted"), [""; 0], "STATUS has told the agent");
        assert_eq!(node.endpoints(), ["node--a-k8s-client-eth0"]);

        node.kill_dataplane();
        node.until("the dataplane is missed", |node| !node.status().fine);
        assert_eq!(node.status().error().0, 51);
        assert!(!pings(&client, &address(&result, 0)));
        let (code, _) = node.run("ADD", "late", Some(&late.netns()), "late", &node.network()).error();
        assert_eq!(code, 51);
        assert_eq!(links().len(), 1, "nothing is left of it");
        node.start_dataplane();
        node.until("the dataplane is back", |node| node.status().fine);
        let (late, _) = attached(&node, "late");
        let mut network = node.network();
        network["cniVersion"] = "1.1.0".into();
        let (code, message) = node.run("GC", "", None, "", &network).error();
        assert!(code == 7 && message.contains("cni.dev/valid-attachments"), "{code} {message}");
        // Debian's host-local speaks no GC: all else is freed, and its word is told.
        network["cni.dev/valid-attachments"] = json!([{"containerID": "late", "ifname": "eth0"}]);
        let (_, message) = node.run("GC", "", None, "", &network).error();
        assert!(message.starts_with("host-local: "), "{message}");
        assert_eq!(node.endpoints(), ["node--a-k8s-late-eth0"]);
        assert_eq!(links().len(), 1);
        for (name, container) in [("late", &late), ("client", &client)] {
            node.run("DEL", name, Some(&container.netns()), name, &node.network()).fine();
        }
        gone(&node);
    });
}

#[test]
fn the_agent_assigns_addresses() {
    in_namespace(|| {
        let node = Node::start();
        node.apply(&policy());
        let mut network = node.network();
        network["cniVersion"] = "1.1.0".into();
        network["ipam"] = json!({"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": has_ipv6()});
        let run = |command, name: &str, netns: &Station| {
            node.run(command, name, Some(&netns.netns()), name, &network)
        };
        let (code, message) = node.run("STATUS", "", None, "", &network).error();
        assert!(code == 50 && message.contains("no IPPool"), "{code} {message}");
        let (web, fixed) = (Station::alone(), Station::alone());
        assert_eq!(run("ADD", "web", &web).error().0, 11);
        assert_eq!(links(), [""; 0]);

        let pool = |name, cidr| json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr}});
        node.apply(&[pool("v4", "10.66.0.0/24"), pool("v6", "fd66::/116")]);
        let mut wants = pod("fixed", "client");
        wants["metadata"]["annotations"] = json!({"cni.projectcalico.org/ipAddrs": "[\"10.66.0.9\"]"});
        node.apply(&[pod("web", "web"), wants]);
        node.run("STATUS", "", None, "", &network).fine();
        let result = run("ADD", "web", &web).fine();
        assert!(address(&result, 0).starts_with("10.66.0."), "{result}");
        assert_eq!(result["ips"].as_array().unwrap().len(), if has_ipv6() { 2 } else { 1 });
        assert_eq!(address(&run("ADD", "fixed", &fixed).fine(), 0), "10.66.0.9");
        assert!(pings(&fixed, &address(&result, 0)));
        assert_eq!(run("ADD", "web", &web).fine()["ips"], result["ips"], "the same again");

        let mut collection = network.clone();
        collection["cni.dev/valid-attachments"] = json!([{"containerID": "web", "ifname": "eth0"}]);
        node.run("GC", "", None, "", &collection).fine();
        assert_eq!(node.endpoints(), ["node--a-k8s-web-eth0"]);
        // Its address is free again.
        let again = Station::alone();
        assert_eq!(address(&run("ADD", "fixed", &again).fine(), 0), "10.66.0.9");
        for (name, container) in [("web", &web), ("fixed", &again), ("web", &web)] {
            run("DEL", name, container).fine();
        }
        gone(&node);
        assert!(node.addresses().is_empty(), "{:?}", node.addresses());
    });
}

#[test]
fn many_at_once_leave_nothing() {
    in_namespace(|| {
        let node = Node::start();
        let containers: Vec<(String, Station)> =
            (0..50).map(|n| (format!("c{n}"), Station::alone())).collect();
        let at_once = |command: &'static str| {
            let network = node.network();
            let mut results = Vec::new();
            std::thread::scope(|scope| {
                let node = &node;
                let network = &network;
                let running: Vec<_> = containers
                    .iter()
                    .map(|(name, container)| {
                        scope.spawn(move || {
                            node.run(command, name, Some(&container.netns()), "", network).fine()
                        })
                    })
                    .collect();
                results.extend(running.into_iter().map(|run| run.join().unwrap()));
            });
            results
        };
        let mut addresses: Vec<String> = at_once("ADD").iter().map(|result| address(result, 0)).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), containers.len());
        assert_eq!(node.endpoints().len(), containers.len());
        assert!(pings(&containers[0].1, &addresses[7]) && pings(&containers[49].1, &addresses[0]));
        at_once("DEL");
        gone(&node);
    });
}

#[test]
fn versions_are_told_without_a_configuration() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_margay-cni")).env("CNI_COMMAND", "VERSION").output().unwrap();
    let versions: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(versions["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}
