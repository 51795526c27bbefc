//! Any rules, sets and packets: the compiled trees judge as the linear reference does.
#![no_main]

mod world;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use margay_dataplane::policy::{
    ListedPolicy, ListedProfile, Otherwise, PolicyId, Query, RuleList, Rules, TierDefault, TierList, compile,
};
use world::{Ask, Say, Sets, agree, query, rule};

#[derive(Arbitrary, Debug)]
struct Input {
    /// Up to four: the default passes, and up to three policies.
    tiers: Vec<(bool, Vec<Vec<Say>>)>,
    profiles: Vec<Vec<Say>>,
    go_on: bool,
    sets: Sets,
    queries: Vec<Ask>,
}

fuzz_target!(|input: Input| {
    let tiers = input.tiers.iter().take(4).map(|(pass, policies)| TierList {
        name: "tier".into(),
        default: if *pass { TierDefault::Pass } else { TierDefault::Deny },
        policies: policies.iter().take(3).enumerate().map(policy).collect(),
    });
    let profiles =
        input.profiles.iter().take(2).map(|says| ListedProfile { name: "p".into(), rules: rules(says) });
    let list = RuleList {
        tiers: tiers.collect(),
        profiles: profiles.collect(),
        otherwise: if input.go_on { Otherwise::GoOn } else { Otherwise::Deny },
    };
    let sets = input.sets.table();

    let queries: Vec<Query> = input.queries.iter().map(query).collect();
    let compiled = compile(list.clone()).expect("lists of this size are compiled");
    agree(&compiled, &list, &sets, &queries);
});

fn policy((index, says): (usize, &Vec<Say>)) -> ListedPolicy {
    let id =
        PolicyId { kind: "NetworkPolicy".into(), namespace: "".into(), name: format!("p{index}").into() };
    ListedPolicy { id, rules: rules(says) }
}

fn rules(says: &[Say]) -> Rules {
    says.iter().take(30).map(rule).collect()
}
