//! The end of a packet whose news went to the control thread.

use super::World;
use crate::graph::Sink;
use crate::packet::{Pool, Vector};

/// The sink.
pub struct Punt;

impl Sink<World> for Punt {
    const NAME: &'static str = "punt";

    fn take(&mut self, world: &mut World, pool: &mut Pool, packets: &mut Vector) {
        world.counters.punt.add(packets.len() as u64);
        pool.free_all(packets);
    }
}
