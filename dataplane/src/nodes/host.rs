//! What host endpoints say of a packet: Calico's order of things, stage by stage.
//!
//! ```text
//! from the network:  untracked ─► conntrack ─► preDNAT ─┬─ for this host: failsafe, normal, profiles
//!                                                       └─ forwarded: forward policy in, then out
//! from this host:    untracked ─► conntrack ─► failsafe, normal, profiles
//! ```
//!
//! What untracked or preDNAT policy allows sees no other policy of the interface it came in by;
//! workloads' policy is judged whatever a host endpoint says. A stage that has nothing to say lets
//! the packet on, but for normal policy, which ends in the profiles and then in a drop. Failsafe
//! ports go before all of it, for this host's own traffic only. The untracked stage is a node of
//! its own, [`Untracked`](super::Untracked); the others are asked when a flow begins, here.
//!
//! A host endpoint for all interfaces (`*`) stands on workloads' interfaces too, the other way
//! round: what a workload sends comes *in* to the node. There it has preDNAT and forward policy
//! only. Traffic from a workload to its own host is for DefaultEndpointToHostAction to decide, which
//! may hand it on to normal policy, after the workload's own and without failsafe ports; and traffic
//! from the host to its own workloads is not policed at all.

use super::policy::{from_host, workloads};
use super::staged;
use super::{World, world::flow_key};
use crate::fib::{Hop, HostEndpoint, Interface, Role};
use crate::net::{FlowKey, IfId};
use crate::packet::{DropReason, Packet};
use crate::policy::{Direction, EndpointIdx, Query, Verdict};
use crate::snapshot::{EndpointToHost, Protection};

/// A denial: the list that gave it, and why it was asked.
#[derive(Clone, Copy)]
pub(super) struct Denial {
    pub(super) reason: DropReason,
    pub(super) endpoint: u32,
    pub(super) direction: Direction,
    pub(super) slot: u32,
}

/// The interface that a packet leaves by as it came, where it does: what the network sent to this
/// host by a protected uplink or a tunnel, and what the host's stack sends by an uplink. `hop`: where
/// the packet would go otherwise.
#[inline]
pub(super) fn passes_through(world: &World, packet: &Packet<'_>, hop: Hop) -> Option<IfId> {
    let snapshot = &*world.snapshot;
    let protection = snapshot.protection.as_ref()?;
    let rx = snapshot.interfaces.get(packet.meta.rx_if)?;
    let to = rx.through?;
    let passes = match rx.role {
        Role::Stack => !is_sealed(world, packet, hop),
        _ => is_for_host(protection, packet),
    };
    passes.then_some(to)
}

/// What this host's stack sends goes by a tunnel that carries hosts' packets: from the address that the other
/// end knows, and not of a failsafe port, by which a node can be reached that has lost its key.
#[cold]
fn is_sealed(world: &World, packet: &Packet<'_>, hop: Hop) -> bool {
    let snapshot = &*world.snapshot;
    let out = match hop {
        Hop::Adjacency(index) => snapshot.fib.leaves_by(index),
        Hop::Unresolved { tx_if, .. } => Some(tx_if),
        _ => None,
    };
    let Some(Interface { role: Role::Tunnel(kind), through: Some(_), .. }) =
        out.and_then(|out| snapshot.interfaces.get(out))
    else {
        return false;
    };
    let query = Query { key: flow_key(packet), icmp: packet.meta.icmp };
    let near = snapshot.overlay.near(*kind);
    near.is_some_and(|near| near.address == query.key.src) && !is_failsafe(world, packet, &query)
}

/// This host should have it: an address of its own, or everybody's.
pub(super) fn is_for_host(protection: &Protection, packet: &Packet<'_>) -> bool {
    let group = packet.bytes().first().is_some_and(|byte| byte & 1 == 1);
    let dst = super::route::destination(packet);
    group || dst.is_multicast() || protection.addresses.binary_search(&dst).is_ok()
}

/// Why a packet from `from` to `to` may not pass, by host endpoints' policy and workloads'.
/// `untracked`: untracked policy let it in, so the interface it came by has no more to say. `came`:
/// its key before its destination was translated.
pub(super) fn denial(
    world: &World,
    protection: &Protection,
    (from, to): (&Interface, &Interface),
    untracked: bool,
    came: &FlowKey,
    query: &Query,
) -> Option<Denial> {
    let judge = Judge { world, protection, came, query };
    judge
        .before(from, to, untracked)
        .or_else(|| workloads(world, from, to, query))
        .or_else(|| judge.after(from, to, untracked))
}

/// A host endpoint may have a say about what goes between two interfaces.
#[inline]
pub(super) fn has_a_say(from: &Interface, to: &Interface) -> bool {
    from.host.is_some() || to.host.is_some()
}

