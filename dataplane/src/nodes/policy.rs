//! Whether a packet may go: the source's egress policy and the destination's ingress policy.

use super::host::{self, Denial};
use super::{World, nat, staged, world::flow_key};
use crate::arcs;
use crate::conntrack::{Direction as FlowDirection, FlowRef};
use crate::fib::{Hop, Interface, Role};
use crate::graph::Node;
use crate::net::{FlowKey, Icmp, IfId, Proto};
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::policy::{Direction, EndpointIdx, Query};

arcs! {
    /// The ways out of [`Policy`].
    pub enum PolicyNext {
        /// Allowed.
        Commit = "commit",
        /// Allowed, and not to be remembered.
        Rewrite = "untracked",
        /// Denied.
        Drop = "drop",
    }
}

/// The node.
pub struct Policy;

impl Node<World> for Policy {
    type Next = PolicyNext;
    const NAME: &'static str = "policy";

    #[inline]
    fn packet(&mut self, world: &mut World, packet: Packet<'_>) -> PolicyNext {
        let mut query = Query { key: flow_key(&packet), icmp: packet.meta.icmp };
        let (mut source, mut destination) = (packet.meta.rx_if, packet.meta.tx_if);
        let flow = packet.meta.flags.has(PacketFlags::HIT).then_some(FlowRef(packet.meta.flow));
        // A live flow is judged as it began, whichever way this packet goes.
        let translated = match flow {
            None => nat::leaving(&packet),
            Some(flow) if flow.direction() == FlowDirection::Reply => {
                let answered = query.key.reversed();
                query.key = world.flows.key(flow.opposite());
                query.icmp = request_of(query.key.proto, query.icmp);
                (source, destination) = (destination, source);
                answered
            }
            Some(flow) => world.flows.translated(flow).unwrap_or(query.key),
        };
        let came = query.key;
        // The destination it goes to, and the source it came from.
        query.key = FlowKey { dst: translated.dst, dport: translated.dport, ..came };
        packet.meta.judged = world.snapshot.generation;
        let untracked = packet.meta.flags.has(PacketFlags::UNTRACKED);
        let Some(denial) = judge(world, source, destination, untracked, &came, &query) else {
            return if untracked { PolicyNext::Rewrite } else { PolicyNext::Commit };
        };
        packet.meta.drop = denial.reason;
        packet.meta.slot = denial.slot;
        // The entry stays, under its old generation: every packet of the flow is judged again, so
        // the flow lives on should policy allow it once more.
        if denial.direction == Direction::Ingress {
            packet.meta.flags.set(PacketFlags::INGRESS);
        }
        packet.meta.endpoint = denial.endpoint;
        PolicyNext::Drop
    }
}

/// Who denies a packet between two interfaces, if anyone does. `came`: its key before its
/// destination was translated.
#[inline]
fn judge(
    world: &World,
    source: IfId,
    destination: IfId,
    untracked: bool,
    came: &FlowKey,
    query: &Query,
) -> Option<Denial> {
    let snapshot = &*world.snapshot;
    let (Some(from), Some(to)) = (snapshot.interfaces.get(source), snapshot.interfaces.get(destination))
    else {
        let reason = DropReason::DeviceGone;
        return Some(Denial { reason, endpoint: 0, direction: Direction::Egress, slot: 0 });
    };
    if let Some(protection) = &snapshot.protection {
        return host::denial(world, protection, (from, to), untracked, came, query);
    }
    workloads(world, from, to, query)
}

/// The policy of the workloads at both ends. The host is free to speak to its own workloads.
#[inline]
pub(super) fn workloads(world: &World, from: &Interface, to: &Interface, query: &Query) -> Option<Denial> {
    let denied = workload(world, from, Direction::Egress, query);
    denied.or_else(|| match from_host(world, from, query) {
        true => None,
        false => workload(world, to, Direction::Ingress, query),
    })
}

/// The host itself sent it. What the kernel merely routes comes over the host port, too.
#[inline]
pub(super) fn from_host(world: &World, from: &Interface, query: &Query) -> bool {
    match from.role {
        Role::Uplink | Role::Workload(_) => false,
        Role::Stack => true,
        Role::Host => {
            let fib = &world.snapshot.fib;
            match fib.lookup(query.key.src) {
                Hop::Local => true,
                Hop::Adjacency(index) => fib.adjacency(index).is_some_and(|own| own.tx_if == from.id),
                Hop::Unresolved { .. } | Hop::Blackhole | Hop::NoRoute => false,
            }
        }
    }
}

/// The deciding rule, when the workload behind `interface` denies; `None` where it allows or
/// where there is no workload.
#[inline]
fn workload(world: &World, interface: &Interface, direction: Direction, query: &Query) -> Option<Denial> {
    let endpoint = interface.workload()?.endpoint;
    let policy = &world.snapshot.policy;
    let verdict = policy.judge(EndpointIdx(endpoint), direction, query);
    policy.count(world.me, EndpointIdx(endpoint), direction, verdict);
    staged::compare(world, EndpointIdx(endpoint), direction, query, verdict);
    let reason = DropReason::PolicyDenied;
    (!verdict.allow).then_some(Denial { reason, endpoint, direction, slot: verdict.slot })
}

/// The request that an echo reply answers.
const fn request_of(proto: Proto, icmp: Icmp) -> Icmp {
    match (proto, icmp.kind) {
        (Proto::ICMP, 0) => Icmp { kind: 8, code: 0 },
        (Proto::ICMP6, 129) => Icmp { kind: 128, code: 0 },
        _ => icmp,
    }
}
