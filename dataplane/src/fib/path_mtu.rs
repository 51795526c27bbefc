//! What routers said of the ways to other nodes: packets longer than so much do not pass (RFC 1191,
//! RFC 8201). Time is an argument.

use crate::net::{Addr, Nanos};
use std::collections::BTreeMap;

/// How long a router's word counts: then the way may have become better (RFC 1191 §6.3, RFC 8201 §4).
const LIFETIME: Nanos = Nanos::from_secs(600);
/// Less is not believed: no link that tunnels run over takes less, and whoever forges such an error
/// would only make us send many small packets. As Linux has it, and as IPv6 requires of every link.
const LEAST_V4: u16 = 552;
const LEAST_V6: u16 = 1280;
/// Ways remembered at most: more than there are nodes.
const MAX_ENTRIES: usize = 65_536;
/// What links take that were common when routers did not say it (RFC 1191 §7.1), and ours.
const PLATEAUS: [u16; 7] = [17_914, 8_166, 4_352, 2_002, 1_492, 1_006, LEAST_V4];

/// The MTU that an error means: what it says, or where an old router says nothing the next usual one
/// below the packet that did not pass, which was `len` bytes long.
pub fn believable(said: u32, len: u16, v4: bool) -> u16 {
    let least = if v4 { LEAST_V4 } else { LEAST_V6 };
    let mtu = match said {
        0 => PLATEAUS.into_iter().find(|plateau| *plateau < len).unwrap_or(least),
        said => u16::try_from(said).unwrap_or(u16::MAX),
    };
    mtu.max(least)
}

/// By the node at the other end.
#[derive(Clone, Debug, Default)]
pub struct PathMtus(BTreeMap<Addr, (u16, Nanos)>);

impl PathMtus {
    /// A router said it. Returns whether that is news.
    pub fn learn(&mut self, to: Addr, mtu: u16, now: Nanos) -> bool {
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&to) {
            return false;
        }
        match self.0.get_mut(&to) {
            // A late word about a longer packet changes nothing.
            Some((known, _)) if *known < mtu => false,
            Some((known, since)) => {
                *since = now;
                std::mem::replace(known, mtu) != mtu
            }
            None => {
                self.0.insert(to, (mtu, now));
                true
            }
        }
    }

    /// Forgets what is too old to count. Returns whether there was any.
    pub fn tick(&mut self, now: Nanos) -> bool {
        let before = self.0.len();
        self.0.retain(|_, (_, since)| now.since(*since) < LIFETIME);
        before != self.0.len()
    }

    /// What is known of the way to `to`.
    pub fn get(&self, to: Addr) -> Option<u16> {
        self.0.get(&to).map(|(mtu, _)| *mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_counts_for_ten_minutes_since_it_was_said() {
        let (to, mut table) = (Addr::v4([10, 0, 0, 9]), PathMtus::default());
        let at = Nanos::from_secs;
        assert!(table.learn(to, 1400, at(1)));
        assert!(!table.learn(to, 1450, at(2)), "not better by a late word");
        assert!(table.learn(to, 1300, at(3)));
        assert!(!table.learn(to, 1300, at(100)), "said again: known, and for longer");
        assert!(!table.tick(at(699)));
        assert_eq!(table.get(to), Some(1300));
        assert!(table.tick(at(700)));
        assert_eq!((table.get(to), table.tick(at(701))), (None, false));
    }

    #[test]
    fn what_is_believed() {
        assert_eq!(believable(1400, 1500, true), 1400);
        assert_eq!(believable(68, 1500, true), 552);
        assert_eq!(believable(68, 1500, false), 1280);
        assert_eq!(believable(70_000, 1500, true), u16::MAX);
        assert_eq!(believable(0, 1500, true), 1492, "RFC 1191's plateaus");
        assert_eq!(believable(0, 1492, true), 1006);
        assert_eq!(believable(0, 400, true), 552);
    }
}
