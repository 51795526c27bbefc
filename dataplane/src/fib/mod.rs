#![doc = include_str!("README.md")]

mod interface;
pub mod lpm;
mod neighbour;
mod path_mtu;
mod tunnel;

pub use interface::{HostEndpoint, Interface, Interfaces, Quota, Role, Workload};
pub use neighbour::{Neighbours, Probe, Source};
pub use path_mtu::{PathMtus, believable};
pub use tunnel::{FarEnd, NearEnd, Overlay, Tunnel, TunnelAdjacency, TunnelKind};

use crate::net::{Addr, IfId, Mac, Prefix};
use crate::wire::ethernet::{self, Prebuilt};
use lpm::{Lpm, LpmError, Routes};
use std::collections::HashMap;

/// A route that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// What it matches.
    pub destination: Prefix,
    /// Where it leads.
    pub target: RouteTarget,
}

/// Where a wanted route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// A workload of this node.
    Workload(IfId),
    /// A router or another node, reached over an interface whose connected prefix holds it.
    Gateway {
        /// Its address.
        gateway: Addr,
        /// Over this interface; `None`: whichever is connected to it.
        interface: Option<IfId>,
    },
    /// Another node, through a tunnel.
    Tunnel(Tunnel),
    /// An address of this host.
    Local,
    /// Nowhere: ours to route, but nobody has it.
    Blackhole,
}

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

/// Routes, adjacencies and the lookup over them. Immutable.
pub struct Fib {
    lpm: Lpm,
    /// Routes in `lpm`.
    routes: usize,
    /// Each once: routes that lead to one place share the table's nodes.
    targets: Vec<Target>,
    adjacencies: Vec<Adjacency>,
    /// Their indexes begin at [`Fib::TUNNELS`].
    tunnels: Vec<TunnelAdjacency>,
    by_neighbour: HashMap<(IfId, Addr), u32, ahash::RandomState>,
}

/// What the lookup finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Hop(Hop),
    /// The destination itself is the neighbour.
    Connected(IfId),
}

impl Default for Fib {
    fn default() -> Self {
        Self {
            lpm: Lpm::default(),
            routes: 0,
            targets: vec![],
            adjacencies: vec![],
            tunnels: vec![],
            by_neighbour: HashMap::with_hasher(ahash::RandomState::with_seed(0)),
        }
    }
}

impl Fib {
    /// Indexes of adjacencies from here on are those of tunnels, or stand for none.
    pub const TUNNELS: u32 = tunnel::FIRST;

    /// Builds the table. To the wanted routes it adds those that follow from the interfaces:
    /// uplinks' connected prefixes, and every interface's own addresses as local.
    pub fn build(
        wanted: &[RouteEntry],
        interfaces: &Interfaces,
        neighbours: &Neighbours,
        overlay: &Overlay,
    ) -> Result<Self, LpmError> {
        let mut fib = Self::default();
        for (interface, addr, mac) in neighbours.resolved() {
            fib.add_neighbour(interfaces, interface, addr, mac);
        }
        let mut table: HashMap<Prefix, Target> = HashMap::new();
        for entry in wanted {
            if let Some(target) = fib.target(entry, interfaces) {
                table.insert(entry.destination, target);
            }
        }
        let local = fib.local(interfaces);
        for interface in interfaces.iter() {
            for (addr, len) in &interface.addresses {
                if interface.role == Role::Uplink && !addr.is_link_local() {
                    table.entry(Prefix::truncate(*addr, *len)).or_insert(Target::Connected(interface.id));
                }
                table.insert(Prefix::host(*addr), Target::Hop(local(*addr)));
            }
        }
        for entry in wanted.iter().filter(|entry| entry.target == RouteTarget::Local) {
            let hop = local(entry.destination.addr());
            table.insert(entry.destination, Target::Hop(hop));
        }
        // Last, since their own packets take the routes above: a tunnel never runs through another.
        let through_tunnels: Vec<(Prefix, Target)> =
            fib.through_tunnels(wanted, &table, overlay).map(|(to, hop)| (to, Target::Hop(hop))).collect();
        table.extend(through_tunnels);
        let mut sorted: Vec<_> = table.into_iter().collect();
        sorted.sort_unstable_by_key(|(prefix, _)| *prefix);
        let mut numbers: HashMap<Target, u32> = HashMap::new();
        let mut routes = Routes::new();
        for (prefix, target) in sorted {
            let number = *numbers.entry(target).or_insert_with(|| {
                fib.targets.push(target);
                fib.targets.len() as u32 - 1
            });
            routes.insert(prefix, number)?;
        }
        (fib.lpm, fib.routes) = (routes.publish(), routes.len());
        Ok(fib)
    }

    /// Where a packet to `dst` goes.
    #[inline]
    pub fn lookup(&self, dst: Addr) -> Hop {
        let Some(target) = self.lpm.lookup(dst).and_then(|index| self.targets.get(index as usize)) else {
            return Hop::NoRoute;
        };
        self.hop(*target, dst)
    }

