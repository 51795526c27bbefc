//! A scrape of the running process, read by Prometheus' own tool, and what is written of metrics elsewhere.
#![allow(missing_docs)]

mod build;
mod process;
#[path = "../../api/tests/promtool/mod.rs"]
mod promtool;

use build::*;
use margay_dataplane::packet::DropReason;
use process::{Agent, Process};
use promtool::lint;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

/// An address that nobody listened at a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn scrape(at: SocketAddr, accept: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\nAccept: {accept}\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    body.to_owned()
}

#[tokio::test]
async fn everything_is_there_from_the_start_and_prometheus_own_tool_finds_nothing_wrong() {
    let at = free();
    let process = Process::start(&["--frames", "1024", "--metrics", &at.to_string()]);
    let mut client = process.client().await;
    let mut agent = Agent::adopted(&mut client, standard_changes()).await;
    let text = scrape(at, "*/*");
    lint(&text);
    for line in [
        "margay_build_info{component=\"dataplane\",version=\"0.1.0\"} 1",
        "margay_policy_generation{stage=\"adopted\"} 1",
        "margay_policy_apply_seconds_count 1",
        "margay_policy_commit_seconds_count 1",
        "margay_dp_agent_connected 1",
        "margay_dp_endpoints{state=\"down\"} 3",
        "margay_dp_interface_up{interface=\"cali1\",kind=\"workload\"} 0",
        "margay_dp_objects{kind=\"policy\"} 1",
        "margay_conntrack_capacity{worker=\"0\"} 1024",
        "margay_conntrack_inserts_total 0",
        "margay_flows_events_lost_total{cause=\"flow_ring\"} 0",
        "margay_flows_events_lost_total{cause=\"refusal_ring\"} 0",
        "margay_dp_stage_cycles_total{stage=\"parse\",worker=\"0\"} 0",
    ] {
        assert!(text.lines().any(|is| is == line), "{line} is not in\n{text}");
    }
    for reason in DropReason::ALL {
        let series = format!("margay_dp_drops_total{{reason=\"{}\"}} 0\n", reason.name());
        assert!(text.contains(&series), "{series}");
    }
    let frames = |text: &str| -> u64 {
        let of = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
        text.lines().filter(|line| line.starts_with("margay_dp_frames{")).filter_map(of).sum()
    };
    assert_eq!(frames(&text), 1024, "every frame has one owner");

    let open = scrape(at, "application/openmetrics-text; version=1.0.0, text/plain;q=0.5");
    assert!(open.contains("# TYPE margay_dp_drops counter\n") && open.ends_with("\n# EOF\n"), "{open}");
    agent.commit(2, vec![]).await;
    agent.next().await.unwrap();
    assert!(scrape(at, "*/*").contains("margay_policy_generation{stage=\"adopted\"} 2\n"));
}

#[test]
fn what_alerts_and_dashboard_ask_for_is_documented_and_so_is_what_is_served() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let documented = names(&read("docs/metrics.md"));
    let served = [include_str!("../src/control/metrics.rs"), &read("control-agent/src/control/metrics.rs")];
    let served = names(&served.concat());
    assert_eq!(documented, served, "docs/metrics.md and what is served");
    assert!(served.len() > 40, "{served:?}");
    for path in ["examples/monitoring/alerts.yml", "examples/monitoring/dashboard.json"] {
        let asked = names(&read(path));
        assert!(asked.is_subset(&served), "{path}: {:?}", asked.difference(&served));
    }
}

/// Families named in a text, without what counters and histograms write behind.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("margay_") && *word != "margay_api");
    let stem = |word: &str| {
        let stem = ["_total", "_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end));
        stem.unwrap_or(word).to_owned()
    };
    ours.map(stem).collect()
}
