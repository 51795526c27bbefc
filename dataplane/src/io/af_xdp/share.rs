//! How many frames a queue is given to receive into: few at rest, more as long as bursts come.
//!
//! A frame that waits for a packet is of no use to anybody else, so a queue at rest has only its
//! least share. What the kernel takes between two looks is a burst that the worker did not keep up
//! with; where that was more than half of the share, the next may be more than all of it, so the
//! share is doubled, as long as others do not need the memory. After a second without the like it is
//! halved. Frames that the kernel has are not called back: they go as packets come in them.

use crate::net::Nanos;

/// A queue's share.
pub struct Share {
    least: u32,
    most: u32,
    now: u32,
    /// What the kernel had after the last look: nothing before the first.
    had: u32,
    /// When it was last needed, or made smaller.
    needed: Nanos,
}

/// So long a share is not needed before it is made smaller.
const CALM: Nanos = Nanos::from_secs(1);

impl Share {
    /// From `least` to `most`, the entries of the ring.
    pub fn new(least: u32, most: u32) -> Self {
        Self { least: least.min(most), most, now: least.min(most), had: 0, needed: Nanos(0) }
    }

    /// The frames that the kernel is to have, who has `left` of those it was given. `spare` says if there
    /// is memory that nobody waits for.
    #[inline]
    pub fn look(&mut self, left: u32, now: Nanos, spare: impl FnOnce() -> bool) -> u32 {
        if left < self.had / 2 {
            self.needed = now;
            if self.now < self.most && spare() {
                self.now = (self.now * 2).min(self.most);
            }
        } else if self.now > self.least && now.since(self.needed) >= CALM {
            self.needed = now;
            self.now = (self.now / 2).max(self.least);
        }
        self.had = self.now;
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_bursts_and_shrinks_in_calm() {
        let mut share = Share::new(512, 4096);
        let at = |ms| Nanos::from_millis(ms);
        assert_eq!(share.look(0, at(0), || true), 512, "nothing was given that could be taken");
        assert_eq!(share.look(256, at(1), || true), 512, "half is left");
        assert_eq!(share.look(255, at(1), || true), 1024);
        assert_eq!(share.look(0, at(1), || true), 2048);
        assert_eq!(share.look(0, at(2), || true), 4096);
        assert_eq!(share.look(0, at(3), || true), 4096, "the ring has no more entries");
        assert_eq!(share.look(4096, at(1_002), || true), 4096);
        assert_eq!(share.look(4096, at(1_003), || true), 2048);
        assert_eq!(share.look(4096, at(1_004), || true), 2048, "once a second");
        assert_eq!(share.look(4096, at(2_003), || true), 1024);
        assert_eq!(share.look(4096, at(9_000), || true), 512);
        assert_eq!(share.look(4096, at(99_000), || true), 512);
    }

    #[test]
    fn takes_no_memory_that_others_need() {
        let mut share = Share::new(512, 4096);
        assert_eq!(share.look(0, Nanos(1), || false), 512);
        assert_eq!(share.look(0, Nanos(2), || true), 1024);
        assert_eq!(Share::new(2048, 256).look(0, Nanos(1), || true), 256, "no more than the ring");
    }
}
