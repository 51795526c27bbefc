//! Policies of every kind, seen as one.

use super::{
    PolicyKey, Resources,
    ip_sets::Wanted,
    rules,
    tiers::{Directions, Tiers, ascending},
};
use crate::model::{
    GlobalNetworkPolicy, GlobalNetworkPolicySpec, Kind, Metadata, NetworkPolicy, NetworkPolicySpec,
    Object as _, PolicyType, Resource, Rule, Selector, SelectorError, StagedAction,
    StagedGlobalNetworkPolicy, StagedNetworkPolicy, Tier,
};
use margay_api::dataplane::v1 as api;
use std::cmp::Ordering;

/// A policy of any kind.
pub(super) struct Policy<'a> {
    pub key: PolicyKey,
    pub stage: Stage,
    /// Only reported: what would become of the policy [`Self::stands_for`].
    pub staged: Option<StagedAction>,
    scope: Scope<'a>,
    tier: &'a str,
    order: Option<f64>,
    /// For people.
    selector: &'a str,
    types: &'a [PolicyType],
    ingress: &'a [Rule],
    egress: &'a [Rule],
}

/// What says whom a policy applies to.
#[derive(Clone, Copy)]
enum Scope<'a> {
    /// With the namespace.
    Namespaced(&'a NetworkPolicySpec, &'a str),
    Global(&'a GlobalNetworkPolicySpec),
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

/// All policies, in no order, but those that are staged to be ignored.
pub(super) fn all(resources: &Resources) -> impl Iterator<Item = Policy<'_>> {
    let kinds = [
        Kind::NetworkPolicy,
        Kind::GlobalNetworkPolicy,
        Kind::StagedNetworkPolicy,
        Kind::StagedGlobalNetworkPolicy,
    ];
    kinds.into_iter().flat_map(|kind| resources.of_kind(kind)).filter_map(|object| Policy::of(object))
}

