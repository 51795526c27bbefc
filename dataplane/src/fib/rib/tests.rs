use super::super::{FarEnd, Fib, Hop, Interface, NearEnd, Quota, TunnelKind, Workload};
use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const MAC: Mac = Mac([2, 9, 9, 9, 9, 9]);

fn addr(s: &str) -> Addr {
    s.parse().unwrap()
}

fn prefix(s: &str) -> Prefix {
    s.parse().unwrap()
}

fn interface(id: u16, role: Role, addresses: &[(&str, u8)]) -> Interface {
    Interface {
        id: IfId(id),
        name: format!("if{id}").into(),
        role,
        mac: Mac([2, 0, 0, 0, 0, id as u8]),
        mtu: 1500,
        up: true,
        carrier: IfId(id),
        vlan: None,
        queues: vec![],
        addresses: addresses.iter().map(|(a, len)| (addr(a), *len)).collect(),
        host: None,
        through: None,
        untracked: false,
        super_frames: false,
    }
}

fn workload(net: &str) -> Role {
    Role::Workload(Workload {
        name: "default/w".into(),
        endpoint: 0,
        active: true,
        nets: vec![net.parse().unwrap()],
        spoofable: vec![],
        ingress: Quota::default(),
        egress: Quota::default(),
    })
}

fn interfaces() -> Interfaces {
    let mut vlan = interface(2, Role::Uplink, &[("172.16.0.1", 24)]);
    (vlan.carrier, vlan.vlan) = (IfId(0), Some(100));
    Interfaces::new([
        interface(0, Role::Uplink, &[("192.168.0.1", 24), ("fd00::1", 64), ("fe80::5", 64)]),
        interface(1, workload("10.65.0.2/32"), &[]),
        vlan,
    ])
}

fn rib(interfaces: Interfaces) -> Rib {
    let mut rib = Rib::default();
    rib.set_interfaces(Arc::new(interfaces));
    rib
}

fn want(rib: &mut Rib, destination: &str, target: RouteTarget) {
    rib.set(TableId::Main, Origin::Agent, prefix(destination), Some(target));
}

fn unwant(rib: &mut Rib, destination: &str) {
    rib.set(TableId::Main, Origin::Agent, prefix(destination), None);
}

fn gateway(at: &str) -> RouteTarget {
    RouteTarget::gateway(addr(at))
}

fn several(at: &[&str]) -> RouteTarget {
    RouteTarget::Via(at.iter().map(|at| NextHop { gateway: Some(addr(at)), ..NextHop::default() }).collect())
}

fn find(fib: &Fib, dst: &str) -> Hop {
    fib.lookup(addr(dst), Scope::Host, 0)
}

fn unresolved(tx_if: u16, at: &str) -> Hop {
    Hop::Unresolved { tx_if: IfId(tx_if), link: IfId(tx_if), next_hop: addr(at) }
}

/// Over many flows, the next hops that they take.
fn taken(fib: &Fib, dst: &str) -> BTreeSet<Addr> {
    let hop = |hash: u64| match fib.lookup(addr(dst), Scope::Host, hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        Hop::Unresolved { next_hop, .. } => next_hop,
        other => panic!("{other:?}"),
    };
    (0..1000).map(hop).collect()
}

