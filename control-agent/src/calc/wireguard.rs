//! Encryption between nodes: whether there is any, and with whom.
//!
//! As Calico does it: a node that is told to encrypt says its public key, and nodes that have said theirs reach each other's
//! workloads encrypted, whatever the pool asks for; all others as ever, or not at all where that is asked for.

use super::Resources;
use super::config::Settings;
use crate::model::{Cidr, ENCRYPTION, Node, SubnetAddr, is_required, scalar::Whole};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use margay_api::dataplane::v1::{Wireguard, WireguardPeer};
use std::collections::BTreeMap;

/// On a Node: the lanes in which its dataplane takes WireGuard's packets, as it says itself. Nodes without are any WireGuard.
pub const LANES: &str = "margay.io/wireguard-lanes";

/// The public keys of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnKeys {
    /// Whether there is to be one, for IPv4 and for IPv6.
    pub wanted: [bool; 2],
    /// What the store says of the node; none: it does not know the node.
    pub published: Option<[String; 2]>,
    /// What it says of its [`LANES`].
    pub lanes: Option<String>,
}

/// Encryption as one node has it.
pub(super) struct Encryption<'a> {
    resources: &'a Resources,
    own: Option<&'a Node>,
    settings: Settings<'a>,
}

const VERSIONS: [bool; 2] = [true, false];

impl<'a> Encryption<'a> {
    /// That of `node`.
    pub(super) fn of(resources: &'a Resources, node: &str) -> Self {
        Self { resources, own: resources.get::<Node>("", node), settings: Settings::of(resources, node) }
    }

    /// This end of the tunnels; none where there are none.
    pub(super) fn near(&self, problems: &mut Vec<String>) -> Option<Wireguard> {
        for (v4, version, setting) in
            [(true, "IPv4", "wireguardEnabled"), (false, "IPv6", "wireguardEnabledV6")]
        {
            if self.is_told(v4) && self.address(v4).is_none() {
                problems.push(format!("{setting} has no effect: this node has no {version} address"));
            }
        }
        let [v4, v6] = VERSIONS.map(|v4| self.is_on(v4));
        if !(v4 || v6) {
            return None;
        }
        let [ipv4_address, ipv6_address] = VERSIONS.map(|v4| self.address(v4).map_or(vec![], octets));
        let number = |setting: Option<i64>| setting.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let keepalive = self.settings.first(|spec| spec.wireguard_keep_alive);
        Some(Wireguard {
            ipv4: v4,
            ipv6: v6,
            ipv4_address,
            ipv6_address,
            listening_port: number(self.settings.first(|spec| spec.wireguard_listening_port.map(Whole::get))),
            listening_port_v6: number(
                self.settings.first(|spec| spec.wireguard_listening_port_v6.map(Whole::get)),
            ),
            mtu: number(self.settings.first(|spec| spec.wireguard_mtu)),
            mtu_v6: number(self.settings.first(|spec| spec.wireguard_mtuv6)),
            keepalive_seconds: keepalive.map_or(0, |every| every.as_nanos().div_ceil(1_000_000_000) as u32),
            hosts: seals_host(&self.settings),
        })
    }

    /// The other nodes that have a key, by name.
    pub(super) fn peers(&self) -> BTreeMap<String, WireguardPeer> {
        let own = self.own.map(|own| own.metadata.name.as_str());
        let others = self.resources.all::<Node>().filter(|node| Some(node.metadata.name.as_str()) != own);
        let peer = |node: &Node| {
            let name = &node.metadata.name;
            let [v4, v6] = VERSIONS.map(|v4| {
                let key = self.is_on(v4).then(|| key(node, v4)).flatten()?;
                Some((key, address(node, v4)?, self.port(name, v4)))
            });
            if v4.is_none() && v6.is_none() {
                return None;
            }
            let (public_key, endpoint, endpoint_port) = end(v4);
            let (public_key_v6, endpoint_v6, endpoint_port_v6) = end(v6);
            let peer = WireguardPeer {
                node: name.clone(),
                public_key,
                endpoint,
                endpoint_port,
                public_key_v6,
                endpoint_v6,
                endpoint_port_v6,
                lanes: lanes(node),
                ..WireguardPeer::default()
            };
            Some((name.clone(), peer))
        };
        others.filter_map(peer).collect()
    }

