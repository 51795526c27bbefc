//! What is published: the snapshot built from all that is known.

use super::{Purpose, Slot, State};
use crate::fib::{Interface, Interfaces, Role, Workload};
use crate::net::{Generation, IfId};
use crate::snapshot::{Publisher, Snapshot};
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
            let known = self.interfaces();
            if known != *interfaces {
                interfaces = Arc::new(known);
            }
            let counted = |of: &&Interface| of.workload().is_some_and(Workload::has_quota);
            interfaces.iter().filter(counted).for_each(|of| current.quotas.open(of.id));
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
                host: self.host_of(slot),
                through: self.through(slot),
                untracked: self.has_untracked(slot),
            })
        };
        Interfaces::new(self.slots.iter().filter_map(of))
    }
}
