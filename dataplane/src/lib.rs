//! The process that touches packets.
//!
//! Rooms, each of which may import only those above it (a test holds them to it):
#![doc = include_str!("rooms.md")]

pub mod conntrack;
pub mod control;
pub mod fib;
pub mod graph;
pub mod io;
pub mod net;
pub mod nodes;
pub mod packet;
pub mod policy;
pub mod service;
pub mod simulation;
pub mod snapshot;
pub mod wire;
pub mod wireguard;
pub mod worker;
