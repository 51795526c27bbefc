//! ARP: workloads' gateway and proxied addresses are answered, neighbours are learned.

use super::{Event, World};
use crate::arcs;
use crate::fib::{Hearing, Hop, Interface, Interfaces, Role};
use crate::graph::Node;
use crate::net::Addr;
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::wire::{arp, ethernet};

arcs! {
    /// The ways out of [`Arp`].
    pub enum ArpNext {
        /// Answered: the packet is the answer.
        Tx = "tx",
        /// Learned from.
        Punt = "punt",
        /// Refused.
        Drop = "drop",
    }
}

/// The node.
pub struct Arp;

impl Node<World> for Arp {
    type Next = ArpNext;
    const NAME: &'static str = "arp";

    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> ArpNext {
        match judge(world, &mut packet) {
            Ok(next) => next,
            Err(reason) => {
                packet.meta.drop = reason;
                ArpNext::Drop
            }
        }
    }
}

fn judge(world: &mut World, packet: &mut Packet<'_>) -> Result<ArpNext, DropReason> {
    let asked = arp::Arp::parse(packet.l3()).map_err(|_| DropReason::BadArp)?;
    let snapshot = world.snapshot.clone();
    let interface = snapshot.interfaces.get(packet.meta.rx_if).ok_or(DropReason::DeviceGone)?;
    let probe = asked.sender.is_unspecified();
    match &interface.role {
        Role::Workload(workload) if !probe && !workload.owns(asked.sender) => return Err(DropReason::BadArp),
        // Somebody uses an address of ours: not to be believed.
        _ if interface.addresses.iter().any(|(own, _)| *own == asked.sender) => {
            return Err(DropReason::BadArp);
        }
        _ => {}
    }
    if !probe {
        world.tell(Event::NeighbourSeen {
            interface: interface.id,
            addr: asked.sender,
            mac: asked.sender_mac,
            hearing: match asked.operation {
                arp::Operation::Reply if asked.target_mac == interface.source_mac() => Hearing::Answer,
                _ => Hearing::Unasked,
            },
        });
    }
    if asked.operation == arp::Operation::Reply || asked.sender == asked.target {
        return Ok(ArpNext::Punt);
    }
    if !answers(world, interface, asked.target) {
        return Err(DropReason::NotAnswered);
    }
    let mac = interface.source_mac();
    let answer = arp::Arp {
        operation: arp::Operation::Reply,
        sender_mac: mac,
        sender: asked.target,
        target_mac: asked.sender_mac,
        target: asked.sender,
    };
    let link = ethernet::Prebuilt::new(asked.sender_mac, mac, interface.vlan, ethernet::ARP);
    replace(world, packet, &answer.emit(), link);
    Ok(ArpNext::Tx)
}

/// We answer for our own addresses; towards workloads and the host also for the gateway and for
/// whatever we would forward to elsewhere (proxy ARP, RFC 1027).
pub(super) fn answers(world: &World, interface: &Interface, target: Addr) -> bool {
    if interface.addresses.iter().any(|(own, _)| *own == target) {
        return true;
    }
    if interface.role == Role::Uplink {
        return false;
    }
    if target == Interfaces::GATEWAY_V4 || target == Interfaces::GATEWAY_V6 {
        return true;
    }
    let fib = &world.snapshot.fib;
    match fib.lookup(target, interface.scope(), 0) {
        Hop::Adjacency(index) => fib.leaves_by(index).is_some_and(|to| to != interface.id),
        Hop::Unresolved { tx_if, .. } => tx_if != interface.id,
        Hop::Local => true,
        Hop::Blackhole | Hop::Unreachable | Hop::Prohibited | Hop::NoRoute => false,
    }
}

/// Makes the packet our answer, to leave by the way it came. The question ends here and is
/// counted as punted; the answer is counted as made by us.
pub(super) fn replace(world: &World, packet: &mut Packet<'_>, body: &[u8], link: ethernet::Prebuilt) {
    // A frame has room for a header and 72 bytes: the pool refuses smaller ones.
    packet.fill(body);
    packet.meta.l3 = packet.meta.data;
    packet.set_link_header(link.as_slice());
    packet.meta.tx_if = packet.meta.rx_if;
    packet.meta.flags.set(PacketFlags::ORIGINATED);
    world.counters.punt.add(1);
    world.counters.made();
}
