//! What the processor offers beyond the baseline, asked once.

#![allow(unsafe_code)]

/// The processor's features that walks use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cpu {
    bmi2: bool,
    avx2: bool,
}

impl Cpu {
    /// Of this machine.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        let (bmi2, avx2) =
            (std::arch::is_x86_feature_detected!("bmi2"), std::arch::is_x86_feature_detected!("avx2"));
        #[cfg(not(target_arch = "x86_64"))]
        let (bmi2, avx2) = (false, false);
        Self { bmi2, avx2 }
    }

    /// No features.
    #[cfg(test)]
    pub(super) const fn plain() -> Self {
        Self { bmi2: false, avx2: false }
    }

    /// The bits of `word` where `mask` is set, moved together at the low end.
    #[inline(always)]
    pub(super) fn extract(self, word: u64, mask: u64) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if self.bmi2 {
            let bits: u64;
            // SAFETY: PEXT reads and writes registers only, and `bmi2` was detected on this machine.
            unsafe {
                std::arch::asm!(
                    "pext {bits}, {word}, {mask}",
                    bits = lateout(reg) bits, word = in(reg) word, mask = in(reg) mask,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            return bits;
        }
        plain_extract(word, mask)
    }
}

/// Runs `work`, compiled for what `cpu` offers as far as it is inlined.
#[inline(always)]
pub(super) fn tuned(cpu: Cpu, work: impl FnOnce()) {
    #[cfg(target_arch = "x86_64")]
    if cpu.bmi2 && cpu.avx2 {
        // SAFETY: both features were detected on this machine.
        unsafe { with_avx2(work) };
        return;
    }
    work();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn with_avx2(work: impl FnOnce()) {
    work();
}

fn plain_extract(word: u64, mut mask: u64) -> u64 {
    let (mut bits, mut at) = (0, 0);
    while mask != 0 {
        bits |= (word >> mask.trailing_zeros() & 1) << at;
        at += 1;
        mask &= mask - 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_extract_the_same() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 29
        };
        for _ in 0..1000 {
            let (word, mask) = (next(), next() & next());
            assert_eq!(Cpu::detect().extract(word, mask), Cpu::plain().extract(word, mask));
        }
        assert_eq!(Cpu::plain().extract(0b1011_0110, 0b1111_0000), 0b1011);
        assert_eq!(Cpu::detect().extract(u64::MAX, u64::MAX), u64::MAX);
    }
}
