//! Views over bytes: what a header says, and how to write one. One protocol a file.
//!
//! Parsing never panics and never trusts a length: it returns what was read, or [`Malformed`].
//! Offsets are relative to the slice given. Nothing here knows of packets, pools or policy.

pub mod arp;
pub mod checksum;
pub mod coalesce;
pub mod crc32c;
pub mod cut;
pub mod ecn;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod ip4;
pub mod ip6;
pub mod l4;
pub mod mss;
pub mod nd;
pub mod sctp;
pub mod segment;
pub mod tcp;
pub mod translate;
pub mod tunnel;
pub mod vxlan;
pub mod wireguard;

use crate::net::Addr;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end too early.
    #[error("truncated")]
    Truncated,
    /// The version field says something else.
    #[error("wrong version")]
    Version,
    /// Length fields contradict each other or the bytes that are there.
    #[error("contradictory length")]
    Length,
    /// The checksum is wrong.
    #[error("wrong checksum")]
    Checksum,
    /// A source route or type 0 routing header.
    #[error("source route")]
    SourceRoute,
    /// Too many IPv6 extension headers, or in a forbidden order.
    #[error("extension headers")]
    Extensions,
    /// A value that the protocol forbids.
    #[error("forbidden value")]
    Value,
}

/// The `N` bytes at `offset`.
#[inline]
pub(crate) fn read<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], Malformed> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or(Malformed::Truncated)
}

/// Source and destination in an IP header; where it is cut short, zero.
#[inline]
pub fn ends(ip: &[u8], v6: bool) -> (Addr, Addr) {
    if v6 {
        (Addr::v6(read(ip, 8).unwrap_or_default()), Addr::v6(read(ip, 24).unwrap_or_default()))
    } else {
        (Addr::v4(read(ip, 12).unwrap_or_default()), Addr::v4(read(ip, 16).unwrap_or_default()))
    }
}

/// The big-endian number at `offset`.
#[inline]
pub(crate) fn read_u16(bytes: &[u8], offset: usize) -> Result<u16, Malformed> {
    read(bytes, offset).map(u16::from_be_bytes)
}
