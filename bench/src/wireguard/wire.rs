//! A device that gives what is laid before it, and keeps or forgets what it is to send.

use margay_dataplane::io::{Device, DeviceCounters, Transmitted};
use margay_dataplane::net::Nanos;
use margay_dataplane::packet::{HEADROOM, Pool, Vector};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Both sides of the device.
#[derive(Clone, Default)]
pub struct Cable(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    /// Frames to be received, and the next of them.
    lap: Arc<[Vec<u8>]>,
    next: usize,
    /// What was sent, while that is wanted.
    sent: Vec<Vec<u8>>,
    keeps: bool,
}

impl Cable {
    /// Has the device receive these frames, once.
    pub fn lay(&self, lap: &Arc<[Vec<u8>]>) {
        let mut ends = self.ends();
        (ends.lap, ends.next) = (lap.clone(), 0);
    }

    /// Whether what is sent is to be kept from now on.
    pub fn keep(&self, keeps: bool) {
        self.ends().keeps = keeps;
    }

    /// What was sent and kept.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.ends().sent)
    }

    /// The near end. It receives up to `batch` packets at once.
    pub fn device(&self, batch: usize) -> Box<dyn Device> {
        Box::new(Near { cable: self.clone(), batch, counters: DeviceCounters::default() })
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Near {
    cable: Cable,
    batch: usize,
    counters: DeviceCounters,
}

impl Device for Near {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, _now: Nanos) -> usize {
        let mut ends = self.cable.ends();
        let most = max.min(self.batch).min(ends.lap.len() - ends.next);
        let mut received = 0;
        while received < most {
            let Some(mut idx) = pool.alloc() else { break };
            let frame = &ends.lap[ends.next + received];
            let mut packet = pool.get(&mut idx);
            packet.room_mut()[..frame.len()].copy_from_slice(frame);
            packet.meta.data = HEADROOM as u16;
            packet.meta.len = frame.len() as u32;
            into.push(idx);
            received += 1;
        }
        ends.next += received;
        self.counters.rx_packets += received as u64;
        received
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, _now: Nanos) -> Transmitted {
        let sent = packets.len() as u32;
        let mut ends = self.cable.ends();
        if ends.keeps {
            ends.sent.extend(pool.all(packets).map(|packet| packet.bytes().to_vec()));
        }
        pool.free_all(packets);
        self.counters.tx_packets += u64::from(sent);
        Transmitted { sent, ..Transmitted::default() }
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}
