//! What a policy's slots become when its rules change: rules that survive keep their counts.

use super::align::align;
use super::compiled::{CompiledPolicy, Stage};
use super::{HitCounters, RuleList};
use std::sync::Arc;

/// Of each slot of `old`: the slot of the same rule in `new`, which was compiled anew.
pub(super) fn slots(old: &CompiledPolicy, new: &CompiledPolicy) -> Arc<[u32]> {
    let mut to = vec![HitCounters::NO_HEIR; old.slots() as usize];
    for (index, stage) in new.stages.iter().enumerate() {
        let Some(before) = counterpart(&new.list, index, &old.list) else { continue };
        let before = &old.stages[before];
        to[before.default as usize] = stage.default;
        let of = |stage: &Stage| -> (Vec<u64>, Vec<u32>) {
            let rules = stage.runs.iter().flat_map(|run| run.slice.prints.iter().zip(run.slots()));
            rules.map(|(print, (slot, _))| (*print, slot)).unzip()
        };
        let ((old_prints, old_slots), (new_prints, new_slots)) = (of(before), of(stage));
        for stretch in align(&old_prints, &new_prints) {
            let old = &old_slots[stretch.old..stretch.old + stretch.len];
            let new = &new_slots[stretch.new..stretch.new + stretch.len];
            old.iter().zip(new).for_each(|(old, new)| to[*old as usize] = *new);
        }
    }
    to.into()
}

/// The slots whose rules are in `old`, and not in the patch `new`.
pub(super) fn ended(old: &CompiledPolicy, new: &CompiledPolicy) -> Box<[u32]> {
    let mut ended = Vec::new();
    for (before, now) in old.stages.iter().zip(&new.stages) {
        if let Some(patch) = &now.patch {
            let dead = |rank: &u32| before.patch.as_ref().is_some_and(|before| before.dead.holds(*rank));
            ended.extend(patch.dead.iter().filter(|rank| !dead(rank)).map(|rank| now.base + rank));
        }
        if let Some(patch) = &before.patch {
            let kept = now.patch.as_ref().map_or(&[][..], |patch| &patch.slots);
            ended.extend(patch.slots.iter().filter(|slot| !kept.contains(slot)));
        }
    }
    ended.into()
}

/// The stage of `old` that `stage` of `new` goes on from: the tier of the same name; the profiles.
fn counterpart(new: &RuleList, stage: usize, old: &RuleList) -> Option<usize> {
    match new.tiers.get(stage) {
        Some(tier) => old.tiers.iter().position(|before| before.name == tier.name),
        None => Some(old.tiers.len()),
    }
}
