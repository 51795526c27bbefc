//! Classification of ClassBench's traces by its filter sets, in the same run as a peer.

mod adversary;
mod files;
mod peer;

use crate::measure::{Sample, Spread, fill, table};
use crate::random::Random;
use crate::{Common, record};
use anyhow::{Result, ensure};
use clap::Args;
use files::{Packet, Set};
use margay_dataplane::policy::{CompiledPolicy, Query, Room, SetTable, Verdict, compile, reference};
use peer::Peer;
use serde::Serialize;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Packets that the linear reference judges too.
const CHECKED: usize = 200;
/// Batches that are measured; 1 is the call for one packet.
const BATCHES: [usize; 4] = [1, 32, 64, 256];
/// Those the peer is given.
const PEER_BATCHES: [usize; 3] = [32, 64, 256];
/// Where the sets are, beside a checkout.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/classbench");

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Folder of filter sets, NAME, and their traces, NAME_trace, as they are or with .xz behind
    #[arg(long, value_name = "DIR", default_value = DATA, hide_default_value = true)]
    data: PathBuf,
    /// Sets; all there are in the folder if not given
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    set: Vec<String>,
    /// The program of bench/peers/rte_acl, to take turns with
    #[arg(long, value_name = "PATH")]
    peer: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Figures of one set. Nanoseconds are of CPU time a packet.
#[derive(Serialize)]
struct Figures {
    set: String,
    rules: usize,
    bytes_a_rule: f64,
    bytes_a_rule_ipv6: f64,
    compile_and_prove_seconds: Spread,
    /// Nodes and blocks of leaves that a packet of the trace meets, on average, and one of the adversary's.
    work: [f64; 2],
    work_adversarial: [f64; 2],
    turns: Vec<Turns>,
    peer: Option<PeerFigures>,
}

#[derive(Serialize)]
struct PeerFigures {
    bytes_a_rule: f64,
    build_seconds: f64,
    /// The peer's least median of all batches over ours.
    times_faster: f64,
}

/// One way of judging, over all rounds.
#[derive(Serialize)]
struct Turns {
    case: String,
    nanos: Spread,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let names = if options.set.is_empty() { Set::names(&options.data)? } else { options.set.clone() };
    ensure!(!names.is_empty(), "{} holds no filter sets", options.data.display());
    if options.peer.is_none() {
        eprintln!("NO PEER: figures without --peer say nothing about who is faster; see bench/peers/rte_acl");
    }
    let mut figures = vec![];
    for name in names {
        figures.push(measure(&Set::read(&options.data, &name)?, options)?);
    }
    if !options.common.output.json {
        print(&figures);
    }
    record::finish(&options.common.output, &figures)
}

/// Packets in the form that is judged, and who judges them.
struct Case<'a> {
    name: String,
    policy: &'a CompiledPolicy,
    queries: &'a [Query],
    batch: usize,
    rounds: Vec<f64>,
}

