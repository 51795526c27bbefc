//! Routes that are wanted, on their way into the FIB.

use super::State;
use crate::control::route::{Gateway, Target};
use crate::fib::{Fib, Interfaces, NextHop, Origin, Overlay, Rib, RouteTarget, TableId};
use crate::net::{Difference, IfId, Prefix};
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
            if new.is_some_and(is_named) {
                // Set when it is published, and whenever numbers may have changed.
                self.named_routes.insert(key);
                continue;
            }
            self.named_routes.remove(&key);
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
        for prefix in &self.named_routes {
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

fn is_named(target: &Target) -> bool {
    match target {
        Target::Workload(_) => true,
        Target::Gateway { hops, .. } => hops.iter().any(|hop| !hop.interface.is_empty()),
        Target::Tunnel { .. }
        | Target::Local
        | Target::Blackhole
        | Target::Unreachable
        | Target::Prohibit => false,
    }
}
