//! All tags of a bucket, compared at once.

#![allow(unsafe_code)]

/// Tags a bucket.
pub const TAGS: usize = 10;

/// A bit for each of `tags` that equals `tag`, which is not 0.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn equal(tags: &[u16; TAGS], tag: u16) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16,
        _mm_set1_epi16,
    };
    let [.., i, j] = *tags;
    // SAFETY: every processor of this kind has SSE2, and the first sixteen bytes are those of the
    // first eight tags.
    unsafe {
        let eight = _mm_loadu_si128(tags.as_ptr().cast());
        let two = _mm_cvtsi32_si128((u32::from(i) | u32::from(j) << 16) as i32);
        let tag = _mm_set1_epi16(tag as i16);
        // Behind the last tag stand zeros, which equal none that is looked for.
        _mm_movemask_epi8(_mm_packs_epi16(_mm_cmpeq_epi16(eight, tag), _mm_cmpeq_epi16(two, tag))) as u32
    }
}

/// The same, one after the other.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub fn equal_each(tags: &[u16; TAGS], tag: u16) -> u32 {
    tags.iter().enumerate().fold(0, |hits, (way, t)| hits | u32::from(*t == tag) << way)
}

#[cfg(not(target_arch = "x86_64"))]
pub use equal_each as equal;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_once_is_one_after_the_other() {
        for tag in [1, 2, 0x7fff, 0x8000, 0xffff] {
            for pattern in 0..3u32.pow(TAGS as u32) {
                let of = |way: usize| [0, tag, tag ^ 1][(pattern / 3u32.pow(way as u32) % 3) as usize];
                let tags = std::array::from_fn(of);
                assert_eq!(equal(&tags, tag), equal_each(&tags, tag), "{tags:?} {tag}");
            }
        }
    }
}
