//! Whether a packet may go: the source's egress policy and the destination's ingress policy.

use super::{Deciding, World, world::flow_key};
use crate::arcs;
use crate::conntrack::{Direction as FlowDirection, FlowRef};
use crate::graph::Node;
use crate::net::{Icmp, IfId, Proto};
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::policy::{Direction, EndpointIdx, Query};

arcs! {
    /// The ways out of [`Policy`].
    pub enum PolicyNext {
        /// Allowed.
        Commit = "commit",
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
        if flow.is_some_and(|flow| flow.direction() == FlowDirection::Reply) {
            query.key = query.key.reversed();
            query.icmp = request_of(query.key.proto, query.icmp);
            (source, destination) = (destination, source);
        }
        packet.meta.judged = world.snapshot.generation;
        let denied = judge(world, source, Direction::Egress, &query)
            .or_else(|| judge(world, destination, Direction::Ingress, &query));
        let Some(deciding) = denied else { return PolicyNext::Commit };
        packet.meta.drop = DropReason::PolicyDenied;
        packet.meta.slot = deciding.slot;
        // The entry stays, under its old generation: every packet of the flow is judged again, so
        // the flow lives on should policy allow it once more.
        if deciding.ingress {
            packet.meta.flags.set(PacketFlags::INGRESS);
        }
        packet.meta.endpoint = deciding.endpoint;
        PolicyNext::Drop
    }
}

/// The deciding rule, when the endpoint behind `interface` denies; `None` where it allows or
/// where there is no endpoint.
#[inline]
fn judge(world: &World, interface: IfId, direction: Direction, query: &Query) -> Option<Deciding> {
    let snapshot = &*world.snapshot;
    let endpoint = snapshot.interfaces.get(interface)?.workload()?.endpoint;
    let verdict = snapshot.policy.judge(EndpointIdx(endpoint), direction, query);
    snapshot.policy.count(world.me, EndpointIdx(endpoint), direction, verdict);
    (!verdict.allow).then_some(Deciding {
        generation: snapshot.generation,
        endpoint,
        ingress: direction == Direction::Ingress,
        slot: verdict.slot,
    })
}

/// The request that an echo reply answers.
const fn request_of(proto: Proto, icmp: Icmp) -> Icmp {
    match (proto, icmp.kind) {
        (Proto::ICMP, 0) => Icmp { kind: 8, code: 0 },
        (Proto::ICMP6, 129) => Icmp { kind: 128, code: 0 },
        _ => icmp,
    }
}
