//! Three nodes on one etcd: pods that the plugin attaches, policy by selectors across nodes, direct routes and an overlay, a
//! node that comes and goes, and an etcd that dies under traffic. Needs root, and Debian's etcd-server.
#![allow(missing_docs)]

#[path = "../../dataplane/tests/namespace/mod.rs"]
mod namespace;
mod node;

use namespace::{Station, in_namespace, ip};
use node::{Node, Place};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

/// Where etcd listens, which every node reaches over its uplink.
const ETCD: &str = "http://192.168.50.254:2379";

struct Etcd {
    folder: tempfile::TempDir,
    child: Child,
}

impl Etcd {
    /// `None`, loudly, where there is none.
    fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            let _ = writeln!(std::io::stderr(), "SKIPPED: etcd is not installed (Debian: etcd-server)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let child = Self::launch(&folder);
        Some(Self { folder, child })
    }

    fn launch(folder: &tempfile::TempDir) -> Child {
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(folder.path());
        command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// As the power supply does.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = Self::launch(&self.folder);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The network between the nodes: node-a and node-b on one subnet, node-c behind a router, which is this namespace.
fn fabric() -> [Station; 3] {
    ip("link set lo up");
    ip("link add fabric type bridge");
    ip("addr add 192.168.50.254/24 dev fabric");
    ip("link set fabric up");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let station = |n: u8, subnet: u8| {
        let near = format!("node{n}");
        let station = Station::at(&near, "eth0", &[&format!("192.168.{subnet}.{n}/24")]);
        station.there(move || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            ip(&format!("route add default via 192.168.{subnet}.254"));
        });
        match subnet {
            50 => ip(&format!("link set {near} master fabric")),
            _ => ip(&format!("addr add 192.168.{subnet}.254/24 dev {near}")),
        }
        station
    };
    [station(1, 50), station(2, 50), station(3, 51)]
}

fn node(name: &str, station: &Station) -> Node {
    Node::at(Place {
        name: name.into(),
        netns: Some(station.netns()),
        store: Some(format!("etcd:{ETCD}")),
        uplink: ["--uplink", "eth0", "--kernel-routes", "main"].map(String::from).into(),
    })
}

fn of_cluster(name: &str, address: &str) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": name},
           "spec": {"bgp": {"ipv4Address": address}}})
}

/// Blocks of 64 addresses, direct within a subnet and by VXLAN between them; web takes what comes from clients.
fn cluster() -> Vec<Value> {
    vec![
        of_cluster("node-a", "192.168.50.1/24"),
        of_cluster("node-b", "192.168.50.2/24"),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pods"},
               "spec": {"cidr": "10.66.0.0/16", "vxlanMode": "CrossSubnet"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": "shop"},
               "spec": {"selector": "app == 'web'",
                        "ingress": [{"action": "Allow", "source": {"selector": "app == 'client'"}}]}}),
    ]
}

/// A container that the plugin has attached.
struct Pod {
    name: &'static str,
    container: Station,
    address: Ipv4Addr,
}

impl Pod {
    fn start(node: &Node, name: &'static str, app: &str) -> Self {
        node.apply(&[json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
            "spec": {"nodeName": node.name(), "containers": []},
        })]);
        let container = Station::alone();
        let result = node.run("ADD", name, Some(&container.netns()), name, &network(node)).fine();
        let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
        Self { name, container, address: address.parse().unwrap() }
    }

    fn stop(self, node: &Node) {
        node.run("DEL", self.name, Some(&self.container.netns()), self.name, &network(node)).fine();
    }

    /// Whether a packet comes back.
    fn pings(&self, to: &Pod) -> bool {
        self.pinging(to, &["-c", "1", "-W", "1"]).wait().unwrap().success()
    }

    /// A hundred packets a second, until it is told to stop.
    fn streams(&self, to: &Pod) -> Stream {
        let mut ping = self.pinging(to, &["-i", "0.01"]);
        let said = BufReader::new(ping.stdout.take().unwrap());
        // Read as it comes: a full pipe would end the exchange.
        let heard = Arc::new(AtomicUsize::new(0));
        let counted = heard.clone();
        let answers = thread::spawn(move || {
            let answers = said.lines().filter_map(|line| answered(&line.unwrap()));
            answers.inspect(|_| _ = counted.fetch_add(1, Relaxed)).collect()
        });
        Stream { ping, heard, answers: Some(answers) }
    }

    fn pinging(&self, to: &Pod, how: &[&str]) -> Child {
        let mut ping = Command::new("nsenter");
        ping.arg(format!("--net={}", self.container.netns().display())).arg("ping").args(how);
        ping.arg(to.address.to_string()).stdout(Stdio::piped()).spawn().expect("ping")
    }
}

