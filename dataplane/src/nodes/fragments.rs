//! Fragments: each is given the flow of the first one, which alone has ports.
//!
//! All fragments of a packet come to one worker, chosen by what every one of them says: addresses
//! and the sender's number. It knows the ports once it has seen the first; from here they go on,
//! keyed, to whoever owns the flow, like any packet of it. Those that come before the first wait.

use super::World;
use super::world::flow_key;
use crate::arcs;
use crate::conntrack::{Datagram, Fate, First, Part, Ticket};
use crate::fib::Role;
use crate::graph::{Node, Sink};
use crate::net::{FlowKey, IfId, Proto};
use crate::packet::{DropReason, Packet, PacketFlags, PktIdx, Pool, Vector};
use crate::wire::{Malformed, fragment::Fragment, ip4, ip6};
use std::collections::VecDeque;

arcs! {
    /// The ways out of [`Fragments`].
    pub enum FragmentsNext {
        /// Its flow is known.
        Conntrack = "follows",
        /// The same, and a host endpoint's untracked policy may have a say in it.
        Untracked = "untracked",
        /// Another worker gathers the packet's fragments.
        Handoff = "foreign",
        /// It came before the first.
        Early = "early",
        /// Refused.
        Drop = "drop",
    }
}

/// The node.
pub struct Fragments;

impl Node<World> for Fragments {
    type Next = FragmentsNext;
    const NAME: &'static str = "fragments";

    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> FragmentsNext {
        // It has waited here.
        if !packet.meta.flags.has(PacketFlags::FRAGMENT) {
            return onward(world, &packet);
        }
        match judge(world, &mut packet) {
            Ok(next) => next,
            Err(reason) => {
                packet.meta.drop = reason;
                FragmentsNext::Drop
            }
        }
    }
}

fn judge(world: &mut World, packet: &mut Packet<'_>) -> Result<FragmentsNext, DropReason> {
    let (datagram, piece) = read(world, packet).map_err(|_| DropReason::BadFragment)?;
    let hash = world.flows.hash(&datagram.to_key());
    packet.meta.hash = hash;
    if world.owner(hash) != world.me {
        return Ok(FragmentsNext::Handoff);
    }
    let part = Part { start: piece.start, end: piece.end, last: piece.last };
    let later = packet.meta.flags.has(PacketFlags::LATER);
    // Cut twice: one IPv6 fragment header says that it is the first, the next that it is not.
    if later == (part.start == 0) {
        return Err(DropReason::BadFragment);
    }
    let first = (!later).then(|| First { key: flow_key(packet), icmp: packet.meta.icmp });
    match world.fragments.see(datagram, hash, part, first, world.now) {
        Fate::Follow(first) => {
            follow(world, packet, first);
            Ok(onward(world, packet))
        }
        Fate::Early(ticket) => {
            packet.meta.reply_hash = ticket.to_bits();
            Ok(FragmentsNext::Early)
        }
        Fate::Refused(reason) => Err(reason),
    }
}

/// Which packet it is a fragment of, and which piece.
fn read(world: &World, packet: &Packet<'_>) -> Result<(Datagram, Fragment), Malformed> {
    /// What all fragments of IPv6 have in common: later ones need not say what was cut.
    const V6: Proto = Proto(44);
    let v6 = packet.meta.flags.has(PacketFlags::V6);
    let piece = if v6 { ip6::fragment(packet.l3()) } else { ip4::fragment(packet.l3()) }?;
    let FlowKey { src, dst, proto, .. } = flow_key(packet);
    // A workload can send as nobody else, but the network can send as anybody: not into its packets.
    // By several uplinks, fragments of one packet come by any of them.
    let rx = world.snapshot.interfaces.get(packet.meta.rx_if);
    let scope = rx.filter(|rx| rx.role != Role::Uplink).map_or(IfId::NONE, |rx| rx.id);
    let proto = if v6 { V6 } else { proto };
    Ok((Datagram { src, dst, id: piece.id, proto, scope }, piece))
}

/// Makes the packet one of the first one's flow.
fn follow(world: &World, packet: &mut Packet<'_>, first: First) {
    packet.meta.hash = world.flows.hash(&first.key);
    if packet.meta.flags.has(PacketFlags::LATER) {
        packet.set_key(first.key);
        packet.meta.proto = first.key.proto;
        packet.meta.icmp = first.icmp;
    }
    // Whose fragment it is and whose flow are two questions.
    packet.meta.flags.clear(PacketFlags::FRAGMENT);
    packet.meta.flags.clear(PacketFlags::HANDED);
}

fn onward(world: &World, packet: &Packet<'_>) -> FragmentsNext {
    let rx = world.snapshot.interfaces.get(packet.meta.rx_if);
    if rx.is_some_and(|rx| rx.untracked) { FragmentsNext::Untracked } else { FragmentsNext::Conntrack }
}

/// Fragments that wait at most, of a worker. Each takes a frame, whatever its length: half a megabyte.
const CAPACITY: usize = 256;
/// Of all frames, at most one in so many is with fragments that wait.
const SHARE: usize = 8;

/// Fragments that came before the first of their packet, oldest first.
pub struct Early(VecDeque<(PktIdx, Ticket)>);

impl Default for Early {
    fn default() -> Self {
        Self(VecDeque::with_capacity(CAPACITY))
    }
}

/// The sink.
pub struct Wait;

impl Sink<World> for Wait {
    const NAME: &'static str = "early";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        let share = pool.frames().count() as usize / SHARE / world.inboxes.len();
        for mut idx in packets.drain() {
            // The oldest has had the longest time to be followed: it gives way.
            if world.early.0.len() >= CAPACITY.min(share).max(1)
                && let Some((oldest, ticket)) = world.early.0.pop_front()
            {
                world.fragments.give_up(ticket);
                world.drop(pool, oldest, DropReason::FragmentLimit);
            }
            let ticket = Ticket::from_bits(pool.get(&mut idx).meta.reply_hash);
            world.early.0.push_back((idx, ticket));
        }
        world.counters.early.set(world.early.0.len() as u64);
    }
}

impl World {
    /// Takes up to `into`'s room of fragments whose first has come, to go on from [`Fragments`], and
    /// drops those that must not pass. Returns how many were dropped. Called once per poll.
    pub fn release_early(&mut self, pool: &mut Pool, into: &mut Vector) -> usize {
        let mut dropped = 0;
        for _ in 0..self.early.0.len() {
            if into.room() == 0 {
                break;
            }
            let Some((mut idx, ticket)) = self.early.0.pop_front() else { break };
            match self.fragments.ask(ticket, self.now) {
                None => self.early.0.push_back((idx, ticket)),
                Some(Ok(first)) => {
                    follow(self, &mut pool.get(&mut idx), first);
                    into.push(idx);
                }
                Some(Err(reason)) => {
                    self.drop(pool, idx, reason);
                    dropped += 1;
                }
            }
        }
        self.counters.early.set(self.early.0.len() as u64);
        dropped
    }

    /// None waits.
    pub fn no_early(&self) -> bool {
        self.early.0.is_empty()
    }
}
