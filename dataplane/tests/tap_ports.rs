//! Workloads behind taps: real TCP between them, and between one of them and the network, with super-frames whole
//! where they may be and sound segments where not. Needs root.
#![allow(missing_docs)]

mod build;
mod namespace;
mod process;

use build::*;
use margay_api::dataplane::v1 as pb;
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::{Agent, Process};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Bytes that go each way: enough for windows to open, and for every kind of super-frame.
const BYTES: usize = 24 << 20;

/// A byte of what is sent.
fn byte(at: usize) -> u8 {
    (at * 31 + at / 4093) as u8
}

/// Sends all there is to send, while it reads and checks what comes.
fn converse(stream: &TcpStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let said: Vec<u8> = (0..BYTES).map(byte).collect();
            (&mut &*stream).write_all(&said).expect("no reset");
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut heard = Vec::with_capacity(BYTES);
        (&mut &*stream).read_to_end(&mut heard).expect("no reset");
        assert_eq!(heard.len(), BYTES);
        assert!(heard.iter().enumerate().all(|(at, heard)| *heard == byte(at)), "as it was sent");
    });
}

/// Both ways at once between two stations.
fn both_ways(client: &Station, server: &Station, at: &str) {
    let at: SocketAddr = at.parse().unwrap();
    let listener = server.there(move || TcpListener::bind(at).unwrap());
    let serving = server.there(move || {
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            converse(&stream);
        })
    });
    client.there(move || {
        // Links come up in their own time.
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match TcpStream::connect_timeout(&at, Duration::from_millis(200)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{at}: {error}"),
            }
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        converse(&stream);
    });
    serving.join().expect("the other end is content, too");
}

/// A counter of the kernel's, in the namespace of a station.
fn counted(station: &Station, kind: &'static str, name: &'static str) -> u64 {
    station.there(move || {
        let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let mut lines = text.lines().filter(|line| line.split(':').next() == Some(kind));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|has| has == name).unwrap();
        values.split(' ').nth(at).unwrap().parse().unwrap()
    })
}

#[test]
fn real_sockets_by_taps() {
    in_namespace(|| {
        let (one, two) = (Station::workload(1, workload_mac(1)), Station::workload(2, workload_mac(2)));
        let far = Station::at("up0", "up1", &["192.168.7.2/24"]);
        ip("addr add 192.168.7.1/24 dev up0");
        far.there(|| ip("route add 10.65.0.0/24 via 192.168.7.1"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let arguments =
            ["--workload-ports", "tap", "--large-frames", "64", "--uplink", "up0", "--flows", "8192"];
        let process = Process::start(&arguments);
        let mut client = runtime.block_on(process.client());
        let _agent = runtime.block_on(Agent::adopted(&mut client, two_workloads()));

        both_ways(&one, &two, "10.65.0.2:7000");
        both_ways(&two, &one, "[fd65::1]:7000");
        // To the network they leave as segments, whose checksums the far end's kernel verifies; and come back as such.
        both_ways(&one, &far, "192.168.7.2:7000");
        both_ways(&far, &two, "10.65.0.2:7001");

        for station in [&one, &two, &far] {
            for (kind, name) in [("Tcp", "InErrs"), ("Tcp", "InCsumErrors"), ("Ip", "InHdrErrors")] {
                assert_eq!(counted(station, kind, name), 0, "{kind} {name}");
            }
        }
        // Of at most 1,460 bytes each, on two connections over two taps, and on two over one.
        let least = 6 * BYTES as u64 / 1460;
        let deadline = Instant::now() + PATIENCE;
        // A worker says now and then what its devices counted.
        loop {
            let request = pb::ListInterfacesRequest::default();
            let shown = runtime.block_on(client.list_interfaces(request)).unwrap().into_inner();
            let taps = shown.interfaces.iter().filter(|interface| interface.mode.contains("super-frames"));
            assert_eq!(taps.count(), 2);
            let queues = shown.interfaces.iter().flat_map(|interface| &interface.queues);
            let packets: u64 = queues.map(|queue| queue.rx_packets).sum();
            if packets > least {
                break;
            }
            assert!(Instant::now() < deadline, "super-frames count as the packets that they are: {packets}");
        }
    });
}
