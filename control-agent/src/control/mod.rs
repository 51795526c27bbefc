//! The gRPC server: what `margayctl`, and agents that share this one's store, talk to.

mod addresses;
mod apply;
mod ask;
mod bgp;
mod cluster;
mod cni;
mod config;
mod explain;
mod failure;
mod flows;
mod log;
mod lost;
mod metrics;
mod read;
mod relay;
mod service;
mod status;

pub use metrics::{Scraped, ScrapedRelay};
pub use relay::{Relaying, serve as serve_relay};

use cluster::Cluster;

use crate::{
    access::{Audit, Door},
    calc::Calculation,
    datastore::Datastore,
    flows::Flows,
    health_checks::HealthChecks,
    ipam::Ipam,
    key_publication::KeyPublication,
    routing::Bird,
    sync::Link,
};
use margay_api::{dataplane::v1::Setting, log::Log};
use std::{sync::Arc, time::Duration, time::Instant};
use tokio::sync::watch;
use tonic::transport::Server;

/// Bound of one request, in bytes: an apply of many thousand objects.
const REQUEST_BYTES: usize = 32 << 20;

/// Calls of one connection that are answered at a time.
const CALLS: usize = 64;

/// How long a call that asked to wait for the dataplane is kept waiting.
const ADOPTION: Duration = Duration::from_secs(30);

/// One node's agent, as its API shows it.
pub struct Agent {
    /// This node's name.
    pub node: String,
    /// Where objects live.
    pub store: Arc<dyn Datastore>,
    /// Gives addresses out of it.
    pub ipam: Arc<Ipam>,
    /// What follows from them.
    pub calculation: Calculation,
    /// What is made of that.
    pub link: Link,
    /// What load balancers ask.
    pub health_checks: HealthChecks,
    /// What becomes of flows, where that is kept.
    pub flows: Option<Arc<Flows>>,
    /// What other nodes know this one by.
    pub key_publication: KeyPublication,
    /// What speaks BGP for this node, if something does.
    pub bird: Option<Bird>,
    /// Who changed what.
    pub audit: Audit,
    /// What it was started with.
    pub settings: Vec<Setting>,
    /// What it logs.
    pub log: Log,
    /// When the agent started.
    pub started: Instant,
    /// Turns true when the agent shuts down, which ends the watches.
    pub stopping: watch::Receiver<bool>,
}

impl Agent {
    /// What is of the cluster, not of the node.
    fn cluster(&self) -> Cluster<'_> {
        Cluster {
            store: &*self.store,
            ipam: &self.ipam,
            audit: &self.audit,
            node: &self.node,
            stopping: &self.stopping,
        }
    }
}

/// Answers whoever comes in by `door` until the agent is stopping. Returns when all calls have been answered.
///
/// # Errors
/// The server could not be set up, or the door failed.
pub async fn serve(agent: Arc<Agent>, door: Door) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<service::Service>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(margay_api::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let mut stopping = agent.stopping.clone();
    Server::builder()
        .concurrency_limit_per_connection(CALLS)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(service::server(agent))
        .serve_with_incoming_shutdown(door, async move {
            // An error means that nobody can say stop any more: the same.
            let _ = stopping.wait_for(|stop| *stop).await;
        })
        .await?;
    Ok(())
}
