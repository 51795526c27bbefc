//! What the processor offers beyond the baseline: asked once, and used through one trait.

#![allow(unsafe_code)]

use super::leaf::{Block, LANES};
use super::point::Words;

/// The work of walks that processors do in different ways. All ways say the same.
pub(super) trait Kernel: Copy {
    /// The bits of `word` where `mask` is set, moved together at the low end.
    fn extract(self, word: u64, mask: u64) -> u64;

    /// The lanes of `block`, with `N` lines of addresses, whose box holds the point: a bit each.
    fn hits<const N: usize>(self, block: Block<'_, N>, words: &Words) -> u32;
}

/// Work that is worth compiling for each kernel.
pub(super) trait Job {
    /// Does it. To be inlined.
    fn run<K: Kernel>(self, kernel: K);
}

/// The kernel of this machine. Being a kernel itself, it asks each time which one that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cpu {
    /// Any.
    Plain(Plain),
    /// With AVX2 and BMI2.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    /// With AVX-512 F, BW and VL besides.
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
}

impl Cpu {
    /// Of this machine.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = x86::Avx512::detect() {
            return Self::Avx512(wide);
        } else if let Some(wide) = x86::Avx2::detect() {
            return Self::Avx2(wide);
        }
        Self::Plain(Plain)
    }

    /// Runs `job`, compiled for this machine as far as it is inlined.
    #[inline(always)]
    pub(super) fn tuned(self, job: impl Job) {
        match self {
            Self::Plain(kernel) => job.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.tuned(job),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(kernel) => kernel.tuned(job),
        }
    }
}

impl Kernel for Cpu {
    #[inline(always)]
    fn extract(self, word: u64, mask: u64) -> u64 {
        match self {
            Self::Plain(kernel) => kernel.extract(word, mask),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.extract(word, mask),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(kernel) => kernel.extract(word, mask),
        }
    }

    #[inline(always)]
    fn hits<const N: usize>(self, block: Block<'_, N>, words: &Words) -> u32 {
        match self {
            Self::Plain(kernel) => kernel.hits(block, words),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.hits(block, words),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(kernel) => kernel.hits(block, words),
        }
    }
}

/// Any processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain;

impl Kernel for Plain {
    fn extract(self, word: u64, mut mask: u64) -> u64 {
        let (mut bits, mut at) = (0, 0);
        while mask != 0 {
            bits |= (word >> mask.trailing_zeros() & 1) << at;
            at += 1;
            mask &= mask - 1;
        }
        bits
    }

    fn hits<const N: usize>(self, block: Block<'_, N>, words: &Words) -> u32 {
        let mut hits = 0;
        for lane in 0..LANES {
            let mut inside = true;
            for (line, word) in block.filters.iter().zip(&words.0[1..]) {
                inside &= word & line.0[LANES + lane] == line.0[lane];
            }
            for (bounds, key) in block.rest.0.iter().zip(words.keys()) {
                inside &= (bounds >> (16 * lane)) as u16 <= key;
            }
            hits |= u32::from(inside) << lane;
        }
        hits
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Block, Job, Kernel, LANES, Words};
    use crate::policy::leaf::Line;
    use std::arch::x86_64::*;

    /// With AVX2 and BMI2: only `detect` makes one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Avx2(());

    impl Avx2 {
        pub(super) fn detect() -> Option<Self> {
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2")).then_some(Self(()))
        }

        #[inline(always)]
        pub(super) fn tuned(self, job: impl Job) {
            // SAFETY: `self` is proof of the features.
            unsafe { avx2_job(self, job) }
        }
    }

    impl Kernel for Avx2 {
        #[inline(always)]
        fn extract(self, word: u64, mask: u64) -> u64 {
            // SAFETY: `self` is proof of BMI2.
            unsafe { pext(word, mask) }
        }

        #[inline(always)]
        fn hits<const N: usize>(self, block: Block<'_, N>, words: &Words) -> u32 {
            // SAFETY: `self` is proof of the features.
            unsafe { avx2_hits(block, words) }
        }
    }

    /// With AVX-512 F, BW and VL, and all that [`Avx2`] has: only `detect` makes one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Avx512(());

    impl Avx512 {
        pub(super) fn detect() -> Option<Self> {
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl");
            (wide && Avx2::detect().is_some()).then_some(Self(()))
        }

        #[inline(always)]
        pub(super) fn tuned(self, job: impl Job) {
            // SAFETY: `self` is proof of the features.
            unsafe { avx512_job(self, job) }
        }
    }

    impl Kernel for Avx512 {
        #[inline(always)]
        fn extract(self, word: u64, mask: u64) -> u64 {
            // SAFETY: `self` is proof of BMI2.
            unsafe { pext(word, mask) }
        }

        #[inline(always)]
        fn hits<const N: usize>(self, block: Block<'_, N>, words: &Words) -> u32 {
            // SAFETY: `self` is proof of the features.
            unsafe { avx512_hits(block, words) }
        }
    }

    #[target_feature(enable = "avx2,bmi2")]
    fn avx2_job(kernel: Avx2, job: impl Job) {
        job.run(kernel);
    }

    #[target_feature(enable = "avx2,bmi2,avx512f,avx512bw,avx512vl")]
    fn avx512_job(kernel: Avx512, job: impl Job) {
        job.run(kernel);
    }

    #[inline]
    #[target_feature(enable = "bmi2")]
    fn pext(word: u64, mask: u64) -> u64 {
        _pext_u64(word, mask)
    }

