//! Trees that outlive some of their rules.
//!
//! Growing and proving the trees of a long list takes far longer than a change of one of its rules
//! may. So the trees stay, and beside them stands a [`Patch`]: the rules that are gone, which the walk
//! passes over, and a small tree over the rules that are new. The rules that survive keep their
//! ranks, their slots and thereby their counters; of each new rule it is known which old rank it
//! comes before, so the first of two matches is told by one comparison.
//!
//! Patches do not pile up: the next change is again one to the trees as they were grown, with a new
//! small tree for all that has changed since. Where that becomes too much the list is compiled whole.

use super::CompileError;
use super::check::CheckError;
use super::compiled::{self, CompiledPolicy, Outcome, Proofs, Run, Slots, Stage};
use super::diff::{Diff, Placed, diff};
use super::grow::Form;
use super::list::Part;
use super::lower::{Dim, Interval, Literal};
use super::merge;
use super::point::Point;
use super::simd::Kernel;
use super::slice::{Size, Slice};
use super::tree::{NONE_FOUND, Tree, Watch};
use super::{IpVersion, Rule, RuleList};
use std::collections::HashMap;
use std::sync::Arc;

/// Slots that a list compiled whole has in reserve, at most, for rules that its patches add.
const RESERVE: u32 = 4096;
/// Rules that may be gone, and rules that may be new, before the list is compiled whole.
const MANY: usize = 512;
/// What new rules may take together: many rules' worth, if they are long.
const MUCH: Size = Size { items: 16 * MANY, work: 1 << 22 };

/// What has changed in a stage since its trees were grown.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) dead: Dead,
    /// Over the rules that are new, for IPv4 and IPv6, as in [`Stage::trees`].
    pub(super) trees: [Arc<Tree>; 2],
    /// By rank in those: the rank in the stage's trees that the rule comes before.
    pub(super) before: Box<[u32]>,
    /// By rank in those.
    pub(super) slots: Box<[u32]>,
    /// By rank in those: to find the rule again in the next patch.
    pub(super) prints: Box<[u64]>,
}

/// Ranks whose rules are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) words: Box<[u64]>,
}

impl Dead {
    /// Of `ranks`, none.
    pub(super) fn none(ranks: usize) -> Self {
        Self { words: vec![0; ranks.div_ceil(64)].into() }
    }

    /// The rule of this rank is gone.
    pub(super) fn bury(&mut self, rank: u32) {
        self.words[rank as usize / 64] |= 1 << (rank % 64);
    }

    /// A rank that does not exist is not dead.
    #[inline]
    pub(super) fn holds(&self, rank: u32) -> bool {
        self.words.get(rank as usize / 64).is_some_and(|word| word >> (rank % 64) & 1 != 0)
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The ranks.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.words).flat_map(|(at, word)| {
            (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| 64 * at + bit)
        })
    }
}

/// Passes over what is dead, and tells `watch` what was looked at.
struct Alive<'a, W> {
    dead: &'a Dead,
    watch: &'a mut W,
}

impl<W: Watch> Watch for Alive<'_, W> {
    const ACTIVE: bool = W::ACTIVE;

    #[inline]
    fn narrowed(&mut self, dim: Dim, to: Interval) {
        self.watch.narrowed(dim, to);
    }

    #[inline]
    fn asked(&mut self, truth: Literal) {
        self.watch.asked(truth);
    }

    #[inline(always)]
    fn at_node(&mut self) {
        self.watch.at_node();
    }

    #[inline(always)]
    fn at_block(&mut self) {
        self.watch.at_block();
    }

    #[inline(always)]
    fn skips(&self, rank: u32) -> bool {
        self.dead.holds(rank)
    }
}

impl Patch {
    /// The slot of the first rule of the patched `stage` that matches.
    pub(super) fn find<K: Kernel, W: Watch>(
        &self,
        stage: &Stage,
        version: IpVersion,
        kernel: K,
        point: &Point<'_>,
        watch: &mut W,
    ) -> u32 {
        let tree = &stage.trees[version as usize];
        let rank = tree.find(kernel, point, &mut Alive { dead: &self.dead, watch });
        self.undercut(stage, rank, version, kernel, point, watch)
    }

    /// The same, for a walk that took no notice of what is dead, and found `rank`.
    pub(super) fn settle<K: Kernel>(
        &self,
        stage: &Stage,
        rank: u32,
        version: IpVersion,
        kernel: K,
        point: &Point<'_>,
    ) -> u32 {
        match rank != NONE_FOUND && self.dead.holds(rank) {
            true => self.find(stage, version, kernel, point, &mut ()),
            false => self.undercut(stage, rank, version, kernel, point, &mut ()),
        }
    }

    /// The slot of `rank`, or of a new rule that matches and comes before it.
    fn undercut<K: Kernel, W: Watch>(
        &self,
        stage: &Stage,
        rank: u32,
        version: IpVersion,
        kernel: K,
        point: &Point<'_>,
        watch: &mut W,
    ) -> u32 {
        if self.before.first().is_some_and(|first| *first <= rank) {
            let new = self.trees[version as usize].find(kernel, point, watch);
            if new != NONE_FOUND && self.before[new as usize] <= rank {
                return self.slots[new as usize];
            }
        }
        stage.slot(rank)
    }

    /// Memory that packets walk.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.dead.words[..])
            + size_of_val(&self.before[..])
            + size_of_val(&self.slots[..])
            + compiled::bytes(&self.trees)
    }
}

