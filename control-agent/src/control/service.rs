//! The service's methods, each of which is a module of its own.

use super::{Agent, REQUEST_BYTES, failure, flows};
use crate::access::{Audit, Caller};
use futures::stream::BoxStream;
use margay_api::control::v1::{
    ApplyRequest, ApplyResponse, AssignAddressesRequest, AssignAddressesResponse, Bgp, CniAddRequest,
    CniAddResponse, CniAttachment, CniCheckRequest, CniCheckResponse, CniDelRequest, CniDelResponse,
    CniGcRequest, CniGcResponse, CniStatusRequest, CniStatusResponse, ConfirmLostRequest,
    ConfirmLostResponse, DeleteRequest, DeleteResponse, ExplainRequest, ExplainResponse, GetBgpRequest,
    GetConfigRequest, GetConfigResponse, GetRequest, GetResponse, GetStatusRequest, ListAddressesRequest,
    ListAddressesResponse, ListLostRequest, ListLostResponse, ObserveFlowsRequest, ReleaseAddressesRequest,
    ReleaseAddressesResponse, SetLogRequest, SetLogResponse, SplitPoolRequest, SplitPoolResponse,
    Status as AgentStatus, SummarizeFlowsRequest, SummarizeFlowsResponse, WatchEvent, WatchRequest,
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

impl Methods {
    async fn operate<T, R>(
        &self,
        request: Request<T>,
        verb: (&str, &str),
        what: impl FnOnce(&T) -> String,
        call: impl AsyncFnOnce(T) -> Result<R, Status>,
    ) -> Result<Response<R>, Status> {
        operate(&self.agent.audit, request, verb, what, call).await
    }
}

/// Does what only some may, and notes it down: the verb, and as in "may not ...".
pub(super) async fn operate<T, R>(
    audit: &Audit,
    request: Request<T>,
    (verb, may): (&str, &str),
    what: impl FnOnce(&T) -> String,
    call: impl AsyncFnOnce(T) -> Result<R, Status>,
) -> Result<Response<R>, Status> {
    let (caller, request) = (caller(&request)?, request.into_inner());
    let what = what(&request);
    let done = match caller.may_operate(may).map_err(failure::refused) {
        Ok(()) => call(request).await,
        Err(refused) => Err(refused),
    };
    audit.note(&caller, verb, &what, done.as_ref().map(|_| &[][..]));
    done.map(Response::new)
}

/// Who asks. Every door says so.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::unauthenticated("nobody knows who asks"))
}

/// The caller is confined to no namespaces.
pub(super) fn whole<T>(request: &Request<T>) -> Result<(), Status> {
    caller(request)?.may_read(None, "").map_err(failure::refused)
}

fn attachment(of: Option<&CniAttachment>) -> String {
    of.map_or_else(String::new, |of| format!("{}/{}/{}", of.network, of.container_id, of.interface))
}

