//! What the control thread tells a worker, and what comes back to be freed there.

use super::FlowPage;
use crate::io::{Device, DeviceCounters};
use crate::net::{IfId, Prefix};
use crate::nodes::{Logs, Probe, Watcher};
use crate::packet::Vector;
use crate::service::Stale;
use crossbeam::atomic::AtomicCell;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// A queue of an interface, served by one worker.
pub struct Port {
    /// The interface that carries it.
    pub interface: IfId,
    /// The queue's number there.
    pub queue: u32,
    /// The queue.
    pub device: Box<dyn Device>,
    /// Where the control thread reads what the device counted.
    pub counters: Arc<PortCounters>,
}

impl Port {
    pub(super) fn publish_counters(&self) {
        self.counters.0.store(self.device.counters());
    }
}

/// A device's counters, readable from other threads, as of a moment ago.
#[derive(Debug, Default)]
pub struct PortCounters(AtomicCell<DeviceCounters>);

impl PortCounters {
    /// As the worker last showed them.
    pub fn load(&self) -> DeviceCounters {
        self.0.load()
    }
}

/// Flows that are to be forgotten.
#[derive(Clone, Debug, Default)]
pub struct Forgotten {
    /// Every flow from or to these addresses.
    pub addresses: Vec<Prefix>,
    /// Those whose services or backends are gone.
    pub stale: Stale,
}

impl Forgotten {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.stale.is_empty()
    }
}

/// What a worker is told.
pub enum Command {
    /// Serve this port, and hold packets for its interface in `outbox`.
    Attach {
        /// The port.
        port: Port,
        /// Made where memory may be allocated.
        outbox: Box<Vector>,
    },
    /// Give up every port of the interface.
    Detach(IfId),
    /// Send this frame by the interface.
    Inject(IfId, Box<[u8]>),
    /// Forget flows, a part each poll.
    Forget(Box<Forgotten>),
    /// Show, count or forget flows: a page of them, a part each poll.
    Show(Box<FlowPage>),
    /// Tell of flows and of who is refused; `None`: no longer.
    TellOfFlows(Option<Logs>),
    /// Note what becomes of packets; `None`: no longer.
    Watch(Option<Box<Watcher>>),
    /// Take this packet as if it had come in.
    Probe(Box<Probe>),
}

/// What a worker gives back, to be freed where that may take time.
pub enum Returned {
    /// Closed; dropping it releases the kernel's side.
    Port(Port),
    /// Empty.
    Outbox(Box<Vector>),
    /// Sent.
    Frame(Box<[u8]>),
    /// None of them is left.
    Forgotten(Box<Forgotten>),
    /// As far as it goes.
    Shown(Box<FlowPage>),
    /// Nothing is told there any more.
    Logs(Logs),
    /// It watches no longer.
    Watcher(Box<Watcher>),
    /// Taken.
    Probe(Box<Probe>),
}

/// The two rings between the control thread and one worker.
#[derive(Clone)]
pub struct Rings {
    /// To the worker.
    pub commands: Arc<ArrayQueue<Command>>,
    /// From the worker.
    pub returned: Arc<ArrayQueue<Returned>>,
}

impl Default for Rings {
    fn default() -> Self {
        Self { commands: Arc::new(ArrayQueue::new(256)), returned: Arc::new(ArrayQueue::new(1024)) }
    }
}

impl Rings {
    /// The next command, while there is room for what carrying it out may give back.
    pub(super) fn next(&self) -> Option<Command> {
        /// An interface has at most this many queues on one worker, and one outbox.
        const MOST_RETURNED: usize = 65;
        if self.returned.capacity() - self.returned.len() < MOST_RETURNED {
            return None;
        }
        self.commands.pop()
    }

    pub(super) fn give_back(&self, what: Returned) {
        // There is room: `next` saw to it.
        drop(self.returned.push(what));
    }
}
