//! What is given to whom: pools, blocks, borrowing, reservations and rest, on a store in memory.

use super::*;
use crate::datastore::{Expected, Listing, Memory};
use crate::model::{Kind, Resource};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

struct Rig {
    store: Arc<Memory>,
    now: Arc<AtomicU64>,
    ipam: Ipam,
}

impl Rig {
    async fn new(objects: &[Value]) -> Self {
        let store = Arc::new(Memory::new());
        let now = Arc::new(AtomicU64::new(1_000_000));
        let ipam = agent(&store, &now);
        let rig = Self { store, now, ipam };
        for object in objects {
            rig.put(object).await;
        }
        rig
    }

    async fn put(&self, object: &Value) {
        let resource = Resource::from_json(&object.to_string()).unwrap().admit().unwrap();
        let write =
            Write::Put { key: resource.key(), json: resource.to_json().into(), expected: Expected::Anything };
        self.store.commit(vec![write], Run::Real).await.unwrap();
    }

    fn wait(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    async fn give(&self, request: &Request) -> Vec<String> {
        let assigned = self.ipam.assign(request).await.unwrap();
        assigned.iter().map(|one| one.address.to_string()).collect()
    }

    async fn denied(&self, request: &Request) -> String {
        let before = self.store.list().await.unwrap();
        let error = self.ipam.assign(request).await.unwrap_err();
        let given = |listing: &Listing| {
            let books = Books::of(listing);
            books
                .blocks()
                .map(|(_, stored)| stored.block.as_ref().unwrap().allocations().count())
                .sum::<usize>()
        };
        let after = self.store.list().await.unwrap();
        assert_eq!(given(&before), given(&after), "nothing stays of what is denied");
        error.to_string()
    }

    async fn blocks(&self) -> Vec<(String, Option<String>)> {
        let books = self.ipam.books().await.unwrap();
        let node = |stored: &Stored| stored.block.as_ref().unwrap().node().map(str::to_owned);
        books.blocks().map(|(cidr, stored)| (cidr.to_string(), node(stored))).collect()
    }
}

fn agent(store: &Arc<Memory>, now: &Arc<AtomicU64>) -> Ipam {
    let now = now.clone();
    Ipam::new(store.clone(), Arc::new(move || Timestamp::from_unix(now.load(Ordering::Relaxed))))
}

fn object(kind: Kind, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind.name(), "metadata": {"name": name}, "spec": spec})
}

fn pool(name: &str, cidr: &str, block: u8) -> Value {
    object(Kind::IPPool, name, json!({"cidr": cidr, "blockSize": block}))
}

fn settings(spec: Value) -> Value {
    object(Kind::IPAMConfiguration, "default", spec)
}

fn wants(handle: &str, node: &str, count: usize) -> Request {
    Request { v4: count, ..Request::new(handle, node) }
}

#[tokio::test]
async fn a_node_takes_from_its_own_block_and_gets_the_same_when_it_asks_again() {
    let rig = Rig::new(&[pool("p", "10.0.0.0/24", 30)]).await;
    let first = rig.ipam.assign(&wants("h", "a", 1)).await.unwrap();
    assert_eq!(first[0].pool, "p");
    assert!(first[0].block.contains(first[0].address) && first[0].block.len() == 30);
    assert_eq!(rig.ipam.assign(&wants("h", "a", 1)).await.unwrap(), first);
    // Another process of the same node, and one of another.
    assert_eq!(agent(&rig.store, &rig.now).assign(&wants("h", "a", 1)).await.unwrap(), first);
    let more = rig.give(&wants("h2", "a", 3)).await;
    assert!(more.iter().all(|addr| first[0].block.contains(addr.parse().unwrap())), "{more:?}");
    assert_eq!(rig.blocks().await.len(), 1);
    rig.give(&wants("h3", "a", 1)).await;
    rig.give(&wants("h4", "b", 1)).await;
    let owners: Vec<_> = rig.blocks().await.into_iter().filter_map(|(_, node)| node).collect();
    assert_eq!(owners.len(), 3, "the fifth is of a second block, and b has one of its own");
    assert_eq!(owners.iter().filter(|node| *node == "a").count(), 2);
}

