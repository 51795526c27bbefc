//! All that addresses are given by, in memory: pools, blocks, settings, and who is there.

use super::block::{self, Block};
use crate::datastore::{Change, Entry, Expected, Listing, Transaction, Write};
use crate::model::kubernetes::{self, Typed};
use crate::model::{
    AllowedUse, AssignmentMode, Cidr, IpPool, IpPoolSpec, IpamBlock, IpamConfigurationSpec, Key, Kind,
    Resource, Selector, WorkloadEndpoint,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// The name of the settings that count.
const SETTINGS: &str = "default";

/// Blocks that a node may have where the settings do not say.
const MAX_BLOCKS: usize = 20;

/// A store's content at one moment, as far as addresses are concerned.
#[derive(Clone, Debug, Default)]
pub struct Books {
    revision: u64,
    settings: Settings,
    pools: BTreeMap<String, Pool>,
    reservations: BTreeMap<String, Vec<Cidr>>,
    /// By first address and length.
    blocks: BTreeMap<(IpAddr, u8), Stored>,
    by_node: HashMap<String, BTreeSet<Cidr>>,
    by_handle: HashMap<String, BTreeSet<Cidr>>,
    nodes: BTreeMap<String, BTreeMap<String, String>>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// By the object that says so.
    endpoints: BTreeMap<Key, Vec<Endpoint>>,
    users: BTreeMap<IpAddr, BTreeSet<Key>>,
    endpoints_of: HashMap<String, usize>,
}

/// How addresses are handed out, with all that is implied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Nodes take from their own blocks only.
    pub strict: bool,
    /// Nodes claim blocks by themselves.
    pub claims: bool,
    /// Blocks that a node may have, of each IP version.
    pub max_blocks: usize,
    /// Seconds for which an address rests after it was given back.
    pub rest: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { strict: false, claims: true, max_blocks: MAX_BLOCKS, rest: 0 }
    }
}

impl From<&IpamConfigurationSpec> for Settings {
    fn from(spec: &IpamConfigurationSpec) -> Self {
        let number = |n: i64| usize::try_from(n).unwrap_or(0);
        Self {
            strict: spec.strict_affinity.unwrap_or(false),
            claims: spec.auto_allocate_blocks.unwrap_or(true),
            max_blocks: match spec.max_blocks_per_host.map_or(0, |n| number(n.get())) {
                0 => MAX_BLOCKS,
                limit => limit,
            },
            rest: spec.ip_cooldown_seconds.map_or(0, |n| number(n.get()) as u64),
        }
    }
}

/// A pool, with its selectors read.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: IpPoolSpec,
    nodes: Selector,
    namespaces: Selector,
}

impl Pool {
    fn new(pool: &IpPool) -> Self {
        // A selector that cannot be read selects nothing; none like it is admitted.
        let selector =
            |text: &str| Selector::parse(text).unwrap_or_else(|_| Selector::one_of::<&str>("", &[]));
        Self {
            name: pool.metadata.name.clone(),
            nodes: selector(&pool.spec.node_selector),
            namespaces: selector(&pool.spec.namespace_selector),
            spec: pool.spec.clone(),
        }
    }

    /// Addresses for that are given from it.
    pub fn allows(&self, wanted: AllowedUse) -> bool {
        match self.spec.allowed_uses.as_slice() {
            [] => matches!(wanted, AllowedUse::Workload | AllowedUse::Tunnel),
            uses => uses.contains(&wanted),
        }
    }

    /// Whoever asks for no pool in particular may get its addresses.
    pub fn is_automatic(&self) -> bool {
        self.spec.assignment_mode != Some(AssignmentMode::Manual)
    }
}

/// A block in the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// To expect when it is written.
    pub version: u64,
    /// What cannot be read is nobody's to change; with why.
    pub block: Result<Arc<Block>, String>,
}

/// A workload's endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it is.
    pub node: String,
    /// Its namespace and the name of its workload.
    pub workload: (String, String),
    /// What it has.
    pub addresses: Vec<Cidr>,
}

impl Books {
    /// Of a whole store.
    pub fn of(listing: &Listing) -> Self {
        let mut books = Self { revision: listing.revision, ..Self::default() };
        listing.entries.iter().for_each(|entry| books.take(entry));
        books
    }

    /// Follows a change of the store.
    pub fn follow(&mut self, transaction: &Transaction) {
        for change in &transaction.changes {
            match change {
                Change::Added(entry) | Change::Modified(entry) => self.take(entry),
                Change::Deleted(entry) => self.remove(&entry.key),
            }
        }
        self.revision = transaction.revision;
    }

    /// Of the store.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The settings in force.
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// Every pool, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// The pool that the address is of. Pools do not overlap.
    pub fn pool_of(&self, addr: IpAddr) -> Option<&Pool> {
        self.pools().find(|pool| pool.spec.cidr.contains(addr))
    }

