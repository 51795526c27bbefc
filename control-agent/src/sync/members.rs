//! IP sets as messages: whole, or as what came and went, in parts that fit.

use crate::calc::{Difference, IpSet, Record};
use margay_api::dataplane::v1::{self as api, IpSetDelta, Members, change::Change};

/// The cheaper way to get from `old` to `new`, which differ: what came and went, or all of it.
/// No change has more than `bytes` of members.
pub(super) fn update(id: &str, old: &IpSet, new: &IpSet, bytes: usize) -> Vec<Change> {
    if old.kind != new.kind {
        return whole(id, new, bytes);
    }
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for difference in old.members.differences(&new.members) {
        match difference {
            Difference::Added(record, ()) => added.push(*record),
            Difference::Removed(record, ()) => removed.push(*record),
            Difference::Changed(..) => {}
        }
    }
    if added.len() + removed.len() >= new.members.len() {
        return whole(id, new, bytes);
    }
    let delta = |added, removed| Change::IpSetDelta(IpSetDelta { id: id.to_owned(), added, removed });
    let size = added.iter().chain(&removed).map(Record::packed_len).sum::<usize>();
    if size <= bytes {
        return vec![delta(Some(pack(&added)), Some(pack(&removed)))];
    }
    // What comes and what goes are distinct, so the parts may follow each other in any order.
    let come = parts(added.into_iter(), bytes).map(|part| delta(Some(part), None));
    let go = parts(removed.into_iter(), bytes).map(|part| delta(None, Some(part)));
    come.chain(go).collect()
}

/// The set as a first part of at most `bytes` of members, and the rest as deltas of at most that.
pub(super) fn whole(id: &str, set: &IpSet, bytes: usize) -> Vec<Change> {
    let mut parts = parts(set.members.keys().copied(), bytes);
    let members = Some(parts.next().unwrap_or_default());
    let first = api::IpSet { id: id.to_owned(), r#type: set.kind.into(), members };
    let rest = parts.map(|part| IpSetDelta { id: id.to_owned(), added: Some(part), removed: None });
    [Change::IpSet(first)].into_iter().chain(rest.map(Change::IpSetDelta)).collect()
}

/// Whole records, at most `bytes` a part, and one at least. Nothing: no part.
fn parts(records: impl Iterator<Item = Record>, bytes: usize) -> impl Iterator<Item = Members> {
    let mut records = records.peekable();
    std::iter::from_fn(move || {
        let mut part = vec![records.next()?];
        let mut size = part[0].packed_len();
        while let Some(next) = records.next_if(|next| size + next.packed_len() <= bytes) {
            size += next.packed_len();
            part.push(next);
        }
        Some(pack(&part))
    })
}

fn pack(records: &[Record]) -> Members {
    let mut members = Members::default();
    records.iter().for_each(|record| record.pack(&mut members));
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use margay_api::dataplane::v1::ip_set::Type;
    use std::net::{IpAddr, Ipv4Addr};

    fn set(kind: Type, hosts: impl IntoIterator<Item = u8>) -> IpSet {
        let record =
            |host| (Record::Net(crate::model::Cidr::host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)))), ());
        IpSet { kind, members: hosts.into_iter().map(record).collect() }
    }

    const UNBOUNDED: usize = usize::MAX;

    #[test]
    fn a_small_change_of_a_large_set_is_a_delta() {
        let (old, new) = (set(Type::Net, 0..100), set(Type::Net, 1..101));
        let [Change::IpSetDelta(delta)] = &update("s:x", &old, &new, UNBOUNDED)[..] else {
            panic!("two records of 100 changed")
        };
        assert_eq!(delta.added.as_ref().unwrap().ipv4, [10, 0, 0, 100, 32]);
        assert_eq!(delta.removed.as_ref().unwrap().ipv4, [10, 0, 0, 0, 32]);
        assert_eq!(update("s:x", &old, &new, 5).len(), 2, "what came and what went, bounded each");
    }

    #[test]
    fn a_set_that_changes_its_nature_is_sent_whole() {
        let old = set(Type::Net, [1, 2]);
        let all_new = set(Type::Net, [8, 9]);
        assert_eq!(update("s:x", &old, &all_new, UNBOUNDED), [Change::IpSet(all_new.message("s:x"))]);
        let other_type = set(Type::IpAndPort, [1, 2]);
        assert_eq!(update("s:x", &old, &other_type, UNBOUNDED), [Change::IpSet(other_type.message("s:x"))]);
    }

    #[test]
    fn parts_hold_whole_records_and_together_everything() {
        let large = set(Type::Net, 0..10);
        let parts = whole("s:x", &large, 19);
        assert_eq!(parts.len(), 4, "three records of five bytes fit in 19");
        let joined: Vec<u8> = parts
            .iter()
            .flat_map(|part| match part {
                Change::IpSet(set) => set.members.clone().unwrap().ipv4,
                Change::IpSetDelta(delta) => delta.added.clone().unwrap().ipv4,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(joined, large.message("s:x").members.unwrap().ipv4);
        let empty = set(Type::Net, []);
        assert_eq!(whole("s:x", &empty, 19), [Change::IpSet(empty.message("s:x"))], "an empty set is a set");
    }
}
