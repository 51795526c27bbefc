//! Which session may be due when: a timing wheel of lists (Varghese and Lauck, SOSP 1987).
//!
//! A session is in exactly one list: of the tick it is to be looked at, of those not in use, or of
//! those that only lend another one their place.
//! Being looked at early is harmless: who is not due yet is armed again. So traffic never
//! touches the wheel, and a time beyond the wheel's reach is filed at its end.
//!
//! Each tick has two lists: of sessions that a full table may give up, and of the others. Which of the
//! former comes up first is known at any time, however few they are and wherever they are.

use crate::net::Nanos;
use crate::packet::{Slab, prefetch};

/// A tick is 2^30 nanoseconds, about a second.
const TICK_SHIFT: u32 = 30;

/// Ticks the wheel reaches ahead: about 18 minutes.
const SLOTS: u32 = 1024;

/// The list behind the wheel's own: sessions not in use.
const SPARE: u32 = 2 * SLOTS;

/// The list behind that: places in use that no time is kept of.
const HELD: u32 = SPARE + 1;

/// In a link: the head of a list, not a session.
const HEAD: u32 = 1 << 31;

/// May a full table give the session up?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// No.
    Firm,
    /// Yes, for a new one.
    Loose,
}

impl Hold {
    pub const fn of(evictable: bool) -> Self {
        if evictable { Self::Loose } else { Self::Firm }
    }
}

/// The lists of all sessions of a table.
pub struct Wheel {
    /// The first and the last session of each list: those of a tick side by side, `Hold::Firm` first.
    heads: Box<[Link]>,
    links: Slab<Link>,
    /// A bit for each tick that has sessions to give up.
    loose: [u64; SLOTS as usize / 64],
    /// The tick to be looked at next; all before are done.
    tick: u64,
}

/// To the neighbours in a list: sessions, or the list's head with [`HEAD`].
#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

impl Wheel {
    /// All of `sessions` (at most 2^31 - 1) are spare.
    pub fn new(sessions: u32, hugepages: bool) -> Self {
        let head = |list: u32| Link { prev: HEAD | list, next: HEAD | list };
        let mut heads: Box<[Link]> = (0..=HELD).map(head).collect();
        if sessions > 0 {
            heads[SPARE as usize] = Link { prev: sessions - 1, next: 0 };
        }
        let mut links = Slab::new(sessions as usize, head(SPARE), hugepages);
        for (place, session) in links.iter_mut().zip(0u32..) {
            place.prev = session.checked_sub(1).unwrap_or(HEAD | SPARE);
            place.next = if session + 1 < sessions { session + 1 } else { HEAD | SPARE };
        }
        Self { heads, links, loose: [0; _], tick: 0 }
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

    /// The session that comes up first of those to be given up; or, of these, the next `behind` one.
    pub fn loose(&self, behind: Option<u32>) -> Option<u32> {
        let Some(next) = behind.map(|session| self.links[session as usize].next) else {
            return self.loose_from(0);
        };
        if next & HEAD == 0 {
            return Some(next);
        }
        // Ticks from the one under way.
        let ahead = ((next & !HEAD) / 2).wrapping_sub(slot(self.tick)) % SLOTS;
        self.loose_from(ahead + 1)
    }

    /// The first of them that is at least so many ticks ahead.
    fn loose_from(&self, mut ahead: u32) -> Option<u32> {
        while ahead < SLOTS {
            let slot = slot(self.tick + u64::from(ahead));
            let rest = self.loose[slot as usize / 64] >> (slot % 64);
            if rest == 0 {
                ahead += 64 - slot % 64;
            } else if ahead + rest.trailing_zeros() < SLOTS {
                return self.first(list(slot + rest.trailing_zeros(), Hold::Loose));
            } else {
                return None;
            }
        }
        None
    }

    /// Files a session to be looked at soon after `deadline`, wherever it was before, behind those that
    /// were filed for that time before it.
    pub fn arm(&mut self, session: u32, deadline: Nanos, hold: Hold) {
        // Neither behind the tick under way nor a whole turn ahead of it.
        let furthest = self.tick + u64::from(SLOTS) - 1;
        let tick = ((deadline.0 >> TICK_SHIFT) + 1).clamp(self.tick, furthest);
        let list = list(slot(tick), hold);
        let last = self.heads[list as usize].prev;
        self.file(session, last, HEAD | list);
    }

    /// Puts a session among those that are in use and never looked at.
    pub fn hold(&mut self, session: u32) {
        let first = self.heads[HELD as usize].next;
        self.file(session, HEAD | HELD, first);
    }

    /// Puts a session among those not in use.
    pub fn release(&mut self, session: u32) {
        let first = self.heads[SPARE as usize].next;
        self.file(session, HEAD | SPARE, first);
    }

    /// The next session to be looked at, which must be armed again or released before the next
    /// call. None if there is none up to `now`.
    pub fn due(&mut self, now: Nanos) -> Option<u32> {
        let last = now.0 >> TICK_SHIFT;
        // After a long pause one turn of the wheel finds everyone.
        self.tick = self.tick.max((last + 1).saturating_sub(u64::from(SLOTS)));
        while self.tick <= last {
            let slot = slot(self.tick);
            let due = [Hold::Firm, Hold::Loose].into_iter().find_map(|hold| self.first(list(slot, hold)));
            if due.is_some() {
                return due;
            }
            self.tick += 1;
        }
        None
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.heads) + size_of_val(&*self.links)
    }

