//! Tunnels between nodes: which kinds there are, where they end, and what is sent through them.

use super::config::Settings;
use super::{Resources, packed};
use crate::model::{Cidr, EncapMode, IpPool, Node, SubnetAddr};
use margay_api::dataplane::v1::{Encapsulation, Overlay, TunnelEndpoint};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The tunnels of one node.
pub(super) struct Tunnels<'a> {
    resources: &'a Resources,
    own: Option<&'a Node>,
    settings: Settings<'a>,
}

/// How a packet gets to another node.
pub(super) enum Way {
    /// So, or as it is.
    Open(Encapsulation),
    /// Not at all, because of this.
    Closed(String),
}

impl<'a> Tunnels<'a> {
    /// Those of `node`.
    pub(super) fn of(resources: &'a Resources, node: &str) -> Self {
        Self { resources, own: resources.get::<Node>("", node), settings: Settings::of(resources, node) }
    }

    /// This end of them; none where there are none.
    pub(super) fn overlay(&self) -> Option<Overlay> {
        let own = self.own?;
        let [v4, v6] = [true, false].map(|v4| address(own, v4));
        let (ipip, vxlan) = (self.is_on(Encapsulation::Ipip, true), self.is_on(Encapsulation::Vxlan, true));
        let overlay = Overlay {
            ipip: ipip && v4.is_some(),
            vxlan: vxlan && v4.is_some(),
            vxlan_v6: self.is_on(Encapsulation::Vxlan, false) && v6.is_some(),
            ..Overlay::default()
        };
        if !(overlay.ipip || overlay.vxlan || overlay.vxlan_v6) {
            return None;
        }
        let octets = |address: Option<SubnetAddr>| address.map_or(vec![], octets);
        let mac = |wanted: bool, v4| if wanted { mac(own, v4).to_vec() } else { vec![] };
        let number = |setting: Option<i64>| setting.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let external = self.settings.first(|spec| spec.external_nodes_list.as_deref()).unwrap_or_default();
        Some(Overlay {
            ipv4_address: octets(v4),
            ipv6_address: octets(v6),
            mac: mac(overlay.vxlan, true),
            mac_v6: mac(overlay.vxlan_v6, false),
            vxlan_port: number(self.settings.first(|spec| spec.vxlan_port)),
            vxlan_vni: number(self.settings.first(|spec| spec.vxlan_vni)),
            ipip_mtu: number(self.settings.first(|spec| spec.ipip_mtu)),
            vxlan_mtu: number(self.settings.first(|spec| spec.vxlan_mtu)),
            vxlan_v6_mtu: number(self.settings.first(|spec| spec.vxlan_mtuv6)),
            external_nodes: external.iter().map(|net| packed(net.subnet())).collect(),
            ..overlay
        })
    }

    /// Their other ends, by node.
    pub(super) fn far_ends(&self) -> BTreeMap<String, TunnelEndpoint> {
        if self.overlay().is_none() {
            return BTreeMap::new();
        }
        let own = self.own.map(|own| own.metadata.name.as_str());
        let others = self.resources.all::<Node>().filter(|node| Some(node.metadata.name.as_str()) != own);
        let end = |node: &Node| {
            let [v4, v6] = [true, false].map(|v4| address(node, v4));
            let plain = |address: Option<IpAddr>| address.map_or(vec![], |addr| Cidr::host(addr).octets());
            let endpoint = TunnelEndpoint {
                node: node.metadata.name.clone(),
                mac: v4.map_or(vec![], |_| mac(node, true).to_vec()),
                ipv4_address: plain(node.spec.ipv4_vxlan_tunnel_addr),
                parent_ipv4: v4.map_or(vec![], octets),
                mac_v6: v6.map_or(vec![], |_| mac(node, false).to_vec()),
                ipv6_address: plain(node.spec.ipv6_vxlan_tunnel_addr),
                parent_ipv6: v6.map_or(vec![], octets),
            };
            (v4.is_some() || v6.is_some()).then_some((node.metadata.name.clone(), endpoint))
        };
        others.filter_map(end).collect()
    }

