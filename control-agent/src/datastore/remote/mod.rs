//! Another agent's API, or a relay's, as the store: list and watch from it, writes forwarded to it.
//!
//! A relay tells a node only what the node needs. What is written through it is then not always told back: what everybody is told
//! of is taken over at once, and what a write was refused for is asked for.

mod follow;
mod reach;

use super::{
    Datastore, Entry, Expected, Listing, Outcome, Run, StoreError, Watch, Write, Written,
    image::Image,
    snapshot::{self, Snapshot},
};
use crate::{
    backoff::Backoff,
    health::Health,
    model::{Key, Kind},
    task::Task,
};
use follow::Follower;
use margay_api::control::v1::{
    ApplyRequest, DeleteRequest, GetRequest, apply_request::Mode, control_client::ControlClient,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Status, transport::Channel};

pub use reach::{Reach, Relays, TlsFiles};

/// How long a write may take to come back in the watch once the other agent has stored it.
const ECHO: Duration = Duration::from_secs(10);
/// The same of what a relay tells only those who need it: it is stored, and perhaps none of this node's business.
const HINT: Duration = Duration::from_secs(2);

/// A store that is another agent's, or a relay's.
pub struct Remote {
    reach: Reach,
    client: watch::Receiver<Option<ControlClient<Channel>>>,
    image: Arc<Image>,
    pending: Arc<Pending>,
    /// Has the other side's content been seen whole, once? Also in an earlier life.
    listed: watch::Receiver<bool>,
    health: Arc<Health>,
    _tasks: (Task, Option<Task>),
}

/// What was written here, until it is told: what is told of an earlier version is no news.
#[derive(Default)]
struct Pending(Mutex<HashMap<Key, (u64, Instant)>>);

impl Pending {
    fn note(&self, key: &Key, version: u64) {
        let mut written = self.lock();
        written.retain(|_, (_, since)| since.elapsed() < ECHO);
        written.insert(key.clone(), (version, Instant::now()));
    }

