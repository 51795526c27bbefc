//! natOutgoing against the real kernel: sockets of a workload speak to a station outside, which knows
//! the node's address only, while the node's own sockets speak to it too. Needs root.
#![allow(missing_docs)]

mod build;
mod namespace;
mod process;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::{Agent, Process};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

/// The node and the station outside, by family.
const NODE: [&str; 2] = ["10.9.0.1", "fd09::1"];
const OUTSIDE: [&str; 2] = ["10.9.0.2", "fd09::2"];
const CONNECTIONS: usize = 200;

fn changes() -> Vec<pb::Change> {
    let pool = |cidr: &str| {
        change(Change::IpPool(pb::IpPool {
            cidr: Some(prefix(cidr)),
            masquerade: true,
            ..Default::default()
        }))
    };
    let mut changes = vec![
        change(Change::Profile(open_profile())),
        change(Change::WorkloadEndpoint(endpoint(1, &[]))),
        pool("10.65.0.0/16"),
        pool("fd65::/32"),
    ];
    changes.extend(to_workload(1));
    changes
}

/// Sends back what comes, and says who sent it, once each.
fn echoes(listener: TcpListener, connections: usize) -> Vec<SocketAddr> {
    let mut streams: Vec<_> = (0..connections).map(|_| listener.accept().unwrap()).collect();
    for (stream, _) in &mut streams {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut word = [0; 8];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word).unwrap();
    }
    streams.into_iter().map(|(_, from)| from).collect()
}

fn speak(stream: &mut TcpStream, n: usize) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&n.to_be_bytes()).unwrap();
    let mut word = [0; 8];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(usize::from_be_bytes(word), n);
}

/// Datagrams from `socket` until one is answered.
fn reaches(socket: &UdpSocket, to: SocketAddr) {
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut room = [0; 64];
    while socket.recv(&mut room).is_err() {
        assert!(Instant::now() < deadline, "{to} does not answer");
        let _ = socket.send_to(b"?", to);
    }
}

#[test]
fn workloads_speak_as_their_node_and_the_node_as_itself() {
    in_namespace(|| {
        ip("link set lo up");
        let outside = Station::at("up0", "out0", &["10.9.0.2/24", "fd09::2/64"]);
        ip("addr add 10.9.0.1/24 dev up0");
        ip("addr add fd09::1/64 dev up0 nodad");
        let inside = Station::workload(1, workload_mac(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = Process::start(&["--uplink", "up0", "--frames", "8192"]);
        let _agent = runtime.block_on(async { Agent::adopted(&mut process.client().await, changes()).await });

        for (own, far) in NODE.into_iter().zip(OUTSIDE) {
            // UDP, which also waits until every link is up and every neighbour known.
            let server = outside.there(move || UdpSocket::bind((far, 5300)).unwrap());
            let there = server.local_addr().unwrap();
            let answering = server.try_clone().unwrap();
            let answers = std::thread::spawn(move || {
                let (mut room, mut seen) = ([0; 64], vec![]);
                while let Ok((len, from)) = answering.recv_from(&mut room) {
                    if &room[..len] == b"end" {
                        break;
                    }
                    seen.push(from);
                    let _ = answering.send_to(b"!", from);
                }
                seen
            });
            let any = if own.contains(':') { "::" } else { "0.0.0.0" };
            reaches(&inside.there(move || UdpSocket::bind((any, 4000)).unwrap()), there);
            let of_host = UdpSocket::bind((any, 0)).unwrap();
            reaches(&of_host, there);
            of_host.send_to(b"end", there).unwrap();
            for from in answers.join().unwrap() {
                assert_eq!(from.ip().to_string(), own);
            }

            // Many connections at once, of the workload and of the node.
            let listener = outside.there(move || TcpListener::bind((far, 8000)).unwrap());
            let accepted = std::thread::spawn(move || echoes(listener, 2 * CONNECTIONS));
            let mut streams = inside.there(move || {
                (0..CONNECTIONS).map(|_| TcpStream::connect((far, 8000)).unwrap()).collect::<Vec<_>>()
            });
            streams.extend((0..CONNECTIONS).map(|_| TcpStream::connect((far, 8000)).unwrap()));
            streams.iter_mut().enumerate().for_each(|(n, stream)| speak(stream, n));
            let mut from = accepted.join().unwrap();
            assert!(from.iter().all(|from| from.ip().to_string() == own), "{from:?}");
            from.sort_unstable();
            from.dedup();
            assert_eq!(from.len(), 2 * CONNECTIONS, "each has a port of its own");

            // Echo, and a closed port: the error about what the node sent reaches the workload.
            inside.there(move || {
                let ping = Command::new("ping").args(["-c", "3", "-i", "0.2", "-W", "5", far]).output();
                let ping = ping.expect("ping (package iputils-ping)");
                assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
            });
            let refused = inside.there(move || {
                let socket = UdpSocket::bind((any, 0)).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect((far, 9)).unwrap();
                socket.send(b"?").unwrap();
                socket.recv(&mut [0; 8]).unwrap_err().kind()
            });
            assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
        }
    });
}
