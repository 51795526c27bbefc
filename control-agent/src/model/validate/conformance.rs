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
const NOT_YET: [&str; 7] = [
    "spec.exportV4[0].operations[0].setPriority",
    "spec.ingress[0].http",
    "spec.ipNATs",
    "spec.password",
    "spec.ports[0].hostPort",
    "spec.reachableBy",
    "spec.wireguard",
];

/// The whole object that a case is a part of.
fn whole(case: &Case) -> Value {
    let part = case.object.clone();
    let metadata = json!({ "name": "test" });
    let of = |kind: &str, spec: Value| json!({ "kind": kind, "metadata": metadata, "spec": spec });
    let workload = |field: &str| {
        let spec = json!({ "interfaceName": "eth0", "ipNetworks": ["1.2.3.4/32", "aabb:aabb::ffff/128"], field: [part] });
        of("WorkloadEndpoint", spec)
    };
    let rule = |rule: Value| of("GlobalNetworkPolicy", json!({ "ingress": [rule] }));
    let controller = |name: &str, part: &Value| {
        of("KubeControllersConfiguration", json!({ "controllers": { name: part } }))
    };
    let mut object = match case.type_name.as_str() {
        "WorkloadEndpointPort" => workload("ports"),
        "IPNAT" => workload("ipNATs"),
        "Rule" => rule(part),
        "EntityRule" => rule(json!({ "action": "Allow", "source": part })),
        "Protocol" => rule(json!({ "action": "Allow", "protocol": part })),
        "ICMPFields" => rule(json!({ "action": "Allow", "protocol": "ICMP", "icmp": part })),
        "HTTPMatch" => rule(json!({ "action": "Allow", "http": part })),
        "NodeStatus" => json!({ "kind": "Node", "metadata": metadata, "status": part }),
        "BGPFilterRuleV4" => of("BGPFilter", json!({ "exportV4": [part] })),
        "BGPFilterRuleV6" => of("BGPFilter", json!({ "exportV6": [part] })),
        "BGPFilterOperation" => {
            of("BGPFilter", json!({ "exportV4": [{ "action": "Accept", "operations": [part] }] }))
        }
        "NodeControllerConfig" => controller("node", &part),
        "NamespaceControllerConfig" => controller("namespace", &part),
        "WorkloadEndpointControllerConfig" => controller("workloadEndpoint", &part),
        "Template" => controller("node", &json!({ "hostEndpoint": { "templates": [part] } })),
        name => match name.strip_suffix("Spec") {
            Some(kind) => of(kind, part),
            None => {
                let mut object = part;
                object["kind"] = name.into();
                object
            }
        },
    };
    object["apiVersion"] = "projectcalico.org/v3".into();
    object
}

/// `Ok` with what this release refuses although Calico accepts it.
fn accepted(object: &Value) -> Result<Vec<String>, Vec<String>> {
    let resources = load(&object.to_string()).map_err(|e| texts(&e))?;
    // As in Calico's own test, before anything is defaulted.
    let errors: Vec<_> = resources.iter().flat_map(Resource::validate).collect();
    if !errors.is_empty() {
        return Err(texts(&errors));
    }
    let mut refused = Vec::new();
    for resource in resources {
        let stored = Resource::from_json(&resource.to_json()).expect("what is written can be read");
        assert_eq!(stored, resource);
        // Some kinds are refused whole, and of settings most are: supported.rs lists those that are not.
        let whole = !resource.kind().is_acted_on() || resource.kind().is_internal();
        let partly = matches!(resource.kind(), Kind::FelixConfiguration | Kind::BGPConfiguration);
        if !whole && !partly {
            refused.extend(resource.unsupported().into_iter().map(|e| e.field));
        }
    }
    // The fragments of the suite name no node, and no settings by the name that is read.
    refused.retain(|field| field != "spec.node" && field != "metadata.name");
    Ok(refused)
}

fn texts(errors: &[impl ToString]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_valid() {
    let Some(text) = shared_data("conformance/validation.json") else { return };
    let file: File = serde_json::from_str(&text).expect("the file has the documented form");
    let mut passed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut refused = BTreeSet::new();
    let mut failures = Vec::new();
    for case in &file.cases {
        let object = whole(case);
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
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(passed.values().sum::<usize>(), file.cases.len(), "a case was left out");
    assert_eq!(
        refused,
        NOT_YET.map(str::to_owned).into(),
        "valid, and refused for a field not supported yet"
    );
}
