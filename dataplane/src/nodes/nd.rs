//! IPv6 neighbour discovery: what ARP is to IPv4.

use super::arp::{answers, replace};
use super::{Event, World};
use crate::arcs;
use crate::fib::{Hearing, Role};
use crate::graph::Node;
use crate::packet::{DropReason, Packet};
use crate::wire::{ethernet, ip6, nd};

arcs! {
    /// The ways out of [`Nd`].
    pub enum NdNext {
        /// Answered: the packet is the answer.
        Tx = "tx",
        /// Learned from.
        Punt = "punt",
        /// Refused.
        Drop = "drop",
    }
}

/// The node.
pub struct Nd;

impl Node<World> for Nd {
    type Next = NdNext;
    const NAME: &'static str = "nd";

    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> NdNext {
        match judge(world, &mut packet) {
            Ok(next) => next,
            Err(reason) => {
                packet.meta.drop = reason;
                NdNext::Drop
            }
        }
    }
}

fn judge(world: &mut World, packet: &mut Packet<'_>) -> Result<NdNext, DropReason> {
    let snapshot = world.snapshot.clone();
    let interface = snapshot.interfaces.get(packet.meta.rx_if).ok_or(DropReason::DeviceGone)?;
    if packet.meta.icmp.kind == nd::ROUTER_ADVERTISEMENT && interface.workload().is_some() {
        return Err(DropReason::RouterAdvertFromWorkload);
    }
    if !matches!(packet.meta.icmp.kind, nd::SOLICITATION | nd::ADVERTISEMENT) {
        return Err(DropReason::NotAnswered);
    }
    let ip = ip6::Header::parse(packet.l3()).map_err(|_| DropReason::BadNd)?;
    let message =
        nd::Neighbour::parse(ip.src, ip.dst, ip.hop_limit, packet.l4()).map_err(|_| DropReason::BadNd)?;

    // Whose link address the message tells.
    let told = if message.kind == nd::SOLICITATION { ip.src } else { message.target };
    if let Role::Workload(workload) = &interface.role
        && !told.is_unspecified()
        && !told.is_link_local()
        && !workload.owns(told)
    {
        return Err(DropReason::BadNd);
    }
    if let (Some(mac), false) = (message.link, told.is_unspecified()) {
        let hearing = match (message.kind, message.overrides) {
            (nd::ADVERTISEMENT, false) => Hearing::Weak { answer: message.solicited },
            (nd::ADVERTISEMENT, true) if message.solicited => Hearing::Answer,
            _ => Hearing::Unasked,
        };
        world.tell(Event::NeighbourSeen { interface: interface.id, addr: told, mac, hearing });
    }
    if message.kind == nd::ADVERTISEMENT {
        return Ok(NdNext::Punt);
    }
    // Duplicate address detection for an address of its own is not ours to answer.
    let theirs = interface.workload().is_some_and(|workload| workload.owns(message.target));
    if theirs || !answers(world, interface, message.target) {
        return Err(DropReason::NotAnswered);
    }
    let mac = interface.source_mac();
    // Who asks whether an address is free has none yet: all are told that it is not (RFC 4861 §7.2.4).
    let (answer, station) = match message.link {
        _ if ip.src.is_unspecified() => nd::announcement(message.target, mac),
        Some(station) => (nd::advertisement(message.target, mac, ip.src), station),
        None => return Err(DropReason::NotAnswered),
    };
    let link = ethernet::Prebuilt::new(station, mac, interface.vlan, ethernet::IPV6);
    replace(world, packet, &answer, link);
    Ok(NdNext::Tx)
}
