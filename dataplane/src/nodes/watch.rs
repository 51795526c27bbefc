//! Packets that somebody watches: what each node makes of them, noted for the control side.
//!
//! No node has a line for it. The graph shows a [`Step`] for each packet of a vector, and what is to be told of one
//! (its headers before and after, its flow, its verdict, its way out) follows from [`Meta`] and the first bytes,
//! which are copied as they are: to make words of them is the business of whoever asked. Packets are chosen by the
//! filter where they come in; `Meta::watched` goes with them, from one worker to the other, too.

use super::world::flow_key;
use super::{Drop, Parse, Punt, Tx, WgEncrypt, World};
use crate::conntrack::Filter;
use crate::graph::{Node, Sink, Step, Watch};
use crate::net::{FlowKey, IfId, Program, WorkerId};
use crate::packet::{Meta, Packet};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

/// Where packets come in.
pub const ENTERS: &str = <Parse as Node<World>>::NAME;
/// Where they are sent.
pub const SENT: &str = <Tx as Sink<World>>::NAME;
/// Where they are dropped.
pub const DROPPED: &str = <Drop as Sink<World>>::NAME;
/// Where they are sealed: from there on their headers are not to be read any more.
pub const SEALED: &str = <WgEncrypt as Node<World>>::NAME;
/// Where they end, having been news.
pub const PUNTED: &str = <Punt as Sink<World>>::NAME;

/// Which of its packets a worker is to note, and where.
pub struct Watcher {
    /// Which are wanted.
    pub wanted: Arc<Wanted>,
    /// What of their way.
    pub interest: Interest,
    /// How many more packets may be chosen.
    pub left: u64,
    /// The numbers of packets, one row for all workers.
    pub numbers: Arc<AtomicU16>,
    /// Where to.
    pub sightings: Arc<Sightings>,
    /// Of the last step: time outside the graph is not told.
    last: u64,
}

/// Of which packets both are true.
pub struct Wanted {
    /// What is known of a packet.
    pub filter: Filter,
    /// The frame as it is there; none: whatever it is.
    pub program: Option<Program>,
}

/// What of a chosen packet's way is noted. Its end always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Each node.
    pub steps: bool,
    /// As it came in.
    pub rx: bool,
    /// Packets may be chosen as late as here: when they are sent,
    pub tx: bool,
    /// or dropped.
    pub drop: bool,
}

/// A packet at one step of its way.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Its number among those that were chosen.
    pub packet: u16,
    /// By whom it was seen.
    pub worker: WorkerId,
    /// Where.
    pub step: Step,
    /// What is known of it by then.
    pub meta: Meta,
    /// The flow key it came with, where its headers do not say it any more.
    pub key: Option<FlowKey>,
    /// The first of its bytes, from `meta.data` on.
    pub bytes: Vec<u8>,
}

/// The two rings between a worker and whoever watches: blank sightings there, written ones back. What finds no blank
/// one is counted.
pub struct Sightings {
    blank: ArrayQueue<Box<Sighting>>,
    seen: ArrayQueue<Box<Sighting>>,
    lost: AtomicU64,
    passed_over: AtomicU64,
}

impl Sightings {
    /// Room for `count`, of `bytes` of each packet.
    pub fn new(count: usize, bytes: usize) -> Arc<Self> {
        let blank = ArrayQueue::new(count);
        for _ in 0..count {
            let sighting = Sighting {
                packet: 0,
                worker: WorkerId(0),
                step: Step { node: "", arc: "", ticks: 0, cycles: 0, packets: 0 },
                meta: Meta::default(),
                key: None,
                bytes: Vec::with_capacity(bytes),
            };
            // There is room for as many.
            let _ = blank.push(Box::new(sighting));
        }
        let (lost, passed_over) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { blank, seen: ArrayQueue::new(count), lost, passed_over })
    }

    /// The next one, for whoever watches. To be [given back](Self::give_back).
    pub fn next(&self) -> Option<Box<Sighting>> {
        self.seen.pop()
    }

    /// For the worker to write on again.
    pub fn give_back(&self, blank: Box<Sighting>) {
        // As many were taken.
        let _ = self.blank.push(blank);
    }

    /// Steps of chosen packets that found no blank sighting.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Packets that the filter would have chosen while most of the sightings were still to be read.
    pub fn passed_over(&self) -> u64 {
        self.passed_over.load(Relaxed)
    }
}

