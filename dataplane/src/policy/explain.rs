//! A verdict with its reasons, read off the walk that gave it.

use super::compiled::{CompiledPolicy, Stage};
use super::lower::{Dim, Interval, Literal, NONE, Space};
use super::tree::Watch;
use super::{Action, Decider, Explanation, IpVersion, Query, SetId, SetTable, Verdict, reference};
use crate::net::{Addr, Prefix, Proto};
use std::collections::BTreeMap;

/// Sets that did not hold the packet and are named one by one.
const NAMED_ABSENCES: usize = 8;

/// Judges by the trees, watching.
pub(super) fn explain(policy: &CompiledPolicy, sets: &SetTable, q: &Query) -> Explanation {
    let (verdict, slots, seen) = look(policy, sets, q);
    let walk: Vec<Decider> = slots.iter().flat_map(|slot| ended(policy, *slot, sets, q)).collect();
    // The walk ends with what decided, and every stage has an end.
    let decider = policy.decider(verdict.slot).expect("a verdict's slot is one of its policy's");
    let version = IpVersion::of(q.key.src);
    let minimal_match = match version == IpVersion::of(q.key.dst) {
        true => seen.text(sets, version),
        false => "source and destination of different IP versions".to_owned(),
    };
    Explanation { verdict, decider, walk, minimal_match }
}

/// The verdict, the slot at which each stage ended, and what was looked at.
pub(super) fn look(policy: &CompiledPolicy, sets: &SetTable, q: &Query) -> (Verdict, Vec<u32>, Seen) {
    let mut slots = Vec::new();
    let mut seen = Seen::default();
    let verdict = policy.decide(policy.cpu, sets, q, &mut seen, |slot| slots.push(slot));
    let visited = policy.stages.iter().take(slots.len());
    seen.by_version = visited.into_iter().any(Stage::by_version);
    (verdict, slots, seen)
}

/// The log rules of a stage that the packet met before the rule with `slot`, and that rule.
fn ended(policy: &CompiledPolicy, slot: u32, sets: &SetTable, q: &Query) -> Vec<Decider> {
    let Some((stage, rule)) = policy.position(slot) else { return vec![] };
    let (last, index) = rule.unwrap_or((usize::MAX, 0));
    let mut walk = Vec::new();
    for (slice, part) in policy.list.parts(stage).enumerate().take_while(|(slice, _)| *slice <= last) {
        let met = if slice == last { &part.rules[..index as usize] } else { &part.rules[..] };
        for (index, rule) in met.iter().enumerate().filter(|(_, rule)| rule.action == Action::Log) {
            if reference::matches(rule, sets, q) {
                let place = policy.list.place(stage, part.owner as usize);
                let rule = (part.first + index as u32) as i32;
                walk.push(Decider { place, rule, action: Action::Log });
            }
        }
    }
    walk.extend(policy.decider(slot));
    walk
}

/// What a walk looked at: every packet within, of the same version where that counts, and with
/// the same memberships, takes the same walk.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) within: [Interval; 6],
    pub(super) memberships: BTreeMap<(Space, SetId), bool>,
    pub(super) by_version: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self { within: Dim::ALL.map(Dim::whole), memberships: BTreeMap::new(), by_version: false }
    }
}

impl Watch for Seen {
    const ACTIVE: bool = true;

    fn narrowed(&mut self, dim: Dim, to: Interval) {
        let within = &mut self.within[dim as usize];
        *within = Interval { first: within.first.max(to.first), last: within.last.min(to.last) };
    }

    fn asked(&mut self, truth: Literal) {
        self.memberships.insert((truth.space, truth.set), truth.wanted);
    }
}

