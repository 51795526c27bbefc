//! Addresses: asked for and given back.

use super::{Cluster, failure};
use crate::datastore::{Expected, Run, Write};
use crate::ipam::{self, AssignError, Assigned, Block, Books, Request, Returned, Stored, report};
use crate::model::{AllowedUse, Cidr, IpPool, Kind, Resource};
use margay_api::control::v1::{
    AddressFinding, AddressSettings, AddressToRelease, Allocation, AssignAddressesRequest,
    AssignAddressesResponse, AssignedAddress, BlockUsage, ListAddressesRequest, ListAddressesResponse,
    PoolUsage, ReleaseAddressesRequest, ReleaseAddressesResponse, SplitPoolRequest, SplitPoolResponse,
};
use std::net::IpAddr;
use tonic::{Code, Status};

/// Addresses that one request may give back.
const ADDRESSES: usize = 100_000;

impl Cluster<'_> {
    pub(super) async fn assign_addresses(
        &self,
        request: AssignAddressesRequest,
    ) -> Result<AssignAddressesResponse, Status> {
        let purpose = match request.r#use.as_str() {
            "" | "Workload" => AllowedUse::Workload,
            "Tunnel" => AllowedUse::Tunnel,
            "LoadBalancer" => AllowedUse::LoadBalancer,
            other => {
                let message = format!("use: {other:?} is none of Workload, Tunnel and LoadBalancer");
                return Err(Status::invalid_argument(message));
            }
        };
        let addresses = request.addresses.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let request = Request {
            handle: request.handle,
            node: if request.node.is_empty() { self.node.to_owned() } else { request.node },
            namespace: request.namespace,
            pod: request.pod,
            purpose,
            addresses,
            v4: count(request.num_ipv4),
            v6: count(request.num_ipv6),
            v4_pools: request.ipv4_pools,
            v6_pools: request.ipv6_pools,
            attributes: request.attributes.into_iter().collect(),
        };
        let assigned = self.ipam.assign(&request).await.map_err(refused)?;
        Ok(AssignAddressesResponse { addresses: assigned.into_iter().map(message).collect() })
    }

    pub(super) async fn release_addresses(
        &self,
        request: ReleaseAddressesRequest,
    ) -> Result<ReleaseAddressesResponse, Status> {
        let count = request.addresses.len();
        let released = match (request.handle.as_str(), count) {
            ("", 0) => return Err(Status::invalid_argument("name a handle or addresses to give back")),
            ("", 1..=ADDRESSES) => {
                let returned = request.addresses.into_iter().map(returned).collect::<Result<Vec<_>, _>>()?;
                self.ipam.release(&returned).await
            }
            ("", _) => {
                let message = format!("{count} addresses in one request; at most {ADDRESSES} fit");
                return Err(Status::invalid_argument(message));
            }
            (handle, 0) => self.ipam.release_handle(handle).await,
            (..) => return Err(Status::invalid_argument("name either a handle or addresses, not both")),
        };
        let released = released.map_err(refused)?;
        Ok(ReleaseAddressesResponse { released: released.iter().map(ToString::to_string).collect() })
    }

    pub(super) async fn list_addresses(
        &self,
        request: ListAddressesRequest,
    ) -> Result<ListAddressesResponse, Status> {
        let only = match request.address.as_str() {
            "" => None,
            text => Some(address(text)?),
        };
        let books = self.ipam.books().await.map_err(failure::store)?;
        let settings = books.settings();
        let pools = books.pools().map(|pool| {
            let usage = report::pool_usage(&books, pool.spec.cidr);
            PoolUsage {
                name: pool.name.clone(),
                cidr: pool.spec.cidr.to_string(),
                size: usage.size.to_string(),
                used: usage.used,
                borrowed: usage.borrowed,
                blocks: usage.blocks,
                disabled: pool.spec.disabled,
            }
        });
        let allocations = match only {
            Some(addr) => books
                .block_of(addr)
                .and_then(|(_, stored)| stored.block.as_ref().ok())
                .and_then(|block| Some(allocation(&books, block, addr, block.allocation(addr)?)))
                .into_iter()
                .collect(),
            None if request.allocations => books
                .blocks()
                .filter_map(|(_, stored)| stored.block.as_ref().ok())
                .flat_map(|block| {
                    block.allocations().map(|(addr, given)| allocation(&books, block, addr, given))
                })
                .collect(),
            None => Vec::new(),
        };
        let findings = if request.findings { report::findings(&books) } else { Vec::new() };
        Ok(ListAddressesResponse {
            revision: books.revision(),
            pools: pools.collect(),
            blocks: books.blocks().map(|(cidr, stored)| block_usage(&books, cidr, stored)).collect(),
            allocations,
            findings: findings.into_iter().map(finding).collect(),
            settings: Some(AddressSettings {
                strict_affinity: settings.strict,
                auto_allocate_blocks: settings.claims,
                max_blocks_per_host: settings.max_blocks as u64,
                ip_cooldown_seconds: settings.rest,
            }),
            reservation: only
                .and_then(|addr| books.reservation(addr))
                .map(|cidr| cidr.to_string())
                .unwrap_or_default(),
        })
    }

    pub(super) async fn split_pool(&self, request: SplitPoolRequest) -> Result<SplitPoolResponse, Status> {
        let wrong = |message: String| Status::invalid_argument(message);
        let listing = self.store.list().await.map_err(failure::store)?;
        let cidr: Option<Cidr> = request.pool.parse().ok();
        let found = listing.entries.iter().find_map(|entry| match Resource::from_json(&entry.json) {
            _ if entry.key.kind != Kind::IPPool => None,
            Ok(Resource::IPPool(pool)) => {
                let meant = entry.key.name == request.pool || Some(pool.spec.cidr) == cidr;
                meant.then_some((entry, pool))
            }
            _ => None,
        });
        let (entry, pool) =
            found.ok_or_else(|| Status::not_found(format!("there is no IPPool {}", request.pool)))?;
        let (cidr, size) = (pool.spec.cidr, pool.spec.block_size());
        let bits =
            request.parts.checked_ilog2().filter(|_| request.parts.is_power_of_two() && request.parts > 1);
        let bits =
            bits.filter(|bits| u32::from(cidr.len()) + bits <= u32::from(size) && request.parts <= PARTS);
        let bits = bits.ok_or_else(|| {
            let parts = request.parts;
            wrong(format!(
                "IPPool {} ({cidr}) cannot be split in {parts}: give a power of two, at most {PARTS}, that leaves a block of /{size} in each",
                pool.metadata.name
            ))
        })?;
        let parts = (0..request.parts).map(|part| {
            let mut child = pool.clone();
            child.metadata.name = format!("split-{part}-{}", pool.metadata.name);
            child.metadata.annotations.clear();
            child.spec.cidr = nth(cidr, cidr.len() + bits as u8, part);
            child
        });
        let parts: Vec<IpPool> = parts.collect();
        let mut writes =
            vec![Write::Delete { key: entry.key.clone(), expected: Expected::Version(entry.version) }];
        for part in &parts {
            let part = Resource::from(part.clone());
            let part =
                part.admit().map_err(|errors| wrong(errors.iter().map(ToString::to_string).collect()))?;
            let json = part.to_json().into();
            writes.push(Write::Put { key: part.key(), json, expected: Expected::Nothing });
        }
        self.store.commit(writes, Run::Real).await.map_err(failure::store)?;
        Ok(SplitPoolResponse { pools: parts.into_iter().map(|part| part.metadata.name).collect() })
    }
}