fn measure(set: &Set, options: &Options) -> Result<Figures> {
    eprintln!("{}: {} rules, {} packets", set.name, set.filters.len(), set.packets.len());
    let [v4, v6] = [false, true].map(|v6| compile(set.rules(v6)));
    let (v4, v6) = (v4?, v6?);
    let mut packets = set.packets.clone();
    Random::new(1).shuffle(&mut packets);
    let queries: Vec<Query> = packets.iter().map(|packet| packet.query(false)).collect();
    let queries6: Vec<Query> = packets.iter().map(|packet| packet.query(true)).collect();
    let mut worst = adversary::packets(set, &v4);
    Random::new(2).shuffle(&mut worst);
    let worst: Vec<Query> = worst.iter().map(|packet| packet.query(false)).collect();
    for (policy, queries) in [(&v4, &queries), (&v4, &worst), (&v6, &queries6)] {
        verify(policy, queries)?;
    }

    let case = |name: &str, policy, queries, batch| Case {
        name: if batch == 1 { format!("{name}, one at a time") } else { format!("{name}, {batch}") },
        policy,
        queries,
        batch,
        rounds: vec![],
    };
    let mut cases: Vec<Case<'_>> =
        BATCHES.into_iter().map(|batch| case("random", &v4, &queries, batch)).collect();
    cases.extend([1, 64].map(|batch| case("adversarial", &v4, &worst, batch)));
    cases.extend([1, 64].map(|batch| case("ipv6", &v6, &queries6, batch)));

    let scratch = tempfile::tempdir()?;
    let start = |path: &Path| Peer::start(path, set, &packets, scratch.path());
    let mut peer = options.peer.as_deref().map(start).transpose()?;
    if let Some(peer) = &mut peer {
        agree(&v4, &packets, &peer.verdicts()?)?;
    }
    let span = Duration::from_secs_f64(options.common.seconds / f64::from(options.common.rounds));
    let mut builds = vec![];
    let mut peers: Vec<Vec<f64>> = vec![vec![]; PEER_BATCHES.len()];
    for _ in 0..options.common.rounds {
        for case in &mut cases {
            let sample = fill(span, || Ok(Sample::of(|| case.judge())))?;
            case.rounds.push(sample.nanos_each());
        }
        if let Some(peer) = &mut peer {
            for (batch, rounds) in PEER_BATCHES.into_iter().zip(&mut peers) {
                rounds.push(peer.turn(batch, span.as_millis() as u64)?);
            }
        }
        let rules = set.rules(false);
        let sample = Sample::of(|| u64::from(black_box(compile(rules)).is_ok()));
        builds.push(sample.nanos_each() / 1e9);
    }
    let rules = set.filters.len() as f64;
    let mut turns: Vec<Turns> =
        cases.into_iter().map(|case| Turns { case: case.name, nanos: Spread::of(case.rounds) }).collect();
    let best = |turns: &[Turns]| turns.iter().map(|turn| turn.nanos.median).fold(f64::MAX, f64::min);
    let ours = best(&turns[1..BATCHES.len()]);
    let peer = peer.map(|peer| {
        let all = PEER_BATCHES.into_iter().zip(peers);
        let theirs: Vec<Turns> = all
            .map(|(batch, rounds)| Turns { case: format!("rte_acl, {batch}"), nanos: Spread::of(rounds) })
            .collect();
        let times_faster = (best(&theirs) / ours * 100.0).round() / 100.0;
        turns.extend(theirs);
        let bytes_a_rule = (peer.built.bytes as f64 / rules).round();
        PeerFigures { bytes_a_rule, build_seconds: peer.built.build_seconds, times_faster }
    });
    Ok(Figures {
        set: set.name.clone(),
        rules: set.filters.len(),
        bytes_a_rule: (v4.bytes() as f64 / rules).round(),
        bytes_a_rule_ipv6: (v6.bytes() as f64 / rules).round(),
        compile_and_prove_seconds: Spread::exact(builds),
        work: work(&v4, &queries),
        work_adversarial: work(&v4, &worst),
        turns,
        peer,
    })
}

/// Nodes and blocks, on average.
fn work(policy: &CompiledPolicy, queries: &[Query]) -> [f64; 2] {
    let sets = SetTable::default();
    let met = queries.iter().map(|query| policy.work(&sets, query));
    let (nodes, blocks) = met.fold((0, 0), |(n, b), work| (n + work.nodes, b + work.blocks));
    [nodes, blocks].map(|sum| (100.0 * f64::from(sum) / queries.len() as f64).round() / 100.0)
}

impl Case<'_> {
    /// Judges every packet once; says how many they were.
    fn judge(&self) -> u64 {
        let (policy, sets) = (self.policy, SetTable::default());
        if self.batch == 1 {
            for query in self.queries {
                black_box(policy.judge(&sets, black_box(query)));
            }
        } else {
            let (mut verdicts, mut room) = ([Verdict { allow: false, slot: 0 }; 256], Room::default());
            for queries in self.queries.chunks(self.batch) {
                policy.judge_batch(&sets, black_box(queries), &mut verdicts[..queries.len()], &mut room);
                black_box(&verdicts);
            }
        }
        self.queries.len() as u64
    }
}

