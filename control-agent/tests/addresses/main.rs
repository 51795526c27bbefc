//! Addresses through the API of running agents.

mod faulty;
#[path = "../rig/mod.rs"]
mod rig;
mod storm;

use margay_agent::{
    datastore::{Datastore, Memory, Remote},
    ipam::{Ipam, Request},
    model::scalar::Timestamp,
};
use margay_api::control::v1::{
    AddressToRelease, ApplyRequest, AssignAddressesRequest, DeleteRequest, GetRequest, ListAddressesRequest,
    ReleaseAddressesRequest, SplitPoolRequest, control_client::ControlClient,
};
use rig::{EAGER, Running};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::IpAddr, path::Path, sync::Arc};
use tokio::task::JoinSet;
use tonic::{Code, Status, transport::Channel};

fn object(kind: &str, name: &str, spec: Value) -> String {
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec})
        .to_string()
}

fn pool(cidr: &str, block: u8) -> String {
    object("IPPool", "p", json!({"cidr": cidr, "blockSize": block}))
}

async fn agent(dir: &Path) -> (Running, ControlClient<Channel>) {
    let store = Arc::new(Memory::new());
    let running = Running::start("a", store, &dir.join("agent.sock"), &dir.join("none.sock")).await;
    let client = running.client().await;
    (running, client)
}

async fn apply(client: &mut ControlClient<Channel>, objects: &[String]) -> Result<(), Status> {
    let request = ApplyRequest { objects: objects.to_vec(), ..ApplyRequest::default() };
    client.apply(request).await.map(drop)
}

fn wants(handle: &str, count: u32) -> AssignAddressesRequest {
    AssignAddressesRequest {
        handle: handle.into(),
        namespace: "shop".into(),
        pod: handle.into(),
        num_ipv4: count,
        ..AssignAddressesRequest::default()
    }
}

fn back(handle: &str) -> ReleaseAddressesRequest {
    ReleaseAddressesRequest { handle: handle.into(), ..ReleaseAddressesRequest::default() }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.expect_err("refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn addresses_are_asked_for_and_given_back_over_the_api() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, mut client) = agent(dir.path()).await;
    let (code, message) = refusal(client.assign_addresses(wants("h", 1)).await);
    assert_eq!(code, Code::FailedPrecondition, "{message}");
    apply(&mut client, &[pool("10.0.0.0/24", 30)]).await.unwrap();

    let given = client.assign_addresses(wants("h", 2)).await.unwrap().into_inner().addresses;
    assert_eq!(given.len(), 2);
    assert_eq!((given[0].prefix_length, &*given[0].pool), (32, "p"));
    assert!(given[0].block.ends_with("/30") && given[0].block == given[1].block);
    assert_eq!(client.assign_addresses(wants("h", 2)).await.unwrap().into_inner().addresses, given);

    let named = AssignAddressesRequest { addresses: vec![given[0].address.clone()], ..wants("other", 0) };
    assert_eq!(refusal(client.assign_addresses(named).await).0, Code::AlreadyExists);
    let one = AddressToRelease { address: given[0].address.clone(), handle: "other".into(), sequence: 0 };
    let only = |one: &AddressToRelease| ReleaseAddressesRequest {
        addresses: vec![one.clone()],
        ..ReleaseAddressesRequest::default()
    };
    let released = client.release_addresses(only(&one)).await.unwrap().into_inner().released;
    assert_eq!(released, Vec::<String>::new(), "it is not that handle's");
    let one = AddressToRelease { handle: "h".into(), ..one };
    let released = client.release_addresses(only(&one)).await.unwrap().into_inner().released;
    assert_eq!(released, [given[0].address.clone()]);
    let released = client.release_addresses(back("h")).await.unwrap().into_inner().released;
    assert_eq!(released, [given[1].address.clone()]);
    assert_eq!(
        client.release_addresses(back("h")).await.unwrap().into_inner().released,
        Vec::<String>::new()
    );

    let unknown = AssignAddressesRequest { ipv4_pools: vec!["q".into()], ..wants("h", 1) };
    let many = wants("h", 300);
    let strange = AssignAddressesRequest { r#use: "Fun".into(), ..wants("h", 1) };
    let prefix = AssignAddressesRequest { addresses: vec!["10.0.0.0/30".into()], ..wants("h", 0) };
    for (request, code) in [
        (unknown, Code::NotFound),
        (many, Code::ResourceExhausted),
        (strange, Code::InvalidArgument),
        (prefix, Code::InvalidArgument),
        (wants("", 1), Code::InvalidArgument),
    ] {
        let (found, message) = refusal(client.assign_addresses(request).await);
        assert_eq!(found, code, "{message}");
    }
    let (code, _) = refusal(client.release_addresses(ReleaseAddressesRequest::default()).await);
    assert_eq!(code, Code::InvalidArgument);
}

#[tokio::test]
async fn what_agents_keep_users_can_only_read() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, mut client) = agent(dir.path()).await;
    apply(&mut client, &[pool("10.0.0.0/24", 30)]).await.unwrap();
    client.assign_addresses(wants("h", 1)).await.unwrap();
    let get = GetRequest { kind: "ipamblocks".into(), ..GetRequest::default() };
    let block = client.get(get.clone()).await.unwrap().into_inner().objects.remove(0);
    let (code, message) = refusal(apply(&mut client, std::slice::from_ref(&block.json)).await);
    assert!(code == Code::InvalidArgument && message.contains("kept by the agents"), "{message}");
    let delete = DeleteRequest { kind: "ipamblock".into(), name: block.name, ..DeleteRequest::default() };
    let (code, message) = refusal(client.delete(delete).await);
    assert!(code == Code::FailedPrecondition && message.contains("margayctl ipam release"), "{message}");
    let affinity =
        object("BlockAffinity", "a", json!({"cidr": "10.0.0.0/30", "node": "a", "state": "confirmed"}));
    assert_eq!(refusal(apply(&mut client, &[affinity]).await).0, Code::InvalidArgument);
    assert_eq!(client.get(get).await.unwrap().into_inner().objects.len(), 1);

    let get = GetRequest { kind: "blockaffinities".into(), ..GetRequest::default() };
    let affinities = client.get(get).await.unwrap().into_inner().objects;
    let affinity: Value = serde_json::from_str(&affinities[0].json).unwrap();
    assert_eq!((affinities.len(), &affinity["spec"]["node"]), (1, &json!("a")));
}

