//! Ten thousand updates of an IP set while packets are forwarded: each packet's verdict is that of
//! the set as it was in the generation that judged it.
#![allow(missing_docs)]

mod build;
mod pace;

use build::frames::key_of;
use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::io::memory::MemoryHandle;
use margay_dataplane::net::{Addr, FlowKey, Generation, Nanos, Prefix};
use margay_dataplane::nodes::Event;
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::worker::Worker;
use pace::Pace;
use pb::node_config::Established;
use std::collections::BTreeSet;

const UPDATES: usize = 10_000;
const BATCH: usize = 64;
/// 10.66.0.0 to 10.66.0.255.
const SOURCES: u32 = 256;

/// What the updates are, and whom the set holds after each.
struct History {
    updates: Vec<pb::Change>,
    /// After so many updates; a bit for each source.
    holds: Vec<[bool; SOURCES as usize]>,
}

impl History {
    /// A member more or less each time: single addresses, and blocks around and inside each other.
    fn new() -> Self {
        let mut random = 7u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        let mut members: BTreeSet<Prefix> = BTreeSet::new();
        let mut history = Self { updates: vec![], holds: vec![[false; SOURCES as usize]] };
        for _ in 0..UPDATES {
            let len = [32, 32, 32, 31, 29, 27][below(6) as usize];
            let member = Prefix::truncate(source(below(SOURCES.into()) as u32), len);
            let packed = |net: Prefix| {
                let ipv4 = [&net.addr().v4_octets()[..], &[net.len()]].concat();
                Some(pb::Members { ipv4, ipv6: vec![] })
            };
            let mut delta = pb::IpSetDelta { id: "s:members".into(), ..Default::default() };
            if members.remove(&member) {
                delta.removed = packed(member);
            } else {
                members.insert(member);
                delta.added = packed(member);
            }
            history.updates.push(change(Change::IpSetDelta(delta)));
            let held = |n| members.iter().any(|net| net.contains(source(n)));
            history.holds.push(std::array::from_fn(|n| held(n as u32)));
        }
        history
    }
}

fn source(n: u32) -> Addr {
    Addr::v4([10, 66, 0, n as u8])
}

/// Whom the set holds may speak to workload 3; live flows are judged again.
fn node() -> (Simulation, Generation) {
    let mut node = standard(Setup::default());
    let set = pb::IpSet { id: "s:members".into(), r#type: pb::ip_set::Type::Net.into(), members: None };
    let rule = pb::Rule {
        action: pb::Action::Allow.into(),
        src_ip_set_ids: vec!["s:members".into()],
        ..Default::default()
    };
    let policy = pb::Policy { inbound_rules: vec![rule], ..policy("web", 0) };
    let config = pb::NodeConfig { established: Established::Recheck.into(), ..Default::default() };
    let changes = [Change::IpSet(set), Change::Policy(policy), Change::Config(config)];
    node.commit(changes.map(change).into()).unwrap();
    node.step(Nanos(0));
    node.workers[0].show_every_drop();
    let first = node.state.publisher().current().generation;
    (node, first)
}

/// Packets of every source in turn, and what became of each.
struct Traffic<'a> {
    history: &'a History,
    first: Generation,
    frames: Vec<Vec<u8>>,
    next: usize,
    uplink: MemoryHandle,
    workload: MemoryHandle,
    now: Nanos,
    allowed: u64,
    denied: u64,
    generations: BTreeSet<Generation>,
}

impl<'a> Traffic<'a> {
    fn new(node: &Simulation, first: Generation, history: &'a History) -> Self {
        // A stride that visits all of them, neighbours apart.
        let from = |n: u32| source(n * 37 % SOURCES).to_string();
        let frame = |n: u32| udp(PEER_MAC, UPLINK_MAC, &from(n), "10.65.0.3", 4000, 53);
        Self {
            history,
            first,
            frames: (0..SOURCES).map(frame).collect(),
            next: 0,
            uplink: node.wire("eth0").clone(),
            workload: node.wire("cali3").clone(),
            now: node.now(),
            allowed: 0,
            denied: 0,
            generations: BTreeSet::new(),
        }
    }

    /// A batch through the worker.
    fn batch(&mut self, worker: &mut Worker) {
        for _ in 0..BATCH {
            assert!(self.uplink.push(&self.frames[self.next]));
            self.next = (self.next + 1) % self.frames.len();
        }
        self.now = self.now.plus(Nanos(1000));
        assert_eq!(worker.poll(self.now), BATCH);
        let world = worker.world();
        let present = world.snapshot.generation;
        self.generations.insert(present);
        let holds = &self.history.holds[(present.0 - self.first.0) as usize];
        let mut seen = 0;
        let mut note = |key: &FlowKey, allowed: bool, judged: Generation| {
            assert_eq!(judged, present, "{key}");
            let held = holds[usize::from(key.src.v4_octets()[3])];
            assert_eq!(allowed, held, "{key} after {} updates", present.0 - self.first.0);
            seen += 1;
        };
        while let Some(bytes) = self.workload.pop() {
            let key = key_of(&bytes);
            let flow = world.flows.lookup(&key, world.flows.hash(&key), world.now).expect("a live flow");
            note(&key, true, world.flows.judged(flow));
            self.allowed += 1;
            self.workload.recycle(bytes);
        }
        while let Some(event) = world.events.pop() {
            let Event::Dropped { key, deciding: Some(deciding), .. } = event else { continue };
            note(&key, false, deciding.generation);
            self.denied += 1;
        }
        assert_eq!(seen, BATCH, "every packet has a verdict");
    }

    /// The test could fail: packets were allowed and denied, under many generations.
    fn proves_something(&self, generations: usize) {
        let packets = self.allowed + self.denied;
        assert!(self.allowed.min(self.denied) > packets / 20, "{} of {packets} allowed", self.allowed);
        assert!(self.generations.len() >= generations, "{} generations", self.generations.len());
    }
}

#[test]
fn each_update_is_in_force_for_the_next_packet() {
    let history = History::new();
    let (mut node, first) = node();
    let mut traffic = Traffic::new(&node, first, &history);
    let mut worker = node.workers.pop().unwrap();
    let forwarding = node.state.publisher().current();
    for update in &history.updates {
        node.commit(vec![update.clone()]).unwrap();
        traffic.batch(&mut worker);
    }
    let last = node.state.publisher().current();
    assert!(std::sync::Arc::ptr_eq(&forwarding.fib, &last.fib), "members are no reason to build a FIB");
    assert!(std::sync::Arc::ptr_eq(&forwarding.interfaces, &last.interfaces));
    assert!(last.policy.shares_trees(&forwarding.policy), "nor a tree");
    node.workers.push(worker);
    node.check();
    traffic.proves_something(UPDATES);
}

/// Two threads: the worker never stops, updates come at any moment of its polls.
#[test]
fn updates_come_while_packets_are_judged() {
    const POLLS: u64 = 4000;
    let history = History::new();
    let (mut node, first) = node();
    let mut traffic = Traffic::new(&node, first, &history);
    let mut worker = node.workers.pop().unwrap();
    let pace = Pace::new(POLLS, UPDATES as u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _end = pace.end();
            (0..POLLS).for_each(|at| pace.poll(at, || traffic.batch(&mut worker)));
        });
        let _end = pace.end();
        for (at, update) in (0..).zip(&history.updates) {
            pace.change(at, || node.commit(vec![update.clone()]).unwrap());
        }
    });
    node.workers.push(worker);
    node.check();
    traffic.proves_something(10);
}
