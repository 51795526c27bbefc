//! A device that costs next to nothing: frames are stamped from a template, sent ones are freed.
//!
//! Packets of a stream differ in source, ports, and two words that make up for the difference,
//! so that both checksums of the template stay right.

use etherparse::PacketBuilder;
use margay_dataplane::io::{Device, DeviceCounters, Transmitted};
use margay_dataplane::net::{Addr, FlowKey, Mac, Nanos};
use margay_dataplane::packet::{HEADROOM, Pool, Vector};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes stamped on each packet: all headers. What follows is zero, as the frames are from
/// the start.
const HEAD: usize = 64;
/// The frame check sequence, counted by convention in a frame's size but not in memory.
pub const FCS: usize = 4;
/// Bytes of an Ethernet header.
pub const LINK: usize = 14;

/// UDP packets to one destination, again and again in the same order.
#[derive(Clone)]
pub struct Stream {
    head: [u8; HEAD],
    len: u32,
    v6: bool,
    stamps: Arc<[Stamp]>,
    next: usize,
    /// Headers of a tunnel, and where the packet inside begins.
    outer: Arc<[u8]>,
    at: usize,
}

/// What is a packet's own.
#[derive(Clone, Copy)]
struct Stamp {
    /// The last four bytes of the source.
    src: [u8; 4],
    ports: [u8; 4],
    /// Makes up for `src` in the IPv4 header.
    id: [u8; 2],
    /// Makes up for `src` and `ports` in the UDP checksum.
    payload: [u8; 2],
}

impl Stream {
    /// Packets of the flows in `keys`, UDP all, sources alike but for their last four bytes.
    /// Frames have `size` bytes, frame check sequence included, or as many as their headers need.
    pub fn new(from: Mac, to: Mac, keys: &[FlowKey], size: usize) -> Self {
        let (v6, dst) = (!keys[0].src.is_v4(), keys[0].dst);
        let headers = LINK + if v6 { 40 } else { 20 } + 8;
        let payload = vec![0; size.saturating_sub(FCS + headers).max(2)];
        let ethernet = PacketBuilder::ethernet2(from.0, to.0);
        let mut bytes = vec![];
        let base = keys[0].src.bits() & !u128::from(u32::MAX);
        let builder = if v6 {
            ethernet.ipv6(Addr::from_bits(base).octets(), dst.octets(), 64)
        } else {
            ethernet.ipv4([0; 4], dst.v4_octets(), 64)
        };
        // Writing to a vector cannot fail; lengths are within what the headers can say.
        builder.udp(0, 0).write(&mut bytes, &payload).expect("a UDP packet of this size exists");
        let len = bytes.len() as u32;
        bytes.resize(HEAD.max(bytes.len()), 0);
        let mut head = [0; HEAD];
        head.copy_from_slice(&bytes[..HEAD]);
        Self {
            head,
            len,
            v6,
            stamps: keys.iter().map(Stamp::new).collect(),
            next: 0,
            outer: Arc::default(),
            at: 0,
        }
    }

    /// The same packets behind a tunnel's headers, which take the place of the first `hidden` bytes of theirs.
    pub fn behind(self, outer: &[u8], hidden: usize) -> Self {
        let at = outer.len() - hidden;
        Self { outer: outer.into(), at, len: self.len + at as u32, ..self }
    }

    /// Bytes of a frame, frame check sequence included.
    pub fn size(&self) -> usize {
        self.len as usize + FCS
    }

    #[inline]
    fn write(&mut self, room: &mut [u8]) {
        let stamp = self.stamps[self.next];
        self.next = if self.next + 1 == self.stamps.len() { 0 } else { self.next + 1 };
        let Some((before, room)) = room.split_at_mut_checked(self.at) else { return };
        let Some(room) = room.first_chunk_mut::<HEAD>() else { return };
        *room = self.head;
        if self.v6 {
            room[34..38].copy_from_slice(&stamp.src);
            room[54..58].copy_from_slice(&stamp.ports);
            room[62..64].copy_from_slice(&stamp.payload);
        } else {
            room[18..20].copy_from_slice(&stamp.id);
            room[26..30].copy_from_slice(&stamp.src);
            room[34..38].copy_from_slice(&stamp.ports);
            room[42..44].copy_from_slice(&stamp.payload);
        }
        if !self.outer.is_empty() {
            before.copy_from_slice(&self.outer[..self.at]);
            room[..self.outer.len() - self.at].copy_from_slice(&self.outer[self.at..]);
        }
    }
}

