//! A small world of rules, sets and packets, which meet often and at the edges; and how trees are compared with
//! the linear reference.

use arbitrary::Arbitrary;
use margay_dataplane::net::{Addr, FlowKey, Icmp, PortRange, Prefix, Proto};
use margay_dataplane::policy::{
    Action, CompiledPolicy, IcmpMatch, IpSet, IpVersion, PortMember, Query, Room, Rule, RuleList, SetId,
    SetMembers, SetTable, Verdict, reference,
};
use std::sync::Arc;

/// Sets 0 to 3 hold addresses, 4 and 5 blocks, 6 and 7 addresses with ports.
const ADDRESS_SETS: u8 = 6;
const SETS: u8 = 8;

/// What the sets hold.
#[derive(Arbitrary, Debug)]
pub struct Sets {
    addresses: [Vec<Place>; 4],
    blocks: [Vec<(Place, u8)>; 2],
    ports: [Vec<(Place, u8, u8)>; 2],
}

/// A rule: an action and what it says, each about one field.
#[derive(Arbitrary, Debug)]
pub struct Say {
    action: u8,
    clauses: Vec<Clause>,
}

#[derive(Arbitrary, Debug)]
pub enum Clause {
    Version(bool),
    Protocol { not: bool, proto: u8 },
    Net { not: bool, src: bool, at: Place, len: u8 },
    Ports { not: bool, src: bool, first: u8, more: u8 },
    NamedPorts { not: bool, src: bool, set: u8 },
    IpSet { not: bool, src: bool, set: u8 },
    Service { set: u8 },
    Icmp { not: bool, kind: u8, code: Option<u8> },
}

/// An address of a small world, so that rules and packets meet often and at the edges.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Place {
    v6: bool,
    near: u8,
    step: i8,
}

#[derive(Arbitrary, Debug)]
pub struct Ask {
    src: Place,
    dst: Place,
    sport: u8,
    dport: u8,
    proto: u8,
    kind: u8,
    code: u8,
}

/// One by one, in a batch, and with reasons: the verdict, and who decided.
pub fn agree(compiled: &CompiledPolicy, list: &RuleList, sets: &SetTable, queries: &[Query]) {
    let mut batch = vec![Verdict { allow: true, slot: 0 }; queries.len()];
    compiled.judge_batch(sets, queries, &mut batch, &mut Room::default());
    for (query, in_batch) in queries.iter().zip(batch) {
        let right = reference::judge(list, sets, query);
        let verdict = compiled.judge(sets, query);
        let decider = compiled.decider(verdict.slot);
        let seen = (verdict.allow, decider.as_ref());
        assert_eq!(seen, (right.allow, Some(right.decider())), "{query:?}\n{list:?}");
        assert_eq!(in_batch, verdict, "in a batch: {query:?}\n{list:?}");
        let told = compiled.explain(sets, query);
        assert_eq!((told.verdict, &told.walk), (verdict, &right.walk), "{query:?}\n{list:?}");
    }
}

/// As the dataplane has it.
pub fn rule(say: &Say) -> Rule {
    let mut rule =
        Rule::any([Action::Allow, Action::Deny, Action::Pass, Action::Log][usize::from(say.action) % 4]);
    for clause in say.clauses.iter().take(8) {
        match *clause {
            Clause::Version(v6) => rule.ip_version = Some(if v6 { IpVersion::V6 } else { IpVersion::V4 }),
            Clause::Protocol { not: false, proto } => rule.protocol = Some(protocol(proto)),
            Clause::Protocol { not: true, proto } => rule.not_protocol = Some(protocol(proto)),
            Clause::Net { not, src, at, len } => {
                let Rule { src_nets, dst_nets, not_src_nets, not_dst_nets, .. } = &mut rule;
                pick(not, src, [src_nets, dst_nets, not_src_nets, not_dst_nets]).push(block(at, len));
            }
            Clause::Ports { not, src, first, more } => {
                let Rule { src_ports, dst_ports, not_src_ports, not_dst_ports, .. } = &mut rule;
                let first = port(first);
                let range = PortRange { first, last: first.saturating_add(more.into()) };
                pick(not, src, [src_ports, dst_ports, not_src_ports, not_dst_ports]).push(range);
            }
            Clause::NamedPorts { not, src, set } => {
                let Rule {
                    src_named_ports: s,
                    dst_named_ports: d,
                    not_src_named_ports: not_s,
                    not_dst_named_ports: not_d,
                    ..
                } = &mut rule;
                pick(not, src, [s, d, not_s, not_d]).push(port_set(set));
            }
            Clause::IpSet { not, src, set } => {
                let Rule { src_ip_sets, dst_ip_sets, not_src_ip_sets, not_dst_ip_sets, .. } = &mut rule;
                let list = pick(not, src, [src_ip_sets, dst_ip_sets, not_src_ip_sets, not_dst_ip_sets]);
                list.push(SetId((set % ADDRESS_SETS).into()));
            }
            Clause::Service { set } => rule.dst_ip_port_sets.push(port_set(set)),
            Clause::Icmp { not: false, kind, code } => rule.icmp = Some(IcmpMatch { kind, code }),
            Clause::Icmp { not: true, kind, code } => rule.not_icmp = Some(IcmpMatch { kind, code }),
        }
    }
    rule
}

