//! With whom the node speaks BGP, and how that goes.

use super::Agent;
use crate::routing::Peer;
use margay_api::control::v1::{Bgp, BgpPeer};

impl Agent {
    pub(super) async fn bgp(&self) -> Bgp {
        let Some(bird) = &self.bird else { return Bgp::default() };
        let wanted = bird.wanted();
        let (peers, error) = match bird.peers().await {
            Ok(peers) => (peers, String::new()),
            Err(error) => (Vec::new(), format!("BIRD does not answer: {error}")),
        };
        Bgp {
            driven: true,
            router_id: wanted.as_ref().map(|bgp| bgp.router_id.to_string()).unwrap_or_default(),
            as_number: wanted.as_ref().map_or(0, |bgp| bgp.as_number),
            kernel_table: bird.table(),
            announced: wanted
                .iter()
                .flat_map(|bgp| bgp.own.iter().filter(move |net| bgp.is_announced(**net)))
                .map(ToString::to_string)
                .collect(),
            peers: peers.into_iter().map(message).collect(),
            error,
        }
    }
}

fn message(peer: Peer) -> BgpPeer {
    let Peer { addr, port, protocol, session, status } = peer;
    let status = status.unwrap_or_default();
    BgpPeer {
        address: addr.to_string(),
        port: port.into(),
        as_number: session.remote_as,
        object: session.object,
        node: session.node.unwrap_or_default(),
        protocol,
        state: status.state,
        since: status.since,
        error: status.error,
        imported: status.imported,
        exported: status.exported,
    }
}
