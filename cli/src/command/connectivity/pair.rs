//! Between two endpoints that are there: what policy says of a packet against what becomes of one.

use std::{
    io::{self, Write as _},
    net::IpAddr,
};

use margay_api::{control::v1 as control, dataplane::v1 as api};
use margay_dataplane::net::Proto;
use serde::Serialize;

use super::ATTEMPT;
use crate::{
    args::{Global, Pair},
    client,
    command::{
        dp::{Watched, tell},
        explain::{Judged, judge},
    },
    exit::{Code, Failure, Outcome},
    output::{Format, Output, Tone},
};

/// Asks what should become of the first packet of a flow, and sends one.
pub async fn run(global: &Global, args: &Pair, format: Format, out: &mut Output) -> Outcome {
    let proto = proto(args)?;
    let expected = expected(global, args).await?;
    let [source, destination] = [&expected.from, &expected.to].map(|title| address(title));
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err(Failure::new(
            Code::NotFound,
            format!("cannot {ATTEMPT}"),
            format!("the agent knows no address of {} or of {}", args.from, args.to),
            "name endpoints that have addresses, or the addresses",
        ));
    };
    let packet = send(global, args, proto, (source, destination)).await?;
    let seen = if packet.outcome == "tx" { "allow" } else { "deny" };
    let result = Tested {
        packet: packet.flow.clone(),
        from: expected.from,
        to: expected.to,
        expected: expected.result.verdict,
        seen: seen.to_owned(),
        outcome: outcome(&packet),
        generation: expected.result.generation,
    };
    let passed = result.expected == result.seen;
    match format {
        Format::Table | Format::Wide => {
            result.text(passed, out)?;
            if !passed || format == Format::Wide {
                writeln!(out)?;
                tell(&packet, out)?;
            }
        }
        Format::Yaml => out.yaml(&result)?,
        Format::Json | Format::Jsonl => out.json(&result)?,
    }
    Ok(if passed { Code::Ok } else { Code::Problems })
}

/// The protocol that was written.
pub fn proto(args: &Pair) -> Outcome<Proto> {
    args.proto.parse().map_err(|error| {
        Failure::usage(format!("cannot {ATTEMPT}"), format!("--proto: {error}"), "correct it and try again")
    })
}

/// What becomes of a packet that the dataplane makes up.
pub async fn send(
    global: &Global,
    args: &Pair,
    proto: Proto,
    (source, destination): (IpAddr, IpAddr),
) -> Outcome<api::WatchedPacket> {
    let probe = api::Probe {
        source: bytes(source),
        destination: bytes(destination),
        protocol: proto.0.into(),
        source_port: if proto.has_ports() { args.sport.into() } else { 0 },
        destination_port: args.port.filter(|_| proto.has_ports()).unwrap_or_default().into(),
    };
    let request =
        api::WatchRequest { count: 1, steps: true, probe: Some(probe), ..api::WatchRequest::default() };
    let mut watched = Watched::begin(global, ATTEMPT, request).await?;
    let mut packets = vec![];
    while let Some(message) = watched.next().await? {
        packets.extend(message.packets);
    }
    packets.pop().ok_or_else(|| {
        Failure::new(
            Code::Failed,
            format!("cannot {ATTEMPT}"),
            "the dataplane did not say what became of the packet",
            "see whether it is overloaded: `margayctl dp runtime`",
        )
    })
}

/// What should become of one, by policy and routes.
pub async fn expected(global: &Global, args: &Pair) -> Outcome<Judged> {
    let proto = proto(args)?;
    let request = control::ExplainRequest {
        from: args.from.clone(),
        to: args.to.clone(),
        // By number: the agent has no name for some that have one here.
        protocol: proto.0.to_string(),
        source_port: args.sport.into(),
        destination_port: args.port.map(|port| port.to_string()).unwrap_or_default(),
        // An echo request is what is sent.
        icmp_type: match proto {
            Proto::ICMP => 8,
            Proto::ICMP6 => 128,
            _ => 0,
        },
        ..control::ExplainRequest::default()
    };
    judge(global, &mut client::agent(global).await?, ATTEMPT, request).await
}

#[derive(Serialize)]
struct Tested {
    /// As it came in.
    packet: String,
    from: String,
    to: String,
    /// By policy and routes: allow or deny.
    expected: String,
    seen: String,
    /// Sent, or why not.
    outcome: String,
    generation: u64,
}

impl Tested {
    fn text(&self, passed: bool, out: &mut Output) -> io::Result<()> {
        let (word, tone) = if passed { ("OK", Tone::Good) } else { ("FAIL", Tone::Bad) };
        let word = out.paint(word, tone);
        writeln!(out, "{word}  {} to {}: {}", self.from, self.to, self.packet)?;
        writeln!(out, "    expected: {}, by generation {}", self.expected, self.generation)?;
        writeln!(out, "    seen:     {}, {}", self.seen, self.outcome)
    }
}

/// The end of its way, in words.
fn outcome(packet: &api::WatchedPacket) -> String {
    let fact =
        |name: &str| packet.verdict.iter().find(|fact| fact.name == name).map(|fact| fact.value.clone());
    match packet.outcome.as_str() {
        "tx" => "sent".to_owned(),
        "drop" => match (fact("reason"), fact("rule")) {
            (Some(reason), Some(rule)) => format!("dropped: {reason} ({rule})"),
            (Some(reason), None) => format!("dropped: {reason}"),
            _ => "dropped".to_owned(),
        },
        other => other.to_owned(),
    }
}

/// Of "shop/web (10.0.0.1)", or of an address alone.
fn address(title: &str) -> Option<IpAddr> {
    let inner = title.rsplit_once('(').map_or(title, |(_, rest)| rest.trim_end_matches(')'));
    inner.trim().parse().ok()
}

fn bytes(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}
