//! TCP: the flags of both directions against the states of RFC 9293 §3.3.2, and their numbers
//! against the windows of both ends; see [`window`](TcpTrack).
//!
//! Judged from between the ends, so a state here is what both ends may have reached, and
//! segments that cross or are sent again must pass. What would only be ignored by its receiver is
//! dropped; what the receiver has to answer, to tell a true sender from a forger, passes and
//! moves nothing.

mod window;

#[cfg(test)]
mod tests;

pub use window::TcpTrack;

use super::flow::Direction;
use super::state::Step;
use window::Reset;

/// What the tracker looks at in a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSegment {
    /// Sequence number of the first byte, or of SYN or FIN.
    pub seq: u32,
    /// Acknowledgment number, of meaning with [`TcpFlags::ACK`].
    pub ack: u32,
    /// Bytes behind the header.
    pub payload: u32,
    /// As it stands in the header.
    pub window: u16,
    /// Flags.
    pub flags: TcpFlags,
    /// A SYN's offer to scale windows (RFC 7323 §2.2).
    pub scale: Option<u8>,
}

impl TcpSegment {
    /// The number behind the last byte. SYN and FIN count as one each (RFC 9293 §3.4).
    #[inline]
    pub const fn end(&self) -> u32 {
        let TcpFlags(flags) = self.flags;
        let extra = (flags & TcpFlags::FIN.0) + (flags >> 1 & 1);
        self.seq.wrapping_add(self.payload).wrapping_add(extra as u32)
    }
}

/// The flags byte of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push; of no meaning here.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent field is significant; of no meaning here.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168); of no meaning here.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168); of no meaning here.
    pub const CWR: Self = Self(0x80);

    /// All flags of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// The opener's SYN was seen.
    SynSent,
    /// A SYN from each end: simultaneous open (RFC 9293 §3.5).
    SynCrossed,
    /// The SYN was answered with SYN and ACK.
    SynRecv,
    /// First seen in mid-stream, and only in the original direction so far.
    PickedUp,
    /// Both ends are synchronised.
    Established,
    /// This direction has sent its FIN, the other has not.
    FinWait(Direction),
    /// Both have sent their FIN.
    Closing,
    /// Both have sent their FIN, and acknowledged the other's.
    TimeWait,
    /// Reset.
    Closed,
}

impl TcpState {
    /// The state that a packet without a session opens; `None` if it may open none.
    pub fn open(flags: TcpFlags, midstream: bool) -> Option<Self> {
        match Kind::of(flags)? {
            Kind::Syn => Some(Self::SynSent),
            Kind::Ack | Kind::Fin if midstream => Some(Self::PickedUp),
            _ => None,
        }
    }

    /// The state after a segment. `track` moves with it, and stays if it does not belong.
    #[inline]
    pub fn step(self, track: &mut TcpTrack, sender: Direction, segment: &TcpSegment) -> Step<Self> {
        match Kind::of(segment.flags) {
            Some(Kind::Ack) if self == Self::Established => {
                if !track.admits(sender, segment) {
                    return Step::OutOfWindow;
                }
                track.take(sender, segment);
                Step::Next(self)
            }
            Some(Kind::Ack | Kind::Fin) => self.data(track, sender, segment),
            Some(Kind::Syn) => self.syn(track, sender, segment),
            Some(Kind::SynAck) => self.syn_ack(track, sender, segment),
            Some(Kind::Rst) => self.rst(track, sender, segment),
            None => Step::Invalid,
        }
    }

    fn data(self, track: &mut TcpTrack, sender: Direction, segment: &TcpSegment) -> Step<Self> {
        use Direction::{Original, Reply};
        let finishes = segment.flags.contains(TcpFlags::FIN);
        let mut moved = *track;
        match (self, sender) {
            // The peer still has the connection that the opener has lost, and says so; the
            // opener will reset it (RFC 9293 §3.5.1).
            (Self::SynSent, Reply) if !finishes => return Step::Next(self),
            (Self::SynSent, _) => return Step::Invalid,
            (Self::Closed, _) if !track.is_answered() => return Step::Invalid,
            (Self::SynRecv, Original) if !track.is_answered() => match track.settled(segment.ack) {
                Some(settled) => moved = settled,
                None => return Step::OutOfWindow,
            },
            // Whatever it is: the opener knows whether it has taken this answer.
            (Self::SynRecv, Reply) if !track.is_answered() => return Step::Next(self),
            (Self::SynRecv | Self::SynCrossed, _) if !track.acks_syn(sender, segment.ack) => {
                return Step::OutOfWindow;
            }
            _ => {}
        }
        if !moved.admits(sender, segment) {
            return Step::OutOfWindow;
        }
        moved.take(sender, segment);
        *track = moved;
        Step::Next(match (self, sender) {
            (Self::PickedUp, Original) | (Self::TimeWait | Self::Closed, _) => self,
            _ => track.phase().unwrap_or(self),
        })
    }

