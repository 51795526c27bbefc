//! ADD: an endpoint, and policy in force on it.

use super::{Attachment, Attachments, CniError, SETUP, endpoint};
use crate::{
    calc::{EndpointKey, endpoint_key},
    datastore::{Expected, Run, StoreError, Write},
    model::{ATTACHMENT, Key, Kind, Resource, WorkloadEndpoint, kubernetes},
    sync::AdoptError,
};
use margay_api::{
    control::v1::{CniAddRequest, CniAddResponse},
    dataplane::v1::endpoint_status::State,
};
use std::{net::IpAddr, time::Duration};
use tokio::time::{Instant, timeout_at};

/// The longest that a container may be kept waiting.
const LONGEST: Duration = Duration::from_secs(3600);

impl Attachments<'_> {
    /// Makes a link an endpoint. Returns once the dataplane has adopted its policy and serves the
    /// link. Nothing is left of it otherwise. The same again is no error.
    ///
    /// # Errors
    /// The request makes no sense; the store or the dataplane will not have it, or not in time.
    pub async fn add(&self, request: CniAddRequest) -> Result<CniAddResponse, CniError> {
        let attachment = Attachment::of(request.attachment.clone())?;
        if !request.node.is_empty() && request.node != self.node {
            return Err(CniError::Invalid(format!(
                "nodename: {:?} is not this node, which is {:?}: correct or remove it, or have the agent run with --node {0}",
                request.node, self.node
            )));
        }
        if request.pod_namespace.is_empty() != request.pod_name.is_empty() {
            let message = "a pod needs both a namespace and a name: give both, or neither";
            return Err(CniError::Invalid(message.to_owned()));
        }
        match self.attach(&attachment, &request).await {
            Ok(added) => Ok(added),
            Err(error) => {
                if let Err(undoing) = self.forget(&attachment).await {
                    tracing::warn!(%attachment, error = %undoing, "A004 an endpoint could not be taken away again; CNI's DEL or GC does it");
                }
                Err(error)
            }
        }
    }

    /// Addresses, an endpoint, and its policy in force.
    async fn attach(
        &self,
        attachment: &Attachment,
        request: &CniAddRequest,
    ) -> Result<CniAddResponse, CniError> {
        let addresses = match &request.assign {
            Some(assign) => self.assign(attachment, request, assign).await?,
            None => given(request)?,
        };
        let pod = self.pod(request).await?;
        let endpoint = endpoint::endpoint(self.node, attachment, request, &addresses, pod.as_ref())?;
        let asked = Duration::from_secs(request.timeout_seconds.into());
        let setup = if asked.is_zero() { SETUP } else { asked.min(LONGEST) };
        let enforced = timeout_at(Instant::now() + setup, self.enforce(attachment, &endpoint)).await;
        let adopted_generation = enforced.unwrap_or_else(|_| Err(self.late(attachment, &endpoint, setup)))?;
        let addresses = addresses.iter().map(IpAddr::to_string).collect();
        Ok(CniAddResponse { addresses, adopted_generation })
    }

    /// Stores the endpoint and waits until its policy is in force on its link.
    async fn enforce(&self, attachment: &Attachment, endpoint: &WorkloadEndpoint) -> Result<u64, CniError> {
        let of = endpoint_key(endpoint);
        self.displace(attachment, endpoint, &of).await?;
        let resource = Resource::from(endpoint.clone());
        let written = self.put(&resource, Expected::Anything).await?;
        if endpoint.spec.pod.is_empty() {
            self.provide_profile(&attachment.network).await?;
        }
        let generation = self.adopted(written).await?;
        let mut progress = self.link.progress();
        let up = progress.wait_for(|progress| {
            progress.endpoints.get(&of).is_some_and(|status| status.state() == State::Up)
        });
        up.await.map_err(|_| CniError::Late("the agent is shutting down".to_owned()))?;
        Ok(generation)
    }

    /// Takes away what an earlier attachment left under the same name, and waits until the dataplane has, too: its
    /// word on the endpoint would be about the link that was.
    async fn displace(
        &self,
        attachment: &Attachment,
        endpoint: &WorkloadEndpoint,
        of: &EndpointKey,
    ) -> Result<(), CniError> {
        let key = Resource::from(endpoint.clone()).key();
        let Some(entry) = self.store.get(&key).await? else { return Ok(()) };
        let same = match Resource::from_json(&entry.json) {
            Ok(Resource::WorkloadEndpoint(stored)) => {
                stored.metadata.annotations.get(ATTACHMENT) == Some(&attachment.to_string())
                    && stored.spec.mac == endpoint.spec.mac
            }
            _ => false,
        };
        if same {
            return Ok(());
        }
        tracing::info!(endpoint = of.workload, "its container is replaced by another");
        let delete = Write::Delete { key, expected: Expected::Version(entry.version) };
        match self.store.commit(vec![delete], Run::Real).await {
            Ok(written) => drop(self.adopted(written.revision).await?),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What the store knows of the pod.
    async fn pod(&self, request: &CniAddRequest) -> Result<Option<WorkloadEndpoint>, CniError> {
        if request.pod_name.is_empty() {
            return Ok(None);
        }
        let (namespace, name) = (request.pod_namespace.clone(), request.pod_name.clone());
        let Some(entry) = self.store.get(&Key { kind: Kind::Pod, namespace, name }).await? else {
            return Ok(None);
        };
        match Resource::from_json(&entry.json) {
            Ok(Resource::Kubernetes(pod)) => Ok(kubernetes::convert(&pod).described.map(|pod| *pod)),
            _ => Err(CniError::Refused(format!(
                "{} in the store cannot be read: delete or replace it, or run the release that wrote it",
                entry.key
            ))),
        }
    }

    /// Stores a network's profile where there is none of its name.
    async fn provide_profile(&self, network: &str) -> Result<(), CniError> {
        let profile = Resource::from(endpoint::profile(network));
        match self.put(&profile, Expected::Nothing).await {
            Ok(_) | Err(CniError::Store(StoreError::AlreadyExists(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, resource: &Resource, expected: Expected) -> Result<u64, CniError> {
        let write = Write::Put { key: resource.key(), json: resource.to_json().into(), expected };
        Ok(self.store.commit(vec![write], Run::Real).await?.revision)
    }

    /// Waits until the dataplane judges by what follows from `revision`.
    async fn adopted(&self, revision: u64) -> Result<u64, CniError> {
        self.link.adopted_at_least(revision).await.map_err(|error| match error {
            AdoptError::Refused(_) => CniError::Refused(format!("{error}: change the objects")),
            AdoptError::Stopped => CniError::Late(error.to_string()),
        })
    }

    /// Says what was waited for in vain.
    fn late(&self, attachment: &Attachment, endpoint: &WorkloadEndpoint, setup: Duration) -> CniError {
        let unhealthy = [self.calculation.health(), self.link.health()]
            .into_iter()
            .map(|health| (health.name(), health.state()))
            .find(|(_, state)| !state.healthy);
        let why = match unhealthy {
            Some((name, state)) => format!("{name}: {}", state.reason),
            None => match self.link.progress().borrow().endpoints.get(&endpoint_key(endpoint)) {
                Some(status) => format!("{}: {}", endpoint.spec.interface_name, status.reason),
                None => "the dataplane's workers have not adopted it".to_owned(),
            },
        };
        CniError::Late(format!("{attachment}: policy is not in force after {} s: {why}", setup.as_secs()))
    }
}

/// What the request brings along.
fn given(request: &CniAddRequest) -> Result<Vec<IpAddr>, CniError> {
    let parsed = request.addresses.iter().map(|text| {
        text.parse().map_err(|_| CniError::Invalid(format!("addresses: {text:?} is not an address")))
    });
    let addresses: Vec<IpAddr> = parsed.collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return Err(CniError::Invalid("addresses: none, and a container needs one".to_owned()));
    }
    Ok(addresses)
}
