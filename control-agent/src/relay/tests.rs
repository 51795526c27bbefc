//! What readers are told, and when they begin anew.

use super::{Reader, Relay, Settings, encoded::Frame};
use crate::{
    backoff::Backoff,
    datastore::{Datastore, Expected, Memory, Run, Write, is_told_to_all},
    model::{Key, Kind},
};
use futures::{FutureExt, StreamExt};
use margay_api::control::v1::{WatchEvent, watch_event::Type};
use prost::Message as _;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const EAGER: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));

/// A store, and a relay of it.
struct Scene {
    store: Arc<Memory>,
    relay: Relay,
}

fn object(kind: &str, metadata: Value, spec: Value) -> (Key, String) {
    let text =
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec});
    let resource =
        crate::model::Resource::from_json(&text.to_string()).unwrap_or_else(|errors| panic!("{errors:?}"));
    (resource.key(), resource.to_json())
}

fn endpoint(node: &str, name: &str, app: &str) -> (Key, String) {
    object(
        "WorkloadEndpoint",
        json!({"name": format!("{node}-k8s-{name}-eth0"), "namespace": "shop", "labels": {"app": app}}),
        json!({"node": node, "orchestrator": "k8s", "pod": name, "endpoint": "eth0", "interfaceName": format!("cali{name}")}),
    )
}

fn policy(name: &str, own: &str, from: &str) -> (Key, String) {
    object(
        "NetworkPolicy",
        json!({"name": name, "namespace": "shop"}),
        json!({"selector": format!("app == '{own}'"),
               "ingress": [{"action": "Allow", "source": {"selector": format!("app == '{from}'")}}]}),
    )
}

fn set(name: &str, net: &str) -> (Key, String) {
    object("GlobalNetworkSet", json!({"name": name}), json!({"nets": [net]}))
}

fn tier(name: &str, order: u32) -> (Key, String) {
    object("Tier", json!({"name": name}), json!({"order": order}))
}

impl Scene {
    fn new(settings: Settings) -> Self {
        let store = Arc::new(Memory::new());
        let relay = Relay::start(store.clone(), settings, EAGER);
        Self { store, relay }
    }

    async fn put(&self, objects: impl IntoIterator<Item = (Key, String)>) {
        let put =
            |(key, json): (Key, String)| Write::Put { key, json: json.into(), expected: Expected::Anything };
        self.store.commit(objects.into_iter().map(put).collect(), Run::Real).await.unwrap();
    }

    async fn delete(&self, (key, _): (Key, String)) {
        let write = Write::Delete { key, expected: Expected::Something };
        self.store.commit(vec![write], Run::Real).await.unwrap();
    }

    async fn reader(&self, node: Option<&str>, resume: &str) -> Told {
        let reader = Reader { name: "somebody".into(), node: node.map(str::to_owned) };
        loop {
            if let Ok(events) = self.relay.events(reader.clone(), resume).await {
                return Told { events };
            }
            tokio::task::yield_now().await;
        }
    }
}

struct Told {
    events: super::Events,
}

impl Told {
    async fn next(&mut self) -> Result<WatchEvent, tonic::Status> {
        let frame = self.events.next().await.expect("it goes on")?;
        Ok(match frame {
            Frame::Event(event) => *event,
            frame => {
                let mut bytes = Vec::new();
                frame.write(&mut bytes);
                WatchEvent::decode(&*bytes).unwrap()
            }
        })
    }

    /// All up to the next mark: signs and names, and the mark's type and place.
    async fn batch(&mut self) -> (Vec<String>, Type, String) {
        let mut all = Vec::new();
        loop {
            let event = self.next().await.unwrap();
            let sign = match event.r#type() {
                Type::Added => '+',
                Type::Modified => '~',
                Type::Deleted => '-',
                mark => return (all, mark, event.resume),
            };
            all.push(format!("{sign}{}", event.object.unwrap().name));
        }
    }

    /// The next changes, which are one transaction.
    async fn changes(&mut self) -> Vec<String> {
        let (changes, mark, _) = self.batch().await;
        assert_eq!(mark, Type::Committed);
        changes
    }
}

#[tokio::test]
async fn a_node_is_told_what_it_needs_when_it_needs_it() {
    let scene = Scene::new(Settings::default());
    scene.put([endpoint("b", "db", "db"), endpoint("b", "web", "web"), policy("p", "front", "db")]).await;
    let mut told = scene.reader(Some("a"), "").await;
    let (first, mark, _) = told.batch().await;
    assert_eq!((first, mark), (vec![], Type::Synced));

    // The first endpoint that the policy selects brings the policy, and whom it names, at once and referents first.
    scene.put([endpoint("a", "front", "front")]).await;
    assert_eq!(told.changes().await, ["+p", "+b-k8s-db-eth0", "+a-k8s-front-eth0"]);
    // Another rule, other peers.
    scene.put([policy("p", "front", "web")]).await;
    assert_eq!(told.changes().await, ["~p", "+b-k8s-web-eth0", "-b-k8s-db-eth0"]);
    // Labels change, there and here.
    scene.put([endpoint("b", "db", "web"), endpoint("b", "web", "other")]).await;
    assert_eq!(told.changes().await, ["+b-k8s-db-eth0", "-b-k8s-web-eth0"]);
    scene.put([endpoint("b", "web", "nothing"), tier("t", 5)]).await;
    assert_eq!(told.changes().await, ["+t"], "of what is not its business it hears nothing");
    scene.put([endpoint("a", "front", "idle")]).await;
    assert_eq!(told.changes().await, ["~a-k8s-front-eth0", "-b-k8s-db-eth0", "-p"]);
    scene.delete(endpoint("a", "front", "idle")).await;
    assert_eq!(told.changes().await, ["-a-k8s-front-eth0"]);
    assert!(told.events.next().now_or_never().is_none());

    let figures = scene.relay.figures();
    assert_eq!((figures.objects, figures.readers.len(), figures.readers[0].objects), (4, 1, 1));
    drop(told);
    assert_eq!(scene.relay.figures().readers.len(), 0);
}

