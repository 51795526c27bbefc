//! Dropped packets, by who tried to reach whom: attempts that differ in nothing but the source port are told of
//! together, once a second.
//!
//! A flood of attempts from ever other addresses is sampled: so many records a second are told of, the rest is
//! counted as lost.

use super::{Credit, Deciding};
use crate::conntrack::RecordRing;
use crate::net::{FlowKey, Icmp, IfId, Nanos};
use crate::packet::DropReason;
use std::sync::Arc;

/// Attempts that are gathered at a time, a power of two.
const PLACES: usize = 512;
/// How long attempts are gathered.
const GATHERED: Nanos = Nanos::from_secs(1);

/// Attempts that failed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the last packet, as it came.
    pub key: FlowKey,
    /// For ICMP.
    pub icmp: Icmp,
    /// Interface they came in by.
    pub interface: IfId,
    /// Why.
    pub reason: DropReason,
    /// What decided, for what policy denied.
    pub deciding: Option<Deciding>,
    /// When the first came.
    pub first: Nanos,
    /// When the last came.
    pub last: Nanos,
    /// How many.
    pub packets: u64,
    /// From their IP headers on.
    pub bytes: u64,
}

impl Refusal {
    /// Between the same ends, for the same reason.
    fn is_like(&self, other: &Self) -> bool {
        let key = FlowKey { sport: other.key.sport, ..self.key };
        (key, self.icmp, self.interface, self.reason)
            == (other.key, other.icmp, other.interface, other.reason)
            && self.deciding == other.deciding
    }
}

/// What was dropped of late.
pub struct Refusals {
    places: Box<[Option<Refusal>; PLACES]>,
    ring: Arc<RecordRing<Refusal>>,
    records: Credit,
}

impl Refusals {
    /// They are told of there, two thousand a second at most.
    pub fn new(ring: Arc<RecordRing<Refusal>>) -> Self {
        let records = Credit::new(Nanos(500_000), PLACES as u64);
        Self { places: Box::new([None; PLACES]), ring, records }
    }

    /// A packet was dropped: `one` of it alone. `hash`: of whom it is from and to, the source port aside.
    pub(super) fn note(&mut self, hash: u64, one: Refusal) {
        let place = &mut self.places[hash as usize % PLACES];
        if let Some(same) = place.as_mut().filter(|same| same.is_like(&one)) {
            same.key = one.key;
            same.last = one.last;
            same.packets += one.packets;
            same.bytes += one.bytes;
            return;
        }
        if let Some(other) = place.replace(one) {
            tell(&self.ring, &mut self.records, other, one.last);
        }
    }

    /// Tells of what has been gathered for long enough.
    pub(super) fn sweep(&mut self, now: Nanos) {
        let Self { places, ring, records } = self;
        for place in places.iter_mut() {
            if let Some(ripe) = place.take_if(|one| now.since(one.first) >= GATHERED) {
                tell(ring, records, ripe, now);
            }
        }
    }
}

fn tell(ring: &RecordRing<Refusal>, records: &mut Credit, refusal: Refusal, now: Nanos) {
    match records.take(now) {
        true => ring.tell(refusal),
        false => ring.lose(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Proto;

    const START: Nanos = Nanos::from_secs(9);

    fn one(sport: u16, dport: u16, at: Nanos) -> Refusal {
        let key = FlowKey {
            src: "10.65.0.1".parse().unwrap(),
            dst: "10.65.0.2".parse().unwrap(),
            sport,
            dport,
            proto: Proto::TCP,
        };
        Refusal {
            key,
            icmp: Icmp::default(),
            interface: IfId(3),
            reason: DropReason::PolicyDenied,
            deciding: None,
            first: at,
            last: at,
            packets: 1,
            bytes: 60,
        }
    }

    #[test]
    fn attempts_from_any_port_are_told_of_together_when_a_second_is_over() {
        let ring = RecordRing::new(16);
        let mut refusals = Refusals::new(ring.clone());
        for n in 0..100u16 {
            refusals.note(7, one(1000 + n, 80, START.plus(Nanos(u64::from(n)))));
        }
        refusals.sweep(START.plus(Nanos::from_millis(999)));
        assert_eq!(ring.next(), None);
        let end = START.plus(GATHERED);
        refusals.sweep(end);
        let told = ring.next().unwrap();
        assert_eq!((told.packets, told.bytes, told.key.sport), (100, 6000, 1099));
        assert_eq!((told.first, told.last), (START, START.plus(Nanos(99))));
        refusals.sweep(end);
        assert_eq!((ring.next(), ring.lost()), (None, 0));
    }

    #[test]
    fn what_takes_the_place_of_another_has_that_told_and_a_flood_is_sampled() {
        let ring = RecordRing::new(4096);
        let mut refusals = Refusals::new(ring.clone());
        refusals.note(7, one(1, 80, START));
        refusals.note(7, one(1, 81, START));
        assert_eq!(ring.next().map(|told| told.key.dport), Some(80));
        for n in 0..2000 {
            refusals.note(u64::from(n), one(1, n, START));
        }
        let told = std::iter::from_fn(|| ring.next()).count() as u64;
        assert_eq!(told, PLACES as u64 - 1, "one is told of already");
        assert_eq!(told + ring.lost() + PLACES as u64, 2001, "each is told of, counted as lost, or waits");
    }

    #[test]
    fn a_full_ring_counts_what_it_has_no_room_for() {
        let ring = RecordRing::new(2);
        let mut refusals = Refusals::new(ring.clone());
        (0..6).for_each(|n| refusals.note(0, one(1, n, START)));
        assert_eq!((std::iter::from_fn(|| ring.next()).count(), ring.lost()), (2, 3));
    }
}
