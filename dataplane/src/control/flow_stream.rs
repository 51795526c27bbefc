//! Records of flows for who reads them: taken out of workers' rings by a task of the reader's, put into words by the
//! control thread a few at a time.
//!
//! There is one reader, the newest. Workers note nothing while there is none.

use super::flow_log::{FlowRings, Teller};
use super::server::Service;
use super::shell::Shell;
use margay_api::dataplane::v1 as pb;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
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
    let (number, rings) = service.look(Shell::tell_of_flows).await?.map_err(Status::failed_precondition)?;
    let (sender, told) = mpsc::channel(UNREAD);
    let service = service.clone();
    tokio::spawn(async move {
        let outcome = tell(&service, number, &rings, &sender).await;
        let _ = service.look(move |shell| shell.stop_telling_of_flows(number)).await;
        if let Err(status) = outcome {
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(told))
}

async fn tell(
    service: &Service,
    number: u64,
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
            _ = pace.tick() => {}
        }
        loop {
            let unix_nanos =
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
            let taken: Vec<_> = rings.iter().map(|ring| ring.take(AT_A_TIME, unix_nanos)).collect();
            let lost = rings.iter().map(FlowRings::lost).sum();
            let nothing = taken.iter().all(|batch| batch.is_empty());
            if nothing && said == Some(lost) {
                break;
            }
            said = Some(lost);
            let told = service.look(move |shell| {
                shell.tells_of_flows(number).then(|| {
                    let mut teller = Teller::new(shell.state());
                    taken.iter().flat_map(|batch| teller.tell(batch)).collect()
                })
            });
            let records = told.await?.ok_or_else(|| Status::aborted("a newer reader of flows took over"))?;
            if sender.send(Ok(pb::LogFlowsResponse { records, lost })).await.is_err() {
                return Ok(());
            }
        }
        if !service.look(move |shell| shell.tells_of_flows(number)).await? {
            return Err(Status::aborted("a newer reader of flows took over"));
        }
    }
}
