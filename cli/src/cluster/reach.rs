//! What one end may send to another: all protocols and ports, cut where any rule makes a difference,
//! and each piece judged by one packet of it.

use std::collections::BTreeSet;

use margay_dataplane::{
    net::{Addr, FlowKey, Icmp, PortRange, Proto},
    policy::{CompiledPolicy, IcmpMatch, Query, Rule, SetId, SetMembers, SetTable},
};

/// The protocols that are asked about even where no rule names them.
const USUAL: [Proto; 3] = [Proto::TCP, Proto::UDP, Proto::SCTP];

/// Where rules make a difference: the first value of each piece.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    protocols: BTreeSet<u8>,
    sports: BTreeSet<u32>,
    dports: BTreeSet<u32>,
    icmp: BTreeSet<u32>,
    src_named: BTreeSet<SetId>,
    dst_named: BTreeSet<SetId>,
}

impl Edges {
    /// Of all the rules that a tree was made from.
    pub fn of(tree: &CompiledPolicy) -> Self {
        let mut edges = Self::default();
        tree.list().rules().for_each(|rule| edges.add(rule));
        edges
    }

    /// Both.
    pub fn and(mut self, other: Self) -> Self {
        self.protocols.extend(other.protocols);
        self.sports.extend(other.sports);
        self.dports.extend(other.dports);
        self.icmp.extend(other.icmp);
        self.src_named.extend(other.src_named);
        self.dst_named.extend(other.dst_named);
        self
    }

    fn add(&mut self, rule: &Rule) {
        let ports = |edges: &mut BTreeSet<u32>, ranges: &[PortRange]| {
            let of = |range: &PortRange| [u32::from(range.first), u32::from(range.last) + 1];
            edges.extend(ranges.iter().flat_map(of));
        };
        self.protocols.extend(rule.protocol.iter().chain(&rule.not_protocol).map(|proto| proto.0));
        ports(&mut self.sports, &rule.src_ports);
        ports(&mut self.sports, &rule.not_src_ports);
        ports(&mut self.dports, &rule.dst_ports);
        ports(&mut self.dports, &rule.not_dst_ports);
        let icmp = |icmp: &IcmpMatch| match icmp.code {
            Some(code) => {
                let at = u32::from(icmp.kind) << 8 | u32::from(code);
                [at, at + 1]
            }
            None => [u32::from(icmp.kind) << 8, (u32::from(icmp.kind) + 1) << 8],
        };
        self.icmp.extend(rule.icmp.iter().chain(&rule.not_icmp).flat_map(icmp));
        self.src_named.extend(rule.src_named_ports.iter().chain(&rule.not_src_named_ports));
        let services = rule.dst_ip_port_sets.iter();
        self.dst_named.extend(rule.dst_named_ports.iter().chain(&rule.not_dst_named_ports).chain(services));
    }
}

/// The pieces for one pair of addresses.
#[derive(Debug)]
pub struct Pieces {
    protocols: Vec<Option<Proto>>,
    sports: Vec<Span>,
    dports: Vec<Span>,
    icmp: Vec<Span>,
}

/// First to last.
pub type Span = (u16, u16);

const WHOLE: Span = (0, u16::MAX);

/// A part of all packets between two ends that fares the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region<T> {
    /// `None`: every protocol that no other region names.
    pub protocol: Option<Proto>,
    /// `None`: any, or there is no such thing.
    pub sports: Option<Span>,
    /// Of ICMP: types and codes, the type in the upper half. `None`: any, or there is no such thing.
    pub dports: Option<Span>,
    /// What it gets.
    pub value: T,
}

