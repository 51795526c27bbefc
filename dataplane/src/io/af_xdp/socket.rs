//! An AF_XDP socket: registration of the packet memory, options, rings, binding, wake-ups.
//!
//! Numbers and structures are those of <linux/if_xdp.h>.

use super::ring::{Consumer, Descriptor, Entry, Mapping, Offsets, Producer, ring_bytes};
use crate::io::KernelCounters;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Copy the packet between kernel and region.
pub const XDP_COPY: u16 = 1 << 1;
/// Let the hardware reach the region.
pub const XDP_ZEROCOPY: u16 = 1 << 2;
/// The kernel says in the ring when it needs a system call.
pub const XDP_USE_NEED_WAKEUP: u16 = 1 << 3;

/// How long a queue may stay busy after its last socket was closed: the kernel lets go of it
/// in its own time.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);
const RELEASE_POLL: Duration = Duration::from_millis(2);

/// A socket without memory or queue. Remembers the network namespace that it was made in.
pub struct Unbound(OwnedFd);

impl Unbound {
    /// Makes one.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; a fresh descriptor, owned by nobody else.
        unsafe {
            let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            checked(fd)?;
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Waits until no socket holds `queue` of the interface any more, on this side or in the
    /// kernel: that is so when another one, this, can have it, or the interface is gone.
    pub fn wait_until_free(self, interface: u32, queue: u32) -> io::Result<()> {
        let page = Mapping::anonymous(4096)?;
        // SAFETY: no frame of this memory is ever put into a ring.
        let socket = unsafe { Socket::new(self, page.region(), 2048, RingSizes { rx: 2, tx: 2 })? };
        match socket.bind(interface, queue, XDP_COPY) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            done => done,
        }
    }
}

/// Entries in the rings of a socket. Powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Receive and fill ring.
    pub rx: u32,
    /// Transmit and completion ring.
    pub tx: u32,
}

/// A socket with memory and rings; of use once it is bound.
pub struct Socket {
    /// Received packets.
    pub rx: Consumer<Descriptor>,
    /// Packets to send.
    pub tx: Producer<Descriptor>,
    /// Empty frames for the kernel to receive into.
    pub fill: Producer<u64>,
    /// Frames whose packet was sent.
    pub completion: Consumer<u64>,
    fd: OwnedFd,
}

impl Socket {
    /// Gives the socket `region`, cut into frames of `frame_size` bytes, and makes its rings.
    ///
    /// # Safety
    /// What is pushed to `fill` or `tx` is a frame within the region that nobody else touches
    /// until it comes back from `rx` or `completion`, or the kernel has let go of the queue.
    pub unsafe fn new(
        Unbound(fd): Unbound,
        (base, bytes): (NonNull<u8>, usize),
        frame_size: u32,
        sizes: RingSizes,
    ) -> io::Result<Self> {
        let registration = UmemRegistration {
            addr: base.as_ptr() as u64,
            len: bytes as u64,
            chunk_size: frame_size,
            ..UmemRegistration::default()
        };
        set_option(&fd, XDP_UMEM_REG, registration)?;
        set_option(&fd, XDP_RX_RING, sizes.rx)?;
        set_option(&fd, XDP_TX_RING, sizes.tx)?;
        set_option(&fd, XDP_UMEM_FILL_RING, sizes.rx)?;
        set_option(&fd, XDP_UMEM_COMPLETION_RING, sizes.tx)?;
        let offsets: MapOffsets = option(&fd, XDP_MMAP_OFFSETS)?;
        // SAFETY: the kernel made rings of these sizes at these offsets, and each side is made
        // once here.
        unsafe {
            Ok(Self {
                rx: Consumer::new(
                    map::<Descriptor>(&fd, PGOFF_RX, &offsets.rx, sizes.rx)?,
                    &offsets.rx,
                    sizes.rx,
                ),
                tx: Producer::new(
                    map::<Descriptor>(&fd, PGOFF_TX, &offsets.tx, sizes.tx)?,
                    &offsets.tx,
                    sizes.tx,
                ),
                fill: Producer::new(
                    map::<u64>(&fd, PGOFF_FILL, &offsets.fill, sizes.rx)?,
                    &offsets.fill,
                    sizes.rx,
                ),
                completion: Consumer::new(
                    map::<u64>(&fd, PGOFF_COMPLETION, &offsets.completion, sizes.tx)?,
                    &offsets.completion,
                    sizes.tx,
                ),
                fd,
            })
        }
    }