#[test]
fn every_kind_of_route() {
    let mut rib = rib(interfaces());
    for (id, at) in [(1, "10.65.0.2"), (0, "192.168.0.2"), (2, "172.16.0.2")] {
        rib.set_neighbour(IfId(id), addr(at), Some(MAC));
    }
    for (destination, target) in [
        ("10.65.0.2/32", RouteTarget::Workload(IfId(1))),
        ("10.65.1.0/24", gateway("192.168.0.2")),
        ("10.65.2.0/24", gateway("172.16.0.2")),
        ("10.65.3.0/24", gateway("192.168.0.3")),
        ("10.65.4.0/24", gateway("203.0.113.1")),
        ("10.65.5.0/24", RouteTarget::Workload(IfId(7))),
        ("10.65.6.0/24", RouteTarget::Unreachable),
        ("10.65.7.0/24", RouteTarget::Prohibit),
        ("10.65.0.0/16", RouteTarget::Blackhole),
    ] {
        want(&mut rib, destination, target);
    }
    let fib = rib.publish();
    let leaves_by = |dst: &str| match find(&fib, dst) {
        Hop::Adjacency(index) => fib.adjacency(index).unwrap().tx_if,
        other => panic!("{dst}: {other:?}"),
    };
    assert_eq!(leaves_by("10.65.0.2"), IfId(1));
    assert_eq!(leaves_by("10.65.1.77"), IfId(0));
    assert_eq!(leaves_by("10.65.2.77"), IfId(2));
    assert_eq!(leaves_by("192.168.0.2"), IfId(0));
    assert_eq!(find(&fib, "10.65.3.1"), unresolved(0, "192.168.0.3"));
    assert_eq!(find(&fib, "fd00::7"), unresolved(0, "fd00::7"));
    assert_eq!(find(&fib, "10.65.4.1"), Hop::NoRoute, "no way to the gateway");
    assert_eq!(find(&fib, "10.65.5.1"), Hop::NoRoute, "no such workload");
    assert_eq!(find(&fib, "10.65.6.1"), Hop::Unreachable);
    assert_eq!(find(&fib, "10.65.7.1"), Hop::Prohibited);
    assert_eq!(find(&fib, "10.65.9.9"), Hop::Blackhole);
    assert_eq!(find(&fib, "192.168.0.1"), Hop::Local);
    assert_eq!(find(&fib, "8.8.8.8"), Hop::NoRoute);

    let Hop::Adjacency(tagged) = find(&fib, "172.16.0.2") else { panic!() };
    assert_eq!(fib.adjacency(tagged).unwrap().header.as_slice().len(), 18);
}

#[test]
fn the_host_port_takes_what_is_local() {
    let all = [interface(0, Role::Uplink, &[("192.168.0.1", 24)]), interface(1, Role::Host, &[])];
    let mut rib = rib(Interfaces::new(all.clone()));
    want(&mut rib, "10.0.0.1/32", RouteTarget::Local);
    let fib = rib.publish();
    for dst in ["192.168.0.1", "10.0.0.1"] {
        let Hop::Adjacency(index) = find(&fib, dst) else { panic!("{dst}") };
        assert_eq!(fib.adjacency(index).unwrap().tx_if, IfId(1));
    }
    rib.set_interfaces(Arc::new(Interfaces::new(all[..1].to_vec())));
    assert_eq!(find(&rib.publish(), "10.0.0.1"), Hop::Local, "the port is gone");
}

#[test]
fn a_neighbour_that_answers_changes_no_route() {
    let mut rib = rib(interfaces());
    want(&mut rib, "10.65.1.0/24", gateway("192.168.0.2"));
    let before = rib.publish();
    rib.set_neighbour(IfId(0), addr("192.168.0.2"), Some(MAC));
    let after = rib.publish();
    for dst in ["10.65.1.1", "192.168.0.2"] {
        assert_eq!(find(&before, dst), unresolved(0, "192.168.0.2"));
        assert!(matches!(find(&after, dst), Hop::Adjacency(_)), "{dst}");
    }
    rib.set_neighbour(IfId(0), addr("192.168.0.2"), None);
    assert_eq!(find(&rib.publish(), "10.65.1.1"), unresolved(0, "192.168.0.2"));
    assert!(matches!(find(&after, "10.65.1.1"), Hop::Adjacency(_)), "what was published stays what it is");
}

