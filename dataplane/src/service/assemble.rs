//! From what a service is to what packets meet, changing only what has to change.

use super::{
    Affinity, Backend, Backends, Bound, Definition, Endpoint, Frontend, Kind, Port, PortDefinition,
    any_address, hash,
};
use crate::net::Addr;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A service as packets meet it.
#[derive(Debug, Default)]
pub struct Assembled {
    frontends: BTreeMap<Frontend, Bound>,
    /// By index in the definition, and whether of IPv4.
    ports: BTreeMap<(usize, bool), Arc<Port>>,
}

impl Assembled {
    /// What `definition` comes to. Of `old`, what the service was before, all that is the same is
    /// kept, tables among it.
    pub fn new(definition: &Definition, old: Option<&Self>) -> Self {
        let mut assembled = Self::default();
        let addresses = definition.addresses();
        for (at, port) in definition.ports.iter().enumerate() {
            for v4 in [true, false] {
                let mut frontends: Vec<(Addr, Kind)> =
                    addresses.iter().filter(|(addr, _)| addr.is_v4() == v4).copied().collect();
                if frontends.is_empty() && !addresses.is_empty() {
                    continue;
                }
                let Some(frontends) = with_node_port(&mut frontends, port, v4) else { continue };
                let key = (at, v4);
                let before = old.and_then(|old| old.ports.get(&key));
                let made = assemble(definition, at, v4, before);
                let made = match before {
                    Some(before) if **before == made => before.clone(),
                    _ => Arc::new(made),
                };
                for (addr, number, kind) in frontends {
                    let frontend = Frontend { addr, proto: port.proto, port: number };
                    let bound = Bound { kind, port: made.clone() };
                    assembled.frontends.entry(frontend).or_insert(bound);
                }
                assembled.ports.insert(key, made);
            }
        }
        assembled
    }

    /// Where clients find it.
    pub fn frontends(&self) -> &BTreeMap<Frontend, Bound> {
        &self.frontends
    }

    /// Its ports, those of IPv4 and those of IPv6 apart.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.ports.values()
    }

    /// Sets of backends that still have no table.
    pub fn unbuilt(&self) -> impl Iterator<Item = &Arc<Backends>> {
        self.ports().flat_map(|port| port.sets()).filter(|set| !set.is_built())
    }

    /// Adds what turns `old` into `new`, either of which may be none. A frontend that another
    /// service gives up may be taken by this one in the same `changes`.
    pub fn change(old: Option<&Self>, new: Option<&Self>, changes: &mut BTreeMap<Frontend, Option<Bound>>) {
        let none = BTreeMap::new();
        let [old, new] = [old, new].map(|one| one.map_or(&none, |one| &one.frontends));
        for frontend in old.keys().filter(|frontend| !new.contains_key(frontend)) {
            changes.entry(*frontend).or_insert(None);
        }
        for (frontend, bound) in new.iter().filter(|(frontend, bound)| old.get(frontend) != Some(bound)) {
            changes.insert(*frontend, Some(bound.clone()));
        }
    }
}

impl Definition {
    /// Its addresses, each once.
    pub(super) fn addresses(&self) -> Vec<(Addr, Kind)> {
        let kinds = [
            (&self.cluster_ips, Kind::Cluster),
            (&self.load_balancer_ips, Kind::LoadBalancer),
            (&self.external_ips, Kind::External),
        ];
        let mut all: Vec<(Addr, Kind)> = vec![];
        for (addr, kind) in kinds.into_iter().flat_map(|(addrs, kind)| addrs.iter().map(move |a| (*a, kind)))
        {
            if all.iter().all(|(known, _)| *known != addr) {
                all.push((addr, kind));
            }
        }
        all
    }
}

