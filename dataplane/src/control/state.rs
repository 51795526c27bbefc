//! The heart of the control thread, without its hands: objects, interfaces and neighbours in,
//! snapshots and actions out. Time is an argument.

use super::convert::FieldError;
use super::desired::{Desired, Endpoint, EndpointId, ObjectError, SetNames, Target};
use crate::fib::{
    Fib, Interface, Interfaces, Neighbours, Probe, Role, RouteEntry, RouteTarget, Source, Workload,
};
use crate::net::{Addr, Generation, IfId, Mac, Nanos, Prefix, WorkerId};
use crate::nodes::Event;
use crate::policy::{
    Action as RuleAction, Direction, EndpointIdx, IpSet, ListedPolicy, ListedProfile, PolicyTable,
    PolicyTree, Rule, RuleList, SetId, SetTable, TableError, TierList,
};
use crate::snapshot::{Publisher, Snapshot};
use crate::wire::{arp, ethernet, nd};
use margay_api::dataplane::v1 as pb;
use std::collections::{BTreeMap, BTreeSet};
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
    /// This host.
    Host,
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

/// The state.
pub struct State {
    desired: Desired,
    sets: SetNames,
    /// While an agent's stream is not in sync: what it said so far.
    fresh: Option<Desired>,
    slots: BTreeMap<IfId, Slot>,
    endpoints: BTreeMap<EndpointId, EndpointIdx>,
    neighbours: Neighbours,
    publisher: Publisher,
    policy: Arc<PolicyTable>,
    committed: u64,
    max_interfaces: u16,
    /// Numbers of interfaces that are gone and that workers may still serve: not to be given again.
    retiring: BTreeSet<IfId>,
    /// Addresses of endpoints that are gone, or moved: their flows are to be forgotten.
    forgotten: Vec<Prefix>,
    /// Trees that no published policy has any more, until their counts are taken.
    retired_trees: Vec<Arc<PolicyTree>>,
    /// Something changed that is not published.
    dirty: bool,
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
            endpoints: BTreeMap::new(),
            neighbours: Neighbours::default(),
            publisher,
            policy,
            committed: 0,
            max_interfaces,
            retiring: BTreeSet::new(),
            forgotten: vec![],
            retired_trees: vec![],
            dirty: false,
        }
    }

    // ---- What the agent says.

    /// A new stream begins: it will say everything again.
    pub fn begin(&mut self) {
        self.fresh = Some(Desired::default());
    }

    /// Applies a transaction whole, or refuses it whole and leaves everything as it was.
    pub fn commit(
        &mut self,
        changes: Vec<pb::Change>,
        commit: &pb::Commit,
        now: Nanos,
    ) -> Result<(), Vec<ObjectError>> {
        let (mut next, mut fresh, mut sets) = (self.desired.clone(), self.fresh.clone(), self.sets.clone());
        let mut errors = vec![];
        for change in changes {
            let Some(change) = change.change else { continue };
            if let Some(fresh) = &mut fresh
                && let Err(error) = fresh.apply(change.clone(), &mut sets)
            {
                errors.push(error);
                continue;
            }
            // Before the stream is in sync a delta may be about a set that only it has.
            if let Err(error) = next.apply(change, &mut sets)
                && fresh.is_none()
            {
                errors.push(error);
            }
        }
        if commit.in_sync
            && let Some(whole) = fresh.take()
        {
            next = whole;
        }
        errors.extend(self.conflicts(&next));
        if errors.is_empty() {
            sets.collect(&next);
            match self.policy_table(&next, &sets) {
                Ok(policy) => {
                    let kept = |tree: &Arc<PolicyTree>| policy.trees().any(|other| Arc::ptr_eq(tree, other));
                    self.retired_trees.extend(self.policy.trees().filter(|tree| !kept(tree)).cloned());
                    self.policy = Arc::new(policy);
                    self.forget_flows(&next);
                    (self.desired, self.fresh, self.sets) = (next, fresh, sets);
                    self.committed = commit.generation;
                    self.follow_desired(now);
                    self.dirty = true;
                    self.publish();
                    return Ok(());
                }
                Err(error) => errors.push(error),
            }
        }
        Err(errors)
    }

    /// The last transaction that was applied.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// The agent's stream has said everything.
    pub fn in_sync(&self) -> bool {
        self.fresh.is_none()
    }

    /// What was asked for.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    // ---- Interfaces.

    /// Wants an uplink, or a VLAN on one, or the host port, for as long as the process runs.
    pub fn want(&mut self, name: &str, purpose: Purpose) -> Option<IfId> {
        self.slot(name, purpose)
    }

    /// No worker serves the interface any more that had this number.
    pub fn released(&mut self, id: IfId) {
        self.retiring.remove(&id);
    }

    /// Interfaces whose workers are to let go of them.
    pub fn retiring(&self) -> &BTreeSet<IfId> {
        &self.retiring
    }

    /// Addresses whose flows are to be forgotten, once.
    pub fn take_forgotten(&mut self) -> Vec<Prefix> {
        std::mem::take(&mut self.forgotten)
    }

    /// Trees that no worker judges by any more, for their last counts.
    pub fn take_retired_trees(&mut self) -> Vec<Arc<PolicyTree>> {
        let (free, held) = std::mem::take(&mut self.retired_trees)
            .into_iter()
            .partition(|tree| Arc::strong_count(tree) == 1);
        self.retired_trees = held;
        free
    }

    /// Every endpoint's policy now.
    pub fn policy(&self) -> &Arc<PolicyTable> {
        &self.policy
    }

    /// The endpoint's number in the policy table.
    pub fn endpoint_index(&self, id: &EndpointId) -> Option<EndpointIdx> {
        self.endpoints.get(id).copied()
    }

    /// The endpoint of a number in the policy table.
    pub fn endpoint_of(&self, index: EndpointIdx) -> Option<&Endpoint> {
        let (id, _) = self.endpoints.iter().find(|(_, of)| **of == index)?;
        self.desired.endpoints.get(id).map(|endpoint| &**endpoint)
    }

    /// Interfaces that carry packets and are wanted: name, number, purpose, and whether they are
    /// there. VLANs are not among them: their carrier is.
    pub fn wanted(&self) -> impl Iterator<Item = (IfId, &Arc<str>, &Purpose, bool)> {
        let carries = |slot: &&Slot| !matches!(slot.purpose, Purpose::Uplink { vlan: Some(_) });
        self.slots
            .iter()
            .filter(move |(_, slot)| carries(slot))
            .map(|(id, slot)| (*id, &slot.name, &slot.purpose, slot.facts.is_some()))
    }

    /// An interface is there and served, or what is known of it has changed.
    pub fn attached(&mut self, id: IfId, facts: Facts, now: Nanos) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.facts.as_ref() == Some(&facts) && slot.up {
            return;
        }
        slot.facts = Some(facts);
        slot.up = true;
        self.follow_desired(now);
        self.dirty = true;
    }

    /// An interface is no longer served.
    pub fn detached(&mut self, id: IfId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.facts = None;
            slot.up = false;
            self.neighbours.forget_interface(id);
            self.dirty = true;
        }
    }

    /// The number of the interface of this name.
    pub fn id(&self, name: &str) -> Option<IfId> {
        self.slots.iter().find(|(_, slot)| &*slot.name == name).map(|(id, _)| *id)
    }

    /// The number of the uplink of this name, a VLAN's too.
    pub fn uplink(&self, name: &str) -> Option<IfId> {
        let id = self.id(name)?;
        matches!(self.slots[&id].purpose, Purpose::Uplink { .. }).then_some(id)
    }

    /// The VLANs that are wanted on a carrier.
    pub fn vlans_on(&self, carrier: IfId) -> Vec<(IfId, Arc<str>)> {
        let Some(name) = self.slots.get(&carrier).map(|slot| slot.name.clone()) else { return vec![] };
        let on =
            |slot: &Slot| matches!(&slot.purpose, Purpose::Uplink { vlan: Some((of, _)) } if *of == name);
        self.slots.iter().filter(|(_, slot)| on(slot)).map(|(id, slot)| (*id, slot.name.clone())).collect()
    }

    /// Destinations that an uplink should leave to us: the workloads' addresses.
    pub fn ours(&self) -> Vec<Prefix> {
        let nets: BTreeSet<Prefix> =
            self.desired.endpoints.values().flat_map(|e| e.nets.iter().copied()).collect();
        nets.into_iter().collect()
    }

    // ---- Neighbours and time.

    /// News from a worker.
    pub fn event(&mut self, event: &Event, now: Nanos) -> Option<Action> {
        match *event {
            Event::NeighbourSeen { interface, addr, mac } => {
                if self.neighbours.learn(interface, addr, mac, Source::Seen, now) {
                    self.dirty = true;
                }
                None
            }
            Event::NeighbourWanted { interface, addr } => {
                let slot = self.slots.get(&interface)?;
                if slot.facts.as_ref()?.kernel_neighbours {
                    return Some(Action::Resolve { interface: slot.name.clone(), addr });
                }
                let probe = self.neighbours.wanted(interface, addr, now)?;
                self.question(probe)
            }
            Event::Dropped { .. } => None,
        }
    }

    /// News from the kernel's neighbour table; `None`: it has no answer.
    pub fn kernel_neighbour(&mut self, interface: IfId, addr: Addr, mac: Option<Mac>, now: Nanos) {
        let news = match mac {
            Some(mac) => self.neighbours.learn(interface, addr, mac, Source::Kernel, now),
            None => self.neighbours.forget(interface, addr),
        };
        if news {
            self.dirty = true;
        }
    }

    /// Lets time pass. To be called about once a second.
    pub fn tick(&mut self, now: Nanos) -> Vec<Action> {
        let (probes, gone) = self.neighbours.tick(now);
        if gone {
            self.dirty = true;
        }
        self.publisher.reclaim();
        probes.into_iter().filter_map(|probe| self.question(probe)).collect()
    }

    // ---- Publication.

    /// The publisher.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The agent's generation that every worker has adopted.
    pub fn adopted(&mut self) -> u64 {
        self.publisher.adopted_commit()
    }

    /// Publishes what has changed since the last time, if anything has. To be called after every
    /// batch of news.
    pub fn publish(&mut self) -> bool {
        if !std::mem::take(&mut self.dirty) {
            return false;
        }
        let interfaces = self.interfaces();
        let routes: Vec<RouteEntry> = self.routes().collect();
        // Values are indexes: too many routes for one would need more memory than there is.
        let fib = Fib::build(&routes, &interfaces, &self.neighbours).unwrap_or_default();
        self.publisher.publish(Snapshot {
            generation: Generation::default(),
            committed: self.committed,
            fib: Arc::new(fib),
            interfaces: Arc::new(interfaces),
            policy: self.policy.clone(),
            established: self.desired.established,
            endpoint_to_host: self.desired.endpoint_to_host,
        });
        true
    }

    /// The endpoint's interface is there and served.
    pub fn endpoint_up(&self, id: &EndpointId) -> bool {
        let slot =
            self.slots.values().find(|slot| matches!(&slot.purpose, Purpose::Workload(of) if of == id));
        slot.is_some_and(|slot| slot.up)
    }

    /// Brings interfaces and static neighbours in line with what is desired.
    fn follow_desired(&mut self, now: Nanos) {
        let desired = self.desired.endpoints.clone();
        self.slots.retain(|id, slot| {
            let keep = match &slot.purpose {
                Purpose::Workload(of) => desired.get(of).is_some_and(|e| e.interface == slot.name),
                _ => true,
            };
            if !keep {
                self.neighbours.forget_interface(*id);
                if slot.facts.is_some() {
                    self.retiring.insert(*id);
                }
            }
            keep
        });
        self.endpoints.retain(|id, _| desired.contains_key(id));
        for (id, endpoint) in &desired {
            let Some(interface) = self.slot(&endpoint.interface, Purpose::Workload(id.clone())) else {
                continue;
            };
            if let Some(mac) = endpoint.mac {
                for net in &endpoint.nets {
                    self.neighbours.learn(interface, net.addr(), mac, Source::Static, now);
                }
            }
        }
    }

    /// Notes the addresses that no endpoint has any more, or another one has.
    fn forget_flows(&mut self, next: &Desired) {
        for (id, endpoint) in &self.desired.endpoints {
            let still = next.endpoints.get(id).map(|next| next.nets.as_slice()).unwrap_or_default();
            self.forgotten.extend(endpoint.nets.iter().filter(|net| !still.contains(net)));
        }
    }

    /// Endpoints whose interface is another's, or that are too many.
    fn conflicts(&self, next: &Desired) -> Vec<ObjectError> {
        let refuse = |endpoint: &Endpoint, why: String| ObjectError {
            object: format!("workload endpoint {}", endpoint.name),
            error: FieldError::new("interface_name", why),
        };
        let fixed = self.slots.values().filter(|slot| !matches!(slot.purpose, Purpose::Workload(_)));
        let mut taken: BTreeMap<Arc<str>, Arc<str>> =
            fixed.map(|slot| (slot.name.clone(), "an uplink or the host port".into())).collect();
        let mut errors = vec![];
        for endpoint in next.endpoints.values() {
            if taken.len() >= usize::from(self.max_interfaces) {
                errors.push(refuse(endpoint, format!("no room: {} interfaces are in use", taken.len())));
            } else if let Some(other) = taken.insert(endpoint.interface.clone(), endpoint.name.clone()) {
                errors.push(refuse(endpoint, format!("{} belongs to {other} already", endpoint.interface)));
            }
        }
        errors
    }

    /// The interface's slot: the one it has, or a free one.
    fn slot(&mut self, name: &str, purpose: Purpose) -> Option<IfId> {
        if let Some((id, slot)) = self.slots.iter().find(|(_, slot)| &*slot.name == name) {
            return (slot.purpose == purpose).then_some(*id);
        }
        let free = |id: &IfId| !self.slots.contains_key(id) && !self.retiring.contains(id);
        let id = (0..self.max_interfaces).map(IfId).find(free)?;
        self.slots.insert(id, Slot { name: name.into(), purpose, facts: None, up: false });
        Some(id)
    }

    fn interfaces(&self) -> Interfaces {
        let of = |(id, slot): (&IfId, &Slot)| {
            let (carrier, vlan) = match &slot.purpose {
                Purpose::Uplink { vlan: Some((carrier, tag)) } => (self.id(carrier)?, Some(*tag)),
                _ => (*id, None),
            };
            // A VLAN has its carrier's address, and is up when that is.
            let facts = slot.facts.as_ref()?;
            let role = match &slot.purpose {
                Purpose::Uplink { .. } => Role::Uplink,
                Purpose::Host => Role::Host,
                Purpose::Workload(of) => {
                    let endpoint = self.desired.endpoints.get(of)?;
                    Role::Workload(Workload {
                        name: endpoint.name.clone(),
                        endpoint: self.endpoint(of).0,
                        active: endpoint.active,
                        nets: endpoint.nets.clone(),
                        spoofable: endpoint.spoofable.clone(),
                    })
                }
            };
            Some(Interface {
                id: *id,
                name: slot.name.clone(),
                role,
                mac: facts.mac,
                mtu: facts.mtu,
                up: slot.up,
                carrier,
                vlan,
                queues: facts.queues.clone(),
                addresses: facts.addresses.clone(),
            })
        };
        Interfaces::new(self.slots.iter().filter_map(of))
    }

    fn routes(&self) -> impl Iterator<Item = RouteEntry> {
        self.desired.routes.iter().map(|(destination, target)| {
            let target = match target {
                // An interface that has no number cannot be an index either.
                Target::Workload(id) => {
                    let interface = self.desired.endpoints.get(id).and_then(|e| self.id(&e.interface));
                    RouteTarget::Workload(interface.unwrap_or(IfId::NONE))
                }
                Target::Gateway { gateway, interface, .. } => RouteTarget::Gateway {
                    gateway: *gateway,
                    interface: (!interface.is_empty()).then(|| self.id(interface).unwrap_or(IfId::NONE)),
                },
                Target::Local => RouteTarget::Local,
                Target::Blackhole => RouteTarget::Blackhole,
            };
            RouteEntry { destination: *destination, target }
        })
    }

    fn endpoint(&self, id: &EndpointId) -> EndpointIdx {
        self.endpoints.get(id).copied().unwrap_or(EndpointIdx(u32::MAX))
    }

    /// Every endpoint's policy under `desired`. Gives numbers to new endpoints.
    fn policy_table(&mut self, desired: &Desired, sets: &SetNames) -> Result<PolicyTable, ObjectError> {
        let used: BTreeSet<EndpointIdx> = self.endpoints.values().copied().collect();
        let free = (0..).map(EndpointIdx).filter(|index| !used.contains(index));
        let new = desired.endpoints.keys().filter(|id| !self.endpoints.contains_key(id)).cloned();
        let numbered: Vec<_> = new.zip(free).collect();
        self.endpoints.extend(numbered);
        let mut members = vec![None; sets.bound()];
        for (name, id) in sets.iter() {
            members[id.0 as usize] = desired.ip_sets.get(name).cloned();
        }
        let refuse = |object: String, why: &dyn std::fmt::Display| ObjectError {
            object,
            error: FieldError::new("", why),
        };
        let known: BTreeSet<SetId> =
            sets.iter().filter(|(name, _)| desired.ip_sets.contains_key(*name)).map(|(_, id)| id).collect();
        // Most transactions leave the sets alone, and they may have millions of members.
        let same = |old: &Option<Arc<IpSet>>, new: &Option<Arc<IpSet>>| match (old, new) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        let current = self.policy.sets();
        let table = if current.all().len() == members.len()
            && current.all().iter().zip(&members).all(|(a, b)| same(a, b))
        {
            current.clone()
        } else {
            Arc::new(SetTable::new(members).map_err(|e| refuse("IP sets".into(), &e))?)
        };
        let mut builder = self.policy.next(table);
        for endpoint in desired.endpoints.values() {
            let index = self.endpoint(&endpoint.id);
            let bound = builder.bind(
                index,
                rule_list(desired, &known, endpoint, Direction::Ingress),
                rule_list(desired, &known, endpoint, Direction::Egress),
            );
            bound.map_err(|e: TableError| {
                refuse(format!("policy of workload endpoint {}", endpoint.name), &e)
            })?;
        }
        Ok(builder.finish())
    }

    /// The frame that asks a neighbour for its address.
    fn question(&self, probe: Probe) -> Option<Action> {
        let slot = self.slots.get(&probe.interface)?;
        let facts = slot.facts.as_ref()?;
        let vlan = match &slot.purpose {
            Purpose::Uplink { vlan } => vlan.as_ref().map(|(_, tag)| *tag),
            _ => None,
        };
        let mac = if slot.purpose == Purpose::Host { Interfaces::HOST_PORT_MAC } else { facts.mac };
        let own = facts.addresses.iter().map(|(addr, _)| *addr).find(|own| own.is_v4() == probe.addr.is_v4());
        let frame = if probe.addr.is_v4() {
            let ask = arp::Arp {
                operation: arp::Operation::Request,
                sender_mac: mac,
                sender: own.unwrap_or(Interfaces::GATEWAY_V4),
                target_mac: Mac::default(),
                target: probe.addr,
            };
            let to = probe.mac.unwrap_or(Mac::BROADCAST);
            let header = ethernet::Prebuilt::new(to, mac, vlan, ethernet::ARP);
            [header.as_slice(), &ask.emit()].concat()
        } else {
            let (packet, group) = nd::solicitation(probe.addr, own.unwrap_or(Interfaces::GATEWAY_V6), mac);
            let header = ethernet::Prebuilt::new(probe.mac.unwrap_or(group), mac, vlan, ethernet::IPV6);
            [header.as_slice(), &packet].concat()
        };
        Some(Action::Send { interface: probe.interface, frame })
    }
}

