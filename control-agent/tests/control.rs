//! The API of a running agent, over its socket.

mod rig;

use margay_agent::datastore::Memory;
use margay_api::{
    control::v1::{
        ApplyRequest, DeleteRequest, ExplainRequest, GetConfigRequest, GetRequest, GetStatusRequest,
        SetLogRequest, WatchRequest, apply_request::Mode, control_client::ControlClient,
        set_log_request::Process, watch_event::Type,
    },
    dataplane::v1::{
        EndpointStatus, WorkloadEndpointId, change::Change, endpoint_status::State, setting::Origin,
    },
};
use rig::{Fake, Running, Verdict, next};
use serde_json::{Value, json};
use std::sync::Arc;
use tonic::{Code, Status, transport::Channel};

struct Rig {
    _dir: tempfile::TempDir,
    fake: Fake,
    agent: Running,
    client: ControlClient<Channel>,
}

async fn start(verdicts: impl IntoIterator<Item = Verdict>) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let dataplane = dir.path().join("dataplane.sock");
    let fake = Fake::start(&dataplane, 0, verdicts);
    let agent =
        Running::start("a", Arc::new(Memory::new()), &dir.path().join("agent.sock"), &dataplane).await;
    let client = agent.client().await;
    Rig { _dir: dir, fake, agent, client }
}

fn object(kind: &str, name: &str, spec: Value) -> String {
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec})
        .to_string()
}

