//! What the node's processes log.

use super::Agent;
use margay_api::{
    control::v1::{SetLogRequest, SetLogResponse, set_log_request::Process},
    dataplane::v1::SetLogRequest as Told,
};
use tonic::Status;

impl Agent {
    pub(super) async fn set_log(&self, request: SetLogRequest) -> Result<SetLogResponse, Status> {
        let filter = match request.process() {
            Process::Agent => self
                .log
                .set(&request.filter)
                .map_err(|why| Status::invalid_argument(format!("filter: {why}")))?,
            Process::Dataplane => {
                let told = Told { filter: request.filter };
                self.ask_dataplane(async |dataplane| dataplane.set_log(told).await).await?.filter
            }
            Process::Unspecified => {
                return Err(Status::invalid_argument("process: it is missing: write AGENT or DATAPLANE"));
            }
        };
        Ok(SetLogResponse { filter })
    }
}
