//! `policy explain`: whether a packet would pass, and how that was decided.

use std::io::{self, Write as _};

use margay_api::{control::v1 as control, dataplane::v1 as dataplane};
use serde::Serialize;

use crate::{
    args::{Explain, Global},
    client,
    exit::{Code, Failure, Outcome},
    output::{Cell, Output, Table, Tone, View},
};

/// Asks the agent, which turns names into addresses and asks the dataplane's tree.
pub async fn run(global: &Global, args: &Explain, out: &mut Output) -> Outcome {
    let request = control::ExplainRequest {
        from: args.from.clone(),
        to: args.to.clone(),
        protocol: args.proto.clone(),
        source_port: args.sport.into(),
        destination_port: args.port.clone().unwrap_or_default(),
        icmp_type: args.icmp_type.unwrap_or_default().into(),
        icmp_code: args.icmp_code.into(),
    };
    let mut agent = client::agent(global).await?;
    let call = agent.explain(request);
    let answer = client::answer(global.timeout, "explain the packet", call).await?.into_inner();
    let Some(result) = answer.result else {
        return Err(Failure::new(
            Code::Failed,
            "this node cannot judge the packet",
            answer.notes.join("\n"),
            "ask the agent of a node that has one of the two endpoints, with --agent",
        ));
    };
    let explanation = Explanation {
        verdict: result.verdict,
        packet: Packet::new(args, answer.from, answer.to),
        generation: result.generation,
        egress: result.egress.map(Direction::from),
        ingress: result.ingress.map(Direction::from),
        route: result.route,
        notes: answer.notes,
    };
    out.show(&explanation, args.output)?;
    Ok(Code::Ok)
}

/// How people see a rule: its index, or `default` where none matched.
pub fn rule_name(rule: Option<u32>) -> String {
    rule.map_or_else(|| "default".to_owned(), |index| index.to_string())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    verdict: String,
    packet: Packet,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Direction>,
    route: String,
    notes: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Packet {
    from: String,
    to: String,
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<u16>,
    /// As asked: a number or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Direction {
    endpoint: String,
    verdict: String,
    tier: String,
    policy: String,
    /// Absent where no rule matched and the default decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u32>,
    minimal_match: String,
    walk: Vec<Step>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    tier: String,
    policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u32>,
    action: String,
}

impl Packet {
    fn new(args: &Explain, from: String, to: String) -> Self {
        Self {
            from,
            to,
            protocol: args.proto.clone(),
            source_port: (args.sport != 0).then_some(args.sport),
            destination_port: args.port.clone(),
            icmp_type: args.icmp_type,
            icmp_code: args.icmp_type.map(|_| args.icmp_code),
        }
    }

    fn line(&self) -> String {
        let side = |name: &str, port: Option<String>| match port {
            Some(port) => format!("{name} port {port}"),
            None => name.to_owned(),
        };
        let from = side(&self.from, self.source_port.map(|port| port.to_string()));
        let to = side(&self.to, self.destination_port.clone());
        let icmp = match (self.icmp_type, self.icmp_code) {
            (Some(kind), Some(code)) => format!(" type {kind} code {code}"),
            _ => String::new(),
        };
        format!("{}{icmp}, {from} -> {to}", self.protocol)
    }
}

impl From<dataplane::Direction> for Direction {
    fn from(from: dataplane::Direction) -> Self {
        let step = |step: dataplane::Step| Step {
            tier: step.tier,
            policy: step.policy,
            rule: u32::try_from(step.rule).ok(),
            action: step.action,
        };
        Self {
            endpoint: from.endpoint,
            verdict: from.verdict,
            tier: from.tier,
            policy: from.policy,
            rule: u32::try_from(from.rule).ok(),
            minimal_match: from.minimal_match,
            walk: from.walk.into_iter().map(step).collect(),
        }
    }
}

impl View for Explanation {
    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let verdict = out.paint(&self.verdict.to_uppercase(), tone(&self.verdict));
        writeln!(out, "{verdict}: {}", self.packet.line())?;
        writeln!(out, "Policy generation {}.", self.generation)?;
        for (name, direction) in [("Egress", &self.egress), ("Ingress", &self.ingress)] {
            match direction {
                Some(direction) => direction.text(name, out)?,
                None => writeln!(out, "\n{name}: not judged here, it is no endpoint of this node")?,
            }
        }
        let route = if self.route.is_empty() { "none" } else { &self.route };
        writeln!(out, "\nRoute: {route}")?;
        for note in &self.notes {
            writeln!(out, "Note: {note}")?;
        }
        Ok(())
    }
}

impl Direction {
    fn text(&self, name: &str, out: &mut Output) -> io::Result<()> {
        let verdict = out.paint(&self.verdict, tone(&self.verdict));
        writeln!(out, "\n{name} of {}: {verdict}, {}", self.endpoint, self.decided_by())?;
        let mut walk = Table::new(["  TIER", "POLICY", "RULE", "ACTION"]);
        for step in &self.walk {
            walk.row(vec![
                format!("  {}", step.tier).into(),
                (&step.policy).into(),
                rule_name(step.rule).into(),
                Cell::toned(&step.action, tone(&step.action)),
            ]);
        }
        if !walk.is_empty() {
            walk.print(out)?;
        }
        if !self.minimal_match.is_empty() {
            writeln!(out, "  Looked at: {}", self.minimal_match)?;
        }
        Ok(())
    }

    fn decided_by(&self) -> String {
        let of = match (self.tier.as_str(), self.policy.as_str()) {
            ("", "") => String::new(),
            ("", policy) => format!(" of {policy}"),
            (tier, "") => format!(" of tier {tier}"),
            (tier, policy) => format!(" of {policy} in tier {tier}"),
        };
        match self.rule {
            Some(rule) => format!("by rule {rule}{of}"),
            None => format!("by the default{of}"),
        }
    }
}

fn tone(verdict: &str) -> Tone {
    match verdict {
        "allow" => Tone::Good,
        "deny" => Tone::Bad,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction(tier: &str, policy: &str, rule: i32) -> String {
        let from = dataplane::Direction {
            tier: tier.into(),
            policy: policy.into(),
            rule,
            ..dataplane::Direction::default()
        };
        Direction::from(from).decided_by()
    }

    #[test]
    fn who_decided_is_said_as_exactly_as_is_known() {
        assert_eq!(direction("default", "shop/web", 2), "by rule 2 of shop/web in tier default");
        assert_eq!(direction("default", "", -1), "by the default of tier default");
        assert_eq!(direction("", "profile kns.shop", 0), "by rule 0 of profile kns.shop");
        assert_eq!(direction("", "", -1), "by the default");
    }
}