#[tonic::async_trait]
impl Control for Methods {
    type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;
    type ObserveFlowsStream = flows::Observed;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = caller(&request)?;
        self.agent.apply(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let caller = caller(&request)?;
        self.agent.delete(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        caller.may_read(Some(failure::kind(&request.kind)?), &request.namespace).map_err(failure::refused)?;
        self.agent.cluster().get(request).await.map(Response::new)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let kind = if request.kind.is_empty() { None } else { Some(failure::kind(&request.kind)?) };
        caller.may_read(kind, &request.namespace).map_err(failure::refused)?;
        self.agent.cluster().watch(request).await.map(Response::new)
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<AgentStatus>, Status> {
        whole(&request)?;
        Ok(Response::new(self.agent.status().await))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        whole(&request)?;
        self.agent.explain(request.into_inner()).await.map(Response::new)
    }

    async fn assign_addresses(
        &self,
        request: Request<AssignAddressesRequest>,
    ) -> Result<Response<AssignAddressesResponse>, Status> {
        let what = |request: &_| {
            let AssignAddressesRequest { handle, node, .. } = request;
            format!("handle {handle} on node {node}")
        };
        self.operate(request, ("assign addresses", "have addresses given"), what, async |request| {
            self.agent.cluster().assign_addresses(request).await
        })
        .await
    }

    async fn list_addresses(
        &self,
        request: Request<ListAddressesRequest>,
    ) -> Result<Response<ListAddressesResponse>, Status> {
        whole(&request)?;
        self.agent.cluster().list_addresses(request.into_inner()).await.map(Response::new)
    }

    async fn split_pool(
        &self,
        request: Request<SplitPoolRequest>,
    ) -> Result<Response<SplitPoolResponse>, Status> {
        let what = |request: &_| {
            let SplitPoolRequest { pool, parts } = request;
            format!("IPPool {pool} in {parts}")
        };
        self.operate(request, ("split pool", "split pools"), what, async |request| {
            self.agent.cluster().split_pool(request).await
        })
        .await
    }

    async fn release_addresses(
        &self,
        request: Request<ReleaseAddressesRequest>,
    ) -> Result<Response<ReleaseAddressesResponse>, Status> {
        let what = |request: &_| {
            let ReleaseAddressesRequest { handle, addresses, .. } = request;
            let addresses: Vec<&str> = addresses.iter().map(|address| address.address.as_str()).collect();
            format!("handle {handle:?}, addresses {}", addresses.join(" "))
        };
        self.operate(request, ("release addresses", "take addresses back"), what, async |request| {
            self.agent.cluster().release_addresses(request).await
        })
        .await
    }

    async fn cni_add(&self, request: Request<CniAddRequest>) -> Result<Response<CniAddResponse>, Status> {
        let what = |request: &CniAddRequest| attachment(request.attachment.as_ref());
        self.operate(request, ("attach", "attach containers"), what, async |request| {
            self.agent.attachments().add(request).await.map_err(failure::cni)
        })
        .await
    }

    async fn cni_del(&self, request: Request<CniDelRequest>) -> Result<Response<CniDelResponse>, Status> {
        let what = |request: &CniDelRequest| attachment(request.attachment.as_ref());
        self.operate(request, ("detach", "detach containers"), what, async |request| {
            let gone = self.agent.attachments().del(request).await;
            gone.map(|()| CniDelResponse {}).map_err(failure::cni)
        })
        .await
    }

    async fn cni_check(
        &self,
        request: Request<CniCheckRequest>,
    ) -> Result<Response<CniCheckResponse>, Status> {
        let sound = self.agent.attachments().check(request.into_inner()).await;
        sound.map(|()| Response::new(CniCheckResponse {})).map_err(failure::cni)
    }

    async fn cni_gc(&self, request: Request<CniGcRequest>) -> Result<Response<CniGcResponse>, Status> {
        let what = |request: &_| {
            let CniGcRequest { network, .. } = request;
            format!("network {network}")
        };
        self.operate(request, ("collect", "detach containers"), what, async |request| {
            self.agent.attachments().gc(request).await.map_err(failure::cni)
        })
        .await
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
        whole(&request)?;
        self.agent.observe_flows(request.into_inner()).map(Response::new)
    }

    async fn summarize_flows(
        &self,
        request: Request<SummarizeFlowsRequest>,
    ) -> Result<Response<SummarizeFlowsResponse>, Status> {
        whole(&request)?;
        self.agent.summarize_flows(request.get_ref()).map(Response::new)
    }

    async fn list_lost(
        &self,
        request: Request<ListLostRequest>,
    ) -> Result<Response<ListLostResponse>, Status> {
        whole(&request)?;
        Ok(Response::new(self.agent.cluster().list_lost()))
    }

    async fn confirm_lost(
        &self,
        request: Request<ConfirmLostRequest>,
    ) -> Result<Response<ConfirmLostResponse>, Status> {
        let what = |request: &_| {
            let ConfirmLostRequest { objects } = request;
            format!("{} objects", objects.len())
        };
        self.operate(request, ("confirm lost", "confirm what is lost"), what, async |request| {
            self.agent.cluster().confirm_lost(request)
        })
        .await
    }

    async fn get_config(
        &self,
        request: Request<GetConfigRequest>,
    ) -> Result<Response<GetConfigResponse>, Status> {
        whole(&request)?;
        self.agent.config().await.map(Response::new)
    }

    async fn set_log(&self, request: Request<SetLogRequest>) -> Result<Response<SetLogResponse>, Status> {
        let what = |request: &SetLogRequest| {
            format!("{} {:?}", request.process().as_str_name().to_lowercase(), request.filter)
        };
        self.operate(request, ("set log", "change what is logged"), what, async |request| {
            self.agent.set_log(request).await
        })
        .await
    }

    async fn get_bgp(&self, request: Request<GetBgpRequest>) -> Result<Response<Bgp>, Status> {
        whole(&request)?;
        Ok(Response::new(self.agent.bgp().await))
    }
}
