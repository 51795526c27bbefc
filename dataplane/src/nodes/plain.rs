//! The packets that nearly all are: TCP or UDP in IPv4 without options or in IPv6 without extension headers,
//! without tags or fragments, between addresses that may be forwarded, to a station that is ours.
//!
//! What [`parse`](super::parse) finds out of them in several views is read here from one window at
//! fixed places, and its flow's bucket is fetched. Whatever is in any way unusual is left to `parse`,
//! the refused included: both must come to the same end, and a test has them do so.

use super::World;
use super::parse::{CALICO_GATEWAY_MAC, ParseNext, finish_checksum};
use super::world::flow_key;
use crate::fib::{Interface, Interfaces, Role};
use crate::net::{Addr, FlowKey, Icmp, Key4, Key6, Mac, Proto};
use crate::packet::{L4Checksum, Meta, Packet, PacketFlags};
use crate::wire::{ethernet, ip4, ip6};

/// Where the IP header is, from the packet's first byte on.
const L3: usize = ethernet::HEADER_LEN;
/// Where IPv4's transport header is, and as far as one of TCP without options.
const L4: usize = L3 + ip4::HEADER_LEN;
const HEAD: usize = L4 + 20;
/// The same of IPv6.
const L4_V6: usize = L3 + ip6::HEADER_LEN;
const HEAD_V6: usize = L4_V6 + 20;

/// Where the packet goes, if it is one of these; else nothing is done.
#[inline(always)]
pub(super) fn judge(world: &World, packet: &mut Packet<'_>) -> Option<ParseNext> {
    let link: &[u8; L3] = packet.window(packet.meta.data)?;
    let next = match u16::from_be_bytes([link[12], link[13]]) {
        ethernet::IPV4 => judge4(world, packet),
        ethernet::IPV6 => judge6(world, packet),
        _ => None,
    }?;
    if packet.meta.checksum == L4Checksum::MaybePartial {
        let FlowKey { src, dst, .. } = flow_key(packet);
        finish_checksum(packet, src, dst);
    }
    Some(next)
}

#[inline(always)]
fn judge4(world: &World, packet: &mut Packet<'_>) -> Option<ParseNext> {
    let interface = world.snapshot.interfaces.get(packet.meta.rx_if)?;
    let (start, len) = (packet.meta.data, packet.len_in_frame());
    let head: &[u8; HEAD] = packet.window(start)?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let four = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];

    let total_len = usize::from(word(L3 + 2));
    let segment_len = total_len.checked_sub(ip4::HEADER_LEN)?;
    let whole = head[L3] == 0x45
        && L3 + total_len <= len
        && len == packet.meta.len as usize
        && word(L3 + 6) & 0x3fff == 0
        && sums_up(head);
    let (src, dst) = (u32::from_be_bytes(four(L3 + 12)), u32::from_be_bytes(four(L3 + 16)));
    if !whole || !is_ordinary(src) || !is_ordinary(dst) {
        return None;
    }
    let (proto, dport) = (Proto(head[L3 + 9]), word(L4 + 2));
    let tcp_flags = transport(proto, head.last_chunk()?, segment_len)?;
    let to = Mac([head[0], head[1], head[2], head[3], head[4], head[5]]);
    if !is_expected(world, interface, to, (proto, dport), || Addr::v4(four(L3 + 12))) {
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

#[inline(never)]
fn judge6(world: &World, packet: &mut Packet<'_>) -> Option<ParseNext> {
    let interface = world.snapshot.interfaces.get(packet.meta.rx_if)?;
    let (start, len) = (packet.meta.data, packet.len_in_frame());
    let head: &[u8; HEAD_V6] = packet.window(start)?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);

    let segment_len = usize::from(word(L3 + 4));
    let total_len = ip6::HEADER_LEN + segment_len;
    let whole = head[L3] >> 4 == 6 && L3 + total_len <= len && len == packet.meta.len as usize;
    let (proto, ports) =
        (Proto(head[L3 + 6]), [head[L4_V6], head[L4_V6 + 1], head[L4_V6 + 2], head[L4_V6 + 3]]);
    let addrs: &[u8; 32] = head[L3 + 8..].first_chunk()?;
    let (src, dst) = (*addrs.first_chunk()?, *addrs.last_chunk()?);
    let key = Key6::new(src, dst, ports, proto);
    let [(a, b, _), (c, d, _)] = key.ends();
    if !whole || !is_ordinary6(a, b) || !is_ordinary6(c, d) {
        return None;
    }
    let tcp_flags = transport(proto, head.last_chunk()?, segment_len)?;
    let to = Mac([head[0], head[1], head[2], head[3], head[4], head[5]]);
    if !is_expected(world, interface, to, (proto, word(L4_V6 + 2)), || Addr::v6(src)) {
        return None;
    }
    let meta = &mut *packet.meta;
    meta.rx_if = interface.id;
    meta.len = (L3 + total_len) as u32;
    meta.l3 = start + L3 as u16;
    meta.l4 = start + L4_V6 as u16;
    meta.proto = proto;
    meta.tcp_flags = tcp_flags;
    meta.icmp = Icmp::default();
    meta.flags.set(PacketFlags::PLAIN.and(PacketFlags::V6));
    meta.hash = world.flows.hash6(&key);
    world.flows.prefetch(meta.hash);
    Some(if interface.untracked { ParseNext::Untracked } else { ParseNext::Conntrack })
}

