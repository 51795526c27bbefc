//! Which backend a new flow to a service gets: its destination is written before it is routed.
//!
//! The flow keeps the key that it came with, so what judges before translation sees that, and what
//! judges after it sees the headers. Where the answer would not come back this way the flow is
//! marked, and `commit` gives it an address of this node to leave with.

use super::{World, nat, world::flow_key};
use crate::arcs;
use crate::fib::Role;
use crate::graph::Node;
use crate::net::FlowKey;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::service::{Choice, Origin};
use crate::snapshot::Snapshot;

arcs! {
    /// The ways out of [`Service`].
    pub enum ServiceNext {
        /// Not for a service, or for this backend.
        Route = "route",
        /// Nobody serves it, and the client is told.
        IcmpError = "icmp-error",
        /// Nobody serves it here.
        Drop = "drop",
    }
}

/// The node.
pub struct Service;

impl Node<World> for Service {
    type Next = ServiceNext;
    const NAME: &'static str = "service";

    #[inline]
    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> ServiceNext {
        let snapshot = &*world.snapshot;
        if snapshot.services.frontends().is_empty() || is_decided(packet.meta.flags) {
            return ServiceNext::Route;
        }
        let Some(origin) = origin(snapshot, &packet) else { return ServiceNext::Route };
        let key = flow_key(&packet);
        match snapshot.services.choose(&key, origin, world.now) {
            Choice::NotAService => ServiceNext::Route,
            Choice::Backend(target) => {
                if target.snat {
                    packet.meta.flags.set(PacketFlags::MASQUERADE);
                }
                let to = FlowKey { dst: target.addr, dport: target.port, ..key };
                match nat::write_early(&mut packet, &to) {
                    true => ServiceNext::Route,
                    false => ServiceNext::Drop,
                }
            }
            Choice::Refused(reason) => {
                packet.meta.drop = reason;
                match reason {
                    DropReason::NoBackend | DropReason::NoServicePort => ServiceNext::IcmpError,
                    _ => ServiceNext::Drop,
                }
            }
        }
    }
}

/// It belongs to a flow whose backend was chosen when it began, or to none at all.
const fn is_decided(flags: PacketFlags) -> bool {
    flags.has(PacketFlags::HIT) || flags.has(PacketFlags::RELATED) || flags.has(PacketFlags::UNTRACKED)
}

/// Where the client is. `None`: the host's stack chose the packet's way out, and nothing changes that.
fn origin(snapshot: &Snapshot, packet: &Packet<'_>) -> Option<Origin> {
    match snapshot.interfaces.get(packet.meta.rx_if).map(|interface| &interface.role) {
        Some(Role::Workload(_)) => Some(Origin::Workload),
        Some(Role::Host) => Some(Origin::Host),
        Some(Role::Stack) => None,
        Some(Role::Uplink | Role::Tunnel(_)) | None => Some(Origin::Outside),
    }
}
