//! Quotas: a new flow counts against what the workloads at both ends may have.

use super::World;
use crate::conntrack::{Over, Side};
use crate::fib::Quota;
use crate::net::IfId;
use crate::packet::{DropReason, Meta};

/// The workloads that a new flow counts against: who opens it, and who it is opened to.
pub(super) type Owners = [Option<IfId>; 2];

/// Side by side, in the order of [`Owners`].
const SIDES: [Side; 2] = [Side::Egress, Side::Ingress];

/// Whose quotas a new flow of this packet would touch; most often nobody's.
#[inline]
pub(super) fn owners(world: &World, meta: &Meta) -> Option<Owners> {
    let owner = |id: IfId, side| quota(world, id, side).map(|_| id);
    let owners = [owner(meta.rx_if, Side::Egress), owner(meta.tx_if, Side::Ingress)];
    (owners != [None; 2]).then_some(owners)
}

fn quota(world: &World, id: IfId, side: Side) -> Option<Quota> {
    let workload = world.snapshot.interfaces.get(id)?.workload()?;
    let quota = match side {
        Side::Ingress => workload.ingress,
        Side::Egress => workload.egress,
    };
    (quota != Quota::default()).then_some(quota)
}

/// Counts the flow against them; all or nothing.
#[cold]
pub(super) fn charge(world: &World, owners: Owners) -> Result<(), DropReason> {
    for (at, (owner, side)) in owners.into_iter().zip(SIDES).enumerate() {
        let Some((id, quota)) = owner.and_then(|id| Some((id, quota(world, id, side)?))) else { continue };
        if let Err(over) = world.snapshot.quotas.charge(id, side, quota, world.now) {
            let charged = owners.into_iter().zip(SIDES).take(at);
            charged.filter_map(|(owner, side)| Some((owner?, side))).for_each(|(id, side)| {
                world.snapshot.quotas.release(id, side);
            });
            return Err(match over {
                Over::Flows => DropReason::QuotaFlows,
                Over::Rate => DropReason::QuotaRate,
            });
        }
    }
    Ok(())
}

/// The flow did not begin after all.
#[cold]
pub(super) fn give_back(world: &World, owners: Owners) {
    for (owner, side) in owners.into_iter().zip(SIDES) {
        if let Some(id) = owner {
            world.snapshot.quotas.release(id, side);
        }
    }
}