/// Whether a packet that [`judge`] took is one that no one has touched since.
#[inline(always)]
pub(super) fn is_as_it_came(packet: &Packet<'_>) -> bool {
    const TOUCHED: PacketFlags = PacketFlags::KEYED.and(PacketFlags::HANDED);
    let flags = packet.meta.flags;
    flags.has(PacketFlags::PLAIN) && !flags.any(TOUCHED)
}

/// The flow key of such a packet of IPv4.
#[inline(always)]
pub(super) fn key4(packet: &Packet<'_>) -> Option<Key4> {
    let Meta { l3, proto, .. } = *packet.meta;
    let both: &[u8; 12] = packet.window(l3 + 12)?;
    Some(Key4::new(*both.first_chunk()?, *both.last_chunk()?, proto))
}

/// The same of IPv6.
#[inline(always)]
pub(super) fn key6(packet: &Packet<'_>) -> Option<Key6> {
    let Meta { l3, proto, .. } = *packet.meta;
    let both: &[u8; 36] = packet.window(l3 + 8)?;
    Some(Key6::new(*both.first_chunk()?, *both[16..].first_chunk()?, *both.last_chunk()?, proto))
}

/// The flags of TCP, 0 of UDP, whose header at `head` is sound; no other protocol's is.
#[inline(always)]
fn transport(proto: Proto, head: &[u8; 20], segment_len: usize) -> Option<u8> {
    let (header_len, claimed, tcp_flags) = match proto {
        Proto::TCP => (20, usize::from(head[12] >> 4) * 4, head[13]),
        Proto::UDP => (8, usize::from(u16::from_be_bytes([head[4], head[5]])), 0),
        _ => return None,
    };
    (claimed >= header_len && claimed <= segment_len).then_some(tcp_flags)
}

