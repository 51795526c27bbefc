//! The dataplane: counters that grow with each look.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    vec::IntoIter,
};

use margay_api::dataplane::v1::{
    Accounting, BufferOwner, Buffers, CountFlowsRequest, CountFlowsResponse, DirectionPolicy, Drop,
    DryRunRequest, DryRunResponse, EndpointPolicy, ExplainRequest, ExplainResponse, FlowTable,
    FlushFlowsRequest, FlushFlowsResponse, Frontend, GetEndpointPolicyRequest, GetHistogramsRequest,
    GetHistogramsResponse, GetRuntimeRequest, GetSettingsRequest, GetSettingsResponse, GetStatusRequest,
    Histogram, HistogramBucket, Interface, ListAdjacenciesRequest, ListAdjacenciesResponse, ListDropsRequest,
    ListDropsResponse, ListFlowsRequest, ListFlowsResponse, ListInterfacesRequest, ListInterfacesResponse,
    ListNeighboursRequest, ListNeighboursResponse, ListRoutesRequest, ListRoutesResponse,
    ListServicesRequest, ListStagedRequest, ListStagedResponse, ListTunnelsRequest, ListTunnelsResponse,
    ListWireguardRequest, ListWireguardResponse, ListedRule, ListedRules, LogFlowsRequest, LogFlowsResponse,
    LookupRouteRequest, LookupRouteResponse, Nat, NodeRuntime, ObjectError, PolicyId, PortRange, Prefix,
    Queue, Refused, RotateWireguardKeyRequest, RotateWireguardKeyResponse, RuleDrops, Runtime, ServedBackend,
    ServedPort, ServedService, ServiceId, SetLogRequest, SetLogResponse, StagePolicy, StagedEndpoint,
    StagedPolicy, StagedRule, Status as DataplaneStatus, SyncRequest, SyncResponse, TierPolicy, TreeShape,
    Tunnel, WatchRequest, WatchResponse, WireguardInterface, WireguardPeerStatus, Worker, WorkerHistograms,
    WorkerRuntime, dataplane_server::Dataplane as Service, node_config::NatMapping,
};
use tokio_stream::Iter;
use tonic::{Request, Response, Status, Streaming};

use super::{flows, routes, watched};

/// Counts its looks, and those at drops apart: they are not alone.
#[derive(Default)]
pub struct Dataplane {
    looks: AtomicU64,
    looks_at_drops: AtomicU64,
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
        flow_table: Some(FlowTable { capacity: 1 << 20, bytes: 127 << 20, hugepages: pinned }),
    };
    let error = ObjectError {
        object: "policy shop/web".into(),
        field: "inbound_rules[0].http".into(),
        message: "HTTP matches are not enforced here; remove them".into(),
    };
    DataplaneStatus {
        policy_memory: None,
        nat: Some(Nat {
            ports: Some(PortRange { first: 61_000, last: 65_535 }),
            mapping: NatMapping::EndpointIndependent.into(),
            exhausted: 7,
        }),
        version: "0.1.0".into(),
        adopted_generation: 41,
        committed_generation: 42,
        agent_connected: true,
        in_sync: true,
        uptime_seconds: 200_000,
        workers: vec![worker(0, true, 0.125), worker(1, false, 0.0)],
        buffers: Some(Buffers {
            frames: 65_536,
            frame_size: 2_048,
            hugepages: true,
            free: 60_000,
            owners: [("free", -1, 60_000), ("worker", 0, 1_436), ("devices", 0, 4_096), ("waiting", 0, 3)]
                .into_iter()
                .chain([("waiting", -1, 0), ("unaccounted", -1, 1)])
                .map(|(owner, worker, frames)| BufferOwner { owner: owner.into(), worker, frames })
                .collect(),
        }),
        accounting: Some(Accounting {
            rx: 1_000,
            tx: 900,
            punt: 20,
            drops: 70,
            in_flight: 10,
            originated: 5,
            lost: 6,
        }),
        policies: 1,
        ip_sets: 2,
        routes: 3,
        workload_endpoints: 4,
        flows: 120,
        workload_mtu: 1_450,
        wireguard_public_key: vec![7; 32],
        wireguard_problem: String::new(),
        wireguard_lanes: 16,
        last_refused: Some(Refused { generation: 40, errors: vec![error] }),
    }
}

#[tonic::async_trait]
impl Service for Dataplane {
    type ListFlowsStream = Iter<IntoIter<Result<ListFlowsResponse, Status>>>;
    type SyncStream = Iter<IntoIter<Result<SyncResponse, Status>>>;
    type ListRoutesStream = Iter<IntoIter<Result<ListRoutesResponse, Status>>>;
    type WatchStream = Iter<IntoIter<Result<WatchResponse, Status>>>;
    type LogFlowsStream = Iter<IntoIter<Result<LogFlowsResponse, Status>>>;
    type ListServicesStream = Iter<IntoIter<Result<ServedService, Status>>>;

