//! SCTP: the four-way handshake, the tags it agrees on, and the end (RFC 9260 §5, §8.5, §9).
//!
//! Each end draws the tag that packets to it must carry; so whoever does not see the packets of one end cannot
//! forge those of the other, and only a packet with the right tag moves a state. An INIT carries none, and is
//! for the other end to answer: into an association it is let by, and the tags of what may follow are
//! remembered beside those that are in force, until the handshake is complete (§5.2).

#[cfg(test)]
mod tests;

use super::flow::Direction;
use super::state::Step;
use crate::wire::sctp::{Header, chunk};

/// How far an association is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SctpState {
    /// The opener's INIT was seen.
    CookieWait,
    /// The opener has sent back the other end's cookie.
    CookieEchoed,
    /// First seen in mid-stream, or by a HEARTBEAT between other addresses of its ends (§5.4), and only in
    /// the original direction so far.
    PickedUp,
    /// Both ends have agreed.
    Established,
    /// This direction has sent SHUTDOWN.
    ShutdownSent(Direction),
    /// The other end has nothing to send any more, either.
    ShutdownAckSent,
    /// Shut down, or aborted.
    Closed,
}

/// The tags of an association. 0 is none, and not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SctpTrack {
    /// What packets of each direction carry.
    tags: [u32; 2],
    /// The same, once the handshake under way is complete.
    coming: [u32; 2],
    /// What another INIT ACK said before the last one: the opener may have taken either.
    earlier: u32,
}

const fn has(packet: &Header, kind: u8) -> bool {
    packet.chunks >> kind & 1 != 0
}

const fn has_only(packet: &Header, kind: u8) -> bool {
    packet.chunks == 1 << kind
}

/// A tag that is known, and this one.
const fn is(known: u32, tag: u32) -> bool {
    known != 0 && known == tag
}

impl SctpState {
    /// The state that a packet without a session opens; `None` if it may open none. `midstream`:
    /// associations whose handshake was not seen may be picked up. By a HEARTBEAT they always are: that is
    /// how ends with several addresses begin to use another pair of them.
    pub fn open(first: &Header, midstream: bool) -> Option<Self> {
        const ELSEWHERE: u16 = 1 << chunk::INIT
            | 1 << chunk::INIT_ACK
            | 1 << chunk::ABORT
            | 1 << chunk::SHUTDOWN_ACK
            | 1 << chunk::COOKIE_ECHO
            | 1 << chunk::COOKIE_ACK
            | 1 << chunk::SHUTDOWN_COMPLETE;
        if has_only(first, chunk::INIT) && first.tag == 0 && first.initiate != 0 {
            return Some(Self::CookieWait);
        }
        let speaks = first.tag != 0 && first.chunks != 0 && first.chunks & ELSEWHERE == 0;
        (speaks && (midstream || has(first, chunk::HEARTBEAT))).then_some(Self::PickedUp)
    }

    /// The state after a packet. `track` moves with it, and stays if it does not belong.
    pub fn step(self, track: &mut SctpTrack, sender: Direction, packet: &Header) -> Step<Self> {
        if has(packet, chunk::INIT) {
            self.init(track, sender, packet)
        } else if has(packet, chunk::INIT_ACK) {
            self.init_ack(track, sender, packet)
        } else if has(packet, chunk::ABORT) {
            self.abort(track, sender, packet)
        } else if has(packet, chunk::SHUTDOWN_COMPLETE) {
            self.shutdown_complete(track, sender, packet)
        } else if has(packet, chunk::COOKIE_ECHO) {
            self.cookie_echo(track, sender, packet)
        } else if has(packet, chunk::COOKIE_ACK) {
            self.cookie_ack(track, sender, packet)
        } else if packet.chunks == 0 {
            Step::Invalid
        } else {
            self.rest(track, sender, packet)
        }
    }

    fn init(self, track: &mut SctpTrack, sender: Direction, packet: &Header) -> Step<Self> {
        if !has_only(packet, chunk::INIT) || packet.tag != 0 || packet.initiate == 0 {
            return Step::Invalid;
        }
        match (self, sender) {
            (Self::Closed, _) => return Step::Reopen,
            // Both ends open at the same time (§5.2.1).
            (Self::CookieWait | Self::CookieEchoed, Direction::Reply) => {
                if track.coming[Direction::Original as usize] == 0 {
                    track.coming[Direction::Original as usize] = packet.initiate;
                }
            }
            // Sent again.
            _ if track.coming[sender.opposite() as usize] == packet.initiate => {}
            _ => track.begin(sender, packet.initiate),
        }
        Step::Next(self)
    }

    fn init_ack(self, track: &mut SctpTrack, sender: Direction, packet: &Header) -> Step<Self> {
        if !has_only(packet, chunk::INIT_ACK) || packet.initiate == 0 {
            return Step::Invalid;
        }
        if !is(track.coming[sender as usize], packet.tag) {
            return Step::WrongTag;
        }
        let answered = &mut track.coming[sender.opposite() as usize];
        if *answered != packet.initiate {
            track.earlier = std::mem::replace(answered, packet.initiate);
        }
        Step::Next(self)
    }

