#![doc = include_str!("README.md")]

mod flow;
mod icmp;
mod index;
mod state;
mod tcp;
mod udp;
mod wheel;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use flow::{Direction, FlowHasher, FlowRef};
pub use icmp::IcmpState;
pub use state::{Admit, Observed, Segment, State, Step, Timeouts};
pub use tcp::{TcpFlags, TcpState};
pub use udp::Exchange;

use crate::net::{Addr, FlowKey, Generation, Nanos, Proto};
use crate::packet::prefetch;
use index::Index;
use wheel::Wheel;

/// What a table is made with. It does not change afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most sessions at a time, 1 to [`Settings::MAX_SESSIONS`].
    pub sessions: u32,
    /// Idle times.
    pub timeouts: Timeouts,
    /// TCP connections whose handshake was not seen are picked up (and judged by policy), so
    /// that they outlive a restart. Otherwise their packets are invalid.
    pub tcp_midstream: bool,
}

impl Settings {
    /// A flow is 32 bits: a session's number and a direction.
    pub const MAX_SESSIONS: u32 = (1 << 31) - 1;
}

impl Default for Settings {
    fn default() -> Self {
        Self { sessions: 1 << 20, timeouts: Timeouts::default(), tcp_midstream: true }
    }
}

/// Why a table could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// None, or more than a flow's 32 bits can tell apart.
    #[error("sessions: {0} is out of range; choose 1 to {max}", max = Settings::MAX_SESSIONS)]
    Sessions(u32),
    /// Sessions would be gone before their first packet is.
    #[error("timeouts.{0}: must be above zero")]
    ZeroTimeout(&'static str),
}

/// A session to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<V> {
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
    /// Of the snapshot whose policy allowed it; 0: no policy was asked.
    pub judged: Generation,
    /// What the caller wants to know of each direction: original, reply.
    pub bindings: [V; 2],
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
}

/// A live session, for listing.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a, V> {
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
    /// Original, reply.
    pub bindings: &'a [V; 2],
}

/// What happened to sessions since the table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Removed after their idle time.
    pub expired: u64,
    /// Given up, half-open or closed, for a new one.
    pub evicted: u64,
    /// Refused with [`InsertError::Full`].
    pub refused: u64,
}

/// How many sessions one insert into a full table may examine.
const PROBES: u32 = 64;

/// The sessions of one worker, with a `V` for each direction.
pub struct Table<V> {
    sessions: Box<[Session<V>]>,
    index: Index,
    wheel: Wheel,
    hasher: FlowHasher,
    timeouts: Timeouts,
    tcp_midstream: bool,
    live: u32,
    /// Where the search for a session to give up goes on.
    hand: u32,
    counters: Counters,
}

impl<V: Copy + Default> Table<V> {
    /// Allocates all the table will ever use.
    pub fn new(settings: Settings, hasher: FlowHasher) -> Result<Self, SettingsError> {
        let Settings { sessions, timeouts, tcp_midstream } = settings;
        if sessions == 0 || sessions > Settings::MAX_SESSIONS {
            return Err(SettingsError::Sessions(sessions));
        }
        if let Some((name, _)) = timeouts.named().into_iter().find(|(_, span)| *span == Nanos(0)) {
            return Err(SettingsError::ZeroTimeout(name));
        }
        Ok(Self {
            sessions: vec![Session::default(); sessions as usize].into(),
            index: Index::new(2 * sessions as usize),
            wheel: Wheel::new(sessions),
            hasher,
            timeouts,
            tcp_midstream,
            live: 0,
            hand: 0,
            counters: Counters::default(),
        })
    }

