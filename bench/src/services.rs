//! Services: what their Maglev tables cost to make, and what a change costs while a million backends'
//! are being made.
//!
//! The control thread publishes services without most of their tables, and another thread makes these
//! beside it, as in the process. Meanwhile one service after the other loses a backend and gets it
//! back, and a policy changes; the time of each commit is kept.

use crate::measure::{Sample, Spread, table};
use crate::rig::{Rig, Setup};
use crate::rules::Rules;
use crate::{Common, record};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use margay_api::dataplane::v1::{self as pb, change::Change, service};
use margay_dataplane::control::State;
use margay_dataplane::net::{Addr, Nanos};
use margay_dataplane::packet::VECTOR;
use margay_dataplane::service::{Backend, Backends};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const NOW: Nanos = Nanos::from_secs(1);
/// Services of one message from the agent: 100,000 backends take some megabytes.
const IN_A_COMMIT: u32 = 100;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Backends of all services together
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=4_000_000))]
    backends: u32,
    /// Backends of each service
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    each: u32,
    #[command(flatten)]
    common: Common,
}

/// A table of one size.
#[derive(Debug, Serialize)]
struct Built {
    members: u32,
    /// The heaviest member's weight; the lightest has 1.
    weight: u32,
    places: u32,
    bytes: usize,
    /// Of the thread alone.
    ms: Spread,
}

/// All services.
#[derive(Debug, Serialize)]
struct Figures {
    tables: Vec<Built>,
    services: u32,
    backends: u32,
    /// From the parsed messages to the published snapshots, most tables left for later.
    published_ms: f64,
    /// Of the thread that makes what was left.
    built_cpu_ms: f64,
    left: usize,
    table_bytes: usize,
    /// Commits while tables were made, and the time that passed for each.
    commits: usize,
    commit_p50_us: f64,
    commit_p99_us: f64,
    commit_max_us: f64,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let mut tables = vec![];
    for (members, weight) in [(10, 1), (100, 1), (1000, 1), (1000, 10), (10_000, 1), (65_536, 1)] {
        tables.push(built(members, weight, &options.common)?);
    }
    let figures = [publish(options, tables)?];
    if !options.common.output.json {
        let row = |b: &Built| {
            let times = format!("{:.3} ({:.3} to {:.3})", b.ms.median, b.ms.min, b.ms.max);
            vec![
                b.members.to_string(),
                format!("1 to {}", b.weight),
                b.places.to_string(),
                b.bytes.to_string(),
                times,
            ]
        };
        let rows: Vec<_> = figures[0].tables.iter().map(row).collect();
        table(&["backends", "weights", "places", "bytes", "built, ms (min to max)"], &rows);
        let f = &figures[0];
        println!(
            "\n{} services of {} backends: published in {:.0} ms; {} tables left, made beside in {:.0} ms of CPU, {} MB.\n\
             {} commits meanwhile: p50 {:.0}, p99 {:.0}, most {:.0} us.",
            f.services,
            options.each,
            f.published_ms,
            f.left,
            f.built_cpu_ms,
            f.table_bytes / 1_000_000,
            f.commits,
            f.commit_p50_us,
            f.commit_p99_us,
            f.commit_max_us,
        );
    }
    record::finish(&options.common.output, &figures)
}

/// A table, made anew each round.
fn built(members: u32, weight: u32, common: &Common) -> Result<Built> {
    let set = || {
        let backend = |n: u32| Backend {
            addr: Addr::v4((0x0a00_0000 + n).to_be_bytes()),
            port: 8080,
            local: false,
            weight: 1 + n % weight,
            number: 0,
        };
        Backends::new((0..members).map(backend).collect(), false)
    };
    let mut rounds = vec![];
    for _ in 0..common.rounds {
        let set = set();
        let sample = Sample::of(|| {
            set.build();
            1
        });
        rounds.push(sample.nanos_each() / 1e6);
    }
    let set = set();
    set.build();
    ensure!(set.is_built(), "the table is there");
    Ok(Built { members, weight, places: set.size(), bytes: set.bytes(), ms: Spread::exact(rounds) })
}

