//! The end of a packet, with a reason.

use super::{Deciding, Event, World, world::flow_key};
use crate::graph::Sink;
use crate::net::FlowKey;
use crate::packet::{Packet, PacketFlags, Pool, Vector};

/// The sink.
pub struct Drop;

impl Sink<World> for Drop {
    const NAME: &'static str = "drop";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        for position in 0..packets.len() {
            account(world, pool.nth(packets, position));
        }
        pool.free_all(packets);
    }
}

/// Counts the packet as dropped, and now and then shows one to the control thread.
pub(super) fn account(world: &mut World, packet: Packet<'_>) {
    let reason = packet.meta.drop;
    world.counters.dropped(reason).add(1);
    if !world.samples.take(world.now) {
        return;
    }
    let deciding = reason.is_policy().then(|| Deciding {
        generation: packet.meta.judged,
        endpoint: packet.meta.endpoint,
        ingress: packet.meta.flags.has(PacketFlags::INGRESS),
        slot: packet.meta.slot,
    });
    // Before `parse` is through there is no transport header to read a key from.
    let key = if packet.meta.l4 > packet.meta.l3 { flow_key(&packet) } else { FlowKey::default() };
    let (interface, icmp) = (packet.meta.rx_if, packet.meta.icmp);
    world.tell(Event::Dropped { reason, interface, key, icmp, deciding });
}
