//! What it costs one node's agent to keep its state in a large cluster: at the start, and after changes, up to the state of
//! which the dataplane is sent what is different.
//!
//! `cargo bench -p margay-agent --bench scale -- [ENDPOINTS [POLICIES]]`

use margay_agent::{
    calc::{Desired, Graph},
    model::{Key, Kind, Resource},
    sync,
};
use serde_json::json;
use std::{env, fs, time::Duration, time::Instant};

/// Workloads of the node whose state is worked out, and of each other one.
const LOCAL: usize = 200;
/// Labels that tell workloads apart.
const APPS: usize = 10_000;
/// Changes of a sort, each followed by itself.
const CHANGES: usize = 1_000;

/// The calculation, and the state that the dataplane has.
struct Node {
    graph: Graph,
    sent: Desired,
}

impl Node {
    /// Follows changes as the agent does, up to the messages. Returns how many changes are in them.
    fn follow(&mut self, objects: impl IntoIterator<Item = Resource>) -> usize {
        objects.into_iter().for_each(|object| self.graph.insert(object));
        self.send()
    }

    fn send(&mut self) -> usize {
        let next = self.graph.update().clone();
        let messages = sync::messages(&self.sent, &next);
        self.sent = next;
        messages.iter().map(|message| message.changes.len()).sum()
    }
}

fn main() {
    let mut numbers = env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (endpoints, policies) = (numbers.next().unwrap_or(250_000), numbers.next().unwrap_or(10_000));

    let mut node = Node { graph: Graph::new("n0"), sent: Desired::default() };
    let from = Instant::now();
    cluster(endpoints, policies).for_each(|object| node.graph.insert(object));
    let read = from.elapsed();
    let from = Instant::now();
    let changes = node.send();
    let calculated = from.elapsed();
    let first = node.sent.clone();
    assert_eq!((first.endpoints.len(), &first.problems[..]), (LOCAL, &[][..]));
    assert!(!first.policies.is_empty() && !first.ip_sets.is_empty());
    println!("{endpoints} endpoints ({LOCAL} local) x {policies} policies");
    println!(
        "  of use here: {} policies, {} IP sets, {} routes",
        first.policies.len(),
        first.ip_sets.len(),
        first.routes.len()
    );
    println!("  objects read                          {}", text(read));
    println!("  calculated from nothing               {}, {changes} changes to send", text(calculated));
    println!("  memory at most                        {}", memory());

    let others = (endpoints / LOCAL).max(2) - 1;
    let more: Vec<_> =
        (0..CHANGES).map(|at| newcomer(endpoints + at, at % others + 1, at / others)).collect();
    each("one endpoint more elsewhere", &mut node, more.into_iter().map(|object| [object]));
    // One comes when another has gone, which is not timed: the node stays as large as it is.
    let mut here = Vec::new();
    for at in endpoints + CHANGES..endpoints + 2 * CHANGES {
        let (newcomer, from) = (newcomer(at, 0, 0), Instant::now());
        std::hint::black_box(node.follow([newcomer]));
        here.push(from.elapsed());
        node.graph.remove(&Key { kind: Kind::WorkloadEndpoint, namespace: "shop".into(), name: name(at, 0) });
        node.send();
    }
    print("one endpoint more here", here);

    let updates: Vec<_> = (0..CHANGES).map(|at| relabelled(at * 211 % endpoints)).collect();
    let (from, cpu) = (Instant::now(), cpu());
    each("an endpoint's own labels", &mut node, updates.into_iter().map(|object| [object]));
    let spent = self::cpu().saturating_sub(cpu).min(from.elapsed());
    println!("  1,000 such updates a second           {:.1} % of a core", spent.as_secs_f64() * 100.0);

    let ages: Vec<_> = ["new", "old", "new", "old", "new"].map(profile).into();
    each("a label of 10,000 endpoints", &mut node, ages.into_iter().map(|object| [object]));
    assert_ne!(node.sent.ip_sets, first.ip_sets);
    let changed: Vec<_> = (0..20).map(|at| policy(at, 81 + at)).collect();
    each("a policy of this node", &mut node, changed.into_iter().map(|object| [object]));
    let nodes: Vec<_> = (0..20).map(|at| node_object(100_000 + at)).collect();
    each("a node more", &mut node, nodes.into_iter().map(|object| [object]));
    println!("  memory at most                        {}", memory());
}

