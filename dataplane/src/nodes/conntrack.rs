//! Which flow a packet belongs to: known, new, another worker's, or none that could be.

use super::world::{flow_key, segment};
use super::{World, host, nat, plain};
use crate::arcs;
use crate::conntrack::{Admit, FlowRef, Observed, Segment};
use crate::graph::Node;
use crate::net::FlowKey;
use crate::packet::{DropReason, Meta, Packet, PacketFlags};
use crate::policy::Query;
use crate::wire::icmp;
use crate::wire::translate::{Quote, translate_error};

arcs! {
    /// The ways out of [`Conntrack`].
    pub enum ConntrackNext {
        /// A live flow whose way holds: straight on.
        Rewrite = "hit",
        /// A new flow, or one to be judged again.
        Service = "miss",
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
        let guess = world.flows.guess(packet.meta.hash);
        packet.meta.flow = guess.map_or(UNKNOWN, |flow| flow.0);
        if packet.meta.flags.has(PacketFlags::V6)
            && let Some(flow) = guess
        {
            world.flows.prefetch6(flow);
        }
    }

    #[inline(always)]
    fn approach(&mut self, world: &mut World, packet: Packet<'_>) {
        if packet.meta.flow == UNKNOWN {
            packet.meta.flow = world.flows.guess_again(packet.meta.hash).map_or(UNKNOWN, |flow| flow.0);
        }
    }

    #[inline(always)]
    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> ConntrackNext {
        if !plain::is_as_it_came(&packet) {
            return any(world, packet.reborrow());
        }
        if world.owner(packet.meta.hash) != world.me {
            return ConntrackNext::Handoff;
        }
        let (guess, ways, now) = (FlowRef(packet.meta.flow), world.snapshot.ways, world.now);
        let way = match packet.meta.flags.has(PacketFlags::V6) {
            false => plain::key4(&packet).and_then(|key| world.flows.carry_on4(key, guess, ways, now)),
            true => plain::key6(&packet).and_then(|key| world.flows.carry_on6(&key, guess, ways, now)),
        };
        match way {
            Some(way) => goes_on(world, packet.meta, guess, way),
            None => tracked(world, packet.reborrow()),
        }
    }
}

/// `Meta::flow` when there is not even a guess.
const UNKNOWN: u32 = u32::MAX;

/// A plain packet that says something about its session, or has none, or finds its way anew.
#[inline(never)]
fn tracked(world: &mut World, packet: Packet<'_>) -> ConntrackNext {
    let (hash, guess, now) = (packet.meta.hash, FlowRef(packet.meta.flow), world.now);
    let found = match packet.meta.flags.has(PacketFlags::V6) {
        false => plain::key4(&packet).and_then(|key| world.flows.lookup4(key, hash, guess, now)),
        true => plain::key6(&packet).and_then(|key| world.flows.lookup6(&key, hash, guess, now)),
    };
    match found {
        Some(flow) => {
            let segment = segment(&packet);
            hit(world, packet, flow, segment)
        }
        None => miss(world, packet),
    }
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
            return ConntrackNext::Service;
        }
        // The flow may have ended meanwhile.
        packet.meta.flags.clear(PacketFlags::HIT);
    } else if world.owner(packet.meta.hash) != world.me {
        return ConntrackNext::Handoff;
    }
    let later = packet.meta.flags.has(PacketFlags::LATER);
    match world.flows.lookup(&flow_key(&packet), packet.meta.hash, world.now) {
        Some(flow) => {
            let segment = if later { Segment::Later } else { segment(&packet) };
            hit(world, packet, flow, segment)
        }
        None => miss(world, packet),
    }
}

fn miss(world: &mut World, packet: Packet<'_>) -> ConntrackNext {
    if !packet.meta.flags.has(PacketFlags::HANDED) {
        if world.flows.listed(packet.meta.hash).is_some_and(|worker| worker != world.me) {
            return ConntrackNext::Handoff;
        }
    } else if world.owner(packet.meta.hash) != world.me {
        // It came as the reply of a translated flow, and that has ended.
        return refused(packet.meta, DropReason::ConntrackInvalid);
    }
    if packet.meta.flags.has(PacketFlags::LATER) {
        return orphan(packet);
    }
    // Whoever fills the table must not lock the administrator out.
    if world.flows.is_full() && world.snapshot.protection.is_some() {
        let query = Query { key: flow_key(&packet), icmp: packet.meta.icmp };
        if host::is_failsafe(world, &packet, &query) {
            packet.meta.flags.set(PacketFlags::UNTRACKED);
            return ConntrackNext::Service;
        }
    }
    match world.flows.admit(packet.meta.proto, segment(&packet)) {
        Admit::New(_) => ConntrackNext::Service,
        Admit::Invalid => refused(packet.meta, DropReason::ConntrackInvalid),
    }
}

