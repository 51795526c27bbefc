//! The XDP programs that decide which frames of an interface are ours (`xdp.bpf.c`).

use super::ifreq::{Interface, Queues};
use crate::net::{Addr, Prefix, Proto};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError as AyaError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// What an interface is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The host's end of a workload's veth: every frame is ours, and dropped without a socket.
    Workload,
    /// The host uses it too: only packets to [`Program::set_ours`] are ours, and those are
    /// dropped without a socket. All others go to the kernel.
    Uplink,
}

/// Whose the packets to a prefix are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Owner {
    Workloads = 1,
    Host = 2,
}

/// What is served at a port of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Served {
    Service = 1,
    Tunnel = 2,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// In the driver.
    Native,
    /// In the network stack, after the kernel made a packet of its own of the frame: slower.
    Generic,
}

/// Why a program is not attached, or does not know a prefix.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is no such interface, or it does not answer.
    #[error("interface {interface}: {source}")]
    Interface {
        /// Its name.
        interface: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// Someone else's program is there.
    #[error(
        "interface {interface} has another XDP program; see `bpftool net`, and remove it with \
         `ip link set dev {interface} xdp off`, or end the process that holds it"
    )]
    Taken {
        /// Its name.
        interface: String,
    },
    /// The program cannot be tied to our life, so it could outlive us.
    #[error("interface {interface}: the kernel has no links for XDP programs; Linux 5.9 or later is needed")]
    NoLink {
        /// Its name.
        interface: String,
    },
    /// Neither of the two ways to attach.
    #[error(
        "interface {interface}: no XDP program can be attached, in the driver: {native}; \
         in the stack: {generic}"
    )]
    Attach {
        /// Its name.
        interface: String,
        /// The kernel's word.
        native: String,
        /// The kernel's word.
        generic: String,
    },
    /// The kernel takes neither the program nor its maps.
    #[error(
        "interface {interface}: cannot load our kernel program: {reason}; it needs CAP_BPF and CAP_NET_ADMIN, \
         or CAP_SYS_ADMIN"
    )]
    Load {
        /// Its name.
        interface: String,
        /// The kernel's word.
        reason: String,
    },
    /// The host's own traffic cannot be led by way of a tap.
    #[error(
        "interface {interface}: host endpoints cannot protect it, since no program can be attached to {at}: \
         {reason}; Linux 6.6 or later is needed"
    )]
    Guard {
        /// The uplink's name.
        interface: String,
        /// The interface that refused.
        at: String,
        /// The kernel's word.
        reason: String,
    },
    /// A workload's packets cannot be led by way of a tap.
    #[error(
        "interface {interface}: its packets cannot be led by a tap, since no program can be attached to {at}: \
         {reason}; Linux 6.6 or later is needed; without it, --workload-ports af-xdp"
    )]
    Lead {
        /// The workload's link.
        interface: String,
        /// The interface that refused.
        at: String,
        /// The kernel's word.
        reason: String,
    },
    /// A prefix was not added or removed; the others of the same call may have been.
    #[error("interface {interface}: prefix {prefix}: {reason} (at most 65536 prefixes of a family)")]
    Prefix {
        /// Its name.
        interface: String,
        /// Which.
        prefix: Prefix,
        /// The kernel's word.
        reason: String,
    },
    /// A socket cannot be entered.
    #[error("interface {interface}: socket of queue {queue}: {reason}")]
    Socket {
        /// Its name.
        interface: String,
        /// Receive queue.
        queue: u32,
        /// The kernel's word.
        reason: String,
    },
}

/// A program attached to an interface, until it is dropped or the process ends.
pub struct Program {
    interface: String,
    index: u32,
    role: Role,
    attachment: Attachment,
    queues: Queues,
    partial_checksums: bool,
    inner: Mutex<Inner>,
}

/// What of an interface's frames is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// Packets to these.
    pub prefixes: BTreeSet<Prefix>,
    /// The host's addresses, packets to which are ours too, with multicast and broadcast, while a
    /// host endpoint protects the interface; none: it does not.
    pub host: Vec<Addr>,
    /// Of the host's addresses, the ports at which services are served.
    pub sockets: BTreeSet<(Addr, Proto, u16)>,
    /// Of the host's addresses, where tunnels end: with the port for UDP, otherwise 0. So are ICMP
    /// errors that say what the way of a tunnel's packet takes.
    pub tunnels: BTreeSet<(Addr, Proto, u16)>,
}

