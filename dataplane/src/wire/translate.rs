//! Addresses and ports of a packet exchanged in place, and every checksum over them mended.
//!
//! Checksums are changed by what changed (RFC 1624), not computed anew: a packet that was damaged
//! before it reached us is still damaged for whoever checks it. They must be complete, which
//! `parse` sees to. A packet that already has the key asked for stays as it is, so a translation
//! may be applied twice.

use super::checksum::Change;
use super::{crc32c, ends, icmp, ip4, ip6, read};
use crate::net::{FlowKey, Icmp, Proto};

/// What of an IP packet there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All.
    Whole,
    /// A fragment with the transport header: its checksum covers more than is here.
    First,
    /// A fragment without it: only the addresses are here, and the checksum is elsewhere.
    Later,
}

/// Where a packet's headers are, as its parser found them.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Last header of the chain.
    pub proto: Proto,
    /// First byte behind the IP header and its extensions.
    pub l4: usize,
    /// What there is of it.
    pub part: Part,
}

/// Gives the IP packet `bytes` the addresses, ports or echo identifier of `to`.
///
/// `false`, and nothing done, where that cannot be: ports of an SCTP packet in fragments, since how
/// its checksum changes depends on the whole length, and headers that are not all there.
pub fn translate(bytes: &mut [u8], headers: Headers, to: &FlowKey) -> bool {
    let Headers { v6, proto, l4, part } = headers;
    if bytes.len() < l4 || l4 < header_len(v6) {
        return false;
    }
    let (ip, transport) = bytes.split_at_mut(l4);
    if part == Part::Later {
        addresses(ip, v6, to);
        return true;
    }
    let Some(places) = places(proto, transport) else { return false };
    if part == Part::First && proto == Proto::SCTP && !places.agrees(transport, to) {
        return false;
    }
    let change = addresses(ip, v6, to);
    ports(transport, proto, places, to, change, false);
    true
}

/// Turns an ICMP error into one about the packet with the key `to`, as its sender sent it, where it
/// quotes the packet that became of it: the quoted header and the error's own destination, and its
/// source if that is the quoted packet's destination. `l4`: where the ICMP header begins.
///
/// `false`, and nothing done, if the quoted packet is not `from` or its transport header is cut off.
pub fn translate_error(bytes: &mut [u8], v6: bool, l4: usize, from: &FlowKey, to: &FlowKey) -> bool {
    if bytes.len() < l4 + 8 || l4 < header_len(v6) {
        return false;
    }
    let (ip, message) = bytes.split_at_mut(l4);
    let Some(quote) = Quote::parse(&message[8..], v6).filter(|quote| quote.key == *from) else {
        return false;
    };
    let Some(places) = places(quote.proto, &message[8 + quote.len..]) else { return false };

    let mut change = Change::default().without(&message[8..]);
    let (inner_ip, transport) = message[8..].split_at_mut(quote.len);
    let inner = addresses(inner_ip, v6, to);
    ports(transport, quote.proto, places, to, inner, true);
    change = change.with(&message[8..]);

    let (src, _) = ends(ip, v6);
    let src = if src == from.dst { to.dst } else { src };
    let outer = addresses(ip, v6, &FlowKey { src, dst: to.src, ..*to });
    if v6 {
        change = change.and(outer);
    }
    mend(message, 2, change);
    true
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its flow key.
    pub key: FlowKey,
    /// Last header of the chain.
    pub proto: Proto,
    /// Bytes of its IP header and extensions.
    pub len: usize,
}

impl Quote {
    /// Reads the quote behind an error's header. It may be cut short behind the ports.
    pub fn parse(quote: &[u8], v6: bool) -> Option<Self> {
        let (proto, len) = if v6 {
            let header = ip6::Header::parse(quote).ok().filter(|header| !header.later_fragment)?;
            (header.proto, header.len)
        } else {
            let header = ip4::Header::parse(quote).ok().filter(|header| !header.later_fragment)?;
            (header.proto, header.len)
        };
        let needed = if proto.has_ports() || proto.is_icmp() { 8 } else { 0 };
        let transport = quote.get(len..).filter(|rest| rest.len() >= needed)?;
        let icmp = match (proto.is_icmp(), transport) {
            (true, [kind, code, ..]) => Icmp { kind: *kind, code: *code },
            _ => Icmp::default(),
        };
        Some(Self { key: super::l4::flow_key(quote, transport, v6, proto, icmp), proto, len })
    }
}

const fn header_len(v6: bool) -> usize {
    if v6 { ip6::HEADER_LEN } else { ip4::HEADER_LEN }
}

