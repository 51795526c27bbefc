//! Hosts' own packets in encrypted tunnels, between two real kernels: their sockets know nothing of it. Needs root.
#![allow(missing_docs)]

mod build;
mod encrypted;
mod namespace;
mod process;
mod traffic;

use build::wireguard::sealed_route;
use encrypted::*;
use margay_api::dataplane::v1::{self as pb, change::Change, sync_response::Response};
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::{Agent, Process};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::runtime::Runtime;
use traffic::{answers, ping, reaches, streams};

/// A host with a dataplane.
struct Host {
    at: Station,
    process: Process,
    agent: Agent,
    key: Vec<u8>,
}

impl Host {
    fn start(runtime: &Runtime, own: usize, at: Station, uplink: &'static str, key: String) -> Self {
        let process = at.there(move || {
            Process::start(&["--uplink", uplink, "--frames", "8192", "--wireguard-key", &key])
        });
        let mut client = runtime.block_on(process.client());
        let unknown = [9; 32];
        let told = runtime.block_on(Agent::adopted(&mut client, sealing(own, &unknown)));
        let key = runtime.block_on(public(&mut client));
        Self { at, process, agent: told, key }
    }

    /// Waits until the host's own packets come by way of the dataplane.
    async fn led(&self) {
        let mut client = self.process.client().await;
        let is_led = |interface: &pb::Interface| interface.kind == "stack" && interface.up;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = client.list_interfaces(pb::ListInterfacesRequest {}).await.unwrap().into_inner();
            if reply.interfaces.iter().any(is_led) {
                return;
            }
            assert!(Instant::now() < deadline, "{:?}", reply.interfaces);
        }
    }

    /// Bytes of WireGuard's messages from the other, over IPv4 and over IPv6.
    async fn received(&self) -> [u64; 2] {
        let mut client = self.process.client().await;
        let listed = client.list_wireguard(pb::ListWireguardRequest {}).await.unwrap().into_inner();
        [0, 1].map(|family| listed.interfaces[family].peers[0].received_bytes)
    }

    async fn drops(&self) -> Vec<(String, u64)> {
        let mut client = self.process.client().await;
        let listed = client.list_drops(pb::ListDropsRequest {}).await.unwrap().into_inner();
        listed
            .drops
            .into_iter()
            .filter(|drop| drop.packets > 0)
            .map(|drop| (drop.reason, drop.packets))
            .collect()
    }
}

/// What host `own` is told: the other's key, and that it is reached by it.
fn sealing(own: usize, key: &[u8]) -> Vec<pb::Change> {
    let mut changes = told(own, 1, [key, key], ["10.67.0.0/24", "fd67::/64"]);
    // There are no workloads here.
    changes.retain(|change| matches!(&change.change, Some(Change::Config(_) | Change::WireguardPeer(_))));
    for change in &mut changes {
        if let Some(Change::Config(config)) = &mut change.change {
            config.wireguard.as_mut().unwrap().hosts = true;
        }
    }
    changes.extend(NODES[1 - own].map(|address| sealed_route(address, address)));
    changes
}

#[test]
fn two_hosts_speak_sealed_and_find_the_size_that_fits() {
    in_namespace(|| {
        let a = Station::alone();
        let b = a.there(|| {
            let b = Station::at("up0", "up1", &["10.9.0.2/24", "fd09::2/64"]);
            ip("link set lo up");
            ip("addr add 10.9.0.1/24 dev up0");
            ip("addr add fd09::1/64 dev up0 nodad");
            b
        });
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut hosts =
            [Host::start(&runtime, 0, a, "up0", file("a")), Host::start(&runtime, 1, b, "up1", file("b"))];
        let keys = [hosts[1].key.clone(), hosts[0].key.clone()];
        for (own, (host, key)) in hosts.iter_mut().zip(keys).enumerate() {
            runtime.block_on(async {
                host.agent.commit(2, sealing(own, &key)).await;
                let adopted = Response::Adopted(pb::Adopted { generation: 2 });
                assert_eq!(host.agent.next().await.unwrap(), adopted);
                host.led().await;
            });
        }
        let [a, b] = &hosts;
        for (family, mtu) in MTUS.into_iter().enumerate() {
            for (from, to, own) in [(a, b, NODES[1][family]), (b, a, NODES[0][family])] {
                let at = |port| SocketAddr::new(own.parse().unwrap(), port);
                answers(&to.at, at(5300));
                reaches(&from.at, at(5300));
                streams(&from.at, &to.at, at(8000));
                let whole = mtu - [28, 48][family];
                let (passed, text) = ping(&from.at, &format!("-s {whole} -M do {own}"));
                assert!(passed, "{text}");
                let (passed, text) = ping(&from.at, &format!("-s {} -M do {own}", whole + 1));
                // "mtu=1440" where it is told so then, "mtu: 1440" where it knows.
                assert!(
                    !passed && text.to_lowercase().contains("mtu") && text.contains(&mtu.to_string()),
                    "{text}"
                );
                let (passed, text) = ping(&from.at, &format!("-s 3000 -M dont {own}"));
                assert!(passed, "{text}");
            }
        }
        for host in &hosts {
            let received = runtime.block_on(host.received());
            // A stream and the echo of another over each, and nothing of that in clear.
            assert!(received.iter().all(|bytes| *bytes > 2_000_000), "{received:?}");
            let drops = runtime.block_on(host.drops());
            assert!(drops.iter().all(|(reason, _)| reason == "too-big"), "{drops:?}");
        }
    });
}
