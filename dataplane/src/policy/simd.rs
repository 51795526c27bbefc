//! What the processor offers beyond the baseline: asked once, and used through one trait.

#![allow(unsafe_code)]

use super::leaf::Line;
use super::point::{Layout, Words};

/// The work of walks that processors do in different ways. All ways say the same.
pub(super) trait Kernel: Copy {
    /// Runs `job`, compiled for this kernel as far as it is inlined.
    fn tuned<J: Job>(self, job: J) -> J::Out;

    /// The bits of `word` where `mask` is set, moved together at the low end.
    fn extract(self, word: u64, mask: u64) -> u64;

    /// The lanes of a block whose box holds the point: a bit each.
    #[inline(always)]
    fn hits(self, layout: Layout, line: &Line, words: &Words) -> u32 {
        match layout {
            Layout::V4 => self.hits_v4(line, words),
            Layout::V6 => self.hits_v6(line, words),
        }
    }

    /// Of a block for IPv4.
    fn hits_v4(self, line: &Line, words: &Words) -> u32;

    /// Of a block for IPv6.
    fn hits_v6(self, line: &Line, words: &Words) -> u32;
}

/// Work that is worth compiling for each kernel.
pub(super) trait Job {
    /// What comes of it.
    type Out;

    /// Does it. To be inlined.
    fn run<K: Kernel>(self, kernel: K) -> Self::Out;
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
}

impl Kernel for Cpu {
    #[inline(always)]
    fn tuned<J: Job>(self, job: J) -> J::Out {
        match self {
            Self::Plain(kernel) => kernel.tuned(job),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.tuned(job),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(kernel) => kernel.tuned(job),
        }
    }

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
    fn hits_v4(self, line: &Line, words: &Words) -> u32 {
        match self {
            Self::Plain(kernel) => kernel.hits_v4(line, words),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.hits_v4(line, words),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(kernel) => kernel.hits_v4(line, words),
        }
    }

    #[inline(always)]
    fn hits_v6(self, line: &Line, words: &Words) -> u32 {
        match self {
            Self::Plain(kernel) => kernel.hits_v6(line, words),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.hits_v6(line, words),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(kernel) => kernel.hits_v6(line, words),
        }
    }
}

/// Any processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain;

impl Kernel for Plain {
    #[inline(always)]
    fn tuned<J: Job>(self, job: J) -> J::Out {
        job.run(self)
    }

    fn extract(self, word: u64, mut mask: u64) -> u64 {
        let (mut bits, mut at) = (0, 0);
        while mask != 0 {
            bits |= (word >> mask.trailing_zeros() & 1) << at;
            at += 1;
            mask &= mask - 1;
        }
        bits
    }

    fn hits_v4(self, line: &Line, words: &Words) -> u32 {
        let mut hits = 0;
        for (lane, own) in line.0.as_chunks::<4>().0.iter().enumerate() {
            let addresses = halves(own[0], words.0[3]) & halves(own[1], words.0[4]);
            let rest = quarters(own[2], words.0[5]) & quarters(own[3], words.0[6]);
            hits |= u32::from(addresses & rest) << lane;
        }
        hits
    }

    fn hits_v6(self, line: &Line, words: &Words) -> u32 {
        let inside = (0..4).all(|at| {
            let free = (line.0[6] >> (8 * at)) as u8;
            (line.0[at] ^ words.0[at + 1]).checked_shr(free.into()).unwrap_or(0) == 0
        });
        u32::from(inside & quarters(line.0[4], words.0[5]) & quarters(line.0[5], words.0[6]))
    }
}

/// Both 32-bit numbers of `bounds` are at most those of `keys`.
fn halves(bounds: u64, keys: u64) -> bool {
    (bounds as u32 <= keys as u32) & (bounds >> 32 <= keys >> 32)
}

