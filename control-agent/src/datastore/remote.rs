//! Another agent's API as the store: list and watch from it, writes forwarded to it.

use super::{
    Change, Datastore, Entry, Expected, Listing, Outcome, Run, StoreError, Watch, Write, Written,
    image::Image,
    snapshot::{self, Snapshot},
};
use crate::{
    backoff::Backoff,
    health::Health,
    model::{Key, Kind},
    task::Task,
};
use futures::{FutureExt, StreamExt};
use margay_api::control::v1::{
    ApplyRequest, DeleteRequest, Object, WatchEvent, WatchRequest, apply_request::Mode,
    control_client::ControlClient, watch_event::Type,
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path, path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Status, transport::Channel};

/// How long a write may take to come back in the watch once the other agent has stored it.
const ECHO: Duration = Duration::from_secs(10);

/// A store that is another agent's.
pub struct Remote {
    socket: PathBuf,
    client: ControlClient<Channel>,
    image: Arc<Image>,
    /// Has the other agent's content been seen whole, once? Also in an earlier life.
    listed: watch::Receiver<bool>,
    health: Arc<Health>,
    _tasks: (Task, Option<Task>),
}

impl Remote {
    /// Follows the agent that listens on `socket`, which need not be up yet.
    ///
    /// Must be called within a Tokio runtime.
    pub fn new(socket: &Path, backoff: Backoff) -> Self {
        Self::with_snapshot(socket, None, backoff)
    }

    /// The same, beginning with what was known earlier.
    pub fn with_snapshot(socket: &Path, snapshot: Option<Snapshot>, backoff: Backoff) -> Self {
        let client = ControlClient::new(margay_api::unix::connect_lazy(socket));
        let (image, keeper) = snapshot::begin(snapshot);
        let health = Arc::new(Health::starting("store", format!("{}: connecting", socket.display())));
        let (listed_sender, listed) = watch::channel(image.revision() > 0);
        let follower = Follower {
            socket: socket.to_owned(),
            client: client.clone(),
            image: image.clone(),
            listed: listed_sender,
            health: health.clone(),
        };
        let _tasks = (Task::spawn(follower.run(backoff)), keeper);
        Self { socket: socket.to_owned(), client, image, listed, health, _tasks }
    }

    fn ready(&self) -> Result<(), StoreError> {
        if *self.listed.borrow() { Ok(()) } else { Err(StoreError::Unavailable(self.health.state().reason)) }
    }

    /// Waits until the watch shows what was written, so that whoever wrote reads it here.
    async fn echoed(&self, seen: impl Fn(&Image) -> bool) -> Result<u64, StoreError> {
        let mut revisions = self.image.revisions();
        let waited = timeout(ECHO, async {
            loop {
                revisions.mark_unchanged();
                if seen(&self.image) {
                    return;
                }
                if revisions.changed().await.is_err() {
                    return;
                }
            }
        })
        .await;
        let lost = |_| {
            StoreError::Unavailable(format!(
                "{} stored it, and its watch does not show it",
                self.socket.display()
            ))
        };
        waited.map_err(lost)?;
        Ok(self.image.revision())
    }

