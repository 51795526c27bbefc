//! A session's state, whatever its protocol.

use super::flow::Direction;
use super::icmp::IcmpState;
use super::sctp::{SctpState, SctpTrack};
use super::tcp::{TcpFlags, TcpSegment, TcpState, TcpTrack};
use super::udp::Exchange;
use crate::net::{Icmp, Proto};
use crate::wire::sctp;

/// What a packet's transport header says to the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// TCP.
    Tcp(TcpSegment),
    /// ICMP or ICMPv6.
    Icmp(Icmp),
    /// SCTP.
    Sctp(sctp::Header),
    /// UDP and every other protocol.
    Other,
    /// Of any protocol: a fragment without the header, of a packet whose first fragment said it all.
    Later,
}

/// Where a session is in its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// TCP.
    Tcp(TcpState),
    /// UDP and UDP-Lite.
    Udp(Exchange),
    /// ICMP and ICMPv6.
    Icmp(IcmpState),
    /// SCTP.
    Sctp(SctpState),
    /// Every other protocol, known by addresses and protocol and, where it has them, ports.
    Other(Exchange),
}

/// May a packet without a session open one?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Yes, in this state, if policy allows.
    New(State),
    /// No: it cannot be the first packet of anything.
    Invalid,
}

/// What a packet did to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It belongs, and the session was refreshed.
    Ok,
    /// It is impossible in this state. The session is as before; drop the packet.
    Invalid,
    /// Its numbers are none that the ends can have sent now. The session is as before; drop it.
    OutOfWindow,
    /// It carries a tag that its sender was not given. The session is as before; drop it.
    WrongTag,
    /// It opens a new connection between the same ends, the old one being over. Judge it as a
    /// packet without a session; an insert will take the old session's place.
    Reopen,
}

/// What a packet does to the state of its own protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<S> {
    /// The state after it, often the same.
    Next(S),
    /// It is impossible here.
    Invalid,
    /// Its numbers are.
    OutOfWindow,
    /// Its tag is.
    WrongTag,
    /// It shows that the session is over, and belongs to none.
    Stale,
    /// It begins anew what had ended.
    Reopen,
}

impl State {
    /// May a packet of `proto` that says `segment` open a session? `midstream`: connections
    /// whose beginning was not seen may be picked up.
    pub fn open(proto: Proto, segment: Segment, midstream: bool) -> Admit {
        let state = match (proto, segment) {
            (Proto::TCP, Segment::Tcp(first)) => TcpState::open(first.flags, midstream).map(Self::Tcp),
            (Proto::ICMP | Proto::ICMP6, Segment::Icmp(icmp)) => IcmpState::open(proto, icmp).map(Self::Icmp),
            (Proto::UDP | Proto::UDPLITE, Segment::Other) => Some(Self::Udp(Exchange::Unreplied)),
            (Proto::SCTP, Segment::Sctp(ref first)) => SctpState::open(first, midstream).map(Self::Sctp),
            (Proto::TCP | Proto::ICMP | Proto::ICMP6 | Proto::SCTP, _) => None,
            (_, Segment::Other) => Some(Self::Other(Exchange::Unreplied)),
            _ => None,
        };
        state.map_or(Admit::Invalid, Admit::New)
    }

    /// The state after a packet of a session, whose `track` moves along.
    #[inline]
    pub fn step(
        self,
        track: &mut TcpTrack,
        direction: Direction,
        proto: Proto,
        segment: &Segment,
    ) -> Step<Self> {
        match (self, *segment) {
            (_, Segment::Later) => Step::Next(self),
            (Self::Tcp(tcp), Segment::Tcp(ref segment)) => tcp.step(track, direction, segment).map(Self::Tcp),
            (Self::Udp(exchange), Segment::Other) => Step::Next(Self::Udp(exchange.step(direction))),
            (Self::Icmp(icmp), Segment::Icmp(seen)) => icmp.step(direction, proto, seen).map(Self::Icmp),
            (Self::Other(exchange), Segment::Other) => Step::Next(Self::Other(exchange.step(direction))),
            (Self::Sctp(sctp), Segment::Sctp(ref packet)) => {
                let mut tags = SctpTrack::of_words(track.words());
                let step = sctp.step(&mut tags, direction, packet);
                *track = TcpTrack::of_words(tags.words());
                step.map(Self::Sctp)
            }
            _ => Step::Invalid,
        }
    }

    /// Out of its window, the segment passes all the same where that is a setting: it neither ends the
    /// connection nor completes its handshake.
    pub(super) const fn bears(self, segment: &Segment) -> bool {
        match (self, segment) {
            (Self::Tcp(tcp), Segment::Tcp(segment)) => {
                !tcp.is_half_open() && !segment.flags.contains(TcpFlags::RST)
            }
            _ => false,
        }
    }

