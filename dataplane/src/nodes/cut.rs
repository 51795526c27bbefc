//! Cuts IPv4 packets that are too long for their way out, and do not forbid it; and super-frames into their
//! segments, where the way out does not take them whole.
//!
//! It is the packet that the workload sent that is cut, not the tunnel's that carries it: so it is its
//! receiver that puts the pieces together, and no node on the way has to wait for any. Linux does the
//! same where a tunnel's interface takes less than the packet. Segments, too, are made before a tunnel's headers
//! are put on. A super-frame gives up a vector of segments at a time, so that it never takes more frames than that.

use super::World;
use crate::fib::Fib;
use crate::graph::Sink;
use crate::packet::{DropReason, Gso, HEADROOM, LONGEST, Meta, PacketFlags, PktIdx, Pool, VECTOR, Vector};
use crate::wire::cut;
use std::collections::VecDeque;
use std::ops::Range;

/// Pieces of one packet at most: what 64 KiB come to over links that take 1,100 bytes.
const MOST: usize = 64;

/// Pieces on their way on, in order.
pub struct Pieces {
    queue: VecDeque<PktIdx>,
    /// Super-frames that are being cut, each with the numbers of the segments that it still has to give.
    supers: VecDeque<(PktIdx, Range<u32>)>,
    /// The packet that is being cut.
    whole: Box<[u8; LONGEST]>,
}

impl Default for Pieces {
    fn default() -> Self {
        Self {
            queue: VecDeque::with_capacity(VECTOR * MOST),
            supers: VecDeque::with_capacity(VECTOR),
            whole: Box::new([0; LONGEST]),
        }
    }
}

/// The sink.
pub struct Cut;

impl Sink<World> for Cut {
    const NAME: &'static str = "cut";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        for mut idx in packets.drain() {
            let packet = pool.get(&mut idx);
            if packet.meta.gso == Gso::None {
                if let Err((idx, reason)) = cut_up(world, pool, idx) {
                    world.drop(pool, idx, reason);
                }
                continue;
            }
            match packet.as_super().map(|whole| whole.count()) {
                Some(count) => world.pieces.supers.push_back((idx, 0..count as u32)),
                None => world.drop(pool, idx, DropReason::BadL4Header),
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
    // A packet in pieces of which one is missing is of no use to anybody.
    let give_up = |world: &mut World, pool: &mut Pool| {
        for piece in world.pieces.queue.drain(begun..) {
            pool.free(piece);
        }
    };
    // Their keys are not copied.
    let piece_meta = Meta { flags: meta.flags.without(PacketFlags::KEYED), ..meta };
    for _ in 1..count {
        let Some(mut piece) = pool.alloc() else {
            give_up(world, pool);
            return Err((idx, DropReason::NoFrames));
        };
        *pool.get(&mut piece).meta = piece_meta;
        world.pieces.queue.push_back(piece);
    }
    let mut written = true;
    for (n, idx) in std::iter::once(&mut idx).chain(world.pieces.queue.range_mut(begun..)).enumerate() {
        let mut packet = pool.get(idx);
        (packet.meta.data, packet.meta.len) = (meta.l3, mtu.into());
        let len = cut::write(whole, mtu, n, packet.l3_mut());
        written &= len.is_some();
        packet.meta.len = len.unwrap_or(0) as u32;
    }
    if !written {
        // Longer than a frame.
        give_up(world, pool);
        return Err((idx, DropReason::TxOversized));
    }
    (1..count).for_each(|_| world.counters.made());
    world.pieces.queue.insert(begun, idx);
    Ok(())
}

impl World {
    /// None waits.
    #[inline]
    pub fn no_pieces(&self) -> bool {
        self.pieces.queue.is_empty() && self.pieces.supers.is_empty()
    }

    /// Takes up to a vector of pieces: those for `encap`, and those that are ready for `tx`.
    pub fn release_pieces(&mut self, pool: &mut Pool, encap: &mut Vector, tx: &mut Vector) {
        self.make_segments(pool);
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

    /// Cuts segments off super-frames until there is a vector of pieces.
    fn make_segments(&mut self, pool: &mut Pool) {
        while self.pieces.queue.len() < VECTOR
            && let Some((mut whole, mut left)) = self.pieces.supers.pop_front()
        {
            let Some(n) = left.next() else {
                pool.free(whole);
                continue;
            };
            match segment(pool, &mut whole, n) {
                Ok(mut piece) => {
                    self.pieces.supers.push_front((whole, left));
                    let packet = pool.get(&mut piece);
                    let mtu = self.snapshot.fib.mtu(packet.meta.adjacency);
                    if mtu.is_none_or(|mtu| packet.l3_len() <= usize::from(mtu)) {
                        self.pieces.queue.push_back(piece);
                    } else if let Err((piece, reason)) = cut_up(self, pool, piece) {
                        self.drop(pool, piece, reason);
                    }
                }
                Err(reason) => self.drop_rest(pool, whole, n, reason),
            }
        }
    }

    /// Drops the segments of a super-frame that were not made.
    fn drop_rest(&mut self, pool: &mut Pool, mut whole: PktIdx, made: u32, reason: DropReason) {
        let left = pool.get(&mut whole).count().saturating_sub(made.into());
        // The last of them by itself, so that it is seen.
        self.counters.dropped(reason).add(left.saturating_sub(1));
        let meta = pool.get(&mut whole).meta;
        (meta.gso, meta.gso_size) = (Gso::None, 0);
        self.drop(pool, whole, reason);
    }
}

/// Segment `n` of a super-frame, in a frame of its own.
fn segment(pool: &mut Pool, whole: &mut PktIdx, n: u32) -> Result<PktIdx, DropReason> {
    let mut idx = pool.alloc().ok_or(DropReason::NoFrames)?;
    let (of, mut piece) = pool.pair(whole, &mut idx);
    *piece.meta = Meta {
        data: HEADROOM as u16,
        l3: HEADROOM as u16,
        l4: HEADROOM as u16 + (of.meta.l4 - of.meta.l3),
        gso: Gso::None,
        gso_size: 0,
        // Their keys are not copied.
        flags: of.meta.flags.without(PacketFlags::KEYED),
        ..*of.meta
    };
    let Some(len) = of.as_super().and_then(|cut| cut.write(n as usize, piece.room_mut())) else {
        pool.free(idx);
        // Longer than a frame.
        return Err(DropReason::TxOversized);
    };
    piece.meta.len = len as u32;
    Ok(idx)
}
