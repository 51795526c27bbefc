//! Writes: load, default, validate, store; and, where asked, wait for the dataplane.

use super::{ADOPTION, Agent, Cluster, failure};
use crate::{
    access::{Caller, Written},
    datastore::{Expected, Listing, Outcome, Run, Write},
    ipam::Books,
    model::{IpPool, IpamBlock, Key, Kind, Resource, Tier},
    sync::AdoptError,
};
use margay_api::control::v1::{
    Applied, ApplyRequest, ApplyResponse, DeleteRequest, DeleteResponse, apply_request::Mode,
};
use tokio::time::timeout;
use tonic::Status;

/// Bound of one request, in objects.
const OBJECTS: usize = 20_000;

/// Errors that one answer spells out; the others are counted.
const ERRORS: usize = 20;

/// The namespace of an object of a namespaced kind that names none.
const DEFAULT_NAMESPACE: &str = "default";

impl Agent {
    pub(super) async fn apply(
        &self,
        caller: &Caller,
        request: ApplyRequest,
    ) -> Result<ApplyResponse, Status> {
        let waits = request.wait && !request.dry_run;
        let (applied, revision) = self.cluster().apply(caller, request).await?;
        let adopted_generation = if waits { self.adoption(revision).await? } else { 0 };
        Ok(ApplyResponse { applied, adopted_generation })
    }

    pub(super) async fn delete(
        &self,
        caller: &Caller,
        request: DeleteRequest,
    ) -> Result<DeleteResponse, Status> {
        let waits = request.wait;
        let revision = self.cluster().delete(caller, request).await?;
        let adopted_generation = if waits { self.adoption(revision).await? } else { 0 };
        Ok(DeleteResponse { adopted_generation })
    }

    /// Waits, for a bounded time, until the dataplane has adopted what follows from `revision`.
    async fn adoption(&self, revision: u64) -> Result<u64, Status> {
        match timeout(ADOPTION, self.link.adopted_at_least(revision)).await {
            Ok(Ok(generation)) => Ok(generation),
            Ok(Err(error @ AdoptError::Refused(_))) => Err(Status::failed_precondition(format!(
                "stored, but {error}; change the objects, or delete them"
            ))),
            Ok(Err(error @ AdoptError::Stopped)) => Err(Status::unavailable(format!("stored, but {error}"))),
            Err(_) => {
                let unhealthy = [self.calculation.health(), self.link.health()]
                    .into_iter()
                    .map(|health| (health.name(), health.state()))
                    .find(|(_, state)| !state.healthy);
                let why = unhealthy.map_or_else(
                    || "its workers have not adopted it".to_owned(),
                    |(name, state)| format!("{name}: {}", state.reason),
                );
                let seconds = ADOPTION.as_secs();
                Err(Status::deadline_exceeded(format!("stored, but not in force after {seconds} s: {why}")))
            }
        }
    }
}

