//! `margay-agent`: arguments, assembly, signals.

mod relaying;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use margay_agent::{
    access::{Audit, AuditError, Door, Files, Role},
    backoff::Backoff,
    calc::Calculation,
    control::{self, Agent},
    datastore::{
        Datastore, Embedded, Etcd, Fixed, Memory, Reach, Relays, Remote, Snapshot, TlsFiles, etcd, fixed,
    },
    flows::{FileSettings, Flows, LogFile},
    health_checks::HealthChecks,
    ipam::{Collection, Ipam},
    key_publication::KeyPublication,
    model::scalar::Timestamp,
    routing::{self, Bird},
    sync::Link,
    web::{self, Entrance},
};
use margay_api::{
    dataplane::v1::Setting,
    log::{Filter, Log},
    metrics, settings,
    unix::Socket,
};
use sd_notify::NotifyState;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};

/// How long calls that are being answered may take to end when the agent is asked to.
const GRACE: Duration = Duration::from_secs(3);

/// How often addresses that were lost are looked for.
const COLLECTION: Duration = Duration::from_secs(60);

/// With the commit, where hack/programs built it.
const VERSION: &str = match option_env!("MARGAY_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Watches the cluster's resources, works out what this node needs, and pushes it to the dataplane.
#[derive(Debug, Parser)]
#[command(name = "margay-agent", version = VERSION)]
#[command(
    after_help = "`margay-agent relay` follows the store for many agents: see `margay-agent relay --help`"
)]
struct Arguments {
    /// This node's name, as in the Node and WorkloadEndpoint objects [default: the host name]
    #[arg(long, env = "MARGAY_NODE", value_name = "NAME")]
    node: Option<String>,

    /// Where objects live: embedded:PATH, etcd:URL,URL.., relay:URL,URL.. (or a relay's socket), agent:SOCKET (of another
    /// agent), or memory
    #[arg(
        long,
        env = "MARGAY_STORE",
        value_name = "STORE",
        default_value = "embedded:/var/lib/margay/store.redb"
    )]
    store: Store,

    #[command(flatten)]
    etcd: EtcdArguments,

    #[command(flatten)]
    relay: RelayArguments,

    #[command(flatten)]
    past: PastArguments,

    /// Manifest of the other machines and their workloads, which then cannot be changed here
    #[arg(long, env = "MARGAY_PEERS", value_name = "FILE")]
    peers: Option<PathBuf>,

    /// Socket of this agent's API
    #[arg(long, env = "MARGAY_LISTEN", value_name = "SOCKET", default_value = "/run/margay/agent.sock")]
    listen: PathBuf,

    /// Socket of the dataplane, which need not be up yet
    #[arg(
        long,
        env = "MARGAY_DATAPLANE",
        value_name = "SOCKET",
        default_value = "/run/margay/dataplane.sock"
    )]
    dataplane: PathBuf,

    #[command(flatten)]
    access: AccessArguments,

    #[command(flatten)]
    bgp: BgpArguments,

    #[command(flatten)]
    flows: FlowArguments,

    /// Serve metrics for Prometheus over HTTP at this address, as in 127.0.0.1:9092 [default: nowhere]
    #[arg(long, env = "MARGAY_AGENT_METRICS", value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,

    /// What to log: off, error, warn, info, debug or trace, and of modules, as in info,margay_agent::sync=debug
    #[arg(long, env = "MARGAY_LOG", value_name = "LEVEL", default_value = "info")]
    log: Filter,
}

/// How etcd is reached, where it is the store.
#[derive(Debug, clap::Args)]
struct EtcdArguments {
    /// Before every key in etcd: clusters that share an etcd differ in it
    #[arg(long, env = "MARGAY_ETCD_PREFIX", value_name = "PREFIX", default_value = "/margay/v1")]
    etcd_prefix: String,

    /// Certificates of those who may have signed etcd's (PEM), for https
    #[arg(long, env = "ETCD_CA_CERT_FILE", value_name = "FILE")]
    etcd_ca: Option<PathBuf>,

    /// Certificate of ours, where etcd asks for one (PEM)
    #[arg(long, env = "ETCD_CERT_FILE", value_name = "FILE", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,

    /// The key of --etcd-cert (PEM)
    #[arg(long, env = "ETCD_KEY_FILE", value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,

