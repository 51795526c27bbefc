//! Keeps the desired state like the store.

use super::{Desired, Graph, Names};
use crate::{
    backoff::Backoff,
    datastore::{Change, Datastore, Entry, Listing, StoreError, Transaction},
    health::Health,
    model::{Key, Resource},
    task::Task,
};
use futures::{FutureExt, StreamExt};
use margay_api::metrics::Histogram;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};
use tokio::sync::watch;

/// A desired state, and the store that it follows from.
#[derive(Clone, Debug)]
pub struct Calculated {
    /// Of the store.
    pub revision: u64,
    /// Of the node.
    pub desired: Arc<Desired>,
}

/// The running calculation of one node. It ends when this is dropped.
pub struct Calculation {
    latest: watch::Receiver<Option<Calculated>>,
    names: watch::Receiver<Arc<Names>>,
    health: Arc<Health>,
    durations: Arc<Histogram>,
    _task: Task,
}

impl Calculation {
    /// Follows `store` for `node`. Must be called within a Tokio runtime.
    pub fn start(store: Arc<dyn Datastore>, node: &str, backoff: Backoff) -> Self {
        let (sender, latest) = watch::channel(None);
        let (tell_names, names) = watch::channel(Arc::default());
        let health = Arc::new(Health::starting("calculation", "waiting for the store"));
        let durations = Arc::<Histogram>::default();
        let follower = Follower {
            store,
            graph: Graph::new(node),
            unreadable: BTreeMap::new(),
            latest: sender,
            names: tell_names,
            health: health.clone(),
            durations: durations.clone(),
        };
        let _task = Task::spawn(follower.run(backoff));
        Self { latest, names, health, durations, _task }
    }

    /// The latest result; none before the first.
    pub fn latest(&self) -> watch::Receiver<Option<Calculated>> {
        self.latest.clone()
    }

    /// Whose addresses are whose, by the store that the latest result follows from.
    pub fn names(&self) -> watch::Receiver<Arc<Names>> {
        self.names.clone()
    }

    /// Whether the desired state follows the store, and what is wrong with it.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// How long calculations took.
    pub fn durations(&self) -> &Histogram {
        &self.durations
    }
}

struct Follower {
    store: Arc<dyn Datastore>,
    graph: Graph,
    /// Objects that this release cannot read, and why, by key.
    unreadable: BTreeMap<Key, String>,
    latest: watch::Sender<Option<Calculated>>,
    names: watch::Sender<Arc<Names>>,
    health: Arc<Health>,
    durations: Arc<Histogram>,
}

impl Follower {
    async fn run(mut self, mut backoff: Backoff) {
        loop {
            if let Err(error) = self.follow(&mut backoff).await {
                // Too far behind: only a new list helps, and at once.
                if !matches!(error, StoreError::Compacted { .. }) {
                    let kept = if self.latest.borrow().is_some() { "; the last result is kept" } else { "" };
                    self.health.bad(format!("{error}{kept}"));
                    backoff.pause().await;
                }
            }
        }
    }

    async fn follow(&mut self, backoff: &mut Backoff) -> Result<(), StoreError> {
        let listing = self.store.list().await?;
        let mut transactions = self.store.watch(listing.revision).await?;
        let revision = listing.revision;
        self.start_from(listing);
        self.calculate(revision);
        backoff.reset();

        while let Some(transaction) = transactions.next().await {
            let transaction = transaction?;
            self.change(&transaction);
            let mut revision = transaction.revision;
            // Whatever else is there already is calculated in the same go.
            while let Some(Some(transaction)) = transactions.next().now_or_never() {
                let transaction = transaction?;
                self.change(&transaction);
                revision = transaction.revision;
            }
            self.calculate(revision);
        }
        Err(StoreError::Unavailable("its watch ended".into()))
    }

    fn start_from(&mut self, listing: Listing) {
        let listed: BTreeSet<&Key> = listing.entries.iter().map(|entry| &entry.key).collect();
        let gone: Vec<Key> =
            self.graph.resources().written().filter(|key| !listed.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.graph.remove(key));
        self.unreadable.clear();
        listing.entries.iter().for_each(|entry| self.take(entry));
    }

    fn change(&mut self, transaction: &Transaction) {
        for change in &transaction.changes {
            match change {
                Change::Added(entry) | Change::Modified(entry) => self.take(entry),
                Change::Deleted(entry) => {
                    self.unreadable.remove(&entry.key);
                    self.graph.remove(&entry.key);
                }
            }
        }
    }

    fn take(&mut self, entry: &Entry) {
        match Resource::from_json(&entry.json) {
            Ok(resource) => {
                self.unreadable.remove(&entry.key);
                self.graph.insert(resource);
            }
            Err(errors) => {
                let why = errors.first().map(ToString::to_string).unwrap_or_default();
                self.unreadable.insert(entry.key.clone(), why);
            }
        }
    }

    /// An object that cannot be read may be the policy that denies: until it is gone or can be
    /// read, the last state stays in force.
    fn calculate(&mut self, revision: u64) {
        if let Some((key, why)) = self.unreadable.first_key_value() {
            let others = self.unreadable.len() - 1;
            self.health.bad(format!(
                "{key} in the store cannot be read ({why}), nor can {others} others; the last known state is kept: \
                 delete or replace what cannot be read, or run the release that wrote it"
            ));
            return;
        }
        let from = Instant::now();
        let desired = Arc::new(self.graph.update().clone());
        self.durations.observe(from.elapsed());
        let objects = self.graph.resources().len();
        match desired.problems.as_slice() {
            [] => self.health.good(format!("{objects} objects")),
            problems => self.health.bad(problems.join("; ")),
        }
        tracing::debug!(revision, objects, "calculated");
        self.names.send_replace(Arc::new(self.graph.names().clone()));
        self.latest.send_replace(Some(Calculated { revision, desired }));
    }
}
