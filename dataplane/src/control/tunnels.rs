//! Tunnels as the agent asks for them.

use super::convert::{self, FieldError};
use crate::fib::{Overlay, TunnelKind};
use crate::net::{Addr, Mac, Prefix};
use margay_api::dataplane::v1 as pb;
use std::sync::Arc;

/// This end of the node's tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlaySettings {
    /// By [`TunnelKind`]; none: switched off.
    near: [Option<Near>; 3],
    /// Where VXLAN goes.
    pub vxlan_port: u16,
    /// The VXLAN network.
    pub network: u32,
    /// Who may send tunnels' packets besides the nodes.
    pub external: Arc<[Prefix]>,
}

/// This end of tunnels of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// This node's address.
    pub address: Addr,
    /// Of VXLAN, its inner Ethernet address.
    pub mac: Mac,
    /// The largest packet inside; none: what the uplinks take.
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
        Self { near: [None; 3], vxlan_port, network, external: Arc::default() }
    }
}

impl OverlaySettings {
    /// This end of a kind's tunnels, if there are any.
    pub fn near(&self, kind: TunnelKind) -> Option<&Near> {
        self.near[kind as usize].as_ref()
    }

    /// Of the message; absent: no tunnels.
    pub fn parse(message: Option<&pb::Overlay>) -> Result<Self, FieldError> {
        let mut settings = Self::default();
        let Some(message) = message else { return Ok(settings) };
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
        let [ipip, vxlan, vxlan6] = &mut settings.near;
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
        Ok(settings)
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
    let least = if v4 { 576 } else { 1280 };
    let mtu = match (mtu, u16::try_from(mtu)) {
        (0, _) => None,
        (_, Ok(mtu)) if mtu >= least => Some(mtu),
        _ => return Err(wrong(mtu_field, format!("{mtu} is not within {least} and 65535"))),
    };
    Ok(Near { address, mac, mtu })
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
        Ok(pb::Encapsulation::Wireguard) => {
            refuse("WireGuard is not supported by this version of the dataplane".into())
        }
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

    #[test]
    fn absent_is_off_and_zero_is_the_default() {
        let off = OverlaySettings::parse(None).unwrap();
        assert!(TunnelKind::ALL.into_iter().all(|kind| off.near(kind).is_none()));
        let on = OverlaySettings::parse(Some(&overlay())).unwrap();
        assert_eq!((on.vxlan_port, on.network), (4789, 4096));
        assert!(on.near(TunnelKind::Ipip).is_some() && on.near(TunnelKind::Vxlan6).is_none());
        let other = pb::Overlay { vxlan_port: 8472, vxlan_vni: 7, vxlan_mtu: 1400, ..overlay() };
        let other = OverlaySettings::parse(Some(&other)).unwrap();
        assert_eq!((other.vxlan_port, other.network), (8472, 7));
        assert_eq!(other.near(TunnelKind::Vxlan4).and_then(|near| near.mtu), Some(1400));
    }

    #[test]
    fn errors_name_the_field() {
        let field = |change: &dyn Fn(&mut pb::Overlay)| {
            let mut message = overlay();
            change(&mut message);
            OverlaySettings::parse(Some(&message)).unwrap_err().field
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
        assert!(kind(Ipip.into(), false).is_err() && kind(Wireguard.into(), true).is_err());
        assert!(kind(99, true).is_err());
    }
}
