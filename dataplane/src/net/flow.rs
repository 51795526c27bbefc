//! What makes two packets belong together.

use super::Addr;
use std::fmt;

/// An IP protocol number.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proto(pub u8);

impl Proto {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// IPv4 in IP.
    pub const IPIP: Self = Self(4);
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

    /// The first four bytes after the IP header are source and destination port.
    #[inline]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP | Self::UDPLITE)
    }

    /// ICMP of either family.
    #[inline]
    pub const fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMP6)
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::ICMP => "icmp",
            Self::IPIP => "ipip",
            Self::TCP => "tcp",
            Self::UDP => "udp",
            Self::ICMP6 => "icmpv6",
            Self::SCTP => "sctp",
            Self::UDPLITE => "udplite",
            Self(n) => return write!(f, "{n}"),
        })
    }
}

impl fmt::Debug for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Proto {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s.to_ascii_lowercase().as_str() {
            "icmp" => Self::ICMP,
            "ipip" => Self::IPIP,
            "tcp" => Self::TCP,
            "udp" => Self::UDP,
            "icmpv6" | "icmp6" => Self::ICMP6,
            "sctp" => Self::SCTP,
            "udplite" => Self::UDPLITE,
            n => Self(n.parse().map_err(|_| {
                format!(
                    "{s:?} is not a protocol; use tcp, udp, sctp, icmp, icmpv6, udplite or a number 1 to 255"
                )
            })?),
        })
    }
}

/// First to last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// One port.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// `port` is within.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// An ICMP type and code, of the family of the packet that carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Icmp {
    /// RFC 792, RFC 4443.
    pub kind: u8,
    /// Meaning depends on the type.
    pub code: u8,
}

/// What a packet's flow is known by: the 5-tuple, in the packet's own direction.
///
/// ICMP has no ports. An echo carries its identifier in both port fields, so that a reply's
/// key is the request's reversed; other ICMP carries `type << 8 | code` in `dport`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port; 0 for protocols without ports.
    pub sport: u16,
    /// Destination port; 0 for protocols without ports.
    pub dport: u16,
    /// The last header of the IPv6 chain, or IPv4's protocol field.
    pub proto: Proto,
}

impl FlowKey {
    /// The key of a packet that answers this one.
    #[inline]
    pub const fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto }
    }
}

/// The key of an IPv4 flow with its fields as they stand in a packet, so that it is read, compared
/// and reversed in two words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key4 {
    addrs: u64,
    ports: u32,
    /// IPv4's protocol field.
    pub proto: Proto,
}

impl Key4 {
    /// From both addresses and both ports as they stand in a packet.
    #[inline(always)]
    pub const fn new(addrs: [u8; 8], ports: [u8; 4], proto: Proto) -> Self {
        Self { addrs: u64::from_ne_bytes(addrs), ports: u32::from_ne_bytes(ports), proto }
    }

    /// Addresses and ports as [`words`](Self::words) gave them.
    #[inline(always)]
    pub const fn from_words(addrs: u64, ports: u32, proto: Proto) -> Self {
        Self { addrs, ports, proto }
    }

    /// Both addresses and both ports, for keeping.
    #[inline(always)]
    pub const fn words(self) -> (u64, u32) {
        (self.addrs, self.ports)
    }

    /// `key`, if it is IPv4.
    #[inline]
    pub const fn of(key: &FlowKey) -> Option<Self> {
        if !key.src.is_v4() || !key.dst.is_v4() {
            return None;
        }
        let ([a, b, c, d], [e, f, g, h]) = (key.src.v4_octets(), key.dst.v4_octets());
        let ([i, j], [k, l]) = (key.sport.to_be_bytes(), key.dport.to_be_bytes());
        Some(Self::new([a, b, c, d, e, f, g, h], [i, j, k, l], key.proto))
    }

    /// Taken apart.
    #[inline]
    pub const fn key(self) -> FlowKey {
        let [a, b, c, d, e, f, g, h] = self.addrs.to_ne_bytes();
        let [i, j, k, l] = self.ports.to_ne_bytes();
        FlowKey {
            src: Addr::v4([a, b, c, d]),
            dst: Addr::v4([e, f, g, h]),
            sport: u16::from_be_bytes([i, j]),
            dport: u16::from_be_bytes([k, l]),
            proto: self.proto,
        }
    }

    /// The key of a packet that answers this one.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self { addrs: self.addrs.rotate_left(32), ports: self.ports.rotate_left(16), proto: self.proto }
    }

    /// Both ends, address and port in one number of 48 bits. They change places with the key's
    /// direction; nothing else is to be read from them.
    #[inline(always)]
    pub const fn ends(self) -> [u64; 2] {
        let (addrs, ports) = (self.addrs, self.ports as u64);
        [addrs & 0xffff_ffff | (ports & 0xffff) << 32, addrs >> 32 | (ports & 0xffff_0000) << 16]
    }
}

