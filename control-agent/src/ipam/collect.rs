//! Takes back what nobody will give back: addresses of workloads that are gone, blocks that are empty,
//! and what was of nodes that are gone.
//!
//! Nothing is taken back at first sight. It must have been so for the grace period, and an address is
//! taken from a block only after the block was written once more for no other reason: a write comes back
//! only when the books show all that was stored before it, so that a view of the store that has stood
//! still for hours takes nothing from a workload that it has never heard of.

use super::block::{Allocation, Block, Owner};
use super::books::{self, Books};
use super::{AssignError, Ipam, plan};
use crate::datastore::Expected;
use crate::model::Cidr;
use crate::model::scalar::Timestamp;
use crate::task::Task;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long what looks lost must have looked so, in seconds, as in Calico.
pub const GRACE: u64 = 15 * 60;

/// The running collection of one agent. It ends when this is dropped.
pub struct Collection {
    _task: Task,
}

impl Collection {
    /// Looks every `period`, for `node`. Must be called within a Tokio runtime.
    pub fn start(ipam: Arc<Ipam>, node: &str, period: Duration) -> Self {
        let mut collector = Collector::new(ipam, node, GRACE);
        let _task = Task::spawn(async move {
            loop {
                sleep(period).await;
                match collector.collect().await {
                    Ok(collected) => collected.log(),
                    // Whether the store is away is in its own status.
                    Err(error) => tracing::debug!(%error, "what is lost is not taken back yet"),
                }
            }
        });
        Self { _task }
    }
}

/// What has looked lost, and since when.
pub struct Collector {
    ipam: Arc<Ipam>,
    node: String,
    grace: u64,
    leaked: BTreeMap<Leak, Timestamp>,
    empty: BTreeMap<(Cidr, u64), Timestamp>,
    gone: BTreeMap<String, Timestamp>,
}

/// An assignment: an address, and the sequence number at which it was given.
type Leak = (IpAddr, u64);

/// What was taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Addresses of workloads that are gone.
    pub addresses: Vec<IpAddr>,
    /// Blocks that nobody has an address of.
    pub blocks: Vec<Cidr>,
    /// Nodes that are gone, whose blocks are nobody's now.
    pub nodes: Vec<String>,
}

impl Collected {
    fn log(&self) {
        if *self != Self::default() {
            let (addresses, blocks, nodes) = (self.addresses.len(), self.blocks.len(), self.nodes.len());
            tracing::info!(addresses, blocks, nodes, "took back what was lost");
        }
    }
}

impl Collector {
    /// For the agent of `node`; `grace` in seconds.
    pub fn new(ipam: Arc<Ipam>, node: &str, grace: u64) -> Self {
        let (leaked, empty, gone) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { ipam, node: node.to_owned(), grace, leaked, empty, gone }
    }

    /// Looks once, and takes back what has been lost for long enough.
    ///
    /// # Errors
    /// The store could not be written: what was seen is remembered.
    pub async fn collect(&mut self) -> Result<Collected, AssignError> {
        let ipam = self.ipam.clone();
        let mut follower = ipam.follower.lock().await;
        let now = (ipam.clock)();
        let books = follower.books().await?;
        let gone = confirmed(&mut self.gone, gone(books, &self.node), now, self.grace);
        let leaked = confirmed(&mut self.leaked, leaked(books, &self.node), now, self.grace);
        let empty = confirmed(&mut self.empty, empty(books, &self.node, now), now, self.grace);
        let mut collected = Collected::default();

        let blocks: BTreeSet<Cidr> =
            leaked.iter().filter_map(|(addr, _)| Some(books.block_of(*addr)?.0)).collect();
        for cidr in blocks {
            let Some((version, block)) = stored(follower.books().await?, cidr) else { continue };
            let mut touched = (*block).clone();
            touched.touch();
            if !ipam.write(books::put(&touched, Expected::Version(version))).await? {
                continue;
            }
            let books = follower.books().await?;
            let Some((version, block)) = stored(books, cidr) else { continue };
            let is_over = |addr: IpAddr, allocation: &Allocation| {
                leaked.contains(&(addr, allocation.sequence))
                    && is_leaked(books, &self.node, addr, allocation)
            };
            if let Some((write, addresses)) = plan::release_from(books, version, &block, now, is_over)
                && ipam.write(write).await?
            {
                collected.addresses.extend(addresses);
            }
        }
        for node in gone {
            let mut all = true;
            let books = follower.books().await?;
            let own: Vec<_> =
                books.blocks_of_node(&node).map(|(version, block)| (version, block.clone())).collect();
            for (version, block) in own {
                let mut left = (*block).clone();
                left.hand_to(None, now);
                all &= ipam.write(books::put(&left, Expected::Version(version))).await?;
            }
            if all {
                collected.nodes.push(node);
            }
        }
        for (cidr, sequence) in empty {
            let found = stored(follower.books().await?, cidr);
            let Some((version, block)) = found.filter(|(_, block)| block.sequence() == sequence) else {
                continue;
            };
            if ipam.write(books::delete(&block, version)).await? {
                collected.blocks.push(cidr);
            }
        }
        Ok(collected)
    }
}

