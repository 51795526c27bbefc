//! A device whose wire is two queues in memory: for tests, and for the dataplane as a library.

use super::{Device, DeviceCounters, Transmitted};
use crate::net::Nanos;
use crate::packet::{Gso, HEADROOM, L4Checksum, Pool, Vector};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The dataplane's end.
pub struct Memory {
    wire: Arc<Mutex<Wire>>,
    counters: DeviceCounters,
}

/// The far end: what is pushed is received, what is transmitted is popped.
#[derive(Clone)]
pub struct MemoryHandle {
    wire: Arc<Mutex<Wire>>,
}

impl Memory {
    /// A device and its far end, each direction with room for `capacity` packets.
    ///
    /// Buffers are used again: once as many packets of a length have passed as are ever under
    /// way, nothing is allocated any more.
    pub fn new(capacity: usize) -> (Self, MemoryHandle) {
        let wire = Arc::new(Mutex::new(Wire {
            input: VecDeque::with_capacity(capacity),
            output: VecDeque::with_capacity(capacity),
            spare: Vec::with_capacity(2 * capacity),
            input_capacity: capacity,
            output_capacity: capacity,
            checksum: L4Checksum::Complete,
            super_frames: false,
        }));
        (Self { wire: wire.clone(), counters: DeviceCounters::default() }, MemoryHandle { wire })
    }
}

impl MemoryHandle {
    /// Puts a packet on the wire towards the device. `false`, and nothing done, when it is full.
    pub fn push(&self, bytes: &[u8]) -> bool {
        self.push_super(bytes, Gso::None, 0)
    }

    /// The same with a super-frame, whose segments have `size` bytes of payload.
    pub fn push_super(&self, bytes: &[u8], gso: Gso, size: u16) -> bool {
        let mut wire = lock(&self.wire);
        if wire.input.len() >= wire.input_capacity {
            return false;
        }
        let buffer = wire.buffer(bytes);
        wire.input.push_back((buffer, gso, size));
        true
    }

    /// Takes the oldest packet that the device has sent.
    pub fn pop(&self) -> Option<Vec<u8>> {
        self.pop_super().map(|(bytes, _)| bytes)
    }

    /// The same with the size of its segments' payload; 0 of what is no super-frame.
    pub fn pop_super(&self) -> Option<(Vec<u8>, u16)> {
        lock(&self.wire).output.pop_front()
    }

    /// Whether the device sends super-frames whole from now on.
    pub fn set_super_frames(&self, whole: bool) {
        lock(&self.wire).super_frames = whole;
    }

    /// Gives back a buffer from [`pop`](Self::pop), to be used again.
    pub fn recycle(&self, buffer: Vec<u8>) {
        lock(&self.wire).keep(buffer);
    }

    /// How many sent packets wait to be popped at most. 0: the device takes none.
    pub fn set_tx_capacity(&self, packets: usize) {
        lock(&self.wire).output_capacity = packets;
    }

    /// What the device says of the checksums of packets received from now on.
    pub fn set_checksum(&self, checksum: L4Checksum) {
        lock(&self.wire).checksum = checksum;
    }

    /// Packets pushed and not received yet.
    pub fn waiting(&self) -> usize {
        lock(&self.wire).input.len()
    }
}

