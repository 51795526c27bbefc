#![doc = include_str!("README.md")]

mod affinity;
mod assemble;
mod backends;
mod definition;
mod hash;
mod maglev;
mod stale;
#[cfg(test)]
mod tests;

pub use affinity::Affinity;
pub use assemble::Assembled;
pub use backends::{Backend, Backends};
pub use definition::{Definition, Endpoint, PortDefinition};
pub use maglev::{Member, Table};
pub use stale::Stale;

use crate::net::{Addr, FlowKey, Nanos, Prefix, Proto, SharedMap};
use crate::packet::DropReason;
use std::sync::Arc;

/// Where clients find a port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address; unspecified, of either family, for a node port: the addresses of this node.
    pub addr: Addr,
    /// TCP, UDP or SCTP.
    pub proto: Proto,
    /// The port there.
    pub port: u16,
}

/// What a frontend's address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The service's own.
    Cluster,
    /// A load balancer's.
    LoadBalancer,
    /// One that somebody leads to the nodes.
    External,
    /// This node's.
    Node,
}

/// A port of a service, of one IP version, as packets meet it.
#[derive(Debug, PartialEq)]
pub struct Port {
    /// Whose it is, as in `default/web`.
    pub service: Arc<str>,
    /// Empty, where there is but one.
    pub name: Arc<str>,
    /// Of both names: what hashes are salted with.
    pub salt: u64,
    /// Those for clients whom no policy keeps on one node.
    pub cluster: Arc<Backends>,
    /// Those of this node; `None` where no policy asks for them.
    pub local: Option<Arc<Backends>>,
    /// Clients in the cluster are served by this node's backends alone.
    pub internal_local: bool,
    /// Clients outside are served by this node's backends alone, and keep their address.
    pub external_local: bool,
    /// Seconds for which a client stays with its backend.
    pub affinity: Option<u32>,
    /// Who may use a load balancer's address; empty: everybody.
    pub source_ranges: Arc<[Prefix]>,
    /// Some backend can be used, be it on another node.
    pub served: bool,
    /// The number that the next new backend gets.
    next_number: u32,
}

/// A frontend's port, and what the frontend is.
#[derive(Clone, Debug)]
pub struct Bound {
    /// What the frontend's address is.
    pub kind: Kind,
    /// The port.
    pub port: Arc<Port>,
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && Arc::ptr_eq(&self.port, &other.port)
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A workload of this node.
    Workload,
    /// This node itself.
    Host,
    /// Neither.
    Outside,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is not for a service.
    NotAService,
    /// It goes to a backend.
    Backend(Target),
    /// Nobody is there to serve it, or not this client.
    Refused(DropReason),
}

/// The backend that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub addr: Addr,
    /// Its port.
    pub port: u16,
    /// The source must become an address of this node, or the answer would take another way back.
    pub snat: bool,
}

/// What would become of a packet to a service's port.
#[derive(Debug)]
pub struct Preview<'a> {
    /// The port, and what the address is.
    pub bound: &'a Bound,
    /// Between whom is chosen.
    pub set: &'a Backends,
    /// A traffic policy leaves backends of this node alone.
    pub local_only: bool,
    /// The client was sent there before.
    pub recalled: bool,
    /// Who is chosen, or why nobody.
    pub outcome: Result<(&'a Backend, Target), DropReason>,
}

/// All services. A clone is cheap, and shares what does not change.
#[derive(Clone, Debug, Default)]
pub struct Services {
    frontends: SharedMap<Frontend, Bound>,
    /// Addresses at which node ports are served, in order.
    node_addresses: Arc<[Addr]>,
    /// Every address of this node, in order.
    own_addresses: Arc<[Addr]>,
    affinity: Option<Arc<Affinity>>,
}

impl Services {
    /// What becomes of a packet that begins a flow.
    #[inline]
    pub fn choose(&self, key: &FlowKey, from: Origin, now: Nanos) -> Choice {
        if self.frontends.is_empty() {
            return Choice::NotAService;
        }
        self.chosen(key, from, now)
    }

    /// What a packet of this key is for, if it is for a service.
    pub fn find(&self, key: &FlowKey) -> Option<&Bound> {
        let at = |addr| self.frontends.get(&Frontend { addr, proto: key.proto, port: key.dport });
        at(key.dst).or_else(|| match self.node_addresses.binary_search(&key.dst) {
            Ok(_) => at(any_address(key.dst.is_v4())),
            Err(_) => None,
        })
    }

    /// All frontends, in order.
    pub fn frontends(&self) -> &SharedMap<Frontend, Bound> {
        &self.frontends
    }

    /// Addresses at which node ports are served, in order.
    pub fn node_addresses(&self) -> &Arc<[Addr]> {
        &self.node_addresses
    }

    /// Every address of this node, in order.
    pub fn own_addresses(&self) -> &Arc<[Addr]> {
        &self.own_addresses
    }

    /// With these frontends set, or taken out where `None`. They ascend.
    pub fn apply(&mut self, changes: &[(Frontend, Option<Bound>)]) {
        self.frontends.apply(changes);
    }

