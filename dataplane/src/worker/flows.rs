//! A worker's flows, shown to the control thread, counted or forgotten: a page at a time and a few
//! places a poll, so that no packet waits for whoever asks.

use crate::conntrack::{Entry, Filter, State, Table};
use crate::net::{FlowKey, Generation, Nanos};
use std::sync::Arc;

/// Places of the flow table looked at in one poll, by a filter of few terms; a quarter where
/// sessions are removed, which costs more.
const BUDGET: usize = 512;

/// Terms of filters that are asked in one poll, about.
const TERMS: usize = 8 * BUDGET;

/// The flows of a page.
const PAGE: usize = 1024;

/// Places after which a page goes back, that others have their turn.
const PLACES: u32 = 1 << 17;

/// What is done with the flows that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowTask {
    /// They are shown.
    Show,
    /// They are counted.
    Count,
    /// They are forgotten. Their next packets are judged as first ones.
    Forget,
}

/// A session as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSeen {
    /// Of the direction that opened it.
    pub key: FlowKey,
    /// Of what answers.
    pub reply_key: FlowKey,
    /// Where it is in its protocol.
    pub state: State,
    /// Since its last packet.
    pub idle: Nanos,
    /// Until it is gone, if no packet comes.
    pub remaining: Nanos,
    /// Of the snapshot by whose verdict it lives.
    pub judged: Generation,
}

/// A question to a worker with room for its answer, made where memory may be allocated. There is a
/// [following](Self::following) one until the whole table has been looked at.
#[derive(Debug)]
pub struct FlowPage {
    filter: Arc<Filter>,
    task: FlowTask,
    /// What was found, where it is to be shown.
    pub found: Vec<FlowSeen>,
    /// How many matched.
    pub matched: u64,
    /// Where to go on; `None`: all has been looked at.
    cursor: Option<u32>,
    /// Places that are left to this page.
    places: u32,
}

impl FlowPage {
    /// The first page.
    pub fn new(filter: Arc<Filter>, task: FlowTask) -> Self {
        let found = Vec::with_capacity(if task == FlowTask::Show { PAGE } else { 0 });
        Self { filter, task, found, matched: 0, cursor: Some(0), places: PLACES }
    }

    /// The page after this one; `None`: there is none.
    pub fn following(&self) -> Option<Self> {
        let cursor = self.cursor?;
        Some(Self { cursor: Some(cursor), ..Self::new(self.filter.clone(), self.task) })
    }

    /// Looks at some more places of the table. True: the page is ready to go back.
    pub(super) fn fill(&mut self, flows: &mut Table, now: Nanos) -> bool {
        let Some(from) = self.cursor else { return true };
        let budget = (TERMS / self.filter.terms()).clamp(1, BUDGET).min(self.places as usize);
        let budget = if self.task == FlowTask::Forget { budget.div_ceil(4) } else { budget };
        let filter = &self.filter;
        let is = |entry: &Entry| filter.matches(&entry.key, &entry.reply_key, entry.state);
        let looked_at = match self.task {
            FlowTask::Show => budget.min(self.found.capacity() - self.found.len()),
            FlowTask::Count | FlowTask::Forget => budget,
        } as u32;
        let (found, matched) = (&mut self.found, &mut self.matched);
        self.cursor = match self.task {
            FlowTask::Show => flows.scan(from, looked_at, now, |entry| {
                if is(&entry) {
                    *matched += 1;
                    found.push(FlowSeen::of(&entry));
                }
            }),
            FlowTask::Count => flows.scan(from, looked_at, now, |entry| *matched += u64::from(is(&entry))),
            FlowTask::Forget => {
                let (removed, next) = flows.remove_where(from, looked_at, now, is);
                *matched += removed as u64;
                next
            }
        };
        self.places -= looked_at;
        let full = self.task == FlowTask::Show && self.found.len() == self.found.capacity();
        self.cursor.is_none() || self.places == 0 || full
    }
}

impl FlowSeen {
    fn of(entry: &Entry) -> Self {
        let Entry { key, reply_key, state, idle, remaining, judged, .. } = *entry;
        Self { key, reply_key, state, idle, remaining, judged }
    }
}
