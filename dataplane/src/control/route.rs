//! Routes, as the agent wants them.

use super::convert::{self, FieldError};
use super::desired::EndpointId;
use super::tunnels;
use crate::fib::Tunnel;
use crate::net::{Addr, Prefix};
use margay_api::dataplane::v1 as pb;
use std::sync::Arc;

/// Of one route.
const MAX_NEXT_HOPS: usize = 128;
/// Of a next hop.
const MAX_WEIGHT: u32 = 65_535;

/// Where a wanted route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a workload of this node.
    Workload(EndpointId),
    /// To another node or a router.
    Gateway {
        /// One, or several that share the flows.
        hops: Arc<[Gateway]>,
        /// The node it leads to, for people.
        node: String,
    },
    /// To another node, through a tunnel.
    Tunnel {
        /// Which.
        tunnel: Tunnel,
        /// The node it leads to, for people.
        node: String,
    },
    /// To this host.
    Local,
    /// Nowhere, in silence.
    Blackhole,
    /// Nowhere: the sender is told that nobody is there.
    Unreachable,
    /// Nowhere: the sender is told that it is forbidden.
    Prohibit,
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub addr: Addr,
    /// Over this interface; empty: whichever is connected, or the route to it decides.
    pub interface: String,
    /// Its share of the flows, beside those of the others. Not 0.
    pub weight: u32,
}

/// Reads a route: its destination, and where it leads.
pub(super) fn parse(route: pb::Route) -> Result<(Prefix, Target), FieldError> {
    let destination = route.destination.as_ref().ok_or_else(|| FieldError::new("destination", "missing"))?;
    let destination = convert::prefix(destination).map_err(|e| e.within("destination"))?;
    let target = match route.target {
        Some(pb::route::Target::Workload(id)) => Target::Workload(id.into()),
        Some(pb::route::Target::NextHop(hop)) => {
            let hop = gateway("next_hop", hop, destination)?;
            match tunnels::kind(route.encapsulation, destination.is_v4())? {
                None => Target::Gateway { hops: [hop].into(), node: route.node },
                Some(kind) => Target::Tunnel { tunnel: Tunnel { kind, remote: hop.addr }, node: route.node },
            }
        }
        Some(pb::route::Target::NextHops(pb::NextHops { hops })) => {
            if hops.is_empty() || hops.len() > MAX_NEXT_HOPS {
                let why = format!("a route has 1 to {MAX_NEXT_HOPS} next hops, not {}", hops.len());
                return Err(FieldError::new("next_hops.hops", why));
            }
            let each = hops.into_iter().enumerate();
            let hops = each.map(|(at, hop)| gateway(&format!("next_hops.hops[{at}]"), hop, destination));
            Target::Gateway { hops: hops.collect::<Result<_, _>>()?, node: route.node }
        }
        Some(pb::route::Target::LocalHost(_)) => Target::Local,
        Some(pb::route::Target::Blackhole(_)) => Target::Blackhole,
        Some(pb::route::Target::Unreachable(_)) => Target::Unreachable,
        Some(pb::route::Target::Prohibit(_)) => Target::Prohibit,
        None => return Err(FieldError::new("target", "missing")),
    };
    Ok((destination, target))
}

fn gateway(field: &str, hop: pb::NextHop, destination: Prefix) -> Result<Gateway, FieldError> {
    let addr = convert::addr(&format!("{field}.gateway"), &hop.gateway)?;
    if addr.is_v4() != destination.is_v4() {
        let why = format!("{addr} is of another family than {destination}");
        return Err(FieldError::new(format!("{field}.gateway"), why));
    }
    if hop.weight > MAX_WEIGHT {
        let why = format!("{} is more than {MAX_WEIGHT}; weights count only beside one another", hop.weight);
        return Err(FieldError::new(format!("{field}.weight"), why));
    }
    Ok(Gateway { addr, interface: hop.interface_name, weight: hop.weight.max(1) })
}
