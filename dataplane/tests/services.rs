//! Services through the whole dataplane in memory: which backend gets a flow, as whom, and what
//! happens where none does.
#![allow(missing_docs)]

mod build;

use build::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use margay_api::dataplane::v1::{self as pb, change::Change, service::Backend, service::Port};
use margay_dataplane::fib::Interfaces;
use margay_dataplane::net::{Addr, Mac, Nanos};
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use std::collections::BTreeSet;

/// A client behind the gateway.
const FAR: &str = "192.168.0.77";
const NODE: &str = "192.168.0.1";
const CLUSTER: &str = "10.96.0.1";
const CLUSTER6: &str = "fd96::1";

fn id(name: &str) -> pb::ServiceId {
    pb::ServiceId { namespace: "default".into(), name: name.into() }
}

fn backend(address: &str, port: u32, local: bool) -> Backend {
    Backend {
        address: bytes(addr(address)),
        ports: [("tcp".to_owned(), port), ("udp".to_owned(), port)].into(),
        ready: true,
        serving: true,
        local,
        preferred: true,
        ..Default::default()
    }
}

/// TCP and UDP port 80 at every kind of address, node port 30080.
fn service(backends: Vec<Backend>) -> pb::Service {
    let port = |name: &str, protocol| Port { name: name.into(), protocol, port: 80, node_port: 30_080 };
    pb::Service {
        id: Some(id("web")),
        cluster_ips: vec![bytes(addr(CLUSTER)), bytes(addr(CLUSTER6))],
        external_ips: vec![bytes(addr("203.0.113.1"))],
        ports: vec![port("tcp", 6), port("udp", 17)],
        backends,
        ..Default::default()
    }
}

fn apply(node: &mut Simulation, service: pb::Service) {
    node.commit(vec![change(Change::Service(service))]).unwrap();
    node.step(NOW);
}

fn serving(setup: Setup, backends: Vec<Backend>) -> Simulation {
    let mut node = standard(setup);
    node.commit(vec![via("192.168.0.77/32", FAR)]).unwrap();
    apply(&mut node, service(backends));
    node
}

/// Source and destination of a frame whose checksums are right.
fn ends(frame: &[u8]) -> (Addr, u16, Addr, u16) {
    let parsed = SlicedPacket::from_ethernet(frame).unwrap();
    let (src, dst): (Addr, Addr) = match parsed.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            (Addr::v4(header.source()), Addr::v4(header.destination()))
        }
        NetSlice::Ipv6(ip) => (Addr::v6(ip.header().source()), Addr::v6(ip.header().destination())),
        other => panic!("{other:?}"),
    };
    let (sport, dport) = match parsed.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let sum = match (src.is_v4(), src, dst) {
                (true, a, b) => header.calc_checksum_ipv4_raw(a.v4_octets(), b.v4_octets(), tcp.payload()),
                (false, a, b) => header.calc_checksum_ipv6_raw(a.octets(), b.octets(), tcp.payload()),
            };
            assert_eq!(header.checksum, sum.unwrap());
            (header.source_port, header.destination_port)
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let sum = match (src.is_v4(), src, dst) {
                (true, a, b) => header.calc_checksum_ipv4_raw(a.v4_octets(), b.v4_octets(), udp.payload()),
                (false, a, b) => header.calc_checksum_ipv6_raw(a.octets(), b.octets(), udp.payload()),
            };
            assert_eq!(header.checksum, sum.unwrap());
            (header.source_port, header.destination_port)
        }
        other => panic!("{other:?}"),
    };
    (src, sport, dst, dport)
}

fn pop(node: &Simulation, interface: &str) -> (Addr, u16, Addr, u16) {
    ends(&node.pop(interface).unwrap_or_else(|| panic!("nothing on {interface}")))
}

fn from_outside(to: &str, sport: u16, dport: u16) -> Vec<u8> {
    udp(PEER_MAC, UPLINK_MAC, FAR, to, sport, dport)
}

