//! SCTP: the tags and the chunks that connection tracking looks at (RFC 9260 §3).

use super::read;

/// Bytes of the common header.
const HEADER: usize = 12;
/// Bytes of a chunk's own header.
const CHUNK: usize = 4;
/// Chunks looked at. Those that open or end an association are among a packet's first.
const MOST: usize = 64;
/// Types from this one on have no bit of their own: extensions, which an association uses once it
/// is established, like DATA.
const EXTENSIONS: u8 = 16;

/// Chunk types (RFC 9260 §3.2).
pub mod chunk {
    /// User data; here also every type that is not named.
    pub const DATA: u8 = 0;
    /// Opens an association.
    pub const INIT: u8 = 1;
    /// Answers INIT.
    pub const INIT_ACK: u8 = 2;
    /// Asks whether the other end is there.
    pub const HEARTBEAT: u8 = 4;
    /// Ends the association at once.
    pub const ABORT: u8 = 6;
    /// No more data from the sender.
    pub const SHUTDOWN: u8 = 7;
    /// Answers SHUTDOWN.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Sends back the cookie of INIT ACK.
    pub const COOKIE_ECHO: u8 = 10;
    /// Answers COOKIE ECHO.
    pub const COOKIE_ACK: u8 = 11;
    /// Answers SHUTDOWN ACK.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// What a packet is, to those who look on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Verification tag.
    pub tag: u32,
    /// The Initiate Tag of INIT and INIT ACK, which packets to its sender will carry; else 0.
    pub initiate: u32,
    /// A bit for each type of chunk in it, by [`chunk`]'s number. None: it is malformed.
    pub chunks: u16,
    /// ABORT or SHUTDOWN COMPLETE from an end that has no association: `tag` is the one it was sent (the T
    /// bit, §8.5.1).
    pub reflected: bool,
}

impl Header {
    /// Reads the packet that [`l4::Header::parse`](super::l4::Header::parse) accepted, or as much of it as is
    /// there.
    pub fn read(packet: &[u8]) -> Self {
        let tag = u32::from_be_bytes(read(packet, 4).unwrap_or_default());
        let mut header = Self { tag, ..Self::default() };
        let mut at = HEADER;
        for _ in 0..MOST {
            let Ok([kind, flags, len @ ..]) = read::<CHUNK>(packet, at) else { break };
            let len = usize::from(u16::from_be_bytes(len));
            if len < CHUNK {
                return Self { chunks: 0, ..header };
            }
            match kind {
                chunk::INIT | chunk::INIT_ACK => {
                    header.initiate = u32::from_be_bytes(read(packet, at + CHUNK).unwrap_or_default());
                }
                chunk::ABORT | chunk::SHUTDOWN_COMPLETE => header.reflected |= flags & 1 != 0,
                _ => {}
            }
            header.chunks |= 1 << if kind < EXTENSIONS { kind } else { chunk::DATA };
            // Each begins at a multiple of four.
            at += len.next_multiple_of(4);
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![0x0f, 0xa0, 0, 80, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0];
        chunks.iter().for_each(|chunk| packet.extend_from_slice(chunk));
        packet
    }

    #[test]
    fn tags_and_chunks_are_where_they_belong() {
        let init = [1, 0, 0, 20, 1, 2, 3, 4, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 9];
        let want = Header { tag: 0xdead_beef, initiate: 0x0102_0304, chunks: 1 << 1, reflected: false };
        assert_eq!(Header::read(&packet(&[&init])), want);
        // A cookie of five bytes is padded; then data, then an extension.
        let bundle = [&[10, 0, 0, 9, 1, 2, 3, 4, 5, 0, 0, 0][..], &[0, 3, 0, 17], &[7; 16]];
        assert_eq!(Header::read(&packet(&bundle)).chunks, 1 << 10 | 1);
        assert_eq!(Header::read(&packet(&[&[0xc0, 0, 0, 8, 0, 0, 0, 0]])).chunks, 1);
        for (flags, reflected) in [(0, false), (1, true)] {
            assert_eq!(Header::read(&packet(&[&[14, flags, 0, 4]])).reflected, reflected);
        }
    }

    #[test]
    fn what_is_cut_short_is_read_as_far_as_it_goes() {
        let long = packet(&[&[3, 0, 0, 4], &[0, 3, 0xff, 0xff, 1]]);
        assert_eq!(Header::read(&long).chunks, 1 << 3 | 1);
        assert_eq!(Header::read(&packet(&[&[1, 0, 0, 20, 9]])).initiate, 0);
        assert_eq!((Header::read(&packet(&[])).chunks, Header::read(&[]).chunks), (0, 0));
        for len in 0..4 {
            assert_eq!(Header::read(&packet(&[&[3, 0, 0, 4], &[0, 0, 0, len]])).chunks, 0, "malformed");
        }
        let many = vec![[3, 0, 0, 4]; 1000].concat();
        assert_eq!(Header::read(&packet(&[&many, &[6, 0, 0, 4]])).chunks, 1 << 3, "the end is far");
    }
}
