//! A store's content in memory, and its recent past: what every store reads from.

use super::{Change, Entry, Expected, Listing, Outcome, StoreError, Transaction, Watch, Write, Written};
use crate::model::Key;
use futures::stream;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tokio::sync::watch;

/// The version of an object that its store has lost and that is kept here.
const LOST: u64 = 0;

/// So many may go at once however few there are.
const FEW: usize = 20;

/// How many changes the log holds before it forgets the oldest transactions.
const LOG_CHANGES: usize = 16_384;

/// Sorted objects, the revision they are at, and the transactions that led there.
pub(super) struct Image {
    content: RwLock<Content>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct Content {
    entries: BTreeMap<Key, Entry>,
    revision: u64,
    log: VecDeque<Arc<Transaction>>,
    log_changes: usize,
    /// The log has every transaction after this revision.
    forgotten: u64,
    /// How many of the entries have the version [`LOST`].
    lost: usize,
}

/// What a commit would do: checked, not done.
pub(super) struct Plan {
    pub changes: Vec<Change>,
    pub written: Written,
}

impl Image {
    /// What was stored earlier, at the revision it had. Its past is not known.
    pub fn new(entries: impl IntoIterator<Item = Entry>, revision: u64) -> Arc<Self> {
        let entries: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let lost = entries.values().filter(|entry| entry.version == LOST).count();
        let content = Content { entries, revision, forgotten: revision, lost, ..Content::default() };
        Arc::new(Self { content: RwLock::new(content), revision: watch::Sender::new(revision) })
    }

    pub fn list(&self) -> Listing {
        let content = self.read();
        Listing { entries: content.entries.values().cloned().collect(), revision: content.revision }
    }

    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.read().entries.get(key).cloned()
    }

    /// What is there is as expected.
    pub fn holds(&self, key: &Key, expected: Expected) -> bool {
        check(key, expected, self.read().entries.get(key)).is_ok()
    }

    pub fn revision(&self) -> u64 {
        self.read().revision
    }

    /// The image's revision, whenever it changes.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// What `writes` would do, at the next revision. The caller keeps other writers out
    /// between this and [`publish`](Self::publish).
    pub fn plan(&self, writes: &[Write]) -> Result<Plan, StoreError> {
        self.read().plan(writes)
    }

    /// The version of each write's object: 0 where there is none.
    pub fn versions(&self, writes: &[Write]) -> Vec<u64> {
        self.read().versions(writes)
    }

    /// The plan, and the [`versions`](Self::versions) that it is made on.
    pub fn plan_at(&self, writes: &[Write]) -> (Vec<u64>, Result<Plan, StoreError>) {
        let content = self.read();
        (content.versions(writes), content.plan(writes))
    }

    /// Makes `changes` the next transaction, visible to all readers at once. Returns its revision.
    pub fn publish(&self, changes: Vec<Change>) -> u64 {
        let mut content = self.write();
        if !changes.is_empty() {
            content.publish(changes);
        }
        let revision = content.revision;
        drop(content);
        self.revision.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        revision
    }

    /// Publishes what is new of what somebody tells; nothing for nothing. An object that is `None` is gone.
    pub fn take_over(&self, told: BTreeMap<Key, Option<Entry>>) -> u64 {
        let mut content = self.write();
        let changes = content.news(told);
        if !changes.is_empty() {
            content.publish(changes);
        }
        let revision = content.revision;
        drop(content);
        self.revision.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        revision
    }

    /// Publishes what differs from `entries`, which become the content.
    pub fn replace(&self, entries: BTreeMap<Key, Entry>) -> u64 {
        let changes = self.read().difference(entries);
        self.publish(changes)
    }

    /// The same of a store that may have lost its content: if more than `limit` percent of all objects are gone, they
    /// are kept, under the version 0, which is what their store has of them.
    pub fn replace_guarded(&self, entries: BTreeMap<Key, Entry>, limit: u8) -> u64 {
        let changes = self.read().difference(entries);
        self.publish_guarded(changes, limit)
    }

    /// Publishes changes that nobody has asked for by their names, guarded likewise.
    pub fn publish_guarded(&self, changes: Vec<Change>, limit: u8) -> u64 {
        let changes = self.read().guarded(changes, limit);
        self.publish(changes)
    }

    /// How many objects are kept that their store has lost.
    pub fn lost(&self) -> usize {
        self.read().lost
    }

