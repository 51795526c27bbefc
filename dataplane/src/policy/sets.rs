//! IP sets, turned inside out: one lookup says which of them hold an address.
//!
//! Addresses that are members of the same sets form a class; a class is a sorted list of set
//! ids. Trees ask a packet's classes, never the members, so a change of members rebuilds this
//! table and touches no tree. Sets of (address, protocol, port) have classes of their own.

use super::{IpVersion, SetId};
use crate::net::{Addr, Prefix, Proto};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Memberships one table holds at most, summed over its classes (1 GiB of ids).
const MAX_CLASS_IDS: usize = 1 << 28;

/// An address with a protocol and a port: a named port of a workload, a backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMember {
    /// The address.
    pub addr: Addr,
    /// One that has ports.
    pub proto: Proto,
    /// The port.
    pub port: u16,
}

/// What a set holds; both families may occur in one set, and a member may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetMembers {
    /// Addresses.
    Ip(Vec<Addr>),
    /// Address blocks.
    Net(Vec<Prefix>),
    /// Addresses with protocol and port.
    IpPort(Vec<PortMember>),
}

/// What a set can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetKind {
    /// Is an address a member?
    Address,
    /// Are an address, a protocol and a port together a member?
    AddressAndPort,
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpSet {
    /// As in `s:abc`, for people.
    pub name: Arc<str>,
    /// What it holds.
    pub members: SetMembers,
}

impl IpSet {
    /// What the set can be asked.
    pub const fn kind(&self) -> SetKind {
        match self.members {
            SetMembers::Ip(_) | SetMembers::Net(_) => SetKind::Address,
            SetMembers::IpPort(_) => SetKind::AddressAndPort,
        }
    }
}

/// Why sets do not make a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Too many addresses are in too many sets each.
    #[error(
        "the IP sets overlap in more than {limit} memberships; select fewer addresses by so many sets at once"
    )]
    TooLarge {
        /// The most a table holds.
        limit: usize,
    },
}

/// The sets of a node, by id, with the classes their members fall into.
#[derive(Debug)]
pub struct SetTable {
    sets: Vec<Option<Arc<IpSet>>>,
    classes: Classes,
    hosts: HashMap<Addr, ClassId, ahash::RandomState>,
    nets4: Intervals,
    nets6: Intervals,
    ports: HashMap<PortMember, ClassId, ahash::RandomState>,
}

impl Default for SetTable {
    /// No sets.
    fn default() -> Self {
        let (nets4, nets6) = (Intervals::default(), Intervals::default());
        Self { sets: Vec::new(), classes: Classes::default(), hosts: keyed(), nets4, nets6, ports: keyed() }
    }
}

impl SetTable {
    /// A table of `sets`, each at the index that is its [`SetId`]; ids not in use are `None`.
    pub fn new(sets: Vec<Option<Arc<IpSet>>>) -> Result<Self, SetError> {
        let mut hosts: BTreeMap<Addr, Vec<SetId>> = BTreeMap::new();
        let mut nets: BTreeMap<Prefix, Vec<SetId>> = BTreeMap::new();
        let mut ports: BTreeMap<PortMember, Vec<SetId>> = BTreeMap::new();
        for (index, set) in sets.iter().enumerate() {
            let Some(set) = set else { continue };
            let id = SetId(index as u32);
            match &set.members {
                SetMembers::Ip(members) => {
                    members.iter().for_each(|addr| hosts.entry(*addr).or_default().push(id));
                }
                SetMembers::Net(members) => members.iter().for_each(|net| {
                    if *net == Prefix::host(net.addr()) {
                        hosts.entry(net.addr()).or_default().push(id);
                    } else {
                        nets.entry(*net).or_default().push(id);
                    }
                }),
                SetMembers::IpPort(members) => {
                    members.iter().for_each(|member| ports.entry(*member).or_default().push(id));
                }
            }
        }
        let mut table = Self { sets, ..Self::default() };
        let mut pool = ClassPool::default();
        table.nets4 = Intervals::new(nets.iter().filter(|(net, _)| net.is_v4()), &mut pool)?;
        table.nets6 = Intervals::new(nets.iter().filter(|(net, _)| !net.is_v4()), &mut pool)?;
        for (addr, ids) in hosts {
            let around = pool.classes.ids(table.nets(addr).class_of(addr)).to_vec();
            let class = pool.class_of(around.into_iter().chain(ids).collect())?;
            table.hosts.insert(addr, class);
        }
        for (member, ids) in ports {
            let class = pool.class_of(ids)?;
            table.ports.insert(member, class);
        }
        table.classes = pool.classes;
        Ok(table)
    }

