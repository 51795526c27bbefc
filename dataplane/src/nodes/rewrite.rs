//! The last touch: time to live, MTU, and the header of the way out.

use super::{THROUGH, UNRESOLVED, World, nat, world::carrier};
use crate::arcs;
use crate::conntrack::FlowRef;
use crate::fib::Fib;
use crate::graph::Node;
use crate::net::FlowKey;
use crate::packet::{DropReason, Gso, Packet, PacketFlags};
use crate::wire::{cut, ip4, ip6};

arcs! {
    /// The ways out of [`Rewrite`].
    pub enum RewriteNext {
        /// Ready to send.
        Tx = "tx",
        /// Leaves by a tunnel.
        Encap = "encap",
        /// Too long for its way, and may be cut; or a super-frame that its way does not take whole.
        Cut = "cut",
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
        if packet.meta.adjacency >= Fib::TUNNELS {
            return elsewise(world, packet.reborrow());
        }
        let Some(adjacency) = world.snapshot.fib.adjacency(packet.meta.adjacency) else {
            packet.meta.drop = DropReason::DeviceGone;
            return RewriteNext::Drop;
        };
        packet.meta.tx_if = adjacency.tx_if;
        if !has_hops_left(&packet) {
            packet.meta.drop = DropReason::TtlExceeded;
            return RewriteNext::IcmpError;
        }
        if packet.l3_len() > usize::from(adjacency.mtu) || packet.meta.gso != Gso::None {
            return too_long(world, packet.reborrow(), adjacency.mtu);
        }
        if !forward(world, &mut packet) {
            return RewriteNext::Drop;
        }
        if !packet.set_link_header(adjacency.header.as_slice()) {
            packet.meta.drop = DropReason::TxOversized;
            return RewriteNext::Drop;
        }
        count(world, &packet);
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

/// It may go one hop further.
#[inline(always)]
fn has_hops_left(packet: &Packet<'_>) -> bool {
    let v6 = packet.meta.flags.has(PacketFlags::V6);
    packet.l3().get(if v6 { 7 } else { 8 }).copied().unwrap_or(0) > 1
}

/// Translates the packet and takes a hop off. `false`: it cannot, and why is noted.
#[inline(always)]
fn forward(world: &World, packet: &mut Packet<'_>) -> bool {
    if let Some(to) = translation(world, packet)
        && !nat::write(&mut packet.reborrow(), &to)
    {
        return false;
    }
    if packet.meta.flags.has(PacketFlags::V6) {
        ip6::decrement_hop_limit(packet.l3_mut());
    } else {
        ip4::decrement_ttl(packet.l3_mut());
    }
    true
}

/// Notes that the packet goes on, for who wants to know what flows carry.
#[inline(always)]
fn count(world: &mut World, packet: &Packet<'_>) {
    if world.flows.is_told_of() && packet.meta.flags.has(PacketFlags::HIT) {
        world.flows.count(FlowRef(packet.meta.flow), 1, packet.l3_len());
    }
}

/// Longer than its way out takes, or a super-frame.
#[inline(never)]
fn too_long(world: &mut World, mut packet: Packet<'_>, mtu: u16) -> RewriteNext {
    if packet.meta.gso != Gso::None {
        return super_frame(world, packet, mtu);
    }
    if !cut::is_allowed(packet.l3()) {
        packet.meta.drop = DropReason::TooBig;
        return RewriteNext::IcmpError;
    }
    if !forward(world, &mut packet) {
        return RewriteNext::Drop;
    }
    count(world, &packet);
    RewriteNext::Cut
}

/// Whole where the way out takes it so; else its segments go on, if they are not too long themselves.
fn super_frame(world: &mut World, mut packet: Packet<'_>, mtu: u16) -> RewriteNext {
    let Some(cut) = packet.as_super() else {
        packet.meta.drop = DropReason::BadL4Header;
        return RewriteNext::Drop;
    };
    if cut.longest() > usize::from(mtu) && !cut::is_allowed(packet.l3()) {
        packet.meta.drop = DropReason::TooBig;
        return RewriteNext::IcmpError;
    }
    let (segments, bytes, fits) = (cut.count(), cut.total(), cut.longest() <= usize::from(mtu));
    if !forward(world, &mut packet) {
        return RewriteNext::Drop;
    }
    if world.flows.is_told_of() && packet.meta.flags.has(PacketFlags::HIT) {
        // As the packets that it stands for.
        world.flows.count(FlowRef(packet.meta.flow), segments as u32, bytes);
    }
    let snapshot = &*world.snapshot;
    let whole = carrier(snapshot, packet.meta.tx_if)
        .and_then(|id| snapshot.interfaces.get(id))
        .is_some_and(|carrier| carrier.super_frames);
    match snapshot.fib.adjacency(packet.meta.adjacency) {
        Some(adjacency) if whole && fits => match packet.set_link_header(adjacency.header.as_slice()) {
            true => RewriteNext::Tx,
            false => {
                packet.meta.drop = DropReason::TxOversized;
                RewriteNext::Drop
            }
        },
        _ => RewriteNext::Cut,
    }
}

/// By a tunnel, or by no adjacency at all.
#[inline(never)]
fn elsewise(world: &mut World, mut packet: Packet<'_>) -> RewriteNext {
    let Some(tunnel) = world.snapshot.fib.tunnel(packet.meta.adjacency) else {
        return without_adjacency(world, packet);
    };
    packet.meta.tx_if = tunnel.tx_if;
    if !has_hops_left(&packet) {
        packet.meta.drop = DropReason::TtlExceeded;
        return RewriteNext::IcmpError;
    }
    if packet.l3_len() > usize::from(tunnel.mtu) || packet.meta.gso != Gso::None {
        return too_long(world, packet, tunnel.mtu);
    }
    if !forward(world, &mut packet) {
        return RewriteNext::Drop;
    }
    count(world, &packet);
    RewriteNext::Encap
}

/// Held for its next hop, or sent on as it came.
#[cold]
fn without_adjacency(world: &mut World, mut packet: Packet<'_>) -> RewriteNext {
    if packet.meta.adjacency == UNRESOLVED {
        // Whoever holds it looks at its destination.
        return match translation(world, &packet) {
            Some(to) if !nat::write_early(&mut packet, &to) => RewriteNext::Drop,
            _ => RewriteNext::Hold,
        };
    }
    // Asked anew: the flow's packets may have moved to another uplink of this host.
    let interfaces = &world.snapshot.interfaces;
    let through = interfaces.get(packet.meta.rx_if).and_then(|interface| interface.through);
    let Some(to) = through.filter(|_| packet.meta.adjacency == THROUGH) else {
        packet.meta.drop = DropReason::DeviceGone;
        return RewriteNext::Drop;
    };
    packet.meta.tx_if = to;
    if let Some(to) = translation(world, &packet)
        && !nat::write(&mut packet, &to)
    {
        return RewriteNext::Drop;
    }
    count(world, &packet);
    RewriteNext::Tx
}
