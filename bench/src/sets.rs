//! IP sets: what a change of members costs until it is published, and what a lookup costs.
//!
//! A set of random IPv4 addresses, named by a rule of the one workload. Lookups are compared with a
//! hash map from address to class, one at a time, and in batches whose lines are fetched first.

use crate::measure::{Sample, Spread, Work, alternate, short, table};
use crate::random::Random;
use crate::rig::{PEER_MAC, Rig, Setup, UPLINK_MAC};
use crate::rules::Rules;
use crate::wire::Stream;
use crate::{Common, record};
use anyhow::{Result, ensure};
use clap::Args;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::control::State;
use margay_dataplane::net::{Addr, FlowKey, Nanos, Proto};
use margay_dataplane::packet::VECTOR;
use margay_dataplane::policy::SetTable;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Different addresses that are looked up in turn, a multiple of [`BATCH`].
const LOOKUPS: usize = 1 << 18;
/// Lookups whose lines are fetched at once.
const BATCH: usize = 64;
/// Commits of one member whose times are kept.
const COMMITS: usize = 4000;
const NOW: Nanos = Nanos::from_secs(1);
const SET: &str = "s:members";

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Members of the set
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1000,100000,1048576", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    members: Vec<u32>,
    /// Members that come and go in one large delta
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    delta: u32,
    #[command(flatten)]
    common: Common,
}

/// Of one size. Times are of the control thread, from the parsed message to the published snapshot:
/// its own time in milliseconds, which others' work does not lengthen; of one member the time that passed.
#[derive(Debug, Serialize)]
struct Figures {
    members: u32,
    build_ms: f64,
    one_member_p50_us: f64,
    one_member_p99_us: f64,
    one_member_max_us: f64,
    delta: u32,
    delta_ms: Spread,
    /// One commit after the other while a worker forwards.
    updates_a_second: f64,
    /// Of the updating thread alone.
    update_cpu_us: f64,
    forwarded_meanwhile: u64,
    lookup_ns: Spread,
    lookup_prefetched_ns: Spread,
    map_ns: Spread,
    lookup_bytes: usize,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let figures: Vec<Figures> =
        options.members.iter().map(|count| measure(*count, options)).collect::<Result<_>>()?;
    if !options.common.output.json {
        let us = |figure: f64| format!("{figure:.1}");
        let row = |f: &Figures| {
            vec![
                short(f.members.into()),
                us(f.build_ms),
                us(f.one_member_p50_us),
                us(f.one_member_p99_us),
                us(f.delta_ms.median),
                format!("{:.0}", f.updates_a_second),
                us(f.update_cpu_us),
                us(f.lookup_ns.median),
                us(f.lookup_prefetched_ns.median),
                us(f.map_ns.median),
            ]
        };
        let rows: Vec<_> = figures.iter().map(row).collect();
        let delta = format!("{} in a delta, ms", short(options.delta.into()));
        let heads = [
            "members",
            "build, ms",
            "one, p50 us",
            "p99 us",
            &delta,
            "updates/s",
            "CPU us each",
            "lookup, ns",
            "batched",
            "hash map",
        ];
        table(&heads, &rows);
    }
    record::finish(&options.common.output, &figures)
}