    /// How packets to `net` get to the node that has it, whose address is `gateway`: as the pool says
    /// that `net` is of. What counts for CrossSubnet is the nodes' addresses, never the workloads'.
    pub(super) fn way(&self, net: Cidr, gateway: SubnetAddr) -> Way {
        let pool = self.resources.all::<IpPool>().find(|pool| pool.spec.cidr.contains(net.addr()));
        let Some(spec) = pool.map(|pool| &pool.spec) else { return Way::Open(Encapsulation::None) };
        let wanted = [(Encapsulation::Ipip, spec.ipip_mode), (Encapsulation::Vxlan, spec.vxlan_mode)];
        let wanted = wanted.into_iter().find(|(_, mode)| self.is_wanted(*mode, gateway));
        let Some((how, _)) = wanted else { return Way::Open(Encapsulation::None) };
        let (kind, setting) = match how {
            Encapsulation::Ipip => ("IPIP", "ipipEnabled"),
            _ => ("VXLAN", "vxlanEnabled"),
        };
        if self.own.and_then(|own| address(own, net.is_v4())).is_none() {
            let version = if net.is_v4() { "IPv4" } else { "IPv6" };
            return Way::Closed(format!("this node has no {version} address for its end of a {kind} tunnel"));
        }
        match self.is_on(how, net.is_v4()) {
            true => Way::Open(how),
            false => {
                Way::Closed(format!("{kind} is switched off here ({setting}), and its pool asks for it"))
            }
        }
    }

    /// The address of the tunnel's interface of a node, and how packets get there.
    pub(super) fn interfaces(&self, node: &Node) -> impl Iterator<Item = (Cidr, Encapsulation)> {
        let ipip = node.spec.bgp.as_ref().and_then(|bgp| bgp.ipv4_ipip_tunnel_addr);
        let all = [
            (Encapsulation::Ipip, true, ipip),
            (Encapsulation::Vxlan, true, node.spec.ipv4_vxlan_tunnel_addr),
            (Encapsulation::Vxlan, false, node.spec.ipv6_vxlan_tunnel_addr),
        ];
        let on = |(how, v4, address): (Encapsulation, bool, Option<IpAddr>)| {
            address.filter(|_| self.is_on(how, v4)).map(|address| (Cidr::host(address), how))
        };
        let found: Vec<_> = all.into_iter().filter_map(on).collect();
        found.into_iter()
    }

    /// This node has tunnels of the kind: because it was told to, or else some pool asks for them.
    fn is_on(&self, how: Encapsulation, v4: bool) -> bool {
        let told = match (how, v4) {
            (Encapsulation::Ipip, _) => self.settings.first(|spec| spec.ipip_enabled),
            // What is told is told of IPv4.
            (_, true) => self.settings.first(|spec| spec.vxlan_enabled),
            (_, false) => None,
        };
        told.unwrap_or_else(|| {
            self.resources.all::<IpPool>().filter(|pool| pool.spec.cidr.is_v4() == v4).any(|pool| {
                let mode = match how {
                    Encapsulation::Ipip => pool.spec.ipip_mode,
                    _ => pool.spec.vxlan_mode,
                };
                matches!(mode, Some(EncapMode::Always | EncapMode::CrossSubnet))
            })
        })
    }

    fn is_wanted(&self, mode: Option<EncapMode>, gateway: SubnetAddr) -> bool {
        match mode {
            Some(EncapMode::Always) => true,
            Some(EncapMode::CrossSubnet) => !self.is_near(gateway),
            Some(EncapMode::Never) | None => false,
        }
    }

    /// The other node's address is in this node's own subnet.
    fn is_near(&self, gateway: SubnetAddr) -> bool {
        let own = self.own.and_then(|own| address(own, gateway.addr.is_ipv4()));
        own.is_some_and(|own| own.subnet().contains(gateway.addr))
    }
}

/// The address at which tunnels of the node end.
fn address(node: &Node, v4: bool) -> Option<SubnetAddr> {
    node.addresses().find(|address| address.addr.is_ipv4() == v4)
}

fn octets(address: SubnetAddr) -> Vec<u8> {
    Cidr::host(address.addr).octets()
}

/// The inner Ethernet address of the node in VXLAN: the one it gives, or else the one that Calico's
/// nodes make of its name, so that they find each other.
fn mac(node: &Node, v4: bool) -> [u8; 6] {
    node.spec.vxlan_mac(v4).unwrap_or_else(|| {
        let version = if v4 { "" } else { "-v6" };
        let hash = Sha1::digest(format!("{}{version}", node.metadata.name));
        // As of a station, locally given.
        [b'f', hash[0], hash[1], hash[2], hash[3], hash[4]]
    })
}
