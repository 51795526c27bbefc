#![doc = include_str!("README.md")]

pub mod af_xdp;
pub mod fault;
pub mod memory;
pub mod netlink;
pub mod offload;
pub mod pcap;
pub mod tap;

use crate::net::Nanos;
use crate::packet::{Pool, Vector};
use std::os::fd::BorrowedFd;

/// One queue of an interface, as one worker sees it. Never blocks, never allocates.
///
/// Devices compose: [`fault::Fault`] and [`pcap::Record`] wrap another device, and pass all of this on. What one does
/// that lends no frames to anybody, and cannot be waited for, needs not be said.
pub trait Device: Send {
    /// Receives up to `max` packets at the end of `into`, which has room for them. Sets each
    /// one's `data`, `len`, `checksum` and GSO fields, and a super-frame's `l4`. Returns how many packets that
    /// is: a super-frame counts as the segments that it stands for, here and in all counts.
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, now: Nanos) -> usize;

    /// Sends `packets`, first to last. Those the device cannot take stay in the vector.
    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, now: Nanos) -> Transmitted;

    /// Once per poll, after the last `transmit`: wakes the kernel where it asked for it, gives
    /// frames whose sending is over back to the pool, refills what `receive` needs.
    fn settle(&mut self, _pool: &mut Pool) {}

    /// What becomes readable when there is something to receive; `None`: cannot be waited for.
    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What the device has counted. A system call: not for every poll.
    fn counters(&self) -> DeviceCounters;

    /// Frames that are lent to the device.
    fn lent(&self) -> usize {
        0
    }

    /// Gives every frame back that can be had at once, before the device is dropped. Those the
    /// kernel may still touch come back to the depot when the device is dropped.
    fn close(&mut self, _pool: &mut Pool) {}
}

/// What became of the packets that are no longer in the vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transmitted {
    /// Taken for sending.
    pub sent: u32,
    /// Freed, because no device could send them.
    pub unsendable: u32,
    /// Freed on purpose by [`fault::Fault`].
    pub faulted: u32,
}

/// Counts of one device since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Received.
    pub rx_packets: u64,
    /// Received.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Packets `transmit` left in the vector for want of room; one that is tried twice counts twice.
    pub tx_full: u64,
    /// Packets `transmit` freed because no device could send them: cut short, or longer than their frame.
    pub tx_unsendable: u64,
    /// Packets dropped on purpose by [`fault::Fault`].
    pub faulted: u64,
    /// What the kernel counted, which is lost before it reaches us.
    pub kernel: KernelCounters,
}

/// `XDP_STATISTICS` of the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Longer than a frame, or, with copies, no frame to receive into.
    pub rx_dropped: u64,
    /// We were too slow to read.
    pub rx_ring_full: u64,
    /// We were too slow to give frames. With copies those packets are in `rx_dropped` too.
    pub fill_ring_empty: u64,
    /// Descriptors the kernel refused: a bug of ours.
    pub invalid_descriptors: u64,
}

impl KernelCounters {
    /// Packets that were for us and never reached us.
    pub fn lost(&self) -> u64 {
        // Without copies `rx_dropped` counts nothing.
        self.rx_dropped.max(self.fill_ring_empty) + self.rx_ring_full
    }
}
