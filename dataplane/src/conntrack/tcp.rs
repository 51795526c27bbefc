//! TCP: the flags of both directions against the states of RFC 9293 §3.3.2.
//!
//! Judged from between the ends, so a state here is what both ends may have reached, and
//! segments that cross or are sent again must pass. Sequence numbers and windows are not looked at.

use super::flow::Direction;
use super::state::Step;

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
    /// Simultaneous open, and one end has acknowledged the other's SYN.
    SynCrossedAcked,
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
    /// Both have sent their FIN and an ACK followed.
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

    /// The state after a segment.
    #[inline]
    pub fn step(self, direction: Direction, flags: TcpFlags) -> Step<Self> {
        use Direction::{Original, Reply};
        let Some(kind) = Kind::of(flags) else { return Step::Invalid };
        Step::Next(match (self, kind, direction) {
            (Self::Established, Kind::Ack, _) => self,
            (_, Kind::Rst, _) => Self::Closed,

            (Self::SynSent, Kind::Syn, Original) => self,
            (Self::SynSent, Kind::Syn, Reply) => Self::SynCrossed,
            (Self::SynSent, Kind::SynAck, Reply) => Self::SynRecv,
            // The peer still has the connection that the opener has lost, and says so; the
            // opener will reset it (RFC 9293 §3.5.1).
            (Self::SynSent, Kind::Ack, Reply) => self,

            (Self::SynCrossed | Self::SynCrossedAcked, Kind::Syn, _) => self,
            (Self::SynCrossed, Kind::SynAck, _) => Self::SynCrossedAcked,
            (Self::SynCrossedAcked, Kind::SynAck | Kind::Ack, _) => Self::Established,
            (Self::SynCrossedAcked, Kind::Fin, sender) => Self::FinWait(sender),

            (Self::SynRecv, Kind::Syn, Original) => self,
            // Data may follow the SYN at once (RFC 7413).
            (Self::SynRecv, Kind::SynAck | Kind::Ack, Reply) => self,
            (Self::SynRecv, Kind::Ack, Original) => Self::Established,
            (Self::SynRecv, Kind::Fin, sender) => Self::FinWait(sender),

            (Self::PickedUp, Kind::Ack | Kind::Fin, Original) => self,
            (Self::PickedUp, Kind::Ack, Reply) => Self::Established,
            (Self::PickedUp, Kind::Fin, Reply) => Self::FinWait(Reply),

            // A SYN into a live connection: the peer answers with a challenge ACK if it has it
            // (RFC 5961 §4). A SYN-ACK: the ACK to it was lost.
            (Self::Established | Self::FinWait(_), Kind::Syn, Original) => self,
            (Self::Established | Self::FinWait(_), Kind::SynAck, Reply) => self,
            (Self::Established, Kind::Fin, sender) => Self::FinWait(sender),

            (Self::FinWait(_), Kind::Ack, _) => self,
            (Self::FinWait(first), Kind::Fin, sender) if sender == first => self,
            (Self::FinWait(_), Kind::Fin, _) => Self::Closing,
            (Self::Closing, Kind::Fin, _) => self,
            (Self::Closing, Kind::Ack, _) => Self::TimeWait,
            (Self::TimeWait | Self::Closed, Kind::Ack | Kind::Fin, _) => self,

            (Self::PickedUp | Self::Closing | Self::TimeWait | Self::Closed, Kind::Syn, _) => {
                return Step::Reopen;
            }
            _ => return Step::Invalid,
        })
    }

    /// The handshake is not complete, or not seen.
    pub const fn is_half_open(self) -> bool {
        matches!(
            self,
            Self::SynSent | Self::SynCrossed | Self::SynCrossedAcked | Self::SynRecv | Self::PickedUp
        )
    }

    /// Nothing but the last packets sent again is to be expected.
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Closing | Self::TimeWait | Self::Closed)
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

#[cfg(test)]
mod tests {
    use super::Direction::{Original as O, Reply as R};
    use super::TcpState::*;
    use super::*;

    const SYN: TcpFlags = TcpFlags::SYN;
    const RST: TcpFlags = TcpFlags::RST;
    const ACK: TcpFlags = TcpFlags::ACK;
    const SYN_ACK: TcpFlags = TcpFlags(0x12);
    const FIN_ACK: TcpFlags = TcpFlags(0x11);
    const DATA: TcpFlags = TcpFlags(0x18);

    /// Each segment with the state it must lead to.
    fn plays(mut state: TcpState, script: &[(Direction, TcpFlags, TcpState)]) {
        for (i, &(direction, flags, want)) in script.iter().enumerate() {
            assert_eq!(state.step(direction, flags), Step::Next(want), "segment {i} in {state:?}");
            state = want;
        }
    }

