//! Packets from and to pcap files (draft-ietf-opsawg-pcap): the classic format, read in either
//! byte order and both resolutions, written with nanoseconds.

use super::{Device, DeviceCounters, Transmitted};
use crate::net::Nanos;
use crate::packet::{Pool, Vector};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// The longest packet a file may hold, as for other programs.
const MAX_PACKET: u32 = 262_144;
/// The largest file that is read, since it is held in memory.
const MAX_FILE: u64 = 1 << 30;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// It cannot be read.
    #[error("reading the pcap file: {0}")]
    Read(#[from] io::Error),
    /// Larger than what is held in memory.
    #[error("the pcap file is larger than {MAX_FILE} bytes; split it with `editcap -c`")]
    TooLarge,
    /// Not one of the four magic numbers.
    #[error("not a classic pcap file: it begins with {0:02x?}; convert pcapng with `editcap -F pcap`")]
    Magic([u8; 4]),
    /// Another kind of link than ours.
    #[error("the packets are of link type {0}, not 1 (Ethernet)")]
    LinkType(u32),
    /// The file ends within the header or a record.
    #[error("the pcap file ends within {0}")]
    CutShort(String),
    /// A record that cannot be.
    #[error("packet {packet} claims {len} bytes, more than {MAX_PACKET}: the file is damaged")]
    PacketTooLong {
        /// Counted from 1.
        packet: usize,
        /// As claimed.
        len: u32,
    },
}

/// A device that receives what a file holds, in its order, and sends into nothing.
#[derive(Debug)]
pub struct Replay {
    bytes: Vec<u8>,
    packets: Vec<(Nanos, Range<usize>)>,
    next: usize,
    pace: Pace,
    /// When the first packet was asked for.
    start: Option<Nanos>,
    counters: DeviceCounters,
}

/// When a packet of a file arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As long after the first `receive` as it was recorded after the file's first packet.
    AsRecorded,
    /// As soon as it is asked for.
    AtOnce,
}

impl Replay {
    /// Reads a whole file. One packet that is damaged refuses it.
    pub fn new(file: impl Read, pace: Pace) -> Result<Self, PcapError> {
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(PcapError::TooLarge);
        }
        let packets = parse(&bytes)?;
        Ok(Self { bytes, packets, next: 0, pace, start: None, counters: DeviceCounters::default() })
    }

    /// Packets not received yet.
    pub fn left(&self) -> usize {
        self.packets.len() - self.next
    }
}

impl Device for Replay {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, now: Nanos) -> usize {
        let elapsed = now.since(*self.start.get_or_insert(now));
        let max = max.min(into.room());
        let mut received = 0;
        while received < max
            && let Some((due, range)) = self.packets.get(self.next)
            && (self.pace == Pace::AtOnce || *due <= elapsed)
            && let Some(mut idx) = pool.alloc()
        {
            let bytes = &self.bytes[range.clone()];
            if pool.get(&mut idx).fill(bytes) {
                into.push(idx);
                self.counters.rx_packets += 1;
                self.counters.rx_bytes += bytes.len() as u64;
                received += 1;
            } else {
                self.counters.kernel.rx_dropped += 1;
                pool.free(idx);
            }
            self.next += 1;
        }
        received
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, _now: Nanos) -> Transmitted {
        let outcome = Transmitted { sent: packets.len() as u32, ..Transmitted::default() };
        for mut idx in packets.drain() {
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += u64::from(pool.get(&mut idx).meta.len);
            pool.free(idx);
        }
        outcome
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}

/// Which packets are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directions {
    /// Those received.
    Received,
    /// Those sent.
    Transmitted,
    /// All.
    Both,
}

/// The inner device, and a file of what passes it, stamped with the time of the call.
///
/// An error ends the recording, never the traffic: what follows is counted by
/// [`unrecorded`](Self::unrecorded).
pub struct Record<D, W> {
    inner: D,
    file: W,
    directions: Directions,
    broken: bool,
    unrecorded: u64,
    records: Vec<u8>,
    /// Where each record in `records` ends.
    ends: Vec<usize>,
}

impl<D: Device, W: Write + Send> Record<D, W> {
    /// Wraps `inner` and writes the file's header.
    pub fn new(inner: D, mut file: W, directions: Directions) -> io::Result<Self> {
        for field in [MAGIC_NANOS, 2 | 4 << 16, 0, 0, MAX_PACKET, ETHERNET] {
            file.write_all(&field.to_le_bytes())?;
        }
        let (records, ends) = (vec![], vec![]);
        Ok(Self { inner, file, directions, broken: false, unrecorded: 0, records, ends })
    }

