//! TCP through the dataplane over wires that lose, reorder and corrupt: what arrives is what was
//! sent, or nothing where policy says so.
#![allow(missing_docs)]

mod build;
mod station;

use build::*;
use margay_dataplane::io::fault::{Fault, Rates};
use margay_dataplane::io::memory::MemoryHandle;
use margay_dataplane::net::{Addr, Mac, Nanos};
use margay_dataplane::simulation::{Setup, Simulation};
use smoltcp::socket::tcp;
use station::Station;

const MIB: usize = 1 << 20;
const STEP: Nanos = Nanos::from_millis(1);
/// Steps after which a connection that got nowhere is given up: ten minutes.
const PATIENCE: u32 = 600_000;
const NONE: Rates = Rates { drop: 0, corrupt: 0, truncate: 0, reorder: 0 };

#[test]
fn a_mebibyte_arrives_over_perfect_wires() {
    let report = transfer(("10.65.0.1", "10.65.0.3"), 80, NONE, 1);
    assert!(report.complete && report.faulted == 0, "{report:?}");
}

#[test]
fn a_mebibyte_arrives_over_bad_wires() {
    let rates = Rates { drop: 30, corrupt: 20, truncate: 10, reorder: 50 };
    for (seed, ends) in [(2, ("10.65.0.1", "10.65.0.3")), (3, ("fd65::1", "fd65::3"))] {
        let report = transfer(ends, 80, rates, seed);
        assert!(report.complete, "{report:?}");
        assert!(report.faulted > 20 && report.most_held > 0, "the wires were not bad: {report:?}");
    }
}

#[test]
fn nothing_arrives_at_a_port_that_policy_denies() {
    for ends in [("10.65.0.1", "10.65.0.3"), ("fd65::1", "fd65::3")] {
        let report = transfer(ends, 81, NONE, 4);
        assert_eq!((report.arrived, report.heard), (0, 0), "{report:?}");
        assert!(report.denied > 3, "it tried: {report:?}");
    }
}

#[derive(Debug, Default)]
struct Report {
    /// All of it arrived, in order, and both ends closed.
    complete: bool,
    /// Bytes that arrived.
    arrived: usize,
    /// IP packets from the client that reached the server's wire.
    heard: usize,
    denied: u64,
    faulted: u64,
    most_held: usize,
}

/// Sends a mebibyte from workload 1 to workload 3.
fn transfer((from, to): (&str, &str), port: u16, rates: Rates, seed: u64) -> Report {
    let mut node = Simulation::new(Setup { workers: 2, ..Setup::default() });
    for (n, interface) in (0..).zip(["cali1", "cali3"]) {
        // What `receive` holds back is not received yet; what `transmit` does is counted by `check`.
        let received = Rates { reorder: 0, ..rates };
        node.wrap(interface, move |memory| Box::new(Fault::new(memory, received, rates, seed + n)));
    }
    let mut node = furnished(node);
    let sent: Vec<u8> = (0..MIB as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = End::new(workload_mac(1), addr(from), node.wire("cali1").clone());
    let mut server = End::new(workload_mac(3), addr(to), node.wire("cali3").clone());
    server.socket().listen(port).unwrap();
    client.station.connect(addr(to), port);

    let (mut written, mut received, mut report) = (0, vec![], Report::default());
    for _ in 0..PATIENCE {
        client.poll(node.now());
        server.poll(node.now());
        let socket = client.socket();
        if socket.can_send() && written < MIB {
            written += socket.send_slice(&sent[written..]).unwrap();
        } else if written == MIB {
            socket.close();
        }
        let socket = server.socket();
        if socket.can_recv() {
            let more = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            received.extend(more);
        } else if socket.state() == tcp::State::CloseWait {
            socket.close();
        }
        let closed = [client.socket().state(), server.socket().state()];
        if closed == [tcp::State::TimeWait, tcp::State::Closed] {
            break;
        }
        node.step(STEP);
        report.most_held = report.most_held.max(check(&node));
        if received.is_empty() && node.now() > Nanos::from_secs(60) {
            break;
        }
    }
    let counters = |reason| node.workers.iter().map(|w| w.world().counters.dropped(reason).get()).sum();
    assert_eq!(received, sent[..received.len()], "every byte that arrived is the one that was sent");
    Report {
        complete: received == sent
            && client.socket().state() == tcp::State::TimeWait
            && server.socket().state() == tcp::State::Closed,
        arrived: received.len(),
        heard: server.heard,
        denied: counters(margay_dataplane::packet::DropReason::PolicyDenied),
        faulted: counters(margay_dataplane::packet::DropReason::InjectedFault),
        ..report
    }
}

/// The account, with what the devices hold back on its way out, which is returned.
fn check(node: &Simulation) -> usize {
    let held = node.workers.iter().map(|worker| worker.frames().1).sum::<usize>();
    let account = node.account();
    let out = account.tx + account.punt + account.drops + account.in_flight + held as u64;
    assert_eq!(account.rx, out, "{account:?}, {held} held by devices");
    held
}

/// A workload with a TCP stack, at the far end of an interface.
struct End {
    station: Station,
    wire: MemoryHandle,
    /// IP packets that reached it.
    heard: usize,
}

impl End {
    fn new(mac: Mac, own: Addr, wire: MemoryHandle) -> Self {
        Self { station: Station::new(mac, own, 1 << 16, u64::from(mac.0[5])), wire, heard: 0 }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.station.socket()
    }

    fn poll(&mut self, now: Nanos) {
        while let Some(frame) = self.wire.pop() {
            // Not neighbour discovery, which is the node's own.
            let tcp = frame.get(12..14) == Some(&[8, 0]) || frame.get(20) == Some(&6);
            self.heard += usize::from(tcp);
            self.station.wire.arrived.push_back(frame);
        }
        self.station.poll(now);
        for frame in self.station.wire.sent.drain(..) {
            assert!(self.wire.push(&frame), "the wire has room");
        }
    }
}
