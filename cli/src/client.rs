//! Talking to the agent and to the dataplane: connections, and how long to wait for an answer.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use margay_api::unix;
use margay_api::{
    control::v1::control_client::ControlClient, dataplane::v1::dataplane_client::DataplaneClient,
};
use tokio::time::timeout;
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    args::Global,
    exit::{Code, Failure, Outcome},
};

/// The longest answer we take: some 100,000 objects.
const MAX_ANSWER: usize = 256 << 20;

/// Connects to the agent.
pub async fn agent(global: &Global) -> Outcome<ControlClient<Channel>> {
    let channel = match &global.server {
        Some(server) => over_tls(server, global).await?,
        None => open("agent", "--agent", "MARGAY_AGENT", &global.agent, global.timeout).await?,
    };
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

async fn over_tls(server: &str, global: &Global) -> Outcome<Channel> {
    let attempt = format!("reach the agent at {server}");
    let wrong =
        |cause: String, next: &str| Failure::new(Code::Usage, format!("cannot {attempt}"), cause, next);
    if !server.starts_with("https://") {
        return Err(wrong(format!("{server:?} is no address of HTTPS"), "write --server https://HOST:PORT"));
    }
    let read = |flag: &str, path: &Option<PathBuf>| {
        let path = path.as_ref().ok_or_else(|| {
            wrong(format!("--{flag} is missing"), "with --server give --cert, --key and --ca too")
        })?;
        fs::read(path).map_err(|error| {
            wrong(
                format!("{} cannot be read: {error}", path.display()),
                "name a file in PEM that you may read",
            )
        })
    };
    let identity = Identity::from_pem(read("cert", &global.cert)?, read("key", &global.key)?);
    let tls = ClientTlsConfig::new().identity(identity);
    let tls = tls.ca_certificate(Certificate::from_pem(read("ca", &global.ca)?));
    let endpoint = Endpoint::from_shared(server.to_owned()).and_then(|endpoint| endpoint.tls_config(tls));
    let endpoint = endpoint.map_err(|error| {
        wrong(
            root_cause(&error),
            "check the address, and that the files are a certificate and its key in PEM",
        )
    })?;
    match timeout(global.timeout, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(Failure::new(
            Code::Unreachable,
            format!("cannot {attempt}"),
            root_cause(&error),
            "start margay-agent there with --listen-tcp, and check that each side's certificate is signed by whom the other trusts",
        )),
        Err(_) => Err(late(&attempt, global.timeout)),
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
