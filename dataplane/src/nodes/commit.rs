//! Remembers what was decided: a new flow's entry, or an old one's new way.

use super::world::{flow_key, segment};
use super::{Event, World, quota};
use crate::arcs;
use crate::conntrack::{Admit, FlowRef, InsertError, NewSession, Observed};
use crate::graph::Node;
use crate::net::Nanos;
use crate::packet::{DropReason, Meta, Packet, PacketFlags};

arcs! {
    /// The ways out of [`Commit`].
    pub enum CommitNext {
        /// Remembered.
        Rewrite = "rewrite",
        /// No room.
        Drop = "drop",
    }
}

/// The node.
pub struct Commit;

impl Node<World> for Commit {
    type Next = CommitNext;
    const NAME: &'static str = "commit";
    const LOOKS_AHEAD: bool = true;

    #[inline]
    fn prepare(&mut self, world: &mut World, packet: Packet<'_>) {
        if !packet.meta.flags.has(PacketFlags::HIT) {
            packet.meta.reply_hash = world.flows.hash(&flow_key(&packet).reversed());
            world.flows.prefetch_insert(packet.meta.hash, packet.meta.reply_hash);
        }
    }

    #[inline]
    fn packet(&mut self, world: &mut World, packet: Packet<'_>) -> CommitNext {
        if packet.meta.flags.has(PacketFlags::HIT) {
            bind(world, FlowRef(packet.meta.flow), packet.meta);
            return CommitNext::Rewrite;
        }
        let segment = segment(&packet);
        let Admit::New(state) = world.flows.admit(packet.meta.proto, segment) else {
            packet.meta.drop = DropReason::ConntrackInvalid;
            return CommitNext::Drop;
        };
        let key = flow_key(&packet);
        let reply_key = key.reversed();
        let owners = quota::owners(world, packet.meta);
        if let Some(owners) = owners {
            // An earlier packet of this vector may have begun the flow: it is not counted twice.
            if let Some(flow) = world.flows.lookup(&key, packet.meta.hash, world.now) {
                bind(world, flow, packet.meta);
                return CommitNext::Rewrite;
            }
            if let Err(reason) = quota::charge(world, owners) {
                packet.meta.drop = reason;
                return CommitNext::Drop;
            }
        }
        let session = NewSession {
            key,
            hash: packet.meta.hash,
            reply_key,
            reply_hash: packet.meta.reply_hash,
            state,
            segment,
            judged: packet.meta.judged,
            way: packet.meta.adjacency,
            bound: world.snapshot.ways,
        };
        let inserted = world.flows.insert(session, world.now);
        match (owners, inserted) {
            (None, _) => {}
            (Some(owners), Ok(flow)) => world.flows.set_owners(flow, owners),
            (Some(owners), Err(_)) => quota::give_back(world, owners),
        }
        match inserted {
            Ok(_) => CommitNext::Rewrite,
            // An earlier packet of this vector began the flow.
            Err(InsertError::Taken(flow)) => {
                let refusal = match world.flows.observe(flow, segment, world.now) {
                    Observed::Ok => None,
                    Observed::OutOfWindow => Some(DropReason::TcpOutOfWindow),
                    Observed::Invalid | Observed::Reopen => Some(DropReason::ConntrackInvalid),
                };
                if let Some(reason) = refusal {
                    packet.meta.drop = reason;
                    return CommitNext::Drop;
                }
                bind(world, flow, packet.meta);
                CommitNext::Rewrite
            }
            Err(InsertError::Full) => {
                tell_full(world);
                packet.meta.drop = DropReason::FlowTableFull;
                CommitNext::Drop
            }
        }
    }
}

#[cold]
fn tell_full(world: &mut World) {
    /// Not with every packet of a flood.
    const EVERY: Nanos = Nanos::from_secs(60);
    if world.told_full.is_none_or(|told| world.now.since(told) >= EVERY) {
        world.told_full = Some(world.now);
        world.tell(Event::TableFull { worker: world.me });
    }
}

/// Gives a live flow its way. A packet that policy was not asked about leaves the verdict's
/// generation as it is: that is still whose verdict it lives by.
#[inline]
fn bind(world: &mut World, flow: FlowRef, packet: &Meta) {
    world.flows.bind(flow, world.snapshot.ways, packet.adjacency);
    if packet.judged == world.snapshot.generation {
        world.flows.set_judged(flow, packet.judged);
    }
}
