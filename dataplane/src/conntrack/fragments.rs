//! Which flow the fragments of a packet belong to.
//!
//! Only the first fragment carries ports. A [`Fragments`] table remembers what it said until all of
//! its packet has come, so that the others can follow it; what comes before the first gets a
//! [`Ticket`] and waits. Nothing is put together: fragments leave as they came.
//!
//! It is as strict as the receiver should be. Fragments that overlap, or contradict each other about
//! where the packet ends, spoil the packet for good (RFC 5722, RFC 8200 §4.5; for IPv4 too): or else
//! a receiver might read ports that were never judged. The very same piece twice is only dropped.
//! A packet is forgotten as soon as it is complete, so that a sender may use its number again.
//!
//! Time is what receivers give their own reassembly, after which nothing that still comes is of use
//! to them: 30 s for IPv4 as in Linux (RFC 791 leaves it open), 60 s for IPv6 (RFC 8200 §4.5).
//!
//! Memory is allocated once. A packet has eight places it may be in, chosen by a keyed hash; where
//! all are taken the oldest gives way. So a flood of first fragments shortens the time that others
//! are remembered, and never shuts them out.

use crate::net::{Addr, FlowKey, Icmp, IfId, Nanos, Proto};
use crate::packet::DropReason;

/// How long a packet's fragments may take.
const LIFE_V4: Nanos = Nanos::from_secs(30);
const LIFE_V6: Nanos = Nanos::from_secs(60);

/// Places a packet may be in.
const WAYS: usize = 8;

/// Fragments of one packet at most: the longest packet over the smallest MTU that every IPv4 host
/// must take (576), which makes 119.
const PARTS: usize = 128;

/// What the fragments of one packet have in common, and no other packet's under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datagram {
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// The sender's number for it.
    pub id: u32,
    /// Of IPv4; the same for all of IPv6, whose later fragments need not say it.
    pub proto: Proto,
    /// Whose fragments are believed to be of one sender: one workload's, or all of the network's.
    pub scope: IfId,
}

impl Datagram {
    /// What it is hashed as: its number in the place of ports. The same for every scope.
    pub const fn to_key(self) -> FlowKey {
        let Self { src, dst, id, proto, .. } = self;
        FlowKey { src, dst, sport: (id >> 16) as u16, dport: id as u16, proto }
    }

    fn life(&self) -> Nanos {
        if self.src.is_v4() { LIFE_V4 } else { LIFE_V6 }
    }
}

/// Which piece of its packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub start: u16,
    /// Byte behind the last one, above `start`.
    pub end: u16,
    /// No more follow.
    pub last: bool,
}

/// What the first fragment said, for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct First {
    /// The flow of the whole packet.
    pub key: FlowKey,
    /// Its type and code, for ICMP.
    pub icmp: Icmp,
}

/// What is to be done with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It belongs to the flow of this first one, which may be itself.
    Follow(First),
    /// The first one has not come: keep it, and ask with the ticket.
    Early(Ticket),
    /// It must not pass.
    Refused(DropReason),
}

/// The right to ask once more about a fragment that came early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    fn new(place: usize, number: u32) -> Self {
        Self((place as u64) << 32 | u64::from(number))
    }

    /// To be kept as a plain number.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// As it was kept.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// The packets of which one worker has seen fragments.
pub struct Fragments {
    places: Box<[Place]>,
}

impl Fragments {
    /// For about `packets` under way at a time, 640 bytes each.
    pub fn new(packets: usize) -> Self {
        Self { places: vec![Place::default(); packets.next_multiple_of(WAYS).max(WAYS)].into() }
    }

    /// Takes note of a fragment. `hash` is of the packet's [key](Datagram::to_key), by a keyed hasher;
    /// `first` is what it says if it is the first.
    pub fn see(
        &mut self,
        datagram: Datagram,
        hash: u64,
        part: Part,
        first: Option<First>,
        now: Nanos,
    ) -> Fate {
        debug_assert!(part.start < part.end && (part.start == 0) == first.is_some());
        let at = self.find(&datagram, hash, now);
        let place = &mut self.places[at];
        if let Some(reason) = place.refused {
            return Fate::Refused(reason);
        }
        match place.add(part) {
            Added::New => {}
            Added::Before => return Fate::Refused(DropReason::FragmentDuplicate),
            Added::Never(reason) => {
                place.refused = Some(reason);
                return Fate::Refused(reason);
            }
        }
        place.first = place.first.or(first);
        let Some(first) = place.first else {
            place.waiting += 1;
            return Fate::Early(Ticket::new(at, place.number));
        };
        place.forget_when_done();
        Fate::Follow(first)
    }

