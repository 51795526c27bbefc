use proptest::prelude::*;

use super::*;

fn errors(text: &str) -> Vec<String> {
    load(text).expect_err(text).iter().map(ToString::to_string).collect()
}

fn keys(text: &str) -> Vec<String> {
    load(text).unwrap_or_else(|e| panic!("{text}: {e:?}")).iter().map(|r| r.key().to_string()).collect()
}

/// Every field of every kind.
const EVERYTHING: &str = include_str!("everything.yaml");

#[test]
fn every_field_of_every_kind_is_read_and_written_under_its_own_name() {
    let mut kinds = Vec::new();
    for chunk in EVERYTHING.split("---\n").skip(1) {
        let written: Value = serde_yaml_ng::from_str(chunk).unwrap();
        let object = load(chunk).unwrap_or_else(|e| panic!("{e:?}")).remove(0);
        assert_eq!(object.to_value(), written);
        assert_eq!(Resource::from_json(&object.to_json()).unwrap(), object);
        kinds.push(object.kind());
    }
    kinds.sort_unstable();
    assert_eq!(kinds, Kind::ALL);
}

#[test]
fn what_stands_behind_the_length_of_a_prefix_is_cut_off_where_calico_does_so() {
    let of = |kind: &str, spec: &str| {
        let text = format!(
            "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: p}}, spec: {spec}}}"
        );
        load(&text).map(|mut objects| objects.remove(0).to_value()["spec"].to_string())
    };
    let rule =
        "{ingress: [{action: Allow, source: {nets: [10.1.2.3/8], notNets: ['fd00::1/64', 10.0.0.1]}}]}";
    let wanted = r#""nets":["10.0.0.0/8"],"notNets":["fd00::/64","10.0.0.1/32"]"#;
    assert!(of("GlobalNetworkPolicy", rule).unwrap().contains(wanted));
    assert_eq!(of("GlobalNetworkSet", "{nets: [192.0.2.77/24]}").unwrap(), r#"{"nets":["192.0.2.0/24"]}"#);
    let pool = of("IPPool", "{cidr: 10.0.0.1/16}").unwrap_err();
    assert!(pool[0].to_string().contains("did you mean 10.0.0.0/16?"), "{pool:?}");
}

#[test]
fn an_unknown_field_names_the_nearest_and_its_place() {
    let text = "\
# two documents
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: first}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: red, lables: {a: b}}
spec:
  ingress:
  - action: Allow
    souce: {nets: [10.0.0.0/8]}
  - action: allow
    protocol: TPC
    destination: {ports: [80, 0, http, '9:8', 443, 70000], nets: [10.0.0.1/33]}
  - {}
  - action: Deny
    icmp: {typ: 8}
  selector: 5
  frobnicate: true
