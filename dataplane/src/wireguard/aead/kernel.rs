//! Which instructions do the work.

use super::lane::Lane;
use super::{GROUP, TAG};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// A way to seal and open that this processor has: found by asking it, and made in no other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Option<Vectors>);

impl Kernel {
    /// The fastest.
    pub fn best() -> Self {
        Self::all().last().unwrap_or(Self(None))
    }

    /// All, the fastest last: the library, one packet at a time; then those with vectors.
    pub fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vectors = [(Vectors::Avx2, avx2::available()), (Vectors::Avx512, avx512::available())];
        #[cfg(not(target_arch = "x86_64"))]
        let vectors = [];
        let vectors = vectors.into_iter().filter(|(_, available)| *available).map(|(vectors, _)| vectors);
        std::iter::once(None).chain(vectors.map(Some)).map(Self)
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self.0 {
            None => "library",
            #[cfg(target_arch = "x86_64")]
            Some(Vectors::Avx2) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Some(Vectors::Avx512) => "AVX-512",
        }
    }

    /// What does a group of so many packets, the longest of so many bytes, faster than the library does
    /// them one by one.
    pub(super) fn vectors(self, packets: usize, longest: usize) -> Option<Vectors> {
        self.0.filter(|vectors| packets >= FEWEST && longest <= vectors.longest())
    }
}

/// Packets of a group that are worth it. Fewer leave most lanes idle, and the library is faster.
const FEWEST: usize = 3;

/// Of those that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vectors {
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Vectors {
    /// Bytes of text up to which it is worth it. Of longer ones, the library's AVX2 has enough blocks
    /// in one packet, and does both ciphers at a time.
    const fn longest(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 640,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => usize::MAX,
        }
    }

    /// Seals 1 to [`GROUP`] packets.
    pub(super) fn seal(self, lanes: &[Lane<'_>]) {
        match self {
            // SAFETY: only `Kernel::all` makes one, where the processor has what it takes.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::seal(lanes) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512::seal(lanes) },
        }
    }

    /// Opens 1 to [`GROUP`] packets, and says which are genuine. Others stay as they are.
    pub(super) fn open(self, lanes: &[Lane<'_>]) -> [bool; GROUP] {
        match self {
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::open(lanes) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512::open(lanes) },
        }
    }
}

/// Compares the tags that were computed with those of the packets.
#[cfg(target_arch = "x86_64")]
pub(super) fn compare(lanes: &[Lane<'_>], tags: &[[u8; TAG]; GROUP]) -> [bool; GROUP] {
    let mut genuine = [false; GROUP];
    for ((genuine, lane), tag) in genuine.iter_mut().zip(lanes).zip(tags) {
        *genuine = lane.has_tag(*tag);
    }
    genuine
}
