//! From a rule list to the trees that decide, and the decision.

use super::batch::{self, Room};
use super::check::{self, CheckError};
use super::grow::{Form, Proof, grow};
use super::list::Part;
use super::lower::{Entries, Literal};
use super::patch::{self, Patch};
use super::point::Point;
use super::simd::{Cpu, Job, Kernel};
use super::slice::{Size, Slice};
use super::tree::{NONE_FOUND, Tree, Watch};
use super::{
    Action, Decider, Explanation, IpVersion, Otherwise, Query, Rule, RuleList, SetTable, Verdict, explain,
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
/// the rules say: the only ways to it, [`compile`] and a patch by [`PolicyTable`](super::PolicyTable),
/// check them.
#[derive(Debug)]
pub struct CompiledPolicy {
    pub(super) list: Arc<RuleList>,
    /// One for each tier, then one for the profiles.
    pub(super) stages: Box<[Stage]>,
    /// By slot.
    pub(super) outcomes: Box<[Outcome]>,
    /// The spaces whose memberships the trees ask for.
    pub(super) used: [bool; 4],
    pub(super) cpu: Cpu,
    /// Of the trees.
    pub(super) form: Form,
    /// What was compiled whole, where this is that with patches.
    pub(super) origin: Option<Arc<CompiledPolicy>>,
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
    /// The rules now, in order.
    pub(super) runs: Box<[Run]>,
    /// What has changed since the trees were grown.
    pub(super) patch: Option<Patch>,
}

/// A chunk of the rules of a policy or profile, and their slots.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Which policy of its tier, or which profile.
    pub(super) owner: u32,
    /// The first one's number among the owner's rules.
    pub(super) first: u32,
    pub(super) slice: Arc<Slice>,
    pub(super) slots: Slots,
}

/// By place among the rules of a slice that decide.
#[derive(Clone, Debug)]
pub(super) enum Slots {
    /// This and those that follow.
    From(u32),
    /// These.
    Each(Box<[u32]>),
}

impl Run {
    /// Of the chunk that stands there in a list.
    pub(super) fn new(part: Part<'_>, slice: &Arc<Slice>, slots: Slots) -> Self {
        Self { owner: part.owner, first: part.first, slice: slice.clone(), slots }
    }

    /// The chunk is this one.
    pub(super) fn is(&self, part: Part<'_>) -> bool {
        (self.owner, self.first) == (part.owner, part.first) && self.slice.is(part.rules)
    }

    /// The slots of the rules that decide, with the rules' indexes.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u32, u32)> {
        self.slice.deciding.iter().enumerate().map(|(at, index)| (self.slot(at), *index))
    }

    fn slot(&self, at: usize) -> u32 {
        match &self.slots {
            Slots::From(first) => first + at as u32,
            Slots::Each(slots) => slots[at],
        }
    }
}

impl Stage {
    /// Of a rank that the trees found.
    #[inline(always)]
    pub(super) const fn slot(&self, rank: u32) -> u32 {
        if rank == NONE_FOUND { self.default } else { self.base + rank }
    }

    /// Packets of the two IP versions may walk different trees.
    pub(super) fn by_version(&self) -> bool {
        let differ = |[v4, v6]: &[Arc<Tree>; 2]| !Arc::ptr_eq(v4, v6);
        differ(&self.trees) || self.patch.as_ref().is_some_and(|patch| differ(&patch.trees))
    }
}

/// What a slot means for the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allow,
    Deny,
    /// On to the next stage.
    Next,
}

impl Outcome {
    /// Of a rule that decides, in the `last` stage or one before it.
    pub(super) const fn of(action: Action, last: bool) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Deny => Self::Deny,
            Action::Pass | Action::Log if last => Self::Deny,
            Action::Pass | Action::Log => Self::Next,
        }
    }

    /// Where no rule of the stage matched.
    pub(super) fn of_end(list: &RuleList, stage: usize) -> Self {
        let last = stage + 1 == list.stages();
        match list.otherwise {
            Otherwise::GoOn if last => Self::Allow,
            Otherwise::GoOn | Otherwise::Deny => Self::of(list.end_action(stage), last),
        }
    }
}

