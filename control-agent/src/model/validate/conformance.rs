//! Calico's own cases for what is valid.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{Kind, Resource, load, shared_data};

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(rename = "type")]
    type_name: String,
    title: String,
    object: Value,
    valid: bool,
}

/// Fields that valid cases use and this release refuses on admission; `supported.rs` says why.
const NOT_YET: [&str; 14] = [
    "spec.allowedUses",
    "spec.bgp.ipv4IPIPTunnelAddr",
    "spec.bgp.routeReflectorClusterID",
    "spec.disabled",
    "spec.egress[0].destination.services",
    "spec.ingress[0].http",
    "spec.ingress[0].source.services",
    "spec.ipNATs",
    "spec.ipipMode",
    "spec.namespaceSelector",
    "spec.nodeSelector",
    "spec.ports[0].hostPort",
    "spec.vxlanMode",
    "spec.wireguard",
];

/// The whole object that a case is a part of; `None` for kinds that this release does not have.
fn whole(case: &Case) -> Option<Value> {
    let part = case.object.clone();
    let metadata = json!({ "name": "test" });
    let workload = |field: &str| {
        let spec = json!({ "interfaceName": "eth0", "ipNetworks": ["1.2.3.4/32", "aabb:aabb::ffff/128"], field: [part] });
        json!({ "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec })
    };
    let rule = |rule: Value| json!({ "kind": "GlobalNetworkPolicy", "metadata": metadata, "spec": { "ingress": [rule] } });
    let mut object = match case.type_name.as_str() {
        "WorkloadEndpointPort" => workload("ports"),
        "IPNAT" => workload("ipNATs"),
        "Rule" => rule(part),
        "EntityRule" => rule(json!({ "action": "Allow", "source": part })),
        "Protocol" => rule(json!({ "action": "Allow", "protocol": part })),
        "ICMPFields" => rule(json!({ "action": "Allow", "protocol": "ICMP", "icmp": part })),
        "HTTPMatch" => rule(json!({ "action": "Allow", "http": part })),
        "NodeStatus" => json!({ "kind": "Node", "metadata": metadata, "status": part }),
        name => match name.strip_suffix("Spec") {
            Some(kind) => json!({ "kind": kind, "metadata": metadata, "spec": part }),
            None => {
                let mut object = part;
                object["kind"] = name.into();
                object
            }
        },
    };
    let kind = object["kind"].as_str().expect("set above");
    Kind::ALL.iter().any(|k| k.name() == kind).then(|| {
        object["apiVersion"] = "projectcalico.org/v3".into();
        object
    })
}

/// `Ok` with what this release refuses although Calico accepts it.
fn accepted(object: &Value) -> Result<Vec<String>, Vec<String>> {
    let resource = load(&object.to_string()).map_err(|e| texts(&e))?.remove(0);
    // As in Calico's own test, before anything is defaulted.
    let errors = resource.validate();
    if !errors.is_empty() {
        return Err(texts(&errors));
    }
    let stored = Resource::from_json(&resource.to_json()).expect("what is written can be read");
    assert_eq!(stored, resource);
    let refused = resource.unsupported().into_iter().map(|e| e.field);
    // The fragments of the suite name no node, which is no feature of Calico's; of settings most are
    // refused, and supported.rs lists those that are not.
    let settings = resource.kind() == Kind::FelixConfiguration;
    Ok(refused.filter(|field| field != "spec.node" && !settings).collect())
}

fn texts(errors: &[impl ToString]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_valid() {
    let Some(text) = shared_data("conformance/validation.json") else { return };
    let file: File = serde_json::from_str(&text).expect("the file has the documented form");
    let mut passed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut not_covered: BTreeMap<&str, usize> = BTreeMap::new();
    let mut refused = BTreeSet::new();
    let mut failures = Vec::new();
    for case in &file.cases {
        let Some(object) = whole(case) else {
            *not_covered.entry(&case.type_name).or_default() += 1;
            continue;
        };
        match accepted(&object) {
            found if found.is_ok() != case.valid => {
                failures.push(format!("{}: {}: {object}: {found:?}", case.type_name, case.title));
            }
            found => {
                *passed.entry(&case.type_name).or_default() += 1;
                refused.extend(found.unwrap_or_default());
            }
        }
    }
    println!("pass, by type: {} of {}: {passed:?}", passed.values().sum::<usize>(), file.cases.len());
    println!(
        "of kinds that this release does not have: {}: {not_covered:?}",
        not_covered.values().sum::<usize>()
    );
    assert!(!passed.is_empty(), "no case was tried");
    assert_eq!(
        refused,
        NOT_YET.map(str::to_owned).into(),
        "valid, and refused for a field not supported yet"
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
