//! One suite of promises, for every store.

mod etcd;
#[path = "../rig/mod.rs"]
mod rig;

use futures::{FutureExt, StreamExt};
use margay_agent::{
    datastore::{
        Change, Datastore, Embedded, Expected, Fixed, Memory, Outcome, Reach, Relays, Remote, Run,
        StoreError, Write, fixed,
    },
    model::{Key, Kind},
};
use rig::{EAGER, Relayed, Running, next};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

fn key(name: &str) -> Key {
    Key::global(Kind::GlobalNetworkSet, name)
}

/// What the API would store of it: remote stores refuse anything else.
fn json(name: &str, net: &str) -> Arc<str> {
    let manifest = format!(
        r#"{{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkSet","metadata":{{"name":"{name}"}},"spec":{{"nets":["{net}"]}}}}"#
    );
    margay_agent::model::Resource::from_json(&manifest).unwrap().admit().unwrap().to_json().into()
}

fn put(name: &str, net: &str, expected: Expected) -> Write {
    Write::Put { key: key(name), json: json(name, net), expected }
}

fn delete(name: &str) -> Write {
    Write::Delete { key: key(name), expected: Expected::Something }
}

async fn names(store: &dyn Datastore) -> Vec<String> {
    let entries = store.list().await.unwrap().entries;
    let sets = entries.into_iter().filter(|entry| entry.key.kind == Kind::GlobalNetworkSet);
    sets.map(|entry| entry.key.name).collect()
}

/// The promises of [`Datastore`]. Errors pass other agents as codes, so `code` tells them apart.
async fn suite(store: &dyn Datastore) {
    let refused = async |writes| code(store.commit(writes, Run::Real).await.expect_err("refused"));
    let mut changes = store.watch(store.list().await.unwrap().revision).await.unwrap();

    // A transaction: one revision, all or nothing.
    let created = vec![put("a", "10.0.0.0/8", Expected::Nothing), put("b", "10.0.0.0/8", Expected::Nothing)];
    let written = store.commit(created.clone(), Run::Real).await.unwrap();
    let [Outcome::Created(version_a), Outcome::Created(version_b)] = written.outcomes[..] else {
        panic!("{:?}", written.outcomes)
    };
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().version, version_a);
    assert_eq!(store.get(&key("b")).await.unwrap().unwrap().json, json("b", "10.0.0.0/8"));
    assert!(version_a > 0 && version_b > 0);
    assert_eq!(refused(created).await, tonic::Code::AlreadyExists);
    let half = vec![put("c", "10.0.0.0/8", Expected::Nothing), put("a", "10.9.0.0/16", Expected::Nothing)];
    assert_eq!(refused(half).await, tonic::Code::AlreadyExists);
    assert_eq!(names(store).await, ["a", "b"], "nothing of a refused commit is stored");
    let twice = vec![put("c", "10.0.0.0/8", Expected::Anything), put("c", "11.0.0.0/8", Expected::Anything)];
    assert_eq!(refused(twice).await, tonic::Code::InvalidArgument);
    let dry = store.commit(vec![put("c", "10.0.0.0/8", Expected::Anything)], Run::Dry).await.unwrap();
    assert!(matches!(dry.outcomes[..], [Outcome::Created(_)]));
    assert_eq!(names(store).await, ["a", "b"], "a dry run stores nothing");

    // Compare and swap.
    let written =
        store.commit(vec![put("a", "10.1.0.0/16", Expected::Version(version_a))], Run::Real).await.unwrap();
    let [Outcome::Configured(second)] = written.outcomes[..] else { panic!("{:?}", written.outcomes) };
    assert!(second > version_a);
    assert_eq!(
        refused(vec![put("a", "10.2.0.0/16", Expected::Version(version_a))]).await,
        tonic::Code::Aborted
    );
    assert_eq!(refused(vec![put("z", "10.2.0.0/16", Expected::Something)]).await, tonic::Code::NotFound);
    let same = store.commit(vec![put("a", "10.1.0.0/16", Expected::Anything)], Run::Real).await.unwrap();
    assert_eq!(same.outcomes, [Outcome::Unchanged(second)]);

    // Deletion.
    let of = |version| vec![Write::Delete { key: key("b"), expected: Expected::Version(version) }];
    assert_eq!(refused(of(version_b + 1)).await, tonic::Code::Aborted);
    assert_eq!(store.commit(vec![delete("b")], Run::Real).await.unwrap().outcomes, [Outcome::Deleted]);
    assert_eq!(store.get(&key("b")).await.unwrap(), None);
    assert_eq!(refused(vec![delete("b")]).await, tonic::Code::NotFound);
    let back = store.commit(vec![put("b", "10.0.0.0/8", Expected::Anything)], Run::Real).await.unwrap();
    assert!(
        matches!(back.outcomes[..], [Outcome::Created(version)] if version > second),
        "versions never come back"
    );

    // The watch has seen all of it, in order, and nothing else.
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.extend(next(&mut changes).await.unwrap().changes.iter().map(title));
    }
    assert_eq!(seen, ["+a", "+b", "~a", "-b", "+b"]);
    assert!(changes.next().now_or_never().is_none());

    // From an earlier revision the same is told again; from the future nothing can be.
    let now = store.list().await.unwrap().revision;
    store.commit(vec![delete("a")], Run::Real).await.unwrap();
    let mut later = store.watch(now).await.unwrap();
    assert_eq!(next(&mut later).await.unwrap().changes.iter().map(title).collect::<Vec<_>>(), ["-a"]);
    let mut future = store.watch(u64::MAX).await.unwrap();
    assert!(matches!(next(&mut future).await, Err(StoreError::Compacted { .. })));
    assert!(future.next().await.is_none());
    assert!(store.health().state().healthy);
}

