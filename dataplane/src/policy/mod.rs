#![doc = include_str!("README.md")]

mod align;
mod batch;
mod bits;
mod builder;
mod check;
mod compiled;
mod consolidation;
pub mod counterfactual;
mod counters;
mod diff;
mod dot;
mod explain;
mod grow;
mod leaf;
mod list;
mod lower;
mod merge;
mod part;
mod patch;
mod pieces;
mod point;
mod proof;
pub mod reference;
mod rule;
mod rules;
mod sets;
mod shadow;
mod shape;
mod simd;
mod slice;
mod succession;
mod table;
mod text;
mod tree;
mod verdict;
mod work;

#[cfg(test)]
mod tests;

pub use batch::Room;
pub use builder::PolicyTableBuilder;
pub use check::CheckError;
pub use compiled::{CompileError, CompiledPolicy, compile, compile_within};
pub use consolidation::{Consolidated, Consolidation};
pub use counters::HitCounters;
pub use list::{ListedPolicy, ListedProfile, Otherwise, RuleList, TierDefault, TierList};
pub use rule::{Action, IcmpMatch, IpVersion, PolicyId, Rule, SetId};
pub use rules::Rules;
pub use sets::{Class, IpSet, Members, PortMember, SetError, SetKind, SetMembers, SetTable};
pub use shadow::{Shadow, StagedLists, Totals, Watch};
pub use shape::TreeShape;
pub use table::{
    Ceiling, Direction, EndpointIdx, PolicyMemory, PolicyTable, PolicyTree, RetiredTree, TableError,
};
pub use verdict::{Decider, Explanation, Place, Query, Verdict};
pub use work::Work;
