//! Who speaks BGP with whom.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::BgpPassword;
use crate::model::Metadata;
use crate::model::scalar::{AsNumber, Duration, PeerAddr, Whole, choices, settings};

/// A session of some nodes with a peer, or with each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BgpPeer {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: BgpPeerSpec,
}

settings! {
    /// What a [`BgpPeer`] says. What is absent is as its line says.
    pub struct BgpPeerSpec {
        /// The one node that has the peer; absent, as `nodeSelector`: every node.
        node: String | "", "node";
        /// The nodes that have the peer, by labels.
        node_selector: String | "", "nodeSelector";
        /// The peer.
        peer_ip: PeerAddr | "", "peerIP";
        /// The peer's AS.
        as_number: AsNumber, "asNumber";
        /// The peers, as nodes with such labels; they have their own AS.
        peer_selector: String | "", "peerSelector";
        /// The peers, as workloads of the node with such labels.
        local_workload_selector: String | "", "localWorkloadSelector";
        /// The node's AS towards the peer; its own.
        local_as_number: AsNumber, "localASNumber";
        /// Whether next hops stay. Superseded by `nextHopMode`.
        keep_original_next_hop: bool, "keepOriginalNextHop";
        /// Which next hop routes get; Auto.
        next_hop_mode: NextHopMode | "", "nextHopMode";
        /// The password of the session.
        password: BgpPassword, "password";
        /// The node's address in the session; UseNodeIP.
        source_address: SourceAddress | "", "sourceAddress";
        /// How long a restart may take; 120s.
        max_restart_time: Duration | "", "maxRestartTime";
        /// How often the peer is told that the session lives; a third of the hold time.
        keepalive_time: Duration | "", "keepaliveTime";
        /// How often the own AS may stand in a path; 0.
        num_allowed_local_as_numbers: Whole<{ i32::MIN as i64 }, { i32::MAX as i64 }>, "numAllowedLocalASNumbers";
        /// Hops to the peer; packets that came further are ignored (RFC 5082). Absent: any.
        ttl_security: Whole<0, 255>, "ttlSecurity";
        /// The gateway to the peer, as a static route.
        reachable_by: IpAddr | "", "reachableBy";
        /// The filters, in their order.
        filters: Vec<String>, "filters";
        /// Whether selected peers get the session the other way round too; Auto.
        reverse_peering: ReversePeering | "", "reversePeering";
    }
}

choices! {
    /// Which next hop routes get.
    NextHopMode { /// As BGP has it.
        Auto, /// The node.
        Self_ = "Self", /// What they had.
        Keep }

    /// The node's address in a session.
    SourceAddress { /// Its own by configuration.
        UseNodeIP, /// The kernel's choice.
        None }

    /// Whether selected peers get the session the other way round.
    ReversePeering { /// Yes.
        Auto, /// Another object says so.
        Manual }
}
