//! Takes the headers of a tunnel off a packet that came by one, and hears what routers say of tunnels'
//! packets.
//!
//! Only nodes that are known may send by a tunnel. What was inside is parsed like any other packet, as
//! having come in by the tunnel's interface.

use super::{Event, ParseNext, World};
use crate::arcs;
use crate::fib::{NearEnd, TunnelKind, believable};
use crate::graph::Node;
use crate::net::{Addr, Proto};
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::ethernet::{self, Prebuilt};
use crate::wire::{ecn, ends, icmp, ip4, ip6, mss, read, read_u16, vxlan};

arcs! {
    /// The ways out of [`Decap`].
    pub enum DecapNext {
        /// What was inside.
        Parse = "inner",
        /// A router's word about the way to another node.
        Punt = "punt",
        /// Not to be believed.
        Drop = "drop",
    }
}

/// The node.
pub struct Decap;

impl Node<World> for Decap {
    type Next = DecapNext;
    const NAME: &'static str = "decap";

    #[inline]
    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> DecapNext {
        if packet.meta.proto.is_icmp() {
            return hear(world, &packet);
        }
        match open(world, &mut packet) {
            Ok(()) => DecapNext::Parse,
            Err(reason) => {
                packet.meta.drop = reason;
                DecapNext::Drop
            }
        }
    }
}

/// Where a packet that came in by an uplink goes, if it is a tunnel's, or about a tunnel's.
#[inline]
pub(super) fn tunnels(world: &World, packet: &Packet<'_>, to: Addr, dport: u16) -> Option<ParseNext> {
    let meta = &packet.meta;
    if let Some((kind, _)) = world.snapshot.overlay.arrived(to, meta.proto, dport) {
        return Some(if kind.is_encrypted() { ParseNext::WgDecrypt } else { ParseNext::Decap });
    }
    let about = meta.proto.is_icmp() && icmp::is_too_big(meta.proto, meta.icmp) && {
        let tunnel = quoted(world, packet);
        tunnel.is_some_and(|quoted| quoted.from == to)
    };
    about.then_some(ParseNext::Decap)
}

/// Leaves the packet that was inside, with a link header before it.
fn open(world: &World, packet: &mut Packet<'_>) -> Result<(), DropReason> {
    let overlay = &world.snapshot.overlay;
    let v6 = packet.meta.flags.has(PacketFlags::V6);
    let (from, to) = ends(packet.l3(), v6);
    let dport = read_u16(packet.l4(), 2).unwrap_or_default();
    let (kind, near) = overlay.arrived(to, packet.meta.proto, dport).ok_or(DropReason::BadTunnel)?;
    if !overlay.knows(from) {
        return Err(DropReason::TunnelFromStranger);
    }
    if packet.meta.flags.has(PacketFlags::FRAGMENT) {
        return Err(DropReason::TunnelFragment);
    }
    let outer_bits = ecn::traffic_class(packet.l3());
    match kind {
        TunnelKind::Ipip => {
            packet.meta.l3 = packet.meta.l4;
            enter_ip(packet, near);
        }
        TunnelKind::Vxlan4 | TunnelKind::Vxlan6 => enter_frame(packet, overlay.network)?,
        // `parse` sends them elsewhere.
        TunnelKind::Wireguard4 | TunnelKind::Wireguard6 => return Err(DropReason::BadTunnel),
    }
    emerge(world, packet, near, outer_bits)
}