#[tokio::test]
async fn release_is_of_all_a_handle_has_and_may_be_said_twice() {
    let rig = Rig::new(&[pool("p", "10.0.0.0/24", 30), pool("six", "fd00::/64", 122)]).await;
    let request = Request { v6: 2, ..wants("h", "a", 6) };
    let given = rig.give(&request).await;
    assert_eq!((given.len(), given.iter().filter(|addr| addr.contains(':')).count()), (8, 2));
    let mut released: Vec<_> =
        rig.ipam.release_handle("h").await.unwrap().iter().map(ToString::to_string).collect();
    released.sort_by_key(|addr| addr.parse::<IpAddr>().unwrap());
    assert_eq!(released, given);
    assert_eq!(rig.ipam.release_handle("h").await.unwrap(), [] as [IpAddr; 0]);
    assert_eq!(rig.ipam.release_handle("nobody").await.unwrap(), [] as [IpAddr; 0]);
}

#[tokio::test]
async fn an_address_goes_back_only_from_whom_and_when_it_was_meant() {
    let rig = Rig::new(&[pool("p", "10.0.0.0/29", 29)]).await;
    rig.give(&wants("h", "a", 1)).await;
    let books = rig.ipam.books().await.unwrap();
    let (addr, sequence) = {
        let (_, stored) = books.blocks().next().unwrap();
        let (addr, allocation) = stored.block.as_ref().unwrap().allocations().next().unwrap();
        (addr, allocation.sequence)
    };
    let exactly = Returned { address: addr, handle: Some("h".into()), sequence: Some(sequence) };
    for wrong in [
        Returned { handle: Some("other".into()), ..exactly.clone() },
        Returned { sequence: Some(sequence + 1), ..exactly.clone() },
        Returned::any("10.0.0.7".parse().unwrap()),
        Returned::any("11.0.0.7".parse().unwrap()),
    ] {
        assert_eq!(
            rig.ipam.release(std::slice::from_ref(&wrong)).await.unwrap(),
            [] as [IpAddr; 0],
            "{wrong:?}"
        );
    }
    assert_eq!(rig.ipam.release(std::slice::from_ref(&exactly)).await.unwrap(), [addr]);
    // Given again to the same handle it is another assignment.
    rig.give(&Request { addresses: vec![addr], ..Request::new("h", "a") }).await;
    assert_eq!(rig.ipam.release(&[exactly]).await.unwrap(), [] as [IpAddr; 0]);
    assert_eq!(rig.ipam.release(&[Returned::any(addr)]).await.unwrap(), [addr]);
}

#[tokio::test]
async fn where_all_blocks_are_taken_nodes_borrow_unless_they_may_not() {
    let rig = Rig::new(&[pool("p", "10.0.0.0/29", 30)]).await;
    rig.give(&wants("a1", "a", 1)).await;
    rig.give(&wants("b1", "b", 1)).await;
    rig.put(&settings(json!({"strictAffinity": true}))).await;
    let why = rig.denied(&wants("c1", "c", 1)).await;
    assert!(why.contains("1 IPv4 addresses are missing and IPPools p have none to give"), "{why}");
    assert!(why.contains("strictAffinity forbids to borrow"), "{why}");
    let taken = rig.give(&wants("a2", "a", 3)).await;
    rig.ipam.release_handle("a2").await.unwrap();
    let elsewhere = Request { addresses: vec![taken[0].parse().unwrap()], ..Request::new("c1", "c") };
    assert!(rig.denied(&elsewhere).await.contains("of a block of node a, and strictAffinity is true"));
    rig.put(&settings(json!({"strictAffinity": false}))).await;
    assert_eq!(rig.give(&elsewhere).await, [taken[0].clone()]);
    assert_eq!(rig.give(&wants("c2", "c", 5)).await.len(), 5);
    let why = rig.denied(&wants("c3", "c", 1)).await;
    assert!(why.contains("every address is given, reserved, or resting"), "{why}");
    // What is denied half-way leaves nothing.
    rig.ipam.release_handle("c2").await.unwrap();
    rig.denied(&wants("c4", "c", 6)).await;
    let owners: Vec<_> = rig.blocks().await.into_iter().map(|(_, node)| node.unwrap()).collect();
    assert!(owners.contains(&"a".to_owned()) && owners.contains(&"b".to_owned()), "{owners:?}");
}

#[tokio::test]
async fn an_empty_block_is_another_nodes_after_a_minute() {
    let rig = Rig::new(&[pool("p", "10.0.0.0/30", 30), settings(json!({"strictAffinity": true}))]).await;
    rig.give(&wants("a", "a", 1)).await;
    rig.ipam.release_handle("a").await.unwrap();
    rig.wait(59);
    rig.denied(&wants("b", "b", 1)).await;
    rig.wait(1);
    rig.give(&wants("b", "b", 1)).await;
    assert_eq!(rig.blocks().await, [("10.0.0.0/30".to_owned(), Some("b".to_owned()))]);
    rig.wait(3600);
    rig.denied(&wants("a", "a", 1)).await;
}

