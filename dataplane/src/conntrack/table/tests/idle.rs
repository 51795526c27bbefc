//! When sessions end by themselves.

use super::*;

#[test]
fn idle_sessions_are_gone_on_the_nanosecond() {
    let timeouts = Timeouts::default();
    let mut t = table(8);
    let tcp = establish(&mut t, key(1, Proto::TCP), START);
    let half = open(&mut t, key(2, Proto::TCP), SYN, START).unwrap();
    let udp = open(&mut t, key(3, Proto::UDP), Segment::Other, START).unwrap();
    let icmp = Segment::Icmp(Icmp { kind: 8, code: 0 });
    let ping = open(&mut t, key(4, Proto::ICMP), icmp, START).unwrap();
    let gre = open(&mut t, key(5, Proto(47)), Segment::Other, START).unwrap();
    for (flow, timeout) in [
        (tcp, timeouts.tcp_established),
        (half, timeouts.tcp_syn_sent),
        (udp, timeouts.udp),
        (ping, timeouts.icmp),
        (gre, timeouts.generic),
    ] {
        let k = t.key(flow);
        let last = Nanos(START.plus(timeout).0 - 1);
        assert_eq!(lookup(&t, &k, last), Some(flow), "{k}");
        assert_eq!(lookup(&t, &k, START.plus(timeout)), None, "{k}");
    }
}

#[test]
fn a_packet_refreshes_and_an_invalid_one_does_not() {
    let mut t = table(8);
    let k = key(1, Proto::TCP);
    let flow = establish(&mut t, k, START);
    assert_eq!(t.observe(flow, ACK, at(3_000)), Observed::Ok);
    assert_eq!(t.observe(flow.opposite(), tcp(0x10, 9_000, 1), at(3_500)), Observed::OutOfWindow);
    assert_eq!(t.observe(flow.opposite(), tcp(0x00, 1, 1), at(3_500)), Observed::Invalid);
    assert_eq!(lookup(&t, &k, at(6_599)), Some(flow));
    assert_eq!(lookup(&t, &k, at(6_600)), None);
}

#[test]
fn a_closed_session_leaves_by_the_shorter_timeout() {
    let mut t = table(8);
    assert_eq!(t.expire(START, 1), 0);
    let flow = establish(&mut t, key(1, Proto::TCP), START);
    assert_eq!(t.observe(flow, RST, at(1)), Observed::Ok);
    t.expire(at(41), usize::MAX);
    assert_eq!(t.len(), 1, "its tick has not passed");
    t.expire(at(44), usize::MAX);
    assert!(t.is_empty());
}

#[test]
fn expiry_keeps_its_budget_and_finishes() {
    let mut t = table(1_000);
    for n in 0..1_000 {
        open(&mut t, key(n, Proto::UDP), Segment::Other, START).unwrap();
    }
    let survivor = key(7, Proto::UDP);
    let flow = lookup(&t, &survivor, START).unwrap();
    t.observe(flow, Segment::Other, at(59));
    let mut calls = 0;
    while t.expire(at(70), 64) == 64 {
        calls += 1;
        assert_eq!(t.len() as u64, 1_000 - t.counters().expired);
        assert!(t.counters().expired <= calls * 64);
    }
    assert_eq!((t.len(), t.counters().expired), (1, 999));
    assert_eq!(lookup(&t, &survivor, at(70)), Some(flow));
    assert_eq!(t.expire(at(70), 64), 0);
    t.expire(at(122), 64);
    assert!(t.is_empty());
}

fn with_udp(seconds: u64) -> Tracking {
    let timeouts = Timeouts { udp: Nanos::from_secs(seconds), ..Timeouts::default() };
    Tracking { timeouts, ..Tracking::default() }
}

#[test]
fn other_timeouts_count_for_live_sessions_at_once() {
    let mut t = table(8);
    let k = key(1, Proto::UDP);
    let flow = open(&mut t, k, Segment::Other, START).unwrap();
    t.track(with_udp(10));
    assert_eq!((lookup(&t, &k, at(9)), lookup(&t, &k, at(10))), (Some(flow), None));
    t.track(with_udp(1_000));
    assert_eq!(lookup(&t, &k, at(999)), Some(flow));
    t.expire(at(999), usize::MAX);
    assert_eq!(t.len(), 1, "looked at as of old, and armed again");
    t.expire(at(1_002), usize::MAX);
    assert!(t.is_empty());
}

#[test]
fn places_of_those_whose_time_is_over_by_shorter_timeouts_are_found_step_by_step() {
    let mut t = table(1_000);
    for n in 0..1_000 {
        establish(&mut t, key(n, Proto::TCP), START);
    }
    let timeouts = Timeouts { tcp_established: Nanos::from_secs(30), ..Timeouts::default() };
    t.track(Tracking { timeouts, ..Tracking::default() });
    assert!((0..1_000).all(|n| lookup(&t, &key(n, Proto::TCP), at(40)).is_none()));
    let mut calls = 0;
    while !t.is_empty() {
        let before = t.len();
        assert!(t.expire(at(40), 64) <= 64);
        assert!(before - t.len() <= 64);
        calls += 1;
        assert!(calls <= 64, "a thousand take a share of some calls each");
    }
    assert_eq!(t.counters().expired, 1_000);
}

#[test]
fn strictness_is_a_setting_that_may_change() {
    let mut t = table(8);
    let flow = establish(&mut t, key(1, Proto::TCP), START);
    let half = open(&mut t, key(2, Proto::TCP), SYN, START).unwrap();
    let (far, rst) = (tcp(0x10, 1 << 30, 1), tcp(0x04, 1 << 30, 0));
    assert_eq!(t.observe(flow, far, at(1)), Observed::OutOfWindow);
    t.track(Tracking { liberal: true, ..Tracking::default() });
    assert_eq!(t.observe(flow, far, at(3_000)), Observed::Ok);
    assert_eq!(lookup(&t, &key(1, Proto::TCP), at(6_000)), Some(flow), "and it is no idle one");
    assert_eq!(t.observe(flow, rst, at(3_000)), Observed::OutOfWindow, "never a reset");
    assert_eq!(t.observe(half.opposite(), tcp(0x12, 0, 77), at(1)), Observed::OutOfWindow, "nor a handshake");
    assert_eq!(t.state(flow), Some(State::Tcp(TcpState::Established)));
    t.track(Tracking::default());
    assert_eq!(t.observe(flow, far, at(3_001)), Observed::OutOfWindow);
    assert_eq!(t.observe(flow, ACK, at(3_001)), Observed::Ok, "nothing was moved");
}
