//! WireGuard as it stands, in messages.

use super::route::Target;
use super::state::State;
use super::tunnels_view::octets;
use super::wireguard::PeerStatus;
use crate::fib::TunnelKind;
use crate::net::{Addr, Prefix};
use margay_api::dataplane::v1 as pb;
use std::collections::BTreeMap;

/// Each interface that is on, and its peers by node.
pub fn wireguard(state: &State) -> Vec<pb::WireguardInterface> {
    let Some(wireguard) = state.wireguard() else { return vec![] };
    let snapshot = state.publisher().current();
    let mut routes: BTreeMap<(TunnelKind, Addr), Vec<Prefix>> = BTreeMap::new();
    for (destination, target) in state.desired().routes.iter() {
        if let Target::Tunnel { tunnel, .. } = target {
            routes.entry((tunnel.kind, tunnel.remote)).or_default().push(*destination);
        }
    }
    let on = TunnelKind::WIREGUARD.into_iter().filter_map(|kind| Some((kind, snapshot.overlay.near(kind)?)));
    on.map(|(kind, near)| {
        let interface = snapshot.interfaces.get(near.interface);
        let mut peers = wireguard.status(kind);
        peers.sort_by(|a, b| a.wanted.node.cmp(&b.wanted.node));
        let peer = |status: PeerStatus| {
            let routes = routes.get(&(kind, status.wanted.at.endpoint.0));
            message(status, routes.map(Vec::as_slice).unwrap_or_default())
        };
        pb::WireguardInterface {
            name: interface.map_or(String::new(), |interface| interface.name.to_string()),
            public_key: wireguard.public().0.to_vec(),
            listening_port: near.port.into(),
            mtu: interface.map_or(0, |interface| interface.mtu).into(),
            peers: peers.into_iter().map(peer).collect(),
        }
    })
    .collect()
}

fn message(status: PeerStatus, routes: &[Prefix]) -> pb::WireguardPeerStatus {
    let [received_bytes, sent_bytes] = status.bytes;
    let prefix = |prefix: &Prefix| pb::Prefix { address: octets(prefix.addr()), length: prefix.len().into() };
    pb::WireguardPeerStatus {
        node: status.wanted.node.to_string(),
        public_key: status.wanted.at.public.0.to_vec(),
        endpoint: status.endpoint.map_or(vec![], |(addr, _)| octets(addr)),
        endpoint_port: status.endpoint.map_or(0, |(_, port)| port).into(),
        latest_handshake: status.handshake.map_or(0, |at| at.as_nanos() as u64),
        received_bytes,
        sent_bytes,
        allowed_ips: routes.iter().map(prefix).collect(),
        keepalive_seconds: status.wanted.keepalive.map_or(0, |every| every.0 / 1_000_000_000) as u32,
        problem: status.problem,
    }
}
