//! A group of policies that decides before or after others.

use serde::{Deserialize, Serialize};

use crate::model::Metadata;

/// Tiers are asked in order; only those with a policy for the endpoint and direction count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Tier {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it says.
    pub spec: TierSpec,
}

/// What a [`Tier`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TierSpec {
    /// Ascending; absent is last.
    #[serde(serialize_with = "super::order", skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// What happens to a packet that no policy of the tier decided; absent: deny.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_action: Option<TierAction>,
}

/// The end of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum TierAction {
    /// Drop.
    Deny,
    /// On to the next tier.
    Pass,
}

impl Tier {
    /// The tier of policies that name none.
    pub const DEFAULT: &'static str = "default";

    /// The tiers that always exist: name, order, default action.
    const BUILT_IN: [(&'static str, f64, TierAction); 3] = [
        ("kube-admin", 1_000.0, TierAction::Pass),
        (Self::DEFAULT, 1_000_000.0, TierAction::Deny),
        ("kube-baseline", 10_000_000.0, TierAction::Pass),
    ];

    /// The tiers that exist without being written, in order.
    pub fn built_in() -> Vec<Self> {
        let tier = |(name, order, action): (&str, f64, TierAction)| Self {
            metadata: Metadata { name: name.to_owned(), ..Metadata::default() },
            spec: TierSpec { order: Some(order), default_action: Some(action) },
        };
        Self::BUILT_IN.into_iter().map(tier).collect()
    }

    /// Whether `name` is a built-in tier: it cannot be deleted, its order and action are fixed.
    pub fn is_built_in(name: &str) -> bool {
        Self::fixed(name).is_some()
    }

    /// The order and action that a built-in tier must have.
    pub(in crate::model) fn fixed(name: &str) -> Option<(f64, TierAction)> {
        Self::BUILT_IN.into_iter().find(|(n, ..)| *n == name).map(|(_, order, action)| (order, action))
    }

    /// The end of the tier, deny where the spec is silent.
    pub fn default_action(&self) -> TierAction {
        self.spec.default_action.unwrap_or(TierAction::Deny)
    }
}
