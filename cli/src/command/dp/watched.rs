//! A stream of packets that the dataplane watches for us.

use margay_api::dataplane::v1 as api;
use tonic::Streaming;

use crate::{
    args::Global,
    client,
    command::conntrack::advised,
    exit::{Failure, Outcome},
};

/// It goes on until enough was told.
pub struct Watched {
    attempt: &'static str,
    stream: Streaming<api::WatchResponse>,
    lost: u64,
    passed_over: u64,
}

impl Watched {
    /// Asks the dataplane.
    pub async fn begin(global: &Global, attempt: &'static str, request: api::WatchRequest) -> Outcome<Self> {
        let mut dataplane = client::dataplane(global).await?;
        let call = dataplane.watch(request);
        let answer = client::answer(global.timeout, attempt, call).await.map_err(advised)?;
        Ok(Self { attempt, stream: answer.into_inner(), lost: 0, passed_over: 0 })
    }

    /// Some more packets, when there are: that may be never.
    pub async fn next(&mut self) -> Outcome<Option<api::WatchResponse>> {
        let message = self.stream.message().await;
        let message = message.map_err(|status| Failure::rpc(self.attempt, &status))?;
        if let Some(message) = &message {
            (self.lost, self.passed_over) = (message.lost, message.passed_over);
        }
        Ok(message)
    }

    /// Packets and steps that could not be told.
    pub fn missed(&self) -> u64 {
        self.lost + self.passed_over
    }

    /// What could not be told, on standard error.
    pub fn confess(&self) {
        if self.lost > 0 {
            eprintln!("{} steps of packets were lost: more came than could be told", self.lost);
        }
        if self.passed_over > 0 {
            eprintln!("{} packets were passed over: more came than could be told", self.passed_over);
        }
    }
}
