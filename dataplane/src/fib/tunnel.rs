//! Tunnels to other nodes: who their ends are, and how a packet leaves by one.

use super::{Adjacency, Hop};
use crate::net::{Addr, IfId, Mac, Prefix, Proto};
use crate::wire::tunnel::{Outer, Vxlan};
use crate::wire::vxlan;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How packets are carried to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// IPv4 in IPv4.
    Ipip,
    /// VXLAN over IPv4, for IPv4.
    Vxlan4,
    /// VXLAN over IPv6, for IPv6.
    Vxlan6,
}

impl TunnelKind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Ipip, Self::Vxlan4, Self::Vxlan6];

    /// As in `vxlan-v6`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Vxlan4 => "vxlan",
            Self::Vxlan6 => "vxlan-v6",
        }
    }

    /// Bytes that it puts before a packet, link header apart.
    pub const fn overhead(self) -> u16 {
        match self {
            Self::Ipip => Outer::IPIP,
            Self::Vxlan4 => Outer::VXLAN4,
            Self::Vxlan6 => Outer::VXLAN6,
        }
    }

    /// Carries IPv4.
    pub const fn is_v4(self) -> bool {
        !matches!(self, Self::Vxlan6)
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
    /// The largest IP packet inside that is configured.
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

/// All that is known of tunnels. A clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Where VXLAN goes.
    pub vxlan_port: u16,
    /// The VXLAN network that packets belong to.
    pub network: u32,
    /// By [`TunnelKind`].
    pub near: [Option<NearEnd>; 3],
    /// The other nodes, by address.
    pub nodes: Arc<BTreeMap<Addr, FarEnd>>,
    /// Besides them, who may send us tunnels' packets.
    pub external: Arc<[Prefix]>,
}

impl Default for Overlay {
    fn default() -> Self {
        Self {
            vxlan_port: vxlan::PORT,
            network: 4096,
            near: [None; 3],
            nodes: Arc::default(),
            external: Arc::default(),
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
            _ => return None,
        };
        self.near(kind).filter(|near| near.address == to).map(|near| (kind, near))
    }

    /// `from` may send us tunnels' packets.
    #[inline]
    pub fn knows(&self, from: Addr) -> bool {
        self.nodes.contains_key(&from) || self.external.iter().any(|net| net.contains(from))
    }

    /// The largest IP packet that fits a tunnel over a link of `link_mtu` bytes, leaving the path apart.
    pub fn mtu(&self, kind: TunnelKind, link_mtu: u16) -> u16 {
        let fits = link_mtu.saturating_sub(kind.overhead());
        self.near(kind).and_then(|near| near.mtu).map_or(fits, |configured| configured.min(fits))
    }

    /// How packets leave by `tunnel`, whose own packets leave by `link`.
    pub(super) fn over(&self, tunnel: Tunnel, link: &Adjacency) -> Option<TunnelAdjacency> {
        let near = self.near(tunnel.kind)?;
        let far = self.nodes.get(&tunnel.remote)?;
        let outer = match tunnel.kind {
            TunnelKind::Ipip => Outer::ipip(&link.header, near.address, tunnel.remote),
            TunnelKind::Vxlan4 | TunnelKind::Vxlan6 => {
                let ends =
                    Vxlan { port: self.vxlan_port, network: self.network, to: far.mac?, from: near.mac };
                Outer::vxlan(&link.header, near.address, tunnel.remote, ends)
            }
        };
        let path = far.path_mtu.map_or(link.mtu, |path| path.min(link.mtu));
        // No IPv6 sender goes below the least MTU of all links (RFC 8200 §5).
        let least = if tunnel.kind.is_v4() { 68 } else { 1280 };
        let mtu = self.mtu(tunnel.kind, path).max(least);
        Some(TunnelAdjacency { tunnel, tx_if: near.interface, underlay: link.tx_if, mtu, outer })
    }

    /// What a route into `tunnel` comes to, whose own packets take the hop `link`.
    pub(super) fn unresolved(&self, tunnel: Tunnel, link: Hop) -> Hop {
        match (link, self.near(tunnel.kind), self.nodes.contains_key(&tunnel.remote)) {
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
            mtu: None,
        };
        let node: Addr = "192.168.0.2".parse().unwrap();
        let overlay = Overlay {
            near: [None, Some(near("192.168.0.1")), Some(near("fd00::1"))],
            nodes: Arc::new([(node, FarEnd::default())].into()),
            external: ["203.0.113.0/24".parse().unwrap()].into(),
            ..Overlay::default()
        };
        let arrived =
            |to: &str, proto, port| overlay.arrived(to.parse().unwrap(), proto, port).map(|(kind, _)| kind);
        assert_eq!(arrived("192.168.0.1", Proto::UDP, 4789), Some(TunnelKind::Vxlan4));
        assert_eq!(arrived("fd00::1", Proto::UDP, 4789), Some(TunnelKind::Vxlan6));
        assert_eq!(arrived("192.168.0.1", Proto::UDP, 4788), None);
        assert_eq!(arrived("192.168.0.9", Proto::UDP, 4789), None, "another's");
        assert_eq!(arrived("192.168.0.1", Proto::IPIP, 0), None, "switched off");
        assert!(overlay.knows(node) && overlay.knows("203.0.113.7".parse().unwrap()));
        assert!(!overlay.knows("192.168.0.3".parse().unwrap()));
    }

    #[test]
    fn the_mtu_is_the_link_less_the_headers_or_what_was_configured() {
        let near = NearEnd {
            interface: IfId(9),
            address: Addr::v4([192, 168, 0, 1]),
            mac: Mac::default(),
            mtu: Some(1400),
        };
        let free = Overlay::default();
        let of = |overlay: &Overlay| TunnelKind::ALL.map(|kind| overlay.mtu(kind, 1500));
        assert_eq!(of(&free), [1480, 1450, 1430]);
        let configured = Overlay { near: [Some(near); 3], ..free };
        assert_eq!(of(&configured), [1400; 3]);
        assert_eq!(configured.mtu(TunnelKind::Ipip, 1300), 1280, "never more than fits");
    }
}
