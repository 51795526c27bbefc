//! A block beside its naive twin, and books that are wrong.

use super::*;
use proptest::{collection::vec, prelude::*};

/// The same book-keeping with nothing clever: one entry an address, in a plain list.
struct Twin {
    places: Vec<Place>,
    changes: u64,
}

#[derive(Clone)]
enum Place {
    Given {
        handle: String,
        number: u64,
    },
    /// When it was given back, and the how manieth that was.
    Free {
        back: Option<u64>,
        turn: u64,
    },
}

#[derive(Clone, Debug)]
enum Act {
    Assign { handle: u8, count: usize },
    AssignOne { handle: u8, at: u32 },
    Release { handle: u8 },
    ReleaseAt { at: u32, stale: bool },
    Wait { seconds: u64 },
    Hand { node: Option<u8> },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..4_u8, 0..5_usize).prop_map(|(handle, count)| Act::Assign { handle, count }),
        (0..4_u8, 0..9_u32).prop_map(|(handle, at)| Act::AssignOne { handle, at }),
        (0..4_u8).prop_map(|handle| Act::Release { handle }),
        (0..8_u32, any::<bool>()).prop_map(|(at, stale)| Act::ReleaseAt { at, stale }),
        (0..40_u64).prop_map(|seconds| Act::Wait { seconds }),
        proptest::option::of(0..3_u8).prop_map(|node| Act::Hand { node }),
    ]
}

const REST: u64 = 30;

fn cidr() -> Cidr {
    "10.0.0.8/29".parse().unwrap()
}

fn reserved(addr: IpAddr) -> bool {
    addr == address(cidr(), 3)
}

impl Twin {
    fn free(&self, now: u64) -> Vec<u32> {
        let mut free: Vec<(u64, u32)> = (0..)
            .zip(&self.places)
            .filter_map(|(at, place)| match place {
                Place::Free { back, turn } if back.is_none_or(|back| now - back >= REST) => Some((*turn, at)),
                _ => None,
            })
            .collect();
        free.sort();
        free.into_iter().map(|(_, at)| at).filter(|at| !reserved(address(cidr(), *at))).collect()
    }

    fn give(&mut self, chosen: &[u32], handle: &str) {
        self.changes += u64::from(!chosen.is_empty());
        for at in chosen {
            self.places[*at as usize] = Place::Given { handle: handle.into(), number: self.changes };
        }
    }

    fn release(&mut self, now: u64, turn: &mut u64, over: impl Fn(u32, &str, u64) -> bool) -> Vec<u32> {
        let mut released = Vec::new();
        for (at, place) in (0..).zip(&mut self.places) {
            if let Place::Given { handle, number } = place
                && over(at, handle, *number)
            {
                *turn += 1;
                *place = Place::Free { back: Some(now), turn: *turn };
                released.push(at);
            }
        }
        self.changes += u64::from(!released.is_empty());
        released
    }
}

