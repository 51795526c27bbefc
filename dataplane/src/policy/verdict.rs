//! What is asked of policy, and what it answers.

use super::{Action, PolicyId};
use crate::net::{FlowKey, Icmp};
use std::fmt;
use std::sync::Arc;

/// A packet, as policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Source and destination after destination NAT.
    pub key: FlowKey,
    /// Type and code where the protocol is ICMP; the key's ports mean nothing then.
    pub icmp: Icmp,
}

/// Allow or not, and what decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Let the packet on.
    pub allow: bool,
    /// What decided, as [`CompiledPolicy::decider`](super::CompiledPolicy::decider) says; or
    /// [`Verdict::NO_ENDPOINT`].
    pub slot: u32,
}

impl Verdict {
    /// No policy is held for the endpoint: the packet is denied, no counter moves.
    pub const NO_ENDPOINT: u32 = u32::MAX;
}

/// Where in a rule list something was decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A policy of a tier.
    Policy {
        /// The tier's name.
        tier: Arc<str>,
        /// The policy.
        policy: PolicyId,
    },
    /// The end of a tier: its default.
    TierEnd {
        /// The tier's name.
        tier: Arc<str>,
    },
    /// A profile.
    Profile {
        /// Its name.
        name: Arc<str>,
    },
    /// The end: no profile matched.
    End,
}

/// A rule, or the default that stands where no rule matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decider {
    /// Where.
    pub place: Place,
    /// Index within the policy or profile; -1: no rule, the default.
    pub rule: i32,
    /// As the rule says it. A `Pass` in a profile denies.
    pub action: Action,
}

impl Decider {
    /// The tier's name; empty for profiles and the end.
    pub fn tier(&self) -> &str {
        match &self.place {
            Place::Policy { tier, .. } | Place::TierEnd { tier } => tier,
            Place::Profile { .. } | Place::End => "",
        }
    }

    /// `default/web`, `profile kns.default`, or empty where a default decided.
    pub fn policy(&self) -> String {
        match &self.place {
            Place::Policy { policy, .. } => policy.to_string(),
            Place::Profile { name } => format!("profile {name}"),
            Place::TierEnd { .. } | Place::End => String::new(),
        }
    }
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, rule, action } = self;
        match place {
            Place::Policy { tier, policy } => write!(f, "{action} by rule {rule} of {policy} in tier {tier}"),
            Place::TierEnd { tier } => write!(f, "{action} by default of tier {tier}"),
            Place::Profile { name } => write!(f, "{action} by rule {rule} of profile {name}"),
            Place::End if *action == Action::Pass => f.write_str("no policy decided"),
            Place::End => write!(f, "{action}: no profile matched"),
        }
    }
}

/// A verdict with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The same that `judge` gives.
    pub verdict: Verdict,
    /// What `verdict.slot` stands for.
    pub decider: Decider,
    /// In order: each log rule the packet met, and what each tier said. Ends with `decider`.
    pub walk: Vec<Decider>,
    /// What was looked at to decide, as `tcp dst-port 80 src in set s:abc`: every packet
    /// that this is true of gets the same verdict from the same decider.
    pub minimal_match: String,
}
