//! Patched trees: they judge as the reference after any change, and broken ones do not get past the check.

use super::faults::break_tree;
use super::generate::*;
use super::twin::{judges_as_the_reference, minimal_matches_hold};
use crate::policy::compiled::{Outcome, Slots, compile_slices, slices};
use crate::policy::patch::patch;
use crate::policy::*;
use proptest::prelude::*;
use std::sync::Arc;

/// One change of a list: what kind, and numbers that pick where.
type Edit = (u8, usize, usize, Rule);

fn edit() -> impl Strategy<Value = Edit> {
    (any::<u8>(), any::<usize>(), any::<usize>(), rule())
}

/// Does one change; some lists have no room for some.
fn apply(list: &mut RuleList, (kind, a, b, rule): &Edit) {
    let tiers = list.tiers.len();
    let slot = a % (tiers + 1);
    if let Some(tier) = list.tiers.get_mut(slot) {
        let n = tier.policies.len();
        match kind % 8 {
            5 => tier.policies.swap(b % n, (b / 7) % n),
            6 if n > 1 => drop(tier.policies.remove(b % n)),
            7 => {
                tier.default =
                    if tier.default == TierDefault::Deny { TierDefault::Pass } else { TierDefault::Deny };
                let copy = tier.policies[b % n].clone();
                tier.policies.insert(b % n, copy);
            }
            _ => edit_rules(&mut tier.policies[b % n].rules, *kind, *a, *b, rule),
        }
    } else if let n @ 1.. = list.profiles.len() {
        edit_rules(&mut list.profiles[b % n].rules, *kind, *a, *b, rule);
    }
}

fn edit_rules(rules: &mut Rules, kind: u8, a: usize, b: usize, rule: &Rule) {
    // All chunks but one stay where they are.
    let mut chunks: Vec<Arc<[Rule]>> = rules.chunks().to_vec();
    let which = (a / 3) % chunks.len().max(1);
    let mut edited = chunks.get(which).map_or_else(Vec::new, |chunk| chunk.to_vec());
    let at = (a ^ b) % (edited.len() + 1);
    match kind % 5 {
        0 => edited.insert(at, rule.clone()),
        1 if at < edited.len() => edited[at] = rule.clone(),
        2 if at < edited.len() => drop(edited.remove(at)),
        3 if at < edited.len() => {
            let moved = edited.remove(at);
            edited.insert(b % (edited.len() + 1), moved);
        }
        _ => {} // The same rules at another place in memory.
    }
    let cut = edited.chunks(if kind.is_multiple_of(2) { 1 + a % 4 } else { 64 }).map(Arc::from);
    chunks.splice(which..chunks.len().min(which + 1), cut);
    *rules = Rules::of_chunks(chunks);
}

fn any_list() -> impl Strategy<Value = RuleList> {
    prop_oneof![
        3 => list().boxed(),
        2 => crowded_list().boxed(),
        2 => long_list().boxed(),
        1 => firewall().prop_map(|(list, _)| list).boxed(),
    ]
}

