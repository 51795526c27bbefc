//! One worker between two wires, configured through the control side as an agent would.
//!
//! Packets come from other nodes by an uplink, for a workload that policy protects.

use crate::rules::{self, Rules};
use crate::tunnel::{self, Tunnel};
use crate::wire::{Stream, Valve, Wire};
use anyhow::{Context, Result, ensure};
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::conntrack::{FlowHasher, RecordRing, Settings};
use margay_dataplane::control::{Facts, FlowRings, Purpose, State};
use margay_dataplane::graph::NodeCount;
use margay_dataplane::io::Device;
use margay_dataplane::net::{Addr, IfId, Mac, Nanos, Prefix, WorkerId};
use margay_dataplane::nodes::{Inbox, Limits, WorkerCounters, World};
use margay_dataplane::packet::{DropReason, Frames, Pool, VECTOR, Vector};
use margay_dataplane::policy::{
    Consolidated, Consolidation, Direction, EndpointIdx, PolicyTable, PolicyTree,
};
use margay_dataplane::snapshot::{Publisher, Snapshot};
use margay_dataplane::worker::{Command, Forgotten, Port, Returned, Rings, Worker};
use std::sync::Arc;

/// Of the uplink.
pub const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xff]);
/// Of the node that packets come from.
pub const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
pub const WORKLOAD_MAC: Mac = Mac([2, 0, 0, 0, 1, 1]);
pub const WORKLOAD_V4: Addr = Addr::v4([172, 16, 0, 1]);
/// Of this node on the workload's link.
pub const GATEWAY_MAC: Mac = Mac([2, 0, 0xca, 0x11, 0, 1]);
const WORKLOAD_V6: Addr = Addr::from_bits(0xfd65 << 112 | 1);
const UPLINK: &str = "eth0";
const WORKLOAD: &str = "cali1";
/// Packet buffers: those under way are a vector at most.
const FRAMES: u32 = 4096;
/// Virtual time a packet takes.
const TIME_A_PACKET: u64 = 50;

/// The worker and what drives it.
pub struct Rig {
    worker: Worker,
    state: State,
    rings: Rings,
    valve: Valve,
    frames: Arc<Frames>,
    uplink: IfId,
    workload: IfId,
    batch: usize,
    now: Nanos,
    /// Where the worker tells of flows, if it does.
    told: Option<FlowRings>,
}

/// A rig in its parts.
pub struct Apart {
    pub worker: Worker,
    pub state: State,
    /// Between the two.
    pub rings: Rings,
    /// Lets packets in.
    pub valve: Valve,
    pub frames: Arc<Frames>,
}

/// What a rig is made with.
#[derive(Clone, Copy)]
pub struct Setup {
    /// Packets received at once.
    pub batch: usize,
    /// Sessions the flow table has room for.
    pub sessions: u32,
    /// Reads a counter for the cost of nodes.
    pub ticks: fn() -> u64,
}

impl Rig {
    /// Everything but packets.
    pub fn new(setup: Setup, rules: &Rules) -> Result<Self> {
        let frames = Frames::new(FRAMES, 2048, false)?;
        let mut publisher = Publisher::new(Snapshot::empty(1));
        let inboxes: Arc<[Inbox]> = [Inbox::new(1024)].into();
        let flows = Settings { sessions: setup.sessions, hugepages: true };
        let limits = Limits { flows, interfaces: 16 };
        let mut reader = publisher.reader();
        let first = reader.first();
        let world = World::new(WorkerId(0), limits, FlowHasher::new([1, 2, 3, 4]), first, inboxes)?;
        let rings = Rings::default();
        let pool = Pool::new(frames.clone(), 1024);
        let worker = Worker::new(world, pool, reader, rings.clone(), setup.ticks);

        let (mut state, now) = (State::new(publisher, 16), Nanos::from_secs(1));
        let uplink = state.want(UPLINK, Purpose::Uplink { vlan: None }).context("the interface is new")?;
        let addresses = [(Addr::v4([172, 31, 0, 1]), 24), (Addr::from_bits(0xfd31 << 112 | 1), 64)];
        state.attached(uplink, facts(UPLINK_MAC, &addresses), now);
        let commit = pb::Commit { generation: 1, in_sync: true };
        let refused = |errors: Vec<_>| anyhow::anyhow!("the policy was refused: {errors:?}");
        state.commit(&changes(rules), &commit, now).map_err(refused)?;
        let workload = state.id(WORKLOAD).context("the workload's interface is wanted")?;
        state.attached(workload, facts(GATEWAY_MAC, &[]), now);
        state.publish();
        let valve = Valve::default();
        Ok(Self {
            worker,
            state,
            rings,
            valve,
            frames,
            uplink,
            workload,
            batch: setup.batch,
            now,
            told: None,
        })
    }

