//! The proof that a tree says what the rules say. Nothing the compiler made is believed here.
//!
//! Three parts, for each stage and IP version:
//!
//! 1. **The table of outcomes.** Every slot stands for the rule it should, with its action.
//! 2. **The entries.** For each rule and field, the entry and the linear reference agree on
//!    every value at which either can change its mind: the edges of all intervals and prefixes
//!    the rule names, and their neighbours. Between edges both are constant, so this is all values.
//! 3. **The tree** (`proof.rs`), gone down with the pieces of entries that must be found: every node
//!    hands each to all branches that a point of its box can take. What reaches a leaf must stand in it, in
//!    order; what stands in a leaf must be decoded to its piece's box, and say "matches" only of
//!    packets the entry matches.
//!
//! Why that suffices: a walk returns the lowest piece of some that match (soundness). Let *p* be the first
//! piece that matches a point. No branch on the point's way claims that all below comes after *p*, and each was
//! handed *p*, for the point lies in its box; so *p* stands in a leaf that the point reaches, and
//! is tried before all that come after it (completeness). Nothing is left out because another rule
//! covers it, so the argument needs no other rule than *p*. The walk itself is argued with by tests
//! against the reference.
//!
//! That this holds of every rule by itself, whatever others match, is also what lets trees outlive rules:
//! `merge.rs` proves patches by it.
//!
//! Part 2 takes time in the square of a rule's longest list, part 3 as long as the tree took to
//! grow; the compiler refuses what would exceed its bounds.

use super::compiled::{CompiledPolicy, Outcome, Slots};
use super::grow::Proof;
use super::lower::{Dim, Entries, Literal, NONE, Space};
use super::proof;
use super::tree::Tree;
use super::{Action, IpVersion, Rule, SetId, reference};
use crate::net::{Addr, Icmp, PortRange, Prefix, Proto};
use std::sync::Arc;

/// How a tree differs from its rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A slot stands for the wrong rule or action.
    #[error("slot {slot} does not stand for what it should")]
    Outcome {
        /// The slot.
        slot: u32,
    },
    /// A patch does not bring the trees it is of in line with the rules.
    #[error("the patch lacks {what}")]
    Merge {
        /// What should be.
        what: &'static str,
    },
    /// A rule's entries match other packets than the rule.
    #[error("the entries of rule {rank} differ from it in {field}")]
    Entry {
        /// The rule's place among the rules of its stage that decide.
        rank: u32,
        /// The field.
        field: &'static str,
    },
    /// The tree is malformed.
    #[error("node {node}: {what}")]
    Shape {
        /// Index of the node.
        node: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Packets that a rule should decide would not find it.
    #[error("rule {rank} is missing below node {node}")]
    Lost {
        /// The rule's place among the rules of its stage that decide.
        rank: u32,
        /// Where it should be.
        node: u32,
    },
}

/// The first difference there is, with the stage and IP version it is in.
pub(super) fn check(
    policy: &CompiledPolicy,
    proofs: &[[Arc<Proof>; 2]],
) -> Result<(), (usize, IpVersion, CheckError)> {
    outcomes(policy).map_err(|slot| {
        let stage = policy.stages.iter().position(|stage| slot <= stage.default).unwrap_or(0);
        (stage, IpVersion::V4, CheckError::Outcome { slot })
    })?;
    for (index, stage) in policy.stages.iter().enumerate() {
        let rules = rules_of(policy, index);
        for version in [IpVersion::V4, IpVersion::V6] {
            let at = version as usize;
            tree(&stage.trees[at], &proofs[index][at], &rules, version, policy.used)
                .map_err(|error| (index, version, error))?;
        }
    }
    Ok(())
}

/// The deciding rules of a stage, read anew from the list.
fn rules_of(policy: &CompiledPolicy, stage: usize) -> Vec<&Rule> {
    let rules = policy.list.parts(stage).flat_map(|part| part.rules.iter());
    rules.filter(|rule| rule.action != Action::Log).collect()
}

/// Part 1. The error is the slot.
fn outcomes(policy: &CompiledPolicy) -> Result<(), u32> {
    let mut slot = 0u32;
    for (index, stage) in policy.stages.iter().enumerate() {
        let last = index + 1 == policy.list.stages();
        let found = |slot: u32| policy.outcomes.get(slot as usize).copied();
        if stage.base != slot || stage.runs.len() != policy.list.parts(index).count() {
            return Err(slot);
        }
        for (part, run) in policy.list.parts(index).zip(&stage.runs) {
            let begins = matches!(run.slots, Slots::From(first) if first == slot);
            if !begins || !run.is(part) {
                return Err(slot);
            }
            let mut own = run.slots();
            for (at, rule) in (0u32..).zip(&part.rules[..]).filter(|(_, rule)| rule.action != Action::Log) {
                if own.next() != Some((slot, at)) || found(slot) != Some(Outcome::of(rule.action, last)) {
                    return Err(slot);
                }
                slot += 1;
            }
            if own.next().is_some() {
                return Err(slot);
            }
        }
        if stage.default != slot || found(slot) != Some(Outcome::of_end(&policy.list, index)) {
            return Err(slot);
        }
        slot += 1;
    }
    let stages =
        policy.stages.len() == policy.list.stages() && policy.stages.iter().all(|s| s.patch.is_none());
    if stages && policy.outcomes.len() == slot as usize { Ok(()) } else { Err(slot) }
}

