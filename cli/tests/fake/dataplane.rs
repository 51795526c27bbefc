//! The dataplane: counters that grow with each look.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    vec::IntoIter,
};

use margay_api::dataplane::v1::{
    Accounting, Buffers, Drop, ExplainRequest, ExplainResponse, GetRuntimeRequest, GetStatusRequest,
    Interface, ListDropsRequest, ListDropsResponse, ListInterfacesRequest, ListInterfacesResponse,
    NodeRuntime, ObjectError, Queue, Refused, RuleDrops, Runtime, Status as DataplaneStatus, SyncRequest,
    SyncResponse, Worker, WorkerRuntime, dataplane_server::Dataplane as Service,
};
use tokio_stream::Iter;
use tonic::{Request, Response, Status, Streaming};

/// Counts its looks.
#[derive(Default)]
pub struct Dataplane {
    looks: AtomicU64,
}

impl Dataplane {
    fn look(&self) -> u64 {
        self.looks.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What the agent reports of it.
pub fn status() -> DataplaneStatus {
    let worker = |id, pinned, busy| Worker {
        id,
        core: id + 2,
        busy,
        seen_generation: 41,
        flows: 60,
        idle_state: "sleeping".into(),
        pinned,
    };
    let error = ObjectError {
        object: "policy shop/web".into(),
        field: "inbound_rules[0].http".into(),
        message: "HTTP matches are not enforced here; remove them".into(),
    };
    DataplaneStatus {
        version: "0.1.0".into(),
        adopted_generation: 41,
        committed_generation: 42,
        agent_connected: true,
        in_sync: true,
        uptime_seconds: 200_000,
        workers: vec![worker(0, true, 0.125), worker(1, false, 0.0)],
        buffers: Some(Buffers { frames: 65_536, frame_size: 2_048, hugepages: true, free: 60_000 }),
        accounting: Some(Accounting {
            rx: 1_000,
            tx: 900,
            punt: 20,
            drops: 70,
            in_flight: 10,
            originated: 5,
        }),
        policies: 1,
        ip_sets: 2,
        routes: 3,
        workload_endpoints: 4,
        flows: 120,
        last_refused: Some(Refused { generation: 40, errors: vec![error] }),
    }
}

#[tonic::async_trait]
impl Service for Dataplane {
    type SyncStream = Iter<IntoIter<Result<SyncResponse, Status>>>;

    async fn sync(&self, _: Request<Streaming<SyncRequest>>) -> Result<Response<Self::SyncStream>, Status> {
        Err(Status::unimplemented("not from here"))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<DataplaneStatus>, Status> {
        Ok(Response::new(status()))
    }

    async fn list_interfaces(
        &self,
        _: Request<ListInterfacesRequest>,
    ) -> Result<Response<ListInterfacesResponse>, Status> {
        let look = self.look();
        let queue = |queue, worker| Queue {
            queue,
            worker,
            rx_packets: 1_000 * look,
            rx_bytes: 64_000 * look,
            tx_packets: 900 * look,
            tx_bytes: 57_600 * look,
            tx_full: look,
            kernel_rx_dropped: 2,
            kernel_rx_ring_full: 3,
            kernel_fill_ring_empty: 4,
            kernel_invalid_descriptors: 5,
        };
        let uplink = Interface {
            id: 1,
            name: "eth0".into(),
            kind: "uplink".into(),
            mac: vec![2, 0, 0, 0, 0, 1],
            mtu: 1_500,
            up: true,
            mode: "zero-copy native".into(),
            queues: vec![queue(0, 0), queue(1, 1)],
            ..Interface::default()
        };
        let workload = Interface {
            id: 2,
            name: "cali-web".into(),
            kind: "workload".into(),
            endpoint: "shop/web".into(),
            mac: vec![2, 0, 0, 0, 0, 2],
            mtu: 1_500,
            up: false,
            reason: "no carrier".into(),
            mode: "copy generic".into(),
            ..Interface::default()
        };
        Ok(Response::new(ListInterfacesResponse { interfaces: vec![uplink, workload] }))
    }

    async fn get_runtime(&self, _: Request<GetRuntimeRequest>) -> Result<Response<Runtime>, Status> {
        let look = self.look();
        let node = |name: &str, vectors, packets, cycles| NodeRuntime {
            name: name.into(),
            vectors: vectors * look,
            packets: packets * look,
            cycles: cycles * look,
        };
        let worker = |worker| WorkerRuntime {
            worker,
            polls: 1_000 * look,
            empty_polls: 900 * look,
            sleeps: 3 * look,
            cycles: 8_000_000 * look,
            busy_cycles: 1_000_000 * look,
            nodes: vec![
                node("parse", 100, 3_200, 480_000),
                node("conntrack", 100, 3_200, 320_000),
                node("policy", 0, 0, 0),
                node("tx", 100, 3_000, 200_000),
            ],
        };
        Ok(Response::new(Runtime { workers: vec![worker(0), worker(1)], tsc_hz: 2.5e9 }))
    }

    async fn list_drops(&self, _: Request<ListDropsRequest>) -> Result<Response<ListDropsResponse>, Status> {
        let look = self.look();
        let rule = |policy: &str, rule, packets| RuleDrops {
            endpoint: "shop/web".into(),
            direction: "ingress".into(),
            tier: "default".into(),
            policy: policy.into(),
            rule,
            packets,
            last_packet: "tcp 10.0.0.1:4000 > 10.0.0.2:23".into(),
        };
        let drop = |reason: &str, sentence: &str, packets, rules| Drop {
            reason: reason.into(),
            sentence: sentence.into(),
            packets,
            rules,
            last_packet: "tcp 10.0.0.1:4000 > 10.0.0.2:23".into(),
        };
        let drops = vec![
            drop(
                "policy-denied",
                "A policy denied it.",
                9 * look,
                vec![rule("shop/web", 2, 6 * look), rule("", -1, 3)],
            ),
            drop("ttl-expired", "Its TTL ran out here.", 2, vec![]),
        ];
        Ok(Response::new(ListDropsResponse { drops }))
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented("the agent answers this"))
    }
}
