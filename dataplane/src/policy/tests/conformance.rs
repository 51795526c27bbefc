//! Verdicts of another implementation's tests: `polprog.json` of the shared conformance data.

use crate::net::{Addr, FlowKey, Icmp, PortRange, Prefix, Proto};
use crate::policy::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Deserialize)]
struct File {
    expansions: Vec<Expansion>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Expansion {
    name: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    suite: String,
    ip_version: u8,
    rules: Rules,
    ip_sets: BTreeMap<String, Vec<String>>,
    packets: Vec<Probe>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rules {
    tiers: Vec<Tier>,
    profiles: Vec<Named>,
    /// Whatever else the case asks for.
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tier {
    name: String,
    end_action: String,
    policies: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    rules: Vec<Written>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    action: String,
    protocol: Option<String>,
    src_net: Vec<String>,
    dst_net: Vec<String>,
    not_src_net: Vec<String>,
    not_dst_net: Vec<String>,
    src_ports: Vec<Range>,
    dst_ports: Vec<Range>,
    not_src_ports: Vec<Range>,
    not_dst_ports: Vec<Range>,
    src_ip_set_ids: Vec<String>,
    src_named_port_ip_set_ids: Vec<String>,
    dst_named_port_ip_set_ids: Vec<String>,
    icmp: Option<Type>,
    not_icmp: Option<Type>,
}

#[derive(Deserialize)]
struct Range {
    first: u16,
    last: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Type {
    r#type: u8,
    code: Option<u8>,
}

#[derive(Deserialize)]
struct Probe {
    packet: Packet,
    verdict: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Packet {
    proto: u8,
    src: String,
    dst: String,
    #[serde(default)]
    sport: u16,
    #[serde(default)]
    dport: u16,
    #[serde(default)]
    icmp_type: u8,
    #[serde(default)]
    icmp_code: u8,
}

/// What a case may ask for and this room cannot do yet, with how to tell.
fn left_out(case: &serde_json::Value) -> Option<String> {
    let suite = case["suite"].as_str().unwrap_or_default();
    if suite == "host" || suite == "xdp_untracked" {
        return Some(format!("suite {suite}: host endpoints"));
    }
    None
}

#[test]
fn polprog() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/conformance/polprog.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("SKIPPED: polprog.json: shared data not found");
        return;
    };
    let raw: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut kept = raw.clone();
    let cases = raw["cases"].as_array().unwrap();
    let run: Vec<_> = cases.iter().filter(|case| left_out(case).is_none()).cloned().collect();
    for case in cases {
        if let Some(why) = left_out(case) {
            println!("left out: {}: {why}", case["name"]);
        }
    }
    println!("polprog.json: {} of {} cases run, each alone and behind the expansion", run.len(), cases.len());
    kept["cases"] = run.into();
    let file: File = serde_json::from_value(kept).unwrap();
    assert_eq!(file.expansions.iter().map(|e| &e.name[..]).collect::<Vec<_>>(), ["WithLargePrefixedTier"]);

    let mut expanded = 0;
    for case in &file.cases {
        let mut ids: BTreeMap<&str, SetId> = BTreeMap::new();
        let mut members = Vec::new();
        for (name, texts) in &case.ip_sets {
            ids.insert(name, SetId(members.len() as u32));
            members.push(Some(Arc::new(IpSet { name: name.as_str().into(), members: set(texts) })));
        }
        let empty = SetId(members.len() as u32);
        members.push(Some(Arc::new(IpSet {
            name: "empty".into(),
            members: SetMembers::Ip(Members::default()),
        })));
        let sets = SetTable::new(members).unwrap();
        let list = list(case, &ids);
        run_case(case, &list, &sets);
        if case.suite == "workload" {
            let mut behind = list.clone();
            behind.tiers.insert(0, large_tier(empty));
            run_case(case, &behind, &sets);
            expanded += 1;
        }
    }
    assert_eq!(
        (file.cases.len(), expanded),
        (37, 36),
        "cases appeared or vanished: look at what left_out keeps"
    );
}

fn run_case(case: &Case, list: &RuleList, sets: &SetTable) {
    let compiled = compile(list.clone()).unwrap();
    for probe in &case.packets {
        let p = &probe.packet;
        let (src, dst) = (p.src.parse().unwrap(), p.dst.parse().unwrap());
        let q = Query {
            key: FlowKey { src, dst, sport: p.sport, dport: p.dport, proto: Proto(p.proto) },
            icmp: Icmp { kind: p.icmp_type, code: p.icmp_code },
        };
        let at = format!("{} (IPv{}): {} {q:?}", case.name, case.ip_version, case.suite);
        let expected = match probe.verdict.as_str() {
            "allow" => true,
            "deny" => false,
            other => panic!("{at}: verdict {other}"),
        };
        let right = reference::judge(list, sets, &q);
        let verdict = compiled.judge(sets, &q);
        assert_eq!(right.allow, expected, "the reference: {at}");
        assert_eq!(verdict.allow, expected, "the tree: {at}");
        assert_eq!(compiled.decider(verdict.slot).as_ref(), Some(right.decider()), "{at}");
    }
}

fn list(case: &Case, ids: &BTreeMap<&str, SetId>) -> RuleList {
    // The rule-trace suite only names its counter; anything else would change the verdict.
    let known = |key: &String| key == "no_profile_match_id";
    assert!(case.rules.rest.keys().all(known), "{}: {:?}", case.name, case.rules.rest);
    let rules = |named: &Named| {
        named.rules.iter().map(|written| rule(written, ids)).collect::<crate::policy::Rules>()
    };
    let tiers = case.rules.tiers.iter().map(|tier| TierList {
        name: tier.name.as_str().into(),
        default: default(&tier.end_action),
        policies: tier.policies.iter().map(|p| ListedPolicy { id: id(&p.name), rules: rules(p) }).collect(),
    });
    let profiles = case.rules.profiles.iter();
    RuleList {
        tiers: tiers.collect(),
        profiles: profiles.map(|p| ListedProfile { name: p.name.as_str().into(), rules: rules(p) }).collect(),
        ..RuleList::default()
    }
}

fn default(text: &str) -> TierDefault {
    match text {
        "deny" => TierDefault::Deny,
        "pass" => TierDefault::Pass,
        other => panic!("end_action {other}"),
    }
}

fn id(name: &str) -> PolicyId {
    PolicyId { kind: "GlobalNetworkPolicy".into(), namespace: "".into(), name: name.into() }
}

fn rule(written: &Written, ids: &BTreeMap<&str, SetId>) -> Rule {
    let action = match written.action.as_str() {
        "allow" => Action::Allow,
        "deny" => Action::Deny,
        "pass" => Action::Pass,
        "log" => Action::Log,
        other => panic!("action {other}"),
    };
    let nets = |texts: &[String]| texts.iter().map(|text| net(text)).collect();
    let ports =
        |ranges: &[Range]| ranges.iter().map(|r| PortRange { first: r.first, last: r.last }).collect();
    let sets = |names: &[String]| names.iter().map(|name| ids[name.as_str()]).collect();
    let icmp = |t: &Option<Type>| t.as_ref().map(|t| IcmpMatch { kind: t.r#type, code: t.code });
    Rule {
        protocol: written.protocol.as_ref().map(|p| p.parse().unwrap()),
        src_nets: nets(&written.src_net),
        dst_nets: nets(&written.dst_net),
        not_src_nets: nets(&written.not_src_net),
        not_dst_nets: nets(&written.not_dst_net),
        src_ports: ports(&written.src_ports),
        dst_ports: ports(&written.dst_ports),
        not_src_ports: ports(&written.not_src_ports),
        not_dst_ports: ports(&written.not_dst_ports),
        src_ip_sets: sets(&written.src_ip_set_ids),
        src_named_ports: sets(&written.src_named_port_ip_set_ids),
        dst_named_ports: sets(&written.dst_named_port_ip_set_ids),
        icmp: icmp(&written.icmp),
        not_icmp: icmp(&written.not_icmp),
        ..Rule::any(action)
    }
}

/// The data writes some blocks with bits behind their length.
fn net(text: &str) -> Prefix {
    let (addr, len) = text.split_once('/').unwrap();
    Prefix::truncate(addr.parse::<Addr>().unwrap(), len.parse().unwrap())
}

fn set(texts: &[String]) -> SetMembers {
    if !texts.iter().any(|text| text.contains(',')) {
        return SetMembers::Net(texts.iter().map(|text| net(text)).collect());
    }
    let member = |text: &String| {
        let (addr, port) = text.split_once(',').unwrap();
        let (proto, port) = port.split_once(':').unwrap();
        PortMember { addr: net(addr).addr(), proto: proto.parse().unwrap(), port: port.parse().unwrap() }
    };
    SetMembers::IpPort(texts.iter().map(member).collect())
}

/// `WithLargePrefixedTier`: 250 policies of 50 rules, none of which matches, then pass.
fn large_tier(empty: SetId) -> TierList {
    let actions = [Action::Allow, Action::Deny, Action::Pass];
    let rule = |n: u16| {
        let mut dst_ports = vec![PortRange { first: 1, last: 1 + n % 8000 }];
        if n.is_multiple_of(1000) {
            dst_ports.extend((0..2000).map(|i| PortRange { first: 10_000 + 2 * i, last: 10_000 + 2 * i }));
        }
        let action = actions[usize::from(n) % actions.len()];
        Rule { protocol: Some(Proto::TCP), src_ip_sets: vec![empty], dst_ports, ..Rule::any(action) }
    };
    let policy = |p: u16| {
        let mut rules: Vec<Rule> = (0..50).map(|r| rule(p * 50 + r)).collect();
        if p == 249 {
            rules.push(Rule::any(Action::Pass));
        }
        ListedPolicy { id: id(&format!("large-{p}")), rules: rules.into() }
    };
    TierList { name: "large".into(), default: TierDefault::Deny, policies: (0..250).map(policy).collect() }
}
