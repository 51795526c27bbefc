//! Flows that are shown, counted and forgotten while packets go on.
#![allow(missing_docs)]

mod build;

use build::*;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::conntrack::{Filter, PacketLike, State};
use margay_dataplane::control::{Names, judge_sessions};
use margay_dataplane::net::{Nanos, Proto, WorkerId};
use margay_dataplane::simulation::{Setup, Simulation};
use margay_dataplane::worker::{FlowPage, FlowTask};

const NOW: Nanos = Nanos(0);

/// A packet from workload 1 to port `dport` of workload 3 arrives.
fn passes(node: &mut Simulation, sport: u16, dport: u16) -> bool {
    node.push("cali1", &tcp_from(1, "10.65.0.3", sport, dport, "S"));
    node.step(NOW);
    node.check();
    node.pop("cali3").is_some()
}

/// A node with sessions of these source ports.
fn with_sessions(setup: Setup, ports: std::ops::RangeInclusive<u16>) -> Simulation {
    let mut node = standard(setup);
    for sport in ports {
        assert!(passes(&mut node, sport, 80));
    }
    node
}

fn filter(text: &str) -> Filter {
    Filter::parse(text, |_| None).unwrap()
}

fn source_ports(pages: &[FlowPage]) -> Vec<u16> {
    let mut ports: Vec<u16> = pages.iter().flat_map(|page| &page.found).map(|seen| seen.key.sport).collect();
    ports.sort_unstable();
    ports
}

fn matched(pages: &[FlowPage]) -> u64 {
    pages.iter().map(|page| page.matched).sum()
}

#[test]
fn workers_show_their_flows_while_packets_go_on() {
    let mut node = with_sessions(Setup { workers: 2, ..Setup::default() }, 1..=20);
    let mut sent = 100;
    let pages = node.flows(filter("tcp and dst port 80 and dst 10.65.0.3"), FlowTask::Show, |node| {
        sent += 1;
        node.push("cali1", &tcp_from(1, "10.65.0.3", sent, 81, "S"));
    });
    assert!(sent > 104, "a table of 4096 is not gone through in one poll: {sent}");
    assert_eq!(source_ports(&pages), (1..=20).collect::<Vec<_>>());
    let generation = node.state.publisher().current().generation;
    for seen in pages.iter().flat_map(|page| &page.found) {
        assert_eq!((seen.judged, seen.reply_key), (generation, seen.key.reversed()));
        assert_eq!(seen.state.name(), "syn-sent");
        assert!(State::NAMES.contains(&seen.state.name()));
    }
    node.step(NOW);
    node.check();
    let denied = u64::from(sent - 100);
    assert_eq!(node.account().drops, denied, "each packet sent meanwhile was judged, and denied");
}

#[test]
fn only_matches_are_shown_and_either_direction_of_a_packet_is_found() {
    let mut node = with_sessions(Setup::default(), 1..=20);
    let pages = node.flows(filter("src port 7 or 9"), FlowTask::Show, |_| {});
    assert_eq!((source_ports(&pages), matched(&pages)), (vec![7, 9], 2));
    let reply = PacketLike {
        src: addr("10.65.0.3"),
        dst: addr("10.65.0.1"),
        proto: Proto::TCP,
        sport: Some(80),
        dport: Some(7),
    };
    for packet in [reply, PacketLike { src: reply.dst, dst: reply.src, sport: Some(7), dport: None, ..reply }]
    {
        let pages = node.flows(Filter::of_packet(packet), FlowTask::Show, |_| {});
        assert_eq!(source_ports(&pages), [7]);
    }
    let any_port = PacketLike { dport: None, ..reply };
    assert_eq!(node.flows(Filter::of_packet(any_port), FlowTask::Show, |_| {})[0].found.len(), 20);
}

#[test]
fn many_flows_are_many_pages_and_none_is_shown_twice() {
    let mut node = with_sessions(Setup { flows: 8192, ..Setup::default() }, 1..=3000);
    let pages = node.flows(filter(""), FlowTask::Show, |_| {});
    assert!(pages.len() > 2 && pages.iter().all(|page| page.found.len() <= 1024), "{} pages", pages.len());
    assert_eq!(source_ports(&pages), (1..=3000).collect::<Vec<_>>());
    let pages = node.flows(filter("src portrange 1-1500"), FlowTask::Count, |_| {});
    assert_eq!((pages.len(), matched(&pages)), (1, 1500));
    assert!(pages[0].found.is_empty(), "what is counted does not travel");
}

