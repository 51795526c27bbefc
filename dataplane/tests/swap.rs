//! Swaps of contradictory rule sets under traffic: every packet gets a verdict that one of them
//! gives, whole, and the generation recorded on the verdict is the one that gave it.
//!
//! A rule set is a policy and an IP set it asks. Sources are of four kinds:
//!
//! | kind | `Members`: allow whom the set holds; it holds 0, 1 | `Others`: deny whom it holds; 0, 2 |
//! |---|---|---|
//! | 0 | allow | deny |
//! | 1 | allow | allow |
//! | 2 | deny | deny |
//! | 3 | deny | allow |
//!
//! The policy of one over the set of the other would allow kind 2 or deny kind 1, which neither does.
#![allow(missing_docs)]

mod build;
mod pace;

use build::frames::key_of;
use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::io::memory::MemoryHandle;
use margay_dataplane::net::{Addr, FlowKey, Generation, Nanos};
use margay_dataplane::nodes::Event;
use margay_dataplane::policy::{Action, Direction, EndpointIdx};
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::worker::Worker;
use pace::Pace;
use pb::node_config::Established;

const BATCH: usize = 256;
const FLOWS: u32 = 8192;
/// Eight times what the table holds: a flow is forgotten before its next packet.
const FRESH: u32 = 8 * FLOWS;

#[derive(Clone, Copy, Debug, PartialEq)]
enum RuleSet {
    Members,
    Others,
}

impl RuleSet {
    fn allows(self, kind: u8) -> bool {
        match self {
            Self::Members => kind < 2,
            Self::Others => kind % 2 == 1,
        }
    }

    /// What an agent says to bring it about.
    fn changes(self) -> Vec<pb::Change> {
        let rule = |action: pb::Action| pb::Rule { action: action.into(), ..Default::default() };
        let of_set = |rule| pb::Rule { src_ip_set_ids: vec!["s:kinds".into()], ..rule };
        let (kinds, rules) = match self {
            Self::Members => ([0, 1], vec![of_set(rule(pb::Action::Allow))]),
            Self::Others => ([0, 2], vec![of_set(rule(pb::Action::Deny)), rule(pb::Action::Allow)]),
        };
        let block = |kind: u8| [10, kind, 0, 0, 16];
        let members = pb::Members { ipv4: kinds.map(block).concat(), ipv6: vec![] };
        let set =
            pb::IpSet { id: "s:kinds".into(), r#type: pb::ip_set::Type::Net.into(), members: Some(members) };
        let policy = pb::Policy { inbound_rules: rules, ..policy("web", 0) };
        vec![change(Change::IpSet(set)), change(Change::Policy(policy))]
    }
}

/// Which rule set a generation holds: they take turns from `first` on, which has `Members`.
#[derive(Clone, Copy)]
struct Turns {
    first: Generation,
}

impl Turns {
    fn of(self, generation: Generation) -> RuleSet {
        assert!(generation >= self.first, "{generation:?} is from before there was a rule set");
        if (generation.0 - self.first.0).is_multiple_of(2) { RuleSet::Members } else { RuleSet::Others }
    }

    fn swap(self, node: &mut Simulation) {
        let next = Generation(node.state.publisher().current().generation.0 + 1);
        node.commit(self.of(next).changes()).unwrap();
        assert_eq!(node.state.publisher().current().generation, next, "a swap is one generation");
    }
}

fn node(established: Established) -> (Simulation, Turns) {
    let mut node = standard(Setup { flows: FLOWS, ..Setup::default() });
    let config = pb::NodeConfig { established: established.into(), ..Default::default() };
    let mut changes = RuleSet::Members.changes();
    changes.push(change(Change::Config(config)));
    node.commit(changes).unwrap();
    node.step(Nanos(0));
    node.workers[0].show_every_drop();
    let first = node.state.publisher().current().generation;
    (node, Turns { first })
}

/// Packets of `flows` flows in turn, and what became of each.
struct Traffic {
    frames: Vec<Vec<u8>>,
    next: usize,
    uplink: MemoryHandle,
    workload: MemoryHandle,
    turns: Turns,
    now: Nanos,
    /// By rule set of the recorded generation and kind.
    verdicts: [[u64; 4]; 2],
    generations: u64,
    last: Generation,
}

impl Traffic {
    fn new(node: &Simulation, flows: u32, turns: Turns) -> Self {
        let frame = |n: u32| {
            let from = Addr::v4([10, (n % 4) as u8, (n >> 10) as u8, (n >> 2) as u8]);
            udp(PEER_MAC, UPLINK_MAC, &from.to_string(), "10.65.0.3", 1024 + (n >> 18) as u16, 53)
        };
        Self {
            frames: (0..flows).map(frame).collect(),
            next: 0,
            uplink: node.wire("eth0").clone(),
            workload: node.wire("cali3").clone(),
            turns,
            now: node.now(),
            verdicts: [[0; 4]; 2],
            generations: 0,
            last: Generation(0),
        }
    }

