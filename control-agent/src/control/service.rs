//! The service's methods, each of which is a module of its own.

use super::{Agent, REQUEST_BYTES};
use futures::stream::BoxStream;
use margay_api::control::v1::{
    ApplyRequest, ApplyResponse, AssignAddressesRequest, AssignAddressesResponse, DeleteRequest,
    DeleteResponse, ExplainRequest, ExplainResponse, GetRequest, GetResponse, GetStatusRequest,
    ReleaseAddressesRequest, ReleaseAddressesResponse, Status as AgentStatus, WatchEvent, WatchRequest,
    control_server::{Control, ControlServer},
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service, for a server and for its health.
pub(super) type Service = ControlServer<Methods>;

pub(super) struct Methods {
    agent: Arc<Agent>,
}

pub(super) fn server(agent: Arc<Agent>) -> Service {
    ControlServer::new(Methods { agent }).max_decoding_message_size(REQUEST_BYTES)
}

#[tonic::async_trait]
impl Control for Methods {
    type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        self.agent.apply(request.into_inner()).await.map(Response::new)
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        self.agent.delete(request.into_inner()).await.map(Response::new)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.agent.get(request.into_inner()).await.map(Response::new)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.agent.watch(request.into_inner()).await.map(Response::new)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<AgentStatus>, Status> {
        Ok(Response::new(self.agent.status().await))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        self.agent.explain(request.into_inner()).await.map(Response::new)
    }

    async fn assign_addresses(
        &self,
        request: Request<AssignAddressesRequest>,
    ) -> Result<Response<AssignAddressesResponse>, Status> {
        self.agent.assign_addresses(request.into_inner()).await.map(Response::new)
    }

    async fn release_addresses(
        &self,
        request: Request<ReleaseAddressesRequest>,
    ) -> Result<Response<ReleaseAddressesResponse>, Status> {
        self.agent.release_addresses(request.into_inner()).await.map(Response::new)
    }
}
