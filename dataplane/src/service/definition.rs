//! What a service is, as the agent tells it.

use crate::net::{Addr, Prefix, Proto};
use std::sync::Arc;

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// As in `default/web`.
    pub name: Arc<str>,
    /// Its own addresses.
    pub cluster_ips: Vec<Addr>,
    /// Addresses that somebody leads to the nodes.
    pub external_ips: Vec<Addr>,
    /// Addresses of load balancers.
    pub load_balancer_ips: Vec<Addr>,
    /// Who may use those; empty: everybody.
    pub source_ranges: Arc<[Prefix]>,
    /// Its ports.
    pub ports: Vec<PortDefinition>,
    /// Who serves them.
    pub backends: Vec<Endpoint>,
    /// Seconds for which a client stays with its backend.
    pub affinity: Option<u32>,
    /// Clients in the cluster are served by this node's backends alone.
    pub internal_local: bool,
    /// Clients outside are served by this node's backends alone.
    pub external_local: bool,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDefinition {
    /// Empty, where there is but one.
    pub name: Arc<str>,
    /// TCP, UDP or SCTP.
    pub proto: Proto,
    /// On the service's addresses.
    pub port: u16,
    /// On this node's.
    pub node_port: Option<u16>,
}

/// One that may serve a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub addr: Addr,
    /// Which of the service's ports it has, by index, and where.
    pub ports: Box<[(u16, u16)]>,
    /// It takes new clients.
    pub ready: bool,
    /// It serves, even if it is about to end.
    pub serving: bool,
    /// It is about to end.
    pub terminating: bool,
    /// It is on this node.
    pub local: bool,
    /// Topology does not send this node's clients elsewhere.
    pub preferred: bool,
    /// Of the flows, in proportion to the others'; above zero.
    pub weight: u32,
}

impl Definition {
    /// Clients outside may have backends on other nodes.
    pub fn is_for_outside(&self) -> bool {
        let addressed = !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty();
        !self.external_local && (addressed || self.ports.iter().any(|port| port.node_port.is_some()))
    }
}

impl Endpoint {
    /// Where it serves the service's port of this index.
    pub fn port(&self, index: usize) -> Option<u16> {
        self.ports.iter().find(|(at, _)| usize::from(*at) == index).map(|(_, port)| *port)
    }

    /// It serves while it ends: for when nobody is ready (KEP-1669).
    pub const fn is_draining(&self) -> bool {
        self.serving && self.terminating
    }
}
