//! AF_XDP: frames from the driver into our memory and back, past the kernel's network stack.
//!
//! A [`Program`] on the interface picks the frames that are ours and redirects each to the
//! socket of the queue that it came in by: [`AfXdp`], one a queue. On every socket four rings
//! carry frames, by their offset in the region, to the kernel and back (`ring`, `socket`).
//!
//! # One memory, many sockets
//!
//! Each socket registers the whole packet region as its own UMEM, rather than borrowing the
//! first one's with `XDP_SHARED_UMEM`. The frames are the same either way, and move from one
//! interface to another without a copy. But a borrowed UMEM can only be had from a socket that
//! stays bound, so the first interface could never be removed; and the kernel forces the
//! lender's mode on all borrowers, so a NIC with zero-copy and a veth without could not live in
//! one process. The price of a registration is page tables, 16 bytes for each 4 KiB.
//!
//! # Whose is a frame
//!
//! The kernel has a frame from the push onto the fill or transmit ring until it comes back by
//! the receive or completion ring; `lent` holds one bit for each. A device that is dropped
//! closes its socket and then waits until the kernel has let go of the queue, which it shows by
//! granting it to another socket; only then do the frames go back to the depot.

#![allow(unsafe_code)]

mod guard;
pub mod ifreq;
mod lead;
mod lent;
mod program;
mod ring;
mod share;
mod socket;
mod tcx;

pub use guard::Guard;
pub use lead::Lead;
pub use program::{Attachment, Ours, Program, ProgramError, Role};
pub use socket::RingSizes;
pub use tcx::Named;

use crate::io::{Device, DeviceCounters, Transmitted};
use crate::net::Nanos;
use crate::packet::{Frames, L4Checksum, Pool, Vector};
use ifreq::Interface;
use lent::Lent;
use ring::Descriptor;
use share::Share;
use socket::{Socket, Unbound, XDP_COPY, XDP_USE_NEED_WAKEUP, XDP_ZEROCOPY};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// How a socket is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Entries in the rings.
    pub rings: RingSizes,
    /// Free frames that the device holds at rest; in bursts up to `rings.rx`, more with zero-copy.
    pub frames: u32,
    /// Refuse to fall back to copies.
    pub require_zerocopy: bool,
    /// Poll the driver by our own system calls.
    pub busy_poll: Option<BusyPoll>,
}

impl Default for Options {
    fn default() -> Self {
        let rings = RingSizes { rx: 2048, tx: 2048 };
        Self { rings, frames: rings.rx, require_zerocopy: false, busy_poll: None }
    }
}

/// Preferred busy polling (`SO_PREFER_BUSY_POLL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// Microseconds a call may spin in the driver.
    pub usecs: u32,
    /// Packets a call may take.
    pub budget: u32,
}