    /// Packets that are missing from the file because it could not be written.
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded
    }

    /// Ends the recording: the device and the file.
    pub fn into_parts(self) -> (D, W) {
        (self.inner, self.file)
    }

    /// Makes records of the packets from `first` on.
    fn note(&mut self, pool: &mut Pool, packets: &mut Vector, first: usize, now: Nanos) {
        self.records.clear();
        self.ends.clear();
        for position in first..packets.len() {
            let packet = pool.nth(packets, position);
            let bytes = packet.bytes();
            let (seconds, nanos) = (now.0 / 1_000_000_000, now.0 % 1_000_000_000);
            for field in [seconds as u32, nanos as u32, bytes.len() as u32, packet.meta.len] {
                self.records.extend_from_slice(&field.to_le_bytes());
            }
            self.records.extend_from_slice(bytes);
            self.ends.push(self.records.len());
        }
    }

    /// Writes the first `count` of the records made.
    fn write(&mut self, count: usize) {
        let Some(&end) = count.checked_sub(1).and_then(|last| self.ends.get(last)) else { return };
        self.broken = self.broken || self.file.write_all(&self.records[..end]).is_err();
        if self.broken {
            self.unrecorded += count as u64;
        }
    }
}

impl<D: Device, W: Write + Send> Device for Record<D, W> {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, now: Nanos) -> usize {
        let before = into.len();
        let received = self.inner.receive(pool, into, max, now);
        if self.directions != Directions::Transmitted {
            self.note(pool, into, before, now);
            self.write(received);
        }
        received
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, now: Nanos) -> Transmitted {
        if self.directions == Directions::Received {
            return self.inner.transmit(pool, packets, now);
        }
        // Once sent they are out of reach, and how many will be is not known before.
        self.note(pool, packets, 0, now);
        let offered = packets.len();
        let outcome = self.inner.transmit(pool, packets, now);
        self.write(offered.saturating_sub(packets.len()));
        outcome
    }

    fn settle(&mut self, pool: &mut Pool) {
        self.inner.settle(pool);
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wait_fd()
    }

    fn counters(&self) -> DeviceCounters {
        self.inner.counters()
    }

    fn lent(&self) -> usize {
        self.inner.lent()
    }

    fn close(&mut self, pool: &mut Pool) {
        self.inner.close(pool);
        if self.file.flush().is_err() {
            self.broken = true;
        }
    }
}

const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;

