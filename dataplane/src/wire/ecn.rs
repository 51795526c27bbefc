//! Explicit congestion notification across a tunnel (RFC 6040), and the field that carries it.
//!
//! An outer header is begun with the inner one's whole traffic class: the ECN field as RFC 6040 §4.1
//! has it for normal mode, the DSCP copied (RFC 2983 §3.1). Of the outer header only the news of
//! congestion comes out again; the inner DSCP is what its sender wrote (the pipe model).

use super::{checksum, read_u16};

/// The two bits, in either IP version (RFC 3168 §5).
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// DSCP and ECN of the IP packet that begins here, of whichever version; 0 where there is none.
#[inline]
pub fn traffic_class(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        [_, second, ..] => *second,
        _ => 0,
    }
}

/// What the inner packet's two bits become when it leaves a tunnel in which the outer header's became
/// `outer` (RFC 6040 figure 4). `None`: there was congestion, and a sender that cannot hear of it but
/// by a loss.
pub const fn decapsulated(outer: u8, inner: u8) -> Option<u8> {
    match (inner & 3, outer & 3) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (CE, _) | (_, CE) => Some(CE),
        (ECT_0, ECT_1) | (ECT_1, _) => Some(ECT_1),
        _ => Some(ECT_0),
    }
}

/// Writes the two bits of the IP packet that begins here, and mends its checksum.
pub fn set(packet: &mut [u8], bits: u8) {
    let Some([first, second]) = packet.first_chunk_mut() else { return };
    if *first >> 4 == 6 {
        *second = *second & 0xcf | bits << 4;
        return;
    }
    let old = u16::from_be_bytes([*first, *second]);
    *second = *second & 0xfc | bits;
    let new = u16::from_be_bytes([*first, *second]);
    let Ok(field) = read_u16(packet, 10) else { return };
    packet[10..12].copy_from_slice(&checksum::update(field, old, new).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Addr, Proto};
    use crate::wire::{ip4, ip6};

    #[test]
    fn the_table_of_rfc_6040() {
        // Rows: inner Not-ECT, ECT(0), ECT(1), CE. Columns: outer in the same order.
        let order = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
            [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
            [Some(CE); 4],
        ];
        for (inner, row) in order.into_iter().zip(table) {
            for (outer, want) in order.into_iter().zip(row) {
                assert_eq!(decapsulated(outer, inner), want, "inner {inner} outer {outer}");
            }
        }
    }

    #[test]
    fn the_bits_change_alone() {
        let mut v4 = ip4::emit(Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2]), Proto::UDP, 64, 8);
        v4[1] = 0xb8;
        v4[10..12].fill(0);
        let sum = checksum::Sum::default().bytes(&v4).finish();
        v4[10..12].copy_from_slice(&sum.to_be_bytes());
        let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let mut v6 = ip6::emit(a, b, Proto::UDP, 64, 8);
        (v6[0], v6[1]) = (0x6b, 0x8f);
        for bits in [1, 3, 0, 2] {
            set(&mut v4, bits);
            assert_eq!(traffic_class(&v4), 0xb8 | bits);
            assert!(ip4::Header::parse(&[&v4[..], &[0; 8]].concat()).is_ok(), "it still sums up");
            set(&mut v6, bits);
            assert_eq!((traffic_class(&v6), v6[0] >> 4, v6[1] & 0xf), (0xb8 | bits, 6, 0xf));
        }
        assert_eq!(traffic_class(&[]), 0);
        set(&mut [0x45], 3);
    }
}
