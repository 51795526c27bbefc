//! Opens packets that came by encrypted tunnels, all of a vector at once, and hands handshakes to the control thread.
//!
//! Packets are taken from anywhere: a peer that moves is heard where it is. What counts is the tag, that a packet comes once,
//! and that the address inside is one that we would route to the same peer.

use super::{Datagram, Event, World, decap};
use crate::arcs;
use crate::fib::NearEnd;
use crate::graph::{Next, Node};
use crate::net::{Addr, WorkerId};
use crate::packet::{DropReason, Packet, PacketFlags, Pool, VECTOR, Vector};
use crate::snapshot::Snapshot;
use crate::wire::wireguard::{MAC, TRANSPORT_HEADER};
use crate::wire::{ecn, ends, ip4, ip6, read, read_u16};
use crate::wireguard::aead::{self, Batch, Kernel};
use crate::wireguard::{Endpoint, Lane, Opening};
use arrayvec::ArrayVec;

arcs! {
    /// The ways out of [`WgDecrypt`].
    pub enum WgDecryptNext {
        /// What was inside.
        Parse = "inner",
        /// Of a session, or a lane of one, that another worker owns.
        Handoff = "foreign",
        /// A message of a handshake, or an empty packet: a sign of life.
        Punt = "punt",
        /// Not to be believed.
        Drop = "drop",
    }
}

const UDP: usize = 8;

/// The node.
pub struct WgDecrypt {
    batch: Batch,
    genuine: Box<[bool; VECTOR]>,
}

/// A packet to be opened.
struct Job<'a> {
    position: usize,
    opening: &'a Opening,
    lane: &'a Lane,
    /// In the lane.
    place: u64,
    near: &'a NearEnd,
    counter: u64,
    from: Endpoint,
    class: u8,
    /// Where the text begins in the frame, and how long it is without its tag.
    at: u16,
    len: usize,
}

/// What was opened of one session, one packet after the other.
#[derive(Default)]
struct Run<'a> {
    opening: Option<&'a Opening>,
    packets: u64,
    data: u64,
    bytes: u64,
}

impl Default for WgDecrypt {
    fn default() -> Self {
        Self { batch: Batch::new(Kernel::best()), genuine: Box::new([false; VECTOR]) }
    }
}

impl Node<World> for WgDecrypt {
    type Next = WgDecryptNext;
    const NAME: &'static str = "wg-decrypt";

    fn packet(&mut self, _: &mut World, packet: Packet<'_>) -> WgDecryptNext {
        // Packets come to `vector`.
        packet.meta.drop = DropReason::WireguardUnknownSession;
        WgDecryptNext::Drop
    }

    fn vector(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector, nexts: &mut [u8; VECTOR]) {
        let snapshot = world.snapshot.clone();
        let mut jobs = ArrayVec::<Job<'_>, VECTOR>::new();
        for (position, mut packet) in pool.all(packets).enumerate() {
            let next = match look(world, &snapshot, position, &mut packet) {
                Ok(job) => {
                    jobs.push(job);
                    continue;
                }
                Err(next) => next,
            };
            nexts[position] = next.index();
        }
        self.open(pool, packets, &jobs);
        let mut run = Run::default();
        for (job, genuine) in jobs.iter().zip(&*self.genuine) {
            let mut packet = pool.nth(packets, job.position);
            let next = take(world, &snapshot, &mut packet, job, *genuine, &mut run);
            nexts[job.position] = next.unwrap_or_else(|reason| refuse(&mut packet, reason)).index();
        }
        run.end(&snapshot);
    }
}

