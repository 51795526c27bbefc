//! Workers do not touch the allocator: not for known flows, not for new ones, not for what goes
//! wrong, and not when the snapshot changes under them.
#![allow(missing_docs)]
// A global allocator is an unsafe trait.
#![allow(unsafe_code)]

mod build;

use build::frames::*;
use build::wireguard::{LINKS, Pair, across, answer, told};
use build::*;
use margay_api::dataplane::v1::{self as pb, flow_record::Event};
use margay_dataplane::conntrack::Filter;
use margay_dataplane::net::{Mac, Nanos};
use margay_dataplane::packet::{DropReason, Gso, L4Checksum};
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::wire::arp::Operation;
use margay_dataplane::worker::FlowTask;
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Counts this thread's calls while it is told to.
struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

fn note() {
    if !WATCHED.get() {
        return;
    }
    WATCHED.set(false);
    if CALLS.replace(CALLS.get() + 1) == 0 {
        let culprit = Backtrace::force_capture().to_string();
        FIRST.with_borrow_mut(|first| *first = Some(culprit));
    }
    WATCHED.set(true);
}

/// Runs `what` and returns how often it called the allocator.
fn calls<T>(what: impl FnOnce() -> T) -> (T, usize) {
    CALLS.set(0);
    WATCHED.set(true);
    let result = what();
    WATCHED.set(false);
    (result, CALLS.get())
}

const HOST_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
const ROUNDS: u16 = 60;
/// Rounds after which everything has reached the size it keeps.
const WARM: u16 = 10;

#[test]
fn the_count_counts() {
    assert_eq!(calls(|| 1 + 1), (2, 0));
    assert_eq!(calls(|| drop(std::hint::black_box(vec![1u8]))).1, 2);
    assert!(FIRST.take().expect("the first is remembered").contains("the_count_counts"));
}

#[test]
fn one_worker_leaves_the_allocator_alone() {
    run(1, false);
}

#[test]
fn four_workers_leave_the_allocator_alone() {
    run(4, false);
}

/// Sealing, opening, waiting for a session, being refused, and sessions that follow one another.
#[test]
fn encryption_leaves_the_allocator_alone() {
    let mut pair = Pair::new(Setup::default());
    for node in &pair.nodes {
        for interface in
            interfaces(node).into_iter().chain(LINKS).filter(|name| node.state.id(name).is_some())
        {
            (0..1024).for_each(|_| node.wire(interface).recycle(Vec::with_capacity(2048)));
        }
    }
    for round in 0..ROUNDS {
        if round % 20 == 10 {
            // Without keys for a while: packets wait, and some too long.
            let nobody = margay_dataplane::wireguard::KeyPair::new(&[99; 32]).public();
            // Forgotten first: a key that follows another leaves the sessions.
            let gone = change(pb::change::Change::WireguardPeerRemove("far".into()));
            pair.nodes[0].commit(vec![gone]).unwrap();
            pair.nodes[0].commit(told(0, nobody)).unwrap();
        } else if round % 20 == 12 {
            let public = pair.public(1);
            pair.nodes[0].commit(told(0, public)).unwrap();
        }
        for n in 0..40 {
            for family in 0..2 {
                pair.nodes[0].push("cali1", &across(0, family, 5000 + n, 53));
                pair.nodes[1].push("cali9", &across(1, family, 53, 5000 + n));
            }
        }
        for _ in 0..8 {
            for own in 0..2 {
                watched(&mut pair.nodes[own], Nanos::from_secs(1), round);
            }
            for own in 0..2 {
                while let Some(frame) = pair.nodes[own].pop("eth0") {
                    match answer(own, &frame) {
                        Some(answer) => pair.nodes[own].push("eth0", &answer),
                        None => {
                            pair.nodes[1 - own].push("eth0", &frame);
                            // Now and then it comes twice, and once changed.
                            if round % 3 == 0 {
                                pair.nodes[1 - own].push("eth0", &frame);
                                pair.nodes[1 - own].push("eth0", &patched(frame.clone(), 50, &[0xff; 8]));
                            }
                        }
                    }
                    pair.nodes[own].wire("eth0").recycle(frame);
                }
            }
        }
        for (node, link) in pair.nodes.iter().zip(LINKS) {
            while let Some(frame) = node.pop(link) {
                node.wire(link).recycle(frame);
            }
            node.check();
        }
    }
    for reason in [
        DropReason::WireguardQueueFull,
        DropReason::WireguardNoSession,
        DropReason::WireguardReplayed,
        DropReason::WireguardForged,
        DropReason::WireguardUnknownSession,
    ] {
        let sum: u64 = pair.nodes.iter().map(|node| dropped(node, reason)).sum();
        assert!(sum > 10, "{reason:?}: {sum}");
    }
    assert!(pair.nodes.iter().all(|node| node.account().tx > 5000), "{}", pair.told());
}

