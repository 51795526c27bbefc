//! TCP: the numbers of a segment that connection tracking checks (RFC 9293 §3.1, RFC 7323 §2), and the
//! reset that answers one which nobody takes.

use super::{checksum::Sum, ip4, ip6, read};
use crate::net::{FlowKey, Proto};

/// Kinds of options (RFC 9293 §3.2, RFC 7323 §2.2).
const END: u8 = 0;
const NOP: u8 = 1;
const WINDOW_SCALE: u8 = 3;

const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// The longest reset we make.
pub const MAX_RESET: usize = ip6::HEADER_LEN + RESET_LEN;
const RESET_LEN: usize = 20;

/// The fixed part of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Sequence number of the first byte, or of SYN or FIN.
    pub seq: u32,
    /// What the sender expects next, with ACK set.
    pub ack: u32,
    /// As it stands there, not scaled.
    pub window: u16,
    /// Flags byte.
    pub flags: u8,
    /// Options included.
    pub len: u8,
}

impl Header {
    /// Reads the header of a segment that [`l4::Header::parse`](super::l4::Header::parse) accepted.
    #[inline]
    pub fn read(segment: &[u8]) -> Self {
        let head: [u8; 20] = read(segment, 0).unwrap_or_default();
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = head;
        Self {
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            window: u16::from_be_bytes([w0, w1]),
            flags,
            len: (offset >> 4) * 4,
        }
    }

    /// The window scale option among the options of `segment`, which begins with this header. It
    /// counts in a SYN only.
    pub fn window_scale(&self, segment: &[u8]) -> Option<u8> {
        let mut options = segment.get(20..usize::from(self.len))?;
        loop {
            options = match *options {
                [] | [END, ..] => return None,
                [NOP, ref rest @ ..] => rest,
                [WINDOW_SCALE, 3, shift, ..] => return Some(shift),
                // A length counts its kind and itself.
                [_, len, ..] if len >= 2 => options.get(usize::from(len)..)?,
                _ => return None,
            };
        }
    }
}

