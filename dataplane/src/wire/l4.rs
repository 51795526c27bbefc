//! What policy and conntrack need of the transport header: ports, TCP flags, ICMP type and code.

use super::{Malformed, checksum, crc32c, ends, icmp, read};
use crate::net::{Addr, FlowKey, Icmp, Proto};

/// What the first bytes behind the IP header say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Source port, or an ICMP echo's identifier.
    pub sport: u16,
    /// Destination port, or an ICMP echo's identifier, or another ICMP's type and code.
    pub dport: u16,
    /// Flags byte of TCP, else 0.
    pub tcp_flags: u8,
    /// Type and code of ICMP, else 0.
    pub icmp: Icmp,
}

impl Header {
    /// Reads and checks the header of `proto` in `bytes`, all that the IP packet carries.
    #[inline]
    pub fn parse(proto: Proto, bytes: &[u8]) -> Result<Self, Malformed> {
        match proto {
            Proto::TCP => {
                let head: [u8; 20] = read(bytes, 0)?;
                let data = usize::from(head[12] >> 4) * 4;
                if data < 20 || data > bytes.len() {
                    return Err(Malformed::Length);
                }
                Ok(Self { tcp_flags: head[13], ..Self::ports(&head) })
            }
            Proto::UDP => {
                let head: [u8; 8] = read(bytes, 0)?;
                let len = usize::from(u16::from_be_bytes([head[4], head[5]]));
                if len < 8 || len > bytes.len() {
                    return Err(Malformed::Length);
                }
                Ok(Self::ports(&head))
            }
            // UDP-Lite's third word is the coverage, not a length (RFC 3828 §3.1).
            Proto::UDPLITE => read::<8>(bytes, 0).map(|head| Self::ports(&head)),
            Proto::SCTP => read::<12>(bytes, 0).map(|head| Self::ports(&head)),
            Proto::ICMP | Proto::ICMP6 => {
                let [kind, code, _, _, id0, id1, ..]: [u8; 8] = read(bytes, 0)?;
                let icmp = Icmp { kind, code };
                let (sport, dport) = if icmp::is_echo(proto, icmp) {
                    let id = u16::from_be_bytes([id0, id1]);
                    (id, id)
                } else {
                    (0, u16::from_be_bytes([kind, code]))
                };
                Ok(Self { sport, dport, tcp_flags: 0, icmp })
            }
            _ => Ok(Self::default()),
        }
    }

    /// The same of the first fragment of a packet, which carries `bytes` of it. It must carry the
    /// whole header ([`Malformed::Truncated`] otherwise): what is judged by is not to come in pieces.
    pub fn parse_first(proto: Proto, bytes: &[u8]) -> Result<Self, Malformed> {
        match proto {
            Proto::UDP => {
                let head: [u8; 8] = read(bytes, 0)?;
                if u16::from_be_bytes([head[4], head[5]]) < 8 {
                    return Err(Malformed::Length);
                }
                Ok(Self::ports(&head))
            }
            Proto::TCP
                if read::<20>(bytes, 0).is_ok_and(|head| usize::from(head[12] >> 4) * 4 > bytes.len()) =>
            {
                Err(Malformed::Truncated)
            }
            _ => Self::parse(proto, bytes),
        }
    }

    /// Bytes of the header of `proto` at least, in which no later fragment may begin.
    pub const fn min_len(proto: Proto) -> u16 {
        match proto {
            Proto::TCP => 20,
            Proto::SCTP => 12,
            Proto::UDP | Proto::UDPLITE | Proto::ICMP | Proto::ICMP6 => 8,
            _ => 0,
        }
    }

    #[inline]
    fn ports(head: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        Self { sport: word(0), dport: word(2), ..Self::default() }
    }
}

/// The flow key of a packet that [`Header::parse`] accepted, read again from its bytes: cheaper
/// than carrying 40 bytes along.
#[inline]
pub fn flow_key(l3: &[u8], l4: &[u8], v6: bool, proto: Proto, icmp: Icmp) -> FlowKey {
    let (src, dst) = ends(l3, v6);
    let [a, b, c, d]: [u8; 4] = read(l4, 0).unwrap_or_default();
    let (sport, dport) = if proto.has_ports() {
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    } else if proto.is_icmp() {
        if icmp::is_echo(proto, icmp) {
            let id = u16::from_be_bytes(read(l4, 4).unwrap_or_default());
            (id, id)
        } else {
            (0, u16::from_be_bytes([icmp.kind, icmp.code]))
        }
    } else {
        (0, 0)
    };
    FlowKey { src, dst, sport, dport, proto }
}

/// Where the checksum stands in the header of `proto`, for those whose checksum a local stack
/// may leave to the hardware.
pub const fn checksum_offset(proto: Proto) -> Option<usize> {
    match proto {
        Proto::TCP => Some(16),
        Proto::UDP => Some(6),
        _ => None,
    }
}