#[tokio::test]
async fn the_settings_limit_blocks() {
    let rig = Rig::new(&[
        pool("p", "10.0.0.0/24", 30),
        settings(json!({"strictAffinity": true, "maxBlocksPerHost": 2})),
    ])
    .await;
    assert_eq!(rig.give(&wants("h", "a", 8)).await.len(), 8);
    let why = rig.denied(&wants("h2", "a", 1)).await;
    assert!(why.contains("node a has 2 blocks, as many as maxBlocksPerHost allows"), "{why}");
    let named = Request { addresses: vec!["10.0.0.200".parse().unwrap()], ..Request::new("h3", "a") };
    if rig.blocks().await.iter().all(|(cidr, _)| cidr != "10.0.0.200/30") {
        assert!(rig.denied(&named).await.contains("node a gets no further block"));
    }
    rig.put(&settings(json!({"strictAffinity": true, "autoAllocateBlocks": false}))).await;
    assert!(rig.denied(&wants("h9", "b", 1)).await.contains("autoAllocateBlocks is false"));
}

#[tokio::test]
async fn reserved_addresses_go_only_to_those_who_name_them() {
    let reserved = json!({"reservedCIDRs": ["10.0.0.0/30", "10.0.0.4/31", "10.0.0.6"]});
    let rig = Rig::new(&[pool("p", "10.0.0.0/29", 30), object(Kind::IPReservation, "r", reserved)]).await;
    assert_eq!(rig.give(&wants("h", "a", 1)).await, ["10.0.0.7"]);
    assert_eq!(rig.blocks().await.len(), 1, "a block without an address to give is not claimed");
    rig.denied(&wants("h2", "a", 1)).await;
    let named = Request { addresses: vec!["10.0.0.1".parse().unwrap()], ..Request::new("h2", "a") };
    assert_eq!(rig.give(&named).await, ["10.0.0.1"]);
}

#[tokio::test]
async fn an_address_rests_and_the_longest_rested_is_next() {
    let rig = Rig::new(&[pool("p", "10.0.0.0/30", 30), settings(json!({"ipCooldownSeconds": 60}))]).await;
    for handle in ["h0", "h1", "h2", "h3"] {
        rig.give(&wants(handle, "a", 1)).await;
    }
    rig.ipam.release_handle("h2").await.unwrap();
    rig.wait(10);
    rig.ipam.release_handle("h0").await.unwrap();
    assert!(rig.denied(&wants("x", "a", 1)).await.contains("resting"));
    rig.wait(50);
    assert_eq!(rig.give(&wants("x", "a", 1)).await, ["10.0.0.2"]);
    rig.denied(&wants("y", "a", 1)).await;
    let named = Request { addresses: vec!["10.0.0.0".parse().unwrap()], ..Request::new("y", "a") };
    assert_eq!(rig.give(&named).await, ["10.0.0.0"], "who names it gets it sooner");
}

