//! Tunnels as the agent asks for them.

use super::convert::{self, FieldError};
use super::interface_pattern::InterfacePattern;
use super::wireguard;
use crate::fib::{KINDS, OfWorkloads, Overlay, TunnelKind};
use crate::net::{Addr, Mac, Nanos, Prefix};
use margay_api::dataplane::v1 as pb;
use std::sync::Arc;

/// This end of the node's tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlaySettings {
    /// By [`TunnelKind`]; none: switched off.
    near: [Option<Near>; KINDS],
    /// Where VXLAN goes.
    pub vxlan_port: u16,
    /// The VXLAN network.
    pub network: u32,
    /// Who may send tunnels' packets besides the nodes.
    pub external: Arc<[Prefix]>,
    /// How often WireGuard's peers are to hear from us.
    pub keepalive: Option<Nanos>,
    /// The host's own packets go by WireGuard's tunnels, too.
    pub seals_hosts: bool,
    /// Which tunnels workloads may make of their own.
    pub of_workloads: OfWorkloads,
    /// Which interfaces say what the host takes; none: the uplinks.
    pub mtu_interfaces: Option<InterfacePattern>,
}

/// This end of tunnels of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// This node's address.
    pub address: Addr,
    /// Of VXLAN, its inner Ethernet address.
    pub mac: Mac,
    /// Of WireGuard, where it listens.
    pub port: u16,
    /// The largest packet inside; none: what the host takes.
    pub mtu: Option<u16>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelNode {
    /// Its address, and for VXLAN its inner Ethernet address, by IP version.
    pub ends: [Option<(Addr, Option<Mac>)>; 2],
}

impl Default for OverlaySettings {
    fn default() -> Self {
        let Overlay { vxlan_port, network, .. } = Overlay::default();
        Self {
            near: [None; KINDS],
            vxlan_port,
            network,
            external: Arc::default(),
            keepalive: None,
            seals_hosts: false,
            of_workloads: OfWorkloads::default(),
            mtu_interfaces: None,
        }
    }
}

impl OverlaySettings {
    /// This end of a kind's tunnels, if there are any.
    pub fn near(&self, kind: TunnelKind) -> Option<&Near> {
        self.near[kind as usize].as_ref()
    }

    /// Of the node's configuration; without a message of theirs there are no tunnels.
    pub fn parse(config: &pb::NodeConfig) -> Result<Self, FieldError> {
        let of_workloads =
            OfWorkloads { ipip: config.allow_ipip_from_workloads, vxlan: config.allow_vxlan_from_workloads };
        let mtu_interfaces = InterfacePattern::parse(config)?;
        let mut settings = Self { of_workloads, mtu_interfaces, ..Self::default() };
        if let Some(message) = &config.wireguard {
            settings.parse_wireguard(message).map_err(|error| error.within("wireguard"))?;
        }
        let Some(message) = &config.overlay else { return Ok(settings) };
        if message.vxlan_port != 0 {
            settings.vxlan_port = u16::try_from(message.vxlan_port)
                .map_err(|_| wrong("vxlan_port", format!("{} is no port", message.vxlan_port)))?;
        }
        if message.vxlan_vni >= 1 << 24 {
            let why = format!("{} has more than 24 bits; give one below 16777216", message.vxlan_vni);
            return Err(wrong("vxlan_vni", why));
        }
        if message.vxlan_vni != 0 {
            settings.network = message.vxlan_vni;
        }
        settings.external = convert::prefixes("overlay.external_nodes", &message.external_nodes)?.into();
        let [ipip, vxlan, vxlan6, ..] = &mut settings.near;
        let (v4, v6) = (&message.ipv4_address, &message.ipv6_address);
        if message.ipip {
            *ipip = Some(near(("ipv4_address", v4), None, ("ipip_mtu", message.ipip_mtu))?);
        }
        if message.vxlan {
            let mac = Some(("mac", &message.mac));
            *vxlan = Some(near(("ipv4_address", v4), mac, ("vxlan_mtu", message.vxlan_mtu))?);
        }
        if message.vxlan_v6 {
            let mac = Some(("mac_v6", &message.mac_v6));
            *vxlan6 = Some(near(("ipv6_address", v6), mac, ("vxlan_v6_mtu", message.vxlan_v6_mtu))?);
        }
        let [vxlan, vxlan6] = [vxlan.is_some(), vxlan6.is_some()];
        for (kind, on) in TunnelKind::WIREGUARD.into_iter().zip([vxlan, vxlan6]) {
            if on && settings.near(kind).is_some_and(|near| near.port == settings.vxlan_port) {
                let why = format!("{} is VXLAN's port, too; give one of them another", settings.vxlan_port);
                return Err(wrong("vxlan_port", why));
            }
        }
        Ok(settings)
    }

