//! The agent: a small store, one status, one explanation.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    vec::IntoIter,
};

use super::{addresses, observed};
use margay_api::{
    control::v1::{
        AddressToRelease, Applied, ApplyRequest, ApplyResponse, AssignAddressesRequest,
        AssignAddressesResponse, Bgp, BgpPeer, CniAddRequest, CniAddResponse, CniCheckRequest,
        CniCheckResponse, CniDelRequest, CniDelResponse, CniGcRequest, CniGcResponse, CniStatusRequest,
        CniStatusResponse, Component, ConfirmLostRequest, ConfirmLostResponse, DeleteRequest, DeleteResponse,
        Endpoint, ExplainRequest, ExplainResponse, GetBgpRequest, GetConfigRequest, GetConfigResponse,
        GetRequest, GetResponse, GetStatusRequest, ListAddressesRequest, ListAddressesResponse,
        ListLostRequest, ListLostResponse, LostObject, Object, ObserveFlowsRequest, ObserveFlowsResponse,
        ReleaseAddressesRequest, ReleaseAddressesResponse, SetLogRequest, SetLogResponse, SplitPoolRequest,
        SplitPoolResponse, Status as NodeStatus, SummarizeFlowsRequest, SummarizeFlowsResponse, WatchEvent,
        WatchRequest, apply_request::Mode, control_server::Control, set_log_request::Process,
        watch_event::Type,
    },
    dataplane::v1 as dataplane,
};
use serde_json::{Value, json};
use tokio_stream::Iter;
use tonic::{Request, Response, Status};

type Id = (String, String, String);

/// Holds a few objects. Its store's version grows with each change.
pub struct Agent {
    store: Mutex<(u64, BTreeMap<Id, Object>)>,
    watches: AtomicUsize,
}

impl Default for Agent {
    fn default() -> Self {
        let objects = [
            json!({"kind": "Tier", "metadata": {"name": "platform"}, "spec": {"order": 100.0}}),
            json!({"kind": "Tier", "metadata": {"name": "security", "labels": {"team": "red"}},
                   "spec": {"order": 10.5, "defaultAction": "Pass"}}),
            json!({"kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": "shop"},
                   "spec": {"tier": "default", "selector": "role == \"web\"", "types": ["Ingress", "Egress"]}}),
            json!({"kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "default"},
                   "spec": {"tier": "security", "order": 1.0, "types": ["Ingress"]}}),
            json!({"kind": "WorkloadEndpoint",
                   "metadata": {"name": "web-1", "namespace": "shop", "labels": {"role": "web", "zone": "a"}},
                   "spec": {"node": "node-a", "pod": "web", "ipNetworks": ["10.0.0.2/32", "fd00::2/128"],
                            "interfaceName": "cali1", "profiles": ["kns.shop"]}}),
            json!({"kind": "Profile", "metadata": {"name": "kns.lab"},
                   "spec": {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}}),
            json!({"kind": "NetworkPolicy", "metadata": {"name": "db", "namespace": "lab"},
                   "spec": {"selector": "role == 'db'", "types": ["Ingress"], "ingress": [
                       {"action": "Allow", "protocol": "TCP", "source": {"selector": "role == 'web'"},
                        "destination": {"ports": [5432]}}]}}),
            lab("db", "10.0.9.1"),
            lab("shell", "10.0.9.2"),
        ];
        let store = objects.iter().enumerate().map(|(version, object)| {
            let object = stored(object.clone(), version as u64 + 1);
            (id(&object), object)
        });
        Self { store: Mutex::new((objects.len() as u64, store.collect())), watches: AtomicUsize::new(0) }
    }
}