";
    let at = "document 2 (line 6), NetworkPolicy red/web: ";
    let mut found = errors(text);
    found.sort_unstable();
    let mut wanted = [
        "metadata.lables: unknown field; did you mean labels?",
        "spec.ingress[0].souce: unknown field; did you mean source?",
        "spec.ingress[1].action: \"allow\" is not a valid value; did you mean Allow?",
        "spec.ingress[1].protocol: \"TPC\" is not a protocol; use TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number \
         1 to 255",
        "spec.ingress[1].destination.ports[1]: 0 is not a port; ports are 1 to 65535",
        "spec.ingress[1].destination.ports[3]: the range \"9:8\" ends before it begins; write the lower port first",
        "spec.ingress[1].destination.ports[5]: 70000 is not a port; ports are 1 to 65535",
        "spec.ingress[1].destination.nets[0]: \"10.0.0.1/33\" has a length beyond 32, that of the address",
        "spec.ingress[2].action: missing; add it",
        "spec.ingress[3].icmp.typ: unknown field; did you mean type?",
        "spec.selector: integer `5`, expected a string; put it in quotes",
        "spec.frobnicate: unknown field; the valid ones are tier, order, ingress, egress, selector, types, \
         serviceAccountSelector, performanceHints",
    ]
    .map(|e| format!("{at}{e}"));
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn a_value_of_the_wrong_type_says_what_it_should_be() {
    let pool = |spec: &str| {
        errors(&format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: a}}, spec: {spec}}}"
        ))
    };
    let at = "document 1 (line 1), IPPool a: spec";
    for (spec, wanted) in [
        ("[]", ": a list, expected an object"),
        ("{}", ".cidr: missing; add it"),
        ("{cidr: 10}", ".cidr: integer `10`, expected a string; put it in quotes"),
        (
            "{cidr: 10.0.0.0/8, blockSize: 300}",
            ".blockSize: integer `300`, expected a whole number, 0 to 255",
        ),
        ("{cidr: 10.0.0.0/8, blockSize: -1}", ".blockSize: integer `-1`, expected a whole number, 0 to 255"),
        ("{cidr: 10.0.0.0/8, natOutgoing: 'yes'}", ".natOutgoing: string \"yes\", expected true or false"),
        ("{cidr: 10.0.0.0/8, allowedUses: Workload}", ".allowedUses: string \"Workload\", expected a list"),
        (
            "{cidr: 10.0.0.0/8, allowedUses: [{}]}",
            ".allowedUses[0]: an object, expected a string; put it in quotes",
        ),
    ] {
        assert_eq!(pool(spec), [format!("{at}{wanted}")], "{spec}");
    }
    let rule = |rule: &str| {
        errors(&format!(
            "{{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {{name: a}}, spec: {{ingress: [{rule}]}}}}"
        ))
    };
    let at = "document 1 (line 1), Profile a: spec.ingress[0]";
    for (written, wanted) in [
        ("{action: Allow, source: []}", ".source: a list, expected an object"),
        ("{action: Allow, source: [[10.0.0.0/8]]}", ".source: a list, expected an object"),
        ("[Allow]", ": a list, expected an object"),
        ("null", ": null, expected an object"),
        ("{action: {Allow: null}}", ".action: an object, expected a string; put it in quotes"),
    ] {
        assert_eq!(rule(written), [format!("{at}{wanted}")], "{written}");
    }
}

#[test]
fn kinds_and_versions_name_the_nearest() {
    for (header, wanted) in [
        (
            "kind: NetworkPolcy, apiVersion: projectcalico.org/v3",
            "kind: \"NetworkPolcy\" is not a kind this release knows; did you mean NetworkPolicy?",
        ),
        (
            "kind: networkpolicy, apiVersion: projectcalico.org/v3",
            "kind: \"networkpolicy\" is not a kind; did you mean NetworkPolicy of projectcalico.org/v3?",
        ),
        ("kind: 5, apiVersion: projectcalico.org/v3", "kind: not a string"),
        ("apiVersion: projectcalico.org/v3", "kind: missing"),
        ("kind: NetworkPolicy", "apiVersion: missing; write projectcalico.org/v3"),
        (
            "kind: NetworkPolicy, apiVersion: networking.k8s.io/v2",
            "apiVersion: \"networking.k8s.io/v2\" has no NetworkPolicy that this release knows",
        ),
    ] {
        let found = errors(&format!("{{{header}, metadata: {{name: a}}}}"));
        assert!(found.len() == 1 && found[0].contains(wanted), "{header}: {found:?}");
    }
    assert!(errors("just text")[0].contains("not an object"));
    assert!(errors("[1, 2]")[0].contains("not an object"));
}

const TIER: &str = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: NAME}\n";

fn tier(name: &str) -> String {
    TIER.replace("NAME", name)
}

#[test]
fn documents_come_apart_where_yaml_says() {
    assert_eq!(keys(""), [""; 0]);
    assert_eq!(keys("# nothing\n---\n---\n# nothing\n"), [""; 0]);
    assert_eq!(keys(&format!("---\n{}--- # second\r\n{}---\n", tier("a"), tier("b"))), ["Tier a", "Tier b"]);
    assert_eq!(
        keys(&format!("%YAML 1.2\n# comment\n---\n{}...\n---\n{}", tier("a"), tier("b"))),
        ["Tier a", "Tier b"]
    );
    assert_eq!(keys(&format!("\u{feff}{}", tier("a"))), ["Tier a"]);
    // Not a marker: it does not start its line.
    let text = format!("{}  \nspec:\n  order: 5 # ---\n", tier("a"));
    assert_eq!(keys(&text), ["Tier a"]);
}

