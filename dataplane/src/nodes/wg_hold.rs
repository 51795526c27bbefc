//! Packets that wait for a session with the node at their tunnel's other end.

use super::{Event, World, route::destination};
use crate::fib::Fib;
use crate::graph::Sink;
use crate::net::{Nanos, PeerId};
use crate::packet::{DropReason, PktIdx, Pool, Vector};
use std::collections::VecDeque;

/// Packets that a worker holds at most.
const CAPACITY: usize = 256;
/// For one peer.
const PER_PEER: usize = 16;
/// How long a packet waits: for two initiations.
const PATIENCE: Nanos = Nanos::from_secs(6);

/// The packets, oldest first.
pub struct Unsealed(VecDeque<Waiting>);

struct Waiting {
    idx: PktIdx,
    since: Nanos,
    peer: PeerId,
}

impl Default for Unsealed {
    fn default() -> Self {
        Self(VecDeque::with_capacity(CAPACITY))
    }
}

impl Unsealed {
    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The sink.
pub struct WgHold;

impl Sink<World> for WgHold {
    const NAME: &'static str = "wg-hold";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        for mut idx in packets.drain() {
            let adjacency = pool.get(&mut idx).meta.adjacency;
            let Some(peer) = world.snapshot.fib.tunnel(adjacency).and_then(|tunnel| tunnel.peer) else {
                world.drop(pool, idx, DropReason::DeviceGone);
                continue;
            };
            let same = world.unsealed.0.iter().filter(|waiting| waiting.peer == peer).count();
            if same == 0 {
                world.tell(Event::SessionWanted(peer));
            }
            if same >= PER_PEER || world.unsealed.len() >= CAPACITY {
                world.drop(pool, idx, DropReason::WireguardQueueFull);
            } else {
                world.unsealed.0.push_back(Waiting { idx, since: world.now, peer });
            }
        }
        world.counters.unsealed.set(world.unsealed.len() as u64);
    }
}

impl World {
    /// Takes up to `into`'s room of the packets for whose peer there is a session now, and drops those that waited too long or
    /// are not routed to it any more. Returns how many were dropped. Called once per poll.
    pub fn release_unsealed(&mut self, pool: &mut Pool, into: &mut Vector) -> usize {
        let (snapshot, mut dropped) = (self.snapshot.clone(), 0);
        for _ in 0..self.unsealed.len() {
            let Some(mut waiting) = self.unsealed.0.pop_front() else { break };
            let peer = waiting.peer;
            let session = snapshot.keyring.peer(peer).and_then(|known| known.sealing.as_ref());
            let ready = session.is_some_and(|session| session.is_good(self.now));
            if !ready && self.now.since(waiting.since) < PATIENCE || ready && into.room() == 0 {
                self.unsealed.0.push_back(waiting);
                continue;
            }
            let packet = pool.get(&mut waiting.idx);
            let still = snapshot.fib.peer(destination(&packet)) == Some(peer);
            let index = snapshot.fib.tunnels().iter().position(|tunnel| tunnel.peer == Some(peer));
            match index.filter(|_| ready && still) {
                Some(index) => {
                    packet.meta.adjacency = Fib::TUNNELS + index as u32;
                    into.push(waiting.idx);
                }
                None => {
                    self.drop(pool, waiting.idx, DropReason::WireguardNoSession);
                    dropped += 1;
                }
            }
        }
        self.counters.unsealed.set(self.unsealed.len() as u64);
        dropped
    }
}