    /// Pools that whoever does not name one takes from: those that select the node and the namespace.
    pub fn selects(&self, pool: &Pool, node: &str, namespace: &str) -> bool {
        let none = BTreeMap::new();
        pool.nodes.matches(self.nodes.get(node).unwrap_or(&none))
            && pool.namespaces.matches(self.namespaces.get(namespace).unwrap_or(&none))
    }

    /// Every block, by prefix.
    pub fn blocks(&self) -> impl Iterator<Item = (Cidr, &Stored)> {
        self.blocks.iter().map(|(at, stored)| (cidr(at), stored))
    }

    /// The blocks of a prefix, ascending.
    pub fn blocks_within(&self, within: Cidr) -> impl Iterator<Item = (Cidr, &Stored)> {
        let from = self.blocks.range((within.addr(), 0)..).map(|(at, stored)| (cidr(at), stored));
        from.take_while(move |(block, _)| within.contains(block.addr()))
    }

    /// The block that shares addresses with this prefix of a block's size.
    pub fn overlapping(&self, with: Cidr) -> Option<(Cidr, &Stored)> {
        let before = self.blocks.range(..(with.addr(), 0)).next_back();
        let after = self.blocks.range((with.addr(), 0)..).next();
        let nearest = [before, after].into_iter().flatten().map(|(at, stored)| (cidr(at), stored));
        nearest.into_iter().find(|(block, _)| block.overlaps(with))
    }

    /// The block that the address is of.
    pub fn block_of(&self, addr: IpAddr) -> Option<(Cidr, &Stored)> {
        self.overlapping(Cidr::host(addr))
    }

