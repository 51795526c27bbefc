//! Verdicts while contradictory rule sets are swapped: one thread polls packets through the
//! worker, another publishes. Each packet's verdict is compared with the rule set of the
//! generation that is recorded on it, and no packet may be lost.
//!
//! Sources are of four kinds. One rule set allows those in an IP set that holds kinds 0 and 1;
//! the other denies those in the same set, which then holds 0 and 2. So they contradict each other
//! about 0 and 3; and the rules of one over the set of the other would give kinds 1 and 2 a
//! verdict that is neither's.

use crate::measure::{short, table};
use crate::random::Random;
use crate::rig::{PEER_MAC, Rig, Setup, UPLINK_MAC};
use crate::rules::Rules;
use crate::wire::{Stream, Valve, Wire};
use crate::{Output, record};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::control::State;
use margay_dataplane::io::{Device, DeviceCounters, Transmitted};
use margay_dataplane::net::{Addr, FlowKey, Generation, Nanos, Proto};
use margay_dataplane::nodes::Event;
use margay_dataplane::packet::{DropReason, Pool, VECTOR, Vector};
use margay_dataplane::worker::Worker;
use serde::Serialize;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Sources, a quarter of each kind.
const SOURCES: u64 = 1 << 15;
/// Flows the table has room for: fewer, so that some packets begin a flow and some have one.
const SESSIONS: u32 = 1 << 14;
/// Packets that are drawn before they come again in the same order.
const DRAWN: usize = 1 << 20;
const NOW: Nanos = Nanos::from_secs(1);

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Packets to judge, as in 1e8
    #[arg(long, default_value = "1e8", value_name = "N", value_parser = count)]
    packets: u64,
    /// Swaps meanwhile, spread evenly over the packets
    #[arg(long, default_value = "1e5", value_name = "N", value_parser = count)]
    swaps: u64,
    #[command(flatten)]
    output: Output,
}

impl Options {
    /// Swaps there ought to be after so many packets.
    fn due(&self, packets: u64) -> u64 {
        (u128::from(packets) * u128::from(self.swaps) / u128::from(self.packets)) as u64
    }
}

fn count(s: &str) -> Result<u64, String> {
    match s.parse::<f64>() {
        Ok(n) if n.fract() == 0.0 && (1.0..=1e12).contains(&n) => Ok(n as u64),
        _ => Err("give a whole number from 1 to 1e12".into()),
    }
}

#[derive(Clone, Copy, Debug)]
enum RuleSet {
    Members,
    Others,
}

impl RuleSet {
    /// They take turns, from the generation `first` on.
    const fn of(generation: Generation, first: Generation) -> Self {
        if (generation.0 - first.0).is_multiple_of(2) { Self::Members } else { Self::Others }
    }

    const fn allows(self, kind: u8) -> bool {
        match self {
            Self::Members => kind < 2,
            Self::Others => kind % 2 == 1,
        }
    }

    fn rules(self) -> Rules {
        let change = |change| pb::Change { change: Some(change) };
        let rule = |action: pb::Action| pb::Rule { action: action.into(), ..Default::default() };
        let of_set = |rule| pb::Rule { src_ip_set_ids: vec!["kinds".into()], ..rule };
        let (kinds, rules) = match self {
            Self::Members => ([0u8, 1], vec![of_set(rule(pb::Action::Allow))]),
            Self::Others => ([0, 2], vec![of_set(rule(pb::Action::Deny)), rule(pb::Action::Allow)]),
        };
        let ipv4 = kinds.iter().flat_map(|kind| [10, *kind, 0, 0, 16]).collect();
        let set = pb::IpSet {
            id: "kinds".into(),
            r#type: pb::ip_set::Type::Net.into(),
            members: Some(pb::Members { ipv4, ipv6: vec![] }),
        };
        let id = pb::PolicyId {
            kind: "NetworkPolicy".into(),
            namespace: "default".into(),
            name: "swapped".into(),
        };
        let policy = pb::Policy {
            id: Some(id.clone()),
            tier: "default".into(),
            inbound_rules: rules,
            ..Default::default()
        };
        let recheck = pb::node_config::Established::Recheck.into();
        let config = pb::NodeConfig { established: recheck, ..Default::default() };
        let changes = [Change::IpSet(set), Change::Policy(policy), Change::Config(config)];
        Rules { changes: changes.map(change).into(), ids: vec![id], aims: vec![] }
    }
}

/// What came of it. Nothing is recorded of a run in which a verdict was wrong.
#[derive(Debug, Default, Serialize)]
struct Figures {
    packets: u64,
    swaps: u64,
    /// Different generations that packets were judged by.
    generations: u64,
    /// Polls during which a new generation was published.
    polls_swapped_under: u64,
    /// By rule set of the recorded generation, verdict, and kind of source.
    members_allowed: [u64; 4],
    members_denied: [u64; 4],
    others_allowed: [u64; 4],
    others_denied: [u64; 4],
    seconds: f64,
}