    /// User, where etcd asks for one
    #[arg(long, env = "ETCD_USERNAME", value_name = "NAME", requires = "etcd_password_file")]
    etcd_user: Option<String>,

    /// A file that holds the password of --etcd-user
    #[arg(long, env = "ETCD_PASSWORD_FILE", value_name = "FILE", requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
}

/// How relays are reached, where they are the store.
#[derive(Debug, clap::Args)]
struct RelayArguments {
    /// Certificates of those who may have signed the relays' (PEM), for https
    #[arg(long, env = "MARGAY_RELAY_CA", value_name = "FILE", requires = "relay_cert")]
    relay_ca: Option<PathBuf>,

    /// Certificate of this node, of role node, for https (PEM); read anew for each connection, as are the other two
    #[arg(long, env = "MARGAY_RELAY_CERT", value_name = "FILE", requires = "relay_key")]
    relay_cert: Option<PathBuf>,

    /// The key of --relay-cert (PEM)
    #[arg(long, env = "MARGAY_RELAY_KEY", value_name = "FILE", requires = "relay_ca")]
    relay_key: Option<PathBuf>,

    /// Be told of all objects, not only of those that this node needs: records of flows then name everybody
    #[arg(long, env = "MARGAY_RELAY_ALL")]
    relay_all: bool,
}

impl RelayArguments {
    fn reach(self, addresses: &[String], node: &str) -> Result<Reach> {
        let files = match (self.relay_cert, self.relay_key, self.relay_ca) {
            (Some(certificate), Some(key), Some(ca)) => Some(TlsFiles { certificate, key, ca }),
            _ => None,
        };
        if let Some(address) = addresses.iter().find(|address| files.is_none() && !address.starts_with('/')) {
            bail!("--store relay:{address} needs --relay-cert, --relay-key and --relay-ca");
        }
        let node = (!self.relay_all).then(|| node.to_owned());
        Ok(Reach::Relays(Relays { addresses: addresses.to_owned(), files, node }))
    }
}

/// What is kept of flows.
#[derive(Debug, clap::Args)]
struct FlowArguments {
    /// Keep a record of flows, for margayctl flows: on or off
    #[arg(long, env = "MARGAY_FLOWS", value_name = "ON|OFF", default_value = "on", action = clap::ArgAction::Set, value_parser = on_or_off)]
    flows: bool,

    /// Also write it to this file, a line of JSON each
    #[arg(long, env = "MARGAY_FLOW_LOG", value_name = "FILE")]
    flow_log: Option<PathBuf>,

    /// MiB after which the file is moved aside, as FILE.1
    #[arg(long, env = "MARGAY_FLOW_LOG_SIZE", value_name = "MIB", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    flow_log_size: u32,

    /// How many files there are at most
    #[arg(long, env = "MARGAY_FLOW_LOG_FILES", value_name = "NUMBER", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=1000))]
    flow_log_files: u32,
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

impl FlowArguments {
    /// Opens the file, if there is to be one.
    fn file(&self) -> Result<Option<LogFile>> {
        let Some(path) = self.flow_log.clone() else { return Ok(None) };
        let name = path.display().to_string();
        let (bytes, files) = (u64::from(self.flow_log_size) << 20, self.flow_log_files);
        let file = LogFile::open(FileSettings { path, bytes, files });
        Ok(Some(file.with_context(|| format!("--flow-log {name} cannot be written"))?))
    }
}

/// What is known of a store elsewhere while it is away, and how much of it may go at once.
#[derive(Debug, clap::Args)]
struct PastArguments {
    /// A file of this agent's: what etcd, a relay or the other agent last held, to start with while that is away
    #[arg(
        long,
        env = "MARGAY_SNAPSHOT",
        value_name = "FILE",
        default_value = "/var/lib/margay/snapshot.redb"
    )]
    snapshot: PathBuf,

    /// Percent of all objects: where more are gone from etcd at once, as if it had been emptied, they stay in force until
    /// `margayctl datastore confirm`; 100: never
    #[arg(long, env = "MARGAY_LOSS_LIMIT", value_name = "PERCENT", default_value = "25")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    loss_limit: u8,
}

impl PastArguments {
    /// One that cannot be used is done without: it is for the worse case, and must not be one.
    fn snapshot(&self) -> Option<Snapshot> {
        let opened = Snapshot::open(&self.snapshot);
        opened
            .inspect_err(
                |error| tracing::warn!(%error, "A006 there is no snapshot to start with or to write"),
            )
            .ok()
    }
}

