#![doc = include_str!("README.md")]

mod batch;
mod bits;
mod check;
mod compiled;
pub mod counterfactual;
mod counters;
mod explain;
mod grow;
mod leaf;
mod list;
mod lower;
mod part;
mod pieces;
mod point;
mod prefetch;
mod proof;
pub mod reference;
mod rule;
mod sets;
mod simd;
mod table;
mod tree;
mod verdict;
mod work;

#[cfg(test)]
mod tests;

pub use check::CheckError;
pub use compiled::{CompileError, CompiledPolicy, compile};
pub use counters::HitCounters;
pub use list::{ListedPolicy, ListedProfile, Otherwise, Policy, Profile, RuleList, TierDefault, TierList};
pub use rule::{Action, IcmpMatch, IpVersion, PolicyId, Rule, SetId};
pub use sets::{Class, IpSet, Members, PortMember, SetError, SetKind, SetMembers, SetTable};
pub use table::{Direction, EndpointIdx, PolicyTable, PolicyTableBuilder, PolicyTree, TableError};
pub use verdict::{Decider, Explanation, Place, Query, Verdict};
pub use work::Work;
