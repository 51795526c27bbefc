#![doc = include_str!("README.md")]

mod directory;
mod filter;
mod flow;
mod fragments;
mod icmp;
mod index;
mod name;
pub mod nat;
mod quota;
mod session;
mod simd;
mod state;
mod tcp;
mod udp;
mod wheel;

#[cfg(test)]
mod fragments_reference;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use directory::Directory;
pub use filter::{Filter, FilterError, PacketLike};
pub use flow::{Direction, FlowHasher, FlowRef};
pub use fragments::{Datagram, Fate, First, Fragments, Part, Ticket};
pub use icmp::IcmpState;
pub use nat::Masquerade;
pub use quota::{Over, Quotas, Side};
pub use state::{Admit, Observed, Segment, State, Step, Timeouts};
pub use tcp::{TcpFlags, TcpSegment, TcpState, TcpTrack};
pub use udp::Exchange;

use crate::net::{FlowKey, Generation, IfId, Key4, Nanos, Proto, WorkerId};
use directory::Refused;
use index::Index;
use session::Sessions;
use std::sync::Arc;
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
    /// On hugepages, where enough are free.
    pub hugepages: bool,
}

impl Settings {
    /// A flow is 32 bits: a session's number and a direction.
    pub const MAX_SESSIONS: u32 = (1 << 31) - 1;
}