/// Who may talk to this agent, besides root on this machine.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("served").multiple(true))]
struct AccessArguments {
    /// What the group of --listen may: viewer, operator or admin
    #[arg(long, env = "MARGAY_GROUP_ROLE", value_name = "ROLE", default_value = "operator")]
    group_role: Role,

    /// Serve the API here too, as in 192.0.2.1:9093, to those whose certificates say who they are
    #[arg(long, env = "MARGAY_LISTEN_TCP", value_name = "ADDR:PORT", group = "served", requires_all = ["tls_cert", "tls_key", "tls_client_ca"])]
    listen_tcp: Option<SocketAddr>,

    /// Serve a page that shows this node here, as in 127.0.0.1:9094; at an address that is not of loopback, to those with
    /// certificates, as --listen-tcp [default: nowhere]
    #[arg(long, env = "MARGAY_WEB", value_name = "ADDR:PORT", group = "served")]
    web: Option<SocketAddr>,

    /// Certificate of this agent, for --listen-tcp and --web (PEM); read again when it changes, as are the other two
    #[arg(long, env = "MARGAY_TLS_CERT", value_name = "FILE", requires_all = ["served", "tls_key", "tls_client_ca"])]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert (PEM)
    #[arg(long, env = "MARGAY_TLS_KEY", value_name = "FILE", requires_all = ["served", "tls_cert", "tls_client_ca"])]
    tls_key: Option<PathBuf>,

    /// Certificates of those who sign callers' (PEM)
    #[arg(long, env = "MARGAY_TLS_CLIENT_CA", value_name = "FILE", requires_all = ["served", "tls_cert", "tls_key"])]
    tls_client_ca: Option<PathBuf>,

    /// Add a line of JSON to this file for each write, and for each that was refused [default: nowhere]
    #[arg(long, env = "MARGAY_AUDIT_LOG", value_name = "FILE")]
    audit_log: Option<PathBuf>,
}

impl AccessArguments {
    async fn door(&self, listener: UnixListener) -> Result<Door> {
        let door = Door::unix(listener, self.group_role);
        let (Some(at), Some(files)) = (self.listen_tcp, self.files()) else { return Ok(door) };
        let listener = TcpListener::bind(at).await.with_context(|| format!("--listen-tcp {at}"))?;
        Ok(door.and(Door::tls(listener, files)?))
    }

    async fn web(&self) -> Result<Option<Entrance>> {
        let Some(at) = self.web else { return Ok(None) };
        // On loopback they are --listen-tcp's, if that is given.
        let others = self.listen_tcp.is_some() && at.ip().to_canonical().is_loopback();
        let files = self.files().filter(|_| !others);
        Ok(Some(Entrance::open(at, files).await.with_context(|| format!("--web {at}"))?))
    }

    fn files(&self) -> Option<Files> {
        let (certificate, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        Some(Files { certificate, key, client_ca: self.tls_client_ca.clone()? })
    }

    fn audit(&self) -> Result<Audit, AuditError> {
        self.audit_log.as_deref().map_or_else(|| Ok(Audit::default()), Audit::to)
    }
}

/// Which BIRD speaks BGP for this node.
#[derive(Debug, clap::Args)]
struct BgpArguments {
    /// Configuration of BIRD 2, which is written here; without it nothing speaks BGP for this node
    #[arg(long, env = "MARGAY_BIRD_CONF", value_name = "FILE")]
    bird_conf: Option<PathBuf>,

    /// BIRD's control socket
    #[arg(long, env = "MARGAY_BIRD_SOCKET", value_name = "SOCKET", default_value = "/run/bird/bird.ctl")]
    bird_socket: PathBuf,

    /// The kernel's table that BGP's routes go to: none of the kernel's own (253 to 255)
    #[arg(long, env = "MARGAY_BGP_TABLE", value_name = "NUMBER", default_value = "179", value_parser = table)]
    bgp_table: u32,
}

fn table(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number @ (1..=252 | 256..)) => Ok(number),
        _ => Err("write the number of a table from 1 on, other than 253 to 255".to_owned()),
    }
}