    async fn log_flows(&self, _: Request<LogFlowsRequest>) -> Result<Response<Self::LogFlowsStream>, Status> {
        Err(Status::unimplemented("for the agent"))
    }

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
            rx_packets: 3_200 * look,
            tx_packets: 3_000 * look,
            nodes: vec![
                node("parse", 100, 3_200, 480_000),
                node("conntrack", 100, 3_200, 320_000),
                node("policy", 0, 0, 0),
                node("tx", 100, 3_000, 200_000),
            ],
        };
        Ok(Response::new(Runtime { workers: vec![worker(0), worker(1)], tsc_hz: 2.5e9 }))
    }

    async fn get_histograms(
        &self,
        _: Request<GetHistogramsRequest>,
    ) -> Result<Response<GetHistogramsResponse>, Status> {
        let histogram = |max, buckets: &[(u64, u64, u64)]| {
            let bucket = |&(lowest, highest, count): &_| HistogramBucket { lowest, highest, count };
            Some(Histogram { buckets: buckets.iter().map(bucket).collect(), max })
        };
        let busy = WorkerHistograms {
            worker: 0,
            vector: histogram(32, &[(1, 1, 60), (2, 2, 10), (16, 16, 5), (31, 31, 20), (32, 33, 5)]),
            cycles: histogram(2_050, &[(120, 123, 600), (148, 151, 300), (256, 271, 95), (2_048, 2_175, 5)]),
            latency: histogram(51_000, &[(3_712, 3_839, 900), (7_424, 7_679, 99), (49_152, 51_199, 1)]),
        };
        let idle = WorkerHistograms { worker: 1, ..WorkerHistograms::default() };
        Ok(Response::new(GetHistogramsResponse { workers: vec![busy, idle], tsc_hz: 2.5e9 }))
    }

    async fn rotate_wireguard_key(
        &self,
        _: Request<RotateWireguardKeyRequest>,
    ) -> Result<Response<RotateWireguardKeyResponse>, Status> {
        Ok(Response::new(RotateWireguardKeyResponse { public_key: vec![8; 32] }))
    }

    async fn get_settings(
        &self,
        _: Request<GetSettingsRequest>,
    ) -> Result<Response<GetSettingsResponse>, Status> {
        Err(Status::unimplemented("the agent asks it"))
    }

    async fn set_log(&self, _: Request<SetLogRequest>) -> Result<Response<SetLogResponse>, Status> {
        Err(Status::unimplemented("the agent asks it"))
    }

    async fn list_wireguard(
        &self,
        _: Request<ListWireguardRequest>,
    ) -> Result<Response<ListWireguardResponse>, Status> {
        let peer = WireguardPeerStatus {
            node: "node-b".into(),
            public_key: vec![9; 32],
            endpoint: vec![10, 0, 0, 2],
            endpoint_port: 51_820,
            latest_handshake: 1_700_000_000_500_000_000,
            received_bytes: 5_000,
            sent_bytes: 3 << 20,
            allowed_ips: vec![Prefix { address: vec![10, 65, 1, 0], length: 26 }],
            keepalive_seconds: 25,
            problem: String::new(),
        };
        let refused = WireguardPeerStatus {
            node: "node-c".into(),
            public_key: vec![0; 32],
            problem: "public key 00000000... is not one that a private key belongs to".into(),
            ..WireguardPeerStatus::default()
        };
        let interface = WireguardInterface {
            name: "margay-wireguard".into(),
            public_key: vec![7; 32],
            listening_port: 51_820,
            mtu: 1440,
            peers: vec![peer, refused],
        };
        Ok(Response::new(ListWireguardResponse { interfaces: vec![interface] }))
    }

    async fn list_tunnels(
        &self,
        _: Request<ListTunnelsRequest>,
    ) -> Result<Response<ListTunnelsResponse>, Status> {
        let vxlan = Tunnel {
            node: "node-b".into(),
            kind: "vxlan".into(),
            local: vec![10, 0, 0, 1],
            remote: vec![10, 0, 0, 2],
            interface: "eth0".into(),
            mtu: 1_350,
            path_mtu: 1_400,
            port: 4_789,
            vni: 4_096,
            mac: vec![0x66, 1, 2, 3, 4, 5],
            routes: 12,
            reason: String::new(),
        };
        let ipip = Tunnel {
            node: "node-c".into(),
            kind: "ipip".into(),
            local: vec![10, 0, 0, 1],
            remote: vec![10, 0, 1, 3],
            mtu: 1_480,
            routes: 1,
            reason: "no route to the node".into(),
            ..Tunnel::default()
        };
        Ok(Response::new(ListTunnelsResponse { tunnels: vec![vxlan, ipip] }))
    }

    async fn lookup_route(
        &self,
        request: Request<LookupRouteRequest>,
    ) -> Result<Response<LookupRouteResponse>, Status> {
        let routes = match request.into_inner().address[..] {
            [10, ..] => routes::all().into_iter().take(2).collect(),
            _ => vec![],
        };
        Ok(Response::new(LookupRouteResponse { routes }))
    }

    async fn list_routes(
        &self,
        request: Request<ListRoutesRequest>,
    ) -> Result<Response<Self::ListRoutesStream>, Status> {
        let request = request.into_inner();
        let mut found: Vec<_> = routes::all()
            .into_iter()
            .filter(|route| request.origin.is_empty() || route.origin == request.origin)
            .filter(|route| request.within.as_ref().is_none_or(|within| routes::is_within(route, within)))
            .collect();
        let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
        let more = found.len() > limit;
        found.truncate(limit);
        Ok(Response::new(tokio_stream::iter(vec![Ok(ListRoutesResponse { routes: found, more })])))
    }

    async fn list_adjacencies(
        &self,
        _: Request<ListAdjacenciesRequest>,
    ) -> Result<Response<ListAdjacenciesResponse>, Status> {
        Ok(Response::new(ListAdjacenciesResponse { adjacencies: routes::adjacencies() }))
    }

    async fn list_neighbours(
        &self,
        _: Request<ListNeighboursRequest>,
    ) -> Result<Response<ListNeighboursResponse>, Status> {
        Ok(Response::new(ListNeighboursResponse { neighbours: routes::neighbours() }))
    }

    async fn list_services(
        &self,
        _: Request<ListServicesRequest>,
    ) -> Result<Response<Self::ListServicesStream>, Status> {
        let backend =
            |host, local| ServedBackend { address: vec![10, 65, 0, host], port: 8080, local, weight: 1 };
        let frontend = |address: &[u8], port, kind: &str| Frontend {
            address: address.to_vec(),
            protocol: 6,
            port,
            kind: kind.into(),
        };
        let id = |name: &str| Some(ServiceId { namespace: "shop".into(), name: name.into() });
        let web = ServedPort {
            name: "http".into(),
            frontends: vec![frontend(&[], 30_080, "node"), frontend(&[10, 96, 0, 1], 80, "cluster")],
            backends: vec![backend(1, true), backend(2, false)],
            local_backends: vec![backend(1, true)],
            external_traffic_local: true,
            client_affinity_seconds: 10_800,
            table_bytes: 2042,
            ..ServedPort::default()
        };
        let mut mapped = [0; 16];
        mapped[0] = 0xfd;
        let idle = ServedPort {
            frontends: vec![frontend(&mapped, 53, "cluster")],
            table_pending: true,
            ..ServedPort::default()
        };
        let services = vec![
            Ok(ServedService { id: id("idle"), ports: vec![idle] }),
            Ok(ServedService { id: id("web"), ports: vec![web] }),
        ];
        Ok(Response::new(tokio_stream::iter(services)))
    }

    async fn list_drops(&self, _: Request<ListDropsRequest>) -> Result<Response<ListDropsResponse>, Status> {
        let look = self.looks_at_drops.fetch_add(1, Ordering::Relaxed) + 1;
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

    async fn get_endpoint_policy(
        &self,
        request: Request<GetEndpointPolicyRequest>,
    ) -> Result<Response<EndpointPolicy>, Status> {
        let GetEndpointPolicyRequest { endpoint, dot } = request.into_inner();
        if endpoint == "node-a-eth0" {
            let deny = |otherwise: &str| {
                Some(DirectionPolicy { otherwise: otherwise.into(), ..DirectionPolicy::default() })
            };
            let stage = StagePolicy { stage: "preDNAT".into(), ingress: deny("pass"), egress: None };
            return Ok(Response::new(EndpointPolicy {
                endpoint,
                generation: 42,
                active: true,
                ingress: deny("deny"),
                egress: deny("deny"),
                stages: vec![stage],
                host: true,
            }));
        }
        if endpoint != "shop/web" {
            return Err(Status::not_found(format!("there is no endpoint {endpoint} on this node")));
        }
        let rule = |index, action: &str, what: &str, hits| ListedRule {
            index,
            action: action.into(),
            r#match: what.into(),
            hits,
        };
        let listed =
            |kind: &str, name: &str, rules| ListedRules { kind: kind.into(), name: name.into(), rules };
        let tree = |tier: &str, ip_version| TreeShape {
            tier: tier.into(),
            ip_version,
            pieces: 3,
            bit_nodes: 1,
            leaves: 2,
            longest_leaf: 2,
            depth: 1,
            bytes: 712,
            ..TreeShape::default()
        };
        let dot = |name: &str| if dot { format!("digraph \"{name}\" {{\n}}\n") } else { String::new() };
        let web = vec![
            rule(0, "log", "any packet", 0),
            rule(1, "allow", "tcp from set s:abc to port 80", 12),
            rule(2, "deny", "tcp to port 22", 4),
        ];
        let tiers = vec![TierPolicy {
            name: "default".into(),
            policies: vec![
                listed("NetworkPolicy", "shop/web", web),
                listed("NetworkPolicy", "shop/quiet", vec![]),
            ],
            default_action: "deny".into(),
            default_hits: 3,
        }];
        let open = || vec![listed("Profile", "kns.shop", vec![rule(0, "allow", "any packet", 7)])];
        Ok(Response::new(EndpointPolicy {
            endpoint,
            generation: 42,
            active: true,
            host: false,
            stages: vec![],
            ingress: Some(DirectionPolicy {
                tiers,
                profiles: open(),
                otherwise: "deny".into(),
                otherwise_hits: 0,
                trees: vec![tree("default", 4), tree("default", 6), tree("", 0)],
                bytes: 2_136,
                sharers: 5,
                patched: true,
                changes: 2,
                dot: dot("ingress of shop/web"),
            }),
            egress: Some(DirectionPolicy {
                profiles: open(),
                otherwise: "deny".into(),
                trees: vec![tree("", 0)],
                bytes: 712,
                sharers: 9,
                dot: dot("egress of shop/web"),
                ..DirectionPolicy::default()
            }),
        }))
    }

    async fn list_staged(
        &self,
        _: Request<ListStagedRequest>,
    ) -> Result<Response<ListStagedResponse>, Status> {
        let look = self.look();
        let policy = |kind: &str, namespace: &str, name: &str, ingress: &[&str]| StagedPolicy {
            id: Some(PolicyId { kind: kind.into(), namespace: namespace.into(), name: name.into() }),
            tier: "default".into(),
            ingress_endpoints: ingress.iter().map(|name| (*name).into()).collect(),
            egress_endpoints: vec![],
        };
        let rule = |policy: &str, rule, action: &str, packets, would_allow, would_deny| StagedRule {
            tier: "default".into(),
            policy: policy.into(),
            staged: !policy.is_empty(),
            direction: "ingress".into(),
            rule,
            action: action.into(),
            packets,
            would_allow,
            would_deny,
            last_packet: if would_allow + would_deny > 0 {
                "tcp 10.0.0.1:4000 > 10.0.0.2:80".into()
            } else {
                String::new()
            },
            last_endpoint: "shop/web-1".into(),
        };
        let endpoint = |endpoint: &str, would_allow, would_deny| StagedEndpoint {
            endpoint: endpoint.into(),
            direction: "ingress".into(),
            judged: 10 * look,
            would_allow,
            would_deny,
            seconds: 3_600 + look,
        };
        let (web, next) = ("StagedNetworkPolicy", "StagedGlobalNetworkPolicy");
        Ok(Response::new(ListStagedResponse {
            generation: 42,
            policies: vec![
                policy(next, "", "all-next", &[]),
                policy(web, "shop", "web", &["shop/web-1", "shop/web-2"]),
            ],
            endpoints: vec![endpoint("shop/web-1", 2 * look, 0), endpoint("shop/web-2", 0, 3 * look)],
            rules: vec![
                rule("", -1, "deny", 3 * look, 0, 3 * look),
                rule("shop/web", 0, "allow", 4 * look, 2 * look, 0),
                rule("shop/web", 1, "deny", 0, 0, 0),
            ],
        }))
    }

    async fn list_flows(
        &self,
        request: Request<ListFlowsRequest>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        // A message each.
        let found = flows::matching(&request.into_inner().filter)?;
        let messages: Vec<_> =
            found.into_iter().map(|flow| Ok(ListFlowsResponse { flows: vec![flow] })).collect();
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn count_flows(
        &self,
        request: Request<CountFlowsRequest>,
    ) -> Result<Response<CountFlowsResponse>, Status> {
        flows::count(&request.into_inner()).map(Response::new)
    }

    async fn flush_flows(
        &self,
        request: Request<FlushFlowsRequest>,
    ) -> Result<Response<FlushFlowsResponse>, Status> {
        let found = flows::matching(&request.into_inner().filter)?;
        Ok(Response::new(FlushFlowsResponse { flushed: found.len() as u64 }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::iter(watched::told(&request.into_inner()))))
    }

    async fn dry_run(
        &self,
        request: Request<Streaming<DryRunRequest>>,
    ) -> Result<Response<DryRunResponse>, Status> {
        let mut request = request.into_inner();
        let mut changes = Vec::new();
        while let Some(message) = request.message().await? {
            changes.extend(message.changes);
        }
        flows::cut(&changes).map(Response::new)
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented("the agent answers this"))
    }
}