#[test]
fn a_workload_reaches_a_backend_by_the_services_address_and_hears_from_that() {
    for workers in [1, 4] {
        let backends = vec![backend("10.65.0.2", 8080, true), backend("fd65::2", 8080, true)];
        let mut node = serving(Setup { workers, ..Setup::default() }, backends);
        for (service, client, server) in
            [(CLUSTER, "10.65.0.1", "10.65.0.2"), (CLUSTER6, "fd65::1", "fd65::2")]
        {
            give(&mut node, "cali1", &tcp_from(1, service, 4000, 80, "S"));
            assert_eq!(pop(&node, "cali2"), (addr(client), 4000, addr(server), 8080));
            give(&mut node, "cali2", &tcp_from(2, client, 8080, 4000, "SA"));
            assert_eq!(pop(&node, "cali1"), (addr(service), 80, addr(client), 4000));
            give(&mut node, "cali1", &tcp_from(1, service, 4000, 80, "A"));
            assert_eq!(pop(&node, "cali2"), (addr(client), 4000, addr(server), 8080), "established");
        }
        let flows: usize = node.workers.iter().map(|worker| worker.world().flows.len()).sum();
        assert_eq!(flows, 2, "one session a flow");
    }
}

#[test]
fn flows_are_spread_and_each_stays_where_it_began() {
    let backends = vec![backend("10.65.0.2", 8080, true), backend("10.65.0.3", 80, true)];
    let mut node = serving(Setup::default(), backends);
    let mut counts = [0, 0];
    for sport in 1000..1200 {
        give(&mut node, "cali1", &tcp_from(1, CLUSTER, sport, 80, "S"));
        let mut came: Vec<usize> = vec![];
        let mut note = |node: &Simulation| {
            came.extend([2, 3].into_iter().filter(|n| node.pop(&format!("cali{n}")).is_some()));
            came[0]
        };
        let server = note(&node);
        let port = if server == 2 { 8080 } else { 80 };
        give(&mut node, &format!("cali{server}"), &tcp_from(server as u8, "10.65.0.1", port, sport, "SA"));
        for _ in 0..2 {
            give(&mut node, "cali1", &tcp_from(1, CLUSTER, sport, 80, "A"));
            note(&node);
        }
        assert_eq!(came, [came[0]; 3]);
        counts[came[0] - 2] += 1;
    }
    assert!(counts.iter().all(|n| (60..140).contains(n)), "{counts:?}");
}

#[test]
fn policy_judges_the_backend_and_the_client_as_it_came() {
    // Workload 3 takes TCP to port 80 alone.
    for (port, passes) in [(80, true), (81, false)] {
        let mut node = serving(Setup::default(), vec![backend("10.65.0.3", port, true)]);
        give(&mut node, "cali1", &tcp_from(1, CLUSTER, 4000, 80, "S"));
        assert_eq!(node.pop("cali3").is_some(), passes);
        assert_eq!(dropped(&node, DropReason::PolicyDenied), u64::from(!passes));
    }
}

#[test]
fn a_workload_that_reaches_itself_is_answered_by_way_of_the_node() {
    let mut node = serving(Setup::default(), vec![backend("10.65.0.1", 8080, true)]);
    give(&mut node, "cali1", &tcp_from(1, CLUSTER, 4000, 80, "S"));
    let (src, sport, dst, dport) = pop(&node, "cali1");
    assert_eq!((src, dst, dport), (addr(NODE), addr("10.65.0.1"), 8080));
    give(&mut node, "cali1", &tcp_from(1, NODE, 8080, sport, "SA"));
    assert_eq!(pop(&node, "cali1"), (addr(CLUSTER), 80, addr("10.65.0.1"), 4000));
}

#[test]
fn from_outside_a_client_keeps_its_address_where_the_backend_is_here() {
    for (to, port) in [(NODE, 30_080), ("203.0.113.1", 80)] {
        let mut node = serving(Setup::default(), vec![backend("10.65.0.2", 8080, true)]);
        give(&mut node, "eth0", &from_outside(to, 5000, port));
        assert_eq!(pop(&node, "cali2"), (addr(FAR), 5000, addr("10.65.0.2"), 8080));
        give(&mut node, "cali2", &udp(workload_mac(2), gateway_mac(), "10.65.0.2", FAR, 8080, 5000));
        // The gateway is asked for first: the answer waits.
        assert_eq!(node.account().in_flight, 1);
    }
}

