#![doc = include_str!("README.md")]

mod bird;
mod driver;
mod filter;
mod socket;
mod status;
#[cfg(test)]
mod tests;

pub use bird::configuration;
pub use driver::{Bird, Peer, Settings};
pub use status::SessionStatus;
