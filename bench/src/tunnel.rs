//! Tunnels between the rig's node and another one.

use crate::rig::{PEER_MAC, UPLINK_MAC};
use crate::wire::{FCS, LINK, Stream};
use clap::ValueEnum;
use etherparse::{IpNumber, PacketBuilder};
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::net::{Addr, FlowKey, Mac, Proto};
use margay_dataplane::wire::vxlan;

/// This node, and the other.
pub const NODE: Addr = Addr::v4([172, 31, 0, 1]);
pub const FAR: Addr = Addr::v4([172, 31, 0, 2]);
/// A workload of the other, and the block it is of.
const REMOTE: Addr = Addr::v4([198, 18, 0, 9]);
const BLOCK: ([u8; 4], u32) = ([198, 18, 0, 0], 16);
const NETWORK: u32 = 4096;
const UDP: usize = 8;
/// Both nodes' inner addresses.
const NEAR_MAC: Mac = Mac([0x66, 0, 0, 0, 0, 1]);
const FAR_MAC: Mac = Mac([0x66, 0, 0, 0, 0, 2]);
/// Whom a frame inside of VXLAN is from, and for.
pub const INSIDE: (Mac, Mac) = (FAR_MAC, NEAR_MAC);

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tunnel {
    Ipip,
    Vxlan,
}

impl Tunnel {
    /// What an agent says of the tunnel, and of whom workloads reach by it.
    pub fn changes(self) -> Vec<pb::Change> {
        let of = |addr: Addr| addr.v4_octets().to_vec();
        let overlay = pb::Overlay {
            ipv4_address: of(NODE),
            ipip: self == Self::Ipip,
            vxlan: self == Self::Vxlan,
            mac: NEAR_MAC.0.to_vec(),
            ..Default::default()
        };
        let far = pb::TunnelEndpoint {
            node: "far".into(),
            mac: FAR_MAC.0.to_vec(),
            parent_ipv4: of(FAR),
            ..Default::default()
        };
        let route = pb::Route {
            destination: Some(pb::Prefix { address: BLOCK.0.to_vec(), length: BLOCK.1 }),
            target: Some(pb::route::Target::NextHop(pb::NextHop { gateway: of(FAR), ..Default::default() })),
            encapsulation: match self {
                Self::Ipip => pb::Encapsulation::Ipip,
                Self::Vxlan => pb::Encapsulation::Vxlan,
            }
            .into(),
            node: "far".into(),
            ..Default::default()
        };
        let config = pb::NodeConfig { overlay: Some(overlay), ..Default::default() };
        let all = [Change::Config(config), Change::TunnelEndpoint(far), Change::Route(route)];
        all.map(|change| pb::Change { change: Some(change) }).into()
    }

    /// The same IPv4 packets as they come by the tunnel.
    pub fn carry(self, stream: Stream) -> Stream {
        let inner = vec![0; stream.size() - FCS];
        let outer =
            PacketBuilder::ethernet2(PEER_MAC.0, UPLINK_MAC.0).ipv4(FAR.v4_octets(), NODE.v4_octets(), 64);
        let mut bytes = vec![];
        // Writing to a vector cannot fail, and lengths are within what the headers can say.
        match self {
            Self::Ipip => {
                let written = outer.write(&mut bytes, IpNumber::IPV4, &inner[LINK..]);
                written.expect("a packet of this size exists");
                bytes.truncate(LINK + 20);
                stream.behind(&bytes, LINK)
            }
            Self::Vxlan => {
                let payload = [&vxlan::emit(NETWORK)[..], &inner].concat();
                outer.udp(50_000, 4789).write(&mut bytes, &payload).expect("a packet of this size exists");
                bytes.truncate(LINK + 20 + UDP + vxlan::HEADER_LEN);
                // Over IPv4 VXLAN has none (RFC 7348 §5).
                bytes[LINK + 20 + 6..LINK + 20 + UDP].fill(0);
                stream.behind(&bytes, 0)
            }
        }
    }
}

/// Flows of a workload with the other node's.
pub fn outgoing(workload: Addr, count: usize) -> Vec<FlowKey> {
    let key = |n: usize| FlowKey {
        src: workload,
        dst: REMOTE,
        sport: 1024 + (n % 60_000) as u16,
        dport: 9 + (n / 60_000) as u16,
        proto: Proto::UDP,
    };
    (0..count).map(key).collect()
}
