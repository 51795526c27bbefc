//! Fragments against the real kernel: datagrams of 8 kB between the sockets of two workloads. Needs
//! root.
#![allow(missing_docs)]

mod build;
mod namespace;
mod process;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::{Agent, Process};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const OPEN: u16 = 5300;
const SHUT: u16 = 5301;
const LONG: usize = 8000;
/// How long what must not come is waited for.
const BRIEFLY: Duration = Duration::from_millis(300);

/// Takes UDP to port [`OPEN`] and nothing else.
fn open_one() -> pb::Policy {
    let mut policy = policy("web", 80);
    policy.inbound_rules[0].protocol = Some(17);
    policy.inbound_rules[0].dst_ports = vec![pb::PortRange { first: OPEN.into(), last: OPEN.into() }];
    policy
}

fn pattern(seed: u8) -> Vec<u8> {
    (0..LONG).map(|n| (n as u8).wrapping_mul(31) ^ (n >> 8) as u8 ^ seed).collect()
}

/// The next datagram that is none of those that found the way.
fn long(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut room = [0; 10_000];
    loop {
        let (len, from) = socket.recv_from(&mut room).expect("it comes in time");
        if len > 1 {
            return (room[..len].to_vec(), from);
        }
    }
}

#[test]
fn long_datagrams_pass_both_ways_and_policy_on_the_port_holds() {
    in_namespace(|| {
        ip("link set lo up");
        let (one, three) = (Station::workload(1, workload_mac(1)), Station::workload(3, workload_mac(3)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = Process::start(&["--frames", "8192"]);
        let mut changes = vec![
            change(Change::Policy(open_one())),
            change(Change::Profile(open_profile())),
            change(Change::WorkloadEndpoint(endpoint(1, &[]))),
            change(Change::WorkloadEndpoint(endpoint(3, &["web"]))),
        ];
        changes.extend(to_workload(1).into_iter().chain(to_workload(3)));
        let _agent = runtime.block_on(async { Agent::adopted(&mut process.client().await, changes).await });

        for (from, to) in [("10.65.0.1", "10.65.0.3"), ("fd65::1", "fd65::3")] {
            let [listener, closed] =
                [OPEN, SHUT].map(|port| three.there(move || UdpSocket::bind((to, port)).unwrap()));
            listener.set_read_timeout(Some(PATIENCE)).unwrap();
            closed.set_read_timeout(Some(BRIEFLY)).unwrap();
            let client = one.there(move || UdpSocket::bind((from, 4000)).unwrap());
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            // Until both links are up and both neighbours known: datagrams may be lost.
            client.set_nonblocking(true).unwrap();
            let mut room = [0; 10_000];
            let deadline = std::time::Instant::now() + PATIENCE;
            while client.recv(&mut room).is_err() {
                assert!(std::time::Instant::now() < deadline, "{from} {to}: nothing passes");
                let _ = client.send_to(b"?", (to, OPEN));
                listener.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                if let Ok((_, back)) = listener.recv_from(&mut room) {
                    let _ = listener.send_to(b"!", back);
                }
            }
            client.set_nonblocking(false).unwrap();
            listener.set_read_timeout(Some(PATIENCE)).unwrap();

            for seed in 0..20 {
                client.send_to(&pattern(seed), (to, OPEN)).unwrap();
                let (got, back) = long(&listener);
                assert!(got == pattern(seed), "{to}: it arrives as it was");
                listener.send_to(&pattern(!seed), back).unwrap();
                let (got, _) = long(&client);
                assert!(got == pattern(!seed), "{from}: so does the answer");
            }
            for seed in 0..5 {
                client.send_to(&pattern(seed), (to, SHUT)).unwrap();
            }
            assert!(closed.recv(&mut room).is_err(), "{to}: the port is shut");
        }
        let dropped = runtime.block_on(async {
            let mut client = process.client().await;
            client.list_drops(pb::ListDropsRequest {}).await.unwrap().into_inner().drops
        });
        let of =
            |reason: &str| dropped.iter().find(|drop| drop.reason == reason).map_or(0, |drop| drop.packets);
        assert_eq!(of("policy-denied"), 10, "the first of each: {dropped:?}");
        assert_eq!(of("fragment"), 50, "and the five others: {dropped:?}");
    });
}
