//! `status`: one line a component, then what the node is made of.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use margay_api::{control::v1 as control, dataplane::v1 as dataplane};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    args::{Global, StatusAsked},
    client,
    exit::{Code, Outcome},
    output::{Cell, Output, Table, Tone, View},
    readable::{count, percent, rounded, span, utc},
};

/// Between two looks, while it is waited for.
const PAUSE: Duration = Duration::from_millis(250);

/// Asks the agent, which asks the dataplane.
pub async fn run(global: &Global, args: &StatusAsked, out: &mut Output) -> Outcome {
    let end = args.wait.then(|| Instant::now() + global.timeout);
    loop {
        let read = read(global).await;
        let again = end.is_some_and(|end| Instant::now() + PAUSE < end);
        if again && !read.as_ref().is_ok_and(|status| status.healthy) {
            sleep(PAUSE).await;
            continue;
        }
        let status = read?;
        out.show(&status, args.output)?;
        return Ok(if status.healthy { Code::Ok } else { Code::Problems });
    }
}

async fn read(global: &Global) -> Outcome<Status> {
    let mut agent = client::agent(global).await?;
    let call = agent.get_status(control::GetStatusRequest {});
    Ok(Status::from(client::answer(global.timeout, "read the status", call).await?.into_inner()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    healthy: bool,
    node: String,
    version: String,
    uptime_seconds: u64,
    components: Vec<Component>,
    sent_generation: u64,
    adopted_generation: u64,
    /// Absent when the agent cannot reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataplane: Option<Dataplane>,
    endpoints: Vec<Endpoint>,
    /// Present when a relay answers, which is no node's agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<Relay>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relay {
    objects: u64,
    selectors: u64,
    listed: u64,
    resumed: u64,
    dropped: u64,
    events: u64,
    bytes: u64,
    clients: Vec<RelayClient>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RelayClient {
    name: String,
    /// Empty: everything.
    node: String,
    connected_seconds: u64,
    objects: u64,
    behind_milliseconds: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    name: String,
    healthy: bool,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    namespace: String,
    name: String,
    interface_name: String,
    addresses: Vec<String>,
    state: String,
    reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dataplane {
    version: String,
    uptime_seconds: u64,
    adopted_generation: u64,
    committed_generation: u64,
    agent_connected: bool,
    in_sync: bool,
    workers: Vec<Worker>,
    #[serde(skip_serializing_if = "Option::is_none")]
    buffers: Option<Buffers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accounting: Option<Accounting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_memory: Option<PolicyMemory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nat: Option<Nat>,
    policies: u64,
    ip_sets: u64,
    routes: u64,
    workload_endpoints: u64,
    flows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload_mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_refused: Option<Refused>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    id: u32,
    core: u32,
    pinned: bool,
    busy: f64,
    idle_state: String,
    seen_generation: u64,
    flows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_table: Option<FlowTable>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FlowTable {
    capacity: u64,
    bytes: u64,
    hugepages: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Buffers {
    frames: u64,
    frame_size: u32,
    hugepages: bool,
    free: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Accounting {
    rx: u64,
    tx: u64,
    punt: u64,
    drops: u64,
    in_flight: u64,
    originated: u64,
    lost: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyMemory {
    bytes: u64,
    ceiling: u64,
    compact_lists: u32,
    patched_lists: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Nat {
    first_port: u32,
    last_port: u32,
    mapping: &'static str,
    exhausted: u64,
}

#[derive(Serialize)]
struct Refused {
    generation: u64,
    errors: Vec<ObjectError>,
}

#[derive(Serialize)]
struct ObjectError {
    object: String,
    field: String,
    message: String,
}

impl From<control::Status> for Status {
    fn from(from: control::Status) -> Self {
        let component = |component: control::Component| Component {
            name: component.name,
            healthy: component.healthy,
            reason: component.reason,
            since: utc(component.since_unix_seconds),
        };
        let endpoint = |endpoint: control::Endpoint| Endpoint {
            namespace: endpoint.namespace,
            name: endpoint.name,
            interface_name: endpoint.interface_name,
            addresses: endpoint.addresses,
            state: endpoint.state,
            reason: endpoint.reason,
        };
        let components: Vec<_> = from.components.into_iter().map(component).collect();
        Self {
            healthy: components.iter().all(|component| component.healthy)
                && (from.dataplane.is_some() || from.relay.is_some()),
            node: from.node,
            version: from.version,
            uptime_seconds: from.uptime_seconds,
            components,
            sent_generation: from.sent_generation,
            adopted_generation: from.adopted_generation,
            dataplane: from.dataplane.map(Dataplane::from),
            endpoints: from.endpoints.into_iter().map(endpoint).collect(),
            relay: from.relay.map(Relay::from),
        }
    }
}

impl From<control::Relay> for Relay {
    fn from(from: control::Relay) -> Self {
        let client = |client: control::RelayClient| RelayClient {
            name: client.name,
            node: client.node,
            connected_seconds: client.connected_seconds,
            objects: client.objects,
            behind_milliseconds: client.behind_milliseconds,
            bytes: client.bytes,
        };
        Self {
            objects: from.objects,
            selectors: from.selectors,
            listed: from.listed,
            resumed: from.resumed,
            dropped: from.dropped,
            events: from.events,
            bytes: from.bytes,
            clients: from.clients.into_iter().map(client).collect(),
        }
    }
}

impl From<dataplane::Status> for Dataplane {
    fn from(from: dataplane::Status) -> Self {
        let worker = |worker: dataplane::Worker| Worker {
            id: worker.id,
            core: worker.core,
            pinned: worker.pinned,
            busy: rounded(worker.busy),
            idle_state: worker.idle_state,
            seen_generation: worker.seen_generation,
            flows: worker.flows,
            flow_table: worker.flow_table.map(|table| FlowTable {
                capacity: table.capacity,
                bytes: table.bytes,
                hugepages: table.hugepages,
            }),
        };
        let error = |error: dataplane::ObjectError| ObjectError {
            object: error.object,
            field: error.field,
            message: error.message,
        };
        Self {
            version: from.version,
            uptime_seconds: from.uptime_seconds,
            adopted_generation: from.adopted_generation,
            committed_generation: from.committed_generation,
            agent_connected: from.agent_connected,
            in_sync: from.in_sync,
            workers: from.workers.into_iter().map(worker).collect(),
            buffers: from.buffers.map(|buffers| Buffers {
                frames: buffers.frames,
                frame_size: buffers.frame_size,
                hugepages: buffers.hugepages,
                free: buffers.free,
            }),
            accounting: from.accounting.map(|accounting| Accounting {
                rx: accounting.rx,
                tx: accounting.tx,
                punt: accounting.punt,
                drops: accounting.drops,
                in_flight: accounting.in_flight,
                originated: accounting.originated,
                lost: accounting.lost,
            }),
            policy_memory: from.policy_memory.map(|memory| PolicyMemory {
                bytes: memory.bytes,
                ceiling: memory.ceiling,
                compact_lists: memory.compact_lists,
                patched_lists: memory.patched_lists,
            }),
            nat: from.nat.map(|nat| Nat {
                first_port: nat.ports.map_or(0, |ports| ports.first),
                last_port: nat.ports.map_or(0, |ports| ports.last),
                mapping: match nat.mapping() {
                    dataplane::node_config::NatMapping::AddressAndPort => "AddressAndPort",
                    dataplane::node_config::NatMapping::EndpointIndependent => "EndpointIndependent",
                },
                exhausted: nat.exhausted,
            }),
            policies: from.policies,
            ip_sets: from.ip_sets,
            routes: from.routes,
            workload_endpoints: from.workload_endpoints,
            flows: from.flows,
            workload_mtu: (from.workload_mtu > 0).then_some(from.workload_mtu),
            last_refused: from.last_refused.map(|refused| Refused {
                generation: refused.generation,
                errors: refused.errors.into_iter().map(error).collect(),
            }),
        }
    }
}

impl View for Status {
    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let mut table = Table::new(["COMPONENT", "STATE", "SINCE", "REASON"]);
        for component in &self.components {
            let state = match component.healthy {
                true => Cell::toned("ok", Tone::Good),
                false => Cell::toned("FAILING", Tone::Bad),
            };
            let since = component.since.as_deref().unwrap_or_default();
            table.row(vec![(&component.name).into(), state, since.into(), (&component.reason).into()]);
        }
        table.print(out)?;

        writeln!(out)?;
        let uptime = span(self.uptime_seconds);
        if let Some(relay) = &self.relay {
            writeln!(out, "Relay:       {} up {uptime}", self.version)?;
            return relay.text(out, wide);
        }
        writeln!(out, "Node:        {}, agent {} up {uptime}", self.node, self.version)?;
        let (sent, adopted) = (self.sent_generation, self.adopted_generation);
        writeln!(out, "Generation:  {sent} sent, {adopted} adopted")?;
        match &self.dataplane {
            Some(dataplane) => dataplane.text(out)?,
            None => writeln!(out, "Dataplane:   {}", out.paint("unreachable", Tone::Bad))?,
        }
        let in_state = |state| self.endpoints.iter().filter(|endpoint| endpoint.state == state).count();
        let (up, down, error) = (in_state("up"), in_state("down"), in_state("error"));
        writeln!(out, "Endpoints:   {up} up, {down} down, {error} in error")?;
        if wide {
            self.dataplane.iter().try_for_each(|dataplane| dataplane.workers_table(out))?;
            self.endpoints_table(out)?;
        }
        Ok(())
    }
}

impl Relay {
    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let (objects, selectors) = (self.objects, self.selectors);
        writeln!(out, "Store:       {objects} objects, {selectors} selectors that agents need members of")?;
        let behind = self.clients.iter().map(|client| client.behind_milliseconds).max().unwrap_or(0);
        writeln!(out, "Agents:      {}, the last one {behind} ms behind", self.clients.len())?;
        let Self { listed, resumed, dropped, .. } = self;
        writeln!(
            out,
            "Streams:     {listed} from the beginning, {resumed} resumed, {dropped} dropped as too slow"
        )?;
        writeln!(out, "Told:        {} objects, {} bytes", self.events, self.bytes)?;
        if wide {
            writeln!(out)?;
            let mut table = Table::new(["AGENT", "NODE", "CONNECTED", "OBJECTS", "BEHIND", "BYTES"]);
            for client in &self.clients {
                let node = if client.node.is_empty() { "(all)" } else { &client.node };
                table.row(vec![
                    (&client.name).into(),
                    node.into(),
                    span(client.connected_seconds).into(),
                    client.objects.to_string().into(),
                    format!("{} ms", client.behind_milliseconds).into(),
                    client.bytes.to_string().into(),
                ]);
            }
            table.print(out)?;
        }
        Ok(())
    }
}

impl Status {
    fn endpoints_table(&self, out: &mut Output) -> io::Result<()> {
        let mut table = Table::new(["NAMESPACE", "ENDPOINT", "INTERFACE", "ADDRESSES", "STATE", "REASON"]);
        for endpoint in &self.endpoints {
            let tone = match endpoint.state.as_str() {
                "up" => Tone::Good,
                "error" => Tone::Bad,
                _ => Tone::Warn,
            };
            table.row(vec![
                (&endpoint.namespace).into(),
                (&endpoint.name).into(),
                (&endpoint.interface_name).into(),
                endpoint.addresses.join(",").into(),
                Cell::toned(&endpoint.state, tone),
                (&endpoint.reason).into(),
            ]);
        }
        writeln!(out)?;
        table.print(out)
    }
}

impl Dataplane {
    /// Room and memory of a worker's flow table: all have the same, but some may have come too late for
    /// hugepages.
    fn flow_tables(&self, out: &mut Output) -> io::Result<()> {
        let tables: Vec<_> = self.workers.iter().filter_map(|worker| worker.flow_table.as_ref()).collect();
        let Some(FlowTable { capacity, bytes, .. }) = tables.first() else { return Ok(()) };
        let memory = match (tables.iter().filter(|table| table.hugepages).count(), tables.len()) {
            (0, _) => "without hugepages".to_owned(),
            (on, all) if on == all => "on hugepages".to_owned(),
            (on, all) => format!("{on} of {all} on hugepages"),
        };
        writeln!(out, "Flow tables: {capacity} flows and {} MiB a worker, {memory}", bytes >> 20)
    }

    fn text(&self, out: &mut Output) -> io::Result<()> {
        let sync = match (self.agent_connected, self.in_sync) {
            (true, true) => out.paint("in sync", Tone::Good),
            (true, false) => out.paint("not in sync yet", Tone::Warn),
            (false, _) => out.paint("without an agent", Tone::Warn),
        };
        writeln!(out, "Dataplane:   {} up {}, {sync}", self.version, span(self.uptime_seconds))?;
        let busy: Vec<_> = self.workers.iter().map(|worker| percent(worker.busy)).collect();
        writeln!(out, "Workers:     {}, busy {}", self.workers.len(), busy.join(" "))?;
        if let Some(buffers) = &self.buffers {
            let memory = if buffers.hugepages { "on hugepages" } else { "without hugepages" };
            let (frames, size, free) = (buffers.frames, buffers.frame_size, buffers.free);
            writeln!(out, "Buffers:     {frames} frames of {size} bytes {memory}, {free} free")?;
        }
        self.flow_tables(out)?;
        if let Some(Accounting { rx, tx, punt, drops, in_flight, originated, lost }) = &self.accounting {
            write!(
                out,
                "Packets:     rx {rx} = tx {tx} + punt {punt} + drops {drops} + in flight {in_flight}"
            )?;
            writeln!(out, " ({originated} of them our own)")?;
            if *lost > 0 {
                let lost = format!("{lost} packets in the kernel, before they were received");
                writeln!(out, "Lost:        {}", out.paint(&lost, Tone::Bad))?;
            }
        }
        if let Some(PolicyMemory { bytes, ceiling, compact_lists, patched_lists }) = &self.policy_memory {
            let (kib, mib) = (bytes.div_ceil(1 << 10), ceiling >> 20);
            write!(out, "Trees:       {kib} KiB of {mib} MiB, {patched_lists} patched")?;
            match compact_lists {
                0 => writeln!(out)?,
                n => writeln!(
                    out,
                    ", {}",
                    out.paint(&format!("{n} in a slower form for want of memory"), Tone::Bad)
                )?,
            }
        }
        if let Some(Nat { first_port, last_port, mapping, exhausted }) = &self.nat {
            write!(out, "NAT:         ports {first_port} to {last_port}, mapping {mapping}")?;
            match exhausted {
                0 => writeln!(out)?,
                n => {
                    let refused = format!("{n} packets dropped for want of a free port");
                    writeln!(out, ", {}", out.paint(&refused, Tone::Bad))?;
                }
            }
        }
        writeln!(
            out,
            "Holds:       {}, {}, {}, {}, {}",
            count(self.policies, "policy", "policies"),
            count(self.ip_sets, "IP set", "IP sets"),
            count(self.routes, "route", "routes"),
            count(self.workload_endpoints, "endpoint", "endpoints"),
            count(self.flows, "flow", "flows"),
        )?;
        if let Some(mtu) = self.workload_mtu {
            writeln!(out, "MTU:         {mtu} for workloads")?;
        }
        if let Some(refused) = &self.last_refused {
            writeln!(out, "Refused:     generation {}", refused.generation)?;
            for ObjectError { object, field, message } in &refused.errors {
                let place = if field.is_empty() { object.clone() } else { format!("{object}, {field}") };
                writeln!(out, "             {}", out.paint(&format!("{place}: {message}"), Tone::Bad))?;
            }
        }
        Ok(())
    }

    fn workers_table(&self, out: &mut Output) -> io::Result<()> {
        let mut table = Table::new([">WORKER", ">CORE", "PINNED", ">BUSY", "IDLE", ">GENERATION", ">FLOWS"]);
        for worker in &self.workers {
            table.row(vec![
                worker.id.into(),
                worker.core.into(),
                (if worker.pinned { "yes" } else { "no" }).into(),
                percent(worker.busy).into(),
                (&worker.idle_state).into(),
                worker.seen_generation.into(),
                worker.flows.into(),
            ]);
        }
        writeln!(out)?;
        table.print(out)
    }
}