    /// The hash the other methods expect.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash(key)
    }

    /// Pulls towards the cache where it is noted which session this is. A hint.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Pulls the session itself towards the cache, or what else must be read to know that there is
    /// none. A hint, of use some packets after [`prefetch`](Self::prefetch).
    #[inline]
    pub fn prefetch_session(&self, hash: u64) {
        match self.index.guess(hash) {
            Some(flow) => prefetch(&self.sessions[flow.session() as usize]),
            None => self.index.prefetch_other(hash),
        }
    }

    /// Pulls towards the cache where a session will be noted. A hint.
    #[inline]
    pub fn prefetch_insert(&self, hash: u64, reply_hash: u64) {
        for hash in [hash, reply_hash] {
            self.index.prefetch(hash);
            self.index.prefetch_other(hash);
        }
    }

    /// The live flow with this key.
    #[inline]
    pub fn lookup(&self, key: &FlowKey, hash: u64, now: Nanos) -> Option<FlowRef> {
        self.find(key, hash).filter(|flow| !self.is_expired(flow.session(), now))
    }

    /// Judges a packet of a live flow and moves its session on.
    #[inline]
    pub fn observe(&mut self, flow: FlowRef, segment: Segment, now: Nanos) -> Observed {
        let session = &mut self.sessions[flow.session() as usize];
        let Some(state) = session.state else { return Observed::Invalid };
        match state.step(flow.direction(), session.proto, segment) {
            Step::Next(next) => {
                session.used = now;
                if next != state {
                    self.enter(flow.session(), state, next);
                }
                Observed::Ok
            }
            Step::Invalid => Observed::Invalid,
            Step::Reopen => {
                self.enter(flow.session(), state, State::Tcp(TcpState::Closed));
                Observed::Reopen
            }
        }
    }

    /// May a packet without a session open one, and in which state?
    pub fn admit(&self, proto: Proto, segment: Segment) -> Admit {
        State::open(proto, segment, self.tcp_midstream)
    }

    /// Makes a session. In a full table another may be given up for it; closed sessions with
    /// one of its keys are.
    pub fn insert(&mut self, new: NewSession<V>, now: Nanos) -> Result<FlowRef, InsertError> {
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
        let Some(session) = self.make_place(now) else {
            self.counters.refused += 1;
            return Err(InsertError::Full);
        };
        let flow = FlowRef::new(session, Direction::Original);
        let indexed = self.index.insert(hash, flow).and_then(|()| {
            // A packet to its own source answers itself: one flow is all there is.
            if reply_key == key { Ok(()) } else { self.index.insert(reply_hash, flow.opposite()) }
        });
        if indexed.is_err() {
            self.index.remove(hash, flow);
            self.counters.refused += 1;
            return Err(InsertError::Full);
        }
        self.sessions[session as usize] = Session::new(&new, now);
        self.wheel.arm(session, now.plus(self.timeouts.of(new.state)));
        self.live += 1;
        // Sessions often begin in bursts.
        if let Some(soon) = self.wheel.spare_soon() {
            prefetch(&self.sessions[soon as usize]);
        }
        Ok(flow)
    }

    /// Removes a session by either of its flows; false if it is gone already.
    pub fn remove(&mut self, flow: FlowRef) -> bool {
        let session = &mut self.sessions[flow.session() as usize];
        if session.state.take().is_none() {
            return false;
        }
        for direction in Direction::BOTH {
            let hash = self.hasher.hash(&session.key(direction));
            self.index.remove(hash, FlowRef::new(flow.session(), direction));
        }
        self.wheel.release(flow.session());
        self.live -= 1;
        true
    }

    /// Removes sessions whose idle time is over, examining at most `budget`. Returns how many it
    /// examined: fewer than `budget` means that nothing more is due.
    pub fn expire(&mut self, now: Nanos, budget: usize) -> usize {
        for examined in 0..budget {
            let Some(session) = self.wheel.due(now) else { return examined };
            if self.is_expired(session, now) {
                self.remove(FlowRef::new(session, Direction::Original));
                self.counters.expired += 1;
            } else {
                self.wheel.arm(session, self.deadline(session));
            }
        }
        budget
    }

    /// What the caller bound to this direction of a live session.
    #[inline]
    pub fn binding(&self, flow: FlowRef) -> &V {
        &self.sessions[flow.session() as usize].bindings[flow.direction() as usize]
    }

    /// The same, to change it.
    #[inline]
    pub fn binding_mut(&mut self, flow: FlowRef) -> &mut V {
        &mut self.sessions[flow.session() as usize].bindings[flow.direction() as usize]
    }

    /// The generation of the snapshot whose policy allowed the session last.
    pub fn judged(&self, flow: FlowRef) -> Generation {
        self.sessions[flow.session() as usize].judged
    }

    /// Policy was asked again, and allowed it.
    #[inline]
    pub fn set_judged(&mut self, flow: FlowRef, by: Generation) {
        self.sessions[flow.session() as usize].judged = by;
    }

    /// The key of a live flow.
    pub fn key(&self, flow: FlowRef) -> FlowKey {
        self.sessions[flow.session() as usize].key(flow.direction())
    }

    /// The state of a session; `None` if it is gone.
    pub fn state(&self, flow: FlowRef) -> Option<State> {
        self.sessions[flow.session() as usize].state
    }

    /// Shows live sessions, examining at most `max` places from `cursor` (0 at first). Returns
    /// the next cursor, `None` at the end. Sessions made or removed between calls may be missed;
    /// none is shown twice, unless it was made anew.
    pub fn scan(
        &self,
        cursor: u32,
        max: u32,
        now: Nanos,
        mut visit: impl FnMut(Entry<'_, V>),
    ) -> Option<u32> {
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
        mut matches: impl FnMut(&Entry<'_, V>) -> bool,
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

    /// Sessions that have a place; some may be over and wait for [`expire`](Self::expire).
    pub fn len(&self) -> usize {
        self.live as usize
    }

    /// No session has a place.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The most sessions there can be.
    pub fn capacity(&self) -> u32 {
        self.sessions.len() as u32
    }

    /// What happened to sessions so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Memory, in bytes. It never changes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sessions) + self.index.bytes() + self.wheel.bytes()
    }

    #[inline]
    fn find(&self, key: &FlowKey, hash: u64) -> Option<FlowRef> {
        self.index.find(hash, |flow| self.key(flow) == *key)
    }

    /// Changes a session's state, and looks at it earlier if the new state does not last as long.
    fn enter(&mut self, session: u32, from: State, to: State) {
        self.sessions[session as usize].state = Some(to);
        if self.timeouts.of(to) < self.timeouts.of(from) {
            self.wheel.arm(session, self.deadline(session));
        }
    }

    /// A place for a new session, still spare; made if need be.
    fn make_place(&mut self, now: Nanos) -> Option<u32> {
        if self.wheel.spare().is_none() {
            self.expire(now, PROBES as usize);
        }
        if self.wheel.spare().is_none() {
            self.evict(now);
        }
        self.wheel.spare()
    }

    /// Gives up the first of the next few sessions that may be.
    fn evict(&mut self, now: Nanos) {
        for _ in 0..PROBES.min(self.capacity()) {
            let session = self.hand;
            self.hand = (self.hand + 1) % self.capacity();
            let Session { state, used, .. } = &self.sessions[session as usize];
            // A packet of this vector may hold a reference to what was used just now.
            let evictable = *used != now && state.is_some_and(State::is_evictable);
            let expired = self.is_expired(session, now);
            if expired || evictable {
                self.remove(FlowRef::new(session, Direction::Original));
                *(if expired { &mut self.counters.expired } else { &mut self.counters.evicted }) += 1;
                return;
            }
        }
    }

    fn gives_way(&self, session: u32, now: Nanos) -> bool {
        self.is_expired(session, now) || self.sessions[session as usize].state.is_some_and(State::is_closed)
    }

    fn deadline(&self, session: u32) -> Nanos {
        let Session { state, used, .. } = &self.sessions[session as usize];
        state.map_or(*used, |state| used.plus(self.timeouts.of(state)))
    }

    #[inline]
    fn is_expired(&self, session: u32, now: Nanos) -> bool {
        self.deadline(session) <= now
    }

    fn entry(&self, number: u32, now: Nanos) -> Option<Entry<'_, V>> {
        let session = &self.sessions[number as usize];
        let state = session.state?;
        let remaining = self.deadline(number).since(now);
        (remaining > Nanos(0)).then(|| Entry {
            flow: FlowRef::new(number, Direction::Original),
            key: session.key(Direction::Original),
            reply_key: session.key(Direction::Reply),
            state,
            idle: now.since(session.used),
            remaining,
            judged: session.judged,
            bindings: &session.bindings,
        })
    }
}