    fn parse_wireguard(&mut self, message: &pb::Wireguard) -> Result<(), FieldError> {
        let [.., v4, v6] = &mut self.near;
        if message.ipv4 {
            *v4 = Some(Near {
                address: wireguard::address("ipv4_address", &message.ipv4_address, TunnelKind::Wireguard4)?,
                mac: Mac::default(),
                port: wireguard::port("listening_port", message.listening_port, TunnelKind::Wireguard4)?,
                mtu: mtu_of("mtu", message.mtu, true)?,
            });
        }
        if message.ipv6 {
            *v6 = Some(Near {
                address: wireguard::address("ipv6_address", &message.ipv6_address, TunnelKind::Wireguard6)?,
                mac: Mac::default(),
                port: wireguard::port(
                    "listening_port_v6",
                    message.listening_port_v6,
                    TunnelKind::Wireguard6,
                )?,
                mtu: mtu_of("mtu_v6", message.mtu_v6, false)?,
            });
        }
        if message.keepalive_seconds > 65_535 {
            let why = format!("{} is more than 65535", message.keepalive_seconds);
            return Err(FieldError::new("keepalive_seconds", why));
        }
        let every = Nanos::from_secs(message.keepalive_seconds.into());
        self.keepalive = (every.0 > 0).then_some(every);
        self.seals_hosts = message.hosts && (message.ipv4 || message.ipv6);
        Ok(())
    }
}

fn near(
    (field, address): (&str, &[u8]),
    mac: Option<(&str, &Vec<u8>)>,
    (mtu_field, mtu): (&str, u32),
) -> Result<Near, FieldError> {
    let v4 = field == "ipv4_address";
    let address = address_of(field, address, v4).map_err(|error| error.within("overlay"))?;
    let mac = match mac {
        None => Mac::default(),
        Some((field, bytes)) => convert::mac(field, bytes)
            .map_err(|error| error.within("overlay"))?
            .ok_or_else(|| wrong(field, "missing; VXLAN needs this node's inner Ethernet address"))?,
    };
    let mtu = mtu_of(mtu_field, mtu, v4).map_err(|error| error.within("overlay"))?;
    Ok(Near { address, mac, port: 0, mtu })
}

fn mtu_of(field: &str, mtu: u32, v4: bool) -> Result<Option<u16>, FieldError> {
    let least = if v4 { 576 } else { 1280 };
    match (mtu, u16::try_from(mtu)) {
        (0, _) => Ok(None),
        (_, Ok(mtu)) if mtu >= least => Ok(Some(mtu)),
        _ => Err(FieldError::new(field, format!("{mtu} is not within {least} and 65535"))),
    }
}

fn address_of(field: &str, bytes: &[u8], v4: bool) -> Result<Addr, FieldError> {
    let address = convert::addr(field, bytes)?;
    if address.is_v4() != v4 || address.is_unspecified() || address.is_multicast() {
        let family = if v4 { "IPv4" } else { "IPv6" };
        return Err(FieldError::new(field, format!("{address} is no {family} address of a node")));
    }
    Ok(address)
}

fn wrong(field: &str, why: impl std::fmt::Display) -> FieldError {
    FieldError::new(field, why).within("overlay")
}

