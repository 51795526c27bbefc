#![doc = include_str!("README.md")]

mod arp;
mod commit;
mod conntrack;
mod counters;
mod cut;
mod decap;
mod drop;
mod encap;
mod event;
mod fragments;
mod handoff;
mod histogram;
mod hold;
mod host;
mod icmp_error;
mod nat;
mod nd;
mod parse;
mod plain;
mod policy;
mod punt;
mod quota;
mod refusals;
mod rewrite;
mod route;
mod service;
mod staged;
mod tx;
mod untracked;
mod watch;
mod wg_decrypt;
mod wg_encrypt;
mod wg_hold;
mod world;

pub use arp::{Arp, ArpNext};
pub use commit::{Commit, CommitNext};
pub use conntrack::{Conntrack, ConntrackNext};
pub use counters::{Counted, VectorCosts, WorkerCounters};
pub use cut::{Cut, Pieces};
pub use decap::{Decap, DecapNext};
pub use drop::Drop;
pub use encap::{Encap, EncapNext};
pub use event::{Datagram, Deciding, Event};
pub use fragments::{Early, Fragments, FragmentsNext, Wait};
pub use handoff::{Handoff, Inbox};
pub use histogram::Histogram;
pub use hold::{Held, Hold};
pub use icmp_error::{IcmpError, IcmpErrorNext};
pub use nd::{Nd, NdNext};
pub use parse::{Parse, ParseNext};
pub use policy::{Policy, PolicyNext};
pub use punt::Punt;
pub use refusals::{Refusal, Refusals};
pub use rewrite::{Rewrite, RewriteNext};
pub use route::{Route, RouteNext};
pub use service::{Service, ServiceNext};
pub use tx::Tx;
pub use untracked::{Untracked, UntrackedNext};
pub use watch::{
    DROPPED, ENTERS, Interest, Probe, SEALED, SENT, Sighting, Sightings, Wanted, Watcher, is_end,
};
pub use wg_decrypt::{WgDecrypt, WgDecryptNext};
pub use wg_encrypt::{WgEncrypt, WgEncryptNext};
pub use wg_hold::{Unsealed, WgHold};
pub use world::{Credit, Limits, Logs, World};

/// `Meta::adjacency` of a packet whose next hop is not resolved.
pub(crate) const UNRESOLVED: u32 = u32::MAX;
/// `Meta::adjacency` of a packet that leaves as it came, by the other side of the interface it came
/// in by (`Interface::through`): this host's own traffic over a protected uplink.
pub(crate) const THROUGH: u32 = u32::MAX - 1;
