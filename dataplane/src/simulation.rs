//! A whole dataplane in one thread, on a virtual clock, with wires in memory.
//!
//! It is the real thing but for the kernel: the same [`State`], [`Worker`]s, graph and devices
//! as in the process, driven by [`Simulation::step`]. Tests, fuzzing and benchmarks use it.

use crate::conntrack::{Directory, Filter, FlowHasher, Settings};
use crate::control::{
    Action, Clock, Differences, Facts, FlowRings, ObjectError, Purpose, State, Stories, Teller, Watching,
    probe, watch_program,
};
use crate::io::Device;
use crate::io::memory::{Memory, MemoryHandle};
use crate::net::{Addr, IfId, Mac, Nanos, WorkerId};
use crate::nodes::{Event, Inbox, Limits, Sightings, Wanted, World};
use crate::packet::{Frames, Gso, Pool};
use crate::snapshot::{Publisher, Snapshot};
use crate::worker::{Command, FlowPage, FlowTask, Port, Returned, Rings, Worker};
use margay_api::dataplane::v1 as pb;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Packets each direction of a wire holds.
const WIRE: usize = 8192;

/// Makes an interface's device of the near end of its wire.
type Wrap = Box<dyn FnOnce(Memory) -> Box<dyn Device> + Send>;

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Workers.
    pub workers: u8,
    /// Packet buffers.
    pub frames: u32,
    /// Buffers for packets longer than one of those.
    pub large: u32,
    /// Flows a worker.
    pub flows: u32,
    /// Reads a counter for the cost of nodes.
    pub ticks: fn() -> u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { workers: 1, frames: 8192, large: 16, flows: 4096, ticks: || 0 }
    }
}

/// The dataplane, its wires and its clock.
pub struct Simulation {
    /// The control side.
    pub state: State,
    /// The workers.
    pub workers: Vec<Worker>,
    /// What workers told since it was last emptied, neighbours' news excepted.
    pub drops: Vec<Event>,
    /// What workloads were told of their gateways, unasked. It is not sent, so that it is in nobody's way.
    pub announced: Vec<(IfId, Vec<u8>)>,
    /// What staged policies would have decided otherwise.
    pub differences: Differences,
    rings: Vec<Rings>,
    wires: BTreeMap<String, (IfId, MemoryHandle)>,
    wraps: BTreeMap<String, Wrap>,
    frames: Arc<Frames>,
    now: Nanos,
    generation: u64,
}

/// What workers note of packets.
pub struct Watched {
    /// A worker each.
    pub rings: Vec<Arc<Sightings>>,
    stories: Stories,
}

/// Packets in, out and between, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Received, or made here.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
    /// Learned from.
    pub punt: u64,
    /// Dropped.
    pub drops: u64,
    /// Held, or between workers.
    pub in_flight: u64,
}

impl Simulation {
    /// Nothing attached, nothing desired. The clock stands at one second.
    pub fn new(setup: Setup) -> Self {
        let frames = Frames::with_large(setup.frames, 2048, setup.large, false)
            .expect("the setup's frames are within bounds");
        let count = usize::from(setup.workers);
        let mut publisher = Publisher::new(Snapshot::empty(count));
        let inboxes: Arc<[Inbox]> = (0..count).map(|_| Inbox::new(1024)).collect();
        let limits =
            Limits { flows: Settings { sessions: setup.flows, ..Settings::default() }, interfaces: 256 };
        let directory = Arc::new(Directory::new(u64::from(setup.flows) * u64::from(setup.workers)));
        let (mut workers, mut rings) = (vec![], vec![]);
        for id in (0..setup.workers).map(WorkerId) {
            let mut reader = publisher.reader();
            let first = reader.first();
            let hasher = FlowHasher::new([1, 2, 3, 4]);
            let mut world =
                World::new(id, limits, hasher, first, inboxes.clone()).expect("flows are above zero");
            world.share(directory.clone());
            let ring = Rings::default();
            let pool = Pool::new(frames.clone(), 1024);
            workers.push(Worker::new(world, pool, reader, ring.clone(), setup.ticks));
            rings.push(ring);
        }
        Self {
            state: State::new(publisher, 256),
            workers,
            drops: vec![],
            announced: vec![],
            differences: Differences::default(),
            rings,
            wires: BTreeMap::new(),
            wraps: BTreeMap::new(),
            frames,
            now: Nanos::from_secs(1),
            generation: 0,
        }
    }

    /// Once the interface of this name comes, its device is what `wrap` makes of the near end of
    /// its wire: a device around it, or another one instead.
    pub fn wrap(&mut self, interface: &str, wrap: impl FnOnce(Memory) -> Box<dyn Device> + Send + 'static) {
        self.wraps.insert(interface.to_owned(), Box::new(wrap));
    }

