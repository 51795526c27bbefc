//! The packets that nearly all are: TCP or UDP in IPv4, without options, tags or fragments, between
//! addresses that may be forwarded, to a station that is ours.
//!
//! What [`parse`](super::parse) finds out of them in several views is read here from one window at
//! fixed places, and its flow's bucket is fetched. Whatever is in any way unusual is left to `parse`,
//! the refused included: both must come to the same end, and a test has them do so.

use super::World;
use super::parse::{CALICO_GATEWAY_MAC, ParseNext};
use crate::fib::{Interfaces, Role};
use crate::net::{Addr, Icmp, Key4, Mac, Proto};
use crate::packet::{L4Checksum, Meta, Packet, PacketFlags};
use crate::wire::{ethernet, ip4};

/// Where the IP header and the transport header are, from the packet's first byte on.
const L3: usize = ethernet::HEADER_LEN;
const L4: usize = L3 + ip4::HEADER_LEN;
/// As far as a TCP header without options.
const HEAD: usize = L4 + 20;

/// Where the packet goes, if it is one of these; else nothing is done.
#[inline(always)]
pub(super) fn judge(world: &World, packet: &mut Packet<'_>) -> Option<ParseNext> {
    let interface = world.snapshot.interfaces.get(packet.meta.rx_if)?;
    let (start, len) = (packet.meta.data, packet.len_in_frame());
    let head: &[u8; HEAD] = packet.window(start)?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let four = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];

    let total_len = usize::from(word(L3 + 2));
    let segment_len = total_len.checked_sub(ip4::HEADER_LEN)?;
    let whole = word(12) == ethernet::IPV4
        && head[L3] == 0x45
        && L3 + total_len <= len
        && len == packet.meta.len as usize
        && word(L3 + 6) & 0x3fff == 0
        && sums_up(head)
        && packet.meta.checksum == L4Checksum::Complete;
    let (src, dst) = (u32::from_be_bytes(four(L3 + 12)), u32::from_be_bytes(four(L3 + 16)));
    if !whole || !is_ordinary(src) || !is_ordinary(dst) {
        return None;
    }
    let (proto, dport) = (Proto(head[L3 + 9]), word(L4 + 2));
    let (header_len, claimed, tcp_flags) = match proto {
        Proto::TCP => (20, usize::from(head[L4 + 12] >> 4) * 4, head[L4 + 13]),
        Proto::UDP => (8, usize::from(word(L4 + 4)), 0),
        _ => return None,
    };
    if claimed < header_len || claimed > segment_len {
        return None;
    }
    let to = Mac([head[0], head[1], head[2], head[3], head[4], head[5]]);
    let vxlan = || proto == Proto::UDP && dport == world.snapshot.overlay.vxlan_port;
    let expected = match &interface.role {
        Role::Uplink => {
            let overlay = &world.snapshot.overlay;
            to == interface.mac && !vxlan() && (proto != Proto::UDP || !overlay.is_encrypted_at(dport))
        }
        Role::Tunnel(_) => to == interface.mac,
        Role::Workload(workload) => {
            workload.active
                && (to == interface.mac || to == CALICO_GATEWAY_MAC)
                && workload.owns(Addr::v4(four(L3 + 12)))
                && !vxlan()
        }
        Role::Host => to == Interfaces::HOST_PORT_MAC,
        Role::Stack => false,
    };
    if !expected {
        return None;
    }
    let addrs = [four(L3 + 12), four(L3 + 16)];
    let [[a, b, c, d], [e, f, g, h]] = addrs;
    let key = Key4::new([a, b, c, d, e, f, g, h], four(L4), proto);
    let meta = &mut *packet.meta;
    meta.rx_if = interface.id;
    meta.len = (L3 + total_len) as u32;
    meta.l3 = start + L3 as u16;
    meta.l4 = start + L4 as u16;
    meta.proto = proto;
    meta.tcp_flags = tcp_flags;
    meta.icmp = Icmp::default();
    meta.flags.set(PacketFlags::PLAIN);
    meta.hash = world.flows.hash4(key);
    world.flows.prefetch(meta.hash);
    Some(if interface.untracked { ParseNext::Untracked } else { ParseNext::Conntrack })
}