impl WgDecrypt {
    /// Decrypts what is genuine, in place.
    fn open(&mut self, pool: &mut Pool, packets: &mut Vector, jobs: &[Job<'_>]) {
        let mut texts = ArrayVec::<aead::Packet<'_>, VECTOR>::new();
        let mut all = pool.all(packets).enumerate();
        for job in jobs {
            let packet = all.find_map(|(position, packet)| (position == job.position).then_some(packet));
            let part = packet.and_then(|packet| packet.into_part(job.at, job.len + MAC));
            let text = job.opening.session.incoming(job.counter, part.unwrap_or_default());
            texts.push(text.expect("a job's packet is in its frame with its tag"));
        }
        self.batch.open(&mut texts, &mut self.genuine[..jobs.len()]);
    }
}

/// The worker that owns the lane of a packet for this node's tunnels.
pub(super) fn owner(world: &World, packet: &Packet<'_>) -> Option<WorkerId> {
    let datagram = packet.l4().get(UDP..)?;
    let v6 = packet.meta.flags.has(PacketFlags::V6);
    let opening = world.snapshot.keyring.opening(v6, u32::from_le_bytes(read(datagram, 4).ok()?))?;
    let (lane, _) = opening.lane(u64::from_le_bytes(read(datagram, 8).ok()?))?;
    Some(lane.owner(world.me))
}

fn refuse(packet: &mut Packet<'_>, reason: DropReason) -> WgDecryptNext {
    packet.meta.drop = reason;
    WgDecryptNext::Drop
}

/// Sorts a packet out: what is to be opened here, and where the others go.
fn look<'a>(
    world: &World,
    snapshot: &'a Snapshot,
    position: usize,
    packet: &mut Packet<'_>,
) -> Result<Job<'a>, WgDecryptNext> {
    if packet.meta.flags.has(PacketFlags::FRAGMENT) {
        return Err(refuse(packet, DropReason::TunnelFragment));
    }
    let v6 = packet.meta.flags.has(PacketFlags::V6);
    let (src, to) = ends(packet.l3(), v6);
    let udp = packet.l4();
    let [sport, dport, len] = [0, 2, 4].map(|at| read_u16(udp, at).unwrap_or_default());
    let (near, datagram) = (snapshot.overlay.arrived(to, packet.meta.proto, dport), udp.get(UDP..len.into()));
    let (Some((_, near)), Some(datagram)) = (near, datagram) else {
        return Err(refuse(packet, DropReason::BadTunnel));
    };
    let from = (src, sport);
    if datagram.first() != Some(&4) {
        let Some(message) = Datagram::new(v6, from, datagram) else {
            return Err(refuse(packet, DropReason::BadTunnel));
        };
        return Err(match world.handshakes.push(message) {
            Ok(()) => WgDecryptNext::Punt,
            Err(_) => refuse(packet, DropReason::WireguardOverload),
        });
    }
    let header = (read::<4>(datagram, 0), read(datagram, 4), read(datagram, 8));
    let (Ok([4, 0, 0, 0]), Ok(local), Ok(counter), true) =
        (header.0, header.1, header.2, datagram.len() >= TRANSPORT_HEADER + MAC)
    else {
        return Err(refuse(packet, DropReason::BadTunnel));
    };
    let opening = snapshot.keyring.opening(v6, u32::from_le_bytes(local));
    let Some(opening) = opening.filter(|opening| opening.session.in_time(world.now)) else {
        return Err(refuse(packet, DropReason::WireguardUnknownSession));
    };
    let len = datagram.len() - TRANSPORT_HEADER - MAC;
    let counter = u64::from_le_bytes(counter);
    let Some((lane, place)) = opening.lane(counter) else {
        return Err(refuse(packet, DropReason::WireguardReplayed));
    };
    if lane.owner(world.me) != world.me {
        packet.meta.flags.set(PacketFlags::SEALED);
        return Err(WgDecryptNext::Handoff);
    }
    let at = packet.meta.l4 + (UDP + TRANSPORT_HEADER) as u16;
    let class = ecn::traffic_class(packet.l3());
    Ok(Job { position, opening, lane, place, near, counter, from, class, at, len })
}

/// Leaves the packet that was inside, if it is genuine and may come from this peer.
fn take<'a>(
    world: &World,
    snapshot: &Snapshot,
    packet: &mut Packet<'_>,
    job: &Job<'a>,
    genuine: bool,
    run: &mut Run<'a>,
) -> Result<WgDecryptNext, DropReason> {
    if !genuine {
        return Err(DropReason::WireguardForged);
    }
    let opening = job.opening;
    if !job.lane.accept(job.place) {
        return Err(DropReason::WireguardReplayed);
    }
    if run.count(opening, job.len) {
        std::mem::replace(run, Run { opening: Some(opening), ..Run::default() }).end(snapshot);
        run.count(opening, job.len);
    }
    let known = snapshot.keyring.peer(opening.peer);
    // Where a peer is, its first lane says: the others' source ports are none that it listens at.
    let says_where = job.place == job.counter;
    if says_where && known.is_some_and(|known| known.endpoint != Some(job.from)) {
        let v6 = packet.meta.flags.has(PacketFlags::V6);
        world.tell(Event::PeerMoved { v6, session: opening.session.local(), from: job.from });
    }
    if job.len == 0 {
        return Ok(WgDecryptNext::Punt);
    }
    packet.meta.l3 = job.at;
    packet.meta.len = u32::from(job.at - packet.meta.data) + job.len as u32;
    let src = source(packet.l3()).ok_or(DropReason::BadTunnel)?;
    if snapshot.fib.peer(src) != Some(opening.peer) {
        return Err(DropReason::WireguardSource);
    }
    decap::enter_ip(packet, job.near);
    decap::emerge(world, packet, job.near, job.class)?;
    Ok(WgDecryptNext::Parse)
}

/// The sender of the IP packet that begins here.
fn source(inner: &[u8]) -> Option<Addr> {
    match inner.first()? >> 4 {
        4 => inner.get(..ip4::HEADER_LEN).and_then(|inner| read(inner, 12).ok()).map(Addr::v4),
        6 => inner.get(..ip6::HEADER_LEN).and_then(|inner| read(inner, 8).ok()).map(Addr::v6),
        _ => None,
    }
}

impl<'a> Run<'a> {
    /// Counts a packet, unless it is of another session: then `true`.
    fn count(&mut self, opening: &'a Opening, len: usize) -> bool {
        if self.opening.is_none_or(|of| !std::ptr::eq(of, opening)) {
            return true;
        }
        self.packets += 1;
        self.data += u64::from(len > 0);
        self.bytes += (TRANSPORT_HEADER + len + MAC) as u64;
        false
    }

    fn end(self, snapshot: &Snapshot) {
        let Some(opening) = self.opening else { return };
        opening.received(self.packets, self.data);
        if let Some(known) = snapshot.keyring.peer(opening.peer) {
            known.traffic.exchanged(self.bytes, 0);
        }
    }
}
