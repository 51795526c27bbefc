use super::*;
use crate::model::{Resource, Staged, StagedAction, load};

fn read(text: &str) -> Vec<Object> {
    let objects = load(text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let kubernetes = |object| match object {
        Resource::Kubernetes(object) => *object,
        other => panic!("{} is Calico's", other.key()),
    };
    objects.into_iter().map(kubernetes).collect()
}

fn faults(text: &str) -> Vec<String> {
    match load(text) {
        Ok(objects) => {
            let errors = objects.into_iter().flat_map(|object| object.admit().err().unwrap_or_default());
            errors.map(|error| error.to_string()).collect()
        }
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// The policy that `text` becomes.
fn converted(text: &str) -> (Value, Vec<String>) {
    let objects = read(text);
    assert_eq!(faults(text), [""; 0]);
    let Converted { resources, problems, .. } = convert(&objects[0]);
    let [policy] = resources.as_slice() else { panic!("one policy, not {resources:?}") };
    (policy.to_value()["spec"].clone(), problems)
}

/// The endpoint that the pod of `text` becomes.
fn endpoint(text: &str) -> Option<crate::model::WorkloadEndpoint> {
    let converted = convert(&read(text)[0]);
    converted.resources.into_iter().next().map(|resource| match resource {
        Resource::WorkloadEndpoint(endpoint) => endpoint,
        other => panic!("{}", other.key()),
    })
}

const CLUSTER: &str = "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: p}, \
                       spec: {tier: Admin, priority: 7, subject: {namespaces: {}}, egress: [RULE]}}";

#[test]
fn policies_of_administrators_without_rules_are_accepted_and_say_nothing() {
    for (version, kind, spec) in [
        ("v1alpha2", "ClusterNetworkPolicy", "tier: Admin, priority: 7, subject: {namespaces: {}}"),
        (
            "v1alpha2",
            "ClusterNetworkPolicy",
            "tier: Baseline, priority: 7, ingress: [], subject: {namespaces: {}}",
        ),
        ("v1alpha1", "AdminNetworkPolicy", "priority: 7, subject: {namespaces: {}}"),
    ] {
        let text = format!(
            "{{apiVersion: policy.networking.k8s.io/{version}, kind: {kind}, metadata: {{name: p}}, spec: {{{spec}}}}}"
        );
        assert_eq!(faults(&text), [""; 0], "{text}");
        let converted = convert(&read(&text)[0]);
        assert_eq!((converted.resources, converted.problems), (vec![], vec![]), "{text}");
    }
}

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
    let rule = |action: &str| {
        format!("{{action: {action}, to: [{{domainNames: [a.b]}}, {{networks: [10.0.0.0/8]}}]}}")
    };
    let (spec, problems) = converted(&CLUSTER.replace("RULE", &rule("Accept")));
    assert!(spec.get("egress").is_none(), "{spec}");
    assert_eq!(spec["types"], serde_json::json!(["Egress"]));
    assert_eq!(problems, ["spec.egress[0]: domainNames cannot be matched: the rule accepts nothing"]);
    for action in ["Deny", "Pass"] {
        let (spec, problems) = converted(&CLUSTER.replace("RULE", &rule(action)));
        assert_eq!(spec["egress"], serde_json::json!([{"action": "Deny"}]));
        assert!(problems[0].ends_with("the rule denies everything"), "{problems:?}");
    }
}

#[test]
fn later_versions_with_the_same_fields_are_read_as_the_one_that_is_written() {
    let later = CLUSTER.replace("v1alpha2", "v1beta1").replace("RULE", "{action: Deny, to: [{nodes: {}}]}");
    assert_eq!(faults(&later), [""; 0]);
    assert_eq!(load(&later).unwrap()[0].to_value()["apiVersion"], "policy.networking.k8s.io/v1alpha2");
    let none = CLUSTER.replace("v1alpha2", "v1alpha9").replace("RULE", "");
    assert!(faults(&none)[0].contains("write policy.networking.k8s.io/v1alpha2"), "{:?}", faults(&none));
}

#[test]
fn a_node_has_addresses_and_names() {
    let text = "{apiVersion: v1, kind: Node, metadata: {name: n, labels: {a: b}, annotations: \
                {projectcalico.org/IPv4Address: 10.0.0.7/24, other: x}}, spec: {podCIDRs: [10.2.0.0/24]}, \
                status: {addresses: [{type: InternalIP, address: 10.0.0.8}, {type: Hostname, address: n}], phase: x}}";
    let Converted { resources, problems, .. } = convert(&read(text)[0]);
    let [Resource::Node(node)] = resources.as_slice() else { panic!("{resources:?}") };
    assert_eq!((node.metadata.name.as_str(), &node.metadata.labels["a"]), ("n", &"b".to_owned()));
    let known: Vec<String> = node.addresses().map(|one| one.addr.to_string()).collect();
    assert_eq!(known, ["10.0.0.7", "10.0.0.8"]);
    assert!(problems.is_empty() && node.metadata.annotations.is_empty());
    assert_eq!(
        faults(&text.replace("10.0.0.8", "here")),
        ["status.addresses[0].address: \"here\" is no IP address; write one such as 10.0.0.1"]
    );
    assert!(faults(&text.replace("podCIDRs", "podCIDR5"))[0].contains("did you mean podCIDR"));
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

fn pod(spec: &str, status: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: a, namespace: x, labels: {{pod: a}}}}, spec: {{{spec} \
         containers: [{{name: c, image: i, ports: [{{name: web, containerPort: 80}}]}}]}}, status: {{{status}}}}}"
    )
}

