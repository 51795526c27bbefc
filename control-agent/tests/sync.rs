//! Desired state to a dataplane over a real socket.

mod rig;

use margay_agent::{
    calc::{Calculated, Desired, EndpointKey, IpSet, PolicyKey, Record},
    model::Cidr,
    sync::{AdoptError, Link},
};
use margay_api::dataplane::v1::{
    EndpointStatus, Policy, Profile, WorkloadEndpoint, change::Change, endpoint_status::State, ip_set::Type,
};
use rig::{EAGER, Fake, Verdict, until};
use std::{net::Ipv4Addr, sync::Arc};
use tokio::sync::watch;

fn set(count: u32) -> IpSet {
    let host = |at: u32| (Record::Net(Cidr::host(Ipv4Addr::from(at).into())), ());
    IpSet { kind: Type::Net, members: (0..count).map(host).collect() }
}

fn key(name: &str) -> EndpointKey {
    EndpointKey { orchestrator: "cni".into(), workload: format!("default/{name}"), endpoint: "eth0".into() }
}

fn policy(name: &str, selector: &str) -> (PolicyKey, Arc<Policy>) {
    let key = PolicyKey { kind: "NetworkPolicy".into(), namespace: "default".into(), name: name.into() };
    let policy = Policy { id: Some((&key).into()), selector: selector.into(), ..Policy::default() };
    (key, Arc::new(policy))
}

/// One of each that refers to another.
fn state() -> Desired {
    let endpoint = WorkloadEndpoint { id: Some((&key("web")).into()), ..WorkloadEndpoint::default() };
    let profile = Profile { name: "kns.default".into(), ..Profile::default() };
    Desired {
        ip_sets: [("s:x".into(), set(100))].into(),
        policies: [policy("p", "all()")].into(),
        profiles: [("kns.default".into(), Arc::new(profile))].into(),
        endpoints: [(key("web"), Arc::new(endpoint))].into(),
        ..Desired::default()
    }
}

struct Rig {
    dir: tempfile::TempDir,
    fake: Fake,
    desired: watch::Sender<Option<Calculated>>,
    link: Link,
}

impl Rig {
    fn start(adopted: u64, verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dataplane.sock");
        let fake = Fake::start(&path, adopted, verdicts);
        let (desired, receiver) = watch::channel(None);
        let link = Link::start(&path, receiver, EAGER);
        Self { dir, fake, desired, link }
    }

    fn want(&self, revision: u64, desired: Desired) {
        self.desired.send_replace(Some(Calculated { revision, desired: Arc::new(desired) }));
    }
}

fn position(changes: &[Change], wanted: fn(&Change) -> bool) -> usize {
    changes.iter().position(wanted).expect("the change is there")
}

#[tokio::test]
async fn a_snapshot_then_differences() {
    let mut rig = Rig::start(41, []);
    rig.want(1, state());
    let snapshot = rig.fake.transaction().await;
    assert_eq!(
        (snapshot.generation, snapshot.in_sync),
        (42, true),
        "generations go on where an earlier agent left"
    );
    let order = [
        position(&snapshot.changes, |change| matches!(change, Change::IpSet(_))),
        position(&snapshot.changes, |change| matches!(change, Change::Policy(_))),
        position(&snapshot.changes, |change| matches!(change, Change::Profile(_))),
        position(&snapshot.changes, |change| matches!(change, Change::WorkloadEndpoint(_))),
    ];
    assert!(order.is_sorted(), "referents first: {order:?}");
    assert_eq!(snapshot.changes.len(), 4);
    assert_eq!(rig.link.adopted_at_least(1).await, Ok(42));

    let mut next = state();
    next.ip_sets.insert("s:x".into(), set(101));
    rig.want(2, next.clone());
    let difference = rig.fake.transaction().await;
    assert_eq!((difference.generation, difference.in_sync), (43, false));
    let [Change::IpSetDelta(delta)] = difference.changes.as_slice() else {
        panic!("{:?}", difference.changes)
    };
    assert_eq!(delta.added.as_ref().unwrap().ipv4, [0, 0, 0, 100, 32]);

    rig.want(3, Desired::default());
    let removal = rig.fake.transaction().await;
    let order = [
        position(&removal.changes, |change| matches!(change, Change::WorkloadEndpointRemove(_))),
        position(&removal.changes, |change| matches!(change, Change::ProfileRemove(_))),
        position(&removal.changes, |change| matches!(change, Change::PolicyRemove(_))),
        position(&removal.changes, |change| matches!(change, Change::IpSetRemove(_))),
    ];
    assert!(order.is_sorted(), "removals in reverse: {order:?}");

    // What changes nothing here is adopted as soon as it is known.
    rig.want(4, Desired::default());
    assert_eq!(rig.link.adopted_at_least(4).await, Ok(44));
    assert!(rig.fake.pending().is_none());
}

#[tokio::test]
async fn what_changes_meanwhile_is_coalesced() {
    let mut rig = Rig::start(0, [Verdict::Silence]);
    rig.want(1, state());
    let first = rig.fake.transaction().await;
    for revision in 2..=20 {
        let mut next = state();
        next.policies.extend([policy("q", &format!("has(r{revision})"))]);
        rig.want(revision, next);
    }
    rig.fake.say_adopted(first.generation);
    let second = rig.fake.transaction().await;
    assert_eq!(second.changes, [Change::Policy((*policy("q", "has(r20)").1).clone())]);
    assert_eq!(rig.link.adopted_at_least(20).await, Ok(2));
    assert!(rig.fake.pending().is_none());
}

