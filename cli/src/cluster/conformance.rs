//! Verdicts of others: tables of policy generators, and the conformance tests of the policy API.

use margay_agent::model::load;
use serde_json::{Value, json};

use super::{Answer, Cluster};

/// A file of the shared conformance data, if it is there.
fn shared(name: &str) -> Option<Value> {
    let path = format!("{}/../../shared/conformance/{name}", env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("SKIPPED: {name}: shared data not found");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

fn cluster(objects: Vec<Value>) -> Cluster {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let objects = load(&list).unwrap_or_else(|errors| panic!("{errors:?}"));
    for object in &objects {
        assert_eq!(object.clone().admit().err(), None, "{}", object.key());
    }
    let cluster = Cluster::new(objects).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(cluster.problems(), [""; 0]);
    cluster
}

fn ask(cluster: &Cluster, from: &str, to: &str, proto: &Value, dport: &Value) -> Answer {
    let packet = json!({"from": from, "to": to, "proto": proto, "sport": 40_000, "dport": dport});
    cluster.answer(packet.to_string().as_bytes()).unwrap_or_else(|error| panic!("{packet}: {error:?}"))
}

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

#[test]
fn the_matrix_of_network_policies() {
    let Some(file) = shared("k8s_netpol_matrix.json") else { return };
    let cases = file["cases"].as_array().unwrap();
    let mut cells = 0;
    for case in cases {
        for (at, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let cluster = cluster(matrix_objects(step));
            let order: Vec<&str> =
                step["order"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
            for (port, wanted) in step["result"].as_object().unwrap() {
                let (proto, number) = port.split_once('/').unwrap();
                let number = number.parse::<u16>().map_or_else(|_| json!(number), |number| json!(number));
                for (row, from) in order.iter().enumerate() {
                    for (col, to) in order.iter().enumerate().filter(|(col, _)| *col != row) {
                        let answer = ask(&cluster, from, to, &json!(proto), &number);
                        let side = |one: &Option<super::Judgement>| {
                            one.as_ref().is_some_and(super::Judgement::allows)
                        };
                        let got = [side(&answer.ingress), side(&answer.egress), answer.verdict == "allow"];
                        let cell = |table: &str| wanted[table][row].as_str().unwrap().as_bytes()[col] == b'.';
                        let wanted = ["ingress", "egress", "combined"].map(cell);
                        let what = &case["description"];
                        assert_eq!(got, wanted, "{what}, step {at}: {from} to {to}, {port}: {answer:?}");
                        cells += 1;
                    }
                }
            }
        }
    }
    assert!(cells >= 100 * 72, "only {cells} cells were there");
}

fn matrix_objects(step: &Value) -> Vec<Value> {
    let namespaces = step["namespaces"].as_object().unwrap().iter();
    let mut objects: Vec<Value> = namespaces.map(|(name, labels)| namespace(name, labels)).collect();
    let ports = [80, 81].into_iter().flat_map(|port| {
        ["TCP", "UDP", "SCTP"].map(|protocol| {
            let name = format!("serve-{port}-{}", protocol.to_lowercase());
            json!({"name": name, "containerPort": port, "protocol": protocol})
        })
    });
    let ports: Vec<Value> = ports.collect();
    objects.extend(step["pods"].as_array().unwrap().iter().map(|pod| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod["name"], "namespace": pod["ns"], "labels": pod["labels"]},
            "spec": {"containers": [{"name": "serve", "image": "serve", "ports": ports}]},
            "status": {"podIP": pod["ip"], "podIPs": [{"ip": pod["ip"]}]},
        })
    }));
    objects.extend(step["policies"].as_array().unwrap().iter().cloned().map(|mut policy| {
        policy["apiVersion"] = json!("networking.k8s.io/v1");
        policy["kind"] = json!("NetworkPolicy");
        policy
    }));
    objects
}

#[test]
fn cluster_network_policies() {
    let Some(file) = shared("cluster_network_policy.json") else { return };
    let mut probes = 0;
    for test in file["tests"].as_array().unwrap() {
        for step in test["steps"].as_array().unwrap() {
            let namespaces = step["namespaces"].as_object().unwrap().iter();
            let mut objects: Vec<Value> =
                namespaces.map(|(name, of)| namespace(name, &of["labels"])).collect();
            objects.extend(file["pods"].as_object().unwrap().values().map(conformance_pod));
            objects.extend(step["policies"].as_array().unwrap().iter().cloned());
            let cluster = cluster(objects);
            for probe in step["probes"].as_array().unwrap() {
                let text = |field: &str| probe[field].as_str().unwrap();
                let answer =
                    ask(&cluster, text("client"), text("server"), &probe["protocol"], &probe["port"]);
                let wanted = if probe["connect"] == true { "allow" } else { "deny" };
                assert_eq!(answer.verdict, wanted, "{}: {probe}: {answer:?}", test["name"]);
                probes += 1;
            }
        }
    }
    assert!(probes >= 50, "only {probes} probes were there");
}

fn conformance_pod(pod: &Value) -> Value {
    let port = |port: &Value| json!({"name": port["name"], "containerPort": port["port"], "protocol": port["protocol"]});
    let ports: Vec<Value> = pod["named_ports"].as_array().unwrap().iter().map(port).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod["name"], "namespace": pod["namespace"], "labels": pod["labels"]},
        "spec": {
            "nodeName": pod["node"],
            "hostNetwork": pod["host_network"],
            "containers": [{"name": "server", "image": "server", "ports": ports}],
        },
        "status": {"podIP": pod["ip"]},
    })
}
