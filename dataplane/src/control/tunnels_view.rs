//! Tunnels as they stand, in messages.

use super::route::Target;
use super::state::State;
use crate::fib::{Hop, Scope, Tunnel, TunnelKind};
use crate::net::Addr;
use margay_api::dataplane::v1 as pb;
use std::collections::BTreeMap;

/// Every tunnel to every node, by node and kind.
pub fn tunnels(state: &State) -> Vec<pb::Tunnel> {
    let mut routes: BTreeMap<Tunnel, (u64, Addr)> = BTreeMap::new();
    for (destination, target) in state.desired().routes.iter() {
        if let Target::Tunnel { tunnel, .. } = target {
            routes.entry(*tunnel).or_insert((0, destination.addr())).0 += 1;
        }
    }
    let on = |kind: &TunnelKind| state.desired().overlay.near(*kind).is_some();
    let kinds: Vec<TunnelKind> = TunnelKind::ALL.into_iter().filter(on).collect();
    let desired = state.desired();
    let plain = kinds.iter().filter(|kind| !kind.is_encrypted());
    let plain = plain.flat_map(|kind| {
        desired.far_ends.iter().filter_map(move |(name, node)| {
            let (remote, _) = node.ends[usize::from(!kind.is_v4())]?;
            Some((name, Tunnel { kind: *kind, remote }))
        })
    });
    let encrypted = kinds.iter().filter(|kind| kind.is_encrypted());
    let encrypted = encrypted.flat_map(|kind| {
        desired.wireguard_peers.iter().filter_map(move |(name, node)| {
            let remote = node.ends[usize::from(!kind.is_v4())]?.endpoint.0;
            Some((name, Tunnel { kind: *kind, remote }))
        })
    });
    let mut all: Vec<_> = plain.chain(encrypted).collect();
    all.sort();
    all.into_iter()
        .filter_map(|(name, tunnel)| message(state, name, tunnel, routes.get(&tunnel).copied()))
        .collect()
}

fn message(state: &State, node: &str, tunnel: Tunnel, routes: Option<(u64, Addr)>) -> Option<pb::Tunnel> {
    let snapshot = state.publisher().current();
    let overlay = &snapshot.overlay;
    let near = overlay.near(tunnel.kind)?;
    let encrypted = tunnel.kind.is_encrypted();
    let far = overlay.nodes.get(&tunnel.remote).copied().unwrap_or_default();
    let peer = overlay.peers.get(&tunnel.remote).filter(|_| encrypted);
    let vxlan = matches!(tunnel.kind, TunnelKind::Vxlan4 | TunnelKind::Vxlan6);
    let name = |id| snapshot.interfaces.get(id).map(|interface| interface.name.to_string());
    let resolved = snapshot.fib.tunnels().iter().find(|resolved| resolved.tunnel == tunnel);
    let reason = match (resolved, routes) {
        (Some(_), _) => String::new(),
        (None, None) => "no route leads into it".into(),
        (None, Some(_)) if encrypted && peer.is_none() => {
            "the node's key is none that it can be a peer with".into()
        }
        (None, Some(_)) if vxlan && far.mac.is_none() => {
            "the node's inner Ethernet address is not known".into()
        }
        (None, Some((_, to))) => match snapshot.fib.lookup(to, Scope::Host, 0) {
            Hop::Unresolved { next_hop, .. } => format!("{next_hop} has not been resolved yet"),
            _ => "no route to the node".into(),
        },
    };
    Some(pb::Tunnel {
        node: node.to_owned(),
        kind: tunnel.kind.name().into(),
        local: octets(near.address),
        remote: octets(tunnel.remote),
        interface: resolved.and_then(|resolved| name(resolved.underlay)).unwrap_or_default(),
        mtu: resolved
            .map_or_else(
                || snapshot.interfaces.get(near.interface).map_or(0, |interface| interface.mtu),
                |resolved| resolved.mtu,
            )
            .into(),
        path_mtu: overlay.path_mtu(tunnel.remote).unwrap_or_default().into(),
        port: if vxlan { overlay.vxlan_port } else { peer.map_or(0, |peer| peer.endpoint.1) }.into(),
        vni: if vxlan { overlay.network } else { 0 },
        mac: far.mac.filter(|_| vxlan).map_or(vec![], |mac| mac.0.to_vec()),
        routes: routes.map_or(0, |(count, _)| count),
        reason,
    })
}

pub(super) fn octets(addr: Addr) -> Vec<u8> {
    if addr.is_v4() { addr.v4_octets().to_vec() } else { addr.octets().to_vec() }
}