#[test]
fn gateways_behind_routes_follow_them() {
    let mut rib = rib(interfaces());
    want(&mut rib, "10.1.0.0/16", gateway("203.0.113.1"));
    assert_eq!(find(&rib.publish(), "10.1.0.1"), Hop::NoRoute);
    want(&mut rib, "203.0.113.0/24", gateway("198.51.100.1"));
    want(&mut rib, "198.51.100.0/24", gateway("192.168.0.2"));
    assert_eq!(find(&rib.publish(), "10.1.0.1"), unresolved(0, "192.168.0.2"));
    want(&mut rib, "198.51.100.1/32", gateway("172.16.0.9"));
    assert_eq!(find(&rib.publish(), "10.1.0.1"), unresolved(2, "172.16.0.9"), "a more specific one came");
    unwant(&mut rib, "198.51.100.1/32");
    assert_eq!(find(&rib.publish(), "10.1.0.1"), unresolved(0, "192.168.0.2"));
    want(&mut rib, "198.51.100.0/24", RouteTarget::Blackhole);
    assert_eq!(find(&rib.publish(), "10.1.0.1"), Hop::NoRoute, "no way to a gateway that is nowhere");
    want(&mut rib, "198.51.100.0/24", gateway("203.0.113.1"));
    assert_eq!(find(&rib.publish(), "10.1.0.1"), Hop::NoRoute, "two that are behind each other");
    want(&mut rib, "198.51.100.0/24", several(&["192.168.0.2", "172.16.0.2"]));
    assert_eq!(taken(&rib.publish(), "10.1.0.1"), [addr("172.16.0.2"), addr("192.168.0.2")].into());
    // On a link that has no prefix for it.
    let link = NextHop { interface: Some(IfId(2)), ..NextHop::default() };
    want(&mut rib, "198.51.100.0/24", RouteTarget::Via([link].into()));
    assert_eq!(find(&rib.publish(), "10.1.0.1"), unresolved(2, "198.51.100.1"));
}

/// A node whose own address is among those that lie behind it.
#[test]
fn no_tunnel_runs_through_a_tunnel() {
    let mut rib = rib(interfaces());
    let remote = addr("203.0.113.1");
    let near = NearEnd {
        interface: IfId(9),
        address: addr("192.168.0.1"),
        mac: Mac::default(),
        port: 0,
        mtu: Some(1480),
    };
    rib.set_overlay(&Overlay {
        near: [Some(near), None, None, None, None],
        nodes: Arc::new([(remote, FarEnd::default())].into()),
        ..Overlay::default()
    });
    want(&mut rib, "203.0.113.0/24", RouteTarget::Tunnel(Tunnel { kind: TunnelKind::Ipip, remote }));
    assert_eq!(find(&rib.publish(), "203.0.113.7"), Hop::NoRoute);
    want(&mut rib, "0.0.0.0/0", gateway("192.168.0.2"));
    let waits = |next_hop| Hop::Unresolved { tx_if: IfId(9), link: IfId(0), next_hop: addr(next_hop) };
    assert_eq!(find(&rib.publish(), "203.0.113.7"), waits("192.168.0.2"));
    want(&mut rib, "0.0.0.0/0", gateway("192.168.0.3"));
    assert_eq!(find(&rib.publish(), "203.0.113.7"), waits("192.168.0.3"), "it follows the route outside");
    rib.set_neighbour(IfId(0), addr("192.168.0.3"), Some(MAC));
    let fib = rib.publish();
    let Hop::Adjacency(index) = find(&fib, "203.0.113.7") else { panic!() };
    assert_eq!(fib.tunnel(index).map(|tunnel| tunnel.underlay), Some(IfId(0)));
}