    /// Packets of this IP version to the node's workloads are encrypted: it and this node have said their keys.
    pub(super) fn reaches(&self, node: &Node, v4: bool) -> bool {
        let said = |node: &Node| key(node, v4).is_some() && address(node, v4).is_some();
        self.is_on(v4) && self.own.is_some_and(said) && said(node)
    }

    /// What this host itself sends to that one is encrypted: both are told so, and have said their keys.
    pub(super) fn reaches_host(&self, node: &Node, v4: bool) -> bool {
        seals_host(&self.settings)
            && self.reaches(node, v4)
            && seals_host(&Settings::of(self.resources, &node.metadata.name))
    }

    /// Nothing goes to another node's workloads in clear.
    pub(super) fn is_required(&self) -> bool {
        // Anything else is refused when it is applied.
        self.settings.annotation(ENCRYPTION).is_some_and(|text| is_required(text) != Ok(false))
    }

    /// This node's keys.
    pub(super) fn own_keys(&self) -> OwnKeys {
        let published = self.own.map(|own| {
            let status = own.status.clone().unwrap_or_default();
            [status.wireguard_public_key, status.wireguard_public_key_v6]
        });
        let lanes = self.own.and_then(|own| own.metadata.annotations.get(LANES)).cloned();
        OwnKeys { wanted: VERSIONS.map(|v4| self.is_on(v4)), published, lanes }
    }

    fn is_on(&self, v4: bool) -> bool {
        self.is_told(v4) && self.address(v4).is_some()
    }

    fn is_told(&self, v4: bool) -> bool {
        let told = match v4 {
            true => self.settings.first(|spec| spec.wireguard_enabled),
            false => self.settings.first(|spec| spec.wireguard_enabled_v6),
        };
        told == Some(true)
    }

    fn address(&self, v4: bool) -> Option<SubnetAddr> {
        self.own.and_then(|own| address(own, v4))
    }

    /// Where a node listens; 0 for where nodes do unless they are told otherwise.
    fn port(&self, node: &str, v4: bool) -> u32 {
        let settings = Settings::of(self.resources, node);
        let port = match v4 {
            true => settings.first(|spec| spec.wireguard_listening_port.map(Whole::get)),
            false => settings.first(|spec| spec.wireguard_listening_port_v6.map(Whole::get)),
        };
        port.and_then(|port| u32::try_from(port).ok()).unwrap_or(0)
    }
}

type End = (Vec<u8>, SubnetAddr, u32);

fn end(end: Option<End>) -> (Vec<u8>, Vec<u8>, u32) {
    end.map_or_else(Default::default, |(key, address, port)| (key, octets(address), port))
}

fn seals_host(settings: &Settings<'_>) -> bool {
    settings.first(|spec| spec.wireguard_host_encryption_enabled) == Some(true)
}

/// What is no number says nothing.
fn lanes(node: &Node) -> u32 {
    node.metadata.annotations.get(LANES).and_then(|lanes| lanes.parse().ok()).unwrap_or(0)
}

/// The key that a node has said.
fn key(node: &Node, v4: bool) -> Option<Vec<u8>> {
    let status = node.status.as_ref()?;
    let text = if v4 { &status.wireguard_public_key } else { &status.wireguard_public_key_v6 };
    STANDARD.decode(text).ok().filter(|key| key.len() == 32)
}

fn address(node: &Node, v4: bool) -> Option<SubnetAddr> {
    node.addresses().find(|address| address.addr.is_ipv4() == v4)
}

fn octets(address: SubnetAddr) -> Vec<u8> {
    Cidr::host(address.addr).octets()
}
