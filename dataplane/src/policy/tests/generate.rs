//! Random rules, sets and packets over a small world, so that they meet often and at the edges.

use crate::net::{Addr, FlowKey, Icmp, PortRange, Prefix, Proto};
use crate::policy::*;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use std::sync::Arc;

/// The same cases in every run.
pub fn seeded(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Sets 0 to 5 hold addresses, 6 to 8 addresses with ports.
pub const ADDRESS_SETS: u32 = 6;
pub const PORT_SETS: u32 = 3;
const PORTS: [u16; 8] = [0, 1, 79, 80, 81, 443, 8080, 65535];

pub fn prefix() -> impl Strategy<Value = Prefix> {
    let v4 = (
        select(&["10.0.0.0", "10.0.0.128", "10.64.0.0", "192.168.1.2"]),
        select(&[0u8, 8, 12, 24, 25, 30, 32]),
    );
    let v6 = (
        select(&["fd00::", "fd00::80", "fd00:1::", "2001:db8::1"]),
        select(&[0u8, 8, 32, 64, 120, 127, 128]),
    );
    let of = |(addr, len): (&str, u8)| Prefix::truncate(addr.parse().unwrap(), len);
    prop_oneof![3 => v4.prop_map(of), 1 => v6.prop_map(of)]
}

pub fn address(v6: bool) -> impl Strategy<Value = Addr> {
    let near = (prefix(), any::<bool>(), -1i8..=1).prop_map(|(net, last, step)| {
        let edge = if last { net.last() } else { net.addr() };
        Addr::from_bits(edge.bits().wrapping_add_signed(step.into()))
    });
    near.prop_map(move |addr| match (v6, addr.is_v4()) {
        (false, false) => Addr::v4((addr.bits() as u32).to_be_bytes()),
        (true, true) => Addr::from_bits(0xfd << 120 | u128::from(addr.v4_bits())),
        _ => addr,
    })
}

fn proto() -> impl Strategy<Value = Proto> {
    select(vec![Proto::TCP, Proto::TCP, Proto::UDP, Proto::ICMP, Proto::ICMP6, Proto::SCTP, Proto(253)])
}

fn port() -> impl Strategy<Value = u16> {
    select(&PORTS)
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    prop::collection::vec(
        (port(), 0u16..400).prop_map(|(first, more)| PortRange { first, last: first.saturating_add(more) }),
        0..3,
    )
}

/// Mostly `None` or empty: rules that say everything match nothing.
fn seldom<S>(some: S, none: S::Value) -> impl Strategy<Value = S::Value>
where
    S: Strategy<Value: Clone + 'static> + 'static,
{
    prop_oneof![4 => Just(none), 1 => some]
}

fn nets() -> impl Strategy<Value = Vec<Prefix>> {
    seldom(prop::collection::vec(prefix(), 1..4), vec![])
}

fn sets(first: u32, count: u32) -> impl Strategy<Value = Vec<SetId>> {
    seldom(prop::collection::vec((first..first + count).prop_map(SetId), 1..3), vec![])
}

fn icmp() -> impl Strategy<Value = Option<IcmpMatch>> {
    let of = (select(&[0u8, 8, 255]), select(vec![None, Some(0u8), Some(255)]));
    seldom(of.prop_map(|(kind, code)| Some(IcmpMatch { kind, code })), None)
}

pub fn action() -> impl Strategy<Value = Action> {
    select(vec![Action::Allow, Action::Deny, Action::Allow, Action::Deny, Action::Pass, Action::Log])
}

pub fn rule() -> impl Strategy<Value = Rule> {
    let head = (
        action(),
        seldom(select(vec![Some(IpVersion::V4), Some(IpVersion::V6)]), None),
        seldom(proto().prop_map(Some), None),
        seldom(proto().prop_map(Some), None),
    );
    let networks = (nets(), nets(), nets(), nets());
    let numbers = (seldom(ports(), vec![]), ports(), seldom(ports(), vec![]), seldom(ports(), vec![]));
    let port_sets = || sets(ADDRESS_SETS, PORT_SETS);
    let address_sets = || sets(0, ADDRESS_SETS);
    let named = (port_sets(), port_sets(), port_sets(), port_sets(), port_sets());
    let members = (address_sets(), address_sets(), address_sets(), address_sets());
    (head, networks, numbers, named, members, icmp(), icmp()).prop_map(
        |(head, networks, numbers, named, members, icmp, not_icmp)| Rule {
            action: head.0,
            ip_version: head.1,
            protocol: head.2,
            not_protocol: head.3,
            src_nets: networks.0,
            dst_nets: networks.1,
            not_src_nets: networks.2,
            not_dst_nets: networks.3,
            src_ports: numbers.0,
            dst_ports: numbers.1,
            not_src_ports: numbers.2,
            not_dst_ports: numbers.3,
            src_named_ports: named.0,
            dst_named_ports: named.1,
            not_src_named_ports: named.2,
            not_dst_named_ports: named.3,
            dst_ip_port_sets: named.4,
            src_ip_sets: members.0,
            dst_ip_sets: members.1,
            not_src_ip_sets: members.2,
            not_dst_ip_sets: members.3,
            icmp,
            not_icmp,
            rule_id: None,
        },
    )
}

/// A rule of a kind that comes in hundreds: a source block or set, a destination block, a few ports.
fn plain_rule() -> impl Strategy<Value = Rule> {
    let block = |bits: u32| Prefix::truncate(Addr::v4((10 << 24 | bits << 8).to_be_bytes()), 24);
    let net = move || seldom((0u32..16).prop_map(move |bits| vec![block(bits)]), vec![]);
    let set = || seldom((0..ADDRESS_SETS).prop_map(|set| vec![SetId(set)]), vec![]);
    let ports = prop_oneof![3 => Just(0u16), 1 => 1u16..20];
    (action(), (net(), net()), (set(), set()), 0u16..40, ports).prop_map(
        |(action, nets, sets, first, more)| Rule {
            protocol: Some(Proto::TCP),
            src_nets: nets.0,
            dst_nets: nets.1,
            src_ip_sets: sets.0,
            dst_ip_sets: sets.1,
            dst_ports: vec![PortRange { first, last: first + more }],
            ..Rule::any(action)
        },
    )
}

/// A rule that wants one set and nothing else: many of them hold at once, so their order decides.
fn set_rule() -> impl Strategy<Value = Rule> {
    (action(), 0..ADDRESS_SETS, any::<bool>()).prop_map(|(action, set, source)| {
        let mut rule = Rule::any(action);
        if source {
            rule.src_ip_sets = vec![SetId(set)]
        } else {
            rule.dst_ip_sets = vec![SetId(set)]
        }
        rule
    })
}

fn policy_id(name: usize) -> PolicyId {
    PolicyId { kind: "NetworkPolicy".into(), namespace: "default".into(), name: format!("p{name}").into() }
}

fn tier(rules: impl Strategy<Value = Vec<Rule>>) -> impl Strategy<Value = TierList> {
    (any::<bool>(), prop::collection::vec(rules, 1..4)).prop_map(|(pass, policies)| TierList {
        name: "tier".into(),
        default: if pass { TierDefault::Pass } else { TierDefault::Deny },
        policies: policies
            .into_iter()
            .enumerate()
            .map(|(index, rules)| ListedPolicy { id: policy_id(index), rules: rules.into() })
            .collect(),
    })
}

fn list_of(rules: impl Strategy<Value = Vec<Rule>> + Clone) -> impl Strategy<Value = RuleList> {
    let profiles = prop::collection::vec(rules.clone(), 0..3).prop_map(|profiles| {
        let named = profiles.into_iter().enumerate();
        named
            .map(|(i, rules)| ListedProfile { name: format!("kns.{i}").into(), rules: rules.into() })
            .collect()
    });
    let otherwise = select(vec![Otherwise::Deny, Otherwise::GoOn]);
    (prop::collection::vec(tier(rules), 0..4), profiles, otherwise)
        .prop_map(|(tiers, profiles, otherwise)| RuleList { tiers, profiles, otherwise })
}

/// Few rules that say anything.
pub fn list() -> impl Strategy<Value = RuleList> {
    list_of(
        prop::collection::vec(
            prop_oneof![9 => rule().boxed(), 1 => action().prop_map(Rule::any).boxed()],
            0..12,
        )
        .boxed(),
    )
}

/// Many rules that say little.
pub fn long_list() -> impl Strategy<Value = RuleList> {
    let some = prop_oneof![19 => plain_rule().boxed(), 1 => rule().boxed()];
    list_of(prop::collection::vec(some, 0..150).boxed())
}

/// Rules of which many match the same packets.
pub fn crowded_list() -> impl Strategy<Value = RuleList> {
    let some = prop_oneof![6 => set_rule().boxed(), 1 => rule().boxed()];
    list_of(prop::collection::vec(some, 0..40).boxed())
}

/// Hundreds of rules as firewalls have them, with packets at the corners of rules: five fields, some of which
/// say nothing; few distinct blocks that nest; port ranges that overlap. Both IP versions.
pub fn firewall() -> impl Strategy<Value = (RuleList, Vec<Query>)> {
    let net = |v6: bool| {
        (any::<u32>(), select(&[0u8, 1, 9, 10, 16, 24, 30, 31, 32, 32])).prop_map(move |(bits, len)| {
            // Few distinct values in each byte, so that blocks meet.
            let bits = bits & 0x0303_0707 | 0x0a00_0000;
            match v6 {
                true => Prefix::truncate(Addr::from_bits(0xfd << 120 | u128::from(bits) << 64), len * 2),
                false => Prefix::truncate(Addr::v4(bits.to_be_bytes()), len),
            }
        })
    };
    let ports = || {
        prop_oneof![
            3 => Just(vec![]),
            2 => (0u16..50).prop_map(|p| vec![PortRange::one(p)]),
            1 => (0u16..2000, 0u16..3000).prop_map(|(a, n)| vec![PortRange { first: a, last: a + n }]),
            1 => Just(vec![PortRange { first: 1024, last: 65535 }]),
            1 => Just(vec![PortRange { first: 0, last: 65535 }]),
        ]
    };
    let rule = move |v6: bool| {
        let nets = move || prop_oneof![1 => Just(vec![]), 3 => net(v6).prop_map(|n| vec![n])];
        (action(), nets(), nets(), ports(), ports(), prop_oneof![Just(None), proto().prop_map(Some)])
            .prop_map(|(action, src_nets, dst_nets, src_ports, dst_ports, protocol)| Rule {
                src_nets,
                dst_nets,
                src_ports,
                dst_ports,
                protocol,
                ..Rule::any(action)
            })
    };
    let corner = (any::<prop::sample::Index>(), any::<[bool; 4]>(), -1i8..=1, proto());
    (any::<bool>(), prop::collection::vec(corner, 128)).prop_flat_map(move |(v6, corners)| {
        prop::collection::vec(rule(v6), 1..400).prop_map(move |rules| {
            let queries = corners
                .iter()
                .map(|(index, last, step, proto)| corner_of(index.get(&rules), v6, *last, *step, *proto));
            let queries = queries.collect();
            let profiles = vec![ListedProfile { name: "p".into(), rules: rules.into() }];
            (RuleList { profiles, ..RuleList::default() }, queries)
        })
    })
}

/// A packet at a corner of the rule, or just beside it.
fn corner_of(rule: &Rule, v6: bool, last: [bool; 4], step: i8, proto: Proto) -> Query {
    let any = if v6 { "fd00::1" } else { "10.0.0.1" };
    let addr = |nets: &[Prefix], last: bool| {
        let addr =
            nets.first().map_or(any.parse().unwrap(), |net| if last { net.last() } else { net.addr() });
        let stepped =
            Addr::from_bits(addr.bits().wrapping_add_signed(if step == 1 { 0 } else { step.into() }));
        if stepped.is_v4() == addr.is_v4() { stepped } else { addr }
    };
    let port = |ports: &[PortRange], last: bool| {
        let port = ports.first().map_or(77, |range| if last { range.last } else { range.first });
        port.saturating_add_signed(step.into())
    };
    let key = FlowKey {
        src: addr(&rule.src_nets, last[0]),
        dst: addr(&rule.dst_nets, last[1]),
        sport: port(&rule.src_ports, last[2]),
        dport: port(&rule.dst_ports, last[3]),
        proto: rule.protocol.unwrap_or(proto),
    };
    Query { key, icmp: Icmp { kind: 8, code: 0 } }
}

pub fn set_table() -> impl Strategy<Value = SetTable> {
    let member = |v6| address(v6);
    let ips = prop::collection::vec(prop_oneof![member(false).boxed(), member(true).boxed()], 0..8);
    let nets = prop::collection::vec(prefix(), 0..4);
    let ports = prop::collection::vec(
        (prop_oneof![address(false).boxed(), address(true).boxed()], proto(), port())
            .prop_map(|(addr, proto, port)| PortMember { addr, proto, port }),
        0..20,
    );
    let addresses = prop_oneof![
        ips.prop_map(|of| SetMembers::Ip(of.into())).boxed(),
        nets.prop_map(|of| SetMembers::Net(of.into())).boxed()
    ];
    (
        prop::collection::vec(addresses, ADDRESS_SETS as usize),
        prop::collection::vec(ports.prop_map(|of| SetMembers::IpPort(of.into())), PORT_SETS as usize),
    )
        .prop_map(|(addresses, ports)| {
            let named = addresses.into_iter().chain(ports).enumerate();
            let set = |(i, members)| Some(Arc::new(IpSet { name: format!("s:{i}").into(), members }));
            SetTable::new(named.map(set).collect()).unwrap()
        })
}

pub fn query() -> impl Strategy<Value = Query> {
    let addresses = prop_oneof![
        6 => (address(false), address(false)).boxed(),
        2 => (address(true), address(true)).boxed(),
        1 => (any::<bool>().prop_flat_map(address), any::<bool>().prop_flat_map(address)).boxed(),
        4 => (0u32..16 << 8, 0u32..16 << 8).prop_map(|(a, b)| {
            let of = |bits: u32| Addr::v4((10 << 24 | bits).to_be_bytes());
            (of(a), of(b))
        }).boxed(),
    ];
    let ports = || prop_oneof![port().boxed(), (0u16..40).boxed(), any::<u16>().boxed()];
    let icmp = (select(&[0u8, 8, 9, 255]), select(&[0u8, 1, 255]));
    (addresses, ports(), ports(), proto(), icmp).prop_map(
        |((src, dst), sport, dport, proto, (kind, code))| Query {
            key: FlowKey { src, dst, sport, dport, proto },
            icmp: Icmp { kind, code },
        },
    )
}
