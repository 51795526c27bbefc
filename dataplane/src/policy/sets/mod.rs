//! IP sets, turned inside out: one lookup says which of them hold an address.
//!
//! Addresses that are members of the same sets form a class; a class is a sorted list of set
//! ids. Trees ask a packet's classes, never the members, so a change of members changes this
//! table and touches no tree. Sets of (address, protocol, port) have classes of their own.
//!
//! A table is a value: [`SetTable::updated`] makes the next one out of it, which shares with it all
//! that the change does not concern, and costs in proportion to the change.

mod buckets;
mod class;
mod family;
mod members;
mod paged;

#[cfg(test)]
mod tests;

pub use class::Class;
pub use members::{Members, PortMember, SetMembers};

use super::{IpVersion, SetId};
use crate::net::{Addr, Prefix, Proto};
use buckets::{Buckets, HashKey};
use class::{ClassEdit, Classes};
use family::{Block, Change, Family, Space};
use paged::Paged;
use std::sync::Arc;

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
#[derive(Clone, Debug)]
pub struct SetTable {
    sets: Paged<Option<Arc<IpSet>>, 64>,
    len: usize,
    /// The same in tables that have sets of the same kinds under the same ids.
    shape: Arc<()>,
    classes: Arc<Classes>,
    v4: Family<u32, 8>,
    v6: Family<u128, 3>,
    ports4: Buckets<u64, 5>,
    ports6: Buckets<[u32; 5], 2>,
}

impl Default for SetTable {
    /// No sets, and hashes that everybody can tell: for tables that no stranger's members go into.
    fn default() -> Self {
        Self::keyed(0)
    }
}

impl SetTable {
    /// No sets. Members are hashed under a secret that follows from `seed`.
    pub fn keyed(seed: u64) -> Self {
        let hashes = HashKey::new(seed);
        Self {
            sets: Paged::default(),
            len: 0,
            shape: Arc::new(()),
            classes: Arc::default(),
            v4: Family::new(hashes),
            v6: Family::new(hashes),
            ports4: Buckets::new(hashes),
            ports6: Buckets::new(hashes),
        }
    }

    /// A table of `sets`, each at the index that is its [`SetId`]; ids not in use are `None`.
    pub fn new(sets: Vec<Option<Arc<IpSet>>>) -> Result<Self, SetError> {
        Self::default().updated((0..).map(SetId).zip(sets))
    }

    /// The table after `changes`: what each id stands for from now on. Of sets that were there
    /// before only what differs is looked at.
    pub fn updated(
        &self,
        changes: impl IntoIterator<Item = (SetId, Option<Arc<IpSet>>)>,
    ) -> Result<Self, SetError> {
        let mut next = self.clone();
        let mut members = Changes::default();
        let mut bound = 0;
        for (id, new) in changes {
            let old = next.sets.get(id.0 as usize).cloned().flatten();
            members.note(id, old.as_deref(), new.as_deref());
            if old.is_none() && new.is_none() {
                continue;
            }
            if old.as_deref().map(IpSet::kind) != new.as_deref().map(IpSet::kind) {
                next.shape = Arc::new(());
            }
            bound = bound.max(id.0 + 1);
            next.len = next.len + usize::from(new.is_some()) - usize::from(old.is_some());
            next.sets.set(id.0 as usize, new);
        }
        members.sort();
        let mut classes = Classes::clone(&next.classes);
        classes.number_sets(bound);
        let mut edit = ClassEdit::new(classes);
        next.v4.apply(&members.blocks4, &members.hosts4, &mut edit)?;
        next.v6.apply(&members.blocks6, &members.hosts6, &mut edit)?;
        apply_ports(&mut next.ports4, &members.ports4, &mut edit)?;
        apply_ports(&mut next.ports6, &members.ports6, &mut edit)?;
        next.classes = Arc::new(edit.finish());
        Ok(next)
    }

