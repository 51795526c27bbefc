//! What is sent: UDP packets of some flows, each with the moment it was sent at.

use super::Flows;
use crate::random::{Random, Zipf};
use etherparse::PacketBuilder;
use margay_dataplane::net::{Addr, Mac};
use margay_dataplane::packet::Packet;
use margay_dataplane::wire::checksum::Sum;
use std::fmt;
use std::str::FromStr;

/// The first words of a payload of ours.
const MAGIC: [u8; 4] = *b"mgry";
/// Bytes of the payload that a packet has of its own: magic, time, and what makes up for both and
/// for the ports, so that the template's checksum stays right.
const STAMP: usize = 14;
/// Bytes of an Ethernet header.
const LINK: usize = 14;
/// The frame check sequence, counted by convention in a frame's size but not in memory.
const FCS: usize = 4;
const UDP: usize = 8;
/// Source ports of flows, from the first on.
const PORTS: u32 = 60_000;
const FIRST_PORT: u32 = 2_000;
/// Packets of a lap whose flows are drawn.
const DRAWS: usize = 1 << 20;

/// What all packets have alike.
pub struct Frame {
    /// Ethernet address they are sent to.
    pub gateway: Mac,
    pub source: Addr,
    /// Of the same IP version.
    pub destination: Addr,
    pub flows: Flows,
}

/// Sizes of frames, frame check sequence included, in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(Vec<usize>);

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "imix" {
            return Ok(Self(vec![64, 594, 64, 594, 64, 64, 1518, 64, 594, 64, 594, 64]));
        }
        match text.parse() {
            Ok(size @ 64..=1518) => Ok(Self(vec![size])),
            _ => Err(format!("{text:?} is not a size: give bytes from 64 to 1518, or imix")),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0[..] {
            [size] => write!(f, "{size}"),
            _ => f.write_str("imix"),
        }
    }
}

/// Makes packets, flow after flow, size after size.
pub struct Maker {
    templates: Vec<Vec<u8>>,
    /// Where the UDP header begins.
    udp: usize,
    port: u16,
    /// A lap of drawn flows; none: in turn.
    drawn: Vec<u32>,
    /// Packets until all begins anew.
    lap: u32,
    next: u32,
    size: usize,
}

impl Maker {
    /// From its first packet on.
    pub fn new(frame: &Frame) -> Self {
        let Flows { port, flows, zipf, size } = &frame.flows;
        let drawn = if *zipf { draw(*flows) } else { vec![] };
        Self {
            templates: size.0.iter().map(|size| template(frame, *size)).collect(),
            udp: LINK + if frame.source.is_v4() { 20 } else { 40 },
            port: *port,
            lap: if drawn.is_empty() { *flows } else { drawn.len() as u32 },
            drawn,
            next: 0,
            size: 0,
        }
    }

    /// The next packet, sent at `nanos`. `false`: it does not fit.
    pub fn write(&mut self, packet: &mut Packet<'_>, nanos: u64) -> bool {
        let template = &self.templates[self.size];
        self.size = (self.size + 1) % self.templates.len();
        if !packet.fill(template) {
            return false;
        }
        let flow = self.drawn.get(self.next as usize).copied().unwrap_or(self.next);
        self.next = (self.next + 1) % self.lap;
        let source = (FIRST_PORT + flow % PORTS) as u16;
        let destination = self.port.wrapping_add((flow / PORTS) as u16);
        let Some(room) = packet.bytes_mut().get_mut(self.udp..self.udp + UDP + STAMP) else { return false };
        room[0..2].copy_from_slice(&source.to_be_bytes());
        room[2..4].copy_from_slice(&destination.to_be_bytes());
        room[8..12].copy_from_slice(&MAGIC);
        room[12..20].copy_from_slice(&nanos.to_be_bytes());
        let sum = Sum::default().bytes(&room[0..4]).bytes(&room[8..20]);
        room[20..22].copy_from_slice(&sum.finish().to_be_bytes());
        true
    }
}

/// Flows by Zipf's law; which of them are frequent is a matter of chance.
fn draw(flows: u32) -> Vec<u32> {
    let mut random = Random::new(1);
    let mut numbers: Vec<u32> = (0..flows).collect();
    random.shuffle(&mut numbers);
    let law = Zipf::new(numbers.len());
    (0..DRAWS).map(|_| numbers[law.draw(&mut random)]).collect()
}

