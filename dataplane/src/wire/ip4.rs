//! IPv4 (RFC 791).

use super::{Malformed, checksum, fragment::Fragment, read, read_u16};
use crate::net::{Addr, Proto};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// What an IPv4 header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// What follows the header.
    pub proto: Proto,
    /// Time to live.
    pub ttl: u8,
    /// Bytes of the header, options included.
    pub len: usize,
    /// Bytes of header and payload.
    pub total_len: usize,
    /// Must not be fragmented.
    pub dont_fragment: bool,
    /// A fragment, the first one too.
    pub fragment: bool,
    /// A fragment that is not the first: it carries no ports.
    pub later_fragment: bool,
}

impl Header {
    /// Reads and checks a header: version, lengths against `bytes`, checksum, source routes.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let head: [u8; HEADER_LEN] = read(bytes, 0)?;
        if head[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let len = usize::from(head[0] & 0xf) * 4;
        let total_len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if len < HEADER_LEN || total_len < len {
            return Err(Malformed::Length);
        }
        let whole = bytes.get(..len).ok_or(Malformed::Truncated)?;
        if checksum::Sum::default().bytes(whole).folded() != 0xffff {
            return Err(Malformed::Checksum);
        }
        if len > HEADER_LEN && has_source_route(&whole[HEADER_LEN..]) {
            return Err(Malformed::SourceRoute);
        }
        let fragment = u16::from_be_bytes([head[6], head[7]]);
        Ok(Self {
            src: Addr::v4([head[12], head[13], head[14], head[15]]),
            dst: Addr::v4([head[16], head[17], head[18], head[19]]),
            proto: Proto(head[9]),
            ttl: head[8],
            len,
            total_len,
            dont_fragment: fragment & 0x4000 != 0,
            fragment: fragment & 0x3fff != 0,
            later_fragment: fragment & 0x1fff != 0,
        })
    }
}

/// The piece that a packet is, whose header [`Header::parse`] took for a fragment's.
pub fn fragment(bytes: &[u8]) -> Result<Fragment, Malformed> {
    let [version_len, ..]: [u8; HEADER_LEN] = read(bytes, 0)?;
    let len = usize::from(version_len & 0xf) * 4;
    let data = usize::from(read_u16(bytes, 2)?).checked_sub(len).ok_or(Malformed::Length)?;
    let (id, field) = (read_u16(bytes, 4)?, read_u16(bytes, 6)?);
    Fragment::new(id.into(), (field & 0x1fff) << 3, field & 0x2000 == 0, data, len)
}

/// Loose and strict source routes (RFC 791 §3.1). Malformed options count as one.
fn has_source_route(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        match kind {
            0 => return false,
            1 => options = rest,
            131 | 137 => return true,
            _ => match rest.first().and_then(|len| options.get(usize::from(*len).max(2)..)) {
                Some(next) => options = next,
                None => return true,
            },
        }
    }
    false
}

/// Takes one off the time to live and mends the checksum. The caller has checked that both are
/// there and that the time to live is above one.
#[inline]
pub fn decrement_ttl(header: &mut [u8]) {
    let Some(head) = header.first_chunk_mut::<HEADER_LEN>() else { return };
    head[8] = head[8].wrapping_sub(1);
    // The word of the time to live is 0x100 less, whatever it was.
    let sum = checksum::update(u16::from_be_bytes([head[10], head[11]]), 0x100, 0);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Sets the length of header and payload and sums the header, all of which is given, up anew.
#[inline]
pub fn set_len(header: &mut [u8], len: usize) {
    header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum::Sum::default().bytes(header).finish();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A header without options, its checksum set.
pub fn emit(src: Addr, dst: Addr, proto: Proto, ttl: u8, payload_len: usize) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[0] = 0x45;
    out[2..4].copy_from_slice(&((HEADER_LEN + payload_len) as u16).to_be_bytes());
    out[8] = ttl;
    out[9] = proto.0;
    out[12..16].copy_from_slice(&src.v4_octets());
    out[16..20].copy_from_slice(&dst.v4_octets());
    let sum = checksum::Sum::default().bytes(&out).finish();
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> [u8; HEADER_LEN] {
        emit("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), Proto::UDP, 64, 8)
    }

    #[test]
    fn parse_reverses_emit() {
        let read = Header::parse(&header()).unwrap();
        assert_eq!((read.src.to_string(), read.dst.to_string()), ("10.0.0.1".into(), "10.0.0.2".into()));
        assert_eq!((read.proto, read.ttl, read.len, read.total_len), (Proto::UDP, 64, 20, 28));
        assert!(!read.fragment && !read.later_fragment);
    }

    #[test]
    fn a_lower_ttl_still_sums_up() {
        for ttl in 2..=255 {
            let mut bytes = emit(Addr::v4([1, 2, 3, 4]), Addr::v4([5, 6, 7, 8]), Proto::TCP, ttl, 0);
            decrement_ttl(&mut bytes);
            assert_eq!(Header::parse(&bytes).unwrap().ttl, ttl - 1);
        }
    }

    #[test]
    fn refuses_what_is_wrong() {
        let with = |at: usize, value: u8| {
            let mut bytes = header();
            bytes[at] = value;
            bytes[10..12].fill(0);
            let sum = checksum::Sum::default().bytes(&bytes).finish();
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            Header::parse(&bytes)
        };
        assert_eq!(with(0, 0x65), Err(Malformed::Version));
        assert_eq!(with(0, 0x44), Err(Malformed::Length));
        assert_eq!(with(0, 0x46), Err(Malformed::Truncated));
        assert_eq!(with(3, 19), Err(Malformed::Length));
        let mut bad = header();
        bad[15] ^= 1;
        assert_eq!(Header::parse(&bad), Err(Malformed::Checksum));
    }

    #[test]
    fn a_fragment_says_which_piece_it_is() {
        let of = |field: u16, payload: usize| {
            let mut bytes = emit(Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2]), Proto::UDP, 64, payload);
            bytes[4..6].copy_from_slice(&[0x12, 0x34]);
            bytes[6..8].copy_from_slice(&field.to_be_bytes());
            fragment(&bytes)
        };
        let piece = |start, end, last| Ok(Fragment { id: 0x1234, start, end, last });
        assert_eq!(of(0x2000, 1480), piece(0, 1480, false));
        assert_eq!(of(0x20b9, 1480), piece(1480, 2960, false));
        assert_eq!(of(0x0172, 100), piece(2960, 3060, true));
        assert_eq!(of(0x1fff, 8), Err(Malformed::Length));
    }

    #[test]
    fn source_routes_are_found_behind_other_options() {
        assert!(has_source_route(&[1, 131, 3, 4]));
        assert!(has_source_route(&[68, 4, 5, 0, 137, 3, 4, 0]));
        assert!(!has_source_route(&[1, 1, 0, 131]));
        assert!(has_source_route(&[68, 9, 0]), "an option that runs past the end");
    }
}