    /// A batch through the worker; each packet's verdict against the rule set of the generation
    /// recorded on it. `standing`: every live flow was judged by the present generation.
    fn batch(&mut self, worker: &mut Worker, standing: bool) {
        for _ in 0..BATCH {
            assert!(self.uplink.push(&self.frames[self.next]));
            self.next = (self.next + 1) % self.frames.len();
        }
        self.now = self.now.plus(Nanos(1000));
        assert_eq!(worker.poll(self.now), BATCH);
        let world = worker.world();
        let present = world.snapshot.generation;
        self.generations += u64::from(present != self.last);
        self.last = present;
        let mut seen = 0;
        while let Some(bytes) = self.workload.pop() {
            let key = key_of(&bytes);
            let flow =
                world.flows.lookup(&key, world.flows.hash(&key), world.now).expect("sent: a live flow");
            let judged = world.flows.judged(flow);
            assert!(!standing || judged == present, "{key} was let through by {judged:?}, not {present:?}");
            self.note(&key, true, judged);
            self.workload.recycle(bytes);
            seen += 1;
        }
        while let Some(event) = world.events.pop() {
            let Event::Dropped { key, deciding, .. } = event else { continue };
            let deciding = deciding.unwrap_or_else(|| panic!("policy denied it: {event:?}"));
            assert_eq!(deciding.generation, present);
            let tree =
                world.snapshot.policy.tree(EndpointIdx(deciding.endpoint), Direction::Ingress).unwrap();
            let decider = tree.compiled().decider(deciding.slot);
            assert_eq!(decider.map(|decider| decider.action), Some(Action::Deny));
            self.note(&key, false, deciding.generation);
            seen += 1;
        }
        assert_eq!(seen, BATCH, "every packet has a verdict");
    }

    fn note(&mut self, key: &FlowKey, allowed: bool, judged: Generation) {
        let kind = key.src.v4_octets()[1];
        let set = self.turns.of(judged);
        assert_eq!(allowed, set.allows(kind), "{key}, generation {judged:?}, {set:?}");
        self.verdicts[set as usize][usize::from(kind)] += 1;
    }

    /// The test could fail: both rule sets judged packets of every kind.
    fn proves_something(&self, packets: u64, generations: u64) {
        assert_eq!(self.verdicts.iter().flatten().sum::<u64>(), packets);
        assert!(self.verdicts.iter().flatten().all(|count| *count > packets / 32), "{:?}", self.verdicts);
        assert!(self.generations >= generations, "{} generations were seen", self.generations);
    }
}

/// One thread: swaps between any two polls, none or several at a time.
fn in_turns(established: Established, flows: u32) {
    const POLLS: u64 = 2000;
    let (mut node, turns) = node(established);
    let mut traffic = Traffic::new(&node, flows, turns);
    let mut worker = node.workers.pop().unwrap();
    let mut random = 1u64;
    for _ in 0..POLLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for _ in 0..random >> 62 {
            turns.swap(&mut node);
        }
        traffic.batch(&mut worker, established == Established::Recheck);
    }
    node.workers.push(worker);
    node.check();
    traffic.proves_something(POLLS * BATCH as u64, POLLS / 2);
}

#[test]
fn live_flows_are_judged_by_the_present_rule_set() {
    in_turns(Established::Recheck, FLOWS / 2);
}

#[test]
fn new_flows_are_judged_by_the_present_rule_set() {
    in_turns(Established::Keep, FRESH);
}

#[test]
fn a_flow_that_survives_keeps_the_generation_that_allowed_it() {
    let (mut node, turns) = node(Established::Keep);
    let mut traffic = Traffic::new(&node, 4, turns);
    let mut worker = node.workers.pop().unwrap();
    for _ in 0..4 {
        traffic.batch(&mut worker, false);
        turns.swap(&mut node);
    }
    // Kinds 0 and 1 began under the first generation and live by it; 3 began under the second.
    let quarter = BATCH as u64 / 4;
    assert_eq!(
        traffic.verdicts,
        [[4 * quarter, 4 * quarter, 2 * quarter, quarter], [0, 0, 2 * quarter, 3 * quarter]]
    );
}

/// Two threads: the worker never stops, swaps come at any moment of its polls.
#[test]
fn a_million_packets_under_ten_thousand_swaps() {
    const PACKETS: u64 = 1_000_192;
    const SWAPS: u64 = 10_000;
    const _: () = assert!(PACKETS.is_multiple_of(BATCH as u64));
    let (mut node, turns) = node(Established::Recheck);
    let mut traffic = Traffic::new(&node, FLOWS / 2, turns);
    let mut worker = node.workers.pop().unwrap();
    const POLLS: u64 = PACKETS / BATCH as u64;
    let pace = Pace::new(POLLS, SWAPS);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _end = pace.end();
            (0..POLLS).for_each(|at| pace.poll(at, || traffic.batch(&mut worker, true)));
        });
        let _end = pace.end();
        (0..SWAPS).for_each(|at| pace.change(at, || turns.swap(&mut node)));
    });
    node.workers.push(worker);
    node.check();
    traffic.proves_something(PACKETS, 10);
}