/// The parts that a pool can be split in at once.
const PARTS: u32 = 1024;

/// The prefix of length `len` within `cidr` of that number.
fn nth(cidr: Cidr, len: u8, number: u32) -> Cidr {
    let addr = match cidr.addr() {
        IpAddr::V4(first) => IpAddr::V4((first.to_bits() | number << (32 - len)).into()),
        IpAddr::V6(first) => IpAddr::V6((first.to_bits() | u128::from(number) << (128 - len)).into()),
    };
    Cidr::truncate(addr, len)
}

fn allocation(books: &Books, block: &Block, addr: IpAddr, given: &ipam::Allocation) -> Allocation {
    Allocation {
        address: addr.to_string(),
        block: block.cidr().to_string(),
        pool: books.pool_of(addr).map(|pool| pool.name.clone()).unwrap_or_default(),
        handle: given.owner.handle.clone(),
        sequence: given.sequence,
        attributes: given.owner.attributes.clone().into_iter().collect(),
        owner: block.node().unwrap_or_default().to_owned(),
        borrowed: report::is_borrowed(block, given),
    }
}

fn block_usage(books: &Books, cidr: Cidr, stored: &Stored) -> BlockUsage {
    let pool = books.pool_of(cidr.addr()).map(|pool| pool.name.clone()).unwrap_or_default();
    match &stored.block {
        Ok(block) => {
            let usage = report::block_usage(block);
            BlockUsage {
                cidr: cidr.to_string(),
                pool,
                node: block.node().unwrap_or_default().to_owned(),
                size: block.size(),
                used: usage.used,
                borrowed: usage.borrowed,
                unreadable: String::new(),
            }
        }
        Err(why) => {
            BlockUsage { cidr: cidr.to_string(), pool, unreadable: why.clone(), ..BlockUsage::default() }
        }
    }
}

fn finding(from: report::Finding) -> AddressFinding {
    AddressFinding {
        kind: from.kind.name().to_owned(),
        address: from.address.to_string(),
        handle: from.handle,
        sequence: from.sequence,
        message: from.message,
    }
}

fn address(text: &str) -> Result<IpAddr, Status> {
    let cidr: Cidr = text.parse().map_err(|error| Status::invalid_argument(format!("addresses: {error}")))?;
    match cidr.is_host() {
        true => Ok(cidr.addr()),
        false => Err(Status::invalid_argument(format!("addresses: {text:?} is a prefix: give one address"))),
    }
}

fn returned(message: AddressToRelease) -> Result<Returned, Status> {
    Ok(Returned {
        address: address(&message.address)?,
        handle: Some(message.handle).filter(|handle| !handle.is_empty()),
        sequence: Some(message.sequence).filter(|sequence| *sequence != 0),
    })
}

fn message(assigned: Assigned) -> AssignedAddress {
    AssignedAddress {
        address: assigned.address.to_string(),
        prefix_length: Cidr::host(assigned.address).len().into(),
        pool: assigned.pool,
        block: assigned.block.to_string(),
    }
}

fn refused(error: AssignError) -> Status {
    let code = match error {
        AssignError::Store(error) => return failure::store(error),
        AssignError::Malformed { .. } | AssignError::WrongVersion { .. } => Code::InvalidArgument,
        AssignError::UnknownPool(_) => Code::NotFound,
        AssignError::Taken { .. } => Code::AlreadyExists,
        AssignError::Exhausted { .. } | AssignError::Full { .. } => Code::ResourceExhausted,
        AssignError::Outrun => Code::Aborted,
        AssignError::OutOfPools(_)
        | AssignError::Disabled(_)
        | AssignError::OtherUse { .. }
        | AssignError::NoPool { .. }
        | AssignError::Elsewhere { .. }
        | AssignError::Unreadable { .. } => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}
