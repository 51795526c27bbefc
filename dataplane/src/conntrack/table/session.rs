//! What is kept of each session, in two arrays: one cache line of what every packet of an
//! established flow needs, and the rest, read when a session is made, judged or listed.
//!
//! The line holds the key of the first direction of an IPv4 session; the key of replies is that
//! reversed. Where it is not (an address or port is translated), and for IPv6, whose addresses do
//! not fit, keys are in the rest. A translated IPv6 session has two pairs of addresses, and takes
//! a second place of the table for the other one.

use super::NewSession;
use crate::conntrack::{Direction, FlowRef, SctpTrack, Segment, State, TcpTrack};
use crate::net::{FlowKey, Generation, IfId, Key4, Key6, Nanos, Proto};
use crate::packet::{Slab, prefetch};

/// The sessions of a table by number.
pub struct Sessions {
    lines: Slab<Line>,
    rests: Slab<Rest>,
}

/// One session, for packets.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub struct Line {
    /// IPv4: with `ports` the original direction's key, as it stands in packets. A translated IPv6
    /// session: its second place.
    addrs: u64,
    /// When its last packet came.
    pub used: Nanos,
    ports: u32,
    /// What `ways` were found under.
    bound: Generation,
    /// Meaningful where `flags` say that they are bound.
    ways: [u32; 2],
    /// Of TCP; SCTP's tags are kept in its place.
    pub track: TcpTrack,
    pub proto: Proto,
    flags: u8,
    /// `None`: the place is spare, or another session's second.
    pub state: Option<State>,
}

const _: () = assert!(size_of::<Line>() == 64);

/// One session, for whoever makes it, judges it or lists it.
#[derive(Clone, Copy, Default)]
pub struct Rest {
    /// IPv6: source and destination of the original direction; in a second place, of the reply.
    /// A translated IPv4 session: the reply's key in two words.
    addrs: [u64; 4],
    judged: Generation,
    /// In a second place the reply's ports; else the session's owners, two numbers of 16 bits.
    more: u32,
}

const _: () = assert!(size_of::<Rest>() == 40);

/// The addresses are IPv6, and in [`Rest`].
const V6: u8 = 1;
/// A reply's key is not the original's reversed.
const TRANSLATED: u8 = 1 << 1;
/// The way of the original direction is known; one bit further, the reply's.
const BOUND: u8 = 1 << 2;

impl Sessions {
    pub fn new(count: u32, hugepages: bool) -> Self {
        let count = count as usize;
        Self {
            lines: Slab::new(count, Line::default(), hugepages),
            rests: Slab::new(count, Rest::default(), hugepages),
        }
    }

    pub fn hugepages(&self) -> bool {
        self.lines.hugepages() && self.rests.hugepages()
    }

