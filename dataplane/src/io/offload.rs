//! A tap device that takes and gives super-frames: what a local stack would have left to hardware (segmentation, checksums)
//! is left to us, and the other way round. For workloads.
//!
//! Before each frame stands a `virtio_net_hdr` (Virtio 1.2 §5.1.6), read and written in the frame's headroom: one call a
//! frame, and no gathering. A read offers a frame first and a large buffer behind it, so that only what is longer than a frame
//! touches one. Segments of one connection that leave together are put together on the way out, without a copy, by one `writev`.

mod header;
mod train;

use super::af_xdp::ifreq::{self, Interface};
use super::tap::TapError;
use super::{Device, DeviceCounters, Transmitted};
use crate::net::Nanos;
use crate::packet::{HEADROOM, Packet, PktIdx, Pool, VECTOR, Vector};
use crate::wire::{ethernet, ip6, read_u16};
use arrayvec::ArrayVec;
use header::{HEADER, Header};
use std::fs::File;
use std::io::{IoSliceMut, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use train::Trains;

/// Super-frames and frames that one `receive` takes: what they come to in segments should fit the ring of an uplink.
const AT_ONCE: usize = 32;
/// Reads in vain after which it is asked only now and then.
const QUIET: u8 = 64;
/// How often then: every so many polls. A worker that sleeps is woken by the descriptor.
const NOW_AND_THEN: u8 = 8;

/// One queue of a tap. The interface vanishes with the last of them.
pub struct OffloadTap {
    file: File,
    counters: DeviceCounters,
    /// Reads in vain, one after the other.
    vain: u8,
    polls: u8,
    trains: Box<Trains>,
}

/// An interface that was made, and its queues.
pub struct Made {
    /// The kernel's number for it.
    pub index: u32,
    /// One each.
    pub queues: Vec<OffloadTap>,
}

impl OffloadTap {
    /// Makes the tap `name` with so many queues, for packets that are led to it, and sets it up. The kernel sends nothing by
    /// it of its own accord: it has no addresses, and IPv6 is off.
    pub fn make(name: &str, queues: usize) -> Result<Made, TapError> {
        let failed = |step| move |source| TapError::Kernel { name: name.into(), step, source };
        let mut made = vec![];
        for _ in 0..queues {
            let file = ifreq::open_offload_tap(name).map_err(failed("opening"))?;
            let counters = DeviceCounters::default();
            made.push(Self { file, counters, vain: 0, polls: 0, trains: Box::default() });
        }
        let interface = Interface::named(name).map_err(failed("naming"))?;
        // Where the kernel has no IPv6 there is no such file.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        interface.set_up().map_err(failed("setting it up"))?;
        let index = interface.index().map_err(failed("asking for its number"))?;
        Ok(Made { index, queues: made })
    }

    /// One frame, or one super-frame, and how many packets that is.
    fn read(&mut self, pool: &mut Pool, large: &mut Option<PktIdx>) -> Option<(PktIdx, u64)> {
        let mut idx = pool.alloc()?;
        let Some(len) = read_into(&mut self.file, pool, &mut idx, large) else {
            pool.free(idx);
            return None;
        };
        let room = pool.get(&mut idx).room_mut().len();
        if len > room
            && let Some(mut whole) = large.take()
        {
            let (small, mut whole_packet) = pool.pair(&mut idx, &mut whole);
            let (from, to) = (small.place(START), whole_packet.place_mut(START));
            to[..from.len()].copy_from_slice(from);
            pool.free(std::mem::replace(&mut idx, whole));
        }
        let mut packet = pool.get(&mut idx);
        (packet.meta.data, packet.meta.len) = (HEADROOM as u16, len as u32);
        let header = packet.before_mut().map(|bytes| Header::parse(bytes)).unwrap_or_default();
        header.apply(&mut packet);
        if len == room {
            announce(&mut packet);
        }
        let count = packet.count();
        Some((idx, count))
    }
}

/// What fills its frame may have been longer, and no large buffer was there for the rest: then it is as long as it says, so that
/// `parse` finds that not all of it is there.
#[cold]
fn announce(packet: &mut Packet<'_>) {
    let ip = packet.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default();
    let said = match ip.first().map(|first| first >> 4) {
        Some(4) => read_u16(ip, 2).map(usize::from),
        Some(6) => read_u16(ip, 4).map(|len| ip6::HEADER_LEN + usize::from(len)),
        _ => return,
    };
    let said = said.map_or(0, |len| (ethernet::HEADER_LEN + len) as u32);
    packet.meta.len = packet.meta.len.max(said);
}

/// Where the header begins in a frame.
const START: usize = HEADROOM - HEADER;

/// Reads one frame: as much as fits one into `idx`, the rest behind that place of `large`. Its length.
fn read_into(
    file: &mut File,
    pool: &mut Pool,
    idx: &mut PktIdx,
    large: &mut Option<PktIdx>,
) -> Option<usize> {
    let read = match large {
        Some(large) => {
            let (mut small, mut large) = pool.pair(idx, large);
            let small = small.place_mut(START);
            let rest = START + small.len();
            file.read_vectored(&mut [IoSliceMut::new(small), IoSliceMut::new(large.place_mut(rest))])
        }
        None => file.read(pool.get(idx).place_mut(START)),
    };
    read.ok()?.checked_sub(HEADER)
}

impl Device for OffloadTap {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, _now: Nanos) -> usize {
        if self.vain >= QUIET {
            self.polls = (self.polls + 1) % NOW_AND_THEN;
            if self.polls != 0 {
                return 0;
            }
        }
        let mut large = pool.alloc_large();
        let mut received = 0;
        for _ in 0..max.min(into.room()).min(AT_ONCE) {
            let Some((mut idx, count)) = self.read(pool, &mut large) else { break };
            self.counters.rx_bytes += u64::from(pool.get(&mut idx).meta.len);
            into.push(idx);
            received += count;
            large = large.or_else(|| pool.alloc_large());
        }
        if let Some(large) = large {
            pool.free(large);
        }
        self.vain = if received > 0 { 0 } else { self.vain.saturating_add(1) };
        self.counters.rx_packets += received;
        received as usize
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, _now: Nanos) -> Transmitted {
        let mut outcome = Transmitted::default();
        let mut all: ArrayVec<Packet<'_>, VECTOR> = pool.all(packets).collect();
        self.trains.form(&all);
        for at in 0..all.len() {
            let Some((count, written)) = self.trains.write(&mut self.file, &mut all, at) else { continue };
            // It never has no room: what the receiver has no room for, its stack drops.
            match written {
                Ok(len) => {
                    outcome.sent += count as u32;
                    self.counters.tx_packets += count;
                    self.counters.tx_bytes += len.saturating_sub(HEADER) as u64;
                }
                Err(_) => {
                    outcome.unsendable += count as u32;
                    self.counters.tx_unsendable += count;
                }
            }
        }
        drop(all);
        pool.free_all(packets);
        outcome
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}
