//! `flows observe`: a line for each record.

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

use margay_agent::flows::{Line, event, policies, title};
use margay_api::{
    control::v1::{self as api, ObserveFlowsRequest},
    dataplane::v1::FlowRecord,
};
use margay_dataplane::net::Proto;

use super::{confess, filter, since};
use crate::{
    args::{FlowsObserve, Global, ObserveFormat},
    client,
    exit::{Code, Failure, Outcome},
    output::{Output, Tone},
    readable::utc,
};

const ATTEMPT: &str = "observe flows";

/// Prints what is kept, and goes on where that is asked for.
pub async fn run(global: &Global, args: &FlowsObserve, out: &mut Output) -> Outcome {
    let request = ObserveFlowsRequest {
        filter: Some(filter(&args.like)),
        since_unix_nanos: since(&args.like),
        last: args.last,
        follow: args.follow,
    };
    let mut agent = client::agent(global).await?;
    let call = agent.observe_flows(request);
    let mut stream = client::answer(global.timeout, ATTEMPT, call).await?.into_inner();
    let (mut lost, mut missed) = (0, 0);
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) if args.follow => {
                return Err(Failure::new(
                    Code::Unreachable,
                    format!("cannot {ATTEMPT} any longer"),
                    "the agent ended the stream",
                    "observe again when it is back: `margayctl status`",
                ));
            }
            Ok(None) => break,
            Err(status) => return Err(Failure::rpc(ATTEMPT, &status)),
        };
        // Who follows is told as it happens: the end may never come.
        if args.follow && (lost, missed) != (message.lost, message.missed) {
            confess(message.lost.saturating_sub(lost), message.missed.saturating_sub(missed));
        }
        (lost, missed) = (message.lost, message.missed);
        for flow in &message.flows {
            match args.output {
                ObserveFormat::Json => {
                    if let Some(line) = Line::of(flow) {
                        let line = serde_json::to_string(&line).map_err(io::Error::from)?;
                        writeln!(out, "{line}")?;
                    }
                }
                ObserveFormat::Compact => print(flow, false, out)?,
                ObserveFormat::Wide => print(flow, true, out)?,
            }
        }
        out.flush()?;
    }
    confess(lost, missed);
    Ok(Code::Ok)
}

fn print(flow: &api::ObservedFlow, wide: bool, out: &mut Output) -> io::Result<()> {
    let Some(record) = &flow.record else { return Ok(()) };
    let at = utc(record.last_unix_nanos / 1_000_000_000).unwrap_or_default();
    let (verdict, tone) = match record.verdict.as_str() {
        "allow" => ("allow", Tone::Good),
        "deny" => ("DENY", Tone::Bad),
        _ => ("DROP", Tone::Warn),
    };
    let verdict = out.paint(&format!("{verdict:<5}"), tone);
    let proto = u8::try_from(record.protocol).map(|number| Proto(number).to_string()).unwrap_or_default();
    let [from, to] = ends(flow, record);
    let mut line = format!("{at}  {verdict}  {:<9}  {proto:<4}  {from} > {to}", event(record));
    let passed = match record.reply {
        Some(_) => format!(
            "{} packets {} B, back {} packets {} B",
            record.packets, record.bytes, record.reply_packets, record.reply_bytes
        ),
        None => format!("{} packets {} B", record.packets, record.bytes),
    };
    if record.packets + record.reply_packets > 0 {
        line.push_str(&format!("  {passed}"));
    }
    if !record.reason.is_empty() {
        line.push_str(&format!("  {}", record.reason));
    }
    let by = policies(record);
    if record.rules_changed {
        line.push_str("  (policy has changed since)");
    } else if !by.is_empty() {
        line.push_str(&format!("  by {by}"));
    }
    for staged in staged(record) {
        line.push_str(&format!("  (staged: {staged})"));
    }
    if wide {
        line.push_str(&format!(
            "  [{}{}, generation {}, worker {}]",
            record.state,
            if record.interface.is_empty() { String::new() } else { format!("in by {}", record.interface) },
            record.judged_generation,
            record.worker
        ));
        if let (Some(original), Some(reply)) = (&record.original, &record.reply)
            && (&original.source, original.source_port, &original.destination, original.destination_port)
                != (&reply.destination, reply.destination_port, &reply.source, reply.source_port)
        {
            let (from, to) =
                (end(&reply.destination, reply.destination_port), end(&reply.source, reply.source_port));
            line.push_str(&format!("  leaves as {from} > {to}"));
        }
        for (who, party) in [("from", &flow.source), ("to", &flow.destination)] {
            let labels = party.iter().flat_map(|party| &party.labels);
            let mut labels: Vec<String> = labels.map(|(label, value)| format!("{label}={value}")).collect();
            labels.sort();
            if !labels.is_empty() {
                line.push_str(&format!("  {who} {{{}}}", labels.join(",")));
            }
        }
    }
    writeln!(out, "{line}")
}

/// Who, and to whom; with the address that it was opened to where a service's was meant.
fn ends(flow: &api::ObservedFlow, record: &FlowRecord) -> [String; 2] {
    let Some(original) = &record.original else { return Default::default() };
    let named = |party: &Option<api::FlowParty>, text: String| match party {
        Some(party) if !party.name.is_empty() => format!("{} ({text})", title(party)),
        _ => text,
    };
    let from = named(&flow.source, end(&original.source, original.source_port));
    let mut to = end(&original.destination, original.destination_port);
    if let Some(reply) = &record.reply
        && reply.source != original.destination
    {
        to = format!("{to} = {}", end(&reply.source, reply.source_port));
    }
    [from, named(&flow.destination, to)]
}

fn end(address: &[u8], port: u32) -> String {
    let addr = match address.len() {
        4 => <[u8; 4]>::try_from(address).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(address).ok().map(IpAddr::from),
    };
    match (addr, u16::try_from(port)) {
        (Some(addr), Ok(port @ 1..)) => SocketAddr::new(addr, port).to_string(),
        (Some(addr), _) => addr.to_string(),
        (None, _) => "?".to_owned(),
    }
}

/// What staged policies would have decided otherwise.
fn staged(record: &FlowRecord) -> impl Iterator<Item = String> {
    let ends = [("egress", &record.egress), ("ingress", &record.ingress)];
    ends.into_iter().filter_map(|(way, of)| {
        let of = of.as_ref()?;
        let staged = of.staged.as_ref().filter(|staged| staged.verdict != of.verdict)?;
        Some(format!("{way} {} by {} {}", staged.verdict, staged.tier, staged.policy))
    })
}
