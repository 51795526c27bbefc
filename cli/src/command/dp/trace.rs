//! `dp trace`: one packet, one story.

use std::io::Write as _;

use margay_api::dataplane::v1 as api;
use margay_dataplane::net::Addr;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{libpcap, watched::Watched};
use crate::{
    args::{DpTrace, Global, TraceFormat},
    command::conntrack::checked,
    exit::{Code, Outcome},
    output::{Output, Tone},
    readable::utc,
};

/// Tells of packets as they end.
pub async fn run(global: &Global, args: &DpTrace, out: &mut Output) -> Outcome {
    let probe = args.inject.map(|inject| api::Probe {
        source: bytes(inject.from.addr),
        destination: bytes(inject.to.addr),
        protocol: inject.proto.0.into(),
        source_port: inject.from.port.unwrap_or_default().into(),
        destination_port: inject.to.port.unwrap_or_default().into(),
    });
    let request = api::WatchRequest {
        filter: checked(&args.filter)?,
        program: libpcap::compile(args.pcap.as_deref())?,
        count: if probe.is_some() { 1 } else { args.count.get() },
        dropped_only: args.dropped_only,
        steps: true,
        probe,
        ..api::WatchRequest::default()
    };
    let mut watched = Watched::begin(global, "trace packets", request).await?;
    while let Some(message) = watched.next().await? {
        for packet in message.packets {
            match args.output {
                TraceFormat::Text => story(&packet, out)?,
                TraceFormat::Json => {
                    let packet =
                        serde_json::to_string(&Packet::from(packet)).map_err(std::io::Error::from)?;
                    writeln!(out, "{packet}")?;
                }
            }
        }
        out.flush()?;
    }
    watched.confess();
    Ok(Code::Ok)
}

fn bytes(addr: Addr) -> Vec<u8> {
    if addr.is_v4() { addr.v4_octets().to_vec() } else { addr.octets().to_vec() }
}

/// A packet's way, a line a node.
pub fn story(packet: &api::WatchedPacket, out: &mut Output) -> std::io::Result<()> {
    let (outcome, tone) = match packet.outcome.as_str() {
        "tx" => ("sent", Tone::Good),
        "drop" => ("DROPPED", Tone::Bad),
        "punt" => ("news for the control thread", Tone::Plain),
        other => (other, Tone::Warn),
    };
    let outcome = out.paint(outcome, tone);
    let at = utc(packet.unix_nanos / 1_000_000_000).unwrap_or_default();
    writeln!(out, "{at}  {}  in by {}: {outcome}", packet.flow, packet.interface)?;
    for step in &packet.steps {
        let facts: Vec<String> =
            step.facts.iter().map(|fact| format!("{}: {}", fact.name, fact.value)).collect();
        let micros = step.nanoseconds as f64 / 1000.0;
        let next = if step.next.is_empty() { String::new() } else { format!("-> {}", step.next) };
        let cost = if step.cycles > 0 { format!("{} cycles", step.cycles) } else { String::new() };
        let line = format!(
            "  {micros:>9.1} us  worker {:<3} {:<11} {next:<14} {cost:<12} {}",
            step.worker,
            step.node,
            facts.join("; ")
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)
}

/// As `-o json` has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Packet {
    number: u32,
    interface: String,
    flow: String,
    length: u32,
    unix_nanos: u64,
    outcome: String,
    verdict: Value,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    node: String,
    next: String,
    worker: u32,
    nanoseconds: u64,
    cycles: u64,
    vector: u32,
    facts: Value,
}

impl From<api::WatchedPacket> for Packet {
    fn from(from: api::WatchedPacket) -> Self {
        let step = |step: api::WatchStep| Step {
            node: step.node,
            next: step.next,
            worker: step.worker,
            nanoseconds: step.nanoseconds,
            cycles: step.cycles,
            vector: step.vector,
            facts: object(step.facts),
        };
        Self {
            number: from.number,
            interface: from.interface,
            flow: from.flow,
            length: from.length,
            unix_nanos: from.unix_nanos,
            outcome: from.outcome,
            verdict: object(from.verdict),
            steps: from.steps.into_iter().map(step).collect(),
        }
    }
}

/// What has one name twice is joined.
fn object(facts: Vec<api::WatchFact>) -> Value {
    let mut object = Map::new();
    for fact in facts {
        let value = match object.get(&fact.name) {
            Some(Value::String(earlier)) => format!("{earlier}; {}", fact.value),
            _ => fact.value,
        };
        object.insert(fact.name, value.into());
    }
    object.into()
}
