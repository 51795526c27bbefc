//! The semantics that are easily got wrong, one by one, and what people are told.

use crate::net::{FlowKey, Icmp, PortRange, Proto};
use crate::policy::*;
use std::sync::Arc;

fn tier(name: &str, default: TierDefault, rules: Vec<Rule>) -> TierList {
    let id = PolicyId { kind: "NetworkPolicy".into(), namespace: "default".into(), name: "web".into() };
    TierList { name: name.into(), default, policies: vec![ListedPolicy { id, rules: rules.into() }] }
}

fn profile(name: &str, rules: Vec<Rule>) -> ListedProfile {
    ListedProfile { name: name.into(), rules: rules.into() }
}

fn packet(proto: Proto, src: &str, dst: &str, dport: u16) -> Query {
    let key = FlowKey { src: src.parse().unwrap(), dst: dst.parse().unwrap(), sport: 4000, dport, proto };
    Query { key, icmp: Icmp { kind: 8, code: 0 } }
}

fn tcp(dport: u16) -> Query {
    packet(Proto::TCP, "10.0.0.1", "10.0.0.2", dport)
}

/// By tree and reference, which must agree.
fn allowed(list: &RuleList, sets: &SetTable, q: &Query) -> bool {
    let verdict = compile(list.clone()).unwrap().judge(sets, q);
    assert_eq!(verdict.allow, reference::judge(list, sets, q).allow);
    verdict.allow
}

fn rule_matches(rule: Rule, q: &Query) -> bool {
    let list = RuleList { profiles: vec![profile("p", vec![rule])], ..RuleList::default() };
    allowed(&list, &SetTable::default(), q)
}

fn allow() -> Rule {
    Rule::any(Action::Allow)
}

#[test]
fn pass_never_allows() {
    let sets = SetTable::default();
    let pass = || vec![Rule::any(Action::Pass)];
    let mut list = RuleList { tiers: vec![tier("a", TierDefault::Deny, pass())], ..RuleList::default() };
    assert!(!allowed(&list, &sets, &tcp(80)), "to no profile at all");
    list.profiles = vec![profile("p", pass()), profile("open", vec![allow()])];
    assert!(!allowed(&list, &sets, &tcp(80)), "in a profile it denies, also with another behind");
    list.profiles.remove(0);
    assert!(allowed(&list, &sets, &tcp(80)));
    list.tiers.push(tier("b", TierDefault::Deny, vec![]));
    assert!(!allowed(&list, &sets, &tcp(80)), "the next tier comes before the profiles");
}

#[test]
fn a_policy_with_only_log_rules_isolates() {
    let log = vec![Rule::any(Action::Log)];
    let list = RuleList {
        tiers: vec![tier("a", TierDefault::Deny, log)],
        profiles: vec![profile("p", vec![allow()])],
        ..RuleList::default()
    };
    assert!(!allowed(&list, &SetTable::default(), &tcp(80)));
}

#[test]
fn prefix_lists_are_filtered_by_version() {
    let v6 = packet(Proto::TCP, "fd00::1", "fd00::2", 80);
    let not_ten = Rule { not_src_nets: vec!["10.0.0.0/8".parse().unwrap()], ..allow() };
    assert!(!rule_matches(not_ten, &v6), "emptied, the rule does not exist for IPv6");
    let nets = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    assert!(rule_matches(Rule { src_nets: nets, ..allow() }, &v6));
    let none =
        Rule { not_dst_nets: vec!["0.0.0.0/0".parse().unwrap(), "fd01::/16".parse().unwrap()], ..allow() };
    assert!(!rule_matches(none.clone(), &tcp(80)), "all of IPv4 is excluded");
    assert!(rule_matches(none, &v6));
    assert!(!rule_matches(Rule { ip_version: Some(IpVersion::V4), ..allow() }, &v6));
}

#[test]
fn a_packet_without_ports_is_in_no_range() {
    let ping = packet(Proto::ICMP, "10.0.0.1", "10.0.0.2", 80);
    let all = || vec![PortRange { first: 0, last: u16::MAX }];
    assert!(!rule_matches(Rule { dst_ports: all(), ..allow() }, &ping));
    assert!(rule_matches(Rule { not_dst_ports: all(), ..allow() }, &ping));
    let echo = Some(IcmpMatch { kind: 8, code: None });
    assert!(rule_matches(Rule { icmp: echo, ..allow() }, &ping));
    assert!(!rule_matches(Rule { icmp: echo, ..allow() }, &tcp(80)));
    assert!(!rule_matches(Rule { not_icmp: echo, ..allow() }, &ping));
}