/// The interface takes what is sent to this station from this address, and it is no tunnel's.
#[inline(always)]
fn is_expected(
    world: &World,
    interface: &Interface,
    to: Mac,
    (proto, dport): (Proto, u16),
    src: impl FnOnce() -> Addr,
) -> bool {
    let overlay = &world.snapshot.overlay;
    let vxlan = || proto == Proto::UDP && dport == overlay.vxlan_port;
    match &interface.role {
        Role::Uplink => {
            to == interface.mac && !vxlan() && (proto != Proto::UDP || !overlay.is_encrypted_at(dport))
        }
        Role::Tunnel(_) => to == interface.mac,
        Role::Workload(workload) => {
            workload.active
                && (to == interface.mac || to == CALICO_GATEWAY_MAC)
                && workload.owns(src())
                && !vxlan()
        }
        Role::Host => to == Interfaces::HOST_PORT_MAC,
        Role::Stack => false,
    }
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

/// The same of IPv6, by both halves: not of ff00::/8, fe80::/10 or ::ffff:0:0/96, nor :: or ::1.
#[inline(always)]
const fn is_ordinary6(upper: u64, lower: u64) -> bool {
    upper >> 56 != 0xff && upper >> 54 != 0xfe80 >> 6 && (upper != 0 || (lower > 1 && lower >> 32 != 0xffff))
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
    const ADDRS_V6: [&str; 9] =
        ["fd00::1", "fd00::2", "::", "::1", "::2", "ff02::1", "fe80::1", "::ffff:10.65.0.1", "2001:db8::1"];

    fn world() -> World {
        let workload = |active| {
            let nets = vec![Prefix::host(Addr::v4(ADDRS[0])), Prefix::host(ADDRS_V6[0].parse().unwrap())];
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
            super_frames: false,
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

    /// Leaves of the transport checksum only the pseudo-header's sum, as a stack does for hardware.
    fn partial(bytes: &mut [u8], v6: bool, l4: usize) {
        let (proto, addrs) = if v6 { (bytes[L3 + 6], L3 + 8..l4) } else { (bytes[L3 + 9], L3 + 12..l4) };
        let len = (bytes.len() - l4) as u16;
        let sum = Sum::default().bytes(&bytes[addrs]).word(u16::from(proto)).word(len).folded();
        let at = l4 + if Proto(proto) == Proto::TCP { 16 } else { 6 };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn frame(random: &mut Random) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([4; 6], random.pick(&MACS).0);
        let v6 = random.below(2) == 0;
        let mut addr = || random.pick(&ADDRS_V6).parse::<std::net::Ipv6Addr>().unwrap().octets();
        let (src, dst) = (addr(), addr());
        let ip = match v6 {
            true => link.ipv6(src, dst, 64),
            false => link.ipv4(random.pick(&ADDRS), random.pick(&ADDRS), 64),
        };
        let (mut bytes, payload) = (vec![], vec![7; random.below(40)]);
        if random.below(2) == 0 {
            ip.tcp(4000, 80, 1, 1).ack(2).write(&mut bytes, &payload).unwrap();
        } else {
            ip.udp(4000, random.pick(&[53, VXLAN_PORT])).write(&mut bytes, &payload).unwrap();
        }
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len().min(if v6 { HEAD_V6 } else { HEAD }));
            let other = [0, 1, 0x45, 0x46, 0x60, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(4)];
            bytes[at] = other[random.below(8)];
        }
        match random.below(8) {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => bytes.extend([0; 9]),
            _ => {}
        }
        let l4 = if v6 { L4_V6 } else { L4 };
        if random.below(2) == 0 && bytes.len() >= l4 + 20 {
            partial(&mut bytes, v6, l4);
        }
        if !v6 && random.below(3) > 0 && bytes.len() >= L4 {
            bytes[L3 + 10..L3 + 12].fill(0);
            let sum = Sum::default().bytes(&bytes[L3..L4]).finish();
            bytes[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// Where each way sends the packet, what it noted of it, and the packet.
    type Outcome = (ParseNext, Meta, Vec<u8>);

    fn outcomes(
        world: &World,
        pool: &mut Pool,
        (from, checksum): (IfId, L4Checksum),
        bytes: &[u8],
    ) -> (Option<Outcome>, Outcome) {
        let mut idx = pool.alloc().unwrap();
        let mut packet = pool.get(&mut idx);
        (packet.meta.rx_if, packet.meta.checksum) = (from, checksum);
        assert!(packet.fill(bytes));
        let before = *packet.meta;
        let plain = judge(world, &mut packet).map(|next| (next, *packet.meta, packet.bytes().to_vec()));
        if plain.is_none() {
            assert_eq!(format!("{before:?}"), format!("{:?}", packet.meta), "nothing is done");
            assert_eq!(packet.bytes(), bytes);
        }
        assert!(packet.fill(bytes));
        *packet.meta = before;
        let any = (parse::any(world, &mut packet), *packet.meta, packet.bytes().to_vec());
        pool.free(idx);
        (plain, any)
    }

    #[test]
    fn comes_to_the_same_end_as_the_way_for_all() {
        let (world, mut random) = (world(), Random(1));
        let mut pool = Pool::new(Frames::new(64, 2048, false).unwrap(), 64);
        let (mut plain_ones, mut finished) = ([0; 2], 0);
        for _ in 0..300_000 {
            let (bytes, from) = (frame(&mut random), IfId(random.below(5) as u16));
            let checksum = [L4Checksum::Complete, L4Checksum::MaybePartial][random.below(2)];
            let (plain, any) = outcomes(&world, &mut pool, (from, checksum), &bytes);
            let Some((next, mut meta, sent)) = plain else { continue };
            plain_ones[usize::from(meta.flags.has(PacketFlags::V6))] += 1;
            finished += usize::from(sent != bytes[..sent.len()]);
            meta.flags.clear(PacketFlags::PLAIN);
            meta.hash = 0;
            let expected = (any.0, format!("{:?}", any.1), any.2);
            assert_eq!((next, format!("{meta:?}"), sent), expected, "{bytes:02x?}");
        }
        assert!(plain_ones.iter().all(|n| *n > 10_000), "{plain_ones:?}");
        assert!(finished > 1_000, "{finished} checksums were");
    }

    #[test]
    fn takes_what_is_plain_and_knows_its_key() {
        let world = world();
        let mut pool = Pool::new(Frames::new(64, 2048, false).unwrap(), 64);
        let link = || PacketBuilder::ethernet2([4; 6], MAC.0);
        let [from, to] =
            [ADDRS_V6[1], ADDRS_V6[0]].map(|addr| addr.parse::<std::net::Ipv6Addr>().unwrap().octets());
        for ip in [link().ipv4(ADDRS[1], ADDRS[0], 64), link().ipv6(from, to, 64)] {
            let mut bytes = vec![];
            ip.udp(4000, 53).write(&mut bytes, b"").unwrap();
            let mut idx = pool.alloc().unwrap();
            let mut packet = pool.get(&mut idx);
            packet.fill(&bytes);
            assert_eq!(judge(&world, &mut packet), Some(ParseNext::Untracked), "if0 has such policy");
            let truth = crate::nodes::world::flow_key(&packet);
            let key = match packet.meta.flags.has(PacketFlags::V6) {
                true => key6(&packet).map(Key6::key),
                false => key4(&packet).map(Key4::key),
            };
            assert!(is_as_it_came(&packet));
            assert_eq!((key, packet.meta.hash), (Some(truth), world.flows.hash(&truth)));
            packet.set_key(truth);
            assert!(!is_as_it_came(&packet));
            pool.free(idx);
        }
    }
}
