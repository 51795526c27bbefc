//! From a rule list to the trees that decide, and the decision.

use super::check::{self, CheckError};
use super::grow::{Proof, grow};
use super::lower::{Entries, Literal, Space};
use super::point::Point;
use super::simd::Cpu;
use super::tree::{NONE_FOUND, Tree, Watch};
use super::{
    Action, Decider, Explanation, IpVersion, Otherwise, Place, Query, Rule, RuleList, SetTable, TierDefault,
    Verdict, batch, explain,
};
use std::sync::Arc;

/// Rules of one list that decide (log rules do not), with the defaults.
const MAX_SLOTS: usize = 1 << 20;
/// Prefixes, port ranges and set tests of one list after lowering.
const MAX_ITEMS: usize = 1 << 25;
/// Comparisons the check spends on the lists of single rules: quadratic in the length of a list.
const MAX_CHECK_WORK: usize = 1 << 32;

/// Why a rule list has no tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More than a tree holds, or than can be checked in reasonable time.
    #[error("the rule list has {count} {what}, the limit is {limit}; {remedy}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        count: usize,
        /// How much there may be.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// The compiler made a mistake, and it was noticed.
    #[error(
        "the compiled tree of {stage} for {version:?} is not what the rules say: {source}; please report this"
    )]
    Wrong {
        /// The tier, or the profiles.
        stage: String,
        /// Of the packets the tree is for.
        version: IpVersion,
        /// What the check found.
        source: CheckError,
    },
}

/// A rule list in the form that decides packets. Holding one is proof that its trees say what
/// the rules say: [`compile`] is the only way to it, and checks them.
#[derive(Debug)]
pub struct CompiledPolicy {
    pub(super) list: Arc<RuleList>,
    /// One for each tier, then one for the profiles.
    pub(super) stages: Box<[Stage]>,
    /// By slot.
    pub(super) outcomes: Box<[Outcome]>,
    /// By slot.
    pub(super) deciders: Box<[Decider]>,
    /// The spaces whose memberships the trees ask for.
    pub(super) used: [bool; 4],
    pub(super) cpu: Cpu,
}

/// A tier, or the profiles: the rules that are looked at together.
#[derive(Debug)]
pub(super) struct Stage {
    /// For IPv4 and IPv6; one and the same where the rules do not tell them apart.
    pub(super) trees: [Arc<Tree>; 2],
    /// Slot of the rule with rank 0; the others follow.
    pub(super) base: u32,
    /// Slot for packets no rule matches.
    pub(super) default: u32,
}

/// What a slot means for the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allow,
    Deny,
    /// On to the next stage.
    Next,
}

/// Compiles and checks.
///
/// Time and memory are bounded by the number of rules and the length of their lists; what
/// exceeds the bounds is refused.
pub fn compile(list: impl Into<Arc<RuleList>>) -> Result<CompiledPolicy, CompileError> {
    let list = list.into();
    fits(&list)?;
    let (policy, proofs) = assemble(list);
    proven(policy, &proofs)
}

impl CompiledPolicy {
    /// Judges a packet. Takes no lock, allocates nothing, does not fail.
    ///
    /// `sets` must hold every set the rules name, else a "not in" would hold of everything;
    /// [`PolicyTable`](super::PolicyTable) sees to that.
    #[inline]
    pub fn judge(&self, sets: &SetTable, q: &Query) -> Verdict {
        self.decide(sets, q, &mut (), |_| {})
    }

    /// Judges many packets, as [`judge`](Self::judge) does each; their walks take turns.
    ///
    /// # Panics
    /// If there are not as many verdicts as queries.
    pub fn judge_batch(&self, sets: &SetTable, queries: &[Query], verdicts: &mut [Verdict]) {
        batch::judge(self, sets, queries, verdicts);
    }

    /// Judges a packet by the same walk of the same trees, and notes what was looked at.
    ///
    /// Log rules decide nothing and are not in the trees: which of them the packet met is asked
    /// of the rules themselves, here and nowhere else.
    pub fn explain(&self, sets: &SetTable, q: &Query) -> Explanation {
        explain::explain(self, sets, q)
    }

