//! What is asked of the cluster's store, whoever answers: a node's agent, or a relay, which is of no node.

use crate::{access::Audit, datastore::Datastore, ipam::Ipam};
use tokio::sync::watch;

/// The store, and what is asked of it. Its methods are in the modules of what they are about.
pub(super) struct Cluster<'a> {
    pub store: &'a dyn Datastore,
    pub ipam: &'a Ipam,
    pub audit: &'a Audit,
    /// Where addresses are used of which nobody says where; empty: it has to be said.
    pub node: &'a str,
    pub stopping: &'a watch::Receiver<bool>,
}
