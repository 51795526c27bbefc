//! The kernel's routes, mirrored: what `ip route` says is what the dataplane does. Needs root.
#![allow(missing_docs)]

mod namespace;
mod process;

use margay_api::dataplane::v1::{self as pb, dataplane_client::DataplaneClient};
use margay_dataplane::net::{Addr, Prefix};
use namespace::{PATIENCE, Station, in_namespace, ip};
use process::Process;
use std::fmt::Write as _;
use tonic::transport::Channel;

fn octets(addr: Addr) -> Vec<u8> {
    if addr.is_v4() { addr.v4_octets().to_vec() } else { addr.octets().to_vec() }
}

/// The way of packets to an address, as in `via 10.9.0.2 up0 75, 10.8.0.2 up1 25`; empty: no route.
async fn way(client: &mut DataplaneClient<Channel>, to: &str) -> String {
    let request = pb::LookupRouteRequest { address: octets(to.parse().unwrap()), from_workload: false };
    let answer = client.lookup_route(request).await.unwrap().into_inner();
    let Some(route) = answer.routes.first() else { return String::new() };
    let one = |way: &pb::ShownWay| {
        let next_hop = Addr::from_slice(&way.next_hop).map(|addr| addr.to_string()).unwrap_or_default();
        format!("{next_hop} {} {:.0}", way.interface_name, way.share * 100.0)
    };
    let ways: Vec<String> = route.ways.iter().map(one).collect();
    format!("{} {}", route.kind, ways.join(", ")).trim_end().to_owned()
}

/// Waits until packets to an address go that way.
async fn until(client: &mut DataplaneClient<Channel>, to: &str, wanted: &str) {
    let mut last = String::new();
    let waiting = async {
        while last != wanted {
            last = way(client, to).await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(outcome.is_ok(), "to {to}: waited in vain for {wanted:?}, it is {last:?}");
}

/// How many routes of the kernel there are within a prefix.
async fn mirrored(client: &mut DataplaneClient<Channel>, within: &str) -> usize {
    let within: Prefix = within.parse().unwrap();
    let within = pb::Prefix { address: octets(within.addr()), length: within.len().into() };
    let request = pb::ListRoutesRequest { within: Some(within), origin: "kernel".into(), limit: 0 };
    let mut parts = client.list_routes(request).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(part) = parts.message().await.unwrap() {
        count += part.routes.len();
    }
    count
}

async fn until_mirrored(client: &mut DataplaneClient<Channel>, within: &str, wanted: usize) {
    let mut last = 0;
    let waiting = async {
        loop {
            last = mirrored(client, within).await;
            if last == wanted {
                break;
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(outcome.is_ok(), "waited in vain for {wanted} routes, there are {last}");
}

#[test]
fn routes_follow_the_kernels() {
    in_namespace(|| {
        ip("link set lo up");
        let _first = Station::at("up0", "out0", &["10.9.0.2/24", "fd09::2/64"]);
        let _second = Station::at("up1", "out1", &["10.8.0.2/24"]);
        let _third = Station::at("other0", "out2", &["10.7.0.2/24"]);
        ip("addr add 10.9.0.1/24 dev up0");
        ip("addr add fd09::1/64 dev up0 nodad");
        ip("addr add 10.8.0.1/24 dev up1");
        ip("addr add 10.7.0.1/24 dev other0");
        ip("route add 10.1.0.0/16 via 10.9.0.2");
        let arguments = ["--uplink", "up0", "--uplink", "up1", "--frames", "8192", "--kernel-routes", "main"];
        let process = Process::start(&arguments);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = process.client().await;
            let client = &mut client;
            until(client, "10.1.0.1", "via 10.9.0.2 up0 100").await;
            ip("route replace 10.1.0.0/16 via 10.9.0.3");
            until(client, "10.1.0.1", "via 10.9.0.3 up0 100").await;
            ip("route add 10.1.2.0/24 via 10.8.0.2 metric 50");
            until(client, "10.1.2.1", "via 10.8.0.2 up1 100").await;
            ip("route add 10.1.2.0/24 via 10.9.0.2 metric 20");
            until(client, "10.1.2.1", "via 10.9.0.2 up0 100").await;
            ip("route del 10.1.2.0/24 metric 20");
            until(client, "10.1.2.1", "via 10.8.0.2 up1 100").await;
            ip("route append 10.1.2.0/24 via 10.9.0.2 metric 50");
            ip("route del 10.1.2.0/24 via 10.8.0.2 metric 50");
            until(client, "10.1.2.1", "via 10.9.0.2 up0 100").await;
            ip("route del 10.1.2.0/24");
            until(client, "10.1.2.1", "via 10.9.0.3 up0 100").await;

            for kind in ["blackhole", "unreachable", "prohibit"] {
                ip(&format!("route replace {kind} 10.3.0.0/16"));
                until(client, "10.3.0.1", kind).await;
            }
            ip("route add 10.4.0.0/16 via 10.7.0.2");
            until(client, "10.4.0.1", "unreachable").await;

            ip("route add 10.2.0.0/16 nexthop via 10.9.0.2 weight 3 nexthop via 10.8.0.2 weight 1");
            until(client, "10.2.0.1", "via 10.9.0.2 up0 75, 10.8.0.2 up1 25").await;
            ip("-6 route add fd01::/64 nexthop via fd09::2 nexthop via fd09::3");
            until(client, "fd01::1", "via fd09::2 up0 50, fd09::3 up0 50").await;
            ip("-6 route del fd01::/64 via fd09::2");
            until(client, "fd01::1", "via fd09::3 up0 100").await;

            // The kernel says nothing of the routes that go with a link.
            ip("route add 10.5.0.0/16 via 10.8.0.2");
            until(client, "10.5.0.1", "via 10.8.0.2 up1 100").await;
            ip("link set up1 down");
            until(client, "10.2.0.1", "via 10.9.0.2 up0 100").await;
            until(client, "10.5.0.1", "").await;
            ip("link set up1 up");
            until(client, "10.2.0.1", "via 10.9.0.2 up0 75, 10.8.0.2 up1 25").await;

            // Many at once.
            let mut batch = tempfile::NamedTempFile::new().unwrap();
            let mut lines = String::new();
            for n in 0..10_000u32 {
                let _ = writeln!(lines, "route add 10.{}.{}.0/24 via 10.9.0.2", 128 + n / 256, n % 256);
            }
            std::io::Write::write_all(&mut batch, lines.as_bytes()).unwrap();
            ip(&format!("-batch {}", batch.path().display()));
            until_mirrored(client, "10.128.0.0/9", 10_000).await;
            until(client, "10.140.77.1", "via 10.9.0.2 up0 100").await;
            ip("route flush root 10.128.0.0/9");
            until_mirrored(client, "10.128.0.0/9", 0).await;
            until(client, "10.140.77.1", "").await;
        });
    });
}
