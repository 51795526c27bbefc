//! Sequence numbers and windows: can the ends have sent this segment?
//!
//! Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001). A segment from the
//! sender *s* to the receiver *r*, seen from between them, is one that *s* can have sent if
//!
//! - (I) `seq <= s.acked + r.window`: it begins within what the receiver asked for;
//! - (II) `end >= s.end - r.window - SLACK`: it does not end in what was acknowledged long ago;
//! - (III) `ack <= r.end`: it acknowledges nothing that was not sent;
//! - (IV) `ack >= r.end - s.window - SLACK`: nor what was acknowledged long ago.
//!
//! `end` of a segment is the number behind its last byte, of a half the highest of those; `acked`
//! the highest acknowledgment the other half has sent; `window` the largest it has advertised. The
//! paper's max(ack + window) is kept as the sum of these two maxima, which is never less, so that
//! `acked` is there for resets. In (I) a segment only has to *begin* in the window, and in (II) to
//! end in it, as in Linux: some stacks send one segment more than fits, and a retransmission may
//! begin earlier than what it is needed for.

use super::super::flow::Direction;
use super::{TcpFlags, TcpSegment, TcpState};

/// How far a sender may be past the right edge of its window: a segment, which the receiver need
/// not take and which is sent again. The paper's constant for (IV), and more than a super-frame.
const SLACK: u32 = 66_000;

/// What is asked of a half whose numbers were learned in mid-stream, in place of a window whose
/// scale nobody knows: the largest there can be (RFC 7323 §2.3), a quarter of all numbers.
const LENIENCE: u32 = 1 << 30;

/// The most a window may be scaled (RFC 7323 §2.3).
const MAX_SCALE: u8 = 14;

/// What is remembered of a TCP connection, beside its [`TcpState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpTrack {
    halves: [Half; 2],
    /// The number behind the SYN that opened the connection; with [`Half::FOREIGN`], behind a SYN
    /// that came later and may open another.
    opening: u32,
}

const _: () = assert!(size_of::<TcpTrack>() == 28);

/// What one end has sent, and what the other has said to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Half {
    /// Behind the last byte it has sent.
    end: u32,
    /// The highest acknowledgment that it was sent; before there is one, its first number.
    acked: u32,
    /// The largest window it has advertised, to be shifted by `scale`.
    window: u16,
    scale: u8,
    flags: u8,
}

impl Half {
    /// Its SYN offered to scale its window.
    const SCALES: u8 = 1;
    /// Its SYN was not acknowledged so far.
    const PENDING: u8 = 1 << 1;
    /// It has sent its FIN.
    const FINISHED: u8 = 1 << 2;
    /// Its numbers were learned in mid-stream.
    const LENIENT: u8 = 1 << 3;
    /// Nothing was heard of it, or what was heard is in doubt.
    const UNKNOWN: u8 = 1 << 4;
    /// The opener has sent a SYN that is not the one that opened the connection.
    const FOREIGN: u8 = 1 << 5;

    #[inline]
    const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// How much it may be sent at a time, at most.
    #[inline]
    const fn reach(&self) -> u32 {
        if self.is(Self::LENIENT) { LENIENCE } else { (self.window as u32) << self.scale }
    }

    /// A SYN's window is never scaled.
    fn of_syn(syn: &TcpSegment) -> Self {
        let scale = syn.scale.unwrap_or(0).min(MAX_SCALE);
        Self {
            end: syn.end(),
            acked: syn.seq,
            window: syn.window.div_ceil(1 << scale),
            scale,
            flags: Self::PENDING | if syn.scale.is_some() { Self::SCALES } else { 0 },
        }
    }

    fn unscale(&mut self) {
        self.window = u16::try_from(u32::from(self.window) << self.scale).unwrap_or(u16::MAX);
        self.scale = 0;
    }
}

/// What a reset's sequence number says about it (RFC 5961 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// Exactly what the receiver expects next: it ends the connection.
    Exact,
    /// Somewhere in the window: the receiver answers with a challenge, and a true sender resets again.
    Within,
    /// The receiver would not look at it.
    Outside,
}

impl TcpTrack {
    /// Of a connection that begins with this SYN, or is picked up with any other segment.
    pub fn open(first: &TcpSegment) -> Self {
        if first.flags.contains(TcpFlags::SYN) {
            let unheard = Half { flags: Half::UNKNOWN, ..Half::default() };
            return Self { halves: [Half::of_syn(first), unheard], opening: first.seq.wrapping_add(1) };
        }
        let flags = Half::LENIENT;
        let mut track = Self {
            halves: [
                Half { end: first.end(), acked: first.seq, flags, ..Half::default() },
                Half { end: first.ack, acked: first.ack, flags, ..Half::default() },
            ],
            opening: 0,
        };
        track.take(Direction::Original, first);
        track
    }