#[test]
fn workers_that_tell_of_packets_and_flows_leave_it_alone() {
    run(2, true);
}

fn run(workers: u8, traced: bool) {
    let mut node = Simulation::new(Setup { workers, ..Setup::default() });
    node.host("margay0", HOST_MAC);
    let mut node = furnished(node);
    node.vlan("eth0", 100, UPLINK_MAC, &[(addr("172.16.0.1"), 24)]);
    node.wire("cali2").set_checksum(L4Checksum::MaybePartial);
    let mut stocked: Vec<&str> = vec![];
    let questions = [
        ("tcp and (port 80 or state established) and not nat", FlowTask::Show),
        ("ip6 or host 10.65.0.1", FlowTask::Count),
        ("udp and dst net 10.67.0.0/16", FlowTask::Forget),
    ];
    let questions = questions.map(|(text, task)| (Arc::new(Filter::parse(text, |_| None).unwrap()), task));
    let request = pb::WatchRequest { steps: true, rx: true, tx: true, drop: true, ..Default::default() };
    let mut stories = traced.then(|| node.watch(&request));
    let flows = if traced { node.tell_of_flows() } else { vec![] };
    let (mut told, mut records) = (0, vec![]);
    for round in 0..ROUNDS {
        node.commit(desired(round)).unwrap();
        let there = interfaces(&node);
        for interface in there.iter().filter(|name| !stocked.contains(name)) {
            // Wires are not ours to judge: give them buffers enough, each for any packet.
            (0..1024).for_each(|_| node.wire(interface).recycle(Vec::with_capacity(2048)));
        }
        stocked = there;
        // Rounds enough for an answer.
        if round % 3 == 0 {
            let (filter, task) = &questions[usize::from(round / 3 % 3)];
            node.ask_flows(filter, *task);
        }
        for (interface, frame) in traffic(&node, round) {
            node.push(interface, &frame);
        }
        // Between workloads, and by a tunnel whose way may have to be found first.
        for to in ["10.65.0.2", "10.65.0.3", "10.66.1.9", "10.65.1.9"] {
            let (mut frame, from) = (vec![], workload_mac(1));
            let step = ip(from, gateway_mac(), "10.65.0.1", to, 64).udp(4000, 80);
            step.write(&mut frame, &[7; 20_000]).unwrap();
            (0..3).for_each(|_| node.push_super("cali1", &frame, Gso::Udp, 1200));
        }
        watched(&mut node, Nanos::from_millis(1), round);
        // The neighbour of this round answers, what waited is released; another never does.
        node.push("eth0", &arp(PEER_MAC, Operation::Reply, &neighbour(round), "192.168.0.1"));
        watched(&mut node, Nanos::from_millis(1), round);
        for _ in 0..4 {
            watched(&mut node, Nanos::from_secs(1), round);
        }
        for interface in interfaces(&node) {
            while let Some(frame) = node.pop(interface) {
                node.wire(interface).recycle(frame);
            }
        }
        node.drops.clear();
        node.check();
        told += stories.as_mut().map_or(0, |stories| node.told(stories, &request).len());
        records.extend(node.flow_records(&flows).into_iter().map(|record| record.event));
    }
    assert_eq!(traced, told > usize::from(ROUNDS), "{told} packets were told of");
    for event in [Event::Began, Event::Continued, Event::Ended, Event::Refused] {
        let records = records.iter().filter(|record| **record == i32::from(event)).count();
        assert_eq!(traced, records > usize::from(ROUNDS), "{event:?}: {records}");
    }
    proves_something(&node, workers);
}

