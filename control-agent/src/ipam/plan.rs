//! What to write next so that somebody has the addresses that were asked for.
//!
//! A plan is one change of one block, made on the books as they are. Nothing is remembered from one
//! plan to the next: what a handle has already counts, so that a plan made again after somebody else
//! wrote, after a crash, or by another agent, goes on where the last one ended.

use super::block::{Allocation, Block, Denied, Owner};
use super::books::{self, Books, Pool, Stored};
use super::claim;
use super::{AssignError, Assigned, Request};
use crate::datastore::{Expected, Write};
use crate::model::Cidr;
use crate::model::scalar::Timestamp;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// How long an empty block is its owner's before another node may have it, in seconds.
const FRESH: u64 = 60;

/// A step.
#[derive(Debug)]
pub(super) enum Step {
    /// The handle has all of this.
    Done(Vec<Assigned>),
    /// Write this, and plan again.
    Write(Write),
}

/// The next step of an assignment.
pub(super) fn assign(books: &Books, request: &Request, now: Timestamp) -> Result<Step, AssignError> {
    let owner = Arc::new(request.owner());
    let mut has: BTreeSet<IpAddr> = addresses_of(books, &request.handle).map(|(addr, _)| addr).collect();
    let mut answer = Vec::new();
    for addr in &request.addresses {
        if !has.remove(addr) {
            return by_name(books, request, *addr, &owner, now).map(Step::Write);
        }
        answer.push(assigned(books, *addr));
    }
    for (v4, wanted, pools) in [(true, request.v4, &request.v4_pools), (false, request.v6, &request.v6_pools)]
    {
        let named = request.addresses.iter().filter(|addr| addr.is_ipv4() == v4).count();
        let wanted = wanted.saturating_sub(named);
        let found: Vec<IpAddr> =
            has.iter().copied().filter(|addr| addr.is_ipv4() == v4).take(wanted).collect();
        if found.len() < wanted {
            let missing = wanted - found.len();
            let pools = eligible(books, request, v4, pools)?;
            return any(books, request, &pools, missing, &owner, now).map(Step::Write);
        }
        answer.extend(found.into_iter().map(|addr| assigned(books, addr)));
    }
    Ok(Step::Done(answer))
}

/// The next block from which something is to be taken back; `None`: nothing is left.
pub(super) fn release(
    books: &Books,
    handle: &str,
    now: Timestamp,
    is_over: impl Fn(IpAddr, &Allocation) -> bool + Copy,
) -> Option<(Write, Vec<IpAddr>)> {
    books
        .blocks_of_handle(handle)
        .find_map(|(version, block)| release_from(books, version, block, now, is_over))
}

/// What is to be taken back from one block; `None`: nothing.
pub(super) fn release_from(
    books: &Books,
    version: u64,
    block: &Block,
    now: Timestamp,
    is_over: impl Fn(IpAddr, &Allocation) -> bool,
) -> Option<(Write, Vec<IpAddr>)> {
    let mut block = block.clone();
    let released = block.release(now, books.settings().rest, is_over);
    (!released.is_empty()).then(|| (books::put(&block, Expected::Version(version)), released))
}

/// What a handle has, ascending by block.
pub(super) fn addresses_of<'a>(
    books: &'a Books,
    handle: &'a str,
) -> impl Iterator<Item = (IpAddr, &'a Allocation)> {
    let all = books.blocks_of_handle(handle).flat_map(|(_, block)| block.allocations());
    all.filter(move |(_, allocation)| allocation.owner.handle == handle)
}

fn assigned(books: &Books, addr: IpAddr) -> Assigned {
    let pool = books.pool_of(addr).map(|pool| pool.name.clone()).unwrap_or_default();
    let block = books.block_of(addr).map_or(Cidr::host(addr), |(cidr, _)| cidr);
    Assigned { address: addr, pool, block }
}

/// One address and no other, also a reserved one, or one of a pool that is given by name only.
fn by_name(
    books: &Books,
    request: &Request,
    addr: IpAddr,
    owner: &Arc<Owner>,
    now: Timestamp,
) -> Result<Write, AssignError> {
    let settings = books.settings();
    let pool = books.pool_of(addr).ok_or(AssignError::OutOfPools(addr))?;
    usable(pool, request)?;
    let wanted = Cidr::truncate(addr, pool.spec.block_size());
    let (expected, mut block) = match books.overlapping(wanted) {
        Some((cidr, stored)) => {
            let block = stored.block.as_ref().map_err(|why| unreadable(cidr, why))?;
            let elsewhere = block.node().filter(|node| *node != request.node && settings.strict);
            if let Some(node) = elsewhere {
                return Err(AssignError::Elsewhere { addr, node: node.to_owned() });
            }
            (Expected::Version(stored.version), (**block).clone())
        }
        None => {
            room(books, request, addr.is_ipv4())?;
            (Expected::Nothing, Block::claim(wanted, &request.node, settings.strict, now))
        }
    };
    match block.assign_one(addr, owner, now, settings.rest) {
        Ok(()) => Ok(books::put(&block, expected)),
        Err(Denied::Taken(by)) => Err(AssignError::Taken { addr, handle: by.handle.clone() }),
        Err(Denied::Outside) => Err(AssignError::OutOfPools(addr)),
    }
}

