//! Tables of the kernel's routes, mirrored: which of them are in force, and where they lead here.

use crate::fib::{self, NextHop, TableId};
use crate::io::netlink::{Route, RouteHop, RouteTarget};
use crate::net::{IfId, Prefix};
use std::collections::{BTreeMap, BTreeSet};

/// The mirror. Knows links by the kernel's numbers.
#[derive(Debug, Default)]
pub struct KernelRoutes {
    /// By the kernel's numbers: where their routes go.
    tables: BTreeMap<u32, TableId>,
    /// By table, prefix and metric.
    routes: BTreeMap<(u32, Prefix, u32), Known>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    target: RouteTarget,
    /// There is another behind it, with the same prefix and metric.
    doubled: bool,
}

/// What is to be done after some news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing.
    Nothing,
    /// This prefix's route may be another.
    Prefix(u32, Prefix),
    /// It cannot be known without asking for the whole table.
    Ask,
}

impl KernelRoutes {
    /// Mirrors these tables.
    pub fn new(tables: impl IntoIterator<Item = (u32, TableId)>) -> Self {
        Self { tables: tables.into_iter().collect(), routes: BTreeMap::new() }
    }

    /// The kernel's numbers of the tables.
    pub fn tables(&self) -> impl Iterator<Item = u32> + use<> {
        self.tables.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// Where a table's routes go.
    pub fn table(&self, number: u32) -> Option<TableId> {
        self.tables.get(&number).copied()
    }

    /// Replaces all routes of a table. Returns the prefixes that there were or are.
    pub fn replace(&mut self, table: u32, routes: Vec<Route>) -> BTreeSet<Prefix> {
        let mut prefixes: BTreeSet<Prefix> =
            self.routes.keys().filter(|key| key.0 == table).map(|key| key.1).collect();
        self.routes.retain(|key, _| key.0 != table);
        for route in routes {
            prefixes.insert(route.destination);
            self.routes
                .entry((table, route.destination, route.metric))
                .and_modify(|known| known.doubled = true)
                .or_insert(Known { target: route.target, doubled: false });
        }
        prefixes
    }

    /// A route is there, or leads elsewhere.
    pub fn there(&mut self, route: Route) -> Follow {
        if !self.tables.contains_key(&route.table) {
            return Follow::Nothing;
        }
        let key = (route.table, route.destination, route.metric);
        let doubled = self.routes.get(&key).is_some_and(|known| known.doubled);
        if doubled {
            return Follow::Ask;
        }
        self.routes.insert(key, Known { target: route.target, doubled });
        Follow::Prefix(route.table, route.destination)
    }

    /// A route is gone, or some of its ways are.
    pub fn gone(&mut self, route: &Route) -> Follow {
        let key = (route.table, route.destination, route.metric);
        let Some(known) = self.routes.get_mut(&key) else { return Follow::Nothing };
        if known.doubled {
            return Follow::Ask;
        }
        if let (RouteTarget::Via(hops), RouteTarget::Via(gone)) = (&mut known.target, &route.target) {
            let was = hops.len();
            hops.retain(|hop| !gone.iter().any(|gone| (gone.link, gone.gateway) == (hop.link, hop.gateway)));
            if !hops.is_empty() && hops.len() < was {
                return Follow::Prefix(route.table, route.destination);
            }
        }
        self.routes.remove(&key);
        Follow::Prefix(route.table, route.destination)
    }

    /// Where the prefix's route leads, uplinks being known by `uplink`; `None`: there is none.
    pub fn target(
        &self,
        table: u32,
        prefix: Prefix,
        uplink: impl Fn(u32) -> Option<IfId>,
    ) -> Option<fib::RouteTarget> {
        let mut of_prefix = self.routes.range((table, prefix, 0)..=(table, prefix, u32::MAX));
        match &of_prefix.next()?.1.target {
            RouteTarget::Via(hops) => {
                // The kernel has seen to it that its gateways are on their links.
                let hop = |hop: &RouteHop| {
                    let interface = Some(uplink(hop.link)?);
                    let (gateway, weight) = (hop.gateway, hop.weight);
                    Some(NextHop { gateway, interface, on_link: true, weight })
                };
                let ours: Vec<NextHop> = hops.iter().filter_map(hop).collect();
                Some(match ours.is_empty() {
                    false => fib::RouteTarget::Via(ours.into()),
                    // What the kernel has on other links must not leave by a less specific route of ours.
                    true => fib::RouteTarget::Unreachable,
                })
            }
            RouteTarget::Blackhole => Some(fib::RouteTarget::Blackhole),
            RouteTarget::Unreachable => Some(fib::RouteTarget::Unreachable),
            RouteTarget::Prohibit => Some(fib::RouteTarget::Prohibit),
            RouteTarget::Throw => None,
        }
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// None are.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: u32 = 254;

    fn prefix(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    fn hop(link: u32, gateway: &str) -> RouteHop {
        RouteHop { link, gateway: Some(gateway.parse().unwrap()), weight: 1 }
    }

    fn route(destination: &str, metric: u32, hops: &[RouteHop]) -> Route {
        let target = RouteTarget::Via(hops.to_vec());
        Route { table: MAIN, destination: prefix(destination), metric, target }
    }

    /// The gateways of a prefix's route, links 1 and 2 being uplinks.
    fn gateways(routes: &KernelRoutes, destination: &str) -> Option<Vec<String>> {
        let uplink = |link: u32| (link <= 2).then_some(IfId(link as u16));
        match routes.target(MAIN, prefix(destination), uplink)? {
            fib::RouteTarget::Via(hops) => {
                Some(hops.iter().map(|hop| hop.gateway.unwrap().to_string()).collect())
            }
            other => Some(vec![format!("{other:?}")]),
        }
    }

    fn mirror() -> KernelRoutes {
        KernelRoutes::new([(MAIN, TableId::Main)])
    }

    #[test]
    fn the_smallest_metric_is_in_force() {
        let mut routes = mirror();
        for (metric, gateway) in [(200, "10.0.0.2"), (100, "10.0.0.1")] {
            let follow = routes.there(route("10.1.0.0/16", metric, &[hop(1, gateway)]));
            assert_eq!(follow, Follow::Prefix(MAIN, prefix("10.1.0.0/16")));
        }
        assert_eq!(gateways(&routes, "10.1.0.0/16").unwrap(), ["10.0.0.1"]);
        routes.gone(&route("10.1.0.0/16", 100, &[hop(1, "10.0.0.1")]));
        assert_eq!(gateways(&routes, "10.1.0.0/16").unwrap(), ["10.0.0.2"]);
        routes.gone(&route("10.1.0.0/16", 200, &[hop(1, "10.0.0.2")]));
        assert_eq!(gateways(&routes, "10.1.0.0/16"), None);
        assert!(routes.is_empty());
    }

    #[test]
    fn one_way_of_several_goes_alone() {
        let mut routes = mirror();
        let [a, b] = [hop(1, "fd00::1"), hop(2, "fd00:2::1")];
        routes.there(route("fd01::/64", 1024, &[a, b]));
        routes.gone(&route("fd01::/64", 1024, &[a]));
        assert_eq!(gateways(&routes, "fd01::/64").unwrap(), ["fd00:2::1"]);
        routes.gone(&route("fd01::/64", 1024, &[b]));
        assert_eq!(gateways(&routes, "fd01::/64"), None);
    }

    #[test]
    fn what_leads_over_links_of_others_is_unreachable() {
        let mut routes = mirror();
        routes.there(route("172.17.0.0/16", 0, &[hop(9, "172.17.0.1")]));
        assert_eq!(gateways(&routes, "172.17.0.0/16").unwrap(), ["Unreachable"]);
        routes.there(route("172.17.0.0/16", 0, &[hop(9, "172.17.0.1"), hop(1, "10.0.0.1")]));
        assert_eq!(gateways(&routes, "172.17.0.0/16").unwrap(), ["10.0.0.1"]);
        assert_eq!(routes.there(Route { table: 7, ..route("10.0.0.0/8", 0, &[]) }), Follow::Nothing);
    }

    #[test]
    fn of_two_with_one_metric_the_first_is_in_force_and_what_comes_after_it_is_asked_for() {
        let mut routes = mirror();
        let (first, second) =
            (route("10.1.0.0/16", 0, &[hop(1, "10.0.0.1")]), route("10.1.0.0/16", 0, &[hop(1, "10.0.0.2")]));
        let prefixes = routes.replace(MAIN, vec![first.clone(), second.clone()]);
        assert_eq!(prefixes, [prefix("10.1.0.0/16")].into());
        assert_eq!(gateways(&routes, "10.1.0.0/16").unwrap(), ["10.0.0.1"]);
        assert_eq!(routes.gone(&first), Follow::Ask);
        assert_eq!(routes.replace(MAIN, vec![second]).len(), 1);
        assert_eq!(gateways(&routes, "10.1.0.0/16").unwrap(), ["10.0.0.2"]);
        assert_eq!(routes.replace(MAIN, vec![]).len(), 1, "its prefix is still to be taken away");
    }
}
