//! One node's dataplane, as far as policy is concerned.

use margay_agent::{
    calc::{self, Resources},
    model::WorkloadEndpoint,
};
use margay_api::dataplane::v1::{self as api, change::Change};
use margay_dataplane::{
    control::{EndpointId, State},
    net::Nanos,
    policy::{Direction, Query},
    snapshot::{Publisher, Snapshot},
};
use serde::Serialize;

use crate::{
    exit::{Code, Failure, Outcome},
    judge::judge,
};

/// Holds the node's compiled policy.
pub struct Node {
    state: State,
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
}

impl Node {
    /// What the agent would send to the node, taken by a dataplane. With it, what is wrong with the
    /// resources.
    pub fn new(resources: &Resources, name: &str) -> Outcome<(Self, Vec<String>)> {
        let desired = calc::policy(resources, name);
        let changes = [Change::Config(desired.config)]
            .into_iter()
            .chain(desired.ip_sets.into_values().map(Change::IpSet))
            .chain(desired.policies.into_values().map(Change::Policy))
            .chain(desired.profiles.into_values().map(Change::Profile))
            .chain(desired.endpoints.into_values().map(Change::WorkloadEndpoint))
            .map(|change| api::Change { change: Some(change) });
        let mut state = State::new(Publisher::new(Snapshot::empty(1)), u16::MAX);
        let commit = api::Commit { generation: 1, in_sync: true };
        state.commit(changes.collect(), &commit, Nanos::default()).map_err(|errors| {
            let each = errors.iter().map(|error| format!("{}: {}", error.object, error.error));
            Failure::new(
                Code::Failed,
                format!("the dataplane of node {name} would refuse the objects"),
                each.collect::<Vec<_>>().join("\n"),
                "correct what is named above",
            )
        })?;
        Ok((Self { state }, desired.problems))
    }

    /// Judges one direction of an endpoint of this node.
    pub fn judge(
        &self,
        endpoint: &WorkloadEndpoint,
        direction: Direction,
        query: &Query,
    ) -> Outcome<Judgement> {
        let key = calc::endpoint_key(endpoint);
        let id =
            EndpointId { orchestrator: key.orchestrator, workload: key.workload, endpoint: key.endpoint };
        let policy = self.state.policy();
        let index = self.state.endpoint_index(&id);
        let tree = index.and_then(|index| policy.tree(index, direction));
        let (Some(index), Some(tree)) = (index, tree) else {
            let cause = format!("the dataplane knows no endpoint {}", id.workload);
            return Err(Failure::new(
                Code::Failed,
                "the packet cannot be judged",
                cause,
                "please report this",
            ));
        };
        judge(tree.compiled(), policy.sets(), query)?;
        let explained = policy.explain(index, direction, query).expect("the endpoint has a tree");
        let decider = &explained.decider;
        Ok(Judgement {
            verdict: if explained.verdict.allow { "allow" } else { "deny" },
            tier: decider.tier().to_owned(),
            policy: decider.policy(),
            rule: u32::try_from(decider.rule).ok(),
            minimal_match: explained.minimal_match,
        })
    }
}

impl Judgement {
    /// The packet may go on.
    pub fn allows(&self) -> bool {
        self.verdict == "allow"
    }
}
