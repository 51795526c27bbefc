//! What a packet costs the walk, counted: for benchmarks that look for the costliest packets.

use super::compiled::CompiledPolicy;
use super::lower::{Dim, Interval, Literal};
use super::tree::Watch;
use super::{Query, SetTable};

/// What the walk of one packet, one at a time, met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Nodes of trees.
    pub nodes: u32,
    /// Blocks of leaves, a cache line each.
    pub blocks: u32,
}

impl CompiledPolicy {
    /// Judges a packet and counts what that took.
    pub fn work(&self, sets: &SetTable, q: &Query) -> Work {
        let mut work = Work::default();
        self.decide(self.cpu, sets, q, &mut work, |_| {});
        work
    }
}

impl Watch for Work {
    const ACTIVE: bool = true;

    fn narrowed(&mut self, _: Dim, _: Interval) {}

    fn asked(&mut self, _: Literal) {}

    fn at_node(&mut self) {
        self.nodes += 1;
    }

    fn at_block(&mut self) {
        self.blocks += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Icmp, PortRange, Proto};
    use crate::policy::{Action, ListedProfile, Rule, RuleList, compile};

    #[test]
    fn a_short_list_is_a_block_and_a_long_one_has_nodes() {
        let rule = |port| {
            let mut rule = Rule::any(Action::Allow);
            rule.protocol = Some(Proto::TCP);
            rule.dst_ports = vec![PortRange::one(port)];
            rule
        };
        let key = crate::net::FlowKey { dport: 7, proto: Proto::TCP, ..Default::default() };
        let q = Query { key, icmp: Icmp::default() };
        let of = |ports: std::ops::Range<u16>| {
            let profile = ListedProfile { name: "p".into(), rules: ports.map(rule).collect() };
            let policy = compile(RuleList { profiles: vec![profile], ..RuleList::default() }).unwrap();
            policy.work(&SetTable::default(), &q)
        };
        assert_eq!(of(7..8), Work { nodes: 0, blocks: 1 });
        let long = of(0..1000);
        assert!(long.nodes > 0 && long.blocks <= 2, "{long:?}");
    }
}
