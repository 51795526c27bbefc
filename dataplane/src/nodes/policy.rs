//! Whether a packet may go: the source's egress policy and the destination's ingress policy.

use super::host::{self, Denial};
use super::{World, nat, staged, world::flow_key};
use crate::arcs;
use crate::conntrack::{Direction as FlowDirection, FlowRef};
use crate::fib::{Hop, Interface, Role, Scope};
use crate::graph::{NEAR, Next, Node, one_by_one};
use crate::net::{FlowKey, Icmp, IfId, Proto};
use crate::packet::{DropReason, Packet, PacketFlags, Pool, VECTOR, Vector};
use crate::policy::{Direction, EndpointIdx, Query, Room, Verdict};
use crate::snapshot::Protection;
use std::ops::Range;

arcs! {
    /// The ways out of [`Policy`].
    pub enum PolicyNext {
        /// Allowed.
        Commit = "commit",
        /// Allowed, and not to be remembered.
        Rewrite = "untracked",
        /// Denied.
        Drop = "drop",
    }
}

/// The node.
#[derive(Default)]
pub struct Policy {
    /// Where a vector is judged together.
    together: Box<Together>,
}

/// Packets for one list from which on they are judged together: fewer walk faster one by one.
const FEW: usize = 4;
/// Lists by number, so many to a row.
const ROWS: usize = 64;

impl Node<World> for Policy {
    type Next = PolicyNext;
    const NAME: &'static str = "policy";

    #[inline]
    fn packet(&mut self, world: &mut World, mut packet: Packet<'_>) -> PolicyNext {
        let asked = Asked::about(world, &packet);
        let untracked = packet.meta.flags.has(PacketFlags::UNTRACKED);
        let denial = judge(world, asked.source, asked.destination, untracked, &asked.came, &asked.query);
        conclude(world, &mut packet, denial)
    }

    /// Packets for the same list of workloads walk its trees in turns. Lists of host endpoints, of which a flow
    /// meets few and these short, are asked about one packet after the other, before and after those.
    fn vector(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector, nexts: &mut [u8; VECTOR]) {
        if packets.len() < FEW {
            return one_by_one(self, world, pool, packets, nexts);
        }
        let together = &mut *self.together;
        together.ask(world, pool, packets);
        together.judge(world, Direction::Egress, packets.len());
        together.judge(world, Direction::Ingress, packets.len());
        if let Some(protection) = &world.snapshot.protection {
            together.leave(world, protection, pool, packets);
        }
        for (position, next) in nexts[..packets.len()].iter_mut().enumerate() {
            let mut packet = pool.nth(packets, position);
            *next = conclude(world, &mut packet, together.denied[position]).index();
        }
    }
}

/// What policy is asked about a packet.
struct Asked {
    /// Its key before its destination was translated.
    came: FlowKey,
    /// The destination it goes to, and the source it came from.
    query: Query,
    source: IfId,
    destination: IfId,
}

impl Asked {
    #[inline(always)]
    fn about(world: &World, packet: &Packet<'_>) -> Self {
        let mut query = Query { key: flow_key(packet), icmp: packet.meta.icmp };
        let (mut source, mut destination) = (packet.meta.rx_if, packet.meta.tx_if);
        let flow = packet.meta.flags.has(PacketFlags::HIT).then_some(FlowRef(packet.meta.flow));
        // A live flow is judged as it began, whichever way this packet goes.
        let translated = match flow {
            None => nat::leaving(packet),
            Some(flow) if flow.direction() == FlowDirection::Reply => {
                let answered = query.key.reversed();
                query.key = world.flows.key(flow.opposite());
                query.icmp = request_of(query.key.proto, query.icmp);
                (source, destination) = (destination, source);
                answered
            }
            Some(flow) => world.flows.translated(flow).unwrap_or(query.key),
        };
        let came = query.key;
        query.key = FlowKey { dst: translated.dst, dport: translated.dport, ..came };
        Self { came, query, source, destination }
    }

    fn hosts<'a>(&'a self, world: &'a World, protection: &'a Protection) -> host::Judge<'a> {
        host::Judge { world, protection, came: &self.came, query: &self.query }
    }
}

/// Where a packet goes that policy has judged.
#[inline(always)]
fn conclude(world: &World, packet: &mut Packet<'_>, denial: Option<Denial>) -> PolicyNext {
    packet.meta.judged = world.snapshot.generation;
    let Some(denial) = denial else {
        let untracked = packet.meta.flags.has(PacketFlags::UNTRACKED);
        return if untracked { PolicyNext::Rewrite } else { PolicyNext::Commit };
    };
    packet.meta.drop = denial.reason;
    packet.meta.slot = denial.slot;
    // The entry stays, under its old generation: every packet of the flow is judged again, so
    // the flow lives on should policy allow it once more.
    if denial.direction == Direction::Ingress {
        packet.meta.flags.set(PacketFlags::INGRESS);
    }
    packet.meta.endpoint = denial.endpoint;
    PolicyNext::Drop
}