/// Finishes a checksum that the sender left to hardware that is not there.
///
/// Such a packet carries only the pseudo-header's sum, not complemented, in the field; SCTP's is
/// zero. A complete checksum that happens to look like that is computed again to the same value, so
/// nothing is lost by guessing. Returns whether it was computed.
#[inline]
pub fn repair_partial_checksum(src: Addr, dst: Addr, proto: Proto, segment: &mut [u8]) -> bool {
    if proto == Proto::SCTP {
        return repair_sctp(segment);
    }
    let Some(at) = checksum_offset(proto) else { return false };
    let Ok(field) = read::<2>(segment, at).map(u16::from_be_bytes) else { return false };
    let pseudo = checksum::Sum::default().pseudo_header(src, dst, proto, segment.len() as u32);
    if field != pseudo.folded() {
        return false;
    }
    segment[at..at + 2].fill(0);
    let sum = match pseudo.bytes(segment).finish() {
        // Zero means "none" in UDP (RFC 768).
        0 if proto == Proto::UDP => 0xffff,
        sum => sum,
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Leaves of the checksum of `segment` only the pseudo-header's sum, as a local stack does for hardware: what makes
/// segments of a super-frame begins from there. `header`: the segment's bytes or as many of them as the field is in, of
/// `len`.
pub fn seed_checksum(src: Addr, dst: Addr, proto: Proto, header: &mut [u8], len: usize) {
    let pseudo = checksum::Sum::default().pseudo_header(src, dst, proto, len as u32).folded();
    if let Some(field) = checksum_offset(proto).and_then(|at| header.get_mut(at..at + 2)) {
        field.copy_from_slice(&pseudo.to_be_bytes());
    }
}

#[cold]
fn repair_sctp(segment: &mut [u8]) -> bool {
    const FIELD: std::ops::Range<usize> = crc32c::OFFSET..crc32c::OFFSET + 4;
    if segment.get(FIELD) != Some(&[0; 4]) {
        return false;
    }
    let sum = crc32c::of_sctp(segment);
    segment[FIELD].copy_from_slice(&sum.to_le_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    const SRC: [u8; 4] = [10, 0, 0, 1];
    const DST: [u8; 4] = [10, 0, 0, 2];

    fn udp(payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ipv4(SRC, DST, 64).udp(1000, 53);
        let mut out = vec![];
        builder.write(&mut out, payload).unwrap();
        out.split_off(20)
    }

    #[test]
    fn a_partial_checksum_is_finished_and_a_whole_one_left() {
        let good = udp(b"a payload of odd length");
        let mut partial = good.clone();
        let pseudo = checksum::Sum::default()
            .pseudo_header(Addr::v4(SRC), Addr::v4(DST), Proto::UDP, good.len() as u32)
            .folded();
        partial[6..8].copy_from_slice(&pseudo.to_be_bytes());
        assert!(repair_partial_checksum(Addr::v4(SRC), Addr::v4(DST), Proto::UDP, &mut partial));
        assert_eq!(partial, good);
        assert!(!repair_partial_checksum(Addr::v4(SRC), Addr::v4(DST), Proto::UDP, &mut partial));
        assert_eq!(partial, good);
    }

    #[test]
    fn an_sctp_checksum_that_was_left_out_is_computed() {
        let addr = Addr::v4(SRC);
        let mut packet = [7; 40];
        packet[8..12].fill(0);
        assert!(repair_partial_checksum(addr, addr, Proto::SCTP, &mut packet));
        assert_eq!(packet[8..12], crc32c::of_sctp(&packet).to_le_bytes());
        assert!(!repair_partial_checksum(addr, addr, Proto::SCTP, &mut packet), "it is there");
        assert!(!repair_partial_checksum(addr, addr, Proto::SCTP, &mut packet[..11]));
    }

    #[test]
    fn lengths_are_checked() {
        let mut bytes = udp(b"xy");
        assert_eq!(Header::parse(Proto::UDP, &bytes).map(|h| (h.sport, h.dport)), Ok((1000, 53)));
        bytes[5] = 11;
        assert_eq!(Header::parse(Proto::UDP, &bytes), Err(Malformed::Length));
        bytes[5] = 7;
        assert_eq!(Header::parse(Proto::UDP, &bytes), Err(Malformed::Length));
        for (proto, len) in [(Proto::TCP, 19), (Proto::UDP, 7), (Proto::SCTP, 11), (Proto::ICMP, 7)] {
            assert_eq!(Header::parse(proto, &vec![0; len]), Err(Malformed::Truncated), "{proto}");
        }
        let mut tcp = [0; 24];
        tcp[12] = 0x40;
        assert_eq!(Header::parse(Proto::TCP, &tcp), Err(Malformed::Length));
        tcp[12] = 0x70;
        assert_eq!(Header::parse(Proto::TCP, &tcp), Err(Malformed::Length));
    }

    #[test]
    fn a_first_fragment_has_the_whole_header_and_not_the_whole_packet() {
        let mut bytes = udp(b"xy");
        bytes[4..6].copy_from_slice(&8008u16.to_be_bytes());
        assert_eq!(Header::parse_first(Proto::UDP, &bytes).map(|h| (h.sport, h.dport)), Ok((1000, 53)));
        bytes[4..6].copy_from_slice(&7u16.to_be_bytes());
        assert_eq!(Header::parse_first(Proto::UDP, &bytes), Err(Malformed::Length));
        let mut tcp = [0; 24];
        tcp[12] = 0x60;
        assert!(Header::parse_first(Proto::TCP, &tcp).is_ok());
        tcp[12] = 0x70;
        assert_eq!(Header::parse_first(Proto::TCP, &tcp), Err(Malformed::Truncated), "options are cut");
        for proto in [Proto::TCP, Proto::UDP, Proto::SCTP, Proto::ICMP, Proto::ICMP6] {
            let cut = vec![0; usize::from(Header::min_len(proto)) - 1];
            assert_eq!(Header::parse_first(proto, &cut), Err(Malformed::Truncated), "{proto}");
        }
    }

    #[test]
    fn an_echo_and_its_reply_share_a_key() {
        let request = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
        let reply = [0, 0, 0, 0, 0x12, 0x34, 0, 1];
        let there = Header::parse(Proto::ICMP, &request).unwrap();
        let back = Header::parse(Proto::ICMP, &reply).unwrap();
        assert_eq!((there.sport, there.dport), (back.dport, back.sport));
    }
}
