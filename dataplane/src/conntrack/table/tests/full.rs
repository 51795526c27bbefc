//! A table at its limit.

use super::*;

#[test]
fn a_session_takes_at_most_128_bytes_all_told() {
    let sessions = 1 << 16;
    let bytes = table(sessions).bytes() as f64 / f64::from(sessions);
    assert!(bytes <= 128.0, "{bytes}");
}

#[test]
fn a_translated_ipv6_session_takes_two_places_and_gives_both_back() {
    let mut t = table(4);
    let key = |n: u16| FlowKey {
        src: "fd65::1".parse().unwrap(),
        dst: "fd96::1".parse().unwrap(),
        sport: n,
        dport: 80,
        proto: Proto::UDP,
    };
    let begin = |t: &mut Table, n, now| {
        let reply = FlowKey { src: "fd65::9".parse().unwrap(), ..key(n).reversed() };
        open_as(t, key(n), reply, State::Udp(Exchange::Unreplied), Segment::Other, now)
    };
    for round in 0..5 {
        let now = at(round);
        let first = begin(&mut t, 1, now).unwrap();
        let second = begin(&mut t, 2, now).unwrap();
        assert_eq!((begin(&mut t, 3, now), t.len()), (Err(InsertError::Full), 2));
        assert!(t.remove(second));
        let single = open(&mut t, key(4), Segment::Other, now).unwrap();
        assert_eq!(begin(&mut t, 3, now), Err(InsertError::Full), "one place is not enough");
        assert!(lookup(&t, &key(1), now) == Some(first) && t.remove(first) && t.remove(single));
        assert!(t.is_empty());
    }
    begin(&mut t, 1, at(10)).unwrap();
    begin(&mut t, 2, at(10)).unwrap();
    assert!(begin(&mut t, 3, at(11)).is_ok(), "half-open ones are given up for it");
    assert_eq!((t.len(), t.counters().evicted), (2, 1));
}

#[test]
fn one_vector_of_new_flows_does_little_however_many_it_may_not_give_up() {
    let mut t = table(10_000);
    for n in 0..10_000 {
        open(&mut t, key(n, Proto::TCP), SYN, at(1)).unwrap();
    }
    for n in 10_000..10_256 {
        assert_eq!(open(&mut t, key(n, Proto::TCP), SYN, at(1)), Err(InsertError::Full), "all are in use");
    }
    assert_eq!(t.effort.passed_over, Effort::PASSED_OVER_IN_ALL);
    assert!(open(&mut t, key(20_000, Proto::TCP), SYN, at(2)).is_ok());
    assert_eq!(t.effort.passed_over, 0, "of the next vector");
}

#[test]
fn one_vector_of_new_flows_looks_at_few_that_are_due_and_live() {
    let mut t = table(2_000);
    let flows: Vec<_> = (0..2_000).map(|n| establish(&mut t, key(n, Proto::TCP), START)).collect();
    // All come up at once, beyond the wheel's reach, and none is over.
    for flow in flows {
        assert_eq!(t.observe(flow, ACK, at(1_500)), Observed::Ok);
    }
    for n in 2_000..2_256 {
        assert_eq!(open(&mut t, key(n, Proto::TCP), SYN, at(1_600)), Err(InsertError::Full));
    }
    assert_eq!(t.effort.due, Effort::DUE);
}

#[test]
fn the_last_that_may_go_is_found_wherever_it_is_and_the_others_stay() {
    // A million looks at established sessions, one at a time, would not find it.
    let mut t = table(20_000);
    let flows: Vec<_> = (0..20_000).map(|n| establish(&mut t, key(n, Proto::TCP), START)).collect();
    let half_open = |t: &mut Table, n: u32, now| {
        assert!(t.remove(flows[n as usize]));
        open(t, key(n, Proto::TCP), SYN, now).unwrap();
    };
    for (round, place) in [0, 19_999, 63, 64, 10_000, 4_097, 1].into_iter().enumerate() {
        let now = at(10 * round as u64);
        half_open(&mut t, place, now);
        assert!(t.is_full());
        let newcomer = key(30_000 + round as u32, Proto::TCP);
        let later = now.plus(Nanos(1));
        let made = open(&mut t, newcomer, SYN, later).unwrap();
        let round = round as u64;
        let Counters { expired, evicted, refused, .. } = t.counters();
        assert_eq!((expired, evicted, refused), (0, 1 + round, round));
        assert_eq!(lookup(&t, &key(place, Proto::TCP), later), None);
        // The newcomer completes its handshake: again there is none.
        assert_eq!(t.observe(made.opposite(), SYN_ACK, later), Observed::Ok);
        assert_eq!(t.observe(made, ACK, later), Observed::Ok);
        let one_more = key(40_000, Proto::TCP);
        assert_eq!(open(&mut t, one_more, SYN, later.plus(Nanos(1))), Err(InsertError::Full));
    }
    let gone = [0, 19_999, 63, 64, 10_000, 4_097, 1];
    let stays = |n: &u32| !gone.contains(n);
    assert!((0..20_000).filter(stays).all(|n| lookup(&t, &key(n, Proto::TCP), at(100)).is_some()));
}

