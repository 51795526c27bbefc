//! Sorts packets by the interface they leave by. The worker gives them to the devices.

use super::world::carrier;
use super::{World, handoff};
use crate::graph::Sink;
use crate::net::IfId;
use crate::packet::{DropReason, PacketFlags, PktIdx, Pool, Vector};

/// The sink.
pub struct Tx;

impl Sink<World> for Tx {
    const NAME: &'static str = "tx";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        // Neighbours in a vector mostly leave by the same interface.
        let (mut last, mut out) = (IfId::NONE, None);
        for mut idx in packets.drain() {
            let tx_if = pool.meta(&mut idx).tx_if;
            if tx_if != last {
                (last, out) = (tx_if, carrier(&world.snapshot, tx_if));
            }
            match out.and_then(|id| world.outboxes.get_mut(usize::from(id.0))) {
                // At most a vector is in the graph, and outboxes are emptied after every run.
                Some(Some(outbox)) => outbox.push(idx),
                _ => elsewhere(world, pool, idx, out),
            }
        }
    }
}

/// This worker has no queue of the interface: another may.
#[cold]
fn elsewhere(world: &mut World, pool: &mut Pool, mut idx: PktIdx, out: Option<IfId>) {
    let meta = pool.get(&mut idx).meta;
    // It was sent on once: the queue has moved meanwhile. Not for ever round.
    let again = meta.flags.has(PacketFlags::READY);
    meta.flags.set(PacketFlags::READY);
    // One flow, one queue: packets of a flow stay in order.
    let hash = meta.hash as usize;
    let queues = out.and_then(|id| world.snapshot.interfaces.get(id)).map(|interface| &*interface.queues);
    match queues {
        Some(queues @ [_, ..]) if !again => {
            let to = queues[hash % queues.len()];
            handoff::send(world, pool, idx, to);
        }
        _ => world.drop(pool, idx, DropReason::DeviceGone),
    }
}
