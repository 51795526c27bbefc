//! Any succession of changes of IP sets: what the table says of an address, and of a port, is what sets
//! of members one by one say.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use margay_dataplane::net::{Addr, Prefix, Proto};
use margay_dataplane::policy::{IpSet, PortMember, SetId, SetMembers, SetTable};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Numbers of sets.
const SETS: usize = 12;

#[derive(Arbitrary, Debug)]
struct Input {
    /// What happens at once, again and again.
    rounds: Vec<Vec<Step>>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// The set is there from now on, or another one.
    Whole {
        set: u8,
        kind: u8,
        members: Vec<Member>,
    },
    Delta {
        set: u8,
        gone: Vec<Member>,
        new: Vec<Member>,
    },
    Remove {
        set: u8,
    },
}

/// Read as a set of its kind would have it.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Member {
    v6: bool,
    near: u8,
    step: i8,
    /// A prefix length, or a port.
    more: u8,
}

/// A set, member by member.
#[derive(Clone, Debug)]
enum Slow {
    Ip(BTreeSet<Addr>),
    Net(BTreeSet<Prefix>),
    IpPort(BTreeSet<PortMember>),
}

fuzz_target!(|input: Input| {
    let mut table = SetTable::keyed(7);
    let mut slow: Vec<Option<Slow>> = vec![None; SETS];
    let mut met: Vec<Member> = vec![];
    for round in input.rounds.iter().take(16) {
        let mut touched = BTreeSet::new();
        // As they are changed, with what they share with what was before.
        let mut sets: Vec<Option<Arc<IpSet>>> =
            (0..SETS as u32).map(|id| table.get(SetId(id)).cloned()).collect();
        for step in round.iter().take(16) {
            let (Step::Whole { set, .. } | Step::Delta { set, .. } | Step::Remove { set }) = step;
            let set = usize::from(*set) % SETS;
            touched.insert(set);
            match step {
                Step::Whole { kind, members, .. } => {
                    met.extend(members);
                    slow[set] = Some(Slow::new(*kind, members));
                    sets[set] = slow[set].as_ref().map(|slow| named(slow.members()));
                }
                Step::Delta { gone, new, .. } => {
                    met.extend(new.iter().chain(gone));
                    let (Some(of), Some(old)) = (&mut slow[set], &sets[set]) else { continue };
                    of.change(gone, new);
                    sets[set] = Some(named(changed(&old.members, gone, new)));
                }
                Step::Remove { .. } => (slow[set], sets[set]) = (None, None),
            }
        }
        let changes = touched.iter().map(|set| (SetId(*set as u32), sets[*set].clone()));
        table = table.updated(changes).expect("sets of this size make a table");
        met.truncate(256);
        agree(&table, &slow, &met);
    }
    // Nothing of the way there is left.
    let whole = slow.iter().map(|slow| slow.as_ref().map(|slow| named(slow.members()))).collect();
    let anew = SetTable::new(whole).expect("sets of this size make a table");
    assert_eq!((table.len(), table.classes()), (anew.len(), anew.classes()), "{slow:?}");
    agree(&anew, &slow, &met);
});

/// Looks at every member that was met, and at its neighbours.
fn agree(table: &SetTable, slow: &[Option<Slow>], met: &[Member]) {
    for member in met {
        for step in [0, 1, -1] {
            let near = Member { step: member.step.wrapping_add(step), ..*member };
            let addr = address(near);
            let holds = |of: &Slow| match of {
                Slow::Ip(members) => members.contains(&addr),
                Slow::Net(members) => members.iter().any(|net| net.contains(addr)),
                Slow::IpPort(_) => false,
            };
            assert_eq!(table.of_address(addr), ids(slow, holds), "{addr} of {slow:?}");
            let PortMember { addr, proto, port } = port_member(near);
            let holds = |of: &Slow| match of {
                Slow::IpPort(members) => members.contains(&port_member(near)),
                Slow::Ip(_) | Slow::Net(_) => false,
            };
            assert_eq!(table.of_port(addr, proto, port), ids(slow, holds), "{addr} {port} of {slow:?}");
        }
    }
}

fn ids(slow: &[Option<Slow>], holds: impl Fn(&Slow) -> bool) -> Vec<SetId> {
    let held = (0..).map(SetId).zip(slow).filter(|(_, of)| of.as_ref().is_some_and(&holds));
    held.map(|(id, _)| id).collect()
}

impl Slow {
    fn new(kind: u8, members: &[Member]) -> Self {
        let mut of = match kind % 3 {
            0 => Self::Ip(BTreeSet::new()),
            1 => Self::Net(BTreeSet::new()),
            _ => Self::IpPort(BTreeSet::new()),
        };
        of.change(&[], members);
        of
    }

    /// What is both gone and new is there.
    fn change(&mut self, gone: &[Member], new: &[Member]) {
        for (members, there) in [(gone, false), (new, true)] {
            for member in members {
                match self {
                    Self::Ip(of) => change(of, address(*member), there),
                    Self::Net(of) => change(of, block(*member), there),
                    Self::IpPort(of) => change(of, port_member(*member), there),
                }
            }
        }
    }

    fn members(&self) -> SetMembers {
        match self {
            Self::Ip(of) => SetMembers::Ip(of.iter().copied().collect()),
            Self::Net(of) => SetMembers::Net(of.iter().copied().collect()),
            Self::IpPort(of) => SetMembers::IpPort(of.iter().copied().collect()),
        }
    }
}

fn change<T: Ord>(of: &mut BTreeSet<T>, member: T, there: bool) {
    if there {
        of.insert(member);
    } else {
        of.remove(&member);
    }
}

/// The delta, as the dataplane applies it.
fn changed(old: &SetMembers, gone: &[Member], new: &[Member]) -> SetMembers {
    match old {
        SetMembers::Ip(of) => {
            let all = |members: &[Member]| members.iter().copied().map(address).collect();
            SetMembers::Ip(of.updated(&all(gone), &all(new)))
        }
        SetMembers::Net(of) => {
            let all = |members: &[Member]| members.iter().copied().map(block).collect();
            SetMembers::Net(of.updated(&all(gone), &all(new)))
        }
        SetMembers::IpPort(of) => {
            let all = |members: &[Member]| members.iter().copied().map(port_member).collect();
            SetMembers::IpPort(of.updated(&all(gone), &all(new)))
        }
    }
}

fn named(members: SetMembers) -> Arc<IpSet> {
    Arc::new(IpSet { name: "s".into(), members })
}

fn address(member: Member) -> Addr {
    let near = usize::from(member.near);
    if member.v6 {
        let bits = [0xfd << 120, 0xfd << 120 | 0x80, 0xfd00_0001 << 96, u128::MAX][near % 4];
        Addr::from_bits(u128::wrapping_add_signed(bits, member.step.into()))
    } else {
        let bits = [0x0a00_0000, 0x0a00_0080, 0x0a40_0000, 0xffff_ffff][near % 4];
        Addr::v4(u32::wrapping_add_signed(bits, member.step.into()).to_be_bytes())
    }
}

fn block(member: Member) -> Prefix {
    let len = if member.v6 { [0, 8, 32, 64, 120, 127, 128] } else { [0, 8, 12, 24, 25, 30, 32] }
        [usize::from(member.more) % 7];
    Prefix::truncate(address(member), len)
}

fn port_member(member: Member) -> PortMember {
    let proto = [Proto::TCP, Proto::UDP, Proto::SCTP][usize::from(member.more) % 3];
    let port = [0, 53, 80, 65535][usize::from(member.more / 4) % 4];
    PortMember { addr: address(member), proto, port }
}