/// Slots that a list of so many has in reserve for rules that patches add.
pub(super) fn reserve(slots: u32) -> u32 {
    (2 * slots + 16).min(RESERVE)
}

/// `previous` with the rules of `list`, whose stages are `slices`; checked. `None`: to be compiled whole.
pub(super) fn patch(
    previous: &Arc<CompiledPolicy>,
    list: &Arc<RuleList>,
    slices: &[Vec<Arc<Slice>>],
) -> Result<Option<CompiledPolicy>, CompileError> {
    match assemble(previous, list, slices) {
        Some((policy, proofs)) => proven(policy, &proofs).map(Some),
        None => Ok(None),
    }
}

/// Patches, unchecked. The proofs are those of the patches' own trees, by stage.
fn assemble(
    previous: &Arc<CompiledPolicy>,
    list: &Arc<RuleList>,
    slices: &[Vec<Arc<Slice>>],
) -> Option<(CompiledPolicy, Vec<Option<Proofs>>)> {
    let origin = previous.origin.as_ref().unwrap_or(previous);
    if slices.len() != origin.stages.len() {
        return None;
    }
    let mut outcomes = previous.outcomes.to_vec();
    let mut left = origin.slots() as usize - outcomes.len();
    let mut used = origin.used;
    let (mut stages, mut proofs) = (Vec::new(), Vec::new());
    for (index, slices) in slices.iter().enumerate() {
        let (whole, last) = (&origin.stages[index], &previous.stages[index]);
        let old: Vec<&Slice> = whole.runs.iter().map(|run| &*run.slice).collect();
        let diff = diff(&old, slices);
        let added: Vec<&Rule> = diff.added.iter().map(|(slice, at)| slices[*slice].at(*at)).collect();
        let size = added.iter().fold(Size::default(), |size, rule| size.and(Size::of(rule)));
        if added.len().max(diff.dead.count()) > MANY || size.items > MUCH.items || size.work > MUCH.work {
            return None;
        }
        let prints: Box<[u64]> = diff.added.iter().map(|(slice, at)| slices[*slice].prints[*at]).collect();
        // A rule that the last patch added keeps its slot.
        let mut kept: HashMap<u64, Vec<u32>> = HashMap::new();
        if let Some(last) = &last.patch {
            last.prints.iter().zip(&last.slots).for_each(|(p, slot)| kept.entry(*p).or_default().push(*slot));
        }
        let mut slots = Vec::with_capacity(added.len());
        for (rule, print) in added.iter().zip(&prints) {
            slots.push(match kept.get_mut(print).and_then(Vec::pop) {
                Some(slot) => slot,
                None => {
                    left = left.checked_sub(1)?;
                    outcomes.push(Outcome::of(rule.action, index + 1 == origin.stages.len()));
                    outcomes.len() as u32 - 1
                }
            });
        }
        outcomes[whole.default as usize] = Outcome::of_end(list, index);
        let runs = runs(&diff, list.parts(index), slices, whole.base, &slots);
        let patch = match added.is_empty() && diff.dead.count() == 0 {
            true => None,
            false => {
                let (trees, proof) = compiled::trees(&added, Form::Full);
                used = compiled::and_used(used, &proof);
                proofs.push(Some(proof));
                let Diff { dead, before, .. } = diff;
                Some(Patch { dead, trees, before: before.into(), slots: slots.into(), prints })
            }
        };
        if patch.is_none() {
            proofs.push(None);
        }
        stages.push(Stage { trees: whole.trees.clone(), runs, patch, ..*whole });
    }
    let policy = CompiledPolicy {
        list: list.clone(),
        stages: stages.into(),
        outcomes: outcomes.into(),
        used,
        cpu: origin.cpu,
        form: origin.form,
        origin: Some(origin.clone()),
    };
    Some((policy, proofs))
}

/// Where the rules of each slice have their slots.
fn runs<'a>(
    diff: &Diff,
    parts: impl Iterator<Item = Part<'a>>,
    slices: &[Arc<Slice>],
    base: u32,
    added: &[u32],
) -> Box<[Run]> {
    let mut added = added.iter().copied();
    let run = |(part, (slice, placed)): (Part<'_>, (&Arc<Slice>, &Placed))| {
        let slots = match placed {
            Placed::From(rank) => Slots::From(base + rank),
            Placed::Each(ranks) => {
                let slot = |rank: &Option<u32>| rank.map_or_else(|| added.next(), |rank| Some(base + rank));
                Slots::Each(ranks.iter().filter_map(slot).collect())
            }
        };
        Run::new(part, slice, slots)
    };
    parts.zip(slices.iter().zip(&diff.placed)).map(run).collect()
}

/// Checks, and only then lets the policy out.
fn proven(policy: CompiledPolicy, proofs: &[Option<Proofs>]) -> Result<CompiledPolicy, CompileError> {
    merge::check(&policy, proofs).map_err(|(stage, version, source): (usize, IpVersion, CheckError)| {
        compiled::wrong(&policy.list, stage, version, source)
    })?;
    Ok(policy)
}

#[cfg(test)]
impl CompiledPolicy {
    /// Patches, breaks the result by `fault`, and checks what came of it. `None`: it was not patched.
    pub(super) fn patched_and_sabotaged(
        previous: &Arc<Self>,
        list: RuleList,
        fault: impl FnOnce(&mut Self),
    ) -> Option<Result<Self, CompileError>> {
        let slices = compiled::slices(&list);
        let (mut policy, proofs) = assemble(previous, &Arc::new(list), &slices)?;
        fault(&mut policy);
        Some(proven(policy, &proofs))
    }
}