    /// What became of a fragment that came early; `None`: it has to wait on. Otherwise the ticket is
    /// spent.
    pub fn ask(&mut self, Ticket(bits): Ticket, now: Nanos) -> Option<Result<First, DropReason>> {
        let (at, number) = ((bits >> 32) as usize, bits as u32);
        let Some(place) = self.places.get_mut(at).filter(|place| place.number == number && place.count > 0)
        else {
            return Some(Err(DropReason::FragmentLimit));
        };
        let answer = match (place.refused, place.first) {
            (Some(reason), _) => Err(reason),
            (None, Some(first)) => Ok(first),
            (None, None) if place.is_over(now) => Err(DropReason::FragmentTimeout),
            (None, None) => return None,
        };
        place.waiting -= 1;
        place.forget_when_done();
        Some(answer)
    }

    /// The fragment that the ticket is for does not wait any more.
    pub fn give_up(&mut self, Ticket(bits): Ticket) {
        let number = bits as u32;
        if let Some(place) = self.places.get_mut((bits >> 32) as usize)
            && place.number == number
            && place.count > 0
        {
            place.waiting -= 1;
        }
    }

    /// The place of the packet, a fresh one if it has none.
    fn find(&mut self, datagram: &Datagram, hash: u64, now: Nanos) -> usize {
        // Bits that have not picked the worker.
        let buckets = (self.places.len() / WAYS) as u64;
        let bucket = (((hash >> 32) * buckets) >> 32) as usize * WAYS;
        let ways = bucket..bucket + WAYS;
        let alive = |place: &Place| place.count > 0 && !place.is_over(now);
        let known = |at: &usize| alive(&self.places[*at]) && self.places[*at].datagram == *datagram;
        if let Some(at) = ways.clone().find(known) {
            return at;
        }
        let spare = ways.clone().find(|at| !alive(&self.places[*at]));
        let oldest = || ways.min_by_key(|at| self.places[*at].born).unwrap_or(bucket);
        let at = spare.unwrap_or_else(oldest);
        self.places[at].begin(*datagram, now);
        at
    }
}

/// One packet's.
#[derive(Clone, Copy)]
struct Place {
    datagram: Datagram,
    /// When the first to come of its fragments came.
    born: Nanos,
    first: Option<First>,
    /// It is spoilt.
    refused: Option<DropReason>,
    /// Changes with each packet, so that tickets of the one before are told apart.
    number: u32,
    /// Tickets that are out.
    waiting: u32,
    /// Bytes that have come.
    bytes: u32,
    /// Where the packet ends; 0: not known.
    total: u16,
    /// Fragments that have come; 0: the place is spare.
    count: u16,
    /// From where to where.
    parts: [(u16, u16); PARTS],
}

impl Default for Place {
    fn default() -> Self {
        Self {
            datagram: Datagram::default(),
            born: Nanos(0),
            first: None,
            refused: None,
            number: 0,
            waiting: 0,
            bytes: 0,
            total: 0,
            count: 0,
            parts: [(0, 0); PARTS],
        }
    }
}

const _: () = assert!(size_of::<Place>() <= 656);

enum Added {
    New,
    /// The same piece came before.
    Before,
    /// The packet is spoilt.
    Never(DropReason),
}

impl Place {
    fn begin(&mut self, datagram: Datagram, now: Nanos) {
        self.datagram = datagram;
        self.born = now;
        self.first = None;
        self.refused = None;
        self.number = self.number.wrapping_add(1);
        (self.waiting, self.bytes, self.total, self.count) = (0, 0, 0, 0);
    }

    fn is_over(&self, now: Nanos) -> bool {
        now.since(self.born) >= self.datagram.life()
    }

    fn add(&mut self, Part { start, end, last }: Part) -> Added {
        let known = &self.parts[..usize::from(self.count)];
        let ends_elsewhere = match (self.total, last) {
            (0, true) => known.iter().any(|(_, other)| *other >= end),
            (0, false) => false,
            (total, true) => end != total,
            (total, false) => end >= total,
        };
        let same = known.contains(&(start, end));
        let overlaps = !same && known.iter().any(|(from, to)| start < *to && *from < end);
        if ends_elsewhere || overlaps {
            return Added::Never(DropReason::FragmentOverlap);
        }
        if same {
            return Added::Before;
        }
        let Some(free) = self.parts.get_mut(usize::from(self.count)) else {
            return Added::Never(DropReason::FragmentLimit);
        };
        *free = (start, end);
        if last {
            self.total = end;
        }
        self.count += 1;
        self.bytes += u32::from(end - start);
        Added::New
    }

