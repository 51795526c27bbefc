//! A host endpoint's doNotTrack policy: before conntrack, packet by packet.
//!
//! What it allows makes no flow and sees no other host policy; each direction must be allowed by
//! rules of its own. Where it has nothing to say the packet goes on to conntrack as if it were not
//! there. Failsafe ports, and answers from them, go on too.

use super::{World, host, world::flow_key};
use crate::arcs;
use crate::fib::{Interface, Role};
use crate::graph::Node;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::policy::{Direction, EndpointIdx, Query};

arcs! {
    /// The ways out of [`Untracked`].
    pub enum UntrackedNext {
        /// Not decided here.
        Conntrack = "conntrack",
        /// Allowed.
        Route = "allow",
        /// Denied.
        Drop = "drop",
    }
}

/// The node.
pub struct Untracked;

impl Node<World> for Untracked {
    type Next = UntrackedNext;
    const NAME: &'static str = "untracked";

    fn packet(&mut self, world: &mut World, packet: Packet<'_>) -> UntrackedNext {
        let query = Query { key: flow_key(&packet), icmp: packet.meta.icmp };
        // Asked by conntrack, and it picks the queue to send by.
        packet.meta.hash = world.flows.hash(&query.key);
        let Some((list, direction)) = list_for(world, &packet, &query) else {
            return UntrackedNext::Conntrack;
        };
        let Some(verdict) = host::opinion(world, list, direction, &query) else {
            return UntrackedNext::Conntrack;
        };
        packet.meta.judged = world.snapshot.generation;
        if verdict.allow {
            packet.meta.flags.set(PacketFlags::UNTRACKED);
            return UntrackedNext::Route;
        }
        packet.meta.drop = DropReason::UntrackedDenied;
        packet.meta.endpoint = list.0;
        packet.meta.slot = verdict.slot;
        if direction == Direction::Ingress {
            packet.meta.flags.set(PacketFlags::INGRESS);
        }
        UntrackedNext::Drop
    }
}

/// The untracked policy that judges the packet, if any does.
fn list_for(world: &World, packet: &Packet<'_>, query: &Query) -> Option<(EndpointIdx, Direction)> {
    let snapshot = &*world.snapshot;
    snapshot.protection.as_ref()?;
    let rx = snapshot.interfaces.get(packet.meta.rx_if)?;
    let untracked = |interface: &Interface| interface.host.as_ref()?.untracked.map(EndpointIdx);
    let (list, direction) = match rx.role {
        Role::Stack => (untracked(snapshot.interfaces.get(rx.through?)?)?, Direction::Egress),
        _ => (untracked(rx)?, Direction::Ingress),
    };
    (!host::is_failsafe(world, packet, query)).then_some((list, direction))
}
