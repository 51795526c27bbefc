//! Services: what packets meet of them, kept as the agent's change.

use super::State;
use crate::control::convert::FieldError;
use crate::control::desired::ObjectError;
use crate::control::difference::Difference;
use crate::control::services::{RemovedBackend, ServiceId};
use crate::io::af_xdp::Ours;
use crate::net::{Addr, Prefix, Proto, SharedMap};
use crate::service::{Affinity, Assembled, Backends, Bound, Frontend, Services, Stale};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Clients that are remembered at least, of all services with affinity: a megabyte.
const CLIENTS: usize = 1 << 17;

/// Places of tables that one transaction may wait for: some milliseconds of work. More is made
/// while packets are served already.
const AT_ONCE: u64 = 1 << 18;

/// Services, and what they were made of.
#[derive(Default)]
pub(super) struct Held {
    /// As published.
    pub services: Arc<Services>,
    assembled: SharedMap<ServiceId, Arc<Assembled>>,
    unbuilt: Vec<Arc<Backends>>,
    stale: Stale,
    seeds: [u64; 2],
}

/// What a transaction makes of services.
pub(super) struct Next {
    services: Services,
    assembled: SharedMap<ServiceId, Arc<Assembled>>,
    unbuilt: Vec<Arc<Backends>>,
    /// Some frontend is new, or gone.
    moved: bool,
}

impl Held {
    /// The same services, for somebody who forgets no flows and makes no tables.
    pub(super) fn aside(&self) -> Self {
        Self { services: self.services.clone(), assembled: self.assembled.clone(), ..Self::default() }
    }
}

impl State {
    /// What nobody may guess who wants to choose which clients are forgotten.
    pub fn set_seeds(&mut self, seeds: [u64; 2]) {
        self.services.seeds = seeds;
    }

