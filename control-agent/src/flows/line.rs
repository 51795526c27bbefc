//! A record of a flow for programs: one JSON object, in the file and in `margayctl flows observe -o json`.

use super::filter::addr;
use margay_api::{
    control::v1::{FlowParty, ObservedFlow},
    dataplane::v1::{Direction, FlowRecord, FlowTuple, flow_record::Event},
};
use serde::Serialize;
use std::{collections::BTreeMap, net::IpAddr};

/// A record. Fields may be added, none is taken away.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line<'a> {
    /// began, continued, ended or refused.
    pub event: &'static str,
    /// Of the last packet.
    unix_nanos: u64,
    /// Of the first; absent: not known.
    #[serde(skip_serializing_if = "is_zero")]
    began_unix_nanos: u64,
    protocol: u32,
    original: Option<Tuple>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Tuple>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Party<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<Party<'a>>,
    verdict: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'a str,
    /// Since the record before of the same flow.
    packets: u64,
    bytes: u64,
    reply_packets: u64,
    reply_bytes: u64,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Decision<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Decision<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    host: Vec<HostDecision<'a>>,
    /// Policy changed before the rules could be asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rules_changed: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    interface: &'a str,
    worker: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tuple {
    source: Option<IpAddr>,
    #[serde(skip_serializing_if = "is_none")]
    source_port: u32,
    destination: Option<IpAddr>,
    #[serde(skip_serializing_if = "is_none")]
    destination_port: u32,
}

#[derive(Debug, Serialize)]
struct Party<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
}

#[derive(Debug, Serialize)]
struct Decision<'a> {
    endpoint: &'a str,
    verdict: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tier: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    policy: &'a str,
    /// -1: the default.
    rule: i32,
    /// What would be decided with the staged policies in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    staged: Option<Box<Decision<'a>>>,
}

#[derive(Debug, Serialize)]
struct HostDecision<'a> {
    stage: &'a str,
    direction: &'a str,
    #[serde(flatten)]
    decision: Option<Decision<'a>>,
}

impl<'a> Line<'a> {
    /// Of a record; `None`: there is none.
    pub fn of(flow: &'a ObservedFlow) -> Option<Self> {
        let record = flow.record.as_ref()?;
        let icmp = matches!(record.protocol, 1 | 58).then_some([record.icmp_type, record.icmp_code]);
        Some(Self {
            event: event(record),
            unix_nanos: record.last_unix_nanos,
            began_unix_nanos: record.began_unix_nanos,
            protocol: record.protocol,
            original: record.original.as_ref().map(Tuple::of),
            reply: record.reply.as_ref().map(Tuple::of),
            icmp,
            source: flow.source.as_ref().and_then(Party::of),
            destination: flow.destination.as_ref().and_then(Party::of),
            verdict: &record.verdict,
            reason: &record.reason,
            state: &record.state,
            packets: record.packets,
            bytes: record.bytes,
            reply_packets: record.reply_packets,
            reply_bytes: record.reply_bytes,
            generation: record.judged_generation,
            egress: record.egress.as_ref().map(Decision::of),
            ingress: record.ingress.as_ref().map(Decision::of),
            host: record
                .host
                .iter()
                .map(|stage| HostDecision {
                    stage: &stage.stage,
                    direction: &stage.direction,
                    decision: stage.decision.as_ref().map(Decision::of),
                })
                .collect(),
            rules_changed: record.rules_changed,
            interface: &record.interface,
            worker: record.worker,
        })
    }
}

/// What happened, in a word.
pub fn event(record: &FlowRecord) -> &'static str {
    match record.event() {
        Event::Began => "began",
        Event::Continued => "continued",
        Event::Ended => "ended",
        Event::Refused => "refused",
        Event::Unspecified => "unknown",
    }
}

impl Tuple {
    fn of(tuple: &FlowTuple) -> Self {
        Self {
            source: addr(&tuple.source),
            source_port: tuple.source_port,
            destination: addr(&tuple.destination),
            destination_port: tuple.destination_port,
        }
    }
}

impl<'a> Party<'a> {
    fn of(party: &'a FlowParty) -> Option<Self> {
        let labels = party.labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
        (!party.kind.is_empty()).then_some(Self {
            kind: &party.kind,
            namespace: &party.namespace,
            name: &party.name,
            labels,
        })
    }
}

impl<'a> Decision<'a> {
    fn of(of: &'a Direction) -> Self {
        Self {
            endpoint: &of.endpoint,
            verdict: &of.verdict,
            tier: &of.tier,
            policy: &of.policy,
            rule: of.rule,
            staged: of.staged.as_deref().map(|staged| Box::new(Decision::of(staged))),
        }
    }
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}

const fn is_none(port: &u32) -> bool {
    *port == 0
}
