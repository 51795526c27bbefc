//! Questions to the dataplane, which may be away, busy or stuck.

use super::Agent;
use crate::sync::Link;
use margay_api::dataplane::v1::dataplane_client::DataplaneClient;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Response, Status, transport::Channel};

/// How long an answer that is a part of a greater one may take: without it the rest is told.
pub(super) const PART: Duration = Duration::from_secs(2);

/// How long one may take that was asked for itself.
pub(super) const WHOLE: Duration = Duration::from_secs(5);

impl Agent {
    /// Asks the dataplane, and waits for as long as a question asked for itself may take.
    ///
    /// # Errors
    /// What it says, or that it does not answer.
    pub async fn ask_dataplane<T>(
        &self,
        question: impl AsyncFnOnce(&mut DataplaneClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        within(WHOLE, &self.link, question).await
    }
}

/// Asks the dataplane, and waits no longer than `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    link: &Link,
    question: impl AsyncFnOnce(&mut DataplaneClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<T, Status> {
    match timeout(limit, question(&mut link.client())).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if status.code() == Code::Unavailable => {
            Err(Status::unavailable(format!("the dataplane does not answer: {}", status.message())))
        }
        Ok(Err(status)) => Err(status),
        Err(_) => {
            Err(Status::unavailable(format!("the dataplane has not answered in {} s", limit.as_secs())))
        }
    }
}
