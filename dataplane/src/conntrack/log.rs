//! What becomes of sessions, told as it happens: one record as a session begins, one now and then while packets
//! pass, one as it ends. Each says what has passed since the record before it.
//!
//! A table has a log only while somebody reads it. Its memory is allocated by who reads; records go by a bounded
//! ring, and what finds no room there is counted.

use super::{FlowRef, State};
use crate::net::{FlowKey, Generation, Nanos};
use crate::packet::{Slab, prefetch};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A session that packets pass is told of this often.
const EVERY: u32 = units(Nanos::from_secs(30));

/// What was told of, with the worker's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// What happened.
    pub event: FlowEvent,
    /// The key of the original direction.
    pub key: FlowKey,
    /// The key of the reply direction.
    pub reply_key: FlowKey,
    /// Where the session was in its protocol.
    pub state: State,
    /// Of the snapshot whose policy allowed it last.
    pub judged: Generation,
    /// When it was made, to some milliseconds; `None`: before the log was there.
    pub began: Option<Nanos>,
    /// When its last packet came.
    pub last: Nanos,
    /// What passed since the record before, by direction.
    pub passed: [Passed; 2],
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// It was made.
    Began,
    /// Packets go on passing.
    Continued,
    /// It is gone.
    Ended,
}

/// Packets of one direction that went on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// How many.
    pub packets: u64,
    /// From their IP headers on.
    pub bytes: u64,
}

/// Records on their way from a worker to who reads them.
#[derive(Debug)]
pub struct RecordRing<T> {
    records: ArrayQueue<T>,
    lost: AtomicU64,
    clock: AtomicU64,
}

impl<T> RecordRing<T> {
    /// Room for so many.
    pub fn new(count: usize) -> Arc<Self> {
        let (lost, clock) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { records: ArrayQueue::new(count), lost, clock })
    }

    /// The next one, for who reads.
    pub fn next(&self) -> Option<T> {
        self.records.pop()
    }

    /// How many found no room, so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// The worker's time when it last looked for packets.
    pub fn now(&self) -> Nanos {
        Nanos(self.clock.load(Relaxed))
    }

    /// Called by the worker, the one writer.
    pub fn set_now(&self, now: Nanos) {
        self.clock.store(now.0, Relaxed);
    }

    /// Called by the worker.
    #[inline]
    pub fn tell(&self, record: T) {
        if self.records.push(record).is_err() {
            self.lose(1);
        }
    }

    /// So many are not told of at all. Called by the worker.
    pub fn lose(&self, records: u64) {
        self.lost.store(self.lost.load(Relaxed).wrapping_add(records), Relaxed);
    }
}

/// What a table notes of its sessions, and where records go.
pub struct FlowLog {
    notes: Slab<Note>,
    ring: Arc<RecordRing<FlowRecord>>,
    now: Nanos,
}

/// Of one session, since it was last told of.
#[derive(Clone, Copy, Default)]
struct Note {
    bytes: [u64; 2],
    packets: [u32; 2],
    /// Zero: before the log was there.
    began: u32,
    /// Zero: never.
    told: u32,
}

const _: () = assert!(size_of::<Note>() == 32);

/// Time in units of some 4 milliseconds, which wraps after half a year. Never zero.
const fn units(at: Nanos) -> u32 {
    (at.0 >> 22) as u32 | 1
}

impl FlowLog {
    /// For a table of so many sessions, by number.
    pub fn new(sessions: u32, hugepages: bool, ring: Arc<RecordRing<FlowRecord>>) -> Self {
        let notes = Slab::new(sessions as usize, Note::default(), hugepages);
        Self { notes, ring, now: Nanos(0) }
    }

    pub(super) fn set_now(&mut self, now: Nanos) {
        self.now = now;
        self.ring.set_now(now);
    }

    /// Pulls what is noted of a session towards the cache. A hint.
    #[inline(always)]
    pub(super) fn prefetch(&self, session: u32) {
        if let Some(note) = self.notes.get(session as usize) {
            prefetch(note);
        }
    }

    /// Packets of this flow go on, of so many bytes together. True: the session is to be told of.
    #[inline(always)]
    pub(super) fn count(&mut self, flow: FlowRef, packets: u32, bytes: usize) -> bool {
        let now = units(self.now);
        let Some(note) = self.notes.get_mut(flow.session() as usize) else { return false };
        let direction = flow.direction() as usize;
        note.bytes[direction] += bytes as u64;
        note.packets[direction] = note.packets[direction].wrapping_add(packets);
        now.wrapping_sub(note.told) >= EVERY
    }

    /// A session was made.
    pub(super) fn begin(&mut self, session: u32, record: FlowRecord) {
        let now = units(self.now);
        if let Some(note) = self.notes.get_mut(session as usize) {
            *note = Note { began: now, told: now, ..Note::default() };
            self.ring.tell(record);
        }
    }

    /// When a session that is to be told of began, and what passed since it was told of. `None`: later. Sessions
    /// from before the log are not all told of at once.
    #[inline(never)]
    pub(super) fn take(&mut self, session: u32, event: FlowEvent) -> Option<(Option<Nanos>, [Passed; 2])> {
        let now = units(self.now);
        let note = self.notes.get_mut(session as usize)?;
        if note.told == 0 && event == FlowEvent::Continued {
            note.told = now.wrapping_sub(session % EVERY) | 1;
            return None;
        }
        let began = (note.began != 0).then(|| before(self.now, now.wrapping_sub(note.began)));
        let passed = |at: usize| Passed { packets: note.packets[at].into(), bytes: note.bytes[at] };
        let passed = [passed(0), passed(1)];
        *note = Note { began: note.began, told: now, ..Note::default() };
        Some((began, passed))
    }

    pub(super) fn tell(&self, record: FlowRecord) {
        self.ring.tell(record);
    }
}

/// So many [`units`] before `at`.
const fn before(at: Nanos, units: u32) -> Nanos {
    Nanos(at.0.saturating_sub((units as u64) << 22))
}