    fn is_outdated(&self, entry: &Entry) -> bool {
        let written = self.lock();
        written
            .get(&entry.key)
            .is_some_and(|(version, since)| entry.version < *version && since.elapsed() < ECHO)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (u64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote {
    /// Follows the agent that listens on `socket`, which need not be up yet.
    ///
    /// Must be called within a Tokio runtime.
    pub fn new(socket: &Path, backoff: Backoff) -> Self {
        Self::with_snapshot(Reach::Agent(socket.to_owned()), None, backoff)
    }

    /// Whoever is at the other end, beginning with what was known earlier.
    pub fn with_snapshot(reach: Reach, snapshot: Option<Snapshot>, backoff: Backoff) -> Self {
        let (image, keeper) = snapshot::begin(snapshot);
        let health = Arc::new(Health::starting("store", format!("{}: connecting", reach.name())));
        let (listed_sender, listed) = watch::channel(image.revision() > 0);
        let (client_sender, client) = watch::channel(None);
        let pending = Arc::<Pending>::default();
        let follower = Follower {
            reach: reach.clone(),
            image: image.clone(),
            pending: pending.clone(),
            client: client_sender,
            listed: listed_sender,
            health: health.clone(),
            resume: String::new(),
            // Of several relays, some begin with each.
            attempts: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8) as usize,
        };
        let _tasks = (Task::spawn(follower.run(backoff)), keeper);
        Self { reach, client, image, pending, listed, health, _tasks }
    }

    fn ready(&self) -> Result<(), StoreError> {
        if *self.listed.borrow() { Ok(()) } else { Err(StoreError::Unavailable(self.health.state().reason)) }
    }

    fn client(&self) -> Result<ControlClient<Channel>, StoreError> {
        let client = self.client.borrow().clone();
        client.ok_or_else(|| StoreError::Unavailable(self.health.state().reason))
    }

    /// Only what a node needs is told.
    fn is_partial(&self) -> bool {
        self.reach.node().is_some()
    }

    /// Waits until the watch shows what was written, so that whoever wrote reads it here. False: it does not.
    async fn shows(&self, limit: Duration, seen: impl Fn(&Image) -> bool) -> bool {
        let mut revisions = self.image.revisions();
        let waited = timeout(limit, async {
            loop {
                revisions.mark_unchanged();
                if seen(&self.image) {
                    return;
                }
                if revisions.changed().await.is_err() {
                    return;
                }
            }
        });
        waited.await.is_ok()
    }

    async fn echoed(&self, seen: impl Fn(&Image) -> bool) -> Result<u64, StoreError> {
        if !self.shows(ECHO, seen).await {
            let name = self.reach.name();
            return Err(StoreError::Unavailable(format!("{name} stored it, and its watch does not show it")));
        }
        Ok(self.image.revision())
    }

    /// What was written is here, as far as it is this node's business.
    async fn settle(&self, written: Vec<(&Key, Option<Entry>)>) -> Result<u64, StoreError> {
        let is_here = |image: &Image, (key, entry): &(&Key, Option<Entry>)| match (image.get(key), entry) {
            (Some(known), Some(entry)) => known.version >= entry.version,
            (None, Some(_)) => false,
            (known, None) => known.is_none(),
        };
        if !self.is_partial() {
            return self.echoed(|image| written.iter().all(|one| is_here(image, one))).await;
        }
        let (common, others): (Vec<_>, Vec<_>) =
            written.into_iter().partition(|(key, _)| is_told_to_all(key.kind));
        for (key, entry) in &common {
            // One that comes back after it was deleted has a later version than it ever had.
            let deleted = || self.image.get(key).map_or(0, |known| known.version + 1);
            self.pending.note(key, entry.as_ref().map_or_else(deleted, |entry| entry.version));
        }
        self.image.take_over(common.into_iter().map(|(key, entry)| (key.clone(), entry)).collect());
        self.shows(HINT, |image| others.iter().all(|one| is_here(image, one))).await;
        Ok(self.image.revision())
    }

    async fn put(&self, puts: Vec<(&Key, &str, Expected)>, run: Run) -> Result<Written, StoreError> {
        let mode = mode(&puts)?;
        let objects =
            puts.iter().map(|(_, json, expected)| with_version(json, *expected)).collect::<Result<_, _>>()?;
        let request =
            ApplyRequest { objects, dry_run: run == Run::Dry, wait: false, mode: mode.into(), agent: true };
        let applied = match self.client()?.apply(request).await {
            Ok(applied) => applied,
            Err(status) => return Err(self.outrun(&status, &puts).await),
        };
        let outcomes = applied
            .into_inner()
            .applied
            .into_iter()
            .map(|applied| {
                let version = version(&applied.resource_version).map_err(StoreError::Unavailable)?;
                Ok(match applied.outcome.as_str() {
                    "created" => Outcome::Created(version),
                    "unchanged" => Outcome::Unchanged(version),
                    _ => Outcome::Configured(version),
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        if outcomes.len() != puts.len() {
            let reason =
                format!("{} answered for {} of {} objects", self.reach.name(), outcomes.len(), puts.len());
            return Err(StoreError::Unavailable(reason));
        }
        if run == Run::Dry {
            return Ok(Written { revision: self.image.revision(), outcomes });
        }
        let entries = puts.iter().zip(&outcomes).map(|((key, json, _), outcome)| {
            let (Outcome::Created(version) | Outcome::Configured(version) | Outcome::Unchanged(version)) =
                *outcome
            else {
                return (*key, None);
            };
            (*key, Some(Entry { key: (*key).clone(), json: (*json).into(), version }))
        });
        Ok(Written { revision: self.settle(entries.collect()).await?, outcomes })
    }

    async fn delete(&self, key: &Key, expected: Expected, run: Run) -> Result<Written, StoreError> {
        if run == Run::Dry {
            let known = self.image.get(key).map(|_| Outcome::Deleted);
            let outcomes = vec![known.ok_or_else(|| StoreError::NotFound(key.clone()))?];
            return Ok(Written { revision: self.image.revision(), outcomes });
        }
        let before = self.image.get(key).map_or(0, |entry| entry.version);
        let request = DeleteRequest {
            kind: key.kind.to_string(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            wait: false,
            resource_version: match expected {
                Expected::Version(version) => version.to_string(),
                _ => String::new(),
            },
            agent: true,
        };
        if let Err(status) = self.client()?.delete(request).await {
            return Err(self.outrun(&status, &[(key, "", expected)]).await);
        }
        let gone = |image: &Image| image.get(key).is_none_or(|entry| entry.version > before);
        let revision = match self.is_partial() {
            true => self.settle(vec![(key, None)]).await?,
            false => self.echoed(gone).await?,
        };
        Ok(Written { revision, outcomes: vec![Outcome::Deleted] })
    }

    /// The refusal of a write. Where the image agrees with what the write expected, somebody has
    /// written what the watch has yet to show: whoever reads again must then read that.
    async fn outrun(&self, status: &Status, writes: &[(&Key, &str, Expected)]) -> StoreError {
        let held = |image: &Image| writes.iter().all(|(key, _, expected)| image.holds(key, *expected));
        let read = match status.code() {
            Code::Aborted | Code::AlreadyExists | Code::NotFound if self.is_partial() => {
                self.ask(writes.iter().map(|(key, ..)| *key)).await
            }
            Code::Aborted | Code::AlreadyExists | Code::NotFound => {
                self.echoed(|image| !held(image)).await.map(drop)
            }
            _ => Ok(()),
        };
        read.err().unwrap_or_else(|| self.refused(status))
    }

    /// Takes over what these objects are now. Others than those that this node is told of are not its business.
    async fn ask<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Result<(), StoreError> {
        let mut client = self.client()?;
        let mut told = BTreeMap::new();
        for key in keys.filter(|key| is_told_to_all(key.kind) || self.image.get(key).is_some()) {
            let request = GetRequest {
                kind: key.kind.to_string(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                ..GetRequest::default()
            };
            let entry = match client.get(request).await {
                Ok(found) => {
                    let found = found.into_inner().objects.into_iter().next();
                    Some(follow::entry(found).map_err(StoreError::Unavailable)?)
                }
                Err(status) if status.code() == Code::NotFound => None,
                Err(status) => return Err(self.refused(&status)),
            };
            if let Some(entry) = &entry {
                self.pending.note(key, entry.version);
            }
            told.insert(key.clone(), entry);
        }
        self.image.take_over(told);
        Ok(())
    }

    fn refused(&self, status: &Status) -> StoreError {
        match status.code() {
            Code::Unavailable | Code::Cancelled => {
                StoreError::Unavailable(format!("{}: {}", self.reach.name(), status.message()))
            }
            code => StoreError::Refused { code, message: status.message().to_owned() },
        }
    }
}

#[tonic::async_trait]
impl Datastore for Remote {
    async fn list(&self) -> Result<Listing, StoreError> {
        self.ready()?;
        Ok(self.image.list())
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.ready()?;
        Ok(self.image.get(key))
    }

    async fn watch(&self, revision: u64) -> Result<Watch, StoreError> {
        self.ready()?;
        Ok(self.image.watch(revision))
    }

    async fn commit(&self, writes: Vec<Write>, run: Run) -> Result<Written, StoreError> {
        if let [Write::Delete { key, expected }] = writes.as_slice() {
            return self.delete(key, *expected, run).await;
        }
        let puts = writes.iter().map(|write| match write {
            Write::Put { key, json, expected } => Ok((key, &**json, *expected)),
            Write::Delete { .. } => Err(StoreError::Unsupported(
                "another agent's store takes either puts or one delete at a time",
            )),
        });
        self.put(puts.collect::<Result<_, _>>()?, run).await
    }

    fn health(&self) -> &Health {
        &self.health
    }
}

/// How to ask the other agent for what the puts expect.
fn mode(puts: &[(&Key, &str, Expected)]) -> Result<Mode, StoreError> {
    let nothing = puts.iter().filter(|(.., expected)| *expected == Expected::Nothing).count();
    let something = puts.iter().any(|(.., expected)| *expected == Expected::Something);
    let anything = puts.iter().any(|(.., expected)| *expected == Expected::Anything);
    match nothing {
        0 if something && anything => {}
        0 if something => return Ok(Mode::Replace),
        0 => return Ok(Mode::Apply),
        all if all == puts.len() => return Ok(Mode::Create),
        _ => {}
    }
    Err(StoreError::Unsupported(
        "another agent's store takes creations and replacements in requests of their own",
    ))
}

/// The object with the version that it must still have.
fn with_version(json: &str, expected: Expected) -> Result<String, StoreError> {
    let Expected::Version(version) = expected else { return Ok(json.to_owned()) };
    let refused = || StoreError::Unsupported("an object without metadata cannot be sent to another agent");
    let mut object: Value = serde_json::from_str(json).map_err(|_| refused())?;
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut).ok_or_else(refused)?;
    metadata.insert("resourceVersion".into(), Value::String(version.to_string()));
    Ok(object.to_string())
}

fn version(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| format!("the other side sent resource version {text:?}, not a number"))
}

/// A relay tells every node of all objects of this kind: of others only those who need them.
pub const fn is_told_to_all(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::WorkloadEndpoint
            | Kind::HostEndpoint
            | Kind::NetworkSet
            | Kind::GlobalNetworkSet
            | Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::KubernetesNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy
            | Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy
            | Kind::Pod
    )
}
