//! The tiers of the cluster, and the policies of each that select one endpoint.

use super::{PolicyKey, Resources};
use crate::model::{Tier, TierAction};
use margay_api::dataplane::v1::{Action, PolicyId, TierBinding};
use std::collections::BTreeMap;

/// The tiers, built-in ones included.
pub(super) struct Tiers {
    by_name: BTreeMap<String, Tier>,
}

/// The policies of a direction or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Directions {
    pub ingress: bool,
    pub egress: bool,
}

impl Tiers {
    pub fn new(resources: &Resources) -> Self {
        let tiers = Tier::built_in().into_iter().chain(resources.all::<Tier>().cloned());
        Self { by_name: tiers.map(|tier| (tier.metadata.name.clone(), tier)).collect() }
    }

    pub fn known(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Those that exist first, then by order, none last, then by name.
    pub fn order<'a>(&self, name: &'a str) -> (bool, f64, &'a str) {
        let tier = self.by_name.get(name);
        (tier.is_none(), ascending(tier.and_then(|tier| tier.spec.order)), name)
    }

    /// What becomes of a packet at the end of the tier. One that does not exist denies.
    pub fn end(&self, name: &str) -> Action {
        match self.by_name.get(name).map_or(TierAction::Deny, Tier::default_action) {
            TierAction::Deny => Action::Deny,
            TierAction::Pass => Action::Pass,
        }
    }
}

/// Adds a policy to the bindings of an endpoint. Policies must come tier by tier, in order.
pub(super) fn push(
    bindings: &mut Vec<TierBinding>,
    tier: &str,
    end: Action,
    policy: &PolicyKey,
    directions: Directions,
) {
    // The endpoint's last binding is this tier's, or there is none yet.
    if bindings.last().is_none_or(|binding| binding.name != tier) {
        let default_action = end.into();
        bindings.push(TierBinding { name: tier.to_owned(), default_action, ..TierBinding::default() });
    }
    let binding = bindings.last_mut().expect("a binding was just seen or pushed");
    if directions.ingress {
        binding.ingress_policies.push(PolicyId::from(policy));
    }
    if directions.egress {
        binding.egress_policies.push(PolicyId::from(policy));
    }
}

/// For sorting: none is last.
pub(super) fn ascending(order: Option<f64>) -> f64 {
    order.unwrap_or(f64::INFINITY)
}
