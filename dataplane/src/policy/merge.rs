//! The proof of a patch: that passing over some rules of proven trees, and asking a small tree
//! beside them, is what the new list says.
//!
//! 1. **The patch's own trees** are checked against the rules that are new, as every tree is (`check.rs`).
//! 2. **The merge**, by going through the new list once: every rule that decides has a slot. Either it is that of
//!    a rule of the old list which is equal to it and not dead, and those ascend in rank; or it
//!    is that of the next rule of the patch's own trees. What stands behind a new rule has a rank that
//!    the rule comes before, what stands ahead of it has none such. No rule that is not dead is left over.
//! 3. **The outcomes**: those of old rules are as they were, those of new ones as the rules say.
//!
//! Why that suffices: what was proven of the old trees was proven of each piece for itself: it stands in a leaf
//! that each of its points reaches, and is tried before all that come after it. So the lowest match that is
//! not dead is found where what is dead is passed over, on either side, as if it had never been there.
//! By the merge, that is the first of the surviving rules that matches, the patch's own trees find the first
//! of the new ones, and the comparison says which of the two is first in the list.

use super::check::{self, CheckError};
use super::compiled::{CompiledPolicy, Outcome, Proofs, Run, Slots, Stage};
use super::{Action, IpVersion, Rule};
use std::sync::Arc;

/// The first difference there is, with the stage and IP version it is in.
pub(super) fn check(
    policy: &CompiledPolicy,
    proofs: &[Option<Proofs>],
) -> Result<(), (usize, IpVersion, CheckError)> {
    let at = |stage| move |what| (stage, IpVersion::V4, CheckError::Merge { what });
    let Some(origin) = policy.origin.as_deref() else { return Err(at(0)("no trees to patch")) };
    let counts = [policy.stages.len(), origin.stages.len(), proofs.len()];
    if counts.iter().any(|count| *count != policy.list.stages()) {
        return Err(at(0)("as many stages as before"));
    }
    // Which spaces are looked up.
    if origin.used.iter().zip(policy.used).any(|(before, now)| *before && !now) {
        return Err(at(0)("a membership nobody looks up"));
    }
    let mut taken: Vec<u32> = vec![];
    for (index, (stage, whole)) in policy.stages.iter().zip(&origin.stages).enumerate() {
        let same = stage.trees.iter().zip(&whole.trees).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same || (stage.base, stage.default) != (whole.base, whole.default) || whole.patch.is_some() {
            return Err(at(index)("the trees that are patched"));
        }
        let (rank, end) = (whole.base as usize, whole.default as usize);
        if policy.outcomes.get(rank..end) != origin.outcomes.get(rank..end)
            || policy.outcomes.get(end) != Some(&Outcome::of_end(&policy.list, index))
        {
            return Err(at(index)("the outcomes of what survives"));
        }
        let new = Merge::new(policy, index, stage, whole).all().map_err(at(index))?;
        match (&stage.patch, &proofs[index]) {
            (None, None) => {}
            (Some(patch), Some(proof)) => {
                for version in [IpVersion::V4, IpVersion::V6] {
                    let (tree, proof) = (&patch.trees[version as usize], &proof[version as usize]);
                    check::tree(tree, proof, &new, version, policy.used)
                        .map_err(|error| (index, version, error))?;
                }
                for (rule, slot) in new.iter().zip(&patch.slots) {
                    let outcome = Outcome::of(rule.action, index + 1 == policy.stages.len());
                    if policy.outcomes.get(*slot as usize) != Some(&outcome) {
                        return Err(at(index)("the outcome of a new rule"));
                    }
                }
                taken.extend(&patch.slots);
            }
            _ => return Err(at(index)("a patch without proof")),
        }
    }
    // Slots of new rules are nobody else's.
    taken.sort_unstable();
    let own = |slot: &u32| (origin.outcomes.len()..policy.slots() as usize).contains(&(*slot as usize));
    if !taken.iter().all(own) || taken.windows(2).any(|two| two[0] == two[1]) {
        return Err(at(0)("slots of its own for every new rule"));
    }
    Ok(())
}

/// Goes through the new rules of a stage, in order.
struct Merge<'a> {
    policy: &'a CompiledPolicy,
    index: usize,
    stage: &'a Stage,
    whole: &'a Stage,
    /// The lowest rank that may come next: all before are dead, or were met.
    rank: u32,
    /// Lower than what comes next may not be, since new rules were met that come before it.
    floor: u32,
    /// Rules that survive, so far.
    alive: usize,
    /// Rules that are new, so far.
    new: Vec<&'a Rule>,
}