/// Compiles and checks.
///
/// Time and memory are bounded by the number of rules and the length of their lists; what
/// exceeds the bounds is refused.
pub fn compile(list: impl Into<Arc<RuleList>>) -> Result<CompiledPolicy, CompileError> {
    let list = list.into();
    compile_within(list, usize::MAX)
}

/// As [`compile`], into trees of at most `ceiling` bytes where one of the slower forms is as small.
pub fn compile_within(
    list: impl Into<Arc<RuleList>>,
    ceiling: usize,
) -> Result<CompiledPolicy, CompileError> {
    let list = list.into();
    let slices = slices(&list);
    compile_slices(&list, &slices, ceiling)
}

/// Of each stage.
pub(super) fn slices(list: &RuleList) -> Vec<Vec<Arc<Slice>>> {
    let of = |stage| list.parts(stage).map(|part| Arc::new(Slice::new(part.rules.clone()))).collect();
    (0..list.stages()).map(of).collect()
}

/// Compiles and checks a list whose stages are `slices`.
pub(super) fn compile_slices(
    list: &Arc<RuleList>,
    slices: &[Vec<Arc<Slice>>],
    ceiling: usize,
) -> Result<CompiledPolicy, CompileError> {
    fits(slices)?;
    let (mut policy, mut proofs) = assemble(list.clone(), slices, Form::Full);
    for form in [Form::Compact, Form::Linear] {
        if policy.bytes() > ceiling {
            // Not both at once in memory.
            drop((policy, proofs));
            (policy, proofs) = assemble(list.clone(), slices, form);
        }
    }
    proven(policy, &proofs)
}

impl CompiledPolicy {
    /// Judges a packet. Takes no lock, allocates nothing, does not fail.
    ///
    /// `sets` must hold every set the rules name, else a "not in" would hold of everything;
    /// [`PolicyTable`](super::PolicyTable) sees to that.
    #[inline]
    pub fn judge(&self, sets: &SetTable, q: &Query) -> Verdict {
        self.cpu.tuned(One { policy: self, sets, q })
    }

    /// Judges many packets, as [`judge`](Self::judge) does each; their walks take turns in `room`.
    ///
    /// # Panics
    /// If there are not as many verdicts as queries.
    pub fn judge_batch(&self, sets: &SetTable, queries: &[Query], verdicts: &mut [Verdict], room: &mut Room) {
        batch::judge(self, sets, queries, verdicts, room);
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
        self.stages.last().is_none_or(|last| last.default != verdict.slot)
    }

    /// Memory that packets walk: nodes, leaves and what leaves ask for.
    pub fn bytes(&self) -> usize {
        let stages = self
            .stages
            .iter()
            .map(|stage| bytes(&stage.trees) + stage.patch.as_ref().map_or(0, |patch| patch.bytes()));
        stages.sum::<usize>() + self.outcomes.len()
    }

    /// What a slot stands for; `None` where no rule has it, or none has it any more.
    pub fn decider(&self, slot: u32) -> Option<Decider> {
        let (stage, rule) = self.position(slot)?;
        Some(match rule {
            Some((slice, index)) => self.rule(stage, slice, index),
            None => self.end(stage),
        })
    }

    /// Every rule that decides, in order, and the default of each tier, each with its slot.
    pub fn deciders(&self) -> impl Iterator<Item = (u32, Decider)> {
        self.stages.iter().enumerate().flat_map(move |(stage, of)| {
            let rules = of.runs.iter().enumerate().flat_map(move |(slice, run)| {
                run.slots().map(move |(slot, index)| (slot, self.rule(stage, slice, index)))
            });
            rules.chain(std::iter::once_with(move || (of.default, self.end(stage))))
        })
    }

    /// The slots of all that can decide now, in order.
    pub(super) fn live_slots(&self) -> impl Iterator<Item = u32> {
        self.stages.iter().flat_map(move |stage| {
            stage.runs.iter().flat_map(|run| run.slots().map(|(slot, _)| slot)).chain([stage.default])
        })
    }

    /// As many as there can be slots, patches to come included.
    pub fn slots(&self) -> u32 {
        let whole = self.origin.as_deref().unwrap_or(self);
        let slots = whole.outcomes.len() as u32;
        slots + patch::reserve(slots)
    }

