//! Trees against the linear reference.

use super::generate::*;
use crate::net::{Addr, FlowKey, Icmp, PortRange, Prefix, Proto};
use crate::policy::explain::look;
use crate::policy::lower::{Dim, NONE};
use crate::policy::tree::{NONE_FOUND, Node};
use crate::policy::*;
use proptest::prelude::*;

fn agree(list: &RuleList, sets: &SetTable, queries: &[Query]) -> Result<(), TestCaseError> {
    let compiled = compile(list.clone()).map_err(|e| TestCaseError::fail(e.to_string()))?;
    judges_as_the_reference(&compiled, list, sets, queries)
}

/// One by one, in batches, and with reasons.
pub fn judges_as_the_reference(
    compiled: &CompiledPolicy,
    list: &RuleList,
    sets: &SetTable,
    queries: &[Query],
) -> Result<(), TestCaseError> {
    for q in queries {
        let right = reference::judge(list, sets, q);
        let verdict = compiled.judge(sets, q);
        let decider = compiled.decider(verdict.slot);
        prop_assert_eq!(verdict.allow, right.allow, "{:?}", q);
        prop_assert_eq!(decider.as_ref(), Some(right.decider()), "{:?}", q);
        prop_assert_eq!(compiled.decided(verdict), right.decider().place != Place::End, "{:?}", q);
        let told = compiled.explain(sets, q);
        prop_assert_eq!(told.verdict, verdict);
        prop_assert_eq!(&told.decider, right.decider());
        prop_assert_eq!(told.walk, right.walk, "{:?}", q);
    }
    let mut verdicts = vec![Verdict { allow: true, slot: 0 }; queries.len()];
    compiled.judge_batch(sets, queries, &mut verdicts, &mut Room::default());
    for (q, verdict) in queries.iter().zip(verdicts) {
        prop_assert_eq!(verdict, compiled.judge(sets, q), "{:?}", q);
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
        minimal_matches_hold(&compiled, &sets, &pairs)?;
    }
}

/// Of each pair the second packet, moved to where the first one's walk did not look closer, is judged as the first.
pub fn minimal_matches_hold(
    compiled: &CompiledPolicy,
    sets: &SetTable,
    pairs: &[(Query, Query)],
) -> Result<(), TestCaseError> {
    for (q, other) in pairs {
        let (q, other) = (*q, *other);
        let (verdict, _, seen) = look(compiled, sets, &q);
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
        let at = crate::policy::point::Point::new(&moved, sets, [true; 4]);
        if seen.memberships.iter().all(|((space, set), held)| at.is_in(*space, *set) == *held) {
            prop_assert_eq!(compiled.judge(sets, &moved), verdict, "{:?} for {:?}", moved, q);
        }
    }
    Ok(())
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

proptest! {
    #![proptest_config(seeded(48))]

    #[test]
    fn firewalls_judge_as_the_reference(
        (list, queries) in firewall(),
        others in prop::collection::vec(query(), 32),
    ) {
        agree(&list, &SetTable::default(), &queries)?;
        agree(&list, &SetTable::default(), &others)?;
    }
}

/// The properties above are worth something only while long lists grow every kind of node.
#[test]
fn a_long_list_grows_every_kind_of_node() {
    let rules = (0..400u32).map(|n| {
        let block = Prefix::truncate(Addr::v4((10 << 24 | n << 8).to_be_bytes()), 24);
        let mut rule = Rule::any(if n.is_multiple_of(2) { Action::Allow } else { Action::Deny });
        if n.is_multiple_of(4) {
            rule.src_ip_sets = vec![SetId(n)]
        } else if n.is_multiple_of(2) {
            rule.src_nets = vec![block]
        } else {
            rule.dst_nets = vec![block]
        }
        rule
    });
    let profiles = vec![ListedProfile { name: "p".into(), rules: rules.collect() }];
    let compiled = compile(RuleList { profiles, ..RuleList::default() }).unwrap();
    let tree = &compiled.stages[0].trees[IpVersion::V4 as usize];
    assert!(tree.nodes.iter().any(|node| matches!(node, Node::Each { .. })));
    assert!(tree.nodes.iter().any(|node| matches!(node, Node::BySet { .. })));
    assert!(tree.nodes.iter().any(|node| matches!(node, Node::Bits { .. })));
    let leaves = tree
        .branches
        .iter()
        .filter_map(|branch| branch.to.get().err().filter(|_| branch.lowest != NONE_FOUND));
    for block in leaves {
        assert!(tree.leaf(block).len() <= 4, "more than four rules in a leaf");
    }
}

/// Port ranges that no bits part.
#[test]
fn ranges_that_no_bits_part_are_cut() {
    // Single low ports, and ranges of high ports that have no leading bit in common.
    let rules = (0..200u16).map(|n| Rule {
        protocol: Some(Proto::TCP),
        dst_ports: match n < 100 {
            true => vec![PortRange::one(10 * n)],
            false => vec![PortRange { first: 1024, last: 65_535 - 300 * (n - 100) }],
        },
        ..Rule::any(if n.is_multiple_of(2) { Action::Allow } else { Action::Deny })
    });
    let profiles = vec![ListedProfile { name: "p".into(), rules: rules.collect() }];
    let list = RuleList { profiles, ..RuleList::default() };
    let compiled = compile(list.clone()).unwrap();
    assert!(compiled.stages[0].trees[0].nodes.iter().any(|node| matches!(node, Node::Cut { .. })));
    let sets = SetTable::default();
    for dport in (0..=u16::MAX).step_by(75).flat_map(|port| [port.saturating_sub(7), port]) {
        let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let key = FlowKey { src, dst, sport: 1, dport, proto: Proto::TCP };
        let q = Query { key, icmp: Icmp::default() };
        let verdict = compiled.judge(&sets, &q);
        assert_eq!(
            compiled.decider(verdict.slot).as_ref(),
            Some(reference::judge(&list, &sets, &q).decider())
        );
    }
}
