#![doc = include_str!("README.md")]

mod interface;
pub mod lpm;
mod multipath;
mod neighbour;
mod path_mtu;
mod rib;
mod route;
mod stations;
mod tunnel;

pub use interface::{HostEndpoint, Interface, Interfaces, Quota, Role, Workload};
pub use multipath::{Exit, Multipath};
pub use neighbour::{Hearing, Neighbour, NeighbourState, Neighbours, Probe};
pub use path_mtu::{PathMtus, believable};
pub use rib::{Rib, Shown};
pub use route::{NextHop, Origin, RouteTarget, Scope, TableId};
pub use tunnel::{
    FarEnd, KINDS, NearEnd, OfWorkloads, Overlay, PeerEnd, Tunnel, TunnelAdjacency, TunnelKind,
};

use crate::net::{Addr, IfId, PeerId};
use crate::wire::ethernet::Prebuilt;
use lpm::Lpm;
use stations::{Answered, Station};
use std::sync::Arc;

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// To the adjacency of this index: a neighbour's, or a tunnel's.
    Adjacency(u32),
    /// To a neighbour that did not answer yet.
    Unresolved {
        /// By this interface.
        tx_if: IfId,
        /// The interface that the neighbour is on: another one where `tx_if` is a tunnel's.
        link: IfId,
        /// At this address.
        next_hop: Addr,
    },
    /// To this host, which has no port to hand it over.
    Local,
    /// To nowhere: the address is of a pool of ours.
    Blackhole,
    /// To nowhere, and its sender is told that nobody is there.
    Unreachable,
    /// To nowhere, and its sender is told that it is forbidden.
    Prohibited,
    /// To nowhere: no route matches, or its interface or gateway is not there.
    NoRoute,
}

/// A resolved way out to a neighbour. Tunnels have a [`TunnelAdjacency`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// Interface to leave by.
    pub tx_if: IfId,
    /// The largest IP packet it takes, in bytes.
    pub mtu: u16,
    /// What to put before the IP packet.
    pub header: Prebuilt,
}

/// Routes, adjacencies and the lookup over them. Immutable; made by a [`Rib`].
pub struct Fib {
    main: Lpm,
    /// By scope; `None`: without any route.
    scoped: [Option<Lpm>; 2],
    /// Routes in all of them.
    routes: usize,
    /// By what the lookup finds.
    targets: Arc<[Target]>,
    stations: Arc<[Station]>,
    answered: Answered,
    /// Their indexes begin at [`Fib::TUNNELS`].
    tunnels: Arc<[TunnelAdjacency]>,
}

/// Where routes lead.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Way(Way),
    Tunnel {
        /// For whom packets are sealed in it, if they are.
        peer: Option<PeerId>,
        hop: Hop,
    },
    Multipath(Arc<Multipath>),
    Local,
    Blackhole,
    Unreachable,
    Prohibit,
    NoRoute,
}

/// One way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the neighbour of this number.
    Adjacency(u32),
    /// The destination itself is the neighbour, on this link.
    Connected(IfId),
}

impl Default for Fib {
    fn default() -> Self {
        Self {
            main: Lpm::default(),
            scoped: [None, None],
            routes: 0,
            targets: [].into(),
            stations: [].into(),
            answered: Default::default(),
            tunnels: [].into(),
        }
    }
}

impl Fib {
    /// Indexes of adjacencies from here on are those of tunnels, or stand for none.
    pub const TUNNELS: u32 = tunnel::FIRST;

    /// Where a packet to `dst` goes, that comes from somewhere in `scope` and whose flow has this hash.
    #[inline]
    pub fn lookup(&self, dst: Addr, scope: Scope, hash: u64) -> Hop {
        let scoped = self.scoped[scope as usize].as_ref().and_then(|lpm| lpm.lookup(dst));
        let Some(number) = scoped.or_else(|| self.main.lookup(dst)) else { return Hop::NoRoute };
        match self.targets.get(number as usize) {
            Some(Target::Way(way)) => self.hop(*way, dst),
            Some(Target::Multipath(several)) => self.hop(several.way(hash), dst),
            Some(Target::Tunnel { hop, .. }) => *hop,
            Some(Target::Local) => Hop::Local,
            Some(Target::Blackhole) => Hop::Blackhole,
            Some(Target::Unreachable) => Hop::Unreachable,
            Some(Target::Prohibit) => Hop::Prohibited,
            Some(Target::NoRoute) | None => Hop::NoRoute,
        }
    }

    /// The peer that packets to `addr` are sealed for: the one that packets from there must come from.
    #[inline]
    pub fn peer(&self, addr: Addr) -> Option<PeerId> {
        match self.targets.get(self.main.lookup(addr)? as usize)? {
            Target::Tunnel { peer, .. } => *peer,
            _ => None,
        }
    }

    /// The adjacency of an index that [`lookup`](Self::lookup) gave, if it is a neighbour's.
    #[inline]
    pub fn adjacency(&self, index: u32) -> Option<&Adjacency> {
        match self.stations.get(index as usize) {
            Some(Station::Resolved(adjacency)) => Some(adjacency),
            _ => None,
        }
    }

    /// The same, if it is a tunnel's.
    #[inline]
    pub fn tunnel(&self, index: u32) -> Option<&TunnelAdjacency> {
        self.tunnels.get(index.checked_sub(Self::TUNNELS)? as usize)
    }

    /// Every tunnel that is resolved.
    pub fn tunnels(&self) -> &[TunnelAdjacency] {
        &self.tunnels
    }

    /// The interface by which packets leave that take an adjacency of either kind.
    #[inline]
    pub fn leaves_by(&self, index: u32) -> Option<IfId> {
        match index < Self::TUNNELS {
            true => self.adjacency(index).map(|adjacency| adjacency.tx_if),
            false => self.tunnel(index).map(|tunnel| tunnel.tx_if),
        }
    }

    /// The largest IP packet that an adjacency of either kind takes.
    pub fn mtu(&self, index: u32) -> Option<u16> {
        match index < Self::TUNNELS {
            true => self.adjacency(index).map(|adjacency| adjacency.mtu),
            false => self.tunnel(index).map(|tunnel| tunnel.mtu),
        }
    }

    /// Routes in the table, those that follow from interfaces included.
    pub fn len(&self) -> usize {
        self.routes
    }

    /// No route at all.
    pub fn is_empty(&self) -> bool {
        self.routes == 0
    }

    #[inline]
    fn hop(&self, way: Way, dst: Addr) -> Hop {
        match way {
            Way::Adjacency(index) => match self.stations.get(index as usize) {
                Some(Station::Resolved(_)) => Hop::Adjacency(index),
                Some(Station::Unresolved { tx_if, addr }) => {
                    Hop::Unresolved { tx_if: *tx_if, link: *tx_if, next_hop: *addr }
                }
                None => Hop::NoRoute,
            },
            Way::Connected(tx_if) => match self.answered.get(&(tx_if, dst)) {
                Some(index) => Hop::Adjacency(index),
                None => Hop::Unresolved { tx_if, link: tx_if, next_hop: dst },
            },
        }
    }
}
