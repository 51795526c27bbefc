use super::super::checksum::Sum;
use super::*;
use crate::net::Addr;
use proptest::prelude::*;

/// One of each kind of transport header; ICMP is that of the packet's family.
const PROTOS: [Proto; 7] =
    [Proto::TCP, Proto::UDP, Proto::UDPLITE, Proto::SCTP, DCCP, Proto(47), Proto::ICMP];

/// A packet with the key, all of it written and summed from scratch.
fn build(key: &FlowKey, kind: u8, payload: &[u8]) -> Vec<u8> {
    let ports = port_bytes(key);
    let mut transport = match key.proto {
        Proto::TCP => [&ports[..], &[1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 1, 0, 0, 0, 0, 0]].concat(),
        Proto::UDP => [&ports[..], &(8 + payload.len() as u16).to_be_bytes(), &[0, 0]].concat(),
        Proto::UDPLITE => [&ports[..], &[0, 0, 0, 0]].concat(),
        Proto::SCTP => [&ports[..], &[9, 9, 9, 9, 0, 0, 0, 0]].concat(),
        Proto::ICMP | Proto::ICMP6 => {
            let id = key.sport.to_be_bytes();
            vec![kind, 0, 0, 0, id[0], id[1], 0, 0]
        }
        _ => vec![0; 12],
    };
    transport.extend(payload);
    let v6 = !key.src.is_v4();
    let pseudo = match key.proto {
        Proto::ICMP => Sum::default(),
        _ => Sum::default().pseudo_header(key.src, key.dst, key.proto, transport.len() as u32),
    };
    let sum = pseudo.bytes(&transport).finish();
    let at = match key.proto {
        Proto::TCP => Some(16),
        Proto::UDP | Proto::UDPLITE | DCCP => Some(6),
        Proto::ICMP | Proto::ICMP6 => Some(2),
        _ => None,
    };
    if let Some(at) = at {
        let none = sum == 0 && matches!(key.proto, Proto::UDP | Proto::UDPLITE);
        transport[at..at + 2].copy_from_slice(&if none { [0xff; 2] } else { sum.to_be_bytes() });
    }
    if key.proto == Proto::SCTP {
        let sum = crc32c::of_sctp(&transport).to_le_bytes();
        transport[8..12].copy_from_slice(&sum);
    }
    let mut packet = match v6 {
        true => ip6::emit(key.src, key.dst, key.proto, 64, transport.len()).to_vec(),
        false => ip4::emit(key.src, key.dst, key.proto, 64, transport.len()).to_vec(),
    };
    packet.extend(transport);
    packet
}

fn headers(key: &FlowKey, part: Part) -> Headers {
    let v6 = !key.src.is_v4();
    Headers { v6, proto: key.proto, l4: header_len(v6), part }
}

/// Two keys of one protocol and family, as a packet may be translated from and to.
fn keys() -> impl Strategy<Value = (FlowKey, FlowKey)> {
    let addr = |v6| {
        any::<[u8; 16]>().prop_map(move |bytes| match v6 {
            true => Addr::v6(bytes),
            false => Addr::v4([bytes[0], bytes[1], bytes[2], bytes[3]]),
        })
    };
    (any::<bool>(), 0..PROTOS.len()).prop_flat_map(move |(v6, which)| {
        let proto = match PROTOS[which] {
            Proto::ICMP if v6 => Proto::ICMP6,
            proto => proto,
        };
        let key = move |(src, dst, sport, dport)| match proto {
            proto if proto.has_ports() => FlowKey { src, dst, sport, dport, proto },
            proto if proto.is_icmp() => FlowKey { src, dst, sport, dport: sport, proto },
            proto => FlowKey { src, dst, sport: 0, dport: 0, proto },
        };
        let one = || (addr(v6), addr(v6), any::<u16>(), any::<u16>()).prop_map(key);
        (one(), one())
    })
}

fn echo_kind(key: &FlowKey, reply: bool) -> u8 {
    match (key.proto, reply) {
        (Proto::ICMP6, reply) => 128 + u8::from(reply),
        (_, true) => 0,
        (_, false) => 8,
    }
}