    /// Binds to a queue, waiting for up to two seconds for the kernel to let go of it.
    pub fn bind(&self, interface: u32, queue: u32, flags: u16) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: interface,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let deadline = Instant::now() + RELEASE_DEADLINE;
        loop {
            // SAFETY: the address is a valid structure of the length given.
            let bound = checked(unsafe {
                libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
            });
            match bound {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(RELEASE_POLL);
                }
                done => return done,
            }
        }
    }

    /// The driver granted zero-copy.
    pub fn is_zerocopy(&self) -> io::Result<bool> {
        Ok(option::<u32>(&self.fd, XDP_OPTIONS)? & XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Packets the kernel may send a system call in copy mode; kernels before 6.17 always do 32.
    pub fn set_tx_budget(&self, packets: u32) -> io::Result<()> {
        set_option(&self.fd, XDP_MAX_TX_SKB_BUDGET, packets)
    }

    /// Has the driver polled by our system calls rather than by interrupts, for up to `usecs`
    /// microseconds and `budget` packets a call.
    pub fn prefer_busy_poll(&self, usecs: u32, budget: u32) -> io::Result<()> {
        set_socket_option(&self.fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)?;
        set_socket_option(&self.fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, usecs)?;
        set_socket_option(&self.fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, budget)
    }

    /// Has the kernel go on with the transmit ring. What it cannot do now it does when next woken.
    #[inline]
    pub fn wake_tx(&self) {
        // SAFETY: an empty message. An error (EAGAIN, EBUSY, ENOBUFS, ENETDOWN) leaves the
        // packets in the ring, where the caller sees them.
        unsafe {
            libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
    }

    /// Has the kernel go on with the fill ring, or poll the driver.
    #[inline]
    pub fn wake_rx(&self) {
        // SAFETY: an empty buffer.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    /// What the kernel counted.
    pub fn statistics(&self) -> io::Result<KernelCounters> {
        let s: Statistics = option(&self.fd, XDP_STATISTICS)?;
        Ok(KernelCounters {
            rx_dropped: s.rx_dropped,
            rx_ring_full: s.rx_ring_full,
            fill_ring_empty: s.rx_fill_ring_empty_descs,
            invalid_descriptors: s.rx_invalid_descs + s.tx_invalid_descs,
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const XDP_MMAP_OFFSETS: i32 = 1;
const XDP_RX_RING: i32 = 2;
const XDP_TX_RING: i32 = 3;
const XDP_UMEM_REG: i32 = 4;
const XDP_UMEM_FILL_RING: i32 = 5;
const XDP_UMEM_COMPLETION_RING: i32 = 6;
const XDP_STATISTICS: i32 = 7;
const XDP_OPTIONS: i32 = 8;
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;

const PGOFF_RX: i64 = 0;
const PGOFF_TX: i64 = 0x8000_0000;
const PGOFF_FILL: i64 = 0x1_0000_0000;
const PGOFF_COMPLETION: i64 = 0x1_8000_0000;

/// `struct xdp_umem_reg`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct UmemRegistration {
    addr: u64,
    len: u64,
    chunk_size: u32,
    headroom: u32,
    flags: u32,
    tx_metadata_len: u32,
}

/// `struct xdp_mmap_offsets`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MapOffsets {
    rx: Offsets,
    tx: Offsets,
    fill: Offsets,
    completion: Offsets,
}

/// `struct xdp_statistics`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Statistics {
    rx_dropped: u64,
    rx_invalid_descs: u64,
    tx_invalid_descs: u64,
    rx_ring_full: u64,
    rx_fill_ring_empty_descs: u64,
    tx_ring_empty_descs: u64,
}

/// What may be handed to, or filled by, a socket option of this file.
///
/// # Safety
/// Integers only, without padding.
unsafe trait OptionValue: Copy + Default {}
// SAFETY: an integer.
unsafe impl OptionValue for u32 {}
// SAFETY: two u64 and four u32.
unsafe impl OptionValue for UmemRegistration {}
// SAFETY: sixteen u64.
unsafe impl OptionValue for MapOffsets {}
// SAFETY: six u64.
unsafe impl OptionValue for Statistics {}

fn map<T: Entry>(fd: &OwnedFd, page: i64, offsets: &Offsets, size: u32) -> io::Result<Arc<Mapping>> {
    Ok(Arc::new(Mapping::of(fd.as_raw_fd(), page, ring_bytes::<T>(offsets, size))?))
}

fn set_option<T: OptionValue>(fd: &OwnedFd, name: i32, value: T) -> io::Result<()> {
    set_socket_option(fd, libc::SOL_XDP, name, value)
}

fn set_socket_option<T: OptionValue>(fd: &OwnedFd, level: i32, name: i32, value: T) -> io::Result<()> {
    // SAFETY: the value is of the length given and outlives the call.
    checked(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<T>() as u32)
    })
}

fn option<T: OptionValue>(fd: &OwnedFd, name: i32) -> io::Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most `len` bytes into the value, for which all bits are valid.
    checked(unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, name, (&raw mut value).cast(), &raw mut len)
    })?;
    if (len as usize) < size_of::<T>() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the kernel answers XDP socket option {name} with {len} bytes; Linux 5.9 or later is needed"
            ),
        ));
    }
    Ok(value)
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