#[test]
fn sets_of_addresses_and_and_named_ports_or() {
    let set = |name: &str, members| Some(Arc::new(IpSet { name: name.into(), members }));
    let ip = |text: &str| text.parse().unwrap();
    let http = PortMember { addr: ip("10.0.0.2"), proto: Proto::TCP, port: 8080 };
    let sets = SetTable::new(vec![
        set("s:a", SetMembers::Ip(vec![ip("10.0.0.1"), ip("10.0.0.9")].into())),
        set("s:b", SetMembers::Net(vec!["10.0.0.0/29".parse().unwrap()].into())),
        set("n:http", SetMembers::IpPort(vec![http].into())),
    ])
    .unwrap();
    let rule = Rule {
        src_ip_sets: vec![SetId(0), SetId(1)],
        dst_ports: vec![PortRange::one(80)],
        dst_named_ports: vec![SetId(2)],
        ..allow()
    };
    let list = RuleList { profiles: vec![profile("p", vec![rule])], ..RuleList::default() };
    let from = |src, dport| packet(Proto::TCP, src, "10.0.0.2", dport);
    assert!(allowed(&list, &sets, &from("10.0.0.1", 80)) && allowed(&list, &sets, &from("10.0.0.1", 8080)));
    assert!(!allowed(&list, &sets, &from("10.0.0.1", 81)));
    assert!(!allowed(&list, &sets, &from("10.0.0.9", 80)), "in one of two sets");
    assert!(!allowed(&list, &sets, &from("10.0.0.3", 80)), "in the other");
}

#[test]
fn a_list_that_goes_on_lets_through_what_nothing_in_it_decides() {
    let ssh = |action| Rule {
        protocol: Some(Proto::TCP),
        dst_ports: vec![PortRange::one(22)],
        ..Rule::any(action)
    };
    let sets = SetTable::default();
    let says = |default, action, dport| {
        let tiers = vec![tier("a", default, vec![ssh(action)])];
        let compiled =
            compile(RuleList { tiers, otherwise: Otherwise::GoOn, ..RuleList::default() }).unwrap();
        let verdict = compiled.judge(&sets, &tcp(dport));
        (verdict.allow, compiled.decided(verdict))
    };
    assert_eq!(says(TierDefault::Pass, Action::Allow, 22), (true, true));
    assert_eq!(says(TierDefault::Pass, Action::Deny, 22), (false, true));
    assert_eq!(says(TierDefault::Pass, Action::Pass, 22), (true, false));
    assert_eq!(says(TierDefault::Pass, Action::Deny, 80), (true, false), "no end-of-tier drop");
    assert_eq!(says(TierDefault::Deny, Action::Allow, 80), (false, true), "unless the tier says so");
    let nothing = compile(RuleList { otherwise: Otherwise::GoOn, ..RuleList::default() }).unwrap();
    assert_eq!(nothing.explain(&sets, &tcp(80)).decider.to_string(), "no policy decided");
}

#[test]
fn a_packet_of_two_versions_is_denied() {
    assert!(!rule_matches(allow(), &packet(Proto::TCP, "10.0.0.1", "fd00::1", 80)));
}

#[test]
fn an_explanation_names_the_way_and_the_reasons() {
    let members = SetMembers::Ip(vec!["10.0.0.1".parse().unwrap()].into());
    let sets = SetTable::new(vec![Some(Arc::new(IpSet { name: "s:abc".into(), members }))]).unwrap();
    let port =
        Rule { protocol: Some(Proto::TCP), dst_ports: vec![PortRange::one(80)], ..Rule::any(Action::Log) };
    let web = Rule { src_ip_sets: vec![SetId(0)], ..Rule { action: Action::Allow, ..port.clone() } };
    let list = RuleList {
        tiers: vec![
            tier("security", TierDefault::Pass, vec![]),
            tier("default", TierDefault::Deny, vec![port, web, Rule::any(Action::Log)]),
        ],
        ..RuleList::default()
    };
    let compiled = compile(list).unwrap();

    let told = compiled.explain(&sets, &tcp(80));
    assert!(told.verdict.allow);
    assert_eq!(told.minimal_match, "tcp dst-port 80 src in set s:abc");
    assert_eq!(
        told.walk.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "pass by default of tier security",
            "log by rule 0 of default/web in tier default",
            "allow by rule 1 of default/web in tier default",
        ]
    );
    assert_eq!(
        (told.decider.tier(), &told.decider.policy()[..], told.decider.rule),
        ("default", "default/web", 1)
    );

    let told = compiled.explain(&sets, &tcp(81));
    assert!(!told.verdict.allow);
    assert_eq!(told.minimal_match, "tcp dst-port 81-65535");
    assert_eq!(told.walk.len(), 3);
    assert_eq!(told.decider.to_string(), "deny by default of tier default");

    let ping = compiled.explain(&sets, &packet(Proto::ICMP, "10.0.0.1", "10.0.0.2", 0));
    assert_eq!(ping.minimal_match, "protocol 0-5");
}

#[test]
fn what_cannot_be_checked_in_time_is_refused() {
    let ports = vec![PortRange::one(1); 40_000];
    let rule = Rule { dst_ports: ports, ..allow() };
    let error =
        compile(RuleList { profiles: vec![profile("p", vec![rule])], ..RuleList::default() }).unwrap_err();
    assert!(error.to_string().contains("shorten the longest lists"), "{error}");
}
