//! How long to wait before trying again.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// Doubling pauses between attempts, up to a longest one.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    /// Any part of the pause is as good as all of it.
    is_spread: bool,
}

impl Backoff {
    /// For a peer on this machine: back within a tenth of a second of a quick restart, and no
    /// burden while it is away for long.
    pub const LOCAL: Self = Self::new(Duration::from_millis(50), Duration::from_secs(2));

    /// For a peer that a thousand others wait for, too: each at another moment, so that they do not all come back at once.
    pub const SHARED: Self =
        Self { is_spread: true, ..Self::new(Duration::from_secs(1), Duration::from_secs(20)) };

    /// Pauses from `first`, doubling, to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, is_spread: false }
    }

    /// The attempt succeeded: the next pause is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Waits for the next pause.
    pub async fn pause(&mut self) {
        let pause = self.advance();
        tokio::time::sleep(if self.is_spread { part(pause) } else { pause }).await;
    }

    fn advance(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(self.longest);
        now
    }
}

/// A part of it, any as likely as any other. Not for secrets.
fn part(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8);
    pause.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_share_a_peer_do_not_come_back_at_once() {
        let all = Duration::from_secs(1);
        let parts: Vec<Duration> = (0..64).map(|_| part(all)).collect();
        assert!(parts.iter().all(|one| *one <= all));
        assert!(parts.iter().any(|one| *one < all / 2) && parts.iter().any(|one| *one > all / 2));
    }

    #[test]
    fn doubles_up_to_the_longest_and_starts_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(300));
        let pauses: Vec<_> = (0..5).map(|_| backoff.advance()).collect();
        assert_eq!(pauses, [ms(50), ms(100), ms(200), ms(300), ms(300)]);
        backoff.reset();
        assert_eq!(backoff.advance(), ms(50));
    }
}
