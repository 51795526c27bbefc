//! What the tests of the running agent share: a dataplane that notes what it is told, and an
//! agent in this process.

#![allow(dead_code, reason = "each test file uses a part of it")]

use futures::{Stream, StreamExt, stream::BoxStream};
use margay_agent::{
    access::{Audit, Door, Role},
    backoff::Backoff,
    calc::Calculation,
    control::{self, Agent, Relaying},
    datastore::{Datastore, Fixed, fixed},
    flows::Flows,
    health_checks::HealthChecks,
    ipam::Ipam,
    key_publication::KeyPublication,
    model::scalar::Timestamp,
    relay::{self, Relay},
    sync::Link,
};
use margay_api::{
    control::v1::control_client::ControlClient,
    dataplane::v1::{
        Adopted, Change, CountFlowsRequest, CountFlowsResponse, DryRunRequest, DryRunResponse,
        EndpointPolicy, EndpointStatus, ExplainRequest, ExplainResponse, FlowRecord, FlushFlowsRequest,
        FlushFlowsResponse, GetEndpointPolicyRequest, GetHistogramsRequest, GetHistogramsResponse,
        GetRuntimeRequest, GetSettingsRequest, GetSettingsResponse, GetStatusRequest, Hello,
        ListAdjacenciesRequest, ListAdjacenciesResponse, ListDropsRequest, ListDropsResponse,
        ListFlowsRequest, ListFlowsResponse, ListInterfacesRequest, ListInterfacesResponse,
        ListNeighboursRequest, ListNeighboursResponse, ListRoutesRequest, ListRoutesResponse,
        ListServicesRequest, ListStagedRequest, ListStagedResponse, ListTunnelsRequest, ListTunnelsResponse,
        ListWireguardRequest, ListWireguardResponse, LogFlowsRequest, LogFlowsResponse, LookupRouteRequest,
        LookupRouteResponse, ObjectError, Refused, RotateWireguardKeyRequest, RotateWireguardKeyResponse,
        Runtime, ServedService, SetLogRequest, SetLogResponse, Setting, Status as DataplaneStatus,
        SyncRequest, SyncResponse, WatchRequest, WatchResponse, change,
        dataplane_server::{Dataplane, DataplaneServer},
        sync_response::Response as Answer,
    },
    log::{Filter, Log, Obeying},
    unix::Socket,
};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

/// Tries again at once.
pub const EAGER: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));

/// What the dataplane says to a transaction.
#[derive(Clone, Debug)]
pub enum Verdict {
    Adopt,
    Refuse(&'static str),
    /// Nothing, until [`Fake::say`].
    Silence,
}

/// One transaction as it arrived.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub generation: u64,
    pub in_sync: bool,
    /// Encoded size of each message.
    pub message_bytes: Vec<usize>,
    pub changes: Vec<change::Change>,
}

/// What the dataplane has counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub status: DataplaneStatus,
    pub runtime: Runtime,
    pub drops: ListDropsResponse,
}

/// A dataplane that judges nothing.
pub struct Fake {
    path: PathBuf,
    transactions: mpsc::UnboundedReceiver<Transaction>,
    server: Arc<Notes>,
    /// Its own, so that ending it breaks every connection as the end of a process does.
    runtime: Option<tokio::runtime::Runtime>,
}

struct Notes {
    hello: Hello,
    verdicts: Mutex<VecDeque<Verdict>>,
    seen: mpsc::UnboundedSender<Transaction>,
    answers: Mutex<Option<mpsc::UnboundedSender<Result<SyncResponse, Status>>>>,
    /// Another agent has the dataplane; how often that was asked.
    taken: AtomicBool,
    status_asked: watch::Sender<u32>,
    questions: Mutex<Vec<ExplainRequest>>,
    /// WireGuard's public key.
    key: Mutex<Vec<u8>>,
    counts: Mutex<Counts>,
    /// Who reads about flows.
    flows: watch::Sender<Option<mpsc::UnboundedSender<Result<LogFlowsResponse, Status>>>>,
}

impl Fake {
    /// Listens on `path`. Gives the verdicts in order, and then adopts everything.
    pub fn start(path: &Path, adopted_generation: u64, verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        let _ = std::fs::remove_file(path);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let guard = runtime.enter();
        let listener = UnixListener::bind(path).unwrap();
        let (seen, transactions) = mpsc::unbounded_channel();
        let server = Arc::new(Notes {
            hello: Hello { version: "fake".into(), adopted_generation, workers: 1 },
            verdicts: Mutex::new(verdicts.into_iter().collect()),
            seen,
            answers: Mutex::default(),
            taken: AtomicBool::new(false),
            status_asked: watch::channel(0).0,
            questions: Mutex::default(),
            key: Mutex::default(),
            counts: Mutex::default(),
            flows: watch::channel(None).0,
        });
        let service = DataplaneServer::from_arc(Arc::new(Service(server.clone())));
        runtime.spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        drop(guard);
        Self { path: path.to_owned(), transactions, server, runtime: Some(runtime) }
    }

