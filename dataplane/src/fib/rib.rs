//! The routes that are wanted, by whom, and where they lead: kept up to date by what changes, and published as [`Fib`]s.
//!
//! A route's value in the lookup is the number of its *lead*: the target it names, which many routes share. Where a lead
//! goes is found here, off the packet path: gateways behind other routes are followed to a link, and again when a route
//! changes that such a gateway may lie behind. A neighbour that answers changes one entry and no route.

use super::lpm::Routes;
use super::multipath::{Exit, Multipath};
use super::stations::{Station, Stations};
use super::{
    Fib, Hop, Interfaces, NextHop, Origin, Overlay, Role, RouteTarget, Scope, TableId, Target, Tunnel,
    TunnelAdjacency, Way,
};
use crate::net::{Addr, IfId, Mac, Prefix};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Gateways that lie behind one another are followed as far as this.
const MAX_DEPTH: u32 = 8;
/// Ways that are looked at for one route: more than any bucket could choose.
const MAX_HOPS: u32 = 4096;
/// All the flows of a route, cut as fine as this.
const WHOLE: u64 = 1 << 48;

/// The routes.
pub struct Rib {
    interfaces: Arc<Interfaces>,
    tables: [Table; TableId::ALL.len()],
    leads: Vec<Lead>,
    by_key: HashMap<Key, u32, ahash::RandomState>,
    free: Vec<u32>,
    stations: Stations,
    overlay: Overlay,
    /// Leads by the gateways that are behind other routes.
    behind: BTreeMap<Addr, HashSet<u32>>,
    /// What follows from the interfaces.
    derived: BTreeMap<(Origin, Prefix), RouteTarget>,
    published: Arc<Fib>,
    /// Something changed since.
    changed: bool,
}

/// One table's routes.
struct Table {
    /// Each prefix's leads, by who wants them.
    claims: HashMap<Prefix, [u32; 4], ahash::RandomState>,
    routes: Routes,
}

/// Nobody wants it.
const NONE: u32 = u32::MAX;

/// What leads are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    target: RouteTarget,
    /// The family, and for a workload the destination too: its next hop, where it has no address of that family.
    towards: Addr,
}

/// Where some routes lead.
struct Lead {
    key: Key,
    routes: u32,
    /// The ways out found for it, in order.
    exits: Vec<(Exit, u64)>,
    /// The gateways on the way to them that are behind other routes.
    gateways: Vec<Addr>,
    target: Target,
}

impl Lead {
    /// Into one.
    const fn is_tunnel(&self) -> bool {
        matches!(self.key.target, RouteTarget::Tunnel(_))
    }
}

/// A route, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its table.
    pub table: TableId,
    /// What it matches.
    pub destination: Prefix,
    /// Who wants it.
    pub origin: Origin,
    /// Nobody wants another with the same prefix more.
    pub best: bool,
    /// Where it leads, as it was asked for.
    pub target: RouteTarget,
    /// The ways out found for it, and their weights.
    pub exits: Vec<(Exit, u64)>,
}

impl Default for Rib {
    fn default() -> Self {
        let hasher = || ahash::RandomState::with_seeds(1, 2, 3, 4);
        let table = || Table { claims: HashMap::with_hasher(hasher()), routes: Routes::new() };
        Self {
            interfaces: Arc::default(),
            tables: [(); TableId::ALL.len()].map(|()| table()),
            leads: vec![],
            by_key: HashMap::with_hasher(hasher()),
            free: vec![],
            stations: Stations::default(),
            overlay: Overlay::default(),
            behind: BTreeMap::new(),
            derived: BTreeMap::new(),
            published: Arc::default(),
            changed: false,
        }
    }
}