#[test]
fn what_is_flushed_is_gone_and_the_rest_is_not() {
    let mut node = with_sessions(Setup { workers: 2, ..Setup::default() }, 1..=40);
    let mut sent = 0;
    let pages = node.flows(filter("src portrange 11-20"), FlowTask::Forget, |node| {
        sent += 1;
        node.push("cali3", &tcp_from(3, "10.65.0.1", 80, 30, "SA"));
    });
    assert_eq!(matched(&pages), 10);
    node.step(NOW);
    node.check();
    let answers = std::iter::from_fn(|| node.pop("cali1")).count();
    assert_eq!((answers, node.account().drops), (sent, 0), "a session that stays is not disturbed");
    let left = source_ports(&node.flows(filter(""), FlowTask::Show, |_| {}));
    assert_eq!(left, (1..=10).chain(21..=40).collect::<Vec<_>>());
    // An answer to what is forgotten belongs to nothing, and policy denies what it would open.
    node.push("cali3", &tcp_from(3, "10.65.0.1", 80, 15, "SA"));
    node.step(NOW);
    assert!(node.pop("cali1").is_none());
    assert!(passes(&mut node, 15, 80), "and it may begin anew");
}

/// What a dry run says of all sessions, should policy be what `changes` say.
fn tried(node: &mut Simulation, changes: Vec<pb::Change>) -> pb::DryRunResponse {
    let sessions = node.flows(filter(""), FlowTask::Show, |_| {});
    let (present, mut candidate) = (node.state.aside(), node.state.aside());
    candidate.judge_by(changes).unwrap();
    let (states, names) = ([present, candidate], Names::of(&node.state));
    sessions.iter().fold(pb::DryRunResponse::default(), |found, page| {
        judge_sessions(&states, &names, (WorkerId(0), &page.found), found, 3)
    })
}

#[test]
fn a_dry_run_says_what_would_be_cut_and_changes_nothing() {
    let mut node = with_sessions(Setup::default(), 1..=20);
    node.push("cali1", &tcp_from(1, "10.65.0.2", 5000, 443, "S"));
    node.step(NOW);
    let before = node.state.publisher().current().generation;
    let same = tried(&mut node, standard_changes());
    assert_eq!((same.flows, same.cut, same.denied_already), (21, 0, 0));

    let mut other = standard_changes();
    other.push(change(Change::Policy(policy("web", 81))));
    let cut = tried(&mut node, other.clone());
    assert_eq!((cut.flows, cut.cut, cut.denied_already, cut.listed.len()), (21, 20, 0, 3));
    let by = cut.listed[0].by.as_ref().unwrap();
    assert_eq!((&*by.endpoint, &*by.tier, by.rule), ("default/w3", "default", -1));
    let flow = cut.listed[0].flow.as_ref().unwrap();
    assert_eq!((&*flow.from, &*flow.to, &*flow.state), ("default/w1", "default/w3", "syn-sent"));

    let mut gone = standard_changes();
    gone.push(change(Change::WorkloadEndpointRemove(endpoint_id(3))));
    let cut = tried(&mut node, gone);
    assert_eq!((cut.cut, &cut.listed[0].by), (20, &None), "they go with their workload");

    assert_eq!(node.state.publisher().current().generation, before, "nothing was published");
    assert!(passes(&mut node, 21, 80), "and nothing is judged otherwise");
    let refused = node.state.aside().judge_by(vec![change(Change::WorkloadEndpoint(pb::WorkloadEndpoint {
        mac: vec![1],
        ..endpoint(4, &[])
    }))]);
    assert_eq!(refused.unwrap_err()[0].error.field, "mac");

    // Live sessions that an earlier policy allowed.
    node.commit(other.clone()).unwrap();
    let stale = tried(&mut node, other);
    assert_eq!((stale.flows, stale.cut, stale.denied_already), (22, 0, 21));
}

#[test]
fn what_is_judged_fast_is_judged_as_it_is_explained() {
    let mut node = with_sessions(Setup::default(), 1..=5);
    node.push("eth0", &tcp(PEER_MAC, UPLINK_MAC, "10.65.1.9", "10.65.0.3", 999, 80, "S"));
    node.push("cali1", &udp_from(1, "10.65.0.2", 7));
    node.step(NOW);
    let sessions = node.flows(filter(""), FlowTask::Show, |_| {});
    assert!(matched(&sessions) >= 6);
    let mut other = standard_changes();
    other.push(change(Change::Policy(policy("web", 81))));
    let (cut, mut candidate) = (tried(&mut node, other.clone()), node.state.aside());
    candidate.judge_by(other).unwrap();
    let denied = sessions.iter().flat_map(|page| &page.found).filter(|seen| {
        let key = seen.key;
        let request = pb::ExplainRequest {
            source: bytes(key.src),
            destination: bytes(key.dst),
            protocol: key.proto.0.into(),
            source_port: key.sport.into(),
            destination_port: key.dport.into(),
            ..Default::default()
        };
        margay_dataplane::control::explain(&candidate, &request, NOW).unwrap().verdict == "deny"
    });
    assert_eq!(cut.cut, denied.count() as u64);
}

#[test]
fn a_filter_of_many_terms_looks_at_fewer_places_a_poll() {
    let polls = |text: &str| {
        let mut node = standard(Setup::default());
        let mut polls = 0;
        node.flows(filter(text), FlowTask::Count, |_| polls += 1);
        polls
    };
    let many = vec!["port 1"; Filter::MAX_TERMS].join(" or ");
    assert!(polls(&many) > 4 * polls("port 1"), "{} {}", polls(&many), polls("port 1"));
}
