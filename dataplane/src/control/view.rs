//! What the control thread shows: status, interfaces, runtime, drops.

use super::denials::Denials;
use super::ports::Ports;
use super::state::{Purpose, State};
use crate::conntrack::{Side, nat::Mapping};
use crate::fib::{Interface, Quota};
use crate::net::{IfId, PortRange};
use crate::nodes::{Histogram, WorkerCounters};
use crate::packet::DropReason;
use crate::snapshot::Snapshot;
use crate::wireguard::LANES;
use margay_api::dataplane::v1::{self as pb, node_config::NatMapping};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// How far the dataplane has got.
pub fn status(state: &mut State, ports: &Ports, agent_connected: bool, uptime_seconds: u64) -> pb::Status {
    let seen = state.publisher().seen();
    let workers = ports.workers().iter().zip(seen).map(|(end, seen)| {
        let (counters, table) = (&end.counters, end.flow_table);
        pb::Worker {
            id: u32::from(end.id.0),
            core: end.core.unwrap_or_default() as u32,
            pinned: end.core.is_some(),
            busy: counters.busy_ticks.get() as f64 / counters.ticks.get().max(1) as f64,
            seen_generation: u64::from(seen.0),
            flows: counters.flows.get(),
            idle_state: if end.wake.is_sleeping() { "sleeping" } else { "polling" }.into(),
            flow_table: Some(pb::FlowTable {
                capacity: table.capacity.into(),
                bytes: table.bytes as u64,
                hugepages: table.hugepages,
            }),
        }
    });
    let workers: Vec<_> = workers.collect();
    let sum =
        |of: fn(&WorkerCounters) -> u64| ports.workers().iter().map(|end| of(&end.counters)).sum::<u64>();
    let frames = ports.frames();
    let memory = state.policy().memory();
    let ceiling = state.policy().ceiling().table as u64;
    pb::Status {
        version: env!("CARGO_PKG_VERSION").into(),
        adopted_generation: state.adopted(),
        committed_generation: state.committed(),
        agent_connected,
        in_sync: state.in_sync(),
        uptime_seconds,
        buffers: Some(pb::Buffers {
            frames: u64::from(frames.count()),
            frame_size: frames.frame_size(),
            hugepages: frames.hugepages(),
            free: frames.in_depot() as u64,
            owners: buffers(ports),
        }),
        accounting: Some(pb::Accounting {
            rx: sum(|c| c.rx.get()),
            tx: sum(|c| c.tx.get()),
            punt: sum(|c| c.punt.get()),
            drops: sum(WorkerCounters::drops),
            in_flight: sum(|c| c.held.get() + c.unsealed.get() + c.early.get())
                + sum(|c| c.handed_out.get()).saturating_sub(sum(|c| c.taken_in.get())),
            originated: sum(|c| c.originated.get()),
            lost: ports.lost(),
        }),
        policies: state.desired().policies.len() as u64,
        ip_sets: state.desired().ip_sets.len() as u64,
        routes: state.publisher().current().fib.len() as u64,
        workload_endpoints: state.desired().endpoints.len() as u64,
        flows: sum(|c| c.flows.get()),
        workload_mtu: state.workload_mtu().unwrap_or_default().into(),
        last_refused: None,
        wireguard_public_key: state.wireguard().map_or(vec![], |wireguard| wireguard.public().0.to_vec()),
        wireguard_problem: String::new(),
        // One worker opens all, whatever lane it comes by.
        wireguard_lanes: if ports.workers().len() > 1 { LANES as u32 } else { 1 },
        policy_memory: Some(pb::PolicyMemory {
            bytes: memory.bytes as u64,
            ceiling,
            compact_lists: memory.compact as u32,
            patched_lists: memory.patched as u32,
        }),
        nat: state
            .desired()
            .masquerades()
            .then(|| nat(state, sum(|c| c.dropped(DropReason::NatExhausted).get()))),
        workers,
    }
}

/// Where the frames are.
pub fn buffers(ports: &Ports) -> Vec<pb::BufferOwner> {
    let owner = |owner: &str, worker, frames| pb::BufferOwner { owner: owner.into(), worker, frames };
    let mut owners = vec![owner("free", -1, ports.frames().in_depot() as u64)];
    for end in ports.workers() {
        let (worker, counters) = (i32::from(end.id.0), &end.counters);
        owners.push(owner("worker", worker, counters.frames_kept.get()));
        owners.push(owner("devices", worker, counters.frames_lent.get()));
        owners.push(owner("waiting", worker, counters.held.get() + counters.early.get()));
    }
    let sum =
        |of: fn(&WorkerCounters) -> u64| ports.workers().iter().map(|end| of(&end.counters)).sum::<u64>();
    let handed = sum(|c| c.handed_out.get()).saturating_sub(sum(|c| c.taken_in.get()));
    owners.push(owner("waiting", -1, handed));
    let known: u64 = owners.iter().map(|owner| owner.frames).sum();
    owners.push(owner("unaccounted", -1, u64::from(ports.frames().count()).saturating_sub(known)));
    owners
}

/// How what leaves with an address of this node does so.
fn nat(state: &State, exhausted: u64) -> pb::Nat {
    let settings = state.desired().masquerade;
    let PortRange { first, last } = settings.ports;
    let mapping = match settings.mapping {
        Mapping::AddressAndPort => NatMapping::AddressAndPort,
        Mapping::EndpointIndependent => NatMapping::EndpointIndependent,
    };
    pb::Nat {
        ports: Some(pb::PortRange { first: first.into(), last: last.into() }),
        mapping: mapping.into(),
        exhausted,
    }
}

