//! Keeps the desired state like the store.

use super::{Desired, Names, Resources, desired};
use crate::{
    backoff::Backoff,
    datastore::{Change, Datastore, Entry, StoreError, Transaction},
    health::Health,
    model::{Cidr, IpamBlock, Key, Kind, Resource},
    task::Task,
};
use futures::{FutureExt, StreamExt};
use margay_api::metrics::Histogram;
use std::{collections::BTreeMap, sync::Arc, time::Instant};
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
            node: node.to_owned(),
            resources: Resources::default(),
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
    node: String,
    resources: Resources,
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
        self.resources = Resources::default();
        self.unreadable.clear();
        listing.entries.iter().for_each(|entry| self.take(entry));
        self.calculate(listing.revision);
        backoff.reset();

        while let Some(transaction) = transactions.next().await {
            let transaction = transaction?;
            let mut matters = self.change(&transaction);
            let mut revision = transaction.revision;
            // Whatever else is there already is calculated in the same go.
            while let Some(Some(transaction)) = transactions.next().now_or_never() {
                let transaction = transaction?;
                matters |= self.change(&transaction);
                revision = transaction.revision;
            }
            match matters {
                true => self.calculate(revision),
                false => self.confirm(revision),
            }
        }
        Err(StoreError::Unavailable("its watch ended".into()))
    }

    /// Returns whether anything can follow from it.
    fn change(&mut self, transaction: &Transaction) -> bool {
        let mut matters = false;
        for change in &transaction.changes {
            let key = &change.entry().key;
            let was_unreadable = !self.unreadable.is_empty();
            let block = self.block(key);
            match change {
                Change::Added(entry) | Change::Modified(entry) => self.take(entry),
                Change::Deleted(entry) => {
                    self.unreadable.remove(&entry.key);
                    self.resources.remove(&entry.key);
                }
            }
            // That an address of a block is given away changes nothing here: only whose block it is counts.
            let is_same_block = key.kind == Kind::IPAMBlock && block == self.block(key);
            matters |= !is_same_block || was_unreadable || !self.unreadable.is_empty();
        }
        matters
    }

    /// What of a block anything follows from.
    fn block(&self, key: &Key) -> Option<(Cidr, Option<String>)> {
        let block =
            (key.kind == Kind::IPAMBlock).then(|| self.resources.get::<IpamBlock>("", &key.name))??;
        Some((block.spec.cidr, block.spec.node().map(str::to_owned)))
    }

    /// What was calculated last follows from this revision, too.
    fn confirm(&self, revision: u64) {
        self.latest.send_if_modified(|latest| match latest {
            Some(calculated) => {
                calculated.revision = revision;
                true
            }
            None => false,
        });
    }

    fn take(&mut self, entry: &Entry) {
        match Resource::from_json(&entry.json) {
            Ok(resource) => {
                self.unreadable.remove(&entry.key);
                self.resources.insert(resource);
            }
            Err(errors) => {
                let why = errors.first().map(ToString::to_string).unwrap_or_default();
                self.unreadable.insert(entry.key.clone(), why);
            }
        }
    }

    /// An object that cannot be read may be the policy that denies: until it is gone or can be
    /// read, the last state stays in force.
    fn calculate(&self, revision: u64) {
        if let Some((key, why)) = self.unreadable.first_key_value() {
            let others = self.unreadable.len() - 1;
            self.health.bad(format!(
                "{key} in the store cannot be read ({why}), nor can {others} others; the last known state is kept: \
                 delete or replace what cannot be read, or run the release that wrote it"
            ));
            return;
        }
        let from = Instant::now();
        let desired = desired(&self.resources, &self.node);
        self.durations.observe(from.elapsed());
        match desired.problems.as_slice() {
            [] => self.health.good(format!("{} objects", self.resources.len())),
            problems => self.health.bad(problems.join("; ")),
        }
        tracing::debug!(revision, objects = self.resources.len(), "calculated");
        self.names.send_replace(Arc::new(Names::of(&self.resources)));
        self.latest.send_replace(Some(Calculated { revision, desired: Arc::new(desired) }));
    }
}