#[tokio::test]
async fn what_does_not_add_up_is_found_and_can_be_released() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, mut client) = agent(dir.path()).await;
    let endpoint = |pod: &str, addresses: &[&str]| {
        let spec = json!({
            "node": "a", "orchestrator": "k8s", "pod": pod, "endpoint": "eth0",
            "interfaceName": format!("cali{pod}"), "ipNetworks": addresses,
        });
        object("WorkloadEndpoint", &format!("a-k8s-{pod}-eth0"), spec)
    };
    let spare = object("IPPool", "spare", json!({"cidr": "10.1.0.0/24"}));
    apply(&mut client, &[pool("10.0.0.0/24", 28), spare]).await.unwrap();
    let mut give = async |pod: &str, pools: &[&str]| {
        let ipv4_pools = pools.iter().map(ToString::to_string).collect();
        let request = AssignAddressesRequest { ipv4_pools, ..wants(pod, 1) };
        client.assign_addresses(request).await.unwrap().into_inner().addresses.remove(0).address
    };
    let (good, lost, stray) =
        (give("good", &["p"]).await, give("lost", &["p"]).await, give("stray", &["spare"]).await);
    let endpoints =
        [endpoint("good", &[&good]), endpoint("stray", &[&stray]), endpoint("twin", &[&stray, "10.0.0.200"])];
    apply(&mut client, &endpoints).await.unwrap();
    let gone = DeleteRequest { kind: "ippool".into(), name: "spare".into(), ..DeleteRequest::default() };
    client.delete(gone).await.unwrap();

    let request = ListAddressesRequest { findings: true, ..ListAddressesRequest::default() };
    let list = client.list_addresses(request.clone()).await.unwrap().into_inner();
    let found: Vec<_> = list.findings.iter().map(|one| (&*one.kind, &*one.address)).collect();
    let expected =
        [("leaked", &*lost), ("double", &stray), ("out-of-pool", &stray), ("unallocated", "10.0.0.200")];
    assert_eq!(found, expected);
    assert_eq!((list.pools[0].used, list.pools[0].size.as_str()), (2, "256"));
    let leaked = &list.findings[0];
    let release = |sequence| ReleaseAddressesRequest {
        handle: String::new(),
        addresses: vec![AddressToRelease { address: lost.clone(), handle: leaked.handle.clone(), sequence }],
    };
    let released = async |client: &mut ControlClient<Channel>, sequence| {
        client.release_addresses(release(sequence)).await.unwrap().into_inner().released
    };
    assert_eq!(released(&mut client, leaked.sequence + 1).await, [""; 0], "that was another assignment");
    assert_eq!(released(&mut client, leaked.sequence).await, std::slice::from_ref(&lost));
    let list = client.list_addresses(request).await.unwrap().into_inner();
    assert!(list.findings.iter().all(|one| one.kind != "leaked"));

    let one = ListAddressesRequest { address: good.clone(), ..ListAddressesRequest::default() };
    let one = client.list_addresses(one).await.unwrap().into_inner().allocations.remove(0);
    assert_eq!((one.address, one.attributes["pod"].as_str(), one.owner.as_str()), (good, "good", "a"));
}

