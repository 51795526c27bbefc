//! A peer of WireGuard's, as the agent names it.

use crate::control::convert::{self, FieldError};
use crate::fib::TunnelKind;
use crate::net::Addr;
use crate::wireguard::{Endpoint, LANES, PublicKey};
use margay_api::dataplane::v1 as pb;
use std::sync::Arc;

/// Where WireGuard listens unless it is said otherwise: over IPv4 and IPv6, as Calico has it.
const PORTS: [u16; 2] = [51_820, 51_821];

/// Another node: its ends of tunnels over IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireguardPeer {
    /// By family.
    pub ends: [Option<PeerAt>; 2],
    /// Lanes that it takes packets in; 0: it is any WireGuard.
    pub lanes: u8,
}

/// One end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAt {
    /// Its key.
    pub public: PublicKey,
    /// Where it is said to be; its address is that which routes name.
    pub endpoint: Endpoint,
}

impl WireguardPeer {
    /// The node's name, and its ends.
    pub fn parse(message: &pb::WireguardPeer) -> Result<(Arc<str>, Self), FieldError> {
        if message.node.is_empty() {
            return Err(FieldError::new("node", "missing"));
        }
        let v4 = end(
            ["public_key", "endpoint", "endpoint_port"],
            (&message.public_key, &message.endpoint, message.endpoint_port),
            TunnelKind::Wireguard4,
        )?;
        let v6 = end(
            ["public_key_v6", "endpoint_v6", "endpoint_port_v6"],
            (&message.public_key_v6, &message.endpoint_v6, message.endpoint_port_v6),
            TunnelKind::Wireguard6,
        )?;
        // More than we have would be no use.
        let lanes = message.lanes.min(LANES as u32) as u8;
        Ok((message.node.as_str().into(), Self { ends: [v4, v6], lanes }))
    }
}

/// The port in the field of this name, or that of a kind where it is 0.
pub fn port(field: &str, port: u32, kind: TunnelKind) -> Result<u16, FieldError> {
    match port {
        0 => Ok(PORTS[usize::from(!kind.is_v4())]),
        _ => u16::try_from(port)
            .map_err(|_| FieldError::new(field, format!("{port} is no port; give one up to 65535"))),
    }
}

/// A node's own address of the kind's family, in the field of this name.
pub fn address(field: &str, bytes: &[u8], kind: TunnelKind) -> Result<Addr, FieldError> {
    let address = convert::addr(field, bytes)?;
    if address.is_v4() != kind.is_v4() || address.is_unspecified() || address.is_multicast() {
        let family = if kind.is_v4() { "IPv4" } else { "IPv6" };
        return Err(FieldError::new(field, format!("{address} is no {family} address of a node")));
    }
    Ok(address)
}

fn end(
    [key_field, address_field, port_field]: [&str; 3],
    (key, at, port_number): (&[u8], &[u8], u32),
    kind: TunnelKind,
) -> Result<Option<PeerAt>, FieldError> {
    if key.is_empty() {
        return Ok(None);
    }
    let public = <[u8; 32]>::try_from(key)
        .map_err(|_| FieldError::new(key_field, format!("a public key has 32 bytes, not {}", key.len())))?;
    let endpoint = (address(address_field, at, kind)?, port(port_field, port_number, kind)?);
    Ok(Some(PeerAt { public: PublicKey(public), endpoint }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> pb::WireguardPeer {
        pb::WireguardPeer {
            node: "b".into(),
            public_key: vec![9; 32],
            endpoint: vec![192, 168, 0, 2],
            ..pb::WireguardPeer::default()
        }
    }

    #[test]
    fn one_end_for_each_key() {
        let (name, peer) = WireguardPeer::parse(&message()).unwrap();
        let endpoint = (Addr::v4([192, 168, 0, 2]), 51_820);
        assert_eq!(&*name, "b");
        assert_eq!(peer.ends, [Some(PeerAt { public: PublicKey([9; 32]), endpoint }), None]);
        let both = pb::WireguardPeer {
            public_key_v6: vec![8; 32],
            endpoint_v6: [&[0xfd][..], &[0; 15]].concat(),
            endpoint_port_v6: 4000,
            ..message()
        };
        let (_, peer) = WireguardPeer::parse(&both).unwrap();
        assert_eq!(peer.ends[1].unwrap().endpoint.1, 4000);
        let lanes = |lanes| WireguardPeer::parse(&pb::WireguardPeer { lanes, ..message() }).unwrap().1.lanes;
        assert_eq!([0, 1, 16, 4_000].map(lanes), [0, 1, 16, 16]);
    }

    #[test]
    fn errors_name_the_field() {
        let field = |change: &dyn Fn(&mut pb::WireguardPeer)| {
            let mut message = message();
            change(&mut message);
            WireguardPeer::parse(&message).unwrap_err().field
        };
        assert_eq!(field(&|m| m.node.clear()), "node");
        assert_eq!(field(&|m| m.public_key.truncate(31)), "public_key");
        assert_eq!(field(&|m| m.endpoint.clear()), "endpoint");
        assert_eq!(field(&|m| m.endpoint = vec![1; 16]), "endpoint");
        assert_eq!(field(&|m| m.endpoint_port = 65_536), "endpoint_port");
        assert_eq!(field(&|m| m.public_key_v6 = vec![1; 32]), "endpoint_v6");
    }
}
