//! Longest-prefix match alone, on a table of routes from a file or a made-up one, in turns with a peer.

mod check;
pub mod files;
mod peer;

use crate::measure::{Sample, Spread, fill, short, table};
use crate::random::{Random, Zipf};
use crate::{Common, record};
use anyhow::{Result, ensure};
use clap::Args;
use margay_dataplane::fib::lpm::{Lpm, Routes};
use margay_dataplane::net::{Addr, Prefix};
use peer::Peer;
use serde::Serialize;
use std::fmt::Write;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

/// Addresses looked up in one turn.
const TURN: usize = 1 << 20;
/// Destinations that Zipf's law is spread over.
const ZIPF: usize = 1_000_000;
/// Routes of the made-up table.
const ROUTES: u32 = 100_000;
/// Batches that are measured; 1 is the call for one address.
const BATCHES: [usize; 4] = [1, 32, 64, 256];
/// Those the peer is given.
const PEER_BATCHES: [usize; 3] = [32, 64, 256];
/// Changed routes that are published together: what comes in a millisecond at a million a second.
const TOGETHER: usize = 1000;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Routes of one family, one a line: a prefix, and perhaps a number behind it; `-`: standard input
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Changes, one a line: `A PREFIX` or `W PREFIX`, as a router sent them; without: routes of the table that
    /// lead elsewhere
    #[arg(long, value_name = "FILE")]
    changes: Option<PathBuf>,
    /// The program of bench/peers/rte_fib, to take turns with
    #[arg(long, value_name = "PATH")]
    peer: Option<PathBuf>,
    /// Measure nothing: compare this many lookups, half of them within routes, with those of a naive table; then
    /// some after each of the changes, published alone
    #[arg(long, value_name = "LOOKUPS")]
    check: Option<u64>,
    /// Read no clock, time nothing: only look this many addresses within routes up, one at a time, to be counted by
    /// valgrind
    #[arg(long, value_name = "LOOKUPS", conflicts_with = "check", value_parser = clap::value_parser!(u64).range(1..=TURN as u64))]
    untimed: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Figures of one table. Nanoseconds are of CPU time.
#[derive(Serialize)]
struct Figures {
    routes: usize,
    lookup_bytes: usize,
    build_seconds: Spread,
    /// A changed route, when a thousand are published together, and when each is alone.
    change_nanos: Spread,
    change_alone_nanos: Spread,
    lookups: Vec<Turns>,
    peer: Option<PeerFigures>,
}

#[derive(Serialize)]
struct PeerFigures {
    bytes: usize,
    build_seconds: f64,
    change_nanos: f64,
    /// The peer's median in batches of 64 over ours, by order of addresses.
    times_faster: Vec<(String, f64)>,
}

/// One way of looking up, over all rounds.
#[derive(Serialize)]
struct Turns {
    case: String,
    nanos: Spread,
}

/// Addresses of one family, in the form that is looked up.
pub enum Keys {
    V4(Vec<u32>),
    V6(Vec<u128>),
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let routes = match &options.table {
        Some(path) => files::routes(path)?,
        None => synthetic(),
    };
    let v4 = routes[0].0.is_v4();
    ensure!(routes.iter().all(|(prefix, _)| prefix.is_v4() == v4), "the table holds both families; give one");
    if let Some(lookups) = options.untimed {
        let lpm = Lpm::build(routes.iter().copied())?;
        let mut random = Random::new(2);
        for _ in 0..lookups {
            black_box(lpm.lookup(within(random.pick(&routes).0, &mut random)));
        }
        return Ok(());
    }
    if let Some(lookups) = options.check {
        let changes = options.changes.as_deref().map(files::changes).transpose()?.unwrap_or_default();
        let check::Checked { lookups, changes, after_changes } = check::check(&routes, &changes, lookups)?;
        println!(
            "{lookups} lookups among {} routes, and {after_changes} after {changes} changes: all as the naive table has them",
            routes.len()
        );
        return Ok(());
    }
    if options.peer.is_none() {
        eprintln!("NO PEER: figures without --peer say nothing about who is faster; see bench/peers/rte_fib");
    }
    let changes = match &options.changes {
        Some(path) => files::changes(path)?,
        None => routes.iter().map(|(prefix, value)| (*prefix, Some(value ^ 1))).collect(),
    };
    let figures = measure(options, &routes, &changes)?;
    if !options.common.output.json {
        print(&figures);
    }
    record::finish(&options.common.output, &[figures])
}

