//! What a node calculates from what a relay tells it is what it would calculate from the whole store.

mod cluster;
#[path = "../rig/mod.rs"]
mod rig;

use cluster::{Dice, NODES, Step};
use margay_agent::{
    calc::{Desired, Resources, desired},
    datastore::{Datastore, Expected, Memory, Reach, Relays, Remote, Run, Write},
    model::{Cidr, Key, Kind, Resource},
};
use margay_api::dataplane::v1::{Route, route::Target};
use rig::{EAGER, Relayed};
use std::{collections::BTreeMap, path::Path, sync::Arc};

fn follow(socket: &Path, node: &str) -> Remote {
    let addresses = vec![socket.display().to_string()];
    Remote::with_snapshot(
        Reach::Relays(Relays { addresses, files: None, node: Some(node.into()) }),
        None,
        EAGER,
    )
}

async fn calculated(store: &dyn Datastore, node: &str) -> Desired {
    let entries = store.list().await.unwrap().entries;
    let resources: Resources =
        entries.iter().map(|entry| Resource::from_json(&entry.json).unwrap()).collect();
    desired(&resources, node)
}

/// Without what is of no consequence to a packet: routes to nowhere within what leads nowhere, and sentences.
fn told(mut desired: Desired) -> Desired {
    desired.problems.clear();
    let leads_nowhere = |route: &Route| matches!(route.target, Some(Target::Blackhole(_)));
    let mut around: Vec<(Cidr, bool)> = Vec::new();
    let mut kept = BTreeMap::new();
    for (net, route) in &desired.routes {
        while around.pop_if(|(outer, _)| !outer.contains(net.addr())).is_some() {}
        let nowhere = leads_nowhere(route);
        if !(nowhere && around.last().is_some_and(|(_, nowhere)| *nowhere)) {
            around.push((*net, nowhere));
            kept.insert(*net, route.clone());
        }
    }
    desired.routes = kept.into_iter().collect();
    desired
}

/// Changes, and what they come to on each node.
async fn run(seed: u64, steps: usize) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("relay.sock");
    let store = Arc::new(Memory::new());
    let mut dice = Dice::new(seed);
    let mut there: BTreeMap<Key, String> = BTreeMap::new();
    let relay = Relayed::start(store.clone(), &socket).await;
    let mut nodes: Vec<(&str, Remote)> = Vec::new();
    let barrier = Key::global(Kind::IPReservation, "barrier");
    for step in 0..steps {
        let mut writes = BTreeMap::new();
        for _ in 0..=dice.below(4) {
            match dice.step(&there) {
                Step::Put(key, json) => {
                    there.insert(key.clone(), json.clone());
                    let json = json.into();
                    writes.insert(key.clone(), Write::Put { key, json, expected: Expected::Anything });
                }
                Step::Delete(key) => {
                    there.remove(&key);
                    match store.get(&key).await.unwrap() {
                        Some(_) => {
                            let expected = Expected::Anything;
                            writes.insert(key.clone(), Write::Delete { key, expected });
                        }
                        None => drop(writes.remove(&key)),
                    }
                }
            }
        }
        store.commit(writes.into_values().collect(), Run::Real).await.unwrap();
        // Everybody is told of this one, after all else.
        let json = cluster::reservation(step);
        let write = Write::Put { key: barrier.clone(), json: json.into(), expected: Expected::Anything };
        store.commit(vec![write], Run::Real).await.unwrap();
        let reached = store.get(&barrier).await.unwrap();
        // They come one after the other, when much is there already.
        if step % 5 == 0 && nodes.len() < NODES.len() {
            let node = NODES[nodes.len()];
            nodes.push((node, follow(&socket, node)));
        }
        for (node, remote) in &nodes {
            while remote.get(&barrier).await.ok().flatten() != reached {
                tokio::task::yield_now().await;
            }
            let expected = told(calculated(&*store, node).await);
            let found = told(calculated(remote, node).await);
            assert_eq!(found.ip_sets, expected.ip_sets, "seed {seed}, step {step}, node {node}");
            assert_eq!(found.routes, expected.routes, "seed {seed}, step {step}, node {node}");
            assert_eq!(found, expected, "seed {seed}, step {step}, node {node}");
        }
    }
    // It would be no relay if it told everybody everything.
    let (all, some) = (there.len(), nodes[0].1.list().await.unwrap().entries.len());
    assert!(some <= all + 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_is_told_comes_to_the_same_as_everything() {
    let first = std::env::var("MARGAY_RELAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + 12 {
        run(seed, 40).await;
    }
}