#[inline(always)]
fn hit(world: &mut World, packet: Packet<'_>, flow: FlowRef, segment: Segment) -> ConntrackNext {
    match world.flows.observe(flow, segment, world.now) {
        Observed::Ok => {}
        Observed::Invalid => return refused(packet.meta, DropReason::ConntrackInvalid),
        Observed::OutOfWindow => return refused(packet.meta, DropReason::TcpOutOfWindow),
        Observed::WrongTag => return refused(packet.meta, DropReason::SctpWrongTag),
        // The same ends begin anew: a new flow, to be judged as one.
        Observed::Reopen => return ConntrackNext::Service,
    }
    match world.flows.way(flow, world.snapshot.ways) {
        Some(way) => goes_on(world, packet.meta, flow, way),
        None => route(world, packet, flow),
    }
}

/// A packet of a live flow goes the way that is known.
#[inline(always)]
fn goes_on(world: &World, meta: &mut Meta, flow: FlowRef, way: u32) -> ConntrackNext {
    meta.flow = flow.0;
    meta.flags.set(PacketFlags::HIT);
    meta.adjacency = way;
    world.flows.prefetch_count(flow);
    ConntrackNext::Rewrite
}

/// The flow's way is not known under this snapshot.
#[inline(never)]
fn route(world: &World, mut packet: Packet<'_>, flow: FlowRef) -> ConntrackNext {
    packet.meta.flow = flow.0;
    packet.meta.flags.set(PacketFlags::HIT);
    match world.flows.translated(flow) {
        // It is routed by where it goes, not by where it was sent.
        Some(to) if !nat::write_early(&mut packet, &to) => ConntrackNext::Drop,
        _ => ConntrackNext::Service,
    }
}

/// An ICMP error passes when it quotes a packet of a live flow (RFC 5508 §4) and goes to whoever
/// sent that one. It belongs to whoever owns the flow, and tells of the packet as it was sent.
#[cold]
fn related(world: &mut World, mut packet: Packet<'_>) -> ConntrackNext {
    // Held, and found to belong before.
    let held = packet.meta.flags.has(PacketFlags::HANDED) && packet.meta.flags.has(PacketFlags::RELATED);
    if held || packet.meta.flags.has(PacketFlags::UNTRACKED) {
        return ConntrackNext::Service;
    }
    let Some(quoted) = quoted(&packet).filter(|quoted| quoted.src == flow_key(&packet).dst) else {
        return refused(packet.meta, DropReason::ConntrackInvalid);
    };
    // The packet was on its way out: what answers it takes the way of the error.
    let key = quoted.reversed();
    let hash = world.flows.hash(&key);
    if !packet.meta.flags.has(PacketFlags::HANDED) && world.keeper(hash) != world.me {
        return ConntrackNext::Handoff;
    }
    let Some(flow) = world.flows.lookup(&key, hash, world.now) else {
        return refused(packet.meta, DropReason::ConntrackInvalid);
    };
    let sent = world.flows.key(flow.opposite());
    if sent != quoted {
        packet.set_key(flow_key(&packet));
        let (v6, l4) = (packet.meta.flags.has(PacketFlags::V6), usize::from(packet.meta.l4 - packet.meta.l3));
        if !translate_error(packet.l3_mut(), v6, l4, &quoted, &sent) {
            return refused(packet.meta, DropReason::ConntrackInvalid);
        }
    }
    packet.meta.flags.set(PacketFlags::RELATED);
    ConntrackNext::Service
}

/// The hash by which the packet's flow is known: for an ICMP error, of the key of what answers the
/// packet that it is about.
pub(super) fn flow_hash(world: &World, packet: &Packet<'_>) -> Option<u64> {
    match packet.meta.proto.is_icmp() && icmp::is_error(packet.meta.proto, packet.meta.icmp) {
        true => quoted(packet).map(|key| world.flows.hash(&key.reversed())),
        false => Some(packet.meta.hash),
    }
}

/// The key of the packet that an error quotes.
fn quoted(packet: &Packet<'_>) -> Option<FlowKey> {
    let v6 = packet.meta.flags.has(PacketFlags::V6);
    packet.l4().get(8..).and_then(|quote| Quote::parse(quote, v6)).map(|quote| quote.key)
}

/// A later fragment begins no flow. The first one of a new flow may be in this very vector, though,
/// so it goes round once more; found none then, the first was refused.
#[cold]
fn orphan(packet: Packet<'_>) -> ConntrackNext {
    if packet.meta.flags.has(PacketFlags::AGAIN) {
        return refused(packet.meta, DropReason::Fragment);
    }
    packet.meta.flags.set(PacketFlags::AGAIN);
    ConntrackNext::Handoff
}

#[cold]
fn refused(meta: &mut Meta, reason: DropReason) -> ConntrackNext {
    meta.drop = reason;
    ConntrackNext::Drop
}
