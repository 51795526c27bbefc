//! SCTP's checksum, CRC-32C (RFC 9260, appendix A), and what a change of a few bytes does to it.
//!
//! The sum is linear: that of a packet with some bits flipped is the old one, changed by the sum
//! of the flipped bits alone, wherever they stand. The zeros behind them are skipped by squaring
//! (Warren's and zlib's `crc32_combine`), so a change costs the logarithm of what follows it.

/// The polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each byte does to the sum.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = shift(sum);
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// `x` to the power of 2^k, modulo the polynomial.
const POWERS: [u32; 32] = {
    let mut powers = [0; 32];
    let mut power = 1 << 30;
    let mut k = 0;
    while k < 32 {
        powers[k] = power;
        power = multiply(power, power);
        k += 1;
    }
    powers
};

/// Where SCTP's checksum stands, in little-endian order.
pub const OFFSET: usize = 8;

/// The sum of an SCTP packet of at least twelve bytes, its own field counted as zero.
pub fn of_sctp(packet: &[u8]) -> u32 {
    let (before, after) = packet.split_at(OFFSET);
    let sum = run(run(!0, before), &[0; 4]);
    !run(sum, &after[4..])
}

/// By what the sum of a message changes, by exclusive or, when these `flipped` bits in it do, with
/// `behind` bytes after them.
pub fn difference(flipped: [u8; 4], behind: usize) -> u32 {
    let mut power = 1 << 31;
    let mut bits = behind * 8;
    let mut k = 0;
    while bits > 0 {
        if bits & 1 == 1 {
            power = multiply(power, POWERS[k % 32]);
        }
        bits >>= 1;
        k += 1;
    }
    multiply(run(0, &flipped), power)
}

fn run(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| TABLE[usize::from(sum as u8 ^ byte)] ^ sum >> 8)
}

/// Times `x`.
const fn shift(sum: u32) -> u32 {
    if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 }
}

/// The product of two polynomials, modulo ours.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = shift(b);
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_3720() {
        for (bytes, sum) in [(vec![0; 32], 0x8a91_36aa), (vec![0xff; 32], 0x62a8_ab43)] {
            assert_eq!(!run(!0, &bytes), sum);
        }
        assert_eq!(!run(!0, b"123456789"), 0xe306_9283);
    }

    proptest::proptest! {
        #[test]
        fn a_difference_equals_a_full_sum(
            mut packet in proptest::collection::vec(0u8.., 12..2000),
            flipped: [u8; 4],
        ) {
            let before = of_sctp(&packet);
            for (byte, flip) in packet.iter_mut().zip(flipped) {
                *byte ^= flip;
            }
            proptest::prop_assert_eq!(before ^ difference(flipped, packet.len() - 4), of_sctp(&packet));
        }
    }
}
