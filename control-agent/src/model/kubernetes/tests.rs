use super::*;
use crate::model::{Resource, load, load_offline};

fn read(text: &str) -> Vec<Offline> {
    load_offline(text).unwrap_or_else(|errors| panic!("{errors:?}")).1
}

fn faults(text: &str) -> Vec<String> {
    match load_offline(text) {
        Ok((_, objects)) => {
            objects.iter().flat_map(Offline::validate).map(|error| error.to_string()).collect()
        }
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// The policy that `text` becomes.
fn converted(text: &str) -> (Value, Vec<String>) {
    let objects = read(text);
    assert_eq!(faults(text), [""; 0]);
    let Converted { resources, problems, .. } = convert(Vec::new(), &objects);
    let policy = |resource: &&Resource| {
        matches!(resource, Resource::NetworkPolicy(_) | Resource::GlobalNetworkPolicy(_))
    };
    (resources.iter().find(policy).expect("a policy").to_value()["spec"].clone(), problems)
}

const CLUSTER: &str = "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: p}, \
                       spec: {tier: Admin, priority: 7, subject: {namespaces: {}}, egress: [RULE]}}";

#[test]
fn a_network_policy_becomes_calicos() {
    let (spec, problems) = converted(
        r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
    ports: [{port: 80, endPort: 90}, {port: http, protocol: UDP}]
"#,
    );
    assert!(problems.is_empty());
    assert_eq!(spec["order"], 1000);
    assert_eq!(spec["types"], serde_json::json!(["Ingress"]));
    assert_eq!(spec["selector"], "projectcalico.org/orchestrator == 'k8s' && app == \"web\"");
    let rules = spec["ingress"].as_array().unwrap();
    assert_eq!(rules.len(), 4);
    assert_eq!(rules[0]["source"]["namespaceSelector"], "all()");
    assert_eq!(rules[0]["destination"]["ports"], serde_json::json!(["80:90"]));
    assert_eq!(rules[3]["source"]["notNets"], serde_json::json!(["10.1.0.0/16"]));
    assert_eq!(
        (&rules[3]["protocol"], &rules[3]["destination"]["ports"][0]),
        (&"UDP".into(), &"http".into())
    );
}

#[test]
fn what_cannot_be_converted_fails_closed() {
    let rule =
        |action: &str| format!("{{action: {action}, to: [{{nodes: {{}}}}, {{networks: [10.0.0.0/8]}}]}}");
    let (spec, problems) = converted(&CLUSTER.replace("RULE", &rule("Accept")));
    assert!(spec.get("egress").is_none(), "{spec}");
    assert_eq!(spec["types"], serde_json::json!(["Egress"]));
    assert_eq!(
        problems,
        ["ClusterNetworkPolicy p: spec.egress[0]: nodes cannot be matched: the rule accepts nothing"]
    );
    for action in ["Deny", "Pass"] {
        let (spec, problems) = converted(&CLUSTER.replace("RULE", &rule(action)));
        assert_eq!(spec["egress"], serde_json::json!([{"action": "Deny"}]));
        assert!(problems[0].ends_with("the rule denies everything"), "{problems:?}");
    }
}

#[test]
fn a_named_port_without_a_protocol_is_one_of_each() {
    let rule = "{action: Accept, to: [{pods: {podSelector: {matchLabels: {a: b}}}}], protocols: [{destinationNamedPort: web}]}";
    let (spec, _) = converted(&CLUSTER.replace("RULE", rule));
    let protocols: Vec<_> =
        spec["egress"].as_array().unwrap().iter().map(|rule| rule["protocol"].clone()).collect();
    assert_eq!(protocols, ["TCP", "UDP", "SCTP"]);
    assert_eq!((&spec["tier"], &spec["order"]), (&"kube-admin".into(), &7.into()));
}

#[test]
fn pods_are_endpoints_unless_they_are_the_hosts() {
    let pod = |rest: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: a, namespace: x, labels: {{pod: a}}}}, spec: {{{rest} \
             containers: [{{name: c, image: i, ports: [{{name: web, containerPort: 80}}]}}]}}, \
             status: {{podIP: 10.0.0.1, phase: Running}}}}"
        )
    };
    let Converted { resources, .. } = convert(Vec::new(), &read(&pod("")));
    let endpoint = resources.iter().find_map(|resource| match resource {
        Resource::WorkloadEndpoint(endpoint) => Some(endpoint),
        _ => None,
    });
    let spec = &endpoint.expect("an endpoint").spec;
    assert_eq!((spec.node.as_str(), spec.ports[0].port), (UNSCHEDULED, 80));
    assert_eq!(spec.profiles, ["kns.x", "ksa.x.default"]);
    let profile = resources.iter().find_map(|resource| match resource {
        Resource::Profile(profile) if profile.metadata.name == "kns.x" => Some(profile),
        _ => None,
    });
    let labels = &profile.expect("its namespace").spec.labels_to_apply;
    assert_eq!(labels["pcns.kubernetes.io/metadata.name"], "x");

    let host = convert(Vec::new(), &read(&pod("hostNetwork: true, nodeName: n,")));
    assert!(!host.resources.iter().any(|resource| matches!(resource, Resource::WorkloadEndpoint(_))));
    assert_eq!(host.hosts.into_values().collect::<Vec<_>>(), ["n"]);
    assert_eq!(
        faults(&pod("hostNetwrk: true,")),
        ["spec.hostNetwrk: unknown field; did you mean hostNetwork?"]
    );
}

