//! Staged policies: who names them, and the lists that would be if they were in force.

use super::{HostList, Stage, State};
use crate::control::convert::FieldError;
use crate::control::desired::{Desired, EndpointId, ObjectError, Tier};
use crate::control::difference::Difference;
use crate::net::{Nanos, SharedMap};
use crate::policy::{Direction, EndpointIdx, PolicyTable, Shadow, StagedLists};
use std::collections::BTreeMap;
use std::sync::Arc;

impl State {
    /// What staged policies would decide; `None` where there are none that would change a list.
    pub fn shadow(&self) -> Option<&Arc<Shadow>> {
        self.shadow.as_ref()
    }

    /// References to staged policies that cannot be: by what is in force, or to nothing.
    pub(super) fn misnamed(difference: &Difference<'_>) -> Vec<ObjectError> {
        if difference.leaves_staged() {
            return vec![];
        }
        let next = difference.next;
        let workloads = next.endpoints.values().flat_map(|endpoint| {
            let object = || format!("workload endpoint {}", endpoint.name);
            let enforced = [("tiers", &endpoint.tiers[..])];
            misnamed(next, object, &enforced, &endpoint.staged_tiers)
        });
        let hosts = next.host_endpoints.values().flat_map(|endpoint| {
            let enforced = [
                ("tiers", &endpoint.normal[..]),
                ("untracked_tiers", &endpoint.untracked),
                ("pre_dnat_tiers", &endpoint.pre_dnat),
                ("forward_tiers", &endpoint.forward),
            ];
            misnamed(next, || format!("host endpoint {}", endpoint.id), &enforced, &endpoint.staged)
        });
        workloads.chain(hosts).collect()
    }

    /// What staged policies would decide after `difference`, beside `policy`.
    pub(super) fn shadow_of(
        &self,
        difference: &Difference<'_>,
        policy: &Arc<PolicyTable>,
        (numbered, hosts): (&SharedMap<EndpointId, EndpointIdx>, &BTreeMap<HostList, EndpointIdx>),
        now: Nanos,
    ) -> Result<Option<Arc<Shadow>>, ObjectError> {
        let previous = self.shadow.as_deref();
        if difference.leaves_staged() {
            let Some(previous) = previous else { return Ok(None) };
            if let Some(same) = previous.with_members(policy.clone()) {
                return Ok(Some(Arc::new(same)));
            }
        }
        let next = difference.next;
        // The one place where staged policies stand among the others.
        let mut in_force = next.clone();
        let staged = next.staged.iter().map(|(id, policy)| (id.clone(), Some(policy.clone())));
        in_force.policies.apply(&staged.collect::<Vec<_>>());
        let workloads = next.endpoints.values().map(|endpoint| {
            let tiers = [&endpoint.tiers, &endpoint.staged_tiers];
            (numbered.get(&endpoint.id), tiers, &endpoint.profiles)
        });
        let host_endpoints = next.host_endpoints.values().map(|endpoint| {
            let index = hosts.get(&HostList::Of(endpoint.id.clone(), Stage::Normal));
            (index, [&endpoint.normal, &endpoint.staged], &endpoint.profiles)
        });
        let judged = workloads.chain(host_endpoints);
        let mut lists = vec![];
        for (index, tiers, profiles) in judged.filter(|(_, [_, staged], _)| !staged.is_empty()) {
            let Some(index) = index else { continue };
            let list = |direction| {
                let [present, would_be] = tiers.map(|tiers| {
                    let by = (&tiers[..], &profiles[..]);
                    self.rule_list(&in_force, policy.sets(), by, direction)
                });
                (present != would_be).then_some(would_be)
            };
            let (ingress, egress) = (list(Direction::Ingress), list(Direction::Egress));
            if ingress.is_some() || egress.is_some() {
                lists.push(StagedLists { endpoint: *index, ingress, egress });
            }
        }
        let shadow = Shadow::new(policy.clone(), previous, lists, now).map_err(|(index, error)| {
            let workload =
                next.endpoints.values().find(|endpoint| numbered.get(&endpoint.id) == Some(&index));
            let host = hosts.iter().find(|(_, of)| **of == index);
            let object = match (workload, host) {
                (Some(endpoint), _) => format!("workload endpoint {}", endpoint.name),
                (None, Some((list, _))) => list.to_string(),
                (None, None) => String::new(),
            };
            ObjectError { object, error: FieldError::new("staged_tiers", error) }
        })?;
        Ok(shadow.map(Arc::new))
    }
}

/// Of one object: its tiers in force, by field, and those that are only reported on.
fn misnamed(
    next: &Desired,
    object: impl Fn() -> String,
    enforced: &[(&str, &[Tier])],
    staged: &[Tier],
) -> Vec<ObjectError> {
    let mut errors = vec![];
    let mut look = |field: &str, tiers: &[Tier], staged: bool| {
        for (at, tier) in tiers.iter().enumerate() {
            for (list, ids) in [("ingress_policies", &tier.ingress), ("egress_policies", &tier.egress)] {
                for (k, id) in ids.iter().enumerate() {
                    let why = match (next.staged.contains_key(id), next.policies.contains_key(id)) {
                        (true, _) if !staged => "is staged: only staged_tiers may name it",
                        (false, false) if staged => "is not known, staged or not; send the policy first",
                        _ => continue,
                    };
                    errors.push(ObjectError {
                        object: object(),
                        error: FieldError::new(
                            format!("{field}[{at}].{list}[{k}]"),
                            format!("{} {id} {why}", id.kind),
                        ),
                    });
                }
            }
        }
    };
    if !next.staged.is_empty() {
        enforced.iter().for_each(|(field, tiers)| look(field, tiers, false));
    }
    look("staged_tiers", staged, true);
    errors
}