/// Where each packet lies in the file, and how long after the first it was recorded.
fn parse(file: &[u8]) -> Result<Vec<(Nanos, Range<usize>)>, PcapError> {
    let header = file.get(..24).ok_or_else(|| PcapError::CutShort("its header".into()))?;
    let magic = [header[0], header[1], header[2], header[3]];
    let (little, unit) = match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
        (MAGIC_MICROS, _) => (true, 1000),
        (MAGIC_NANOS, _) => (true, 1),
        (_, MAGIC_MICROS) => (false, 1000),
        (_, MAGIC_NANOS) => (false, 1),
        _ => return Err(PcapError::Magic(magic)),
    };
    let field = |bytes: &[u8], at: usize| {
        let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
    };
    // The upper bits may tell of a frame check sequence.
    let link_type = field(header, 20) & 0x0fff_ffff;
    if link_type != ETHERNET {
        return Err(PcapError::LinkType(link_type));
    }

    let mut packets: Vec<(Nanos, Range<usize>)> = Vec::new();
    let mut first = None;
    let mut at = 24;
    while at < file.len() {
        let number = packets.len() + 1;
        let cut = || PcapError::CutShort(format!("packet {number}"));
        let record = file.get(at..at + 16).ok_or_else(cut)?;
        let time = Nanos(u64::from(field(record, 0)) * 1_000_000_000)
            .plus(Nanos(u64::from(field(record, 4)) * unit));
        let len = field(record, 8);
        if len > MAX_PACKET {
            return Err(PcapError::PacketTooLong { packet: number, len });
        }
        let range = at + 16..at + 16 + len as usize;
        if range.end > file.len() {
            return Err(cut());
        }
        at = range.end;
        packets.push((time.since(*first.get_or_insert(time)), range));
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::memory::Memory;
    use crate::packet::{Frames, VECTOR};

    fn pool() -> Pool {
        Pool::new(Frames::new(256, 2048, false).unwrap(), 512)
    }

    /// A file of two packets, a second and a half apart, in any of the four dialects.
    fn file(little: bool, nanos: bool) -> Vec<u8> {
        let magic = if nanos { MAGIC_NANOS } else { MAGIC_MICROS };
        let half = if nanos { 500_000_000 } else { 500_000 };
        let mut bytes = vec![];
        let mut put = |fields: &[u32], packet: &[u8]| {
            for field in fields {
                bytes.extend(if little { field.to_le_bytes() } else { field.to_be_bytes() });
            }
            bytes.extend(packet);
        };
        // Major and minor version are 16 bits each, and are not looked at.
        put(&[magic, 0, 0, 0, 65535, 1], &[]);
        put(&[100, 0, 60, 60], &[1; 60]);
        put(&[101, half, 61, 61], &[2; 61]);
        bytes
    }

    #[test]
    fn all_four_dialects_are_read_and_paced() {
        for (little, nanos) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut pool = pool();
            let mut vector = Vector::default();
            let mut replay = Replay::new(&file(little, nanos)[..], Pace::AsRecorded).unwrap();
            let start = Nanos::from_secs(5);
            assert_eq!(replay.receive(&mut pool, &mut vector, VECTOR, start), 1);
            let due = start.plus(Nanos::from_millis(1500));
            assert_eq!(replay.receive(&mut pool, &mut vector, VECTOR, Nanos(due.0 - 1)), 0);
            assert_eq!(replay.receive(&mut pool, &mut vector, VECTOR, due), 1);
            assert_eq!(pool.nth(&mut vector, 1).bytes(), [2; 61]);
            assert_eq!((replay.left(), replay.counters().rx_bytes), (0, 121));
            pool.free_all(&mut vector);
        }
    }

    #[test]
    fn what_was_recorded_is_replayed() {
        let mut pool = pool();
        let (memory, wire) = Memory::new(64);
        let mut device = Record::new(memory, Vec::new(), Directions::Both).unwrap();
        let mut vector = Vector::default();
        wire.push(&[1; 60]);
        wire.push(&[2; 70]);
        device.receive(&mut pool, &mut vector, VECTOR, Nanos::from_secs(1));
        wire.set_tx_capacity(1);
        device.transmit(&mut pool, &mut vector, Nanos::from_secs(2));
        assert_eq!((vector.len(), device.unrecorded()), (1, 0));
        pool.free_all(&mut vector);

        let (_, file) = device.into_parts();
        let mut replay = Replay::new(&file[..], Pace::AsRecorded).unwrap();
        assert_eq!(replay.receive(&mut pool, &mut vector, VECTOR, Nanos(0)), 2);
        assert_eq!(replay.receive(&mut pool, &mut vector, VECTOR, Nanos::from_secs(1)), 1);
        let packets: Vec<Vec<u8>> =
            (0..vector.len()).map(|k| pool.nth(&mut vector, k).bytes().to_vec()).collect();
        assert_eq!(packets, [vec![1; 60], vec![2; 70], vec![1; 60]]);
        pool.free_all(&mut vector);
    }

    #[test]
    fn a_full_disk_ends_the_recording_not_the_traffic() {
        let mut pool = pool();
        let (memory, wire) = Memory::new(64);
        let mut disk = [0; 24 + 16 + 60 + 10];
        let mut device = Record::new(memory, &mut disk[..], Directions::Received).unwrap();
        let mut vector = Vector::default();
        for n in 0..3 {
            wire.push(&[n; 60]);
            assert_eq!(device.receive(&mut pool, &mut vector, VECTOR, Nanos(0)), 1);
        }
        assert_eq!(device.unrecorded(), 2);
        pool.free_all(&mut vector);
    }

    #[test]
    fn bad_files_are_refused() {
        let good = file(true, true);
        let open = |bytes: &[u8]| Replay::new(bytes, Pace::AtOnce);
        let damaged = |at: usize, value: u32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            open(&bytes)
        };
        assert!(matches!(damaged(0, 0x0a0d_0d0a), Err(PcapError::Magic(_))));
        assert!(matches!(damaged(20, 101), Err(PcapError::LinkType(101))));
        assert!(matches!(damaged(32, u32::MAX), Err(PcapError::PacketTooLong { packet: 1, .. })));
        assert!(matches!(damaged(32, 1000), Err(PcapError::CutShort(_))));
        let whole_records = [24, 24 + 76, good.len()];
        for len in 0..=good.len() {
            assert_eq!(open(&good[..len]).is_ok(), whole_records.contains(&len), "{len} bytes");
        }
    }
}