    /// Commits changes as an agent would, and has the worker adopt them.
    pub fn change(&mut self, changes: &[pb::Change]) -> Result<()> {
        let generation = self.state.committed() + 1;
        let refused = |errors: Vec<_>| anyhow::anyhow!("the changes were refused: {errors:?}");
        self.state.commit(changes, &pb::Commit { generation, in_sync: true }, self.now).map_err(refused)?;
        self.worker.poll(self.now);
        ensure!(self.state.adopted() == generation, "the worker has not adopted the changes");
        Ok(())
    }

    /// Gives the node a tunnel to another one, which is its neighbour, and lets the workload speak to everybody.
    pub fn tunnel(&mut self, tunnel: Tunnel, rules: &Rules) -> Result<()> {
        let open = pb::Profile {
            name: "open".into(),
            outbound_rules: vec![pb::Rule { action: pb::Action::Allow.into(), ..Default::default() }],
            ..Default::default()
        };
        let mut endpoint = endpoint(rules);
        endpoint.profile_ids = vec![open.name.clone()];
        let mut changes = tunnel.changes();
        changes.extend([Change::Profile(open), Change::WorkloadEndpoint(endpoint)].map(change));
        self.change(&changes)?;
        self.state.kernel_neighbour(self.uplink, tunnel::FAR, Some(PEER_MAC), self.now);
        self.state.publish();
        self.worker.poll(self.now);
        Ok(())
    }

    /// Stages that the workload loses the last of its policies: each packet is judged by both lists.
    pub fn stage(&mut self, rules: &Rules) -> Result<()> {
        let mut endpoint = endpoint(rules);
        endpoint.staged_tiers = endpoint.tiers.clone();
        endpoint.staged_tiers.iter_mut().for_each(|tier| drop(tier.ingress_policies.pop()));
        self.change(&[change(Change::WorkloadEndpoint(endpoint))])
    }

    /// Has one rule in the middle say another port: the list's trees stay, with a patch where it is long enough.
    pub fn patch(&mut self, rules: &Rules) -> Result<()> {
        let mut policies = rules.policies();
        let middle = policies.len() / 2;
        let mut policy = policies.swap_remove(middle);
        policy.inbound_rules[0].dst_ports = vec![pb::PortRange { first: 20_000, last: 20_000 }];
        self.change(&[change(Change::Policy(policy))])
    }

    /// A patched list to be compiled whole, if one is due.
    pub fn consolidation(&mut self) -> Option<Consolidation> {
        self.state.consolidation(self.now)
    }

    /// Puts what was compiled whole in the place of its patches, and has the worker adopt it.
    pub fn take_over(&mut self, done: &Consolidated) {
        self.state.consolidated(Some(done));
        self.state.publish();
        self.worker.poll(self.now);
        self.state.adopted();
    }

    /// Where packets are to go.
    pub fn destination(v6: bool) -> Addr {
        if v6 { WORKLOAD_V6 } else { WORKLOAD_V4 }
    }

    /// Attaches both wires, in place of those that are there.
    pub fn feed(&mut self, stream: Stream) {
        let from = Wire::new(Some(stream), self.batch, self.valve.clone());
        let to = Wire::new(None, self.batch, self.valve.clone());
        self.attach(Box::new(from), Box::new(to));
    }