/// The flow key of a packet that [`judge`] took and that no one has touched since.
#[inline(always)]
pub(super) fn key(packet: &Packet<'_>) -> Option<Key4> {
    const TOUCHED: PacketFlags = PacketFlags::KEYED.and(PacketFlags::HANDED);
    let Meta { flags, l3, proto, .. } = *packet.meta;
    if !flags.has(PacketFlags::PLAIN) || flags.any(TOUCHED) {
        return None;
    }
    let both: &[u8; 12] = packet.window(l3 + 12)?;
    Some(Key4::new(*both.first_chunk()?, *both.last_chunk()?, proto))
}

/// The header's checksum is right (RFC 1071).
#[inline(always)]
fn sums_up(head: &[u8; HEAD]) -> bool {
    let four =
        |at: usize| u64::from(u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let sum = four(L3) + four(L3 + 4) + four(L3 + 8) + four(L3 + 12) + four(L3 + 16);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    // The header is not all zeros, so neither is its sum.
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// An address that is forwarded without a second thought: not of 0/8, 127/8, 224/4 or 240/4.
#[inline(always)]
const fn is_ordinary(addr: u32) -> bool {
    (addr >> 24).wrapping_sub(1) < 223 && addr >> 24 != 127
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::{FlowHasher, Settings};
    use crate::fib::{Interface, Quota, Workload};
    use crate::net::{IfId, Prefix, WorkerId};
    use crate::nodes::{Inbox, Limits, parse};
    use crate::packet::{Frames, Pool};
    use crate::snapshot::Snapshot;
    use crate::wire::checksum::Sum;
    use etherparse::PacketBuilder;
    use std::sync::Arc;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const VXLAN_PORT: u16 = 4789;
    const MACS: [Mac; 5] = [MAC, CALICO_GATEWAY_MAC, Interfaces::HOST_PORT_MAC, Mac([0xff; 6]), Mac([2; 6])];
    const ADDRS: [[u8; 4]; 8] = [
        [10, 65, 0, 1],
        [10, 65, 0, 2],
        [0; 4],
        [127, 0, 0, 1],
        [224, 0, 0, 5],
        [255; 4],
        [240, 1, 2, 3],
        [169, 254, 1, 1],
    ];

    fn world() -> World {
        let workload = |active| {
            let nets = vec![Prefix::host(Addr::v4(ADDRS[0]))];
            Role::Workload(Workload {
                name: "w".into(),
                endpoint: 0,
                active,
                nets,
                spoofable: vec![],
                ingress: Quota::default(),
                egress: Quota::default(),
            })
        };
        let roles = [Role::Uplink, workload(true), workload(false), Role::Host, Role::Stack];
        let interface = |(n, role): (usize, Role)| Interface {
            id: IfId(n as u16),
            name: format!("if{n}").into(),
            role,
            mac: MAC,
            mtu: 1500,
            up: true,
            carrier: IfId(n as u16),
            vlan: None,
            queues: vec![WorkerId(0)],
            addresses: vec![],
            host: None,
            through: None,
            untracked: n == 0,
        };
        let interfaces = Arc::new(Interfaces::new(roles.into_iter().enumerate().map(interface)));
        let snapshot = Arc::new(Snapshot { interfaces, ..Snapshot::empty(1) });
        let limits = Limits { flows: Settings { sessions: 8, ..Settings::default() }, interfaces: 8 };
        let inboxes: Arc<[Inbox]> = [Inbox::new(1)].into();
        World::new(WorkerId(0), limits, FlowHasher::new([1, 2, 3, 4]), snapshot, inboxes).unwrap()
    }

    /// Steele, Lea and Flood's SplitMix64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
        }

        /// Mostly the first.
        fn pick<T: Copy>(&mut self, of: &[T]) -> T {
            if self.below(4) > 0 { of[0] } else { of[self.below(of.len())] }
        }
    }

    fn frame(random: &mut Random) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([4; 6], random.pick(&MACS).0);
        let ip = link.ipv4(random.pick(&ADDRS), random.pick(&ADDRS), 64);
        let (mut bytes, payload) = (vec![], vec![7; random.below(40)]);
        if random.below(2) == 0 {
            ip.tcp(4000, 80, 1, 1).ack(2).write(&mut bytes, &payload).unwrap();
        } else {
            ip.udp(4000, random.pick(&[53, VXLAN_PORT])).write(&mut bytes, &payload).unwrap();
        }
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len().min(HEAD));
            bytes[at] = [0, 1, 0x45, 0x46, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(4)][random.below(7)];
        }
        match random.below(8) {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => bytes.extend([0; 9]),
            _ => {}
        }
        if random.below(3) > 0 && bytes.len() >= L4 {
            bytes[L3 + 10..L3 + 12].fill(0);
            let sum = Sum::default().bytes(&bytes[L3..L4]).finish();
            bytes[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// Where each way sends the packet, and what it noted of it.
    type Outcome = (ParseNext, Meta);

    fn outcomes(world: &World, pool: &mut Pool, from: IfId, bytes: &[u8]) -> (Option<Outcome>, Outcome) {
        let mut idx = pool.alloc().unwrap();
        let mut packet = pool.get(&mut idx);
        packet.meta.rx_if = from;
        assert!(packet.fill(bytes));
        let before = *packet.meta;
        let plain = judge(world, &mut packet).map(|next| (next, *packet.meta));
        if plain.is_none() {
            assert_eq!(format!("{before:?}"), format!("{:?}", packet.meta), "nothing is done");
        }
        *packet.meta = before;
        let any = (parse::any(world, &mut packet), *packet.meta);
        pool.free(idx);
        (plain, any)
    }

    #[test]
    fn comes_to_the_same_end_as_the_way_for_all() {
        let (world, mut random) = (world(), Random(1));
        let mut pool = Pool::new(Frames::new(64, 2048, false).unwrap(), 64);
        let mut plain_ones = 0;
        for _ in 0..200_000 {
            let (bytes, from) = (frame(&mut random), IfId(random.below(5) as u16));
            let (plain, any) = outcomes(&world, &mut pool, from, &bytes);
            let Some((next, mut meta)) = plain else { continue };
            plain_ones += 1;
            meta.flags.clear(PacketFlags::PLAIN);
            meta.hash = 0;
            assert_eq!((next, format!("{meta:?}")), (any.0, format!("{:?}", any.1)), "{bytes:02x?}");
        }
        assert!(plain_ones > 10_000, "{plain_ones}");
    }

    #[test]
    fn takes_what_is_plain_and_knows_its_key() {
        let world = world();
        let mut pool = Pool::new(Frames::new(64, 2048, false).unwrap(), 64);
        let link = PacketBuilder::ethernet2([4; 6], MAC.0);
        let mut bytes = vec![];
        link.ipv4(ADDRS[1], ADDRS[0], 64).udp(4000, 53).write(&mut bytes, b"").unwrap();
        let mut idx = pool.alloc().unwrap();
        let mut packet = pool.get(&mut idx);
        packet.fill(&bytes);
        assert_eq!(judge(&world, &mut packet), Some(ParseNext::Untracked), "if0 has such policy");
        let truth = crate::nodes::world::flow_key(&packet);
        assert_eq!(key(&packet).map(Key4::key), Some(truth));
        assert_eq!(packet.meta.hash, world.flows.hash(&truth));
        pool.free(idx);
    }
}
