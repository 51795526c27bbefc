//! Trees against the linear reference.

use super::generate::*;
use crate::net::{Addr, Prefix};
use crate::policy::explain::look;
use crate::policy::lower::{Dim, NONE};
use crate::policy::tree::Node;
use crate::policy::*;
use proptest::prelude::*;

fn agree(list: &RuleList, sets: &SetTable, queries: &[Query]) -> Result<(), TestCaseError> {
    let compiled = compile(list.clone()).map_err(|e| TestCaseError::fail(e.to_string()))?;
    for q in queries {
        let right = reference::judge(list, sets, q);
        let verdict = compiled.judge(sets, q);
        let decider = &compiled.deciders()[verdict.slot as usize];
        prop_assert_eq!(verdict.allow, right.allow, "{:?}", q);
        prop_assert_eq!(decider, right.decider(), "{:?}", q);
        let told = compiled.explain(sets, q);
        prop_assert_eq!(told.verdict, verdict);
        prop_assert_eq!(&told.decider, decider);
        prop_assert_eq!(told.walk, right.walk, "{:?}", q);
    }
    Ok(())
}

proptest! {
    #![proptest_config(seeded(512))]

    #[test]
    fn short_lists_judge_as_the_reference(
        list in list(),
        sets in set_table(),
        queries in prop::collection::vec(query(), 64),
    ) {
        agree(&list, &sets, &queries)?;
    }

    #[test]
    fn crowded_lists_judge_as_the_reference(
        list in crowded_list(),
        sets in set_table(),
        queries in prop::collection::vec(query(), 64),
    ) {
        agree(&list, &sets, &queries)?;
    }

    /// `minimal_match` promises that everything within is judged alike.
    #[test]
    fn what_was_not_looked_at_does_not_matter(
        list in prop_oneof![list().boxed(), crowded_list().boxed()],
        sets in set_table(),
        pairs in prop::collection::vec((query(), query()), 32),
    ) {
        let compiled = compile(list).map_err(|e| TestCaseError::fail(e.to_string()))?;
        for (q, other) in pairs {
            let (verdict, _, seen) = look(&compiled, &sets, &q);
            // The other packet, moved into the box wherever it lies outside.
            let inside = |dim: Dim, own: u128, other: u128| {
                if seen.within[dim as usize].contains(other) { other } else { own }
            };
            let addr = |dim, own: Addr, other: Addr| Addr::from_bits(inside(dim, own.bits(), other.bits()));
            let port = |dim, own: u16, other: u16| inside(dim, own.into(), other.into()) as u16;
            let mut moved = q;
            moved.key.proto.0 = inside(Dim::Proto, q.key.proto.0.into(), other.key.proto.0.into()) as u8;
            // Between protocols ports and types come and go: that is a value of its own.
            let alike = |dim: Dim, had: bool, has: bool| {
                let within = seen.within[dim as usize];
                had == has || within == dim.whole() || (!has && within.contains(NONE))
            };
            let (old, new) = (q.key.proto, moved.key.proto);
            if !alike(Dim::Sport, old.has_ports(), new.has_ports())
                || !alike(Dim::Dport, old.has_ports(), new.has_ports())
                || !alike(Dim::Icmp, old.is_icmp(), new.is_icmp())
            {
                moved.key.proto = old;
            }
            let versions = |q: &Query| [q.key.src, q.key.dst].map(IpVersion::of);
            if versions(&q) == versions(&other) {
                moved.key.src = addr(Dim::Src, q.key.src, other.key.src);
                moved.key.dst = addr(Dim::Dst, q.key.dst, other.key.dst);
            }
            if old.has_ports() {
                moved.key.sport = port(Dim::Sport, q.key.sport, other.key.sport);
                moved.key.dport = port(Dim::Dport, q.key.dport, other.key.dport);
            }
            let at = crate::policy::lower::Point::new(&moved, &sets, [true; 4]);
            if seen.memberships.iter().all(|((space, set), held)| at.is_in(*space, *set) == *held) {
                prop_assert_eq!(compiled.judge(&sets, &moved), verdict, "{:?} for {:?}", moved, q);
            }
        }
    }
}

proptest! {
    #![proptest_config(seeded(64))]

    #[test]
    fn long_lists_judge_as_the_reference(
        list in long_list(),
        sets in set_table(),
        queries in prop::collection::vec(query(), 128),
    ) {
        agree(&list, &sets, &queries)?;
    }
}

/// The properties above are worth something only while long lists grow every kind of node.
#[test]
fn a_long_list_grows_every_kind_of_node() {
    let rules = (0..200u32).map(|n| {
        let block = Prefix::truncate(Addr::v4((10 << 24 | n << 8).to_be_bytes()), 24);
        let mut rule = Rule::any(if n.is_multiple_of(2) { Action::Allow } else { Action::Deny });
        if n.is_multiple_of(4) {
            rule.src_ip_sets = vec![SetId(n)]
        } else {
            rule.src_nets = vec![block]
        }
        rule
    });
    let profiles = vec![ListedProfile { name: "p".into(), rules: rules.collect() }];
    let compiled = compile(RuleList { tiers: vec![], profiles }).unwrap();
    let nodes = &compiled.stages[0].trees[IpVersion::V4 as usize].nodes;
    assert!(nodes.iter().any(|node| matches!(node, Node::Each { .. })));
    assert!(nodes.iter().any(|node| matches!(node, Node::BySet { .. })));
    assert!(nodes.iter().any(|node| matches!(node, Node::Cut { .. })));
    let largest =
        nodes.iter().map(|node| if let Node::Leaf { first, end } = node { end - first } else { 0 }).max();
    assert!(largest <= Some(8), "{largest:?} rules in one leaf");
}