#[test]
fn ways_whose_interface_is_gone_leave_their_flows_to_the_others() {
    let mut rib = rib(interfaces());
    want(&mut rib, "10.1.0.0/16", several(&["192.168.0.2", "192.168.0.3", "172.16.0.2"]));
    let before = rib.publish();
    assert_eq!(taken(&before, "10.1.0.1").len(), 3);
    let rest: Vec<Interface> = interfaces().iter().filter(|of| of.id != IfId(2)).cloned().collect();
    rib.set_interfaces(Arc::new(Interfaces::new(rest)));
    let after = rib.publish();
    assert_eq!(taken(&after, "10.1.0.1"), [addr("192.168.0.2"), addr("192.168.0.3")].into());
    for hash in (0..10_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let [was, is] = [&before, &after].map(|fib| fib.lookup(addr("10.1.0.1"), Scope::Host, hash));
        assert!(was == is || was == unresolved(2, "172.16.0.2"), "{was:?} became {is:?}");
    }
    assert_eq!(find(&after, "172.16.0.9"), Hop::NoRoute, "and so is its connected prefix");
}

#[test]
fn a_scope_has_routes_of_its_own() {
    let mut rib = rib(interfaces());
    want(&mut rib, "10.1.0.0/16", gateway("192.168.0.2"));
    let table = TableId::Scoped(Scope::Workload);
    rib.set(table, Origin::Kernel, prefix("0.0.0.0/0"), Some(gateway("172.16.0.2")));
    let fib = rib.publish();
    assert_eq!(fib.lookup(addr("10.1.0.1"), Scope::Workload, 0), unresolved(2, "172.16.0.2"));
    assert_eq!(fib.lookup(addr("10.1.0.1"), Scope::Host, 0), unresolved(0, "192.168.0.2"));
    rib.set(table, Origin::Kernel, prefix("0.0.0.0/0"), None);
    assert_eq!(rib.publish().lookup(addr("10.1.0.1"), Scope::Workload, 0), unresolved(0, "192.168.0.2"));
}

#[test]
fn of_two_that_want_a_prefix_the_first_has_it() {
    let mut rib = rib(interfaces());
    let kernel =
        |rib: &mut Rib, target| rib.set(TableId::Main, Origin::Kernel, prefix("10.1.0.0/16"), target);
    kernel(&mut rib, Some(gateway("172.16.0.2")));
    want(&mut rib, "10.1.0.0/16", gateway("192.168.0.2"));
    assert_eq!(find(&rib.publish(), "10.1.0.1"), unresolved(0, "192.168.0.2"));
    let shown = rib.explain(addr("10.1.0.1"), Scope::Host);
    assert_eq!(
        shown.iter().map(|s| (s.origin, s.best)).collect::<Vec<_>>(),
        [(Origin::Agent, true), (Origin::Kernel, false)]
    );
    unwant(&mut rib, "10.1.0.0/16");
    assert_eq!(find(&rib.publish(), "10.1.0.1"), unresolved(2, "172.16.0.2"));
    kernel(&mut rib, None);
    assert_eq!(find(&rib.publish(), "10.1.0.1"), Hop::NoRoute);
}

/// The slow twin: what is wanted, and an answer worked out from all of it.
#[derive(Default)]
struct Twin(BTreeMap<(Prefix, Origin), RouteTarget>);

impl Twin {
    fn longest(&self, dst: Addr) -> Option<&RouteTarget> {
        let holds = self.0.iter().filter(|((prefix, _), _)| prefix.contains(dst));
        holds.max_by_key(|((prefix, origin), _)| (prefix.len(), std::cmp::Reverse(*origin))).map(|(_, t)| t)
    }

    fn exits(&self, interfaces: &Interfaces, dst: Addr) -> Result<BTreeSet<Exit>, Option<RouteTarget>> {
        match self.longest(dst) {
            Some(RouteTarget::Via(hops)) => {
                Ok(hops.iter().flat_map(|hop| self.hop(interfaces, hop, None, 0)).collect())
            }
            other => Err(other.cloned()),
        }
    }