    fn cookie_echo(self, track: &mut SctpTrack, sender: Direction, packet: &Header) -> Step<Self> {
        let coming = &mut track.coming[sender as usize];
        if is(*coming, packet.tag) || is(track.earlier, packet.tag) {
            *coming = packet.tag;
            return Step::Next(if self == Self::CookieWait { Self::CookieEchoed } else { self });
        }
        // Sent again, the COOKIE ACK being lost.
        if is(track.tags[sender as usize], packet.tag) { Step::Next(self) } else { Step::WrongTag }
    }

    fn cookie_ack(self, track: &mut SctpTrack, sender: Direction, packet: &Header) -> Step<Self> {
        let agreed = track.coming[sender.opposite() as usize] != 0;
        if agreed && is(track.coming[sender as usize], packet.tag) {
            if self == Self::CookieWait {
                return Step::Invalid;
            }
            *track = SctpTrack { tags: track.coming, ..SctpTrack::default() };
            return Step::Next(Self::Established);
        }
        if is(track.tags[sender as usize], packet.tag) { Step::Next(self) } else { Step::WrongTag }
    }

    fn abort(self, track: &SctpTrack, sender: Direction, packet: &Header) -> Step<Self> {
        // Whose tag it carries (§8.5.1 B).
        let of = if packet.reflected { sender.opposite() } else { sender } as usize;
        let unknown = self == Self::PickedUp && track.tags[of] == 0 && packet.tag != 0;
        if is(track.tags[of], packet.tag) || self.is_half_open() && is(track.coming[of], packet.tag) {
            Step::Next(Self::Closed)
        } else if unknown || is(track.coming[of], packet.tag) {
            Step::Next(self)
        } else {
            Step::WrongTag
        }
    }

    fn shutdown_complete(self, track: &SctpTrack, sender: Direction, packet: &Header) -> Step<Self> {
        if !has_only(packet, chunk::SHUTDOWN_COMPLETE) {
            return Step::Invalid;
        }
        let of = if packet.reflected { sender.opposite() } else { sender } as usize;
        match self {
            // The opener answers for an association that it has lost (§8.5.1 C).
            Self::CookieWait | Self::CookieEchoed if packet.reflected => Step::Next(self),
            Self::ShutdownAckSent | Self::Closed if is(track.tags[of], packet.tag) => {
                Step::Next(Self::Closed)
            }
            Self::ShutdownAckSent | Self::Closed => Step::WrongTag,
            _ => Step::Invalid,
        }
    }

    /// Everything that an association says once it is there.
    fn rest(self, track: &mut SctpTrack, sender: Direction, packet: &Header) -> Step<Self> {
        let tag = &mut track.tags[sender as usize];
        let mut state = self;
        if self == Self::PickedUp && *tag == 0 && packet.tag != 0 {
            *tag = packet.tag;
            state = Self::Established;
        }
        let echoed = self == Self::CookieEchoed && is(track.coming[sender as usize], packet.tag);
        if !is(track.tags[sender as usize], packet.tag) && !echoed {
            let lost = matches!(self, Self::CookieWait | Self::CookieEchoed);
            // The other end was about to end an association that the opener has lost (§9.2).
            let ending = has(packet, chunk::SHUTDOWN_ACK) && lost;
            return if ending { Step::Next(self) } else { Step::WrongTag };
        }
        Step::Next(match state {
            Self::Established | Self::ShutdownSent(_) if has(packet, chunk::SHUTDOWN_ACK) => {
                Self::ShutdownAckSent
            }
            Self::Established if has(packet, chunk::SHUTDOWN) => Self::ShutdownSent(sender),
            _ => state,
        })
    }

    /// The handshake is not complete, or not seen.
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::CookieWait | Self::CookieEchoed | Self::PickedUp)
    }

    /// Nothing but the last packets sent again is to be expected.
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl SctpTrack {
    /// Of an association that begins with this packet.
    pub fn open(first: &Header) -> Self {
        let mut track = Self::default();
        if has(first, chunk::INIT) {
            track.begin(Direction::Original, first.initiate);
        } else {
            track.tags[Direction::Original as usize] = first.tag;
        }
        track
    }

    /// A handshake begins, or begins anew.
    fn begin(&mut self, opener: Direction, initiate: u32) {
        self.coming = [0; 2];
        self.coming[opener.opposite() as usize] = initiate;
        self.earlier = 0;
    }

    /// What it is kept as, in the place where a TCP session has its numbers.
    pub(super) const fn words(self) -> [u32; 5] {
        let Self { tags: [a, b], coming: [c, d], earlier } = self;
        [a, b, c, d, earlier]
    }

    pub(super) const fn of_words([a, b, c, d, earlier]: [u32; 5]) -> Self {
        Self { tags: [a, b], coming: [c, d], earlier }
    }
}