#[tokio::test]
async fn a_pool_is_split_at_once_and_its_blocks_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, mut client) = agent(dir.path()).await;
    apply(&mut client, &[pool("10.0.0.0/24", 28)]).await.unwrap();
    let before = client.assign_addresses(wants("h", 1)).await.unwrap().into_inner().addresses;
    let split = |pool: &str, parts| SplitPoolRequest { pool: pool.into(), parts };
    for (pool, parts, code) in [
        ("p", 0, Code::InvalidArgument),
        ("p", 1, Code::InvalidArgument),
        ("p", 3, Code::InvalidArgument),
        ("p", 32, Code::InvalidArgument),
        ("10.0.0.0/25", 2, Code::NotFound),
    ] {
        assert_eq!(refusal(client.split_pool(split(pool, parts)).await).0, code, "{pool} in {parts}");
    }
    let names = client.split_pool(split("10.0.0.0/24", 4)).await.unwrap().into_inner().pools;
    assert_eq!(names, ["split-0-p", "split-1-p", "split-2-p", "split-3-p"]);
    let list = client.list_addresses(ListAddressesRequest::default()).await.unwrap().into_inner();
    let cidrs: Vec<_> = list.pools.iter().map(|pool| pool.cidr.as_str()).collect();
    assert_eq!(cidrs, ["10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/26", "10.0.0.192/26"]);
    let after = client.assign_addresses(wants("h", 1)).await.unwrap().into_inner().addresses;
    assert_eq!((&after[0].address, &after[0].block), (&before[0].address, &before[0].block));
    assert!(names.contains(&after[0].pool));
}

#[tokio::test]
async fn a_pool_keeps_the_shape_that_its_blocks_have() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, mut client) = agent(dir.path()).await;
    apply(&mut client, &[pool("10.0.0.0/24", 30)]).await.unwrap();
    apply(&mut client, &[pool("10.0.0.0/23", 28)]).await.unwrap();
    client.assign_addresses(wants("h", 1)).await.unwrap();
    let (code, message) = refusal(apply(&mut client, &[pool("10.0.0.0/24", 28)]).await);
    assert!(
        code == Code::InvalidArgument && message.contains("spec.cidr: addresses of its block"),
        "{message}"
    );
    let (_, message) = refusal(apply(&mut client, &[pool("10.0.0.0/23", 26)]).await);
    assert!(message.contains("spec.blockSize: 26, and there is a block"), "{message}");
    apply(&mut client, &[pool("10.0.0.0/23", 28)]).await.unwrap();
}

/// Through three ways at once: on the store itself, over the API, and as an agent whose store is
/// another's.
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_share_one_agents_store_never_give_the_same() {
    const EACH: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let (_running, mut client) = agent(dir.path()).await;
    // Two blocks for three nodes: one always borrows.
    apply(&mut client, &[pool("10.0.0.0/25", 26)]).await.unwrap();
    let mut agents = JoinSet::new();
    for node in ["b", "c"] {
        let remote = Remote::new(&dir.path().join("agent.sock"), EAGER);
        while remote.list().await.is_err() {
            tokio::task::yield_now().await;
        }
        let ipam = Ipam::new(Arc::new(remote), Arc::new(|| Timestamp::from_unix(1_000_000)));
        agents.spawn(async move {
            let mut given = Vec::new();
            for at in 0..EACH {
                let handle = format!("{node}{at}");
                let one = ipam.assign(&Request { v4: 1, ..Request::new(&handle, node) }).await.unwrap();
                // Every other one comes and goes.
                match at % 2 {
                    0 => given.push(one[0].address),
                    _ => assert_eq!(ipam.release_handle(&handle).await.unwrap(), [one[0].address]),
                }
            }
            given
        });
    }
    let mut own = client.clone();
    agents.spawn(async move {
        let mut given = Vec::new();
        for at in 0..EACH {
            let addresses = own.assign_addresses(wants(&format!("a{at}"), 1)).await.unwrap().into_inner();
            given.push(addresses.addresses[0].address.parse::<IpAddr>().unwrap());
        }
        given
    });
    let all: Vec<IpAddr> = agents.join_all().await.into_iter().flatten().collect();
    assert_eq!(all.len(), EACH * 2);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}
