//! Which sessions somebody asks for, in the words of tcpdump: `tcp and dst port 443 and not src net 10.0.0.0/8`.
//!
//! | term | true of sessions |
//! |---|---|
//! | `host A`, `net P`, `endpoint NAMESPACE/NAME` | that have such an address; with `src` or `dst` in front, as the opener's, or as the one it opened to |
//! | `port N`, `portrange N-M` | the same of ports |
//! | `tcp`, `udp`, `icmp`, `icmp6`, `sctp`, `proto NAME-OR-NUMBER` | of the protocol |
//! | `ip`, `ip6` | of the family |
//! | `state NAME` | in the state, as listings name it |
//! | `nat` | that have an address or a port translated |
//!
//! Where a session is translated it has, of each end, an address before and one after: either will do. As in
//! pcap-filter(7), `not` binds strongest, `and` and `or` bind alike and from left to right, a protocol may stand
//! before what it qualifies (`tcp port 80`), and what has no keyword takes the last one (`port 80 or 443`).
//!
//! Parsed where memory may be allocated; asked by workers, whose time a session takes is bounded by
//! [`Filter::MAX_TERMS`].

mod parse;
#[cfg(test)]
mod tests;

pub use parse::FilterError;

use super::State;
use super::udp::Exchange;
use crate::net::{Addr, FlowKey, PortRange, Prefix, Proto};

/// A filter, ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    root: Term,
    terms: usize,
}

/// A packet, of any ports where none are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketLike {
    /// Its source.
    pub src: Addr,
    /// Its destination.
    pub dst: Addr,
    /// Its protocol.
    pub proto: Proto,
    /// Its source port; `None`: any.
    pub sport: Option<u16>,
    /// Its destination port; `None`: any.
    pub dport: Option<u16>,
}

impl Filter {
    /// The longest text, in bytes.
    pub const MAX_TEXT: usize = 4096;
    /// The most terms.
    pub const MAX_TERMS: usize = 64;

    /// Reads a filter. An empty text is true of every session. `endpoint` knows the addresses of
    /// an endpoint by its name, if there is one.
    ///
    /// # Errors
    /// Says where in the text what is wrong, and what to write instead.
    pub fn parse(text: &str, endpoint: impl Fn(&str) -> Option<Vec<Prefix>>) -> Result<Self, FilterError> {
        let (root, terms) = parse::parse(text, &endpoint)?;
        Ok(Self { root, terms })
    }

    /// Reads a filter of packets: as [`parse`](Self::parse) does, but for `state` and `nat`, which only sessions have.
    ///
    /// # Errors
    /// As there.
    pub fn of_packets(
        text: &str,
        endpoint: impl Fn(&str) -> Option<Vec<Prefix>>,
    ) -> Result<Self, FilterError> {
        let filter = Self::parse(text, endpoint)?;
        let Some(token) = filter.root.word_of_sessions() else { return Ok(filter) };
        Err(FilterError {
            at: text.find(token).unwrap_or_default(),
            token: token.to_owned(),
            why: "only sessions have one, and this is asked of packets".to_owned(),
            remedy: "leave it out".to_owned(),
            missing: false,
        })
    }

    /// Whether it is true of a packet with this key; without one, of a packet that could not be read.
    #[inline]
    pub fn is_of_packet(&self, key: Option<&FlowKey>) -> bool {
        match key {
            Some(key) => self.matches(key, &key.reversed(), State::Other(Exchange::Unreplied)),
            None => self.root == Term::Everything,
        }
    }

    /// True of the sessions that a packet may belong to, in either direction.
    pub fn of_packet(packet: PacketLike) -> Self {
        Self { root: Term::Packet(packet), terms: 1 }
    }

    /// Whether it is true of the session with these keys.
    #[inline]
    pub fn matches(&self, key: &FlowKey, reply_key: &FlowKey, state: State) -> bool {
        self.root.is(&Session { key, reply_key, state })
    }

    /// How many things are looked at for a session at most.
    pub const fn terms(&self) -> usize {
        self.terms
    }
}

impl PacketLike {
    /// A packet with this key is one.
    pub fn is(&self, key: &FlowKey) -> bool {
        let any = |wanted: Option<u16>, port: u16| wanted.is_none_or(|wanted| wanted == port);
        (key.src, key.dst, key.proto) == (self.src, self.dst, self.proto)
            && any(self.sport, key.sport)
            && any(self.dport, key.dport)
    }
}

/// An end of a session, or either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Any,
    /// Who opened it.
    Source,
    /// To whom.
    Destination,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Everything,
    Not(Box<Term>),
    All(Vec<Term>),
    Some(Vec<Term>),
    Address(Side, Box<[Prefix]>),
    Port(Side, PortRange),
    Proto(Proto),
    /// IPv4, or IPv6.
    Version4(bool),
    State(&'static str),
    Translated,
    Packet(PacketLike),
}

struct Session<'a> {
    key: &'a FlowKey,
    reply_key: &'a FlowKey,
    state: State,
}

impl Term {
    fn word_of_sessions(&self) -> Option<&'static str> {
        match self {
            Self::Not(term) => term.word_of_sessions(),
            Self::All(terms) | Self::Some(terms) => terms.iter().find_map(Self::word_of_sessions),
            Self::State(_) => Some("state"),
            Self::Translated => Some("nat"),
            _ => None,
        }
    }

    fn is(&self, of: &Session<'_>) -> bool {
        match self {
            Self::Everything => true,
            Self::Not(term) => !term.is(of),
            Self::All(terms) => terms.iter().all(|term| term.is(of)),
            Self::Some(terms) => terms.iter().any(|term| term.is(of)),
            Self::Address(side, nets) => {
                let within = |addr: Addr| nets.iter().any(|net| net.contains(addr));
                let source = || within(of.key.src) || within(of.reply_key.dst);
                let destination = || within(of.key.dst) || within(of.reply_key.src);
                side.either(source, destination)
            }
            Self::Port(side, range) => {
                let source = || range.contains(of.key.sport) || range.contains(of.reply_key.dport);
                let destination = || range.contains(of.key.dport) || range.contains(of.reply_key.sport);
                // ICMP's identifiers are no ports.
                of.key.proto.has_ports() && side.either(source, destination)
            }
            Self::Proto(proto) => of.key.proto == *proto,
            Self::Version4(v4) => of.key.src.is_v4() == *v4,
            Self::State(name) => of.state.name() == *name,
            Self::Translated => *of.reply_key != of.key.reversed(),
            Self::Packet(packet) => packet.is(of.key) || packet.is(of.reply_key),
        }
    }
}

impl Side {
    fn either(self, source: impl Fn() -> bool, destination: impl Fn() -> bool) -> bool {
        match self {
            Self::Any => source() || destination(),
            Self::Source => source(),
            Self::Destination => destination(),
        }
    }
}
