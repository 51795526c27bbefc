//! The process and its API: a stream's rules, adoption, refusal, takeover, shutdown.
#![allow(missing_docs)]

mod build;
mod process;

use build::*;
use margay_api::dataplane::v1::{self as pb, sync_response::Response};
use margay_api::unix;
use process::{Agent, Process};
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn an_agent_is_greeted_obeyed_refused_and_superseded() {
    let process = Process::start(&["--frames", "1024"]);
    let mut client = process.client().await;
    let mut agent = Agent::connect(&mut client).await;
    let Response::Hello(hello) = agent.next().await.unwrap() else { panic!("greeted first") };
    assert_eq!((hello.adopted_generation, hello.workers), (0, 1));

    agent.commit(5, standard_changes()).await;
    assert_eq!(agent.next().await.unwrap(), Response::Adopted(pb::Adopted { generation: 5 }));
    let status = client.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    assert!(status.in_sync && status.agent_connected);
    assert_eq!((status.adopted_generation, status.workload_endpoints, status.policies), (5, 3, 1));

    let mut bad = endpoint(4, &[]);
    bad.mac = vec![1];
    agent.commit(6, vec![change(pb::change::Change::WorkloadEndpoint(bad))]).await;
    let Response::Refused(refused) = agent.next().await.unwrap() else { panic!("refused") };
    assert_eq!((refused.generation, refused.errors[0].field.as_str()), (6, "mac"));
    let status = client.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.adopted_generation, status.last_refused), (5, Some(refused)));

    // What is not there yet is said of each endpoint.
    let interfaces =
        client.list_interfaces(pb::ListInterfacesRequest {}).await.unwrap().into_inner().interfaces;
    assert_eq!(interfaces.len(), 3);
    assert!(interfaces.iter().all(|i| !i.up && i.reason.contains("no such interface")), "{interfaces:?}");

    let explain = pb::ExplainRequest {
        source: vec![10, 65, 0, 1],
        destination: vec![10, 65, 0, 3],
        protocol: 6,
        destination_port: 81,
        ..Default::default()
    };
    let explained = client.explain(explain).await.unwrap().into_inner();
    assert_eq!((explained.verdict.as_str(), explained.egress.unwrap().verdict.as_str()), ("deny", "allow"));
    let ingress = explained.ingress.unwrap();
    assert_eq!((ingress.verdict.as_str(), ingress.tier.as_str(), ingress.rule), ("deny", "default", -1));

    // A newer agent takes over; what the older one said stays until the newer one is in sync.
    let mut newer = Agent::connect(&mut client).await;
    let Response::Hello(hello) = newer.next().await.unwrap() else { panic!("greeted first") };
    assert_eq!(hello.adopted_generation, 5);
    assert_eq!(agent.next().await.unwrap_err().code(), Code::Aborted);
    newer.commit(7, vec![]).await;
    assert_eq!(newer.next().await.unwrap(), Response::Adopted(pb::Adopted { generation: 7 }));
    let status = client.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.workload_endpoints, 0);
}

