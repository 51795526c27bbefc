//! What the kernel tells of, and is told about, a network interface by `ioctl(2)`.
//!
//! Each request fills a structure of its own and hands it to the kernel for the length of one
//! call. The tap device uses it too: unsafe code of the room stays in this folder.

#![allow(unsafe_code)]

use crate::net::Mac;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// A network interface, by name, in the network namespace of the thread that named it.
pub struct Interface {
    socket: OwnedFd,
    name: [u8; libc::IFNAMSIZ],
}

/// Receive queues of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// In use.
    pub current: u32,
    /// At most, by the driver's word.
    pub max: u32,
}

impl Interface {
    /// Names the interface; that it exists is seen by the first question.
    pub fn named(name: &str) -> io::Result<Self> {
        let name = name_bytes(name)?;
        // SAFETY: no pointers; a fresh descriptor, owned by nobody else.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            checked(fd)?;
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { socket, name })
    }

    /// The kernel's number of the interface.
    pub fn index(&self) -> io::Result<u32> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: the kernel filled this member.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
    }

    /// The longest packet without its Ethernet header, in bytes.
    pub fn mtu(&self) -> io::Result<u32> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the kernel filled this member.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    /// Sets the longest packet.
    pub fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_mtu = mtu as libc::c_int;
        self.ask(libc::SIOCSIFMTU, &mut request)
    }

    /// The Ethernet address.
    pub fn mac(&self) -> io::Result<Mac> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: the kernel filled this member.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok(Mac(mac))
    }

    /// Sets the Ethernet address.
    pub fn set_mac(&self, mac: Mac) -> io::Result<()> {
        let mut request = self.request();
        // SAFETY: of all-integer members, for which zeroes are valid.
        let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
        address.sa_family = libc::ARPHRD_ETHER;
        for (to, from) in address.sa_data.iter_mut().zip(mac.0) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_hwaddr = address;
        self.ask(libc::SIOCSIFHWADDR, &mut request)
    }

    /// Sets the interface up.
    pub fn set_up(&self) -> io::Result<()> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel filled this member.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as i16;
        self.ask(libc::SIOCSIFFLAGS, &mut request)
    }

    /// How many queues receive. One, where the driver does not say.
    pub fn queues(&self) -> Queues {
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        match self.ethtool(&mut channels) {
            Ok(()) => Queues {
                current: (channels.rx + channels.combined).max(1),
                max: (channels.max_rx + channels.max_combined).max(channels.rx + channels.combined).max(1),
            },
            Err(_) => Queues { current: 1, max: 1 },
        }
    }

    /// There is no hardware behind it, as with a veth: frames come as a local stack left them.
    pub fn is_virtual(&self) -> bool {
        let mut info = DriverInfo::default();
        self.ethtool(&mut info).is_ok() && info.bus[0] == 0
    }

    /// The driver's name; empty where it does not say.
    pub fn driver(&self) -> String {
        let mut info = DriverInfo::default();
        let said = self.ethtool(&mut info).is_ok();
        let name = info.driver.split(|byte| *byte == 0).next().filter(|_| said).unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: of integers and a union of integers and pointers; zeroes are valid for all.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name) {
            *to = from as libc::c_char;
        }
        request
    }

    fn ask(&self, command: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: each command used in this file reads and writes one `ifreq`.
        checked(unsafe { libc::ioctl(self.socket.as_raw_fd(), command as _, request) })
    }

    fn ethtool<T: EthtoolCommand>(&self, command: &mut T) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = (command as *mut T).cast();
        // SAFETY: `ifru_data` points to the structure that its first field, the command, names,
        // and it outlives the call.
        checked(unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) })
    }
}

/// Opens the tap device `name`, made if there is none, with one queue, no packet information
/// in front of frames, not blocking.
pub fn open_tap(name: &str) -> io::Result<File> {
    open_tap_with(name, libc::IFF_TAP | libc::IFF_NO_PI)
}

/// Opens a queue of the tap device `name`, made if there is none, with a `virtio_net_hdr` in front of frames, and takes from
/// the kernel all that it would leave to hardware: checksums, and segments of TCP and, where the kernel has it (Linux 6.2),
/// UDP.
pub fn open_offload_tap(name: &str) -> io::Result<File> {
    const WITHOUT_UDP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    const USO: u32 = 0x20 | 0x40;
    let kind = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let file = open_tap_with(name, kind)?;
    let take = |what: u32| {
        // SAFETY: TUNSETOFFLOAD takes a number, by value.
        checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(what)) })
    };
    take(WITHOUT_UDP | USO).or_else(|_| take(WITHOUT_UDP))?;
    Ok(file)
}

fn open_tap_with(name: &str, flags: libc::c_int) -> io::Result<File> {
    let name = name_bytes(name)?;
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: of integers and a union of integers and pointers; zeroes are valid for all.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as i16;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
    Ok(file)
}

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// A structure of <linux/ethtool.h> that begins with the command whose argument it is.
trait EthtoolCommand {}

/// `struct ethtool_channels`
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl EthtoolCommand for Channels {}

/// `struct ethtool_drvinfo`
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    expansion_rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

impl Default for DriverInfo {
    fn default() -> Self {
        Self {
            command: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            version: [0; 32],
            firmware: [0; 32],
            bus: [0; 32],
            expansion_rom: [0; 32],
            reserved: [0; 12],
            counts: [0; 5],
        }
    }
}

impl EthtoolCommand for DriverInfo {}

fn name_bytes(name: &str) -> io::Result<[u8; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is not an interface name: 1 to {} bytes, no slash", libc::IFNAMSIZ - 1),
        ));
    }
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}

fn checked(result: RawFd) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_answers() {
        let lo = Interface::named("lo").unwrap();
        assert_eq!(lo.index().unwrap(), 1);
        assert!(lo.mtu().unwrap() >= 1280);
        assert_eq!(lo.mac().unwrap(), Mac::default());
        assert_eq!(lo.queues().current, 1);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for bad in ["", "a/b", "sixteen-bytes-xx", "nul\0"] {
            assert!(Interface::named(bad).is_err(), "{bad:?}");
        }
        assert!(Interface::named("no-such-if").unwrap().index().is_err());
    }
}
