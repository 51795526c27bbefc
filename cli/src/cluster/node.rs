//! One node's dataplane, as far as policy is concerned.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use margay_agent::{
    calc::{self, Resources},
    model::{Selector, WorkloadEndpoint},
};
use margay_api::dataplane::v1::{self as api, change::Change};
use margay_dataplane::{
    control::{self, End, EndpointId, HostList, ObjectError, Stage, State, host_stages, walk_host_lists},
    net::{Addr, Nanos},
    policy::{CompiledPolicy, Direction, Explanation, Query, SetMembers, SetTable, Verdict},
    snapshot::{EndpointToHost, Publisher, Snapshot},
};
use serde::Serialize;

use super::uplinks::Uplinks;
use crate::{
    exit::{Code, Failure, Outcome},
    judge::judge,
    readable::count,
};

/// Holds the node's compiled policy.
pub struct Node {
    name: String,
    state: State,
    uplinks: Uplinks,
    /// What the sets of addresses stand for, by name.
    selectors: BTreeMap<String, Selector>,
    /// Of those of nodes' addresses, the labels of the nodes, by name.
    node_sets: BTreeMap<String, Selector>,
}

/// What one end of a packet says, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

/// What a host endpoint on a packet's way says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostJudgement {
    /// failsafe, doNotTrack, preDNAT, applyOnForward or normal.
    pub stage: String,
    pub direction: String,
    pub endpoint: String,
    /// `pass`: it has nothing to say.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// Where that is.
    #[serde(skip)]
    pub node: String,
    /// What was asked.
    #[serde(skip)]
    pub list: HostList,
}

impl Node {
    /// What the agent would send to the node, taken by a dataplane. With it, what is wrong with the
    /// resources. The node has addresses of its `own`.
    pub fn new(resources: &Resources, name: &str, own: &[IpAddr]) -> Outcome<(Self, Vec<String>)> {
        let mut desired = calc::policy(resources, name);
        let (selectors, node_sets) = selectors(&desired);
        let problems = std::mem::take(&mut desired.problems);
        let hosts: Vec<_> = desired.host_endpoints.values().map(|host| &**host).collect();
        let uplinks = Uplinks::of(hosts.into_iter(), own);
        let mut state = State::new(Publisher::new(Snapshot::empty(1)), u16::MAX);
        uplinks.attach(&mut state);
        let commit = api::Commit { generation: 1, in_sync: true };
        state
            .commit(&changes(&desired), &commit, Nanos::default())
            .map_err(|errors| refused(name, &errors))?;
        Ok((Self { name: name.to_owned(), state, uplinks, selectors, node_sets }, problems))
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
        Ok(Judgement::of(tree.explain(self.sets(), query), true))
    }

    /// What host endpoints of this node say of a packet, in order, as far as it comes. Of its ends, those
    /// that are on this node. Where a service made it of another, that was for an end of its own.
    pub fn judge_as_host(
        &self,
        [from, to]: [Option<End>; 2],
        query: &Query,
        before: Option<(&Query, End)>,
    ) -> Outcome<Vec<HostJudgement>> {
        if self.uplinks.is_empty() {
            return Ok(Vec::new());
        }
        let [from, to] = self.uplinks.ends(from, to, query);
        let (asked, meant) = before.unwrap_or((query, to.clone()));
        let judged =
            host_stages(&self.state, (&from, &meant, &to), (asked, query)).into_iter().map(|stage| {
                if let Some(tree) = self.host_tree(&stage.list, stage.direction) {
                    judge(tree, self.sets(), if stage.list.is_before_translation() { asked } else { query })?;
                }
                Ok(HostJudgement {
                    stage: stage.name(),
                    direction: stage.direction.to_string(),
                    endpoint: stage.list.to_string(),
                    judgement: Judgement::of(stage.explained, stage.decided),
                    node: self.name.clone(),
                    list: stage.list,
                })
            });
        judged.collect()
    }

