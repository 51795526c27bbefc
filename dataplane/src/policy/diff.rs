//! Which rules of a stage survive a change, and where the new ones belong.

use super::Rule;
use super::align::{Stretch, align};
use super::patch::Dead;
use super::slice::Slice;
use std::sync::Arc;

/// A stage's rules after a change, in the terms of the ranks they had before.
#[derive(Debug)]
pub(super) struct Diff {
    /// By slice of the new stage.
    pub(super) placed: Vec<Placed>,
    /// The ranks of rules that are gone.
    pub(super) dead: Dead,
    /// The rules that are new, in order: slice, and place among those of it that decide.
    pub(super) added: Vec<(usize, usize)>,
    /// Of each of those: the old rank that it comes before, and after all that are lower.
    pub(super) before: Vec<u32>,
}

/// Where the rules of one slice were.
#[derive(Debug)]
pub(super) enum Placed {
    /// All together, from this rank on.
    From(u32),
    /// Each at a rank of its own; `None`: it is new.
    Each(Vec<Option<u32>>),
}

/// From `old` to `new`. Rules are compared by their prints: the check looks closer.
pub(super) fn diff(old: &[&Slice], new: &[Arc<Slice>]) -> Diff {
    let key = |slice: &Slice| Arc::as_ptr(&slice.rules).cast::<Rule>().addr();
    let old_keys: Vec<usize> = old.iter().map(|slice| key(slice)).collect();
    let new_keys: Vec<usize> = new.iter().map(|slice| key(slice)).collect();
    let ranks = old.iter().map(|slice| slice.len()).sum::<usize>();
    let mut diff = Diff {
        placed: Vec::with_capacity(new.len()),
        dead: Dead::none(ranks),
        added: vec![],
        before: vec![],
    };
    let mut stretches = align(&old_keys, &new_keys);
    stretches.push(Stretch { old: old.len(), new: new.len(), len: 0 });
    let (mut from, mut to, mut rank) = (0, 0, 0);
    for Stretch { old: o, new: n, len } in stretches {
        rank = diff.gap(&old[from..o], &new[to..n], to, rank);
        for slice in &old[o..o + len] {
            diff.placed.push(Placed::From(rank));
            rank += slice.len() as u32;
        }
        (from, to) = (o + len, n + len);
    }
    diff
}

impl Diff {
    /// Slices that are not the same: rule by rule. `first`: the number of `new[0]`; `rank`: the
    /// rank of the first rule of `old`. Returns the rank after the last.
    fn gap(&mut self, old: &[&Slice], new: &[Arc<Slice>], first: usize, rank: u32) -> u32 {
        let old_prints: Vec<u64> = old.iter().flat_map(|slice| slice.prints.iter().copied()).collect();
        let new_prints: Vec<u64> = new.iter().flat_map(|slice| slice.prints.iter().copied()).collect();
        let mut survivors: Vec<Option<u32>> = vec![None; new_prints.len()];
        let mut next = 0;
        for Stretch { old, new, len } in align(&old_prints, &new_prints) {
            (next..old).for_each(|gone| self.dead.bury(rank + gone as u32));
            (0..len).for_each(|at| survivors[new + at] = Some(rank + (old + at) as u32));
            next = old + len;
        }
        (next..old_prints.len()).for_each(|gone| self.dead.bury(rank + gone as u32));

        let mut before = rank;
        let mut survivors = survivors.into_iter();
        for (number, slice) in (first..).zip(new) {
            let own: Vec<Option<u32>> = survivors.by_ref().take(slice.len()).collect();
            for (at, survivor) in own.iter().enumerate() {
                match survivor {
                    Some(rank) => before = rank + 1,
                    None => {
                        self.added.push((number, at));
                        self.before.push(before);
                    }
                }
            }
            self.placed.push(Placed::Each(own));
        }
        rank + old_prints.len() as u32
    }
}
