//! Every parser on any bytes, against etherparse where both have an opinion.
#![no_main]

use etherparse::{
    ArpEthIpv4Packet, ArpPacketSlice, Ethernet2HeaderSlice, Icmpv4Slice, Icmpv6Slice, IpNumber,
    Ipv4HeaderSlice, Ipv6ExtensionsSlice, Ipv6HeaderSlice, SlicedPacket, TcpHeaderSlice, UdpHeaderSlice,
};
use libfuzzer_sys::fuzz_target;
use margay_dataplane::net::{Addr, Proto};
use margay_dataplane::wire::checksum::Sum;
use margay_dataplane::wire::{Malformed, arp, ethernet, icmp, ip4, ip6, l4, nd};

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else { return };
    match which % 8 {
        0 => link(bytes),
        1 => v4(bytes),
        2 => v6(bytes),
        3 => address_resolution(bytes),
        4 => transport(bytes),
        5 => neighbour(bytes),
        6 => partial(bytes),
        _ => error(bytes),
    }
});

fn link(bytes: &[u8]) {
    let ours = ethernet::Header::parse(bytes);
    let Ok(theirs) = Ethernet2HeaderSlice::from_slice(bytes) else {
        assert_eq!(ours, Err(Malformed::Truncated));
        return;
    };
    if theirs.ether_type().0 == ethernet::VLAN && bytes.len() < 18 {
        assert_eq!(ours, Err(Malformed::Truncated));
        return;
    }
    let ours = ours.expect("long enough");
    assert_eq!((ours.dst.0, ours.src.0), (theirs.destination(), theirs.source()));
    let tagged = theirs.ether_type().0 == ethernet::VLAN;
    assert_eq!(ours.len, if tagged { 18 } else { 14 });
    if !tagged {
        assert_eq!((ours.ether_type, ours.vlan), (theirs.ether_type().0, None));
    }
}

fn v4(bytes: &[u8]) {
    let theirs = Ipv4HeaderSlice::from_slice(bytes);
    match ip4::Header::parse(bytes) {
        Ok(ours) => {
            let theirs = theirs.expect("what we accept is a header");
            assert!(sums_up(theirs.slice()));
            assert_eq!((ours.src.v4_octets(), ours.dst.v4_octets()), (theirs.source(), theirs.destination()));
            assert_eq!((ours.proto.0, ours.ttl), (theirs.protocol().0, theirs.ttl()));
            assert_eq!(ours.len, theirs.slice().len());
            assert_eq!(ours.total_len, usize::from(theirs.total_len()));
            assert_eq!(
                (ours.fragment, ours.dont_fragment),
                (theirs.is_fragmenting_payload(), theirs.dont_fragment())
            );
            assert_eq!(ours.later_fragment, theirs.fragments_offset().value() != 0);

            let mut header = bytes[..ours.len].to_vec();
            if ours.ttl > 1 {
                ip4::decrement_ttl(&mut header);
                let mended = ip4::Header::parse(&header).expect("the checksum is mended");
                assert_eq!(mended, ip4::Header { ttl: ours.ttl - 1, ..ours });
            }
        }
        Err(error) => {
            let Ok(theirs) = theirs else { return };
            let right = sums_up(theirs.slice());
            let plain = theirs.options().is_empty() && usize::from(theirs.total_len()) >= 20;
            assert!(!(right && plain), "refused for {error}");
        }
    }
}

/// The Internet checksum, as RFC 1071 tells it.
fn sums_up(header: &[u8]) -> bool {
    let words = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    // Carries are added at the low end until there are none.
    let folded = |sum: u32| (sum >> 16) + (sum & 0xffff);
    folded(folded(words.sum())) == 0xffff
}

fn v6(bytes: &[u8]) {
    let Ok(ours) = ip6::Header::parse(bytes) else { return };
    let theirs = Ipv6HeaderSlice::from_slice(bytes).expect("what we accept is a header");
    assert_eq!((ours.src.octets(), ours.dst.octets()), (theirs.source(), theirs.destination()));
    assert_eq!(ours.hop_limit, theirs.hop_limit());
    assert_eq!(ours.total_len, 40 + usize::from(theirs.payload_length()));
    assert!(ours.len <= ours.total_len);
    // Kinds that only they walk over, and where only we stop.
    if matches!(ours.proto.0, 135 | 139 | 140 | 253 | 254)
        || ours.later_fragment
        || ours.total_len > bytes.len()
    {
        return;
    }
    let payload = &bytes[40..ours.total_len];
    if let Ok((_, next, rest)) = Ipv6ExtensionsSlice::from_slice(theirs.next_header(), payload) {
        assert_eq!((ours.proto.0, ours.len), (next.0, ours.total_len - rest.len()));
    }
}

fn address_resolution(bytes: &[u8]) {
    let Ok(ours) = arp::Arp::parse(bytes) else { return };
    let theirs = ArpPacketSlice::from_slice(bytes).expect("what we accept is ARP");
    let theirs = ArpEthIpv4Packet::try_from(theirs.to_packet()).expect("for IPv4 over Ethernet");
    assert_eq!((ours.sender_mac.0, ours.target_mac.0), (theirs.sender_mac, theirs.target_mac));
    assert_eq!((ours.sender.v4_octets(), ours.target.v4_octets()), (theirs.sender_ipv4, theirs.target_ipv4));
    assert_eq!(ours.emit(), bytes[..arp::LEN]);
}