    /// Something in the list decided; else nothing did, and `verdict` is the list's
    /// [`otherwise`](RuleList::otherwise).
    #[inline]
    pub fn decided(&self, verdict: Verdict) -> bool {
        // The end is the last slot.
        (verdict.slot as usize) + 1 < self.deciders.len()
    }

    /// Memory that packets walk: nodes, leaves and what leaves ask for.
    pub fn bytes(&self) -> usize {
        let trees = self.stages.iter().flat_map(|stage| {
            let [v4, v6] = &stage.trees;
            std::iter::once(v4).chain((!Arc::ptr_eq(v4, v6)).then_some(v6))
        });
        trees.map(|tree| tree.bytes()).sum::<usize>() + self.outcomes.len()
    }

    /// What each slot stands for.
    pub fn deciders(&self) -> &[Decider] {
        &self.deciders
    }

    /// What was compiled.
    pub fn list(&self) -> &Arc<RuleList> {
        &self.list
    }

    /// `visited` is told the slot at which each stage ended.
    #[inline]
    pub(super) fn decide<W: Watch>(
        &self,
        sets: &SetTable,
        q: &Query,
        watch: &mut W,
        mut visited: impl FnMut(u32),
    ) -> Verdict {
        let version = IpVersion::of(q.key.src);
        // No rule exists for a packet of two versions.
        let mixed = version != IpVersion::of(q.key.dst);
        let point = Point::new(q, sets, self.used);
        for stage in &self.stages {
            let slot = match stage.trees[version as usize].find(self.cpu, &point, watch) {
                rank if rank == NONE_FOUND || mixed => stage.default,
                rank => stage.base + rank,
            };
            visited(slot);
            match self.outcomes[slot as usize] {
                Outcome::Allow => return Verdict { allow: true, slot },
                Outcome::Deny => return Verdict { allow: false, slot },
                Outcome::Next => {}
            }
        }
        // Not reached: the last stage has no next. If it were, the last slot is the deny at the end.
        Verdict { allow: false, slot: self.deciders.len() as u32 - 1 }
    }
}

/// Refuses what would not fit, before anything is built.
fn fits(list: &RuleList) -> Result<(), CompileError> {
    let bounded = |what, count, limit, remedy| {
        if count > limit { Err(CompileError::TooLarge { what, count, limit, remedy }) } else { Ok(()) }
    };
    let slots = list.rules().count() + list.tiers.len() + 1;
    bounded("rules", slots, MAX_SLOTS, "select the endpoint by fewer policies")?;
    let (items, work) = list
        .rules()
        .map(size)
        .fold((0usize, 0usize), |(items, work), (i, w)| (items.saturating_add(i), work.saturating_add(w)));
    bounded("prefixes, port ranges and set tests", items, MAX_ITEMS, "put addresses into network sets")?;
    bounded("comparisons to check", work, MAX_CHECK_WORK, "shorten the longest lists of prefixes or ports")
}

/// Of one rule: items after lowering, and comparisons its check takes.
fn size(rule: &Rule) -> (usize, usize) {
    let src = rule.src_nets.len() + rule.not_src_nets.len();
    let dst = rule.dst_nets.len() + rule.not_dst_nets.len();
    let sports = rule.src_ports.len() + rule.not_src_ports.len();
    let dports = rule.dst_ports.len() + rule.not_dst_ports.len();
    let products = (1 + rule.src_named_ports.len()) * (1 + rule.dst_named_ports.len());
    let one = 8 + src + dst + sports + dports + rule.address_sets().count() + rule.port_sets().count();
    let squares = [src, dst, sports, dports].map(|n| 4 * n * n).iter().sum::<usize>();
    (products.saturating_mul(one), products.saturating_mul(squares))
}

