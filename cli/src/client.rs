//! Talking to the agent and to the dataplane: connections, and how long to wait for an answer.

use std::{error::Error, path::Path, time::Duration};

use margay_api::unix;
use margay_api::{
    control::v1::control_client::ControlClient, dataplane::v1::dataplane_client::DataplaneClient,
};
use tokio::time::timeout;
use tonic::{Status, transport::Channel};

use crate::{
    args::Global,
    exit::{Code, Failure, Outcome},
};

/// The longest answer we take: some 100,000 objects.
const MAX_ANSWER: usize = 256 << 20;

/// Connects to the agent.
pub async fn agent(global: &Global) -> Outcome<ControlClient<Channel>> {
    let channel = open("agent", "--agent", "MARGAY_AGENT", &global.agent, global.timeout).await?;
    Ok(ControlClient::new(channel).max_decoding_message_size(MAX_ANSWER))
}

/// Connects to the dataplane.
pub async fn dataplane(global: &Global) -> Outcome<DataplaneClient<Channel>> {
    let channel =
        open("dataplane", "--dataplane", "MARGAY_DATAPLANE", &global.dataplane, global.timeout).await?;
    Ok(DataplaneClient::new(channel).max_decoding_message_size(MAX_ANSWER))
}

/// Waits for an answer no longer than `limit`; `attempt` says what for ("read the status").
pub async fn answer<T>(
    limit: Duration,
    attempt: &str,
    call: impl Future<Output = Result<T, Status>>,
) -> Outcome<T> {
    match timeout(limit, call).await {
        Ok(answer) => answer.map_err(|status| Failure::rpc(attempt, &status)),
        Err(_) => Err(late(attempt, limit)),
    }
}

fn late(attempt: &str, limit: Duration) -> Failure {
    Failure::new(
        Code::Unreachable,
        format!("cannot {attempt}"),
        format!("there was no answer within {limit:?}"),
        "see what is slow with `margayctl status`, or give it longer with --timeout",
    )
}

async fn open(who: &str, flag: &str, variable: &str, socket: &Path, limit: Duration) -> Outcome<Channel> {
    let attempt = format!("reach the {who} at {}", socket.display());
    match timeout(limit, unix::connect(socket)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(Failure::new(
            Code::Unreachable,
            format!("cannot {attempt}"),
            root_cause(&error),
            format!("start margay-{who}, or name its socket with {flag} or {variable}"),
        )),
        Err(_) => Err(late(&attempt, limit)),
    }
}

/// A transport error says "transport error"; what it wraps says what happened.
fn root_cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