    /// Every set, each at the index that is its [`SetId`].
    pub fn all(&self) -> &[Option<Arc<IpSet>>] {
        &self.sets
    }

    /// The set `id` stands for.
    pub fn get(&self, id: SetId) -> Option<&IpSet> {
        self.sets.get(id.0 as usize)?.as_deref()
    }

    /// The set's name, or its number where it has gone.
    pub fn name(&self, id: SetId) -> String {
        self.get(id).map_or_else(|| format!("#{}", id.0), |set| set.name.to_string())
    }

    /// Number of sets.
    pub fn len(&self) -> usize {
        self.sets.iter().flatten().count()
    }

    /// No set at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sets of addresses that hold `addr`, ascending.
    #[inline]
    pub fn of_address(&self, addr: Addr) -> &[SetId] {
        let class = self.hosts.get(&addr).copied().unwrap_or_else(|| self.nets(addr).class_of(addr));
        self.classes.ids(class)
    }

    /// The sets of (address, protocol, port) that hold this one, ascending.
    #[inline]
    pub fn of_port(&self, addr: Addr, proto: Proto, port: u16) -> &[SetId] {
        match self.ports.get(&PortMember { addr, proto, port }) {
            Some(class) if proto.has_ports() => self.classes.ids(*class),
            _ => &[],
        }
    }

    #[inline]
    fn nets(&self, addr: Addr) -> &Intervals {
        match IpVersion::of(addr) {
            IpVersion::V4 => &self.nets4,
            IpVersion::V6 => &self.nets6,
        }
    }
}

/// Fixed seeds: the keys come from the control plane, and a table must not depend on chance.
fn keyed<K>() -> HashMap<K, ClassId, ahash::RandomState> {
    HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClassId(u32);

const NO_SETS: ClassId = ClassId(0);

/// Sorted set ids by class. Class 0 is in no set.
#[derive(Debug)]
struct Classes {
    /// Where each class's ids begin; one more entry than there are classes.
    starts: Vec<u32>,
    ids: Vec<SetId>,
}

impl Default for Classes {
    fn default() -> Self {
        Self { starts: vec![0, 0], ids: Vec::new() }
    }
}

impl Classes {
    #[inline]
    fn ids(&self, class: ClassId) -> &[SetId] {
        let class = class.0 as usize;
        &self.ids[self.starts[class] as usize..self.starts[class + 1] as usize]
    }
}

/// Gives equal lists of ids the same class.
#[derive(Default)]
struct ClassPool {
    classes: Classes,
    known: BTreeMap<Vec<SetId>, ClassId>,
}

impl ClassPool {
    fn class_of(&mut self, mut ids: Vec<SetId>) -> Result<ClassId, SetError> {
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(NO_SETS);
        }
        if let Some(class) = self.known.get(&ids) {
            return Ok(*class);
        }
        if self.classes.ids.len() + ids.len() > MAX_CLASS_IDS {
            return Err(SetError::TooLarge { limit: MAX_CLASS_IDS });
        }
        let class = ClassId(self.classes.starts.len() as u32 - 1);
        self.classes.ids.extend_from_slice(&ids);
        self.classes.starts.push(self.classes.ids.len() as u32);
        self.known.insert(ids, class);
        Ok(class)
    }
}

/// The address space of one family cut at the edges of blocks, each piece with its class.
#[derive(Debug, Default)]
struct Intervals {
    /// First address of each piece, ascending. What lies before the first is in no set.
    starts: Vec<Addr>,
    classes: Vec<ClassId>,
}

