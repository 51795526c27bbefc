//! Cutting an IPv4 packet into fragments (RFC 791 §3.2).

use super::ip4::{self, HEADER_LEN};
use super::read_u16;

/// The packet may be cut on its way: IPv4, without the flag that forbids it.
#[inline]
pub fn is_allowed(packet: &[u8]) -> bool {
    matches!(packet, [first, _, _, _, _, _, flags, ..] if first >> 4 == 4 && flags & 0x40 == 0)
}

/// Pieces of at most `mtu` bytes that the packet comes to; `None`: it cannot be cut that small, or its
/// header contradicts itself.
pub fn pieces(packet: &[u8], mtu: u16) -> Option<usize> {
    let (header, data) = parts(packet)?;
    let room = room(header.len(), mtu)?;
    Some(data.len().div_ceil(room))
}

/// Writes piece `n` of a packet into `out`, and returns its length; `None` where there is no such piece,
/// or no room for it.
///
/// A fragment is cut into fragments of the same packet. Options that are for the first fragment only
/// become no-operations in the others, so that all headers are of one length.
pub fn write(packet: &[u8], mtu: u16, n: usize, out: &mut [u8]) -> Option<usize> {
    let (header, data) = parts(packet)?;
    let room = room(header.len(), mtu)?;
    let piece = data.chunks(room).nth(n)?;
    let last = (n + 1) * room >= data.len();
    let len = header.len() + piece.len();
    let (new, body) = out.get_mut(..len)?.split_at_mut(header.len());
    new.copy_from_slice(header);
    body.copy_from_slice(piece);
    let field = read_u16(header, 6).ok()?;
    let start = usize::from(field & 0x1fff) + n * room / 8;
    let more = if last { field & 0x2000 } else { 0x2000 };
    let start = u16::try_from(start).ok().filter(|start| *start <= 0x1fff)?;
    new[6..8].copy_from_slice(&(more | start).to_be_bytes());
    if n > 0 {
        blank(&mut new[HEADER_LEN..]);
    }
    ip4::set_len(new, len);
    Some(len)
}

/// Header and what it heads.
fn parts(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(packet.first()? & 0xf) * 4;
    let total = usize::from(read_u16(packet, 2).ok()?);
    if len < HEADER_LEN || total <= len {
        return None;
    }
    packet.get(..total)?.split_at_checked(len)
}

/// Bytes of data in each piece but the last.
fn room(header_len: usize, mtu: u16) -> Option<usize> {
    let room = usize::from(mtu).checked_sub(header_len)? / 8 * 8;
    (room > 0).then_some(room)
}

/// Options without the flag that copies them into every fragment become no-operations.
fn blank(mut options: &mut [u8]) {
    const NOP: u8 = 1;
    while let [kind, len, ..] = options {
        let len = match *kind {
            0 => return,
            NOP => 1,
            _ => usize::from(*len).max(2),
        };
        if len > options.len() {
            return;
        }
        let (option, rest) = options.split_at_mut(len);
        if option[0] & 0x80 == 0 {
            option.fill(NOP);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Addr, Proto};
    use crate::wire::checksum::Sum;

    fn packet(options: &[u8], payload: usize) -> Vec<u8> {
        let body: Vec<u8> = (0..payload).map(|n| n as u8).collect();
        let from = Addr::v4([10, 0, 0, 1]);
        let header = ip4::emit(from, Addr::v4([10, 0, 0, 2]), Proto::UDP, 64, options.len() + payload);
        let mut out = [&header[..], options, &body].concat();
        out[0] = 0x45 + (options.len() / 4) as u8;
        out[4..6].copy_from_slice(&[0x12, 0x34]);
        mend(&mut out);
        out
    }

    fn mend(packet: &mut [u8]) {
        let len = usize::from(packet[0] & 0xf) * 4;
        packet[10..12].fill(0);
        let sum = Sum::default().bytes(&packet[..len]).finish();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    fn cut(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
        let count = pieces(packet, mtu).expect("it can be cut");
        let piece = |n| {
            let mut out = vec![0; usize::from(mtu)];
            let len = write(packet, mtu, n, &mut out).expect("there is such a piece");
            out.truncate(len);
            out
        };
        assert_eq!(write(packet, mtu, count, &mut [0; 2000]), None);
        (0..count).map(piece).collect()
    }

    /// The data put together by what each piece says of itself, and whether the last one came.
    fn put_together(pieces: &[Vec<u8>]) -> (Vec<u8>, bool) {
        let (mut out, mut ended) = (vec![], false);
        for piece in pieces {
            let header = ip4::Header::parse(piece).expect("a sound header");
            assert_eq!(header.total_len, piece.len());
            let fragment = ip4::fragment(piece).expect("a sound fragment");
            assert_eq!((usize::from(fragment.start), fragment.id), (out.len(), 0x1234));
            out.extend(&piece[header.len..]);
            ended = fragment.last;
        }
        (out, ended)
    }

    #[test]
    fn the_pieces_are_the_packet() {
        for (payload, mtu) in [(1480, 1480), (1480, 1430), (1460, 576), (100, 68), (8, 28)] {
            let whole = packet(&[], payload);
            let pieces = cut(&whole, mtu);
            assert!(pieces.iter().all(|piece| piece.len() <= usize::from(mtu)));
            assert_eq!(put_together(&pieces), (whole[20..].to_vec(), true));
        }
    }

    #[test]
    fn pieces_of_pieces_are_of_the_same_packet() {
        let whole = packet(&[], 1480);
        let again: Vec<_> = cut(&whole, 1400).iter().flat_map(|piece| cut(piece, 500)).collect();
        assert!(again.len() > 3);
        assert_eq!(put_together(&again), (whole[20..].to_vec(), true));
    }

    #[test]
    fn options_are_copied_where_they_say_so() {
        // Router alert is to be copied, a timestamp is not.
        let whole = packet(&[148, 4, 0, 0, 68, 4, 5, 0], 1000);
        let pieces = cut(&whole, 576);
        assert_eq!(pieces[0][20..28], [148, 4, 0, 0, 68, 4, 5, 0]);
        assert_eq!(pieces[1][20..28], [148, 4, 0, 0, 1, 1, 1, 1]);
        assert!(pieces.iter().all(|piece| ip4::Header::parse(piece).is_ok()));
    }

    #[test]
    fn what_cannot_be_cut() {
        let whole = packet(&[], 100);
        assert_eq!(pieces(&whole, 27), None, "not even eight bytes");
        assert_eq!(pieces(&whole[..60], 60), None, "not all there");
        let mut forbidden = whole.clone();
        forbidden[6] = 0x40;
        assert!(is_allowed(&whole) && !is_allowed(&forbidden) && !is_allowed(&[0x60; 40]));
        let mut far = whole;
        far[6..8].copy_from_slice(&0x1ffcu16.to_be_bytes());
        assert_eq!(write(&far, 68, 1, &mut [0; 100]), None, "beyond what an offset can say");
    }

    proptest::proptest! {
        #[test]
        fn any_packet_is_whole_again(payload in 1usize..1480, mtu in 68u16..1500, words in 0usize..10) {
            let whole = packet(&[1u8, 1, 1, 1].repeat(words), payload);
            if let Some(count) = pieces(&whole, mtu) {
                let made = cut(&whole, mtu);
                proptest::prop_assert_eq!(made.len(), count);
                proptest::prop_assert_eq!(put_together(&made), (whole[20 + 4 * words..].to_vec(), true));
            }
        }
    }
}