#[tokio::test]
async fn a_stream_that_skips_or_goes_back_is_ended() {
    let process = Process::start(&["--frames", "1024"]);
    let mut client = process.client().await;
    let mut agent = Agent::connect(&mut client).await;
    agent.next().await.unwrap();
    agent.sequence = 1;
    agent.commit(1, vec![]).await;
    assert_eq!(agent.next().await.unwrap_err().code(), Code::DataLoss);

    let mut agent = Agent::connect(&mut client).await;
    agent.next().await.unwrap();
    agent.commit(3, vec![]).await;
    agent.next().await.unwrap();
    agent.commit(3, vec![]).await;
    assert_eq!(agent.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn flows_are_listed_counted_and_flushed_and_a_wrong_filter_is_pointed_at() {
    let process = Process::start(&["--frames", "1024"]);
    let mut client = process.client().await;
    let mut agent = Agent::connect(&mut client).await;
    agent.next().await.unwrap();
    agent.commit(1, standard_changes()).await;
    agent.next().await.unwrap();

    let list = |filter: &str| pb::ListFlowsRequest { filter: filter.into() };
    let mut stream = client.list_flows(list("endpoint default/w1 and tcp")).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap(), None, "workers have looked, and there is nothing");
    let wrong = client.list_flows(list("tcp and prot 80")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().starts_with("filter: column 9, \"prot\": "), "{}", wrong.message());
    let missing = client.list_flows(list("endpoint default/w9")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);

    for by in [0, 1] {
        let request = pb::CountFlowsRequest { by, ..Default::default() };
        assert_eq!(client.count_flows(request).await.unwrap().into_inner().flows, 0);
    }
    let unknown = pb::CountFlowsRequest { by: 99, ..Default::default() };
    assert_eq!(client.count_flows(unknown).await.unwrap_err().code(), Code::InvalidArgument);

    let flush = |filter: &str, all| pb::FlushFlowsRequest { filter: filter.into(), all };
    for (filter, all) in [("", true), ("udp", false)] {
        assert_eq!(client.flush_flows(flush(filter, all)).await.unwrap().into_inner().flushed, 0);
    }
    for (filter, all) in [("", false), (" ", false), ("udp", true)] {
        let refused = client.flush_flows(flush(filter, all)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{filter:?} {all}");
    }
}

#[tokio::test]
async fn flows_are_told_to_the_newest_reader() {
    let process = Process::start(&["--frames", "1024"]);
    let mut client = process.client().await;
    let mut first = client.log_flows(pb::LogFlowsRequest {}).await.unwrap().into_inner();
    let nothing = pb::LogFlowsResponse::default();
    assert_eq!(first.message().await.unwrap(), Some(nothing.clone()), "all is set");
    let mut second = client.log_flows(pb::LogFlowsRequest {}).await.unwrap().into_inner();
    assert_eq!(first.message().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(second.message().await.unwrap(), Some(nothing.clone()));
    drop(second);
    // Whoever comes after a reader that went away is told as well.
    let mut third = client.log_flows(pb::LogFlowsRequest {}).await.unwrap().into_inner();
    assert_eq!(third.message().await.unwrap(), Some(nothing));
}

#[tokio::test]
async fn health_says_serving_and_the_socket_goes_with_the_process() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut process = Process::start(&["--frames", "1024"]);
    process.client().await;
    let mode = std::fs::metadata(&process.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let channel = unix::connect(&process.socket).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let service = "margay.dataplane.v1.Dataplane".to_owned();
    let answer = health.check(tonic_health::pb::HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);

    let pid = nix::unistd::Pid::from_raw(process.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = process.child.try_wait().unwrap() {
            break status;
        }
        assert!(tokio::time::Instant::now() < deadline, "it ends while a client is connected");
        tokio::task::yield_now().await;
    };
    assert!(status.success());
    assert!(!process.socket.exists());
}

/// A thread's name, and the processors that it may use.
fn processors(of: &std::path::Path) -> (String, String) {
    let status = std::fs::read_to_string(of.join("status")).unwrap_or_default();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    (line("Name:"), line("Cpus_allowed_list:"))
}

#[tokio::test]
async fn whatever_is_no_worker_leaves_workers_their_cores() {
    let (_, ours) = processors(std::path::Path::new("/proc/self"));
    if ours.parse::<u16>().is_ok() {
        eprintln!("SKIPPED: there is but one processor, {ours}");
        return;
    }
    let core = ours.split([',', '-']).next_back().expect("a list names one at least").to_owned();
    let process = Process::start(&["--frames", "1024", "--cores", &core]);
    process.client().await;
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.child.id())).unwrap();
    let threads: Vec<_> = threads.map(|thread| processors(&thread.unwrap().path())).collect();
    let (workers, others): (Vec<_>, Vec<_>) =
        threads.iter().partition(|(name, _)| name.starts_with("worker-"));
    assert!(workers.iter().all(|(_, allowed)| *allowed == core) && workers.len() == 1, "{threads:?}");
    assert!(others.len() > 1, "{threads:?}");
    let apart = |allowed: &String| !allowed.is_empty() && !allowed.split([',', '-']).any(|cpu| cpu == core);
    assert!(others.iter().all(|(_, allowed)| apart(allowed)), "{threads:?}");
}

#[tokio::test]
async fn what_is_logged_is_changed_while_it_runs() {
    let process = Process::start(&["--frames", "1024"]);
    let mut client = process.client().await;
    let set = |filter: &str| pb::SetLogRequest { filter: filter.into() };
    assert_eq!(client.set_log(set("info")).await.unwrap().into_inner().filter, "info");
    let settings = client.get_settings(pb::GetSettingsRequest {}).await.unwrap().into_inner().settings;
    let log = settings.iter().find(|setting| setting.name == "log").unwrap();
    let now = (log.value.as_str(), log.origin(), log.needs_restart);
    assert_eq!(now, ("info", pb::setting::Origin::RunTime, false));
    let refused = client.set_log(set("margay_dataplane")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("write off, error, warn"), "{}", refused.message());
    assert_eq!(client.set_log(set("")).await.unwrap().into_inner().filter, "warn");
}