    /// This and `other` are versions of a table that have sets of the same kinds under the same ids:
    /// what may ask the one may ask the other.
    pub fn answers_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shape, &other.shape)
    }

    /// Every set that is there.
    pub fn iter(&self) -> impl Iterator<Item = (SetId, &Arc<IpSet>)> {
        let each = (0..).map(SetId).zip(self.sets.iter());
        each.filter_map(|(id, set)| Some((id, set.as_ref()?)))
    }

    /// The set `id` stands for.
    pub fn get(&self, id: SetId) -> Option<&Arc<IpSet>> {
        self.sets.get(id.0 as usize)?.as_ref()
    }

    /// The set's name, or its number where it has gone.
    pub fn name(&self, id: SetId) -> String {
        self.get(id).map_or_else(|| format!("#{}", id.0), |set| set.name.to_string())
    }

    /// Number of sets.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// No set at all.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Classes of more than one set.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Bytes of the hash tables, which lookups read.
    pub fn lookup_bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes() + self.ports4.bytes() + self.ports6.bytes()
    }

    /// The sets of addresses that hold `addr`, ascending.
    #[inline]
    pub fn of_address(&self, addr: Addr) -> &[SetId] {
        self.ids(self.class_of_address(addr))
    }

    /// The sets of (address, protocol, port) that hold this one, ascending.
    #[inline]
    pub fn of_port(&self, addr: Addr, proto: Proto, port: u16) -> &[SetId] {
        self.ids(self.class_of_port(addr, proto, port))
    }

    // ---- The same in steps, for callers with many packets: fetch for all, then classes of all,
    // ---- and fetch those, then ids.

    /// Fetches the line that `class_of_address` reads first.
    #[inline]
    pub fn prefetch_address(&self, addr: Addr) {
        match IpVersion::of(addr) {
            IpVersion::V4 => self.v4.prefetch(u32::of(addr)),
            IpVersion::V6 => self.v6.prefetch(u128::of(addr)),
        }
    }

    /// Fetches the line that `class_of_port` reads first.
    #[inline]
    pub fn prefetch_port(&self, addr: Addr, proto: Proto, port: u16) {
        match IpVersion::of(addr) {
            IpVersion::V4 => self.ports4.prefetch(port4(addr, proto, port)),
            IpVersion::V6 => self.ports6.prefetch(port6(addr, proto, port)),
        }
    }

    /// The class of the sets of addresses that hold `addr`.
    #[inline]
    pub fn class_of_address(&self, addr: Addr) -> Class {
        match IpVersion::of(addr) {
            IpVersion::V4 => self.v4.class_of(u32::of(addr)),
            IpVersion::V6 => self.v6.class_of(u128::of(addr)),
        }
    }

    /// The class of the sets of (address, protocol, port) that hold this one.
    #[inline]
    pub fn class_of_port(&self, addr: Addr, proto: Proto, port: u16) -> Class {
        match IpVersion::of(addr) {
            _ if !proto.has_ports() => Class::NONE,
            IpVersion::V4 => self.ports4.get(port4(addr, proto, port)),
            IpVersion::V6 => self.ports6.get(port6(addr, proto, port)),
        }
    }

    /// Fetches what `ids` reads.
    #[inline]
    pub fn prefetch_ids(&self, class: Class) {
        self.classes.prefetch(class);
    }

    /// The sets of a class of this table, ascending.
    #[inline]
    pub fn ids(&self, class: Class) -> &[SetId] {
        self.classes.ids(class)
    }
}

#[inline]
fn port4(addr: Addr, proto: Proto, port: u16) -> u64 {
    u64::from(addr.v4_bits()) << 24 | u64::from(proto.0) << 16 | u64::from(port)
}

#[inline]
fn port6(addr: Addr, proto: Proto, port: u16) -> [u32; 5] {
    let bits = addr.bits();
    let word = |shift: u32| (bits >> shift) as u32;
    [word(96), word(64), word(32), word(0), u32::from(proto.0) << 16 | u32::from(port)]
}