/// What the kernel granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Where the program runs.
    pub attachment: Attachment,
    /// The hardware reaches our memory itself.
    pub zerocopy: bool,
    /// Busy polling, as asked for.
    pub busy_poll: bool,
}

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The interface's longest frames do not fit ours.
    #[error(
        "interface {interface} has MTU {mtu}: its frames of up to {longest} bytes do not fit the {capacity} \
         bytes that a packet has; lower the MTU to {fits}, or give --frame-size 4096"
    )]
    Mtu {
        /// Its name.
        interface: String,
        /// As set.
        mtu: u32,
        /// With Ethernet header and two VLAN tags.
        longest: usize,
        /// Of a frame of the packet memory.
        capacity: usize,
        /// The largest that would do.
        fits: usize,
    },
    /// No such queue.
    #[error(
        "interface {interface} has no receive queue {queue}: it has {queues}; see `ethtool -l {interface}`"
    )]
    Queue {
        /// Its name.
        interface: String,
        /// Asked for.
        queue: u32,
        /// What there are.
        queues: u32,
    },
    /// The ring sizes are not what the kernel takes.
    #[error("ring size {0} is not a power of two from 64 to 32768")]
    RingSize(u32),
    /// Zero-copy was demanded.
    #[error(
        "interface {interface}, queue {queue}: no zero-copy ({reason}); leave --require-zerocopy out to \
         copy, or use a driver that has it"
    )]
    NoZerocopy {
        /// Its name.
        interface: String,
        /// Receive queue.
        queue: u32,
        /// Why not.
        reason: String,
    },
    /// Another process has the queue.
    #[error("interface {interface}, queue {queue} is held by another AF_XDP socket; see `ss --xdp -a`")]
    Busy {
        /// Its name.
        interface: String,
        /// Receive queue.
        queue: u32,
    },
    /// The kernel refused a step.
    #[error("interface {interface}, queue {queue}: {step}: {source}")]
    Kernel {
        /// Its name.
        interface: String,
        /// Receive queue.
        queue: u32,
        /// Which step.
        step: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// The program does not take the socket.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// One queue of an interface. See the module's documentation.
///
/// Dropping it waits for the kernel, up to two seconds: do it on the control thread.
pub struct AfXdp {
    /// Always there but while it is dropped.
    socket: Option<Socket>,
    /// Finds out, at the end, that the kernel has let go of the queue.
    witness: Option<Unbound>,
    lent: Lent,
    share: Share,
    /// When `receive` was last called.
    now: Nanos,
    /// Of the frames lent, those that were to be sent.
    sending: usize,
    queue: u32,
    granted: Granted,
    counters: DeviceCounters,
    checksum: L4Checksum,
    /// Held so that the program stays as long as one of its sockets.
    program: Arc<Program>,
    frames: Arc<Frames>,
}

impl AfXdp {
    /// Opens the socket of `queue` and enters it with the interface's program. It receives from
    /// the first [`Device::settle`] on, which gives it frames.
    ///
    /// Waits for up to two seconds while the kernel still lets go of the queue's last socket.
    pub fn open(
        program: &Arc<Program>,
        queue: u32,
        frames: &Arc<Frames>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let name = program.interface();
        let failed = |step| move |source| OpenError::Kernel { interface: name.into(), queue, step, source };
        let mtu = Interface::named(name).and_then(|i| i.mtu()).map_err(failed("asking for the MTU"))?;
        check_mtu(name, mtu, frames.capacity())?;
        if queue >= program.queues() {
            return Err(OpenError::Queue { interface: name.into(), queue, queues: program.queues() });
        }
        for size in [options.rings.rx, options.rings.tx] {
            if !size.is_power_of_two() || !(64..=32768).contains(&size) {
                return Err(OpenError::RingSize(size));
            }
        }

        let witness = Unbound::new().map_err(failed("making an AF_XDP socket"))?;
        let unbound = Unbound::new().map_err(failed("making an AF_XDP socket"))?;
        // SAFETY: this device pushes only frames that it was lent by the pool, once each (`lent`),
        // and gives them back when they came back, or on drop when the kernel let go.
        let socket = unsafe { Socket::new(unbound, frames.region(), frames.frame_size(), options.rings) }
            .map_err(failed(
                "registering the packet memory (CAP_IPC_LOCK lifts the limit on locked memory)",
            ))?;
        // A kernel before 6.17 has no such option, and sends 32 packets a call.
        let _ = socket.set_tx_budget(TX_BUDGET);
        if let Some(BusyPoll { usecs, budget }) = options.busy_poll {
            socket.prefer_busy_poll(usecs, budget).map_err(failed("asking for busy polling"))?;
        }
        bind(&socket, program, queue, options.require_zerocopy)?;
        let granted = Granted {
            attachment: program.attachment(),
            zerocopy: socket.is_zerocopy().map_err(failed("asking for the mode"))?,
            busy_poll: options.busy_poll.is_some(),
        };
        program.enter(queue, socket.as_fd())?;
        Ok(Self {
            socket: Some(socket),
            witness: Some(witness),
            lent: Lent::new(frames.count(), frames.frame_size()),
            share: Share::new(options.frames, options.rings.rx),
            now: Nanos(0),
            sending: 0,
            queue,
            granted,
            counters: DeviceCounters::default(),
            checksum: match program.has_partial_checksums() {
                true => L4Checksum::MaybePartial,
                false => L4Checksum::Complete,
            },
            program: program.clone(),
            frames: frames.clone(),
        })
    }

    /// What the kernel granted.
    pub fn granted(&self) -> Granted {
        self.granted
    }

    /// The interface's program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// The queue's number.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Packets that the kernel was given and has not said are sent.
    pub fn sending(&self) -> usize {
        self.sending
    }

    /// Takes back the frames of packets that were sent.
    fn complete(&mut self, pool: &mut Pool) {
        let Some(socket) = &mut self.socket else { return };
        while let Some(offset) = socket.completion.pop() {
            if self.lent.remove(offset) {
                self.sending -= 1;
                // SAFETY: lent, as its bit said, by a pool of this region, and the kernel names
                // on the completion ring what it has done with.
                let idx = unsafe { pool.reclaim(offset, 0) };
                pool.free(idx);
            } else {
                self.counters.kernel.invalid_descriptors += 1;
            }
        }
        socket.completion.release();
    }

    /// Puts packets on the ring, as many as there is room for.
    fn push(&mut self, pool: &mut Pool, packets: &mut Vector, outcome: &mut Transmitted) {
        let Some(socket) = &mut self.socket else { return };
        let frame_size = self.frames.frame_size();
        let mut drain = packets.drain();
        while socket.tx.has_room() {
            let Some(mut idx) = drain.next() else { break };
            if pool.is_large(&idx) {
                // What has become short: an error about a super-frame.
                idx = pool.shrink(idx).unwrap_or_else(|large| large);
            }
            let large = pool.is_large(&idx);
            let meta = &*pool.get(&mut idx).meta;
            // The kernel swallows a descriptor that leaves its frame, and the frame with it.
            if u64::from(meta.data) + u64::from(meta.len) > u64::from(frame_size)
                || meta.len < ETHERNET_HEADER
                || large
            {
                let count = pool.get(&mut idx).count();
                outcome.unsendable += count as u32;
                self.counters.tx_unsendable += count;
                pool.free(idx);
                continue;
            }
            let (addr, len) = pool.lend_packet(idx);
            self.lent.insert(addr);
            self.sending += 1;
            socket.tx.push(Descriptor { addr, len, options: 0 });
            outcome.sent += 1;
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += u64::from(len);
        }
        drop(drain);
        socket.tx.publish();
    }

    /// Frames of another region must not come near our rings.
    #[inline]
    fn check(&self, pool: &Pool) {
        assert!(Arc::ptr_eq(pool.frames(), &self.frames), "the pool is of another region than the device");
    }
}

impl Device for AfXdp {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vector, max: usize, now: Nanos) -> usize {
        self.check(pool);
        self.now = now;
        let Some(socket) = &mut self.socket else { return 0 };
        let max = max.min(into.room());
        let mut received = 0;
        while received < max {
            let Some(Descriptor { addr, len, .. }) = socket.rx.pop() else { break };
            if !self.lent.remove(addr) {
                self.counters.kernel.invalid_descriptors += 1;
                continue;
            }
            // SAFETY: lent, as its bit said, by a pool of this region, and the kernel gives up
            // what it names on the receive ring.
            let mut idx = unsafe { pool.reclaim(addr, len) };
            pool.get(&mut idx).meta.checksum = self.checksum;
            into.push(idx);
            self.counters.rx_bytes += u64::from(len);
            received += 1;
        }
        socket.rx.release();
        self.counters.rx_packets += received as u64;
        received
    }

    fn transmit(&mut self, pool: &mut Pool, packets: &mut Vector, _now: Nanos) -> Transmitted {
        self.check(pool);
        let mut outcome = Transmitted::default();
        self.push(pool, packets, &mut outcome);
        if !packets.is_empty() && !self.granted.zerocopy {
            // A burst of segments may be longer than the ring. With copies, what is in it can be sent at once.
            if let Some(socket) = &mut self.socket {
                socket.wake_tx();
            }
            self.complete(pool);
            self.push(pool, packets, &mut outcome);
        }
        self.counters.tx_full += packets.len() as u64;
        outcome
    }

    fn settle(&mut self, pool: &mut Pool) {
        self.check(pool);
        if self.sending > 0
            && let Some(socket) = &mut self.socket
            // With copies, what has left the ring is sent; a driver may need more of our calls.
            && (socket.tx.pending() > 0 || self.granted.zerocopy)
            && socket.tx.needs_wakeup()
        {
            socket.wake_tx();
        }
        self.complete(pool);
        let Some(socket) = &mut self.socket else { return };
        let left = socket.fill.pending();
        let frames = &self.frames;
        let spare = || frames.in_depot() > frames.count() as usize / 2;
        for _ in left..self.share.look(left, self.now, spare) {
            let Some(idx) = pool.alloc() else { break };
            let offset = pool.lend(idx);
            self.lent.insert(offset);
            socket.fill.push(offset);
        }
        socket.fill.publish();
        if self.granted.busy_poll || socket.fill.needs_wakeup() {
            socket.wake_rx();
        }
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(Socket::as_fd)
    }

    fn counters(&self) -> DeviceCounters {
        let mut counters = self.counters;
        if let Some(Ok(kernel)) = self.socket.as_ref().map(Socket::statistics) {
            let invalid = counters.kernel.invalid_descriptors;
            counters.kernel = kernel;
            counters.kernel.invalid_descriptors += invalid;
        }
        counters
    }

    fn lent(&self) -> usize {
        self.lent.len()
    }

    fn close(&mut self, pool: &mut Pool) {
        self.check(pool);
        self.complete(pool);
        let Some(socket) = &mut self.socket else { return };
        while let Some(Descriptor { addr, .. }) = socket.rx.pop() {
            if self.lent.remove(addr) {
                // SAFETY: as in `receive`.
                let idx = unsafe { pool.reclaim(addr, 0) };
                pool.free(idx);
            }
        }
        socket.rx.release();
    }
}