    /// Words 0 to 3, or 4 to 7.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn half(line: &Line, high: bool) -> __m256i {
        let half = &line.0[if high { LANES..2 * LANES } else { 0..LANES }];
        // SAFETY: `half` is 32 bytes, aligned to them as a half of a line is.
        unsafe { _mm256_load_si256(half.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi2")]
    fn avx2_hits<const N: usize>(block: Block<'_, N>, words: &Words) -> u32 {
        let mut inside = _mm256_set1_epi64x(-1);
        for (line, word) in block.filters.iter().zip(&words.0[1..]) {
            let picked = _mm256_and_si256(_mm256_set1_epi64x(*word as i64), half(line, true));
            inside = _mm256_and_si256(inside, _mm256_cmpeq_epi64(picked, half(line, false)));
        }
        let hits = _mm256_movemask_pd(_mm256_castsi256_pd(inside)) as u32;
        let key = _mm256_set1_epi64x(words.key() as i64);
        // The source port eight times, then the destination port; the protocol's code eight times.
        let ports = _mm256_shuffle_epi8(
            key,
            _mm256_setr_epi64x(
                0x0100_0100_0100_0100,
                0x0100_0100_0100_0100,
                0x0302_0302_0302_0302,
                0x0302_0302_0302_0302,
            ),
        );
        let codes = _mm256_shuffle_epi8(key, _mm256_set1_epi64x(0x0504_0504_0504_0504));
        let inverse = _mm256_setr_epi64x(0, -1, 0, -1);
        let at_most = |bounds: __m256i, key: __m256i| {
            let key = _mm256_xor_si256(key, inverse);
            _mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_min_epu16(bounds, key), bounds)) as u32
        };
        let ports = at_most(half(block.rest, false), ports);
        // What lies above the codes are pieces: their bits are dropped below.
        let codes = at_most(half(block.rest, true), codes);
        let pairs = ports & ports >> 16 & codes;
        hits & _pext_u32(pairs & pairs >> 8, 0x55)
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi2,avx512f,avx512bw,avx512vl")]
    fn avx512_hits<const N: usize>(block: Block<'_, N>, words: &Words) -> u32 {
        let mut hits = 0xff;
        for (line, word) in block.filters.iter().zip(&words.0[1..]) {
            let picked = _mm256_and_si256(_mm256_set1_epi64x(*word as i64), half(line, true));
            hits &= _mm256_cmpeq_epi64_mask(picked, half(line, false));
        }
        // SAFETY: a line is 64 bytes, aligned to them.
        let bounds = unsafe { _mm512_load_si512(block.rest.0.as_ptr().cast()) };
        let key = _mm512_castsi128_si512(_mm_cvtsi64_si128(words.key() as i64));
        // Each of the three numbers four times, and four times again for the inverse.
        let order = _mm512_setr_epi64(
            0,
            0,
            0x0001_0001_0001_0001,
            0x0001_0001_0001_0001,
            0x0002_0002_0002_0002,
            0x0002_0002_0002_0002,
            0,
            0,
        );
        let inverse = _mm512_setr_epi64(0, -1, 0, -1, 0, -1, 0, 0);
        let keys = _mm512_xor_si512(_mm512_permutexvar_epi16(order, key), inverse);
        let within = _mm512_cmple_epu16_mask(bounds, keys);
        let within = within & within >> 12;
        u32::from(hits) & within & within >> 4 & within >> 8 & 0xf
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::leaf::Line;

    /// Every kernel this machine has.
    fn kernels() -> Vec<Cpu> {
        let mut all = vec![Cpu::Plain(Plain)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(x86::Avx2::detect().map(Cpu::Avx2));
            all.extend(x86::Avx512::detect().map(Cpu::Avx512));
        }
        all
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn all_ways_extract_the_same() {
        let mut state = 1;
        for _ in 0..1000 {
            let (word, mask) = (random(&mut state), random(&mut state) & random(&mut state));
            for kernel in kernels() {
                assert_eq!(kernel.extract(word, mask), Plain.extract(word, mask), "{kernel:?}");
            }
        }
        for kernel in kernels() {
            assert_eq!(kernel.extract(0b1011_0110, 0b1111_0000), 0b1011);
            assert_eq!(kernel.extract(u64::MAX, u64::MAX), u64::MAX);
        }
    }

    #[test]
    fn all_ways_find_the_same_lanes() {
        fn compare<const N: usize>(state: &mut u64, seen: &mut u32) {
            let words = Words(std::array::from_fn(|_| random(state)));
            let mut lines = vec![Line([0; 8]); N + 1];
            for (line, word) in lines.iter_mut().zip(&words.0[1..=N]) {
                for lane in 0..LANES {
                    let mask = random(state);
                    // Mostly a box that the point is in.
                    let flip = u64::from(random(state).is_multiple_of(16)) << (random(state) % 64);
                    (line.0[lane], line.0[LANES + lane]) = ((word ^ flip) & mask, mask);
                }
            }
            for (bounds, key) in lines[N].0.iter_mut().zip(words.keys()) {
                for lane in 0..LANES {
                    // At, below, and seldom above the key.
                    let bound = match random(state) % 8 {
                        0 => random(state) as u16,
                        1..4 => key,
                        _ => (random(state) % (u64::from(key) + 1)) as u16,
                    };
                    *bounds |= u64::from(bound) << (16 * lane);
                }
            }
            (lines[N].0[6], lines[N].0[7]) = (random(state), random(state));
            let right = Plain.hits::<N>(Block::at(&lines, 0), &words);
            *seen |= 1 << right;
            for kernel in kernels() {
                assert_eq!(kernel.hits::<N>(Block::at(&lines, 0), &words), right, "{kernel:?}");
            }
        }
        let (mut state, mut seen) = (1, 0);
        for _ in 0..10_000 {
            compare::<1>(&mut state, &mut seen);
            compare::<4>(&mut state, &mut seen);
        }
        assert_eq!(seen, 0xffff, "every combination of lanes was hit");
    }
}