    /// The state of a session that another one is about to follow.
    pub(super) const fn over(self) -> Self {
        match self {
            Self::Tcp(_) => Self::Tcp(TcpState::Closed),
            Self::Sctp(_) => Self::Sctp(SctpState::Closed),
            other => other,
        }
    }

    /// A full table may give this session up for a new one: only one end has agreed to it, or
    /// it is over.
    pub const fn is_evictable(self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_half_open() || tcp.is_closed(),
            Self::Sctp(sctp) => sctp.is_half_open() || sctp.is_closed(),
            Self::Udp(exchange) | Self::Other(exchange) | Self::Icmp(IcmpState::Echo(exchange)) => {
                matches!(exchange, Exchange::Unreplied)
            }
            Self::Icmp(IcmpState::Message) => true,
        }
    }

    /// A new session with one of its keys may take its place.
    pub const fn is_closed(self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_closed(),
            Self::Sctp(sctp) => sctp.is_closed(),
            _ => false,
        }
    }
}

impl<S> Step<S> {
    #[inline]
    fn map<T>(self, wrap: impl FnOnce(S) -> T) -> Step<T> {
        match self {
            Self::Next(state) => Step::Next(wrap(state)),
            Self::Invalid => Step::Invalid,
            Self::OutOfWindow => Step::OutOfWindow,
            Self::WrongTag => Step::WrongTag,
            Self::Stale => Step::Stale,
            Self::Reopen => Step::Reopen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_of_another_protocol_is_invalid() {
        let tcp = Segment::Tcp(TcpSegment { flags: TcpFlags::SYN, ..TcpSegment::default() });
        let icmp = Segment::Icmp(Icmp { kind: 8, code: 0 });
        for (proto, segment) in [
            (Proto::TCP, Segment::Other),
            (Proto::TCP, icmp),
            (Proto::UDP, tcp),
            (Proto::ICMP, Segment::Other),
            (Proto::ICMP6, tcp),
            (Proto::SCTP, tcp),
            (Proto::SCTP, Segment::Other),
            (Proto::UDP, Segment::Sctp(sctp::Header::default())),
        ] {
            assert_eq!(State::open(proto, segment, true), Admit::Invalid, "{proto} {segment:?}");
        }
        let established = State::Tcp(TcpState::Established);
        let step =
            established.step(&mut TcpTrack::default(), Direction::Original, Proto::TCP, &Segment::Other);
        assert_eq!(step, Step::Invalid);
    }

    #[test]
    fn a_later_fragment_opens_nothing_and_changes_nothing() {
        for proto in [Proto::TCP, Proto::UDP, Proto::ICMP, Proto::SCTP] {
            assert_eq!(State::open(proto, Segment::Later, true), Admit::Invalid, "{proto}");
        }
        for state in [State::Tcp(TcpState::Established), State::Udp(Exchange::Unreplied)] {
            let step = state.step(&mut TcpTrack::default(), Direction::Reply, Proto::TCP, &Segment::Later);
            assert_eq!(step, Step::Next(state));
        }
    }

    #[test]
    fn each_protocol_opens_its_own_state() {
        for (proto, want) in [
            (Proto::UDP, State::Udp(Exchange::Unreplied)),
            (Proto::UDPLITE, State::Udp(Exchange::Unreplied)),
            (Proto(47), State::Other(Exchange::Unreplied)),
        ] {
            assert_eq!(State::open(proto, Segment::Other, false), Admit::New(want), "{proto}");
        }
    }

    #[test]
    fn only_what_one_end_wants_or_nobody_does_is_evictable() {
        use Direction::{Original, Reply};
        for (state, evictable) in [
            (State::Tcp(TcpState::SynSent), true),
            (State::Tcp(TcpState::SynRecv), true),
            (State::Tcp(TcpState::PickedUp), true),
            (State::Tcp(TcpState::Established), false),
            (State::Tcp(TcpState::FinWait(Original)), false),
            (State::Tcp(TcpState::FinWait(Reply)), false),
            (State::Tcp(TcpState::TimeWait), true),
            (State::Tcp(TcpState::Closed), true),
            (State::Udp(Exchange::Unreplied), true),
            (State::Udp(Exchange::Replied), false),
            (State::Icmp(IcmpState::Message), true),
            (State::Icmp(IcmpState::Echo(Exchange::Replied)), false),
            (State::Other(Exchange::Replied), false),
            (State::Sctp(SctpState::CookieEchoed), true),
            (State::Sctp(SctpState::Established), false),
            (State::Sctp(SctpState::ShutdownSent(Reply)), false),
            (State::Sctp(SctpState::Closed), true),
        ] {
            assert_eq!(state.is_evictable(), evictable, "{state:?}");
        }
    }
}
