//! The last touch: time to live, MTU, and the header of the way out.

use super::{THROUGH, UNRESOLVED, World, nat};
use crate::arcs;
use crate::conntrack::FlowRef;
use crate::graph::Node;
use crate::net::FlowKey;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::{ip4, ip6};

arcs! {
    /// The ways out of [`Rewrite`].
    pub enum RewriteNext {
        /// Ready to send.
        Tx = "tx",
        /// Its next hop is not resolved.
        Hold = "hold",
        /// Cannot go on, and the sender is told.
        IcmpError = "icmp-error",
        /// Cannot go on.
        Drop = "drop",
    }
}

/// The node.
pub struct Rewrite;

impl Node<World> for Rewrite {
    type Next = RewriteNext;
    const NAME: &'static str = "rewrite";

    #[inline]
    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> RewriteNext {
        if packet.meta.adjacency >= THROUGH {
            return without_adjacency(world, packet);
        }
        let Some(adjacency) = world.snapshot.fib.adjacency(packet.meta.adjacency) else {
            packet.meta.drop = DropReason::DeviceGone;
            return RewriteNext::Drop;
        };
        packet.meta.tx_if = adjacency.tx_if;
        let v6 = packet.meta.flags.has(PacketFlags::V6);
        let hops_left = packet.l3().get(if v6 { 7 } else { 8 }).copied().unwrap_or(0);
        if hops_left <= 1 {
            packet.meta.drop = DropReason::TtlExceeded;
            return RewriteNext::IcmpError;
        }
        if packet.l3_len() > usize::from(adjacency.mtu) {
            packet.meta.drop = DropReason::TooBig;
            return RewriteNext::IcmpError;
        }
        if let Some(to) = translation(world, &packet)
            && !nat::write(&mut packet, &to)
        {
            return RewriteNext::Drop;
        }
        if v6 {
            ip6::decrement_hop_limit(packet.l3_mut());
        } else {
            ip4::decrement_ttl(packet.l3_mut());
        }
        if !packet.set_link_header(adjacency.header.as_slice()) {
            packet.meta.drop = DropReason::TxOversized;
            return RewriteNext::Drop;
        }
        RewriteNext::Tx
    }
}

/// The key that the packet leaves with, if it is not the one it came with.
#[inline]
fn translation(world: &World, packet: &Packet<'_>) -> Option<FlowKey> {
    match packet.meta.flags.has(PacketFlags::HIT) {
        true => world.flows.translated(FlowRef(packet.meta.flow)),
        false => None,
    }
}

/// Held for its next hop, or sent on as it came.
#[cold]
fn without_adjacency(world: &World, mut packet: Packet<'_>) -> RewriteNext {
    if packet.meta.adjacency == UNRESOLVED {
        // Whoever holds it looks at its destination.
        return match translation(world, &packet) {
            Some(to) if !nat::write_early(&mut packet, &to) => RewriteNext::Drop,
            _ => RewriteNext::Hold,
        };
    }
    // Asked anew: the flow's packets may have moved to another uplink of this host.
    let interfaces = &world.snapshot.interfaces;
    let Some(to) = interfaces.get(packet.meta.rx_if).and_then(|interface| interface.through) else {
        packet.meta.drop = DropReason::DeviceGone;
        return RewriteNext::Drop;
    };
    packet.meta.tx_if = to;
    if let Some(to) = translation(world, &packet)
        && !nat::write(&mut packet, &to)
    {
        return RewriteNext::Drop;
    }
    RewriteNext::Tx
}
