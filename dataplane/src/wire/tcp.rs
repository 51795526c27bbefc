//! TCP: the numbers of a segment that connection tracking checks (RFC 9293 §3.1, RFC 7323 §2).

use super::read;

/// Kinds of options (RFC 9293 §3.2, RFC 7323 §2.2).
const END: u8 = 0;
const NOP: u8 = 1;
const WINDOW_SCALE: u8 = 3;

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

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, TcpOptionElement};

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
