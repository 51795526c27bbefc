//! `margay-agent relay`: arguments, assembly, signals.

use super::{EtcdArguments, GRACE, PastArguments, Store, VERSION, feed_watchdog, store, tell};
use anyhow::{Context as _, Result, bail};
use clap::Parser;
use margay_agent::{
    access::{Audit, Door, Files, Role},
    backoff::Backoff,
    control::{self, Relaying},
    ipam::Ipam,
    model::scalar::Timestamp,
    relay::{Relay, Settings},
};
use margay_api::{
    log::{Filter, Log},
    metrics,
    unix::Socket,
};
use sd_notify::NotifyState;
use std::{
    env,
    ffi::OsString,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};

/// Follows the store once, and tells each of many agents what its node needs.
#[derive(Debug, Parser)]
#[command(name = "margay-agent relay", version = VERSION)]
pub struct Arguments {
    /// Where objects live: etcd:URL,URL.., embedded:PATH, or memory
    #[arg(long, env = "MARGAY_STORE", value_name = "STORE")]
    store: Store,

    #[command(flatten)]
    etcd: EtcdArguments,

    /// A file of this relay's: what etcd last held, to start with while that is away
    #[arg(
        long,
        env = "MARGAY_RELAY_SNAPSHOT",
        value_name = "FILE",
        default_value = "/var/lib/margay/relay.redb"
    )]
    snapshot: PathBuf,

    /// Percent of all objects: where more are gone from etcd at once, as if it had been emptied, they stay in force until
    /// `margayctl datastore confirm`; 100: never
    #[arg(long, env = "MARGAY_LOSS_LIMIT", value_name = "PERCENT", default_value = "25")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    loss_limit: u8,

    /// Socket of the relay's API
    #[arg(
        long,
        env = "MARGAY_RELAY_LISTEN",
        value_name = "SOCKET",
        default_value = "/run/margay/relay.sock"
    )]
    listen: PathBuf,

    /// What the group of --listen may: viewer, operator or admin
    #[arg(long, env = "MARGAY_GROUP_ROLE", value_name = "ROLE", default_value = "operator")]
    group_role: Role,

    /// Serve agents and others here, as in 0.0.0.0:9093, to those whose certificates say who they are
    #[arg(long, env = "MARGAY_LISTEN_TCP", value_name = "ADDR:PORT", requires_all = ["tls_cert", "tls_key", "tls_client_ca"])]
    listen_tcp: Option<SocketAddr>,

    /// Certificate of this relay, for --listen-tcp (PEM); read again when it changes, as are the other two
    #[arg(long, env = "MARGAY_TLS_CERT", value_name = "FILE", requires = "listen_tcp")]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert (PEM)
    #[arg(long, env = "MARGAY_TLS_KEY", value_name = "FILE", requires = "listen_tcp")]
    tls_key: Option<PathBuf>,

    /// Certificates of those who sign callers' (PEM)
    #[arg(long, env = "MARGAY_TLS_CLIENT_CA", value_name = "FILE", requires = "listen_tcp")]
    tls_client_ca: Option<PathBuf>,

    /// Add a line of JSON to this file for each write, and for each that was refused [default: nowhere]
    #[arg(long, env = "MARGAY_AUDIT_LOG", value_name = "FILE")]
    audit_log: Option<PathBuf>,

    /// Changes that are remembered for each node: an agent that was away for longer is told everything anew
    #[arg(long, env = "MARGAY_RELAY_HISTORY", value_name = "NUMBER", default_value = "16384", value_parser = clap::value_parser!(u32).range(1..))]
    history: u32,

    /// Seconds for which they are remembered while nobody asks
    #[arg(long, env = "MARGAY_RELAY_KEEP", value_name = "SECONDS", default_value = "300")]
    keep: u32,

    /// Serve metrics for Prometheus over HTTP at this address, as in 127.0.0.1:9095 [default: nowhere]
    #[arg(long, env = "MARGAY_RELAY_METRICS", value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,

    /// What to log: off, error, warn, info, debug or trace, and of modules, as in info,margay_agent::relay=debug
    #[arg(long, env = "MARGAY_LOG", value_name = "LEVEL", default_value = "info")]
    log: Filter,
}

/// What was typed behind `margay-agent relay`, if that is what was typed.
pub fn asked() -> Option<Vec<OsString>> {
    let mut typed: Vec<OsString> = env::args_os().collect();
    if typed.get(1)? != "relay" {
        return None;
    }
    typed.remove(1);
    Some(typed)
}

/// Until it is told to stop.
pub async fn run(arguments: Arguments) -> Result<()> {
    let log = Log::start(arguments.log);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if matches!(arguments.store, Store::Relays(_) | Store::Agent(_)) {
        bail!("--store: a relay follows the store itself: write etcd:URL, embedded:PATH or memory");
    }
    let audit = arguments.audit_log.as_deref().map_or_else(|| Ok(Audit::default()), Audit::to)?;
    let past = PastArguments { snapshot: arguments.snapshot, loss_limit: arguments.loss_limit };
    let store = store(&arguments.store, arguments.etcd, None, &past)?;
    let (socket, listener) = Socket::bind(&arguments.listen).await?;
    let mut door = Door::unix(listener, arguments.group_role);
    let files = (arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca);
    if let (Some(at), (Some(certificate), Some(key), Some(client_ca))) = (arguments.listen_tcp, files) {
        let listener = TcpListener::bind(at).await.with_context(|| format!("--listen-tcp {at}"))?;
        door = door.and(Door::tls(listener, Files { certificate, key, client_ca })?);
    }
    let settings = Settings {
        history: usize::try_from(arguments.history)?,
        keep: Duration::from_secs(arguments.keep.into()),
    };
    let (stop, stopping) = watch::channel(false);
    let relaying = Arc::new(Relaying {
        relay: Relay::start(store.clone(), settings, Backoff::LOCAL),
        ipam: Arc::new(Ipam::new(store.clone(), Arc::new(|| Timestamp::from(SystemTime::now())))),
        store,
        audit,
        log,
        started: Instant::now(),
        stopping,
    });
    tracing::info!(version = VERSION, listen = %arguments.listen.display(), "the relay started");
    let scraped = match arguments.metrics {
        Some(at) => {
            let serving = metrics::serve(at, control::ScrapedRelay(relaying.clone())).await;
            Some(tokio::spawn(serving.with_context(|| format!("--metrics {at}"))?))
        }
        None => None,
    };
    let mut server = tokio::spawn(control::serve_relay(relaying, door));
    tell(NotifyState::Ready);
    tokio::spawn(feed_watchdog());
    let signal = tokio::select! {
        ended = &mut server => {
            ended?.map_err(anyhow::Error::from_boxed).context("the relay's server failed")?;
            bail!("the relay's server ended by itself");
        }
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, "stopping; agents go on with what they have");
    tell(NotifyState::Stopping);
    stop.send_replace(true);
    scraped.inspect(|scraped| scraped.abort());
    if timeout(GRACE, &mut server).await.is_err() {
        server.abort();
    }
    drop(socket);
    Ok(())
}