    /// The objects that are kept, of those that `wanted` names.
    pub fn lost_of(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Entry> {
        let content = self.read();
        if content.lost == 0 {
            return Vec::new();
        }
        let lost = content.entries.values().filter(|entry| entry.version == LOST && wanted(&entry.key));
        lost.cloned().collect()
    }

    /// These of them are gone, then.
    pub fn let_go(&self, lost: Vec<Entry>) {
        self.publish(lost.into_iter().map(Change::Deleted).collect());
    }

    /// Every transaction after `revision`.
    pub fn watch(self: &Arc<Self>, revision: u64) -> Watch {
        struct Reader {
            image: Arc<Image>,
            seen: u64,
            news: watch::Receiver<u64>,
            over: bool,
        }
        let reader =
            Reader { image: self.clone(), seen: revision, news: self.revision.subscribe(), over: false };
        Box::pin(stream::unfold(reader, |mut reader| async move {
            if reader.over {
                return None;
            }
            loop {
                // Marked as seen before looking, so that a change after the look wakes us.
                reader.news.mark_unchanged();
                match reader.image.after(reader.seen) {
                    Ok(Some(transaction)) => {
                        reader.seen = transaction.revision;
                        return Some((Ok(transaction), reader));
                    }
                    Err(compacted) => {
                        reader.over = true;
                        return Some((Err(compacted), reader));
                    }
                    Ok(None) => {}
                }
                // The reader holds the image, and with it the sender: this cannot end.
                reader.news.changed().await.ok()?;
            }
        }))
    }

    fn after(&self, revision: u64) -> Result<Option<Arc<Transaction>>, StoreError> {
        let content = self.read();
        if revision < content.forgotten || revision > content.revision {
            return Err(StoreError::Compacted { asked: revision, oldest: content.forgotten });
        }
        let next = content.log.partition_point(|transaction| transaction.revision <= revision);
        Ok(content.log.get(next).cloned())
    }

    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn versions(&self, writes: &[Write]) -> Vec<u64> {
        let version = |write: &Write| self.entries.get(write.key()).map_or(0, |entry| entry.version);
        writes.iter().map(version).collect()
    }

    fn plan(&self, writes: &[Write]) -> Result<Plan, StoreError> {
        let next = self.revision + 1;
        let mut seen = BTreeSet::new();
        let mut changes = Vec::new();
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            if !seen.insert(write.key()) {
                return Err(StoreError::Twice(write.key().clone()));
            }
            let old = self.entries.get(write.key());
            outcomes.push(match write {
                Write::Put { key, json, expected } => {
                    check(key, *expected, old)?;
                    let new = || Entry { key: key.clone(), json: json.clone(), version: next };
                    match old {
                        Some(old) if old.json == *json && old.version != LOST => {
                            Outcome::Unchanged(old.version)
                        }
                        Some(_) => {
                            changes.push(Change::Modified(new()));
                            Outcome::Configured(next)
                        }
                        None => {
                            changes.push(Change::Added(new()));
                            Outcome::Created(next)
                        }
                    }
                }
                Write::Delete { key, expected } => {
                    check(key, *expected, old)?;
                    let old = old.ok_or_else(|| StoreError::NotFound(key.clone()))?;
                    changes.push(Change::Deleted(old.clone()));
                    Outcome::Deleted
                }
            });
        }
        let revision = if changes.is_empty() { self.revision } else { next };
        Ok(Plan { changes, written: Written { revision, outcomes } })
    }

    fn publish(&mut self, changes: Vec<Change>) {
        for change in &changes {
            let old = match change {
                Change::Added(entry) | Change::Modified(entry) => {
                    self.lost += usize::from(entry.version == LOST);
                    self.entries.insert(entry.key.clone(), entry.clone())
                }
                Change::Deleted(entry) => self.entries.remove(&entry.key),
            };
            self.lost -= usize::from(old.is_some_and(|old| old.version == LOST));
        }
        self.revision += 1;
        self.log_changes += changes.len();
        self.log.push_back(Arc::new(Transaction { revision: self.revision, changes }));
        // The newest stays, however large: those who follow closely must not be thrown back.
        while self.log_changes > LOG_CHANGES && self.log.len() > 1 {
            let oldest = self.log.pop_front().expect("the log was just seen to hold two transactions");
            self.log_changes -= oldest.changes.len();
            self.forgotten = oldest.revision;
        }
    }