#[test]
fn a_profile_that_is_written_counts_more_than_a_namespace() {
    let text = "{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: kns.x}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: x}}";
    let (own, objects) = load_offline(text).unwrap();
    let Converted { resources, problems, .. } = convert(own.clone(), &objects);
    assert_eq!(
        (resources, problems),
        (own, vec!["Namespace x: Profile kns.x is given too, and counts".into()])
    );
}

#[test]
fn staged_policies_are_checked_and_are_nobodys_policy() {
    let staged = "{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: p}, \
                  spec: {stagedAction: Set, egress: [{action: Deny}]}}";
    let objects = read(staged);
    assert_eq!((objects[0].kind(), faults(staged)), ("StagedNetworkPolicy", vec![]));
    assert!(!convert(Vec::new(), &objects).resources.iter().any(|r| matches!(r, Resource::NetworkPolicy(_))));
    assert!(
        faults(&staged.replace("Set", "Sit"))[0].contains("spec.stagedAction: \"Sit\" is not a valid value")
    );
    assert!(faults(&staged.replace("action: Deny", "action: Drop"))[0].contains("spec.egress[0].action"));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let policy = |spec: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, spec: {{{spec}}}}}"
        )
    };
    for (spec, said) in [
        ("podSelektor: {}", "spec.podSelektor: unknown field; did you mean podSelector?"),
        ("ingress: [{from: [{}]}]", "spec.ingress[0].from[0]: empty"),
        ("ingress: [{ports: [{endPort: 9}]}]", "spec.ingress[0].ports[0].endPort: 9, which needs a port"),
        ("ingress: [{ports: [{port: 10, endPort: 9}]}]", "spec.ingress[0].ports[0].endPort: 9"),
        ("ingress: [{ports: [{protocol: ICMP}]}]", "spec.ingress[0].ports[0].protocol: ICMP has no ports"),
        ("egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]", "spec.egress[0].to[0].ipBlock"),
        ("podSelector: {matchExpressions: [{key: a, operator: In}]}", "spec.podSelector: In of the label"),
    ] {
        let found = faults(&policy(spec));
        assert!(found.iter().any(|fault| fault.contains(said)), "{spec}: {found:?}");
    }
    let twice = CLUSTER.replace("RULE", "{action: Accept, from: [{namespaces: {}}], to: [{namespaces: {}}]}");
    assert!(faults(&twice)[0].contains("remove the other"));
    let high = CLUSTER.replace("RULE", "{action: Accept, to: [{namespaces: {}}]}").replace("7", "1001");
    assert_eq!(faults(&high), ["spec.priority: 1001; the highest is 1000"]);
}

#[test]
fn the_store_refuses_them_and_says_who_does_not() {
    let errors = load("{apiVersion: v1, kind: Pod, metadata: {name: a}}").unwrap_err();
    let text = errors[0].to_string();
    assert!(
        text.contains("Pod default/a: is not stored") && text.contains("margayctl policy eval"),
        "{text}"
    );
}