    /// A service as packets meet it.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Assembled>> {
        self.services.assembled.get(id)
    }

    /// Sets of backends whose tables are still to be made, by whoever has time.
    pub fn take_unbuilt(&mut self) -> Vec<Arc<Backends>> {
        std::mem::take(&mut self.services.unbuilt)
    }

    /// Flows that ended with their backends, once.
    pub(super) fn take_stale(&mut self) -> Stale {
        std::mem::take(&mut self.services.stale).settled()
    }

    /// All services, as packets meet them.
    pub fn services(&self) -> &Arc<Services> {
        &self.services.services
    }

    /// Adds what uplinks should leave to us for services: their addresses, and of this host's own
    /// the ports.
    pub(super) fn served(&self, ours: &mut Ours) {
        let services = self.services();
        let node_ports = services.node_addresses();
        for (frontend, _) in services.frontends() {
            let Frontend { addr, proto, port } = *frontend;
            if addr.is_unspecified() {
                let family = node_ports.iter().filter(|own| own.is_v4() == addr.is_v4());
                ours.sockets.extend(family.map(|own| (*own, proto, port)));
            } else if services.own_addresses().binary_search(&addr).is_ok() {
                ours.sockets.insert((addr, proto, port));
            } else {
                ours.prefixes.insert(Prefix::host(addr));
            }
        }
    }

    /// What services come to, or why that cannot be.
    pub(super) fn next_services(
        &self,
        difference: &Difference<'_>,
    ) -> Result<Option<Next>, Vec<ObjectError>> {
        if difference.services.is_empty() {
            return Ok(None);
        }
        let (mut frontends, mut released) = (BTreeMap::new(), BTreeSet::new());
        let mut changes = Vec::with_capacity(difference.services.len());
        for service in &difference.services {
            let old = self.services.assembled.get(service.key).map(|old| &**old);
            let new = service.new.map(|definition| Arc::new(Assembled::new(definition, old)));
            Assembled::change(old, new.as_deref(), &mut frontends);
            let has =
                |frontend: &Frontend| new.as_ref().is_some_and(|new| new.frontends().contains_key(frontend));
            let old = old.into_iter().flat_map(|old| old.frontends().keys());
            released.extend(old.filter(|frontend| !has(frontend)).copied());
            changes.push((service.key.clone(), new));
        }
        let current = &self.services.services;
        let holds =
            |frontend: &Frontend| current.frontends().get(frontend).filter(|_| !released.contains(frontend));
        let mut errors = vec![];
        for (id, new) in &changes {
            for (frontend, bound) in new.iter().flat_map(|new| new.frontends()) {
                let others = [holds(frontend), frontends.get(frontend).and_then(Option::as_ref)];
                let other =
                    others.into_iter().flatten().find(|other| other.port.service != bound.port.service);
                errors.extend(other.map(|other| taken(id, frontend, other)));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let unbuilt =
            changes.iter().flat_map(|(_, new)| new).flat_map(|new| new.unbuilt()).cloned().collect();
        let moved = frontends
            .iter()
            .any(|(frontend, bound)| bound.is_some() != current.frontends().contains_key(frontend));
        let (mut services, mut assembled) = (Services::clone(current), self.services.assembled.clone());
        services.apply(&frontends.into_iter().collect::<Vec<_>>());
        assembled.apply(&changes);
        let asks = difference.services.iter().any(|s| s.new.is_some_and(|new| new.affinity.is_some()));
        if services.affinity().is_none() && asks {
            services.set_affinity(Arc::new(Affinity::new(CLIENTS, self.services.seeds)));
        }
        Ok(Some(Next { services, assembled, unbuilt, moved }))
    }

    /// Holds what [`next_services`](Self::next_services) came to.
    pub(super) fn hold_services(&mut self, next: Option<Next>, difference: &Difference<'_>) {
        let reset = difference.next.service_settings.removed_backend == RemovedBackend::Reset;
        for service in &difference.services {
            let ends = |proto| proto == Proto::UDP || reset && proto == Proto::TCP;
            let [old, new] = [service.old, service.new].map(|one| one.map(|one| &**one));
            self.services.stale.note(old, new, ends);
        }
        let Some(Next { services, assembled, unbuilt, moved }) = next else { return };
        self.moved |= moved;
        (self.services.services, self.services.assembled) = (Arc::new(services), assembled);
        let mut at_once = AT_ONCE;
        for set in unbuilt {
            match at_once.checked_sub(set.size().into()) {
                Some(left) => {
                    at_once = left;
                    set.build();
                }
                None => self.services.unbuilt.push(set),
            }
        }
    }

    /// Services know this host's addresses, as they are published.
    pub(super) fn addressed_services(&mut self) -> Arc<Services> {
        let services = &self.services.services;
        if services.frontends().is_empty() {
            return services.clone();
        }
        let own: Arc<[Addr]> = self.host_addresses().into();
        let nets: &[Prefix] = &self.desired.service_settings.node_port_nets;
        let serves = |addr: &&Addr| nets.is_empty() || nets.iter().any(|net| net.contains(**addr));
        let node_ports: Arc<[Addr]> = own.iter().filter(serves).copied().collect();
        if services.own_addresses() != &own || services.node_addresses() != &node_ports {
            let mut services = Services::clone(services);
            services.set_addresses(own, node_ports);
            self.moved = true;
            self.services.services = Arc::new(services);
        }
        self.services.services.clone()
    }
}

/// A frontend is another service's, which keeps it.
fn taken(id: &ServiceId, frontend: &Frontend, other: &Bound) -> ObjectError {
    let Frontend { addr, proto, port } = frontend;
    let place = match addr.is_unspecified() {
        true => format!("node port {proto} {port}"),
        false => format!("{proto} port {port} of {addr}"),
    };
    let why = format!("{place} is taken by service {}; change one of them", other.port.service);
    ObjectError { object: format!("service {id}"), error: FieldError::new("ports", why) }
}