#[tokio::test]
async fn a_refusal_is_told_and_the_next_difference_starts_before_it() {
    let mut rig = Rig::start(0, [Verdict::Adopt, Verdict::Refuse("too many nodes")]);
    rig.want(1, state());
    rig.fake.transaction().await;
    assert_eq!(rig.link.adopted_at_least(1).await, Ok(1));

    let mut bad = state();
    bad.policies.extend([policy("bad", "all()")]);
    rig.want(2, bad.clone());
    rig.fake.transaction().await;
    let refused = rig.link.adopted_at_least(2).await;
    assert_eq!(refused, Err(AdoptError::Refused("policy default/p: too many nodes".into())));
    assert!(!rig.link.health().state().healthy);
    assert!(rig.link.health().state().reason.contains("too many nodes"));
    assert_eq!(rig.link.adopted_at_least(1).await, Ok(1), "what was in force is");
    assert!(rig.fake.pending().is_none(), "what was refused is not sent again as it is");

    bad.policies.extend([policy("good", "all()")]);
    rig.want(3, bad);
    let repaired = rig.fake.transaction().await;
    assert_eq!(repaired.changes.len(), 2, "both: {:?}", repaired.changes);
    assert_eq!(rig.link.adopted_at_least(3).await, Ok(3));
    assert_eq!(rig.link.adopted_at_least(2).await, Ok(3), "and with it what was refused");
    assert!(rig.link.health().state().healthy);
}

#[tokio::test]
async fn to_want_again_what_is_in_force_ends_a_refusal() {
    let mut rig = Rig::start(0, [Verdict::Adopt, Verdict::Refuse("no")]);
    rig.want(1, state());
    rig.fake.transaction().await;
    rig.link.adopted_at_least(1).await.unwrap();
    rig.want(2, Desired::default());
    assert!(rig.link.adopted_at_least(2).await.is_err());
    rig.want(3, state());
    assert_eq!(rig.link.adopted_at_least(3).await, Ok(1));
    assert_eq!(rig.link.progress().borrow().refused, None);
    assert!(rig.link.health().state().healthy);
}

#[tokio::test]
async fn a_refused_snapshot_is_followed_by_a_snapshot() {
    let mut rig = Rig::start(0, [Verdict::Refuse("no")]);
    rig.want(1, state());
    assert!(rig.fake.transaction().await.in_sync);
    assert!(rig.link.adopted_at_least(1).await.is_err());
    rig.want(2, state());
    let again = rig.fake.transaction().await;
    assert!(again.in_sync);
    assert_eq!(again.changes.len(), 4);
}

#[tokio::test]
async fn a_dataplane_that_comes_back_gets_a_snapshot() {
    let mut rig = Rig::start(0, []);
    let mut progress = rig.link.progress();
    rig.want(1, state());
    rig.fake.transaction().await;
    rig.link.adopted_at_least(1).await.unwrap();
    rig.fake.kill().await;
    let away = until(&mut progress, |progress| !progress.connected).await;
    assert_eq!(away.adopted_revision, None);
    assert!(!rig.link.health().state().healthy);

    rig.fake = Fake::start(&rig.dir.path().join("dataplane.sock"), 0, []);
    let snapshot = rig.fake.transaction().await;
    assert!(snapshot.in_sync);
    assert_eq!(snapshot.generation, 2, "generations never go back, even for a dataplane that starts over");
    assert_eq!(snapshot.changes.len(), 4);
    assert_eq!(rig.link.adopted_at_least(1).await, Ok(2));
    assert!(rig.link.health().state().healthy);
}

#[tokio::test]
async fn a_dataplane_that_another_agent_took_is_left_alone_until_that_one_is_gone() {
    let mut rig = Rig::start(0, []);
    rig.want(1, state());
    rig.fake.transaction().await;
    rig.fake.take_over();
    rig.fake.asked_for_status(3).await;
    assert!(rig.fake.pending().is_none(), "it does not take it back");
    assert!(!rig.link.health().state().healthy);
    rig.fake.leave();
    assert!(rig.fake.transaction().await.in_sync);
}

#[tokio::test]
async fn large_sets_travel_in_bounded_messages() {
    let mut rig = Rig::start(0, []);
    let large = set(1_000_000);
    rig.want(1, Desired { ip_sets: [("s:large".into(), large.clone())].into(), ..Desired::default() });
    let snapshot = rig.fake.transaction().await;
    assert!(snapshot.message_bytes.len() >= 4);
    assert!(
        snapshot.message_bytes.iter().all(|bytes| *bytes <= (1 << 20) + 64),
        "{:?}",
        snapshot.message_bytes
    );
    let received: Vec<u8> = snapshot
        .changes
        .into_iter()
        .flat_map(|change| match change {
            Change::IpSet(set) => set.members.unwrap().ipv4,
            Change::IpSetDelta(delta) => delta.added.unwrap().ipv4,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(received, large.message("s:large").members.unwrap().ipv4);
}

#[tokio::test]
async fn the_endpoints_states_are_kept_while_the_endpoints_are() {
    let mut rig = Rig::start(0, []);
    let mut progress = rig.link.progress();
    rig.want(1, state());
    rig.fake.transaction().await;
    rig.link.adopted_at_least(1).await.unwrap();
    let up =
        EndpointStatus { id: Some((&key("web")).into()), state: State::Up.into(), reason: String::new() };
    rig.fake.say_endpoint(up.clone());
    let with = until(&mut progress, |progress| !progress.endpoints.is_empty()).await;
    assert_eq!(with.endpoints[&key("web")], up);
    rig.want(2, Desired::default());
    until(&mut progress, |progress| progress.endpoints.is_empty()).await;
}
