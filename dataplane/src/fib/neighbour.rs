//! Who is at which address: learned, asked for, confirmed, given up (RFC 4861 §7.3, for ARP as well). Time is an
//! argument; what is to be sent is returned.
//!
//! No worker says which neighbours it sends to, so each is taken to be in use: one that was not confirmed for a while is
//! asked, whether a packet waits or not. So a live neighbour is never in doubt when a packet comes.

use crate::net::{Addr, IfId, Mac, Nanos};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is known of a neighbour (RFC 4861 §7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Given with the endpoint: never aged, never overruled.
    Static,
    /// In the kernel's own table, which ages it.
    Kernel,
    /// Asked for, and no answer yet.
    Incomplete,
    /// It has answered a moment ago.
    Reachable,
    /// It was heard of, or has answered some time ago.
    Stale,
    /// About to be asked whether it is still there.
    Delay,
    /// Asked whether it is still there.
    Probe,
    /// It does not answer.
    Failed,
}

impl NeighbourState {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Kernel => "kernel",
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Delay => "delay",
            Self::Probe => "probe",
            Self::Failed => "failed",
        }
    }
}

/// How a neighbour was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// It asked for something, or announced itself.
    Unasked,
    /// It said so in answer to a question of ours.
    Answer,
    /// It said so in answer or not, and what is known otherwise counts more (RFC 4861 §4.4, no override flag).
    Weak {
        /// In answer to a question of ours.
        answer: bool,
    },
}

/// Somebody to ask for an address, by ARP or neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// On this interface.
    pub interface: IfId,
    /// For this address.
    pub addr: Addr,
    /// Where it was last; `None`: ask everybody.
    pub mac: Option<Mac>,
}

/// A neighbour, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// On this interface.
    pub interface: IfId,
    /// Its address.
    pub addr: Addr,
    /// Where it is.
    pub mac: Option<Mac>,
    /// What is known of it.
    pub state: NeighbourState,
    /// Since when.
    pub since: Nanos,
}

/// REACHABLE_TIME (RFC 4861 §10).
const REACHABLE: Nanos = Nanos::from_secs(30);
/// How long one that was merely heard of, or not confirmed since, is left alone.
const STALE: Nanos = Nanos::from_secs(30);
/// DELAY_FIRST_PROBE_TIME.
const DELAY: Nanos = Nanos::from_secs(5);
/// RETRANS_TIMER.
const RETRANS: Nanos = Nanos::from_secs(1);
/// MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT.
const MAX_PROBES: u8 = 3;
/// One that failed is remembered for so long, for people.
const FAILED: Nanos = Nanos::from_secs(60);
/// Entries at most, so that a scan of a connected prefix cannot fill memory.
const MAX_ENTRIES: usize = 65_536;
/// Of one interface, so that nobody can take the places of all others.
const MAX_ON_INTERFACE: usize = 16_384;

#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: Option<Mac>,
    state: NeighbourState,
    since: Nanos,
    /// When the state ends by itself, or the next question is due. Not of static and kernel entries.
    until: Nanos,
    /// Questions asked in this state.
    asked: u8,
}

impl Entry {
    const fn new(mac: Option<Mac>, state: NeighbourState, now: Nanos) -> Self {
        let lasts = match state {
            NeighbourState::Reachable => REACHABLE,
            NeighbourState::Stale => STALE,
            NeighbourState::Delay => DELAY,
            NeighbourState::Incomplete | NeighbourState::Probe => RETRANS,
            NeighbourState::Failed => FAILED,
            NeighbourState::Static | NeighbourState::Kernel => Nanos(0),
        };
        Self { mac, state, since: now, until: now.plus(lasts), asked: 0 }
    }
}

type Key = (IfId, Addr);

/// All neighbours.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    entries: BTreeMap<Key, Entry>,
    on: HashMap<IfId, usize>,
    /// Whose address is another since [`take_news`](Self::take_news).
    news: BTreeSet<Key>,
}

impl Neighbours {
    /// The endpoint's definition says that `addr` is at `mac`.
    pub fn set_static(&mut self, interface: IfId, addr: Addr, mac: Mac, now: Nanos) {
        self.set((interface, addr), Entry::new(Some(mac), NeighbourState::Static, now));
    }

    /// The kernel's table says so.
    pub fn set_kernel(&mut self, interface: IfId, addr: Addr, mac: Mac, now: Nanos) {
        self.set((interface, addr), Entry::new(Some(mac), NeighbourState::Kernel, now));
    }

    /// A packet says that `addr` is at `mac` (RFC 4861 §7.2.3 and §7.2.5).
    pub fn heard(&mut self, interface: IfId, addr: Addr, mac: Mac, hearing: Hearing, now: Nanos) {
        let key = (interface, addr);
        let answer = matches!(hearing, Hearing::Answer | Hearing::Weak { answer: true });
        let confirmed = if answer { NeighbourState::Reachable } else { NeighbourState::Stale };
        let Some(old) = self.entries.get(&key).copied() else {
            // Nobody asked: it is not known whether we reach it.
            return self.set(key, Entry::new(Some(mac), NeighbourState::Stale, now));
        };
        match old.state {
            NeighbourState::Static | NeighbourState::Kernel => {}
            NeighbourState::Incomplete | NeighbourState::Failed => {
                self.set(key, Entry::new(Some(mac), confirmed, now));
            }
            _ if old.mac == Some(mac) => {
                if answer {
                    self.set(key, Entry::new(Some(mac), NeighbourState::Reachable, now));
                }
            }
            state if matches!(hearing, Hearing::Weak { .. }) => {
                if state == NeighbourState::Reachable {
                    self.set(key, Entry::new(old.mac, NeighbourState::Stale, now));
                }
            }
            _ => self.set(key, Entry::new(Some(mac), confirmed, now)),
        }
    }

