//! Which policies and profiles decide for the node's endpoints, and in what order.

use super::{EndpointKey, PolicyKey, Resources, catalog::Catalog, ip_sets::IpSets, rules};
use crate::model::{
    GlobalNetworkPolicy, Kind, NetworkPolicy, PolicyType, Profile, Rule, Selector, SelectorError, Tier,
    TierAction, WorkloadEndpoint,
};
use margay_api::dataplane::v1::{self as api, Action, PolicyId, TierBinding};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
};

/// Policies, and the endpoints they are bound to.
#[derive(Default)]
pub(super) struct Bound {
    pub policies: BTreeMap<PolicyKey, api::Policy>,
    pub tiers: BTreeMap<EndpointKey, Vec<TierBinding>>,
}

/// The policies that select an endpoint of `local`, bound to each such endpoint by tier and direction.
pub(super) fn bind(
    resources: &Resources,
    local: &BTreeMap<EndpointKey, &WorkloadEndpoint>,
    ip_sets: &mut IpSets<'_>,
    problems: &mut Vec<String>,
) -> Bound {
    let tiers = Tiers::new(resources);
    let mut policies: Vec<_> = policies(resources).collect();
    policies.sort_by(|a, b| {
        tiers
            .order(a.tier())
            .partial_cmp(&tiers.order(b.tier()))
            .unwrap_or(Ordering::Equal)
            .then_with(|| a.compare(b))
    });

    let catalog = Catalog::of_endpoints(resources, local.values().copied());
    let mut selected = Selected { catalog, by_selector: HashMap::new() };
    let mut bound = Bound::default();
    for policy in policies {
        let (selector, error) = match &policy.applies_to {
            Ok(selector) => (selector.clone(), None),
            Err(error) => (Selector::all(), Some(error.to_string())),
        };
        let endpoints = selected.by(&selector);
        if endpoints.is_empty() || (!policy.ingress() && !policy.egress()) {
            continue;
        }
        if !tiers.known(policy.tier()) {
            problems.push(format!(
                "{} names tier {:?}, which does not exist: it is asked after all others, and denies at its end",
                policy.title(),
                policy.tier()
            ));
        }
        for endpoint in endpoints {
            let bindings = bound.tiers.entry(endpoint.clone()).or_default();
            // Policies come tier by tier: the endpoint's last binding is this tier's, or there is none yet.
            if bindings.last().is_none_or(|binding| binding.name != policy.tier()) {
                bindings.push(tiers.binding(policy.tier()));
            }
            let binding = bindings.last_mut().expect("a binding was just seen or pushed");
            if policy.ingress() {
                binding.ingress_policies.push(PolicyId::from(&policy.key));
            }
            if policy.egress() {
                binding.egress_policies.push(PolicyId::from(&policy.key));
            }
        }
        let message = policy.message(&selector, error, ip_sets, problems);
        bound.policies.insert(policy.key.clone(), message);
    }
    bound
}

/// The profiles that endpoints of `local` name. One that does not exist denies.
pub(super) fn profiles(
    resources: &Resources,
    local: &BTreeMap<EndpointKey, &WorkloadEndpoint>,
    ip_sets: &mut IpSets<'_>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, api::Profile> {
    let names: BTreeSet<&String> = local.values().flat_map(|endpoint| &endpoint.spec.profiles).collect();
    let mut profiles = BTreeMap::new();
    for name in names {
        let Some(profile) = resources.get::<Profile>("", name) else {
            problems.push(format!(
                "profile {name:?} does not exist: endpoints that name it are denied what reaches it"
            ));
            profiles.insert(name.clone(), closed_profile(name));
            continue;
        };
        let mut direction = |rules| rules::convert(rules, None, ip_sets);
        let message = match (direction(&profile.spec.ingress), direction(&profile.spec.egress)) {
            (Ok(inbound_rules), Ok(outbound_rules)) => {
                api::Profile { name: name.clone(), inbound_rules, outbound_rules }
            }
            (Err(error), _) | (_, Err(error)) => {
                problems
                    .push(format!("profile {name:?} denies everything, as it cannot be converted: {error}"));
                closed_profile(name)
            }
        };
        profiles.insert(name.clone(), message);
    }
    profiles
}

fn closed_profile(name: &str) -> api::Profile {
    api::Profile {
        name: name.to_owned(),
        inbound_rules: rules::deny_all(),
        outbound_rules: rules::deny_all(),
    }
}

/// A policy of either kind.
struct Policy<'a> {
    key: PolicyKey,
    tier: &'a str,
    order: Option<f64>,
    /// For people.
    selector: &'a str,
    applies_to: Result<Selector, SelectorError>,
    types: &'a [PolicyType],
    ingress: &'a [Rule],
    egress: &'a [Rule],
}