fn apply_ports<K: buckets::Word, const N: usize>(
    ports: &mut Buckets<K, N>,
    changes: &[Change<K>],
    classes: &mut ClassEdit,
) -> Result<(), SetError> {
    for changes in changes.chunk_by(|(a, ..), (b, ..)| a == b) {
        let member = changes[0].0;
        let old = ports.get(member);
        let new = classes.changed(old, changes.iter().map(|(_, set, added)| (*set, *added)))?;
        classes.moved(ports.set(member, new), new);
    }
    Ok(())
}

/// Members that sets gained or lost, by family and kind.
#[derive(Default)]
struct Changes {
    hosts4: Vec<Change<u32>>,
    hosts6: Vec<Change<u128>>,
    blocks4: Vec<Change<Block<u32>>>,
    blocks6: Vec<Change<Block<u128>>>,
    ports4: Vec<Change<u64>>,
    ports6: Vec<Change<[u32; 5]>>,
}

impl Changes {
    /// Notes how the members of a set have changed.
    fn note(&mut self, id: SetId, old: Option<&IpSet>, new: Option<&IpSet>) {
        let (old, new) = (old.map(|set| &set.members), new.map(|set| &set.members));
        match (old, new) {
            (Some(SetMembers::Ip(old)), Some(SetMembers::Ip(new))) => {
                new.since(old).for_each(|(addr, added)| self.host(*addr, id, added));
            }
            (Some(SetMembers::Net(old)), Some(SetMembers::Net(new))) => {
                new.since(old).for_each(|(net, added)| self.net(*net, id, added));
            }
            (Some(SetMembers::IpPort(old)), Some(SetMembers::IpPort(new))) => {
                new.since(old).for_each(|(member, added)| self.port(member, id, added));
            }
            _ => {
                for (members, added) in [(old, false), (new, true)] {
                    match members {
                        Some(SetMembers::Ip(of)) => of.iter().for_each(|addr| self.host(*addr, id, added)),
                        Some(SetMembers::Net(of)) => of.iter().for_each(|net| self.net(*net, id, added)),
                        Some(SetMembers::IpPort(of)) => of.iter().for_each(|port| self.port(port, id, added)),
                        None => {}
                    }
                }
            }
        }
    }

    fn host(&mut self, addr: Addr, id: SetId, added: bool) {
        match IpVersion::of(addr) {
            IpVersion::V4 => self.hosts4.push((u32::of(addr), id, added)),
            IpVersion::V6 => self.hosts6.push((u128::of(addr), id, added)),
        }
    }

    fn net(&mut self, net: Prefix, id: SetId, added: bool) {
        let (addr, len) = (net.addr(), net.len());
        match IpVersion::of(addr) {
            _ if net == Prefix::host(addr) => self.host(addr, id, added),
            IpVersion::V4 => self.blocks4.push(((u32::of(addr), len), id, added)),
            IpVersion::V6 => self.blocks6.push(((u128::of(addr), len), id, added)),
        }
    }

    fn port(&mut self, &PortMember { addr, proto, port }: &PortMember, id: SetId, added: bool) {
        match IpVersion::of(addr) {
            IpVersion::V4 => self.ports4.push((port4(addr, proto, port), id, added)),
            IpVersion::V6 => self.ports6.push((port6(addr, proto, port), id, added)),
        }
    }

    /// By member. What is said of a member and a set stays in the order it was said.
    fn sort(&mut self) {
        fn by_member<M: Ord + Copy>(changes: &mut [Change<M>]) {
            changes.sort_by_key(|(member, ..)| *member);
        }
        by_member(&mut self.hosts4);
        by_member(&mut self.hosts6);
        by_member(&mut self.blocks4);
        by_member(&mut self.blocks6);
        by_member(&mut self.ports4);
        by_member(&mut self.ports6);
    }
}
