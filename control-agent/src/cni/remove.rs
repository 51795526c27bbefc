//! DEL and GC: endpoints forgotten.

use super::{Attachment, Attachments, CniError};
use crate::{
    datastore::{Run, StoreError, Write},
    model::{ATTACHMENT, Key, Kind, Resource, WorkloadEndpoint},
};
use margay_api::control::v1::{CniDelRequest, CniGcRequest, CniGcResponse};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

/// How long a dataplane may take to adopt that an endpoint is gone. What is away is not waited for longer.
const LETTING_GO: Duration = Duration::from_millis(500);

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
        let found = self.endpoints("").await?;
        let mut removed = Vec::new();
        for (attachment, key, _) in found.into_iter().filter(|(attachment, ..)| stale(attachment)) {
            self.delete(key).await?;
            removed.push(attachment.into());
        }
        Ok(CniGcResponse { removed })
    }

    /// What `add` made.
    pub(super) async fn forget(&self, attachment: &Attachment) -> Result<(), CniError> {
        for (_, key, _) in self.of(attachment).await? {
            if let Some(revision) = self.delete(key).await? {
                // Else it lets go when the link does, and warns of what it misses.
                let _ = timeout(LETTING_GO, self.link.adopted_at_least(revision)).await;
            }
        }
        Ok(())
    }

    /// The endpoints of an attachment: one, or none.
    pub(super) async fn of(
        &self,
        attachment: &Attachment,
    ) -> Result<Vec<(Attachment, Key, WorkloadEndpoint)>, CniError> {
        let mut found = self.endpoints(&attachment.container).await?;
        found.retain(|(of, ..)| of == attachment);
        Ok(found)
    }

    /// This node's attachments. Only those are read in which `text` occurs.
    async fn endpoints(&self, text: &str) -> Result<Vec<(Attachment, Key, WorkloadEndpoint)>, CniError> {
        let listing = self.store.list().await?;
        let candidates = listing
            .entries
            .iter()
            .filter(|entry| entry.key.kind == Kind::WorkloadEndpoint)
            .filter(|entry| entry.json.contains(ATTACHMENT) && entry.json.contains(text));
        let endpoints = candidates.filter_map(|entry| match Resource::from_json(&entry.json) {
            Ok(Resource::WorkloadEndpoint(endpoint)) if endpoint.spec.node == self.node => {
                let attachment = Attachment::parse(endpoint.metadata.annotations.get(ATTACHMENT)?)?;
                Some((attachment, entry.key.clone(), endpoint))
            }
            _ => None,
        });
        Ok(endpoints.collect())
    }

    /// Returns the store's revision; none where somebody else was quicker.
    async fn delete(&self, key: Key) -> Result<Option<u64>, CniError> {
        match self.store.commit(vec![Write::Delete { key }], Run::Real).await {
            Ok(written) => Ok(Some(written.revision)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
