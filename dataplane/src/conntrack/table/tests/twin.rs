//! Random events, and a twin that must agree after each.

use super::reference::{Reference, Twin, Verdict, track};
use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::HashSet;

/// One thing that happens to a table. Keys are few, so that they meet.
#[derive(Clone, Debug)]
enum Op {
    /// A packet, as the nodes treat it: look up, observe, or else admit and insert.
    Packet {
        client: u32,
        proto: Proto,
        reply: bool,
        segment: Segment,
    },
    /// A session whose replies come from another address than the one its packets go to.
    Translated {
        client: u32,
        backend: u32,
    },
    Remove {
        client: u32,
        proto: Proto,
    },
    Pass(Nanos),
    Expire(usize),
    /// Shorter timeouts: of UDP, and of established TCP. (Longer ones bring back what is over and
    /// still has its place.)
    Retime(Nanos),
}

fn op() -> impl Strategy<Value = Op> {
    let tcp = prop::sample::select(vec![SYN, SYN, SYN_ACK, ACK, ACK, FIN_ACK, LAST_ACK, RST]);
    let icmp = prop::sample::select(vec![8, 0, 3]).prop_map(|kind| Segment::Icmp(Icmp { kind, code: 0 }));
    let payload = prop_oneof![
        6 => tcp.prop_map(|segment| (Proto::TCP, segment)),
        2 => prop::sample::select(vec![Proto::UDP, Proto(47)]).prop_map(|proto| (proto, Segment::Other)),
        1 => icmp.prop_map(|segment| (Proto::ICMP, segment)),
    ];
    prop_oneof![
        12 => (0..12u32, payload, any::<bool>()).prop_map(|(client, (proto, segment), reply)| {
            Op::Packet { client, proto, reply, segment }
        }),
        1 => (0..12u32, 0..4u32).prop_map(|(client, backend)| Op::Translated { client, backend }),
        1 => (0..12u32, prop::sample::select(vec![Proto::TCP, Proto::UDP])).prop_map(|(client, proto)| {
            Op::Remove { client, proto }
        }),
        3 => (0..8_000u64).prop_map(|ms| Op::Pass(Nanos::from_millis(ms))),
        1 => (0..4_000u64).prop_map(|s| Op::Pass(Nanos::from_secs(s))),
        2 => (0..6usize).prop_map(Op::Expire),
        1 => (1..4_000u64).prop_map(|s| Op::Retime(Nanos::from_secs(s))),
    ]
}

/// A table and its twin, which must agree after every step.
struct Pair {
    table: Table,
    twin: Reference,
    made: u32,
}

