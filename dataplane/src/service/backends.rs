//! A set of backends, one of whom a hash picks.

use super::hash;
use super::maglev::{Member, Table, place};
use crate::net::Addr;
use std::sync::OnceLock;

/// Where a service's packets may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address.
    pub addr: Addr,
    /// Its port.
    pub port: u16,
    /// It is on this node.
    pub local: bool,
    /// Of the flows, in proportion to the others'; above zero.
    pub weight: u32,
    /// Its own among the backends of its port for as long as it stays one: by it clients are
    /// remembered.
    pub number: u32,
}

impl Backend {
    /// What it is known by.
    pub const fn socket(&self) -> (Addr, u16) {
        (self.addr, self.port)
    }
}

/// Backends, and how one is picked.
#[derive(Debug)]
pub struct Backends {
    /// By address and port, each once: the table follows from it.
    list: Box<[Backend]>,
    /// Numbers and places in the list, ascending; empty where nobody asks.
    numbers: Box<[(u32, u32)]>,
    /// Until it is there, a hash picks without it. `None` inside: there is nothing to choose
    /// between.
    table: OnceLock<Option<Table>>,
}

impl Backends {
    /// The set of `backends`, without its table. `numbered`: [`Backends::numbered`] will be asked.
    pub fn new(mut backends: Vec<Backend>, numbered: bool) -> Self {
        backends.sort_unstable_by_key(Backend::socket);
        backends.dedup_by_key(|backend| backend.socket());
        backends.truncate(Table::MAX_MEMBERS);
        let mut numbers = vec![];
        if numbered {
            numbers = (0..).zip(&backends).map(|(at, backend)| (backend.number, at)).collect();
            numbers.sort_unstable();
        }
        let table = OnceLock::new();
        if backends.len() < 2 {
            // Still empty: nobody else has it.
            let _ = table.set(None);
        }
        Self { list: backends.into(), numbers: numbers.into(), table }
    }

    /// Makes the table, if it is not there. It takes effect at once, for whoever holds the set.
    pub fn build(&self) {
        self.table.get_or_init(|| Table::new(&self.members()));
    }

    /// The table is there, or none is needed.
    pub fn is_built(&self) -> bool {
        self.table.get().is_some()
    }

    /// Places of the table: what it costs to build it.
    pub fn size(&self) -> u32 {
        Table::size(&self.members())
    }

    /// Memory of the table, if it is there.
    pub fn bytes(&self) -> usize {
        self.table.get().and_then(Option::as_ref).map_or(0, Table::bytes)
    }

    /// All, by address and port.
    pub fn list(&self) -> &[Backend] {
        &self.list
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The backend that `hash` falls to.
    #[inline]
    pub fn pick(&self, hash: u64) -> Option<&Backend> {
        match self.table.get() {
            Some(Some(table)) => self.list.get(table.pick(hash)),
            Some(None) => self.list.first(),
            // Its table is still being made. Evenly, whatever the weights.
            None => self.list.get(place(hash, self.list.len())),
        }
    }

    /// The backend of this number, of a set that was made to be asked.
    #[inline]
    pub fn numbered(&self, number: u32) -> Option<&Backend> {
        let at = self.numbers.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.list.get(self.numbers[at].1 as usize)
    }

    /// The backend of this address and port.
    pub fn get(&self, socket: (Addr, u16)) -> Option<&Backend> {
        let at = self.list.binary_search_by_key(&socket, Backend::socket).ok()?;
        self.list.get(at)
    }

    fn members(&self) -> Vec<Member> {
        let member = |backend: &Backend| Member {
            identity: hash::of_addr(backend.addr, u64::from(backend.port)),
            weight: backend.weight,
        };
        self.list.iter().map(member).collect()
    }
}

impl PartialEq for Backends {
    /// The same backends: the table follows from them.
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list && self.numbers.len() == other.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ports: impl IntoIterator<Item = u16>) -> Backends {
        let addr = Addr::v4([10, 0, 0, 1]);
        let backend = |port| Backend { addr, port, local: false, weight: 1, number: u32::from(port) + 7 };
        Backends::new(ports.into_iter().map(backend).collect(), true)
    }

    #[test]
    fn with_and_without_its_table_all_are_picked() {
        let set = set(1..=20);
        for _ in 0..2 {
            let mut picked = [0; 20];
            for n in 0..20_000u64 {
                let hash = hash::mix(n, 1);
                picked[usize::from(set.pick(hash).unwrap().port) - 1] += 1;
            }
            assert!(picked.iter().all(|n| (850..1150).contains(n)), "{picked:?}");
            assert_eq!(set.bytes() > 0, set.is_built());
            set.build();
        }
    }

    #[test]
    fn none_and_one_need_no_table() {
        assert!(set([]).is_built() && set([]).pick(1).is_none() && set([]).is_empty());
        assert!(set([9]).is_built());
        assert_eq!(set([9]).pick(u64::MAX).unwrap().port, 9);
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let (one, other) = (set([3, 1, 2]), set([1, 2, 3, 3]));
        assert_eq!(one, other);
        one.build();
        other.build();
        assert!((0..1000).all(|n| one.pick(n << 54) == other.pick(n << 54)));
        assert_eq!(one.numbered(9).unwrap().port, 2);
        assert!(one.numbered(1).is_none());
        assert_eq!(one.get((Addr::v4([10, 0, 0, 1]), 3)).unwrap().number, 10);
    }
}