impl Default for Settings {
    fn default() -> Self {
        Self { sessions: 1 << 20, timeouts: Timeouts::default(), tcp_midstream: true, hugepages: false }
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

/// The same for all inserts at one `now`, so that no vector of new flows is held up for long.
const PROBES_A_VECTOR: u32 = 4096;

/// The sessions of one worker, with the way that each direction's packets take.
pub struct Table {
    sessions: Sessions,
    index: Index,
    wheel: Wheel,
    hasher: FlowHasher,
    /// Where sessions are counted that have owners.
    quotas: Arc<Quotas>,
    timeouts: Timeouts,
    /// The shortest of them: who is idle for less is live, whatever its state.
    least: Nanos,
    tcp_midstream: bool,
    live: u32,
    /// Where the search for a session to give up goes on.
    hand: u32,
    /// How many sessions were examined for that, and when.
    probed: (Nanos, u32),
    counters: Counters,
    /// Where translated sessions stand, and under which number, when there are other workers.
    directory: Option<(Arc<Directory>, WorkerId)>,
}

impl Table {
    /// Allocates all the table will ever use.
    pub fn new(settings: Settings, hasher: FlowHasher) -> Result<Self, SettingsError> {
        let Settings { sessions, timeouts, tcp_midstream, hugepages } = settings;
        if sessions == 0 || sessions > Settings::MAX_SESSIONS {
            return Err(SettingsError::Sessions(sessions));
        }
        if let Some((name, _)) = timeouts.named().into_iter().find(|(_, span)| *span == Nanos(0)) {
            return Err(SettingsError::ZeroTimeout(name));
        }
        Ok(Self {
            sessions: Sessions::new(sessions, hugepages),
            index: Index::new(2 * sessions as usize, hugepages),
            wheel: Wheel::new(sessions, hugepages),
            hasher,
            quotas: Arc::default(),
            timeouts,
            least: timeouts.named().map(|(_, span)| span).into_iter().min().unwrap_or_default(),
            tcp_midstream,
            live: 0,
            hand: 0,
            probed: (Nanos(0), 0),
            counters: Counters::default(),
            directory: None,
        })
    }

    /// From now on sessions with owners are counted there when they end.
    pub fn count_in(&mut self, quotas: Arc<Quotas>) {
        self.quotas = quotas;
    }

    /// Names the workloads, original direction's source and destination, that a session just made was
    /// counted against: they are given it back when it is gone.
    pub fn set_owners(&mut self, flow: FlowRef, owners: [Option<IfId>; 2]) {
        self.sessions.set_owners(flow.session(), owners);
    }

    /// From now on the reply keys of translated sessions stand in `directory` as `me`'s, for the
    /// workers that replies come to.
    pub fn share(&mut self, directory: Arc<Directory>, me: WorkerId) {
        self.directory = Some((directory, me));
    }

    /// The worker that has the translated session of which this is the reply key's hash.
    #[inline]
    pub fn listed(&self, hash: u64) -> Option<WorkerId> {
        self.directory.as_ref()?.0.find(hash)
    }

    /// The hash the other methods expect.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash(key)
    }

    /// The same for a key of two words.
    #[inline(always)]
    pub fn hash4(&self, key: Key4) -> u64 {
        self.hasher.hash4(key)
    }

    /// Pulls towards the cache where it is noted which session this is. A hint, of use some hundred
    /// cycles before [`guess`](Self::guess) or [`lookup`](Self::lookup).
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// The flow that a packet with this hash probably belongs to, whose session is pulled towards
    /// the cache: for [`lookup4`](Self::lookup4) some packets later. None: ask
    /// [`guess_again`](Self::guess_again) in between.
    #[inline(always)]
    pub fn guess(&self, hash: u64) -> Option<FlowRef> {
        let guess = self.index.guess(hash);
        match guess {
            Some(flow) => self.sessions.prefetch(flow.session()),
            None => self.index.prefetch_other(hash),
        }
        guess
    }

    /// The same, of the few that are not where they are looked for first.
    #[inline]
    pub fn guess_again(&self, hash: u64) -> Option<FlowRef> {
        self.index.guess_other(hash).inspect(|flow| self.sessions.prefetch(flow.session()))
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

    /// The same for a key of two words, tried first with what [`guess`](Self::guess) said: then
    /// nothing but the session is read.
    #[inline(always)]
    pub fn lookup4(&self, key: Key4, hash: u64, guess: FlowRef, now: Nanos) -> Option<FlowRef> {
        if guess.session() < self.capacity() && self.sessions.is4(guess, key) {
            return Some(guess).filter(|flow| !self.is_expired(flow.session(), now));
        }
        self.lookup(&key.key(), hash, now)
    }

    /// Looks up many flows at a time, for the latency of memory is then that of one: `found[n]` is
    /// the flow of `keys[n]`.
    pub fn lookup_many(&self, keys: &[Key4], now: Nanos, found: &mut [Option<FlowRef>]) {
        const AT_ONCE: usize = 64;
        let mut hashes = [0; AT_ONCE];
        for (keys, found) in keys.chunks(AT_ONCE).zip(found.chunks_mut(AT_ONCE)) {
            for (hash, key) in hashes.iter_mut().zip(keys) {
                *hash = self.hash4(*key);
                self.prefetch(*hash);
            }
            for (found, hash) in found.iter_mut().zip(&hashes) {
                *found = self.guess(*hash);
            }
            for (found, hash) in found.iter_mut().zip(&hashes) {
                if found.is_none() {
                    *found = self.guess_again(*hash);
                }
            }
            for ((found, key), hash) in found.iter_mut().zip(keys).zip(&hashes) {
                *found = found.and_then(|guess| self.lookup4(*key, *hash, guess, now));
            }
        }
    }

    /// Judges a packet of a live flow and moves its session on.
    #[inline(always)]
    pub fn observe(&mut self, flow: FlowRef, segment: Segment, now: Nanos) -> Observed {
        let line = self.sessions.line_mut(flow.session());
        // Nearly all packets but TCP's change nothing.
        if let (Some(State::Udp(exchange)), Segment::Other) = (line.state, segment)
            && exchange.step(flow.direction()) == exchange
        {
            line.used = now;
            return Observed::Ok;
        }
        self.step(flow, segment, now)
    }

    fn step(&mut self, flow: FlowRef, segment: Segment, now: Nanos) -> Observed {
        let line = self.sessions.line_mut(flow.session());
        let Some(state) = line.state else { return Observed::Invalid };
        match state.step(&mut line.track, flow.direction(), line.proto, &segment) {
            Step::Next(next) => {
                line.used = now;
                if next != state {
                    self.enter(flow.session(), state, next);
                }
                Observed::Ok
            }
            Step::Invalid => Observed::Invalid,
            Step::OutOfWindow => Observed::OutOfWindow,
            Step::Stale => {
                self.enter(flow.session(), state, State::Tcp(TcpState::Closed));
                Observed::OutOfWindow
            }
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
        self.wheel.arm(session, now.plus(self.timeouts.of(new.state)));
        self.live += 1;
        // Sessions often begin in bursts.
        if let Some(soon) = self.wheel.spare_soon() {
            self.sessions.prefetch_all(soon);
        }
        Ok(flow)
    }

    /// Removes a session by either of its flows; false if it is gone already.
    pub fn remove(&mut self, flow: FlowRef) -> bool {
        if self.state(flow).is_none() {
            return false;
        }
        for direction in Direction::BOTH {
            let flow = FlowRef::new(flow.session(), direction);
            let hash = self.hasher.hash(&self.key(flow));
            self.index.remove(hash, flow);
            if direction == Direction::Reply && self.sessions.is_translated(flow.session()) {
                self.unlist(hash);
            }
        }
        if let Some([source, destination]) = self.sessions.owners(flow.session()) {
            source.into_iter().for_each(|id| self.quotas.release(id, Side::Egress));
            destination.into_iter().for_each(|id| self.quotas.release(id, Side::Ingress));
        }
        if let Some(second) = self.sessions.clear(flow.session()) {
            self.wheel.release(second);
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

    /// The way that packets of this flow take, if it was found under `current`.
    #[inline(always)]
    pub fn way(&self, flow: FlowRef, current: Generation) -> Option<u32> {
        self.sessions.line(flow.session()).way(flow.direction(), current)
    }

    /// Notes the way of a live flow, found under `current`. Ways found under another generation
    /// are forgotten, the other direction's too.
    #[inline]
    pub fn bind(&mut self, flow: FlowRef, current: Generation, way: u32) {
        self.sessions.line_mut(flow.session()).bind(flow.direction(), current, way);
    }

    /// The key with which packets of this flow leave, if it is not the one they come with.
    #[inline(always)]
    pub fn translated(&self, flow: FlowRef) -> Option<FlowKey> {
        let translated = self.sessions.is_translated(flow.session());
        translated.then(|| self.key(flow.opposite()).reversed())
    }

    /// The generation of the snapshot whose policy allowed the session last.
    pub fn judged(&self, flow: FlowRef) -> Generation {
        self.sessions.judged(flow.session())
    }

    /// Policy was asked again, and allowed it.
    #[inline]
    pub fn set_judged(&mut self, flow: FlowRef, by: Generation) {
        self.sessions.set_judged(flow.session(), by);
    }

    /// The key of a live flow.
    pub fn key(&self, flow: FlowRef) -> FlowKey {
        self.sessions.key(flow)
    }

    /// The state of a session; `None` if it is gone.
    pub fn state(&self, flow: FlowRef) -> Option<State> {
        self.sessions.line(flow.session()).state
    }

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

    /// Sessions that have a place; some may be over and wait for [`expire`](Self::expire).
    pub fn len(&self) -> usize {
        self.live as usize
    }

    /// No session has a place.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Every place is taken: a new session needs another to be given up.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.wheel.spare().is_none()
    }

    /// The most sessions there can be.
    pub fn capacity(&self) -> u32 {
        self.sessions.len()
    }

    /// What happened to sessions so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What a packet touches lies on hugepages.
    pub fn hugepages(&self) -> bool {
        self.sessions.hugepages() && self.index.hugepages()
    }

    /// Memory, in bytes. It never changes.
    pub fn bytes(&self) -> usize {
        self.sessions.bytes() + self.index.bytes() + self.wheel.bytes()
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

    fn unlist(&self, reply_hash: u64) {
        if let Some((directory, me)) = &self.directory {
            directory.remove(reply_hash, *me);
        }
    }

    #[inline]
    fn find(&self, key: &FlowKey, hash: u64) -> Option<FlowRef> {
        match Key4::of(key) {
            Some(key) => self.index.find(hash, |flow| self.sessions.is4(flow, key)),
            None => self.index.find(hash, |flow| self.key(flow) == *key),
        }
    }

    /// Changes a session's state, and looks at it earlier if the new state does not last as long.
    fn enter(&mut self, session: u32, from: State, to: State) {
        self.sessions.line_mut(session).state = Some(to);
        if self.timeouts.of(to) < self.timeouts.of(from) {
            self.wheel.arm(session, self.deadline(session));
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
            self.expire(now, PROBES as usize);
        }
        if self.wheel.spare().is_none() {
            self.evict(now);
        }
        self.wheel.spare()
    }

    /// Gives up the first of the next few sessions that may be.
    fn evict(&mut self, now: Nanos) {
        if self.probed.0 != now {
            self.probed = (now, 0);
        }
        for _ in 0..PROBES.min(self.capacity()).min(PROBES_A_VECTOR - self.probed.1) {
            self.probed.1 += 1;
            let session = self.hand;
            self.hand = (self.hand + 1) % self.capacity();
            let session::Line { state: Some(state), used, .. } = *self.sessions.line(session) else {
                continue;
            };
            // A packet of this vector may hold a reference to what was used just now.
            let evictable = used != now && state.is_evictable();
            let expired = self.is_expired(session, now);
            if expired || evictable {
                self.remove(FlowRef::new(session, Direction::Original));
                *(if expired { &mut self.counters.expired } else { &mut self.counters.evicted }) += 1;
                return;
            }
        }
    }

    fn gives_way(&self, session: u32, now: Nanos) -> bool {
        self.is_expired(session, now) || self.sessions.line(session).state.is_some_and(State::is_closed)
    }

    fn deadline(&self, session: u32) -> Nanos {
        let session::Line { state, used, .. } = self.sessions.line(session);
        state.map_or(*used, |state| used.plus(self.timeouts.of(state)))
    }

    #[inline(always)]
    fn is_expired(&self, session: u32, now: Nanos) -> bool {
        now.since(self.sessions.line(session).used) >= self.least && self.deadline(session) <= now
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