impl TunnelNode {
    /// The node's name, and its ends.
    pub fn parse(message: &pb::TunnelEndpoint) -> Result<(Arc<str>, Self), FieldError> {
        if message.node.is_empty() {
            return Err(FieldError::new("node", "missing"));
        }
        let end = |(field, address): (&str, &Vec<u8>), (mac_field, mac): (&str, &Vec<u8>)| {
            if address.is_empty() {
                return Ok(None);
            }
            let address = address_of(field, address, field == "parent_ipv4")?;
            Ok(Some((address, convert::mac(mac_field, mac)?)))
        };
        let v4 = end(("parent_ipv4", &message.parent_ipv4), ("mac", &message.mac))?;
        let v6 = end(("parent_ipv6", &message.parent_ipv6), ("mac_v6", &message.mac_v6))?;
        if v4.is_none() && v6.is_none() {
            return Err(FieldError::new(
                "parent_ipv4",
                "missing, as is parent_ipv6; give the node's address",
            ));
        }
        Ok((message.node.as_str().into(), Self { ends: [v4, v6] }))
    }
}

/// The kind of tunnel that a route leads into; none: it is forwarded as it is.
pub(super) fn kind(encapsulation: i32, v4: bool) -> Result<Option<TunnelKind>, FieldError> {
    let refuse = |why: String| Err(FieldError::new("encapsulation", why));
    match pb::Encapsulation::try_from(encapsulation) {
        Ok(pb::Encapsulation::None) => Ok(None),
        Ok(pb::Encapsulation::Ipip) if v4 => Ok(Some(TunnelKind::Ipip)),
        Ok(pb::Encapsulation::Ipip) => refuse("IPIP carries IPv4 only; use VXLAN for IPv6".into()),
        Ok(pb::Encapsulation::Vxlan) if v4 => Ok(Some(TunnelKind::Vxlan4)),
        Ok(pb::Encapsulation::Vxlan) => Ok(Some(TunnelKind::Vxlan6)),
        Ok(pb::Encapsulation::Wireguard) => Ok(Some(TunnelKind::WIREGUARD[usize::from(!v4)])),
        Err(_) => refuse(format!("{encapsulation} is none of this version's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay() -> pb::Overlay {
        pb::Overlay {
            ipv4_address: vec![10, 0, 0, 1],
            ipip: true,
            vxlan: true,
            mac: vec![0x66, 1, 2, 3, 4, 5],
            ..pb::Overlay::default()
        }
    }

    fn parsed(overlay: pb::Overlay) -> Result<OverlaySettings, FieldError> {
        OverlaySettings::parse(&pb::NodeConfig { overlay: Some(overlay), ..pb::NodeConfig::default() })
    }

    fn wireguard() -> pb::Wireguard {
        pb::Wireguard {
            ipv4: true,
            ipv4_address: vec![10, 0, 0, 1],
            ipv6: true,
            ipv6_address: [&[0xfd][..], &[0; 15]].concat(),
            keepalive_seconds: 25,
            ..pb::Wireguard::default()
        }
    }

    #[test]
    fn wireguard_listens_where_calico_does_or_is_told_to() {
        let parse = |message: pb::Wireguard, overlay| {
            let config = pb::NodeConfig { wireguard: Some(message), overlay, ..pb::NodeConfig::default() };
            OverlaySettings::parse(&config)
        };
        let settings = parse(wireguard(), None).unwrap();
        let ports = TunnelKind::WIREGUARD.map(|kind| settings.near(kind).unwrap().port);
        assert_eq!((ports, settings.keepalive), ([51_820, 51_821], Some(Nanos::from_secs(25))));
        let field = |change: &dyn Fn(&mut pb::Wireguard)| {
            let mut message = wireguard();
            change(&mut message);
            parse(message, Some(overlay())).unwrap_err().field
        };
        assert_eq!(field(&|m| m.ipv4_address.clear()), "wireguard.ipv4_address");
        assert_eq!(field(&|m| m.ipv6_address.truncate(4)), "wireguard.ipv6_address");
        assert_eq!(field(&|m| m.listening_port = 70_000), "wireguard.listening_port");
        assert_eq!(field(&|m| m.mtu_v6 = 1279), "wireguard.mtu_v6");
        assert_eq!(field(&|m| m.keepalive_seconds = 70_000), "wireguard.keepalive_seconds");
        assert_eq!(field(&|m| m.listening_port = 4789), "overlay.vxlan_port");
    }

    #[test]
    fn absent_is_off_and_zero_is_the_default() {
        let off = OverlaySettings::parse(&pb::NodeConfig::default()).unwrap();
        assert!(TunnelKind::ALL.into_iter().all(|kind| off.near(kind).is_none()));
        let on = parsed(overlay()).unwrap();
        assert_eq!((on.vxlan_port, on.network), (4789, 4096));
        assert!(on.near(TunnelKind::Ipip).is_some() && on.near(TunnelKind::Vxlan6).is_none());
        let other = pb::Overlay { vxlan_port: 8472, vxlan_vni: 7, vxlan_mtu: 1400, ..overlay() };
        let other = parsed(other).unwrap();
        assert_eq!((other.vxlan_port, other.network), (8472, 7));
        assert_eq!(other.near(TunnelKind::Vxlan4).and_then(|near| near.mtu), Some(1400));
    }

    #[test]
    fn errors_name_the_field() {
        let field = |change: &dyn Fn(&mut pb::Overlay)| {
            let mut message = overlay();
            change(&mut message);
            parsed(message).unwrap_err().field
        };
        assert_eq!(field(&|m| m.vxlan_port = 65_536), "overlay.vxlan_port");
        assert_eq!(field(&|m| m.vxlan_vni = 1 << 24), "overlay.vxlan_vni");
        assert_eq!(field(&|m| m.vxlan_mtu = 100), "overlay.vxlan_mtu");
        assert_eq!(field(&|m| m.ipip_mtu = 70_000), "overlay.ipip_mtu");
        assert_eq!(field(&|m| m.mac = vec![]), "overlay.mac");
        assert_eq!(field(&|m| m.mac = vec![1; 6]), "overlay.mac", "a group's");
        assert_eq!(field(&|m| m.ipv4_address = vec![0; 4]), "overlay.ipv4_address");
        assert_eq!(field(&|m| m.vxlan_v6 = true), "overlay.ipv6_address");
        let bad = pb::Prefix { address: vec![1], length: 0 };
        assert_eq!(field(&|m| m.external_nodes = vec![bad.clone()]), "overlay.external_nodes[0]");
    }

    #[test]
    fn nodes_need_a_name_and_an_address() {
        let node = pb::TunnelEndpoint {
            node: "b".into(),
            parent_ipv6: vec![0xfd; 16],
            mac_v6: vec![0x66; 6],
            ..pb::TunnelEndpoint::default()
        };
        let (name, parsed) = TunnelNode::parse(&node).unwrap();
        assert_eq!((&*name, parsed.ends[0], parsed.ends[1].unwrap().1), ("b", None, Some(Mac([0x66; 6]))));
        let nowhere = pb::TunnelEndpoint { parent_ipv6: vec![], ..node.clone() };
        assert_eq!(TunnelNode::parse(&nowhere).unwrap_err().field, "parent_ipv4");
        let nameless = pb::TunnelEndpoint { node: String::new(), ..node };
        assert_eq!(TunnelNode::parse(&nameless).unwrap_err().field, "node");
    }

    #[test]
    fn which_tunnels_carry_what() {
        use pb::Encapsulation::{Ipip, None as Plain, Vxlan, Wireguard};
        assert_eq!(kind(Plain.into(), true), Ok(None));
        assert_eq!(kind(Ipip.into(), true), Ok(Some(TunnelKind::Ipip)));
        assert_eq!(kind(Vxlan.into(), false), Ok(Some(TunnelKind::Vxlan6)));
        assert_eq!(kind(Wireguard.into(), true), Ok(Some(TunnelKind::Wireguard4)));
        assert_eq!(kind(Wireguard.into(), false), Ok(Some(TunnelKind::Wireguard6)));
        assert!(kind(Ipip.into(), false).is_err());
        assert!(kind(99, true).is_err());
    }
}