/// A session's place. Keys are taken apart so that the protocol is stored once and no padding is.
#[derive(Clone, Copy, Default)]
struct Session<V> {
    /// Source and destination of each direction.
    addrs: [[Addr; 2]; 2],
    /// When its last packet came.
    used: Nanos,
    ports: [[u16; 2]; 2],
    bindings: [V; 2],
    judged: Generation,
    proto: Proto,
    /// `None`: the place is spare.
    state: Option<State>,
}

const _: () = assert!(size_of::<Session<[u32; 2]>>() == 104);

impl<V: Copy> Session<V> {
    fn new(new: &NewSession<V>, now: Nanos) -> Self {
        let NewSession { key, reply_key, .. } = new;
        Self {
            addrs: [[key.src, key.dst], [reply_key.src, reply_key.dst]],
            used: now,
            ports: [[key.sport, key.dport], [reply_key.sport, reply_key.dport]],
            bindings: new.bindings,
            judged: new.judged,
            proto: key.proto,
            state: Some(new.state),
        }
    }

    #[inline]
    fn key(&self, direction: Direction) -> FlowKey {
        let [src, dst] = self.addrs[direction as usize];
        let [sport, dport] = self.ports[direction as usize];
        FlowKey { src, dst, sport, dport, proto: self.proto }
    }
}