fn title(change: &Change) -> String {
    let sign = match change {
        Change::Added(_) => '+',
        Change::Modified(_) => '~',
        Change::Deleted(_) => '-',
    };
    format!("{sign}{}", change.entry().key.name)
}

fn code(error: StoreError) -> tonic::Code {
    match error {
        StoreError::AlreadyExists(_) => tonic::Code::AlreadyExists,
        StoreError::NotFound(_) => tonic::Code::NotFound,
        StoreError::Conflict { .. } => tonic::Code::Aborted,
        StoreError::Twice(_) => tonic::Code::InvalidArgument,
        StoreError::ReadOnly { .. } => tonic::Code::FailedPrecondition,
        StoreError::Refused { code, .. } => code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn memory_keeps_the_promises() {
    suite(&Memory::new()).await;
}

#[tokio::test]
async fn a_store_with_fixed_objects_keeps_the_promises() {
    suite(&Fixed::new(Arc::new(Memory::new()), "the test", fixed::built_in_tiers())).await;
}

#[tokio::test]
async fn embedded_keeps_the_promises_and_the_objects() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("not/there/yet/store.redb");
    let store = Embedded::open(&path).unwrap();
    suite(&store).await;
    let before = store.list().await.unwrap();
    let error = Embedded::open(&path).err().expect("it is open already").to_string();
    assert!(error.contains("another process has it open"), "{error}");
    drop(store);
    let store = Embedded::open(&path).unwrap();
    assert_eq!(store.list().await.unwrap(), before, "objects, versions and revision");
    let mut past = store.watch(before.revision - 1).await.unwrap();
    assert!(
        matches!(next(&mut past).await, Err(StoreError::Compacted { .. })),
        "the past is not kept on disk"
    );
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    std::fs::write(&path, "precious, and certainly not a database".repeat(100)).unwrap();
    assert!(matches!(Embedded::open(&path), Err(StoreError::File { .. })));
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("precious"));
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_to_list_again() {
    let store = Memory::new();
    let mut slow = store.watch(0).await.unwrap();
    for _ in 0..10_000 {
        store.commit(vec![put("a", "10.0.0.0/8", Expected::Nothing)], Run::Real).await.unwrap();
        store.commit(vec![delete("a")], Run::Real).await.unwrap();
    }
    assert!(matches!(next(&mut slow).await, Err(StoreError::Compacted { asked: 0, .. })));
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn another_agents_store_keeps_the_promises() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let _agent = Running::start("a", Arc::new(Memory::new()), &socket, &dir.path().join("none.sock")).await;
    let store = connected(&socket).await;
    suite(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_keeps_the_promises() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("relay.sock");
    let _relay = Relayed::start(Arc::new(Memory::new()), &socket).await;
    suite(&relayed(&socket, None).await).await;
}

/// A store that has seen its relay: all of it, or what a node needs.
async fn relayed(socket: &Path, node: Option<&str>) -> Remote {
    let addresses = vec![socket.display().to_string()];
    let relays = Relays { addresses, files: None, node: node.map(str::to_owned) };
    let store = Remote::with_snapshot(Reach::Relays(relays), None, EAGER);
    while store.list().await.is_err() {
        tokio::task::yield_now().await;
    }
    store
}

/// A remote store that has seen its agent.
async fn connected(socket: &Path) -> Remote {
    let store = Remote::new(socket, EAGER);
    while store.list().await.is_err() {
        tokio::task::yield_now().await;
    }
    store
}

#[tokio::test]
async fn while_the_other_agent_is_away_its_last_state_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, none) = (dir.path().join("agent.sock"), dir.path().join("none.sock"));
    let absent = Remote::new(&socket, EAGER);
    assert!(matches!(absent.list().await, Err(StoreError::Unavailable(_))), "not empty: unknown");

    let base = Arc::new(Memory::new());
    let agent = Running::start("a", base.clone(), &socket, &none).await;
    let store = connected(&socket).await;
    store
        .commit(
            vec![put("keep", "10.0.0.0/8", Expected::Anything), put("go", "10.0.0.0/8", Expected::Anything)],
            Run::Real,
        )
        .await
        .unwrap();
    let mut changes = store.watch(store.list().await.unwrap().revision).await.unwrap();

    agent.stop().await;
    while store.health().state().healthy {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&store).await, ["go", "keep"]);
    let error = store.commit(vec![delete("go")], Run::Real).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");

    base.commit(vec![delete("go")], Run::Real).await.unwrap();
    base.commit(vec![put("new", "10.0.0.0/8", Expected::Anything)], Run::Real).await.unwrap();
    let _agent = Running::start("a", base, &socket, &none).await;
    let difference = next(&mut changes).await.unwrap();
    assert_eq!(
        difference.changes.iter().map(title).collect::<Vec<_>>(),
        ["-go", "+new"],
        "the difference, no more"
    );
}

