//! The CNI plugin's commands, answered by a running agent: what a container waits for, and what stays of it.

mod rig;

use margay_agent::datastore::Memory;
use margay_api::{
    control::v1::{
        ApplyRequest, CniAddRequest, CniAddResponse, CniAttachment, CniCheckRequest, CniDelRequest,
        CniGcRequest, CniStatusRequest, GetRequest, cni_status_response::State as Readiness,
        control_client::ControlClient,
    },
    dataplane::v1::{EndpointStatus, WorkloadEndpoint, change::Change, endpoint_status::State},
};
use rig::{Fake, Running, Verdict};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tonic::{Code, Status, transport::Channel};

struct Rig {
    _dir: tempfile::TempDir,
    fake: Fake,
    _agent: Running,
    client: ControlClient<Channel>,
}

async fn start(verdicts: impl IntoIterator<Item = Verdict>) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let dataplane = dir.path().join("dataplane.sock");
    let mut fake = Fake::start(&dataplane, 0, verdicts);
    let agent =
        Running::start("a", Arc::new(Memory::new()), &dir.path().join("agent.sock"), &dataplane).await;
    let client = agent.client().await;
    // The empty state: what follows is what a test does.
    fake.transaction().await;
    Rig { _dir: dir, fake, _agent: agent, client }
}

fn attachment(container: &str) -> CniAttachment {
    CniAttachment { network: "net".into(), container_id: container.into(), interface: "eth0".into() }
}

fn request(container: &str, pod: &str, address: &str) -> CniAddRequest {
    CniAddRequest {
        attachment: Some(attachment(container)),
        pod_namespace: if pod.is_empty() { "" } else { "shop" }.into(),
        pod_name: pod.into(),
        host_interface: format!("cali-{container}"),
        mac: "02:00:00:00:00:01".into(),
        addresses: vec![address.into()],
        ..CniAddRequest::default()
    }
}

fn del(container: &str) -> CniDelRequest {
    CniDelRequest { attachment: Some(attachment(container)) }
}

impl Rig {
    fn add(&self, request: CniAddRequest) -> JoinHandle<Result<CniAddResponse, Status>> {
        let mut client = self.client.clone();
        tokio::spawn(async move { client.cni_add(request).await.map(tonic::Response::into_inner) })
    }

    /// What the dataplane is told next of the endpoint with this link.
    async fn told(&mut self, link: &str) -> WorkloadEndpoint {
        loop {
            let changes = self.fake.transaction().await.changes;
            let endpoint = changes.into_iter().find_map(|change| match change {
                Change::WorkloadEndpoint(endpoint) if endpoint.interface_name == link => Some(endpoint),
                _ => None,
            });
            if let Some(endpoint) = endpoint {
                return endpoint;
            }
        }
    }

    fn say(&self, endpoint: &WorkloadEndpoint, state: State) {
        let id = endpoint.id.clone();
        self.fake.say_endpoint(EndpointStatus { id, state: state.into(), ..EndpointStatus::default() });
    }

    /// Adds it, with a dataplane that serves it.
    async fn added(&mut self, request: CniAddRequest) -> (CniAddResponse, WorkloadEndpoint) {
        let link = request.host_interface.clone();
        let adding = self.add(request);
        let endpoint = self.told(&link).await;
        self.say(&endpoint, State::Up);
        (adding.await.unwrap().unwrap(), endpoint)
    }

    async fn apply(&mut self, object: Value) {
        let request = ApplyRequest { objects: vec![object.to_string()], ..ApplyRequest::default() };
        self.client.apply(request).await.unwrap();
    }

    async fn names(&mut self, kind: &str) -> Vec<String> {
        let request = GetRequest { kind: kind.into(), ..GetRequest::default() };
        let objects = self.client.get(request).await.unwrap().into_inner().objects;
        objects.into_iter().map(|object| format!("{}/{}", object.namespace, object.name)).collect()
    }
}

fn pod(app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "labels": {"app": app}},
           "spec": {"nodeName": "a", "containers": []}})
}

#[tokio::test]
async fn add_returns_when_the_link_is_served_and_not_before() {
    let mut rig = start([]).await;
    let adding = rig.add(request("c1", "web", "10.0.0.1"));
    let endpoint = rig.told("cali-c1").await;
    assert_eq!((endpoint.display_name.as_str(), endpoint.interface_name.as_str()), ("shop/web", "cali-c1"));
    rig.say(&endpoint, State::Down);
    // The agent has heard that, by the time it answers this.
    rig.client.cni_status(CniStatusRequest::default()).await.unwrap();
    assert!(!adding.is_finished(), "policy is adopted, and nobody serves the link");
    rig.say(&endpoint, State::Up);
    let added = adding.await.unwrap().unwrap();
    assert_eq!(added.addresses, ["10.0.0.1"]);
    assert!(added.adopted_generation > 0);
    // The same again is what is there.
    let again = rig.client.cni_add(request("c1", "web", "10.0.0.1")).await.unwrap().into_inner();
    assert_eq!(again, added);

    let check = |addresses: &[&str]| CniCheckRequest {
        attachment: Some(attachment("c1")),
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
    };
    rig.client.cni_check(check(&["10.0.0.1"])).await.unwrap();
    let other = rig.client.cni_check(check(&["10.0.0.2"])).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition, "{other}");
    for _ in 0..2 {
        rig.client.cni_del(del("c1")).await.unwrap();
    }
    assert_eq!(rig.names("wep").await, [""; 0]);
    assert_eq!(rig.client.cni_check(check(&[])).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_is_not_in_force_in_time_is_undone() {
    let mut rig = start([]).await;
    let adding = rig.add(CniAddRequest { timeout_seconds: 1, ..request("c1", "web", "10.0.0.1") });
    rig.told("cali-c1").await;
    let late = adding.await.unwrap().unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert!(late.message().starts_with("net/c1/eth0: policy is not in force after 1 s"), "{late}");
    assert_eq!(rig.names("wep").await, [""; 0]);
}

#[tokio::test]
async fn what_the_dataplane_refuses_is_undone() {
    let mut rig = start([Verdict::Adopt, Verdict::Refuse("does not fit")]).await;
    let refused = rig.add(request("c1", "web", "10.0.0.1")).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("does not fit"), "{refused}");
    assert_eq!(rig.names("wep").await, [""; 0]);
}