/// Packets of a vector that are judged together, by position: first each by its source's policy, then
/// what that allows by its destination's.
struct Together {
    queries: [Query; VECTOR],
    /// Egress and ingress, of whose workload.
    lists: [[Option<u32>; 2]; VECTOR],
    denied: [Option<Denial>; VECTOR],
    /// Host endpoints have a say.
    hosts: [bool; VECTOR],
    /// Positions, those for one list next to each other.
    order: [u8; VECTOR],
    /// For one list.
    gathered: [Query; VECTOR],
    verdicts: [Verdict; VECTOR],
    room: Room,
}

impl Default for Together {
    fn default() -> Self {
        let nothing = Query { key: FlowKey::default(), icmp: Icmp::default() };
        Self {
            queries: [nothing; VECTOR],
            lists: [[None; 2]; VECTOR],
            denied: [None; VECTOR],
            hosts: [false; VECTOR],
            order: [0; VECTOR],
            gathered: [nothing; VECTOR],
            verdicts: [Verdict { allow: false, slot: Verdict::NO_ENDPOINT }; VECTOR],
            room: Room::default(),
        }
    }
}

impl Together {
    /// Notes what is asked about each packet, and whom.
    fn ask(&mut self, world: &World, pool: &mut Pool, packets: &mut Vector) {
        let interfaces = &world.snapshot.interfaces;
        for position in 0..NEAR.min(packets.len()) {
            pool.prefetch(packets, position);
            pool.prefetch_meta(packets, position);
        }
        for position in 0..packets.len() {
            pool.prefetch(packets, position + NEAR);
            pool.prefetch_meta(packets, position + NEAR);
            let packet = pool.nth(packets, position);
            let asked = Asked::about(world, &packet);
            self.queries[position] = asked.query;
            self.hosts[position] = false;
            (self.lists[position], self.denied[position]) =
                match (interfaces.get(asked.source), interfaces.get(asked.destination)) {
                    (Some(from), Some(to)) => {
                        let mut denied = None;
                        if let Some(protection) = &world.snapshot.protection {
                            self.hosts[position] = host::has_a_say(from, to);
                            let untracked = packet.meta.flags.has(PacketFlags::UNTRACKED);
                            denied = asked.hosts(world, protection).before(from, to, untracked);
                        }
                        (lists(world, from, to, &asked.query), denied)
                    }
                    _ => ([None; 2], Some(GONE)),
                };
        }
    }

    /// Asks host endpoints about what workloads' policy lets go.
    fn leave(&mut self, world: &World, protection: &Protection, pool: &mut Pool, packets: &mut Vector) {
        let interfaces = &world.snapshot.interfaces;
        for position in 0..packets.len() {
            if !self.hosts[position] || self.denied[position].is_some() {
                continue;
            }
            let packet = pool.nth(packets, position);
            let asked = Asked::about(world, &packet);
            if let (Some(from), Some(to)) = (interfaces.get(asked.source), interfaces.get(asked.destination))
            {
                let untracked = packet.meta.flags.has(PacketFlags::UNTRACKED);
                self.denied[position] = asked.hosts(world, protection).after(from, to, untracked);
            }
        }
    }

    /// Asks the lists of one direction about what is not denied yet.
    fn judge(&mut self, world: &World, direction: Direction, count: usize) {
        let side = usize::from(direction == Direction::Ingress);
        let list = |together: &Self, position: usize| match together.denied[position] {
            None => together.lists[position][side],
            Some(_) => None,
        };
        let mut ends = [0u16; ROWS + 1];
        for position in 0..count {
            if let Some(list) = list(self, position) {
                ends[list as usize % ROWS + 1] += 1;
            }
        }
        (0..ROWS).for_each(|row| ends[row + 1] += ends[row]);
        let total = usize::from(ends[ROWS]);
        for position in 0..count {
            if let Some(list) = list(self, position) {
                let at = &mut ends[list as usize % ROWS];
                self.order[usize::from(*at) % VECTOR] = position as u8;
                *at += 1;
            }
        }
        let mut first = 0;
        while first < total {
            let of = |at: usize| self.lists[usize::from(self.order[at])][side];
            let Some(list) = of(first) else { return };
            let end = (first + 1..total).find(|at| of(*at) != Some(list)).unwrap_or(total);
            self.ask_list(world, direction, EndpointIdx(list), first..end, count);
            first = end;
        }
    }

