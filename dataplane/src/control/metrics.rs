//! What a scrape by Prometheus sees of this process. Every count is read from where its writer keeps it: nothing is
//! counted for the sake of metrics on the packet path.

use super::Service;
use super::denials::Denials;
use super::ports::Ports;
use super::shell::{Lost, Shell};
use super::state::State;
use super::view;
use crate::packet::DropReason;
use margay_api::dataplane::v1 as pb;
use margay_api::metrics::{Families, Histogram, Metrics};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Interfaces that are shown one by one; how many more there are is said.
const INTERFACES: usize = 1000;

/// What the control thread takes its time for.
#[derive(Default)]
pub struct Timings {
    /// A transaction: to read, check and compile it.
    commit: Histogram,
    /// From a transaction's coming until every worker judges by it.
    apply: Histogram,
    /// Applied, and not adopted by all: its generation, and when it came.
    awaited: Option<(u64, Instant)>,
}

impl Timings {
    /// A transaction that came at `from` was applied.
    pub fn committed(&mut self, generation: u64, from: Instant) {
        self.commit.observe(from.elapsed());
        // Of several, the one that has waited for longest.
        self.awaited.get_or_insert((generation, from));
    }

    /// Workers judge by `generation`, all of them.
    pub fn adopted(&mut self, generation: u64) {
        if let Some((_, from)) = self.awaited.take_if(|(awaited, _)| *awaited <= generation) {
            self.apply.observe(from.elapsed());
        }
    }
}

impl Metrics for Service {
    async fn families(&self) -> Result<Families, String> {
        self.look(Shell::metrics).await.map_err(|status| status.message().to_owned())
    }

    /// Without an agent too: what it was told last is enforced.
    async fn ready(&self) -> Result<(), String> {
        self.look(|_| ()).await.map_err(|status| status.message().to_owned())
    }
}

/// What the shell has besides state and ports.
pub struct Sources<'s> {
    /// As the API shows it.
    pub status: pb::Status,
    /// On the way to who reads of flows.
    pub lost: Lost,
    /// As the API shows them.
    pub interfaces: Vec<pb::Interface>,
    /// What was decided.
    pub denials: &'s mut Denials,
    /// How long it took.
    pub timings: &'s Timings,
    /// Of this node's endpoints.
    pub endpoints: &'s BTreeMap<super::EndpointId, pb::EndpointStatus>,
    /// Since the process began.
    pub uptime: Duration,
}

/// Everything.
pub fn families(state: &State, ports: &Ports, sources: Sources<'_>) -> Families {
    let Sources { status, lost, interfaces, denials, timings, endpoints, uptime } = sources;
    let mut f = Families::default();
    f.gauge("margay_build_info", "The release that runs; always 1.")
        .sample([("component", "dataplane"), ("version", &status.version)], 1);
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(uptime);
    f.gauge("process_start_time_seconds", "When the process began, in seconds since 1970.")
        .real([], began.as_secs_f64());
    self::packets(&mut f, &status, &interfaces, ports);
    workers(&mut f, ports, &status);
    conntrack(&mut f, ports, &status);
    flows(&mut f, lost);
    policy(&mut f, state, denials, timings, &status);
    objects(&mut f, state, &status, endpoints);
    f
}