impl Seen {
    fn text(&self, sets: &SetTable, version: IpVersion) -> String {
        let mut words: Vec<String> = Vec::new();
        if self.by_version {
            words.push(if version == IpVersion::V4 { "ipv4" } else { "ipv6" }.to_owned());
        }
        // What is left to say once the protocol is said: a TCP packet has ports, and no ICMP type.
        let of = |dim: Dim| {
            let own = self.within[dim as usize];
            let said = self.implied(dim);
            let i = Interval { first: own.first.max(said.first), last: own.last.min(said.last) };
            (i != said).then_some(i)
        };
        if let Some(i) = of(Dim::Proto) {
            let proto = |n: u128| Proto(n as u8);
            words.push(if i.first == i.last {
                proto(i.first).to_string()
            } else {
                format!("protocol {}", range(i.first, i.last))
            });
        }
        for (dim, name) in [(Dim::Src, "src"), (Dim::Dst, "dst")] {
            words.extend(of(dim).map(|i| format!("{name} {}", addresses(i, version))));
        }
        for (dim, name) in [(Dim::Sport, "src-port"), (Dim::Dport, "dst-port")] {
            words.extend(of(dim).map(|i| number(name, i, |last| range(i.first, last))));
        }
        let icmp = |at: u128| format!("{}/{}", at >> 8, at & 0xff);
        words.extend(of(Dim::Icmp).map(|i| {
            number("icmp", i, |last| match (i.first, last) {
                (first, last) if first == last => format!("type/code {}", icmp(first)),
                (first, last) if first & 0xff == 0 && last == first | 0xff => format!("type {}", first >> 8),
                (first, last) => format!("type/code {} to {}", icmp(first), icmp(last)),
            })
        }));
        for ((space, set), _) in self.memberships.iter().filter(|(_, held)| **held) {
            words.push(format!("{} in set {}", space.name(), sets.name(*set)));
        }
        for space in Space::ALL {
            let absent: Vec<_> = self
                .memberships
                .iter()
                .filter(|((s, _), held)| *s == space && !**held)
                .map(|((_, id), _)| id)
                .collect();
            for set in absent.iter().take(NAMED_ABSENCES) {
                words.push(format!("{} not in set {}", space.name(), sets.name(**set)));
            }
            if absent.len() > NAMED_ABSENCES {
                let more = absent.len() - NAMED_ABSENCES;
                words.push(format!("{} not in {more} more sets", space.name()));
            }
        }
        if words.is_empty() { "any packet".to_owned() } else { words.join(" ") }
    }

    /// What a packet of the protocol can be in `dim`, if only one protocol is within.
    fn implied(&self, dim: Dim) -> Interval {
        let Interval { first, last } = self.within[Dim::Proto as usize];
        let proto = Proto(first as u8);
        let has = match dim {
            Dim::Sport | Dim::Dport if first == last => proto.has_ports(),
            Dim::Icmp if first == last => proto.is_icmp(),
            _ => return dim.whole(),
        };
        if has { Interval { first: 0, last: NONE - 1 } } else { Interval { first: NONE, last: NONE } }
    }
}

fn range(first: u128, last: u128) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// A number that a packet may not have.
fn number(name: &str, i: Interval, text: impl Fn(u128) -> String) -> String {
    match i {
        Interval { first: NONE, .. } => format!("no {name}"),
        Interval { first: 0, last } if last == NONE - 1 => format!("any {name}"),
        Interval { last: NONE, .. } => format!("{name} {} or none", text(NONE - 1)),
        Interval { last, .. } => format!("{name} {}", text(last)),
    }
}

/// As a prefix where it is one, cut to the packet's version.
fn addresses(i: Interval, version: IpVersion) -> String {
    let (lowest, highest) = match version {
        IpVersion::V4 => (Addr::v4([0; 4]).bits(), Addr::v4([255; 4]).bits()),
        IpVersion::V6 => (0, u128::MAX),
    };
    let (first, last) = (i.first.max(lowest), i.last.min(highest));
    let host_bits = (first ^ last).checked_ilog2().map_or(0, |bit| bit + 1);
    let width = if version == IpVersion::V4 { 32 } else { 128 };
    let text = |at: u128| Addr::from_bits(at).to_string();
    let prefix = Prefix::truncate(Addr::from_bits(first), (width - host_bits.min(width)) as u8);
    if prefix.addr().bits() == first && prefix.last().bits() == last {
        if host_bits == 0 { text(first) } else { prefix.to_string() }
    } else {
        format!("{}-{}", text(first), text(last))
    }
}
