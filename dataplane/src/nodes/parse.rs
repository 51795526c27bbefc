//! Everything that can be said of a packet from its own bytes and the interface it came by.
//!
//! Deliberately fat: as five thin nodes the same checks cost half as much again.

use super::world::flow_key;
use super::{World, decap, host, nat, plain};
use crate::arcs;
use crate::fib::{Interface, Interfaces, Role};
use crate::graph::Node;
use crate::net::{Addr, FlowKey, Mac, Proto};
use crate::packet::{DropReason, Gso, L4Checksum, Packet, PacketFlags};
use crate::wire::{Malformed, ethernet, icmp, ip4, ip6, l4, nd};

arcs! {
    /// The ways out of [`Parse`].
    pub enum ParseNext {
        /// An IP packet to forward.
        Conntrack = "conntrack",
        /// ARP.
        Arp = "arp",
        /// Neighbour discovery.
        Nd = "nd",
        /// An IP packet that a host endpoint's untracked policy may have a say in.
        Untracked = "untracked",
        /// A tunnel's packet, for this node.
        Decap = "tunnel",
        /// An encrypted tunnel's packet, for this node.
        WgDecrypt = "wireguard",
        /// A piece of an IP packet.
        Fragments = "fragment",
        /// Refused.
        Drop = "drop",
    }
}

/// The node.
pub struct Parse;

impl Node<World> for Parse {
    type Next = ParseNext;
    const NAME: &'static str = "parse";

    #[inline]
    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> ParseNext {
        let next = plain::judge(world, &mut packet);
        next.unwrap_or_else(|| {
            let next = any(world, &mut packet);
            if next == ParseNext::Conntrack {
                packet.meta.hash = world.flows.hash(&flow_key(&packet));
                world.flows.prefetch(packet.meta.hash);
            }
            next
        })
    }
}

/// The address that Calico gives every host-side link, and workloads may have cached.
pub(super) const CALICO_GATEWAY_MAC: Mac = Mac([0xee; 6]);

/// Whatever it is.
#[inline(never)]
pub(super) fn any(world: &World, packet: &mut Packet<'_>) -> ParseNext {
    judge(world, packet).unwrap_or_else(|reason| {
        packet.meta.drop = reason;
        ParseNext::Drop
    })
}

#[inline(always)]
fn judge(world: &World, packet: &mut Packet<'_>) -> Result<ParseNext, DropReason> {
    // What it announces came, but for want of a buffer was not kept.
    if packet.len_in_frame() != packet.meta.len as usize {
        return Err(DropReason::NoLargeFrames);
    }
    let link = ethernet::Header::parse(packet.bytes()).map_err(|_| DropReason::Truncated)?;
    let interfaces = &world.snapshot.interfaces;
    let interface = match link.vlan {
        None => interfaces.get(packet.meta.rx_if).ok_or(DropReason::DeviceGone)?,
        vlan => interfaces.tagged(packet.meta.rx_if, vlan).ok_or(DropReason::UnknownVlan)?,
    };
    let to_us = match &interface.role {
        Role::Uplink | Role::Tunnel(_) => link.dst == interface.mac,
        Role::Workload(workload) => {
            if !workload.active {
                return Err(DropReason::EndpointInactive);
            }
            link.dst == interface.mac || link.dst == CALICO_GATEWAY_MAC
        }
        Role::Host => link.dst == Interfaces::HOST_PORT_MAC,
        // The kernel sends to stations it knows.
        Role::Stack => true,
    };
    if !to_us && !link.dst.is_group() {
        return Err(DropReason::NotForUs);
    }
    packet.meta.rx_if = interface.id;
    packet.meta.l3 = packet.meta.data + link.len as u16;

    let ip = match link.ether_type {
        ethernet::IPV4 => v4(packet)?,
        ethernet::IPV6 => v6(packet)?,
        // Every node knows where every other one is: nobody asks through a tunnel.
        ethernet::ARP if matches!(interface.role, Role::Tunnel(_)) => return Err(DropReason::NotAnswered),
        ethernet::ARP => return Ok(ParseNext::Arp),
        _ => return Err(DropReason::UnknownEtherType),
    };
    packet.meta.proto = ip.proto;
    let header = if ip.fragment {
        piece(packet, &ip)?
    } else {
        l4::Header::parse(ip.proto, packet.l4()).map_err(|_| DropReason::BadL4Header)?
    };
    if packet.gso_proto().is_some_and(|proto| ip.fragment || ip.proto != proto) {
        return Err(DropReason::BadL4Header);
    }
    packet.meta.tcp_flags = header.tcp_flags;
    packet.meta.icmp = header.icmp;

    if ip.proto == Proto::ICMP6 && nd::is_neighbour_discovery(header.icmp) {
        // Never in fragments (RFC 6980).
        if ip.fragment {
            return Err(DropReason::BadNd);
        }
        if matches!(interface.role, Role::Tunnel(_)) {
            return Err(DropReason::NotAnswered);
        }
        return Ok(ParseNext::Nd);
    }
    if interface.role == Role::Uplink
        && let Some(next) = decap::tunnels(world, packet, ip.dst, header.dport)
    {
        return Ok(next);
    }
    if (ip.dst.is_multicast() || link.dst.is_group()) && !stays_on_link(world, interface, packet, &ip) {
        return Err(DropReason::Multicast);
    }
    if (ip.src.is_multicast() || !routable(ip.src) || !routable(ip.dst))
        && !stays_on_link(world, interface, packet, &ip)
    {
        return Err(DropReason::Martian);
    }
    if let Role::Workload(workload) = &interface.role {
        if !workload.owns(ip.src) {
            return Err(DropReason::SpoofedSource);
        }
        if !world.snapshot.overlay.lets_workloads_send(ip.proto, header.dport) {
            return Err(DropReason::EncapFromWorkload);
        }
    }
    if ip.fragment {
        // A stack that cuts a packet has summed it up before.
        packet.meta.checksum = L4Checksum::Complete;
        return Ok(ParseNext::Fragments);
    }
    if packet.meta.checksum == L4Checksum::MaybePartial {
        finish_checksum(packet, ip.src, ip.dst);
    }
    Ok(if interface.untracked { ParseNext::Untracked } else { ParseNext::Conntrack })
}