    /// The kernel or the endpoint's definition says that the entry is gone.
    pub fn forget(&mut self, interface: IfId, addr: Addr) {
        let key = (interface, addr);
        if let Some(old) = self.entries.remove(&key) {
            self.gone(key, &old);
        }
    }

    /// The interface is gone.
    pub fn forget_interface(&mut self, interface: IfId) {
        for addr in self.addresses_on(interface) {
            self.forget(interface, addr);
        }
    }

    /// Static entries of the interface are no others than these.
    pub fn keep_static(&mut self, interface: IfId, addrs: &[Addr]) {
        for addr in self.addresses_on(interface) {
            let is_static = |entry: &Entry| entry.state == NeighbourState::Static;
            if self.entries.get(&(interface, addr)).is_some_and(is_static) && !addrs.contains(&addr) {
                self.forget(interface, addr);
            }
        }
    }

    /// A packet waits for `addr`: whom to ask, unless somebody was asked a moment ago.
    pub fn wanted(&mut self, interface: IfId, addr: Addr, now: Nanos) -> Option<Probe> {
        let key = (interface, addr);
        let old = self.entries.get(&key);
        if old.is_some_and(|old| old.mac.is_some() || old.state == NeighbourState::Incomplete) {
            return None;
        }
        self.set(key, Entry { asked: 1, ..Entry::new(None, NeighbourState::Incomplete, now) });
        self.entries.contains_key(&key).then_some(Probe { interface, addr, mac: None })
    }

    /// Lets time pass: whom to ask.
    pub fn tick(&mut self, now: Nanos) -> Vec<Probe> {
        let due = |entry: &Entry| {
            entry.until <= now && !matches!(entry.state, NeighbourState::Static | NeighbourState::Kernel)
        };
        let due: Vec<(Key, Entry)> =
            self.entries.iter().filter(|(_, entry)| due(entry)).map(|(key, entry)| (*key, *entry)).collect();
        let mut probes = vec![];
        for (key, entry) in due {
            let mut ask = |mac| probes.push(Probe { interface: key.0, addr: key.1, mac });
            let next = match entry.state {
                NeighbourState::Reachable => Entry::new(entry.mac, NeighbourState::Stale, now),
                NeighbourState::Stale => Entry::new(entry.mac, NeighbourState::Delay, now),
                NeighbourState::Delay => {
                    ask(entry.mac);
                    Entry { asked: 1, ..Entry::new(entry.mac, NeighbourState::Probe, now) }
                }
                NeighbourState::Incomplete | NeighbourState::Probe if entry.asked < MAX_PROBES => {
                    ask(entry.mac);
                    Entry { asked: entry.asked + 1, until: now.plus(RETRANS), ..entry }
                }
                NeighbourState::Incomplete | NeighbourState::Probe => {
                    Entry::new(None, NeighbourState::Failed, now)
                }
                NeighbourState::Failed => {
                    self.forget(key.0, key.1);
                    continue;
                }
                NeighbourState::Static | NeighbourState::Kernel => continue,
            };
            self.set(key, next);
        }
        probes
    }

    /// Where a neighbour is, if that is known.
    pub fn mac(&self, interface: IfId, addr: Addr) -> Option<Mac> {
        self.entries.get(&(interface, addr))?.mac
    }

    /// There is news for those who forward.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Neighbours whose address has changed since this was asked last, and where they are now.
    pub fn take_news(&mut self) -> impl Iterator<Item = (IfId, Addr, Option<Mac>)> + use<'_> {
        std::mem::take(&mut self.news).into_iter().map(|key| (key.0, key.1, self.mac(key.0, key.1)))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Neighbour> {
        self.entries.iter().map(|((interface, addr), entry)| Neighbour {
            interface: *interface,
            addr: *addr,
            mac: entry.mac,
            state: entry.state,
            since: entry.since,
        })
    }

    fn addresses_on(&self, interface: IfId) -> Vec<Addr> {
        let first = (interface, Addr::from_bits(0));
        let last = (interface, Addr::from_bits(u128::MAX));
        self.entries.range(first..=last).map(|((_, addr), _)| *addr).collect()
    }

    /// Replaces an entry, or adds one where there is room.
    fn set(&mut self, key: Key, entry: Entry) {
        let Some(old) = self.entries.get_mut(&key) else {
            let on = self.on.entry(key.0).or_default();
            // What was given has room.
            let given = entry.state == NeighbourState::Static;
            if !given && (self.entries.len() >= MAX_ENTRIES || *on >= MAX_ON_INTERFACE) {
                return;
            }
            *on += 1;
            self.entries.insert(key, entry);
            if entry.mac.is_some() {
                self.news.insert(key);
            }
            return;
        };
        // What was given is not overruled by what is merely known.
        if old.state == NeighbourState::Static && entry.state != NeighbourState::Static {
            return;
        }
        if old.mac != entry.mac {
            self.news.insert(key);
        }
        *old = entry;
    }

    fn gone(&mut self, key: Key, old: &Entry) {
        if old.mac.is_some() {
            self.news.insert(key);
        }
        if let Some(on) = self.on.get_mut(&key.0) {
            *on -= 1;
            if *on == 0 {
                self.on.remove(&key.0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