#[tokio::test]
async fn what_is_gone_and_back_at_once_is_a_change() {
    let scene = Scene::new(Settings::default());
    scene.put([set("x", "10.0.0.0/8"), set("y", "10.0.0.0/8")]).await;
    let mut told = scene.reader(None, "").await;
    assert_eq!(told.batch().await.0, ["+x", "+y"]);
    // The last changes have just gone out: these go together.
    scene.put([tier("t", 1)]).await;
    assert_eq!(told.changes().await, ["+t"]);
    scene.delete(set("x", "10.0.0.0/8")).await;
    scene.put([set("x", "11.0.0.0/8")]).await;
    scene.delete(set("y", "10.0.0.0/8")).await;
    let mut seen = told.changes().await;
    while !seen.contains(&"-y".to_owned()) {
        seen.extend(told.changes().await);
    }
    assert!(seen == ["~x", "-y"] || seen == ["-x", "+x", "-y"], "{seen:?}");
}

#[tokio::test]
async fn who_comes_back_goes_on_or_begins_anew() {
    let scene = Scene::new(Settings { history: 3, ..Settings::default() });
    scene.put([tier("a", 1)]).await;
    let mut told = scene.reader(Some("n"), "").await;
    let (_, _, place) = told.batch().await;
    drop(told);
    scene.put([tier("b", 1)]).await;
    let mut other = scene.reader(Some("n"), &place).await;
    let (none, mark, same) = other.batch().await;
    assert_eq!((none, mark, &same), (vec![], Type::Resumed, &place));
    assert_eq!(other.changes().await, ["+b"], "what came meanwhile");

    // Three changes are remembered: of four, the first is not.
    for order in 0..4 {
        scene.put([tier("b", 10 + order)]).await;
        assert_eq!(other.changes().await, ["~b"]);
    }
    let (all, mark, _) = scene.reader(Some("n"), &place).await.batch().await;
    assert_eq!((all, mark), (vec!["+a".to_owned(), "+b".to_owned()], Type::Synced), "too long ago");
    for another in ["1-0", "nonsense", "18446744073709551615-0"] {
        assert_eq!(scene.reader(Some("n"), another).await.batch().await.1, Type::Synced, "{another}");
    }
    let figures = scene.relay.figures();
    assert_eq!((figures.resumed, figures.listed), (1, 5));
}

#[tokio::test]
async fn a_slow_reader_is_ended_and_holds_up_nobody() {
    let scene = Scene::new(Settings { history: 3, ..Settings::default() });
    scene.put([tier("a", 0)]).await;
    let mut slow = scene.reader(Some("n"), "").await;
    let mut quick = scene.reader(Some("n"), "").await;
    slow.batch().await;
    quick.batch().await;
    for order in 1..6 {
        scene.put([tier("a", order)]).await;
        assert_eq!(quick.changes().await, ["~a"]);
    }
    assert!(scene.relay.figures().readers.iter().any(|reading| reading.behind > Duration::ZERO));
    let ended = slow.next().await.unwrap_err();
    assert_eq!(ended.code(), tonic::Code::OutOfRange, "{ended}");
    assert!(slow.events.next().await.is_none());
    assert_eq!(scene.relay.figures().dropped, 1);
}

#[tokio::test]
async fn a_view_that_nobody_reads_is_forgotten_after_a_while() {
    let scene = Scene::new(Settings { keep: Duration::ZERO, ..Settings::default() });
    scene.put([tier("a", 0)]).await;
    let mut told = scene.reader(Some("n"), "").await;
    let place = told.batch().await.2;
    drop(told);
    while scene.reader(Some("n"), &place).await.batch().await.1 == Type::Resumed {
        tokio::task::yield_now().await;
    }
}

#[test]
fn members_and_policies_alone_are_not_for_everybody() {
    let grouped = |(key, json): (Key, String)| (key.kind, super::facts::Facts::of(&json).parts.is_empty());
    for object in [endpoint("a", "web", "web"), policy("p", "a", "b"), set("x", "10.0.0.0/8"), tier("t", 1)] {
        let (kind, is_common) = grouped(object);
        assert_eq!(is_told_to_all(kind), is_common, "{kind}");
    }
    let common: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| is_told_to_all(*kind)).collect();
    assert!(common.contains(&Kind::IPAMBlock) && common.contains(&Kind::Namespace));
}