    /// The opener's SYN once more: the same one, or that of its next attempt.
    pub(super) fn open_again(&mut self, syn: &TcpSegment) {
        let before = self.halves[0];
        *self = Self::open(syn);
        if syn.seq == before.acked && after(before.end, self.halves[0].end) {
            self.halves[0].end = before.end;
        }
    }

    /// The other end's SYN. Windows are scaled if both have offered it (RFC 7323 §2.2).
    pub(super) fn answer(&mut self, syn: &TcpSegment) {
        self.halves[1] = Half::of_syn(syn);
        if !self.halves.iter().all(|half| half.is(Half::SCALES)) {
            self.halves.iter_mut().for_each(Half::unscale);
        }
        if syn.flags.contains(TcpFlags::ACK) {
            self.halves[0].acked = syn.ack;
            self.halves[0].flags &= !Half::PENDING;
        }
    }

    /// The segment acknowledges the SYN it answers, if that was not done before.
    #[inline]
    pub(super) fn acks_syn(&self, sender: Direction, ack: u32) -> bool {
        let r = &self.halves[sender.opposite() as usize];
        !r.is(Half::PENDING) || after(ack, r.acked) && !after(ack, r.end)
    }

    /// The memory of these numbers, which serves a session of another protocol for what it remembers.
    pub(in super::super) const fn of_words([a, b, c, d, opening]: [u32; 5]) -> Self {
        const NONE: Half = Half { end: 0, acked: 0, window: 0, scale: 0, flags: 0 };
        let halves = [Half { end: a, acked: b, ..NONE }, Half { end: c, acked: d, ..NONE }];
        Self { halves, opening }
    }

    /// What [`of_words`](Self::of_words) was given.
    pub(in super::super) const fn words(&self) -> [u32; 5] {
        let [a, b] = &self.halves;
        [a.end, a.acked, b.end, b.acked, self.opening]
    }

    /// Equations (I) to (IV).
    #[inline]
    pub(super) fn admits(&self, sender: Direction, segment: &TcpSegment) -> bool {
        let [s, r] = self.pair(sender);
        let unseen = if r.is(Half::LENIENT) { LENIENCE } else { 0 };
        // (I)
        !after(segment.seq, s.acked.wrapping_add(r.reach()))
            // (II)
            && !after(s.end.wrapping_sub(r.reach() + SLACK), segment.end())
            // (III)
            && !after(segment.ack, r.end.wrapping_add(unseen))
            // (IV)
            && !after(r.end.wrapping_sub(s.reach() + SLACK), segment.ack)
    }

    /// Moves on by a segment that was admitted.
    #[inline]
    pub(super) fn take(&mut self, sender: Direction, segment: &TcpSegment) {
        let (end, ack) = (segment.end(), segment.ack);
        let s = &mut self.halves[sender as usize];
        s.end = later(s.end, end);
        // A SYN's is not scaled, and was taken with it.
        if !segment.flags.contains(TcpFlags::SYN) {
            s.window = s.window.max(segment.window);
        }
        if segment.flags.contains(TcpFlags::FIN) {
            s.flags |= Half::FINISHED;
        }
        let r = &mut self.halves[sender.opposite() as usize];
        if after(ack, r.acked) {
            r.acked = ack;
            r.flags &= !Half::PENDING;
            // More than (III) lets by in mid-stream only: it was sent before we looked.
            r.end = later(r.end, ack);
        }
    }

    /// How far a connection is whose SYNs are acknowledged; `None` before.
    pub(super) fn phase(&self) -> Option<TcpState> {
        let [original, reply] = &self.halves;
        let done = |half: &Half| half.acked == half.end;
        (!original.is(Half::PENDING) && !reply.is(Half::PENDING)).then(|| {
            match (original.is(Half::FINISHED), reply.is(Half::FINISHED)) {
                (false, false) => TcpState::Established,
                (true, false) => TcpState::FinWait(Direction::Original),
                (false, true) => TcpState::FinWait(Direction::Reply),
                (true, true) if done(original) && done(reply) => TcpState::TimeWait,
                (true, true) => TcpState::Closing,
            }
        })
    }

    /// The other end was heard, and it is certain which numbers it uses.
    pub(super) const fn is_answered(&self) -> bool {
        !self.halves[1].is(Half::UNKNOWN)
    }

