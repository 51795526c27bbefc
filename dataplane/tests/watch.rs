//! Packets that somebody watches: their stories, their bytes, and that nothing else changes by it.
#![allow(missing_docs)]

mod build;
mod process;

use build::*;
use margay_api::dataplane::v1 as pb;
use margay_dataplane::control::watch_program;
use margay_dataplane::net::Proto;
use margay_dataplane::packet::DropReason;
use margay_dataplane::simulation::{Setup, Simulation};
use process::{Agent, Process};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tonic::Code;

/// A clock that only goes on.
fn ticks() -> u64 {
    static TICKS: AtomicU64 = AtomicU64::new(0);
    TICKS.fetch_add(7, Relaxed)
}

fn node(workers: u8) -> Simulation {
    standard(Setup { workers, ticks, ..Setup::default() })
}

fn steps(filter: &str) -> pb::WatchRequest {
    pb::WatchRequest { filter: filter.into(), steps: true, ..Default::default() }
}

fn path(packet: &pb::WatchedPacket) -> Vec<(&str, &str)> {
    packet.steps.iter().map(|step| (step.node.as_str(), step.next.as_str())).collect()
}

fn fact<'f>(facts: &'f [pb::WatchFact], name: &str) -> Option<&'f str> {
    facts.iter().find(|fact| fact.name == name).map(|fact| fact.value.as_str())
}

#[test]
fn a_first_packet_and_one_of_a_known_flow_are_told_node_by_node() {
    let mut node = node(1);
    let request = steps("tcp and dst port 80");
    let mut watched = node.watch(&request);
    for port in [80, 443] {
        node.push("cali2", &tcp_from(2, "10.65.0.1", 4000, port, "S"));
    }
    node.step(NOW);
    let told = node.told(&mut watched, &request);
    assert_eq!(told.len(), 1, "the filter is asked: {told:?}");
    let first = &told[0];
    assert_eq!(
        (first.flow.as_str(), first.interface.as_str()),
        ("tcp 10.65.0.2:4000 > 10.65.0.1:80", "cali2")
    );
    let slow = [
        ("parse", "conntrack"),
        ("conntrack", "miss"),
        ("service", "route"),
        ("route", "policy"),
        ("policy", "commit"),
        ("commit", "rewrite"),
        ("rewrite", "tx"),
        ("tx", ""),
    ];
    assert_eq!(path(first), slow);
    assert_eq!(first.outcome, "tx");
    assert_eq!(fact(&first.steps[0].facts, "tcp"), Some("S"));
    assert_eq!(fact(&first.steps[3].facts, "out"), Some("cali1"));
    assert!(
        fact(&first.steps[4].facts, "ingress").is_some_and(|said| said.starts_with("allow of default/w1"))
    );
    assert!(first.steps.windows(2).all(|two| two[0].nanoseconds < two[1].nanoseconds), "{first:?}");
    assert_eq!(fact(&first.verdict, "verdict"), Some("pass"));

    node.push("cali2", &tcp_from(2, "10.65.0.1", 4000, 80, "S"));
    node.step(NOW);
    let told = node.told(&mut watched, &request);
    let fast = [("parse", "conntrack"), ("conntrack", "hit"), ("rewrite", "tx"), ("tx", "")];
    assert_eq!((told.len(), path(&told[0])), (1, fast.to_vec()));
    assert!(fact(&told[0].steps[1].facts, "flow").is_some());
    node.check();
}

#[test]
fn a_program_of_libpcaps_is_asked_of_frames() {
    // tcpdump -ddd -y EN10MB 'tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn'
    let syn = [
        (40, 0, 0, 12),
        (21, 0, 9, 2048),
        (48, 0, 0, 23),
        (21, 0, 7, 6),
        (40, 0, 0, 20),
        (69, 5, 0, 8191),
        (177, 0, 0, 14),
        (80, 0, 0, 27),
        (84, 0, 0, 18),
        (21, 0, 1, 2),
        (6, 0, 0, 262_144),
        (6, 0, 0, 0),
    ];
    let line = |(code, jt, jf, k)| pb::BpfInstruction { code, jt, jf, k };
    let mut program: Vec<_> = syn.into_iter().map(line).collect();
    let mut node = node(1);
    let request = pb::WatchRequest { program: program.clone(), ..steps("dst port 80 or dst port 443") };
    let mut watched = node.watch(&request);
    for (port, flags) in [(80, "A"), (443, "S"), (443, "SA"), (81, "S")] {
        node.push("cali2", &tcp_from(2, "10.65.0.1", 4000, port, flags));
    }
    node.step(NOW);
    let told = node.told(&mut watched, &request);
    let flows: Vec<&str> = told.iter().map(|packet| packet.flow.as_str()).collect();
    assert_eq!(flows, ["tcp 10.65.0.2:4000 > 10.65.0.1:443"], "the program is asked, and so is the filter");

    let wrong = |lines: &[pb::BpfInstruction]| watch_program(lines).unwrap_err();
    program[9].jf = 2;
    assert_eq!(
        wrong(&program),
        "instruction 9 leads to 12, and the program has 12: jumps lead forward within it"
    );
    let long = pb::BpfInstruction { code: 1 << 16, ..Default::default() };
    assert_eq!(wrong(&[long]), "code of instruction 0 is 65536, which is too large");
}

