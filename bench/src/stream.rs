//! Members of an IP set that an agent's stream changes one by one, from the message to the worker's adoption.
//!
//! The gRPC server on its UNIX socket, the control thread and the worker's thread are the process's own; the worker
//! forwards all the time, between devices in memory.

use crate::measure::{Tail, short, table};
use crate::random::Random;
use crate::rig::{self, PEER_MAC, Rig, Setup, UPLINK_MAC};
use crate::sets::{addr, delta, distinct, one_rule, set};
use crate::wire::{Stream, Valve};
use crate::{Output, record};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use margay_api::dataplane::v1::{
    self as pb, change::Change, dataplane_client::DataplaneClient, dataplane_server::DataplaneServer,
    sync_response::Response,
};
use margay_api::unix;
use margay_dataplane::control::{
    DeviceOptions, FlowMemory, KernelRoutes, KeyFile, Ports, Service, Shell, WorkerEnd, WorkloadPorts,
    WorkloadRing,
};
use margay_dataplane::io::netlink::Netlink;
use margay_dataplane::net::{FlowKey, Proto, WorkerId};
use margay_dataplane::nodes::WorkerCounters;
use margay_dataplane::packet::{DropReason, VECTOR};
use margay_dataplane::worker::{Idle, Parts, Thread, Wake, ticks};
use serde::Serialize;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::Streaming;

/// Members that come and go.
const OTHERS: usize = 1 << 16;
/// Changes that are told one after the other, each when the one before is adopted.
const ALONE: u64 = 500;
/// Changes under way at most.
const WINDOW: usize = 256;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Members of the set
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=3_000_000))]
    members: u32,
    /// Changes a second that are offered, each a member and a transaction
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    rate: u32,
    /// Time of the offered rate, and of as many as it takes
    #[arg(long, default_value_t = 5.0, value_name = "S", value_parser = crate::seconds)]
    seconds: f64,
    #[command(flatten)]
    output: Output,
}

/// What changes of members take: milliseconds from the time that each was due until the agent is told that the worker judges
/// by it.
#[derive(Serialize)]
struct Figures {
    members: u32,
    /// Each told when the one before is adopted.
    alone: Tail,
    offered_a_second: u32,
    adopted_a_second: f64,
    adopted: Tail,
    /// As many as are taken.
    flat_out_a_second: f64,
    /// Microseconds of all threads but the worker, the agent's end among them, for each of these.
    cpu_us: f64,
    /// Packets a second, while changes come at the offered rate.
    forwarded_a_second: f64,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("dataplane.sock");
    let mut random = Random::new(0x7374_7265);
    let (members, others) = distinct(options.members as usize, OTHERS, &mut random);
    let dataplane = server.block_on(Dataplane::start(&socket, &members))?;
    let figures = client.block_on(measure(options, &socket, &members, &others, &dataplane))?;
    dataplane.thread.stop();
    server.shutdown_timeout(Duration::from_secs(1));
    let denied = dataplane.counters.dropped(DropReason::PolicyDenied).get();
    ensure!(denied == 0, "{denied} packets of members were denied");
    if !options.output.json {
        let row = vec![
            short(figures.members.into()),
            figures.alone.text(),
            figures.offered_a_second.to_string(),
            format!("{:.0}", figures.adopted_a_second),
            figures.adopted.text(),
            format!("{:.0}", figures.flat_out_a_second),
            format!("{:.1}", figures.cpu_us),
            format!("{:.2}", figures.forwarded_a_second / 1e6),
        ];
        let heads = [
            "members",
            "one at a time; ms p50 / p99 / max",
            "offered/s",
            "adopted/s",
            "ms p50 / p99 / max",
            "flat out/s",
            "CPU us each",
            "forwarding, Mpps",
        ];
        table(&heads, &[row]);
    }
    record::finish(&options.output, &[figures])
}

/// The process, but for its devices.
struct Dataplane {
    thread: Thread,
    counters: Arc<WorkerCounters>,
    valve: Valve,
}

