//! Opens and closes the devices of interfaces, and tells workers to serve them.

use super::state::{Facts, Purpose};
use crate::conntrack::Table;
use crate::graph::NodeCounters;
use crate::io::Device;
use crate::io::af_xdp::{AfXdp, Attachment, Guard, Lead, Named, Options, Ours, Program, Role};
use crate::io::netlink::{Address, Link};
use crate::io::offload::OffloadTap;
use crate::io::tap::Tap;
use crate::net::{IfId, Mac, WorkerId};
use crate::nodes::{Datagram, Event, Logs, Probe, Watcher, WorkerCounters};
use crate::packet::{Frames, Vector};
use crate::worker::{Command, FlowPage, Forgotten, Port, PortCounters, Returned, Rings, Wake};
use crossbeam::queue::ArrayQueue;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The control thread's end of one worker.
pub struct WorkerEnd {
    /// Its number.
    pub id: WorkerId,
    /// The core it is pinned to; `None`: to none.
    pub core: Option<usize>,
    /// Commands and what comes back.
    pub rings: Rings,
    /// Its bell.
    pub wake: Wake,
    /// Its news.
    pub events: Arc<ArrayQueue<Event>>,
    /// Messages of WireGuard handshakes that came to it.
    pub handshakes: Arc<ArrayQueue<Datagram>>,
    /// Its counts.
    pub counters: Arc<WorkerCounters>,
    /// Its nodes' counts.
    pub nodes: Arc<NodeCounters>,
    /// Its flow table.
    pub flow_table: FlowMemory,
}

/// The memory of a flow table, which never changes.
#[derive(Clone, Copy, Debug)]
pub struct FlowMemory {
    /// Flows it has room for.
    pub capacity: u32,
    /// Bytes.
    pub bytes: usize,
    /// What packets touch is on hugepages.
    pub hugepages: bool,
}

impl FlowMemory {
    /// Of this table.
    pub fn of(flows: &Table) -> Self {
        Self { capacity: flows.capacity(), bytes: flows.bytes(), hugepages: flows.hugepages() }
    }
}

/// How devices are opened.
#[derive(Clone, Copy, Debug)]
pub struct DeviceOptions {
    /// Of AF_XDP sockets.
    pub af_xdp: Options,
    /// Run XDP programs in the stack even where the driver could.
    pub generic_only: bool,
    /// What workloads' packets come by.
    pub workload_ports: WorkloadPorts,
    /// Receive rings of workloads' sockets.
    pub workload: WorkloadRing,
}

/// What carries the packets of workloads between their links and us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadPorts {
    /// An AF_XDP socket on the link: frames as they would be on a wire.
    AfXdp,
    /// A tap beside the link: super-frames whole.
    Tap,
}

/// Queues of a workload's tap at most, each served by another worker.
const TAP_QUEUES: usize = 4;

/// How much a workload's socket can receive while its worker is busy.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadRing {
    /// Frames it holds at rest.
    pub frames: u32,
    /// Entries of the ring, as many as it holds in bursts: a power of two.
    pub burst: u32,
}

/// An open queue of an interface.
pub struct OpenQueue {
    /// Its number.
    pub queue: u32,
    /// Who serves it.
    pub worker: WorkerId,
    /// What it counted.
    pub counters: Arc<PortCounters>,
}

/// An interface that is served.
pub struct Served {
    /// Its name.
    pub name: Arc<str>,
    /// The kernel's number, to notice when another interface takes the name.
    pub index: u32,
    /// Of the link, as it was opened with.
    pub mtu: u32,
    /// Of the link.
    pub mac: Mac,
    /// As granted by the kernel.
    pub mode: String,
    /// Its queues.
    pub queues: Vec<OpenQueue>,
    program: Option<Arc<Program>>,
    /// Of the tap for an uplink's host traffic: that uplink, and what leads the traffic here.
    guard: Option<(u32, Guard)>,
    /// Of a workload that comes by a tap: what leads its packets there. It stays until no worker has a queue, so that
    /// nothing takes a way around policy.
    lead: Option<Lead>,
    /// Frames its sockets hold for receiving.
    frames: u32,
    /// Queues that workers have not given back yet, once it is being closed.
    closing: usize,
}

/// All devices.
pub struct Ports {
    frames: Arc<Frames>,
    options: DeviceOptions,
    workers: Vec<WorkerEnd>,
    served: BTreeMap<IfId, Served>,
    /// What workers have shown, until somebody takes it.
    shown: Vec<(WorkerId, Box<FlowPage>)>,
}

