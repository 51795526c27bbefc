//! Cuts IPv4 packets that are too long for their way out, and do not forbid it.
//!
//! It is the packet that the workload sent that is cut, not the tunnel's that carries it: so it is its
//! receiver that puts the pieces together, and no node on the way has to wait for any. Linux does the
//! same where a tunnel's interface takes less than the packet.

use super::World;
use crate::fib::Fib;
use crate::graph::Sink;
use crate::packet::{DropReason, Meta, PacketFlags, PktIdx, Pool, VECTOR, Vector};
use crate::wire::cut;
use std::collections::VecDeque;

/// The longest packet that has a piece of its own room here: what a frame takes.
const LONGEST: usize = 4096;
/// Pieces at most of one packet, as many as there are of the longest where links take the least.
const MOST: usize = 64;

/// Pieces on their way on, in order.
pub struct Pieces {
    queue: VecDeque<PktIdx>,
    /// The packet that is being cut.
    whole: Box<[u8; LONGEST]>,
}

impl Default for Pieces {
    fn default() -> Self {
        Self { queue: VecDeque::with_capacity(VECTOR * MOST), whole: Box::new([0; LONGEST]) }
    }
}

/// The sink.
pub struct Cut;

impl Sink<World> for Cut {
    const NAME: &'static str = "cut";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        for idx in packets.drain() {
            if let Err((idx, reason)) = cut_up(world, pool, idx) {
                world.drop(pool, idx, reason);
            }
        }
    }
}

/// Leaves the packet's pieces in the queue; the packet becomes the first of them.
fn cut_up(world: &mut World, pool: &mut Pool, mut idx: PktIdx) -> Result<(), (PktIdx, DropReason)> {
    let packet = pool.get(&mut idx);
    let (meta, bytes) = (*packet.meta, packet.l3());
    let len = bytes.len();
    let mtu = world.snapshot.fib.mtu(meta.adjacency);
    let Some(room) = world.pieces.whole.get_mut(..len).filter(|_| len == packet.l3_len()) else {
        return Err((idx, DropReason::TooBig));
    };
    room.copy_from_slice(bytes);
    let whole = &world.pieces.whole[..len];
    let count = mtu.and_then(|mtu| cut::pieces(whole, mtu)).filter(|count| (1..=MOST).contains(count));
    let (Some(mtu), Some(count)) = (mtu, count) else { return Err((idx, DropReason::TooBig)) };
    let begun = world.pieces.queue.len();
    // Their keys are not copied.
    let piece_meta = Meta { flags: meta.flags.without(PacketFlags::KEYED), ..meta };
    for _ in 1..count {
        let Some(mut piece) = pool.alloc() else {
            // A packet in pieces of which one is missing is of no use to anybody.
            for piece in world.pieces.queue.drain(begun..) {
                pool.free(piece);
            }
            return Err((idx, DropReason::NoFrames));
        };
        *pool.get(&mut piece).meta = piece_meta;
        world.pieces.queue.push_back(piece);
    }
    world.pieces.queue.insert(begun, idx);
    for (n, idx) in world.pieces.queue.range_mut(begun..).enumerate() {
        let mut packet = pool.get(idx);
        packet.meta.data = meta.data;
        packet.meta.len = u32::from(meta.l3 - meta.data) + u32::from(mtu);
        let written = cut::write(whole, mtu, n, packet.l3_mut()).unwrap_or(0);
        packet.meta.data = meta.l3;
        packet.meta.len = written as u32;
        if n > 0 {
            world.counters.made();
        }
    }
    Ok(())
}

impl World {
    /// None waits.
    #[inline]
    pub fn no_pieces(&self) -> bool {
        self.pieces.queue.is_empty()
    }

    /// Takes up to a vector of pieces: those for `encap`, and those that are ready for `tx`.
    pub fn release_pieces(&mut self, pool: &mut Pool, encap: &mut Vector, tx: &mut Vector) {
        let fib = self.snapshot.clone();
        for _ in 0..VECTOR {
            let Some(mut idx) = self.pieces.queue.pop_front() else { break };
            let mut packet = pool.get(&mut idx);
            let adjacency = packet.meta.adjacency;
            if adjacency >= Fib::TUNNELS {
                encap.push(idx);
                continue;
            }
            // The snapshot is the one by which it came here.
            let header = fib.fib.adjacency(adjacency).map(|adjacency| adjacency.header);
            match header.is_some_and(|header| packet.set_link_header(header.as_slice())) {
                true => tx.push(idx),
                false => self.drop(pool, idx, DropReason::TxOversized),
            }
        }
    }
}