/// Where clients of one port find it, of one IP version; `None`: nowhere.
pub(super) fn with_node_port(
    addresses: &mut Vec<(Addr, Kind)>,
    port: &PortDefinition,
    v4: bool,
) -> Option<Vec<(Addr, u16, Kind)>> {
    let own = addresses.drain(..).map(|(addr, kind)| (addr, port.port, kind));
    let node = port.node_port.map(|number| (any_address(v4), number, Kind::Node));
    let all: Vec<_> = own.chain(node).collect();
    (!all.is_empty()).then_some(all)
}

fn assemble(definition: &Definition, at: usize, v4: bool, old: Option<&Arc<Port>>) -> Port {
    let port = &definition.ports[at];
    let all = || {
        let of_family = definition.backends.iter().filter(move |endpoint| endpoint.addr.is_v4() == v4);
        of_family.filter_map(move |endpoint| Some((endpoint, endpoint.port(at)?)))
    };
    let usable = |local: bool| {
        let here = move |endpoint: &Endpoint| !local || endpoint.local;
        let wanted = |endpoint: &Endpoint| endpoint.ready && here(endpoint) && (local || endpoint.preferred);
        let ready: Vec<_> = all().filter(|(endpoint, _)| wanted(endpoint)).collect();
        match ready.is_empty() {
            true => all().filter(|(endpoint, _)| endpoint.is_draining() && here(endpoint)).collect(),
            false => ready,
        }
    };
    let numbered = definition.affinity.is_some();
    let mut numbers = Numbers::new(old.map(|old| &**old));
    let mut given: BTreeMap<(Addr, u16), u32> = BTreeMap::new();
    let mut set = |endpoints: Vec<(&Endpoint, u16)>, old: Option<&Arc<Backends>>| {
        let backend = |(endpoint, port): (&Endpoint, u16)| {
            let socket = (endpoint.addr, port);
            let number = match numbered {
                true => *given.entry(socket).or_insert_with(|| numbers.of(socket)),
                false => 0,
            };
            let Endpoint { addr, local, weight, .. } = *endpoint;
            Backend { addr, port, local, weight, number }
        };
        let made = Backends::new(endpoints.into_iter().map(backend).collect(), numbered);
        match old {
            Some(old) if **old == made => old.clone(),
            _ => Arc::new(made),
        }
    };
    let cluster = set(usable(false), old.map(|old| &old.cluster));
    let asks = definition.internal_local || definition.external_local;
    let local = asks.then(|| set(usable(true), old.and_then(|old| old.local.as_ref())));
    let (service, name) = (definition.name.clone(), port.name.clone());
    Port {
        salt: hash::mix(hash::of_text(&service), hash::of_text(&name)),
        service,
        name,
        cluster,
        local,
        internal_local: definition.internal_local,
        external_local: definition.external_local,
        affinity: definition.affinity,
        source_ranges: definition.source_ranges.clone(),
        served: all().any(|(endpoint, _)| endpoint.ready || endpoint.is_draining()),
        next_number: numbers.next,
    }
}

/// Numbers of a port's backends: as they were, and new ones for those that are new. They come round
/// again after a million backends.
struct Numbers<'a> {
    old: Option<&'a Port>,
    used: HashSet<u32>,
    next: u32,
}

impl<'a> Numbers<'a> {
    fn new(old: Option<&'a Port>) -> Self {
        // Without affinity nobody asked for numbers.
        let old = old.filter(|old| old.affinity.is_some());
        let used = old.into_iter().flat_map(Port::sets).flat_map(|set| set.list());
        Self {
            old,
            used: used.map(|backend| backend.number).collect(),
            next: old.map_or(0, |old| old.next_number),
        }
    }

    fn of(&mut self, socket: (Addr, u16)) -> u32 {
        if let Some(known) = self.old.and_then(|old| old.sets().find_map(|set| set.get(socket))) {
            return known.number;
        }
        while !self.used.insert(self.next) {
            self.next = (self.next + 1) % Affinity::NUMBERS;
        }
        self.next
    }
}
