//! The process that touches packets.
//!
//! Rooms, each of which may import only those above it (a test holds them to it):
#![doc = include_str!("rooms.md")]

pub mod net;
pub mod wire;
pub mod packet;
pub mod graph;
pub mod fib;
pub mod policy;
pub mod conntrack;
pub mod snapshot;
pub mod nodes;
pub mod io;
pub mod worker;
pub mod control;