    /// The adjacency of an index that [`lookup`](Self::lookup) gave, if it is a neighbour's.
    #[inline]
    pub fn adjacency(&self, index: u32) -> Option<&Adjacency> {
        self.adjacencies.get(index as usize)
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

    /// The adjacency of a neighbour, once it is resolved.
    pub fn neighbour(&self, interface: IfId, addr: Addr) -> Option<u32> {
        self.by_neighbour.get(&(interface, addr)).copied()
    }

    /// Routes in the table, those that follow from interfaces included.
    pub fn len(&self) -> usize {
        self.routes
    }

    /// No route at all.
    pub fn is_empty(&self) -> bool {
        self.routes == 0
    }

    fn add_neighbour(&mut self, interfaces: &Interfaces, interface: IfId, addr: Addr, mac: Mac) {
        let Some(interface) = interfaces.get(interface) else { return };
        let kind = if addr.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
        let index = self.adjacencies.len() as u32;
        self.adjacencies.push(Adjacency {
            tx_if: interface.id,
            mtu: interface.mtu,
            header: Prebuilt::new(mac, interface.mac, interface.vlan, kind),
        });
        self.by_neighbour.insert((interface.id, addr), index);
    }

    /// Where a wanted route leads; `None` for tunnels.
    fn target(&self, entry: &RouteEntry, interfaces: &Interfaces) -> Option<Target> {
        Some(match entry.target {
            // A workload with a whole prefix routes within it: its own address is the next hop.
            RouteTarget::Workload(id) => match interfaces.get(id).map(|interface| &interface.role) {
                Some(Role::Workload(workload)) => {
                    let own = workload.address(entry.destination.is_v4());
                    Target::Hop(self.via(id, own.unwrap_or(entry.destination.addr())))
                }
                _ => Target::Hop(Hop::NoRoute),
            },
            RouteTarget::Gateway { gateway, interface } => {
                let connected = |candidate: &&Interface| {
                    candidate.role == Role::Uplink
                        && interface.is_none_or(|wanted| wanted == candidate.id)
                        && candidate.connects(gateway)
                };
                match interfaces.iter().find(connected) {
                    Some(uplink) => Target::Hop(self.via(uplink.id, gateway)),
                    None => Target::Hop(Hop::NoRoute),
                }
            }
            RouteTarget::Tunnel(_) => return None,
            RouteTarget::Local => Target::Hop(Hop::Local),
            RouteTarget::Blackhole => Target::Hop(Hop::Blackhole),
        })
    }

    #[inline]
    fn hop(&self, target: Target, dst: Addr) -> Hop {
        match target {
            Target::Hop(hop) => hop,
            Target::Connected(tx_if) => self.via(tx_if, dst),
        }
    }

    #[inline]
    fn via(&self, tx_if: IfId, next_hop: Addr) -> Hop {
        match self.by_neighbour.get(&(tx_if, next_hop)) {
            Some(&index) => Hop::Adjacency(index),
            None => Hop::Unresolved { tx_if, link: tx_if, next_hop },
        }
    }

    /// Where the wanted routes into tunnels lead, by the routes of `table`.
    fn through_tunnels(
        &mut self,
        wanted: &[RouteEntry],
        table: &HashMap<Prefix, Target>,
        overlay: &Overlay,
    ) -> impl Iterator<Item = (Prefix, Hop)> {
        let mut hops: HashMap<Tunnel, Hop> = HashMap::new();
        wanted.iter().filter_map(move |entry| {
            let RouteTarget::Tunnel(tunnel) = entry.target else { return None };
            let hop = *hops.entry(tunnel).or_insert_with(|| {
                let longest = (0..=128).rev().map(|len| Prefix::truncate(tunnel.remote, len));
                let target = longest.filter_map(|prefix| table.get(&prefix)).next();
                let link = target.map_or(Hop::NoRoute, |target| self.hop(*target, tunnel.remote));
                self.tunnelled(tunnel, link, overlay)
            });
            Some((entry.destination, hop))
        })
    }

    /// What a route into `tunnel` comes to, whose own packets take the hop `link`.
    fn tunnelled(&mut self, tunnel: Tunnel, link: Hop, overlay: &Overlay) -> Hop {
        let adjacency = match link {
            Hop::Adjacency(index) => self.adjacency(index).and_then(|link| overlay.over(tunnel, link)),
            other => return overlay.unresolved(tunnel, other),
        };
        match adjacency {
            Some(adjacency) => {
                self.tunnels.push(adjacency);
                Hop::Adjacency(Self::TUNNELS + self.tunnels.len() as u32 - 1)
            }
            None => Hop::NoRoute,
        }
    }

    /// How to reach this host: over the host port, if there is one.
    fn local(&mut self, interfaces: &Interfaces) -> impl Fn(Addr) -> Hop + use<> {
        let port = interfaces.iter().find(|interface| interface.role == Role::Host);
        let hops = port.map(|port| {
            let mut add = |kind| {
                self.adjacencies.push(Adjacency {
                    tx_if: port.id,
                    mtu: port.mtu,
                    // Both ends of a tap are one address: the kernel takes what is sent to its own.
                    header: Prebuilt::new(port.mac, Interfaces::HOST_PORT_MAC, None, kind),
                });
                Hop::Adjacency(self.adjacencies.len() as u32 - 1)
            };
            (add(ethernet::IPV4), add(ethernet::IPV6))
        });
        move |addr| match hops {
            Some((v4, v6)) => {
                if addr.is_v4() {
                    v4
                } else {
                    v6
                }
            }
            None => Hop::Local,
        }
    }
}

#[cfg(test)]
mod tests;
