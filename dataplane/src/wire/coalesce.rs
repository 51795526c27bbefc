//! The other way of [`segment`](super::segment): consecutive segments of one TCP connection become one super-frame.
//!
//! Only what making segments gives back byte by byte is put together: data and nothing else, in sequence, with the same
//! headers (RFC 9293 §3.1), options and timestamps included, identifications that count up, all of one size but the last,
//! which may be shorter. PSH ends a run, CWR stands on its first segment only. Checksums are verified first, since a
//! super-frame's receiver verifies none: damage stays damage.

use super::checksum::Sum;
use super::{ends, ip4, ip6, l4, read, read_u16};
use crate::net::Proto;

/// Bytes of a super-frame at most, from its IP header on.
const LONGEST: usize = 65_535;

const PSH: u8 = 1 << 3;
const ACK: u8 = 1 << 4;
const ECE: u8 = 1 << 6;
const CWR: u8 = 1 << 7;

/// Segments that are to become one packet: what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    v4: bool,
    /// Where the TCP header begins, and where the payload does.
    l4: usize,
    payload: usize,
    /// Bytes of payload in each segment but the last.
    size: usize,
    segments: usize,
    /// Bytes of payload so far.
    total: usize,
    pushed: bool,
    closed: bool,
}

impl Run {
    /// A run that begins with this IP packet, all of whose bytes are given. `None`: it is none that others may follow. Its
    /// checksums are looked at when one does.
    pub fn begin(packet: &[u8]) -> Option<Self> {
        let (v4, l4) = match packet.first()? {
            0x45 => (true, ip4::HEADER_LEN),
            0x60..=0x6f => (false, ip6::HEADER_LEN),
            _ => return None,
        };
        let (proto, len) = match v4 {
            true => (packet.get(9)?, usize::from(read_u16(packet, 2).ok()?)),
            false => (packet.get(6)?, ip6::HEADER_LEN + usize::from(read_u16(packet, 4).ok()?)),
        };
        // A fragment is not whole.
        if Proto(*proto) != Proto::TCP || len != packet.len() || v4 && read_u16(packet, 6).ok()? & 0x3fff != 0
        {
            return None;
        }
        let head: [u8; 20] = read(packet, l4).ok()?;
        let (payload, flags) = (l4 + usize::from(head[12] >> 4) * 4, head[13]);
        let data = flags & ACK != 0 && flags & !(ACK | PSH | ECE | CWR) == 0;
        if !data || payload < l4 + 20 || payload >= len {
            return None;
        }
        let size = len - payload;
        let pushed = flags & PSH != 0;
        Some(Self { v4, l4, payload, size, segments: 1, total: size, pushed, closed: pushed })
    }

    /// The packet is of the same connection and direction.
    pub fn is_of(&self, head: &[u8], packet: &[u8]) -> bool {
        let same = |from: usize, to: usize| head.get(from..to) == packet.get(from..to);
        let addresses = if self.v4 { (12, 20) } else { (8, 40) };
        let proto = if self.v4 { 9 } else { 6 };
        packet.first().is_some_and(|first| first >> 4 == head[0] >> 4)
            && same(proto, proto + 1)
            && same(addresses.0, addresses.1)
            && same(self.l4, self.l4 + 4)
    }

    /// Adds the packet, if it is what follows. `head`: the first one's bytes, as they came.
    pub fn add(&mut self, head: &[u8], packet: &[u8]) -> bool {
        self.follows(head, packet) == Some(true)
    }

    fn follows(&mut self, head: &[u8], packet: &[u8]) -> Option<bool> {
        let Self { v4, l4, payload, size, .. } = *self;
        let data = packet.len().checked_sub(payload)?;
        if self.closed || data == 0 || data > size || self.payload + self.total + data > LONGEST {
            return Some(false);
        }
        let other = Self::begin(packet)?;
        let same = |from: usize, to: usize| head.get(from..to) == packet.get(from..to);
        let ip = match v4 {
            // Type of service; flags and hops; addresses. Lengths, identification and checksum are their own.
            true => {
                let id = read_u16(head, 4).ok()?.wrapping_add(self.segments as u16);
                same(0, 2) && read_u16(packet, 4) == Ok(id) && same(6, 10) && same(12, 20)
            }
            false => same(0, 4) && same(6, 40),
        };
        let seq = |packet: &[u8]| read(packet, l4 + 4).map(u32::from_be_bytes).ok();
        let flags = packet.get(l4 + 13)?;
        let first = head.get(l4 + 13)? & !PSH;
        let follows = ip
            && other.payload == payload
            && seq(packet)? == seq(head)?.wrapping_add(self.total as u32)
            && flags & !PSH == first & !CWR
            // Ports; acknowledgment and length of the header; window; urgent pointer and options.
            && same(l4, l4 + 4)
            && same(l4 + 8, l4 + 13)
            && same(l4 + 14, l4 + 16)
            && same(l4 + 18, payload)
            // Of the first, too: till now it was alone.
            && (self.segments > 1 || is_intact(head, v4, l4))
            && is_intact(packet, v4, l4);
        if follows {
            self.segments += 1;
            self.total += data;
            self.pushed = flags & PSH != 0;
            self.closed = self.pushed || data < size;
        }
        Some(follows)
    }