#[test]
fn who_would_be_over_first_gives_way_first() {
    let mut t = table(3);
    let echo = Segment::Icmp(Icmp { kind: 8, code: 0 });
    open(&mut t, key(1, Proto(47)), Segment::Other, START).unwrap();
    open(&mut t, key(2, Proto::TCP), SYN, at(2)).unwrap();
    open(&mut t, key(3, Proto::ICMP), echo, at(4)).unwrap();
    let live = |t: &Table, now| {
        let keys = [key(1, Proto(47)), key(2, Proto::TCP), key(3, Proto::ICMP)];
        keys.map(|key| lookup(t, &key, now).is_some())
    };
    for (seconds, want) in [(5, [true, true, false]), (6, [true, false, false]), (7, [false; 3])] {
        let newcomer =
            open(&mut t, key(10 + seconds, Proto::UDP), Segment::Other, at(seconds.into())).unwrap();
        assert_eq!(t.observe(newcomer.opposite(), Segment::Other, at(seconds.into())), Observed::Ok);
        assert_eq!(live(&t, at(seconds.into())), want);
    }
    assert_eq!(open(&mut t, key(20, Proto::UDP), Segment::Other, at(8)), Err(InsertError::Full));
}

#[test]
fn every_session_has_its_place_and_one_more_is_refused() {
    for sessions in [1, 2, 3, 7, 64, 1_000, 50_000] {
        let mut t = table(sessions);
        for n in 0..sessions {
            establish(&mut t, key(n, Proto::TCP), START);
        }
        assert_eq!(t.len(), sessions as usize);
        assert_eq!(open(&mut t, key(sessions, Proto::TCP), SYN, at(1)), Err(InsertError::Full));
        let Counters { expired, evicted, refused, .. } = t.counters();
        assert_eq!((expired, evicted, refused), (0, 0, 1));
        assert!((0..sessions).all(|n| lookup(&t, &key(n, Proto::TCP), at(1)).is_some()));
    }
}

#[test]
fn a_flood_never_evicts_an_established_session() {
    let mut t = table(100);
    for n in 0..50 {
        establish(&mut t, key(n, Proto::TCP), START);
    }
    for n in 50..5_000 {
        let now = START.plus(Nanos::from_millis(u64::from(n)));
        open(&mut t, key(n, Proto::TCP), SYN, now).unwrap();
        assert!(t.len() <= 100);
    }
    assert_eq!(t.counters().evicted, 5_000 - 100);
    assert!((0..50).all(|n| lookup(&t, &key(n, Proto::TCP), at(5)).is_some()));
}

#[test]
fn a_full_table_finds_what_is_over_wherever_it_is() {
    let mut t = table(1_000);
    let flows: Vec<_> = (0..1_000).map(|n| establish(&mut t, key(n, Proto::TCP), START)).collect();
    assert_eq!(t.observe(flows[700], RST, START), Observed::Ok);
    assert!(open(&mut t, key(1_000, Proto::TCP), SYN, at(60)).is_ok());
    let Counters { expired, evicted, refused, .. } = t.counters();
    assert_eq!((expired, evicted, refused), (1, 0, 0));
    assert!(lookup(&t, &key(700, Proto::TCP), at(60)).is_none());
}

#[test]
fn a_session_of_the_vector_under_way_is_not_evicted() {
    let mut t = table(2);
    let first = open(&mut t, key(1, Proto::TCP), SYN, START).unwrap();
    open(&mut t, key(2, Proto::TCP), SYN, at(1)).unwrap();
    assert_eq!(t.observe(first.opposite(), SYN_ACK, at(1)), Observed::Ok);
    assert_eq!(open(&mut t, key(3, Proto::TCP), SYN, at(1)), Err(InsertError::Full));
    assert!(open(&mut t, key(3, Proto::TCP), SYN, at(2)).is_ok());
}
