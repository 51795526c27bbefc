//! The API of a relay: what is of the cluster, and each node's view of it. What is of a node is asked of the node's agent.

use super::{CALLS, Cluster, REQUEST_BYTES, failure, log, service, status};
use crate::{
    access::{Audit, Caller, Door, Role},
    datastore::Datastore,
    ipam::Ipam,
    relay::{Events, Figures, Frame, Frames, Reader, Reading, Relay},
};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use margay_api::control::v1::{
    self as api, ApplyRequest, ApplyResponse, AssignAddressesRequest, AssignAddressesResponse, Bgp,
    CniAddRequest, CniAddResponse, CniCheckRequest, CniCheckResponse, CniDelRequest, CniDelResponse,
    CniGcRequest, CniGcResponse, CniStatusRequest, CniStatusResponse, ConfirmLostRequest,
    ConfirmLostResponse, DeleteRequest, DeleteResponse, ExplainRequest, ExplainResponse, GetBgpRequest,
    GetConfigRequest, GetConfigResponse, GetRequest, GetResponse, GetStatusRequest, ListAddressesRequest,
    ListAddressesResponse, ListLostRequest, ListLostResponse, ObserveFlowsRequest, RelayClient,
    ReleaseAddressesRequest, ReleaseAddressesResponse, SetLogRequest, SetLogResponse, SplitPoolRequest,
    SplitPoolResponse, Status as AgentStatus, SummarizeFlowsRequest, SummarizeFlowsResponse, WatchEvent,
    WatchRequest,
    control_server::{Control, ControlServer},
    set_log_request::Process,
};
use margay_api::log::Log;
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, ServerStreamingService},
    transport::Server,
};

/// How often a silent reader is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Where `Control.Watch` is asked for.
const WATCH: &str = "/margay.control.v1.Control/Watch";

/// A relay, as its API shows it.
pub struct Relaying {
    /// Where objects live.
    pub store: Arc<dyn Datastore>,
    /// Gives addresses out of it.
    pub ipam: Arc<Ipam>,
    /// Who is told what.
    pub relay: Relay,
    /// Who changed what.
    pub audit: Audit,
    /// What it logs.
    pub log: Log,
    /// When the relay started.
    pub started: Instant,
    /// Turns true when the relay shuts down, which ends the watches.
    pub stopping: watch::Receiver<bool>,
}

/// Answers whoever comes in by `door` until the relay is stopping.
///
/// # Errors
/// The server could not be set up, or the door failed.
pub async fn serve(
    relaying: Arc<Relaying>,
    door: Door,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ControlServer<Methods>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(margay_api::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let mut stopping = relaying.stopping.clone();
    let others = ControlServer::new(Methods(relaying.clone())).max_decoding_message_size(REQUEST_BYTES);
    Server::builder()
        .concurrency_limit_per_connection(CALLS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(Watched { relaying, others })
        .serve_with_incoming_shutdown(door, async move {
            // An error means that nobody can say stop any more: the same.
            let _ = stopping.wait_for(|stop| *stop).await;
        })
        .await?;
    Ok(())
}

impl Relaying {
    fn cluster(&self) -> Cluster<'_> {
        Cluster {
            store: &*self.store,
            ipam: &self.ipam,
            audit: &self.audit,
            node: "",
            stopping: &self.stopping,
        }
    }

    /// The store, what is told of it, and to whom.
    pub fn status(&self) -> AgentStatus {
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            components: [self.store.health(), self.relay.health()]
                .into_iter()
                .map(status::component)
                .collect(),
            relay: Some(figures(self.relay.figures())),
            ..AgentStatus::default()
        }
    }

    async fn watch(&self, caller: Caller, request: WatchRequest) -> Result<Events, Status> {
        let kind = if request.kind.is_empty() { None } else { Some(failure::kind(&request.kind)?) };
        caller.may_read(kind, &request.namespace).map_err(failure::refused)?;
        if !request.agent {
            let events = self.cluster().watch(request).await?;
            return Ok(events.map(|event| event.map(|event| Frame::Event(Box::new(event)))).boxed());
        }
        let is_whole = kind.is_none() && request.namespace.is_empty() && request.name.is_empty();
        if !is_whole {
            let message = "an agent keeps all that its node needs: leave kind, namespace and name empty";
            return Err(Status::invalid_argument(message));
        }
        let node = Some(request.for_node).filter(|node| !node.is_empty());
        if caller.role == Role::Node && node.as_ref().is_some_and(|node| *node != caller.name) {
            let message = format!("for_node: the certificate is of node {:?}: ask for that one", caller.name);
            return Err(Status::permission_denied(message));
        }
        let reader = Reader { name: caller.name, node };
        let events = self.relay.events(reader, &request.resume).await.map_err(failure::store)?;
        let mut stopping = self.stopping.clone();
        let stop = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        Ok(events.take_until(Box::pin(stop)).boxed())
    }
}

