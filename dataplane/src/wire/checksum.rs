//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use crate::net::{Addr, Proto};

/// A ones'-complement sum in progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes as big-endian words, an odd last one padded with zero. Only the last slice
    /// added may be odd.
    #[inline]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            self.0 += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        }
        let rest = words.remainder();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.0 += u64::from(u32::from_be_bytes(last));
        self
    }

    /// Copies `from` into `to`, of the same length, and adds it on the way, as [`bytes`](Self::bytes) does.
    #[inline]
    pub fn copied(mut self, from: &[u8], to: &mut [u8]) -> Self {
        /// Even, and little enough to be still at hand when it is added.
        const AT_ONCE: usize = 512;
        for (from, to) in from.chunks(AT_ONCE).zip(to.chunks_mut(AT_ONCE)) {
            to.copy_from_slice(from);
            self = self.bytes(to);
        }
        self
    }

    /// Adds one 16-bit word.
    #[inline]
    pub fn word(mut self, word: u16) -> Self {
        self.0 += u64::from(word);
        self
    }

    /// Adds the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1).
    #[inline]
    pub fn pseudo_header(self, src: Addr, dst: Addr, proto: Proto, len: u32) -> Self {
        let sum = if src.is_v4() {
            self.bytes(&src.v4_octets()).bytes(&dst.v4_octets())
        } else {
            self.bytes(&src.octets()).bytes(&dst.octets())
        };
        sum.word(u16::from(proto.0)).word((len >> 16) as u16).word(len as u16)
    }

    /// The sum folded into 16 bits, not complemented.
    #[inline]
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// What to write into a checksum field.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.folded()
    }
}

/// The checksum field after a covered word changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub const fn update(field: u16, old: u16, new: u16) -> u16 {
    let sum = !field as u32 + !old as u32 + new as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// What became of covered bytes, to bring checksums up to date with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change(u64);

impl Change {
    /// Replaces `field`, of an even length at an even place of what the checksum covers, by `new`.
    #[inline]
    pub fn replace(mut self, field: &mut [u8], new: &[u8]) -> Self {
        for (old, new) in field.chunks_exact(2).zip(new.chunks_exact(2)) {
            self.0 += u64::from(!u16::from_be_bytes([old[0], old[1]]));
            self.0 += u64::from(u16::from_be_bytes([new[0], new[1]]));
        }
        field.copy_from_slice(new);
        self
    }

    /// `bytes` are about to change: they are taken out of the sum.
    pub fn without(self, bytes: &[u8]) -> Self {
        Self(self.0 + u64::from(!Sum::default().bytes(bytes).folded()))
    }

    /// `bytes` have changed: they are put back into the sum.
    pub fn with(self, bytes: &[u8]) -> Self {
        Self(self.0 + u64::from(Sum::default().bytes(bytes).folded()))
    }

    /// Both changes.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum field after the change (RFC 1624, equation 3).
    #[inline]
    pub fn apply(self, field: u16) -> u16 {
        Sum(self.0).word(!field).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The obvious twin: word by word, carry folded at once.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest::proptest! {
        #[test]
        fn equals_the_obvious_sum(bytes in proptest::collection::vec(0u8.., 0..200)) {
            proptest::prop_assert_eq!(Sum::default().bytes(&bytes).finish(), slow(&bytes));
        }

        #[test]
        fn what_is_copied_is_added(bytes in proptest::collection::vec(0u8.., 0..2000)) {
            let mut copy = vec![0; bytes.len()];
            proptest::prop_assert_eq!(Sum::default().copied(&bytes, &mut copy).finish(), slow(&bytes));
            proptest::prop_assert_eq!(copy, bytes);
        }

        #[test]
        fn an_update_equals_a_full_sum(mut bytes in proptest::collection::vec(0u8.., 20), at in 0usize..10, new: u16) {
            // A header that is all zeros has two right checksums; no real one is.
            bytes[0] = 0x45;
            let before = slow(&bytes);
            let at = if at == 0 { 1 } else { at };
            let old = u16::from_be_bytes([bytes[2 * at], bytes[2 * at + 1]]);
            bytes[2 * at..2 * at + 2].copy_from_slice(&new.to_be_bytes());
            proptest::prop_assert_eq!(update(before, old, new), slow(&bytes));
        }
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }
}