    /// Adds an uplink with these addresses of the host.
    pub fn uplink(&mut self, name: &str, mac: Mac, addresses: &[(Addr, u8)]) -> IfId {
        let id = self.state.want(name, Purpose::Uplink { vlan: None }).expect("the name is new");
        self.attach(id, name, mac, addresses);
        id
    }

    /// Adds a VLAN on an uplink.
    pub fn vlan(&mut self, carrier: &str, tag: u16, mac: Mac, addresses: &[(Addr, u8)]) -> IfId {
        let name = format!("{carrier}.{tag}");
        let vlan = Some((carrier.into(), tag));
        let id = self.state.want(&name, Purpose::Uplink { vlan }).expect("the name is new");
        self.state.attached(id, facts(mac, addresses, &self.queues(id)), self.now);
        self.state.publish();
        id
    }

    /// Adds the port to this host.
    pub fn host(&mut self, name: &str, mac: Mac) -> IfId {
        let id = self.state.want(name, Purpose::Host).expect("the name is new");
        self.attach(id, name, mac, &[]);
        id
    }

    /// Applies a transaction as an agent's stream in sync would, and attaches what it brings.
    pub fn commit(&mut self, changes: Vec<pb::Change>) -> Result<(), Vec<ObjectError>> {
        self.generation += 1;
        let commit = pb::Commit { generation: self.generation, in_sync: true };
        self.state.commit(&changes, &commit, self.now)?;
        self.reconcile();
        Ok(())
    }

    /// Puts a frame on the wire of an interface.
    ///
    /// # Panics
    /// When there is no such interface, or its wire is full.
    pub fn push(&self, interface: &str, frame: &[u8]) {
        assert!(self.wire(interface).push(frame), "the wire of {interface} is full");
    }

