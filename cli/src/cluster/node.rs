//! One node's dataplane, as far as policy is concerned.

use std::collections::{BTreeMap, BTreeSet};

use margay_agent::{
    calc::{self, Resources},
    model::{Selector, WorkloadEndpoint},
};
use margay_api::dataplane::v1::{self as api, change::Change};
use margay_dataplane::{
    control::{self, EndpointId, State},
    net::Nanos,
    policy::{CompiledPolicy, Direction, Explanation, Query, SetMembers, SetTable},
    snapshot::{Publisher, Snapshot},
};
use serde::Serialize;

use crate::{
    exit::{Code, Failure, Outcome},
    judge::judge,
    readable::count,
};

/// Holds the node's compiled policy.
pub struct Node {
    state: State,
    /// What the sets of addresses stand for, by name.
    selectors: BTreeMap<String, Selector>,
}

/// What one end of a packet says, and why.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    verdict: &'static str,
    /// Empty where a profile, or the end of everything, decided.
    tier: String,
    policy: String,
    /// Absent where no rule matched and a default decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u32>,
    minimal_match: String,
    /// All that there is to know of it.
    #[serde(skip)]
    pub explained: Explanation,
}

impl Node {
    /// What the agent would send to the node, taken by a dataplane. With it, what is wrong with the
    /// resources.
    pub fn new(resources: &Resources, name: &str) -> Outcome<(Self, Vec<String>)> {
        let mut desired = calc::policy(resources, name);
        let selectors = selectors(&desired);
        let problems = std::mem::take(&mut desired.problems);
        // Their interfaces are not of files.
        desired.host_endpoints.clear();
        let mut state = State::new(Publisher::new(Snapshot::empty(1)), u16::MAX);
        let commit = api::Commit { generation: 1, in_sync: true };
        state.commit(&changes(desired), &commit, Nanos::default()).map_err(|errors| {
            let each = errors.iter().map(|error| format!("{}: {}", error.object, error.error));
            Failure::new(
                Code::Failed,
                format!("the dataplane of node {name} would refuse the objects"),
                each.collect::<Vec<_>>().join("\n"),
                "correct what is named above",
            )
        })?;
        Ok((Self { state, selectors }, problems))
    }

    /// Judges one direction of an endpoint of this node, by the tree and by its rules.
    pub fn judge(
        &self,
        endpoint: &WorkloadEndpoint,
        direction: Direction,
        query: &Query,
    ) -> Outcome<Judgement> {
        let tree = self.tree(endpoint, direction)?;
        judge(tree, self.sets(), query)?;
        let explained = tree.explain(self.sets(), query);
        let decider = &explained.decider;
        Ok(Judgement {
            verdict: if explained.verdict.allow { "allow" } else { "deny" },
            tier: decider.tier().to_owned(),
            policy: decider.policy(),
            rule: u32::try_from(decider.rule).ok(),
            minimal_match: explained.minimal_match.clone(),
            explained,
        })
    }

    /// What applies to an endpoint of this node.
    pub fn show(&self, request: &api::GetEndpointPolicyRequest) -> Outcome<api::EndpointPolicy> {
        control::show(&self.state, request).map_err(|error| {
            Failure::new(Code::Failed, "cannot show the policy", error.to_string(), "please report this")
        })
    }

    /// What judges one direction of an endpoint of this node.
    pub fn tree(&self, endpoint: &WorkloadEndpoint, direction: Direction) -> Outcome<&CompiledPolicy> {
        let key = calc::endpoint_key(endpoint);
        let id =
            EndpointId { orchestrator: key.orchestrator, workload: key.workload, endpoint: key.endpoint };
        let policy = self.state.policy();
        let index = self.state.endpoint_index(&id);
        let tree = index.and_then(|index| policy.tree(index, direction));
        tree.map(|tree| tree.compiled()).ok_or_else(|| {
            let cause = format!("the dataplane knows no endpoint {}", id.workload);
            Failure::new(Code::Failed, "the packet cannot be judged", cause, "please report this")
        })
    }

    /// The sets that the trees ask.
    pub fn sets(&self) -> &SetTable {
        self.state.policy().sets()
    }

    /// What a set stands for, for people.
    pub fn describe_set(&self, name: &str) -> Option<String> {
        if let Some(selector) = self.selector(name) {
            return Some(selector.to_string());
        }
        let set = self.sets().iter().map(|(_, set)| set).find(|set| &*set.name == name)?;
        let SetMembers::IpPort(members) = &set.members else { return None };
        let ports: BTreeSet<String> =
            members.iter().map(|one| format!("{} {}", one.proto, one.port)).collect();
        let ports = ports.into_iter().take(4).collect::<Vec<_>>().join(", ");
        Some(format!("a named port ({ports}) of {}", count(members.len() as u64, "address", "addresses")))
    }

    /// The selector whose addresses a set holds; `None`: it is one of ports, or nobody names it.
    pub fn selector(&self, set: &str) -> Option<&Selector> {
        self.selectors.get(set)
    }
}

impl Judgement {
    /// The packet may go on.
    pub fn allows(&self) -> bool {
        self.verdict == "allow"
    }
}

/// All that judges packets, as an agent sends it.
pub fn changes(desired: calc::Desired) -> Vec<api::Change> {
    let changes = [Change::Config(desired.config)]
        .into_iter()
        .chain(desired.ip_sets.into_values().map(Change::IpSet))
        .chain(desired.policies.into_values().map(Change::Policy))
        .chain(desired.profiles.into_values().map(Change::Profile))
        .chain(desired.endpoints.into_values().map(Change::WorkloadEndpoint))
        .chain(desired.host_endpoints.into_values().map(Change::HostEndpoint));
    changes.map(|change| api::Change { change: Some(change) }).collect()
}

/// Every selector that a rule was made from, by the name of its set.
fn selectors(desired: &calc::Desired) -> BTreeMap<String, Selector> {
    let policies = desired.policies.values().flat_map(|p| p.inbound_rules.iter().chain(&p.outbound_rules));
    let profiles = desired.profiles.values().flat_map(|p| p.inbound_rules.iter().chain(&p.outbound_rules));
    let origins = policies.chain(profiles).filter_map(|rule| rule.origin.as_ref());
    let texts = origins.flat_map(|origin| {
        [&origin.src_selector, &origin.dst_selector, &origin.not_src_selector, &origin.not_dst_selector]
    });
    let selectors = texts.filter(|text| !text.is_empty()).filter_map(|text| Selector::parse(text).ok());
    selectors.map(|selector| (selector.uid(), selector)).collect()
}