/// One step of which only the workers' polls are counted.
fn watched(node: &mut Simulation, time: Nanos, round: u16) {
    node.step_watched(time, |worker, now| {
        let (packets, calls) = calls(|| worker.poll(now));
        let culprit = FIRST.take();
        if round >= WARM {
            let culprit = culprit.unwrap_or_default();
            assert_eq!(calls, 0, "round {round}: the allocator was called in a poll:\n{culprit}");
        }
        packets
    });
}

fn interfaces(node: &Simulation) -> Vec<&'static str> {
    let all = ["eth0", "margay0", "cali1", "cali2", "cali3"];
    all.into_iter().filter(|name| node.state.id(name).is_some()).collect()
}

/// An address on the uplink of which nothing was heard before.
fn neighbour(round: u16) -> String {
    format!("192.168.0.{}", 10 + round)
}

/// The standard node; its policy flips, each round has a route of its own, and workload 2 comes and goes.
fn desired(round: u16) -> Vec<pb::Change> {
    use pb::change::Change;
    let mut changes = standard_changes();
    changes.push(change(Change::Policy(policy("web", if round % 4 == 3 { 9999 } else { 80 }))));
    changes.push(via(&format!("10.67.{round}.0/24"), &neighbour(round)));
    changes.extend(tunnel_changes());
    changes.push(via("10.68.0.0/16", "192.168.0.250"));
    changes.push(via("10.69.0.0/16", "172.16.0.2"));
    // Its backends change; the last client is remembered.
    for (name, last, sticky) in [("web", 1, false), ("shop", 2, true)] {
        changes.push(change(Change::Service(service(name, last, sticky, round))));
    }
    if round % 2 == 1 {
        let pool = pb::IpPool { cidr: Some(prefix("10.65.0.0/16")), masquerade: true, ..Default::default() };
        changes.push(change(Change::IpPool(pool)));
    }
    if round % 8 == 7 {
        changes.push(change(Change::WorkloadEndpointRemove(endpoint_id(2))));
    }
    changes
}

/// A service at 10.96.0.`last`, port 80, which workload 3 serves, and 1 at times; none at port 81.
fn service(name: &str, last: u8, sticky: bool, round: u16) -> pb::Service {
    let backend = |address: [u8; 4]| pb::service::Backend {
        address: address.into(),
        ports: [("tcp".to_owned(), 80)].into(),
        ready: true,
        local: true,
        preferred: true,
        ..Default::default()
    };
    let also = (round % 4 == 1).then(|| backend([10, 65, 0, 1]));
    pb::Service {
        id: Some(pb::ServiceId { namespace: "default".into(), name: name.into() }),
        cluster_ips: vec![vec![10, 96, 0, last]],
        ports: vec![pb::service::Port { name: "tcp".into(), protocol: 6, port: 80, node_port: 0 }],
        backends: std::iter::once(backend([10, 65, 0, 3])).chain(also).collect(),
        client_affinity_seconds: if sticky { 60 } else { 0 },
        ..Default::default()
    }
}