#[test]
fn a_pod_on_a_node_is_an_endpoint() {
    let found = endpoint(&pod("nodeName: n,", "podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], phase: Running"));
    let spec = found.expect("an endpoint").spec;
    assert_eq!((spec.node.as_str(), spec.pod.as_str(), spec.ports[0].port), ("n", "a", 80));
    assert_eq!(spec.profiles, ["kns.x", "ksa.x.default"]);
    assert_eq!(spec.ip_networks.len(), 2);
    // "cali" and eleven digits of sha1("x.a"), as `printf x.a | sha1sum` has them.
    assert_eq!(spec.interface_name, "cali456b416f2bf");
    let named = pod("nodeName: n,", "podIP: 10.0.0.1")
        .replace("namespace: x,", "namespace: x, annotations: {margay.io/interface: veth0},");
    assert_eq!(endpoint(&named).unwrap().spec.interface_name, "veth0");
    assert_eq!(
        faults(&named.replace("veth0", "not an interface")),
        [
            "metadata.annotations[\"margay.io/interface\"]: \"not an interface\" is not an interface's name; use 1 to \
          15 letters, digits and _ . -"
        ]
    );
}

#[test]
fn a_pods_annotations_limit_its_flows() {
    let with = |annotations: &str| {
        pod("nodeName: n,", "podIP: 10.0.0.1")
            .replace("namespace: x,", &format!("namespace: x, annotations: {{{annotations}}},"))
    };
    let limited = with(
        "qos.projectcalico.org/ingressMaxConnections: '100', qos.projectcalico.org/egressMaxConnections: '50', \
         qos.margay.io/egressNewConnectionsPerSecond: '20'",
    );
    assert_eq!(faults(&limited), [""; 0]);
    let qos = endpoint(&limited).unwrap().spec.qos_controls.unwrap();
    assert_eq!((qos.ingress_max_connections, qos.egress_max_connections), (100, 50));
    assert_eq!((qos.ingress_new_connections_per_second, qos.egress_new_connections_per_second), (0, 20));
    assert_eq!(
        faults(&with("qos.projectcalico.org/egressMaxConnections: many")),
        ["metadata.annotations[\"qos.projectcalico.org/egressMaxConnections\"]: \"many\" is no whole number"]
    );
    for unknown in ["qos.projectcalico.org/egressBandwidth: '1000'", "qos.projectcalico.org/dscp: '20'"] {
        assert_eq!(faults(&with(unknown)).len(), 1, "{unknown}");
    }
}

#[test]
fn a_pod_that_is_the_hosts_or_nowhere_is_none() {
    let running = "podIP: 10.0.0.1, phase: Running";
    for (spec, status) in [
        ("nodeName: n, hostNetwork: true,", running),
        ("", running),
        ("nodeName: n,", "phase: Pending"),
        ("nodeName: n,", "podIP: 10.0.0.1, phase: Succeeded"),
        ("nodeName: n,", "podIP: 10.0.0.1, phase: Failed"),
    ] {
        let text = pod(spec, status);
        assert_eq!((endpoint(&text), faults(&text)), (None, vec![]), "{spec} {status}");
        let converted = convert(&read(&text)[0]);
        assert_eq!(converted.resources, []);
        // Wherever it is: its link may be there before it says where.
        let described = (!spec.contains("hostNetwork")).then(|| "a".to_owned());
        assert_eq!(converted.described.map(|link| link.spec.pod), described);
    }
    assert_eq!(
        faults(&pod("hostNetwrk: true,", "")),
        ["spec.hostNetwrk: unknown field; did you mean hostNetwork?"]
    );
}

#[test]
fn a_namespace_is_a_profile_with_its_labels() {
    let text = "{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {team: red}}}";
    let Converted { resources, .. } = convert(&read(text)[0]);
    let [Resource::Profile(profile)] = resources.as_slice() else { panic!("one profile") };
    assert_eq!(profile.metadata.name, "kns.x");
    let labels = &profile.spec.labels_to_apply;
    assert_eq!(
        (labels["pcns.kubernetes.io/metadata.name"].as_str(), labels["pcns.team"].as_str()),
        ("x", "red")
    );
    assert_eq!((profile.spec.ingress.len(), profile.spec.egress.len()), (1, 1));
}

#[test]
fn what_is_written_is_kept() {
    // As `kubectl get -o json` has it: lists and fields that mean nothing here come back as they were.
    let text = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "x", "ownerReferences": [{"name": "o"}]},
        "spec": {"podSelector": {}, "ingress": [], "policyTypes": ["Ingress"]}}"#;
    let object = load(text).unwrap().remove(0).admit().unwrap();
    assert_eq!(object.to_value(), serde_json::from_str::<Value>(text).unwrap());
    assert_eq!(object.key().to_string(), "KubernetesNetworkPolicy x/p");
    assert_eq!(Resource::from_json(&object.to_json()).unwrap(), object);
}

