//! Poly1305 (RFC 8439 §2.5) of eight packets, a lane of 64 bits each.
//!
//! Numbers modulo 2^130 - 5 have limbs of 44, 44 and 42 bits. IFMA multiplies 52 bits by 52 and adds
//! the low or the high half of the product to 64 bits, so a whole 64 bytes of each packet, four
//! blocks by four powers of its key, are summed before anything is carried.

use super::super::TAG;
use super::super::lane::Lane;
use super::super::scattered::Block;
use super::chacha::first;
use std::arch::x86_64::*;

/// Lanes.
pub const EIGHT: usize = 8;

/// The tags of eight encrypted texts, with the first blocks of their key streams.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
pub fn tags(lanes: &[Lane<'_>; EIGHT], secrets: &[Block; EIGHT]) -> [[u8; TAG]; EIGHT] {
    let mut rows = [_mm512_setzero_si512(); EIGHT];
    for (row, secret) in rows.iter_mut().zip(secrets) {
        // SAFETY: a `Block` has 64 bytes and begins at a multiple of 64.
        *row = unsafe { _mm512_load_si512(secret.0.as_ptr().cast()) };
    }
    let [r_low, r_high, s_low, s_high, ..] = transposed(rows);
    let r = Number::split(
        _mm512_and_si512(r_low, _mm512_set1_epi64(0x0fff_fffc_0fff_ffff)),
        _mm512_and_si512(r_high, _mm512_set1_epi64(0x0fff_fffc_0fff_fffc)),
    );
    let powers = Powers::of(r);
    let blocks = |len: usize| len.div_ceil(16);
    let (mut shortest, mut longest) = (usize::MAX, 0);
    for lane in lanes {
        (shortest, longest) = (shortest.min(lane.len), longest.max(lane.len));
    }
    let whole = shortest / 64;
    let mut sum = Number::zero();
    for chunk in 0..whole {
        // SAFETY: the shortest text has these 64 bytes, so each has.
        sum = powers.four(sum, unsafe { Chunk::whole(lanes, chunk) });
    }
    let lengths = Number::split(_mm512_setzero_si512(), lengths(lanes)).with_top_bit();
    let sum = if blocks(shortest) == blocks(longest) {
        match blocks(longest) - 4 * whole {
            0 => sum.plus(lengths).times(&powers.0[0]),
            left => powers.last(sum, Chunk::tail(lanes, whole), left, lengths),
        }
    } else {
        let mut sum = sum;
        for at in whole..longest.div_ceil(64) {
            sum = powers.some(sum, Chunk::tail(lanes, at), lanes, at);
        }
        sum.plus(lengths).times(&powers.0[0])
    };
    sum.tags(s_low, s_high)
}

/// The lengths of all texts, in bytes.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn lengths(lanes: &[Lane<'_>; EIGHT]) -> __m512i {
    let lengths = lanes.map(|lane| lane.len as u64);
    // SAFETY: eight numbers are 64 bytes.
    unsafe { _mm512_loadu_si512(lengths.as_ptr().cast()) }
}

/// 64 bytes of each text: four blocks.
#[derive(Clone, Copy)]
struct Chunk([Number; 4]);

impl Chunk {
    /// Number `at` of texts that all have it whole.
    ///
    /// # Safety
    /// They have.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    unsafe fn whole(lanes: &[Lane<'_>; EIGHT], at: usize) -> Self {
        let mut rows = [_mm512_setzero_si512(); EIGHT];
        for (row, lane) in rows.iter_mut().zip(lanes) {
            // SAFETY: the caller's.
            *row = unsafe { _mm512_loadu_si512(lane.text.add(64 * at).cast()) };
        }
        Self::of(rows)
    }

    /// Number `at`, with zeros where there is nothing (§2.8).
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn tail(lanes: &[Lane<'_>; EIGHT], at: usize) -> Self {
        let mut rows = [_mm512_setzero_si512(); EIGHT];
        for (row, lane) in rows.iter_mut().zip(lanes) {
            let from = (64 * at).min(lane.len);
            // SAFETY: it begins within the text or where its tag is, and no more is read than is left.
            *row = unsafe { _mm512_maskz_loadu_epi8(first(lane.left(at)), lane.text.add(from).cast()) };
        }
        Self::of(rows)
    }

    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn of(rows: [__m512i; EIGHT]) -> Self {
        let [a, b, c, d, e, f, g, h] = transposed(rows);
        Self([
            Number::split(a, b).with_top_bit(),
            Number::split(c, d).with_top_bit(),
            Number::split(e, f).with_top_bit(),
            Number::split(g, h).with_top_bit(),
        ])
    }
}

/// A number modulo 2^130 - 5 in each lane: limbs of 44, 44 and 42 bits, each of which may run over
/// by a bit or two.
#[derive(Clone, Copy)]
struct Number([__m512i; 3]);

impl Number {
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn zero() -> Self {
        Self([_mm512_setzero_si512(); 3])
    }

