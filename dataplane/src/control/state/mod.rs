//! The heart of the control thread, without its hands: objects, interfaces and neighbours in,
//! snapshots and actions out. Time is an argument.

mod aside;
mod commit;
mod consolidation;
mod hosts;
mod interfaces;
mod neighbours;
mod policy;
mod publication;
mod routes;
mod services;
mod staged;
mod tunnels;
mod wireguard;

pub use hosts::{HostList, Stage};

use super::desired::{Desired, EndpointId};
use super::set_names::SetNames;
use super::wireguard::{Outgoing, Wireguard};
use crate::conntrack::Masquerade;
use crate::fib::{Neighbours, PathMtus, Rib, TunnelKind};
use crate::net::{Addr, IfId, Mac, Nanos, Prefix, SharedMap, WorkerId};
use crate::policy::{Action as RuleAction, EndpointIdx, PolicyTable, RetiredTree, Rule, Rules, Shadow};
use crate::snapshot::Publisher;
use crate::wireguard::Keyring;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What is known of an interface that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its address.
    pub mac: Mac,
    /// The largest IP packet it takes.
    pub mtu: u16,
    /// This host's addresses on it, with prefix lengths.
    pub addresses: Vec<(Addr, u8)>,
    /// The kernel resolves its neighbours, and we follow; else we ask ourselves.
    pub kernel_neighbours: bool,
    /// The workers that serve its queues.
    pub queues: Vec<WorkerId>,
    /// Its device takes super-frames.
    pub super_frames: bool,
}

/// What an interface is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The network between nodes; with a VLAN, that tag on the named carrier.
    Uplink {
        /// The carrier's name, and the tag.
        vlan: Option<(Arc<str>, u16)>,
    },
    /// A workload of this node.
    Workload(EndpointId),
    /// Other nodes, through tunnels of a kind. No device.
    Tunnel(TunnelKind),
    /// This host.
    Host,
    /// This host's stack behind an uplink that a host endpoint protects.
    Stack {
        /// The uplink's name.
        uplink: Arc<str>,
    },
}

impl Purpose {
    /// The interface is made by opening it.
    pub fn is_tap(&self) -> bool {
        matches!(self, Self::Host | Self::Stack { .. })
    }
}

/// Something to be done to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send `frame` by `interface`.
    Send {
        /// By this interface; its carrier's queues.
        interface: IfId,
        /// A whole frame.
        frame: Vec<u8>,
    },
    /// Send `frame`, which tells a workload unasked where its gateway is, by `interface`.
    Announce {
        /// By this interface.
        interface: IfId,
        /// A whole frame.
        frame: Vec<u8>,
    },
    /// Have the kernel resolve `addr`.
    Resolve {
        /// On the interface of this name.
        interface: Arc<str>,
        /// The neighbour.
        addr: Addr,
    },
}

/// An interface that is wanted, whether it is there or not.
#[derive(Clone, Debug)]
struct Slot {
    name: Arc<str>,
    purpose: Purpose,
    /// `None`: not there, or not served.
    facts: Option<Facts>,
    up: bool,
}

type Owners = SharedMap<Arc<str>, EndpointId>;

/// The state.
pub struct State {
    desired: Desired,
    sets: SetNames,
    /// While an agent's stream is not in sync: what it said so far.
    fresh: Option<Desired>,
    slots: BTreeMap<IfId, Slot>,
    /// By name.
    names: HashMap<Arc<str>, IfId>,
    endpoints: SharedMap<EndpointId, EndpointIdx>,
    /// By interface, the endpoint that has it.
    owners: Owners,
    /// Endpoints whose interface has no number yet: all were taken.
    waiting: BTreeSet<EndpointId>,
    /// No number of an interface below is free.
    first_free: u16,
    /// Lists of the policy table besides those of `endpoints`.
    host_lists: BTreeMap<HostList, EndpointIdx>,
    /// As the kernel has them, those of uplinks apart.
    host_addresses: BTreeSet<Addr>,
    /// What the kernel's interfaces take that are up, by name.
    links: BTreeMap<Arc<str>, u32>,
    neighbours: Neighbours,
    path_mtus: PathMtus,
    /// Workloads' interfaces whose gateway is still to be announced, and how often.
    unannounced: BTreeMap<IfId, u8>,
    /// `None`: routes stay as they were published last.
    rib: Option<Rib>,
    /// Routes of the agent that lead over named interfaces, whose numbers may change, or to workloads.
    named_routes: routes::Named,
    /// Interfaces that may be others than they are in the snapshot.
    touched: publication::Touched,
    /// `None`: there was no need of a key so far, or there is none.
    wireguard: Option<Wireguard>,
    /// Its sessions, as workers are to have them.
    keyring: Arc<Keyring>,
    /// Messages of its handshakes that wait for the way to where they go, and since when.
    unsent: Vec<(Nanos, Outgoing)>,
    publisher: Publisher,
    policy: Arc<PolicyTable>,
    shadow: Option<Arc<Shadow>>,
    masquerade: Arc<Masquerade>,
    services: services::Held,
    committed: u64,
    max_interfaces: u16,
    /// Numbers of interfaces that are gone and that workers may still serve: not to be given again.
    retiring: BTreeSet<IfId>,
    /// Addresses of endpoints that are gone, or moved: their flows are to be forgotten.
    forgotten: Vec<Prefix>,
    /// Trees that no published policy has any more, until their counts are taken.
    retired_trees: Vec<RetiredTree>,
    /// Whether patched lists are to be compiled whole.
    pending: consolidation::Pending,
    /// What stands for rules that are missing, or that ask for sets that are.
    deny: Rules,
    /// Endpoints, or what is known of interfaces, changed since [`State::take_moved`].
    moved: bool,
    /// Interfaces, neighbours or routes changed, and that is not published.
    dirty: bool,
    /// Of the rest, something changed that is not published.
    judges_anew: bool,
}

impl State {
    /// Nothing desired, no interface.
    pub fn new(publisher: Publisher, max_interfaces: u16) -> Self {
        let policy = publisher.current().policy.clone();
        Self {
            desired: Desired::default(),
            sets: SetNames::default(),
            fresh: None,
            slots: BTreeMap::new(),
            names: HashMap::new(),
            endpoints: SharedMap::default(),
            owners: Owners::default(),
            waiting: BTreeSet::new(),
            first_free: 0,
            host_lists: BTreeMap::new(),
            host_addresses: BTreeSet::new(),
            links: BTreeMap::new(),
            neighbours: Neighbours::default(),
            path_mtus: PathMtus::default(),
            unannounced: BTreeMap::new(),
            rib: Some(Rib::default()),
            named_routes: routes::Named::default(),
            touched: publication::Touched::All,
            wireguard: None,
            keyring: Arc::default(),
            unsent: vec![],
            publisher,
            policy,
            shadow: None,
            masquerade: Arc::default(),
            services: services::Held::default(),
            committed: 0,
            max_interfaces,
            retiring: BTreeSet::new(),
            forgotten: vec![],
            retired_trees: vec![],
            pending: consolidation::Pending::default(),
            deny: [Rule::any(RuleAction::Deny)].into(),
            moved: false,
            dirty: false,
            judges_anew: false,
        }
    }

    /// The last transaction that was applied.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// The agent's stream has said everything.
    pub fn in_sync(&self) -> bool {
        self.fresh.is_none()
    }

    /// All neighbours that are known or asked for.
    pub fn neighbours(&self) -> &Neighbours {
        &self.neighbours
    }

    /// What was asked for.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }
}
