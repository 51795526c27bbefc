//! What becomes of a table's sessions, for who wants to know.

use super::Table;
use crate::conntrack::log::{FlowEvent, FlowLog, FlowRecord, Passed};
use crate::conntrack::{Direction, FlowRef};
use crate::net::Nanos;

impl Table {
    /// From now on sessions are told of there; `None`: nowhere. Gives back the log before it.
    pub fn tell_of_sessions(&mut self, log: Option<Box<FlowLog>>) -> Option<Box<FlowLog>> {
        std::mem::replace(&mut self.log, log)
    }

    /// The time, for records of what happens until it is said again.
    pub fn set_now(&mut self, now: Nanos) {
        if let Some(log) = &mut self.log {
            log.set_now(now);
        }
    }

    /// Somebody wants to know what becomes of sessions.
    #[inline(always)]
    pub fn is_told_of(&self) -> bool {
        self.log.is_some()
    }

    /// Pulls towards the cache what [`count`](Self::count) will write. A hint.
    #[inline(always)]
    pub fn prefetch_count(&self, flow: FlowRef) {
        if let Some(log) = &self.log {
            log.prefetch(flow.session());
        }
    }

    /// Packets of a live flow go on, of so many bytes together.
    #[inline(always)]
    pub fn count(&mut self, flow: FlowRef, packets: u32, bytes: usize) {
        if let Some(log) = &mut self.log
            && log.count(flow, packets, bytes)
        {
            self.tell(flow.session(), FlowEvent::Continued);
        }
    }

    /// A session was just made.
    #[inline]
    pub(super) fn tell_begun(&mut self, session: u32) {
        if self.log.is_some() {
            let record = self.record(session, FlowEvent::Began, None, Default::default());
            if let (Some(log), Some(record)) = (&mut self.log, record) {
                log.begin(session, FlowRecord { began: Some(record.last), ..record });
            }
        }
    }

    /// A session goes on, or is about to go.
    #[inline]
    pub(super) fn tell(&mut self, session: u32, event: FlowEvent) {
        let Some(log) = &mut self.log else { return };
        let Some((began, passed)) = log.take(session, event) else { return };
        let record = self.record(session, event, began, passed);
        if let (Some(log), Some(record)) = (&self.log, record) {
            log.tell(record);
        }
    }

    fn record(
        &self,
        session: u32,
        event: FlowEvent,
        began: Option<Nanos>,
        passed: [Passed; 2],
    ) -> Option<FlowRecord> {
        let line = self.sessions.line(session);
        let flow = FlowRef::new(session, Direction::Original);
        let (key, reply_key) = (self.key(flow), self.key(flow.opposite()));
        let (state, last, judged) = (line.state?, line.used, self.judged(flow));
        Some(FlowRecord { event, key, reply_key, state, judged, began, last, passed })
    }
}
