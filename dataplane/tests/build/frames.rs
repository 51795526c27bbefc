//! Frames of every kind, each with the interface of the standard node it would come by.

use super::*;
use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type};
use margay_dataplane::net::{FlowKey, Proto};
use margay_dataplane::wire::{arp, checksum::Sum, ethernet, icmp, ip4, ip6, nd, vxlan};

/// A frame with this body.
pub fn ether(from: Mac, to: Mac, vlan: Option<u16>, kind: u16, body: &[u8]) -> Vec<u8> {
    [ethernet::Prebuilt::new(to, from, vlan, kind).as_slice(), body].concat()
}

/// The same frame with a VLAN tag.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &ethernet::VLAN.to_be_bytes(), &vlan.to_be_bytes(), &frame[12..]].concat()
}

pub fn arp(from_mac: Mac, operation: arp::Operation, sender: &str, target: &str) -> Vec<u8> {
    let message = arp::Arp {
        operation,
        sender_mac: from_mac,
        sender: addr(sender),
        target_mac: Mac::default(),
        target: addr(target),
    };
    ether(from_mac, Mac::BROADCAST, None, ethernet::ARP, &message.emit())
}

/// Asks for `target`.
pub fn solicit(from_mac: Mac, from: &str, target: &str) -> Vec<u8> {
    let (packet, group) = nd::solicitation(addr(target), addr(from), from_mac);
    ether(from_mac, group, None, ethernet::IPV6, &packet)
}

/// Tells `to` that `target` is at `from_mac`.
pub fn advertise(from_mac: Mac, to_mac: Mac, target: &str, to: &str) -> Vec<u8> {
    ether(from_mac, to_mac, None, ethernet::IPV6, &nd::advertisement(addr(target), from_mac, addr(to)))
}

/// An echo request, or the reply to it, of either version.
pub fn echo(from_mac: Mac, to_mac: Mac, from: &str, to: &str, reply: bool) -> Vec<u8> {
    let header = IcmpEchoHeader { id: 77, seq: 1 };
    let (mut out, step) = (vec![], ip(from_mac, to_mac, from, to, 64));
    let body = b"how are you?";
    if addr(from).is_v4() {
        let kind = if reply { Icmpv4Type::EchoReply(header) } else { Icmpv4Type::EchoRequest(header) };
        step.icmpv4(kind).write(&mut out, body).unwrap();
    } else {
        let kind = if reply { Icmpv6Type::EchoReply(header) } else { Icmpv6Type::EchoRequest(header) };
        step.icmpv6(kind).write(&mut out, body).unwrap();
    }
    out
}

/// No such port, about the frame `about`.
pub fn port_unreachable(from_mac: Mac, to_mac: Mac, from: &str, to: &str, about: &[u8]) -> Vec<u8> {
    let (mut out, step) = (vec![], ip(from_mac, to_mac, from, to, 64));
    let quote = &about[14..];
    if addr(from).is_v4() {
        let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
        step.icmpv4(kind).write(&mut out, quote).unwrap();
    } else {
        let kind = Icmpv6Type::DestinationUnreachable(etherparse::icmpv6::DestUnreachableCode::Port);
        step.icmpv6(kind).write(&mut out, quote).unwrap();
    }
    out
}

/// An IP packet of `proto` with these bytes behind its header, and for IPv6 its extensions.
pub fn raw(from_mac: Mac, to_mac: Mac, from: &str, to: &str, proto: Proto, ttl: u8, body: &[u8]) -> Vec<u8> {
    let (src, dst) = (addr(from), addr(to));
    if src.is_v4() {
        let header = ip4::emit(src, dst, proto, ttl, body.len());
        ether(from_mac, to_mac, None, ethernet::IPV4, &[&header[..], body].concat())
    } else {
        let header = ip6::emit(src, dst, proto, ttl, body.len());
        ether(from_mac, to_mac, None, ethernet::IPV6, &[&header[..], body].concat())
    }
}

