//! One immutable configuration, published whole and freed where it was made.
//!
//! A [`Snapshot`] holds all that workers judge packets by. The control thread publishes a new
//! one; each worker refreshes its [`Reader`] once per poll, so a packet sees one generation of
//! everything. Retired snapshots wait in the [`Publisher`] until only it holds them: their
//! destructors run on the control thread, never on a worker.

use crate::conntrack::{Masquerade, Quotas, Tracking};
use crate::fib::{Fib, Interfaces, Overlay};
use crate::net::{Addr, Generation};
use crate::policy::{EndpointIdx, PolicyTable, Shadow};
use crate::service::Services;
use crate::wireguard::Keyring;
use arc_swap::{ArcSwap, cache::Cache};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a policy change means for live flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Established {
    /// They survive it, as in Calico.
    #[default]
    Keep,
    /// They are judged again.
    Recheck,
}

/// What becomes of packets from a workload to its own host, after the workload's egress policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointToHost {
    /// They are dropped.
    #[default]
    Drop,
    /// They go to the host.
    Accept,
    /// The normal policy of the host endpoint on the workload's interface decides, which is one for all
    /// interfaces; where there is none, they go to the host.
    Return,
}

/// All that workers judge packets by.
pub struct Snapshot {
    /// Grows by one with each publication.
    pub generation: Generation,
    /// The generation since which live flows' ways hold: what was found under an older one must be
    /// asked for anew. Set by [`Publisher::publish`].
    pub ways: Generation,
    /// The agent's generation it embodies.
    pub committed: u64,
    /// Where packets go.
    pub fib: Arc<Fib>,
    /// What they come from and leave by.
    pub interfaces: Arc<Interfaces>,
    /// Tunnels to other nodes, and whom we take packets from by them.
    pub overlay: Overlay,
    /// The sessions of encrypted ones.
    pub keyring: Arc<Keyring>,
    /// What stands for others.
    pub services: Arc<Services>,
    /// Whether they may.
    pub policy: Arc<PolicyTable>,
    /// What staged policies would say; `None`: there are none.
    pub shadow: Option<Arc<Shadow>>,
    /// How many flows each workload has: the same in every snapshot.
    pub quotas: Arc<Quotas>,
    /// What a policy change means for live flows.
    pub established: Established,
    /// How packets are held against live flows.
    pub tracking: Tracking,
    /// What becomes of packets from a workload to its own host that its egress policy allows.
    pub endpoint_to_host: EndpointToHost,
    /// What leaves with an address of this node.
    pub masquerade: Arc<Masquerade>,
    /// There while a host endpoint protects an interface, or workloads' packets leave with an address
    /// of this host.
    pub protection: Option<Protection>,
}

/// What all host endpoints need besides their own policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Every address of this host, in order.
    pub addresses: Arc<[Addr]>,
    /// Failsafe ports: the list of packets in, and of packets out, that no host endpoint denies.
    pub failsafe: EndpointIdx,
    /// The same for answers, which untracked policy would see: by source port.
    pub failsafe_replies: EndpointIdx,
}

/// The control thread's end.
pub struct Publisher {
    slot: Arc<ArcSwap<Snapshot>>,
    retired: Vec<Arc<Snapshot>>,
    seen: Vec<Arc<Seen>>,
    /// Of the snapshots not yet adopted, and of the last one that is: what they embody.
    embodied: VecDeque<(Generation, u64)>,
}

/// The generation one worker has seen; on its own cache lines.
#[repr(align(128))]
struct Seen(AtomicU32);

/// A worker's end.
pub struct Reader {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    seen: Arc<Seen>,
}

impl Snapshot {
    /// Before anything is known: nothing is routed, nothing is allowed.
    pub fn empty(workers: usize) -> Self {
        Self {
            generation: Generation(0),
            ways: Generation(0),
            committed: 0,
            fib: Arc::default(),
            interfaces: Arc::default(),
            overlay: Overlay::default(),
            keyring: Arc::default(),
            services: Arc::default(),
            policy: Arc::new(PolicyTable::empty(workers)),
            shadow: None,
            quotas: Arc::default(),
            established: Established::default(),
            tracking: Tracking::default(),
            endpoint_to_host: EndpointToHost::default(),
            masquerade: Arc::default(),
            protection: None,
        }
    }

    /// A live flow's packets go the same way here as under `other`, and need not be judged again.
    fn keeps_ways_of(&self, other: &Self) -> bool {
        // What is shared is the same; what was built anew may have other indexes.
        Arc::ptr_eq(&self.fib, &other.fib)
            && Arc::ptr_eq(&self.interfaces, &other.interfaces)
            && self.established == other.established
            && (self.established == Established::Keep || Arc::ptr_eq(&self.policy, &other.policy))
            && self.endpoint_to_host == other.endpoint_to_host
            && self.protection == other.protection
    }
}

impl Publisher {
    /// Begins with `first`, under generation 0.
    pub fn new(first: Snapshot) -> Self {
        let embodied = VecDeque::from([(first.generation, first.committed)]);
        Self { slot: Arc::new(ArcSwap::from_pointee(first)), retired: vec![], seen: vec![], embodied }
    }

    /// A worker's end. Before the worker first refreshes it, it holds adoption back.
    pub fn reader(&mut self) -> Reader {
        let seen = Arc::new(Seen(AtomicU32::new(0)));
        self.seen.push(seen.clone());
        Reader { cache: Cache::new(self.slot.clone()), seen }
    }

