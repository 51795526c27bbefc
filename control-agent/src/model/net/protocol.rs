//! IP versions and protocols.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::NumberOrText;
use crate::model::kind::shorten;

/// 4 or 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// 4 or 6.
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl Serialize for IpVersion {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for IpVersion {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        match i64::deserialize(de)? {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            n => Err(de::Error::custom(format!("{n} is not an IP version; write 4 or 6"))),
        }
    }
}

/// An IP protocol number, 1 to 255. Names are read in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMP6: Self = Self(58);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDPLITE: Self = Self(136);

    const NAMES: [(&'static str, Self); 6] = [
        ("TCP", Self::TCP),
        ("UDP", Self::UDP),
        ("SCTP", Self::SCTP),
        ("ICMP", Self::ICMP),
        ("ICMPv6", Self::ICMP6),
        ("UDPLite", Self::UDPLITE),
    ];

    /// As the IP header has it.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The name, where it has one here.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.into_iter().find(|(_, p)| *p == self).map(|(name, _)| name)
    }

    /// A rule of this protocol may name ports: TCP, UDP and SCTP, as in Calico.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// ICMP of either family.
    pub const fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMP6)
    }

    fn from_number(n: i64) -> Option<Self> {
        u8::try_from(n).ok().filter(|n| *n != 0).map(Self)
    }
}

/// Why some text is not a [`Protocol`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a protocol; use TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number 1 to 255")]
pub struct ProtocolError(String);

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(s: &str) -> Result<Self, ProtocolError> {
        let named = Self::NAMES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(s)).map(|(_, p)| p);
        named
            .or_else(|| {
                s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse().ok())?.and_then(Self::from_number)
            })
            .ok_or_else(|| ProtocolError(shorten(s)))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => s.serialize_str(name),
            None => s.serialize_u8(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        match NumberOrText::deserialize(de)? {
            NumberOrText::Number(n) => {
                Self::from_number(n).ok_or_else(|| de::Error::custom(ProtocolError(n.to_string())))
            }
            NumberOrText::Text(s) => s.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        for (text, number) in
            [("tcp", 6), ("Udp", 17), ("ICMPV6", 58), ("udplite", 136), ("6", 6), ("255", 255)]
        {
            assert_eq!(text.parse::<Protocol>().unwrap().number(), number);
        }
        for bad in ["", "0", "256", "-1", "+6", "icmp6", "unknown"] {
            assert!(bad.parse::<Protocol>().is_err(), "{bad}");
        }
        let json = |p: Protocol| serde_json::to_string(&p).unwrap();
        assert_eq!((json(Protocol::ICMP6).as_str(), json(Protocol(7)).as_str()), ("\"ICMPv6\"", "7"));
    }
}