    fn first(&self, list: u32) -> Option<u32> {
        Some(self.heads[list as usize].next).filter(|session| session & HEAD == 0)
    }

    /// Takes a session out of its list, and puts it between these two neighbours.
    fn file(&mut self, session: u32, mut prev: u32, mut next: u32) {
        let old = self.links[session as usize];
        // Next to where it stands already, if it was the last or the first.
        if prev == session {
            prev = old.prev;
        }
        if next == session {
            next = old.next;
        }
        self.link(old.prev).next = old.next;
        self.link(old.next).prev = old.prev;
        self.link(prev).next = session;
        self.link(next).prev = session;
        self.links[session as usize] = Link { prev, next };
        [old.prev, prev, next].into_iter().for_each(|neighbour| self.note(neighbour));
    }

    /// Whether a list is empty may have changed, if `neighbour` is its head.
    fn note(&mut self, neighbour: u32) {
        let list = neighbour & !HEAD;
        if neighbour & HEAD != 0 && list < SPARE && list & 1 == Hold::Loose as u32 {
            let (word, bit) = (list as usize / 128, 1 << (list / 2 % 64));
            if self.first(list).is_some() {
                self.loose[word] |= bit;
            } else {
                self.loose[word] &= !bit;
            }
        }
    }

    fn link(&mut self, at: u32) -> &mut Link {
        if at & HEAD == 0 { &mut self.links[at as usize] } else { &mut self.heads[(at & !HEAD) as usize] }
    }
}

fn slot(tick: u64) -> u32 {
    (tick % u64::from(SLOTS)) as u32
}

fn list(slot: u32, hold: Hold) -> u32 {
    2 * slot + hold as u32
}

#[cfg(test)]
mod tests {
    use super::Hold::{Firm, Loose};
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
            wheel.arm(session, Nanos(deadline), Firm);
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
        wheel.arm(0, Nanos::from_secs(3_600), Firm);
        assert_eq!(wheel.due(Nanos::from_secs(1_200)), Some(0));
        wheel.arm(0, Nanos::from_secs(3_600), Firm);
        assert_eq!(wheel.due(Nanos::from_secs(1_201)), None);
        assert_eq!(wheel.due(Nanos::from_secs(3_602)), Some(0));
    }

    #[test]
    fn a_long_pause_finds_everyone_in_one_turn() {
        let mut wheel = Wheel::new(2_000, false);
        for session in 0..2_000 {
            wheel.arm(session, Nanos::from_secs(u64::from(session)), Firm);
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
                    n => wheel.arm(session, Nanos::from_secs(round + n * 11), Hold::of(n == 2)),
                }
            }
        }
        for session in 0..50 {
            wheel.arm(session, Nanos::from_secs(300), Firm);
        }
        assert_eq!(wheel.spare(), None);
        assert_eq!(drain(&mut wheel, Nanos::from_secs(400)), (0..50).collect());
    }

    #[test]
    fn what_may_be_given_up_is_found_in_the_order_it_comes_up() {
        let mut wheel = Wheel::new(3_000, false);
        for round in 0..3u64 {
            // The wheel turns: some rounds begin near its end.
            let now = Nanos::from_secs(round * 700);
            drain(&mut wheel, now);
            for session in 0..3_000 {
                wheel.arm(session, now.plus(Nanos::from_secs(500)), Firm);
            }
            assert_eq!(wheel.loose(None), None);
            let soon = [(17, 900), (5, 3), (2_999, 64), (1_234, 64), (0, 1_000)];
            for (session, seconds) in soon {
                wheel.arm(session, now.plus(Nanos::from_secs(seconds)), Loose);
            }
            for want in [5, 2_999, 1_234, 17, 0] {
                assert_eq!(wheel.loose(None), Some(want), "round {round}");
                wheel.release(want);
            }
            assert_eq!(wheel.loose(None), None);
        }
    }

    #[test]
    fn all_that_may_be_given_up_come_one_behind_the_other() {
        let mut wheel = Wheel::new(2_000, false);
        let now = Nanos::from_secs(5_000);
        assert_eq!(wheel.due(now), None);
        for session in 0..2_000 {
            let hold = Hold::of(session % 3 == 0);
            wheel.arm(session, now.plus(Nanos::from_secs(u64::from(session) * 7 % 1_500)), hold);
        }
        let mut seen = BTreeSet::new();
        let mut behind = None;
        while let Some(session) = wheel.loose(behind) {
            assert!(seen.insert(session), "{session} comes twice");
            behind = Some(session);
        }
        assert_eq!(seen, (0..2_000).step_by(3).collect());
    }

    #[test]
    fn who_is_armed_again_for_the_same_time_stands_behind_the_others() {
        let mut wheel = Wheel::new(3, false);
        let soon = Nanos::from_secs(20);
        (0..3).for_each(|session| wheel.arm(session, soon, Loose));
        for want in [0, 1, 2, 0, 1] {
            assert_eq!(wheel.loose(None), Some(want));
            wheel.arm(want, soon, Loose);
        }
        [0, 1].into_iter().for_each(|session| wheel.arm(session, soon, Firm));
        for _ in 0..3 {
            assert_eq!(wheel.loose(None), Some(2));
            wheel.arm(2, soon, Loose);
        }
        wheel.hold(2);
        assert_eq!(wheel.loose(None), None);
        assert_eq!(drain(&mut wheel, Nanos::from_secs(30)), BTreeSet::from([0, 1]));
    }
}
