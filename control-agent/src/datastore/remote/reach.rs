//! How another agent, or a relay, is reached.

use margay_api::control::v1::control_client::ControlClient;
use std::{fs, path::PathBuf, time::Duration};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a silent relay is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes of one event: more than the largest object that etcd takes.
const MESSAGE: usize = 32 << 20;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub enum Reach {
    /// Another agent of this machine, by its socket.
    Agent(PathBuf),
    /// Relays, each of which will do.
    Relays(Relays),
}

/// Relays of the cluster.
#[derive(Clone, Debug)]
pub struct Relays {
    /// `https://HOST:PORT`, or the socket of a relay of this machine.
    pub addresses: Vec<String>,
    /// For `https`.
    pub files: Option<TlsFiles>,
    /// The node whose needs are to be told; none: everything is.
    pub node: Option<String>,
}

/// What this end shows, and whom it believes (PEM). Read anew for each connection.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// This end's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Those who may have signed the relay's.
    pub ca: PathBuf,
}

impl Reach {
    /// For people.
    pub fn name(&self) -> String {
        match self {
            Self::Agent(socket) => socket.display().to_string(),
            Self::Relays(relays) => format!("relay {}", relays.addresses.join(" or ")),
        }
    }

    /// The node whose needs alone are told.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Agent(_) => None,
            Self::Relays(relays) => relays.node.as_deref(),
        }
    }

    /// A client of the `attempt`th of them; that of an agent connects when it is asked something.
    pub async fn client(&self, attempt: usize) -> Result<ControlClient<Channel>, String> {
        let channel = match self {
            Self::Agent(socket) => margay_api::unix::connect_lazy(socket),
            Self::Relays(relays) => {
                let count = relays.addresses.len().max(1);
                let address = relays.addresses.get(attempt % count).ok_or("there is no address")?;
                relays.connect(address).await.map_err(|why| format!("{address}: {why}"))?
            }
        };
        Ok(ControlClient::new(channel).max_decoding_message_size(MESSAGE))
    }
}

impl Relays {
    async fn connect(&self, address: &str) -> Result<Channel, String> {
        if address.starts_with('/') {
            return margay_api::unix::connect(address.as_ref()).await.map_err(|error| innermost(&error));
        }
        let files = self.files.as_ref().ok_or("a certificate, its key and an authority are needed")?;
        let read = |path: &PathBuf| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let tls = ClientTlsConfig::new()
            .identity(Identity::from_pem(read(&files.certificate)?, read(&files.key)?))
            .ca_certificate(Certificate::from_pem(read(&files.ca)?));
        let endpoint =
            Endpoint::from_shared(address.to_owned()).and_then(|endpoint| endpoint.tls_config(tls));
        let endpoint = endpoint.map_err(|error| innermost(&error))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        endpoint.connect().await.map_err(|error| innermost(&error))
    }
}

/// A transport error says "transport error"; what it wraps says what happened.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