impl Stamp {
    fn new(key: &FlowKey) -> Self {
        let src = (key.src.bits() as u32).to_be_bytes();
        let (s, d) = (key.sport.to_be_bytes(), key.dport.to_be_bytes());
        let sum = |bytes: &[u8]| margay_dataplane::wire::checksum::Sum::default().bytes(bytes).finish();
        let ports = [s[0], s[1], d[0], d[1]];
        let all = [src, ports].concat();
        Self { src, ports, id: sum(&src).to_be_bytes(), payload: sum(&all).to_be_bytes() }
    }
}

/// Opens and shuts a [`Wire`]'s receiving end.
#[derive(Clone, Default)]
pub struct Valve(Arc<AtomicBool>);

impl Valve {
    /// Packets come, or not.
    pub fn set(&self, open: bool) {
        self.0.store(open, Ordering::Relaxed);
    }
}

/// The device. Without a stream it only sends.
pub struct Wire {
    stream: Option<Stream>,
    batch: usize,
    valve: Valve,
    counters: DeviceCounters,
}

impl Wire {
    /// Receives `batch` packets of `stream` whenever it is asked, while the valve is open.
    pub fn new(stream: Option<Stream>, batch: usize, valve: Valve) -> Self {
        Self { stream, batch, valve, counters: DeviceCounters::default() }
    }
}

impl Device for Wire {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, _now: Nanos) -> usize {
        let Some(stream) = &mut self.stream else { return 0 };
        if !self.valve.0.load(Ordering::Relaxed) {
            return 0;
        }
        let mut received = 0;
        while received < max.min(self.batch) {
            let Some(mut idx) = pool.alloc() else { break };
            let mut packet = pool.get(&mut idx);
            stream.write(packet.room_mut());
            packet.meta.data = HEADROOM as u16;
            packet.meta.len = stream.len;
            into.push(idx);
            received += 1;
        }
        self.counters.rx_packets += received as u64;
        received
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, _now: Nanos) -> Transmitted {
        let sent = packets.len() as u32;
        pool.free_all(packets);
        self.counters.tx_packets += u64::from(sent);
        Transmitted { sent, ..Transmitted::default() }
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::SlicedPacket;
    use margay_dataplane::net::Proto;
    use margay_dataplane::packet::Frames;

    #[test]
    fn stamped_packets_are_of_their_flows_and_have_right_checksums() {
        for (src, dst) in [("10.1.255.7", "172.16.0.1"), ("fd10::1:ff07", "fd65::1")] {
            let key = |n: u16| FlowKey {
                src: Addr::from_bits(src.parse::<Addr>().unwrap().bits() + u128::from(n)),
                dst: dst.parse().unwrap(),
                sport: 1024 + n,
                dport: 53 + 7 * n,
                proto: Proto::UDP,
            };
            let keys: Vec<FlowKey> = (0..300).map(key).collect();
            for size in [64, 512, 1500] {
                let stream = Stream::new(Mac([2; 6]), Mac([4; 6]), &keys, size);
                assert_eq!(stream.size(), if size == 64 && src.contains(':') { 68 } else { size });
                let valve = Valve::default();
                valve.set(true);
                let mut wire = Wire::new(Some(stream), 256, valve);
                let mut pool = Pool::new(Frames::new(512, 2048, false).unwrap(), 512);
                let mut vector = Vector::default();
                assert_eq!(wire.receive(&mut pool, &mut vector, 256, Nanos(0)), 256);
                for (position, key) in keys.iter().take(256).enumerate() {
                    let bytes = pool.nth(&mut vector, position).bytes().to_vec();
                    let parsed = SlicedPacket::from_ethernet(&bytes).unwrap();
                    let Some(etherparse::TransportSlice::Udp(udp)) = parsed.transport else { panic!() };
                    assert_eq!((udp.source_port(), udp.destination_port()), (key.sport, key.dport));
                    let right = match parsed.net.unwrap() {
                        etherparse::NetSlice::Ipv4(ip) => {
                            let header = ip.header().to_header();
                            assert_eq!(Addr::v4(header.source), key.src);
                            assert_eq!(header.header_checksum, header.calc_header_checksum());
                            udp.to_header().calc_checksum_ipv4(&header, udp.payload())
                        }
                        etherparse::NetSlice::Ipv6(ip) => {
                            let header = ip.header().to_header();
                            assert_eq!(Addr::v6(header.source), key.src);
                            udp.to_header().calc_checksum_ipv6(&header, udp.payload())
                        }
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(udp.checksum(), right.unwrap());
                }
                pool.free_all(&mut vector);
            }
        }
    }
}