    fn hop(
        &self,
        interfaces: &Interfaces,
        hop: &NextHop,
        towards: Option<Addr>,
        depth: u32,
    ) -> BTreeSet<Exit> {
        let Some(gateway) = hop.gateway else {
            return [Exit { tx_if: hop.interface.unwrap(), next_hop: towards }].into();
        };
        if let Some(link) = interfaces.iter().find(|link| link.role == Role::Uplink && link.connects(gateway))
        {
            return [Exit { tx_if: link.id, next_hop: Some(gateway) }].into();
        }
        match self.longest(gateway) {
            Some(RouteTarget::Via(hops)) if depth < MAX_DEPTH => {
                hops.iter().flat_map(|hop| self.hop(interfaces, hop, Some(gateway), depth + 1)).collect()
            }
            _ => BTreeSet::new(),
        }
    }
}

/// Addresses that lie on links, behind routes, and beyond.
const PLACES: [&str; 8] = [
    "192.168.0.2",
    "172.16.0.2",
    "203.0.113.1",
    "203.0.113.2",
    "198.51.100.1",
    "198.51.100.2",
    "10.1.0.1",
    "8.8.8.8",
];

fn target() -> impl Strategy<Value = RouteTarget> {
    let place = || prop::sample::select(PLACES.to_vec());
    prop_oneof![
        4 => prop::collection::vec(place(), 1..3).prop_map(|at| several(&at)),
        1 => Just(RouteTarget::Blackhole),
        1 => Just(RouteTarget::Unreachable),
        1 => Just(RouteTarget::Via([NextHop { interface: Some(IfId(2)), ..NextHop::default() }].into())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_twin_after_every_change(
        steps in prop::collection::vec(
            (prop::sample::select(PLACES.to_vec()), prop::sample::select(vec![0u8, 8, 16, 24, 31, 32]), any::<bool>(), prop::option::weighted(0.7, target())),
            1..40,
        ),
    ) {
        let interfaces = interfaces();
        let mut rib = rib(interfaces.clone());
        let mut twin = Twin::default();
        for ((origin, prefix), target) in rib.derived.clone() {
            twin.0.insert((prefix, origin), target);
        }
        for (at, len, kernel, target) in steps {
            let prefix = Prefix::truncate(addr(at), len);
            let origin = if kernel { Origin::Kernel } else { Origin::Agent };
            match &target {
                Some(target) => drop(twin.0.insert((prefix, origin), target.clone())),
                None => drop(twin.0.remove(&(prefix, origin))),
            }
            rib.set(TableId::Main, origin, prefix, target);
            let fib = rib.publish();
            for place in PLACES {
                let hops: BTreeSet<Exit> = (0..200u64).filter_map(|n| {
                    match fib.lookup(addr(place), Scope::Host, n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                        Hop::Unresolved { tx_if, next_hop, .. } => Some(Exit { tx_if, next_hop: Some(next_hop) }),
                        _ => None,
                    }
                }).collect();
                match twin.exits(&interfaces, addr(place)) {
                    Ok(exits) => {
                        let there = |exit: &Exit| Exit { next_hop: exit.next_hop.or(Some(addr(place))), ..*exit };
                        prop_assert_eq!(hops, exits.iter().map(there).collect(), "{}", place);
                    }
                    Err(nowhere) => {
                        let want = match nowhere {
                            Some(RouteTarget::Blackhole) => Hop::Blackhole,
                            Some(RouteTarget::Unreachable) => Hop::Unreachable,
                            Some(RouteTarget::Local) => Hop::Local,
                            _ => Hop::NoRoute,
                        };
                        prop_assert_eq!(find(&fib, place), want, "{}", place);
                    }
                }
            }
        }
        let wanted: Vec<_> = twin.0.keys().copied().collect();
        for (prefix, origin) in wanted {
            rib.set(TableId::Main, origin, prefix, None);
        }
        prop_assert_eq!(rib.leads.len(), rib.free.len(), "leads that nobody needs");
        prop_assert!(rib.behind.is_empty() && rib.publish().is_empty());
    }
}
