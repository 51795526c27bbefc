//! Links, addresses and neighbours of the real kernel. Needs root.

mod namespace;

use margay_dataplane::io::af_xdp::ifreq::Interface;
use margay_dataplane::io::netlink::{Address, Event, Events, Link, Neighbour, NeighbourState, Netlink};
use margay_dataplane::net::Mac;
use namespace::{PATIENCE, in_namespace, ip};
use nix::sched::{CloneFlags, unshare};
use std::process::Command;
use std::sync::mpsc;

#[test]
fn the_kernel_resolves_neighbours_and_tells_of_links() {
    in_namespace(|| {
        ip("link add up0 mtu 1400 type veth peer name up1");
        ip("addr add 10.9.0.1/24 dev up0");
        ip("addr add fd09::1/64 dev up0 nodad");
        ip("link set up0 up");
        let far = Peer::new("up1", &["10.9.0.2/24", "fd09::2/64"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (kernel, mut events) = Netlink::connect(true).unwrap();
            assert_eq!(kernel.link("nowhere").await.unwrap(), None);
            let up0 = kernel.link("up0").await.unwrap().unwrap();
            assert_eq!((up0.name.as_str(), up0.mtu, up0.up), ("up0", 1400, true));
            assert_eq!(up0.mac, Interface::named("up0").unwrap().mac().unwrap());
            assert!(kernel.links().await.unwrap().contains(&up0));
            let v4 = Address { link: up0.index, addr: "10.9.0.1".parse().unwrap(), prefix_len: 24 };
            let v6 = Address { link: up0.index, addr: "fd09::1".parse().unwrap(), prefix_len: 64 };
            let addresses = kernel.addresses().await.unwrap();
            assert!(addresses.contains(&v4) && addresses.contains(&v6), "{addresses:?}");

            for addr in ["10.9.0.2", "fd09::2"] {
                let neighbour = |state| Neighbour { link: up0.index, addr: addr.parse().unwrap(), state };
                let resolved = neighbour(NeighbourState::Resolved(far.mac));
                kernel.resolve(up0.index, resolved.addr).await.unwrap();
                until(&mut events, Event::Neighbour(resolved)).await;
                assert!(kernel.neighbours().await.unwrap().contains(&resolved));
                // Again, for one that is known.
                kernel.resolve(up0.index, resolved.addr).await.unwrap();
                assert!(kernel.neighbours().await.unwrap().contains(&resolved));
                kernel.forget(up0.index, resolved.addr).await.unwrap();
                until(&mut events, Event::Neighbour(neighbour(NeighbourState::Unknown))).await;
                kernel.forget(up0.index, resolved.addr).await.unwrap();
            }
            let nobody = Neighbour {
                link: up0.index,
                addr: "10.9.0.3".parse().unwrap(),
                state: NeighbourState::Failed,
            };
            kernel.resolve(up0.index, nobody.addr).await.unwrap();
            until(&mut events, Event::Neighbour(nobody)).await;

            ip("neigh add 10.9.0.4 lladdr 02:00:00:00:00:04 dev up0 nud permanent");
            let mac = Mac([2, 0, 0, 0, 0, 4]);
            let fixed = Neighbour {
                addr: "10.9.0.4".parse().unwrap(),
                state: NeighbourState::Resolved(mac),
                ..nobody
            };
            until(&mut events, Event::Neighbour(fixed)).await;
            kernel.resolve(up0.index, fixed.addr).await.unwrap();
            kernel.forget(up0.index, fixed.addr).await.unwrap();
            let shown = Command::new("ip").args(["neigh", "show", "nud", "permanent"]).output().unwrap();
            assert!(
                String::from_utf8_lossy(&shown.stdout).contains("10.9.0.4"),
                "a static entry stays static"
            );

            ip("link set up0 mtu 1300");
            until(&mut events, Event::Link(Link { mtu: 1300, ..up0.clone() })).await;
            ip("addr del 10.9.0.1/24 dev up0");
            until(&mut events, Event::AddressRemoved(v4)).await;
            ip("addr add 10.9.0.1/24 dev up0");
            until(&mut events, Event::Address(v4)).await;
            ip("link set up0 down");
            until(&mut events, Event::Link(Link { mtu: 1300, up: false, ..up0.clone() })).await;
            ip("link del up0");
            until(&mut events, Event::LinkRemoved(up0.index)).await;
        });
    });
}

/// A network namespace with one end of a pair of interfaces, to which the kernel there answers.
/// It vanishes when this is dropped.
struct Peer {
    mac: Mac,
    /// Ends the thread that holds the namespace.
    _stay: mpsc::Sender<()>,
}

impl Peer {
    fn new(interface: &str, addresses: &[&str]) -> Self {
        let (stay, wait) = mpsc::channel::<()>();
        let (ready, thread_id) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            ready.send(nix::unistd::gettid()).unwrap();
            // Until the sender is gone.
            let _ = wait.recv();
        });
        let there = thread_id.recv().unwrap();
        let mac = Interface::named(interface).unwrap().mac().unwrap();
        ip(&format!("link set {interface} netns {there}"));
        let command = |arguments: &str| {
            let namespace = format!("--net=/proc/{}/task/{there}/ns/net", std::process::id());
            let status = Command::new("nsenter").arg(namespace).arg("ip").args(arguments.split(' ')).status();
            assert!(status.expect("nsenter (package util-linux)").success(), "ip {arguments}");
        };
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            command(&format!("addr add {address} dev {interface}{nodad}"));
        }
        command(&format!("link set {interface} up"));
        Self { mac, _stay: stay }
    }
}

/// Waits for one event among others.
async fn until(events: &mut Events, wanted: Event) {
    let mut others = Vec::new();
    let waiting = async {
        while let Some(event) = events.next().await {
            if event == wanted {
                return;
            }
            others.push(event);
        }
        panic!("the connection ended");
    };
    let outcome = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(outcome.is_ok(), "waited in vain for {wanted:?}; there were {others:?}");
}