fn pick<T>(not: bool, src: bool, [s, d, not_s, not_d]: [&mut Vec<T>; 4]) -> &mut Vec<T> {
    match (not, src) {
        (false, true) => s,
        (false, false) => d,
        (true, true) => not_s,
        (true, false) => not_d,
    }
}

fn port_set(set: u8) -> SetId {
    SetId((ADDRESS_SETS + set % (SETS - ADDRESS_SETS)).into())
}

impl Sets {
    /// All of them, each under its number.
    pub fn table(&self) -> SetTable {
        let addresses =
            self.addresses.iter().map(|of| SetMembers::Ip(of.iter().copied().map(address).collect()));
        let blocks = self.blocks.iter();
        let blocks = blocks.map(|of| SetMembers::Net(of.iter().map(|(at, len)| block(*at, *len)).collect()));
        let member = |(at, proto, number): &(Place, u8, u8)| PortMember {
            addr: address(*at),
            proto: protocol(*proto),
            port: port(*number),
        };
        let ports = self.ports.iter().map(|of| SetMembers::IpPort(of.iter().map(member).collect()));
        let sets = addresses.chain(blocks).chain(ports);
        let named = sets.map(|members| Some(Arc::new(IpSet { name: "s".into(), members })));
        SetTable::new(named.collect()).expect("sets of this size make a table")
    }
}

/// As the dataplane has it.
pub fn query(ask: &Ask) -> Query {
    let (src, dst, proto) = (address(ask.src), address(ask.dst), protocol(ask.proto));
    let key = FlowKey { src, dst, sport: port(ask.sport), dport: port(ask.dport), proto };
    Query { key, icmp: Icmp { kind: ask.kind, code: ask.code } }
}

fn address(place: Place) -> Addr {
    let near = usize::from(place.near);
    if place.v6 {
        let bits = [0xfd << 120, 0xfd << 120 | 0x80, 0xfd00_0001 << 96, 0x2001_0db8 << 96 | 1][near % 4];
        Addr::from_bits(u128::wrapping_add_signed(bits, place.step.into()))
    } else {
        let bits = [0x0a00_0000, 0x0a00_0080, 0x0a40_0000, 0xc0a8_0102][near % 4];
        Addr::v4(u32::wrapping_add_signed(bits, place.step.into()).to_be_bytes())
    }
}

fn block(place: Place, len: u8) -> Prefix {
    let len = if place.v6 { [0, 8, 32, 64, 120, 127, 128] } else { [0, 8, 12, 24, 25, 30, 32] }
        [usize::from(len) % 7];
    Prefix::truncate(address(place), len)
}

fn protocol(byte: u8) -> Proto {
    [Proto::TCP, Proto::UDP, Proto::ICMP, Proto::ICMP6, Proto::SCTP, Proto(253)][usize::from(byte) % 6]
}

fn port(byte: u8) -> u16 {
    [0, 1, 79, 80, 81, 443, 8080, 65535, byte.into()][usize::from(byte) % 9]
}
