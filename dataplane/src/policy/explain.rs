//! A verdict with its reasons, read off the walk that gave it.

use super::compiled::CompiledPolicy;
use super::lower::{Dim, Interval, Literal, NONE, Space};
use super::tree::Watch;
use super::{
    Action, Decider, Explanation, IpVersion, Place, Query, Rule, SetId, SetTable, Verdict, reference,
};
use crate::net::{Addr, Prefix, Proto};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sets that did not hold the packet and are named one by one.
const NAMED_ABSENCES: usize = 8;

/// Judges by the trees, watching.
pub(super) fn explain(policy: &CompiledPolicy, sets: &SetTable, q: &Query) -> Explanation {
    let (verdict, slots, seen) = look(policy, sets, q);
    let mut walk = Vec::new();
    for (stage, slot) in slots.into_iter().enumerate() {
        let rank = slot - policy.stages[stage].base;
        logged(policy, stage, rank, sets, q, &mut walk);
        walk.push(policy.deciders[slot as usize].clone());
    }
    let decider = policy.deciders[verdict.slot as usize].clone();
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
    let verdict = policy.decide(sets, q, &mut seen, |slot| slots.push(slot));
    let visited = policy.stages.iter().take(slots.len());
    seen.by_version = visited.into_iter().any(|stage| !Arc::ptr_eq(&stage.trees[0], &stage.trees[1]));
    (verdict, slots, seen)
}

/// The log rules of a stage that the packet met before the rule with `rank`.
fn logged(
    policy: &CompiledPolicy,
    stage: usize,
    rank: u32,
    sets: &SetTable,
    q: &Query,
    walk: &mut Vec<Decider>,
) {
    let groups: Vec<(Place, &[Rule])> = match policy.list.tiers.get(stage) {
        Some(tier) => {
            let place = |id| Place::Policy { tier: tier.name.clone(), policy: id };
            tier.policies.iter().map(|p| (place(p.id.clone()), &p.rules[..])).collect()
        }
        None => policy
            .list
            .profiles
            .iter()
            .map(|p| (Place::Profile { name: p.name.clone() }, &p.rules[..]))
            .collect(),
    };
    let mut before = 0;
    for (place, rules) in groups {
        for (index, rule) in rules.iter().enumerate() {
            if rule.action != Action::Log {
                if before == rank {
                    return;
                }
                before += 1;
            } else if reference::matches(rule, sets, q) {
                walk.push(Decider { place: place.clone(), rule: index as i32, action: Action::Log });
            }
        }
    }
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
            words.push(format!("{} in set {}", space_name(*space), sets.name(*set)));
        }
        for space in Space::ALL {
            let absent: Vec<_> = self
                .memberships
                .iter()
                .filter(|((s, _), held)| *s == space && !**held)
                .map(|((_, id), _)| id)
                .collect();
            for set in absent.iter().take(NAMED_ABSENCES) {
                words.push(format!("{} not in set {}", space_name(space), sets.name(**set)));
            }
            if absent.len() > NAMED_ABSENCES {
                let more = absent.len() - NAMED_ABSENCES;
                words.push(format!("{} not in {more} more sets", space_name(space)));
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

fn space_name(space: Space) -> &'static str {
    match space {
        Space::Src => "src",
        Space::Dst => "dst",
        Space::SrcPort => "src:port",
        Space::DstPort => "dst:port",
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