    /// Rules that decide.
    pub(super) fn rules(&self) -> usize {
        self.stages.iter().flat_map(|stage| &*stage.runs).map(|run| run.slice.len()).sum()
    }

    /// The trees are in a slower form that takes less memory.
    pub fn is_compact(&self) -> bool {
        self.form != Form::Full
    }

    /// Rules that are gone or new since the trees were grown.
    pub fn changes(&self) -> usize {
        self.stages.iter().flat_map(|stage| &stage.patch).map(|p| p.dead.count() + p.slots.len()).sum()
    }

    /// The trees are those of an earlier list, with patches.
    pub fn is_patched(&self) -> bool {
        self.origin.is_some()
    }

    /// What a packet for which the slot decides is told at last.
    pub fn allows(&self, slot: u32) -> bool {
        self.outcomes.get(slot as usize) == Some(&Outcome::Allow)
    }

    /// What was compiled.
    pub fn list(&self) -> &Arc<RuleList> {
        &self.list
    }

    /// `visited` is told the slot at which each stage ended.
    #[inline(always)]
    pub(super) fn decide<K: Kernel, W: Watch>(
        &self,
        kernel: K,
        sets: &SetTable,
        q: &Query,
        watch: &mut W,
        mut visited: impl FnMut(u32),
    ) -> Verdict {
        let version = IpVersion::of(q.key.src);
        // No rule exists for a packet of two versions.
        let mixed = version != IpVersion::of(q.key.dst);
        let point = Point::new(q, sets, self.used);
        let mut slot = Verdict::NO_ENDPOINT;
        for stage in &self.stages {
            slot = match &stage.patch {
                None => stage.slot(stage.trees[version as usize].find(kernel, &point, watch)),
                Some(patch) => patch.find(stage, version, kernel, &point, watch),
            };
            if mixed {
                slot = stage.default;
            }
            visited(slot);
            match self.outcomes[slot as usize] {
                Outcome::Allow => return Verdict { allow: true, slot },
                Outcome::Deny => return Verdict { allow: false, slot },
                Outcome::Next => {}
            }
        }
        // Not reached: the last stage has no next.
        Verdict { allow: false, slot }
    }

    /// A slot's stage, and, unless it is the stage's default, the chunk of its rule and the index in that.
    pub(super) fn position(&self, slot: u32) -> Option<(usize, Option<(usize, u32)>)> {
        self.stages.iter().enumerate().find_map(|(stage, of)| {
            if of.default == slot {
                return Some((stage, None));
            }
            let within = |run: &Run| match &run.slots {
                Slots::From(first) => {
                    let at = slot.checked_sub(*first)? as usize;
                    run.slice.deciding.get(at).copied()
                }
                Slots::Each(slots) => {
                    let at = slots.iter().position(|own| *own == slot)?;
                    run.slice.deciding.get(at).copied()
                }
            };
            let rule = of.runs.iter().enumerate().find_map(|(slice, run)| Some((slice, within(run)?)))?;
            Some((stage, Some(rule)))
        })
    }

    fn rule(&self, stage: usize, slice: usize, index: u32) -> Decider {
        let run = &self.stages[stage].runs[slice];
        let action = run.slice.rules[index as usize].action;
        Decider {
            place: self.list.place(stage, run.owner as usize),
            rule: (run.first + index) as i32,
            action,
        }
    }

    fn end(&self, stage: usize) -> Decider {
        let place = self.list.place(stage, usize::MAX);
        Decider { place, rule: -1, action: self.list.end_action(stage) }
    }
}

/// A packet by itself.
struct One<'a> {
    policy: &'a CompiledPolicy,
    sets: &'a SetTable,
    q: &'a Query,
}

impl Job for One<'_> {
    type Out = Verdict;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Verdict {
        self.policy.decide(kernel, self.sets, self.q, &mut (), |_| {})
    }
}

/// Of the trees for both IP versions.
pub(super) fn bytes([v4, v6]: &[Arc<Tree>; 2]) -> usize {
    v4.bytes() + if Arc::ptr_eq(v4, v6) { 0 } else { v6.bytes() }
}

