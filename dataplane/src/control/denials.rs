//! What was dropped and why, as far as samples and counters tell.

use super::by_policy::ByPolicy;
use super::state::State;
use crate::net::{FlowKey, Icmp};
use crate::nodes::{Deciding, Event};
use crate::packet::DropReason;
use crate::policy::{Action, Decider, Direction, EndpointIdx, Place, PolicyTree, RetiredTree};
use margay_api::dataplane::v1 as pb;
use std::collections::HashMap;

/// Rules remembered at most that no tree has any more.
const MAX_REMEMBERED: usize = 4096;

/// What is known of denied packets, by rule, and the last dropped packet of each reason.
#[derive(Default)]
pub struct Denials {
    /// Counts of trees that are gone.
    past: HashMap<Decider, u64>,
    /// The same of all that decided, by policy.
    pub(super) by_policy: ByPolicy,
    /// The last sample of each rule.
    last: HashMap<Decider, Sample>,
    last_of_reason: HashMap<DropReason, String>,
}

struct Sample {
    reason: DropReason,
    endpoint: String,
    direction: Direction,
    packet: String,
}

impl Denials {
    /// Takes a worker's sample.
    pub fn note(&mut self, event: &Event, state: &State) {
        let Event::Dropped { reason, key, icmp, deciding, .. } = event else { return };
        let packet = describe(key, *icmp);
        if let Some((decider, sample)) =
            deciding.and_then(|deciding| sample(*reason, &deciding, &packet, state))
            && (self.last.len() < MAX_REMEMBERED || self.last.contains_key(&decider))
        {
            self.last.insert(decider, sample);
        }
        self.last_of_reason.insert(*reason, packet);
    }

    /// Takes the last counts of trees that are going, as far as no other goes on from them.
    pub fn fold(&mut self, trees: Vec<RetiredTree>) {
        for RetiredTree { tree, ended } in trees {
            let counted: Vec<(Decider, u64)> = match ended {
                None => decided(&tree).collect(),
                Some(slots) => {
                    let count = |slot: &u32| Some((tree.compiled().decider(*slot)?, tree.hits().take(*slot)));
                    slots.iter().filter_map(count).filter(|(_, count)| *count > 0).collect()
                }
            };
            for (decider, count) in counted {
                self.by_policy.add(&decider, count);
                if !denies(&decider) {
                    continue;
                }
                if self.past.len() < MAX_REMEMBERED || self.past.contains_key(&decider) {
                    *self.past.entry(decider).or_default() += count;
                }
            }
        }
    }

    /// Rules that denied packets for `reason`, the busiest first. A rule that stands in several lists
    /// is counted as one, under the reason of its last sample.
    pub fn rules(&self, state: &State, reason: DropReason) -> Vec<pb::RuleDrops> {
        let mut counts = self.past.clone();
        for tree in state.policy().trees() {
            for (decider, count) in decided(tree).filter(|(decider, _)| denies(decider)) {
                *counts.entry(decider).or_default() += count;
            }
        }
        let of =
            |decider: &Decider| self.last.get(decider).map_or(DropReason::PolicyDenied, |last| last.reason);
        let mut rows: Vec<pb::RuleDrops> = counts
            .into_iter()
            .filter(|(decider, _)| of(decider) == reason)
            .map(|(decider, packets)| {
                let last = self.last.get(&decider);
                pb::RuleDrops {
                    endpoint: last.map(|sample| sample.endpoint.clone()).unwrap_or_default(),
                    direction: last.map(|sample| sample.direction.to_string()).unwrap_or_default(),
                    tier: decider.tier().to_owned(),
                    policy: decider.policy(),
                    rule: decider.rule,
                    packets,
                    last_packet: last.map(|sample| sample.packet.clone()).unwrap_or_default(),
                }
            })
            .collect();
        rows.sort_by(|a, b| {
            b.packets.cmp(&a.packets).then_with(|| (&a.policy, a.rule).cmp(&(&b.policy, b.rule)))
        });
        rows
    }

    /// The last packet dropped for `reason`, where one was sampled.
    pub fn last(&self, reason: DropReason) -> Option<&str> {
        self.last_of_reason.get(&reason).map(String::as_str)
    }
}

fn sample(reason: DropReason, deciding: &Deciding, packet: &str, state: &State) -> Option<(Decider, Sample)> {
    // A sample of an older policy: its slot may mean another rule by now.
    if deciding.generation != state.publisher().current().generation {
        return None;
    }
    let direction = if deciding.ingress { Direction::Ingress } else { Direction::Egress };
    let index = EndpointIdx(deciding.endpoint);
    let tree = state.policy().tree(index, direction)?;
    let decider = tree.compiled().decider(deciding.slot)?;
    let endpoint = match state.host_list(index) {
        Some(list) => list.to_string(),
        None => state.endpoint_of(index)?.name.to_string(),
    };
    Some((decider, Sample { reason, endpoint, direction, packet: packet.to_owned() }))
}

/// Deciders of a tree that decided anything.
pub(super) fn decided(tree: &PolicyTree) -> impl Iterator<Item = (Decider, u64)> + '_ {
    let totals = tree.hits().totals();
    tree.compiled().deciders().filter_map(move |(slot, decider)| {
        let count = totals.get(slot as usize).copied().unwrap_or(0);
        (count > 0).then_some((decider, count))
    })
}

pub(super) fn denies(decider: &Decider) -> bool {
    match decider.action {
        Action::Deny => true,
        // In a profile a pass denies.
        Action::Pass => matches!(decider.place, Place::Profile { .. }),
        Action::Allow | Action::Log => false,
    }
}

/// A packet in a line: `tcp 10.0.0.1:4000 > 10.0.1.2:80`.
pub(super) fn describe(key: &FlowKey, icmp: Icmp) -> String {
    if *key == FlowKey::default() {
        "no IP header was read".into()
    } else if key.proto.is_icmp() {
        format!("{key} type {} code {}", icmp.kind, icmp.code)
    } else {
        key.to_string()
    }
}
