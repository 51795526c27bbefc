//! The vocabulary every other room speaks: addresses, prefixes, ports, protocols, flow keys,
//! ids and time, and an ordered map whose versions share structure. Plain values; nothing here touches a packet or the system.

mod addr;
mod bpf;
mod flow;
mod mac;
mod prefix;
mod shared_map;

pub use addr::Addr;
pub use bpf::{Instruction, Program, ProgramError};
pub use flow::{FlowKey, Icmp, Key4, Key6, PortRange, Proto};
pub use mac::Mac;
pub use prefix::{Prefix, PrefixError};
pub use shared_map::{Difference, SharedMap};

/// Nanoseconds since an arbitrary start, always an argument, never read from a clock here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// `s` seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(s * 1_000_000_000)
    }

    /// Time from `earlier` to `self`; zero where `earlier` is later.
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// `self` moved on by `span`.
    pub const fn plus(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// An interface of the dataplane, dense from 0. Not the kernel's ifindex.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfId(pub u16);

impl IfId {
    /// "No interface": where a packet's way out is not known yet.
    pub const NONE: Self = Self(u16::MAX);
}

/// A worker, dense from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u8);

/// A peer of the node's encrypted tunnels. No two ever have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// The sequence number of a published snapshot. Grows by one with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);
