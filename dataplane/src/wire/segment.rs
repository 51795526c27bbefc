//! Making segments of a super-frame: a packet of TCP or UDP with the payload of many, as a stack leaves it to
//! hardware (TSO, USO).
//!
//! What differs from one segment to the next follows from the headers that all have in common, as Linux has it in
//! `tcp_gso_segment` and `__udp_gso_segment`: lengths, the IPv4 identification (one more each), the sequence number; CWR is
//! the first one's (RFC 3168 §6.1.2), FIN and PSH are the last one's.

use super::checksum::Sum;
use super::{ends, ip4, ip6, l4, read, read_u16};
use crate::net::{Addr, Proto};

/// Segments that a super-frame comes to at most: those of 64 KiB with 48 bytes each, the least that Linux takes for a
/// segment of TCP (`TCP_MIN_SND_MSS`). Workloads say how long segments are to be: a byte each would be a flood in one.
const MOST: usize = 1_400;

const FIN: u8 = 1;
const PSH: u8 = 1 << 3;
const CWR: u8 = 1 << 7;

/// A super-frame without its link header, ready to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Super<'p> {
    packet: &'p [u8],
    shape: Shape,
}

impl<'p> Super<'p> {
    /// Looks at a packet of `proto`, whose header begins at `l4`; each segment is to have `size` bytes of payload. `None`
    /// where its headers contradict themselves or the packet, there is nothing to cut, or it would come to too many.
    pub fn new(packet: &'p [u8], l4: usize, proto: Proto, size: u16) -> Option<Self> {
        Shape::of(packet, l4, proto, size).map(|shape| Self { packet, shape })
    }

    /// Segments it comes to.
    pub fn count(&self) -> usize {
        self.shape.count()
    }

    /// Bytes of all of them.
    pub fn total(&self) -> usize {
        self.shape.len + (self.count() - 1) * self.shape.payload
    }

    /// Bytes of the longest segment.
    pub fn longest(&self) -> usize {
        self.shape.first()
    }

    /// Writes segment `n` into `out` and returns its length; `None` where there is no such segment, or no room. Its
    /// checksum is computed while its bytes are copied.
    pub fn write(&self, n: usize, out: &mut [u8]) -> Option<usize> {
        let Shape { payload, size, .. } = self.shape;
        let data = self.packet[payload..].chunks(size).nth(n)?;
        let len = payload + data.len();
        let (headers, body) = out.get_mut(..len)?.split_at_mut(payload);
        headers.copy_from_slice(&self.packet[..payload]);
        self.shape.dress(n, headers, len, |sum| sum.copied(data, body))?;
        Some(len)
    }
}

/// Makes the super-frame its own first segment, for whoever quotes it, and returns that one's length; `None`, and nothing
/// done, as for [`Super::new`].
pub fn into_first(packet: &mut [u8], l4: usize, proto: Proto, size: u16) -> Option<usize> {
    let shape = Shape::of(packet, l4, proto, size)?;
    let len = shape.first();
    let (headers, data) = packet[..len].split_at_mut(shape.payload);
    shape.dress(0, headers, len, |sum| sum.bytes(data))?;
    Some(len)
}

/// What a super-frame's headers say.
#[derive(Clone, Copy, Debug)]
struct Shape {
    v4: bool,
    proto: Proto,
    len: usize,
    /// Where the transport header begins, and where the payload does.
    l4: usize,
    payload: usize,
    /// Bytes of payload in each segment but the last.
    size: usize,
    src: Addr,
    dst: Addr,
}

impl Shape {
    fn of(packet: &[u8], l4: usize, proto: Proto, size: u16) -> Option<Self> {
        let v4 = packet.first()? >> 4 == 4;
        let (header, len) = match v4 {
            true => (ip4::HEADER_LEN, usize::from(read_u16(packet, 2).ok()?)),
            false => (ip6::HEADER_LEN, ip6::HEADER_LEN + usize::from(read_u16(packet, 4).ok()?)),
        };
        let (transport, least) = match proto {
            Proto::TCP => (usize::from(packet.get(l4 + 12)? >> 4) * 4, 20),
            Proto::UDP => (8, 8),
            _ => return None,
        };
        let payload = l4 + transport;
        if l4 < header || transport < least || len != packet.len() || payload >= len || size == 0 {
            return None;
        }
        let (src, dst) = ends(packet, !v4);
        let shape = Self { v4, proto, len, l4, payload, size: size.into(), src, dst };
        (shape.count() <= MOST).then_some(shape)
    }

    fn count(&self) -> usize {
        (self.len - self.payload).div_ceil(self.size)
    }

    /// Bytes of the first segment.
    fn first(&self) -> usize {
        self.len.min(self.payload + self.size)
    }

