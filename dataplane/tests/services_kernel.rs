//! Services against the real kernel: sockets of workloads and of a station outside reach a workload's
//! by the service's address. Needs root.
#![allow(missing_docs)]

mod build;
mod namespace;
mod process;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change, service};
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::{Agent, Process};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// By family.
const NODE: [&str; 2] = ["10.9.0.1", "fd09::1"];
const OUTSIDE: [&str; 2] = ["10.9.0.2", "fd09::2"];
const CLUSTER: [&str; 2] = ["10.96.0.1", "fd96::1"];
const CLIENT: [&str; 2] = ["10.65.0.1", "fd65::1"];
const SERVER: [&str; 2] = ["10.65.0.2", "fd65::2"];
const PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
const SERVED: u16 = 8080;
const CONNECTIONS: usize = 50;
/// Takes several fragments.
const LONG: usize = 6000;

/// TCP and UDP, by cluster addresses and node ports; workload 2 serves it.
fn changes() -> Vec<pb::Change> {
    let port = |name: &str, protocol| service::Port {
        name: name.into(),
        protocol,
        port: PORT.into(),
        node_port: NODE_PORT.into(),
    };
    let backend = |address: &str| service::Backend {
        address: bytes(addr(address)),
        ports: [("tcp".to_owned(), SERVED.into()), ("udp".to_owned(), SERVED.into())].into(),
        ready: true,
        local: true,
        preferred: true,
        ..Default::default()
    };
    let mut changes = two_workloads();
    changes.push(change(Change::Service(pb::Service {
        id: Some(pb::ServiceId { namespace: "default".into(), name: "web".into() }),
        cluster_ips: CLUSTER.map(|address| bytes(addr(address))).into(),
        ports: vec![port("tcp", 6), port("udp", 17)],
        backends: SERVER.map(backend).into(),
        ..Default::default()
    })));
    changes
}

/// Sends everybody back what comes, and says who sent it.
fn tcp_echoes(listener: &TcpListener, connections: usize) -> Vec<SocketAddr> {
    let echo = |_| {
        let (mut stream, from) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut word = [0; 8];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word).unwrap();
        from
    };
    (0..connections).map(echo).collect()
}

/// The same of datagrams, until one says `end`.
fn udp_echoes(socket: &UdpSocket) -> Vec<SocketAddr> {
    let (mut room, mut seen) = ([0; 2 * LONG], vec![]);
    while let Ok((len, from)) = socket.recv_from(&mut room) {
        if &room[..len] == b"end" {
            break;
        }
        seen.push(from);
        let _ = socket.send_to(&room[..len], from);
    }
    seen
}

/// Many connections at once; each is answered.
fn connect(to: SocketAddr) {
    let mut streams: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(to).unwrap()).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&n.to_be_bytes()).unwrap();
        let mut word = [0; 8];
        stream.read_exact(&mut word).unwrap();
        assert_eq!(usize::from_be_bytes(word), n);
    }
}