impl Drop for AfXdp {
    fn drop(&mut self) {
        // Closing ends what the kernel begins anew; what it is at the middle of goes on.
        self.socket = None;
        if self.lent.len() == 0 {
            return;
        }
        let released = match self.witness.take() {
            Some(witness) => witness.wait_until_free(self.program.index(), self.queue),
            None => Ok(()),
        };
        match released {
            Ok(()) => {
                for offset in self.lent.drain() {
                    // SAFETY: lent, as its bit says, and the kernel has let go of the queue:
                    // another socket could have it.
                    unsafe { self.frames.give_back(offset) };
                }
            }
            Err(error) => tracing::error!(
                interface = self.program.interface(),
                queue = self.queue,
                frames = self.lent.len(),
                %error,
                "E002 the kernel does not let go of a closed AF_XDP socket: its frames are lost until restart"
            ),
        }
    }
}

/// The longest frame of an interface with `mtu` must fit `capacity` bytes, those of
/// [`Frames::capacity`]. Also to be asked when an MTU changes.
pub fn check_mtu(interface: &str, mtu: u32, capacity: usize) -> Result<(), OpenError> {
    let overhead = ETHERNET_HEADER as usize + 2 * VLAN_TAG;
    let longest = mtu as usize + overhead;
    if longest <= capacity {
        return Ok(());
    }
    let fits = capacity.saturating_sub(overhead);
    Err(OpenError::Mtu { interface: interface.into(), mtu, longest, capacity, fits })
}

