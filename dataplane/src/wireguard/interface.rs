//! The control side of one interface: its peers, their handshakes and timers.
//!
//! It gets the messages of handshakes, is told of packets that workers sealed and opened, and is polled at its next
//! deadline. What comes of it are [`Event`]s: messages to send, sessions for the workers.

use super::cookie::Macs;
use super::crypto::{KeyPair, PublicKey, Random};
use super::load::Load;
use super::noise::{Claimed, Initiated, PeerKeys};
use super::peer::{Peer, PeerSettings};
use super::session::{REKEY_AFTER_MESSAGES, Session};
use super::timers::{Due, JITTER, REKEY_AFTER_TIME};
use crate::net::Nanos;
use crate::wire::Malformed;
use crate::wire::wireguard::{Initiation, Message, Response};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time within which a second initiation of a peer is not looked at.
const INITIATION_INTERVAL: Nanos = Nanos::from_millis(20);

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Never goes back.
    pub now: Nanos,
    /// Since 1970: what peers compare initiations by.
    pub unix: Duration,
}

/// What is to be done.
#[derive(Debug)]
pub enum Event {
    /// Send a datagram.
    Send {
        /// Where to.
        to: SocketAddr,
        /// What.
        message: Vec<u8>,
    },
    /// Packets of this session may come from now on.
    Receive(PublicKey, Arc<Session>),
    /// Packets for the peer go out under this session from now on.
    Transmit(PublicKey, Arc<Session>),
    /// Send an empty packet under this session.
    Keepalive(PublicKey, Arc<Session>),
    /// This session is over: drop it.
    End(PublicKey, Arc<Session>),
    /// The peer does not answer: drop what waits for a session.
    Unreachable(PublicKey),
}

/// Why a message was not heeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a message.
    #[error("not a WireGuard message: {0}")]
    Malformed(#[from] Malformed),
    /// A packet, which is a worker's to open.
    #[error("not a message of a handshake")]
    Transport,
    /// The first code is wrong: whoever sent it does not know our public key.
    #[error("the sender does not know our public key")]
    NotForUs,
    /// There is load, and the sender was given a cookie.
    #[error("under load: the sender was asked to prove its address")]
    Busy,
    /// The address is proven, and begins too many.
    #[error("too many handshakes from one address")]
    Limited,
    /// Wrong keys.
    #[error("the sender does not have the keys that it should")]
    Forged,
    /// From somebody whom we do not know.
    #[error("the sender is no peer of ours")]
    Stranger,
    /// As old as one that we have seen, or older.
    #[error("an initiation that is not newer than the last")]
    Replayed,
    /// Too soon.
    #[error("a second initiation at once")]
    Flood,
    /// It answers nothing that is under way.
    #[error("an answer to nothing that we sent")]
    Unexpected,
}

/// Why a peer cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Our own key.
    #[error("peer {0:?} has this interface's own public key; give the other node's")]
    Ourselves(PublicKey),
    /// No secret can be agreed upon with it.
    #[error(
        "public key {0:?} is not one that a private key belongs to; give the key that `wg pubkey` prints"
    )]
    Weak(PublicKey),
}

/// An interface.
pub struct Interface {
    ours: KeyPair,
    macs: Macs,
    load: Load,
    peers: BTreeMap<PublicKey, Peer>,
    /// Our names for sessions and handshakes, and whose they are.
    names: HashMap<u32, PublicKey>,
    events: VecDeque<Event>,
}

