//! What is known of a packet: one cache line beside its frame.

use super::DropReason;
use crate::net::{Generation, Icmp, IfId, Proto};

/// Facts about one packet. Exactly one cache line; offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Meta {
    /// Bytes from `data` to the packet's end. Larger than a frame for a super-frame, which has a large buffer. Device.
    pub len: u32,
    /// First byte of the packet. Device; moved by nodes that push or pull a header.
    pub data: u16,
    /// First byte of the IP header. `parse`.
    pub l3: u16,
    /// First byte after the IP header and its extensions. `parse`.
    pub l4: u16,
    /// Interface it came in by. Device; `parse` refines it to the VLAN's.
    pub rx_if: IfId,
    /// Interface it leaves by. `route` or `conntrack`.
    pub tx_if: IfId,
    /// Segment size of a super-frame, or 0. Device.
    pub gso_size: u16,
    /// How a super-frame is to be cut. Device.
    pub gso: Gso,
    /// What is known of the checksum after the IP header. Device; `parse` repairs.
    pub checksum: L4Checksum,
    /// Last header of the chain. `parse`.
    pub proto: Proto,
    /// `TcpFlags` as they stand in the header, 0 for others. `parse`.
    pub tcp_flags: u8,
    /// Type and code, for ICMP. `parse`.
    pub icmp: Icmp,
    /// Yes/no facts. `parse` and `conntrack`.
    pub flags: PacketFlags,
    /// Why it is on its way to `drop`. Whoever sends it there.
    pub drop: DropReason,
    /// Its number among those that somebody watches; 0: nobody does. Whoever watches.
    pub watched: u16,
    /// Adjacency to leave by, an index into the snapshot's, a tunnel's too. `route` or `conntrack`.
    pub adjacency: u32,
    /// The endpoint whose policy denied it. `policy`.
    pub endpoint: u32,
    /// Conntrack's `FlowRef`, meaningful with [`PacketFlags::HIT`]. `conntrack`.
    pub flow: u32,
    /// Of the snapshot whose policy judged it last; 0: none did. `policy`.
    pub judged: Generation,
    /// What decided, an index into the policy's counters. `policy`.
    pub slot: u32,
    /// Keyed hash of the flow key. `parse`, `untracked` or `fragments`, before `conntrack`.
    pub hash: u64,
    /// The same of the key that a reply has: `commit`'s prepare. Before that, of a fragment that
    /// waits for the first, its ticket: `fragments`.
    pub reply_hash: u64,
}

const _: () = assert!(size_of::<Meta>() == 64);

/// What a super-frame's segments are. Its own checksum field has the pseudo-header's sum, from `parse` on: it
/// goes on to whoever makes segments of it, here or in hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Gso {
    /// It is one packet.
    #[default]
    None,
    /// TCP's.
    Tcp,
    /// UDP's.
    Udp,
}

/// What is known of the TCP or UDP checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum L4Checksum {
    /// As it came: complete, and not verified by us.
    #[default]
    Complete,
    /// A local stack may have left only the pseudo-header's sum for the hardware to finish.
    MaybePartial,
}

/// Yes/no facts about a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PacketFlags(u16);

impl PacketFlags {
    /// IPv6, else IPv4. `parse`.
    pub const V6: Self = Self(1);
    /// Belongs to a live flow, named by `Meta::flow`. `conntrack`.
    pub const HIT: Self = Self(1 << 1);
    /// An ICMP error about a live flow. `conntrack`.
    pub const RELATED: Self = Self(1 << 2);
    /// Made by us; already counted as received. Whoever made it.
    pub const ORIGINATED: Self = Self(1 << 3);
    /// Came over a handoff ring: this worker owns the flow. Worker.
    pub const HANDED: Self = Self(1 << 4);
    /// It was the destination's ingress policy that denied it. `policy`.
    pub const INGRESS: Self = Self(1 << 5);
    /// Its link header is on: it only has to be sent. `tx`.
    pub const READY: Self = Self(1 << 6);
    /// A host endpoint's untracked policy allowed it: no flow, no host policy. `untracked`.
    pub const UNTRACKED: Self = Self(1 << 7);
    /// Its flow key is not what its headers say, but what `Packet::key` does. `Packet::set_key`.
    pub const KEYED: Self = Self(1 << 8);
    /// A fragment of which is not known yet whose it is. `parse`; cleared by `fragments`.
    pub const FRAGMENT: Self = Self(1 << 9);
    /// A fragment that is not the first: nothing of the transport header is in it. `parse`.
    pub const LATER: Self = Self(1 << 10);
    /// Found no flow once, and gets a second look. `conntrack`.
    pub const AGAIN: Self = Self(1 << 11);
    /// Its flow leaves with an address of this node, whatever its pool says. `service`.
    pub const MASQUERADE: Self = Self(1 << 12);
    /// A WireGuard packet that another worker opens: the one that owns its session. `wg-decrypt`.
    pub const SEALED: Self = Self(1 << 13);
    /// TCP or UDP in IPv4 without options or IPv6 without extensions, and whole: all that is needed of its
    /// headers is at places known from `l3`. `parse`.
    pub const PLAIN: Self = Self(1 << 15);

    /// These and `others`.
    #[inline]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// One of `others` is set, or more.
    #[inline]
    pub const fn any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// All of `other` are set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These but for `others`.
    #[inline]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Sets `other`.
    #[inline]
    pub const fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Clears `other`.
    #[inline]
    pub const fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}
