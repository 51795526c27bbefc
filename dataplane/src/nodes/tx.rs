//! Sorts packets by the interface they leave by. The worker gives them to the devices.

use super::world::carrier;
use super::{World, handoff};
use crate::graph::Sink;
use crate::packet::{DropReason, PacketFlags, Pool, Vector};

/// The sink.
pub struct Tx;

impl Sink<World> for Tx {
    const NAME: &'static str = "tx";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        for mut idx in packets.drain() {
            let out = carrier(&world.snapshot, pool.get(&mut idx).meta.tx_if);
            let outbox = out.and_then(|id| world.outboxes.get_mut(usize::from(id.0)));
            match (outbox, out.and_then(|id| world.snapshot.interfaces.get(id))) {
                // At most a vector is in the graph, and outboxes are emptied after every run.
                (Some(Some(outbox)), _) => outbox.push(idx),
                (_, Some(interface)) if !interface.queues.is_empty() => {
                    let meta = pool.get(&mut idx).meta;
                    // It was sent on once: the queue has moved meanwhile. Not for ever round.
                    if meta.flags.has(PacketFlags::READY) {
                        world.drop(pool, idx, DropReason::DeviceGone);
                        continue;
                    }
                    meta.flags.set(PacketFlags::READY);
                    // One flow, one queue: packets of a flow stay in order.
                    let to = interface.queues[meta.hash as usize % interface.queues.len()];
                    handoff::send(world, pool, idx, to);
                }
                _ => world.drop(pool, idx, DropReason::DeviceGone),
            }
        }
    }
}