/// All policies that may decide for workloads.
fn policies(resources: &Resources) -> impl Iterator<Item = Policy<'_>> {
    let namespaced = resources.all::<NetworkPolicy>().map(|policy| Policy {
        key: PolicyKey {
            kind: Kind::NetworkPolicy.to_string(),
            namespace: policy.metadata.namespace.clone(),
            name: policy.metadata.name.clone(),
        },
        tier: &policy.spec.tier,
        order: policy.spec.order,
        selector: &policy.spec.selector,
        applies_to: policy.applies_to(),
        types: &policy.spec.types,
        ingress: &policy.spec.ingress,
        egress: &policy.spec.egress,
    });
    // Those two look at packets before connection tracking or address translation, on host endpoints only.
    let for_workloads = |policy: &&GlobalNetworkPolicy| !policy.spec.do_not_track && !policy.spec.pre_dnat;
    let global = resources.all::<GlobalNetworkPolicy>().filter(for_workloads).map(|policy| Policy {
        key: PolicyKey {
            kind: Kind::GlobalNetworkPolicy.to_string(),
            namespace: String::new(),
            name: policy.metadata.name.clone(),
        },
        tier: &policy.spec.tier,
        order: policy.spec.order,
        selector: &policy.spec.selector,
        applies_to: policy.applies_to(),
        types: &policy.spec.types,
        ingress: &policy.spec.ingress,
        egress: &policy.spec.egress,
    });
    namespaced.chain(global)
}

impl Policy<'_> {
    fn tier(&self) -> &str {
        if self.tier.is_empty() { Tier::DEFAULT } else { self.tier }
    }

    /// Without types: egress rules alone cover egress alone, and anything else covers ingress too.
    fn ingress(&self) -> bool {
        if self.types.is_empty() {
            !self.ingress.is_empty() || self.egress.is_empty()
        } else {
            self.types.contains(&PolicyType::Ingress)
        }
    }

    fn egress(&self) -> bool {
        if self.types.is_empty() { !self.egress.is_empty() } else { self.types.contains(&PolicyType::Egress) }
    }

    /// In a tier: by order, none last, then by "name/namespace/kind" as one text, as Calico has it.
    fn compare(&self, other: &Self) -> Ordering {
        let text = |key: &PolicyKey| format!("{}/{}/{}", key.name, key.namespace, key.kind);
        ascending(self.order)
            .total_cmp(&ascending(other.order))
            .then_with(|| text(&self.key).cmp(&text(&other.key)))
    }

    fn title(&self) -> String {
        let PolicyKey { kind, namespace, name } = &self.key;
        if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
    }

    fn message(
        &self,
        selector: &Selector,
        error: Option<String>,
        ip_sets: &mut IpSets<'_>,
        problems: &mut Vec<String>,
    ) -> api::Policy {
        let namespace = Some(self.key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let mut direction = |covered: bool, rules: &[Rule]| match covered {
            true => rules::convert(rules, namespace, ip_sets),
            false => Ok(Vec::new()),
        };
        let converted = match error {
            Some(error) => Err(format!("selector: {error}")),
            None => direction(self.ingress(), self.ingress)
                .and_then(|inbound| Ok((inbound, direction(self.egress(), self.egress)?))),
        };
        let (inbound_rules, outbound_rules) = converted.unwrap_or_else(|error| {
            problems.push(format!("{} denies everything, as it cannot be converted: {error}", self.title()));
            (rules::deny_all(), rules::deny_all())
        });
        api::Policy {
            id: Some((&self.key).into()),
            tier: self.tier().to_owned(),
            inbound_rules,
            outbound_rules,
            selector: if self.selector.is_empty() { selector.to_string() } else { self.selector.to_owned() },
            untracked: false,
            pre_dnat: false,
            staged: false,
        }
    }
}

/// The tiers, built-in ones included.
struct Tiers {
    by_name: BTreeMap<String, Tier>,
}

impl Tiers {
    fn new(resources: &Resources) -> Self {
        let tiers = Tier::built_in().into_iter().chain(resources.all::<Tier>().cloned());
        Self { by_name: tiers.map(|tier| (tier.metadata.name.clone(), tier)).collect() }
    }

    fn known(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Those that exist first, then by order, none last, then by name.
    fn order<'a>(&self, name: &'a str) -> (bool, f64, &'a str) {
        let tier = self.by_name.get(name);
        (tier.is_none(), ascending(tier.and_then(|tier| tier.spec.order)), name)
    }

    /// Without policies so far. A tier that does not exist denies at its end.
    fn binding(&self, name: &str) -> TierBinding {
        let default_action = match self.by_name.get(name).map_or(TierAction::Deny, Tier::default_action) {
            TierAction::Deny => Action::Deny,
            TierAction::Pass => Action::Pass,
        };
        TierBinding { name: name.to_owned(), default_action: default_action.into(), ..TierBinding::default() }
    }
}

/// For sorting: none is last.
fn ascending(order: Option<f64>) -> f64 {
    order.unwrap_or(f64::INFINITY)
}

/// Which endpoints of the node a selector selects, worked out once a selector.
struct Selected<'a> {
    catalog: Catalog<'a>,
    by_selector: HashMap<String, Vec<EndpointKey>>,
}

impl Selected<'_> {
    fn by(&mut self, selector: &Selector) -> &[EndpointKey] {
        self.by_selector.entry(selector.canonical().to_owned()).or_insert_with(|| {
            self.catalog.select(selector).filter_map(|member| member.endpoint.clone()).collect()
        })
    }
}
