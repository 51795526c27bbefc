//! One peer's timers (WireGuard's paper, §6).
//!
//! Deadlines only: what happened is told, and what is due is asked for.

use super::session::REJECT_AFTER_TIME;
use crate::net::Nanos;

/// Age of a session at which whoever began it begins another, when it has something to send.
pub const REKEY_AFTER_TIME: Nanos = Nanos::from_secs(120);
/// Time between two initiations to a peer.
pub const REKEY_TIMEOUT: Nanos = Nanos::from_secs(5);
/// Random time more, so that two ends do not begin at once again and again.
pub const JITTER: Nanos = Nanos::from_millis(333);
/// Time after which a packet that was received is answered, by an empty one if need be.
pub const KEEPALIVE_TIMEOUT: Nanos = Nanos::from_secs(10);
/// Initiations without an answer, over ninety seconds, after which it is given up.
const ATTEMPTS: u32 = 18;
/// Time without a new session after which all keys are wiped.
pub const WIPE_AFTER: Nanos = Nanos(3 * REJECT_AFTER_TIME.0);
/// Age of a session at which its initiator renews it when it only receives.
const LAST_MINUTE: Nanos = REJECT_AFTER_TIME.since(KEEPALIVE_TIMEOUT).since(REKEY_TIMEOUT);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send another initiation: the last was not answered.
    Retry,
    /// Drop what waits for a session.
    GiveUp,
    /// Send an empty packet.
    Keepalive,
    /// Begin a session: what we sent was not answered.
    Silence,
    /// Forget all keys.
    Wipe,
}

/// Deadlines.
#[derive(Debug, Default)]
pub struct Timers {
    /// Between persistent keepalives, if there are any.
    interval: Option<Nanos>,
    retry: Option<Nanos>,
    keepalive: Option<Nanos>,
    silence: Option<Nanos>,
    wipe: Option<Nanos>,
    persistent: Option<Nanos>,
    /// More was received while a keepalive was due already.
    another: bool,
    attempts: u32,
    handshake_sent: Option<Nanos>,
    renewed: bool,
}

impl Timers {
    /// With a persistent keepalive, if wanted: then the first is due at once.
    pub fn new(interval: Option<Nanos>, now: Nanos) -> Self {
        let mut timers = Self::default();
        timers.set_interval(interval, now);
        timers
    }

    /// Changes the persistent keepalive. Zero is none.
    pub fn set_interval(&mut self, interval: Option<Nanos>, now: Nanos) {
        let interval = interval.filter(|interval| interval.0 > 0);
        if self.interval != interval {
            (self.interval, self.persistent) = (interval, interval.map(|_| now));
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Nanos> {
        [self.retry, self.keepalive, self.silence, self.wipe, self.persistent].into_iter().flatten().min()
    }

    /// Something whose deadline has come, each once.
    pub fn due(&mut self, now: Nanos) -> Option<Due> {
        let due = |deadline: &mut Option<Nanos>| deadline.take_if(|deadline| *deadline <= now).is_some();
        if due(&mut self.retry) {
            if self.attempts <= ATTEMPTS {
                self.attempts += 1;
                return Some(Due::Retry);
            }
            self.keepalive = None;
            self.wipe = self.wipe.or(Some(now.plus(WIPE_AFTER)));
            return Some(Due::GiveUp);
        }
        if due(&mut self.wipe) {
            return Some(Due::Wipe);
        }
        if due(&mut self.silence) {
            return Some(Due::Silence);
        }
        if due(&mut self.keepalive) {
            if std::mem::take(&mut self.another) {
                self.keepalive = Some(now.plus(KEEPALIVE_TIMEOUT));
            }
            return Some(Due::Keepalive);
        }
        // Armed again by what is sent, and here, should there be nobody to send it to.
        if due(&mut self.persistent) {
            self.persistent = self.interval.map(|interval| now.plus(interval));
            return Some(Due::Keepalive);
        }
        None
    }

    /// Whether an initiation may be sent: the last message of a handshake was long enough ago. If not, it is due when
    /// it may be, unless there is a session before. `again`: it is the same handshake still.
    pub fn may_initiate(&mut self, again: bool, now: Nanos) -> bool {
        if !again {
            self.attempts = 0;
        }
        let next = self.handshake_sent.map(|sent| sent.plus(REKEY_TIMEOUT)).filter(|next| *next > now);
        if let Some(next) = next {
            self.retry.get_or_insert(next);
        }
        next.is_none()
    }

    /// An initiation goes out.
    pub fn initiated(&mut self, now: Nanos, jitter: Nanos) {
        self.responded(now);
        self.retry = Some(now.plus(REKEY_TIMEOUT).plus(jitter));
    }

    /// A response goes out.
    pub fn responded(&mut self, now: Nanos) {
        self.handshake_sent = Some(now);
        self.sent(now);
    }

    /// A packet goes out, empty or not.
    pub fn sent(&mut self, now: Nanos) {
        self.keepalive = None;
        self.traversed(now);
    }

    /// One that is not empty.
    pub fn sent_data(&mut self, now: Nanos, jitter: Nanos) {
        self.sent(now);
        let silence = now.plus(KEEPALIVE_TIMEOUT).plus(REKEY_TIMEOUT).plus(jitter);
        self.silence = self.silence.or(Some(silence));
    }

    /// A genuine message came.
    pub fn received(&mut self, now: Nanos) {
        self.silence = None;
        self.traversed(now);
    }

    /// A packet that is not empty.
    pub fn received_data(&mut self, now: Nanos) {
        self.received(now);
        if self.keepalive.is_some() {
            self.another = true;
        } else {
            self.keepalive = Some(now.plus(KEEPALIVE_TIMEOUT));
        }
    }

    /// There are new keys.
    pub fn derived(&mut self, now: Nanos) {
        self.wipe = Some(now.plus(WIPE_AFTER));
    }

    /// Both ends have them.
    pub fn complete(&mut self) {
        self.retry = None;
        self.attempts = 0;
        self.renewed = false;
    }

    /// Whether the initiator of a session of this age, which only receives, is to renew it: once.
    pub fn renew(&mut self, age: Nanos) -> bool {
        age > LAST_MINUTE && !std::mem::replace(&mut self.renewed, true)
    }

    /// All keys are gone: nothing is to be kept up.
    pub fn wiped(&mut self) {
        (self.keepalive, self.silence, self.another) = (None, None, false);
    }

    fn traversed(&mut self, now: Nanos) {
        self.persistent = self.interval.map(|interval| now.plus(interval));
    }
}