    /// The changes without their deletions, if those are a loss; and never with those of what was lost before.
    fn guarded(&self, mut changes: Vec<Change>, limit: u8) -> Vec<Change> {
        changes.retain(|change| !matches!(change, Change::Deleted(entry) if entry.version == LOST));
        let gone = changes.iter().filter(|change| matches!(change, Change::Deleted(_))).count();
        if gone > FEW && gone * 100 > self.entries.len() * usize::from(limit) {
            for change in &mut changes {
                if let Change::Deleted(entry) = change {
                    *change = Change::Modified(Entry { version: LOST, ..entry.clone() });
                }
            }
        }
        changes
    }

    fn news(&self, told: BTreeMap<Key, Option<Entry>>) -> Vec<Change> {
        let news = told.into_iter().filter_map(|(key, told)| match (told, self.entries.get(&key)) {
            (Some(new), None) => Some(Change::Added(new)),
            (Some(new), Some(old)) => (new != *old).then_some(Change::Modified(new)),
            (None, old) => old.cloned().map(Change::Deleted),
        });
        news.collect()
    }

    fn difference(&self, mut new: BTreeMap<Key, Entry>) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, old) in &self.entries {
            match new.remove(key) {
                None => changes.push(Change::Deleted(old.clone())),
                Some(entry) if entry != *old => changes.push(Change::Modified(entry)),
                Some(_) => {}
            }
        }
        changes.extend(new.into_values().map(Change::Added));
        changes
    }
}

fn check(key: &Key, expected: Expected, old: Option<&Entry>) -> Result<(), StoreError> {
    match (expected, old) {
        (Expected::Nothing, Some(_)) => Err(StoreError::AlreadyExists(key.clone())),
        (Expected::Something | Expected::Version(_), None) => Err(StoreError::NotFound(key.clone())),
        (Expected::Version(expected), Some(old)) if expected != old.version => {
            Err(StoreError::Conflict { key: key.clone(), expected, actual: old.version })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    fn entry(at: usize, version: u64) -> Entry {
        Entry { key: Key::global(Kind::Tier, format!("t{at:02}")), json: "{}".into(), version }
    }

    fn listed(range: impl IntoIterator<Item = usize>) -> BTreeMap<Key, Entry> {
        range.into_iter().map(|at| (entry(at, 5).key, entry(at, 5))).collect()
    }

    fn versions(image: &Image) -> Vec<u64> {
        image.list().entries.iter().map(|entry| entry.version).collect()
    }

    #[test]
    fn a_loss_is_not_followed_until_it_is_confirmed() {
        let image = Image::new([], 0);
        image.replace_guarded(listed(0..80), 25);
        // A quarter may go, and a few whatever share they are.
        image.replace_guarded(listed(0..60), 25);
        assert_eq!((image.list().entries.len(), image.lost()), (60, 0));
        let small = Image::new([], 0);
        small.replace_guarded(listed(0..20), 25);
        small.replace_guarded(listed(0..0), 25);
        assert_eq!(small.list().entries, []);

        image.replace_guarded(listed([0, 70]), 25);
        assert_eq!((image.list().entries.len(), image.lost()), (61, 59));
        // It stays so whatever else happens: after a reconnection, after a restart, when one is deleted.
        image.replace_guarded(listed([0]), 25);
        let again = Image::new(image.list().entries, 9);
        assert_eq!((again.list().entries.len(), again.lost()), (60, 59));
        again.replace_guarded(listed((0..1).chain(60..99)), 25);
        assert_eq!(again.lost(), 59);

        // Some are back by themselves, one is written again, one is deleted by its name.
        again.replace_guarded(listed((0..30).chain(60..99)), 25);
        assert_eq!(again.lost(), 30);
        let write =
            |at| Write::Put { key: entry(at, 0).key, json: "{}".into(), expected: Expected::Anything };
        let plan = again.plan(&[write(30)]).unwrap();
        assert!(matches!(plan.written.outcomes[..], [Outcome::Configured(_)]), "it is not there unchanged");
        assert_eq!(again.versions(&[write(30)]), [0], "the store has none");
        again.publish(plan.changes);
        again.let_go(again.lost_of(|key| *key == entry(31, 0).key));
        assert_eq!((again.lost(), again.list().entries.len()), (28, 98));

        again.let_go(again.lost_of(|_| true));
        assert_eq!((again.lost(), again.list().entries.len()), (0, 70));
        assert!(versions(&again).iter().all(|version| *version > 0));
        // And never, where that is wanted.
        again.replace_guarded(listed(0..0), 100);
        assert_eq!(again.list().entries, []);
    }
}
