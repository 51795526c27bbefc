//! Records of flows for who reads them: taken out of workers' rings by a task of the reader's, put into words by the
//! control thread a few at a time.
//!
//! There is one reader, the newest. Workers note nothing while there is none.

use super::flow_log::{Batch, FlowRings, Teller};
use super::server::Service;
use super::shell::Shell;
use margay_api::dataplane::v1 as pb;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How often workers' rings are looked at: they have room for what comes meanwhile.
const PACE: Duration = Duration::from_millis(20);
/// Records of a worker that the control thread is asked about at a time: a millisecond of it, or two.
const AT_A_TIME: usize = 512;
/// Messages that wait to be read.
const UNREAD: usize = 16;

/// A stream of records.
pub(super) type Records = ReceiverStream<Result<pb::LogFlowsResponse, Status>>;

pub(super) async fn log(service: &Service) -> Result<Records, Status> {
    // A task of its own: a reader that is gone before it is done must not leave workers telling nobody.
    tokio::spawn(begin(service.clone())).await.map_err(|error| Status::internal(error.to_string()))?
}

async fn begin(service: Service) -> Result<Records, Status> {
    let tables = service.look(|shell| shell.flow_tables()).await?;
    // Notes are as long as tables are: a write that the control thread has no time for.
    let made = tokio::task::spawn_blocking(move || {
        let rings = tables.iter().map(|(worker, _)| FlowRings::new(*worker)).collect::<Vec<_>>();
        let logs =
            tables.iter().zip(&rings).map(|((_, table), ring)| ring.logs(table.capacity, table.hugepages));
        (logs.collect(), rings)
    });
    let (logs, rings) = made.await.map_err(|error| Status::internal(error.to_string()))?;
    let read = rings.clone();
    let begun = service.look(move |shell: &mut Shell| shell.tell_of_flows(logs, read)).await?;
    let (number, newest) = begun.map_err(Status::failed_precondition)?;
    let (sender, told) = mpsc::channel(UNREAD);
    tokio::spawn(async move {
        let outcome = tell(&service, newest, &rings, &sender).await;
        let _ = service.look(move |shell| shell.stop_telling_of_flows(number)).await;
        if let Err(status) = outcome {
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(told))
}

async fn tell(
    service: &Service,
    mut newest: watch::Receiver<u64>,
    rings: &[FlowRings],
    sender: &mpsc::Sender<Result<pb::LogFlowsResponse, Status>>,
) -> Result<(), Status> {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Said even where it is none: the reader knows that all is set.
    let mut said = None;
    loop {
        tokio::select! {
            () = sender.closed() => return Ok(()),
            changed = newest.changed() => {
                changed.map_err(|_| Status::unavailable("the dataplane is shutting down"))?;
                return Err(Status::aborted("a newer reader of flows took over"));
            }
            _ = pace.tick() => {}
        }
        // What does not fill a batch can wait for the next tick, and gather.
        let mut more = true;
        while more && newest.has_changed().is_ok_and(|newer| !newer) {
            let unix_nanos =
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
            let taken: Vec<_> = rings.iter().map(|ring| ring.take(AT_A_TIME, unix_nanos)).collect();
            let lost = rings.iter().map(FlowRings::lost).sum();
            let nothing = taken.iter().all(Batch::is_empty);
            if nothing && said == Some(lost) {
                break;
            }
            (more, said) = (taken.iter().any(|batch| batch.has(AT_A_TIME)), Some(lost));
            let told = service.look(move |shell| {
                let mut teller = Teller::new(shell.state());
                taken.iter().flat_map(|batch| teller.tell(batch)).collect()
            });
            let records = told.await?;
            if sender.send(Ok(pb::LogFlowsResponse { records, lost })).await.is_err() {
                return Ok(());
            }
        }
    }
}
