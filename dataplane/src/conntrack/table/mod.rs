//! The table: sessions by number, found by the hashes of their keys.

mod expiry;
mod index;
mod insert;
mod listing;
mod logging;
mod session;
mod simd;
mod wheel;

#[cfg(test)]
mod tests;

pub use insert::{InsertError, NewSession};
pub use listing::Entry;

use super::directory::Directory;
use super::flow::{Direction, FlowHasher, FlowRef};
use super::log::{FlowEvent, FlowLog};
use super::quota::{Quotas, Side};
use super::settings::{Settings, SettingsError, Tracking};
use super::state::{Admit, Observed, Segment, State, Step};
use super::tcp::TcpState;
use crate::net::{FlowKey, Generation, IfId, Key4, Key6, Nanos, Proto, WorkerId};
use index::Index;
use insert::Effort;
use session::Sessions;
use std::sync::Arc;
use wheel::Wheel;

/// What happened to sessions since the table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Made.
    pub inserted: u64,
    /// Removed after their idle time.
    pub expired: u64,
    /// Given up, half-open or closed, for a new one.
    pub evicted: u64,
    /// Refused with [`InsertError::Full`].
    pub refused: u64,
}

/// The sessions of one worker, with the way that each direction's packets take.
pub struct Table {
    sessions: Sessions,
    index: Index,
    wheel: Wheel,
    hasher: FlowHasher,
    /// Where sessions are counted that have owners.
    quotas: Arc<Quotas>,
    tracking: Tracking,
    /// The shortest of its timeouts: who is idle for less is live, whatever its state.
    least: Nanos,
    /// Sessions from this one on may be armed under other timeouts.
    rearmed: u32,
    live: u32,
    /// What the vector under way has spent on places.
    effort: Effort,
    counters: Counters,
    /// Where translated sessions stand, and under which number, when there are other workers.
    directory: Option<(Arc<Directory>, WorkerId)>,
    /// Somebody wants to know what becomes of sessions.
    log: Option<Box<FlowLog>>,
}

impl Table {
    /// Allocates all the table will ever use. It tracks as is the default, until it is told otherwise.
    pub fn new(settings: Settings, hasher: FlowHasher) -> Result<Self, SettingsError> {
        let Settings { sessions, hugepages } = settings;
        if sessions == 0 || sessions > Settings::MAX_SESSIONS {
            return Err(SettingsError::Sessions(sessions));
        }
        let tracking = Tracking::default();
        Ok(Self {
            sessions: Sessions::new(sessions, hugepages),
            index: Index::new(2 * sessions as usize, hugepages),
            wheel: Wheel::new(sessions, hugepages),
            hasher,
            quotas: Arc::default(),
            tracking,
            least: tracking.timeouts.least(),
            rearmed: sessions,
            live: 0,
            effort: Effort::default(),
            counters: Counters::default(),
            directory: None,
            log: None,
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

    /// The same for a key of IPv6 in words.
    #[inline(always)]
    pub fn hash6(&self, key: &Key6) -> u64 {
        self.hasher.hash6(key)
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

    /// Pulls towards the cache what only [`lookup6`](Self::lookup6) reads of a guessed session. A hint.
    #[inline(always)]
    pub fn prefetch6(&self, guess: FlowRef) {
        self.sessions.prefetch_rest(guess.session());
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

    /// The same for a key of IPv6 in words.
    #[inline(always)]
    pub fn lookup6(&self, key: &Key6, hash: u64, guess: FlowRef, now: Nanos) -> Option<FlowRef> {
        if guess.session() < self.capacity() && self.sessions.is6(guess, key) {
            return Some(guess).filter(|flow| !self.is_expired(flow.session(), now));
        }
        self.lookup(&key.key(), hash, now)
    }

    /// What nearly every packet asks, in one look at the session that [`guess`](Self::guess) said: the way of a flow of UDP
    /// in which this packet changes nothing, found under `current`. The session is refreshed. None: nothing is done, and
    /// the answer is what [`lookup4`](Self::lookup4), [`observe`](Self::observe) and [`way`](Self::way) say.
    #[inline(always)]
    pub fn carry_on4(&mut self, key: Key4, guess: FlowRef, current: Generation, now: Nanos) -> Option<u32> {
        let line = self.sessions.known_line_mut(guess)?;
        let same = line.is4(guess.direction(), key);
        same.then(|| line.carry_on(guess.direction(), current, now, self.least)).flatten()
    }

    /// The same for a key of IPv6 in words.
    #[inline(always)]
    pub fn carry_on6(&mut self, key: &Key6, guess: FlowRef, current: Generation, now: Nanos) -> Option<u32> {
        let (least, (line, rest)) = (self.least, self.sessions.known_mut(guess)?);
        let same = line.is6(rest, guess.direction(), key);
        same.then(|| line.carry_on(guess.direction(), current, now, least)).flatten()
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
    pub fn observe(&mut self, flow: FlowRef, segment: Segment, now: Nanos) -> Observed {
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
            Step::OutOfWindow if self.tracking.liberal && state.bears(&segment) => {
                line.used = now;
                Observed::Ok
            }
            Step::OutOfWindow => Observed::OutOfWindow,
            Step::WrongTag => Observed::WrongTag,
            Step::Stale => {
                self.enter(flow.session(), state, State::Tcp(TcpState::Closed));
                Observed::OutOfWindow
            }
            Step::Reopen => {
                self.enter(flow.session(), state, state.over());
                Observed::Reopen
            }
        }
    }

    /// May a packet without a session open one, and in which state?
    pub fn admit(&self, proto: Proto, segment: Segment) -> Admit {
        State::open(proto, segment, self.tracking.midstream)
    }

    /// Removes a session by either of its flows; false if it is gone already.
    pub fn remove(&mut self, flow: FlowRef) -> bool {
        if self.state(flow).is_none() {
            return false;
        }
        self.tell(flow.session(), FlowEvent::Ended);
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

    #[inline]
    fn find(&self, key: &FlowKey, hash: u64) -> Option<FlowRef> {
        match Key4::of(key) {
            Some(key) => self.index.find(hash, |flow| self.sessions.is4(flow, key)),
            None => self.index.find(hash, |flow| self.key(flow) == *key),
        }
    }
}
