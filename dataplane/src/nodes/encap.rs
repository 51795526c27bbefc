//! Puts the headers of a tunnel before a packet that leaves by one.

use super::World;
use crate::arcs;
use crate::graph::Node;
use crate::packet::{DropReason, Packet};
use crate::wire::{ecn, mss};

arcs! {
    /// The ways out of [`Encap`].
    pub enum EncapNext {
        /// Ready to send.
        Tx = "tx",
        /// To be sealed first.
        WgEncrypt = "wireguard",
        /// The tunnel is gone, or the packet is too long for a frame.
        Drop = "drop",
    }
}

/// The node.
pub struct Encap;

impl Node<World> for Encap {
    type Next = EncapNext;
    const NAME: &'static str = "encap";

    #[inline]
    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> EncapNext {
        let Some(tunnel) = world.snapshot.fib.tunnel(packet.meta.adjacency) else {
            packet.meta.drop = DropReason::DeviceGone;
            return EncapNext::Drop;
        };
        mss::clamp(packet.l3_mut(), tunnel.mtu);
        if tunnel.peer.is_some() {
            return EncapNext::WgEncrypt;
        }
        let inner = packet.l3();
        let headers = tunnel.outer.complete(inner, ecn::traffic_class(inner), entropy(packet.meta.hash));
        if !packet.set_link_header(headers.as_slice()) {
            packet.meta.drop = DropReason::TxOversized;
            return EncapNext::Drop;
        }
        packet.meta.tx_if = tunnel.underlay;
        EncapNext::Tx
    }
}

/// The bits of a flow's hash that tell it from others on the way. Whoever sees them learns nothing of
/// the hash's key: they are few, and none of those that a flow's place in a table depends on.
#[inline]
pub(super) const fn entropy(hash: u64) -> u16 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u16
}