    /// Of 128 bits.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn split(low: __m512i, high: __m512i) -> Self {
        Self([low_44(low), low_44(_mm512_shrdi_epi64::<44>(low, high)), _mm512_srli_epi64::<24>(high)])
    }

    /// As blocks of a message are: 2^128 more.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn with_top_bit(self) -> Self {
        let Self([a, b, c]) = self;
        Self([a, b, _mm512_or_si512(c, _mm512_set1_epi64(1 << 40))])
    }

    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn plus(self, other: Self) -> Self {
        let (Self([a, b, c]), Self([x, y, z])) = (self, other);
        Self([_mm512_add_epi64(a, x), _mm512_add_epi64(b, y), _mm512_add_epi64(c, z)])
    }

    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn times(self, factor: &Factor) -> Self {
        Product::zero().plus(self, factor).carried()
    }

    /// In the lanes of `mask` the other.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn or(self, mask: __mmask8, other: Self) -> Self {
        let (Self([a, b, c]), Self([x, y, z])) = (self, other);
        Self([
            _mm512_mask_mov_epi64(a, mask, x),
            _mm512_mask_mov_epi64(b, mask, y),
            _mm512_mask_mov_epi64(c, mask, z),
        ])
    }

    /// The tags: with the second half of the keys, modulo 2^128.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn tags(self, s_low: __m512i, s_high: __m512i) -> [[u8; TAG]; EIGHT] {
        let Self([mut a, mut b, mut c]) = self;
        let carry_44 = |n: __m512i| _mm512_srli_epi64::<44>(n);
        let carry_42 = |n: __m512i| _mm512_srli_epi64::<42>(n);
        for _ in 0..2 {
            b = _mm512_add_epi64(b, carry_44(a));
            c = _mm512_add_epi64(c, carry_44(b));
            a = _mm512_add_epi64(low_44(a), five_times(carry_42(c)));
            (b, c) = (low_44(b), low_42(c));
        }
        b = _mm512_add_epi64(b, carry_44(a));
        c = _mm512_add_epi64(c, carry_44(b));
        (a, b) = (low_44(a), low_44(b));
        // Five more, and where it passes 2^130 then, that is the number meant, without the 2^130.
        let x = _mm512_add_epi64(a, _mm512_set1_epi64(5));
        let y = _mm512_add_epi64(b, carry_44(x));
        let z = _mm512_add_epi64(c, carry_44(y));
        let over = _mm512_test_epi64_mask(z, _mm512_set1_epi64(1 << 42));
        let Self([a, b, c]) = Self([a, b, c]).or(over, Self([low_44(x), low_44(y), z]));
        let low = _mm512_or_si512(a, _mm512_slli_epi64::<44>(b));
        let high = _mm512_or_si512(_mm512_srli_epi64::<20>(b), _mm512_slli_epi64::<24>(c));
        let low = _mm512_add_epi64(low, s_low);
        let carry = _mm512_cmplt_epu64_mask(low, s_low);
        let high = _mm512_add_epi64(high, s_high);
        let high = _mm512_mask_add_epi64(high, carry, high, _mm512_set1_epi64(1));
        let mut tags = [[0; TAG]; EIGHT];
        let mut words = [[0u64; EIGHT]; 2];
        // SAFETY: eight numbers are 64 bytes.
        unsafe {
            _mm512_storeu_si512(words[0].as_mut_ptr().cast(), low);
            _mm512_storeu_si512(words[1].as_mut_ptr().cast(), high);
        }
        for (at, tag) in tags.iter_mut().enumerate() {
            tag[..8].copy_from_slice(&words[0][at].to_le_bytes());
            tag[8..].copy_from_slice(&words[1][at].to_le_bytes());
        }
        tags
    }
}

/// What is multiplied by: the limbs, and twenty times the upper two, since 2^132 is twenty.
#[derive(Clone, Copy)]
struct Factor {
    limbs: [__m512i; 3],
    twenty: [__m512i; 2],
}

impl Factor {
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn of(n: Number) -> Self {
        let Number([a, b, c]) = n;
        let twenty = [_mm512_slli_epi64::<2>(five_times(b)), _mm512_slli_epi64::<2>(five_times(c))];
        Self { limbs: [a, b, c], twenty }
    }
}

/// A sum of products, of which nothing is carried yet: low halves and high halves of each limb.
/// Twelve terms of 52 bits need 56.
#[derive(Clone, Copy)]
struct Product {
    low: [__m512i; 3],
    high: [__m512i; 3],
}

impl Product {
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn zero() -> Self {
        Self { low: [_mm512_setzero_si512(); 3], high: [_mm512_setzero_si512(); 3] }
    }

    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn plus(mut self, n: Number, factor: &Factor) -> Self {
        let Number([a, b, c]) = n;
        let Factor { limbs: [x, y, z], twenty: [y20, z20] } = *factor;
        for (n, factors) in [(a, [x, y, z]), (b, [z20, x, y]), (c, [y20, z20, x])] {
            for (limb, factor) in factors.into_iter().enumerate() {
                self.low[limb] = _mm512_madd52lo_epu64(self.low[limb], n, factor);
                self.high[limb] = _mm512_madd52hi_epu64(self.high[limb], n, factor);
            }
        }
        self
    }

