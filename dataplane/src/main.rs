//! `margay-dataplane`: arguments, assembly, signals.

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use core_affinity::CoreId;
use margay_api::dataplane::v1::{Setting, dataplane_server::DataplaneServer};
use margay_api::log::{Filter, Log};
use margay_api::{settings, unix};
use margay_dataplane::conntrack::{Directory, FlowHasher, Settings};
use margay_dataplane::control::{
    DeviceOptions, FlowMemory, KernelRoutes, KeyFile, Ports, Purpose, Service, Shell, State, WorkerEnd,
    WorkloadPorts, WorkloadRing, watchdog,
};
use margay_dataplane::fib::{Scope, TableId};
use margay_dataplane::io::af_xdp::{BusyPoll, Options};
use margay_dataplane::io::netlink::Netlink;
use margay_dataplane::net::WorkerId;
use margay_dataplane::nodes::{Inbox, Limits, World};
use margay_dataplane::packet::{Frames, FramesError, Pool};
use margay_dataplane::policy::{Ceiling, PolicyTable};
use margay_dataplane::snapshot::{Publisher, Snapshot};
use margay_dataplane::worker::{Idle, Parts, Rings, Thread, Wake, Worker, ticks};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use sd_notify::NotifyState;
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnixListenerStream;

/// With the commit, where hack/programs built it.
const VERSION: &str = match option_env!("MARGAY_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Forwards workloads' packets by compiled policy, on pinned cores, over AF_XDP.
///
/// It does what an agent tells it on its socket, and goes on doing so when the agent is gone.
/// Run it in the node's network namespace, with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and
/// CAP_IPC_LOCK.
#[derive(Parser)]
#[command(version = VERSION, after_help = "Example:\n  margay-dataplane --uplink eth0 --cores 2,3 --hugepages on")]
struct Args {
    /// UNIX socket to serve gRPC on, mode 0660
    #[arg(long, env = "MARGAY_DATAPLANE", default_value = "/run/margay/dataplane.sock")]
    listen: PathBuf,
    /// Interface to the other nodes, shared with the kernel: IFACE, or IFACE.VLAN for a VLAN on it
    #[arg(long = "uplink", value_name = "IFACE[.VLAN]")]
    uplinks: Vec<String>,
    /// Tap to make, over which this host reaches its workloads
    #[arg(long, value_name = "NAME")]
    host_tap: Option<String>,
    /// Routing table of the kernel to mirror, as 254 or main; 100:workloads for workloads' packets only, 100:host for
    /// all others
    #[arg(long, value_name = "TABLE[:SCOPE]")]
    kernel_routes: Vec<KernelTable>,
    /// WireGuard's private key, as wg genkey writes one; made when it is needed first
    #[arg(long, default_value = "/var/lib/margay/wireguard.key", value_name = "FILE")]
    wireguard_key: PathBuf,
    /// Cores to pin a worker to each, as in 2,3 or 4-7 [default: the last one online]
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// Let workers share a core: --cores may name one twice
    #[arg(long, requires = "cores")]
    share_cores: bool,
    /// Packet buffers, shared by all interfaces
    #[arg(long, default_value_t = 32_768, value_name = "N")]
    frames: u32,
    /// Bytes of each: 2048, or 4096 for an MTU up to 3,822
    #[arg(long, default_value_t = 2048, value_name = "BYTES")]
    frame_size: u32,
    /// Put packet buffers and flow tables on hugepages; auto: each where enough are free
    #[arg(long, default_value = "auto")]
    hugepages: Hugepages,
    /// Flows that each worker can track
    #[arg(long, default_value_t = 1 << 20, value_name = "N")]
    flows: u32,
    /// Memory for compiled policy; beyond it rule lists are compiled in a slower form
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    policy_memory: usize,
    /// The same, for the policy of one endpoint in one direction
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    policy_list_memory: usize,
    /// Interfaces at most
    #[arg(long, default_value_t = 4096, value_name = "N")]
    interfaces: u16,
    /// What workloads' packets come by: af-xdp, a socket on the workload's link; tap, a tap beside it, which passes super-frames
    /// of up to 64 KiB whole (Linux 6.6)
    #[arg(long, env = "MARGAY_WORKLOAD_PORTS", default_value = "af-xdp")]
    workload_ports: WorkloadPortKind,
    /// Buffers for super-frames on their way, of 66 KiB each; with --workload-ports tap
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    large_frames: u32,
    /// Receive frames that a workload's interface holds at rest
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=32_768))]
    workload_ring: u32,
    /// Packets of a burst that it can hold, a power of two; what is above --workload-ring takes frames
    /// only while bursts come and half of all are free
    #[arg(long, default_value_t = 4096, value_name = "N")]
    workload_burst: u32,
    /// Refuse interfaces that the driver would copy packets to and from
    #[arg(long)]
    require_zerocopy: bool,
    /// Where XDP programs run: auto, in the driver where it can, else in the stack; generic, in the stack
    #[arg(long, default_value = "auto")]
    xdp_mode: XdpMode,
    /// When there is nothing to do: adaptive spins, then yields, then sleeps; spin only spins
    #[arg(long, default_value = "adaptive")]
    idle: IdleMode,
    /// Nice value of workers: how far they go before other threads of their cores
    #[arg(long, default_value_t = -10, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    nice: i32,
    /// Poll drivers by our own system calls, for this many microseconds each
    #[arg(long, value_name = "USECS")]
    busy_poll: Option<u32>,
    /// Serve metrics for Prometheus over HTTP at this address, as in 127.0.0.1:9091 [default: nowhere]
    #[arg(long, env = "MARGAY_DATAPLANE_METRICS", value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// What to log: off, error, warn, info, debug or trace, and of modules, as in info,margay_dataplane::io=debug
    #[arg(long, env = "MARGAY_LOG", value_name = "LEVEL", default_value = "info")]
    log: Filter,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Hugepages {
    Auto,
    On,
    Off,
}

