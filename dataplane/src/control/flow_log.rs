//! What workers tell of flows, in the API's words: who decided, when it was.
//!
//! Workers say which keys, how much and by which snapshot. Which rule it was that allowed a flow is found here, by
//! judging its first packet once more: as policy is a moment later. Where that says something else than what
//! happened, policy has changed meanwhile, and no rule is named.

use super::explain::Said;
use super::flows::tuple;
use super::judge::{Judge, Owner, opening};
use super::passage::End;
use super::state::State;
use crate::conntrack::{FlowEvent, FlowLog, FlowRecord, Passed, RecordRing};
use crate::net::{Addr, Nanos, WorkerId};
use crate::nodes::{Deciding, Logs, Refusal, Refusals};
use crate::packet::DropReason;
use crate::policy::{CompiledPolicy, Direction, EndpointIdx, Query};
use margay_api::dataplane::v1 as pb;
use std::collections::HashMap;
use std::sync::Arc;

/// Records of flows that a worker may be ahead of the reader: of 100,000 flows a second, 80 milliseconds.
pub const RECORDS: usize = 1 << 14;
/// The same of refused attempts.
pub const REFUSALS: usize = 1 << 12;

/// The reader's ends of a worker's rings.
#[derive(Clone)]
pub struct FlowRings {
    /// The worker.
    pub worker: WorkerId,
    /// Of its sessions.
    pub flows: Arc<RecordRing<FlowRecord>>,
    /// Of what it drops.
    pub refusals: Arc<RecordRing<Refusal>>,
}

/// What was taken out of a worker's rings at a time.
pub struct Batch {
    /// The worker.
    worker: WorkerId,
    flows: Vec<FlowRecord>,
    refusals: Vec<Refusal>,
    /// The worker's time, and the world's.
    now: Nanos,
    unix_nanos: u64,
}

impl FlowRings {
    /// Of a worker.
    pub fn new(worker: WorkerId) -> Self {
        Self { worker, flows: RecordRing::new(RECORDS), refusals: RecordRing::new(REFUSALS) }
    }

    /// The worker's ends of them, for a table of so many sessions.
    pub fn logs(&self, sessions: u32, hugepages: bool) -> Logs {
        Logs {
            flows: Box::new(FlowLog::new(sessions, hugepages, self.flows.clone())),
            refusals: Box::new(Refusals::new(self.refusals.clone())),
        }
    }

    /// Takes out what is there, as much as `most` of each; `unix_nanos` it is.
    pub fn take(&self, most: usize, unix_nanos: u64) -> Batch {
        let flows = std::iter::from_fn(|| self.flows.next()).take(most).collect();
        let refusals = std::iter::from_fn(|| self.refusals.next()).take(most).collect();
        Batch { worker: self.worker, flows, refusals, now: self.flows.now(), unix_nanos }
    }

    /// Records that found no room.
    pub fn lost(&self) -> u64 {
        self.flows.lost() + self.refusals.lost()
    }
}

impl Batch {
    /// There is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.refusals.is_empty()
    }

    /// There are so many of either in it, and more may have been left.
    pub fn has(&self, most: usize) -> bool {
        self.flows.len().max(self.refusals.len()) >= most
    }

    fn unix(&self, at: Nanos) -> u64 {
        self.unix_nanos.saturating_sub(self.now.since(at).0)
    }
}

/// Finds words for records, by one state.
pub struct Teller<'a> {
    state: &'a State,
    judge: Judge<'a>,
    /// Deciders that were asked for before.
    said: HashMap<(EndpointIdx, Direction, u32), pb::Direction>,
    /// Of those who are no workloads of this node.
    hosts: HashMap<Addr, bool>,
}

impl<'a> Teller<'a> {
    /// By `state`.
    pub fn new(state: &'a State) -> Self {
        Self { state, judge: Judge::new(state), said: HashMap::new(), hosts: HashMap::new() }
    }

    /// All of a batch: refused attempts last.
    pub fn tell(&mut self, batch: &Batch) -> Vec<pb::FlowRecord> {
        let mut told = Vec::with_capacity(batch.flows.len() + batch.refusals.len());
        told.extend(batch.flows.iter().map(|record| self.flow(batch, record)));
        told.extend(batch.refusals.iter().map(|refusal| self.refusal(batch, refusal)));
        told
    }

    fn flow(&mut self, batch: &Batch, record: &FlowRecord) -> pb::FlowRecord {
        let FlowRecord { key, reply_key, state, .. } = record;
        let [passed, answered] = record.passed;
        let query = opening(key, reply_key, *state);
        let event = match record.event {
            FlowEvent::Began => pb::flow_record::Event::Began,
            FlowEvent::Continued => pb::flow_record::Event::Continued,
            FlowEvent::Ended => pb::flow_record::Event::Ended,
        };
        let told = pb::FlowRecord {
            event: event.into(),
            worker: batch.worker.0.into(),
            protocol: key.proto.0.into(),
            original: Some(tuple(key)),
            reply: Some(tuple(reply_key)),
            icmp_type: query.icmp.kind.into(),
            icmp_code: query.icmp.code.into(),
            state: state.name().into(),
            began_unix_nanos: record.began.map_or(0, |began| batch.unix(began)),
            last_unix_nanos: batch.unix(record.last),
            judged_generation: record.judged.0.into(),
            verdict: "allow".into(),
            ..counted(passed, answered)
        };
        self.decided(&query, told)
    }

