//! A worker's flows, shown to the control thread a page at a time and a few places a poll, so
//! that no packet waits for whoever looks.

use crate::conntrack::{Direction, State, Table};
use crate::net::{Addr, FlowKey, Generation, Nanos, Proto};

/// Places of the flow table looked at in one poll.
const BUDGET: usize = 512;

/// The flows of a page.
const PAGE: usize = 256;

/// Which flows somebody wants to see: those of packets like this one, either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowsWanted {
    /// The packet's source.
    pub src: Addr,
    /// The packet's destination.
    pub dst: Addr,
    /// The protocol.
    pub proto: Proto,
    /// The source port; `None`: any.
    pub sport: Option<u16>,
    /// The destination port; `None`: any.
    pub dport: Option<u16>,
}

/// A flow as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSeen {
    /// Of the direction that opened the session.
    pub key: FlowKey,
    /// The way that a packet as was asked for takes in it.
    pub direction: Direction,
    /// Where it is in its protocol.
    pub state: State,
    /// Since its last packet.
    pub idle: Nanos,
    /// Until it is gone, if no packet comes.
    pub remaining: Nanos,
    /// Of the snapshot by whose verdict it lives.
    pub judged: Generation,
}

/// A question to a worker with room for its answer, made where memory may be allocated.
#[derive(Debug)]
pub struct FlowPage {
    /// Which question this is, for whoever asked.
    pub question: u64,
    /// What is wanted.
    pub wanted: FlowsWanted,
    /// What was found so far.
    pub found: Vec<FlowSeen>,
    /// Where to go on; `None`: all has been looked at. A full page goes back all the same.
    pub cursor: Option<u32>,
}

impl FlowsWanted {
    fn is(&self, key: &FlowKey) -> bool {
        let any = |wanted: Option<u16>, port: u16| wanted.is_none_or(|wanted| wanted == port);
        (key.src, key.dst, key.proto) == (self.src, self.dst, self.proto)
            && any(self.sport, key.sport)
            && any(self.dport, key.dport)
    }
}

impl FlowPage {
    /// An empty page.
    pub fn new(question: u64, wanted: FlowsWanted) -> Self {
        Self { question, wanted, found: Vec::with_capacity(PAGE), cursor: Some(0) }
    }

    /// There may be more than is on it.
    pub fn is_cut(&self) -> bool {
        self.cursor.is_some()
    }

    /// Looks at some more places of the table. True: the page is ready to go back.
    pub(super) fn fill(&mut self, flows: &Table, now: Nanos) -> bool {
        let Self { wanted, found, cursor, .. } = self;
        let (Some(from), room @ 1..) = (*cursor, found.capacity() - found.len()) else { return true };
        *cursor = flows.scan(from, room.min(BUDGET) as u32, now, |entry| {
            let keys = [(Direction::Original, &entry.key), (Direction::Reply, &entry.reply_key)];
            if let Some((direction, _)) = keys.into_iter().find(|(_, key)| wanted.is(key)) {
                found.push(FlowSeen {
                    key: entry.key,
                    direction,
                    state: entry.state,
                    idle: entry.idle,
                    remaining: entry.remaining,
                    judged: entry.judged,
                });
            }
        });
        cursor.is_none()
    }
}
