use super::*;
use crate::net::Nanos;

fn addr(s: &str) -> Addr {
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

fn route(destination: &str, target: RouteTarget) -> RouteEntry {
    RouteEntry { destination: destination.parse().unwrap(), target }
}

#[test]
fn every_kind_of_route() {
    let mut vlan = interface(2, Role::Uplink, &[("172.16.0.1", 24)]);
    (vlan.carrier, vlan.vlan) = (IfId(0), Some(100));
    let interfaces = Interfaces::new([
        interface(0, Role::Uplink, &[("192.168.0.1", 24), ("fd00::1", 64), ("fe80::5", 64)]),
        interface(1, workload("10.65.0.2/32"), &[]),
        vlan,
    ]);
    let mut neighbours = Neighbours::default();
    let mac = Mac([2, 9, 9, 9, 9, 9]);
    for (id, at) in [(1, "10.65.0.2"), (0, "192.168.0.2"), (2, "172.16.0.2")] {
        neighbours.learn(IfId(id), addr(at), mac, Source::Seen, Nanos(0));
    }
    let gateway = |at: &str| RouteTarget::Gateway { gateway: addr(at), interface: None };
    let fib = Fib::build(
        &[
            route("10.65.0.2/32", RouteTarget::Workload(IfId(1))),
            route("10.65.1.0/24", gateway("192.168.0.2")),
            route("10.65.2.0/24", gateway("172.16.0.2")),
            route("10.65.3.0/24", gateway("192.168.0.3")),
            route("10.65.4.0/24", gateway("203.0.113.1")),
            route("10.65.5.0/24", RouteTarget::Workload(IfId(7))),
            route("10.65.0.0/16", RouteTarget::Blackhole),
        ],
        &interfaces,
        &neighbours,
        &Overlay::default(),
    )
    .unwrap();

    let leaves_by = |dst: &str| match fib.lookup(addr(dst)) {
        Hop::Adjacency(index) => fib.adjacency(index).unwrap().tx_if,
        other => panic!("{dst}: {other:?}"),
    };
    assert_eq!(leaves_by("10.65.0.2"), IfId(1));
    assert_eq!(leaves_by("10.65.1.77"), IfId(0));
    assert_eq!(leaves_by("10.65.2.77"), IfId(2));
    assert_eq!(leaves_by("192.168.0.2"), IfId(0));
    let unresolved =
        |tx_if, at| Hop::Unresolved { tx_if: IfId(tx_if), link: IfId(tx_if), next_hop: addr(at) };
    assert_eq!(fib.lookup(addr("10.65.3.1")), unresolved(0, "192.168.0.3"));
    assert_eq!(fib.lookup(addr("fd00::7")), unresolved(0, "fd00::7"));
    assert_eq!(fib.lookup(addr("10.65.4.1")), Hop::NoRoute, "no interface is connected to the gateway");
    assert_eq!(fib.lookup(addr("10.65.5.1")), Hop::NoRoute, "no such workload");
    assert_eq!(fib.lookup(addr("10.65.9.9")), Hop::Blackhole);
    assert_eq!(fib.lookup(addr("192.168.0.1")), Hop::Local);
    assert_eq!(fib.lookup(addr("8.8.8.8")), Hop::NoRoute);

    let Hop::Adjacency(tagged) = fib.lookup(addr("172.16.0.2")) else { panic!() };
    assert_eq!(fib.adjacency(tagged).unwrap().header.as_slice().len(), 18);
}

#[test]
fn the_host_port_takes_what_is_local() {
    let interfaces =
        Interfaces::new([interface(0, Role::Uplink, &[("192.168.0.1", 24)]), interface(1, Role::Host, &[])]);
    let fib = Fib::build(
        &[route("10.0.0.1/32", RouteTarget::Local)],
        &interfaces,
        &Neighbours::default(),
        &Overlay::default(),
    )
    .unwrap();
    for dst in ["192.168.0.1", "10.0.0.1"] {
        let Hop::Adjacency(index) = fib.lookup(addr(dst)) else { panic!("{dst}") };
        assert_eq!(fib.adjacency(index).unwrap().tx_if, IfId(1));
    }
}
