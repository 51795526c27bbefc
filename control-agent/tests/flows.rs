//! What the agent makes of what the dataplane tells of flows: named, kept, followed, put together.
#![allow(missing_docs)]

mod rig;

use margay_agent::{control::Scraped, datastore::Memory};
use margay_api::{
    control::v1::{
        ApplyRequest, FlowFilter, ObserveFlowsRequest, SummarizeFlowsRequest, control_client::ControlClient,
        summarize_flows_request::By,
    },
    dataplane::v1::{FlowRecord, FlowTuple, flow_record::Event},
    metrics::{Format, Metrics as _},
};
use rig::{Fake, Running};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tonic::{Code, transport::Channel};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn record(event: Event, sport: u32, verdict: &str) -> FlowRecord {
    let tuple = |source: [u8; 4], source_port, destination: [u8; 4], destination_port| FlowTuple {
        source: source.into(),
        source_port,
        destination: destination.into(),
        destination_port,
    };
    FlowRecord {
        event: event.into(),
        protocol: 6,
        original: Some(tuple([10, 65, 0, 1], sport, [10, 96, 0, 1], 80)),
        reply: (verdict == "allow").then(|| tuple([203, 0, 113, 5], 8080, [10, 65, 0, 1], sport)),
        last_unix_nanos: now(),
        packets: 2,
        bytes: 100,
        verdict: verdict.into(),
        reason: if verdict == "allow" { "" } else { "policy-denied" }.into(),
        ..FlowRecord::default()
    }
}

/// Who opens flows, and a set that they go to.
async fn furnish(client: &mut ControlClient<Channel>) {
    let workload = r#"{"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"role": "web"}},
        "spec": {"node": "a", "orchestrator": "lab", "workload": "web", "endpoint": "eth0", "interfaceName": "cali1", "ipNetworks": ["10.65.0.1/32"]}}"#;
    let set = r#"{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": "partners"}, "spec": {"nets": ["203.0.113.0/24"]}}"#;
    let objects = vec![workload.to_owned(), set.to_owned()];
    client.apply(ApplyRequest { objects, wait: true, ..Default::default() }).await.unwrap();
}

fn all(follow: bool) -> ObserveFlowsRequest {
    ObserveFlowsRequest { follow, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_are_named_kept_followed_and_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, dataplane) = (folder.path().join("agent.sock"), folder.path().join("dataplane.sock"));
    let fake = Fake::start(&dataplane, 0, []);
    let agent = Running::start("a", Arc::new(Memory::new()), &socket, &dataplane).await;
    let mut client = agent.client().await;
    furnish(&mut client).await;

    let mut followed = client.observe_flows(all(true)).await.unwrap().into_inner();
    assert_eq!(followed.message().await.unwrap().unwrap().flows, [], "nothing yet, and said so");
    let records = vec![
        record(Event::Began, 1, "allow"),
        record(Event::Ended, 1, "allow"),
        record(Event::Refused, 2, "deny"),
    ];
    fake.tell_flows(records, 7).await;
    let told = followed.message().await.unwrap().unwrap();
    assert_eq!((told.flows.len(), told.lost, told.missed), (3, 7, 0));
    let source = told.flows[0].source.clone().unwrap();
    assert_eq!((&*source.kind, &*source.namespace, &*source.name), ("workload", "shop", "web"));
    assert_eq!(source.labels["role"], "web");
    let destination = told.flows[0].destination.clone().unwrap();
    assert_eq!(
        (&*destination.kind, &*destination.name),
        ("global network set", "partners"),
        "after translation"
    );
    assert_eq!(told.flows[2].destination, None, "what was refused was not translated");

    // Whoever asks later is told the same, as far as it is asked for.
    let mut ports = vec![];
    let filters = [
        FlowFilter::default(),
        FlowFilter { verdict: "deny".into(), ..Default::default() },
        FlowFilter { to: "partners".into(), ..Default::default() },
        FlowFilter { from: "shop/db".into(), ..Default::default() },
    ];
    for filter in filters {
        let request = ObserveFlowsRequest { filter: Some(filter), ..all(false) };
        let mut observed = client.observe_flows(request).await.unwrap().into_inner();
        let kept = observed.message().await.unwrap().unwrap();
        ports.push(kept.flows.len());
        assert_eq!(observed.message().await.unwrap(), None);
    }
    assert_eq!(ports, [3, 1, 2, 0]);
    let last = ObserveFlowsRequest { last: 1, ..all(false) };
    let mut observed = client.observe_flows(last).await.unwrap().into_inner();
    assert_eq!(observed.message().await.unwrap().unwrap().flows, told.flows[2..]);
    let late = ObserveFlowsRequest { since_unix_nanos: now(), ..all(false) };
    let mut observed = client.observe_flows(late).await.unwrap().into_inner();
    assert_eq!(observed.message().await.unwrap().unwrap().flows, []);

    let request = SummarizeFlowsRequest { seconds: 600, ..Default::default() };
    let summary = client.summarize_flows(request).await.unwrap().into_inner();
    let [passed, refused] = &summary.groups[..] else { panic!("{summary:#?}") };
    assert_eq!((&*passed.source, &*passed.destination, passed.port), ("shop/web", "partners", 80));
    assert_eq!((passed.began, passed.ended, passed.bytes, passed.refused), (1, 1, 200, 0));
    assert_eq!((&*refused.destination, refused.refused, &*refused.reason), ("10.96.0.1", 2, "policy-denied"));
    assert_eq!((summary.lost, summary.beyond), (7, 0));
    let metrics = Scraped(agent.agent.clone()).families().await.unwrap().text(Format::Prometheus);
    let counted = ["margay_flows_events_total 3", "margay_agent_flows_events_missed_total 7"];
    for line in counted.iter().chain(&["margay_flows_events_lost_total{cause=\"file\"} 0"]) {
        assert!(metrics.contains(&format!("{line}\n")), "{line} is not in {metrics}");
    }
    let request = SummarizeFlowsRequest { by: By::Source.into(), limit: 1, ..Default::default() };
    assert_eq!(client.summarize_flows(request).await.unwrap().into_inner().groups.len(), 1);

    let wrong = FlowFilter { verdict: "perhaps".into(), ..Default::default() };
    let request = ObserveFlowsRequest { filter: Some(wrong), ..all(false) };
    let refused = client.observe_flows(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("verdict: \"perhaps\""), "{}", refused.message());

    // A new stream's losses come on top.
    fake.kill().await;
    let fake = Fake::start(&dataplane, 0, []);
    fake.tell_flows(vec![record(Event::Began, 3, "allow")], 5).await;
    let told = followed.message().await.unwrap().unwrap();
    assert_eq!((told.flows.len(), told.lost), (1, 12));
    agent.stop().await;
    assert_eq!(followed.message().await.ok().flatten(), None, "it ends with the agent");
}
