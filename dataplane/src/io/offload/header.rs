//! What stands before each frame: `struct virtio_net_hdr` (Virtio 1.2 §5.1.6), in the machine's byte order.

use crate::net::Proto;
use crate::packet::{Gso, L4Checksum, Packet, PacketFlags};
use crate::wire::checksum::Sum;
use crate::wire::l4::checksum_offset;

/// Bytes of it.
pub(super) const HEADER: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;
/// Or'ed to the kind: the first segment alone has CWR.
const ECN: u8 = 0x80;

const CWR: u8 = 1 << 7;

/// The header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    gso: u8,
    headers: u16,
    size: u16,
    start: u16,
    offset: u16,
}

impl Header {
    /// As it was read.
    pub fn parse(bytes: &[u8; HEADER]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso: bytes[1],
            headers: word(2),
            size: word(4),
            start: word(6),
            offset: word(8),
        }
    }

    /// To be written.
    pub fn bytes(&self) -> [u8; HEADER] {
        let [a, b] = self.headers.to_ne_bytes();
        let [c, d] = self.size.to_ne_bytes();
        let [e, f] = self.start.to_ne_bytes();
        let [g, h] = self.offset.to_ne_bytes();
        [self.flags, self.gso, a, b, c, d, e, f, g, h]
    }

    /// Of a packet that leaves: a super-frame's says how it is to be cut.
    pub fn of(packet: &Packet<'_>) -> Self {
        let meta = &packet.meta;
        let Some(proto) = packet.gso_proto() else { return Self::default() };
        let v6 = meta.flags.has(PacketFlags::V6);
        Self::of_super(packet, v6, usize::from(meta.l4 - meta.data), proto, meta.gso_size)
    }

    /// Of a super-frame whose transport header is at `l4`.
    pub fn of_super(packet: &Packet<'_>, v6: bool, l4: usize, proto: Proto, size: u16) -> Self {
        let head = packet.bytes().get(l4..).unwrap_or_default();
        let (len, flags) = match (proto, head) {
            (Proto::TCP, [_, _, _, _, _, _, _, _, _, _, _, _, len, flags, ..]) => {
                (usize::from(len >> 4) * 4, *flags)
            }
            _ => (8, 0),
        };
        let kind = match (proto, v6) {
            (Proto::TCP, false) => TCP4,
            (Proto::TCP, true) => TCP6,
            _ => UDP,
        };
        Self {
            flags: NEEDS_CHECKSUM,
            gso: kind | if flags & CWR != 0 { ECN } else { 0 },
            headers: (l4 + len) as u16,
            size,
            start: l4 as u16,
            offset: checksum_offset(proto).unwrap_or_default() as u16,
        }
    }

    /// Does to a packet that came what it says. A super-frame's checksum is left to whoever makes segments of it; any other
    /// is complete then.
    pub fn apply(&self, packet: &mut Packet<'_>) {
        packet.meta.checksum = L4Checksum::Complete;
        packet.meta.gso = match self.gso & !ECN {
            TCP4 | TCP6 => Gso::Tcp,
            UDP => Gso::Udp,
            _ => Gso::None,
        };
        if packet.meta.gso != Gso::None && self.size > 0 {
            packet.meta.gso_size = self.size;
            packet.meta.l4 = packet.meta.data.saturating_add(self.start);
            packet.meta.checksum = L4Checksum::MaybePartial;
            return;
        }
        packet.meta.gso = Gso::None;
        if self.flags & NEEDS_CHECKSUM != 0 {
            complete(packet.bytes_mut(), self.start.into(), self.offset.into());
        }
    }
}

/// Completes a checksum over the bytes from `start` on, whose field, `offset` behind, has the sum so far.
fn complete(bytes: &mut [u8], start: usize, offset: usize) {
    let Some(covered) = bytes.get_mut(start..).filter(|covered| covered.len() >= offset + 2) else { return };
    let sum = match Sum::default().bytes(covered).finish() {
        // Zero means "none" in UDP (RFC 768), and the same as this anywhere else.
        0 => 0xffff,
        sum => sum,
    };
    covered[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frames, Pool};
    use etherparse::PacketBuilder;

    #[test]
    fn it_reads_as_it_is_written() {
        let header = Header { flags: 1, gso: 0x81, headers: 66, size: 1448, start: 34, offset: 16 };
        assert_eq!(Header::parse(&header.bytes()), header);
        assert_eq!(header.bytes()[..2], [1, 0x81]);
        assert_eq!(u16::from_ne_bytes([header.bytes()[4], header.bytes()[5]]), 1448);
    }

    #[test]
    fn checksums_that_were_left_out_are_completed_wherever_they_are() {
        let mut pool = Pool::new(Frames::new(64, 2048, false).unwrap(), 64);
        let mut frame = vec![];
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.udp(1, 2).write(&mut frame, b"an odd number of bytes!").unwrap();
        let mut partial = frame.clone();
        let sum = Sum::default().bytes(&frame[26..34]).word(17).word((frame.len() - 34) as u16).folded();
        partial[40..42].copy_from_slice(&sum.to_be_bytes());
        let mut idx = pool.alloc().unwrap();
        let mut packet = pool.get(&mut idx);
        packet.fill(&partial);
        Header { flags: 1, start: 34, offset: 6, ..Header::default() }.apply(&mut packet);
        assert_eq!(packet.bytes(), frame);
        // What leads out of the packet is not followed.
        Header { flags: 1, start: 60_000, offset: 6, ..Header::default() }.apply(&mut packet);
        Header { flags: 1, start: 34, offset: u16::MAX, ..Header::default() }.apply(&mut packet);
        assert_eq!(packet.bytes(), frame);
        assert_eq!(Header::of(&packet), Header::default());
        pool.free(idx);
    }

    #[test]
    fn a_super_frame_leaves_as_it_came() {
        let mut pool = Pool::new(Frames::with_large(64, 2048, 1, false).unwrap(), 64);
        for v6 in [false, true] {
            let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
            let builder =
                if v6 { builder.ipv6([1; 16], [2; 16], 64) } else { builder.ipv4([1; 4], [2; 4], 64) };
            let mut frame = vec![];
            builder.tcp(1, 2, 3, 4).cwr().ack(1).write(&mut frame, &[7; 10_000]).unwrap();
            let mut idx = pool.alloc_large().unwrap();
            let mut packet = pool.get(&mut idx);
            packet.fill(&frame);
            let (kind, start) = if v6 { (TCP6, 54) } else { (TCP4, 34) };
            let header =
                Header { flags: 1, gso: kind | ECN, headers: start + 20, size: 1000, start, offset: 16 };
            header.apply(&mut packet);
            if v6 {
                packet.meta.flags.set(PacketFlags::V6);
            }
            assert_eq!((packet.meta.gso, packet.count()), (Gso::Tcp, 10));
            assert_eq!(packet.meta.checksum, L4Checksum::MaybePartial);
            assert_eq!(Header::of(&packet), header);
            pool.free(idx);
        }
    }
}
