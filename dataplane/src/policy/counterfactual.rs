//! What would have to be different: rules that nearly matched a packet, and packets that differ
//! from it in one field.
//!
//! Nothing here decides. What comes out are candidates; whether one changes a verdict is asked of
//! the tree, as it is of any other packet.

use super::{
    Decider, IpVersion, Place, PortMember, Query, Rule, RuleList, SetId, SetMembers, SetTable, reference,
};
use crate::net::{Addr, Icmp, PortRange, Prefix, Proto};

/// Values tried of one field for one rule.
const TRIED: usize = 8;

/// What a rule may ask of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The IP version, asked for or implied by prefixes.
    IpVersion,
    /// The protocol.
    Protocol,
    /// ICMP type and code.
    Icmp,
    /// The source address, by prefix or by set.
    Source,
    /// The source port, by number or by name.
    SourcePort,
    /// The destination address, by prefix or by set.
    Destination,
    /// The destination port, by number, name or service.
    DestinationPort,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 7] = [
        Self::IpVersion,
        Self::Protocol,
        Self::Icmp,
        Self::Source,
        Self::SourcePort,
        Self::Destination,
        Self::DestinationPort,
    ];
}

/// The rules that fail in one field alone, in the order in which they are asked, with that field.
pub fn near<'a>(
    list: &'a RuleList,
    sets: &'a SetTable,
    q: &'a Query,
) -> impl Iterator<Item = (&'a Rule, Field)> {
    list.rules().filter_map(|rule| {
        let mut failing = Field::ALL.into_iter().filter(|field| !holds(rule, *field, sets, q));
        let field = failing.next()?;
        failing.next().is_none().then_some((rule, field))
    })
}

/// The rule that a decider names; `None` where a default decided.
pub fn rule<'a>(list: &'a RuleList, decider: &Decider) -> Option<&'a Rule> {
    let index = usize::try_from(decider.rule).ok()?;
    match &decider.place {
        Place::Policy { tier, policy } => {
            let mut tiers = list.tiers.iter().filter(|t| t.name == *tier);
            let listed = tiers.find_map(|t| t.policies.iter().find(|p| p.id == *policy))?;
            listed.rules.get(index)
        }
        Place::Profile { name } => list.profiles.iter().find(|p| p.name == *name)?.rules.get(index),
        Place::TierEnd { .. } | Place::End => None,
    }
}

/// Packets that differ from `q` in `field` alone and of which what the rule asks of that field is
/// true: some of them, the nearest first.
pub fn toward(rule: &Rule, field: Field, sets: &SetTable, q: &Query) -> Vec<Query> {
    let ports = |ranges: &[PortRange], named: &[SetId], addr, port| {
        let within = ranges.iter().map(|range| port_near(*range, port));
        let mut ports: Vec<u16> = within.chain(named_ports(sets, named, addr, q.key.proto)).collect();
        if ranges.is_empty() && named.is_empty() {
            // A `not_` list was in the way.
            ports = around(&[PortRange::one(port)]);
        }
        ports
    };
    let candidates: Vec<Query> = match field {
        Field::IpVersion => Vec::new(),
        Field::Protocol => match rule.protocol {
            Some(proto) => with_protocol(q, [proto]),
            None => with_protocol(q, [Proto::TCP, Proto::UDP]),
        },
        Field::Icmp => {
            let icmp = rule.icmp.map(|m| Icmp { kind: m.kind, code: m.code.unwrap_or(0) });
            icmp.into_iter().chain(icmp_around(q.icmp)).map(|icmp| Query { icmp, ..*q }).collect()
        }
        Field::Source => {
            let addrs = addresses(&rule.src_nets, &rule.src_ip_sets, sets);
            addrs.map(|src| with(q, |key| key.src = src)).collect()
        }
        Field::Destination => {
            let addrs = addresses(&rule.dst_nets, &rule.dst_ip_sets, sets);
            addrs.map(|dst| with(q, |key| key.dst = dst)).collect()
        }
        Field::SourcePort => ports(&rule.src_ports, &rule.src_named_ports, q.key.src, q.key.sport)
            .into_iter()
            .map(|port| with(q, |key| key.sport = port))
            .collect(),
        Field::DestinationPort => {
            let named: Vec<SetId> =
                rule.dst_named_ports.iter().chain(&rule.dst_ip_port_sets).copied().collect();
            ports(&rule.dst_ports, &named, q.key.dst, q.key.dport)
                .into_iter()
                .map(|port| with(q, |key| key.dport = port))
                .collect()
        }
    };
    some(candidates, q, |other| holds(rule, field, sets, other))
}

