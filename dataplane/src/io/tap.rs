//! A tap device: the kernel's network stack at the other end of a file, one system call a packet.

use super::af_xdp::ifreq::{self, Interface};
use super::{Device, DeviceCounters, Transmitted};
use crate::net::{Mac, Nanos};
use crate::packet::{Frames, HEADROOM, Pool, Vector};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// A tap interface of one queue. It vanishes when the device is dropped, unless it was made to
/// stay by others. Frames are read straight into packet memory and written straight out of it.
pub struct Tap {
    file: File,
    interface: Interface,
    counters: DeviceCounters,
}

/// Why a tap cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel refused.
    #[error("tap {name}: {step}: {source}; it needs CAP_NET_ADMIN and /dev/net/tun")]
    Kernel {
        /// Its name.
        name: String,
        /// Which step.
        step: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// Its longest frames do not fit ours.
    #[error("tap {name} has MTU {mtu}, but a packet has {capacity} bytes; lower the MTU to {fits}")]
    Mtu {
        /// Its name.
        name: String,
        /// As set.
        mtu: u32,
        /// Of a frame of the packet memory.
        capacity: usize,
        /// The largest that would do.
        fits: usize,
    },
}

impl Tap {
    /// Opens the tap `name`, made if there is none, and sets it up.
    pub fn open(name: &str, frames: &Frames) -> Result<Self, TapError> {
        Self::open_with(name, frames, |_| Ok(()))
    }

    /// Opens the tap `name` for packets that are led to it, of up to `mtu` bytes, and sets it up. The
    /// kernel sends nothing by it of its own accord: it has no addresses, and IPv6 is off.
    ///
    /// What is led to it comes whole: a tap without offloads has the kernel cut super-frames and
    /// complete checksums first.
    pub fn open_passive(name: &str, mtu: u32, frames: &Frames) -> Result<Self, TapError> {
        let failed = |step| move |source| TapError::Kernel { name: name.into(), step, source };
        Self::open_with(name, frames, |interface| {
            interface.set_mtu(mtu).map_err(failed("setting the MTU"))?;
            // Where the kernel has no IPv6 there is no such file.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
            Ok(())
        })
    }

    fn open_with(
        name: &str,
        frames: &Frames,
        prepare: impl FnOnce(&Interface) -> Result<(), TapError>,
    ) -> Result<Self, TapError> {
        let failed = |step| move |source| TapError::Kernel { name: name.into(), step, source };
        let file = ifreq::open_tap(name).map_err(failed("opening"))?;
        let interface = Interface::named(name).map_err(failed("naming"))?;
        prepare(&interface)?;
        let mtu = interface.mtu().map_err(failed("asking for the MTU"))?;
        let fits = frames.capacity() - LINK_HEADER;
        if mtu as usize > fits {
            return Err(TapError::Mtu { name: name.into(), mtu, capacity: frames.capacity(), fits });
        }
        interface.set_up().map_err(failed("setting it up"))?;
        Ok(Self { file, interface, counters: DeviceCounters::default() })
    }

    /// The kernel's number of its end.
    pub fn index(&self) -> io::Result<u32> {
        self.interface.index()
    }

    /// The longest packet it takes.
    pub fn mtu(&self) -> io::Result<u32> {
        self.interface.mtu()
    }

    /// The Ethernet address of the kernel's end.
    pub fn mac(&self) -> io::Result<Mac> {
        self.interface.mac()
    }

    /// Sets the Ethernet address of the kernel's end.
    pub fn set_mac(&self, mac: Mac) -> io::Result<()> {
        self.interface.set_mac(mac)
    }
}

impl Device for Tap {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, _now: Nanos) -> usize {
        let max = max.min(into.room());
        let mut received = 0;
        while received < max {
            let Some(mut idx) = pool.alloc() else { break };
            let Ok(len) = self.file.read(pool.get(&mut idx).room_mut()) else {
                pool.free(idx);
                break;
            };
            let meta = pool.get(&mut idx).meta;
            (meta.data, meta.len) = (HEADROOM as u16, len as u32);
            into.push(idx);
            self.counters.rx_bytes += len as u64;
            received += 1;
        }
        self.counters.rx_packets += received as u64;
        received
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, _now: Nanos) -> Transmitted {
        let (mut position, mut outcome) = (0, Transmitted::default());
        while position < packets.len() {
            let packet = pool.nth(packets, position);
            let whole = packet.bytes().len() == packet.meta.len as usize;
            match if whole {
                self.file.write(packet.bytes())
            } else {
                Err(io::ErrorKind::InvalidInput.into())
            } {
                Ok(len) => {
                    outcome.sent += 1;
                    self.counters.tx_packets += 1;
                    self.counters.tx_bytes += len as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    outcome.unsendable += 1;
                    self.counters.tx_unsendable += 1;
                }
            }
            position += 1;
        }
        for idx in packets.drain().take(position) {
            pool.free(idx);
        }
        self.counters.tx_full += packets.len() as u64;
        outcome
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn counters(&self) -> DeviceCounters {
        self.counters
    }
}

/// Ethernet header and one VLAN tag.
const LINK_HEADER: usize = 14 + 4;
