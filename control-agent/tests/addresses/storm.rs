//! Eight agents that die at any operation of the store, and one log that none of them sees.

use crate::faulty::{Death, Dice, Faulty, Side};
use margay_agent::{
    datastore::{Datastore, Expected, Memory, Run, Write},
    ipam::{AssignError, Books, Collector, GRACE, Ipam, Request},
    model::{Key, Kind, Resource, scalar::Timestamp},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::task::LocalSet;

const AGENTS: u64 = 8;

/// Assignments and releases; `MARGAY_STORM` for another number.
const OPERATIONS: u64 = 3_000;

/// Workloads that one agent has at a time: together they are more than there are addresses.
const WORKLOADS: usize = 34;

struct World {
    store: Arc<Memory>,
    now: AtomicU64,
    /// Who may use which address, as the workloads have it: from when they are told that it is theirs
    /// until they stop using it. The books are never asked.
    log: Mutex<BTreeMap<IpAddr, String>>,
    done: AtomicU64,
    deaths: AtomicU64,
    denied: AtomicU64,
    collected: AtomicU64,
}

impl World {
    async fn new() -> Arc<Self> {
        let world = Self {
            store: Arc::new(Memory::new()),
            now: AtomicU64::new(1_000_000),
            log: Mutex::default(),
            done: AtomicU64::new(0),
            deaths: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            collected: AtomicU64::new(0),
        };
        let pool = |name: &str, cidr: &str, block: u8| {
            object(Kind::IPPool, name, json!({"cidr": cidr, "blockSize": block}))
        };
        let settings = object(Kind::IPAMConfiguration, "default", json!({"ipCooldownSeconds": 5}));
        for object in [pool("four", "10.0.0.0/24", 28), pool("six", "fd00::/120", 124), settings] {
            let resource = object.admit().unwrap();
            world.store.commit(vec![put(&resource)], Run::Real).await.unwrap();
        }
        Arc::new(world)
    }

    fn ipam(self: &Arc<Self>, store: Arc<Faulty>) -> Arc<Ipam> {
        let world = self.clone();
        Arc::new(Ipam::new(store, Arc::new(move || Timestamp::from_unix(world.now.load(Ordering::Relaxed)))))
    }

    fn told(&self, addresses: &[IpAddr], who: &str) {
        let mut log = self.log.lock().unwrap();
        for addr in addresses {
            let before = log.insert(*addr, who.to_owned());
            assert_eq!(before, None, "{addr} is given to {who} while another one has it");
        }
    }

    fn stops(&self, addresses: &[IpAddr]) {
        let mut log = self.log.lock().unwrap();
        addresses.iter().for_each(|addr| drop(log.remove(addr)));
    }

    /// Who has what, by the books.
    async fn books(&self) -> BTreeMap<IpAddr, String> {
        let books = Books::of(&self.store.list().await.unwrap());
        let blocks = books.blocks().map(|(_, stored)| stored.block.clone().expect("the books are right"));
        let given: Vec<_> = blocks
            .flat_map(|block| {
                let all = block.allocations().map(|(addr, one)| (addr, one.owner.handle.clone()));
                all.collect::<Vec<_>>()
            })
            .collect();
        let (count, map) = (given.len(), given.into_iter().collect::<BTreeMap<_, _>>());
        assert_eq!(map.len(), count, "no address is in two blocks");
        map
    }

    /// All agents look for what is lost until it has been lost for long enough.
    async fn collect(self: &Arc<Self>) {
        let ipam = self.ipam(Arc::new(Faulty::new(self.store.clone(), Death::Never)));
        let mut collectors: Vec<_> =
            (0..AGENTS).map(|at| Collector::new(ipam.clone(), &format!("n{at}"), GRACE)).collect();
        for _ in 0..3 {
            for collector in &mut collectors {
                collector.collect().await.unwrap();
            }
            self.now.fetch_add(GRACE, Ordering::Relaxed);
        }
    }
}

fn object(kind: Kind, name: &str, spec: Value) -> Resource {
    let json = json!({"apiVersion": "projectcalico.org/v3", "kind": kind.name(), "metadata": {"name": name}, "spec": spec});
    Resource::from_json(&json.to_string()).unwrap()
}

fn put(resource: &Resource) -> Write {
    Write::Put { key: resource.key(), json: resource.to_json().into(), expected: Expected::Anything }
}

fn endpoint(node: &str, who: &str, addresses: &[IpAddr]) -> Resource {
    let spec = json!({
        "node": node, "orchestrator": "k8s", "pod": who, "endpoint": "eth0", "interfaceName": "cali0",
        "ipNetworks": addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    object(Kind::WorkloadEndpoint, &format!("{node}-k8s-{who}-eth0"), spec).admit().unwrap()
}

fn delete(node: &str, who: &str) -> Write {
    let name = format!("{node}-k8s-{who}-eth0");
    let key = Key { kind: Kind::WorkloadEndpoint, namespace: "default".into(), name };
    Write::Delete { key, expected: Expected::Something }
}

/// A node's agent, which is started again whenever it died.
struct Agent {
    world: Arc<World>,
    node: String,
    dice: Dice,
    store: Arc<Faulty>,
    ipam: Arc<Ipam>,
    /// In a process of its own, that more than one look may go well.
    collector: (Arc<Faulty>, Collector),
    workloads: Vec<(String, Vec<IpAddr>)>,
    named: u64,
}

impl Agent {
    fn new(world: Arc<World>, at: u64, mut dice: Dice) -> Self {
        let node = format!("n{at}");
        let (store, ipam) = Self::process(&world, &mut dice);
        let collector = Self::collector(&world, &node, &mut dice);
        Self { world, node, dice, store, ipam, collector, workloads: Vec::new(), named: 0 }
    }

    fn process(world: &Arc<World>, dice: &mut Dice) -> (Arc<Faulty>, Arc<Ipam>) {
        let death = Death::OneIn(20, Dice::new(dice.throw(u64::MAX)));
        let store = Arc::new(Faulty::new(world.store.clone(), death));
        let ipam = world.ipam(store.clone());
        (store, ipam)
    }

    fn collector(world: &Arc<World>, node: &str, dice: &mut Dice) -> (Arc<Faulty>, Collector) {
        let (store, ipam) = Self::process(world, dice);
        (store, Collector::new(ipam, node, GRACE))
    }

    /// After a death: a new process that remembers nothing.
    fn revive(&mut self) {
        if self.store.is_dead() {
            self.world.deaths.fetch_add(1, Ordering::Relaxed);
            (self.store, self.ipam) = Self::process(&self.world, &mut self.dice);
        }
    }

    async fn run(mut self, operations: u64) {
        for at in 0..operations {
            self.world.now.fetch_add(1, Ordering::Relaxed);
            self.world.done.fetch_add(1, Ordering::Relaxed);
            let full = self.workloads.len() >= WORKLOADS;
            match self.dice.throw(100) {
                _ if self.workloads.is_empty() => self.start().await,
                0..60 if !full => self.start().await,
                _ => self.stop().await,
            }
            self.revive();
            if at % 50 == 49 {
                self.collect().await;
            }
        }
    }

    async fn collect(&mut self) {
        let (store, collector) = &mut self.collector;
        let collected = collector.collect().await.map_or(0, |collected| collected.addresses.len());
        self.world.collected.fetch_add(collected as u64, Ordering::Relaxed);
        if store.is_dead() {
            self.world.deaths.fetch_add(1, Ordering::Relaxed);
            self.collector = Self::collector(&self.world, &self.node, &mut self.dice);
        }
    }

    async fn start(&mut self) {
        self.named += 1;
        let who = format!("{}-{}", self.node, self.named);
        let mut request = Request { pod: who.clone(), ..Request::new(&who, &self.node) };
        match self.dice.throw(8) {
            0 => request.addresses = vec![[10, 0, 0, self.dice.throw(256) as u8].into()],
            1 => (request.v4, request.v6) = (2, 1),
            2 => request.v6 = 1,
            _ => request.v4 = 1,
        }
        let given = match self.ipam.assign(&request).await {
            Ok(given) => given.into_iter().map(|one| one.address).collect::<Vec<_>>(),
            Err(AssignError::Store(_)) => {
                // Whether it was given something nobody knows. Some ask again, some give it back, and
                // some forget that they ever asked.
                self.revive();
                match self.dice.throw(3) {
                    0 => match self.ipam.assign(&request).await {
                        Ok(given) => given.into_iter().map(|one| one.address).collect(),
                        Err(_) => return,
                    },
                    1 => return drop(self.ipam.release_handle(&who).await),
                    _ => return,
                }
            }
            Err(AssignError::Exhausted { .. } | AssignError::Taken { .. } | AssignError::Full { .. }) => {
                self.world.denied.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(error) => panic!("{error}"),
        };
        self.world.told(&given, &who);
        let endpoint = put(&endpoint(&self.node, &who, &given));
        loop {
            match self.store.commit(vec![endpoint.clone()], Run::Real).await {
                Ok(_) => return self.workloads.push((who, given)),
                // Its container never starts.
                Err(_) if self.dice.throw(2) == 0 => break,
                Err(_) => self.revive(),
            }
        }
        self.world.stops(&given);
        self.revive();
        self.gone(&who).await;
    }

    async fn stop(&mut self) {
        let at = self.dice.throw(self.workloads.len() as u64) as usize;
        let (who, addresses) = self.workloads.swap_remove(at);
        self.world.stops(&addresses);
        self.gone(&who).await;
        match self.ipam.release_handle(&who).await {
            // No more than it had: some may have been collected before.
            Ok(released) => assert!(released.iter().all(|addr| addresses.contains(addr))),
            Err(_) if self.dice.throw(2) == 0 => {
                self.revive();
                let _ = self.ipam.release_handle(&who).await;
            }
            Err(_) => {}
        }
    }

    /// Removes the workload's endpoint, for certain.
    async fn gone(&mut self, who: &str) {
        while let Err(error) = self.store.commit(vec![delete(&self.node, who)], Run::Real).await {
            if error.is_conflict() {
                return;
            }
            self.revive();
        }
    }
}

#[tokio::test]
async fn no_address_is_given_twice_and_none_is_lost_whenever_agents_die() {
    let operations =
        std::env::var("MARGAY_STORM").map_or(OPERATIONS, |count| count.parse().expect("a number"));
    let world = World::new().await;
    let tasks = LocalSet::new();
    let left = Rc::new(Mutex::new(()));
    for at in 0..AGENTS {
        let agent = Agent::new(world.clone(), at, Dice::new(0x6d61_7267_6179 + at));
        let left = left.clone();
        tasks.spawn_local(async move {
            agent.run(operations / AGENTS).await;
            drop(left);
        });
    }
    tasks.await;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (done, deaths, denied) = (count(&world.done), count(&world.deaths), count(&world.denied));
    let before = world.books().await;
    let used = world.log.lock().unwrap().clone();
    assert!(used.iter().all(|(addr, who)| before.get(addr) == Some(who)), "what is used is in the books");
    let leaked = before.len() - used.len();
    let collected = count(&world.collected);
    println!(
        "{done} operations, {deaths} deaths, {denied} denied, {collected} collected on the way, {} in use, {leaked} leaked",
        used.len()
    );
    assert!(
        done >= operations / AGENTS * AGENTS
            && deaths > done / 50
            && denied > 0
            && leaked + collected as usize > 0
    );

    world.collect().await;
    assert_eq!(world.books().await, used, "exactly what is used is in the books");

    // When all are gone, so are the addresses, and all blocks but one a node and pool.
    let ipam = world.ipam(Arc::new(Faulty::new(world.store.clone(), Death::Never)));
    for who in used.values().collect::<BTreeSet<_>>() {
        ipam.release_handle(who).await.unwrap();
    }
    world.collect().await;
    world.collect().await;
    assert_eq!(world.books().await, BTreeMap::new());
    let books = ipam.books().await.unwrap();
    let mut kept = BTreeSet::new();
    for (cidr, stored) in books.blocks() {
        let node = stored.block.as_ref().unwrap().node().map(str::to_owned);
        assert!(kept.insert((node, cidr.is_v4())), "{cidr} is kept for nobody");
    }
}

/// One workload from its first address to the collection of what it leaves, with a death at each
/// operation of the store, before and after it was done.
#[tokio::test]
async fn a_death_at_any_operation_leaves_nothing_that_is_not_mended() {
    let mut reached = 0;
    for side in [Side::Before, Side::After] {
        for at in 1.. {
            let world = World::new().await;
            let store = Arc::new(Faulty::new(world.store.clone(), Death::At(at, side)));
            let _ = life(&world, store.clone()).await;
            if !store.is_dead() {
                break;
            }
            reached += 1;
            let second = Arc::new(Faulty::new(world.store.clone(), Death::Never));
            life(&world, second).await.unwrap_or_else(|error| panic!("after {at} {side:?}: {error}"));
            world.collect().await;
            assert_eq!(world.books().await, BTreeMap::new(), "after {at} {side:?}");
        }
    }
    assert!(reached > 20, "only {reached} operations were reached");
}

async fn life(world: &Arc<World>, store: Arc<Faulty>) -> Result<(), AssignError> {
    let ipam = world.ipam(store.clone());
    let request = |handle: &str, v4, v6| Request { v4, v6, pod: handle.into(), ..Request::new(handle, "n0") };
    // Of three blocks.
    let given = ipam.assign(&request("w", 20, 1)).await?;
    assert_eq!(given.len(), 21);
    let addresses: Vec<_> = given.iter().map(|one| one.address).collect();
    store.commit(vec![put(&endpoint("n0", "w", &addresses))], Run::Real).await?;
    let others = ipam.assign(&request("other", 1, 1)).await?;
    assert!(others.iter().all(|one| !addresses.contains(&one.address)));
    store.commit(vec![delete("n0", "w")], Run::Real).await?;
    assert_eq!(ipam.release_handle("w").await?.len(), 21);
    // The other one never got an endpoint, and nobody gives it back.
    let mut collector = Collector::new(ipam, "n0", GRACE);
    assert_eq!(collector.collect().await?, margay_agent::ipam::Collected::default(), "not at first sight");
    world.now.fetch_add(GRACE, Ordering::Relaxed);
    assert_eq!(collector.collect().await?.addresses.len(), 2);
    world.now.fetch_add(GRACE, Ordering::Relaxed);
    collector.collect().await?;
    Ok(())
}