impl Rib {
    /// Wants a route in place of the one that `origin` wanted, or none any more.
    pub fn set(&mut self, table: TableId, origin: Origin, destination: Prefix, target: Option<RouteTarget>) {
        let lead = target.map_or(NONE, |target| self.hold(key(target, destination)));
        let Table { claims, routes } = &mut self.tables[table.index()];
        let claim = claims.entry(destination).or_insert([NONE; 4]);
        let first = |claim: &[u32]| claim.iter().copied().find(|lead| *lead != NONE);
        let before = first(claim);
        let old = std::mem::replace(&mut claim[origin as usize], lead);
        let after = first(claim);
        if after.is_none() {
            claims.remove(&destination);
        }
        if before != after {
            match after {
                // Leads are numbered from 0: 2^30 of them are more than memory holds.
                Some(lead) => drop(routes.insert(destination, lead)),
                None => drop(routes.remove(destination)),
            }
            self.changed = true;
            if table == TableId::Main {
                self.follow_gateways(destination);
            }
        }
        if old != NONE {
            self.let_go(old);
        }
    }

    /// Says what interfaces there are. To the wanted routes it adds those that follow from them: uplinks'
    /// connected prefixes, and every interface's own addresses.
    pub fn set_interfaces(&mut self, interfaces: Arc<Interfaces>) {
        let host = |interfaces: &Interfaces| {
            let port = interfaces.iter().find(|interface| interface.role == Role::Host)?;
            Some((port.id, port.mac))
        };
        let (old, new) = (host(&self.interfaces), host(&interfaces));
        self.interfaces = interfaces;
        for (port, mac) in
            old.into_iter().map(|(id, _)| (id, None)).chain(new.map(|(id, mac)| (id, Some(mac))))
        {
            for v4 in [false, true] {
                self.stations.set(&self.interfaces, (port, stack(v4)), mac);
            }
        }
        self.stations.follow(&self.interfaces);
        let mut derived = BTreeMap::new();
        for interface in self.interfaces.iter() {
            for (addr, len) in &interface.addresses {
                if interface.role == Role::Uplink && !addr.is_link_local() {
                    let link = NextHop { interface: Some(interface.id), ..NextHop::default() };
                    derived
                        .entry((Origin::Connected, Prefix::truncate(*addr, *len)))
                        .or_insert_with(|| RouteTarget::Via([link].into()));
                }
                derived.insert((Origin::Own, Prefix::host(*addr)), RouteTarget::Local);
            }
        }
        let old = std::mem::replace(&mut self.derived, derived.clone());
        for (origin, prefix) in old.into_keys().filter(|key| !derived.contains_key(key)) {
            self.set(TableId::Main, origin, prefix, None);
        }
        for ((origin, prefix), target) in derived {
            self.set(TableId::Main, origin, prefix, Some(target));
        }
        for number in 0..self.leads.len() as u32 {
            self.resolve(number);
        }
        self.changed = true;
    }

    /// Says where tunnels end.
    pub fn set_overlay(&mut self, overlay: &Overlay) {
        if self.overlay != *overlay {
            let moved = self.overlay.peers != overlay.peers;
            self.overlay = overlay.clone();
            self.changed = true;
            if moved {
                let tunnels = (0..).zip(&self.leads).filter(|(_, lead)| lead.is_tunnel());
                let tunnels: Vec<u32> = tunnels.map(|(number, _)| number).collect();
                tunnels.into_iter().for_each(|number| self.resolve(number));
            }
        }
    }

    /// Says where a neighbour is, or that it is not known any more.
    pub fn set_neighbour(&mut self, interface: IfId, addr: Addr, mac: Option<Mac>) {
        self.stations.set(&self.interfaces, (interface, addr), mac);
        self.changed = true;
    }

    /// A table of all routes as they are now: the last one where nothing changed.
    pub fn publish(&mut self) -> Arc<Fib> {
        if std::mem::take(&mut self.changed) {
            let scoped = |table: &mut Table| (!table.routes.is_empty()).then(|| table.routes.publish());
            let mut tunnels = vec![];
            let targets = self.leads.iter().map(|lead| self.target(lead, &mut tunnels)).collect();
            let [main, workload, host] = &mut self.tables;
            self.published = Arc::new(Fib {
                routes: main.routes.len() + workload.routes.len() + host.routes.len(),
                main: main.routes.publish(),
                scoped: [scoped(workload), scoped(host)],
                targets,
                tunnels: tunnels.into(),
                stations: self.stations.all().into(),
                answered: self.stations.answered().clone(),
            });
        }
        self.published.clone()
    }

