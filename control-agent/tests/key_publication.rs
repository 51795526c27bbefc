//! The public key that the dataplane has made reaches the Node in the store, and leaves it again.

mod rig;

use margay_agent::{
    calc::LANES,
    datastore::{Datastore, Expected, Memory, Run, Write},
    model::{Key, Kind, Resource},
};
use rig::{Fake, Running};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const PRINTED: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

const NEXT: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

async fn put(store: &Memory, kind: &str, name: &str, spec: Value) {
    let object =
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let resource = Resource::from_json(&object.to_string()).unwrap();
    let write =
        Write::Put { key: resource.key(), json: resource.to_json().into(), expected: Expected::Anything };
    store.commit(vec![write], Run::Real).await.unwrap();
}

/// Waits until the node's status is this.
async fn becomes(store: &Memory, status: Value) {
    let pursuit = async {
        loop {
            let entry = store.get(&Key::global(Kind::Node, "a")).await.unwrap().unwrap();
            let node: Value = serde_json::from_str(&entry.json).unwrap();
            let lanes = &node["metadata"]["annotations"][LANES];
            if node["status"] == status && lanes.as_str() == Some("16").filter(|_| !status.is_null()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), pursuit)
        .await
        .unwrap_or_else(|_| panic!("it becomes {status}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_published_while_encryption_is_on() {
    let dir = tempfile::tempdir().unwrap();
    let dataplane = dir.path().join("dataplane.sock");
    let fake = Fake::start(&dataplane, 0, []);
    let store = Arc::new(Memory::new());
    let addresses = json!({"bgp": {"ipv4Address": "192.168.0.1/24", "ipv6Address": "fd00::1/64"}});
    put(&store, "Node", "a", addresses.clone()).await;
    put(&store, "FelixConfiguration", "default", json!({"wireguardEnabled": true})).await;
    let _agent = Running::start("a", store.clone(), &dir.path().join("agent.sock"), &dataplane).await;

    // Asked for, and not there yet.
    fake.asked_for_status(2).await;
    becomes(&store, Value::Null).await;
    fake.has_key(vec![7; 32]);
    becomes(&store, json!({"wireguardPublicKey": PRINTED})).await;

    // Somebody writes the Node as he knows it.
    put(&store, "Node", "a", addresses).await;
    becomes(&store, json!({"wireguardPublicKey": PRINTED})).await;

    let both = json!({"wireguardEnabled": true, "wireguardEnabledV6": true});
    put(&store, "FelixConfiguration", "default", both).await;
    becomes(&store, json!({"wireguardPublicKey": PRINTED, "wireguardPublicKeyV6": PRINTED})).await;

    // Rotated, while nothing else happens.
    fake.has_key(vec![9; 32]);
    becomes(&store, json!({"wireguardPublicKey": NEXT, "wireguardPublicKeyV6": NEXT})).await;

    put(&store, "FelixConfiguration", "default", json!({})).await;
    becomes(&store, Value::Null).await;
}
