//! Which flow a packet belongs to: known, new, another worker's, or none that could be.

use super::world::{flow_key, segment};
use super::{World, host, plain};
use crate::arcs;
use crate::conntrack::{Admit, FlowRef, Observed, Segment};
use crate::graph::Node;
use crate::net::{FlowKey, Proto};
use crate::packet::{DropReason, Packet, PacketFlags};
use crate::policy::Query;
use crate::wire::{icmp, ip4, ip6, l4};

arcs! {
    /// The ways out of [`Conntrack`].
    pub enum ConntrackNext {
        /// A live flow whose way holds: straight on.
        Rewrite = "hit",
        /// A new flow, or one to be judged again.
        Route = "miss",
        /// Another worker owns the flow; or this one, and its first packet is on the way.
        Handoff = "foreign",
        /// No flow, and cannot begin one.
        Drop = "invalid",
    }
}

/// The node.
pub struct Conntrack;

impl Node<World> for Conntrack {
    type Next = ConntrackNext;
    const NAME: &'static str = "conntrack";
    const LOOKS_AHEAD: bool = true;

    #[inline(always)]
    fn prepare(&mut self, world: &mut World, packet: Packet<'_>) {
        match packet.meta.hash {
            0 => hash(world, packet),
            hash => packet.meta.flow = world.flows.guess(hash).map_or(UNKNOWN, |flow| flow.0),
        }
    }

    #[inline(always)]
    fn approach(&mut self, world: &mut World, packet: Packet<'_>) {
        if packet.meta.flow == UNKNOWN {
            packet.meta.flow = world.flows.guess_again(packet.meta.hash).map_or(UNKNOWN, |flow| flow.0);
        }
    }

    #[inline(always)]
    fn packet(&mut self, world: &mut World, packet: Packet<'_>) -> ConntrackNext {
        let Some(key) = plain::key(&packet) else { return any(world, packet) };
        if world.owner(packet.meta.hash) != world.me {
            return ConntrackNext::Handoff;
        }
        let guess = FlowRef(packet.meta.flow);
        match world.flows.lookup4(key, packet.meta.hash, guess, world.now) {
            Some(flow) => {
                let segment = segment(&packet);
                hit(world, packet, flow, segment)
            }
            None => miss(world, packet),
        }
    }
}

/// `Meta::flow` when there is not even a guess.
const UNKNOWN: u32 = u32::MAX;

/// `parse` has not done it: a fragment, or one that was held under another key.
#[cold]
fn hash(world: &mut World, packet: Packet<'_>) {
    packet.meta.hash = world.flows.hash(&flow_key(&packet));
    packet.meta.flow = UNKNOWN;
    world.flows.prefetch(packet.meta.hash);
}

/// A packet that is not plain, or came from another worker.
#[inline(never)]
fn any(world: &mut World, packet: Packet<'_>) -> ConntrackNext {
    if packet.meta.proto.is_icmp() && icmp::is_error(packet.meta.proto, packet.meta.icmp) {
        return related(world, packet);
    }
    if packet.meta.flags.has(PacketFlags::HANDED) {
        // It was held, not handed over.
        if packet.meta.flags.has(PacketFlags::UNTRACKED) {
            return ConntrackNext::Route;
        }
    } else if world.owner(packet.meta.hash) != world.me {
        return ConntrackNext::Handoff;
    }
    let later = packet.meta.flags.has(PacketFlags::LATER);
    match world.flows.lookup(&flow_key(&packet), packet.meta.hash, world.now) {
        Some(flow) => {
            let segment = if later { Segment::Later } else { segment(&packet) };
            hit(world, packet, flow, segment)
        }
        None if later => orphan(packet),
        None => miss(world, packet),
    }
}