fn measure(
    options: &Options,
    routes: &[(Prefix, u32)],
    changes: &[(Prefix, Option<u32>)],
) -> Result<Figures> {
    let orders = orders(routes);
    let lpm = Lpm::build(routes.iter().copied())?;
    let mut peer = match &options.peer {
        Some(path) => {
            let keys: Vec<&Keys> = orders.iter().map(|(_, keys)| keys).collect();
            let mut peer = Peer::start(path, routes, &keys)?;
            for (number, (name, keys)) in orders.iter().enumerate() {
                let theirs = peer.answers(number)?;
                ensure!(keys.answers(&lpm, 64) == theirs, "the peer disagrees on the order {name}");
            }
            Some(peer)
        }
        None => None,
    };
    for (name, keys) in &orders {
        ensure!(keys.answers(&lpm, 1) == keys.answers(&lpm, 64), "{name}: a batch and one address differ");
    }

    let span = Duration::from_secs_f64(options.common.seconds / f64::from(options.common.rounds));
    let (mut ours, mut theirs) = (vec![], vec![]);
    let (mut builds, mut together, mut alone) = (vec![], vec![], vec![]);
    for _ in 0..options.common.rounds {
        for (number, (_, keys)) in orders.iter().enumerate() {
            for batch in BATCHES {
                ours.push(fill(span, || Ok(Sample::of(|| keys.look_up(&lpm, batch))))?.nanos_each());
            }
            if let Some(peer) = &mut peer {
                for batch in PEER_BATCHES {
                    theirs.push(peer.turn(number, batch, span.as_millis() as u64)?);
                }
            }
        }
        let sample = Sample::of(|| u64::from(black_box(Lpm::build(routes.iter().copied())).is_ok()));
        builds.push(sample.nanos_each() / 1e9);
        together.push(change(routes, changes, TOGETHER)?);
        alone.push(change(routes, &changes[..changes.len().min(1000)], 1)?);
    }
    let each = |name: &str, batch: usize| match batch {
        1 => format!("{name}, one at a time"),
        _ => format!("{name}, {batch}"),
    };
    let fold = |all: &[f64], batches: &[usize], who: &str| -> Vec<Turns> {
        let cases = orders.iter().flat_map(|(name, _)| batches.iter().map(move |batch| (name, batch)));
        let count = orders.len() * batches.len();
        cases
            .enumerate()
            .map(|(at, (name, batch))| Turns {
                case: each(&format!("{who}{name}"), *batch),
                nanos: Spread::of(all.iter().copied().skip(at).step_by(count)),
            })
            .collect()
    };
    let mut lookups = fold(&ours, &BATCHES, "");
    let peer = match peer {
        Some(mut peer) => {
            let turns = fold(&theirs, &PEER_BATCHES, "rte_fib ");
            let at_64 = |turns: &[Turns], name: &str| {
                let case = each(name, 64);
                turns.iter().find(|turn| turn.case == case).map_or(f64::NAN, |turn| turn.nanos.median)
            };
            let times = |(name, _): &(&str, Keys)| {
                let times = at_64(&turns, &format!("rte_fib {name}")) / at_64(&lookups, name);
                ((*name).to_owned(), (100.0 * times).round() / 100.0)
            };
            let times_faster = orders.iter().map(times).collect();
            lookups.extend(turns);
            let changed: Vec<_> = changes
                .iter()
                .filter_map(|(prefix, value)| Some((*prefix, (*value)?)))
                .take(200_000)
                .collect();
            let change_nanos = peer.change(&changed)?;
            let peer::Built { bytes, build_seconds } = peer.built;
            Some(PeerFigures { bytes, build_seconds, change_nanos, times_faster })
        }
        None => None,
    };
    Ok(Figures {
        routes: routes.len(),
        lookup_bytes: lpm.bytes(),
        build_seconds: Spread::exact(builds),
        change_nanos: Spread::of(together),
        change_alone_nanos: Spread::of(alone),
        lookups,
        peer,
    })
}

/// Nanoseconds a changed route, `together` at a time from the change to the published table.
fn change(routes: &[(Prefix, u32)], changes: &[(Prefix, Option<u32>)], together: usize) -> Result<f64> {
    let mut wanted = Routes::new();
    for (prefix, value) in routes {
        wanted.insert(*prefix, *value)?;
    }
    let mut published = wanted.publish();
    let mut failed = None;
    let sample = Sample::of(|| {
        for some in changes.chunks(together) {
            for (prefix, value) in some {
                match value {
                    Some(value) => failed = wanted.insert(*prefix, *value).err().or(failed),
                    None => _ = wanted.remove(*prefix),
                }
            }
            published = black_box(wanted.publish());
        }
        changes.len() as u64
    });
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(sample.nanos_each()),
    }
}

impl Keys {
    fn of(addrs: &[Addr]) -> Self {
        if addrs.first().is_some_and(|addr| addr.is_v4()) {
            Self::V4(addrs.iter().map(|addr| addr.v4_bits()).collect())
        } else {
            Self::V6(addrs.iter().map(|addr| addr.bits()).collect())
        }
    }

    /// Looks all of them up; says how many they were.
    fn look_up(&self, lpm: &Lpm, batch: usize) -> u64 {
        let mut answers = [0; 256];
        match self {
            Self::V4(keys) if batch == 1 => {
                for key in keys {
                    black_box(lpm.lookup_v4(black_box(*key)));
                }
                keys.len() as u64
            }
            Self::V6(keys) if batch == 1 => {
                for key in keys {
                    black_box(lpm.lookup_v6(black_box(*key)));
                }
                keys.len() as u64
            }
            Self::V4(keys) => {
                for keys in keys.chunks(batch) {
                    lpm.lookup_batch_v4(keys, &mut answers[..keys.len()]);
                    black_box(&answers);
                }
                keys.len() as u64
            }
            Self::V6(keys) => {
                for keys in keys.chunks(batch) {
                    lpm.lookup_batch_v6(keys, &mut answers[..keys.len()]);
                    black_box(&answers);
                }
                keys.len() as u64
            }
        }
    }