impl<'a> Merge<'a> {
    fn new(policy: &'a CompiledPolicy, index: usize, stage: &'a Stage, whole: &'a Stage) -> Self {
        Self { policy, index, stage, whole, rank: 0, floor: 0, alive: 0, new: vec![] }
    }

    /// The new rules.
    fn all(mut self) -> Result<Vec<&'a Rule>, &'static str> {
        let (policy, stage) = (self.policy, self.stage);
        if policy.list.parts(self.index).count() != stage.runs.len() {
            return Err("as many policies as the list");
        }
        for (part, run) in policy.list.parts(self.index).zip(&stage.runs) {
            if !run.is(part) {
                return Err("the policies of the list");
            }
            if !self.survives_whole(part.rules, run)? {
                self.each(part.rules, run)?;
            }
        }
        let ranks = (self.whole.default - self.whole.base) as usize;
        let (dead, added) = match &stage.patch {
            Some(patch) if patch.before.len() != patch.slots.len() => {
                return Err("a place for every new rule");
            }
            Some(patch) if patch.dead.words.len() != ranks.div_ceil(64) => {
                return Err("a mark for every rule");
            }
            Some(patch) => (patch.dead.count(), patch.slots.len()),
            None => (0, 0),
        };
        if self.alive + dead != ranks || self.new.len() != added {
            return Err("a rule for everything that is not dead");
        }
        Ok(self.new)
    }

    /// True: the rules are the very same, all of them, as a policy that was proven had.
    fn survives_whole(&mut self, rules: &Arc<[Rule]>, run: &Run) -> Result<bool, &'static str> {
        let Slots::From(first) = run.slots else { return Ok(false) };
        let Some(rank) = first.checked_sub(self.whole.base) else { return Ok(false) };
        let known =
            |old: &&Run| matches!(old.slots, Slots::From(slot) if slot == first) && old.slice.is(rules);
        let at =
            self.whole.runs.partition_point(|old| matches!(old.slots, Slots::From(slot) if slot < first));
        // Those without a rule begin where others do.
        let Some(old) = self.whole.runs[at..].iter().take_while(|old| begins(old, first)).find(known) else {
            return Ok(false);
        };
        if run.slice.len() != old.slice.len() {
            return Err("the policies of the list");
        }
        for rank in rank..rank + old.slice.len() as u32 {
            self.survivor(rank)?;
        }
        Ok(true)
    }

    /// Rule by rule.
    fn each(&mut self, rules: &'a Arc<[Rule]>, run: &Run) -> Result<(), &'static str> {
        let deciding = (0u32..).zip(&rules[..]).filter(|(_, rule)| rule.action != Action::Log);
        if let Slots::Each(slots) = &run.slots
            && slots.len() != run.slice.len()
        {
            return Err("a slot for every rule");
        }
        let mut slots = run.slots();
        for (index, rule) in deciding {
            let (slot, of) = slots.next().ok_or("a slot for every rule")?;
            if of != index {
                return Err("a slot for every rule");
            }
            if (self.whole.base..self.whole.default).contains(&slot) {
                let rank = slot - self.whole.base;
                self.survivor(rank)?;
                if old_rule(self.whole, slot) != Some(rule) {
                    return Err("rules that survive as they were");
                }
            } else {
                let patch = self.stage.patch.as_ref().ok_or("slots of rules that survive")?;
                let at = self.new.len();
                if patch.slots.get(at) != Some(&slot) {
                    return Err("new rules in order");
                }
                let before = *patch.before.get(at).ok_or("a place for every new rule")?;
                if before < self.rank {
                    return Err("new rules where they belong");
                }
                self.floor = self.floor.max(before);
                self.new.push(rule);
            }
        }
        if slots.next().is_some() { Err("a rule for every slot") } else { Ok(()) }
    }

    /// The next rule that survives has this rank.
    fn survivor(&mut self, rank: u32) -> Result<(), &'static str> {
        if self.stage.patch.as_ref().is_some_and(|patch| patch.dead.holds(rank)) {
            return Err("rules that are not dead");
        }
        if rank < self.rank || rank < self.floor {
            return Err("rules in order");
        }
        (self.rank, self.alive) = (rank + 1, self.alive + 1);
        Ok(())
    }
}

fn begins(run: &Run, slot: u32) -> bool {
    matches!(run.slots, Slots::From(first) if first == slot)
}

/// The rule that a stage which was compiled whole has at a slot.
fn old_rule(whole: &Stage, slot: u32) -> Option<&Rule> {
    let begun = |run: &Run| matches!(run.slots, Slots::From(first) if first <= slot);
    let run = &whole.runs[whole.runs.partition_point(begun).checked_sub(1)?];
    let Slots::From(first) = run.slots else { return None };
    let at = (slot - first) as usize;
    (at < run.slice.len()).then(|| run.slice.at(at))
}