/// Packets that differ from `q` in `field` alone and of which what the rule asks of that field is
/// not true: some of them, the nearest first. None where the rule asks nothing.
pub fn away(rule: &Rule, field: Field, sets: &SetTable, q: &Query) -> Vec<Query> {
    let bounds = |ranges: &[PortRange], named: &[SetId], addr, port| {
        let named = named_ports(sets, named, addr, q.key.proto).map(PortRange::one);
        let mut ranges: Vec<PortRange> = ranges.iter().copied().chain(named).collect();
        // The range that holds the port first: its edges are the nearest.
        ranges.sort_by_key(|range| !range.contains(port));
        around(&ranges)
    };
    let candidates: Vec<Query> = match field {
        Field::IpVersion => Vec::new(),
        Field::Protocol => with_protocol(q, [Proto::TCP, Proto::UDP, Proto::SCTP]),
        Field::Icmp => icmp_around(q.icmp).map(|icmp| Query { icmp, ..*q }).collect(),
        Field::Source => outside(&rule.src_nets, q.key.src).map(|src| with(q, |key| key.src = src)).collect(),
        Field::Destination => {
            outside(&rule.dst_nets, q.key.dst).map(|dst| with(q, |key| key.dst = dst)).collect()
        }
        Field::SourcePort => {
            let ranges: Vec<_> = rule.src_ports.iter().chain(&rule.not_src_ports).copied().collect();
            let ports = bounds(&ranges, &rule.src_named_ports, q.key.src, q.key.sport);
            ports.into_iter().map(|port| with(q, |key| key.sport = port)).collect()
        }
        Field::DestinationPort => {
            let ranges: Vec<_> = rule.dst_ports.iter().chain(&rule.not_dst_ports).copied().collect();
            let named: Vec<SetId> =
                rule.dst_named_ports.iter().chain(&rule.dst_ip_port_sets).copied().collect();
            let ports = bounds(&ranges, &named, q.key.dst, q.key.dport);
            ports.into_iter().map(|port| with(q, |key| key.dport = port)).collect()
        }
    };
    some(candidates, q, |other| !holds(rule, field, sets, other))
}

/// The sets that a rule asks of one side's address: those it wants, and those it does not.
pub fn sets_of(rule: &Rule, field: Field) -> impl Iterator<Item = SetId> + '_ {
    let (wanted, unwanted): (&[SetId], &[SetId]) = match field {
        Field::Source => (&rule.src_ip_sets, &rule.not_src_ip_sets),
        Field::Destination => (&rule.dst_ip_sets, &rule.not_dst_ip_sets),
        _ => (&[], &[]),
    };
    wanted.iter().chain(unwanted).copied()
}

/// What the rule asks of the field is true of the packet. A rule matches where it is of every field.
pub fn holds(rule: &Rule, field: Field, sets: &SetTable, q: &Query) -> bool {
    let key = &q.key;
    let address = |nets: &[Prefix], not_nets: &[Prefix], wanted: &[SetId], unwanted: &[SetId], addr| {
        let held = sets.of_address(addr);
        let is_in = |id: &SetId| held.binary_search(id).is_ok();
        reference::nets(nets, not_nets, addr) && wanted.iter().all(is_in) && !unwanted.iter().any(is_in)
    };
    match field {
        Field::IpVersion => {
            let version = IpVersion::of(key.src);
            version == IpVersion::of(key.dst) && reference::exists(rule, version)
        }
        Field::Protocol => reference::protocol(rule, key.proto),
        Field::Icmp => reference::icmp_type(rule, key.proto.is_icmp().then_some(q.icmp)),
        Field::Source => {
            address(&rule.src_nets, &rule.not_src_nets, &rule.src_ip_sets, &rule.not_src_ip_sets, key.src)
        }
        Field::Destination => {
            address(&rule.dst_nets, &rule.not_dst_nets, &rule.dst_ip_sets, &rule.not_dst_ip_sets, key.dst)
        }
        Field::SourcePort => {
            let side = Side { addr: key.src, proto: key.proto, port: key.sport, sets };
            side.one_of(&rule.src_ports, &rule.src_named_ports)
                && !side.within(&rule.not_src_ports)
                && !rule.not_src_named_ports.iter().any(|id| side.named(*id))
        }
        Field::DestinationPort => {
            let side = Side { addr: key.dst, proto: key.proto, port: key.dport, sets };
            side.one_of(&rule.dst_ports, &rule.dst_named_ports)
                && !side.within(&rule.not_dst_ports)
                && !rule.not_dst_named_ports.iter().any(|id| side.named(*id))
                && rule.dst_ip_port_sets.iter().all(|id| side.named(*id))
        }
    }
}