struct Inner {
    sockets: XskMap<MapData>,
    ours4: LpmTrie<MapData, [u8; 4], u8>,
    ours6: LpmTrie<MapData, [u8; 16], u8>,
    guarded: Array<MapData, u32>,
    served: HashMap<MapData, [u8; 20], u8>,
    ours: BTreeMap<Prefix, Owner>,
    serves: BTreeMap<(Addr, Proto, u16), Served>,
    _link: FdLink,
    _loaded: Ebpf,
}

impl Program {
    /// Attaches the program for `role`: in the driver where that goes and `generic_only` does
    /// not forbid it, else in the stack.
    pub fn attach(interface: &str, role: Role, generic_only: bool) -> Result<Arc<Self>, ProgramError> {
        let failed = |source| ProgramError::Interface { interface: interface.into(), source };
        let facts = Interface::named(interface).map_err(failed)?;
        let index = facts.index().map_err(failed)?;
        let queues = facts.queues();

        let load = |reason: String| ProgramError::Load { interface: interface.into(), reason };
        let (name, served) = match role {
            // Asks none of the tables: the kernel need not keep room for them.
            Role::Workload => ("workload", 1),
            Role::Uplink => ("uplink", MAX_SERVED),
        };
        let mut loaded = loader()
            .map_max_entries("sockets", queues.max)
            .map_max_entries("served", served)
            .load(OBJECT)
            .map_err(|e| load(chain(&e)))?;
        let program: &mut Xdp = loaded
            .program_mut(name)
            .ok_or_else(|| load(format!("no program {name}")))?
            .try_into()
            .map_err(|e: AyaError| load(chain(&e)))?;
        program.load().map_err(|e| load(chain(&e)))?;
        let (link, attachment) = attach(program, interface, index, generic_only)?;

        let mut map = |name| loaded.take_map(name).ok_or_else(|| load(format!("no map {name}")));
        let (sockets, ours4, ours6) = (map("sockets")?, map("ours4")?, map("ours6")?);
        let (guarded, served) = (map("guarded")?, map("served")?);
        let wrong = |e: MapError| load(chain(&e));
        let inner = Inner {
            sockets: sockets.try_into().map_err(wrong)?,
            ours4: ours4.try_into().map_err(wrong)?,
            ours6: ours6.try_into().map_err(wrong)?,
            guarded: guarded.try_into().map_err(wrong)?,
            served: served.try_into().map_err(wrong)?,
            ours: BTreeMap::new(),
            serves: BTreeMap::new(),
            _link: link,
            _loaded: loaded,
        };
        Ok(Arc::new(Self {
            interface: interface.into(),
            index,
            role,
            attachment,
            queues,
            partial_checksums: facts.is_virtual(),
            inner: Mutex::new(inner),
        }))
    }

