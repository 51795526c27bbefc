//! Tunnels to other nodes: who their ends are, and how a packet leaves by one.

use super::{Adjacency, Hop};
use crate::net::{Addr, IfId, Mac, PeerId, Prefix, Proto};
use crate::wire::tunnel::{Outer, Vxlan};
use crate::wire::vxlan;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Kinds of tunnels.
pub const KINDS: usize = 5;

/// How packets are carried to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// IPv4 in IPv4.
    Ipip,
    /// VXLAN over IPv4, for IPv4.
    Vxlan4,
    /// VXLAN over IPv6, for IPv6.
    Vxlan6,
    /// WireGuard over IPv4, for IPv4.
    Wireguard4,
    /// WireGuard over IPv6, for IPv6.
    Wireguard6,
}

impl TunnelKind {
    /// All there are.
    pub const ALL: [Self; KINDS] =
        [Self::Ipip, Self::Vxlan4, Self::Vxlan6, Self::Wireguard4, Self::Wireguard6];
    /// Those of WireGuard.
    pub const WIREGUARD: [Self; 2] = [Self::Wireguard4, Self::Wireguard6];

    /// As in `vxlan-v6`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Vxlan4 => "vxlan",
            Self::Vxlan6 => "vxlan-v6",
            Self::Wireguard4 => "wireguard",
            Self::Wireguard6 => "wireguard-v6",
        }
    }

    /// Bytes that it adds to a packet, link header apart.
    pub const fn overhead(self) -> u16 {
        match self {
            Self::Ipip => Outer::IPIP,
            Self::Vxlan4 => Outer::VXLAN4,
            Self::Vxlan6 => Outer::VXLAN6,
            Self::Wireguard4 => Outer::WIREGUARD4,
            Self::Wireguard6 => Outer::WIREGUARD6,
        }
    }

    /// Carries IPv4.
    pub const fn is_v4(self) -> bool {
        !matches!(self, Self::Vxlan6 | Self::Wireguard6)
    }

    /// Packets are sealed.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Wireguard4 | Self::Wireguard6)
    }
}

/// A tunnel: its kind, and the node at its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// How.
    pub kind: TunnelKind,
    /// That node's address.
    pub remote: Addr,
}

/// A resolved way out through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelAdjacency {
    /// Which tunnel.
    pub tunnel: Tunnel,
    /// The peer that packets are sealed for, where they are.
    pub peer: Option<PeerId>,
    /// As in [`PeerEnd`]; elsewhere 0.
    pub lanes: u8,
    /// The tunnel's interface: what policy sees the packet leave by.
    pub tx_if: IfId,
    /// The interface that its packets are sent by.
    pub underlay: IfId,
    /// The largest IP packet it takes inside, in bytes.
    pub mtu: u16,
    /// What to put before the packet inside.
    pub outer: Outer,
}

/// This end of all tunnels of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearEnd {
    /// What stands for them among the interfaces.
    pub interface: IfId,
    /// This node's address.
    pub address: Addr,
    /// Of VXLAN, this node's inner Ethernet address.
    pub mac: Mac,
    /// Of WireGuard, where it listens.
    pub port: u16,
    /// The largest IP packet inside: what is configured, and what fits the interfaces that were named for it.
    pub mtu: Option<u16>,
}

/// What is known of another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FarEnd {
    /// Its inner Ethernet address, for VXLAN.
    pub mac: Option<Mac>,
    /// The largest packet that the way to it takes, outer headers included, where something on the way
    /// said so.
    pub path_mtu: Option<u16>,
}

/// What is known of a peer of WireGuard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEnd {
    /// Which.
    pub peer: PeerId,
    /// Where its packets go: where it was heard last.
    pub endpoint: (Addr, u16),
    /// Lanes that flows to it are spread over, so that not one of its workers has to open all. Up to 1: none.
    pub lanes: u8,
    /// As in [`FarEnd`].
    pub path_mtu: Option<u16>,
}

/// All that is known of tunnels. A clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Where VXLAN goes.
    pub vxlan_port: u16,
    /// The VXLAN network that packets belong to.
    pub network: u32,
    /// By [`TunnelKind`].
    pub near: [Option<NearEnd>; KINDS],
    /// The other nodes, by address.
    pub nodes: Arc<BTreeMap<Addr, FarEnd>>,
    /// WireGuard's peers, by the address that routes to them name.
    pub peers: Arc<BTreeMap<Addr, PeerEnd>>,
    /// Besides them, who may send us tunnels' packets.
    pub external: Arc<[Prefix]>,
    /// Which tunnels workloads may make of their own.
    pub of_workloads: OfWorkloads,
}

