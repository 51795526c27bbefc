#![doc = include_str!("README.md")]

mod command;
mod flows;
mod pipeline;
mod thread;

pub use command::{Command, Forgotten, Port, PortCounters, Returned, Rings};
pub use flows::{FlowPage, FlowSeen, FlowTask};
pub use pipeline::{Entries, pipeline};
pub use thread::{Idle, Parts, Thread, Wake, ticks};

use crate::graph::{COUNTED, Graph};
use crate::net::{IfId, Nanos};
use crate::nodes::{Credit, Probe, World};
use crate::packet::{DropReason, PacketFlags, Pool, VECTOR, Vector};
use crate::snapshot::Reader;

/// Flows examined for expiry in one poll: few enough not to hold a vector up.
const EXPIRE_BUDGET: usize = 64;

/// Places of the flow table looked at in one poll when flows are to be forgotten.
const FORGET_BUDGET: u32 = 4096;

/// How often devices' counters are shown, since the kernel's have to be asked for, and refusals are told of that have
/// been gathered for long enough.
const COUNT_EVERY: Nanos = Nanos::from_millis(250);

/// One worker.
pub struct Worker {
    world: World,
    graph: Graph<World>,
    entries: Entries,
    pool: Pool,
    reader: Reader,
    ports: Vec<Port>,
    rings: Rings,
    input: Vector,
    spare: Vector,
    pieces: Vector,
    sealed: Vector,
    /// Pieces that were cut here: for tunnels, and ready to send.
    cut: [Vector; 2],
    /// When the devices' counters were last shown.
    counted: Nanos,
    forgetting: Option<Forgetting>,
    /// Flows that are being looked at. Later commands wait for it.
    showing: Option<Box<FlowPage>>,
    ticks: fn() -> u64,
}

/// Flows that are being forgotten. Later commands wait for it.
struct Forgetting {
    flows: Box<Forgotten>,
    cursor: u32,
}

impl Worker {
    /// A worker without ports. `ticks` reads a counter, for the cost of nodes and vectors.
    pub fn new(world: World, pool: Pool, reader: Reader, rings: Rings, ticks: fn() -> u64) -> Self {
        let (graph, entries) = pipeline(ticks);
        let ports = Vec::with_capacity(world.outboxes.len());
        let [input, spare, pieces, sealed] = Default::default();
        Self {
            world,
            graph,
            entries,
            pool,
            reader,
            ports,
            rings,
            input,
            spare,
            pieces,
            sealed,
            cut: Default::default(),
            counted: Nanos(0),
            forgetting: None,
            showing: None,
            ticks,
        }
    }

    /// Does all there is to do at `now`. Returns how many packets there were.
    pub fn poll(&mut self, now: Nanos) -> usize {
        self.world.now = now;
        if self.reader.refresh(&mut self.world.snapshot) {
            self.world.flows.track(self.world.snapshot.tracking);
        }
        self.world.flows.set_now(now);
        self.forget();
        self.show();
        self.obey();
        let taken = self.take_inbox();
        let released = self.release_held() + self.release_unsealed() + self.release_early();
        let packets = taken + released + self.receive();
        for port in &mut self.ports {
            port.device.settle(&mut self.pool);
        }
        self.world.flows.expire(now, EXPIRE_BUDGET);
        if now.since(self.counted) >= COUNT_EVERY {
            self.counted = now;
            self.world.sweep_refusals();
            self.show_counts();
        }
        let counters = &self.world.counters;
        counters.polls.add(1);
        if packets == 0 {
            counters.empty_polls.add(1);
        }
        counters.flows.set(self.world.flows.len() as u64);
        packets
    }

    /// The world, for tests and the control side before the worker starts.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Shows every dropped packet to the control thread, not one now and then, as long as its ring
    /// has room: for tests that look at each verdict.
    pub fn show_every_drop(&mut self) {
        self.world.samples = Credit::unlimited();
    }

    /// The graph.
    pub fn graph(&self) -> &Graph<World> {
        &self.graph
    }

    /// Free frames the worker holds, and frames its devices hold.
    pub fn frames(&self) -> (usize, usize) {
        (self.pool.held(), self.ports.iter().map(|port| port.device.lent()).sum())
    }

    /// Nothing is waiting that no device would announce.
    pub fn may_sleep(&self) -> bool {
        self.forgetting.is_none()
            && self.showing.is_none()
            && self.rings.commands.is_empty()
            && self.world.inboxes[usize::from(self.world.me.0)].is_empty()
    }

    /// The ports.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Shows what is not counted where others can read it.
    fn show_counts(&self) {
        self.ports.iter().for_each(Port::publish_counters);
        let (kept, lent) = self.frames();
        let (counters, flows) = (&self.world.counters, self.world.flows.counters());
        counters.frames_kept.set(kept as u64);
        counters.frames_lent.set(lent as u64);
        counters.flows_inserted.set(flows.inserted);
        counters.flows_expired.set(flows.expired);
        counters.flows_evicted.set(flows.evicted);
        counters.flows_refused.set(flows.refused);
    }

