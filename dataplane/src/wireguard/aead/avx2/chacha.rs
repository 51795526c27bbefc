//! ChaCha20 (RFC 8439 §2.3, §2.4): eight blocks in sixteen registers, a lane each.

use super::super::lane::Lane;
use super::super::reference::SIGMA;
use super::super::scattered::scattered;
use super::poly::first;
use std::arch::x86_64::*;

/// Lanes.
const EIGHT: usize = 8;

scattered!(EIGHT, "avx2");

impl Scattered<'_> {
    #[target_feature(enable = "avx2")]
    fn run(&self) {
        let nonces = [
            words(&self.nonces.map(|[n, _, _]| n)),
            words(&self.nonces.map(|[_, n, _]| n)),
            words(&self.nonces.map(|[_, _, n]| n)),
        ];
        let (low, high) = blocks(&keys(&self.keys), words(&self.numbers), nonces);
        for ((target, len), halves) in self.targets.into_iter().zip(low.into_iter().zip(high)) {
            // SAFETY: `push` got bytes that are there and nobody else's; idle lanes write none.
            unsafe { xor(target, len, halves) };
        }
    }
}

/// A word a lane.
#[target_feature(enable = "avx2")]
#[inline]
fn words(words: &[u32; EIGHT]) -> __m256i {
    // SAFETY: eight words are 32 bytes.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Joins the first bytes, up to 64, with the halves of a block.
///
/// # Safety
/// They may be read and written, and so may sixteen more if there are less than 64.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn xor(at: *mut u8, len: usize, (low, high): (__m256i, __m256i)) {
    if len == 64 {
        for (half, stream) in [low, high].into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let at = at.cast::<__m256i>().add(half);
                _mm256_storeu_si256(at, _mm256_xor_si256(_mm256_loadu_si256(at), stream));
            }
        }
        return;
    }
    let mut stream = [0u128; 4];
    // SAFETY: four times sixteen bytes are 64.
    unsafe {
        _mm256_storeu_si256(stream.as_mut_ptr().cast(), low);
        _mm256_storeu_si256(stream.as_mut_ptr().cast::<__m256i>().add(1), high);
    }
    for (piece, stream) in stream.into_iter().enumerate().take(len.div_ceil(16)) {
        // SAFETY: the piece begins within the bytes given, so it ends before the sixteen behind them do.
        unsafe {
            let at = at.cast::<u128>().add(piece);
            at.write_unaligned(at.read_unaligned() ^ (stream & first(len - 16 * piece)));
        }
    }
}

/// Rotates each word to the left.
macro_rules! rotated {
    ($x:expr, 16) => {
        _mm256_shuffle_epi8(
            $x,
            _mm256_set_epi64x(
                0x0d0c_0f0e_0908_0b0a,
                0x0504_0706_0100_0302,
                0x0d0c_0f0e_0908_0b0a,
                0x0504_0706_0100_0302,
            ),
        )
    };
    ($x:expr, 8) => {
        _mm256_shuffle_epi8(
            $x,
            _mm256_set_epi64x(
                0x0e0d_0c0f_0a09_080b,
                0x0605_0407_0201_0003,
                0x0e0d_0c0f_0a09_080b,
                0x0605_0407_0201_0003,
            ),
        )
    };
    ($x:expr, 12) => {{
        let x = $x;
        _mm256_or_si256(_mm256_slli_epi32::<12>(x), _mm256_srli_epi32::<20>(x))
    }};
    ($x:expr, 7) => {{
        let x = $x;
        _mm256_or_si256(_mm256_slli_epi32::<7>(x), _mm256_srli_epi32::<25>(x))
    }};
}

/// Half of a double round: its four quarter rounds side by side.
macro_rules! quarter_rounds {
    ($x:ident, $(($a:literal $b:literal $c:literal $d:literal))*) => {
        $($x[$a] = _mm256_add_epi32($x[$a], $x[$b]);)*
        $($x[$d] = rotated!(_mm256_xor_si256($x[$d], $x[$a]), 16);)*
        $($x[$c] = _mm256_add_epi32($x[$c], $x[$d]);)*
        $($x[$b] = rotated!(_mm256_xor_si256($x[$b], $x[$c]), 12);)*
        $($x[$a] = _mm256_add_epi32($x[$a], $x[$b]);)*
        $($x[$d] = rotated!(_mm256_xor_si256($x[$d], $x[$a]), 8);)*
        $($x[$c] = _mm256_add_epi32($x[$c], $x[$d]);)*
        $($x[$b] = rotated!(_mm256_xor_si256($x[$b], $x[$c]), 7);)*
    };
}

/// The blocks of all lanes, the first lane's first: their first halves, and their second.
#[target_feature(enable = "avx2")]
#[inline]
fn blocks(keys: &[__m256i; 8], numbers: __m256i, nonces: [__m256i; 3]) -> ([__m256i; 8], [__m256i; 8]) {
    let [s0, s1, s2, s3] = SIGMA;
    let sigma = [
        _mm256_set1_epi32(s0 as i32),
        _mm256_set1_epi32(s1 as i32),
        _mm256_set1_epi32(s2 as i32),
        _mm256_set1_epi32(s3 as i32),
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
        *word = _mm256_add_epi32(*word, start);
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = x;
    (transposed([a, b, c, d, e, f, g, h]), transposed([i, j, k, l, m, n, o, p]))
}

/// The keys of all lanes, a word of each in a register.
#[target_feature(enable = "avx2")]
#[inline]
fn keys(keys: &[&[u32; 8]; EIGHT]) -> [__m256i; 8] {
    let mut rows = [_mm256_setzero_si256(); 8];
    for (row, key) in rows.iter_mut().zip(keys) {
        *row = words(key);
    }
    transposed(rows)
}

/// Rows become columns: eight by eight words.
#[target_feature(enable = "avx2")]
#[inline]
fn transposed(rows: [__m256i; 8]) -> [__m256i; 8] {
    let mut t = rows;
    for at in [0, 4] {
        let ab = _mm256_unpacklo_epi32(rows[at], rows[at + 1]);
        let cd = _mm256_unpacklo_epi32(rows[at + 2], rows[at + 3]);
        let ef = _mm256_unpackhi_epi32(rows[at], rows[at + 1]);
        let gh = _mm256_unpackhi_epi32(rows[at + 2], rows[at + 3]);
        t[at] = _mm256_unpacklo_epi64(ab, cd);
        t[at + 1] = _mm256_unpackhi_epi64(ab, cd);
        t[at + 2] = _mm256_unpacklo_epi64(ef, gh);
        t[at + 3] = _mm256_unpackhi_epi64(ef, gh);
    }
    let mut columns = rows;
    for at in 0..4 {
        columns[at] = _mm256_permute2x128_si256::<0x20>(t[at], t[at + 4]);
        columns[at + 4] = _mm256_permute2x128_si256::<0x31>(t[at], t[at + 4]);
    }
    columns
}