/// The frame by which node `from` would carry the IP packet to this node, with this outer traffic class: by VXLAN
/// of a network, or else by IPIP.
pub fn carried(network: Option<u32>, from: &str, to: &str, inner: &[u8], class: u8) -> Vec<u8> {
    let v4 = addr(to).is_v4();
    let (proto, body) = match network {
        None => (Proto::IPIP, inner.to_vec()),
        Some(network) => {
            let kind = if v4 { ethernet::IPV4 } else { ethernet::IPV6 };
            let frame = ether(FAR_VTEP_MAC, VTEP_MAC, None, kind, inner);
            let udp = [50_000, 4789, (16 + frame.len()) as u16, 0].map(u16::to_be_bytes).concat();
            (Proto::UDP, [&udp[..], &vxlan::emit(network), &frame].concat())
        }
    };
    classed(raw(PEER_MAC, UPLINK_MAC, from, to, proto, 64, &body), class)
}

/// The frame with another traffic class of its IP packet.
pub fn classed(mut frame: Vec<u8>, class: u8) -> Vec<u8> {
    if frame[14] >> 4 == 6 {
        frame[14] = 0x60 | class >> 4;
        frame[15] = frame[15] & 0xf | class << 4;
        return frame;
    }
    patched(frame, 1, &[class])
}

/// What a router says of the packet of a frame that left by the uplink: its way takes `mtu` bytes.
pub fn too_big(mtu: u16, about: &[u8]) -> Vec<u8> {
    let v6 = about[12..14] == ethernet::IPV6.to_be_bytes();
    let (router, to) = if v6 { ("fd00::77", "fd00::1") } else { ("192.168.0.77", "192.168.0.1") };
    let mut out = [0; icmp::MAX_ERROR_V6];
    let len = icmp::emit_error(icmp::Error::TooBig(mtu), addr(router), addr(to), &about[14..], &mut out);
    let kind = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
    ether(PEER_MAC, UPLINK_MAC, None, kind, &out[..len.expect("there is room")])
}

/// One frame of every kind that has to do with tunnels, as `tunnel_changes` has them.
pub fn every_kind_of_tunnel() -> Vec<(&'static str, Vec<u8>)> {
    let mut kinds = vec![];
    for (far, near, net, from, to) in [
        ("192.168.0.2", "192.168.0.1", None, "10.66.1.9", "10.65.0.1"),
        ("192.168.0.2", "192.168.0.1", Some(4096), "10.67.1.9", "10.65.0.1"),
        ("fd00::2", "fd00::1", Some(4096), "fd67:1::9", "fd65::1"),
    ] {
        let stranger = if addr(far).is_v4() { "192.168.0.9" } else { "fd00::9" };
        let inner = udp(PEER_MAC, UPLINK_MAC, from, to, 53, 4000)[14..].to_vec();
        let whole = carried(net, far, near, &inner, 0);
        let mut cut = whole.clone();
        cut[42] ^= 8;
        let dying =
            raw(PEER_MAC, UPLINK_MAC, from, to, Proto::UDP, 1, &[0, 1, 0, 53, 0, 8, 0, 0])[14..].to_vec();
        kinds.extend([
            ("eth0", whole.clone()),
            ("eth0", cut),
            ("eth0", carried(net, stranger, near, &inner, 0)),
            ("eth0", carried(net.map(|n| n + 1), far, near, &inner, 0)),
            ("eth0", carried(net, far, near, &inner, 3)),
            ("eth0", carried(net, far, near, &dying, 0)),
            ("eth0", carried(net, far, near, &tcp(PEER_MAC, UPLINK_MAC, from, to, 80, 1, "S")[14..], 0)),
            ("cali1", udp(workload_mac(1), gateway_mac(), to, from, 4000, 53)),
            ("cali1", tcp(workload_mac(1), gateway_mac(), to, from, 4000, 80, "S")),
        ]);
        let mut long = vec![];
        let step = ip(workload_mac(1), gateway_mac(), to, from, 64);
        step.udp(4000, 53).write(&mut long, &[0; 1440]).unwrap();
        // As it would leave, for a router to quote.
        let left = carried(net, near, far, &long[14..], 0);
        kinds.extend([("eth0", too_big(1400, &left)), ("cali1", long.clone())]);
        if addr(far).is_v4() {
            kinds.extend([("eth0", patched(whole, 6, &[0x20, 0])), ("cali1", patched(long, 6, &[0x40, 0]))]);
        }
    }
    kinds
}