impl Cluster<'_> {
    /// What became of each object, and the store's revision with them in. Noted down.
    pub(super) async fn apply(
        &self,
        caller: &Caller,
        request: ApplyRequest,
    ) -> Result<(Vec<Applied>, u64), Status> {
        let dry_run = request.dry_run;
        let what = format!("{} objects", request.objects.len());
        let stored = self.put(caller, request).await;
        let noted: Result<Vec<_>, _> =
            stored.as_ref().map(|(applied, _)| applied.iter().map(Written::from).collect());
        if !dry_run {
            self.audit.note(caller, "apply", &what, noted.as_deref().map_err(|status| *status));
        }
        stored
    }

    /// What became of each object, and the store's revision with them in.
    async fn put(&self, caller: &Caller, request: ApplyRequest) -> Result<(Vec<Applied>, u64), Status> {
        if request.objects.len() > OBJECTS {
            let count = request.objects.len();
            return Err(Status::invalid_argument(format!(
                "{count} objects in one request; at most {OBJECTS} fit"
            )));
        }
        let mode = Mode::try_from(request.mode).map_err(|_| {
            Status::invalid_argument(format!("mode {} is not known to this agent", request.mode))
        })?;
        let resources = admit(&request.objects, request.agent)?;
        let listing = self.store.list().await.map_err(failure::store)?;
        for resource in &resources {
            let key = resource.key();
            let before = caller.is_judged_by_content().then(|| before(&listing, &key)).transpose()?.flatten();
            caller.may_write(&key, before.as_ref(), Some(resource)).map_err(failure::refused)?;
        }
        together(&resources, &listing)?;
        if caller.is_judged_by_content() {
            refuse(unpooled(&resources, &listing))?;
        }
        let mut writes =
            resources.into_iter().map(|resource| put(resource, mode)).collect::<Result<Vec<_>, _>>()?;
        if caller.is_judged_by_content() {
            writes.iter_mut().for_each(|write| as_judged(write, &listing));
        }
        let keys: Vec<Key> = writes.iter().map(|write| write.key().clone()).collect();
        let run = if request.dry_run { Run::Dry } else { Run::Real };
        let written = self.store.commit(writes, run).await.map_err(failure::store)?;
        let applied =
            keys.into_iter().zip(&written.outcomes).map(|(key, outcome)| applied(key, *outcome)).collect();
        Ok((applied, written.revision))
    }

    /// The store's revision without the object. Noted down.
    pub(super) async fn delete(&self, caller: &Caller, request: DeleteRequest) -> Result<u64, Status> {
        let what = format!("{} {}/{}", request.kind, request.namespace, request.name);
        let deleted = self.take_out(caller, request).await;
        let written = deleted.as_ref().map(|(key, _)| {
            [Written {
                kind: key.kind.to_string(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                outcome: "deleted".to_owned(),
                resource_version: String::new(),
            }]
        });
        self.audit.note(
            caller,
            "delete",
            &what,
            written.as_ref().map(<[_; 1]>::as_slice).map_err(|status| *status),
        );
        deleted.map(|(_, revision)| revision)
    }

    /// The object that is gone, and the store's revision without it.
    async fn take_out(&self, caller: &Caller, request: DeleteRequest) -> Result<(Key, u64), Status> {
        let kind = failure::kind(&request.kind)?;
        if request.name.is_empty() {
            return Err(Status::invalid_argument("delete needs the name of one object"));
        }
        let namespace = match (kind.is_namespaced(), request.namespace.is_empty()) {
            (false, _) => String::new(),
            (true, true) => DEFAULT_NAMESPACE.to_owned(),
            (true, false) => request.namespace,
        };
        let key = Key { kind, namespace, name: request.name };
        let listing = match caller.is_judged_by_content() {
            true => Some(self.store.list().await.map_err(failure::store)?),
            false => None,
        };
        let before = listing.as_ref().map(|listing| before(listing, &key)).transpose()?.flatten();
        caller.may_write(&key, before.as_ref(), None).map_err(failure::refused)?;
        if kind == Kind::Tier {
            self.check_tier_is_free(&key.name).await?;
        }
        if kind.is_internal() && !request.agent {
            return Err(Status::failed_precondition(format!(
                "{key} is kept by the agents: give addresses back with `margayctl ipam release`"
            )));
        }
        let expected = match request.resource_version.as_str() {
            "" => Expected::Something,
            version => expected_version(&key, version)?,
        };
        let mut delete = Write::Delete { key: key.clone(), expected };
        if let Some(listing) = &listing {
            as_judged(&mut delete, listing);
        }
        let written = self.store.commit(vec![delete], Run::Real).await.map_err(failure::store)?;
        Ok((key, written.revision))
    }

    async fn check_tier_is_free(&self, name: &str) -> Result<(), Status> {
        if Tier::is_built_in(name) {
            return Err(Status::failed_precondition(format!(
                "tier {name} is built in and cannot be deleted"
            )));
        }
        let listing = self.store.list().await.map_err(failure::store)?;
        let inside: Vec<String> =
            policies(&listing).filter(|(_, tier)| tier == name).map(|(key, _)| key.to_string()).collect();
        match inside.first() {
            None => Ok(()),
            Some(first) => Err(Status::failed_precondition(format!(
                "tier {name} still has {} policies, the first is {first}: delete or move them first",
                inside.len()
            ))),
        }
    }
}

/// The object as it is stored.
fn before(listing: &Listing, key: &Key) -> Result<Option<Resource>, Status> {
    let Ok(at) = listing.entries.binary_search_by(|entry| entry.key.cmp(key)) else { return Ok(None) };
    let unreadable = |_| {
        Status::failed_precondition(format!("{key} in the store cannot be read: whose it is nobody knows"))
    };
    Resource::from_json(&listing.entries[at].json).map(Some).map_err(unreadable)
}

/// Whoever was let write because of what an object is writes only what it still is.
fn as_judged(write: &mut Write, listing: &Listing) {
    let at = listing.entries.binary_search_by(|entry| entry.key.cmp(write.key()));
    let is = at.map_or(Expected::Nothing, |at| Expected::Version(listing.entries[at].version));
    let (Write::Put { expected, .. } | Write::Delete { expected, .. }) = write;
    if let (Expected::Anything, _) | (Expected::Something, Expected::Version(_)) = (&*expected, is) {
        *expected = is;
    }
}