/// All four 16-bit numbers of `bounds` are at most those of `keys`.
fn quarters(bounds: u64, keys: u64) -> bool {
    (0..4).all(|at| (bounds >> (16 * at)) as u16 <= (keys >> (16 * at)) as u16)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Job, Kernel, Line, Words};
    use std::arch::x86_64::*;

    /// With AVX2 and BMI2: only `detect` makes one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Avx2(());

    impl Avx2 {
        pub(super) fn detect() -> Option<Self> {
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2")).then_some(Self(()))
        }
    }

    impl Kernel for Avx2 {
        #[inline(always)]
        fn tuned<J: Job>(self, job: J) -> J::Out {
            // SAFETY: `self` is proof of the features.
            unsafe { avx2_job(self, job) }
        }

        #[inline(always)]
        fn extract(self, word: u64, mask: u64) -> u64 {
            // SAFETY: `self` is proof of BMI2.
            unsafe { pext(word, mask) }
        }

        #[inline(always)]
        fn hits_v4(self, line: &Line, words: &Words) -> u32 {
            // SAFETY: `self` is proof of the features.
            unsafe { avx2_hits_v4(line, words) }
        }

        #[inline(always)]
        fn hits_v6(self, line: &Line, words: &Words) -> u32 {
            // SAFETY: `self` is proof of the features.
            unsafe { avx2_hits_v6(line, words) }
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
    }

    impl Kernel for Avx512 {
        #[inline(always)]
        fn tuned<J: Job>(self, job: J) -> J::Out {
            // SAFETY: `self` is proof of the features.
            unsafe { avx512_job(self, job) }
        }

        #[inline(always)]
        fn extract(self, word: u64, mask: u64) -> u64 {
            // SAFETY: `self` is proof of BMI2.
            unsafe { pext(word, mask) }
        }

        #[inline(always)]
        fn hits_v4(self, line: &Line, words: &Words) -> u32 {
            // SAFETY: `self` is proof of the features.
            unsafe { avx512_hits_v4(line, words) }
        }

        #[inline(always)]
        fn hits_v6(self, line: &Line, words: &Words) -> u32 {
            // SAFETY: `self` is proof of the features.
            unsafe { avx512_hits_v6(line, words) }
        }
    }

    #[target_feature(enable = "avx2,bmi2")]
    fn avx2_job<J: Job>(kernel: Avx2, job: J) -> J::Out {
        job.run(kernel)
    }

    #[target_feature(enable = "avx2,bmi2,avx512f,avx512bw,avx512vl")]
    fn avx512_job<J: Job>(kernel: Avx512, job: J) -> J::Out {
        job.run(kernel)
    }

    #[inline]
    #[target_feature(enable = "bmi2")]
    fn pext(word: u64, mask: u64) -> u64 {
        _pext_u64(word, mask)
    }

    /// Four of eight words, from the word `from` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn four(words: &[u64; 8], from: usize) -> __m256i {
        let four: &[u64; 4] = words[from..].first_chunk().expect("four words");
        // SAFETY: `four` is 32 bytes that may be read.
        unsafe { _mm256_loadu_si256(four.as_ptr().cast()) }
    }

    /// Two of eight words, from the word `from` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn two(words: &[u64; 8], from: usize) -> __m128i {
        let two: &[u64; 2] = words[from..].first_chunk().expect("two words");
        // SAFETY: `two` is 16 bytes that may be read.
        unsafe { _mm_loadu_si128(two.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi2")]
    fn avx2_hits_v4(line: &Line, words: &Words) -> u32 {
        let keys = four(&words.0, 3);
        let inside = |bounds: __m256i| {
            let addresses = _mm256_cmpeq_epi32(_mm256_min_epu32(bounds, keys), bounds);
            let rest = _mm256_cmpeq_epi16(_mm256_min_epu16(bounds, keys), bounds);
            _mm256_movemask_epi8(_mm256_blend_epi32::<0xf0>(addresses, rest)) == -1
        };
        u32::from(inside(four(&line.0, 0))) | u32::from(inside(four(&line.0, 4))) << 1
    }

    /// The bits of addresses that matter and differ.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn differ_v6(line: &Line, words: &Words) -> __m256i {
        let free = _mm256_cvtepu8_epi64(_mm_cvtsi64_si128(line.0[6] as i64));
        _mm256_srlv_epi64(_mm256_xor_si256(four(&line.0, 0), four(&words.0, 1)), free)
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi2")]
    fn avx2_hits_v6(line: &Line, words: &Words) -> u32 {
        let differ = differ_v6(line, words);
        let (bounds, keys) = (two(&line.0, 4), two(&words.0, 5));
        let rest = _mm_movemask_epi8(_mm_cmpeq_epi16(_mm_min_epu16(bounds, keys), bounds));
        (_mm256_testz_si256(differ, differ) & i32::from(rest == 0xffff)) as u32
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi2,avx512f,avx512bw,avx512vl")]
    fn avx512_hits_v4(line: &Line, words: &Words) -> u32 {
        // SAFETY: a line is 64 bytes, aligned to them.
        let bounds = unsafe { _mm512_load_si512(line.0.as_ptr().cast()) };
        let keys = _mm512_broadcast_i64x4(four(&words.0, 3));
        // Of each lane 32 bits four times, then 16 bits eight times: what is above is not zero.
        let addresses = _mm512_xor_si512(_mm512_max_epu32(bounds, keys), keys);
        let above = _mm512_mask_subs_epu16(addresses, 0xff00_ff00, bounds, keys);
        let misses = u32::from(_mm512_test_epi64_mask(above, above));
        u32::from(misses & 0xf == 0) | u32::from(misses < 0x10) << 1
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi2,avx512f,avx512bw,avx512vl")]
    fn avx512_hits_v6(line: &Line, words: &Words) -> u32 {
        let differ = differ_v6(line, words);
        let rest = _mm_cmpgt_epu16_mask(two(&line.0, 4), two(&words.0, 5));
        u32::from(_mm256_test_epi64_mask(differ, differ) | rest == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// At, below, and seldom above the key, `bits` wide.
    fn bound(state: &mut u64, key: u64, bits: u32) -> u64 {
        let all = u64::MAX >> (64 - bits);
        match random(state) % 16 {
            0 => random(state) & all,
            1..8 => key & all,
            _ => random(state) % ((key & all) + 1),
        }
    }

    /// Bounds of what stands in `key`, in numbers `bits` wide.
    fn bounds(state: &mut u64, key: u64, bits: u32) -> u64 {
        (0..64).step_by(bits as usize).fold(0, |all, at| all | bound(state, key >> at, bits) << at)
    }

    #[test]
    fn all_ways_find_the_same_lanes() {
        let (mut state, mut seen) = (1, [0u32; 2]);
        for _ in 0..10_000 {
            let state = &mut state;
            let words = Words(std::array::from_fn(|_| random(state)));
            let mut line = Line([0; 8]);
            for lane in line.0.as_chunks_mut::<4>().0 {
                for (at, own) in lane.iter_mut().enumerate() {
                    *own = bounds(state, words.0[3 + at], if at < 2 { 32 } else { 16 });
                }
            }
            let right = Plain.hits(Layout::V4, &line, &words);
            seen[0] |= 1 << right;
            for kernel in kernels() {
                assert_eq!(kernel.hits(Layout::V4, &line, &words), right, "{kernel:?}");
            }
            line.0 = [0; 8];
            for at in 0..4 {
                let free = random(state) % 65;
                line.0[6] |= free << (8 * at);
                // Mostly a box that the point is in.
                let flip = u64::from(random(state).is_multiple_of(8)) << (random(state) % 64);
                let differ = random(state) & 1u64.checked_shl(free as u32).map_or(u64::MAX, |bit| bit - 1);
                line.0[at] = words.0[1 + at] ^ differ ^ flip;
            }
            line.0[4] = bounds(state, words.0[5], 16);
            line.0[5] = bounds(state, words.0[6], 16);
            let right = Plain.hits(Layout::V6, &line, &words);
            seen[1] |= 1 << right;
            for kernel in kernels() {
                assert_eq!(kernel.hits(Layout::V6, &line, &words), right, "{kernel:?}");
            }
        }
        assert_eq!(seen, [0xf, 0x3], "every combination of lanes was hit");
    }
}
