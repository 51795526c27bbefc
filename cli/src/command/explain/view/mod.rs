//! An explanation, as it is shown.

mod text;

use std::{collections::BTreeMap, path::Path};

use margay_api::dataplane::v1 as dataplane;
use margay_dataplane::policy::Decider;
use serde::Serialize;

pub use self::text::rule_name;
use super::service::Service;
use crate::{
    args::Explain,
    cluster::{self, Answer, Counterfactual, HostJudgement, Judgement},
};

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
    /// That the destination is an address of; policy is its backend's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
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
            service: from.service.map(Service::from),
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
            service: None,
            egress: side(&asked.from, &answer.egress),
            ingress: side(&asked.to, &answer.ingress),
            host: answer.host.into_iter().map(HostStage::from).collect(),
            route: None,
            conntrack: None,
            counterfactual: Some(counterfactual),
            sets,
            notes: answer.note.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Where the cluster of some files has nobody for it.
    pub fn refused_in_files(path: &Path, packet: Packet, service: Option<Service>) -> Self {
        Self {
            verdict: "deny".to_owned(),
            packet,
            generation: None,
            resources: Some(path.display().to_string()),
            service,
            egress: None,
            ingress: None,
            host: Vec::new(),
            route: Some("nowhere: the service has nobody for it".to_owned()),
            conntrack: None,
            counterfactual: None,
            sets: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Whether the cluster says the same for the same reasons, where `node`, which was asked, has a say.
    pub fn agrees(&self, node: &str, answer: &Answer) -> bool {
        let stages: Vec<&HostJudgement> = answer.host.iter().filter(|stage| stage.node == node).collect();
        let hosts = self.host.len() == stages.len()
            && self.host.iter().zip(stages).all(|(here, there)| here.agrees(there));
        hosts
            && [(&self.egress, &answer.egress), (&self.ingress, &answer.ingress)].into_iter().all(
                |(here, there)| {
                    match (here, there) {
                        (Some(here), Some(there)) => here.agrees(there),
                        // Another node's say.
                        (None, _) => true,
                        (Some(_), None) => false,
                    }
                },
            )
    }

    /// Adds a sentence for people.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

impl HostStage {
    fn of(from: dataplane::HostStage) -> Option<Self> {
        let dataplane::HostStage { stage, direction, decision } = from;
        Some(Self { stage, direction, decision: decision?.into() })
    }

    /// The same verdict from the same rule.
    fn agrees(&self, there: &HostJudgement) -> bool {
        (&self.stage, &self.direction, &self.decision.endpoint)
            == (&there.stage, &there.direction, &there.endpoint)
            && (self.decision.verdict == "pass") != there.judgement.decides()
            && (!there.judgement.decides() || self.decision.agrees(&there.judgement))
    }
}

impl From<HostJudgement> for HostStage {
    fn from(said: HostJudgement) -> Self {
        let mut decision = Direction::of(said.endpoint, &said.judgement);
        if !said.judgement.decides() {
            "pass".clone_into(&mut decision.verdict);
        }
        Self { stage: said.stage, direction: said.direction, decision }
    }
}
