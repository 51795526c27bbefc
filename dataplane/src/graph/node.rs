//! What a node and a sink are, and the loop over a vector.

use crate::packet::{Packet, Pool, VECTOR, Vector};

/// The arcs out of a node. Declared with [`arcs!`](crate::arcs).
pub trait Next: Copy + 'static {
    /// Names, in the order of [`index`](Self::index).
    const ARCS: &'static [&'static str];
    /// The arc's number.
    fn index(self) -> u8;
}

/// Judges packets one at a time. `W` is all that a node may touch.
pub trait Node<W>: Send + 'static {
    /// Its arcs.
    type Next: Next;
    /// Its name in counters, traces and pictures.
    const NAME: &'static str;
    /// It has something to do in [`prepare`](Self::prepare) or [`approach`](Self::approach).
    const LOOKS_AHEAD: bool = false;

    /// Decides where the packet goes.
    fn packet(&mut self, world: &mut W, packet: Packet<'_>) -> Self::Next;

    /// Some packets ahead of [`packet`](Self::packet): touch what the packet's hash leads to. Must
    /// not change the packet's fate.
    #[inline(always)]
    fn prepare(&mut self, _: &mut W, _: Packet<'_>) {}

    /// Half way between [`prepare`](Self::prepare) and [`packet`](Self::packet): touch what was not
    /// where `prepare` looked for it. Must not change the packet's fate.
    #[inline(always)]
    fn approach(&mut self, _: &mut W, _: Packet<'_>) {}

    /// Decides where all of `packets` go: `nexts` becomes the numbers of their arcs. One after the other,
    /// unless a node gains by more at once; then it must come to the same.
    #[inline]
    fn vector(&mut self, world: &mut W, pool: &mut Pool, packets: &mut Vector, nexts: &mut [u8; VECTOR])
    where
        Self: Sized,
    {
        one_by_one(self, world, pool, packets, nexts);
    }
}

/// Ends packets' way through the graph.
pub trait Sink<W>: Send + 'static {
    /// Its name in counters, traces and pictures.
    const NAME: &'static str;

    /// Takes all of `packets`, leaving the vector empty.
    fn take(&mut self, world: &mut W, pool: &mut Pool, packets: &mut Vector);
}

/// What the scheduler sees: one virtual call a vector.
pub(super) trait AnyNode<W>: Send {
    fn run(&mut self, world: &mut W, pool: &mut Pool, packets: &mut Vector, nexts: &mut [u8; VECTOR]);
    fn name(&self) -> &'static str;
    fn arcs(&self) -> &'static [&'static str];
}

/// A node in its loop.
pub(super) struct Judge<N>(pub N);

/// How far `prepare` runs ahead of `packet`, and `approach` half of it: long enough for a line to
/// arrive from memory.
const AHEAD: usize = 16;

/// How far a packet is fetched ahead. Frames are of a power of two, so their first bytes share few
/// lines of the nearest cache (16 of 32 KiB): what is fetched much earlier is pushed out again.
pub const NEAR: usize = 6;

/// The loop over a vector: each packet is fetched ahead, prepared and judged.
#[inline(always)]
pub fn one_by_one<W, N: Node<W>>(
    node: &mut N,
    world: &mut W,
    pool: &mut Pool,
    packets: &mut Vector,
    nexts: &mut [u8; VECTOR],
) {
    let count = packets.len();
    for position in 0..NEAR.min(count) {
        pool.prefetch(packets, position);
        pool.prefetch_meta(packets, position);
    }
    if N::LOOKS_AHEAD {
        for position in 0..AHEAD.min(count) {
            pool.prefetch_meta(packets, position + NEAR);
            node.prepare(world, pool.nth(packets, position));
        }
        for position in 0..(AHEAD / 2).min(count) {
            node.approach(world, pool.nth(packets, position));
        }
    }
    for (position, next) in nexts[..count].iter_mut().enumerate() {
        pool.prefetch(packets, position + NEAR);
        if !N::LOOKS_AHEAD {
            pool.prefetch_meta(packets, position + NEAR);
        } else if position + AHEAD < count {
            pool.prefetch_meta(packets, position + AHEAD + NEAR);
            node.prepare(world, pool.nth(packets, position + AHEAD));
            node.approach(world, pool.nth(packets, position + AHEAD / 2));
        } else if position + AHEAD / 2 < count {
            node.approach(world, pool.nth(packets, position + AHEAD / 2));
        }
        *next = node.packet(world, pool.nth(packets, position)).index();
    }
}

impl<W, N: Node<W>> AnyNode<W> for Judge<N> {
    fn run(&mut self, world: &mut W, pool: &mut Pool, packets: &mut Vector, nexts: &mut [u8; VECTOR]) {
        self.0.vector(world, pool, packets, nexts);
    }

    fn name(&self) -> &'static str {
        N::NAME
    }

    fn arcs(&self) -> &'static [&'static str] {
        N::Next::ARCS
    }
}

/// A sink in the scheduler's eyes.
pub(super) struct End<S>(pub S);

impl<W, S: Sink<W>> AnyNode<W> for End<S> {
    fn run(&mut self, world: &mut W, pool: &mut Pool, packets: &mut Vector, _: &mut [u8; VECTOR]) {
        self.0.take(world, pool, packets);
        debug_assert!(packets.is_empty(), "{} left packets behind", S::NAME);
    }

    fn name(&self) -> &'static str {
        S::NAME
    }

    fn arcs(&self) -> &'static [&'static str] {
        &[]
    }
}