impl Interface {
    /// Without peers.
    pub fn new(ours: KeyPair) -> Self {
        Self {
            macs: Macs::new(&ours.public()),
            ours,
            load: Load::default(),
            peers: BTreeMap::new(),
            names: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    /// By which peers know us.
    pub const fn public(&self) -> PublicKey {
        self.ours.public()
    }

    /// Adds a peer, or changes one: then its sessions end if its pre-shared key is another.
    pub fn set_peer(&mut self, settings: &PeerSettings, now: Nanos) -> Result<(), PeerError> {
        let public = settings.public;
        if public == self.public() {
            return Err(PeerError::Ourselves(public));
        }
        let keys = PeerKeys::new(&self.ours, public, settings.preshared.clone());
        let keys = keys.ok_or(PeerError::Weak(public))?;
        match self.peers.get_mut(&public) {
            Some(peer) if *peer.keys.preshared == *settings.preshared => {
                peer.endpoint = settings.endpoint.or(peer.endpoint);
                peer.timers.set_interval(settings.keepalive, now);
            }
            _ => {
                let newest = self.peers.get(&public).map(|peer| peer.newest);
                self.remove_peer(public);
                let mut peer = Peer::new(keys, settings, now);
                // What was sent to us before must not count again.
                peer.newest = newest.unwrap_or_default();
                self.peers.insert(public, peer);
            }
        }
        Ok(())
    }

    /// Forgets a peer.
    pub fn remove_peer(&mut self, public: PublicKey) {
        self.wipe(public);
        self.peers.remove(&public);
    }

    /// Ends a peer's sessions. The next packet begins another.
    pub fn restart(&mut self, public: PublicKey) {
        self.wipe(public);
    }

    /// Where a peer was heard last, or is said to be.
    pub fn endpoint(&self, public: PublicKey) -> Option<SocketAddr> {
        self.peers.get(&public)?.endpoint
    }

    /// The session under which packets for a peer go out, if there is one that may carry them.
    pub fn current(&self, public: PublicKey, now: Nanos) -> Option<&Arc<Session>> {
        self.peers.get(&public)?.sessions.current(now)
    }

    /// A session by our name for it.
    pub fn session(&self, local: u32) -> Option<&Arc<Session>> {
        self.peers.get(self.names.get(&local)?)?.sessions.get(local)
    }

    /// What is to be done, in order.
    pub fn events(&mut self) -> impl Iterator<Item = Event> {
        self.events.drain(..)
    }

    /// When to call [`Self::poll`] next.
    pub fn next(&self) -> Option<Nanos> {
        self.peers.values().filter_map(|peer| peer.timers.next()).min()
    }

    /// Does what is due.
    pub fn poll(&mut self, moment: Moment, random: &mut impl Random) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for public in peers {
            while let Some(due) = self.peers.get_mut(&public).and_then(|peer| peer.timers.due(moment.now)) {
                match due {
                    Due::Retry => self.initiate(public, true, moment, random),
                    Due::Silence => self.initiate(public, false, moment, random),
                    Due::Keepalive => self.keepalive(public, moment, random),
                    Due::GiveUp => self.events.push_back(Event::Unreachable(public)),
                    Due::Wipe => self.wipe(public),
                }
            }
        }
    }

    /// A packet waits, and there is no session for it.
    pub fn want_session(&mut self, public: PublicKey, moment: Moment, random: &mut impl Random) {
        if self.current(public, moment.now).is_none() {
            self.initiate(public, false, moment, random);
        }
    }

    /// Packets for a peer went out: `data` unless all were empty.
    pub fn sent(&mut self, public: PublicKey, data: bool, moment: Moment, random: &mut impl Random) {
        let jitter = jitter(random);
        let Some(peer) = self.peers.get_mut(&public) else { return };
        if data {
            peer.timers.sent_data(moment.now, jitter);
        } else {
            peer.timers.sent(moment.now);
        }
        let old = peer.sessions.current(moment.now).is_some_and(|session| {
            let aged = session.initiator() && session.age(moment.now) >= REKEY_AFTER_TIME;
            aged || session.sent() > REKEY_AFTER_MESSAGES
        });
        if old {
            self.initiate(public, false, moment, random);
        }
    }

    /// Genuine packets of a session came, the last from there: `data` unless all were empty.
    pub fn received(
        &mut self,
        local: u32,
        from: SocketAddr,
        data: bool,
        moment: Moment,
        random: &mut impl Random,
    ) {
        let Some(public) = self.names.get(&local).copied() else { return };
        let Some(peer) = self.peers.get_mut(&public) else { return };
        peer.endpoint = Some(from);
        if data {
            peer.timers.received_data(moment.now);
        } else {
            peer.timers.received(moment.now);
        }
        if let Some(ended) = peer.sessions.confirm(local) {
            peer.timers.complete();
            if let Some(session) = peer.sessions.get(local) {
                self.events.push_back(Event::Transmit(public, session.clone()));
            }
            self.end(public, ended);
        }
        let Some(peer) = self.peers.get_mut(&public) else { return };
        let current = peer.sessions.current(moment.now).filter(|session| session.initiator());
        if current.map(|session| session.age(moment.now)).is_some_and(|age| peer.timers.renew(age)) {
            self.initiate(public, false, moment, random);
        }
    }

    /// A message of a handshake came.
    pub fn receive(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        moment: Moment,
        random: &mut impl Random,
    ) -> Result<(), Refused> {
        match Message::parse(datagram)? {
            Message::Initiation(message) => {
                self.admit(datagram, message.sender, from, moment.now, random)?;
                self.answer(&message, from, moment, random)
            }
            Message::Response(message) => {
                self.admit(datagram, message.sender, from, moment.now, random)?;
                self.finish(&message, from, moment, random)
            }
            Message::CookieReply(message) => {
                let public = self.names.get(&message.receiver).ok_or(Refused::Unexpected)?;
                let peer = self.peers.get_mut(public).ok_or(Refused::Unexpected)?;
                if peer.signer.accept(&message, moment.now) { Ok(()) } else { Err(Refused::Forged) }
            }
            Message::Transport(_) => Err(Refused::Transport),
        }
    }

    /// Lets a message through whose codes are right: the first, and under load the second.
    fn admit(
        &mut self,
        datagram: &[u8],
        sender: u32,
        from: SocketAddr,
        now: Nanos,
        random: &mut impl Random,
    ) -> Result<(), Refused> {
        if !self.macs.is_for_us(datagram) {
            return Err(Refused::NotForUs);
        }
        if !self.load.count(now) {
            return Ok(());
        }
        if !self.macs.has_cookie(datagram, from, now, random) {
            let reply = self.macs.reply(datagram, sender, from, now, random);
            self.events.push_back(Event::Send { to: from, message: reply.emit().to_vec() });
            return Err(Refused::Busy);
        }
        if self.load.allows(from.ip(), now) { Ok(()) } else { Err(Refused::Limited) }
    }

    /// Answers an initiation.
    fn answer(
        &mut self,
        message: &Initiation,
        from: SocketAddr,
        moment: Moment,
        random: &mut impl Random,
    ) -> Result<(), Refused> {
        let now = moment.now;
        let claimed = Claimed::read(&self.ours, message).ok_or(Refused::Forged)?;
        let public = claimed.from;
        let local = self.name(random);
        let peer = self.peers.get_mut(&public).ok_or(Refused::Stranger)?;
        let (proven, timestamp) = claimed.proven(&peer.keys).ok_or(Refused::Forged)?;
        if timestamp <= peer.newest {
            return Err(Refused::Replayed);
        }
        if peer.consumed.is_some_and(|at| now.since(at) < INITIATION_INTERVAL) {
            return Err(Refused::Flood);
        }
        let (response, keys) = proven.respond(&peer.keys, local, random).ok_or(Refused::Forged)?;
        (peer.newest, peer.consumed, peer.endpoint) = (timestamp, Some(now), Some(from));
        let mut response = response.emit();
        peer.signer.sign(&mut response, now);
        peer.timers.received(now);
        peer.timers.derived(now);
        peer.timers.responded(now);
        let session = Arc::new(Session::new(local, message.sender, false, &keys, now));
        let ended = peer.sessions.answer(session.clone());
        self.names.insert(local, public);
        self.events.push_back(Event::Receive(public, session));
        self.events.push_back(Event::Send { to: from, message: response.to_vec() });
        self.end(public, ended);
        Ok(())
    }

    /// Takes the response to our initiation.
    fn finish(
        &mut self,
        message: &Response,
        from: SocketAddr,
        moment: Moment,
        random: &mut impl Random,
    ) -> Result<(), Refused> {
        let now = moment.now;
        let public = *self.names.get(&message.receiver).ok_or(Refused::Unexpected)?;
        let peer = self.peers.get_mut(&public).ok_or(Refused::Unexpected)?;
        let initiated = peer.initiated.as_ref().filter(|(local, _)| *local == message.receiver);
        let (local, initiated) = initiated.ok_or(Refused::Unexpected)?;
        let keys = initiated.finish(&self.ours, &peer.keys, message).ok_or(Refused::Forged)?;
        let session = Arc::new(Session::new(*local, message.sender, true, &keys, now));
        peer.initiated = None;
        peer.endpoint = Some(from);
        peer.timers.received(now);
        peer.timers.derived(now);
        peer.timers.complete();
        let ended = peer.sessions.begin(session.clone());
        self.events.push_back(Event::Receive(public, session.clone()));
        self.events.push_back(Event::Transmit(public, session));
        self.end(public, ended);
        // Until it hears from us, the peer does not know that we have the keys.
        self.keepalive(public, moment, random);
        Ok(())
    }

    /// Sends an initiation, unless one was sent just now.
    fn initiate(&mut self, public: PublicKey, again: bool, moment: Moment, random: &mut impl Random) {
        let (local, jitter) = (self.name(random), jitter(random));
        let Some(peer) = self.peers.get_mut(&public) else { return };
        let Some(to) = peer.endpoint.filter(|_| peer.timers.may_initiate(again, moment.now)) else { return };
        let timestamp = peer.stamp(moment.unix);
        let Some((initiated, message)) = Initiated::new(&self.ours, &peer.keys, local, &timestamp, random)
        else {
            return;
        };
        let mut message = message.emit();
        peer.signer.sign(&mut message, moment.now);
        peer.timers.initiated(moment.now, jitter);
        if let Some((unanswered, _)) = peer.initiated.replace((local, initiated)) {
            self.names.remove(&unanswered);
        }
        self.names.insert(local, public);
        self.events.push_back(Event::Send { to, message: message.to_vec() });
    }

    /// Lets the peer hear from us.
    fn keepalive(&mut self, public: PublicKey, moment: Moment, random: &mut impl Random) {
        match self.current(public, moment.now).cloned() {
            Some(session) => self.events.push_back(Event::Keepalive(public, session)),
            None => self.initiate(public, false, moment, random),
        }
    }

    /// Forgets all keys shared with a peer, and whatever would make new ones.
    fn wipe(&mut self, public: PublicKey) {
        let Some(peer) = self.peers.get_mut(&public) else { return };
        if let Some((local, _)) = peer.initiated.take() {
            self.names.remove(&local);
        }
        peer.timers.wiped();
        let ended = peer.sessions.clear();
        self.end(public, ended);
    }

    fn end(&mut self, public: PublicKey, sessions: impl IntoIterator<Item = Arc<Session>>) {
        for session in sessions {
            self.names.remove(&session.local());
            self.events.push_back(Event::End(public, session));
        }
    }

    /// A name that nothing of ours has.
    fn name(&self, random: &mut impl Random) -> u32 {
        loop {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            let name = u32::from_le_bytes(bytes);
            if !self.names.contains_key(&name) {
                return name;
            }
        }
    }
}

fn jitter(random: &mut impl Random) -> Nanos {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    Nanos(u64::from_le_bytes(bytes) % JITTER.0)
}