    fn obey(&mut self) {
        while self.forgetting.is_none() && self.showing.is_none() {
            let Some(command) = self.rings.next() else { break };
            match command {
                Command::Attach { port, outbox } => {
                    match self.world.outboxes.get_mut(usize::from(port.interface.0)) {
                        Some(slot @ None) => *slot = Some(outbox),
                        // A second queue of the same interface.
                        _ => self.rings.give_back(Returned::Outbox(outbox)),
                    }
                    self.ports.push(port);
                }
                Command::Detach(interface) => self.detach(interface),
                Command::Forget(flows) => self.forgetting = Some(Forgetting { flows, cursor: 0 }),
                Command::Show(page) => self.showing = Some(page),
                Command::TellOfFlows(logs) => {
                    let earlier = self.world.tell_of_flows(logs);
                    self.world.flows.set_now(self.world.now);
                    if let Some(earlier) = earlier {
                        self.rings.give_back(Returned::Logs(earlier));
                    }
                }
                Command::Watch(watcher) => {
                    if let Some(earlier) = std::mem::replace(&mut self.world.watcher, watcher) {
                        self.rings.give_back(Returned::Watcher(earlier));
                    }
                }
                Command::Probe(probe) => {
                    self.probe(&probe);
                    self.rings.give_back(Returned::Probe(probe));
                }
                Command::Inject(interface, frame) => {
                    self.inject(interface, &frame);
                    self.rings.give_back(Returned::Frame(frame));
                }
            }
        }
    }

    /// Forgets some of the flows that are to be forgotten.
    fn forget(&mut self) {
        let Some(forgetting) = &mut self.forgetting else { return };
        let Forgotten { addresses, stale } = &*forgetting.flows;
        let of = |addr| addresses.iter().any(|prefix| prefix.contains(addr));
        let (_, next) =
            self.world.flows.remove_where(forgetting.cursor, FORGET_BUDGET, self.world.now, |flow| {
                // Translated, it is the reply's key that has the workload's address.
                [flow.key.src, flow.key.dst, flow.reply_key.src, flow.reply_key.dst].into_iter().any(of)
                    || stale.covers(&flow.key, &flow.reply_key)
            });
        match next {
            Some(cursor) => forgetting.cursor = cursor,
            None => {
                if let Some(done) = self.forgetting.take() {
                    self.rings.give_back(Returned::Forgotten(done.flows));
                }
            }
        }
    }

    /// Looks at some of the flows that somebody asks about.
    fn show(&mut self) {
        let Some(page) = &mut self.showing else { return };
        if page.fill(&mut self.world.flows, self.world.now)
            && let Some(page) = self.showing.take()
        {
            self.rings.give_back(Returned::Shown(page));
        }
    }

    fn detach(&mut self, interface: IfId) {
        while let Some(at) = self.ports.iter().position(|port| port.interface == interface) {
            let mut port = self.ports.swap_remove(at);
            port.device.close(&mut self.pool);
            self.rings.give_back(Returned::Port(port));
        }
        if let Some(outbox) = self.world.outboxes.get_mut(usize::from(interface.0)).and_then(Option::take) {
            self.rings.give_back(Returned::Outbox(outbox));
        }
    }

    /// Sends a frame the control thread made: a question to a neighbour.
    fn inject(&mut self, interface: IfId, frame: &[u8]) {
        // Without a frame it is made and at once lost.
        self.world.counters.made();
        let Some(mut idx) = self.pool.alloc() else {
            self.world.counters.dropped(DropReason::NoFrames).add(1);
            return;
        };
        let mut packet = self.pool.get(&mut idx);
        packet.meta.tx_if = interface;
        packet.meta.flags.set(PacketFlags::ORIGINATED);
        if !packet.fill(frame) {
            return self.world.drop(&mut self.pool, idx, DropReason::TxOversized);
        }
        self.spare.push(idx);
        self.graph.inject(self.entries.tx, &mut self.spare);
        self.run();
    }

    /// Takes a packet that nobody sent, and watches it.
    fn probe(&mut self, probe: &Probe) {
        self.world.counters.made();
        let Some(mut idx) = self.pool.alloc() else {
            self.world.counters.dropped(DropReason::NoFrames).add(1);
            return;
        };
        let packet = self.pool.get(&mut idx);
        packet.meta.rx_if = probe.interface;
        if let Some(watcher) = &mut self.world.watcher {
            watcher.choose(packet.meta);
        }
        if !self.pool.get(&mut idx).fill(&probe.frame) {
            return self.world.drop(&mut self.pool, idx, DropReason::TxOversized);
        }
        self.spare.push(idx);
        self.graph.inject(self.entries.parse, &mut self.spare);
        self.run();
    }