    #[test]
    fn open_talk_close() {
        assert_eq!(TcpState::open(SYN, false), Some(SynSent));
        plays(
            SynSent,
            &[
                (O, SYN, SynSent),
                (R, SYN_ACK, SynRecv),
                (R, SYN_ACK, SynRecv),
                (O, ACK, Established),
                (R, SYN_ACK, Established),
                (O, DATA, Established),
                (R, DATA, Established),
                (O, FIN_ACK, FinWait(O)),
                (R, DATA, FinWait(O)),
                (O, FIN_ACK, FinWait(O)),
                (R, FIN_ACK, Closing),
                (O, ACK, TimeWait),
                (R, FIN_ACK, TimeWait),
                (O, ACK, TimeWait),
            ],
        );
    }

    #[test]
    fn simultaneous_open_and_close() {
        plays(
            SynSent,
            &[
                (R, SYN, SynCrossed),
                (O, SYN, SynCrossed),
                (R, SYN_ACK, SynCrossedAcked),
                (O, SYN_ACK, Established),
                (O, FIN_ACK, FinWait(O)),
                (R, FIN_ACK, Closing),
                (O, ACK, TimeWait),
                (R, ACK, TimeWait),
            ],
        );
    }

    #[test]
    fn the_handshake_may_end_in_data_or_fin() {
        plays(SynRecv, &[(R, DATA, SynRecv), (O, DATA, Established)]);
        plays(SynRecv, &[(O, FIN_ACK, FinWait(O)), (R, FIN_ACK, Closing)]);
    }

    #[test]
    fn a_reset_closes_from_either_end_in_every_state() {
        for state in ALL {
            for direction in Direction::BOTH {
                assert_eq!(state.step(direction, RST), Step::Next(Closed), "{state:?}");
                assert_eq!(state.step(direction, RST | ACK), Step::Next(Closed), "{state:?}");
            }
        }
        plays(Closed, &[(O, ACK, Closed), (R, FIN_ACK, Closed)]);
    }

    #[test]
    fn a_syn_reopens_what_is_over_and_nothing_else() {
        for state in ALL {
            for direction in Direction::BOTH {
                let reopens = state.is_closed() || state == PickedUp;
                assert_eq!(state.step(direction, SYN) == Step::Reopen, reopens, "{state:?} {direction:?}");
            }
        }
    }

    #[test]
    fn a_lost_opener_may_reset_the_peers_old_connection() {
        plays(SynSent, &[(R, ACK, SynSent), (O, RST, Closed)]);
        assert_eq!(Closed.step(O, SYN), Step::Reopen);
    }

    #[test]
    fn impossible_segments_are_invalid() {
        for (state, direction, flags) in [
            (SynSent, O, ACK),
            (SynSent, O, SYN_ACK),
            (SynSent, R, FIN_ACK),
            (SynCrossed, O, ACK),
            (SynRecv, R, SYN),
            (SynRecv, O, SYN_ACK),
            (Established, R, SYN),
            (Established, O, SYN_ACK),
            (PickedUp, R, SYN_ACK),
            (TimeWait, R, SYN_ACK),
        ] {
            assert_eq!(state.step(direction, flags), Step::Invalid, "{state:?} {direction:?} {flags:?}");
        }
    }

    #[test]
    fn impossible_flags_are_invalid_in_every_state() {
        let (fin, psh) = (TcpFlags::FIN, TcpFlags::PSH);
        for flags in [TcpFlags(0), psh, fin, SYN | fin, SYN | RST, SYN_ACK | fin, RST | fin, TcpFlags(0xff)] {
            assert_eq!(TcpState::open(flags, true), None, "{flags:?}");
            for state in ALL {
                for direction in Direction::BOTH {
                    assert_eq!(state.step(direction, flags), Step::Invalid, "{state:?} {flags:?}");
                }
            }
        }
    }

    #[test]
    fn ecn_and_urgent_do_not_matter() {
        assert_eq!(TcpState::open(SYN | TcpFlags::ECE | TcpFlags::CWR, false), Some(SynSent));
        assert_eq!(Established.step(O, DATA | TcpFlags::URG | TcpFlags::ECE), Step::Next(Established));
    }

    #[test]
    fn midstream_is_a_choice_and_resets_and_answers_open_nothing() {
        for flags in [ACK, DATA, FIN_ACK] {
            assert_eq!(TcpState::open(flags, true), Some(PickedUp));
            assert_eq!(TcpState::open(flags, false), None);
        }
        for flags in [RST, RST | ACK, SYN_ACK] {
            assert_eq!(TcpState::open(flags, true), None);
        }
        plays(PickedUp, &[(O, DATA, PickedUp), (O, FIN_ACK, PickedUp), (R, ACK, Established)]);
        plays(PickedUp, &[(R, FIN_ACK, FinWait(R)), (O, FIN_ACK, Closing)]);
    }

    const ALL: [TcpState; 11] = [
        SynSent,
        SynCrossed,
        SynCrossedAcked,
        SynRecv,
        PickedUp,
        Established,
        FinWait(O),
        FinWait(R),
        Closing,
        TimeWait,
        Closed,
    ];
}
