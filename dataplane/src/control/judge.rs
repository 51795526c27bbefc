//! Many sessions judged by one state: each by the packet that opened it, as if it came now.

use super::desired::Endpoint;
use super::explain::Said;
use super::state::State;
use crate::conntrack::{IcmpState, State as Tracked};
use crate::net::{Addr, FlowKey, Icmp, Prefix, Proto};
use crate::policy::{Direction, EndpointIdx, Query};
use crate::worker::FlowSeen;
use margay_api::dataplane::v1 as pb;
use std::collections::HashMap;

/// A state, with whose address is whose at hand.
pub(super) struct Judge<'a> {
    state: &'a State,
    /// Workloads of single addresses.
    owners: HashMap<Addr, Owner<'a>>,
    /// Those that have more.
    wide: Vec<(Prefix, Owner<'a>)>,
}

/// The workload that has an address.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    /// Its display name.
    pub name: &'a str,
    /// `None`: no policy is held for it.
    pub endpoint: Option<EndpointIdx>,
    /// It is not switched off.
    pub active: bool,
}

impl<'a> Judge<'a> {
    /// Judges by `state`.
    pub fn new(state: &'a State) -> Self {
        let (mut owners, mut wide) = (HashMap::new(), vec![]);
        let owner = |endpoint: &'a Endpoint| Owner {
            name: &endpoint.name,
            endpoint: state.endpoint_index(&endpoint.id),
            active: endpoint.active,
        };
        for endpoint in state.desired().endpoints.values() {
            for net in &endpoint.nets {
                if *net == Prefix::host(net.addr()) {
                    owners.entry(net.addr()).or_insert(owner(endpoint));
                } else {
                    wide.push((*net, owner(endpoint)));
                }
            }
        }
        Self { state, owners, wide }
    }

    /// A workload of this node has the address.
    pub fn knows(&self, addr: Addr) -> bool {
        self.owner(addr).is_some()
    }

    /// The packet would pass.
    pub fn allows(&self, query: &Query) -> bool {
        let (src, dst) = (self.owner(query.key.src), self.owner(query.key.dst));
        if src.is_none() || dst.is_none() || !self.state.desired().host_endpoints.is_empty() {
            // The host has a part in it, or may have.
            return Said::of(self.state, query).allows();
        }
        let judged = |owner: Option<Owner<'_>>, direction| {
            owner.is_none_or(|Owner { endpoint, active, .. }| {
                active && endpoint.is_some_and(|of| self.state.policy().judge(of, direction, query).allow)
            })
        };
        judged(src, Direction::Egress) && judged(dst, Direction::Ingress)
    }

    /// What denies the packet, if something does.
    pub fn denier(&self, query: &Query) -> Option<pb::Direction> {
        Said::of(self.state, query).denier()
    }

    /// The workload of this node that has the address.
    pub fn owner(&self, addr: Addr) -> Option<Owner<'a>> {
        let wide = || self.wide.iter().find(|(net, _)| net.contains(addr)).map(|(_, owner)| *owner);
        self.owners.get(&addr).copied().or_else(wide)
    }
}

/// Policy would let the packet that opened the session pass, today.
pub(super) fn allows(state: &State, seen: &FlowSeen) -> bool {
    Said::of(state, &opened_by(seen)).allows()
}

/// The packet that opened a session as policy sees it: to where it leads, from where it came.
pub(super) fn opened_by(seen: &FlowSeen) -> Query {
    opening(&seen.key, &seen.reply_key, seen.state)
}

/// The same of a session's keys and its state.
pub(super) fn opening(key: &FlowKey, reply_key: &FlowKey, state: Tracked) -> Query {
    let icmp = match state {
        _ if !key.proto.is_icmp() => Icmp::default(),
        Tracked::Icmp(IcmpState::Message) => Icmp { kind: (key.dport >> 8) as u8, code: key.dport as u8 },
        // A session worth keeping is opened by a request.
        _ => Icmp { kind: if key.proto == Proto::ICMP6 { 128 } else { 8 }, code: 0 },
    };
    let (sport, dport) = if key.proto.has_ports() { (key.sport, reply_key.sport) } else { (0, 0) };
    Query { key: FlowKey { dst: reply_key.src, sport, dport, ..*key }, icmp }
}
