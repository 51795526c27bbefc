//! The slow twin of [`Fragments`](super::Fragments): remembers every fragment it was shown, and
//! reads all of them anew each time, byte by byte. It has room without end.

use super::fragments::{Datagram, First, Part};
use crate::net::Nanos;
use crate::packet::DropReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saw {
    Follow(First),
    /// The number to ask with.
    Early(usize),
    Refused(DropReason),
}

#[derive(Default)]
pub struct Reference {
    packets: Vec<Packet>,
    /// Which packet each early fragment belongs to.
    waiting: Vec<usize>,
}

struct Packet {
    datagram: Datagram,
    born: Nanos,
    parts: Vec<Part>,
    first: Option<First>,
    spoilt: bool,
    waiting: usize,
}

impl Packet {
    fn is_over(&self, now: Nanos) -> bool {
        now >= self.born.plus(Nanos::from_secs(if self.datagram.src.is_v4() { 30 } else { 60 }))
    }

    fn bytes(part: &Part) -> std::ops::Range<u16> {
        part.start..part.end
    }

    fn came(&self, byte: u16) -> bool {
        self.parts.iter().any(|part| Self::bytes(part).contains(&byte))
    }

    fn is_done(&self) -> bool {
        let end = self.parts.iter().find(|part| part.last).map(|part| part.end);
        !self.spoilt && self.waiting == 0 && end.is_some_and(|end| (0..end).all(|byte| self.came(byte)))
    }

    /// Whether these could be pieces of one packet.
    fn agree(parts: &[Part]) -> bool {
        parts.iter().filter(|end| end.last).all(|end| {
            parts.iter().all(|other| if other.last { other.end == end.end } else { other.end < end.end })
        })
    }
}

impl Reference {
    pub fn see(&mut self, datagram: Datagram, part: Part, first: Option<First>, now: Nanos) -> Saw {
        let known = |p: &Packet| p.datagram == datagram && !p.is_over(now) && !p.is_done();
        let at = self.packets.iter().position(known).unwrap_or_else(|| {
            let parts = vec![];
            self.packets.push(Packet { datagram, born: now, parts, first: None, spoilt: false, waiting: 0 });
            self.packets.len() - 1
        });
        let packet = &mut self.packets[at];
        if packet.spoilt {
            return Saw::Refused(DropReason::FragmentOverlap);
        }
        if packet.parts.contains(&part) {
            return Saw::Refused(DropReason::FragmentDuplicate);
        }
        let overlaps = Packet::bytes(&part).any(|byte| packet.came(byte));
        packet.parts.push(part);
        if overlaps || !Packet::agree(&packet.parts) {
            packet.spoilt = true;
            return Saw::Refused(DropReason::FragmentOverlap);
        }
        packet.first = packet.first.or(first);
        match packet.first {
            Some(first) => Saw::Follow(first),
            None => {
                packet.waiting += 1;
                self.waiting.push(at);
                Saw::Early(self.waiting.len() - 1)
            }
        }
    }

    pub fn ask(&mut self, number: usize, now: Nanos) -> Option<Result<First, DropReason>> {
        let packet = &mut self.packets[self.waiting[number]];
        let answer = match packet.first {
            _ if packet.spoilt => Err(DropReason::FragmentOverlap),
            Some(first) => Ok(first),
            None if packet.is_over(now) => Err(DropReason::FragmentTimeout),
            None => return None,
        };
        packet.waiting -= 1;
        Some(answer)
    }
}
