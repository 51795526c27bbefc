//! The proof that a tree says what the rules say. Nothing the compiler made is believed here.
//!
//! Three parts, for each stage and IP version:
//!
//! 1. **The table of outcomes.** Every slot stands for the rule it should, with its action.
//! 2. **The entries.** For each rule and field, the entry and the linear reference agree on
//!    every value at which either can change its mind: the edges of all intervals and prefixes
//!    the rule names, and their neighbours. Between edges both are constant, so this is all values.
//! 3. **The tree.** By interval arithmetic, going down with the box each node is responsible for
//!    and the entries that must be found there. An entry leaves the obligations only if it does
//!    not touch the box, or if an obligation before it covers the whole box. What is still owed
//!    at a leaf must stand in the leaf.
//!
//! Why that suffices: leaves try entries in full, so the walk returns the lowest rank of some
//! entries that match (soundness). Let *e* be the first entry that matches a point. On the
//! point's way down *e* touches every box, and nothing before *e* covers one, for that would match the
//! point too; so *e* is owed at the point's leaf, hence tried (completeness). The walk itself
//! is argued with by tests against the reference.
//!
//! Part 2 takes time in the square of a rule's longest list, part 3 as long as the tree took to
//! grow; the compiler refuses what would exceed its bounds.

use super::compiled::{CompiledPolicy, Outcome};
use super::grow::MAX_DEPTH;
use super::lower::{Dim, Entries, Interval, Literal, NONE, Space};
use super::tree::{Branch, Node, Tree};
use super::{Action, Decider, IpVersion, Place, Rule, SetId, TierDefault, reference};
use crate::net::{Addr, Icmp, PortRange, Prefix, Proto};