    async fn put(&self, puts: Vec<(&Key, &str, Expected)>, run: Run) -> Result<Written, StoreError> {
        let mode = mode(&puts)?;
        let objects =
            puts.iter().map(|(_, json, expected)| with_version(json, *expected)).collect::<Result<_, _>>()?;
        let request =
            ApplyRequest { objects, dry_run: run == Run::Dry, wait: false, mode: mode.into(), agent: true };
        let applied = match self.client.clone().apply(request).await {
            Ok(applied) => applied,
            Err(status) => return Err(self.outrun(&status, &puts).await),
        };
        let outcomes = applied
            .into_inner()
            .applied
            .into_iter()
            .map(|applied| {
                let version = version(&applied.resource_version).map_err(|status| self.refused(&status))?;
                Ok(match applied.outcome.as_str() {
                    "created" => Outcome::Created(version),
                    "unchanged" => Outcome::Unchanged(version),
                    _ => Outcome::Configured(version),
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        if outcomes.len() != puts.len() {
            let reason = format!(
                "{} answered for {} of {} objects",
                self.socket.display(),
                outcomes.len(),
                puts.len()
            );
            return Err(StoreError::Unavailable(reason));
        }
        if run == Run::Dry {
            return Ok(Written { revision: self.image.revision(), outcomes });
        }
        let seen = |image: &Image| {
            puts.iter().zip(&outcomes).all(|((key, ..), outcome)| {
                let (Outcome::Created(version) | Outcome::Configured(version) | Outcome::Unchanged(version)) =
                    outcome
                else {
                    return true;
                };
                image.get(key).is_some_and(|entry| entry.version >= *version)
            })
        };
        Ok(Written { revision: self.echoed(seen).await?, outcomes })
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
        if let Err(status) = self.client.clone().delete(request).await {
            return Err(self.outrun(&status, &[(key, "", expected)]).await);
        }
        let gone = |image: &Image| image.get(key).is_none_or(|entry| entry.version > before);
        Ok(Written { revision: self.echoed(gone).await?, outcomes: vec![Outcome::Deleted] })
    }

    /// The refusal of a write. Where the image agrees with what the write expected, somebody has
    /// written what the watch has yet to show: whoever reads again must then read that.
    async fn outrun(&self, status: &Status, writes: &[(&Key, &str, Expected)]) -> StoreError {
        let held = |image: &Image| writes.iter().all(|(key, _, expected)| image.holds(key, *expected));
        if matches!(status.code(), Code::Aborted | Code::AlreadyExists | Code::NotFound)
            && let Err(error) = self.echoed(|image| !held(image)).await
        {
            return error;
        }
        self.refused(status)
    }

    fn refused(&self, status: &Status) -> StoreError {
        match status.code() {
            Code::Unavailable | Code::Cancelled => {
                StoreError::Unavailable(format!("{}: {}", self.socket.display(), status.message()))
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

/// Keeps the image like the other agent's content, for as long as it is not aborted.
struct Follower {
    socket: PathBuf,
    client: ControlClient<Channel>,
    image: Arc<Image>,
    listed: watch::Sender<bool>,
    health: Arc<Health>,
}

impl Follower {
    async fn run(mut self, mut backoff: Backoff) {
        loop {
            let status = match self.follow(&mut backoff).await {
                Ok(()) => Status::unavailable("the watch ended"),
                Err(status) => status,
            };
            let kept = if *self.listed.borrow() { "; its last known state is kept" } else { "" };
            self.health.bad(format!("{}: {}{kept}", self.socket.display(), status.message()));
            backoff.pause().await;
        }
    }

    /// One connection: everything, compared with what is known; then each change.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<(), Status> {
        let mut events = self.client.watch(WatchRequest::default()).await?.into_inner();
        let mut present = BTreeMap::new();
        loop {
            let event =
                events.message().await?.ok_or_else(|| Status::unavailable("the watch ended in its list"))?;
            if event.r#type() == Type::Synced {
                break;
            }
            let entry = entry(event.object)?;
            present.insert(entry.key.clone(), entry);
        }
        self.image.replace(present);
        self.listed.send_replace(true);
        self.health.good(format!("{} followed", self.socket.display()));
        backoff.reset();

        while let Some(event) = events.next().await {
            let mut changes = BTreeMap::new();
            self.gather(event?, &mut changes)?;
            // Changes that were made together arrive together: publish them so.
            while let Some(Some(event)) = events.next().now_or_never() {
                self.gather(event?, &mut changes)?;
            }
            self.image.publish(changes.into_values().flatten().collect());
        }
        Ok(())
    }

    /// Folds one event into at most one net change a key, relative to the image.
    fn gather(&self, event: WatchEvent, changes: &mut BTreeMap<Key, Option<Change>>) -> Result<(), Status> {
        let kind = event.r#type();
        if matches!(kind, Type::Synced | Type::Unspecified) {
            return Ok(());
        }
        let entry = entry(event.object)?;
        let key = entry.key.clone();
        let change = match (kind, self.image.get(&key)) {
            (Type::Deleted, known) => known.map(Change::Deleted),
            (_, None) => Some(Change::Added(entry)),
            (_, Some(_)) => Some(Change::Modified(entry)),
        };
        changes.insert(key, change);
        Ok(())
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

fn entry(object: Option<Object>) -> Result<Entry, Status> {
    let object = object.ok_or_else(|| Status::internal("the other agent sent an event without an object"))?;
    let kind = Kind::parse(&object.kind).map_err(|error| {
        Status::internal(format!("the other agent has objects that are not known here: {error}"))
    })?;
    let key = Key { kind, namespace: object.namespace, name: object.name };
    Ok(Entry {
        key,
        json: without_version(&object.json)?.into(),
        version: version(&object.resource_version)?,
    })
}

/// What is shown to users has the version in its metadata; what is stored does not.
fn without_version(json: &str) -> Result<String, Status> {
    let mut object: Value = serde_json::from_str(json)
        .map_err(|error| Status::internal(format!("the other agent sent no JSON: {error}")))?;
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    Ok(object.to_string())
}

fn version(text: &str) -> Result<u64, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        Status::internal(format!("the other agent sent resource version {text:?}, not a number"))
    })
}
