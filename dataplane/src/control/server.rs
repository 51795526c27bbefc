//! The gRPC face of the control thread.

use super::shell::{Begun, CommitError, Request, Shell};
use super::{dry_run, flow_rpc, flow_stream, flows, watch};
use margay_api::dataplane::v1::{self as pb, dataplane_server::Dataplane};
use margay_api::log::Log;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Response, Status, Streaming};

/// Bytes of one transaction at most, over all its messages.
pub(super) const MAX_TRANSACTION: usize = 512 << 20;

/// Routes of one message at most.
const ROUTES: usize = 4096;

/// How long workers may take to go through their flows.
const FLOWS: Duration = Duration::from_secs(2);

/// Sessions of a packet that are shown with its explanation at most.
const SESSIONS: usize = 256;

/// The service. Cheap to clone: all work is done by the [`Shell`].
#[derive(Clone)]
pub struct Service {
    requests: mpsc::Sender<Request>,
    /// What the process was started with.
    settings: Arc<[pb::Setting]>,
    /// The process's, where it has one.
    log: Option<Arc<Log>>,
}

impl Service {
    /// A face of the shell that takes `requests`.
    pub fn new(requests: mpsc::Sender<Request>) -> Self {
        Self { requests, settings: [].into(), log: None }
    }

    /// Tells who asks for them of these settings, and lets them change what is logged.
    pub fn with_settings(self, settings: Vec<pb::Setting>, log: Log) -> Self {
        Self { settings: settings.into(), log: Some(Arc::new(log)), ..self }
    }

    pub(super) async fn ask(&self, request: Request) -> Result<(), Status> {
        self.requests.send(request).await.map_err(|_| Status::unavailable("the dataplane is shutting down"))
    }

    /// Has the control thread look at itself.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Shell) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        // The asker may be gone by then.
        let look = move |shell: &mut Shell| drop(reply.send(look(shell)));
        self.ask(Request::Look(Box::new(look))).await?;
        answer.await.map_err(|_| Status::unavailable("the dataplane is shutting down"))
    }
}

