//! What it costs one node's agent to work out its state in a large cluster: at the start, and after a change.
//!
//! `cargo bench -p margay-agent --bench scale -- [ENDPOINTS [POLICIES]]`

use margay_agent::{
    calc::{Resources, desired},
    model::Resource,
};
use serde_json::json;
use std::{env, fs, time::Duration, time::Instant};

/// Workloads of the node whose state is worked out, and of each other one.
const LOCAL: usize = 200;
/// Labels that tell workloads apart.
const APPS: usize = 10_000;
/// Calculations after one change each.
const CHANGES: usize = 9;

fn main() {
    let mut numbers = env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (endpoints, policies) = (numbers.next().unwrap_or(250_000), numbers.next().unwrap_or(10_000));
    let objects = cluster(endpoints, policies);

    let from = Instant::now();
    let mut resources: Resources = objects.iter().map(|json| object(json)).collect();
    let read = from.elapsed();
    let from = Instant::now();
    let first = desired(&resources, "n0");
    let calculated = from.elapsed();
    assert_eq!((first.endpoints.len(), &first.problems[..]), (LOCAL, &[][..]));
    assert!(!first.policies.is_empty() && !first.ip_sets.is_empty());
    println!("{endpoints} endpoints ({LOCAL} local) x {policies} policies");
    println!(
        "  of use here: {} policies, {} IP sets, {} routes",
        first.policies.len(),
        first.ip_sets.len(),
        first.routes.len()
    );
    println!("  objects read                          {}", seconds(read));
    println!("  calculated from nothing               {}", seconds(calculated));

    let mut times: Vec<Duration> = (0..CHANGES)
        .map(|at| {
            resources.insert(object(&endpoint(endpoints + at)));
            let from = Instant::now();
            assert_eq!(desired(&resources, "n0").endpoints.len(), LOCAL);
            from.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "  one endpoint more: median, most       {}, {}",
        seconds(times[CHANGES / 2]),
        seconds(times[CHANGES - 1])
    );

    resources.insert(object(&profile("new")));
    let from = Instant::now();
    let after = desired(&resources, "n0");
    println!("  a label of 10,000 endpoints           {}", seconds(from.elapsed()));
    assert_ne!(after.ip_sets, first.ip_sets);
    println!("  memory at most                        {}", memory());
}

fn object(json: &str) -> Resource {
    Resource::from_json(json).expect("it is made as the model has it")
}

/// As a store holds them.
fn cluster(endpoints: usize, policies: usize) -> Vec<String> {
    let nodes = (endpoints / LOCAL).max(1);
    let mut objects = vec![
        json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pods"},
               "spec": {"cidr": "10.0.0.0/8", "vxlanMode": "CrossSubnet"}})
        .to_string(),
        profile("old"),
    ];
    objects.extend((0..nodes).map(|at| {
        let address = format!("172.16.{}.{}/16", at / 250, at % 250 + 1);
        json!({"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": format!("n{at}")},
               "spec": {"bgp": {"ipv4Address": address}}})
        .to_string()
    }));
    objects.extend((0..nodes).map(|at| {
        let cidr = format!("10.{}.{}.0/24", at / 256, at % 256);
        json!({"apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock", "metadata": {"name": format!("b{at}")},
               "spec": {"cidr": cidr, "affinity": format!("host:n{at}")}})
        .to_string()
    }));
    objects.extend((0..endpoints).map(endpoint));
    objects.extend((0..policies).map(|at| {
        let (own, other) = (format!("app == 'a{}'", at % APPS), format!("app == 'a{}'", (at + 1) % APPS));
        json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
               "metadata": {"name": format!("p{at}"), "namespace": "shop"},
               "spec": {"selector": own, "ingress": [
                   {"action": "Allow", "protocol": "TCP", "source": {"selector": other}, "destination": {"ports": [80]}},
                   {"action": "Allow", "source": {"selector": "age == 'new'"}}]}})
        .to_string()
    }));
    objects
}

/// Those of a node follow each other; each 25th has the profile.
fn endpoint(at: usize) -> String {
    let (node, host) = (at / LOCAL, at % LOCAL + 1);
    let profiles: &[&str] = if at.is_multiple_of(25) { &["shop"] } else { &[] };
    json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
           "metadata": {"name": format!("n{node}-k8s-w{at}-eth0"), "namespace": "shop", "labels": {"app": format!("a{}", at % APPS)}},
           "spec": {"node": format!("n{node}"), "orchestrator": "k8s", "pod": format!("w{at}"), "endpoint": "eth0",
                    "interfaceName": format!("cali{at}"), "profiles": profiles,
                    "ipNetworks": [format!("10.{}.{}.{host}/32", node / 256, node % 256)]}})
    .to_string()
}

fn profile(age: &str) -> String {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "Profile", "metadata": {"name": "shop"},
           "spec": {"labelsToApply": {"age": age}}})
    .to_string()
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// Of this process, by the kernel.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    most.map_or("unknown", str::trim).to_owned()
}