fn figures(figures: Figures) -> api::Relay {
    let Figures { objects, selectors, readers, listed, resumed, dropped, events, bytes } = figures;
    let clients = readers.into_iter().map(client).collect();
    api::Relay { objects, selectors, clients, listed, resumed, dropped, events, bytes }
}

fn client(reading: Reading) -> RelayClient {
    let Reading { reader, connected, objects, behind, bytes } = reading;
    RelayClient {
        name: reader.name,
        node: reader.node.unwrap_or_default(),
        connected_seconds: connected.as_secs(),
        objects,
        behind_milliseconds: u64::try_from(behind.as_millis()).unwrap_or(u64::MAX),
        bytes,
    }
}

/// The service: watches are answered with events that are bytes already, all else as ever.
#[derive(Clone)]
struct Watched {
    relaying: Arc<Relaying>,
    others: ControlServer<Methods>,
}

impl NamedService for Watched {
    const NAME: &'static str = <ControlServer<Methods> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for Watched {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.others, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != WATCH {
            return self.others.call(request);
        }
        let watch = Watch(self.relaying.clone());
        async move { Ok(Grpc::new(Frames).server_streaming(watch, request).await) }.boxed()
    }
}

struct Watch(Arc<Relaying>);

impl ServerStreamingService<WatchRequest> for Watch {
    type Response = Frame;
    type ResponseStream = Events;
    type Future = BoxFuture<'static, Result<Response<Events>, Status>>;

    fn call(&mut self, request: Request<WatchRequest>) -> Self::Future {
        let relaying = self.0.clone();
        async move {
            let caller = service::caller(&request)?;
            relaying.watch(caller, request.into_inner()).await.map(Response::new)
        }
        .boxed()
    }
}

/// What is answered besides watches.
#[derive(Clone)]
struct Methods(Arc<Relaying>);

fn of_a_node<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("a relay is of no node, and has no {what}: ask the agent of the node")))
}

fn without_waiting(waits: bool) -> Result<(), Status> {
    match waits {
        true => Err(Status::failed_precondition(
            "a relay has no dataplane to wait for: ask without waiting, or ask the agent of a node",
        )),
        false => Ok(()),
    }
}

