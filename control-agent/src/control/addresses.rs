//! Addresses: asked for and given back.

use super::{Agent, failure};
use crate::ipam::{AssignError, Assigned, Request, Returned};
use crate::model::{AllowedUse, Cidr};
use margay_api::control::v1::{
    AddressToRelease, AssignAddressesRequest, AssignAddressesResponse, AssignedAddress,
    ReleaseAddressesRequest, ReleaseAddressesResponse,
};
use std::net::IpAddr;
use tonic::{Code, Status};

/// Addresses that one request may give back.
const ADDRESSES: usize = 100_000;

impl Agent {
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
            node: if request.node.is_empty() { self.node.clone() } else { request.node },
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
