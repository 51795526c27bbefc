//! When handshakes are too many, and from whom (WireGuard's paper, §5.3).

use crate::net::Nanos;
use std::collections::HashMap;
use std::net::IpAddr;

/// Handshake messages a second above which senders must prove their address.
const BUSY: u32 = 1_000;
/// The span over which messages are counted, and for which load is thought to last.
const SPAN: Nanos = Nanos::from_secs(1);

/// Handshakes that one address may begin a second...
const RATE: u64 = 20;
/// ...and at once.
const BURST: u64 = 5;
/// Addresses remembered. While there are as many, others are refused.
const SOURCES: usize = 1 << 16;

/// Time that one handshake of an address takes from its allowance.
const COST: Nanos = Nanos(1_000_000_000 / RATE);

/// Counts what comes.
#[derive(Debug, Default)]
pub struct Load {
    since: Nanos,
    messages: u32,
    until: Nanos,
    /// Of each address, when it will have its whole allowance again.
    sources: HashMap<IpAddr, Nanos>,
}

impl Load {
    /// Counts a message whose first code is right; true under load.
    pub fn count(&mut self, now: Nanos) -> bool {
        if now.since(self.since) >= SPAN {
            (self.since, self.messages) = (now, 0);
        }
        self.messages = self.messages.saturating_add(1);
        if self.messages > BUSY {
            self.until = now.plus(SPAN);
        }
        now < self.until
    }

    /// Whether an address, which is proven, may begin another handshake.
    pub fn allows(&mut self, from: IpAddr, now: Nanos) -> bool {
        let from = source(from);
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&from) {
            self.sources.retain(|_, full| *full > now);
            if self.sources.len() >= SOURCES {
                return false;
            }
        }
        let full = self.sources.entry(from).or_insert(now);
        let after = (*full).max(now).plus(COST);
        let allowed = after.since(now) <= Nanos(BURST * COST.0);
        if allowed {
            *full = after;
        }
        allowed
    }
}

/// Whoever has an IPv6 address has a whole /64 of them.
fn source(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_begins_with_many_messages_and_ends_without() {
        let mut load = Load::default();
        let start = Nanos::from_secs(10);
        assert!((0..BUSY).all(|_| !load.count(start)));
        assert!(load.count(start));
        assert!(load.count(start.plus(Nanos::from_millis(999))));
        assert!(!load.count(start.plus(Nanos::from_secs(3))));
    }

    #[test]
    fn an_address_has_an_allowance() {
        let mut load = Load::default();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let now = Nanos::from_secs(10);
        assert!((0..BURST).all(|_| load.allows(one, now)));
        assert!(!load.allows(one, now));
        assert!(load.allows("192.0.2.2".parse().unwrap(), now), "another has its own");
        assert!(load.allows(one, now.plus(COST)));
        assert!(!load.allows(one, now.plus(COST)));
        let mut net = (0..BURST + 1).map(|host| format!("2001:db8::{host:x}").parse().unwrap());
        assert!(!net.all(|ip| load.allows(ip, now)), "a /64 counts as one");
    }

    #[test]
    fn addresses_remembered_are_bounded() {
        let mut load = Load::default();
        let now = Nanos::from_secs(10);
        for host in 0..SOURCES as u32 {
            assert!(load.allows(IpAddr::V4(host.into()), now));
        }
        assert!(!load.allows(IpAddr::V4((SOURCES as u32).into()), now));
        assert!(load.allows(IpAddr::V4((SOURCES as u32).into()), now.plus(Nanos::from_secs(1))));
    }
}
