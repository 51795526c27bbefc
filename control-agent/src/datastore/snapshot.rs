//! What a store elsewhere last held, in a file on this machine: what an agent starts with while the store is away.

use super::{
    Change, Listing, StoreError, Transaction,
    file::{Content, File},
    image::Image,
};
use crate::{model::Key, task::Task};
use futures::{FutureExt, StreamExt};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

/// Between two writes of the file: what changes meanwhile goes to the disk at once.
const PAUSE: Duration = Duration::from_secs(1);

/// The file, and what it holds. What an agent has lost of it by being killed the store tells again.
pub struct Snapshot {
    file: File,
    content: Content,
}

impl Snapshot {
    /// Opens the file, or creates it and the directories above it.
    ///
    /// # Errors
    /// The file cannot be read or written, another process has it open, or it is no snapshot.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (file, content) = File::open(path)?;
        Ok(Self { file, content })
    }
}

/// The image that a store begins with: that of the snapshot, kept like the image from now on; or an empty one.
pub(super) fn begin(snapshot: Option<Snapshot>) -> (Arc<Image>, Option<Task>) {
    let Some(Snapshot { file, content: Content { entries, revision } }) = snapshot else {
        return (Image::new([], 0), None);
    };
    let image = Image::new(entries, revision);
    let keeper = Keeper { file: Arc::new(file), image: image.clone(), stored: revision };
    (image, Some(Task::spawn(keeper.run())))
}

/// Keeps the file like the image.
struct Keeper {
    file: Arc<File>,
    image: Arc<Image>,
    stored: u64,
}

impl Keeper {
    /// For as long as it is not aborted.
    async fn run(mut self) {
        loop {
            self.write_news().await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits for what the file does not hold yet, and writes it.
    async fn write_news(&mut self) {
        let mut news = self.image.watch(self.stored);
        let Some(Ok(first)) = news.next().await else {
            // More has changed since than anybody knows.
            let Listing { entries, revision } = self.image.list();
            let content = Content { entries, revision };
            return self.write(revision, move |file| file.replace(&content)).await;
        };
        let mut changes = BTreeMap::new();
        gather(&first, &mut changes);
        let mut revision = first.revision;
        while let Some(Some(Ok(next))) = news.next().now_or_never() {
            gather(&next, &mut changes);
            revision = next.revision;
        }
        self.write(revision, move |file| file.store(changes.values(), revision)).await;
    }

    async fn write(
        &mut self,
        revision: u64,
        write: impl FnOnce(&File) -> Result<(), redb::Error> + Send + 'static,
    ) {
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || write(&file)).await;
        let error = match written {
            Ok(Ok(())) => return self.stored = revision,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let path = self.file.path().display();
        tracing::warn!(%path, error, "A007 the snapshot cannot be written: it will be tried again");
    }
}

/// The last change of each object.
fn gather(transaction: &Transaction, changes: &mut BTreeMap<Key, Change>) {
    changes.extend(transaction.changes.iter().map(|change| (change.entry().key.clone(), change.clone())));
}

#[cfg(test)]
mod tests {
    use super::{super::Entry, *};
    use crate::model::Kind;

    fn entry(name: &str, version: u64) -> Entry {
        Entry { key: Key::global(Kind::Tier, name), json: "{}".into(), version }
    }

    fn keeper(path: &Path, image: &Arc<Image>) -> Keeper {
        let Snapshot { file, content } = Snapshot::open(path).unwrap();
        Keeper { file: Arc::new(file), image: image.clone(), stored: content.revision }
    }

    #[tokio::test]
    async fn what_was_there_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lib/snapshot.redb");
        let image = Image::new([], 0);
        let mut first = keeper(&path, &image);
        image.publish(vec![Change::Added(entry("a", 7)), Change::Added(entry("b", 7))]);
        image.publish(vec![Change::Deleted(entry("a", 7)), Change::Modified(entry("b", 9))]);
        first.write_news().await;
        assert!(Snapshot::open(&path).is_err(), "it is one agent's");
        drop(first);
        let mut again = keeper(&path, &image);
        image.publish(vec![Change::Added(entry("c", 10))]);
        again.write_news().await;
        drop(again);

        let (begun, _keeper) = begin(Some(Snapshot::open(&path).unwrap()));
        assert_eq!(begun.list(), image.list());
        assert_eq!(begun.list().entries, [entry("b", 9), entry("c", 10)]);
    }

    #[tokio::test]
    async fn who_falls_behind_writes_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot");
        let image = Image::new([entry("old", 1)], 3);
        keeper(&path, &image).write_news().await;
        // It has the past from 41 on only, and the file is at 3.
        let image = Image::new([entry("a", 1)], 41);
        keeper(&path, &image).write_news().await;
        let content = Snapshot::open(&path).unwrap().content;
        assert_eq!((content.entries, content.revision), (vec![entry("a", 1)], 41));
    }
}
