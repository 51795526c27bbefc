//! The table against the slow reference, and each next table against one built from nothing.

use super::*;
use crate::policy::reference;
use crate::policy::tests::generate::seeded;
use proptest::prelude::*;

fn set(members: SetMembers) -> Option<Arc<IpSet>> {
    Some(Arc::new(IpSet { name: "s".into(), members }))
}

fn nets(texts: &[&str]) -> SetMembers {
    SetMembers::Net(texts.iter().map(|t| t.parse::<Prefix>().unwrap()).collect())
}

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

#[test]
fn an_address_is_in_every_block_around_it() {
    let table = SetTable::new(vec![
        set(nets(&["0.0.0.0/0"])),
        set(nets(&["10.0.0.0/8", "10.0.0.0/8", "10.1.2.3/32"])),
        None,
        set(nets(&["10.1.0.0/16", "::/0"])),
        set(SetMembers::Ip(vec![addr("10.1.2.3")].into())),
    ])
    .unwrap();
    let of = |a: &str| table.of_address(addr(a)).iter().map(|id| id.0).collect::<Vec<_>>();
    assert_eq!(of("9.255.255.255"), [0]);
    assert_eq!(of("10.0.255.255"), [0, 1]);
    assert_eq!(of("10.1.0.0"), [0, 1, 3]);
    assert_eq!(of("10.1.2.3"), [0, 1, 3, 4]);
    assert_eq!(of("10.2.0.0"), [0, 1]);
    assert_eq!(of("255.255.255.255"), [0]);
    assert_eq!(of("ffff::"), [3]);
    assert_eq!(table.len(), 4);
}

#[test]
fn a_port_member_is_all_three() {
    let member = PortMember { addr: addr("10.0.0.1"), proto: Proto::TCP, port: 80 };
    let other = PortMember { addr: addr("fd00::1"), ..member };
    let table = SetTable::new(vec![set(SetMembers::IpPort(vec![member, other].into()))]).unwrap();
    for PortMember { addr, .. } in [member, other] {
        assert_eq!(table.of_port(addr, Proto::TCP, 80), [SetId(0)]);
        assert!(table.of_port(addr, Proto::UDP, 80).is_empty());
        assert!(table.of_port(addr, Proto::TCP, 81).is_empty());
        assert!(table.of_address(addr).is_empty());
    }
}

#[test]
fn the_table_before_stays_what_it_was() {
    let members: Members<Addr> = (0..5_000u32).map(|n| Addr::v4(n.to_be_bytes())).collect();
    let first = SetTable::new(vec![set(SetMembers::Ip(members.clone()))]).unwrap();
    let (gone, new) = (Addr::v4(7u32.to_be_bytes()), addr("10.0.0.1"));
    let members = members.updated(&vec![gone].into(), &vec![new].into());
    let second = first.updated([(SetId(0), set(SetMembers::Ip(members)))]).unwrap();
    assert_eq!((first.of_address(gone), first.of_address(new)), (&[SetId(0)][..], &[][..]));
    assert_eq!((second.of_address(gone), second.of_address(new)), (&[][..], &[SetId(0)][..]));
    let third = second.updated([(SetId(0), None)]).unwrap();
    assert!(third.of_address(new).is_empty() && third.is_empty());
    assert_eq!(second.of_address(new), [SetId(0)]);
}

#[test]
fn many_members_come_and_go() {
    // Enough for every number of shards, and for lines that overflow.
    let all: Vec<Addr> =
        (0..60_000u32).map(|n| Addr::v4((n.wrapping_mul(2_654_435_761)).to_be_bytes())).collect();
    let v6 = |addr: &Addr| Addr::from_bits(addr.bits() << 64 | addr.bits());
    let members = |range: std::ops::Range<usize>| -> SetMembers {
        SetMembers::Ip(all[range.clone()].iter().copied().chain(all[range].iter().map(v6)).collect())
    };
    let mut table = SetTable::keyed(11);
    for range in [0..300, 0..20_000, 10_000..60_000, 40_000..60_000, 59_999..60_000, 0..60_000, 0..0] {
        table = table.updated([(SetId(3), set(members(range.clone())))]).unwrap();
        for (at, addr) in all.iter().enumerate() {
            assert_eq!(!table.of_address(*addr).is_empty(), range.contains(&at));
            assert_eq!(!table.of_address(v6(addr)).is_empty(), range.contains(&at));
        }
    }
    assert_eq!((table.v4.hosts().len(), table.v6.hosts().len()), (0, 0));
}

/// Few addresses and all lengths, so that blocks nest and touch each other and hold single addresses.
fn prefix() -> impl Strategy<Value = Prefix> {
    (any::<bool>(), 0u32..64, 0u8..=6, any::<bool>()).prop_map(|(v6, bits, len, wide)| {
        let (addr, max) = if v6 {
            (Addr::from_bits(u128::from(bits) << 122), 128)
        } else {
            (Addr::v4((bits << 26).to_be_bytes()), 32)
        };
        Prefix::truncate(addr, if wide { len } else { max - 6 + len })
    })
}

