//! Which backend a client was sent to: session affinity, one memory for all workers.
//!
//! A client's flows are spread over the workers, and all of them must send it to one backend. So
//! the memory is shared, and each entry is a single word that is read and written whole: there is
//! nothing to lock. It is bounded and may forget: a full bucket gives up its oldest entry. A client
//! that was forgotten falls back to the hash of its address, which picks the same backend for as
//! long as the backends stay the same.

use super::hash::mix;
use crate::net::{Addr, Nanos};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Entries of one cache line.
const WAYS: usize = 8;

/// Bits of an entry: who, which backend, when. An entry that was never set is 0.
const NUMBER_BITS: u32 = 20;
const STAMP_BITS: u32 = 20;
const STAMPS: u64 = 1 << STAMP_BITS;

/// The memory.
#[derive(Debug)]
pub struct Affinity {
    buckets: Box<[Bucket]>,
    seeds: [u64; 2],
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// A client of one port of a service.
#[derive(Clone, Copy, Debug)]
pub struct Client(u64);

impl Affinity {
    /// Numbers of backends are below this.
    pub const NUMBERS: u32 = 1 << NUMBER_BITS;

    /// Remembers at least `clients`, eight bytes each. Who does not know `seeds` cannot choose whom
    /// it forgets.
    pub fn new(clients: usize, seeds: [u64; 2]) -> Self {
        let buckets = clients.div_ceil(WAYS).next_power_of_two();
        Self { buckets: (0..buckets).map(|_| Bucket::default()).collect(), seeds }
    }

    /// The client `addr` of the port with this salt.
    #[inline]
    pub fn client(&self, addr: Addr, salt: u64) -> Client {
        let bits = addr.bits();
        let half = |seed: u64, bits: u64| mix(mix(bits, seed), seed ^ salt);
        let [first, second] = self.seeds;
        Client(mix(half(first, (bits >> 64) as u64), half(second, bits as u64)))
    }

    /// The number of the backend that the client was sent to within `timeout` seconds.
    #[inline]
    pub fn recall(&self, client: Client, timeout: u32, now: Nanos) -> Option<u32> {
        let now = stamp(now);
        self.bucket(client).iter().find_map(|entry| {
            let entry = entry.load(Relaxed);
            let mine = entry != 0 && entry >> (NUMBER_BITS + STAMP_BITS) == tag(client);
            (mine && age(entry, now) <= u64::from(timeout)).then(|| number(entry))
        })
    }

    /// The client was sent to the backend of this number.
    #[inline]
    pub fn remember(&self, client: Client, backend: u32, now: Nanos) {
        let now = stamp(now);
        let word = tag(client) << (NUMBER_BITS + STAMP_BITS)
            | u64::from(backend & (Self::NUMBERS - 1)) << STAMP_BITS
            | now;
        let bucket = self.bucket(client);
        // Its own entry, or else the oldest: one that was never set is older than any.
        let rank = |entry: &&AtomicU64| match entry.load(Relaxed) {
            0 => STAMPS,
            entry if entry >> (NUMBER_BITS + STAMP_BITS) == tag(client) => STAMPS + 1,
            entry => age(entry, now),
        };
        if let Some(entry) = bucket.iter().max_by_key(rank)
            && entry.load(Relaxed) != word
        {
            entry.store(word, Relaxed);
        }
    }

    #[inline]
    fn bucket(&self, client: Client) -> &[AtomicU64; WAYS] {
        &self.buckets[client.0 as usize & (self.buckets.len() - 1)].0
    }
}

/// From the other end of the hash than the bucket's number, and never 0.
#[inline]
const fn tag(client: Client) -> u64 {
    client.0 >> (NUMBER_BITS + STAMP_BITS) | 1
}

/// Seconds, as far as they fit: they wrap after twelve days, long after any timeout.
#[inline]
const fn stamp(now: Nanos) -> u64 {
    now.0 / 1_000_000_000 % STAMPS
}

#[inline]
const fn age(entry: u64, now: u64) -> u64 {
    now.wrapping_sub(entry) % STAMPS
}

#[inline]
const fn number(entry: u64) -> u32 {
    (entry >> STAMP_BITS) as u32 & (Affinity::NUMBERS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn addr(n: u32) -> Addr {
        Addr::v4((0x0a00_0000 | n).to_be_bytes())
    }

    #[test]
    fn a_client_is_remembered_until_its_time_is_over() {
        let affinity = Affinity::new(64, [1, 2]);
        let (one, other) = (affinity.client(addr(1), 1), affinity.client(addr(1), 2));
        assert_eq!(affinity.recall(one, 10, Nanos(0)), None);
        affinity.remember(one, 7, Nanos::from_secs(100));
        assert_eq!(affinity.recall(one, 10, Nanos::from_secs(110)), Some(7));
        assert_eq!(affinity.recall(one, 10, Nanos::from_secs(111)), None);
        assert_eq!(affinity.recall(other, 10, Nanos::from_secs(100)), None, "of another service");
        affinity.remember(one, 8, Nanos::from_secs(105));
        assert_eq!(affinity.recall(one, 10, Nanos::from_secs(115)), Some(8));
    }

    #[test]
    fn a_full_bucket_forgets_the_oldest() {
        let affinity = Affinity::new(WAYS, [1, 2]);
        for n in 0..=WAYS as u32 {
            affinity.remember(affinity.client(addr(n), 1), n, Nanos::from_secs(n.into()));
        }
        let now = Nanos::from_secs(20);
        assert_eq!(affinity.recall(affinity.client(addr(0), 1), 100, now), None);
        for n in 1..=WAYS as u32 {
            assert_eq!(affinity.recall(affinity.client(addr(n), 1), 100, now), Some(n));
        }
    }

    proptest! {
        #[test]
        fn as_a_map_while_there_is_room(steps in vec((0u32..4, 0u32..1000, 0u64..50, any::<bool>()), 1..200)) {
            let affinity = Affinity::new(1 << 12, [3, 4]);
            let mut twin: HashMap<u32, (u32, u64)> = HashMap::new();
            let mut now = 5;
            for (who, backend, pause, asks) in steps {
                now += pause;
                let (client, at) = (affinity.client(addr(who), 9), Nanos::from_secs(now));
                if asks {
                    let known = twin.get(&who).filter(|(_, when)| now - when <= 60).map(|(backend, _)| *backend);
                    prop_assert_eq!(affinity.recall(client, 60, at), known);
                } else {
                    affinity.remember(client, backend, at);
                    twin.insert(who, (backend, now));
                }
            }
        }
    }
}
