//! What applies to one direction of one endpoint, in order.

use super::{Action, Place, PolicyId, Rule, SetId};
use std::sync::Arc;

/// A policy, both directions. The tiers of an endpoint refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is known by.
    pub id: PolicyId,
    /// The tier it stands in.
    pub tier: Arc<str>,
    /// Judges packets to the endpoint.
    pub inbound: Arc<[Rule]>,
    /// Judges packets from the endpoint.
    pub outbound: Arc<[Rule]>,
    /// The sets that `inbound` names, and those that `outbound` does; ascending.
    pub sets: [Arc<[SetId]>; 2],
}

/// A profile: rules that judge what no tier decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// As in `kns.default`.
    pub name: Arc<str>,
    /// Judges packets to the endpoint.
    pub inbound: Arc<[Rule]>,
    /// Judges packets from the endpoint.
    pub outbound: Arc<[Rule]>,
    /// The sets that `inbound` names, and those that `outbound` does; ascending.
    pub sets: [Arc<[SetId]>; 2],
}

impl Policy {
    /// Of these rules.
    pub fn new(id: PolicyId, tier: Arc<str>, inbound: Arc<[Rule]>, outbound: Arc<[Rule]>) -> Self {
        let sets = [sets_of(&inbound), sets_of(&outbound)];
        Self { id, tier, inbound, outbound, sets }
    }
}

impl Profile {
    /// Of these rules.
    pub fn new(name: Arc<str>, inbound: Arc<[Rule]>, outbound: Arc<[Rule]>) -> Self {
        let sets = [sets_of(&inbound), sets_of(&outbound)];
        Self { name, inbound, outbound, sets }
    }
}

fn sets_of(rules: &[Rule]) -> Arc<[SetId]> {
    let mut sets: Vec<SetId> =
        rules.iter().flat_map(|rule| rule.address_sets().chain(rule.port_sets())).collect();
    sets.sort_unstable();
    sets.dedup();
    sets.into()
}

/// What happens to a packet that no policy of a tier decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TierDefault {
    /// Drop.
    Deny,
    /// On to the next tier, or to the profiles.
    Pass,
}

/// One direction of a policy that selects the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListedPolicy {
    /// Whose rules these are.
    pub id: PolicyId,
    /// In order; the first that matches decides.
    pub rules: Arc<[Rule]>,
}

/// One direction of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListedProfile {
    /// Whose rules these are.
    pub name: Arc<str>,
    /// In order; the first that matches decides.
    pub rules: Arc<[Rule]>,
}

/// A tier with at least one policy that selects the endpoint in this direction. Others are
/// left out by whoever builds the list: their default does not apply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TierList {
    /// The tier's name.
    pub name: Arc<str>,
    /// For packets no policy decided.
    pub default: TierDefault,
    /// In order.
    pub policies: Vec<ListedPolicy>,
}

/// What happens to a packet that neither a tier nor a profile decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Otherwise {
    /// Drop.
    #[default]
    Deny,
    /// The list has nothing to say, and lets the packet on: a host endpoint's untracked, preDNAT and
    /// forward policy.
    GoOn,
}

/// All that judges one direction of one endpoint.
///
/// Tiers in order; where the last one passed, or where there is none, the profiles in order;
/// where no profile matches, `otherwise`. A profile or policy that is not known is given as rules
/// that deny all. The empty list denies all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleList {
    /// In order.
    pub tiers: Vec<TierList>,
    /// In order.
    pub profiles: Vec<ListedProfile>,
    /// For packets that nothing above decided.
    pub otherwise: Otherwise,
}

impl RuleList {
    /// Every rule, in order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        let tiers = self.tiers.iter().flat_map(|t| &t.policies).flat_map(|p| p.rules.iter());
        tiers.chain(self.profiles.iter().flat_map(|p| p.rules.iter()))
    }

    /// The tiers, and one for the profiles.
    pub(super) fn stages(&self) -> usize {
        self.tiers.len() + 1
    }

    /// The rules of each policy of a tier, or of each profile.
    pub(super) fn slices(&self, stage: usize) -> impl Iterator<Item = &Arc<[Rule]>> {
        let tier = self.tiers.get(stage);
        let profiles = if tier.is_none() { &self.profiles[..] } else { &[] };
        let policies = tier.into_iter().flat_map(|tier| &tier.policies).map(|policy| &policy.rules);
        policies.chain(profiles.iter().map(|profile| &profile.rules))
    }

    /// Where in a stage a slice stands; the default where there is none of that number.
    pub(super) fn place(&self, stage: usize, slice: usize) -> Place {
        match self.tiers.get(stage) {
            Some(tier) => match tier.policies.get(slice) {
                Some(policy) => Place::Policy { tier: tier.name.clone(), policy: policy.id.clone() },
                None => Place::TierEnd { tier: tier.name.clone() },
            },
            None => match self.profiles.get(slice) {
                Some(profile) => Place::Profile { name: profile.name.clone() },
                None => Place::End,
            },
        }
    }

    /// What becomes of packets that no rule of a stage decided.
    pub(super) fn end_action(&self, stage: usize) -> Action {
        match self.tiers.get(stage).map(|tier| tier.default) {
            Some(TierDefault::Pass) => Action::Pass,
            Some(TierDefault::Deny) => Action::Deny,
            None if self.otherwise == Otherwise::GoOn => Action::Pass,
            None => Action::Deny,
        }
    }
}