    /// Has the interface's device send super-frames whole.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn take_super_frames(&mut self, interface: &str) {
        let (id, wire) = self.wires.get(interface).unwrap_or_else(|| panic!("no interface {interface}"));
        wire.set_super_frames(true);
        let facts = Facts { super_frames: true, ..facts(self.mac(interface), &[], &self.queues(*id)) };
        self.state.attached(*id, facts, self.now);
        self.state.publish();
    }

    /// Has the link of an interface without addresses take packets of this length.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn set_mtu(&mut self, interface: &str, mtu: u16) {
        let (id, _) = self.wires.get(interface).unwrap_or_else(|| panic!("no interface {interface}"));
        let facts = Facts { mtu, ..facts(self.mac(interface), &[], &self.queues(*id)) };
        self.state.attached(*id, facts, self.now);
        self.state.publish();
    }

    /// Puts a super-frame on the wire of an interface.
    ///
    /// # Panics
    /// When there is no such interface, or its wire is full.
    pub fn push_super(&self, interface: &str, frame: &[u8], gso: Gso, size: u16) {
        assert!(self.wire(interface).push_super(frame, gso, size), "the wire of {interface} is full");
    }

    /// Takes a frame off the wire of an interface.
    pub fn pop(&self, interface: &str) -> Option<Vec<u8>> {
        self.wire(interface).pop()
    }

    /// The far end of an interface.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn wire(&self, interface: &str) -> &MemoryHandle {
        let (_, wire) = self.wires.get(interface).unwrap_or_else(|| panic!("no interface {interface}"));
        wire
    }

    /// The address of an interface of ours.
    pub fn mac(&self, interface: &str) -> Mac {
        let id = self.state.id(interface).expect("the interface is there");
        self.state.publisher().current().interfaces.get(id).expect("and published").mac
    }

    /// The time.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Lets time pass, then runs until nothing moves any more.
    pub fn step(&mut self, time: Nanos) {
        self.step_watched(time, |worker, now| worker.poll(now));
    }

    /// As [`step`](Self::step), with `poll` to call each worker's poll: for who wants to look on.
    pub fn step_watched(&mut self, time: Nanos, mut poll: impl FnMut(&mut Worker, Nanos) -> usize) {
        self.now = self.now.plus(time);
        for action in self.state.tick(self.now) {
            self.act(action);
        }
        self.state.publish();
        loop {
            let moved: usize = self.workers.iter_mut().map(|worker| poll(worker, self.now)).sum();
            let news = self.listen();
            if moved == 0 && !news {
                break;
            }
        }
    }

    /// One poll of every worker and nothing else: for benchmarks.
    pub fn poll(&mut self) -> usize {
        self.workers.iter_mut().map(|worker| worker.poll(self.now)).sum()
    }

    /// Asks each worker about its flows; what they answer is thrown away.
    pub fn ask_flows(&self, filter: &Arc<Filter>, task: FlowTask) {
        self.rings.iter().for_each(|ring| ask_flows(ring, FlowPage::new(filter.clone(), task)));
    }

    /// Asks each worker about its flows, and does `meanwhile` at each poll until all have looked at
    /// their whole tables.
    pub fn flows(
        &mut self,
        filter: Filter,
        task: FlowTask,
        mut meanwhile: impl FnMut(&Self),
    ) -> Vec<FlowPage> {
        self.ask_flows(&Arc::new(filter), task);
        let (mut pages, mut asked) = (vec![], self.rings.len());
        while asked > 0 {
            meanwhile(self);
            self.poll();
            for ring in &self.rings {
                if let Some(Returned::Shown(page)) = ring.returned.pop() {
                    match page.following() {
                        Some(next) => ask_flows(ring, next),
                        None => asked -= 1,
                    }
                    pages.push(*page);
                }
            }
        }
        pages
    }

    /// Has workers note packets as a request of the API would.
    ///
    /// # Panics
    /// When the filter or the program is none.
    pub fn watch(&self, request: &pb::WatchRequest) -> Watched {
        let filter = Filter::of_packets(&request.filter, |_| None).expect("the filter is one");
        let program = watch_program(&request.program).expect("the program is one");
        let watching = Watching::new(self.workers.len(), Wanted { filter, program }, request);
        let watched = Watched { rings: watching.sightings().to_vec(), stories: Stories::default() };
        for (ring, watcher) in self.rings.iter().zip(watching.watchers) {
            let watch = Command::Watch(Some(Box::new(watcher)));
            assert!(ring.commands.push(watch).is_ok(), "the command ring has room");
        }
        watched
    }

    /// Has workers tell of flows.
    ///
    /// # Panics
    /// When a ring of commands is full.
    pub fn tell_of_flows(&self) -> Vec<FlowRings> {
        let rings = self.workers.iter().map(|worker| FlowRings::new(worker.world().me));
        let rings: Vec<_> = rings.collect();
        for ((ring, told), worker) in self.rings.iter().zip(&rings).zip(&self.workers) {
            let sessions = worker.world().flows.capacity();
            let tell = Command::TellOfFlows(Some(told.logs(sessions, false)));
            assert!(ring.commands.push(tell).is_ok(), "the command ring has room");
        }
        rings
    }

    /// What was told of flows, as the API has it. The world's time is the virtual clock's.
    pub fn flow_records(&self, rings: &[FlowRings]) -> Vec<pb::FlowRecord> {
        let mut teller = Teller::new(&self.state);
        rings.iter().flat_map(|ring| teller.tell(&ring.take(usize::MAX, self.now.0))).collect()
    }

    /// Has the interface's worker take a packet that nobody sent.
    ///
    /// # Panics
    /// When it cannot be made up.
    pub fn probe(&self, asked: &pb::Probe) {
        let probe = probe(&self.state, asked).expect("the packet can be made up");
        let worker = usize::from(probe.interface.0) % self.workers.len();
        let taken = self.rings[worker].commands.push(Command::Probe(Box::new(probe)));
        assert!(taken.is_ok(), "the command ring has room");
    }

    /// What was watched and has ended, as the API has it. Ticks are nanoseconds.
    pub fn told(&self, watched: &mut Watched, request: &pb::WatchRequest) -> Vec<pb::WatchedPacket> {
        let clock = Clock { ticks: 0, unix_nanos: 0, hz: 1e9 };
        // Twice: what has ended is told when nothing more can come of it.
        let ended: Vec<_> = (0..2).flat_map(|_| watched.stories.collect(&watched.rings)).collect();
        ended.iter().map(|story| story.tell(&self.state, clock, self.now, request)).collect()
    }

    /// Counts over all workers.
    pub fn account(&self) -> Account {
        let sum = |of: fn(&crate::nodes::WorkerCounters) -> u64| -> u64 {
            self.workers.iter().map(|worker| of(&worker.world().counters)).sum()
        };
        Account {
            rx: sum(|c| c.rx.get()),
            tx: sum(|c| c.tx.get()),
            punt: sum(|c| c.punt.get()),
            drops: sum(|c| c.drops()),
            in_flight: sum(|c| c.held.get() + c.unsealed.get())
                + sum(|c| c.early.get())
                + sum(|c| c.handed_out.get())
                - sum(|c| c.taken_in.get()),
        }
    }

    /// Checks that no packet and no frame is unaccounted for.
    ///
    /// # Panics
    /// When one is.
    pub fn check(&self) {
        let account = self.account();
        let out = account.tx + account.punt + account.drops + account.in_flight;
        assert_eq!(account.rx, out, "rx == tx + punt + drops + in flight: {account:?}");
        let frames: usize =
            self.workers.iter().map(|worker| worker.frames()).map(|(free, lent)| free + lent).sum();
        let free = frames + self.frames.in_depot();
        let (all, large_out) =
            (self.frames.count() as usize, self.frames.large() as usize - self.frames.large_in_depot());
        if large_out == 0 {
            assert_eq!(free + account.in_flight as usize, all, "frames: {account:?}");
        } else {
            // What is in a large buffer stands for some packets, and has no frame.
            let packets = free + large_out..=free + account.in_flight as usize;
            assert!(packets.contains(&all) || free == all, "frames: {account:?}, {large_out} large");
        }
    }

    fn attach(&mut self, id: IfId, name: &str, mac: Mac, addresses: &[(Addr, u8)]) {
        let (memory, wire) = Memory::new(WIRE);
        let device = match self.wraps.remove(name) {
            Some(wrap) => wrap(memory),
            None => Box::new(memory),
        };
        let worker = usize::from(id.0) % self.workers.len();
        let port = Port { interface: id, queue: 0, device, counters: Arc::default() };
        let attach = Command::Attach { port, outbox: Box::default() };
        assert!(self.rings[worker].commands.push(attach).is_ok(), "the command ring has room");
        self.wires.insert(name.to_owned(), (id, wire));
        self.state.attached(id, facts(mac, addresses, &self.queues(id)), self.now);
        self.state.publish();
    }

    fn queues(&self, id: IfId) -> Vec<WorkerId> {
        vec![WorkerId((usize::from(id.0) % self.workers.len()) as u8)]
    }

    /// Attaches workloads' interfaces that are wanted, and detaches those that are not any more.
    fn reconcile(&mut self) {
        let retiring: Vec<IfId> = self.state.retiring().iter().copied().collect();
        for id in retiring {
            self.wires.retain(|_, (of, _)| *of != id);
            let worker = usize::from(id.0) % self.workers.len();
            assert!(
                self.rings[worker].commands.push(Command::Detach(id)).is_ok(),
                "the command ring has room"
            );
        }
        let missing: Vec<(IfId, String)> = self
            .state
            .wanted()
            .filter(|(_, _, _, served)| !served)
            .map(|(id, name, _, _)| (id, name.to_string()))
            .collect();
        for (id, name) in missing {
            self.attach(id, &name, Mac([2, 0, 0xca, 0x11, (id.0 >> 8) as u8, id.0 as u8]), &[]);
        }
        let forgotten = self.state.take_forgotten();
        if !forgotten.is_empty() {
            for ring in &self.rings {
                assert!(ring.commands.push(Command::Forget(Box::new(forgotten.clone()))).is_ok(), "room");
            }
        }
        self.state.publish();
    }

    fn listen(&mut self) -> bool {
        let mut news = false;
        for at in 0..self.workers.len() {
            news |= self.state.handshakes(&self.workers[at].world().handshakes, self.now) > 0;
            while let Some(event) = self.workers[at].world().events.pop() {
                news = true;
                self.differences.note(&event, &self.state);
                if let Some(action) = self.state.event(&event, self.now) {
                    self.act(action);
                }
                if matches!(
                    event,
                    Event::Dropped { .. } | Event::TableFull { .. } | Event::NatExhausted { .. }
                ) {
                    self.drops.push(event);
                }
            }
            while let Some(returned) = self.rings[at].returned.pop() {
                news = true;
                if let Returned::Port(port) = returned {
                    self.state.released(port.interface, self.now);
                }
            }
        }
        let before = self.state.publisher().current().generation;
        for action in self.state.pass_wireguard(self.now) {
            news = true;
            self.act(action);
        }
        self.state.publish() || news || self.state.publisher().current().generation != before
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { interface, frame } => {
                let carrier = self.state.publisher().current().interfaces.get(interface).map(|i| i.carrier);
                let worker = usize::from(carrier.unwrap_or(interface).0) % self.workers.len();
                let inject = Command::Inject(interface, frame.into());
                assert!(self.rings[worker].commands.push(inject).is_ok(), "the command ring has room");
            }
            Action::Announce { interface, frame } => self.announced.push((interface, frame)),
            Action::Resolve { .. } => unreachable!("no interface here leaves its neighbours to a kernel"),
        }
    }
}

fn facts(mac: Mac, addresses: &[(Addr, u8)], queues: &[WorkerId]) -> Facts {
    Facts {
        mac,
        mtu: 1500,
        addresses: addresses.to_vec(),
        kernel_neighbours: false,
        queues: queues.to_vec(),
        super_frames: false,
    }
}

fn ask_flows(ring: &Rings, page: FlowPage) {
    assert!(ring.commands.push(Command::Show(Box::new(page))).is_ok(), "the command ring has room");
}