/// Runs, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let mut rig =
        Rig::new(Setup { batch: VECTOR, sessions: SESSIONS, ticks: || 0 }, &RuleSet::Members.rules())?;
    let (sent, valve) = (Sent::default(), Valve::default());
    let stream = Stream::new(PEER_MAC, UPLINK_MAC, &keys(), 64);
    let from = Wire::new(Some(stream), VECTOR, valve.clone());
    let to = Tapped { wire: Wire::new(None, VECTOR, valve.clone()), sent: sent.clone() };
    rig.attach(Box::new(from), Box::new(to));

    rig.ends().0.show_every_drop();
    valve.set(true);
    let start = Instant::now();
    let (worker, state) = rig.ends();
    let first = state.publisher().current().generation;
    let shared = Shared { first, ..Shared::default() };
    let mut figures = std::thread::scope(|scope| {
        let polling = scope.spawn(|| poll(worker, &sent, &shared, options));
        let swapped = swap(state, &shared, options, &|| polling.is_finished());
        shared.stopped.store(swapped.is_err(), Relaxed);
        let figures = polling.join().map_err(|_| anyhow::anyhow!("the polling thread panicked"))?;
        swapped.and(figures)
    })?;
    figures.swaps = options.swaps;
    figures.seconds = start.elapsed().as_secs_f64();
    account(&rig, &figures)?;
    if !options.output.json {
        print(&figures);
    }
    record::finish(&options.output, &[figures])
}

/// What the two threads know of each other.
#[derive(Default)]
struct Shared {
    /// The generation that brought the first rule set.
    first: Generation,
    /// Judged so far.
    packets: AtomicU64,
    /// Published so far.
    swaps: AtomicU64,
    /// There will be no further swap, though there should.
    stopped: AtomicBool,
}

/// Publishes, in step with the packets.
fn swap(state: &mut State, shared: &Shared, options: &Options, over: &dyn Fn() -> bool) -> Result<()> {
    let sets = [RuleSet::Others, RuleSet::Members].map(|set| set.rules().changes);
    for swap in 0..options.swaps {
        while options.due(shared.packets.load(Relaxed)) < swap {
            if over() {
                return Ok(());
            }
            std::thread::yield_now();
        }
        let commit = pb::Commit { generation: swap + 2, in_sync: true };
        let refused = |errors: Vec<_>| anyhow::anyhow!("the rule set was refused: {errors:?}");
        let changes = sets[(swap % 2) as usize].clone();
        state.commit(&changes, &commit, NOW).map_err(refused)?;
        let generation = state.publisher().current().generation;
        ensure!(u64::from(generation.0 - shared.first.0) == swap + 1, "a swap is one generation");
        shared.swaps.store(swap + 1, Relaxed);
        drop(state.take_retired_trees());
    }
    Ok(())
}

/// Polls until enough packets have been judged, and looks at each verdict.
fn poll(worker: &mut Worker, sent: &Sent, shared: &Shared, options: &Options) -> Result<Figures> {
    let mut figures = Figures::default();
    let (mut now, mut last) = (NOW, Generation(0));
    while figures.packets < options.packets {
        // Others may have the publisher's core: it is given time to be one swap behind at most.
        while shared.swaps.load(Relaxed) + 1 < options.due(figures.packets) {
            ensure!(!shared.stopped.load(Relaxed), "the publisher stopped");
            std::thread::yield_now();
        }
        now = now.plus(Nanos(10_000));
        let before = shared.swaps.load(Relaxed);
        let moved = worker.poll(now) as u64;
        figures.polls_swapped_under += u64::from(shared.swaps.load(Relaxed) != before);
        let present = worker.world().snapshot.generation;
        figures.generations += u64::from(present != last);
        last = present;
        let judged = verdicts(worker, sent, shared.first, &mut figures)?;
        ensure!(judged == moved, "{moved} packets came and {judged} verdicts were recorded");
        figures.packets += judged;
        shared.packets.store(figures.packets, Relaxed);
    }
    Ok(figures)
}

