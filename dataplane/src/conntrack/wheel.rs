//! Which session may be due when: a timing wheel of lists (Varghese and Lauck, SOSP 1987).
//!
//! A session is in exactly one list: of the tick it is to be looked at, of those not in use, or of
//! those that only lend another one their place.
//! Being looked at early is harmless: who is not due yet is armed again. So traffic never
//! touches the wheel, and a time beyond the wheel's reach is filed at its end.

use crate::net::Nanos;
use crate::packet::{Slab, prefetch};

/// A tick is 2^30 nanoseconds, about a second.
const TICK_SHIFT: u32 = 30;

/// Ticks the wheel reaches ahead: about 18 minutes.
const SLOTS: u32 = 1024;

/// The list behind the wheel's own: sessions not in use.
const SPARE: u32 = SLOTS;

/// The list behind that: places in use that no time is kept of.
const HELD: u32 = SLOTS + 1;

/// No session.
const NIL: u32 = u32::MAX;

/// In a link back: the head of a list, not a session.
const HEAD: u32 = 1 << 31;

/// The lists of all sessions of a table.
pub struct Wheel {
    /// The first session of each list.
    heads: Box<[u32]>,
    links: Slab<Link>,
    /// The tick to be looked at next; all before are done.
    tick: u64,
}

#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

impl Wheel {
    /// All of `sessions` (at most 2^31 - 1) are spare.
    pub fn new(sessions: u32, hugepages: bool) -> Self {
        let link = |i: u32| Link {
            prev: i.checked_sub(1).unwrap_or(HEAD | SPARE),
            next: if i + 1 < sessions { i + 1 } else { NIL },
        };
        let mut heads = vec![NIL; SLOTS as usize + 2];
        if sessions > 0 {
            heads[SPARE as usize] = 0;
        }
        let mut links = Slab::new(sessions as usize, Link { prev: NIL, next: NIL }, hugepages);
        for (place, session) in links.iter_mut().zip(0..) {
            *place = link(session);
        }
        Self { heads: heads.into(), links, tick: 0 }
    }

    /// A session not in use, the last one released first. It is so until it is armed.
    pub fn spare(&self) -> Option<u32> {
        self.first(SPARE)
    }

    /// The session that will be spare after the next one is armed, fetched ahead: a hint.
    pub fn spare_soon(&self) -> Option<u32> {
        let soon = self.links[self.spare()? as usize].next;
        self.links.get(soon as usize).map(|link| {
            prefetch(link);
            soon
        })
    }

    /// Files a session to be looked at soon after `deadline`, wherever it was before.
    pub fn arm(&mut self, session: u32, deadline: Nanos) {
        // Neither behind the tick under way nor a whole turn ahead of it.
        let furthest = self.tick + u64::from(SLOTS) - 1;
        let tick = ((deadline.0 >> TICK_SHIFT) + 1).clamp(self.tick, furthest);
        self.file(session, slot(tick));
    }

    /// Puts a session among those that are in use and never looked at.
    pub fn hold(&mut self, session: u32) {
        self.file(session, HELD);
    }

    /// Puts a session among those not in use.
    pub fn release(&mut self, session: u32) {
        self.file(session, SPARE);
    }

    /// The next session to be looked at, which must be armed again or released before the next
    /// call. None if there is none up to `now`.
    pub fn due(&mut self, now: Nanos) -> Option<u32> {
        let last = now.0 >> TICK_SHIFT;
        // After a long pause one turn of the wheel finds everyone.
        self.tick = self.tick.max((last + 1).saturating_sub(u64::from(SLOTS)));
        while self.tick <= last {
            if let Some(session) = self.first(slot(self.tick)) {
                return Some(session);
            }
            self.tick += 1;
        }
        None
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.heads) + size_of_val(&*self.links)
    }

    fn first(&self, list: u32) -> Option<u32> {
        Some(self.heads[list as usize]).filter(|session| *session != NIL)
    }

    fn file(&mut self, session: u32, list: u32) {
        let Link { prev, next } = self.links[session as usize];
        if prev & HEAD == 0 {
            self.links[prev as usize].next = next;
        } else {
            self.heads[(prev & !HEAD) as usize] = next;
        }
        if next != NIL {
            self.links[next as usize].prev = prev;
        }
        let second = std::mem::replace(&mut self.heads[list as usize], session);
        if second != NIL {
            self.links[second as usize].prev = session;
        }
        self.links[session as usize] = Link { prev: HEAD | list, next: second };
    }
}

fn slot(tick: u64) -> u32 {
    (tick % u64::from(SLOTS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn drain(wheel: &mut Wheel, now: Nanos) -> BTreeSet<u32> {
        std::iter::from_fn(|| {
            let session = wheel.due(now)?;
            wheel.release(session);
            Some(session)
        })
        .collect()
    }

    #[test]
    fn comes_up_after_its_deadline_and_within_two_ticks() {
        let mut wheel = Wheel::new(3, false);
        let tick = 1 << TICK_SHIFT;
        for (session, deadline) in [(0, 5 * tick), (1, 5 * tick + tick - 1), (2, 900 * tick)] {
            wheel.arm(session, Nanos(deadline));
        }
        assert_eq!(wheel.spare(), None);
        assert!(drain(&mut wheel, Nanos(6 * tick - 1)).is_empty());
        assert_eq!(drain(&mut wheel, Nanos(6 * tick)), BTreeSet::from([0, 1]));
        assert!(drain(&mut wheel, Nanos(900 * tick)).is_empty());
        assert_eq!(drain(&mut wheel, Nanos(901 * tick)), BTreeSet::from([2]));
        assert!(wheel.spare().is_some());
    }

    #[test]
    fn beyond_its_reach_is_early_never_lost() {
        let mut wheel = Wheel::new(1, false);
        wheel.arm(0, Nanos::from_secs(3_600));
        assert_eq!(wheel.due(Nanos::from_secs(1_200)), Some(0));
        wheel.arm(0, Nanos::from_secs(3_600));
        assert_eq!(wheel.due(Nanos::from_secs(1_201)), None);
        assert_eq!(wheel.due(Nanos::from_secs(3_602)), Some(0));
    }

    #[test]
    fn a_long_pause_finds_everyone_in_one_turn() {
        let mut wheel = Wheel::new(2_000, false);
        for session in 0..2_000 {
            wheel.arm(session, Nanos::from_secs(u64::from(session)));
        }
        assert_eq!(drain(&mut wheel, Nanos::from_secs(1 << 30)).len(), 2_000);
    }

    #[test]
    fn moves_between_lists_keep_every_session_in_one() {
        let mut wheel = Wheel::new(50, false);
        for round in 0..40u64 {
            for session in 0..50 {
                match (u64::from(session) * 7 + round) % 3 {
                    0 => wheel.release(session),
                    n => wheel.arm(session, Nanos::from_secs(round + n * 11)),
                }
            }
        }
        for session in 0..50 {
            wheel.arm(session, Nanos::from_secs(300));
        }
        assert_eq!(wheel.spare(), None);
        assert_eq!(drain(&mut wheel, Nanos::from_secs(400)), (0..50).collect());
    }
}
