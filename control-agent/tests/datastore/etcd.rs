//! The etcd store, on Debian's etcd.

use super::{code, delete, json as set, key, names, put, relayed, suite, title};
use crate::rig::{EAGER, Relayed, next};
use etcd_client::{Client, DeleteOptions};
use margay_agent::{
    datastore::{
        Datastore, Etcd, Expected, Outcome, Run, Snapshot, StoreError, Write,
        etcd::{Past, Settings, Tls, User},
    },
    ipam::{AssignError, Ipam, Request},
    model::{Key, Kind, Resource, scalar::Timestamp},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::json;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};
use tokio::task::JoinSet;

/// A server of one member, which ends with its owner.
struct Server {
    child: Child,
    arguments: Vec<String>,
    endpoint: String,
    dir: tempfile::TempDir,
}

impl Server {
    /// `None`, loudly, where there is no etcd.
    fn start() -> Option<Self> {
        Self::with("http", tempfile::tempdir().unwrap(), |_| vec![])
    }

    fn with(scheme: &str, dir: tempfile::TempDir, more: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: etcd is not installed (Debian: etcd-server)");
            return None;
        }
        // Both taken at once, so that they differ.
        let free: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [client, peer] = [0, 1].map(|at: usize| free[at].local_addr().unwrap());
        drop(free);
        let endpoint = format!("{scheme}://{client}");
        let mut arguments = vec![
            format!("--data-dir={}", dir.path().join("data").display()),
            format!("--listen-client-urls={endpoint}"),
            format!("--advertise-client-urls={endpoint}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster=default=http://{peer}"),
        ];
        arguments.extend(more(dir.path()));
        let child = launch(&arguments);
        Some(Self { child, arguments, endpoint, dir })
    }

    fn settings(&self, prefix: &str) -> Settings {
        let endpoints = vec![self.endpoint.clone()];
        Settings { endpoints, prefix: prefix.into(), tls: Tls::default(), user: None }
    }

    async fn store(&self) -> Etcd {
        listed(Etcd::new(self.settings("/margay/v1"), EAGER)).await
    }

    /// As the power supply does.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = launch(&self.arguments);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(arguments: &[String]) -> Child {
    Command::new("etcd").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The store, once it has seen everything.
async fn listed(store: Etcd) -> Etcd {
    while store.list().await.is_err() {
        tokio::task::yield_now().await;
    }
    store
}

