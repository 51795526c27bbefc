//! Turns a packet that cannot go on into the ICMP error that says so; TCP that no service takes into a
//! reset, which more clients believe than an error.
//!
//! The offending packet counts as dropped, the answer as made here. Where the rules forbid one
//! (RFC 1122 §3.2.2, RFC 4443 §2.4), or too many were sent, only the drop remains.

use super::{World, drop, nat, world::flow_key};
use crate::arcs;
use crate::fib::{Fib, Hop, Interfaces, Role};
use crate::graph::Node;
use crate::net::Proto;
use crate::packet::{DropReason, Gso, Packet, PacketFlags};
use crate::wire::{ethernet, icmp, tcp};

arcs! {
    /// The ways out of [`IcmpError`].
    pub enum IcmpErrorNext {
        /// The packet is the answer now.
        Tx = "tx",
        /// The same, by a tunnel.
        Encap = "encap",
        /// There is none.
        Drop = "drop",
    }
}

/// The node, with room to build an answer in while the offending packet is still needed.
pub struct IcmpError {
    scratch: Box<[u8; icmp::MAX_ERROR_V6]>,
}

const _: () = assert!(tcp::MAX_RESET <= icmp::MAX_ERROR_V6);

/// What the sender is told.
#[derive(Clone, Copy)]
enum Answer {
    Error(icmp::Error),
    /// Nobody listens at this port.
    Reset,
}

impl Default for IcmpError {
    fn default() -> Self {
        Self { scratch: Box::new([0; icmp::MAX_ERROR_V6]) }
    }
}

impl Node<World> for IcmpError {
    type Next = IcmpErrorNext;
    const NAME: &'static str = "icmp-error";

    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> IcmpErrorNext {
        self.answer(world, &mut packet).unwrap_or(IcmpErrorNext::Drop)
    }
}

impl IcmpError {
    fn answer(&mut self, world: &mut World, packet: &mut Packet<'_>) -> Option<IcmpErrorNext> {
        let answer = answer(world, packet)?;
        // Only about the first fragment of an IPv4 packet (RFC 1122 §3.2.2).
        if packet.meta.flags.has(PacketFlags::LATER) && !packet.meta.flags.has(PacketFlags::V6) {
            return None;
        }
        let proto = packet.meta.proto;
        if proto.is_icmp()
            && (icmp::is_error(proto, packet.meta.icmp) || !icmp::is_echo(proto, packet.meta.icmp))
        {
            return None;
        }
        let snapshot = world.snapshot.clone();
        let back = snapshot.interfaces.get(packet.meta.rx_if)?;
        let v6 = packet.meta.flags.has(PacketFlags::V6);
        let gateway = if v6 { Interfaces::GATEWAY_V6 } else { Interfaces::GATEWAY_V4 };
        let near = snapshot.interfaces.source(back.id, !v6);
        let from = match &back.role {
            // A host takes nothing from its own address. Whom it asked it believes.
            Role::Stack => flow_key(packet).dst,
            _ => near.or_else(|| back.workload().map(|_| gateway))?,
        };
        if !world.errors.take(world.now) {
            return None;
        }
        let link = ethernet::Header::parse(packet.bytes()).ok()?;
        let key = flow_key(packet);
        let to = key.src;
        // Back through the tunnel that it came by, which may not be the only one.
        let tunnel = match (&back.role, snapshot.fib.lookup(to, back.scope(), packet.meta.hash)) {
            (Role::Tunnel(_), Hop::Adjacency(index)) if index >= Fib::TUNNELS => Some(index),
            (Role::Tunnel(_), _) => return None,
            _ => None,
        };
        // Its sender knows it as it came.
        nat::restore(packet);
        let (len, proto) = match answer {
            Answer::Error(error) => {
                let about = first_segment(packet);
                let len = icmp::emit_error(error, from, key.src, about, &mut self.scratch[..])?;
                (len, if v6 { Proto::ICMP6 } else { Proto::ICMP })
            }
            Answer::Reset => (tcp::emit_reset(&key, packet.l4(), &mut self.scratch[..])?, Proto::TCP),
        };

        // Whoever watches it sees it end, and then what is made of it.
        world.see_dropped(packet.reborrow());
        drop::account(world, packet.reborrow());
        // Fits: an answer is never longer than 1,280 bytes, and a frame takes more.
        packet.fill(&self.scratch[..len]);
        packet.meta.l3 = packet.meta.data;
        packet.meta.drop = DropReason::Unspecified;
        (packet.meta.gso, packet.meta.gso_size) = (Gso::None, 0);
        packet.meta.proto = proto;
        packet.meta.flags.set(PacketFlags::ORIGINATED);
        world.counters.made();
        if let Some(index) = tunnel {
            packet.meta.adjacency = index;
            return Some(IcmpErrorNext::Encap);
        }
        let kind = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
        let header = ethernet::Prebuilt::new(link.src, back.source_mac(), back.vlan, kind);
        packet.set_link_header(header.as_slice());
        packet.meta.tx_if = back.id;
        Some(IcmpErrorNext::Tx)
    }
}

/// The packet; of a super-frame its first segment, which is what its sender would know again.
fn first_segment<'p>(packet: &'p mut Packet<'_>) -> &'p [u8] {
    let len = packet.make_first_segment().unwrap_or(packet.l3_len());
    packet.l3().get(..len).unwrap_or_default()
}

/// What says what stopped the packet.
fn answer(world: &World, packet: &Packet<'_>) -> Option<Answer> {
    let error = match packet.meta.drop {
        DropReason::TtlExceeded => icmp::Error::TimeExceeded,
        DropReason::NeighbourUnresolved => icmp::Error::HostUnreachable,
        DropReason::NoRoute => icmp::Error::NoRoute,
        DropReason::RouteUnreachable => icmp::Error::RouteUnreachable,
        DropReason::RouteProhibited => icmp::Error::Prohibited,
        DropReason::NoBackend | DropReason::NoServicePort => match packet.meta.proto {
            Proto::TCP if !packet.meta.flags.has(PacketFlags::LATER) => return Some(Answer::Reset),
            _ => icmp::Error::PortUnreachable,
        },
        DropReason::TooBig => {
            let v6 = packet.meta.flags.has(PacketFlags::V6);
            let dont_fragment = packet.l3().get(6).is_some_and(|flags| flags & 0x40 != 0);
            let mtu = world.snapshot.fib.mtu(packet.meta.adjacency)?;
            if !v6 && !dont_fragment {
                return None;
            }
            icmp::Error::TooBig(mtu)
        }
        _ => return None,
    };
    Some(Answer::Error(error))
}