impl Dataplane {
    async fn start(socket: &Path, sources: &[u32]) -> Result<Self> {
        let mut rig = Rig::new(Setup { batch: VECTOR, sessions: 1 << 14, ticks }, &one_rule())?;
        let key = |source: &u32| FlowKey {
            src: addr(*source),
            dst: Rig::destination(false),
            sport: 4000,
            dport: 53,
            proto: Proto::UDP,
        };
        let keys: Vec<FlowKey> = sources.iter().take(1 << 16).map(key).collect();
        rig.feed(Stream::new(PEER_MAC, UPLINK_MAC, &keys, 64));
        let rig::Apart { worker, state, rings, valve, frames } = rig.apart();
        let wake = Wake::new()?;
        let counters = worker.world().counters.clone();
        let end = WorkerEnd {
            id: WorkerId(0),
            core: None,
            rings,
            wake: wake.clone(),
            events: worker.world().events.clone(),
            handshakes: worker.world().handshakes.clone(),
            counters: counters.clone(),
            nodes: worker.graph().counters().clone(),
            flow_table: FlowMemory::of(&worker.world().flows),
        };
        let thread =
            Thread::start(Parts { worker, core: None, idle: Idle::Adaptive, nice: 0, wakes: vec![wake] })?;
        let (netlink, events) = Netlink::connect(false).context("connecting to the kernel by netlink")?;
        let options = DeviceOptions {
            af_xdp: Default::default(),
            generic_only: true,
            workload_ports: WorkloadPorts::AfXdp,
            workload: WorkloadRing { frames: 512, burst: 512 },
        };
        let ports = Ports::new(frames, options, vec![end]);
        // There is need of a key nowhere here.
        let key_file = KeyFile::new("");
        let shell = Shell::new(state, ports, netlink, KernelRoutes::default(), key_file).await?;
        let (requests, inbox) = mpsc::channel(64);
        tokio::spawn(shell.run(inbox, events));
        let (name, listener) = unix::Socket::bind(socket).await?;
        let service = DataplaneServer::new(Service::new(requests)).max_decoding_message_size(16 << 20);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(async move {
            // Its name in the file system goes when this does.
            let _name = name;
            server.serve_with_incoming(UnixListenerStream::new(listener)).await
        });
        Ok(Self { thread, counters, valve })
    }
}

async fn measure(
    options: &Options,
    socket: &Path,
    members: &[u32],
    others: &[u32],
    dataplane: &Dataplane,
) -> Result<Figures> {
    let mut agent = Agent::connect(socket, others).await?;
    let mut all = rig::changes(&one_rule());
    all.push(pb::Change { change: Some(Change::IpSet(set(members))) });
    agent.tell(all).await?;
    agent.settle().await?;
    dataplane.valve.set(true);

    let mut alone = vec![];
    for _ in 0..ALONE {
        agent.change(Instant::now()).await?;
        alone.extend(agent.settle().await?);
    }
    let span = Duration::from_secs_f64(options.seconds);
    let (start, before) = (Instant::now(), dataplane.counters.rx.get());
    let paced = agent.offer(Some(options.rate), span).await?;
    let paced_for = start.elapsed().as_secs_f64();
    let forwarded = dataplane.counters.rx.get() - before;
    let (start, cpu) = (Instant::now(), cpu_but_workers()?);
    let flat_out = agent.offer(None, span).await?.len() as f64;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_but_workers()? - cpu);
    Ok(Figures {
        members: options.members,
        alone: Tail::of(alone).context("something changed")?,
        offered_a_second: options.rate,
        adopted_a_second: paced.len() as f64 / paced_for,
        adopted: Tail::of(paced).context("something changed")?,
        flat_out_a_second: flat_out / seconds,
        cpu_us: cpu * 1e6 / flat_out,
        forwarded_a_second: forwarded as f64 / paced_for,
    })
}

/// An agent's end of the stream.
struct Agent<'a> {
    requests: mpsc::Sender<pb::SyncRequest>,
    responses: Streaming<pb::SyncResponse>,
    others: &'a [u32],
    /// The last transaction, and as many as there were.
    generation: u64,
    /// When those were due that are not adopted yet, in order.
    open: VecDeque<Instant>,
}