fn packets(f: &mut Families, status: &pb::Status, interfaces: &[pb::Interface], ports: &Ports) {
    let shown = &interfaces[..interfaces.len().min(INTERFACES)];
    type Of = fn(&pb::Queue) -> u64;
    let sum = |interface: &pb::Interface, of: Of| interface.queues.iter().map(of).sum::<u64>();
    let mut both = |name, help, of: [Of; 2]| {
        let family = f.counter(name, help);
        for interface in shown {
            for (direction, of) in ["rx", "tx"].into_iter().zip(of) {
                let labels = [
                    ("interface", interface.name.as_str()),
                    ("kind", interface.kind.as_str()),
                    ("direction", direction),
                ];
                family.sample(labels, sum(interface, of));
            }
        }
    };
    both(
        "margay_dp_packets",
        "Packets that an interface's queues received and sent.",
        [|q| q.rx_packets, |q| q.tx_packets],
    );
    both(
        "margay_dp_bytes",
        "Bytes of those packets, link headers included.",
        [|q| q.rx_bytes, |q| q.tx_bytes],
    );
    let kernel = f.counter(
        "margay_dp_xsk_kernel_drops",
        "Packets that the kernel dropped before AF_XDP sockets, by cause.",
    );
    for interface in shown {
        let causes: [(&str, Of); 4] = [
            ("rx_dropped", |q| q.kernel_rx_dropped),
            ("rx_ring_full", |q| q.kernel_rx_ring_full),
            ("fill_ring_empty", |q| q.kernel_fill_ring_empty),
            ("invalid_descriptors", |q| q.kernel_invalid_descriptors),
        ];
        for (cause, of) in causes {
            kernel.sample([("interface", &interface.name), ("cause", cause)], sum(interface, of));
        }
    }
    let up = f.gauge("margay_dp_interface_up", "1: the interface is served.");
    for interface in shown {
        let labels = [
            ("interface", interface.name.as_str()),
            ("kind", interface.kind.as_str()),
            ("mode", interface.mode.as_str()),
        ];
        up.sample(labels, interface.up.into());
    }
    f.level(
        "margay_dp_interfaces_unlisted",
        "Interfaces that are not among the metrics by interface, being too many.",
        (interfaces.len() - shown.len()) as u64,
    );
    let drops = f.counter("margay_dp_drops", "Packets dropped, by reason: see `margayctl dp drops`.");
    for reason in DropReason::ALL {
        let sum = ports.workers().iter().map(|end| end.counters.dropped(*reason).get()).sum();
        drops.sample([("reason", reason.name())], sum);
    }
    let accounting = status.accounting.unwrap_or_default();
    f.count(
        "margay_dp_received_packets",
        "Packets that workers took in, those made here included.",
        accounting.rx,
    );
    f.count("margay_dp_sent_packets", "Packets that devices took.", accounting.tx);
    f.count("margay_dp_punted_packets", "Packets that ended with the control thread.", accounting.punt);
    f.count(
        "margay_dp_originated_packets",
        "Packets made here: answers, ICMP errors, questions.",
        accounting.originated,
    );
    f.level(
        "margay_dp_packets_in_flight",
        "Packets that wait: for neighbours, or on their way between workers.",
        accounting.in_flight,
    );
}

fn workers(f: &mut Families, ports: &Ports, status: &pb::Status) {
    let ids: Vec<String> = ports.workers().iter().map(|end| end.id.0.to_string()).collect();
    let ends = || ids.iter().map(String::as_str).zip(ports.workers());
    type Of = fn(&crate::nodes::WorkerCounters) -> u64;
    let mut each = |name, help, of: Of| {
        let family = f.counter(name, help);
        ends().for_each(|(id, end)| {
            family.sample([("worker", id)], of(&end.counters));
        });
    };
    each("margay_dp_worker_cycles", "Ticks of the time-stamp counter since the worker began.", |c| {
        c.ticks.get()
    });
    each("margay_dp_worker_busy_cycles", "Those of them spent in polls that found packets.", |c| {
        c.busy_ticks.get()
    });
    each("margay_dp_worker_polls", "Times the worker looked for packets.", |c| c.polls.get());
    each("margay_dp_worker_empty_polls", "Times it found none.", |c| c.empty_polls.get());
    each("margay_dp_worker_sleeps", "Times it went to sleep.", |c| c.sleeps.get());
    each("margay_dp_events_lost", "News of the worker that the control thread had no room for.", |c| {
        c.lost_events.get()
    });
    each("margay_dp_handed_over_packets", "Packets that the worker left to others.", |c| c.handed_out.get());

    let nodes: Vec<_> = ends().map(|(id, end)| (id, end.nodes.read())).collect();
    type OfNode = fn(&crate::graph::NodeCount) -> u64;
    let mut stage = |name, help, of: OfNode| {
        let family = f.counter(name, help);
        for (id, nodes) in &nodes {
            for node in nodes {
                family.sample([("stage", node.name), ("worker", id)], of(node));
            }
        }
    };
    stage("margay_dp_stage_cycles", "Ticks spent in a node of the packet graph.", |node| node.cycles);
    stage("margay_dp_stage_calls", "Times the node was called, each with a vector of packets.", |node| {
        node.vectors
    });
    stage("margay_dp_stage_packets", "Packets that the node judged.", |node| node.packets);

    let seen = f.gauge(
        "margay_dp_worker_generation",
        "Of the snapshot that the worker judges by. Workers agree, but for moments.",
    );
    for worker in &status.workers {
        seen.sample([("worker", &worker.id.to_string())], worker.seen_generation);
    }
    let buffers = view::buffers(ports);
    let frames = f.gauge("margay_dp_frames", "Packet buffers, by who has them: see `margayctl dp buffers`.");
    for pb::BufferOwner { owner, worker, frames: count } in &buffers {
        let worker = if *worker < 0 { String::new() } else { worker.to_string() };
        frames.sample([("owner", owner.as_str()), ("worker", &worker)], *count);
    }
}

