//! Which packets of a vector leave as one.

use super::header::{HEADER, Header};
use crate::net::Proto;
use crate::packet::{Gso, Packet, VECTOR};
use crate::wire::coalesce::Run;
use crate::wire::ethernet;
use arrayvec::ArrayVec;
use std::io::{self, IoSlice, Write};

/// Runs that may still grow, at a time: more connections than that take turns.
const OPEN: usize = 16;
/// Segments of a run at most, so many pieces of a call.
const LONGEST: usize = 64;

/// What becomes of each packet of a vector.
pub(super) struct Trains {
    places: [Place; VECTOR],
    runs: ArrayVec<Run, VECTOR>,
}

/// A packet's place.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// Leaves by itself.
    #[default]
    Alone,
    /// The first of a run.
    Head { run: usize, next: Option<u16> },
    /// Leaves with an earlier one.
    Member { next: Option<u16> },
}

/// A run that may grow.
#[derive(Clone, Copy)]
struct Open {
    run: usize,
    head: usize,
    last: usize,
}

impl Default for Trains {
    fn default() -> Self {
        Self { places: [Place::Alone; VECTOR], runs: ArrayVec::new() }
    }
}

impl Trains {
    /// Finds the runs among the packets. A packet that does not continue its connection's run ends it, so what leaves
    /// of a connection leaves in the order in which it came.
    pub fn form(&mut self, packets: &[Packet<'_>]) {
        self.runs.clear();
        self.places[..packets.len()].fill(Place::Alone);
        if packets.len() < 2 {
            return;
        }
        let mut open = ArrayVec::<Open, OPEN>::new();
        for (at, packet) in packets.iter().enumerate() {
            let Some(bytes) = ip(packet) else { continue };
            let own = open.iter().position(|open| {
                ip(&packets[open.head]).is_some_and(|head| self.runs[open.run].is_of(head, bytes))
            });
            if let Some(own) = own {
                let Open { run, head, last } = open[own];
                let head = ip(&packets[head]).unwrap_or_default();
                let run = &mut self.runs[run];
                if packet.meta.gso == Gso::None && run.segments() < LONGEST && run.add(head, bytes) {
                    self.link(last, at);
                    open[own].last = at;
                    continue;
                }
                open.remove(own);
            }
            if packet.meta.gso != Gso::None {
                continue;
            }
            if let Some(run) = Run::begin(bytes) {
                if open.is_full() {
                    open.remove(0);
                }
                self.places[at] = Place::Head { run: self.runs.len(), next: None };
                open.push(Open { run: self.runs.len(), head: at, last: at });
                self.runs.push(run);
            }
        }
    }

    fn link(&mut self, last: usize, at: usize) {
        if let Place::Head { next, .. } | Place::Member { next } = &mut self.places[last] {
            *next = Some(at as u16);
        }
        self.places[at] = Place::Member { next: None };
    }

    /// Writes the packet at `at`, and those that leave with it: how many that is, and what the file says. `None`: it leaves
    /// with another.
    pub fn write(
        &self,
        file: &mut impl Write,
        packets: &mut [Packet<'_>],
        at: usize,
    ) -> Option<(u64, io::Result<usize>)> {
        let (run, next) = match self.places[at] {
            Place::Member { .. } => return None,
            Place::Head { run, next: Some(next) } => (&self.runs[run], next),
            _ => return Some(alone(file, &mut packets[at])),
        };
        let (l4, payload) = run.headers();
        let head = &mut packets[at];
        if let Some(headers) = head.l3_mut().get_mut(..payload) {
            run.finish(headers);
        }
        let v6 = head.l3().first().is_some_and(|first| first >> 4 == 6);
        let header = Header::of_super(head, v6, ethernet::HEADER_LEN + l4, Proto::TCP, run.size());
        if let Some(before) = head.before_mut() {
            *before = header.bytes();
        }
        let mut parts = ArrayVec::<IoSlice<'_>, LONGEST>::new();
        parts.push(IoSlice::new(packets[at].behind(HEADER)));
        let mut next = Some(next);
        while let Some(at) = next {
            let at = usize::from(at);
            parts.push(IoSlice::new(packets[at].l3().get(payload..).unwrap_or_default()));
            next = match self.places[at] {
                Place::Member { next } => next,
                _ => None,
            };
        }
        Some((run.segments() as u64, file.write_vectored(&parts)))
    }
}

/// A packet that leaves by itself.
fn alone(file: &mut impl Write, packet: &mut Packet<'_>) -> (u64, io::Result<usize>) {
    let (count, header) = (packet.count(), Header::of(packet));
    let whole = packet.bytes().len() == packet.meta.len as usize;
    match packet.before_mut() {
        Some(before) if whole => *before = header.bytes(),
        _ => return (count, Err(io::ErrorKind::InvalidInput.into())),
    }
    (count, file.write(packet.behind(HEADER)))
}

/// The IP packet of a frame without tags that `rewrite` made.
fn ip<'p>(packet: &'p Packet<'_>) -> Option<&'p [u8]> {
    let behind = packet.meta.data + ethernet::HEADER_LEN as u16;
    (packet.meta.l3 == behind).then(|| packet.l3())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frames, Pool, Vector};
    use etherparse::PacketBuilder;

    fn segment(port: u16, id: u16, seq: u32, len: usize) -> Vec<u8> {
        let mut header =
            etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2])
                .unwrap();
        header.identification = id;
        let ip = etherparse::IpHeaders::Ipv4(header, Default::default());
        let mut out = vec![];
        let step = PacketBuilder::ethernet2([1; 6], [2; 6]).ip(ip).tcp(port, 80, seq, 100).ack(1);
        step.write(&mut out, &vec![port as u8; len]).unwrap();
        out
    }

    /// What is written, without headers of ours: each write's length and segment size.
    fn written(frames: &[Vec<u8>]) -> Vec<(usize, u16)> {
        let mut pool = Pool::new(Frames::new(512, 2048, false).unwrap(), 512);
        let mut vector = Vector::default();
        for frame in frames {
            let mut idx = pool.alloc().unwrap();
            let mut packet = pool.get(&mut idx);
            assert!(packet.fill(frame));
            packet.meta.l3 = packet.meta.data + 14;
            packet.meta.l4 = packet.meta.l3 + 20;
            vector.push(idx);
        }
        let mut all: Vec<Packet<'_>> = pool.all(&mut vector).collect();
        let mut trains = Trains::default();
        trains.form(&all);
        let (mut out, mut count) = (vec![], 0);
        for at in 0..all.len() {
            let mut file = vec![];
            if let Some((packets, len)) = trains.write(&mut file, &mut all, at) {
                assert_eq!(len.unwrap(), file.len());
                count += packets;
                out.push((file.len() - HEADER, u16::from_ne_bytes([file[4], file[5]])));
            }
        }
        drop(all);
        pool.free_all(&mut vector);
        assert_eq!(count as usize, frames.len(), "every packet leaves once");
        out
    }

    #[test]
    fn connections_are_put_together_each_by_itself_and_in_order() {
        let two: Vec<_> =
            (0..10u16).flat_map(|n| [1, 2].map(|port| segment(port, n, u32::from(n) * 1000, 1000))).collect();
        assert_eq!(written(&two), [(10_054, 1000); 2]);
        assert_eq!(written(&two[..1]), [(1054, 0)], "one alone");
        // What does not continue it ends it: an acknowledgment, and what comes after is a run of its own.
        let mut some: Vec<_> = (0..4u16).map(|n| segment(1, n, u32::from(n) * 1000, 1000)).collect();
        some.insert(2, segment(1, 9, 2000, 0));
        assert_eq!(written(&some), [(2054, 1000), (54, 0), (2054, 1000)]);
        // No more than a call takes, nor than a length field says.
        let many: Vec<_> = (0..200u16).map(|n| segment(1, n, u32::from(n) * 100, 100)).collect();
        assert_eq!(written(&many), [(6454, 100), (6454, 100), (6454, 100), (854, 100)]);
        let long: Vec<_> = (0..50u16).map(|n| segment(1, n, u32::from(n) * 1460, 1460)).collect();
        assert_eq!(written(&long), [(44 * 1460 + 54, 1460), (6 * 1460 + 54, 1460)]);
    }

    #[test]
    fn more_connections_than_are_watched_leave_whole_all_the_same() {
        let many: Vec<_> = (0..3u16)
            .flat_map(|n| (1..=40).map(move |port| segment(port, n, u32::from(n) * 100, 100)))
            .collect();
        assert_eq!(written(&many).iter().map(|(len, _)| len - 54).sum::<usize>(), 120 * 100);
    }
}
