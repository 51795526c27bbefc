//! Verdicts of another implementation's tests: `polprog.json` of the shared conformance data.

use serde_json::{Value, json};

use super::{Answer, answer};

#[test]
fn every_case_of_polprog() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/conformance/polprog.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("SKIPPED: polprog.json: shared data not found");
        return;
    };
    let file: Value = serde_json::from_str(&text).unwrap();
    let prefix = large_tier();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 41, "cases have gone: {}", cases.len());
    for case in cases {
        let mut case = case.clone();
        let mut wanted = Vec::new();
        for probe in case["packets"].as_array_mut().unwrap() {
            let probe = probe.as_object_mut().unwrap();
            wanted.push(probe.remove("verdict").unwrap());
        }
        let name = format!("{} (IPv{}, {})", case["name"], case["ip_version"], case["suite"]);
        assert_eq!(answered(&case), wanted, "{name}");
        if case["suite"] == "workload" {
            case["ip_sets"]["empty"] = json!([]);
            let rules = case["rules"].as_object_mut().unwrap();
            let tiers = rules.entry("tiers").or_insert_with(|| json!([]));
            tiers.as_array_mut().unwrap().insert(0, prefix.clone());
            assert_eq!(answered(&case), wanted, "{name}, behind the large tier");
        }
    }
}

fn answered(case: &Value) -> Vec<Value> {
    let Answer { verdicts } = answer(case.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error:?}"));
    verdicts.into_iter().map(Value::from).collect()
}

/// `WithLargePrefixedTier`: 250 policies of 50 rules, none of which matches, then pass.
fn large_tier() -> Value {
    let range = |first: u64, last: u64| json!({"first": first, "last": last});
    let rule = |n: u64| {
        let mut ports = vec![range(1, 1 + n % 8000)];
        if n.is_multiple_of(1000) {
            ports.extend((0..2000).map(|i| range(10_000 + 2 * i, 10_000 + 2 * i)));
        }
        let action = ["allow", "deny", "pass"][(n % 3) as usize];
        json!({"action": action, "protocol": "tcp", "src_ip_set_ids": ["empty"], "dst_ports": ports})
    };
    let policy = |p: u64| {
        let mut rules: Vec<Value> = (0..50).map(|r| rule(p * 50 + r)).collect();
        if p == 249 {
            rules.push(json!({"action": "pass"}));
        }
        json!({"name": format!("large-{p}"), "rules": rules})
    };
    json!({"name": "large", "end_action": "deny", "policies": (0..250).map(policy).collect::<Vec<_>>()})
}
