//! The order in which an interface asks its rules.
//!
//! ```text
//! pre-DNAT tiers ──► to or from the host? ─ no ──► forward tiers ───────────┐
//!   (destination            │                        (default: go on)       ├─► workload tiers
//!    before NAT)            └─ yes ─► normal tiers, host profiles (or none) ┘   and profiles
//! ```
//!
//! What one of the host's stages allows skips the others. On a host interface that is the end; a
//! workload's interface then asks the workload's own tiers. XDP asks untracked policy alone.

use margay_dataplane::{
    net::{Addr, FlowKey, Icmp},
    policy::{CompileError, CompiledPolicy, Place, Query, RuleList, SetTable, compile},
};

use super::case::Rules;
use crate::{
    exit::{Code, Failure, Outcome},
    judge::judge,
    lines::Unanswered,
};

/// A packet, and the host's part in it.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// With the destination after NAT.
    pub key: FlowKey,
    pub icmp: Icmp,
    /// Address and port that the sender wrote.
    pub before_nat: (Addr, u16),
    /// The host sent it, or it is for the host.
    pub local: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Allow,
    Deny,
    /// Of XDP: no rule has a say, the packet goes on to where others have.
    NoMatch,
}

impl Fate {
    /// As answers spell it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::NoMatch => "no_match",
        }
    }
}

/// The compiled rules of an interface.
pub struct Interface {
    sets: SetTable,
    stages: Stages,
}

enum Stages {
    Xdp {
        untracked: CompiledPolicy,
    },
    Full {
        pre_dnat: CompiledPolicy,
        forward: CompiledPolicy,
        /// `None`: normal policy is suppressed.
        normal: Option<CompiledPolicy>,
        /// `None`: the interface is the host's.
        workload: Option<CompiledPolicy>,
    },
}

impl Interface {
    /// Compiles the rules. Those that the interface never asks are not looked at.
    pub fn new(rules: Rules, sets: SetTable) -> Result<Self, Unanswered> {
        let tree = |list: RuleList| {
            compile(list).map_err(|error| match error {
                CompileError::TooLarge { .. } => Unanswered::Wrong(error.to_string()),
                CompileError::Wrong { .. } => Unanswered::Broken(Failure::new(
                    Code::Failed,
                    "the rules cannot be compiled",
                    error.to_string(),
                    "please report this, with the question",
                )),
            })
        };
        let tiers = |tiers| RuleList { tiers, ..RuleList::default() };
        let stages = if rules.for_xdp {
            Stages::Xdp { untracked: tree(tiers(rules.host_normal.tiers))? }
        } else {
            let normal = (!rules.suppress_normal).then_some(rules.host_normal);
            let workload = (!rules.for_host_interface).then_some(rules.workload);
            Stages::Full {
                pre_dnat: tree(tiers(rules.host_pre_dnat))?,
                forward: tree(tiers(rules.host_forward))?,
                normal: normal.map(tree).transpose()?,
                workload: workload.map(tree).transpose()?,
            }
        };
        Ok(Self { sets, stages })
    }

    /// Judges a packet.
    ///
    /// # Errors
    /// The compiled tree and the reference disagree.
    pub fn judge(&self, packet: &Packet) -> Outcome<Fate> {
        let after = Query { key: packet.key, icmp: packet.icmp };
        let (dst, dport) = packet.before_nat;
        let before = Query { key: FlowKey { dst, dport, ..packet.key }, icmp: packet.icmp };
        let (pre_dnat, forward, normal, workload) = match &self.stages {
            Stages::Xdp { untracked } => return self.ask(untracked, &before),
            Stages::Full { pre_dnat, forward, normal, workload } => (pre_dnat, forward, normal, workload),
        };
        let mut fate = self.ask(pre_dnat, &before)?;
        if fate == Fate::NoMatch {
            fate = match (packet.local, normal) {
                (false, _) => self.ask(forward, &after)?,
                // Profiles come last, so that what matches nothing is denied.
                (true, Some(normal)) => self.ask_to_the_end(normal, &after)?,
                (true, None) => Fate::NoMatch,
            };
        }
        match workload {
            _ if fate == Fate::Deny => Ok(Fate::Deny),
            Some(workload) => self.ask_to_the_end(workload, &after),
            None => Ok(Fate::Allow),
        }
    }

    /// A stage that may leave the decision to the next one.
    fn ask(&self, stage: &CompiledPolicy, query: &Query) -> Outcome<Fate> {
        Ok(match judge(stage, &self.sets, query)? {
            (true, _) => Fate::Allow,
            (false, decider) if decider.place == Place::End => Fate::NoMatch,
            (false, _) => Fate::Deny,
        })
    }

    /// A stage that denies what nothing in it decides.
    fn ask_to_the_end(&self, stage: &CompiledPolicy, query: &Query) -> Outcome<Fate> {
        judge(stage, &self.sets, query).map(|(allow, _)| if allow { Fate::Allow } else { Fate::Deny })
    }
}