impl Ports {
    /// None yet.
    pub fn new(frames: Arc<Frames>, options: DeviceOptions, workers: Vec<WorkerEnd>) -> Self {
        Self { frames, options, workers, served: BTreeMap::new(), shown: vec![] }
    }

    /// The workers.
    pub fn workers(&self) -> &[WorkerEnd] {
        &self.workers
    }

    /// The frames all devices share.
    pub fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    /// The interface, if it is served.
    pub fn served(&self, id: IfId) -> Option<&Served> {
        self.served.get(&id).filter(|served| served.closing == 0)
    }

    /// Packets that the kernel lost before interfaces that are served could receive them.
    pub fn lost(&self) -> u64 {
        let queues = self.served.values().flat_map(|served| &served.queues);
        queues.map(|queue| queue.counters.load().kernel.lost()).sum()
    }

    /// Interfaces that are served, and those that are being closed.
    pub fn ids(&self) -> Vec<IfId> {
        self.served.keys().copied().collect()
    }

    /// Every worker has room for commands. Before anything is begun, this must hold; the last
    /// places of a ring are for what must not be lost.
    pub fn take_commands(&self) -> bool {
        let room = |worker: &WorkerEnd| worker.rings.commands.capacity() - worker.rings.commands.len();
        self.workers.iter().all(|worker| room(worker) >= 80)
    }