proptest! {
    #[test]
    fn a_translated_packet_is_as_if_it_had_been_sent_so(
        (from, to) in keys(),
        payload in proptest::collection::vec(0u8.., 0..64),
        reply: bool,
    ) {
        let kind = echo_kind(&from, reply);
        let mut packet = build(&from, kind, &payload);
        prop_assert!(translate(&mut packet, headers(&from, Part::Whole), &to));
        prop_assert_eq!(&packet, &build(&to, kind, &payload));
        prop_assert!(translate(&mut packet, headers(&to, Part::Whole), &to));
        prop_assert_eq!(&packet, &build(&to, kind, &payload), "twice");
        prop_assert!(translate(&mut packet, headers(&to, Part::Whole), &from));
        prop_assert_eq!(&packet, &build(&from, kind, &payload), "back");
    }

    #[test]
    fn damage_is_neither_hidden_nor_done(
        (from, to) in keys(),
        payload in proptest::collection::vec(0u8.., 1..64),
        flip in 1u8..,
    ) {
        let kind = echo_kind(&from, false);
        let mut packet = build(&from, kind, &payload);
        let mut wanted = build(&to, kind, &payload);
        for packet in [&mut packet, &mut wanted] {
            *packet.last_mut().unwrap() ^= flip;
        }
        prop_assert!(translate(&mut packet, headers(&from, Part::Whole), &to));
        prop_assert_eq!(packet, wanted);
    }

    #[test]
    fn fragments_make_up_the_translated_packet(
        (from, to) in keys(),
        payload in proptest::collection::vec(0u8.., 64),
    ) {
        prop_assume!(from.proto != Proto::SCTP || port_bytes(&from) == port_bytes(&to));
        let kind = echo_kind(&from, false);
        let (whole, wanted) = (build(&from, kind, &payload), build(&to, kind, &payload));
        let l4 = headers(&from, Part::Whole).l4;
        let cut = l4 + 24;
        let mut first = whole[..cut].to_vec();
        prop_assert!(translate(&mut first, headers(&from, Part::First), &to));
        let mut later = [&whole[..l4], &whole[cut..]].concat();
        prop_assert!(translate(&mut later, headers(&from, Part::Later), &to));
        prop_assert_eq!(&later[..l4], &first[..l4]);
        prop_assert_eq!([&first[..], &later[l4..]].concat(), wanted);
    }

    /// Whoever sent the packet is told of it in its own words.
    #[test]
    fn an_error_is_as_if_it_were_about_the_packet_that_was_sent(
        (from, to) in keys(),
        payload in proptest::collection::vec(0u8.., 64),
        by_destination: bool,
    ) {
        prop_assume!(from.proto != Proto::SCTP, "nobody sums an SCTP packet that is quoted");
        let v6 = !from.src.is_v4();
        let router = if v6 { Addr::v6([7; 16]) } else { Addr::v4([7; 4]) };
        let error = |about: &FlowKey| {
            let source = if by_destination { about.dst } else { router };
            let mut out = [0; icmp::MAX_ERROR_V6];
            let packet = build(about, echo_kind(about, false), &payload);
            let len = icmp::emit_error(icmp::Error::TooBig(1400), source, about.src, &packet, &mut out);
            out[..len.unwrap()].to_vec()
        };
        let mut packet = error(&from);
        prop_assert!(translate_error(&mut packet, v6, header_len(v6), &from, &to));
        prop_assert_eq!(packet, error(&to));
    }

    #[test]
    fn what_is_cut_off_is_refused_or_translated_but_never_a_panic(
        (from, to) in keys(),
        payload in proptest::collection::vec(0u8.., 0..40),
        len in 0usize..140,
        quoted: bool,
    ) {
        let v6 = !from.src.is_v4();
        let mut packet = build(&from, echo_kind(&from, false), &payload);
        if quoted {
            let mut out = [0; icmp::MAX_ERROR_V6];
            let all = icmp::emit_error(icmp::Error::NoRoute, from.dst, from.src, &packet, &mut out).unwrap();
            packet = out[..all.min(len)].to_vec();
            translate_error(&mut packet, v6, header_len(v6), &from, &to);
        } else {
            packet.truncate(len);
            let before = packet.clone();
            if !translate(&mut packet, headers(&from, Part::Whole), &to) {
                prop_assert_eq!(packet, before);
            }
        }
    }
}

fn udp(src: &str, dst: &str, sport: u16, dport: u16) -> FlowKey {
    FlowKey { src: src.parse().unwrap(), dst: dst.parse().unwrap(), sport, dport, proto: Proto::UDP }
}

#[test]
fn a_datagram_without_a_checksum_gets_none() {
    for (from, to) in [
        (udp("10.0.0.1", "10.0.0.2", 1, 2), udp("192.0.2.1", "10.0.0.2", 3, 2)),
        (udp("fd00::1", "fd00::2", 1, 2), udp("2001:db8::1", "fd00::2", 3, 2)),
    ] {
        let mut packet = build(&from, 0, b"payload");
        let at = header_len(!from.src.is_v4()) + 6;
        packet[at..at + 2].fill(0);
        assert!(translate(&mut packet, headers(&from, Part::Whole), &to));
        assert_eq!(packet[at..at + 2], [0, 0]);
    }
}

/// The datagram whose sum is zero says 0xffff, which zero would unsay.
#[test]
fn a_checksum_never_becomes_none() {
    let from = udp("10.0.0.1", "10.0.0.2", 1000, 2000);
    let mut seen = 0;
    for sport in 0..=u16::MAX {
        let to = FlowKey { sport, ..from };
        let mut packet = build(&from, 0, b"");
        assert!(translate(&mut packet, headers(&from, Part::Whole), &to));
        assert_ne!(packet[26..28], [0, 0]);
        seen += u32::from(packet[26..28] == [0xff, 0xff]);
    }
    assert_eq!(seen, 1, "among all ports one makes the sum zero");
}

#[test]
fn sctp_ports_change_only_where_the_whole_packet_is_there() {
    let from = FlowKey { proto: Proto::SCTP, ..udp("10.0.0.1", "10.0.0.2", 1, 2) };
    let mut packet = build(&from, 0, &[5; 40]);
    let moved = FlowKey { src: Addr::v4([192, 0, 2, 1]), ..from };
    assert!(translate(&mut packet, headers(&from, Part::First), &moved), "its addresses are not summed");
    let before = packet.clone();
    assert!(!translate(&mut packet, headers(&from, Part::First), &FlowKey { sport: 9, ..moved }));
    assert_eq!(packet, before);
}

#[test]
fn an_error_about_another_packet_is_refused() {
    let (from, to) = (udp("10.0.0.1", "10.0.0.2", 1, 2), udp("192.0.2.1", "10.0.0.2", 3, 2));
    let mut out = [0; 100];
    let len =
        icmp::emit_error(icmp::Error::NoRoute, from.dst, from.src, &build(&from, 0, b"x"), &mut out).unwrap();
    let before = out;
    assert!(!translate_error(&mut out[..len], false, 20, &to, &from));
    assert_eq!(out, before);
}
