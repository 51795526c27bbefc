//! Staged policies: who names them, and the lists that would be if they were in force.

use super::State;
use crate::control::convert::FieldError;
use crate::control::desired::{Desired, Endpoint, EndpointId, ObjectError, Tier};
use crate::control::difference::Difference;
use crate::net::{Nanos, SharedMap};
use crate::policy::{Direction, EndpointIdx, PolicyTable, Shadow, StagedLists};
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
        next.endpoints.values().flat_map(|endpoint| misnamed(next, endpoint)).collect()
    }

    /// What staged policies would decide after `difference`, beside `policy`.
    pub(super) fn shadow_of(
        &self,
        difference: &Difference<'_>,
        policy: &Arc<PolicyTable>,
        numbered: &SharedMap<EndpointId, EndpointIdx>,
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
        let mut lists = vec![];
        for endpoint in next.endpoints.values().filter(|endpoint| !endpoint.staged_tiers.is_empty()) {
            let Some(index) = numbered.get(&endpoint.id) else { continue };
            let list = |direction| {
                let [present, would_be] = [&endpoint.tiers, &endpoint.staged_tiers].map(|tiers| {
                    let by = (&tiers[..], &endpoint.profiles[..]);
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
            let of = next.endpoints.values().find(|endpoint| numbered.get(&endpoint.id) == Some(&index));
            let name = of.map(|endpoint| endpoint.name.to_string()).unwrap_or_default();
            ObjectError {
                object: format!("workload endpoint {name}"),
                error: FieldError::new("staged_tiers", error),
            }
        })?;
        Ok(shadow.map(Arc::new))
    }
}

fn misnamed(next: &Desired, endpoint: &Endpoint) -> Vec<ObjectError> {
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
                        object: format!("workload endpoint {}", endpoint.name),
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
        look("tiers", &endpoint.tiers, false);
    }
    look("staged_tiers", &endpoint.staged_tiers, true);
    errors
}
