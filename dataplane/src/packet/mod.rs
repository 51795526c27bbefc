#![doc = include_str!("README.md")]

mod drop_reason;
mod meta;
mod pool;

pub use drop_reason::DropReason;
pub use meta::{Gso, L4Checksum, Meta, PacketFlags};
pub use pool::{
    Frames, FramesError, HEADROOM, LONGEST, Packet, PktIdx, Pool, Slab, VECTOR, Vector, prefetch,
    prefetch_element,
};