    pub fn len(&self) -> u32 {
        self.lines.len() as u32
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.rests)
    }

    #[inline(always)]
    pub fn line(&self, session: u32) -> &Line {
        &self.lines[session as usize]
    }

    #[inline(always)]
    pub fn line_mut(&mut self, session: u32) -> &mut Line {
        &mut self.lines[session as usize]
    }

    /// The line of a guess, which may be of no session at all.
    #[inline(always)]
    pub fn known_line_mut(&mut self, guess: FlowRef) -> Option<&mut Line> {
        self.lines.get_mut(guess.session() as usize)
    }

    /// The same with the rest.
    #[inline(always)]
    pub fn known_mut(&mut self, guess: FlowRef) -> Option<(&mut Line, &Rest)> {
        let session = guess.session() as usize;
        Some((self.lines.get_mut(session)?, self.rests.get(session)?))
    }

    /// Pulls a session's line towards the cache, if there is such a session. A hint.
    #[inline(always)]
    pub fn prefetch(&self, session: u32) {
        if let Some(line) = self.lines.get(session as usize) {
            prefetch(line);
        }
    }

    /// The same for all of it.
    pub fn prefetch_all(&self, session: u32) {
        self.prefetch(session);
        self.prefetch_rest(session);
    }

    /// The same for what is not in its line.
    #[inline(always)]
    pub fn prefetch_rest(&self, session: u32) {
        if let Some(rest) = self.rests.get(session as usize) {
            prefetch(rest);
        }
    }

    /// A session like this takes two places.
    pub fn takes_two(new: &NewSession) -> bool {
        let v4 = Key4::of(&new.key).is_some() && Key4::of(&new.reply_key).is_some();
        !v4 && new.reply_key != new.key.reversed()
    }

    /// Writes a session into a spare place, and into a `second` if it takes two.
    pub fn store(&mut self, session: u32, second: Option<u32>, new: &NewSession, now: Nanos) {
        let (key, reply) = (&new.key, &new.reply_key);
        let translated = if *reply == key.reversed() { 0 } else { TRANSLATED };
        let mut line = Line {
            used: now,
            bound: new.bound,
            ways: [new.way, 0],
            track: match &new.segment {
                Segment::Tcp(first) => TcpTrack::open(first),
                Segment::Sctp(first) => TcpTrack::of_words(SctpTrack::open(first).words()),
                _ => TcpTrack::default(),
            },
            proto: key.proto,
            flags: translated | BOUND,
            state: Some(new.state),
            ..Line::default()
        };
        let mut rest = Rest { judged: new.judged, ..Rest::default() };
        match (Key4::of(key), Key4::of(reply)) {
            (Some(key), Some(reply)) => {
                (line.addrs, line.ports) = key.words();
                let (addrs, ports) = reply.words();
                rest.addrs = [addrs, ports.into(), 0, 0];
            }
            _ => {
                line.flags |= V6;
                (rest.addrs, line.ports) = Key6::of(key).words();
                if let Some(second) = second {
                    line.addrs = second.into();
                    let (addrs, more) = Key6::of(reply).words();
                    self.rests[second as usize] = Rest { addrs, more, ..Rest::default() };
                }
            }
        }
        self.lines[session as usize] = line;
        self.rests[session as usize] = rest;
    }

    /// Marks a session as gone. Returns its second place, if it had one.
    pub fn clear(&mut self, session: u32) -> Option<u32> {
        let line = self.line_mut(session);
        line.state = None;
        (line.flags & (V6 | TRANSLATED) == V6 | TRANSLATED).then_some(line.addrs as u32)
    }

    /// The flow's key is `key`, and its session is not gone.
    #[inline(always)]
    pub fn is4(&self, flow: FlowRef, key: Key4) -> bool {
        let line = self.line(flow.session());
        if line.flags & (V6 | TRANSLATED) != 0 {
            return line.state.is_some() && self.key4(flow) == Some(key);
        }
        line.is4(flow.direction(), key) && line.state.is_some()
    }

    /// The same of a key of IPv6.
    #[inline(always)]
    pub fn is6(&self, flow: FlowRef, key: &Key6) -> bool {
        let line = self.line(flow.session());
        if line.flags & (V6 | TRANSLATED) != V6 {
            return line.flags & V6 != 0 && line.state.is_some() && self.key6(flow) == *key;
        }
        line.is6(&self.rests[flow.session() as usize], flow.direction(), key) && line.state.is_some()
    }

    /// The flow's key, of a session that may be gone.
    pub fn key(&self, flow: FlowRef) -> FlowKey {
        match self.key4(flow) {
            Some(key) => key.key(),
            None => self.key6(flow).key(),
        }
    }

    /// The reply's key is not the original's reversed.
    #[inline(always)]
    pub fn is_translated(&self, session: u32) -> bool {
        self.line(session).flags & TRANSLATED != 0
    }

    #[cold]
    #[inline(never)]
    fn key4(&self, flow: FlowRef) -> Option<Key4> {
        let line = self.line(flow.session());
        let original = Key4::from_words(line.addrs, line.ports, line.proto);
        match (flow.direction(), line.flags & (V6 | TRANSLATED)) {
            (Direction::Original, 0 | TRANSLATED) => Some(original),
            (Direction::Reply, 0) => Some(original.reversed()),
            (Direction::Reply, TRANSLATED) => {
                let [addrs, ports, ..] = self.rests[flow.session() as usize].addrs;
                Some(Key4::from_words(addrs, ports as u32, line.proto))
            }
            _ => None,
        }
    }

    fn key6(&self, flow: FlowRef) -> Key6 {
        let line = self.line(flow.session());
        let second = line.flags & TRANSLATED != 0 && flow.direction() == Direction::Reply;
        let place = if second { line.addrs as u32 } else { flow.session() };
        let rest = &self.rests[place as usize];
        let key = Key6::from_words(rest.addrs, if second { rest.more } else { line.ports }, line.proto);
        if flow.direction() == Direction::Original || second { key } else { key.reversed() }
    }

    /// Which snapshot's policy allowed the session last.
    #[inline]
    pub fn judged(&self, session: u32) -> Generation {
        self.rests[session as usize].judged
    }

    /// The workloads it counts against, source and destination; mostly `None`.
    #[inline]
    pub fn owners(&self, session: u32) -> Option<[Option<IfId>; 2]> {
        let more = self.rests[session as usize].more;
        let owner = |number: u32| (number as u16).checked_sub(1).map(IfId);
        (more != 0).then(|| [owner(more >> 16), owner(more)])
    }

    pub fn set_owners(&mut self, session: u32, owners: [Option<IfId>; 2]) {
        // One more than the number, so that zero is nobody.
        let [source, destination] = owners.map(|owner| owner.map_or(0, |id| id.0.wrapping_add(1)));
        self.rests[session as usize].more = u32::from(source) << 16 | u32::from(destination);
    }

    #[inline]
    pub fn set_judged(&mut self, session: u32, by: Generation) {
        self.rests[session as usize].judged = by;
    }
}

