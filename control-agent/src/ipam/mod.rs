#![doc = include_str!("README.md")]

mod block;
mod books;
mod claim;
mod collect;
mod follow;
mod plan;
pub mod report;
#[cfg(test)]
mod tests;

use crate::datastore::{Datastore, Run, StoreError, Write};
use crate::model::scalar::Timestamp;
use crate::model::{AllowedUse, Cidr};
use follow::Follower;
use plan::Step;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};

pub use block::{Allocation, Block, Owner, name as block_name};
pub use books::{Books, Endpoint, Pool, Settings, Stored};
pub use collect::{Collected, Collection, Collector, GRACE};

/// Writes of one request that others outran, or that it took.
const ATTEMPTS: usize = 1024;

/// The most addresses that one request may ask for, of each IP version.
pub const MAX_ADDRESSES: usize = 4096;

/// The most bytes of a handle, and of an attribute.
pub const MAX_TEXT: usize = 512;

/// What tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Gives addresses out of a store that others may give them out of, too.
pub struct Ipam {
    store: Arc<dyn Datastore>,
    clock: Clock,
    /// One agent's requests go one after the other: they would only outrun each other.
    follower: Mutex<Follower>,
}

/// Who wants which addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Under which they are given back. What it has already counts.
    pub handle: String,
    /// Where they are used.
    pub node: String,
    /// The workload's namespace; empty where it has none.
    pub namespace: String,
    /// The workload's name; empty where it is for none.
    pub pod: String,
    /// What for.
    pub purpose: AllowedUse,
    /// Exactly these.
    pub addresses: Vec<IpAddr>,
    /// How many the handle is to have in the end, with those of `addresses`.
    pub v4: usize,
    /// The same of IPv6.
    pub v6: usize,
    /// Names or prefixes of the only pools to take from; empty: all that select node and namespace.
    pub v4_pools: Vec<String>,
    /// The same of IPv6.
    pub v6_pools: Vec<String>,
    /// To keep with the addresses.
    pub attributes: BTreeMap<String, String>,
}

/// An address that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// Its pool's name; empty where the pool is gone.
    pub pool: String,
    /// The block it is of.
    pub block: Cidr,
}

/// One address to take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The address.
    pub address: IpAddr,
    /// Only from this handle.
    pub handle: Option<String>,
    /// Only if it was given at this sequence number of its block.
    pub sequence: Option<u64>,
}

