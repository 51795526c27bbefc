//! Addresses of BGP speakers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::model::kind::shorten;

/// `192.0.2.1`, `2001:db8::1`, `192.0.2.1:1790` or `[2001:db8::1]:1790`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr {
    /// The address.
    pub addr: IpAddr,
    /// Absent: what the peer listens on by configuration, else 179.
    pub port: Option<u16>,
}

/// Why some text is not a [`PeerAddr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the address of a peer; write an address, <IPv4>:<port> or [<IPv6>]:<port>, the port 1 to 65535"
)]
pub struct PeerAddrError(String);

impl FromStr for PeerAddr {
    type Err = PeerAddrError;

    fn from_str(text: &str) -> Result<Self, PeerAddrError> {
        let bare = text.parse().ok().map(|addr| Self { addr, port: None });
        let with_port = || {
            let socket: SocketAddr = text.parse().ok()?;
            (socket.port() != 0 && !text.contains('%'))
                .then(|| Self { addr: socket.ip(), port: Some(socket.port()) })
        };
        bare.or_else(with_port).ok_or_else(|| PeerAddrError(shorten(text)))
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "{}", self.addr),
            Some(port) => write!(f, "{}", SocketAddr::new(self.addr, port)),
        }
    }
}

impl Serialize for PeerAddr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerAddr {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        String::deserialize(de)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for PeerAddr {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PeerAddr".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "An address, <IPv4>:<port> or [<IPv6>]:<port>",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_port() {
        for good in ["192.0.2.1", "192.0.2.1:1790", "2001:db8::1", "[2001:db8::1]:1"] {
            assert_eq!(good.parse::<PeerAddr>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            ":179",
            "192.0.2.1:",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "[192.0.2.1]:5",
            "[::1]",
            "[::1]:",
            "[fe80::1%1]:5",
            "a:1",
        ] {
            assert!(bad.parse::<PeerAddr>().is_err(), "{bad}");
        }
    }
}
