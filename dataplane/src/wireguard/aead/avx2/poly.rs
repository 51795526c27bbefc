//! Poly1305 (RFC 8439 §2.5) of four packets, a lane of 64 bits each.
//!
//! Numbers modulo 2^130 - 5 have five limbs of 26 bits, so that products of 32 bits by 32 can be
//! summed for two blocks of each packet before anything is carried.

use super::super::TAG;
use super::super::lane::Lane;
use super::super::scattered::Block;
use std::arch::x86_64::*;

/// Lanes.
pub const FOUR: usize = 4;

/// Ones in the first bytes, up to sixteen, of a little-endian number.
#[inline]
pub const fn first(bytes: usize) -> u128 {
    if bytes >= 16 { u128::MAX } else { (1 << (8 * bytes)) - 1 }
}

/// The tags of four encrypted texts, with the first blocks of their key streams.
#[target_feature(enable = "avx2")]
#[inline]
pub fn tags(lanes: [&Lane<'_>; FOUR], secrets: &[Block; FOUR]) -> [[u8; TAG]; FOUR] {
    let mut halves = [[0; FOUR]; 2];
    for (lane, secret) in secrets.iter().enumerate() {
        let [low, high, ..] = *secret.0.as_chunks().0 else { unreachable!("64 bytes are eight times 8") };
        halves[0][lane] = u64::from_le_bytes(low) & 0x0fff_fffc_0fff_ffff;
        halves[1][lane] = u64::from_le_bytes(high) & 0x0fff_fffc_0fff_fffc;
    }
    let r = Number::split(words(&halves[0]), words(&halves[1]));
    let once = Factor::of(r);
    let twice = Factor::of(Product::zero().plus(r, &once).carried());
    let (mut shortest, mut longest) = (usize::MAX, 0);
    for lane in lanes {
        (shortest, longest) = (shortest.min(lane.len), longest.max(lane.len));
    }
    let pairs = shortest / 32;
    let mut sum = Number::zero();
    for pair in 0..pairs {
        // SAFETY: the shortest text has these 32 bytes, so each has.
        let [a, b] = unsafe { blocks(lanes, pair) };
        // The sum comes last: all else does not wait for it.
        sum = Product::zero().plus(b, &once).plus(sum.plus(a), &twice).carried();
    }
    for block in 2 * pairs..longest.div_ceil(16) {
        let (next, have) = tail(lanes, block);
        sum = sum.or(have, Product::zero().plus(sum.plus(next), &once).carried());
    }
    let lengths =
        Number::split(_mm256_setzero_si256(), words(&lanes.map(|lane| lane.len as u64))).with_top_bit();
    let sum = Product::zero().plus(sum.plus(lengths), &once).carried();
    sum.tags(secrets)
}

/// Blocks `2 * pair` and the next of texts that all have them whole.
///
/// # Safety
/// They have.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn blocks(lanes: [&Lane<'_>; FOUR], pair: usize) -> [Number; 2] {
    let mut rows = [_mm256_setzero_si256(); FOUR];
    for (row, lane) in rows.iter_mut().zip(lanes) {
        // SAFETY: the caller's.
        *row = unsafe { _mm256_loadu_si256(lane.text.add(32 * pair).cast()) };
    }
    let [a, b, c, d] = rows;
    let (ab_low, ab_high) = (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d));
    let first = Number::split(
        _mm256_permute2x128_si256::<0x20>(ab_low, cd_low),
        _mm256_permute2x128_si256::<0x20>(ab_high, cd_high),
    );
    let second = Number::split(
        _mm256_permute2x128_si256::<0x31>(ab_low, cd_low),
        _mm256_permute2x128_si256::<0x31>(ab_high, cd_high),
    );
    [first.with_top_bit(), second.with_top_bit()]
}

