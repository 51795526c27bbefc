//! Which policies decide for the node's endpoints, and in what order.

use super::{
    EndpointKey, PolicyKey, Resources,
    catalog::Catalog,
    endpoints::{Local, Owner},
    ip_sets::IpSets,
    policies::{self, Policy, Stage},
    tiers::{self, Directions, Tiers},
};
use crate::model::{Selector, StagedAction};
use margay_api::dataplane::v1::{self as api, Action, TierBinding};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
};

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
    ip_sets: &mut IpSets<'_>,
    problems: &mut Vec<String>,
) -> Bound {
    let tiers = Tiers::new(resources);
    let mut policies: Vec<_> = policies::all(resources).collect();
    policies.retain(|policy| policy.staged != Some(StagedAction::Ignore));
    policies.sort_by(|a, b| {
        let tier = tiers.order(a.tier()).partial_cmp(&tiers.order(b.tier()));
        tier.unwrap_or(Ordering::Equal).then_with(|| a.compare(b))
    });
    let staged = Staging::of(&policies);

    let mut selected = Selected { catalog: Catalog::of_node(resources, local), by_selector: HashMap::new() };
    let mut bound = Bound::default();
    for policy in policies.iter().filter(|policy| policy.staged != Some(StagedAction::Delete)) {
        // One whose selector cannot be read denies everywhere.
        let selector = policy.applies_to.clone().unwrap_or_else(|_| Selector::all());
        let binding = Binding {
            tier: policy.tier(),
            end: tiers.end(policy.tier()),
            policy: &policy.key,
            directions: policy.directions(),
            lists: staged.lists(policy),
        };
        let mut used = false;
        for owner in selected.by(&selector) {
            used |= bound.add(owner, policy.stage, &binding);
        }
        if !used {
            continue;
        }
        if !tiers.known(policy.tier()) {
            problems.push(format!(
                "{} names tier {:?}, which does not exist: it is asked after all others, and denies at its end",
                policy.title(),
                policy.tier()
            ));
        }
        bound.policies.insert(policy.key.clone(), policy.message(ip_sets, problems));
    }
    if staged.any {
        let hosts = bound.hosts.values_mut().map(|host| &mut host.normal);
        bound.workloads.values_mut().chain(hosts).for_each(Bindings::compare);
    }
    bound
}

/// What the staged policies would do to the enforced ones.
struct Staging {
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
    fn of(policies: &[Policy<'_>]) -> Self {
        let staged = || policies.iter().filter(|policy| policy.staged.is_some());
        Self { any: staged().next().is_some(), gone: staged().map(Policy::stands_for).collect() }
    }

    fn lists(&self, policy: &Policy<'_>) -> Lists {
        let in_force = policy.staged.is_none();
        Lists { in_force, staged: self.any && !(in_force && self.gone.contains(&policy.key)) }
    }
}

/// A policy, ready to be bound.
struct Binding<'a> {
    tier: &'a str,
    end: Action,
    policy: &'a PolicyKey,
    directions: Directions,
    lists: Lists,
}

impl Bound {
    /// Binds a policy to an endpoint that it selects; false where it has no say there.
    fn add(&mut self, owner: &Owner, stage: Stage, binding: &Binding<'_>) -> bool {
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
}

impl Binding<'_> {
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
