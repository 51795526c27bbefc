//! Objects from a file, laid beneath a store: they are there, and nobody may change them.

use super::{
    Change, Datastore, Entry, Listing, Outcome, Run, StoreError, Transaction, Watch, Write, Written,
};
use crate::{
    health::Health,
    model::{self, Key, Kind, Tier},
};
use futures::StreamExt;
use std::{collections::BTreeMap, sync::Arc};

/// A store with fixed objects beneath it. An object of the store hides a fixed one of its name.
pub struct Fixed {
    base: Arc<dyn Datastore>,
    objects: Arc<BTreeMap<Key, Entry>>,
    origin: String,
}

impl Fixed {
    /// Lays `objects` (canonical JSON by key), which come from `origin`, beneath `base`.
    pub fn new(
        base: Arc<dyn Datastore>,
        origin: &str,
        objects: impl IntoIterator<Item = (Key, Arc<str>)>,
    ) -> Self {
        let objects =
            objects.into_iter().map(|(key, json)| (key.clone(), Entry { key, json, version: 0 })).collect();
        Self { base, objects: Arc::new(objects), origin: origin.to_owned() }
    }
}

/// The tiers that are there without being written.
pub fn built_in_tiers() -> Vec<(Key, Arc<str>)> {
    let tiers = Tier::built_in().into_iter().map(model::Resource::from);
    tiers.map(|tier| (tier.key(), tier.to_json().into())).collect()
}

/// The other machines and their workloads, from a manifest: how nodes that share no store learn
/// of each other.
///
/// # Errors
/// Every object that cannot be read or is of another kind, a line each.
pub fn peers(manifest: &str) -> Result<Vec<(Key, Arc<str>)>, String> {
    let resources = model::load(manifest).map_err(|errors| lines(&errors))?;
    let mut errors = Vec::new();
    let mut peers = Vec::with_capacity(resources.len());
    for resource in resources {
        let what = resource.key();
        if !matches!(what.kind, Kind::Node | Kind::WorkloadEndpoint) {
            errors.push(format!(
                "{what}: a peer list holds Node and WorkloadEndpoint objects only; apply the others"
            ));
            continue;
        }
        match resource.admit() {
            Ok(resource) => peers.push((resource.key(), resource.to_json().into())),
            Err(wrong) => errors.extend(wrong.iter().map(|error| format!("{what}: {error}"))),
        }
    }
    if errors.is_empty() { Ok(peers) } else { Err(lines(&errors)) }
}

fn lines<T: ToString>(errors: &[T]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tonic::async_trait]
impl Datastore for Fixed {
    async fn list(&self) -> Result<Listing, StoreError> {
        let base = self.base.list().await?;
        let mut entries = (*self.objects).clone();
        entries.extend(base.entries.into_iter().map(|entry| (entry.key.clone(), entry)));
        Ok(Listing { entries: entries.into_values().collect(), revision: base.revision })
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.base.get(key).await?.or_else(|| self.objects.get(key).cloned()))
    }

    async fn watch(&self, revision: u64) -> Result<Watch, StoreError> {
        let objects = self.objects.clone();
        let base = self.base.watch(revision).await?;
        Ok(Box::pin(
            base.map(move |transaction| transaction.map(|transaction| laid_over(&objects, transaction))),
        ))
    }

    async fn commit(&self, writes: Vec<Write>, run: Run) -> Result<Written, StoreError> {
        let mut passed = Vec::with_capacity(writes.len());
        // Where in the outcomes an object goes that already is as it was asked to be.
        let mut unchanged = Vec::new();
        for (at, write) in writes.into_iter().enumerate() {
            let Some(fixed) = self.objects.get(write.key()) else {
                passed.push(write);
                continue;
            };
            match &write {
                Write::Put { json, .. } if *json == fixed.json => unchanged.push(at),
                Write::Delete { key, .. } if self.base.get(key).await?.is_some() => passed.push(write),
                _ => {
                    return Err(StoreError::ReadOnly { key: fixed.key.clone(), origin: self.origin.clone() });
                }
            }
        }
        let mut written = self.base.commit(passed, run).await?;
        for at in unchanged {
            written.outcomes.insert(at, Outcome::Unchanged(0));
        }
        Ok(written)
    }

    fn health(&self) -> &Health {
        self.base.health()
    }

    fn lost(&self) -> Vec<Key> {
        self.base.lost()
    }

    fn let_go(&self, lost: &[Key]) {
        self.base.let_go(lost);
    }
}

/// The transaction as seen by one to whom the fixed objects were always there.
fn laid_over(objects: &BTreeMap<Key, Entry>, transaction: Arc<Transaction>) -> Arc<Transaction> {
    if !transaction.changes.iter().any(|change| objects.contains_key(&change.entry().key)) {
        return transaction;
    }
    let changes = transaction.changes.iter().map(|change| match (change, objects.get(&change.entry().key)) {
        (Change::Added(entry), Some(_)) => Change::Modified(entry.clone()),
        (Change::Deleted(_), Some(fixed)) => Change::Modified(fixed.clone()),
        _ => change.clone(),
    });
    Arc::new(Transaction { revision: transaction.revision, changes: changes.collect() })
}