#[test]
fn from_outside_to_a_backend_elsewhere_the_node_stands_in_for_the_client() {
    let mut node = serving(Setup::default(), vec![backend("10.65.1.9", 8080, false)]);
    learn(&mut node, "192.168.0.2");
    give(&mut node, "eth0", &from_outside(NODE, 5000, 30_080));
    let (src, sport, dst, dport) = pop(&node, "eth0");
    assert_eq!((src, dst, dport), (addr(NODE), addr("10.65.1.9"), 8080));
    learn(&mut node, FAR);
    give(&mut node, "eth0", &udp(PEER_MAC, UPLINK_MAC, "10.65.1.9", NODE, 8080, sport));
    assert_eq!(pop(&node, "eth0"), (addr(NODE), 30_080, addr(FAR), 5000));

    let local =
        pb::Service { external_traffic_local: true, ..service(vec![backend("10.65.1.9", 8080, false)]) };
    apply(&mut node, local);
    give(&mut node, "eth0", &from_outside(NODE, 5001, 30_080));
    assert_eq!(dropped(&node, DropReason::NoLocalBackend), 1);
    give(&mut node, "cali1", &udp_from(1, "203.0.113.1", 80));
    assert_eq!(pop(&node, "eth0").2, addr("10.65.1.9"), "workloads of this node reach any backend");
}

/// Has the uplink know the station of this address.
fn learn(node: &mut Simulation, neighbour: &str) {
    use margay_dataplane::wire::{arp, ethernet};
    let question = arp::Arp {
        operation: arp::Operation::Reply,
        sender_mac: PEER_MAC,
        sender: addr(neighbour),
        target_mac: UPLINK_MAC,
        target: addr(NODE),
    };
    // Asked for by a packet first: what nobody asked for is not believed.
    give(node, "cali1", &udp_from(1, if neighbour == FAR { FAR } else { "10.65.1.200" }, 9));
    while node.pop("eth0").is_some() {}
    let header = ethernet::Prebuilt::new(UPLINK_MAC, PEER_MAC, None, ethernet::ARP);
    give(node, "eth0", &[header.as_slice(), &question.emit()].concat());
    while node.pop("eth0").is_some() {}
}

#[test]
fn without_a_backend_the_client_is_told_and_nothing_is_routed_on() {
    let mut node = serving(Setup::default(), vec![]);
    for (dport, reason) in [(80, DropReason::NoBackend), (81, DropReason::NoServicePort)] {
        give(&mut node, "cali1", &udp_from(1, CLUSTER, dport));
        assert_eq!(dropped(&node, reason), 1);
        let error = node.pop("cali1").expect("the client is told");
        let parsed = SlicedPacket::from_ethernet(&error).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = parsed.transport else { panic!("no ICMP") };
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 3), "port unreachable");
    }
    give(&mut node, "cali1", &udp_from(1, CLUSTER6, 80));
    let error = node.pop("cali1").expect("the client is told");
    let parsed = SlicedPacket::from_ethernet(&error).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!("no ICMPv6") };
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 4), "port unreachable");
    // TCP is refused as by a closed port.
    for (to, client) in [(CLUSTER, "10.65.0.1"), (CLUSTER6, "fd65::1")] {
        for dport in [80, 81] {
            give(&mut node, "cali1", &tcp_from(1, to, 4000, dport, "S"));
            let reset = node.pop("cali1").expect("the client is told");
            assert_eq!(ends(&reset), (addr(to), dport, addr(client), 4000));
            let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(&reset).unwrap().transport
            else {
                panic!("no TCP")
            };
            assert!(tcp.rst() && tcp.ack());
            give(&mut node, "cali1", &tcp_from(1, to, 4000, dport, "R"));
            assert!(node.pop("cali1").is_none(), "a reset is not answered");
        }
    }
    assert_eq!(node.workers[0].world().flows.len(), 0, "and no state is left");
}

#[test]
fn what_the_hosts_stack_sends_by_an_uplink_goes_where_the_stack_says() {
    let mut node = serving(Setup::default(), vec![backend("10.65.0.2", 8080, true)]);
    let frame = udp(UPLINK_MAC, PEER_MAC, NODE, CLUSTER, 5000, 80);
    give(&mut node, "margay-up0", &frame);
    assert_eq!(node.pop("eth0"), Some(frame));
}