    /// Opens every queue of an interface and gives them to workers, or says why not. Nothing
    /// stays open then. May block for seconds while the kernel lets go of an earlier socket.
    ///
    /// Returns the link, which for a tap is only there now.
    pub fn open(&mut self, id: IfId, mut link: Link, purpose: &Purpose) -> Result<Link, String> {
        let mut devices: Vec<Box<dyn Device>> = vec![];
        let (mut guard, mut lead) = (None, None);
        let (mode, program, ring) = match purpose {
            Purpose::Tunnel(_) => return Err("no device carries a tunnel's interface".into()),
            Purpose::Host => {
                let tap = Tap::open(&link.name, &self.frames).map_err(|e| e.to_string())?;
                link = made(tap.index(), tap.mac(), tap.mtu(), &link)?;
                devices.push(Box::new(tap));
                ("tap".to_owned(), None, 0)
            }
            Purpose::Stack { uplink } => {
                let of = self.guardable(uplink)?;
                let tap = Tap::open_passive(&link.name, of.mtu, &self.frames).map_err(|e| e.to_string())?;
                link = made(tap.index(), tap.mac(), tap.mtu(), &link)?;
                let near = Named { name: uplink, index: of.index };
                let far = Named { name: &link.name, index: link.index };
                guard = Some((of.index, Guard::attach(near, far).map_err(|e| e.to_string())?));
                devices.push(Box::new(tap));
                (format!("tap for {uplink}"), None, 0)
            }
            Purpose::Workload(_) if self.options.workload_ports == WorkloadPorts::Tap => {
                let name = format!("margay-w{}", id.0);
                let queues = self.workers.len().min(TAP_QUEUES);
                let tap = OffloadTap::make(&name, queues).map_err(|e| e.to_string())?;
                let near = Named { name: &link.name, index: link.index };
                let far = Named { name: &name, index: tap.index };
                lead = Some(Lead::attach(near, far).map_err(|e| e.to_string())?);
                devices.extend(tap.queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Device>));
                (format!("tap {name}, super-frames"), None, 0)
            }
            Purpose::Uplink { .. } | Purpose::Workload(_) => {
                let role =
                    if matches!(purpose, Purpose::Workload(_)) { Role::Workload } else { Role::Uplink };
                let program = Program::attach(&link.name, role, self.options.generic_only)
                    .map_err(|e| e.to_string())?;
                let mut options = self.options.af_xdp;
                if role == Role::Workload {
                    let WorkloadRing { frames, burst } = self.options.workload;
                    options.rings.rx = burst;
                    options.frames = frames.min(burst);
                }
                self.admit(program.queues(), options.frames)?;
                let mut mode = String::new();
                for queue in 0..program.queues() {
                    let device =
                        AfXdp::open(&program, queue, &self.frames, &options).map_err(|e| e.to_string())?;
                    let granted = device.granted();
                    let copy = if granted.zerocopy { "zero-copy" } else { "copy" };
                    let place = match granted.attachment {
                        Attachment::Native => "native",
                        Attachment::Generic => "generic",
                    };
                    mode = format!("{copy} {place}");
                    devices.push(Box::new(device));
                }
                (mode, Some(program), options.frames)
            }
        };
        if !self.take_commands() {
            return Err("a worker does not take commands; is it overloaded?".into());
        }
        let frames = ring * devices.len() as u32;
        let mut queues = vec![];
        for (queue, device) in (0u32..).zip(devices) {
            // Interfaces begin with different workers, so that many of one queue spread.
            let at = (usize::from(id.0) + queue as usize) % self.workers.len();
            let counters = Arc::<PortCounters>::default();
            let port = Port { interface: id, queue, device, counters: counters.clone() };
            let command = Command::Attach { port, outbox: Box::<Vector>::default() };
            let worker = self.workers[at].id;
            self.tell(at, command);
            queues.push(OpenQueue { queue, worker, counters });
        }
        let served = Served {
            name: link.name.as_str().into(),
            index: link.index,
            mtu: link.mtu,
            mac: link.mac,
            mode,
            queues,
            program,
            guard,
            lead,
            frames,
            closing: 0,
        };
        self.served.insert(id, served);
        Ok(link)
    }

    /// The uplink, if the host's own packets can be led around it.
    fn guardable(&self, uplink: &str) -> Result<&Served, String> {
        let of = self.served.values().find(|served| &*served.name == uplink && served.closing == 0);
        let of = of.ok_or_else(|| format!("its uplink {uplink} is not served"))?;
        match of.program.as_ref().map(|program| program.attachment()) {
            Some(Attachment::Native) => Ok(of),
            // What we hand the host would run into the program again.
            _ => Err(format!(
                "what the host itself sends and gets comes by way of the dataplane, which needs XDP in the driver, and \
                 {uplink} has it in the stack; use a driver that has it, and no --xdp-mode generic"
            )),
        }
    }

    /// The kernel's number of the interface of this name, if it is served.
    pub fn index(&self, name: &str) -> Option<u32> {
        let mut served = self.served.values().filter(|served| served.closing == 0);
        served.find(|served| &*served.name == name).map(|served| served.index)
    }

    /// The kernel's number of the uplink whose host traffic is led by way of this tap.
    pub fn guards(&self, id: IfId) -> Option<u32> {
        self.served(id)?.guard.as_ref().map(|(uplink, _)| *uplink)
    }

    /// Tells workers to give the interface's queues back. Its program stays until they have.
    /// Nothing is done while a worker does not take commands: call again.
    pub fn close(&mut self, id: IfId) {
        if !self.take_commands() {
            return;
        }
        let Some(served) = self.served.get_mut(&id).filter(|served| served.closing == 0) else { return };
        served.closing = served.queues.len();
        // The host's packets take the direct way from now on.
        served.guard = None;
        let workers: Vec<usize> = served.queues.iter().map(|queue| usize::from(queue.worker.0)).collect();
        for (at, worker) in workers.iter().enumerate() {
            if !workers[..at].contains(worker) {
                self.tell(*worker, Command::Detach(id));
            }
        }
    }

    /// Frees what workers gave back. Returns the interfaces that nobody serves any more.
    pub fn collect(&mut self) -> Vec<IfId> {
        let mut released = vec![];
        for at in 0..self.workers.len() {
            while let Some(returned) = self.workers[at].rings.returned.pop() {
                let port = match returned {
                    Returned::Port(port) => port,
                    Returned::Shown(page) => {
                        self.shown.push((self.workers[at].id, page));
                        continue;
                    }
                    Returned::Outbox(_)
                    | Returned::Frame(_)
                    | Returned::Forgotten(_)
                    | Returned::Logs(_)
                    | Returned::Watcher(_)
                    | Returned::Probe(_) => continue,
                };
                let id = port.interface;
                // Dropping waits for the kernel: not on this thread.
                tokio::task::spawn_blocking(move || drop(port));
                let Some(served) = self.served.get_mut(&id) else { continue };
                served.closing = served.closing.saturating_sub(1);
                if served.closing == 0 {
                    self.served.remove(&id);
                    released.push(id);
                }
            }
        }
        released
    }

    /// Sends a frame by the interface.
    pub fn send(&self, id: IfId, frame: Vec<u8>) {
        if let Some(queue) = self.served(id).and_then(|served| served.queues.first()) {
            // A question that is lost is asked again.
            if self.take_commands() {
                self.tell(usize::from(queue.worker.0), Command::Inject(id, frame.into()));
            }
        }
    }

    /// Tells every worker to forget these flows.
    pub fn forget_flows(&self, flows: &Forgotten) {
        for at in 0..self.workers.len() {
            self.tell(at, Command::Forget(Box::new(flows.clone())));
        }
    }

    /// Asks a worker about its flows.
    pub fn show_flows(&self, worker: WorkerId, page: Box<FlowPage>) {
        self.tell(usize::from(worker.0), Command::Show(page));
    }

    /// Has each worker note packets; `None`: no longer.
    pub fn watch(&self, watchers: impl Iterator<Item = Option<Watcher>>) {
        for (at, watcher) in watchers.take(self.workers.len()).enumerate() {
            self.tell(at, Command::Watch(watcher.map(Box::new)));
        }
    }

    /// Has each worker tell of flows; `None`: no longer.
    pub fn tell_of_flows(&self, logs: impl Iterator<Item = Option<Logs>>) {
        for (at, logs) in logs.take(self.workers.len()).enumerate() {
            self.tell(at, Command::TellOfFlows(logs));
        }
    }

    /// Has the worker that serves the packet's interface take it. False: nobody does.
    pub fn probe(&self, probe: Probe) -> bool {
        let Some(queue) = self.served(probe.interface).and_then(|served| served.queues.first()) else {
            return false;
        };
        self.tell(usize::from(queue.worker.0), Command::Probe(Box::new(probe)));
        true
    }

    /// What workers have shown.
    pub fn take_shown(&mut self) -> Vec<(WorkerId, Box<FlowPage>)> {
        std::mem::take(&mut self.shown)
    }

    /// Wakes every worker, so that a new snapshot is adopted at once.
    pub fn wake_all(&self) {
        self.workers.iter().for_each(|worker| worker.wake.ring());
    }

    /// Leaves what is ours to us on every uplink: to the host only where it is guarded.
    pub fn set_ours(&mut self, ours: &Ours) {
        let guarded: Vec<u32> = self.ids().iter().filter_map(|id| self.guards(*id)).collect();
        for served in self.served.values_mut().filter(|served| served.closing == 0) {
            let outcome = match (&served.program, &mut served.guard) {
                (_, Some((_, guard))) => guard.set_addresses(&ours.host),
                (Some(program), _) if program.role() == Role::Uplink => {
                    match guarded.contains(&served.index) {
                        true => program.set_ours(ours),
                        false => program.set_ours(&Ours { host: vec![], ..ours.clone() }),
                    }
                }
                _ => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::warn!(interface = &*served.name, %error, "W003 the uplink does not leave all it should to the dataplane");
            }
        }
    }

    /// What is to be known of the interface for the snapshot.
    pub fn facts(&self, id: IfId, purpose: &Purpose, addresses: &[Address]) -> Option<Facts> {
        let served = self.served(id)?;
        let uplink = matches!(purpose, Purpose::Uplink { .. });
        let own = addresses.iter().filter(|address| uplink && address.link == served.index);
        let mut queues: Vec<WorkerId> = served.queues.iter().map(|queue| queue.worker).collect();
        queues.dedup();
        Some(Facts {
            mac: served.mac,
            mtu: u16::try_from(served.mtu).unwrap_or(u16::MAX),
            addresses: own.map(|address| (address.addr, address.prefix_len)).collect(),
            kernel_neighbours: uplink,
            queues,
            super_frames: served.lead.is_some(),
        })
    }

    /// Checks that the sockets of one more interface leave frames for packets on their way.
    fn admit(&self, queues: u32, ring: u32) -> Result<(), String> {
        let held: u32 = self.served.values().map(|served| served.frames).sum();
        let (wanted, limit) = (queues * ring, self.frames.count() / 4 * 3);
        if held + wanted > limit {
            return Err(format!(
                "no room for {wanted} receive frames: {held} of {limit} are with other interfaces; raise --frames"
            ));
        }
        Ok(())
    }

    /// There is room: this thread alone leaves commands, and has looked.
    fn tell(&self, worker: usize, command: Command) {
        let end = &self.workers[worker];
        drop(end.rings.commands.push(command));
        end.wake.ring();
    }
}

/// The link of a tap that was just opened.
fn made(
    index: io::Result<u32>,
    mac: io::Result<Mac>,
    mtu: io::Result<u32>,
    link: &Link,
) -> Result<Link, String> {
    let asked = |e: io::Error| format!("asking for the address of {}: {e}", link.name);
    let (index, mac, mtu) = (index.map_err(asked)?, mac.map_err(asked)?, mtu.map_err(asked)?);
    Ok(Link { index, mac, mtu, up: true, name: link.name.clone() })
}