    /// Packets that other workers left for us: flows we own, packets to send by our queues.
    fn take_inbox(&mut self) -> usize {
        let mut taken = 0;
        for _ in 0..VECTOR {
            let Some(mut idx) = self.world.inboxes[usize::from(self.world.me.0)].take() else { break };
            let packet = self.pool.get(&mut idx);
            taken += packet.count();
            let meta = packet.meta;
            self.world.flows.prefetch(meta.hash);
            if meta.flags.has(PacketFlags::SEALED) {
                self.sealed.push(idx);
            } else if meta.flags.has(PacketFlags::READY) {
                self.spare.push(idx);
            } else if meta.flags.has(PacketFlags::FRAGMENT) {
                self.pieces.push(idx);
            } else {
                self.input.push(idx);
            }
        }
        if taken > 0 {
            self.world.counters.taken_in.add(taken);
            self.graph.inject(self.entries.tx, &mut self.spare);
            self.graph.inject(self.entries.wg_decrypt, &mut self.sealed);
            self.graph.inject(self.entries.fragments, &mut self.pieces);
            self.graph.inject(self.entries.conntrack, &mut self.input);
            self.run();
        }
        taken as usize
    }

    fn release_held(&mut self) -> usize {
        if self.world.held.is_empty() {
            return 0;
        }
        self.world.release_held(&mut self.pool, &mut self.input, &mut self.spare);
        let released = self.input.len() + self.spare.len();
        // As if they had come over: this worker owns their flows.
        for position in 0..self.input.len() {
            self.pool.nth(&mut self.input, position).meta.flags.set(PacketFlags::HANDED);
        }
        self.graph.inject(self.entries.conntrack, &mut self.input);
        self.run();
        self.graph.inject(self.entries.icmp_error, &mut self.spare);
        self.run();
        released
    }

    fn release_unsealed(&mut self) -> usize {
        if self.world.unsealed.is_empty() {
            return 0;
        }
        let dropped = self.world.release_unsealed(&mut self.pool, &mut self.sealed);
        let released = self.sealed.len();
        self.graph.inject(self.entries.wg_encrypt, &mut self.sealed);
        self.run();
        released + dropped
    }

    fn release_early(&mut self) -> usize {
        if self.world.no_early() {
            return 0;
        }
        let dropped = self.world.release_early(&mut self.pool, &mut self.pieces);
        let released = self.pieces.len();
        self.graph.inject(self.entries.fragments, &mut self.pieces);
        self.run();
        released + dropped
    }

    fn receive(&mut self) -> usize {
        /// Below this much room a device's share is not worth asking for: run first.
        const LOW: usize = 32;
        let (mut received, mut since) = (0, (self.ticks)());
        for at in 0..self.ports.len() {
            if self.input.room() < LOW {
                since = self.run_input(since);
            }
            let (before, room) = (self.input.len(), self.input.room());
            let port = &mut self.ports[at];
            let count = port.device.receive(&mut self.pool, &mut self.input, room, self.world.now);
            for position in before..self.input.len() {
                self.pool.nth(&mut self.input, position).meta.rx_if = port.interface;
            }
            self.world.counters.rx.add(count as u64);
            received += count;
        }
        self.run_input(since);
        received
    }

    /// Runs what was received from the tick `since` on. Returns the tick at its end.
    fn run_input(&mut self, since: u64) -> u64 {
        let packets = self.input.len() as u64;
        self.graph.inject(self.entries.parse, &mut self.input);
        self.run();
        if packets == 0 || !COUNTED {
            return since;
        }
        let now = (self.ticks)();
        self.world.counters.vectors.add(packets, now.wrapping_sub(since));
        now
    }

    /// Runs the graph and gives what came out to the devices, then the pieces of what was cut, which
    /// may be more than one vector.
    fn run(&mut self) {
        self.run_once();
        while !self.world.no_pieces() {
            let [encap, tx] = &mut self.cut;
            self.world.release_pieces(&mut self.pool, encap, tx);
            self.graph.inject(self.entries.encap, encap);
            self.graph.inject(self.entries.tx, tx);
            self.run_once();
        }
    }

    fn run_once(&mut self) {
        self.graph.run(&mut self.world, &mut self.pool);
        for port in &mut self.ports {
            let Some(Some(outbox)) = self.world.outboxes.get_mut(usize::from(port.interface.0)) else {
                continue;
            };
            if outbox.is_empty() {
                continue;
            }
            // What is left may fit a second queue of the interface, the next port.
            let outcome = port.device.transmit(&mut self.pool, outbox, self.world.now);
            let counters = &self.world.counters;
            counters.tx.add(outcome.sent.into());
            counters.dropped(DropReason::TxOversized).add(outcome.unsendable.into());
            counters.dropped(DropReason::InjectedFault).add(outcome.faulted.into());
        }
        self.drop_unsent();
    }

    fn drop_unsent(&mut self) {
        for at in 0..self.ports.len() {
            let id = usize::from(self.ports[at].interface.0);
            while let Some(idx) = self.world.outboxes[id].as_mut().and_then(|outbox| outbox.pop()) {
                self.world.drop(&mut self.pool, idx, DropReason::TxFull);
            }
        }
    }
}
