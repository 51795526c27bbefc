//! What the dataplane knows of its interfaces.

use super::{Scope, TunnelKind};
use crate::net::{Addr, IfId, Mac, Prefix, WorkerId};
use std::sync::Arc;

/// An interface, or a VLAN on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number here.
    pub id: IfId,
    /// Its name in the kernel, with `.vlan` behind it for a VLAN.
    pub name: Arc<str>,
    /// What is on its other side.
    pub role: Role,
    /// Its own address.
    pub mac: Mac,
    /// The largest IP packet it takes.
    pub mtu: u16,
    /// Ready to send and receive.
    pub up: bool,
    /// The interface whose device carries it; itself unless it is a VLAN.
    pub carrier: IfId,
    /// The tag its packets carry.
    pub vlan: Option<u16>,
    /// The workers that have a queue of it, to send by.
    pub queues: Vec<WorkerId>,
    /// This host's addresses on it, each with its prefix length.
    pub addresses: Vec<(Addr, u8)>,
    /// The host endpoint that protects it.
    pub host: Option<HostEndpoint>,
    /// Where packets pass on unchanged between the network and this host: from a protected uplink
    /// to its [`Role::Stack`], and from there to the uplink.
    pub through: Option<IfId>,
    /// What comes in by it is judged by untracked policy first.
    pub untracked: bool,
    /// Its device takes super-frames whole.
    pub super_frames: bool,
}

/// What is on the other side of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The network between nodes. Shared with the kernel.
    Uplink,
    /// The other nodes, through tunnels of a kind. No device carries it: its packets leave by an
    /// uplink, with more headers.
    Tunnel(TunnelKind),
    /// A workload. All its packets are ours.
    Workload(Workload),
    /// This host, over a tap.
    Host,
    /// This host's network stack behind a protected uplink: what the stack sends by the uplink
    /// comes in here, and what is sent here the stack receives as if from the uplink.
    Stack,
}

/// A host endpoint, by the numbers of its lists in the policy table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// For traffic of the host itself.
    pub normal: u32,
    /// Before conntrack; `None`: no such policy.
    pub untracked: Option<u32>,
    /// For what comes in, before destination NAT; `None`: no such policy.
    pub pre_dnat: Option<u32>,
    /// For what is forwarded; `None`: no such policy.
    pub forward: Option<u32>,
}

/// What is known of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name, for people: `default/web-0`.
    pub name: Arc<str>,
    /// Its number in the policy table.
    pub endpoint: u32,
    /// Switched on. Else nothing passes.
    pub active: bool,
    /// Its own addresses.
    pub nets: Vec<Prefix>,
    /// Addresses it may send from besides its own.
    pub spoofable: Vec<Prefix>,
    /// What others may open to it.
    pub ingress: Quota,
    /// What it may open.
    pub egress: Quota,
}

/// How many flows a workload may have in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// At a time; `None`: any number.
    pub flows: Option<u32>,
    /// New ones a second, not 0; `None`: any number.
    pub rate: Option<u32>,
}

impl Workload {
    /// Its own address of one family: the next hop of what is routed to it.
    pub fn address(&self, v4: bool) -> Option<Addr> {
        self.nets.iter().find(|net| net.is_v4() == v4).map(|net| net.addr())
    }

    /// Some of its flows are counted.
    pub fn has_quota(&self) -> bool {
        [self.ingress, self.egress] != [Quota::default(); 2]
    }

    /// It may send from `src`.
    #[inline]
    pub fn owns(&self, src: Addr) -> bool {
        self.nets.iter().chain(&self.spoofable).any(|net| net.contains(src))
    }
}

impl Interface {
    /// `addr` is on one of its connected prefixes.
    pub fn connects(&self, addr: Addr) -> bool {
        self.addresses.iter().any(|(own, len)| Prefix::truncate(*own, *len).contains(addr))
    }

    /// The address we send and answer from: on the tap to the host, the end that is ours.
    #[inline]
    pub fn source_mac(&self) -> Mac {
        match self.role {
            Role::Host => Interfaces::HOST_PORT_MAC,
            _ => self.mac,
        }
    }

    /// The scope of packets that come in here.
    #[inline]
    pub fn scope(&self) -> Scope {
        match self.role {
            Role::Workload(_) => Scope::Workload,
            Role::Uplink | Role::Tunnel(_) | Role::Host | Role::Stack => Scope::Host,
        }
    }

    /// This host is on its other side.
    #[inline]
    pub fn is_host(&self) -> bool {
        matches!(self.role, Role::Host | Role::Stack)
    }

    /// The number of its workload's policy, if it leads to one.
    #[inline]
    pub fn workload(&self) -> Option<&Workload> {
        match &self.role {
            Role::Workload(workload) => Some(workload),
            _ => None,
        }
    }
}

/// All interfaces, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(Vec<Option<Arc<Interface>>>);

impl Interfaces {
    /// The address that workloads have as their IPv4 gateway, on every link.
    pub const GATEWAY_V4: Addr = Addr::v4([169, 254, 1, 1]);
    /// The same for IPv6: made of the address ee:ee:ee:ee:ee:ee that Calico gives host-side links.
    pub const GATEWAY_V6: Addr = Addr::from_bits(0xfe80 << 112 | 0xecee_eeff_feee_eeee);
    /// Our end of the host port.
    pub const HOST_PORT_MAC: Mac = Mac([0x02, b'm', b'a', b'r', b'g', b'y']);

    /// From interfaces in any order.
    pub fn new(interfaces: impl IntoIterator<Item = Interface>) -> Self {
        let mut table = vec![];
        for interface in interfaces {
            let at = usize::from(interface.id.0);
            if table.len() <= at {
                table.resize(at + 1, None);
            }
            table[at] = Some(Arc::new(interface));
        }
        Self(table)
    }

    /// These with some others, or without some; `None`: nothing differs.
    pub fn with(&self, changes: impl IntoIterator<Item = (IfId, Option<Interface>)>) -> Option<Self> {
        let differs = |(id, interface): &(IfId, Option<Interface>)| self.get(*id) != interface.as_ref();
        let mut changes = changes.into_iter().filter(differs).peekable();
        changes.peek()?;
        let mut table = self.0.clone();
        for (id, interface) in changes {
            let at = usize::from(id.0);
            if table.len() <= at {
                table.resize(at + 1, None);
            }
            table[at] = interface.map(Arc::new);
        }
        let len = table.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        table.truncate(len);
        Some(Self(table))
    }

    /// The interface of a number.
    #[inline]
    pub fn get(&self, id: IfId) -> Option<&Interface> {
        self.0.get(usize::from(id.0)).and_then(|slot| slot.as_deref())
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Interface> {
        self.0.iter().flatten().map(|interface| &**interface)
    }

    /// The interface for a tag on `carrier`; the carrier itself for none.
    #[inline]
    pub fn tagged(&self, carrier: IfId, vlan: Option<u16>) -> Option<&Interface> {
        match vlan {
            None => self.get(carrier),
            Some(_) => self.iter().find(|interface| interface.carrier == carrier && interface.vlan == vlan),
        }
    }

    /// An address of this host to send errors from, on `near` if it has one.
    pub fn source(&self, near: IfId, v4: bool) -> Option<Addr> {
        let of = |interface: &Interface| {
            let mut own = interface.addresses.iter().map(|(addr, _)| *addr);
            own.find(|addr| addr.is_v4() == v4 && !addr.is_link_local())
        };
        self.get(near).and_then(of).or_else(|| self.iter().find_map(of))
    }
}
