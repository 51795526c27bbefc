//! Workers' flows, asked for without stopping anyone: each worker looks at a few places of its table
//! a poll. Whoever asks holds the pages, so a slow reader costs a page a worker.

use super::explain::query;
use super::judge::allows;
use super::{FieldError, Ports, State};
use crate::conntrack::{Filter, FilterError, PacketLike};
use crate::net::{Addr, FlowKey, Nanos, Prefix, WorkerId};
use crate::snapshot::Established;
use crate::worker::{FlowPage, FlowSeen};
use margay_api::dataplane::v1 as pb;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Pages that wait for one worker at most.
const MAX_WAITING: usize = 16;

/// A page that a worker is to fill.
pub struct Asked {
    /// The worker.
    pub worker: WorkerId,
    /// The page.
    pub page: Box<FlowPage>,
    /// For the page when it is filled.
    pub reply: oneshot::Sender<Box<FlowPage>>,
}

/// Pages with workers, one at a time with each, and pages that wait.
#[derive(Default)]
pub struct Questions {
    waiting: VecDeque<Asked>,
    /// Who waits for the page that a worker has.
    out: HashMap<WorkerId, oneshot::Sender<Box<FlowPage>>>,
}

impl Questions {
    /// Asks a worker, now or in its turn. The reply is dropped where too many wait already.
    pub fn ask(&mut self, ports: &Ports, asked: Asked) {
        self.waiting.retain(|other| !other.reply.is_closed());
        let ahead = self.waiting.iter().filter(|other| other.worker == asked.worker).count();
        if ahead < MAX_WAITING {
            self.waiting.push_back(asked);
        }
        self.go_on(ports);
    }

    /// A worker's page has come back.
    pub fn answered(&mut self, worker: WorkerId, page: Box<FlowPage>) {
        if let Some(reply) = self.out.remove(&worker) {
            // The asker may be gone by then.
            let _ = reply.send(page);
        }
    }

    /// Gives workers that are done their next page.
    pub fn go_on(&mut self, ports: &Ports) {
        let free = |asked: &Asked, out: &HashMap<_, _>| !out.contains_key(&asked.worker);
        while let Some(at) = self.waiting.iter().position(|asked| free(asked, &self.out)) {
            if !ports.take_commands() {
                return;
            }
            let Some(Asked { worker, page, reply }) = self.waiting.remove(at) else { return };
            if !reply.is_closed() {
                ports.show_flows(worker, page);
                self.out.insert(worker, reply);
            }
        }
    }
}

/// Whose addresses are whose, on this node.
pub struct Names(HashMap<Addr, Arc<str>>);

impl Names {
    /// As a state has them.
    pub fn of(state: &State) -> Self {
        let host: Arc<str> = "host".into();
        let own = state.host_addresses().into_iter().map(|addr| (addr, host.clone()));
        let single = |net: &&Prefix| Prefix::host(net.addr()) == **net;
        let workloads = state.desired().endpoints.values();
        let workloads = workloads.flat_map(|workload| {
            workload.nets.iter().filter(single).map(|net| (net.addr(), workload.name.clone()))
        });
        Self(own.chain(workloads).collect())
    }

    /// Empty: nobody's here.
    pub fn name(&self, addr: Addr) -> &str {
        self.0.get(&addr).map_or("", |name| name)
    }
}

/// A filter whose endpoints are those of this node.
pub(super) fn filter(state: &State, text: &str) -> Result<Filter, FilterError> {
    Filter::parse(text, |name| nets(state, name))
}

/// The same of packets.
pub(super) fn packet_filter(state: &State, text: &str) -> Result<Filter, FilterError> {
    Filter::of_packets(text, |name| nets(state, name))
}

fn nets(state: &State, name: &str) -> Option<Vec<Prefix>> {
    let mut endpoints = state.desired().endpoints.values();
    endpoints.find(|endpoint| *endpoint.name == *name).map(|endpoint| endpoint.nets.clone())
}

/// A session as the API has it.
pub fn flow(worker: WorkerId, seen: &FlowSeen, names: &Names) -> pb::Flow {
    pb::Flow {
        worker: worker.0.into(),
        protocol: seen.key.proto.0.into(),
        original: Some(tuple(&seen.key)),
        reply: Some(tuple(&seen.reply_key)),
        state: seen.state.name().into(),
        idle_milliseconds: millis(seen.idle),
        remaining_milliseconds: millis(seen.remaining),
        judged_generation: u64::from(seen.judged.0),
        from: names.name(seen.key.src).into(),
        to: names.name(seen.reply_key.src).into(),
    }
}

/// A key as the API has it.
pub(super) fn tuple(key: &FlowKey) -> pb::FlowTuple {
    let bytes = |addr: Addr| if addr.is_v4() { addr.v4_octets().to_vec() } else { addr.octets().to_vec() };
    let ported = key.proto.has_ports();
    pb::FlowTuple {
        source: bytes(key.src),
        destination: bytes(key.dst),
        source_port: if ported { key.sport.into() } else { 0 },
        destination_port: if ported { key.dport.into() } else { 0 },
    }
}

/// Packets like the one of a request: of any source port where it names none.
pub fn wanted(request: &pb::ExplainRequest) -> Result<PacketLike, FieldError> {
    let key = query(request)?.key;
    let port = |port: u16| (key.proto.has_ports() && port != 0).then_some(port);
    Ok(PacketLike {
        src: key.src,
        dst: key.dst,
        proto: key.proto,
        sport: port(key.sport),
        dport: key.proto.has_ports().then_some(key.dport),
    })
}

/// The sessions of a packet as the API has them, with what policy says today.
pub(super) fn conntrack(
    state: &State,
    like: &PacketLike,
    found: &[(WorkerId, FlowSeen)],
    more: bool,
) -> pb::Conntrack {
    let session = |(worker, seen): &(WorkerId, FlowSeen)| pb::Session {
        worker: u32::from(worker.0),
        flow: seen.key.to_string(),
        reply: !like.is(&seen.key),
        state: seen.state.name().into(),
        idle_milliseconds: millis(seen.idle),
        remaining_milliseconds: millis(seen.remaining),
        judged_generation: u64::from(seen.judged.0),
        verdict_now: if allows(state, seen) { "allow" } else { "deny" }.into(),
    };
    pb::Conntrack {
        sessions: found.iter().map(session).collect(),
        more,
        recheck: state.desired().established == Established::Recheck,
        generation: u64::from(state.publisher().current().generation.0),
    }
}

fn millis(nanos: Nanos) -> u64 {
    nanos.0 / 1_000_000
}
