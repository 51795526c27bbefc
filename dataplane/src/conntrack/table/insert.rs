//! How a session begins: its keys, its places in the index and its place in the table, which another
//! session may have to give up.

use super::Table;
use super::session::Sessions;
use crate::conntrack::directory::Refused;
use crate::conntrack::{Direction, FlowRef, Segment, State};
use crate::net::{FlowKey, Generation, Nanos};

/// A session to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewSession {
    /// The key of the packet that opens it.
    pub key: FlowKey,
    /// Its hash by the table's hasher.
    pub hash: u64,
    /// The key replies will have: `key` reversed, unless an address or port is translated.
    pub reply_key: FlowKey,
    /// Its hash by the table's hasher.
    pub reply_hash: u64,
    /// As [`Table::admit`] said.
    pub state: State,
    /// Of the packet that opens it.
    pub segment: Segment,
    /// Of the snapshot whose policy allowed it; 0: no policy was asked.
    pub judged: Generation,
    /// The way that packets of the original direction take, a number of the caller's.
    pub way: u32,
    /// What it was found under. The reply's way is not known yet.
    pub bound: Generation,
}

/// Why a session could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// No place free, and no session that may be given up.
    #[error("the flow table is full of established sessions; raise its number of sessions")]
    Full,
    /// One of the keys belongs to a live session.
    #[error("the key belongs to live session {}", .0.session())]
    Taken(FlowRef),
    /// The reply key belongs to a translated session of another worker.
    #[error("the reply key belongs to a session of another worker")]
    TakenElsewhere,
}

/// What one vector may spend on places for its new sessions in a full table, so that it is not held up
/// for long: the effort of all inserts at one `now`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effort {
    at: Nanos,
    /// Sessions looked at that were due.
    pub due: u32,
    /// Sessions passed over because the vector itself uses them,
    pub passed_over: u32,
    /// and the last of them.
    last: Option<u32>,
}

impl Effort {
    /// Sessions due looked at by one vector.
    pub const DUE: u32 = 64;
    /// Sessions passed over by one insert,
    pub const PASSED_OVER: u32 = 64;
    /// and by all of a vector.
    pub const PASSED_OVER_IN_ALL: u32 = 4096;

    /// What was spent at `now`.
    const fn at(self, now: Nanos) -> Self {
        if self.at.0 == now.0 { self } else { Self { at: now, due: 0, passed_over: 0, last: None } }
    }
}

impl Table {
    /// Makes a session. In a full table another may be given up for it; closed sessions with
    /// one of its keys are.
    pub fn insert(&mut self, new: NewSession, now: Nanos) -> Result<FlowRef, InsertError> {
        let NewSession { key, hash, reply_key, reply_hash, .. } = new;
        debug_assert!(hash == self.hash(&key) && reply_hash == self.hash(&reply_key));
        let holders = [self.find(&reply_key, reply_hash), self.find(&key, hash)];
        for holder in holders.into_iter().flatten() {
            if !self.gives_way(holder.session(), now) {
                return Err(InsertError::Taken(holder));
            }
        }
        // The holder of `key` last: its place is then the one taken, and a reference to it that
        // an earlier packet of this vector still has leads to the same conversation.
        for holder in holders.into_iter().flatten() {
            self.remove(holder);
        }
        let (session, second) = self.make_places(&new, now).ok_or_else(|| {
            self.counters.refused += 1;
            InsertError::Full
        })?;
        if let Err(refused) = self.list(&new) {
            [Some(session), second].into_iter().flatten().for_each(|place| self.wheel.release(place));
            return Err(refused);
        }
        let flow = FlowRef::new(session, Direction::Original);
        let indexed = self.index.insert(hash, flow).and_then(|()| {
            // A packet to its own source answers itself: one flow is all there is.
            if reply_key == key { Ok(()) } else { self.index.insert(reply_hash, flow.opposite()) }
        });
        if indexed.is_err() {
            self.index.remove(hash, flow);
            if new.reply_key != new.key.reversed() {
                self.unlist(reply_hash);
            }
            [Some(session), second].into_iter().flatten().for_each(|place| self.wheel.release(place));
            self.counters.refused += 1;
            return Err(InsertError::Full);
        }
        self.sessions.store(session, second, &new, now);
        self.arm(session);
        self.live += 1;
        self.counters.inserted += 1;
        self.tell_begun(session);
        // Sessions often begin in bursts.
        if let Some(soon) = self.wheel.spare_soon() {
            self.sessions.prefetch_all(soon);
        }
        Ok(flow)
    }

    /// Shows the other workers a translated session that is about to be made.
    fn list(&self, new: &NewSession) -> Result<(), InsertError> {
        match &self.directory {
            Some((directory, me)) if new.reply_key != new.key.reversed() => {
                directory.enter(new.reply_hash, *me).map_err(|refused| match refused {
                    Refused::Taken => InsertError::TakenElsewhere,
                    Refused::Full => InsertError::Full,
                })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn unlist(&self, reply_hash: u64) {
        if let Some((directory, me)) = &self.directory {
            directory.remove(reply_hash, *me);
        }
    }

    /// A place for a new session, and a second if it takes two.
    fn make_places(&mut self, new: &NewSession, now: Nanos) -> Option<(u32, Option<u32>)> {
        let first = self.make_place(now)?;
        if !Sessions::takes_two(new) {
            return Some((first, None));
        }
        // Held, so that it is not found twice.
        self.wheel.hold(first);
        match self.make_place(now) {
            Some(second) => {
                self.wheel.hold(second);
                Some((first, Some(second)))
            }
            None => {
                self.wheel.release(first);
                None
            }
        }
    }

    /// A place for a new session, still spare; made if need be.
    fn make_place(&mut self, now: Nanos) -> Option<u32> {
        if self.wheel.spare().is_none() {
            self.effort = self.effort.at(now);
            self.evict_due(now);
        }
        if self.wheel.spare().is_none() {
            self.evict(now);
        }
        self.wheel.spare()
    }

    /// Removes one session whose time is over, if one of the next few that are due is such.
    fn evict_due(&mut self, now: Nanos) {
        while self.effort.due < Effort::DUE && self.wheel.spare().is_none() {
            self.effort.due += 1;
            if self.expire(now, 1) == 0 {
                return;
            }
        }
    }

    /// Gives up the session that would have come up first of those that may be.
    fn evict(&mut self, now: Nanos) {
        let evictable = |session: &u32| self.sessions.line(*session).state.is_some_and(State::is_evictable);
        let mut behind = self.effort.last.filter(evictable);
        let most = Effort::PASSED_OVER_IN_ALL - self.effort.passed_over;
        for _ in 0..most.min(Effort::PASSED_OVER) {
            // Who was passed over may stand further back meanwhile: all over again, then.
            let Some(session) = self.wheel.loose(behind).or_else(|| self.wheel.loose(None)) else { return };
            let expired = self.is_expired(session, now);
            // A packet of this vector may hold a reference to what was used just now.
            if !expired && self.sessions.line(session).used == now {
                self.effort.passed_over += 1;
                behind = Some(session);
                self.effort.last = behind;
                continue;
            }
            self.remove(FlowRef::new(session, Direction::Original));
            *(if expired { &mut self.counters.expired } else { &mut self.counters.evicted }) += 1;
            return;
        }
    }

    fn gives_way(&self, session: u32, now: Nanos) -> bool {
        self.is_expired(session, now) || self.sessions.line(session).state.is_some_and(State::is_closed)
    }
}