fn measure(count: u32, options: &Options) -> Result<Figures> {
    let mut random = Random::new(0x7365_7473);
    let (members, others) = distinct(count as usize, options.delta as usize, &mut random);
    let mut rig = Rig::new(Setup { batch: VECTOR, sessions: 1 << 14, ticks: || 0 }, &one_rule())?;
    let mut agent = Agent { generation: 1, times: vec![] };
    let (_, state) = rig.ends();
    let build_ms = agent.timed(state, Change::IpSet(set(&members)))?;
    for address in &members[..members.len().min(1000)] {
        ensure!(!state.policy().sets().of_address(addr(*address)).is_empty(), "every member is found");
    }

    // One member, there and back again, another one each time.
    agent.times.clear();
    for at in 0..COMMITS / 2 {
        let other = [others[at % others.len()]];
        agent.commit(state, delta(&other, &[]))?;
        agent.commit(state, delta(&[], &other))?;
    }
    agent.times.sort_unstable();
    let at = |share: f64| agent.times[((agent.times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));

    // Many: half of them new, half of them gone, as far as there are so many.
    let half = options.delta as usize / 2;
    let (new, gone) = (&others[..others.len() - half], &members[..half.min(members.len())]);
    let mut deltas = vec![];
    for _ in 0..options.common.rounds.div_ceil(2) {
        deltas.push(agent.timed(state, delta(new, gone))?);
        deltas.push(agent.timed(state, delta(gone, new))?);
    }

    let sustained = sustain(&mut rig, &mut agent, &members, &others, options)?;
    let (_, state) = rig.ends();
    let [lookup_ns, lookup_prefetched_ns, map_ns] = lookups(state, &members, &mut random, &options.common)?;
    Ok(Figures {
        members: count,
        build_ms,
        one_member_p50_us: p50,
        one_member_p99_us: p99,
        one_member_max_us: max,
        delta: options.delta,
        delta_ms: Spread::of(deltas),
        updates_a_second: sustained.updates as f64 / sustained.seconds,
        update_cpu_us: sustained.cpu_us,
        forwarded_meanwhile: sustained.packets,
        lookup_ns,
        lookup_prefetched_ns,
        map_ns,
        lookup_bytes: rig.policy().sets().lookup_bytes(),
    })
}

/// Says what an agent would.
struct Agent {
    generation: u64,
    times: Vec<Duration>,
}

impl Agent {
    fn commit(&mut self, state: &mut State, change: Change) -> Result<()> {
        self.generation += 1;
        let commit = pb::Commit { generation: self.generation, in_sync: true };
        let start = Instant::now();
        let outcome = state.commit(&[pb::Change { change: Some(change) }], &commit, NOW);
        let took = start.elapsed();
        outcome.map_err(|errors| anyhow::anyhow!("the change was refused: {errors:?}"))?;
        self.times.push(took);
        Ok(())
    }

    /// The thread's own milliseconds.
    fn timed(&mut self, state: &mut State, change: Change) -> Result<f64> {
        let mut outcome = Ok(());
        let sample = Sample::of(|| {
            outcome = self.commit(state, change);
            1
        });
        outcome.map(|()| sample.nanos_each() / 1e6)
    }
}

struct Sustained {
    updates: u64,
    seconds: f64,
    cpu_us: f64,
    packets: u64,
}

/// Updates one member after the other, while another thread has a worker forward.
fn sustain(
    rig: &mut Rig,
    agent: &mut Agent,
    members: &[u32],
    others: &[u32],
    options: &Options,
) -> Result<Sustained> {
    let sources = members.iter().chain(others).cycle().take(1 << 16);
    let key = |source: &u32| FlowKey {
        src: addr(*source),
        dst: Rig::destination(false),
        sport: 4000,
        dport: 53,
        proto: Proto::UDP,
    };
    rig.feed(Stream::new(PEER_MAC, UPLINK_MAC, &sources.map(key).collect::<Vec<_>>(), 64));
    rig.open();
    let before = rig.counters().rx.get();
    let span = Duration::from_secs_f64(options.common.seconds);
    let (worker, state) = rig.ends();
    let (over, mut updates) = (AtomicBool::new(false), 0);
    let start = Instant::now();
    let sample = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut now = NOW;
            while !over.load(Relaxed) {
                now = now.plus(Nanos(10_000));
                worker.poll(now);
                while worker.world().events.pop().is_some() {}
            }
        });
        let mut outcome = Ok(());
        let sample = Sample::of(|| {
            while outcome.is_ok() && start.elapsed() < span {
                let other = [others[(updates / 2) as usize % others.len()]];
                let change = if updates % 2 == 0 { delta(&other, &[]) } else { delta(&[], &other) };
                outcome = agent.commit(state, change);
                updates += 1;
            }
            updates
        });
        over.store(true, Relaxed);
        outcome.map(|()| sample)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    rig.check();
    let packets = rig.counters().rx.get() - before;
    Ok(Sustained { updates, seconds, cpu_us: sample.nanos_each() / 1e3, packets })
}

