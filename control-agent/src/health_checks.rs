//! `healthCheckNodePort`: an HTTP server on each such port says whether this node has a backend of the
//! service. Load balancers ask it where clients keep their address (`externalTrafficPolicy: Local`).
//!
//! It answers every request as kube-proxy does: 200 where there is a backend and the dataplane can be
//! reached, else 503; in words, as JSON and in `X-Load-Balancing-Endpoint-Weight`, how many there are.

use crate::{
    backoff::Backoff,
    calc::{Calculated, HealthCheck},
    health::Health,
    sync::Progress,
    task::Task,
};
use hyper::{Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use margay_api::dataplane::v1::Prefix;
use serde_json::json;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

/// Connections that one port serves at a time; more wait.
const CONNECTIONS: usize = 64;
/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running servers. They end when this is dropped.
pub struct HealthChecks {
    health: Arc<Health>,
    _task: Task,
}

impl HealthChecks {
    /// Serves what `desired` names, at the addresses of this network namespace; `progress` is that of
    /// the link to the dataplane. Must be called within a Tokio runtime.
    pub fn start(
        desired: watch::Receiver<Option<Calculated>>,
        progress: watch::Receiver<Progress>,
        backoff: Backoff,
    ) -> Self {
        let health = Arc::new(Health::starting("health checks", "no service has been read yet"));
        let facts = Facts { desired, progress };
        let servers = Servers { facts, health: health.clone(), open: BTreeMap::new() };
        let _task = Task::spawn(servers.run(backoff));
        Self { health, _task }
    }

    /// Whether every port is served.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

struct Servers {
    facts: Facts,
    health: Arc<Health>,
    open: BTreeMap<u16, Task>,
}

impl Servers {
    async fn run(mut self, mut backoff: Backoff) {
        loop {
            let wanted = self.facts.wanted();
            self.open.retain(|port, _| wanted.contains_key(port));
            let mut refused = Vec::new();
            for (port, check) in &wanted {
                if self.open.contains_key(port) {
                    continue;
                }
                match listen(*port).await {
                    Ok(listener) => {
                        self.open.insert(*port, Task::spawn(serve(listener, *port, self.facts.clone())));
                    }
                    Err(error) => {
                        let (namespace, name) = (&check.service.namespace, &check.service.name);
                        refused.push(format!(
                            "healthCheckNodePort {port} of service {namespace}/{name} is not served: {error}"
                        ));
                    }
                }
            }
            if refused.is_empty() {
                self.health.good(format!("{} ports", self.open.len()));
                backoff.reset();
            } else {
                self.health.bad(refused.join("; "));
            }
            let changed = if refused.is_empty() {
                self.facts.desired.changed().await
            } else {
                tokio::select! {
                    changed = self.facts.desired.changed() => changed,
                    () = backoff.pause() => Ok(()),
                }
            };
            if changed.is_err() {
                // Nobody calculates any more: the agent is shutting down.
                return;
            }
        }
    }
}

/// What answers follow from.
#[derive(Clone)]
struct Facts {
    desired: watch::Receiver<Option<Calculated>>,
    progress: watch::Receiver<Progress>,
}

impl Facts {
    fn wanted(&mut self) -> BTreeMap<u16, HealthCheck> {
        let latest = self.desired.borrow_and_update();
        latest.as_ref().map(|latest| (*latest.desired.health_checks).clone()).unwrap_or_default()
    }

    fn answer(&self, port: u16) -> Response<String> {
        let check = self.desired.borrow().as_ref().and_then(|latest| {
            let check = latest.desired.health_checks.get(&port)?;
            Some(check.clone())
        });
        // The service has just gone.
        let Some(HealthCheck { service, local_endpoints }) = check else {
            return with_status(StatusCode::SERVICE_UNAVAILABLE, String::new());
        };
        let works = self.progress.borrow().connected;
        let status = match works && local_endpoints > 0 {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = json!({
            "service": { "namespace": service.namespace, "name": service.name },
            "localEndpoints": local_endpoints,
            "serviceProxyHealthy": works,
        });
        let mut response = with_status(status, format!("{body}\n"));
        let headers = response.headers_mut();
        headers.insert("content-type", "application/json".try_into().expect("a header's value"));
        headers.insert("x-content-type-options", "nosniff".try_into().expect("a header's value"));
        headers.insert("x-load-balancing-endpoint-weight", local_endpoints.into());
        response
    }

    /// Node ports are served at this address, so their health checks are.
    fn is_served_at(&self, addr: IpAddr) -> bool {
        let latest = self.desired.borrow();
        let nets = latest.as_ref().map(|latest| &latest.desired.config.node_port_nets[..]);
        nets.is_none_or(|nets| nets.is_empty() || nets.iter().any(|net| contains(net, addr)))
    }
}

fn with_status(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn contains(net: &Prefix, addr: IpAddr) -> bool {
    let octets = match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let differs = |at: u32| {
        let (byte, bit) = (at as usize / 8, 7 - at % 8);
        net.address[byte] >> bit & 1 != octets[byte] >> bit & 1
    };
    net.address.len() == octets.len() && !(0..net.length).any(differs)
}

/// At all addresses, of both families where there are both.
async fn listen(port: u16) -> io::Result<TcpListener> {
    let any = |addr: IpAddr| SocketAddr::new(addr, port);
    match TcpListener::bind(any(Ipv6Addr::UNSPECIFIED.into())).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(any(Ipv4Addr::UNSPECIFIED.into())).await,
        listener => listener,
    }
}

async fn serve(listener: TcpListener, port: u16, facts: Facts) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut backoff = Backoff::LOCAL;
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                backoff.reset();
                let facts = facts.clone();
                tokio::spawn(async move {
                    converse(stream, port, facts).await;
                    drop(place);
                });
            }
            // Too many open files, perhaps: that passes.
            Err(_) => backoff.pause().await,
        }
    }
}

