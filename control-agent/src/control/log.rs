//! What the node's processes log.

use super::Agent;
use margay_api::{
    control::v1::{SetLogRequest, SetLogResponse, set_log_request::Process},
    dataplane::v1::SetLogRequest as Told,
    log::Log,
};
use tonic::Status;

impl Agent {
    pub(super) async fn set_log(&self, request: SetLogRequest) -> Result<SetLogResponse, Status> {
        match request.process() {
            Process::Agent => set(&self.log, &request.filter),
            Process::Dataplane => {
                let told = Told { filter: request.filter };
                let filter =
                    self.ask_dataplane(async |dataplane| dataplane.set_log(told).await).await?.filter;
                Ok(SetLogResponse { filter })
            }
            Process::Unspecified => Err(no_process()),
        }
    }
}

/// Of this process.
pub(super) fn set(log: &Log, filter: &str) -> Result<SetLogResponse, Status> {
    let set = log.set(filter);
    set.map(|filter| SetLogResponse { filter })
        .map_err(|why| Status::invalid_argument(format!("filter: {why}")))
}

pub(super) fn no_process() -> Status {
    Status::invalid_argument("process: it is missing: write AGENT or DATAPLANE")
}