    /// Asks the host endpoints of this node about a packet, and tells what decides, in order. Of its ends,
    /// those that are on this node.
    pub fn ask_as_host<'n>(
        &'n self,
        [from, to]: [Option<End>; 2],
        query: &Query,
        mut decided: impl FnMut(&'n CompiledPolicy, Verdict),
    ) {
        if self.uplinks.is_empty() {
            return;
        }
        let [from, to] = self.uplinks.ends(from, to, query);
        walk_host_lists(&self.state, (&from, &to, &to), |list, at| {
            let (policy, index) = (self.state.policy(), self.state.host_list_index(list)?);
            let verdict = policy.opinion(index, at, query)?;
            decided(policy.tree(index, at)?.compiled(), verdict);
            Some(verdict.allow)
        });
    }

    /// A workload of this node, as an end of its packets.
    pub fn end(&self, endpoint: &WorkloadEndpoint) -> Option<End> {
        let endpoint = self.state.desired().endpoints.get(&id(endpoint))?;
        Some(End::Workload(endpoint.interface.clone()))
    }

    /// The node's addresses, by the uplink that they are on, where host endpoints protect it.
    pub fn host_addresses(&self) -> impl Iterator<Item = &[Addr]> {
        self.uplinks.addresses().filter(|addresses| !addresses.is_empty())
    }

    /// Host endpoints protect it.
    pub fn is_protected(&self) -> bool {
        !self.uplinks.is_empty()
    }

    /// Workloads may not speak to this node: DefaultEndpointToHostAction is Drop.
    pub fn is_closed(&self) -> bool {
        self.state.desired().endpoint_to_host == EndpointToHost::Drop
    }

    /// What applies to an endpoint of this node.
    pub fn show(&self, request: &api::GetEndpointPolicyRequest) -> Outcome<api::EndpointPolicy> {
        control::show(&self.state, request).map_err(|error| {
            Failure::new(Code::Failed, "cannot show the policy", error.to_string(), "please report this")
        })
    }

    /// What judges one direction of an endpoint of this node.
    pub fn tree(&self, endpoint: &WorkloadEndpoint, direction: Direction) -> Outcome<&CompiledPolicy> {
        let id = id(endpoint);
        let policy = self.state.policy();
        let index = self.state.endpoint_index(&id);
        let tree = index.and_then(|index| policy.tree(index, direction));
        tree.map(|tree| tree.compiled()).ok_or_else(|| {
            let cause = format!("the dataplane knows no endpoint {}", id.workload);
            Failure::new(Code::Failed, "the packet cannot be judged", cause, "please report this")
        })
    }

    /// What judges one direction of a host endpoint's stage.
    pub fn host_tree(&self, list: &HostList, direction: Direction) -> Option<&CompiledPolicy> {
        let index = self.state.host_list_index(list)?;
        Some(self.state.policy().tree(index, direction)?.compiled())
    }

    /// All that judges for host endpoints.
    pub fn host_trees(&self) -> impl Iterator<Item = &CompiledPolicy> {
        let ids = self.state.desired().host_endpoints.keys();
        let stages = [Stage::Untracked, Stage::PreDnat, Stage::Forward, Stage::Normal];
        let of = move |id: &Arc<str>| stages.map(|stage| HostList::Of(id.clone(), stage));
        let lists = [HostList::Failsafe, HostList::FailsafeReplies].into_iter().chain(ids.flat_map(of));
        let both = |list| [Direction::Ingress, Direction::Egress].map(|at| self.host_tree(&list, at));
        lists.flat_map(both).flatten()
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
        if let Some(labels) = self.node_sets.get(name) {
            return Some(format!("nodes with {labels}"));
        }
        let set = self.sets().iter().map(|(_, set)| set).find(|set| &*set.name == name)?;
        let SetMembers::IpPort(members) = &set.members else { return None };
        let ports: BTreeSet<String> =
            members.iter().map(|one| format!("{} {}", one.proto, one.port)).collect();
        let ports = ports.into_iter().take(4).collect::<Vec<_>>().join(", ");
        Some(format!("a named port ({ports}) of {}", count(members.len() as u64, "address", "addresses")))
    }

