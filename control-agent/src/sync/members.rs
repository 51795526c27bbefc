//! Packed members of IP sets: records of equal size, sorted, so that two versions of a set
//! are compared in one walk.

use margay_api::dataplane::v1::{IpSet, IpSetDelta, Members, change::Change, ip_set::Type};
use std::cmp::Ordering;

/// The cheaper way to get from `old` to `new`, which differ: what came and went, or all of it.
/// No change has more than `bytes` of members.
pub(super) fn update(old: &IpSet, new: &IpSet, bytes: usize) -> Vec<Change> {
    if old.r#type != new.r#type {
        return whole(new, bytes);
    }
    let (v4, v6) = record_sizes(new.r#type());
    let (old_members, new_members) = (members(old), members(new));
    let (added_v4, removed_v4) = difference(&old_members.ipv4, &new_members.ipv4, v4);
    let (added_v6, removed_v6) = difference(&old_members.ipv6, &new_members.ipv6, v6);
    let delta = added_v4.len() + removed_v4.len() + added_v6.len() + removed_v6.len();
    if delta >= new_members.ipv4.len() + new_members.ipv6.len() {
        return whole(new, bytes);
    }
    let added = Members { ipv4: added_v4, ipv6: added_v6 };
    let removed = Members { ipv4: removed_v4, ipv6: removed_v6 };
    if delta <= bytes {
        let (added, removed) = (Some(added), Some(removed));
        return vec![Change::IpSetDelta(IpSetDelta { id: new.id.clone(), added, removed })];
    }
    // What comes and what goes are distinct, so the parts may follow each other in any order.
    let delta = |added, removed| Change::IpSetDelta(IpSetDelta { id: new.id.clone(), added, removed });
    let come = parts(&added, new.r#type(), bytes).map(|part| delta(Some(part), None));
    let go = parts(&removed, new.r#type(), bytes).map(|part| delta(None, Some(part)));
    come.chain(go).collect()
}

/// The set as a first part of at most `bytes` of members, and the rest as deltas of at most that.
pub(super) fn whole(set: &IpSet, bytes: usize) -> Vec<Change> {
    let all = members(set);
    let mut parts = parts(&all, set.r#type(), bytes);
    let first = IpSet { members: Some(parts.next().unwrap_or_default()), ..set.clone() };
    let rest = parts.map(|part| IpSetDelta { id: set.id.clone(), added: Some(part), removed: None });
    [Change::IpSet(first)].into_iter().chain(rest.map(Change::IpSetDelta)).collect()
}

/// Whole records, at most `bytes` a part. Nothing: no part.
fn parts(members: &Members, kind: Type, bytes: usize) -> impl Iterator<Item = Members> {
    let (v4, v6) = record_sizes(kind);
    let ipv4 = split(&members.ipv4, v4, bytes).map(|ipv4| Members { ipv4, ipv6: Vec::new() });
    ipv4.chain(split(&members.ipv6, v6, bytes).map(|ipv6| Members { ipv4: Vec::new(), ipv6 }))
}

fn members(set: &IpSet) -> Members {
    set.members.clone().unwrap_or_default()
}

/// Bytes of one record, by version.
fn record_sizes(kind: Type) -> (usize, usize) {
    match kind {
        Type::Ip | Type::Unspecified => (4, 16),
        Type::Net => (5, 17),
        Type::IpAndPort => (7, 19),
    }
}

fn split(records: &[u8], size: usize, bytes: usize) -> impl Iterator<Item = Vec<u8>> {
    records.chunks((bytes / size).max(1) * size).map(<[u8]>::to_vec)
}

/// The records only in `new`, and those only in `old`. Both are sorted.
fn difference(old: &[u8], new: &[u8], size: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let mut olds = old.chunks(size).peekable();
    let mut news = new.chunks(size).peekable();
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return (added, removed),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.cmp(new),
        };
        let gone = if order.is_le() { olds.next() } else { None };
        let came = if order.is_ge() { news.next() } else { None };
        if order.is_ne() {
            removed.extend_from_slice(gone.unwrap_or_default());
            added.extend_from_slice(came.unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::btree_set, prelude::*};
    use std::collections::BTreeSet;

    fn set(kind: Type, ipv4: impl IntoIterator<Item = [u8; 4]>) -> IpSet {
        let ipv4 = ipv4.into_iter().flatten().collect();
        IpSet { id: "s:x".into(), r#type: kind.into(), members: Some(Members { ipv4, ipv6: Vec::new() }) }
    }

    const UNBOUNDED: usize = usize::MAX;

    #[test]
    fn a_small_change_of_a_large_set_is_a_delta() {
        let old = set(Type::Ip, (0..100).map(|n| [10, 0, 0, n]));
        let new = set(Type::Ip, (1..101).map(|n| [10, 0, 0, n]));
        let [Change::IpSetDelta(delta)] = &update(&old, &new, UNBOUNDED)[..] else {
            panic!("two records of 100 changed")
        };
        assert_eq!(delta.added.as_ref().unwrap().ipv4, [10, 0, 0, 100]);
        assert_eq!(delta.removed.as_ref().unwrap().ipv4, [10, 0, 0, 0]);
        assert_eq!(update(&old, &new, 4).len(), 2, "what came and what went, bounded each");
    }

    #[test]
    fn a_set_that_changes_its_nature_is_sent_whole() {
        let old = set(Type::Ip, [[10, 0, 0, 1], [10, 0, 0, 2]]);
        let all_new = set(Type::Ip, [[10, 0, 0, 8], [10, 0, 0, 9]]);
        assert_eq!(update(&old, &all_new, UNBOUNDED), [Change::IpSet(all_new.clone())]);
        let other_type = IpSet { r#type: Type::Net.into(), ..old.clone() };
        assert_eq!(update(&old, &other_type, UNBOUNDED), [Change::IpSet(other_type.clone())]);
    }

    #[test]
    fn parts_hold_whole_records_and_together_everything() {
        let large = set(Type::Ip, (0..10).map(|n| [10, 0, 0, n]));
        let parts = whole(&large, 14);
        assert_eq!(parts.len(), 4, "three records of four bytes fit in 14");
        let joined: Vec<u8> = parts
            .iter()
            .flat_map(|part| match part {
                Change::IpSet(set) => set.members.clone().unwrap().ipv4,
                Change::IpSetDelta(delta) => delta.added.clone().unwrap().ipv4,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(joined, large.members.unwrap().ipv4);
        assert_eq!(
            whole(&set(Type::Ip, []), 14),
            [Change::IpSet(set(Type::Ip, []))],
            "an empty set is a set"
        );
    }

    proptest! {
        #[test]
        fn the_walk_agrees_with_set_difference(
            old in btree_set(any::<[u8; 2]>(), 0..40), new in btree_set(any::<[u8; 2]>(), 0..40),
        ) {
            let pack = |set: &BTreeSet<[u8; 2]>| set.iter().flatten().copied().collect::<Vec<u8>>();
            let (added, removed) = difference(&pack(&old), &pack(&new), 2);
            prop_assert_eq!(added, pack(&new.difference(&old).copied().collect()));
            prop_assert_eq!(removed, pack(&old.difference(&new).copied().collect()));
        }
    }
}
