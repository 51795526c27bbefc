//! What the books say, for people: how full pools and blocks are, and what does not add up.

use super::block::{Allocation, Block, Owner};
use super::books::Books;
use super::collect;
use crate::model::{Cidr, Key};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How full something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Addresses that it has.
    pub size: u128,
    /// Those that somebody has.
    pub used: u64,
    /// Those of the used that are another node's than the block is.
    pub borrowed: u64,
    /// Blocks that were claimed of it.
    pub blocks: u64,
}

/// What does not add up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Of what kind.
    pub kind: FindingKind,
    /// Of which address; of a block that cannot be read, its first.
    pub address: IpAddr,
    /// Of the one who has it; empty where nobody has.
    pub handle: String,
    /// Of the assignment, by which it can be taken back; 0 where there is none.
    pub sequence: u64,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Ways in which books can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// It is given to a pod of which no endpoint has it.
    Leaked,
    /// Several endpoints have it.
    Double,
    /// It is given, and in no pool.
    OutOfPool,
    /// An endpoint has it, it is of a pool, and it was never given.
    Unallocated,
    /// The block's books make no sense.
    Unreadable,
}

impl FindingKind {
    /// Every kind, in the order of a report.
    pub const ALL: [Self; 5] =
        [Self::Leaked, Self::Double, Self::OutOfPool, Self::Unallocated, Self::Unreadable];

    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leaked => "leaked",
            Self::Double => "double",
            Self::OutOfPool => "out-of-pool",
            Self::Unallocated => "unallocated",
            Self::Unreadable => "unreadable",
        }
    }
}

/// How full a pool is, by its blocks that can be read.
pub fn pool_usage(books: &Books, pool: Cidr) -> Usage {
    let width: u8 = if pool.is_v4() { 32 } else { 128 };
    let mut usage = Usage {
        size: 1_u128.checked_shl((width - pool.len()).into()).unwrap_or(u128::MAX),
        ..Usage::default()
    };
    for block in books.blocks_within(pool).filter_map(|(_, stored)| stored.block.as_ref().ok()) {
        let of_block = block_usage(block);
        usage.used += of_block.used;
        usage.borrowed += of_block.borrowed;
        usage.blocks += 1;
    }
    usage
}

/// How full a block is.
pub fn block_usage(block: &Block) -> Usage {
    let borrowed = block.allocations().filter(|(_, allocation)| is_borrowed(block, allocation)).count();
    let used = block.allocations().count();
    Usage { size: block.size().into(), used: used as u64, borrowed: borrowed as u64, blocks: 1 }
}

/// Whether the address is used on another node than the one whose block it is of.
pub fn is_borrowed(block: &Block, allocation: &Allocation) -> bool {
    let node = allocation.owner.attribute(Owner::NODE);
    !node.is_empty() && block.node() != Some(node)
}

/// All that does not add up, by kind and address.
pub fn findings(books: &Books) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (cidr, stored) in books.blocks() {
        match &stored.block {
            Ok(block) => {
                findings.extend(block.allocations().flat_map(|(addr, given)| of_given(books, addr, given)))
            }
            Err(why) => findings.push(Finding {
                kind: FindingKind::Unreadable,
                address: cidr.addr(),
                handle: String::new(),
                sequence: 0,
                message: format!("block {cidr}: {why}; it gives and takes nothing until it is restored"),
            }),
        }
    }
    findings.extend(of_endpoints(books));
    findings.sort();
    findings
}

fn of_given(books: &Books, addr: IpAddr, given: &Allocation) -> Vec<Finding> {
    let owner = &given.owner;
    let finding = |kind, message: String| Finding {
        kind,
        address: addr,
        handle: owner.handle.clone(),
        sequence: given.sequence,
        message,
    };
    let mut findings = Vec::new();
    let node = owner.attribute(Owner::NODE);
    let gone = !node.is_empty() && !books.has_node(node) && books.endpoints_on(node) == 0;
    if collect::lost(books, addr, given, gone) {
        let (namespace, pod) = (owner.attribute(Owner::NAMESPACE), owner.attribute(Owner::POD));
        let whom = match pod {
            "" => format!("node {node}, which is gone"),
            _ => format!("{namespace}/{pod} on node {node}, and no endpoint has it"),
        };
        let remedy = "collected after 15 minutes, or now with ipam release --from-report";
        findings.push(finding(FindingKind::Leaked, format!("given to {whom}; {remedy}")));
    }
    if books.pool_of(addr).is_none() {
        let message = "given, and in no IPPool; add a pool that has it, or restart its workload";
        findings.push(finding(FindingKind::OutOfPool, message.into()));
    }
    findings
}

fn of_endpoints(books: &Books) -> Vec<Finding> {
    let mut users: BTreeMap<IpAddr, BTreeSet<&Key>> = BTreeMap::new();
    for (key, endpoint) in books.endpoints() {
        for cidr in endpoint.addresses.iter().filter(|cidr| cidr.is_host()) {
            users.entry(cidr.addr()).or_default().insert(key);
        }
    }
    let mut findings = Vec::new();
    for (addr, keys) in users {
        let block = books.block_of(addr).and_then(|(_, stored)| stored.block.as_ref().ok());
        let given = block.and_then(|block| block.allocation(addr));
        let names: Vec<_> = keys.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        let finding = |kind, message| Finding {
            kind,
            address: addr,
            handle: given.map(|given| given.owner.handle.clone()).unwrap_or_default(),
            sequence: given.map_or(0, |given| given.sequence),
            message,
        };
        if keys.len() > 1 {
            let message = format!("is of {names}; delete those that are gone, or restart all but one");
            findings.push(finding(FindingKind::Double, message));
        }
        if given.is_none() && books.pool_of(addr).is_some() {
            let message = format!("is of {names}, and was never given; restart it, or reserve the address");
            findings.push(finding(FindingKind::Unallocated, message));
        }
    }
    findings
}