#[tokio::test]
async fn an_endpoint_follows_its_pod() {
    let mut rig = start([]).await;
    rig.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})).await;
    rig.apply(pod("web")).await;
    let (_, endpoint) = rig.added(request("c1", "web", "10.0.0.1")).await;
    assert_eq!(endpoint.profile_ids, ["kns.shop", "ksa.shop.default"]);
    let policy = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": {"selector": "app == 'db'"}});
    rig.apply(policy).await;
    rig.apply(pod("db")).await;
    let endpoint = rig.told("cali-c1").await;
    assert_eq!(endpoint.tiers.len(), 1, "it is selected by its new label");
    assert_eq!(endpoint.interface_name, "cali-c1", "the link is still its own");
    // With an address of its own it would be an endpoint by itself: there is one.
    let mut running = pod("db");
    running["status"] = json!({"podIPs": [{"ip": "10.0.0.1"}], "phase": "Running"});
    rig.apply(running).await;
    let status =
        rig.client.get_status(margay_api::control::v1::GetStatusRequest {}).await.unwrap().into_inner();
    let unhealthy: Vec<_> = status.components.iter().filter(|component| !component.healthy).collect();
    assert!(unhealthy.is_empty(), "{unhealthy:?}");
    assert_eq!(status.endpoints.len(), 1);
}

#[tokio::test]
async fn a_new_sandbox_takes_over_and_the_old_ones_del_finds_nothing() {
    let mut rig = start([]).await;
    rig.added(request("old", "web", "10.0.0.1")).await;
    let (_, endpoint) = rig.added(request("new", "web", "10.0.0.2")).await;
    assert_eq!(endpoint.interface_name, "cali-new");
    rig.client.cni_del(del("old")).await.unwrap();
    assert_eq!(rig.names("wep").await, ["shop/a-k8s-web-eth0"]);
    rig.client.cni_del(del("new")).await.unwrap();
    assert_eq!(rig.names("wep").await, [""; 0]);
}

#[tokio::test]
async fn what_is_no_pod_gets_its_networks_profile_once() {
    let mut rig = start([]).await;
    let (_, endpoint) = rig.added(request("c1", "", "10.0.0.1")).await;
    assert_eq!(endpoint.profile_ids, ["net"]);
    rig.added(request("c2", "", "10.0.0.2")).await;
    assert_eq!(rig.names("profile").await, ["/net"]);
    assert_eq!(rig.names("wep").await, ["default/a-cni-c1-eth0", "default/a-cni-c2-eth0"]);
}

#[tokio::test]
async fn gc_forgets_what_is_not_valid_and_nothing_else() {
    let mut rig = start([]).await;
    let other = json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"name": "by-hand", "namespace": "shop"}, "spec": {"node": "a", "interfaceName": "cali1"}});
    rig.apply(other).await;
    for (at, container) in ["c1", "c2", "c3"].into_iter().enumerate() {
        // The one applied before may come along.
        rig.added(request(container, container, &format!("10.0.0.{at}"))).await;
    }
    let mut elsewhere = request("c4", "c4", "10.0.0.9");
    elsewhere.attachment.as_mut().unwrap().network = "other".into();
    rig.added(elsewhere).await;
    let request =
        CniGcRequest { network: "net".into(), valid: vec![attachment("c2"), attachment("unknown")] };
    let removed = rig.client.cni_gc(request).await.unwrap().into_inner().removed;
    assert_eq!(removed, [attachment("c1"), attachment("c3")]);
    assert_eq!(rig.names("wep").await, ["shop/a-k8s-c2-eth0", "shop/a-k8s-c4-eth0", "shop/by-hand"]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_its_field() {
    let mut rig = start([]).await;
    let sound = || request("c1", "web", "10.0.0.1");
    let half = CniAddRequest { pod_namespace: String::new(), ..sound() };
    for (request, says) in [
        (CniAddRequest { attachment: None, ..sound() }, "attachment.network"),
        (CniAddRequest { node: "b".into(), ..sound() }, "nodename: \"b\" is not this node, which is \"a\""),
        (CniAddRequest { addresses: vec!["10.0.0.1/24".into()], ..sound() }, "addresses: \"10.0.0.1/24\""),
        (CniAddRequest { addresses: vec![], ..sound() }, "addresses: none"),
        (CniAddRequest { host_interface: "no interface".into(), ..sound() }, "spec.interfaceName"),
        (CniAddRequest { mac: "x".into(), ..sound() }, "spec.mac"),
        (half, "both a namespace and a name"),
    ] {
        let error = rig.client.cni_add(request).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(says), "{says}: {error}");
    }
    assert_eq!(rig.names("wep").await, [""; 0]);
}

#[tokio::test]
async fn status_says_what_is_away() {
    let mut rig = start([]).await;
    let ready = rig.client.cni_status(CniStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!((ready.state(), ready.reason.as_str()), (Readiness::Ready, ""));
    rig.fake.kill().await;
    loop {
        let status = rig.client.cni_status(CniStatusRequest::default()).await.unwrap().into_inner();
        if status.state() == Readiness::Down {
            assert!(status.reason.starts_with("dataplane: "), "{}", status.reason);
            break;
        }
    }
}
