//! Routes that are wanted, on their way into the FIB.

use super::{Purpose, State};
use crate::control::desired::EndpointId;
use crate::control::route::{Gateway, Target};
use crate::fib::{Fib, Interfaces, NextHop, Origin, Overlay, Rib, RouteTarget, TableId};
use crate::net::{Difference, IfId, Prefix};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

impl State {
    /// The routes, for people; `None`: they are not this state's to say.
    pub fn rib(&self) -> Option<&Rib> {
        self.rib.as_ref()
    }

    /// Takes over the agent's routes that a transaction changes.
    pub(super) fn follow_routes(&mut self, differences: &[Difference<'_, Prefix, Target>]) {
        for difference in differences {
            let (key, new) = (*difference.key, difference.new);
            if self.named_routes.follow(key, difference.old, new) {
                // Set when it is published, and whenever its number may have changed.
                continue;
            }
            let target = new.map(|target| self.route_target(target));
            if let Some(rib) = &mut self.rib {
                rib.set(TableId::Main, Origin::Agent, key, target);
            }
        }
    }

    /// A route of the kernel's is there or leads elsewhere, or is gone.
    pub fn set_kernel_route(&mut self, table: TableId, destination: Prefix, target: Option<RouteTarget>) {
        if let Some(rib) = &mut self.rib {
            rib.set(table, Origin::Kernel, destination, target);
            self.dirty = true;
        }
    }

    /// The FIB of all that is known; `None`: what it was.
    pub(super) fn routed(&mut self, interfaces: &Arc<Interfaces>, overlay: &Overlay) -> Option<Arc<Fib>> {
        let mut rib = self.rib.take()?;
        if !Arc::ptr_eq(interfaces, &self.publisher.current().interfaces) {
            rib.set_interfaces(interfaces.clone());
        }
        rib.set_overlay(overlay);
        for (interface, addr, mac) in self.neighbours.take_news() {
            rib.set_neighbour(interface, addr, mac);
        }
        for prefix in &self.named_routes.stale() {
            let target = self.desired.routes.get(prefix).map(|target| self.route_target(target));
            rib.set(TableId::Main, Origin::Agent, *prefix, target);
        }
        let fib = rib.publish();
        self.rib = Some(rib);
        Some(fib)
    }

    /// With numbers for names. A name that has no number leads nowhere.
    fn route_target(&self, target: &Target) -> RouteTarget {
        match target {
            Target::Workload(id) => {
                let interface = self.desired.endpoints.get(id).and_then(|e| self.id(&e.interface));
                RouteTarget::Workload(interface.unwrap_or(IfId::NONE))
            }
            Target::Gateway { hops, .. } => {
                let hop = |hop: &Gateway| NextHop {
                    gateway: Some(hop.addr),
                    interface: (!hop.interface.is_empty())
                        .then(|| self.id(&hop.interface).unwrap_or(IfId::NONE)),
                    weight: hop.weight,
                    ..NextHop::default()
                };
                RouteTarget::Via(hops.iter().map(hop).collect())
            }
            Target::Tunnel { tunnel, .. } => RouteTarget::Tunnel(*tunnel),
            Target::Local => RouteTarget::Local,
            Target::Blackhole => RouteTarget::Blackhole,
            Target::Unreachable => RouteTarget::Unreachable,
            Target::Prohibit => RouteTarget::Prohibit,
        }
    }
}

/// Routes of the agent that name what has a number.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Over interfaces of some names: few, and set each time.
    over: BTreeSet<Prefix>,
    /// To each workload.
    to: HashMap<EndpointId, BTreeSet<Prefix>>,
    /// To workloads, and not set since they or the interfaces of those changed.
    stale: BTreeSet<Prefix>,
}

impl Named {
    /// A route is another: whether it names something.
    fn follow(&mut self, destination: Prefix, old: Option<&Target>, new: Option<&Target>) -> bool {
        if let Some(Target::Workload(id)) = old
            && let Some(of) = self.to.get_mut(id)
        {
            of.remove(&destination);
            if of.is_empty() {
                self.to.remove(id);
            }
        }
        self.over.remove(&destination);
        self.stale.remove(&destination);
        match new {
            Some(Target::Workload(id)) => {
                self.to.entry(id.clone()).or_default().insert(destination);
                self.stale.insert(destination)
            }
            Some(Target::Gateway { hops, .. }) if hops.iter().any(|hop| !hop.interface.is_empty()) => {
                self.over.insert(destination)
            }
            Some(_) | None => false,
        }
    }

    /// The interface of this purpose has got a number, or lost it.
    pub(super) fn renumbered(&mut self, purpose: &Purpose) {
        if let Purpose::Workload(id) = purpose {
            self.moved([id]);
        }
    }

    /// These workloads may be behind other interfaces.
    pub(super) fn moved<'a>(&mut self, workloads: impl IntoIterator<Item = &'a EndpointId>) {
        for id in workloads {
            self.stale.extend(self.to.get(id).into_iter().flatten());
        }
    }

    /// Those to be set, which are as they should be from then on.
    fn stale(&mut self) -> Vec<Prefix> {
        std::mem::take(&mut self.stale).into_iter().chain(self.over.iter().copied()).collect()
    }
}
