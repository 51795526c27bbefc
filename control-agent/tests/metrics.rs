//! What a scrape sees of the agent, read by Prometheus' own tool.

#[path = "../../api/tests/promtool/mod.rs"]
mod promtool;
mod rig;

use margay_agent::{control::Scraped, datastore::Memory};
use margay_api::{
    control::v1::ApplyRequest,
    metrics::{Format, Metrics},
};
use promtool::lint;
use rig::{Fake, Running, until};
use std::sync::Arc;

#[tokio::test]
async fn the_way_of_a_change_can_be_followed_and_promtool_finds_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let dataplane = dir.path().join("dataplane.sock");
    let _fake = Fake::start(&dataplane, 0, []);
    let running =
        Running::start("a", Arc::new(Memory::new()), &dir.path().join("agent.sock"), &dataplane).await;
    let mut progress = running.agent.link.progress();
    let policy = r#"{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkSet","metadata":{"name":"n"},"spec":{"nets":["10.0.0.0/8"]}}"#;
    let apply = ApplyRequest { objects: vec![policy.to_owned()], ..ApplyRequest::default() };
    running.client().await.apply(apply).await.unwrap();
    let adopted =
        |progress: &margay_agent::sync::Progress| progress.adopted_revision.is_some_and(|of| of > 0);
    let adopted = until(&mut progress, adopted).await;
    let (revision, sent) = (adopted.adopted_revision.unwrap(), adopted.sent_generation);

    let scraped = Scraped(running.agent.clone());
    assert_eq!(scraped.ready().await, Ok(()));
    let text = scraped.families().await.unwrap().text(Format::Prometheus);
    lint(&text);
    for line in [
        "margay_build_info{component=\"agent\",version=\"0.1.0\"} 1".to_owned(),
        "margay_store_connected 1".to_owned(),
        "margay_agent_component_healthy{component=\"store\"} 1".to_owned(),
        format!("margay_store_adopted_revision {revision}"),
        format!("margay_policy_generation{{stage=\"adopted\"}} {sent}"),
        "margay_agent_dataplane_connected 1".to_owned(),
        "margay_agent_dataplane_refuses 0".to_owned(),
        "margay_agent_endpoints{state=\"down\"} 0".to_owned(),
        "margay_agent_problems 0".to_owned(),
    ] {
        assert!(text.lines().any(|is| is == line), "{line} is not in\n{text}");
    }
    let counted = text.lines().find_map(|line| line.strip_prefix("margay_agent_calculation_seconds_count "));
    assert!(counted.unwrap().parse::<u64>().unwrap() > 0);
}