/// Tier by tier, in the order in which they are asked.
pub(super) fn sort(policies: &mut [Policy<'_>], tiers: &Tiers) {
    policies.sort_by(|a, b| {
        let tier = tiers.order(a.tier()).partial_cmp(&tiers.order(b.tier()));
        tier.unwrap_or(Ordering::Equal).then_with(|| a.compare(b))
    });
}

impl<'a> Policy<'a> {
    /// None: it is no policy, or one that is staged to be ignored.
    pub fn of(object: &'a Resource) -> Option<Self> {
        let (staged, policy) = match object {
            Resource::NetworkPolicy(policy) => {
                (None, Self::namespaced(NetworkPolicy::KIND, &policy.metadata, &policy.spec))
            }
            Resource::GlobalNetworkPolicy(policy) => {
                (None, Self::global(GlobalNetworkPolicy::KIND, &policy.metadata, &policy.spec))
            }
            Resource::StagedNetworkPolicy(staged) => {
                let policy =
                    Self::namespaced(StagedNetworkPolicy::KIND, &staged.metadata, &staged.spec.policy);
                (Some(staged.spec.action()), policy)
            }
            Resource::StagedGlobalNetworkPolicy(staged) => {
                let policy =
                    Self::global(StagedGlobalNetworkPolicy::KIND, &staged.metadata, &staged.spec.policy);
                (Some(staged.spec.action()), policy)
            }
            _ => return None,
        };
        (staged != Some(StagedAction::Ignore)).then_some(Self { staged, ..policy })
    }

    fn namespaced(kind: Kind, metadata: &'a Metadata, spec: &'a NetworkPolicySpec) -> Self {
        Self {
            key: PolicyKey {
                kind: kind.to_string(),
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone(),
            },
            stage: Stage::Normal { forward: false },
            staged: None,
            scope: Scope::Namespaced(spec, &metadata.namespace),
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
        }
    }

    fn global(kind: Kind, metadata: &Metadata, spec: &'a GlobalNetworkPolicySpec) -> Self {
        let stage = match (spec.do_not_track, spec.pre_dnat) {
            (true, _) => Stage::Untracked,
            (_, true) => Stage::PreDnat,
            _ => Stage::Normal { forward: spec.apply_on_forward },
        };
        Self {
            key: PolicyKey { kind: kind.to_string(), namespace: String::new(), name: metadata.name.clone() },
            stage,
            staged: None,
            scope: Scope::Global(spec),
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
        }
    }

    /// Which endpoints it is for.
    pub fn applies_to(&self) -> Result<Selector, SelectorError> {
        match self.scope {
            Scope::Namespaced(spec, namespace) => spec.applies_to(namespace),
            Scope::Global(spec) => spec.applies_to(),
        }
    }

    pub fn tier(&self) -> &str {
        if self.tier.is_empty() { Tier::DEFAULT } else { self.tier }
    }

    /// What it covers. Without types: egress rules alone cover egress alone, and anything else
    /// covers ingress too.
    pub fn directions(&self) -> Directions {
        let (ingress, egress) = match self.types {
            [] => (!self.ingress.is_empty() || self.egress.is_empty(), !self.egress.is_empty()),
            types => (types.contains(&PolicyType::Ingress), types.contains(&PolicyType::Egress)),
        };
        // Of traffic that leaves, there is no destination left to translate.
        Directions { ingress, egress: egress && self.stage != Stage::PreDnat }
    }

    /// The enforced policy that a staged one would replace; of an enforced one, itself.
    pub fn stands_for(&self) -> PolicyKey {
        let PolicyKey { kind, namespace, name } = &self.key;
        let kind = if self.staged.is_some() { kind.trim_start_matches("Staged") } else { kind };
        PolicyKey { kind: kind.to_owned(), namespace: namespace.clone(), name: name.clone() }
    }

    /// In a tier: by order, none last, then by "name/namespace/kind" as one text, as Calico has it. A
    /// staged policy has the place that it would have in force.
    pub fn compare(&self, other: &Self) -> Ordering {
        let text = |policy: &Self| {
            let PolicyKey { kind, namespace, name } = policy.stands_for();
            format!("{name}/{namespace}/{kind}")
        };
        ascending(self.order)
            .total_cmp(&ascending(other.order))
            .then_with(|| text(self).cmp(&text(other)))
            // The replaced one first: which does not matter, as they are never in one list.
            .then_with(|| self.staged.is_some().cmp(&other.staged.is_some()))
    }

    /// What is wrong with its tier.
    pub fn lost(&self, tiers: &Tiers) -> Option<String> {
        let is_lost = !tiers.known(self.tier());
        is_lost.then(|| {
            format!(
                "{} names tier {:?}, which does not exist: it is asked after all others, and denies at its end",
                self.title(),
                self.tier()
            )
        })
    }

    /// For people.
    pub fn title(&self) -> String {
        let PolicyKey { kind, namespace, name } = &self.key;
        if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
    }

    /// As the dataplane takes it. What cannot be converted denies everything, and is a problem.
    pub fn message(&self, wanted: &mut Wanted, problems: &mut Vec<String>) -> api::Policy {
        let namespace = Some(self.key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let mut direction = |covered: bool, rules: &[Rule]| match covered {
            true => rules::convert(rules, namespace, wanted),
            false => Ok(Vec::new()),
        };
        let covered = self.directions();
        let applies_to = self.applies_to();
        let converted = match &applies_to {
            Err(error) => Err(format!("selector: {error}")),
            Ok(_) => direction(covered.ingress, self.ingress)
                .and_then(|inbound| Ok((inbound, direction(covered.egress, self.egress)?))),
        };
        let (inbound_rules, outbound_rules) = converted.unwrap_or_else(|error| {
            problems.push(format!("{} denies everything, as it cannot be converted: {error}", self.title()));
            (rules::deny_all(), rules::deny_all())
        });
        let selector = match &applies_to {
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
            staged: self.staged.is_some(),
        }
    }
}
