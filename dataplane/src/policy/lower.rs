//! Rules in the form trees are made of: entries, each a product of intervals and set tests.
//!
//! A packet becomes a [`Point`](super::point::Point): six numbers and, for each side, the sets it is in. An entry
//! holds intervals for some of the numbers and wants some memberships to be true or false. A
//! rule with a named port is the union of several entries of the same rank, since "port 80 or
//! port `http`" is no product; every other rule is one entry. Rules that do not exist for an IP
//! version have none.

use super::{IcmpMatch, IpVersion, Rule, SetId};
use crate::net::{Addr, PortRange, Prefix};

/// What a number of a point means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Dim {
    /// Source address.
    Src,
    /// Destination address.
    Dst,
    /// Protocol.
    Proto,
    /// Source port, or [`NONE`].
    Sport,
    /// Destination port, or [`NONE`].
    Dport,
    /// `type << 8 | code`, or [`NONE`].
    Icmp,
}

/// The port of a packet without ports, the type of a packet that is not ICMP.
pub(super) const NONE: u128 = 0x1_0000;

impl Dim {
    pub(super) const ALL: [Self; 6] =
        [Self::Src, Self::Dst, Self::Proto, Self::Sport, Self::Dport, Self::Icmp];

    /// Every value.
    pub(super) const fn whole(self) -> Interval {
        let last = match self {
            Self::Src | Self::Dst => u128::MAX,
            Self::Proto => 255,
            Self::Sport | Self::Dport | Self::Icmp => NONE,
        };
        Interval { first: 0, last }
    }
}

/// First to last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) first: u128,
    pub(super) last: u128,
}

impl Interval {
    #[inline]
    pub(super) const fn contains(self, value: u128) -> bool {
        self.first <= value && value <= self.last
    }
}

/// What a membership is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Space {
    /// The source address.
    Src,
    /// The destination address.
    Dst,
    /// Source address, protocol and source port.
    SrcPort,
    /// Destination address, protocol and destination port.
    DstPort,
}

impl Space {
    pub(super) const ALL: [Self; 4] = [Self::Src, Self::Dst, Self::SrcPort, Self::DstPort];

    /// As people read it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Src => "src",
            Self::Dst => "dst",
            Self::SrcPort => "src:port",
            Self::DstPort => "dst:port",
        }
    }
}

/// "Is in the set" or "is not".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Literal {
    pub(super) space: Space,
    pub(super) set: SetId,
    pub(super) wanted: bool,
}

/// Entries, in the order of their ranks, in four flat arrays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    list: Vec<Entry>,
    fields: Vec<Field>,
    intervals: Vec<Interval>,
    literals: Vec<Literal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    rank: u32,
    fields: Span,
    literals: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    dim: Dim,
    intervals: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u32,
    end: u32,
}

impl Span {
    fn of<T>(self, array: &[T]) -> &[T] {
        &array[self.first as usize..self.end as usize]
    }

    /// Appends to `array` what the span then covers.
    fn append<T>(array: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> Self {
        let first = array.len() as u32;
        array.extend(items);
        Self { first, end: array.len() as u32 }
    }
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The rule's place among those of its stage that decide.
    #[inline]
    pub(super) fn rank(&self, entry: u32) -> u32 {
        self.list[entry as usize].rank
    }

    /// All of one rule.
    pub(super) fn of_rank(&self, rank: u32) -> std::ops::Range<u32> {
        let first = self.list.partition_point(|entry| entry.rank < rank);
        self.of_rank_from(first as u32, rank)
    }

    /// Those from `first` on that are of one rule.
    pub(super) fn of_rank_from(&self, first: u32, rank: u32) -> std::ops::Range<u32> {
        let own = self.list.iter().skip(first as usize).take_while(|entry| entry.rank == rank);
        first..first + own.count() as u32
    }

    /// The constrained numbers, each with its sorted, disjoint intervals.
    #[inline]
    pub(super) fn fields(&self, entry: u32) -> impl Iterator<Item = (Dim, &[Interval])> {
        let fields = self.list[entry as usize].fields.of(&self.fields);
        fields.iter().map(|field| (field.dim, field.intervals.of(&self.intervals)))
    }

    /// The intervals of one number; `None`: any value.
    pub(super) fn intervals(&self, entry: u32, dim: Dim) -> Option<&[Interval]> {
        self.fields(entry).find(|(d, _)| *d == dim).map(|(_, intervals)| intervals)
    }

    /// Sorted, without repetition.
    #[inline]
    pub(super) fn literals(&self, entry: u32) -> &[Literal] {
        self.list[entry as usize].literals.of(&self.literals)
    }

    /// Adds what `rule` is to packets of `version`.
    pub(super) fn lower(&mut self, rule: &Rule, version: IpVersion, rank: u32) {
        let Some(product) = Product::of(rule, version) else { return };
        for sport in &product.sport {
            for dport in &product.dport {
                let mut literals = product.literals.clone();
                literals.extend(sport.named.into_iter().chain(dport.named));
                literals.sort_unstable();
                literals.dedup();
                if literals.windows(2).any(|two| two[0].space == two[1].space && two[0].set == two[1].set) {
                    continue; // Both wanted and not.
                }
                let [src, dst, proto, icmp] = &product.common;
                let all = [src, dst, proto, &sport.intervals, &dport.intervals, icmp];
                if all.iter().any(|intervals| intervals.is_empty()) {
                    continue;
                }
                let first = self.fields.len() as u32;
                for (dim, intervals) in Dim::ALL.into_iter().zip(all) {
                    if intervals[..] != [dim.whole()] {
                        let intervals = Span::append(&mut self.intervals, intervals.iter().copied());
                        self.fields.push(Field { dim, intervals });
                    }
                }
                let fields = Span { first, end: self.fields.len() as u32 };
                let literals = Span::append(&mut self.literals, literals);
                self.list.push(Entry { rank, fields, literals });
            }
        }
    }
}

impl Entries {
    /// Appends entry `entry` of `from`, and says where.
    pub(super) fn copy(&mut self, from: &Self, entry: u32) -> u32 {
        let first = self.fields.len() as u32;
        for (dim, intervals) in from.fields(entry) {
            let intervals = Span::append(&mut self.intervals, intervals.iter().copied());
            self.fields.push(Field { dim, intervals });
        }
        let fields = Span { first, end: self.fields.len() as u32 };
        let literals = Span::append(&mut self.literals, from.literals(entry).iter().copied());
        self.list.push(Entry { rank: from.rank(entry), fields, literals });
        self.len() as u32 - 1
    }