    /// Makes the super-frame's headers those of segment `n`, of `len` bytes, whose data `add` adds to a sum.
    fn dress(&self, n: usize, headers: &mut [u8], len: usize, add: impl FnOnce(Sum) -> Sum) -> Option<()> {
        let last = (n + 1) * self.size >= self.len - self.payload;
        let (ip, transport) = headers.split_at_mut(self.l4);
        if self.v4 {
            let id = read_u16(ip, 4).ok()?.wrapping_add(n as u16);
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip4::set_len(ip, len);
        } else {
            ip[4..6].copy_from_slice(&((len - ip6::HEADER_LEN) as u16).to_be_bytes());
        }
        let segment_len = len - self.l4;
        if self.proto == Proto::TCP {
            let seq = u32::from_be_bytes(read(transport, 4).ok()?).wrapping_add((n * self.size) as u32);
            transport[4..8].copy_from_slice(&seq.to_be_bytes());
            let not_here = if n > 0 { CWR } else { 0 } | if last { 0 } else { FIN | PSH };
            transport[13] &= !not_here;
        } else {
            transport[4..6].copy_from_slice(&(segment_len as u16).to_be_bytes());
        }
        let at = l4::checksum_offset(self.proto)?;
        transport[at..at + 2].fill(0);
        let pseudo = Sum::default().pseudo_header(self.src, self.dst, self.proto, segment_len as u32);
        let sum = match add(pseudo.bytes(transport)).finish() {
            // Zero means "none" in UDP (RFC 768).
            0 if self.proto == Proto::UDP => 0xffff,
            sum => sum,
        };
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpHeaders, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
    use proptest::prelude::*;

    const FROM: [u8; 4] = [10, 0, 0, 1];
    const TO: [u8; 4] = [10, 0, 0, 2];

    /// What a super-frame is made of.
    #[derive(Clone, Debug)]
    struct Of {
        v6: bool,
        tcp: bool,
        options: usize,
        flags: u8,
        seq: u32,
        id: u16,
        payload: Vec<u8>,
    }

    fn of() -> impl Strategy<Value = Of> {
        let payload = proptest::collection::vec(0u8.., 1..9000);
        (any::<(bool, bool)>(), 0usize..=10, any::<(u8, u32, u16)>(), payload).prop_map(
            |((v6, tcp), options, (flags, seq, id), payload)| Of {
                v6,
                tcp,
                options,
                flags,
                seq,
                id,
                payload,
            },
        )
    }

    /// The packet that carries `payload`, made by others than us.
    fn packet(of: &Of, payload: &[u8], id: u16, seq: u32, flags: u8) -> Vec<u8> {
        let v6 = |[a, b, c, d]: [u8; 4]| {
            std::net::Ipv6Addr::new(
                0xfd00,
                0,
                0,
                0,
                0,
                0,
                u16::from_be_bytes([a, b]),
                u16::from_be_bytes([c, d]),
            )
        };
        let ip = match of.v6 {
            true => PacketBuilder::ipv6(v6(FROM).octets(), v6(TO).octets(), 64),
            false => PacketBuilder::ip({
                let mut header =
                    etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, FROM, TO).unwrap();
                header.identification = id;
                IpHeaders::Ipv4(header, Default::default())
            }),
        };
        let mut out = vec![];
        if of.tcp {
            let mut header = etherparse::TcpHeader::new(4000, 80, seq, 100);
            header.acknowledgment_number = 7;
            header.set_options_raw(&vec![1; 4 * of.options]).unwrap();
            let bit = |n: u8| flags & 1 << n != 0;
            (header.fin, header.syn, header.rst, header.psh) = (bit(0), bit(1), bit(2), bit(3));
            (header.ack, header.urg, header.ece, header.cwr) = (bit(4), bit(5), bit(6), bit(7));
            ip.tcp_header(header).write(&mut out, payload).unwrap();
        } else {
            ip.udp(4000, 53).write(&mut out, payload).unwrap();
        }
        out
    }

    fn l4(of: &Of) -> usize {
        if of.v6 { 40 } else { 20 }
    }

    fn proto(of: &Of) -> Proto {
        if of.tcp { Proto::TCP } else { Proto::UDP }
    }