#[test]
fn a_client_stays_with_its_backend_on_every_worker() {
    let sticky = |hosts: &[&str]| pb::Service {
        client_affinity_seconds: 60,
        ..service(hosts.iter().map(|host| backend(host, 80, true)).collect())
    };
    let mut node = standard(Setup { workers: 4, ..Setup::default() });
    apply(&mut node, sticky(&["10.65.0.2"]));
    give(&mut node, "cali1", &tcp_from(1, CLUSTER, 1000, 80, "S"));
    assert!(node.pop("cali2").is_some());
    apply(&mut node, sticky(&["10.65.0.2", "10.65.0.3"]));
    for sport in 1001..1100 {
        give(&mut node, "cali1", &tcp_from(1, CLUSTER, sport, 80, "S"));
        assert!(node.pop("cali2").is_some(), "whichever worker the flow falls to");
    }
    apply(&mut node, sticky(&["10.65.0.3"]));
    give(&mut node, "cali1", &tcp_from(1, CLUSTER, 2000, 80, "S"));
    assert!(node.pop("cali3").is_some(), "its backend is gone");
}

#[test]
fn a_client_is_forgotten_when_its_time_is_over() {
    let sticky = |hosts: &[&str]| pb::Service {
        client_affinity_seconds: 60,
        ..service(hosts.iter().map(|host| backend(host, 80, true)).collect())
    };
    let mut node = standard(Setup { workers: 2, ..Setup::default() });
    apply(&mut node, sticky(&["10.65.0.2"]));
    // From as many clients, so many at the backend that was not there at first.
    let mut sport = 1000;
    let mut moved = |node: &mut Simulation| {
        sport += 1;
        let one = |n: u8| {
            let frame = tcp(PEER_MAC, UPLINK_MAC, &format!("172.20.0.{n}"), "203.0.113.1", sport, 80, "S");
            give(node, "eth0", &frame);
            match (node.pop("cali2"), node.pop("cali3")) {
                (Some(_), None) => 0,
                (None, Some(_)) => 1,
                other => panic!("{other:?}"),
            }
        };
        (1..=100).map(one).sum::<u32>()
    };
    assert_eq!(moved(&mut node), 0);
    apply(&mut node, sticky(&["10.65.0.2", "10.65.0.3"]));
    for _ in 0..3 {
        node.step(Nanos::from_secs(59));
        assert_eq!(moved(&mut node), 0, "each new flow counts");
    }
    node.step(Nanos::from_secs(62));
    let now = moved(&mut node);
    assert!((30..70).contains(&now), "{now} of 100 moved to the new backend");
    node.step(Nanos::from_secs(30));
    assert_eq!(moved(&mut node), now, "and stay there");
}

#[test]
fn the_host_reaches_services_over_its_tap() {
    const TAP: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
    let ours = Interfaces::HOST_PORT_MAC;
    let backends = vec![backend("10.65.0.2", 8080, true)];
    let mut node = standard(Setup::default());
    node.host("tap0", TAP);
    // As natOutgoing has it: answers to this node's address come by way of the dataplane.
    let pool = pb::IpPool { cidr: Some(prefix("10.65.0.0/16")), masquerade: true, ..Default::default() };
    node.commit(vec![change(Change::IpPool(pool))]).unwrap();
    apply(&mut node, service(backends));
    give(&mut node, "tap0", &tcp(TAP, ours, NODE, CLUSTER, 5000, 80, "S"));
    let (src, sport, dst, dport) = pop(&node, "cali2");
    assert_eq!((src, sport, dst, dport), (addr(NODE), 5000, addr("10.65.0.2"), 8080));
    give(&mut node, "cali2", &tcp_from(2, NODE, 8080, 5000, "SA"));
    assert_eq!(pop(&node, "tap0"), (addr(CLUSTER), 80, addr(NODE), 5000));

    apply(&mut node, service(vec![backend("10.65.1.9", 8080, false)]));
    learn(&mut node, "192.168.0.2");
    give(&mut node, "tap0", &tcp(TAP, ours, NODE, CLUSTER, 5001, 80, "S"));
    let (src, sport, dst, dport) = pop(&node, "eth0");
    assert_eq!((src, dst, dport), (addr(NODE), addr("10.65.1.9"), 8080));
    give(&mut node, "eth0", &tcp(PEER_MAC, UPLINK_MAC, "10.65.1.9", NODE, 8080, sport, "SA"));
    // To an address of the host, from the network: that way it goes to the host's stack.
    assert_eq!(pop(&node, "margay-up0"), (addr(CLUSTER), 80, addr(NODE), 5001));
}