type Served = Pin<Box<dyn Stream<Item = Result<pb::ServedService, Status>> + Send>>;
type Routes = Pin<Box<dyn Stream<Item = Result<pb::ListRoutesResponse, Status>> + Send>>;
type Responses = Pin<Box<dyn Stream<Item = Result<pb::SyncResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Dataplane for Service {
    type SyncStream = Responses;
    type ListFlowsStream = flow_rpc::List;
    type ListServicesStream = Served;
    type WatchStream = watch::Told;
    type ListRoutesStream = Routes;
    type LogFlowsStream = flow_stream::Records;

    async fn sync(
        &self,
        request: tonic::Request<Streaming<pb::SyncRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (reply, begun) = oneshot::channel();
        self.ask(Request::Begin(reply)).await?;
        let begun = begun.await.map_err(|_| Status::unavailable("the dataplane is shutting down"))?;
        let (responses, stream) = mpsc::channel(64);
        let service = self.clone();
        tokio::spawn(async move {
            let session = begun.session;
            let mut conversation =
                Conversation { service: service.clone(), responses, begun, said: 0, first: None };
            if let Err(status) = conversation.run(request.into_inner()).await {
                let _ = conversation.responses.send(Err(status)).await;
            }
            let _ = service.ask(Request::End(session)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_status(
        &self,
        _: tonic::Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::Status>, Status> {
        self.look(Shell::status).await.map(Response::new)
    }

    async fn list_interfaces(
        &self,
        _: tonic::Request<pb::ListInterfacesRequest>,
    ) -> Result<Response<pb::ListInterfacesResponse>, Status> {
        let interfaces = self.look(|shell| shell.interfaces()).await?;
        Ok(Response::new(pb::ListInterfacesResponse { interfaces }))
    }

    async fn get_runtime(
        &self,
        _: tonic::Request<pb::GetRuntimeRequest>,
    ) -> Result<Response<pb::Runtime>, Status> {
        self.look(|shell| shell.runtime()).await.map(Response::new)
    }

    async fn get_histograms(
        &self,
        _: tonic::Request<pb::GetHistogramsRequest>,
    ) -> Result<Response<pb::GetHistogramsResponse>, Status> {
        self.look(|shell| shell.histograms()).await.map(Response::new)
    }

    async fn list_drops(
        &self,
        _: tonic::Request<pb::ListDropsRequest>,
    ) -> Result<Response<pb::ListDropsResponse>, Status> {
        let drops = self.look(|shell| shell.drops()).await?;
        Ok(Response::new(pb::ListDropsResponse { drops }))
    }

    async fn get_endpoint_policy(
        &self,
        request: tonic::Request<pb::GetEndpointPolicyRequest>,
    ) -> Result<Response<pb::EndpointPolicy>, Status> {
        let request = request.into_inner();
        let shown = self.look(move |shell| shell.show(&request)).await?;
        shown.map(Response::new).map_err(|error| Status::not_found(error.to_string()))
    }

    async fn list_staged(
        &self,
        _: tonic::Request<pb::ListStagedRequest>,
    ) -> Result<Response<pb::ListStagedResponse>, Status> {
        self.look(|shell| shell.staged()).await.map(Response::new)
    }

    async fn list_services(
        &self,
        request: tonic::Request<pb::ListServicesRequest>,
    ) -> Result<Response<Served>, Status> {
        let name = request.into_inner().service;
        let served = self.look(move |shell| shell.services(&name)).await?;
        Ok(Response::new(Box::pin(tokio_stream::iter(served.into_iter().map(Ok)))))
    }

    async fn list_tunnels(
        &self,
        _: tonic::Request<pb::ListTunnelsRequest>,
    ) -> Result<Response<pb::ListTunnelsResponse>, Status> {
        let tunnels = self.look(|shell| shell.tunnels()).await?;
        Ok(Response::new(pb::ListTunnelsResponse { tunnels }))
    }

    async fn list_wireguard(
        &self,
        _: tonic::Request<pb::ListWireguardRequest>,
    ) -> Result<Response<pb::ListWireguardResponse>, Status> {
        let interfaces = self.look(|shell| shell.wireguard()).await?;
        Ok(Response::new(pb::ListWireguardResponse { interfaces }))
    }

    async fn rotate_wireguard_key(
        &self,
        _: tonic::Request<pb::RotateWireguardKeyRequest>,
    ) -> Result<Response<pb::RotateWireguardKeyResponse>, Status> {
        let public_key = self.look(|shell| shell.rotate_key()).await?.map_err(Status::failed_precondition)?;
        Ok(Response::new(pb::RotateWireguardKeyResponse { public_key }))
    }

    async fn get_settings(
        &self,
        _: tonic::Request<pb::GetSettingsRequest>,
    ) -> Result<Response<pb::GetSettingsResponse>, Status> {
        let settings = match &self.log {
            Some(log) => log.among(&self.settings),
            None => self.settings.to_vec(),
        };
        Ok(Response::new(pb::GetSettingsResponse { settings }))
    }

    async fn set_log(
        &self,
        request: tonic::Request<pb::SetLogRequest>,
    ) -> Result<Response<pb::SetLogResponse>, Status> {
        let log = self.log.as_ref().ok_or_else(|| Status::failed_precondition("this process has no log"))?;
        let filter = log.set(&request.get_ref().filter);
        let filter = filter.map_err(|why| Status::invalid_argument(format!("filter: {why}")))?;
        Ok(Response::new(pb::SetLogResponse { filter }))
    }

    async fn lookup_route(
        &self,
        request: tonic::Request<pb::LookupRouteRequest>,
    ) -> Result<Response<pb::LookupRouteResponse>, Status> {
        let request = request.into_inner();
        let found = self.look(move |shell| shell.lookup_route(&request)).await?;
        found.map(Response::new).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    async fn list_routes(
        &self,
        request: tonic::Request<pb::ListRoutesRequest>,
    ) -> Result<Response<Routes>, Status> {
        let request = request.into_inner();
        let listed = self.look(move |shell| shell.routes(&request)).await?;
        let (mut routes, more) = listed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut messages = vec![];
        while !routes.is_empty() {
            let rest = routes.split_off(routes.len().min(ROUTES));
            let last = rest.is_empty();
            messages.push(Ok(pb::ListRoutesResponse { routes, more: more && last }));
            routes = rest;
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn list_adjacencies(
        &self,
        _: tonic::Request<pb::ListAdjacenciesRequest>,
    ) -> Result<Response<pb::ListAdjacenciesResponse>, Status> {
        let adjacencies = self.look(|shell| shell.adjacencies()).await?;
        Ok(Response::new(pb::ListAdjacenciesResponse { adjacencies }))
    }

    async fn list_neighbours(
        &self,
        _: tonic::Request<pb::ListNeighboursRequest>,
    ) -> Result<Response<pb::ListNeighboursResponse>, Status> {
        let neighbours = self.look(|shell| shell.neighbours()).await?;
        Ok(Response::new(pb::ListNeighboursResponse { neighbours }))
    }

    async fn watch(
        &self,
        request: tonic::Request<pb::WatchRequest>,
    ) -> Result<Response<watch::Told>, Status> {
        watch::watch(self, request.into_inner()).await.map(Response::new)
    }

    async fn log_flows(
        &self,
        _: tonic::Request<pb::LogFlowsRequest>,
    ) -> Result<Response<flow_stream::Records>, Status> {
        flow_stream::log(self).await.map(Response::new)
    }

    async fn explain(
        &self,
        request: tonic::Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let request = request.into_inner();
        let wrong = |error: super::FieldError| Status::invalid_argument(error.to_string());
        let wanted = flows::wanted(&request).map_err(wrong)?;
        let mut explained = self.look(move |shell| shell.explain(&request)).await?.map_err(wrong)?;
        // Workers that are busy or stuck do not keep the rest of the answer back.
        let sessions = flow_rpc::of_packet(self, wanted, SESSIONS);
        if let Ok(Ok((found, more))) = tokio::time::timeout(FLOWS, sessions).await {
            explained.conntrack = Some(self.look(move |shell| shell.conntrack(&wanted, &found, more)).await?);
        }
        Ok(Response::new(explained))
    }

    async fn list_flows(
        &self,
        request: tonic::Request<pb::ListFlowsRequest>,
    ) -> Result<Response<flow_rpc::List>, Status> {
        flow_rpc::list(self, request.into_inner()).await.map(Response::new)
    }

    async fn count_flows(
        &self,
        request: tonic::Request<pb::CountFlowsRequest>,
    ) -> Result<Response<pb::CountFlowsResponse>, Status> {
        flow_rpc::count(self, request.into_inner()).await.map(Response::new)
    }

    async fn dry_run(
        &self,
        request: tonic::Request<Streaming<pb::DryRunRequest>>,
    ) -> Result<Response<pb::DryRunResponse>, Status> {
        dry_run::run(self, request.into_inner()).await.map(Response::new)
    }

    async fn flush_flows(
        &self,
        request: tonic::Request<pb::FlushFlowsRequest>,
    ) -> Result<Response<pb::FlushFlowsResponse>, Status> {
        flow_rpc::flush(self, request.into_inner()).await.map(Response::new)
    }
}

/// One agent's stream.
struct Conversation {
    service: Service,
    responses: mpsc::Sender<Result<pb::SyncResponse, Status>>,
    begun: Begun,
    /// The last adopted generation that was told.
    said: u64,
    /// The first that this stream committed. What was adopted before is an earlier stream's.
    first: Option<u64>,
}

impl Conversation {
    async fn run(&mut self, mut requests: Streaming<pb::SyncRequest>) -> Result<(), Status> {
        self.say(pb::sync_response::Response::Hello(self.begun.hello.clone())).await?;
        for status in std::mem::take(&mut self.begun.statuses.0) {
            self.say(pb::sync_response::Response::EndpointStatus(status)).await?;
        }
        let (mut expected, mut changes, mut bytes, mut committed) = (1, vec![], 0, 0);
        loop {
            tokio::select! {
                message = requests.next() => {
                    let Some(message) = message.transpose()? else { return Ok(()) };
                    if message.sequence != expected {
                        let why = format!("sequence {} where {expected} was next; begin a new stream", message.sequence);
                        return Err(Status::data_loss(why));
                    }
                    expected += 1;
                    bytes += prost::Message::encoded_len(&message);
                    if bytes > MAX_TRANSACTION {
                        return Err(Status::resource_exhausted(format!(
                            "a transaction of more than {MAX_TRANSACTION} bytes; commit in smaller parts"
                        )));
                    }
                    changes.extend(message.changes);
                    let Some(commit) = message.commit else { continue };
                    if commit.generation <= committed {
                        let why = format!("generation {} does not follow {committed}", commit.generation);
                        return Err(Status::invalid_argument(why));
                    }
                    committed = commit.generation;
                    bytes = 0;
                    self.commit(std::mem::take(&mut changes), commit).await?;
                }
                changed = self.begun.adopted.changed() => {
                    changed.map_err(|_| Status::unavailable("the dataplane is shutting down"))?;
                    self.tell_adopted().await?;
                }
                status = self.begun.statuses.1.recv() => match status {
                    Ok(status) => self.say(pb::sync_response::Response::EndpointStatus(status)).await?,
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        return Err(Status::data_loss("endpoint statuses were missed; begin a new stream"));
                    }
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(Status::unavailable("the dataplane is shutting down"));
                    }
                },
                changed = self.begun.sessions.changed() => {
                    let newest = *self.begun.sessions.borrow_and_update();
                    if changed.is_err() || newest != self.begun.session {
                        return Err(Status::aborted("a newer agent's stream took over"));
                    }
                }
            }
        }
    }

    async fn commit(&mut self, changes: Vec<pb::Change>, commit: pb::Commit) -> Result<(), Status> {
        let generation = commit.generation;
        let (done, outcome) = oneshot::channel();
        self.service.ask(Request::Commit { session: self.begun.session, changes, commit, done }).await?;
        match outcome.await.map_err(|_| Status::unavailable("the dataplane is shutting down"))? {
            // Adoption may have been told of before this stream committed anything.
            Ok(()) => {
                self.first.get_or_insert(generation);
                self.tell_adopted().await
            }
            Err(CommitError::Superseded) => Err(Status::aborted("a newer agent's stream took over")),
            Err(CommitError::Refused(errors)) => {
                let errors = errors.into_iter().map(Into::into).collect();
                self.say(pb::sync_response::Response::Refused(pb::Refused { generation, errors })).await
            }
        }
    }

    /// Tells of adoption, once a generation, and only of this stream's own.
    async fn tell_adopted(&mut self) -> Result<(), Status> {
        let generation = *self.begun.adopted.borrow_and_update();
        if generation == self.said || self.first.is_none_or(|first| generation < first) {
            return Ok(());
        }
        self.said = generation;
        self.say(pb::sync_response::Response::Adopted(pb::Adopted { generation })).await
    }

    async fn say(&self, response: pb::sync_response::Response) -> Result<(), Status> {
        let message = pb::SyncResponse { response: Some(response) };
        self.responses.send(Ok(message)).await.map_err(|_| Status::cancelled("the agent is gone"))
    }
}
