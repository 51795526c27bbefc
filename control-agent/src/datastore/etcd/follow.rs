//! Keeps the image like etcd's content.

use super::{
    super::{Change, Entry, image::Image},
    ANSWER, Following,
    path::Paths,
    settings::Settings,
};
use crate::{backoff::Backoff, health::Health, model::Key};
use etcd_client::{Client, Event, EventType, GetOptions, KeyValue, WatchOptions, WatchStream};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::watch, time::timeout};

/// Objects asked for at once when listing.
const PAGE: i64 = 1000;
/// Bytes of one answer: a page of the largest objects that etcd takes by default is not reached.
const MESSAGE: usize = 256 << 20;

pub(super) struct Follower {
    pub settings: Settings,
    pub name: String,
    pub paths: Paths,
    pub image: Arc<Image>,
    /// In percent: see [`Past`](super::Past).
    pub loss_limit: u8,
    pub following: watch::Sender<Following>,
    pub health: Arc<Health>,
}

impl Follower {
    /// For as long as it is not aborted.
    pub async fn run(self, mut backoff: Backoff) {
        loop {
            let reason = match self.follow(&mut backoff).await {
                Ok(()) => "the watch ended".to_owned(),
                Err(reason) => reason,
            };
            let kept = if self.image.revision() > 0 { "; its last known state is kept" } else { "" };
            self.health.bad(format!("{}: {reason}{kept}", self.name));
            backoff.pause().await;
        }
    }

    /// One connection: everything, compared with what is known; then each change.
    async fn follow(&self, backoff: &mut Backoff) -> Result<(), String> {
        let in_time = |_| format!("no answer in {} s", ANSWER.as_secs());
        let client = timeout(ANSWER, self.settings.connect()).await.map_err(in_time)??;
        let listed = self.list(&client).await?;
        let options = WatchOptions::new().with_prefix().with_prev_key();
        // From what was listed on, not from behind it: etcd tells a watch that begins exactly where the history was compacted
        // nothing of objects that were deleted there (etcd-io/etcd#18089), and ends one that begins before.
        let options = options.with_start_revision(listed.revision);
        let mut watch_client = client.watch_client().max_decoding_message_size(MESSAGE);
        let watching = watch_client.watch(self.paths.prefix(), Some(options));
        let mut events = timeout(ANSWER, watching).await.map_err(in_time)?.map_err(|e| e.to_string())?;
        self.image.replace_guarded(listed.entries, self.loss_limit);
        self.following.send_replace(Following { client: Some(client), commit: listed.commit });
        tell(&self.health, &self.name, &self.image);
        backoff.reset();
        self.take(&mut events, listed.revision).await
    }

    /// What comes after `seen`.
    async fn take(&self, events: &mut WatchStream, seen: i64) -> Result<(), String> {
        while let Some(news) = events.message().await.map_err(|error| error.to_string())? {
            if news.canceled() {
                return Err(match news.compact_revision() {
                    0 => format!("the watch was cancelled: {}", news.cancel_reason()),
                    revision => format!("compacted to revision {revision} meanwhile: listing again"),
                });
            }
            // A message has whole revisions, in order: each is a transaction.
            let transactions = news.events().chunk_by(|one, other| revision(one) == revision(other));
            for transaction in transactions.filter(|transaction| revision(&transaction[0]) > seen) {
                self.publish(transaction)?;
            }
        }
        Ok(())
    }

    fn publish(&self, transaction: &[Event]) -> Result<(), String> {
        let mut changes = Vec::with_capacity(transaction.len());
        let mut commit = None;
        for event in transaction {
            let Some(kv) = event.kv() else { continue };
            if kv.key() == self.paths.commits().as_bytes() && event.event_type() == EventType::Put {
                commit = Some(kv.mod_revision());
            }
            let Some(key) = self.paths.key(kv.key()) else { continue };
            changes.extend(self.change(event.event_type(), key, kv)?);
        }
        let had_lost = self.image.lost() > 0;
        match commit {
            Some(_) => self.image.publish(changes),
            // By no agent: perhaps by nobody who knows what that is.
            None => self.image.publish_guarded(changes, self.loss_limit),
        };
        if had_lost || self.image.lost() > 0 {
            tell(&self.health, &self.name, &self.image);
        }
        // After the image: whoever waits for a commit finds it there.
        self.following.send_modify(|following| following.commit = commit.unwrap_or(following.commit));
        Ok(())
    }

    fn change(
        &self,
        kind: EventType,
        key: Result<Key, String>,
        kv: &KeyValue,
    ) -> Result<Option<Change>, String> {
        if kind == EventType::Delete {
            // Of what was never known here, too: nothing was there.
            return Ok(key.ok().and_then(|key| self.image.get(&key)).map(Change::Deleted));
        }
        let entry = entry(key?, kv)?;
        let known = self.image.get(&entry.key).is_some();
        Ok(Some(if known { Change::Modified(entry) } else { Change::Added(entry) }))
    }

    /// Everything at one revision, a page at a time.
    async fn list(&self, client: &Client) -> Result<Listed, String> {
        let mut kv = client.kv_client().max_decoding_message_size(MESSAGE);
        let end = end_of(self.paths.prefix());
        let mut listed = Listed { entries: BTreeMap::new(), revision: 0, commit: 0 };
        let mut from = self.paths.prefix().as_bytes().to_vec();
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            if listed.revision != 0 {
                options = options.with_revision(listed.revision);
            }
            let page = timeout(ANSWER, kv.get(from, Some(options))).await;
            let page = page.map_err(|_| format!("no answer in {} s", ANSWER.as_secs()))?;
            let page = page.map_err(|error| error.to_string())?;
            let revision = page.header().map_or(0, |header| header.revision());
            listed.revision = if listed.revision == 0 { revision } else { listed.revision };
            for kv in page.kvs() {
                if kv.key() == self.paths.commits().as_bytes() {
                    listed.commit = kv.mod_revision();
                }
                if let Some(key) = self.paths.key(kv.key()) {
                    let entry = entry(key?, kv)?;
                    listed.entries.insert(entry.key.clone(), entry);
                }
            }
            match page.kvs().last() {
                Some(last) if page.more() => from = [last.key(), &[0]].concat(),
                _ => return Ok(listed),
            }
        }
    }
}

/// That etcd is followed, and how far.
pub(super) fn tell(health: &Health, name: &str, image: &Image) {
    match image.lost() {
        0 => health.good(format!("{name} followed")),
        lost => health.bad(format!(
            "{name}: {lost} of its objects are gone at once, as if it had been emptied or set back: they stay in force \
             here. Restore it; or, if they are meant to be gone, `margayctl datastore confirm`"
        )),
    }
}

struct Listed {
    entries: BTreeMap<Key, Entry>,
    revision: i64,
    commit: i64,
}

fn entry(key: Key, kv: &KeyValue) -> Result<Entry, String> {
    let json = kv.value_str().map_err(|_| format!("{key} is not UTF-8: delete it, or write it again"))?;
    Ok(Entry { key, json: json.into(), version: kv.mod_revision() as u64 })
}

fn revision(event: &Event) -> i64 {
    event.kv().map_or(0, KeyValue::mod_revision)
}

/// The first key after all with this prefix, which ends in a slash.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
