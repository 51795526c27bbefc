//! ChaCha20 (RFC 8439 §2.3, §2.4): sixteen blocks in sixteen registers, a lane each.

use super::super::lane::Lane;
use super::super::reference::SIGMA;
use super::super::scattered::{Block, scattered};
use super::GROUP;
use std::arch::x86_64::*;

/// Sixteen packets of as many blocks each: a lane is a packet.
pub struct Columns<'a> {
    lanes: &'a [Lane<'a>; GROUP],
    keys: [__m512i; 8],
    nonces: [__m512i; 3],
}

impl<'a> Columns<'a> {
    /// Of a group that is so, and in order of length.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    pub fn new(lanes: &'a [Lane<'a>]) -> Option<Self> {
        let lanes: &[Lane<'_>; GROUP] = lanes.try_into().ok()?;
        let blocks = lanes[0].len.div_ceil(64);
        if lanes.iter().any(|lane| lane.len.div_ceil(64) != blocks) {
            return None;
        }
        let nonces = transposed_nonces(&lanes.map(|lane| lane.nonce));
        Some(Self { lanes, keys: transposed_keys(&lanes.map(|lane| lane.key)), nonces })
    }

    /// Block 0 of each.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    pub fn secrets(&self, secrets: &mut [Block; GROUP]) {
        let blocks = blocks(&self.keys, _mm512_setzero_si512(), self.nonces);
        for (secret, block) in secrets.iter_mut().zip(blocks) {
            // SAFETY: a `Block` has 64 bytes and begins at a multiple of 64.
            unsafe { _mm512_store_si512(secret.0.as_mut_ptr().cast(), block) };
        }
    }

    /// Encrypts or decrypts all texts.
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    #[inline]
    pub fn apply(&self) {
        let shortest = self.lanes.iter().fold(usize::MAX, |shortest, lane| shortest.min(lane.len));
        let whole = shortest / 64;
        for block in 0..whole {
            let stream = blocks(&self.keys, _mm512_set1_epi32(block as i32 + 1), self.nonces);
            for (lane, stream) in self.lanes.iter().zip(stream) {
                // SAFETY: the shortest text has this block whole, so each has.
                unsafe { xor(lane.text.add(64 * block), stream) };
            }
        }
        if self.lanes.iter().all(|lane| lane.len == 64 * whole) {
            return;
        }
        // All have as many blocks, so this is the last one.
        let stream = blocks(&self.keys, _mm512_set1_epi32(whole as i32 + 1), self.nonces);
        for (lane, stream) in self.lanes.iter().zip(stream) {
            // SAFETY: so many bytes of the text are left, and the block begins in it.
            unsafe { xor_first(lane.text.add(64 * whole), lane.left(whole), stream) };
        }
    }
}

scattered!(GROUP, "avx512bw,avx512ifma,avx512vbmi2");

impl Scattered<'_> {
    #[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
    fn run(&self) {
        let nonces = transposed_nonces(&self.nonces);
        let blocks = blocks(&transposed_keys(&self.keys), words(&self.numbers), nonces);
        for ((target, len), block) in self.targets.into_iter().zip(blocks) {
            // SAFETY: `push` got bytes that are there and nobody else's; idle lanes write none.
            unsafe { xor_first(target, len, block) };
        }
    }
}

/// A word a lane.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn words(words: &[u32; GROUP]) -> __m512i {
    // SAFETY: sixteen words are 64 bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// The nonces of all lanes, a word of each in a register.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn transposed_nonces(nonces: &[[u32; 3]; GROUP]) -> [__m512i; 3] {
    [words(&nonces.map(|[n, _, _]| n)), words(&nonces.map(|[_, n, _]| n)), words(&nonces.map(|[_, _, n]| n))]
}

/// Joins 64 bytes with a block.
///
/// # Safety
/// They may be read and written.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
unsafe fn xor(at: *mut u8, block: __m512i) {
    // SAFETY: the caller's.
    unsafe { _mm512_storeu_si512(at.cast(), _mm512_xor_si512(_mm512_loadu_si512(at.cast()), block)) };
}

/// Joins the first bytes, up to 64, with a block.
///
/// # Safety
/// They may be read and written, and `at` is an address that is mapped.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
unsafe fn xor_first(at: *mut u8, len: usize, block: __m512i) {
    let mask = first(len);
    // SAFETY: the caller's; what the mask hides is neither read nor written.
    unsafe {
        let bytes = _mm512_maskz_loadu_epi8(mask, at.cast());
        _mm512_mask_storeu_epi8(at.cast(), mask, _mm512_xor_si512(bytes, block));
    }
}

/// A bit for each of the first bytes, up to 64.
#[inline]
pub const fn first(len: usize) -> u64 {
    if len >= 64 { u64::MAX } else { (1 << len) - 1 }
}

