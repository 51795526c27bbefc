//! Forms that take less memory: as exact as the others.

use super::generate::*;
use super::twin::judges_as_the_reference;
use crate::policy::*;
use proptest::prelude::*;
use std::sync::Arc;

proptest! {
    #![proptest_config(seeded(96))]

    #[test]
    fn smaller_forms_judge_as_the_reference(
        list in prop_oneof![
            list().boxed(), crowded_list().boxed(), long_list().boxed(), firewall().prop_map(|(list, _)| list).boxed()
        ],
        sets in set_table(),
        queries in prop::collection::vec(query(), 48),
        share in 0usize..100,
    ) {
        let fail = |error: CompileError| TestCaseError::fail(error.to_string());
        let full = compile(list.clone()).map_err(fail)?;
        for ceiling in [0, full.bytes() * share / 100] {
            let compiled = compile_within(list.clone(), ceiling).map_err(fail)?;
            prop_assert!(compiled.is_compact());
            judges_as_the_reference(&compiled, &list, &sets, &queries)?;
        }
    }
}

/// Ranges that overlap: copied where there is room.
fn ranges(salt: u16) -> RuleList {
    let rule = |n: u16| Rule {
        dst_ports: vec![crate::net::PortRange { first: 7 * n, last: 7 * n + 900 + salt }],
        src_ports: vec![crate::net::PortRange { first: 3 * n, last: 9 * n + 50 }],
        ..Rule::any(if n.is_multiple_of(2) { Action::Allow } else { Action::Deny })
    };
    let profile = ListedProfile { name: "p".into(), rules: (0..800).map(rule).collect() };
    RuleList { profiles: vec![profile], ..RuleList::default() }
}

#[test]
fn a_list_that_is_too_large_for_the_ceiling_is_compact_and_one_that_is_not_is_not() {
    let full = compile(ranges(0)).unwrap().bytes();
    let linear = compile_within(ranges(0), 0).unwrap().bytes();
    assert!(linear < full);
    let table = |bytes: usize| {
        let empty = PolicyTable::empty(1).with_ceiling(Ceiling { list: bytes, table: usize::MAX });
        let mut next = empty.next(Arc::default());
        next.bind(EndpointIdx(0), ranges(0), RuleList::default()).unwrap();
        next.finish().memory()
    };
    assert_eq!((table(full).compact, table(full - 1).compact), (0, 1));
    assert!(table(full - 1).bytes < table(full).bytes);
}

#[test]
fn the_largest_trees_of_a_table_become_smaller_until_all_fit() {
    let bind = |table: &PolicyTable, lists: u32| {
        let mut next = table.next(Arc::default());
        for n in 0..lists {
            next.bind(EndpointIdx(n), ranges(n as u16), RuleList::default()).unwrap();
        }
        next.finish()
    };
    let all = bind(&PolicyTable::empty(1), 3).memory().bytes;
    let room = Ceiling { list: usize::MAX, table: all - 1 };
    let two = bind(&PolicyTable::empty(1).with_ceiling(room), 2);
    assert_eq!(two.memory().compact, 0);
    let three = bind(&two, 3);
    let memory = three.memory();
    assert!(memory.compact == 1 && memory.bytes <= room.table, "{memory:?}");
    // What is compact stays so, and is not compiled again.
    assert_eq!(bind(&three, 3).memory(), memory);
}

#[test]
fn a_ceiling_that_nothing_fits_makes_everything_as_small_as_can_be() {
    let empty = PolicyTable::empty(1).with_ceiling(Ceiling { list: usize::MAX, table: 0 });
    let mut next = empty.next(Arc::default());
    next.bind(EndpointIdx(0), ranges(0), RuleList::default()).unwrap();
    let table = next.finish();
    let linear = compile_within(ranges(0), 0).unwrap().bytes()
        + compile_within(RuleList::default(), 0).unwrap().bytes();
    assert_eq!((table.memory().compact, table.memory().bytes), (2, linear));
}
