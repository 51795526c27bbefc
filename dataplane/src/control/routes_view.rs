//! Routes, adjacencies and neighbours, in messages.

use super::convert::{self, FieldError};
use super::state::State;
use crate::fib::{NextHop, Origin, RouteTarget, Scope, Shown, TableId, Tunnel};
use crate::net::{Addr, IfId, Nanos, Prefix};
use margay_api::dataplane::v1 as pb;

/// Where packets to an address go.
pub fn lookup(
    state: &State,
    request: &pb::LookupRouteRequest,
) -> Result<pb::LookupRouteResponse, FieldError> {
    let addr = convert::addr("address", &request.address)?;
    let scope = if request.from_workload { Scope::Workload } else { Scope::Host };
    let routes = state.rib().map(|rib| rib.explain(addr, scope)).unwrap_or_default();
    Ok(pb::LookupRouteResponse { routes: routes.iter().map(|shown| route(state, shown)).collect() })
}

/// Routes in order, and whether there are more than were asked for.
pub fn list(
    state: &State,
    request: &pb::ListRoutesRequest,
) -> Result<(Vec<pb::ShownRoute>, bool), FieldError> {
    let within = request.within.as_ref().map(convert::prefix).transpose().map_err(|e| e.within("within"))?;
    let of = |name: &str| Origin::ALL.into_iter().find(|origin| origin.name() == name);
    let origin = match request.origin.as_str() {
        "" => None,
        name => Some(of(name).ok_or_else(|| {
            let names = Origin::ALL.map(Origin::name).join(", ");
            FieldError::new("origin", format!("{name:?} is none of {names}"))
        })?),
    };
    let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
    let wanted = |prefix: Prefix| within.is_none_or(|within| within.covers(prefix));
    let tables = state.rib().into_iter().flat_map(|rib| TableId::ALL.map(|table| rib.show(table, wanted)));
    let mut found = tables.flatten().filter(|shown| origin.is_none_or(|origin| shown.origin == origin));
    let routes = found.by_ref().take(limit).map(|shown| route(state, &shown)).collect();
    Ok((routes, found.next().is_some()))
}

/// Every adjacency, by its number.
pub fn adjacencies(state: &State) -> Vec<pb::ShownAdjacency> {
    let fib = state.publisher().current().fib.clone();
    let adjacency = |(interface, addr, index, users): (IfId, Addr, u32, u32)| {
        let resolved = fib.adjacency(index);
        pb::ShownAdjacency {
            index,
            interface_name: name(state, interface),
            address: if addr.is_unspecified() { vec![] } else { bytes(addr) },
            header: resolved.map(|adjacency| adjacency.header.as_slice().to_vec()).unwrap_or_default(),
            mtu: resolved.map_or(0, |adjacency| adjacency.mtu.into()),
            users,
        }
    };
    let mut all: Vec<_> = state.rib().into_iter().flat_map(|rib| rib.adjacencies()).map(adjacency).collect();
    all.sort_by_key(|adjacency| adjacency.index);
    all
}

/// Every neighbour, by interface and address.
pub fn neighbours(state: &State, now: Nanos) -> Vec<pb::ShownNeighbour> {
    let shown = |neighbour: crate::fib::Neighbour| pb::ShownNeighbour {
        interface_name: name(state, neighbour.interface),
        address: bytes(neighbour.addr),
        mac: neighbour.mac.map(|mac| mac.0.to_vec()).unwrap_or_default(),
        state: neighbour.state.name().to_owned(),
        age_seconds: now.since(neighbour.since).0 / 1_000_000_000,
    };
    state.neighbours().iter().map(shown).collect()
}

fn route(state: &State, shown: &Shown) -> pb::ShownRoute {
    let tunnel = match &shown.target {
        RouteTarget::Tunnel(tunnel) => Some(NextHop { gateway: Some(tunnel.remote), ..NextHop::default() }),
        _ => None,
    };
    let (kind, hops): (&str, &[NextHop]) = match &shown.target {
        RouteTarget::Workload(_) => ("workload", &[]),
        RouteTarget::Via(hops) => ("via", hops),
        RouteTarget::Tunnel(Tunnel { kind, .. }) => (kind.name(), tunnel.as_slice()),
        RouteTarget::Local => ("local", &[]),
        RouteTarget::Blackhole => ("blackhole", &[]),
        RouteTarget::Unreachable => ("unreachable", &[]),
        RouteTarget::Prohibit => ("prohibit", &[]),
    };
    let next_hop = |hop: &NextHop| pb::NextHop {
        gateway: hop.gateway.map(bytes).unwrap_or_default(),
        interface_name: hop.interface.map(|id| name(state, id)).unwrap_or_default(),
        weight: hop.weight,
    };
    let sum: u64 = shown.exits.iter().map(|(_, weight)| weight).sum();
    let way = |(exit, weight): &(crate::fib::Exit, u64)| {
        let mac = exit.next_hop.and_then(|addr| state.neighbours().mac(exit.tx_if, addr));
        pb::ShownWay {
            interface_name: name(state, exit.tx_if),
            next_hop: exit.next_hop.filter(|addr| !addr.is_unspecified()).map(bytes).unwrap_or_default(),
            mac: mac.map(|mac| mac.0.to_vec()).unwrap_or_default(),
            share: *weight as f64 / sum as f64,
        }
    };
    let destination = shown.destination;
    pb::ShownRoute {
        destination: Some(pb::Prefix {
            address: bytes(destination.addr()),
            length: destination.len().into(),
        }),
        table: shown.table.name().to_owned(),
        origin: shown.origin.name().to_owned(),
        in_force: shown.best,
        kind: kind.to_owned(),
        next_hops: hops.iter().map(next_hop).collect(),
        ways: shown.exits.iter().map(way).collect(),
    }
}

/// Empty for an interface that is gone.
fn name(state: &State, interface: IfId) -> String {
    let snapshot = state.publisher().current();
    snapshot.interfaces.get(interface).map(|interface| interface.name.to_string()).unwrap_or_default()
}

fn bytes(addr: Addr) -> Vec<u8> {
    if addr.is_v4() { addr.v4_octets().to_vec() } else { addr.octets().to_vec() }
}