impl Device for Memory {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, _now: Nanos) -> usize {
        let mut wire = lock(&self.wire);
        let max = into.len() + max.min(into.room());
        let mut received = 0;
        while into.len() < max && !wire.input.is_empty() {
            let Some((bytes, gso, size)) = wire.input.pop_front() else { break };
            let long = bytes.len() > pool.frames().capacity();
            let Some(mut idx) = (if long { pool.alloc_large() } else { None }).or_else(|| pool.alloc())
            else {
                wire.input.push_front((bytes, gso, size));
                break;
            };
            let mut packet = pool.get(&mut idx);
            let fits = packet.fill(&bytes);
            if fits || gso != Gso::None {
                packet.meta.checksum = wire.checksum;
                if gso != Gso::None {
                    (packet.meta.gso, packet.meta.gso_size) = (gso, size);
                    (packet.meta.checksum, packet.meta.len) = (L4Checksum::MaybePartial, bytes.len() as u32);
                    let v6 = bytes.get(14).is_some_and(|first| first >> 4 == 6);
                    packet.meta.l4 = packet.meta.data + 14 + if v6 { 40 } else { 20 };
                    if !fits {
                        packet.room_mut().iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
                    }
                }
                let count = packet.count();
                into.push(idx);
                self.counters.rx_packets += count;
                self.counters.rx_bytes += bytes.len() as u64;
                received += count as usize;
            } else {
                self.counters.kernel.rx_dropped += 1;
                pool.free(idx);
            }
            wire.keep(bytes);
        }
        received
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, _now: Nanos) -> Transmitted {
        let mut wire = lock(&self.wire);
        let room = wire.output_capacity.saturating_sub(wire.output.len());
        let mut outcome = Transmitted::default();
        for mut idx in packets.drain().take(room) {
            let packet = pool.get(&mut idx);
            let (bytes, count, size) = (packet.bytes(), packet.count(), packet.meta.gso_size);
            if bytes.len() == packet.meta.len as usize && (size == 0 || wire.super_frames) {
                let buffer = wire.buffer(bytes);
                wire.output.push_back((buffer, size));
                outcome.sent += count as u32;
                self.counters.tx_packets += count;
                self.counters.tx_bytes += bytes.len() as u64;
            } else {
                outcome.unsendable += count as u32;
                self.counters.tx_unsendable += count;
            }
            pool.free(idx);
        }
        self.counters.tx_full += packets.len() as u64;
        outcome
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}

struct Wire {
    input: VecDeque<(Vec<u8>, Gso, u16)>,
    output: VecDeque<(Vec<u8>, u16)>,
    spare: Vec<Vec<u8>>,
    input_capacity: usize,
    output_capacity: usize,
    checksum: L4Checksum,
    super_frames: bool,
}

impl Wire {
    fn buffer(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(bytes.len() + HEADROOM));
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < self.spare.capacity() {
            self.spare.push(buffer);
        }
    }
}

fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frames, VECTOR};

    fn pool() -> Pool {
        Pool::new(Frames::new(1024, 2048, false).unwrap(), 512)
    }

    #[test]
    fn packets_pass_both_ways_in_order() {
        let mut pool = pool();
        let (mut device, wire) = Memory::new(4);
        wire.set_checksum(L4Checksum::MaybePartial);
        for n in 0..4 {
            assert!(wire.push(&[n; 60]));
        }
        assert!(!wire.push(&[4; 60]), "full");
        let mut vector = Vector::default();
        assert_eq!(device.receive(&mut pool, &mut vector, 3, Nanos(0)), 3);
        assert_eq!(wire.waiting(), 1);
        assert_eq!(pool.nth(&mut vector, 2).bytes(), [2; 60]);
        assert_eq!(pool.nth(&mut vector, 2).meta.checksum, L4Checksum::MaybePartial);

        wire.set_tx_capacity(2);
        device.transmit(&mut pool, &mut vector, Nanos(0));
        assert_eq!((vector.len(), device.counters().tx_full), (1, 1));
        assert_eq!(wire.pop(), Some(vec![0; 60]));
        device.transmit(&mut pool, &mut vector, Nanos(0));
        assert_eq!((wire.pop(), wire.pop(), wire.pop()), (Some(vec![1; 60]), Some(vec![2; 60]), None));
        let counters = device.counters();
        assert_eq!((counters.rx_packets, counters.tx_packets, counters.rx_bytes), (3, 3, 180));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_no_frame_lost() {
        let mut pool = pool();
        let frames = pool.frames().clone();
        let (mut device, wire) = Memory::new(4);
        assert!(wire.push(&[0; 4000]) && wire.push(&[1; 60]));
        let mut vector = Vector::default();
        assert_eq!(device.receive(&mut pool, &mut vector, VECTOR, Nanos(0)), 1);
        assert_eq!(device.counters().kernel.rx_dropped, 1);
        pool.nth(&mut vector, 0).meta.len = 5000;
        device.transmit(&mut pool, &mut vector, Nanos(0));
        assert_eq!((device.counters().tx_unsendable, wire.pop()), (1, None));
        assert_eq!(pool.held() + frames.in_depot(), 1024);
    }
}