/// Changes bytes of an IPv4 header and mends its checksum.
pub fn patched(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
    mend(&mut frame);
    frame
}

/// Makes the IPv4 checksum right, where there is a whole header.
pub fn mend(frame: &mut [u8]) {
    let len = frame.get(14).map_or(0, |byte| usize::from(byte & 0xf) * 4);
    if let Some(header) = frame.get_mut(14..14 + len.max(20)) {
        header[10..12].fill(0);
        let sum = Sum::default().bytes(header).finish();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The fragments, of `size` bytes each but the last, that a sender would cut the frame's packet into.
pub fn cut(frame: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let header_len = if frame[14] >> 4 == 4 { 34 } else { 54 };
    let pieces = frame[header_len..].chunks(size);
    let last = pieces.len() - 1;
    pieces.enumerate().map(|(n, piece)| fragment(frame, id, n * size, piece, n == last)).collect()
}

/// A fragment of the frame's packet: `piece`, from byte `start` on of what is cut.
pub fn fragment(frame: &[u8], id: u16, start: usize, piece: &[u8], last: bool) -> Vec<u8> {
    if frame[14] >> 4 == 4 {
        let field = (start / 8) as u16 | if last { 0 } else { 0x2000 };
        let out = [&frame[..34], piece].concat();
        let out = patched(out, 2, &(20 + piece.len() as u16).to_be_bytes());
        let out = patched(out, 4, &id.to_be_bytes());
        return patched(out, 6, &field.to_be_bytes());
    }
    let [high, low] = (start as u16 | u16::from(!last)).to_be_bytes();
    let [id_high, id_low] = id.to_be_bytes();
    let mut header = frame[..54].to_vec();
    header[18..20].copy_from_slice(&(8 + piece.len() as u16).to_be_bytes());
    let proto = std::mem::replace(&mut header[20], FRAGMENT.0);
    [&header[..], &[proto, 0, high, low, 0, 0, id_high, id_low], piece].concat()
}

/// The first header behind IPv6's, with what is behind it.
const HOP_BY_HOP: Proto = Proto(0);
const ROUTING: Proto = Proto(43);
const FRAGMENT: Proto = Proto(44);
const AUTHENTICATION: Proto = Proto(51);
const DESTINATION: Proto = Proto(60);

/// One frame of every kind that is told apart anywhere, and of some that are not.
pub fn every_kind() -> Vec<(&'static str, Vec<u8>)> {
    use arp::Operation::{Reply, Request};
    let (w1, w2, w3, gw) = (workload_mac(1), workload_mac(2), workload_mac(3), gateway_mac());
    let (a4, b4, c4) = ("10.65.0.1", "10.65.0.2", "10.65.0.3");
    let (a6, b6, c6) = ("fd65::1", "fd65::2", "fd65::3");
    let (far4, far6) = ("10.65.1.9", "fd65:1::9");
    let there =
        |to, proto, body: &[u8]| raw(w1, gw, if addr(to).is_v4() { a4 } else { a6 }, to, proto, 64, body);
    let udp_header = [0x0f, 0xa0, 0, 53, 0, 8, 0, 0];
    let sctp_init = [
        0x0f, 0xa0, 0, 80, 0, 0, 0, 0, 1, 2, 3, 4, 1, 0, 0, 20, 9, 9, 9, 9, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0,
        0, 0, 1,
    ];
    let extended = |first: Proto, extensions: &[u8]| there(b6, first, &[extensions, &udp_header].concat());
    let options = |len: u8, kind: u8| {
        let frame = there(b4, Proto::UDP, &[&[kind, 3, 4, 0], &udp_header[..]].concat());
        patched(frame, 0, &[len])
    };
    let mut big4 = vec![0; 1560];
    big4[..8].copy_from_slice(&[0x0f, 0xa0, 0, 53, 6, 24, 0, 0]);
    let mut advertisement = solicit(w1, "fe80::1", "fd65::2");
    advertisement[54] = nd::ROUTER_ADVERTISEMENT;

    let mut kinds = vec![
        ("cali1", udp_from(1, b4, 53)),
        ("cali1", udp_from(1, b6, 53)),
        ("cali1", udp_from(1, far4, 53)),
        ("cali1", udp_from(1, far6, 53)),
        ("cali2", udp(w2, gw, b4, a4, 53, 4000)),
        ("cali2", udp(w2, gw, b6, a6, 53, 4000)),
        ("eth0", udp(PEER_MAC, UPLINK_MAC, far4, a4, 53, 4000)),
        ("eth0", udp(PEER_MAC, UPLINK_MAC, far6, a6, 53, 4000)),
        ("eth0", udp(PEER_MAC, UPLINK_MAC, far4, c4, 53, 4000)),
        ("cali1", echo(w1, gw, a4, b4, false)),
        ("cali2", echo(w2, gw, b4, a4, true)),
        ("cali1", echo(w1, gw, a6, b6, false)),
        ("cali2", echo(w2, gw, b6, a6, true)),
        ("cali2", port_unreachable(w2, gw, b4, a4, &udp_from(1, b4, 53))),
        ("cali2", port_unreachable(w2, gw, b6, a6, &udp_from(1, b6, 53))),
        ("eth0", arp(PEER_MAC, Request, "192.168.0.2", "192.168.0.1")),
        ("eth0", arp(PEER_MAC, Reply, "192.168.0.2", "192.168.0.1")),
        ("cali1", arp(w1, Request, a4, "169.254.1.1")),
        ("cali1", arp(w1, Request, "0.0.0.0", a4)),
        ("cali1", arp(w1, Request, b4, "169.254.1.1")),
        ("cali1", solicit(w1, a6, "fe80::ecee:eeff:feee:eeee")),
        ("cali1", solicit(w1, a6, b6)),
        ("eth0", solicit(PEER_MAC, "fd00::2", "fd00::1")),
        ("eth0", advertise(PEER_MAC, UPLINK_MAC, "fd00::2", "fd00::1")),
        ("cali1", advertise(w1, gw, b6, "fd00::1")),
        ("cali1", advertisement),
        ("cali1", extended(HOP_BY_HOP, &[17, 0, 1, 4, 0, 0, 0, 0])),
        ("cali1", extended(DESTINATION, &[17, 0, 1, 4, 0, 0, 0, 0])),
        ("cali1", extended(ROUTING, &[17, 0, 2, 0, 0, 0, 0, 0])),
        ("cali1", extended(ROUTING, &[17, 0, 0, 0, 0, 0, 0, 0])),
        ("cali1", extended(FRAGMENT, &[17, 0, 0, 0, 0, 0, 0, 1])),
        ("cali1", extended(FRAGMENT, &[17, 0, 0, 9, 0, 0, 0, 1])),
        ("cali1", extended(AUTHENTICATION, &[17, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0])),
        ("cali1", extended(DESTINATION, &[[60, 0, 1, 4, 0, 0, 0, 0]; 9].concat())),
        ("cali1", options(0x46, 1)),
        ("cali1", options(0x46, 131)),
        ("cali1", patched(udp_from(1, b4, 53), 6, &[0x20, 0])),
        ("cali1", patched(udp_from(1, b4, 53), 6, &[0, 100])),
        ("cali1", there(b4, Proto::UDP, &big4)),
        ("cali1", patched(there(b4, Proto::UDP, &big4), 6, &[0x40, 0])),
        ("cali1", there(b6, Proto::UDP, &big4[..1500])),
        ("cali1", there(b4, Proto::SCTP, &sctp_init)),
        ("cali1", there(b6, Proto::SCTP, &sctp_init)),
        ("cali1", there(b4, Proto::UDPLITE, &udp_header)),
        ("cali1", there(b4, Proto::IPIP, &[0x45; 20])),
        ("cali1", there(b4, Proto(253), b"experiment")),
        ("cali1", there(b6, Proto(59), b"")),
        ("cali1", raw(w1, gw, a4, b4, Proto::UDP, 1, &udp_header)),
        ("cali1", raw(w1, gw, a6, b6, Proto::UDP, 1, &udp_header)),
        ("cali1", udp_from(1, b4, 4789)),
        ("cali1", udp_from(1, "8.8.8.8", 53)),
        ("cali1", udp_from(1, "2001:db8::1", 53)),
        ("cali1", udp_from(1, "10.65.0.99", 53)),
        ("cali1", udp_from(1, "192.168.0.1", 53)),
        ("cali1", udp_from(1, "127.0.0.1", 53)),
        ("cali1", udp_from(1, "224.0.0.5", 53)),
        ("cali1", udp_from(1, "255.255.255.255", 53)),
        ("cali1", udp_from(1, "ff02::1", 53)),
        ("cali1", udp(w1, gw, b4, c4, 53, 53)),
        ("cali1", udp(w1, w3, a4, b4, 53, 53)),
        ("eth0", tagged(&udp(PEER_MAC, UPLINK_MAC, far4, a4, 53, 4001), 100)),
        ("eth0", tagged(&udp(PEER_MAC, UPLINK_MAC, far4, a4, 53, 4002), 101)),
        ("eth0", tagged(&udp(PEER_MAC, UPLINK_MAC, far4, a4, 53, 4003), 0)),
        ("eth0", tagged(&tagged(&udp(PEER_MAC, UPLINK_MAC, far4, a4, 53, 4003), 7), 100)),
        ("eth0", tagged(&arp(PEER_MAC, Request, "172.16.0.2", "172.16.0.1"), 100)),
        ("eth0", ether(PEER_MAC, Mac([1, 0x80, 0xc2, 0, 0, 0]), None, 38, &[0x42; 46])),
    ];
    for flags in ["S", "A", "FA", "R", "", "SF"] {
        kinds.push(("cali1", tcp_from(1, c4, 4000, 80, flags)));
        kinds.push(("cali1", tcp_from(1, c6, 4000, 80, flags)));
        kinds.push(("cali1", tcp_from(1, c4, 4000, 81, flags)));
    }
    for flags in ["SA", "A", "FA", "R"] {
        kinds.push(("cali3", tcp_from(3, a4, 80, 4000, flags)));
        kinds.push(("cali3", tcp_from(3, a6, 80, 4000, flags)));
    }
    // An error of our own making, that comes back.
    let mut error = [0; icmp::MAX_ERROR_V6];
    let about = udp(PEER_MAC, UPLINK_MAC, a4, far4, 4000, 53);
    if let Some(len) = icmp::emit_error(
        icmp::Error::HostUnreachable,
        addr("192.168.0.2"),
        addr(a4),
        &about[14..],
        &mut error,
    ) {
        kinds.push(("eth0", ether(PEER_MAC, UPLINK_MAC, None, ethernet::IPV4, &error[..len])));
    }
    kinds
}

/// The flow of an IPv4 UDP frame without options.
pub fn key_of(frame: &[u8]) -> FlowKey {
    let addr = |at: usize| Addr::from_slice(&frame[at..at + 4]).unwrap();
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    FlowKey { src: addr(26), dst: addr(30), sport: port(34), dport: port(36), proto: Proto::UDP }
}

/// The packet, from its IP header on, a hop further.
pub fn aged(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
    } else {
        ip4::decrement_ttl(&mut packet);
    }
    packet
}