    /// Routes of a table whose destinations `wanted` holds, the preferred ones and the others, in order.
    pub fn show(&self, table: TableId, wanted: impl Fn(Prefix) -> bool) -> Vec<Shown> {
        let claims = self.tables[table.index()].claims.iter().filter(|(prefix, _)| wanted(**prefix));
        let mut shown: Vec<Shown> =
            claims.flat_map(|(prefix, claim)| self.shown(table, *prefix, *claim)).collect();
        shown.sort_by_key(|route| (route.destination, route.origin));
        shown
    }

    /// The routes with the most specific prefix that holds `addr`, the preferred one first, for packets of a scope.
    pub fn explain(&self, addr: Addr, scope: Scope) -> Vec<Shown> {
        let tables = [TableId::Scoped(scope), TableId::Main];
        let longest = |table: TableId| self.tables[table.index()].routes.longest(addr);
        let found = tables.into_iter().find_map(|table| Some((table, longest(table)?.0)));
        let Some((table, prefix)) = found else { return vec![] };
        let claim = self.tables[table.index()].claims.get(&prefix).copied().unwrap_or([NONE; 4]);
        self.shown(table, prefix, claim).collect()
    }

    /// Interface, address, number and users of each adjacency.
    pub fn adjacencies(&self) -> impl Iterator<Item = (IfId, Addr, u32, u32)> {
        self.stations.iter()
    }

    fn shown(&self, table: TableId, prefix: Prefix, claim: [u32; 4]) -> impl Iterator<Item = Shown> {
        let wanted = Origin::ALL.into_iter().zip(claim).filter(|(_, lead)| *lead != NONE);
        wanted.enumerate().map(move |(at, (origin, lead))| {
            let lead = &self.leads[lead as usize];
            let (target, exits) = (lead.key.target.clone(), lead.exits.clone());
            Shown { table, destination: prefix, origin, best: at == 0, target, exits }
        })
    }

    // ---- Leads.

    /// What workers find for a lead. Tunnels are built anew: they follow from neighbours, and there are few.
    fn target(&self, lead: &Lead, tunnels: &mut Vec<TunnelAdjacency>) -> Target {
        let RouteTarget::Tunnel(tunnel) = lead.key.target else { return lead.target.clone() };
        let hop = self.tunnel_hop(tunnel, &lead.target, tunnels);
        Target::Tunnel { peer: self.overlay.peer(tunnel), hop }
    }

    /// Where packets into `tunnel` go, whose own packets take the way of `link`.
    fn tunnel_hop(&self, tunnel: Tunnel, link: &Target, tunnels: &mut Vec<TunnelAdjacency>) -> Hop {
        let way = match link {
            Target::Way(way) => way,
            // All packets of a tunnel take one way.
            Target::Multipath(several) => &several.ways()[0],
            _ => return Hop::NoRoute,
        };
        let Way::Adjacency(index) = way else { return Hop::NoRoute };
        match &self.stations.all()[*index as usize] {
            Station::Resolved(link) => match self.overlay.over(tunnel, link) {
                Some(adjacency) => {
                    tunnels.push(adjacency);
                    Hop::Adjacency(Fib::TUNNELS + tunnels.len() as u32 - 1)
                }
                None => Hop::NoRoute,
            },
            Station::Unresolved { tx_if, addr } => {
                let link = Hop::Unresolved { tx_if: *tx_if, link: *tx_if, next_hop: *addr };
                self.overlay.unresolved(tunnel, link)
            }
        }
    }

    /// The number of a lead, for one route more.
    fn hold(&mut self, key: Key) -> u32 {
        if let Some(&number) = self.by_key.get(&key) {
            self.leads[number as usize].routes += 1;
            return number;
        }
        let lead =
            Lead { key: key.clone(), routes: 1, exits: vec![], gateways: vec![], target: Target::NoRoute };
        let number = match self.free.pop() {
            Some(number) => {
                self.leads[number as usize] = lead;
                number
            }
            None => {
                self.leads.push(lead);
                self.leads.len() as u32 - 1
            }
        };
        self.by_key.insert(key, number);
        self.resolve(number);
        number
    }

