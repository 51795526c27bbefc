//! Which policies decide for the node's endpoints, and in what order.

use super::{
    EndpointKey, PolicyKey, Resources,
    catalog::Catalog,
    endpoints::{Local, Owner},
    ip_sets::Wanted,
    policies::{self, Policy, Stage},
    tiers::{self, Directions, Tiers},
};
use crate::model::{Selector, StagedAction};
use margay_api::dataplane::v1::{self as api, Action, TierBinding};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Policies, and the endpoints they are bound to.
#[derive(Default)]
pub(super) struct Bound {
    pub policies: BTreeMap<PolicyKey, api::Policy>,
    pub workloads: BTreeMap<EndpointKey, Bindings>,
    pub hosts: BTreeMap<String, HostBindings>,
}

/// The policies that select an endpoint, tier by tier.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bindings {
    pub in_force: Vec<TierBinding>,
    /// As they would be with every staged policy in force; empty where that is no difference.
    pub staged: Vec<TierBinding>,
}

/// The policies of a host endpoint, by the point of a packet's way at which they judge.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HostBindings {
    pub normal: Bindings,
    pub untracked: Vec<TierBinding>,
    pub pre_dnat: Vec<TierBinding>,
    pub forward: Vec<TierBinding>,
}

/// The policies that select an endpoint of `local`, bound to each such endpoint by tier and direction.
pub(super) fn bind(
    resources: &Resources,
    local: &Local<'_>,
    wanted: &mut Wanted,
    problems: &mut Vec<String>,
) -> Bound {
    let tiers = Tiers::new(resources);
    let mut policies: Vec<_> = policies::all(resources).collect();
    policies::sort(&mut policies, &tiers);
    let staging = Staging::of(policies.iter());

    let mut selected = Selected { catalog: Catalog::of_node(resources, local), by_selector: HashMap::new() };
    let mut bound = Bound::default();
    for policy in policies.iter().filter(|policy| policy.staged != Some(StagedAction::Delete)) {
        // One whose selector cannot be read denies everywhere.
        let selector = policy.applies_to().unwrap_or_else(|_| Selector::all());
        let binding = Binding::of(policy, &tiers, &staging);
        let mut used = false;
        for owner in selected.by(&selector) {
            used |= bound.add(owner, policy.stage, &binding);
        }
        if !used {
            continue;
        }
        problems.extend(policy.lost(&tiers));
        bound.policies.insert(policy.key.clone(), policy.message(wanted, problems));
    }
    bound.compare(&staging);
    bound
}

/// What the staged policies would do to the enforced ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Staging {
    /// There are any.
    any: bool,
    /// Those of the enforced ones that would go, for another or for none.
    gone: BTreeSet<PolicyKey>,
}

/// In which of the lists of [`Bindings`] a policy is.
#[derive(Clone, Copy)]
struct Lists {
    in_force: bool,
    staged: bool,
}

impl Staging {
    pub fn of<'a>(policies: impl Iterator<Item = &'a Policy<'a>>) -> Self {
        let gone: BTreeSet<_> =
            policies.filter(|policy| policy.staged.is_some()).map(Policy::stands_for).collect();
        Self { any: !gone.is_empty(), gone }
    }

    fn lists(&self, policy: &Policy<'_>) -> Lists {
        let in_force = policy.staged.is_none();
        Lists { in_force, staged: self.any && !(in_force && self.gone.contains(&policy.key)) }
    }
}

/// A policy, ready to be bound.
pub(super) struct Binding<'a> {
    tier: &'a str,
    end: Action,
    policy: &'a PolicyKey,
    directions: Directions,
    lists: Lists,
}

impl Bound {
    /// Binds a policy to an endpoint that it selects; false where it has no say there.
    pub fn add(&mut self, owner: &Owner, stage: Stage, binding: &Binding<'_>) -> bool {
        let Directions { ingress, egress } = binding.directions;
        if !ingress && !egress {
            return false;
        }
        match (owner, stage) {
            (Owner::Workload(key), Stage::Normal { .. }) => {
                binding.push(self.workloads.entry(key.clone()).or_default());
            }
            (Owner::Workload(_), _) => return false,
            (Owner::Host(_), Stage::Untracked | Stage::PreDnat) if !binding.lists.in_force => return false,
            (Owner::Host(name), stage) => {
                let host = self.hosts.entry(name.clone()).or_default();
                match stage {
                    // What these do not match goes on to what comes after them.
                    Stage::Untracked => binding.push_to(&mut host.untracked, Action::Pass),
                    Stage::PreDnat => binding.push_to(&mut host.pre_dnat, Action::Pass),
                    Stage::Normal { forward } => {
                        binding.push(&mut host.normal);
                        if forward && binding.lists.in_force {
                            binding.push_to(&mut host.forward, binding.end);
                        }
                    }
                }
            }
        }
        true
    }

    /// Once all are bound: leaves of what is staged only what would be different.
    pub fn compare(&mut self, staging: &Staging) {
        if staging.any {
            let hosts = self.hosts.values_mut().map(|host| &mut host.normal);
            self.workloads.values_mut().chain(hosts).for_each(Bindings::compare);
        }
    }
}

impl<'a> Binding<'a> {
    pub fn of(policy: &'a Policy<'_>, tiers: &Tiers, staging: &Staging) -> Self {
        Self {
            tier: policy.tier(),
            end: tiers.end(policy.tier()),
            policy: &policy.key,
            directions: policy.directions(),
            lists: staging.lists(policy),
        }
    }

    fn push(&self, bindings: &mut Bindings) {
        if self.lists.in_force {
            self.push_to(&mut bindings.in_force, self.end);
        }
        if self.lists.staged {
            self.push_to(&mut bindings.staged, self.end);
        }
    }

    fn push_to(&self, bindings: &mut Vec<TierBinding>, end: Action) {
        tiers::push(bindings, self.tier, end, self.policy, self.directions);
    }
}

impl Bindings {
    /// Leaves in `staged` only what would be different.
    fn compare(&mut self) {
        if self.staged == self.in_force {
            self.staged.clear();
        } else if self.staged.is_empty() {
            // An empty list would say that nothing changes: tiers without policies say nothing else.
            let emptied = |tier: &TierBinding| TierBinding {
                name: tier.name.clone(),
                default_action: tier.default_action,
                ..TierBinding::default()
            };
            self.staged = self.in_force.iter().map(emptied).collect();
        }
    }
}

/// Which endpoints of the node a selector selects, worked out once a selector.
struct Selected<'a> {
    catalog: Catalog<'a>,
    by_selector: HashMap<String, Vec<Owner>>,
}

impl Selected<'_> {
    fn by(&mut self, selector: &Selector) -> &[Owner] {
        self.by_selector
            .entry(selector.canonical().to_owned())
            .or_insert_with(|| self.catalog.select(selector).filter_map(|member| member.owner()).collect())
    }
}