#[test]
fn a_drop_says_why_and_by_which_rule() {
    let mut node = node(1);
    let request = pb::WatchRequest { dropped_only: true, ..steps("") };
    let mut watched = node.watch(&request);
    node.push("cali1", &tcp_from(1, "10.65.0.3", 4000, 81, "S"));
    node.push("cali1", &tcp_from(1, "10.65.0.99", 4000, 81, "S"));
    node.step(NOW);
    let mut told = node.told(&mut watched, &request);
    told.sort_by(|a, b| a.flow.cmp(&b.flow));
    let of = |at: usize, name: &str| fact(&told[at].verdict, name).map(str::to_owned);
    assert_eq!(of(0, "reason").as_deref(), Some(DropReason::PolicyDenied.name()));
    assert_eq!(of(0, "sentence").as_deref(), Some(DropReason::PolicyDenied.sentence()));
    assert_eq!(of(0, "rule").as_deref(), Some("ingress of default/w3, tier default, by default"));
    assert_eq!(path(&told[0]).last(), Some(&("drop", "")));
    assert_eq!(of(1, "reason").as_deref(), Some(DropReason::Blackhole.name()));
    assert_eq!(of(1, "rule"), None);
}

#[test]
fn what_is_answered_with_an_error_is_told_as_dropped_with_the_answer() {
    let mut node = node(1);
    let request = pb::WatchRequest { dropped_only: true, drop: true, tx: true, ..steps("") };
    let mut watched = node.watch(&request);
    // From port 4000 to 53, without a checksum.
    let datagram = [0x0f, 0xa0, 0, 53, 0, 8, 0, 0];
    let dies =
        frames::raw(workload_mac(2), gateway_mac(), "10.65.0.2", "10.65.0.1", Proto::UDP, 1, &datagram);
    node.push("cali2", &dies);
    node.step(NOW);
    let told = node.told(&mut watched, &request);
    let [of] = &told[..] else { panic!("{told:?}") };
    assert_eq!(of.outcome, "drop");
    assert_eq!(fact(&of.verdict, "reason"), Some(DropReason::TtlExceeded.name()));
    let end = [("drop", ""), ("icmp-error", "tx"), ("tx", "")];
    assert_eq!(path(of)[path(of).len() - 3..], end, "{:?}", path(of));
    let answer = node.pop("cali2").unwrap();
    let frames: Vec<_> =
        of.frames.iter().map(|frame| (frame.direction.as_str(), frame.data.as_slice())).collect();
    assert_eq!(frames, [("drop", &dies[..]), ("tx", &answer[..])]);
    node.check();
}

#[test]
fn what_is_translated_is_followed() {
    let mut node = node(1);
    let backend = pb::service::Backend {
        address: vec![10, 65, 0, 1],
        ports: [("web".to_owned(), 8080)].into(),
        ready: true,
        local: true,
        preferred: true,
        ..Default::default()
    };
    let port = pb::service::Port { name: "web".into(), protocol: 6, port: 80, ..Default::default() };
    let service = pb::Service {
        id: Some(pb::ServiceId { namespace: "shop".into(), name: "web".into() }),
        cluster_ips: vec![vec![10, 96, 0, 1]],
        ports: vec![port],
        backends: vec![backend],
        ..Default::default()
    };
    node.commit(vec![change(pb::change::Change::Service(service))]).unwrap();
    let request = steps("host 10.96.0.1");
    let mut watched = node.watch(&request);
    node.push("cali2", &tcp_from(2, "10.96.0.1", 4000, 80, "S"));
    node.step(NOW);
    let told = node.told(&mut watched, &request);
    let becomes = told[0].steps.iter().find_map(|step| fact(&step.facts, "becomes"));
    assert_eq!(becomes, Some("tcp 10.65.0.2:4000 > 10.65.0.1:8080"));
    assert_eq!(
        (told[0].flow.as_str(), told[0].outcome.as_str()),
        ("tcp 10.65.0.2:4000 > 10.96.0.1:80", "tx")
    );
}