    fn syn(self, track: &mut TcpTrack, sender: Direction, segment: &TcpSegment) -> Step<Self> {
        use Direction::{Original, Reply};
        match (self, sender) {
            (Self::SynSent, Original) => {
                track.open_again(segment);
                Step::Next(self)
            }
            (Self::SynSent, Reply) => {
                track.answer(segment);
                Step::Next(Self::SynCrossed)
            }
            (Self::Closed, _) => Step::Reopen,
            (Self::Closing | Self::TimeWait, _) if track.is_beyond(sender, segment.seq) => Step::Reopen,
            _ if track.challenge(sender, segment) => Step::Next(self),
            _ => Step::OutOfWindow,
        }
    }

    fn syn_ack(self, track: &mut TcpTrack, sender: Direction, segment: &TcpSegment) -> Step<Self> {
        use Direction::{Original, Reply};
        match (self, sender) {
            (Self::SynSent, Reply) if track.acks_syn(sender, segment.ack) => {
                track.answer(segment);
                Step::Next(Self::SynRecv)
            }
            (Self::SynSent, Reply) => Step::OutOfWindow,
            (Self::SynSent | Self::SynRecv, Original) | (Self::Closed, _) => Step::Invalid,
            (Self::SynRecv, Reply) if track.answers_opening(segment) => {
                if !track.is_same_answer(segment) {
                    track.doubt_answer(segment);
                }
                Step::Next(self)
            }
            (Self::SynCrossed, _) if track.acks_syn(sender, segment.ack) && track.admits(sender, segment) => {
                track.take(sender, segment);
                Step::Next(track.phase().unwrap_or(self))
            }
            // Sent again: the ACK to it was lost.
            _ if track.is_answered() && track.admits(sender, segment) => Step::Next(self),
            _ if track.is_forgotten(sender, segment) => Step::Stale,
            _ => Step::OutOfWindow,
        }
    }

    fn rst(self, track: &TcpTrack, sender: Direction, segment: &TcpSegment) -> Step<Self> {
        use Direction::{Original, Reply};
        let closes = match (self, sender) {
            // What the peer has answered to the opener, and it refuses, was not the SYN's answer.
            (Self::SynSent, Original) => segment.seq == track.end(sender),
            (Self::SynSent, Reply) if !track.refuses_opening(segment) => return Step::OutOfWindow,
            (Self::SynSent, Reply) => true,
            _ => match track.reset(sender, segment) {
                Reset::Exact => true,
                Reset::Within => false,
                Reset::Outside => return Step::OutOfWindow,
            },
        };
        Step::Next(if closes { Self::Closed } else { self })
    }

    /// The handshake is not complete, or not seen.
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynCrossed | Self::SynRecv | Self::PickedUp)
    }

    /// Nothing but the last packets sent again is to be expected.
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::TimeWait | Self::Closed)
    }
}

/// The segments that the state machine tells apart.
#[derive(Clone, Copy)]
enum Kind {
    Syn,
    SynAck,
    Ack,
    Fin,
    Rst,
}

impl Kind {
    /// `None` for combinations that no end sends: after the SYN every segment but a reset has
    /// ACK set (RFC 9293 §3.10.7.4), and SYN, FIN and RST exclude each other.
    #[inline]
    fn of(flags: TcpFlags) -> Option<Self> {
        const FIN: u8 = TcpFlags::FIN.0;
        const SYN: u8 = TcpFlags::SYN.0;
        const RST: u8 = TcpFlags::RST.0;
        const ACK: u8 = TcpFlags::ACK.0;
        const SYN_ACK: u8 = SYN | ACK;
        const FIN_ACK: u8 = FIN | ACK;
        const RST_ACK: u8 = RST | ACK;
        Some(match flags.0 & (FIN | SYN | RST | ACK) {
            ACK => Self::Ack,
            SYN => Self::Syn,
            SYN_ACK => Self::SynAck,
            FIN_ACK => Self::Fin,
            RST | RST_ACK => Self::Rst,
            _ => return None,
        })
    }
}