/// The number of the packet that a line of `ping` tells of, as in `64 bytes from 10.66.0.1: icmp_seq=7 ttl=62 time=0.2 ms`.
fn answered(line: &str) -> Option<u64> {
    line.split_once("icmp_seq=")?.1.split_once(' ')?.0.parse().ok()
}

fn network(node: &Node) -> Value {
    let mut network = node.network();
    network["ipam"] = json!({"type": "margay-ipam"});
    network
}

/// An exchange that goes on.
struct Stream {
    ping: Child,
    /// Answers so far.
    heard: Arc<AtomicUsize>,
    answers: Option<JoinHandle<BTreeSet<u64>>>,
}

impl Stream {
    /// Ends it, when it has gone on for ten packets more; each was answered, up to those that were on their way.
    fn stop_whole(mut self, node: &Node) {
        let enough = self.heard.load(Relaxed) + 10;
        node.until("the exchange goes on", |_| self.heard.load(Relaxed) >= enough);
        self.kill();
        let answers = self.answers.take().unwrap().join().unwrap();
        let last = answers.last().copied().unwrap_or(0);
        let lost: Vec<_> = (1..=last).filter(|packet| !answers.contains(packet)).collect();
        assert!(lost.is_empty(), "of {last} packets these had no answer: {lost:?}");
    }

    fn kill(&mut self) {
        self.ping.kill().unwrap();
        self.ping.wait().unwrap();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn three_nodes_on_one_etcd() {
    in_namespace(|| {
        let [a, b, c] = fabric();
        let Some(mut etcd) = Etcd::start() else { return };
        let mut node_a = node("node-a", &a);
        node_a.apply(&cluster());
        let node_b = node("node-b", &b);
        let web = Pod::start(&node_a, "web", "web");
        let near = Pod::start(&node_b, "near", "client");
        let other = Pod::start(&node_b, "other", "other");

        // Direct, by the block that both of node-b's pods are of.
        node_a.until("policy is known everywhere", |_| near.pings(&web));
        assert!(!other.pings(&web));
        assert_eq!(node_a.way(near.address), Some(("via".into(), vec![192, 168, 50, 2], 26)));
        assert_eq!(node_a.way(near.address), node_a.way(other.address));

        // A node comes, behind a router: by the overlay.
        node_a.apply(&[of_cluster("node-c", "192.168.51.3/24")]);
        let node_c = node("node-c", &c);
        let (far, stranger) =
            (Pod::start(&node_c, "far", "client"), Pod::start(&node_c, "stranger", "other"));
        node_a.until("the new node's pods are reached", |_| far.pings(&web));
        assert!(!stranger.pings(&web));
        assert_eq!(node_a.way(far.address), Some(("vxlan".into(), vec![192, 168, 51, 3], 26)));

        // etcd dies under traffic, and an agent with it, which starts with what it knew.
        let streams = [near.streams(&web), far.streams(&web)];
        etcd.kill();
        node_a.until("it is missed", |node| !node.is_healthy("store").0);
        node_a.kill_agent();
        node_a.launch_agent();
        let misses_it =
            |node: &Node| node.status().json["msg"].as_str().is_some_and(|why| why.contains("store:"));
        node_a.until("the agent answers, and misses it", misses_it);
        assert_eq!(node_a.endpoints().len(), 5);
        node_a.until("it tells the dataplane what it knew", |node| {
            node.served().0.iter().any(|endpoint| endpoint.name == "web" && endpoint.state == "up")
        });
        etcd.restart();
        for node in [&node_a, &node_b, &node_c] {
            node.until("etcd is followed again", |node| node.is_healthy("store").0);
        }
        // What happens then takes force everywhere.
        node_c.apply(&[json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "namespace": "shop", "labels": {"app": "client"}},
            "spec": {"nodeName": "node-b", "containers": []},
        })]);
        node_a.until("the change is known", |_| other.pings(&web));
        streams.into_iter().for_each(|stream| stream.stop_whole(&node_a));

        // A node goes; the others lose nothing.
        let stream = near.streams(&web);
        let address = far.address;
        far.stop(&node_c);
        stranger.stop(&node_c);
        drop(node_c);
        node_a.delete("node", "node-c");
        node_a.until("its routes are gone", |node| {
            node.way(address).is_some_and(|(kind, ..)| kind == "blackhole")
        });
        stream.stop_whole(&node_a);
        assert!(near.pings(&web));
    });
}