    /// One route less leads there. What was published keeps its own.
    fn let_go(&mut self, number: u32) {
        let lead = &mut self.leads[number as usize];
        lead.routes -= 1;
        if lead.routes > 0 {
            return;
        }
        let (exits, gateways) = (std::mem::take(&mut lead.exits), std::mem::take(&mut lead.gateways));
        lead.target = Target::NoRoute;
        self.by_key.remove(&lead.key);
        self.release(&exits);
        self.forget_gateways(number, gateways);
        self.free.push(number);
    }

    /// Routes to these gateways may be others now.
    fn follow_gateways(&mut self, changed: Prefix) {
        if self.behind.is_empty() {
            return;
        }
        let within = self.behind.range(changed.addr()..=changed.last());
        let leads: BTreeSet<u32> = within.flat_map(|(_, leads)| leads.iter().copied()).collect();
        for number in leads {
            self.resolve(number);
        }
    }

    /// Finds out anew where a lead goes.
    fn resolve(&mut self, number: u32) {
        let lead = &self.leads[number as usize];
        if lead.routes == 0 {
            return;
        }
        let of_tunnel = lead.is_tunnel();
        let mut found =
            Found { rib: self, of_tunnel, exits: BTreeMap::new(), gateways: vec![], left: MAX_HOPS };
        let nowhere = match &lead.key.target {
            RouteTarget::Blackhole => Target::Blackhole,
            RouteTarget::Unreachable => Target::Unreachable,
            RouteTarget::Prohibit => Target::Prohibit,
            RouteTarget::Local => {
                found.stack(lead.key.towards.is_v4());
                Target::Local
            }
            RouteTarget::Workload(id) => {
                found.workload(*id, lead.key.towards, WHOLE);
                Target::NoRoute
            }
            RouteTarget::Via(hops) => {
                found.hops(hops, None, WHOLE, 0);
                Target::NoRoute
            }
            RouteTarget::Tunnel(tunnel) => {
                let gateway = Some(self.overlay.far_address(*tunnel));
                found.hop(&NextHop { gateway, ..NextHop::default() }, None, WHOLE, 0);
                Target::NoRoute
            }
        };
        let (mut gateways, exits) = (found.gateways, found.exits.into_iter().collect::<Vec<_>>());
        gateways.sort_unstable();
        gateways.dedup();
        if gateways != lead.gateways {
            let old = std::mem::replace(&mut self.leads[number as usize].gateways, gateways.clone());
            self.forget_gateways(number, old);
            for gateway in gateways {
                self.behind.entry(gateway).or_default().insert(number);
            }
        }
        let lead = &self.leads[number as usize];
        if exits == lead.exits && (!exits.is_empty() || lead.target == nowhere) {
            return;
        }
        let ways: Box<[Way]> = exits.iter().map(|(exit, _)| self.way(*exit)).collect();
        let target = match *ways {
            [] => nowhere,
            [way] => Target::Way(way),
            _ => Target::Multipath(Arc::new(Multipath::new(&exits, ways))),
        };
        let lead = &mut self.leads[number as usize];
        lead.target = target;
        let old = std::mem::replace(&mut lead.exits, exits);
        self.release(&old);
        self.changed = true;
    }

    /// The most specific route to a gateway; for the packets of a tunnel, that leads into none.
    fn way_to(&self, gateway: Addr, of_tunnel: bool) -> Option<&Lead> {
        let routes = &self.tables[TableId::Main.index()].routes;
        let (longest, lead) = routes.longest(gateway)?;
        let outside = |number: u32| {
            let lead = &self.leads[number as usize];
            (!of_tunnel || !lead.is_tunnel()).then_some(lead)
        };
        outside(lead).or_else(|| {
            let shorter = (0..longest.len()).rev().map(|len| Prefix::truncate(gateway, len));
            shorter.filter_map(|prefix| outside(routes.get(prefix)?)).next()
        })
    }

    fn way(&mut self, exit: Exit) -> Way {
        match exit.next_hop {
            Some(addr) => Way::Adjacency(self.stations.acquire(&self.interfaces, (exit.tx_if, addr))),
            None => Way::Connected(exit.tx_if),
        }
    }

