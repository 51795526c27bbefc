#![doc = include_str!("README.md")]

mod add;
mod addresses;
mod attachment;
mod endpoint;
mod remove;
mod status;

use crate::{calc::Calculation, datastore::Datastore, datastore::StoreError, ipam::Ipam, sync::Link};
use std::time::Duration;

pub use attachment::Attachment;

/// How long policy may take to be in force, where nobody says.
const SETUP: Duration = Duration::from_secs(10);

/// The attachments of one node.
pub struct Attachments<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Where their endpoints are.
    pub store: &'a dyn Datastore,
    /// Gives addresses.
    pub ipam: &'a Ipam,
    /// What follows from them.
    pub calculation: &'a Calculation,
    /// What the dataplane has made of that.
    pub link: &'a Link,
}

/// Why a command of CNI's was not done.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// An attachment that should be there is not.
    #[error("{0}: it has no endpoint on this node: was it deleted, or never added?")]
    Absent(Attachment),
    /// An attachment is not as it was added.
    #[error("{0}")]
    Broken(String),
    /// There is no address to give.
    #[error("{0}")]
    Addresses(String),
    /// The dataplane will not have it.
    #[error("{0}")]
    Refused(String),
    /// It takes too long.
    #[error("{0}")]
    Late(String),
    /// The store would not.
    #[error(transparent)]
    Store(#[from] StoreError),
}