/// Those of `found` that were found for `grace` seconds. The others are remembered, and what is found
/// no more is forgotten.
fn confirmed<T: Ord + Clone>(
    seen: &mut BTreeMap<T, Timestamp>,
    found: BTreeSet<T>,
    now: Timestamp,
    grace: u64,
) -> BTreeSet<T> {
    seen.retain(|one, _| found.contains(one));
    let is_old = |one: &T| seen.get(one).is_some_and(|since| now.since(*since) >= grace);
    let old = found.iter().filter(|one| is_old(one)).cloned().collect();
    for one in found {
        seen.entry(one).or_insert(now);
    }
    old
}

fn stored(books: &Books, cidr: Cidr) -> Option<(u64, Arc<Block>)> {
    let (found, stored) = books.overlapping(cidr)?;
    let block = stored.block.as_ref().ok().filter(|_| found == cidr)?;
    Some((stored.version, block.clone()))
}

/// Nodes that have blocks and of which nothing else is known. One without a Node object that has
/// workloads is there.
fn gone(books: &Books, own: &str) -> BTreeSet<String> {
    let nodes = books.blocks().filter_map(|(_, stored)| stored.block.as_ref().ok()?.node());
    nodes.filter(|node| is_gone(books, own, node)).map(str::to_owned).collect()
}

fn is_gone(books: &Books, own: &str, node: &str) -> bool {
    node != own && !books.has_node(node) && books.endpoints_on(node) == 0
}

/// What this agent is to take back: its own node's, and that of nodes that are gone.
fn leaked(books: &Books, own: &str) -> BTreeSet<Leak> {
    let blocks = books.blocks().filter_map(|(_, stored)| stored.block.as_ref().ok());
    let all = blocks.flat_map(|block| block.allocations());
    all.filter(|(addr, allocation)| is_leaked(books, own, *addr, allocation))
        .map(|(addr, allocation)| (addr, allocation.sequence))
        .collect()
}

fn is_leaked(books: &Books, own: &str, addr: IpAddr, allocation: &Allocation) -> bool {
    let node = allocation.owner.attribute(Owner::NODE);
    let is_gone = is_gone(books, own, node);
    lost(books, addr, allocation, is_gone) && (node == own || is_gone)
}

/// Whether whoever has the address has ceased to be. What says neither for which pod nor for which
/// node it is for ever.
pub(super) fn lost(books: &Books, addr: IpAddr, allocation: &Allocation, node_is_gone: bool) -> bool {
    let owner = &allocation.owner;
    if !owner.attribute(Owner::POD).is_empty() {
        return books.users(addr).next().is_none();
    }
    !owner.attribute(Owner::TYPE).is_empty() && !owner.attribute(Owner::NODE).is_empty() && node_is_gone
}

/// Blocks that nobody needs: those that are nobody's, and this node's but for one of each pool.
fn empty(books: &Books, own: &str, now: Timestamp) -> BTreeSet<(Cidr, u64)> {
    let rest = books.settings().rest;
    let blocks = || books.blocks().filter_map(|(_, stored)| stored.block.as_ref().ok());
    let pool = |block: &Block| {
        let pool = books.pool_of(block.cidr().addr()).filter(|pool| !pool.spec.disabled);
        pool.filter(|_| block.node() == Some(own)).map(|pool| pool.name.as_str())
    };
    let in_use = blocks().filter(|block| !block.is_empty());
    let mut kept: BTreeSet<&str> = in_use.filter_map(|block| pool(block)).collect();
    let unused = blocks().filter(|block| block.is_empty() && !block.has_resting(now, rest));
    let mine = unused.filter(|block| !block.is_owned() || block.node() == Some(own));
    let unneeded = mine.filter(|block| pool(block).is_none_or(|pool| !kept.insert(pool)));
    unneeded.map(|block| (block.cidr(), block.sequence())).collect()
}