/// Which tunnels workloads may make of their own. What they send to other nodes passes for the sending
/// node's own where its source is translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfWorkloads {
    /// IPv4 in IP.
    pub ipip: bool,
    /// VXLAN, at the nodes' port.
    pub vxlan: bool,
}

impl Default for Overlay {
    fn default() -> Self {
        Self {
            vxlan_port: vxlan::PORT,
            network: 4096,
            near: [None; KINDS],
            nodes: Arc::default(),
            peers: Arc::default(),
            external: Arc::default(),
            of_workloads: OfWorkloads::default(),
        }
    }
}

/// The first index that names a tunnel's adjacency.
pub(super) const FIRST: u32 = 1 << 31;

impl Overlay {
    /// This end of a kind's tunnels.
    #[inline]
    pub fn near(&self, kind: TunnelKind) -> Option<&NearEnd> {
        self.near[kind as usize].as_ref()
    }

    /// The tunnels that a packet with these outer headers came by, if it is for this node.
    #[inline]
    pub fn arrived(&self, to: Addr, proto: Proto, dport: u16) -> Option<(TunnelKind, &NearEnd)> {
        let kind = match proto {
            Proto::IPIP => TunnelKind::Ipip,
            Proto::UDP if dport == self.vxlan_port && to.is_v4() => TunnelKind::Vxlan4,
            Proto::UDP if dport == self.vxlan_port => TunnelKind::Vxlan6,
            Proto::UDP => TunnelKind::WIREGUARD[usize::from(!to.is_v4())],
            _ => return None,
        };
        let near = self.near(kind).filter(|near| near.address == to)?;
        (!kind.is_encrypted() || near.port == dport).then_some((kind, near))
    }

    /// WireGuard listens at this port, over IPv4 or IPv6.
    #[inline]
    pub fn is_encrypted_at(&self, dport: u16) -> bool {
        let kinds = [TunnelKind::Wireguard4, TunnelKind::Wireguard6];
        kinds.into_iter().any(|kind| self.near(kind).is_some_and(|near| near.port == dport))
    }

    /// There are tunnels to a node that has this address.
    pub fn reaches(&self, node: Addr) -> bool {
        self.nodes.contains_key(&node) || self.peers.contains_key(&node)
    }

    /// What something on the way to a node said that it takes.
    pub fn path_mtu(&self, node: Addr) -> Option<u16> {
        let peer = || self.peers.get(&node).and_then(|peer| peer.path_mtu);
        self.nodes.get(&node).and_then(|far| far.path_mtu).or_else(peer)
    }

    /// The address that the packets of a tunnel go to.
    pub(super) fn far_address(&self, tunnel: Tunnel) -> Addr {
        let peer = self.peers.get(&tunnel.remote).filter(|_| tunnel.kind.is_encrypted());
        peer.map_or(tunnel.remote, |peer| peer.endpoint.0)
    }

    /// The peer that a tunnel's packets are sealed for.
    pub(super) fn peer(&self, tunnel: Tunnel) -> Option<PeerId> {
        self.peers.get(&tunnel.remote).filter(|_| tunnel.kind.is_encrypted()).map(|peer| peer.peer)
    }

    /// `from` may send us tunnels' packets.
    #[inline]
    pub fn knows(&self, from: Addr) -> bool {
        self.nodes.contains_key(&from) || self.external.iter().any(|net| net.contains(from))
    }

    /// A workload may send a packet of this kind, as far as it would be a tunnel's.
    #[inline]
    pub fn lets_workloads_send(&self, proto: Proto, dport: u16) -> bool {
        match proto {
            Proto::IPIP => self.of_workloads.ipip,
            Proto::UDP => self.of_workloads.vxlan || dport != self.vxlan_port,
            _ => true,
        }
    }

    /// The largest IP packet that fits a tunnel over a link of `link_mtu` bytes, leaving the path apart.
    pub fn mtu(&self, kind: TunnelKind, link_mtu: u16) -> u16 {
        let fits = link_mtu.saturating_sub(kind.overhead());
        self.near(kind).and_then(|near| near.mtu).map_or(fits, |configured| configured.min(fits))
    }