    fn release(&mut self, exits: &[(Exit, u64)]) {
        for (exit, _) in exits {
            if let Some(addr) = exit.next_hop {
                self.stations.release((exit.tx_if, addr));
            }
        }
    }

    fn forget_gateways(&mut self, number: u32, gateways: Vec<Addr>) {
        for gateway in gateways {
            if let Some(leads) = self.behind.get_mut(&gateway) {
                leads.remove(&number);
                if leads.is_empty() {
                    self.behind.remove(&gateway);
                }
            }
        }
    }
}

/// The ways out that are found for a lead.
struct Found<'a> {
    rib: &'a Rib,
    /// It leads into a tunnel, whose own packets never go through another.
    of_tunnel: bool,
    exits: BTreeMap<Exit, u64>,
    gateways: Vec<Addr>,
    /// Ways that are still to be looked at, at most.
    left: u32,
}

impl Found<'_> {
    fn add(&mut self, tx_if: IfId, next_hop: Option<Addr>, weight: u64) {
        *self.exits.entry(Exit { tx_if, next_hop }).or_default() += weight.max(1);
    }

    /// This host, over its port, if there is one.
    fn stack(&mut self, v4: bool) {
        if let Some(port) = self.rib.interfaces.iter().find(|interface| interface.role == Role::Host) {
            self.add(port.id, Some(stack(v4)), WHOLE);
        }
    }

    /// A workload with a whole prefix routes within it: its own address is the next hop.
    fn workload(&mut self, id: IfId, towards: Addr, weight: u64) {
        if let Some(workload) = self.rib.interfaces.get(id).and_then(|interface| interface.workload()) {
            let own = workload.address(towards.is_v4());
            self.add(id, Some(own.unwrap_or(towards)), weight);
        }
    }

    /// Several ways share the flows. On the way to a gateway, `towards` is what it is.
    fn hops(&mut self, hops: &[NextHop], towards: Option<Addr>, weight: u64, depth: u32) {
        let sum: u64 = hops.iter().map(|hop| u64::from(hop.weight)).sum();
        for hop in hops {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            // No more than `weight`.
            let share = u128::from(weight) * u128::from(hop.weight) / u128::from(sum.max(1));
            self.hop(hop, towards, share as u64, depth);
        }
    }

    fn hop(&mut self, hop: &NextHop, towards: Option<Addr>, weight: u64, depth: u32) {
        let interfaces = &self.rib.interfaces;
        let mut uplinks = interfaces.iter().filter(|candidate| {
            candidate.role == Role::Uplink && hop.interface.is_none_or(|wanted| wanted == candidate.id)
        });
        let Some(gateway) = hop.gateway else {
            if hop.interface.is_some() && uplinks.next().is_some_and(|link| Some(link.id) == hop.interface) {
                self.add(hop.interface.unwrap_or(IfId::NONE), towards, weight);
            }
            return;
        };
        let on_link = hop.on_link && hop.interface.is_some();
        if let Some(uplink) = uplinks.find(|uplink| on_link || uplink.connects(gateway)) {
            self.add(uplink.id, Some(gateway), weight);
        } else if hop.interface.is_none() && depth < MAX_DEPTH {
            self.gateways.push(gateway);
            let Some(lead) = self.rib.way_to(gateway, self.of_tunnel) else { return };
            match &lead.key {
                Key { target: RouteTarget::Via(hops), .. } => {
                    self.hops(hops, Some(gateway), weight, depth + 1)
                }
                Key { target: RouteTarget::Workload(id), towards } => self.workload(*id, *towards, weight),
                // An address of ours, or nowhere: no way to a gateway.
                _ => {}
            }
        }
    }
}

fn key(target: RouteTarget, destination: Prefix) -> Key {
    let family = if destination.is_v4() { Addr::v4([0; 4]) } else { Addr::from_bits(0) };
    let towards = match &target {
        RouteTarget::Workload(_) => destination.addr(),
        _ => family,
    };
    Key { target, towards }
}

/// What this host's stack goes by among the neighbours on the host's port.
fn stack(v4: bool) -> Addr {
    if v4 { Addr::v4([0; 4]) } else { Addr::from_bits(0) }
}

#[cfg(test)]
mod tests;
