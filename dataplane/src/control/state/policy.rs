//! Every endpoint's policy: numbers for endpoints and sets, and the rules that judge each.

use super::{HostList, State};
use crate::control::convert::FieldError;
use crate::control::desired::{self, Desired, Endpoint, EndpointId, ObjectError};
use crate::control::difference::Difference;
use crate::control::written::Written;
use crate::net::{self, SharedMap};
use crate::policy::{
    Direction, EndpointIdx, IpSet, ListedPolicy, ListedProfile, PolicyTable, RetiredTree, RuleList, SetId,
    SetTable, TableError, TierList,
};
use std::collections::BTreeMap;
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
    pub fn take_retired_trees(&mut self) -> Vec<RetiredTree> {
        let (free, held) = std::mem::take(&mut self.retired_trees)
            .into_iter()
            .partition(|retired| Arc::strong_count(&retired.tree) == 1);
        self.retired_trees = held;
        free
    }

    pub(super) fn endpoint(&self, id: &EndpointId) -> EndpointIdx {
        self.endpoints.get(id).copied().unwrap_or(EndpointIdx(u32::MAX))
    }

    /// Numbers for the endpoints that `next` has.
    pub(super) fn numbered(&self, difference: &Difference<'_>) -> SharedMap<EndpointId, EndpointIdx> {
        let mut numbered = self.endpoints.clone();
        if difference.endpoints.is_empty() {
            return numbered;
        }
        // Among so many numbers there are enough that are free.
        let mut used = vec![false; numbered.len() + self.host_lists.len() + difference.endpoints.len()];
        for index in numbered.values().chain(self.host_lists.values()) {
            if let Some(used) = used.get_mut(index.0 as usize) {
                *used = true;
            }
        }
        let mut free = (0..).map(EndpointIdx).zip(&used).filter(|(_, used)| !**used).map(|(index, _)| index);
        let change = |of: &net::Difference<'_, EndpointId, Arc<Endpoint>>| match (of.old, of.new) {
            (None, Some(_)) => Some((of.key.clone(), Some(free.next()?))),
            (Some(_), None) => Some((of.key.clone(), None)),
            _ => None,
        };
        let changes: Vec<_> = difference.endpoints.iter().filter_map(change).collect();
        numbered.apply(&changes);
        numbered
    }

    /// Every endpoint's policy after `difference`, when sets are what `sets` says from now on, and the trees
    /// that it does not have any more.
    pub(super) fn policy_table(
        &self,
        difference: &Difference<'_>,
        sets: Vec<(SetId, Option<Arc<IpSet>>)>,
        numbered: &SharedMap<EndpointId, EndpointIdx>,
        hosts: &BTreeMap<HostList, EndpointIdx>,
    ) -> Result<(PolicyTable, Vec<RetiredTree>), ObjectError> {
        let refuse = |object: String, why: &dyn std::fmt::Display| ObjectError {
            object,
            error: FieldError::new("", why),
        };
        let current = self.policy.sets();
        let table = match sets.is_empty() {
            true => current.clone(),
            false => Arc::new(current.updated(sets).map_err(|e| refuse("IP sets".into(), &e))?),
        };
        // Most transactions change members of sets, and no rule asks for another set than before.
        if difference.leaves_rules()
            && let Some(table) = self.policy.with_members(&table)
        {
            return Ok((table, vec![]));
        }
        // Where rules may ask for other sets than before, every endpoint is bound anew.
        let amended = self.policy.amend(table.clone());
        let anew = amended.is_none();
        let mut builder = amended.unwrap_or_else(|| self.policy.next(table.clone()));
        for gone in difference.endpoints.iter().filter(|endpoint| endpoint.new.is_none()) {
            self.endpoints.get(gone.key).into_iter().for_each(|index| builder.unbind(*index));
        }
        for (_, index) in self.host_lists.iter().filter(|(list, _)| !hosts.contains_key(list)) {
            builder.unbind(*index);
        }
        let concerned: Vec<&Arc<Endpoint>> = match (anew, difference.leaves_policies()) {
            (true, _) => difference.next.endpoints.values().collect(),
            (false, true) => difference.endpoints.iter().filter_map(|endpoint| endpoint.new).collect(),
            (false, false) => {
                difference.next.endpoints.values().filter(|endpoint| difference.concerns(endpoint)).collect()
            }
        };
        for endpoint in concerned {
            let Some(index) = numbered.get(&endpoint.id) else { continue };
            let applied = (&*endpoint.tiers, &*endpoint.profiles);
            let list = |direction| self.rule_list(difference.next, &table, applied, direction);
            let bound = builder.bind(*index, list(Direction::Ingress), list(Direction::Egress));
            bound.map_err(|e: TableError| {
                refuse(format!("policy of workload endpoint {}", endpoint.name), &e)
            })?;
        }
        for (list, index) in hosts {
            let [ingress, egress] = self.host_rules(difference.next, &table, list);
            builder.bind(*index, ingress, egress).map_err(|e| refuse(format!("policy of {list}"), &e))?;
        }
        Ok(builder.succeed())
    }

    /// All that judges one direction of an endpoint, by its tiers and profiles. What is missing denies.
    pub(super) fn rule_list(
        &self,
        desired: &Desired,
        sets: &SetTable,
        (tiers, profiles): (&[desired::Tier], &[Arc<str>]),
        direction: Direction,
    ) -> RuleList {
        let at = usize::from(direction == Direction::Egress);
        // By whether every set is there that they name.
        let or_deny = |written: &Written| {
            let there = written.sets().iter().all(|id| sets.get(*id).is_some());
            if there { written.rules().clone() } else { self.deny.clone() }
        };
        let deny = || self.deny.clone();
        let tier = |tier: &desired::Tier| {
            let ids = [&tier.ingress, &tier.egress][at];
            let policies = ids.iter().map(|id| {
                let policy = desired.policies.get(id);
                let rules = policy.map_or_else(deny, |p| or_deny([&p.inbound, &p.outbound][at]));
                ListedPolicy { id: id.clone(), rules }
            });
            TierList { name: tier.name.clone(), default: tier.default, policies: policies.collect() }
        };
        let profile = |name: &Arc<str>| {
            let profile = desired.profiles.get(name);
            let rules = profile.map_or_else(deny, |p| or_deny([&p.inbound, &p.outbound][at]));
            ListedProfile { name: name.clone(), rules }
        };
        RuleList {
            tiers: tiers.iter().map(tier).filter(|tier| !tier.policies.is_empty()).collect(),
            profiles: profiles.iter().map(profile).collect(),
            ..RuleList::default()
        }
    }
}
