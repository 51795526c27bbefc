//! Which frames a device was lent: one bit a frame.
//!
//! A frame comes back by a number that the kernel writes. The bit is what makes it safe to
//! believe: a number that we did not lend is not taken. And when a device is dropped, the bits
//! that are left name the frames that the kernel had.

/// A set of frames, each named by any offset within it.
pub struct Lent {
    bits: Box<[u64]>,
    len: usize,
    /// Offsets are divided by 2 to the power of this: frame sizes are 2,048 or 4,096.
    shift: u32,
}

impl Lent {
    /// None of `count` frames of `frame_size` bytes, a power of two.
    pub fn new(count: u32, frame_size: u32) -> Self {
        let words = (count as usize).div_ceil(64);
        Self { bits: vec![0; words].into(), len: 0, shift: frame_size.trailing_zeros() }
    }

    /// How many are lent.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The frame that holds `offset` is lent from now on.
    ///
    /// # Panics
    /// When the offset is outside the region.
    #[inline]
    pub fn insert(&mut self, offset: u64) {
        let frame = offset >> self.shift;
        let word = &mut self.bits[(frame / 64) as usize];
        debug_assert_eq!(*word & 1 << (frame % 64), 0, "frame {frame} is lent twice");
        *word |= 1 << (frame % 64);
        self.len += 1;
    }

    /// The frame that holds `offset` is back. `false` where it was not lent.
    #[inline]
    #[must_use]
    pub fn remove(&mut self, offset: u64) -> bool {
        let frame = offset >> self.shift;
        let Some(word) = usize::try_from(frame / 64).ok().and_then(|word| self.bits.get_mut(word)) else {
            return false;
        };
        let bit = 1 << (frame % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        self.len -= usize::from(was);
        was
    }

    /// Takes out all that are left: their offsets.
    pub fn drain(&mut self) -> impl Iterator<Item = u64> + '_ {
        let shift = self.shift;
        self.len = 0;
        self.bits.iter_mut().enumerate().flat_map(move |(word, bits)| {
            let mut bits = std::mem::take(bits);
            std::iter::from_fn(move || {
                let bit = u64::from(bits.trailing_zeros());
                bits &= bits.checked_sub(1)?;
                Some((word as u64 * 64 + bit) << shift)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_lent_comes_back_and_once() {
        let mut lent = Lent::new(100, 2048);
        lent.insert(0);
        lent.insert(99 * 2048);
        assert!(lent.remove(256), "any offset within the frame");
        assert!(!lent.remove(256), "twice");
        assert!(!lent.remove(2048), "never lent");
        assert!(!lent.remove(u64::MAX), "outside");
        assert_eq!(lent.len(), 1);
    }

    #[test]
    fn draining_names_every_frame_left() {
        let mut lent = Lent::new(256, 4096);
        let frames = [0, 1, 63, 64, 127, 200, 255];
        for frame in frames {
            lent.insert(frame * 4096 + 300);
        }
        let left: Vec<u64> = lent.drain().collect();
        assert_eq!(left, frames.map(|frame| frame * 4096));
        assert_eq!(lent.len(), 0);
        assert_eq!(lent.drain().count(), 0);
    }
}