/// A table of the kernel's, and the one here that it is mirrored into.
#[derive(Clone, Copy)]
struct KernelTable {
    number: u32,
    into: TableId,
}

impl FromStr for KernelTable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (table, scope) = text.split_once(':').map_or((text, None), |(table, scope)| (table, Some(scope)));
        let number = match table {
            "main" => 254,
            "default" => 253,
            "local" | "255" => {
                return Err("the host's own addresses are known without its table local; name another".into());
            }
            _ => table.parse().ok().filter(|number| *number != 0).ok_or_else(|| {
                format!("{table:?} is no routing table; give its number, or main or default")
            })?,
        };
        let into = match scope {
            None => TableId::Main,
            Some("workloads") => TableId::Scoped(Scope::Workload),
            Some("host") => TableId::Scoped(Scope::Host),
            Some(other) => return Err(format!("{other:?} is no scope; give workloads or host, or none")),
        };
        Ok(Self { number, into })
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum XdpMode {
    Auto,
    Generic,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum WorkloadPortKind {
    AfXdp,
    Tap,
}

#[derive(Clone, Copy, ValueEnum)]
enum IdleMode {
    Adaptive,
    Spin,
}

fn main() -> ExitCode {
    let (args, settings) = settings::parse("MARGAY_DATAPLANE_CONFIG");
    match start(args, settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay-dataplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything but workers runs beside their cores: a compiler of policy there would take them from packets.
fn start(args: Args, settings: Vec<Setting>) -> anyhow::Result<()> {
    let log = Log::start(args.log.clone());
    let online = core_affinity::get_core_ids().context("asking for the cores that are online")?;
    let cores = cores(args.cores.as_deref(), &online, args.share_cores)?;
    let beside = beside(&cores);
    let stay_off = move || {
        if let Some(beside) = &beside {
            // Where it is refused, threads run where they may.
            let _ = sched_setaffinity(Pid::from_raw(0), beside);
        }
    };
    stay_off();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().on_thread_start(stay_off).build();
    runtime.context("starting the control threads")?.block_on(run(args, settings, log, cores))
}

/// The processors that this process may use and that no worker has; `None`: there are none.
fn beside(workers: &[CoreId]) -> Option<CpuSet> {
    let all = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut rest = CpuSet::new();
    let free = |cpu: &usize| all.is_set(*cpu).unwrap_or(false) && !workers.iter().any(|of| of.id == *cpu);
    for cpu in (0..CpuSet::count()).filter(free) {
        rest.set(cpu).ok()?;
    }
    (rest != CpuSet::new()).then_some(rest)
}

async fn run(args: Args, settings: Vec<Setting>, log: Log, cores: Vec<CoreId>) -> anyhow::Result<()> {
    let frames = near(cores[0], || frames(&args))?;
    // Nobody shall be able to choose members of IP sets that make lookups slow.
    let mib = |n: usize| n.saturating_mul(1 << 20);
    let ceiling = Ceiling { list: mib(args.policy_list_memory), table: mib(args.policy_memory) };
    let policy = PolicyTable::keyed(cores.len(), RandomState::new().hash_one(0)).with_ceiling(ceiling);
    let mut publisher = Publisher::new(Snapshot { policy: Arc::new(policy), ..Snapshot::empty(cores.len()) });
    let (ends, threads) = workers(&args, &cores, &frames, &mut publisher)?;

    let mut state = State::new(publisher, args.interfaces);
    let chance = RandomState::new();
    state.set_seeds([0u64, 1].map(|n| chance.hash_one(n)));
    want(&args, &mut state)?;
    let options = DeviceOptions {
        af_xdp: Options {
            require_zerocopy: args.require_zerocopy,
            busy_poll: args.busy_poll.map(|usecs| BusyPoll { usecs, budget: 64 }),
            ..Options::default()
        },
        generic_only: args.xdp_mode == XdpMode::Generic,
        workload_ports: match args.workload_ports {
            WorkloadPortKind::AfXdp => WorkloadPorts::AfXdp,
            WorkloadPortKind::Tap => WorkloadPorts::Tap,
        },
        workload: WorkloadRing { frames: args.workload_ring, burst: args.workload_burst },
    };
    let kernel_routes = kernel_routes(&args.kernel_routes)?;
    let (netlink, events) =
        Netlink::connect(!args.kernel_routes.is_empty()).context("connecting to the kernel by netlink")?;
    let counters = ends.iter().map(|end| end.counters.clone()).collect();
    let ports = Ports::new(frames, options, ends);
    let shell = Shell::new(state, ports, netlink, kernel_routes, KeyFile::new(&args.wireguard_key)).await?;
    let (requests, inbox) = mpsc::channel(64);
    let control = tokio::spawn(shell.run(inbox, events));
    tokio::spawn(watchdog::feed(counters, requests.clone()));

    let service = Service::new(requests).with_settings(settings, log);
    let scraped = match args.metrics {
        Some(at) => {
            let serving = margay_api::metrics::serve(at, service.clone()).await;
            Some(tokio::spawn(serving.with_context(|| format!("--metrics {at}"))?))
        }
        None => None,
    };
    serve(&args.listen, service).await?;
    scraped.inspect(|scraped| scraped.abort());
    watchdog::tell(NotifyState::Stopping);
    // Clients may still be connected: the control task ends now, and its XDP programs with it.
    control.abort();
    let _ = control.await;
    threads.into_iter().for_each(Thread::stop);
    tracing::info!("stopped");
    Ok(())
}

fn kernel_routes(tables: &[KernelTable]) -> anyhow::Result<KernelRoutes> {
    for (at, table) in tables.iter().enumerate() {
        let same = |other: &KernelTable| other.into == table.into || other.number == table.number;
        if tables[..at].iter().any(same) {
            bail!("--kernel-routes: a table is mirrored once, and one table for each scope");
        }
    }
    Ok(KernelRoutes::new(tables.iter().map(|table| (table.number, table.into))))
}

fn frames(args: &Args) -> anyhow::Result<Arc<Frames>> {
    let large = if args.workload_ports == WorkloadPortKind::Tap { args.large_frames } else { 0 };
    if args.hugepages != Hugepages::Off {
        match Frames::with_large(args.frames, args.frame_size, large, true) {
            Ok(frames) => {
                tracing::info!(frames = args.frames, "packet buffers are on hugepages");
                return Ok(frames);
            }
            Err(error @ FramesError::Map { bytes, .. }) if args.hugepages == Hugepages::On => {
                let pages = bytes.div_ceil(2 << 20);
                return Err(error).context(format!(
                    "{pages} free hugepages are needed for packets, and those that flow tables of this and \
                     other dataplanes take: raise vm.nr_hugepages"
                ));
            }
            Err(error @ FramesError::Map { .. }) => {
                tracing::info!(%error, "packet buffers are on ordinary pages");
            }
            Err(error) => return Err(error).context("--frames"),
        }
    }
    Frames::with_large(args.frames, args.frame_size, large, false).context("--frames")
}

/// What `make` takes of memory is of the node (NUMA) of `core`, where there are several: the kernel gives that of the
/// core which touches it first.
fn near<T>(core: CoreId, make: impl FnOnce() -> T) -> T {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this);
    core_affinity::set_for_current(core);
    let made = make();
    if let Ok(before) = before
        && let Err(error) = sched_setaffinity(this, &before)
    {
        tracing::info!(%error, core = core.id, "the control thread stays on this core");
    }
    made
}

/// The cores of a list as `2,3` or `4-7`, or the last one online.
fn cores(list: Option<&str>, online: &[CoreId], shared: bool) -> anyhow::Result<Vec<CoreId>> {
    let Some(list) = list else {
        return online.last().copied().map(|core| vec![core]).context("no core is online");
    };
    let number =
        |text: &str| text.trim().parse::<usize>().with_context(|| format!("--cores {list}: {text:?}"));
    let mut chosen = vec![];
    for part in list.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        for id in first..=last.min(first + 255) {
            let Some(core) = online.iter().find(|core| core.id == id) else {
                let ids: Vec<_> = online.iter().map(|core| core.id).collect();
                bail!("--cores {list}: core {id} is not online; there are {ids:?}");
            };
            chosen.push(*core);
        }
    }
    let distinct: BTreeSet<usize> = chosen.iter().map(|core| core.id).collect();
    if distinct.len() < chosen.len() && !shared {
        bail!("--cores {list}: a core is named twice; give each worker its own, or say --share-cores");
    }
    if chosen.is_empty() || chosen.len() > 255 {
        bail!("--cores {list}: name 1 to 255 cores");
    }
    Ok(chosen)
}

/// Starts a worker on each core.
fn workers(
    args: &Args,
    cores: &[CoreId],
    frames: &Arc<Frames>,
    publisher: &mut Publisher,
) -> anyhow::Result<(Vec<WorkerEnd>, Vec<Thread>)> {
    let inboxes: Arc<[Inbox]> = cores.iter().map(|_| Inbox::new(4096)).collect();
    let wakes = cores.iter().map(|_| Wake::new()).collect::<nix::Result<Vec<_>>>().context("eventfd")?;
    // One secret for all: workers must agree on who owns a flow.
    let chance = RandomState::new();
    let seeds = [0u64, 1, 2, 3].map(|n| chance.hash_one(n));
    let idle = match args.idle {
        IdleMode::Adaptive => Idle::Adaptive,
        IdleMode::Spin => Idle::Spin,
    };
    let limits = Limits {
        flows: Settings { sessions: args.flows, hugepages: args.hugepages != Hugepages::Off },
        interfaces: args.interfaces,
    };
    let directory = Arc::new(Directory::new(u64::from(args.flows) * cores.len() as u64));
    let (mut ends, mut threads) = (vec![], vec![]);
    for ((core, wake), number) in cores.iter().zip(&wakes).zip(0u8..) {
        let mut reader = publisher.reader();
        let first = reader.first();
        let id = WorkerId(number);
        let world = near(*core, || World::new(id, limits, FlowHasher::new(seeds), first, inboxes.clone()));
        let mut world = world.context("--flows")?;
        let flow_table = FlowMemory::of(&world.flows);
        let FlowMemory { hugepages, bytes, .. } = flow_table;
        tracing::info!(worker = number, hugepages, mebibytes = bytes >> 20, "flow table");
        if cores.len() > 1 {
            world.share(directory.clone());
        }
        let rings = Rings::default();
        let (events, handshakes) = (world.events.clone(), world.handshakes.clone());
        let counters = world.counters.clone();
        let pool = Pool::new(frames.clone(), 4096);
        let worker = Worker::new(world, pool, reader, rings.clone(), ticks);
        let nodes = worker.graph().counters().clone();
        let (core_id, wake) = (Some(core.id), wake.clone());
        ends.push(WorkerEnd {
            id,
            core: core_id,
            rings,
            wake,
            events,
            handshakes,
            counters,
            nodes,
            flow_table,
        });
        let parts = Parts { worker, core: Some(*core), idle, nice: args.nice, wakes: wakes.clone() };
        threads.push(Thread::start(parts).context("starting a worker")?);
    }
    Ok((ends, threads))
}

/// Tells the state which interfaces to serve from the start.
fn want(args: &Args, state: &mut State) -> anyhow::Result<()> {
    let taken = |name: &str| format!("{name} is named twice, or --interfaces is too small");
    for uplink in &args.uplinks {
        let vlan = match uplink.rsplit_once('.') {
            Some((carrier, tag)) => {
                let tag = tag.parse::<u16>().ok().filter(|tag| (1..4095).contains(tag));
                let tag =
                    tag.with_context(|| format!("--uplink {uplink}: the VLAN is not from 1 to 4094"))?;
                let carrier: Arc<str> = carrier.into();
                state.want(&carrier, Purpose::Uplink { vlan: None }).with_context(|| taken(&carrier))?;
                Some((carrier, tag))
            }
            None => None,
        };
        state.want(uplink, Purpose::Uplink { vlan }).with_context(|| taken(uplink))?;
    }
    if let Some(tap) = &args.host_tap {
        state.want(tap, Purpose::Host).with_context(|| taken(tap))?;
    }
    Ok(())
}

/// Serves until a signal asks to end.
async fn serve(path: &Path, service: Service) -> anyhow::Result<()> {
    let (_socket, listener) = unix::Socket::bind(path).await.context("--listen")?;
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let dataplane = DataplaneServer::new(service).max_decoding_message_size(16 << 20);
    health_reporter.set_serving::<DataplaneServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(margay_api::DESCRIPTORS)
        .build_v1()
        .context("reflection")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let server = tonic::transport::Server::builder()
        .add_service(health)
        .add_service(reflection)
        .add_service(dataplane);
    tracing::info!(socket = %path.display(), "ready");
    watchdog::tell(NotifyState::Ready);
    tokio::select! {
        served = server.serve_with_incoming(UnixListenerStream::new(listener)) => served.context("serving")?,
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(list: &str, shared: bool) -> Result<Vec<usize>, String> {
        let online = [0, 1, 2, 4].map(|id| CoreId { id });
        match cores(Some(list), &online, shared) {
            Ok(cores) => Ok(cores.into_iter().map(|core| core.id).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn two_workers_share_a_core_only_where_that_is_said() {
        assert_eq!(chosen("0-2,4", false), Ok(vec![0, 1, 2, 4]));
        for list in ["1,1", "0-2,2"] {
            assert!(chosen(list, false).unwrap_err().contains("--share-cores"), "{list}");
        }
        assert_eq!(chosen("1,1", true), Ok(vec![1, 1]));
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        for list in ["3", "0-4", "", "one"] {
            assert!(chosen(list, true).is_err(), "{list}");
        }
    }
}