/// Parts 2 and 3.
pub(super) fn tree(
    tree: &Tree,
    proof: &Proof,
    rules: &[&Rule],
    version: IpVersion,
    used: [bool; 4],
) -> Result<(), CheckError> {
    let entries = &proof.entries;
    let ids: Vec<u32> = (0..entries.len() as u32).collect();
    let mut left = &ids[..];
    for (rank, rule) in rules.iter().enumerate() {
        let rank = rank as u32;
        let own = left.partition_point(|entry| entries.rank(*entry) <= rank);
        let (own, behind) = left.split_at(own);
        let differs = |field| CheckError::Entry { rank, field };
        if own.iter().any(|entry| entries.rank(*entry) != rank) {
            return Err(differs("its rank"));
        }
        for entry in own {
            canonical(entries, *entry, used).map_err(differs)?;
        }
        same(rule, version, entries, own).map_err(differs)?;
        left = behind;
    }
    if let Some(entry) = left.first() {
        return Err(CheckError::Entry { rank: entries.rank(*entry), field: "its rank" });
    }
    proof::check(tree, proof, version)
}

/// The walk's assumptions about an entry's arrays hold.
fn canonical(entries: &Entries, entry: u32, used: [bool; 4]) -> Result<(), &'static str> {
    let mut before = None;
    for (dim, intervals) in entries.fields(entry) {
        let ascending = intervals.windows(2).all(|two| two[0].last < two[1].first);
        let within = intervals.iter().all(|i| i.first <= i.last && i.last <= dim.whole().last);
        if intervals.is_empty() || !ascending || !within || before.is_some_and(|d| d >= dim as u8) {
            return Err("the form of its intervals");
        }
        before = Some(dim as u8);
    }
    let looked_up = |literal: &Literal| used[literal.space as usize];
    if entries.literals(entry).iter().all(looked_up) { Ok(()) } else { Err("a membership nobody looks up") }
}

/// Part 2: `own`, the entries of `rule`, together match what the rule matches.
fn same(rule: &Rule, version: IpVersion, entries: &Entries, own: &[u32]) -> Result<(), &'static str> {
    if !reference::exists(rule, version) {
        return if own.is_empty() { Ok(()) } else { Err("the IP version") };
    }
    let addresses = |nets: &[Prefix], not: &[Prefix]| -> Values {
        let edges = address_edges(nets.iter().chain(not), version);
        edges.into_iter().map(|addr| (addr.bits(), reference::nets(nets, not, addr))).collect()
    };
    let icmp = |at: u128| {
        let packet = (at != NONE).then_some(Icmp { kind: (at >> 8) as u8, code: at as u8 });
        (at, reference::icmp_type(rule, packet))
    };
    let protocols = (0..=u8::MAX).map(|p| (p.into(), reference::protocol(rule, Proto(p))));
    let axes: [(&str, Dim, Values); 4] = [
        ("the source", Dim::Src, addresses(&rule.src_nets, &rule.not_src_nets)),
        ("the destination", Dim::Dst, addresses(&rule.dst_nets, &rule.not_dst_nets)),
        ("the protocol", Dim::Proto, protocols.collect()),
        ("the ICMP type", Dim::Icmp, icmp_edges(rule).into_iter().map(icmp).collect()),
    ];
    let source_sets = literals(Space::Src, &rule.src_ip_sets, &rule.not_src_ip_sets);
    let destination_sets = literals(Space::Dst, &rule.dst_ip_sets, &rule.not_dst_ip_sets);
    let satisfiable = axes.iter().all(|(.., values)| values.iter().any(|(_, matches)| *matches))
        && !contradictory(&source_sets)
        && !contradictory(&destination_sets);
    if !satisfiable {
        return if own.is_empty() { Ok(()) } else { Err("what cannot match") };
    }

    let sources = ports(
        (&rule.src_ports, &rule.not_src_ports),
        (Space::SrcPort, &rule.src_named_ports),
        literals(Space::SrcPort, &[], &rule.not_src_named_ports),
    );
    let destinations = ports(
        (&rule.dst_ports, &rule.not_dst_ports),
        (Space::DstPort, &rule.dst_named_ports),
        literals(Space::DstPort, &rule.dst_ip_port_sets, &rule.not_dst_named_ports),
    );
    let mut found = vec![false; sources.len() * destinations.len()];
    for entry in own {
        for (field, dim, values) in &axes {
            if !agrees(entries, *entry, *dim, values) {
                return Err(field);
            }
        }
        if of_space(entries, *entry, Space::Src) != source_sets {
            return Err("the source's sets");
        }
        if of_space(entries, *entry, Space::Dst) != destination_sets {
            return Err("the destination's sets");
        }
        let is = |part: &PortPart, space, dim| {
            of_space(entries, *entry, space) == part.literals && agrees(entries, *entry, dim, &part.values)
        };
        let mut any = false;
        for (s, _) in sources.iter().enumerate().filter(|(_, part)| is(part, Space::SrcPort, Dim::Sport)) {
            for (d, _) in
                destinations.iter().enumerate().filter(|(_, part)| is(part, Space::DstPort, Dim::Dport))
            {
                found[s * destinations.len() + d] = true;
                any = true;
            }
        }
        if !any {
            return Err("the ports");
        }
    }
    if found.iter().all(|found| *found) { Ok(()) } else { Err("the alternatives of its ports") }
}