const ETHERNET_HEADER: u32 = 14;
const VLAN_TAG: usize = 4;
/// Packets a system call may send in copy mode: by measurement a fifth faster than the usual 32.
const TX_BUDGET: u32 = 1024;

fn bind(socket: &Socket, program: &Program, queue: u32, require_zerocopy: bool) -> Result<(), OpenError> {
    let interface = || program.interface().to_owned();
    let no_zerocopy = |reason: String| OpenError::NoZerocopy { interface: interface(), queue, reason };
    let mode = match (require_zerocopy, program.attachment()) {
        (true, Attachment::Generic) => {
            return Err(no_zerocopy("the driver has no XDP, the program runs in the stack".into()));
        }
        (true, Attachment::Native) => XDP_ZEROCOPY,
        // The driver would put frames into our memory and never run the program on them.
        (false, Attachment::Generic) => XDP_COPY,
        // The kernel tries zero-copy first.
        (false, Attachment::Native) => 0,
    };
    socket.bind(program.index(), queue, XDP_USE_NEED_WAKEUP | mode).map_err(|source| {
        match source.raw_os_error() {
            Some(libc::EBUSY) => OpenError::Busy { interface: interface(), queue },
            Some(libc::EOPNOTSUPP) if require_zerocopy => no_zerocopy("the driver does not offer it".into()),
            Some(_) if require_zerocopy => no_zerocopy(source.to_string()),
            _ => OpenError::Kernel { interface: interface(), queue, step: "binding", source },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_that_does_not_fit_is_refused_with_the_remedy() {
        assert!(check_mtu("eth0", 1500, 1792).is_ok());
        assert!(check_mtu("eth0", 1770, 1792).is_ok());
        let error = check_mtu("eth0", 1771, 1792).unwrap_err().to_string();
        for part in ["eth0", "MTU 1771", "1792", "1770", "--frame-size 4096"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