    /// Tells the agent of flows, as soon as it reads.
    pub async fn tell_flows(&self, records: Vec<FlowRecord>, lost: u64) {
        let mut reader = self.server.flows.subscribe();
        let reader = reader.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        reader.send(Ok(LogFlowsResponse { records, lost })).unwrap();
    }

    /// It has counted so much.
    pub fn counts(&self, counts: Counts) {
        *self.server.counts.lock().unwrap() = counts;
    }

    /// The next transaction.
    pub async fn transaction(&mut self) -> Transaction {
        self.transactions.recv().await.expect("the fake serves")
    }

    /// What arrived and was not looked at.
    pub fn pending(&mut self) -> Option<Transaction> {
        self.transactions.try_recv().ok()
    }

    /// Says something of its own accord.
    pub fn say(&self, answer: Answer) {
        let answers = self.server.answers.lock().unwrap();
        let stream = answers.as_ref().expect("an agent is connected");
        stream.send(Ok(SyncResponse { response: Some(answer) })).unwrap();
    }

    /// Another agent takes over, until [`leave`](Self::leave).
    pub fn take_over(&self) {
        self.server.taken.store(true, Ordering::SeqCst);
        let answers = self.server.answers.lock().unwrap().take().expect("an agent is connected");
        answers.send(Err(Status::aborted("a newer agent's stream took over"))).unwrap();
    }

    /// Waits until it was asked for its status `times` more times.
    pub async fn asked_for_status(&self, times: u32) {
        let mut asked = self.server.status_asked.subscribe();
        let target = *asked.borrow() + times;
        asked.wait_for(|asked| *asked >= target).await.unwrap();
    }

    /// The other agent leaves.
    pub fn leave(&self) {
        self.server.taken.store(false, Ordering::SeqCst);
    }

    /// It has made a key.
    pub fn has_key(&self, key: Vec<u8>) {
        *self.server.key.lock().unwrap() = key;
    }

    pub fn say_adopted(&self, generation: u64) {
        self.say(Answer::Adopted(Adopted { generation }));
    }

    pub fn say_endpoint(&self, status: EndpointStatus) {
        self.say(Answer::EndpointStatus(status));
    }

    /// What it was asked to explain.
    pub fn questions(&self) -> Vec<ExplainRequest> {
        self.server.questions.lock().unwrap().clone()
    }

    /// Ends as a killed process does: streams break, nobody listens.
    pub async fn kill(mut self) {
        let runtime = self.runtime.take();
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    }

    /// The same, while its owner lives on.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Service(Arc<Notes>);

#[tonic::async_trait]
impl Dataplane for Service {
    type SyncStream = BoxStream<'static, Result<SyncResponse, Status>>;
    type ListFlowsStream = BoxStream<'static, Result<ListFlowsResponse, Status>>;
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;
    type ListServicesStream = BoxStream<'static, Result<ServedService, Status>>;
    type ListRoutesStream = BoxStream<'static, Result<ListRoutesResponse, Status>>;
    type LogFlowsStream = BoxStream<'static, Result<LogFlowsResponse, Status>>;

    async fn log_flows(&self, _: Request<LogFlowsRequest>) -> Result<Response<Self::LogFlowsStream>, Status> {
        let (reader, stream) = mpsc::unbounded_channel();
        self.0.flows.send_replace(Some(reader));
        Ok(Response::new(UnboundedReceiverStream::new(stream).boxed()))
    }

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let notes = self.0.clone();
        let (answers, stream) = mpsc::unbounded_channel();
        let hello = SyncResponse { response: Some(Answer::Hello(notes.hello.clone())) };
        answers.send(Ok(hello)).unwrap();
        *notes.answers.lock().unwrap() = Some(answers.clone());
        tokio::spawn(receive(notes, request.into_inner(), answers));
        Ok(Response::new(UnboundedReceiverStream::new(stream).boxed()))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<DataplaneStatus>, Status> {
        self.0.status_asked.send_modify(|asked| *asked += 1);
        let agent_connected = self.0.taken.load(Ordering::SeqCst);
        Ok(Response::new(DataplaneStatus {
            version: "fake".into(),
            agent_connected,
            wireguard_public_key: self.0.key.lock().unwrap().clone(),
            wireguard_lanes: 16,
            ..self.0.counts.lock().unwrap().status.clone()
        }))
    }