/// Block `block` of each text, with zeros where there is nothing (§2.8), and ones in lanes that have it.
#[target_feature(enable = "avx2")]
#[inline]
fn tail(lanes: [&Lane<'_>; FOUR], block: usize) -> (Number, __m256i) {
    let mut halves = [[0; FOUR]; 2];
    let mut have = [0; FOUR];
    for (at, lane) in lanes.into_iter().enumerate() {
        let from = (16 * block).min(lane.len);
        let left = lane.len - from;
        // SAFETY: it begins within the text or where its tag is, which is sixteen bytes.
        let bytes = unsafe { lane.text.add(from).cast::<u128>().read_unaligned() } & first(left);
        (halves[0][at], halves[1][at]) = (bytes as u64, (bytes >> 64) as u64);
        have[at] = if left > 0 { u64::MAX } else { 0 };
    }
    (Number::split(words(&halves[0]), words(&halves[1])).with_top_bit(), words(&have))
}

/// A word a lane.
#[target_feature(enable = "avx2")]
#[inline]
fn words(words: &[u64; FOUR]) -> __m256i {
    // SAFETY: four words are 32 bytes.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// A number modulo 2^130 - 5 in each lane: five limbs of 26 bits, each of which may run over by a bit.
#[derive(Clone, Copy)]
struct Number([__m256i; 5]);

impl Number {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn zero() -> Self {
        Self([_mm256_setzero_si256(); 5])
    }

    /// Of 128 bits.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn split(low: __m256i, high: __m256i) -> Self {
        let middle = _mm256_or_si256(_mm256_srli_epi64::<52>(low), _mm256_slli_epi64::<12>(high));
        Self([
            low_26(low),
            low_26(_mm256_srli_epi64::<26>(low)),
            low_26(middle),
            low_26(_mm256_srli_epi64::<14>(high)),
            _mm256_srli_epi64::<40>(high),
        ])
    }

    /// As blocks of a message are: 2^128 more.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn with_top_bit(mut self) -> Self {
        self.0[4] = _mm256_or_si256(self.0[4], _mm256_set1_epi64x(1 << 24));
        self
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn plus(mut self, other: Self) -> Self {
        for (limb, other) in self.0.iter_mut().zip(other.0) {
            *limb = _mm256_add_epi64(*limb, other);
        }
        self
    }

    /// In the lanes of `mask` the other.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn or(mut self, mask: __m256i, other: Self) -> Self {
        for (limb, other) in self.0.iter_mut().zip(other.0) {
            *limb = _mm256_blendv_epi8(*limb, other, mask);
        }
        self
    }

    /// The tags: with the second half of the keys, modulo 2^128.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn tags(self, secrets: &[Block; FOUR]) -> [[u8; TAG]; FOUR] {
        let mut limbs = [[0; FOUR]; 5];
        for (limbs, limb) in limbs.iter_mut().zip(self.0) {
            // SAFETY: four words are 32 bytes.
            unsafe { _mm256_storeu_si256(limbs.as_mut_ptr().cast(), limb) };
        }
        let mut tags = [[0; TAG]; FOUR];
        for (at, (tag, secret)) in tags.iter_mut().zip(secrets).enumerate() {
            let [_, s, ..] = *secret.0.as_chunks().0 else { unreachable!("64 bytes are four times 16") };
            let whole = modulo_2_128(limbs.map(|limb| limb[at]));
            *tag = whole.wrapping_add(u128::from_le_bytes(s)).to_le_bytes();
        }
        tags
    }
}

/// The one number below 2^130 - 5 that is meant, without what is above 2^128.
#[inline]
fn modulo_2_128(mut limbs: [u64; 5]) -> u128 {
    const LOW_26: u64 = (1 << 26) - 1;
    for _ in 0..2 {
        let mut carry = 0;
        for limb in &mut limbs {
            let sum = *limb + carry;
            (*limb, carry) = (sum & LOW_26, sum >> 26);
        }
        limbs[0] += 5 * carry;
    }
    let low = |limbs: [u64; 5]| {
        limbs.iter().rev().fold(0u128, |whole, limb| (whole << 26).wrapping_add(u128::from(*limb)))
    };
    // Five more, and it passes 2^130?
    let over = limbs.iter().fold(5, |carry, limb| (limb + carry) >> 26);
    low(limbs).wrapping_add(5 * u128::from(over))
}

/// What is multiplied by: the limbs, and five times the upper four, since 2^130 is five.
#[derive(Clone, Copy)]
struct Factor {
    limbs: [__m256i; 5],
    five: [__m256i; 5],
}

impl Factor {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of(n: Number) -> Self {
        let mut five = n.0;
        for limb in &mut five {
            *limb = five_times(*limb);
        }
        Self { limbs: n.0, five }
    }
}

/// A sum of products, of which nothing is carried yet.
#[derive(Clone, Copy)]
struct Product([__m256i; 5]);

impl Product {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn zero() -> Self {
        Self([_mm256_setzero_si256(); 5])
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn plus(mut self, n: Number, factor: &Factor) -> Self {
        let [f0, f1, f2, f3, f4] = factor.limbs;
        let [_, g1, g2, g3, g4] = factor.five;
        let [a, b, c, d, e] = n.0;
        self.add(a, [f0, f1, f2, f3, f4]);
        self.add(b, [g4, f0, f1, f2, f3]);
        self.add(c, [g3, g4, f0, f1, f2]);
        self.add(d, [g2, g3, g4, f0, f1]);
        self.add(e, [g1, g2, g3, g4, f0]);
        self
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn add(&mut self, limb: __m256i, factors: [__m256i; 5]) {
        for (sum, factor) in self.0.iter_mut().zip(factors) {
            *sum = _mm256_add_epi64(*sum, _mm256_mul_epu32(limb, factor));
        }
    }

    /// As a number.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn carried(self) -> Number {
        let Self([a, b, c, d, e]) = self;
        // Two chains side by side: from the first limb and from the fourth.
        let (b, e) = (carry(b, a), carry(e, d));
        let (a, d) = (low_26(a), low_26(d));
        let c = carry(c, b);
        let a = _mm256_add_epi64(a, five_times(_mm256_srli_epi64::<26>(e)));
        let (b, e) = (low_26(b), low_26(e));
        let (d, b) = (carry(d, c), carry(b, a));
        let (c, a) = (low_26(c), low_26(a));
        let e = carry(e, d);
        Number([a, b, c, low_26(d), e])
    }
}

/// `limb` with what runs over from the one below.
#[target_feature(enable = "avx2")]
#[inline]
fn carry(limb: __m256i, below: __m256i) -> __m256i {
    _mm256_add_epi64(limb, _mm256_srli_epi64::<26>(below))
}

#[target_feature(enable = "avx2")]
#[inline]
fn low_26(n: __m256i) -> __m256i {
    _mm256_and_si256(n, _mm256_set1_epi64x((1 << 26) - 1))
}

#[target_feature(enable = "avx2")]
#[inline]
fn five_times(n: __m256i) -> __m256i {
    _mm256_add_epi64(n, _mm256_slli_epi64::<2>(n))
}