fn publish(options: &Options, tables: Vec<Built>) -> Result<Figures> {
    let services = options.backends / options.each;
    let rules = Rules::new(100, false);
    let mut rig = Rig::new(Setup { batch: VECTOR, sessions: 1 << 14, ticks: || 0 }, &rules)?;
    let (_, state) = rig.ends();
    let mut agent = Agent { generation: 1, times: vec![] };
    let start = Instant::now();
    for first in (0..services).step_by(IN_A_COMMIT as usize) {
        let some = first..services.min(first + IN_A_COMMIT);
        agent.commit(state, some.map(|n| change(n, options.each)).collect())?;
    }
    let published_ms = start.elapsed().as_secs_f64() * 1e3;
    agent.times.clear();

    let left = state.take_unbuilt();
    ensure!(!left.is_empty(), "so many tables are not made at once");
    let policy = |rule: bool| {
        let mut change = rules.changes.last().cloned().context("there is a policy")?;
        if let (Some(Change::Policy(policy)), false) = (&mut change.change, rule) {
            policy.inbound_rules.pop();
        }
        anyhow::Ok(change)
    };
    let policies = [policy(false)?, policy(true)?];
    let over = AtomicBool::new(false);
    let building = std::thread::scope(|scope| {
        let building = scope.spawn(|| {
            let sample = Sample::of(|| {
                left.iter().for_each(|set| set.build());
                1
            });
            over.store(true, Relaxed);
            sample
        });
        let mut n = 0;
        while !over.load(Relaxed) {
            let service = n / 2 % services;
            agent.commit(state, vec![change(service, options.each - (n + 1) % 2)])?;
            agent.commit(state, vec![policies[n as usize % 2].clone()])?;
            n += 1;
        }
        building.join().map_err(|_| anyhow::anyhow!("the thread that makes tables failed"))
    })?;
    agent.times.sort_unstable();
    ensure!(!agent.times.is_empty(), "tables were made before anything changed: more backends are needed");
    let at = |share: f64| agent.times[((agent.times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok(Figures {
        tables,
        services,
        backends: services * options.each,
        published_ms,
        built_cpu_ms: building.nanos_each() / 1e6,
        left: left.len(),
        table_bytes: left.iter().map(|set| set.bytes()).sum(),
        commits: agent.times.len(),
        commit_p50_us: at(0.5),
        commit_p99_us: at(0.99),
        commit_max_us: at(1.0),
    })
}

/// Says what an agent would.
struct Agent {
    generation: u64,
    times: Vec<Duration>,
}

impl Agent {
    fn commit(&mut self, state: &mut State, changes: Vec<pb::Change>) -> Result<()> {
        self.generation += 1;
        let commit = pb::Commit { generation: self.generation, in_sync: true };
        let start = Instant::now();
        let outcome = state.commit(&changes, &commit, NOW);
        self.times.push(start.elapsed());
        outcome.map_err(|errors| anyhow::anyhow!("the change was refused: {errors:?}"))
    }
}

/// Service `n`, with so many backends.
fn change(n: u32, backends: u32) -> pb::Change {
    let backend = |b: u32| service::Backend {
        address: (0x0a00_0000 + n * 1000 % 0x00ff_0000 + b).to_be_bytes().into(),
        ports: [("tcp".to_owned(), 8080)].into(),
        ready: true,
        preferred: true,
        ..Default::default()
    };
    let service = pb::Service {
        id: Some(pb::ServiceId { namespace: "bench".into(), name: format!("s{n}") }),
        cluster_ips: vec![(0x0b00_0000 + n).to_be_bytes().into()],
        ports: vec![service::Port { name: "tcp".into(), protocol: 6, port: 80, node_port: 0 }],
        backends: (0..backends).map(backend).collect(),
        ..Default::default()
    };
    pb::Change { change: Some(Change::Service(service)) }
}
