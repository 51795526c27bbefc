//! IPv6 and its extension headers (RFC 8200).

use super::{Malformed, fragment::Fragment, read, read_u16};
use crate::net::{Addr, Proto};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Extension headers walked at most; more are refused.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// What an IPv6 header and its extensions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// The last header of the chain.
    pub proto: Proto,
    /// Hop limit.
    pub hop_limit: u8,
    /// Bytes of the header and its extensions.
    pub len: usize,
    /// Bytes of header and payload.
    pub total_len: usize,
    /// A fragment, the first one too.
    pub fragment: bool,
    /// A fragment that is not the first: `proto` is of the original packet, and there are no ports.
    pub later_fragment: bool,
}

impl Header {
    /// Reads the header and walks at most [`MAX_EXTENSIONS`] extensions, with lengths checked.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let head: [u8; HEADER_LEN] = read(bytes, 0)?;
        if head[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        let mut header = Self {
            src: Addr::v6(read(&head, 8)?),
            dst: Addr::v6(read(&head, 24)?),
            proto: Proto(head[6]),
            hop_limit: head[7],
            len: HEADER_LEN,
            total_len: HEADER_LEN + usize::from(u16::from_be_bytes([head[4], head[5]])),
            fragment: false,
            later_fragment: false,
        };
        if matches!(head[6], HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            header.walk(bytes)?;
        }
        Ok(header)
    }

    #[cold]
    fn walk(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        for count in 0.. {
            let kind = self.proto.0;
            if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
                break;
            }
            // Hop-by-hop options may only come first (RFC 8200 §4.1).
            if count == MAX_EXTENSIONS || (kind == HOP_BY_HOP && count > 0) {
                return Err(Malformed::Extensions);
            }
            let [next, len, routing_type, _]: [u8; 4] = read(bytes, self.len)?;
            let step = extension_len(kind, len);
            if kind == ROUTING && routing_type == 0 {
                return Err(Malformed::SourceRoute);
            }
            if kind == FRAGMENT {
                let offset = u16::from_be_bytes(read(bytes, self.len + 2)?);
                // An atomic fragment is a whole packet (RFC 6946).
                self.fragment |= offset & 0xfff9 != 0;
                self.later_fragment |= offset & 0xfff8 != 0;
            }
            self.len += step;
            self.proto = Proto(next);
            if self.len > self.total_len {
                return Err(Malformed::Length);
            }
            if self.later_fragment {
                break;
            }
        }
        Ok(())
    }
}

/// Bytes of an extension header of this kind whose length field says `len`.
const fn extension_len(kind: u8, len: u8) -> usize {
    match kind {
        FRAGMENT => 8,
        AUTHENTICATION => (len as usize + 2) * 4,
        _ => (len as usize + 1) * 8,
    }
}

/// The piece that a packet is, whose header [`Header::parse`] took for a fragment's.
pub fn fragment(bytes: &[u8]) -> Result<Fragment, Malformed> {
    let [kind]: [u8; 1] = read(bytes, 6)?;
    let (mut kind, mut at) = (kind, HEADER_LEN);
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            break;
        }
        let [next, len, high, low, id @ ..]: [u8; 8] = read(bytes, at)?;
        if kind == FRAGMENT {
            let field = u16::from_be_bytes([high, low]);
            let behind = HEADER_LEN + usize::from(read_u16(bytes, 4)?);
            let data = behind.checked_sub(at + 8).ok_or(Malformed::Length)?;
            let id = u32::from_be_bytes(id);
            // What the payload length of the whole packet counts: extensions, not the header.
            return Fragment::new(id, field & 0xfff8, field & 1 == 0, data, at - HEADER_LEN);
        }
        at += extension_len(kind, len);
        kind = next;
    }
    Err(Malformed::Value)
}

/// Takes one off the hop limit. The caller has checked that it is above one.
#[inline]
pub fn decrement_hop_limit(header: &mut [u8]) {
    if let Some(hop_limit) = header.get_mut(7) {
        *hop_limit = hop_limit.wrapping_sub(1);
    }
}

/// A fixed header.
pub fn emit(src: Addr, dst: Addr, proto: Proto, hop_limit: u8, payload_len: usize) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[0] = 0x60;
    out[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
    out[6] = proto.0;
    out[7] = hop_limit;
    out[8..24].copy_from_slice(&src.octets());
    out[24..40].copy_from_slice(&dst.octets());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, extensions: &[u8]) -> Vec<u8> {
        let (src, dst) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let mut out = emit(src, dst, Proto(first), 64, extensions.len() + 8).to_vec();
        out.extend(extensions);
        out.extend([0; 8]);
        out
    }

    #[test]
    fn walks_to_the_transport() {
        let header = Header::parse(&packet(17, &[])).unwrap();
        assert_eq!((header.proto, header.len, header.total_len), (Proto::UDP, 40, 48));
        // Hop-by-hop, destination options of 16 bytes, then UDP.
        let mut chain = vec![DESTINATION, 0, 0, 0, 0, 0, 0, 0];
        chain.extend([17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let header = Header::parse(&packet(HOP_BY_HOP, &chain)).unwrap();
        assert_eq!((header.proto, header.len), (Proto::UDP, 40 + 8 + 16));
    }

    #[test]
    fn fragments() {
        let of = |offset: [u8; 2]| {
            Header::parse(&packet(FRAGMENT, &[17, 0, offset[0], offset[1], 0, 0, 0, 1])).unwrap()
        };
        assert!(!of([0, 0]).fragment, "atomic");
        assert!(of([0, 1]).fragment && !of([0, 1]).later_fragment, "first");
        assert!(of([0, 8]).later_fragment, "last");
    }

    #[test]
    fn a_fragment_says_which_piece_it_is() {
        let header = |field: u16| [&[17, 0][..], &field.to_be_bytes(), &[1, 2, 3, 4]].concat();
        let piece = |start, end, last| Ok(Fragment { id: 0x0102_0304, start, end, last });
        assert_eq!(fragment(&packet(FRAGMENT, &header(1))), piece(0, 8, false));
        assert_eq!(fragment(&packet(FRAGMENT, &header(1480))), piece(1480, 1488, true));
        let behind_options = [&[FRAGMENT, 0, 0, 0, 0, 0, 0, 0][..], &header(1481)].concat();
        assert_eq!(fragment(&packet(HOP_BY_HOP, &behind_options)), piece(1480, 1488, false));
        assert_eq!(fragment(&packet(FRAGMENT, &header(0xfff8))), Err(Malformed::Length));
        assert_eq!(fragment(&packet(17, &[])), Err(Malformed::Value));
    }

    #[test]
    fn refuses_what_is_wrong() {
        let nine: Vec<u8> = std::iter::repeat_n([DESTINATION, 0, 0, 0, 0, 0, 0, 0], 9).flatten().collect();
        assert_eq!(Header::parse(&packet(DESTINATION, &nine)), Err(Malformed::Extensions));
        let late_hop = [HOP_BY_HOP, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Header::parse(&packet(DESTINATION, &late_hop)), Err(Malformed::Extensions));
        let type0 = [17, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Header::parse(&packet(ROUTING, &type0)), Err(Malformed::SourceRoute));
        let long = [17, 200, 0, 0, 0, 0, 0, 0];
        assert_eq!(Header::parse(&packet(DESTINATION, &long)), Err(Malformed::Length));
        assert_eq!(Header::parse(&packet(17, &[])[..39]), Err(Malformed::Truncated));
    }
}