impl Line {
    /// An IPv4 session that is not translated, in which `key` is this direction's.
    #[inline(always)]
    pub fn is4(&self, direction: Direction, key: Key4) -> bool {
        let as_original = if direction == Direction::Original { key } else { key.reversed() };
        self.flags & (V6 | TRANSLATED) == 0
            && (self.addrs, self.ports) == as_original.words()
            && self.proto == key.proto
    }

    /// The same of IPv6.
    #[inline(always)]
    pub fn is6(&self, rest: &Rest, direction: Direction, key: &Key6) -> bool {
        let as_original = if direction == Direction::Original { *key } else { key.reversed() };
        self.flags & (V6 | TRANSLATED) == V6
            && (rest.addrs, self.ports) == as_original.words()
            && self.proto == key.proto
    }

    /// The way of this direction, if it was found under `current`, the session is of UDP, younger than `least`, and goes
    /// on as it is; then it is refreshed.
    #[inline(always)]
    pub fn carry_on(
        &mut self,
        direction: Direction,
        current: Generation,
        now: Nanos,
        least: Nanos,
    ) -> Option<u32> {
        let Some(State::Udp(exchange)) = self.state else { return None };
        if exchange.step(direction) != exchange || now.since(self.used) >= least {
            return None;
        }
        let way = self.way(direction, current)?;
        self.used = now;
        Some(way)
    }

    /// The way of this direction, if it was found under `current`.
    #[inline(always)]
    pub fn way(&self, direction: Direction, current: Generation) -> Option<u32> {
        let bound = self.flags & (BOUND << direction as u8) != 0 && self.bound == current;
        bound.then_some(self.ways[direction as usize])
    }

    /// Notes the way of this direction, found under `current`. What was found under another is
    /// forgotten.
    #[inline]
    pub fn bind(&mut self, direction: Direction, current: Generation, way: u32) {
        if self.bound != current {
            self.bound = current;
            self.flags &= !(BOUND | BOUND << 1);
        }
        self.flags |= BOUND << direction as u8;
        self.ways[direction as usize] = way;
    }
}