    /// How packets leave by `tunnel`, whose own packets leave by `link`.
    pub(super) fn over(&self, tunnel: Tunnel, link: &Adjacency) -> Option<TunnelAdjacency> {
        let near = self.near(tunnel.kind)?;
        let (outer, path, sealed) = match tunnel.kind {
            TunnelKind::Ipip => {
                let far = self.nodes.get(&tunnel.remote)?;
                (Outer::ipip(&link.header, near.address, tunnel.remote), far.path_mtu, None)
            }
            TunnelKind::Vxlan4 | TunnelKind::Vxlan6 => {
                let far = self.nodes.get(&tunnel.remote)?;
                let ends =
                    Vxlan { port: self.vxlan_port, network: self.network, to: far.mac?, from: near.mac };
                (Outer::vxlan(&link.header, near.address, tunnel.remote, ends), far.path_mtu, None)
            }
            TunnelKind::Wireguard4 | TunnelKind::Wireguard6 => {
                let far = self.peers.get(&tunnel.remote)?;
                let outer = Outer::udp(&link.header, (near.address, near.port), far.endpoint);
                (outer, far.path_mtu, Some((far.peer, far.lanes)))
            }
        };
        let path = path.map_or(link.mtu, |path| path.min(link.mtu));
        // No IPv6 sender goes below the least MTU of all links (RFC 8200 §5).
        let least = if tunnel.kind.is_v4() { 68 } else { 1280 };
        let mtu = self.mtu(tunnel.kind, path).max(least);
        let (peer, lanes) = sealed.map_or((None, 0), |(peer, lanes)| (Some(peer), lanes));
        Some(TunnelAdjacency { tunnel, peer, lanes, tx_if: near.interface, underlay: link.tx_if, mtu, outer })
    }

    /// What a route into `tunnel` comes to, whose own packets take the hop `link`.
    pub(super) fn unresolved(&self, tunnel: Tunnel, link: Hop) -> Hop {
        let known = match tunnel.kind.is_encrypted() {
            true => self.peers.contains_key(&tunnel.remote),
            false => self.nodes.contains_key(&tunnel.remote),
        };
        match (link, self.near(tunnel.kind), known) {
            (Hop::Unresolved { link, next_hop, .. }, Some(near), true) => {
                Hop::Unresolved { tx_if: near.interface, link, next_hop }
            }
            _ => Hop::NoRoute,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_nodes_and_our_own_address() {
        let near = |address: &str| NearEnd {
            interface: IfId(9),
            address: address.parse().unwrap(),
            mac: Mac([0x66; 6]),
            port: 51_820,
            mtu: None,
        };
        let node: Addr = "192.168.0.2".parse().unwrap();
        let overlay = Overlay {
            near: ["192.168.0.1", "192.168.0.1", "fd00::1", "192.168.0.1", "fd00::1"]
                .map(|at| Some(near(at))),
            nodes: Arc::new([(node, FarEnd::default())].into()),
            external: ["203.0.113.0/24".parse().unwrap()].into(),
            ..Overlay::default()
        };
        let arrived =
            |to: &str, proto, port| overlay.arrived(to.parse().unwrap(), proto, port).map(|(kind, _)| kind);
        assert_eq!(arrived("192.168.0.1", Proto::UDP, 4789), Some(TunnelKind::Vxlan4));
        assert_eq!(arrived("fd00::1", Proto::UDP, 4789), Some(TunnelKind::Vxlan6));
        assert_eq!(arrived("192.168.0.1", Proto::UDP, 51_820), Some(TunnelKind::Wireguard4));
        assert_eq!(arrived("fd00::1", Proto::UDP, 51_820), Some(TunnelKind::Wireguard6));
        assert_eq!(arrived("192.168.0.1", Proto::UDP, 4788), None);
        assert_eq!(arrived("192.168.0.9", Proto::UDP, 4789), None, "another's");
        assert_eq!(arrived("192.168.0.1", Proto::IPIP, 0), Some(TunnelKind::Ipip));
        let off = Overlay { near: [None; KINDS], ..overlay.clone() };
        assert!(off.arrived("192.168.0.1".parse().unwrap(), Proto::IPIP, 0).is_none(), "switched off");
        assert!(overlay.knows(node) && overlay.knows("203.0.113.7".parse().unwrap()));
        assert!(!overlay.knows("192.168.0.3".parse().unwrap()));
    }

    #[test]
    fn the_mtu_is_the_link_less_the_headers_or_what_was_configured() {
        let near = NearEnd {
            interface: IfId(9),
            address: Addr::v4([192, 168, 0, 1]),
            mac: Mac::default(),
            port: 0,
            mtu: Some(1400),
        };
        let free = Overlay::default();
        let of = |overlay: &Overlay| TunnelKind::ALL.map(|kind| overlay.mtu(kind, 1500));
        assert_eq!(of(&free), [1480, 1450, 1430, 1440, 1420]);
        let configured = Overlay { near: [Some(near); KINDS], ..free };
        assert_eq!(of(&configured), [1400; KINDS]);
        assert_eq!(configured.mtu(TunnelKind::Ipip, 1300), 1280, "never more than fits");
    }
}
