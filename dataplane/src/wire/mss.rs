//! TCP's maximum segment size, lowered where a packet passes a tunnel.
//!
//! Path MTU discovery depends on ICMP errors that are often lost; the size that both ends agree on in
//! their first segments is not. So the SYN of either end is told what the tunnel takes.

use super::{checksum, ip4, ip6, read, read_u16};
use crate::net::Proto;

const SYN: u8 = 0x02;
/// Kinds of options (RFC 9293 §3.2).
const END: u8 = 0;
const NOP: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// The fixed TCP header.
const TCP_LEN: usize = 20;

/// Lowers the maximum segment size that the IP packet announces, if it is a SYN, to what fits into IP
/// packets of `mtu` bytes. IPv6 extension headers are not looked behind: no stack sends a SYN there.
#[inline]
pub fn clamp(packet: &mut [u8], mtu: u16) {
    let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let (proto, header_len, mtu_headers) = if v6 {
        (packet.get(6), ip6::HEADER_LEN, ip6::HEADER_LEN)
    } else {
        let len = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
        (packet.get(9), len, ip4::HEADER_LEN)
    };
    if proto != Some(&Proto::TCP.0) || packet.get(header_len + 13).is_none_or(|flags| flags & SYN == 0) {
        return;
    }
    clamp_syn(packet, v6, header_len, mtu.saturating_sub((mtu_headers + TCP_LEN) as u16));
}

#[cold]
fn clamp_syn(packet: &mut [u8], v6: bool, header_len: usize, most: u16) {
    // What stands there in a later fragment is data.
    if !v6 && read_u16(packet, 6).is_ok_and(|field| field & 0x1fff != 0) {
        return;
    }
    let Some(segment) = packet.get_mut(header_len..) else { return };
    let Some(at) = find(segment) else { return };
    let (Ok([high, low]), Ok(field)) = (read::<2>(segment, at), read_u16(segment, 16)) else { return };
    let old = u16::from_be_bytes([high, low]);
    if old <= most {
        return;
    }
    segment[at..at + 2].copy_from_slice(&most.to_be_bytes());
    // Behind an odd number of bytes, the sum has the two bytes in different words, swapped.
    let (old, new) = if at % 2 == 0 { (old, most) } else { (old.swap_bytes(), most.swap_bytes()) };
    segment[16..18].copy_from_slice(&checksum::update(field, old, new).to_be_bytes());
}

/// Where the option's number begins.
fn find(segment: &[u8]) -> Option<usize> {
    let end = usize::from(segment.get(12)? >> 4) * 4;
    let options = segment.get(..end)?;
    let mut at = TCP_LEN;
    loop {
        match *options.get(at..)? {
            [] | [END, ..] => return None,
            [NOP, ..] => at += 1,
            [MAXIMUM_SEGMENT_SIZE, 4, _, _, ..] => return Some(at + 2),
            // A length counts its kind and itself.
            [_, len, ..] if len >= 2 => at += usize::from(len),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::TcpOptionElement::{self, MaximumSegmentSize, Noop, Timestamp, WindowScale};
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    fn syn(v6: bool, options: &[TcpOptionElement], flags: &str) -> Vec<u8> {
        let mut out = vec![];
        let step = if v6 {
            PacketBuilder::ipv6([7; 16], [9; 16], 64).tcp(1, 2, 3, 4)
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1, 2, 3, 4)
        };
        let step = if flags.contains('S') { step.syn() } else { step };
        let step = if flags.contains('A') { step.ack(9) } else { step };
        step.options(options).unwrap().write(&mut out, b"").unwrap();
        out
    }

    /// What it announces, its checksum being right.
    fn announced(packet: &[u8]) -> Option<u16> {
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("TCP") };
        let want = match sliced.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap()
            }
            etherparse::NetSlice::Ipv6(ip) => {
                tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(tcp.checksum(), want);
        tcp.options_iterator().find_map(|option| match option {
            Ok(MaximumSegmentSize(size)) => Some(size),
            _ => None,
        })
    }

    #[test]
    fn a_syn_announces_no_more_than_fits() {
        let behind_others = [Noop, Timestamp(1, 2), MaximumSegmentSize(1460), WindowScale(7)];
        for options in [&[MaximumSegmentSize(1460)][..], &behind_others, &[Noop, MaximumSegmentSize(9000)]] {
            for flags in ["S", "SA"] {
                let mut packet = syn(false, options, flags);
                clamp(&mut packet, 1450);
                assert_eq!(announced(&packet), Some(1410));
                let mut packet = syn(true, options, flags);
                clamp(&mut packet, 1430);
                assert_eq!(announced(&packet), Some(1370));
            }
        }
    }

    #[test]
    fn nothing_else_is_touched() {
        let mut fragment = syn(false, &[MaximumSegmentSize(1460)], "S");
        fragment[7] = 8;
        for packet in [
            syn(false, &[MaximumSegmentSize(1400)], "S"),
            syn(false, &[MaximumSegmentSize(1460)], "A"),
            syn(false, &[WindowScale(3)], "S"),
            syn(true, &[], "S"),
            fragment,
            vec![],
            vec![0x45; 20],
        ] {
            let mut after = packet.clone();
            clamp(&mut after, 1450);
            assert_eq!(after, packet);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(0u8.., 0..80), v6: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x40 | *first & 0xf };
            }
            let proto = if v6 { 6 } else { 9 };
            if let Some(byte) = bytes.get_mut(proto) {
                *byte = 6;
            }
            let len = bytes.len();
            clamp(&mut bytes, 1450);
            proptest::prop_assert_eq!(bytes.len(), len);
        }
    }
}
