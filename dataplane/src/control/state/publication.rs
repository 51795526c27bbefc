//! What is published: the snapshot built from all that is known.

use super::{Purpose, Slot, State};
use crate::fib::{Interface, Interfaces, Role, Workload};
use crate::net::{Generation, IfId};
use crate::snapshot::{Publisher, Snapshot};
use std::collections::BTreeSet;
use std::sync::Arc;

impl State {
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
        let forwards_anew = std::mem::take(&mut self.dirty);
        if !std::mem::take(&mut self.judges_anew) && !forwards_anew {
            return false;
        }
        let current = self.publisher.current();
        let (mut fib, mut interfaces) = (current.fib.clone(), current.interfaces.clone());
        let mut overlay = current.overlay.clone();
        if forwards_anew {
            if let Some(known) = self.interfaces(&interfaces) {
                interfaces = Arc::new(known);
                let counted = |of: &&Interface| of.workload().is_some_and(Workload::has_quota);
                interfaces.iter().filter(counted).for_each(|of| current.quotas.open(of.id));
            }
            overlay = self.overlay();
            fib = self.routed(&interfaces, &overlay).unwrap_or(fib);
        }
        let services = self.addressed_services();
        self.publisher.publish(Snapshot {
            generation: Generation::default(),
            ways: Generation::default(),
            committed: self.committed,
            fib,
            interfaces,
            overlay,
            keyring: self.keyring.clone(),
            services,
            policy: self.policy.clone(),
            shadow: self.shadow.clone(),
            quotas: current.quotas.clone(),
            established: self.desired.established,
            tracking: self.desired.tracking,
            endpoint_to_host: self.desired.endpoint_to_host,
            masquerade: self.masquerade.clone(),
            protection: self.protection(),
        });
        true
    }

    /// The interfaces now; `None`: they are as they were.
    fn interfaces(&mut self, before: &Interfaces) -> Option<Interfaces> {
        let now = match std::mem::take(&mut self.touched) {
            Touched::All => {
                let all = self.all_interfaces();
                (all != *before).then_some(all)
            }
            Touched::Some(some) => {
                let one = |id: IfId| (id, self.slots.get(&id).and_then(|slot| self.interface(id, slot)));
                before.with(some.into_iter().map(one))
            }
        };
        debug_assert_eq!(now.as_ref().unwrap_or(before), &self.all_interfaces(), "a change was not noted");
        now
    }

    fn all_interfaces(&self) -> Interfaces {
        Interfaces::new(self.slots.iter().filter_map(|(id, slot)| self.interface(*id, slot)))
    }

    /// What workers are told of an interface, if it is there.
    fn interface(&self, id: IfId, slot: &Slot) -> Option<Interface> {
        let (carrier, vlan) = match &slot.purpose {
            Purpose::Uplink { vlan: Some((carrier, tag)) } => (self.id(carrier)?, Some(*tag)),
            _ => (id, None),
        };
        // A VLAN has its carrier's address, and is up when that is.
        let facts = slot.facts.as_ref()?;
        let role = match &slot.purpose {
            Purpose::Uplink { .. } => Role::Uplink,
            Purpose::Tunnel(kind) => Role::Tunnel(*kind),
            Purpose::Host => Role::Host,
            Purpose::Stack { .. } => Role::Stack,
            Purpose::Workload(of) => {
                let endpoint = self.desired.endpoints.get(of)?;
                Role::Workload(Workload {
                    name: endpoint.name.clone(),
                    endpoint: self.endpoint(of).0,
                    active: endpoint.active,
                    nets: endpoint.nets.clone(),
                    spoofable: endpoint.spoofable.clone(),
                    ingress: endpoint.ingress,
                    egress: endpoint.egress,
                })
            }
        };
        Some(Interface {
            id,
            name: slot.name.clone(),
            role,
            mac: facts.mac,
            mtu: facts.mtu,
            up: slot.up,
            carrier,
            vlan,
            queues: facts.queues.clone(),
            addresses: facts.addresses.clone(),
            host: self.host_of(slot),
            through: self.through(slot),
            untracked: self.has_untracked(slot),
            super_frames: facts.super_frames,
        })
    }
}

/// Interfaces that may be others than they were when last published.
#[derive(Debug)]
pub(super) enum Touched {
    /// Any may be: those of uplinks, tunnels and the host depend on each other.
    All,
    /// These alone.
    Some(BTreeSet<IfId>),
}

impl Default for Touched {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Touched {
    /// The interface of this slot is another, or new, or gone.
    pub(super) fn slot(&mut self, id: IfId, purpose: &Purpose) {
        match purpose {
            Purpose::Workload(_) => self.one(id),
            Purpose::Uplink { .. } | Purpose::Tunnel(_) | Purpose::Host | Purpose::Stack { .. } => {
                *self = Self::All;
            }
        }
    }

    /// A workload's interface is another.
    pub(super) fn one(&mut self, id: IfId) {
        if let Self::Some(some) = self {
            some.insert(id);
        }
    }
}
