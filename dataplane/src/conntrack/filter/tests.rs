use super::{Filter, Side, Term};
use crate::conntrack::{Exchange, State, TcpState};
use crate::net::{Addr, FlowKey, PortRange, Prefix, Proto};
use proptest::prelude::*;

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

fn endpoint(name: &str) -> Option<Vec<Prefix>> {
    (name == "shop/web").then(|| vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()])
}

fn parse(text: &str) -> Filter {
    Filter::parse(text, endpoint).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn key(proto: Proto, src: (&str, u16), dst: (&str, u16)) -> FlowKey {
    FlowKey { src: addr(src.0), dst: addr(dst.0), sport: src.1, dport: dst.1, proto }
}

fn is(text: &str, key: FlowKey, reply: FlowKey, state: State) -> bool {
    parse(text).matches(&key, &reply, state)
}

const ESTABLISHED: State = State::Tcp(TcpState::Established);

#[test]
fn words_mean_what_they_mean_to_tcpdump() {
    let web = key(Proto::TCP, ("10.0.0.1", 4000), ("10.0.0.2", 80));
    let yes = [
        "",
        "  ",
        "tcp",
        "not udp",
        "! udp",
        "!udp",
        "not not tcp",
        "host 10.0.0.1",
        "10.0.0.1",
        "src 10.0.0.1",
        "src host 10.0.0.1",
        "dst 10.0.0.0/8",
        "dst net 10.0.0.2",
        "src or dst 10.0.0.2",
        "dst or src port 80",
        "src or src port 4000",
        "net 10.0.0.0/31",
        "port 80",
        "port 4000",
        "src port 4000",
        "dst port 80",
        "portrange 80-81",
        "dst portrange 0-80",
        "tcp port 80",
        "tcp dst port 80",
        "ip",
        "ip host 10.0.0.1",
        "ip tcp port 80",
        "ip proto 6",
        "proto TCP",
        "state established",
        "endpoint shop/web",
        "dst endpoint shop/web",
        "port 53 or 80",
        "host 10.0.0.9 or 10.0.0.1",
        "state closed or established",
        "proto 17 or 6",
        "(tcp) and (not (port 22))",
        "tcp&&port 80||udp",
        "tcp && port 80 || udp",
        // From left to right: (udp and port 53 or tcp) and port 80.
        "udp and port 53 or tcp and port 80",
    ];
    for text in yes {
        assert!(is(text, web, web.reversed(), ESTABLISHED), "{text}");
    }
    let no = [
        "udp",
        "not tcp",
        "ip6",
        "nat",
        "src 10.0.0.2",
        "dst host 10.0.0.1",
        "src port 80",
        "portrange 81-3999",
        "state closed",
        "src endpoint shop/web",
        "udp port 80",
        "ip6 tcp",
        "icmp or sctp or icmp6 or udplite",
        // From left to right: (tcp or udp) and port 53.
        "tcp or udp and port 53",
    ];
    for text in no {
        assert!(!is(text, web, web.reversed(), ESTABLISHED), "{text}");
    }
}

#[test]
fn a_translated_session_is_found_by_what_it_was_and_by_what_it_became() {
    let virtual_ip = key(Proto::UDP, ("10.0.0.1", 4000), ("10.96.0.10", 53));
    // Sent to a backend, from the node's address.
    let reply = key(Proto::UDP, ("10.0.0.2", 5353), ("192.0.2.1", 61000));
    let state = State::Udp(Exchange::Replied);
    for text in [
        "nat",
        "dst 10.96.0.10 and dst port 53",
        "dst endpoint shop/web and dst port 5353",
        "src 10.0.0.1 and src port 4000",
        "src 192.0.2.1 and src port 61000",
    ] {
        assert!(is(text, virtual_ip, reply, state), "{text}");
    }
    for text in ["not nat", "src 10.0.0.2", "dst 192.0.2.1", "dst port 61000"] {
        assert!(!is(text, virtual_ip, reply, state), "{text}");
    }
}

#[test]
fn identifiers_of_icmp_are_no_ports() {
    let echo = key(Proto::ICMP, ("10.0.0.1", 80), ("10.0.0.2", 80));
    assert!(!is("port 80", echo, echo.reversed(), State::Udp(Exchange::Replied)));
    assert!(is("not port 80 and icmp", echo, echo.reversed(), State::Udp(Exchange::Replied)));
}

#[test]
fn what_is_wrong_is_pointed_at() {
    let wrong = [
        ("tcp and portt 80", 8, "portt", "it is no word of a filter"),
        ("tcp and", 7, "", "a term is missing"),
        ("tcp udp", 4, "udp", "it follows a whole term"),
        ("host 10.0.0.1 port 80", 14, "port", "it follows a whole term"),
        ("(tcp", 4, "", "a parenthesis is open"),
        ("(tcp udp)", 5, "udp", "a parenthesis is open"),
        ("tcp)", 3, ")", "no parenthesis is open"),
        ("()", 1, ")", "it is no word of a filter"),
        ("host 10.0.0.300", 5, "10.0.0.300", "it is not an address"),
        ("host 10.0.0.0/8", 5, "10.0.0.0/8", "an address has no length"),
        ("host web", 5, "web", "it is not an address"),
        ("host", 4, "", "an address is missing"),
        ("host and tcp", 5, "and", "an address is missing"),
        ("net 10.0.0.1/8", 4, "10.0.0.1/8", "bits set behind its length"),
        ("net 10.0.0.0/33", 4, "10.0.0.0/33", "larger than 32"),
        ("port http", 5, "http", "it is not a port from 0 to 65535"),
        ("port 65536", 5, "65536", "it is not a port from 0 to 65535"),
        ("port 80-90", 5, "80-90", "a port is one number"),
        ("port 80 or http", 11, "http", "it is no word of a filter"),
        ("portrange 90-80", 10, "90-80", "its first port is above its last"),
        ("portrange 90", 10, "90", "it is not a range of ports"),
        ("state open", 6, "open", "no session is ever in such a state"),
        ("proto foo", 6, "foo", "is not a protocol"),
        ("icmp port 80", 5, "port", "icmp has no ports"),
        ("src tcp", 4, "tcp", "src and dst are of an address or a port"),
        ("src", 3, "", "src and dst are of an address or a port"),
        ("src state established", 4, "state", "src and dst are of an address or a port"),
        ("tcp & udp", 4, "&", "it follows a whole term"),
        ("tcp and ü", 8, "ü", "it is no word of a filter"),
    ];
    for (text, at, token, why) in wrong {
        let error = Filter::parse(text, endpoint).unwrap_err();
        assert_eq!((error.at, error.token.as_str()), (at, token), "{text}: {error}");
        assert!(error.why.contains(why) && !error.remedy.is_empty() && !error.missing, "{text}: {error}");
    }
    let error = Filter::parse("endpoint shop/wbe", endpoint).unwrap_err();
    assert!(error.missing && error.at == 9, "{error}");
    assert_eq!(
        Filter::parse("port 90-80", endpoint).unwrap_err().to_string(),
        "column 6, \"90-80\": a port is one number; write portrange in place of port"
    );
}

#[test]
fn sizes_are_bounded() {
    let many = |count: usize| vec!["tcp"; count].join(" or ");
    assert_eq!(parse(&many(Filter::MAX_TERMS)).terms(), Filter::MAX_TERMS);
    for text in [
        many(Filter::MAX_TERMS + 1),
        format!("{}tcp{}", "(".repeat(17), ")".repeat(17)),
        " ".repeat(Filter::MAX_TEXT + 1),
    ] {
        assert!(Filter::parse(&text, endpoint).is_err(), "{text}");
    }
    parse(&format!("{}tcp{}", "(".repeat(16), ")".repeat(16)));
    parse(&format!("{} tcp", "not ".repeat(1000)));
}

/// A term with how it is written.
fn written(term: &Term) -> String {
    let side = |side: &Side| match side {
        Side::Any => "",
        Side::Source => "src ",
        Side::Destination => "dst ",
    };
    let joined = |terms: &[Term], word: &str| terms.iter().map(written).collect::<Vec<_>>().join(word);
    match term {
        Term::Not(term) => format!("not ({})", written(term)),
        Term::All(terms) => format!("({})", joined(terms, " and ")),
        Term::Some(terms) => format!("({})", joined(terms, " or ")),
        Term::Address(of, nets) => format!("{}net {}", side(of), nets[0]),
        Term::Port(of, range) => format!("{}portrange {}-{}", side(of), range.first, range.last),
        Term::Proto(proto) => format!("proto {}", proto.0),
        Term::Version4(v4) => if *v4 { "ip" } else { "ip6" }.to_owned(),
        Term::State(name) => format!("state {name}"),
        Term::Translated => "nat".to_owned(),
        Term::Everything | Term::Packet(_) => unreachable!("not of a text"),
    }
}

fn addrs() -> impl Strategy<Value = Addr> {
    prop_oneof![
        (0u8..8).prop_map(|n| addr(&format!("10.0.0.{n}"))),
        (0u8..4).prop_map(|n| addr(&format!("fd00::{n}")))
    ]
}

fn keys() -> impl Strategy<Value = FlowKey> {
    let proto = prop_oneof![Just(Proto::TCP), Just(Proto::UDP), Just(Proto::ICMP)];
    (addrs(), addrs(), 0u16..8, 0u16..8, proto).prop_map(|(src, dst, sport, dport, proto)| FlowKey {
        src,
        dst,
        sport,
        dport,
        proto,
    })
}

fn terms() -> impl Strategy<Value = Term> {
    let side = || prop_oneof![Just(Side::Any), Just(Side::Source), Just(Side::Destination)];
    let net = (addrs(), 24u8..=128).prop_map(|(addr, len)| Prefix::truncate(addr, len));
    let leaf = prop_oneof![
        (side(), net).prop_map(|(side, net)| Term::Address(side, [net].into())),
        (side(), 0u16..8, 0u16..3)
            .prop_map(|(side, first, more)| Term::Port(side, PortRange { first, last: first + more })),
        prop_oneof![Just(6u8), Just(17), Just(1), Just(0)].prop_map(|proto| Term::Proto(Proto(proto))),
        any::<bool>().prop_map(Term::Version4),
        (0..State::NAMES.len()).prop_map(|at| Term::State(State::NAMES[at])),
        Just(Term::Translated),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let several = || prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            inner.clone().prop_map(|term| Term::Not(Box::new(term))),
            several().prop_map(Term::All),
            several().prop_map(Term::Some),
        ]
    })
}

