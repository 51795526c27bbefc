//! Packets for another worker: it owns the flow, or a queue of the interface they leave by.

use super::{World, conntrack, wg_decrypt};
use crate::graph::Sink;
use crate::net::WorkerId;
use crate::packet::{DropReason, PacketFlags, PktIdx, Pool, Vector};
use crossbeam::queue::ArrayQueue;

/// Packets that other workers left for one. Any may put, one takes.
pub struct Inbox(ArrayQueue<PktIdx>);

impl Inbox {
    /// With room for `packets`.
    pub fn new(packets: usize) -> Self {
        Self(ArrayQueue::new(packets))
    }

    /// Takes the oldest.
    pub fn take(&self) -> Option<PktIdx> {
        self.0.pop()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The sink.
pub struct Handoff;

impl Sink<World> for Handoff {
    const NAME: &'static str = "handoff";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        for mut idx in packets.drain() {
            let packet = pool.get(&mut idx);
            let flags = packet.meta.flags;
            let owner = if flags.has(PacketFlags::SEALED) {
                wg_decrypt::owner(world, &packet)
            } else if flags.has(PacketFlags::FRAGMENT) {
                // Of a fragment that is not known yet whose it is, the hash is its packet's.
                Some(world.owner(packet.meta.hash))
            } else {
                conntrack::flow_hash(world, &packet).map(|hash| world.keeper(hash))
            };
            let owner = owner.unwrap_or(world.me);
            packet.meta.flags.set(PacketFlags::HANDED);
            send(world, pool, idx, owner);
        }
    }
}

/// Leaves a packet in `to`'s inbox.
pub(super) fn send(world: &mut World, pool: &mut Pool, mut idx: PktIdx, to: WorkerId) {
    // Counted first: the other side may take it at once.
    let count = pool.get(&mut idx).count();
    world.counters.handed_out.add(count);
    match world.inboxes.get(usize::from(to.0)).map(|inbox| inbox.0.push(idx)) {
        Some(Ok(())) => {}
        Some(Err(idx)) => {
            world.counters.taken_in.add(count);
            world.drop(pool, idx, DropReason::HandoffFull);
        }
        None => unreachable!("interfaces name only workers that exist"),
    }
}