#[test]
fn a_pod_without_a_node_can_be_given_one() {
    let mut objects = read(&pod("", "podIP: 10.0.0.1"));
    objects[0].schedule("n");
    let written = Resource::from(objects.remove(0)).to_value();
    assert_eq!(written["spec"]["nodeName"], "n");
    assert_eq!(endpoint(&written.to_string()).unwrap().spec.node, "n");
    let mut placed = read(&pod("nodeName: m,", "podIP: 10.0.0.1"));
    placed[0].schedule("n");
    assert_eq!(Resource::from(placed.remove(0)).to_value()["spec"]["nodeName"], "m");
}

#[test]
fn a_staged_policy_is_what_the_policy_would_be() {
    let staged = "{apiVersion: projectcalico.org/v3, kind: StagedKubernetesNetworkPolicy, metadata: {name: p}, \
                  spec: {stagedAction: Learn, podSelector: {matchLabels: {a: b}}, egress: [{}]}}";
    assert_eq!(faults(staged), [""; 0]);
    let Converted { resources, .. } = convert(&read(staged)[0]);
    let [Resource::StagedNetworkPolicy(policy)] = resources.as_slice() else { panic!("{resources:?}") };
    assert_eq!(policy.metadata.name, "knp.default.p");
    assert_eq!(policy.spec.action(), StagedAction::Learn);
    let enforced = staged.replace("stagedAction: Learn, ", "").replace("StagedKubernetesN", "N");
    let enforced = enforced.replace("projectcalico.org/v3", "networking.k8s.io/v1");
    assert_eq!(Resource::from(policy.clone()).to_value()["spec"]["egress"], converted(&enforced).0["egress"]);

    let delete = "{apiVersion: projectcalico.org/v3, kind: StagedKubernetesNetworkPolicy, metadata: {name: p}, \
                  spec: {stagedAction: Delete}}";
    let Converted { resources, .. } = convert(&read(delete)[0]);
    let [Resource::StagedNetworkPolicy(policy)] = resources.as_slice() else { panic!("{resources:?}") };
    let Staged { action, policy } = &policy.spec;
    assert_eq!((*action, policy.ingress.len()), (Some(StagedAction::Delete), 0));
    let both = delete.replace("Delete", "Delete, egress: [{}]");
    assert_eq!(faults(&both), ["spec: a policy that deletes has only a stagedAction; remove the rest"]);
    assert!(
        faults(&delete.replace("Delete", "Sit"))[0]
            .contains("spec.stagedAction: \"Sit\" is not a valid value")
    );
    assert!(faults(&staged.replace("podSelector", "podSelektor"))[0].contains("did you mean podSelector?"));
}

#[test]
fn a_slice_has_addresses_and_ports() {
    let text = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s, namespace: x, \
                labels: {kubernetes.io/service-name: web}}, addressType: IPv4, endpoints: null, ports: [{port: 80}]}";
    let Typed::EndpointSlice(slice) = read(text).remove(0).typed else { panic!("another kind") };
    assert_eq!((slice.service(), slice.addresses().count(), slice.ports[0].port), (Some("web"), 0, Some(80)));
    let some = text.replace("null", "[{addresses: [10.0.0.1, example.org], conditions: {ready: false}}]");
    let Typed::EndpointSlice(slice) = read(&some).remove(0).typed else { panic!("another kind") };
    assert_eq!(slice.addresses().collect::<Vec<_>>(), [std::net::IpAddr::from([10, 0, 0, 1])]);
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
        (
            "ingress: [{ports: [{protocol: ICMP}]}]",
            "spec.ingress[0].ports[0].protocol: ICMP has no ports here",
        ),
        ("egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]", "spec.egress[0].to[0].ipBlock"),
        ("podSelector: {matchExpressions: [{key: a, operator: In}]}", "spec.podSelector: In of the label"),
    ] {
        let found = faults(&policy(spec));
        assert!(found.iter().any(|fault| fault.contains(said)), "{spec}: {found:?}");
    }
    let twice = CLUSTER.replace("RULE", "{action: Accept, from: [{namespaces: {}}], to: [{namespaces: {}}]}");
    assert!(faults(&twice)[0].contains("remove the other"));
    for peer in ["networks: [10.0.0.0/8]", "nodes: {}", "domainNames: [a.b]"] {
        let rule = format!("{{action: Accept, from: [{{{peer}}}]}}");
        let inbound = CLUSTER.replace("egress", "ingress").replace("RULE", &rule);
        let (field, _) = peer.split_once(':').unwrap();
        let wanted = format!("spec.ingress[0].from[0].{field}: only egress rules have {field}; remove it");
        assert_eq!(faults(&inbound), [wanted]);
    }
    let high = CLUSTER.replace("RULE", "{action: Accept, to: [{namespaces: {}}]}").replace("7", "1001");
    assert_eq!(faults(&high), ["spec.priority: 1001; the highest is 1000"]);
}
