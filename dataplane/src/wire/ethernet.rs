//! Ethernet II and VLAN tags (IEEE 802.1Q, 802.1ad).

use super::{Malformed, read, read_u16};
use crate::net::Mac;

/// Bytes of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Bytes of one VLAN tag.
pub const TAG_LEN: usize = 4;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of a VLAN tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// What an Ethernet header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination station.
    pub dst: Mac,
    /// Source station.
    pub src: Mac,
    /// VLAN id of the only tag, if there is one.
    pub vlan: Option<u16>,
    /// What follows; a tag's EtherType where there are two tags.
    pub ether_type: u16,
    /// Bytes up to what follows.
    pub len: usize,
}

impl Header {
    /// Reads the header and at most one VLAN tag. A priority tag (VLAN 0) counts as none.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let head: [u8; HEADER_LEN] = read(bytes, 0)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = head;
        let mut header = Self {
            dst: Mac([d0, d1, d2, d3, d4, d5]),
            src: Mac([s0, s1, s2, s3, s4, s5]),
            vlan: None,
            ether_type: u16::from_be_bytes([t0, t1]),
            len: HEADER_LEN,
        };
        if header.ether_type == VLAN {
            let id = read_u16(bytes, HEADER_LEN)? & 0xfff;
            header.ether_type = read_u16(bytes, HEADER_LEN + 2)?;
            header.vlan = (id != 0).then_some(id);
            header.len = HEADER_LEN + TAG_LEN;
        }
        Ok(header)
    }
}

/// A header ready to be put before a packet: 14 bytes, or 18 with a VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prebuilt {
    bytes: [u8; HEADER_LEN + TAG_LEN],
    len: u8,
}

impl Prebuilt {
    /// Builds it.
    pub fn new(dst: Mac, src: Mac, vlan: Option<u16>, ether_type: u16) -> Self {
        let mut bytes = [0; HEADER_LEN + TAG_LEN];
        bytes[..6].copy_from_slice(&dst.0);
        bytes[6..12].copy_from_slice(&src.0);
        let kind = ether_type.to_be_bytes();
        let len = match vlan {
            None => {
                bytes[12..14].copy_from_slice(&kind);
                HEADER_LEN
            }
            Some(id) => {
                bytes[12..14].copy_from_slice(&VLAN.to_be_bytes());
                bytes[14..16].copy_from_slice(&(id & 0xfff).to_be_bytes());
                bytes[16..18].copy_from_slice(&kind);
                HEADER_LEN + TAG_LEN
            }
        };
        Self { bytes, len: len as u8 }
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_is_read() {
        let (dst, src) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        for vlan in [None, Some(1), Some(4094)] {
            let built = Prebuilt::new(dst, src, vlan, IPV4);
            let read = Header::parse(built.as_slice()).unwrap();
            assert_eq!(read, Header { dst, src, vlan, ether_type: IPV4, len: built.as_slice().len() });
        }
    }

    #[test]
    fn cut_short_anywhere_is_truncated() {
        let built = Prebuilt::new(Mac::BROADCAST, Mac::default(), Some(7), ARP);
        for len in 0..18 {
            assert_eq!(Header::parse(&built.as_slice()[..len]), Err(Malformed::Truncated));
        }
    }

    #[test]
    fn a_priority_tag_is_no_vlan() {
        let mut bytes = Prebuilt::new(Mac::BROADCAST, Mac::default(), Some(0), ARP).as_slice().to_vec();
        bytes[14] = 0xe0;
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.vlan, header.ether_type, header.len), (None, ARP, 18));
    }
}