impl Intervals {
    /// From blocks in ascending order, a block before those inside it.
    fn new<'a>(
        nets: impl Iterator<Item = (&'a Prefix, &'a Vec<SetId>)>,
        pool: &mut ClassPool,
    ) -> Result<Self, SetError> {
        let mut cut = Self::default();
        // The blocks around the current address, outermost first, with the sets each is in.
        let mut open: Vec<(Prefix, Vec<SetId>)> = Vec::new();
        for (net, ids) in nets {
            cut.close(&mut open, Some(*net), pool)?;
            let mut ids = ids.clone();
            if let Some((_, around)) = open.last() {
                ids.extend_from_slice(around);
                ids.sort_unstable();
                ids.dedup();
            }
            cut.piece(net.addr(), pool.class_of(ids.clone())?);
            open.push((*net, ids));
        }
        cut.close(&mut open, None, pool)?;
        Ok(cut)
    }

    /// Ends the blocks that do not hold `next`.
    fn close(
        &mut self,
        open: &mut Vec<(Prefix, Vec<SetId>)>,
        next: Option<Prefix>,
        pool: &mut ClassPool,
    ) -> Result<(), SetError> {
        while let Some((net, _)) = open.last() {
            if next.is_some_and(|next| net.covers(next)) {
                break;
            }
            let last = net.last();
            open.pop();
            let class = match open.last() {
                Some((_, around)) => pool.class_of(around.clone())?,
                None => NO_SETS,
            };
            if let Some(after) = last.bits().checked_add(1) {
                self.piece(Addr::from_bits(after), class);
            }
        }
        Ok(())
    }

    /// From `start` on the class is `class`.
    fn piece(&mut self, start: Addr, class: ClassId) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.classes.pop();
        }
        if self.classes.last().copied().unwrap_or(NO_SETS) != class {
            self.starts.push(start);
            self.classes.push(class);
        }
    }

    #[inline]
    fn class_of(&self, addr: Addr) -> ClassId {
        match self.starts.partition_point(|start| *start <= addr) {
            0 => NO_SETS,
            n => self.classes[n - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::reference;
    use proptest::prelude::*;

    fn set(members: SetMembers) -> Option<Arc<IpSet>> {
        Some(Arc::new(IpSet { name: "s".into(), members }))
    }

    fn nets(texts: &[&str]) -> SetMembers {
        SetMembers::Net(texts.iter().map(|t| t.parse().unwrap()).collect())
    }

    #[test]
    fn an_address_is_in_every_block_around_it() {
        let table = SetTable::new(vec![
            set(nets(&["0.0.0.0/0"])),
            set(nets(&["10.0.0.0/8", "10.0.0.0/8", "10.1.2.3/32"])),
            None,
            set(nets(&["10.1.0.0/16", "::/0"])),
            set(SetMembers::Ip(vec!["10.1.2.3".parse().unwrap()])),
        ])
        .unwrap();
        let of = |a: &str| table.of_address(a.parse().unwrap()).iter().map(|id| id.0).collect::<Vec<_>>();
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
        let member = PortMember { addr: "10.0.0.1".parse().unwrap(), proto: Proto::TCP, port: 80 };
        let table = SetTable::new(vec![set(SetMembers::IpPort(vec![member]))]).unwrap();
        assert_eq!(table.of_port(member.addr, Proto::TCP, 80), [SetId(0)]);
        assert!(table.of_port(member.addr, Proto::UDP, 80).is_empty());
        assert!(table.of_port(member.addr, Proto::TCP, 81).is_empty());
        assert!(table.of_address(member.addr).is_empty());
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        // Few bits and all lengths, so that blocks nest and touch each other.
        (any::<bool>(), 0u32..64, 0u8..=6, any::<bool>()).prop_map(|(v6, bits, len, wide)| {
            let (addr, max) = if v6 {
                (Addr::from_bits(u128::from(bits) << 122), 128)
            } else {
                (Addr::v4((bits << 26).to_be_bytes()), 32)
            };
            Prefix::truncate(addr, if wide { len } else { max - 6 + len })
        })
    }

    proptest! {
        #![proptest_config(crate::policy::tests::generate::seeded(256))]

        #[test]
        fn classes_say_what_the_members_say(
            members in prop::collection::vec(prop::collection::vec(prefix(), 0..6), 0..8),
        ) {
            let sets: Vec<_> = members.iter().map(|m| set(SetMembers::Net(m.clone()))).collect();
            let edges = members.iter().flatten().flat_map(|net| {
                let (first, last) = (net.addr().bits(), net.last().bits());
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(Addr::from_bits)
            });
            let table = SetTable::new(sets).unwrap();
            for addr in edges.collect::<Vec<_>>() {
                let expected: Vec<_> =
                    (0..members.len() as u32).map(SetId).filter(|id| reference::holds(&table, *id, addr)).collect();
                prop_assert_eq!(table.of_address(addr), &expected[..], "{}", addr);
            }
        }
    }
}
