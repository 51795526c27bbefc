//! What the API says of flows: lists, counts, and what is to be forgotten.

use super::flows::{self, Asked, Names};
use super::server::Service;
use super::shell::Request;
use super::tally::Tally;
use crate::conntrack::{Filter, FilterError, PacketLike};
use crate::net::WorkerId;
use crate::worker::{FlowPage, FlowSeen, FlowTask};
use margay_api::dataplane::v1::{self as pb, count_flows_request::By};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How long a worker may take over a page.
const PAGE: Duration = Duration::from_secs(10);
/// Messages of a list that wait to be read.
const UNREAD: usize = 2;

/// Filled pages, as workers give them back.
pub(super) struct Pages(mpsc::Receiver<Result<(WorkerId, Box<FlowPage>), Status>>);

impl Pages {
    /// Asks every worker, a page at a time, and no more than one page ahead of the reader.
    pub async fn ask(service: &Service, filter: Filter, task: FlowTask) -> Result<Self, Status> {
        let workers = service.look(|shell| shell.workers()).await?;
        let filter = Arc::new(filter);
        let (filled, pages) = mpsc::channel(1);
        for worker in workers {
            let (service, filled) = (service.clone(), filled.clone());
            let mut next = Some(FlowPage::new(filter.clone(), task));
            tokio::spawn(async move {
                while let Some(page) = next.take() {
                    let page = fill(&service, worker, page).await;
                    next = page.as_ref().ok().and_then(|page| page.following());
                    if filled.send(page.map(|page| (worker, page))).await.is_err() {
                        // The reader has seen enough.
                        return;
                    }
                }
            });
        }
        Ok(Self(pages))
    }

    /// The next one; `None`: every worker has looked at its whole table.
    pub async fn next(&mut self) -> Result<Option<(WorkerId, Box<FlowPage>)>, Status> {
        self.0.recv().await.transpose()
    }

    /// How many matched.
    async fn matched(mut self) -> Result<u64, Status> {
        let mut matched = 0;
        while let Some((_, page)) = self.next().await? {
            matched += page.matched;
        }
        Ok(matched)
    }
}

/// A stream of sessions.
pub(super) type List = ReceiverStream<Result<pb::ListFlowsResponse, Status>>;

pub(super) async fn list(service: &Service, request: pb::ListFlowsRequest) -> Result<List, Status> {
    let filter = filter(service, request.filter).await?;
    let names = service.look(|shell| shell.names()).await?;
    let mut pages = Pages::ask(service, filter, FlowTask::Show).await?;
    let (unread, list) = mpsc::channel(UNREAD);
    tokio::spawn(async move {
        loop {
            let message = match pages.next().await {
                Ok(None) => return,
                Ok(Some((_, page))) if page.found.is_empty() => continue,
                Ok(Some((worker, page))) => {
                    let flows = page.found.iter().map(|seen| flows::flow(worker, seen, &names)).collect();
                    Ok(pb::ListFlowsResponse { flows })
                }
                Err(status) => Err(status),
            };
            if unread.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(list))
}

pub(super) async fn count(
    service: &Service,
    request: pb::CountFlowsRequest,
) -> Result<pb::CountFlowsResponse, Status> {
    let by = By::try_from(request.by).map_err(|_| {
        Status::invalid_argument(format!("by: {} is nothing that flows are counted by", request.by))
    })?;
    let filter = filter(service, request.filter).await?;
    if by == By::Nothing {
        let flows = Pages::ask(service, filter, FlowTask::Count).await?.matched().await?;
        return Ok(pb::CountFlowsResponse { flows, ..Default::default() });
    }
    let names = service.look(|shell| shell.names()).await?;
    let mut pages = Pages::ask(service, filter, FlowTask::Show).await?;
    let (mut flows, mut tally) = (0, Tally::default());
    while let Some((worker, page)) = pages.next().await? {
        flows += page.matched;
        for seen in &page.found {
            groups(by, worker, seen, &names).for_each(|name| tally.add(name));
        }
    }
    let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
    let (groups, uncertainty) = tally.largest(limit);
    let groups = groups.into_iter().map(|(name, flows)| pb::FlowGroup { name, flows }).collect();
    Ok(pb::CountFlowsResponse { flows, groups, uncertainty })
}

pub(super) async fn flush(
    service: &Service,
    request: pb::FlushFlowsRequest,
) -> Result<pb::FlushFlowsResponse, Status> {
    match (request.filter.trim().is_empty(), request.all) {
        (true, false) => {
            return Err(Status::invalid_argument("filter: empty; say which flows, or that it is to be all"));
        }
        (false, true) => {
            return Err(Status::invalid_argument("filter: given, and all flows asked for; choose one"));
        }
        _ => {}
    }
    let filter = filter(service, request.filter).await?;
    let flushed = Pages::ask(service, filter, FlowTask::Forget).await?.matched().await?;
    Ok(pb::FlushFlowsResponse { flushed })
}

/// The sessions that a packet may belong to, `most` of them, and whether there are more.
pub(super) async fn of_packet(
    service: &Service,
    like: PacketLike,
    most: usize,
) -> Result<(Vec<(WorkerId, FlowSeen)>, bool), Status> {
    let mut pages = Pages::ask(service, Filter::of_packet(like), FlowTask::Show).await?;
    let mut found = vec![];
    while let Some((worker, page)) = pages.next().await? {
        found.extend(page.found.iter().map(|seen| (worker, *seen)));
        if found.len() > most {
            found.truncate(most);
            return Ok((found, true));
        }
    }
    Ok((found, false))
}

async fn fill(service: &Service, worker: WorkerId, page: FlowPage) -> Result<Box<FlowPage>, Status> {
    let (reply, filled) = oneshot::channel();
    service.ask(Request::Flows(Asked { worker, page: Box::new(page), reply })).await?;
    match tokio::time::timeout(PAGE, filled).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(_)) => Err(Status::resource_exhausted("too many ask about flows at a time; try again")),
        Err(_) => {
            let why =
                format!("worker {} has not looked at its flows in {PAGE:?}; is it overloaded?", worker.0);
            Err(Status::unavailable(why))
        }
    }
}

pub(super) async fn filter(service: &Service, text: String) -> Result<Filter, Status> {
    let read = service.look(move |shell| shell.filter(&text)).await?;
    read.map_err(|error: FilterError| {
        let why = format!("filter: {error}");
        if error.missing { Status::not_found(why) } else { Status::invalid_argument(why) }
    })
}

/// What a session counts for.
fn groups(by: By, worker: WorkerId, seen: &FlowSeen, names: &Names) -> impl Iterator<Item = String> {
    let key = &seen.key;
    let one = match by {
        By::Nothing | By::Endpoint => None,
        By::Source => Some(key.src.to_string()),
        By::Destination => Some(key.dst.to_string()),
        By::Port if key.proto.has_ports() => Some(format!("{}/{}", key.proto, key.dport)),
        By::Port | By::Protocol => Some(key.proto.to_string()),
        By::State => Some(seen.state.name().to_owned()),
        By::Worker => Some(worker.0.to_string()),
        By::Generation => Some(seen.judged.0.to_string()),
    };
    let ends = [names.name(key.src), names.name(seen.reply_key.src)];
    // A flow of an endpoint to itself is one.
    let ends = if ends[0] == ends[1] { [ends[0], ""] } else { ends };
    let ends = ends.into_iter().filter(move |name| by == By::Endpoint && !name.is_empty());
    let ends: Vec<String> = ends.map(str::to_owned).collect();
    one.into_iter().chain(ends)
}