/// Every object read, defaulted and validated; or everything that is wrong with all of them.
///
/// `agent`: what only agents keep is taken, too.
fn admit(objects: &[String], agent: bool) -> Result<Vec<Resource>, Status> {
    let mut errors = Vec::new();
    let mut resources = Vec::with_capacity(objects.len());
    for (at, json) in objects.iter().enumerate() {
        match Resource::from_json(json) {
            Err(wrong) => errors.extend(wrong.into_iter().map(|error| {
                let colon = if error.field.is_empty() { "" } else { ": " };
                format!("object {}: {}{colon}{}", at + 1, error.field, error.message)
            })),
            Ok(mut resource) => {
                // Its namespace may be an implied one.
                resource.set_defaults();
                let what = resource.key();
                let admitted = match agent && what.kind.is_internal() {
                    true => resource.admit_internal(),
                    false => resource.admit(),
                };
                match admitted {
                    Ok(resource) => resources.push(resource),
                    Err(wrong) => errors.extend(wrong.into_iter().map(|error| format!("{what}: {error}"))),
                }
            }
        }
    }
    refuse(errors)?;
    Ok(resources)
}

/// What no object shows by itself: policies need their tier, pools must not overlap.
fn together(resources: &[Resource], listing: &Listing) -> Result<(), Status> {
    let mut errors = Vec::new();
    let tier_exists = |name: &str| {
        let key = Key::global(Kind::Tier, name);
        Tier::is_built_in(name)
            || listing.entries.binary_search_by(|entry| entry.key.cmp(&key)).is_ok()
            || resources
                .iter()
                .any(|resource| matches!(resource, Resource::Tier(tier) if tier.metadata.name == name))
    };
    for resource in resources {
        if let Some(tier) = tier_of(resource).filter(|tier| !tier_exists(tier)) {
            errors.push(format!(
                "{}: spec.tier: there is no tier {tier:?}: create it before the policy, or in the same request",
                resource.key()
            ));
        }
    }
    errors.extend(overlaps(resources, listing));
    errors.extend(torn(resources, listing));
    refuse(errors)
}

fn overlaps(resources: &[Resource], listing: &Listing) -> Vec<String> {
    let new: Vec<&IpPool> = resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::IPPool(pool) => Some(pool),
            _ => None,
        })
        .collect();
    if new.is_empty() {
        return Vec::new();
    }
    let mut stored = stored_pools(listing);
    stored.retain(|old| new.iter().all(|pool| pool.metadata.name != old.metadata.name));
    let mut errors = Vec::new();
    for (at, pool) in new.iter().enumerate() {
        let others = stored.iter().chain(new[..at].iter().copied());
        for other in others.filter(|other| other.spec.cidr.overlaps(pool.spec.cidr)) {
            errors.push(format!(
                "IPPool {}: spec.cidr: {} overlaps {} of IPPool {}: use a prefix of its own",
                pool.metadata.name, pool.spec.cidr, other.spec.cidr, other.metadata.name
            ));
        }
    }
    errors
}

/// Pools that would cut their blocks otherwise than those are cut that are there, or leave them.
fn torn(resources: &[Resource], listing: &Listing) -> Vec<String> {
    let changed = resources.iter().filter_map(|resource| match resource {
        Resource::IPPool(pool) => Some(pool),
        _ => None,
    });
    let changed: Vec<&IpPool> = changed.collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let books = Books::of(listing);
    let mut errors = Vec::new();
    for pool in changed {
        let (name, cidr, size) = (&pool.metadata.name, pool.spec.cidr, pool.spec.block_size());
        let before = books.pool(name).map(|old| old.spec.cidr).filter(|old| *old != cidr);
        if let Some((block, _)) = before.and_then(|old| books.blocks_within(old).next()) {
            errors.push(format!(
                "IPPool {name}: spec.cidr: addresses of its block {block} are given out: make a new pool, and disable this one"
            ));
        }
        if let Some((block, _)) = books.blocks_within(cidr).find(|(block, _)| block.len() != size) {
            errors.push(format!(
                "IPPool {name}: spec.blockSize: {size}, and there is a block {block}: make a new pool of another prefix, or leave the size"
            ));
        }
    }
    errors
}