/// Writes the addresses, mends the IPv4 header, and returns what that does to sums over them.
#[inline]
fn addresses(ip: &mut [u8], v6: bool, to: &FlowKey) -> Change {
    if v6 {
        let change = Change::default().replace(&mut ip[8..24], &to.src.octets());
        change.replace(&mut ip[24..40], &to.dst.octets())
    } else {
        let change = Change::default().replace(&mut ip[12..16], &to.src.v4_octets());
        let change = change.replace(&mut ip[16..20], &to.dst.v4_octets());
        mend(ip, 10, change);
        change
    }
}

/// What of a transport header is translated, and where it says it.
#[derive(Clone, Copy)]
enum Places {
    /// Source and destination port.
    Ports,
    /// An echo's identifier.
    Echo,
    /// Nothing but the addresses.
    Nothing,
}

/// `None`: the header is not all there.
#[inline]
fn places(proto: Proto, transport: &[u8]) -> Option<Places> {
    if proto.has_ports() {
        (transport.len() >= 8).then_some(Places::Ports)
    } else if proto.is_icmp() {
        let [kind, code, ..]: [u8; 8] = read(transport, 0).ok()?;
        Some(if icmp::is_echo(proto, Icmp { kind, code }) { Places::Echo } else { Places::Nothing })
    } else {
        Some(Places::Nothing)
    }
}

impl Places {
    /// The header says already what it is to say.
    fn agrees(self, transport: &[u8], to: &FlowKey) -> bool {
        match self {
            Self::Ports => transport.starts_with(&port_bytes(to)),
            Self::Echo => transport[4..6] == to.sport.to_be_bytes(),
            Self::Nothing => true,
        }
    }
}

fn port_bytes(key: &FlowKey) -> [u8; 4] {
    let ([a, b], [c, d]) = (key.sport.to_be_bytes(), key.dport.to_be_bytes());
    [a, b, c, d]
}

/// Writes ports or identifier and mends the transport's checksum, for them and for what `change`
/// did to the pseudo-header. `quoted`: the packet may be cut off, and its checksum with it.
#[inline]
fn ports(transport: &mut [u8], proto: Proto, places: Places, to: &FlowKey, change: Change, quoted: bool) {
    if proto == Proto::SCTP {
        return sctp(transport, port_bytes(to), quoted);
    }
    // The sum covers the pseudo-header, except ICMP's for IPv4.
    let change = if proto == Proto::ICMP { Change::default() } else { change };
    let change = match places {
        Places::Ports => change.replace(&mut transport[..4], &port_bytes(to)),
        Places::Echo => change.replace(&mut transport[4..6], &to.sport.to_be_bytes()),
        Places::Nothing => change,
    };
    let (at, may_be_none) = match proto {
        Proto::TCP => (16, false),
        Proto::UDP | Proto::UDPLITE => (6, true),
        Proto::ICMP | Proto::ICMP6 => (2, false),
        DCCP => (6, false),
        _ => return,
    };
    let Ok(field) = read::<2>(transport, at) else { return };
    if !(may_be_none && field == [0, 0]) {
        mend(transport, at, change);
        // Zero means that there is none (RFC 768).
        if may_be_none && transport[at..at + 2] == [0, 0] {
            transport[at..at + 2].fill(0xff);
        }
    }
}

/// Its checksum covers the addresses (RFC 4340 §9.1), though we know nothing of its ports.
const DCCP: Proto = Proto(33);

/// The sum does not cover the addresses.
fn sctp(transport: &mut [u8], ports: [u8; 4], quoted: bool) {
    let behind = transport.len() - 4;
    let mut flipped = [0; 4];
    for ((flip, byte), port) in flipped.iter_mut().zip(&mut *transport).zip(ports) {
        *flip = *byte ^ port;
        *byte = port;
    }
    let Ok(field) = read(transport, crc32c::OFFSET).map(u32::from_le_bytes) else { return };
    // Without a checksum (RFC 9653), or quoted in part; nobody checks a quote.
    if field == 0 || flipped == [0; 4] || quoted {
        return;
    }
    let field = field ^ crc32c::difference(flipped, behind);
    transport[crc32c::OFFSET..crc32c::OFFSET + 4].copy_from_slice(&field.to_le_bytes());
}

/// Brings the checksum at `at` up to date.
#[inline]
fn mend(bytes: &mut [u8], at: usize, change: Change) {
    let Ok(field) = read(bytes, at).map(u16::from_be_bytes) else { return };
    let mut field = change.apply(field);
    // Nothing but zeros has the sum zero; incremental arithmetic finds its other form.
    if field == 0 && bytes.iter().enumerate().all(|(k, byte)| *byte == 0 || k == at || k == at + 1) {
        field = !0;
    }
    bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
}

#[cfg(test)]
mod tests;
