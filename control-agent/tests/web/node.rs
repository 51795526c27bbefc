//! A node to look at: an agent, a dataplane that has counted, and the page.

use super::{
    Connection,
    rig::{Counts, Fake, Running},
    served,
};
use margay_agent::{datastore::Memory, web::Entrance};
use margay_api::{
    control::v1::ApplyRequest,
    dataplane::v1::{
        Accounting, Buffers, Direction, Drop as Dropped, FlowRecord, FlowTable, FlowTuple, ListDropsResponse,
        NodeRuntime, RuleDrops, Runtime, Status, Worker, WorkerRuntime, flow_record::Event,
    },
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinHandle;

pub struct Shown {
    pub at: SocketAddr,
    pub fake: Fake,
    running: Running,
    page: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Shown {
    pub async fn start(counts: Counts) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (socket, dataplane) = (folder.path().join("agent.sock"), folder.path().join("dataplane.sock"));
        let fake = Fake::start(&dataplane, 0, []);
        fake.counts(counts);
        let running = Running::start("a", Arc::new(Memory::new()), &socket, &dataplane).await;
        furnish(&running).await;
        let entrance = Entrance::open("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let at = entrance.address();
        let page = tokio::spawn(served(running.agent.clone(), entrance));
        Self { at, fake, running, page, _folder: folder }
    }

    /// The page is served no more.
    pub async fn close(&mut self) {
        self.page.abort();
        let _ = (&mut self.page).await;
    }

    /// It is again, at the same address.
    pub async fn open(&mut self) {
        let entrance = Entrance::open(self.at, None).await.unwrap();
        self.page = tokio::spawn(served(self.running.agent.clone(), entrance));
    }

    /// Those of this query, once there are as many.
    pub async fn flows(&self, connection: &mut Connection, terms: &str, count: usize) -> Value {
        loop {
            let answer = connection.json(&format!("/api/flows?{terms}")).await;
            if answer["flows"].as_array().unwrap().len() == count {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Who opens flows, and a set that they go to; all named before the first flow is told of.
async fn furnish(running: &Running) {
    let workload = r#"{"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"role": "web"}},
        "spec": {"node": "a", "orchestrator": "lab", "workload": "web", "endpoint": "eth0", "interfaceName": "cali1", "ipNetworks": ["10.65.0.1/32"]}}"#;
    let set = r#"{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": "partners"}, "spec": {"nets": ["203.0.113.0/24"]}}"#;
    let objects = vec![workload.to_owned(), set.to_owned()];
    let request = ApplyRequest { objects, wait: true, ..Default::default() };
    running.client().await.apply(request).await.unwrap();
}

/// From `shop/web`, port `port`: to a service, and allowed; or to `partners`, and denied.
pub fn record(port: u32, verdict: &str) -> FlowRecord {
    let tuple = |source: [u8; 4], source_port, destination: [u8; 4], destination_port| FlowTuple {
        source: source.into(),
        source_port,
        destination: destination.into(),
        destination_port,
    };
    let allowed = verdict == "allow";
    let decided = Direction {
        endpoint: "shop/web".into(),
        verdict: verdict.into(),
        tier: "default".into(),
        policy: if allowed { String::new() } else { "shop/web".into() },
        rule: if allowed { -1 } else { 2 },
        ..Direction::default()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    FlowRecord {
        event: if allowed { Event::Began } else { Event::Refused }.into(),
        protocol: 6,
        original: Some(tuple(
            [10, 65, 0, 1],
            port,
            if allowed { [10, 96, 0, 1] } else { [203, 0, 113, 7] },
            80,
        )),
        reply: allowed.then(|| tuple([203, 0, 113, 5], 8080, [10, 65, 0, 1], port)),
        last_unix_nanos: now,
        packets: 2,
        bytes: 3000,
        reply_packets: if allowed { 4 } else { 0 },
        reply_bytes: if allowed { 4_000_000 } else { 0 },
        verdict: verdict.into(),
        reason: if allowed { "" } else { "policy-denied" }.into(),
        egress: Some(decided),
        ..FlowRecord::default()
    }
}

/// Of two workers, one of which is busy.
pub fn counts() -> Counts {
    let node = |name: &str, packets: u64, cycles: u64| NodeRuntime {
        name: name.into(),
        vectors: packets / 40,
        packets,
        cycles: packets * cycles,
    };
    let worker = |worker: u32, busy: u64| WorkerRuntime {
        worker,
        polls: 1_000_000,
        empty_polls: 1_000_000 - busy,
        sleeps: 0,
        cycles: 20_000_000_000,
        busy_cycles: 10_000 * busy,
        rx_packets: 500_000,
        tx_packets: 480_000,
        nodes: vec![
            node("parse", 500_000, 21),
            node("conntrack", 490_000, 38),
            node("rewrite", 480_000, 17),
            node("tx", 480_000, 9),
            node("policy", 10_000, 95),
            node("drop", 10_000, 12),
            node("wg-encrypt", 0, 0),
        ],
    };
    let row = |id, flows| Worker {
        id,
        core: id + 2,
        pinned: true,
        flows,
        idle_state: "spinning".into(),
        flow_table: Some(FlowTable { capacity: 65_536, ..FlowTable::default() }),
        ..Worker::default()
    };
    let rule = RuleDrops {
        endpoint: "shop/db".into(),
        direction: "ingress".into(),
        tier: "default".into(),
        policy: "shop/db".into(),
        rule: 2,
        packets: 18_000,
        last_packet: String::new(),
    };
    let drop = |reason: &str, sentence: &str, packets, rules| Dropped {
        reason: reason.into(),
        sentence: sentence.into(),
        packets,
        rules,
        last_packet: "tcp 10.65.0.1:4001 > 203.0.113.7:80".into(),
    };
    Counts {
        status: Status {
            version: "0.1.0".into(),
            uptime_seconds: 7_300,
            flows: 1_700,
            workers: vec![row(0, 1_200), row(1, 500)],
            accounting: Some(Accounting {
                rx: 1_000_000,
                tx: 960_000,
                drops: 20_000,
                punt: 20_000,
                ..Accounting::default()
            }),
            buffers: Some(Buffers { frames: 32_768, free: 30_000, ..Buffers::default() }),
            ..Status::default()
        },
        runtime: Runtime { workers: vec![worker(0, 900_000), worker(1, 300_000)], tsc_hz: 2.5e9 },
        drops: ListDropsResponse {
            drops: vec![
                drop("policy-denied", "A policy denied the packet, or a default did.", 18_600, vec![rule]),
                drop("no-route", "No route leads to the destination.", 1_400, vec![]),
            ],
        },
    }
}
