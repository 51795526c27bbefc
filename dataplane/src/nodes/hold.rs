//! Packets that wait for their next hop to answer.

use super::{Event, World, route::way};
use crate::fib::Hop;
use crate::graph::Sink;
use crate::net::{Addr, IfId, Nanos};
use crate::packet::{DropReason, PktIdx, Pool, Vector};
use std::collections::VecDeque;

/// Packets held at most by a worker: a few for each of many neighbours.
const CAPACITY: usize = 256;
/// Packets held for one neighbour at most.
const PER_NEIGHBOUR: usize = 16;
/// How long a packet waits: three questions, one second apart.
const PATIENCE: Nanos = Nanos::from_secs(3);

/// The packets, oldest first.
pub struct Held(VecDeque<Waiting>);

struct Waiting {
    idx: PktIdx,
    since: Nanos,
    link: IfId,
    next_hop: Addr,
}

impl Default for Held {
    fn default() -> Self {
        Self(VecDeque::with_capacity(CAPACITY))
    }
}

impl Held {
    /// Packets held.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The sink.
pub struct Hold;

impl Sink<World> for Hold {
    const NAME: &'static str = "hold";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        for mut idx in packets.drain() {
            let hop = way(&world.snapshot, &pool.get(&mut idx));
            let Hop::Unresolved { link, next_hop, .. } = hop else {
                world.drop(pool, idx, DropReason::NoRoute);
                continue;
            };
            let same = world.held.0.iter().filter(|w| (w.link, w.next_hop) == (link, next_hop)).count();
            if same == 0 {
                world.tell(Event::NeighbourWanted { interface: link, addr: next_hop });
            }
            if same >= PER_NEIGHBOUR || world.held.len() >= CAPACITY {
                world.drop(pool, idx, DropReason::NeighbourQueueFull);
            } else {
                world.held.0.push_back(Waiting { idx, since: world.now, link, next_hop });
            }
        }
        world.show_held(pool);
    }
}

impl World {
    /// Takes up to `into`'s room of held packets whose neighbour has answered, and those that
    /// waited too long, the latter marked with their drop reason. Called once per poll.
    pub fn release_held(&mut self, pool: &mut Pool, into: &mut Vector, given_up: &mut Vector) {
        for _ in 0..self.held.len() {
            let Some(mut waiting) = self.held.0.pop_front() else { break };
            let waits = |link, next_hop| (link, next_hop) == (waiting.link, waiting.next_hop);
            let hop = way(&self.snapshot, &pool.get(&mut waiting.idx));
            // Answered, or led elsewhere.
            let moves = !matches!(hop, Hop::Unresolved { link, next_hop, .. } if waits(link, next_hop));
            if moves && into.room() > 0 {
                into.push(waiting.idx);
            } else if self.now.since(waiting.since) >= PATIENCE && given_up.room() > 0 {
                pool.get(&mut waiting.idx).meta.drop = DropReason::NeighbourUnresolved;
                given_up.push(waiting.idx);
            } else {
                self.held.0.push_back(waiting);
            }
        }
        self.show_held(pool);
    }

    fn show_held(&mut self, pool: &mut Pool) {
        let held = self.held.0.iter_mut().map(|waiting| pool.get(&mut waiting.idx).count()).sum();
        self.counters.held.set(held);
    }
}