    /// Makes `ours` what is ours. What stays is ours throughout, and what is new is added before the
    /// old goes. After an error some may be missing: call again.
    pub fn set_ours(&self, ours: &Ours) -> Result<(), ProgramError> {
        let mut inner = self.inner();
        let of_host = ours.host.iter().map(|addr| (Prefix::host(*addr), Owner::Host));
        // A workload's address is the workload's, whoever else has it.
        let wanted: BTreeMap<Prefix, Owner> =
            of_host.chain(ours.prefixes.iter().map(|prefix| (*prefix, Owner::Workloads))).collect();
        let failed = |prefix, e: MapError| ProgramError::Prefix {
            interface: self.interface.clone(),
            prefix,
            reason: chain(&e),
        };
        for (&prefix, &owner) in &wanted {
            if inner.ours.get(&prefix) != Some(&owner) {
                inner.add(prefix, owner).map_err(|e| failed(prefix, e))?;
                inner.ours.insert(prefix, owner);
            }
        }
        let gone: Vec<Prefix> =
            inner.ours.keys().filter(|prefix| !wanted.contains_key(*prefix)).copied().collect();
        for prefix in gone {
            inner.remove(prefix).map_err(|e| failed(prefix, e))?;
            inner.ours.remove(&prefix);
        }
        let load = |e| ProgramError::Load { interface: self.interface.clone(), reason: chain(&e) };
        inner.serve(ours).map_err(load)?;
        inner.guarded.set(0, u32::from(!ours.host.is_empty()), 0).map_err(load)
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// What the interface is to us.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The kernel's number of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where the program runs.
    pub fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// Receive queues of the interface. Each needs a socket: frames of a queue without one are
    /// dropped.
    pub fn queues(&self) -> u32 {
        self.queues.current
    }

    /// A local stack may have left checksums of this interface's frames to hardware that is
    /// not there.
    pub(super) fn has_partial_checksums(&self) -> bool {
        self.partial_checksums
    }

    /// Frames of `queue` go to `socket` from now on, until it is closed.
    pub(super) fn enter(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), ProgramError> {
        self.inner().sockets.set(queue, socket, 0).map_err(|e| ProgramError::Socket {
            interface: self.interface.clone(),
            queue,
            reason: chain(&e),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, prefix: Prefix, owner: Owner) -> Result<(), MapError> {
        let len = u32::from(prefix.len());
        if prefix.is_v4() {
            self.ours4.insert(&Key::new(len, prefix.addr().v4_octets()), owner as u8, 0)
        } else {
            self.ours6.insert(&Key::new(len, prefix.addr().octets()), owner as u8, 0)
        }
    }

    fn serve(&mut self, ours: &Ours) -> Result<(), MapError> {
        let services = ours.sockets.iter().map(|socket| (*socket, Served::Service));
        let tunnels = ours.tunnels.iter().map(|socket| (*socket, Served::Tunnel));
        let wanted: BTreeMap<_, Served> = services.chain(tunnels).collect();
        for (&socket, &what) in &wanted {
            if self.serves.get(&socket) != Some(&what) {
                self.served.insert(socket_key(socket), what as u8, 0)?;
                self.serves.insert(socket, what);
            }
        }
        let gone: Vec<_> =
            self.serves.keys().filter(|socket| !wanted.contains_key(*socket)).copied().collect();
        for socket in gone {
            self.served.remove(&socket_key(socket))?;
            self.serves.remove(&socket);
        }
        Ok(())
    }

    fn remove(&mut self, prefix: Prefix) -> Result<(), MapError> {
        let len = u32::from(prefix.len());
        if prefix.is_v4() {
            self.ours4.remove(&Key::new(len, prefix.addr().v4_octets()))
        } else {
            self.ours6.remove(&Key::new(len, prefix.addr().octets()))
        }
    }
}

/// As `struct socket` has it.
fn socket_key((addr, proto, port): (Addr, Proto, u16)) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&addr.octets());
    key[16..18].copy_from_slice(&port.to_be_bytes());
    key[18] = proto.0;
    key
}

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp.bpf.o"));

/// Services and tunnels an uplink may know, by address, protocol and port.
const MAX_SERVED: u32 = 262_144;

/// The one loader of all programs. Making one reads the types of the whole kernel, for
/// relocations that our programs have none of: tens of milliseconds, which each interface would wait for.
pub(super) fn loader() -> MutexGuard<'static, EbpfLoader<'static>> {
    static LOADER: LazyLock<Mutex<EbpfLoader<'static>>> = LazyLock::new(|| {
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        Mutex::new(loader)
    });
    LOADER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attach(
    program: &mut Xdp,
    interface: &str,
    index: u32,
    generic_only: bool,
) -> Result<(FdLink, Attachment), ProgramError> {
    let mut refused = Vec::with_capacity(2);
    for (mode, attachment) in [(XdpMode::Driver, Attachment::Native), (XdpMode::Skb, Attachment::Generic)] {
        if generic_only && attachment == Attachment::Native {
            refused.push("not tried".to_owned());
            continue;
        }
        match program.attach_to_if_index(index, mode).and_then(|id| program.take_link(id)) {
            // Where the kernel has no links the library attaches by netlink, and that stays
            // after our end; dropping its link here detaches it.
            Ok(link) => match FdLink::try_from(link) {
                Ok(link) => return Ok((link, attachment)),
                Err(_) => return Err(ProgramError::NoLink { interface: interface.into() }),
            },
            Err(AyaError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(ProgramError::Taken { interface: interface.into() });
            }
            Err(e) => refused.push(chain(&e)),
        }
    }
    let generic = refused.pop().unwrap_or_default();
    let native = refused.pop().unwrap_or_default();
    Err(ProgramError::Attach { interface: interface.into(), native, generic })
}

/// An error with what caused it: the library's errors name only the call.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