    /// As a number. A high half counts 2^52: in a limb of 44 bits that is 2^8 of the next.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn carried(self) -> Number {
        let Self { low: [a, b, c], high: [x, y, z] } = self;
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(a), _mm512_slli_epi64::<8>(x));
        let b = _mm512_add_epi64(b, carry);
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(b), _mm512_slli_epi64::<8>(y));
        let c = _mm512_add_epi64(c, carry);
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<42>(c), _mm512_slli_epi64::<10>(z));
        let a = _mm512_add_epi64(low_44(a), five_times(carry));
        Number([low_44(a), _mm512_add_epi64(low_44(b), _mm512_srli_epi64::<44>(a)), low_42(c)])
    }
}

/// The key of each lane, its square, cube and fourth power.
struct Powers([Factor; 4]);

impl Powers {
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn of(r: Number) -> Self {
        let r1 = Factor::of(r);
        let square = r.times(&r1);
        let r2 = Factor::of(square);
        Self([r1, r2, Factor::of(square.times(&r1)), Factor::of(square.times(&r2))])
    }

    /// Four blocks of each text more.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn four(&self, sum: Number, chunk: Chunk) -> Number {
        let (Self([r1, r2, r3, r4]), Chunk([a, b, c, d])) = (self, chunk);
        // The sum comes last: all else does not wait for it.
        Product::zero().plus(d, r1).plus(c, r2).plus(b, r3).plus(sum.plus(a), r4).carried()
    }

    /// The last blocks of each text, one to four in each, and then the lengths.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn last(&self, sum: Number, chunk: Chunk, blocks: usize, lengths: Number) -> Number {
        let (Self([r1, r2, r3, r4]), Chunk([a, b, c, _])) = (self, chunk);
        let end = Product::zero().plus(lengths, r1);
        match blocks {
            1 => end.plus(sum.plus(a), r2),
            2 => end.plus(b, r2).plus(sum.plus(a), r3),
            3 => end.plus(c, r2).plus(b, r3).plus(sum.plus(a), r4),
            _ => return self.four(sum, chunk).plus(lengths).times(r1),
        }
        .carried()
    }

    /// Chunk `at` of texts of different lengths: of each the blocks that there are.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    fn some(&self, sum: Number, chunk: Chunk, lanes: &[Lane<'_>; EIGHT], at: usize) -> Number {
        let mut have = [0u8; 4];
        for (lane, bit) in lanes.iter().zip(0..) {
            for (have, block) in have.iter_mut().zip(0..) {
                *have |= u8::from(lane.left(at) > 16 * block) << bit;
            }
        }
        if have[0] == have[3] {
            return sum.or(have[0], self.four(sum, chunk));
        }
        let mut sum = sum;
        for (have, block) in have.into_iter().zip(chunk.0) {
            sum = sum.or(have, sum.plus(block).times(&self.0[0]));
        }
        sum
    }
}

#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn low_44(n: __m512i) -> __m512i {
    _mm512_and_si512(n, _mm512_set1_epi64((1 << 44) - 1))
}

#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn low_42(n: __m512i) -> __m512i {
    _mm512_and_si512(n, _mm512_set1_epi64((1 << 42) - 1))
}

#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn five_times(n: __m512i) -> __m512i {
    _mm512_add_epi64(n, _mm512_slli_epi64::<2>(n))
}

/// From eight words of a lane in a register to a word of each lane in a register.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn transposed(rows: [__m512i; EIGHT]) -> [__m512i; EIGHT] {
    let mut t = rows;
    for at in [0, 2, 4, 6] {
        t[at] = _mm512_unpacklo_epi64(rows[at], rows[at + 1]);
        t[at + 1] = _mm512_unpackhi_epi64(rows[at], rows[at + 1]);
    }
    let mut words = rows;
    for at in 0..2 {
        let a = _mm512_shuffle_i64x2::<0x44>(t[at], t[at + 2]);
        let b = _mm512_shuffle_i64x2::<0xee>(t[at], t[at + 2]);
        let c = _mm512_shuffle_i64x2::<0x44>(t[at + 4], t[at + 6]);
        let d = _mm512_shuffle_i64x2::<0xee>(t[at + 4], t[at + 6]);
        words[at] = _mm512_shuffle_i64x2::<0x88>(a, c);
        words[at + 2] = _mm512_shuffle_i64x2::<0xdd>(a, c);
        words[at + 4] = _mm512_shuffle_i64x2::<0x88>(b, d);
        words[at + 6] = _mm512_shuffle_i64x2::<0xdd>(b, d);
    }
    words
}