impl BgpArguments {
    fn settings(self) -> Option<routing::Settings> {
        let (socket, table) = (self.bird_socket, self.bgp_table);
        self.bird_conf.map(|configuration| routing::Settings { configuration, socket, table })
    }
}

#[derive(Clone, Debug)]
enum Store {
    Embedded(PathBuf),
    Etcd(Vec<String>),
    Relays(Vec<String>),
    Agent(PathBuf),
    Memory,
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("embedded", path)) if !path.is_empty() => Ok(Self::Embedded(path.into())),
            Some(("etcd", urls)) => {
                let urls: Vec<_> = urls.split(',').map(|url| url.trim_end_matches('/').to_owned()).collect();
                let web = |url: &String| url.starts_with("http://") || url.starts_with("https://");
                match urls.iter().find(|url| !web(url)) {
                    Some(url) => Err(format!("{url:?} is not a URL: write etcd:http://HOST:2379, or https")),
                    None => Ok(Self::Etcd(urls)),
                }
            }
            Some(("relay", addresses)) if !addresses.is_empty() => {
                let addresses: Vec<_> =
                    addresses.split(',').map(|at| at.trim_end_matches('/').to_owned()).collect();
                let known = |at: &String| at.starts_with("https://") || at.starts_with('/');
                match addresses.iter().find(|at| !known(at)) {
                    Some(at) => {
                        Err(format!("{at:?} is no relay: write relay:https://HOST:9093, or relay:SOCKET"))
                    }
                    None => Ok(Self::Relays(addresses)),
                }
            }
            Some(("agent", socket)) if !socket.is_empty() => Ok(Self::Agent(socket.into())),
            _ => Err(format!(
                "{text:?} is not a store: write embedded:PATH, etcd:URL, relay:URL, agent:SOCKET or memory"
            )),
        }
    }
}