impl<'a> Agent<'a> {
    async fn connect(socket: &Path, others: &'a [u32]) -> Result<Self> {
        let mut client = DataplaneClient::new(unix::connect(socket).await?);
        let (requests, stream) = mpsc::channel(WINDOW);
        let mut responses = client.sync(ReceiverStream::new(stream)).await?.into_inner();
        let hello = responses.message().await?.and_then(|message| message.response);
        ensure!(matches!(hello, Some(Response::Hello(_))), "the dataplane says hello first: {hello:?}");
        Ok(Self { requests, responses, others, generation: 0, open: VecDeque::new() })
    }

    /// One transaction.
    async fn tell(&mut self, changes: Vec<pb::Change>) -> Result<()> {
        self.generation += 1;
        let commit = Some(pb::Commit { generation: self.generation, in_sync: true });
        let request = pb::SyncRequest { sequence: self.generation, changes, commit };
        self.open.push_back(Instant::now());
        self.requests.send(request).await.context("the dataplane went away")
    }

    /// A member that comes, or goes: each goes after it came.
    async fn change(&mut self, due: Instant) -> Result<()> {
        let other = [self.others[(self.generation / 2) as usize % self.others.len()]];
        let change = if self.generation.is_multiple_of(2) { delta(&other, &[]) } else { delta(&[], &other) };
        self.tell(vec![pb::Change { change: Some(change) }]).await?;
        if let Some(last) = self.open.back_mut() {
            *last = due;
        }
        Ok(())
    }

    /// Changes at this rate, or as many as can be, for so long. What each took, in milliseconds.
    async fn offer(&mut self, rate: Option<u32>, span: Duration) -> Result<Vec<f64>> {
        let (start, mut took) = (Instant::now(), vec![]);
        let mut told = 0_u64;
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while start.elapsed() < span {
            let due = rate.map(|rate| start + Duration::from_secs_f64(told as f64 / f64::from(rate)));
            if self.open.len() < WINDOW && due.is_none_or(|due| due <= Instant::now()) {
                self.change(due.unwrap_or_else(Instant::now)).await?;
                told += 1;
            } else if due.is_some() && self.open.is_empty() {
                pace.tick().await;
            } else {
                tokio::select! {
                    _ = pace.tick(), if due.is_some() => {}
                    news = self.responses.message() => self.note(news?, &mut took)?,
                }
            }
        }
        took.extend(self.settle().await?);
        Ok(took)
    }

    /// Waits until all is adopted. What each took that was not, in milliseconds.
    async fn settle(&mut self) -> Result<Vec<f64>> {
        let mut took = vec![];
        while !self.open.is_empty() {
            let news = self.responses.message().await?;
            self.note(news, &mut took)?;
        }
        Ok(took)
    }

    fn note(&mut self, news: Option<pb::SyncResponse>, took: &mut Vec<f64>) -> Result<()> {
        match news.context("the dataplane ended the stream")?.response {
            Some(Response::Adopted(adopted)) => {
                let still = self.generation.saturating_sub(adopted.generation) as usize;
                let done = self.open.len().saturating_sub(still);
                took.extend(self.open.drain(..done).map(|due| due.elapsed().as_secs_f64() * 1e3));
            }
            Some(Response::Refused(refused)) => bail!("refused: {refused:?}"),
            _ => {}
        }
        Ok(())
    }
}

/// Seconds that this process's threads have run, workers' not.
fn cpu_but_workers() -> Result<f64> {
    let mut nanos = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let folder = thread?.path();
        if !std::fs::read_to_string(folder.join("comm"))?.starts_with("worker-") {
            let stat = std::fs::read_to_string(folder.join("schedstat"))?;
            let ran = stat.split(' ').next().and_then(|ran| ran.parse::<u64>().ok());
            nanos += ran.context("the kernel says how long a thread has run")?;
        }
    }
    Ok(nanos as f64 / 1e9)
}
