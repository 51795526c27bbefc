//! CHECK and STATUS: is it as it should be?

use super::{Attachment, Attachments, CniError};
use crate::calc::endpoint_key;
use margay_api::{
    control::v1::{CniCheckRequest, CniStatusRequest, CniStatusResponse, cni_status_response::State},
    dataplane::v1::{GetStatusRequest, endpoint_status},
};
use std::{net::IpAddr, time::Duration};
use tokio::time::timeout;

/// How long CHECK lets things converge.
const CONVERGENCE: Duration = Duration::from_secs(2);

/// How long the dataplane may take to say how it is.
const DATAPLANE: Duration = Duration::from_secs(2);

impl Attachments<'_> {
    /// An attachment's endpoint is there, has its addresses, and is served.
    ///
    /// # Errors
    /// It is not so.
    pub async fn check(&self, request: CniCheckRequest) -> Result<(), CniError> {
        let attachment = Attachment::of(request.attachment)?;
        let Some(found) = self.of(&attachment).await? else { return Err(CniError::Absent(attachment)) };
        let endpoint = found.endpoint;
        for text in &request.addresses {
            let address: IpAddr = text
                .parse()
                .map_err(|_| CniError::Invalid(format!("addresses: {text:?} is not an address")))?;
            if !endpoint.spec.ip_networks.iter().any(|net| net.contains(address)) {
                return Err(CniError::Broken(format!(
                    "{attachment}: its endpoint does not have the address {address}"
                )));
            }
        }
        let of = endpoint_key(&endpoint);
        let mut progress = self.link.progress();
        let up = progress.wait_for(|progress| {
            progress.connected
                && progress
                    .endpoints
                    .get(&of)
                    .is_some_and(|status| status.state() == endpoint_status::State::Up)
        });
        if timeout(CONVERGENCE, up).await.is_ok_and(|up| up.is_ok()) {
            return Ok(());
        }
        let progress = self.link.progress().borrow().clone();
        let why = match progress.endpoints.get(&of) {
            _ if !progress.connected => "the dataplane is not connected",
            Some(status) => &status.reason,
            None => "the dataplane has not reported it",
        };
        Err(CniError::Broken(format!("{attachment}: its link is not served: {why}")))
    }

    /// Whether containers can be added, and how large their packets may be.
    pub async fn status(&self, request: CniStatusRequest) -> CniStatusResponse {
        let not = |state: State, reason: String| CniStatusResponse {
            state: state.into(),
            reason,
            ..CniStatusResponse::default()
        };
        let store = self.store.health().state();
        if !store.healthy {
            return not(State::NotReady, format!("store: {}", store.reason));
        }
        if self.calculation.latest().borrow().is_none() {
            return not(
                State::NotReady,
                format!("calculation: {}", self.calculation.health().state().reason),
            );
        }
        let progress = self.link.progress().borrow().clone();
        if !progress.connected {
            return not(State::Down, format!("dataplane: {}", self.link.health().state().reason));
        }
        if let Some(refusal) = progress.refused {
            return not(
                State::NotReady,
                format!("the dataplane refused the last change: {}", refusal.sentence()),
            );
        }
        if let Some(assign) = &request.assign
            && let Err(error) = self.has_addresses(assign).await
        {
            return not(State::NotReady, format!("addresses: {error}"));
        }
        let mut client = self.link.client();
        match timeout(DATAPLANE, client.get_status(GetStatusRequest {})).await {
            Ok(Ok(status)) => CniStatusResponse {
                workload_mtu: status.into_inner().workload_mtu,
                ..CniStatusResponse::default()
            },
            Ok(Err(status)) => not(State::Down, format!("dataplane: {}", status.message())),
            Err(_) => not(State::Down, format!("dataplane: no answer within {} s", DATAPLANE.as_secs())),
        }
    }
}