    /// Its rules tell nodes from other addresses.
    pub fn names_nodes(&self) -> bool {
        !self.node_sets.is_empty()
    }

    /// The selector whose addresses a set holds; `None`: it is one of ports, or nobody names it.
    pub fn selector(&self, set: &str) -> Option<&Selector> {
        self.selectors.get(set)
    }
}

impl Judgement {
    fn of(explained: Explanation, decided: bool) -> Self {
        let decider = &explained.decider;
        Self {
            verdict: match (decided, explained.verdict.allow) {
                (false, _) => "pass",
                (true, true) => "allow",
                (true, false) => "deny",
            },
            tier: decider.tier().to_owned(),
            policy: decider.policy(),
            rule: u32::try_from(decider.rule).ok(),
            minimal_match: explained.minimal_match.clone(),
            explained,
        }
    }

    /// The packet may go on.
    pub fn allows(&self) -> bool {
        self.verdict != "deny"
    }

    /// Nothing else is to be asked: a stage of a host endpoint may have nothing to say.
    pub fn decides(&self) -> bool {
        self.verdict != "pass"
    }
}

/// A node's dataplane takes none of what it is sent.
pub fn refused(node: &str, errors: &[ObjectError]) -> Failure {
    let each = errors.iter().map(|error| format!("{}: {}", error.object, error.error));
    Failure::new(
        Code::Failed,
        format!("the dataplane of node {node} would refuse the objects"),
        each.collect::<Vec<_>>().join("\n"),
        "correct what is named above",
    )
}

fn id(endpoint: &WorkloadEndpoint) -> EndpointId {
    let key = calc::endpoint_key(endpoint);
    EndpointId { orchestrator: key.orchestrator, workload: key.workload, endpoint: key.endpoint }
}

/// All that judges packets, as an agent sends it.
pub fn changes(desired: &calc::Desired) -> Vec<api::Change> {
    let changes = [Change::Config(desired.config.clone())]
        .into_iter()
        .chain(desired.ip_sets.iter().map(|(id, set)| Change::IpSet(set.message(id))))
        .chain(desired.policies.values().map(|policy| Change::Policy((**policy).clone())))
        .chain(desired.profiles.values().map(|profile| Change::Profile((**profile).clone())))
        .chain(desired.endpoints.values().map(|endpoint| Change::WorkloadEndpoint((**endpoint).clone())))
        .chain(desired.host_endpoints.values().map(|host| Change::HostEndpoint((**host).clone())));
    changes.map(|change| api::Change { change: Some(change) }).collect()
}

/// Every selector that a rule was made from, by the name of its set: those of endpoints, and those of nodes.
fn selectors(desired: &calc::Desired) -> (BTreeMap<String, Selector>, BTreeMap<String, Selector>) {
    let policies = desired.policies.values().flat_map(|p| p.inbound_rules.iter().chain(&p.outbound_rules));
    let profiles = desired.profiles.values().flat_map(|p| p.inbound_rules.iter().chain(&p.outbound_rules));
    let parsed = |text: &String| if text.is_empty() { None } else { Selector::parse(text).ok() };
    let (mut of_endpoints, mut of_nodes) = (BTreeMap::new(), BTreeMap::new());
    for origin in policies.chain(profiles).filter_map(|rule| rule.origin.as_ref()) {
        let texts =
            [&origin.src_selector, &origin.dst_selector, &origin.not_src_selector, &origin.not_dst_selector];
        of_endpoints.extend(texts.into_iter().filter_map(parsed).map(|selector| (selector.uid(), selector)));
        of_nodes.extend(
            parsed(&origin.dst_node_selector).map(|selector| (calc::node_set_id(&selector), selector)),
        );
    }
    (of_endpoints, of_nodes)
}
