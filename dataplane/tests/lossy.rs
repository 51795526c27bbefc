//! TCP through a worker over roads that lose, delay, duplicate and reorder: tracking neither ends
//! nor stalls a connection, whatever happens to it before and behind.
#![allow(missing_docs)]

mod build;
mod golden;
mod station;

use build::*;
use margay_dataplane::net::Nanos;
use margay_dataplane::nodes::World;
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use smoltcp::socket::tcp;
use station::Station;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// More than 64 KiB, so that windows are scaled.
const BUFFER: usize = 1 << 18;
/// After which a connection counts as stalled,
const PATIENCE: Nanos = Nanos::from_secs(3_600);
/// and one that is to close, which has little to send, as not closing.
const CLOSING: Nanos = Nanos::from_secs(200);
/// Nothing happens in between.
const QUANTUM: Nanos = Nanos(100_000);
const ENDS: [(u8, &str); 2] = [(1, "cali1"), (3, "cali3")];

#[test]
fn goodput_over_loss_and_round_trip_time() {
    let round_trips = [1, 10, 100];
    let mut table = String::from(
        "Goodput in kbit/s of a mebibyte, by packets lost of 1,000 and round-trip time\n\n  lost",
    );
    round_trips.iter().for_each(|ms| write!(table, "{ms:>9} ms").unwrap());
    for loss in [0, 1, 10, 30] {
        write!(table, "\n{loss:>6}").unwrap();
        for ms in round_trips {
            // Four roads make a round trip.
            let weather = Weather { loss, delay: Nanos(ms * 250_000), ..Weather::default() };
            let outcome = Network::new(weather, 7).run([1 << 20, 0], Ending::None);
            assert!(outcome.complete, "{weather:?}: {outcome:?}");
            let kbits = 8 * (1 << 20) * 1_000_000 / outcome.took.0;
            write!(table, "{kbits:>12}").unwrap();
        }
    }
    table.push('\n');
    golden::compare("goodput.txt", &table);
}

#[test]
fn every_connection_lives_through_any_weather() {
    let mut dice = Seeded(1);
    let mut refused = 0;
    for seed in 0..30 {
        let weather = Weather {
            loss: dice.below(80),
            duplicate: dice.below(150),
            delay: Nanos(dice.below(20_000_000)),
            jitter: Nanos(dice.below(40_000_000)),
        };
        let outcome = Network::new(weather, seed).run([1 << 17, 1 << 16], Ending::None);
        assert!(outcome.complete, "seed {seed}, {weather:?}: {outcome:?}");
        refused += outcome.refused;
    }
    // What is refused is old: its receiver would have ignored it.
    assert!(refused < 30, "{refused} segments were taken for forged");
}

#[test]
fn every_close_is_followed_through_any_weather() {
    let mut dice = Seeded(2);
    let mut closed = 0;
    for seed in 0..30 {
        let weather = Weather {
            loss: dice.below(60),
            duplicate: dice.below(150),
            delay: Nanos(dice.below(20_000_000)),
            jitter: Nanos(dice.below(40_000_000)),
        };
        let ending = [Ending::Client, Ending::Server, Ending::Both][seed as usize % 3];
        let outcome = Network::new(weather, 1_000 + seed).run([1 << 14, 1 << 13], ending);
        // smoltcp does not send again every FIN that is lost. Nothing else may stand in the way.
        assert!(
            outcome.complete || outcome.refused == 0,
            "seed {seed}, {ending:?}, {weather:?}: {outcome:?}"
        );
        if outcome.complete {
            closed += 1;
            assert_eq!(outcome.tracked, ["time-wait"], "seed {seed}, {ending:?}, {weather:?}: {outcome:?}");
        }
    }
    assert!(closed >= 15, "only {closed} of 30 were closed");
}

/// Who closes first, once all has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Neither: smoltcp does not send again every FIN that is lost.
    None,
    Client,
    Server,
    /// At the same time.
    Both,
}

/// What happens to packets on a road.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Of a thousand, so many vanish,
    loss: u64,
    /// and so many arrive twice.
    duplicate: u64,
    /// All take so long,
    delay: Nanos,
    /// and each up to so much longer: one may overtake another.
    jitter: Nanos,
}

#[derive(Debug)]
struct Outcome {
    /// All has arrived at both ends, and both are still connected; or closed, if they were to be.
    complete: bool,
    /// Until the last byte arrived.
    took: Nanos,
    /// Segments that the tracker dropped.
    refused: u64,
    /// The states of what it has tracked.
    tracked: Vec<&'static str>,
}

/// Two stations, each with a road to the node and one back.
struct Network {
    node: Simulation,
    stations: [Station; 2],
    there: [Road; 2],
    back: [Road; 2],
}

impl Network {
    fn new(weather: Weather, seed: u64) -> Self {
        let station = |n: u8| {
            let own = addr(&format!("10.65.0.{n}"));
            Station::new(workload_mac(n), own, BUFFER, seed << 8 | u64::from(n))
        };
        let road =
            |n: u64| Road { weather, random: Seeded(seed << 8 | n), under_way: BTreeMap::new(), count: 0 };
        Self {
            node: furnished(Simulation::new(Setup::default())),
            stations: [station(1), station(3)],
            there: [road(1), road(2)],
            back: [road(3), road(4)],
        }
    }