#[test]
fn explanations_name_the_service_and_judge_its_backend() {
    let ask = |node: &Simulation, from: &str, to: &str, sport: u32, dport: u32| {
        let request = pb::ExplainRequest {
            source: bytes(addr(from)),
            destination: bytes(addr(to)),
            protocol: 6,
            source_port: sport,
            destination_port: dport,
            ..Default::default()
        };
        let answer = margay_dataplane::control::explain(&node.state, &request, node.now()).unwrap();
        let chosen = answer.service.clone().map(|service| service.backend.map(|b| (b.address, b.port)));
        (answer, chosen)
    };
    // Workload 3 takes TCP to port 80 alone.
    let three =
        [backend("10.65.0.2", 8080, true), backend("10.65.0.3", 81, true), backend("fd65::2", 1, true)];
    let mut node = serving(Setup::default(), three.to_vec());
    let mut seen = BTreeSet::new();
    for sport in 4000..4040 {
        let (answer, chosen) = ask(&node, "10.65.0.1", CLUSTER, sport, 80);
        let service = answer.service.clone().unwrap();
        assert_eq!((&*service.service, &*service.port, &*service.kind), ("default/web", "tcp", "cluster"));
        assert_eq!((service.backends.len(), service.by_source_port, service.local_only), (2, true, false));
        let (address, port) = chosen.unwrap().unwrap();
        let denied = port == 81;
        assert_eq!(answer.verdict, if denied { "deny" } else { "allow" });
        let of = format!("default/w{}", address[3]);
        assert_eq!(answer.ingress.unwrap().endpoint, of, "policy is the backend's");
        assert!(answer.route.starts_with(&format!("workload {of}")), "{}", answer.route);
        // The very one that the packet goes to.
        give(&mut node, "cali1", &tcp_from(1, CLUSTER, sport as u16, 80, "S"));
        assert_eq!((node.pop("cali2").is_some(), node.pop("cali3").is_some()), (!denied, false));
        seen.insert(port);
    }
    assert_eq!(seen.len(), 2, "both backends came up");

    let (answer, chosen) = ask(&node, FAR, NODE, 4000, 30_080);
    let node_port = answer.service.unwrap();
    assert_eq!((&*node_port.kind, chosen.unwrap().is_some()), ("node", true));
    let (answer, chosen) = ask(&node, "10.65.0.1", CLUSTER, 4000, 99);
    let refused = answer.service.unwrap();
    assert_eq!((&*answer.verdict, &*refused.refused, chosen), ("deny", "no-service-port", Some(None)));
    assert!(answer.ingress.is_none() && refused.service == "default/web");
    assert!(ask(&node, "10.65.0.1", "10.65.0.2", 4000, 80).0.service.is_none());

    // Who asks for an explanation is no client: nobody is remembered.
    let sticky = pb::Service { client_affinity_seconds: 60, ..service(three.to_vec()) };
    apply(&mut node, sticky);
    let (answer, _) = ask(&node, "10.65.0.1", CLUSTER, 4000, 80);
    let first = answer.service.unwrap();
    assert_eq!((first.by_affinity, first.by_source_port), (false, false));
    give(&mut node, "cali1", &tcp_from(1, CLUSTER, 6000, 80, "S"));
    assert!(ask(&node, "10.65.0.1", CLUSTER, 4000, 80).0.service.unwrap().by_affinity);
}

#[test]
fn a_backend_that_goes_ends_its_udp_flows_and_leaves_tcp_as_is_said() {
    for reset in [false, true] {
        let two = [backend("10.65.0.2", 80, true), backend("10.65.0.3", 80, true)];
        let mut node = standard(Setup::default());
        node.commit(vec![
            change(Change::Config(pb::NodeConfig { removed_backend: reset.into(), ..Default::default() })),
            change(Change::Service(service(vec![two[0].clone()]))),
        ])
        .unwrap();
        node.step(NOW);
        give(&mut node, "cali1", &udp_from(1, CLUSTER, 80));
        give(&mut node, "cali1", &tcp_from(1, CLUSTER, 4000, 80, "S"));
        while node.pop("cali2").is_some() {}
        apply(&mut node, service(vec![two[1].clone()]));
        give(&mut node, "cali1", &tcp_from(1, CLUSTER, 4000, 80, "S"));
        assert!(node.pop(if reset { "cali3" } else { "cali2" }).is_some(), "reset: {reset}");
        // Workload 3 takes no UDP: that it is asked shows that the flow began anew.
        give(&mut node, "cali1", &udp_from(1, CLUSTER, 80));
        assert!(node.pop("cali2").is_none());
        assert_eq!(dropped(&node, DropReason::PolicyDenied), 1);
    }
}