#[test]
fn packets_are_captured_as_they_come_in_and_as_they_leave() {
    let mut node = node(1);
    let request = pb::WatchRequest { rx: true, tx: true, drop: true, ..Default::default() };
    let mut watched = node.watch(&request);
    let (passes, denied) = (udp_from(2, "10.65.0.1", 53), udp_from(1, "10.65.0.3", 53));
    node.push("cali2", &passes);
    node.push("cali1", &denied);
    node.step(NOW);
    let mut told = node.told(&mut watched, &request);
    told.sort_by(|a, b| a.outcome.cmp(&b.outcome));
    let frames = |packet: &pb::WatchedPacket| -> Vec<(String, String, Vec<u8>)> {
        let frames = packet.frames.iter().cloned();
        frames.map(|frame| (frame.direction, frame.interface, frame.data)).collect()
    };
    let frame = |direction: &str, by: &str, data: &[u8]| (direction.to_owned(), by.to_owned(), data.to_vec());
    assert_eq!(frames(&told[0]), [frame("rx", "cali1", &denied), frame("drop", "cali1", &denied)]);
    let sent = node.pop("cali1").unwrap();
    assert_eq!(frames(&told[1]), [frame("rx", "cali2", &passes), frame("tx", "cali1", &sent)]);
    assert!(told.iter().all(|packet| packet.steps.is_empty()));
}

#[test]
fn a_packet_that_is_made_up_goes_its_way_and_no_other_is_told_of() {
    let mut node = node(2);
    for (source, destination, outcome, sent) in
        [([10, 65, 0, 2], [10, 65, 0, 1], "tx", 1), ([10, 65, 1, 9], [10, 65, 0, 3], "drop", 0)]
    {
        let probe = pb::Probe {
            source: source.to_vec(),
            destination: destination.to_vec(),
            protocol: 6,
            source_port: 4000,
            destination_port: 81,
        };
        let request = pb::WatchRequest { probe: Some(probe.clone()), count: 1, ..steps("") };
        let mut watched = node.watch(&request);
        node.probe(&probe);
        node.push("cali1", &udp_from(1, "10.65.0.2", 53));
        node.step(NOW);
        let told = node.told(&mut watched, &request);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].outcome.as_str(), path(&told[0])[0].0), (outcome, "parse"), "{told:?}");
        assert_eq!(std::iter::from_fn(|| node.pop("cali1")).count(), sent);
        node.check();
    }
}

#[test]
fn who_does_not_read_costs_nobody_a_packet_and_is_told_what_was_missed() {
    let mut node = node(1);
    let request = pb::WatchRequest { rx: true, ..Default::default() };
    let mut watched = node.watch(&request);
    for round in 0..8u16 {
        for number in 0..250 {
            node.push("cali2", &tcp_from(2, "10.65.0.1", 1000 + round * 250 + number, 80, "S"));
        }
        node.step(NOW);
    }
    assert_eq!(std::iter::from_fn(|| node.pop("cali1")).count(), 2000);
    let (lost, over) = (watched.rings[0].lost(), watched.rings[0].passed_over());
    let told = node.told(&mut watched, &request).len() as u64;
    assert!(told > 0 && lost == 0, "{told} told, {lost} lost");
    assert_eq!(told + over, 2000, "each is told or counted");
    // Read, there is room again.
    node.push("cali2", &tcp_from(2, "10.65.0.1", 9000, 80, "S"));
    node.step(NOW);
    assert_eq!(node.told(&mut watched, &request).len(), 1);
    node.check();
}

#[tokio::test]
async fn one_watches_at_a_time_and_a_wrong_filter_is_pointed_at() {
    let process = Process::start(&["--frames", "1024"]);
    let mut client = process.client().await;
    let _agent = Agent::adopted(&mut client, standard_changes()).await;
    for (wrong, code) in
        [("tcp and prot 80", Code::InvalidArgument), ("state established", Code::InvalidArgument)]
    {
        assert_eq!(client.watch(steps(wrong)).await.unwrap_err().code(), code, "{wrong}");
    }
    assert_eq!(client.watch(steps("endpoint default/w9")).await.unwrap_err().code(), Code::NotFound);
    let nothing = pb::WatchRequest::default();
    assert_eq!(client.watch(nothing).await.unwrap_err().code(), Code::InvalidArgument);
    let probe = pb::Probe {
        source: vec![10, 65, 0, 1],
        destination: vec![10, 65, 0, 3],
        protocol: 6,
        source_port: 1,
        destination_port: 80,
    };
    let unserved = client.watch(pb::WatchRequest { probe: Some(probe), ..steps("") }).await.unwrap_err();
    assert!(unserved.message().contains("no interface is up"), "{unserved}");

    let first = client.watch(steps("endpoint default/w1")).await.unwrap();
    assert_eq!(client.watch(steps("")).await.unwrap_err().code(), Code::FailedPrecondition);
    drop(first);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while client.watch(steps("")).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the place is free once nobody reads");
        tokio::task::yield_now().await;
    }
}
