//! The service's methods, each of which is a module of its own.

use super::{Agent, REQUEST_BYTES, failure, flows};
use futures::stream::BoxStream;
use margay_api::control::v1::{
    ApplyRequest, ApplyResponse, AssignAddressesRequest, AssignAddressesResponse, Bgp, CniAddRequest,
    CniAddResponse, CniCheckRequest, CniCheckResponse, CniDelRequest, CniDelResponse, CniGcRequest,
    CniGcResponse, CniStatusRequest, CniStatusResponse, DeleteRequest, DeleteResponse, ExplainRequest,
    ExplainResponse, GetBgpRequest, GetRequest, GetResponse, GetStatusRequest, ListAddressesRequest,
    ListAddressesResponse, ObserveFlowsRequest, ReleaseAddressesRequest, ReleaseAddressesResponse,
    SplitPoolRequest, SplitPoolResponse, Status as AgentStatus, SummarizeFlowsRequest,
    SummarizeFlowsResponse, WatchEvent, WatchRequest,
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
    type ObserveFlowsStream = flows::Observed;

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

    async fn list_addresses(
        &self,
        request: Request<ListAddressesRequest>,
    ) -> Result<Response<ListAddressesResponse>, Status> {
        self.agent.list_addresses(request.into_inner()).await.map(Response::new)
    }

    async fn split_pool(
        &self,
        request: Request<SplitPoolRequest>,
    ) -> Result<Response<SplitPoolResponse>, Status> {
        self.agent.split_pool(request.into_inner()).await.map(Response::new)
    }

    async fn release_addresses(
        &self,
        request: Request<ReleaseAddressesRequest>,
    ) -> Result<Response<ReleaseAddressesResponse>, Status> {
        self.agent.release_addresses(request.into_inner()).await.map(Response::new)
    }

    async fn cni_add(&self, request: Request<CniAddRequest>) -> Result<Response<CniAddResponse>, Status> {
        let added = self.agent.attachments().add(request.into_inner()).await;
        added.map(Response::new).map_err(failure::cni)
    }

    async fn cni_del(&self, request: Request<CniDelRequest>) -> Result<Response<CniDelResponse>, Status> {
        let gone = self.agent.attachments().del(request.into_inner()).await;
        gone.map(|()| Response::new(CniDelResponse {})).map_err(failure::cni)
    }

    async fn cni_check(
        &self,
        request: Request<CniCheckRequest>,
    ) -> Result<Response<CniCheckResponse>, Status> {
        let sound = self.agent.attachments().check(request.into_inner()).await;
        sound.map(|()| Response::new(CniCheckResponse {})).map_err(failure::cni)
    }

    async fn cni_gc(&self, request: Request<CniGcRequest>) -> Result<Response<CniGcResponse>, Status> {
        self.agent.attachments().gc(request.into_inner()).await.map(Response::new).map_err(failure::cni)
    }

    async fn cni_status(
        &self,
        request: Request<CniStatusRequest>,
    ) -> Result<Response<CniStatusResponse>, Status> {
        Ok(Response::new(self.agent.attachments().status(request.into_inner()).await))
    }

    async fn observe_flows(
        &self,
        request: Request<ObserveFlowsRequest>,
    ) -> Result<Response<flows::Observed>, Status> {
        self.agent.observe_flows(request.into_inner()).map(Response::new)
    }

    async fn summarize_flows(
        &self,
        request: Request<SummarizeFlowsRequest>,
    ) -> Result<Response<SummarizeFlowsResponse>, Status> {
        self.agent.summarize_flows(request.get_ref()).map(Response::new)
    }

    async fn get_bgp(&self, _: Request<GetBgpRequest>) -> Result<Response<Bgp>, Status> {
        Ok(Response::new(self.agent.bgp().await))
    }
}