    /// As [`feed`](Self::feed), and the packets come from the workload.
    pub fn feed_from_workload(&mut self, stream: Stream) {
        let from = Wire::new(None, self.batch, self.valve.clone());
        let to = Wire::new(Some(stream), self.batch, self.valve.clone());
        self.attach(Box::new(from), Box::new(to));
    }

    /// Attaches the uplink's device and the workload's, in place of those that are there.
    pub fn attach(&mut self, from: Box<dyn Device>, to: Box<dyn Device>) {
        for interface in [self.uplink, self.workload] {
            assert!(
                self.rings.commands.push(Command::Detach(interface)).is_ok(),
                "the command ring has room"
            );
        }
        for (interface, device) in [(self.uplink, from), (self.workload, to)] {
            let port = Port { interface, queue: 0, device, counters: Arc::default() };
            let attach = Command::Attach { port, outbox: Box::default() };
            assert!(self.rings.commands.push(attach).is_ok(), "the command ring has room");
        }
        self.worker.poll(self.now);
        while self.rings.returned.pop().is_some() {}
    }

    /// Lets packets through from now on.
    pub fn open(&self) {
        self.valve.set(true);
    }

    /// The worker and the control side, for who drives each in a thread of its own.
    pub fn ends(&mut self) -> (&mut Worker, &mut State) {
        (&mut self.worker, &mut self.state)
    }

    /// Each by itself, for who has more than one thread.
    pub fn apart(self) -> Apart {
        let Self { worker, state, rings, valve, frames, .. } = self;
        Apart { worker, state, rings, valve, frames }
    }

    /// What policy says of packets to the workload.
    pub fn policy(&self) -> Arc<PolicyTable> {
        self.state.policy().clone()
    }

    /// The workload's tree for packets to it.
    pub fn tree(table: &PolicyTable) -> Result<&PolicyTree> {
        table.tree(Self::ENDPOINT, Direction::Ingress).context("the workload has a policy")
    }

    /// The workload's number in the policy table: it is the only one.
    pub const ENDPOINT: EndpointIdx = EndpointIdx(0);

    /// Lets at least `packets` through; returns how many it were.
    pub fn run(&mut self, packets: u64) -> Result<u64> {
        self.valve.set(true);
        let mut done = 0;
        while done < packets {
            let moved = self.worker.poll(self.now) as u64;
            ensure!(moved > 0, "the worker receives nothing any more");
            self.now = self.now.plus(Nanos(moved * TIME_A_PACKET));
            done += moved;
        }
        self.valve.set(false);
        Ok(done)
    }

    /// Forgets every flow.
    pub fn forget(&mut self) {
        let all = [Addr::v4([0; 4]), Addr::v6([0; 16])].map(|addr| Prefix::truncate(addr, 0));
        let all = Box::new(Forgotten { addresses: all.into(), ..Forgotten::default() });
        assert!(self.rings.commands.push(Command::Forget(all)).is_ok(), "the command ring has room");
        loop {
            self.worker.poll(self.now);
            if let Some(Returned::Forgotten(_)) = self.rings.returned.pop() {
                break;
            }
        }
        assert!(self.worker.world().flows.is_empty(), "every flow was forgotten");
    }

    /// Has the worker tell of flows, by rings that have room for all of a lap.
    pub fn tell(&mut self) {
        let world = self.worker.world();
        let rings = FlowRings { flows: RecordRing::new(1 << 19), ..FlowRings::new(world.me) };
        let logs = rings.logs(world.flows.capacity(), true);
        assert!(
            self.rings.commands.push(Command::TellOfFlows(Some(logs))).is_ok(),
            "the command ring has room"
        );
        self.worker.poll(self.now);
        self.told = Some(rings);
    }

    /// Listens to the worker's news, so that telling them costs what it costs in the process.
    pub fn listen(&mut self) {
        while self.worker.world().events.pop().is_some() {}
        if let Some(FlowRings { flows, refusals, .. }) = &self.told {
            while flows.next().is_some() {}
            while refusals.next().is_some() {}
        }
    }

