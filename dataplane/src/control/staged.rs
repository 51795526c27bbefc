//! What staged policies would have changed, as counters and samples tell.

use super::denials::describe;
use super::state::{HostList, Stage, State};
use crate::net::Nanos;
use crate::nodes::Event;
use crate::policy::{Decider, Direction, EndpointIdx, Place, PolicyId};
use margay_api::dataplane::v1 as pb;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Rules whose last packet is remembered at most.
const MAX_REMEMBERED: usize = 4096;

/// The last packet that each rule would have decided otherwise.
#[derive(Default)]
pub struct Differences {
    last: HashMap<(Decider, Direction), Sample>,
}

struct Sample {
    endpoint: String,
    packet: String,
}

/// Counts of one rule, over all trees that hold it.
#[derive(Default)]
struct Counts {
    packets: u64,
    changed: u64,
    allows: bool,
}

impl Differences {
    /// Takes a worker's sample.
    pub fn note(&mut self, event: &Event, state: &State) {
        let Event::WouldDiffer { query, deciding } = event else { return };
        // A sample of an older policy: its slot may mean another rule by now.
        if deciding.generation != state.publisher().current().generation {
            return;
        }
        let direction = if deciding.ingress { Direction::Ingress } else { Direction::Egress };
        let index = EndpointIdx(deciding.endpoint);
        let tree = state.shadow().and_then(|shadow| shadow.tree(index, direction));
        let decider = tree.and_then(|tree| tree.compiled().decider(deciding.slot));
        let host = || state.host_list(index).map(ToString::to_string);
        let endpoint = state.endpoint_of(index).map(|endpoint| endpoint.name.to_string()).or_else(host);
        let (Some(decider), Some(endpoint)) = (decider, endpoint) else { return };
        let key = (decider, direction);
        if self.last.len() >= MAX_REMEMBERED && !self.last.contains_key(&key) {
            return;
        }
        let packet = describe(&query.key, query.icmp);
        self.last.insert(key, Sample { endpoint, packet });
    }

    /// Every staged policy, the endpoints it selects, and what would have been decided otherwise.
    pub fn report(&self, state: &State, now: Nanos) -> pb::ListStagedResponse {
        pb::ListStagedResponse {
            generation: state.committed(),
            policies: policies(state),
            endpoints: endpoints(state, now),
            rules: self.rules(state),
        }
    }

    /// Rules of staged policies, and whatever else would decide otherwise in their company.
    fn rules(&self, state: &State) -> Vec<pb::StagedRule> {
        let Some(shadow) = state.shadow() else { return vec![] };
        let staged = &state.desired().staged;
        let is_staged = |decider: &Decider| match &decider.place {
            Place::Policy { policy, .. } => staged.contains_key(policy),
            _ => false,
        };
        let mut rules: BTreeMap<(u8, String), (Decider, Direction, Counts)> = BTreeMap::new();
        let mut seen = HashSet::new();
        for (index, _) in judged(state) {
            for direction in [Direction::Ingress, Direction::Egress] {
                let (Some(watch), Some(tree)) =
                    (shadow.watch(index, direction), shadow.tree(index, direction))
                else {
                    continue;
                };
                // Endpoints with equal lists count in one place.
                let address = |counted: &_| std::ptr::from_ref::<crate::policy::HitCounters>(counted).addr();
                let hits = seen.insert(address(tree.hits())).then(|| tree.hits().totals());
                let changed = seen.insert(address(watch.changed())).then(|| watch.changed().totals());
                let of = |counts: &Option<Vec<u64>>, slot: u32| {
                    counts.as_ref().and_then(|counts| counts.get(slot as usize)).copied().unwrap_or_default()
                };
                for (slot, decider) in tree.compiled().deciders() {
                    let changed = of(&changed, slot);
                    if changed == 0 && !is_staged(&decider) {
                        continue;
                    }
                    let key = (
                        direction as u8,
                        format!("{} {} {:6}", decider.tier(), decider.policy(), decider.rule),
                    );
                    let (_, _, counts) =
                        rules.entry(key).or_insert_with(|| (decider.clone(), direction, Counts::default()));
                    counts.packets += of(&hits, slot);
                    counts.changed += changed;
                    counts.allows = tree.compiled().allows(slot);
                }
            }
        }
        let row = |(decider, direction, counts): (Decider, Direction, Counts)| {
            let (would_allow, would_deny) =
                if counts.allows { (counts.changed, 0) } else { (0, counts.changed) };
            let (staged, tier, policy) = (is_staged(&decider), decider.tier().to_owned(), decider.policy());
            let (rule, action) = (decider.rule, decider.action.to_string());
            let last = self.last.get(&(decider, direction)).filter(|_| counts.changed > 0);
            pb::StagedRule {
                tier,
                policy,
                staged,
                direction: direction.to_string(),
                rule,
                action,
                packets: counts.packets,
                would_allow,
                would_deny,
                last_packet: last.map(|sample| sample.packet.clone()).unwrap_or_default(),
                last_endpoint: last.map(|sample| sample.endpoint.clone()).unwrap_or_default(),
            }
        };
        rules.into_values().map(row).collect()
    }
}

fn policies(state: &State) -> Vec<pb::StagedPolicy> {
    let desired = state.desired();
    let endpoints = |id: &PolicyId, direction| {
        let selected = desired
            .endpoints
            .values()
            .filter(|endpoint| endpoint.staged_tiers.iter().any(|tier| tier.of(direction).contains(id)));
        let hosts = desired
            .host_endpoints
            .values()
            .filter(|endpoint| endpoint.staged.iter().any(|tier| tier.of(direction).contains(id)));
        let hosts = hosts.map(|endpoint| HostList::Of(endpoint.id.clone(), Stage::Normal).to_string());
        selected.map(|endpoint| endpoint.name.to_string()).chain(hosts).collect()
    };
    let row =
        |(id, policy): (&PolicyId, &std::sync::Arc<crate::control::written::Policy>)| pb::StagedPolicy {
            id: Some(pb::PolicyId {
                kind: id.kind.to_string(),
                namespace: id.namespace.to_string(),
                name: id.name.to_string(),
            }),
            tier: policy.tier.to_string(),
            ingress_endpoints: endpoints(id, Direction::Ingress),
            egress_endpoints: endpoints(id, Direction::Egress),
        };
    desired.staged.iter().map(row).collect()
}

/// Whatever staged policies may be judged for, with its name.
fn judged(state: &State) -> impl Iterator<Item = (EndpointIdx, String)> {
    let workloads = state.desired().endpoints.values();
    let workloads = workloads.filter_map(|of| Some((state.endpoint_index(&of.id)?, of.name.to_string())));
    let hosts = state.desired().host_endpoints.keys().filter_map(|id| {
        let list = HostList::Of(id.clone(), Stage::Normal);
        Some((state.host_list_index(&list)?, list.to_string()))
    });
    workloads.chain(hosts)
}

fn endpoints(state: &State, now: Nanos) -> Vec<pb::StagedEndpoint> {
    let Some(shadow) = state.shadow() else { return vec![] };
    let mut rows = vec![];
    for (index, name) in judged(state) {
        for direction in [Direction::Ingress, Direction::Egress] {
            let Some(watch) = shadow.watch(index, direction) else { continue };
            let totals = watch.totals();
            rows.push(pb::StagedEndpoint {
                endpoint: name.clone(),
                direction: direction.to_string(),
                judged: totals.judged,
                would_allow: totals.would_allow,
                would_deny: totals.would_deny,
                seconds: now.since(watch.since()).0 / 1_000_000_000,
            });
        }
    }
    rows
}