/// Why addresses were not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// The request makes no sense.
    #[error("{field}: {message}")]
    Malformed {
        /// Of the request.
        field: &'static str,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// No pool has this address.
    #[error("{0} is in no IPPool: add a pool that has it, or ask for another address")]
    OutOfPools(IpAddr),
    /// There is no pool of that name or prefix.
    #[error("there is no IPPool {0}: see `margayctl get ippools`")]
    UnknownPool(String),
    /// The pool is of the other IP version.
    #[error("IPPool {pool} has no {version} addresses: name another one")]
    WrongVersion {
        /// As asked for.
        pool: String,
        /// What was wanted.
        version: &'static str,
    },
    /// Nothing is given from it.
    #[error("IPPool {0} is disabled: enable it, or take another one")]
    Disabled(String),
    /// It is for something else.
    #[error("IPPool {pool} is not for the use {purpose:?}: add that to its allowedUses, or take another one")]
    OtherUse {
        /// Its name.
        pool: String,
        /// What was wanted.
        purpose: AllowedUse,
    },
    /// There is none to take from.
    #[error(
        "no IPPool is for {version} addresses on node {node:?} in namespace {namespace:?}: add one, or mend the selectors"
    )]
    NoPool {
        /// What was wanted.
        version: &'static str,
        /// Where.
        node: String,
        /// For whom.
        namespace: String,
    },
    /// Somebody has it.
    #[error("{addr} is given already, to handle {handle:?}: ask for another one, or release it there")]
    Taken {
        /// The address.
        addr: IpAddr,
        /// Who has it.
        handle: String,
    },
    /// It is of another node's block, and nodes may not borrow.
    #[error("{addr} is of a block of node {node}, and strictAffinity is true: ask for another one")]
    Elsewhere {
        /// The address.
        addr: IpAddr,
        /// Whose block it is.
        node: String,
    },
    /// The node may claim no block.
    #[error("node {node} gets no further block: {reason}")]
    Full {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// There are none left.
    #[error("{missing} {version} addresses are missing and IPPools {pools} have none to give: {why}")]
    Exhausted {
        /// How many.
        missing: usize,
        /// What was wanted.
        version: &'static str,
        /// From which pools.
        pools: String,
        /// What stands in the way.
        why: String,
    },
    /// A block in the store makes no sense.
    #[error("the books of block {block} cannot be read ({why}): see `margayctl ipam check`")]
    Unreadable {
        /// Its prefix.
        block: Cidr,
        /// What is wrong with them.
        why: String,
    },
    /// Others wrote the same blocks each time.
    #[error("others changed the same blocks {ATTEMPTS} times meanwhile: try again")]
    Outrun,
    /// The store did not do it, or nobody knows whether it did.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ipam {
    /// Gives addresses out of `store`, at the time that `clock` tells.
    pub fn new(store: Arc<dyn Datastore>, clock: Clock) -> Self {
        Self { follower: Mutex::new(Follower::new(store.clone())), store, clock }
    }

    /// Gives all addresses that are asked for, or none. Asking again gives the same.
    ///
    /// A caller that gets no answer asks again, or gives the handle back.
    ///
    /// # Errors
    /// Why there are none. Of [`StoreError::Unavailable`] some may have been given: give the handle
    /// back.
    pub async fn assign(&self, request: &Request) -> Result<Vec<Assigned>, AssignError> {
        request.check()?;
        let mut follower = self.follower.lock().await;
        let books = follower.books().await?;
        let before: BTreeSet<IpAddr> =
            plan::addresses_of(books, &request.handle).map(|(addr, _)| addr).collect();
        let assigned = self.pursue(&mut follower, request).await;
        if assigned.is_err() {
            // What this request has been given until here. Where the store is away, so is this try.
            let new = |addr: IpAddr, allocation: &Allocation| {
                allocation.owner.handle == request.handle && !before.contains(&addr)
            };
            let _ = self.take_back(&mut follower, &request.handle, new).await;
        }
        assigned
    }

    /// Whether [`assign`](Self::assign) would give what is asked for, as far as the books say now.
    ///
    /// # Errors
    /// Why it would not.
    pub async fn could_assign(&self, request: &Request) -> Result<(), AssignError> {
        request.check()?;
        let mut follower = self.follower.lock().await;
        plan::assign(follower.books().await?, request, (self.clock)()).map(drop)
    }

    /// Takes back all that a handle has. What is free already is no error.
    ///
    /// # Errors
    /// The store could not be written: ask again.
    pub async fn release_handle(&self, handle: &str) -> Result<Vec<IpAddr>, AssignError> {
        let mut follower = self.follower.lock().await;
        self.take_back(&mut follower, handle, |_, allocation| allocation.owner.handle == handle).await
    }

    /// Takes back these addresses, as far as they are still as described. Returns which were.
    ///
    /// # Errors
    /// The store could not be written, or the block of one cannot be read.
    pub async fn release(&self, returned: &[Returned]) -> Result<Vec<IpAddr>, AssignError> {
        let mut follower = self.follower.lock().await;
        let mut released = Vec::new();
        for one in returned {
            for _ in 0..ATTEMPTS {
                let books = follower.books().await?;
                let Some((cidr, stored)) = books.block_of(one.address) else { break };
                let block = stored
                    .block
                    .as_ref()
                    .map_err(|why| AssignError::Unreadable { block: cidr, why: why.clone() })?;
                let is_over =
                    |addr: IpAddr, allocation: &Allocation| addr == one.address && one.means(allocation);
                let Some((write, addresses)) =
                    plan::release_from(books, stored.version, block, (self.clock)(), is_over)
                else {
                    break;
                };
                if self.write(write).await? {
                    released.extend(addresses);
                    break;
                }
            }
        }
        Ok(released)
    }

    /// All that addresses are given by, as the store has it now.
    ///
    /// # Errors
    /// The store has never been reached.
    pub async fn books(&self) -> Result<Books, StoreError> {
        Ok(Books::of(&self.store.list().await?))
    }

    async fn pursue(
        &self,
        follower: &mut MutexGuard<'_, Follower>,
        request: &Request,
    ) -> Result<Vec<Assigned>, AssignError> {
        for _ in 0..ATTEMPTS {
            match plan::assign(follower.books().await?, request, (self.clock)())? {
                Step::Done(assigned) => return Ok(assigned),
                Step::Write(write) => self.write(write).await?,
            };
        }
        Err(AssignError::Outrun)
    }

    async fn take_back(
        &self,
        follower: &mut MutexGuard<'_, Follower>,
        handle: &str,
        is_over: impl Fn(IpAddr, &Allocation) -> bool + Copy,
    ) -> Result<Vec<IpAddr>, AssignError> {
        let mut released = Vec::new();
        for _ in 0..ATTEMPTS {
            let step = plan::release(follower.books().await?, handle, (self.clock)(), is_over);
            let Some((write, addresses)) = step else { return Ok(released) };
            if self.write(write).await? {
                released.extend(addresses);
            }
        }
        Err(AssignError::Outrun)
    }

    /// Writes one block. `false`: it was changed since the books were read.
    async fn write(&self, write: Write) -> Result<bool, StoreError> {
        match self.store.commit(vec![write], Run::Real).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Request {
    /// One that wants nothing yet.
    pub fn new(handle: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            handle: handle.into(),
            node: node.into(),
            namespace: String::new(),
            pod: String::new(),
            purpose: AllowedUse::Workload,
            addresses: Vec::new(),
            v4: 0,
            v6: 0,
            v4_pools: Vec::new(),
            v6_pools: Vec::new(),
            attributes: BTreeMap::new(),
        }
    }

    fn owner(&self) -> Owner {
        let mut attributes = self.attributes.clone();
        let named = [(Owner::NAMESPACE, &self.namespace), (Owner::POD, &self.pod), (Owner::NODE, &self.node)];
        for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
            attributes.insert(name.to_owned(), value.clone());
        }
        if self.purpose != AllowedUse::Workload {
            attributes.insert(Owner::TYPE.to_owned(), format!("{:?}", self.purpose).to_lowercase());
        }
        Owner { handle: self.handle.clone(), attributes }
    }

    fn check(&self) -> Result<(), AssignError> {
        let wrong = |field, message: String| Err(AssignError::Malformed { field, message });
        let texts =
            self.attributes.iter().flat_map(|(name, value)| [("attributes", name), ("attributes", value)]);
        let texts = texts.chain([
            ("handle", &self.handle),
            ("node", &self.node),
            ("namespace", &self.namespace),
            ("pod", &self.pod),
        ]);
        for (field, text) in texts {
            if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
                return wrong(
                    field,
                    format!("{} bytes; give at most {MAX_TEXT}, none a control character", text.len()),
                );
            }
        }
        if self.handle.is_empty() {
            return wrong("handle", "empty: name one, by which the addresses are given back".into());
        }
        if self.node.is_empty() {
            return wrong("node", "empty: name the node that uses the addresses".into());
        }
        let most = self.v4.max(self.v6).max(self.addresses.len()).max(self.attributes.len());
        if most > MAX_ADDRESSES {
            return wrong(
                "addresses",
                format!("{most} asked for; at most {MAX_ADDRESSES} are given at once"),
            );
        }
        if most == 0 {
            return wrong("num_ipv4", "no address is asked for: give a number or addresses".into());
        }
        let mut seen = BTreeSet::new();
        match self.addresses.iter().find(|addr| !seen.insert(**addr)) {
            Some(twice) => wrong("addresses", format!("{twice} is named twice: name it once")),
            None => Ok(()),
        }
    }
}

impl Returned {
    /// Whoever has it.
    pub const fn any(address: IpAddr) -> Self {
        Self { address, handle: None, sequence: None }
    }

    fn means(&self, allocation: &Allocation) -> bool {
        self.handle.as_ref().is_none_or(|handle| *handle == allocation.owner.handle)
            && self.sequence.is_none_or(|sequence| sequence == allocation.sequence)
    }
}