/// Every value that matters, with whether the rule matches it.
type Values = Vec<(u128, bool)>;

/// One way for a side's ports to match: by number, or by one of the named-port sets.
struct PortPart {
    literals: Vec<Literal>,
    values: Values,
}

fn ports(
    (ports, not): (&[PortRange], &[PortRange]),
    (space, named): (Space, &[SetId]),
    always: Vec<Literal>,
) -> Vec<PortPart> {
    let edges = port_edges(ports.iter().chain(not));
    let by_number = (!ports.is_empty() || named.is_empty()).then_some(None);
    let ways = by_number.into_iter().chain(named.iter().map(Some));
    let part = |named: Option<&SetId>| {
        let mut literals = always.clone();
        literals.extend(named.map(|set| Literal { space, set: *set, wanted: true }));
        literals.sort_unstable();
        literals.dedup();
        let matches = |at: u128| {
            let port = (at != NONE).then_some(at as u16);
            let wanted = named.is_some() || ports.is_empty() || reference::in_ports(ports, port);
            (at, wanted && !reference::in_ports(not, port))
        };
        let values: Values = edges.iter().copied().map(matches).collect();
        let possible = !contradictory(&literals) && values.iter().any(|(_, matches)| *matches);
        possible.then_some(PortPart { literals, values })
    };
    ways.filter_map(part).collect()
}

fn literals(space: Space, wanted: &[SetId], unwanted: &[SetId]) -> Vec<Literal> {
    let wanted = wanted.iter().map(|set| Literal { space, set: *set, wanted: true });
    let unwanted = unwanted.iter().map(|set| Literal { space, set: *set, wanted: false });
    let mut all: Vec<_> = wanted.chain(unwanted).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A set both wanted and not, among sorted literals.
fn contradictory(literals: &[Literal]) -> bool {
    literals.windows(2).any(|two| (two[0].space, two[0].set) == (two[1].space, two[1].set))
}

fn of_space(entries: &Entries, entry: u32, space: Space) -> Vec<Literal> {
    entries.literals(entry).iter().copied().filter(|literal| literal.space == space).collect()
}

fn agrees(entries: &Entries, entry: u32, dim: Dim, values: &[(u128, bool)]) -> bool {
    let intervals = entries.intervals(entry, dim);
    let contains = |at: u128| intervals.is_none_or(|list| list.iter().any(|interval| interval.contains(at)));
    values.iter().all(|(at, matches)| contains(*at) == *matches)
}

fn address_edges<'a>(nets: impl Iterator<Item = &'a Prefix>, version: IpVersion) -> Vec<Addr> {
    let v4 = Addr::v4([0; 4]).bits()..=Addr::v4([255; 4]).bits();
    let mut edges = match version {
        IpVersion::V4 => vec![*v4.start(), *v4.end()],
        IpVersion::V6 => vec![0, *v4.start() - 1, *v4.end() + 1, u128::MAX],
    };
    for net in nets {
        let (first, last) = (net.addr().bits(), net.last().bits());
        edges.extend([first.saturating_sub(1), first, last, last.saturating_add(1)]);
    }
    edges.sort_unstable();
    edges.dedup();
    edges.into_iter().map(Addr::from_bits).filter(|addr| IpVersion::of(*addr) == version).collect()
}

fn port_edges<'a>(ranges: impl Iterator<Item = &'a PortRange>) -> Vec<u128> {
    let mut edges = vec![0, NONE - 1, NONE];
    for range in ranges {
        let (first, last) = (u128::from(range.first), u128::from(range.last));
        edges.extend([first.saturating_sub(1), first, last, last + 1]);
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

fn icmp_edges(rule: &Rule) -> Vec<u128> {
    let mut edges = vec![0, NONE - 1, NONE];
    for icmp in rule.icmp.iter().chain(&rule.not_icmp) {
        let kind = u128::from(icmp.kind) << 8;
        let code = kind | u128::from(icmp.code.unwrap_or(0));
        edges.extend([kind, kind | 0xff, code].iter().flat_map(|at| [at.saturating_sub(1), *at, at + 1]));
    }
    edges
}