#[tonic::async_trait]
impl Control for Agent {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let request = request.into_inner();
        let mut store = self.store.lock().unwrap();
        let (mut version, mut objects) = store.clone();
        let mut applied = Vec::new();
        for text in &request.objects {
            let value: Value =
                serde_json::from_str(text).map_err(|e| Status::invalid_argument(e.to_string()))?;
            version += 1;
            let object = stored(value.clone(), version);
            let before = objects.get(&id(&object));
            match (request.mode(), before) {
                (Mode::Create, Some(_)) => {
                    return Err(Status::already_exists(format!(
                        "{} {} is there already",
                        object.kind, object.name
                    )));
                }
                (Mode::Replace, None) => {
                    return Err(Status::not_found(format!("{} {} is not there", object.kind, object.name)));
                }
                _ => {}
            }
            let read = value["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            if before.is_some_and(|before| !read.is_empty() && before.resource_version != read) {
                return Err(Status::aborted(format!("{} {} has changed", object.kind, object.name)));
            }
            applied.push(Applied {
                kind: object.kind.clone(),
                namespace: object.namespace.clone(),
                name: object.name.clone(),
                outcome: if before.is_some() { "configured" } else { "created" }.into(),
                resource_version: object.resource_version.clone(),
            });
            objects.insert(id(&object), object);
        }
        if !request.dry_run {
            *store = (version, objects);
        }
        let adopted_generation = if request.wait { 42 } else { 0 };
        Ok(Response::new(ApplyResponse { applied, adopted_generation }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { kind, namespace, name, wait, .. } = request.into_inner();
        if name == "slow" {
            // Never answers.
            std::future::pending::<()>().await;
        }
        match self.store.lock().unwrap().1.remove(&(kind.clone(), namespace, name.clone())) {
            Some(_) => Ok(Response::new(DeleteResponse { adopted_generation: if wait { 43 } else { 0 } })),
            None => Err(Status::not_found(format!("there is no {kind} {name}"))),
        }
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { kind, namespace, name, selector } = request.into_inner();
        let store = self.store.lock().unwrap();
        let wanted = |object: &&Object| {
            object.kind == kind
                && (namespace.is_empty() || object.namespace == namespace)
                && (name.is_empty() || object.name == name)
                && (selector.is_empty() || object.json.contains("\"role\":\"web\""))
        };
        let objects: Vec<_> = store.1.values().filter(wanted).cloned().collect();
        match objects.is_empty() && !name.is_empty() {
            true => Err(Status::not_found(format!("there is no {kind} {name}"))),
            false => Ok(Response::new(GetResponse { objects, resource_version: store.0.to_string() })),
        }
    }

    type WatchStream = Iter<IntoIter<Result<WatchEvent, Status>>>;
    type ObserveFlowsStream = Iter<IntoIter<Result<ObserveFlowsResponse, Status>>>;

    /// The first watch falls behind, the second is cut off.
    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let event = |kind: Type, name: &str, version: u64, team: &str| {
            let tier = json!({"kind": "Tier", "metadata": {"name": name, "labels": {"team": team}},
                              "spec": {"order": version}});
            Ok(WatchEvent {
                r#type: kind.into(),
                object: Some(stored(tier, version)),
                ..WatchEvent::default()
            })
        };
        let synced = || Ok(WatchEvent { r#type: Type::Synced.into(), ..WatchEvent::default() });
        let events = match self.watches.fetch_add(1, Ordering::Relaxed) {
            0 => vec![
                event(Type::Added, "blue", 1, "blue"),
                event(Type::Added, "red", 2, "red"),
                event(Type::Added, "short-lived", 3, "red"),
                synced(),
                event(Type::Modified, "blue", 4, "red"),
                event(Type::Modified, "red", 5, "red"),
                Err(Status::out_of_range("list again")),
            ],
            _ => vec![
                event(Type::Added, "blue", 4, "red"),
                event(Type::Added, "red", 6, "blue"),
                synced(),
                event(Type::Deleted, "blue", 4, "red"),
            ],
        };
        Ok(Response::new(tokio_stream::iter(events)))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<NodeStatus>, Status> {
        let component = |name: &str, healthy, reason: &str| Component {
            name: name.into(),
            healthy,
            reason: reason.into(),
            since_unix_seconds: 1_767_225_599,
        };
        let endpoint = |name: &str, state: &str, reason: &str| Endpoint {
            namespace: "shop".into(),
            name: name.into(),
            interface_name: format!("cali-{name}"),
            addresses: vec!["10.0.0.2".into(), "fd00::2".into()],
            state: state.into(),
            reason: reason.into(),
        };
        Ok(Response::new(NodeStatus {
            version: "0.1.0".into(),
            node: "node-a".into(),
            uptime_seconds: 3_725,
            components: vec![
                component("store", true, "embedded, revision 12"),
                component("calculation", true, ""),
                component("endpoint shop/db", false, "the interface cali-db does not exist"),
            ],
            dataplane: Some(super::dataplane::status()),
            endpoints: vec![endpoint("web", "up", ""), endpoint("db", "error", "no such interface")],
            sent_generation: 42,
            adopted_generation: 41,
            relay: None,
        }))
    }

    async fn assign_addresses(
        &self,
        _: Request<AssignAddressesRequest>,
    ) -> Result<Response<AssignAddressesResponse>, Status> {
        Err(Status::unimplemented("no command asks for addresses"))
    }

    async fn release_addresses(
        &self,
        request: Request<ReleaseAddressesRequest>,
    ) -> Result<Response<ReleaseAddressesResponse>, Status> {
        let request = request.into_inner();
        // Of its addresses only one is as a report may say.
        let is_so = |one: &AddressToRelease| one.address == "10.65.0.3" && [0, 9].contains(&one.sequence);
        let mut released: Vec<_> =
            request.addresses.into_iter().filter(is_so).map(|one| one.address).collect();
        if request.handle == "net.web" {
            released.extend(["10.65.0.2".to_owned(), "fd00::2".to_owned()]);
        }
        Ok(Response::new(ReleaseAddressesResponse { released }))
    }

    async fn list_addresses(
        &self,
        request: Request<ListAddressesRequest>,
    ) -> Result<Response<ListAddressesResponse>, Status> {
        Ok(Response::new(addresses::list(&request.into_inner())))
    }

    async fn split_pool(
        &self,
        request: Request<SplitPoolRequest>,
    ) -> Result<Response<SplitPoolResponse>, Status> {
        let SplitPoolRequest { pool, parts } = request.into_inner();
        if !parts.is_power_of_two() {
            return Err(Status::invalid_argument(format!("IPPool {pool} cannot be split in {parts}")));
        }
        let pools = (0..parts).map(|part| format!("split-{part}-four")).collect();
        Ok(Response::new(SplitPoolResponse { pools }))
    }

    async fn list_lost(&self, _: Request<ListLostRequest>) -> Result<Response<ListLostResponse>, Status> {
        let object = |kind: &str, namespace: &str, name: &str| LostObject {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        let objects = vec![object("NetworkPolicy", "shop", "web"), object("Tier", "", "security")];
        Ok(Response::new(ListLostResponse { objects }))
    }

    async fn confirm_lost(
        &self,
        request: Request<ConfirmLostRequest>,
    ) -> Result<Response<ConfirmLostResponse>, Status> {
        assert_eq!(request.into_inner().objects.len(), 2, "those that were listed");
        Ok(Response::new(ConfirmLostResponse {}))
    }

    async fn get_config(&self, _: Request<GetConfigRequest>) -> Result<Response<GetConfigResponse>, Status> {
        use dataplane::{Setting, setting::Origin};
        let setting = |name: &str, value: &str, origin: Origin, source: &str, needs_restart| Setting {
            name: name.into(),
            value: value.into(),
            origin: origin.into(),
            source: source.into(),
            needs_restart,
        };
        Ok(Response::new(GetConfigResponse {
            node: "node-a".into(),
            agent: vec![
                setting("node", "", Origin::Default, "", true),
                setting("store", "etcd:http://10.0.0.9:2379", Origin::Environment, "MARGAY_STORE", true),
                setting("log", "debug", Origin::RunTime, "until it ends", false),
            ],
            dataplane: vec![setting("cores", "2,3", Origin::File, "/etc/margay/dataplane.conf:3", true)],
            dataplane_problem: String::new(),
            store: vec![
                setting("ipipEnabled", "true", Origin::Cluster, "FelixConfiguration default", false),
                setting("vxlanVNI", "4097", Origin::Node, "FelixConfiguration node.node-a", false),
            ],
        }))
    }

    async fn set_log(&self, request: Request<SetLogRequest>) -> Result<Response<SetLogResponse>, Status> {
        let request = request.into_inner();
        match (request.process(), request.filter.as_str()) {
            (Process::Dataplane, "trace") => {
                Err(Status::unavailable("the dataplane has not answered in 5 s"))
            }
            (_, "") => Ok(Response::new(SetLogResponse { filter: "info".into() })),
            (_, filter) => Ok(Response::new(SetLogResponse { filter: filter.into() })),
        }
    }

    async fn get_bgp(&self, _: Request<GetBgpRequest>) -> Result<Response<Bgp>, Status> {
        let peer = |address: &str, as_number, object: &str, node: &str, state: &str, error: &str| BgpPeer {
            address: address.into(),
            port: 179,
            as_number,
            object: object.into(),
            node: node.into(),
            protocol: format!("peer_{}_port_179", address.replace(['.', ':'], "_")),
            state: state.into(),
            since: "2025-12-31T23:59:59+0000".into(),
            error: error.into(),
            imported: 3,
            exported: 1,
        };
        Ok(Response::new(Bgp {
            driven: true,
            router_id: "10.0.0.1".into(),
            as_number: 64_512,
            kernel_table: 179,
            announced: vec!["10.65.0.0/26".into(), "fd65::1/128".into()],
            peers: vec![
                peer("10.0.0.2", 64_512, "mesh", "node-b", "Established", ""),
                peer("10.0.0.254", 65_001, "BGPPeer rack-1", "", "Active", "Socket: Connection refused"),
            ],
            error: String::new(),
        }))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let request = request.into_inner();
        if request.to == "shop/nobody" {
            return Err(Status::not_found(
                "there is no workload shop/nobody on this node, nor an address of it",
            ));
        }
        if request.to == "lab/db" {
            return Ok(Response::new(explain_lab()));
        }
        if request.to == "192.0.2.2" {
            let notes = vec![
                "the source is no workload endpoint: no egress policy applies to it here".into(),
                "the destination is no workload endpoint: no ingress policy applies to it here".into(),
            ];
            return Ok(Response::new(ExplainResponse {
                from: request.from,
                to: request.to,
                result: None,
                notes,
            }));
        }
        if request.to == "10.96.0.10" {
            return Ok(Response::new(explain_service(&request)));
        }
        let title = |name: &str, address: &str| match name.contains('/') {
            true => format!("{name} ({address})"),
            false => name.to_owned(),
        };
        let denied = request.destination_port == "23";
        let step = |tier: &str, policy: &str, rule, action: &str| dataplane::Step {
            tier: tier.into(),
            policy: policy.into(),
            rule,
            action: action.into(),
        };
        let egress = dataplane::Direction {
            endpoint: "shop/client".into(),
            verdict: "allow".into(),
            tier: String::new(),
            policy: "profile kns.shop".into(),
            rule: 0,
            walk: vec![step("", "profile kns.shop", 0, "allow")],
            minimal_match: String::new(),
            ..Default::default()
        };
        let ingress = dataplane::Direction {
            endpoint: "shop/web".into(),
            verdict: if denied { "deny" } else { "allow" }.into(),
            tier: "default".into(),
            policy: if denied { "" } else { "shop/web" }.into(),
            rule: if denied { -1 } else { 1 },
            walk: vec![
                step("security", "shop/deny", 3, "pass"),
                step(
                    "default",
                    "shop/web",
                    if denied { -1 } else { 1 },
                    if denied { "deny" } else { "allow" },
                ),
            ],
            minimal_match: "tcp, destination port 80-81".into(),
            staged: Some(Box::new(dataplane::Direction {
                verdict: "deny".into(),
                tier: "security".into(),
                policy: "shop/quarantine".into(),
                rule: 0,
                ..Default::default()
            })),
        };
        let host = |stage: &str, verdict: &str, rule| dataplane::HostStage {
            stage: stage.into(),
            direction: "ingress".into(),
            decision: Some(dataplane::Direction {
                endpoint: "host endpoint node-a-eth0".into(),
                verdict: verdict.into(),
                tier: "default".into(),
                policy: "edge".into(),
                rule,
                ..Default::default()
            }),
        };
        Ok(Response::new(ExplainResponse {
            from: title(&request.from, "10.0.0.1"),
            to: title(&request.to, "10.0.0.2"),
            result: Some(dataplane::ExplainResponse {
                verdict: ingress.verdict.clone(),
                generation: 42,
                egress: (request.from == "shop/client").then_some(egress),
                ingress: Some(ingress),
                route: "workload shop/web via cali-web".into(),
                conntrack: Some(dataplane::Conntrack::default()),
                host: vec![host("preDNAT", "pass", -1), host("applyOnForward", "allow", 1)],
                service: None,
            }),
            notes: vec!["the route is that of this node".into()],
        }))
    }

    async fn observe_flows(
        &self,
        request: Request<ObserveFlowsRequest>,
    ) -> Result<Response<Self::ObserveFlowsStream>, Status> {
        let told = observed::told(request.get_ref());
        Ok(Response::new(tokio_stream::iter(vec![Ok(told)])))
    }

    async fn summarize_flows(
        &self,
        request: Request<SummarizeFlowsRequest>,
    ) -> Result<Response<SummarizeFlowsResponse>, Status> {
        Ok(Response::new(observed::summary(request.get_ref())))
    }

    async fn cni_add(&self, _: Request<CniAddRequest>) -> Result<Response<CniAddResponse>, Status> {
        Err(Status::unimplemented("not for margayctl"))
    }

    async fn cni_del(&self, _: Request<CniDelRequest>) -> Result<Response<CniDelResponse>, Status> {
        Err(Status::unimplemented("not for margayctl"))
    }

    async fn cni_check(&self, _: Request<CniCheckRequest>) -> Result<Response<CniCheckResponse>, Status> {
        Err(Status::unimplemented("not for margayctl"))
    }

    async fn cni_gc(&self, _: Request<CniGcRequest>) -> Result<Response<CniGcResponse>, Status> {
        Err(Status::unimplemented("not for margayctl"))
    }

    async fn cni_status(&self, _: Request<CniStatusRequest>) -> Result<Response<CniStatusResponse>, Status> {
        Err(Status::unimplemented("not for margayctl"))
    }
}

/// An endpoint of the lab.
fn lab(role: &str, address: &str) -> Value {
    json!({"kind": "WorkloadEndpoint",
           "metadata": {"name": role, "namespace": "lab", "labels": {"role": role}},
           "spec": {"node": "node-a", "pod": role, "ipNetworks": [format!("{address}/32")],
                    "interfaceName": format!("cali-{role}"), "profiles": ["kns.lab"]}})
}

/// What a dataplane says of a service's address: who gets the packet, and at another port that nobody does.
fn explain_service(request: &ExplainRequest) -> ExplainResponse {
    let backend = |address: [u8; 4], local| dataplane::ServedBackend {
        address: address.to_vec(),
        port: 5353,
        local,
        weight: 1,
    };
    let named = dataplane::ServiceChoice {
        service: "kube-system/dns".into(),
        kind: "cluster".into(),
        ..Default::default()
    };
    let served = request.destination_port == "53";
    let service = match served {
        true => dataplane::ServiceChoice {
            port: "dns".into(),
            backend: Some(backend([10, 0, 0, 2], true)),
            backends: vec![backend([10, 0, 0, 2], true), backend([10, 0, 1, 2], false)],
            by_source_port: true,
            ..named
        },
        false => dataplane::ServiceChoice {
            refused: "no-service-port".into(),
            sentence: "a service's address, but none of its ports".into(),
            ..named
        },
    };
    let verdict = if served { "allow" } else { "deny" };
    let direction = |endpoint: &str| dataplane::Direction {
        endpoint: endpoint.into(),
        verdict: "allow".into(),
        policy: "profile kns.shop".into(),
        ..Default::default()
    };
    ExplainResponse {
        from: "shop/client (10.0.0.1)".into(),
        to: request.to.clone(),
        result: Some(dataplane::ExplainResponse {
            verdict: verdict.into(),
            generation: 42,
            egress: served.then(|| direction("shop/client")),
            ingress: served.then(|| direction("shop/web")),
            route: if served { "workload shop/web via cali-web".into() } else { String::new() },
            conntrack: served.then(dataplane::Conntrack::default),
            service: Some(service),
            ..Default::default()
        }),
        notes: vec![],
    }
}

/// What a dataplane says of the lab's shell and its database, where a flow is from before the policy.
fn explain_lab() -> ExplainResponse {
    let direction = |endpoint: &str, verdict: &str, tier: &str, policy: &str, rule| dataplane::Direction {
        endpoint: endpoint.into(),
        verdict: verdict.into(),
        tier: tier.into(),
        policy: policy.into(),
        rule,
        walk: vec![dataplane::Step {
            tier: tier.into(),
            policy: policy.into(),
            rule,
            action: verdict.into(),
        }],
        minimal_match: "tcp src not in set s:x".into(),
        ..Default::default()
    };
    let session = |sport: u16, state: &str, judged_generation, verdict_now: &str| dataplane::Session {
        worker: 1,
        flow: format!("tcp 10.0.9.2:{sport} > 10.0.9.1:5432"),
        reply: false,
        state: state.into(),
        idle_milliseconds: 2_500,
        remaining_milliseconds: 3_597_500,
        judged_generation,
        verdict_now: verdict_now.into(),
    };
    ExplainResponse {
        from: "lab/shell (10.0.9.2)".into(),
        to: "lab/db (10.0.9.1)".into(),
        result: Some(dataplane::ExplainResponse {
            verdict: "deny".into(),
            generation: 42,
            egress: Some(direction("lab/shell", "allow", "", "profile kns.lab", 0)),
            ingress: Some(direction("lab/db", "deny", "default", "", -1)),
            route: "workload lab/db via cali-db".into(),
            conntrack: Some(dataplane::Conntrack {
                sessions: vec![session(4000, "established", 7, "deny"), session(4001, "closed", 9, "deny")],
                more: true,
                recheck: false,
                generation: 9,
            }),
            ..Default::default()
        }),
        notes: vec![],
    }
}

fn stored(mut value: Value, version: u64) -> Object {
    value["apiVersion"] = "projectcalico.org/v3".into();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Object {
        kind: text(&value["kind"]),
        namespace: text(&value["metadata"]["namespace"]),
        name: text(&value["metadata"]["name"]),
        json: value.to_string(),
        resource_version: version.to_string(),
    }
}

fn id(object: &Object) -> Id {
    (object.kind.clone(), object.namespace.clone(), object.name.clone())
}
