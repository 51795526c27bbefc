//! A device that misbehaves by the dice: for tests of what is above it.

use super::{Device, DeviceCounters, Transmitted};
use crate::net::Nanos;
use crate::packet::{PktIdx, Pool, VECTOR, Vector};
use std::os::fd::BorrowedFd;

/// How often, of a thousand packets, each fault strikes. One packet suffers one at most: the
/// rates add up, and what is above 1,000 never happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// It vanishes, counted as `faulted`.
    pub drop: u16,
    /// One byte is changed.
    pub corrupt: u16,
    /// Its tail is cut off; the Ethernet header stays.
    pub truncate: u16,
    /// It is held back until after the next packet.
    pub reorder: u16,
}

/// The inner device, with faults.
///
/// Each packet is counted once: the inner device's `rx_packets` are those that `receive` gave
/// out and those that were dropped or are held on their way in; what `transmit` took is the
/// inner `tx_packets` and what was dropped or is held on its way out. Held packets count as
/// [`lent`](Device::lent). A packet that the inner device had no room for meets its fate anew
/// when it is tried again.
pub struct Fault<D> {
    inner: D,
    receive: Direction,
    transmit: Direction,
    random: SplitMix64,
    faulted: u64,
}

impl<D: Device> Fault<D> {
    /// Wraps `inner`; all that happens follows from `seed` and the packets.
    pub fn new(inner: D, receive: Rates, transmit: Rates, seed: u64) -> Self {
        let direction = |rates| Direction { rates, held: None, passed: Vector::default() };
        Self {
            inner,
            receive: direction(receive),
            transmit: direction(transmit),
            random: SplitMix64(seed),
            faulted: 0,
        }
    }
}

impl<D: Device> Device for Fault<D> {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, now: Nanos) -> usize {
        let max = max.min(into.room());
        let Some(fresh) = max.checked_sub(usize::from(self.receive.held.is_some())) else { return 0 };
        let mut arrived = Vector::default();
        self.inner.receive(pool, &mut arrived, fresh, now);
        self.receive.strike(pool, &mut arrived, &mut self.random, &mut self.faulted);
        if arrived.is_empty()
            && let Some(idx) = self.receive.held.take()
        {
            arrived.push(idx);
        }
        let received = pool.all(&mut arrived).map(|packet| packet.count() as usize).sum();
        into.append(&mut arrived);
        received
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, now: Nanos) -> Transmitted {
        let before = self.faulted;
        self.transmit.strike(pool, packets, &mut self.random, &mut self.faulted);
        let inner = self.inner.transmit(pool, packets, now);
        Transmitted { faulted: inner.faulted + (self.faulted - before) as u32, ..inner }
    }

    fn settle(&mut self, pool: &mut Pool) {
        self.inner.settle(pool);
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wait_fd()
    }

    fn counters(&self) -> DeviceCounters {
        let counters = self.inner.counters();
        DeviceCounters { faulted: counters.faulted + self.faulted, ..counters }
    }

    fn lent(&self) -> usize {
        let held = [&self.receive, &self.transmit].iter().filter(|d| d.held.is_some()).count();
        self.inner.lent() + held
    }

    fn close(&mut self, pool: &mut Pool) {
        for idx in [self.receive.held.take(), self.transmit.held.take()].into_iter().flatten() {
            self.faulted += 1;
            pool.free(idx);
        }
        self.inner.close(pool);
    }
}

const ETHERNET_HEADER: u32 = 14;

struct Direction {
    rates: Rates,
    /// Waits for the next packet to overtake it.
    held: Option<PktIdx>,
    passed: Vector,
}

