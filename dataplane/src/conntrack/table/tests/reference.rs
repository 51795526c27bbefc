//! The slow twin of [`Table`](super::super::Table): a list of sessions, searched from the start.
//!
//! It shares the protocols' state machines, which have tests of their own, and nothing else.
//! Which of several sessions a full table gives up is the table's choice: the twin says which
//! it may, and is told.

use crate::conntrack::{
    Direction, Observed, SctpState, SctpTrack, Segment, State, Step, TcpState, TcpTrack, Timeouts,
};
use crate::net::{FlowKey, Nanos};

#[derive(Clone, Copy, Debug)]
pub struct Twin {
    pub keys: [FlowKey; 2],
    pub state: State,
    pub track: TcpTrack,
    pub used: Nanos,
    pub way: u32,
}

pub struct Reference {
    pub capacity: usize,
    pub timeouts: Timeouts,
    /// Never holds expired ones: `advance` drops them.
    pub sessions: Vec<Twin>,
    pub now: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Made,
    Taken,
    Full,
}

/// What is remembered of the packet that opens a session.
pub fn track(first: Segment) -> TcpTrack {
    match first {
        Segment::Tcp(first) => TcpTrack::open(&first),
        Segment::Sctp(first) => TcpTrack::of_words(SctpTrack::open(&first).words()),
        _ => TcpTrack::default(),
    }
}

impl Reference {
    pub fn advance(&mut self, now: Nanos) {
        self.now = now;
        let timeouts = self.timeouts;
        self.sessions.retain(|s| s.used.plus(timeouts.of(s.state)) > now);
    }

    /// The session's place in the list and the direction.
    pub fn lookup(&self, key: &FlowKey) -> Option<(usize, Direction)> {
        self.sessions.iter().enumerate().find_map(|(i, session)| {
            let direction = Direction::BOTH.into_iter().find(|d| session.keys[*d as usize] == *key)?;
            Some((i, direction))
        })
    }

    pub fn observe(&mut self, (i, direction): (usize, Direction), segment: Segment) -> Observed {
        let session = &mut self.sessions[i];
        match session.state.step(&mut session.track, direction, session.keys[0].proto, &segment) {
            Step::Next(next) => {
                session.state = next;
                session.used = self.now;
                Observed::Ok
            }
            Step::Invalid => Observed::Invalid,
            Step::OutOfWindow => Observed::OutOfWindow,
            Step::WrongTag => Observed::WrongTag,
            Step::Stale => {
                session.state = State::Tcp(TcpState::Closed);
                self.advance(self.now);
                Observed::OutOfWindow
            }
            Step::Reopen => {
                session.state = match session.state {
                    State::Sctp(_) => State::Sctp(SctpState::Closed),
                    _ => State::Tcp(TcpState::Closed),
                };
                // The shorter timeout may be over already.
                self.advance(self.now);
                Observed::Reopen
            }
        }
    }

    /// What an insert must answer. Also which sessions it may give up, and whether it must.
    pub fn insert(&mut self, new: Twin) -> (Verdict, Vec<FlowKey>, bool) {
        let holds_one = |s: &Twin| s.keys.iter().any(|key| new.keys.contains(key));
        if self.sessions.iter().any(|s| holds_one(s) && !s.state.is_closed()) {
            return (Verdict::Taken, Vec::new(), false);
        }
        self.sessions.retain(|s| !holds_one(s));
        let now = self.now;
        let evictable = |s: &&Twin| s.used != now && s.state.is_evictable();
        let candidates: Vec<_> = self.sessions.iter().filter(evictable).map(|s| s.keys[0]).collect();
        let full = self.sessions.len() == self.capacity;
        if full && candidates.is_empty() {
            return (Verdict::Full, candidates, false);
        }
        self.sessions.push(new);
        (Verdict::Made, candidates, full)
    }

    pub fn remove(&mut self, key: &FlowKey) {
        self.sessions.retain(|s| !s.keys.contains(key));
    }
}
