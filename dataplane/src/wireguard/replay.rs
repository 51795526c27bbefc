//! Which counters of a session have been seen (RFC 6479).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters behind the highest that are still taken, once each.
pub const WINDOW: u64 = 8_192;

/// A power of two above [`WINDOW`], in words: whole words are cleared as the window moves on.
const WORDS: usize = 256;

/// The window of one session's direction. Shared, so that it is made and freed where that may take time; but one
/// thread alone calls [`accept`](Self::accept): it reads and writes without locked instructions.
#[derive(Debug)]
pub struct Replay {
    /// One above the highest seen.
    next: AtomicU64,
    seen: Box<[AtomicU64; WORDS]>,
}

impl Default for Replay {
    fn default() -> Self {
        Self { next: AtomicU64::new(0), seen: Box::new([const { AtomicU64::new(0) }; WORDS]) }
    }
}

impl Replay {
    /// Takes a counter, of a packet that is genuine: false where it was seen, or is too old to tell.
    pub fn accept(&self, counter: u64) -> bool {
        let next = self.next.load(Relaxed);
        if counter >= super::session::REJECT_AFTER_MESSAGES || counter.saturating_add(WINDOW + 1) < next {
            return false;
        }
        let word = counter / 64;
        if counter >= next {
            // From the word after the last that was in use: all of them, if it went round.
            let last = next.saturating_sub(1) / 64;
            for skipped in (last + 1..=word).take(WORDS) {
                self.seen[skipped as usize % WORDS].store(0, Relaxed);
            }
            self.next.store(counter + 1, Relaxed);
        }
        let place = &self.seen[word as usize % WORDS];
        let (seen, bit) = (place.load(Relaxed), 1 << (counter % 64));
        place.store(seen | bit, Relaxed);
        seen & bit == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wireguard::session::REJECT_AFTER_MESSAGES;
    use crate::wireguard::tests::Seeded;
    use std::collections::BTreeSet;

    /// Remembers everything.
    #[derive(Default)]
    struct Slow(BTreeSet<u64>);

    impl Slow {
        fn accept(&mut self, counter: u64) -> bool {
            let old = self.0.last().is_some_and(|last| counter + WINDOW < *last);
            counter < REJECT_AFTER_MESSAGES && !old && self.0.insert(counter)
        }
    }

    #[test]
    fn as_if_everything_were_remembered() {
        let mut random = Seeded(1);
        for run in 0..200 {
            let (fast, mut slow) = (Replay::default(), Slow::default());
            let mut at = random.below(100_000);
            for _ in 0..random.below(600) {
                let most = [70, 20_000][random.below(2) as usize];
                let by = random.below(most);
                at = if random.below(2) == 0 { at + by } else { at.saturating_sub(by) };
                assert_eq!(fast.accept(at), slow.accept(at), "run {run}, counter {at}");
            }
        }
    }

    #[test]
    fn the_edges_of_the_window() {
        let replay = Replay::default();
        assert!(replay.accept(WINDOW));
        assert!(replay.accept(WINDOW + 1));
        assert!(replay.accept(1), "as old as it may be");
        assert!(!replay.accept(0), "too old");
        assert!(!replay.accept(1), "seen");
        assert!(replay.accept(REJECT_AFTER_MESSAGES - 1));
        assert!(!replay.accept(REJECT_AFTER_MESSAGES));
        assert!(!replay.accept(u64::MAX));
        assert!(!replay.accept(WINDOW + 2), "far behind");
    }

    /// The sequences by which wireguard-go and the kernel test theirs.
    #[test]
    fn what_others_test() {
        const L: u64 = WINDOW + 1;
        const R: u64 = REJECT_AFTER_MESSAGES;
        let sequence = [
            (0, true),
            (1, true),
            (1, false),
            (9, true),
            (8, true),
            (7, true),
            (7, false),
            (L, true),
            (L - 1, true),
            (L - 1, false),
            (L - 2, true),
            (2, true),
            (2, false),
            (L + 16, true),
            (3, false),
            (L + 16, false),
            (L * 4, true),
            (L * 4 - (L - 1), true),
            (10, false),
            (L * 4 - L, false),
            (L * 4 - (L + 1), false),
            (L * 4 - (L - 2), true),
            (L * 4 + 1 - L, false),
            (0, false),
            (R, false),
            (R - 1, true),
            (R, false),
            (R - 1, false),
            (R - 2, true),
            (R + 1, false),
            (R + 2, false),
            (R - 2, false),
            (R - 3, true),
            (0, false),
        ];
        let replay = Replay::default();
        for (at, (counter, fresh)) in sequence.into_iter().enumerate() {
            assert_eq!(replay.accept(counter), fresh, "step {at}: {counter}");
        }
        let all = |replay: &Replay, mut counters: Box<dyn Iterator<Item = u64>>| {
            counters.all(|counter| replay.accept(counter))
        };
        let replay = Replay::default();
        assert!(all(&replay, Box::new(1..=WINDOW)) && replay.accept(0) && !replay.accept(0));
        let replay = Replay::default();
        assert!(all(&replay, Box::new(2..=L)) && replay.accept(1) && !replay.accept(0));
        let replay = Replay::default();
        assert!(all(&replay, Box::new((1..=L).rev())));
        let replay = Replay::default();
        assert!(all(&replay, Box::new((2..=L + 1).rev())) && !replay.accept(0));
        let replay = Replay::default();
        assert!(all(&replay, Box::new((1..=WINDOW).rev())) && replay.accept(0) && replay.accept(L));
    }
}
