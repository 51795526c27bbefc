//! Keeps two threads abreast, however they are scheduled: one polls, the other changes what it judges by.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// So many polls and so many changes, to be spread over each other.
pub struct Pace {
    polls: u64,
    changes: u64,
    polled: AtomicU64,
    changed: AtomicU64,
    ended: AtomicBool,
}

/// One of the threads. Once it is dropped the other waits for it no longer, so that a thread that
/// failed does not hang the test.
pub struct End<'a>(&'a Pace);

impl Pace {
    pub const fn new(polls: u64, changes: u64) -> Self {
        let (polled, changed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { polls, changes, polled, changed, ended: AtomicBool::new(false) }
    }

    pub const fn end(&self) -> End<'_> {
        End(self)
    }

    /// Poll number `at`: at most a thirty-second of all ahead of the changes.
    pub fn poll(&self, at: u64, poll: impl FnOnce()) {
        let slack = self.polls * self.changes / 32;
        self.wait(|| self.changed.load(Relaxed) * self.polls + slack >= at * self.changes);
        poll();
        self.polled.store(at + 1, Relaxed);
    }

    /// Change number `at`: not ahead of the polls.
    pub fn change(&self, at: u64, change: impl FnOnce()) {
        self.wait(|| self.polled.load(Relaxed) * self.changes >= at * self.polls);
        change();
        self.changed.store(at + 1, Relaxed);
    }

    fn wait(&self, until: impl Fn() -> bool) {
        while !until() && !self.ended.load(Relaxed) {
            std::thread::yield_now();
        }
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Relaxed);
    }
}