    async fn list_interfaces(
        &self,
        _: Request<ListInterfacesRequest>,
    ) -> Result<Response<ListInterfacesResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn get_runtime(&self, _: Request<GetRuntimeRequest>) -> Result<Response<Runtime>, Status> {
        Ok(Response::new(self.0.counts.lock().unwrap().runtime.clone()))
    }

    async fn get_histograms(
        &self,
        _: Request<GetHistogramsRequest>,
    ) -> Result<Response<GetHistogramsResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn list_drops(&self, _: Request<ListDropsRequest>) -> Result<Response<ListDropsResponse>, Status> {
        Ok(Response::new(self.0.counts.lock().unwrap().drops.clone()))
    }

    async fn get_endpoint_policy(
        &self,
        _: Request<GetEndpointPolicyRequest>,
    ) -> Result<Response<EndpointPolicy>, Status> {
        Err(Status::unimplemented("no agent asks this"))
    }

    async fn list_staged(
        &self,
        _: Request<ListStagedRequest>,
    ) -> Result<Response<ListStagedResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn list_flows(
        &self,
        _: Request<ListFlowsRequest>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn count_flows(
        &self,
        _: Request<CountFlowsRequest>,
    ) -> Result<Response<CountFlowsResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn flush_flows(
        &self,
        _: Request<FlushFlowsRequest>,
    ) -> Result<Response<FlushFlowsResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn dry_run(
        &self,
        _: Request<Streaming<DryRunRequest>>,
    ) -> Result<Response<DryRunResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn list_tunnels(
        &self,
        _: Request<ListTunnelsRequest>,
    ) -> Result<Response<ListTunnelsResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn rotate_wireguard_key(
        &self,
        _: Request<RotateWireguardKeyRequest>,
    ) -> Result<Response<RotateWireguardKeyResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn list_wireguard(
        &self,
        _: Request<ListWireguardRequest>,
    ) -> Result<Response<ListWireguardResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn get_settings(
        &self,
        _: Request<GetSettingsRequest>,
    ) -> Result<Response<GetSettingsResponse>, Status> {
        let setting = Setting { name: "cores".into(), value: "2,3".into(), ..Setting::default() };
        Ok(Response::new(GetSettingsResponse { settings: vec![setting] }))
    }

    async fn set_log(&self, request: Request<SetLogRequest>) -> Result<Response<SetLogResponse>, Status> {
        let filter = request.into_inner().filter;
        filter.parse::<Filter>().map_err(|why| Status::invalid_argument(format!("filter: {why}")))?;
        Ok(Response::new(SetLogResponse { filter }))
    }

    async fn list_services(
        &self,
        _: Request<ListServicesRequest>,
    ) -> Result<Response<Self::ListServicesStream>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn lookup_route(
        &self,
        _: Request<LookupRouteRequest>,
    ) -> Result<Response<LookupRouteResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn list_routes(
        &self,
        _: Request<ListRoutesRequest>,
    ) -> Result<Response<Self::ListRoutesStream>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn list_adjacencies(
        &self,
        _: Request<ListAdjacenciesRequest>,
    ) -> Result<Response<ListAdjacenciesResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn list_neighbours(
        &self,
        _: Request<ListNeighboursRequest>,
    ) -> Result<Response<ListNeighboursResponse>, Status> {
        Err(Status::unimplemented("not for the agent"))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        self.0.questions.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExplainResponse { verdict: "allow".into(), ..ExplainResponse::default() }))
    }
}

async fn receive(
    notes: Arc<Notes>,
    mut requests: Streaming<SyncRequest>,
    answers: mpsc::UnboundedSender<Result<SyncResponse, Status>>,
) {
    let mut sequence = 0;
    let mut changes = Vec::new();
    let mut message_bytes = Vec::new();
    while let Ok(Some(request)) = requests.message().await {
        sequence += 1;
        assert_eq!(request.sequence, sequence);
        message_bytes.push(prost::Message::encoded_len(&request));
        changes.extend(request.changes.into_iter().map(|Change { change }| change.unwrap()));
        let Some(commit) = request.commit else { continue };
        let verdict = notes.verdicts.lock().unwrap().pop_front().unwrap_or(Verdict::Adopt);
        let generation = commit.generation;
        let answer = match verdict {
            Verdict::Adopt => Some(Answer::Adopted(Adopted { generation })),
            Verdict::Refuse(message) => {
                let error = ObjectError {
                    object: "policy default/p".into(),
                    field: String::new(),
                    message: message.into(),
                };
                Some(Answer::Refused(Refused { generation, errors: vec![error] }))
            }
            Verdict::Silence => None,
        };
        let transaction = Transaction {
            generation,
            in_sync: commit.in_sync,
            message_bytes: std::mem::take(&mut message_bytes),
            changes: std::mem::take(&mut changes),
        };
        let _ = notes.seen.send(transaction);
        if let Some(answer) = answer {
            let _ = answers.send(Ok(SyncResponse { response: Some(answer) }));
        }
    }
}

