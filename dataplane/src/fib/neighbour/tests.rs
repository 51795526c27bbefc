use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const IF: IfId = IfId(3);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn addr() -> Addr {
    "10.0.0.9".parse().unwrap()
}

fn seconds(n: u64) -> Nanos {
    Nanos::from_secs(n)
}

fn state(table: &Neighbours) -> Option<(NeighbourState, Option<Mac>)> {
    table.iter().next().map(|neighbour| (neighbour.state, neighbour.mac))
}

#[test]
fn asked_once_a_second_until_it_answers() {
    let mut table = Neighbours::default();
    let at = Nanos::from_millis;
    assert_eq!(table.wanted(IF, addr(), at(1)), Some(Probe { interface: IF, addr: addr(), mac: None }));
    assert_eq!(table.wanted(IF, addr(), at(500)), None);
    assert_eq!(table.tick(at(900)), vec![]);
    assert_eq!(table.tick(at(1001)).len(), 1);
    assert!(!table.has_news());
    table.heard(IF, addr(), MAC, Hearing::Answer, at(1100));
    assert_eq!(table.take_news().collect::<Vec<_>>(), [(IF, addr(), Some(MAC))]);
    assert_eq!(table.wanted(IF, addr(), at(5000)), None);
    table.heard(IF, addr(), MAC, Hearing::Answer, at(6000));
    assert!(!table.has_news());
}

#[test]
fn nobody_there_is_asked_for_three_times_and_again_when_a_packet_comes() {
    let mut table = Neighbours::default();
    assert!(table.wanted(IF, addr(), seconds(0)).is_some());
    let asked: usize = (1..=10).map(|second| table.tick(seconds(second)).len()).sum();
    assert_eq!((asked, state(&table)), (2, Some((NeighbourState::Failed, None))));
    assert!(table.wanted(IF, addr(), seconds(11)).is_some());
    assert_eq!(state(&table), Some((NeighbourState::Incomplete, None)));
    (12..90).for_each(|second| drop(table.tick(seconds(second))));
    assert_eq!(state(&table), None, "and forgotten in the end");
}

#[test]
fn every_state_in_its_turn() {
    let mut table = Neighbours::default();
    table.wanted(IF, addr(), seconds(0));
    table.heard(IF, addr(), MAC, Hearing::Answer, seconds(0));
    let mut seen = vec![];
    let mut asked = vec![];
    for second in 1..80 {
        asked.extend(table.tick(seconds(second)).into_iter().map(|probe| (second, probe.mac)));
        let now = state(&table).unwrap();
        if seen.last().is_none_or(|(_, last)| *last != now) {
            seen.push((second, now));
        }
    }
    use NeighbourState::*;
    assert_eq!(
        seen,
        [
            (1, (Reachable, Some(MAC))),
            (30, (Stale, Some(MAC))),
            (60, (Delay, Some(MAC))),
            (65, (Probe, Some(MAC))),
            (68, (Failed, None)),
        ]
    );
    assert_eq!(asked, [(65, Some(MAC)), (66, Some(MAC)), (67, Some(MAC))], "itself, and nobody else");
}

#[test]
fn who_is_believed() {
    use NeighbourState::*;
    let heard = |state: Option<Hearing>, mac, hearing| {
        let mut table = Neighbours::default();
        table.wanted(IF, addr(), seconds(0));
        if let Some(first) = state {
            table.heard(IF, addr(), MAC, first, seconds(0));
        }
        table.heard(IF, addr(), mac, hearing, seconds(1));
        self::state(&table).unwrap()
    };
    let reachable = Some(Hearing::Answer);
    let stale = Some(Hearing::Unasked);
    let weak = |answer| Hearing::Weak { answer };
    // Before an answer, whatever it is.
    assert_eq!(heard(None, MAC, Hearing::Answer), (Reachable, Some(MAC)));
    assert_eq!(heard(None, MAC, Hearing::Unasked), (Stale, Some(MAC)));
    assert_eq!(heard(None, MAC, weak(true)), (Reachable, Some(MAC)));
    // The same again confirms only in answer.
    assert_eq!(heard(stale, MAC, Hearing::Answer), (Reachable, Some(MAC)));
    assert_eq!(heard(stale, MAC, Hearing::Unasked), (Stale, Some(MAC)));
    assert_eq!(heard(reachable, MAC, Hearing::Unasked), (Reachable, Some(MAC)));
    // It moved.
    assert_eq!(heard(reachable, OTHER, Hearing::Answer), (Reachable, Some(OTHER)));
    assert_eq!(heard(reachable, OTHER, Hearing::Unasked), (Stale, Some(OTHER)));
    // Somebody else says so who may be wrong: asked soon.
    assert_eq!(heard(reachable, OTHER, weak(true)), (Stale, Some(MAC)));
    assert_eq!(heard(stale, OTHER, weak(true)), (Stale, Some(MAC)));
}

