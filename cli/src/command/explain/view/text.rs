//! An explanation in words.

use std::io::{self, Write as _};

use super::{Conntrack, Direction, Explanation, HostStage, Packet, Session};
use crate::{
    cluster::Counterfactual,
    output::{Cell, Output, Table, Tone, View},
    readable::span,
};

/// How people see a rule: its index, or `default` where none matched.
pub fn rule_name(rule: Option<u32>) -> String {
    rule.map_or_else(|| "default".to_owned(), |index| index.to_string())
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
        if let Some(service) = &self.service {
            service.text(out)?;
            if service.is_refused() {
                writeln!(out, "\nRoute: {}", self.route.as_deref().unwrap_or("none"))?;
                return Ok(());
            }
        }
        let who = if self.resources.is_some() { "these files" } else { "this node" };
        for (name, direction) in [("Egress", &self.egress), ("Ingress", &self.ingress)] {
            match direction {
                Some(direction) => direction.text(name, out)?,
                // It is a host's own, and follows.
                None if self.host.iter().any(|stage| stage.direction.eq_ignore_ascii_case(name)) => {}
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

impl Packet {
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

impl HostStage {
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
    use margay_api::dataplane::v1 as dataplane;

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
