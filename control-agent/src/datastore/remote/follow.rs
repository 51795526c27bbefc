//! Keeps the image like the other side's content.

use super::{
    super::{Entry, image::Image},
    Pending,
    reach::Reach,
    version,
};
use crate::{
    backoff::Backoff,
    health::Health,
    model::{Key, Kind},
};
use futures::{FutureExt, StreamExt};
use margay_api::control::v1::{
    Object, WatchEvent, WatchRequest, control_client::ControlClient, watch_event::Type,
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;
use tonic::{Status, Streaming, transport::Channel};

/// What became of objects, by the last that was said of each; none: it is gone.
type Told = BTreeMap<Key, Option<Entry>>;

pub(super) struct Follower {
    pub reach: Reach,
    pub image: Arc<Image>,
    pub pending: Arc<Pending>,
    /// The connection that is followed, for all else that is asked.
    pub client: watch::Sender<Option<ControlClient<Channel>>>,
    pub listed: watch::Sender<bool>,
    pub health: Arc<Health>,
    /// What the other side goes on from; empty: from nothing.
    pub resume: String,
    pub attempts: usize,
}

impl Follower {
    /// For as long as it is not aborted.
    pub async fn run(mut self, mut backoff: Backoff) {
        loop {
            let why = match self.follow(&mut backoff).await {
                Ok(()) => "the watch ended".to_owned(),
                Err(why) => why,
            };
            let kept = if *self.listed.borrow() { "; its last known state is kept" } else { "" };
            self.health.bad(format!("{}: {why}{kept}", self.reach.name()));
            // Where there are several, the next one.
            self.attempts = self.attempts.wrapping_add(1);
            backoff.pause().await;
        }
    }

    /// One connection: everything, compared with what is known, or what has changed; then each change.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<(), String> {
        let mut client = self.reach.client(self.attempts).await?;
        let request = WatchRequest {
            agent: true,
            for_node: self.reach.node().unwrap_or_default().to_owned(),
            resume: self.resume.clone(),
            ..WatchRequest::default()
        };
        let mut events = client.watch(request).await.map_err(said)?.into_inner();
        self.begin(&mut events).await?;
        self.client.send_replace(Some(client));
        self.listed.send_replace(true);
        self.tell("");
        backoff.reset();
        match self.resume.is_empty() {
            true => self.unmarked(events).await,
            false => self.marked(events).await,
        }
    }

    /// Takes the list, unless what is known stands.
    async fn begin(&mut self, events: &mut Streaming<WatchEvent>) -> Result<(), String> {
        let mut present = BTreeMap::new();
        loop {
            let event = events.message().await.map_err(said)?.ok_or("the watch ended in its list")?;
            match event.r#type() {
                Type::Synced => {
                    self.image.replace(present);
                    self.resume = event.resume;
                    return Ok(());
                }
                Type::Resumed => {
                    self.resume = event.resume;
                    return Ok(());
                }
                _ => {
                    let entry = entry(event.object)?;
                    present.insert(entry.key.clone(), entry);
                }
            }
        }
    }

    /// Changes whose ends are marked.
    async fn marked(&mut self, mut events: Streaming<WatchEvent>) -> Result<(), String> {
        let mut told = Told::new();
        while let Some(event) = events.message().await.map_err(said)? {
            match event.r#type() {
                Type::Committed => {
                    self.image.take_over(std::mem::take(&mut told));
                    self.resume = event.resume;
                }
                Type::Store => self.tell(&event.problem),
                _ => self.gather(event, &mut told)?,
            }
        }
        Ok(())
    }

    /// Changes of one who does not mark them: those that were made together arrive together.
    async fn unmarked(&mut self, mut events: Streaming<WatchEvent>) -> Result<(), String> {
        while let Some(event) = events.next().await {
            let mut told = Told::new();
            self.gather(event.map_err(said)?, &mut told)?;
            while let Some(Some(event)) = events.next().now_or_never() {
                self.gather(event.map_err(said)?, &mut told)?;
            }
            self.image.take_over(told);
        }
        Ok(())
    }

    fn gather(&self, event: WatchEvent, told: &mut Told) -> Result<(), String> {
        let is_there = match event.r#type() {
            Type::Added | Type::Modified => true,
            Type::Deleted => false,
            // Of a later release's that say nothing of objects.
            _ => return Ok(()),
        };
        let entry = entry(event.object)?;
        if self.pending.is_outdated(&entry) {
            return Ok(());
        }
        told.insert(entry.key.clone(), is_there.then_some(entry));
        Ok(())
    }

    /// How the other side is with its own store.
    fn tell(&self, problem: &str) {
        let name = self.reach.name();
        match (problem, self.reach.node()) {
            ("", None) => self.health.good(format!("{name} followed")),
            ("", Some(node)) => self.health.good(format!("{name} followed: what node {node} needs")),
            (problem, _) => self.health.bad(format!("{name} keeps what it last knew: {problem}")),
        }
    }
}

fn said(status: Status) -> String {
    status.message().to_owned()
}

pub(super) fn entry(object: Option<Object>) -> Result<Entry, String> {
    let object = object.ok_or("the other side sent an event without an object")?;
    let kind = Kind::parse(&object.kind)
        .map_err(|error| format!("the other side has objects that are not known here: {error}"))?;
    let key = Key { kind, namespace: object.namespace, name: object.name };
    Ok(Entry { key, json: without_version(object.json)?.into(), version: version(&object.resource_version)? })
}

/// What is shown to users has the version in its metadata; what is stored does not.
fn without_version(json: String) -> Result<String, String> {
    if !json.contains("\"resourceVersion\"") {
        return Ok(json);
    }
    let mut object: Value =
        serde_json::from_str(&json).map_err(|error| format!("the other side sent no JSON: {error}"))?;
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    Ok(object.to_string())
}
