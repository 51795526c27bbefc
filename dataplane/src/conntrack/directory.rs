//! Which worker has a translated session, for the workers that its replies may come to.
//!
//! A flow belongs to the worker that the hash of its key picks, whichever way a packet goes. The
//! reply of a translated session has another key, though, which may pick another worker. So the
//! reply key of every such session stands here, in one array that all workers share: written by
//! the session's own worker before its first packet leaves, read by others when they know nothing
//! of a packet, and removed with the session. No reply can come before it is there.
//!
//! It is also where two workers that choose the same reply key at the same time find out.

use crate::net::WorkerId;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells that one key may stand in, side by side: two cache lines.
const WINDOW: usize = 16;

/// Reply keys, by hash, and their workers. Fixed in size.
pub struct Directory {
    /// Each zero, or 56 bits of the hash and the worker's number plus one.
    cells: Box<[AtomicU64]>,
    /// Entries: nobody needs to look while there are none.
    entries: AtomicU64,
}

/// Why a key could not be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is another session's.
    Taken,
    /// There is no room for it.
    Full,
}

impl Directory {
    /// For `sessions` in all. Half as many may be translated before there may be no room.
    pub fn new(sessions: u64) -> Self {
        let cells = (sessions / 2).next_power_of_two().clamp(1 << 10, 1 << 32) as usize;
        Self { cells: (0..cells).map(|_| AtomicU64::new(0)).collect(), entries: AtomicU64::new(0) }
    }

    /// Whose the session with this reply key is.
    #[inline]
    pub fn find(&self, hash: u64) -> Option<WorkerId> {
        if self.entries.load(Ordering::Acquire) == 0 {
            return None;
        }
        let entry =
            self.window(hash).map(|cell| cell.load(Ordering::Acquire)).find(|entry| same(*entry, hash));
        entry.map(|entry| WorkerId((entry as u8) - 1))
    }

    /// The session with this reply key is `worker`'s, of at most 255.
    pub fn enter(&self, hash: u64, worker: WorkerId) -> Result<(), Refused> {
        let entry = hash & !0xff | (u64::from(worker.0) + 1);
        loop {
            let mut free = None;
            for cell in self.window(hash) {
                match cell.load(Ordering::Acquire) {
                    0 => free = free.or(Some(cell)),
                    other if same(other, hash) => return Err(Refused::Taken),
                    _ => {}
                }
            }
            let free = free.ok_or(Refused::Full)?;
            // Whoever was faster may have entered this very key: look again.
            if free.compare_exchange(0, entry, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.entries.fetch_add(1, Ordering::Release);
                return Ok(());
            }
        }
    }

    /// The session that [`enter`](Self::enter) was called for is gone.
    pub fn remove(&self, hash: u64, worker: WorkerId) {
        let entry = hash & !0xff | (u64::from(worker.0) + 1);
        let taken =
            |cell: &AtomicU64| cell.compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if self.window(hash).any(taken) {
            self.entries.fetch_sub(1, Ordering::Release);
        }
    }

    /// Sessions that stand here.
    pub fn len(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }

    /// None stands here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn window(&self, hash: u64) -> impl Iterator<Item = &AtomicU64> {
        // The high bits pick a worker, too: spread what is left of them.
        let start = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & !(WINDOW - 1);
        let start = start & (self.cells.len() - 1);
        self.cells[start..start + WINDOW].iter()
    }
}

const fn same(entry: u64, hash: u64) -> bool {
    entry != 0 && entry & !0xff == hash & !0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_until_its_session_is_gone() {
        let directory = Directory::new(4096);
        let hash = |n: u64| n.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(17);
        let worker = |n: u64| WorkerId((n % 255) as u8);
        for n in 0..400 {
            assert_eq!(directory.find(hash(n)), None);
            assert_eq!(directory.enter(hash(n), worker(n)), Ok(()));
            assert_eq!(directory.enter(hash(n), WorkerId(7)), Err(Refused::Taken));
            assert_eq!(directory.find(hash(n)), Some(worker(n)));
        }
        directory.remove(hash(3), WorkerId(4));
        assert_eq!((directory.find(hash(3)), directory.len()), (Some(WorkerId(3)), 400), "it is not theirs");
        for n in 0..400 {
            directory.remove(hash(n), worker(n));
            directory.remove(hash(n), worker(n));
            assert_eq!(directory.find(hash(n)), None);
        }
        assert!(directory.is_empty());
    }

    #[test]
    fn a_full_window_says_so() {
        let directory = Directory::new(0);
        let mut of_one = (0..).map(|n: u64| n << 8).filter(|hash| {
            std::ptr::eq(directory.window(*hash).next().unwrap(), directory.window(0).next().unwrap())
        });
        for hash in of_one.by_ref().take(WINDOW) {
            assert_eq!(directory.enter(hash, WorkerId(0)), Ok(()));
        }
        let next = of_one.next().unwrap();
        assert_eq!(directory.enter(next, WorkerId(0)), Err(Refused::Full));
        directory.remove(0, WorkerId(0));
        assert_eq!(directory.enter(next, WorkerId(0)), Ok(()));
    }
}