#[tokio::test]
async fn fixed_objects_cannot_be_changed() {
    let peers = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: b}\nspec: {bgp: {ipv4Address: 192.168.0.2/24}}\n";
    let objects = fixed::peers(peers).unwrap();
    let (node, json) = objects[0].clone();
    let store = Fixed::new(Arc::new(Memory::new()), "the peer list peers.yaml", objects);
    let entry = store.get(&node).await.unwrap().unwrap();
    assert_eq!((entry.version, &entry.json), (0, &json));
    assert_eq!(store.list().await.unwrap().entries, [entry]);

    let error = store
        .commit(vec![Write::Delete { key: node.clone(), expected: Expected::Something }], Run::Real)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "Node b is fixed by the peer list peers.yaml and cannot be changed here: change it there"
    );
    let other = Write::Put { key: node.clone(), json: "{}".into(), expected: Expected::Anything };
    assert!(matches!(store.commit(vec![other], Run::Real).await, Err(StoreError::ReadOnly { .. })));
    let same = Write::Put { key: node, json, expected: Expected::Anything };
    let written =
        store.commit(vec![put("a", "10.0.0.0/8", Expected::Anything), same], Run::Real).await.unwrap();
    assert!(
        matches!(written.outcomes[..], [Outcome::Created(_), Outcome::Unchanged(0)]),
        "to want it so is no change"
    );

    let wrong =
        fixed::peers("apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: x}\n").unwrap_err();
    assert!(wrong.contains("Node and WorkloadEndpoint objects only"), "{wrong}");
    assert!(fixed::peers("kind: [").is_err());
}

/// Set in the child process of the next test: the store that it writes to.
const WRITER: &str = "MARGAY_TEST_WRITER";

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    if let Ok(path) = std::env::var(WRITER) {
        return write_until_killed(Path::new(&path)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut written = 0;
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_acknowledged_survives_kill_9", "--nocapture"])
            .env(WRITER, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
                written = number.parse::<u64>().unwrap();
                acknowledged += 1;
                if acknowledged == 20 {
                    break;
                }
            }
        }
        assert_eq!(acknowledged, 20, "the child wrote and was not yet killed");
        // SIGKILL, in the middle of whatever it does.
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Embedded::open(&path).unwrap();
        let entries = store.list().await.unwrap().entries;
        for number in 0..=written {
            for half in ["left", "right"] {
                let name = format!("{half}-{number}");
                assert!(entries.iter().any(|entry| entry.key.name == name), "{name} of {written} is lost");
            }
        }
        let half = |half: &str| entries.iter().filter(|entry| entry.key.name.starts_with(half)).count();
        assert_eq!(half("left"), half("right"), "no transaction is there in part");
    }
}

async fn write_until_killed(path: &Path) {
    let store = Embedded::open(path).unwrap();
    let first = store.list().await.unwrap().entries.len() / 2;
    for number in first.. {
        let half = |half: &str| put(&format!("{half}-{number}"), "10.0.0.0/8", Expected::Nothing);
        store.commit(vec![half("left"), half("right")], Run::Real).await.unwrap();
        println!("acknowledged {number}");
    }
}
