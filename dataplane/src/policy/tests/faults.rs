//! A broken tree must not get past the check.

use super::generate::*;
use crate::net::{PortRange, Proto};
use crate::policy::compiled::Outcome;
use crate::policy::lower::{Dim, Entries};
use crate::policy::tree::{Node, Tree};
use crate::policy::*;
use proptest::prelude::*;
use std::sync::Arc;

/// One deterministic way to break a policy, by numbers that pick where.
fn break_it(policy: &mut CompiledPolicy, kind: u8, a: usize, b: usize) {
    let stage = a % policy.stages.len();
    let slot = b % policy.outcomes.len();
    match kind % 12 {
        0 => {
            policy.outcomes[slot] = match policy.outcomes[slot] {
                Outcome::Allow => Outcome::Deny,
                Outcome::Deny => Outcome::Next,
                Outcome::Next => Outcome::Allow,
            };
        }
        1 => policy.deciders.swap(slot, 0),
        2 => policy.stages[stage].base += 1,
        3 => policy.stages[stage].default = slot as u32,
        4 => policy.used[b % 4] = false,
        _ => {
            let [v4, v6] = &mut policy.stages[stage].trees;
            if kind % 12 == 11 && !Arc::ptr_eq(v4, v6) {
                std::mem::swap(v4, v6);
            } else {
                break_tree(Arc::make_mut(if b.is_multiple_of(2) { v4 } else { v6 }), kind % 12, a, b);
            }
        }
    }
}

fn break_tree(tree: &mut Tree, kind: u8, a: usize, b: usize) {
    let node = b % tree.nodes.len();
    match (kind, &mut tree.nodes[node]) {
        (5, Node::Cut { bound, .. }) if a.is_multiple_of(2) => *bound += 1,
        (5, Node::Cut { below, rest, .. }) => std::mem::swap(below, rest),
        (5, Node::BySet { first, .. }) => *first += 1,
        (5 | 6, Node::Leaf { end, first }) => *end -= u32::from(*end > *first),
        (6, Node::Cut { dim, .. }) => *dim = if *dim == Dim::Dport { Dim::Sport } else { Dim::Dport },
        (6, Node::Each { end, .. } | Node::BySet { end, .. }) => *end -= 1,
        (7, _) if !tree.leaves.is_empty() => {
            let at = a % tree.leaves.len();
            tree.leaves[at] = (b % tree.entries.len()) as u32;
        }
        (8, _) if !tree.groups.is_empty() => {
            let at = a % tree.groups.len();
            tree.groups[at].branch.lowest += 1 + (b % 3) as u32;
        }
        (8, _) if !tree.branches.is_empty() => {
            let at = a % tree.branches.len();
            tree.branches[at].lowest += 1 + (b % 30) as u32;
        }
        (9, _) => {
            let (intervals, _) = tree.entries.arrays();
            if !intervals.is_empty() {
                let interval = &mut intervals[a % intervals.len()];
                *(if b.is_multiple_of(2) { &mut interval.first } else { &mut interval.last }) ^= 1;
            }
        }
        (10, _) => {
            let (_, literals) = tree.entries.arrays();
            if !literals.is_empty() {
                let literal = &mut literals[a % literals.len()];
                if b.is_multiple_of(2) { literal.wanted ^= true } else { literal.set.0 ^= 1 }
            }
        }
        (11, _) => tree.entries = Entries::default(),
        _ => {}
    }
}

proptest! {
    #![proptest_config(seeded(3000))]

    /// Not every fault matters, but one that passes must not change a single verdict.
    #[test]
    fn what_passes_the_check_is_right(
        list in prop_oneof![8 => list().boxed(), 4 => crowded_list().boxed(), 1 => long_list().boxed()],
        sets in set_table(),
        fault in (any::<u8>(), any::<usize>(), any::<usize>()),
        queries in prop::collection::vec(query(), 32),
    ) {
        let Ok(compiled) = CompiledPolicy::sabotaged(list.clone(), |policy| break_it(policy, fault.0, fault.1, fault.2))
        else {
            return Ok(());
        };
        for q in queries {
            let right = reference::judge(&list, &sets, &q);
            let verdict = compiled.judge(&sets, &q);
            prop_assert_eq!(verdict.allow, right.allow);
            prop_assert_eq!(&compiled.deciders()[verdict.slot as usize], right.decider());
        }
    }
}

/// 40 ports, each its own rule: a tree with cuts and leaves of which every part is needed.
fn needful() -> RuleList {
    let rule = |port: u16| Rule {
        protocol: Some(Proto::TCP),
        dst_ports: vec![PortRange::one(port)],
        ..Rule::any(if port.is_multiple_of(2) { Action::Allow } else { Action::Deny })
    };
    let rules = (0..40).map(|n| rule(1000 + 10 * n)).collect();
    RuleList { profiles: vec![ListedProfile { name: "p".into(), rules }], tiers: vec![] }
}

fn caught(fault: impl FnOnce(&mut Tree)) -> CheckError {
    let broken =
        CompiledPolicy::sabotaged(needful(), |policy| fault(Arc::make_mut(&mut policy.stages[0].trees[0])));
    match broken {
        Err(CompileError::Wrong { version: IpVersion::V4, source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_tree_passes() {
    assert!(CompiledPolicy::sabotaged(needful(), |_| {}).is_ok());
}

#[test]
fn a_rule_missing_from_a_leaf_is_lost() {
    let fault = |tree: &mut Tree| {
        let full = |node: &&mut Node| matches!(node, Node::Leaf { first, end } if first < end);
        let Some(Node::Leaf { end, .. }) = tree.nodes.iter_mut().find(full) else { panic!("no leaf") };
        *end -= 1;
    };
    assert!(matches!(caught(fault), CheckError::Lost { .. }));
}

#[test]
fn a_cut_at_the_wrong_bound_is_noticed() {
    let fault = |tree: &mut Tree| {
        let Node::Cut { bound, .. } = &mut tree.nodes[0] else { panic!("no cut") };
        *bound += 11;
    };
    assert!(matches!(caught(fault), CheckError::Lost { .. }));
}

#[test]
fn a_loop_is_noticed() {
    let fault = |tree: &mut Tree| {
        let Node::Cut { below, .. } = &mut tree.nodes[0] else { panic!("no cut") };
        *below = 0;
    };
    assert!(matches!(caught(fault), CheckError::Shape { node: 0, .. }));
}

#[test]
fn rules_tried_in_the_wrong_order_are_noticed() {
    let fault = |tree: &mut Tree| tree.leaves.reverse();
    assert!(matches!(caught(fault), CheckError::Shape { .. }));
}

#[test]
fn an_interval_one_too_long_is_noticed() {
    let fault = |tree: &mut Tree| tree.entries.arrays().0.iter_mut().for_each(|i| i.last += 1);
    assert!(matches!(caught(fault), CheckError::Entry { .. }));
}

#[test]
fn a_wrong_verdict_is_noticed() {
    let broken = CompiledPolicy::sabotaged(needful(), |policy| policy.outcomes[40] = Outcome::Allow);
    assert!(matches!(broken, Err(CompileError::Wrong { source: CheckError::Outcome { slot: 40 }, .. })));
}