    /// What the SYN-ACK that comes after another one is.
    pub(super) fn is_same_answer(&self, syn_ack: &TcpSegment) -> bool {
        self.is_answered() && syn_ack.seq == self.halves[1].acked
    }

    /// Two answers, of two servers or of one with SYN cookies (RFC 4987 §3.6): the opener's ACK
    /// will tell whether it has taken the first of them or the last.
    pub(super) fn doubt_answer(&mut self, syn_ack: &TcpSegment) {
        self.halves[1].end = syn_ack.end();
        self.halves[1].flags |= Half::UNKNOWN;
    }

    /// What follows from the opener's `ack`; `None` if it acknowledges neither.
    pub(super) fn settled(&self, ack: u32) -> Option<Self> {
        let [opener, Half { end, acked, .. }] = self.halves;
        let reply = Half { end: ack, acked: ack, flags: Half::LENIENT, ..self.halves[1] };
        (ack == end || ack == acked.wrapping_add(1)).then_some(Self { halves: [opener, reply], ..*self })
    }

    /// A SYN-ACK for the SYN that opened the connection.
    pub(super) fn answers_opening(&self, syn_ack: &TcpSegment) -> bool {
        let opener = &self.halves[0];
        !opener.is(Half::FOREIGN) && !after(self.opening, syn_ack.ack) && !after(syn_ack.ack, opener.end)
    }

    /// The connection between the same ends may begin anew: its numbers will not be taken for old
    /// ones (RFC 9293 §3.6.1).
    pub(super) fn is_beyond(&self, sender: Direction, seq: u32) -> bool {
        !after(self.halves[sender as usize].end, seq)
    }

    /// Lets a SYN by that may come of the connection or of an opener that has forgotten it, and
    /// notes the latter. The other end answers with a challenge, if it has the connection (RFC
    /// 5961 §4). `false`: it carries data, which an end that has none might take.
    pub(super) fn challenge(&mut self, sender: Direction, syn: &TcpSegment) -> bool {
        let behind = syn.seq.wrapping_add(1);
        let opener = &mut self.halves[0];
        if sender == Direction::Original && !opener.is(Half::FOREIGN) && behind == self.opening {
            return true;
        }
        if syn.payload > 0 {
            return false;
        }
        if sender == Direction::Original {
            opener.flags |= Half::FOREIGN;
            self.opening = behind;
        }
        true
    }

    /// The other end answers the SYN that [`challenge`](Self::challenge) let by as one that does
    /// not have the connection.
    pub(super) fn is_forgotten(&self, sender: Direction, answer: &TcpSegment) -> bool {
        sender == Direction::Reply
            && self.halves[0].is(Half::FOREIGN)
            && answer.flags.contains(TcpFlags::ACK)
            && answer.ack == self.opening
    }

    /// What a reset does (RFC 5961 §3.2). Which number the receiver expects is not known for
    /// certain from between the ends: what it has acknowledged, if not all has arrived, or what
    /// the sender has sent.
    pub(super) fn reset(&self, sender: Direction, rst: &TcpSegment) -> Reset {
        let [s, r] = self.pair(sender);
        if rst.seq == s.acked || rst.seq == s.end || self.is_forgotten(sender, rst) {
            return Reset::Exact;
        }
        let behind = if s.is(Half::LENIENT) { LENIENCE } else { 0 };
        let from = s.acked.wrapping_sub(behind);
        let within = !after(from, rst.seq) && !after(rst.seq, s.acked.wrapping_add(r.reach()));
        if within || s.is(Half::UNKNOWN) { Reset::Within } else { Reset::Outside }
    }

    /// A reset that answers the opener's SYN must acknowledge it (RFC 9293 §3.10.7.3).
    pub(super) fn refuses_opening(&self, rst: &TcpSegment) -> bool {
        rst.flags.contains(TcpFlags::ACK) && self.acks_syn(Direction::Reply, rst.ack)
    }

    /// The number the other end would expect next, had it all that `sender` has sent.
    pub(super) const fn end(&self, sender: Direction) -> u32 {
        self.halves[sender as usize].end
    }

    #[inline]
    const fn pair(&self, sender: Direction) -> [&Half; 2] {
        [&self.halves[sender as usize], &self.halves[sender.opposite() as usize]]
    }
}

/// `a` is later than `b`, in numbers that wrap (RFC 9293 §3.4).
#[inline]
const fn after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).cast_signed() < 0
}

#[inline]
const fn later(a: u32, b: u32) -> u32 {
    if after(a, b) { a } else { b }
}