/// How a tree differs from its rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A slot stands for the wrong rule or action.
    #[error("slot {slot} does not stand for what it should")]
    Outcome {
        /// The slot.
        slot: u32,
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
pub(super) fn check(policy: &CompiledPolicy) -> Result<(), (usize, IpVersion, CheckError)> {
    outcomes(policy).map_err(|slot| {
        let stage = policy.stages.iter().position(|stage| slot <= stage.default).unwrap_or(0);
        (stage, IpVersion::V4, CheckError::Outcome { slot })
    })?;
    for (index, stage) in policy.stages.iter().enumerate() {
        let rules = rules_of(policy, index);
        for version in [IpVersion::V4, IpVersion::V6] {
            tree(&stage.trees[version as usize], &rules, version, policy.used)
                .map_err(|error| (index, version, error))?;
        }
    }
    Ok(())
}

/// The deciding rules of a stage, read anew from the list.
fn rules_of(policy: &CompiledPolicy, stage: usize) -> Vec<&Rule> {
    let rules: Vec<&Rule> = match policy.list.tiers.get(stage) {
        Some(tier) => tier.policies.iter().flat_map(|p| p.rules.iter()).collect(),
        None => policy.list.profiles.iter().flat_map(|p| p.rules.iter()).collect(),
    };
    rules.into_iter().filter(|rule| rule.action != Action::Log).collect()
}

/// Part 1. The error is the slot.
fn outcomes(policy: &CompiledPolicy) -> Result<(), u32> {
    let mut expected: Vec<(Decider, Outcome)> = Vec::new();
    let mut stages: Vec<(u32, u32)> = Vec::new();
    for tier in &policy.list.tiers {
        let base = expected.len() as u32;
        for policy in &tier.policies {
            let place = Place::Policy { tier: tier.name.clone(), policy: policy.id.clone() };
            expect_rules(&mut expected, &place, &policy.rules, Outcome::Next);
        }
        stages.push((base, expected.len() as u32));
        let (action, outcome) = match tier.default {
            TierDefault::Deny => (Action::Deny, Outcome::Deny),
            TierDefault::Pass => (Action::Pass, Outcome::Next),
        };
        expected
            .push((Decider { place: Place::TierEnd { tier: tier.name.clone() }, rule: -1, action }, outcome));
    }
    let base = expected.len() as u32;
    for profile in &policy.list.profiles {
        let place = Place::Profile { name: profile.name.clone() };
        expect_rules(&mut expected, &place, &profile.rules, Outcome::Deny);
    }
    stages.push((base, expected.len() as u32));
    expected.push((Decider { place: Place::End, rule: -1, action: Action::Deny }, Outcome::Deny));

    let found = policy.deciders.iter().zip(&policy.outcomes);
    let differs =
        expected.iter().zip(found).position(|(e, (decider, outcome))| e.0 != *decider || e.1 != *outcome);
    if let Some(slot) = differs {
        return Err(slot as u32);
    }
    let lengths = policy.deciders.len() == expected.len() && policy.outcomes.len() == expected.len();
    let placed = policy.stages.iter().map(|stage| (stage.base, stage.default)).eq(stages);
    if lengths && placed { Ok(()) } else { Err(expected.len() as u32) }
}

fn expect_rules(expected: &mut Vec<(Decider, Outcome)>, place: &Place, rules: &[Rule], pass: Outcome) {
    for (index, rule) in rules.iter().enumerate() {
        let outcome = match rule.action {
            Action::Allow => Outcome::Allow,
            Action::Deny => Outcome::Deny,
            Action::Pass => pass,
            Action::Log => continue,
        };
        let decider = Decider { place: place.clone(), rule: index as i32, action: rule.action };
        expected.push((decider, outcome));
    }
}

/// Parts 2 and 3.
fn tree(tree: &Tree, rules: &[&Rule], version: IpVersion, used: [bool; 4]) -> Result<(), CheckError> {
    let entries = &tree.entries;
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

    shape(tree)?;
    let everywhere = Region { within: Dim::ALL.map(Dim::whole), known: Vec::new() };
    owed(tree, 0, ids, everywhere, 0)
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

/// Indices are in range, children have one parent and come after it, and what is searched is sorted.
fn shape(tree: &Tree) -> Result<(), CheckError> {
    let span = |first: u32, end: u32, len: usize| first <= end && end as usize <= len;
    let mut has_parent = vec![false; tree.nodes.len()];
    for (index, node) in tree.nodes.iter().enumerate() {
        let mut child = |node: u32| {
            let parent = has_parent.get_mut(node as usize).map(|has| std::mem::replace(has, true));
            node as usize > index && parent == Some(false)
        };
        let right = match *node {
            Node::Cut { dim, bound, below, rest } => {
                child(below) && child(rest) && bound > 0 && bound <= dim.whole().last
            }
            Node::Each { first, end } => {
                span(first, end, tree.branches.len())
                    && tree.branches[first as usize..end as usize].iter().all(|b| child(b.node))
            }
            Node::BySet { first, end, rest, .. } => {
                child(rest) && span(first, end, tree.groups.len()) && {
                    let groups = &tree.groups[first as usize..end as usize];
                    groups.iter().all(|g| child(g.branch.node))
                        && groups.windows(2).all(|g| g[0].set < g[1].set)
                }
            }
            Node::Leaf { first, end } => {
                span(first, end, tree.leaves.len()) && {
                    let leaf = &tree.leaves[first as usize..end as usize];
                    let known = |entry: &u32| (*entry as usize) < tree.entries.len();
                    let ordered = |two: &[u32]| tree.entries.rank(two[0]) <= tree.entries.rank(two[1]);
                    leaf.iter().all(known) && leaf.windows(2).all(ordered)
                }
            }
        };
        if !right {
            return Err(CheckError::Shape {
                node: index as u32,
                what: "indices out of range or out of order",
            });
        }
    }
    if tree.nodes.is_empty() { Err(CheckError::Shape { node: 0, what: "no root" }) } else { Ok(()) }
}

#[derive(Clone)]
struct Region {
    within: [Interval; 6],
    /// Sets that hold every point considered.
    known: Vec<(Space, SetId)>,
}

impl Region {
    fn touched_by(&self, entries: &Entries, entry: u32) -> bool {
        entries.fields(entry).all(|(dim, intervals)| {
            let box_ = self.within[dim as usize];
            intervals.iter().any(|i| i.first <= box_.last && box_.first <= i.last)
        })
    }

    fn covered_by(&self, entries: &Entries, entry: u32) -> bool {
        let holds = |literal: &Literal| literal.wanted && self.known.contains(&(literal.space, literal.set));
        entries.literals(entry).iter().all(holds)
            && entries.fields(entry).all(|(dim, intervals)| {
                let box_ = self.within[dim as usize];
                intervals.iter().any(|i| i.first <= box_.first && box_.last <= i.last)
            })
    }

    fn with(&self, dim: Dim, interval: Interval) -> Self {
        let mut part = self.clone();
        part.within[dim as usize] = interval;
        part
    }
}

/// Part 3: every point of `region` that one of `owed` matches first is led to it below `node`.
fn owed(tree: &Tree, node: u32, owed_here: Vec<u32>, region: Region, depth: u32) -> Result<(), CheckError> {
    if depth > MAX_DEPTH {
        return Err(CheckError::Shape { node, what: "too deep" });
    }
    let entries = &tree.entries;
    let mut list = owed_here;
    list.retain(|entry| region.touched_by(entries, *entry));
    if let Some(last) = list.iter().position(|entry| region.covered_by(entries, *entry)) {
        list.truncate(last + 1);
    }
    let lost = |entry: u32| CheckError::Lost { rank: entries.rank(entry), node };
    // A branch is not entered for what is not below its `lowest`.
    let into_branch = |branch: Branch, list: Vec<u32>, region: Region| match list
        .iter()
        .find(|entry| entries.rank(**entry) < branch.lowest)
    {
        Some(entry) => Err(lost(*entry)),
        None => owed(tree, branch.node, list, region, depth + 1),
    };
    match tree.nodes[node as usize] {
        Node::Leaf { first, end } => {
            let leaf = &tree.leaves[first as usize..end as usize];
            list.iter().find(|entry| !leaf.contains(entry)).map_or(Ok(()), |entry| Err(lost(*entry)))
        }
        Node::Cut { dim, bound, below, rest } => {
            let Interval { first, last } = region.within[dim as usize];
            // A cut beside the box leaves one side empty: nothing is owed there.
            if bound > first {
                let part = region.with(dim, Interval { first, last: last.min(bound - 1) });
                owed(tree, below, list.clone(), part, depth + 1)?;
            }
            if bound <= last {
                let part = region.with(dim, Interval { first: first.max(bound), last });
                owed(tree, rest, list, part, depth + 1)?;
            }
            Ok(())
        }
        Node::Each { first, end } => {
            // Any branch would do: all are asked. The grower says which one was meant.
            let branches = &tree.branches[first as usize..end as usize];
            let mut inside: Vec<Vec<u32>> = vec![Vec::new(); branches.len()];
            for entry in list {
                let meant =
                    tree.parts.get(entry as usize).and_then(|part| inside.get_mut(usize::from(*part)));
                meant.ok_or(lost(entry))?.push(entry);
            }
            branches
                .iter()
                .zip(inside)
                .try_for_each(|(branch, list)| into_branch(*branch, list, region.clone()))
        }
        Node::BySet { space, first, end, rest } => {
            // A point that matches an entry is in every set the entry wants: one of their groups
            // will do, and it is the first.
            let groups = &tree.groups[first as usize..end as usize];
            let mut inside: Vec<Vec<u32>> = vec![Vec::new(); groups.len()];
            list.retain(|entry| {
                let known = |l: &Literal| region.known.contains(&(space, l.set));
                let mut wanted =
                    entries.literals(*entry).iter().filter(|l| l.space == space && l.wanted && !known(l));
                let group = wanted.next().and_then(|l| groups.binary_search_by_key(&l.set, |g| g.set).ok());
                group.map(|at| inside[at].push(*entry)).is_none()
            });
            for (group, list) in groups.iter().zip(inside) {
                let mut region = region.clone();
                region.known.push((space, group.set));
                into_branch(group.branch, list, region)?;
            }
            owed(tree, rest, list, region, depth + 1)
        }
    }
}
