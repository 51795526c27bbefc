//! Policies of every kind, seen as one.

use super::{
    PolicyKey, Resources,
    ip_sets::IpSets,
    rules,
    tiers::{Directions, ascending},
};
use crate::model::{
    GlobalNetworkPolicy, Kind, NetworkPolicy, PolicyType, Rule, Selector, SelectorError, Tier,
};
use margay_api::dataplane::v1 as api;
use std::cmp::Ordering;

/// A policy of any kind.
pub(super) struct Policy<'a> {
    pub key: PolicyKey,
    pub stage: Stage,
    pub applies_to: Result<Selector, SelectorError>,
    tier: &'a str,
    order: Option<f64>,
    /// For people.
    selector: &'a str,
    types: &'a [PolicyType],
    ingress: &'a [Rule],
    egress: &'a [Rule],
}

/// At which point of a packet's way a policy judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before connection tracking, on host endpoints.
    Untracked,
    /// Before destination NAT, on host endpoints.
    PreDnat,
    /// After both: on workload endpoints, and on host endpoints for the host's own traffic; where
    /// `forward`, for what the host forwards, too.
    Normal { forward: bool },
}

/// All policies, in no order.
pub(super) fn all(resources: &Resources) -> impl Iterator<Item = Policy<'_>> {
    let namespaced = resources.all::<NetworkPolicy>().map(Policy::namespaced);
    namespaced.chain(resources.all::<GlobalNetworkPolicy>().map(Policy::global))
}

impl<'a> Policy<'a> {
    fn namespaced(policy: &'a NetworkPolicy) -> Self {
        let spec = &policy.spec;
        Self {
            key: PolicyKey {
                kind: Kind::NetworkPolicy.to_string(),
                namespace: policy.metadata.namespace.clone(),
                name: policy.metadata.name.clone(),
            },
            stage: Stage::Normal { forward: false },
            applies_to: policy.applies_to(),
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
        }
    }

    fn global(policy: &'a GlobalNetworkPolicy) -> Self {
        let spec = &policy.spec;
        let stage = match (spec.do_not_track, spec.pre_dnat) {
            (true, _) => Stage::Untracked,
            (_, true) => Stage::PreDnat,
            _ => Stage::Normal { forward: spec.apply_on_forward },
        };
        Self {
            key: PolicyKey {
                kind: Kind::GlobalNetworkPolicy.to_string(),
                namespace: String::new(),
                name: policy.metadata.name.clone(),
            },
            stage,
            applies_to: policy.applies_to(),
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
        }
    }

    pub fn tier(&self) -> &str {
        if self.tier.is_empty() { Tier::DEFAULT } else { self.tier }
    }

    /// What it covers. Without types: egress rules alone cover egress alone, and anything else
    /// covers ingress too.
    pub fn directions(&self) -> Directions {
        match self.types {
            [] => Directions {
                ingress: !self.ingress.is_empty() || self.egress.is_empty(),
                egress: !self.egress.is_empty(),
            },
            types => Directions {
                ingress: types.contains(&PolicyType::Ingress),
                egress: types.contains(&PolicyType::Egress),
            },
        }
    }

    /// In a tier: by order, none last, then by "name/namespace/kind" as one text, as Calico has it.
    pub fn compare(&self, other: &Self) -> Ordering {
        let text = |key: &PolicyKey| format!("{}/{}/{}", key.name, key.namespace, key.kind);
        ascending(self.order)
            .total_cmp(&ascending(other.order))
            .then_with(|| text(&self.key).cmp(&text(&other.key)))
    }

    /// For people.
    pub fn title(&self) -> String {
        let PolicyKey { kind, namespace, name } = &self.key;
        if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
    }

    /// As the dataplane takes it. What cannot be converted denies everything, and is a problem.
    pub fn message(&self, ip_sets: &mut IpSets<'_>, problems: &mut Vec<String>) -> api::Policy {
        let namespace = Some(self.key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let mut direction = |covered: bool, rules: &[Rule]| match covered {
            true => rules::convert(rules, namespace, ip_sets),
            false => Ok(Vec::new()),
        };
        let covered = self.directions();
        let converted = match &self.applies_to {
            Err(error) => Err(format!("selector: {error}")),
            Ok(_) => direction(covered.ingress, self.ingress)
                .and_then(|inbound| Ok((inbound, direction(covered.egress, self.egress)?))),
        };
        let (inbound_rules, outbound_rules) = converted.unwrap_or_else(|error| {
            problems.push(format!("{} denies everything, as it cannot be converted: {error}", self.title()));
            (rules::deny_all(), rules::deny_all())
        });
        let selector = match &self.applies_to {
            Ok(selector) if self.selector.is_empty() => selector.to_string(),
            _ => self.selector.to_owned(),
        };
        api::Policy {
            id: Some((&self.key).into()),
            tier: self.tier().to_owned(),
            inbound_rules,
            outbound_rules,
            selector,
            untracked: self.stage == Stage::Untracked,
            pre_dnat: self.stage == Stage::PreDnat,
            staged: false,
        }
    }
}
