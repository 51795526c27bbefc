//! Addresses as numbers.

use std::hash::Hash;

/// An address as a number whose first bit is the most significant.
pub trait Key: Copy + Ord + Hash {
    /// Bits of an address.
    const BITS: u32;
    /// All bits clear.
    const ZERO: Self;
    /// The first `n` bits, 0 < n <= 18.
    fn first(self, n: u32) -> usize;
    /// What follows the first `n` bits, moved to the front. `n` is less than `BITS`.
    fn after(self, n: u32) -> Self;
    /// How many first bits are the same.
    fn shared(self, other: Self) -> u32;
    /// The first `n` bits where they are, zeros behind.
    fn keep(self, n: u32) -> Self;
    /// `number` written into the `width` bits behind the first `depth`, where zeros are; bits beyond
    /// the address are dropped.
    fn with(self, depth: u32, width: u32, number: usize) -> Self;
    /// In four words, the first bits first.
    fn words(self) -> [u32; 4];
    /// Back from four words.
    fn from_words(words: [u32; 4]) -> Self;
}

macro_rules! key {
    ($int:ty) => {
        impl Key for $int {
            const BITS: u32 = <$int>::BITS;
            const ZERO: Self = 0;

            #[inline]
            fn first(self, n: u32) -> usize {
                (self >> (<$int>::BITS - n)) as usize
            }

            #[inline]
            fn after(self, n: u32) -> Self {
                self << n
            }

            #[inline]
            fn shared(self, other: Self) -> u32 {
                (self ^ other).leading_zeros()
            }

            fn keep(self, n: u32) -> Self {
                self & !<$int>::MAX.checked_shr(n).unwrap_or(0)
            }

            fn with(self, depth: u32, width: u32, number: usize) -> Self {
                self | (number as $int) << (<$int>::BITS - width) >> depth
            }

            fn words(self) -> [u32; 4] {
                let wide = (self as u128) << (128 - <$int>::BITS);
                [wide >> 96, wide >> 64, wide >> 32, wide].map(|word| word as u32)
            }

            fn from_words(words: [u32; 4]) -> Self {
                let wide = words.into_iter().fold(0u128, |wide, word| wide << 32 | u128::from(word));
                (wide >> (128 - <$int>::BITS)) as $int
            }
        }
    };
}

key!(u32);
key!(u128);