/// One end of a packet, as far as ports go.
struct Side<'a> {
    addr: Addr,
    proto: Proto,
    port: u16,
    sets: &'a SetTable,
}

impl Side<'_> {
    fn one_of(&self, ranges: &[PortRange], named: &[SetId]) -> bool {
        ranges.is_empty() && named.is_empty() || self.within(ranges) || named.iter().any(|id| self.named(*id))
    }

    fn within(&self, ranges: &[PortRange]) -> bool {
        reference::in_ports(ranges, self.proto.has_ports().then_some(self.port))
    }

    fn named(&self, id: SetId) -> bool {
        self.sets.of_port(self.addr, self.proto, self.port).binary_search(&id).is_ok()
    }
}

/// The first few that are other packets, and right.
fn some(candidates: Vec<Query>, q: &Query, right: impl Fn(&Query) -> bool) -> Vec<Query> {
    let other = |one: &Query| one != q && one.key.src.is_v4() == one.key.dst.is_v4() && right(one);
    let mut kept: Vec<Query> = Vec::new();
    for one in candidates.into_iter().filter(other) {
        if kept.len() < TRIED && !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

fn with(q: &Query, change: impl FnOnce(&mut crate::net::FlowKey)) -> Query {
    let mut other = *q;
    change(&mut other.key);
    other
}

/// Only between protocols whose packets have the same fields: else more than one would change.
fn with_protocol<const N: usize>(q: &Query, protocols: [Proto; N]) -> Vec<Query> {
    let own = q.key.proto;
    let alike = |proto: &Proto| own.has_ports() == proto.has_ports() && own.is_icmp() == proto.is_icmp();
    protocols.into_iter().filter(alike).map(|proto| with(q, |key| key.proto = proto)).collect()
}

fn icmp_around(icmp: Icmp) -> impl Iterator<Item = Icmp> {
    let kinds = [0u8, 8, 128, 3].into_iter().map(|kind| Icmp { kind, code: 0 });
    [Icmp { code: icmp.code ^ 1, ..icmp }].into_iter().chain(kinds)
}

/// The port of the range that is nearest.
fn port_near(range: PortRange, port: u16) -> u16 {
    port.clamp(range.first, range.last.max(range.first))
}

/// The ports before and behind each range.
fn around(ranges: &[PortRange]) -> Vec<u16> {
    let edges = |range: &PortRange| [range.last.checked_add(1), range.first.checked_sub(1)];
    ranges.iter().flat_map(edges).flatten().filter(|port| *port > 0).collect()
}

fn named_ports<'a>(
    sets: &'a SetTable,
    named: &'a [SetId],
    addr: Addr,
    proto: Proto,
) -> impl Iterator<Item = u16> + 'a {
    let members = named.iter().filter_map(|id| match &sets.get(*id)?.members {
        SetMembers::IpPort(members) => Some(members),
        SetMembers::Ip(_) | SetMembers::Net(_) => None,
    });
    let at = move |member: &&PortMember| member.addr == addr && member.proto == proto;
    members.flat_map(|members| members.iter()).filter(at).map(|member| member.port)
}

/// An address of each prefix, then members of the wanted sets.
fn addresses<'a>(
    nets: &'a [Prefix],
    wanted: &'a [SetId],
    sets: &'a SetTable,
) -> impl Iterator<Item = Addr> + 'a {
    let members = wanted.iter().flat_map(move |id| match sets.get(*id).map(|set| &set.members) {
        Some(SetMembers::Ip(members)) => members.iter().copied().take(TRIED).collect::<Vec<_>>(),
        Some(SetMembers::Net(members)) => members.iter().map(inside).take(TRIED).collect(),
        Some(SetMembers::IpPort(_)) | None => Vec::new(),
    });
    nets.iter().map(inside).chain(members)
}

