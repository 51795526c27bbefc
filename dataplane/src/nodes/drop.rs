//! The end of a packet, with a reason.

use super::{Deciding, Event, Refusal, World, world::flow_key};
use crate::graph::Sink;
use crate::net::FlowKey;
use crate::packet::{Packet, PacketFlags, Pool, Vector};

/// The sink.
pub struct Drop;

impl Sink<World> for Drop {
    const NAME: &'static str = "drop";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        for packet in pool.all(packets) {
            account(world, packet);
        }
        pool.free_all(packets);
    }
}

/// Counts the packet as dropped, and now and then shows one to the control thread.
pub(super) fn account(world: &mut World, packet: Packet<'_>) {
    let reason = packet.meta.drop;
    world.counters.dropped(reason).add(packet.count());
    if world.refusals.is_some() {
        refuse(world, &packet);
    }
    if !world.samples.take(world.now) {
        return;
    }
    let key = key(&packet).unwrap_or_default();
    let (interface, icmp) = (packet.meta.rx_if, packet.meta.icmp);
    world.tell(Event::Dropped { reason, interface, key, icmp, deciding: deciding(&packet) });
}

/// Notes who did not get through to whom.
#[inline(never)]
fn refuse(world: &mut World, packet: &Packet<'_>) {
    let (Some(key), Some(refusals)) = (key(packet), &mut world.refusals) else { return };
    // What gets there is refused by the port that it asks for, from whichever it does.
    let hash = world.flows.hash(&FlowKey { sport: 0, ..key });
    refusals.note(
        hash,
        Refusal {
            key,
            icmp: packet.meta.icmp,
            interface: packet.meta.rx_if,
            reason: packet.meta.drop,
            deciding: deciding(packet),
            first: world.now,
            last: world.now,
            packets: packet.count(),
            bytes: packet.l3_len() as u64,
        },
    );
}

/// What decided, for what policy denied.
fn deciding(packet: &Packet<'_>) -> Option<Deciding> {
    packet.meta.drop.is_policy().then(|| Deciding {
        generation: packet.meta.judged,
        endpoint: packet.meta.endpoint,
        ingress: packet.meta.flags.has(PacketFlags::INGRESS),
        slot: packet.meta.slot,
    })
}

/// Before `parse` is through there is no transport header to read a key from.
fn key(packet: &Packet<'_>) -> Option<FlowKey> {
    (packet.meta.l4 > packet.meta.l3).then(|| flow_key(packet))
}