#[tokio::test]
async fn pools_are_chosen_by_node_namespace_and_use_or_by_name() {
    let spec = |cidr: &str, more: Value| {
        let mut spec = json!({"cidr": cidr});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let pools = [
        ("nodes", spec("10.1.0.0/24", json!({"nodeSelector": "rack == 'r1'"}))),
        ("spaces", spec("10.2.0.0/24", json!({"namespaceSelector": "team == 'x'"}))),
        ("manual", spec("10.3.0.0/24", json!({"assignmentMode": "Manual"}))),
        ("tunnels", spec("10.4.0.0/24", json!({"allowedUses": ["Tunnel"]}))),
        ("off", spec("10.5.0.0/24", json!({"disabled": true}))),
    ];
    let rig = Rig::new(&pools.map(|(name, spec)| object(Kind::IPPool, name, spec))).await;
    let labelled = |kind: &str, version: &str, name: &str, label: (&str, &str)| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": {label.0: label.1}}});
    let mut node = labelled("Node", "projectcalico.org/v3", "a", ("rack", "r1"));
    node["spec"] = json!({});
    rig.put(&node).await;
    rig.put(&labelled("Namespace", "v1", "team-x", ("team", "x"))).await;

    let from = async |request: &Request| rig.ipam.assign(request).await.map(|given| given[0].pool.clone());
    assert_eq!(from(&wants("1", "a", 1)).await.unwrap(), "nodes");
    let in_x = Request { namespace: "team-x".into(), ..wants("2", "b", 1) };
    assert_eq!(from(&in_x).await.unwrap(), "spaces");
    let why = from(&wants("3", "b", 1)).await.unwrap_err().to_string();
    assert!(why.contains("no IPPool is for IPv4 addresses on node \"b\""), "{why}");
    let tunnel = Request { purpose: AllowedUse::Tunnel, ..wants("4", "b", 1) };
    assert_eq!(from(&tunnel).await.unwrap(), "tunnels");

    let named = |handle: &str, pool: &str| Request { v4_pools: vec![pool.into()], ..wants(handle, "b", 1) };
    assert_eq!(from(&named("5", "nodes")).await.unwrap(), "nodes", "whatever it selects");
    assert_eq!(from(&named("6", "10.3.0.0/24")).await.unwrap(), "manual");
    let why = async |request: &Request| from(request).await.unwrap_err().to_string();
    assert!(why(&named("7", "off")).await.contains("IPPool off is disabled"));
    assert!(why(&named("7", "tunnels")).await.contains("not for the use Workload"));
    assert!(why(&named("7", "none")).await.contains("there is no IPPool none"));
    let wrong = Request { v6: 1, v6_pools: vec!["nodes".into()], ..Request::new("7", "b") };
    assert!(why(&wrong).await.contains("IPPool nodes has no IPv6 addresses"));
    let outside = Request { addresses: vec!["192.0.2.1".parse().unwrap()], ..Request::new("7", "b") };
    assert!(why(&outside).await.contains("192.0.2.1 is in no IPPool"));
}

#[tokio::test]
async fn of_two_who_name_one_address_one_gets_it() {
    let rig = Rig::new(&[pool("p", "10.0.0.0/24", 26)]).await;
    let named =
        |handle: &str| Request { addresses: vec!["10.0.0.9".parse().unwrap()], ..wants(handle, "a", 2) };
    let given = rig.give(&named("h")).await;
    assert_eq!((given.len(), &*given[0]), (2, "10.0.0.9"), "those by name are among those counted");
    assert_eq!(rig.give(&named("h")).await, given);
    assert!(rig.denied(&named("other")).await.contains("10.0.0.9 is given already, to handle \"h\""));
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused_by_its_field() {
    let rig = Rig::new(&[pool("p", "10.0.0.0/24", 26)]).await;
    let twice = vec!["10.0.0.1".parse().unwrap(); 2];
    for (request, field) in [
        (wants("", "a", 1), "handle"),
        (wants("h\n", "a", 1), "handle"),
        (wants(&"h".repeat(MAX_TEXT + 1), "a", 1), "handle"),
        (wants("h", "", 1), "node"),
        (wants("h", "a", 0), "num_ipv4"),
        (wants("h", "a", MAX_ADDRESSES + 1), "addresses"),
        (Request { addresses: twice, ..Request::new("h", "a") }, "addresses"),
    ] {
        let why = rig.denied(&request).await;
        assert!(why.starts_with(&format!("{field}: ")), "{why}");
    }
}

#[tokio::test]
async fn a_block_that_cannot_be_read_gives_nothing_and_stays_taken() {
    let rig = Rig::new(&[pool("p", "10.0.0.0/29", 30)]).await;
    let block = Block::claim("10.0.0.0/30".parse().unwrap(), "a", false, Timestamp::from_unix(1));
    let mut wrong = block.to_object();
    wrong.spec.unallocated.clear();
    let wrong = Resource::from(wrong);
    let write = Write::Put { key: wrong.key(), json: wrong.to_json().into(), expected: Expected::Nothing };
    rig.store.commit(vec![write], Run::Real).await.unwrap();
    let given = rig.give(&wants("h", "a", 4)).await;
    assert!(given.iter().all(|addr| addr.as_str() >= "10.0.0.4"), "{given:?}");
    assert!(rig.ipam.assign(&wants("h2", "a", 1)).await.is_err());
    let named = Request { addresses: vec!["10.0.0.1".parse().unwrap()], ..Request::new("h2", "a") };
    assert!(rig.ipam.assign(&named).await.unwrap_err().to_string().contains("books of block 10.0.0.0/30"));
}

#[tokio::test]
async fn a_pool_of_more_blocks_than_can_be_counted_is_claimed_from() {
    let reserved = json!({"reservedCIDRs": ["fd00::/9"]});
    let rig = Rig::new(&[pool("p", "fd00::/8", 122), object(Kind::IPReservation, "r", reserved)]).await;
    for node in ["a", "b", "c", "d"] {
        let given = rig.give(&Request { v6: 1, ..Request::new(node, node) }).await;
        let upper: Cidr = "fd80::/9".parse().unwrap();
        assert!(upper.contains(given[0].parse().unwrap()), "{given:?}");
    }
}
