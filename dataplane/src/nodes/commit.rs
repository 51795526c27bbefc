//! Remembers what was decided: a new flow's entry, or an old one's new way.

use super::world::{flow_key, segment};
use super::{Event, World, nat, quota};
use crate::arcs;
use crate::conntrack::{Admit, FlowRef, InsertError, NewSession, Observed, State};
use crate::graph::Node;
use crate::net::Nanos;
use crate::packet::{DropReason, Meta, Packet, PacketFlags};

arcs! {
    /// The ways out of [`Commit`].
    pub enum CommitNext {
        /// Remembered.
        Rewrite = "rewrite",
        /// No room.
        Drop = "drop",
    }
}

/// The node.
pub struct Commit;

impl Node<World> for Commit {
    type Next = CommitNext;
    const NAME: &'static str = "commit";
    const LOOKS_AHEAD: bool = true;

    #[inline]
    fn prepare(&mut self, world: &mut World, packet: Packet<'_>) {
        if !packet.meta.flags.has(PacketFlags::HIT) {
            packet.meta.reply_hash = world.flows.hash(&nat::leaving(&packet).reversed());
            world.flows.prefetch_insert(packet.meta.hash, packet.meta.reply_hash);
        }
    }

    #[inline]
    fn packet(&mut self, world: &mut World, packet: Packet<'_>) -> CommitNext {
        if packet.meta.flags.has(PacketFlags::HIT) {
            bind(world, FlowRef(packet.meta.flow), packet.meta);
            return CommitNext::Rewrite;
        }
        let segment = segment(&packet);
        let Admit::New(state) = world.flows.admit(packet.meta.proto, segment) else {
            packet.meta.drop = DropReason::ConntrackInvalid;
            return CommitNext::Drop;
        };
        let session = NewSession {
            key: flow_key(&packet),
            hash: packet.meta.hash,
            reply_key: nat::leaving(&packet).reversed(),
            reply_hash: packet.meta.reply_hash,
            state,
            segment,
            judged: packet.meta.judged,
            way: packet.meta.adjacency,
            bound: world.snapshot.ways,
        };
        match open(world, &packet, session) {
            Ok(flow) => {
                packet.meta.flow = flow.0;
                packet.meta.flags.set(PacketFlags::HIT);
                CommitNext::Rewrite
            }
            Err(reason) => {
                if matches!(reason, DropReason::FlowTableFull | DropReason::NatExhausted) {
                    tell(world, reason);
                }
                packet.meta.drop = reason;
                CommitNext::Drop
            }
        }
    }
}

/// Tells that there is no room for a flow, not with every packet of a flood.
#[cold]
fn tell(world: &mut World, reason: DropReason) {
    const EVERY: Nanos = Nanos::from_secs(60);
    let (now, worker) = (world.now, world.me);
    let (told, event) = match reason {
        DropReason::NatExhausted => (&mut world.told_exhausted, Event::NatExhausted { worker }),
        _ => (&mut world.told_full, Event::TableFull { worker }),
    };
    if told.is_none_or(|told| now.since(told) >= EVERY) {
        *told = Some(now);
        world.tell(event);
    }
}

/// The flow that the packet begins, or that an earlier one of this vector began.
#[inline]
fn open(world: &mut World, packet: &Packet<'_>, session: NewSession) -> Result<FlowRef, DropReason> {
    let Some(owners) = quota::owners(world, packet.meta) else { return make(world, packet, session) };
    // What was begun already is not counted twice.
    if let Some(flow) = begun(world, packet, &session)? {
        return Ok(flow);
    }
    quota::charge(world, owners)?;
    let made = make(world, packet, session);
    match made {
        Ok(flow) => world.flows.set_owners(flow, owners),
        Err(_) => quota::give_back(world, owners),
    }
    made
}

/// Makes the flow's session, translated where it has to be.
#[inline]
fn make(world: &mut World, packet: &Packet<'_>, session: NewSession) -> Result<FlowRef, DropReason> {
    let source = match nat::source(world, packet)? {
        Some(source) => source,
        None => match world.flows.insert(session, world.now) {
            Ok(flow) => return Ok(flow),
            Err(InsertError::Full) => return Err(DropReason::FlowTableFull),
            // Another flow's replies come with the key that this one's would: it gets a port of its own.
            Err(InsertError::Taken(_) | InsertError::TakenElsewhere) => session.reply_key.dst,
        },
    };
    match begun(world, packet, &session)? {
        Some(flow) => Ok(flow),
        None => nat::open(world, packet, source, session),
    }
}

/// The live flow that an earlier packet began, moved on by this one.
fn begun(
    world: &mut World,
    packet: &Packet<'_>,
    session: &NewSession,
) -> Result<Option<FlowRef>, DropReason> {
    let Some(flow) = world.flows.lookup(&session.key, session.hash, world.now) else { return Ok(None) };
    if world.flows.state(flow).is_none_or(State::is_closed) {
        return Ok(None);
    }
    match world.flows.observe(flow, session.segment, world.now) {
        Observed::Ok => {}
        Observed::OutOfWindow => return Err(DropReason::TcpOutOfWindow),
        Observed::WrongTag => return Err(DropReason::SctpWrongTag),
        Observed::Invalid | Observed::Reopen => return Err(DropReason::ConntrackInvalid),
    }
    bind(world, flow, packet.meta);
    Ok(Some(flow))
}

/// Gives a live flow its way. A packet that policy was not asked about leaves the verdict's
/// generation as it is: that is still whose verdict it lives by.
#[inline]
fn bind(world: &mut World, flow: FlowRef, packet: &Meta) {
    world.flows.bind(flow, world.snapshot.ways, packet.adjacency);
    if packet.judged == world.snapshot.generation {
        world.flows.set_judged(flow, packet.judged);
    }
}
