//! The node's public key of WireGuard: made by the dataplane, published on the Node for the other nodes.
//!
//! Kept so as long as encryption is on, whoever may have written the Node in between; taken back when it is off.

use crate::{
    backoff::Backoff,
    calc::{Calculated, LANES, OwnKeys},
    datastore::{Datastore, Expected, Run, StoreError, Write},
    health::Health,
    model::{Key, Kind, Node, Resource},
    sync::Progress,
    task::Task,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use margay_api::dataplane::v1::{GetStatusRequest, dataplane_client::DataplaneClient};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tonic::transport::Channel;

/// How often the dataplane is asked which key it has.
const LOOK: Duration = Duration::from_secs(5);

/// The running publication. It ends when this is dropped.
pub struct KeyPublication {
    health: Arc<Health>,
    _task: Task,
}

/// Why the key is not published.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("the dataplane has no key yet")]
    NoKeyYet,
    #[error("the dataplane has no key: {0}")]
    NoKey(String),
    #[error("the dataplane does not answer: {0}")]
    Dataplane(String),
    #[error("the Node in the store cannot be read")]
    Unreadable,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeyPublication {
    /// Publishes what `desired` wants published, as the dataplane behind `client` has it. Must be called within a Tokio
    /// runtime.
    pub fn start(
        node: &str,
        store: Arc<dyn Datastore>,
        client: DataplaneClient<Channel>,
        desired: watch::Receiver<Option<Calculated>>,
        progress: watch::Receiver<Progress>,
        backoff: Backoff,
    ) -> Self {
        let health = Arc::new(Health::starting("encryption", "off"));
        health.good("off");
        let publisher =
            Publisher { node: node.to_owned(), store, client, desired, progress, health: health.clone() };
        let _task = Task::spawn(publisher.run(backoff));
        Self { health, _task }
    }

    /// Whether the other nodes can know this one's key.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

struct Publisher {
    node: String,
    store: Arc<dyn Datastore>,
    client: DataplaneClient<Channel>,
    desired: watch::Receiver<Option<Calculated>>,
    progress: watch::Receiver<Progress>,
    health: Arc<Health>,
}

impl Publisher {
    async fn run(mut self, mut backoff: Backoff) {
        loop {
            let own = self.desired.borrow_and_update().as_ref().map(|latest| latest.desired.own_keys.clone());
            self.progress.mark_unchanged();
            let outcome = match own {
                Some(own) => self.follow(&own).await,
                None => Ok(()),
            };
            let changed = if let Err(obstacle) = outcome {
                match obstacle {
                    // It comes with the next generation that is adopted.
                    Obstacle::NoKeyYet => {}
                    _ => self.health.bad(obstacle.to_string()),
                }
                tokio::select! {
                    changed = self.desired.changed() => changed,
                    () = backoff.pause() => Ok(()),
                }
            } else {
                backoff.reset();
                tokio::select! {
                    changed = self.desired.changed() => changed,
                    changed = self.progress.changed() => changed,
                    // The dataplane may have been given another key.
                    () = tokio::time::sleep(LOOK) => Ok(()),
                }
            };
            if changed.is_err() {
                // Nobody calculates any more: the agent is shutting down.
                return;
            }
        }
    }

    async fn follow(&mut self, own: &OwnKeys) -> Result<(), Obstacle> {
        let Some(published) = &own.published else {
            // A node that the store does not know has nobody to talk to.
            self.health.good("off");
            return Ok(());
        };
        let (keys, lanes) = match own.wanted {
            [false, false] => ([String::new(), String::new()], None),
            wanted => {
                let (key, lanes) = self.key().await?;
                (wanted.map(|wanted| if wanted { key.clone() } else { String::new() }), lanes)
            }
        };
        if *published != keys || own.lanes != lanes {
            self.publish(&keys, lanes.as_deref()).await?;
            tracing::info!(keys = ?keys, "published WireGuard's public key");
        }
        match own.wanted {
            [false, false] => self.health.good("off"),
            _ => self.health.good("the public key is published"),
        }
        Ok(())
    }

    /// The dataplane's, in base64, and how many lanes it takes.
    async fn key(&mut self) -> Result<(String, Option<String>), Obstacle> {
        let asked = self.client.get_status(GetStatusRequest {}).await;
        let status = asked.map_err(|status| Obstacle::Dataplane(status.message().to_owned()))?.into_inner();
        match (status.wireguard_public_key.as_slice(), status.wireguard_problem) {
            ([], problem) if problem.is_empty() => Err(Obstacle::NoKeyYet),
            ([], problem) => Err(Obstacle::NoKey(problem)),
            (key, _) => {
                let lanes = Some(status.wireguard_lanes).filter(|lanes| *lanes > 0);
                Ok((STANDARD.encode(key), lanes.map(|lanes| lanes.to_string())))
            }
        }
    }

    async fn publish(&self, keys: &[String; 2], lanes: Option<&str>) -> Result<(), Obstacle> {
        let key = Key::global(Kind::Node, &self.node);
        let Some(entry) = self.store.get(&key).await? else { return Ok(()) };
        let Ok(Resource::Node(mut node)) = Resource::from_json(&entry.json) else {
            return Err(Obstacle::Unreadable);
        };
        set(&mut node, keys);
        match lanes {
            Some(lanes) => node.metadata.annotations.insert(LANES.into(), lanes.into()),
            None => node.metadata.annotations.remove(LANES),
        };
        let json = Resource::Node(node).to_json().into();
        let write = Write::Put { key, json, expected: Expected::Version(entry.version) };
        self.store.commit(vec![write], Run::Real).await?;
        Ok(())
    }
}

fn set(node: &mut Node, [v4, v6]: &[String; 2]) {
    let status = node.status.get_or_insert_default();
    (status.wireguard_public_key, status.wireguard_public_key_v6) = (v4.clone(), v6.clone());
    // What says nothing is not written.
    node.status.take_if(|status| *status == Default::default());
}