fn transport(bytes: &[u8]) {
    if let Ok(theirs) = TcpHeaderSlice::from_slice(bytes) {
        let ours = l4::Header::parse(Proto::TCP, bytes).expect("theirs is a TCP header");
        assert_eq!((ours.sport, ours.dport), (theirs.source_port(), theirs.destination_port()));
        let flags =
            [(0, theirs.fin()), (1, theirs.syn()), (2, theirs.rst()), (3, theirs.psh()), (4, theirs.ack())];
        flags.iter().for_each(|(bit, set)| assert_eq!(ours.tcp_flags >> bit & 1 == 1, *set));
    } else {
        assert!(l4::Header::parse(Proto::TCP, bytes).is_err());
    }
    let udp = UdpHeaderSlice::from_slice(bytes).ok().filter(|theirs| {
        let len = usize::from(theirs.length());
        (8..=bytes.len()).contains(&len)
    });
    match (l4::Header::parse(Proto::UDP, bytes), udp) {
        (Ok(ours), Some(theirs)) => {
            assert_eq!((ours.sport, ours.dport), (theirs.source_port(), theirs.destination_port()));
        }
        (Err(_), None) => {}
        (ours, theirs) => panic!("{ours:?}, {theirs:?}"),
    }
    if let Ok(ours) = l4::Header::parse(Proto::ICMP6, bytes) {
        let theirs = Icmpv6Slice::from_slice(bytes).expect("what we accept is ICMPv6");
        assert_eq!((ours.icmp.kind, ours.icmp.code), (theirs.type_u8(), theirs.code_u8()));
    }
    if let (Ok(ours), Ok(theirs)) = (l4::Header::parse(Proto::ICMP, bytes), Icmpv4Slice::from_slice(bytes)) {
        assert_eq!((ours.icmp.kind, ours.icmp.code), (theirs.type_u8(), theirs.code_u8()));
    }
    for proto in 0..=255 {
        let _ = l4::Header::parse(Proto(proto), bytes);
    }
}

/// Addresses of the input's own, and what is behind them.
fn addresses(bytes: &[u8]) -> Option<(Addr, Addr, &[u8])> {
    let (from, rest) = bytes.split_first_chunk()?;
    let (to, rest) = rest.split_first_chunk()?;
    let (from, to) = (Addr::v6(*from), Addr::v6(*to));
    // A mapped address is IPv4, and has no place in an IPv6 header.
    (!from.is_v4() && !to.is_v4()).then_some((from, to, rest))
}

fn neighbour(bytes: &[u8]) {
    let Some((from, to, message)) = addresses(bytes) else { return };
    // Anybody can compute a checksum.
    let mut message = message.to_vec();
    if let Some(field) = message.get_mut(2..4) {
        field.fill(0);
        let sum = Sum::default().pseudo_header(from, to, Proto::ICMP6, message.len() as u32).bytes(&message);
        message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    }
    let Ok(ours) = nd::Neighbour::parse(from, to, 255, &message) else { return };
    let theirs = Icmpv6Slice::from_slice(&message).expect("what we accept is ICMPv6");
    assert!(theirs.is_checksum_valid(from.octets(), to.octets()));
    assert_eq!((ours.kind, &ours.target.octets()[..]), (theirs.type_u8(), &message[8..24]));
}

fn partial(bytes: &[u8]) {
    let Some((from, to, segment)) = addresses(bytes) else { return };
    for proto in [Proto::TCP, Proto::UDP] {
        let mut segment = segment.to_vec();
        // A super-frame's sum is computed when it is cut; no segment here is one.
        segment.truncate(65_535);
        if l4::repair_partial_checksum(from, to, proto, &mut segment) {
            let len = match proto {
                Proto::UDP => usize::from(u16::from_be_bytes([segment[4], segment[5]])),
                _ => segment.len(),
            };
            if len == segment.len() {
                let sum = Sum::default().pseudo_header(from, to, proto, len as u32).bytes(&segment);
                assert_eq!(sum.folded(), 0xffff);
            }
        }
    }
}

fn error(bytes: &[u8]) {
    let Some((&[kind, high, low], offending)) = bytes.split_first_chunk() else { return };
    let error = [
        icmp::Error::TimeExceeded,
        icmp::Error::NoRoute,
        icmp::Error::HostUnreachable,
        icmp::Error::TooBig(u16::from_be_bytes([high, low])),
    ][usize::from(kind) % 4];
    let ends = [
        (Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2])),
        (Addr::from_bits(0xfd << 120 | 1), Addr::from_bits(0xfd << 120 | 2)),
    ];
    for (from, to) in ends {
        let mut out = [0; icmp::MAX_ERROR_V6];
        let len = icmp::emit_error(error, from, to, offending, &mut out).expect("room for any error");
        let theirs = SlicedPacket::from_ip(&out[..len]).expect("a well-formed packet");
        let expected = if from.is_v4() { IpNumber::ICMP } else { IpNumber::IPV6_ICMP };
        assert_eq!(theirs.net.and_then(|net| net.ip_payload_ref().map(|ip| ip.ip_number)), Some(expected));
    }
}
