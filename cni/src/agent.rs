//! The agent, as far as a plugin needs it.

use crate::error::{Code, Error};
use margay_api::control::v1::{
    CniAddRequest, CniAddResponse, CniAssign, CniAttachment, CniCheckRequest, CniDelRequest, CniGcRequest,
    CniStatusRequest, CniStatusResponse, cni_status_response::State, control_client::ControlClient,
};
use std::{path::Path, time::Duration};
use tokio::time::timeout;
use tonic::{Status, transport::Channel};

/// How long an answer may take that waits for nothing but the agent.
const ANSWER: Duration = Duration::from_secs(10);

/// More than the agent itself takes to give up on an ADD.
const MARGIN: Duration = Duration::from_secs(15);

/// A connection to the agent.
pub struct Agent(ControlClient<Channel>);

/// Why the agent did not do it.
#[derive(Debug)]
pub enum AgentError {
    /// It does not answer; this is where, and why.
    Away(String),
    /// It answers, and this is what it says.
    Said(Error),
}

impl From<Error> for AgentError {
    fn from(error: Error) -> Self {
        Self::Said(error)
    }
}

impl From<AgentError> for Error {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Away(why) => Self::new(Code::TryAgain, why),
            AgentError::Said(error) => error,
        }
    }
}

impl Agent {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(socket: &Path) -> Result<Self, AgentError> {
        let away = |why: String| {
            AgentError::Away(format!("the agent does not answer on {}: {why}", socket.display()))
        };
        match timeout(ANSWER, margay_api::unix::connect(socket)).await {
            Ok(Ok(channel)) => Ok(Self(ControlClient::new(channel))),
            Ok(Err(error)) => Err(away(cause(&error))),
            Err(_) => Err(away(format!("nothing within {} s", ANSWER.as_secs()))),
        }
    }

    /// Whether containers can be added.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&mut self, assign: Option<CniAssign>) -> Result<CniStatusResponse, AgentError> {
        answer(ANSWER, self.0.cni_status(CniStatusRequest { assign })).await
    }

    /// As [`status`](Self::status), and anything but yes is an error.
    ///
    /// # Errors
    /// Containers cannot be added.
    pub async fn ready(&mut self, assign: Option<CniAssign>) -> Result<CniStatusResponse, AgentError> {
        let status = self.status(assign).await?;
        let code = match status.state() {
            State::Ready => return Ok(status),
            State::NotReady => Code::NotReady,
            State::Down => Code::Down,
        };
        Err(AgentError::Said(Error::new(code, status.reason)))
    }

    /// Makes a link an endpoint.
    ///
    /// # Errors
    /// It refuses, or policy is not in force in time.
    pub async fn add(&mut self, request: CniAddRequest) -> Result<CniAddResponse, AgentError> {
        let limit = MARGIN + Duration::from_secs(request.timeout_seconds.into());
        answer(limit, self.0.cni_add(request)).await
    }

    /// Forgets an endpoint.
    ///
    /// # Errors
    /// It does not answer, or its store does not.
    pub async fn del(&mut self, attachment: CniAttachment) -> Result<(), AgentError> {
        answer(ANSWER, self.0.cni_del(CniDelRequest { attachment: Some(attachment) })).await.map(drop)
    }

    /// Looks at an endpoint.
    ///
    /// # Errors
    /// It is not as it should be.
    pub async fn check(
        &mut self,
        attachment: CniAttachment,
        addresses: Vec<String>,
    ) -> Result<(), AgentError> {
        let request = CniCheckRequest { attachment: Some(attachment), addresses };
        answer(ANSWER, self.0.cni_check(request)).await.map(drop).map_err(|error| match error {
            AgentError::Said(error) if error.code == Code::Refused => {
                AgentError::Said(Error { code: Code::Broken, ..error })
            }
            other => other,
        })
    }

    /// Forgets what is not valid.
    ///
    /// # Errors
    /// It does not answer, or its store does not.
    pub async fn gc(&mut self, network: String, valid: Vec<CniAttachment>) -> Result<(), AgentError> {
        answer(ANSWER, self.0.cni_gc(CniGcRequest { network, valid })).await.map(drop)
    }
}

async fn answer<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, AgentError> {
    match timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refusal(&status)),
        Err(_) => Err(AgentError::Away(format!("the agent has not answered within {} s", limit.as_secs()))),
    }
}

fn refusal(status: &Status) -> AgentError {
    let message = status.message();
    let code = match status.code() {
        tonic::Code::InvalidArgument => Code::Config,
        tonic::Code::Unimplemented => Code::Unsupported,
        tonic::Code::NotFound | tonic::Code::FailedPrecondition => Code::Refused,
        // Its own store may be away: as good as it being away itself.
        tonic::Code::Unavailable | tonic::Code::Cancelled => return AgentError::Away(message.to_owned()),
        _ => Code::TryAgain,
    };
    AgentError::Said(Error::new(code, message))
}

/// What is at the bottom of it.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(deeper) = error.source() {
        error = deeper;
    }
    error.to_string()
}