fn port() -> impl Strategy<Value = PortMember> {
    (prefix(), any::<bool>(), 80u16..83).prop_map(|(net, udp, port)| PortMember {
        addr: net.addr(),
        proto: if udp { Proto::UDP } else { Proto::TCP },
        port,
    })
}

fn members() -> impl Strategy<Value = SetMembers> {
    prop_oneof![
        prop::collection::vec(prefix(), 0..6)
            .prop_map(|of| SetMembers::Ip(of.iter().map(|net| net.addr()).collect())),
        prop::collection::vec(prefix(), 0..6).prop_map(|of| SetMembers::Net(of.into())),
        prop::collection::vec(port(), 0..6).prop_map(|of| SetMembers::IpPort(of.into())),
    ]
}

/// One step: what some sets become. Small deltas mostly.
#[derive(Clone, Debug)]
enum Step {
    Whole(u32, Option<SetMembers>),
    Delta(u32, SetMembers, SetMembers),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0u32..12, prop::option::of(members())).prop_map(|(id, members)| Step::Whole(id, members)),
        4 => (0u32..12, members(), members()).prop_map(|(id, gone, new)| Step::Delta(id, gone, new)),
    ]
}

fn stepped(sets: &[Option<Arc<IpSet>>], step: &Step) -> (SetId, Option<Arc<IpSet>>) {
    match step {
        Step::Whole(id, members) => (SetId(*id), members.clone().and_then(set)),
        Step::Delta(id, gone, new) => {
            let old = sets.get(*id as usize).and_then(|set| set.as_ref()).map(|set| &set.members);
            let members = match (old, gone, new) {
                (Some(SetMembers::Ip(old)), SetMembers::Ip(gone), SetMembers::Ip(new)) => {
                    SetMembers::Ip(old.updated(gone, new))
                }
                (Some(SetMembers::Net(old)), SetMembers::Net(gone), SetMembers::Net(new)) => {
                    SetMembers::Net(old.updated(gone, new))
                }
                (Some(SetMembers::IpPort(old)), SetMembers::IpPort(gone), SetMembers::IpPort(new)) => {
                    SetMembers::IpPort(old.updated(gone, new))
                }
                (_, _, new) => new.clone(),
            };
            (SetId(*id), set(members))
        }
    }
}

/// Every address at which something begins or ends, and those beside.
fn edges() -> Vec<Addr> {
    let v4 = (0u32..64).flat_map(|bits| [bits << 26, (bits << 26).wrapping_sub(1), (bits << 26) + 1]);
    let v6 = (0u128..64).flat_map(|bits| [bits << 122, (bits << 122).wrapping_sub(1), (bits << 122) + 1]);
    v4.map(|bits| Addr::v4(bits.to_be_bytes())).chain(v6.map(Addr::from_bits)).collect()
}

fn says_what_the_members_say(table: &SetTable, sets: &[Option<Arc<IpSet>>]) -> Result<(), TestCaseError> {
    let ids = || (0..sets.len() as u32).map(SetId);
    for addr in edges() {
        let expected: Vec<_> = ids().filter(|id| reference::holds(table, *id, addr)).collect();
        prop_assert_eq!(table.of_address(addr), &expected[..], "{}", addr);
        for (proto, port) in [(Proto::TCP, 80), (Proto::UDP, 82)] {
            let holds = |id: &SetId| match table.get(*id).map(|set| &set.members) {
                Some(SetMembers::IpPort(of)) => of.contains(&PortMember { addr, proto, port }),
                _ => false,
            };
            let expected: Vec<_> = ids().filter(holds).collect();
            prop_assert_eq!(table.of_port(addr, proto, port), &expected[..], "{}:{}", addr, port);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(seeded(192))]

    #[test]
    fn every_version_says_what_the_members_say(steps in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..12)) {
        let mut sets: Vec<Option<Arc<IpSet>>> = vec![None; 12];
        let mut table = SetTable::keyed(5);
        for steps in steps {
            let mut changes = vec![];
            for step in &steps {
                let change = stepped(&sets, step);
                sets[change.0.0 as usize] = change.1.clone();
                changes.push(change);
            }
            table = table.updated(changes).unwrap();
            for (id, expected) in (0u32..).zip(&sets) {
                prop_assert_eq!(table.get(SetId(id)), expected.as_ref());
            }
            prop_assert_eq!(table.len(), sets.iter().flatten().count());
            says_what_the_members_say(&table, &sets)?;
            // From nothing it comes out the same, down to how often a class is referred to.
            let anew = SetTable::new(sets.clone()).unwrap();
            prop_assert_eq!(table.classes.uses(), anew.classes.uses());
            prop_assert_eq!(table.v4.shape(&table.classes), anew.v4.shape(&anew.classes));
            prop_assert_eq!(table.v6.shape(&table.classes), anew.v6.shape(&anew.classes));
            table.classes.check();
        }
        let empty = table.updated((0..12).map(|id| (SetId(id), None))).unwrap();
        prop_assert!(empty.is_empty() && empty.classes() == 0);
        empty.classes.check();
    }
}