    /// Asks one list about the packets at these places of the order, of `count` in the vector.
    fn ask_list(
        &mut self,
        world: &World,
        direction: Direction,
        list: EndpointIdx,
        places: Range<usize>,
        count: usize,
    ) {
        let Self { queries, denied, order, gathered, verdicts, room, .. } = self;
        let (positions, policy) = (&order[places], &world.snapshot.policy);
        let verdicts = &mut verdicts[..positions.len()];
        if positions.len() < FEW {
            for (position, verdict) in positions.iter().zip(&mut *verdicts) {
                *verdict = policy.judge(list, direction, &queries[usize::from(*position)]);
            }
        } else if positions.len() == count {
            // All there are, in order.
            policy.judge_batch(list, direction, &queries[..count], verdicts, room);
        } else {
            let gathered = &mut gathered[..positions.len()];
            for (position, query) in positions.iter().zip(&mut *gathered) {
                *query = queries[usize::from(*position)];
            }
            policy.judge_batch(list, direction, gathered, verdicts, room);
        }
        for (position, verdict) in positions.iter().zip(verdicts) {
            let position = usize::from(*position);
            denied[position] = settle(world, list, direction, &queries[position], *verdict);
        }
    }
}

const _: () = assert!(VECTOR <= 1 << u8::BITS, "positions are bytes");

/// Who judges what goes from one workload to another: `None` where there is none. The host is free to
/// speak to its own workloads.
#[inline(always)]
fn lists(world: &World, from: &Interface, to: &Interface, query: &Query) -> [Option<u32>; 2] {
    let list = |interface: &Interface| interface.workload().map(|workload| workload.endpoint);
    let ingress = list(to).filter(|_| !from_host(world, from, query));
    [list(from), ingress]
}

/// An interface is not there any more.
const GONE: Denial =
    Denial { reason: DropReason::DeviceGone, endpoint: 0, direction: Direction::Egress, slot: 0 };

/// Who denies a packet between two interfaces, if anyone does. `came`: its key before its
/// destination was translated.
#[inline]
fn judge(
    world: &World,
    source: IfId,
    destination: IfId,
    untracked: bool,
    came: &FlowKey,
    query: &Query,
) -> Option<Denial> {
    let snapshot = &*world.snapshot;
    let (Some(from), Some(to)) = (snapshot.interfaces.get(source), snapshot.interfaces.get(destination))
    else {
        return Some(GONE);
    };
    if let Some(protection) = &snapshot.protection {
        return host::denial(world, protection, (from, to), untracked, came, query);
    }
    workloads(world, from, to, query)
}

/// The policy of the workloads at both ends. The host is free to speak to its own workloads.
#[inline]
pub(super) fn workloads(world: &World, from: &Interface, to: &Interface, query: &Query) -> Option<Denial> {
    let denied = workload(world, from, Direction::Egress, query);
    denied.or_else(|| match from_host(world, from, query) {
        true => None,
        false => workload(world, to, Direction::Ingress, query),
    })
}

/// The host itself sent it. What the kernel merely routes comes over the host port, too.
#[inline]
pub(super) fn from_host(world: &World, from: &Interface, query: &Query) -> bool {
    match from.role {
        Role::Uplink | Role::Tunnel(_) | Role::Workload(_) => false,
        Role::Stack => true,
        Role::Host => {
            let fib = &world.snapshot.fib;
            match fib.lookup(query.key.src, Scope::Host, 0) {
                Hop::Local => true,
                Hop::Adjacency(index) => fib.leaves_by(index) == Some(from.id),
                Hop::Unresolved { .. }
                | Hop::Blackhole
                | Hop::Unreachable
                | Hop::Prohibited
                | Hop::NoRoute => false,
            }
        }
    }
}

/// The deciding rule, when the workload behind `interface` denies; `None` where it allows or
/// where there is no workload.
#[inline]
fn workload(world: &World, interface: &Interface, direction: Direction, query: &Query) -> Option<Denial> {
    let endpoint = interface.workload()?.endpoint;
    let list = EndpointIdx(endpoint);
    let verdict = world.snapshot.policy.judge(list, direction, query);
    settle(world, list, direction, query, verdict)
}

/// Counts a verdict and compares it with that of staged policy: a denial, if it is one.
#[inline(always)]
fn settle(
    world: &World,
    list: EndpointIdx,
    direction: Direction,
    query: &Query,
    verdict: Verdict,
) -> Option<Denial> {
    world.snapshot.policy.count(world.me, list, direction, verdict);
    staged::compare(world, list, direction, query, verdict);
    let reason = DropReason::PolicyDenied;
    (!verdict.allow).then_some(Denial { reason, endpoint: list.0, direction, slot: verdict.slot })
}

/// The request that an echo reply answers.
const fn request_of(proto: Proto, icmp: Icmp) -> Icmp {
    match (proto, icmp.kind) {
        (Proto::ICMP, 0) => Icmp { kind: 8, code: 0 },
        (Proto::ICMP6, 129) => Icmp { kind: 128, code: 0 },
        _ => icmp,
    }
}
