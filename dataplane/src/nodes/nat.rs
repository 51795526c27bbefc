//! Translation on a packet's way: when which addresses stand in its headers.
//!
//! A packet's flow key is the one it came with, from end to end. Its headers say something else
//! once its destination had to be known (`service`, or `conntrack` for a flow that is routed anew),
//! and at the latest when it leaves (`rewrite`). From the first moment that the two differ the key
//! is noted beside the packet.

use super::{THROUGH, World, route::destination, world::flow_key};
use crate::conntrack::nat::{self, Mapping};
use crate::conntrack::{FlowRef, InsertError, NewSession};
use crate::fib::Role;
use crate::net::{Addr, FlowKey, Proto};
use crate::packet::{DropReason, Gso, Packet, PacketFlags};
use crate::wire::translate::{Headers, Part, translate};
use crate::wire::{ends, icmp, ip4, ip6, l4};

/// The key that the packet's headers say: that of its flow, its destination translated if it is.
#[inline]
pub(super) fn leaving(packet: &Packet<'_>) -> FlowKey {
    match packet.key() {
        None => flow_key(packet),
        Some(key) => {
            let v6 = packet.meta.flags.has(PacketFlags::V6);
            l4::flow_key(packet.l3(), packet.l4(), v6, key.proto, packet.meta.icmp)
        }
    }
}

/// Has the packet leave as `to`. `false`: it cannot, and why is noted.
#[inline]
pub(super) fn write(packet: &mut Packet<'_>, to: &FlowKey) -> bool {
    let part = part(packet);
    let meta = &packet.meta;
    let (v6, l4) = (meta.flags.has(PacketFlags::V6), usize::from(meta.l4 - meta.l3));
    let headers = Headers { v6, proto: meta.proto, l4, part };
    let written = translate(packet.l3_mut(), headers, to);
    if !written {
        packet.meta.drop = DropReason::Untranslatable;
    } else if packet.meta.gso != Gso::None {
        seed_checksum(packet);
    }
    written
}

/// Gives a super-frame the checksum from which its segments' begin.
#[cold]
pub(super) fn seed_checksum(packet: &mut Packet<'_>) {
    let (v6, l4) = (packet.meta.flags.has(PacketFlags::V6), usize::from(packet.meta.l4 - packet.meta.l3));
    let (src, dst) = ends(packet.l3(), v6);
    let proto = packet.meta.proto;
    let segment = packet.l3_mut().get_mut(l4..).unwrap_or_default();
    l4::seed_checksum(src, dst, proto, segment, segment.len());
}

/// The same before anybody looks at its destination: from now on its key is noted beside it.
#[cold]
pub(super) fn write_early(packet: &mut Packet<'_>, to: &FlowKey) -> bool {
    if packet.key().is_none() {
        packet.set_key(flow_key(packet));
    }
    write(packet, to)
}

/// Undoes what was written, so that the packet can be shown to its sender.
#[cold]
pub(super) fn restore(packet: &mut Packet<'_>) {
    if let Some(key) = packet.key() {
        // What was written can be written back.
        write(packet, &key);
    }
}

/// Only where SCTP is cut in pieces does it matter whether this is one.
#[inline]
fn part(packet: &Packet<'_>) -> Part {
    if packet.meta.flags.has(PacketFlags::LATER) {
        return Part::Later;
    }
    if packet.meta.proto != Proto::SCTP {
        return Part::Whole;
    }
    let fragment = match packet.meta.flags.has(PacketFlags::V6) {
        true => ip6::Header::parse(packet.l3()).is_ok_and(|header| header.fragment),
        false => ip4::Header::parse(packet.l3()).is_ok_and(|header| header.fragment),
    };
    if fragment { Part::First } else { Part::Whole }
}

/// The address that a new flow's packets leave with instead of their own, if any.
#[inline]
pub(super) fn source(world: &World, packet: &Packet<'_>) -> Result<Option<Addr>, DropReason> {
    let snapshot = &*world.snapshot;
    let asked = packet.meta.flags.has(PacketFlags::MASQUERADE);
    if !asked && !snapshot.masquerade.applies(flow_key(packet).src, destination(packet)) {
        return Ok(None);
    }
    let out = snapshot.interfaces.get(packet.meta.tx_if).ok_or(DropReason::DeviceGone)?;
    // Where hosts' packets go by a tunnel, hosts are at its other end, who know this node by the tunnel's address.
    let near = match out.role {
        Role::Tunnel(kind) if out.through.is_some() => snapshot.overlay.near(kind).map(|near| near.address),
        _ => None,
    };
    // What passes through between the network and this host does so unchanged.
    if packet.meta.adjacency == THROUGH || (out.role != Role::Uplink && near.is_none() && !asked) {
        return Ok(None);
    }
    if out.role == Role::Uplink && out.through.is_none() {
        return Err(DropReason::NoNatReturn);
    }
    let v4 = !packet.meta.flags.has(PacketFlags::V6);
    let configured = snapshot.masquerade.settings().address.filter(|addr| addr.is_v4() == v4);
    let own = near.or(configured).or_else(|| snapshot.interfaces.source(out.id, v4));
    own.map(Some).ok_or(DropReason::NoNatAddress)
}

/// Makes the session of a flow that leaves with `source`, under a port that is free towards its
/// destination and under which the answers come to this worker.
pub(super) fn open(
    world: &mut World,
    packet: &Packet<'_>,
    source: Addr,
    session: NewSession,
) -> Result<FlowRef, DropReason> {
    let settings = *world.snapshot.masquerade.settings();
    let (key, leaving) = (session.key, leaving(packet));
    let identified = key.proto.has_ports() || icmp::is_echo(key.proto, packet.meta.icmp);
    let independent = settings.mapping == Mapping::EndpointIndependent;
    // A connection that begins anew keeps its port, so that the far end knows it again.
    let old = world.flows.lookup(&key, session.hash, world.now);
    if let Some(old) = old {
        let reply_key = world.flows.key(old.opposite());
        if reply_key.dst == source
            && let Some(flow) = insert(world, session, reply_key)?
        {
            return Ok(flow);
        }
    }
    if !identified {
        // There is nothing to tell two flows apart by.
        let reply_key = nat::reply_to(&leaving, source, 0, false);
        return insert(world, session, reply_key)?.ok_or(DropReason::NatExhausted);
    }
    let chance = match independent {
        true => world.flows.hash(&FlowKey { dst: key.src, dport: 0, ..key }),
        false => session.hash,
    };
    // The same bits pick the worker.
    let chance = chance.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut tries = nat::TRIES;
    for port in nat::candidates(key.sport, settings.ports, chance) {
        let reply_key = nat::reply_to(&leaving, source, port, true);
        if !independent && world.owner(world.flows.hash(&reply_key)) != world.me {
            continue;
        }
        if let Some(flow) = insert(world, session, reply_key)? {
            return Ok(flow);
        }
        tries -= 1;
        if tries == 0 {
            break;
        }
    }
    Err(DropReason::NatExhausted)
}

/// `None`: another session's replies have this key.
fn insert(world: &mut World, session: NewSession, reply_key: FlowKey) -> Result<Option<FlowRef>, DropReason> {
    let reply_hash = world.flows.hash(&reply_key);
    match world.flows.insert(NewSession { reply_key, reply_hash, ..session }, world.now) {
        Ok(flow) => Ok(Some(flow)),
        Err(InsertError::Taken(_) | InsertError::TakenElsewhere) => Ok(None),
        Err(InsertError::Full) => Err(DropReason::FlowTableFull),
    }
}
