//! What staged policies would have done with a packet that policy has judged.

use super::{Deciding, Event, World};
use crate::policy::{Direction, EndpointIdx, Query, Shadow, Verdict};

/// Judges the packet a second time where the endpoint has staged policies, and counts. Nothing
/// becomes of it for the packet.
#[inline]
pub(super) fn compare(
    world: &World,
    endpoint: EndpointIdx,
    direction: Direction,
    query: &Query,
    verdict: Verdict,
) {
    if let Some(shadow) = &world.snapshot.shadow {
        judge(world, shadow, (endpoint, direction), query, verdict);
    }
}

/// Out of line: nodes without staged policies only see the test.
#[inline(never)]
fn judge(
    world: &World,
    shadow: &Shadow,
    (endpoint, direction): (EndpointIdx, Direction),
    query: &Query,
    verdict: Verdict,
) {
    let Some(otherwise) = shadow.judge(world.me, (endpoint, direction), query, verdict) else { return };
    let mut samples = world.differences.get();
    let sampled = samples.take(world.now);
    world.differences.set(samples);
    if sampled {
        let deciding = Deciding {
            generation: world.snapshot.generation,
            endpoint: endpoint.0,
            ingress: direction == Direction::Ingress,
            slot: otherwise.slot,
        };
        world.tell(Event::WouldDiffer { query: *query, deciding });
    }
}
