//! When patched lists are compiled whole again, and what comes of it.

use super::State;
use crate::net::Nanos;
use crate::policy::{Consolidated, Consolidation};
use std::sync::Arc;

/// Rules that changed from which on a list is compiled whole at once.
const MANY: usize = 64;
/// Else when policy has not changed for so long.
const QUIET: Nanos = Nanos::from_secs(1);

/// Whether patched lists are to be compiled whole.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Policy changed since it was last found that no list is patched.
    unsettled: bool,
    /// A list is being compiled.
    running: bool,
    /// When policy last changed.
    changed: Nanos,
}

impl Pending {
    /// Policy changed.
    pub(super) const fn note(&mut self, now: Nanos) {
        (self.unsettled, self.changed) = (true, now);
    }
}

impl State {
    /// A list to be compiled whole by whoever has time, one at a time: what came of it is to be told
    /// to [`consolidated`](Self::consolidated).
    pub fn consolidation(&mut self, now: Nanos) -> Option<Consolidation> {
        if self.pending.running || !self.pending.unsettled {
            return None;
        }
        let quiet = now.0.saturating_sub(self.pending.changed.0) >= QUIET.0;
        let work = self.policy.consolidation(if quiet { 1 } else { MANY });
        // Once it is quiet and nothing is patched there is nothing to look for until the next change.
        self.pending.unsettled = work.is_some() || !quiet;
        self.pending.running = work.is_some();
        work
    }

    /// The list was compiled: it takes the place of what was patched, with what changed meanwhile as a
    /// patch. `None`: it could not be, and is not tried again before policy changes.
    pub fn consolidated(&mut self, done: Option<&Consolidated>) {
        self.pending.running = false;
        match done.map(|done| self.policy.consolidated(done)) {
            Some(Some((policy, retired))) => {
                self.policy = Arc::new(policy);
                self.shadow = self.shadow.take().map(|shadow| Arc::new(shadow.beside(self.policy.clone())));
                self.retired_trees.extend(retired);
                self.judges_anew = true;
            }
            Some(None) => {}
            None => self.pending.unsettled = false,
        }
    }
}