/// Refuses what would not fit, before anything is built.
pub(super) fn fits(slices: &[Vec<Arc<Slice>>]) -> Result<(), CompileError> {
    let bounded = |what, count, limit, remedy| {
        if count > limit { Err(CompileError::TooLarge { what, count, limit, remedy }) } else { Ok(()) }
    };
    let all = || slices.iter().flatten();
    let slots = all().map(|slice| slice.rules.len()).sum::<usize>() + slices.len();
    bounded("rules", slots, MAX_SLOTS, "select the endpoint by fewer policies")?;
    let Size { items, work } = all().fold(Size::default(), |size, slice| size.and(slice.size));
    bounded("prefixes, port ranges and set tests", items, MAX_ITEMS, "put addresses into network sets")?;
    bounded("comparisons to check", work, MAX_CHECK_WORK, "shorten the longest lists of prefixes or ports")
}

/// Builds, unchecked.
fn assemble(list: Arc<RuleList>, slices: &[Vec<Arc<Slice>>], form: Form) -> (CompiledPolicy, Vec<Proofs>) {
    let (mut stages, mut proofs) = (Vec::with_capacity(slices.len()), Vec::with_capacity(slices.len()));
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut used = [false; 4];
    for (index, slices) in slices.iter().enumerate() {
        let ranked: Vec<&Rule> = slices.iter().flat_map(|slice| slice.ranked()).collect();
        let (trees, proof) = trees(&ranked, form);
        let base = outcomes.len() as u32;
        let last = index + 1 == list.stages();
        outcomes.extend(ranked.iter().map(|rule| Outcome::of(rule.action, last)));
        let default = outcomes.len() as u32;
        outcomes.push(Outcome::of_end(&list, index));
        let mut first = base;
        let run = |(part, slice): (Part<'_>, &Arc<Slice>)| {
            let slots = Slots::From(first);
            first += slice.len() as u32;
            Run::new(part, slice, slots)
        };
        let runs = list.parts(index).zip(slices).map(run).collect();
        stages.push(Stage { trees, base, default, runs, patch: None });
        used = and_used(used, &proof);
        proofs.push(proof);
    }
    let (stages, outcomes) = (stages.into(), outcomes.into());
    (CompiledPolicy { list, stages, outcomes, used, cpu: Cpu::detect(), form, origin: None }, proofs)
}

/// `used`, and the spaces that these entries ask for.
pub(super) fn and_used(mut used: [bool; 4], proofs: &Proofs) -> [bool; 4] {
    for literal in proofs.iter().flat_map(|proof| all_literals(&proof.entries)) {
        used[literal.space as usize] = true;
    }
    used
}

/// For each IP version.
pub(super) type Proofs = [Arc<Proof>; 2];

pub(super) fn trees(ranked: &[&Rule], form: Form) -> ([Arc<Tree>; 2], Proofs) {
    let lowered = |version| {
        let mut entries = Entries::default();
        ranked.iter().enumerate().for_each(|(rank, rule)| entries.lower(rule, version, rank as u32));
        entries
    };
    let [v4, v6] = [IpVersion::V4, IpVersion::V6].map(lowered);
    let grown = |entries, version| {
        let (tree, proof) = grow(entries, version, form);
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
    check::check(&policy, proofs)
        .map_err(|(stage, version, source)| wrong(&policy.list, stage, version, source))?;
    Ok(policy)
}

pub(super) fn wrong(list: &RuleList, stage: usize, version: IpVersion, source: CheckError) -> CompileError {
    let stage = match list.tiers.get(stage) {
        Some(tier) => format!("tier {}", tier.name),
        None => "the profiles".to_owned(),
    };
    CompileError::Wrong { stage, version, source }
}

#[cfg(test)]
impl CompiledPolicy {
    /// Compiles, breaks the result by `fault`, and checks what came of it.
    pub(super) fn sabotaged(list: RuleList, fault: impl FnOnce(&mut Self)) -> Result<Self, CompileError> {
        let slices = slices(&list);
        let (mut policy, proofs) = assemble(list.into(), &slices, Form::Full);
        fault(&mut policy);
        proven(policy, &proofs)
    }
}
