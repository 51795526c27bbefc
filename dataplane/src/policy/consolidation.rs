//! Patched lists compiled whole again, while they are in force and may go on changing.
//!
//! A patch costs packets a little and its list the room for more patches. So a list that was patched is compiled whole
//! on a thread that has time; what comes of it takes the patched trees' place, with the changes
//! made meanwhile as a new patch.

use super::builder::PolicyTableBuilder;
use super::compiled::{CompiledPolicy, compile_slices};
use super::patch::patch;
use super::slice::Slice;
use super::{CompileError, PolicyTable, PolicyTree, RetiredTree, RuleList};
use std::collections::HashMap;
use std::sync::Arc;

/// A patched list, to be compiled whole.
#[derive(Debug)]
pub struct Consolidation {
    /// What was patched.
    origin: Arc<CompiledPolicy>,
    list: Arc<RuleList>,
    slices: Vec<Vec<Arc<Slice>>>,
    ceiling: usize,
}

/// A list compiled whole, for the trees that are patches of what it was before.
#[derive(Debug)]
pub struct Consolidated {
    origin: Arc<CompiledPolicy>,
    whole: Arc<CompiledPolicy>,
}

impl Consolidation {
    /// Compiles and checks: hundreds of milliseconds for the longest lists.
    pub fn run(self) -> Result<Consolidated, CompileError> {
        let whole = compile_slices(&self.list, &self.slices, self.ceiling)?;
        Ok(Consolidated { origin: self.origin, whole: Arc::new(whole) })
    }
}

impl PolicyTable {
    /// The list with the largest patch, if one has at least `least` rules gone or new.
    pub fn consolidation(&self, least: usize) -> Option<Consolidation> {
        let patched = self.trees().filter(|tree| tree.compiled().changes() >= least.max(1));
        let worst = patched.max_by_key(|tree| tree.compiled().changes())?.compiled();
        Some(Consolidation {
            origin: worst.origin.clone()?,
            list: worst.list().clone(),
            slices: slices(worst),
            ceiling: self.ceiling.list,
        })
    }

    /// The table with `done` in place of the trees that patch the same origin, and the trees it
    /// replaces. `None`: there are none any more.
    pub fn consolidated(&self, done: &Consolidated) -> Option<(Self, Vec<RetiredTree>)> {
        let renewed = |tree: &Arc<PolicyTree>| {
            let compiled = tree.compiled();
            let of = compiled.origin.as_ref().is_some_and(|origin| Arc::ptr_eq(origin, &done.origin));
            if !of {
                return None;
            }
            if Arc::ptr_eq(compiled.list(), done.whole.list()) {
                return Some((Arc::as_ptr(tree), done.whole.clone()));
            }
            // Where a patch is not possible, the old one is as good as it was.
            let patched = patch(&done.whole, compiled.list(), &slices(compiled)).ok()??;
            Some((Arc::as_ptr(tree), Arc::new(patched)))
        };
        let renewed: HashMap<*const PolicyTree, Arc<CompiledPolicy>> =
            self.trees().filter_map(renewed).collect();
        (!renewed.is_empty()).then(|| PolicyTableBuilder::renew(self, &renewed).succeed())
    }
}

/// What is known of the rules that are in force.
pub(super) fn slices(compiled: &CompiledPolicy) -> Vec<Vec<Arc<Slice>>> {
    compiled.stages.iter().map(|stage| stage.runs.iter().map(|run| run.slice.clone()).collect()).collect()
}
