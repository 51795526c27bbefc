//! ChaCha20-Poly1305 (RFC 8439) of many packets at once, as WireGuard's transport uses it: no
//! associated data, and a nonce of four zero bytes and the packet's counter, little-endian.
//!
//! The lanes of a vector register belong to different packets, so even packets of 64 bytes fill
//! it; their keys and lengths may all differ. A [`Batch`] orders packets by length, so that those
//! that share a register end together, and hands them to a [`Kernel`] in groups of up to sixteen.
//! The order, the masks and every branch depend on lengths and on whether a tag was right: on
//! nothing that is secret.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod batch;
mod kernel;
mod key;
mod lane;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod scattered;

#[cfg(test)]
mod tests;

pub use batch::{BATCH, Batch};
pub use kernel::Kernel;
pub use key::Key;
pub use lane::{MAX_TEXT, Packet, PacketError};

/// Bytes of a tag, which stands behind the text.
pub const TAG: usize = 16;

/// Packets in a group.
const GROUP: usize = 16;
