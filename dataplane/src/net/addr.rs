//! One address type for both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address in 128 bits; IPv4 as its mapped form `::ffff:a.b.c.d`.
///
/// Mapped addresses never appear on a wire (RFC 4291 §2.5.5.2; `parse` drops an IPv6 packet
/// that carries one), so the family follows from the value and keys need no tag.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr {
    hi: u64,
    lo: u64,
}

const V4: u64 = 0xffff << 32;

impl Addr {
    /// From four bytes in network order.
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self { hi: 0, lo: V4 | u32::from_be_bytes(octets) as u64 }
    }

    /// From sixteen bytes in network order.
    #[inline]
    pub const fn v6(octets: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(octets);
        Self { hi: (bits >> 64) as u64, lo: bits as u64 }
    }

    /// From 128 bits, IPv4 mapped.
    #[inline]
    pub const fn from_bits(bits: u128) -> Self {
        Self { hi: (bits >> 64) as u64, lo: bits as u64 }
    }

    /// As 128 bits, IPv4 mapped. Orders as the addresses do.
    #[inline]
    pub const fn bits(self) -> u128 {
        (self.hi as u128) << 64 | self.lo as u128
    }

    /// IPv4, that is, mapped.
    #[inline]
    pub const fn is_v4(self) -> bool {
        self.hi == 0 && self.lo >> 32 == 0xffff
    }

    /// The IPv4 address as a number; meaningless for IPv6.
    #[inline]
    pub const fn v4_bits(self) -> u32 {
        self.lo as u32
    }

    /// The four bytes of an IPv4 address.
    #[inline]
    pub const fn v4_octets(self) -> [u8; 4] {
        (self.lo as u32).to_be_bytes()
    }

    /// The sixteen bytes, IPv4 mapped.
    #[inline]
    pub const fn octets(self) -> [u8; 16] {
        self.bits().to_be_bytes()
    }

    /// 4 or 16 bytes as they stand in a message; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            4 => Some(Self::v4(bytes.try_into().ok()?)),
            16 => Some(Self::v6(bytes.try_into().ok()?)),
            _ => None,
        }
    }

    /// Multicast, and for IPv4 also the limited broadcast.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        if self.is_v4() {
            let a = self.v4_bits();
            a >> 28 == 0xe || a == u32::MAX
        } else {
            self.hi >> 56 == 0xff
        }
    }

    /// Valid only on one link: 169.254.0.0/16 and fe80::/10.
    #[inline]
    pub const fn is_link_local(self) -> bool {
        if self.is_v4() { self.v4_bits() >> 16 == 0xa9fe } else { self.hi >> 54 == 0xfe80 >> 6 }
    }

    /// 0.0.0.0 or ::
    #[inline]
    pub const fn is_unspecified(self) -> bool {
        self.hi == 0 && (self.lo == 0 || self.lo == V4)
    }

    /// 127.0.0.0/8 or ::1
    #[inline]
    pub const fn is_loopback(self) -> bool {
        if self.is_v4() { self.v4_bits() >> 24 == 127 } else { self.hi == 0 && self.lo == 1 }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(a) => Self::v4(a.octets()),
            IpAddr::V6(a) => Self::v6(a.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(a: Addr) -> Self {
        if a.is_v4() { IpAddr::V4(Ipv4Addr::from(a.v4_bits())) } else { IpAddr::V6(Ipv6Addr::from(a.bits())) }
    }
}

impl std::str::FromStr for Addr {
    type Err = std::net::AddrParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse::<IpAddr>().map(Self::from)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(s: &str) -> Addr {
        s.parse().unwrap()
    }

    #[test]
    fn both_families_survive_the_round_trip() {
        for s in ["0.0.0.0", "10.65.0.2", "255.255.255.255", "::", "::1", "fe80::1", "2001:db8::ff"] {
            assert_eq!(addr(s).to_string(), s);
            assert_eq!(addr(s).is_v4(), s.contains('.'));
        }
    }

    #[test]
    fn scopes() {
        assert!(addr("224.0.0.1").is_multicast() && addr("255.255.255.255").is_multicast());
        assert!(addr("ff02::1").is_multicast() && !addr("fe80::1").is_multicast());
        assert!(addr("169.254.1.1").is_link_local() && addr("fe80::1").is_link_local());
        assert!(!addr("fec0::1").is_link_local() && !addr("169.253.1.1").is_link_local());
        assert!(addr("0.0.0.0").is_unspecified() && addr("::").is_unspecified());
        assert!(addr("127.0.0.1").is_loopback() && addr("::1").is_loopback());
    }
}
