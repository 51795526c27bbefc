//! Interfaces that are wanted, and what is known of those that are there.

use super::{Facts, Purpose, Slot, State};
use crate::control::desired::EndpointId;
use crate::fib::Source;
use crate::io::af_xdp::Ours;
use crate::net::{IfId, Nanos};
use std::collections::BTreeSet;
use std::sync::Arc;

impl State {
    /// Wants an uplink, or a VLAN on one, or the host port, for as long as the process runs.
    pub fn want(&mut self, name: &str, purpose: Purpose) -> Option<IfId> {
        self.slot(name, purpose)
    }

    /// No worker serves the interface any more that had this number.
    pub fn released(&mut self, id: IfId) {
        self.moved |= self.retiring.remove(&id);
    }

    /// Endpoints or interfaces have changed since this was asked last.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Interfaces whose workers are to let go of them.
    pub fn retiring(&self) -> &BTreeSet<IfId> {
        &self.retiring
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
            self.moved = true;
            self.dirty = true;
        }
    }

    /// The number of the interface of this name.
    pub fn id(&self, name: &str) -> Option<IfId> {
        self.names.get(name).copied()
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

    /// What an uplink should leave to us: the workloads' addresses, services, and where it is guarded
    /// the host's addresses.
    pub fn ours(&self) -> Ours {
        let prefixes = self.desired.endpoints.values().flat_map(|e| e.nets.iter().copied()).collect();
        let mut ours = Ours { prefixes, host: self.host_addresses(), ..Ours::default() };
        self.served(&mut ours);
        ours
    }

    /// The endpoint's interface is there and served.
    pub fn endpoint_up(&self, id: &EndpointId) -> bool {
        let endpoint = self.desired.endpoints.get(id);
        let slot = endpoint.and_then(|endpoint| self.slots.get(&self.id(&endpoint.interface)?));
        slot.is_some_and(|slot| slot.up && matches!(&slot.purpose, Purpose::Workload(of) if of == id))
    }

    /// Brings interfaces and static neighbours in line with what is desired.
    pub(super) fn follow_desired(&mut self, now: Nanos) {
        let desired = self.desired.endpoints.clone();
        self.moved = true;
        let led_through = self.led_through();
        self.slots.retain(|id, slot| {
            let keep = match &slot.purpose {
                Purpose::Stack { uplink } => led_through.contains(uplink),
                Purpose::Workload(of) => desired.get(of).is_some_and(|e| e.interface == slot.name),
                _ => true,
            };
            if !keep {
                self.names.remove(&slot.name);
                self.neighbours.forget_interface(*id);
                if slot.facts.is_some() {
                    self.retiring.insert(*id);
                }
            }
            keep
        });
        for uplink in led_through {
            if let Some(number) = self.id(&uplink) {
                self.slot(&format!("margay-up{}", number.0), Purpose::Stack { uplink });
            }
        }
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

    /// The interface's slot: the one it has, or a free one.
    fn slot(&mut self, name: &str, purpose: Purpose) -> Option<IfId> {
        if let Some(id) = self.id(name) {
            return (self.slots[&id].purpose == purpose).then_some(id);
        }
        let free = |id: &IfId| !self.slots.contains_key(id) && !self.retiring.contains(id);
        let id = (0..self.max_interfaces).map(IfId).find(free)?;
        let name: Arc<str> = name.into();
        self.names.insert(name.clone(), id);
        self.slots.insert(id, Slot { name, purpose, facts: None, up: false });
        Some(id)
    }
}
