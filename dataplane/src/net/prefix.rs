//! Address prefixes.

use super::Addr;
use std::fmt;

/// A CIDR block. Bits behind the length are zero: the constructor refuses others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    addr: Addr,
    len: u8,
}

/// Why some text or bytes are not a [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Neither IPv4 nor IPv6.
    #[error("{0:?} is not an IPv4 or IPv6 prefix; write it as 10.0.0.0/8 or 2001:db8::/32")]
    NotAPrefix(String),
    /// Longer than the address.
    #[error("prefix length {len} is larger than {max}, the length of an {family} address")]
    TooLong {
        /// As given.
        len: u32,
        /// 32 or 128.
        max: u32,
        /// "IPv4" or "IPv6".
        family: &'static str,
    },
    /// `10.0.0.1/8`
    #[error("{addr}/{len} has bits set behind its length; did you mean {canonical}?")]
    HostBits {
        /// As given.
        addr: Addr,
        /// As given.
        len: u8,
        /// What remains after masking.
        canonical: Prefix,
    },
    /// `::ffff:a.b.c.d/n`: means IPv4, but says IPv6.
    #[error("{0} is an IPv4-mapped prefix; write the IPv4 prefix itself")]
    Mapped(String),
}

impl Prefix {
    /// `addr/len` with `len` in the terms of the address's own family.
    pub fn new(addr: Addr, len: u32) -> Result<Self, PrefixError> {
        let (max, family) = if addr.is_v4() { (32, "IPv4") } else { (128, "IPv6") };
        if len > max {
            return Err(PrefixError::TooLong { len, max, family });
        }
        let canonical = Self::truncate(addr, len as u8);
        if canonical.addr != addr {
            return Err(PrefixError::HostBits { addr, len: len as u8, canonical });
        }
        Ok(canonical)
    }

    /// The prefix of length `len` that holds `addr`; a `len` too large means the address itself.
    pub fn truncate(addr: Addr, len: u8) -> Self {
        let len = len.min(Self::max_len(addr));
        let host_bits = u32::from(Self::max_len(addr) - len);
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        // A v4 mask of length 0 must leave the mapped marker alone.
        let keep = if addr.is_v4() { mask | !u128::from(u32::MAX) } else { mask };
        Self { addr: Addr::from_bits(addr.bits() & keep), len }
    }

    /// `addr/32` or `addr/128`.
    pub fn host(addr: Addr) -> Self {
        Self { addr, len: Self::max_len(addr) }
    }

    /// From an API message: 4 or 16 bytes and a length.
    pub fn from_bytes(address: &[u8], len: u32) -> Result<Self, PrefixError> {
        let addr = Addr::from_slice(address)
            .ok_or_else(|| PrefixError::NotAPrefix(format!("{} bytes", address.len())))?;
        if address.len() == 16 && addr.is_v4() {
            return Err(PrefixError::Mapped(format!("::ffff:{addr}")));
        }
        Self::new(addr, len)
    }

    const fn max_len(addr: Addr) -> u8 {
        if addr.is_v4() { 32 } else { 128 }
    }

    /// The lowest address.
    #[inline]
    pub const fn addr(self) -> Addr {
        self.addr
    }

    /// 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix, not of a collection")]
    pub const fn len(self) -> u8 {
        self.len
    }

    /// The whole address space of its family.
    pub const fn is_default(self) -> bool {
        self.len == 0
    }

    /// IPv4.
    #[inline]
    pub const fn is_v4(self) -> bool {
        self.addr.is_v4()
    }

    /// The highest address.
    pub fn last(self) -> Addr {
        let host_bits = u32::from(Self::max_len(self.addr) - self.len);
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Addr::from_bits(if self.is_v4() {
            self.addr.bits() | (!mask & u128::from(u32::MAX))
        } else {
            self.addr.bits() | !mask
        })
    }

    /// `addr` is of the same family and within.
    pub fn contains(self, addr: Addr) -> bool {
        self.is_v4() == addr.is_v4() && Self::truncate(addr, self.len).addr == self.addr
    }

    /// Every address of `other` is within.
    pub fn covers(self, other: Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

impl std::str::FromStr for Prefix {
    type Err = PrefixError;

    /// `10.0.0.0/8`, `2001:db8::/32`, or an address alone for a host prefix.
    fn from_str(s: &str) -> Result<Self, PrefixError> {
        let bad = || PrefixError::NotAPrefix(s.to_owned());
        let (addr, len) = match s.split_once('/') {
            Some((a, l)) => (a, Some(l.parse::<u32>().map_err(|_| bad())?)),
            None => (s, None),
        };
        let ip: std::net::IpAddr = addr.parse().map_err(|_| bad())?;
        let addr = Addr::from(ip);
        if ip.is_ipv6() && addr.is_v4() {
            return Err(PrefixError::Mapped(s.to_owned()));
        }
        match len {
            Some(len) => Self::new(addr, len),
            None => Ok(Self::host(addr)),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    #[test]
    fn parses_and_prints() {
        for s in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(p(s).to_string(), s);
        }
        assert_eq!(p("10.1.2.3").to_string(), "10.1.2.3/32");
    }

    #[test]
    fn refuses_with_the_remedy() {
        let e = "10.0.0.1/8".parse::<Prefix>().unwrap_err().to_string();
        assert!(e.contains("did you mean 10.0.0.0/8"), "{e}");
        for bad in ["10.0.0.0/33", "::/129", "x", "10.0.0.0/", "10.0.0/8", "::ffff:10.0.0.0/104"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn contains_its_ends_and_no_more() {
        let net = p("10.0.0.0/30");
        assert_eq!(net.last().to_string(), "10.0.0.3");
        assert!(net.contains("10.0.0.3".parse().unwrap()) && !net.contains("10.0.0.4".parse().unwrap()));
        assert!(!p("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(!p("::/0").contains("10.0.0.1".parse().unwrap()));
        assert_eq!(p("0.0.0.0/0").last().to_string(), "255.255.255.255");
        assert!(p("10.0.0.0/8").covers(p("10.1.0.0/16")) && !p("10.1.0.0/16").covers(p("10.0.0.0/8")));
    }
}