#[test]
fn services_are_checked_and_change_alone() {
    let mut node = serving(Setup::default(), vec![backend("10.65.0.2", 80, true)]);
    let other = pb::Service { id: Some(id("other")), ..service(vec![]) };
    let refused = node.commit(vec![change(Change::Service(other.clone()))]).unwrap_err();
    assert_eq!(refused[0].object, "service default/other");
    assert!(refused[0].error.message.contains("taken by service default/web"), "{}", refused[0].error);
    // One gives up what the other takes, in whatever order.
    for changes in [[1, 0], [0, 1]] {
        let (gone, here) = (id("web"), other.clone());
        let both = [change(Change::ServiceRemove(gone)), change(Change::Service(here))];
        let mut node = serving(Setup::default(), vec![backend("10.65.0.2", 80, true)]);
        node.commit(changes.map(|at: usize| both[at].clone()).to_vec()).unwrap();
        give(&mut node, "cali1", &udp_from(1, CLUSTER, 80));
        assert_eq!(dropped(&node, DropReason::NoBackend), 1, "the other service's");
    }
    let before = node.state.services().clone();
    let more = pb::Service {
        id: Some(id("more")),
        cluster_ips: vec![vec![10, 96, 0, 2]],
        external_ips: vec![],
        ports: vec![Port { name: "tcp".into(), protocol: 6, port: 80, node_port: 0 }],
        backends: vec![],
        ..service(vec![])
    };
    apply(&mut node, more);
    let after = node.state.services().clone();
    let ports = |services: &margay_dataplane::service::Services| -> BTreeSet<_> {
        services.frontends().values().map(|bound| std::sync::Arc::as_ptr(&bound.port) as usize).collect()
    };
    assert!(ports(&before).is_subset(&ports(&after)), "what did not change is the very same");
    node.commit(vec![change(Change::ServiceRemove(id("web"))), change(Change::ServiceRemove(id("more")))])
        .unwrap();
    assert!(node.state.services().frontends().is_empty());
}

#[test]
fn many_backends_are_served_before_their_tables_are_made() {
    const SERVICES: u16 = 1000;
    const BACKENDS: u16 = 100;
    let many = |n: u16, backends: u16| pb::Service {
        id: Some(id(&format!("s{n}"))),
        cluster_ips: vec![[&[10, 97][..], &n.to_be_bytes()].concat()],
        ports: vec![Port { name: "tcp".into(), protocol: 6, port: 80, node_port: 0 }],
        backends: (0..backends)
            .map(|b| Backend {
                address: [&[10, 98][..], &b.to_be_bytes()].concat(),
                ports: [("tcp".to_owned(), 80)].into(),
                ready: true,
                preferred: true,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let mut node = standard(Setup::default());
    let changes = (0..SERVICES).map(|n| change(Change::Service(many(n, BACKENDS)))).collect();
    node.commit(changes).unwrap();
    let unbuilt = node.state.take_unbuilt();
    assert!(unbuilt.len() > usize::from(SERVICES) / 2, "most tables are left for later: {}", unbuilt.len());
    let published = node.state.publisher().current();
    assert_eq!(published.services.frontends().len(), usize::from(SERVICES));
    let key = |n: u16, sport| margay_dataplane::net::FlowKey {
        src: addr("10.65.0.1"),
        dst: Addr::v4([10, 97, (n >> 8) as u8, n as u8]),
        sport,
        dport: 80,
        proto: margay_dataplane::net::Proto::TCP,
    };
    let picked = |sport| {
        use margay_dataplane::service::{Choice, Origin};
        match published.services.choose(&key(SERVICES - 1, sport), Origin::Workload, NOW) {
            Choice::Backend(target) => target.addr,
            other => panic!("{other:?}"),
        }
    };
    let spread: BTreeSet<Addr> = (1..5000).map(picked).collect();
    assert_eq!(spread.len(), usize::from(BACKENDS), "without a table, too, all get flows");

    // Another change waits for none of them, and makes its own.
    node.commit(vec![change(Change::Service(many(0, BACKENDS - 1)))]).unwrap();
    assert_eq!(node.state.take_unbuilt().len(), 0);
    assert!(unbuilt.iter().any(|set| !set.is_built()));

    let before: Vec<Addr> = (1..5000).map(picked).collect();
    unbuilt.iter().for_each(|set| set.build());
    let after: Vec<Addr> = (1..5000).map(picked).collect();
    assert_ne!(before, after, "tables take effect in what is published already");
}