/// The pools to take from, the first first.
fn eligible<'a>(
    books: &'a Books,
    request: &Request,
    v4: bool,
    named: &[String],
) -> Result<Vec<&'a Pool>, AssignError> {
    let version = if v4 { "IPv4" } else { "IPv6" };
    if named.is_empty() {
        let all = books.pools().filter(|pool| pool.spec.cidr.is_v4() == v4 && pool.is_automatic());
        let all = all.filter(|pool| usable(pool, request).is_ok());
        let pools: Vec<_> =
            all.filter(|pool| books.selects(pool, &request.node, &request.namespace)).collect();
        let none = || AssignError::NoPool {
            version,
            node: request.node.clone(),
            namespace: request.namespace.clone(),
        };
        return if pools.is_empty() { Err(none()) } else { Ok(pools) };
    }
    let named = named.iter().map(|name| {
        let cidr: Option<Cidr> = name.parse().ok();
        let found = books.pool(name).or_else(|| books.pools().find(|pool| Some(pool.spec.cidr) == cidr));
        let pool = found.ok_or_else(|| AssignError::UnknownPool(name.clone()))?;
        usable(pool, request)?;
        match pool.spec.cidr.is_v4() == v4 {
            true => Ok(pool),
            false => Err(AssignError::WrongVersion { pool: name.clone(), version }),
        }
    });
    named.collect()
}

fn usable(pool: &Pool, request: &Request) -> Result<(), AssignError> {
    if pool.spec.disabled {
        return Err(AssignError::Disabled(pool.name.clone()));
    }
    match pool.allows(request.purpose) {
        true => Ok(()),
        false => Err(AssignError::OtherUse { pool: pool.name.clone(), purpose: request.purpose }),
    }
}

/// Whatever is free: of the node's own blocks, of one that it claims, or else of another's.
fn any(
    books: &Books,
    request: &Request,
    pools: &[&Pool],
    missing: usize,
    owner: &Arc<Owner>,
    now: Timestamp,
) -> Result<Write, AssignError> {
    let settings = books.settings();
    let v4 = pools.first().is_some_and(|pool| pool.spec.cidr.is_v4());
    let take = |expected, mut block: Block| {
        let given =
            block.assign(missing, owner, now, settings.rest, |addr| books.reservation(addr).is_none());
        (!given.is_empty()).then(|| books::put(&block, expected))
    };
    for pool in pools {
        let own = books.blocks_of_node(&request.node);
        let own = own.filter(|(_, block)| pool.spec.cidr.contains(block.cidr().addr()));
        for (version, block) in own {
            if let Some(write) = take(Expected::Version(version), (**block).clone()) {
                return Ok(write);
            }
        }
    }
    let room = room(books, request, v4);
    if room.is_ok() {
        for pool in pools {
            if let Some(cidr) = claim::unclaimed(books, pool, &request.node) {
                let block = Block::claim(cidr, &request.node, settings.strict, now);
                if let Some(write) = take(Expected::Nothing, block) {
                    return Ok(write);
                }
            }
        }
        for (version, block) in pools.iter().flat_map(|pool| abandoned(books, pool, now)) {
            let mut block = (**block).clone();
            block.hand_to(Some(&request.node), now);
            if let Some(write) = take(Expected::Version(version), block) {
                return Ok(write);
            }
        }
    }
    if !settings.strict {
        for (version, block) in pools.iter().flat_map(|pool| others(books, pool, &request.node)) {
            if let Some(write) = take(Expected::Version(version), (**block).clone()) {
                return Ok(write);
            }
        }
    }
    Err(AssignError::Exhausted {
        missing,
        version: if v4 { "IPv4" } else { "IPv6" },
        pools: pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>().join(", "),
        why: match room {
            Err(AssignError::Full { reason, .. }) => reason,
            _ if settings.strict => {
                "every block is another node's, and strictAffinity forbids to borrow".into()
            }
            _ => "every address is given, reserved, or resting".into(),
        },
    })
}

/// Whether the node may claim one more block.
fn room(books: &Books, request: &Request, v4: bool) -> Result<(), AssignError> {
    let settings = books.settings();
    let node = &request.node;
    if !settings.claims {
        let reason = "autoAllocateBlocks is false, so that no node claims a block".to_owned();
        return Err(AssignError::Full { node: node.clone(), reason });
    }
    let own = books.blocks_of_node(node).filter(|(_, block)| block.cidr().is_v4() == v4).count();
    if own >= settings.max_blocks {
        let reason = format!("node {node} has {own} blocks, as many as maxBlocksPerHost allows");
        return Err(AssignError::Full { node: node.clone(), reason });
    }
    Ok(())
}

/// Blocks that nobody has, and such as another node has had for a while and does not use.
fn abandoned<'a>(
    books: &'a Books,
    pool: &Pool,
    now: Timestamp,
) -> impl Iterator<Item = (u64, &'a Arc<Block>)> {
    let unused = move |block: &Block| {
        let since = block.claimed().unwrap_or_default();
        !block.is_owned() || (block.node().is_some() && block.is_empty() && now.since(since) >= FRESH)
    };
    readable(books, pool).filter(move |(_, block)| unused(block))
}

/// The blocks of others, from where the node's name says and around.
fn others<'a>(books: &'a Books, pool: &Pool, node: &str) -> impl Iterator<Item = (u64, &'a Arc<Block>)> {
    let mut others: Vec<_> = readable(books, pool).filter(|(_, block)| block.node() != Some(node)).collect();
    let start = claim::spread(node, others.len());
    others.rotate_left(start);
    others.into_iter()
}

fn readable<'a>(books: &'a Books, pool: &Pool) -> impl Iterator<Item = (u64, &'a Arc<Block>)> {
    let blocks = books.blocks_within(pool.spec.cidr);
    blocks.filter_map(|(_, Stored { version, block })| Some((*version, block.as_ref().ok()?)))
}

fn unreadable(cidr: Cidr, why: &str) -> AssignError {
    AssignError::Unreadable { block: cidr, why: why.to_owned() }
}
