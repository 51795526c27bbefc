//! ICMP and ICMPv6 (RFC 792, RFC 4443): which messages are what, and the errors we send.

use super::{checksum::Sum, ip4, ip6};
use crate::net::{Addr, Icmp, Proto};

/// Echo request or reply.
#[inline]
pub const fn is_echo(proto: Proto, icmp: Icmp) -> bool {
    match proto {
        Proto::ICMP => matches!(icmp.kind, 0 | 8),
        _ => matches!(icmp.kind, 128 | 129),
    }
}

/// A message about another packet, whose beginning it quotes from the ninth byte on.
#[inline]
pub const fn is_error(proto: Proto, icmp: Icmp) -> bool {
    match proto {
        Proto::ICMP => matches!(icmp.kind, 3 | 4 | 5 | 11 | 12),
        _ => icmp.kind < 128,
    }
}

/// The packet was larger than the next link takes.
#[inline]
pub const fn is_too_big(proto: Proto, icmp: Icmp) -> bool {
    match proto {
        Proto::ICMP => icmp.kind == 3 && icmp.code == 4,
        _ => icmp.kind == 2,
    }
}

/// An error that a router sends about a packet it did not forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Time to live or hop limit ran out.
    TimeExceeded,
    /// No way to the destination.
    NoRoute,
    /// The next hop did not answer.
    HostUnreachable,
    /// The route to the destination says that nobody is there.
    RouteUnreachable,
    /// The route to the destination says that it is forbidden (RFC 1812 §5.2.7.1).
    Prohibited,
    /// Nobody listens.
    PortUnreachable,
    /// Larger than the way out takes; its MTU.
    TooBig(u16),
}

impl Error {
    /// Type, code, and the second word of the message.
    const fn message(self, v6: bool) -> (u8, u8, u32) {
        match (self, v6) {
            (Self::TimeExceeded, false) => (11, 0, 0),
            (Self::TimeExceeded, true) => (3, 0, 0),
            (Self::NoRoute, false) => (3, 0, 0),
            (Self::NoRoute, true) => (1, 0, 0),
            (Self::HostUnreachable, false) => (3, 1, 0),
            (Self::HostUnreachable, true) => (1, 3, 0),
            (Self::RouteUnreachable, false) => (3, 1, 0),
            (Self::RouteUnreachable, true) => (1, 0, 0),
            (Self::Prohibited, false) => (3, 13, 0),
            (Self::Prohibited, true) => (1, 1, 0),
            (Self::PortUnreachable, false) => (3, 3, 0),
            (Self::PortUnreachable, true) => (1, 4, 0),
            (Self::TooBig(mtu), false) => (3, 4, mtu as u32),
            (Self::TooBig(mtu), true) => (2, 0, mtu as u32),
        }
    }
}

/// The longest error we make: IPv4 as RFC 1812 §4.3.2.3 says, IPv6 within the minimum MTU.
pub const MAX_ERROR_V4: usize = 576;
/// As above.
pub const MAX_ERROR_V6: usize = 1280;

/// Writes the IP packet that tells `to` about `offending` into `out`, from `from`. Returns its
/// length, or `None` when `out` is too short.
pub fn emit_error(error: Error, from: Addr, to: Addr, offending: &[u8], out: &mut [u8]) -> Option<usize> {
    let v6 = !from.is_v4();
    let (header_len, max) =
        if v6 { (ip6::HEADER_LEN, MAX_ERROR_V6) } else { (ip4::HEADER_LEN, MAX_ERROR_V4) };
    let quoted = &offending[..offending.len().min(max - header_len - 8)];
    let body_len = 8 + quoted.len();
    let total = header_len + body_len;
    let (header, body) = out.get_mut(..total)?.split_at_mut(header_len);

    let (kind, code, word) = error.message(v6);
    body[..4].copy_from_slice(&[kind, code, 0, 0]);
    body[4..8].copy_from_slice(&word.to_be_bytes());
    body[8..].copy_from_slice(quoted);
    let sum = if v6 {
        header.copy_from_slice(&ip6::emit(from, to, Proto::ICMP6, 64, body_len));
        Sum::default().pseudo_header(from, to, Proto::ICMP6, body_len as u32)
    } else {
        header.copy_from_slice(&ip4::emit(from, to, Proto::ICMP, 64, body_len));
        Sum::default()
    };
    let sum = sum.bytes(body).finish();
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    #[test]
    fn errors_are_well_formed_to_an_independent_parser() {
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")] {
            let (from, to): (Addr, Addr) = (from.parse().unwrap(), to.parse().unwrap());
            for error in [
                Error::TimeExceeded,
                Error::NoRoute,
                Error::HostUnreachable,
                Error::RouteUnreachable,
                Error::Prohibited,
                Error::PortUnreachable,
                Error::TooBig(1280),
            ] {
                let mut out = [0; 1500];
                let offending = [0x45; 1400];
                let len = emit_error(error, from, to, &offending, &mut out).unwrap();
                assert!(len <= if from.is_v4() { MAX_ERROR_V4 } else { MAX_ERROR_V6 });
                let sliced = SlicedPacket::from_ip(&out[..len]).unwrap();
                match (sliced.net.unwrap(), sliced.transport.unwrap()) {
                    (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                        assert_eq!(
                            ip.header().header_checksum(),
                            ip.header().to_header().calc_header_checksum()
                        );
                        assert_eq!(Sum::default().bytes(icmp.slice()).folded(), 0xffff);
                    }
                    (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                        let (src, dst) = (ip.header().source(), ip.header().destination());
                        assert!(icmp.is_checksum_valid(src, dst));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn no_room_is_no_error() {
        let a = Addr::v4([10, 0, 0, 1]);
        assert_eq!(emit_error(Error::NoRoute, a, a, &[0; 28], &mut [0; 40]), None);
    }
}