/// An address of the prefix that a host may have.
fn inside(net: &Prefix) -> Addr {
    match *net == Prefix::host(net.addr()) {
        true => net.addr(),
        false => Addr::from_bits(net.addr().bits() + 1),
    }
}

/// Addresses next to the prefixes, and one that nobody has (RFC 5737, RFC 3849).
fn outside(nets: &[Prefix], addr: Addr) -> impl Iterator<Item = Addr> {
    let nobody = match addr.is_v4() {
        true => Addr::v4([192, 0, 2, 1]),
        false => Addr::from_bits(0x2001_0db8 << 96 | 1),
    };
    let holding = nets.iter().filter(move |net| net.contains(addr));
    let next = holding.filter_map(|net| Addr::bits(net.last()).checked_add(1));
    let next = next.map(Addr::from_bits).filter(move |next| next.is_v4() == addr.is_v4());
    next.chain([nobody]).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::generate::{query, rule, seeded, set_table};
    use proptest::prelude::*;

    /// The fields in which two packets differ.
    fn differing(a: &Query, b: &Query) -> Vec<Field> {
        let fields = [
            (Field::Protocol, a.key.proto != b.key.proto),
            (Field::Icmp, a.icmp != b.icmp),
            (Field::Source, a.key.src != b.key.src),
            (Field::SourcePort, a.key.sport != b.key.sport),
            (Field::Destination, a.key.dst != b.key.dst),
            (Field::DestinationPort, a.key.dport != b.key.dport),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }

    proptest! {
        #![proptest_config(seeded(4096))]

        #[test]
        fn a_rule_matches_where_every_field_holds(rule in rule(), sets in set_table(), q in query()) {
            let all = Field::ALL.into_iter().all(|field| holds(&rule, field, &sets, &q));
            prop_assert_eq!(all, reference::matches(&rule, &sets, &q));
        }

        #[test]
        fn candidates_differ_in_their_field_alone_and_as_was_asked(
            rule in rule(), sets in set_table(), q in query()
        ) {
            for field in Field::ALL {
                for other in toward(&rule, field, &sets, &q) {
                    prop_assert_eq!(differing(&q, &other), vec![field]);
                    prop_assert!(holds(&rule, field, &sets, &other));
                }
                for other in away(&rule, field, &sets, &q) {
                    prop_assert_eq!(differing(&q, &other), vec![field]);
                    prop_assert!(!holds(&rule, field, &sets, &other));
                }
            }
        }
    }

    fn tcp(dport: u16) -> Query {
        let key = crate::net::FlowKey {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            sport: 4000,
            dport,
            proto: Proto::TCP,
        };
        Query { key, icmp: Icmp::default() }
    }

    #[test]
    fn the_nearest_port_comes_first() {
        let ports = vec![PortRange { first: 80, last: 90 }, PortRange::one(443)];
        let rule = Rule { dst_ports: ports, ..Rule::any(crate::policy::Action::Allow) };
        let sets = SetTable::default();
        let ports = |queries: Vec<Query>| queries.iter().map(|q| q.key.dport).collect::<Vec<_>>();
        assert_eq!(ports(toward(&rule, Field::DestinationPort, &sets, &tcp(100))), [90, 443]);
        assert_eq!(ports(away(&rule, Field::DestinationPort, &sets, &tcp(443))), [444, 442, 91, 79]);
    }

    #[test]
    fn rules_are_near_that_fail_in_one_field() {
        use crate::policy::{Action, ListedProfile};
        let net = |text: &str| vec![text.parse().unwrap()];
        let rules = [
            Rule {
                protocol: Some(Proto::UDP),
                dst_ports: vec![PortRange::one(53)],
                ..Rule::any(Action::Allow)
            },
            Rule {
                protocol: Some(Proto::TCP),
                dst_ports: vec![PortRange::one(53)],
                ..Rule::any(Action::Allow)
            },
            Rule { src_nets: net("10.0.0.0/24"), ..Rule::any(Action::Deny) },
            Rule { src_nets: net("10.0.1.0/24"), ..Rule::any(Action::Allow) },
        ];
        let profiles = vec![ListedProfile { name: "p".into(), rules: rules.into() }];
        let list = RuleList { profiles, ..RuleList::default() };
        let (sets, q) = (SetTable::default(), tcp(80));
        let found: Vec<Field> = near(&list, &sets, &q).map(|(_, field)| field).collect();
        assert_eq!(found, [Field::DestinationPort, Field::Source]);
    }
}
