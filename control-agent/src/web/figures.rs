//! What the page is told, as JSON. Counts are totals: the page takes differences, and says of which time.

use crate::flows::Line;
use margay_api::{
    control::v1::{self as control, FlowSummary},
    dataplane::v1::{self as dataplane},
};
use serde::Serialize;

/// `/api/flows`: what came since the last time.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flows<'a> {
    /// For the next time.
    pub cursor: String,
    /// All that is kept, not what came since: the cursor was none of this process.
    pub anew: bool,
    /// The oldest first.
    pub flows: Vec<Line<'a>>,
    /// That are like the filter, but older and too many.
    pub left_out: u64,
    /// That came since the last time, and are kept no more.
    pub missed: u64,
    /// On their way from workers, since the agent began to read.
    pub lost: u64,
}

/// `/api/summary`: some of the last hour, put together.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    /// The largest first.
    pub groups: Vec<Group>,
    pub left_out: usize,
    /// Records that are in no group.
    pub beyond: u64,
    pub lost: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Group {
    source: String,
    destination: String,
    protocol: u32,
    port: u32,
    verdict: String,
    reason: String,
    policy: String,
    began: u64,
    ended: u64,
    refused: u64,
    packets: u64,
    bytes: u64,
    reply_packets: u64,
    reply_bytes: u64,
    staged_differs: u64,
}

impl From<FlowSummary> for Group {
    fn from(of: FlowSummary) -> Self {
        Self {
            source: of.source,
            destination: of.destination,
            protocol: of.protocol,
            port: of.port,
            verdict: of.verdict,
            reason: of.reason,
            policy: of.policy,
            began: of.began,
            ended: of.ended,
            refused: of.refused,
            packets: of.packets,
            bytes: of.bytes,
            reply_packets: of.reply_packets,
            reply_bytes: of.reply_bytes,
            staged_differs: of.staged_differs,
        }
    }
}

/// `/api/status`: what works, and what the node does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    version: String,
    node: String,
    uptime_seconds: u64,
    sent_generation: u64,
    adopted_generation: u64,
    components: Vec<Component>,
    /// None: it does not answer.
    dataplane: Option<Dataplane>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    name: String,
    healthy: bool,
    reason: String,
    /// 0: not known.
    since_unix_seconds: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dataplane {
    version: String,
    uptime_seconds: u64,
    flows: u64,
    rx: u64,
    tx: u64,
    punt: u64,
    drops: u64,
    lost: u64,
    frames: u64,
    free_frames: u64,
    workers: Vec<Worker>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    id: u32,
    core: u32,
    pinned: bool,
    idle_state: String,
    flows: u64,
    /// Flows it has room for.
    capacity: u64,
}

impl From<control::Status> for Status {
    fn from(of: control::Status) -> Self {
        let component = |of: control::Component| Component {
            name: of.name,
            healthy: of.healthy,
            reason: of.reason,
            since_unix_seconds: of.since_unix_seconds,
        };
        Self {
            version: of.version,
            node: of.node,
            uptime_seconds: of.uptime_seconds,
            sent_generation: of.sent_generation,
            adopted_generation: of.adopted_generation,
            components: of.components.into_iter().map(component).collect(),
            dataplane: of.dataplane.map(Dataplane::from),
        }
    }
}

impl From<dataplane::Status> for Dataplane {
    fn from(of: dataplane::Status) -> Self {
        let (accounting, buffers) = (of.accounting.unwrap_or_default(), of.buffers.unwrap_or_default());
        let worker = |of: dataplane::Worker| Worker {
            id: of.id,
            core: of.core,
            pinned: of.pinned,
            idle_state: of.idle_state,
            flows: of.flows,
            capacity: of.flow_table.map_or(0, |table| table.capacity),
        };
        Self {
            version: of.version,
            uptime_seconds: of.uptime_seconds,
            flows: of.flows,
            rx: accounting.rx,
            tx: accounting.tx,
            punt: accounting.punt,
            drops: accounting.drops,
            lost: accounting.lost,
            frames: buffers.frames,
            free_frames: buffers.free,
            workers: of.workers.into_iter().map(worker).collect(),
        }
    }
}

/// `/api/runtime`: what each worker does, and what each node of it costs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Runtime {
    tsc_hz: f64,
    workers: Vec<WorkerRuntime>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkerRuntime {
    worker: u32,
    polls: u64,
    empty_polls: u64,
    sleeps: u64,
    cycles: u64,
    busy_cycles: u64,
    nodes: Vec<Node>,
}

#[derive(Debug, Serialize)]
struct Node {
    name: String,
    vectors: u64,
    packets: u64,
    cycles: u64,
}

impl From<dataplane::Runtime> for Runtime {
    fn from(of: dataplane::Runtime) -> Self {
        let node = |of: dataplane::NodeRuntime| Node {
            name: of.name,
            vectors: of.vectors,
            packets: of.packets,
            cycles: of.cycles,
        };
        let worker = |of: dataplane::WorkerRuntime| WorkerRuntime {
            worker: of.worker,
            polls: of.polls,
            empty_polls: of.empty_polls,
            sleeps: of.sleeps,
            cycles: of.cycles,
            busy_cycles: of.busy_cycles,
            nodes: of.nodes.into_iter().map(node).collect(),
        };
        Self { tsc_hz: of.tsc_hz, workers: of.workers.into_iter().map(worker).collect() }
    }
}

/// `/api/drops`: why packets were dropped, and by which rules.
#[derive(Debug, Serialize)]
pub(super) struct Drops {
    drops: Vec<Drop>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Drop {
    reason: String,
    sentence: String,
    packets: u64,
    last_packet: String,
    /// Those that dropped most.
    rules: Vec<RuleDrops>,
}

#[derive(Debug, Serialize)]
struct RuleDrops {
    endpoint: String,
    direction: String,
    tier: String,
    policy: String,
    /// -1: the default.
    rule: i32,
    packets: u64,
}

/// Rules of one reason that are told.
const RULES: usize = 20;

impl From<dataplane::ListDropsResponse> for Drops {
    fn from(of: dataplane::ListDropsResponse) -> Self {
        let rule = |of: dataplane::RuleDrops| RuleDrops {
            endpoint: of.endpoint,
            direction: of.direction,
            tier: of.tier,
            policy: of.policy,
            rule: of.rule,
            packets: of.packets,
        };
        let drop = |of: dataplane::Drop| Drop {
            reason: of.reason,
            sentence: of.sentence,
            packets: of.packets,
            last_packet: of.last_packet,
            rules: of.rules.into_iter().take(RULES).map(rule).collect(),
        };
        Self { drops: of.drops.into_iter().map(drop).collect() }
    }
}