    /// Live flows.
    pub fn flows(&self) -> usize {
        self.worker.world().flows.len()
    }

    /// The worker's counts.
    pub fn counters(&self) -> &WorkerCounters {
        &self.worker.world().counters
    }

    /// Packets denied by policy.
    pub fn denied(&self) -> u64 {
        self.counters().dropped(DropReason::PolicyDenied).get()
    }

    /// What each node has cost so far.
    pub fn nodes(&self) -> Vec<NodeCount> {
        self.worker.graph().counters().read()
    }

    /// Every frame is accounted for.
    pub fn check(&self) {
        let (free, lent) = self.worker.frames();
        assert_eq!(free + lent + self.frames.in_depot(), FRAMES as usize, "no frame was lost");
    }
}

/// The wire without a worker: receives and sends `packets`, and nothing in between.
pub struct Bare {
    wire: Wire,
    pool: Pool,
    vector: Vector,
}

impl Bare {
    /// With the stream that the worker gets.
    pub fn new(stream: Stream, batch: usize) -> Result<Self> {
        let valve = Valve::default();
        valve.set(true);
        let wire = Wire::new(Some(stream), batch, valve);
        Ok(Self { wire, pool: Pool::new(Frames::new(FRAMES, 2048, false)?, 1024), vector: Vector::default() })
    }

    /// Lets at least `packets` through; returns how many it were.
    pub fn run(&mut self, packets: u64) -> u64 {
        // As the worker sees it: a call that cannot be inlined.
        let device: &mut dyn Device = std::hint::black_box(&mut self.wire);
        let mut done = 0;
        while done < packets {
            done += device.receive(&mut self.pool, &mut self.vector, VECTOR, Nanos(0)) as u64;
            device.transmit(&mut self.pool, &mut self.vector, Nanos(0));
        }
        done
    }
}

/// Of an interface that is there.
pub fn facts(mac: Mac, addresses: &[(Addr, u8)]) -> Facts {
    Facts {
        mac,
        mtu: 1500,
        addresses: addresses.to_vec(),
        kernel_neighbours: false,
        queues: vec![WorkerId(0)],
        super_frames: false,
    }
}

/// What an agent says of one workload and its policy.
pub fn changes(rules: &Rules) -> Vec<pb::Change> {
    let endpoint = endpoint(rules);
    let route = |destination: &pb::Prefix| {
        change(Change::Route(pb::Route {
            destination: Some(destination.clone()),
            target: endpoint.id.clone().map(pb::route::Target::Workload),
            ..Default::default()
        }))
    };
    let routes: Vec<_> = endpoint.nets.iter().map(route).collect();
    let mut changes = rules.changes.clone();
    changes.push(change(Change::WorkloadEndpoint(endpoint)));
    changes.extend(routes);
    changes
}

fn change(change: Change) -> pb::Change {
    pb::Change { change: Some(change) }
}

/// The workload, with all policies in one tier.
fn endpoint(rules: &Rules) -> pb::WorkloadEndpoint {
    let id = pb::WorkloadEndpointId {
        orchestrator: "k8s".into(),
        workload: "default/w1".into(),
        endpoint: "eth0".into(),
    };
    let prefix =
        |addr: Addr| pb::Prefix { address: rules::bytes(addr), length: if addr.is_v4() { 32 } else { 128 } };
    let tier = pb::TierBinding {
        name: "default".into(),
        ingress_policies: rules.ids.clone(),
        egress_policies: vec![],
        default_action: pb::Action::Deny.into(),
    };
    pb::WorkloadEndpoint {
        id: Some(id),
        display_name: "default/w1".into(),
        interface_name: WORKLOAD.into(),
        active: true,
        mac: WORKLOAD_MAC.0.to_vec(),
        nets: [WORKLOAD_V4, WORKLOAD_V6].map(prefix).into(),
        tiers: vec![tier],
        ..Default::default()
    }
}