/// Builds, unchecked.
fn assemble(list: Arc<RuleList>) -> (CompiledPolicy, Vec<Proofs>) {
    let mut stages = Vec::new();
    let mut proofs = Vec::new();
    let mut outcomes = Vec::new();
    let mut deciders: Vec<Decider> = Vec::new();
    let mut stage = |groups: &[(Place, &[Rule])], end: Decider, pass: Outcome| {
        let base = deciders.len() as u32;
        let mut ranked = Vec::new();
        for (place, rules) in groups {
            for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.action != Action::Log) {
                ranked.push(rule);
                deciders.push(Decider { place: place.clone(), rule: index as i32, action: rule.action });
            }
        }
        let default = deciders.len() as u32;
        deciders.push(end);
        outcomes.extend(deciders[base as usize..].iter().map(|decider| match decider.action {
            Action::Allow => Outcome::Allow,
            Action::Deny => Outcome::Deny,
            Action::Pass | Action::Log => pass,
        }));
        let (trees, proof) = trees(&ranked);
        stages.push(Stage { trees, base, default });
        proofs.push(proof);
    };
    for tier in &list.tiers {
        let place = |id| Place::Policy { tier: tier.name.clone(), policy: id };
        let groups: Vec<_> = tier.policies.iter().map(|p| (place(p.id.clone()), &p.rules[..])).collect();
        let action = match tier.default {
            TierDefault::Deny => Action::Deny,
            TierDefault::Pass => Action::Pass,
        };
        let end = Decider { place: Place::TierEnd { tier: tier.name.clone() }, rule: -1, action };
        stage(&groups, end, Outcome::Next);
    }
    let groups: Vec<_> =
        list.profiles.iter().map(|p| (Place::Profile { name: p.name.clone() }, &p.rules[..])).collect();
    let end = match list.otherwise {
        Otherwise::Deny => Action::Deny,
        Otherwise::GoOn => Action::Pass,
    };
    stage(&groups, Decider { place: Place::End, rule: -1, action: end }, Outcome::Deny);
    if let (Otherwise::GoOn, Some(last)) = (list.otherwise, outcomes.last_mut()) {
        *last = Outcome::Allow;
    }

    let stages: Box<[Stage]> = stages.into();
    let wants = |space: Space| {
        let entries = proofs.iter().flatten().map(|proof| &proof.entries);
        entries.flat_map(all_literals).any(|literal| literal.space == space)
    };
    let used = Space::ALL.map(wants);
    let (outcomes, deciders) = (outcomes.into(), deciders.into());
    (CompiledPolicy { stages, outcomes, deciders, used, list, cpu: Cpu::detect() }, proofs)
}

/// For each IP version.
type Proofs = [Arc<Proof>; 2];

fn trees(ranked: &[&Rule]) -> ([Arc<Tree>; 2], Proofs) {
    let lowered = |version| {
        let mut entries = Entries::default();
        ranked.iter().enumerate().for_each(|(rank, rule)| entries.lower(rule, version, rank as u32));
        entries
    };
    let [v4, v6] = [IpVersion::V4, IpVersion::V6].map(lowered);
    let grown = |entries, version| {
        let (tree, proof) = grow(entries, version);
        (Arc::new(tree), Arc::new(proof))
    };
    let same = v4 == v6;
    let v4 = grown(v4, IpVersion::V4);
    let v6 = if same { v4.clone() } else { grown(v6, IpVersion::V6) };
    ([v4.0, v6.0], [v4.1, v6.1])
}

fn all_literals(entries: &Entries) -> impl Iterator<Item = &Literal> {
    (0..entries.len() as u32).flat_map(|entry| entries.literals(entry))
}

/// Checks, and only then lets the policy out.
fn proven(policy: CompiledPolicy, proofs: &[Proofs]) -> Result<CompiledPolicy, CompileError> {
    check::check(&policy, proofs).map_err(|(stage, version, source)| {
        let stage = match policy.list.tiers.get(stage) {
            Some(tier) => format!("tier {}", tier.name),
            None => "the profiles".to_owned(),
        };
        CompileError::Wrong { stage, version, source }
    })?;
    Ok(policy)
}

#[cfg(test)]
impl CompiledPolicy {
    /// Compiles, breaks the result by `fault`, and checks what came of it.
    pub(super) fn sabotaged(list: RuleList, fault: impl FnOnce(&mut Self)) -> Result<Self, CompileError> {
        let (mut policy, proofs) = assemble(list.into());
        fault(&mut policy);
        proven(policy, &proofs)
    }
}
