//! ICMP and ICMPv6: echo requests and their replies, and messages that stand alone.
//!
//! An echo's key is its identifier, the same for request and reply, so the type must agree with
//! the direction: or else a session opened by pinging out would let requests in.

use super::flow::Direction;
use super::state::Step;
use super::udp::Exchange;
use crate::net::{Icmp, Proto};

/// What an ICMP session is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IcmpState {
    /// Echo requests one way, replies the other.
    Echo(Exchange),
    /// Any other message, errors too; nothing answers it.
    Message,
}

impl IcmpState {
    /// The state that a packet without a session opens; `None` for an echo reply nobody asked for.
    pub fn open(proto: Proto, icmp: Icmp) -> Option<Self> {
        match Echo::of(proto, icmp) {
            Some(Echo::Request) => Some(Self::Echo(Exchange::Unreplied)),
            Some(Echo::Reply) => None,
            None => Some(Self::Message),
        }
    }

    /// The state after a packet.
    pub fn step(self, direction: Direction, proto: Proto, icmp: Icmp) -> Step<Self> {
        match (self, Echo::of(proto, icmp), direction) {
            (Self::Echo(exchange), Some(Echo::Request), Direction::Original)
            | (Self::Echo(exchange), Some(Echo::Reply), Direction::Reply) => {
                Step::Next(Self::Echo(exchange.step(direction)))
            }
            (Self::Message, None, Direction::Original) => Step::Next(self),
            _ => Step::Invalid,
        }
    }
}

#[derive(Clone, Copy)]
enum Echo {
    Request,
    Reply,
}

impl Echo {
    /// Types 8 and 0 of RFC 792, 128 and 129 of RFC 4443.
    fn of(proto: Proto, icmp: Icmp) -> Option<Self> {
        match (proto, icmp.kind) {
            (Proto::ICMP, 8) | (Proto::ICMP6, 128) => Some(Self::Request),
            (Proto::ICMP, 0) | (Proto::ICMP6, 129) => Some(Self::Reply),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Original, Reply};
    use super::*;

    #[test]
    fn echo_of_both_families() {
        for (proto, request, reply) in [(Proto::ICMP, 8, 0), (Proto::ICMP6, 128, 129)] {
            let request = Icmp { kind: request, code: 0 };
            let reply = Icmp { kind: reply, code: 0 };
            let opened = IcmpState::open(proto, request).unwrap();
            let replied = IcmpState::Echo(Exchange::Replied);
            assert_eq!(opened, IcmpState::Echo(Exchange::Unreplied));
            assert_eq!(opened.step(Original, proto, request), Step::Next(opened));
            assert_eq!(opened.step(Reply, proto, reply), Step::Next(replied));
            assert_eq!(replied.step(Original, proto, request), Step::Next(replied));
            assert_eq!(IcmpState::open(proto, reply), None, "a reply nobody asked for");
            assert_eq!(
                opened.step(Reply, proto, request),
                Step::Invalid,
                "a request back through the session"
            );
            assert_eq!(opened.step(Original, proto, reply), Step::Invalid);
        }
    }

    #[test]
    fn the_other_familys_types_are_messages() {
        let v6_request = Icmp { kind: 128, code: 0 };
        assert_eq!(IcmpState::open(Proto::ICMP, v6_request), Some(IcmpState::Message));
        let unreachable = Icmp { kind: 3, code: 4 };
        let message = IcmpState::open(Proto::ICMP, unreachable).unwrap();
        assert_eq!(message.step(Original, Proto::ICMP, unreachable), Step::Next(message));
        assert_eq!(message.step(Reply, Proto::ICMP, unreachable), Step::Invalid);
    }
}