#[tonic::async_trait]
impl Control for Methods {
    type WatchStream = futures::stream::BoxStream<'static, Result<WatchEvent, Status>>;
    type ObserveFlowsStream = super::flows::Observed;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let (caller, request) = (service::caller(&request)?, request.into_inner());
        without_waiting(request.wait)?;
        let (applied, _) = self.0.cluster().apply(&caller, request).await?;
        Ok(Response::new(ApplyResponse { applied, adopted_generation: 0 }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let (caller, request) = (service::caller(&request)?, request.into_inner());
        without_waiting(request.wait)?;
        self.0.cluster().delete(&caller, request).await?;
        Ok(Response::new(DeleteResponse { adopted_generation: 0 }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (caller, request) = (service::caller(&request)?, request.into_inner());
        caller.may_read(Some(failure::kind(&request.kind)?), &request.namespace).map_err(failure::refused)?;
        self.0.cluster().get(request).await.map(Response::new)
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::internal("watches are answered before they come here"))
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<AgentStatus>, Status> {
        service::whole(&request)?;
        Ok(Response::new(self.0.status()))
    }

    async fn assign_addresses(
        &self,
        request: Request<AssignAddressesRequest>,
    ) -> Result<Response<AssignAddressesResponse>, Status> {
        let what =
            |request: &AssignAddressesRequest| format!("handle {} on node {}", request.handle, request.node);
        let verb = ("assign addresses", "have addresses given");
        service::operate(&self.0.audit, request, verb, what, async |request| {
            self.0.cluster().assign_addresses(request).await
        })
        .await
    }

    async fn list_addresses(
        &self,
        request: Request<ListAddressesRequest>,
    ) -> Result<Response<ListAddressesResponse>, Status> {
        service::whole(&request)?;
        self.0.cluster().list_addresses(request.into_inner()).await.map(Response::new)
    }

    async fn split_pool(
        &self,
        request: Request<SplitPoolRequest>,
    ) -> Result<Response<SplitPoolResponse>, Status> {
        let what = |request: &SplitPoolRequest| format!("IPPool {} in {}", request.pool, request.parts);
        service::operate(&self.0.audit, request, ("split pool", "split pools"), what, async |request| {
            self.0.cluster().split_pool(request).await
        })
        .await
    }

    async fn release_addresses(
        &self,
        request: Request<ReleaseAddressesRequest>,
    ) -> Result<Response<ReleaseAddressesResponse>, Status> {
        let what = |request: &ReleaseAddressesRequest| {
            format!("handle {:?}, {} addresses", request.handle, request.addresses.len())
        };
        let verb = ("release addresses", "take addresses back");
        service::operate(&self.0.audit, request, verb, what, async |request| {
            self.0.cluster().release_addresses(request).await
        })
        .await
    }

    async fn list_lost(
        &self,
        request: Request<ListLostRequest>,
    ) -> Result<Response<ListLostResponse>, Status> {
        service::whole(&request)?;
        Ok(Response::new(self.0.cluster().list_lost()))
    }

    async fn confirm_lost(
        &self,
        request: Request<ConfirmLostRequest>,
    ) -> Result<Response<ConfirmLostResponse>, Status> {
        let what = |request: &ConfirmLostRequest| format!("{} objects", request.objects.len());
        let verb = ("confirm lost", "confirm what is lost");
        service::operate(&self.0.audit, request, verb, what, async |request| {
            self.0.cluster().confirm_lost(request)
        })
        .await
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        of_a_node("dataplane")
    }

    async fn cni_add(&self, _: Request<CniAddRequest>) -> Result<Response<CniAddResponse>, Status> {
        of_a_node("containers")
    }

    async fn cni_del(&self, _: Request<CniDelRequest>) -> Result<Response<CniDelResponse>, Status> {
        of_a_node("containers")
    }

    async fn cni_check(&self, _: Request<CniCheckRequest>) -> Result<Response<CniCheckResponse>, Status> {
        of_a_node("containers")
    }

    async fn cni_gc(&self, _: Request<CniGcRequest>) -> Result<Response<CniGcResponse>, Status> {
        of_a_node("containers")
    }

    async fn cni_status(&self, _: Request<CniStatusRequest>) -> Result<Response<CniStatusResponse>, Status> {
        of_a_node("containers")
    }

    async fn observe_flows(
        &self,
        _: Request<ObserveFlowsRequest>,
    ) -> Result<Response<Self::ObserveFlowsStream>, Status> {
        of_a_node("flows")
    }

    async fn summarize_flows(
        &self,
        _: Request<SummarizeFlowsRequest>,
    ) -> Result<Response<SummarizeFlowsResponse>, Status> {
        of_a_node("flows")
    }

    async fn get_config(&self, _: Request<GetConfigRequest>) -> Result<Response<GetConfigResponse>, Status> {
        of_a_node("settings")
    }

    async fn set_log(&self, request: Request<SetLogRequest>) -> Result<Response<SetLogResponse>, Status> {
        let what = |request: &SetLogRequest| format!("{:?}", request.filter);
        let verb = ("set log", "change what is logged");
        service::operate(&self.0.audit, request, verb, what, async |request| match request.process() {
            Process::Agent => log::set(&self.0.log, &request.filter),
            Process::Dataplane => of_a_node("dataplane"),
            Process::Unspecified => Err(log::no_process()),
        })
        .await
    }

    async fn get_bgp(&self, _: Request<GetBgpRequest>) -> Result<Response<Bgp>, Status> {
        of_a_node("BGP")
    }
}