impl Direction {
    /// Lets each packet meet its fate; what is left of them is in `packets` again.
    fn strike(&mut self, pool: &mut Pool, packets: &mut Vector, random: &mut SplitMix64, faulted: &mut u64) {
        let Rates { drop, corrupt, truncate, reorder } = self.rates;
        let drop = u64::from(drop);
        let corrupt = drop + u64::from(corrupt);
        let truncate = corrupt + u64::from(truncate);
        let reorder = truncate + u64::from(reorder);
        for mut idx in packets.drain() {
            let fate = random.below(1000);
            if fate < drop {
                *faulted += pool.get(&mut idx).count();
                pool.free(idx);
                continue;
            }
            let mut packet = pool.get(&mut idx);
            if fate < corrupt {
                let len = packet.bytes().len() as u64;
                if let Some(byte) = packet.bytes_mut().get_mut(random.below(len.max(1)) as usize) {
                    *byte ^= 1 + random.below(255) as u8;
                }
            } else if fate < truncate {
                let len = packet.meta.len;
                let cut = ETHERNET_HEADER
                    + random.below(u64::from(len.saturating_sub(ETHERNET_HEADER)).max(1)) as u32;
                packet.truncate(cut);
            } else if fate < reorder && self.held.is_none() {
                self.held = Some(idx);
                continue;
            }
            self.passed.push(idx);
            if self.passed.len() < VECTOR
                && let Some(idx) = self.held.take()
            {
                self.passed.push(idx);
            }
        }
        packets.append(&mut self.passed);
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `bound` - 1, near enough evenly for small bounds.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::memory::{Memory, MemoryHandle};
    use crate::packet::Frames;

    const NONE: Rates = Rates { drop: 0, corrupt: 0, truncate: 0, reorder: 0 };

    struct Loop {
        device: Fault<Memory>,
        wire: MemoryHandle,
        pool: Pool,
    }

    impl Loop {
        fn new(receive: Rates, transmit: Rates, seed: u64) -> Self {
            let (inner, wire) = Memory::new(1024);
            let pool = Pool::new(Frames::new(1024, 2048, false).unwrap(), 512);
            Self { device: Fault::new(inner, receive, transmit, seed), wire, pool }
        }

        /// Sends `count` numbered packets in and out again: what came out.
        fn run(&mut self, count: u32) -> Vec<Vec<u8>> {
            let mut out = vec![];
            let mut vector = Vector::default();
            for n in 0..count {
                let mut bytes = [0; 60];
                bytes[14..18].copy_from_slice(&n.to_be_bytes());
                assert!(self.wire.push(&bytes));
                if n % 7 == 0 || n + 1 == count {
                    // Twice: what was held back comes alone.
                    for _ in 0..2 {
                        self.device.receive(&mut self.pool, &mut vector, VECTOR, Nanos(0));
                        self.device.transmit(&mut self.pool, &mut vector, Nanos(0));
                    }
                    out.extend(std::iter::from_fn(|| self.wire.pop()));
                }
            }
            out
        }

        fn close(mut self) {
            self.device.close(&mut self.pool);
            assert_eq!(self.device.lent(), 0);
            assert_eq!(self.pool.held() + self.pool.frames().in_depot(), 1024);
        }
    }

    fn number(bytes: &[u8]) -> u32 {
        u32::from_be_bytes(bytes[14..18].try_into().unwrap())
    }

    #[test]
    fn every_packet_is_accounted_for() {
        let rates = Rates { drop: 100, corrupt: 100, truncate: 100, reorder: 100 };
        let mut test = Loop::new(rates, rates, 1);
        let out = test.run(5000);
        let counters = test.device.counters();
        assert_eq!(counters.rx_packets, 5000);
        assert_eq!(counters.tx_packets, out.len() as u64);
        let held = test.device.lent() as u64;
        assert_eq!(counters.rx_packets, counters.tx_packets + counters.faulted + held);
        // A tenth in, a tenth of the rest out.
        assert!((800..1100).contains(&counters.faulted), "{}", counters.faulted);
        test.close();
    }

    #[test]
    fn one_seed_one_story() {
        let rates = Rates { drop: 50, corrupt: 50, truncate: 50, reorder: 50 };
        let story = |seed| Loop::new(rates, rates, seed).run(2000);
        assert_eq!(story(7), story(7));
        assert_ne!(story(7), story(8));
    }

    #[test]
    fn each_fault_does_what_its_name_says() {
        let mut test = Loop::new(Rates { drop: 1000, ..NONE }, NONE, 1);
        assert!(test.run(100).is_empty());
        test.close();

        let mut test = Loop::new(NONE, Rates { corrupt: 1000, ..NONE }, 1);
        for (n, bytes) in test.run(100).iter().enumerate() {
            let mut intact = [0; 60];
            intact[14..18].copy_from_slice(&(n as u32).to_be_bytes());
            assert_eq!(bytes.iter().zip(&intact).filter(|(a, b)| a != b).count(), 1);
        }
        test.close();

        let mut test = Loop::new(Rates { truncate: 1000, ..NONE }, NONE, 1);
        let lengths: Vec<usize> = test.run(100).iter().map(Vec::len).collect();
        assert!(lengths.len() == 100 && lengths.iter().all(|len| (14..60).contains(len)), "{lengths:?}");
        test.close();

        let mut test = Loop::new(NONE, Rates { reorder: 200, ..NONE }, 1);
        let mut numbers: Vec<u32> = test.run(1000).iter().map(|bytes| number(bytes)).collect();
        assert!(numbers.windows(2).filter(|w| w[0] > w[1]).count() > 50, "out of order");
        assert!(numbers.iter().enumerate().all(|(at, n)| at.abs_diff(*n as usize) <= 2), "but near");
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len() + test.device.lent(), 1000);
        test.close();
    }
}