/// An agent in this process, with a socket of its own.
pub struct Running {
    pub socket: PathBuf,
    pub agent: Arc<Agent>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    socket_file: Option<Socket>,
    /// Nobody logs by it: as many agents as there are in one process.
    _obeying: Obeying,
}

impl Running {
    /// Node `node` over `store`, with the built-in tiers, speaking to the dataplane on `dataplane`.
    pub async fn start(node: &str, store: Arc<dyn Datastore>, socket: &Path, dataplane: &Path) -> Self {
        Self::audited(node, store, socket, dataplane, Audit::default()).await
    }

    /// The same, with an audit log.
    pub async fn audited(
        node: &str,
        store: Arc<dyn Datastore>,
        socket: &Path,
        dataplane: &Path,
        audit: Audit,
    ) -> Self {
        let store: Arc<dyn Datastore> = Arc::new(Fixed::new(store, "Margay itself", fixed::built_in_tiers()));
        let (socket_file, listener) = Socket::bind(socket).await.unwrap();
        let calculation = Calculation::start(store.clone(), node, EAGER);
        let link = Link::start(dataplane, calculation.latest(), EAGER);
        let (stop, stopping) = watch::channel(false);
        let health_checks = HealthChecks::start(calculation.latest(), link.progress(), Backoff::LOCAL);
        let key_publication = KeyPublication::start(
            node,
            store.clone(),
            link.client(),
            calculation.latest(),
            link.progress(),
            EAGER,
        );
        let flows = Flows::start(link.client(), calculation.names(), None, EAGER);
        let started = Instant::now();
        let (log, obeying) = Log::new("info".parse().unwrap());
        let log_setting = Setting { name: "log".into(), value: "info".into(), ..Setting::default() };
        let ipam = Arc::new(Ipam::new(store.clone(), Arc::new(|| Timestamp::from(SystemTime::now()))));
        let node = node.into();
        let agent = Agent {
            node,
            store,
            ipam,
            calculation,
            link,
            health_checks,
            flows: Some(Arc::new(flows)),
            key_publication,
            bird: None,
            audit,
            settings: vec![log_setting],
            log,
            started,
            stopping,
        };
        let agent = Arc::new(agent);
        let serving = agent.clone();
        let server = tokio::spawn(async move {
            control::serve(serving, Door::unix(listener, Role::Viewer)).await.unwrap()
        });
        Self {
            socket: socket.to_owned(),
            agent,
            stop,
            server,
            socket_file: Some(socket_file),
            _obeying: obeying,
        }
    }

    pub async fn client(&self) -> ControlClient<Channel> {
        ControlClient::new(margay_api::unix::connect(&self.socket).await.unwrap())
    }

    /// As SIGTERM does.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        (&mut self.server).await.unwrap();
        self.socket_file.take();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.server.abort();
    }
}

/// A relay in this process, with a socket of its own.
pub struct Relayed {
    pub socket: PathBuf,
    pub relaying: Arc<Relaying>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    socket_file: Option<Socket>,
}

impl Relayed {
    /// Of `store`.
    pub async fn start(store: Arc<dyn Datastore>, socket: &Path) -> Self {
        let (socket_file, listener) = Socket::bind(socket).await.unwrap();
        Self::at(store, socket, Some(socket_file), Door::unix(listener, Role::Viewer))
    }

    /// The same behind another door.
    pub fn at(store: Arc<dyn Datastore>, socket: &Path, socket_file: Option<Socket>, door: Door) -> Self {
        let (stop, stopping) = watch::channel(false);
        let relaying = Arc::new(Relaying {
            relay: Relay::start(store.clone(), relay::Settings::default(), EAGER),
            ipam: Arc::new(Ipam::new(store.clone(), Arc::new(|| Timestamp::from(SystemTime::now())))),
            store,
            audit: Audit::default(),
            log: Log::new("off".parse().expect("it is a level")).0,
            started: Instant::now(),
            stopping,
        });
        let serving = relaying.clone();
        let server = tokio::spawn(async move { control::serve_relay(serving, door).await.unwrap() });
        Self { socket: socket.to_owned(), relaying, stop, server, socket_file }
    }

    /// As SIGTERM does.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        (&mut self.server).await.unwrap();
        self.socket_file.take();
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.server.abort();
    }
}

/// Waits until `watched` is as wanted.
pub async fn until<T: Clone + Send + Sync + 'static>(
    receiver: &mut watch::Receiver<T>,
    wanted: impl FnMut(&T) -> bool,
) -> T {
    receiver.wait_for(wanted).await.expect("the sender lives").clone()
}

/// The next item of a stream that goes on.
pub async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    stream.next().await.expect("the stream goes on")
}
