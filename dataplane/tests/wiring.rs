//! The wiring of the packet graph, for people to see and for reviews to notice.
#![allow(missing_docs)]

mod golden;

use margay_dataplane::worker::pipeline;
use std::collections::BTreeSet;

/// As [`margay_dataplane::worker::Entries`] names them.
const ENTRIES: [&str; 4] = ["parse", "conntrack", "icmp-error", "tx"];

#[test]
fn the_graph_is_the_one_that_was_agreed_on() {
    golden::compare("graph.dot", &pipeline(|| 0).0.dot());
}

#[test]
fn every_node_can_be_reached() {
    let (graph, _) = pipeline(|| 0);
    let nodes: BTreeSet<String> = graph.counters().read().iter().map(|node| node.name.to_owned()).collect();
    let reached = reach(&graph.dot(), &ENTRIES);
    assert_eq!(reached, nodes);
}

#[test]
fn a_lost_node_would_be_noticed() {
    let dot =
        "\"parse\" -> \"a\" [label=\"x\"];\n\"b\" -> \"a\" [label=\"x\"];\n\"a\" -> \"c\" [label=\"y\"];";
    let names = ["parse", "a", "c"].map(str::to_owned);
    assert_eq!(reach(dot, &["parse"]), BTreeSet::from(names), "b is not reached");
}

/// The nodes that packets can come to from `entries`.
fn reach(dot: &str, entries: &[&str]) -> BTreeSet<String> {
    let arcs: Vec<(&str, &str)> = dot
        .lines()
        .filter_map(|line| {
            let (from, rest) = line.trim().strip_prefix('"')?.split_once("\" -> \"")?;
            Some((from, rest.split_once('"')?.0))
        })
        .collect();
    let mut reached: BTreeSet<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
    loop {
        let next = arcs.iter().filter(|(from, _)| reached.contains(*from)).map(|(_, to)| (*to).to_owned());
        let more: BTreeSet<String> = next.filter(|to| !reached.contains(to)).collect();
        if more.is_empty() {
            return reached;
        }
        reached.extend(more);
    }
}