/// The tree and the reference agree on a sample, one at a time and in batches on all.
fn verify(policy: &CompiledPolicy, queries: &[Query]) -> Result<()> {
    let sets = SetTable::default();
    let mut verdicts = vec![Verdict { allow: false, slot: 0 }; queries.len()];
    policy.judge_batch(&sets, queries, &mut verdicts, &mut Room::default());
    for (query, verdict) in queries.iter().zip(&verdicts) {
        ensure!(policy.judge(&sets, query) == *verdict, "a batch and one packet differ: {}", query.key);
    }
    for at in (0..queries.len()).step_by(queries.len().div_ceil(CHECKED)) {
        let right = reference::judge(policy.list(), &sets, &queries[at]);
        let decider = policy.decider(verdicts[at].slot);
        ensure!(
            Some(right.decider()) == decider.as_ref(),
            "the tree and the reference disagree about {}",
            queries[at].key
        );
    }
    Ok(())
}

/// The peer finds the same rules. Only packets with ports are asked about: to us others are in no
/// range of ports, to the peer all have some.
fn agree(policy: &CompiledPolicy, packets: &[Packet], found: &[Option<u32>]) -> Result<()> {
    ensure!(packets.len() == found.len(), "the peer judged another number of packets");
    let sets = SetTable::default();
    let none = policy.deciders().count() as u32 - 2;
    for (packet, theirs) in packets.iter().zip(found) {
        let query = packet.query(false);
        let ours = Some(policy.judge(&sets, &query).slot).filter(|slot| *slot < none);
        ensure!(!query.key.proto.has_ports() || ours == *theirs, "the peer disagrees about {}", query.key);
    }
    Ok(())
}

fn print(figures: &[Figures]) {
    let heads: Vec<&str> = [
        "set",
        "bytes/rule",
        "ipv6",
        "nodes + blocks",
        "adversarial",
        "build s",
        "peer bytes/rule",
        "peer build s",
    ]
    .into();
    let row = |f: &Figures| {
        let peer = |of: fn(&PeerFigures) -> String| f.peer.as_ref().map_or("-".into(), of);
        vec![
            f.set.clone(),
            f.bytes_a_rule.to_string(),
            f.bytes_a_rule_ipv6.to_string(),
            format!("{} + {}", f.work[0], f.work[1]),
            format!("{} + {}", f.work_adversarial[0], f.work_adversarial[1]),
            format!("{:.4}", f.compile_and_prove_seconds.median),
            peer(|p| p.bytes_a_rule.to_string()),
            peer(|p| format!("{:.3}", p.build_seconds)),
        ]
    };
    table(&heads, &figures.iter().map(row).collect::<Vec<_>>());
    println!("\nNanoseconds of CPU time a packet, median (least).");
    let cases = figures[0].turns.iter().map(|turn| turn.case.as_str());
    let heads: Vec<&str> = ["set"].into_iter().chain(cases).chain(["times rte_acl"]).collect();
    let row = |f: &Figures| {
        let turns = f.turns.iter().map(|t| format!("{:.1} ({:.1})", t.nanos.median, t.nanos.min));
        let times = f.peer.as_ref().map_or("NO PEER".into(), |p| format!("{:.2}", p.times_faster));
        [f.set.clone()].into_iter().chain(turns).chain([times]).collect()
    };
    table(&heads, &figures.iter().map(row).collect::<Vec<_>>());
    for size in ["1k", "10k", "100k"] {
        let of_size = figures.iter().filter(|f| f.set.rsplit_once('_').is_some_and(|(_, s)| s == size));
        let times: Vec<f64> = of_size.filter_map(|f| f.peer.as_ref()).map(|p| p.times_faster.ln()).collect();
        if !times.is_empty() {
            let mean = (times.iter().sum::<f64>() / times.len() as f64).exp();
            println!("{size}: {mean:.2} times as fast as rte_acl (geometric mean of {} sets)", times.len());
        }
    }
}