impl EtcdArguments {
    fn settings(self, endpoints: &[String]) -> etcd::Settings {
        etcd::Settings {
            endpoints: endpoints.to_owned(),
            prefix: self.etcd_prefix,
            tls: etcd::Tls { ca: self.etcd_ca, identity: self.etcd_cert.zip(self.etcd_key) },
            user: self
                .etcd_user
                .zip(self.etcd_password_file)
                .map(|(name, password)| etcd::User { name, password }),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match relaying::asked() {
        Some(typed) => relaying::run(settings::parse_from(typed, "MARGAY_RELAY_CONFIG").0).await,
        None => {
            let (arguments, settings) = settings::parse("MARGAY_AGENT_CONFIG");
            run(arguments, settings).await
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments, settings: Vec<Setting>) -> Result<()> {
    let log = Log::start(arguments.log);
    // Caught from the start: a signal during the start ends it cleanly, too.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let node = node(arguments.node)?;
    let reach = match &arguments.store {
        Store::Relays(addresses) => Some(arguments.relay.reach(addresses, &node)?),
        Store::Agent(socket) => Some(Reach::Agent(socket.clone())),
        _ => None,
    };
    let store = store(&arguments.store, arguments.etcd, reach, &arguments.past)?;
    let store = with_peers(store, arguments.peers.as_deref())?;
    let audit = arguments.access.audit()?;
    let (socket, listener) = Socket::bind(&arguments.listen).await?;
    let door = arguments.access.door(listener).await?;
    let entrance = arguments.access.web().await?;
    let calculation = Calculation::start(store.clone(), &node, Backoff::LOCAL);
    let link = Link::start(&arguments.dataplane, calculation.latest(), Backoff::LOCAL);
    let (stop, stopping) = watch::channel(false);
    let health_checks = HealthChecks::start(calculation.latest(), link.progress(), Backoff::LOCAL);
    let key_publication = KeyPublication::start(
        &node,
        store.clone(),
        link.client(),
        calculation.latest(),
        link.progress(),
        Backoff::LOCAL,
    );
    let ipam = Arc::new(Ipam::new(store.clone(), Arc::new(|| Timestamp::from(SystemTime::now()))));
    let _collection = Collection::start(ipam.clone(), &node, COLLECTION);
    let flows = match arguments.flows.flows {
        true => {
            let file = arguments.flows.file()?;
            Some(Arc::new(Flows::start(link.client(), calculation.names(), file, Backoff::LOCAL)))
        }
        false => None,
    };
    let bird = arguments.bgp.settings();
    let bird = bird.map(|settings| Bird::start(settings, calculation.latest(), Backoff::LOCAL));
    let started = Instant::now();
    let agent = Agent {
        node,
        store,
        ipam,
        calculation,
        link,
        health_checks,
        flows,
        key_publication,
        bird,
        audit,
        settings,
        log,
        started,
        stopping,
    };
    tracing::info!(
        version = VERSION,
        node = agent.node,
        listen = %arguments.listen.display(),
        dataplane = %arguments.dataplane.display(),
        "started"
    );

    let agent = Arc::new(agent);
    let scraped = match arguments.metrics {
        Some(at) => {
            let serving = metrics::serve(at, control::Scraped(agent.clone())).await;
            Some(tokio::spawn(serving.with_context(|| format!("--metrics {at}"))?))
        }
        None => None,
    };
    let shown = entrance.map(|entrance| {
        tracing::info!(at = %entrance.address(), "the page is served");
        tokio::spawn(web::serve(agent.clone(), entrance))
    });
    let mut server = tokio::spawn(control::serve(agent, door));
    tell(NotifyState::Ready);
    tokio::spawn(feed_watchdog());
    let signal = tokio::select! {
        ended = &mut server => {
            ended?.map_err(anyhow::Error::from_boxed).context("the API's server failed")?;
            bail!("the API's server ended by itself");
        }
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, "stopping; the dataplane goes on with what it has");
    tell(NotifyState::Stopping);
    stop.send_replace(true);
    scraped.inspect(|scraped| scraped.abort());
    shown.inspect(|shown| shown.abort());
    // A client that keeps a call open must not keep us.
    if timeout(GRACE, &mut server).await.is_err() {
        server.abort();
    }
    drop(socket);
    Ok(())
}

/// Tells the service manager (sd_notify(3)), if there is one.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "A005 the service manager cannot be told how we are");
    }
}

/// That tasks still run is all we live for: whether store and dataplane can be reached is for `margayctl status`, and
/// to be started again would help neither.
async fn feed_watchdog() {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    // Half of it, as systemd advises.
    let mut turns = tokio::time::interval(patience / 2);
    loop {
        turns.tick().await;
        tell(NotifyState::Watchdog);
    }
}

fn node(name: Option<String>) -> Result<String> {
    let name = match name {
        Some(name) => name,
        None => fs::read_to_string("/proc/sys/kernel/hostname")
            .context("the host name cannot be read; give --node")?
            .trim()
            .to_ascii_lowercase(),
    };
    if name.is_empty() {
        bail!("the node has no name; give --node");
    }
    Ok(name)
}

/// The store, with the built-in tiers laid beneath it; `reach`: who has it, if it is another process.
fn store(
    store: &Store,
    etcd: EtcdArguments,
    reach: Option<Reach>,
    past: &PastArguments,
) -> Result<Arc<dyn Datastore>> {
    let store: Arc<dyn Datastore> = match (store, reach) {
        (_, Some(reach)) => {
            let backoff = if matches!(reach, Reach::Relays(_)) { Backoff::SHARED } else { Backoff::LOCAL };
            Arc::new(Remote::with_snapshot(reach, past.snapshot(), backoff))
        }
        (Store::Embedded(path), None) => Arc::new(Embedded::open(path)?),
        (Store::Etcd(endpoints), None) => {
            let past = etcd::Past { snapshot: past.snapshot(), loss_limit: past.loss_limit };
            Arc::new(Etcd::with_past(etcd.settings(endpoints), past, Backoff::LOCAL))
        }
        (Store::Memory, None) => Arc::new(Memory::new()),
        (Store::Relays(_) | Store::Agent(_), None) => bail!("nobody is named who has the store"),
    };
    Ok(Arc::new(Fixed::new(store, "Margay itself", fixed::built_in_tiers())))
}

/// The store, with the peers laid beneath it.
fn with_peers(store: Arc<dyn Datastore>, peers: Option<&Path>) -> Result<Arc<dyn Datastore>> {
    let Some(path) = peers else { return Ok(store) };
    let name = path.display();
    let manifest =
        fs::read_to_string(path).with_context(|| format!("the peer list {name} cannot be read"))?;
    let peers = fixed::peers(&manifest)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("the peer list {name}"))?;
    Ok(Arc::new(Fixed::new(store, &format!("the peer list {name}"), peers)))
}
