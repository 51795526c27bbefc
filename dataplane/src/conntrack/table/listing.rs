//! What is in a table, looked through in bounded steps.

use super::{Table, session};
use crate::conntrack::{Direction, FlowRef, State};
use crate::net::{FlowKey, Generation, Nanos};

/// A live session, for listing.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The original direction.
    pub flow: FlowRef,
    /// The key of the original direction.
    pub key: FlowKey,
    /// The key of the reply direction.
    pub reply_key: FlowKey,
    /// Where it is in its protocol.
    pub state: State,
    /// Since its last packet.
    pub idle: Nanos,
    /// Until it is gone, if no packet comes.
    pub remaining: Nanos,
    /// Of the snapshot whose policy allowed it last.
    pub judged: Generation,
}

impl Table {
    /// Shows live sessions, examining at most `max` places from `cursor` (0 at first). Returns
    /// the next cursor, `None` at the end. Sessions made or removed between calls may be missed;
    /// none is shown twice, unless it was made anew.
    pub fn scan(&self, cursor: u32, max: u32, now: Nanos, mut visit: impl FnMut(Entry)) -> Option<u32> {
        let end = self.capacity().min(cursor.saturating_add(max));
        (cursor..end).filter_map(|session| self.entry(session, now)).for_each(&mut visit);
        (end < self.capacity()).then_some(end)
    }

    /// Removes the live sessions that `matches`, in steps as [`scan`](Self::scan) takes them.
    /// Returns how many, and the next cursor.
    pub fn remove_where(
        &mut self,
        cursor: u32,
        max: u32,
        now: Nanos,
        mut matches: impl FnMut(&Entry) -> bool,
    ) -> (usize, Option<u32>) {
        let end = self.capacity().min(cursor.saturating_add(max));
        let mut removed = 0;
        for session in cursor..end {
            if self.entry(session, now).is_some_and(|entry| matches(&entry)) {
                self.remove(FlowRef::new(session, Direction::Original));
                removed += 1;
            }
        }
        (removed, (end < self.capacity()).then_some(end))
    }

    fn entry(&self, session: u32, now: Nanos) -> Option<Entry> {
        let session::Line { state, used, .. } = self.sessions.line(session);
        let (state, remaining) = ((*state)?, self.deadline(session).since(now));
        let flow = FlowRef::new(session, Direction::Original);
        (remaining > Nanos(0)).then(|| Entry {
            flow,
            key: self.key(flow),
            reply_key: self.key(flow.opposite()),
            state,
            idle: now.since(*used),
            remaining,
            judged: self.judged(flow),
        })
    }
}