fn conntrack(f: &mut Families, ports: &Ports, status: &pb::Status) {
    let entries = f.gauge("margay_conntrack_entries", "Flows that are tracked.");
    for worker in &status.workers {
        entries.sample([("worker", &worker.id.to_string())], worker.flows);
    }
    let capacity = f.gauge("margay_conntrack_capacity", "Flows that there is room for.");
    for worker in &status.workers {
        let room = worker.flow_table.map_or(0, |table| table.capacity);
        capacity.sample([("worker", &worker.id.to_string())], room);
    }
    type Of = fn(&crate::nodes::WorkerCounters) -> u64;
    let mut each = |name, help, of: Of| {
        let sum = ports.workers().iter().map(|end| of(&end.counters)).sum();
        f.count(name, help, sum);
    };
    each("margay_conntrack_inserts", "Flows that were entered.", |c| c.flows_inserted.get());
    each("margay_conntrack_expirations", "Flows that nobody used any more.", |c| c.flows_expired.get());
    each("margay_conntrack_evictions", "Flows given up, half-open or closed, to make room.", |c| {
        c.flows_evicted.get()
    });
    each("margay_conntrack_insert_failures", "Flows that found no room.", |c| c.flows_refused.get());
    if let Some(nat) = &status.nat {
        let range = nat.ports.unwrap_or_default();
        let ports = u64::from(range.last.saturating_sub(range.first)) + 1;
        f.level("margay_nat_ports", "Ports to leave the node with, towards each server.", ports);
        f.count("margay_nat_exhaustions", "Packets dropped because none of them was free.", nat.exhausted);
    }
}

fn flows(f: &mut Families, lost: Lost) {
    let family = f.counter(
        "margay_flows_events_lost",
        "Records of flows, and of refused attempts, that found no room on their way to the agent.",
    );
    family.sample([("cause", "flow_ring")], lost.flows);
    family.sample([("cause", "refusal_ring")], lost.refusals);
}

fn policy(f: &mut Families, state: &State, denials: &mut Denials, timings: &Timings, status: &pb::Status) {
    let generation = f.gauge(
        "margay_policy_generation",
        "Of the agent's transactions: the last that was applied here, and the last that every worker judges by.",
    );
    generation.sample([("stage", "committed")], status.committed_generation);
    generation.sample([("stage", "adopted")], status.adopted_generation);
    f.histogram(
        "margay_policy_commit_seconds",
        "To read, check and compile one of the agent's transactions.",
        &timings.commit,
    );
    f.histogram(
        "margay_policy_apply_seconds",
        "From a transaction's coming until every worker judges by it.",
        &timings.apply,
    );
    let (decided, others) = denials.by_policy.read(state.policy().trees());
    let mut decided: Vec<_> = decided.into_iter().collect();
    decided.sort_by(|(a, _), (b, _)| (&a.tier, &a.policy, a.verdict).cmp(&(&b.tier, &b.policy, b.verdict)));
    let packets = f.counter(
        "margay_policy_packets",
        "Packets that a policy decided about: the first of flows, and those without. Without a policy: a default.",
    );
    for (by, count) in &decided {
        packets.sample([("tier", &*by.tier), ("policy", &*by.policy), ("verdict", by.verdict)], *count);
    }
    if others > 0 {
        packets.sample([("policy", "other")], others);
    }
    let memory = status.policy_memory.unwrap_or_default();
    f.level("margay_policy_tree_bytes", "Memory of compiled policy.", memory.bytes);
    f.level(
        "margay_policy_tree_limit_bytes",
        "Beyond it rule lists are compiled in a slower form.",
        memory.ceiling,
    );
    let lists = f.gauge(
        "margay_policy_lists",
        "Compiled rule lists: in the slower form, and patched since they were compiled.",
    );
    lists.sample([("form", "compact")], memory.compact_lists.into());
    lists.sample([("form", "patched")], memory.patched_lists.into());
}

fn objects(
    f: &mut Families,
    state: &State,
    status: &pb::Status,
    endpoints: &BTreeMap<super::EndpointId, pb::EndpointStatus>,
) {
    f.level("margay_dp_agent_connected", "1: an agent's stream is open.", status.agent_connected.into());
    f.level(
        "margay_dp_in_sync",
        "1: the agent has said everything since it connected.",
        status.in_sync.into(),
    );
    let family =
        f.gauge("margay_dp_endpoints", "Workloads of this node, by whether their interfaces are served.");
    let up = endpoints.values().filter(|status| status.state() == pb::endpoint_status::State::Up).count();
    family.sample([("state", "up")], up as u64);
    family.sample([("state", "down")], (endpoints.len() - up) as u64);
    let family = f.gauge("margay_dp_objects", "What the agent asked for, by kind.");
    let desired = state.desired();
    let objects: [(&str, u64); 5] = [
        ("policy", status.policies),
        ("ip_set", status.ip_sets),
        ("service", desired.services.len() as u64),
        ("host_endpoint", desired.host_endpoints.len() as u64),
        ("tunnel", desired.far_ends.len() as u64),
    ];
    for (kind, count) in objects {
        family.sample([("kind", kind)], count);
    }
    f.level("margay_dp_routes", "Routes in the forwarding table.", status.routes);
}
