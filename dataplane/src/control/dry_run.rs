//! A dry run: other policy is compiled beside what is in force, and live sessions are judged by both.

use super::flow_rpc::{self, Pages};
use super::flows::{self, Names};
use super::judge::{Judge, opened_by};
use super::server::{MAX_TRANSACTION, Service};
use super::state::State;
use crate::net::WorkerId;
use crate::snapshot::Established;
use crate::worker::{FlowSeen, FlowTask};
use margay_api::dataplane::v1 as pb;
use std::sync::Arc;
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

/// Sessions that are listed at most.
const MAX_LISTED: u32 = 10_000;

/// Compiles what the stream says, and judges every live session.
pub(super) async fn run(
    service: &Service,
    mut requests: Streaming<pb::DryRunRequest>,
) -> Result<pb::DryRunResponse, Status> {
    let (mut changes, mut bytes, mut filter, mut limit) = (vec![], 0, String::new(), 0);
    while let Some(request) = requests.next().await.transpose()? {
        bytes += prost::Message::encoded_len(&request);
        if bytes > MAX_TRANSACTION {
            return Err(Status::resource_exhausted(format!("policy of more than {MAX_TRANSACTION} bytes")));
        }
        changes.extend(request.changes);
        if !request.filter.is_empty() {
            filter = request.filter;
        }
        limit = limit.max(request.limit).min(MAX_LISTED);
    }
    let filter = flow_rpc::filter(service, filter).await?;
    let (present, names) = service.look(|shell| (shell.aside(), shell.names())).await?;
    let mut candidate = present.aside();
    let tried = tokio::task::spawn_blocking(move || candidate.judge_by(changes).map(|()| candidate)).await;
    let candidate = match tried {
        Ok(Ok(candidate)) => candidate,
        Ok(Err(errors)) => {
            let refused = errors.into_iter().map(Into::into).collect();
            return Ok(pb::DryRunResponse { refused, ..Default::default() });
        }
        Err(error) => return Err(Status::internal(format!("the policy could not be compiled: {error}"))),
    };
    let mut pages = Pages::ask(service, filter, FlowTask::Show).await?;
    let states = Arc::new([present, candidate]);
    let mut found = pb::DryRunResponse {
        recheck: states[1].desired().established == Established::Recheck,
        ..Default::default()
    };
    let names = Arc::new(names);
    while let Some((worker, page)) = pages.next().await? {
        let (states, names) = (states.clone(), names.clone());
        // Judging takes its time.
        let judge = move || judge_sessions(&states, &names, (worker, &page.found), found, limit);
        let judged = tokio::task::spawn_blocking(judge);
        found = judged
            .await
            .map_err(|error| Status::internal(format!("sessions could not be judged: {error}")))?;
    }
    Ok(found)
}

/// Judges some sessions of a worker by what is in force and by the other policy, and adds them to what was
/// `found`; at most `limit` are listed.
pub fn judge_sessions(
    [present, candidate]: &[State; 2],
    names: &Names,
    (worker, sessions): (WorkerId, &[FlowSeen]),
    mut found: pb::DryRunResponse,
    limit: u32,
) -> pb::DryRunResponse {
    let (now, then) = (Judge::new(present), Judge::new(candidate));
    for seen in sessions {
        let query = opened_by(seen);
        found.flows += 1;
        // What belongs to a workload that would be gone goes with it.
        let ends = [query.key.src, query.key.dst];
        let orphaned = ends.into_iter().any(|end| now.knows(end) && !then.knows(end));
        let denied = orphaned || !then.allows(&query);
        if denied && !now.allows(&query) {
            found.denied_already += 1;
        } else if denied {
            found.cut += 1;
            if found.listed.len() < limit as usize {
                found.listed.push(cut(worker, seen, names, then.denier(&query).filter(|_| !orphaned)));
            }
        }
    }
    found
}

fn cut(worker: WorkerId, seen: &FlowSeen, names: &Names, by: Option<pb::Direction>) -> pb::CutFlow {
    pb::CutFlow { flow: Some(flows::flow(worker, seen, names)), by }
}
