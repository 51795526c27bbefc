//! Reads: what is stored, and what changes.

use super::{Cluster, failure};
use crate::{
    datastore::{Change, Entry, Listing},
    ipam::Block,
    model::{Kind, Resource, Selector},
};
use futures::{StreamExt, future, stream, stream::BoxStream};
use margay_api::control::v1::{GetRequest, GetResponse, Object, WatchEvent, WatchRequest, watch_event::Type};
use serde_json::Value;
use tonic::Status;

impl Cluster<'_> {
    pub(super) async fn get(&self, request: GetRequest) -> Result<GetResponse, Status> {
        let wanted = Wanted {
            kind: Some(failure::kind(&request.kind)?),
            namespace: request.namespace,
            name: request.name,
        };
        let selector = Selector::parse(&request.selector)
            .map_err(|error| Status::invalid_argument(format!("selector {:?}: {error}", request.selector)))?;
        let mut listing = self.store.list().await.map_err(failure::store)?;
        if wanted.kind == Some(Kind::BlockAffinity) {
            listing.entries = affinities(&listing);
        }
        let found = listing.entries.iter().filter(|entry| wanted.includes(entry));
        let found = found.filter(|entry| request.selector.is_empty() || selected(entry, &selector));
        let objects: Vec<Object> = found.map(object).collect();
        if objects.is_empty() && !wanted.name.is_empty() {
            return Err(Status::not_found(format!("{wanted} not found")));
        }
        Ok(GetResponse { objects, resource_version: version(listing.revision) })
    }

    pub(super) async fn watch(
        &self,
        request: WatchRequest,
    ) -> Result<BoxStream<'static, Result<WatchEvent, Status>>, Status> {
        let kind = if request.kind.is_empty() { None } else { Some(failure::kind(&request.kind)?) };
        if kind == Some(Kind::BlockAffinity) {
            let message = "a BlockAffinity is a way to read an IPAMBlock: watch ipamblocks";
            return Err(Status::invalid_argument(message));
        }
        if !request.for_node.is_empty() {
            let message = "an agent has no views of nodes: leave for_node empty, or ask a relay";
            return Err(Status::failed_precondition(message));
        }
        let is_agent = request.agent;
        let wanted = Wanted { kind, namespace: request.namespace, name: request.name };
        let listing = self.store.list().await.map_err(failure::store)?;
        let changes = self.store.watch(listing.revision).await.map_err(failure::store)?;

        let show = if is_agent { stored } else { object };
        let mark = move |kind: Type, revision: u64| {
            let resume = if is_agent { revision.to_string() } else { String::new() };
            WatchEvent { resume, ..event(kind, None) }
        };
        let present: Vec<_> = listing
            .entries
            .iter()
            .filter(|entry| wanted.includes(entry))
            .map(|entry| Ok(event(Type::Added, Some(show(entry)))))
            .collect();
        let synced = Ok(mark(Type::Synced, listing.revision));
        let changes = changes.flat_map(move |transaction| {
            stream::iter(match transaction {
                Err(error) => vec![Err(failure::store(error))],
                Ok(transaction) => {
                    let of_interest =
                        transaction.changes.iter().filter(|change| wanted.includes(change.entry()));
                    let mut all: Vec<_> = of_interest.map(|change| Ok(changed(change, show))).collect();
                    if is_agent && !all.is_empty() {
                        all.push(Ok(mark(Type::Committed, transaction.revision)));
                    }
                    all
                }
            })
        });
        let mut stopping = self.stopping.clone();
        let stop = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let all = stream::iter(present).chain(stream::once(future::ready(synced))).chain(changes);
        Ok(all.take_until(Box::pin(stop)).boxed())
    }
}

/// What a request asks for. Empty: any.
struct Wanted {
    kind: Option<Kind>,
    namespace: String,
    name: String,
}

impl Wanted {
    fn includes(&self, entry: &Entry) -> bool {
        let any = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        self.kind.is_none_or(|kind| kind == entry.key.kind)
            && (!entry.key.kind.is_namespaced() || any(&self.namespace, &entry.key.namespace))
            && any(&self.name, &entry.key.name)
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(kind) = self.kind {
            write!(f, "{kind} ")?;
            if kind.is_namespaced() && !self.namespace.is_empty() {
                write!(f, "{}/", self.namespace)?;
            }
        }
        f.write_str(&self.name)
    }
}

/// Whose each block is: read from the blocks, so that the two cannot disagree.
fn affinities(listing: &Listing) -> Vec<Entry> {
    let blocks = listing.entries.iter().filter(|entry| entry.key.kind == Kind::IPAMBlock);
    let affinities = blocks.filter_map(|entry| {
        let Ok(Resource::IPAMBlock(block)) = Resource::from_json(&entry.json) else { return None };
        let affinity = Resource::from(Block::parse(&block).ok()?.affinity()?);
        Some(Entry { key: affinity.key(), json: affinity.to_json().into(), version: entry.version })
    });
    affinities.collect()
}

/// As users see it; 0 is that of what was never stored.
pub(super) fn version(version: u64) -> String {
    if version == 0 { String::new() } else { version.to_string() }
}

fn selected(entry: &Entry, selector: &Selector) -> bool {
    Resource::from_json(&entry.json).is_ok_and(|resource| selector.matches(&resource.metadata().labels))
}

fn changed(change: &Change, show: fn(&Entry) -> Object) -> WatchEvent {
    let kind = match change {
        Change::Added(_) => Type::Added,
        Change::Modified(_) => Type::Modified,
        Change::Deleted(_) => Type::Deleted,
    };
    event(kind, Some(show(change.entry())))
}

fn event(kind: Type, object: Option<Object>) -> WatchEvent {
    WatchEvent { r#type: kind.into(), object, ..WatchEvent::default() }
}

/// The object as it is stored.
fn stored(entry: &Entry) -> Object {
    Object {
        kind: entry.key.kind.to_string(),
        namespace: entry.key.namespace.clone(),
        name: entry.key.name.clone(),
        json: entry.json.to_string(),
        resource_version: version(entry.version),
    }
}

/// The object, with its version in the metadata: written back so, it is written only if nobody
/// else has written in between.
fn object(entry: &Entry) -> Object {
    let resource_version = version(entry.version);
    let json = match serde_json::from_str::<Value>(&entry.json) {
        Ok(mut value) if !resource_version.is_empty() => {
            if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("resourceVersion".into(), Value::String(resource_version.clone()));
            }
            value.to_string()
        }
        _ => entry.json.to_string(),
    };
    Object { json, resource_version, ..stored(entry) }
}
