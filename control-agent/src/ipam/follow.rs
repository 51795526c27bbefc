//! Keeps the books like the store.

use super::books::Books;
use crate::datastore::{Datastore, StoreError, Watch};
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use tokio::task::unconstrained;

/// The books, and the watch that they are kept by.
pub(super) struct Follower {
    store: Arc<dyn Datastore>,
    books: Books,
    watch: Option<Watch>,
}

impl Follower {
    pub fn new(store: Arc<dyn Datastore>) -> Self {
        Self { store, books: Books::default(), watch: None }
    }

    /// The books as the store shows it now: with all that was written through it.
    ///
    /// Nothing runs in between: whoever asks pays for what has changed since somebody last did.
    pub async fn books(&mut self) -> Result<&Books, StoreError> {
        loop {
            let Some(watch) = &mut self.watch else {
                let listing = self.store.list().await?;
                let watch = self.store.watch(listing.revision).await?;
                self.books = Books::of(&listing);
                self.watch = Some(watch);
                continue;
            };
            // Without tokio's budget, which would have a watch say now and then that there is no news.
            match unconstrained(watch.next()).now_or_never() {
                None => return Ok(&self.books),
                Some(Some(Ok(transaction))) => self.books.follow(&transaction),
                // Too far behind: only a new list helps.
                Some(Some(Err(_)) | None) => self.watch = None,
            }
        }
    }
}
