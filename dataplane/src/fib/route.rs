//! Routes as they are wanted.

use super::Tunnel;
use crate::net::{Addr, IfId};
use std::sync::Arc;

/// Where a wanted route leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteTarget {
    /// A workload of this node.
    Workload(IfId),
    /// Routers, other nodes, or a link: one of them for each flow.
    Via(Arc<[NextHop]>),
    /// Another node, through a tunnel.
    Tunnel(Tunnel),
    /// An address of this host.
    Local,
    /// Nowhere, in silence: ours to route, but nobody has it.
    Blackhole,
    /// Nowhere, and the sender is told that nobody is there.
    Unreachable,
    /// Nowhere, and the sender is told that it is forbidden.
    Prohibit,
}

impl RouteTarget {
    /// By one gateway, over whichever interface is connected to it, or leads to it.
    pub fn gateway(gateway: Addr) -> Self {
        Self::Via([NextHop { gateway: Some(gateway), ..NextHop::default() }].into())
    }
}

/// One of the ways of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// Its address; `None`: the destination itself is on the link.
    pub gateway: Option<Addr>,
    /// Over this interface; `None`: whichever is connected to the gateway, else the route to the gateway decides.
    pub interface: Option<IfId>,
    /// The gateway is on that interface's link, though no prefix of the interface holds it.
    pub on_link: bool,
    /// Its share of the flows, beside those of the others. Not 0.
    pub weight: u32,
}

impl Default for NextHop {
    fn default() -> Self {
        Self { gateway: None, interface: None, on_link: false, weight: 1 }
    }
}

/// Who wants a route. Of two with one prefix, the first one's holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// This host has the address.
    Own,
    /// The agent.
    Agent,
    /// A routing table of the kernel.
    Kernel,
    /// An uplink is connected to the prefix.
    Connected,
}

impl Origin {
    /// All, the first first.
    pub const ALL: [Self; 4] = [Self::Own, Self::Agent, Self::Kernel, Self::Connected];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Agent => "agent",
            Self::Kernel => "kernel",
            Self::Connected => "connected",
        }
    }
}

/// Where a packet comes from, as far as routes are for some packets only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A workload of this node.
    Workload,
    /// The network, or this host.
    Host,
}

/// The tables of routes. A packet is looked up in its scope's first, then in the main one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableId {
    /// For all packets.
    #[default]
    Main,
    /// For those of one scope.
    Scoped(Scope),
}

impl TableId {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Main, Self::Scoped(Scope::Workload), Self::Scoped(Scope::Host)];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Scoped(Scope::Workload) => "workloads",
            Self::Scoped(Scope::Host) => "host",
        }
    }

    /// Its place among [`ALL`](Self::ALL).
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Main => 0,
            Self::Scoped(Scope::Workload) => 1,
            Self::Scoped(Scope::Host) => 2,
        }
    }
}