/// One at a time, in batches, and of a hash map; the answers are compared before.
fn lookups(state: &State, members: &[u32], random: &mut Random, common: &Common) -> Result<[Spread; 3]> {
    let sets = state.policy().sets().clone();
    let asked: Rc<[Addr]> = (0..LOOKUPS).map(|_| addr(*random.pick(members))).collect();
    let mut map: HashMap<Addr, u32, ahash::RandomState> =
        HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
    map.extend(members.iter().map(|member| (addr(*member), 0)));
    for address in asked.iter() {
        ensure!(sets.of_address(*address).is_empty() != map.contains_key(address), "both find {address}");
    }
    let ids: Vec<_> = sets.iter().filter(|(_, set)| &*set.name == SET).map(|(id, _)| [id]).collect();
    let (single, batch, maps) = (asked.clone(), asked.clone(), asked);
    let one = |sets: &SetTable, addr: &Addr| sets.of_address(*addr).len() as u64;
    let (a, b) = (sets.clone(), sets);
    let scalar = move || black_box(single.iter().map(|addr| one(&a, black_box(addr))).sum::<u64>());
    let batched = move || {
        let mut found = 0;
        for batch in batch.chunks_exact(BATCH) {
            batch.iter().for_each(|addr| b.prefetch_address(*addr));
            found += batch.iter().map(|addr| one(&b, black_box(addr))).sum::<u64>();
        }
        black_box(found)
    };
    let mapped = move || {
        let class = |addr: &Addr| map.get(black_box(addr)).map_or(0, |class| ids[*class as usize].len());
        black_box(maps.iter().map(class).sum::<usize>()) as u64
    };
    let cases: Vec<(String, Work<'_>)> = vec![
        ("lookup".into(), Box::new(scalar)),
        ("batched".into(), Box::new(batched)),
        ("hash map".into(), Box::new(mapped)),
    ];
    let figures = alternate(common, cases)?;
    Ok([figures[0].nanos, figures[1].nanos, figures[2].nanos])
}

/// Random addresses, each once.
pub fn distinct(members: usize, others: usize, random: &mut Random) -> (Vec<u32>, Vec<u32>) {
    let mut seen = HashSet::new();
    let mut drawn = vec![];
    while drawn.len() < members + others {
        // 10.0.0.0/8 is too small for four million to be spread as they come.
        let address = random.bits() as u32 & 0x3fff_ffff | 0x4000_0000;
        if seen.insert(address) {
            drawn.push(address);
        }
    }
    let others = drawn.split_off(members);
    (drawn, others)
}

/// As the dataplane has it.
pub fn addr(bits: u32) -> Addr {
    Addr::v4(bits.to_be_bytes())
}

fn packed(addresses: &[u32]) -> pb::Members {
    pb::Members { ipv4: addresses.iter().flat_map(|a| a.to_be_bytes()).collect(), ipv6: vec![] }
}

/// The set with these members.
pub fn set(addresses: &[u32]) -> pb::IpSet {
    pb::IpSet { id: SET.into(), r#type: pb::ip_set::Type::Ip.into(), members: Some(packed(addresses)) }
}

/// Some come, some go.
pub fn delta(added: &[u32], removed: &[u32]) -> Change {
    Change::IpSetDelta(pb::IpSetDelta {
        id: SET.into(),
        added: Some(packed(added)),
        removed: Some(packed(removed)),
    })
}

/// Whom the set holds may come in.
pub fn one_rule() -> Rules {
    let id =
        pb::PolicyId { kind: "NetworkPolicy".into(), namespace: "default".into(), name: "members".into() };
    let rule =
        pb::Rule { action: pb::Action::Allow.into(), src_ip_set_ids: vec![SET.into()], ..Default::default() };
    let policy = pb::Policy {
        id: Some(id.clone()),
        tier: "default".into(),
        inbound_rules: vec![rule],
        ..Default::default()
    };
    let changes = [Change::IpSet(set(&[])), Change::Policy(policy)];
    Rules {
        changes: changes.map(|change| pb::Change { change: Some(change) }).into(),
        ids: vec![id],
        aims: vec![],
    }
}
