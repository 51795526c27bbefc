//! Brings the dataplane to the desired state, and knows how far it has got.
//!
//! One stream at a time. Its first transaction is a snapshot: everything, ended by a commit with
//! `in_sync`, with which the dataplane forgets whatever it was told before and is not in it.
//! From then on a transaction is the difference between what the dataplane accepted and what is
//! desired now. One transaction is under way at a time, so what changes in the meantime is
//! coalesced into the next, and after a refusal the base of the next is known.

#[cfg(test)]
mod convergence;
mod diff;
mod link;
mod members;
mod progress;
mod session;

use crate::calc::Desired;
use margay_api::dataplane::v1::{Commit, SyncRequest};

pub use link::Link;
pub use progress::{AdoptError, Progress, Refusal};

/// What the dataplane is sent to get from one state to another, as the first transaction after a snapshot.
pub fn messages(old: &Desired, new: &Desired) -> Vec<SyncRequest> {
    diff::messages(diff::changes(old, new), Commit { generation: 1, in_sync: false })
}