/// Half of a double round: its four quarter rounds side by side.
macro_rules! quarter_rounds {
    ($x:ident, $(($a:literal $b:literal $c:literal $d:literal))*) => {
        $($x[$a] = _mm512_add_epi32($x[$a], $x[$b]);)*
        $($x[$d] = _mm512_rol_epi32::<16>(_mm512_xor_si512($x[$d], $x[$a]));)*
        $($x[$c] = _mm512_add_epi32($x[$c], $x[$d]);)*
        $($x[$b] = _mm512_rol_epi32::<12>(_mm512_xor_si512($x[$b], $x[$c]));)*
        $($x[$a] = _mm512_add_epi32($x[$a], $x[$b]);)*
        $($x[$d] = _mm512_rol_epi32::<8>(_mm512_xor_si512($x[$d], $x[$a]));)*
        $($x[$c] = _mm512_add_epi32($x[$c], $x[$d]);)*
        $($x[$b] = _mm512_rol_epi32::<7>(_mm512_xor_si512($x[$b], $x[$c]));)*
    };
}

/// The blocks of all lanes, the first lane's first.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn blocks(keys: &[__m512i; 8], numbers: __m512i, nonces: [__m512i; 3]) -> [__m512i; 16] {
    let [s0, s1, s2, s3] = SIGMA;
    let sigma = [
        _mm512_set1_epi32(s0 as i32),
        _mm512_set1_epi32(s1 as i32),
        _mm512_set1_epi32(s2 as i32),
        _mm512_set1_epi32(s3 as i32),
    ];
    let [k0, k1, k2, k3, k4, k5, k6, k7] = *keys;
    let [n0, n1, n2] = nonces;
    let start = [sigma[0], sigma[1], sigma[2], sigma[3], k0, k1, k2, k3, k4, k5, k6, k7, numbers, n0, n1, n2];
    let mut x = start;
    for _ in 0..10 {
        quarter_rounds!(x, (0 4 8 12) (1 5 9 13) (2 6 10 14) (3 7 11 15));
        quarter_rounds!(x, (0 5 10 15) (1 6 11 12) (2 7 8 13) (3 4 9 14));
    }
    for (word, start) in x.iter_mut().zip(start) {
        *word = _mm512_add_epi32(*word, start);
    }
    transposed(x)
}

/// From a word of each lane in a register to a lane in a register.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn transposed(x: [__m512i; 16]) -> [__m512i; 16] {
    // Four words of four lanes at a time, in each quarter of the registers...
    let mut t = x;
    for at in [0, 4, 8, 12] {
        let ab = _mm512_unpacklo_epi32(x[at], x[at + 1]);
        let cd = _mm512_unpacklo_epi32(x[at + 2], x[at + 3]);
        let ef = _mm512_unpackhi_epi32(x[at], x[at + 1]);
        let gh = _mm512_unpackhi_epi32(x[at + 2], x[at + 3]);
        t[at] = _mm512_unpacklo_epi64(ab, cd);
        t[at + 1] = _mm512_unpackhi_epi64(ab, cd);
        t[at + 2] = _mm512_unpacklo_epi64(ef, gh);
        t[at + 3] = _mm512_unpackhi_epi64(ef, gh);
    }
    // ...then the quarters among themselves.
    let mut lanes = x;
    for at in 0..4 {
        let a = _mm512_shuffle_i32x4::<0x44>(t[at], t[at + 4]);
        let b = _mm512_shuffle_i32x4::<0xee>(t[at], t[at + 4]);
        let c = _mm512_shuffle_i32x4::<0x44>(t[at + 8], t[at + 12]);
        let d = _mm512_shuffle_i32x4::<0xee>(t[at + 8], t[at + 12]);
        lanes[at] = _mm512_shuffle_i32x4::<0x88>(a, c);
        lanes[at + 4] = _mm512_shuffle_i32x4::<0xdd>(a, c);
        lanes[at + 8] = _mm512_shuffle_i32x4::<0x88>(b, d);
        lanes[at + 12] = _mm512_shuffle_i32x4::<0xdd>(b, d);
    }
    lanes
}

/// The keys of all lanes, a word of each in a register.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn transposed_keys(keys: &[&[u32; 8]; GROUP]) -> [__m512i; 8] {
    // Row `l`: the keys of lanes `l` and `l + 8`.
    let mut rows = [_mm512_setzero_si512(); 8];
    for (at, row) in rows.iter_mut().enumerate() {
        // SAFETY: a key has 32 bytes.
        let (a, b) = unsafe {
            (_mm256_loadu_si256(keys[at].as_ptr().cast()), _mm256_loadu_si256(keys[at + 8].as_ptr().cast()))
        };
        *row = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
    }
    // Four words of four lanes at a time: words 0 to 3 of lanes 0 to 3, words 4 to 7 of the same, then of lanes 8 to 11...
    let mut t = rows;
    for at in [0, 4] {
        let ab = _mm512_unpacklo_epi32(rows[at], rows[at + 1]);
        let cd = _mm512_unpacklo_epi32(rows[at + 2], rows[at + 3]);
        let ef = _mm512_unpackhi_epi32(rows[at], rows[at + 1]);
        let gh = _mm512_unpackhi_epi32(rows[at + 2], rows[at + 3]);
        t[at] = _mm512_unpacklo_epi64(ab, cd);
        t[at + 1] = _mm512_unpackhi_epi64(ab, cd);
        t[at + 2] = _mm512_unpacklo_epi64(ef, gh);
        t[at + 3] = _mm512_unpackhi_epi64(ef, gh);
    }
    let low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let mut words = rows;
    for at in 0..4 {
        words[at] = _mm512_permutex2var_epi64(t[at], low, t[at + 4]);
        words[at + 4] = _mm512_permutex2var_epi64(t[at], high, t[at + 4]);
    }
    words
}