/// The key of a flow by 128-bit addresses, in words: what [`Key4`] is for IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key6 {
    /// Source and destination, the upper half of each first.
    addrs: [u64; 4],
    /// As they stand in a packet.
    ports: u32,
    /// The last header of the chain.
    pub proto: Proto,
}

impl Key6 {
    /// From both addresses and both ports as they stand in a packet.
    #[inline(always)]
    pub const fn new(src: [u8; 16], dst: [u8; 16], ports: [u8; 4], proto: Proto) -> Self {
        let (src, dst) = (u128::from_be_bytes(src), u128::from_be_bytes(dst));
        let addrs = [(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64];
        Self { addrs, ports: u32::from_ne_bytes(ports), proto }
    }

    /// Of any key: IPv4's addresses are mapped ones.
    #[inline]
    pub const fn of(key: &FlowKey) -> Self {
        let (src, dst) = (key.src.bits(), key.dst.bits());
        let addrs = [(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64];
        let ([i, j], [k, l]) = (key.sport.to_be_bytes(), key.dport.to_be_bytes());
        Self { addrs, ports: u32::from_ne_bytes([i, j, k, l]), proto: key.proto }
    }

    /// Addresses and ports as [`words`](Self::words) gave them.
    #[inline(always)]
    pub const fn from_words(addrs: [u64; 4], ports: u32, proto: Proto) -> Self {
        Self { addrs, ports, proto }
    }

    /// Both addresses and both ports, for keeping.
    #[inline(always)]
    pub const fn words(self) -> ([u64; 4], u32) {
        (self.addrs, self.ports)
    }

    /// Taken apart.
    #[inline]
    pub const fn key(self) -> FlowKey {
        let [a, b, c, d] = self.addrs;
        let [i, j, k, l] = self.ports.to_ne_bytes();
        FlowKey {
            src: Addr::from_bits((a as u128) << 64 | b as u128),
            dst: Addr::from_bits((c as u128) << 64 | d as u128),
            sport: u16::from_be_bytes([i, j]),
            dport: u16::from_be_bytes([k, l]),
            proto: self.proto,
        }
    }

    /// The key of a packet that answers this one.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        let [a, b, c, d] = self.addrs;
        Self { addrs: [c, d, a, b], ports: self.ports.rotate_left(16), proto: self.proto }
    }

    /// Source and destination: both halves of the address, and the port as it stands in a packet.
    #[inline(always)]
    pub const fn ends(self) -> [(u64, u64, u16); 2] {
        let [a, b, c, d] = self.addrs;
        [(a, b, self.ports as u16), (c, d, (self.ports >> 16) as u16)]
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |f: &mut fmt::Formatter<'_>, a: Addr, p: u16| match (self.proto.has_ports(), a.is_v4()) {
            (true, true) => write!(f, "{a}:{p}"),
            (true, false) => write!(f, "[{a}]:{p}"),
            (false, _) => write!(f, "{a}"),
        };
        write!(f, "{} ", self.proto)?;
        side(f, self.src, self.sport)?;
        f.write_str(" > ")?;
        side(f, self.dst, self.dport)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_two_words_is_the_key() {
        for text in ["10.65.0.1", "255.255.255.255", "0.0.0.0"] {
            let key = FlowKey {
                src: text.parse().unwrap(),
                dst: "10.66.7.8".parse().unwrap(),
                sport: 4000,
                dport: 0xff35,
                proto: Proto::TCP,
            };
            let short = Key4::of(&key).unwrap();
            assert_eq!((short.key(), short.reversed().key()), (key, key.reversed()));
            assert_eq!(short.reversed(), Key4::of(&key.reversed()).unwrap());
            let [src, dst] = short.ends();
            assert_eq!(short.reversed().ends(), [dst, src]);
            assert_ne!(src, dst);
        }
        let v6 = FlowKey {
            src: "fd00::1".parse().unwrap(),
            dst: "fd00::2".parse().unwrap(),
            ..FlowKey::default()
        };
        assert_eq!(Key4::of(&v6), None);
    }

    #[test]
    fn a_key_of_five_words_is_the_key() {
        for [src, dst] in [["fd00::1", "2001:db8:1:2:3:4:5:6"], ["::", "ff02::1"], ["10.65.0.1", "::1"]] {
            let [src, dst] = [src, dst].map(|addr| addr.parse::<Addr>().unwrap());
            let key = FlowKey { src, dst, sport: 4000, dport: 0xff35, proto: Proto::UDP };
            let short = Key6::of(&key);
            let [sport, dport] = [key.sport, key.dport].map(u16::to_be_bytes);
            let ports = [sport[0], sport[1], dport[0], dport[1]];
            assert_eq!(short, Key6::new(src.octets(), dst.octets(), ports, key.proto));
            assert_eq!((short.key(), short.reversed().key()), (key, key.reversed()));
            let (addrs, ports) = short.words();
            assert_eq!(Key6::from_words(addrs, ports, key.proto), short);
            let [from, to] = short.ends();
            assert_eq!(short.reversed().ends(), [to, from]);
            assert_ne!(from, to);
        }
    }
}
