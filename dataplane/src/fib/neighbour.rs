//! Who is at which address: learned, asked for, aged. Time is an argument; what is to be sent is
//! returned.

use crate::net::{Addr, IfId, Mac, Nanos};
use std::collections::BTreeMap;

/// Where a neighbour's address is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Given with the endpoint. Never aged.
    Static,
    /// The kernel's own table, which ages it.
    Kernel,
    /// A packet that a worker saw. Aged here.
    Seen,
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

/// A seen neighbour counts as reachable for this long (RFC 4861 §10, REACHABLE_TIME).
const REACHABLE: Nanos = Nanos::from_secs(30);
/// Between two questions (RFC 4861 §10, RETRANS_TIMER).
const RETRANS: Nanos = Nanos::from_secs(1);
/// Questions without an answer after which it is gone (RFC 4861 §10).
const MAX_PROBES: u8 = 3;
/// Entries at most, so that a scan of a connected prefix cannot fill memory.
const MAX_ENTRIES: usize = 65_536;

#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: Option<Mac>,
    source: Source,
    /// When it last answered, or was first asked.
    since: Nanos,
    /// Questions since then, and when the last one was.
    probes: u8,
    probed: Nanos,
}

/// All neighbours.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(BTreeMap<(IfId, Addr), Entry>);

impl Neighbours {
    /// `addr` is at `mac`. Returns whether that is news to those who forward.
    pub fn learn(&mut self, interface: IfId, addr: Addr, mac: Mac, source: Source, now: Nanos) -> bool {
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&(interface, addr)) {
            return false;
        }
        let entry = Entry { mac: Some(mac), source, since: now, probes: 0, probed: now };
        match self.0.insert((interface, addr), entry) {
            // What was given is not overruled by what is merely seen.
            Some(old) if old.source == Source::Static && source != Source::Static => {
                self.0.insert((interface, addr), old);
                false
            }
            Some(old) => old.mac != Some(mac),
            None => true,
        }
    }

    /// The kernel or the endpoint says the entry is gone. Returns whether that is news.
    pub fn forget(&mut self, interface: IfId, addr: Addr) -> bool {
        self.0.remove(&(interface, addr)).is_some_and(|entry| entry.mac.is_some())
    }

    /// The interface is gone.
    pub fn forget_interface(&mut self, interface: IfId) -> bool {
        let before = self.0.len();
        self.0.retain(|(of, _), _| *of != interface);
        before != self.0.len()
    }

    /// A packet waits for `addr`: whom to ask, unless somebody was asked a moment ago.
    pub fn wanted(&mut self, interface: IfId, addr: Addr, now: Nanos) -> Option<Probe> {
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&(interface, addr)) {
            return None;
        }
        let fresh = Entry { mac: None, source: Source::Seen, since: now, probes: 0, probed: Nanos(0) };
        let entry = self.0.entry((interface, addr)).or_insert(fresh);
        if entry.mac.is_some() || (entry.probes > 0 && now.since(entry.probed) < RETRANS) {
            return None;
        }
        entry.probes = entry.probes.saturating_add(1);
        entry.probed = now;
        Some(Probe { interface, addr, mac: None })
    }

    /// Lets time pass: whom to ask again, and whether an entry that was in use is gone.
    pub fn tick(&mut self, now: Nanos) -> (Vec<Probe>, bool) {
        let (mut probes, mut changed) = (vec![], false);
        self.0.retain(|(interface, addr), entry| {
            if entry.source != Source::Seen || now.since(entry.since) < REACHABLE && entry.mac.is_some() {
                return true;
            }
            if entry.probes > 0 && now.since(entry.probed) < RETRANS {
                return true;
            }
            if entry.probes >= MAX_PROBES {
                changed |= entry.mac.is_some();
                return false;
            }
            entry.probes += 1;
            entry.probed = now;
            probes.push(Probe { interface: *interface, addr: *addr, mac: entry.mac });
            true
        });
        (probes, changed)
    }

    /// All that are resolved.
    pub fn resolved(&self) -> impl Iterator<Item = (IfId, Addr, Mac)> {
        self.0.iter().filter_map(|((interface, addr), entry)| Some((*interface, *addr, entry.mac?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IF: IfId = IfId(3);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn addr() -> Addr {
        "10.0.0.9".parse().unwrap()
    }

    #[test]
    fn asked_once_a_second_until_it_answers() {
        let mut table = Neighbours::default();
        let at = Nanos::from_millis;
        assert_eq!(table.wanted(IF, addr(), at(1)), Some(Probe { interface: IF, addr: addr(), mac: None }));
        assert_eq!(table.wanted(IF, addr(), at(500)), None);
        assert_eq!(table.tick(at(900)).0, vec![]);
        assert_eq!(table.tick(at(1001)).0.len(), 1);
        assert!(table.learn(IF, addr(), MAC, Source::Seen, at(1100)));
        assert_eq!(table.wanted(IF, addr(), at(5000)), None);
        assert!(!table.learn(IF, addr(), MAC, Source::Seen, at(6000)));
    }

    #[test]
    fn a_silent_neighbour_is_asked_three_times_and_forgotten() {
        let mut table = Neighbours::default();
        table.learn(IF, addr(), MAC, Source::Seen, Nanos(0));
        let mut asked = 0;
        for second in 1..60 {
            let (probes, gone) = table.tick(Nanos::from_secs(second));
            asked += probes.len();
            assert!(probes.iter().all(|probe| probe.mac == Some(MAC)));
            if gone {
                assert_eq!((second, asked), (33, 3));
                assert_eq!(table.resolved().count(), 0);
                return;
            }
        }
        panic!("never forgotten");
    }

    #[test]
    fn what_was_given_stays() {
        let mut table = Neighbours::default();
        table.learn(IF, addr(), MAC, Source::Static, Nanos(0));
        assert!(!table.learn(IF, addr(), Mac([2, 0, 0, 0, 0, 1]), Source::Seen, Nanos(1)));
        assert_eq!(table.tick(Nanos::from_secs(1000)), (vec![], false));
        assert_eq!(table.resolved().next(), Some((IF, addr(), MAC)));
        assert!(table.forget(IF, addr()));
    }
}