impl Pair {
    fn new(capacity: u32, seed: u64) -> Self {
        let settings = Settings { sessions: capacity, ..Settings::default() };
        let table = Table::new(settings, FlowHasher::new([seed, 2, 3, 4])).unwrap();
        let twin = Reference {
            capacity: capacity as usize,
            timeouts: Timeouts::default(),
            sessions: Vec::new(),
            now: START,
        };
        Self { table, twin, made: 0 }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Packet { client, proto, reply, segment } => {
                let key = if reply { key(client, proto).reversed() } else { key(client, proto) };
                self.packet(key, segment);
            }
            Op::Translated { client, backend } => {
                let key = key(client, Proto::UDP);
                let src = Addr::v4([10, 66, 0, backend as u8]);
                let reply = FlowKey { src, ..key.reversed() };
                self.insert(key, reply, State::Udp(Exchange::Unreplied), Segment::Other);
            }
            Op::Remove { client, proto } => {
                let key = key(client, proto);
                if let Some(flow) = lookup(&self.table, &key, self.twin.now) {
                    assert!(self.table.remove(flow));
                }
                self.twin.remove(&key);
            }
            Op::Pass(span) => self.twin.advance(self.twin.now.plus(span)),
            Op::Retime(span) => {
                let Timeouts { udp, tcp_established, .. } = self.twin.timeouts;
                let (udp, tcp_established) = (udp.min(span), tcp_established.min(span));
                let timeouts = Timeouts { udp, tcp_established, ..Timeouts::default() };
                self.table.track(Tracking { timeouts, ..Tracking::default() });
                self.twin.timeouts = timeouts;
                self.twin.advance(self.twin.now);
            }
            Op::Expire(budget) => assert!(self.table.expire(self.twin.now, budget) <= budget),
        }
    }

    fn packet(&mut self, key: FlowKey, segment: Segment) {
        let found = lookup(&self.table, &key, self.twin.now);
        let twin = self.twin.lookup(&key);
        assert_eq!(found.map(FlowRef::direction), twin.map(|(_, direction)| direction), "{key}");
        if let (Some(flow), Some(at)) = (found, twin) {
            let observed = self.table.observe(flow, segment, self.twin.now);
            assert_eq!(observed, self.twin.observe(at, segment), "{key} {segment:?}");
            if observed != Observed::Reopen {
                return;
            }
        }
        if let Admit::New(state) = self.table.admit(key.proto, segment) {
            self.insert(key, key.reversed(), state, segment);
        }
    }

    fn insert(&mut self, key: FlowKey, reply_key: FlowKey, state: State, segment: Segment) {
        self.made += 1;
        let way = self.made;
        let new = session(&self.table, [key, reply_key], state, segment, way);
        let (evicted, len) = (self.table.counters().evicted, self.table.len());
        let got = match self.table.insert(new, self.twin.now) {
            Ok(_) => Verdict::Made,
            Err(InsertError::Taken(_)) => Verdict::Taken,
            Err(InsertError::Full) => Verdict::Full,
            Err(InsertError::TakenElsewhere) => panic!("there is no other worker"),
        };
        let twin = Twin { keys: [key, reply_key], state, track: track(segment), used: self.twin.now, way };
        let held = len - self.twin.sessions.len();
        let (want, candidates, must_give_up) = self.twin.insert(twin);
        if (got, want) == (Verdict::Full, Verdict::Made) {
            // What is over may hold its place for another moment. What may be given up is found.
            assert!(held > 0 && len == self.twin.capacity && candidates.is_empty(), "{key}");
            self.twin.sessions.pop();
            return;
        }
        assert_eq!(got, want, "{key}");
        let live = self.live();
        let given_up: Vec<_> = candidates.iter().filter(|key| !live.contains(*key)).collect();
        assert_eq!(self.table.counters().evicted, evicted + given_up.len() as u64);
        match given_up[..] {
            [] => assert!(!must_give_up),
            // Not only when all are live: what is over may hold its place until `expire`.
            [key] => {
                assert_eq!(len, self.twin.capacity);
                self.twin.remove(key);
            }
            _ => panic!("{} sessions given up for one", given_up.len()),
        }
    }

    fn live(&self) -> HashSet<FlowKey> {
        let mut keys = HashSet::new();
        self.table.scan(0, u32::MAX, self.twin.now, |entry| {
            keys.insert(entry.key);
        });
        keys
    }

    fn agree(&self) {
        let want: HashSet<_> = self.twin.sessions.iter().map(|s| s.keys[0]).collect();
        assert_eq!(self.live(), want);
        assert!(self.table.len() >= want.len() && self.table.len() <= self.twin.capacity);
        for session in &self.twin.sessions {
            for direction in Direction::BOTH {
                let key = session.keys[direction as usize];
                let flow = lookup(&self.table, &key, self.twin.now).unwrap();
                assert_eq!((flow.direction(), self.table.key(flow)), (direction, key));
                assert_eq!(self.table.state(flow), Some(session.state), "{key}");
                let way = (direction == Direction::Original).then_some(session.way);
                assert_eq!(self.table.way(flow, Generation(1)), way, "{key}");
                let translated = session.keys[1 - direction as usize].reversed();
                assert_eq!(self.table.translated(flow), Some(translated).filter(|to| *to != key), "{key}");
            }
        }
    }

    /// All that is over is gone two ticks later.
    fn settle(&mut self) {
        self.twin.advance(self.twin.now.plus(Nanos::from_secs(3)));
        self.table.expire(self.twin.now, usize::MAX);
        let due = self.twin.now.since(Nanos::from_secs(3));
        let mut left = 0;
        self.table.scan(0, u32::MAX, due, |_| left += 1);
        assert!(self.table.len() <= left.max(self.twin.sessions.len()));
        self.agree();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_reference(
        capacity in 1..20u32, seed in any::<u64>(), ops in prop::collection::vec(op(), 1..250),
    ) {
        let mut pair = Pair::new(capacity, seed);
        for op in &ops {
            pair.apply(op);
            pair.agree();
        }
        pair.settle();
    }
}
