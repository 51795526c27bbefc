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

    /// Decides where the packet goes.
    fn packet(&mut self, world: &mut W, packet: Packet<'_>) -> Self::Next;

    /// Some packets ahead of [`packet`](Self::packet): hash the key, touch the table. Must not
    /// change the packet's fate.
    #[inline(always)]
    fn prepare(&mut self, _: &mut W, _: Packet<'_>) {}

    /// Half way between [`prepare`](Self::prepare) and [`packet`](Self::packet): touch what the
    /// table leads to. Must not change the packet's fate.
    #[inline(always)]
    fn approach(&mut self, _: &mut W, _: Packet<'_>) {}
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

/// How far `approach` runs ahead of `packet`, `prepare` ahead of `approach`, and the prefetch ahead
/// of `prepare`: long enough for a line to arrive from memory, short enough for it to be still there.
const AHEAD: usize = 8;

impl<W, N: Node<W>> AnyNode<W> for Judge<N> {
    fn run(&mut self, world: &mut W, pool: &mut Pool, packets: &mut Vector, nexts: &mut [u8; VECTOR]) {
        let count = packets.len();
        for position in 0..count.min(3 * AHEAD) {
            pool.prefetch(packets, position);
        }
        for position in 0..count.min(2 * AHEAD) {
            self.0.prepare(world, pool.nth(packets, position));
        }
        for position in 0..count.min(AHEAD) {
            self.0.approach(world, pool.nth(packets, position));
        }
        for (position, next) in nexts.iter_mut().enumerate().take(count) {
            pool.prefetch(packets, position + 3 * AHEAD);
            if position + 2 * AHEAD < count {
                self.0.prepare(world, pool.nth(packets, position + 2 * AHEAD));
            }
            if position + AHEAD < count {
                self.0.approach(world, pool.nth(packets, position + AHEAD));
            }
            *next = self.0.packet(world, pool.nth(packets, position)).index();
        }
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