#[test]
fn json_is_read_as_json_and_flow_style_as_yaml() {
    let json = |name: &str| {
        format!(
            "{{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"Tier\",\"metadata\":{{\"name\":\"{name}\"}}}}"
        )
    };
    assert_eq!(keys(&json("a")), ["Tier a"]);
    assert_eq!(keys(&format!("{}\n{}", json("a"), json("b"))), ["Tier a", "Tier b"]);
    assert_eq!(keys("{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}"), ["Tier a"]);
    let found = errors("{\n\"apiVersion\": \"projectcalico.org/v3\",\n]");
    assert!(found[0].starts_with("document 1 (line 3): cannot be read as JSON: "), "{found:?}");
}

#[test]
fn lists_hold_objects_and_give_typed_ones_their_kind() {
    let list = "{apiVersion: v1, kind: List, items: [
        {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}},
        {apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: b}}]}";
    assert_eq!(keys(list), ["Tier a", "NetworkSet b"]);
    let typed =
        "{apiVersion: projectcalico.org/v3, kind: TierList, metadata: {}, items: [{metadata: {name: a}}]}";
    assert_eq!(keys(typed), ["Tier a"]);
    let found = errors(
        "{apiVersion: v1, kind: List, items: [{kind: Tier}, {apiVersion: projectcalico.org/v3, kind: Tier, sepc: {}}], item: 3}",
    );
    assert_eq!(
        found,
        [
            "document 1 (line 1): items[0].apiVersion: missing; write projectcalico.org/v3",
            "document 1 (line 1), Tier : items[1].sepc: unknown field; did you mean spec?",
            "document 1 (line 1): item: unknown field of a list; did you mean items?",
        ]
    );
}

#[test]
fn nothing_is_silently_lost() {
    assert!(errors("{kind: Tier, kind: Node}")[0].contains("the key \"kind\" is given twice"));
    assert!(errors("{\"kind\": null, \"kind\": \"Node\"}")[0].contains("given twice"));
    let twice = format!("{}---\n{}", tier("a"), tier("a"));
    assert_eq!(
        errors(&twice),
        ["document 2 (line 5), Tier a: given twice, first in document 1; give it once"]
    );
    let set = |namespace: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {{name: a, namespace: {namespace}}}\n"
        )
    };
    assert_eq!(keys(&format!("{}---\n{}", set("a"), set("b"))).len(), 2);
    assert_eq!(errors(&format!("{}---\n{}", set("''"), set("default"))).len(), 1, "the same namespace");
}

#[test]
fn what_servers_write_is_dropped_and_null_is_absence() {
    let text = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, status: {conditions: []}, spec: {ingress: null},
        metadata: {name: a, creationTimestamp: null, uid: u, resourceVersion: '7', generation: 3, selfLink: /x, managedFields: [{}]}}";
    let object = load(text).unwrap().remove(0);
    let metadata = object.metadata();
    assert_eq!((metadata.resource_version.as_deref(), metadata.uid.as_deref()), (Some("7"), Some("u")));
    assert_eq!(metadata.creation_timestamp, None);
}

#[test]
fn errors_of_syntax_name_their_line_in_the_whole_text() {
    let text = format!("{}---\n{}spec: [\n", tier("a"), tier("b"));
    let found = load(&text).unwrap_err();
    assert!(found.len() == 1 && found[0].document == 2 && found[0].line >= 8, "{found:?}");
    assert!(errors("a: !!tag [b]")[0].starts_with("document 1 (line 1)"));
    assert!(errors("order: .nan")[0].contains("not a finite number"));
}