/// Blocks that are none of a pool's: who claims one gets packets to all its addresses.
fn unpooled(resources: &[Resource], listing: &Listing) -> Vec<String> {
    let blocks = resources.iter().filter_map(|resource| match resource {
        Resource::IPAMBlock(block) => Some(block),
        _ => None,
    });
    let blocks: Vec<&IpamBlock> = blocks.collect();
    if blocks.is_empty() {
        return Vec::new();
    }
    let pools = stored_pools(listing);
    let of = |block: &IpamBlock, pool: &IpPool| {
        pool.spec.cidr.contains(block.spec.cidr.addr()) && pool.spec.block_size() == block.spec.cidr.len()
    };
    let unpooled = blocks.into_iter().filter(|block| !pools.iter().any(|pool| of(block, pool)));
    let error = |block: &IpamBlock| {
        let IpamBlock { metadata, spec } = block;
        format!(
            "IPAMBlock {}: spec.cidr: {} is no block of any IPPool: claim one that is",
            metadata.name, spec.cidr
        )
    };
    unpooled.map(error).collect()
}

fn stored_pools(listing: &Listing) -> Vec<IpPool> {
    let entries = listing.entries.iter().filter(|entry| entry.key.kind == Kind::IPPool);
    let pools = entries.filter_map(|entry| match Resource::from_json(&entry.json) {
        Ok(Resource::IPPool(pool)) => Some(pool),
        _ => None,
    });
    pools.collect()
}

fn refuse(mut errors: Vec<String>) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let more = errors.len().saturating_sub(ERRORS);
    errors.truncate(ERRORS);
    if more > 0 {
        errors.push(format!("and {more} more"));
    }
    Err(Status::invalid_argument(errors.join("\n")))
}

fn put(mut resource: Resource, mode: Mode) -> Result<Write, Status> {
    let key = resource.key();
    let metadata = resource.metadata_mut();
    let version = metadata.resource_version.take().filter(|version| !version.is_empty());
    // An object that another store has named is of that store, and so is its version.
    let version = version.filter(|_| metadata.uid.is_none());
    // The store's to give: an object that was read from one store may be written to another.
    metadata.uid = None;
    metadata.creation_timestamp = None;
    metadata.generation = None;
    let expected = match (mode, version) {
        (Mode::Create, None) => Expected::Nothing,
        (Mode::Create, Some(_)) => {
            let message =
                format!("{key}: metadata.resourceVersion: must not be set on what is created: remove it");
            return Err(Status::invalid_argument(message));
        }
        (Mode::Apply, None) => Expected::Anything,
        (Mode::Replace, None) => Expected::Something,
        (Mode::Apply | Mode::Replace, Some(version)) => expected_version(&key, &version)?,
    };
    Ok(Write::Put { key, json: resource.to_json().into(), expected })
}

fn expected_version(key: &Key, version: &str) -> Result<Expected, Status> {
    version.parse().map(Expected::Version).map_err(|_| {
        Status::invalid_argument(format!(
            "{key}: metadata.resourceVersion: {version:?} is not one of this store's: remove it, or read the object again"
        ))
    })
}

fn applied(key: Key, outcome: Outcome) -> Applied {
    let (outcome, version) = match outcome {
        Outcome::Created(version) => ("created", version),
        Outcome::Configured(version) => ("configured", version),
        Outcome::Unchanged(version) => ("unchanged", version),
        Outcome::Deleted => ("deleted", 0),
    };
    Applied {
        kind: key.kind.to_string(),
        namespace: key.namespace,
        name: key.name,
        outcome: outcome.to_owned(),
        resource_version: super::read::version(version),
    }
}

/// Stored policies and their tiers.
fn policies(listing: &Listing) -> impl Iterator<Item = (&Key, String)> {
    let policies = |kind| {
        matches!(
            kind,
            Kind::NetworkPolicy
                | Kind::GlobalNetworkPolicy
                | Kind::StagedNetworkPolicy
                | Kind::StagedGlobalNetworkPolicy
        )
    };
    listing.entries.iter().filter(move |entry| policies(entry.key.kind)).filter_map(|entry| {
        let resource = Resource::from_json(&entry.json).ok()?;
        Some((&entry.key, tier_of(&resource)?.to_owned()))
    })
}

/// Of a policy.
fn tier_of(resource: &Resource) -> Option<&str> {
    let tier = match resource {
        Resource::NetworkPolicy(policy) => &policy.spec.tier,
        Resource::GlobalNetworkPolicy(policy) => &policy.spec.tier,
        Resource::StagedNetworkPolicy(staged) => &staged.spec.policy.tier,
        Resource::StagedGlobalNetworkPolicy(staged) => &staged.spec.policy.tier,
        _ => return None,
    };
    Some(if tier.is_empty() { Tier::DEFAULT } else { tier })
}