impl Pieces {
    /// Where the rules of either end make a difference between these addresses.
    pub fn of<'a>(ends: impl Iterator<Item = (&'a Edges, &'a SetTable)>, src: Addr, dst: Addr) -> Self {
        let icmp = if src.is_v4() { Proto::ICMP } else { Proto::ICMP6 };
        let mut protocols: BTreeSet<u8> = USUAL.into_iter().chain([icmp]).map(|proto| proto.0).collect();
        let [mut sports, mut dports, mut types] = [const { BTreeSet::<u32>::new() }; 3];
        for (edges, sets) in ends {
            protocols.extend(&edges.protocols);
            sports.extend(&edges.sports);
            dports.extend(&edges.dports);
            types.extend(&edges.icmp);
            sports.extend(named(&edges.src_named, sets, src));
            dports.extend(named(&edges.dst_named, sets, dst));
        }
        let protocols = protocols.into_iter().map(|number| Some(Proto(number))).chain([None]);
        Self {
            protocols: protocols.collect(),
            sports: spans(sports),
            dports: spans(dports),
            icmp: spans(types),
        }
    }

    /// How many packets are judged.
    pub fn len(&self) -> usize {
        let each = |protocol: &Option<Proto>| match protocol {
            Some(proto) if proto.has_ports() => self.sports.len() * self.dports.len(),
            Some(proto) if proto.is_icmp() => self.icmp.len(),
            _ => 1,
        };
        self.protocols.iter().map(each).sum()
    }

    /// Judges a packet of each piece; neighbours that fare the same become one region.
    pub fn judge<T: PartialEq + Clone>(
        &self,
        src: Addr,
        dst: Addr,
        mut judge: impl FnMut(&Query) -> T,
    ) -> Vec<Region<T>> {
        let mut regions = Vec::new();
        for protocol in &self.protocols {
            let proto = protocol.unwrap_or_else(|| self.unnamed());
            let mut ask = |sport: u16, dport: u16, icmp: Icmp| {
                let key = FlowKey { src, dst, sport, dport, proto };
                judge(&Query { key, icmp })
            };
            let region = |sports, dports, value| Region { protocol: *protocol, sports, dports, value };
            if proto.has_ports() {
                let by_sport: Vec<(Span, Vec<(Span, T)>)> = self
                    .sports
                    .iter()
                    .map(|sport| {
                        let ports = self.dports.iter();
                        let judged = ports.map(|port| (*port, ask(sport.0, port.0, Icmp::default())));
                        (*sport, merged(judged, |a, b| a.1 + 1 == b.0))
                    })
                    .collect();
                for (sport, row) in merged(by_sport.into_iter(), |_, _| true) {
                    let sport = (sport != WHOLE).then_some(sport);
                    regions.extend(
                        row.into_iter()
                            .map(|(port, value)| region(sport, (port != WHOLE).then_some(port), value)),
                    );
                }
            } else if proto.is_icmp() {
                let judged = self.icmp.iter().map(|span| {
                    let [kind, code] = span.0.to_be_bytes();
                    (*span, ask(0, 0, Icmp { kind, code }))
                });
                let judged = merged(judged, |_, _| true);
                regions.extend(
                    judged
                        .into_iter()
                        .map(|(span, value)| region(None, (span != WHOLE).then_some(span), value)),
                );
            } else {
                regions.push(region(None, None, ask(0, 0, Icmp::default())));
            }
        }
        regions
    }

    /// A protocol that no rule names, and that has neither ports nor types.
    fn unnamed(&self) -> Proto {
        let free =
            |proto: &Proto| !proto.has_ports() && !proto.is_icmp() && !self.protocols.contains(&Some(*proto));
        (0..=255).rev().map(Proto).find(free).unwrap_or(Proto(255))
    }
}

fn named<'a>(ids: &'a BTreeSet<SetId>, sets: &'a SetTable, addr: Addr) -> impl Iterator<Item = u32> + 'a {
    let members = ids.iter().filter_map(|id| match &sets.get(*id)?.members {
        SetMembers::IpPort(members) => Some(members),
        SetMembers::Ip(_) | SetMembers::Net(_) => None,
    });
    let at = members.flat_map(|members| members.iter()).filter(move |member| member.addr == addr);
    at.flat_map(|member| [u32::from(member.port), u32::from(member.port) + 1])
}

/// From the first value of each piece to the last before the next.
fn spans(mut edges: BTreeSet<u32>) -> Vec<Span> {
    edges.insert(0);
    edges.retain(|edge| *edge <= u32::from(u16::MAX));
    let starts: Vec<u32> = edges.into_iter().collect();
    let ends = starts[1..].iter().map(|next| next - 1).chain([u32::from(u16::MAX)]);
    starts.iter().zip(ends).map(|(first, last)| (*first as u16, last as u16)).collect()
}