    fn answers(&self, lpm: &Lpm, batch: usize) -> Vec<Option<u32>> {
        let found = |answer| Some(answer).filter(|answer| *answer != Lpm::NO_ROUTE);
        match self {
            Self::V4(keys) if batch == 1 => keys.iter().map(|key| lpm.lookup_v4(*key)).collect(),
            Self::V6(keys) if batch == 1 => keys.iter().map(|key| lpm.lookup_v6(*key)).collect(),
            Self::V4(keys) => {
                let mut answers = vec![0; keys.len()];
                lpm.lookup_batch_v4(keys, &mut answers);
                answers.into_iter().map(found).collect()
            }
            Self::V6(keys) => {
                let mut answers = vec![0; keys.len()];
                lpm.lookup_batch_v6(keys, &mut answers);
                answers.into_iter().map(found).collect()
            }
        }
    }

    /// An address a line.
    fn lines(&self) -> String {
        let mut text = String::new();
        let mut add = |addr: Addr| {
            // To a string this cannot fail.
            let _ = writeln!(text, "{addr}");
        };
        match self {
            Self::V4(keys) => keys.iter().for_each(|key| add(Addr::v4(key.to_be_bytes()))),
            Self::V6(keys) => keys.iter().for_each(|key| add(Addr::from_bits(*key))),
        }
        text
    }
}

/// Addresses to look up: anywhere, within prefixes, and by Zipf's law.
fn orders(routes: &[(Prefix, u32)]) -> Vec<(&'static str, Keys)> {
    let prefixes: Vec<Prefix> = routes.iter().map(|(prefix, _)| *prefix).collect();
    let mut random = Random::new(2);
    let anywhere: Vec<Addr> = (0..TURN).map(|_| within(all(!prefixes[0].is_v4()), &mut random)).collect();
    let spread: Vec<Addr> = (0..TURN).map(|_| within(*random.pick(&prefixes), &mut random)).collect();
    let zipf = zipf(&prefixes, &mut random);
    [("random", anywhere), ("prefix", spread), ("zipf", zipf)]
        .map(|(name, addrs)| (name, Keys::of(&addrs)))
        .into()
}

/// Lengths roughly as in the Internet's table: six in ten are of 24 bits.
fn synthetic() -> Vec<(Prefix, u32)> {
    let mut random = Random::new(1);
    let mut route = |value| {
        let len = if random.chance(60) { 24 } else { 12 + random.below(13) as u8 };
        let addr = Addr::v4((1 << 24 | random.below(223 << 24) as u32).to_be_bytes());
        (Prefix::truncate(addr, len), value % 256)
    };
    (0..ROUTES).map(&mut route).collect()
}

fn all(v6: bool) -> Prefix {
    // What is routed of IPv6 so far: 2000::/3 (RFC 4291 §2.4).
    if v6 { Prefix::truncate(Addr::from_bits(2 << 124), 3) } else { Prefix::truncate(Addr::v4([0; 4]), 0) }
}

fn within(prefix: Prefix, random: &mut Random) -> Addr {
    let noise = u128::from(random.bits()) << 64 | u128::from(random.bits());
    let (first, last) = (prefix.addr().bits(), prefix.last().bits());
    Addr::from_bits(first | noise & (last ^ first))
}

/// Destinations of which the n-th is asked for as often as 1/n.
fn zipf(prefixes: &[Prefix], random: &mut Random) -> Vec<Addr> {
    let destinations: Vec<Addr> = (0..ZIPF).map(|_| within(*random.pick(prefixes), random)).collect();
    let law = Zipf::new(ZIPF);
    (0..TURN).map(|_| destinations[law.draw(random)]).collect()
}

fn print(figures: &Figures) {
    let count = short(figures.routes as u64);
    println!("{count} routes: {:.1} MB for lookups", figures.lookup_bytes as f64 / 1e6);
    println!("built in {:.3} s", figures.build_seconds.median);
    println!(
        "a changed route: {:.0} ns, {TOGETHER} published together; {:.0} ns alone",
        figures.change_nanos.median, figures.change_alone_nanos.median
    );
    if let Some(peer) = &figures.peer {
        println!(
            "rte_fib: {:.1} MB, its routes among them; built in {:.3} s; a changed route {:.0} ns",
            peer.bytes as f64 / 1e6,
            peer.build_seconds,
            peer.change_nanos
        );
    }
    println!("\nNanoseconds of CPU time a lookup, median (least to most).");
    let rows: Vec<_> =
        figures.lookups.iter().map(|turn| vec![turn.case.clone(), turn.nanos.text()]).collect();
    table(&["case", "ns"], &rows);
    for (name, times) in figures.peer.iter().flat_map(|peer| &peer.times_faster) {
        println!("{name}: {times:.2} times as fast as rte_fib, in batches of 64");
    }
}
