//! Seals packets that leave by encrypted tunnels, all of a vector at once, whomever they are for.

use super::{World, encap};
use crate::arcs;
use crate::fib::TunnelAdjacency;
use crate::graph::{Next, Node};
use crate::net::PeerId;
use crate::packet::{DropReason, Packet, Pool, VECTOR, Vector};
use crate::snapshot::Snapshot;
use crate::wire::ecn;
use crate::wire::wireguard::TRANSPORT_HEADER;
use crate::wireguard::aead::{self, Batch, Kernel};
use crate::wireguard::{Known, LANES, Session, padded_len, sealed_len};
use arrayvec::ArrayVec;

arcs! {
    /// The ways out of [`WgEncrypt`].
    pub enum WgEncryptNext {
        /// Ready to send.
        Tx = "tx",
        /// There is no session with the node at the other end.
        Hold = "no session",
        /// The tunnel is gone, or the packet is too long for a frame.
        Drop = "drop",
    }
}

/// The node.
pub struct WgEncrypt {
    batch: Batch,
    /// Where the group of a peer's lane is, as far as it is of this vector: by both their numbers.
    places: Box<[Place; PLACES]>,
    vector: u32,
}

/// Twice as many as there are packets in a vector: one is always free.
const PLACES: usize = 2 * VECTOR;

#[derive(Clone, Copy, Default)]
struct Place {
    vector: u32,
    group: u16,
}

/// The packets of a vector for one peer, in one lane.
struct Group<'a> {
    peer: PeerId,
    lane: u8,
    known: &'a Known,
    session: &'a Session,
    packets: u64,
    bytes: u64,
    /// The next one's counter; `None`: there are none left.
    counter: Option<u64>,
}

/// A packet to be sealed.
struct Job<'a> {
    position: usize,
    group: usize,
    tunnel: &'a TunnelAdjacency,
    lane: u8,
    class: u8,
}

impl Default for WgEncrypt {
    fn default() -> Self {
        let places = Box::new([Place::default(); PLACES]);
        Self { batch: Batch::new(Kernel::best()), places, vector: 0 }
    }
}

impl Node<World> for WgEncrypt {
    type Next = WgEncryptNext;
    const NAME: &'static str = "wg-encrypt";

    fn packet(&mut self, _: &mut World, packet: Packet<'_>) -> WgEncryptNext {
        // Packets come to `vector`.
        packet.meta.drop = DropReason::WireguardNoSession;
        WgEncryptNext::Drop
    }

    fn vector(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector, nexts: &mut [u8; VECTOR]) {
        let snapshot = world.snapshot.clone();
        let mut jobs = ArrayVec::<Job<'_>, VECTOR>::new();
        let mut groups = ArrayVec::<Group<'_>, VECTOR>::new();
        self.vector = self.vector.wrapping_add(1);
        for (position, packet) in pool.all(packets).enumerate() {
            let Some(tunnel) = snapshot.fib.tunnel(packet.meta.adjacency) else {
                packet.meta.drop = DropReason::DeviceGone;
                nexts[position] = WgEncryptNext::Drop.index();
                continue;
            };
            // A flow keeps to one lane, and so its order.
            let lane = match tunnel.lanes {
                0 | 1 => 0,
                lanes => (encap::entropy(packet.meta.hash) % u16::from(lanes)) as u8,
            };
            let group = tunnel.peer.and_then(|peer| self.group((peer, lane), &snapshot, world, &mut groups));
            let Some(group) = group else {
                nexts[position] = WgEncryptNext::Hold.index();
                continue;
            };
            groups[group].packets += 1;
            let class = ecn::traffic_class(packet.l3());
            jobs.push(Job { position, group, tunnel, lane, class });
        }
        for group in &mut groups {
            group.counter = group.session.reserve(group.lane, group.packets);
        }
        jobs.retain(|job| {
            let good = groups[job.group].counter.is_some();
            if !good {
                nexts[job.position] = WgEncryptNext::Hold.index();
            }
            good
        });
        self.seal(pool, packets, &mut jobs, &mut groups, nexts);
        for job in &jobs {
            nexts[job.position] = dress(pool.nth(packets, job.position), job).index();
        }
        for group in &groups {
            group.known.traffic.sealed(group.packets, group.bytes);
        }
    }
}

impl WgEncrypt {
    /// The group of a peer's lane, if there is a session with it.
    fn group<'a>(
        &mut self,
        (peer, lane): (PeerId, u8),
        snapshot: &'a Snapshot,
        world: &World,
        groups: &mut ArrayVec<Group<'a>, VECTOR>,
    ) -> Option<usize> {
        let mut at = (peer.0 as usize + LANES * usize::from(lane)) % PLACES;
        while self.places[at].vector == self.vector {
            let group = usize::from(self.places[at].group);
            if (groups[group].peer, groups[group].lane) == (peer, lane) {
                return Some(group);
            }
            at = (at + 1) % PLACES;
        }
        let known = snapshot.keyring.peer(peer)?;
        let session = known.sealing.as_deref().filter(|session| session.in_time(world.now))?;
        self.places[at] = Place { vector: self.vector, group: groups.len() as u16 };
        groups.push(Group { peer, lane, known, session, packets: 0, bytes: 0, counter: None });
        Some(groups.len() - 1)
    }

    /// Makes messages of the packets, in place. Those that have no room for it are dropped.
    fn seal(
        &mut self,
        pool: &mut Pool,
        packets: &mut Vector,
        jobs: &mut ArrayVec<Job<'_>, VECTOR>,
        groups: &mut [Group<'_>],
        nexts: &mut [u8; VECTOR],
    ) {
        let mut texts = ArrayVec::<aead::Packet<'_>, VECTOR>::new();
        let mut all = pool.all(packets).enumerate();
        jobs.retain(|job| {
            let packet = all.find_map(|(position, packet)| (position == job.position).then_some(packet));
            let (Some(mut packet), group) = (packet, &mut groups[job.group]) else { return false };
            let counter = group.counter.unwrap_or_default();
            group.counter = Some(counter + 1);
            let len = packet.l3().len();
            let padded = padded_len(len, job.tunnel.mtu.into());
            let whole = sealed_len(padded);
            // All of it is in the frame, and there is room for the rest.
            if len != packet.l3_len() || !packet.stretch(TRANSPORT_HEADER as u16, whole as u32) {
                packet.meta.drop = DropReason::TxOversized;
                nexts[job.position] = WgEncryptNext::Drop.index();
                return false;
            }
            let at = packet.meta.l3;
            let bytes = packet.into_part(at, whole).unwrap_or_default();
            let Ok(text) = group.session.outgoing(counter, len, padded, bytes) else { return false };
            group.bytes += whole as u64;
            texts.push(text);
            true
        });
        self.batch.seal(&mut texts);
    }
}

/// Puts the outer headers before a message.
fn dress(mut packet: Packet<'_>, job: &Job<'_>) -> WgEncryptNext {
    // Whoever sees the outer header is to learn no more than he must: of congestion, not of what is inside.
    let headers = job.tunnel.outer.complete(packet.l3(), job.class & 3, job.lane.into());
    if !packet.set_link_header(headers.as_slice()) {
        packet.meta.drop = DropReason::TxOversized;
        return WgEncryptNext::Drop;
    }
    packet.meta.tx_if = job.tunnel.underlay;
    WgEncryptNext::Tx
}