/// Writes the IP packet that refuses `segment`, all that the packet of this key carries, into `out`,
/// as the closed port that it was meant for would (RFC 9293 §3.10.7.1). Returns its length, or `None`
/// where a reset is not answered, or `out` is too short.
pub fn emit_reset(key: &FlowKey, segment: &[u8], out: &mut [u8]) -> Option<usize> {
    let refused = Header::read(segment);
    if refused.flags & RST != 0 {
        return None;
    }
    let (seq, ack, flags) = match refused.flags & ACK != 0 {
        true => (refused.ack, 0, RST),
        false => {
            let data = segment.len().saturating_sub(refused.len.into()) as u32;
            let taken = data + u32::from(refused.flags & SYN != 0) + u32::from(refused.flags & FIN != 0);
            (0, refused.seq.wrapping_add(taken), RST | ACK)
        }
    };
    let (from, to) = (key.dst, key.src);
    let header_len = if from.is_v4() { ip4::HEADER_LEN } else { ip6::HEADER_LEN };
    let (header, body) = out.get_mut(..header_len + RESET_LEN)?.split_at_mut(header_len);
    match from.is_v4() {
        true => header.copy_from_slice(&ip4::emit(from, to, Proto::TCP, 64, RESET_LEN)),
        false => header.copy_from_slice(&ip6::emit(from, to, Proto::TCP, 64, RESET_LEN)),
    }
    body.fill(0);
    body[..2].copy_from_slice(&key.dport.to_be_bytes());
    body[2..4].copy_from_slice(&key.sport.to_be_bytes());
    body[4..8].copy_from_slice(&seq.to_be_bytes());
    body[8..12].copy_from_slice(&ack.to_be_bytes());
    (body[12], body[13]) = ((RESET_LEN as u8 / 4) << 4, flags);
    let sum = Sum::default().pseudo_header(from, to, Proto::TCP, RESET_LEN as u32).bytes(body).finish();
    body[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(header_len + RESET_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Addr;
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};

    fn segment(options: &[TcpOptionElement]) -> Vec<u8> {
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1, 2, 0xfedc_ba98, 4321);
        let mut out = vec![];
        builder.ack(0x0123_4567).psh().options(options).unwrap().write(&mut out, b"data").unwrap();
        out.split_off(20)
    }

    #[test]
    fn numbers_are_where_they_belong() {
        let header = Header::read(&segment(&[TcpOptionElement::Noop]));
        let want = Header { seq: 0xfedc_ba98, ack: 0x0123_4567, window: 4321, flags: 0x18, len: 24 };
        assert_eq!(header, want);
        assert_eq!(Header::read(&[0; 7]), Header::default(), "cut short");
    }

    #[test]
    fn the_scale_is_found_among_other_options() {
        use TcpOptionElement::{MaximumSegmentSize, Noop, SelectiveAcknowledgementPermitted, WindowScale};
        let scale = |options: &[TcpOptionElement]| {
            let bytes = segment(options);
            Header::read(&bytes).window_scale(&bytes)
        };
        let linux = [MaximumSegmentSize(1460), SelectiveAcknowledgementPermitted, Noop, WindowScale(7)];
        assert_eq!(scale(&linux), Some(7));
        assert_eq!(scale(&[WindowScale(0)]), Some(0));
        assert_eq!(scale(&[MaximumSegmentSize(536), Noop]), None);
        assert_eq!(scale(&[]), None);
    }

    #[test]
    fn a_reset_has_the_numbers_that_its_receiver_expects() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")] {
            let [src, dst]: [Addr; 2] = [src, dst].map(|text| text.parse().unwrap());
            let key = FlowKey { src, dst, sport: 4000, dport: 80, proto: Proto::TCP };
            // Sequence and acknowledgment numbers of what is refused, its flags and data; of the reset.
            for (seq, ack, flags, data, reset) in [
                (7, 0, SYN, 0, Some((0, Some(8)))),
                (u32::MAX, 0, SYN | FIN, 10, Some((0, Some(11)))),
                (7, 9, ACK, 3, Some((9, None))),
                (7, 9, SYN | ACK, 0, Some((9, None))),
                (7, 9, RST, 0, None),
                (7, 9, RST | ACK, 0, None),
            ] {
                let mut refused = vec![0; 20 + data];
                refused[4..8].copy_from_slice(&u32::to_be_bytes(seq));
                refused[8..12].copy_from_slice(&u32::to_be_bytes(ack));
                (refused[12], refused[13]) = (0x50, flags);
                let mut out = [0xff; MAX_RESET];
                let len = emit_reset(&key, &refused, &mut out);
                let Some((seq, ack)) = reset else {
                    assert_eq!(len, None);
                    continue;
                };
                let parsed = SlicedPacket::from_ip(&out[..len.unwrap()]).unwrap();
                let TransportSlice::Tcp(tcp) = parsed.transport.unwrap() else { panic!("no TCP") };
                let sum = match parsed.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        let header = ip.header();
                        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                        tcp.calc_checksum_ipv4(header.source(), header.destination())
                    }
                    NetSlice::Ipv6(ip) => {
                        tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!((tcp.checksum(), tcp.rst()), (sum.unwrap(), true));
                assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 4000));
                assert_eq!((tcp.sequence_number(), tcp.ack()), (seq, ack.is_some()));
                assert_eq!(tcp.acknowledgment_number(), ack.unwrap_or(0));
                assert_eq!(emit_reset(&key, &refused, &mut [0; 39]), None, "no room");
            }
        }
    }

    #[test]
    fn broken_options_end_the_search() {
        for options in [
            [3, 2, 7, 0],
            [3, 4, 7, 1],
            [2, 0, 3, 3],
            [2, 1, 3, 3],
            [1, 1, 1, 3],
            [0, 3, 3, 7],
            [8, 200, 3, 3],
        ] {
            let mut bytes = segment(&[TcpOptionElement::Noop]);
            bytes[20..24].copy_from_slice(&options);
            assert_eq!(Header::read(&bytes).window_scale(&bytes), None, "{options:?}");
        }
    }
}
