//! A broken tree must not get past the check.

use super::generate::*;
use crate::net::{PortRange, Proto};
use crate::policy::compiled::Outcome;
use crate::policy::lower::Dim;
use crate::policy::tree::{Bound, Branch, Node, Ref, Tree};
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
        1 => {
            let runs = &mut policy.stages[stage].runs;
            match runs.len() {
                0 => {}
                n => runs.swap(a % n, b % n),
            }
        }
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

pub(super) fn break_tree(tree: &mut Tree, kind: u8, a: usize, b: usize) {
    let node = tree.nodes.len().checked_sub(1).map(|last| b % (last + 1));
    match (kind, node.map(|node| &mut tree.nodes[node])) {
        (5, Some(Node::Cut { bound, .. })) => *bound = Bound::new(bound.get() + 1),
        (5, Some(Node::BySet { first, .. })) => *first += 1,
        (5 | 6, Some(Node::Bits { masks, .. })) => masks[a % 2] = masks[a % 2].rotate_left(1 + b as u32 % 3),
        (6, Some(Node::Cut { dim, .. })) => *dim = if *dim == Dim::Dport { Dim::Sport } else { Dim::Dport },
        (6, Some(Node::Each { end, .. } | Node::BySet { end, .. })) => *end -= 1,
        // A bit of what leaves hold: boxes, flags, pieces.
        (7 | 11, _) if !tree.lines.is_empty() => {
            let line = a % tree.lines.len();
            tree.lines[line].0[b % 8] ^= 1 << (b / 8 % 64);
        }
        (8, _) if !tree.groups.is_empty() => {
            let at = a % tree.groups.len();
            tree.groups[at].branch.lowest += 1 + (b % 3) as u32;
        }
        (8, _) if !tree.branches.is_empty() => {
            let at = a % tree.branches.len();
            let raised = tree.branches[at].lowest.saturating_add(1 + (b % 30) as u32);
            tree.branches[at].lowest = raised;
        }
        (9, _) if b.is_multiple_of(3) && !tree.branches.is_empty() => {
            let (at, n) = (a % tree.branches.len(), tree.branches.len());
            tree.branches.swap(at, b / 3 % n);
        }
        (9, _) => {
            let (intervals, _) = tree.hard.arrays();
            if !intervals.is_empty() {
                let interval = &mut intervals[a % intervals.len()];
                *(if b.is_multiple_of(2) { &mut interval.first } else { &mut interval.last }) ^= 1;
            }
        }
        (10, _) if b.is_multiple_of(3) && !tree.asked.is_empty() => {
            let at = a % tree.asked.len();
            tree.asked[at] ^= 1;
        }
        (10, _) if b % 3 == 1 && !tree.slots.is_empty() => {
            let at = a % tree.slots.len();
            tree.slots[at] ^= 1;
        }
        (10, _) => {
            let (_, literals) = tree.hard.arrays();
            if !literals.is_empty() {
                let literal = &mut literals[a % literals.len()];
                if b.is_multiple_of(2) { literal.wanted ^= true } else { literal.set.0 ^= 1 }
            }
        }
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
            let decider = compiled.decider(verdict.slot);
            prop_assert_eq!(decider.as_ref(), Some(right.decider()));
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
    RuleList { profiles: vec![ListedProfile { name: "p".into(), rules }], ..RuleList::default() }
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

/// The leaf of the first branch that has one.
fn some_leaf(tree: &Tree) -> usize {
    let used = tree.branches.iter().filter(|branch| **branch != Branch::EMPTY);
    used.filter_map(|branch| branch.to.get().err()).next().expect("a leaf")
}

#[test]
fn a_rule_missing_from_a_leaf_is_lost() {
    let fault = |tree: &mut Tree| {
        let used = |branch: &&mut Branch| **branch != Branch::EMPTY;
        *tree.branches.iter_mut().find(used).unwrap() = Branch::EMPTY;
    };
    assert!(matches!(caught(fault), CheckError::Lost { .. }));
}

#[test]
fn a_branch_that_claims_to_hold_only_later_rules_is_noticed() {
    let fault = |tree: &mut Tree| {
        tree.branches.iter_mut().filter(|b| **b != Branch::EMPTY).for_each(|b| b.lowest += 1);
    };
    assert!(matches!(caught(fault), CheckError::Lost { .. }));
}

#[test]
fn other_bits_than_the_grower_picked_are_noticed() {
    let fault = |tree: &mut Tree| {
        let Node::Bits { masks, .. } = &mut tree.nodes[0] else { panic!("no bits") };
        masks[0] = masks[0].rotate_left(1);
    };
    assert!(matches!(caught(fault), CheckError::Lost { .. } | CheckError::Shape { .. }));
}

#[test]
fn a_loop_is_noticed() {
    let fault = |tree: &mut Tree| {
        let branch = tree.branches.iter_mut().find(|branch| **branch != Branch::EMPTY).unwrap();
        branch.to = Ref::node(0);
    };
    assert!(matches!(caught(fault), CheckError::Shape { node: 0, .. }));
}

#[test]
fn rules_tried_in_the_wrong_order_are_noticed() {
    let fault = |tree: &mut Tree| {
        // The two lanes of a block, exchanged.
        for line in &mut tree.lines {
            line.0.rotate_left(4);
        }
    };
    assert!(matches!(caught(fault), CheckError::Shape { .. }));
}

#[test]
fn every_bit_of_a_used_lane_matters() {
    let compiled = compile(needful()).unwrap();
    let block = some_leaf(&compiled.stages[0].trees[0]);
    for (word, bit) in (0..4).flat_map(|word| (0..64).map(move |bit| (word, bit))) {
        caught(|tree| tree.lines[block].0[word] ^= 1 << bit);
    }
}

#[test]
fn a_wrong_verdict_is_noticed() {
    let broken = CompiledPolicy::sabotaged(needful(), |policy| policy.outcomes[40] = Outcome::Allow);
    assert!(matches!(broken, Err(CompileError::Wrong { source: CheckError::Outcome { slot: 40 }, .. })));
}