fn workload(node: &str, name: &str, address: &str) -> String {
    let spec = json!({
        "node": node, "orchestrator": "k8s", "pod": name, "endpoint": "eth0", "interfaceName": format!("cali-{name}"),
        "ipNetworks": [format!("{address}/32")], "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    });
    object("WorkloadEndpoint", &format!("{node}-k8s-{name}-eth0"), spec)
}

fn node(name: &str, address: &str) -> String {
    object("Node", name, json!({"bgp": {"ipv4Address": format!("{address}/24")}}))
}

fn request(objects: impl IntoIterator<Item = String>) -> ApplyRequest {
    ApplyRequest { objects: objects.into_iter().collect(), ..ApplyRequest::default() }
}

fn get(kind: &str, name: &str) -> GetRequest {
    GetRequest { kind: kind.into(), name: name.into(), ..GetRequest::default() }
}

fn delete(kind: &str, name: &str) -> DeleteRequest {
    DeleteRequest { kind: kind.into(), name: name.into(), ..DeleteRequest::default() }
}

/// The one refusal that is expected.
fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.expect_err("refused");
    (status.code(), status.message().to_owned())
}

impl Rig {
    async fn outcomes(&mut self, request: ApplyRequest) -> Result<Vec<String>, Status> {
        let response = self.client.apply(request).await?.into_inner();
        Ok(response.applied.into_iter().map(|applied| applied.outcome).collect())
    }

    async fn names(&mut self, request: GetRequest) -> Vec<String> {
        let objects = self.client.get(request).await.unwrap().into_inner().objects;
        objects.into_iter().map(|object| object.name).collect()
    }
}

#[tokio::test]
async fn apply_waits_until_the_dataplane_has_adopted() {
    let mut rig = start([]).await;
    let request =
        ApplyRequest { wait: true, ..request([node("a", "192.168.0.1"), workload("a", "web", "10.0.0.1")]) };
    let response = rig.client.apply(request.clone()).await.unwrap().into_inner();
    assert!(response.adopted_generation > 0);
    // Two, if the agent had connected with an empty state before.
    let mut changes = rig.fake.transaction().await.changes;
    while let Some(more) = rig.fake.pending() {
        changes.extend(more.changes);
    }
    let sent = changes
        .iter()
        .any(|change| matches!(change, Change::WorkloadEndpoint(w) if w.display_name == "default/web"));
    assert!(sent, "{changes:?}");

    let again = rig.client.apply(request).await.unwrap().into_inner();
    assert_eq!(again.adopted_generation, response.adopted_generation, "nothing changed, nothing was sent");
    assert_eq!(again.applied[0].outcome, "unchanged");
    let gone = DeleteRequest { wait: true, ..delete("wep", "a-k8s-web-eth0") };
    assert!(
        rig.client.delete(gone).await.unwrap().into_inner().adopted_generation > response.adopted_generation
    );
}

#[tokio::test]
async fn a_refusal_by_the_dataplane_reaches_the_one_who_waits() {
    let mut rig = start([Verdict::Adopt, Verdict::Refuse("does not fit")]).await;
    rig.fake.transaction().await;
    let request = ApplyRequest { wait: true, ..request([node("a", "192.168.0.1")]) };
    let (code, message) = refusal(rig.client.apply(request).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(
        message.starts_with("stored, but the dataplane refused it") && message.contains("does not fit"),
        "{message}"
    );
}

#[tokio::test]
async fn a_request_is_stored_whole_or_not_at_all() {
    let mut rig = start([]).await;
    let typo = object("NetworkPolicy", "typo", json!({"selektor": "all()"}));
    let bad = object("NetworkPolicy", "bad", json!({"selector": "((("}));
    let tier = object("NetworkPolicy", "lost", json!({"tier": "nowhere"}));
    let (code, message) = refusal(rig.client.apply(request([node("b", "192.168.0.2"), typo, bad])).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        message.contains("did you mean") && message.contains("NetworkPolicy default/bad"),
        "both: {message}"
    );
    let (code, message) = refusal(rig.client.apply(request([node("b", "192.168.0.2"), tier])).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("there is no tier \"nowhere\""), "{message}");
    let (code, _) =
        refusal(rig.client.apply(request([node("b", "192.168.0.2"), node("b", "192.168.0.3")])).await);
    assert_eq!(code, Code::InvalidArgument, "which of the two?");
    let pool = |name, cidr| object("IPPool", name, json!({"cidr": cidr}));
    let (code, message) =
        refusal(rig.client.apply(request([pool("x", "10.0.0.0/16"), pool("y", "10.0.1.0/24")])).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("overlaps 10.0.0.0/16 of IPPool x"), "{message}");
    assert_eq!(rig.names(get("nodes", "")).await, Vec::<String>::new());

    let dry = ApplyRequest { dry_run: true, ..request([node("b", "192.168.0.2")]) };
    assert_eq!(rig.outcomes(dry).await.unwrap(), ["created"]);
    assert_eq!(rig.names(get("nodes", "")).await, Vec::<String>::new());
}

#[tokio::test]
async fn versions_keep_two_writers_apart() {
    let mut rig = start([]).await;
    assert_eq!(rig.outcomes(request([node("b", "192.168.0.2")])).await.unwrap(), ["created"]);
    let read = rig.client.get(get("node", "b")).await.unwrap().into_inner().objects.remove(0);
    let mut mine: Value = serde_json::from_str(&read.json).unwrap();
    assert_eq!(mine["metadata"]["resourceVersion"], json!(read.resource_version));
    assert_eq!(rig.outcomes(request([node("b", "192.168.0.3")])).await.unwrap(), ["configured"]);
    mine["spec"]["bgp"]["ipv4Address"] = json!("192.168.0.4/24");
    let (code, message) = refusal(rig.client.apply(request([mine.to_string()])).await);
    assert_eq!(code, Code::Aborted);
    assert!(message.contains("read it again"), "{message}");

    let mode = |mode: Mode, object| ApplyRequest { mode: mode.into(), ..request([object]) };
    assert_eq!(
        refusal(rig.client.apply(mode(Mode::Create, node("b", "192.168.0.2"))).await).0,
        Code::AlreadyExists
    );
    assert_eq!(
        refusal(rig.client.apply(mode(Mode::Replace, node("c", "192.168.0.2"))).await).0,
        Code::NotFound
    );
    assert_eq!(rig.outcomes(mode(Mode::Create, node("c", "192.168.0.3"))).await.unwrap(), ["created"]);
    assert_eq!(rig.outcomes(mode(Mode::Replace, node("c", "192.168.0.4"))).await.unwrap(), ["configured"]);
}

#[tokio::test]
async fn get_finds_by_kind_name_namespace_and_label() {
    let mut rig = start([]).await;
    let labelled = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "NetworkSet",
        "metadata": {"name": "x", "namespace": "test", "labels": {"role": "db"}}, "spec": {"nets": ["10.0.0.0/8"]},
    });
    let plain = object("NetworkSet", "y", json!({"nets": ["10.0.0.0/8"]}));
    rig.client.apply(request([labelled.to_string(), plain])).await.unwrap();
    assert_eq!(rig.names(get("NETSETS", "")).await, ["y", "x"]);
    assert_eq!(rig.names(get("netset", "y")).await, ["y"]);
    let test = GetRequest { namespace: "test".into(), ..get("netset", "") };
    assert_eq!(rig.names(test).await, ["x"]);
    let by_label = GetRequest { selector: "role == 'db'".into(), ..get("netset", "") };
    assert_eq!(rig.names(by_label).await, ["x"]);
    assert_eq!(
        rig.names(get("tiers", "")).await,
        ["default", "kube-admin", "kube-baseline"],
        "the built-in ones"
    );
    assert_eq!(refusal(rig.client.get(get("netset", "z")).await).0, Code::NotFound);
    let (code, message) = refusal(rig.client.get(get("netsts", "")).await);
    assert!(code == Code::InvalidArgument && message.contains("did you mean NetworkSet"), "{message}");
}

