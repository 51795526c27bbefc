//! What a set holds, in a form that changes a little at a time.

use crate::net::{Addr, Difference, Prefix, Proto, SharedMap};

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

/// Members of one type, sorted, each once. Versions share what they have in common: a clone is
/// cheap, and a change costs what it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members<T>(SharedMap<T, ()>);

/// What a set holds; both families may occur in one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetMembers {
    /// Addresses.
    Ip(Members<Addr>),
    /// Address blocks.
    Net(Members<Prefix>),
    /// Addresses with protocol and port.
    IpPort(Members<PortMember>),
}

impl SetMembers {
    /// Number of members.
    pub fn len(&self) -> usize {
        match self {
            Self::Ip(members) => members.len(),
            Self::Net(members) => members.len(),
            Self::IpPort(members) => members.len(),
        }
    }

    /// No member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self(SharedMap::default())
    }
}

impl<T: Ord + Clone> Members<T> {
    /// Number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `member` is one of them.
    pub fn contains(&self, member: &T) -> bool {
        self.0.contains_key(member)
    }

    /// Every member, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.keys()
    }

    /// These without `removed`, and with `added`, which wins where both name a member.
    pub fn updated(&self, removed: &Self, added: &Self) -> Self {
        let gone =
            removed.iter().filter(|member| !added.contains(member)).map(|member| (member.clone(), None));
        let new = added.iter().map(|member| (member.clone(), Some(())));
        let mut changes: Vec<_> = gone.chain(new).collect();
        changes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut members = self.0.clone();
        members.apply(&changes);
        Self(members)
    }

    /// Each member that only one of `old` and these has, ascending, and whether it is these.
    pub(super) fn since<'a>(&'a self, old: &'a Self) -> impl Iterator<Item = (&'a T, bool)> {
        self.0.since(&old.0).into_iter().map(|Difference { key, new, .. }| (key, new.is_some()))
    }
}

impl<T: Ord + Clone> FromIterator<T> for Members<T> {
    fn from_iter<I: IntoIterator<Item = T>>(members: I) -> Self {
        Self(members.into_iter().map(|member| (member, ())).collect())
    }
}

impl<T: Ord + Clone> From<Vec<T>> for Members<T> {
    /// Members may be repeated and in any order.
    fn from(members: Vec<T>) -> Self {
        members.into_iter().collect()
    }
}
