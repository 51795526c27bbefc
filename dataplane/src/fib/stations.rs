//! Neighbours as workers see them: each has a number, for as long as somebody needs it.

use super::{Adjacency, Interfaces};
use crate::net::{Addr, IfId, Mac};
use crate::wire::ethernet::{self, Prebuilt};
use ahash::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

type Key = (IfId, Addr);

/// What is at a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Station {
    /// A neighbour that answered.
    Resolved(Adjacency),
    /// One that did not, or the number is nobody's.
    Unresolved {
        /// By this interface.
        tx_if: IfId,
        /// This address.
        addr: Addr,
    },
}

/// Who answered, by interface and address. A clone shares all that does not change after it.
#[derive(Clone)]
pub struct Answered {
    shards: Arc<[Arc<HashMap<Key, u32, RandomState>>; SHARDS]>,
    hasher: RandomState,
}

/// What one neighbour's change copies is this part of the whole.
const SHARDS: usize = 64;

impl Default for Answered {
    fn default() -> Self {
        // Fixed: who fills the table must have answered, and the table is bounded.
        let hasher = RandomState::with_seed(0);
        let shard = Arc::new(HashMap::with_hasher(hasher.clone()));
        Self { shards: Arc::new(std::array::from_fn(|_| shard.clone())), hasher }
    }
}

impl Answered {
    #[inline]
    pub fn get(&self, key: &Key) -> Option<u32> {
        self.shards[self.shard(key)].get(key).copied()
    }

    #[inline]
    fn shard(&self, key: &Key) -> usize {
        (self.hasher.hash_one(key) >> 32) as usize % SHARDS
    }

    fn set(&mut self, key: Key, index: Option<u32>) {
        let shard = self.shard(&key);
        let entries = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]);
        match index {
            Some(index) => drop(entries.insert(key, index)),
            None => drop(entries.remove(&key)),
        }
    }
}

/// All neighbours that are known or needed.
#[derive(Default)]
pub struct Stations {
    by_key: HashMap<Key, Entry>,
    at: Vec<Station>,
    free: Vec<u32>,
    answered: Answered,
}

#[derive(Clone, Copy)]
struct Entry {
    index: u32,
    /// Routes that lead there.
    users: u32,
    mac: Option<Mac>,
}

impl Stations {
    /// Says where a neighbour is, or that it is not known any more.
    pub fn set(&mut self, interfaces: &Interfaces, key: Key, mac: Option<Mac>) {
        if mac.is_none() && !self.by_key.contains_key(&key) {
            return;
        }
        let entry = self.entry(key);
        entry.mac = mac;
        let entry = *entry;
        self.show(interfaces, key, entry);
        self.drop_unneeded(key);
    }

    /// The number of a neighbour that a route leads to, until [`release`](Self::release).
    pub fn acquire(&mut self, interfaces: &Interfaces, key: Key) -> u32 {
        let entry = self.entry(key);
        entry.users += 1;
        let entry = *entry;
        if entry.users == 1 {
            self.show(interfaces, key, entry);
        }
        entry.index
    }

    /// One route less leads there.
    pub fn release(&mut self, key: Key) {
        if let Some(entry) = self.by_key.get_mut(&key) {
            entry.users -= 1;
            self.drop_unneeded(key);
        }
    }

    /// What is known of interfaces has changed.
    pub fn follow(&mut self, interfaces: &Interfaces) {
        let entries: Vec<(Key, Entry)> = self.by_key.iter().map(|(key, entry)| (*key, *entry)).collect();
        for (key, entry) in entries {
            self.show(interfaces, key, entry);
        }
    }

    /// Interface, address, number and users of each.
    pub fn iter(&self) -> impl Iterator<Item = (IfId, Addr, u32, u32)> {
        self.by_key.iter().map(|(key, entry)| (key.0, key.1, entry.index, entry.users))
    }

    /// By number.
    pub fn all(&self) -> &[Station] {
        &self.at
    }

    /// Who answered.
    pub fn answered(&self) -> &Answered {
        &self.answered
    }

    fn entry(&mut self, key: Key) -> &mut Entry {
        let (at, free) = (&mut self.at, &mut self.free);
        self.by_key.entry(key).or_insert_with(|| {
            let nobody = Station::Unresolved { tx_if: key.0, addr: key.1 };
            let index = free.pop().unwrap_or_else(|| {
                at.push(nobody);
                at.len() as u32 - 1
            });
            at[index as usize] = nobody;
            Entry { index, users: 0, mac: None }
        })
    }

    fn show(&mut self, interfaces: &Interfaces, key: Key, entry: Entry) {
        let station = match (interfaces.get(key.0), entry.mac) {
            (Some(interface), Some(mac)) => {
                let kind = if key.1.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
                // Both ends of the host's tap are one address: the kernel takes what is sent to its own.
                let header = Prebuilt::new(mac, interface.source_mac(), interface.vlan, kind);
                Station::Resolved(Adjacency { tx_if: interface.id, mtu: interface.mtu, header })
            }
            _ => Station::Unresolved { tx_if: key.0, addr: key.1 },
        };
        self.at[entry.index as usize] = station;
        let answers = matches!(station, Station::Resolved(_)).then_some(entry.index);
        if self.answered.get(&key) != answers {
            self.answered.set(key, answers);
        }
    }

    fn drop_unneeded(&mut self, key: Key) {
        if let Some(entry) = self.by_key.get(&key).copied()
            && entry.users == 0
            && entry.mac.is_none()
        {
            self.by_key.remove(&key);
            self.free.push(entry.index);
        }
    }
}
