//! Routes, adjacencies and neighbours of the fake dataplane.

use margay_api::dataplane::v1::{NextHop, Prefix, ShownAdjacency, ShownNeighbour, ShownRoute, ShownWay};

/// One of every kind.
pub fn all() -> Vec<ShownRoute> {
    let prefix = |address: [u8; 4], length| Some(Prefix { address: address.to_vec(), length });
    let route = |destination, origin: &str, kind: &str| ShownRoute {
        destination,
        table: "main".into(),
        origin: origin.into(),
        in_force: true,
        kind: kind.into(),
        ..ShownRoute::default()
    };
    let hop =
        |host, weight| NextHop { gateway: vec![192, 168, 0, host], interface_name: String::new(), weight };
    let way = |host, mac: &[u8], share| ShownWay {
        interface_name: "eth0".into(),
        next_hop: vec![192, 168, 0, host],
        mac: mac.to_vec(),
        share,
    };
    vec![
        ShownRoute {
            next_hops: vec![hop(2, 3), hop(3, 1)],
            ways: vec![way(2, &[2, 0, 0, 0, 0, 2], 0.75), way(3, &[], 0.25)],
            ..route(prefix([10, 65, 1, 0], 24), "agent", "via")
        },
        ShownRoute {
            in_force: false,
            next_hops: vec![hop(9, 1)],
            ways: vec![way(9, &[], 1.0)],
            ..route(prefix([10, 65, 1, 0], 24), "kernel", "via")
        },
        ShownRoute {
            next_hops: vec![NextHop { gateway: vec![10, 0, 1, 3], ..NextHop::default() }],
            ways: vec![way(2, &[2, 0, 0, 0, 0, 2], 1.0)],
            ..route(prefix([10, 65, 2, 0], 26), "agent", "vxlan")
        },
        route(prefix([10, 65, 0, 0], 16), "agent", "blackhole"),
        ShownRoute {
            table: "workloads".into(),
            next_hops: vec![hop(77, 1)],
            ..route(prefix([0; 4], 0), "kernel", "via")
        },
        ShownRoute {
            ways: vec![ShownWay { interface_name: "eth0".into(), share: 1.0, ..ShownWay::default() }],
            ..route(prefix([192, 168, 0, 0], 24), "connected", "via")
        },
    ]
}

/// Prefixes that end within a byte are beyond the fake.
pub fn is_within(route: &ShownRoute, within: &Prefix) -> bool {
    let (whole, destination) = ((within.length / 8) as usize, route.destination.as_ref().unwrap());
    destination.length >= within.length && destination.address[..whole] == within.address[..whole]
}

pub fn adjacencies() -> Vec<ShownAdjacency> {
    let header = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0].to_vec();
    let adjacency = |index, address: &[u8], header, users| ShownAdjacency {
        index,
        interface_name: "eth0".into(),
        address: address.to_vec(),
        header,
        mtu: 1500,
        users,
    };
    vec![
        adjacency(0, &[192, 168, 0, 2], header.clone(), 1),
        ShownAdjacency { mtu: 0, ..adjacency(1, &[192, 168, 0, 3], vec![], 2) },
        ShownAdjacency { interface_name: "margay-host".into(), ..adjacency(2, &[], header, 1) },
    ]
}

pub fn neighbours() -> Vec<ShownNeighbour> {
    let neighbour = |interface: &str, host, mac: &[u8], state: &str, age_seconds| ShownNeighbour {
        interface_name: interface.into(),
        address: vec![10, 65, 0, host],
        mac: mac.to_vec(),
        state: state.into(),
        age_seconds,
    };
    vec![
        neighbour("cali1", 1, &[2, 0, 0, 0, 1, 1], "reachable", 7),
        neighbour("cali2", 2, &[2, 0, 0, 0, 1, 2], "static", 90_000),
        neighbour("eth0", 3, &[], "failed", 61),
    ]
}
