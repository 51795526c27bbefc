//! What a relay costs, and what it spares: many agents that are told of one store, by a relay and by etcd itself.
//!
//! `cargo bench -p margay-agent --bench relay -- [AGENTS [POLICIES [ENDPOINTS [SECONDS]]]]`
//!
//! Starts an etcd and a relay of its own, each a process. Agents are connections that take and decode what they are told.

use etcd_client::{Client, GetOptions, WatchOptions};
use margay_agent::{
    access::{Audit, Door, Role},
    backoff::Backoff,
    control::{self, Relaying},
    datastore::{Datastore, Etcd, Expected, Run, Write, etcd},
    ipam::Ipam,
    model::{Resource, scalar::Timestamp},
    relay::{Relay, Settings},
};
use margay_api::{
    control::v1::{GetStatusRequest, WatchRequest, control_client::ControlClient, watch_event::Type},
    log::Log,
    unix::{self, Socket},
};
use serde_json::json;
use std::{
    env, fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{interval, sleep},
};

/// Before etcd's keys.
const PREFIX: &str = "/bench";
/// Changes a second, and in one transaction.
const RATE: usize = 1000;
const TOGETHER: usize = 10;
/// Readers of etcd's whole content at a time: a thousand would not end.
const DIRECT_LISTS: usize = 4;
/// Objects of a page, as an agent asks for them.
const PAGE: i64 = 1000;
/// Objects of one commit.
const CHUNK: usize = 2000;