/// When a packet of ours was sent; `None`: it is not ours.
pub fn sent_at(bytes: &[u8]) -> Option<u64> {
    let ip = match bytes.get(12..14)? {
        [0x08, 0x00] => 20,
        [0x86, 0xdd] => 40,
        _ => return None,
    };
    let payload = bytes.get(LINK + ip + UDP..)?;
    let (magic, rest) = payload.split_first_chunk()?;
    (*magic == MAGIC).then_some(u64::from_be_bytes(*rest.first_chunk()?))
}

/// A packet whose ports and stamp are zero, and so its checksum is that of all packets.
fn template(frame: &Frame, size: usize) -> Vec<u8> {
    // Its source: any address that is no multicast one will do, nobody answers to it.
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], frame.gateway.0);
    let (builder, headers) = if frame.source.is_v4() {
        (link.ipv4(frame.source.v4_octets(), frame.destination.v4_octets(), 64), LINK + 20 + UDP)
    } else {
        (link.ipv6(frame.source.octets(), frame.destination.octets(), 64), LINK + 40 + UDP)
    };
    let payload = vec![0; size.saturating_sub(FCS + headers).max(STAMP)];
    let mut bytes = vec![];
    // Writing to a vector cannot fail; lengths are within what the headers can say.
    builder.udp(0, 0).write(&mut bytes, &payload).expect("a UDP packet of this size exists");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use margay_dataplane::packet::{Frames, Pool};
    use std::collections::HashSet;

    #[test]
    fn packets_are_of_their_flows_with_right_checksums_and_know_when_they_were_sent() {
        for (source, destination) in [("10.1.0.7", "10.2.0.9"), ("fd00::7", "fd01::9")] {
            let frame = Frame {
                gateway: Mac([4; 6]),
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                flows: Flows { port: 9, flows: 100, zipf: false, size: "imix".parse().unwrap() },
            };
            let mut maker = Maker::new(&frame);
            let mut pool = Pool::new(Frames::new(64, 2048, false).unwrap(), 64);
            let mut idx = pool.alloc().unwrap();
            let mut flows = HashSet::new();
            for sent in 0..1200u64 {
                let nanos = sent * 0x1234_5678_9abc;
                let mut packet = pool.get(&mut idx);
                assert!(maker.write(&mut packet, nanos));
                let bytes = packet.bytes().to_vec();
                assert_eq!(sent_at(&bytes), Some(nanos));
                let parsed = SlicedPacket::from_ethernet(&bytes).unwrap();
                let Some(TransportSlice::Udp(udp)) = parsed.transport else { panic!() };
                flows.insert((udp.source_port(), udp.destination_port()));
                let right = match parsed.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload())
                    }
                    NetSlice::Ipv6(ip) => {
                        udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(udp.checksum(), right.unwrap());
            }
            assert_eq!(flows.len(), 100);
            pool.free(idx);
        }
    }

    #[test]
    fn flows_drawn_by_zipfs_law_are_as_frequent_as_it_says() {
        let drawn = draw(1000);
        let mut counts = vec![0u32; 1000];
        drawn.iter().for_each(|flow| counts[*flow as usize] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // The first of a thousand: one in 7.49; the hundredth a hundredth of it.
        let first = drawn.len() as f64 / 7.4855;
        assert!((f64::from(counts[0]) / first - 1.0).abs() < 0.02, "{counts:?}");
        assert!((f64::from(counts[99]) / first * 100.0 - 1.0).abs() < 0.1, "{counts:?}");
        assert!(counts[999] > 0);
        assert_eq!(draw(1)[..2], [0, 0]);
    }

    #[test]
    fn others_packets_are_not_ours() {
        for bytes in [&[][..], &[0; 13], &[0; 100], b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\x00short"] {
            assert_eq!(sent_at(bytes), None);
        }
    }

    #[test]
    fn sizes_are_refused_with_the_range() {
        assert!("63".parse::<Sizes>().unwrap_err().contains("64 to 1518"));
        assert_eq!("imix".parse::<Sizes>().unwrap().to_string(), "imix");
        assert_eq!("594".parse::<Sizes>().unwrap().to_string(), "594");
    }
}