/// Neighbours of one value as one span.
fn merged<T: PartialEq>(
    parts: impl Iterator<Item = (Span, T)>,
    adjoin: impl Fn(Span, Span) -> bool,
) -> Vec<(Span, T)> {
    let mut all: Vec<(Span, T)> = Vec::new();
    for (span, value) in parts {
        match all.last_mut() {
            Some((open, same)) if *same == value && adjoin(*open, span) => open.1 = span.1,
            _ => all.push((span, value)),
        }
    }
    all
}

/// What is true of some regions, for people: `tcp 80,443; udp 53; icmp`. `all` where nothing is left out.
pub fn describe<T>(regions: &[Region<T>], holds: impl Fn(&T) -> bool) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = regions;
    let mut whole = 0;
    let mut protocols = 0;
    while let Some(first) = rest.first() {
        let (own, others) =
            rest.split_at(rest.iter().take_while(|one| one.protocol == first.protocol).count());
        rest = others;
        protocols += 1;
        let name = first.protocol.map_or_else(|| "other protocols".to_owned(), |proto| proto.to_string());
        let some: Vec<_> = own.iter().filter(|region| holds(&region.value)).collect();
        if some.len() == own.len() {
            whole += 1;
            words.push(name);
        } else if !some.is_empty() {
            let parts: Vec<String> = some.iter().map(|region| part(region)).collect();
            words.push(format!("{name} {}", parts.join(",")));
        }
    }
    match (words.is_empty(), whole == protocols) {
        (true, _) => "none".to_owned(),
        (_, true) => "all".to_owned(),
        _ => words.join("; "),
    }
}

/// Ports, or types and codes, of a region.
fn part<T>(region: &Region<T>) -> String {
    let icmp = region.protocol.is_some_and(Proto::is_icmp);
    let one = |value: u16| match icmp {
        true => format!("{}/{}", value >> 8, value & 0xff),
        false => value.to_string(),
    };
    let span = |(first, last): Span| match (first == last, icmp && first & 0xff == 0 && last == first | 0xff)
    {
        (true, _) => one(first),
        (_, true) => format!("type {}", first >> 8),
        _ => format!("{}-{}", one(first), one(last)),
    };
    let ports = region.dports.map_or_else(|| "any".to_owned(), span);
    match region.sports {
        Some(sports) => format!("{ports} (from port {})", span(sports)),
        None => ports,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(edges: &Edges, judge: impl FnMut(&Query) -> bool) -> String {
        let (src, dst): (Addr, Addr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let sets = SetTable::default();
        let pieces = Pieces::of([(edges, &sets)].into_iter(), src, dst);
        describe(&pieces.judge(src, dst, judge), |allowed| *allowed)
    }

    #[test]
    fn pieces_cover_everything_once() {
        assert_eq!(spans(BTreeSet::new()), [WHOLE]);
        assert_eq!(spans([0, 80, 81, 65_536].into()), [(0, 79), (80, 80), (81, 65_535)]);
    }

    #[test]
    fn neighbours_that_fare_alike_are_one_region() {
        let edges = Edges { dports: [80, 90, 443, 444].into(), ..Edges::default() };
        assert_eq!(judged(&edges, |_| true), "all");
        assert_eq!(judged(&edges, |_| false), "none");
        let web = |q: &Query| q.key.proto == Proto::TCP && (80..444).contains(&q.key.dport);
        assert_eq!(judged(&edges, web), "tcp 80-443");
        let apart = |q: &Query| q.key.proto == Proto::TCP && matches!(q.key.dport, 80 | 443);
        assert_eq!(judged(&edges, apart), "tcp 80-89,443");
    }

    #[test]
    fn source_ports_and_types_are_told() {
        let edges = Edges { sports: [53, 54].into(), icmp: [0x800, 0x900].into(), ..Edges::default() };
        let answers = |q: &Query| match q.key.proto {
            Proto::UDP => q.key.sport == 53,
            Proto::ICMP => q.icmp.kind == 8,
            _ => false,
        };
        assert_eq!(judged(&edges, answers), "icmp type 8; udp any (from port 53)");
    }
}
