//! How a session ends by itself: its idle time is over.

use super::wheel::Hold;
use super::{Table, session};
use crate::conntrack::{Direction, FlowRef, State, Tracking};
use crate::net::Nanos;

impl Table {
    /// From now on packets are held against their sessions so. What is looked up follows at once, live
    /// sessions too; the places of those whose time is over by a shorter timeout are found within the
    /// next calls of [`expire`](Self::expire).
    pub fn track(&mut self, tracking: Tracking) {
        if tracking != self.tracking {
            self.tracking = tracking;
            self.least = tracking.timeouts.least();
            self.rearmed = 0;
        }
    }

    /// Removes sessions whose idle time is over, examining at most `budget`. Returns how many it
    /// examined: fewer than `budget` means that nothing more is due.
    pub fn expire(&mut self, now: Nanos, budget: usize) -> usize {
        let rearmed = self.rearm(budget / 2);
        for examined in rearmed..budget {
            let Some(session) = self.wheel.due(now) else { return examined };
            if self.is_expired(session, now) {
                self.remove(FlowRef::new(session, Direction::Original));
                self.counters.expired += 1;
            } else {
                self.arm(session);
            }
        }
        budget
    }

    /// Arms anew at most `most` of the sessions that were armed under other timeouts.
    fn rearm(&mut self, most: usize) -> usize {
        let left = (self.capacity() - self.rearmed) as usize;
        for _ in 0..left.min(most) {
            if self.sessions.line(self.rearmed).state.is_some() {
                self.arm(self.rearmed);
            }
            self.rearmed += 1;
        }
        left.min(most)
    }

    /// Has a session looked at when its time is over.
    pub(super) fn arm(&mut self, session: u32) {
        let evictable = self.sessions.line(session).state.is_some_and(State::is_evictable);
        self.wheel.arm(session, self.deadline(session), Hold::of(evictable));
    }

    /// Changes a session's state, and looks at it earlier if the new state does not last as long.
    pub(super) fn enter(&mut self, session: u32, from: State, to: State) {
        self.sessions.line_mut(session).state = Some(to);
        let timeouts = &self.tracking.timeouts;
        if timeouts.of(to) < timeouts.of(from) || to.is_evictable() != from.is_evictable() {
            self.arm(session);
        }
    }

    pub(super) fn deadline(&self, session: u32) -> Nanos {
        let session::Line { state, used, .. } = self.sessions.line(session);
        state.map_or(*used, |state| used.plus(self.tracking.timeouts.of(state)))
    }

    #[inline(always)]
    pub(super) fn is_expired(&self, session: u32, now: Nanos) -> bool {
        now.since(self.sessions.line(session).used) >= self.least && self.deadline(session) <= now
    }
}