impl Watcher {
    /// Notes at most `most` packets that are wanted.
    pub fn new(
        wanted: Arc<Wanted>,
        interest: Interest,
        most: u64,
        numbers: Arc<AtomicU16>,
        sightings: Arc<Sightings>,
    ) -> Self {
        Self { wanted, interest, left: most, numbers, sightings, last: 0 }
    }

    /// Chooses the packet, whatever it is.
    pub fn choose(&mut self, meta: &mut Meta) {
        // Zero stands for none.
        while meta.watched == 0 {
            meta.watched = self.numbers.fetch_add(1, Relaxed);
        }
    }

    fn see(&mut self, me: WorkerId, step: Step, packet: Packet<'_>) {
        self.last = step.ticks;
        let (enters, ends) = (step.node == ENTERS, is_end(step.node));
        if packet.meta.watched == 0 {
            let sent = self.interest.tx && step.node == SENT;
            let dropped = self.interest.drop && step.node == DROPPED;
            if !(enters || sent || dropped) || self.left == 0 || !self.wants(&packet) {
                return;
            }
            if self.sightings.blank.len() * 2 < self.sightings.blank.capacity() {
                self.sightings.passed_over.fetch_add(1, Relaxed);
                return;
            }
            self.left -= 1;
            self.choose(packet.meta);
        }
        if self.interest.steps || ends || (enters && self.interest.rx) {
            self.note(me, step, &packet);
        }
    }

    fn wants(&self, packet: &Packet<'_>) -> bool {
        // Before `parse` is through there is no transport header to read a key from.
        let key = (packet.meta.l4 > packet.meta.l3).then(|| flow_key(packet));
        let Wanted { filter, program } = &*self.wanted;
        filter.is_of_packet(key.as_ref())
            && program.as_ref().is_none_or(|program| program.accepts(packet.bytes(), packet.meta.len))
    }

    fn note(&self, me: WorkerId, step: Step, packet: &Packet<'_>) {
        let Some(mut sighting) = self.sightings.blank.pop() else {
            self.sightings.lost.fetch_add(1, Relaxed);
            return;
        };
        let Sighting { packet: number, worker, step: at, meta, key, bytes } = &mut *sighting;
        (*number, *worker, *at, *meta, *key) = (packet.meta.watched, me, step, *packet.meta, packet.key());
        let seen = packet.bytes();
        bytes.clear();
        bytes.extend_from_slice(&seen[..seen.len().min(bytes.capacity())]);
        // There is room for every sighting that there is.
        let _ = self.sightings.seen.push(sighting);
    }
}

/// Packets do not leave this node.
pub fn is_end(node: &str) -> bool {
    [SENT, DROPPED, PUNTED].contains(&node)
}

impl Watch for World {
    #[inline(always)]
    fn is_watching(&self) -> bool {
        self.watcher.is_some()
    }

    fn see(&mut self, step: Step, packet: Packet<'_>) {
        if let Some(watcher) = &mut self.watcher {
            watcher.see(self.me, step, packet);
        }
    }
}

impl World {
    /// A packet ends that does not reach the drop node any more.
    #[inline]
    pub(super) fn see_dropped(&mut self, packet: Packet<'_>) {
        if let Some(watcher) = &mut self.watcher {
            let step = Step { node: DROPPED, arc: "", ticks: watcher.last, cycles: 0, packets: 1 };
            watcher.see(self.me, step, packet);
        }
    }
}

/// A packet that nobody sent, to be watched on its way.
pub struct Probe {
    /// The interface it is to have come in by.
    pub interface: IfId,
    /// Whole.
    pub frame: Box<[u8]>,
}