    /// What is published now.
    pub fn current(&self) -> Arc<Snapshot> {
        self.slot.load_full()
    }

    /// Publishes, under the next generation, which is returned.
    pub fn publish(&mut self, mut snapshot: Snapshot) -> Generation {
        let current = self.slot.load_full();
        let generation = Generation(current.generation.0 + 1);
        snapshot.generation = generation;
        snapshot.ways = if snapshot.keeps_ways_of(&current) { current.ways } else { generation };
        self.embodied.push_back((generation, snapshot.committed));
        self.retired.push(self.slot.swap(Arc::new(snapshot)));
        self.reclaim();
        generation
    }

    /// Frees the retired snapshots that no worker holds any more.
    pub fn reclaim(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// Every worker judges packets by this generation, or a later one.
    pub fn adopted(&self) -> Generation {
        let seen = self.seen.iter().map(|seen| seen.0.load(Ordering::Acquire)).min();
        Generation(seen.unwrap_or(self.slot.load().generation.0))
    }

    /// The agent's generation that every worker judges packets by, or a later one.
    pub fn adopted_commit(&mut self) -> u64 {
        let adopted = self.adopted();
        while self.embodied.get(1).is_some_and(|(generation, _)| *generation <= adopted) {
            self.embodied.pop_front();
        }
        self.embodied.front().map_or(0, |(_, committed)| *committed)
    }

    /// What each worker has seen, in the order the readers were made.
    pub fn seen(&self) -> Vec<Generation> {
        self.seen.iter().map(|seen| Generation(seen.0.load(Ordering::Acquire))).collect()
    }

    /// Snapshots that are retired and still held by a worker.
    pub fn held(&self) -> usize {
        self.retired.len()
    }
}

impl Reader {
    /// Once per poll, idle polls too: the point where a worker lets go of the old snapshot.
    /// `held` is the worker's own reference, replaced when there is a newer one: then `true`.
    #[inline]
    pub fn refresh(&mut self, held: &mut Arc<Snapshot>) -> bool {
        let latest = self.cache.load();
        let newer = latest.generation != held.generation;
        if newer {
            // Not the last reference: the publisher's list holds another.
            *held = latest.clone();
        }
        // Also the very first time, when nothing was published yet.
        if self.seen.0.load(Ordering::Relaxed) != latest.generation.0 {
            self.seen.0.store(latest.generation.0, Ordering::Release);
        }
        newer
    }

    /// What is published now, for a worker's start.
    pub fn first(&mut self) -> Arc<Snapshot> {
        self.cache.load().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_hold_until_something_they_depend_on_changes() {
        let mut publisher = Publisher::new(Snapshot::empty(1));
        let mut publish = |change: &dyn Fn(&mut Snapshot)| {
            let now = publisher.current();
            let mut next = Snapshot {
                fib: now.fib.clone(),
                interfaces: now.interfaces.clone(),
                policy: now.policy.clone(),
                protection: now.protection.clone(),
                established: now.established,
                endpoint_to_host: now.endpoint_to_host,
                ..Snapshot::empty(1)
            };
            change(&mut next);
            let generation = publisher.publish(next);
            publisher.current().ways == generation
        };
        let protection = || Protection {
            addresses: [Addr::v4([10, 0, 0, 1])].into(),
            failsafe: EndpointIdx(1),
            failsafe_replies: EndpointIdx(2),
        };
        assert!(!publish(&|_| {}), "nothing changed");
        assert!(!publish(&|s| s.policy = Arc::new(PolicyTable::empty(1))), "live flows are kept");
        assert!(publish(&|s| s.fib = Arc::default()));
        assert!(publish(&|s| s.interfaces = Arc::default()));
        assert!(publish(&|s| s.endpoint_to_host = EndpointToHost::Accept));
        assert!(publish(&|s| s.protection = Some(protection())));
        assert!(!publish(&|s| s.protection = Some(protection())), "the same again");
        assert!(publish(&|s| s.established = Established::Recheck));
        assert!(publish(&|s| s.policy = Arc::new(PolicyTable::empty(1))), "live flows are judged again");
        assert!(!publish(&|s| s.committed = 9));
        assert!(publish(&|s| s.established = Established::Keep));
    }

    #[test]
    fn adopted_is_the_slowest_and_freed_is_what_nobody_holds() {
        let mut publisher = Publisher::new(Snapshot::empty(2));
        let (mut a, mut b) = (publisher.reader(), publisher.reader());
        let (mut held_a, mut held_b) = (a.first(), b.first());
        assert_eq!(publisher.publish(Snapshot { committed: 7, ..Snapshot::empty(2) }), Generation(1));
        assert_eq!(publisher.adopted(), Generation(0));
        a.refresh(&mut held_a);
        assert_eq!((held_a.committed, publisher.adopted()), (7, Generation(0)));
        b.refresh(&mut held_b);
        assert_eq!(publisher.adopted_commit(), 7);
        publisher.publish(Snapshot::empty(2));
        assert!(publisher.held() > 0, "both old ones are in use");
        a.refresh(&mut held_a);
        assert_eq!(publisher.adopted(), Generation(1));
        b.refresh(&mut held_b);
        assert_eq!(publisher.adopted(), Generation(2));
        assert_eq!(publisher.adopted_commit(), 0, "the last snapshot embodies no commit");
        publisher.reclaim();
        assert_eq!(publisher.held(), 0);
    }
}