#[derive(Clone, Copy)]
struct Size {
    agents: usize,
    policies: usize,
    endpoints: usize,
    seconds: usize,
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [role, etcd, socket] = arguments.as_slice()
        && role == "serve"
    {
        return serve(etcd, socket.as_ref()).await;
    }
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse().ok());
    let mut number = |default| numbers.next().unwrap_or(default);
    let size = Size {
        agents: number(1000),
        policies: number(10_000),
        endpoints: number(100_000),
        seconds: number(10),
    };
    let Size { agents, policies, endpoints, seconds } = size;
    println!(
        "{agents} agents, {policies} policies, {endpoints} endpoints; {RATE} changes a second for {seconds} s"
    );

    let dir = tempfile::tempdir().expect("a directory");
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|at| at.local_addr()).expect("a port").port();
    let (client, peer) = (free(), free());
    let url = format!("http://127.0.0.1:{client}");
    let _etcd = Process(
        Command::new("etcd")
            .args([format!("--data-dir={}", dir.path().join("etcd").display())])
            .args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")])
            .args([format!("--listen-peer-urls=http://127.0.0.1:{peer}")])
            .args([format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}")])
            .args([
                format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
                "--quota-backend-bytes=8589934592".into(),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed"),
    );
    let from = Instant::now();
    load(&url, size).await;
    println!("  objects written to etcd               {}", span(from.elapsed()));

    let socket = dir.path().join("relay.sock");
    let from = Instant::now();
    let relay = Process(
        Command::new(env::current_exe().expect("this program"))
            .args(["serve", &url])
            .arg(&socket)
            .spawn()
            .expect("this program again"),
    );
    until_ready(&socket).await;
    println!("  relay: store read, selectors indexed  {}", span(from.elapsed()));
    by_relay(&url, &socket, size).await;
    println!("  relay: memory at most                 {}", memory(relay.0.id()));
    drop(relay);
    directly(&url, size).await;
    println!("  etcd: memory at most                  {}", memory(_etcd.0.id()));
}

/// The relay's process.
async fn serve(etcd: &str, socket: &Path) {
    let store = Arc::new(Etcd::new(settings(etcd), Backoff::LOCAL));
    let (_file, listener) = Socket::bind(socket).await.expect("the socket is free");
    let (_stop, stopping) = watch::channel(false);
    let relaying = Relaying {
        relay: Relay::start(store.clone(), Settings::default(), Backoff::LOCAL),
        ipam: Arc::new(Ipam::new(store.clone(), Arc::new(|| Timestamp::from(SystemTime::now())))),
        store,
        audit: Audit::default(),
        log: Log::new("off".parse().expect("it is a level")).0,
        started: Instant::now(),
        stopping,
    };
    control::serve_relay(Arc::new(relaying), Door::unix(listener, Role::Viewer)).await.expect("it serves");
}

fn settings(url: &str) -> etcd::Settings {
    let (endpoints, tls) = (vec![url.to_owned()], etcd::Tls::default());
    etcd::Settings { endpoints, prefix: PREFIX.into(), tls, user: None }
}

async fn load(url: &str, size: Size) {
    let store = Etcd::new(settings(url), Backoff::LOCAL);
    while store.list().await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    let objects = cluster(size);
    for chunk in objects.chunks(CHUNK) {
        let put = |json: &String| {
            let key = Resource::from_json(json).expect("it is made as the model has it").key();
            Write::Put { key, json: json.as_str().into(), expected: Expected::Anything }
        };
        store.commit(chunk.iter().map(put).collect(), Run::Real).await.expect("etcd takes it");
    }
}

async fn until_ready(socket: &Path) {
    loop {
        if let Ok(channel) = unix::connect(socket).await
            && let Ok(status) = ControlClient::new(channel).get_status(GetStatusRequest {}).await
            && status.get_ref().components.iter().all(|component| component.healthy)
        {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Everything to all, then changes.
async fn by_relay(url: &str, socket: &Path, size: Size) {
    let (tell_listed, mut listed) = mpsc::unbounded_channel();
    let (tell_late, late) = mpsc::unbounded_channel();
    let began = Instant::now();
    let mut agents = JoinSet::new();
    for at in 0..size.agents {
        let (socket, tell_listed, tell_late) = (socket.to_owned(), tell_listed.clone(), tell_late.clone());
        agents.spawn(async move {
            let channel = unix::connect(&socket).await.expect("the relay listens");
            let mut client = ControlClient::new(channel).max_decoding_message_size(32 << 20);
            let request = WatchRequest { agent: true, for_node: format!("n{at}"), ..WatchRequest::default() };
            let mut events = client.watch(request).await.expect("the relay answers").into_inner();
            let (mut objects, mut bytes) = (0, 0);
            while let Some(event) = events.message().await.expect("the stream goes on") {
                match (event.r#type(), event.object) {
                    (Type::Synced, _) => tell_listed.send((objects, bytes)).expect("somebody counts"),
                    (_, Some(object)) => {
                        (objects, bytes) = (objects + 1, bytes + object.json.len());
                        let _ = sent(&object.json).map(|sent| tell_late.send(since(began, sent)));
                    }
                    _ => {}
                }
            }
        });
    }
    let (mut objects, mut bytes) = (0, 0);
    for _ in 0..size.agents {
        let (some, long) = listed.recv().await.expect("all are told");
        (objects, bytes) = (objects + some, bytes + long);
    }
    println!(
        "  relay: snapshot to all                {} ({} objects and {} KiB each)",
        span(began.elapsed()),
        objects / size.agents,
        bytes / size.agents / 1024
    );
    drop(tell_late);
    change(url, size, began).await;
    sleep(Duration::from_secs(2)).await;
    agents.shutdown().await;
    report("relay", late, size).await;
}

/// The same of etcd: as many watches, and as many lists as end.
async fn directly(url: &str, size: Size) {
    let began = Instant::now();
    let mut lists = JoinSet::new();
    for _ in 0..DIRECT_LISTS {
        let url = url.to_owned();
        lists.spawn(async move {
            let client = Client::connect([url], None).await.expect("etcd answers");
            let mut kv = client.kv_client().max_decoding_message_size(256 << 20);
            let (mut from, mut count) = (PREFIX.as_bytes().to_vec(), 0);
            loop {
                let end = format!("{PREFIX}0");
                let page = kv.get(from, Some(GetOptions::new().with_range(end).with_limit(PAGE))).await;
                let page = page.expect("etcd answers");
                count += page.kvs().len();
                match page.kvs().last() {
                    Some(last) if page.more() => from = [last.key(), &[0]].concat(),
                    _ => return count,
                }
            }
        });
    }
    let counts = lists.join_all().await;
    let took = began.elapsed();
    println!(
        "  etcd: whole content to {DIRECT_LISTS} agents        {} ({} objects each; to {} at this rate {})",
        span(took),
        counts[0],
        size.agents,
        span(took * u32::try_from(size.agents / DIRECT_LISTS).unwrap_or(u32::MAX))
    );
    let (tell_ready, mut ready) = mpsc::unbounded_channel();
    let (tell_late, late) = mpsc::unbounded_channel();
    let mut agents = JoinSet::new();
    for _ in 0..size.agents {
        let (url, tell_ready, tell_late) = (url.to_owned(), tell_ready.clone(), tell_late.clone());
        agents.spawn(async move {
            let client = Client::connect([url], None).await.expect("etcd answers");
            let mut watch = client.watch_client();
            let options = WatchOptions::new().with_prefix();
            let mut events = watch.watch(PREFIX, Some(options)).await.expect("etcd watches");
            tell_ready.send(()).expect("somebody counts");
            while let Ok(Some(news)) = events.message().await {
                for event in news.events() {
                    let text = event.kv().and_then(|kv| kv.value_str().ok());
                    let _ = text.and_then(sent).map(|sent| tell_late.send(since(began, sent)));
                }
            }
        });
    }
    for _ in 0..size.agents {
        ready.recv().await.expect("all watch");
    }
    drop(tell_late);
    change(url, size, began).await;
    sleep(Duration::from_secs(2)).await;
    agents.shutdown().await;
    report("etcd", late, size).await;
}

/// Changes endpoints all over the cluster, which then say when.
async fn change(url: &str, size: Size, began: Instant) {
    let client = Client::connect([url], None).await.expect("etcd answers");
    let mut turns = interval(Duration::from_millis((1000 * TOGETHER / RATE) as u64));
    let (mut commits, mut at) = (JoinSet::new(), 0);
    let from = Instant::now();
    while from.elapsed() < Duration::from_secs(size.seconds as u64) {
        turns.tick().await;
        let sent = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let puts: Vec<_> = (0..TOGETHER)
            .map(|_| {
                at = (at + 7919) % size.endpoints;
                let json = endpoint(at, size, Some(sent));
                let key = Resource::from_json(&json).expect("it is made as the model has it").key();
                let path = format!("{PREFIX}/objects/{}/{}/{}", key.kind, key.namespace, key.name);
                etcd_client::TxnOp::put(path, json, None)
            })
            .collect();
        let mut client = client.clone();
        // An etcd that has too much to tell lets writes time out.
        commits.spawn(async move { client.txn(etcd_client::Txn::new().and_then(puts)).await.is_ok() });
    }
    let count = commits.len() * TOGETHER;
    let refused = commits.join_all().await.into_iter().filter(|written| !written).count() * TOGETHER;
    println!(
        "  changes written                       {} in {}, {refused} refused by etcd",
        count - refused,
        span(from.elapsed())
    );
}

async fn report(who: &str, mut late: mpsc::UnboundedReceiver<Duration>, size: Size) {
    let mut all = Vec::new();
    while let Some(one) = late.recv().await {
        all.push(one);
    }
    all.sort_unstable();
    let at = |percent: usize| all.get((all.len() * percent / 100).min(all.len().saturating_sub(1))).copied();
    println!(
        "  {who}: changes told: median, p99, most  {}, {}, {} ({} in all, {} a second)",
        span(at(50).unwrap_or_default()),
        span(at(99).unwrap_or_default()),
        span(at(100).unwrap_or_default()),
        all.len(),
        all.len() / size.seconds.max(1)
    );
}

/// When the change was sent, in microseconds since the beginning.
fn sent(json: &str) -> Option<u64> {
    let (_, rest) = json.split_once("\"sent\":\"")?;
    rest.split_once('"')?.0.parse().ok()
}

fn since(began: Instant, sent: u64) -> Duration {
    began.elapsed().saturating_sub(Duration::from_micros(sent))
}

/// Nodes, their blocks, policies that each name the members of another application, and endpoints.
fn cluster(size: Size) -> Vec<String> {
    let mut objects = vec![
        json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pods"},
               "spec": {"cidr": "10.0.0.0/8"}})
        .to_string(),
    ];
    for at in 0..size.agents {
        let address = format!("172.{}.{}.{}/12", 16 + at / 62_500, at / 250 % 250, at % 250 + 1);
        let node = json!({"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": format!("n{at}")},
                          "spec": {"bgp": {"ipv4Address": address}}});
        let (high, low) = (at / 256, at % 256);
        let block = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock",
                           "metadata": {"name": format!("10-{high}-{low}-0-24")},
                           "spec": {"cidr": format!("10.{high}.{low}.0/24"), "affinity": format!("host:n{at}")}});
        objects.extend([node.to_string(), block.to_string()]);
    }
    objects.extend((0..size.policies).map(|at| {
        let (own, other) = (format!("app == 'a{at}'"), format!("app == 'a{}'", (at + 1) % size.policies));
        json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
               "metadata": {"name": format!("p{at}"), "namespace": "shop"},
               "spec": {"selector": own, "ingress": [
                   {"action": "Allow", "protocol": "TCP", "source": {"selector": other}, "destination": {"ports": [80]}}]}})
        .to_string()
    }));
    objects.extend((0..size.endpoints).map(|at| endpoint(at, size, None)));
    objects
}

/// Those of an application are on different nodes, where the number of agents divides that of policies.
fn endpoint(at: usize, size: Size, sent: Option<u64>) -> String {
    let (node, host) = ((at + at / size.policies) % size.agents, at / size.agents);
    let mut labels = json!({"app": format!("a{}", at % size.policies)});
    if let Some(sent) = sent {
        labels["sent"] = sent.to_string().into();
    }
    json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
           "metadata": {"name": format!("n{node}-k8s-w{at}-eth0"), "namespace": "shop", "labels": labels},
           "spec": {"node": format!("n{node}"), "orchestrator": "k8s", "pod": format!("w{at}"), "endpoint": "eth0",
                    "interfaceName": format!("cali{at}"),
                    "ipNetworks": [format!("10.{}.{}.{}/32", node / 256, node % 256, host % 256)]}})
    .to_string()
}

fn span(time: Duration) -> String {
    match time {
        short if short < Duration::from_secs(1) => format!("{:.1} ms", short.as_secs_f64() * 1000.0),
        long => format!("{:.2} s", long.as_secs_f64()),
    }
}

/// Of a process, by the kernel.
fn memory(process: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    most.map_or("unknown", str::trim).to_owned()
}