/// Finishes what a sender may have left to hardware.
#[inline]
pub(super) fn finish_checksum(packet: &mut Packet<'_>, src: Addr, dst: Addr) {
    packet.meta.checksum = L4Checksum::Complete;
    if packet.meta.gso != Gso::None {
        return nat::seed_checksum(packet);
    }
    let (at, proto) = (usize::from(packet.meta.l4 - packet.meta.l3), packet.meta.proto);
    let segment = packet.l3_mut().get_mut(at..).unwrap_or_default();
    l4::repair_partial_checksum(src, dst, proto, segment);
}

/// The packet may be multicast, or have addresses that are not forwarded, because it is not: it is
/// between a protected uplink's link and this host.
#[cold]
fn stays_on_link(world: &World, interface: &Interface, packet: &Packet<'_>, ip: &Ip) -> bool {
    let on_link = interface.through.is_some() && !matches!(interface.role, Role::Tunnel(_));
    let Some(protection) = world.snapshot.protection.as_ref().filter(|_| on_link) else {
        return false;
    };
    (interface.role == Role::Stack || host::is_for_host(protection, packet))
        && !ip.src.is_multicast()
        && !ip.src.is_loopback()
        && !ip.dst.is_loopback()
}

/// The transport header of a fragment: there, and whole, in the first; not to be looked for in others.
#[cold]
fn piece(packet: &mut Packet<'_>, ip: &Ip) -> Result<l4::Header, DropReason> {
    if !packet.meta.flags.has(PacketFlags::LATER) {
        let header = l4::Header::parse_first(ip.proto, packet.l4()).map_err(|error| match error {
            Malformed::Truncated => DropReason::FragmentTiny,
            _ => DropReason::BadL4Header,
        })?;
        // They are short enough for any way (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)).
        if ip.proto.is_icmp() && icmp::is_error(ip.proto, header.icmp) {
            return Err(DropReason::BadFragment);
        }
        return Ok(header);
    }
    packet.set_key(FlowKey { src: ip.src, dst: ip.dst, sport: 0, dport: 0, proto: ip.proto });
    let v6 = packet.meta.flags.has(PacketFlags::V6);
    let piece = if v6 { ip6::fragment(packet.l3()) } else { ip4::fragment(packet.l3()) };
    let start = piece.map_err(|_| DropReason::BadFragment)?.start;
    if start < l4::Header::min_len(ip.proto) {
        return Err(DropReason::FragmentTiny);
    }
    Ok(l4::Header::default())
}

/// What the rest needs of either IP header.
struct Ip {
    src: Addr,
    dst: Addr,
    proto: Proto,
    fragment: bool,
}

#[inline(always)]
fn v4(packet: &mut Packet<'_>) -> Result<Ip, DropReason> {
    let header = ip4::Header::parse(packet.l3()).map_err(reason)?;
    if header.total_len > packet.l3_len() {
        return Err(DropReason::Truncated);
    }
    mark(packet, header.fragment, header.later_fragment);
    trim(packet, header.total_len, header.len);
    Ok(Ip { src: header.src, dst: header.dst, proto: header.proto, fragment: header.fragment })
}

#[inline(always)]
fn v6(packet: &mut Packet<'_>) -> Result<Ip, DropReason> {
    let header = ip6::Header::parse(packet.l3()).map_err(reason)?;
    if header.total_len > packet.l3_len() {
        return Err(DropReason::Truncated);
    }
    // Mapped addresses mean IPv4 inside; on the wire they are forged (RFC 4291 §2.5.5.2).
    if header.src.is_v4() || header.dst.is_v4() {
        return Err(DropReason::Martian);
    }
    packet.meta.flags.set(PacketFlags::V6);
    mark(packet, header.fragment, header.later_fragment);
    trim(packet, header.total_len, header.len);
    Ok(Ip { src: header.src, dst: header.dst, proto: header.proto, fragment: header.fragment })
}

#[inline(always)]
fn mark(packet: &mut Packet<'_>, fragment: bool, later: bool) {
    if fragment {
        packet.meta.flags.set(PacketFlags::FRAGMENT);
        if later {
            packet.meta.flags.set(PacketFlags::LATER);
        }
    }
}

/// Cuts Ethernet padding off and notes where the transport header is.
#[inline(always)]
fn trim(packet: &mut Packet<'_>, total_len: usize, header_len: usize) {
    let link_len = u32::from(packet.meta.l3 - packet.meta.data);
    packet.truncate(link_len + total_len as u32);
    packet.meta.l4 = packet.meta.l3 + header_len as u16;
}

/// An address that may be forwarded to or from.
#[inline(always)]
fn routable(addr: Addr) -> bool {
    !addr.is_loopback() && !addr.is_unspecified() && (addr.is_v4() || !addr.is_link_local())
}

#[cold]
fn reason(error: Malformed) -> DropReason {
    match error {
        Malformed::Truncated => DropReason::Truncated,
        Malformed::Version => DropReason::BadIpVersion,
        Malformed::Checksum => DropReason::BadIpChecksum,
        Malformed::SourceRoute => DropReason::SourceRoute,
        Malformed::Extensions => DropReason::ExtensionHeaders,
        Malformed::Length | Malformed::Value => DropReason::BadIpHeader,
    }
}