#[test]
fn hostile_input_is_refused_within_bounds() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let before = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![before; 10].join(", "));
    }
    assert_eq!(errors(&bomb).len(), 1);
    assert_eq!(errors(&"[".repeat(100_000)).len(), 1);
    assert_eq!(errors(&"{\"a\":".repeat(100_000)).len(), 1);
    assert_eq!(errors(&"{a: ".repeat(100_000)).len(), 1);
    assert_eq!(errors(&"- ".repeat(100_000)).len(), 1);
    assert!(errors(&" ".repeat(MAX_INPUT + 1))[0].contains("the largest input is"));
    assert!(errors(&"--- 1\n".repeat(10_000)).len() <= MAX_ERRORS);
    assert!(Resource::from_json("[]").is_err() && Resource::from_json("{} {}").is_err());
    let names: String = (0..1000).map(|i| format!("f{i}: 1\n")).collect();
    assert!(errors(&format!("{}{names}", tier("a"))).len() <= MAX_ERRORS);
}

/// Any tree of values, of the words that manifests use and of others.
fn any_value() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "",
            "a",
            "all()",
            "10.0.0.0/8",
            "fd00::/8",
            "192.0.2.1:179",
            "Enabled",
            "Always",
            "5m30s",
            "-1s",
            "1.10",
            "65000:1",
            "80:90",
            "TCP",
            "Accept",
            "Allow",
            "metadata",
            "spec",
            "name",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2_i64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word.clone(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Every value in a tree, by the way to it.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                places(field, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), into);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{i}"), into);
            }
        }
        _ => {}
    }
}

/// What was read is what is read again from what it is written as, before and after admission.
fn round_trips(objects: Vec<Resource>) {
    for object in objects {
        assert_eq!(Resource::from_json(&object.to_json()).as_ref(), Ok(&object));
        if object.validate().is_empty()
            && let Ok(admitted) = object.admit()
        {
            assert_eq!(Resource::from_json(&admitted.to_json()).as_ref(), Ok(&admitted));
            assert_eq!(admitted.clone().admit().as_ref(), Ok(&admitted));
        }
    }
}

proptest! {
    #[test]
    fn any_tree_is_read_or_refused(kind in prop::sample::select(Kind::ALL.to_vec()), spec in any_value(), metadata in any_value()) {
        let whole = serde_json::json!({
            "apiVersion": kind.api_version(), "kind": kind.manifest_name(), "metadata": metadata, "spec": spec,
        });
        for tree in [&whole, &spec] {
            if let Ok(objects) = load(&tree.to_string()) {
                round_trips(objects);
            }
            let yaml = serde_yaml_ng::to_string(tree).expect("a tree of strings and numbers");
            let _ = load(&yaml).map(round_trips);
        }
    }

    #[test]
    fn a_manifest_with_one_other_value_is_read_or_refused(
        chunk in prop::sample::select(EVERYTHING.split("---\n").skip(1).collect::<Vec<_>>()),
        at in any::<prop::sample::Index>(),
        other in any_value(),
    ) {
        let mut tree: Value = serde_yaml_ng::from_str(chunk).unwrap();
        let mut all = Vec::new();
        places(&tree, "", &mut all);
        *tree.pointer_mut(at.get::<String>(&all)).unwrap() = other;
        if let Ok(objects) = load(&tree.to_string()) {
            round_trips(objects);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = load(&text);
        let _ = Resource::from_json(&text);
    }

    #[test]
    fn so_is_a_manifest_with_changes(
        at in prop::collection::vec((0..EVERYTHING.len(), prop::sample::select(b"\n :-[]{}\"'0a\t&*!|#,.".to_vec())), 1..6)
    ) {
        let mut text = EVERYTHING.as_bytes().to_vec();
        for (i, byte) in at {
            text[i] = byte;
        }
        if let Ok(text) = String::from_utf8(text)
            && let Ok(objects) = load(&text)
        {
            for object in objects {
                prop_assert_eq!(&Resource::from_json(&object.to_json()).unwrap(), &object);
                let _ = object.admit();
            }
        }
    }
}
