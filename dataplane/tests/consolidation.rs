//! A list that changes is patched at once, and compiled whole when there is time for it.
#![allow(missing_docs)]

mod build;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::control::{EndpointId, State};
use margay_dataplane::net::{FlowKey, Icmp, Nanos, Proto};
use margay_dataplane::policy::{Direction, PolicyTree, Query};
use margay_dataplane::snapshot::{Publisher, Snapshot};

const START: Nanos = Nanos::from_secs(10);
const LATER: Nanos = Nanos::from_secs(12);

/// 700 ports from 1000 on, and from 5000 on those that replace the first `changed` of them.
fn ports(changed: u32) -> pb::Change {
    let rule = |n: u32| {
        let port = if n < changed { 5000 + n } else { 1000 + n };
        policy("web", port).inbound_rules[0].clone()
    };
    let policy = pb::Policy { inbound_rules: (0..700).map(rule).collect(), ..policy("web", 1) };
    change(Change::Policy(policy))
}

fn commit(state: &mut State, changes: Vec<pb::Change>, now: Nanos) {
    let commit = pb::Commit { generation: state.committed() + 1, in_sync: true };
    state.commit(&changes, &commit, now).unwrap();
}

/// One endpoint with the 700 rules.
fn state() -> State {
    let mut state = State::new(Publisher::new(Snapshot::empty(1)), 16);
    commit(&mut state, vec![ports(0), change(Change::WorkloadEndpoint(endpoint(1, &["web"])))], START);
    state
}

fn tree(state: &State) -> &PolicyTree {
    let index = state.endpoint_index(&EndpointId::from(endpoint_id(1))).unwrap();
    state.policy().tree(index, Direction::Ingress).unwrap()
}

fn allows(state: &State, port: u16) -> bool {
    let key =
        FlowKey { src: addr("10.0.0.9"), dst: addr("10.65.0.1"), sport: 9, dport: port, proto: Proto::TCP };
    tree(state).compiled().judge(state.policy().sets(), &Query { key, icmp: Icmp::default() }).allow
}

#[test]
fn a_patched_list_is_compiled_whole_once_it_is_quiet() {
    let mut state = state();
    assert!(state.consolidation(LATER).is_none(), "nothing is patched");
    commit(&mut state, vec![ports(1)], START);
    assert!(tree(&state).compiled().is_patched());
    assert!(state.consolidation(START).is_none(), "more may follow");
    let work = state.consolidation(LATER).expect("a second later");
    assert!(state.consolidation(LATER).is_none(), "one at a time");

    // What changes meanwhile is in force at once, and a patch of what was compiled.
    commit(&mut state, vec![ports(2)], LATER);
    assert!(allows(&state, 5001) && !allows(&state, 1001));
    state.consolidated(Some(&work.run().unwrap()));
    assert!(state.publish());
    assert_eq!(tree(&state).compiled().changes(), 2);
    assert!(allows(&state, 5001) && allows(&state, 5000) && !allows(&state, 1001) && allows(&state, 1002));

    let work = state.consolidation(Nanos::from_secs(14)).expect("the second change is a patch");
    state.consolidated(Some(&work.run().unwrap()));
    assert!(!tree(&state).compiled().is_patched() && allows(&state, 5001));
    assert!(state.consolidation(Nanos::from_secs(16)).is_none());
}

#[test]
fn many_changes_do_not_wait() {
    let mut state = state();
    commit(&mut state, vec![ports(31)], START);
    assert!(state.consolidation(START).is_none());
    commit(&mut state, vec![ports(32)], START);
    assert!(state.consolidation(START).is_some(), "32 rules gone, 32 new");
}

#[test]
fn what_could_not_be_compiled_is_not_tried_again_before_the_next_change() {
    let mut state = state();
    commit(&mut state, vec![ports(1)], START);
    assert!(state.consolidation(LATER).is_some());
    state.consolidated(None);
    assert!(!state.publish() && state.consolidation(LATER).is_none());
    commit(&mut state, vec![ports(2)], LATER);
    assert!(state.consolidation(Nanos::from_secs(14)).is_some());
}