/// All that judges one direction of an endpoint. What is missing denies.
fn rule_list(
    desired: &Desired,
    known: &BTreeSet<SetId>,
    endpoint: &Endpoint,
    direction: Direction,
) -> RuleList {
    let deny: Arc<[Rule]> = Arc::new([Rule::any(RuleAction::Deny)]);
    let or_deny = |rules: Option<&Arc<[Rule]>>| match rules {
        Some(rules) => {
            let mut named = rules.iter().flat_map(|r| r.address_sets().chain(r.port_sets()));
            if named.all(|id| known.contains(&id)) { rules.clone() } else { deny.clone() }
        }
        None => deny.clone(),
    };
    let tier = |tier: &super::desired::Tier| {
        let ids = if direction == Direction::Ingress { &tier.ingress } else { &tier.egress };
        let policies = ids.iter().map(|id| {
            let policy = desired.policies.get(id);
            let rules =
                policy.map(|p| if direction == Direction::Ingress { &p.inbound } else { &p.outbound });
            ListedPolicy { id: id.clone(), rules: or_deny(rules) }
        });
        TierList { name: tier.name.clone(), default: tier.default, policies: policies.collect() }
    };
    let profile = |name: &Arc<str>| {
        let profile = desired.profiles.get(name);
        let rules = profile.map(|p| if direction == Direction::Ingress { &p.inbound } else { &p.outbound });
        ListedProfile { name: name.clone(), rules: or_deny(rules) }
    };
    RuleList {
        tiers: endpoint.tiers.iter().map(tier).filter(|tier| !tier.policies.is_empty()).collect(),
        profiles: endpoint.profiles.iter().map(profile).collect(),
    }
}
