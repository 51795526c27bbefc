//! Which session a key leads to, and what is known of it.

use super::*;

#[test]
fn both_directions_lead_to_one_session() {
    let mut t = table(8);
    let k = key(1, Proto::TCP);
    let flow = open(&mut t, k, SYN, START).unwrap();
    let reply = lookup(&t, &k.reversed(), START).unwrap();
    assert_eq!(lookup(&t, &k, START), Some(flow));
    assert_eq!((reply, reply.direction()), (flow.opposite(), Direction::Reply));
    assert_eq!((t.key(flow), t.key(reply)), (k, k.reversed()));
    let ways = |t: &Table, at| [flow, reply].map(|flow| t.way(flow, Generation(at)));
    assert_eq!((ways(&t, 1), ways(&t, 2)), ([Some(10), None], [None; 2]));
    t.bind(reply, Generation(1), 21);
    assert_eq!(ways(&t, 1), [Some(10), Some(21)]);
    t.bind(reply, Generation(2), 22);
    assert_eq!((ways(&t, 1), ways(&t, 2)), ([None; 2], [None, Some(22)]));
    assert!(t.remove(reply) && !t.remove(flow));
    assert!(t.is_empty() && lookup(&t, &k, START).is_none() && lookup(&t, &k.reversed(), START).is_none());
    assert_eq!(t.observe(flow, SYN, START), Observed::Invalid, "a flow that is gone");
}

#[test]
fn a_translated_reply_has_its_own_key() {
    let mut t = table(8);
    let k = key(1, Proto::UDP);
    let translated = FlowKey { src: "10.65.9.9".parse().unwrap(), sport: 8080, ..k.reversed() };
    let state = State::Udp(Exchange::Unreplied);
    let flow = open_as(&mut t, k, translated, state, Segment::Other, START).unwrap();
    assert_eq!(lookup(&t, &translated, START), Some(flow.opposite()));
    assert_eq!(lookup(&t, &k.reversed(), START), None);
    let other = key(2, Proto::UDP);
    assert_eq!(
        open_as(&mut t, other, translated, state, Segment::Other, START),
        Err(InsertError::Taken(flow.opposite()))
    );
    assert_eq!(lookup(&t, &other, START), None, "nothing half made");
    assert!(t.remove(flow) && lookup(&t, &translated, START).is_none());
}

#[test]
fn a_packet_to_its_own_source_is_one_flow() {
    let mut t = table(8);
    let k = FlowKey { src: key(1, Proto::UDP).dst, sport: 80, ..key(1, Proto::UDP) };
    assert_eq!(k, k.reversed());
    let flow = open(&mut t, k, Segment::Other, START).unwrap();
    assert_eq!(lookup(&t, &k, START), Some(flow));
    assert!(t.remove(flow) && lookup(&t, &k, START).is_none());
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let with = |settings| Table::new(settings, FlowHasher::new([0; 4])).err().unwrap().to_string();
    assert!(with(Settings { sessions: 0, ..Settings::default() }).contains("sessions: 0 is out of range"));
    assert!(with(Settings { sessions: u32::MAX, ..Settings::default() }).contains("choose 1 to 2147483647"));
}

#[test]
fn keys_of_either_family_survive_translated_or_not() {
    let mut t = table(64);
    let of = |n: u128, text: &str| Addr::from_bits(text.parse::<Addr>().unwrap().bits() + n);
    let mut made = vec![];
    for n in 0..10u16 {
        for (client, service, backend) in
            [("10.65.0.1", "10.96.0.1", "10.65.9.1"), ("fd65::1", "fd96::1", "fd65:9::1")]
        {
            let key = FlowKey {
                src: of(n.into(), client),
                dst: of(0, service),
                sport: 1_000 + n,
                dport: 80,
                proto: Proto::UDP,
            };
            let backend = FlowKey { src: of(n.into(), backend), sport: 8_080, dport: 7, ..key.reversed() };
            let reply = if n % 2 == 0 { key.reversed() } else { backend };
            let state = State::Udp(Exchange::Unreplied);
            let flow = open_as(&mut t, key, reply, state, Segment::Other, START).unwrap();
            made.push((flow, key, reply));
        }
    }
    for &(flow, key, reply) in &made {
        assert_eq!((t.key(flow), t.key(flow.opposite())), (key, reply));
        assert_eq!((lookup(&t, &key, START), lookup(&t, &reply, START)), (Some(flow), Some(flow.opposite())));
        let leaves = |as_came: FlowKey, to: FlowKey| (to != as_came).then_some(to);
        assert_eq!(t.translated(flow), leaves(key, reply.reversed()));
        assert_eq!(t.translated(flow.opposite()), leaves(reply, key.reversed()));
    }
    let keys: Vec<FlowKey> = made.iter().flat_map(|(_, key, reply)| [*key, *reply]).collect();
    for (flow, ..) in made {
        assert!(t.remove(flow));
    }
    assert!(t.is_empty() && keys.iter().all(|key| lookup(&t, key, START).is_none()));
}

