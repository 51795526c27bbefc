//! DEL and GC: endpoints forgotten.

use super::{Attachment, Attachments, CniError};
use crate::{
    datastore::{Expected, Run, StoreError, Write},
    model::{ATTACHMENT, Key, Kind, Resource, WorkloadEndpoint},
};
use margay_api::control::v1::{CniDelRequest, CniGcRequest, CniGcResponse};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

/// How long a dataplane may take to adopt that an endpoint is gone. What is away is not waited for longer.
const LETTING_GO: Duration = Duration::from_millis(500);

/// Looks at an endpoint that others change meanwhile.
const ATTEMPTS: usize = 16;

impl Attachments<'_> {
    /// Forgets an attachment's endpoint, and gives the dataplane a moment to let go of its link. That there is none
    /// is no error.
    ///
    /// # Errors
    /// The request names no attachment; the store would not.
    pub async fn del(&self, request: CniDelRequest) -> Result<(), CniError> {
        let attachment = Attachment::of(request.attachment)?;
        self.forget(&attachment).await
    }

    /// Forgets every attachment to a network that is not among the valid ones.
    ///
    /// # Errors
    /// The request makes no sense; the store would not. What could be forgotten is.
    pub async fn gc(&self, request: CniGcRequest) -> Result<CniGcResponse, CniError> {
        if request.network.is_empty() {
            return Err(CniError::Invalid(
                "network: missing: name the network whose attachments these are".into(),
            ));
        }
        let valid = request.valid.into_iter().map(|valid| Attachment::of(Some(valid)));
        let valid: BTreeSet<Attachment> = valid.collect::<Result<_, _>>()?;
        let stale =
            |attachment: &Attachment| attachment.network == request.network && !valid.contains(attachment);
        let endpoints = self.endpoints("").await?.into_iter().map(|found| found.attachment);
        let mut known: BTreeSet<Attachment> = endpoints.collect();
        known.extend(self.with_addresses(&request.network).await?);
        known.retain(stale);
        for attachment in &known {
            self.forget(attachment).await?;
        }
        Ok(CniGcResponse { removed: known.into_iter().map(Into::into).collect() })
    }

    /// What `add` made.
    pub(super) async fn forget(&self, attachment: &Attachment) -> Result<(), CniError> {
        for _ in 0..ATTEMPTS {
            let Some(found) = self.of(attachment).await? else { return self.release(attachment).await };
            if let Some(revision) = self.delete(found).await? {
                // Else it lets go when the link does, and warns of what it misses.
                let _ = timeout(LETTING_GO, self.link.adopted_at_least(revision)).await;
            }
        }
        Err(CniError::Late(format!("{attachment}: others change its endpoint all the time")))
    }

    /// The endpoint of an attachment.
    pub(super) async fn of(&self, attachment: &Attachment) -> Result<Option<Found>, CniError> {
        let found = self.endpoints(&attachment.container).await?;
        Ok(found.into_iter().find(|found| found.attachment == *attachment))
    }

    /// This node's attachments. Only those are read in which `text` occurs.
    async fn endpoints(&self, text: &str) -> Result<Vec<Found>, CniError> {
        let listing = self.store.list().await?;
        let candidates = listing
            .entries
            .iter()
            .filter(|entry| entry.key.kind == Kind::WorkloadEndpoint)
            .filter(|entry| entry.json.contains(ATTACHMENT) && entry.json.contains(text));
        let found = candidates.filter_map(|entry| match Resource::from_json(&entry.json) {
            Ok(Resource::WorkloadEndpoint(endpoint)) if endpoint.spec.node == self.node => {
                let attachment = Attachment::parse(endpoint.metadata.annotations.get(ATTACHMENT)?)?;
                Some(Found { attachment, endpoint, key: entry.key.clone(), version: entry.version })
            }
            _ => None,
        });
        Ok(found.collect())
    }

    /// Returns the store's revision; none where somebody else was quicker, to delete or to change it.
    async fn delete(&self, found: Found) -> Result<Option<u64>, CniError> {
        let delete = Write::Delete { key: found.key, expected: Expected::Version(found.version) };
        match self.store.commit(vec![delete], Run::Real).await {
            Ok(written) => Ok(Some(written.revision)),
            Err(StoreError::NotFound(_) | StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// An endpoint that is stored.
pub(super) struct Found {
    attachment: Attachment,
    pub(super) endpoint: WorkloadEndpoint,
    key: Key,
    version: u64,
}