fn fail(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

proptest! {
    #![proptest_config(seeded(256))]

    #[test]
    fn patch_after_patch_judges_as_the_reference(
        mut list in any_list(),
        edits in prop::collection::vec(prop::collection::vec(edit(), 1..4), 1..6),
        sets in set_table(),
        queries in prop::collection::vec(query(), 48),
    ) {
        let mut compiled = Arc::new(compile(list.clone()).map_err(fail)?);
        for edits in &edits {
            edits.iter().for_each(|edit| apply(&mut list, edit));
            let now = Arc::new(list.clone());
            let patched = patch(&compiled, &now, &slices(&now)).map_err(fail)?;
            // A policy that is there twice may be more than there are slots for.
            compiled = Arc::new(patched.map_or_else(|| compile(list.clone()).map_err(fail), Ok)?);
            judges_as_the_reference(&compiled, &list, &sets, &queries)?;
            let whole = compile(list.clone()).map_err(fail)?;
            let of = |policy: &CompiledPolicy| policy.deciders().map(|(_, decider)| decider).collect::<Vec<_>>();
            prop_assert_eq!(of(&compiled), of(&whole));
            prop_assert!(compiled.deciders().all(|(slot, decider)| compiled.decider(slot) == Some(decider)));
        }
        let pairs: Vec<_> = queries.iter().copied().zip(queries.iter().rev().copied()).collect();
        minimal_matches_hold(&compiled, &sets, &pairs)?;
    }
}

/// One deterministic way to break a patch, by numbers that pick where.
fn break_it(policy: &mut CompiledPolicy, kind: u8, a: usize, b: usize) {
    let stages = policy.stages.len();
    let slot = b % policy.outcomes.len();
    let stage = &mut policy.stages[a % stages];
    match (kind % 14, &mut stage.patch) {
        (0, _) => {
            policy.outcomes[slot] =
                if policy.outcomes[slot] == Outcome::Allow { Outcome::Deny } else { Outcome::Allow };
        }
        (1, _) => policy.used[b % 4] ^= true,
        (2, _) if !stage.runs.is_empty() => {
            let n = stage.runs.len();
            stage.runs.swap(a % n, b % n);
        }
        (3, _) if !stage.runs.is_empty() => match &mut stage.runs[b % stage.runs.len()].slots {
            Slots::From(first) => {
                *first = first.wrapping_add_signed(if a.is_multiple_of(2) { 1 } else { -1 })
            }
            Slots::Each(slots) if !slots.is_empty() => {
                let n = slots.len();
                slots.swap(a % n, b / 3 % n);
            }
            Slots::Each(_) => {}
        },
        (4, _) => stage.base += 1,
        (5, patch) => *patch = None,
        (6 | 7, Some(patch)) if !patch.dead.words.is_empty() => {
            let at = a % patch.dead.words.len();
            patch.dead.words[at] ^= 1 << (b % 64);
        }
        (8 | 9, Some(patch)) if !patch.before.is_empty() => {
            let at = a % patch.before.len();
            let step = if kind.is_multiple_of(2) { 1 } else { -1 };
            patch.before[at] = patch.before[at].wrapping_add_signed(step * (1 + b as i32 % 2));
        }
        (10, Some(patch)) if !patch.slots.is_empty() => {
            let n = patch.slots.len();
            patch.slots.swap(a % n, b % n);
        }
        (11, Some(patch)) if !patch.slots.is_empty() => {
            let at = a % patch.slots.len();
            patch.slots[at] = slot as u32;
        }
        (12 | 13, Some(patch)) => {
            let tree = Arc::make_mut(&mut patch.trees[b % 2]);
            break_tree(tree, 5 + (b / 2 % 7) as u8, a, b / 14);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(seeded(3000))]

    /// Not every fault matters, but one that passes must not change a single verdict.
    #[test]
    fn what_passes_the_check_of_patches_is_right(
        list in any_list(),
        edits in prop::collection::vec(edit(), 1..6),
        sets in set_table(),
        fault in (any::<u8>(), any::<usize>(), any::<usize>()),
        queries in prop::collection::vec(query(), 32),
    ) {
        let compiled = Arc::new(compile(list.clone()).map_err(fail)?);
        let mut list = list;
        edits.iter().for_each(|edit| apply(&mut list, edit));
        let broken = CompiledPolicy::patched_and_sabotaged(&compiled, list.clone(), |policy| {
            break_it(policy, fault.0, fault.1, fault.2);
        });
        let Some(Ok(patched)) = broken else { return Ok(()) };
        for q in queries {
            let right = reference::judge(&list, &sets, &q);
            let verdict = patched.judge(&sets, &q);
            prop_assert_eq!(verdict.allow, right.allow);
            let decider = patched.decider(verdict.slot);
            prop_assert_eq!(decider.as_ref(), Some(right.decider()));
        }
    }
}

/// Ports from `first` on, each its own rule.
fn ports(first: u16, count: u16) -> Vec<Rule> {
    let rule = |port: u16| Rule {
        protocol: Some(crate::net::Proto::TCP),
        dst_ports: vec![crate::net::PortRange::one(port)],
        ..Rule::any(if port.is_multiple_of(2) { Action::Allow } else { Action::Deny })
    };
    (first..first + count).map(rule).collect()
}

fn profile(rules: Vec<Rule>) -> RuleList {
    RuleList {
        profiles: vec![ListedProfile { name: "p".into(), rules: rules.into() }],
        ..RuleList::default()
    }
}

fn broken(fault: impl FnOnce(&mut CompiledPolicy)) -> CheckError {
    let compiled = Arc::new(compile(profile(ports(1000, 40))).unwrap());
    let mut rules = ports(1000, 40);
    rules[7] = Rule::any(Action::Allow);
    rules.insert(20, Rule::any(Action::Pass));
    match CompiledPolicy::patched_and_sabotaged(&compiled, profile(rules), fault) {
        Some(Err(CompileError::Wrong { source, .. })) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rule_that_is_dead_and_should_not_be_is_noticed() {
    let bury = |policy: &mut CompiledPolicy| policy.stages[0].patch.as_mut().unwrap().dead.bury(30);
    assert!(matches!(broken(bury), CheckError::Merge { .. }));
}

#[test]
fn a_rule_that_should_be_dead_is_noticed() {
    let revive = |policy: &mut CompiledPolicy| policy.stages[0].patch.as_mut().unwrap().dead.words[0] = 0;
    assert!(matches!(broken(revive), CheckError::Merge { .. }));
}

#[test]
fn a_new_rule_in_the_wrong_place_is_noticed() {
    for (rule, place) in [(0, 6), (0, 9), (1, 18), (1, 21)] {
        let misplace = |policy: &mut CompiledPolicy| {
            policy.stages[0].patch.as_mut().unwrap().before[rule] = place;
        };
        assert!(matches!(broken(misplace), CheckError::Merge { .. }), "{rule} before {place}");
    }
}

#[test]
fn a_new_rule_that_its_tree_does_not_hold_is_noticed() {
    let forget = |policy: &mut CompiledPolicy| {
        let empty = compile(RuleList::default()).unwrap();
        policy.stages[0].patch.as_mut().unwrap().trees = empty.stages[0].trees.clone();
    };
    assert!(!matches!(broken(forget), CheckError::Merge { .. }));
}

#[test]
fn a_new_rule_with_the_outcome_of_another_is_noticed() {
    let allow = |policy: &mut CompiledPolicy| policy.outcomes[42] = Outcome::Allow;
    assert!(matches!(broken(allow), CheckError::Merge { .. }));
}

#[test]
fn what_changed_too_much_is_not_patched() {
    let compiled = Arc::new(compile(profile(ports(1, 2000))).unwrap());
    let patched = |rules: Vec<Rule>| {
        let list = Arc::new(profile(rules));
        patch(&compiled, &list, &slices(&list)).unwrap().is_some()
    };
    assert!(patched([ports(1, 2000), ports(3000, 500)].concat()));
    assert!(!patched([ports(1, 2000), ports(3000, 600)].concat()));
    assert!(patched(ports(500, 1500)));
    assert!(!patched(ports(700, 1300)));
    // Rules so long that growing them again and again would take too long.
    let long = Rule {
        dst_ports: (0..9000).map(|n| crate::net::PortRange::one(2 * n)).collect(),
        ..Rule::any(Action::Deny)
    };
    assert!(!patched([ports(1, 2000), vec![long]].concat()));
    // Another number of tiers.
    let tier = TierList { name: "t".into(), default: TierDefault::Pass, policies: vec![] };
    let list = Arc::new(RuleList { tiers: vec![tier], ..profile(ports(1, 2000)) });
    assert!(patch(&compiled, &list, &slices(&list)).unwrap().is_none());
}

/// A set that only rules name which are gone may be gone too, and its number may be another's.
#[test]
fn what_is_dead_needs_no_sets() {
    let from = |set: u32| Rule { src_ip_sets: vec![SetId(set)], ..Rule::any(Action::Allow) };
    let list = Arc::new(profile([ports(1, 50), vec![from(0)]].concat()));
    let whole = Arc::new(compile_slices(&list, &slices(&list), usize::MAX).unwrap());
    let list = Arc::new(profile(ports(1, 50)));
    let patched = patch(&whole, &list, &slices(&list)).unwrap().unwrap();
    let everybody = SetMembers::Net(vec!["0.0.0.0/0".parse().unwrap()].into());
    let sets = SetTable::new(vec![Some(Arc::new(IpSet { name: "s".into(), members: everybody }))]).unwrap();
    let key = crate::net::FlowKey {
        src: "10.0.0.1".parse().unwrap(),
        dst: "10.0.0.2".parse().unwrap(),
        sport: 1,
        dport: 9000,
        proto: crate::net::Proto::TCP,
    };
    let q = Query { key, icmp: crate::net::Icmp::default() };
    assert!(whole.judge(&sets, &q).allow);
    assert!(!patched.judge(&sets, &q).allow && !patched.judge(&SetTable::default(), &q).allow);
}