#[test]
fn many_lookups_at_once_are_many_lookups() {
    let mut t = table(3_000);
    let mut keys: Vec<FlowKey> = (0..6_000).map(|n| key(n, Proto::TCP)).collect();
    for (n, key) in keys.iter().enumerate().take(3_000) {
        let backend = FlowKey { src: Addr::v4([10, 66, 0, 1]), ..key.reversed() };
        let reply = if n % 3 == 0 { backend } else { key.reversed() };
        open_as(&mut t, *key, reply, State::Tcp(TcpState::SynSent), SYN, START).unwrap();
    }
    keys.extend_from_within(..);
    keys[6_000..].iter_mut().for_each(|key| *key = key.reversed());
    let short: Vec<Key4> = keys.iter().filter_map(Key4::of).collect();
    for now in [START, at(10), at(20)] {
        let mut found = vec![None; keys.len()];
        t.lookup_many(&short, now, &mut found);
        let one_by_one: Vec<_> = keys.iter().map(|key| lookup(&t, key, now)).collect();
        assert_eq!(found, one_by_one);
        let live = found.iter().flatten().count();
        assert_eq!(live, if now == at(20) { 0 } else { 5_000 }, "translated replies have other keys");
    }
}

#[test]
fn a_syn_after_the_end_opens_anew() {
    let mut t = table(8);
    let k = key(1, Proto::TCP);
    let flow = establish(&mut t, k, START);
    let close = [(flow, FIN_ACK), (flow.opposite(), FIN_ACK), (flow, LAST_ACK), (flow.opposite(), LAST_ACK)];
    for (flow, segment) in close {
        assert_eq!(t.observe(flow, segment, at(1)), Observed::Ok);
    }
    assert_eq!(t.state(flow), Some(State::Tcp(TcpState::TimeWait)));
    assert_eq!(t.observe(flow, SYN, at(2)), Observed::Ok, "an old one, or for the peer to challenge");
    let syn = tcp(0x02, 2, 0);
    assert_eq!(t.observe(flow, syn, at(2)), Observed::Reopen);
    let again = open(&mut t, k, SYN, at(2)).unwrap();
    assert_eq!(t.state(again), Some(State::Tcp(TcpState::SynSent)));
    assert_eq!((again, t.len()), (flow, 1), "in the place of the old one");
    assert_eq!(t.observe(again, RST, at(3)), Observed::Ok);
    // This time from the other end.
    assert_eq!(t.observe(again.opposite(), SYN, at(4)), Observed::Reopen);
    let turned = open(&mut t, k.reversed(), SYN, at(4)).unwrap();
    assert_eq!((lookup(&t, &k.reversed(), at(4)), t.len()), (Some(turned), 1));
    assert_eq!(lookup(&t, &k, at(4)), Some(turned.opposite()));
}

#[test]
fn a_live_session_keeps_its_key() {
    let mut t = table(8);
    let k = key(1, Proto::TCP);
    let flow = establish(&mut t, k, START);
    assert_eq!(open(&mut t, k, SYN, at(1)), Err(InsertError::Taken(flow.opposite())));
    assert!(open(&mut t, k, SYN, at(3_600)).is_ok(), "an expired one does not");
    assert_eq!(t.len(), 1);
}

#[test]
fn midstream_is_a_setting() {
    let mut strict = table(8);
    strict.track(Tracking { midstream: false, ..Tracking::default() });
    assert_eq!(strict.admit(Proto::TCP, ACK), Admit::Invalid);
    assert_eq!(strict.admit(Proto::TCP, SYN), Admit::New(State::Tcp(TcpState::SynSent)));
    assert_eq!(table(8).admit(Proto::TCP, ACK), Admit::New(State::Tcp(TcpState::PickedUp)));
    assert_eq!(table(8).admit(Proto::TCP, RST), Admit::Invalid);
}

#[test]
fn scans_and_removals_go_in_bounded_steps() {
    let mut t = table(100);
    for n in 0..60 {
        let proto = if n % 2 == 0 { Proto::TCP } else { Proto::UDP };
        let segment = if n % 2 == 0 { SYN } else { Segment::Other };
        open(&mut t, key(n, proto), segment, START).unwrap();
    }
    let list = |t: &Table, now| {
        let (mut keys, mut cursor, mut steps) = (Vec::new(), Some(0), 0);
        while let Some(from) = cursor {
            let before = keys.len();
            cursor = t.scan(from, 16, now, |entry| keys.push(entry.key));
            assert!(keys.len() - before <= 16);
            steps += 1;
        }
        assert_eq!(steps, 7);
        keys
    };
    assert_eq!(list(&t, at(1)).len(), 60);
    assert_eq!(list(&t, at(30)).len(), 30, "half-open TCP is over");
    let (mut removed, mut cursor) = (0, Some(0));
    while let Some(from) = cursor {
        let (count, next) = t.remove_where(from, 16, at(1), |entry| entry.key.proto == Proto::UDP);
        (removed, cursor) = (removed + count, next);
    }
    assert_eq!((removed, t.len()), (30, 30));
    assert!(list(&t, at(1)).iter().all(|k| k.proto == Proto::TCP));
    t.scan(0, u32::MAX, at(4), |entry| {
        assert_eq!((entry.idle, entry.remaining), (Nanos::from_secs(4), Nanos::from_secs(16)));
    });
}