    /// Nobody will ask about the packet any more: all has come, and none waits.
    fn forget_when_done(&mut self) {
        if self.refused.is_none()
            && self.waiting == 0
            && self.total != 0
            && self.bytes == u32::from(self.total)
        {
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::FlowHasher;
    use crate::conntrack::fragments_reference::{Reference, Saw};
    use proptest::prelude::*;

    fn datagram(id: u32) -> Datagram {
        Datagram {
            src: Addr::v4([10, 0, 0, 1]),
            dst: Addr::v4([10, 0, 0, 2]),
            id,
            proto: Proto::UDP,
            ..Datagram::default()
        }
    }

    fn first(port: u16) -> First {
        First { key: FlowKey { dport: port, proto: Proto::UDP, ..FlowKey::default() }, icmp: Icmp::default() }
    }

    /// A table of one bucket, and one packet's fragments sent to it.
    struct Bench {
        table: Fragments,
        now: Nanos,
    }

    impl Bench {
        fn new() -> Self {
            Self { table: Fragments::new(1), now: Nanos::from_secs(5) }
        }

        fn see(&mut self, id: u32, start: u16, end: u16, last: bool) -> Fate {
            let first = (start == 0).then(|| first(id as u16));
            self.table.see(datagram(id), 0, Part { start, end, last }, first, self.now)
        }

        fn early(&mut self, id: u32, start: u16, end: u16, last: bool) -> Ticket {
            match self.see(id, start, end, last) {
                Fate::Early(ticket) => ticket,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn all_follow_the_first_in_any_order() {
        let mut t = Bench::new();
        assert_eq!(t.see(1, 0, 8, false), Fate::Follow(first(1)));
        assert_eq!(t.see(1, 16, 20, true), Fate::Follow(first(1)));
        assert_eq!(t.see(1, 8, 16, false), Fate::Follow(first(1)));
        let [third, second] = [t.early(2, 16, 20, true), t.early(2, 8, 16, false)];
        assert_eq!(t.table.ask(second, t.now), None);
        assert_eq!(t.see(2, 0, 8, false), Fate::Follow(first(2)));
        assert_eq!(t.table.ask(third, t.now), Some(Ok(first(2))));
        assert_eq!(t.table.ask(second, t.now), Some(Ok(first(2))));
        // Complete, hence forgotten: the number may be used again at once.
        let again = t.early(2, 8, 16, false);
        assert_eq!(t.table.ask(again, t.now), None);
    }

    #[test]
    fn an_overlap_spoils_the_packet_and_a_duplicate_does_not() {
        let overlap = Fate::Refused(DropReason::FragmentOverlap);
        let mut t = Bench::new();
        t.see(1, 0, 24, false);
        assert_eq!(t.see(1, 0, 24, false), Fate::Refused(DropReason::FragmentDuplicate));
        assert_eq!(t.see(1, 24, 32, false), Fate::Follow(first(1)));
        assert_eq!(t.see(1, 16, 40, true), overlap);
        assert_eq!(t.see(1, 32, 40, true), overlap, "from then on none passes");
        // Which was there first makes no difference: the teardrop, and ports written over.
        let waiting = t.early(2, 8, 16, false);
        assert_eq!(t.see(2, 0, 16, false), overlap);
        assert_eq!(t.table.ask(waiting, t.now), Some(Err(DropReason::FragmentOverlap)));
        // Two ends, an end before the end, more behind the end.
        for [(start, end, last), (start2, end2, last2)] in [
            [(16, 24, true), (8, 12, true)],
            [(16, 24, false), (8, 16, true)],
            [(8, 16, true), (16, 24, false)],
            [(8, 16, false), (8, 16, true)],
            [(8, 16, true), (8, 16, false)],
        ] {
            let mut t = Bench::new();
            t.early(1, start, end, last);
            assert_eq!(t.see(1, start2, end2, last2), overlap, "{start}-{end} {start2}-{end2}");
        }
    }

    #[test]
    fn time_is_the_receivers() {
        let mut t = Bench::new();
        let waiting = t.early(1, 8, 16, true);
        t.now = t.now.plus(Nanos(LIFE_V4.0 - 1));
        assert_eq!(t.table.ask(waiting, t.now), None);
        t.now = t.now.plus(Nanos(1));
        assert_eq!(t.table.ask(waiting, t.now), Some(Err(DropReason::FragmentTimeout)));
        assert_eq!(t.see(1, 0, 8, false), Fate::Follow(first(1)));
        t.early(2, 8, 16, true);
        t.now = t.now.plus(LIFE_V4);
        t.early(1, 8, 16, true);
        let v6 = Datagram { src: "2001:db8::1".parse().unwrap(), ..datagram(3) };
        assert_eq!(v6.life(), LIFE_V6);
    }

    #[test]
    fn the_oldest_gives_way_and_its_tickets_say_so() {
        let mut t = Bench::new();
        let tickets: Vec<_> = (0..=WAYS as u32)
            .map(|id| {
                t.now = t.now.plus(Nanos(1));
                t.early(id, 8, 16, true)
            })
            .collect();
        assert_eq!(t.table.ask(tickets[0], t.now), Some(Err(DropReason::FragmentLimit)));
        assert_eq!(t.table.ask(tickets[1], t.now), None);
        assert_eq!(t.see(1, 0, 8, false), Fate::Follow(first(1)));
        assert_eq!(t.table.ask(tickets[1], t.now), Some(Ok(first(1))));
    }

    #[test]
    fn a_packet_has_so_many_fragments_and_no_more() {
        let mut t = Bench::new();
        for n in 0..PARTS as u16 {
            assert_eq!(t.see(1, n * 8, n * 8 + 8, false), Fate::Follow(first(1)));
        }
        assert_eq!(t.see(1, 60_000, 60_008, false), Fate::Refused(DropReason::FragmentLimit));
        assert_eq!(t.see(1, PARTS as u16 * 8, 60_000, false), Fate::Refused(DropReason::FragmentLimit));
    }

    #[test]
    fn whose_fragments_they_are_is_part_of_the_name() {
        let mut t = Bench::new();
        t.see(1, 0, 8, false);
        for other in [
            Datagram { src: Addr::v4([10, 0, 0, 3]), ..datagram(1) },
            Datagram { dst: Addr::v4([10, 0, 0, 3]), ..datagram(1) },
            Datagram { proto: Proto::TCP, ..datagram(1) },
            Datagram { scope: IfId(7), ..datagram(1) },
            datagram(2),
        ] {
            let part = Part { start: 8, end: 16, last: true };
            assert!(matches!(t.table.see(other, 0, part, None, t.now), Fate::Early(_)), "{other:?}");
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Fragment { packet: u32, start: u16, len: u16, last: bool, port: u16 },
        Ask(prop::sample::Index),
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        // Half of them cut the packet as a sender does, the others as an attacker would.
        let fair = (0..4u32, 0..5u16).prop_map(|(packet, n)| (packet, n * 2, 2, n == 4));
        let foul = (0..4u32, 0..9u16, 1..5u16, any::<bool>());
        let fragment =
            (prop_oneof![2 => fair, 1 => foul], 0..3u16).prop_map(|((packet, start, len, last), port)| {
                Event::Fragment { packet, start: start * 8, len: len * 8, last, port }
            });
        prop_oneof![
            20 => fragment,
            8 => any::<prop::sample::Index>().prop_map(Event::Ask),
            1 => (0..20u64).prop_map(Event::Pass),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_its_slow_twin(events in prop::collection::vec(event(), 1..200)) {
            let hasher = FlowHasher::new([1, 2, 3, 4]);
            let mut table = Fragments::new(64);
            let mut twin = Reference::default();
            let mut now = Nanos::from_secs(1);
            let mut waiting: Vec<(Ticket, usize)> = vec![];
            for event in events {
                match event {
                    Event::Fragment { packet, start, len, last, port } => {
                        let datagram = datagram(packet);
                        let part = Part { start, end: start + len, last };
                        let first = (start == 0).then(|| first(port));
                        let fate = table.see(datagram, hasher.hash(&datagram.to_key()), part, first, now);
                        match (fate, twin.see(datagram, part, first, now)) {
                            (Fate::Early(ticket), Saw::Early(number)) => waiting.push((ticket, number)),
                            (Fate::Follow(ours), Saw::Follow(theirs)) => prop_assert_eq!(ours, theirs),
                            (Fate::Refused(ours), Saw::Refused(theirs)) => prop_assert_eq!(ours, theirs),
                            (ours, theirs) => prop_assert!(false, "{:?} {:?}", ours, theirs),
                        }
                    }
                    Event::Ask(which) if !waiting.is_empty() => {
                        let at = which.index(waiting.len());
                        let (ticket, number) = waiting[at];
                        let answer = table.ask(ticket, now);
                        prop_assert_eq!(answer, twin.ask(number, now));
                        if answer.is_some() {
                            waiting.swap_remove(at);
                        }
                    }
                    Event::Ask(_) => {}
                    Event::Pass(secs) => {
                        now = now.plus(Nanos::from_secs(secs));
                        // As a worker does: at once, before anybody else takes the place.
                        waiting.retain(|(ticket, number)| {
                            let answer = table.ask(*ticket, now);
                            assert_eq!(answer, twin.ask(*number, now));
                            answer.is_none()
                        });
                    }
                }
            }
        }
    }
}