fn traffic(node: &Simulation, round: u16) -> Vec<(&'static str, Vec<u8>)> {
    let mut frames = every_kind();
    frames.extend(every_kind_of_tunnel());
    let ours = margay_dataplane::fib::Interfaces::HOST_PORT_MAC;
    for n in 0..20 {
        let sport = 10_000 + round * 100 + n;
        for to in ["10.65.0.3", "fd65::3"] {
            frames.push(("cali1", tcp_from(1, to, sport, 80, "S")));
            frames.push(("cali1", tcp_from(1, to, sport, 81, "S")));
            frames.push(("cali1", tcp_from(1, to, 5000 + n, 80, if round == 0 { "S" } else { "A" })));
        }
        for service in ["10.96.0.1", "10.96.0.2"] {
            frames.push(("cali1", tcp_from(1, service, sport, 80, "S")));
            frames.push(("cali1", tcp_from(1, service, sport, 81, "S")));
        }
        frames.push(("cali3", tcp_from(3, "10.65.0.1", 80, 5000 + n, if round == 0 { "SA" } else { "A" })));
        frames.push(("cali1", udp_from(1, &format!("10.67.{round}.{}", n % 3 + 1), sport)));
    }
    // More than wait for one neighbour, on each worker.
    frames.extend(
        (0..100).map(|n| ("cali1", udp(workload_mac(1), gateway_mac(), "10.65.0.1", "10.68.0.1", n, 53))),
    );
    // In fragments: last to first, one that is denied, one whose first never comes, one spoilt.
    let mut whole = vec![];
    let step = ip(workload_mac(1), gateway_mac(), "10.65.0.1", "10.65.0.2", 64);
    step.udp(6000, 53).write(&mut whole, &[0; 3000]).unwrap();
    let mut denied = vec![];
    let step = ip(workload_mac(1), gateway_mac(), "fd65::1", "fd65::3", 64);
    step.udp(6000, 53).write(&mut denied, &[0; 3000]).unwrap();
    for n in 0..10 {
        let id = round * 1000 + n;
        let pieces = cut(&whole, id, 1200);
        frames.extend(pieces.iter().rev().map(|piece| ("cali1", piece.clone())));
        if n == 0 {
            frames.extend(cut(&denied, id, 1200).into_iter().map(|piece| ("cali1", piece)));
        }
        frames.extend(cut(&whole, id + 100, 1200).into_iter().skip(1).map(|piece| ("cali1", piece)));
        if n % 2 == 0 {
            frames.push(("cali1", fragment(&whole, id + 100, 1208, &[1; 800], false)));
        }
    }
    frames.push(("margay0", tcp(HOST_MAC, ours, "192.168.0.1", "10.65.0.1", 4000 + round, 22, "S")));
    frames.push(("cali1", udp_from(1, "10.69.0.1", 4000 + round)));
    let there = interfaces(node);
    frames.retain(|(interface, _)| there.contains(interface));
    frames
}

/// The rounds did what they are for.
fn proves_something(node: &Simulation, workers: u8) {
    let sum = |reason| node.workers.iter().map(|w| w.world().counters.dropped(reason).get()).sum::<u64>();
    for reason in [
        DropReason::PolicyDenied,
        DropReason::NeighbourUnresolved,
        DropReason::NeighbourQueueFull,
        DropReason::TtlExceeded,
        DropReason::TooBig,
        DropReason::TunnelFromStranger,
        DropReason::TunnelFragment,
        DropReason::TunnelCongestion,
        DropReason::VxlanNetwork,
        DropReason::NoRoute,
        DropReason::NotAnswered,
        DropReason::BadArp,
        DropReason::ConntrackInvalid,
        DropReason::Fragment,
        DropReason::FragmentOverlap,
        DropReason::FragmentTimeout,
        DropReason::NoServicePort,
    ] {
        assert!(sum(reason) >= u64::from(ROUNDS - WARM), "{reason:?}: {}", sum(reason));
    }
    let handed: u64 = node.workers.iter().map(|w| w.world().counters.handed_out.get()).sum();
    assert_eq!(handed > 1000, workers > 1, "{handed} handed over");
    assert!(node.account().tx > 5000 && node.account().punt > 100, "{:?}", node.account());
}