    /// Packets it is made of.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Bytes of payload in each of its segments but the last.
    pub fn size(&self) -> u16 {
        self.size as u16
    }

    /// Where the TCP header begins, from the IP header on, and where the payload does.
    pub fn headers(&self) -> (usize, usize) {
        (self.l4, self.payload)
    }

    /// Makes the first packet's headers, up to the payload, those of the super-frame. Its checksum is left to hardware.
    pub fn finish(&self, headers: &mut [u8]) {
        let len = self.payload + self.total;
        let Some((ip, transport)) = headers.split_at_mut_checked(self.l4) else { return };
        let (src, dst) = ends(ip, !self.v4);
        if self.v4 {
            ip4::set_len(ip, len);
        } else {
            ip[4..6].copy_from_slice(&((len - ip6::HEADER_LEN) as u16).to_be_bytes());
        }
        l4::seed_checksum(src, dst, Proto::TCP, transport, len - self.l4);
        if let Some(flags) = transport.get_mut(13)
            && self.pushed
        {
            *flags |= PSH;
        }
    }
}

/// Both checksums are right.
fn is_intact(packet: &[u8], v4: bool, l4: usize) -> bool {
    let (src, dst) = ends(packet, !v4);
    let segment = &packet[l4..];
    let sum = Sum::default().pseudo_header(src, dst, Proto::TCP, segment.len() as u32).bytes(segment);
    sum.finish() == 0 && (!v4 || Sum::default().bytes(&packet[..l4]).finish() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::segment::Super;
    use etherparse::{IpHeaders, PacketBuilder};
    use proptest::prelude::*;

    const FROM: [u8; 4] = [10, 0, 0, 1];
    const TO: [u8; 4] = [10, 0, 0, 2];

    /// A super-frame of this payload, its checksum as it happens to be.
    fn packet(v6: bool, flags: u8, (id, seq): (u16, u32), options: usize, payload: &[u8]) -> Vec<u8> {
        let ip = match v6 {
            true => PacketBuilder::ipv6([1; 16], [2; 16], 64),
            false => {
                let mut header =
                    etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, FROM, TO).unwrap();
                header.identification = id;
                PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()))
            }
        };
        let mut header = etherparse::TcpHeader::new(4000, 80, seq, 100);
        header.acknowledgment_number = 7;
        header.set_options_raw(&vec![1; 4 * options]).unwrap();
        (header.psh, header.ack, header.ece, header.cwr) =
            (flags & PSH != 0, flags & ACK != 0, flags & ECE != 0, flags & CWR != 0);
        let mut out = vec![];
        ip.tcp_header(header).write(&mut out, payload).unwrap();
        out
    }

    fn segments(packet: &[u8], size: u16) -> Vec<Vec<u8>> {
        let l4 = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let cut = Super::new(packet, l4, Proto::TCP, size).expect("it is sound");
        let one = |n| {
            let mut out = vec![0; cut.longest()];
            let len = cut.write(n, &mut out).expect("there is room");
            out.truncate(len);
            out
        };
        (0..cut.count()).map(one).collect()
    }

    /// Puts together what may be, as whoever sends does.
    fn put_together(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, u16)> {
        let mut out = vec![];
        let mut at = 0;
        while at < packets.len() {
            let head = &packets[at];
            let Some(mut run) = Run::begin(head) else {
                out.push((head.clone(), 0));
                at += 1;
                continue;
            };
            let more = packets[at + 1..].iter().take_while(|packet| run.add(head, packet)).count();
            let mut whole = head.clone();
            let (_, payload) = run.headers();
            packets[at + 1..=at + more].iter().for_each(|packet| whole.extend(&packet[payload..]));
            assert_eq!(run.segments(), 1 + more);
            if more > 0 {
                run.finish(&mut whole[..payload]);
                out.push((whole, run.size()));
            } else {
                out.push((whole, 0));
            }
            at += 1 + more;
        }
        out
    }

    /// The other way round.
    fn taken_apart(packets: &[(Vec<u8>, u16)]) -> Vec<Vec<u8>> {
        let one = |(packet, size): &(Vec<u8>, u16)| match size {
            0 => vec![packet.clone()],
            size => segments(packet, *size),
        };
        packets.iter().flat_map(one).collect()
    }

    /// IPv6, flags, identification and number, options, length, size, and what is changed of which segment.
    type Stream = (bool, u8, (u16, u32), usize, usize, u16, Vec<(usize, usize, u8)>);

    /// Segments that follow each other, of which some are changed.
    fn stream() -> impl Strategy<Value = Stream> {
        let change = (0usize..40, 0usize..90, 0u8..);
        let changes = proptest::collection::vec(change, 0..4);
        (any::<bool>(), 0u8.., any::<(u16, u32)>(), 0usize..=10, 1usize..20_000, 500u16..1460, changes)
    }

    proptest! {
        #[test]
        fn taking_apart_what_was_put_together_gives_it_back(
            (v6, flags, numbers, options, len, size, changes) in stream()
        ) {
            let payload: Vec<u8> = (0..len).map(|n| (n * 31) as u8).collect();
            let whole = packet(v6, flags & (PSH | ECE | CWR) | ACK, numbers, options, &payload);
            let mut packets = segments(&whole, size);
            for (n, at, byte) in changes {
                let n = n % packets.len();
                let at = at % packets[n].len();
                // Some as damage, some as the header of another sender.
                packets[n][at] ^= byte;
                if byte % 2 == 0 {
                    mend(&mut packets[n]);
                }
            }
            prop_assert_eq!(taken_apart(&put_together(&packets)), packets);
        }

        #[test]
        fn putting_together_what_was_taken_apart_gives_it_back(
            (v6, flags, numbers, options, len, size, _) in stream()
        ) {
            let payload: Vec<u8> = (0..len).map(|n| (n * 31) as u8).collect();
            let mut whole = packet(v6, flags & (PSH | ECE | CWR) | ACK, numbers, options, &payload);
            let together = put_together(&segments(&whole, size));
            prop_assert_eq!(together.len(), 1);
            if len > usize::from(size) {
                let at = if v6 { 40 } else { 20 };
                let (src, dst) = ends(&whole, v6);
                let len = whole.len() - at;
                l4::seed_checksum(src, dst, Proto::TCP, &mut whole[at..], len);
            }
            prop_assert_eq!(&together[0].0, &whole);
        }

        #[test]
        fn nothing_panics(head in proptest::collection::vec(0u8.., 0..120), next in proptest::collection::vec(0u8.., 0..120)) {
            if let Some(mut run) = Run::begin(&head) {
                run.is_of(&head, &next);
                run.add(&head, &next);
                run.finish(&mut head.clone());
            }
        }
    }

    /// Makes the checksums right again, where there are headers enough.
    fn mend(packet: &mut [u8]) {
        let (v4, l4) = if packet[0] >> 4 == 4 { (true, 20) } else { (false, 40) };
        if v4 {
            packet[10..12].fill(0);
            let sum = Sum::default().bytes(&packet[..l4]).finish();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let (src, dst) = ends(packet, !v4);
        let segment = &mut packet[l4..];
        segment[16..18].fill(0);
        let sum =
            Sum::default().pseudo_header(src, dst, Proto::TCP, segment.len() as u32).bytes(segment).finish();
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
    }

    #[test]
    fn what_ends_a_run() {
        let payload = vec![7; 4000];
        let packets = segments(&packet(false, ACK | PSH, (1, 1), 3, &payload), 1000);
        let together = |packets: &[Vec<u8>]| -> Vec<u16> {
            put_together(packets).iter().map(|(packet, _)| packet.len() as u16).collect()
        };
        assert_eq!(together(&packets), [4052]);
        let changed = |n: usize, at: usize, byte: u8| {
            let mut packets = packets.clone();
            packets[n][at] = byte;
            mend(&mut packets[n]);
            packets
        };
        assert_eq!(together(&changed(1, 33, ACK | PSH)), [2052, 2052], "PSH");
        assert_eq!(together(&changed(2, 33, ACK | CWR)), [2052, 2052], "CWR begins another");
        assert_eq!(together(&changed(2, 33, ACK | 1)), [2052, 1052, 1052], "FIN");
        assert_eq!(together(&changed(2, 1, 3)), [2052, 1052, 1052], "congestion was experienced");
        assert_eq!(together(&changed(2, 45, 9)), [2052, 1052, 1052], "another option");
        assert_eq!(together(&changed(2, 8, 63)), [2052, 1052, 1052], "another way");
        let mut damaged = packets.clone();
        damaged[2][100] ^= 1;
        assert_eq!(together(&damaged), [2052, 1052, 1052], "damage stays where it is");
        let lost = [&packets[..2], &packets[3..]].concat();
        assert_eq!(together(&lost), [2052, 1052], "a hole");
    }
}
