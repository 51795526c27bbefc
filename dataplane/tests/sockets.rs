//! Many real sockets at once, and real streams: two thousand TCP connections between two workloads,
//! and iperf3 both ways. `bench/sockets` does the same with ten thousand, and beside the kernel. Needs
//! root.
#![allow(missing_docs)]

mod build;
mod namespace;
mod process;

use build::*;
use namespace::{PATIENCE, Station, in_namespace};
use process::{Agent, Process};
use std::future::Future;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const CONNECTIONS: usize = 2000;
/// Of which so many are being opened at a time: a listener's queue is not endless.
const AT_ONCE: usize = 200;
/// Bytes that a connection sends at a time, and how often.
const BYTES: usize = 3000;
const TIMES: usize = 3;
const SERVER: &str = "10.65.0.2:7000";

fn runs<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, what).await.expect("in time") })
}

/// Sends back what comes, on so many connections, until each is closed in good order.
async fn echo(listening: Sender<()>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SERVER.parse().unwrap()).unwrap();
    let listener = socket.listen(2 * AT_ONCE as u32).unwrap();
    listening.send(()).unwrap();
    let mut tasks = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let (mut stream, _) = listener.accept().await.unwrap();
        tasks.push(tokio::spawn(async move {
            let mut room = [0; BYTES];
            loop {
                match stream.read(&mut room).await.expect("no reset") {
                    0 => return,
                    len => stream.write_all(&room[..len]).await.expect("no reset"),
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Opens all, then has each say something of its own, several times, while all are open.
async fn converse(to: SocketAddr) {
    let mut streams = Vec::with_capacity(CONNECTIONS);
    while streams.len() < CONNECTIONS {
        let opening: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(TcpStream::connect(to))).collect();
        for stream in opening {
            streams.push(stream.await.unwrap().expect("no refusal"));
        }
    }
    let speak = |(n, mut stream): (usize, TcpStream)| {
        tokio::spawn(async move {
            for time in 0..TIMES {
                let said: Vec<u8> = (0..BYTES).map(|at| (n + at + time) as u8).collect();
                let mut heard = vec![0; BYTES];
                let (mut reader, mut writer) = stream.split();
                let (read, written) = tokio::join!(reader.read_exact(&mut heard), writer.write_all(&said));
                read.expect("no reset");
                written.expect("no reset");
                assert!(heard == said, "connection {n} hears what it said");
            }
            stream
        })
    };
    let speaking: Vec<_> = streams.into_iter().enumerate().map(speak).collect();
    let mut open = vec![];
    for stream in speaking {
        open.push(stream.await.unwrap());
    }
    assert_eq!(open.len(), CONNECTIONS);
}

/// A process where it was told to begin; ended with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// iperf3 for a second; the bits a second that arrived.
fn iperf3(client: &Station, more: &'static [&str]) -> f64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = client.there(move || {
            let mut iperf3 = Command::new("iperf3");
            iperf3.args(["--client", "10.65.0.2", "--time", "1", "--json"]).args(more);
            iperf3.output().expect("iperf3 (package iperf3)")
        });
        let text = String::from_utf8_lossy(&output.stdout);
        let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let end = &said["end"];
        let received = end.get("sum_received").or(end.get("sum"));
        if let Some(bits) = received.and_then(|sum| sum["bits_per_second"].as_f64()) {
            return bits;
        }
        // The server listens in its own time, and serves one at a time.
        assert!(Instant::now() < deadline, "iperf3 {more:?}: {text}");
    }
}

#[test]
fn thousands_of_connections_at_once_and_streams_both_ways() {
    in_namespace(|| {
        let client = Station::workload(1, workload_mac(1));
        let server = Station::workload(2, workload_mac(2));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = Process::start(&["--frames", "16384", "--flows", "8192"]);
        let _agent =
            runtime.block_on(async { Agent::adopted(&mut process.client().await, two_workloads()).await });

        let (tell, listening) = channel();
        let echoing = server.there(|| std::thread::spawn(move || runs(echo(tell))));
        listening.recv().unwrap();
        client.there(|| {
            // Links come up in their own time.
            let deadline = Instant::now() + PATIENCE;
            let to: SocketAddr = SERVER.parse().unwrap();
            let nobody = SocketAddr::new(to.ip(), 9);
            while std::net::TcpStream::connect_timeout(&nobody, Duration::from_millis(200))
                .is_err_and(|error| error.kind() != std::io::ErrorKind::ConnectionRefused)
            {
                assert!(Instant::now() < deadline, "the server's namespace is reached");
            }
            runs(converse(to));
        });
        echoing.join().expect("every connection ends in good order");

        let server = server.there(|| {
            let mut iperf3 = Command::new("iperf3");
            let iperf3 = iperf3.args(["--server", "--bind", "10.65.0.2"]).stdout(Stdio::null());
            Killed(iperf3.spawn().expect("iperf3 (package iperf3)"))
        });
        for more in [
            &[][..],
            &["--reverse"],
            &["--udp", "--bitrate", "10M"],
            &["--udp", "--bitrate", "10M", "--reverse"],
        ] {
            let bits = iperf3(&client, more);
            assert!(bits > 1e6, "{more:?}: {bits} bit/s");
        }
        drop(server);
    });
}