async fn until_health(store: &Etcd, healthy: bool) {
    while store.health().state().healthy != healthy {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_keeps_the_promises() {
    let Some(server) = Server::start() else { return };
    suite(&server.store().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_agent_writes_another_sees_as_one_transaction_of_any_size() {
    let Some(server) = Server::start() else { return };
    let (here, there) = (server.store().await, server.store().await);
    let mut changes = there.watch(there.list().await.unwrap().revision).await.unwrap();
    for count in [1, 63, 64, 65, 1000] {
        let writes = |net: &'static str, expected| {
            (0..count).map(|at| put(&format!("s{at}"), net, expected)).collect::<Vec<_>>()
        };
        let written = here.commit(writes("10.0.0.0/8", Expected::Nothing), Run::Real).await.unwrap();
        assert!(written.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Created(v) if *v > 0)));
        assert_eq!(next(&mut changes).await.unwrap().changes.len(), count);
        let again = here.commit(writes("10.0.0.0/8", Expected::Anything), Run::Real).await.unwrap();
        assert!(again.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Unchanged(_))));

        // One that must not be there already: none of them is changed.
        let mut wrong = writes("11.0.0.0/8", Expected::Anything);
        wrong.push(put("s0x", "11.0.0.0/8", Expected::Something));
        assert!(matches!(here.commit(wrong, Run::Real).await, Err(StoreError::NotFound(_))));

        let gone = (0..count).map(|at| delete(&format!("s{at}"))).collect();
        there.commit(gone, Run::Real).await.unwrap();
        assert_eq!(next(&mut changes).await.unwrap().changes.len(), count, "and nothing in between");
    }
    let many = (0..4033).map(|at| put(&format!("s{at}"), "10.0.0.0/8", Expected::Anything)).collect();
    assert!(matches!(here.commit(many, Run::Real).await, Err(StoreError::Unsupported(_))));
    assert_eq!(here.list().await.unwrap().entries, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_writers_none_is_lost() {
    const WRITERS: u64 = 6;
    const EACH: u64 = 20;
    let Some(server) = Server::start() else { return };
    let first = server.store().await;
    first.commit(vec![put("count", "10.0.0.0/32", Expected::Nothing)], Run::Real).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = server.store().await;
        writers.spawn(async move {
            for round in 0..EACH {
                add_one(&store).await;
                // Many at once go by another condition.
                let batch = |at| put(&format!("w{writer}-{round}-{at}"), "10.0.0.0/8", Expected::Nothing);
                store.commit((0..65).map(batch).collect(), Run::Real).await.unwrap();
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let last = server.store().await;
    let total = WRITERS * EACH;
    let counted = last.get(&key("count")).await.unwrap().unwrap();
    assert_eq!(counted.json, set("count", &format!("10.0.0.{total}/32")));
    assert_eq!(names(&last).await.len() as u64, 1 + total * 65);
}

/// Eight agents with a connection each, and addresses for six of them.
#[tokio::test(flavor = "multi_thread")]
async fn agents_on_one_etcd_give_no_address_twice() {
    const EACH: usize = 12;
    let Some(server) = Server::start() else { return };
    let pool = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "p"},
        "spec": {"cidr": "10.0.0.0/26", "blockSize": 28},
    });
    let pool = Resource::from_json(&pool.to_string()).unwrap().admit().unwrap();
    let write = Write::Put { key: pool.key(), json: pool.to_json().into(), expected: Expected::Nothing };
    server.store().await.commit(vec![write], Run::Real).await.unwrap();
    let mut agents = JoinSet::new();
    for at in 0..8 {
        let store = server.store().await;
        agents.spawn(async move {
            let ipam = Ipam::new(Arc::new(store), Arc::new(|| Timestamp::from_unix(1_000_000)));
            let node = format!("n{at}");
            let mut has = Vec::new();
            for one in 0..EACH {
                let handle = format!("{node}-{one}");
                match ipam.assign(&Request { v4: 1, ..Request::new(&handle, &node) }).await {
                    // Each third comes and goes.
                    Ok(_) if one % 3 == 2 => assert_eq!(ipam.release_handle(&handle).await.unwrap().len(), 1),
                    Ok(given) => has.push((given[0].address, handle)),
                    Err(AssignError::Exhausted { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            has
        });
    }
    let mut has: Vec<_> = agents.join_all().await.into_iter().flatten().collect();
    has.sort();
    let ipam = Ipam::new(Arc::new(server.store().await), Arc::new(Timestamp::default));
    let books = ipam.books().await.unwrap();
    let blocks = books.blocks().map(|(_, stored)| stored.block.clone().unwrap());
    let given = blocks.flat_map(|block| {
        let all = block.allocations().map(|(addr, given)| (addr, given.owner.handle.clone()));
        all.collect::<Vec<_>>()
    });
    assert_eq!(given.collect::<Vec<_>>(), has, "each address once, and to whom it was said to be given");
    assert!(has.len() > 32, "only {} were given", has.len());
}

/// Reads, adds one, and writes if it still is what was read.
async fn add_one(store: &Etcd) {
    loop {
        let entry = store.get(&key("count")).await.unwrap().unwrap();
        let text = entry.json.split("10.0.0.").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        let next = format!("10.0.0.{}/32", text.parse::<u64>().unwrap() + 1);
        match store.commit(vec![put("count", &next, Expected::Version(entry.version))], Run::Real).await {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_etcd_is_away_its_last_state_is_kept() {
    let Some(mut server) = Server::start() else { return };
    let store = server.store().await;
    let both =
        vec![put("keep", "10.0.0.0/8", Expected::Anything), put("go", "10.0.0.0/8", Expected::Anything)];
    store.commit(both, Run::Real).await.unwrap();
    let mut changes = store.watch(store.list().await.unwrap().revision).await.unwrap();

    server.kill();
    until_health(&store, false).await;
    assert_eq!(names(&store).await, ["go", "keep"]);
    assert!(store.health().state().reason.ends_with("; its last known state is kept"));
    let absent = Etcd::new(server.settings("/margay/v1"), EAGER);
    assert!(matches!(absent.list().await, Err(StoreError::Unavailable(_))), "not empty: unknown");
    let error = store.commit(vec![delete("go")], Run::Real).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");

    // Back, and what happened since is compacted away: the difference is told, no more.
    server.restart();
    let other = server.store().await;
    other.commit(vec![delete("go"), put("new", "10.0.0.0/8", Expected::Nothing)], Run::Real).await.unwrap();
    let mut raw = Client::connect([&server.endpoint], None).await.unwrap();
    let revision = raw.get("x", None).await.unwrap().header().unwrap().revision();
    raw.compact(revision, None).await.unwrap();
    until_health(&store, true).await;
    let mut seen = vec![];
    while seen.len() < 2 {
        seen.extend(next(&mut changes).await.unwrap().changes.iter().map(title));
    }
    assert_eq!(seen, ["-go", "+new"]);
    store.commit(vec![delete("keep")], Run::Real).await.unwrap();
}

/// An agent's store, which begins with this snapshot.
fn with_snapshot(server: &Server, snapshot: &Path) -> Etcd {
    // The one before lets go of the file when its last write is over.
    let snapshot = loop {
        match Snapshot::open(snapshot) {
            Ok(snapshot) => break snapshot,
            Err(_) => std::thread::yield_now(),
        }
    };
    let past = Past { snapshot: Some(snapshot), ..Past::default() };
    Etcd::with_past(server.settings("/margay/v1"), past, EAGER)
}

/// The store, once the file holds what the store does.
async fn into_snapshot(store: Etcd, server: &Server, snapshot: &Path) -> Etcd {
    let expected = names(&store).await;
    drop(store);
    loop {
        let again = with_snapshot(server, snapshot);
        if again.list().await.is_ok() && names(&again).await == expected {
            return again;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_starts_with_what_it_knew_while_etcd_is_away() {
    let Some(mut server) = Server::start() else { return };
    let snapshot = server.dir.path().join("snapshot.redb");
    let store = listed(with_snapshot(&server, &snapshot)).await;
    let both = vec![put("a", "10.0.0.0/8", Expected::Anything), put("b", "10.0.0.0/8", Expected::Anything)];
    store.commit(both, Run::Real).await.unwrap();
    let expected = store.list().await.unwrap().entries;
    let mut file = store;
    while {
        // The file is written after the store has answered.
        file = into_snapshot(file, &server, &snapshot).await;
        file.list().await.unwrap().entries != expected
    } {}
    drop(file);

    server.kill();
    let store = with_snapshot(&server, &snapshot);
    assert_eq!(store.list().await.unwrap().entries, expected, "at once");
    let mut changes = store.watch(store.list().await.unwrap().revision).await.unwrap();
    let refused = store.commit(vec![delete("a")], Run::Real).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    while !store.health().state().reason.ends_with("its last known state is kept") {
        tokio::task::yield_now().await;
    }

    // Back, with news: they are told, and nothing else.
    server.restart();
    let other = server.store().await;
    other.commit(vec![put("c", "10.0.0.0/8", Expected::Nothing)], Run::Real).await.unwrap();
    assert_eq!(next(&mut changes).await.unwrap().changes.iter().map(title).collect::<Vec<_>>(), ["+c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_etcd_empties_no_agent_until_that_is_confirmed() {
    let Some(mut server) = Server::start() else { return };
    let store = server.store().await;
    let many = |range: std::ops::Range<usize>| {
        range.map(|at| put(&format!("s{at:02}"), "10.0.0.0/8", Expected::Anything)).collect::<Vec<_>>()
    };
    store.commit(many(0..40), Run::Real).await.unwrap();
    // Who deletes through an agent means it.
    let gone = (0..30).map(|at| delete(&format!("s{at:02}"))).collect();
    store.commit(gone, Run::Real).await.unwrap();
    assert_eq!(store.lost(), []);
    store.commit(many(0..30), Run::Real).await.unwrap();
    let mut changes = store.watch(store.list().await.unwrap().revision).await.unwrap();

    // Who deletes under the agents' feet, or loses the disk, may not.
    let mut raw = Client::connect([&server.endpoint], None).await.unwrap();
    raw.delete("/margay/v1", Some(DeleteOptions::new().with_prefix())).await.unwrap();
    until_health(&store, false).await;
    assert_eq!((names(&store).await.len(), store.lost().len()), (40, 40));
    server.kill();
    fs::remove_dir_all(server.dir.path().join("data")).unwrap();
    server.restart();
    let empty = server.store().await;
    assert_eq!(names(&empty).await, [""; 0]);
    let away = |store: &Etcd| store.health().state().reason.contains("its last known state is kept");
    while away(&store) || !store.health().state().reason.contains("40 of its objects are gone at once") {
        tokio::task::yield_now().await;
    }
    assert_eq!((names(&store).await.len(), store.lost().len()), (40, 40));
    for change in next(&mut changes).await.unwrap().changes.iter() {
        assert!(title(change).starts_with('~'), "{change:?}");
    }

    // What is written again is the store's again; what is deleted is gone; for the rest somebody has to say so.
    let again =
        vec![put("s00", "10.0.0.0/8", Expected::Version(0)), put("s01", "11.0.0.0/8", Expected::Anything)];
    store.commit(again, Run::Real).await.unwrap();
    store.commit(vec![delete("s02")], Run::Real).await.unwrap();
    assert_eq!((names(&store).await.len(), store.lost().len()), (39, 37));
    let mut seen = empty.watch(0).await.unwrap();
    assert_eq!(
        next(&mut seen).await.unwrap().changes.iter().map(title).collect::<Vec<_>>(),
        ["+s00", "+s01"]
    );
    assert!(!store.health().state().healthy);
    let lost = store.lost();
    store.let_go(&lost[1..]);
    assert_eq!(store.lost(), lost[..1]);
    store.let_go(&lost);
    assert!(store.health().state().healthy);
    assert_eq!(names(&store).await, ["s00", "s01"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_here_stops_the_news_loudly() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    store.commit(vec![put("a", "10.0.0.0/8", Expected::Nothing)], Run::Real).await.unwrap();
    let mut raw = Client::connect([&server.endpoint], None).await.unwrap();
    raw.put("/margay/v1/objects/Tiger//x", "{}", None).await.unwrap();
    until_health(&store, false).await;
    let reason = store.health().state().reason;
    assert!(reason.contains("/margay/v1/objects/Tiger//x is not known here"), "{reason}");
    assert_eq!(names(&store).await, ["a"], "what was known is kept");
    raw.delete("/margay/v1/objects/Tiger//x", None).await.unwrap();
    until_health(&store, true).await;
    // Other prefixes are nobody's business.
    raw.put("/other/objects/Tiger//x", "{}", None).await.unwrap();
    let oversize = Write::Put {
        key: key("big"),
        json: format!("{{\"x\":\"{}\"}}", "x".repeat(2 << 20)).into(),
        expected: Expected::Anything,
    };
    // By etcd's own limit, or already by that of its gRPC server.
    let refused = code(store.commit(vec![oversize], Run::Real).await.unwrap_err());
    assert!(matches!(refused, tonic::Code::InvalidArgument | tonic::Code::ResourceExhausted), "{refused}");
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
    assert!(store.get(&margay_agent::model::Key::global(Kind::Tier, "a")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_a_certificate_and_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let files = Certificates::write(dir.path());
    let server = Server::with("https", dir, |_| {
        vec![
            format!("--cert-file={}", files.server.0.display()),
            format!("--key-file={}", files.server.1.display()),
            format!("--trusted-ca-file={}", files.ca.display()),
            "--client-cert-auth".into(),
        ]
    });
    let Some(server) = server else { return };
    let tls = Tls { ca: Some(files.ca.clone()), identity: Some(files.client.clone()) };
    let open = Settings { tls: tls.clone(), ..server.settings("/margay/v1") };
    let store = listed(Etcd::new(open.clone(), EAGER)).await;
    store.commit(vec![put("a", "10.0.0.0/8", Expected::Nothing)], Run::Real).await.unwrap();
    users(&server, &files).await;

    let password = server.dir.path().join("password");
    fs::write(&password, "s3cret\n").unwrap();
    let user = Some(User { name: "root".into(), password: password.clone() });
    let known = listed(Etcd::new(Settings { user: user.clone(), ..open.clone() }, EAGER)).await;
    known.commit(vec![put("b", "10.0.0.0/8", Expected::Nothing)], Run::Real).await.unwrap();
    assert_eq!(names(&known).await, ["a", "b"]);

    // Strangers: no certificate of ours to check etcd's by, a wrong password, a file that is not there.
    let untrusting = Settings { tls: Tls { ca: None, ..tls }, user, ..open.clone() };
    refused(untrusting, "").await;
    fs::write(&password, "guess").unwrap();
    let user = |password| Some(User { name: "root".into(), password });
    refused(Settings { user: user(password), ..open.clone() }, "invalid user ID or password").await;
    refused(Settings { user: user("/nowhere".into()), ..open }, "/nowhere cannot be read").await;
}

async fn refused(settings: Settings, why: &str) {
    let store = Etcd::new(settings, EAGER);
    while store.health().state().reason.ends_with("connecting") {
        tokio::task::yield_now().await;
    }
    let reason = store.health().state().reason;
    assert!(reason.contains(why), "{reason}");
    assert!(matches!(store.list().await, Err(StoreError::Unavailable(_))));
}

/// From now on etcd asks who one is.
async fn users(server: &Server, files: &Certificates) {
    let pem = |path: &PathBuf| fs::read(path).unwrap();
    let tls = etcd_client::TlsOptions::new()
        .ca_certificate(etcd_client::Certificate::from_pem(pem(&files.ca)))
        .identity(etcd_client::Identity::from_pem(pem(&files.client.0), pem(&files.client.1)));
    let options = etcd_client::ConnectOptions::new().with_tls(tls);
    let mut raw = Client::connect([&server.endpoint], Some(options)).await.unwrap();
    raw.user_add("root", "s3cret", None).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.auth_enable().await.unwrap();
}

/// PEM files: who signs, and for etcd and its client a certificate and its key.
struct Certificates {
    ca: PathBuf,
    server: (PathBuf, PathBuf),
    client: (PathBuf, PathBuf),
}

impl Certificates {
    fn write(dir: &Path) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = |name: &str, pem: String| {
            let path = dir.join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        let signed = |name: &str, purpose| {
            let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
            params.extended_key_usages = vec![purpose];
            let pair = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&pair, &issuer).unwrap();
            (
                file(&format!("{name}.crt"), certificate.pem()),
                file(&format!("{name}.key"), pair.serialize_pem()),
            )
        };
        Self {
            ca: file("ca.crt", issuer.pem()),
            server: signed("server", ExtendedKeyUsagePurpose::ServerAuth),
            client: signed("client", ExtendedKeyUsagePurpose::ClientAuth),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_outlives_its_etcd_and_says_so() {
    let Some(mut server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("relay.sock");
    let relay = Relayed::start(Arc::new(server.store().await), &socket).await;
    let (all, node) = (relayed(&socket, None).await, relayed(&socket, Some("node-a")).await);
    suite(&all).await;

    // What a node is told: tiers, and of sets those that it needs, which is none.
    let tier = Key::global(Kind::Tier, "relayed");
    let tier_json = r#"{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"relayed"},"spec":{"order":7}}"#;
    let admitted = Resource::from_json(tier_json).unwrap().admit().unwrap().to_json();
    let write = |expected| Write::Put { key: tier.clone(), json: admitted.as_str().into(), expected };
    let written = all.commit(vec![write(Expected::Nothing)], Run::Real).await.unwrap();
    let [Outcome::Created(version)] = written.outcomes[..] else { panic!("{written:?}") };
    while node.get(&tier).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&node).await, [""; 0]);
    // A write under a version that is no more is refused, and what there is now is known at once.
    let stale = Write::Delete { key: tier.clone(), expected: Expected::Version(version + 1) };
    assert_eq!(code(node.commit(vec![stale], Run::Real).await.unwrap_err()), tonic::Code::Aborted);
    assert_eq!(node.get(&tier).await.unwrap().unwrap().version, version);

    server.kill();
    while node.health().state().healthy {
        tokio::task::yield_now().await;
    }
    let said = node.health().state().reason;
    assert!(said.contains("keeps what it last knew"), "{said}");
    assert!(node.get(&tier).await.unwrap().is_some());
    let error = node.commit(vec![write(Expected::Anything)], Run::Dry).await;
    assert!(matches!(error, Err(StoreError::Unavailable(_))), "{error:?}");

    server.restart();
    while !node.health().state().healthy {
        tokio::task::yield_now().await;
    }
    all.commit(vec![Write::Delete { key: tier.clone(), expected: Expected::Something }], Run::Real)
        .await
        .unwrap();
    while node.get(&tier).await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }

    // Another relay in its place: nothing is lost, nothing is taken for gone.
    relay.stop().await;
    while node.health().state().healthy {
        tokio::task::yield_now().await;
    }
    let _relay = Relayed::start(Arc::new(server.store().await), &socket).await;
    while !node.health().state().healthy {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&all).await, ["b"]);
}