fn miss(world: &mut World, packet: Packet<'_>) -> ConntrackNext {
    // Whoever fills the table must not lock the administrator out.
    if world.flows.is_full() && world.snapshot.protection.is_some() {
        let query = Query { key: flow_key(&packet), icmp: packet.meta.icmp };
        if host::is_failsafe(world, &packet, &query) {
            packet.meta.flags.set(PacketFlags::UNTRACKED);
            return ConntrackNext::Route;
        }
    }
    match world.flows.admit(packet.meta.proto, segment(&packet)) {
        Admit::New(_) => ConntrackNext::Route,
        Admit::Invalid => invalid(packet),
    }
}

#[inline(always)]
fn hit(world: &mut World, packet: Packet<'_>, flow: FlowRef, segment: Segment) -> ConntrackNext {
    match world.flows.observe(flow, segment, world.now) {
        Observed::Ok => {}
        Observed::Invalid => return invalid(packet),
        Observed::OutOfWindow => return out_of_window(packet),
        // The same ends begin anew: a new flow, to be judged as one.
        Observed::Reopen => return ConntrackNext::Route,
    }
    packet.meta.flow = flow.0;
    packet.meta.flags.set(PacketFlags::HIT);
    let Some(adjacency) = world.flows.way(flow, world.snapshot.ways) else {
        return ConntrackNext::Route;
    };
    packet.meta.adjacency = adjacency;
    ConntrackNext::Rewrite
}

/// An ICMP error passes when it quotes a packet of a live flow (RFC 5508 §4), and belongs to
/// whoever owns that flow.
#[cold]
fn related(world: &mut World, packet: Packet<'_>) -> ConntrackNext {
    if packet.meta.flags.has(PacketFlags::UNTRACKED) {
        return ConntrackNext::Route;
    }
    let v6 = packet.meta.flags.has(PacketFlags::V6);
    let Some(quoted) = packet.l4().get(8..).and_then(|bytes| quoted_key(bytes, v6)) else {
        return invalid(packet);
    };
    let hash = world.flows.hash(&quoted);
    if !packet.meta.flags.has(PacketFlags::HANDED) && world.owner(hash) != world.me {
        return ConntrackNext::Handoff;
    }
    if world.flows.lookup(&quoted, hash, world.now).is_none() {
        return invalid(packet);
    }
    packet.meta.flags.set(PacketFlags::RELATED);
    ConntrackNext::Route
}

/// The key of the packet that an error quotes. The quote may be cut short behind the ports.
pub(super) fn quoted_key(quote: &[u8], v6: bool) -> Option<FlowKey> {
    let (proto, len) = if v6 {
        let header = ip6::Header::parse(quote).ok()?;
        (header.proto, header.len)
    } else {
        let header = ip4::Header::parse(quote).ok()?;
        (header.proto, header.len)
    };
    let transport = quote.get(len..).filter(|rest| rest.len() >= 8 || !needs_header(proto))?;
    let icmp = match (proto.is_icmp(), transport) {
        (true, [kind, code, ..]) => crate::net::Icmp { kind: *kind, code: *code },
        _ => crate::net::Icmp::default(),
    };
    Some(l4::flow_key(quote, transport, v6, proto, icmp))
}

fn needs_header(proto: Proto) -> bool {
    proto.has_ports() || proto.is_icmp()
}

/// A later fragment begins no flow. The first one of a new flow may be in this very vector, though,
/// so it goes round once more; found none then, the first was refused.
#[cold]
fn orphan(packet: Packet<'_>) -> ConntrackNext {
    if packet.meta.flags.has(PacketFlags::AGAIN) {
        packet.meta.drop = DropReason::Fragment;
        return ConntrackNext::Drop;
    }
    packet.meta.flags.set(PacketFlags::AGAIN);
    ConntrackNext::Handoff
}

#[cold]
fn out_of_window(packet: Packet<'_>) -> ConntrackNext {
    packet.meta.drop = DropReason::TcpOutOfWindow;
    ConntrackNext::Drop
}

#[cold]
fn invalid(packet: Packet<'_>) -> ConntrackNext {
    packet.meta.drop = DropReason::ConntrackInvalid;
    ConntrackNext::Drop
}
