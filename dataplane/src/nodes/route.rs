//! Where a packet goes: the FIB's answer, and whether that way may be used at all.

use super::{THROUGH, UNRESOLVED, World, host};
use crate::arcs;
use crate::fib::{Hop, Interface, Role, Scope};
use crate::graph::Node;
use crate::net::{Addr, IfId};
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::snapshot::{EndpointToHost, Established, Snapshot};
use crate::wire::read;

arcs! {
    /// The ways out of [`Route`].
    pub enum RouteNext {
        /// To be judged.
        Policy = "policy",
        /// Judged before: only its way is new.
        Commit = "commit",
        /// About a flow that was judged.
        Rewrite = "rewrite",
        /// Cannot go on, and the sender is told.
        IcmpError = "icmp-error",
        /// Cannot go on.
        Drop = "drop",
    }
}

/// The node.
pub struct Route;

impl Node<World> for Route {
    type Next = RouteNext;
    const NAME: &'static str = "route";

    #[inline]
    fn packet(&mut self, world: &mut World, packet: Packet<'_>) -> RouteNext {
        let snapshot = &*world.snapshot;
        let hop = way(snapshot, &packet);
        let through = host::passes_through(world, &packet, hop);
        let meta = packet.meta;
        (meta.adjacency, meta.tx_if) = match hop {
            _ if let Some(to) = through => (THROUGH, to),
            Hop::Adjacency(index) => (index, snapshot.fib.leaves_by(index).unwrap_or(IfId::NONE)),
            Hop::Unresolved { tx_if, .. } => (UNRESOLVED, tx_if),
            Hop::Local => {
                meta.drop = if from_workload(snapshot, meta.rx_if)
                    && snapshot.endpoint_to_host == EndpointToHost::Drop
                {
                    DropReason::EndpointToHost
                } else {
                    DropReason::NoHostPort
                };
                return RouteNext::Drop;
            }
            Hop::Blackhole => {
                meta.drop = DropReason::Blackhole;
                return RouteNext::Drop;
            }
            Hop::NoRoute | Hop::Unreachable | Hop::Prohibited => {
                meta.drop = match hop {
                    Hop::Unreachable => DropReason::RouteUnreachable,
                    Hop::Prohibited => DropReason::RouteProhibited,
                    _ => DropReason::NoRoute,
                };
                return RouteNext::IcmpError;
            }
        };
        let live = meta.flags.has(PacketFlags::HIT) || meta.flags.has(PacketFlags::RELATED);
        if let Some(reason) = closed(snapshot, meta.rx_if, snapshot.interfaces.get(meta.tx_if), live) {
            meta.drop = reason;
            return RouteNext::Drop;
        }
        if meta.flags.has(PacketFlags::RELATED) {
            RouteNext::Rewrite
        } else if meta.flags.has(PacketFlags::HIT) && snapshot.established == Established::Keep {
            RouteNext::Commit
        } else {
            RouteNext::Policy
        }
    }
}

/// Where the FIB says that the packet goes.
#[inline]
pub(super) fn way(snapshot: &Snapshot, packet: &Packet<'_>) -> Hop {
    let scope = snapshot.interfaces.get(packet.meta.rx_if).map_or(Scope::Host, Interface::scope);
    snapshot.fib.lookup(destination(packet), scope, packet.meta.hash)
}

/// The destination, straight from the header that `parse` checked.
#[inline]
pub(super) fn destination(packet: &Packet<'_>) -> Addr {
    let l3 = packet.l3();
    if packet.meta.flags.has(PacketFlags::V6) {
        Addr::v6(read(l3, 24).unwrap_or_default())
    } else {
        Addr::v4(read(l3, 16).unwrap_or_default())
    }
}

fn from_workload(snapshot: &Snapshot, rx_if: IfId) -> bool {
    snapshot.interfaces.get(rx_if).is_some_and(|interface| interface.workload().is_some())
}

/// Why the way out may not be used, if it may not. `live`: for a flow that has begun.
#[inline]
fn closed(snapshot: &Snapshot, rx_if: IfId, out: Option<&Interface>, live: bool) -> Option<DropReason> {
    match out {
        None => Some(DropReason::DeviceGone),
        Some(interface) if !interface.up => Some(DropReason::InterfaceDown),
        Some(Interface { role: Role::Workload(workload), .. }) if !workload.active => {
            Some(DropReason::EndpointInactive)
        }
        Some(Interface { role: Role::Host, .. })
            if !live
                && snapshot.endpoint_to_host == EndpointToHost::Drop
                && from_workload(snapshot, rx_if) =>
        {
            Some(DropReason::EndpointToHost)
        }
        Some(_) => None,
    }
}