/// Follows some changes, each by itself.
fn each<const N: usize>(what: &str, node: &mut Node, changes: impl Iterator<Item = [Resource; N]>) {
    let times = changes.map(|objects| {
        let from = Instant::now();
        std::hint::black_box(node.follow(objects));
        from.elapsed()
    });
    print(what, times.collect());
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| text(times[(times.len() * share / 100).min(times.len() - 1)]);
    println!("  {what:<37} median {}, 99 % {}, most {}", at(50), at(99), at(100));
}

/// As a store holds it.
fn object(json: &serde_json::Value) -> Resource {
    Resource::from_json(&json.to_string()).expect("it is made as the model has it")
}

fn cluster(endpoints: usize, policies: usize) -> impl Iterator<Item = Resource> {
    let nodes = (endpoints / LOCAL).max(1);
    let pool = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pods"},
               "spec": {"cidr": "10.0.0.0/8", "vxlanMode": "CrossSubnet"}});
    let blocks = (0..nodes).map(|at| {
        let cidr = format!("10.{}.{}.0/24", at / 256, at % 256);
        object(
            &json!({"apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock", "metadata": {"name": format!("b{at}")},
               "spec": {"cidr": cidr, "affinity": format!("host:n{at}")}}),
        )
    });
    [object(&pool), profile("old")]
        .into_iter()
        .chain((0..nodes).map(node_object))
        .chain(blocks)
        .chain((0..endpoints).map(|at| endpoint(at, at / LOCAL)))
        .chain((0..policies).map(|at| policy(at, 80)))
}

fn node_object(at: usize) -> Resource {
    let address = format!("172.{}.{}.{}/16", 16 + at / 62_500, at / 250 % 250, at % 250 + 1);
    object(
        &json!({"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": format!("n{at}")},
               "spec": {"bgp": {"ipv4Address": address}}}),
    )
}

fn policy(at: usize, port: usize) -> Resource {
    let (own, other) = (format!("app == 'a{}'", at % APPS), format!("app == 'a{}'", (at + 1) % APPS));
    object(&json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
               "metadata": {"name": format!("p{at}"), "namespace": "shop"},
               "spec": {"selector": own, "ingress": [
                   {"action": "Allow", "protocol": "TCP", "source": {"selector": other}, "destination": {"ports": [port]}},
                   {"action": "Allow", "source": {"selector": "age == 'new'"}}]}}))
}

fn name(at: usize, node: usize) -> String {
    format!("n{node}-k8s-w{at}-eth0")
}

/// Those of a node follow each other.
fn endpoint(at: usize, node: usize) -> Resource {
    labelled(at, node, at % LOCAL, at % APPS)
}

/// One of a node that has its share already, and some others.
fn newcomer(at: usize, node: usize, others: usize) -> Resource {
    labelled(at, node, LOCAL + others, at % APPS)
}

/// One that there is, with the label of another.
fn relabelled(at: usize) -> Resource {
    labelled(at, at / LOCAL, at % LOCAL, (at + 1) % APPS)
}

/// With that address of its node's block; each 25th has the profile.
fn labelled(at: usize, node: usize, place: usize, app: usize) -> Resource {
    let profiles: &[&str] = if at.is_multiple_of(25) { &["shop"] } else { &[] };
    let host = place + 1;
    object(&json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
           "metadata": {"name": name(at, node), "namespace": "shop", "labels": {"app": format!("a{app}")}},
           "spec": {"node": format!("n{node}"), "orchestrator": "k8s", "pod": format!("w{at}"), "endpoint": "eth0",
                    "interfaceName": format!("cali{at}"), "profiles": profiles,
                    "ipNetworks": [format!("10.{}.{}.{host}/32", node / 256, node % 256)]}}))
}

fn profile(age: &str) -> Resource {
    object(&json!({"apiVersion": "projectcalico.org/v3", "kind": "Profile", "metadata": {"name": "shop"},
           "spec": {"labelsToApply": {"age": age}}}))
}

fn text(time: Duration) -> String {
    match time {
        time if time < Duration::from_millis(10) => format!("{:.3} ms", time.as_secs_f64() * 1e3),
        time => format!("{:.3} s", time.as_secs_f64()),
    }
}

/// What this process has had of processors, by the kernel.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

/// Of this process, by the kernel.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    most.map_or("unknown", str::trim).to_owned()
}