async fn converse(stream: TcpStream, port: u16, facts: Facts) {
    let own = stream.local_addr().map(|own| own.ip().to_canonical());
    if !own.is_ok_and(|own| facts.is_served_at(own)) {
        return;
    }
    let answer = service_fn(move |_| {
        let answer = facts.answer(port);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    // Who hangs up has heard enough.
    let _ = tokio::time::timeout(2 * PATIENCE, http.serve_connection(TokioIo::new(stream), answer)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calc::{Desired, ServiceKey};
    use margay_api::dataplane::v1::NodeConfig;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct Rig {
        desired: watch::Sender<Option<Calculated>>,
        progress: watch::Sender<Progress>,
        checks: HealthChecks,
    }

    impl Rig {
        fn new() -> Self {
            let (desired, follow) = watch::channel(None);
            let (progress, link) = watch::channel(Progress { connected: true, ..Progress::default() });
            let quick = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
            Self { desired, progress, checks: HealthChecks::start(follow, link, quick) }
        }

        fn want(&self, checks: &[(u16, usize)], node_ports: &[[u8; 4]]) {
            let service = ServiceKey { namespace: "shop".into(), name: "web".into() };
            let check = |(port, local): &(u16, usize)| {
                (*port, HealthCheck { service: service.clone(), local_endpoints: *local })
            };
            let net = |net: &[u8; 4]| Prefix { address: net.to_vec(), length: 8 };
            let config =
                NodeConfig { node_port_nets: node_ports.iter().map(net).collect(), ..NodeConfig::default() };
            let health_checks = Arc::new(checks.iter().map(check).collect());
            let desired = Arc::new(Desired { health_checks, config, ..Desired::default() });
            self.desired.send_replace(Some(Calculated { revision: 1, desired }));
        }

        /// Until the servers are as they are wanted.
        async fn settles(&self, healthy: bool) -> String {
            loop {
                let state = self.checks.health().state();
                if state.healthy == healthy && !state.reason.starts_with("no service") {
                    return state.reason;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// What the port answers, in lower case; empty: nothing.
    async fn ask(port: u16) -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.to_lowercase())
    }

    async fn patient<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
    }

    #[tokio::test]
    async fn load_balancers_hear_how_many_backends_there_are() {
        patient(async {
            // Taken by the kernel: two that nobody else has.
            let (first, second) = (listen(0).await.unwrap(), listen(0).await.unwrap());
            let [one, other] = [&first, &second].map(|listener| listener.local_addr().unwrap().port());
            let rig = Rig::new();
            rig.want(&[(one, 2), (other, 0)], &[]);
            drop(second);
            let reason = loop {
                let reason = rig.settles(false).await;
                if !reason.contains(&other.to_string()) {
                    break reason;
                }
                tokio::task::yield_now().await;
            };
            assert!(reason.contains(&format!("healthCheckNodePort {one} of service shop/web")), "{reason}");
            drop(first);
            assert_eq!(rig.settles(true).await, "2 ports");

            let answer = ask(one).await.unwrap();
            assert!(answer.starts_with("http/1.1 200 ok"), "{answer}");
            for part in [
                "content-type: application/json",
                "x-content-type-options: nosniff",
                "x-load-balancing-endpoint-weight: 2",
                r#""service":{"name":"web","namespace":"shop"}"#,
                r#""localendpoints":2"#,
                r#""serviceproxyhealthy":true"#,
            ] {
                assert!(answer.contains(part), "{part} in {answer}");
            }
            assert!(ask(other).await.unwrap().starts_with("http/1.1 503"));
            rig.want(&[(one, 0), (other, 1)], &[]);
            assert!(ask(one).await.unwrap().starts_with("http/1.1 503"));
            assert!(ask(other).await.unwrap().starts_with("http/1.1 200"));
            rig.progress.send_modify(|progress| progress.connected = false);
            let answer = ask(other).await.unwrap();
            assert!(answer.starts_with("http/1.1 503") && answer.contains(r#""serviceproxyhealthy":false"#));
            rig.progress.send_modify(|progress| progress.connected = true);

            rig.want(&[(other, 1)], &[[127, 0, 0, 0]]);
            assert!(ask(other).await.unwrap().starts_with("http/1.1 200"), "node ports are served here");
            rig.want(&[(other, 1)], &[[10, 0, 0, 0]]);
            assert_eq!(ask(other).await.unwrap_or_default(), "", "and here they are not");
            // A port that no service has any more is closed.
            while ask(one).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[test]
    fn blocks_contain_their_addresses() {
        let net = |address: &[u8], length| Prefix { address: address.to_vec(), length };
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(contains(&net(&[10, 1, 0, 0], 15), addr("10.0.255.1")));
        assert!(!contains(&net(&[10, 2, 0, 0], 15), addr("10.1.255.1")));
        assert!(contains(&net(&[0; 4], 0), addr("1.2.3.4")) && !contains(&net(&[0; 4], 0), addr("::1")));
    }
}
