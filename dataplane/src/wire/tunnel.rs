//! What goes in front of a packet that is carried to another node: everything up to the inner IP
//! header, built once a tunnel, completed once a packet.
//!
//! The outer IPv4 header always forbids fragmentation and its identification is 0 (RFC 6864 §4.1): nobody
//! puts tunnels' packets together on the fast path, and a router that would have to cut one tells us
//! instead what it takes. The packet inside is cut before, or its sender told, whichever it asked for.

use super::ethernet::{self, Prebuilt};
use super::wireguard::{MAC, TRANSPORT_HEADER};
use super::{checksum::Sum, ip4, ip6, vxlan};
use crate::net::{Addr, Mac, Proto};

const UDP_LEN: usize = 8;
/// Link header with a tag, IPv6, UDP, VXLAN, Ethernet.
const MAX: usize = 18 + ip6::HEADER_LEN + UDP_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN;
/// The outer time to live: where the tunnel ends is no matter of how far the packet inside has come.
const TTL: u8 = 64;

/// The headers of one tunnel's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    bytes: [u8; MAX],
    len: u8,
    /// Where the IP header begins.
    ip: u8,
    v6: bool,
    udp: bool,
    /// The source port says which flow is inside.
    by_flow: bool,
    /// What the IPv4 header sums up to without what differs from packet to packet.
    sum: u16,
}

/// The ends of a VXLAN tunnel besides their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// Destination port.
    pub port: u16,
    /// Of 24 bits.
    pub network: u32,
    /// The other end's inner address.
    pub to: Mac,
    /// This end's.
    pub from: Mac,
}

impl Outer {
    /// Bytes that IPIP puts before a packet.
    pub const IPIP: u16 = ip4::HEADER_LEN as u16;
    /// The same of VXLAN over IPv4.
    pub const VXLAN4: u16 = (ip4::HEADER_LEN + UDP_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN) as u16;
    /// Bytes that WireGuard adds to a packet over IPv4, its tag included.
    pub const WIREGUARD4: u16 = (ip4::HEADER_LEN + UDP_LEN + TRANSPORT_HEADER + MAC) as u16;
    /// The same over IPv6.
    pub const WIREGUARD6: u16 = (ip6::HEADER_LEN + UDP_LEN + TRANSPORT_HEADER + MAC) as u16;
    /// Bytes that VXLAN over IPv6 puts before a packet.
    pub const VXLAN6: u16 = (ip6::HEADER_LEN + UDP_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN) as u16;

    /// IPv4 in IPv4 (RFC 2003), behind this link header.
    pub fn ipip(link: &Prebuilt, from: Addr, to: Addr) -> Self {
        Self::begin(link.as_slice(), from, to, Proto::IPIP)
    }

    /// VXLAN that carries packets of the IP version that it runs over.
    pub fn vxlan(link: &Prebuilt, from: Addr, to: Addr, ends: Vxlan) -> Self {
        let mut outer = Self::begin(link.as_slice(), from, to, Proto::UDP);
        (outer.udp, outer.by_flow) = (true, true);
        outer.push(&[[0; 2], ends.port.to_be_bytes(), [0; 2], [0; 2]].concat());
        outer.push(&vxlan::emit(ends.network));
        let kind = if outer.v6 { ethernet::IPV6 } else { ethernet::IPV4 };
        outer.push(Prebuilt::new(ends.to, ends.from, None, kind).as_slice());
        outer
    }

    /// UDP between two ports.
    pub fn udp(link: &Prebuilt, from: (Addr, u16), to: (Addr, u16)) -> Self {
        Self::datagram(link.as_slice(), from, to)
    }

    /// The same behind the link header that the packets of this tunnel have.
    pub fn beside(&self, from: (Addr, u16), to: (Addr, u16)) -> Self {
        Self::datagram(&self.bytes[..usize::from(self.ip)], from, to)
    }