    /// Gives back what was allocated ahead.
    pub(super) fn shrink_to_fit(&mut self) {
        self.list.shrink_to_fit();
        self.fields.shrink_to_fit();
        self.intervals.shrink_to_fit();
        self.literals.shrink_to_fit();
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.list[..])
            + size_of_val(&self.fields[..])
            + size_of_val(&self.intervals[..])
            + size_of_val(&self.literals[..])
    }
}

#[cfg(test)]
impl Entries {
    /// For faults.
    pub(super) fn arrays(&mut self) -> (&mut [Interval], &mut [Literal]) {
        (&mut self.intervals, &mut self.literals)
    }
}

/// A rule as a product of what does not concern ports and two unions that do.
struct Product {
    /// Source, destination, protocol, ICMP.
    common: [Vec<Interval>; 4],
    literals: Vec<Literal>,
    sport: Vec<PortPart>,
    dport: Vec<PortPart>,
}

/// One way for a side's ports to match.
struct PortPart {
    intervals: Vec<Interval>,
    named: Option<Literal>,
}

impl Product {
    fn of(rule: &Rule, version: IpVersion) -> Option<Self> {
        if rule.ip_version.is_some_and(|v| v != version) {
            return None;
        }
        let src = addresses(&rule.src_nets, &rule.not_src_nets, version)?;
        let dst = addresses(&rule.dst_nets, &rule.not_dst_nets, version)?;

        let exactly = |p: u8| Interval { first: p.into(), last: p.into() };
        let proto = difference(
            rule.protocol.map_or(Dim::Proto.whole(), |p| exactly(p.0)),
            rule.not_protocol.map(|p| exactly(p.0)).into_iter().collect(),
        );
        let icmp = difference(
            rule.icmp.map_or(Dim::Icmp.whole(), icmp_interval),
            rule.not_icmp.map(icmp_interval).into_iter().collect(),
        );

        let mut literals = Vec::new();
        let mut want = |space, sets: &[SetId], wanted| {
            literals.extend(sets.iter().map(|set| Literal { space, set: *set, wanted }));
        };
        want(Space::Src, &rule.src_ip_sets, true);
        want(Space::Dst, &rule.dst_ip_sets, true);
        want(Space::Src, &rule.not_src_ip_sets, false);
        want(Space::Dst, &rule.not_dst_ip_sets, false);
        want(Space::SrcPort, &rule.not_src_named_ports, false);
        want(Space::DstPort, &rule.not_dst_named_ports, false);
        want(Space::DstPort, &rule.dst_ip_port_sets, true);

        let sport = port_parts(&rule.src_ports, &rule.not_src_ports, Space::SrcPort, &rule.src_named_ports);
        let dport = port_parts(&rule.dst_ports, &rule.not_dst_ports, Space::DstPort, &rule.dst_named_ports);
        Some(Self { common: [src, dst, proto, icmp], literals, sport, dport })
    }
}