#[tokio::test]
async fn tiers_that_are_needed_stay() {
    let mut rig = start([]).await;
    let tier = object("Tier", "security", json!({"order": 10}));
    let policy =
        object("GlobalNetworkPolicy", "security.p", json!({"tier": "security", "selector": "all()"}));
    rig.client.apply(request([policy, tier])).await.unwrap();
    let (code, message) = refusal(rig.client.delete(delete("tier", "security")).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("GlobalNetworkPolicy security.p"), "{message}");
    assert_eq!(refusal(rig.client.delete(delete("tier", "default")).await).0, Code::FailedPrecondition);
    rig.client.delete(delete("gnp", "security.p")).await.unwrap();
    rig.client.delete(delete("tier", "security")).await.unwrap();
    assert_eq!(refusal(rig.client.delete(delete("tier", "security")).await).0, Code::NotFound);
}

#[tokio::test]
async fn watch_shows_what_is_there_and_then_each_change() {
    let mut rig = start([]).await;
    rig.client.apply(request([node("b", "192.168.0.2")])).await.unwrap();
    let asked = WatchRequest { kind: "nodes".into(), ..WatchRequest::default() };
    let mut events = rig.client.watch(asked).await.unwrap().into_inner();
    let mut seen = Vec::new();
    for step in 0..5 {
        match step {
            2 => drop(
                rig.client
                    .apply(request([workload("b", "w", "10.0.0.9"), node("c", "192.168.0.3")]))
                    .await
                    .unwrap(),
            ),
            3 => drop(rig.client.apply(request([node("b", "192.168.0.9")])).await.unwrap()),
            4 => drop(rig.client.delete(delete("node", "c")).await.unwrap()),
            _ => {}
        }
        let event = next(&mut events).await.unwrap();
        seen.push((event.r#type(), event.object.map(|object| object.name).unwrap_or_default()));
    }
    let name = |name: &str| name.to_owned();
    assert_eq!(
        seen,
        [
            (Type::Added, name("b")),
            (Type::Synced, name("")),
            (Type::Added, name("c")),
            (Type::Modified, name("b")),
            (Type::Deleted, name("c")),
        ]
    );
    rig.agent.stop().await;
    assert!(
        events.message().await.is_ok_and(|end| end.is_none()),
        "a watch does not keep the agent from stopping"
    );
}

#[tokio::test]
async fn explain_turns_names_into_addresses() {
    let mut rig = start([]).await;
    let objects = [
        workload("a", "web", "10.0.0.1"),
        workload("a", "db", "10.0.0.2"),
        workload("b", "far", "10.0.1.1"),
        workload("b", "farther", "10.0.1.2"),
    ];
    rig.client.apply(request(objects)).await.unwrap();
    let ask = |from: &str, to: &str, port: &str| ExplainRequest {
        from: from.into(),
        to: to.into(),
        protocol: "tcp".into(),
        destination_port: port.into(),
        ..ExplainRequest::default()
    };
    let near =
        rig.client.explain(ask("default/web", "default/a-k8s-db-eth0", "http")).await.unwrap().into_inner();
    assert_eq!((near.from.as_str(), near.to.as_str()), ("default/web (10.0.0.1)", "default/db (10.0.0.2)"));
    assert_eq!(near.result.unwrap().verdict, "allow");
    assert_eq!(near.notes, Vec::<String>::new());
    let question = rig.fake.questions().remove(0);
    assert_eq!((question.source, question.destination), (vec![10, 0, 0, 1], vec![10, 0, 0, 2]));
    assert_eq!((question.protocol, question.destination_port), (6, 8080));

    let far = rig.client.explain(ask("default/web", "10.0.1.1", "443")).await.unwrap().into_inner();
    assert!(far.result.is_some());
    assert_eq!(far.to, "default/far (10.0.1.1)");
    assert_eq!(far.notes, ["the destination is on node b: its ingress policy is decided there"]);

    let neither =
        rig.client.explain(ask("default/farther", "default/far", "443")).await.unwrap().into_inner();
    assert!(neither.result.is_none());
    assert_eq!(neither.notes.last().unwrap(), "node a has no say: ask the agent of b");
    let hosts = rig.client.explain(ask("192.0.2.1", "192.0.2.2", "22")).await.unwrap().into_inner();
    assert!(hosts.result.is_some(), "host endpoints of this node may decide");
    let outside = rig.client.explain(ask("203.0.113.1", "default/web", "80")).await.unwrap().into_inner();
    assert_eq!(outside.notes, ["the source is no workload endpoint: no egress policy applies to it here"]);

    assert_eq!(
        refusal(rig.client.explain(ask("default/nobody", "default/web", "80")).await).0,
        Code::NotFound
    );
    let (code, message) = refusal(rig.client.explain(ask("default/web", "default/db", "ftp")).await);
    assert!(code == Code::InvalidArgument && message.contains("it has http (TCP)"), "{message}");
    for port in ["", "70000", "-1"] {
        let (code, message) = refusal(rig.client.explain(ask("default/web", "default/db", port)).await);
        assert_eq!(code, Code::InvalidArgument, "{port:?}: {message}");
    }
}

#[tokio::test]
async fn explain_knows_host_endpoints() {
    let mut rig = start([]).await;
    let host = |node: &str, address: &str| {
        let ports = json!([{"name": "metrics", "protocol": "TCP", "port": 9100}]);
        let spec = json!({"node": node, "interfaceName": "eth0", "expectedIPs": [address], "ports": ports});
        object("HostEndpoint", &format!("{node}-eth0"), spec)
    };
    let objects = [host("a", "192.0.2.10"), host("b", "192.0.2.11")];
    rig.client.apply(request(objects)).await.unwrap();
    let ask = |from: &str, to: &str| ExplainRequest {
        from: from.into(),
        to: to.into(),
        protocol: "tcp".into(),
        destination_port: "metrics".into(),
        ..ExplainRequest::default()
    };
    for to in ["a/a-eth0", "a-eth0", "192.0.2.10"] {
        let answer = rig.client.explain(ask("b/b-eth0", to)).await.unwrap().into_inner();
        assert_eq!((&*answer.from, &*answer.to), ("b-eth0 (192.0.2.11)", "a-eth0 (192.0.2.10)"));
        assert_eq!(answer.notes, ["the source is on node b: its egress policy is decided there"]);
        let question = rig.fake.questions().pop().unwrap();
        assert_eq!((question.destination, question.destination_port), (vec![192, 0, 2, 10], 9100));
    }
    let (code, message) = refusal(rig.client.explain(ask("a/b-eth0", "a-eth0")).await);
    assert!(code == Code::NotFound && message.contains("no host endpoint a/b-eth0"), "{message}");
}

#[tokio::test]
async fn status_shows_components_and_endpoints() {
    let mut rig = start([]).await;
    let apply = ApplyRequest { wait: true, ..request([workload("a", "web", "10.0.0.1")]) };
    rig.client.apply(apply).await.unwrap();
    let before = rig.client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(before.node, "a");
    assert_eq!(before.dataplane.unwrap().version, "fake");
    assert!(before.sent_generation > 0 && before.sent_generation == before.adopted_generation);
    assert_eq!(before.endpoints[0].addresses, ["10.0.0.1"]);
    assert_eq!(
        (before.endpoints[0].namespace.as_str(), before.endpoints[0].name.as_str()),
        ("default", "web")
    );
    assert_eq!(before.endpoints[0].state, "down");
    assert_eq!(before.components.iter().filter(|component| component.healthy).count(), 5);

    let id = WorkloadEndpointId {
        orchestrator: "k8s".into(),
        workload: "default/web".into(),
        endpoint: "eth0".into(),
    };
    rig.fake.say_endpoint(EndpointStatus { id: Some(id), state: State::Up.into(), reason: String::new() });
    // A later transaction is answered on the same stream, after the state.
    let apply = ApplyRequest { wait: true, ..request([node("b", "192.168.0.2")]) };
    rig.client.apply(apply).await.unwrap();
    let after = rig.client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(after.endpoints[0].state, "up");

    rig.fake.kill().await;
    let gone = rig.client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert!(gone.dataplane.is_none());
}

#[tokio::test]
async fn health_is_served() {
    let rig = start([]).await;
    let channel = margay_api::unix::connect(&rig.agent.socket).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    for service in ["", "margay.control.v1.Control"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.unwrap().into_inner().status;
        assert_eq!(
            status,
            i32::from(tonic_health::pb::health_check_response::ServingStatus::Serving),
            "{service:?}"
        );
    }
}

#[tokio::test]
async fn kubernetes_objects_are_applied_and_got_as_they_are() {
    let mut rig = start([]).await;
    let exported = |kind: &str, version: &str, name: &str, rest: Value| {
        // As `kubectl get -o json` has it: with what its server wrote.
        let mut object = json!({
            "apiVersion": version, "kind": kind,
            "metadata": {
                "name": name, "namespace": "shop", "uid": "0b4d", "resourceVersion": "918273",
                "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [],
            },
        });
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    let spec = json!({"nodeName": "a", "containers": [{"name": "c", "image": "i"}], "priority": 0});
    let pod = exported(
        "Pod",
        "v1",
        "web",
        json!({"spec": spec, "status": {"podIP": "10.0.0.1", "hostIP": "192.168.0.1"}}),
    );
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []});
    let policy = exported("NetworkPolicy", "networking.k8s.io/v1", "closed", json!({"spec": spec}));
    let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let all = [node("a", "192.168.0.1"), shop.to_string(), pod.to_string(), policy.to_string()];
    let request = ApplyRequest { wait: true, ..request(all) };
    let created = rig.client.apply(request.clone()).await.unwrap().into_inner();
    assert!(created.applied.iter().all(|applied| applied.outcome == "created"), "{created:?}");
    let again = rig.client.apply(request).await.unwrap().into_inner();
    assert!(
        again.applied.iter().all(|applied| applied.outcome == "unchanged"),
        "another store's version is none"
    );

    let got = rig.client.get(get("pods", "web")).await.unwrap().into_inner().objects.remove(0);
    assert_eq!((got.kind.as_str(), got.namespace.as_str()), ("Pod", "shop"));
    let got: Value = serde_json::from_str(&got.json).unwrap();
    assert_eq!((&got["spec"], &got["status"]), (&pod["spec"], &pod["status"]));
    assert_eq!(got["metadata"].get("uid"), None, "the other store's name for it is not ours");
    assert!(rig.names(get("networkpolicies", "")).await.is_empty(), "that is Calico's kind");
    let found =
        rig.client.get(get("networkpolicies.networking.k8s.io", "")).await.unwrap().into_inner().objects;
    let written: Value = serde_json::from_str(&found[0].json).unwrap();
    assert_eq!((&written["kind"], &written["spec"]), (&policy["kind"], &policy["spec"]));

    let mut changes = rig.fake.transaction().await.changes;
    while let Some(more) = rig.fake.pending() {
        changes.extend(more.changes);
    }
    let bound = changes.iter().any(|change| match change {
        Change::WorkloadEndpoint(w) => {
            w.display_name == "shop/web" && w.tiers[0].ingress_policies[0].name == "knp.default.closed"
        }
        _ => false,
    });
    assert!(bound, "{changes:?}");

    let question = ExplainRequest {
        from: "10.9.9.9".into(),
        to: "shop/web".into(),
        destination_port: "80".into(),
        ..ExplainRequest::default()
    };
    let answer = rig.client.explain(question).await.unwrap().into_inner();
    assert_eq!(
        (answer.to.as_str(), rig.fake.questions()[0].destination.as_slice()),
        ("shop/web (10.0.0.1)", &[10, 0, 0, 1][..])
    );

    let gone = DeleteRequest { namespace: "shop".into(), ..delete("knp", "closed") };
    rig.client.delete(gone).await.unwrap();
    assert!(rig.names(get("knp", "")).await.is_empty());
}

#[tokio::test]
async fn a_tier_with_staged_policies_is_not_free() {
    let mut rig = start([]).await;
    let staged = object("StagedGlobalNetworkPolicy", "later", json!({"tier": "security"}));
    let (code, message) = refusal(rig.outcomes(request([staged.clone()])).await);
    assert!(code == Code::InvalidArgument && message.contains("there is no tier \"security\""), "{message}");
    rig.outcomes(request([object("Tier", "security", json!({})), staged])).await.unwrap();
    let (code, message) = refusal(rig.client.delete(delete("tier", "security")).await);
    assert!(
        code == Code::FailedPrecondition && message.contains("StagedGlobalNetworkPolicy later"),
        "{message}"
    );
}

#[tokio::test]
async fn what_is_logged_is_changed_while_processes_run() {
    let mut rig = start([]).await;
    let set =
        |process: Process, filter: &str| SetLogRequest { process: process.into(), filter: filter.into() };
    let shown = async |rig: &mut Rig| {
        let config = rig.client.get_config(GetConfigRequest {}).await.unwrap().into_inner();
        let log = config.agent.into_iter().find(|setting| setting.name == "log").unwrap();
        (log.value.clone(), log.origin(), log.needs_restart)
    };
    let of_agent = rig.client.set_log(set(Process::Agent, "info,margay_agent::sync=debug")).await.unwrap();
    assert_eq!(of_agent.into_inner().filter, "info,margay_agent::sync=debug");
    assert_eq!(shown(&mut rig).await, ("info,margay_agent::sync=debug".into(), Origin::RunTime, false));
    let of_dataplane = rig.client.set_log(set(Process::Dataplane, "warn")).await.unwrap();
    assert_eq!(of_dataplane.into_inner().filter, "warn");
    for process in [Process::Agent, Process::Dataplane] {
        let (code, message) = refusal(rig.client.set_log(set(process, "loud")).await);
        assert_eq!(code, Code::InvalidArgument);
        assert!(message.starts_with("filter: \"loud\" is no level: write off"), "{message}");
    }
    let (code, message) = refusal(rig.client.set_log(set(Process::Unspecified, "info")).await);
    assert_eq!((code, message.starts_with("process: ")), (Code::InvalidArgument, true));
    assert_eq!(rig.client.set_log(set(Process::Agent, "")).await.unwrap().into_inner().filter, "info");
    assert_eq!(shown(&mut rig).await.0, "info");
}
