//! What works and what does not, by component, with the reason and since when.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// One component's health, written by the component and read by whoever asks.
#[derive(Debug)]
pub struct Health {
    name: &'static str,
    state: Mutex<State>,
}

/// What a component last said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Does the component do its work?
    pub healthy: bool,
    /// Why not; or, for a healthy one, what it is doing. May be empty.
    pub reason: String,
    /// When `healthy` last changed.
    pub since: SystemTime,
}

impl Health {
    /// A component that has yet to do its work, and says why.
    pub fn starting(name: &'static str, reason: impl Into<String>) -> Self {
        let state = State { healthy: false, reason: reason.into(), since: SystemTime::now() };
        Self { name, state: Mutex::new(state) }
    }

    /// The component works.
    pub fn good(&self, what: impl Into<String>) {
        self.set(true, what.into());
    }

    /// The component does not work. Logged once, when it is news.
    pub fn bad(&self, reason: impl Into<String>) {
        self.set(false, reason.into());
    }

    /// The component's name: "store", "calculation", "dataplane".
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What the component last said.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    fn set(&self, healthy: bool, reason: String) {
        let mut state = self.lock();
        if state.healthy != healthy {
            state.since = SystemTime::now();
        }
        if state.healthy != healthy || (!healthy && state.reason != reason) {
            if healthy {
                tracing::info!(component = self.name, what = reason, "healthy");
            } else {
                tracing::warn!(component = self.name, reason, "A003 unhealthy");
            }
        }
        state.healthy = healthy;
        state.reason = reason;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic between two assignments of plain values leaves nothing worth refusing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_moves_only_when_health_changes() {
        let health = Health::starting("store", "opening");
        let first = health.state();
        health.bad("still opening");
        assert_eq!(health.state().since, first.since);
        assert_eq!(health.state().reason, "still opening");
        health.good("open");
        let good = health.state();
        assert!(good.healthy && good.since >= first.since);
        health.good("open, 3 objects");
        assert_eq!(health.state().since, good.since);
    }
}