/// Makes a packet that was inside, with a link header before it, one that came in by the tunnel's interface. `outer`: the
/// traffic class that its tunnel's packet had.
pub(super) fn emerge(
    world: &World,
    packet: &mut Packet<'_>,
    near: &NearEnd,
    outer: u8,
) -> Result<(), DropReason> {
    let inner = packet.l3();
    let (first, tos) = (inner.first().copied().unwrap_or(0), ecn::traffic_class(inner));
    let least = match first >> 4 {
        4 => ip4::HEADER_LEN,
        6 => ip6::HEADER_LEN,
        _ => 0,
    };
    // What is no IP is for `parse` to refuse.
    if least > 0 && inner.len() >= least {
        let bits = ecn::decapsulated(outer, tos).ok_or(DropReason::TunnelCongestion)?;
        if bits != tos & 3 {
            ecn::set(packet.l3_mut(), bits);
        }
        let mtu = world.snapshot.interfaces.get(near.interface).map_or(u16::MAX, |of| of.mtu);
        mss::clamp(packet.l3_mut(), mtu);
    }
    packet.meta.rx_if = near.interface;
    packet.meta.flags = PacketFlags::default();
    Ok(())
}

/// The packet inside is an IP packet: it gets a link header like any other.
pub(super) fn enter_ip(packet: &mut Packet<'_>, near: &NearEnd) {
    let v6 = packet.l3().first().is_some_and(|first| first >> 4 == 6);
    let link = Prebuilt::new(near.mac, near.mac, None, if v6 { ethernet::IPV6 } else { ethernet::IPV4 });
    // There is room: the outer header was longer.
    packet.set_link_header(link.as_slice());
}

/// Behind the VXLAN header there is a whole frame.
fn enter_frame(packet: &mut Packet<'_>, network: u32) -> Result<(), DropReason> {
    const HEADERS: usize = 8 + vxlan::HEADER_LEN;
    let bytes = packet.l4();
    match bytes.get(8..).map(vxlan::network) {
        Some(Ok(number)) if number == network => {}
        Some(Ok(_)) => return Err(DropReason::VxlanNetwork),
        _ => return Err(DropReason::BadTunnel),
    }
    if bytes.len() < HEADERS + ethernet::HEADER_LEN {
        return Err(DropReason::BadTunnel);
    }
    let frame = packet.meta.l4 + HEADERS as u16;
    packet.meta.len -= u32::from(frame - packet.meta.data);
    packet.meta.data = frame;
    packet.meta.l3 = frame + ethernet::HEADER_LEN as u16;
    Ok(())
}

/// A tunnel's packet that a router quotes.
struct Quoted {
    from: Addr,
    to: Addr,
    /// Of the packet.
    len: u16,
}

/// The packet of a tunnel of ours that the ICMP error quotes, to a node that is known.
fn quoted(world: &World, packet: &Packet<'_>) -> Option<Quoted> {
    let v6 = packet.meta.flags.has(PacketFlags::V6);
    let quote = packet.l4().get(8..)?;
    let (header_len, proto, len) = if v6 {
        (ip6::HEADER_LEN, *quote.get(6)?, read_u16(quote, 4).ok()?.saturating_add(40))
    } else {
        (usize::from(*quote.first()? & 0xf) * 4, *quote.get(9)?, read_u16(quote, 2).ok()?)
    };
    let (from, to) = quote.get(..header_len).map(|ip| ends(ip, v6))?;
    let dport = read_u16(quote, header_len + 2).unwrap_or_default();
    // What was sent by this end would arrive at it, were it turned round.
    let overlay = &world.snapshot.overlay;
    let ours = overlay.arrived(from, Proto(proto), dport).is_some() && overlay.reaches(to);
    ours.then_some(Quoted { from, to, len })
}

/// Tells the control thread, which decides for all workers.
#[cold]
fn hear(world: &mut World, packet: &Packet<'_>) -> DecapNext {
    let v4 = !packet.meta.flags.has(PacketFlags::V6);
    if let Some(Quoted { to, len, .. }) = quoted(world, packet) {
        let word = read::<4>(packet.l4(), 4).map(u32::from_be_bytes).unwrap_or_default();
        let said = if v4 { word & 0xffff } else { word };
        let mtu = believable(said, len, v4);
        let known = world.snapshot.overlay.path_mtu(to);
        if known.is_none_or(|known| mtu <= known) {
            world.tell(Event::PathMtu { to, mtu });
        }
    }
    DecapNext::Punt
}
