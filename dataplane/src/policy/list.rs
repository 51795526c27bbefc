//! What applies to one direction of one endpoint, in order.

use super::{Action, Place, PolicyId, Rule, Rules};
use std::sync::Arc;

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
    pub rules: Rules,
}

/// One direction of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListedProfile {
    /// Whose rules these are.
    pub name: Arc<str>,
    /// In order; the first that matches decides.
    pub rules: Rules,
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

/// A chunk of the rules of a policy or profile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    /// Which policy of its tier, or which profile.
    pub(super) owner: u32,
    /// The first one's number among the owner's rules.
    pub(super) first: u32,
    pub(super) rules: &'a Arc<[Rule]>,
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

    /// The rules of the policies of a tier, or of the profiles, chunk by chunk.
    pub(super) fn parts(&self, stage: usize) -> impl Iterator<Item = Part<'_>> {
        let tier = self.tiers.get(stage);
        let profiles = if tier.is_none() { &self.profiles[..] } else { &[] };
        let policies = tier.into_iter().flat_map(|tier| &tier.policies).map(|policy| &policy.rules);
        let owners = policies.chain(profiles.iter().map(|profile| &profile.rules));
        (0u32..).zip(owners).flat_map(|(owner, rules)| {
            let mut next = 0;
            rules.chunks().iter().map(move |chunk| {
                let first = next;
                next += chunk.len() as u32;
                Part { owner, first, rules: chunk }
            })
        })
    }

    /// The policy or profile of a stage with this number; the default where there is none.
    pub(super) fn place(&self, stage: usize, owner: usize) -> Place {
        match self.tiers.get(stage) {
            Some(tier) => match tier.policies.get(owner) {
                Some(policy) => Place::Policy { tier: tier.name.clone(), policy: policy.id.clone() },
                None => Place::TierEnd { tier: tier.name.clone() },
            },
            None => match self.profiles.get(owner) {
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
