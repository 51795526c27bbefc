//! Addresses that the agent assigns, under a handle for each attachment.

use super::{Attachment, Attachments, CniError};
use crate::{
    ipam::{AssignError, Owner, Request},
    model::{Key, Kind, Resource},
};
use margay_api::control::v1::{CniAddRequest, CniAssign};
use std::{collections::BTreeSet, net::IpAddr};

/// What an assignment is annotated with, so that one without an endpoint can be told whose it was.
const OWNER: &str = "attachment";

/// Annotations of a pod, and of its namespace, that say where its addresses come from: Calico's. Each
/// is a list in JSON.
const ADDRESSES: &str = "cni.projectcalico.org/ipAddrs";
const POOLS_V4: &str = "cni.projectcalico.org/ipv4pools";
const POOLS_V6: &str = "cni.projectcalico.org/ipv6pools";

impl Attachments<'_> {
    /// Addresses for an attachment: those it has, or new ones.
    pub(super) async fn assign(
        &self,
        attachment: &Attachment,
        request: &CniAddRequest,
        assign: &CniAssign,
    ) -> Result<Vec<IpAddr>, CniError> {
        let mut wanted = self.wanted(assign)?;
        wanted.handle = handle(attachment);
        wanted.namespace.clone_from(&request.pod_namespace);
        wanted.pod.clone_from(&request.pod_name);
        wanted.attributes.insert(OWNER.to_owned(), attachment.to_string());
        if !request.pod_name.is_empty() {
            let of = |kind, namespace: &str, name: &str| Key {
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            let pod = self.said(&of(Kind::Pod, &request.pod_namespace, &request.pod_name)).await?;
            let namespace = self.said(&of(Kind::Namespace, "", &request.pod_namespace)).await?;
            for said in [namespace, pod].into_iter().flatten() {
                said.overrule(&mut wanted);
            }
        }
        // Asked for by name, they are the ones there are to be.
        for (count, v4) in [(&mut wanted.v4, true), (&mut wanted.v6, false)] {
            *count = (*count).max(wanted.addresses.iter().filter(|address| address.is_ipv4() == v4).count());
        }
        let assigned = self.ipam.assign(&wanted).await.map_err(refused)?;
        Ok(assigned.into_iter().map(|assigned| assigned.address).collect())
    }

    /// Gives back what an attachment has.
    pub(super) async fn release(&self, attachment: &Attachment) -> Result<(), CniError> {
        self.ipam.release_handle(&handle(attachment)).await.map(drop).map_err(refused)
    }

    /// Whether there would be addresses.
    pub(super) async fn has_addresses(&self, assign: &CniAssign) -> Result<(), CniError> {
        let mut wanted = self.wanted(assign)?;
        // Nobody's: what is free is what counts.
        wanted.handle = "status".to_owned();
        wanted.addresses.clear();
        self.ipam.could_assign(&wanted).await.map_err(refused)
    }

    /// This node's attachments to `network` that have addresses.
    pub(super) async fn with_addresses(&self, network: &str) -> Result<BTreeSet<Attachment>, CniError> {
        let books = self.ipam.books().await?;
        let blocks = books.blocks().filter_map(|(_, stored)| stored.block.as_ref().ok());
        let owners = blocks.flat_map(|block| block.allocations()).map(|(_, allocation)| &allocation.owner);
        let here = owners.filter(|owner| owner.attribute(Owner::NODE) == self.node);
        let attachments = here.filter_map(|owner| Attachment::parse(owner.attribute(OWNER)));
        Ok(attachments.filter(|attachment| attachment.network == network).collect())
    }

    fn wanted(&self, assign: &CniAssign) -> Result<Request, CniError> {
        let mut wanted = Request::new("", self.node);
        wanted.v4 = assign.ipv4.into();
        wanted.v6 = assign.ipv6.into();
        wanted.v4_pools.clone_from(&assign.ipv4_pools);
        wanted.v6_pools.clone_from(&assign.ipv6_pools);
        for text in &assign.addresses {
            let address = text
                .parse()
                .map_err(|_| CniError::Invalid(format!("addresses: {text:?} is not an address")))?;
            wanted.addresses.push(address);
        }
        Ok(wanted)
    }

    /// What an object's annotations say.
    async fn said(&self, key: &Key) -> Result<Option<Said>, CniError> {
        let Some(entry) = self.store.get(key).await? else { return Ok(None) };
        let Ok(resource) = Resource::from_json(&entry.json) else { return Ok(None) };
        let annotations = &resource.metadata().annotations;
        let list = |name: &str| -> Result<Vec<String>, CniError> {
            let Some(text) = annotations.get(name) else { return Ok(Vec::new()) };
            serde_json::from_str(text).map_err(|error| {
                CniError::Invalid(format!(
                    "{key}: metadata.annotations[{name:?}]: {text:?} is not a list of texts: {error}"
                ))
            })
        };
        let addresses = if key.kind == Kind::Pod { list(ADDRESSES)? } else { Vec::new() };
        let addresses = addresses.iter().map(|text| {
            text.parse().map_err(|_| {
                CniError::Invalid(format!(
                    "{key}: metadata.annotations[{ADDRESSES:?}]: {text:?} is not an address"
                ))
            })
        });
        let addresses = addresses.collect::<Result<_, _>>()?;
        Ok(Some(Said { addresses, v4_pools: list(POOLS_V4)?, v6_pools: list(POOLS_V6)? }))
    }
}

/// What an object's annotations say of addresses.
struct Said {
    addresses: Vec<IpAddr>,
    v4_pools: Vec<String>,
    v6_pools: Vec<String>,
}

impl Said {
    fn overrule(self, wanted: &mut Request) {
        if !self.addresses.is_empty() {
            (wanted.v4, wanted.v6) = (0, 0);
            wanted.addresses = self.addresses;
        }
        for (own, pools) in [(self.v4_pools, &mut wanted.v4_pools), (self.v6_pools, &mut wanted.v6_pools)] {
            if !own.is_empty() {
                *pools = own;
            }
        }
    }
}

/// As Calico has it for the one interface that it knows.
fn handle(attachment: &Attachment) -> String {
    let Attachment { network, container, interface } = attachment;
    if interface == "eth0" {
        format!("{network}.{container}")
    } else {
        format!("{network}.{container}.{interface}")
    }
}

fn refused(error: AssignError) -> CniError {
    match error {
        AssignError::Store(error) => error.into(),
        AssignError::Malformed { .. }
        | AssignError::OutOfPools(_)
        | AssignError::UnknownPool(_)
        | AssignError::WrongVersion { .. }
        | AssignError::Disabled(_)
        | AssignError::OtherUse { .. } => CniError::Invalid(error.to_string()),
        _ => CniError::Addresses(error.to_string()),
    }
}
