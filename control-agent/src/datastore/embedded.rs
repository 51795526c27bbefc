//! Objects in one file on this machine. Reads never touch it after the start.

use super::{
    Datastore, Entry, Listing, Run, StoreError, Watch, Write, Written,
    file::{Content, File},
    image::Image,
};
use crate::{health::Health, model::Key};
use std::{path::Path, sync::Arc};
use tokio::sync::Mutex;

/// A store in a file.
pub struct Embedded {
    image: Arc<Image>,
    file: Arc<File>,
    writer: Arc<Mutex<()>>,
    health: Health,
}

impl Embedded {
    /// Opens the file, or creates it and the directories above it.
    ///
    /// # Errors
    /// The file cannot be read or written, another process has it open, or it is not a store.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (file, Content { entries, revision }) = File::open(path)?;
        let health = Health::starting("store", "");
        health.good(format!("{} open", path.display()));
        let image = Image::new(entries, revision);
        Ok(Self { image, file: Arc::new(file), writer: Arc::default(), health })
    }
}

#[tonic::async_trait]
impl Datastore for Embedded {
    async fn list(&self) -> Result<Listing, StoreError> {
        Ok(self.image.list())
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.image.get(key))
    }

    async fn watch(&self, revision: u64) -> Result<Watch, StoreError> {
        Ok(self.image.watch(revision))
    }

    async fn commit(&self, writes: Vec<Write>, run: Run) -> Result<Written, StoreError> {
        // Owned, and carried into the blocking task: a caller that goes away in the middle must
        // not let the next writer in before this one has published what it stored.
        let writer = self.writer.clone().lock_owned().await;
        let plan = self.image.plan(&writes)?;
        if plan.changes.is_empty() || run == Run::Dry {
            return Ok(plan.written);
        }
        let file = self.file.clone();
        let image = self.image.clone();
        let changes = plan.changes;
        let revision = plan.written.revision;
        let stored = tokio::task::spawn_blocking(move || {
            file.store(&changes, revision)?;
            image.publish(changes);
            drop(writer);
            Ok::<(), redb::Error>(())
        })
        .await;
        let reason = match stored {
            Ok(Ok(())) => {
                self.health.good(format!("{} open", self.file.path().display()));
                return Ok(plan.written);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.health.bad(format!("{}: {reason}", self.file.path().display()));
        Err(StoreError::File { path: self.file.path().to_owned(), reason })
    }

    fn health(&self) -> &Health {
        &self.health
    }
}
