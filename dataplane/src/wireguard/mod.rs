#![doc = include_str!("README.md")]

pub mod aead;
mod cookie;
mod crypto;
mod interface;
mod keyring;
mod load;
mod noise;
mod peer;
mod replay;
mod session;
mod timers;

#[cfg(test)]
mod tests;

pub use crypto::{KeyPair, PublicKey, Random, Secret};
pub use interface::{Event, Interface, Moment, PeerError, Refused};
pub use keyring::{Endpoint, Keyring, Known, Lane, Opening, Traffic};
pub use peer::PeerSettings;
pub use replay::{Replay, WINDOW};
pub use session::{LANES, REJECT_AFTER_TIME, Session, padded_len, sealed_len};