/// How much a workload has used of what it may, where it has a limit.
fn quota(current: &Snapshot, interface: Option<&Interface>, side: Side) -> Option<pb::Quota> {
    let interface = interface?;
    let workload = interface.workload()?;
    let limit = match side {
        Side::Ingress => workload.ingress,
        Side::Egress => workload.egress,
    };
    (limit != Quota::default()).then(|| pb::Quota {
        flows: current.quotas.flows(interface.id, side).into(),
        max_connections: limit.flows.unwrap_or(0).into(),
        new_connections_per_second: limit.rate.unwrap_or(0).into(),
    })
}

/// Every interface that is wanted, with the queues of those that are served.
pub fn interfaces(state: &State, ports: &Ports, reasons: &BTreeMap<IfId, String>) -> Vec<pb::Interface> {
    let current = state.publisher().current();
    let row = |(id, name, purpose, _): (IfId, &std::sync::Arc<str>, &Purpose, bool)| {
        let served = ports.served(id);
        let known = current.interfaces.get(id);
        let queues = served.map(|served| served.queues.as_slice()).unwrap_or_default();
        pb::Interface {
            id: u32::from(id.0),
            name: name.to_string(),
            kind: match purpose {
                Purpose::Uplink { .. } => "uplink",
                Purpose::Workload(_) => "workload",
                Purpose::Tunnel(_) => "tunnel",
                Purpose::Host => "host",
                Purpose::Stack { .. } => "stack",
            }
            .into(),
            mac: known.map(|known| known.mac.0.to_vec()).unwrap_or_default(),
            mtu: known.map(|known| u32::from(known.mtu)).unwrap_or_default(),
            up: known.is_some_and(|known| known.up),
            reason: reasons.get(&id).cloned().unwrap_or_default(),
            endpoint: match purpose {
                Purpose::Workload(of) => {
                    state.desired().endpoints.get(of).map(|e| e.name.to_string()).unwrap_or_default()
                }
                Purpose::Uplink { .. } => state
                    .host_endpoint_on(name)
                    .map(|e| format!("host endpoint {}", e.id))
                    .unwrap_or_default(),
                Purpose::Tunnel(_) | Purpose::Host | Purpose::Stack { .. } => String::new(),
            },
            ingress_quota: quota(&current, known, Side::Ingress),
            egress_quota: quota(&current, known, Side::Egress),
            mode: served.map(|served| served.mode.clone()).unwrap_or_default(),
            queues: queues
                .iter()
                .map(|queue| {
                    let counted = queue.counters.load();
                    pb::Queue {
                        queue: queue.queue,
                        worker: u32::from(queue.worker.0),
                        rx_packets: counted.rx_packets,
                        rx_bytes: counted.rx_bytes,
                        tx_packets: counted.tx_packets,
                        tx_bytes: counted.tx_bytes,
                        tx_full: counted.tx_full,
                        kernel_rx_dropped: counted.kernel.rx_dropped,
                        kernel_rx_ring_full: counted.kernel.rx_ring_full,
                        kernel_fill_ring_empty: counted.kernel.fill_ring_empty,
                        kernel_invalid_descriptors: counted.kernel.invalid_descriptors,
                    }
                })
                .collect(),
        }
    };
    state.wanted().map(row).collect()
}

/// The cost of each node on each worker.
pub fn runtime(ports: &Ports, tsc_hz: f64) -> pb::Runtime {
    let worker = |end: &super::ports::WorkerEnd| pb::WorkerRuntime {
        worker: u32::from(end.id.0),
        polls: end.counters.polls.get(),
        empty_polls: end.counters.empty_polls.get(),
        sleeps: end.counters.sleeps.get(),
        cycles: end.counters.ticks.get(),
        busy_cycles: end.counters.busy_ticks.get(),
        rx_packets: end.counters.rx.get(),
        tx_packets: end.counters.tx.get(),
        nodes: end
            .nodes
            .read()
            .into_iter()
            .map(|node| pb::NodeRuntime {
                name: node.name.into(),
                vectors: node.vectors,
                packets: node.packets,
                cycles: node.cycles,
            })
            .collect(),
    };
    pb::Runtime { workers: ports.workers().iter().map(worker).collect(), tsc_hz }
}

/// How vectors were spread on each worker.
pub fn histograms(ports: &Ports, tsc_hz: f64) -> pb::GetHistogramsResponse {
    let histogram = |of: &Histogram| {
        let bucket = |(values, count): (RangeInclusive<u64>, u64)| pb::HistogramBucket {
            lowest: *values.start(),
            highest: *values.end(),
            count,
        };
        Some(pb::Histogram { buckets: of.read().map(bucket).collect(), max: of.max() })
    };
    let worker = |end: &super::ports::WorkerEnd| pb::WorkerHistograms {
        worker: u32::from(end.id.0),
        vector: histogram(&end.counters.vectors.packets),
        cycles: histogram(&end.counters.vectors.cycles),
        latency: histogram(&end.counters.vectors.latency),
    };
    pb::GetHistogramsResponse { workers: ports.workers().iter().map(worker).collect(), tsc_hz }
}

/// Reasons for which packets were dropped, most packets first.
pub fn drops(state: &State, ports: &Ports, denials: &Denials) -> Vec<pb::Drop> {
    let mut rows: Vec<pb::Drop> = DropReason::ALL
        .iter()
        .filter_map(|reason| {
            let packets = ports.workers().iter().map(|end| end.counters.dropped(*reason).get()).sum();
            (packets > 0).then(|| pb::Drop {
                reason: reason.name().into(),
                sentence: reason.sentence().into(),
                packets,
                rules: if reason.is_policy() { denials.rules(state, *reason) } else { vec![] },
                last_packet: denials.last(*reason).unwrap_or_default().into(),
            })
        })
        .collect();
    rows.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.reason.cmp(&b.reason)));
    rows
}
