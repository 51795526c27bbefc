//! What applies to an endpoint: its tiers, policies and rules as they are compiled, with how often each
//! decided.

use super::desired::Endpoint;
use super::state::{HostList, Stage, State};
use crate::policy::{
    CompiledPolicy, Decider, Direction, EndpointIdx, IpVersion, Otherwise, Place, Rules, SetTable,
    TierDefault, TreeShape,
};
use margay_api::dataplane::v1 as pb;
use std::collections::HashMap;
use std::sync::Arc;

/// Why there is nothing to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShowError {
    /// No endpoint has this name.
    #[error("there is no endpoint {0} on this node")]
    Unknown(String),
    /// The endpoint is known, and its policy is not.
    #[error("no policy is held for {0}: its packets are dropped")]
    Unbound(String),
}

/// The policy of the endpoint that a request names: a workload's, or a host endpoint's.
pub fn show(state: &State, request: &pb::GetEndpointPolicyRequest) -> Result<pb::EndpointPolicy, ShowError> {
    let named = |endpoint: &&Arc<Endpoint>| *endpoint.name == *request.endpoint;
    if let Some(endpoint) = state.desired().endpoints.values().find(named) {
        let index = state.endpoint_index(&endpoint.id);
        let [ingress, egress] = both(state, &endpoint.name, index, request.dot)?;
        return Ok(pb::EndpointPolicy {
            endpoint: endpoint.name.to_string(),
            generation: state.committed(),
            active: endpoint.active,
            ingress: Some(ingress),
            egress: Some(egress),
            ..Default::default()
        });
    }
    let host = state.desired().host_endpoints.get(request.endpoint.as_str());
    let host = host.ok_or_else(|| ShowError::Unknown(request.endpoint.clone()))?;
    let stage = |of: Stage| {
        let name = HostList::Of(host.id.clone(), of);
        let title = format!("{of} policy of {name}");
        both(state, &title, state.host_list_index(&name), request.dot)
    };
    let asked = [
        (Stage::Untracked, !host.untracked.is_empty()),
        (Stage::PreDnat, !host.pre_dnat.is_empty()),
        (Stage::Forward, !host.forward.is_empty()),
    ];
    let mut stages = vec![];
    for (of, _) in asked.into_iter().filter(|(_, asked)| *asked) {
        let [ingress, egress] = stage(of)?;
        // Before destination NAT only what comes in is judged.
        let egress = Some(egress).filter(|_| of != Stage::PreDnat);
        stages.push(pb::StagePolicy { stage: of.to_string(), ingress: Some(ingress), egress });
    }
    let [ingress, egress] = stage(Stage::Normal)?;
    Ok(pb::EndpointPolicy {
        endpoint: host.id.to_string(),
        generation: state.committed(),
        active: true,
        ingress: Some(ingress),
        egress: Some(egress),
        stages,
        host: true,
    })
}

/// Both directions of a list of the policy table.
fn both(
    state: &State,
    name: &str,
    index: Option<EndpointIdx>,
    dot: bool,
) -> Result<[pb::DirectionPolicy; 2], ShowError> {
    let direction = |direction| {
        let tree = index.and_then(|index| state.policy().tree(index, direction));
        let tree = tree.ok_or_else(|| ShowError::Unbound(name.to_owned()))?;
        let (compiled, sets) = (tree.compiled(), state.policy().sets());
        let title = format!("{direction} of {name}");
        Ok(pb::DirectionPolicy {
            trees: compiled.shape().into_iter().map(shape).collect(),
            bytes: compiled.bytes() as u64,
            patched: compiled.is_patched(),
            changes: compiled.changes() as u64,
            sharers: state.policy().sharers(tree) as u64,
            dot: if dot { compiled.dot(sets, &title) } else { String::new() },
            ..rules(compiled, sets, &tree.hits().totals())
        })
    };
    Ok([direction(Direction::Ingress)?, direction(Direction::Egress)?])
}

/// Tiers and profiles in order, with hits by slot.
fn rules(compiled: &CompiledPolicy, sets: &SetTable, hits: &[u64]) -> pb::DirectionPolicy {
    let at = |slot: u32| hits.get(slot as usize).copied().unwrap_or(0);
    let by_decider: HashMap<Decider, u64> =
        compiled.deciders().map(|(slot, decider)| (decider, at(slot))).collect();
    let of = |decider: Decider| by_decider.get(&decider).copied().unwrap_or(0);
    let list = compiled.list();
    let listed = |place: &Place, rules: &Rules| {
        let each = (0..).zip(rules.iter()).map(|(index, rule)| pb::ListedRule {
            index,
            action: rule.action.to_string(),
            r#match: rule.describe(sets),
            // Log rules decide nothing: they have no slot, and no count.
            hits: of(Decider { place: place.clone(), rule: index as i32, action: rule.action }),
        });
        each.collect()
    };
    let tiers = list.tiers.iter().map(|tier| {
        let end = Place::TierEnd { tier: tier.name.clone() };
        let action = match tier.default {
            TierDefault::Deny => crate::policy::Action::Deny,
            TierDefault::Pass => crate::policy::Action::Pass,
        };
        let policies = tier.policies.iter().map(|policy| {
            let place = Place::Policy { tier: tier.name.clone(), policy: policy.id.clone() };
            pb::ListedRules {
                kind: policy.id.kind.to_string(),
                name: policy.id.to_string(),
                rules: listed(&place, &policy.rules),
            }
        });
        pb::TierPolicy {
            name: tier.name.to_string(),
            policies: policies.collect(),
            default_action: action.to_string(),
            default_hits: of(Decider { place: end, rule: -1, action }),
        }
    });
    let profiles = list.profiles.iter().map(|profile| {
        let place = Place::Profile { name: profile.name.clone() };
        let rules = listed(&place, &profile.rules);
        pb::ListedRules { kind: "Profile".into(), name: profile.name.to_string(), rules }
    });
    pb::DirectionPolicy {
        tiers: tiers.collect(),
        profiles: profiles.collect(),
        otherwise: if list.otherwise == Otherwise::Deny { "deny" } else { "pass" }.into(),
        // The end of the profiles comes last.
        otherwise_hits: compiled.deciders().last().map_or(0, |(slot, _)| at(slot)),
        ..pb::DirectionPolicy::default()
    }
}

fn shape(shape: TreeShape) -> pb::TreeShape {
    pb::TreeShape {
        tier: shape.tier.to_string(),
        ip_version: match shape.version {
            None => 0,
            Some(IpVersion::V4) => 4,
            Some(IpVersion::V6) => 6,
        },
        pieces: shape.pieces as u64,
        bit_nodes: shape.bits as u64,
        cut_nodes: shape.cuts as u64,
        each_nodes: shape.each as u64,
        set_nodes: shape.by_set as u64,
        leaves: shape.leaves as u64,
        longest_leaf: shape.longest_leaf as u64,
        depth: shape.depth as u64,
        bytes: shape.bytes as u64,
        patch: shape.patch,
    }
}
