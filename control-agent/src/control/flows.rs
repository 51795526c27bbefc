//! What becomes of flows: records as they are and as they come, and an hour of them put together.

use super::Agent;
use crate::flows::{Batch, Filter, Flows};
use futures::{StreamExt as _, stream::BoxStream};
use margay_api::control::v1::{
    ObserveFlowsRequest, ObserveFlowsResponse, ObservedFlow, SummarizeFlowsRequest, SummarizeFlowsResponse,
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Records of one message.
const MESSAGE: usize = 256;
/// Messages that wait to be read.
const UNREAD: usize = 16;

pub(super) type Observed = BoxStream<'static, Result<ObserveFlowsResponse, Status>>;

impl Agent {
    pub(super) fn observe_flows(self: &Arc<Self>, request: ObserveFlowsRequest) -> Result<Observed, Status> {
        let flows = self.recorded()?.clone();
        let filter = Filter::read(request.filter.as_ref()).map_err(Status::invalid_argument)?;
        let mut stopping = self.stopping.clone();
        let (sender, observed) = mpsc::channel(UNREAD);
        tokio::spawn(async move {
            tokio::select! {
                () = observe(&flows, &filter, &request, &sender) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        });
        Ok(ReceiverStream::new(observed).boxed())
    }

    pub(super) fn summarize_flows(
        &self,
        request: &SummarizeFlowsRequest,
    ) -> Result<SummarizeFlowsResponse, Status> {
        let flows = self.recorded()?;
        let filter = Filter::read(request.filter.as_ref()).map_err(Status::invalid_argument)?;
        let since = match request.seconds {
            0 => 0,
            seconds => now().saturating_sub(seconds.saturating_mul(1_000_000_000)),
        };
        let (groups, since, beyond) = flows.summary(&filter, since, request.by(), request.limit as usize);
        Ok(SummarizeFlowsResponse { groups, lost: flows.lost(), beyond, since_unix_nanos: since })
    }

    fn recorded(&self) -> Result<&Arc<Flows>, Status> {
        self.flows.as_ref().ok_or_else(|| {
            Status::failed_precondition("the agent keeps no record of flows: start it without --flows off")
        })
    }
}

async fn observe(
    flows: &Flows,
    filter: &Filter,
    request: &ObserveFlowsRequest,
    sender: &mpsc::Sender<Result<ObserveFlowsResponse, Status>>,
) {
    let (kept, mut news) = flows.observe();
    let young = |flow: &&Arc<ObservedFlow>| {
        flow.record.as_ref().is_some_and(|of| of.last_unix_nanos >= request.since_unix_nanos)
    };
    let mut wanted: Vec<_> = kept.iter().filter(young).filter(|flow| filter.matches(flow)).collect();
    if request.last > 0 {
        let first = wanted.len().saturating_sub(usize::try_from(request.last).unwrap_or(usize::MAX));
        wanted.drain(..first);
    }
    let mut missed = 0;
    let say = |flows: &[&Arc<ObservedFlow>], lost, missed| {
        let flows = flows.iter().map(|flow| ObservedFlow::clone(flow)).collect();
        sender.send(Ok(ObserveFlowsResponse { flows, lost, missed }))
    };
    // Said even where there is nothing: who follows knows that it does.
    for part in wanted.chunks(MESSAGE).chain(wanted.is_empty().then_some(&[][..])) {
        if say(part, flows.lost(), missed).await.is_err() {
            return;
        }
    }
    drop(kept);
    if !request.follow {
        return;
    }
    loop {
        let batch: Batch = tokio::select! {
            () = sender.closed() => return,
            batch = news.recv() => match batch {
                Ok(batch) => batch,
                Err(broadcast::error::RecvError::Lagged(batches)) => {
                    missed += batches;
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
        };
        let wanted: Vec<_> = batch.iter().filter(|flow| filter.matches(flow)).collect();
        for part in wanted.chunks(MESSAGE) {
            if say(part, flows.lost(), missed).await.is_err() {
                return;
            }
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
