//! What a worker counts. One writer; read by anyone.

use super::Histogram;
use crate::graph::COUNTED;
use crate::packet::DropReason;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count with one writer: a load and a store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counted(AtomicU64);

impl Counted {
    /// Called by the one writer.
    #[inline]
    pub fn add(&self, more: u64) {
        if COUNTED {
            self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
        }
    }

    /// Called by the one writer, for what rises and falls.
    #[inline]
    pub fn set(&self, value: u64) {
        if COUNTED {
            self.0.store(value, Relaxed);
        }
    }

    /// Called by anyone.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counts of one worker. Over all workers, and at a moment when none is inside a poll,
/// `rx == tx + punt + drops + in flight`, where in flight is what is held, what came early, and
/// what was handed out and not yet taken in.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Packets received, those made here included.
    pub rx: Counted,
    /// Packets a device took for sending.
    pub tx: Counted,
    /// Packets whose news went to the control thread, and that ended with it.
    pub punt: Counted,
    /// Packets made here: answers to ARP and neighbour discovery, ICMP errors, questions.
    pub originated: Counted,
    /// Packets that wait for a neighbour now.
    pub held: Counted,
    /// Packets that wait for a WireGuard session now.
    pub unsealed: Counted,
    /// Fragments that wait for the first of their packet now.
    pub early: Counted,
    /// Packets put into other workers' inboxes.
    pub handed_out: Counted,
    /// Packets taken from this worker's inbox.
    pub taken_in: Counted,
    /// News that the control thread had no room for.
    pub lost_events: Counted,
    /// Flows in the table now.
    pub flows: Counted,
    /// Flows that were entered.
    pub flows_inserted: Counted,
    /// Flows that nobody used any more.
    pub flows_expired: Counted,
    /// Flows given up, half-open or closed, for new ones.
    pub flows_evicted: Counted,
    /// Flows that found no room.
    pub flows_refused: Counted,
    /// Free frames that the worker keeps at hand, as of a moment ago.
    pub frames_kept: Counted,
    /// Frames that are with its devices, as of a moment ago.
    pub frames_lent: Counted,
    /// Times the worker looked for packets.
    pub polls: Counted,
    /// Times it found none.
    pub empty_polls: Counted,
    /// Times it went to sleep.
    pub sleeps: Counted,
    /// Ticks spent in polls that found packets.
    pub busy_ticks: Counted,
    /// Ticks since its start.
    pub ticks: Counted,
    drops: Drops,
    /// Of vectors that were received.
    pub vectors: VectorCosts,
}

/// What vectors that were received have cost, from when the worker turned to its devices until those it sent by had
/// what became of the vector. What other workers handed over, and what had waited, is not among them.
#[derive(Debug, Default)]
pub struct VectorCosts {
    /// Packets in each: those of all devices that were at hand, together.
    pub packets: Histogram,
    /// Ticks for each packet: its share of its vector's.
    pub cycles: Histogram,
    /// Ticks that each packet spent in the worker: its vector's.
    pub latency: Histogram,
}

impl VectorCosts {
    /// One more, of at least one packet.
    #[inline]
    pub fn add(&self, packets: u64, ticks: u64) {
        self.packets.add(packets, 1);
        self.cycles.add(ticks / packets, packets);
        self.latency.add(ticks, packets);
    }
}

/// One for each reason.
#[derive(Debug)]
struct Drops([Counted; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counted::default()))
    }
}

impl WorkerCounters {
    /// One packet was made here: it counts as received, too.
    #[inline]
    pub fn made(&self) {
        self.rx.add(1);
        self.originated.add(1);
    }

    /// Dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> &Counted {
        &self.drops.0[reason as usize]
    }

    /// Dropped for any reason.
    pub fn drops(&self) -> u64 {
        self.drops.0.iter().map(Counted::get).sum()
    }
}
