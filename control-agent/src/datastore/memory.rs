//! Objects that live as long as the process.

use super::{Datastore, Entry, Listing, Run, StoreError, Watch, Write, Written, image::Image};
use crate::{health::Health, model::Key};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A store that forgets when the process ends.
pub struct Memory {
    image: Arc<Image>,
    writer: Mutex<()>,
    health: Health,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        let health = Health::starting("store", "");
        health.good("in memory: it is empty again after a restart");
        Self { image: Image::new([], 0), writer: Mutex::new(()), health }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

#[tonic::async_trait]
impl Datastore for Memory {
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
        let _writer = self.writer.lock().await;
        let plan = self.image.plan(&writes)?;
        if run == Run::Real {
            self.image.publish(plan.changes);
        }
        Ok(plan.written)
    }

    fn health(&self) -> &Health {
        &self.health
    }
}