/// Each packet of the last poll: sent or denied, and by whom.
fn verdicts(worker: &Worker, sent: &Sent, first: Generation, figures: &mut Figures) -> Result<u64> {
    let world = worker.world();
    let present = world.snapshot.generation;
    let mut judged = 0;
    let mut note = |key: &FlowKey, allowed: bool, generation: Generation| -> Result<()> {
        let (set, kind) = (RuleSet::of(generation, first), key.src.v4_octets()[1]);
        ensure!(
            generation == present && set.allows(kind) == allowed,
            "{key} was {} by generation {}, of rule set {set:?}, in a poll of generation {}",
            if allowed { "allowed" } else { "denied" },
            generation.0,
            present.0
        );
        let of_kind = match (set, allowed) {
            (RuleSet::Members, true) => &mut figures.members_allowed,
            (RuleSet::Members, false) => &mut figures.members_denied,
            (RuleSet::Others, true) => &mut figures.others_allowed,
            (RuleSet::Others, false) => &mut figures.others_denied,
        };
        of_kind[usize::from(kind)] += 1;
        judged += 1;
        Ok(())
    };
    for source in sent.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let key = key(source);
        let flow = world.flows.lookup(&key, world.flows.hash(&key), world.now);
        note(&key, true, world.flows.judged(flow.context("a packet was sent that has no flow")?))?;
    }
    while let Some(event) = world.events.pop() {
        match event {
            Event::Dropped { key, deciding: Some(deciding), .. } => note(&key, false, deciding.generation)?,
            other => bail!("not a verdict of policy: {other:?}"),
        }
    }
    Ok(judged)
}

/// No packet is lost: neither a count nor a buffer.
fn account(rig: &Rig, figures: &Figures) -> Result<()> {
    rig.check();
    let counters = rig.counters();
    let (rx, tx, drops, punt) = (counters.rx.get(), counters.tx.get(), counters.drops(), counters.punt.get());
    let held = counters.held.get();
    ensure!(rx == tx + drops + punt + held, "rx {rx} != tx {tx} + drops {drops} + punt {punt} + held {held}");
    ensure!(rx == figures.packets, "{rx} packets were received, {} judged", figures.packets);
    let denied = counters.dropped(DropReason::PolicyDenied).get();
    ensure!(drops == denied, "{drops} packets were dropped, {denied} of them by policy");
    Ok(())
}

fn print(f: &Figures) {
    println!(
        "{} packets, {} swaps, {} generations seen, {} polls with a swap in them, {:.1} s: every verdict is its generation's",
        short(f.packets),
        short(f.swaps),
        f.generations,
        f.polls_swapped_under,
        f.seconds
    );
    let row = |name: &str, counts: &[u64; 4]| {
        let counts = counts.iter().map(u64::to_string);
        std::iter::once(name.to_owned()).chain(counts).collect::<Vec<_>>()
    };
    let rows = [
        row("members: allowed", &f.members_allowed),
        row("members: denied", &f.members_denied),
        row("others: allowed", &f.others_allowed),
        row("others: denied", &f.others_denied),
    ];
    table(&["rule set and verdict", "kind 0", "kind 1", "kind 2", "kind 3"], &rows);
}

/// Packets in the order they come: some sources soon again, some not.
fn keys() -> Vec<FlowKey> {
    let mut random = Random::new(0x7377_6170);
    (0..DRAWN).map(|_| key(source(random.below(SOURCES) as u32))).collect()
}

/// The address of source `number`: 10.kind.x.y.
fn source(number: u32) -> u32 {
    10 << 24 | (number % 4) << 16 | (number / 4)
}

fn key(source: u32) -> FlowKey {
    let src = Addr::v4(source.to_be_bytes());
    FlowKey { src, dst: Rig::destination(false), sport: 4000, dport: 53, proto: Proto::UDP }
}

/// The sources of packets that were sent in this poll. One thread uses it.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<u32>>>);

/// A wire that remembers whose packets were sent by it.
struct Tapped {
    wire: Wire,
    sent: Sent,
}

impl Device for Tapped {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, now: Nanos) -> usize {
        self.wire.receive(pool, into, max, now)
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, now: Nanos) -> Transmitted {
        /// Of an IPv4 source, behind Ethernet.
        const SOURCE: std::ops::Range<usize> = 26..30;
        let mut sent = self.sent.0.lock().unwrap_or_else(PoisonError::into_inner);
        for position in 0..packets.len() {
            let packet = pool.nth(packets, position);
            let source = packet.bytes().get(SOURCE).and_then(|bytes| bytes.try_into().ok());
            sent.push(u32::from_be_bytes(source.unwrap_or_default()));
        }
        self.wire.transmit(pool, packets, now)
    }

    fn settle(&mut self, pool: &mut Pool) {
        self.wire.settle(pool);
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.wire.wait_fd()
    }

    fn counters(&self) -> DeviceCounters {
        self.wire.counters()
    }

    fn lent(&self) -> usize {
        self.wire.lent()
    }

    fn close(&mut self, pool: &mut Pool) {
        self.wire.close(pool);
    }
}
