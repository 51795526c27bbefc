//! Which block a node claims next.

use super::books::{Books, Pool};
use crate::model::Cidr;
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// The first block of the pool, from where the node's name says and around, that is nobody's and has
/// an address to give. Nodes that begin in different places seldom want the same block.
pub(super) fn unclaimed(books: &Books, pool: &Pool, node: &str) -> Option<Cidr> {
    let blocks = Blocks::of(pool);
    let start = blocks.start(node);
    blocks.search(books, start, blocks.count).or_else(|| blocks.search(books, 0, start))
}

/// Where in so many things the node begins.
pub(super) fn spread(node: &str, things: usize) -> usize {
    hash(node).checked_rem(things as u128).map_or(0, |at| at as usize)
}

fn hash(node: &str) -> u128 {
    let digest = Sha256::digest(node);
    digest.iter().take(16).fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

/// A pool's blocks, by number.
struct Blocks {
    first: IpAddr,
    len: u8,
    /// Addresses in a block.
    size: u128,
    count: u128,
}

impl Blocks {
    fn of(pool: &Pool) -> Self {
        let (cidr, len) = (pool.spec.cidr, pool.spec.block_size());
        let width = if cidr.is_v4() { 32 } else { 128 };
        let power = |bits: u8| 1_u128.checked_shl(bits.into()).unwrap_or(u128::MAX);
        // A disabled pool may be smaller than its blocks; nobody claims from it.
        let count = len.checked_sub(cidr.len()).map_or(0, power);
        Self { first: cidr.addr(), len, size: power(width - len), count }
    }

    fn start(&self, node: &str) -> u128 {
        hash(node).checked_rem(self.count).unwrap_or(0)
    }

    fn block(&self, number: u128) -> Cidr {
        let addr = match self.first {
            IpAddr::V4(first) => IpAddr::V4((first.to_bits() + (number * self.size) as u32).into()),
            IpAddr::V6(first) => IpAddr::V6((first.to_bits() + number * self.size).into()),
        };
        Cidr::truncate(addr, self.len)
    }

    /// The number of the block that the address is in; the address is not below the pool.
    fn number(&self, addr: IpAddr) -> u128 {
        match (self.first, addr) {
            (IpAddr::V4(first), IpAddr::V4(addr)) => u128::from(addr.to_bits() - first.to_bits()) / self.size,
            (IpAddr::V6(first), IpAddr::V6(addr)) => (addr.to_bits() - first.to_bits()) / self.size,
            _ => 0,
        }
    }

    fn search(&self, books: &Books, from: u128, to: u128) -> Option<Cidr> {
        let mut number = from;
        while number < to {
            let block = self.block(number);
            // A reservation may be of more blocks than can be walked.
            let whole =
                books.reserved().find(|cidr| cidr.len() <= block.len() && cidr.contains(block.addr()));
            number = match whole {
                Some(reserved) => self.number(last(reserved)) + 1,
                None if books.overlapping(block).is_none() && has_unreserved(books, block) => {
                    return Some(block);
                }
                None => number + 1,
            };
        }
        None
    }
}

fn has_unreserved(books: &Books, block: Cidr) -> bool {
    addresses(block).any(|addr| books.reservation(addr).is_none())
}

/// All of a block.
fn addresses(block: Cidr) -> impl Iterator<Item = IpAddr> {
    let width = if block.is_v4() { 32 } else { 128 };
    (0..1_u32 << (width - block.len())).map(move |at| match block.addr() {
        IpAddr::V4(first) => IpAddr::V4((first.to_bits() | at).into()),
        IpAddr::V6(first) => IpAddr::V6((first.to_bits() | u128::from(at)).into()),
    })
}

/// The highest address.
fn last(cidr: Cidr) -> IpAddr {
    match cidr.addr() {
        IpAddr::V4(first) => {
            IpAddr::V4((first.to_bits() | u32::MAX.checked_shr(cidr.len().into()).unwrap_or(0)).into())
        }
        IpAddr::V6(first) => {
            IpAddr::V6((first.to_bits() | u128::MAX.checked_shr(cidr.len().into()).unwrap_or(0)).into())
        }
    }
}