/// A failsafe port of this host's, or an answer from one: no policy and no lack of room keeps it.
#[cold]
pub(super) fn is_failsafe(world: &World, packet: &Packet<'_>, query: &Query) -> bool {
    let snapshot = &*world.snapshot;
    let (Some(protection), Some(rx)) = (&snapshot.protection, snapshot.interfaces.get(packet.meta.rx_if))
    else {
        return false;
    };
    let direction = match rx.role {
        Role::Stack => Direction::Egress,
        Role::Uplink if rx.host.is_some() && is_for_host(protection, packet) => Direction::Ingress,
        _ => return false,
    };
    [protection.failsafe, protection.failsafe_replies]
        .into_iter()
        .any(|list| opinion(world, list, direction, query).is_some_and(|verdict| verdict.allow))
}

/// Asks host endpoints about one packet.
pub(super) struct Judge<'a> {
    pub(super) world: &'a World,
    pub(super) protection: &'a Protection,
    /// Its key before its destination was translated.
    pub(super) came: &'a FlowKey,
    pub(super) query: &'a Query,
}

impl Judge<'_> {
    /// What comes before the policy of workloads.
    pub(super) fn before(&self, from: &Interface, to: &Interface, untracked: bool) -> Option<Denial> {
        self.ingress(from, to, untracked)
    }

    /// What comes after the policy of workloads.
    pub(super) fn after(&self, from: &Interface, to: &Interface, untracked: bool) -> Option<Denial> {
        self.to_own_host(from, to).or_else(|| self.egress(from, to, untracked))
    }

    /// The host endpoint of the interface it came in by.
    fn ingress(&self, from: &Interface, to: &Interface, untracked: bool) -> Option<Denial> {
        let host = from.host.as_ref().filter(|_| !untracked)?;
        let workload = from.workload().is_some();
        if to.is_host() && !workload && self.is_failsafe(Direction::Ingress) {
            return None;
        }
        let sent = Query { key: *self.came, ..*self.query };
        if let Some(list) = host.pre_dnat
            && let Some(verdict) = opinion(self.world, EndpointIdx(list), Direction::Ingress, &sent)
        {
            return self.denies(DropReason::PreDnatDenied, list, Direction::Ingress, verdict);
        }
        match (to.is_host(), workload) {
            // See below.
            (true, true) => None,
            (true, false) => self.normal(host, Direction::Ingress),
            (false, _) => self.forward(host, Direction::Ingress),
        }
    }

    /// The host endpoint on the interface of a workload that speaks to its own host.
    fn to_own_host(&self, from: &Interface, to: &Interface) -> Option<Denial> {
        let returns = self.world.snapshot.endpoint_to_host == EndpointToHost::Return;
        let host = from.host.as_ref().filter(|_| returns && to.is_host() && from.workload().is_some())?;
        let policy = &self.world.snapshot.policy;
        let let_in = |list| policy.opinion(EndpointIdx(list), Direction::Ingress, self.query).is_some();
        if host.pre_dnat.is_some_and(let_in) { None } else { self.normal(host, Direction::Ingress) }
    }

    /// The host endpoint of the interface it leaves by.
    fn egress(&self, from: &Interface, to: &Interface, untracked: bool) -> Option<Denial> {
        let host = to.host.as_ref()?;
        if !from_host(self.world, from, self.query) {
            return self.forward(host, Direction::Egress);
        }
        if untracked || to.workload().is_some() || self.is_failsafe(Direction::Egress) {
            return None;
        }
        self.normal(host, Direction::Egress)
    }

    fn normal(&self, host: &HostEndpoint, direction: Direction) -> Option<Denial> {
        let verdict = self.opinion(host.normal, direction)?;
        staged::compare(self.world, EndpointIdx(host.normal), direction, self.query, verdict);
        self.denies(DropReason::HostDenied, host.normal, direction, verdict)
    }

    fn forward(&self, host: &HostEndpoint, direction: Direction) -> Option<Denial> {
        let list = host.forward?;
        let verdict = self.opinion(list, direction)?;
        self.denies(DropReason::ForwardDenied, list, direction, verdict)
    }

    fn is_failsafe(&self, direction: Direction) -> bool {
        self.opinion(self.protection.failsafe.0, direction).is_some_and(|verdict| verdict.allow)
    }

    fn opinion(&self, list: u32, direction: Direction) -> Option<Verdict> {
        opinion(self.world, EndpointIdx(list), direction, self.query)
    }

    fn denies(
        &self,
        reason: DropReason,
        list: u32,
        direction: Direction,
        verdict: Verdict,
    ) -> Option<Denial> {
        (!verdict.allow).then_some(Denial { reason, endpoint: list, direction, slot: verdict.slot })
    }
}

/// What the list decides, counted; `None` where it has nothing to say.
pub(super) fn opinion(
    world: &World,
    list: EndpointIdx,
    direction: Direction,
    query: &Query,
) -> Option<Verdict> {
    let policy = &world.snapshot.policy;
    let verdict = policy.opinion(list, direction, query)?;
    policy.count(world.me, list, direction, verdict);
    Some(verdict)
}