    /// Each end sends so many bytes.
    fn run(mut self, bytes: [usize; 2], ending: Ending) -> Outcome {
        let [client, server] = &mut self.stations;
        server.socket().listen(80).unwrap();
        client.connect(addr("10.65.0.3"), 80);
        let start = self.node.now();
        let mut took = Nanos(0);
        let (mut left, mut missing) = (bytes, [bytes[1], bytes[0]]);
        let patience = if ending == Ending::None { PATIENCE } else { CLOSING };
        while self.node.now().since(start) < patience {
            let now = self.node.now();
            self.carry(now);
            for (end, station) in self.stations.iter_mut().enumerate() {
                let socket = station.socket();
                if socket.can_recv() {
                    let at = bytes[1 - end] - missing[end];
                    missing[end] -= socket.recv(|data| (data.len(), receive(data, at))).unwrap();
                    took = now.since(start);
                }
                if left[end] > 0 && socket.can_send() {
                    let at = bytes[end] - left[end];
                    let data: Vec<u8> = (at..bytes[end].min(at + 8_192)).map(byte).collect();
                    left[end] -= socket.send_slice(&data).unwrap();
                }
            }
            if missing == [0; 2] && self.end(ending) {
                break;
            }
            self.wait(now);
        }
        self.node.check();
        let ended = self.end(ending);
        let World { counters, flows, .. } = self.node.workers[0].world();
        let mut tracked = vec![];
        flows.scan(0, u32::MAX, self.node.now(), |flow| tracked.push(flow.state.name()));
        Outcome {
            complete: ended && missing == [0; 2],
            took,
            refused: counters.dropped(DropReason::TcpOutOfWindow).get(),
            tracked,
        }
    }

    /// Closes what is to be closed, and tells whether it is; of connections that are not to be, whether
    /// they are still there.
    fn end(&mut self, ending: Ending) -> bool {
        let first = match ending {
            Ending::None => {
                let state = |station: &mut Station| station.socket().state();
                return self.stations.each_mut().map(state) == [tcp::State::Established; 2];
            }
            Ending::Client => [true, false],
            Ending::Server => [false, true],
            Ending::Both => [true; 2],
        };
        let mut closed = true;
        for (station, first) in self.stations.iter_mut().zip(first) {
            let socket = station.socket();
            if first || socket.state() == tcp::State::CloseWait {
                socket.close();
            }
            closed &= matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
        }
        closed
    }

    /// All that arrives now goes on.
    fn carry(&mut self, now: Nanos) {
        for (end, (_, interface)) in ENDS.into_iter().enumerate() {
            let station = &mut self.stations[end];
            while let Some(frame) = self.back[end].arrived(now) {
                station.wire.arrived.push_back(frame);
            }
            station.poll(now);
            while let Some(frame) = station.wire.sent.pop_front() {
                self.there[end].send(frame, now);
            }
            while let Some(frame) = self.there[end].arrived(now) {
                self.node.push(interface, &frame);
            }
        }
        self.node.step(Nanos(0));
        for (end, (_, interface)) in ENDS.into_iter().enumerate() {
            while let Some(frame) = self.node.pop(interface) {
                self.back[end].send(frame, now);
            }
        }
    }

    /// Until something happens.
    fn wait(&mut self, now: Nanos) {
        let roads = self.there.iter().chain(&self.back).filter_map(Road::next);
        let next = roads.chain(self.stations.iter_mut().filter_map(|station| station.wakes(now))).min();
        let next = next.unwrap_or(now).max(now.plus(QUANTUM));
        self.node.step(next.since(now));
    }
}

/// The byte at this place of what is sent.
fn byte(at: usize) -> u8 {
    ((at as u32).wrapping_mul(2_654_435_761) >> 24) as u8
}

fn receive(data: &[u8], at: usize) -> usize {
    assert!(data.iter().zip(at..).all(|(got, at)| *got == byte(at)), "what arrived is what was sent");
    data.len()
}

/// One way between a station and the node.
struct Road {
    weather: Weather,
    random: Seeded,
    under_way: BTreeMap<(Nanos, u64), Vec<u8>>,
    count: u64,
}

impl Road {
    fn send(&mut self, frame: Vec<u8>, now: Nanos) {
        let Weather { loss, duplicate, delay, jitter } = self.weather;
        if self.random.below(1_000) < loss {
            return;
        }
        let copies = 1 + u64::from(self.random.below(1_000) < duplicate);
        for _ in 0..copies {
            let late = Nanos(self.random.below(jitter.0 + 1));
            self.count += 1;
            self.under_way.insert((now.plus(delay).plus(late), self.count), frame.clone());
        }
    }

    fn arrived(&mut self, now: Nanos) -> Option<Vec<u8>> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    fn next(&self) -> Option<Nanos> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }
}