    /// The addresses of this node, in order: all, and those at which node ports are served.
    pub fn set_addresses(&mut self, own: Arc<[Addr]>, node_ports: Arc<[Addr]>) {
        (self.own_addresses, self.node_addresses) = (own, node_ports);
    }

    /// Where clients are remembered; without it their addresses' hash decides alone.
    pub fn set_affinity(&mut self, affinity: Arc<Affinity>) {
        self.affinity = Some(affinity);
    }

    /// Where clients are remembered.
    pub fn affinity(&self) -> Option<&Arc<Affinity>> {
        self.affinity.as_ref()
    }

    /// What would become of a packet that begins a flow to a service's port, and why. Nobody is
    /// remembered for it.
    pub fn preview(&self, key: &FlowKey, from: Origin, now: Nanos) -> Option<Preview<'_>> {
        let bound = self.find(key)?;
        let (set, local_only) = bound.set(from);
        let recalled = self.recalled(&bound.port, set, key, now).is_some();
        let outcome = self.backend(bound, set, key, now).map(|backend| (backend, target(backend, key, from)));
        Some(Preview { bound, set, local_only, recalled, outcome })
    }

    /// The address is a service's, and no other way leads on from it: of one of its frontends.
    pub fn claimant(&self, addr: Addr) -> Option<&Bound> {
        let first = Frontend { addr, proto: Proto(0), port: 0 };
        let (_, bound) = self.frontends.from(&first).next().filter(|(frontend, _)| frontend.addr == addr)?;
        self.own_addresses.binary_search(&addr).is_err().then_some(bound)
    }

    fn chosen(&self, key: &FlowKey, from: Origin, now: Nanos) -> Choice {
        let Some(bound) = self.find(key) else {
            return match self.claimant(key.dst) {
                Some(_) => Choice::Refused(DropReason::NoServicePort),
                None => Choice::NotAService,
            };
        };
        let (set, _) = bound.set(from);
        match self.backend(bound, set, key, now) {
            Ok(backend) => {
                if let (Some(_), Some(affinity)) = (bound.port.affinity, &self.affinity) {
                    affinity.remember(affinity.client(key.src, bound.port.salt), backend.number, now);
                }
                Choice::Backend(target(backend, key, from))
            }
            Err(reason) => Choice::Refused(reason),
        }
    }

    fn backend<'a>(
        &self,
        bound: &Bound,
        set: &'a Backends,
        key: &FlowKey,
        now: Nanos,
    ) -> Result<&'a Backend, DropReason> {
        let port = &*bound.port;
        if bound.kind == Kind::LoadBalancer && !port.admits(key.src) {
            return Err(DropReason::ServiceSourceRange);
        }
        let backend = match port.affinity {
            None => set.pick(hash::of_flow(key, port.salt)),
            Some(_) => {
                self.recalled(port, set, key, now).or_else(|| set.pick(hash::of_addr(key.src, port.salt)))
            }
        };
        backend.ok_or(match port.served {
            true => DropReason::NoLocalBackend,
            false => DropReason::NoBackend,
        })
    }

    /// Where the client was sent before, if it is to stay there.
    fn recalled<'a>(&self, port: &Port, set: &'a Backends, key: &FlowKey, now: Nanos) -> Option<&'a Backend> {
        let (timeout, affinity) = (port.affinity?, self.affinity.as_ref()?);
        let number = affinity.recall(affinity.client(key.src, port.salt), timeout, now)?;
        set.numbered(number)
    }
}

impl Bound {
    /// The backends for a client, and whether a traffic policy leaves those of this node alone.
    fn set(&self, from: Origin) -> (&Backends, bool) {
        // Policies bind their own clients alone: as kube-proxy does, what starts on this node takes
        // any backend of a service whose external policy is Local.
        let local = match self.kind {
            Kind::Cluster => self.port.internal_local,
            _ => self.port.external_local && from == Origin::Outside,
        };
        match (&self.port.local, local) {
            (Some(local), true) => (local, true),
            _ => (&self.port.cluster, false),
        }
    }
}

fn target(backend: &Backend, key: &FlowKey, from: Origin) -> Target {
    let hairpin = backend.addr == key.src;
    // A workload of this node is answered by way of this node, and so is whoever a workload of
    // this node answers.
    let elsewhere = from != Origin::Workload && !backend.local;
    Target { addr: backend.addr, port: backend.port, snat: hairpin || elsewhere }
}

impl Port {
    fn admits(&self, client: Addr) -> bool {
        self.source_ranges.is_empty() || self.source_ranges.iter().any(|range| range.contains(client))
    }

    /// Its sets.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<Backends>> {
        std::iter::once(&self.cluster).chain(&self.local)
    }
}

/// What stands for the addresses of this node in a [`Frontend`].
pub const fn any_address(v4: bool) -> Addr {
    if v4 { Addr::v4([0; 4]) } else { Addr::v6([0; 16]) }
}
