//! An explanation, as it is shown.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
};

use margay_api::dataplane::v1 as dataplane;
use margay_dataplane::policy::Decider;
use serde::Serialize;

use crate::{
    args::Explain,
    cluster::{self, Answer, Counterfactual, Judgement},
    output::{Cell, Output, Table, Tone, View},
    readable::span,
};

/// How people see a rule: its index, or `default` where none matched.
pub fn rule_name(rule: Option<u32>) -> String {
    rule.map_or_else(|| "default".to_owned(), |index| index.to_string())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    verdict: String,
    packet: Packet,
    /// Of the dataplane that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// The files that were asked in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Direction>,
    /// What host endpoints on the way said, as far as the packet came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    host: Vec<HostStage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    /// Absent: nobody was asked, or nobody answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    conntrack: Option<Conntrack>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counterfactual: Option<Counterfactual>,
    /// What the sets stand for that were looked at, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostStage {
    stage: String,
    direction: String,
    decision: Direction,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Conntrack {
    sessions: Vec<Session>,
    /// There may be more than are listed.
    more: bool,
    /// Sessions judged under an older snapshot are judged again.
    recheck: bool,
    /// Of the present snapshot.
    generation: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    worker: u32,
    flow: String,
    /// The packet goes against it.
    reply: bool,
    state: String,
    idle_milliseconds: u64,
    remaining_milliseconds: u64,
    judged_generation: u64,
    verdict_now: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Packet {
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
    /// With the staged policies in force; absent: they make no difference to the endpoint's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    staged: Option<Box<Direction>>,
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
    pub fn new(args: &Explain, from: String, to: String) -> Self {
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
            staged: from.staged.map(|staged| Box::new(Self::from(*staged))),
        }
    }
}

impl Direction {
    fn of(endpoint: String, judgement: &Judgement) -> Self {
        let explained = &judgement.explained;
        let step = |decider: &Decider| Step {
            tier: decider.tier().to_owned(),
            policy: decider.policy(),
            rule: u32::try_from(decider.rule).ok(),
            action: decider.action.to_string(),
        };
        Self {
            endpoint,
            verdict: if judgement.allows() { "allow" } else { "deny" }.to_owned(),
            tier: explained.decider.tier().to_owned(),
            policy: explained.decider.policy(),
            rule: u32::try_from(explained.decider.rule).ok(),
            minimal_match: explained.minimal_match.clone(),
            walk: explained.walk.iter().map(step).collect(),
            staged: None,
        }
    }

    /// The same verdict from the same rule.
    fn agrees(&self, judgement: &Judgement) -> bool {
        let decider = &judgement.explained.decider;
        (self.verdict == "allow") == judgement.allows()
            && (self.tier.as_str(), &self.policy, self.rule)
                == (decider.tier(), &decider.policy(), u32::try_from(decider.rule).ok())
    }
}

impl From<dataplane::Conntrack> for Conntrack {
    fn from(from: dataplane::Conntrack) -> Self {
        let session = |session: dataplane::Session| Session {
            worker: session.worker,
            flow: session.flow,
            reply: session.reply,
            state: session.state,
            idle_milliseconds: session.idle_milliseconds,
            remaining_milliseconds: session.remaining_milliseconds,
            judged_generation: session.judged_generation,
            verdict_now: session.verdict_now,
        };
        Self {
            sessions: from.sessions.into_iter().map(session).collect(),
            more: from.more,
            recheck: from.recheck,
            generation: from.generation,
        }
    }
}

impl Explanation {
    /// As a dataplane said it.
    pub fn of_dataplane(packet: Packet, from: dataplane::ExplainResponse, notes: Vec<String>) -> Self {
        Self {
            verdict: from.verdict,
            packet,
            generation: Some(from.generation),
            resources: None,
            egress: from.egress.map(Direction::from),
            ingress: from.ingress.map(Direction::from),
            host: from.host.into_iter().filter_map(HostStage::of).collect(),
            route: Some(from.route),
            conntrack: from.conntrack.map(Conntrack::from),
            counterfactual: None,
            sets: BTreeMap::new(),
            notes,
        }
    }

    /// As the cluster of some files has it.
    pub fn of_files(
        path: &Path,
        packet: Packet,
        asked: &cluster::Packet<'_>,
        answer: Answer,
        counterfactual: Counterfactual,
        sets: BTreeMap<String, String>,
    ) -> Self {
        let side = |end: &cluster::End<'_>, judgement: &Option<Judgement>| {
            judgement.as_ref().map(|judgement| Direction::of(end.name(), judgement))
        };
        Self {
            verdict: answer.verdict.to_owned(),
            packet,
            generation: None,
            resources: Some(path.display().to_string()),
            egress: side(&asked.from, &answer.egress),
            ingress: side(&asked.to, &answer.ingress),
            host: vec![],
            route: None,
            conntrack: None,
            counterfactual: Some(counterfactual),
            sets,
            notes: answer.note.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Whether the cluster says the same for the same reasons, where this node has a say.
    pub fn agrees(&self, answer: &Answer) -> bool {
        [(&self.egress, &answer.egress), (&self.ingress, &answer.ingress)].into_iter().all(|(here, there)| {
            match (here, there) {
                (Some(here), Some(there)) => here.agrees(there),
                // Another node's say.
                (None, _) => true,
                (Some(_), None) => false,
            }
        })
    }

    /// Adds a sentence for people.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

impl View for Explanation {
    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let verdict = out.paint(&self.verdict.to_uppercase(), tone(&self.verdict));
        writeln!(out, "{verdict}: {}", self.packet.line())?;
        if let Some(generation) = self.generation {
            writeln!(out, "Policy generation {generation}.")?;
        }
        if let Some(resources) = &self.resources {
            writeln!(out, "By the policy of {resources}.")?;
        }
        let who = if self.resources.is_some() { "these files" } else { "this node" };
        for (name, direction) in [("Egress", &self.egress), ("Ingress", &self.ingress)] {
            match direction {
                Some(direction) => direction.text(name, out)?,
                None => writeln!(out, "\n{name}: not judged here, it is no endpoint of {who}")?,
            }
        }
        for stage in &self.host {
            stage.text(out)?;
        }
        writeln!(out)?;
        if let Some(route) = &self.route {
            writeln!(out, "Route: {}", if route.is_empty() { "none" } else { route })?;
        }
        match &self.conntrack {
            Some(conntrack) => conntrack.text(out)?,
            None if self.resources.is_some() => {
                writeln!(
                    out,
                    "Connection tracking: none in files; the packet is judged as the first of its flow"
                )?;
            }
            None => {}
        }
        if let Some(counterfactual) = &self.counterfactual {
            writeln!(out, "{}", counterfactual_line(counterfactual))?;
        }
        for (name, meaning) in &self.sets {
            writeln!(out, "Set {name}: {meaning}")?;
        }
        for note in &self.notes {
            writeln!(out, "Note: {note}")?;
        }
        Ok(())
    }
}

impl HostStage {
    fn of(from: dataplane::HostStage) -> Option<Self> {
        let dataplane::HostStage { stage, direction, decision } = from;
        Some(Self { stage, direction, decision: decision?.into() })
    }

    fn text(&self, out: &mut Output) -> io::Result<()> {
        let Self { stage, direction, decision } = self;
        match decision.verdict.as_str() {
            "pass" => writeln!(out, "\n{stage}, {direction} of {}: nothing to say", decision.endpoint),
            _ => decision.text(&format!("{stage}, {direction}"), out),
        }
    }
}

impl Conntrack {
    fn text(&self, out: &mut Output) -> io::Result<()> {
        if self.sessions.is_empty() {
            return writeln!(out, "Connection tracking: no session, the packet is judged by policy");
        }
        writeln!(out, "Connection tracking: packets of these sessions are not judged by policy again")?;
        for session in &self.sessions {
            let Session { worker, flow, state, judged_generation, verdict_now, .. } = session;
            let way = if session.reply { ", as a reply" } else { "" };
            let (idle, left) = (session.idle_milliseconds / 1_000, session.remaining_milliseconds / 1_000);
            let (idle, left) = (span(idle), span(left));
            writeln!(out, "  {flow}{way}: {state}, idle {idle}, gone in {left}, worker {worker}")?;
            let old = *judged_generation != self.generation;
            let age = match (old, self.recheck) {
                (false, _) => "the present one".to_owned(),
                (true, true) => format!("{} is present: its next packet is judged again", self.generation),
                (true, false) => format!("{} is present: it lives on all the same", self.generation),
            };
            let now = match verdict_now.as_str() {
                "allow" => "allow",
                _ => "DENY",
            };
            writeln!(
                out,
                "    judged under snapshot {judged_generation} ({age}); policy today would {now} it"
            )?;
        }
        if self.more {
            writeln!(out, "  and perhaps more; name the source port with --sport")?;
        }
        Ok(())
    }
}

/// One line for people.
fn counterfactual_line(found: &Counterfactual) -> String {
    let verdict = if found.verdict == "allow" { "allowed" } else { "denied" };
    match (&found.change, &found.decided_by) {
        (Some(change), Some(by)) => format!("Would be {verdict} if {change} ({by})"),
        (Some(change), None) => format!("Would be {verdict} if {change}"),
        (None, _) => {
            let cut = if found.cut { ", and there were more to try" } else { "" };
            let tried = found.tried;
            format!(
                "Would be {verdict} by no single change of label, port, protocol or peer that was tried ({tried}){cut}"
            )
        }
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
        if let Some(staged) = &self.staged {
            let verdict = out.paint(&staged.verdict, tone(&staged.verdict));
            writeln!(out, "  With staged policies in force: {verdict}, {}", staged.decided_by())?;
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