    fn refusal(&mut self, batch: &Batch, refusal: &Refusal) -> pb::FlowRecord {
        let Refusal { key, icmp, reason, .. } = refusal;
        let interface =
            self.state.publisher().current().interfaces.get(refusal.interface).map(|is| is.name.to_string());
        let passed = Passed { packets: refusal.packets, bytes: refusal.bytes };
        let mut told = pb::FlowRecord {
            event: pb::flow_record::Event::Refused.into(),
            worker: batch.worker.0.into(),
            protocol: key.proto.0.into(),
            original: Some(tuple(key)),
            icmp_type: icmp.kind.into(),
            icmp_code: icmp.code.into(),
            began_unix_nanos: batch.unix(refusal.first),
            last_unix_nanos: batch.unix(refusal.last),
            verdict: if reason.is_policy() { "deny" } else { "drop" }.into(),
            reason: reason.name().into(),
            interface: interface.unwrap_or_default(),
            ..counted(passed, Passed::default())
        };
        if let Some(deciding) = &refusal.deciding {
            told.judged_generation = deciding.generation.0.into();
            self.denied(*reason, deciding, &Query { key: *key, icmp: *icmp }, &mut told);
        }
        told
    }

    /// Adds who allowed a flow.
    fn decided(&mut self, query: &Query, told: pb::FlowRecord) -> pb::FlowRecord {
        let (from, to) = (self.judge.owner(query.key.src), self.judge.owner(query.key.dst));
        let (egress, ingress, host) = match (from, to) {
            (None, _) | (_, None) if !self.state.desired().host_endpoints.is_empty() => {
                Said::of(self.state, query).in_short()
            }
            _ => {
                let egress = from.and_then(|of| self.direction(of, Direction::Egress, query));
                // A host is free to speak to its own workloads.
                let judged = to.filter(|_| from.is_some() || !self.is_host(query.key.src));
                (egress, judged.and_then(|of| self.direction(of, Direction::Ingress, query)), vec![])
            }
        };
        let denies = |direction: &pb::Direction| direction.verdict == "deny";
        let ends = egress.iter().chain(&ingress).any(denies);
        if ends || host.iter().any(|stage| stage.decision.as_ref().is_some_and(denies)) {
            return pb::FlowRecord { rules_changed: true, ..told };
        }
        pb::FlowRecord { egress, ingress, host, ..told }
    }

    /// Adds who denied it.
    fn denied(&mut self, reason: DropReason, deciding: &Deciding, query: &Query, told: &mut pb::FlowRecord) {
        let index = EndpointIdx(deciding.endpoint);
        let direction = if deciding.ingress { Direction::Ingress } else { Direction::Egress };
        // Of an older policy: its slot may mean another rule by now.
        if deciding.generation != self.state.publisher().current().generation {
            told.rules_changed = true;
            return;
        }
        let name = match self.state.host_list(index) {
            Some(list) => Some(list.to_string()),
            None => self.state.endpoint_of(index).map(|endpoint| endpoint.name.to_string()),
        };
        let Some(said) = name.and_then(|name| self.said(&name, index, direction, deciding.slot)) else {
            told.rules_changed = true;
            return;
        };
        let said = self.with_staged(said, index, direction, query);
        match (reason, direction) {
            (DropReason::PolicyDenied, Direction::Egress) => told.egress = Some(said),
            (DropReason::PolicyDenied, Direction::Ingress) => told.ingress = Some(said),
            (reason, direction) => told.host.push(pb::HostStage {
                stage: reason.name().trim_end_matches("-denied").to_owned(),
                direction: direction.to_string(),
                decision: Some(said),
            }),
        }
    }

    fn direction(&mut self, owner: Owner<'_>, direction: Direction, query: &Query) -> Option<pb::Direction> {
        let index = owner.endpoint.filter(|_| owner.active)?;
        let verdict = self.state.policy().judge(index, direction, query);
        let said = self.said(owner.name, index, direction, verdict.slot)?;
        Some(self.with_staged(said, index, direction, query))
    }

    /// What a slot of a list stands for.
    fn said(
        &mut self,
        name: &str,
        index: EndpointIdx,
        direction: Direction,
        slot: u32,
    ) -> Option<pb::Direction> {
        if let Some(said) = self.said.get(&(index, direction, slot)) {
            return Some(said.clone());
        }
        let tree = self.state.policy().tree(index, direction)?;
        let said = short(name, tree.compiled(), slot)?;
        self.said.insert((index, direction, slot), said.clone());
        Some(said)
    }

    /// With what staged policies would decide.
    fn with_staged(
        &self,
        said: pb::Direction,
        index: EndpointIdx,
        direction: Direction,
        query: &Query,
    ) -> pb::Direction {
        let staged = || {
            let shadow = self.state.shadow()?;
            let slot = shadow.would(index, direction, query)?.slot;
            short(&said.endpoint, shadow.tree(index, direction)?.compiled(), slot)
        };
        let staged = staged().map(Box::new);
        pb::Direction { staged, ..said }
    }

    /// The address is this host's own.
    fn is_host(&mut self, addr: Addr) -> bool {
        *self.hosts.entry(addr).or_insert_with(|| End::of(self.state, addr) == End::Host)
    }
}

fn short(endpoint: &str, tree: &CompiledPolicy, slot: u32) -> Option<pb::Direction> {
    let decider = tree.decider(slot)?;
    Some(pb::Direction {
        endpoint: endpoint.to_owned(),
        verdict: if tree.allows(slot) { "allow" } else { "deny" }.into(),
        tier: decider.tier().to_owned(),
        policy: decider.policy(),
        rule: decider.rule,
        ..pb::Direction::default()
    })
}

fn counted(passed: Passed, answered: Passed) -> pb::FlowRecord {
    pb::FlowRecord {
        packets: passed.packets,
        bytes: passed.bytes,
        reply_packets: answered.packets,
        reply_bytes: answered.bytes,
        ..pb::FlowRecord::default()
    }
}