proptest! {
    #[test]
    fn a_block_and_its_naive_twin_agree(acts in vec(act(), 0..80)) {
        let mut now = 1_000_000;
        let mut turn = 8;
        let time = Timestamp::from_unix;
        let mut block = Block::claim(cidr(), "a", false, time(now));
        let first = block.sequence();
        let places = (0..8).map(|turn| Place::Free { back: None, turn }).collect();
        let mut twin = Twin { places, changes: 0 };
        let mut node = Some("a".to_owned());
        for act in acts {
            let owner = |handle: u8| Arc::new(Owner { handle: format!("h{handle}"), ..Owner::default() });
            let at = |addr: IpAddr| ordinal(cidr(), addr).unwrap();
            match act {
                Act::Assign { handle, count } => {
                    let given = block.assign(count, &owner(handle), time(now), REST, |addr| !reserved(addr));
                    let chosen: Vec<u32> = twin.free(now).into_iter().take(count).collect();
                    prop_assert_eq!(given.into_iter().map(at).collect::<Vec<_>>(), chosen.clone());
                    twin.give(&chosen, &format!("h{handle}"));
                }
                Act::AssignOne { handle, at } => {
                    // One beyond the end, too.
                    let addr = IpAddr::V4((0x0a00_0008 + at).into());
                    let given = block.assign_one(addr, &owner(handle), time(now), REST);
                    match twin.places.get(at as usize) {
                        None => prop_assert_eq!(given, Err(Denied::Outside)),
                        Some(Place::Given { handle, .. }) => {
                            let Err(Denied::Taken(by)) = given else { panic!("{given:?}") };
                            prop_assert_eq!(&by.handle, handle);
                        }
                        Some(Place::Free { .. }) => {
                            prop_assert_eq!(given, Ok(()));
                            twin.give(&[at], &format!("h{handle}"));
                        }
                    }
                }
                Act::Release { handle } => {
                    let handle = format!("h{handle}");
                    let released = block.release(time(now), REST, |_, given| given.owner.handle == handle);
                    let expected = twin.release(now, &mut turn, |_, of, _| of == handle);
                    prop_assert_eq!(released.into_iter().map(at).collect::<Vec<_>>(), expected);
                }
                Act::ReleaseAt { at: place, stale } => {
                    let sequence = block.given.get(&place).map_or(0, |given| given.sequence) + u64::from(stale);
                    let released = block.release(time(now), REST, |addr, given| {
                        at(addr) == place && given.sequence == sequence
                    });
                    let number = sequence - if sequence > first { first } else { 0 };
                    let expected = twin.release(now, &mut turn, |at, _, of| at == place && of == number);
                    prop_assert_eq!(released.into_iter().map(at).collect::<Vec<_>>(), expected);
                }
                Act::Wait { seconds } => now += seconds,
                Act::Hand { node: to } => {
                    node = to.map(|to| format!("n{to}"));
                    block.hand_to(node.as_deref(), time(now));
                    twin.changes += 1;
                }
            }
            prop_assert_eq!(block.node(), node.as_deref());
            prop_assert_eq!(block.sequence() - first, twin.changes);
            prop_assert_eq!(block.given.len() + block.free.len(), 8);
            let written = Block::parse(&block.to_object());
            prop_assert_eq!(written.as_ref(), Ok(&block), "what is stored is what is read");
        }
    }
}

#[test]
fn books_that_are_wrong_are_not_read() {
    let owner = Arc::new(Owner { handle: "h".into(), ..Owner::default() });
    let mut block = Block::claim(cidr(), "a", false, Timestamp::from_unix(5));
    block.assign(2, &owner, Timestamp::from_unix(5), 0, |_| true);
    let wrong = |change: fn(&mut IpamBlockSpec)| {
        let mut object = block.to_object();
        change(&mut object.spec);
        Block::parse(&object).unwrap_err()
    };
    assert!(wrong(|spec| spec.allocations.truncate(7)).contains("7 places for 8 addresses"));
    assert!(wrong(|spec| spec.allocations[0] = Some(7)).contains("none of the 1 attributes"));
    assert!(wrong(|spec| spec.allocations[0] = None).contains("0 is neither given nor free"));
    assert!(wrong(|spec| spec.unallocated.push(0)).contains("0 is given"));
    assert!(wrong(|spec| spec.unallocated.push(2)).contains("named twice"));
    assert!(wrong(|spec| spec.unallocated.push(8)).contains("outside"));
    let rests = |at: &str| [(at.to_owned(), Timestamp::from_unix(1))].into();
    let mut object = block.to_object();
    for at in ["0", "8", "x"] {
        object.spec.released_at = rests(at);
        assert!(Block::parse(&object).unwrap_err().contains("is no free address"), "{at}");
    }
    object.spec.released_at = rests("7");
    assert!(Block::parse(&object).is_ok());
    object.spec.cidr = "10.0.0.0/8".parse().unwrap();
    assert!(Block::parse(&object).unwrap_err().contains("larger than any block"));
}

#[test]
fn a_name_tells_the_prefix() {
    for (text, called) in [
        ("10.65.0.64/26", "10-65-0-64-26"),
        ("fd00:1::40/122", "fd00-1--40-122"),
        ("::/122", "0---122"),
        ("::1:0/116", "0--1-0-116"),
        ("1:2:3:4:5:6:7:8/128", "1-2-3-4-5-6-7-8-128"),
        ("1:2::/122", "1-2---122"),
    ] {
        let cidr: Cidr = text.parse().unwrap();
        assert_eq!(name(cidr), called);
        assert_eq!(prefix(called), Some(cidr));
    }
    for other in ["", "x", "1-2-3-4", "10-0-0-1-26", "10-0-0-0-33"] {
        assert_eq!(prefix(other), None, "{other}");
    }
}