    proptest! {
        /// The slow twin makes each segment anew of what the super-frame was made of.
        #[test]
        fn segments_are_what_a_stack_would_have_sent(of in of(), size in 8u16..1500) {
            let whole = packet(&of, &of.payload, of.id, of.seq, of.flags);
            let cut = Super::new(&whole, l4(&of), proto(&of), size).expect("it is sound");
            let expected: Vec<&[u8]> = of.payload.chunks(size.into()).collect();
            prop_assert_eq!(cut.count(), expected.len());
            let (mut longest, mut total) = (0, 0);
            for (n, payload) in expected.iter().enumerate() {
                let mut flags = of.flags;
                if n > 0 {
                    flags &= !CWR;
                }
                if n + 1 < expected.len() {
                    flags &= !(FIN | PSH);
                }
                let seq = of.seq.wrapping_add((n * usize::from(size)) as u32);
                let twin = packet(&of, payload, of.id.wrapping_add(n as u16), seq, flags);
                let mut out = vec![0xaa; 2000];
                let len = cut.write(n, &mut out).expect("there is room");
                prop_assert_eq!(&out[..len], &twin[..]);
                (longest, total) = (longest.max(len), total + len);
                prop_assert_eq!(cut.write(n, &mut vec![0; len - 1]), None, "no room");
            }
            prop_assert_eq!((cut.longest(), cut.total()), (longest, total));
            let mut first = vec![0; longest];
            cut.write(0, &mut first);
            let mut own = whole.clone();
            prop_assert_eq!(into_first(&mut own, l4(&of), proto(&of), size), Some(longest));
            prop_assert_eq!(&own[..longest], &first[..]);
            prop_assert_eq!(cut.write(expected.len(), &mut [0; 2000]), None);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(0u8.., 0..200), l4 in 0usize..80, tcp: bool, size: u16) {
            let proto = if tcp { Proto::TCP } else { Proto::UDP };
            if let Some(cut) = Super::new(&bytes, l4, proto, size) {
                for n in 0..cut.count() {
                    prop_assert!(cut.write(n, &mut [0; 200]).is_some());
                }
            }
        }
    }

    #[test]
    fn checksums_are_right_to_others() {
        for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            let of = Of { v6, tcp, options: 3, flags: 0x18, seq: 9, id: 0xffff, payload: vec![7; 3001] };
            let whole = packet(&of, &of.payload, of.id, of.seq, of.flags);
            let cut = Super::new(&whole, l4(&of), proto(&of), 1000).unwrap();
            for n in 0..4 {
                let mut out = [0; 1100];
                let len = cut.write(n, &mut out).unwrap();
                let read = PacketHeaders::from_ip_slice(&out[..len]).unwrap();
                let payload = read.payload.slice();
                let (right, said) = match (read.net.unwrap(), read.transport.unwrap()) {
                    (NetHeaders::Ipv4(ip, _), TransportHeader::Tcp(tcp)) => {
                        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                        (tcp.calc_checksum_ipv4(&ip, payload).unwrap(), tcp.checksum)
                    }
                    (NetHeaders::Ipv4(ip, _), TransportHeader::Udp(udp)) => {
                        (udp.calc_checksum_ipv4(&ip, payload).unwrap(), udp.checksum)
                    }
                    (NetHeaders::Ipv6(ip, _), TransportHeader::Tcp(tcp)) => {
                        (tcp.calc_checksum_ipv6(&ip, payload).unwrap(), tcp.checksum)
                    }
                    (NetHeaders::Ipv6(ip, _), TransportHeader::Udp(udp)) => {
                        (udp.calc_checksum_ipv6(&ip, payload).unwrap(), udp.checksum)
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(said, right, "{v6} {tcp} {n}");
            }
        }
    }

    #[test]
    fn what_is_no_super_frame_is_refused() {
        let of = Of { v6: false, tcp: true, options: 0, flags: 0x10, seq: 1, id: 1, payload: vec![1; 100] };
        let whole = packet(&of, &of.payload, 1, 1, 0x10);
        let refused = |packet: &[u8], l4, proto, size| Super::new(packet, l4, proto, size).is_none();
        assert!(refused(&whole, 20, Proto::TCP, 0), "no size");
        assert!(refused(&whole, 20, Proto::ICMP, 50));
        assert!(refused(&whole, 19, Proto::TCP, 50));
        assert!(refused(&whole[..99], 20, Proto::TCP, 50), "not all there");
        assert!(refused(&whole[..40], 20, Proto::TCP, 50));
        let mut short = whole.clone();
        short[32] = 0x40;
        assert!(refused(&short, 20, Proto::TCP, 50), "a header too short");
        assert!(!refused(&whole, 20, Proto::TCP, 50));
    }

    #[test]
    fn too_many_segments_are_refused() {
        let of = Of { v6: false, tcp: true, options: 0, flags: 0, seq: 1, id: 1, payload: vec![1; 65_495] };
        let whole = packet(&of, &of.payload, 1, 1, 0);
        let count = |size| Super::new(&whole, 20, Proto::TCP, size).map(|cut| cut.count());
        assert_eq!((count(48), count(47)), (Some(1365), Some(1394)));
        assert_eq!((count(46), count(1)), (None, None));
    }
}