#[test]
fn what_was_given_stays() {
    let mut table = Neighbours::default();
    table.set_static(IF, addr(), MAC, Nanos(0));
    for hearing in [Hearing::Unasked, Hearing::Answer] {
        table.heard(IF, addr(), OTHER, hearing, Nanos(1));
    }
    table.set_kernel(IF, addr(), OTHER, Nanos(1));
    assert_eq!(table.tick(seconds(1000)), vec![]);
    assert_eq!(state(&table), Some((NeighbourState::Static, Some(MAC))));
    table.keep_static(IF, &[addr()]);
    assert_eq!(table.mac(IF, addr()), Some(MAC));
    table.keep_static(IF, &[]);
    assert_eq!(table.mac(IF, addr()), None);
}

#[test]
fn one_interface_does_not_take_all_places() {
    let mut table = Neighbours::default();
    let claim = |table: &mut Neighbours, interface, n: u32| {
        let addr = Addr::from_bits(0xfe80 << 112 | u128::from(n));
        table.heard(interface, addr, MAC, Hearing::Unasked, Nanos(0));
    };
    (0..100_000).for_each(|n| claim(&mut table, IF, n));
    claim(&mut table, IfId(4), 1);
    assert_eq!(table.iter().filter(|of| of.interface == IF).count(), MAX_ON_INTERFACE);
    assert_eq!(table.iter().filter(|of| of.interface == IfId(4)).count(), 1);
    table.forget_interface(IF);
    claim(&mut table, IF, 7);
    assert_eq!(table.iter().count(), 2, "there is room again");
}

/// What happens to one neighbour.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Heard(Mac, Hearing),
    Wanted,
    Forgotten,
    Seconds(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let hearing = prop::sample::select(vec![
        Hearing::Unasked,
        Hearing::Answer,
        Hearing::Weak { answer: false },
        Hearing::Weak { answer: true },
    ]);
    prop_oneof![
        3 => (prop::sample::select(vec![MAC, OTHER]), hearing).prop_map(|(mac, hearing)| Happens::Heard(mac, hearing)),
        2 => Just(Happens::Wanted),
        1 => Just(Happens::Forgotten),
        6 => (1..40u64).prop_map(Happens::Seconds),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    /// Over any history: those who forward are told exactly what changed, questions keep their distance, and a neighbour
    /// that is silent is given up in time; one that answers its questions never is.
    #[test]
    fn in_any_history(steps in prop::collection::vec(happens(), 1..60), answers in any::<bool>()) {
        let mut table = Neighbours::default();
        let mut told = None;
        let (mut now, mut asked, mut confirmed) = (seconds(1), None::<Nanos>, seconds(0));
        for step in steps {
            let mut probes = vec![];
            match step {
                Happens::Heard(mac, hearing) => {
                    table.heard(IF, addr(), mac, hearing, now);
                    confirmed = now;
                }
                Happens::Wanted => probes.extend(table.wanted(IF, addr(), now)),
                Happens::Forgotten => {
                    table.forget(IF, addr());
                    asked = None;
                }
                Happens::Seconds(n) => {
                    for _ in 0..n {
                        now = now.plus(seconds(1));
                        let had = table.mac(IF, addr());
                        let ticked = table.tick(now);
                        prop_assert!(ticked.len() <= 1);
                        for probe in &ticked {
                            prop_assert_eq!(probe.mac, had, "itself, where it is known");
                            prop_assert!(asked.is_none_or(|at| now.since(at) >= RETRANS));
                            asked = Some(now);
                            if let (true, Some(mac)) = (answers, probe.mac) {
                                table.heard(IF, addr(), mac, Hearing::Answer, now);
                                confirmed = now;
                            }
                        }
                        if answers && had.is_some() {
                            prop_assert_eq!(table.mac(IF, addr()), had, "it answers");
                        }
                        let patience = REACHABLE.0 + STALE.0 + DELAY.0 + 3 * RETRANS.0;
                        if !answers && now.since(confirmed).0 >= patience {
                            prop_assert_eq!(table.mac(IF, addr()), None, "silent for too long");
                        }
                    }
                }
            }
            asked = if probes.is_empty() { asked } else { Some(now) };
            let is = table.mac(IF, addr());
            match table.take_news().collect::<Vec<_>>()[..] {
                [] => prop_assert_eq!(is, told),
                [(interface, at, mac)] => {
                    prop_assert_eq!((interface, at, mac), (IF, addr(), is));
                }
                _ => prop_assert!(false, "one neighbour"),
            }
            told = is;
            prop_assert_eq!(table.on.values().sum::<usize>(), table.entries.len());
        }
    }
}
