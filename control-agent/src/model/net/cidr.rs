//! Prefixes, and addresses on their subnet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::model::kind::shorten;

/// A prefix whose bits behind the length are zero. An address alone is its /32 or /128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    addr: IpAddr,
    len: u8,
}

/// Why some text is not a prefix or an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Neither IPv4 nor IPv6.
    #[error("{0:?} is not an address or prefix; write it as 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32")]
    Malformed(String),
    /// `/33`
    #[error("{0:?} has a length beyond {1}, that of the address")]
    TooLong(String, u8),
    /// `10.0.0.1/8`
    #[error("{0:?} has bits set behind its length; did you mean {1}?")]
    HostBits(String, Cidr),
    /// `::ffff:10.0.0.1`
    #[error("{0:?} is an IPv4 address written as IPv6; write the IPv4 address itself")]
    Mapped(String),
}

impl Cidr {
    /// The prefix of length `len` that holds `addr`; a `len` too large means the address itself.
    pub fn truncate(addr: IpAddr, len: u8) -> Self {
        let len = len.min(max_len(addr));
        let keep = |bits: u32| u128::MAX.checked_shl(bits - u32::from(len)).unwrap_or(0);
        let addr = match addr {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from(a.to_bits() & keep(32) as u32)),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from(a.to_bits() & keep(128))),
        };
        Self { addr, len }
    }

    /// `addr/32` or `addr/128`.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: max_len(addr) }
    }

    /// The lowest address.
    pub const fn addr(self) -> IpAddr {
        self.addr
    }

    /// 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[allow(clippy::len_without_is_empty, reason = "the length of a prefix is not a count")]
    pub const fn len(self) -> u8 {
        self.len
    }

    /// IPv4.
    pub const fn is_v4(self) -> bool {
        self.addr.is_ipv4()
    }

    /// One address only.
    pub fn is_host(self) -> bool {
        self.len == max_len(self.addr)
    }

    /// The address bytes in network order: 4 or 16.
    pub fn octets(self) -> Vec<u8> {
        match self.addr {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        }
    }

    /// `addr` is of the same family and within.
    pub fn contains(self, addr: IpAddr) -> bool {
        self.is_v4() == addr.is_ipv4() && Self::truncate(addr, self.len).addr == self.addr
    }

    /// Some address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.addr) || other.contains(self.addr)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(s: &str) -> Result<Self, CidrError> {
        let (addr, len) = split(s)?;
        let canonical = Self::truncate(addr, len);
        if canonical.addr == addr { Ok(canonical) } else { Err(CidrError::HostBits(shorten(s), canonical)) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// For fields in which Calico takes `10.0.0.1/8` for 10.0.0.0/8.
pub(in crate::model) fn subnet<'de, D: Deserializer<'de>>(de: D) -> Result<Cidr, D::Error> {
    SubnetAddr::deserialize(de).map(SubnetAddr::subnet)
}

/// The same for lists.
pub(in crate::model) fn subnets<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<Cidr>, D::Error> {
    Ok(Vec::<SubnetAddr>::deserialize(de)?.into_iter().map(SubnetAddr::subnet).collect())
}

/// An address, and the length of the subnet it is on. Without a length: of the address itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetAddr {
    /// The address itself, not the subnet's.
    pub addr: IpAddr,
    len: u8,
}

impl SubnetAddr {
    /// The subnet.
    pub fn subnet(self) -> Cidr {
        Cidr::truncate(self.addr, self.len)
    }
}

impl FromStr for SubnetAddr {
    type Err = CidrError;

    fn from_str(s: &str) -> Result<Self, CidrError> {
        split(s).map(|(addr, len)| Self { addr, len })
    }
}

impl fmt::Display for SubnetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

fn split(s: &str) -> Result<(IpAddr, u8), CidrError> {
    let malformed = || CidrError::Malformed(shorten(s));
    let (addr, len) = match s.split_once('/') {
        Some((addr, len)) => (addr, Some(len)),
        None => (s, None),
    };
    let addr: IpAddr = addr.parse().map_err(|_| malformed())?;
    if matches!(addr, IpAddr::V6(a) if a.to_ipv4_mapped().is_some()) {
        return Err(CidrError::Mapped(shorten(s)));
    }
    let max = max_len(addr);
    let len = match len {
        None => max,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|n| *n <= max).ok_or_else(|| CidrError::TooLong(shorten(s), max))?
        }
        Some(_) => return Err(malformed()),
    };
    Ok((addr, len))
}

const fn max_len(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

macro_rules! serde_as_text {
    ($($t:ty),*) => {$(
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                String::deserialize(de)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(Cidr, SubnetAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_round_trip_or_name_the_remedy() {
        for s in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(s.parse::<Cidr>().unwrap().to_string(), s);
        }
        assert_eq!("10.1.2.3".parse::<Cidr>().unwrap().to_string(), "10.1.2.3/32");
        let e = "10.0.0.1/8".parse::<Cidr>().unwrap_err().to_string();
        assert!(e.contains("did you mean 10.0.0.0/8?"), "{e}");
        for bad in [
            "",
            "x",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.00.0.1",
            "::ffff:1.2.3.4",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
            assert!(bad.parse::<SubnetAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn overlap_is_containment_one_way_or_the_other() {
        let p = |s: &str| s.parse::<Cidr>().unwrap();
        assert!(p("10.0.0.0/8").overlaps(p("10.1.0.0/16")) && p("10.1.0.0/16").overlaps(p("10.0.0.0/8")));
        assert!(!p("10.0.0.0/16").overlaps(p("10.1.0.0/16")));
        assert!(!p("0.0.0.0/0").overlaps(p("::/0")));
        assert!(p("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
    }

    #[test]
    fn a_node_address_keeps_its_host_bits() {
        let a: SubnetAddr = "10.0.0.7/24".parse().unwrap();
        assert_eq!((a.to_string().as_str(), a.subnet().to_string().as_str()), ("10.0.0.7/24", "10.0.0.0/24"));
    }
}