    /// The blocks that are a node's.
    pub fn blocks_of_node<'a>(&'a self, node: &str) -> impl Iterator<Item = (u64, &'a Arc<Block>)> {
        self.readable(self.by_node.get(node))
    }

    /// The blocks in which a handle has addresses.
    pub fn blocks_of_handle<'a>(&'a self, handle: &str) -> impl Iterator<Item = (u64, &'a Arc<Block>)> {
        self.readable(self.by_handle.get(handle))
    }

    /// The prefix that holds the address and that nobody gets without asking by name.
    pub fn reservation(&self, addr: IpAddr) -> Option<Cidr> {
        self.reserved().filter(|cidr| cidr.contains(addr)).min_by_key(|cidr| cidr.len())
    }

    /// Every reserved prefix.
    pub fn reserved(&self) -> impl Iterator<Item = Cidr> {
        self.reservations.values().flatten().copied()
    }

    /// There is a Node object of this name.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// Endpoints that are on the node.
    pub fn endpoints_on(&self, node: &str) -> usize {
        self.endpoints_of.get(node).copied().unwrap_or(0)
    }

    /// Every endpoint, with the object that says so.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Key, &Endpoint)> {
        self.endpoints
            .iter()
            .flat_map(|(key, endpoints)| endpoints.iter().map(move |endpoint| (key, endpoint)))
    }

    /// The objects whose endpoint has the address.
    pub fn users(&self, addr: IpAddr) -> impl Iterator<Item = &Key> {
        self.users.get(&addr).into_iter().flatten()
    }

    fn readable(&self, cidrs: Option<&BTreeSet<Cidr>>) -> impl Iterator<Item = (u64, &Arc<Block>)> {
        let stored = cidrs.into_iter().flatten().filter_map(|cidr| self.blocks.get(&place(*cidr)));
        stored.filter_map(|stored| Some((stored.version, stored.block.as_ref().ok()?)))
    }

    fn take(&mut self, entry: &Entry) {
        if !is_of_interest(entry.key.kind) {
            return;
        }
        self.remove(&entry.key);
        match Resource::from_json(&entry.json) {
            Ok(resource) => self.insert(entry, &resource),
            // The prefix is in the name of a block that this release cannot read: it stays taken.
            Err(errors) if entry.key.kind == Kind::IPAMBlock => {
                let why = errors.first().map(ToString::to_string).unwrap_or_default();
                if let Some(cidr) = block::prefix(&entry.key.name) {
                    self.blocks.insert(place(cidr), Stored { version: entry.version, block: Err(why) });
                }
            }
            // The calculation says so, and keeps its last state.
            Err(_) => {}
        }
    }

    fn insert(&mut self, entry: &Entry, resource: &Resource) {
        let name = entry.key.name.clone();
        match resource {
            Resource::IPPool(pool) => {
                self.pools.insert(name, Pool::new(pool));
            }
            Resource::IPAMConfiguration(settings) if name == SETTINGS => {
                self.settings = (&settings.spec).into()
            }
            Resource::IPReservation(reservation) => {
                let cidrs =
                    reservation.spec.reserved_cidrs.iter().flatten().map(|cidr| cidr.subnet()).collect();
                self.reservations.insert(name, cidrs);
            }
            Resource::IPAMBlock(object) => self.insert_block(&entry.key.name, entry.version, object),
            Resource::Node(node) => {
                self.nodes.insert(name, node.metadata.labels.clone());
            }
            Resource::WorkloadEndpoint(endpoint) => self.insert_endpoint(entry.key.clone(), endpoint),
            Resource::Kubernetes(object) => match object.typed() {
                Typed::Namespace(namespace) => {
                    self.namespaces.insert(name, namespace.metadata.labels.clone());
                }
                Typed::Pod(_) => {
                    for converted in kubernetes::convert(object).resources {
                        if let Resource::WorkloadEndpoint(endpoint) = &converted {
                            self.insert_endpoint(entry.key.clone(), endpoint);
                        }
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn insert_block(&mut self, name: &str, version: u64, object: &IpamBlock) {
        let Some(cidr) = block::prefix(name) else { return };
        let block = match object.spec.cidr == cidr {
            true => Block::parse(object).map(Arc::new),
            false => Err(format!("spec.cidr: {} is not the prefix of its name", object.spec.cidr)),
        };
        if let Ok(block) = &block {
            if let Some(node) = block.node() {
                self.by_node.entry(node.to_owned()).or_default().insert(cidr);
            }
            for (_, allocation) in block.allocations() {
                match self.by_handle.get_mut(&allocation.owner.handle) {
                    Some(blocks) => drop(blocks.insert(cidr)),
                    None => drop(self.by_handle.insert(allocation.owner.handle.clone(), [cidr].into())),
                }
            }
        }
        self.blocks.insert(place(cidr), Stored { version, block });
    }

    fn insert_endpoint(&mut self, key: Key, endpoint: &WorkloadEndpoint) {
        let spec = &endpoint.spec;
        for cidr in spec.ip_networks.iter().filter(|cidr| cidr.is_host()) {
            self.users.entry(cidr.addr()).or_default().insert(key.clone());
        }
        *self.endpoints_of.entry(spec.node.clone()).or_default() += 1;
        let workload = if spec.pod.is_empty() { &spec.workload } else { &spec.pod };
        let endpoint = Endpoint {
            node: spec.node.clone(),
            workload: (endpoint.metadata.namespace.clone(), workload.clone()),
            addresses: spec.ip_networks.clone(),
        };
        self.endpoints.entry(key).or_default().push(endpoint);
    }

    fn remove(&mut self, key: &Key) {
        match key.kind {
            Kind::IPPool => drop(self.pools.remove(&key.name)),
            Kind::IPAMConfiguration if key.name == SETTINGS => self.settings = Settings::default(),
            Kind::IPReservation => drop(self.reservations.remove(&key.name)),
            Kind::Node => drop(self.nodes.remove(&key.name)),
            Kind::Namespace => drop(self.namespaces.remove(&key.name)),
            Kind::IPAMBlock => self.remove_block(&key.name),
            Kind::WorkloadEndpoint | Kind::Pod => self.remove_endpoints(key),
            _ => {}
        }
    }

    fn remove_block(&mut self, name: &str) {
        let Some(cidr) = block::prefix(name) else { return };
        let Some(Stored { block: Ok(block), .. }) = self.blocks.remove(&place(cidr)) else { return };
        if let Some(node) = block.node() {
            forget(&mut self.by_node, node, cidr);
        }
        for (_, allocation) in block.allocations() {
            forget(&mut self.by_handle, &allocation.owner.handle, cidr);
        }
    }

    fn remove_endpoints(&mut self, key: &Key) {
        for endpoint in self.endpoints.remove(key).into_iter().flatten() {
            for cidr in endpoint.addresses.iter().filter(|cidr| cidr.is_host()) {
                if let Some(users) = self.users.get_mut(&cidr.addr()) {
                    users.remove(key);
                    if users.is_empty() {
                        self.users.remove(&cidr.addr());
                    }
                }
            }
            if let Some(count) = self.endpoints_of.get_mut(&endpoint.node) {
                *count -= 1;
                if *count == 0 {
                    self.endpoints_of.remove(&endpoint.node);
                }
            }
        }
    }
}

/// The write that makes the stored block what `block` is.
pub fn put(block: &Block, expected: Expected) -> Write {
    let object = Resource::from(block.to_object());
    Write::Put { key: object.key(), json: object.to_json().into(), expected }
}

/// The removal of a block that is at this version.
pub fn delete(block: &Block, version: u64) -> Write {
    let key = Key::global(Kind::IPAMBlock, block::name(block.cidr()));
    Write::Delete { key, expected: Expected::Version(version) }
}

const fn is_of_interest(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::IPPool
            | Kind::IPAMConfiguration
            | Kind::IPReservation
            | Kind::IPAMBlock
            | Kind::Node
            | Kind::Namespace
            | Kind::WorkloadEndpoint
            | Kind::Pod
    )
}

const fn place(block: Cidr) -> (IpAddr, u8) {
    (block.addr(), block.len())
}

fn cidr((addr, len): &(IpAddr, u8)) -> Cidr {
    Cidr::truncate(*addr, *len)
}

fn forget(index: &mut HashMap<String, BTreeSet<Cidr>>, of: &str, cidr: Cidr) {
    if let Some(cidrs) = index.get_mut(of) {
        cidrs.remove(&cidr);
        if cidrs.is_empty() {
            index.remove(of);
        }
    }
}