/// `None`: a list is emptied by the choice of version, or all is excluded.
fn addresses(nets: &[Prefix], not_nets: &[Prefix], version: IpVersion) -> Option<Vec<Interval>> {
    let of_version = |list: &[Prefix]| {
        let kept: Vec<Prefix> =
            list.iter().copied().filter(|net| IpVersion::of(net.addr()) == version).collect();
        (list.is_empty() || !kept.is_empty()).then_some(kept)
    };
    // Each version has a tree of its own, where all of that version's addresses are all there are.
    let interval = |net: &Prefix| match net.is_default() {
        true => Dim::Src.whole(),
        false => Interval { first: net.addr().bits(), last: Addr::bits(net.last()) },
    };
    let wanted = union(of_version(nets)?.iter().map(interval).collect());
    let excluded: Vec<Interval> = of_version(not_nets)?.iter().map(interval).collect();
    let wanted = if nets.is_empty() { vec![Dim::Src.whole()] } else { wanted };
    let left = wanted.into_iter().flat_map(|from| difference(from, excluded.clone()));
    Some(match version {
        IpVersion::V4 => left.filter_map(of_v4).collect(),
        IpVersion::V6 => left.collect(),
    })
}

/// What of `interval` is IPv4: if that is all of IPv4, every address.
fn of_v4(interval: Interval) -> Option<Interval> {
    let [lowest, highest] = [[0; 4], [255; 4]].map(|octets| Addr::v4(octets).bits());
    let own = Interval { first: interval.first.max(lowest), last: interval.last.min(highest) };
    match own {
        Interval { first, last } if (first, last) == (lowest, highest) => Some(Dim::Src.whole()),
        Interval { first, last } => (first <= last).then_some(own),
    }
}

fn port_parts(ports: &[PortRange], not: &[PortRange], space: Space, named: &[SetId]) -> Vec<PortPart> {
    let interval = |range: &PortRange| Interval { first: range.first.into(), last: range.last.into() };
    let excluded: Vec<Interval> = not.iter().map(interval).collect();
    let without = |from: Vec<Interval>| {
        from.into_iter().flat_map(|from| difference(from, excluded.clone())).collect::<Vec<_>>()
    };
    let any = vec![Dim::Sport.whole()];
    let mut parts = Vec::new();
    if !ports.is_empty() {
        parts.push(PortPart { intervals: without(union(ports.iter().map(interval).collect())), named: None });
    } else if named.is_empty() {
        parts.push(PortPart { intervals: without(any.clone()), named: None });
    }
    let mut named = named.to_vec();
    named.sort_unstable();
    named.dedup();
    parts.extend(named.into_iter().map(|set| PortPart {
        intervals: without(any.clone()),
        named: Some(Literal { space, set, wanted: true }),
    }));
    parts
}

fn icmp_interval(icmp: IcmpMatch) -> Interval {
    let kind = u128::from(icmp.kind) << 8;
    match icmp.code {
        Some(code) => Interval { first: kind | u128::from(code), last: kind | u128::from(code) },
        None => Interval { first: kind, last: kind | 0xff },
    }
}

/// Sorted and disjoint; neighbours joined; reversed ranges dropped.
fn union(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.retain(|i| i.first <= i.last);
    intervals.sort_unstable();
    let mut joined: Vec<Interval> = Vec::with_capacity(intervals.len());
    for next in intervals {
        match joined.last_mut() {
            Some(open) if next.first <= open.last.saturating_add(1) => open.last = open.last.max(next.last),
            _ => joined.push(next),
        }
    }
    joined
}

/// `from` without `excluded`.
fn difference(from: Interval, excluded: Vec<Interval>) -> Vec<Interval> {
    let mut left = Vec::new();
    let mut first = Some(from.first);
    for hole in union(excluded) {
        let Some(start) = first else { break };
        if hole.last < start {
            continue;
        }
        if hole.first > from.last {
            break;
        }
        if hole.first > start {
            left.push(Interval { first: start, last: hole.first - 1 });
        }
        first = hole.last.checked_add(1).filter(|next| *next <= from.last);
    }
    left.extend(first.map(|first| Interval { first, last: from.last }));
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(first: u128, last: u128) -> Interval {
        Interval { first, last }
    }

    #[test]
    fn unions_join_and_drop_what_is_reversed() {
        assert_eq!(
            union(vec![span(5, 9), span(0, 2), span(3, 4), span(20, 10), span(30, 31)]),
            [span(0, 9), span(30, 31)]
        );
    }

    #[test]
    fn differences_at_both_ends() {
        assert_eq!(difference(span(0, 9), vec![]), [span(0, 9)]);
        assert_eq!(difference(span(0, 9), vec![span(0, 0), span(9, 9)]), [span(1, 8)]);
        assert_eq!(difference(span(0, 9), vec![span(3, 4), span(6, 20)]), [span(0, 2), span(5, 5)]);
        assert_eq!(difference(span(5, 9), vec![span(0, 4), span(10, 11)]), [span(5, 9)]);
        assert!(difference(span(0, u128::MAX), vec![span(0, u128::MAX)]).is_empty());
    }
}
