//! Every endpoint's policy: numbers for endpoints and sets, and the rules that judge each.

use super::State;
use crate::control::convert::FieldError;
use crate::control::desired::{self, Desired, Endpoint, EndpointId, ObjectError, SetNames};
use crate::policy::{
    Action as RuleAction, Direction, EndpointIdx, IpSet, ListedPolicy, ListedProfile, PolicyTable,
    PolicyTree, Rule, RuleList, SetId, TableError, TierList,
};
use std::collections::BTreeSet;
use std::sync::Arc;

impl State {
    /// Every endpoint's policy now.
    pub fn policy(&self) -> &Arc<PolicyTable> {
        &self.policy
    }

    /// The endpoint's number in the policy table.
    pub fn endpoint_index(&self, id: &EndpointId) -> Option<EndpointIdx> {
        self.endpoints.get(id).copied()
    }

    /// The endpoint of a number in the policy table.
    pub fn endpoint_of(&self, index: EndpointIdx) -> Option<&Endpoint> {
        let (id, _) = self.endpoints.iter().find(|(_, of)| **of == index)?;
        self.desired.endpoints.get(id).map(|endpoint| &**endpoint)
    }

    /// Trees that no worker judges by any more, for their last counts.
    pub fn take_retired_trees(&mut self) -> Vec<Arc<PolicyTree>> {
        let (free, held) = std::mem::take(&mut self.retired_trees)
            .into_iter()
            .partition(|tree| Arc::strong_count(tree) == 1);
        self.retired_trees = held;
        free
    }

    pub(super) fn endpoint(&self, id: &EndpointId) -> EndpointIdx {
        self.endpoints.get(id).copied().unwrap_or(EndpointIdx(u32::MAX))
    }

    /// Every endpoint's policy under `desired`. Gives numbers to new endpoints.
    pub(super) fn policy_table(
        &mut self,
        desired: &Desired,
        sets: &SetNames,
    ) -> Result<PolicyTable, ObjectError> {
        let used: BTreeSet<EndpointIdx> = self.endpoints.values().copied().collect();
        let free = (0..).map(EndpointIdx).filter(|index| !used.contains(index));
        let new = desired.endpoints.keys().filter(|id| !self.endpoints.contains_key(id)).cloned();
        let numbered: Vec<_> = new.zip(free).collect();
        self.endpoints.extend(numbered);
        let mut members = vec![None; sets.bound()];
        for (name, id) in sets.iter() {
            members[id.0 as usize] = desired.ip_sets.get(name).cloned();
        }
        let refuse = |object: String, why: &dyn std::fmt::Display| ObjectError {
            object,
            error: FieldError::new("", why),
        };
        let known: BTreeSet<SetId> =
            sets.iter().filter(|(name, _)| desired.ip_sets.contains_key(*name)).map(|(_, id)| id).collect();
        // Most transactions leave most sets alone, and they may have millions of members.
        let current = self.policy.sets();
        let same = |(id, new): &(SetId, Option<Arc<IpSet>>)| match (current.get(*id), new) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        let changed: Vec<_> = (0..).map(SetId).zip(members).filter(|change| !same(change)).collect();
        let table = if changed.is_empty() {
            current.clone()
        } else {
            Arc::new(current.updated(changed).map_err(|e| refuse("IP sets".into(), &e))?)
        };
        let mut builder = self.policy.next(table);
        for endpoint in desired.endpoints.values() {
            let index = self.endpoint(&endpoint.id);
            let bound = builder.bind(
                index,
                rule_list(desired, &known, endpoint, Direction::Ingress),
                rule_list(desired, &known, endpoint, Direction::Egress),
            );
            bound.map_err(|e: TableError| {
                refuse(format!("policy of workload endpoint {}", endpoint.name), &e)
            })?;
        }
        Ok(builder.finish())
    }
}

/// All that judges one direction of an endpoint. What is missing denies.
fn rule_list(
    desired: &Desired,
    known: &BTreeSet<SetId>,
    endpoint: &Endpoint,
    direction: Direction,
) -> RuleList {
    let deny: Arc<[Rule]> = Arc::new([Rule::any(RuleAction::Deny)]);
    let or_deny = |rules: Option<&Arc<[Rule]>>| match rules {
        Some(rules) => {
            let mut named = rules.iter().flat_map(|r| r.address_sets().chain(r.port_sets()));
            if named.all(|id| known.contains(&id)) { rules.clone() } else { deny.clone() }
        }
        None => deny.clone(),
    };
    let tier = |tier: &desired::Tier| {
        let ids = if direction == Direction::Ingress { &tier.ingress } else { &tier.egress };
        let policies = ids.iter().map(|id| {
            let policy = desired.policies.get(id);
            let rules =
                policy.map(|p| if direction == Direction::Ingress { &p.inbound } else { &p.outbound });
            ListedPolicy { id: id.clone(), rules: or_deny(rules) }
        });
        TierList { name: tier.name.clone(), default: tier.default, policies: policies.collect() }
    };
    let profile = |name: &Arc<str>| {
        let profile = desired.profiles.get(name);
        let rules = profile.map(|p| if direction == Direction::Ingress { &p.inbound } else { &p.outbound });
        ListedProfile { name: name.clone(), rules: or_deny(rules) }
    };
    RuleList {
        tiers: endpoint.tiers.iter().map(tier).filter(|tier| !tier.policies.is_empty()).collect(),
        profiles: endpoint.profiles.iter().map(profile).collect(),
        ..RuleList::default()
    }
}