    fn datagram(link: &[u8], from: (Addr, u16), to: (Addr, u16)) -> Self {
        let mut outer = Self::begin(link, from.0, to.0, Proto::UDP);
        outer.udp = true;
        outer.push(&[from.1.to_be_bytes(), to.1.to_be_bytes(), [0; 2], [0; 2]].concat());
        outer
    }

    fn begin(link: &[u8], from: Addr, to: Addr, proto: Proto) -> Self {
        let v6 = !to.is_v4();
        let mut outer = Self { bytes: [0; MAX], len: 0, ip: 0, v6, udp: false, by_flow: false, sum: 0 };
        outer.push(link);
        outer.ip = outer.len;
        if v6 {
            outer.push(&ip6::emit(from, to, proto, TTL, 0));
        } else {
            let mut header = ip4::emit(from, to, proto, TTL, 0);
            header[2..4].fill(0);
            header[6..8].copy_from_slice(&0x4000u16.to_be_bytes());
            header[10..12].fill(0);
            outer.sum = Sum::default().bytes(&header).folded();
            outer.push(&header);
        }
        outer
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    /// The headers for one packet, `inner` being all that stands behind them and `class` its DSCP and ECN as far as the outer
    /// header is to tell of them. Where the flow has a source port, it is of `entropy`, so that routers and network cards
    /// keep the flow together and others apart (RFC 7348 §5); elsewhere only if that is above zero.
    #[inline]
    pub fn complete(&self, inner: &[u8], class: u8, entropy: u16) -> Completed {
        let mut out = Completed { bytes: self.bytes, len: self.len };
        let (ip, len) = (usize::from(self.ip), usize::from(self.len));
        let total = len - ip + inner.len();
        if self.v6 {
            out.bytes[ip] = 0x60 | class >> 4;
            out.bytes[ip + 1] = class << 4;
            out.bytes[ip + 4..ip + 6].copy_from_slice(&((total - ip6::HEADER_LEN) as u16).to_be_bytes());
        } else {
            out.bytes[ip + 1] = class;
            out.bytes[ip + 2..ip + 4].copy_from_slice(&(total as u16).to_be_bytes());
            let sum = Sum::default().word(self.sum).word(class.into()).word(total as u16).finish();
            out.bytes[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
        }
        if self.udp {
            self.complete_udp(&mut out, inner, entropy);
        }
        out
    }

    #[inline]
    fn complete_udp(&self, out: &mut Completed, inner: &[u8], entropy: u16) {
        let ip = usize::from(self.ip);
        let at = ip + if self.v6 { ip6::HEADER_LEN } else { ip4::HEADER_LEN };
        let len = usize::from(self.len) - at + inner.len();
        if self.by_flow || entropy > 0 {
            // Of the ports for anybody's use (RFC 6335 §6).
            out.bytes[at..at + 2].copy_from_slice(&(0xc000 | entropy).to_be_bytes());
        }
        out.bytes[at + 4..at + 6].copy_from_slice(&(len as u16).to_be_bytes());
        // None over IPv4, as RFC 7348 §5 asks for; WireGuard's packets have a tag. Over IPv6 a kernel refuses packets without one,
        // unless it is told that they are tunnels' (RFC 6935 §5).
        if self.v6 {
            let addrs = &out.bytes[ip + 8..ip + 40];
            let sum = Sum::default().bytes(addrs).word(Proto::UDP.0.into()).word(len as u16);
            let sum = sum.bytes(&out.bytes[at..usize::from(self.len)]).bytes(inner).finish();
            let sum = if sum == 0 { 0xffff } else { sum };
            out.bytes[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Headers ready to be put before their packet.
pub struct Completed {
    bytes: [u8; MAX],
    len: u8,
}

impl Completed {
    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ecn, l4};
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    const ENDS: Vxlan =
        Vxlan { port: 4789, network: 4096, to: Mac([0x66, 1, 2, 3, 4, 5]), from: Mac([0x66, 9, 8, 7, 6, 5]) };

    fn link(kind: u16) -> Prebuilt {
        Prebuilt::new(Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 1]), None, kind)
    }

    fn addr(s: &str) -> Addr {
        s.parse().unwrap()
    }

    fn inner4(class: u8) -> Vec<u8> {
        let mut out = vec![];
        PacketBuilder::ipv4([10, 65, 0, 1], [10, 65, 1, 1], 64)
            .udp(4000, 53)
            .write(&mut out, b"odd")
            .unwrap();
        ecn::set(&mut out, class & 3);
        out[1] = class;
        out
    }

    #[test]
    fn ipip_byte_by_byte() {
        let outer = Outer::ipip(&link(ethernet::IPV4), addr("192.168.0.1"), addr("192.168.0.2"));
        let inner = inner4(0xb9);
        let made = outer.complete(&inner, ecn::traffic_class(&inner), 0);
        let bytes = made.as_slice();
        assert_eq!(bytes.len(), 14 + usize::from(Outer::IPIP));
        let want = [0x45, 0xb9, 0, 51, 0, 0, 0x40, 0, 64, 4];
        assert_eq!(bytes[14..24], want, "no identification, not to be cut, DSCP and ECN of the inner one");
        assert_eq!(bytes[26..34], [192, 168, 0, 1, 192, 168, 0, 2]);
        let whole = [&bytes[14..], &inner].concat();
        let header = ip4::Header::parse(&whole).expect("it sums up");
        assert_eq!((header.total_len, header.dont_fragment), (whole.len(), true));
    }

    #[test]
    fn vxlan_byte_by_byte() {
        let outer = Outer::vxlan(&link(ethernet::IPV4), addr("192.168.0.1"), addr("192.168.0.2"), ENDS);
        let inner = inner4(0x02);
        let made = outer.complete(&inner, ecn::traffic_class(&inner), 0x1234);
        let bytes = made.as_slice();
        assert_eq!(bytes.len(), 14 + usize::from(Outer::VXLAN4));
        let len = (8 + 8 + 14 + inner.len()) as u16;
        let [high, low] = len.to_be_bytes();
        assert_eq!(bytes[34..42], [0xd2, 0x34, 0x12, 0xb5, high, low, 0, 0], "UDP without a checksum");
        assert_eq!(bytes[42..50], [8, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(bytes[50..64], [0x66, 1, 2, 3, 4, 5, 0x66, 9, 8, 7, 6, 5, 8, 0]);
        let header = ip4::Header::parse(&[&bytes[14..], &inner].concat()).expect("it sums up");
        assert_eq!((header.proto, header.total_len), (Proto::UDP, 20 + usize::from(len)));
        assert_eq!(bytes[15], 2);
    }

    #[test]
    fn vxlan_over_ipv6_sums_up_to_an_independent_parser() {
        let outer = Outer::vxlan(&link(ethernet::IPV6), addr("fd00::1"), addr("fd00::2"), ENDS);
        for payload in [&b"even"[..], b"odd"] {
            let mut inner = vec![];
            let builder = PacketBuilder::ipv6([7; 16], [9; 16], 64);
            builder.udp(4000, 53).write(&mut inner, payload).unwrap();
            let made = outer.complete(&inner, 0, 77);
            assert_eq!(made.as_slice().len(), 14 + usize::from(Outer::VXLAN6));
            let whole = [made.as_slice(), &inner].concat();
            let sliced = SlicedPacket::from_ethernet(&whole).unwrap();
            let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport)
            else {
                panic!("UDP over IPv6")
            };
            let header = ip.header().to_header();
            let sum = udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap();
            assert_eq!((udp.checksum(), udp.source_port()), (sum, 0xc000 | 77));
            assert!(l4::Header::parse(Proto::UDP, &whole[54..]).is_ok());
        }
    }

    #[test]
    fn behind_a_tag() {
        let link = Prebuilt::new(Mac([2; 6]), Mac([4; 6]), Some(7), ethernet::IPV6);
        let outer = Outer::vxlan(&link, addr("fd00::1"), addr("fd00::2"), ENDS);
        assert_eq!(outer.complete(&inner4(0), 0, 0).as_slice().len(), MAX);
    }
}
