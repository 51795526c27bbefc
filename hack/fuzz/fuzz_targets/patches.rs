//! Any succession of changes of a long rule list: trees that outlive their rules, patch after patch, and what
//! is compiled whole meanwhile, judge as the linear reference does.
#![no_main]

mod world;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use margay_dataplane::net::{PortRange, Proto};
use margay_dataplane::policy::{
    Action, Direction, EndpointIdx, ListedPolicy, ListedProfile, PolicyId, PolicyTable, Query, Rule,
    RuleList, Rules, SetTable, TierDefault, TierList,
};
use std::sync::{Arc, LazyLock};
use world::{Ask, Say, Sets, agree, query, rule};

/// Rules that lists begin with: shorter ones are not patched.
const LONG: u16 = 640;
const ENDPOINT: EndpointIdx = EndpointIdx(0);

#[derive(Arbitrary, Debug)]
struct Input {
    sets: Sets,
    /// Rules strewn among those that lists begin with.
    rules: Vec<(u8, u16, Say)>,
    /// What changes at once, again and again.
    rounds: Vec<(Vec<Change>, Aside)>,
    queries: Vec<Ask>,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Insert {
        policy: u8,
        at: u16,
        rule: Say,
    },
    Replace {
        policy: u8,
        at: u16,
        rule: Say,
    },
    Remove {
        policy: u8,
        at: u16,
    },
    Move {
        policy: u8,
        from: u16,
        to: u16,
    },
    /// Policies change places.
    Swap {
        a: u8,
        b: u8,
    },
    /// The end of the first tier.
    Default(bool),
    /// The same rules at another place in memory, cut otherwise.
    Recut {
        policy: u8,
        length: u8,
    },
}

/// What becomes of a list that is compiled whole beside.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Aside {
    Nothing,
    /// It was begun before the changes, and takes over after them.
    TakesOver,
}

/// What every list begins with, compiled whole: that takes longer than all that comes after.
static FIRST: LazyLock<(RuleList, PolicyTable)> = LazyLock::new(|| {
    let list = first();
    let table = bound(&PolicyTable::empty(1), &Arc::default(), &list);
    (list, table)
});

fuzz_target!(|input: Input| {
    let sets = Arc::new(input.sets.table());
    let mut list = FIRST.0.clone();
    for (policy, at, say) in input.rules.iter().take(40) {
        edit(policy_of(&mut list, *policy), *at, |rules, place| rules.insert(place, rule(say)));
    }
    let queries: Vec<Query> = input.queries.iter().take(64).map(query).collect();
    let mut table = bound(&FIRST.1, &sets, &list);
    judges(&table, &sets, &list, &queries);
    for (changes, aside) in input.rounds.iter().take(12) {
        let begun = table.consolidation(1).filter(|_| *aside == Aside::TakesOver);
        changes.iter().take(12).for_each(|change| apply(&mut list, change));
        table = bound(&table, &sets, &list);
        judges(&table, &sets, &list, &queries);
        if let Some(begun) = begun {
            let done = begun.run().expect("lists of this size are compiled");
            if let Some((whole, _)) = table.consolidated(&done) {
                table = whole;
                judges(&table, &sets, &list, &queries);
            }
        }
    }
});

fn bound(table: &PolicyTable, sets: &Arc<SetTable>, list: &RuleList) -> PolicyTable {
    let mut next = table.next(sets.clone());
    next.bind(ENDPOINT, list.clone(), RuleList::default()).expect("lists of this size are compiled");
    next.finish()
}

fn judges(table: &PolicyTable, sets: &SetTable, list: &RuleList, queries: &[Query]) {
    let tree = table.tree(ENDPOINT, Direction::Ingress).expect("it is bound");
    agree(tree.compiled(), list, sets, queries);
}

/// Two policies in a tier that passes at its end, and a profile.
fn first() -> RuleList {
    let mut rules: Vec<Rule> = (0..LONG).map(usual).collect();
    let second = rules.split_off(rules.len() / 2);
    let policy = |(number, rules): (usize, Vec<Rule>)| ListedPolicy {
        id: PolicyId {
            kind: "NetworkPolicy".into(),
            namespace: "".into(),
            name: format!("p{number}").into(),
        },
        rules: cut(&rules, 64),
    };
    let policies = [rules, second].into_iter().enumerate().map(policy).collect();
    RuleList {
        tiers: vec![TierList { name: "tier".into(), default: TierDefault::Pass, policies }],
        profiles: vec![ListedProfile { name: "p".into(), rules: [Rule::any(Action::Allow)].into() }],
        ..RuleList::default()
    }
}

/// One of many that are alike.
fn usual(number: u16) -> Rule {
    let port = [79, 80, 443, number][usize::from(number % 4)];
    let action = if number.is_multiple_of(3) { Action::Deny } else { Action::Allow };
    Rule {
        protocol: Some(if number.is_multiple_of(2) { Proto::TCP } else { Proto::UDP }),
        src_ports: vec![PortRange { first: number, last: number.saturating_add(2) }],
        dst_ports: vec![PortRange { first: port, last: port }],
        ..Rule::any(action)
    }
}

fn cut(rules: &[Rule], length: usize) -> Rules {
    Rules::of_chunks(rules.chunks(length).map(Arc::from))
}

fn policy_of(list: &mut RuleList, policy: u8) -> &mut Rules {
    let policies = &mut list.tiers[0].policies;
    let count = policies.len();
    &mut policies[usize::from(policy) % count].rules
}

/// Edits the rules of one chunk; the others stay where they are.
fn edit(rules: &mut Rules, at: u16, how: impl FnOnce(&mut Vec<Rule>, usize)) {
    let mut chunks: Vec<Arc<[Rule]>> = rules.chunks().to_vec();
    let which = usize::from(at) % chunks.len().max(1);
    let mut edited = chunks.get(which).map_or_else(Vec::new, |chunk| chunk.to_vec());
    let place = usize::from(at) / 8 % edited.len().max(1);
    how(&mut edited, place);
    chunks.splice(which..chunks.len().min(which + 1), [Arc::from(edited)]);
    *rules = Rules::of_chunks(chunks);
}

fn apply(list: &mut RuleList, change: &Change) {
    match change {
        Change::Insert { policy, at, rule: say } => {
            edit(policy_of(list, *policy), *at, |rules, place| rules.insert(place, rule(say)));
        }
        Change::Replace { policy, at, rule: say } => edit(policy_of(list, *policy), *at, |rules, place| {
            if let Some(old) = rules.get_mut(place) {
                *old = rule(say);
            }
        }),
        Change::Remove { policy, at } => edit(policy_of(list, *policy), *at, |rules, place| {
            if place < rules.len() {
                rules.remove(place);
            }
        }),
        Change::Move { policy, from, to } => edit(policy_of(list, *policy), *from, |rules, place| {
            if place < rules.len() {
                let moved = rules.remove(place);
                rules.insert(usize::from(*to) % (rules.len() + 1), moved);
            }
        }),
        Change::Swap { a, b } => {
            let policies = &mut list.tiers[0].policies;
            let count = policies.len();
            policies.swap(usize::from(*a) % count, usize::from(*b) % count);
        }
        Change::Default(pass) => {
            list.tiers[0].default = if *pass { TierDefault::Pass } else { TierDefault::Deny };
        }
        Change::Recut { policy, length } => {
            let rules = policy_of(list, *policy);
            let all: Vec<Rule> = rules.iter().cloned().collect();
            *rules = cut(&all, usize::from(*length).max(1));
        }
    }
}
