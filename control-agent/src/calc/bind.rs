//! Which policies decide for the node's endpoints, and in what order.

use super::{
    EndpointKey, PolicyKey, Resources,
    catalog::Catalog,
    endpoints::{Local, Owner},
    ip_sets::IpSets,
    policies::{self, Stage},
    tiers::{self, Directions, Tiers},
};
use crate::model::Selector;
use margay_api::dataplane::v1::{self as api, Action, TierBinding};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

/// Policies, and the endpoints they are bound to.
#[derive(Default)]
pub(super) struct Bound {
    pub policies: BTreeMap<PolicyKey, api::Policy>,
    pub workloads: BTreeMap<EndpointKey, Vec<TierBinding>>,
    pub hosts: BTreeMap<String, HostTiers>,
}

/// The policies of a host endpoint, by the point of a packet's way at which they judge.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HostTiers {
    pub normal: Vec<TierBinding>,
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
    policies.sort_by(|a, b| {
        let tier = tiers.order(a.tier()).partial_cmp(&tiers.order(b.tier()));
        tier.unwrap_or(Ordering::Equal).then_with(|| a.compare(b))
    });

    let mut selected = Selected { catalog: Catalog::of_node(resources, local), by_selector: HashMap::new() };
    let mut bound = Bound::default();
    for policy in policies {
        // One whose selector cannot be read denies everywhere.
        let selector = policy.applies_to.clone().unwrap_or_else(|_| Selector::all());
        let (tier, end) = (policy.tier(), tiers.end(policy.tier()));
        let mut used = false;
        for owner in selected.by(&selector) {
            used |= bound.add(owner, policy.stage, tier, end, &policy.key, policy.directions());
        }
        if !used {
            continue;
        }
        if !tiers.known(tier) {
            problems.push(format!(
                "{} names tier {tier:?}, which does not exist: it is asked after all others, and denies at its end",
                policy.title(),
            ));
        }
        bound.policies.insert(policy.key.clone(), policy.message(ip_sets, problems));
    }
    bound
}

impl Bound {
    /// Binds a policy to an endpoint that it selects; false where it has no say there.
    fn add(
        &mut self,
        owner: &Owner,
        stage: Stage,
        tier: &str,
        end: Action,
        policy: &PolicyKey,
        directions: Directions,
    ) -> bool {
        // Of traffic that leaves, nothing is left to translate.
        let directions = match stage {
            Stage::PreDnat => Directions { egress: false, ..directions },
            _ => directions,
        };
        if !directions.ingress && !directions.egress {
            return false;
        }
        match owner {
            Owner::Workload(key) => {
                if !matches!(stage, Stage::Normal { .. }) {
                    return false;
                }
                let bindings = self.workloads.entry(key.clone()).or_default();
                tiers::push(bindings, tier, end, policy, directions);
            }
            Owner::Host(name) => {
                let host = self.hosts.entry(name.clone()).or_default();
                match stage {
                    // What these do not match goes on to what comes after them.
                    Stage::Untracked => {
                        tiers::push(&mut host.untracked, tier, Action::Pass, policy, directions);
                    }
                    Stage::PreDnat => tiers::push(&mut host.pre_dnat, tier, Action::Pass, policy, directions),
                    Stage::Normal { forward } => {
                        tiers::push(&mut host.normal, tier, end, policy, directions);
                        if forward {
                            tiers::push(&mut host.forward, tier, end, policy, directions);
                        }
                    }
                }
            }
        }
        true
    }
}

/// Which endpoints of the node a selector selects, worked out once a selector.
struct Selected<'a> {
    catalog: Catalog<'a>,
    by_selector: HashMap<String, Vec<Owner>>,
}

impl Selected<'_> {
    fn by(&mut self, selector: &Selector) -> &[Owner] {
        self.by_selector.entry(selector.canonical().to_owned()).or_insert_with(|| {
            self.catalog.select(selector).filter_map(|member| member.owner.clone()).collect()
        })
    }
}