/// What a term means, said once more and slowly: of a session seen as all the packets it can carry.
fn means(term: &Term, key: FlowKey, reply: FlowKey, state: State) -> bool {
    // As the opener sent it, and as it left.
    let packets = [key, reply.reversed()];
    let some = |of: &dyn Fn(&FlowKey) -> bool| packets.iter().any(of);
    match term {
        Term::Not(term) => !means(term, key, reply, state),
        Term::All(terms) => !terms.iter().any(|term| !means(term, key, reply, state)),
        Term::Some(terms) => terms.iter().any(|term| means(term, key, reply, state)),
        Term::Address(side, nets) => some(&|packet| {
            (*side != Side::Destination && nets[0].contains(packet.src))
                || (*side != Side::Source && nets[0].contains(packet.dst))
        }),
        Term::Port(side, range) => some(&|packet| {
            packet.proto.has_ports()
                && ((*side != Side::Destination && (range.first..=range.last).contains(&packet.sport))
                    || (*side != Side::Source && (range.first..=range.last).contains(&packet.dport)))
        }),
        Term::Proto(proto) => key.proto == *proto,
        Term::Version4(v4) => key.src.is_v4() == *v4,
        Term::State(name) => state.name() == *name,
        Term::Translated => packets[0] != packets[1],
        Term::Everything | Term::Packet(_) => unreachable!("not of a text"),
    }
}

proptest! {
    #[test]
    fn what_is_written_means_what_it_says(
        term in terms(), key in keys(), other in keys(), translated in any::<bool>(), replied in any::<bool>(),
    ) {
        let reply = if translated { FlowKey { proto: key.proto, ..other } } else { key.reversed() };
        let state = State::Udp(if replied { Exchange::Replied } else { Exchange::Unreplied });
        let filter = parse(&written(&term));
        prop_assert_eq!(filter.matches(&key, &reply, state), means(&term, key, reply, state), "{}", written(&term));
    }

    #[test]
    fn no_text_breaks_it(text in "(tcp|port|host|src|or|and|not|\\(|\\)|!|80|1-2|10\\.0\\.0\\.1|state| |\\PC){0,30}") {
        if let Err(error) = Filter::parse(&text, endpoint) {
            prop_assert!(text.is_char_boundary(error.at), "{}", error);
        }
    }
}