/// A short datagram and a long one come back from where they were sent; that of another is not taken.
fn exchange(to: SocketAddr) {
    let socket = UdpSocket::bind((if to.is_ipv6() { "::" } else { "0.0.0.0" }, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut room = [0; 2 * LONG];
    for sent in [vec![1; 10], vec![2; LONG]] {
        loop {
            assert!(Instant::now() < deadline, "{to} does not answer {} bytes", sent.len());
            let _ = socket.send(&sent);
            match socket.recv(&mut room) {
                Ok(len) if room[..len] == sent => break,
                _ => {}
            }
        }
    }
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

#[test]
fn clients_inside_and_outside_reach_a_workload_by_its_service() {
    in_namespace(|| {
        ip("link set lo up");
        let outside = Station::at("up0", "out0", &["10.9.0.2/24", "fd09::2/64"]);
        ip("addr add 10.9.0.1/24 dev up0");
        ip("addr add fd09::1/64 dev up0 nodad");
        let (client, server) = (Station::workload(1, workload_mac(1)), Station::workload(2, workload_mac(2)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = Process::start(&["--uplink", "up0", "--frames", "8192"]);
        let _agent = runtime.block_on(async { Agent::adopted(&mut process.client().await, changes()).await });

        for family in 0..2 {
            let (cluster, node) = (at(CLUSTER[family], PORT), at(NODE[family], NODE_PORT));
            let any = if family == 0 { "0.0.0.0" } else { "::" };
            let (listener, socket) = server.there(move || {
                (TcpListener::bind((any, SERVED)).unwrap(), UdpSocket::bind((any, SERVED)).unwrap())
            });
            let datagrams = std::thread::spawn(move || udp_echoes(&socket));
            let streams = std::thread::spawn(move || tcp_echoes(&listener, 3 * CONNECTIONS));

            // Datagrams first: they also wait until every link is up and every neighbour known.
            client.there(move || exchange(cluster));
            outside.there(move || exchange(node));
            server.there(move || exchange(cluster));
            client.there(move || connect(cluster));
            outside.there(move || connect(node));
            server.there(move || connect(cluster));
            client.there(move || UdpSocket::bind((any, 0)).unwrap().send_to(b"end", cluster).unwrap());

            for seen in [datagrams.join().unwrap(), streams.join().unwrap()] {
                let from = |address: &str| seen.iter().filter(|at| at.ip().to_string() == address).count();
                let (inside, far, own) = (from(CLIENT[family]), from(OUTSIDE[family]), from(SERVER[family]));
                assert!(inside >= 2 && far >= 2, "clients keep their addresses: {seen:?}");
                assert_eq!(own, 0, "who reaches itself comes from the node");
                assert!(seen.len() >= inside + far + 2, "and it does come: {seen:?}");
            }

            // At a port that the service does not have, and at once.
            let refused = client.there(move || {
                let at = SocketAddr::new(cluster.ip(), PORT + 1);
                TcpStream::connect_timeout(&at, PATIENCE).unwrap_err().kind()
            });
            assert_eq!(refused, ErrorKind::ConnectionRefused);
        }
    });
}

/// By family: between the nodes, of a client beside node a, and of node a to that.
const UPLINK_A: [&str; 2] = NODE;
const UPLINK_B: [&str; 2] = ["10.9.0.3", "fd09::3"];
const BESIDE: [&str; 2] = ["10.8.0.2", "fd08::2"];
const TO_BESIDE: [&str; 2] = ["10.8.0.1", "fd08::1"];

/// Node b has workload 3, of which node a knows as the service's only backend.
fn of_two_nodes() -> [Vec<pb::Change>; 2] {
    let remote = |address: &str| service::Backend {
        address: bytes(addr(address)),
        ports: [("tcp".to_owned(), SERVED.into()), ("udp".to_owned(), SERVED.into())].into(),
        ready: true,
        preferred: true,
        ..Default::default()
    };
    let mut here = changes();
    for change in &mut here {
        if let Some(Change::Service(service)) = &mut change.change {
            service.backends = ["10.65.0.3", "fd65::3"].map(remote).into();
        }
    }
    here.extend([via("10.65.0.3/32", UPLINK_B[0]), via("fd65::3/128", UPLINK_B[1])]);
    let mut there = vec![
        change(Change::Profile(open_profile())),
        change(Change::WorkloadEndpoint(endpoint(3, &[]))),
        via("10.65.0.1/32", UPLINK_A[0]),
        via("fd65::1/128", UPLINK_A[1]),
    ];
    there.extend(to_workload(3));
    [here, there]
}

#[test]
fn a_backend_on_another_node_answers_by_way_of_the_node_that_was_asked() {
    in_namespace(|| {
        ip("link set lo up");
        let b = Station::at("up0", "up2", &["10.9.0.3/24", "fd09::3/64"]);
        let beside = Station::at("up1", "out0", &["10.8.0.2/24", "fd08::2/64"]);
        for (link, addresses) in
            [("up0", ["10.9.0.1/24", "fd09::1/64"]), ("up1", ["10.8.0.1/24", "fd08::1/64"])]
        {
            ip(&format!("addr add {} dev {link}", addresses[0]));
            ip(&format!("addr add {} dev {link} nodad", addresses[1]));
        }
        let client = Station::workload(1, workload_mac(1));
        let _second = Station::workload(2, workload_mac(2));
        let server = b.there(|| Station::workload(3, workload_mac(3)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = Process::start(&["--uplink", "up0", "--uplink", "up1", "--frames", "8192"]);
        let other = b.there(|| Process::start(&["--uplink", "up2", "--frames", "8192"]));
        let [here, there] = of_two_nodes();
        let _agents = runtime.block_on(async {
            let first = Agent::adopted(&mut process.client().await, here).await;
            (first, Agent::adopted(&mut other.client().await, there).await)
        });

        for family in 0..2 {
            let (cluster, node) = (at(CLUSTER[family], PORT), at(TO_BESIDE[family], NODE_PORT));
            let any = if family == 0 { "0.0.0.0" } else { "::" };
            let (listener, socket) = server.there(move || {
                (TcpListener::bind((any, SERVED)).unwrap(), UdpSocket::bind((any, SERVED)).unwrap())
            });
            let datagrams = std::thread::spawn(move || udp_echoes(&socket));
            let streams = std::thread::spawn(move || tcp_echoes(&listener, 2 * CONNECTIONS));
            client.there(move || exchange(cluster));
            beside.there(move || exchange(node));
            client.there(move || connect(cluster));
            beside.there(move || connect(node));
            client.there(move || UdpSocket::bind((any, 0)).unwrap().send_to(b"end", cluster).unwrap());
            for seen in [datagrams.join().unwrap(), streams.join().unwrap()] {
                let from = |address: &str| seen.iter().filter(|at| at.ip().to_string() == address).count();
                let (inside, far) = (from(CLIENT[family]), from(UPLINK_A[family]));
                assert!(inside >= 2 && far >= 2, "{seen:?}");
                assert_eq!(inside + far, seen.len(), "who comes from outside does so as the node: {seen:?}");
                assert_eq!(from(BESIDE[family]), 0);
            }
        }
    });
}
